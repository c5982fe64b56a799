"""Finding pieces by their grams, in two phases: candidates by the question's rarest grams, then exact scores.

Scores are BM25's over all grams of the question. Every count (how many pieces there are, how long they are, in how many
a gram stands) is of all bases together, so several bases answer as one base with all their files would.
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from chatglm.knowledge.grams import WIDE, is_word
from chatglm.knowledge.store import VISIBLE, Store

__all__ = ["CANDIDATES", "Candidate", "Finder", "Scored", "Statistics", "View", "Words", "candidates", "scored"]

K1, B = 1.2, 0.75
BESIDE = 0.2
"""How much of the better neighbour's score a piece gets."""
CANDIDATES = 300
BUDGET = 10_000
"""Pieces that are looked at for candidates, each as often as it holds one of the grams that are taken."""
LARGE_BUDGET = 60_000
_FILTERED_BUDGET = 10
_SPARE, _FILTERED_SPARE = 2, 30
_LEAST_GRAMS = 3
_MOST_TIES = 5_000


class Finder(Protocol):
    """An index of its own, beside that of the base's file."""

    def ready(self, connection: sqlite3.Connection) -> bool:
        """Whether it has all of the base as this connection sees it."""

    def find(
        self, connection: sqlite3.Connection, weights: Mapping[str, float], limit: int
    ) -> tuple[list[int], list[float]]:
        """The pieces with the largest sums of weights of the grams that they hold, at least so many."""

    def follow(self) -> None:
        """Take in what is new in the base."""


@dataclass(frozen=True)
class View:
    """A base as a search sees it.

    Attributes:
        files: ids of those that are searched; None: all.
    """

    store: Store
    connection: sqlite3.Connection
    finder: Finder | None = None
    files: frozenset[int] | None = None


class Candidate(NamedTuple):
    """What is needed of a piece to score it.

    Attributes:
        view: number of its base's view.
        folded: its header and text, as grams see them.
        length: how many grams it has.
    """

    view: int
    id: int
    file: int
    name: str
    n: int
    digest: bytes
    length: int
    folded: str


@dataclass(frozen=True)
class Scored:
    """
    Attributes:
        score: BM25.
        covered: the share of the question, by how rare its grams are, that stands in the piece; from 0 to 1.
    """

    piece: Candidate
    score: float
    covered: float


@dataclass(frozen=True)
class Statistics:
    """Of a question's grams in all bases together.

    Attributes:
        weights: of the question's grams; 1 but for those of an earlier question.
        counts: in how many pieces each gram stands.
        pieces, length: how many there are, and how many grams one has on average.
    """

    weights: Mapping[str, float]
    counts: Mapping[str, int]
    pieces: int
    length: float

    @classmethod
    def of(cls, views: Sequence[View], weights: Mapping[str, float]) -> Statistics:
        pieces = grams = 0
        counts = dict.fromkeys(weights, 0)
        for view in views:
            more, length = view.store.size(view.connection)
            pieces, grams = pieces + more, grams + length
            for gram, count in view.store.counts(view.connection, weights).items():
                counts[gram] += count
        return cls(weights, counts, pieces, grams / max(pieces, 1))

    def idf(self, gram: str) -> float:
        count = min(self.counts[gram], self.pieces)
        return self.weights[gram] * math.log(1 + (self.pieces - count + 0.5) / (count + 0.5))

    def unknown(self) -> float:
        """The share of the question's longer grams (pairs, words) that stand nowhere; from 0 to 1."""
        long = [gram for gram in self.weights if len(gram) > 1]
        return sum(not self.counts[gram] for gram in long) / len(long) if long else 0.0

    def rarest(self, budget: int) -> dict[str, float]:
        """Grams for candidates, with their idf: the rarest first, while all together stand in few pieces."""
        known = sorted((count, gram) for gram, count in self.counts.items() if count)
        taken: dict[str, float] = {}
        total = 0
        for count, gram in known:
            total += count
            if len(taken) >= _LEAST_GRAMS and total > budget:
                break
            taken[gram] = self.idf(gram)
        return taken


def candidates(
    views: Sequence[View], statistics: Statistics, limit: int = CANDIDATES, budget: int | None = None
) -> list[Candidate]:
    """The pieces with the most of the question's rare grams, in any order.

    Args:
        budget: see `BUDGET`; None: as the bases' indexes allow.
    """
    found: list[tuple[NDArray[np.float64], NDArray[np.int64], Sequence[int]]] = []
    for number, view in enumerate(views):
        own = budget or (LARGE_BUDGET if view.finder else BUDGET)
        grams = statistics.rarest(own * (_FILTERED_BUDGET if view.files is not None else 1))
        ids, scores = _found(view, grams, limit)
        found.append((scores, ids, [number] * len(ids)))
    scores = np.concatenate([each[0] for each in found]) if found else np.empty(0)
    ids = np.concatenate([each[1] for each in found]) if found else np.empty(0, np.int64)
    owners = np.concatenate([np.asarray(each[2], np.int64) for each in found]) if found else ids
    # The digits behind are rounding: sums of the same weights in another order.
    order = np.argsort(-scores.round(9), kind="stable")
    return _best(views, ids[order], owners[order], scores[order].round(9), limit)


