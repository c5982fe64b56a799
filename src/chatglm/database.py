"""Embedded databases: one SQLite file each, used by threads and processes at once.

What `write` or a `transaction` has returned from survives the end of the process, however it ends, and a loss of power.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from chatglm.errors import OutputError

__all__ = ["Database"]

Result = TypeVar("Result")

_WAIT_SECONDS = 30


class Database:
    """
    Args:
        file: made if it is missing, readable by this user only.
        migrations: statements (`;` between them) that make version 1 of an empty file, version 2 of version 1, and so
            on. What is published is never changed; what comes later is added at the end.

    Raises:
        OutputError: the file cannot be made or read, is no database, or was written by a newer chatglm.
    """

    def __init__(self, file: Path, migrations: Sequence[str]) -> None:
        self.file = file
        self._lock = threading.RLock()
        with self._told():
            file.touch(mode=0o600)
            self._connection = sqlite3.connect(
                file, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
            )
        try:
            with self._told():
                self._connection.row_factory = sqlite3.Row
                for setting in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                    self._connection.execute(f"PRAGMA {setting}")
            self._migrate(migrations)
        except BaseException:
            self._connection.close()
            raise

    def _migrate(self, migrations: Sequence[str]) -> None:
        with self.transaction() as connection:  # of several processes, one migrates
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
            if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
                raise
            raise OutputError(f"{self.file}: {error}; make room, correct the file's rights, or move it away") from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Statements that take effect together, or, after an exception, not at all."""
        with self._lock, self._told():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # after a full disk SQLite has rolled back by itself
                    self._connection.execute("ROLLBACK")
                raise

    def read(self, statement: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """The rows that a query finds."""
        with self._lock, self._told():
            return self._connection.execute(statement, values).fetchall()

    def write(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Run one statement; returns how many rows it changed."""
        with self.transaction() as connection:
            return connection.execute(statement, values).rowcount

    async def run(self, work: Callable[[Database], Result]) -> Result:
        """Work of several calls, in a thread, so that the event loop goes on."""
        return await asyncio.to_thread(work, self)

    def close(self) -> None:
        """Close the file. It may be called again."""
        with self._lock:
            self._connection.close()
