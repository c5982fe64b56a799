"""Stores the contents of conversations' files: in the folders of the interpreter's kernels, and in other folders."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from chatglm.errors import InputError, OutputError
from chatglm.tools.interpreter.folder import Folder, checked_name, moving, remove
from chatglm.tools.interpreter.limits import Limits
from chatglm.tools.interpreter.pool import Kernels, folder_of

__all__ = ["Digest", "Files", "folder_beside"]

_CHUNK = 1 << 20


class Digest(NamedTuple):
    """Number of bytes of a file, and their SHA-256 in hexadecimal digits."""

    size: int
    sha256: str


def folder_beside(store: Path) -> Path:
    """The default folder for files of a store's conversations.

    Args:
        store: file of the store.
    """
    return store.with_name("conversations")


class Files:
    """Files of conversations.

    A conversation's uploads, and files that its code makes, are in the folder of its kernel, where the code finds them.
    Pictures are in a folder that code cannot see. Without kernels, uploads are there too.

    Args:
        home: folder for the conversations' folders; made when it is needed.
        kernels: None: there is no interpreter.
    """

    def __init__(self, home: Path, kernels: Kernels | None) -> None:
        self._home, self._kernels = home, kernels
        self._limits = Limits() if kernels is None else kernels.limits

    async def upload(
        self,
        user: int,
        conversation: str,
        name: str,
        data: AsyncIterable[bytes],
        accept: Callable[[Digest], object] | None = None,
    ) -> Digest:
        """Store an upload.

        Args:
            accept: called in a thread when the data is complete, before the file replaces an older one of this name.
                If it raises, nothing is changed.

        Raises:
            InputError: the name cannot be used, or the file is too large.
            OutputError: the disk is full.
            SandboxError: the interpreter has been closed.
        """
        checked_name(name)
        if self._kernels is None:
            return await self.keep(conversation, name, data, accept)
        read = _Read(data)
        await self._kernels.put(conversation, name, read, user=str(user), accept=read.accepting(accept))
        return read.digest

    async def keep(
        self,
        conversation: str,
        name: str,
        data: AsyncIterable[bytes] | bytes,
        accept: Callable[[Digest], object] | None = None,
    ) -> Digest:
        """Store a file where code cannot see it.

        Args:
            accept: as for `upload`.

        Raises:
            InputError, OutputError: as `upload`.
        """
        read = _Read(_once(data) if isinstance(data, bytes) else data)
        try:
            folder = await asyncio.to_thread(self._made, conversation)
        except OSError as error:
            raise OutputError(f"{self._home}: {error.strerror}; free disk space, or correct its permissions") from None
        try:
            await folder.put(name, read, self._limits, read.accepting(accept))
        finally:
            folder.close()
        return read.digest

    async def digest(self, user: int, conversation: str, name: str) -> Digest:
        """Size and SHA-256 of a file that code has made.

        Raises:
            InputError: there is no file of this name.
        """
        return await asyncio.to_thread(_digest, await self.open(user, conversation, name, kept=False))

    async def open(self, user: int, conversation: str, name: str, *, kept: bool) -> BinaryIO:
        """Open a file for reading.

        Args:
            kept: it is a file that code cannot see.

        Raises:
            InputError: there is no file of this name.
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

    async def remove(self, user: int, conversation: str) -> None:
        """Remove all files of a conversation, and end its kernel. Files that cannot be removed stay."""
        if self._kernels is not None:
            with contextlib.suppress(Exception):  # the interpreter may have been closed
                await self._kernels.end(conversation, user=str(user))
        with contextlib.suppress(OSError):
            await asyncio.to_thread(remove, self._home / conversation)

    def clear(self, user: int, conversation: str, interpreter: Path) -> None:
        """Remove all files of a conversation, in a process that runs no kernels. Files that cannot be removed stay.

        Args:
            interpreter: home folder of the kernels of other processes.
        """
        for folder in (self._home / conversation, folder_of(interpreter, conversation, str(user))):
            for path in (folder, moving(folder)):
                with contextlib.suppress(OSError):
                    remove(path)

    def _made(self, conversation: str) -> Folder:
        folder = self._home / conversation
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Folder(folder)


class _Read:
    """Passes the pieces of a file on, and computes their size and SHA-256."""

    def __init__(self, data: AsyncIterable[bytes]) -> None:
        self._data, self._hash, self._size = data, hashlib.sha256(), 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._data:
            self._size += len(piece)
            self._hash.update(piece)
            yield piece

    def accepting(self, accept: Callable[[Digest], object] | None) -> Callable[[], object] | None:
        """A function without arguments that calls another one with the digest."""
        return None if accept is None else lambda: accept(self.digest)

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
