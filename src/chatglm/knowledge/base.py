"""`Base`: a searchable set of documents in one file. `Bases`: several bases, with the access rights of one user."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from chatglm.errors import ChatGLMError, DependencyError, InputError, OutputError, ServiceError, UnsupportedError
from chatglm.knowledge.answering import Event, Request, aask, ask, check_prompt
from chatglm.knowledge.deleted import note_of
from chatglm.knowledge.external import External, is_external
from chatglm.knowledge.indexing import Indexer, Item, Progress, Report, items_of, items_of_folder
from chatglm.knowledge.large import finder_of
from chatglm.knowledge.models import Embedder, Reranker, check_address, embedder_of, reranker_of
from chatglm.knowledge.packing import Passage, packed
from chatglm.knowledge.places import emptied, external_of, place_of
from chatglm.knowledge.reading import Limits, Readers, Reading
from chatglm.knowledge.searching import Answerable, Hit, Hits, Mode, answerable, rarity, search
from chatglm.knowledge.store import (
    BATCH,
    LEFT,
    NEW,
    ROLES,
    File,
    NotFoundError,
    Role,
    Store,
    StoredPiece,
    base_file,
    base_names,
    check_foreign,
    part_of,
    placed,
    remains,
    withdraw,
)
from chatglm.knowledge.summarising import Summary, SummaryEvent, SummaryRequest, asummarise, known_summary, summarise
from chatglm.knowledge.tool import SearchKnowledge
from chatglm.knowledge.vectors import Neighbours, Vectors

if TYPE_CHECKING:
    from typing_extensions import Self

    from chatglm.assistant.base import BaseAssistant
    from chatglm.knowledge.encodings import ByteMap
    from chatglm.knowledge.lexical import Finder
    from chatglm.knowledge.reading import Mark

__all__ = [
    "Base",
    "Bases",
    "Upload",
    "bases",
    "delete_base",
    "delete_file",
    "import_base",
    "open_base",
    "open_bases",
    "rename_base",
]

_log = logging.getLogger("chatglm.knowledge")

_PAUSE, _LONGEST_PAUSE = 1.0, 300.0
"""Seconds before background work that an error stopped is tried again: the first time, and at most."""
_LONGEST = {"about": 1_000, "prompt": 10_000}


@dataclass(frozen=True)
class Upload:
    """A file that is given as bytes. The base stores these bytes.

    Attributes:
        name: the name of the file in the base.
        data: the content of the file.
    """

    name: str
    data: bytes


class Base:
    """A set of documents in one SQLite file. Any number of threads and processes may use it. `open_base` returns one.

    Args:
        file: the database.
        make: create the file if it is missing.
        embedder: any value that `models.embedder_of` accepts. None: the embedder with which files were last added.
        reranker: any value that `models.reranker_of` accepts. None: the reranker that the base remembers.
        vectors_at: the external vector store, in the form of `places.place_of`. "none": the vectors are in the file.
            None: the place with which files were last added.
        limits: limits for reading documents. They apply only if `readers` is None.
        neighbours: creates the vector search of this base from its `Store`; it replaces the search of the vectors in
            the file (`external.py`). The base does not remember it, so `delete_base` needs it again.
        readers: worker processes that read documents. Several bases may share them; the caller closes them. None: the
            base starts its own.

    Raises:
        NotFoundError: the file is missing, and `make` is False. Every method raises it too if the base was renamed or
            deleted after it was opened.
        OutputError: the file cannot be created or read, is not a database, or was written by a newer chatglm. The
            methods raise it too if the file cannot be read or written, or is damaged.
        InputError: `vectors_at` names no store. (An unknown embedder or reranker is reported when it is first used.)
    """

    def __init__(
        self,
        file: Path,
        *,
        make: bool = True,
        embedder: Any = None,
        reranker: Any = None,
        vectors_at: str | None = None,
        limits: Limits | None = None,
        neighbours: Callable[[Store], Neighbours] | None = None,
        readers: Readers | None = None,
    ) -> None:
        if vectors_at not in (None, "none"):
            vectors_at = str(place_of(vectors_at))
        self.store = Store(file, make=make)
        self._readers, self._shares_readers = readers or Readers(limits), readers is not None
        self.finder: Finder | None = finder_of(self.store)
        self._indexer = Indexer(self.store, self._readers, self._filler, self._follow)
        self._given = embedder
        self._given_reranker = reranker
        self._given_place = vectors_at
        self._external = neighbours
        self._lock = threading.Lock()
        self._embedder: Embedder | None = None
        self._neighbours: Neighbours | None = None
        self._chosen = ("", "")
        """The settings that `_embedder` and `_neighbours` were made from."""
        self._not_emptied = ""
        self._stuck = ""
        """The error that stopped the background work; it is tried again later."""
        self._reranker: Reranker | None = None
        self._worker: threading.Thread | None = None
        self._worker_lock = threading.Lock()
        self._wanted = False
        """Whether there may be work that the worker has not seen yet. If so, it looks again before it ends."""
        self._woken = threading.Event()
        """Ends the worker's pause after an error."""
        self._closing = False

    @property
    def name(self) -> str:
        """The name of the base."""
        return self.store.name

    def close(self) -> None:
        """Stop the background work and close the file. Closing twice is allowed."""
        self._indexer.end()
        with self._worker_lock:
            self._closing = True
            self._woken.set()
        if (worker := self._worker) is not None:
            worker.join()
        if not self._shares_readers:
            self._readers.close()
        if isinstance(self._neighbours, External):
            self._neighbours.close()
        self.store.close()

    def rest(self) -> bool:
        """Close the file, and free the models and indexes in memory. The next use of the base loads them again.

        Returns:
            whether the file was closed. It stays open while the base is in use or works in the background.
        """
        if self.works or not self.store.rest():
            return False
        with self._lock:
            self._embedder = self._reranker = None
            if not isinstance(self._neighbours, External):
                self._neighbours = None
        self.finder = finder_of(self.store)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # Files

    def add(
        self, *sources: Path | str | Upload, wait: bool = True, ocr: str | None = None, progress: Progress | None = None
    ) -> Report:
        """Add files and folders. Unchanged files are only checked; they are read again if their stored text is damaged,
        or if `ocr` is given and they were read with another one. A changed file replaces its old version when the new
        version is completely indexed.

        If the embedder, the reranker or `vectors_at` of this `Base` was given as a text or path, it is stored as a
        setting of the base.

        Args:
            sources: paths of files and folders, or `Upload`s.
            wait: wait until all files are indexed and, if the base has an embedder, have vectors. Otherwise the work
                continues in the background, and the report lists the queued files.
            ocr: "auto": recognise text in pictures and on pages without text; "always": on all pages; "never"; None: as
                the file was read before, and "auto" for new files.
            progress: called after every batch.

        Raises:
            InputError: a path does not exist, a folder has more than a million files, two files would have the same
                name, a name is not valid, `ocr` is unknown, or the address of a model has a user or a password.
        """
        items: list[Item] = []
        for source in sources:
            if isinstance(source, Upload):
                items.append(Item(source.name, body=source.data))
            else:
                items += items_of([Path(source)])
        return self._add(items, (), wait, ocr, progress, again=True)

    def sync(
        self, folder: Path | str, *, delete: bool = True, ocr: str | None = None, progress: Progress | None = None
    ) -> Report:
        """Bring the base up to date with a folder: add new files, and index changed files again. It waits until all
        files are indexed.

        Args:
            delete: remove the files that came from this folder and are no longer in it. The files of a subfolder that
                cannot be listed stay.
            ocr, progress: see `add`.

        Raises:
            InputError: there is no such folder; also the errors of `add`.
        """
        items = items_of_folder(Path(folder))
        gone: list[str] = []
        if delete:
            unread = tuple(f"{item.name}/" for item in items if item.path is not None and item.path.is_dir())
            known = self._indexer.names_in(Path(folder)) - {item.name for item in items}
            gone = sorted(name for name in known if not name.startswith(unread))
        return self._add(items, gone, True, ocr, progress, again=False)

    def _add(
        self,
        items: Sequence[Item],
        gone: Sequence[str],
        wait: bool,
        ocr: str | None,
        progress: Progress | None,
        again: bool,
    ) -> Report:
        if ocr not in (None, "auto", "always", "never"):
            raise InputError(f"ocr={ocr!r:.40}: must be auto, always or never")
        self._remember()
        queued = self._indexer.enqueue(items, ocr=ocr, again=again)
        if gone:
            self._indexer.remove(gone)
        if wait:
            self._indexer.work(queued.ids, progress)
        else:
            self.resume()
        return self._indexer.outcome(queued, gone)

    def _remember(self) -> None:
        """Store the models that were given as text, so that later searches use the same ones."""
        given = {"embedder": self._given, "reranker": self._given_reranker, "vectors_at": self._given_place}
        named = {key: str(model) for key, model in given.items() if isinstance(model, str | Path)}
        self.configure(**{key: None if model == "none" else model for key, model in named.items()})

    def remove(self, *names: str, wait: bool = True) -> int:
        """Remove files by name. When this returns, no search finds them any more.

        Args:
            wait: delete their data, and finish other work on the base, before this returns. Otherwise this is done in
                the background.

        Returns:
            how many of the files the base had.
        """
        count = self._indexer.remove(names)
        if count and not wait:
            self.resume()
        elif count:
            self._indexer.work()
            # If another process is working, it may not look at these files again.
            if self.store.unfinished(vectors=False):
                self.resume()
        return count

    def retry(self, *names: str) -> int:
        """Read failed files again, in the background. Returns how many of the named files had failed."""
        count = self._indexer.retry(names)
        if count:
            self.resume()
        return count

    @property
    def works(self) -> bool:
        """Whether a background thread of this `Base` is reading files, indexing them or making vectors."""
        worker = self._worker
        return worker is not None and worker.is_alive()

    @property
    def unfinished(self) -> bool:
        """Whether `resume` has something to do, for example because a process was killed."""
        given = self.store.meta("embedder") if self._given is None else self._given
        return self.store.unfinished(vectors=self._external is not None or given not in ("", "none"))

    def resume(self) -> None:
        """Start the background work on queued files and missing vectors, if it does not run already."""
        with self._worker_lock:
            self._wanted = True
            self._woken.set()
            if not self.works:
                self._worker = threading.Thread(target=self._work, name=f"chatglm knowledge {self.name}", daemon=True)
                self._worker.start()

    def _work(self) -> None:
        pause = _PAUSE
        while True:
            with self._worker_lock:
                if not self._wanted:
                    self._worker = None
                    return
                self._wanted = False
                self._woken.clear()
            try:
                # Another process may be working, and may have looked at the queue for the last time. None: wait until
                # it has ended, and look again.
                self._indexer.work(None)
                pause, self._stuck = _PAUSE, ""
            except ChatGLMError as error:  # for example a full disk; the files stay queued
                if str(error) != self._stuck:
                    self._stuck = str(error)
                    _log.warning("base %s: work in the background stopped (%s); it is tried again", self.name, error)
                self._woken.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                with self._worker_lock:
                    self._wanted = not self._closing

    def wait(self, progress: Progress | None = None) -> None:
        """Wait until no file is queued and, if vectors can be made, every piece has one."""
        self._indexer.work(None, progress)

    def files(self) -> list[File]:
        """The files, in the order of their names."""
        return self.store.files()

    def pieces(self, name: str) -> list[StoredPiece]:
        """The pieces of a file in its order, including disabled ones.

        Raises:
            NotFoundError: the base has no such file.
        """
        return self.store.pieces(name)

    def text(self, name: str, start: int = 0, end: int | None = None) -> str:
        """The text of a file from character `start` to before `end`; None: to the end of the text.

        Raises:
            NotFoundError: the base has no such file, or it has not been read, or could not be read.
        """
        return self.store.text(name, start, end)

    def reading(self, name: str) -> Reading:
        """A file's text with its marks (headings, pages …) and its map from characters to bytes of the file.

        Raises:
            NotFoundError: the base has no such file, or it has not been read, or could not be read.
        """
        return self.store.reading_of(name)

    def edit(self, piece: int, text: str | None) -> None:
        """Change the text of a piece for search and display. None disables the piece: no search finds it any more.

        When the file is indexed again, the edit is kept if the new version has a piece with the same original text.
        The vector of the new text is made in the background.

        Args:
            piece: the id of the piece.
            text: 1 to 10,000 characters, or None.

        Raises:
            NotFoundError: there is no such piece.
            InputError: the text is empty or too long.
        """
        self.store.edit(piece, text)
        if self.store.meta("vectors"):
            self.resume()

    # Settings

    @property
    def trouble(self) -> str:
        """Why vectors could not be made when this `Base` last indexed files, why its documents could not be deleted
        from an external store that it no longer uses, or why its work in the background stopped; "" if there was no
        problem."""
        return "; ".join(filter(None, (self._indexer.trouble, self._not_emptied, self._stuck)))

    def configure(self, **settings: str | None) -> None:
        """Store settings of the base: `about`, `embedder`, `reranker`, `vectors_at`, `prompt`, `strict` and others.
        None removes a setting. If `vectors_at` changes, the base's documents are deleted from the old store when files
        are next indexed.

        Raises:
            InputError: a name is reserved, a value is too long, `prompt` cannot be used (`answering.check_prompt`),
                `vectors_at` names no store, or an address has a password. Nothing was stored.
        """
        for key, most in _LONGEST.items():
            if len(settings.get(key) or "") > most:
                raise InputError(f"{key}: longer than {most:,} characters")
        for key in settings:
            if key in ("grams", "splitter", "change", "counted", "taken", "vectors", "id") or key.startswith(LEFT):
                raise InputError(f"{key}: is not a setting")
        for key in ("embedder", "reranker"):
            check_address(settings.get(key))
        if place := settings.get("vectors_at"):
            settings["vectors_at"] = str(place_of(place))
        if "vectors_at" in settings:
            settings |= self._left(settings["vectors_at"] or "")
        if prompt := settings.get("prompt"):
            check_prompt(prompt)
        if any(self.store.meta(key) != (value or "") for key, value in settings.items()):
            self.store.set_meta(settings)

    def _left(self, new: str) -> dict[str, str | None]:
        """The settings that record which external stores the base no longer uses when it changes to another one.

        Args:
            new: the address of the new store; "": none.
        """
        noted: dict[str, str | None] = {}
        for old in (self.store.meta("vectors_at"), *self.store.metas(LEFT)):
            if old:
                same = bool(new) and place_of(old).where == place_of(new).where
                noted[LEFT + old] = None if same else self.store.meta(LEFT + old) or NEW
        return noted

    def _empty_left(self, *, again: bool = False) -> dict[str, str]:
        """Delete the base's documents from the external stores that it no longer uses. See `places.emptied` for the
        result.

        Args:
            again: also try the stores in which the deletion failed before.
        """
        noted = {place: why for place, why in self.store.metas(LEFT).items() if again or why == NEW}
        if not noted:
            return {}
        if self._external is None:
            with self._lock:
                self._follow_settings()  # some stores allow only one open client at a time
        found = emptied(noted, self.store.meta("id"))
        if NEW in noted.values() and is_external(self.store.meta("vectors")):
            self.store.forget_vectors()  # they were in the old store
        self.store.set_meta({LEFT + place: why or None for place, why in found.items()})
        return found

    def _filler(self) -> Neighbours | None:
        why = list(filter(None, self._empty_left().values()))
        again = f"`chatglm knowledge check {self.name} --repair` tries again"
        self._not_emptied = "; ".join((*why, again)) if why else ""
        return self.neighbours()

    def setting(self, key: str, default: str = "") -> str:
        """A setting of the base, as `configure` stored it; `default` if it is not set."""
        return self.store.meta(key, default)

    # Search

    def search(
        self,
        question: str,
        *,
        k: int = 5,
        files: Sequence[str] = (),
        threshold: float | None = None,
        mode: Mode = "auto",
        earlier: str = "",
    ) -> Hits:
        """The pieces that match a question best, the best first. See `searching.search` for the arguments.

        Raises:
            InputError: an argument is wrong.
            NotFoundError: there is no such file.
        """
        return search([self], question, k=k, files=files, threshold=threshold, mode=mode, earlier=earlier)

    def neighbours(self) -> Neighbours | None:
        """The vector search of the base; None if the base has no embedder.

        Raises:
            InputError: the vectors are in an external store, but the base has no embedder; or the embedder is unknown.
            DependencyError: a package is missing.
            ServiceError: the external store cannot be opened.
            UnsupportedError: the vectors are in a store of LangChain that was passed from Python, and `neighbours` was
                not given.
        """
        with self._lock:
            if self._external is None:
                self._follow_settings()
            elif self._neighbours is None:
                self._neighbours = self._external(self.store)
            if self._neighbours is None:
                model, place = self._model(), self._place()
                if place:
                    if model is None:
                        raise InputError("vectors_at: needs an embedder, which makes the vectors; add files with one")
                    self._neighbours = external_of(self.store, place, model)
                elif model is not None:
                    self._neighbours = Vectors(self.store, model)
            if self._neighbours is None and self._given is None and is_external(made := self.store.meta("vectors")):
                raise UnsupportedError(
                    f"its vectors are in {made}, which can only be opened from Python: `open_base(name, neighbours=…)` "
                    "or `Shelf(neighbours=…)`; see docs/knowledge.md, Beyond one machine"
                )
            return self._neighbours

    def _follow_settings(self) -> None:
        """Forget the embedder and the external store if another program has chosen others."""
        chosen = (self._place(), self.store.meta("embedder") if self._given is None else "")
        if chosen != self._chosen:
            if isinstance(self._neighbours, External):
                self._neighbours.close()
            self._embedder = self._neighbours = None
            self._chosen = chosen

    def _place(self) -> str:
        given = self.store.meta("vectors_at") if self._given_place is None else self._given_place
        return "" if given == "none" else given

    def _model(self) -> Embedder | None:
        if self._embedder is None:
            given = self._given if self._given is not None else self.store.meta("embedder")
            self._embedder = embedder_of(given)
        return self._embedder

    def _follow(self) -> None:
        if self.finder is not None:
            self.finder.follow()

    def reranker(self) -> Reranker | None:
        """The model that reranks hits; None if the base has none.

        Raises:
            ChatGLMError: as `models.reranker_of`.
        """
        with self._lock:
            if self._reranker is None:
                given = self._given_reranker if self._given_reranker is not None else self.store.meta("reranker")
                self._reranker = reranker_of(given)
            return self._reranker

    # Summaries

    def summarise(self, assistant: BaseAssistant, files: Sequence[str] = (), **options: Any) -> Generator[SummaryEvent]:
        """Summarise files of any length. Edits of pieces are ignored: the original texts are summarised.

        Yields `Progress` several times, then the summary as `TextDelta`s, its citations, and finally `Summary`. With
        `model=…` the answers of the model are stored in the base, and the same call continues a run that was stopped
        or killed.

        Args:
            files: names of files, in the order of the summary. Empty: all files that have pieces.
            options: see `summarising.SummaryRequest`.

        Raises:
            NotFoundError: there is no such file.
            ChatGLMError: as `summarising.asummarise`.
        """
        return summarise(_BaseTexts(self.store, files), assistant, SummaryRequest(**options))

    def known_summary(self, files: Sequence[str] = (), **options: Any) -> Summary | None:
        """The stored result of `summarise` with the same arguments; None if nothing is stored. Asks no model.

        Raises:
            NotFoundError: there is no such file.
            InputError, UnsupportedError: an option is wrong.
        """
        return known_summary(_BaseTexts(self.store, files), SummaryRequest(**options))

    def asummarise(
        self, assistant: BaseAssistant, files: Sequence[str] = (), **options: Any
    ) -> AsyncGenerator[SummaryEvent]:
        """`summarise` for coroutines."""
        return asummarise(_BaseTexts(self.store, files), assistant, SummaryRequest(**options))

    # Maintenance

    def check(self, *, repair: bool = False) -> list[str]:
        """Check the base for damage. Returns one sentence for each fault; empty if there are none. See `Store.check`.

        Args:
            repair: rebuild damaged parts where that is possible, including vectors in an external store.

        Raises:
            OutputError: the file is so damaged that it cannot be read.
        """
        found = self.store.check(repair=repair)
        left = self._empty_left(again=True) if repair else self.store.metas(LEFT)
        for place, why in left.items():
            where = place_of(place).where
            untried = f"texts of the base may still be in {where}"
            found.append((untried if why == NEW else why) or f"texts were still in {where}; they were deleted")
        if self._external is not None or self._place():
            try:
                neighbours = self.neighbours()
                lost = neighbours.check(repair) if neighbours is not None else []
            except (ServiceError, InputError, DependencyError) as error:
                return [*found, f"vectors were not checked ({error})"]
            found += lost
            if lost and repair:
                self._indexer.work()
        return found

    def export(self, path: Path | str) -> None:
        """Write a copy of the base, as it is now, into a new file. The copy has no access rights. `import_base` reads
        it.

        Raises:
            InputError: the file exists.
            OutputError: the file cannot be written.
        """
        self.store.export(Path(path))


