"""Makes grammars of tool calls: the arguments fit the tool's schema, in the syntax that the generation learned.

ChatGLM3 writes Python keyword arguments, GLM-4 a JSON object. A grammar is in Lark's notation as read by llguidance,
where `%json {…}` stands for JSON that fits a schema. Numbers, and strings in double quotes with a common set of
escapes, are written in the same way in JSON and Python. So `%json` also enforces a schema of these in Python calls.
Lists, objects, True and None have their own rules for Python.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chatglm.chat.calls import is_keyword
from chatglm.chat.messages import INTERPRETER, ToolSpec
from chatglm.errors import InputError, UnsupportedError
from chatglm.schemas import held

__all__ = ["CallGrammar", "call_grammar", "parameters_of"]

# Spaces in the same places as `json.dumps` writes them.
_SPACING = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
# The JSON escapes that mean the same in a Python string.
_ESCAPES = {"json_allowed_escapes": 'nrbtf\\"'}
_CODE = r"/([^\x00-\x08\x0b-\x1f]|\n)*/"
_FENCED = r"/```python\n([^\x00-\x08\x0b-\x1f]|\n)*\n```/"
# Strings in both kinds of quotes, because `repr` uses both. The length of numbers is limited, so that every program
# can read them.
_PYTHON = r"""
DOUBLE: /"([^"\\\x00-\x1f]|\\(["\\bfnrt]|u([0-9a-cA-CefEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2})))*"/
SINGLE: /'([^'\\\x00-\x1f]|\\(['"\\bfnrt]|u([0-9a-cA-CefEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2})))*'/
NUMBER: /-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,17})?([eE][-+]?[0-9]{1,2})?/
string: DOUBLE | SINGLE
value: string | NUMBER | "True" | "False" | "None" | list | object
list: "[" (value (", " value)*)? "]"
object: "{" (string ": " value (", " string ": " value)*)? "}"
"""
_PYTHON_TYPES = {
    "str": "string", "int": "integer", "float": "number", "bool": "boolean", "list": "array", "dict": "object",
}  # fmt: skip
_KINDS: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value == int(value),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list | tuple),
    "object": lambda value: isinstance(value, Mapping),
}


@dataclass(frozen=True)
class CallGrammar:
    """A grammar of a reply that calls a tool.

    Attributes:
        text: the grammar in Lark's notation.
        dropped: keywords of the tools' schemas that the grammar does not enforce, as `tools.NAME: KEYWORD`.
    """

    text: str
    dropped: tuple[str, ...] = ()


def parameters_of(tool: ToolSpec) -> Mapping[str, Any]:
    """The JSON schema of a tool's arguments; ChatGLM3's `params` list is translated.

    Raises:
        InputError: it is not a schema of an object.
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
    if not isinstance(schema, Mapping) or str(schema.get("type", "object")).lower() != "object":
        raise InputError(f"tools.{tool.name}: parameters must be a JSON schema of type object, got {schema!r:.80}")
    return schema


def _official_type(name: Any) -> dict[str, Any]:
    """The JSON schema of a type in ChatGLM3's registry, which has Python's names of types; {} for an unknown name."""
    plain = str(name).removeprefix("<class '").removesuffix("'>")
    kind = _PYTHON_TYPES.get(plain, plain)
    return {"type": kind} if kind in (*_PYTHON_TYPES.values(), "null") else {}


def call_grammar(
    tools: Sequence[ToolSpec],
    *,
    python: bool,
    named: bool = False,
    lenient: bool = False,
    header: Callable[[ToolSpec], str] = lambda tool: tool.name,
) -> CallGrammar:
    """Make the grammar of a reply that calls one of the tools.

    The properties of an object come in the order of its schema. If the schema lists them, and does not combine other
    schemas, no further properties are allowed.

    Args:
        python: calls are in ChatGLM3's syntax; False: in GLM-4's.
        named: the line with the name is already there, and the grammar begins after it; there is only one tool.
        lenient: if the schema of a tool that is not strict cannot be read, any object is allowed; False: an error is
            raised.
        header: the line that names a tool.

    Raises:
        InputError: there is no tool, or one has no schema of an object.
        UnsupportedError: a schema is too large, or a strict tool's has keywords that cannot be enforced.
    """
    if not tools:
        raise InputError("tool_choice: a call is required, and no tools are given")
    rules = _Rules()
    calls, dropped = [], []
    for tool in tools:
        try:
            body, lost = _call(tool, python, rules)
        except (InputError, UnsupportedError):
            if not lenient or tool.flat().get("strict") is True:
                raise
            anything = ToolSpec({"name": tool.name, "parameters": {"type": "object"}})
            body, lost = _call(anything, python, rules)[0], ("parameters",)
        # SentencePiece puts a space in front of a text. Here it can only come after the line with the name.
        calls.append(body if named else f'{_quoted(header(tool))} "\\n" " "? {body}')
        dropped += [f"tools.{tool.name}: {name}" for name in lost]
    text = "start: " + " | ".join(f"({call})" for call in calls)
    return CallGrammar("\n".join([text, *rules.lines]) + (_PYTHON if python else "\n"), tuple(dropped))


class _Rules:
    """The rules of a grammar. Rules with the same body are stored once."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._names: dict[str, str] = {}
        self._count = 0

    def new(self) -> str:
        """An unused name for a rule."""
        self._count += 1
        return f"r{self._count}"

    def add(self, name: str, body: str) -> None:
        self.lines.append(f"{name}: {body}")

    def named(self, body: str) -> str:
        """The name of the rule with this body, which is added if it is new."""
        if body not in self._names:
            self._names[body] = self.new()
            self.add(self._names[body], body)
        return self._names[body]


def _call(tool: ToolSpec, python: bool, rules: _Rules) -> tuple[str, tuple[str, ...]]:
    """What follows the line with a tool's name, and the keywords that are not enforced."""
    if tool.builtin is not None or tool.name == INTERPRETER:
        return (_FENCED if python else _CODE), ()
    strict = tool.flat().get("strict") is True
    ready = held(parameters_of(tool), strict=strict, where=f"tools.{tool.name}")
    schema = _closed({"type": "object", **ready.schema})
    return _PythonCall(schema, rules).call() if python else _json(schema, _SPACING), ready.dropped


def _closed(schema: Any) -> Any:
    """The same schema, whose objects allow only the properties that it lists."""
    if not isinstance(schema, Mapping):
        return schema
    made = dict(schema)
    for name in ("properties", "$defs"):
        if isinstance(made.get(name), Mapping):
            made[name] = {key: _closed(one) for key, one in made[name].items()}
    for name in ("items", "additionalProperties"):
        if name in made:
            made[name] = _closed(made[name])
    for name in ("anyOf", "prefixItems"):
        if name in made:
            made[name] = [_closed(one) for one in made[name]]
    # If other parts of the schema also describe properties, these would be forbidden.
    whole = not made.keys() & {"allOf", "anyOf", "$ref", "patternProperties"}
    if whole and "properties" in made and set(made.get("required", ())) <= made["properties"].keys():
        made["additionalProperties"] = False
        made.pop("minProperties", None)
        made.pop("maxProperties", None)
    return made


def _json(schema: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """JSON that fits a schema, as a part of a rule."""
    return f"%json {json.dumps({**schema, 'x-guidance': options}, ensure_ascii=False)}"


class _PythonCall:
    """Makes the rules for calls of one tool in ChatGLM3's syntax.

    Args:
        rules: the rules of all tools; new ones are added.
    """

    def __init__(self, schema: Mapping[str, Any], rules: _Rules) -> None:
        self._whole = {name: part for name, part in schema.items() if name != "$defs"}
        self._definitions: Mapping[str, Any] = schema.get("$defs", {})
        self._rule = rules.named
        self._rules = rules
        self._references: dict[str, str] = {}

    def call(self) -> str:
        schema = self._whole
        if not _is_plain(schema, "object"):
            inside = f'"**" {self._in_json(schema)}'
        elif "properties" not in schema:
            inside = f'("**" {self._value(schema)})?'
        elif all(map(is_keyword, schema["properties"])):
            inside = self._members(schema, lambda name: _quoted(f"{name}="))
        else:
            inside = f'"**{{" {self._members(schema, self._key)} "}}"'
        return f'"```python\\ntool_call(" {inside} ")\\n```"'

    def _in_json(self, schema: Mapping[str, Any]) -> str:
        definitions = {"$defs": self._definitions} if '"$ref"' in json.dumps(schema) else {}
        return self._rule(_json({**schema, **definitions}, {**_SPACING, **_ESCAPES}))

    def _value(self, schema: Any) -> str:
        """An expression for the values that fit a schema."""
        if schema in (True, {}):
            return "value"
        keys = schema.keys()
        if keys == {"$ref"}:
            return self._reference(schema["$ref"])
        if keys <= {"const", "enum", "type"} and keys & {"const", "enum"}:
            return self._literals(schema)
        if keys == {"anyOf"}:
            options = [self._value(one) for one in schema["anyOf"] if one is not False]
            return self._rule(" | ".join(options)) if options else self._in_json(schema)
        kind = schema.get("type")
        if isinstance(kind, list) and not keys & {"$ref", "const", "enum", "anyOf", "allOf"}:
            return self._rule(" | ".join(self._value(_narrowed(schema, one)) for one in kind))
        for name, write in (("string", self._string), ("array", self._array), ("object", self._object)):
            if kind == name and _is_plain(schema, name):
                return write(schema)
        match kind:
            case "boolean" if keys == {"type"}:
                return '("True" | "False")'
            case "null" if keys == {"type"}:
                return '"None"'
            case "number" if keys == {"type"}:
                return "NUMBER"
        return self._in_json(schema)

    def _string(self, schema: Mapping[str, Any]) -> str:
        low, high = schema.get("minLength", 0), schema.get("maxLength")
        if "pattern" in schema:
            return self._in_json(schema)
        if not low and high is None:
            return "string"
        # An escape would count as several characters here. So only strings in double quotes, which are JSON, have them.
        plain = rf"/'[^'\\\x00-\x1f]{{{low},{'' if high is None else high}}}'/"
        return self._rule(f"{plain} | {self._in_json(schema)}")

    def _array(self, schema: Mapping[str, Any]) -> str:
        low, high = schema.get("minItems", 0), schema.get("maxItems")
        item = schema.get("items", {})
        if high == 0 or item is False:
            return '"[]"'
        item = self._value(item)
        more = "*" if high is None and low < 2 else f"{{{max(low - 1, 0)},{'' if high is None else high - 1}}}"
        items = item if high == 1 else f'{item} (", " {item}){more}'
        return self._rule(f'"[" {items} "]"' if low else f'"[" ({items})? "]"')

    def _object(self, schema: Mapping[str, Any]) -> str:
        if "properties" in schema:
            return self._rule(f'"{{" {self._members(schema, self._key)} "}}"')
        value = self._value(schema.get("additionalProperties", {}))
        return self._rule(f'"{{" (string ": " {value} (", " string ": " {value})*)? "}}"')

    def _members(self, schema: Mapping[str, Any], key: Callable[[str], str]) -> str:
        """The properties in their order, separated by commas. Those that are not required may be missing."""
        required = schema.get("required", ())
        members = [
            (f"{key(name)} {self._value(one)}", name in required)
            for name, one in schema["properties"].items()
            if one is not False
        ]
        # The rules for member n and all after it: `behind` if another member comes before them, `first` if none does.
        behind, first = '""', '""'
        for body, needed in reversed(members):
            follows, begins = f'", " {body} {behind}', f"{body} {behind}"
            behind = self._rule(follows if needed else f"({follows}) | {behind}")
            first = self._rule(begins if needed else f"({begins}) | {first}")
        return first

    def _key(self, name: str) -> str:
        return f'{self._literal(name)} ": "'

    def _literals(self, schema: Mapping[str, Any]) -> str:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        kinds = schema.get("type", list(_KINDS))
        kinds = kinds if isinstance(kinds, list) else [kinds]
        fitting = [value for value in values if any(_KINDS[kind](value) for kind in kinds)]
        if ("const" in schema and "enum" in schema) or not fitting:
            return self._in_json(schema)
        return self._rule(" | ".join(dict.fromkeys(map(self._literal, fitting))))

    def _literal(self, value: Any) -> str:
        if isinstance(value, str):
            return f"({_quoted(repr(value))} | {_quoted(json.dumps(value, ensure_ascii=False))})"
        return _quoted(repr(value))

    def _reference(self, target: str) -> str:
        name = target.rsplit("/", 1)[1]
        if name not in self._references:
            self._references[name] = self._rules.new()  # named before its body is made, which may refer to it
            self._rules.add(self._references[name], self._value(self._definitions[name]))
        return self._references[name]


_PLAIN = {
    "string": {"type", "minLength", "maxLength", "pattern"},
    "array": {"type", "items", "minItems", "maxItems"},
    "object": {"type", "properties", "required", "additionalProperties"},
}


_NUMBER = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}


def _narrowed(schema: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """A schema of several types for one of them, with the keywords that apply to this type."""
    mine = _PLAIN.get(kind, _NUMBER if kind in ("integer", "number") else set())
    others = set().union(_NUMBER, *_PLAIN.values()) - mine
    return {**{name: value for name, value in schema.items() if name not in others}, "type": kind}


def _is_plain(schema: Mapping[str, Any], kind: str) -> bool:
    """Whether a schema has this type, and rules for Python can express all of its keywords."""
    open_too = kind == "object" and "properties" in schema and schema.get("additionalProperties", True) is not False
    named = set(schema.get("required", ())) <= schema.get("properties", {}).keys()
    return schema.get("type") == kind and schema.keys() <= _PLAIN[kind] and not open_too and named


def _quoted(text: str) -> str:
    """A text as a quoted terminal of the grammar."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
