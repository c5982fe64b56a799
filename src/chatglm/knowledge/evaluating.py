"""Measure retrieval and refusals of a base with your own questions.

A file of questions is JSON Lines. Fields: `question`; `file`: the file that has the answer; `answers`: texts of the
answer, as in the file; or `start` and `end`: its position in characters of the file's text. `"answerable": false`
marks a question that the documents do not answer. A `.json` file in the format of SQuAD (as CMRC 2018 and DRCD) is
read, too. The base then needs one file for each of its passages, named `ID.txt`.
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
    "Places",
    "Question",
    "Refusals",
    "beside_langchain",
    "found_in",
    "generated",
    "langchain_chunks",
    "read_questions",
    "refusals",
    "write_questions",
]

DEPTH = 10
"""Number of hits that are considered for ranks."""
BUDGETS = (1_500, 3_000)
"""Lengths in characters for `Found.within`."""
_CUTS = (1, 3, 5, 10)
_LINES = 100_000
_BYTES = 256 << 20


@dataclass(frozen=True)
class Question:
    """A test question.

    Attributes:
        text: the question.
        file: the file that has the answer; "": any file.
        answers: texts of the answer, as in the file. One of them is enough.
        spans: (start, end) of the answers, in characters of the file's text. They take precedence over `answers`.
        answerable: whether the documents answer the question.
    """

    text: str
    file: str = ""
    answers: tuple[str, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()
    answerable: bool = True


def read_questions(path: Path) -> list[Question]:
    """Read questions from a file (see the module's description).

    Raises:
        InputError: the file cannot be read, is too large, or has no questions, or a line is not a question. The message
            then has the number of the line.
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
    """Results of retrieval over all questions.

    Attributes:
        ranks: for each question the rank (from 1) of the first hit that contains an answer; None: none of the first
            ten hits does.
        within: for each budget of characters, how many questions have an answer in the best hits of this total length.
    """

    ranks: list[int | None] = field(default_factory=list)
    within: dict[int, int] = field(default_factory=lambda: dict.fromkeys(BUDGETS, 0))

    def hit(self, cut: int) -> float:
        """The share of questions with an answer among the first `cut` hits, from 0 to 1."""
        return sum(rank is not None and rank <= cut for rank in self.ranks) / max(len(self.ranks), 1)

    @property
    def mrr(self) -> float:
        """Mean reciprocal rank (MRR): the mean of 1/rank; 0 for a question without a rank."""
        return math.fsum(1 / rank for rank in self.ranks if rank) / max(len(self.ranks), 1)

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values; shares are from 0 to 1."""
        return {
            "questions": len(self.ranks),
            **{f"hit@{cut}": round(self.hit(cut), 4) for cut in _CUTS},
            "mrr": round(self.mrr, 4),
            **{f"within_{budget}": round(count / max(len(self.ranks), 1), 4) for budget, count in self.within.items()},
        }

    def note(self, places: Sequence[tuple[str, int, int, str]], question: Question, spans: _Spans) -> None:
        """Add the result of one question.

        Args:
            places: file, start, end and text of the hits, the best first.
            question: the question.
            spans: the positions of its answers by file; empty: compare texts with `question.answers`.
        """
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


class Places:
    """Finds the positions of answers in the files of a base."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._texts: dict[str, str] = {}

    def of(self, question: Question) -> _Spans:
        """The positions of a question's answers, by file: (start, end) in characters. Empty if it names no file.

        Raises:
            InputError: the base has no such file.
        """
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
    """Search a base for all answerable questions.

    Args:
        mode: see `searching.search`.
        progress: is called with the number of questions done and their total.

    Raises:
        InputError: a question names a file that the base does not have.
    """
    places, found = Places(base), Found()
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
    """How well `Answerable.value` separates unanswerable questions from answerable ones.

    Attributes:
        right: the values of the unanswerable questions, which it is right to refuse.
        wrong: the values of the answerable questions, which it is wrong to refuse.
    """

    right: tuple[float, ...]
    wrong: tuple[float, ...]

    def at(self, limit: float) -> tuple[float, float]:
        """The share of unanswerable questions, and that of answerable ones, whose value is above a limit."""
        return tuple(
            sum(value > limit for value in values) / max(len(values), 1) for values in (self.right, self.wrong)
        )  # type: ignore[return-value]

    def limit(self, wrong: float = 0.03) -> float:
        """The lowest limit that refuses at most the share `wrong` of the answerable questions."""
        return min((value for value in self.wrong if self.at(value)[1] <= wrong), default=0.0)

    @property
    def auc(self) -> float:
        """Area under the ROC curve: how often, of an unanswerable and an answerable question, the unanswerable one has
        the larger value. Equal values count one half."""
        pairs = [(a > b) + (a == b) / 2 for a in self.right for b in self.wrong]
        return math.fsum(pairs) / max(len(pairs), 1)

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values, with the shares of refused questions for several limits."""
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
    """Compute `Answerable.value` for all questions."""
    bases = Bases([base])
    values = [(question.answerable, bases.answerable(question.text).value) for question in questions]
    return Refusals(
        tuple(value for answerable, value in values if not answerable),
        tuple(value for answerable, value in values if answerable),
    )


# Questions that a model writes

_ASK = {
    "zh": "下面是一段文字。请就其中的内容提一个问题，使读过它的人能够回答；不要提到“这段文字”，只写出问题。\n\n{text}",
    "en": "Read this text and ask one question about what it says, which somebody who has read it can answer. Do not "
    "mention the text, and write the question only.\n\n{text}",
}
_AT_ONCE = 8
_TRIED = 10
"""How many pieces are drawn for each wanted piece, because some are too short."""
_LEAST = 80
_LONGEST = 200


def generated(base: Base, count: int, ask: Callable[[str], str], *, seed: int = 0) -> Iterator[Question | None]:
    """Let a model write questions about randomly drawn pieces of a base. The answer to each is in its piece.

    Args:
        count: number of pieces; fewer are used if too few are long enough.
        ask: calls the model: takes a prompt, returns its answer. It is called in several threads at once.
        seed: seed of the random draw.

    Yields:
        a question for each piece. None: the model wrote no usable question, or one that shares no words with the piece.
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
    """Randomly drawn pieces that are long enough and not disabled, with their texts."""
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
    """Write questions into a new file in the format that `read_questions` reads. Only the first of a question's `spans`
    is written, and each question needs one.

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


# Comparison with LangChain's usual pipeline


def langchain_chunks(base: Base, size: int, overlap: int) -> list[tuple[str, int, int, str]]:
    """The texts of a base as LangChain's `RecursiveCharacterTextSplitter` cuts them: file, start, end and text of each
    chunk.

    Args:
        size, overlap: size and overlap of the chunks, in characters.

    Raises:
        DependencyError: langchain-text-splitters is not installed.
    """
    try:
        from langchain_text_splitters import RecursiveCharacterTextSplitter
    except ImportError:
        raise DependencyError(
            "the comparison needs LangChain's splitters: pip install langchain-text-splitters"
        ) from None

    splitter = RecursiveCharacterTextSplitter(chunk_size=size, chunk_overlap=overlap, add_start_index=True)
    chunks: list[tuple[str, int, int, str]] = []
    for file in base.files():
        if file.pieces:
            for document in splitter.create_documents([base.text(file.name)]):
                start = document.metadata["start_index"]
                chunks.append((file.name, start, start + len(document.page_content), document.page_content))
    return chunks


def beside_langchain(
    base: Base,
    questions: Sequence[Question],
    embedder: Embedder,
    *,
    size: int = 1000,
    overlap: int = 200,
    progress: Callable[[int, int], None] | None = None,
) -> Found:
    """Search a base for all answerable questions, but in the way of LangChain's usual pipeline:
    `RecursiveCharacterTextSplitter`, then the nearest vectors. The search is exact, as with a flat FAISS index.

    Args:
        embedder: makes the vectors of chunks and questions.
        size, overlap: size and overlap of the chunks, in characters.
        progress: is called with the number of embedded chunks and their total.

    Raises:
        DependencyError: langchain-text-splitters is not installed.
        InputError: the base has no text, or a question names a file that it does not have.
    """
    import numpy as np

    chunks = langchain_chunks(base, size, overlap)
    if not chunks:
        raise InputError(f"{base.name}: has no text")
    parts = []
    for at in range(0, len(chunks), 32):
        parts.append(embedder.passages([text for _, _, _, text in chunks[at : at + 32]]))
        if progress is not None:
            progress(min(at + 32, len(chunks)), len(chunks))
    vectors = np.concatenate(parts)
    places, found = Places(base), Found()
    for question in questions:
        if question.answerable:
            order = np.argsort(-(vectors @ embedder.questions([question.text])[0]), kind="stable")[:50]
            found.note([chunks[at] for at in order], question, places.of(question))
    return found
