"""How much a server takes: bases of one user, files of a base, bytes of an upload. `Shelf` refuses what is more.

The owner of the machine is not bound by them: `chatglm knowledge` and `Base` take any number of files.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from chatglm.errors import InputError

__all__ = ["BASES", "BASE_BYTES", "FILES", "OWNED_BYTES", "UPLOAD_BYTES", "WAITING", "file_name"]

BASES = 100
"""That one user owns."""
FILES = 10_000
"""Of a base."""
BASE_BYTES = 4 << 30
"""Of all files of a base."""
OWNED_BYTES = 16 << 30
"""Of all files of all bases of one user."""
WAITING = 1_000
"""Files of a base that are not read yet."""
UPLOAD_BYTES = 64 << 20
"""Of the files that come at once, and of a file that is given out."""
_NAME = 300


def file_name(given: str) -> str:
    """The name of a file that somebody sends, as a base has it.

    Raises:
        InputError: no file of a base can have this name.
    """
    parts = PurePosixPath(given.replace("\\", "/")).parts
    if not parts or len(given) > _NAME or not given.isprintable() or parts[0] == "/" or ".." in parts:
        raise InputError(
            f"file: {given!r:.80} is not a valid file name; use at most {_NAME} printable characters, without .."
        )
    return "/".join(parts)
