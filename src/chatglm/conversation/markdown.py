"""Markdown of models: the grammar for terminal and page, and a splitter of growing text into blocks.

The grammar is CommonMark with tables, strikethrough and formulas (`$…$`, `$$…$$`, `\\(…\\)`, `\\[…\\]`), without HTML.
A block (a paragraph, a list, a table, a fenced piece of code) is closed when nothing that follows can change it. So
that this is soon known, link references (`[name]: address`) are not read, and a block of mathematics ends at an empty
line.
"""

from __future__ import annotations

import functools
import re

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock, table
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

__all__ = ["CLOSING", "FORMULA", "NESTED", "RENDERED", "Splitter", "begins_code", "parser"]

RENDERED = 200_000
"""Most characters of a text that are read as Markdown; the rest is shown as it is."""
_LINES = 5_000
"""Most lines that are read as Markdown."""
NESTED = 24
"""Most levels of blocks within blocks."""
FORMULA = 600
"""Characters of a formula in a line."""
CLOSING = {"$": "$", "$$": "$$", r"\(": r"\)", r"\[": r"\]"}
"""The end of a formula, by its beginning: `Token.markup` of the tokens `formula` and `formula_block`."""
_ROW = 4_000
"""Characters of a table's first two lines."""


def parser() -> MarkdownIt:
    """A new parser, to which rules may be added. Formulas are tokens `formula` (in a line) and `formula_block`, whose
    `meta["closed"]` says whether its end is there."""
    made = MarkdownIt("commonmark", {"html": False, "maxNesting": NESTED + 2})
    made.enable(["table", "strikethrough"])
    made.disable(["reference", "html_block", "html_inline"])
    made.block.ruler.at("table", _narrow_table, {"alt": ["paragraph", "reference"]})
    made.block.ruler.before("fence", "formula", _formula_block, {"alt": ["paragraph", "blockquote", "list"]})
    made.inline.ruler.before("escape", "formula", _formula)
    return made


class Splitter:
    """A text that grows, cut into blocks that are closed and one that is open.

    Only the open block is read again when text is added, and less often the longer it is.

    Attributes:
        text: of the block that is open, with the ends of lines as the parser has them.
    """

    def __init__(self) -> None:
        self._held = ""  # a carriage return, after which a line feed may follow
        self._start = self._lines = 0  # of the open block, in characters and lines of the whole text
        self._try_at = 0  # characters of the open block at which it is looked at again
        self.text = ""

    def feed(self, text: str) -> bool:
        """Add text; whether `take` may find a closed block."""
        text = self._held + text
        self._held = "\r" if text.endswith("\r") else ""
        self.text += _lines(text.removesuffix("\r"))
        return "\n" in text and len(self.text) >= self._try_at

    def take(self) -> list[str]:
        """Blocks that have been closed since the last time. It may take long, and may be called in another thread."""
        if begins_code(self.text):
            return []
        found = self._closed(ended=False)
        size = len(self.text)
        self._try_at = 0 if found else size + 1 if size < 1024 else size * 5 // 4
        return found

    def close(self) -> tuple[list[str], str]:
        """All blocks that are left, and what is after the limits, which is no Markdown; "" if nothing is."""
        self.text += _lines(self._held)
        self._held = ""
        found = self._closed(ended=True)
        rest, self.text = self.text, ""
        return found, rest if rest.strip(" \t\n") else ""

    def _closed(self, ended: bool) -> list[str]:
        """
        Args:
            ended: nothing follows, so that the last block is closed, too.
        """
        whole = _first_lines(self.text[: max(0, RENDERED - self._start)], _LINES - self._lines)
        ended = ended and len(whole) == len(self.text)
        if not ended:  # what may go on is not looked at
            whole = whole[: whole.rfind("\n") + 1]
        starts, closed = _starts(whole)
        ends = [*starts[1:], len(whole)] if starts and (ended or closed) else starts[1:]
        found, place = [], 0
        for end in ends:
            found.append(whole[place:end])
            place = end
        self._lines += self.text.count("\n", 0, place)
        self._start += place
        self.text = self.text[place:]
        return found


@functools.cache
def _shared() -> MarkdownIt:
    return parser()


