"""`read`: which kind a document is, and the function that reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePath
from typing import BinaryIO, Literal

from chatglm.errors import InputError
from chatglm.knowledge.reading.documents import Limits, Reading
from chatglm.knowledge.reading.texts import read_markdown, read_text

__all__ = ["read"]

Reader = Callable[[bytes, str, Limits], Reading]

_READERS: dict[str, Reader] = {
    "txt": read_text,
    "md": read_markdown,
    "markdown": read_markdown,
}


def read(
    source: Path | BinaryIO | bytes,
    *,
    name: str,
    ocr: bool | Literal["auto"] = "auto",
    limit: Limits = Limits(),  # noqa: B008 - it cannot change
) -> Reading:
    """A document's text.

    Args:
        source: the file, or its bytes.
        name: of the file; its ending says of what kind it is.
        ocr: read the characters in pictures: of all pages, of none, or ("auto") of pictures and of pages without text.
        limit: what it may cost.

    Raises:
        InputError: it cannot be read; the message says why, and what to do.
        UnsupportedError: a kind that is not read.
        DependencyError: reading this kind needs a package that is not installed.
    """
    data = _bytes_of(source, name, limit)
    ending = PurePath(name).suffix.lower().removeprefix(".")
    try:
        return _READERS.get(ending, read_text)(data, name, limit)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _bytes_of(source: Path | BinaryIO | bytes, name: str, limit: Limits) -> bytes:
    if isinstance(source, bytes):
        data = source
    elif isinstance(source, Path):
        try:
            with source.open("rb") as file:
                data = file.read(limit.bytes + 1)
        except OSError as error:
            raise InputError(f"{name}: cannot be read ({error.strerror})") from None
    else:
        data = source.read(limit.bytes + 1)
    if len(data) > limit.bytes:
        raise InputError(f"{name}: is larger than the {limit.bytes >> 20:,} MiB that are read of a file; divide it")
    return data
