"""Tools that this server runs itself, for requests that ask for them by name.

A request names them (`server_tools`, or `code_interpreter` of the Responses API). Then the server carries out the
model's calls of these tools, and the client gets an answer that uses the results, and a list of the calls. The client
still carries out calls of its own tools.
"""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from chatglm.assistant import BaseAssistant, CallDelta, Called, Delta, Finish, Options, Start, TextDelta, Usage
from chatglm.chat.messages import INTERPRETER, Message, ToolCall, ToolSpec
from chatglm.errors import InputError, NotFoundError
from chatglm.knowledge.tool import SEARCH, SEARCH_KNOWLEDGE, SearchKnowledge
from chatglm.serving.access.callers import Caller
from chatglm.serving.metrics import Metrics
from chatglm.tools.tool import Consent
from chatglm.tools.toolbox import Toolbox

if TYPE_CHECKING:
    from chatglm.knowledge import Bases, Shelf
    from chatglm.tools.interpreter.pool import Kernels
    from chatglm.tools.tool import Tool

__all__ = ["Calling", "Said", "ServerToolNames", "ServerTools", "new_container", "pictures", "report"]

ServerToolNames = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=1200)]],
    Field(
        max_length=64,
        description="tools of the server that the model may call: the server runs them, and then sends the answer; "
        f"`{INTERPRETER}` is the code interpreter, for API keys that may use it; `{SEARCH}` searches all bases of "
        f"documents that the caller may read, `{SEARCH}:NAME+NAME` only these",
    ),
]


PICTURES = 8 << 20
"""Most bytes of pictures in one answer."""


@dataclass(frozen=True)
class Calling:
    """A call that is about to be carried out here."""

    call: ToolCall
    choice: int = 0


Said = Delta | Calling | Called
"""The parts of an answer if the server runs tools. A `Finish` is for all rounds together."""


