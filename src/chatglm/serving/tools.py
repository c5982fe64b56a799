"""Tools of requests, in the forms of OpenAI and of ChatGLM3's demos, and the choice among them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema, core_schema

from chatglm.chat.messages import INTERPRETER
from chatglm.serving.dialect import Strict
from chatglm.serving.fields import OneOf, wrong
from chatglm.serving.hints import TOOL

__all__ = [
    "FunctionCallChoice",
    "Functions",
    "Tool",
    "ToolChoice",
    "ToolName",
    "Tools",
    "chosen_tool",
    "is_flat",
    "tool_choice_of",
    "tool_of",
    "tools_of",
]


_OTHERS = 64
"""Most fields of a function that are not known here."""


@dataclass(frozen=True)
class ToolName:
    """Marks a string as the name of a tool: `Annotated[str, ToolName(64)]`.

    Attributes:
        longest: characters that it may have.
    """

    longest: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": r"^[\w.-]+$", "minLength": 1, "maxLength": self.longest}

    def _check(self, value: str) -> str:
        if not value or not all(character.isalnum() or character in "_.-" for character in value):
            raise wrong("may have only letters, digits, `_`, `-` and `.`, and at least one of them")
        if len(value) > self.longest:
            raise wrong(f"must have at most {self.longest} characters")
        return value


class Function(Strict):
    """A function that the model may call. Fields that are not known here are shown to the model."""

    model_config = ConfigDict(extra="allow")
    hints = TOOL

    name: Annotated[str, ToolName(64)]
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="JSON schema of an object")
    strict: bool | None = None

    @model_validator(mode="after")
    def _no_slips(self) -> Function:
        others, known = self.model_extra or {}, list(Function.model_fields)
        if len(others) > _OTHERS:
            raise wrong(f"has {len(others):,} unknown fields; at most {_OTHERS} are shown to the model")
        for name in others:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            if near and name != "params":  # that is ChatGLM3's own form of parameters
                raise wrong(f"unknown field {name!r:.40}; did you mean {near[0]!r}?")
        return self


class _FunctionTool(Strict):
    hints = TOOL

    type: Literal["function"] | None = None
    function: Function
    strict: bool | None = Field(None, description="the same as in `function`, where OpenAI puts it")


class _FlatTool(Function):
    """A function without the object around it, as ChatGLM3's demos and the Responses API have it."""

    type: Literal["function"] | None = None


def run_here(kind: Any) -> str:
    """The end of a refusal of tools that only other servers have: what to use here instead."""
    if str(kind).startswith(("code_", "python")):
        return f"; to have code run on the server, ask for it with `server_tools: [{INTERPRETER!r}]`"
    return "; tools of the server are asked for by name, with `server_tools`"


def tool_of(value: Any) -> Any:
    """The form of a tool; for `OneOf`."""
    if not isinstance(value, dict):
        raise wrong("must be an object with `type` and `function`")
    kind = value.get("type")
    if kind not in (None, "function"):
        raise wrong(f"tools of type {kind!r:.40} are not supported; supported: function{run_here(kind)}")
    return _FunctionTool if "function" in value or "name" not in value else _FlatTool


Tool = Annotated[_FunctionTool | _FlatTool, OneOf(tool_of)]
"""One tool."""


def _list_or_dict(branch: Any) -> OneOf:
    def choose(value: Any) -> Any:
        if isinstance(value, list):
            return list[branch]
        if isinstance(value, dict):
            return dict[str, branch]
        raise wrong("must be a list of functions, or an object of them by name")

    return OneOf(choose)


Tools = Annotated[list[Tool] | dict[str, Tool], _list_or_dict(Tool)]
"""`tools`: a list, or a dict by name as `get_tools()` of ChatGLM3's demos gives it."""

Functions = Annotated[list[_FlatTool] | dict[str, _FlatTool], _list_or_dict(_FlatTool)]
"""`functions`, the older form of `tools`."""


def tools_of(given: Any) -> list[Any] | dict[str, Any]:
    """`Tools` or `Functions` as `ToolSpec.list_from` reads them."""
    if isinstance(given, dict):
        return {name: _plain(tool) for name, tool in given.items()}
    return [_plain(tool) for tool in given]


def _plain(tool: _FunctionTool | _FlatTool) -> dict[str, Any]:
    inner = tool if isinstance(tool, _FlatTool) else tool.function
    properties = (inner.parameters or {}).get("properties")
    if inner.name == INTERPRETER and isinstance(properties, dict) and properties.keys() == {"code"}:
        return {"type": "python"}  # the code interpreter that models know, run by the client
    if isinstance(tool, _FlatTool):
        return tool.model_dump(exclude_none=True, exclude={"type"})
    function = tool.function.model_dump(exclude_none=True)
    if tool.strict is not None:
        function.setdefault("strict", tool.strict)
    return {"type": "function", "function": function}


def is_flat(given: Any) -> bool:
    """Whether all tools are as in ChatGLM3's demos, whose clients read `function_call` and not `tool_calls`."""
    tools = list(given.values() if isinstance(given, dict) else given)
    return bool(tools) and all(isinstance(tool, _FlatTool) and tool.type is None for tool in tools)


class _NamedFunction(Strict):
    name: str


class _FunctionChoice(Strict):
    type: Literal["function"] | None = None
    function: _NamedFunction


class _FlatChoice(Strict):
    type: Literal["function", "tool"] | None = None
    name: str


class _ModeChoice(Strict):
    type: Literal["none", "auto", "required", "any"]


_Mode = Literal["none", "auto", "required", "any"]


def tool_choice_of(value: Any) -> Any:
    """The type that a `tool_choice` must have."""
    if isinstance(value, str) and value in ("none", "auto", "required", "any"):
        return _Mode
    if not isinstance(value, dict):
        raise wrong("must be one of: none, auto, required; or an object that names a function")
    if "function" in value or (value.get("type") == "function" and "name" not in value):
        return _FunctionChoice
    return _FlatChoice if "name" in value else _ModeChoice


ToolChoice = Annotated[_Mode | _FunctionChoice | _FlatChoice | _ModeChoice, OneOf(tool_choice_of)]
"""`tool_choice`: OpenAI's forms, and those of clients that also speak to Anthropic."""


def _call_choice(value: Any) -> Any:
    if isinstance(value, str) and value in ("none", "auto"):
        return Literal["none", "auto"]
    if not isinstance(value, dict):
        raise wrong("must be one of: none, auto; or an object with the function's name")
    return _NamedFunction


FunctionCallChoice = Annotated[Literal["none", "auto"] | _NamedFunction, OneOf(_call_choice)]
"""`function_call`, the older form of `tool_choice`."""


def chosen_tool(choice: Any) -> str:
    """A choice in the form that the assistant takes: `none`, `auto`, `required`, or the name of a tool."""
    if isinstance(choice, _FunctionChoice):
        return choice.function.name
    if isinstance(choice, _FlatChoice | _NamedFunction):
        return choice.name
    mode: str = choice.type if isinstance(choice, _ModeChoice) else choice
    return "required" if mode == "any" else mode
