"""What tests of the engine share: run it until nothing is left to do, and what `generate` says to the same prompt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from chatglm.engine.engine import Engine, Event
from chatglm.params import SamplingParams

STEPS = 10_000
"""An engine that takes more has lost its way."""


def events(engine: Engine) -> Iterator[Event]:
    """All that comes until it is idle; its books are checked after every step."""
    for _ in range(STEPS):
        if engine.idle:
            return
        yield from engine.step()
        engine.check()
    raise AssertionError(f"not idle after {STEPS} steps")


def said(engine: Engine, prompts: list[list[int]], params: SamplingParams, **options: Any) -> list[list[int]]:
    """Answers to prompts that are asked at the same time. No page is left in use."""
    requests = [engine.submit(prompt, params, **options) for prompt in prompts]
    texts: dict[int, list[int]] = {id(request): [] for request in requests}
    for event in events(engine):
        texts[id(event.request)] += event.tokens
    assert engine.stats().pages_used == 0
    return list(texts.values())


def generated(model: Any, prompt: list[int], count: int) -> list[int]:
    """So many tokens, greedily, whatever they are."""
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, min_new_tokens=count,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return out[0, len(prompt) :].tolist()