class _BaseTexts:
    """The files of a base in the form that `summarise` needs (`summarising.Texts`)."""

    def __init__(self, store: Store, files: Sequence[str]) -> None:
        found = [store.find(name) for name in files] or store.files()
        self._store, self.base = store, store.name
        self._files = [file for file in found if file.pieces]
        self.reading = store.reading_of
        self.kept = store.kept

    def files(self) -> Sequence[str]:
        return [file.name for file in self._files]

    def text(self, base: str, file: str, start: int, end: int) -> str:
        return self._store.text(file, start, end)

    def places(self, base: str, file: str) -> tuple[tuple[Mark, ...], ByteMap | None]:
        return self._store.places(file)

    def changed(self) -> float:
        return max((file.added for file in self._store.files()), default=0.0)


class Bases(Sequence[Base]):
    """Several bases that are searched as one, with the access rights of one user.

    Args:
        bases: the bases. Their order decides which `setting` and which reranker is used.
        who: the name of a user, or the digest of an API key. None: the owner of this machine.

    Raises:
        NotFoundError: `who` may not read one of the bases. The message is the same as for a base that does not exist.
            All methods that read the bases raise it too if the user may no longer read one of them.
    """

    def __init__(self, bases: Sequence[Base], *, who: str | None = None) -> None:
        for base in bases:
            permit(base, who, "read")
        self._bases = tuple(bases)
        self.who = who

    @overload
    def __getitem__(self, index: int) -> Base: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Base]: ...

    def __getitem__(self, index: int | slice) -> Base | Sequence[Base]:
        return self._bases[index]

    def __len__(self) -> int:
        return len(self._bases)

    def close(self) -> None:
        """Close every base. Closing twice is allowed."""
        for base in self._bases:
            base.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def search(
        self,
        question: str,
        *,
        k: int = 5,
        files: Sequence[str] = (),
        threshold: float | None = None,
        mode: Mode = "auto",
        earlier: str = "",
    ) -> Hits:
        """Search all bases together. The hits are the same as those of a single base that has all their files.

        See `searching.search` for the arguments.

        Raises:
            InputError: an argument is wrong.
            NotFoundError: no base has one of the files, or the user may no longer read a base.
        """
        return search(self._readable(), question, k=k, files=files, threshold=threshold, mode=mode, earlier=earlier)

    def answerable(self, question: str, *, files: Sequence[str] = ()) -> Answerable:
        """Estimate, without a language model, whether the bases have an answer to a question. See
        `searching.Answerable`.

        Raises:
            NotFoundError: no base has one of the files, or the user may no longer read a base.
        """
        return answerable(self._readable(), question, files=files)

    def passages(
        self, hits: Sequence[Hit], budget: float, *, k: int = 5, cost: Callable[[str], int] = len, **options: Any
    ) -> list[Passage]:
        """Build the passages for a prompt from hits: see `packing.packed`."""
        return packed(hits, budget, self.around(), k=k, cost=cost, **options)

    def ask(self, assistant: BaseAssistant | None, question: str, **options: Any) -> Generator[Event]:
        """Answer a question. Yields `Passages`, then text (`TextDelta`) and citations (`CitationEvent`) as they are
        generated, and finally `Done`.

        Args:
            assistant: the model that writes the answer. None: the answer consists of the best sentences of the
                documents.
            options: see `answering.Request`.

        Raises:
            InputError, UnsupportedError: an option is wrong.
            NotFoundError: no base has one of the files, or the user may no longer read a base.
            ChatGLMError: as the assistant's `stream`.
        """
        return ask(self, assistant, Request(question, **options))

    def aask(self, assistant: BaseAssistant | None, question: str, **options: Any) -> AsyncGenerator[Event]:
        """`ask` for coroutines."""
        return aask(self, assistant, Request(question, **options))

    def tool(self, *, k: int = 5, characters: int = 1_000) -> SearchKnowledge:
        """The tool `search_knowledge(question)` for models that call tools: see `tool.SearchKnowledge`."""
        return SearchKnowledge(lambda: self, k=k, characters=characters)

    def setting(self, key: str) -> str:
        """A setting of the first base that has a value for it; "" if none has."""
        return next(filter(None, (base.setting(key) for base in self._readable())), "")

    def rarity(self, grams: Iterable[str]) -> dict[str, float]:
        """The inverse document frequency of grams: see `searching.rarity`."""
        return rarity(self._readable(), grams)

    def text(self, base: str, file: str, start: int = 0, end: int | None = None) -> str:
        """The text of a file from character `start` to before `end`; None: to the end of the text.

        Raises:
            NotFoundError: the base is not one of these, it has no such file, or the file has no text yet.
        """
        return self._named(base).text(file, start, end)

    def places(self, base: str, file: str) -> tuple[tuple[Mark, ...], ByteMap | None]:
        """A file's marks and its map from characters to bytes: see `Store.places`.

        Raises:
            NotFoundError: the base is not one of these, it has no such file, or the file has no text yet.
        """
        return self._named(base).store.places(file)

    def _named(self, name: str) -> Base:
        found = next((base for base in self._readable() if base.name == name), None)
        if found is None:
            raise NotFoundError(f"base {name!r:.80}: is not one of the bases that are asked")
        return found

    def around(self) -> Callable[..., StoredPiece | None]:
        """A function that loads the piece of a hit, or another piece of the same file by its number. See
        `packing.Around`. The function caches the pieces.
        """
        by_name = {base.name: base for base in self._readable()}
        known: dict[tuple[str, str, int | None, int | None], StoredPiece | None] = {}

        def piece(hit: Hit, n: int | None = None) -> StoredPiece | None:
            base = by_name.get(hit.base)
            if base is None:
                raise NotFoundError(f"base {hit.base!r:.80}: is not one of the bases that are asked")
            key = (hit.base, hit.file, hit.piece if n is None else None, n)
            if key not in known:
                known[key] = base.store.piece(hit.file, key[2], n)
            return known[key]

        return piece

    def _readable(self) -> tuple[Base, ...]:
        """The bases, after another check of the access rights: an owner may have withdrawn them.

        Raises:
            NotFoundError: the user may no longer read a base.
        """
        for base in self._bases:
            permit(base, self.who, "read")
        return self._bases


