"""Limits of a server: bases of one user, files of a base, bytes of an upload. `Shelf` enforces them.

They do not apply to the owner of the machine: `chatglm knowledge` and `Base` take any number of files.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from chatglm.errors import InputError

__all__ = ["BASES", "BASE_BYTES", "FILES", "OWNED_BYTES", "UPLOAD_BYTES", "WAITING", "file_name"]

BASES = 100
"""Largest number of bases that one user may own."""
FILES = 10_000
"""Largest number of files in one base."""
BASE_BYTES = 4 << 30
"""Largest size of all files of one base together, in bytes."""
OWNED_BYTES = 16 << 30
"""Largest size of all files in all bases of one user together, in bytes."""
WAITING = 1_000
"""Largest number of files of one base that wait to be read."""
UPLOAD_BYTES = 64 << 20
"""Largest size of one upload (all its files together) and of one download, in bytes."""
_NAME = 300


def file_name(given: str) -> str:
    """The name of an uploaded file in its base: the given path with `/` as separator.

    Raises:
        InputError: the name is empty, too long, absolute, or has unprintable characters or `..` in it.
    """
    parts = PurePosixPath(given.replace("\\", "/")).parts
    if not parts or len(given) > _NAME or not given.isprintable() or parts[0] == "/" or ".." in parts:
        raise InputError(
            f"file: {given!r:.80} is not a valid file name; use at most {_NAME} printable characters, without .."
        )
    return "/".join(parts)
