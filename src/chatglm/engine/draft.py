"""Speculation with a draft model: a smaller model with the same vocabulary guesses the next tokens.

    draft = load_parts(small)
    engine = Engine(model, speculate=DraftModel(draft.model))

The draft model has its own engine, which answers greedily. So it has pages, reads several prompts at a time, and finds
the part of a sequence before its first wrong guess in its prefix cache.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from chatglm.engine.engine import Engine, Request
from chatglm.engine.speculation import Guess, Key
from chatglm.params import SamplingParams

__all__ = ["DraftModel"]

_NEW = 0.2
"""Weight of the newest measurement in the average."""


class DraftModel:
    """A `Proposer` for `Engine`.

    Args:
        model: a causal language model with the same vocabulary.
        options: options of its `Engine` (`memory`, `store` …), which also raises the errors.
    """

    free = False

    def __init__(self, model: Any, **options: Any) -> None:
        self._engine = Engine(model, speculate=False, max_waiting=1 << 16, **options)
        self.vocabulary: int | None = self._engine.runner.vocabulary
        self._most = min(self._engine.context, self._engine.capacity)
        self._read: dict[Key, int] = {}  # number of tokens of each sequence that were read
        self._reading = self._guessing = 0.0  # seconds for a token; 0 until it is measured

    def price(self, key: Key, ids: Sequence[int], count: int) -> float:
        return (len(ids) - self._read.get(key, 0)) * self._reading + count * self._guessing

    def propose(self, asked: Sequence[tuple[Key, Sequence[int], int]]) -> list[Guess]:
        begin = time.perf_counter()
        said: dict[Request, list[int]] = {}
        whose: list[Request | None] = []
        unread = 0
        for key, ids, count in asked:
            if len(ids) + count > self._most:
                whose.append(None)  # its context or its memory is too small
                continue
            request = self._engine.submit(ids, SamplingParams(temperature=0, max_new_tokens=count))
            unread += len(ids) - self._read.get(key, 0)
            self._read[key] = len(ids)
            said[request] = []
            whose.append(request)
        while not self._engine.idle:
            for event in self._engine.step():
                said[event.request] += event.tokens  # none if its scores were not finite
        seconds, made = time.perf_counter() - begin, sum(map(len, said.values()))
        if unread > 8 * made:  # prompts
            self._reading += (seconds / unread - self._reading) * (_NEW if self._reading else 1)
        elif made:
            self._guessing += (seconds / made - self._guessing) * (_NEW if self._guessing else 1)
        return [Guess() if request is None else Guess(tuple(said[request])) for request in whose]

    def forget(self, key: Key) -> None:
        self._read.pop(key, None)
