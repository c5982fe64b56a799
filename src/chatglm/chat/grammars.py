"""Grammars (EBNF) of tool calls: the arguments fit the tool's schema, the syntax is what the generation is trained on.

ChatGLM3 writes Python keywords, GLM-4 a JSON object. A grammar says of a schema: types, properties and which of them
are required, items, enum, const, anyOf/oneOf, references. Bounds, patterns and formats it does not say; where the tool
is marked `strict`, such a schema is refused, else they are left to the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chatglm.chat.calls import is_keyword
from chatglm.chat.messages import INTERPRETER, ToolSpec
from chatglm.errors import InputError, UnsupportedError

__all__ = ["call_grammar", "parameters_of"]

_COMMON = r"""
digits ::= [0-9]+
integer ::= "-"? ("0" | [1-9] [0-9]{0,17})
number ::= integer ("." [0-9]{1,17})? ([eE] [-+]? [0-9]{1,2})?
hex ::= [0-9a-fA-F]
escaped ::= "u" ([0-9a-cA-CefEF] hex hex hex | [dD] [0-7] hex hex)
double ::= "\"" ([^"\\\x00-\x1f] | "\\" (["\\bfnrt] | escaped))* "\""
anything ::= ([^\x00-\x09\x0b-\x1f] | "\n")*
"""
_JSON = r"""
string ::= double
true ::= "true"
false ::= "false"
null ::= "null"
"""
# Both quotes, as `repr` writes strings; the escapes are those that both JSON and Python know, in double quotes.
_PYTHON = r"""
string ::= double | "'" ([^'\\\x00-\x1f] | "\\" (['"\\bfnrt] | escaped))* "'"
true ::= "True"
false ::= "False"
null ::= "None"
"""
_ANY = r"""
value ::= string | number | true | false | null | list | object
list ::= "[" (value (", " value)*)? "]"
object ::= "{" (string ": " value (", " string ": " value)*)? "}"
"""

# What a schema may say without changing what fits it.
_SILENT = {"title", "description", "default", "examples", "$defs", "definitions", "$schema", "strict", "$comment"}
_SAID = {
    "type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "oneOf", "$ref",
}  # fmt: skip
_PYTHON_TYPES = {
    "str": "string", "int": "integer", "float": "number", "bool": "boolean", "list": "array", "dict": "object",
}  # fmt: skip


def parameters_of(tool: ToolSpec) -> Mapping[str, Any]:
    """The JSON schema of a tool's arguments; ChatGLM3's `params` list is translated.

    Raises:
        InputError: it is no schema of an object.
    """
    flat = tool.flat()
    schema = flat.get("parameters")
    if schema is None and isinstance(flat.get("params"), Sequence):
        names = [param for param in flat["params"] if isinstance(param, Mapping) and isinstance(param.get("name"), str)]
        schema = {
            "type": "object",
            "properties": {param["name"]: _official_type(param.get("type")) for param in names},
            "required": [param["name"] for param in names if param.get("required", True)],
        }
    if schema is None:  # "omitting parameters defines a function with an empty parameter list" (OpenAI)
        return {"type": "object", "properties": {}}
    if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
        raise InputError(f"tools: parameters of {tool.name} must be a JSON schema of type object, got {schema!r:.80}")
    return schema


def _official_type(name: Any) -> dict[str, Any]:
    """ChatGLM3's registry writes Python's names of types."""
    plain = str(name).removeprefix("<class '").removesuffix("'>")
    kind = _PYTHON_TYPES.get(plain, plain)
    return {"type": kind} if kind in (*_PYTHON_TYPES.values(), "null") else {}


def call_grammar(tools: Sequence[ToolSpec], *, python: bool, named: bool = False) -> str:
    """A reply that calls one of the tools.

    Args:
        python: calls are written as ChatGLM3 does, else as GLM-4 does.
        named: the grammar begins behind the line that names the one tool.

    Raises:
        InputError: there is no tool, or one has no schema of an object.
        UnsupportedError: a strict tool's schema asks for what no grammar says.
    """
    if not tools:
        raise InputError("tool_choice: a call is required, and no tools are given")
    rules: list[str] = []
    calls = []
    for number, tool in enumerate(tools):
        strict = bool(tool.flat().get("strict"))
        try:
            body = _Schema(rules, f"t{number}", parameters_of(tool), python, strict, f"tools: {tool.name}").call(tool)
        except RecursionError:
            raise InputError(f"tools: {tool.name}: its schema is nested too deeply") from None
        # SentencePiece begins every text with a blank: this one at most after the line of the name.
        calls.append(body if named else f'{_quoted(tool.name)} "\\n" " "? {body}')
    text = "root ::= " + " | ".join(f"({call})" for call in calls)
    return "\n".join([text, *rules]) + _COMMON + (_PYTHON if python else _JSON) + _ANY


class _Schema:
    """Writes the rules of one tool's schema."""

    def __init__(
        self, rules: list[str], name: str, schema: Mapping[str, Any], python: bool, strict: bool, where: str
    ) -> None:
        self._rules, self._name, self._whole = rules, name, schema
        self._python, self._strict, self._where = python, strict, where
        self._references: dict[str, str] = {}
        self._count = 0

    def call(self, tool: ToolSpec) -> str:
        """What stands behind the tool's name."""
        if tool.builtin is not None or tool.name == INTERPRETER:
            return '"```python\\n" anything "\\n```"' if self._python else "anything"
        if not self._python:
            return self._value(self._whole)
        names = self._properties(self._whole)
        if not names and self._whole.get("additionalProperties", "properties" not in self._whole):
            inside = '("**" object)?'
        elif all(map(is_keyword, names)):
            inside = self._members(self._whole, lambda name: _quoted(f"{name}="))
        else:
            inside = f'"**{{" {self._members(self._whole, self._key)} "}}"'
        return f'"```python\\ntool_call(" {inside} ")\\n```"'

    def _properties(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        found = schema.get("properties") or {}
        if not isinstance(found, Mapping):
            raise self._wrong(schema)
        return found

    def _wrong(self, schema: Any) -> InputError:
        return InputError(f"{self._where}: {schema!r:.80} is no JSON schema")

    def _rule(self, body: str) -> str:
        self._count += 1
        name = f"{self._name}r{self._count}"
        self._rules.append(f"{name} ::= {body}")
        return name

    def _value(self, schema: Any) -> str:
        """An expression for what fits a schema."""
        if schema is True or schema == {}:
            return "value"
        if not isinstance(schema, Mapping):
            raise self._wrong(schema)
        unsaid = schema.keys() - _SAID - _SILENT
        if self._strict and unsaid:
            raise UnsupportedError(
                f"{self._where}: strict, but no grammar can hold {', '.join(sorted(unsaid))}; leave them or strict out"
            )
        if "$ref" in schema:
            return self._reference(str(schema["$ref"]))
        if "const" in schema:
            return self._literal(schema["const"])
        kind = schema.get("type", "object" if "properties" in schema else None)
        for listed in (schema.get("enum"), schema.get("anyOf"), schema.get("oneOf"), kind):
            if isinstance(listed, list) and not listed:
                raise self._wrong(schema)
        if isinstance(schema.get("enum"), list):
            return self._rule(" | ".join(map(self._literal, schema["enum"])))
        choices = schema.get("anyOf", schema.get("oneOf"))
        if isinstance(choices, list):
            return self._rule(" | ".join(map(self._value, choices)))
        if isinstance(kind, list):
            return self._rule(" | ".join(self._value({**schema, "type": one}) for one in kind))
        match kind:
            case "string" | "integer" | "number" | "null":
                return str(kind)
            case "boolean":
                return "(true | false)"
            case "array":
                item = self._value(schema.get("items", {}))
                return self._rule(f'"[" ({item} (", " {item})*)? "]"')
            case "object":
                if not self._properties(schema):
                    extra = schema.get("additionalProperties", "properties" not in schema)
                    if extra is False:
                        return '"{}"'
                    value = self._value(extra)
                    return self._rule(f'"{{" (string ": " {value} (", " string ": " {value})*)? "}}"')
                return self._rule(f'"{{" {self._members(schema, self._key)} "}}"')
            case None:
                return "value"
        raise InputError(f"{self._where}: type {kind!r} is none of JSON schema's")

    def _members(self, schema: Mapping[str, Any], key: Callable[[str], str]) -> str:
        """The properties in their order, commas between; those not required may be missing."""
        required = schema.get("required") or []
        if not isinstance(required, list):
            raise self._wrong(schema)
        properties = self._properties(schema)
        members = [(f"{key(name)} {self._value(one)}", name in required) for name, one in properties.items()]
        # Rule n: what may follow when something stands before member n, and when nothing does.
        behind, first = '""', '""'
        for body, needed in reversed(members):
            follows, begins = f'", " {body} {behind}', f"{body} {behind}"
            behind = self._rule(follows if needed else f"({follows}) | {behind}")
            first = self._rule(begins if needed else f"({begins}) | {first}")
        return first

    def _key(self, name: str) -> str:
        return f'{self._literal(name)} ": "'

    def _literal(self, value: Any) -> str:
        if not self._python:
            return _quoted(json.dumps(value, ensure_ascii=False))
        if isinstance(value, str):
            return f"({_quoted(repr(value))} | {_quoted(json.dumps(value, ensure_ascii=False))})"
        return _quoted(repr(value))

    def _reference(self, target: str) -> str:
        if target not in self._references:
            found: Any = self._whole
            if target != "#":
                for part in target.removeprefix("#/").split("/"):
                    found = found.get(part) if isinstance(found, Mapping) else None
            if not target.startswith("#") or found is None:
                raise InputError(f"{self._where}: $ref {target!r} names nothing in the schema")
            self._count += 1
            name = self._references[target] = f"{self._name}r{self._count}"
            self._rules.append(f"{name} ::= {self._value(found)}")
        return self._references[target]


def _quoted(text: str) -> str:
    """A text as a terminal of the grammar."""
    return json.dumps(text, ensure_ascii=False)
