"""`Base`: documents that can be searched, in one file. `Bases`: several at once, for somebody who may read them."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from chatglm.errors import ChatGLMError, DependencyError, InputError, OutputError, ServiceError, UnsupportedError
from chatglm.knowledge.answering import Event, Request, aask, ask, check_prompt
from chatglm.knowledge.external import External, is_external
from chatglm.knowledge.indexing import Indexer, Item, Progress, Report, items_of, items_of_folder
from chatglm.knowledge.large import finder_of
from chatglm.knowledge.models import Embedder, Reranker, embedder_of, reranker_of
from chatglm.knowledge.packing import Passage, packed
from chatglm.knowledge.places import external_of, place_of
from chatglm.knowledge.reading import Limits, Readers, Reading
from chatglm.knowledge.searching import Answerable, Hit, Hits, Mode, answerable, rarity, search
from chatglm.knowledge.store import (
    ROLES,
    File,
    NotFoundError,
    Role,
    Store,
    StoredPiece,
    base_file,
    base_names,
    check_foreign,
    placed,
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
    "import_base",
    "open_base",
    "open_bases",
    "rename_base",
]

_LONGEST = {"about": 1_000, "prompt": 10_000}


@dataclass(frozen=True)
class Upload:
    """A file given as bytes; the base stores them."""

    name: str
    data: bytes


class Base:
    """Documents in one file, for any number of threads and processes. Made by `open_base`.

    Args:
        file: the database.
        make: it, if it is missing.
        embedder: any value of `models.embedder_of`; None: the embedder that files were last added with.
        reranker: any value of `models.reranker_of`; None: the base's own.
        vectors_at: the external store that has the vectors, as `places.place_of` reads it; "none": the file has them;
            None: the one that files were last added with.
        limits: limits of reading documents.
        neighbours: searches by meaning instead of the vectors in the file (`external.py`).
        readers: processes that read documents, shared with other bases; their owner closes them. None: own processes.

    Raises:
        NotFoundError: the file is missing, and is not to be made. Methods raise it when the base has been renamed or
            deleted since.
        OutputError: the file cannot be made or read, is not a database, or was written by a newer chatglm.
        InputError: the kind of the embedder or reranker is unknown, or `vectors_at` names no store.
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
        self._indexer = Indexer(self.store, self._readers, self.neighbours, self._follow)
        self._given = embedder
        self._given_reranker = reranker
        self._given_place = vectors_at
        self._external = neighbours
        self._lock = threading.Lock()
        self._embedder: Embedder | None = None
        self._neighbours: Neighbours | None = None
        self._reranker: Reranker | None = None
        self._worker: threading.Thread | None = None

    @property
    def name(self) -> str:
        """The name of the base."""
        return self.store.name

    def close(self) -> None:
        """End background work, and close the file. It may be called again."""
        self._indexer.end()
        if self._worker is not None:
            self._worker.join()
        if not self._shares_readers:
            self._readers.close()
        if isinstance(self._neighbours, External):
            self._neighbours.close()
        self.store.close()

    def rest(self) -> bool:
        """Close the file, and forget models and indexes, until something is asked of the base again; unless somebody
        is using it, or it works in the background. Returns whether it did."""
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
        self, *sources: Path | str | Upload, wait: bool = True, ocr: str = "auto", progress: Progress | None = None
    ) -> Report:
        """Add files and folders. Unchanged files are only checked; a changed file replaces its old version when the
        new one is complete.

        Args:
            wait: wait until everything is indexed and, if the base has an embedder, has vectors. Otherwise the work
                continues in the background; the report lists the new files.
            ocr: "auto": read the characters in pictures and of pages without text; "always"; "never".
            progress: called after every batch.

        Raises:
            InputError: a path does not exist, or two files would have the same name.
        """
        items: list[Item] = []
        for source in sources:
            if isinstance(source, Upload):
                items.append(Item(source.name, body=source.data))
            else:
                items += items_of([Path(source)])
        return self._add(items, (), wait, ocr, progress, again=True)

    def sync(
        self, folder: Path | str, *, delete: bool = True, ocr: str = "auto", progress: Progress | None = None
    ) -> Report:
        """Make the base equal to a folder: add new files, and index changed files again.

        Args:
            delete: remove files that came from this folder and are no longer in it.

        Raises:
            InputError: there is no such folder.
        """
        items = items_of_folder(Path(folder))
        gone = sorted(self._indexer.names_in(Path(folder)) - {item.name for item in items}) if delete else []
        return self._add(items, gone, True, ocr, progress, again=False)

    def _add(
        self,
        items: Sequence[Item],
        gone: Sequence[str],
        wait: bool,
        ocr: str,
        progress: Progress | None,
        again: bool,
    ) -> Report:
        if ocr not in ("auto", "always", "never"):
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
        """The models that a base is filled with are those that it is searched with."""
        given = {"embedder": self._given, "reranker": self._given_reranker, "vectors_at": self._given_place}
        named = {key: str(model) for key, model in given.items() if isinstance(model, str | Path)}
        self.configure(**{key: None if model == "none" else model for key, model in named.items()})

    def remove(self, *names: str) -> int:
        """Remove files; returns how many there were."""
        count = self._indexer.remove(names)
        if count:
            self._indexer.work()
        return count

    def retry(self, *names: str) -> int:
        """Read failed files again, in the background; returns how many there were."""
        count = self._indexer.retry(names)
        if count:
            self.resume()
        return count

    @property
    def works(self) -> bool:
        """Whether this process is reading, indexing or making vectors for the base in the background."""
        return self._worker is not None and self._worker.is_alive()

    def resume(self) -> None:
        """Continue in the background with queued files and missing vectors."""
        with self._lock:
            if self._worker is None or not self._worker.is_alive():
                self._worker = threading.Thread(target=self._work, name=f"chatglm knowledge {self.name}", daemon=True)
                self._worker.start()

    def _work(self) -> None:
        with contextlib.suppress(ChatGLMError):  # the queue stays; whoever works next says what is wrong
            self._indexer.work()

    def wait(self, progress: Progress | None = None) -> None:
        """Wait until no file is queued, and every piece has its vector, if possible."""
        self._indexer.work(None, progress)

    def files(self) -> list[File]:
        """The files, in the order of their names."""
        return self.store.files()

    def pieces(self, name: str) -> list[StoredPiece]:
        """The pieces of a file, including those that are switched off.

        Raises:
            NotFoundError: the base has no such file.
        """
        return self.store.pieces(name)

    def text(self, name: str, start: int = 0, end: int | None = None) -> str:
        """Characters of a file's text.

        Raises:
            NotFoundError: the base has no such file, or none of it could be read.
        """
        return self.store.text(name, start, end)

    def reading(self, name: str) -> Reading:
        """A file's text with its marks and its map to bytes.

        Raises:
            NotFoundError: the base has no such file, or none of it could be read.
        """
        return self.store.reading_of(name)

    def edit(self, piece: int, text: str | None) -> None:
        """Change the text of a piece for search and display; None: no search finds the piece any more. When the file
        is indexed again, the edit is kept if the piece still exists. Its vector is made in the background.

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
        """The reason why pieces get no vectors; "" if there is no problem."""
        return self._indexer.trouble

    def configure(self, **settings: str | None) -> None:
        """Store settings of the base (`about`, `embedder`, `reranker`, `prompt`, `strict` …); None removes one.

        Raises:
            InputError: one is not a setting, too long, or a prompt that cannot be used; nothing was stored.
        """
        for key, most in _LONGEST.items():
            if len(settings.get(key) or "") > most:
                raise InputError(f"{key}: longer than {most:,} characters")
        for key in settings:
            if key in ("grams", "splitter", "change", "counted", "taken", "vectors", "id"):
                raise InputError(f"{key}: is not a setting")
        if place := settings.get("vectors_at"):
            settings["vectors_at"] = str(place_of(place))
        if prompt := settings.get("prompt"):
            check_prompt(prompt)
        if any(self.store.meta(key) != (value or "") for key, value in settings.items()):
            self.store.set_meta(settings)

    def setting(self, key: str, default: str = "") -> str:
        """A setting of the base, as `configure` stored it; `default` if there is none."""
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
        """The pieces that answer a question best: see `searching.search`.

        Raises:
            InputError: an argument is wrong.
            NotFoundError: there is no such file.
        """
        return search([self], question, k=k, files=files, threshold=threshold, mode=mode, earlier=earlier)

    def neighbours(self) -> Neighbours | None:
        """The search by vectors; None if the base has no embedder."""
        with self._lock:
            if self._neighbours is None and self._external is not None:
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
        """The model that reranks hits; None if the base has none."""
        with self._lock:
            if self._reranker is None:
                given = self._given_reranker if self._given_reranker is not None else self.store.meta("reranker")
                self._reranker = reranker_of(given)
            return self._reranker

    # Summaries

    def summarise(self, assistant: BaseAssistant, files: Sequence[str] = (), **options: Any) -> Generator[SummaryEvent]:
        """Summarise files of any length from their original texts, without edits of pieces. Yields `Progress` several
        times, then the text in pieces, its citations, and finally `Summary`. The model's answers are stored in the
        base: the same call continues a run that was stopped or killed.

        Args:
            files: names of files, in this order; none: all files that are ready.
            options: see `summarising.SummaryRequest`.

        Raises:
            NotFoundError: there is no such file.
            as `summarising.asummarise`.
        """
        return summarise(_BaseTexts(self.store, files), assistant, SummaryRequest(**options))

    def known_summary(self, files: Sequence[str] = (), **options: Any) -> Summary | None:
        """The stored result of `summarise`; None: the model would have to be asked."""
        return known_summary(_BaseTexts(self.store, files), SummaryRequest(**options))

    def asummarise(
        self, assistant: BaseAssistant, files: Sequence[str] = (), **options: Any
    ) -> AsyncGenerator[SummaryEvent]:
        """`summarise` for coroutines."""
        return asummarise(_BaseTexts(self.store, files), assistant, SummaryRequest(**options))

    # Care

    def check(self, *, repair: bool = False) -> list[str]:
        """The faults of the base, in sentences; empty if there are none. See `Store.check`.

        Args:
            repair: make damaged parts again where possible, also vectors in an external store.
        """
        found = self.store.check(repair=repair)
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
        """Write the base as it is now into a new file.

        Raises:
            InputError: the file exists.
            OutputError: it cannot be written.
        """
        self.store.export(Path(path))


class _BaseTexts:
    """Files of a base, to be summarised."""

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
    """Several bases that are searched as one, with the rights of one user.

    Args:
        who: the user: a user's name or a key's digest; None: the owner of this machine.

    Raises:
        NotFoundError: `who` may not read one of them; the message is the same as for a base that does not exist.
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
        """Close every base. It may be called again."""
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
        """As `Base.search`, over all bases: the hits are those of one base with all their files."""
        return search(self._readable(), question, k=k, files=files, threshold=threshold, mode=mode, earlier=earlier)

    def answerable(self, question: str, *, files: Sequence[str] = ()) -> Answerable:
        """Whether the bases have an answer to a question, estimated without a model."""
        return answerable(self._readable(), question, files=files)

    def passages(
        self, hits: Sequence[Hit], budget: float, *, k: int = 5, cost: Callable[[str], int] = len, **options: Any
    ) -> list[Passage]:
        """The passages for a model, made from hits: see `packing.packed`."""
        return packed(hits, budget, self.around(), k=k, cost=cost, **options)

    def ask(self, assistant: BaseAssistant | None, question: str, **options: Any) -> Generator[Event]:
        """Answer a question: yields the `Passages`, then text and citations as they are made, finally `Done`.

        Args:
            assistant: writes the answer; None: the answer consists of the best sentences of the documents.
            options: see `answering.Request`.

        Raises:
            InputError, UnsupportedError: an option is wrong. Also the errors of the assistant's `stream`.
        """
        return ask(self, assistant, Request(question, **options))

    def aask(self, assistant: BaseAssistant | None, question: str, **options: Any) -> AsyncGenerator[Event]:
        """`ask` for coroutines."""
        return aask(self, assistant, Request(question, **options))

    def tool(self, *, k: int = 5, characters: int = 1_000) -> SearchKnowledge:
        """`search_knowledge(question)` for a model that calls tools: see `tool.SearchKnowledge`."""
        return SearchKnowledge(lambda: self, k=k, characters=characters)

    def setting(self, key: str) -> str:
        """A setting of the first base that has it; "" if none has."""
        return next(filter(None, (base.setting(key) for base in self._readable())), "")

    def rarity(self, grams: Iterable[str]) -> dict[str, float]:
        """How rare grams are: see `searching.rarity`."""
        return rarity(self._readable(), grams)

    def text(self, base: str, file: str, start: int = 0, end: int | None = None) -> str:
        """Characters of a file's text.

        Raises:
            NotFoundError: the base is not among these, or has no such file.
        """
        return self._named(base).text(file, start, end)

    def places(self, base: str, file: str) -> tuple[tuple[Mark, ...], ByteMap | None]:
        """A file's marks and its map to bytes: see `Store.places`."""
        return self._named(base).store.places(file)

    def _named(self, name: str) -> Base:
        found = next((base for base in self._readable() if base.name == name), None)
        if found is None:
            raise NotFoundError(f"base {name!r:.80}: is not one of the bases that are asked")
        return found

    def around(self) -> Callable[..., StoredPiece | None]:
        """Returns a function that gives the piece of a hit, and the pieces beside it in its file."""
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
        """Access may have been taken back since."""
        for base in self._bases:
            permit(base, self.who, "read")
        return self._bases


