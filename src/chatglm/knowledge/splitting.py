"""Split the text of a document into pieces (chunks) for searching: at headings, paragraphs, sentences or clauses.

The pieces have no gaps and no overlap: joined together, they are the whole text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from chatglm.errors import InputError
from chatglm.knowledge.reading.documents import Mark, Reading

__all__ = ["VERSION", "Piece", "split"]

VERSION = 3
"""Increase this number when texts are cut at other places. All documents are then split and indexed again."""


@dataclass(frozen=True)
class Piece:
    """A piece of a document.

    Attributes:
        file: the name of the file; `split` leaves it "".
        n: its number in the document, from 0.
        start, end: position in the document's text, in characters.
        title: the headings above it, the highest first, with " > " between them.
        text: `reading.text[start:end]`.
    """

    file: str
    n: int
    start: int
    end: int
    title: str
    text: str


_CLOSING = "[”’」』）)\\]】》〉\"']*"
_BLANK = r"[^\S\n]*"
_EMPTY_LINES = rf"(?:{_BLANK}\n)*"
_ITEM = rf"\u3000|{_BLANK}(?:[*•·●○■◆▪–-]|[0-9]{{1,3}}[.)、])[^\S\n]"
_BREAKS: tuple[tuple[float, re.Pattern[str]], ...] = (
    (0.0, re.compile(rf"\n{_BLANK}\n{_EMPTY_LINES}")),
    (0.05, re.compile(rf"(?<=[。！？!?…；．.:：”」』）)]){_CLOSING}{_BLANK}\n{_EMPTY_LINES}")),
    (0.1, re.compile(rf"\n(?={_ITEM})")),
    (0.15, re.compile(rf"(?:[。！？!?．]|…+){_CLOSING}{_BLANK}|\.{_CLOSING}[ \t]+")),
    (0.35, re.compile(rf"[；;]{_CLOSING}{_BLANK}")),
    (0.55, re.compile(rf"[，、：,:—]{_CLOSING}{_BLANK}|\n")),
    (0.9, re.compile(r"[^\S\n]+")),
)
"""A text may be cut after a match of one of these expressions. Each number is the penalty of such a cut: 0.1 is as bad
as a piece that is 10 % too long or too short."""
_WORD = re.compile(r"[^\W\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
_LONGEST_WORD = 1000
_HEADING, _TITLE = 200, 1000
_FILLING = re.compile(r"[\s|+=_*·.\-─━═│┃]{2,}")


def split(reading: Reading, *, size: int = 500, tokens: Callable[[str], int] | None = None) -> Iterator[Piece]:
    """Split a text into pieces, in order.

    Args:
        reading: the text with its headings.
        size: wanted size of a piece, in characters or, with `tokens`, in tokens. It is a target, not a limit: the
            pieces of a section get about equal lengths.
        tokens: counts the tokens of a text. None: count characters. A run of spaces or table rules then counts as one,
            because such runs make up half of some manuals.

    Raises:
        InputError: `size` is less than 20.
    """
    if size < 20:
        raise InputError(f"size={size}: pieces have at least 20 characters or tokens")
    text = reading.text
    n = 0
    for start, end, title in _sections(reading):
        target = _characters_for(text[start:end], size, tokens or _said)
        for begin, stop in pairwise(_cuts(text, start, end, target)):
            yield Piece("", n, begin, stop, title, text[begin:stop])
            n += 1


def _said(text: str) -> int:
    return max(len(_FILLING.sub(" ", text)), len(text) // 3)


def _characters_for(section: str, size: int, tokens: Callable[[str], int]) -> int:
    sample = section[:4000]
    return max(20, round(size * len(sample) / max(tokens(sample), 1)))


def _sections(reading: Reading) -> Iterator[tuple[int, int, str]]:
    """The sections between headings, without gaps: (start, end, title). A heading without text belongs to the section
    of the next heading."""
    path: list[Mark] = []
    at = 0
    said = 0  # where the text after the last heading begins
    for mark in reading.marks:
        if mark.kind != "heading":
            continue
        if mark.start > at and reading.text[said : mark.start].strip():
            yield at, mark.start, _title(path)
            at = mark.start
        said = max(said, mark.end)
        while path and path[-1].level >= mark.level:
            path.pop()
        path.append(mark)
    if at < len(reading.text):
        yield at, len(reading.text), _title(path)


def _title(path: Sequence[Mark]) -> str:
    """The headings above a piece. They are stored with every piece, so a long one is cut."""
    return " > ".join(mark.value[:_HEADING] for mark in path)[:_TITLE]


def _cuts(text: str, start: int, end: int, size: int) -> list[int]:
    """The boundaries of the pieces of a section, with `start` and `end`: about equal parts, cut at good places."""
    cuts = [start]
    while end - cuts[-1] > size * 1.25:
        left = end - cuts[-1]
        target = left / max(round(left / size), 2)
        cuts.append(_best_cut(text, cuts[-1], end, target))
    return cuts if cuts[-1] == end else [*cuts, end]


def _best_cut(text: str, start: int, end: int, target: float) -> int:
    low, high = start + int(target * 0.5), min(start + int(target * 1.4), end - 1)
    ideal = start + target
    best, cost = 0, 9.0
    for penalty, expression in _BREAKS:
        if penalty >= cost:
            break
        for match in expression.finditer(text, low, high):
            at = match.end()
            if low < at < high and penalty + abs(at - ideal) / target < cost and not _is_inside(text, at):
                best, cost = at, penalty + abs(at - ideal) / target
    if best:
        return best
    at = round(ideal)
    for off in range(_LONGEST_WORD):
        for place in (at - off, at + off):
            if start < place <= end and not _is_inside(text, place):
                return place
    return at  # a "word" of this length is data, such as base64; cut anywhere


def _is_inside(text: str, at: int) -> bool:
    """Whether a cut at this place would divide a word or a number."""
    if at >= len(text):
        return False
    before, after = text[at - 1], text[at]
    if _WORD.match(after) and _WORD.match(before):
        return True
    if after.isdigit() and before in ".,:/-" and at > 1 and text[at - 2].isdigit():
        return True
    return before.isdigit() and after in ".,:/-%" and at + 1 < len(text) and text[at + 1].isdigit()