def permit(base: Base, who: str | None, role: Role) -> None:
    """Check that a user has a role in a base.

    Args:
        who: the name of a user, or the digest of an API key. None: the owner of this machine, who may do everything.
        role: the role that the user needs.

    Raises:
        NotFoundError: the user may not even read the base. The message is the same as for a base that does not exist.
        InputError: the user may read the base, but does not have this role.
    """
    _check_role(base.name, base.store.role(who), role)


def _check_role(name: str, has: Role | None, role: Role) -> None:
    if has is None:
        raise _no_base(name)
    if ROLES.index(has) < ROLES.index(role):
        raise InputError(f"base {name!r}: you may only {has} it, but this needs the right to {role}; ask its owner")


def _no_base(name: str) -> NotFoundError:
    return NotFoundError(f"base {name!r:.80}: there is no such base; `chatglm knowledge list` shows all")


def bases(home: Path | None = None, *, who: str | None = None) -> list[str]:
    """The names of the bases that a user may read, sorted.

    Args:
        home: the home folder; None: that of `CHATGLM_HOME`.
        who: the name of a user, or the digest of an API key. None: the owner of this machine, who may read all.
    """
    names = base_names(home)
    if who is None:
        return names
    readable = []
    for name in names:
        file = base_file(name, home)
        with contextlib.suppress(OutputError, NotFoundError), contextlib.closing(Store(file, make=False)) as store:
            if store.role(who) is not None:
                readable.append(name)
    return readable


