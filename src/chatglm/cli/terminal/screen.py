"""Events of a session on a terminal: finished parts are printed once, and only growing parts are drawn again."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.constrain import Constrain
from rich.live import Live
from rich.panel import Panel
from rich.segment import Segment
from rich.spinner import Spinner
from rich.text import Text
from rich.theme import Theme

from chatglm.cli.shown import plain
from chatglm.cli.terminal.markdown import THEME, Prose, Rendered, highlighted
from chatglm.cli.terminal.words import Words
from chatglm.conversation import events
from chatglm.conversation.markdown import Splitter

__all__ = ["Screen", "console", "size"]

_WIDEST = 100
"""Most cells of a line of prose; longer lines are hard to read."""
_PARTS = 1 / 12
"""Least seconds between two drawings of a growing part."""
_ARGUMENTS, _RESULT, _CODE = 4, 6, 30
"""Lines of arguments, result and code of a call that are shown; `/turns N` shows all."""
_SHOWN = 4_000
"""Characters of these lines."""


def console() -> Console:
    """This terminal. NO_COLOR and TERM are obeyed."""
    return Console(theme=Theme(THEME), highlight=False, markup=False, emoji=False, soft_wrap=False)


def size(count: int) -> str:
    """A number of bytes in readable form."""
    if count < 1000:
        return f"{count} B"
    return f"{count / 1000:.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"


@dataclass
class _Call:
    """A call of a tool as it comes."""

    name: str = ""
    arguments: str = ""
    code: bool = False
    call: str = ""
    output: str = ""
    begun: float = field(default_factory=time.monotonic)


class _Tail:
    """The last lines of a growing part, which must not be higher than the terminal."""

    def __init__(self, shown: RenderableType, height: int) -> None:
        self._shown, self._height = shown, height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._shown, options.update(height=None), pad=False)
        for line in lines[-self._height :]:
            yield from line
            yield Segment.line()


class Screen:
    """What is shown of a dialogue."""

    def __init__(self, console: Console, words: Words) -> None:
        self.console = console
        self._words = words
        self._live: Live | None = None
        self._drawn = self._cost = 0.0
        self._first = True
        self._said = ""  # of the open answer's text
        self._splitter = Splitter()
        self._calls: dict[int, _Call] = {}
        self._running: dict[str, _Call] = {}
        self._waiting = ""
        self._spinner = Spinner("dots", style="cyan")

    # Messages of the program

    def say(self, text: str, style: str = "") -> None:
        """Show a line of the program itself."""
        self.console.print(Prose(plain(text), style=style), width=self._width)

    def note(self, text: str) -> None:
        self.say(text, "bright_black")

    def problem(self, text: str) -> None:
        """Show a problem: an error of the package, or a text of the terminal."""
        self.say(self._words.said(text), "red")

    def prose(self, text: str) -> None:
        """Show a complete Markdown text."""
        splitter = Splitter()
        self._first = True
        splitter.feed(plain(text))
        self._print_rest(splitter)

    @property
    def _width(self) -> int:
        return max(1, min(self.console.width, _WIDEST))

    # An answer

    def begin(self, waiting: str) -> None:
        """Begin to show an answer.

        Args:
            waiting: text that is shown until it comes.
        """
        self._waiting, self._first = waiting, True
        self._splitter, self._calls, self._running = Splitter(), {}, {}
        self._said = ""
        self.resume()

    def wait(self, waiting: str) -> None:
        """Show what the program waits for."""
        self._waiting = waiting

    def pause(self) -> None:
        """Remove the growing part, so that something else can be written."""
        if self._live is not None:
            live, self._live = self._live, None
            live.update("", refresh=True)
            live.stop()

    def resume(self) -> None:
        """Draw the growing part again."""
        if self._live is None:
            self._live = Live(
                console=self.console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
                vertical_overflow="visible",
            )
            self._live.start()
            self.draw(force=True)

    def end(self) -> None:
        """Finish the answer: it has ended, or the user has stopped it."""
        self._close_text()
        self._running = {}
        self.pause()

    def draw(self, force: bool = False) -> None:
        """Draw the growing part, unless it has just been drawn."""
        now = time.monotonic()
        if self._live is None or (not force and now - self._drawn < max(_PARTS, 4 * self._cost)):
            return
        height = max(2, self.console.height - 2)
        self._live.update(_Tail(Group(*self._growing()), height), refresh=True)
        self._drawn = time.monotonic()
        self._cost = self._drawn - now

    def _growing(self) -> list[RenderableType]:
        found: list[RenderableType] = []
        if self._splitter.text.strip():
            found += [*([] if self._first else [""]), self._prose(self._splitter.text)]
        for call in self._calls.values():
            found.append(self._panel(call, self._words("writing"), tail=True))
        for call in self._running.values():
            took = time.monotonic() - call.begun
            found.append(self._panel(call, f"{self._words('running')} {took:.0f} s", call.output, tail=True))
        if self._waiting or self._running:
            self._spinner.update(
                text=Text(f"{self._waiting or self._words('running')}  {self._words('stop_key')}", "bright_black")
            )
            found.append(self._spinner)
        return found

    def show(self, event: events.Event, place: int = 0) -> None:
        """Show an event.

        Args:
            place: of the event's turn in the conversation, as /turns counts; 0: unknown.
        """
        match event:
            case events.Began(role="assistant"):
                self._close_text()
                self._said = ""
                self._waiting = self._words("thinking")
            case events.Text():
                self._waiting = ""
                self._said += event.text
                if self._splitter.feed(plain(event.text)):
                    for block in self._splitter.take():
                        self._print(self._prose(block))
            case events.Calling():
                self._close_text()
                self._waiting = ""
                call = self._calls.setdefault(event.index, _Call())
                call.name += plain(event.name)
                call.arguments = (call.arguments + plain(event.arguments))[-_SHOWN:]
                call.code = call.code or call.name in ("interpreter", "python")
            case events.Called():
                self._close_text()
                self._calls.clear()
                self._waiting = ""
                self._running[event.call] = _Call(plain(event.name), plain(event.arguments), event.code, event.call)
            case events.Output():
                if running := self._running.get(event.call):
                    running.output = (running.output + plain(event.text))[-_SHOWN:]
            case events.Answered():
                self._answered(event, place)
            case events.Note():
                self._close_text()
                known = f"note_{event.code}"
                text = self._words.said(plain(event.text))
                self.note(f"[{self._words(known, text=text) if known in self._words else text}]")
            case events.Sources():
                self._sources(event)
            case events.Cited(unsupported=places) if places:
                self._close_text()
                self.say(self._words("unsupported"), "yellow")
                for start, end in places:
                    self.say(f"  {plain(self._said[start:end])}", "yellow")
            case events.Failed():
                self.end()
                self.problem(event.message)
            case events.Done():
                self.end()
                if event.finish == "stopped":
                    self.note(f"[{self._words('stopped')}]")
                elif event.finish == "length":
                    self.note(f"[{self._words('length')}]")
        self.draw(force=isinstance(event, events.Called | events.Answered | events.Began))

    def _close_text(self) -> None:
        splitter, self._splitter = self._splitter, Splitter()
        self._print_rest(splitter)

    def _print_rest(self, splitter: Splitter) -> None:
        blocks, rest = splitter.close()
        for block in blocks:
            self._print(self._prose(block))
        if rest:  # more than is read as Markdown
            self._print(Prose(rest.strip("\n")))

    def _print(self, block: RenderableType) -> None:
        if self._live is not None:
            self._live.update("")  # it is drawn again below what is printed
        if not self._first:
            self.console.print()
        self._first = False
        self.console.print(block, width=self._width)

    def _prose(self, text: str) -> RenderableType:
        return Constrain(Rendered(text), self._width)

    # Calls of tools

    def asked(self, call: str) -> str:
        """Print the call that needs permission, instead of drawing it; returns the name of its tool."""
        self.pause()
        if found := self._running.get(call):
            self.console.print(self._panel(found, ""), width=self._width)
            return self._words("code") if found.code else found.name
        return ""

    def went_on(self) -> None:
        """Continue after the user's answer."""
        for call in self._running.values():
            call.begun = time.monotonic()
        self.resume()

    def _answered(self, event: events.Answered, place: int) -> None:
        call = self._running.pop(event.call, None) or _Call("tool")
        took = f"{event.seconds:.1f} s" if event.seconds >= 0.05 else f"{event.seconds * 1000:.0f} ms"
        state = f"{self._words('failed')} · {took}" if event.failed else took
        text = plain(event.whole or event.text)
        self._first = False
        self.console.print(self._panel(call, state, text, failed=event.failed, turn=place), width=self._width)
        self._waiting = self._words("thinking")

    def _panel(
        self, call: _Call, state: str, result: str = "", *, tail: bool = False, failed: bool = False, turn: int = 0
    ) -> Panel:
        parts: list[RenderableType] = []
        if call.code:
            shown = self._cut(call.arguments, _CODE, tail, turn)
            parts.append(highlighted(shown, "python"))
        elif arguments := _arguments(call.arguments):
            parts.append(Text(self._cut(arguments, _ARGUMENTS, tail, turn), "cyan"))
        if result.strip():
            shown = self._cut(result.strip("\n"), _CODE if call.code else _RESULT, tail, turn)
            parts.append(Text(f"→ {shown}" if not call.code and "\n" not in shown else shown, "red" if failed else ""))
        name = self._words("code") if call.code else call.name[:80]
        title = Text(f"{name}{' · ' if state else ''}{state}", "bold red" if failed else "bold default")
        return Panel(Group(*parts), title=title, title_align="left", border_style="bright_black", padding=(0, 1))

    def _cut(self, text: str, most: int, tail: bool, turn: int) -> str:
        """A few lines of a text."""
        whole = text.count("\n") + 1
        text = text[-_SHOWN:] if tail else text[:_SHOWN]
        lines = text.split("\n")
        if whole <= most and len(lines) == whole:
            return text
        if tail:
            return "\n".join(lines[-most:])
        kept = lines[: most - 1]
        if not turn:
            return "\n".join([*kept, "…"])
        return "\n".join([*kept, self._words("more_lines", count=whole - len(kept), turn=turn)])

    def picture(self, drawn: RenderableType) -> None:
        """A picture, as `Pictures` draws it."""
        self.pause()
        self.console.file.flush()  # kitty's are written beside it
        self.console.print(drawn)

    def file(self, what: str, name: str, length: int | None) -> None:
        """A file of the conversation.

        Args:
            what: "picture" or "file".
            length: in bytes; None: unknown.
        """
        size_of_it = "" if length is None else f" ({size(length)})"
        line = Text(f"  {self._words(what)}: {plain(name)}{size_of_it}", "cyan")
        line.append(f"  /files {plain(name)}", "bright_black")
        self.console.print(line, width=self._width)

    def _sources(self, event: events.Sources) -> None:
        self._close_text()
        self.console.print(Text(self._words("sources"), "bold"))
        for source in event.sources:
            page = f", {source.page}" if source.page else ""
            self.say(f"[{source.n}] {source.title or source.file}{page}", "cyan")


def _arguments(text: str) -> str:
    """A call's JSON as a person reads it: `name=value`, one a line where they are long."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(values, dict):
        return text
    parts = [f"{plain(name)}={plain(json.dumps(value, ensure_ascii=False))}" for name, value in values.items()]
    line = ", ".join(parts)
    return line if len(line) <= 60 else "\n".join(parts)
