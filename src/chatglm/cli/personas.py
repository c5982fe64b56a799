"""A role play's speakers, from a file that the user names."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatglm.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from chatglm.chat.personas import Persona

__all__ = ["read_persona"]

_LARGEST = 256 << 10  # bytes


def read_persona(file: str) -> Persona:
    """Read `bot_name`, `bot_info`, `user_name` and `user_info`, some of them or all, from a YAML or JSON file.

    Raises:
        InputError: the file cannot be read, or has anything else.
    """
    import yaml

    from chatglm.chat.files import read_file
    from chatglm.chat.personas import Persona

    path = Path(file).expanduser()
    try:
        data = read_file(path, _LARGEST)
    except CheckpointError as error:
        raise InputError(f"--persona: {str(error).partition(', which no')[0]}") from None
    try:
        given: Any = yaml.safe_load(data.decode("utf-8-sig"))  # JSON is YAML, too
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise InputError(f"--persona {file}: {where}not valid YAML or JSON in UTF-8") from None
    known = [field.name for field in dataclasses.fields(Persona)]
    if not isinstance(given, dict) or not given:
        raise InputError(
            f"--persona {file}: expected names with texts, such as `bot_name: 李白`; known: {', '.join(known)}"
        )
    for name, text in given.items():
        if name not in known:
            raise InputError(f"--persona {file}: unknown name {name!r:.60}; known: {', '.join(known)}")
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"--persona {file}: {name}: expected a text, got {text!r:.60}")
    return Persona(**given)
