"""What tests of summaries share: an assistant that sums up by a rule, and long texts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any

from chatglm.assistant import BaseAssistant, Delta, Finish, TextDelta, Usage
from chatglm.errors import ChatGLMError
from chatglm.knowledge.summarising import MAP, REDUCE, REFINE, WHOLE
from chatglm.params import SamplingParams

FORMS = {"whole": WHOLE, "map": MAP, "reduce": REDUCE, "refine": REFINE}


class Abridger(BaseAssistant):
    """Says the first sentence of each paragraph of what it is to sum up; a character is a token.

    Args:
        delay: seconds that an answer takes.
        fails: the number of the answer that raises an error instead.
    """

    def __init__(
        self,
        context: int | None = 600,
        *,
        delay: float = 0.0,
        fails: dict[int, ChatGLMError] | None = None,
    ) -> None:
        self.context, self.delay, self.fails = context, delay, fails or {}
        self.defaults = SamplingParams()
        self.asked: list[str] = []
        self.forms: list[str] = []
        self.options: list[dict[str, Any]] = []
        self.running = self.most_running = 0

    def count(self, messages: Any, **options: Any) -> int:
        if self.context is None:
            return super().count(messages, **options)
        return sum(len(message.content) + 4 for message in messages)

    def _text(self, prompt: str, options: dict[str, Any]) -> str:
        self.asked.append(prompt)
        self.options.append(options)
        if error := self.fails.pop(len(self.asked), None):
            raise error
        params = options["params"]
        if self.context is not None:
            assert len(prompt) + 4 + params.max_new_tokens <= self.context
        form = next(name for name, each in FORMS.items() if prompt.startswith(each["zh"].split("{")[0]))
        self.forms.append(form)
        text = prompt.removeprefix(FORMS[form]["zh"].split("{")[0])
        said = "\n".join(re.split("(?<=。)", line)[0] for line in text.splitlines() if "。" in line)
        return said[: params.max_new_tokens]

    async def astream(self, messages: Any, **options: Any) -> AsyncGenerator[Delta]:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            text = self._text(messages[-1].content, options)
            await asyncio.sleep(self.delay)
            for at in range(0, len(text), 7):
                yield TextDelta(text[at : at + 7])
            yield Finish("stop", Usage(len(messages[-1].content), len(text)))
        finally:
            self.running -= 1

    def stream(self, messages: Any, **options: Any) -> Generator[Delta]:
        raise NotImplementedError

    def stream_text(self, prompt: str | Sequence[int], **options: Any) -> Generator[Delta]:
        raise NotImplementedError

    def astream_text(self, prompt: str | Sequence[int], **options: Any) -> AsyncGenerator[Delta]:
        raise NotImplementedError

    def close(self) -> None: ...


def novel(chapters: int, sentences: int = 12) -> str:
    """Chapters under headings; each sentence has two characters that stand in no other of its chapter."""
    return "\n\n".join(_chapter(chapter, sentences) for chapter in range(1, chapters + 1))


def _chapter(chapter: int, sentences: int) -> str:
    lines = [f"# 第{chapter}章\n\n"]
    for n in range(1, sentences + 1):
        name = chr(0x4E00 + (chapter * 37 + n * 11) % 20000) + chr(0x4E00 + (chapter * 101 + n * 7) % 20000)
        lines.append(f"第{chapter}章第{n}天，{name}大侠走到城外的第{n}座桥边，遇见了一位卖西瓜的老人。")
    return "".join(lines)
