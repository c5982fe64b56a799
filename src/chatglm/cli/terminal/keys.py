"""The input line: keys, completion, history."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_focus, to_filter
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input.typeahead import store_typeahead
from prompt_toolkit.input.vt100_parser import Vt100Parser
from prompt_toolkit.key_binding import KeyBindings, KeyPress, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.styles import Style
from rich.cells import chop_cells

from chatglm.cli.terminal.commands import COMMANDS, Values, named
from chatglm.cli.terminal.words import Words

__all__ = ["Line", "history_at"]

_BLOCK = '"""'
_MOST_HISTORY = 1 << 20
"""Most bytes of the history; older lines are removed when the program starts."""
_STYLE = Style.from_dict(
    {
        "prompt": "bold ansiblue",
        "bottom-toolbar": "noreverse ansibrightblack",
        "completion-menu": "bg:default default",
        "completion-menu.completion": "bg:default default",
        "completion-menu.completion.current": "reverse",
        "completion-menu.meta.completion": "bg:default ansibrightblack",
        "completion-menu.meta.completion.current": "bg:default ansibrightblack",
        "scrollbar.background": "bg:default",
        "scrollbar.button": "bg:ansibrightblack",
    }
)


class _Completer(Completer):
    """Completes commands, and then their arguments."""

    def __init__(self, words: Words, values: Callable[[Values], Iterable[tuple[str, str]]]) -> None:
        self._words, self._values = words, values
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        before = document.text_before_cursor
        if not before.startswith(("/", "／")) or "\n" in document.text:
            return
        word, space, argument = before[1:].partition(" ")
        if not space:
            for command in COMMANDS:
                if names := [name for name in (command.name, *command.aliases) if name.startswith(word.lower())]:
                    yield Completion(
                        f"/{names[0]}",
                        -len(before),
                        display_meta=self._words.of(command.help),
                    )
            return
        if (found := named(word)) is None:
            return
        last = argument.rpartition(" ")[2]
        for value, meta in self._values(found.values):
            if value.startswith(argument if " " in value else last) and value != last:
                yield Completion(value, -len(argument if " " in value else last), display_meta=meta)
        if found.values in ("file", "tools", "character", "model", "format", "conversation") and (
            found.values == "file" or last
        ):
            yield from self._paths.get_completions(Document(last), complete_event)


class _History(FileHistory):
    """A history in a file that only this user can read."""

    def store_string(self, string: str) -> None:
        if string.strip() and "\x00" not in string:
            super().store_string(string)


