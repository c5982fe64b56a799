from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatglm.errors import ToolError
from chatglm.schemas import held, pointed
from chatglm.tools import parameters
from chatglm.tools.parameters import checked, plain, plain_text, tool_name, word_name

NODE = {"type": "object", "title": "Node", "properties": {"name": {"type": "string"}, "next": {"$ref": "#/defs/Node"}}}

MANY: dict[str, Any] = {"type": "object", "properties": {f"p{n}": {} for n in range(500)}}


def plain_of(schema: Any, **defs: Any) -> Any:
    return plain(schema, {"defs": defs}, "x")


def test_a_schema_becomes_small_and_plain() -> None:
    schema = {
        "title": "T",
        "type": "object",
        "examples": [1],
        "properties": {
            "a": {"$ref": "#/defs/A", "description": "mine"},
            "b": {"type": "string", "nullable": True, "title": "B", "pattern": "(x+)+$", "format": "date"},
            "c": {"anyOf": [{"type": "integer"}, {"type": "null"}], "title": "C", "default": None},
            "d": {"allOf": [{"$ref": "#/defs/A"}], "default": "y"},
            "e": {"type": "array", "items": {"$ref": "#/defs/A"}, "maxItems": 3},
            "id": {"type": "integer", "readOnly": True},
            "f": {"const": 5},
        },
        "required": ["a", "id"],
    }
    assert plain_of(schema, A={"type": "string", "enum": ["x", "y"], "description": "theirs"}) == {
        "type": "object",
        "properties": {
            "a": {"type": "string", "description": "mine", "enum": ["x", "y"]},
            "b": {"type": ["string", "null"], "format": "date"},
            "c": {"type": ["integer", "null"]},
            "d": {"type": "string", "description": "theirs", "enum": ["x", "y"], "default": "y"},
            "e": {
                "type": "array",
                "items": {"type": "string", "description": "theirs", "enum": ["x", "y"]},
                "maxItems": 3,
            },
            "f": {"enum": [5]},
        },
        "required": ["a"],
    }


def test_chains_of_references_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each property of each level leads through its chain: a server's schema of 100 KB would cost minutes."""
    chain = {str(n): {"$ref": f"#/defs/{n + 1}"} for n in range(4_000)}
    with pytest.raises(ToolError, match="x: more than 100 \\$refs lead to one another"):
        plain_of({"$ref": "#/defs/0"}, **chain)
    assert plain_of({"$ref": "#/defs/3910"}, **chain, **{"4000": {"type": "string"}}) == {"type": "string"}
    followed = []

    def counted(root: Any, pointer: str) -> Any:
        followed.append(pointer)
        return pointed(root, pointer)

    monkeypatch.setattr(parameters, "pointed", counted)
    wide = {"type": "object", "properties": {f"p{n}": {"$ref": "#/defs/3910"} for n in range(60)}}
    with pytest.raises(ToolError, match="do not fit"):
        plain_of(wide, **chain, **{"4000": {"type": "string"}})
    assert len(followed) < 11 * 2_001


def test_what_contains_itself_is_shown_once() -> None:
    shown = plain_of({"$ref": "#/defs/Node"}, Node=NODE)
    assert shown["properties"]["next"] == {"description": "again Node"}
    assert checked({"name": "a", "next": {"name": "b", "next": None}}, shown)[1] == ""
    assert plain_of({"$ref": "#/defs/A"}, A={"$ref": "#/defs/B"}, B={"$ref": "#/defs/A"}) == {"description": "again A"}


def bomb(depth: int) -> dict[str, Any]:
    defs: dict[str, Any] = {f"d{depth}": {"type": "string"}}
    for n in range(depth):
        inner = {"$ref": f"#/defs/d{n + 1}"}
        defs[f"d{n}"] = {"type": "object", "properties": {"a": inner, "b": inner, "c": {"allOf": [inner, inner]}}}
    return defs


def test_a_schema_that_grows_is_cut_where_it_is_too_large() -> None:
    shown = plain_of({"$ref": "#/defs/d0"}, **bomb(30))
    assert len(json.dumps(shown)) <= 6 << 10
    assert set(shown["properties"]) == {"a", "b", "c"}
    long = {"type": "string", "description": "很长 " * 400}
    words = plain_of({"type": "object", "properties": {f"p{n}": long for n in range(50)}})
    assert len(words["properties"]) == 50
    assert all(len(part["description"]) <= 80 for part in words["properties"].values())
    many = plain_of({**MANY, "required": ["p499"], "additionalProperties": False})
    assert "p499" in many["properties"]
    assert "additionalProperties" not in many


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ([], "is not a JSON schema"),
        ({"type": "text"}, "not a type of JSON schema"),
        ({"type": "object", "properties": {"a": 5}}, "5 is not a JSON schema"),
        ({"$ref": "https://example.com/a.json"}, "points to another document"),
        ({"$ref": "file:///etc/passwd"}, "points to another document"),
        ({"$ref": "#/nothing"}, "points to nothing"),
        ({"$ref": "#defs"}, "points to nothing"),
        ({**MANY, "required": list(MANY["properties"])}, "500 required"),
        ({"type": "object", "properties": {"\ud800": {}}}, "half of a surrogate pair"),
        ({"enum": ["\ud800"]}, "half of a surrogate pair"),
    ],
)
def test_what_is_no_schema_is_said(schema: Any, said: str) -> None:
    with pytest.raises(ToolError, match=said):
        plain_of(schema)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-20, 20) | st.floats(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)
