"""Scores choices by their likelihood to fill a blank. GLM classifies and answers multiple choice this way.

This is the task of infilling (`infill.py`): the context has a blank, and the choice is its target. So the model needs
no further head. The score of a choice is the sum of the log probabilities of its tokens.

| model        | the blank                               | read                                | predicted       |
|--------------|-----------------------------------------|-------------------------------------|-----------------|
| ChatGLM-6B   | `[MASK]`, `[sMASK]`, or text behind it  | before, mask, after, `<sop>` choice | choice, `<eop>` |
| ChatGLM-6B   | `[gMASK]` at the end, or no marker      | before, `[gMASK] <sop>` choice      | choice          |
| later models | text behind it                          | before, mask, after, `sop` choice   | choice, `eop`   |
| later models | any marker at the end, or none          | `[gMASK] sop` before, choice        | choice          |

The last row is the prompt that later models know from their own pre-training. The row above it needs `chatglm
pretrain`. `<eop>` counts if training predicts it there: it distinguishes "the blank is this" from "the blank begins
with this".

Only a marker makes a blank. If a context may contain markers as ordinary text, give it as a pair (before, after): a
pair is not searched for markers.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch

from chatglm.chat.tokenizers import ChatGLMTokenizer
from chatglm.errors import InputError, NumericalError
from chatglm.training.examples import IGNORE, Collator, Example
from chatglm.training.infill import Symbols

__all__ = [
    "ClozeResult",
    "Normalize",
    "Question",
    "Scored",
    "cloze_examples",
    "evaluate_cloze",
    "read_questions",
    "score_choices",
]

MARKERS = ("[MASK]", "[sMASK]", "[gMASK]")

Context: TypeAlias = str | tuple[str, str]
"""A text with at most one marker, or the texts before and after the blank."""

Normalize: TypeAlias = Literal["sum", "mean"]
"""How log probabilities of predicted tokens are combined: their sum, or their mean, which does not favour short
choices.
"""


@dataclass(frozen=True, slots=True)
class Question:
    """A blank in a context, and the choices for it.

    Attributes:
        label: index of the right choice.
        where: "file:line", for messages.
    """

    context: Context
    choices: tuple[str, ...]
    label: int
    where: str = ""

    @classmethod
    def from_dict(cls, row: Any, where: str = "") -> Question:
        """Read GLM's `{"inputs_pretokenized", "choices_pretokenized", "label"}`, or `{"context" or "question",
        "choices", "label" or "answer"}`. Context and question may both be given: the question is on the next
        line. A label is an index, the choice itself, or its letter.

        Raises:
            InputError: a field is missing or of the wrong kind; names it.
        """
        at = f"{where}: " if where else ""
        if not isinstance(row, Mapping):
            raise InputError(f"{at}expected an object with a context, choices and a label, got {row!r:.80}")
        names = ("inputs_pretokenized",) if "inputs_pretokenized" in row else ("context", "question")
        texts = [(name, row[name]) for name in names if name in row]
        if not texts:
            raise InputError(f"{at}context: missing; a row needs inputs_pretokenized, context or question")
        for name, text in texts:
            if not isinstance(text, str):
                raise InputError(f"{at}{name}: expected a string, got {type(text).__name__}")
        name = "choices_pretokenized" if "choices_pretokenized" in row else "choices"
        choices = row.get(name)
        if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
            raise InputError(
                f"{at}{name}: expected a list of two or more strings that are not empty, got {choices!r:.80}"
            )
        name = "label" if "label" in row else "answer"
        label = row.get(name)
        if isinstance(label, str):
            if choices.count(label) == 1:
                label = choices.index(label)
            elif len(label) == 1 and "A" <= label <= "Z":
                label = ord(label) - ord("A")
        if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < len(choices):
            raise InputError(
                f"{at}{name}: expected an index from 0 to {len(choices) - 1}, one of the choices, or its letter from A "
                f"on; got {row.get(name)!r:.80}"
            )
        return cls("\n".join(text for _, text in texts), tuple(choices), label, where)


def read_questions(path: Path | str) -> Iterator[Question]:
    """Questions of a .jsonl file, line by line, or of a .json list.

    Raises:
        InputError: the file cannot be read, or a row is wrong; names file and line (in a list: the row's number).
    """
    path = Path(os.path.expanduser(path))
    try:
        with path.open(encoding="utf-8-sig") as opened:
            if path.suffix == ".json":
                rows = json.load(opened)
                if not isinstance(rows, list):
                    raise InputError(f"{path}: expected a list of questions; name it .jsonl if each line is one")
                for number, row in enumerate(rows, 1):
                    yield Question.from_dict(row, f"{path}: row {number}")
                return
            for number, line in enumerate(opened, 1):
                if line.strip():
                    try:
                        row = json.loads(line)
                    except (ValueError, RecursionError) as error:
                        raise InputError(f"{path}:{number}: not JSON ({error}); each line must be one row") from None
                    yield Question.from_dict(row, f"{path}:{number}")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    except InputError:
        raise
    except ValueError as error:  # Python does not read integers of more than 4,300 digits
        raise InputError(f"{path}: a number in it cannot be read ({str(error).partition(';')[0]})") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deep to be questions") from None


def cloze_examples(
    tokenizer: ChatGLMTokenizer, context: Context, choices: Sequence[str], *, blank: str | None = None, where: str = ""
) -> list[Example]:
    """The examples of all choices; their targets are the tokens that count for the score.

    Args:
        blank: another marker, used like `[MASK]`; default: those of `MARKERS`.

    Raises:
        InputError: there is more than one marker, or a choice has no token.
    """
    before, marker, after = _split(context, blank, where)
    # A space before a choice is part of its first piece.
    stripped = before.rstrip(" ")
    lead, before = before[len(stripped) :], stripped
    head, tail = tokenizer.encode_text(before), _behind(tokenizer, before, after) if after else []
    symbols = Symbols.of(tokenizer)
    masks = dict(zip(MARKERS, (symbols.mask, symbols.sentence_mask, symbols.document_mask), strict=True))
    continues = not symbols.two_rows and not tail
    if continues:
        source, closed = [*tokenizer.get_prefix_tokens(), *head], False
    else:
        source, closed = [*head, masks[marker], *tail, symbols.start], bool(tail) or marker != "[gMASK]"

    examples: list[Example] = []
    for choice in choices:
        words = _behind(tokenizer, before, lead + choice)
        if not words:
            raise InputError(f"{where}: a choice is empty" if where else "a choice is empty")
        # The last token of the source predicts the first of the choice.
        wanted = [*words, symbols.stop] if closed else words
        ids, targets = [*source, *(words if closed else words[:-1])], [*[IGNORE] * (len(source) - 1), *wanted]
        rows: tuple[Sequence[int], ...] = (range(len(ids)),)
        if symbols.two_rows:
            seen = len(source) - 1
            rows = ([*range(seen), *[len(head)] * len(wanted)], [*[0] * seen, *range(1, len(wanted) + 1)])
        examples.append(Example(ids, targets, rows, where))
    return examples


def _split(context: Context, blank: str | None, where: str) -> tuple[str, str, str]:
    """The text before the blank, its mask token, and the text after it."""
    if not isinstance(context, str):
        return context[0], "[MASK]" if context[1] else "[gMASK]", context[1]
    found = [(marker, context.count(marker)) for marker in (MARKERS if blank is None else [blank])]
    total = sum(count for _, count in found)
    if total > 1:
        raise InputError(
            f"{where + ': ' if where else ''}{total} blanks in the context; give one, or the pair of texts (before, "
            "after) if markers are a part of the text"
        )
    marker = next((marker for marker, count in found if count), None)
    if marker is None:
        return context, "[gMASK]", ""
    before, _, after = context.partition(marker)
    return before, marker if blank is None else "[MASK]", after


def _behind(tokenizer: ChatGLMTokenizer, before: str, text: str) -> list[int]:
    """Ids of a text that follows another one. SentencePiece adds a space at the start of a text. So a line end, which
    no piece joins with the next character, is put in front for encoding.
    """
    line, whole = tokenizer.encode_text("\n"), tokenizer.encode_text("\n" + text)
    return whole[len(line) :] if before and whole[: len(line)] == line else tokenizer.encode_text(text)


# Scoring


def score_choices(
    model: Any,
    tokenizer: ChatGLMTokenizer,
    context: Context,
    choices: Sequence[str],
    *,
    blank: str | None = None,
    normalize: Normalize = "sum",
    batch_size: int = 16,
) -> list[float]:
    """The log probability of each choice as the text of the context's blank.

    Args:
        context: a text with at most one of `[MASK]`, `[sMASK]`, `[gMASK]`; without one, the blank is at its end. Or a
            pair of texts (before, after) the blank, which may contain anything.
        blank: another marker instead of these.
        normalize: see `Normalize`.
        batch_size: number of choices that pass through the model at a time; does not change the scores.

    Raises:
        InputError: there is more than one blank, or a choice is empty.
        NumericalError: the model's scores are NaN or infinite.
    """
    examples = cloze_examples(tokenizer, context, choices, blank=blank)
    return _scores(model, tokenizer, examples, normalize, batch_size)


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of one question's choices, and the index of the highest."""

    question: Question
    scores: tuple[float, ...]
    choice: int

    @property
    def right(self) -> bool:
        """Whether the right choice has the highest score."""
        return self.choice == self.question.label


@dataclass(frozen=True, slots=True)
class ClozeResult:
    """The scores of all questions."""

    rows: tuple[Scored, ...]

    @property
    def accuracy(self) -> float:
        """The share of questions whose right choice has the highest score."""
        return sum(row.right for row in self.rows) / len(self.rows)


def evaluate_cloze(
    model: Any,
    tokenizer: ChatGLMTokenizer,
    rows: Iterable[Question | Mapping[str, Any]],
    *,
    blank: str | None = None,
    normalize: Normalize = "sum",
    batch_size: int = 16,
) -> ClozeResult:
    """Compute the accuracy over questions. Choices of several questions are computed in one batch.

    Args:
        rows: questions, or dicts that `Question.from_dict` reads.

    Raises:
        InputError: a row is wrong, or there is none.
        NumericalError: the model's scores are NaN or infinite.
    """
    questions = [
        row if isinstance(row, Question) else Question.from_dict(row, f"row {number}")
        for number, row in enumerate(rows, 1)
    ]
    if not questions:
        raise InputError("no questions: there is nothing to evaluate")
    examples = [
        cloze_examples(tokenizer, question.context, question.choices, blank=blank, where=question.where)
        for question in questions
    ]
    scores = iter(_scores(model, tokenizer, [e for group in examples for e in group], normalize, batch_size))
    scored: list[Scored] = []
    for question in questions:
        own = tuple(next(scores) for _ in question.choices)
        scored.append(Scored(question, own, max(range(len(own)), key=own.__getitem__)))
    return ClozeResult(tuple(scored))


def _scores(
    model: Any, tokenizer: ChatGLMTokenizer, examples: Sequence[Example], normalize: str, batch_size: int
) -> list[float]:
    if normalize not in get_args(Normalize):
        raise InputError(f"normalize {normalize!r}: must be one of {', '.join(get_args(Normalize))}")
    if batch_size < 1:
        raise InputError(f"batch_size {batch_size}: must be 1 or more")
    collate = Collator(tokenizer.pad_token_id)
    scores = [0.0] * len(examples)
    order = sorted(range(len(examples)), key=lambda n: len(examples[n]))  # similar lengths need little padding
    training = model.training
    model.eval()
    try:
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            for index, score in zip(part, _batch(model, collate([examples[n] for n in part]), normalize), strict=True):
                if not math.isfinite(score):
                    where = f"{examples[index].where}: " if examples[index].where else ""
                    raise NumericalError(f"{where}the model's score of a choice is {score}; load it in another dtype")
                scores[index] = score
    finally:
        model.train(training)
    return scores


@torch.inference_mode()
def _batch(model: Any, batch: dict[str, torch.Tensor], normalize: str) -> list[float]:
    """Scores of the examples of one batch, (B,)."""
    device = model.get_input_embeddings().weight.device
    targets = batch.pop("shift_labels")
    learned = targets != IGNORE
    inputs = {name: tensor.to(device) for name, tensor in batch.items()}
    # Only states of scored positions pass through the output head: (N, vocabulary).
    logits = model(**inputs, use_cache=False, logits_to_keep=learned.to(device)).logits.float()
    wanted = targets[learned].to(logits.device)
    logs = logits.gather(1, wanted[:, None])[:, 0] - logits.logsumexp(dim=-1)
    sums = torch.zeros(targets.shape, dtype=torch.float64).masked_scatter(learned, logs.double().cpu()).sum(dim=1)
    return (sums / learned.sum(dim=1) if normalize == "mean" else sums).tolist()
