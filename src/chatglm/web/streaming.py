"""An answer's events as server-sent events, with the HTML that the page shows of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from chatglm.conversation.events import (
    Answered,
    Asked,
    Began,
    Called,
    Calling,
    Cited,
    Done,
    Event,
    Failed,
    Note,
    Output,
    Source,
    Sources,
    Text,
    Title,
)
from chatglm.conversation.session import Session
from chatglm.web.render import Blocks
from chatglm.web.sources import cited_html
from chatglm.web.views import Answer, Branch, Call, Face, Shown, ShownFile, branch_of, call_html, file_of
from chatglm.web.words import Words

__all__ = ["Macros", "stream"]

_BEAT = 15.0
"""Seconds without an event after which a comment is sent, so that the connection stays open."""
_REST = 0.03
"""Seconds in which the text after a piece is collected: nobody sees more than 30 pieces a second, and sending each
token of a fast model separately is most of the work with many readers."""
_SHOWN = 64 << 10
_SHORT = 4096
"""Characters of a question that are escaped directly, because a thread would take longer."""

Macros = Callable[..., str]
"""`macros("call", call)` renders a call by the template of turns."""


@dataclass
class _Turn:
    """An assistant's turn that is being written."""

    id: int
    blocks: Blocks
    html: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    sources: tuple[Source, ...] = ()
    cited: Cited | None = None


async def stream(
    session: Session,
    after: int,
    *,
    base: str,
    root: str,
    face: Face,
    t: Words,
    macros: Macros,
    closing: asyncio.Event,
) -> AsyncGenerator[bytes]:
    """The running or last answer, from an event on.

    A reader that comes back gets its turn again from the beginning, because it may have stopped in the middle of a
    block.

    Args:
        after: number of the last event that the reader had.
        base: address of the conversation's files, with a slash at its end.
        root: address of the page.
        closing: set when the server stops.
    """
    telling = _Telling(session, base, root, face, t, macros)
    caught_up = min(after, session.last)
    held: list[bytes] = []
    yield b"retry: 1000\n\n"
    async with aclosing(session.news()) as told:
        waiting: asyncio.Future[Any] | None = None
        ended = asyncio.ensure_future(closing.wait())
        try:
            while True:
                waiting = waiting or asyncio.ensure_future(anext(told, None))
                await asyncio.wait({waiting, ended}, timeout=_BEAT, return_when=asyncio.FIRST_COMPLETED)
                if ended.done():
                    return
                if not waiting.done():
                    yield b": alive\n\n"
                    continue
                events, waiting = waiting.result(), None
                if events is None:
                    return
                parts: list[bytes] = []
                for event in events:
                    past = event.number > after
                    if isinstance(event, Began) and event.role == "assistant" and not past:
                        held.clear()
                    (parts if past else held).extend(await telling.tell(event))
                    if event.number >= caught_up and held:
                        if telling.turn is not None:  # otherwise that turn has ended, and the reader knows its end
                            parts[:0] = held
                        held.clear()
                if parts:
                    yield b"".join(parts)
                    if any(isinstance(event, Text | Calling | Output) for event in events):
                        await asyncio.sleep(_REST)
        finally:
            for task in (waiting, ended):
                if task is not None and not task.done():
                    task.cancel()
                    await asyncio.wait({task})