def permit(base: Base, who: str | None, role: Role) -> None:
    """
    Raises:
        NotFoundError: somebody may not even read the base, which is then one that does not exist.
        InputError: they may read it, but not do what needs this role.
    """
    has = base.store.role(who)
    if has is None:
        raise _no_base(base.name)
    if ROLES.index(has) < ROLES.index(role):
        raise InputError(
            f"base {base.name!r}: you may only {has} it, but this needs the right to {role}; ask its owner"
        )


def _no_base(name: str) -> NotFoundError:
    return NotFoundError(f"base {name!r:.80}: there is no such base; `chatglm knowledge list` shows all")


def bases(home: Path | None = None, *, who: str | None = None) -> list[str]:
    """Names of the bases that a user may read, sorted."""
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
    """
    Args:
        name: the base lies in `knowledge/NAME.sqlite` of the home folder.
        create: make it if there is none; `who` then owns it.
        home: instead of `CHATGLM_HOME`.
        who: the user: a user's name or a key's digest; None: the owner of this machine.
        role: the right that the user needs.
        embedder, reranker, vectors_at, readers: see `Base`.

    Raises:
        NotFoundError: there is no such base, or `who` may not read it.
        InputError: the name is invalid, or `who` may only read the base.
        OutputError: the file cannot be made or read.
    """
    file = base_file(name, home, make_folder=create)
    if create and not file.exists():
        with _part(file) as part:
            with contextlib.closing(Store(part)) as store:
                if who is not None:
                    store.share(who, "own")
            placed(part, file)  # if somebody else has just made one, it is theirs
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
    """Several bases, as `open_base` opens one.

    Raises:
        ChatGLMError: what `open_base` raises.
        InputError: no name, or one twice.
    """
    if not names or len(set(names)) != len(names):
        raise InputError("name the bases, each once")
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_base(name, home=home, who=who, **options)) for name in names]
        found = Bases(opened, who=who)
        stack.pop_all()
        return found


