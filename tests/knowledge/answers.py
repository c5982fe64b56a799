"""What tests of answers share: an assistant that says what it is told."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any

from chatglm.assistant import BaseAssistant, Delta, Finish, TextDelta, Usage
from chatglm.chat.messages import Message
from chatglm.params import SamplingParams


class Reader(BaseAssistant):
    """
    Args:
        answers: texts in turn, the last one again and again; each comes in pieces of `step` characters.
        context: characters are its tokens; None: it does not say, nor count.
    """

    def __init__(self, *answers: str, step: int = 3, context: int | None = 2000) -> None:
        self.left, self.step, self.context = list(answers), step, context
        self.asked: list[list[Message]] = []
        self.options: list[dict[str, Any]] = []
        self.defaults = SamplingParams()
        self.open = 0

    def count(self, messages: Any, **options: Any) -> int:
        if self.context is None:
            return super().count(messages, **options)
        return sum(len(message.content) + 4 for message in messages)

    def _deltas(self, messages: Any, options: dict[str, Any]) -> list[Delta]:
        self.asked.append(list(messages))
        self.options.append(options)
        text = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        pieces = [text[at : at + self.step] for at in range(0, len(text), self.step)]
        return [*map(TextDelta, pieces), Finish("stop", Usage(5, len(pieces)))]

    def stream(self, messages: Any, **options: Any) -> Generator[Delta]:
        self.open += 1
        try:
            yield from self._deltas(messages, options)
        finally:
            self.open -= 1

    async def astream(self, messages: Any, **options: Any) -> AsyncGenerator[Delta]:
        self.open += 1
        try:
            for delta in self._deltas(messages, options):
                yield delta
        finally:
            self.open -= 1

    def stream_text(self, prompt: str | Sequence[int], **options: Any) -> Generator[Delta]:
        raise NotImplementedError

    def astream_text(self, prompt: str | Sequence[int], **options: Any) -> AsyncGenerator[Delta]:
        raise NotImplementedError

    def close(self) -> None: ...