def history_at(file: Path | None) -> History:
    """The history of input; only in memory if there is no file or it cannot be used."""
    if file is None:
        return InMemoryHistory()
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with open(descriptor, "rb+") as stream:
            os.chmod(file, 0o600)
            size = stream.seek(0, os.SEEK_END)
            if size > _MOST_HISTORY:
                stream.seek(size - _MOST_HISTORY // 2)
                kept = stream.read().partition(b"\n\n")[2]
                stream.seek(0)
                stream.write(kept)
                stream.truncate()
    except OSError:
        return InMemoryHistory()
    return _History(str(file))


class Line:
    """The input line.

    Args:
        values: completions of arguments, each with a remark.
        bar: the text below the line.
        multiline: the text in front of further lines.
    """

    def __init__(
        self,
        words: Words,
        history: History,
        values: Callable[[Values], Iterable[tuple[str, str]]],
        bar: Callable[[], str],
    ) -> None:
        self._words = words
        self._session: PromptSession[str] = PromptSession(
            history=history,
            completer=_Completer(words, values),
            complete_while_typing=Condition(_completes),
            complete_in_thread=False,
            enable_history_search=False,
            enable_open_in_editor=False,
            multiline=True,
            prompt_continuation=_continued,
            bottom_toolbar=lambda: FormattedText([("class:bottom-toolbar", _cut(bar()))]),
            key_bindings=_bindings(),
            style=_STYLE,
            tempfile_suffix=".md",
            reserve_space_for_menu=4,
            mouse_support=False,
            erase_when_done=False,
        )
        self._session.app.ttimeoutlen = 0.05
        for window in self._session.app.layout.find_all_windows():
            if window.content is self._session.app.layout.current_control:
                window.dont_extend_height = to_filter(True)  # the bar is directly below the line

    async def read(self, prompt: str, default: str = "") -> str:
        """A message or a command, without the marks of a block.

        Raises:
            EOFError: Ctrl+D on an empty line. KeyboardInterrupt: Ctrl+C on an empty line.
        """
        typed = await self._session.prompt_async(
            FormattedText([("class:prompt", prompt)]), default=default, handle_sigint=True
        )
        return unblocked(typed)

    def fail(self, error: BaseException) -> None:
        """End a `read` that waits with an error; nothing if none does."""
        if self._session.app.is_running and not self._session.app.is_done:
            self._session.app.exit(exception=error)

    def type(self, keys: bytes) -> None:
        """Keys that were pressed while nothing was read: the next `read` has them."""
        pressed: list[KeyPress] = []
        parser = Vt100Parser(pressed.append)
        parser.feed(keys.decode("utf-8", "ignore"))
        parser.flush()
        store_typeahead(self._session.app.input, pressed)

    def redraw(self) -> None:
        """Draw the line again: the text below it has changed."""
        self._session.app.invalidate()

    async def choose(self, question: str, keys: Sequence[tuple[str, str]]) -> str:
        """Wait for one of these keys; "" for Ctrl+C, Escape and Ctrl+D.

        Args:
            keys: each with the word that is shown when it was pressed.
        """
        bindings = KeyBindings()
        shown = dict(keys)

        def answer(key: str) -> Callable[[KeyPressEvent], None]:
            def pressed(event: KeyPressEvent) -> None:
                event.app.current_buffer.text = shown.get(key, "")
                event.app.exit(result=key)

            return pressed

        for key in shown:
            bindings.add(key, eager=True)(answer(key))
            bindings.add(key.upper(), eager=True)(answer(key))
        for other in ("c-c", "c-d", "escape"):
            bindings.add(other, eager=True)(answer(""))
        bindings.add(Keys.Any)(lambda event: None)
        bindings.add("enter", eager=True)(lambda event: None)
        bindings.add(Keys.BracketedPaste, eager=True)(lambda event: None)
        session: PromptSession[str] = PromptSession(key_bindings=bindings, style=_STYLE)
        session.app.ttimeoutlen = 0.05
        return await session.prompt_async(FormattedText([("class:prompt", question + "  ")]))

    async def text(self, question: str) -> str | None:
        """Read a text, on request of several lines; None for Ctrl+C and Ctrl+D."""
        session: PromptSession[str] = PromptSession(multiline=True, key_bindings=_bindings(), style=_STYLE)
        try:
            return unblocked(await session.prompt_async(FormattedText([("class:prompt", question)])))
        except (EOFError, KeyboardInterrupt):
            return None


def unblocked(typed: str) -> str:
    """Text without the marks of a block around it."""
    text = typed.strip()
    if text.startswith(_BLOCK):
        inner = text[len(_BLOCK) :]
        return inner.removesuffix(_BLOCK).strip("\n")
    return typed


def _in_block(text: str) -> bool:
    """Whether a block has begun, and not ended."""
    text = text.strip()
    return text.startswith(_BLOCK) and (len(text) < 2 * len(_BLOCK) or not text.endswith(_BLOCK))


def _bindings() -> KeyBindings:
    bindings, typing = KeyBindings(), has_focus(DEFAULT_BUFFER)  # not while the history is searched

    @bindings.add("enter", filter=typing)
    def _send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        before = buffer.document.current_line_before_cursor
        if _in_block(buffer.text):
            buffer.insert_text("\n")
        elif before.endswith("\\") and buffer.document.is_cursor_at_the_end:
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        elif buffer.text.strip():
            buffer.validate_and_handle()

    @bindings.add("escape", "enter", filter=typing)
    def _newline(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @bindings.add("c-o", filter=typing)
    def _editor(event: KeyPressEvent) -> None:
        event.current_buffer.open_in_editor()

    @bindings.add("c-c", filter=typing)
    def _drop(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt())

    return bindings


def _completes() -> bool:
    return get_app().current_buffer.document.text_before_cursor.startswith(("/", "／"))


def _continued(width: int, line: int, wrapped: int) -> str:
    return " " * width


def _cut(text: str) -> str:
    return (chop_cells(text, max(1, get_app().output.get_size().columns - 1)) or [""])[0]