def _starts(text: str) -> tuple[list[int], bool]:
    """Where blocks begin, in characters; and whether the last one is closed, so that nothing that follows changes
    it. Blank lines belong to the block before, the first ones to the first block.

    Args:
        text: whole lines, if anything may follow.
    """
    tokens: list[Token] = []
    _shared().block.parse(text, _shared(), {}, tokens)
    begins = [token for token in tokens if token.level == 0 and token.nesting >= 0 and token.map]
    if not begins:
        return [], False
    places, place = [0], 0
    lines = text.split("\n")
    for line in lines:
        place += len(line) + 1
        places.append(place)
    starts = [0, *(places[token.map[0]] for token in begins[1:] if token.map)]
    last = begins[-1]
    match last.type:
        case "heading_open" | "hr":
            closed = True
        case "fence":
            closed = not begins_code(text[starts[-1] :])
        case "paragraph_open" | "table_open" | "formula_block":  # a blank line ends them
            closed = last.map is not None and any(not line.strip() for line in lines[last.map[1] : -1])
        case _:
            closed = False
    return starts, closed


def _lines(text: str) -> str:
    """With the ends of lines and the characters as the parser has them."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")


def _first_lines(text: str, most: int) -> str:
    if text.count("\n") <= most:
        return text
    end = 0
    for _ in range(most):
        end = text.index("\n", end) + 1
    return text[:end]


_FENCE = re.compile(r"\s*^ {0,3}(`{3,}(?=[^`\n]*$)|~{3,})", re.MULTILINE)


def begins_code(text: str, *, ended: bool = False) -> bool:
    """Whether a text begins with fenced code, which needs no parser to see.

    Args:
        ended: also code whose end is there.
    """
    found = _FENCE.match(text)
    if found is None or ended:
        return found is not None
    fence = found[1]
    end = re.compile(rf"^ {{0,3}}{re.escape(fence[0])}{{{len(fence)},}}[ \t]*$", re.MULTILINE)
    return end.search(text, found.end()) is None


# What CommonMark has not, or does slowly


def _narrow_table(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Only narrow tables, because the parser of tables is slow on a line of a megabyte."""
    last = min(start + 1, end - 1)
    if any(state.eMarks[line] - state.bMarks[line] > _ROW for line in (start, last)):
        return False
    return table(state, start, end, silent)


def _formula_block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """`$$` or `\\[` at the beginning of a line, to their end or an empty line."""
    if state.is_code_block(start):
        return False
    first = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]]
    opening = first[:2]
    if opening not in ("$$", r"\["):
        return False
    closing = CLOSING[opening]
    rest = first[2:]
    if closing in rest:
        if not rest.rstrip().endswith(closing) or closing in rest.rstrip()[:-2] or not rest.rstrip()[:-2].strip():
            return False  # in the midst of a line
        if silent:
            return True
        content, line, closed = rest.rstrip()[:-2], start + 1, True
    else:
        if silent:
            return True
        parts, line, closed = [rest], start + 1, False
        while line < end and not closed and not state.isEmpty(line) and state.sCount[line] >= state.blkIndent:
            part = state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]]
            line += 1
            if closed := part.rstrip().endswith(closing):
                part = part.rstrip()[:-2]
            parts.append(part)
        content = "\n".join(parts)
    token = state.push("formula_block", "math", 0)
    token.block, token.map, token.markup = True, [start, line], opening
    token.content = content.strip() if closed else state.getLines(start, line, state.blkIndent, False).rstrip("\n")
    token.meta["closed"] = closed
    state.line = line
    return True


def _formula(state: StateInline, silent: bool) -> bool:
    src, start = state.src, state.pos
    opening = next((one for one in ("$$", "$", r"\(", r"\[") if src.startswith(one, start)), "")
    if not opening:
        return False
    closing = CLOSING[opening]
    begin = start + len(opening)
    end = src.find(closing, begin, begin + FORMULA)
    if end <= begin or end + len(closing) > state.posMax:
        return False
    content = src[begin:end]
    if opening == "$":
        after = src[end + 1 : end + 2]
        if content[0].isspace() or content[-1].isspace() or content[-1] == "\\" or after.isdigit() or after == "$":
            return False
    elif not content.strip():
        return False
    if not silent:
        token = state.push("formula", "math", 0)
        token.content, token.markup = content, opening
    state.pos = end + len(closing)
    return True
