"""The demo model's corpus: every sentence is made here, from grammars, so that what is held out is really unseen."""

from __future__ import annotations

from random import Random

from corpus import arithmetic, chat, code, memory, passages, persona, repeat, tools
from corpus.base import Sample, Split

SKILLS = {
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


def draw_sample(rng: Random, split: Split, name: str | None = None) -> Sample:
    """A dialogue of the grammar that is named, or of any."""
    if name is None:
        name = rng.choices(list(SKILLS), [share for _, share in SKILLS.values()])[0]
    return SKILLS[name][0](rng, split)
