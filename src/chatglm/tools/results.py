"""Converts what a tool returned or raised to an outcome: text of limited length, and pictures as PNG files."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import io
import json
import os
import sys
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from chatglm.tools.pictures import png_problem
from chatglm.tools.tool import Outcome

__all__ = ["as_text", "cut", "failed", "failure", "outcome_of", "shown"]

_MOST_PICTURES = 20
_TRUNCATED = " [TRUNCATED]"  # as in ChatGLM3's composite demo
_MOST_TEXT = 1 << 20
"""Most characters that are made from a result, before it is cut to the limits of the toolbox."""


def outcome_of(value: Any) -> Outcome:
    """Convert what a tool returned: a text stays unchanged; a picture (PNG bytes, an image of Pillow, a figure of
    Matplotlib) becomes a PNG file; other values become JSON, and, if JSON has no form for them, Python's `repr`. Never
    raises.
    """
    try:
        if isinstance(value, Outcome):
            return value
        picture = _picture(value)
        return Outcome(as_text(value)) if picture is None else Outcome("[Image]", pictures=(picture,))
    except BaseException as error:
        return failed(failure(error))


def failed(text: str) -> Outcome:
    return Outcome(text, failed=True)


def failure(error: BaseException) -> str:
    """The text of a tool's exception, for the model. Converting the exception to text may fail, too."""
    try:
        text = str(error)
    except BaseException:
        text = ""
    return f"Error: {type(error).__name__}: {text[:_MOST_TEXT]}" if text else f"Error: {type(error).__name__}"


def cut(outcome: Outcome, characters: int, whole: int) -> Outcome:
    """Cut an outcome to its limits.

    Args:
        characters: most characters of the text for the model.
        whole: most bytes (UTF-8) of the text for people.
    """
    most = max(characters, whole) + 1
    # Replace what UTF-8 cannot encode: lone surrogates could not be sent.
    text, long = (str(part)[:most].encode("utf-8", "replace").decode() for part in (outcome.text, outcome.whole))
    if len(text.removesuffix(_TRUNCATED)) > characters:  # if the tool itself has cut the text, it stays
        text, long = text[:characters] + _TRUNCATED, long or text
    if len(long.encode()) > whole:
        long = long.encode()[:whole].decode("utf-8", "ignore") + _TRUNCATED
    pictures = tuple(picture for picture in outcome.pictures[:_MOST_PICTURES] if not png_problem(picture))
    return replace(outcome, text=text, whole="" if long == text else long, pictures=pictures)


def _picture(value: Any) -> bytes | None:
    if isinstance(value, bytes):
        return None if png_problem(value) else value
    # A tool that returns such an object has imported the package, so it is not imported here.
    if (pillow := sys.modules.get("PIL.Image")) is not None and isinstance(value, pillow.Image):
        file = io.BytesIO()
        value.save(file, "PNG")
        return _checked(file.getvalue())
    figures = sys.modules.get("matplotlib.figure")
    if figures is not None and isinstance(value, figures.Figure):
        file = io.BytesIO()
        value.savefig(file, format="png", dpi=100)
        return _checked(file.getvalue())
    return None


def _checked(data: bytes) -> bytes:
    if problem := png_problem(data):
        raise ValueError(f"the picture cannot be shown: {problem}")
    return data


def as_text(value: Any) -> str:
    """A tool's result as the text of an observation, of limited length."""
    if isinstance(value, str):
        return value[:_MOST_TEXT]
    parts: list[str] = []
    length = 0
    try:
        for part in _Encoder(ensure_ascii=False).iterencode(value):  # in pieces, because a result may be endless
            parts.append(part[:_MOST_TEXT])
            length += len(part)
            if length > _MOST_TEXT:
                break
    except (TypeError, ValueError, RecursionError):  # a key that is not text, a cycle, deep nesting
        return shown(value, 10_000)
    return "".join(parts)


class _Encoder(json.JSONEncoder):
    def iterencode(self, o: Any, _one_shot: bool = False) -> Any:
        return super().iterencode(o, False)  # the C encoder would make the whole text at once

    def default(self, o: Any) -> Any:
        if dataclasses.is_dataclass(o) and not isinstance(o, type):
            return {field.name: getattr(o, field.name) for field in dataclasses.fields(o)}
        if isinstance(o, enum.Enum):
            return o.value
        if isinstance(o, datetime.date | datetime.time | decimal.Decimal | uuid.UUID | os.PathLike):
            return str(o)
        if isinstance(o, Mapping):
            return dict(o)
        for method in ("model_dump", "tolist"):  # pydantic's models; arrays and their scalars
            if callable(made := getattr(type(o), method, None)):
                return made(o)
        if isinstance(o, set | frozenset):
            return list(o)
        if isinstance(o, bytes | bytearray | memoryview):
            return f"<{len(o)} bytes>"
        return shown(o, 10_000)


def shown(value: Any, most: int = 80) -> str:
    """The `repr` of a value, cut to `most` characters. Never raises. Of a large list, only the shown part is read."""
    if isinstance(value, str):
        text = repr(value[: most + 1])
    elif isinstance(value, int) and value.bit_length() > 1000:
        text = "a number of more than 300 digits"
    elif type(value) in (list, tuple):
        opening, closing = "[]" if isinstance(value, list) else "()"
        text = opening + _listed(value, most) + closing
    elif type(value) is dict:
        text = "{" + _listed(value.items(), most, pairs=True) + "}"
    else:
        try:
            text = repr(value)
        except BaseException:
            text = f"<{type(value).__name__}>"
    return text if len(text) <= most else text[:most] + "…"


def _listed(items: Iterable[Any], most: int, pairs: bool = False) -> str:
    parts: list[str] = []
    for item in items:
        if most <= 0:
            parts.append("…")
            break
        # Nested values get half of the room, which also limits the depth.
        part = f"{shown(item[0], most // 2)}: {shown(item[1], most // 2)}" if pairs else shown(item, most // 2)
        parts.append(part)
        most -= len(part) + 2
    return ", ".join(parts)
