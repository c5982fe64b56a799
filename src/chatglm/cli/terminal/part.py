"""The base of all commands of the terminal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from chatglm.cli.terminal.commands import named, usage
from chatglm.cli.terminal.markdown import Prose
from chatglm.errors import InputError

if TYPE_CHECKING:
    from chatglm.cli.dialogue import Dialogue
    from chatglm.cli.terminal.keys import Line
    from chatglm.cli.terminal.models import Models
    from chatglm.cli.terminal.screen import Screen
    from chatglm.cli.terminal.words import Words
    from chatglm.conversation.events import Done
    from chatglm.conversation.session import Session
    from chatglm.conversation.tree import Tree

__all__ = ["Face", "Leave", "Part"]

T = TypeVar("T")


class Leave(Exception):  # noqa: N818 — no error
    """The program ends.

    Attributes:
        status: its exit status.
    """

    def __init__(self, status: int = 0) -> None:
        super().__init__(status)
        self.status = status


class Face(Protocol):
    """The program, as its commands see it.

    Attributes:
        default: text at the beginning of the next line.
        editing: the turn that the next line replaces with a new version; None: the line is a question.
        done: the end of the last answer; None: there was none.
        made: tokens of all answers; answers: how many there were.
    """

    dialogue: Dialogue
    models: Models
    words: Words
    screen: Screen
    line: Line
    default: str
    editing: int | None
    done: Done | None
    made: int
    answers: int

    async def answer(self, begin: Callable[[Session], Awaitable[int]]) -> None:
        """Show an answer as it comes."""

    async def waiting(self, what: str, work: Awaitable[T]) -> T:
        """Wait for something, and show that."""

    def figures(self, done: Done) -> str:
        """How long an answer took."""

    async def begin(self) -> None:
        """Show the end of the conversation that continues."""

    async def greet(self) -> None:
        """Show the greeting of the character."""


class Part:
    """Some of the commands: a method of the command's name takes its argument.

    It raises `ChatGLMError` or `OSError` with the reason if something cannot be done.
    """

    def __init__(self, app: Face) -> None:
        self.app, self.words, self.screen = app, app.words, app.screen

    def usage(self, name: str) -> InputError:
        """Show the usage of a command after a wrong argument."""
        command = named(name)
        assert command is not None
        return InputError(self.words("usage", usage=usage(command)))

    def said(self, what: str, value: str) -> None:
        """Show a setting."""
        self.screen.say(self.words("now", what=self.words(what), value=value or self.words("none")))

    def changed(self, what: str, value: str) -> None:
        """Show the new value of a setting."""
        self.screen.note(self.words("set", what=self.words(what), value=value or self.words("none")))

    def grid(self, rows: Iterable[Sequence[Text | str]]) -> None:
        """A table of columns: the first has its own width, the last gets the rest of the line."""
        table = Table.grid(padding=(0, 2))
        made = list(rows)
        widest = max((cell_len(str(row[0])) for row in made), default=0)
        table.add_column(width=min(widest, self.screen.console.width * 2 // 3))
        for row in made:
            table.add_row(*(Prose(cell) if isinstance(cell, str) else cell for cell in row))
        self.screen.console.print(table)

    def begun(self) -> Session:
        """The conversation, if it has messages.

        Raises:
            InputError: it has none.
        """
        session = self.app.dialogue.now
        if session is None:
            raise InputError(self.words("nothing_said"))
        return session

    async def tree(self) -> Tree:
        """Its turns.

        Raises:
            InputError: there are none.
        """
        tree = await self.begun().tree()
        if tree.leaf is None:
            raise InputError(self.words("nothing_said"))
        return tree
