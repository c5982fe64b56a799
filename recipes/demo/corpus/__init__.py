"""The demo model's corpus: every sentence is made here, from grammars, so that what is held out is really unseen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from corpus import arithmetic, chat, code, manner, memory, mixed, passages, persona, repeat, tools
from corpus.base import Sample, Split

Grammars = Mapping[str, tuple[Callable[[Random, Split], Sample], float]]

SKILLS: Grammars = {
    "repeating": (repeat.sample, 0.8),
    "chat": (chat.sample, 1.3),
    "arithmetic": (arithmetic.sample, 1.2),
    "counting": (arithmetic.counting, 0.25),
    "memory": (memory.sample, 1.3),
    "mixed": (mixed.sample, 0.6),
    "passages": (passages.sample, 1.7),
    "knowledge": (passages.knowledge, 0.8),
    "summary": (passages.summary, 0.4),
    "recap": (memory.recap, 0.08),
    "persona": (persona.sample, 1.0),
    "system": (manner.sample, 0.5),
    "tools": (tools.sample, 2.8),
    "code": (code.sample, 1.6),
}
"""Each grammar and its share of the dialogues."""


def draw_sample(rng: Random, split: Split, name: str | None = None, grammars: Grammars = SKILLS) -> Sample:
    """A dialogue of the grammar that is named, or of any."""
    if name is None:
        name = rng.choices(list(grammars), [share for _, share in grammars.values()])[0]
    return grammars[name][0](rng, split)
