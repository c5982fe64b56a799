"""Streaming decoder: takes token ids one at a time, and returns the text that can no longer change."""

from __future__ import annotations

from collections.abc import Sequence

from chatglm.chat.vocabulary import Vocabulary
from chatglm.errors import InputError

__all__ = ["StopStrings", "StreamDecoder", "held_suffix"]


class StopStrings:
    """Passes text on up to the first stop string. An end that may be the beginning of a stop string is held back.

    Args:
        stop: the stop strings. They may arrive in pieces, and are not passed on.

    Raises:
        InputError: `stop` is not a list of non-empty strings.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        if isinstance(stop, str) or not all(isinstance(word, str) and word for word in stop):
            raise InputError(f"stop: expected a list of non-empty strings, got {stop!r:.80}")
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False
        """Whether a stop string was found. Later text is ignored."""
        self.met = ""
        """The stop string that was found; "" if none was."""

    def feed(self, text: str, final: bool = False) -> str:
        """Add text; returns the text that cannot be part of a stop string.

        Args:
            final: no more text follows.
        """
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
    """Decodes token ids one at a time. It never returns a part of a character or of a stop string.

    The results of `feed` and `close` together are `tokenizer.decode` of all ids, cut at the stop string that is
    complete first. The time for a token depends on its own text, not on the length of the answer.

    Args:
        skip_special_tokens: as in `decode`.
        stop: strings that end the text; they may span tokens, and are not part of it.
        goes_on: the text continues another text, so a space at its beginning is kept; `decode` would drop it.

    Raises:
        InputError: `stop` is not a list of non-empty strings.
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
        """Whether a stop string was found. Later ids are ignored."""
        return self._ends.stopped

    def feed(self, token_id: int) -> str:
        """Add an id; returns the text that can no longer change, often ""."""
        if self.stopped or token_id in self._skipped:
            return ""
        return self._release(self._decoder.feed(token_id), final=False)

    def close(self) -> str:
        """End the text; returns what was still held back."""
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
    """Length of the longest end of `text` that is a beginning of `word`, but not the whole word."""
    for length in range(min(len(word) - 1, len(text)), 0, -1):
        if text.endswith(word[:length]):
            return length
    return 0
