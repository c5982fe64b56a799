"""Choose the passages for a prompt: first the hits, then pieces around them, as long as the budget allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from chatglm.knowledge.searching import Hit
from chatglm.knowledge.store import StoredPiece

__all__ = ["Passage", "packed", "shown"]

_SENTENCE_ENDS = "。！？!?；;…\n"
_STEPS = 2


@dataclass(frozen=True)
class Passage:
    """A part of a file that goes into a prompt.

    Attributes:
        n: its number in the prompt, from 1.
        base, file: names of the base and of the file.
        start, end: position in the file's text, in characters.
        title: the headings above its best hit, the highest first, with " > " between them.
        page: the page on which it starts. None: the file has no pages.
        text: the file's text from `start` to `end`; edited pieces have their edited text.
        score: the score of its best hit.
        pieces: ids of its pieces, in the order of the file.
        edited: whether it contains an edited piece; then `text` differs from the file.
    """

    n: int
    base: str
    file: str
    start: int
    end: int
    title: str
    page: int | None
    text: str
    score: float
    pieces: tuple[int, ...]
    edited: bool = False

    @property
    def header(self) -> str:
        """The source line of the passage, such as 《员工手册.docx》 第三章 休假（第 12 页）."""
        title = f" {self.title}" if self.title else ""
        page = "" if self.page is None else f"（第 {self.page} 页）"
        return f"《{PurePosixPath(self.file).name}》{title}{page}"


def shown(passages: Sequence[Passage]) -> str:
    """Format passages for a prompt: a line `[1] header`, then the text; passages are separated by an empty line."""
    return "\n\n".join(f"[{each.n}] {each.header}\n{each.text.strip()}" for each in passages)


class Around(Protocol):
    """Loads pieces of a hit's file."""

    def __call__(self, hit: Hit, n: int | None = None) -> StoredPiece | None:
        """Piece number `n` of the hit's file, or, without `n`, the piece of the hit. Returns None if it does not
        exist."""


@dataclass
class _Stretch:
    """Consecutive pieces of one file around a hit.

    Attributes:
        cut: number of characters to keep if a single piece is too long; None: all.
        before, behind: number of pieces that were added before and after the hit.
    """

    hit: Hit
    pieces: list[StoredPiece]
    cut: int | None = None
    before: int = 0
    behind: int = 0

    @property
    def place(self) -> tuple[str, str]:
        return self.hit.base, self.hit.file

    @property
    def first(self) -> int:
        return self.pieces[0].n

    @property
    def last(self) -> int:
        return self.pieces[-1].n


def packed(
    hits: Sequence[Hit],
    budget: float,
    around: Around,
    *,
    k: int = 5,
    cost: Callable[[str], int] = len,
    steps: int | None = _STEPS,
    headings: bool = True,
    show: Callable[[Sequence[Passage]], str] = shown,
) -> list[Passage]:
    """Build passages for a prompt, the best first. Together they cost at most `budget`. No text is in two passages, and
    each passage comes from one file.

    A hit that does not fit is skipped. But if no earlier hit fits either, it is cut at the end of a sentence, and is
    then the only passage.

    Args:
        hits: the hits, the best first.
        budget: largest cost of `show(passages)`, in the unit of `cost`.
        around: loads pieces: see `Bases.around`.
        k: largest number of hits to use.
        cost: the cost of a text, usually its tokens; default: its characters.
        steps: how many pieces before each hit, and how many after it, may be added; None: as many as fit.
        headings: add only pieces under the same headings as the hit.
        show: formats the passages as the prompt has them, to compute their cost.
    """
    taken: list[_Stretch] = []
    for hit in hits[:k]:
        piece = around(hit)
        if piece is None:  # the file has changed since the search
            continue
        new = _Stretch(hit, [piece])
        if _fits([*taken, new], budget, cost, show):
            taken.append(new)
        elif not taken and _cut(new, budget, cost, show):
            return _passages([new])
    queue = list(taken)
    while queue:
        for stretch in list(queue):
            if not _widen(stretch, taken, around, budget, cost, steps, headings, show):
                queue.remove(stretch)
    return _passages(taken)


def _widen(
    stretch: _Stretch,
    taken: Sequence[_Stretch],
    around: Around,
    budget: float,
    cost: Callable[[str], int],
    steps: int | None,
    headings: bool,
    show: Callable[[Sequence[Passage]], str],
) -> bool:
    """Add one neighbouring piece: on the side with fewer added pieces, or else on the other. Returns whether one was
    added."""
    for behind in (True, False) if stretch.behind <= stretch.before else (False, True):
        at = stretch.last + 1 if behind else stretch.first - 1
        if steps is not None and (stretch.behind if behind else stretch.before) >= steps:
            continue
        if any(other.place == stretch.place and other.first <= at <= other.last for other in taken):
            continue  # another passage has this piece already; the two will be joined
        piece = around(stretch.hit, at)
        if piece is None or (headings and piece.title != stretch.hit.title):
            continue
        if piece.disabled and piece.text.strip():
            continue
        stretch.pieces.insert(len(stretch.pieces) if behind else 0, piece)
        if _fits(taken, budget, cost, show):
            if behind:
                stretch.behind += 1
            else:
                stretch.before += 1
            return True
        stretch.pieces.pop(-1 if behind else 0)
    return False


def _fits(
    taken: Sequence[_Stretch], budget: float, cost: Callable[[str], int], show: Callable[[Sequence[Passage]], str]
) -> bool:
    return cost(show(_passages(taken))) <= budget


def _cut(
    stretch: _Stretch, budget: float, cost: Callable[[str], int], show: Callable[[Sequence[Passage]], str]
) -> bool:
    """Cut a single passage that is too long at the end of a sentence. Returns whether any text is left."""
    text = stretch.hit.text
    ends = [at + 1 for at, character in enumerate(text) if character in _SENTENCE_ENDS]
    low, high = 0, len(ends)
    while low < high:
        middle = (low + high) // 2
        stretch.cut = ends[middle]
        if _fits([stretch], budget, cost, show):
            low = middle + 1
        else:
            high = middle
    stretch.cut = ends[low - 1] if low else None
    # A longer text may cost less (tokens), so binary search may be wrong: check the result again.
    return stretch.cut is not None and bool(text[: stretch.cut].strip()) and _fits([stretch], budget, cost, show)


def _passages(taken: Sequence[_Stretch]) -> list[Passage]:
    """Join stretches that overlap or touch into passages, ordered by their best hits."""
    groups: list[list[_Stretch]] = []
    for stretch in sorted(taken, key=lambda each: (each.place, each.first)):
        if groups and groups[-1][-1].place == stretch.place and groups[-1][-1].last + 1 >= stretch.first:
            groups[-1].append(stretch)
        else:
            groups.append([stretch])
    order = {id(stretch): place for place, stretch in enumerate(taken)}
    groups.sort(key=lambda group: min(order[id(stretch)] for stretch in group))
    return [_passage(n, group) for n, group in enumerate(groups, 1)]


def _passage(n: int, group: Sequence[_Stretch]) -> Passage:
    best = max(group, key=lambda stretch: stretch.hit.score)
    own = [piece for stretch in group for piece in stretch.pieces]
    text = "".join(piece.text for piece in own)
    end = own[-1].end
    if (cut := group[0].cut) is not None:
        text, end = text[:cut], own[0].start + cut
    first = own[0]
    return Passage(
        n,
        best.hit.base,
        best.hit.file,
        first.start,
        end,
        best.hit.title,
        first.page,
        text,
        best.hit.score,
        tuple(piece.id for piece in own),
        any(piece.edited for piece in own),
    )
