"""A character's lorebook: texts that the model always gets, or only if a word occurs in the last messages."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["LoreEntry", "chosen"]

_SCANNED = 20_000  # characters at the end of the last messages that are searched for keys
_COUNTED = 200  # the most entries whose tokens are counted


@dataclass(frozen=True)
class LoreEntry:
    """One text of a lorebook (`character_book` of a card).

    Attributes:
        content: the text for the model.
        keys: words; one of them must occur in the last messages. They are plain text: a stranger's regular expression
            could run for ever, so an entry with `use_regex` is used only if it is `constant`.
        secondary_keys: if `selective`, one of these must occur, too.
        constant: the model always gets this entry.
        order: entries with lower numbers come first.
        priority: if not all entries fit, those with higher numbers stay.
        more: other fields of the entry in a card, written again on export.
    """

    content: str
    keys: tuple[str, ...] = ()
    secondary_keys: tuple[str, ...] = ()
    selective: bool = False
    constant: bool = False
    enabled: bool = True
    case_sensitive: bool = False
    order: float = 0
    priority: float = 0
    more: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def told_of(self, text: str, folded: str) -> bool:
        """Whether the model gets this entry.

        Args:
            text: the last messages.
            folded: the same text, case-folded.
        """
        if not self.enabled or not self.content.strip():
            return False
        if self.constant:
            return True
        if self.more.get("use_regex"):
            return False

        def has(keys: Sequence[str]) -> bool:
            return any(
                key in text if self.case_sensitive else key.casefold() in folded for key in map(str.strip, keys) if key
            )

        return has(self.keys) and (not self.selective or not self.secondary_keys or has(self.secondary_keys))

    def text(self) -> str:
        """The content without the decorators (`@@depth 4`) that a V3 card may have on its first lines."""
        lines = self.content.strip().split("\n")
        return "\n".join(itertools.dropwhile(lambda line: line.startswith("@@"), lines)).strip()


def chosen(
    entries: Sequence[LoreEntry], texts: Sequence[str], budget: int, count: Callable[[str], int]
) -> tuple[str, ...]:
    """The texts of the entries that the model gets after these messages.

    Args:
        texts: of the last messages, the newest last.
        budget: tokens for all entries together.
        count: returns the number of tokens of a text.
    """
    text = "\n".join(texts)[-_SCANNED:]
    folded = text.casefold()
    found = [(number, entry) for number, entry in enumerate(entries) if entry.told_of(text, folded)]
    found.sort(key=lambda pair: (-pair[1].priority, pair[1].order, pair[0]))
    kept = []
    for number, entry in found[:_COUNTED]:
        told = entry.text()
        if not told or len(told) > 32 * budget:  # no token has that many characters
            continue
        tokens = count(told) + 1
        if tokens <= budget:
            budget -= tokens
            kept.append((entry.order, number, told))
    return tuple(told for _, _, told in sorted(kept))
