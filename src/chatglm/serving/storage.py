"""What a server keeps in the home folder: a database, uploaded files, and a lock that says that it lives.

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

from chatglm.database import Database
from chatglm.errors import OutputError
from chatglm.home import home_folder, home_path
from chatglm.serving.instances import Instance

__all__ = ["Storage"]

Result = TypeVar("Result")

_DATABASE = "tasks.sqlite"

_MIGRATIONS = (
    """
    CREATE TABLE tasks (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        dialect TEXT NOT NULL,
        path TEXT NOT NULL,
        model TEXT NOT NULL,
        body TEXT NOT NULL,
        state TEXT NOT NULL,
        instance TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        status INTEGER,
        answer TEXT,
        problem TEXT NOT NULL DEFAULT '',
        bytes INTEGER NOT NULL,
        created REAL NOT NULL,
        finished REAL,
        expires REAL NOT NULL
    );
    CREATE INDEX tasks_queue ON tasks (instance, state, owner, number);
    CREATE INDEX tasks_of ON tasks (owner, state, bytes);
    CREATE INDEX tasks_expire ON tasks (expires)
    """,
)


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

    def open(self) -> tuple[Database, Instance]:
        """The database, and this server among those that use it.

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
