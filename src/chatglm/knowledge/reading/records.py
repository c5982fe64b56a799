"""JSON and JSON Lines as text: a line for each value, with its path in front: `作者.姓名：罗贯中`."""

from __future__ import annotations

import json
from typing import Any

from chatglm.errors import InputError
from chatglm.knowledge.reading.documents import Draft, Limits, Reading
from chatglm.knowledge.reading.texts import decoded, warnings_of

__all__ = ["read_json"]

_LEVELS = 100


def read_json(data: bytes, name: str, limits: Limits) -> Reading:
    """Read a JSON document, or one in each line (JSON Lines). Records are separated by empty lines.

    Raises:
        InputError: the file is not JSON, is too long, or is nested too deeply.
    """
    found = decoded(data, limits)
    text = found.text
    draft = Draft(limits)
    try:
        try:
            whole = json.loads(text) if text.strip() else []
            records = whole if isinstance(whole, list) else [whole]
        except ValueError:
            lines = [line for line in text.split("\n") if line.strip()]
            if len(lines) < 2:
                raise
            records = [_record(line, n) for n, line in enumerate(lines, 1)]
        for record in records:
            _add(draft, record, "", 0)
            draft.add("\n")
    except RecursionError:
        raise InputError("its JSON is nested too deeply") from None
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"is not JSON ({error}); name it .txt to have it read as text") from None
    draft.warnings += warnings_of(text, found.damaged)
    return draft.reading("application/json")


def _record(line: str, n: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise InputError(f"line {n} is not JSON ({error}); name it .txt to have it read as text") from None


def _add(draft: Draft, value: Any, path: str, level: int) -> None:
    if level > _LEVELS:
        raise InputError("its JSON is nested too deeply")
    if isinstance(value, dict):
        for key, each in value.items():
            _add(draft, each, f"{path}.{key}" if path else key, level + 1)
    elif isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
        for each in value:
            _add(draft, each, path, level + 1)
    elif value not in (None, "", []):
        said = "、".join(map(_said, value)) if isinstance(value, list) else _said(value)
        draft.line(f"{path}：{said}" if path else said)


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
