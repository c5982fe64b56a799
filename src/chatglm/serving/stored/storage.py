"""What a server stores in the home folder: a database, uploaded files, and a lock that shows that it is running.

It is opened when it is first used: a server whose clients store nothing needs no folder that it can write to.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from chatglm.database import Database, Instance
from chatglm.errors import OutputError
from chatglm.home import home_folder, home_path

__all__ = ["Storage"]

Result = TypeVar("Result")

_DATABASE = "tasks.sqlite"

_MIGRATIONS = (
    """
    CREATE TABLE files (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        name TEXT NOT NULL,
        purpose TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        created REAL NOT NULL,
        expires REAL
    );
    CREATE INDEX files_of ON files (owner, number, bytes);
    CREATE TABLE batches (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        dialect TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        path TEXT NOT NULL,
        model TEXT NOT NULL,
        input TEXT NOT NULL,
        state TEXT NOT NULL,
        instance TEXT NOT NULL,
        time_window TEXT NOT NULL,
        metadata TEXT NOT NULL,
        keep REAL,
        total INTEGER NOT NULL DEFAULT 0,
        done INTEGER NOT NULL DEFAULT 0,
        failed INTEGER NOT NULL DEFAULT 0,
        errors TEXT NOT NULL DEFAULT '[]',
        output TEXT,
        error_output TEXT,
        created REAL NOT NULL,
        expires REAL NOT NULL,
        begun REAL,
        cancelling REAL,
        finalizing REAL,
        finished REAL
    );
    CREATE INDEX batches_of ON batches (owner, dialect, number);
    CREATE INDEX batches_open ON batches (instance, state);
    CREATE TABLE tasks (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        dialect TEXT NOT NULL,
        path TEXT NOT NULL,
        model TEXT NOT NULL,
        body TEXT,
        batch TEXT REFERENCES batches (id) ON DELETE CASCADE,
        custom_id TEXT,
        place INTEGER,
        size INTEGER,
        state TEXT NOT NULL,
        instance TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        status INTEGER,
        answer TEXT,
        problem TEXT NOT NULL DEFAULT '',
        code TEXT NOT NULL DEFAULT '',
        bytes INTEGER NOT NULL,
        created REAL NOT NULL,
        finished REAL,
        expires REAL
    );
    CREATE INDEX tasks_queue ON tasks (instance, state, owner, batch IS NOT NULL, number);
    CREATE INDEX tasks_of ON tasks (owner, state, bytes) WHERE batch IS NULL;
    CREATE INDEX tasks_expire ON tasks (expires) WHERE batch IS NULL;
    CREATE INDEX lines_of ON tasks (batch, state, status) WHERE batch IS NOT NULL
    """,
    """
    CREATE TABLE responses (
        id TEXT NOT NULL PRIMARY KEY,
        owner TEXT NOT NULL,
        previous TEXT,
        response TEXT NOT NULL,
        input TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        expires REAL NOT NULL
    );
    CREATE INDEX responses_of ON responses (owner, expires, bytes);
    CREATE INDEX responses_expire ON responses (expires);
    CREATE TABLE response_items (
        id TEXT NOT NULL PRIMARY KEY,
        response TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE
    ) WITHOUT ROWID;
    CREATE INDEX response_items_of ON response_items (response)
    """,
)
# A task with a `batch` is a line of one. Its body is in the input file at `place`, and it expires with its batch.


class Storage:
    """
    Args:
        home: the folder; None: `home_path()`.
    """

    def __init__(self, home: Path | None = None) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._opened: tuple[Database, Instance] | None = None

    def exists(self) -> bool:
        """Whether a server has stored something here before."""
        try:
            return ((self._home or home_path()) / _DATABASE).is_file()
        except OSError:
            return False

    @property
    def folder(self) -> Path:
        """The home folder.

        Raises:
            OutputError: it cannot be made.
        """
        return home_folder(self._home)

    def file(self, name: str) -> Path:
        """The path of a file's content. Its name is made by this server, never by a client."""
        return self.files / name

    @property
    def files(self) -> Path:
        """The folder of all files' contents.

        Raises:
            OutputError: it cannot be made.
        """
        return home_folder(self.folder / "files")

    def open(self) -> tuple[Database, Instance]:
        """Open the database, and register this server as a user of it.

        Raises:
            OutputError: the folder or the database cannot be made or read.
        """
        with self._lock:
            if self._opened is None:
                folder = self.folder
                database = Database(folder / _DATABASE, _MIGRATIONS)
                try:
                    self._opened = database, Instance(folder / "servers")
                except BaseException:
                    database.close()
                    raise
            return self._opened

    async def run(self, work: Callable[[Database, Instance], Result]) -> Result:
        """Do something with the database in a thread, so that the event loop goes on.

        Raises:
            OutputError: the database cannot be read or written.
        """
        return await asyncio.to_thread(lambda: work(*self.open()))

    def close(self) -> None:
        """Close it. Other servers take over what is unfinished. It is opened again when it is used again."""
        with self._lock:
            opened, self._opened = self._opened, None
            if opened is not None:
                database, instance = opened
                with contextlib.suppress(sqlite3.Error, OutputError):
                    database.close()
                instance.close()
