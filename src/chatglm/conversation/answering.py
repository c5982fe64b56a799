"""Makes one answer of a conversation, in every mode: from the question through rounds of model and tools to the last
turn.

Everything is sent to readers as events, and stored as it arrives: text about once a second, ends of turns at once. An
error ends only this answer, with `Failed`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, TypeVar

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
from chatglm.chat.messages import INTERPRETER, Message, ToolCall, ToolSpec
from chatglm.conversation.events import (
    Answered,
    Asked,
    Began,
    Called,
    Calling,
    Cited,
    Done,
    Event,
    Failed,
    Note,
    Output,
    Source,
    Sources,
    Text,
)
from chatglm.conversation.files import Digest, Files
from chatglm.conversation.log import EventLog
from chatglm.conversation.memory import due, extended
from chatglm.conversation.prompts import Told, character_of, groups_of, manual_tools, told, without_oldest
from chatglm.conversation.settings import Settings
from chatglm.conversation.store import FileKind, Question, Store
from chatglm.conversation.tree import Turn
from chatglm.errors import ChatGLMError, ContextError, InputError, UnsupportedError
from chatglm.tools.interpreter.kernel import RESTARTED
from chatglm.tools.interpreter.pool import Kernels
from chatglm.tools.interpreter.tool import Interpreter
from chatglm.tools.tool import Consent, Outcome, Tool
from chatglm.tools.toolbox import MOST_CALLS, Toolbox, one_too_many

__all__ = ["Answering", "Knowledge", "Models", "Parts"]

T = TypeVar("T")
Models = Mapping[str, BaseAssistant] | Callable[[Settings], Awaitable[BaseAssistant]]

KEEP_SECONDS = 1.0
"""Seconds between two times at which an open turn is stored."""
_READ_SECONDS = 60.0
"""Seconds after the end of an answer during which its single events are kept. Then pieces of text are joined."""
_KEPT_SECONDS = 600.0
"""Seconds after the end of an answer during which its events are kept for readers that come back."""
_GRACE = 5.0
"""Seconds that cancelled work gets to end."""
_TOGETHER = 4
"""Most calls of one turn that run at the same time."""
_OBSERVED = 64 << 10
"""Most characters of a call's result that is given by a person."""
_STOPPED = "Stopped by the user."
_INTERPRETERS = (INTERPRETER, "python")
_DEFAULTS = Settings()
_CODE_BEGINS = re.compile(r'\s*\{\s*"code"\s*:\s*"')
# In a JSON string, one half of a surrogate pair waits for the other half; alone it is not text.
_CODE_GOES_ON = re.compile(
    r'(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}'
    r"|\\u(?![dD][89abcdefABCDEF])[0-9a-fA-F]{4})*"
)


class Knowledge(Protocol):
    """Interface for answers from documents; see `documents.Documents`."""

    def known(self, user: int | None) -> Sequence[tuple[str, int]]:
        """Names of the bases that a user may ask, each with its number of documents.

        Args:
            user: None: a person whom the store does not know yet.
        """

    def answer(
        self,
        assistant: BaseAssistant | None,
        question: str,
        *,
        history: Sequence[Message],
        bases: Sequence[str],
        user: int,
        options: Options,
        language: str,
    ) -> AsyncGenerator[tuple[Source, ...] | Cited | Delta]:
        """Answer a question from documents. Yields first the passages that the model gets, then the answer's deltas.
        The last delta is its `Finish`; a `Cited`, which says what the text rests on, may come before it.

        Args:
            assistant: None: the answer consists of the best sentences of the documents.
            history: messages before the question, with a system message if there is one.
            bases: names; empty: all bases that the user may read.
            options: for the assistant.
            language: "zh" or "en"; "" if nobody chose.
        """

    def tool(self, bases: Sequence[str], user: int) -> Tool:
        """A search in these bases, as a tool for the mode `tools`. Each call checks what the user may read."""


