"""Schemas of every shape, from a seed."""

from __future__ import annotations

import random
from typing import Any

_STRINGS = ["晴", "a b", 'q"\\', "é\n", "", "x" * 20, "😀"]
_NAMES = ["city", "城市", "a b", 'q"', "n\\", "class", "$ref", "_id", "p1", "p2"]
_PATTERNS = [
    r"^[a-c]{2}\d?$",
    "^(foo|bar)+$",
    "b+",
    r"^\S{1,5}$",
    r"^(?!x).*$",
    r"^\d{3}-\d{2}$",
    "^[一-龥]{1,3}$",
    "a{0,50}",
]
_FORMATS = ["date", "date-time", "time", "uuid", "email", "ipv4", "hostname", "uri", "password", "duration"]


def random_schema(seed: int) -> dict[str, Any]:
    """A schema of which no value of more than a few hundred characters has to be written."""
    chance = random.Random(seed)
    made = _schema(chance, 3)
    if chance.random() < 0.2:
        made = {"$defs": {"node": made}, "type": "object", "properties": {"x": {"$ref": "#/$defs/node"}},
                "required": ["x"], "additionalProperties": False}  # fmt: skip
    return made


def _schema(chance: random.Random, depth: int) -> dict[str, Any]:
    simple = [_integer, _number, _string, _enum, _nothing]
    made = chance.choice(simple if depth == 0 else [*simple, _array, _object, _object, _choice])(chance, depth - 1)
    if chance.random() < 0.15:
        made |= {"title": "t", "description": "d", "default": None, "x-y": 1}
    return dict(made)


def _bounds(chance: random.Random, made: dict[str, Any], low: float, high: float) -> dict[str, Any]:
    if chance.random() < 0.7:
        made[chance.choice(["minimum", "exclusiveMinimum"])] = low
    if chance.random() < 0.7:
        made[chance.choice(["maximum", "exclusiveMaximum"])] = high
    return made


def _integer(chance: random.Random, depth: int) -> dict[str, Any]:
    low = chance.choice([0, 1, -7, 99, -(10**6), -(2**31), -(2**63), 2**60, -0.5])
    made = _bounds(chance, {"type": "integer"}, low, low + chance.choice([0, 1, 7, 1000, 2**32, 2**64]))
    if chance.random() < 0.2:
        made["multipleOf"] = chance.choice([1, 2, 5, 7, 0.5, 100])
    return made


def _number(chance: random.Random, depth: int) -> dict[str, Any]:
    low = chance.choice([0, 0.1, -1.5, 1e-7, -1e20, 99.99, 3])
    made = _bounds(chance, {"type": "number"}, low, low + chance.choice([0, 0.25, 1, 100.5, 1e20]))
    if chance.random() < 0.2:
        made["multipleOf"] = chance.choice([1, 0.5, 0.25, 0.1, 3])
    return made


def _string(chance: random.Random, depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "string"}
    low = chance.choice([0, 0, 1, 3])
    if chance.random() < 0.5:
        made |= {"minLength": low, "maxLength": low + chance.choice([0, 1, 4, 12])}
    if chance.random() < 0.3:
        made["pattern"] = chance.choice(_PATTERNS)
    elif chance.random() < 0.3:
        made = {"type": "string", "format": chance.choice(_FORMATS)}
    elif "maxLength" not in made:
        made["maxLength"] = 12
    return made


def _enum(chance: random.Random, depth: int) -> dict[str, Any]:
    values = [chance.choice([*_STRINGS, 0, -1.5, 7, True, None, [1, "x"], {"a": 1, "b": []}]) for _ in range(3)]
    if chance.random() < 0.05:
        values.append(chance.choice([1e300, -(2**63), 2**53]))
    return chance.choice([{"enum": values}, {"const": values[0]}, {"type": "string", "enum": _STRINGS}])


def _nothing(chance: random.Random, depth: int) -> dict[str, Any]:
    return chance.choice([{"type": "boolean"}, {"type": "null"}, {"type": ["boolean", "null"]}])


def _array(chance: random.Random, depth: int) -> dict[str, Any]:
    low = chance.choice([0, 0, 1, 2])
    made = {
        "type": "array",
        "items": _schema(chance, depth),
        "minItems": low,
        "maxItems": low + chance.choice([0, 1, 2]),
    }
    if chance.random() < 0.2:
        made["uniqueItems"] = True
    if chance.random() < 0.2:
        made |= {"prefixItems": [_schema(chance, depth)], "items": chance.choice([False, _schema(chance, depth)])}
    return made


def _object(chance: random.Random, depth: int) -> dict[str, Any]:
    names = chance.sample(_NAMES, chance.choice([0, 1, 2, 4]))
    made: dict[str, Any] = {"type": "object", "properties": {name: _schema(chance, depth) for name in names}}
    made["required"] = [name for name in names if chance.random() < 0.6]
    made["additionalProperties"] = chance.choice([False, False, False, {"type": "boolean"}])
    if made["additionalProperties"] is not False:
        made["maxProperties"] = len(names) + 1
    if chance.random() < 0.1:
        made |= chance.choice(
            [{"not": {"required": ["zzz"]}}, {"propertyNames": {"maxLength": 9}}, {"minProperties": 1}]
        )
    return made


def _choice(chance: random.Random, depth: int) -> dict[str, Any]:
    parts = [_schema(chance, depth) for _ in range(chance.choice([1, 2, 3]))]
    return {chance.choice(["anyOf", "anyOf", "oneOf", "allOf"]): parts}
