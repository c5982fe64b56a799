"""Zip files: members are read within limits, one at a time, in memory. Nothing is written to disk."""

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
"""Largest compression ratio of a member, beyond one MiB. Ordinary text has a ratio of at most 20."""
_BLOCK = 1 << 20
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, struct.error, OverflowError)


class Archive:
    """A zip file in memory.

    Args:
        data: the bytes of the file.
        limits: limits for the number of members and their unpacked size.

    Raises:
        InputError: it is not a zip file, is damaged, or has too many members.
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
        """The names of its files, in the order of the archive."""
        return list(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def read(self, name: str) -> bytes:
        """Unpack one member.

        Raises:
            InputError: there is no such member, it is encrypted or damaged, or it is too large when unpacked.
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
        except RuntimeError:  # encrypted, although its flag does not say so
            raise InputError("is protected by a password; save it without one") from None
        self._left -= size
        return b"".join(parts)

    def close(self) -> None:
        """Free the bytes of the file."""
        self._file.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _name_of(entry: zipfile.ZipInfo) -> str:
    """The name of a member. If its flag does not declare UTF-8, `zipfile` has decoded it as cp437. Then the real
    encoding is guessed from the bytes."""
    name = entry.filename
    if not entry.flag_bits & 0x800:
        with contextlib.suppress(UnicodeEncodeError, InputError):
            raw = name.encode("cp437")
            if not raw.isascii():
                name = _guessed(raw)
    return name.replace("\\", "/")


def _guessed(raw: bytes) -> str:
    for encoding in ("utf-8", "gb18030"):  # Chinese names that are not UTF-8 usually come from a Chinese Windows
        with contextlib.suppress(UnicodeDecodeError):
            return raw.decode(encoding)
    return decode(raw).text


def shown_name(name: str) -> str:
    """The name of a member without drives, `..` and control characters; at most 200 characters."""
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", ".", "..") and not part.endswith(":")]
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", "", "/".join(parts))[:200] or "unnamed"


def read_zip(data: bytes, limits: Limits, inner: Callable[[bytes, str], Reading]) -> Reading:
    """Read a zip file: its members in the order of their names, each under a heading. Members that cannot be read
    become warnings.

    Args:
        inner: reads a member, given its bytes and its name.

    Raises:
        InputError: the file is damaged or encrypted, or its members are too large when unpacked.
        UnsupportedError: no member can be read.
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
    """Whether a file is one of those that operating systems put into folders, such as .DS_Store."""
    parts = name.split("/")
    return parts[0] == "__MACOSX" or parts[-1] in (".DS_Store", "Thumbs.db", "desktop.ini")
