"""Registers functions as tools by a decorator, as in `tool_registry.py` of ChatGLM3's composite demo."""

from __future__ import annotations

import inspect
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload

from chatglm.errors import InputError, ToolError
from chatglm.tools.functions import Function
from chatglm.tools.threads import LoopThread
from chatglm.tools.tool import Consent

__all__ = ["REFUSED", "dispatch_tool", "forget", "get_tools", "register_tool", "registered", "registered_in"]

F = TypeVar("F", bound=Callable[..., Any])

REFUSED = {
    "get_shell": "it runs any shell command of a model, with your rights; the code interpreter does so in a "
    "sandbox (a tool of your own that does something else needs another name)"
}
"""Names of tools that are not offered, and why."""

_modules: dict[str, dict[str, Function]] = {}
_lock = threading.Lock()
_loop = LoopThread()


@overload
def register_tool(function: F) -> F: ...
@overload
def register_tool(*, consent: Consent = ...) -> Callable[[F], F]: ...
def register_tool(function: Any = None, *, consent: Consent = Consent.NEVER) -> Any:
    """Register a function as a tool, and return it unchanged.

    It needs a docstring, and a type for each parameter: `Annotated[type, "description", required]`, or a plain
    annotation that the docstring describes. A second function of the same name and module replaces the first.

    Args:
        consent: how often a person is asked before it is used.

    Raises:
        ToolError: it has no docstring, or cannot be a tool. `get_shell` of ChatGLM3's demo raises no error, but a
            warning: it is not registered.
    """
    return (lambda given: _add(given, consent)) if function is None else _add(function, consent)


def _add(function: F, consent: Consent) -> F:
    name = getattr(function, "__name__", "")
    if name in REFUSED:
        warnings.warn(f"{name} is not offered to models: {REFUSED[name]}", stacklevel=3)
        return function
    if not (inspect.getdoc(function) or "").strip():
        raise ToolError(f"register_tool: {name or repr(function)[:80]} has no docstring; a model is told what it does")
    made = Function.of(function, consent=consent)
    with _lock:
        _modules.setdefault(function.__module__, {})[made.spec.name] = made
    return function


def registered_in(module: str) -> dict[str, Function]:
    """The tools that a module has registered, by name."""
    with _lock:
        return dict(_modules.get(module, {}))


def forget(module: str) -> None:
    """Remove the tools of a module, because it is executed again, or could not be executed."""
    with _lock:
        _modules.pop(module, None)


def registered() -> dict[str, Function]:
    """All of this process; of two with the same name, the later one."""
    with _lock:
        return {name: tool for tools in _modules.values() for name, tool in tools.items()}


def get_tools() -> dict[str, dict[str, Any]]:
    """All registered tools of this process, in ChatGLM3's form: name, description and a list of parameters.
    `model.chat` accepts it as `tools` of a system message."""
    return {name: tool.official() for name, tool in registered().items()}


def dispatch_tool(tool_name: str, tool_params: Mapping[str, Any]) -> str:
    """Call a registered tool. Returns its result as text, or the error. It has no time limit; use
    `Toolbox` for more.
    """
    tool = registered().get(tool_name)
    if tool is None:
        reason = REFUSED.get(tool_name)
        return (
            f"Tool `{tool_name}` is not offered: {reason}."
            if reason
            else f"Tool `{tool_name}` not found. Please use a provided tool."
        )
    try:
        return _loop.run(tool.run(tool_params)).text
    except InputError as error:
        return f"Arguments of {tool_name} are wrong ({error})."