@dataclass(frozen=True)
class Parts:
    """Objects that all conversations of a process share."""

    models: Models
    store: Store
    toolbox: Toolbox
    kernels: Kernels | None
    files: Files
    knowledge: Knowledge | None

    def check(self, settings: Settings) -> None:
        """Check settings against what exists in this process.

        Raises:
            InputError: the settings need or name something that does not exist here; the message names the field.
        """
        settings.check()
        if settings.mode == "tools":
            known = [tool.name for tool in self.toolbox.specs]
            for name in settings.tools or ():
                if name not in known:
                    raise InputError(f"tools: there is no {name!r:.80}; known: {', '.join(known) or 'none'}")
            if settings.manual.strip():
                manual_tools(settings.manual)
        if settings.mode == "code" and self.kernels is None:
            raise InputError("mode: code needs the interpreter, but this program was started without it")
        if settings.mode == "documents" and self.knowledge is None:
            raise InputError("mode: documents needs a knowledge base, but there is none")
        character_of(settings)

    def tools(self, settings: Settings) -> tuple[ToolSpec, ...]:
        """The tools that the model is told about.

        Raises:
            ToolError: the text of tools whose calls a person answers cannot be read.
        """
        if settings.mode == "code":
            return (Interpreter.spec,)
        if settings.mode != "tools":
            return ()
        if settings.manual.strip():
            return manual_tools(settings.manual)
        return self.box(settings, 0).specs

    def box(self, settings: Settings, user: int) -> Toolbox:
        """The tools that are switched on; if the settings name bases of documents, also a search in them."""
        names = [tool.name for tool in self.toolbox.specs] if settings.tools is None else settings.tools
        box = self.toolbox.only(*names)
        if settings.mode == "tools" and settings.knowledge and self.knowledge is not None:
            searching = self.knowledge.tool(settings.knowledge, user)
            if box.tool(searching.spec.name) is None:
                box = box.also(searching)
        return box

    async def checked(self, settings: Settings, before: Settings = _DEFAULTS) -> None:
        """Do what `check` does, and also check that a changed model or adapter exists, as far as this is known without
        loading one. Unchanged settings are not checked, because a conversation from another program may name other
        models.

        Raises:
            InputError: as `check`; or there is no such model or adapter.
        """
        await asyncio.to_thread(self.check, settings)
        if callable(self.models):
            return
        if settings.model != before.model and settings.model and settings.model not in self.models:
            raise InputError(f"model: there is no {settings.model!r:.80}; known: {', '.join(self.models) or 'none'}")
        if settings.adapter != before.adapter and settings.adapter:
            known = (await self.assistant(settings)).adapters
            if settings.adapter not in known:
                raise InputError(f"adapter: there is no {settings.adapter!r:.80}; known: {', '.join(known) or 'none'}")

    async def assistant(self, settings: Settings) -> BaseAssistant:
        """The model that answers: the named one, or the first one if that no longer exists.

        Raises:
            InputError: there are no models.
        """
        if callable(self.models):
            return await self.models(settings)
        name = settings.model if settings.model in self.models else next(iter(self.models), "")
        if not name:
            raise InputError("model: there are no models")
        return self.models[name]


class _Code:
    """Reads the code in the arguments of an interpreter call, from their JSON text as it arrives."""

    def __init__(self) -> None:
        self._text, self._within = "", False

    def feed(self, piece: str) -> str:
        """Add a piece of JSON text; returns the code that it contains."""
        self._text += piece
        if not self._within:
            opening = _CODE_BEGINS.match(self._text)
            if opening is None:
                return ""
            self._within, self._text = True, self._text[opening.end() :]
        body = _CODE_GOES_ON.match(self._text)
        assert body is not None
        self._text = self._text[body.end() :]
        return str(json.loads(f'"{body[0]}"'))


@dataclass
class _Call:
    """A call that is being written."""

    name: str = ""
    arguments: list[str] = field(default_factory=list)
    code: _Code = field(default_factory=_Code)


@dataclass
class _Open:
    """A turn that is being written."""

    turn: Turn
    texts: list[str] = field(default_factory=list)
    calls: dict[int, _Call] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    pieces: int = 0  # number of pieces received, and of pieces stored
    kept: int = 0

    def message(self) -> Message:
        """The message as it is now."""
        text = "".join(self.texts)
        calls = (
            ToolCall.from_dict({"name": call.name or "?", "arguments": "".join(call.arguments)})
            for call in self.calls.values()
        )
        return replace(self.turn.message, content=text, tool_calls=tuple(calls))


