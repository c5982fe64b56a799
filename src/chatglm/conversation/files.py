"""Stores the contents of conversations' files: in the folders of the interpreter's kernels, and in other folders."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from chatglm.errors import InputError, OutputError
from chatglm.tools.interpreter.folder import Folder, checked_name, moving, remove
from chatglm.tools.interpreter.limits import Limits
from chatglm.tools.interpreter.pool import Kernels, folder_of

__all__ = ["Digest", "Files", "folder_beside"]

_CHUNK = 1 << 20


class Digest(NamedTuple):
    """Bytes of a file, and their SHA-256 in hexadecimal digits."""

    size: int
    sha256: str


def folder_beside(store: Path) -> Path:
    """The default folder for files of a store's conversations.

    Args:
        store: its file.
    """
    return store.with_name("conversations")


class Files:
    """
    A conversation's uploads, and files that its code makes, are in the folder of its kernel, where the code finds them.
    Pictures are in a folder that no code sees, and so are uploads if there are no kernels.

    Args:
        home: of the folders, one for each conversation; made when it is needed.
    """

    def __init__(self, home: Path, kernels: Kernels | None) -> None:
        self._home, self._kernels = home, kernels
        self._limits = Limits() if kernels is None else kernels.limits

    async def upload(self, user: int, conversation: str, name: str, data: AsyncIterable[bytes]) -> Digest:
        """Store a file.

        Raises:
            InputError: the name cannot be used, or the file is too large.
            OutputError: the disk is full.
            SandboxError: the interpreter has been closed.
        """
        checked_name(name)
        if self._kernels is None:
            return await self.keep(conversation, name, data)
        read = _Read(data)
        await self._kernels.put(conversation, name, read, user=str(user))
        return read.digest

    async def keep(self, conversation: str, name: str, data: AsyncIterable[bytes] | bytes) -> Digest:
        """Store a file where no code sees it.

        Raises:
            InputError, OutputError: as `upload`.
        """
        read = _Read(_once(data) if isinstance(data, bytes) else data)
        try:
            folder = await asyncio.to_thread(self._made, conversation)
        except OSError as error:
            raise OutputError(f"{self._home}: {error.strerror}; free disk space, or correct its permissions") from None
        try:
            await folder.put(name, read, self._limits)
        finally:
            folder.close()
        return read.digest

    async def digest(self, user: int, conversation: str, name: str) -> Digest:
        """Of a file that code has made.

        Raises:
            InputError: there is none of this name.
        """
        return await asyncio.to_thread(_digest, await self.open(user, conversation, name, kept=False))

    async def open(self, user: int, conversation: str, name: str, *, kept: bool) -> BinaryIO:
        """A file, for reading.

        Args:
            kept: one that no code sees.

        Raises:
            InputError: there is none of this name.
        """
        if self._kernels is not None and not kept:
            return await self._kernels.open(conversation, name, user=str(user))

        def opened() -> BinaryIO:
            folder = Folder(self._home / conversation)
            try:
                return folder.open(name)
            finally:
                folder.close()

        try:
            return await asyncio.to_thread(opened)
        except OSError:
            raise InputError(f"{name!r:.80}: no such file in this conversation") from None

    async def discard(self, user: int, conversation: str, name: str) -> None:
        """Remove an upload, if it is there."""
        with contextlib.suppress(InputError, OSError):
            if self._kernels is not None:
                await self._kernels.delete(conversation, name, user=str(user))
            else:
                await asyncio.to_thread(self._delete, conversation, name)

    async def remove(self, user: int, conversation: str) -> None:
        """Remove all files of a conversation, and end its kernel. What cannot be removed stays."""
        if self._kernels is not None:
            with contextlib.suppress(Exception):  # it may have been closed
                await self._kernels.end(conversation, user=str(user))
        with contextlib.suppress(OSError):
            await asyncio.to_thread(remove, self._home / conversation)

    def clear(self, user: int, conversation: str, interpreter: Path) -> None:
        """Remove all files of a conversation where this process runs no kernels. What cannot be removed stays.

        Args:
            interpreter: home of the kernels of others.
        """
        for folder in (self._home / conversation, folder_of(interpreter, conversation, str(user))):
            for path in (folder, moving(folder)):
                with contextlib.suppress(OSError):
                    remove(path)

    def _delete(self, conversation: str, name: str) -> None:
        folder = Folder(self._home / conversation)
        try:
            folder.delete(name)
        finally:
            folder.close()

    def _made(self, conversation: str) -> Folder:
        folder = self._home / conversation
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Folder(folder)


class _Read:
    """Passes pieces of a file on, and counts them."""

    def __init__(self, data: AsyncIterable[bytes]) -> None:
        self._data, self._hash, self._size = data, hashlib.sha256(), 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._data:
            self._size += len(piece)
            self._hash.update(piece)
            yield piece

    @property
    def digest(self) -> Digest:
        return Digest(self._size, self._hash.hexdigest())


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _digest(file: BinaryIO) -> Digest:
    hashed, size = hashlib.sha256(), 0
    with file:
        while piece := file.read(_CHUNK):
            size += len(piece)
            hashed.update(piece)
    return Digest(size, hashed.hexdigest())
