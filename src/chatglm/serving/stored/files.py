"""Files that clients upload, and files that batches make. Contents are in a folder, the rest is in the database."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import Request

from chatglm.database import Database
from chatglm.errors import InputError, NotFoundError
from chatglm.serving.access.callers import Caller
from chatglm.serving.bodies import BodyError
from chatglm.serving.stored import uploads
from chatglm.serving.stored.storage import Storage

__all__ = [
    "PART",
    "PURPOSES",
    "FileLimits",
    "Files",
    "StoredFile",
    "delete_expired",
    "insert_file",
    "lines_of",
    "new_file_id",
]

PURPOSES = (
    "agent",
    "assistants",
    "batch",
    "code-interpreter",
    "evals",
    "file-extract",
    "fine-tune",
    "retrieval",
    "user_data",
    "vision",
)
"""Purposes that clients may give their files. This server only uses files for batches."""
PART = ".part"
"""Ending of the name of a file that is being written."""
_NAME = 255  # characters
_LINE_BYTES = 16 << 20
_LEFT_SECONDS = 86400.0  # seconds; no upload takes longer
_BATCH_SECONDS = 30 * 86400.0


@dataclass(frozen=True)
class FileLimits:
    """
    Attributes:
        bytes: of one file.
        all_bytes, count: of one owner.
        seconds, rate: as `bodies.Limits` has them, for an upload.
    """

    bytes: int = 200 << 20
    all_bytes: int = 4 << 30
    count: int = 1000
    seconds: float = 60.0
    rate: int = 64 << 10


@dataclass(frozen=True)
class StoredFile:
    """
    Attributes:
        name: the client's name for it; it is never used as a key.
        created, expires: Unix seconds; None: it stays until it is deleted.
    """

    id: str
    name: str
    purpose: str
    bytes: int
    created: float
    expires: float | None


class Files:
    """
    Args:
        started: called when there is a new file, which may expire.
    """

    def __init__(self, storage: Storage, started: Callable[[], None], limits: FileLimits | None = None) -> None:
        self._storage, self._started = storage, started
        self.limits = limits or FileLimits()

    async def create(self, caller: Caller, request: Request, body: AsyncIterator[bytes]) -> StoredFile:
        """Store the file of a form. It is stored when this returns.

        The form has the fields `file`, `purpose` and, if the client wants, `expires_after[anchor]` and
        `expires_after[seconds]`.

        Args:
            body: of the request, bounded by `limits`.

        Raises:
            BodyError: the form is wrong, or there is too much of it.
            InputError: a field is wrong, or a file for a batch has no JSON lines.
            OutputError: it cannot be stored.
        """
        name = new_file_id()
        folder = await asyncio.to_thread(lambda: self._storage.files)
        part = folder / (name + PART)
        upload = await uploads.receive(request, body, part)
        try:
            purpose = upload.fields.pop("purpose", "")
            if purpose not in PURPOSES:
                raise InputError(f"purpose: must be one of: {', '.join(PURPOSES)}; got {purpose!r:.80}")
            now = time.time()
            seconds = _seconds(upload.fields)
            if seconds is None and purpose == "batch":
                seconds = _BATCH_SECONDS
            if upload.fields:
                raise InputError(f"{next(iter(upload.fields))[:80]}: unknown field of the form")
            if purpose == "batch":
                await asyncio.to_thread(_check_lines, part)
            stored = StoredFile(
                name, _shown(upload.name or ""), purpose, upload.size, now, None if seconds is None else now + seconds
            )
            await self._storage.run(lambda database, _: self._store(database, caller.owner, stored, part))
        finally:
            with contextlib.suppress(OSError):
                part.unlink()
        self._started()
        return stored

    def _store(self, database: Database, owner: str, stored: StoredFile, part: Path) -> None:
        with database.transaction() as connection:
            count, used = connection.execute(
                "SELECT count(*), coalesce(sum(bytes), 0) FROM files WHERE owner = ?", (owner,)
            ).fetchone()
            if count >= self.limits.count:
                raise BodyError(
                    f"{count:,} files are stored; at most {self.limits.count:,} are allowed. Delete some",
                    "too_large",
                    413,
                )
            if used + stored.bytes > self.limits.all_bytes:
                raise BodyError(
                    f"the stored files have {used:,} bytes; at most {self.limits.all_bytes:,} are kept. Delete some",
                    "too_large",
                    413,
                )
            insert_file(connection, owner, stored)
            part.rename(self._storage.file(stored.id))

    async def get(self, caller: Caller, name: str) -> StoredFile:
        """
        Raises:
            NotFoundError: there is no such file, it has expired, or it is another owner's.
        """
        rows = await self._read("SELECT * FROM files WHERE id = ? AND owner = ?", (name, caller.owner))
        if not rows or (rows[0].expires is not None and rows[0].expires < time.time()):
            raise NotFoundError(f"file {name!r:.80} does not exist; it may have expired")
        return rows[0]

    async def page(
        self, caller: Caller, *, purpose: str | None = None, after: str | None = None, limit: int, newest: bool = True
    ) -> tuple[list[StoredFile], bool]:
        """The owner's files from one on, and whether there are more.

        Raises:
            NotFoundError: `after` is not a file.
        """
        conditions, values = "owner = ? AND (expires IS NULL OR expires > ?)", [caller.owner, time.time()]
        if purpose is not None:
            conditions, values = f"{conditions} AND purpose = ?", [*values, purpose]
        if after is not None:
            await self.get(caller, after)
            sign = "<" if newest else ">"
            conditions += f" AND number {sign} (SELECT number FROM files WHERE id = ?)"
            values.append(after)
        order = "DESC" if newest else "ASC"
        found = await self._read(
            f"SELECT * FROM files WHERE {conditions} ORDER BY number {order} LIMIT ?", (*values, limit + 1)
        )
        return found[:limit], len(found) > limit

    async def content(self, caller: Caller, name: str) -> Path:
        """The path of its content.

        Raises:
            NotFoundError: as `get`.
        """
        stored = await self.get(caller, name)
        return self._storage.file(stored.id)

    async def delete(self, caller: Caller, name: str) -> None:
        """
        Raises:
            NotFoundError: as `get`.
            InputError: an unfinished batch reads it.
        """
        stored = await self.get(caller, name)

        def delete(database: Database, _: object) -> None:
            with database.transaction() as connection:
                for (batch,) in connection.execute(
                    "SELECT id FROM batches WHERE input = ? AND finished IS NULL LIMIT 1", (stored.id,)
                ):
                    raise InputError(
                        f"file {stored.id} is the input of {batch}, which is not finished; cancel it first"
                    )
                connection.execute("DELETE FROM files WHERE id = ?", (stored.id,))
            with contextlib.suppress(OSError):
                self._storage.file(stored.id).unlink()

        await self._storage.run(delete)

    async def _read(self, statement: str, values: tuple[Any, ...]) -> list[StoredFile]:
        if not self._storage.exists():
            return []
        rows = await self._storage.run(lambda database, _: database.read(statement, values))
        names = ("id", "name", "purpose", "bytes", "created", "expires")
        return [StoredFile(*(row[name] for name in names)) for row in rows]


def new_file_id() -> str:
    return f"file-{secrets.token_hex(16)}"


def insert_file(connection: sqlite3.Connection, owner: str, stored: StoredFile) -> None:
    """Write a file's row, as a part of a transaction."""
    connection.execute(
        "INSERT INTO files (id, owner, name, purpose, bytes, created, expires) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (stored.id, owner, stored.name, stored.purpose, stored.bytes, stored.created, stored.expires),
    )


