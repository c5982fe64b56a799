"""Makes foreign schemas of arguments small and simple enough for a prompt, and checks a model's arguments by them.

The resulting schema has no `$ref`, no titles and no examples, and its size is limited. It has only `type`,
`description`, `enum`, `default`, `format`, bounds, `properties`, `required`, `additionalProperties`, `items` and
`anyOf`. It allows everything that the original allows; if it allows more, the service itself refuses that.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from chatglm.errors import ToolError
from chatglm.schemas import pointed

__all__ = ["checked", "plain", "plain_text", "tool_name", "word_name"]

MOST_BYTES = 6 << 10
"""Most bytes of one tool's schema as JSON."""
MOST_PROPERTIES = 60
MOST_ENUM = 60
DESCRIPTION = 300
"""Most characters of a description."""

# Levels below the arguments, and characters of a description. If a schema is too large, the next pair is tried.
_LADDER = ((8, DESCRIPTION), (8, 80), (6, 80), (4, 60), (3, 40), (3, 20), (2, 40), (2, 20), (2, 0), (1, 20), (1, 0))
_TYPES = ("string", "integer", "number", "boolean", "null", "array", "object")
_BOUNDS = (
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems",
)  # fmt: skip
_MOST_NODES = 400
_MOST_CHAIN = 100  # longest chain of `$ref`s
_MOST_FOLLOWED = 2_000  # most `$ref`s that are followed in one schema
_LONGEST_NAME = 64


# Names and descriptions


def tool_name(text: str, taken: Collection[str]) -> str:
    """A name of letters, digits and `_`, at most 64 characters long, that is not taken."""
    name = re.sub(r"_{3,}", "__", re.sub(r"[^A-Za-z0-9_]", "_", text)).strip("_") or "tool"
    name = (name if name[0].isalpha() else f"t_{name}")[:_LONGEST_NAME]
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name[: _LONGEST_NAME - len(f'_{number}')]}_{number}"
    return found


def word_name(text: str, taken: Collection[str]) -> str:
    """Convert a parameter's name to a valid keyword of a Python call, which ChatGLM3 writes; `filter[name]` becomes
    `filter_name`.
    """
    letters = "".join(char if f"a{char}".isidentifier() else "_" for char in text[:_LONGEST_NAME])
    name = re.sub(r"_{2,}", "_", letters).strip("_") or "value" if letters != text else text
    name = name if name.isidentifier() else f"p_{name}"
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found


def plain_text(text: Any, most: int = DESCRIPTION) -> str:
    """A description on one line, without control characters, cut to `most` characters; "" if it is not a text."""
    if not isinstance(text, str):
        return ""
    # Text far after the cut need not be cleaned.
    words = " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", " ", text[: 4 * most]).split())
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"


# Schemas


