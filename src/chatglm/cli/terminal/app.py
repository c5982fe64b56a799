"""`chatglm chat` on a terminal: its input, its answers, and the effect of Ctrl+C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from rich.text import Text

from chatglm.cli.dialogue import Dialogue
from chatglm.cli.shown import plain
from chatglm.cli.terminal.actions import Actions
from chatglm.cli.terminal.commands import Do, Say, Unknown, read
from chatglm.cli.terminal.keys import Line, history_at
from chatglm.cli.terminal.models import Models
from chatglm.cli.terminal.part import Leave
from chatglm.cli.terminal.pictures import Pictures
from chatglm.cli.terminal.screen import Screen, console
from chatglm.cli.terminal.turns import Turns
from chatglm.cli.terminal.words import Words
from chatglm.conversation import events
from chatglm.errors import ChatGLMError, InputError
from chatglm.home import home_folder

if TYPE_CHECKING:
    from chatglm.conversation.session import Session

__all__ = ["App"]

T = TypeVar("T")

_TWICE = 2.0
"""Within these seconds, a second Ctrl+C ends the program."""
_LATE = 1.0
"""Within these seconds after an answer, Ctrl+C was probably meant for the answer."""
_PICTURE = 8 << 20
"""Most bytes of a picture that is drawn."""
_FRAME = 0.1
"""Seconds between two drawings while nothing happens."""


class App:
    """The program on a terminal; see `Face`."""

    def __init__(self, arguments: argparse.Namespace, dialogue: Dialogue, models: Models, words: Words) -> None:
        self.arguments, self.dialogue, self.models, self.words = arguments, dialogue, models, words
        self.screen = Screen(console(), words)
        self.default = ""
        self.editing: int | None = None
        self.done: events.Done | None = None
        self.made = self.answers = 0
        self._ended = self._interrupted = 0.0
        self._leaving = self._alone = False
        self._stop: Callable[[], object] | None = None
        self._turns = Turns(self)
        self._actions = Actions(self, self._turns)
        self.line = Line(
            words,
            history_at(home_folder() / "chat_history" if dialogue.kept else None),
            self._actions.values,
            self._bar,
        )
        self._pictures = Pictures(self.screen.console, self.line.type)

    def _bar(self) -> str:
        what = self.words("loading") if self.models.loading else self.models.name
        return f" {what} · {self.dialogue.mode} · {self.words('bar')}"

    # The loop

    async def run(self) -> int:
        """Run the dialogue until the user leaves; returns the exit status.

        Raises:
            ChatGLMError: the model cannot be loaded.
        """
        self._welcome()
        self._listen()
        self.models.begin(self._loaded)
        if not self.models.quiet and not await self._arrived():  # a download has something to say
            return 130
        try:
            with _silent():
                await self.begin()
                while True:
                    await self._turn()
        except Leave as leave:
            return leave.status

    async def _arrived(self) -> bool:
        """Wait for the model, before there is a line to type into; False: Ctrl+C ended the waiting."""
        loading = asyncio.ensure_future(self.models(self.dialogue.settings))
        self._stop = loading.cancel
        try:
            await loading
        except asyncio.CancelledError:
            if not loading.cancelled():
                raise
            return False
        finally:
            self._stop = None
        return True

    async def begin(self) -> None:
        """Show the end of the conversation that continues."""
        await self._turns.begin()

    async def greet(self) -> None:
        """Show the greeting of the character."""
        await self._turns.greet()

    async def once(self, question: str) -> int:
        """Answer one question; returns the exit status.

        Raises:
            ChatGLMError: there is no answer.
        """
        self._listen()
        self.models.begin(self._loaded)
        self._alone = True
        try:
            with _silent():
                await self.answer(lambda session: session.send(question))
        except Leave as leave:
            return leave.status
        return 130 if self.done is not None and self.done.finish == "stopped" else 0

    def _welcome(self) -> None:
        from chatglm import __version__

        self.screen.console.print(Text.assemble(("chatglm ", "bold"), (__version__, "bright_black")))
        self.screen.note(self.words("welcome"))
        if self.dialogue.rights:
            self.screen.say(self.words("rights"), "bold red")

    def _loaded(self, error: BaseException | None) -> None:
        if error is not None:
            self.line.fail(error)
        self.line.redraw()

    async def _turn(self) -> None:
        default, self.default = self.default, ""
        self.screen.console.print()
        try:
            typed = await self.line.read(self._prompt(), default)
            self._ended = self._interrupted = 0.0
        except EOFError:
            raise Leave from None
        except KeyboardInterrupt:
            if self.editing is not None:
                self.editing = None
                return
            now = time.monotonic()
            if now - self._ended < _LATE and now - self._interrupted >= _TWICE:
                self._ended, self._interrupted = 0.0, now
                self.screen.note(self.words("leave_again"))
                return
            raise Leave(130) from None
        finally:
            self._listen()
        if self.models.error is not None:
            raise self.models.error
        await self.obey(typed)

    def _prompt(self) -> str:
        mode = self.dialogue.mode
        return "> " if mode == "chat" else f"{mode} > "

    async def obey(self, typed: str) -> None:
        """Carry out a line: a command, or a message to the model."""
        match read(typed):
            case Do(command, argument):
                self.editing = None
                try:
                    await self._actions.do(command, argument)
                except ChatGLMError as error:
                    self.screen.problem(str(error))
                except OSError as error:
                    self.screen.problem(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "))
            case Unknown(word, near):
                hint = self.words("near", near=near) if near else ""
                self.screen.problem(self.words("unknown", word=word) + hint + self.words("escape", word=word))
            case Say(text):
                turn, self.editing = self.editing, None
                if turn is not None:
                    await self.answer(lambda session: session.again(turn, text))
                else:
                    await self.answer(lambda session: session.send(text))

    # Answers

    async def answer(self, begin: Callable[[Session], Awaitable[int]]) -> None:
        """Show an answer as it comes.

        Args:
            begin: begins it, and returns the number of the last event before it.

        Raises:
            Leave: the user wants to leave.
            ChatGLMError: the model cannot be loaded.
        """
        session = await self.dialogue.session()
        stopping: set[asyncio.Task[None]] = set()

        def stop() -> None:
            stopping.add(asyncio.ensure_future(session.stop()))

        self._interrupted, self._leaving, self._stop = 0.0, False, stop
        self.screen.begin(self.words("loading" if self.models.loading else "thinking"))
        drawing = asyncio.ensure_future(self._draw())
        try:
            after = await begin(session)
            if self._interrupted:
                stop()
            async with aclosing(session.events(after)) as happenings:
                async for event in happenings:
                    await self._show(session, event)
        except ChatGLMError as error:  # it did not begin
            self.screen.end()
            if self._alone:
                raise
            self.screen.problem(str(error))
        finally:
            self._stop = None
            drawing.cancel()
            self.screen.end()
            self._ended = time.monotonic()
        if self.models.error is not None:
            raise self.models.error
        if self._leaving:
            raise Leave(130)

    async def waiting(self, what: str, work: Awaitable[T]) -> T:
        """Wait for something, and show that; Ctrl+C ends the waiting.

        Raises:
            InputError: the user has ended the waiting.
        """
        task = asyncio.ensure_future(work)
        self.screen.begin(what)
        drawing = asyncio.ensure_future(self._draw())
        self._stop = task.cancel
        try:
            return await task
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            raise InputError(self.words("stopped")) from None
        finally:
            self._stop = None
            drawing.cancel()
            self.screen.end()

    async def _draw(self) -> None:
        while True:
            await asyncio.sleep(_FRAME)
            self.screen.draw()

    async def _show(self, session: Session, event: events.Event) -> None:
        if isinstance(event, events.Failed) and self.models.error is not None:
            return  # said once, when the program ends
        if isinstance(event, events.Failed) and self._alone:
            raise ChatGLMError(event.message)
        if isinstance(event, events.Began) and event.role == "user":
            return
        if isinstance(event, events.Answered):
            self.screen.show(event, len((await session.tree()).path(event.turn)))
        else:
            self.screen.show(event)
        if isinstance(event, events.Answered):
            await self._made(session, event)
        elif isinstance(event, events.Asked):
            await self._asked(session, event)
        elif isinstance(event, events.Done):
            self.done = event
            self.answers += 1
            self.made += event.completion_tokens
            if self.arguments.verbose:
                self.screen.note(f"[{self.figures(event)}]")

    async def _made(self, session: Session, event: events.Answered) -> None:
        """Show the pictures and files that a call has made."""
        sizes = {file.name: file.size for file in await session.files()} if event.pictures or event.files else {}
        for name in event.pictures:
            self.screen.pause()
            with contextlib.suppress(ChatGLMError, OSError):  # it is named at least
                data = await asyncio.to_thread(_content, await session.file(name))
                if (drawn := await asyncio.to_thread(self._pictures.drawn, data)) is not None:
                    self.screen.picture(drawn)
            self.screen.file("picture", name, sizes.get(name))
        if event.pictures:
            self.screen.resume()
        for name in event.files:
            if name not in event.pictures:
                self.screen.file("file", name, sizes.get(name))

    async def _asked(self, session: Session, event: events.Asked) -> None:
        words = self.words
        if event.wants == "permission" and self.arguments.tools_without_asking:
            await session.permit(event.call, True, True)
            return
        name = self.screen.asked(event.call)
        with contextlib.suppress(ChatGLMError):  # it was stopped meanwhile
            if event.wants == "observation":
                text = await self.line.text(words("observe", name=name))
                if text is None:
                    self._interrupt()
                else:
                    await session.observe(event.call, text)
            else:
                keys = [("y", words("yes")), ("n", words("no")), ("a", words("always"))]
                question = words("permit_code") if name == words("code") else words("permit", name=plain(name))
                key = await self.line.choose(question, keys)
                if not key:
                    self._interrupt()
                else:
                    await session.permit(event.call, key != "n", key == "a")
        self._listen()
        self.screen.went_on()

    def figures(self, done: events.Done) -> str:
        """How long an answer took."""
        after = done.writing_seconds
        return self.words(
            "figures",
            first=done.first_seconds,
            rate=(done.completion_tokens - 1) / after if after > 0 and done.completion_tokens > 1 else 0.0,
            made=done.completion_tokens,
            prompt=done.prompt_tokens,
            cached=done.cached_tokens,
        )

    # Ctrl+C

    def _listen(self) -> None:
        """Listen for Ctrl+C. While somebody types, the input line does this."""
        with contextlib.suppress(NotImplementedError):  # Windows: it ends the program
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupt)

    def _interrupt(self) -> None:
        """Stop the running work; the second time within some seconds, leave."""
        now = time.monotonic()
        self._leaving = self._leaving or now - self._interrupted < _TWICE
        self._interrupted = now
        if self._stop is not None:
            self._stop()


def _content(file: BinaryIO) -> bytes:
    with file:
        return file.read(_PICTURE)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Hide keys that are typed while something else is shown; the next input line gets them."""
    try:
        import termios

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (ImportError, OSError, ValueError):
        yield
        return
    quiet = list(before)
    quiet[3] = (quiet[3] & ~termios.ECHO) | termios.NOFLSH  # Ctrl+C takes nothing of it away
    termios.tcsetattr(descriptor, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)
