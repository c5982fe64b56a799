"""Index files: queue them, read them, split them into pieces, index the pieces, make vectors.

Adding a file puts it into the queue, which is part of the base. One process at a time holds the base's lock and works
through the queue, including files that other processes have added. If this process ends or is killed, another one
continues at the same place. The base changes only in whole transactions, so a kill never damages it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import threading
import time
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Protocol, TypeVar

from chatglm.errors import ChatGLMError, InputError, NotFoundError, OutputError, QueueFullError
from chatglm.knowledge import splitting
from chatglm.knowledge.reading import Readers, Reading, ReadingError
from chatglm.knowledge.splitting import Piece, split
from chatglm.knowledge.store import BATCH, BLOCK, Store, digest_of, indexed

try:
    import fcntl
except ImportError:  # Windows: two processes may index the same base at once. That wastes time, but does no harm.
    fcntl = None  # type: ignore[assignment]

__all__ = ["Filler", "Indexer", "Item", "Progress", "Report", "Step", "items_of", "items_of_folder"]

_log = logging.getLogger("chatglm.knowledge")

_ATTEMPTS = 3
"""How often a file is read if it changes, or its worker dies, during the reading."""
_SMALL = 1 << 16
"""Files up to this size in bytes are indexed several at a time."""
_TOGETHER = 64
"""Largest number of small files that are read and indexed together."""
_MAX_FILES = 1_000_000
_POLL_SECONDS = 0.05
_MERGED_FROM = 2_000
"""The index of grams is merged when more pieces than this, and more than the base has now, were deleted."""
_FREE_PAGES = 256
"""If the file has more free pages than this, it is shrunk."""
_WAITING = "state IN ('queued', 'reading', 'indexing')"


@dataclass(frozen=True)
class Step:
    """The progress of indexing.

    Attributes:
        file: the name of the file; "" while vectors are made, because vectors belong to texts of all files.
        stage: "reading", "indexing" or "vectors"; "queued" if another process works and has not begun with the file.
        done, total: number of pieces (texts, for vectors); 0 and 0 while the file is read.
        files: number of files that are still waiting, including this one; 0 while vectors are made.
    """

    file: str
    stage: str
    done: int
    total: int
    files: int


Progress = Callable[[Step], None]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Item:
    """A file to add to a base.

    Attributes:
        name: its name in the base.
        path: its absolute path; None: its content is `body`.
        body: its content.
        folder: the folder in which it was found (for `sync`); None: it was added by itself.
    """

    name: str
    path: Path | None = None
    body: bytes | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Report:
    """The result of adding files.

    Attributes:
        added, changed, unchanged, removed: names of files. If the caller did not wait, new and changed files are only
            queued.
        failed: (name, reason) of each file that could not be read.
        warnings: (name, warning) for parts that could not be read, and for edits of pieces that no longer exist.
    """

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    warnings: tuple[tuple[str, str], ...] = ()


class Filler(Protocol):
    """Makes the vectors of pieces."""

    def fill(self, progress: Callable[[int, int], None], go_on: Callable[[], bool]) -> bool:
        """Delete the vectors of texts that no piece has any more, and make missing vectors, as long as `go_on()` is
        true. Returns whether more are missing and can be made.

        Args:
            progress: is called with the number of vectors made by this call and the number that were missing.
        """


def items_of(paths: Iterable[Path]) -> list[Item]:
    """The files at some paths, and all files in the folders among them. A file keeps its name; the name of a file in a
    folder is its path inside the folder.

    Raises:
        InputError: a path does not exist or cannot be read, or a folder has more than a million files.
    """
    found: list[Item] = []
    for path in paths:
        _check_path(path)
        if path.is_dir():
            found += items_of_folder(path)
        elif path.is_file():
            found.append(Item(path.name, path.absolute()))
        else:
            raise InputError(f"{path}: no such file or folder")
    return found


def items_of_folder(folder: Path) -> list[Item]:
    """All files in a folder and its subfolders, sorted by name. Hidden files and symbolic links are left out.
    Subfolders that cannot be listed are items, too, so that `Indexer.enqueue` reports them.

    Raises:
        InputError: the folder does not exist or cannot be read, or it has more than a million files.
    """
    _check_path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    root = folder.absolute()
    found: list[Item] = []

    def refused(error: OSError) -> None:
        path = Path(error.filename or root)
        if path == root:
            raise InputError(f"{folder}: cannot be read ({error.strerror}); nothing was changed") from None
        if not isinstance(error, FileNotFoundError):
            found.append(Item(path.relative_to(root).as_posix(), path, folder=root))

    for place, folders, files in os.walk(root, onerror=refused):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(place, name)
            if name.startswith(".") or path.is_symlink() or not path.is_file():
                continue
            found.append(Item(path.relative_to(root).as_posix(), path, folder=root))
            if len(found) > _MAX_FILES:
                raise InputError(f"{folder}: holds more than {_MAX_FILES:,} files; add its folders one by one")
    return sorted(found, key=lambda item: item.name)


def _check_path(path: Path) -> None:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no such file or folder") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)[:200]!r}: cannot be read ({error})") from None


def _checked(items: Sequence[Item], failed: list[tuple[str, str]]) -> list[Item]:
    """Check the names of items. A file of a folder whose name cannot be used is left out, and added to `failed`.

    Raises:
        InputError: another name is not valid, or two files would have the same name.
    """
    seen: dict[str, Item] = {}
    for item in items:
        name = item.name
        if not name.isprintable() or not 0 < len(name.encode("utf-8", "surrogatepass")) <= 1000:
            shown = f"{name[:200]!r}"[1:-1]
            why = "its name has unprintable characters, or is too long; rename it"
            if item.folder is None:
                raise InputError(f"file {shown!r}: {why}")
            failed.append((shown, why))
            continue
        if name.startswith("/") or ".." in name.split("/"):
            raise InputError(f"file {name[:200]!r}: must be a name, without .. in it")
        other = seen.setdefault(name, item)
        if other is not item and other.path != item.path:
            raise InputError(
                f"{item.path or name} and {other.path or name} would both be {name!r}; add the folder above them"
            )
    return list({item.name: item for item in items if item.name in seen}.values())  # the last of equal uploads


@dataclass
class _Queued:
    """The result of `enqueue`: the ids of the files to wait for, and the names of the files in each group."""

    ids: list[int] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)


class Indexer:
    """Adds files to a base and removes them.

    Args:
        store: the base.
        readers: worker processes that read documents.
        filler: returns the object that makes vectors, or None if the base has none.
        follow: is called after indexing, to add the new pieces to indexes beside the base.

    Attributes:
        trouble: why vectors could not be made; "" if there was no problem.
    """

    def __init__(
        self,
        store: Store,
        readers: Readers,
        filler: Callable[[], Filler | None],
        follow: Callable[[], None] = lambda: None,
    ) -> None:
        self._follow = follow
        self._store = store
        self._readers = readers
        self._filler = filler
        self._ending = threading.Event()
        self.trouble = ""

    def end(self) -> None:
        """Let `work` return after the current batch."""
        self._ending.set()

    # The queue

    def enqueue(self, items: Sequence[Item], *, ocr: str | None = None, again: bool = True) -> _Queued:
        """Queue new and changed files, and those that are to be read with another `ocr` than before. Any other
        unchanged file is only read and hashed; if it has moved, its new path is stored.

        Args:
            ocr: "auto", "always", "never" or None: see `Base.add`.
            again: also queue unchanged files that could not be read before, or whose stored text is damaged.

        Raises:
            InputError: two files would have the same name, or a name is not valid.
        """
        found = _Queued()
        items = _checked(items, found.failed)
        known = self._known()
        queue: list[tuple[Item, bytes, int, str]] = []
        moved: list[tuple[Item, int]] = []
        for item in items:
            try:
                digest, size = _content(item)
            except OSError as error:
                found.failed.append((item.name, f"cannot be read ({error.strerror or error})"))
                continue
            row = known.get(item.name)
            mode = ocr or ("auto" if row is None else row["ocr"])
            if row is not None and row["digest"] == digest and not self._to_read(row, mode, again):
                if row["state"] == "failed":
                    found.failed.append((item.name, row["error"]))
                else:
                    found.unchanged.append(item.name)
                    if row["state"] != "ready":
                        found.ids.append(row["id"])
                if _elsewhere(item, row):
                    moved.append((item, row["id"]))
                continue
            (found.changed if row is not None and row["generation"] else found.added).append(item.name)
            queue.append((item, digest, size, mode))
        if queue or moved:
            with self._store.writing() as connection:
                found.ids += [self._queue(connection, *entry) for entry in queue]
                for item, number in moved:
                    self._move(connection, item, number)
        return found

    def _known(self) -> dict[str, sqlite3.Row]:
        with self._store.reading() as connection:
            rows = connection.execute("SELECT * FROM file WHERE state <> 'removed'").fetchall()
        return {row["name"]: row for row in rows}

    def _to_read(self, row: sqlite3.Row, ocr: str, again: bool) -> bool:
        """Whether a file whose content is as before is read again."""
        if ocr != row["ocr"]:
            return True
        if row["state"] == "failed":
            return again
        return again and row["state"] == "ready" and not self._store.has_text(row)

    @staticmethod
    def _move(connection: sqlite3.Connection, item: Item, number: int) -> None:
        """Store where a file is found now: at another path, or in the base itself."""
        path = None if item.path is None else str(item.path)
        folder = None if item.folder is None else str(item.folder)
        connection.execute("UPDATE file SET path = ?, folder = ? WHERE id = ?", (path, folder, number))
        connection.execute("DELETE FROM source WHERE file = ?", (number,))
        if item.body is not None:
            connection.execute("INSERT INTO source VALUES (?, ?)", (number, item.body))

    @staticmethod
    def _queue(connection: sqlite3.Connection, item: Item, digest: bytes, size: int, ocr: str) -> int:
        path = None if item.path is None else str(item.path)
        folder = None if item.folder is None else str(item.folder)
        connection.execute(
            "INSERT INTO file (name, path, folder, digest, size, ocr, state, added) "
            "VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'queued', ?7) ON CONFLICT (name) DO UPDATE SET path = ?2, folder = ?3, "
            "digest = ?4, size = ?5, ocr = ?6, state = 'queued', error = '', attempts = 0, added = ?7",
            (item.name, path, folder, digest, size, ocr, time.time()),
        )
        number: int = connection.execute("SELECT id FROM file WHERE name = ?", (item.name,)).fetchone()["id"]
        connection.execute("DELETE FROM source WHERE file = ?", (number,))
        if item.body is not None:
            connection.execute("INSERT INTO source VALUES (?, ?)", (number, item.body))
        return number

    def remove(self, names: Sequence[str]) -> int:
        """Remove files. When this returns, no search finds them any more. `work` deletes their data later.

        Returns:
            how many of the files the base had.
        """
        with self._store.writing() as connection:
            gone = 0
            for name in names:
                gone += connection.execute(
                    "UPDATE file SET state = 'removed', name = NULL, generation = -1, leftover = 1 WHERE name = ?",
                    (name,),
                ).rowcount
            if gone:
                connection.execute("DELETE FROM kept")  # stored answers of models may quote the removed files
                self._store.changed(connection)
        return gone

    def retry(self, names: Sequence[str]) -> int:
        """Queue failed files again. Returns how many of the named files had failed."""
        with self._store.writing() as connection:
            return sum(
                connection.execute(
                    "UPDATE file SET state = 'queued', error = '', attempts = 0 WHERE name = ? AND state = 'failed'",
                    (name,),
                ).rowcount
                for name in names
            )

    def names_in(self, folder: Path) -> set[str]:
        """The names of the files that were found when this folder was added or synchronised, at any depth."""
        root = folder.absolute()
        with self._store.reading() as connection:
            rows = connection.execute("SELECT name, folder FROM file WHERE folder IS NOT NULL AND name IS NOT NULL")
            return {row["name"] for row in rows if Path(row["folder"]) == root}

    # Work

    def work(self, ids: Sequence[int] | None = (), progress: Progress | None = None) -> None:
        """Index all queued files and make missing vectors. If another process holds the lock, wait for it instead.

        Args:
            ids: the files to wait for while another process works; None: wait until that process has ended its work.
            progress: is called after every batch.

        Raises:
            OutputError: the file of the base cannot be locked or written, or is damaged.
        """
        while not self._ending.is_set():
            with self._lock() as held:
                if held:
                    self._drain(progress or (lambda step: None))
            if held or (self._done(ids, progress) and ids is not None):
                return
            self._ending.wait(_POLL_SECONDS)

    def outcome(self, queued: _Queued, removed: Sequence[str] = ()) -> Report:
        """The report about queued files, from their states in the base."""
        states: dict[int, sqlite3.Row] = {}
        with self._store.reading() as connection:
            for number in queued.ids:
                row = connection.execute("SELECT * FROM file WHERE id = ? AND name IS NOT NULL", (number,)).fetchone()
                if row is not None:
                    states[number] = row
        failed = {row["name"]: row["error"] for row in states.values() if row["state"] == "failed"}
        return Report(
            tuple(name for name in queued.added if name not in failed),
            tuple(name for name in queued.changed if name not in failed),
            tuple(queued.unchanged),
            tuple(removed),
            (*queued.failed, *failed.items()),
            tuple((row["name"], text) for row in states.values() for text in json.loads(row["warnings"])),
        )

    def _done(self, ids: Sequence[int] | None, progress: Progress | None) -> bool:
        with self._store.reading() as connection:
            waiting = connection.execute(f"SELECT * FROM file WHERE {_WAITING} ORDER BY id").fetchall()
        own = {row["id"] for row in waiting} & set(ids or ())
        if own and progress is not None:
            row = waiting[0]
            progress(Step(row["name"], row["state"], row["done"], row["total"], len(waiting)))
        return not own

    @contextlib.contextmanager
    def _lock(self) -> Iterator[bool]:
        """Try to take the lock for indexing; yields whether it was free. The system releases it if the process dies."""
        if fcntl is None:
            yield True
            return
        try:
            lock = os.open(self._store.file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise OutputError(f"{self._store.file}: cannot be locked ({error.strerror})") from None
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = True
            except BlockingIOError:
                held = False
            yield held
        finally:
            os.close(lock)

    def _drain(self, progress: Progress) -> None:
        worked = self._split_anew()
        self.trouble = ""
        filler = self._filling(self._filler)
        more = filler is not None
        while not self._ending.is_set():
            rows, waiting = self._next()
            if rows:
                self._index(rows, waiting, progress)
                worked, more = True, filler is not None
            elif self._clean():
                worked, more = True, filler is not None
            elif filler is not None and more:
                more = bool(
                    self._filling(
                        partial(
                            filler.fill,
                            lambda done, total: progress(Step("", "vectors", done, total, 0)),
                            lambda: not self._ending.is_set() and not self._next()[1],
                        )
                    )
                )
            else:
                break
        if worked:
            self._tidy()

    def _filling(self, work: Callable[[], Result]) -> Result | None:
        """Do work that needs the embedder. If it fails, store the reason in `trouble` and return None: files are then
        indexed without vectors, and the lexical search still finds them."""
        try:
            return work()
        except OutputError:
            raise
        except ChatGLMError as error:
            self.trouble = f"texts have no vectors ({error})"
            _log.warning("%s: %s", self._store.name, self.trouble)
            return None

    def _next(self) -> tuple[list[sqlite3.Row], int]:
        """The files to index next (one, or several small ones), and how many files wait in total."""
        with self._store.reading() as connection:
            (waiting,) = connection.execute(f"SELECT count(*) FROM file WHERE {_WAITING}").fetchone()
            # Files that are partly indexed come first.
            rows = connection.execute(
                f"SELECT * FROM file WHERE {_WAITING} ORDER BY state <> 'indexing', id LIMIT {_TOGETHER}"
            ).fetchall()
        small = 0
        while small < len(rows) and rows[small]["size"] <= _SMALL and rows[small]["state"] != "indexing":
            small += 1
        return rows[: max(small, 1)], waiting

    def _index(self, rows: Sequence[sqlite3.Row], waiting: int, progress: Progress) -> None:
        """Read and index files. For a file that cannot be read, store the reason."""
        jobs = []
        pieces = 0
        for place, row in enumerate(rows):
            if self._ending.is_set() or pieces >= BATCH:
                break
            progress(Step(row["name"], "reading", 0, 0, waiting - place))
            job = self._begun(row) if row["state"] == "indexing" else self._job(row)
            if job is not None:
                jobs.append(job)
                pieces += len(job.pieces)
        while jobs and not self._ending.is_set():
            before = [(job.generation, job.done, job.ended) for job in jobs]
            try:
                self._advance(jobs)
            except NotFoundError:  # the base was renamed or deleted
                raise
            except InputError as error:  # a file has a value that SQLite cannot store; nothing was written
                for job, known in zip(jobs, before, strict=True):
                    job.generation, job.done, job.ended = known
                if len(jobs) == 1:
                    self._fail(jobs[0].row, f"{jobs[0].row['name']}: {error}")
                jobs = jobs[:1] if len(jobs) > 1 else []  # the others stay queued for the next round
                continue
            last = jobs[-1]
            progress(Step(last.row["name"], "indexing", last.done, len(last.pieces), waiting))
            jobs = [job for job in jobs if not job.ended]

    def _begun(self, row: sqlite3.Row) -> _Job | None:
        """Continue with a file that is partly indexed, usually because a process was stopped. None: it is queued again
        from the start."""
        with contextlib.suppress(NotFoundError), self._store.reading() as connection:
            reading = self._store.reading_in(connection, row, row["next_generation"])
            pieces = list(split(reading))
            if len(pieces) == row["total"]:
                return _Job(row, reading, pieces, row["next_generation"], row["done"])
        self._set(row, "state = 'queued'")  # another version of chatglm split it differently
        return None

    def _job(self, row: sqlite3.Row) -> _Job | None:
        if row["size"] > _SMALL and not self._set(row, "state = 'reading'"):
            return None
        try:
            reading = self._read(row)
            return _Job(row, reading, list(split(reading)))
        except _ChangedError as error:
            if row["attempts"] + 1 < _ATTEMPTS:
                self._set(
                    row, "state = 'queued', attempts = attempts + 1, digest = ?, size = ?", error.digest, error.size
                )
            else:
                self._fail(row, f"{row['name']}: changed while it was read; add it again later")
        except OutputError:  # a problem of the base's file, not of the document
            raise
        except QueueFullError:  # other bases' documents are being read; this one stays queued
            self._set(row, "state = 'queued'")
        except ChatGLMError as error:
            if isinstance(error, ReadingError) and row["attempts"] + 1 < _ATTEMPTS:
                self._set(row, "state = 'queued', attempts = attempts + 1")
            else:
                self._fail(row, str(error))
        except Exception as error:  # an error in a parser must not prevent the indexing of the other files
            said = f"{row['name']}: cannot be read ({type(error).__name__}: {error!s:.200}); it may be damaged"
            self._fail(row, said)
        return None

    def _read(self, row: sqlite3.Row) -> Reading:
        with self._store.reading() as connection:
            body = connection.execute("SELECT body FROM source WHERE file = ?", (row["id"],)).fetchone()
        if body is not None:
            return self._readers.read(body["body"], row["name"], row["ocr"])
        if row["path"] is None:  # the base was imported: only the text is there
            if not row["generation"]:
                raise InputError(f"{row['name']}: was not in the imported base; add it again")
            with self._store.reading() as connection:
                return self._store.reading_in(connection, row, row["generation"])
        path = Path(row["path"])
        try:
            reading = self._readers.read(path, row["name"], row["ocr"])
            digest, size = _content(Item(row["name"], path))
        except OSError as error:
            raise InputError(f"{path}: cannot be read any more ({error.strerror or error})") from None
        if digest != row["digest"]:
            raise _ChangedError(digest, size)
        return reading

    def _set(self, row: sqlite3.Row, what: str, *values: object) -> bool:
        """Update a file's row, unless the file was replaced, removed or finished meanwhile. Returns whether the row was
        updated."""
        with self._store.writing() as connection:
            return bool(
                connection.execute(
                    f"UPDATE file SET {what} WHERE id = ? AND digest = ? AND {_WAITING}",
                    (*values, row["id"], row["digest"]),
                ).rowcount
            )

    def _fail(self, row: sqlite3.Row, why: str) -> None:
        self._set(row, "state = 'failed', error = ?, leftover = 1", why)

    def _advance(self, jobs: Sequence[_Job]) -> None:
        """Index one batch of pieces, from one file or several, in one transaction."""
        room = BATCH
        with self._store.writing() as connection:
            for job in jobs:
                now = connection.execute(
                    f"SELECT * FROM file WHERE id = ? AND digest = ? AND {_WAITING}", (job.row["id"], job.row["digest"])
                ).fetchone()
                if now is None:  # the file was removed or replaced
                    job.ended = True
                    continue
                if not job.generation:
                    job.generation = max(now["generation"], now["next_generation"]) + 1
                    self._begin(connection, job.row["id"], job.generation, job.reading, len(job.pieces))
                batch = job.pieces[job.done : job.done + room]
                self._insert(connection, job, batch)
                job.done += len(batch)
                room -= len(batch)
                connection.execute("UPDATE file SET done = ? WHERE id = ?", (job.done, job.row["id"]))
                if job.done == len(job.pieces):
                    self._flip(connection, job.row["id"], job.generation)
                    job.ended = True
                if not room:
                    break

    @staticmethod
    def _begin(connection: sqlite3.Connection, file: int, generation: int, reading: Reading, total: int) -> None:
        connection.execute(
            "UPDATE file SET state = 'indexing', next_generation = ?, done = 0, total = ?, media = ?, encoding = ?, "
            "warnings = ?, leftover = leftover OR next_generation > 0 WHERE id = ?",
            (
                generation,
                total,
                reading.media,
                reading.encoding,
                json.dumps(reading.warnings, ensure_ascii=False),
                file,
            ),
        )
        connection.execute(
            "INSERT INTO reading VALUES (?, ?, ?, ?, ?)",
            (
                file,
                generation,
                len(reading.text),
                zlib.compress(reading.marks_to_json().encode()),
                None if reading.bytes_of is None else reading.bytes_of.to_bytes(),
            ),
        )
        blocks = range(0, len(reading.text), BLOCK)
        connection.executemany(
            "INSERT INTO block VALUES (?, ?, ?, ?)",
            (
                (
                    file,
                    generation,
                    n,
                    zlib.compress(reading.text[start : start + BLOCK].encode("utf-8", "surrogatepass"), 3),
                )
                for n, start in enumerate(blocks)
            ),
        )

    def _insert(self, connection: sqlite3.Connection, job: _Job, batch: Sequence[Piece]) -> None:
        put = []
        for piece in batch:
            folded, length, digest = indexed(job.row["name"], piece.title, piece.text)
            blank = not piece.text.strip()
            number = connection.execute(
                'INSERT INTO piece (file, generation, n, start, "end", page, title, folded, length, origin, digest, '
                "disabled) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    job.row["id"],
                    job.generation,
                    piece.n,
                    piece.start,
                    piece.end,
                    job.pages.at(piece.start),
                    piece.title,
                    folded,
                    length,
                    digest_of(piece.text.strip()),
                    digest,
                    2 if blank else 0,
                ),
            ).lastrowid
            if not blank:
                put.append((number, folded))
        self._store.put(connection, put)  # type: ignore[arg-type]

    def _flip(self, connection: sqlite3.Connection, file: int, generation: int) -> None:
        """Switch a file to its new generation: from now on searches see the new pieces. Edits of old pieces are copied
        to new pieces with the same original text."""
        lost = 0
        for old in connection.execute(
            "SELECT piece.* FROM piece JOIN file ON file.id = piece.file WHERE file.id = ? "
            "AND piece.generation = file.generation AND (edited IS NOT NULL OR disabled = 1) ORDER BY n",
            (file,),
        ).fetchall():
            new = connection.execute(
                "SELECT * FROM piece WHERE file = ? AND generation = ? AND origin = ? AND edited IS NULL "
                "AND NOT disabled ORDER BY n LIMIT 1",
                (file, generation, old["origin"]),
            ).fetchone()
            if new is None:
                lost += 1
                continue
            self._store.put(connection, [(new["id"], new["folded"])], out=True)
            connection.execute(
                "UPDATE piece SET edited = ?, disabled = ?, folded = ?, length = ?, digest = ? WHERE id = ?",
                (old["edited"], old["disabled"], old["folded"], old["length"], old["digest"], new["id"]),
            )
            if not old["disabled"]:
                self._store.put(connection, [(new["id"], old["folded"])])
        if lost:
            (warnings,) = connection.execute("SELECT warnings FROM file WHERE id = ?", (file,)).fetchone()
            warning = f"edited pieces that were dropped, because the file no longer has their text: {lost}"
            connection.execute(
                "UPDATE file SET warnings = ? WHERE id = ?",
                (json.dumps([*json.loads(warnings), warning], ensure_ascii=False), file),
            )
        connection.execute(
            "UPDATE file SET generation = ?, state = 'ready', error = '', attempts = 0 WHERE id = ?", (generation, file)
        )
        self._store.recount(connection, file)
        self._store.changed(connection)

    def _clean(self) -> bool:
        """Delete a batch of pieces of old generations. Returns whether there were any."""
        with self._store.reading() as connection:
            if connection.execute("SELECT 1 FROM file WHERE leftover LIMIT 1").fetchone() is None:
                return False
        with self._store.writing() as connection:
            file = connection.execute("SELECT * FROM file WHERE leftover ORDER BY id LIMIT 1").fetchone()
            if file is None:
                return False
            kept = (file["generation"], file["next_generation"] if file["state"] == "indexing" else file["generation"])
            rows = connection.execute(
                "SELECT id, folded, digest, disabled FROM piece WHERE file = ? AND generation NOT IN (?, ?) LIMIT ?",
                (file["id"], *kept, BATCH),
            ).fetchall()
            self._store.put(connection, [(row["id"], row["folded"]) for row in rows if not row["disabled"]], out=True)
            connection.executemany("DELETE FROM piece WHERE id = ?", [(row["id"],) for row in rows])
            digests = {row["digest"] for row in rows}
            orphans = [
                digest
                for digest in digests
                if connection.execute("SELECT 1 FROM piece WHERE digest = ?", (digest,)).fetchone() is None
            ]
            # An empty `v` means that the vector is in an external store. `Filler.fill` deletes it there first.
            connection.executemany(
                "DELETE FROM vector WHERE digest = ? AND v <> x''", [(digest,) for digest in orphans]
            )
            connection.execute(
                "INSERT INTO meta VALUES ('taken', ?1) "
                "ON CONFLICT (key) DO UPDATE SET value = CAST(CAST(value AS INTEGER) + ?1 AS TEXT)",
                (str(len(rows)),),
            )
            if len(rows) < BATCH:
                for table in ("reading", "block"):
                    connection.execute(
                        f"DELETE FROM {table} WHERE file = ? AND generation NOT IN (?, ?)", (file["id"], *kept)
                    )
                connection.execute("UPDATE file SET leftover = 0 WHERE id = ?", (file["id"],))
                connection.execute("DELETE FROM file WHERE id = ? AND state = 'removed'", (file["id"],))
            self._store.changed(connection)
        return True

    def _split_anew(self) -> bool:
        """Queue all files again if this version of chatglm splits texts differently. Returns whether it did."""
        today = str(splitting.VERSION)
        known = self._store.meta("splitter")
        if known == today:
            return False
        with self._store.writing() as connection:
            if known:
                connection.execute("UPDATE file SET state = 'queued' WHERE state = 'ready'")
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('splitter', ?)", (today,))
        return bool(known)

    def _tidy(self) -> None:
        """After indexing: count common grams, merge the index after many deletions, and shrink the file."""
        self._store.count_common()
        with self._store.reading() as connection:
            pieces, _ = self._store.size(connection)
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        if int(self._store.meta("taken", "0")) > max(_MERGED_FROM, pieces):
            with self._store.writing() as connection:
                connection.execute("INSERT INTO gram (gram) VALUES ('optimize')")
                connection.execute("INSERT OR REPLACE INTO meta VALUES ('taken', '0')")
        if free > _FREE_PAGES:
            self._store.vacuum()
        self._follow()


def _elsewhere(item: Item, row: sqlite3.Row) -> bool:
    """Whether a file is found at another place than before. A file that is added by itself stays one of its folder."""
    if item.path is None:
        return row["path"] is not None
    return row["path"] != str(item.path) or (item.folder is not None and row["folder"] != str(item.folder))


class _ChangedError(ChatGLMError):
    def __init__(self, digest: bytes, size: int) -> None:
        super().__init__()
        self.digest, self.size = digest, size


class _Pages:
    """Finds the page (or slide) of a character by binary search."""

    def __init__(self, reading: Reading) -> None:
        marks = [m for m in reading.marks if m.kind in ("page", "slide") and m.value.isdecimal()]
        marks.sort(key=lambda mark: mark.start)
        self._starts = [mark.start for mark in marks]
        self._marks = marks

    def at(self, character: int) -> int | None:
        at = bisect_right(self._starts, character) - 1
        return int(self._marks[at].value) if at >= 0 and character < self._marks[at].end else None


@dataclass
class _Job:
    """A file that is being indexed.

    Attributes:
        row: its row in the table `file`.
        reading: its text.
        pieces: all its pieces.
        generation: the generation of these pieces; 0: none has been assigned yet.
        done: number of pieces that are indexed.
        ended: all pieces are indexed, or the file was removed or replaced.
    """

    row: sqlite3.Row
    reading: Reading
    pieces: list[Piece]
    generation: int = 0
    done: int = 0
    ended: bool = False

    def __post_init__(self) -> None:
        self.pages = _Pages(self.reading)


def _content(item: Item) -> tuple[bytes, int]:
    """Digest (blake2b, 16 bytes) and size in bytes of a file's current content."""
    digest = blake2b(digest_size=16)
    if item.body is not None:
        digest.update(item.body)
        return digest.digest(), len(item.body)
    assert item.path is not None
    size = 0
    with item.path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
            size += len(part)
    return digest.digest(), size
