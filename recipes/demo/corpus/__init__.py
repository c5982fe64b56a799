"""The demo model's corpus: every sentence is made here, from grammars, so that what is held out is really unseen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from corpus import (
    arithmetic,
    chat,
    code,
    manner,
    memory,
    mixed,
    otherwise,
    passages,
    persona,
    plain,
    practice,
    repeat,
    tools,
)
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
"""Each grammar and its share of the first phase's dialogues. The vocabulary is learned from these."""


def _with_shares(grammars: Grammars, shares: Mapping[str, float]) -> Grammars:
    """Some of the grammars, with other shares."""
    return {name: (grammars[name][0], share) for name, share in shares.items()}


PRACTICE: Grammars = {
    "handbook": (practice.handbook, 3.0),
    "quoting": (practice.quoting, 1.7),
    "fields": (practice.fields, 0.5),
    "results": (tools.results, 0.7),
    "titled": (tools.titled, 0.9),
    "plain": (plain.plain, 5.0),
    "sums": (otherwise.sums, 1.0),
    "down": (otherwise.counting, 0.4),
    "languages": (otherwise.languages, 0.4),
    "project": (otherwise.project, 0.6),
    "described": (otherwise.personas, 1.0),
    "told": (otherwise.tellings, 0.8),
    **_with_shares(
        SKILLS,
        {
            "repeating": 0.9,
            "chat": 0.9,
            "arithmetic": 1.6,
            "counting": 0.3,
            "memory": 1.2,
            "mixed": 0.5,
            "passages": 2.2,
            "knowledge": 1.4,
            "summary": 1.3,
            "recap": 1.0,
            "persona": 0.8,
            "system": 0.4,
            "tools": 2.6,
            "code": 1.1,
        },
    ),
}
"""Each grammar and its share of the second phase's."""

LAST: Grammars = {
    "long recap": (memory.long_recap, 0.8),
    "long summary": (passages.long_summary, 0.8),
    **_with_shares(
        PRACTICE,
        {
            "plain": 7.0,
            "sums": 2.0,
            "down": 1.6,
            "languages": 0.7,
            "project": 1.0,
            "described": 1.2,
            "told": 1.0,
            "handbook": 2.6,
            "quoting": 2.4,
            "fields": 1.6,
            "results": 1.0,
            "titled": 1.2,
            "repeating": 1.4,
            "chat": 3.8,
            "arithmetic": 2.2,
            "counting": 0.5,
            "memory": 2.2,
            "mixed": 1.0,
            "passages": 3.2,
            "knowledge": 2.4,
            "summary": 1.0,
            "recap": 0.8,
            "persona": 1.8,
            "system": 0.8,
            "tools": 4.2,
            "code": 1.6,
        },
    ),
}
"""Each grammar and its share of the third phase's: most are of the skills in which two phases leave most wrong, which
all look for one thing among several. The rest is there so that it is not forgotten.
"""


def draw_sample(rng: Random, split: Split, name: str | None = None, grammars: Grammars = SKILLS) -> Sample:
    """A dialogue of the grammar that is named, or of any."""
    if name is None:
        name = rng.choices(list(grammars), [share for _, share in grammars.values()])[0]
    return grammars[name][0](rng, split)
