"""Schemas of callers: what is held, what is dropped, what is refused, and that all of it is quick."""

from __future__ import annotations

from typing import Any

import pytest

from chatglm.errors import InputError, UnsupportedError
from chatglm.schemas import DIGITS, EXACT, check_pattern, held

NUMBERS = {"minimum": -(10**15) + 1, "maximum": 10**15 - 1}


@pytest.mark.parametrize(
    ("given", "ready"),
    [
        (True, {}),
        ({}, {}),
        ({"title": "x", "description": "d", "default": 1, "examples": [1], "x-note": 1, "deprecated": True}, {}),
        ({"type": "STRING", "format": "password"}, {"type": "string"}),
        ({"type": ["STRING", "null"]}, {"type": ["string", "null"]}),
        ({"type": "string", "nullable": True}, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ({"type": "integer"}, {"type": "integer", **NUMBERS}),
        ({"type": "integer", "minimum": 0.5, "exclusiveMaximum": 9}, {"type": "integer", "minimum": 1, "maximum": 8}),
        (
            {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
            {"type": "integer", "minimum": -EXACT, "maximum": EXACT},
        ),
        (
            {"type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 9, "exclusiveMaximum": False},
            {"type": "integer", "minimum": 1, "maximum": 9},
        ),
        ({"type": "number", "minimum": -1e30}, {"type": "number", "minimum": -EXACT}),
        ({"type": "number", "minimum": 1, "exclusiveMinimum": 1}, {"type": "number", "exclusiveMinimum": 1}),
        ({"items": [{"type": "null"}], "additionalItems": False}, {"type": "array", "prefixItems": [{"type": "null"}],
                                                                   "maxItems": 1}),
        ({"type": "array", "maxItems": 10**9}, {"type": "array", "maxItems": 1000}),
        ({"type": "string", "maxLength": 10**9}, {"type": "string", "maxLength": 4096}),
        ({"properties": {"a": {}}, "unevaluatedProperties": False}, {"type": "object", "properties": {"a": {}},
                                                                     "additionalProperties": False}),
        ({"type": "object", "propertyNames": {"type": "string"}}, {"type": "object"}),
        ({"type": "array", "uniqueItems": False}, {"type": "array"}),
        ({"type": "array", "uniqueItems": True, "maxItems": 1}, {"type": "array", "maxItems": 1}),
        (
            {"definitions": {"a": {"type": "null"}, "unused": {"not": {}}}, "$ref": "#/definitions/a"},
            {"$ref": "#/$defs/d0", "$defs": {"d0": {"type": "null"}}},
        ),
        (
            {"$id": "https://x.y/z", "$defs": {"a/b": {"type": "null"}}, "$ref": "https://x.y/z#/$defs/a~1b"},
            {"$ref": "#/$defs/d0", "$defs": {"d0": {"type": "null"}}},
        ),
        ({"oneOf": [{"type": "null"}, {"type": "string"}]}, {"anyOf": [{"type": "null"}, {"type": "string"}]}),
        ({"oneOf": [{"const": 1}, {"enum": [2, 3]}]}, {"anyOf": [{"const": 1}, {"enum": [2, 3]}]}),
        ({"allOf": [{"type": "null"}], "description": "d"}, {"type": "null"}),
        ({"type": "integer", "minimum": 0, "allOf": [{"minimum": 10}]},
         {"allOf": [{"type": "integer", "minimum": 10, "maximum": DIGITS}], "type": "integer", "minimum": 0,
          "maximum": DIGITS}),
        ({"type": "string", "enum": ["x", "y"], "allOf": [{"enum": ["x"]}]},
         {"allOf": [{"enum": ["x"], "type": "string"}], "enum": ["x", "y"], "type": "string"}),
    ],
)  # fmt: skip
def test_what_is_held(given: Any, ready: Any) -> None:
    for strict in (True, False):
        made = held(given, strict=strict)
        assert (made.schema, made.dropped) == (ready, ())
        assert held(made.schema, strict=True).schema == ready


ITEM = {"type": "string"}
UNHELD: list[tuple[str, dict[str, Any]]] = [
    ("uniqueItems", {"type": "array", "items": ITEM, "uniqueItems": True}),
    ("propertyNames", {"type": "object", "propertyNames": {"pattern": "^a"}}),
    ("not", {"type": "string", "not": {"const": "x"}}),
    ("if", {"type": "object", "if": {"required": ["a"]}, "then": {"required": ["b"]}}),
    ("contains", {"type": "array", "contains": ITEM}),
    ("dependentRequired", {"type": "object", "dependentRequired": {"a": ["b"]}}),
    ("dependencies", {"type": "object", "dependencies": {"a": ["b"]}}),
    ("unevaluatedProperties", {"allOf": [{"type": "object"}, {"properties": {}}], "unevaluatedProperties": False}),
    ("pattern", {"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"}),
    ("pattern", {"type": "string", "pattern": "a{1,1000000}"}),
    ("pattern", {"type": "string", "pattern": "((a{1,99}){1,99}){1,99}"}),
    ("pattern", {"type": "string", "pattern": "(" * 200 + "a" + ")" * 200}),
    ("minLength", {"type": "string", "minLength": 10**9}),
    ("minItems", {"type": "array", "minItems": 10**9}),
    ("oneOf", {"oneOf": [{"type": "string", "minLength": 1}, {"type": "string"}]}),
    ("multipleOf", {"type": "number", "multipleOf": 0.01}),
    ("minProperties", {"type": "object", "properties": {"a": ITEM}, "minProperties": 1}),
    ("patternProperties", {"type": "object", "patternProperties": {"a": ITEM, "b": {"type": "null"}}}),
]


@pytest.mark.parametrize(
    ("schema", "closed"),
    [
        ({"properties": {"a": {}}}, True),
        ({"properties": {"a": {}}, "required": ["a"]}, True),
        ({"properties": {}}, False),
        ({"type": "object"}, False),
        ({"properties": {"a": {}}, "required": ["b"]}, False),
        ({"properties": {"a": {}}, "additionalProperties": True}, False),
        ({"properties": {"a": {}}, "additionalProperties": {"type": "null"}}, False),
        ({"properties": {"a": {}}, "patternProperties": {"^x": {}}}, False),
        ({"properties": {"a": {}}, "minProperties": 1}, False),
        ({"properties": {"a": {}}, "anyOf": [{"properties": {"b": {}}}, {}]}, False),
        ({"properties": {"a": {}}, "$ref": "#/$defs/b", "$defs": {"b": {"properties": {"b": {}}}}}, False),
        ({"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}, "required": ["b"]}]}, False),
    ],
)
def test_objects_get_the_properties_that_are_listed(schema: dict[str, Any], closed: bool) -> None:
    """What is not asked for is not written, but where schemas describe an object together."""
    assert (held(schema).schema.get("additionalProperties") is False) == closed


def test_alternatives_are_closed_each_by_itself() -> None:
    branches = [{"properties": {name: {"type": "null"}}, "required": [name]} for name in "ab"]
    made = held({"anyOf": branches}).schema
    assert [branch["additionalProperties"] for branch in made["anyOf"]] == [False, False]


@pytest.mark.parametrize(("keyword", "schema"), UNHELD, ids=lambda part: part if isinstance(part, str) else "")
def test_what_is_dropped_unless_it_is_strict(keyword: str, schema: dict[str, Any]) -> None:
    nested = {"type": "object", "properties": {"x": {"$ref": "#/$defs/x"}, "y": schema}, "$defs": {"x": schema}}
    for given in (schema, nested):
        made = held(given)
        assert made.dropped == (keyword,)
        assert held(made.schema, strict=True).dropped == ()
        with pytest.raises(UnsupportedError, match=f"field: `strict` does not support `{keyword}`"):
            held(given, strict=True, where="field")


def chain(length: int) -> dict[str, Any]:
    links = {f"a{n}": {"type": "array", "items": {"$ref": f"#/$defs/a{n + 1}"}} for n in range(length)}
    return {"$ref": "#/$defs/a0", "$defs": {**links, f"a{length}": {"type": "null"}}}


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (deep(100_000), "nested too deeply; at most 60"),
        (chain(120), "through 121 definitions; at most 100"),
        ({"anyOf": [{"$ref": f"#/$defs/a{n}"} for n in range(90)],
          "$defs": {f"a{n}": {"anyOf": [{"$ref": f"#/$defs/b{n}_{m}"} for m in range(9)]} for n in range(90)}
          | {f"b{n}_{m}": {} for n in range(90) for m in range(9)}}, "definitions: 501; at most 500"),
        ({"properties": {f"p{n}": {} for n in range(500)}}, "properties of one object: 500; at most 300"),
        ({"enum": list(range(5000))}, "values of one enum: 5,000; at most 4,000"),
        ({"anyOf": [{}] * 101}, "schemas of one anyOf: 101; at most 100"),
        ({"description": "x" * 300_000}, "bytes; at most 262,144"),
        ({"enum": [-(2**63)]}, r"enum: -9223372036854775808: numbers beyond ±2\^53"),
        ({"const": {"a": [1e300]}}, "const: 1e[+]300: numbers beyond"),
        ({"type": "integer", "minimum": 2**60}, "integers beyond"),
        ({"type": "number", "minimum": 1e300}, "numbers beyond"),
        ({"type": "number", "minimum": 10**400}, "numbers beyond"),
        ({"type": "integer", "exclusiveMaximum": -(10**400)}, "integers beyond"),
    ],
)  # fmt: skip
def test_what_is_too_large_is_refused_by_name(schema: Any, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        held(schema)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ([1], "expected an object"),
        (False, "expected an object"),
        ({"type": "cat"}, "'cat' is not a type"),
        ({"type": []}, "empty list"),
        ({"properties": 3}, "properties"),
        ({"properties": {"a": 3}}, "3 is not a JSON schema"),
        ({"required": "a"}, "required"),
        ({"enum": []}, "enum"),
        ({"anyOf": {}}, "anyOf"),
        ({"$ref": "#/x"}, "names nothing"),
        ({"$ref": "#/anyOf/²", "anyOf": [{}]}, "names nothing"),
        ({"$ref": f"#/anyOf/{'9' * 5000}", "anyOf": [{}]}, "names nothing"),
        ({"type": "string", "minLength": 10**400, "maxLength": 1}, "no value"),
        ({"$ref": "https://example.com/s.json"}, "names nothing"),
        ({"$ref": 5}, "expected a string"),
        ({"type": "integer", "minimum": 2, "maximum": 1}, "no integer"),
        ({"type": "integer", "minimum": -(2**64), "maximum": -(2**64) - 1}, "no integer"),
        ({"type": "number", "minimum": 2, "exclusiveMaximum": 2}, "no number"),
        ({"type": "number", "minimum": "1"}, "expected a number"),
        ({"type": "integer", "minimum": 1, "maximum": 4, "multipleOf": 5}, "no value"),
        ({"type": "number", "multipleOf": 0}, "above 0"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "no value"),
        ({"type": "string", "minLength": -1}, "whole number of at least 0"),
        ({"type": "string", "pattern": 3}, "pattern"),
        ({"type": "array", "items": False, "minItems": 1}, "minItems"),
        ({"required": ["a"], "additionalProperties": False, "properties": {}}, "not among the properties"),
        ({"enum": ["\ud800"]}, "not Unicode"),
        ({"enum": [float("nan")]}, "JSON"),
        ({"enum": [object()]}, "JSON"),
    ],
)
def test_what_is_no_schema(schema: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        held(schema)


@pytest.mark.parametrize(
    "pattern", ["^a+$", r"\d{3}-\d{4}", "[(]{2}", r"\(\?=", "(?i)x", r"\\1", "[^/]*", "a{,3}", "", "{", "("]
)
def test_patterns_that_are_tried(pattern: str) -> None:
    assert check_pattern(pattern) == ""
