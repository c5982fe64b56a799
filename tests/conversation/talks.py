"""What the tests of sessions share: scripted assistants, and reading what a session tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any, TypeVar

from chatglm.assistant import Assistant, BaseAssistant, Delta, Finish, Messages, Options, TextDelta, Usage
from chatglm.conversation.events import Event, Text
from chatglm.conversation.session import Session
from chatglm.conversation.store import Store
from chatglm.params import SamplingParams
from scripted import ScriptedEngine, Writer

__all__ = ["Scripted", "Teller", "contents", "heard", "text_of", "until"]

E = TypeVar("E", bound=Any)


class Scripted(Assistant):
    """An assistant over an engine that says what it is told."""

    def __init__(self, write: Writer, *replies: Any, **options: Any) -> None:
        self.script = ScriptedEngine(*replies, **options)
        super().__init__(write.form, self.script)  # type: ignore[arg-type]
        self._write = write

    def prompts(self) -> list[str]:
        """What it was asked, one text for each time."""
        return [self._write.form.tokenizer.to_text(asked.ids) for asked in self.script.asked]


class Teller(BaseAssistant):
    """An assistant that is neither of this process nor known to it: deltas are all that it gives.

    Args:
        answers: deltas of each answer, or an error; the last one again and again.
        pause: seconds before each delta.
    """

    def __init__(self, *answers: Sequence[Delta] | BaseException, pause: float = 0.0) -> None:
        self.answers_left, self.pause = list(answers), pause
        self.asked: list[tuple[Any, Options]] = []
        self.defaults = SamplingParams()

    @classmethod
    def text(cls, *texts: str, pause: float = 0.0) -> Teller:
        finish = Finish("stop", Usage(3, 2, 1))
        return cls(*([*map(TextDelta, text), finish] for text in texts), pause=pause)

    async def astream(self, messages: Messages, **options: Any) -> AsyncGenerator[Delta]:
        self.asked.append((messages, options))  # type: ignore[arg-type]
        deltas = self.answers_left.pop(0) if len(self.answers_left) > 1 else self.answers_left[0]
        if isinstance(deltas, BaseException):
            raise deltas
        for delta in deltas:
            await asyncio.sleep(self.pause)
            yield delta

    def stream(self, messages: Messages, **options: Any) -> Any:
        raise NotImplementedError

    stream_text = astream_text = stream

    def close(self) -> None: ...


async def heard(session: Session, after: int = 0) -> list[Event]:
    return [event async for event in session.events(after)]


async def until(session: Session, kind: type[E], after: int = 0) -> E:
    """The first event of a kind."""
    async for event in session.events(after):
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind}")


def text_of(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


def contents(store: Store, user: int, session: Session) -> list[tuple[str, str | None]]:
    return [(turn.message.content, turn.finish) for turn in store.tree(user, session.id).path()]
