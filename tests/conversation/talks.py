"""What the tests of sessions share: scripted assistants, and reading what a session tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from chatglm.assistant import Assistant
from chatglm.conversation.events import Event, Text
from chatglm.conversation.session import Session
from chatglm.conversation.store import Store
from scripted import ScriptedEngine, Writer

__all__ = ["Scripted", "contents", "heard", "text_of", "until"]

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
