"""Lexical search by grams, in two phases: find candidate pieces by the rarest grams, then score them exactly.

Scores are BM25 over all grams of the question. All statistics (number of pieces, their mean length, document frequency
of a gram) are taken over all searched bases together. So several bases give the same hits as one base with all their
files.
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from chatglm.knowledge.grams import WIDE, is_word
from chatglm.knowledge.store import VISIBLE, Store

__all__ = ["CANDIDATES", "Candidate", "Finder", "Scored", "Statistics", "View", "Words", "candidates", "scored"]

K1, B = 1.2, 0.75
"""The usual parameters of BM25."""
BESIDE = 0.2
"""Share of the better neighbour's score that is added to the score of a piece."""
AROUND = 0.1
"""Weight of a gram that occurs in a neighbouring piece, compared with the piece itself."""
WIDENED = 60
"""Number of pieces whose neighbours are loaded: those with the best scores before neighbours are counted."""
CANDIDATES = 300
"""Number of candidates that are scored exactly."""
BUDGET = 10_000
"""Largest number of index entries (gram, piece) that are read to find candidates."""
LARGE_BUDGET = 60_000
"""The same for a base with a `Finder`."""
_FILTERED_BUDGET = 10
"""The budget is multiplied by this if only some files are searched."""
_SPARE, _FILTERED_SPARE = 2, 30
"""A `Finder` is asked for this many times `limit` pieces: if all files are searched, and if only some are."""
_LEAST_GRAMS = 3
"""Smallest number of grams that are used to find candidates, even if they exceed the budget."""
_MOST_TIES = 5_000
"""Largest number of pieces with equal sums that are compared by their digests."""
_COLUMNS = "piece.id, piece.file, file.name, piece.n, piece.digest, piece.length, piece.folded"


class Finder(Protocol):
    """An additional index beside the index in the base's file. `large.Tantivy` implements it."""

    def ready(self, connection: sqlite3.Connection) -> bool:
        """Whether it has all pieces that this connection sees."""

    def find(
        self, connection: sqlite3.Connection, weights: Mapping[str, float], limit: int
    ) -> tuple[list[int], list[float]]:
        """The pieces with the largest sum of weights of the grams that they contain.

        Returns:
            ids of at least `limit` pieces (if there are so many), and their sums.
        """

    def follow(self) -> None:
        """Add new pieces of the base to the index."""


@dataclass(frozen=True)
class View:
    """A base in one search.

    Attributes:
        store: the base.
        connection: a read transaction; all queries of the search use it.
        finder: the additional index, if it is up to date; None: use the index in the file.
        files: ids of the files to search; None: all.
    """

    store: Store
    connection: sqlite3.Connection
    finder: Finder | None = None
    files: frozenset[int] | None = None


