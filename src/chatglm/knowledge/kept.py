"""What a model has said, under the digest of all that it was asked: nobody asks twice."""

from __future__ import annotations

import threading
import time

from chatglm.database import Database

__all__ = ["TABLE", "Kept"]

TABLE = """
    CREATE TABLE kept (key BLOB NOT NULL PRIMARY KEY, text TEXT NOT NULL, used REAL NOT NULL) WITHOUT ROWID;
    CREATE INDEX kept_used ON kept (used)
    """
"""Of the database that they are in. `used` is Unix seconds."""
MOST = 20_000
"""Answers of one database that are kept when a summary is done."""


class Kept:
    """For any number of threads.

    Args:
        database: has `TABLE`.
        owned: close it with this.
    """

    def __init__(self, database: Database, *, owned: bool = False) -> None:
        self._database, self._owned = database, owned
        self._lock = threading.Lock()
        self._used: set[bytes] = set()

    def get(self, key: bytes) -> str | None:
        """What was said; None: it was not asked."""
        rows = self._database.read("SELECT text FROM kept WHERE key = ?", (key,))
        if not rows:
            return None
        with self._lock:
            self._used.add(key)
        return str(rows[0]["text"])

    def put(self, key: bytes, text: str) -> None:
        """Keep it: when this returns, no end of the process takes it away."""
        self._database.write("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", (key, text, time.time()))

    def tidy(self, since: float = 0.0) -> None:
        """Delete what was not used since then (Unix seconds), and the oldest of what is too much."""
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
        if self._owned:
            self._database.close()
