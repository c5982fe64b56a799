"""The folder where chatglm keeps what belongs to this user: keys, tasks, files, conversations."""

from __future__ import annotations

import os
from pathlib import Path

from chatglm.errors import OutputError

__all__ = ["home_folder"]


def home_folder() -> Path:
    """`CHATGLM_HOME`, or `~/.chatglm`. It is made if it is missing, readable by this user only.

    Raises:
        OutputError: it cannot be made.
    """
    given = os.environ.get("CHATGLM_HOME")
    try:
        folder = Path(given).expanduser() if given else Path.home() / ".chatglm"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise OutputError(
            f"{given or '~/.chatglm'}: cannot be made ({said}); set CHATGLM_HOME to another folder"
        ) from None
    return folder
