"""A model's text on a terminal: blocks of Markdown, and correct line breaks in Chinese."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import ClassVar

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich import markdown
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, OverflowMethod, RenderResult
from rich.containers import Lines
from rich.segment import Segment
from rich.syntax import Syntax
from rich.text import Text

from chatglm.conversation.markdown import parser

__all__ = ["THEME", "Prose", "Rendered", "highlighted"]

THEME = {
    "markdown.code": "bold cyan",
    "markdown.block_quote": "italic",
    "markdown.item.number": "cyan",
    "markdown.table.header": "bold",
    "markdown.table.border": "bright_black",
    "markdown.hr": "bright_black",
}
"""Styles that are readable on light and dark terminals alike."""

_NOT_FIRST = set("，。、；：？！）】》」』〉”’…—·,.;:?!)]}%％‰℃～〕〗〙〞｝〜ーゝゞ々")
_NOT_LAST = set("（【《「『〈“‘([{〔〖〘｛￥$#")


@lru_cache(1)
def _parser() -> MarkdownIt:
    return parser()


class Prose(Text):
    """Text whose lines may be broken between Chinese characters, but not before a comma."""

    def wrap(
        self,
        console: Console,
        width: int,
        *,
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        tab_size: int = 8,
        no_wrap: bool | None = None,
    ) -> Lines:
        if no_wrap or self.no_wrap:
            return super().wrap(console, width, justify=justify, overflow=overflow, tab_size=tab_size, no_wrap=no_wrap)
        lines = Lines()
        for line in self.split("\n", allow_blank=True):
            line.expand_tabs(tab_size)
            broken = line.divide(breaks(line.plain, width))
            for one in broken:
                one.rstrip()
            lines.extend(broken)
        return lines


def breaks(text: str, width: int) -> list[int]:
    """The places where a line of text is broken, so that each piece has at most `width` cells."""
    found: list[int] = []
    start = cells = 0
    last = -1  # where it may be broken, in this piece
    for place, sign in enumerate(text):
        size = cell_len(sign)
        if place > start and _may_break(text[place - 1], sign):
            last = place
        while cells + size > width and not sign.isspace() and place > start:
            at = last if last > start else place
            found.append(at)
            start, last = at, -1
            cells = cell_len(text[at:place])
        cells += size
    return found


def _may_break(before: str, after: str) -> bool:
    if after in _NOT_FIRST or before in _NOT_LAST or after.isspace():
        return False
    return before.isspace() or before == "-" or _is_wide(before) or _is_wide(after)


def _is_wide(sign: str) -> bool:
    return unicodedata.east_asian_width(sign) in "WF"


class _Paragraph(markdown.Paragraph):
    def on_enter(self, context: markdown.MarkdownContext) -> None:
        super().on_enter(context)
        self.text = Prose()


class _Heading(markdown.Heading):
    """A heading, always at the left."""

    def on_enter(self, context: markdown.MarkdownContext) -> None:
        super().on_enter(context)
        self.text = Prose(style="bold" if self.tag not in ("h1", "h2") else "bold cyan")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text


class _Code(markdown.CodeBlock):
    """Code, indented, on the terminal's own background."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield highlighted(str(self.text).rstrip(), self.lexer_name, 2)


def highlighted(code: str, language: str, indent: int = 0) -> Syntax:
    """Code in colours."""
    return Syntax(
        code, language, theme="ansi_dark", word_wrap=True, background_color="default", padding=(0, 0, 0, indent)
    )


class Rendered(markdown.Markdown):
    """One block of Markdown, without empty lines around it or blanks at the ends of its lines."""

    elements: ClassVar[dict[str, type[markdown.MarkdownElement]]] = {
        **markdown.Markdown.elements,
        "paragraph_open": _Paragraph,
        "heading_open": _Heading,
        "fence": _Code,
        "code_block": _Code,
    }

    def __init__(self, text: str) -> None:
        super().__init__("", hyperlinks=False)
        self.markup = text
        self.parsed = _readable(_parser().parse(text))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        try:
            lines = _split(super().__rich_console__(console, options), console, options)
        except Exception:  # an error of the renderer must not lose the model's text
            yield Text(self.markup)
            return
        while lines and not lines[0]:
            del lines[0]
        while lines and not lines[-1]:
            del lines[-1]
        for line in lines:
            yield from line
            yield Segment.line()


def _split(found: RenderResult, console: Console, options: ConsoleOptions) -> list[list[Segment]]:
    """Lines of segments, without blanks at their ends."""
    segments = [part for one in found for part in ([one] if isinstance(one, Segment) else console.render(one, options))]
    lines = [list(line) for line in Segment.split_lines(segments)]
    for line in lines:
        while line and not line[-1].text.strip():
            del line[-1]
        if line:
            line[-1] = Segment(line[-1].text.rstrip(), line[-1].style)
    return lines


def _readable(tokens: list[Token]) -> list[Token]:
    """Keep line breaks of the text on the terminal, as poems, addresses and lists need. Formulas are shown as LaTeX
    source."""
    for token in tokens:
        if token.type == "formula_block":
            token.type, token.tag, token.info = "code_block", "code", "latex"
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"
            elif child.type == "formula":
                child.type, child.tag = "code_inline", "code"
    return tokens
