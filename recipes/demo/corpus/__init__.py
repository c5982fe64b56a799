"""The demo model's corpus: every sentence is made here, from grammars, so that what is held out is really unseen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from corpus import arithmetic, chat, code, memory, passages, persona, repeat, tools
from corpus.base import Sample, Split

Grammars = Mapping[str, tuple[Callable[[Random, Split], Sample], float]]

SKILLS: Grammars = {
    "repeating": (repeat.sample, 0.8),
    "chat": (chat.sample, 0.5),
    "arithmetic": (arithmetic.sample, 0.9),
    "memory": (memory.sample, 0.9),
    "passages": (passages.sample, 2.6),
    "persona": (persona.sample, 0.8),
    "tools": (tools.sample, 2.6),
    "code": (code.sample, 1.3),
}
"""Each grammar and its share of the dialogues."""

REFINING = {**SKILLS, "tools": (tools.otherwise_named, 4.0)}
"""Of the last, short part of training: tools with parameters that are not called as they were."""


def draw_sample(rng: Random, split: Split, name: str | None = None, grammars: Grammars = SKILLS) -> Sample:
    """A dialogue of the grammar that is named, or of any."""
    if name is None:
        name = rng.choices(list(grammars), [share for _, share in grammars.values()])[0]
    return grammars[name][0](rng, split)
