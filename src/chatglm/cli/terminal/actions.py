"""Runs the commands of the terminal: finds the command, shows help, and completes arguments."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from rich.text import Text

from chatglm.characters import Character
from chatglm.cli.shown import plain
from chatglm.cli.terminal.commands import COMMANDS, Command, Values, named, usage
from chatglm.cli.terminal.files import Files
from chatglm.cli.terminal.part import Face, Leave, Part
from chatglm.cli.terminal.setup import MODES, Setup, typed_options
from chatglm.errors import ChatGLMError, InputError

__all__ = ["Actions"]

_OFFERED = 20
"""Most conversations that are offered as completions of /load."""


class Actions(Part):
    """
    Args:
        turns: the commands about turns.
    """

    def __init__(self, app: Face, turns: Part) -> None:
        super().__init__(app)
        self._parts: tuple[Part, ...] = (self, Setup(app), turns, Files(app))

    async def do(self, command: Command, argument: str) -> None:
        """
        Raises:
            Leave: of /exit.
            ChatGLMError, OSError: it cannot be done; says why.
        """
        if not command.arguments and argument:
            raise self.usage(command.name)
        name = command.name
        run: Callable[[str], Awaitable[None]] = next(getattr(part, name) for part in self._parts if hasattr(part, name))
        await run(argument)

    async def exit(self, argument: str) -> None:
        raise Leave

    async def help(self, argument: str) -> None:
        words = self.words
        if argument:
            if (command := named(argument)) is None:
                raise InputError(words("unknown", word=argument.lstrip("/")).strip())
            self.screen.say(f"{usage(command)}\n{words.of(command.help)}")
            if command.aliases:
                self.screen.note(", ".join(f"/{alias}" for alias in command.aliases))
            return
        narrow = self.screen.console.width < 80
        self.grid((Text(f"/{one.name}" if narrow else usage(one), "cyan"), words.of(one.help)) for one in COMMANDS)
        self.screen.console.print()
        keys = (
            ("Enter", "enter"),
            ("Alt+Enter", "newline"),
            ('"""', "block"),
            ("Ctrl+O", "editor"),
            ("↑ ↓", "history"),
            ("Tab", "complete"),
            ("Ctrl+C", "stop"),
            ("Ctrl+D", "leave"),
        )
        self.grid((Text(key, "cyan"), words(f"key_{name}")) for key, name in keys)

    async def stats(self, argument: str) -> None:
        app = self.app
        app.screen.say(self.words("no_figures") if app.done is None else app.figures(app.done))
        session = app.dialogue.now
        turns = len((await session.tree()).path()) if session is not None else 0
        app.screen.say(self.words("totals", turns=turns, made=app.made, answers=app.answers))
        if not app.dialogue.kept:
            app.screen.note(self.words("not_kept"))
        elif session is not None:
            app.screen.note(self.words("kept", id=session.id[:8]))

    async def clear(self, argument: str) -> None:
        self.app.dialogue.clear()
        self.app.done = None
        self.screen.note(self.words("new"))
        await self.app.greet()

    # Completion

    def values(self, kind: Values) -> Iterable[tuple[str, str]]:
        """Possible values of an argument, each with a remark."""
        try:
            return list(self._values(kind))
        except (ChatGLMError, OSError):
            return []

    def _values(self, kind: Values) -> Iterable[tuple[str, str]]:
        dialogue = self.app.dialogue
        match kind:
            case "mode":
                yield from ((mode, "") for mode in MODES)
            case "on":
                yield from (("on", ""), ("off", ""))
            case "format":
                yield from (("md", "Markdown"), ("jsonl", "finetune"))
            case "tools":
                yield "examples", ""
                for spec in dialogue.toolbox.specs if dialogue.toolbox is not None else ():
                    yield f"on {spec.name}", ""
                    yield f"off {spec.name}", ""
            case "character":
                yield from ((name, "") for name in Character.library())
                yield "off", ""
            case "params":
                yield from ((one.name, self.words.option(one.name, one.help)) for one in typed_options())
            case "adapter":
                model = self.app.models.now
                yield from ((name, "") for name in (*(model.adapters if model is not None else ()), "off"))
            case "conversation":
                for one in dialogue.store.conversations(dialogue.user, limit=_OFFERED):
                    yield one.id[:8], plain(one.title)