def open_base(
    name: str,
    *,
    create: bool = False,
    home: Path | None = None,
    who: str | None = None,
    role: Role = "read",
    embedder: Any = None,
    reranker: Any = None,
    vectors_at: str | None = None,
    limits: Limits | None = None,
    neighbours: Callable[[Store], Neighbours] | None = None,
    readers: Readers | None = None,
) -> Base:
    """Open a base by its name. The file is `knowledge/NAME.sqlite` in the home folder.

    Args:
        name: the name of the base.
        create: create the base if it does not exist. `who` then owns it.
        home: the home folder; None: that of `CHATGLM_HOME`.
        who: the name of a user, or the digest of an API key. None: the owner of this machine.
        role: the role that the user needs.
        embedder, reranker, vectors_at, limits, neighbours, readers: see `Base`.

    Raises:
        NotFoundError: there is no such base, or `who` may not read it.
        InputError: the name is not valid, `who` may read the base but does not have this role, or `vectors_at` names
            no store.
        OutputError: the file cannot be created or read.
    """
    file = base_file(name, home, make_folder=create)
    if create and not file.exists():
        with _part(file) as part:
            with contextlib.closing(Store(part)) as store:
                if who is not None:
                    store.share(who, "own")
            placed(part, file)  # False: another process has just created a base of this name; use that one
    if not file.exists():
        raise _no_base(name)
    base = Base(
        file,
        make=False,
        embedder=embedder,
        reranker=reranker,
        vectors_at=vectors_at,
        limits=limits,
        neighbours=neighbours,
        readers=readers,
    )
    try:
        permit(base, who, role)
    except BaseException:
        base.close()
        raise
    return base