def delete_base(name: str, *, home: Path | None = None, who: str | None = None) -> None:
    """Delete a base with all its files.

    Raises:
        NotFoundError: there is no such base, or `who` may not read it.
        InputError: `who` does not own it.
    """
    open_base(name, home=home, who=who, role="own").close()
    withdraw(base_file(name, home))


def rename_base(name: str, new: str, *, home: Path | None = None, who: str | None = None) -> None:
    """Give a base another name. Its files, settings and access stay as they are. Whoever has it open under its old
    name, in this process or another, gets `NotFoundError` at the next use. A process that is killed meanwhile leaves
    the base with its old name or its new one.

    Raises:
        NotFoundError: there is no such base, or `who` may not read it.
        InputError: `who` does not own it, or the new name is invalid or taken; the message does not say by whom.
        OutputError: the file cannot be renamed.
    """
    with open_base(name, home=home, who=who, role="own") as base:
        base.store.rename(base_file(new, home))


def import_base(path: Path, name: str, *, home: Path | None = None, who: str | None = None) -> None:
    """Make a base from a file of `Base.export`. The file is checked first; `who` owns the new base.

    Raises:
        InputError: the file is not a base, is damaged, or the name is taken.
        OutputError: it cannot be written.
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
    """A name beside a base that is being made, under which nobody finds it.

    Raises:
        OutputError: it cannot be written.
    """
    part = file.with_name(f".{file.stem}.{secrets.token_hex(4)}.part")
    try:
        yield part
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{file}: cannot be written ({error.strerror or error})") from None
    finally:
        for suffix in ("", "-wal", "-shm"):
            part.with_name(part.name + suffix).unlink(missing_ok=True)
