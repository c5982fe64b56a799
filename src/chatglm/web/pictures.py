"""Pictures of pages of documents, made in a separate process and kept for some time."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from pathlib import Path

from chatglm.errors import InputError
from chatglm.knowledge import Base, File
from chatglm.knowledge.reading import Limits, Readers

__all__ = ["Pictures"]

_KEPT = 48 << 20
"""Bytes of pictures in memory."""
_LIMITS = Limits(seconds=20.0, memory=1 << 30)


class Pictures:
    """Makes pictures in its own processes, not in those for indexing: a page is shown while a long document is read."""

    def __init__(self) -> None:
        self._readers = Readers(_LIMITS, workers=1)
        self._kept: OrderedDict[tuple[str, str, int, str], bytes] = OrderedDict()
        self._size = 0
        self._one = asyncio.Lock()

    def close(self) -> None:
        self._readers.close()

    async def page(self, base: Base, file: File, page: int, quote: str) -> bytes:
        """A page of a file as a PNG file, with a quotation marked.

        Raises:
            NotFoundError: the base has only the file's text.
            InputError: it cannot be drawn, or the file has changed.
        """
        key = (str(base.store.file), file.digest, page, quote)
        if (known := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            return known
        async with self._one:  # a request for the same picture meanwhile finds it in memory
            if (known := self._kept.get(key)) is not None:
                return known
            made = await asyncio.to_thread(self._made, base, file, page, quote)
            self._kept[key] = made
            self._size += len(made)
            while self._size > _KEPT:
                _, old = self._kept.popitem(last=False)
                self._size -= len(old)
            return made

    def _made(self, base: Base, file: File, page: int, quote: str) -> bytes:
        body = base.store.body(file.name)
        if isinstance(body, Path):
            try:
                body = body.read_bytes() if body.stat().st_size <= _LIMITS.bytes else b""
            except OSError as error:
                raise InputError(f"{file.name}: cannot be read any more ({error.strerror})") from None
        if hashlib.blake2b(body, digest_size=16).hexdigest() != file.digest:
            raise InputError(f"{file.name}: has changed since it was added")
        return self._readers.picture(body, file.name, page, quote)
