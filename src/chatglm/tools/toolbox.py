"""`Toolbox`: the tools that a model may call. Only this module runs calls.

A call is checked, a person is asked if the tool requires it, and the time is limited. The result is always an
`Outcome`: text of limited length, or the error, which the model can read. A tool that hangs, crashes or returns an
endless result harms neither the dialogue nor other tools.

There are limits to this protection. A Python function runs in this process with all rights of this program, and its
output goes to the program's own output. Its thread cannot be ended after the time limit, only abandoned. A coroutine
function runs in the caller's event loop and must not block it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import copy
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from chatglm.chat.messages import INTERPRETER, ToolCall, ToolSpec
from chatglm.errors import InputError, ToolError
from chatglm.tools.files import Opened, open_source
from chatglm.tools.functions import Function, too_large
from chatglm.tools.results import cut, failed, failure, shown
from chatglm.tools.threads import LoopThread, Threads
from chatglm.tools.tool import Consent, Outcome, Tool

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["MOST_CALLS", "Permit", "Toolbox", "one_too_many"]

Permit = Callable[[ToolCall, Tool], Awaitable[bool]]
"""Asks a person whether a call may be carried out."""

_MOST_ABANDONED = 8
MOST_CALLS = 32
"""Most calls of one turn."""
_GRACE = 1.0
"""Seconds that a coroutine has to end after it was cancelled."""


_CLOSED = "The tools have been closed."


class _Shared:
    """State that a box shares with the boxes made from it."""

    def __init__(self) -> None:
        self.threads = Threads()
        self.loop = LoopThread()
        self.held = contextlib.ExitStack()  # connections and programs of the tools
        self.closed = False


class Toolbox:
    """A set of tools, which runs their calls. One box serves any number of dialogues, threads and event loops at
    once."""

    def __init__(
        self,
        tools: Sequence[Tool | Callable[..., Any]] = (),
        *,
        seconds: float = 30.0,
        characters: int = 1024,
        whole: int = 256 << 10,
        together: int = 4,
    ) -> None:
        """
        Args:
            tools: typed Python functions (see `Function.of`) and other `Tool` objects.
            seconds: time limit of a call; a tool may have its own attribute `seconds`.
            characters: largest number of characters of a result for the model.
            whole: largest number of bytes of a result for people.
            together: largest number of calls of one turn that run at the same time.

        Raises:
            ToolError: a function cannot be a tool, or two have the same name.
            InputError: a number is not above 0.
            DependencyError: pydantic is not installed.
        """
        if seconds <= 0 or characters < 1 or whole < 1 or together < 1:
            raise InputError("Toolbox: seconds, characters, whole and together must be above 0")
        self._seconds, self._characters, self._whole, self._together = seconds, characters, whole, together
        self._tools: dict[str, Tool] = {}
        self._shared, self._owner = _Shared(), True
        self._granted: set[str] = set()
        self.refused: dict[str, str] = {}
        """Names of what `open` found but does not offer, with the reasons: tools, operations of a service, servers that
        did not start.
        """
        self._add(tools)

    def _add(self, tools: Sequence[Tool | Callable[..., Any]]) -> None:
        for given in tools:
            tool: Tool = given if _is_tool(given) else Function.of(given)  # type: ignore[assignment, arg-type]
            name = tool.spec.name
            if name in self._tools:
                raise ToolError(f"functions: two are named {name}; a model cannot tell them apart")
            self._tools[name] = tool

    @classmethod
    def open(cls, sources: Sequence[str | Path], **options: Any) -> Self:
        """Open tools from files: a Python file with functions; an OpenAPI document; a YAML file that names MCP
        servers; the folder of an image model; `examples`, or one example by its name, such as `calculator` or
        `search_files=FOLDER`.

        **A Python file is executed**, with all rights of this program: open only files that you trust. Neither a
        model nor a request can name one.

        Args:
            options: options of `Toolbox`.

        Raises:
            ToolError: a file has no tools, or cannot be read; the message names it. Then no file is opened.
            DependencyError: a file needs a package that is not installed.
        """
        opened: list[Opened] = []
        with contextlib.ExitStack() as held:
            for source in sources:
                opened.append(open_source(source))
                held.callback(opened[-1].close)
            box = cls([tool for one in opened for tool in one.tools], **options)
            box._shared.held = held.pop_all()
        box.refused = {name: reason for one in opened for name, reason in one.refused.items()}
        return box

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """The specifications of the tools for a model."""
        return tuple(tool.spec for tool in self._tools.values())

    def also(self, *tools: Tool | Callable[..., Any]) -> Toolbox:
        """A box for one conversation, with additional tools, such as the conversation's interpreter, and with its own
        permissions. It is closed together with the original box; its own `close` does nothing.

        Raises:
            ToolError: a function cannot be a tool, or two tools have the same name.
        """
        made = Toolbox(
            (), seconds=self._seconds, characters=self._characters, whole=self._whole, together=self._together
        )
        made._tools, made.refused = dict(self._tools), self.refused
        made._shared, made._owner = self._shared, False
        made._add(tools)
        return made

    def only(self, *names: str) -> Toolbox:
        """A box for one conversation, with only these tools."""
        made = self.also()
        made._tools = {name: tool for name, tool in self._tools.items() if name in names}
        return made

    def tool(self, name: str) -> Tool | None:
        """The tool of this name. Spaces around it, `functions.` in front of it, and upper or lower case do not
        matter, if only one tool can be meant. `python`, GLM-4's name for the interpreter, means the interpreter, too.
        None: there is no such tool.
        """
        if found := self._tools.get(name):
            return found
        if len(name) > 200:
            return None
        plain = _folded(name)
        if plain in (INTERPRETER, "python"):
            builtin = [tool for tool in self._tools.values() if tool.spec.builtin == "python"]
            if builtin:
                return builtin[0]
        meant = [tool for known, tool in self._tools.items() if _folded(known) == plain]
        return meant[0] if len(meant) == 1 else None

    async def call(self, asked: ToolCall, permit: Permit | None = None) -> Outcome:
        """Carry out a call. Any error becomes an outcome, which the model can read.

        Args:
            permit: asks a person, if the tool's consent requires it; without it the call of such a tool is refused.

        Raises:
            CancelledError: the caller was cancelled.
        """
        (outcome,) = await self.call_all([asked], permit)
        return outcome

    async def call_all(self, asked: Sequence[ToolCall], permit: Permit | None = None) -> list[Outcome]:
        """`call` for the calls of one turn: some at the same time; outcomes in the order of the calls. People are
        asked about one call after the other, while calls that need no consent, or already have it, run."""
        room = asyncio.Semaphore(self._together)

        async def within(tool: Tool, arguments: Any) -> Outcome:
            async with room:
                return await self._timed(tool, arguments)

        made: list[asyncio.Task[Outcome] | Outcome] = []
        try:
            for number, one in enumerate(asked):
                if number >= MOST_CALLS:
                    made.append(one_too_many())
                    continue
                ready = await self._ready(one, permit)
                if isinstance(ready, Outcome):
                    made.append(self._cut(ready))
                else:
                    made.append(asyncio.ensure_future(within(*ready)))
            if running := [one for one in made if isinstance(one, asyncio.Task)]:
                # Awaiting a single task would cancel only that task, and others would begin in its place.
                await asyncio.wait(running)
            return [one if isinstance(one, Outcome) else one.result() for one in made]
        finally:
            for task in made:
                if isinstance(task, asyncio.Task):
                    task.cancel()

    def call_now(self, asked: Sequence[ToolCall], permit: Permit | None = None) -> list[Outcome]:
        """`call_all` for callers without an event loop: it runs in an event loop of the box, in a thread."""
        if not self._shared.closed:
            with contextlib.suppress(concurrent.futures.CancelledError):  # it was closed meanwhile
                return self._shared.loop.run(self.call_all(asked, permit))
        return [failed(_CLOSED) for _ in asked]

    async def _ready(self, asked: ToolCall, permit: Permit | None) -> tuple[Tool, Any] | Outcome:
        """The tool and the checked arguments of a call; or, if it must not be carried out, the reason as an outcome."""
        try:
            return await self._permitted(asked, permit)
        except (Exception, SystemExit) as error:  # of a check in a user's own type, or of an object that is not a call
            return failed(failure(error))

    async def _permitted(self, asked: ToolCall, permit: Permit | None) -> tuple[Tool, Any] | Outcome:
        if self._shared.closed:
            return failed(_CLOSED)
        tool = self.tool(asked.name)
        if tool is None:
            return failed(self._unknown(asked.name))
        name = tool.spec.name
        if asked.cut:
            return failed(f"Arguments of {name} are not a JSON object; they may have been cut short.")
        if problem := too_large(asked.arguments):
            return failed(f"Arguments of {name} are {problem}.")
        arguments = copy.deepcopy(dict(asked.arguments))  # a permitted call cannot be changed before it runs
        try:  # before a person is asked
            if isinstance(tool, Function):
                arguments = tool.bind(arguments)
            elif problem := getattr(tool, "problem", _no_problem)(arguments):
                return failed(f"Arguments of {name} are wrong ({problem}).")
        except InputError as error:
            return failed(f"Arguments of {name} are wrong ({error}).")
        if tool.consent is Consent.ALWAYS or (tool.consent is Consent.ONCE and name not in self._granted):
            if permit is None:
                return failed(f"{name} may only be used when a person permits it, and there is nobody to ask.")
            try:
                permitted = await permit(asked, tool)
            except Exception as error:
                return failed(f"{name} was not used: nobody could be asked ({failure(error)}).")
            if not permitted:
                return failed(f"{name} was not used: the user did not permit it.")
            self._granted.add(name)
        if self._shared.threads.abandoned >= _MOST_ABANDONED:
            return failed(f"{name} was not used: {_MOST_ABANDONED} calls before it have hung, and tools are off.")
        return tool, arguments

    def _unknown(self, name: str) -> str:
        if reason := self.refused.get(name.strip()):
            return f"Tool `{name.strip()}` is not offered: {reason}."
        offered = ", ".join(list(self._tools)[:40]) or "none"
        return f"Tool `{shown(name)[1:-1]}` not found. Please use a provided tool: {offered}."

    async def _timed(self, tool: Tool, arguments: Any) -> Outcome:
        begun = time.perf_counter()
        seconds = float(getattr(tool, "seconds", 0) or self._seconds)
        task = asyncio.ensure_future(self._run(tool, arguments))
        try:
            await asyncio.wait({task}, timeout=seconds)
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=_GRACE)
                if not task.done():
                    self._shared.threads.abandon(task)
                outcome = failed(f"{tool.spec.name} did not end within {seconds:g} seconds and was given up.")
            else:
                outcome = failed(f"{tool.spec.name} was cancelled.") if task.cancelled() else task.result()
        finally:
            task.cancel()
        return replace(self._cut(outcome), seconds=time.perf_counter() - begun)

    async def _run(self, tool: Tool, arguments: Any) -> Outcome:
        try:
            if isinstance(tool, Function):
                return await tool.carry_out(arguments, self._shared.threads.run)
            outcome = await tool.run(arguments)
            return outcome if isinstance(outcome, Outcome) else failed(f"{tool.spec.name} answered nothing.")
        except asyncio.CancelledError:
            raise
        except InputError as error:
            return failed(f"Arguments of {tool.spec.name} are wrong ({error}).")
        except BaseException as error:  # SystemExit in a task would end the event loop
            return failed(failure(error))

    def _cut(self, outcome: Outcome) -> Outcome:
        try:
            return cut(outcome, self._characters, self._whole)
        except Exception as error:  # a tool's outcome without a text or a list of pictures
            return failed(failure(error)[: self._characters])

    def close(self) -> None:
        """Close the tools' connections and waiting threads. Later calls are refused; calls that run in other event
        loops continue."""
        if not self._owner or self._shared.closed:
            return
        self._shared.closed = True
        self._shared.held.callback(self._shared.loop.close)
        self._shared.held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _no_problem(arguments: Any) -> str:
    return ""


def _is_tool(given: Any) -> bool:
    return isinstance(getattr(given, "spec", None), ToolSpec) and callable(getattr(given, "run", None))


def _folded(name: str) -> str:
    plain = name.strip().strip("`'\"").casefold().replace("-", "_")
    for front in ("functions.", "tools."):
        plain = plain.removeprefix(front)
    return plain


def one_too_many() -> Outcome:
    """The outcome of a call after the first `MOST_CALLS` of a turn."""
    return failed(f"Not carried out: more than {MOST_CALLS} calls at once.")
