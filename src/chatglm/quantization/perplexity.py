"""Perplexity of a text, to compare a model before and after quantisation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from chatglm.errors import InputError, NumericalError

__all__ = ["Passage", "passages", "perplexity"]

IGNORE = -100


@dataclass(frozen=True)
class Passage:
    """Token ids (tokens,), and the target of each position (tokens,); −100 where nothing is measured."""

    ids: Tensor
    targets: Tensor


def passages(tokenizer: Any, texts: Iterable[str], *, length: int = 512, limit: int | None = None) -> list[Passage]:
    """Concatenate texts and cut them into passages of `length` tokens.

    Each passage starts with the special tokens that the tokenizer adds to an empty text: `[gMASK] <sop>`, or a
    beginning-of-text token in other families. In all generations, including ChatGLM-6B, the text after them is what
    the model generates.

    Args:
        length: tokens of a passage, including the special ones.
        limit: the largest number of passages; default: all.

    Raises:
        InputError: there is no text, or `length` leaves no room for text.
    """
    prefix: list[int] = list(tokenizer("")["input_ids"])
    room = length - len(prefix)
    if room < 2:
        raise InputError(f"passages of {length} tokens: too short; give 8 or more")
    made: list[Passage] = []
    held: list[int] = []

    def cut(part: list[int]) -> None:
        ids = [*prefix, *part]
        targets = [IGNORE] * max(len(prefix) - 1, 0) + ids[max(len(prefix), 1) :]
        made.append(Passage(torch.tensor(ids[: len(targets)]), torch.tensor(targets)))

    for text in texts:
        held += tokenizer(text, add_special_tokens=False)["input_ids"]
        while len(held) >= room:
            if limit is not None and len(made) >= limit:
                return made
            cut(held[:room])
            held = held[room:]
    if len(held) > 1 and (limit is None or len(made) < limit):
        cut(held)
    if not made:
        raise InputError("there is no text in the data")
    return made


@torch.no_grad()
def perplexity(model: Any, measured: Sequence[Passage]) -> tuple[float, int]:
    """exp of the mean cross entropy of the targets, and the number of targets.

    Raises:
        InputError: the passages have no targets.
        NumericalError: the model's scores are not finite.
    """
    total, count = 0.0, 0
    for passage in measured:
        ids, targets = passage.ids.to(model.device), passage.targets.to(model.device)
        wanted = targets != IGNORE
        if not bool(wanted.any()):
            continue
        scores = model(input_ids=ids[None], use_cache=False).logits[0, wanted].float()
        total += float(F.cross_entropy(scores, targets[wanted], reduction="sum"))
        count += int(wanted.sum())
    if not count:
        raise InputError("the data has no tokens to measure")
    if not math.isfinite(total):
        raise NumericalError(
            "the model's scores are not finite; the weights are damaged, or their precision is too low"
        )
    return math.exp(total / count), count
