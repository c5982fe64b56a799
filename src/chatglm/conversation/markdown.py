"""Markdown of models: the parser for terminal and page, and a splitter that cuts growing text into blocks.

The grammar is CommonMark with tables, strikethrough and formulas (`$…$`, `$$…$$`, `\\(…\\)`, `\\[…\\]`), without HTML.
A block (a paragraph, a list, a table, a fenced piece of code) is closed when no later text can change it. To know this
early, link references (`[name]: address`) are not supported, and an empty line ends a block of mathematics.
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
"""Most characters of a text that are read as Markdown. The rest is shown unchanged."""
_LINES = 5_000
"""Most lines that are read as Markdown."""
NESTED = 24
"""Most levels of blocks inside each other."""
FORMULA = 600
"""Most characters of a formula within a line."""
CLOSING = {"$": "$", "$$": "$$", r"\(": r"\)", r"\[": r"\]"}
"""The end mark of a formula for each begin mark, which is `Token.markup` of the tokens `formula` and `formula_block`.
"""
_ROW = 4_000
"""Most characters of a table's first two lines."""


def parser() -> MarkdownIt:
    """A new parser, to which rules may be added. Formulas are the tokens `formula` (within a line) and `formula_block`;
    their `meta["closed"]` tells whether the end mark is there.
    """
    made = MarkdownIt("commonmark", {"html": False, "maxNesting": NESTED + 2})
    made.enable(["table", "strikethrough"])
    made.disable(["reference", "html_block", "html_inline"])
    made.block.ruler.at("table", _narrow_table, {"alt": ["paragraph", "reference"]})
    made.block.ruler.before("fence", "formula", _formula_block, {"alt": ["paragraph", "blockquote", "list"]})
    made.inline.ruler.before("escape", "formula", _formula)
    return made


class Splitter:
    """Cuts a growing text into closed blocks and one open block.

    Only the open block is parsed again when text is added, and the longer it is, the less often.

    Attributes:
        text: of the open block, with the parser's line ends.
    """

    def __init__(self) -> None:
        self._held = ""  # a carriage return, which a line feed may follow
        self._start = self._lines = 0  # where the open block begins, in characters and lines of the whole text
        self._try_at = 0  # number of characters of the open block at which it is parsed again
        self.text = ""

    def feed(self, text: str) -> bool:
        """Add text; returns whether `take` may find a closed block."""
        text = self._held + text
        self._held = "\r" if text.endswith("\r") else ""
        self.text += _lines(text.removesuffix("\r"))
        return "\n" in text and len(self.text) >= self._try_at

    def take(self) -> list[str]:
        """Blocks that were closed since the last call. It may take long, and may be called in another thread."""
        if begins_code(self.text):
            return []
        found = self._closed(ended=False)
        size = len(self.text)
        self._try_at = 0 if found else size + 1 if size < 1024 else size * 5 // 4
        return found

    def close(self) -> tuple[list[str], str]:
        """All remaining blocks, and the text after the limits, which is not read as Markdown ("" if there is none)."""
        self.text += _lines(self._held)
        self._held = ""
        found = self._closed(ended=True)
        rest, self.text = self.text, ""
        return found, rest if rest.strip(" \t\n") else ""

    def _closed(self, ended: bool) -> list[str]:
        """Remove closed blocks from the text, and return them.

        Args:
            ended: no more text follows, so the last block is closed, too.
        """
        whole = _first_lines(self.text[: max(0, RENDERED - self._start)], _LINES - self._lines)
        ended = ended and len(whole) == len(self.text)
        if not ended:  # an incomplete last line is not parsed
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
    """Where blocks begin, in characters; and whether the last block is closed, so that no later text can change it.
    Blank lines belong to the block before them; those at the beginning belong to the first block.

    Args:
        text: whole lines, if more text may follow.
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
        case "paragraph_open" | "table_open" | "formula_block":  # a blank line ends these
            closed = last.map is not None and any(not line.strip() for line in lines[last.map[1] : -1])
        case _:
            closed = False
    return starts, closed


def _lines(text: str) -> str:
    """Normalise line ends and characters in the same way as the parser."""
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
    """Whether a text begins with fenced code; found without the parser.

    Args:
        ended: accept code whose closing fence is there, too.
    """
    found = _FENCE.match(text)
    if found is None or ended:
        return found is not None
    fence = found[1]
    end = re.compile(rf"^ {{0,3}}{re.escape(fence[0])}{{{len(fence)},}}[ \t]*$", re.MULTILINE)
    return end.search(text, found.end()) is None


# Rules that CommonMark lacks, or whose usual implementation is slow


def _narrow_table(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Accept a table only if its first lines are short: the parser of tables is slow on a line of a megabyte."""
    last = min(start + 1, end - 1)
    if any(state.eMarks[line] - state.bMarks[line] > _ROW for line in (start, last)):
        return False
    return table(state, start, end, silent)


def _formula_block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A formula that begins with `$$` or `\\[` at the start of a line, up to its end mark or an empty line."""
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
            return False  # in the middle of a line
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
