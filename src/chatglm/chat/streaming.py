"""A stateful decoder: token ids go in one at a time, text that is certain comes out."""

from __future__ import annotations

from collections.abc import Sequence

from chatglm.chat.vocabulary import Vocabulary
from chatglm.errors import InputError

__all__ = ["StopStrings", "StreamDecoder", "held_suffix"]


class StopStrings:
    """Passes text on until one of some strings is complete; an end that may become one is held back.

    Args:
        stop: the strings; they may come in pieces, and are not part of the text.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        if isinstance(stop, str) or not all(isinstance(word, str) and word for word in stop):
            raise InputError(f"stop: expected a list of non-empty strings, got {stop!r:.80}")
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False
        """Whether one was met; what is fed afterwards is ignored."""
        self.met = ""
        """Which one was met."""

    def feed(self, text: str, final: bool = False) -> str:
        """Take in more text (`final`: the last); returns what is certain not to be part of a stop string."""
        if self.stopped:
            return ""
        text = self._held + text
        found = [(place + len(word), place) for word in self._stop if (place := text.find(word)) >= 0]
        if found:
            end, start = min(found)
            self.stopped, self._held, self.met = True, "", text[start:end]
            return text[:start]
        keep = 0 if final else max((held_suffix(text, word) for word in self._stop), default=0)
        cut = len(text) - keep
        self._held = text[cut:]
        return text[:cut]


class StreamDecoder:
    """Never half a character, never half a stop string, and nothing lost at the end.

    What `feed` returned, joined, and what `close` returns is `tokenizer.decode` of all the ids, cut at the stop string
    that is complete first. Each token costs its own text, not that of the whole answer.

    Args:
        skip_special_tokens: as in `decode`.
        stop: strings that end the text; they may span tokens, and are not part of it.
        goes_on: the text continues another one, so that a blank in front of it belongs to it. `decode` drops one.
    """

    def __init__(
        self,
        tokenizer: Vocabulary,
        *,
        skip_special_tokens: bool = True,
        stop: Sequence[str] = (),
        goes_on: bool = False,
    ) -> None:
        self._ends = StopStrings(stop)
        self._decoder = tokenizer.detokenizer()
        if goes_on:
            self._decoder.go_on()
        self._skipped = tokenizer.control_ids if skip_special_tokens else frozenset()
        self._pieces: list[str] = []

    @property
    def stopped(self) -> bool:
        """Whether a stop string was met; what is fed afterwards is ignored."""
        return self._ends.stopped

    def feed(self, token_id: int) -> str:
        """Take in one id; returns the text that became certain, often "" and never a part of a character."""
        if self.stopped or token_id in self._skipped:
            return ""
        return self._release(self._decoder.feed(token_id), final=False)

    def close(self) -> str:
        """The text that was still held back."""
        return "" if self.stopped else self._release(self._decoder.flush(), final=True)

    @property
    def text(self) -> str:
        """All text returned so far."""
        return "".join(self._pieces)

    def _release(self, text: str, final: bool) -> str:
        text = self._ends.feed(text, final)
        if text:
            self._pieces.append(text)
        return text


def held_suffix(text: str, word: str) -> int:
    """Length of the longest end of `text` that is a beginning of `word`, and not all of it."""
    for length in range(min(len(word) - 1, len(text)), 0, -1):
        if text.endswith(word[:length]):
            return length
    return 0
