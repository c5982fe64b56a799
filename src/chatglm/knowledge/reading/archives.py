"""Zip files: opened within limits, and read member by member. Nothing is ever written to a disk."""

from __future__ import annotations

import contextlib
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import PurePosixPath

from chatglm.errors import ChatGLMError, InputError, UnsupportedError
from chatglm.knowledge.encodings import decode
from chatglm.knowledge.reading.documents import Draft, Limits, Reading

__all__ = ["Archive", "read_zip", "shown_name"]

_RATIO = 200
"""Bytes that a byte may unpack to, beyond a megabyte; text packs to a twentieth at most."""
_BLOCK = 1 << 20
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, struct.error, OverflowError)


class Archive:
    """A zip file's members.

    Raises:
        InputError: it is no zip file, is encrypted, or has too many members.
    """

    def __init__(self, data: bytes, limits: Limits) -> None:
        self._limits = limits
        self._left = limits.unpacked
        try:
            self._file = zipfile.ZipFile(io.BytesIO(data))
        except (*_DAMAGED, NotImplementedError, RecursionError, MemoryError) as error:
            raise InputError(f"is a damaged zip file ({error})") from None
        entries = [entry for entry in self._file.infolist() if not entry.is_dir()]
        if len(entries) > limits.members:
            raise InputError(f"has {len(entries):,} files in it, and at most {limits.members:,} are read; split it")
        self._entries = {_name_of(entry): entry for entry in entries}

    @property
    def names(self) -> list[str]:
        """Of its files, as they are stored."""
        return list(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def read(self, name: str) -> bytes:
        """One member.

        Raises:
            InputError: there is none of this name, it is encrypted or damaged, or unpacks to too much.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise InputError(f"lacks {name}")
        if entry.flag_bits & 1:
            raise InputError("is protected by a password; save it without one")
        most = min(self._left, _BLOCK + entry.compress_size * _RATIO)
        parts: list[bytes] = []
        size = 0
        try:
            with self._file.open(entry) as opened:
                while part := opened.read(_BLOCK):
                    size += len(part)
                    if size > most:
                        raise InputError(f"{name} unpacks to more than {most >> 20:,} MiB, which is the limit")
                    parts.append(part)
        except NotImplementedError as error:
            raise InputError(f"{name} is packed in a way that is not supported ({error})") from None
        except _DAMAGED as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{name} is damaged ({error})") from None
        except RuntimeError:  # encrypted, though not flagged so
            raise InputError("is protected by a password; save it without one") from None
        self._left -= size
        return b"".join(parts)

    def close(self) -> None:
        """The bytes are let go."""
        self._file.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _name_of(entry: zipfile.ZipInfo) -> str:
    """A member's name: UTF-8 where the file says so; else `zipfile` has read its bytes as cp437."""
    name = entry.filename
    if not entry.flag_bits & 0x800:
        with contextlib.suppress(UnicodeEncodeError, InputError):
            raw = name.encode("cp437")
            if not raw.isascii():
                name = _guessed(raw)
    return name.replace("\\", "/")


def _guessed(raw: bytes) -> str:
    for encoding in ("utf-8", "gb18030"):  # who names files in Chinese without UTF-8 has a Chinese Windows
        with contextlib.suppress(UnicodeDecodeError):
            return raw.decode(encoding)
    return decode(raw).text


def shown_name(name: str) -> str:
    """A member's name without what leads elsewhere: drives, `..`, control characters."""
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", ".", "..") and not part.endswith(":")]
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", "", "/".join(parts))[:200] or "unnamed"


def read_zip(data: bytes, limits: Limits, inner: Callable[[bytes, str], Reading]) -> Reading:
    """Every member that can be read, in the order of their names, each under a heading; the rest are warnings.

    Args:
        inner: reads a member, by its bytes and its name.

    Raises:
        InputError: no member can be read, or the members unpack to too much.
    """
    draft = Draft(limits)
    with Archive(data, limits) as archive:
        for name in sorted(archive.names):
            shown = shown_name(name)
            if _is_litter(shown):
                continue
            content = archive.read(name)
            try:
                reading = inner(content, shown)
            except ChatGLMError as error:
                draft.warnings.append(str(error))
                continue
            draft.heading(shown, 1)
            draft.add("\n")
            draft.take(reading, 1)
            draft.add("\n\n")
            draft.warnings += [f"{shown}: {warning}" for warning in reading.warnings]
        if not draft.length and draft.warnings:
            raise UnsupportedError(f"has nothing in it that can be read: {'; '.join(draft.warnings[:3])}")
    return draft.reading("application/zip")


def _is_litter(name: str) -> bool:
    """What systems put into folders by themselves."""
    parts = name.split("/")
    return parts[0] == "__MACOSX" or parts[-1] in (".DS_Store", "Thumbs.db", "desktop.ini")