def _found(view: View, grams: Mapping[str, float], limit: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    if view.finder is not None and grams:
        reply = view.finder.find(view.connection, grams, limit * (_SPARE if view.files is None else _FILTERED_SPARE))
        return np.asarray(reply[0], np.int64), np.asarray(reply[1], np.float64)
    parts, weights = [], []
    cursor = view.connection.cursor()
    cursor.row_factory = None
    for gram, weight in grams.items():
        rows = cursor.execute("SELECT rowid FROM gram WHERE gram MATCH ?", (f'"{gram}"',)).fetchall()
        parts.append(np.fromiter((row[0] for row in rows), np.int64, len(rows)))
        weights.append(np.full(len(rows), weight))
    if not parts:
        return np.empty(0, np.int64), np.empty(0)
    ids, places = np.unique(np.concatenate(parts), return_inverse=True)
    sums = np.zeros(len(ids))
    np.add.at(sums, places, np.concatenate(weights))
    return ids, sums


def _best(
    views: Sequence[View], ids: NDArray[np.int64], owners: NDArray[np.int64], scores: NDArray[np.float64], limit: int
) -> list[Candidate]:
    """The first that are searched at all; among equals at the end, those that every base of the same texts takes."""
    taken: list[tuple[float, bytes, Candidate]] = []
    at = 0
    while at < len(ids) and len(taken) < limit:
        part = slice(at, at + limit)
        found = {(piece.view, piece.id): piece for piece in _pieces(views, ids[part], owners[part])}
        for place in zip(owners[part].tolist(), ids[part].tolist(), scores[part].tolist(), strict=True):
            if (piece := found.get(place[:2])) is not None:
                taken.append((place[2], piece.digest, piece))
        at += limit
    if len(taken) < limit:
        return [piece for _, _, piece in taken]
    cut = sorted((score for score, _, _ in taken), reverse=True)[limit - 1]
    sure = [piece for score, _, piece in taken if score > cut]
    equal = {(piece.view, piece.id): piece.digest for score, _, piece in taken if score == cut}
    more = at + int(np.searchsorted(-scores[at:], -cut, side="right"))
    more = min(more, at + _MOST_TIES)
    equal |= _digests(views, ids[at:more], owners[at:more])
    chosen = sorted(equal, key=lambda key: (equal[key], key))[: limit - len(sure)]
    keys = np.array(chosen, np.int64).reshape(-1, 2)
    return sure + _pieces(views, keys[:, 1], keys[:, 0])


def _pieces(views: Sequence[View], ids: NDArray[np.int64], owners: NDArray[np.int64]) -> list[Candidate]:
    return [
        piece for number, view in enumerate(views) for piece in pieces_of(view, number, ids[owners == number].tolist())
    ]


def _digests(views: Sequence[View], ids: NDArray[np.int64], owners: NDArray[np.int64]) -> dict[tuple[int, int], bytes]:
    """Of the pieces that are searched, by view and id."""
    found: dict[tuple[int, int], bytes] = {}
    for number, view in enumerate(views):
        own = ids[owners == number].tolist()
        if own:
            rows = view.connection.execute(
                "SELECT piece.id, piece.file, piece.digest FROM piece JOIN file ON file.id = piece.file "
                f"WHERE piece.id IN ({','.join(map(str, own))}) AND {VISIBLE}"
            )
            found |= {(number, row[0]): row[2] for row in rows if view.files is None or row[1] in view.files}
    return found


def pieces_of(view: View, number: int, ids: Sequence[int]) -> list[Candidate]:
    """Those of the pieces with these ids that are searched."""
    if not ids:
        return []
    cursor = view.connection.cursor()
    cursor.row_factory = None
    rows = cursor.execute(
        "SELECT piece.id, piece.file, file.name, piece.n, piece.digest, piece.length, piece.folded "
        f"FROM piece JOIN file ON file.id = piece.file WHERE piece.id IN ({','.join(map(str, ids))}) AND {VISIBLE}"
    )
    return [Candidate(number, *row) for row in rows if view.files is None or row[1] in view.files]


class Words:
    """Counts grams of a question in pieces."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics
        self._idf = {gram: statistics.idf(gram) for gram in statistics.weights}
        self.total = sum(self._idf.values())
        self._words = {gram: _whole(gram) for gram in self._idf if is_word(gram)}
        self._wide = [(gram, idf) for gram, idf in self._idf.items() if gram not in self._words]

    def score(self, folded: str, length: int) -> tuple[float, float]:
        """BM25 and the covered share of a text as `grams.folded` makes it, which has so many grams."""
        norm = K1 * (1 - B + B * length / (self._statistics.length or 1))
        score = covered = 0.0
        for gram, idf in self._wide:
            if count := folded.count(gram):
                covered += idf
                score += idf * count * (K1 + 1) / (count + norm)
        for gram, expression in self._words.items():
            if gram in folded and (count := len(expression.findall(folded))):
                covered += self._idf[gram]
                score += self._idf[gram] * count * (K1 + 1) / (count + norm)
        return score, covered / self.total if self.total else 0.0


def _whole(word: str) -> re.Pattern[str]:
    letter = rf"[^\W_{WIDE}]"
    return re.compile(rf"(?<!{letter}){re.escape(word)}(?!{letter})")


def scored(found: Sequence[Candidate], words: Words) -> list[Scored]:
    """Exact scores, the best first; of equals, by file and number, whichever base they are in.

    A piece whose neighbour in the file scores well is about the same, and gets a part of that: the name stands in one
    and what is asked of it in the other.
    """
    own = {(each.view, each.file, each.n): words.score(each.folded, each.length) for each in found}
    scores = []
    for each in found:
        score, covered = own[each.view, each.file, each.n]
        beside = (own.get((each.view, each.file, n), (0.0, 0.0))[0] for n in (each.n - 1, each.n + 1))
        scores.append(Scored(each, score + BESIDE * max(beside), covered))
    return sorted(scores, key=lambda each: (-each.score, each.piece.name, each.piece.n))
