"""Grammars of calls: what they let through is a call that the format reads, with arguments that fit the schema."""

from __future__ import annotations

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


def write(grammar: str, draw: Any) -> str:
    """What a writer says that is led by the grammar and else by chance, with a liking for coming to an end."""
    state = BYTES.grammar(grammar)
    written = bytearray()
    for _ in range(600):
        scores = torch.zeros(256)
        state.allow(scores)
        allowed = (scores == 0).nonzero().flatten().tolist()
        if 255 in allowed and (len(allowed) == 1 or draw(st.booleans())):
            return written.decode()
        closing = [value for value in allowed if value in b"\"')}]\n`"]
        open_to = [value for value in allowed if value != 255]
        value = closing[0] if closing and len(written) > 80 else draw(st.sampled_from(open_to))
        state.accept(value)
        written.append(value)
    return ""


@pytest.mark.parametrize("python", [True, False])
@pytest.mark.parametrize("name", SCHEMAS)
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_what_it_lets_through_is_a_call_that_fits(python: bool, name: str, data: st.DataObject) -> None:
    schema = {"type": "object", **SCHEMAS[name]}
    text = write(call_grammar([tool(schema)], python=python, named=True), data.draw)
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
    grammar = call_grammar([tool({"type": "object", **schema})], python=True, named=True)
    assert follows(grammar, f"```python\n{text}\n```") == fits


def follows(grammar: str, text: str) -> bool:
    """Whether the grammar lets a text come and end."""
    state = BYTES.grammar(grammar)
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
        grammar = call_grammar([spec], python=python, named=True)
        assert follows(grammar, empty)
        assert not follows(grammar, full)


def test_a_tool_whose_parameters_are_any_object_takes_anything() -> None:
    spec = tool({"type": "object"})
    assert follows(call_grammar([spec], python=True, named=True), "```python\ntool_call(**{'a': [1, None]})\n```")
    assert follows(call_grammar([spec], python=False, named=True), '{"a": [1, null]}')


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


def test_what_no_grammar_says() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}}}
    assert call_grammar([tool(schema)], python=True)
    with pytest.raises(UnsupportedError, match="minimum"):
        call_grammar([tool(schema, strict=True)], python=True)
    deep: Any = {}
    for _ in range(3000):
        deep = {"items": deep, "type": "array"}
    parts = [{"$ref": "#/x"}, {"type": "cat"}, {"enum": []}, {"anyOf": []}, {"type": []}, 3, {"properties": 3}, deep]
    wholes = [{"type": "array"}, 3, {"properties": 3}, {"properties": {"a": {}}, "required": 3}]
    for wrong in (*wholes, *({"properties": {"a": part}} for part in parts)):
        with pytest.raises(InputError, match="act"):
            call_grammar([tool(wrong)], python=False)
    with pytest.raises(InputError, match="no tools"):
        call_grammar([], python=False)
