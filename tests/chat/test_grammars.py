"""Grammars of calls: what they let through is a call that the format reads, with arguments that fit the schema."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chatglm.chat.calls import parse_json_arguments, parse_python_call
from chatglm.chat.grammars import call_grammar, parameters_of
from chatglm.chat.messages import ToolSpec
from chatglm.engine.constraint import Grammars
from chatglm.errors import InputError, UnsupportedError
from chatglm.schemas import held
from random_schemas import random_schema

BYTES = Grammars([bytes([value]) for value in range(255)] + [b""], {255})


def tool(schema: Any, **more: Any) -> ToolSpec:
    return ToolSpec({"name": "act", "parameters": schema, **more})


SCHEMAS: dict[str, Any] = {
    "optional": {"properties": {"a": {"type": "string"}, "b": {"type": "integer"}, "c": {"type": "null"}}},
    "required": {
        "properties": {"a": {"type": "boolean"}, "b": {"type": "number"}, "c": {"enum": ["x", 'y"z', "'", 3, None]}},
        "required": ["c", "b"],
    },
    "nested": {
        "properties": {
            "list": {"type": "array", "items": {"type": ["integer", "null"]}},
            "map": {"type": "object", "additionalProperties": {"type": "boolean"}},
            "inner": {"type": "object", "properties": {"k": {"const": "v"}}, "required": ["k"]},
        },
        "required": ["list", "inner"],
    },
    "choice": {"properties": {"a": {"anyOf": [{"type": "integer"}, {"$ref": "#/$defs/word"}]}},
               "$defs": {"word": {"enum": ["one", "two"]}}, "required": ["a"]},
    "names": {"properties": {"not a name": {"type": "integer"}, "class": {"type": "integer"}}, "required": ["class"]},
    "free": {"properties": {"a": {}}, "required": ["a"]},
    "nothing": {"properties": {}},
    "anything": {"additionalProperties": True},
}  # fmt: skip


def write(grammar: str, draw: Any, most: int = 600) -> str:
    """What a writer says that is led by the grammar and else by chance, with a liking for coming to an end.

    Args:
        draw: of `st.sampled_from`, or `random.choice`.
    """
    if getattr(draw, "__self__", None).__class__ is random.Random:
        choose = draw
    else:

        def choose(values: Any) -> Any:
            return draw(st.sampled_from(values))

    state = BYTES.constraint(BYTES.call_form(grammar))
    written = bytearray()
    for _ in range(most):
        scores = torch.zeros(256)
        state.allow(scores)
        allowed = (scores == 0).nonzero().flatten().tolist()
        if 255 in allowed and (len(allowed) == 1 or choose([False, True])):
            return written.decode()
        closing = [value for value in allowed if value in b"\"')}]\n`"]
        open_to = [value for value in allowed if value != 255]
        value = closing[0] if closing and len(written) > 80 else choose(open_to)
        state.accept(value)
        written.append(value)
    return ""


@pytest.mark.parametrize("python", [True, False])
@pytest.mark.parametrize("name", SCHEMAS)
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_what_it_lets_through_is_a_call_that_fits(python: bool, name: str, data: st.DataObject) -> None:
    schema = {"type": "object", **SCHEMAS[name]}
    text = write(call_grammar([tool(schema)], python=python, named=True).text, data.draw)
    if not text:
        return
    arguments = parse_python_call(text) if python else parse_json_arguments(text)
    assert arguments is not None, text
    jsonschema.validate(arguments, schema)


@pytest.mark.parametrize(
    ("schema", "text", "fits"),
    [
        (SCHEMAS["optional"], "tool_call()", True),
        (SCHEMAS["optional"], "tool_call(b=3)", True),
        (SCHEMAS["optional"], "tool_call(a='x', c=None)", True),
        (SCHEMAS["optional"], "tool_call(c=None, a='x')", False),
        (SCHEMAS["optional"], "tool_call(d=1)", False),
        (SCHEMAS["required"], "tool_call(b=1.5, c='x')", True),
        (SCHEMAS["required"], "tool_call(b=1.5)", False),
        (SCHEMAS["names"], "tool_call(**{'class': 3})", True),
        (SCHEMAS["names"], "tool_call(class=3)", False),
        (SCHEMAS["nested"], "tool_call(list=[1, None], inner={'k': 'v'})", True),
        (SCHEMAS["nested"], "tool_call(list=[1, 'x'], inner={'k': 'v'})", False),
        (SCHEMAS["free"], "tool_call(a={'x': [True, 1e5]})", True),
    ],
)
def test_examples(schema: Any, text: str, fits: bool) -> None:
    grammar = call_grammar([tool({"type": "object", **schema})], python=True, named=True).text
    assert follows(grammar, f"```python\n{text}\n```") == fits


def follows(grammar: str, text: str) -> bool:
    """Whether the grammar lets a text come and end."""
    state = BYTES.constraint(BYTES.call_form(grammar))
    for value in [*text.encode(), 255]:
        scores = torch.zeros(256)
        state.allow(scores)
        if scores[value] != 0:
            return False
        if value != 255:
            state.accept(value)
    return True


@pytest.mark.parametrize("given", [{}, {"parameters": None}, {"parameters": {"type": "object", "properties": {}}}])
def test_a_tool_without_parameters_takes_none(given: Any) -> None:
    spec = ToolSpec({"name": "now", **given})
    for python, empty, full in (
        (True, "```python\ntool_call()\n```", "```python\ntool_call(**{'a': 1})\n```"),
        (False, "{}", '{"a": 1}'),
    ):
        grammar = call_grammar([spec], python=python, named=True).text
        assert follows(grammar, empty)
        assert not follows(grammar, full)


def test_a_tool_whose_parameters_are_any_object_takes_anything() -> None:
    spec = tool({"type": "object"})
    assert follows(call_grammar([spec], python=True, named=True).text, "```python\ntool_call(**{'a': [1, None]})\n```")
    assert follows(call_grammar([spec], python=False, named=True).text, '{"a": [1, null]}')


def test_official_parameters_are_translated() -> None:
    spec = ToolSpec(
        {
            "name": "act",
            "params": [
                {"name": "a", "type": "str", "description": "", "required": True},
                {"name": "b", "type": "<class 'int'>", "description": "", "required": False},
                {"name": "c", "type": "tuple[int, int]", "description": ""},
            ],
        }
    )
    assert parameters_of(spec) == {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "integer"}, "c": {}},
        "required": ["a", "c"],
    }


HELD: dict[str, Any] = {
    "range": {"type": "integer", "minimum": 3, "exclusiveMaximum": 99},
    "multiple": {"type": "integer", "minimum": 0, "maximum": 60, "multipleOf": 15},
    "number": {"type": "number", "minimum": 0, "maximum": 1},
    "length": {"type": "string", "minLength": 2, "maxLength": 5},
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}[0-9]?$"},
    "date": {"type": "string", "format": "date"},
    "uuid": {"type": "string", "format": "uuid"},
    "items": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    "pairs": {"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 2},
    "tuple": {"type": "array", "prefixItems": [{"type": "null"}, {"const": "a'b"}], "items": False, "minItems": 2},
    "all of": {"allOf": [{"type": "string", "maxLength": 4}, {"type": "string", "minLength": 4}]},
    "optional": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 5}, {"type": "null"}]},
    "patterns": {
        "type": "object",
        "patternProperties": {"^k[0-9]$": {"type": "boolean"}},
        "additionalProperties": False,
    },
    "map": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 9}},
    "mixed": {"type": ["string", "integer", "null"], "maxLength": 3, "minimum": 0, "maximum": 9},
    "literals": {"enum": ["a", 'b"', "c'", 1, 2.5, None, True, [1, "x"], {"k": None}]},
}


@pytest.mark.parametrize("python", [True, False])
@pytest.mark.parametrize("name", HELD)
@given(data=st.data())
@settings(max_examples=6, deadline=None)
def test_bounds_lengths_patterns_and_formats_are_held(python: bool, name: str, data: st.DataObject) -> None:
    schema = {"type": "object", "properties": {"x": HELD[name]}, "required": ["x"], "additionalProperties": False}
    made = call_grammar([tool(schema, strict=True)], python=python, named=True)
    assert made.dropped == ()
    text = write(made.text, data.draw)
    if not text:  # no end in sight
        return
    arguments = parse_python_call(text) if python else parse_json_arguments(text)
    assert arguments is not None, text
    jsonschema.validate(json.loads(json.dumps(arguments)), schema, format_checker=jsonschema.FormatChecker())


def test_both_quotes_hold_a_length() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "string", "maxLength": 3}}, "required": ["x"]}
    grammar = call_grammar([tool(schema)], python=True, named=True).text
    for text, fits in (("'abc'", True), ('"a\\"b"', True), ("'abcd'", False), ('"abcd"', False), ("'a\\'b'", False)):
        assert follows(grammar, f"```python\ntool_call(x={text})\n```") == fits


@pytest.mark.parametrize("python", [True, False])
@pytest.mark.parametrize("seed", range(0, 40, 10))
def test_calls_of_random_schemas(python: bool, seed: int) -> None:
    for number in range(seed, seed + 10):
        schema = {"type": "object", "properties": {"x": random_schema(number), "y": random_schema(number + 1000)}}
        try:
            text = call_grammar([tool(schema)], python=python, named=True).text
            constraint = BYTES.constraint(BYTES.call_form(text))
        except (InputError, UnsupportedError) as error:
            assert "act" in str(error) or "tools" in str(error)  # noqa: PT017
            continue
        del constraint
        made = write(text, random.Random(number).choice, 2000)
        assert made
        arguments = parse_python_call(made) if python else parse_json_arguments(made)
        assert arguments is not None, made
        # What is dropped is not held.
        jsonschema.validate(json.loads(json.dumps(arguments)), held(schema).schema)


def test_interpreter_and_builtin_tools_take_any_code() -> None:
    for spec, python, code in (
        (ToolSpec({"name": "interpreter"}), True, "```python\nif x:\n\tprint(1)\n```"),
        (ToolSpec({"type": "python"}), False, "if x:\n\tprint(1)"),
    ):
        grammar = call_grammar([spec], python=python, named=True).text
        assert follows(grammar, code)


def test_recursive_schemas() -> None:
    node = {"type": "object", "properties": {"name": {"type": "string"}, "next": {"$ref": "#/$defs/node"}}}
    schema = {"type": "object", "properties": {"x": {"$ref": "#/$defs/node"}}, "$defs": {"node": node}}
    grammar = call_grammar([tool(schema)], python=True, named=True).text
    assert follows(grammar, "```python\ntool_call(x={'name': 'a', 'next': {'next': {}}})\n```")
    assert not follows(grammar, "```python\ntool_call(x={'next': 3})\n```")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "OBJECT", "properties": {"a": {"type": "STRING"}, "b": {"type": "INTEGER", "nullable": True}}},
        {"properties": {"a": {"type": "array", "items": [{"type": "string"}]}}},
        {"anyOf": [{"properties": {"a": {"type": "integer"}}}, {"properties": {"b": {"type": "null"}}}]},
    ],
)
@pytest.mark.parametrize("python", [True, False])
def test_schemas_of_other_makers(schema: Any, python: bool) -> None:
    grammar = call_grammar([tool(schema)], python=python, named=True)
    assert grammar.dropped == ()
    assert BYTES.constraint(BYTES.call_form(grammar.text))


def test_what_no_grammar_says() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    for python in (True, False):
        assert call_grammar([tool(schema)], python=python).dropped == ("tools.act: uniqueItems",)
        with pytest.raises(UnsupportedError, match=r"tools\.act: `strict` does not support `uniqueItems`"):
            call_grammar([tool(schema, strict=True)], python=python)
    deep: Any = {}
    for _ in range(3000):
        deep = {"items": deep, "type": "array"}
    parts = [{"$ref": "#/x"}, {"type": "cat"}, {"enum": []}, {"anyOf": []}, {"type": []}, 3, {"properties": 3}]
    wholes = [{"type": "array"}, 3, {"properties": 3}, {"properties": {"a": {}}, "required": 3}]
    for wrong in (*wholes, *({"properties": {"a": part}} for part in parts)):
        with pytest.raises(InputError, match="act"):
            call_grammar([tool(wrong)], python=False)
    with pytest.raises(UnsupportedError, match="act: nested too deeply"):
        call_grammar([tool({"properties": {"a": deep}})], python=False)
    with pytest.raises(InputError, match="no tools"):
        call_grammar([], python=False)