SCHEMAS = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["string", "integer", "number", "boolean", "null", ["string", "null"]]),
            "enum": st.lists(st.none() | st.integers(0, 3) | st.booleans() | st.sampled_from(["a", "b"]), min_size=1),
            "minimum": st.integers(-3, 3),
            "maxLength": st.integers(0, 3),
            "description": st.text(max_size=5),
        },
    ),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"allOf": st.lists(inner, min_size=1, max_size=2)}),
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3)},
            optional={"required": st.lists(st.sampled_from("abc"), unique=True), "additionalProperties": st.booleans()},
        ),
    ),
    max_leaves=8,
)


@given(SCHEMAS, JSON)
def test_whatever_the_original_allows_is_allowed(schema: Any, value: Any) -> None:
    whole = {"type": "object", "properties": {"v": schema}}
    shown = plain(whole, {}, "x")
    held(shown)  # no surprise for a grammar
    if jsonschema.Draft202012Validator(whole).is_valid({"v": value}):
        got, problem = checked({"v": value}, shown)
        assert not problem
        assert got == {"v": value}


@pytest.mark.parametrize(
    ("value", "kind", "read"),
    [("3", "integer", 3), (3.0, "integer", 3), ("3.5", "number", 3.5), ("True", "boolean", True), (5, "string", "5")],
)
def test_values_that_are_nearly_right(value: Any, kind: str, read: Any) -> None:
    got, problem = checked({"v": value}, {"type": "object", "properties": {"v": {"type": kind}}})
    assert (got["v"], type(got["v"]), problem) == (read, type(read), "")


@pytest.mark.parametrize(
    ("value", "read"), [("007", "007"), (7, 7), ("abcdef", "abcdef"), (["1"], ["1"]), ([1], [1]), ("-1", "-1")]
)
def test_what_one_branch_takes_as_it_is_is_not_made_fit_for_another(value: Any, read: Any) -> None:
    branches = [
        {"type": "integer", "minimum": 0},
        {"type": "string", "maxLength": 9},
        {"type": "array", "items": {"type": "integer"}},
        {"type": "array", "items": {"type": "string"}},
    ]
    got, problem = checked({"v": value}, {"type": "object", "properties": {"v": {"anyOf": branches}}})
    assert (got["v"], type(got["v"]), problem) == (read, type(read), "")


def test_integers_that_no_float_can_be() -> None:
    large = 10**400
    schema = plain_of({"type": "object", "properties": {"n": {"type": "integer", "maximum": large}}})
    assert schema["properties"]["n"] == {"type": "integer", "maximum": large}
    assert checked({"n": large}, schema) == ({"n": large}, "")
    assert "at most" in checked({"n": large + 1}, schema)[1]


@pytest.mark.parametrize("number", ["²", "1", "01x", "9" * 5000])
def test_references_into_lists(number: str) -> None:
    root = {"anyOf": [{"type": "integer"}]}
    assert plain({"$ref": "#/anyOf/0"}, root, "x") == {"type": "integer"}
    with pytest.raises(ToolError, match="points to nothing"):
        plain({"$ref": f"#/anyOf/{number}"}, root, "x")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "missing: city"),
        ({"city": "x", "zz": 1}, "unknown: zz; known: city, days, tags"),
        ({"city": None}, "city must be string, got None"),
        ({"city": "x", "days": 9}, "days must be at most 7, got 9"),
        ({"city": "x", "days": float("nan")}, "days must be integer, got nan"),
        ({"city": "x", "days": True}, "days must be integer, got True"),
        ({"city": "x", "tags": ["a", "q"]}, r"tags\[1\] must be one of 'a', 'b', got 'q'"),
        ({"city": "x", "tags": ["a"] * 4}, "tags must have at most 3 items, has 4"),
    ],
)
def test_wrong_arguments_are_explained(arguments: dict[str, Any], said: str) -> None:
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "maximum": 7},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
        },
        "required": ["city"],
        "additionalProperties": False,
    }
    assert re.search(said, checked(arguments, schema)[1])


@given(st.text(max_size=100), st.sets(st.text(max_size=3)))
def test_names(text: str, taken: set[str]) -> None:
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", tool_name(text, taken))
    assert tool_name(text, {tool_name(text, ())}) != tool_name(text, ())
    assert word_name(text, ()).isidentifier()


def test_descriptions_are_one_short_line() -> None:
    assert plain_text("a\n\x1b[31m b\x00\u2028c\ud800") == "a [31m b c"
    assert plain_text("很" * 100_000) == "很" * 299 + "…"
    assert plain_text(5) == ""
