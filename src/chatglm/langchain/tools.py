"""Makes tools for LangChain from chatglm's tools, including the interpreter."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.tools import BaseTool, ToolException
from pydantic import PrivateAttr

from chatglm.chat.messages import ToolCall, ToolSpec
from chatglm.tools.tool import Outcome, Tool
from chatglm.tools.toolbox import Permit, Toolbox

__all__ = ["langchain_tools"]

_BUILT_IN = {
    "python": ("code", "Python code", "Runs Python code, and gives what it prints. Variables stay between calls."),
    "cogview": ("prompt", "what is to be seen", "Draws a picture and shows it to the user."),
}
"""Argument, its description, and description of each built-in tool, for which the family's prompts have no schema."""


def langchain_tools(
    tools: Toolbox | Sequence[Tool | Callable[..., Any]], *, permit: Permit | None = None
) -> list[BaseTool]:
    """Tools for LangChain's agents. Each call goes through the toolbox, with its limits and its consent.

    A call that fails raises `ToolException`, which agents pass to the model as the text of an error. Additional
    output for people (pictures, files) is in the message's `artifact`, an `Outcome`.

    Args:
        tools: a toolbox, which its owner closes; or functions, `Interpreter(kernels)` and other tools for a new
            toolbox, whose thread ends when the returned tools are garbage-collected.
        permit: called before a tool that needs a person's consent; None: such calls are refused.

    Raises:
        ToolError: a function cannot be a tool.
    """
    box = tools if isinstance(tools, Toolbox) else Toolbox(tools)
    found: list[BaseTool] = []
    for spec in box.specs:
        if spec.builtin in _BUILT_IN:
            argument, meant, described = _BUILT_IN[spec.builtin]
            properties = {argument: {"type": "string", "description": meant}}
            schema: Any = {"type": "object", "properties": properties, "required": [argument]}
        else:
            flat = spec.flat()
            described = str(flat.get("description") or "")
            schema = flat.get("parameters") or {"type": "object", "properties": {}}
        found.append(_one(box, spec, described, schema, permit))
    return found


def _one(box: Toolbox, spec: ToolSpec, described: str, schema: Any, permit: Permit | None) -> BaseTool:
    name = spec.name  # the name in the box, even if the tool is renamed later

    def run(arguments: dict[str, Any]) -> tuple[str, Outcome]:
        return _told(*box.call_now([ToolCall(name, _plain(arguments))], permit))

    async def arun(arguments: dict[str, Any]) -> tuple[str, Outcome]:
        return _told(await box.call(ToolCall(name, _plain(arguments)), permit))

    made = _Tool(
        name=name,
        description=described or name,
        args_schema=dict(schema),
        response_format="content_and_artifact",
        handle_tool_error=True,
        metadata={"builtin": spec.builtin} if spec.builtin else None,
    )
    made._call, made._acall = run, arun
    return made


class _Tool(BaseTool):
    """A tool with any names of arguments. `StructuredTool` takes `config` and `run_manager` for LangChain's own."""

    _call: Any = PrivateAttr()
    _acall: Any = PrivateAttr()

    def _run(self, /, **arguments: Any) -> Any:
        return self._call(arguments)

    async def _arun(self, /, **arguments: Any) -> Any:
        return await self._acall(arguments)


def _told(outcome: Outcome) -> tuple[str, Outcome]:
    if outcome.failed:
        raise ToolException(outcome.text)
    return outcome.text, outcome


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Convert arguments to JSON values, because LangChain may have made objects of them."""
    plain: dict[str, Any] = json.loads(json.dumps(arguments, default=_dumped))
    return plain


def _dumped(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    return dump() if dump is not None else str(value)