def _shown(name: str) -> str:
    """A client's name for a file, as other clients may show it."""
    name = name.replace("\\", "/").rpartition("/")[2]
    return "".join(sign for sign in name if sign.isprintable())[-_NAME:] or "file"


def _seconds(fields: dict[str, str]) -> float | None:
    anchor, text = fields.pop("expires_after[anchor]", "created_at"), fields.pop("expires_after[seconds]", None)
    if anchor != "created_at":
        raise InputError("expires_after[anchor]: only created_at is supported")
    if text is None:
        return None
    if not (text.isdecimal() and len(text) < 10 and 3600 <= int(text) <= 2592000):
        raise InputError("expires_after[seconds]: must be an integer from 3600 to 2592000 (30 days)")
    return float(text)


def lines_of(file: Path, longest: int) -> Iterator[tuple[int, int, bytes]]:
    """The lines of a file that are not blank: number from 1, place in bytes, and content.

    Args:
        longest: bytes that a line may have.

    Raises:
        InputError: one is longer.
    """
    with file.open("rb") as lines:
        number, place = 0, 0
        while line := lines.readline(longest + 1):
            number += 1
            if len(line) > longest:
                raise InputError(f"line {number:,} has more than {longest:,} bytes")
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if text.strip():
                yield number, place + len(line) - len(text), text
            place += len(line)


def _check_lines(file: Path) -> None:
    """Refuse files that cannot be JSON lines. Their contents are checked when a batch begins.

    Raises:
        InputError: a line is not a JSON object.
    """
    empty = True
    for number, _, line in lines_of(file, _LINE_BYTES):
        text, empty = line.strip(), False
        if not (text.startswith(b"{") and text.endswith(b"}")):
            raise InputError(f"file: line {number:,} is not a JSON object; a file for a batch has one on each line")
    if empty:
        raise InputError("file: is empty")


def delete_expired(database: Database, folder: Path) -> None:
    """Delete expired files, and unfinished files of servers that were killed."""
    now = time.time()
    expired = [
        name
        for (name,) in database.read(
            "SELECT id FROM files WHERE expires < ? AND NOT EXISTS "
            "(SELECT 1 FROM batches WHERE input = files.id AND finished IS NULL)",
            (now,),
        )
    ]
    for name in expired:
        database.write("DELETE FROM files WHERE id = ?", (name,))
        with contextlib.suppress(OSError):
            (folder / name).unlink()
    if not folder.is_dir():
        return
    for file in folder.iterdir():
        with contextlib.suppress(OSError):
            if file.stat().st_mtime < now - _LEFT_SECONDS and not database.read(
                "SELECT 1 FROM files WHERE id = ?", (file.name,)
            ):
                file.unlink()
