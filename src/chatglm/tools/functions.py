"""A Python function as a tool: its schema from its signature, its arguments checked, its result as text."""

from __future__ import annotations

import enum
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union

from chatglm.chat.messages import ToolCall, ToolSpec
from chatglm.errors import InputError

__all__ = ["Function", "as_text", "call", "failure", "functions_of"]

_KINDS: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


@dataclass(frozen=True)
class Function:
    """A function that a model may call."""

    spec: ToolSpec
    function: Callable[..., Any]

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Function:
        """Name and description are the function's own; parameters follow from its annotations, `Annotated[type, "…"]`
        or the docstring's `Args:` describe them.

        Raises:
            InputError: a parameter has no annotation, or one that JSON has no type for; or there is no keyword for it.
        """
        name = getattr(function, "__name__", "")
        if not name.isidentifier():
            raise InputError(f"functions: {function!r:.80} has no name; pass a function made with def")
        described, told = _docstring(function)
        hints = typing.get_type_hints(function, include_extras=True)
        properties: dict[str, Any] = {}
        required = []
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind not in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                raise InputError(f"functions: {name}({parameter}) cannot be given by name; a model gives names")
            if parameter.name not in hints:
                raise InputError(f"functions: parameter {parameter.name} of {name} needs a type annotation")
            schema = _schema(hints[parameter.name], f"{name}({parameter.name})")
            if parameter.name in told:
                schema.setdefault("description", told[parameter.name])
            properties[parameter.name] = schema
            if parameter.default is parameter.empty:
                required.append(parameter.name)
        parameters = {"type": "object", "properties": properties, "required": required}
        return cls(ToolSpec({"name": name, "description": described, "parameters": parameters}), function)

    def problem(self, arguments: Mapping[str, Any]) -> str:
        """What is wrong with a call's arguments, for the model to read; "" if nothing."""
        schema = self.spec.flat()["parameters"]
        unknown = sorted(arguments.keys() - schema["properties"].keys())
        missing = [name for name in schema["required"] if name not in arguments]
        wrong = [
            f"{name} must be {_expected(part)}, got {arguments[name]!r:.80}"
            for name, part in schema["properties"].items()
            if name in arguments and not _fits(arguments[name], part)
        ]
        parts = [f"unknown: {', '.join(unknown)}"] if unknown else []
        parts += [f"missing: {', '.join(missing)}"] if missing else []
        return "; ".join([*parts, *wrong])


def functions_of(functions: Sequence[Callable[..., Any] | Function]) -> dict[str, Function]:
    """By name.

    Raises:
        InputError: two have the same name, or one is no tool.
    """
    found: dict[str, Function] = {}
    for given in functions:
        function = given if isinstance(given, Function) else Function.of(given)
        if function.spec.name in found:
            raise InputError(f"functions: two are named {function.spec.name}; a model cannot tell them apart")
        found[function.spec.name] = function
    return found


def call(functions: Mapping[str, Function], asked: ToolCall) -> Any:
    """The value of the call, an awaitable if the function is a coroutine function; or, as text for the model, what was
    wrong. Never raises what the function raises."""
    function = functions.get(asked.name)
    if function is None:
        return f"Tool `{asked.name}` not found. Please use a provided tool: {', '.join(functions)}."
    if asked.cut:
        return f"Arguments of {asked.name} are not a JSON object; they may have been cut short."
    if problem := function.problem(asked.arguments):
        return f"Arguments of {asked.name} are wrong ({problem})."
    try:
        return function.function(**asked.arguments)
    except Exception as error:
        return failure(error)


def failure(error: Exception) -> str:
    """An exception of a tool, for the model to read."""
    return f"Error: {type(error).__name__}: {error}"


def as_text(value: Any) -> str:
    """A tool's result as the text of an observation."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """The description, and what `Args:` says of each parameter."""
    text = inspect.getdoc(function) or ""
    described, _, rest = text.partition("\nArgs:\n")
    arguments = re.split(r"\n(?=\S)", rest, maxsplit=1)[0]
    told = re.findall(r"^ {4}(\w+)(?: *\([^)]*\))?: *(.*(?:\n {5,}.*)*)", arguments, re.MULTILINE)
    return " ".join(described.split()), {name: " ".join(words.split()) for name, words in told}


def _schema(hint: Any, where: str) -> dict[str, Any]:
    if hint is Any:
        return {}
    if hint in _KINDS:
        return {"type": _KINDS[hint]}
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        schema = _schema(parts[0], where)
        told = next((part for part in parts[1:] if isinstance(part, str)), None)
        return schema if told is None else schema | {"description": told}
    if origin is Literal:
        return {"enum": list(parts)}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        raise InputError(f"functions: {where}: a model gives plain values; use Literal in place of {hint.__name__}")
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(part, where) for part in parts]}
    if hint is list or origin in (list, Sequence):
        return {"type": "array", "items": _schema(parts[0], where) if parts else {}}
    if hint is dict or origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _schema(parts[1], where) if parts else True}
    raise InputError(f"functions: {where}: {hint!r} is no type that JSON has (str, int, float, bool, list, dict, …)")


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    if "enum" in schema:
        return value in schema["enum"]
    if "anyOf" in schema:
        return any(_fits(value, part) for part in schema["anyOf"])
    match schema.get("type"):
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "null":
            return value is None
        case "array":
            return isinstance(value, list | tuple) and all(_fits(item, schema["items"]) for item in value)
        case "object":
            inner = schema["additionalProperties"]
            return isinstance(value, Mapping) and (inner is True or all(_fits(item, inner) for item in value.values()))
    return True


def _expected(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return f"one of {', '.join(map(repr, schema['enum']))}"
    if "anyOf" in schema:
        return " or ".join(_expected(part) for part in schema["anyOf"])
    return str(schema.get("type", "anything"))
