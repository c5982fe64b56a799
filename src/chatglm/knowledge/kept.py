"""A store of model answers. The key is a digest of the whole request, so the same request is not sent twice."""

from __future__ import annotations

import threading
import time

from chatglm.database import Database

__all__ = ["TABLE", "Kept"]

TABLE = """
    CREATE TABLE kept (key BLOB NOT NULL PRIMARY KEY, text TEXT NOT NULL, used REAL NOT NULL) WITHOUT ROWID;
    CREATE INDEX kept_used ON kept (used)
    """
"""The table in the database. `used` is the time of the last use, in Unix seconds."""
MOST = 20_000
"""Largest number of answers that stay in a database after a summary."""


class Kept:
    """Stored answers of models in a database. Any number of threads may use it.

    Args:
        database: a database with the table of `TABLE`.
        owned: whether `close` also closes the database.
    """

    def __init__(self, database: Database, *, owned: bool = False) -> None:
        self._database, self._owned = database, owned
        self._lock = threading.Lock()
        self._used: set[bytes] = set()

    def get(self, key: bytes) -> str | None:
        """The stored answer to a request; None: there is none.

        Args:
            key: the digest of the request.
        """
        rows = self._database.read("SELECT text FROM kept WHERE key = ?", (key,))
        if not rows:
            return None
        with self._lock:
            self._used.add(key)
        return str(rows[0]["text"])

    def put(self, key: bytes, text: str) -> None:
        """Store an answer. When this returns, it is committed and survives a kill of the process."""
        self._database.write("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", (key, text, time.time()))

    def tidy(self, since: float = 0.0) -> None:
        """Delete answers that were last used before `since` (Unix seconds). If there are still more than `MOST`, also
        delete the least recently used ones."""
        with self._lock:
            used, self._used = self._used, set()
        now = time.time()
        with self._database.transaction() as connection:
            connection.executemany("UPDATE kept SET used = ? WHERE key = ?", [(now, key) for key in used])
            connection.execute("DELETE FROM kept WHERE used < ?", (since,))
            connection.execute(
                "DELETE FROM kept WHERE key IN (SELECT key FROM kept ORDER BY used DESC, key LIMIT -1 OFFSET ?)",
                (MOST,),
            )

    def close(self) -> None:
        """Close the database if it is owned."""
        if self._owned:
            self._database.close()