def open_bases(names: Sequence[str], *, home: Path | None = None, who: str | None = None, **options: Any) -> Bases:
    """Open several bases to search them as one.

    Args:
        names: the names of the bases, each once.
        home, who, options: see `open_base`.

    Raises:
        InputError: there is no name, or a name twice.
        ChatGLMError: as `open_base`.
    """
    if not names or len(set(names)) != len(names):
        raise InputError("name the bases, each once")
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_base(name, home=home, who=who, **options)) for name in names]
        found = Bases(opened, who=who)
        stack.pop_all()
        return found


def delete_base(
    name: str,
    *,
    home: Path | None = None,
    who: str | None = None,
    neighbours: Callable[[Store], Neighbours] | None = None,
) -> list[str]:
    """Delete a base with all its files, and its documents in external stores. The owner of the machine can delete a
    damaged base, too.

    Args:
        neighbours: the same function as for `open_base`, if the base was opened with one. The base does not know the
            address of that store, so without `neighbours` its documents stay there.

    Returns:
        one sentence for each external store that may still have documents of the base. `deleted.check_deleted` tries
            again to delete them.

    Raises:
        NotFoundError: there is no such base, or `who` may not read it.
        InputError: `who` does not own it.
        OutputError: it cannot be deleted.
    """
    return delete_file(name, home=home, who=who, neighbours=neighbours)()


