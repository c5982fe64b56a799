"""Reads foreign documents that describe tools: JSON and YAML of limited size, depth and number of values.

YAML is read by the rules of the JSON schema of YAML 1.2: `on`, `no` and dates are texts. Tags have no effect, so a
document can only have plain values. Repeated aliases ("a billion laughs") are counted as if they were written out.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from chatglm.errors import ToolError

__all__ = ["MOST_BYTES", "from_environment", "parse_document", "parse_value", "read_bytes", "read_document"]

MOST_BYTES = 8 << 20
"""Most bytes of a document."""

_MOST_DEPTH = 64
_MOST_VALUES = 400_000
# Numbers in YAML 1.2's core schema and in JSON.
_INTEGER = re.compile(r"[-+]?[0-9]{1,30}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,40}|[0-9]{1,40}(\.[0-9]{0,40})?)([eE][-+]?[0-9]{1,3})?")
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None,
          "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}  # fmt: skip
_HALVES = re.compile("[\ud800-\udfff]")
_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # it may be part of a pair
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """All bytes of a regular file.

    Raises:
        ToolError: there is no such file, it is not a regular one, cannot be read, or is larger than `most` bytes.
    """
    try:
        # Without O_NONBLOCK, opening a pipe would wait for its writer.
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(number, "rb") as stream:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                raise ToolError(f"{path}: is not a regular file")
            data = stream.read(most + 1)
    except OSError as error:
        raise ToolError(f"{path!s:.300}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        if isinstance(error, ToolError):
            raise
        raise ToolError(f"{path!r:.300}: not the name of a file") from None
    if len(data) > most:
        raise ToolError(f"{path}: larger than {most:,} bytes")
    return data


def read_document(path: Path) -> dict[str, Any]:
    """Read a JSON or YAML file that holds an object.

    Raises:
        ToolError: see `read_bytes` and `parse_document`.
    """
    return parse_document(read_bytes(path), str(path))


def parse_document(data: bytes, where: str) -> dict[str, Any]:
    """Read an object from JSON or YAML. Keys are strings, and values have types of JSON.

    Args:
        where: the document's name, for errors.

    Raises:
        ToolError: the data is neither JSON nor YAML, is not an object, or is too large or too deep.
    """
    found = parse_value(data, where)
    if not isinstance(found, dict):
        raise ToolError(f"{where}: holds {type(found).__name__} where an object is expected")
    return found


def parse_value(data: bytes, where: str) -> Any:
    """Like `parse_document`, but for any value: an object, a list, a text.

    Raises:
        ToolError: it is neither JSON nor YAML, or it is too large or too deep.
    """
    if len(data) > MOST_BYTES:
        raise ToolError(f"{where}: larger than {MOST_BYTES:,} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ToolError(f"{where}: not UTF-8 (byte {error.start:,})") from None
    found = _json(text, where) if text.lstrip()[:1] in ("{", "[") else _NOT_JSON
    if found is _NOT_JSON:  # YAML may begin with `{`, too
        found = _yaml(text, where)
    return found


def from_environment(text: str, where: str, used: set[str]) -> str:
    """A text in which each `${NAME}` is replaced by the environment variable.

    Args:
        used: the inserted values are added to it. They are secrets, which must not be shown.

    Raises:
        ToolError: there is no such variable; the message names it.
    """

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1])
        if not found:
            raise ToolError(f"{where}: the environment has no {match[1]}; set it, or write the value itself")
        used.add(found)
        return found

    return _VARIABLE.sub(value, text)


_NOT_JSON = object()
_HALF = "a text has half of a surrogate pair, which is no character"


def _json(text: str, where: str) -> Any:
    depth = deepest = 0
    inside = False
    for mark in re.finditer(r'\\.|["\[\]{}]', text, re.DOTALL):
        char = mark[0]
        if char == '"':
            inside = not inside
        elif not inside and char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif not inside and char in "]}":
            depth -= 1
    if deepest > _MOST_DEPTH:
        raise ToolError(f"{where}: nested more than {_MOST_DEPTH} levels deep")
    try:
        found = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except ValueError:
        return _NOT_JSON
    if text.count(",") + text.count(":") > _MOST_VALUES and _count(found) > _MOST_VALUES:
        raise ToolError(f"{where}: more than {_MOST_VALUES:,} values")
    if _ESCAPED_HALF.search(text) and _has_halves(found):
        raise ToolError(f"{where}: {_HALF}")
    return found


def _has_halves(value: Any) -> bool:
    """Whether a text in a value from JSON has half of a surrogate pair."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str() as text if _HALVES.search(text):
                return True
            case dict() as inner:
                waiting += [*inner.keys(), *inner.values()]
            case list() as inner:
                waiting += inner
    return False


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not valid JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.20} is not a finite number")
    return value


