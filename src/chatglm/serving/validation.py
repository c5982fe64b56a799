"""Errors of requests in plain English: errors of pydantic become sentences that name the field."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chatglm.serving.hints import neutral_values

__all__ = ["Problem", "path_of", "problem_of"]

_LONGEST = 80  # characters of a value or a key that are shown


@dataclass(frozen=True)
class Problem:
    """
    Attributes:
        message: begins with the field.
        field: its path in the request, such as `messages[0].content`; "" for the request itself.
        code: a word for programs.
    """

    message: str
    field: str
    code: str


def path_of(place: Sequence[str | int]) -> str:
    """A path in a request as programmers write it: `tools[0].function["odd key"]`."""
    path = ""
    for part in place:
        if isinstance(part, int):
            path += f"[{part}]"
        elif re.fullmatch(r"[^\W\d]\w{0,79}", part):
            path += f".{part}" if path else part
        else:
            path += f"[{_shown(part)}]"
    return path


def problem_of(error: Mapping[str, Any]) -> Problem:
    """
    Args:
        error: one of a ValidationError's, as `errors()` gives it. FastAPI puts "body" in front of the path.
    """
    kind = error["type"]
    context = {name: _number(value) for name, value in error.get("ctx", {}).items()}
    place = [part for part in error["loc"][1:] if part != "[key]"]
    field = path_of(place)
    front = f"{field}: " if field else ""
    match kind:
        case "missing" if not field:
            return Problem("the body is empty; a JSON object is expected", "", "bad_json")
        case "missing":
            return Problem(f"{front}required", field, "missing")
        case "extra_forbidden":
            if neutral := neutral_values(str(place[-1])):
                only = " or ".join(_shown(value) for value in neutral)
                return Problem(f"{front}only {only} is supported; leave it out", field, "unsupported")
            return Problem(f"{front}unknown field", field, "unknown_field")
        case "unsupported":
            return Problem(f"{front}{error['msg']}", field, "unsupported")
        case "plain":
            wanted = str(error["msg"])
        case _ if kind in _SENTENCES:
            wanted = _SENTENCES[kind].format_map(context)
        case "literal_error":
            known = _alternatives(context["expected"])
            wanted = f"must be one of: {', '.join(known)}" if len(known) > 1 else f"must be {known[0]}"
        case "string_too_short" | "too_short" if context["min_length"] == 1:
            wanted = "must not be empty"
        case _ if kind in _SIZES:
            wanted = _SIZES[kind].format_map(context)
        case _:
            wanted = error["msg"][:1].lower() + error["msg"][1:]
    got = _got(error.get("input")) if wanted.startswith("must be") else ""
    return Problem(f"{front}{wanted}{got}", field, "invalid_value")


_SENTENCES = {
    "string_type": "must be a string",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "int_parsing_size": "must be an integer of fewer digits",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "none_required": "must be null",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "string_pattern_mismatch": "must match the pattern {pattern}",
}
_SIZES = {
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
}


def _alternatives(expected: str) -> list[str]:
    """The alternatives in pydantic's text "'a', 'b' or 'c'"."""
    return re.findall(r"'([^']*)'", expected) or [expected.lower()]


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _got(value: Any) -> str:
    match value:
        case Mapping():
            return "; got an object"
        case list():
            return "; got a list"
    return f"; got {_shown(value)}"


def _shown(value: Any) -> str:
    """A value as JSON, cut to a readable length."""
    if isinstance(value, str) and len(value) > _LONGEST:
        return json.dumps(value[:_LONGEST], ensure_ascii=False)[:-1] + '…"'
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 2 * _LONGEST else f"{text[:_LONGEST]}…"
