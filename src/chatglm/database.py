"""Embedded databases: SQLite files that threads and processes use at once. `Instance` tells which processes are alive.

When `write` or a `transaction` returns, its changes survive the end of the process, however it ends, and a loss of
power (see `at_once`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from chatglm.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows: a process that was killed counts as alive until its file is deleted
    fcntl = None  # type: ignore[assignment]

__all__ = ["Database", "Instance"]

Result = TypeVar("Result")

_WAIT_SECONDS = 30


def _set(connection: sqlite3.Connection, setting: str) -> None:
    """Set a PRAGMA. If processes open a new file at once, SQLite may report it as locked without waiting; then try
    again.
    """
    end = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            connection.execute(f"PRAGMA {setting}")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return


class Database:
    """One SQLite file, for all threads of this process.

    Args:
        file: made if it is missing, readable by this user only.
        migrations: each item is a list of statements, with `;` between them. The first makes version 1 of an empty
            file, the second makes version 2 of version 1, and so on. Published items are never changed; new ones are
            added at the end.
        settings: of SQLite (`name = value`); set before anything is written to a new file.
        at_once: wait until changes are on the disk before a call returns. If False, changes still survive the end of
            the process, however it ends, but a power failure may lose the last seconds.
        opening: makes a context manager, which is entered each time the file is opened.

    Raises:
        OutputError: the file cannot be made or read, is not a database, or was written by a newer chatglm. The methods
            raise it too if the file cannot be read or written, or is closed.
    """

    def __init__(
        self,
        file: Path,
        migrations: Sequence[str],
        settings: Sequence[str] = (),
        *,
        at_once: bool = True,
        opening: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self.file = file
        self._opening = opening
        self._lock, self._reading = threading.RLock(), threading.Lock()
        self._writer = 0  # id of the thread that has a transaction
        self._connection: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._closed = False
        waits = "synchronous = FULL" if at_once else "synchronous = NORMAL"
        self._settings = (*settings, "journal_mode = WAL", waits, "foreign_keys = ON")
        with opening():
            with self._told():
                file.touch(mode=0o600)
            self._connection = self._connected(*self._settings)
            try:
                self._migrate(migrations)
                self._reader = self._connected("query_only = ON")
            except BaseException:
                self._connection.close()
                raise

    def _connected(self, *settings: str) -> sqlite3.Connection:
        """A connection that has opened all its files: SQLite opens the log only at the first read."""
        with self._told():
            made = sqlite3.connect(self.file, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                made.row_factory = sqlite3.Row
                for setting in (*settings, "schema_version"):
                    _set(made, setting)
            except BaseException:
                made.close()
                raise
            return made

    def _migrate(self, migrations: Sequence[str]) -> None:
        with self.transaction() as connection:  # only one of several processes migrates
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > len(migrations):
                raise OutputError(
                    f"{self.file}: was written by a newer chatglm; update this one, or move the file away"
                )
            for number, statements in enumerate(migrations[version:], version + 1):
                for statement in filter(str.strip, statements.split(";")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number}")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.DatabaseError, OSError) as error:
            if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError | OutputError):
                raise
            raise OutputError(
                f"{self.file}: {error}; free disk space, correct the file's permissions, or move it away"
            ) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run statements that take effect together. After an exception, none of them does."""
        with self._lock, self._told():
            connection = self._writing()
            connection.execute("BEGIN IMMEDIATE")
            self._writer = threading.get_ident()
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # after a full disk, SQLite has rolled back already
                    connection.execute("ROLLBACK")
                raise
            finally:
                self._writer = 0

    def read(self, statement: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """The rows that a query finds. It does not wait while other threads write to the disk. Within a transaction it
        sees the changes of that transaction.
        """
        if self._writer == threading.get_ident() or not statement.startswith("SELECT"):
            with self._lock, self._told():
                return self._writing().execute(statement, values).fetchall()
        with self._reading, self._told():
            if self._reader is None:
                self._check_open()
                with self._opening():
                    self._reader = self._connected("query_only = ON")
            return self._reader.execute(statement, values).fetchall()

    def write(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Run one statement; returns the number of rows that it changed."""
        with self.transaction() as connection:
            return connection.execute(statement, values).rowcount

    async def run(self, work: Callable[[Database], Result]) -> Result:
        """Run several calls in a thread, so that the event loop is not blocked."""
        return await asyncio.to_thread(work, self)

    def _writing(self) -> sqlite3.Connection:
        if self._connection is None:
            self._check_open()
            with self._opening():
                self._connection = self._connected(*self._settings)
        return self._connection

    def _check_open(self) -> None:
        if self._closed:
            raise OutputError(f"{self.file}: is closed; open it again")

    @property
    def awake(self) -> bool:
        """Whether the file is open."""
        return self._connection is not None or self._reader is not None

    def rest(self) -> bool:
        """Close the file until it is used again, unless it is in use now; returns whether it is closed."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._writer or not self._reading.acquire(blocking=False):
                return False
            try:
                self._let_go()
            finally:
                self._reading.release()
        finally:
            self._lock.release()
        return True

    def close(self) -> None:
        """Close the file for good. It may be called again."""
        with self._lock, self._reading:
            self._closed = True
            self._let_go()

    def _let_go(self) -> None:
        for connection in (self._connection, self._reader):
            if connection is not None:
                connection.close()
        self._connection = self._reader = None


class Instance:
    """Represents this process among those that use one folder or database, and tells which of them are alive. Each
    process holds a lock, which the system releases when the process ends, however it ends.

    Args:
        folder: for the lock files, one for each process; it is made.

    Raises:
        OutputError: the lock file cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            self.id, self._lock = self._begin()
        except OSError as error:
            raise OutputError(f"{folder}: cannot be written ({error.strerror}); correct its permissions") from None

    def _begin(self) -> tuple[str, int]:
        while True:
            name = secrets.token_hex(8)
            file = self._file(name)
            lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            if _locked(lock):
                with contextlib.suppress(FileNotFoundError):
                    if os.fstat(lock).st_ino == file.stat().st_ino:
                        return name, lock
            os.close(lock)  # another process took it for the file of a dead process, and removed it

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.lock"

    def alive(self, other: str) -> bool:
        """Whether that process still runs. The lock file of a dead process is removed."""
        if other == self.id:
            return True
        try:
            lock = os.open(self._file(other), os.O_RDWR)
        except FileNotFoundError:
            return False
        except OSError:
            return True  # unknown
        try:
            if fcntl is None or not _locked(lock):
                return True
            with contextlib.suppress(FileNotFoundError):
                self._file(other).unlink()
            return False
        finally:
            os.close(lock)

    def close(self) -> None:
        """Release the lock. From now on, other processes regard this one as ended."""
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                self._file(self.id).unlink()
            os.close(self._lock)
            self._lock = -1


def _locked(lock: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
