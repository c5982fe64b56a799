"""Opens tools from any source: a Python file, a document of a web service, a list of MCP servers, an image model, an
example. The kind of a source is detected from its content.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import re
import sys
import threading
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chatglm.errors import ToolError
from chatglm.tools import registry
from chatglm.tools.examples import example_tools
from chatglm.tools.functions import Function
from chatglm.tools.tool import Tool

__all__ = ["Opened", "open_source"]

_LARGEST_SOURCE = 1 << 20
_DECORATOR = "register_tool"
_OFFICIAL = ("tool_registry", "tool_register")
"""Modules of ChatGLM3's demos that have the decorator."""
_executing = threading.Lock()


@dataclass(frozen=True)
class Opened:
    """The tools of a source.

    Attributes:
        refused: tools, operations and servers that are not offered, and why.
        close: ends the connections of the tools.
    """

    tools: tuple[Tool, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    close: Callable[[], None] = lambda: None


def open_source(source: str | Path) -> Opened:
    """Open the tools of a source.

    Raises:
        ToolError: the source has no tools, or cannot be read; the message names it.
        DependencyError: a package that it needs is not installed.
    """
    if isinstance(source, str) and (examples := example_tools(source)) is not None:
        return Opened(tuple(examples))
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return _service(source)
    if "\0" in str(source):
        raise ToolError(f"{source!r:.200}: not the name of a file")
    path = Path(source).expanduser()
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise ToolError(f"{path}: a folder without model_index.json holds no image model, so there are no tools")
        from chatglm.tools.drawing import open_painter

        painter = open_painter(path)
        return Opened((painter,), close=painter.close)
    match path.suffix.lower():
        case ".py":
            return _python(path)
        case ".json" | ".yaml" | ".yml":
            return _document(path)
    raise ToolError(
        f"{source!s:.200}: tools are in a .py file, in a .json or .yaml file or at an address (an OpenAPI document, or "
        "MCP servers), in the folder of an image model, or `examples`"
    )


def _document(path: Path) -> Opened:
    from chatglm.tools.documents import read_document

    keys = set(read_document(path))
    if keys & {"openapi", "swagger", "document"}:
        return _service(path)
    if keys & {"servers", "mcpServers"}:
        from chatglm.tools.mcp import open_servers

        servers = open_servers(path)
        return Opened(servers.tools, {**servers.failed, **servers.left_out}, servers.close)
    raise ToolError(f"{path}: neither an OpenAPI document (`openapi:`) nor a list of MCP servers (`servers:`)")


def _service(source: str | Path) -> Opened:
    from chatglm.tools.openapi import open_tools

    found = open_tools(source)
    return Opened(tuple(found), found.left_out, found.close)


# A Python file of the user


def _python(path: Path) -> Opened:
    from chatglm.tools.documents import read_bytes  # imported here because it imports a YAML parser

    source = read_bytes(path, _LARGEST_SOURCE)
    module = _execute(path, source)
    found = registry.registered_in(module.__name__)
    marked = [name for name in _decorated(source) if name in vars(module)]
    refused = {name: registry.REFUSED[name] for name in marked if name in registry.REFUSED}
    # Functions with another decorator of the same name, as in ChatGLM3's own file.
    for name in marked:
        if name not in found and name not in refused:
            found[name] = _function(path, vars(module)[name])
    if not found and not refused:
        found = {
            name: _function(path, value)
            for name, value in vars(module).items()
            if inspect.isfunction(value)
            and value.__module__ == module.__name__
            and not name.startswith("_")
            and inspect.getdoc(value)
            and all(one.annotation is not one.empty for one in inspect.signature(value).parameters.values())
        }
    if not found:
        why = "".join(f"; {name} is not offered: {reason}" for name, reason in refused.items())
        raise ToolError(f"{path}: no tools in it: no function has annotations and a docstring{why}")
    return Opened(tuple(found.values()), refused)


def _function(path: Path, value: Any) -> Function:
    try:
        return Function.of(value)
    except ToolError as error:
        code = getattr(inspect.unwrap(value), "__code__", None)
        where = f", line {code.co_firstlineno}" if code else ""
        raise ToolError(f"{path}{where}: {str(error).removeprefix('functions: ')}") from None


def _decorated(source: bytes) -> list[str]:
    """Names of the top-level functions of a file that have a decorator named `register_tool`."""
    return [
        node.name
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if _DECORATOR in map(_last_name, node.decorator_list)
    ]


def _last_name(mark: ast.expr) -> str:
    """The last name in `@name`, `@module.name` and `@name(…)`."""
    match mark:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func=inner):
            return _last_name(inner)
    return ""


class _Loader(importlib.machinery.SourceFileLoader):
    """Executes the bytes that were read before, and writes no bytecode next to the user's file."""

    source = b""

    def get_data(self, path: Any) -> bytes:
        return self.source

    def path_stats(self, path: Any) -> Any:
        raise OSError


def _execute(path: Path, source: bytes) -> types.ModuleType:
    """Execute a file as a module. Its output goes to stderr, because stdout may have data of the program.

    Raises:
        ToolError: it raised an error; the message names the line.
    """
    full = str(path.resolve())
    name = f"chatglm_tools_{re.sub(r'[^0-9a-zA-Z_]', '_', path.stem)}_{hashlib.sha256(full.encode()).hexdigest()[:8]}"
    loader = _Loader(name, full)
    loader.source = source
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))  # type: ignore[arg-type]
    with _executing, _surroundings(path.resolve().parent):
        registry.forget(name)
        sys.modules[name] = module  # dataclasses and pydantic look the module up there
        try:
            loader.exec_module(module)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            sys.modules.pop(name, None)
            registry.forget(name)
            raise ToolError(f"{path}{_line(error, full)}: {_reason(error)}") from error
    return module


@contextlib.contextmanager
def _surroundings(folder: Path) -> Iterator[None]:
    """Let a file import, while it runs, modules of its folder, and ChatGLM3's `tool_registry` even if there is none."""
    beside = str(folder)
    sys.path.insert(0, beside)
    importlib.invalidate_caches()  # a module in this folder may be new
    stand_in = types.ModuleType("tool_registry", "Stands for that of ChatGLM3's demo.")
    for part in (registry.register_tool, registry.get_tools, registry.dispatch_tool):
        setattr(stand_in, part.__name__, part)
    lent = [name for name in _OFFICIAL if name not in sys.modules and importlib.util.find_spec(name) is None]
    sys.modules.update(dict.fromkeys(lent, stand_in))
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".* is not offered to models")  # `refused` names it
            yield
    finally:
        for name in lent:
            sys.modules.pop(name, None)
        sys.path.remove(beside)
        if beside not in sys.path:
            sys.path.append(beside)  # its functions may import modules later


def _line(error: BaseException, file: str) -> str:
    if isinstance(error, SyntaxError) and error.filename == file:
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f", line {lines[-1]}" if lines else ""


def _reason(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return "it ends the program where it should only define functions"
    if isinstance(error, ToolError):
        return str(error).removeprefix("functions: ")
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {' '.join(str(text).split())[:400]}"