class Candidate(NamedTuple):
    """The data of a piece that scoring needs.

    Attributes:
        view: number of its base in the list of views, from 0.
        id: id of the piece.
        file, name: id and name of its file.
        n: number of the piece in its file, from 0.
        digest: digest of its header and text.
        length: how many grams it has.
        folded: its header and text, normalised by `grams.folded`.
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
    """A candidate with its score.

    Attributes:
        piece: the candidate.
        score: its BM25 score, with the contribution of its neighbours.
        covered: the share of the question's grams that the piece contains, weighted by idf; from 0 to 1.
    """

    piece: Candidate
    score: float
    covered: float


@dataclass(frozen=True)
class Statistics:
    """Statistics of a question's grams over all bases together.

    Attributes:
        weights: the weight of each gram: 1 for grams of the question, less for grams of an earlier question and for
            added grams.
        counts: document frequency: the number of pieces that contain the gram.
        pieces: number of pieces.
        length: mean number of grams in a piece.
        added: grams of synonyms that the question itself does not have. They raise the score of a piece, but do not
            count for `covered` and `unknown`.
    """

    weights: Mapping[str, float]
    counts: Mapping[str, int]
    pieces: int
    length: float
    added: frozenset[str] = frozenset()

    @classmethod
    def of(cls, views: Sequence[View], weights: Mapping[str, float], added: frozenset[str] = frozenset()) -> Statistics:
        """Collect the statistics from the bases."""
        pieces = grams = 0
        counts = dict.fromkeys(weights, 0)
        for view in views:
            more, length = view.store.size(view.connection)
            pieces, grams = pieces + more, grams + length
            for gram, count in view.store.counts(view.connection, weights).items():
                counts[gram] += count
        return cls(weights, counts, pieces, grams / max(pieces, 1), added)

    def idf(self, gram: str) -> float:
        """The inverse document frequency of a gram times its weight: BM25's idf in the form of Lucene, which is never
        negative."""
        count = min(self.counts[gram], self.pieces)
        return self.weights[gram] * math.log(1 + (self.pieces - count + 0.5) / (count + 0.5))

    def unknown(self) -> float:
        """The share of the question's pairs and words that occur in no piece; from 0 to 1."""
        long = [gram for gram in self.weights if len(gram) > 1 and gram not in self.added]
        return sum(not self.counts[gram] for gram in long) / len(long) if long else 0.0

    def rarest(self, budget: int) -> dict[str, float]:
        """The rarest grams, with their idf, for finding candidates: as many as stay within `budget` index entries, but
        at least three if so many occur."""
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
    """Find the pieces with the largest sum of idf over the question's rarest grams, in any order.

    Args:
        limit: largest number of pieces.
        budget: see `BUDGET`; None: `BUDGET` or `LARGE_BUDGET`, depending on the index of each base.
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
    # Sums of the same weights in another order differ in the last digits, so compare rounded sums.
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
    """The first `limit` pieces that are searchable. Pieces with equal sums at the limit are chosen by their digests, so
    that the choice does not depend on how texts are distributed over bases."""
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
    """The digests of those pieces that are searchable, by (view, id)."""
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
    """Load the pieces with these ids. Pieces that are not searchable (disabled, old, of other files) are left out.

    Args:
        number: the number of the view, for `Candidate.view`.
    """
    if not ids:
        return []
    cursor = view.connection.cursor()
    cursor.row_factory = None
    rows = cursor.execute(
        f"SELECT {_COLUMNS} FROM piece JOIN file ON file.id = piece.file "
        f"WHERE piece.id IN ({','.join(map(str, ids))}) AND {VISIBLE}"
    )
    return [Candidate(number, *row) for row in rows if view.files is None or row[1] in view.files]


class Words:
    """Counts the grams of a question in texts and computes BM25 (Robertson and Zaragoza, 2009).

    Attributes:
        total: the sum of idf over all grams. The BM25 score of a text is always less than `(K1 + 1) * total`.
    """

    def __init__(self, statistics: Statistics) -> None:
        idf = {gram: statistics.idf(gram) for gram in statistics.weights}
        self.total = sum(idf.values())
        self._asked = sum(weight for gram, weight in idf.items() if gram not in statistics.added)
        known = [gram for gram in idf if statistics.counts[gram]]
        self._wide = [gram for gram in known if not is_word(gram)]
        self._words = [(gram, _whole(gram)) for gram in known if is_word(gram)]
        order = [*self._wide, *(gram for gram, _ in self._words)]
        self._idf = np.array([idf[gram] for gram in order])
        self._own = np.array([0.0 if gram in statistics.added else idf[gram] for gram in order])
        self._length = statistics.length or 1.0

    def counts(self, folded: str) -> NDArray[np.float64]:
        """How often each gram occurs in a folded text: (grams,) of float64. Grams that no piece has are left out."""
        count = folded.count
        found: list[int] = [count(gram) for gram in self._wide]
        found += [len(whole.findall(folded)) if word in folded else 0 for word, whole in self._words]
        return np.array(found, np.float64)

    def scores(self, counts: NDArray[np.float64], lengths: NDArray[np.float64]) -> NDArray[np.float64]:
        """BM25 scores: (texts,). They are rounded, so that the score of a text does not depend on the other texts.

        Args:
            counts: (texts, grams), each row from `counts`.
            lengths: number of grams in each text: (texts,).
        """
        norm = K1 * (1 - B + B * lengths / self._length)
        parts: NDArray[np.float64] = counts * (K1 + 1) / (counts + norm[:, None]) * self._idf
        scores: NDArray[np.float64] = parts.sum(axis=1).round(9)
        return scores

    def covered(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """The share of the question's grams that each text contains, weighted by idf: (texts,), from 0 to 1.

        Args:
            counts: (texts, grams), each row from `counts`.
        """
        shares: NDArray[np.float64] = ((counts > 0) * self._own).sum(axis=1) / (self._asked or 1.0)
        return shares

    def of(self, folded: str, length: int) -> tuple[float, float]:
        """Score and covered share of one folded text.

        Args:
            length: number of its grams.
        """
        counts = self.counts(folded)[None]
        return float(self.scores(counts, np.array([float(length)]))[0]), float(self.covered(counts)[0])


def _whole(word: str) -> re.Pattern[str]:
    letter = rf"[^\W_{WIDE}]"
    return re.compile(rf"(?<!{letter}){re.escape(word)}(?!{letter})")


def scored(views: Sequence[View], found: Sequence[Candidate], words: Words) -> list[Scored]:
    """Score candidates exactly; the best first. Equal scores are ordered by file name and number, not by base.

    Neighbouring pieces of a file are usually about the same subject: one may have the name, the other the fact that the
    question asks for. So grams in the neighbours count with the weight `AROUND`, and the piece gets the share `BESIDE`
    of the better neighbour's score.
    """
    if not found:
        return []
    counts = {_place(each): words.counts(each.folded) for each in found}
    lengths = {_place(each): float(each.length) for each in found}
    alone = _scores(words, counts, lengths)
    best = sorted(found, key=lambda each: (-alone[_place(each)], each.name, each.n))[:WIDENED]
    new = _neighbours(views, best, counts)
    counts |= {_place(each): words.counts(each.folded) for each in new}
    lengths |= {_place(each): float(each.length) for each in new}
    alone |= _scores(words, {_place(each): counts[_place(each)] for each in new}, lengths)
    widened, beside = dict(counts), {}
    for each in found:
        view, file, n = place = _place(each)
        for neighbour in ((view, file, n - 1), (view, file, n + 1)):
            if neighbour in counts:
                widened[place] = widened[place] + AROUND * counts[neighbour]
        beside[place] = BESIDE * max(alone.get((view, file, n - 1), 0.0), alone.get((view, file, n + 1), 0.0))
    places = [_place(each) for each in found]
    scores = _scores(words, {place: widened[place] for place in places}, lengths)
    covered = words.covered(np.array([counts[place] for place in places])).tolist()
    result = [
        Scored(each, scores[place] + beside[place], share)
        for each, place, share in zip(found, places, covered, strict=True)
    ]
    return sorted(result, key=lambda each: (-each.score, each.piece.name, each.piece.n))


def _place(piece: Candidate) -> tuple[int, int, int]:
    return piece.view, piece.file, piece.n


def _scores(
    words: Words,
    counts: Mapping[tuple[int, int, int], NDArray[np.float64]],
    lengths: Mapping[tuple[int, int, int], float],
) -> dict[tuple[int, int, int], float]:
    if not counts:
        return {}
    scores = words.scores(np.array(list(counts.values())), np.array([lengths[place] for place in counts]))
    return dict(zip(counts, scores.tolist(), strict=True))


def _neighbours(
    views: Sequence[View], pieces: Sequence[Candidate], known: Mapping[tuple[int, int, int], Any]
) -> list[Candidate]:
    """Load the pieces before and after these in their files, except known ones."""
    found: list[Candidate] = []
    for number, view in enumerate(views):
        wanted = {
            (each.file, n)
            for each in pieces
            if each.view == number
            for n in (each.n - 1, each.n + 1)
            if n >= 0 and (number, each.file, n) not in known
        }
        if not wanted:
            continue
        cursor = view.connection.cursor()
        cursor.row_factory = None
        rows = cursor.execute(
            f"WITH wanted (file, n) AS (VALUES {','.join(f'({file},{n})' for file, n in sorted(wanted))}) "
            f"SELECT {_COLUMNS} FROM wanted CROSS JOIN file ON file.id = wanted.file CROSS JOIN piece "
            f"ON piece.file = file.id AND piece.generation = file.generation AND piece.n = wanted.n WHERE {VISIBLE}"
        )
        found += [Candidate(number, *row) for row in rows]
    return found
