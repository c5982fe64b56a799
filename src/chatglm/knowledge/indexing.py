"""Files into a base: queued, read, cut, indexed, given vectors.

Whoever adds files puts them into the base's queue. One process at a time, which holds the base's lock, works through
the queue, whoever filled it; when it ends, however it ends, another goes on where it was. A base is changed by whole
transactions only, so it needs no repair afterwards.
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

from chatglm.errors import ChatGLMError, InputError, OutputError
from chatglm.knowledge import splitting
from chatglm.knowledge.reading import Readers, Reading, ReadingError
from chatglm.knowledge.splitting import Piece, split
from chatglm.knowledge.store import BATCH, BLOCK, Store, digest_of, indexed

try:
    import fcntl
except ImportError:  # Windows: two processes may index a base at once, which costs time and harms nothing
    fcntl = None  # type: ignore[assignment]

__all__ = ["Filler", "Indexer", "Item", "Progress", "Report", "Step", "items_of", "items_of_folder"]

_log = logging.getLogger("chatglm.knowledge")

_ATTEMPTS = 3
_SMALL = 1 << 16
_TOGETHER = 64
_MAX_FILES = 1_000_000
_POLL_SECONDS = 0.05
_MERGED_FROM = 2_000
_FREE_PAGES = 256
_WAITING = "state IN ('queued', 'reading', 'indexing')"


@dataclass(frozen=True)
class Step:
    """The progress of an indexer.

    Attributes:
        file: "" while vectors are made, which belong to all files.
        done, total: pieces; 0 of 0 while the file is read.
        files: number of files that are still to do.
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
    """A file that is to be in a base.

    Attributes:
        path: where it lies; None: it is `body`.
        folder: that it was found in, for `sync`.
    """

    name: str
    path: Path | None = None
    body: bytes | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Report:
    """The result of adding files.

    Attributes:
        failed: names and reasons.
        warnings: names and warnings: parts that could not be read, edits whose piece is gone.
    """

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    warnings: tuple[tuple[str, str], ...] = ()


class Filler(Protocol):
    """What makes vectors of pieces."""

    def fill(self, progress: Callable[[int, int], None], go_on: Callable[[], bool]) -> bool:
        """Make some of those that are missing; returns whether more are missing, and can be made."""

    def drop(self, digests: Sequence[bytes]) -> None:
        """Forget the vectors of texts that no piece has any more."""


def items_of(paths: Iterable[Path]) -> list[Item]:
    """Files, and all files in folders, under the names that they will have: of a file its own, of one in a folder its
    path in that.

    Raises:
        InputError: something is not there, or two files would have one name.
    """
    found: list[Item] = []
    for path in paths:
        if path.is_dir():
            found += items_of_folder(path)
        elif path.is_file():
            found.append(Item(path.name, path.absolute()))
        else:
            raise InputError(f"{path}: no such file or folder")
    return found