def _count(value: Any) -> int:
    """Number of values, including all inner ones."""
    found, waiting = 0, [value]
    while waiting:
        one = waiting.pop()
        found += 1
        waiting += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
    return found


# YAML


@dataclass
class _Open:
    """A list or an object whose end has not been read."""

    value: dict[str, Any] | list[Any]
    anchor: str | None
    size: int = 1
    depth: int = 1
    key: str | None = None
    merges: bool = False  # the key is `<<`
    merged: list[Mapping[str, Any]] = field(default_factory=list)


def _yaml(text: str, where: str) -> Any:
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _build(yaml.parse(text, loader), where)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark is not None else ""
        raise ToolError(f"{where}:{line} neither JSON nor YAML ({getattr(error, 'problem', None) or error})") from None


def _build(events: Any, where: str) -> Any:
    """Build the one document of the events. This is not recursive, so depth costs nothing."""
    anchors: dict[str, tuple[Any, int, int]] = {}
    stack: list[_Open] = []
    whole: Any = None
    seen = documents = 0

    def wrong(event: Any, words: str) -> ToolError:
        return ToolError(f"{where}: line {event.start_mark.line + 1}: {words}")

    for event in events:
        seen += 1
        if seen > 4 * _MOST_VALUES:
            raise ToolError(f"{where}: more than {_MOST_VALUES:,} values")
        match event:
            case yaml.DocumentStartEvent():
                documents += 1
                if documents > 1:
                    raise wrong(event, "a second document begins; give each a file of its own")
                continue
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                if len(stack) >= _MOST_DEPTH:
                    raise wrong(event, f"nested more than {_MOST_DEPTH} levels deep")
                if stack and isinstance(stack[-1].value, dict) and stack[-1].key is None:
                    raise wrong(event, "a name must be a word")
                stack.append(_Open({} if isinstance(event, yaml.MappingStartEvent) else [], event.anchor))
                continue
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                ended = stack.pop()
                value, size, depth, anchor = ended.value, ended.size, ended.depth, ended.anchor
                if isinstance(value, dict) and ended.merged:  # if a name is merged twice, the first value is used
                    together: dict[str, Any] = {}
                    for merged in reversed(ended.merged):
                        together.update(merged)
                    value = {**together, **value}
            case yaml.AliasEvent():
                if event.anchor not in anchors:
                    raise wrong(event, f"the alias *{event.anchor:.40} has no anchor above it")
                value, size, depth = anchors[event.anchor]
                anchor = None
                if len(stack) + depth > _MOST_DEPTH:
                    raise wrong(event, f"with its aliases written out, nested more than {_MOST_DEPTH} levels deep")
            case yaml.ScalarEvent():
                if _HALVES.search(event.value):  # PyYAML without its C library accepts them
                    raise wrong(event, _HALF)
                value, size, depth, anchor = _scalar(event), 1, 0, event.anchor
            case _:
                continue
        if anchor is not None:
            anchors[anchor] = (value, size, depth)
        if not stack:
            whole = value
            continue
        into = stack[-1]
        into.size += size
        into.depth = max(into.depth, depth + 1)
        if into.size > _MOST_VALUES:
            raise wrong(event, f"with its aliases written out, more than {_MOST_VALUES:,} values")
        if isinstance(into.value, list):
            into.value.append(value)
        elif into.key is None:
            if isinstance(value, dict | list):
                raise wrong(event, "a name must be a word")
            into.key = event.value if isinstance(event, yaml.ScalarEvent) else str(value)
            into.merges = into.key == "<<" and isinstance(event, yaml.ScalarEvent) and not _is_text(event)
        elif into.merges:
            parts = value if isinstance(value, list) else [value]
            if not all(isinstance(part, dict) for part in parts):
                raise wrong(event, "<< takes an object, or a list of them")
            into.merged += parts
            into.key = None
        else:
            if into.key in into.value:
                raise wrong(event, f"{into.key!r:.60} is given twice")
            into.value[into.key] = value
            into.key = None
    return whole


def _is_text(event: yaml.ScalarEvent) -> bool:
    """Whether a value is in quotes or a block."""
    return event.style in ("'", '"', "|", ">") or (event.tag or "").endswith(":str")


def _scalar(event: yaml.ScalarEvent) -> Any:
    text: str = event.value
    if _is_text(event):
        return text
    if text in _WORDS:
        return _WORDS[text]
    if len(text) <= 128:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
            return number
    return text