def plain(schema: Any, root: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Make a schema for a prompt. It has as many levels and as long descriptions as fit into the limit.

    Args:
        root: the document that the schema's `$ref`s refer to.
        where: name of the tool, for errors.

    Raises:
        ToolError: it is not a JSON schema, a `$ref` refers to another document or to nothing, too many properties are
            required, a text is not Unicode, or even the shortest form is too large.
    """
    for depth, words in _LADDER:
        reader = _Plain(root, where, depth, words)
        made = reader.read(schema, (), 0)
        try:
            size = len(json.dumps(made, ensure_ascii=False).encode())
        except UnicodeEncodeError:
            raise ToolError(f"{where}: a name or a value has half of a surrogate pair, which is no character") from None
        if not reader.full and size <= MOST_BYTES:
            return made
    raise ToolError(f"{where}: its parameters do not fit into {MOST_BYTES:,} bytes, even when shortened")


class _Plain:
    def __init__(self, root: Mapping[str, Any], where: str, depth: int, words: int) -> None:
        self._root, self._where, self._depth, self._words = root, where, depth, words
        self._nodes = self._followed = 0
        self.full = False

    def read(self, schema: Any, above: tuple[str, ...], depth: int) -> dict[str, Any]:
        """Make the schema for the prompt.

        Args:
            above: the `$ref`s that were followed to this schema.
            depth: number of levels above this schema.
        """
        schema, above, again = self._resolved(schema, above)
        if again:
            return {"description": f"again {again}"} if self._words else {}
        if schema is True or self.full:
            return {}
        if not isinstance(schema, Mapping):
            raise ToolError(f"{self._where}: {schema!r:.60} is not a JSON schema")
        self._nodes += 1
        if self._nodes > _MOST_NODES:
            self.full = True
            return {}
        schema, above = self._together(schema, above)
        made: dict[str, Any] = {}
        types = self._types(schema)
        if types:
            made["type"] = types[0] if len(types) == 1 else list(types)
        if self._words and (told := plain_text(schema.get("description"), self._words)):
            made["description"] = told
        self._values(schema, made)
        for name in _BOUNDS:
            value = schema.get(name)
            if _is_number(value):
                made[name] = value
        if depth < self._depth:
            if "object" in types or "properties" in schema:
                self._object(schema, made, above, depth)
            if "array" in types and "items" in schema:
                made["items"] = self.read(schema["items"], above, depth + 1)
            self._branches(schema, made, above, depth)
        return made

    def _resolved(self, schema: Any, above: tuple[str, ...]) -> tuple[Any, tuple[str, ...], str]:
        """Follow `$ref`s. Returns the schema, the `$ref`s above it, and "", or, if it contains itself, its name."""
        beside: dict[str, Any] = {}
        begun = self._followed
        while isinstance(schema, Mapping) and isinstance(schema.get("$ref"), str):
            pointer = schema["$ref"]
            if pointer in above:
                return {}, above, plain_text(pointer.rpartition("/")[2], 40) or "the whole"
            self._followed += 1
            if self._followed - begun > _MOST_CHAIN:
                raise ToolError(f"{self._where}: more than {_MOST_CHAIN} $refs lead to one another")
            if self._followed > _MOST_FOLLOWED:
                self.full = True
                return {}, above, ""
            beside = {**{name: schema[name] for name in ("description", "default") if name in schema}, **beside}
            above = (*above, pointer)
            schema = target(self._root, pointer, self._where)
        return ({**schema, **beside} if beside and isinstance(schema, Mapping) else schema), above, ""

    def _together(self, schema: Mapping[str, Any], above: tuple[str, ...]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        """Merge the parts of `allOf` into one schema: properties of all parts; for other keywords, the first value."""
        parts = schema.get("allOf")
        if not isinstance(parts, list) or not parts:
            return schema, above
        whole = {name: value for name, value in schema.items() if name != "allOf"}
        for part in parts[:20]:
            found, above, again = self._resolved(part, above)
            if again or not isinstance(found, Mapping):
                continue
            self._nodes += 1
            if self._nodes > _MOST_NODES:
                self.full = True
                break
            found, above = self._together(found, above)
            properties = {**_mapping(found.get("properties")), **_mapping(whole.get("properties"))}
            required = [*_list(whole.get("required")), *_list(found.get("required"))]
            whole = {**found, **whole}
            if properties:
                whole["properties"], whole["required"] = properties, required
                whole.setdefault("type", "object")
            whole.pop("additionalProperties", None)
        return whole, above

    def _types(self, schema: Mapping[str, Any]) -> tuple[str, ...]:
        named = schema.get("type")
        names = named if isinstance(named, list) else [] if named is None else [named]
        found = [name for name in _TYPES if name in names]
        if len(found) < len(names):
            raise ToolError(
                f"{self._where}: type {named!r:.60} is not a type of JSON schema; known: {', '.join(_TYPES)}"
            )
        if schema.get("nullable") is True and found and "null" not in found:
            found.append("null")
        if not found and "properties" in schema:
            found = ["object"]
        return tuple(found)

    def _values(self, schema: Mapping[str, Any], made: dict[str, Any]) -> None:
        values = schema.get("enum")
        if isinstance(values, list) and values and all(map(_is_scalar, values)) and len(values) <= MOST_ENUM:
            made["enum"] = list(values) + ([None] if schema.get("nullable") is True and None not in values else [])
        if "const" in schema and _is_scalar(schema["const"]):
            made["enum"] = [schema["const"]]
        if schema.get("default") is not None and _is_scalar(schema["default"]):
            made["default"] = schema["default"]
        if self._words and isinstance(schema.get("format"), str) and len(schema["format"]) <= 20:
            made["format"] = plain_text(schema["format"])

    def _object(self, schema: Mapping[str, Any], made: dict[str, Any], above: tuple[str, ...], depth: int) -> None:
        properties = _mapping(schema.get("properties"))
        required = [name for name in dict.fromkeys(map(str, _list(schema.get("required")))) if name in properties]
        if len(required) > MOST_PROPERTIES:
            raise ToolError(f"{self._where}: {len(required)} required properties; at most {MOST_PROPERTIES}")
        # A service itself sets properties that are read-only.
        writable = [n for n, p in properties.items() if not (isinstance(p, Mapping) and p.get("readOnly") is True)]
        kept = {*required, *[name for name in writable if name not in required][: MOST_PROPERTIES - len(required)]}
        made["properties"] = {
            str(name): self.read(properties[name], above, depth + 1) for name in writable if name in kept
        }
        if needed := [name for name in required if name in made["properties"]]:
            made["required"] = needed
        if schema.get("additionalProperties") is False and len(kept) == len(properties):
            made["additionalProperties"] = False

    def _branches(self, schema: Mapping[str, Any], made: dict[str, Any], above: tuple[str, ...], depth: int) -> None:
        for name in ("anyOf", "oneOf"):
            branches = schema.get(name)
            if not isinstance(branches, list) or not 0 < len(branches) <= 12:
                continue
            read = [self.read(branch, above, depth + 1) for branch in branches]
            if len(read) == 1:
                made.update({key: value for key, value in read[0].items() if key not in made})
            elif not any(not branch for branch in read):
                simple = [branch["type"] for branch in read if branch.keys() == {"type"}]
                if len(simple) == len(read) and all(isinstance(kind, str) for kind in simple) and "type" not in made:
                    made["type"] = list(dict.fromkeys(simple))
                else:
                    made["anyOf"] = read


def target(root: Mapping[str, Any], pointer: str, where: str) -> Any:
    """The value in a document that a `$ref` refers to.

    Raises:
        ToolError: it refers to another document, or to nothing.
    """
    if not pointer.startswith("#"):
        raise ToolError(
            f"{where}: $ref {pointer!r:.100} points to another document, which is not read; put it into this one"
        )
    try:
        return pointed(root, pointer[1:])
    except LookupError:
        raise ToolError(f"{where}: $ref {pointer!r:.100} points to nothing") from None


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_number(value: Any) -> bool:
    """Whether a value is a number in JSON. An integer may be too large for a float."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 100)


# Arguments


def checked(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Check a call's arguments, and convert them where the meaning is clear, such as `"3"` to 3 for a number.

    Args:
        schema: a schema from `plain`.

    Returns:
        the arguments, and a text with what is wrong with them; "" if nothing is.
    """
    problems: list[str] = []
    value = _checked(arguments, schema, "", problems)
    return value if isinstance(value, dict) else {}, "; ".join(problems[:5])


def _checked(value: Any, schema: Mapping[str, Any], path: str, problems: list[str]) -> Any:
    named = schema.get("type")
    types = [] if named is None else named if isinstance(named, list) else [named]
    if types:
        value, fits = _as_type(value, types)
        if not fits:
            problems.append(f"{path or 'arguments'} must be {' or '.join(types)}, got {value!r:.60}")
            return value
    if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
        problems.append(f"{path} must be one of {', '.join(map(repr, schema['enum']))}, got {value!r:.60}")
    elif isinstance(value, bool):
        pass
    elif isinstance(value, int | float):
        _check_number(value, schema, path, problems)
    elif isinstance(value, str):
        _check_length(len(value), "Length", "characters", schema, path, problems)
    elif isinstance(value, list | tuple):
        _check_length(len(value), "Items", "items", schema, path, problems)
        items = schema.get("items") or {}
        value = [_checked(one, items, f"{path}[{number}]", problems) for number, one in enumerate(value)]
    elif isinstance(value, Mapping):
        value = _checked_object(value, schema, path, problems)
    if branches := schema.get("anyOf"):
        value = _checked_branches(value, branches, path, problems)
    return value


def _checked_branches(value: Any, branches: Sequence[Any], path: str, problems: list[str]) -> Any:
    """Check a value against the branches of `anyOf`. A branch that accepts it unchanged is preferred to one that
    converts it: "007" stays a text if a text is allowed.
    """
    fits, tries = [], []
    for branch in branches:
        wrong: list[str] = []
        tried = _checked(value, branch, path, wrong)
        if not wrong:
            fits.append(tried)
        tries.append(wrong)
    if not fits:
        problems.append(min(tries, key=len)[0])
        return value
    return next((one for one in fits if one == value), fits[0])


def _checked_object(value: Mapping[str, Any], schema: Mapping[str, Any], path: str, problems: list[str]) -> Any:
    known, prefix = schema.get("properties") or {}, f"{path}." if path else ""
    missing = [name for name in schema.get("required", ()) if name not in value]
    if missing:
        problems.append(f"missing: {', '.join(prefix + name for name in missing)}")
    unknown = [f"{prefix}{name!s:.60}" for name in value if name not in known]
    if unknown and schema.get("additionalProperties") is False:
        problems.append(f"unknown: {', '.join(unknown[:5])}; known: {', '.join(known)}")
    return {
        name: _checked(one, known[name], prefix + name, problems) if name in known else one
        for name, one in value.items()
    }


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal in JSON, where true is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _as_type(value: Any, types: list[str]) -> tuple[Any, bool]:
    kinds: dict[str, bool] = {
        "string": isinstance(value, str),
        "boolean": isinstance(value, bool),
        "null": value is None,
        "array": isinstance(value, list | tuple),
        "object": isinstance(value, Mapping),
        "number": _is_number(value),
    }
    kinds["integer"] = kinds["number"] and isinstance(value, int)
    if any(kinds[name] for name in types):
        return value, True
    # Small models write "3" for 3, 3.0 for 3, and 5 for "5".
    if "integer" in types and isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value), True
    if isinstance(value, str) and len(value) <= 40:
        text = value.strip()
        if ("integer" in types or "number" in types) and re.fullmatch(r"[-+]?[0-9]{1,18}", text):
            return int(text), True
        if "number" in types and re.fullmatch(r"[-+]?[0-9]*\.?[0-9]+([eE][-+]?[0-9]{1,2})?", text):
            return float(text), True
        if "boolean" in types and text.lower() in ("true", "false"):
            return text.lower() == "true", True
    if "string" in types and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value), True
    return value, False


def _check_number(value: float, schema: Mapping[str, Any], path: str, problems: list[str]) -> None:
    for name, fits, words in (
        ("minimum", lambda bound: value >= bound, "at least"),
        ("maximum", lambda bound: value <= bound, "at most"),
        ("exclusiveMinimum", lambda bound: value > bound, "more than"),
        ("exclusiveMaximum", lambda bound: value < bound, "less than"),
    ):
        if name in schema and not fits(schema[name]):
            problems.append(f"{path} must be {words} {schema[name]}, got {value}")


def _check_length(count: int, what: str, words: str, schema: Mapping[str, Any], path: str, problems: list[str]) -> None:
    if count < schema.get(f"min{what}", 0):
        problems.append(f"{path} must have at least {schema[f'min{what}']} {words}, has {count}")
    if count > schema.get(f"max{what}", math.inf):
        problems.append(f"{path} must have at most {schema[f'max{what}']} {words}, has {count}")
