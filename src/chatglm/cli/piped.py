"""`chatglm chat` with tools, code, kept conversations or JSON, without a terminal."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from chatglm.cli.dialogue import Dialogue, open_dialogue
from chatglm.cli.models import model_name, note, open_assistant, print_json
from chatglm.cli.plain import CLEAR, STOP, next_line
from chatglm.cli.shown import figures, tell
from chatglm.conversation import events
from chatglm.errors import ChatGLMError
from chatglm.tools.threads import LoopThread

if TYPE_CHECKING:
    from chatglm.assistant import BaseAssistant
    from chatglm.conversation.session import Session
    from chatglm.conversation.settings import Settings

__all__ = ["run_piped"]


def run_piped(
    arguments: argparse.Namespace,
    settings: Callable[[Settings], Settings],
    check: Callable[[BaseAssistant], None],
) -> int:
    """Answer the question of the command line, or each line of the input; returns the exit status.

    Raises:
        ChatGLMError: an answer fails, unless it is told as JSON.
        KeyboardInterrupt: Ctrl+C, while nothing is answered.
    """
    found: list[BaseAssistant] = []

    async def find(settings: Settings) -> BaseAssistant:
        return found[0]

    with contextlib.ExitStack() as stack:
        loop = LoopThread("chatglm chat")
        stack.callback(loop.close)
        opened = open_dialogue(arguments, find, settings, kept=arguments.resume is not None)
        dialogue = loop.run(opened.__aenter__())
        stack.callback(lambda: loop.run(opened.__aexit__(None, None, None)))
        if arguments.model is None and arguments.remote is None:
            arguments.model = dialogue.model
        if wanted := dialogue.missed(model_name(arguments)):
            note(f"this conversation began with the model {wanted}; {model_name(arguments)} answers now")
        found.append(stack.enter_context(open_assistant(arguments)))
        check(found[0])
        piped = _Piped(arguments, dialogue, loop)
        if arguments.question is not None:
            return piped.answer(arguments.question)
        status = 0
        while (line := _line_of_input()) is not None and line not in STOP:
            if line in CLEAR:
                dialogue.clear()
            elif line and piped.answer(line) == 1:
                status = 1
        return status


class _Piped:
    def __init__(self, arguments: argparse.Namespace, dialogue: Dialogue, loop: LoopThread) -> None:
        self._arguments, self._dialogue, self._loop = arguments, dialogue, loop
        self._calls: dict[str, events.Called] = {}
        self._said = ""  # of the open answer's text
        self._seen = 0
        self._status = 0

    def answer(self, question: str) -> int:
        """Answer; returns 0, 1 if the answer has failed, 130 if Ctrl+C has ended it."""
        self._status = 0
        session = self._loop.run(self._dialogue.session())
        try:
            self._loop.run(self._ask(session, question))
        except KeyboardInterrupt:
            self._loop.run(self._stop(session))
            return 130
        return self._status

    async def _ask(self, session: Session, question: str) -> None:
        self._seen = await session.send(question)
        await self._follow(session)

    async def _stop(self, session: Session) -> None:
        await session.stop()
        await self._follow(session)

    async def _follow(self, session: Session) -> None:
        async with aclosing(session.events(self._seen)) as happenings:
            async for event in happenings:
                self._seen = event.number
                await self._tell(session, event)

    async def _tell(self, session: Session, event: events.Event) -> None:
        if self._arguments.json:
            print_json(event.to_dict(), flush=True)
        else:
            self._say(event)
        if isinstance(event, events.Asked):
            with contextlib.suppress(ChatGLMError):  # it has been stopped
                if event.wants == "permission":
                    await session.permit(event.call, bool(self._arguments.tools_without_asking))
                else:
                    await session.observe(event.call, "")
        elif isinstance(event, events.Failed):
            self._status = 1
            if not self._arguments.json:
                raise ChatGLMError(event.message)

    def _say(self, event: events.Event) -> None:
        """Write the answer to stdout, and other events to stderr."""
        match event:
            case events.Began():
                self._said = ""
            case events.Text():
                self._said += event.text
                print(event.text, end="", flush=True)
            case events.Cited():
                for start, end in event.unsupported:
                    tell(f"\n[not in these sources: {self._said[start:end]}]", end="")
            case events.Called():
                self._calls[event.call] = event
            case events.Answered():
                call = self._calls.get(event.call)
                asked = f"{call.name} {_line(call.arguments)}" if call is not None else "?"
                tell(f"[{asked} → {_line(event.whole or event.text)}; {event.seconds:.1f} s]")
                for name in (*event.pictures, *event.files):
                    tell(f"[{name}]")
            case events.Sources():
                for source in event.sources:
                    tell(f"[{source.n}] {source.title}")
            case events.Note():
                tell(f"[{event.text}]")
            case events.Done():
                print(flush=True)
                if self._arguments.verbose:
                    tell(
                        figures(event.first_seconds, event.completion_tokens, event.prompt_tokens, event.cached_tokens)
                    )


def _line_of_input() -> str | None:
    """The next line of the input; None: there is no more."""
    try:
        return next_line()
    except EOFError:
        return None


def _line(text: str) -> str:
    return " ".join(text.split())[:200]
