"""Dialogues as they really go: one thing after another, each of another kind."""

from __future__ import annotations

from random import Random

from . import arithmetic, chat, memory, passages, repeat
from .base import Sample, Split

__all__ = ["sample"]

_PARTS = {
    "chat": (chat.sample, 4),
    "arithmetic": (arithmetic.sample, 2),
    "counting": (arithmetic.counting, 1),
    "memory": (memory.sample, 2),
    "repeating": (repeat.sample, 1),
    "passages": (passages.sample, 1),
    "summary": (passages.summary, 1),
}
_MOST = 10
"""Messages of a part that are taken."""


def sample(rng: Random, split: Split) -> Sample:
    """Two to four parts, each of its own kind, but for chatting."""
    messages = []
    left = {name: share for name, (_, share) in _PARTS.items()}
    for _ in range(rng.choice((2, 2, 3, 3, 4))):
        name = rng.choices(list(left), list(left.values()))[0]
        if name != "chat":
            del left[name]
        messages += _PARTS[name][0](rng, split).messages[:_MOST]
    return Sample("mixed", messages)