def items_of_folder(folder: Path) -> list[Item]:
    """The files in a folder and the folders in it, without hidden ones; links are not followed.

    Raises:
        InputError: there is no such folder, or too much in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    root = folder.absolute()
    found: list[Item] = []
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(place, name)
            if name.startswith(".") or path.is_symlink() or not path.is_file():
                continue
            found.append(Item(path.relative_to(root).as_posix(), path, folder=root))
            if len(found) > _MAX_FILES:
                raise InputError(f"{folder}: holds more than {_MAX_FILES:,} files; add its folders one by one")
    return sorted(found, key=lambda item: item.name)


def _checked(items: Sequence[Item]) -> None:
    seen: dict[str, Item] = {}
    for item in items:
        name = item.name
        if not name.isprintable() or not 0 < len(name.encode("utf-8", "surrogatepass")) <= 1000:
            raise InputError(f"file {name[:200]!r}: its name has unprintable characters, or is too long; rename it")
        if name.startswith("/") or ".." in name.split("/"):
            raise InputError(f"file {name[:200]!r}: must be a name, without .. in it")
        other = seen.setdefault(name, item)
        if other is not item and other.path != item.path:
            raise InputError(
                f"{item.path or name} and {other.path or name} would both be {name!r}; add the folder above them"
            )


@dataclass
class _Queued:
    """What `enqueue` did with items."""

    ids: list[int] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)


class Indexer:
    """Puts files into a base and takes them out.

    Args:
        filler: what makes vectors; None: nothing does.
        follow: lets indexes beside the base take in what is new.

    Attributes:
        trouble: why vectors are missing; "" if none are.
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
        """Let `work` return after the batch that it is at."""
        self._ending.set()

    # The queue

    def enqueue(self, items: Sequence[Item], *, ocr: str = "auto", again: bool = True) -> _Queued:
        """Queue the files that are new or changed. What is unchanged costs a look at its content, and writes nothing.

        Args:
            again: also files that could not be read before, though they are unchanged.

        Raises:
            InputError: two files would have one name, or one has an impossible name.
        """
        _checked(items)
        found = _Queued()
        known = self._known()
        queue: list[tuple[Item, bytes, int]] = []
        for item in {item.name: item for item in items}.values():
            try:
                digest, size = _content(item)
            except OSError as error:
                found.failed.append((item.name, f"cannot be read ({error.strerror or error})"))
                continue
            row = known.get(item.name)
            if row is not None and row["digest"] == digest and (row["state"] != "failed" or not again):
                if row["state"] == "failed":
                    found.failed.append((item.name, row["error"]))
                else:
                    found.unchanged.append(item.name)
                    if row["state"] != "ready":
                        found.ids.append(row["id"])
                continue
            (found.changed if row is not None and row["generation"] else found.added).append(item.name)
            queue.append((item, digest, size))
        if queue:
            with self._store.writing() as connection:
                found.ids += [self._queue(connection, item, digest, size, ocr) for item, digest, size in queue]
        return found

    def _known(self) -> dict[str, sqlite3.Row]:
        with self._store.reading() as connection:
            rows = connection.execute(
                "SELECT id, name, digest, state, error, generation FROM file WHERE state <> 'removed'"
            ).fetchall()
        return {row["name"]: row for row in rows}

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
        """Take files out: no search finds them when this returns. What they held is deleted by `work`.

        Returns:
            how many there were.
        """
        with self._store.writing() as connection:
            gone = 0
            for name in names:
                gone += connection.execute(
                    "UPDATE file SET state = 'removed', name = NULL, generation = -1, leftover = 1 WHERE name = ?",
                    (name,),
                ).rowcount
            if gone:
                connection.execute("DELETE FROM kept")  # what models said of it; of the other files it is asked again
                self._store.changed(connection)
        return gone

    def retry(self, names: Sequence[str]) -> int:
        """Queue files again that could not be read; returns how many there were."""
        with self._store.writing() as connection:
            return sum(
                connection.execute(
                    "UPDATE file SET state = 'queued', error = '', attempts = 0 WHERE name = ? AND state = 'failed'",
                    (name,),
                ).rowcount
                for name in names
            )

    def names_in(self, folder: Path) -> set[str]:
        """The files that were found in a folder, or in one below it."""
        root = folder.absolute()
        with self._store.reading() as connection:
            rows = connection.execute("SELECT name, folder FROM file WHERE folder IS NOT NULL AND name IS NOT NULL")
            return {row["name"] for row in rows if Path(row["folder"]) == root}

    # Work

    def work(self, ids: Sequence[int] | None = (), progress: Progress | None = None) -> None:
        """Index what is queued, until nothing is, or another process does so and has done these files.

        Args:
            ids: of files; None: wait until the other has done everything.
        """
        while not self._ending.is_set():
            with self._lock() as held:
                if held:
                    self._drain(progress or (lambda step: None))
            if held or (self._done(ids, progress) and ids is not None):
                return
            self._ending.wait(_POLL_SECONDS)

    def outcome(self, queued: _Queued, removed: Sequence[str] = ()) -> Report:
        """What became of queued files."""
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
        """Whether this thread may index now. The lock goes with the process, however it ends."""
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
                worked = True
            elif self._clean(filler):
                worked = True
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
        """Work with a model. Where it fails, files are indexed all the same, and are found by their words."""
        try:
            return work()
        except OutputError:
            raise
        except ChatGLMError as error:
            self.trouble = f"texts have no vectors ({error})"
            _log.warning("%s: %s", self._store.name, self.trouble)
            return None

    def _next(self) -> tuple[list[sqlite3.Row], int]:
        """Files to index next, and how many there are to do: one, or several small ones."""
        with self._store.reading() as connection:
            (waiting,) = connection.execute(f"SELECT count(*) FROM file WHERE {_WAITING}").fetchone()
            # What is begun is ended first.
            rows = connection.execute(
                f"SELECT * FROM file WHERE {_WAITING} ORDER BY state <> 'indexing', id LIMIT {_TOGETHER}"
            ).fetchall()
        small = 0
        while small < len(rows) and rows[small]["size"] <= _SMALL and rows[small]["state"] != "indexing":
            small += 1
        return rows[: max(small, 1)], waiting

    def _index(self, rows: Sequence[sqlite3.Row], waiting: int, progress: Progress) -> None:
        """Index files, or note why they cannot be."""
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
            self._advance(jobs)
            last = jobs[-1]
            progress(Step(last.row["name"], "indexing", last.done, len(last.pieces), waiting))
            jobs = [job for job in jobs if not job.ended]

    def _begun(self, row: sqlite3.Row) -> _Job | None:
        """A file whose pieces another process has begun to index."""
        with self._store.reading() as connection:
            reading = self._store.reading_in(connection, row, row["next_generation"])
        pieces = list(split(reading))
        if len(pieces) == row["total"]:
            return _Job(row, reading, pieces, row["next_generation"], row["done"])
        self._set(row, "state = 'queued'")  # another version of chatglm cut it
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
        except OutputError:  # the base's own file, not the document
            raise
        except ChatGLMError as error:
            if isinstance(error, ReadingError) and row["attempts"] + 1 < _ATTEMPTS:
                self._set(row, "state = 'queued', attempts = attempts + 1")
            else:
                self._fail(row, str(error))
        return None

    def _read(self, row: sqlite3.Row) -> Reading:
        with self._store.reading() as connection:
            body = connection.execute("SELECT body FROM source WHERE file = ?", (row["id"],)).fetchone()
        if body is not None:
            return self._readers.read(body["body"], row["name"], row["ocr"])
        if row["path"] is None:  # the base was imported
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
        """Change a file's row, unless it is another one meanwhile."""
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
        """Index a batch of pieces, of one file or of several, in one transaction."""
        room = BATCH
        with self._store.writing() as connection:
            for job in jobs:
                now = connection.execute(
                    f"SELECT * FROM file WHERE id = ? AND digest = ? AND {_WAITING}", (job.row["id"], job.row["digest"])
                ).fetchone()
                if now is None:  # it was removed or replaced
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
        """Make the next generation what is searched."""
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

    def _clean(self, filler: Filler | None) -> bool:
        """Delete a batch of what is left of old generations; returns whether there was anything."""
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
            connection.executemany("DELETE FROM vector WHERE digest = ?", [(digest,) for digest in orphans])
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
        if filler is not None and orphans:
            self._filling(partial(filler.drop, orphans))
        return True

    def _split_anew(self) -> bool:
        """Cut all texts again, if today's chatglm cuts them at other places; returns whether it does."""
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
        """Put the index in order, count common grams, give free pages back."""
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


class _ChangedError(ChatGLMError):
    def __init__(self, digest: bytes, size: int) -> None:
        super().__init__()
        self.digest, self.size = digest, size


class _Pages:
    """The page of a character, found quickly."""

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
    """A file whose pieces are indexed.

    Attributes:
        generation: of these pieces; 0: it is to begin.
        done: pieces that are indexed.
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
    """Digest and size in bytes of what a file holds now."""
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