class _Telling:
    """Renders events, one after the other."""

    def __init__(
        self,
        session: Session,
        base: str,
        root: str,
        face: Face,
        t: Words,
        macros: Macros,
    ) -> None:
        self._session = session
        self._root = root
        self._base, self._face, self._t, self._macros = base, face, t, macros
        self._calls: dict[str, Call] = {}
        self._question: int | None = None
        self._answered = False
        self._branch = Branch(1, 1)
        self._files: tuple[ShownFile, ...] = ()
        self.turn: _Turn | None = None

    async def tell(self, event: Event) -> list[bytes]:
        parts: list[bytes] = []
        if isinstance(event, Began | Done | Failed):
            parts += await self._end_turn()
        if isinstance(event, Failed):
            self._stop_calls()
        if isinstance(event, Began):
            await self._look(event)
        plain = isinstance(event, Text | Calling | Output | Title | Done)
        plain = plain or (isinstance(event, Began) and len(event.text) < _SHORT)
        html = self._html(event) if plain else await asyncio.to_thread(self._html, event)
        data = event.to_dict() if html is None else {**event.to_dict(), "html": html}
        parts.append(_sse(event.kind, data, event.number))
        if self.turn is not None and isinstance(event, Sources | Cited) and self.turn.id == event.turn:
            if isinstance(event, Sources):
                self.turn.sources = event.sources
            else:
                self.turn.cited = event
        if isinstance(event, Text) and self.turn is not None and self.turn.id == event.turn:
            self.turn.text.append(event.text)
            blocks = self.turn.blocks
            if blocks.feed(event.text):
                closed = await asyncio.to_thread(blocks.take)
                self.turn.html += [html for _, html in closed]
                for place, (index, shown) in enumerate(closed):
                    rest = blocks.text if place == len(closed) - 1 else ""
                    parts.append(_sse("block", {"turn": event.turn, "index": index, "html": shown, "rest": rest}))
        return parts

    async def _end_turn(self) -> list[bytes]:
        turn, self.turn = self.turn, None
        if turn is None:
            return []
        turn.html += [html for _, html in await asyncio.to_thread(turn.blocks.close)]
        shown = "".join(turn.html)
        if turn.cited is not None:
            text = "".join(turn.text)
            shown = await asyncio.to_thread(cited_html, shown, text, turn.cited, turn.sources, self._root, self._t)
        return [_sse("turn", {"turn": turn.id, "html": shown})]

    async def _look(self, event: Began) -> None:
        """Read what an event does not contain: the neighbours of a turn, files of a user."""
        self._branch = Branch(*event.place)
        if event.place[1] > 1:
            tree = await self._session.tree()
            self._branch = branch_of(tree, event.turn) if event.turn in tree.turns else self._branch
        self._files = tuple(
            file_of(file.name, self._base, file.size) for file in self._session.attached if file.turn == event.turn
        )

    def _stop_calls(self) -> None:
        for name, call in self._calls.items():
            if call.state in ("running", "permission", "observation"):
                self._calls[name] = replace(call, state="stopped")

    def _html(self, event: Event) -> str | None:
        match event:
            case Began(role="user"):
                self._question = event.turn
                shown = Shown(event.turn, "user", event.text, branch=self._branch, files=self._files)
                return self._macros("user", shown)
            case Began(role="assistant"):
                self.turn = _Turn(event.turn, Blocks(self._base))
                shown = Shown(event.turn, "assistant", open=True)
                if self._answered:
                    return self._macros("part", shown)
                self._answered = True
                self._question = self._question or event.parent
                return self._macros("answer", Answer(self._question, (shown,), self._face, True, self._branch))
            case Called():
                call = Call(event.call, event.name, event.code, call_html(event.arguments, event.code), "running")
                return self._shown(call)
            case Asked() if event.call in self._calls:
                state: Any = event.wants
                return self._shown(replace(self._calls[event.call], state=state))
            case Output() if event.call in self._calls:
                call = self._calls[event.call]
                output = (call.output + event.text)[-_SHOWN:]
                self._calls[event.call] = replace(call, state="running", output=output)
            case Answered() if event.call in self._calls:
                call = self._calls[event.call]
                return self._shown(
                    replace(
                        call,
                        state="failed" if event.failed else "done",
                        output=(event.whole or event.text)[:_SHOWN],
                        pictures=tuple(file_of(name, self._base, picture=True) for name in event.pictures),
                        files=tuple(file_of(name, self._base) for name in event.files),
                        seconds=event.seconds,
                    )
                )
            case Note():
                key = f"note.{event.code}"
                return self._macros("note", event.code, self._t(key) if self._t.has(key) else self._t.said(event.text))
            case Sources():
                return self._macros("sources", event.sources)
            case Cited():
                return self._macros("basis", event, f"{self._root}/c/{self._session.id}/basis/{event.turn}")
            case Failed():
                return self._macros("failed", self._t.said(event.message))
        return None

    def _shown(self, call: Call) -> str:
        self._calls[call.id] = call
        return self._macros("call", call)


def _sse(kind: str, data: dict[str, Any], number: int | None = None) -> bytes:
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode("utf-8", "replace")