def delete_file(
    name: str,
    *,
    home: Path | None = None,
    who: str | None = None,
    neighbours: Callable[[Store], Neighbours] | None = None,
) -> Callable[[], list[str]]:
    """The first part of `delete_base`: delete the base's file.

    Returns:
        a function that deletes the documents in external stores, which may take long; its result is that of
            `delete_base`. Call it when the base is no longer open. If the process is killed before that,
            `deleted.check_deleted` deletes them.

    Raises:
        ChatGLMError: the errors of `delete_base`.
    """
    file = base_file(name, home)
    if not file.exists():
        raise _no_base(name)
    found = remains(file)
    _check_role(name, found.role(who), "own")
    meta = found.meta or {}
    places = [meta.get("vectors_at"), *(key.removeprefix(LEFT) for key in meta if key.startswith(LEFT))]
    note = note_of(file, meta.get("id", ""), list(filter(None, places))) if any(places) else None
    left: list[Callable[[], list[str]]] = [] if note is None else [note.settle]
    if is_external(made := meta.get("vectors", "")) and (neighbours is not None or note is None):
        left.append(_dropping(file, made, neighbours))
    if found.meta is None:
        why = "its file was damaged; if an external store had its vectors, texts of it may still be there"
        left.append(lambda: [why])
    try:
        withdraw(file)
    except BaseException:
        if note is not None and file.exists():
            note.drop()
        raise
    return lambda: [said for each in left for said in each()]