class Answering:
    """Makes the answer to one question.

    Args:
        question: the question to answer, as the store has it now.
        log: gets the events.
        granted: tools that the person allows to run without asking; more may be added.
    """

    def __init__(
        self,
        parts: Parts,
        user: int,
        settings: Settings,
        question: Question,
        log: EventLog,
        granted: set[str],
    ) -> None:
        self._parts, self._user, self._settings, self._granted = parts, user, settings, granted
        self._conversation = question.conversation.id
        self._tree, self._question, self._files = question.tree, question.turn, question.files
        self.log = log
        self._open: dict[int, _Open] = {}
        self._leaf = question.turn.id
        self._finish: Finish | None = None
        self._asked = time.perf_counter()
        self._first = 0.0
        # Tokens so far, seconds of writing, and the time of this round's first token.
        self._made, self._wrote, self._round = 0, 0.0, 0.0
        self._noted: set[str] = set()
        self._waiting: dict[str, tuple[str, asyncio.Future[Any]]] = {}
        self._box = parts.box(settings, user)
        self._writing = asyncio.Lock()  # one writer for each turn: a finished turn is not stored again
        self._halt = asyncio.Event()
        self._stopped = self._complete = self._over = False

    async def run(self) -> None:
        """Make the answer. Raises no errors; the last event is `Done` or `Failed`."""
        work = asyncio.ensure_future(self._answer())
        keeping = asyncio.ensure_future(self._keep_on())
        halted = asyncio.ensure_future(self._halt.wait())
        ended: Event = Failed(turn=None, message="the program ended")
        try:
            with contextlib.suppress(asyncio.CancelledError):  # the event loop is being closed
                await asyncio.wait({work, keeping, halted}, return_when=asyncio.FIRST_COMPLETED)
            work.cancel()
            await asyncio.wait({work}, timeout=_GRACE)
            self._stopped = not self._complete and (not work.done() or work.cancelled())
            error = next((t.exception() for t in (keeping, work) if t.done() and not t.cancelled()), None)
            keeping.cancel()
            await asyncio.wait({keeping}, timeout=_GRACE)
            ended = await self._end(error)
        finally:
            for task in (work, keeping, halted):
                task.cancel()
            self.log.add(ended)
            loop, log = asyncio.get_running_loop(), self.log
            loop.call_later(_READ_SECONDS, log.settle)
            loop.call_later(_KEPT_SECONDS, log.forget)

    def stop(self) -> None:
        """End the answer. Its text so far is kept."""
        self._halt.set()

    def permit(self, call: str, yes: bool, always: bool) -> None:
        """Say whether a call may run, see `Session.permit`.

        Raises:
            InputError: this call waits for no permission.
        """
        self._reply(call, "permission", (yes, always))

    def observe(self, call: str, text: str) -> None:
        """Say what a call returned, see `Session.observe`.

        Raises:
            InputError: this call waits for no observation, or the text is too long.
        """
        if len(text) > _OBSERVED:
            raise InputError(f"text: longer than {_OBSERVED:,} characters")
        self._reply(call, "observation", text)

    def _reply(self, call: str, wants: str, value: Any) -> None:
        wanted, future = self._waiting.get(call, ("", None))
        if future is None or wanted != wants or future.done():
            raise InputError(f"call {call!r:.80}: does not wait for {'a' if wants[0] == 'p' else 'an'} {wants}")
        future.set_result(value)

    async def _ask(self, call: str, wants: Any, room: asyncio.Semaphore) -> Any:
        """Wait for the answer of a person. Other calls may run in the meantime."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[call] = wants, future
        self.log.add(Asked(call=call, wants=wants))
        room.release()
        try:
            return await future
        finally:
            del self._waiting[call]
            await room.acquire()

    # Storing

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run work that uses the store in a thread. If the task is cancelled, still wait for the end of the work: no
        turn may be added after all turns have been closed.
        """
        task = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # read it, because nobody else will
            raise

    async def _stored(self, method: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Call a method of the store for this conversation."""
        return await self._in_thread(partial(method, self._user, self._conversation, *arguments, **named))

    async def _begin(self, message: Message) -> _Open:
        """Open a turn after the last one."""
        return self._begun(await self._stored(self._parts.store.add, message, parent=self._leaf, finish=None))

    def _begun(self, turn: Turn) -> _Open:
        """Send the event that a turn has been opened."""
        place = len(self._tree.children(self._leaf)) + 1
        self._leaf = turn.id
        opened = self._open[turn.id] = _Open(turn)
        role: Any = turn.message.role
        self.log.add(Began(turn=turn.id, parent=turn.parent, role=role, place=(place, place)))
        return opened

    async def _close(self, opened: _Open, message: Message, finish: str, ends: bool = False) -> None:
        """Store a finished turn.

        Args:
            ends: whether the answer ends with this turn.
        """
        if message.role == "assistant":
            opened.details["seconds"] = round(time.perf_counter() - self._asked, 3)
        number, details = opened.turn.id, opened.details

        def close() -> None:  # it counts as stored even if nobody waits for it any more
            self._parts.store.finish(self._user, self._conversation, number, message, finish, details, ends=ends)
            del self._open[number]
            self._over = ends

        async with self._writing:
            await self._in_thread(close)

    async def _keep_on(self) -> None:
        """Store open turns about once a second, until something fails."""
        while True:
            await asyncio.sleep(KEEP_SECONDS)
            for number, opened in list(self._open.items()):
                async with self._writing:
                    if number in self._open and opened.pieces > opened.kept:
                        opened.kept = opened.pieces
                        await self._stored(self._parts.store.keep, number, opened.message())

    async def _end(self, error: BaseException | None) -> Event:
        """Close all turns; returns the last event."""
        try:
            for opened in list(self._open.values()):
                message = opened.message()
                if message.role == "observation":
                    message = replace(message, content=f"{message.content.rstrip()}\n{_STOPPED}".lstrip())
                    opened.details["failed"] = True
                await self._close(opened, message, "stopped")
                if message.role == "observation":
                    call, text = message.tool_call_id, message.content
                    self.log.add(Answered(turn=opened.turn.id, call=call, text=text, failed=True))
        except Exception as failure:
            error = error or failure
        try:
            if not self._over:
                await self._stored(self._parts.store.end)
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
            completion_tokens=self._made,
            first_seconds=self._first,
            seconds=time.perf_counter() - self._asked,
            writing_seconds=self._wrote,
        )

    # Answering

    async def _answer(self) -> None:
        settings, parts = self._settings, self._parts
        assistant = await parts.assistant(settings)

        def begin() -> tuple[Told, tuple[ToolSpec, ...], Turn]:
            parts.check(settings)
            prompt = told(self._tree, self._question.id, settings, assistant, self._files)
            tools, asked = parts.tools(settings), Message("assistant")
            turn = parts.store.add(self._user, self._conversation, asked, parent=self._leaf, finish=None)
            return prompt, tools, turn

        prompt, tools, turn = await self._in_thread(begin)
        opened = self._begun(turn)
        options: Options = {
            "params": params_of(settings.params, replace(assistant.defaults, n=1)),
            "client": f"user {self._user}",
            "persona": prompt.persona,
        }
        if settings.adapter in assistant.adapters:
            options["adapter"] = settings.adapter
        elif settings.adapter:
            text = f"the model has no adapter {settings.adapter!r:.80}; it answers without one"
            self.log.add(Note(code="adapter", text=text))
        if settings.mode == "documents":
            await self._look_up(assistant, prompt, options, opened)
            return
        left_out = await self._rounds(assistant, Rounds(prompt.messages, tools, MAX_ROUNDS, options), opened)
        self._complete = True
        if settings.memory and (leaving := due(prompt, left_out, settings)):
            await self._remember(assistant, leaving, options)

    async def _rounds(self, assistant: BaseAssistant, rounds: Rounds, opened: _Open | None) -> int:
        """Ask the model, carry out its calls, and so on; returns the number of turns that did not fit into the context.

        Args:
            opened: the first turn, if it is already open.
        """
        left_out = 0
        while rounds.go_on:
            opened = opened or await self._begin(Message("assistant"))
            async with aclosing(_stream(assistant, rounds.messages, rounds.options)) as deltas:
                async for delta in deltas:
                    self._hear(opened, rounds.hear(delta))
            message = rounds.message()
            assert rounds.finish is not None
            await self._ended(opened, message, rounds.finish, last=not rounds.asked)
            left_out = max(left_out, rounds.finish.left_out)
            for call in message.tool_calls:
                code = _code(call)
                arguments = call.to_dict()["function"]["arguments"] if code is None else code
                is_code = code is not None
                self.log.add(
                    Called(turn=opened.turn.id, call=call.id, name=call.name, arguments=arguments, code=is_code)
                )
            if rounds.asked:
                outcomes = await self._carry_out(rounds.asked, rounds.due)
                for _ in rounds.results([outcomes[call.id] for call in rounds.due]):
                    pass
            opened = None
        return left_out

    async def _look_up(self, assistant: BaseAssistant, prompt: Told, options: Options, opened: _Open) -> None:
        """Answer from documents."""
        assert self._parts.knowledge is not None
        finish: Finish | None = None
        *history, question = prompt.messages
        options.pop("persona")
        found = self._parts.knowledge.answer(
            None if self._settings.extract else assistant,
            question.content,
            history=history,
            bases=self._settings.knowledge,
            user=self._user,
            options=options,
            language=self._settings.language,
        )
        async with aclosing(found) as pieces:
            async for piece in pieces:
                if isinstance(piece, tuple):
                    opened.details["sources"] = [source.to_dict() for source in piece]
                    self.log.add(Sources(turn=opened.turn.id, sources=piece))
                    continue
                if isinstance(piece, Cited):
                    cited = replace(piece, turn=opened.turn.id)
                    opened.details["cited"] = cited.to_dict()
                    self.log.add(replace(cited, prompt=""))  # the prompt is shown only on demand
                    continue
                self._hear(opened, piece)
                if isinstance(piece, Finish):
                    finish = piece
        if finish is None:
            raise UnsupportedError("the answer from documents has no end; this is a bug in the knowledge base")
        await self._ended(opened, opened.message(), finish, last=True)

    async def _ended(self, opened: _Open, message: Message, finish: Finish, *, last: bool) -> None:
        """Note that a turn of the model is complete."""
        self._made += finish.usage.completion_tokens
        if self._round:
            self._wrote += time.perf_counter() - self._round
            self._round = 0.0
        opened.details["tokens"] = self._made  # of the answer so far; people see the number at its last turn
        await self._close(opened, message, finish.reason, last)
        self._finish = finish
        if finish.note and finish.note not in self._noted:
            self._noted.add(finish.note)
            self.log.add(Note(code="left_out" if finish.left_out else "model", text=finish.note))

    async def _remember(self, assistant: BaseAssistant, leaving: Sequence[Turn], options: Options) -> None:
        """Extend the summary by turns that do not fit into the context. A failure does not end the answer."""
        old = self._settings.summary
        try:
            new = await extended(assistant, old, leaving, options)

            def store() -> bool:
                found = self._parts.store.conversation(self._user, self._conversation)
                settings = Settings.from_dict(found.settings, found.mode)
                if settings.summary != old:  # a person has edited it in the meantime
                    return False
                settings = replace(settings, summary=new or old, summarised=leaving[-1].id)
                self._parts.store.configure(self._user, self._conversation, settings.to_dict(), settings.mode)
                return True

            if not await asyncio.to_thread(store):
                return
        except Exception as error:
            self.log.add(Note(code="summary_failed", text=f"no summary was made: {_said(error)}"))
            return
        if new:
            self.log.add(Note(code="summary", text=new))
        else:
            said = "the summary was no shorter than what it replaces; the oldest turns are left out without one"
            self.log.add(Note(code="summary_failed", text=said))

    def _hear(self, opened: _Open, delta: Delta) -> None:
        if isinstance(delta, TextDelta | CallDelta) and not self._round:
            self._round = time.perf_counter()
            self._first = self._first or self._round - self._asked
        if isinstance(delta, TextDelta) and delta.text:
            opened.texts.append(delta.text)
            opened.pieces += 1
            self.log.add(Text(turn=opened.turn.id, text=delta.text))
        elif isinstance(delta, CallDelta):
            call = opened.calls.setdefault(delta.index, _Call())
            call.name += delta.name
            call.arguments.append(delta.arguments)
            opened.pieces += 1
            shown = call.code.feed(delta.arguments) if call.name in _INTERPRETERS else delta.arguments
            if delta.name or shown:
                self.log.add(Calling(turn=opened.turn.id, index=delta.index, name=delta.name, arguments=shown))

    # Tools

    async def _carry_out(self, asked: Sequence[ToolCall], due: Sequence[ToolCall]) -> dict[str, Outcome]:
        """Run the calls; returns their outcomes by id. Each outcome is sent as soon as it is complete."""
        opened = [await self._begin(Message("observation", tool_call_id=call.id)) for call in asked]
        room = asyncio.Semaphore(_TOGETHER)
        outcomes: dict[str, Outcome] = {}
        few = due[:MOST_CALLS]

        async def one(call: ToolCall, turn: _Open) -> None:
            async with room:
                if call not in due:
                    outcome = made_too_often(call)
                elif call in few:
                    outcome = await self._outcome(call, turn, room)
                else:
                    outcome = one_too_many()
            outcomes[call.id] = outcome
            await self._answered(call, turn, outcome)

        tasks = [asyncio.ensure_future(one(*pair)) for pair in zip(asked, opened, strict=True)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_GRACE)
        for error in [task.exception() for task in tasks if task.done() and not task.cancelled()]:
            if error is not None:
                raise error
        return outcomes

    async def _answered(self, call: ToolCall, opened: _Open, outcome: Outcome) -> None:
        """Store the outcome of a call, and send it."""
        turn, whole = opened.turn.id, outcome.whole if outcome.whole != outcome.text else ""
        pictures = [await self._picture(turn, data) for data in outcome.pictures]
        files = [await self._produced(turn, name) for name in outcome.files]
        opened.details = {"seconds": round(outcome.seconds, 3)}
        opened.details |= {"failed": True} if outcome.failed else {}
        opened.details |= {"whole": whole} if whole else {}
        await self._close(opened, replace(opened.turn.message, content=outcome.text), "stop")
        if self._settings.mode == "code" and (outcome.whole or outcome.text).startswith(RESTARTED):
            self.log.add(Note(code="restarted", text="the interpreter was started again; its variables are gone"))
        self.log.add(
            Answered(
                turn=turn,
                call=call.id,
                text=outcome.text,
                whole=whole,
                pictures=tuple(filter(None, pictures)),
                files=tuple(filter(None, files)),
                failed=outcome.failed,
                seconds=outcome.seconds,
            )
        )

    async def _picture(self, turn: int, data: bytes) -> str:
        """Store a picture; returns its name."""
        name = f"picture-{secrets.token_hex(6)}.png"
        return await self._noted_file(turn, name, "picture", self._parts.files.keep(self._conversation, name, data))

    async def _produced(self, turn: int, name: str) -> str:
        """Add a file that code has made to the conversation's files; returns its name."""
        if self._parts.kernels is None or self._settings.mode != "code":
            return ""
        digest = self._parts.files.digest(self._user, self._conversation, name)
        return await self._noted_file(turn, name, "produced", digest)

    async def _noted_file(self, turn: int, name: str, kind: FileKind, work: Awaitable[Digest]) -> str:
        """Add a file that has been stored; returns its name. If that fails, sends a note and returns ""."""
        try:
            size, sha256 = await work
            await self._stored(self._parts.store.add_file, name, kind, size, sha256, turn=turn)
        except (ChatGLMError, OSError) as error:
            self.log.add(Note(code="file", text=f"{name:.100}: was not saved ({_said(error)})"))
            return ""
        return name

    async def _outcome(self, call: ToolCall, opened: _Open, room: asyncio.Semaphore) -> Outcome:
        """The outcome of a call: from a person, a tool or the interpreter."""
        if self._settings.mode == "tools" and self._settings.manual.strip():
            begun = time.perf_counter()
            text = await self._ask(call.id, "observation", room)
            return Outcome(text, seconds=time.perf_counter() - begun)

        async def permit(asked: ToolCall, tool: Tool) -> bool:
            name = tool.spec.name
            if name in self._granted:
                return True
            yes, always = await self._ask(asked.id, "permission", room)
            if yes and (always or tool.consent is Consent.ONCE):
                self._granted.add(name)
            return bool(yes)

        if self._settings.mode != "code":
            return await self._box.call(call, permit)

        def output(text: str) -> None:
            opened.texts.append(text)
            opened.pieces += 1
            self.log.add(Output(call=call.id, text=text))

        assert self._parts.kernels is not None
        interpreter = Interpreter(self._parts.kernels, self._conversation, user=str(self._user), on_output=output)
        return await self._parts.toolbox.only().also(interpreter).call(call, permit)


async def _stream(assistant: BaseAssistant, messages: Sequence[Message], options: Options) -> AsyncGenerator[Delta]:
    """The deltas of a model. An endpoint refuses a dialogue that is longer than its context. Then it is asked again
    without the older half of the turns, until the dialogue fits.
    """
    groups, left = groups_of(messages), 0
    while True:
        begun = False
        try:
            async with aclosing(assistant.astream(without_oldest(messages, left), **options)) as deltas:
                async for delta in deltas:
                    begun = True
                    if left and isinstance(delta, Finish):
                        note = f"the context is too short; oldest turns left out: {left} of {groups}"
                        note = "; ".join(filter(None, [note, delta.note]))
                        delta = replace(delta, note=note, left_out=left + delta.left_out)
                    yield delta
            return
        except ContextError:
            more = (groups - left) // 2
            if begun or more < 1:
                raise
            left += more


def _code(call: ToolCall) -> str | None:
    """The code of a call if it is one of the interpreter, else None."""
    code = call.arguments.get("code")
    return code if call.name in _INTERPRETERS and isinstance(code, str) else None


def _said(error: BaseException) -> str:
    if isinstance(error, ChatGLMError):
        return str(error)
    return re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:400]
