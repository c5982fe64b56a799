"""How well a base finds what answers questions, and refuses others: measured with one's own questions.

A question is a line of JSON: `question`; `file`, the file that answers it; `answers`, words that stand where it is
answered, or `start` and `end` in characters of the file's text. `"answerable": false` is a question that the documents
do not answer. A file of SQuAD's form (CMRC 2018, DRCD) is read too; its passages are files named by their ids.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

from chatglm.errors import DependencyError, InputError, OutputError
from chatglm.knowledge.base import Base, Bases
from chatglm.knowledge.grams import grams, question_grams
from chatglm.knowledge.models import Embedder
from chatglm.knowledge.searching import Hit, Mode
from chatglm.knowledge.store import NotFoundError, StoredPiece
from chatglm.knowledge.summarising import language_of

__all__ = [
    "Found",
    "Question",
    "Refusals",
    "beside_langchain",
    "found_in",
    "generated",
    "read_questions",
    "refusals",
    "write_questions",
]

DEPTH = 10
BUDGETS = (1_500, 3_000)
_CUTS = (1, 3, 5, 10)
_LINES = 100_000
_BYTES = 256 << 20


@dataclass(frozen=True)
class Question:
    """
    Attributes:
        file: that answers it; "": any.
        answers: words that stand where it is answered.
        spans: (start, end) of such places in the file's text.
        answerable: whether the documents answer it.
    """

    text: str
    file: str = ""
    answers: tuple[str, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()
    answerable: bool = True


def read_questions(path: Path) -> list[Question]:
    """
    Raises:
        InputError: the file cannot be read, or a line is not a question; the message has its number.
    """
    try:
        if path.stat().st_size > _BYTES:
            raise InputError(f"{path}: is larger than {_BYTES >> 20} MiB; split it")
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if path.suffix == ".json":
        return list(_squad(path, text))
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            found.append(_question(line, f"{path}:{number}"))
        if len(found) > _LINES:
            raise InputError(f"{path}: has more than {_LINES:,} questions; take fewer")
    if not found:
        raise InputError(f"{path}: has no questions")
    return found


def _question(line: str, where: str) -> Question:
    try:
        row = json.loads(line)
        answers = row.get("answers", [row["answer"]] if "answer" in row else [])
        answers = [answer["text"] if isinstance(answer, dict) else answer for answer in answers]
        spans = ((int(row["start"]), int(row["end"])),) if "start" in row else ()
        if not isinstance(row["question"], str) or not all(isinstance(answer, str) for answer in answers):
            raise TypeError("question and answers must be text")
        return Question(
            row["question"], str(row.get("file", "")), tuple(answers), spans, bool(row.get("answerable", True))
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f'{where}: is not a question ({type(error).__name__}: {error}); write {{"question": …, "file": …, '
            '"answers": […]}}'
        ) from None


def _squad(path: Path, text: str) -> Iterator[Question]:
    try:
        for article in json.loads(text)["data"]:
            for passage in article["paragraphs"]:
                for asked in passage["qas"]:
                    spans = {
                        (answer["answer_start"], answer["answer_start"] + len(answer["text"]))
                        for answer in asked["answers"]
                    }
                    name = str(passage.get("id", asked["id"].partition("_QUERY")[0]))
                    yield Question(asked["question"], f"{name}.txt", spans=tuple(sorted(spans)), answerable=bool(spans))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: is not in SQuAD's form ({type(error).__name__}: {error})") from None


@dataclass
class Found:
    """What was found of questions.

    Attributes:
        ranks: of the first hit that answers, for each question; None: there was none among the first ten.
        within: how many questions are answered within so many characters of the hits, the best first.
    """

    ranks: list[int | None] = field(default_factory=list)
    within: dict[int, int] = field(default_factory=lambda: dict.fromkeys(BUDGETS, 0))

    def hit(self, cut: int) -> float:
        """The share of questions that one of the first hits answers."""
        return sum(rank is not None and rank <= cut for rank in self.ranks) / max(len(self.ranks), 1)

    @property
    def mrr(self) -> float:
        """Mean of 1/rank."""
        return math.fsum(1 / rank for rank in self.ranks if rank) / max(len(self.ranks), 1)

    def to_dict(self) -> dict[str, Any]:
        return {
            "questions": len(self.ranks),
            **{f"hit@{cut}": round(self.hit(cut), 4) for cut in _CUTS},
            "mrr": round(self.mrr, 4),
            **{f"within_{budget}": round(count / max(len(self.ranks), 1), 4) for budget, count in self.within.items()},
        }

    def note(self, places: Sequence[tuple[str, int, int, str]], question: Question, spans: _Spans) -> None:
        """Count what was found, the best first: file, start, end and text of each."""
        right = [_answers(question, spans, *place) for place in places]
        self.ranks.append(next((n for n, yes in enumerate(right[:DEPTH], 1) if yes), None))
        for budget in self.within:
            used = 0
            for yes, (_, _, _, text) in zip(right, places, strict=True):
                used += len(text)
                if used > budget:
                    break
                if yes:
                    self.within[budget] += 1
                    break


_Spans = dict[str, list[tuple[int, int]]]


def _answers(question: Question, spans: _Spans, file: str, start: int, end: int, text: str) -> bool:
    if spans:
        return any(start < stop and begin < end for begin, stop in spans.get(file, ()))
    return any(answer in text for answer in question.answers)


class _Places:
    """Where in the files questions are answered."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._texts: dict[str, str] = {}

    def of(self, question: Question) -> _Spans:
        if not question.file:
            return {}
        if question.spans:
            return {question.file: list(question.spans)}
        if question.file not in self._texts:
            try:
                self._texts[question.file] = self._base.text(question.file)
            except NotFoundError:
                raise InputError(
                    f"question {question.text[:60]!r}: the base has no file {question.file!r}; is it the right base?"
                ) from None
        text = self._texts[question.file]
        return {
            question.file: [
                match.span() for answer in question.answers for match in re.finditer(re.escape(answer), text)
            ]
        }