def _dropping(file: Path, made: str, neighbours: Callable[[Store], Neighbours] | None) -> Callable[[], list[str]]:
    """Prepare to delete the documents of a base in a store that was passed from Python.

    Args:
        file: the file of the base.
        made: the name of the store, as the base remembers it.
        neighbours: opens the store; None: it is not known here.

    Returns:
        a function that deletes them; call it after the base was deleted. Its result is that of `delete_base`.
    """
    left = f"its texts may still be in {made}"
    if neighbours is None:
        return lambda: [f"{left}, which only the program that made them can open: `delete_base(name, neighbours=…)`"]
    try:
        with contextlib.closing(Store(file, make=False)) as store:
            opened = neighbours(store)
            with store.reading() as connection:
                digests = [row["digest"] for row in connection.execute("SELECT digest FROM vector")]
    except Exception as error:
        why = f"{left} ({type(error).__name__}: {error})"
        return lambda: [why]

    def drop() -> list[str]:
        try:
            for at in range(0, len(digests), BATCH):
                opened.drop(digests[at : at + BATCH])
        except ChatGLMError as error:
            return [f"{left} ({error})"]
        finally:
            if isinstance(opened, External):
                opened.close()
        return []

    return drop


def rename_base(name: str, new: str, *, home: Path | None = None, who: str | None = None) -> None:
    """Rename a base. Its files, settings and access rights stay the same. If the base is open under its old name, in
    this process or another, its next use raises `NotFoundError`. If the process is killed during the call, the base
    has either its old name or its new one.

    Raises:
        NotFoundError: there is no such base, or `who` may not read it.
        InputError: `who` does not own it, or the new name is not valid or is taken. The message names no owner.
        OutputError: the file cannot be renamed.
    """
    with open_base(name, home=home, who=who, role="own") as base:
        base.store.rename(base_file(new, home))


def import_base(path: Path, name: str, *, home: Path | None = None, who: str | None = None) -> None:
    """Create a base from a file that `Base.export` wrote. The file is checked first. `who` owns the new base.

    Raises:
        InputError: the file is not a base or is damaged, or the name is not valid or is taken.
        OutputError: the base cannot be written.
    """
    check_foreign(path)
    file = base_file(name, home, make_folder=True)
    with _part(file) as part:
        part.touch(mode=0o600)
        with path.open("rb") as source, part.open("wb") as target:
            while block := source.read(1 << 20):
                target.write(block)
        check_foreign(part)
        with contextlib.closing(Store(part)) as store:
            store.adopt(who)
        if not placed(part, file):
            raise InputError(f"base {name!r}: exists; choose another name")


@contextlib.contextmanager
def _part(file: Path) -> Iterator[Path]:
    """A temporary file name in the folder of a new base. Searches for bases do not find it, and it is deleted at the
    end.

    Raises:
        OutputError: the file cannot be written.
    """
    part = part_of(file)
    try:
        yield part
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{file}: cannot be written ({error.strerror or error})") from None
    finally:
        for suffix in ("", "-wal", "-shm"):
            part.with_name(part.name + suffix).unlink(missing_ok=True)
