"""The folder where chatglm keeps the data of this user: keys, tasks, files, conversations."""

from __future__ import annotations

import os
from pathlib import Path

from chatglm.errors import OutputError

__all__ = ["home_folder", "home_path"]


def home_path() -> Path:
    """The path of the folder, which need not exist: `CHATGLM_HOME`, or `~/.chatglm`.

    Raises:
        OutputError: this user has no home folder.
    """
    given = os.environ.get("CHATGLM_HOME")
    try:
        return Path(given).expanduser() if given else Path.home() / ".chatglm"
    except RuntimeError as error:
        raise _unusable(given or "~/.chatglm", str(error)) from None


def home_folder(path: Path | None = None) -> Path:
    """Make the folder, readable by this user only, if it is missing; returns its path.

    Args:
        path: use this one instead of `home_path()`.

    Raises:
        OutputError: it cannot be made.
    """
    folder = home_path() if path is None else path
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(str(folder), error.strerror or str(error)) from None
    return folder


def _unusable(folder: str, reason: str) -> OutputError:
    return OutputError(f"{folder}: cannot be made ({reason}); set CHATGLM_HOME to another folder")
