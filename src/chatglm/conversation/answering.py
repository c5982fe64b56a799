"""One answer of a conversation, from the question to the last turn, in every mode: rounds of model and tools.

What happens is told as events and stored as it comes: text about once a second, whatever ends at once. Whatever goes
wrong ends this answer with `Failed`, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from chatglm.assistant.base import (
    MAX_ROUNDS,
    BaseAssistant,
    CallDelta,
    Delta,
    Finish,
    Options,
    Rounds,
    TextDelta,
    made_too_often,
    params_of,
)
from chatglm.chat.messages import INTERPRETER, Message, ToolCall
from chatglm.conversation.events import (
    Answered,
    Asked,
    Began,
    Called,
    Calling,
    Done,
    Event,
    Failed,
    Note,
    Text,
)
from chatglm.conversation.log import EventLog
from chatglm.conversation.settings import Settings
from chatglm.conversation.store import Store
from chatglm.conversation.tree import Turn
from chatglm.errors import ChatGLMError, InputError, UnsupportedError
from chatglm.tools.interpreter.pool import Kernels
from chatglm.tools.tool import Outcome, Tool
from chatglm.tools.toolbox import Toolbox

__all__ = ["Answering", "Models", "Parts"]

T = TypeVar("T")
Models = Mapping[str, BaseAssistant] | Callable[[Settings], Awaitable[BaseAssistant]]

KEEP_SECONDS = 1.0
"""Between two times that an open turn is stored."""
_GRACE = 5.0
"""Seconds that what is cancelled has to end."""
_TOGETHER = 4
"""Calls of one turn that run at the same time."""
_STOPPED = "Stopped by the user."


@dataclass(frozen=True)
class Parts:
    """What all conversations of a process share."""

    models: Models
    store: Store
    toolbox: Toolbox | None
    kernels: Kernels | None
    folder: Path | None
    knowledge: Any

    async def assistant(self, settings: Settings) -> BaseAssistant:
        """
        Raises:
            InputError: there is no such model or adapter.
        """
        if callable(self.models):
            found = await self.models(settings)
        else:
            name = settings.model or next(iter(self.models), "")
            if name not in self.models:
                raise InputError(f"model: no {name!r:.80}; there are {', '.join(self.models) or 'none'}")
            found = self.models[name]
        if settings.adapter and settings.adapter not in found.adapters:
            raise InputError(f"adapter: no {settings.adapter!r:.80}; there are {', '.join(found.adapters) or 'none'}")
        return found


@dataclass
class _Open:
    """A turn that is being written."""

    turn: Turn
    texts: list[str] = field(default_factory=list)
    calls: dict[int, list[str]] = field(default_factory=dict)  # name, arguments
    kept: int = 0  # pieces that are stored
    pieces: int = 0

    def message(self) -> Message:
        """What there is."""
        text = "".join(self.texts)
        calls = (
            ToolCall.from_dict({"name": name or "?", "arguments": arguments}) for name, arguments in self.calls.values()
        )
        return replace(self.turn.message, content=text, tool_calls=tuple(calls))


class Answering:
    """
    Args:
        question: a user's turn, which is stored already.
        log: is told what happens.
        granted: tools that the person lets run without being asked again; more may come.
    """

    def __init__(
        self,
        parts: Parts,
        user: int,
        conversation: str,
        settings: Settings,
        question: Turn,
        log: EventLog,
        granted: set[str],
    ) -> None:
        self._parts, self._user, self._conversation, self._settings = parts, user, conversation, settings
        self._question, self._granted = question, granted
        self.log = log
        self._open: dict[int, _Open] = {}
        self._leaf = question.id
        self._finish: Finish | None = None
        self._begun = time.perf_counter()
        self._first = 0.0
        self._waiting: dict[str, tuple[str, asyncio.Future[Any]]] = {}
        self._halt = asyncio.Event()
        self._stopped = False

    async def run(self) -> None:
        """Make the answer. Raises nothing; the last event is `Done` or `Failed`."""
        work = asyncio.ensure_future(self._answer())
        keeping = asyncio.ensure_future(self._keep_on())
        halted = asyncio.ensure_future(self._halt.wait())
        ended: Event = Failed(turn=None, message="the program ended")
        try:
            with contextlib.suppress(asyncio.CancelledError):  # the event loop is being closed
                await asyncio.wait({work, keeping, halted}, return_when=asyncio.FIRST_COMPLETED)
            work.cancel()
            await asyncio.wait({work}, timeout=_GRACE)
            self._stopped = not work.done() or work.cancelled()
            error = next((t.exception() for t in (keeping, work) if t.done() and not t.cancelled()), None)
            keeping.cancel()
            ended = await self._end(error)
        finally:
            for task in (work, keeping, halted):
                task.cancel()
            self.log.add(ended)

    def stop(self) -> None:
        """End it. What there is is kept."""
        self._halt.set()

    def permit(self, call: str, yes: bool, always: bool) -> None:
        """
        Raises:
            InputError: this call waits for no permission.
        """
        self._reply(call, "permission", (yes, always))

    def observe(self, call: str, text: str) -> None:
        """
        Raises:
            InputError: this call waits for no observation.
        """
        self._reply(call, "observation", text)

    def _reply(self, call: str, wants: str, value: Any) -> None:
        wanted, future = self._waiting.get(call, ("", None))
        if future is None or wanted != wants or future.done():
            raise InputError(f"call {call!r:.80}: does not wait for {'a' if wants[0] == 'p' else 'an'} {wants}")
        future.set_result(value)

    async def _ask(self, call: str, wants: Any) -> Any:
        """Wait for what a person says."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[call] = wants, future
        self.log.add(Asked(call=call, wants=wants))
        try:
            return await future
        finally:
            del self._waiting[call]

    # Storing

    async def _stored(self, method: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Call a method of the store about this conversation, in a thread."""
        return await asyncio.to_thread(method, self._user, self._conversation, *arguments, **named)

    async def _begin(self, message: Message) -> _Open:
        """Open a turn behind the last one."""
        store = self._parts.store
        turn = await self._stored(store.add, message, parent=self._leaf, finish=None)
        place = (await self._stored(store.tree)).place(turn.id)
        self._leaf = turn.id
        opened = self._open[turn.id] = _Open(turn)
        role: Any = message.role
        self.log.add(Began(turn=turn.id, parent=turn.parent, role=role, place=place))
        return opened

    async def _close(self, opened: _Open, message: Message, finish: str) -> None:
        del self._open[opened.turn.id]
        await self._stored(self._parts.store.finish, opened.turn.id, message, finish)

    async def _keep_on(self) -> None:
        """Store open turns about once a second, until something goes wrong."""
        while True:
            await asyncio.sleep(KEEP_SECONDS)
            for opened in list(self._open.values()):
                if opened.pieces > opened.kept:
                    opened.kept = opened.pieces
                    await self._stored(self._parts.store.keep, opened.turn.id, opened.message())

    async def _end(self, error: BaseException | None) -> Event:
        """The last event, once all turns are closed."""
        for opened in list(self._open.values()):
            message = opened.message()
            if message.role == "observation":
                message = replace(message, content=f"{message.content}\n{_STOPPED}".lstrip("\n"))
            try:
                await self._close(opened, message, "stopped")
            except Exception as failure:
                error = error or failure
        if error is not None:
            return Failed(turn=self._leaf if self._leaf != self._question.id else None, message=_said(error))
        usage = self._finish.usage if self._finish else None
        return Done(
            turn=self._leaf,
            finish="stopped" if self._stopped or self._finish is None else self._finish.reason,
            prompt_tokens=usage.prompt_tokens if usage else 0,
            cached_tokens=usage.cached_tokens if usage else 0,
            completion_tokens=usage.completion_tokens if usage else 0,
            first_seconds=self._first,
            seconds=time.perf_counter() - self._begun,
        )

    # Answering

    async def _answer(self) -> None:
        settings = self._settings
        if settings.mode != "chat":
            raise UnsupportedError(f"mode {settings.mode}: is not there yet")
        assistant = await self._parts.assistant(settings)
        path = (await self._stored(self._parts.store.tree)).path(self._question.id)
        messages = [turn.message for turn in path]
        if settings.system:
            messages.insert(0, Message("system", settings.system))
        options: Options = {
            "params": params_of(settings.params, replace(assistant.defaults, n=1)),
            "client": str(self._user),
        }
        if settings.adapter:
            options["adapter"] = settings.adapter
        await self._rounds(assistant, messages, options, None)

    async def _rounds(
        self, assistant: BaseAssistant, messages: Sequence[Message], options: Options, box: Toolbox | None
    ) -> None:
        rounds = Rounds(messages, box.specs if box is not None else (), MAX_ROUNDS, options)
        while rounds.go_on:
            opened = await self._begin(Message("assistant"))
            async with aclosing(assistant.astream(rounds.messages, **rounds.options)) as deltas:
                async for delta in deltas:
                    self._hear(opened, rounds.hear(delta))
            message = rounds.message()
            self._finish = finish = rounds.finish
            assert finish is not None
            await self._close(opened, message, finish.reason)
            if finish.note:
                self.log.add(Note(code="left_out" if "left out" in finish.note else "model", text=finish.note))
            for call in message.tool_calls:
                code = _code(call)
                arguments = call.to_dict()["function"]["arguments"] if code is None else code
                self.log.add(
                    Called(
                        turn=opened.turn.id, call=call.id, name=call.name, arguments=arguments, code=code is not None
                    )
                )
            if rounds.asked:
                assert box is not None
                outcomes = await self._carry_out(box, rounds.asked, rounds.due)
                for _ in rounds.results([outcomes[call.id] for call in rounds.due]):
                    pass

    def _hear(self, opened: _Open, delta: Delta) -> None:
        if isinstance(delta, TextDelta | CallDelta) and not self._first:
            self._first = time.perf_counter() - self._begun
        if isinstance(delta, TextDelta) and delta.text:
            opened.texts.append(delta.text)
            opened.pieces += 1
            self.log.add(Text(turn=opened.turn.id, text=delta.text))
        elif isinstance(delta, CallDelta):
            call = opened.calls.setdefault(delta.index, ["", ""])
            call[0] += delta.name
            call[1] += delta.arguments
            opened.pieces += 1
            self.log.add(Calling(turn=opened.turn.id, index=delta.index, name=delta.name, arguments=delta.arguments))

    # Tools

    async def _carry_out(self, box: Toolbox, asked: Sequence[ToolCall], due: Sequence[ToolCall]) -> dict[str, Outcome]:
        """Outcomes of the calls, by their ids. Each is told when it is there."""
        opened = [await self._begin(Message("observation", tool_call_id=call.id)) for call in asked]
        room = asyncio.Semaphore(_TOGETHER)
        outcomes: dict[str, Outcome] = {}

        async def one(call: ToolCall, turn: _Open) -> None:
            async with room:
                outcome = await self._outcome(box, call, room) if call in due else made_too_often(call)
            await self._close(turn, replace(turn.turn.message, content=outcome.text), "stop")
            outcomes[call.id] = outcome
            self.log.add(
                Answered(
                    turn=turn.turn.id,
                    call=call.id,
                    text=outcome.text,
                    whole=outcome.whole,
                    failed=outcome.failed,
                    seconds=outcome.seconds,
                )
            )

        tasks = [asyncio.ensure_future(one(*pair)) for pair in zip(asked, opened, strict=True)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_GRACE)
        for task in tasks:
            task.result()
        return outcomes

    async def _outcome(self, box: Toolbox, call: ToolCall, room: asyncio.Semaphore) -> Outcome:
        async def permit(asked: ToolCall, tool: Tool) -> bool:
            name = tool.spec.name
            if name in self._granted:
                return True
            room.release()  # others may run meanwhile
            try:
                yes, always = await self._ask(asked.id, "permission")
            finally:
                await room.acquire()
            if yes and always:
                self._granted.add(name)
            return bool(yes)

        return await box.call(call, permit)


def _code(call: ToolCall) -> str | None:
    """The code of a call of the interpreter."""
    code = call.arguments.get("code")
    return code if call.name == INTERPRETER and isinstance(code, str) else None


def _said(error: BaseException) -> str:
    if isinstance(error, ChatGLMError):
        return str(error)
    return re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:400]