class ServerTools:
    """The tools that a server runs, and who may use them.

    Args:
        permit: raises where a caller may not do an action (`Service.permit`).
        toolbox: the tools but the interpreter; None: none.
        kernels: where the interpreter's code runs; None: there is none.
        without_asking: offer tools that need a person's consent, too: on a server there is nobody to ask.
        shelf: bases of documents; a caller may search those that it may read; None: there are none.
    """

    def __init__(
        self,
        permit: Callable[[Caller, str], None],
        metrics: Metrics,
        toolbox: Toolbox | None = None,
        kernels: Kernels | None = None,
        without_asking: bool = False,
        shelf: Shelf | None = None,
    ) -> None:
        self._shelf = shelf
        self._permit, self._metrics, self.kernels = permit, metrics, kernels
        self._box = Toolbox() if toolbox is None else toolbox
        self._without_asking = without_asking

    @property
    def names(self) -> list[str]:
        """Names of the tools that requests may ask for."""
        listed = [tool.name for tool in self._box.specs if self._needs_nobody(self._box.tool(tool.name))]
        searching = [SEARCH] if self._shelf is not None and SEARCH not in listed else []
        return [*listed, *searching, *([INTERPRETER] if self.kernels is not None else [])]

    def _needs_nobody(self, tool: Tool | None) -> bool:
        return tool is not None and (self._without_asking or tool.consent is Consent.NEVER)

    def check(self, caller: Caller, names: Sequence[str], options: Options) -> None:
        """Check that a request may use these tools.

        Raises:
            InputError: there is no such tool, or another field does not go with tools of the server.
            ForbiddenError: the caller's key may not use it.
        """
        known = self.names
        for name in map(_plain, names):
            if name not in known:
                raise InputError(f"server_tools: {self._why_not(name)}")
        searched, others = self._divided(names)
        if len(searched) > 1:
            raise InputError(
                f"server_tools: {SEARCH} is given {len(searched)} times; give it once, with all bases, joined by +"
            )
        for action, wanted in (("interpreter", INTERPRETER in names), ("tools", any(n != INTERPRETER for n in others))):
            if wanted:
                self._permit(caller, action)
        params = options.get("params")
        if names and isinstance(params, Mapping) and params.get("n", 1) != 1:
            raise InputError("n: must be 1 where the server runs tools")
        given = {tool.name for tool in ToolSpec.list_from(options.get("tools") or ())}
        if both := given.intersection(map(_plain, names)):
            raise InputError(f"tools: {min(both)!r:.80} is asked for in server_tools, too; leave one of them out")

    def _divided(self, names: Sequence[str]) -> tuple[list[str], list[str]]:
        """Divide names into those that search bases of documents, and the others."""
        if self._shelf is None or self._box.tool(SEARCH) is not None:
            return [], list(names)
        searched = [name for name in names if _plain(name) == SEARCH]
        return searched, [name for name in names if name not in searched]

    def _searching(self, name: str, who: str | None) -> SearchKnowledge:
        shelf = self._shelf
        assert shelf is not None
        named = [base for base in name.removeprefix(SEARCH).removeprefix(":").split("+") if base]

        def bases() -> Bases:
            if not (found := named or shelf.names(who)):
                raise NotFoundError("there is no knowledge base that this caller may read")
            return shelf.bases(found, who)

        return SearchKnowledge(bases)

    def _why_not(self, name: str) -> str:
        if name == SEARCH:
            return "this server has no knowledge bases; start it with `chatglm serve --knowledge`"
        if not self.names:
            return (
                f"{name!r:.80} is asked for, but this server runs no tools; start it with `chatglm serve --tools FILE` "
                "or `--interpreter`"
            )
        if name == INTERPRETER:
            return "this server has no interpreter; start it with `chatglm serve --interpreter`"
        if name in {tool.name for tool in self._box.specs}:
            return (
                f"{name} needs a person's consent, and on a server there is nobody to ask; its owner may allow it with "
                "`chatglm serve --tools-without-asking`"
            )
        return f"{name!r:.80} is not a tool of this server; available: {', '.join(self.names)}"

    def interpreter(self, caller: Caller) -> tuple[Kernels, str]:
        """Where the code of a caller's requests runs, and which user of the kernels the caller is.

        Raises:
            NotFoundError: this server has no interpreter.
            ForbiddenError: the caller's key may not use it.
        """
        if self.kernels is None:
            raise NotFoundError("this server has no interpreter; start it with `chatglm serve --interpreter`")
        self._permit(caller, "interpreter")
        return self.kernels, _user(caller)

    def shown(self, options: Options, names: Sequence[str]) -> Options:
        """The same options as the model's prompt has them: with these tools."""
        if not names:
            return options
        specs = [spec for name in names if (spec := self._spec(name)) is not None]
        return {**options, "tools": [*specs, *ToolSpec.list_from(options.get("tools") or ())]}

    def _spec(self, name: str) -> ToolSpec | None:
        if name in self._divided([name])[0]:
            return SEARCH_KNOWLEDGE
        tool = self._box.tool(name)
        return ToolSpec({"type": "python"}) if name == INTERPRETER else None if tool is None else tool.spec

    async def run(
        self,
        assistant: BaseAssistant,
        messages: Sequence[Message],
        options: Options,
        names: Sequence[str],
        caller: Caller,
        container: str,
        keep: bool,
        spent: Callable[[Usage], None],
    ) -> AsyncGenerator[Said]:
        """The answer as it comes, with the help of these tools. If the reader stops, running tools are ended.

        Args:
            container: names the interpreter's files and variables; those of another user are others.
            keep: whether they stay when the answer is whole.
            spent: gets the tokens of the rounds that were whole, if the answer breaks off.
        """
        user = _user(caller)
        searched, others = self._divided(names)
        box = self._box.only(*(name for name in others if name != INTERPRETER))
        box = box.also(*(self._searching(name, caller.owner or None) for name in searched))
        if INTERPRETER in names:
            from chatglm.tools.interpreter.tool import Interpreter

            assert self.kernels is not None
            box = box.also(Interpreter(self.kernels, container, user=user))
        own = {tool.name for tool in ToolSpec.list_from(options.get("tools") or ())}
        told, room, whole = _Told(), PICTURES, False
        try:
            happenings = assistant.astream_run(messages, box, permit=_permitted, **options)
            async with aclosing(happenings):
                async for one in happenings:
                    match one:
                        case Message():
                            for call in one.tool_calls:
                                if call.name not in own:
                                    yield Calling(call)
                        case Called():
                            tool = box.tool(one.call.name)
                            self._metrics.note_call("unknown" if tool is None else tool.spec.name, one.outcome.failed)
                            one, room = _within(one, room)
                            yield one
                        case _:
                            for delta in told.take(one, own):
                                yield delta
            whole = True
            yield told.finish()
        finally:
            if not whole and told.usage is not None:
                spent(told.usage)
            if INTERPRETER in names and not keep and self.kernels is not None:
                await self.kernels.end(container, user=user)


