"""The project's tools, and the interpreter, as LangChain's tools."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from langchain_core.tools import BaseTool, StructuredTool, ToolException

from chatglm.chat.messages import INTERPRETER, ToolCall
from chatglm.tools.tool import Outcome, Tool
from chatglm.tools.toolbox import Permit, Toolbox

__all__ = ["langchain_tools"]

T = TypeVar("T")
_CODE = {
    "type": "object",
    "properties": {"code": {"type": "string", "description": "Python code"}},
    "required": ["code"],
}


def langchain_tools(
    tools: Toolbox | Sequence[Tool | Callable[..., Any]], *, permit: Permit | None = None
) -> list[BaseTool]:
    """What an agent of LangChain can call: each call goes through the toolbox, with its limits and its consent.

    A call that fails raises `ToolException`, which agents hand to the model as an error's text. What a person sees
    besides the text (pictures, files) is the message's `artifact`, an `Outcome`.

    Args:
        tools: a toolbox, or what one is made of: functions, `Interpreter(kernels)`, tools of MCP servers …
        permit: is asked where a tool wants consent; None: such calls are refused.
    """
    box = tools if isinstance(tools, Toolbox) else Toolbox(tools)
    found: list[BaseTool] = []
    for spec in box.specs:
        flat = spec.flat()
        schema = _CODE if spec.builtin == "python" else flat.get("parameters") or {"type": "object", "properties": {}}
        described = str(flat.get("description") or "")
        if spec.builtin == "python":
            described = described or "Runs Python code, and gives what it prints. Variables stay between calls."
        found.append(_one(box, spec.name, described, schema, permit))
    return found


def _one(box: Toolbox, name: str, described: str, schema: Any, permit: Permit | None) -> BaseTool:
    async def arun(**arguments: Any) -> tuple[str, Outcome]:
        outcome = await box.call(ToolCall(name, _plain(arguments)), permit)
        if outcome.failed:
            raise ToolException(outcome.text)
        return outcome.text, outcome

    def run(**arguments: Any) -> tuple[str, Outcome]:
        return _now(arun(**arguments))

    return StructuredTool(
        name=name,
        description=described or name,
        args_schema=dict(schema),
        func=run,
        coroutine=arun,
        response_format="content_and_artifact",
        handle_tool_error=True,
        metadata={"interpreter": name == INTERPRETER},
    )


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has it: LangChain may have made objects of it."""
    plain: dict[str, Any] = json.loads(json.dumps(arguments, default=_dumped))
    return plain


def _dumped(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    return dump() if dump is not None else str(value)


def _now(work: Coroutine[Any, Any, T]) -> T:
    """Its result, whether or not this thread has an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(asyncio.run(work))
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="chatglm tool", daemon=True).start()
    return done.result()