def found_in(
    base: Base,
    questions: Sequence[Question],
    *,
    mode: Mode = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Found:
    """Ask a base all questions that it answers.

    Raises:
        InputError: a question names a file that the base has not.
    """
    places, found = _Places(base), Found()
    asked = [question for question in questions if question.answerable]
    for number, question in enumerate(asked, 1):
        hits = base.search(question.text, k=50, mode=mode)
        found.note([_place(hit) for hit in hits], question, places.of(question))
        if progress is not None:
            progress(number, len(asked))
    return found


def _place(hit: Hit) -> tuple[str, int, int, str]:
    return hit.file, hit.start, hit.end, hit.text


# Refusals


@dataclass(frozen=True)
class Refusals:
    """How questions that are answered, and others, are told apart without a model.

    Attributes:
        right, wrong: `Answerable.value` of the questions that are not answered, and of those that are.
    """

    right: tuple[float, ...]
    wrong: tuple[float, ...]

    def at(self, limit: float) -> tuple[float, float]:
        """The shares of the others, and of the answered ones, that are refused above a limit."""
        return tuple(
            sum(value > limit for value in values) / max(len(values), 1) for values in (self.right, self.wrong)
        )  # type: ignore[return-value]

    def limit(self, wrong: float = 0.03) -> float:
        """The lowest limit that refuses at most this share of the answered questions."""
        return min((value for value in self.wrong if self.at(value)[1] <= wrong), default=0.0)

    @property
    def auc(self) -> float:
        """How often an unanswered question has the larger value of two."""
        pairs = [(a > b) + (a == b) / 2 for a in self.right for b in self.wrong]
        return math.fsum(pairs) / max(len(pairs), 1)

    def to_dict(self) -> dict[str, Any]:
        limits = sorted({*(round(-2 + 0.1 * step, 1) for step in range(31)), round(self.limit(), 3), 0.17, 0.04})
        return {
            "unanswered": len(self.right),
            "answered": len(self.wrong),
            "auc": round(self.auc, 4),
            "limit_at_3_percent": round(self.limit(), 4),
            "curve": [
                {"limit": limit, "refused": round(right, 4), "refused_wrongly": round(wrong, 4)}
                for limit in limits
                for right, wrong in [self.at(limit)]
            ],
        }


def refusals(base: Base, questions: Sequence[Question]) -> Refusals:
    """Values of all questions: see `Answerable`."""
    bases = Bases([base])
    values = [(question.answerable, bases.answerable(question.text).value) for question in questions]
    return Refusals(
        tuple(value for answerable, value in values if not answerable),
        tuple(value for answerable, value in values if answerable),
    )


# Questions that a model makes

_ASK = {
    "zh": "下面是一段文字。请就其中的内容提一个问题，使读过它的人能够回答；不要提到“这段文字”，只写出问题。\n\n{text}",
    "en": "Read this text and ask one question about what it says, which somebody who has read it can answer. Do not "
    "mention the text, and write the question only.\n\n{text}",
}
_AT_ONCE = 8
_TRIED = 10
"""Pieces that are looked at for each that is wanted: some are too short."""
_LEAST = 80
_LONGEST = 200


def generated(base: Base, count: int, ask: Callable[[str], str], *, seed: int = 0) -> Iterator[Question | None]:
    """Questions on pieces that are drawn from a base, as a model asks them; the piece is where each is answered.

    Args:
        count: of pieces; there may be fewer that say enough.
        ask: a model: a prompt to its answer. It is called in several threads at once.

    Yields:
        for each piece its question; None: what the model wrote is none, or has nothing of the piece in it.
    """
    pieces = list(_drawn(base, count, Random(seed)))
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        try:
            prompts = [_ASK[language_of(text)].replace("{text}", text) for _, text in pieces]
            for (piece, text), answer in zip(pieces, threads.map(ask, prompts), strict=True):
                yield _asked_of(piece, text, answer)
        finally:
            threads.shutdown(cancel_futures=True)


def _drawn(base: Base, count: int, rng: Random) -> Iterator[tuple[StoredPiece, str]]:
    """Pieces that say something, at random, and their texts."""
    files = [file for file in base.files() if file.pieces]
    ends = list(accumulate(file.pieces for file in files))
    total = ends[-1] if ends else 0
    for place in rng.sample(range(total), min(total, _TRIED * count)):
        if count <= 0:
            return
        number = bisect_right(ends, place)
        piece = base.store.piece(files[number].name, None, ends[number] - 1 - place)
        if piece is not None and not piece.disabled and len(text := piece.text.strip()) >= _LEAST:
            count -= 1
            yield piece, text


def _asked_of(piece: StoredPiece, text: str, answer: str) -> Question | None:
    line = next((line.strip() for line in answer.splitlines() if line.strip()), "")
    if not 4 <= len(line) <= _LONGEST:
        return None
    own = {gram for gram in question_grams(line) if len(gram) > 1}
    return Question(line, piece.file, spans=((piece.start, piece.end),)) if own & set(grams(text)) else None


def write_questions(path: Path, questions: Sequence[Question]) -> None:
    """Into a new file, as `read_questions` reads them.

    Raises:
        OutputError: the file exists, or cannot be written.
    """
    rows = [
        {"question": each.text, "file": each.file, "start": each.spans[0][0], "end": each.spans[0][1]}
        for each in questions
    ]
    try:
        with path.open("x", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from None


# What LangChain's usual pipeline finds


def beside_langchain(
    base: Base,
    questions: Sequence[Question],
    embedder: Embedder,
    *,
    size: int = 1000,
    overlap: int = 200,
    progress: Callable[[int, int], None] | None = None,
) -> Found:
    """The same questions, asked LangChain's stock pipeline: `RecursiveCharacterTextSplitter`, and the nearest vectors
    of the same embedder, compared one by one as an exact FAISS index does.

    Raises:
        DependencyError: langchain-text-splitters is not installed.
    """
    try:
        from langchain_text_splitters import RecursiveCharacterTextSplitter
    except ImportError:
        raise DependencyError(
            "the comparison needs LangChain's splitters: pip install langchain-text-splitters"
        ) from None
    import numpy as np

    splitter = RecursiveCharacterTextSplitter(chunk_size=size, chunk_overlap=overlap, add_start_index=True)
    chunks: list[tuple[str, int, int, str]] = []
    for file in base.files():
        if file.pieces:
            for document in splitter.create_documents([base.text(file.name)]):
                start = document.metadata["start_index"]
                chunks.append((file.name, start, start + len(document.page_content), document.page_content))
    if not chunks:
        raise InputError(f"{base.name}: has no text")
    parts = []
    for at in range(0, len(chunks), 32):
        parts.append(embedder.passages([text for _, _, _, text in chunks[at : at + 32]]))
        if progress is not None:
            progress(min(at + 32, len(chunks)), len(chunks))
    vectors = np.concatenate(parts)
    places, found = _Places(base), Found()
    for question in questions:
        if question.answerable:
            order = np.argsort(-(vectors @ embedder.questions([question.text])[0]), kind="stable")[:50]
            found.note([chunks[at] for at in order], question, places.of(question))
    return found