def _plain(name: str) -> str:
    """The name of a tool without the bases that it searches."""
    return SEARCH if name.startswith(f"{SEARCH}:") else name


def _user(caller: Caller) -> str:
    return caller.owner or caller.client


def _within(called: Called, room: int) -> tuple[Called, int]:
    """A call with as many of its pictures as fit, and the room that is left.

    Args:
        room: bytes.
    """
    outcome, kept = called.outcome, 0
    for picture in outcome.pictures:
        if len(picture) > room:
            break
        room, kept = room - len(picture), kept + 1
    if left := len(outcome.pictures) - kept:
        text = f"{outcome.text}\n[{left} pictures left out: one answer has at most {PICTURES >> 20} MiB of them]"
        called = replace(called, outcome=replace(outcome, text=text, pictures=outcome.pictures[:kept]))
    return called, room


async def _permitted(asked: ToolCall, tool: Tool) -> bool:
    return True  # `check` lets no others pass


def new_container() -> str:
    """An id for an interpreter's files and variables. Nobody can guess it."""
    return f"cntr_{secrets.token_hex(24)}"


class _Told:
    """Deltas of several rounds as those of one answer."""

    def __init__(self) -> None:
        self._finish: Finish | None = None
        self._notes: dict[str, None] = {}
        self._text = self._started = False  # whether there was text; a `Start`
        self._between = False  # whether the text that comes next is that of a new round
        self._calls: dict[int, int] = {}  # of the client's own calls: their numbers among all, and among these

    def take(self, delta: Delta, own: set[str]) -> list[Delta]:
        match delta:
            case Start():
                shown, self._started = [] if self._started else [delta], True
                return list(shown)
            case TextDelta():
                lead = "\n" if self._between else ""
                self._text, self._between = True, False
                return [replace(delta, text=lead + delta.text)]
            case CallDelta():
                if delta.name in own:
                    self._calls[delta.index] = len(self._calls)
                number = self._calls.get(delta.index)
                return [] if number is None else [replace(delta, index=number)]
            case Finish():
                self._add(delta)
                return []
        return [delta]

    def _add(self, finish: Finish) -> None:
        before = self._finish
        if finish.note:
            self._notes[finish.note] = None
        if before is not None:
            usage = Usage(
                before.usage.prompt_tokens + finish.usage.prompt_tokens,
                before.usage.completion_tokens + finish.usage.completion_tokens,
                before.usage.cached_tokens + finish.usage.cached_tokens,
            )
            finish = replace(finish, usage=usage, first_seconds=before.first_seconds)
        self._finish = finish
        self._between = self._text
        if finish.reason == "tool_calls" and not self._calls:
            self._finish = replace(finish, reason="stop")

    @property
    def usage(self) -> Usage | None:
        """Of the rounds so far."""
        return None if self._finish is None else self._finish.usage

    def finish(self) -> Finish:
        assert self._finish is not None
        return replace(self._finish, note="; ".join(self._notes))


def report(called: Called) -> dict[str, Any]:
    """A call that was carried out here, for clients: as a `tool_calls` entry, with what the model was told."""
    outcome = called.outcome
    return {
        **called.call.to_dict(),
        "output": outcome.text,
        "failed": outcome.failed,
        "seconds": round(outcome.seconds, 3),
    }


def pictures(called: Called) -> list[str]:
    """The pictures that came of a call, as URLs."""
    return [f"data:image/png;base64,{b64encode(picture).decode()}" for picture in called.outcome.pictures]
