"""The events of one answer, for any number of readers, each at its own speed."""

from __future__ import annotations

import asyncio
import bisect
import itertools
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

from chatglm.conversation.events import Began, Calling, Done, Event, Failed, Output, Text

__all__ = ["EventLog"]

_MOST = 4096
"""Most single events that are kept. If there are more, pieces of text in the older half are joined."""
_TOLD = 256
"""Most events that a reader gets at once."""


@dataclass(frozen=True)
class _Entry:
    """An event, or several pieces of text joined to one.

    Attributes:
        first: number of the first piece; the event has the number of the last piece.
    """

    first: int
    event: Event


def _number(entry: _Entry) -> int:
    return entry.event.number


class EventLog:
    """The events of one answer.

    The log grows only with the text in the events, not with their number: in a long answer, older pieces of the same
    text are joined. A reader that missed some of these pieces gets the whole turn again, from its `Began` on.

    Args:
        last: number of the last event before this answer.
        most: number of events that are kept singly.
    """

    def __init__(self, last: int, most: int = _MOST) -> None:
        self.last = last
        self._most = self._limit = most
        self._entries: list[_Entry] = []
        self._news = asyncio.Event()
        self.ended = False

    def add(self, event: Event) -> None:
        """Number an event, and send it to all readers. After `Done` or `Failed`, no event is sent any more."""
        if self.ended:
            return
        self.last += 1
        self._entries.append(_Entry(self.last, replace(event, number=self.last)))
        self.ended = isinstance(event, Done | Failed)
        if len(self._entries) > self._limit:
            half = len(self._entries) // 2
            self._entries[:half] = _together(self._entries[:half])
            # Events of turns and calls are few and stay single. Do not try again at each event.
            self._limit = max(self._most, len(self._entries) + self._most // 4)
        self._news.set()
        self._news = asyncio.Event()

    def settle(self) -> None:
        """Join the pieces of texts. Called when the answer has ended and its readers had time to read it."""
        self._entries = _together(self._entries)

    def forget(self) -> None:
        """Delete all events. Later readers read the store."""
        self._entries = []

    @property
    def empty(self) -> bool:
        """Whether there are no events."""
        return not self._entries

    async def read(self, after: int = 0) -> AsyncGenerator[tuple[Event, ...]]:
        """Yield events with a number above `after` as they come, each time all that there are; ends with the answer.

        Args:
            after: if this log never had an event of this number, all events are given.
        """
        if after > self.last:
            after = 0
        while True:
            news = self._news
            place = self._place(after)
            if entries := self._entries[place : place + _TOLD]:
                after = _number(entries[-1])
                yield tuple(entry.event for entry in entries)
            elif self.ended:
                return
            else:
                await news.wait()

    def _place(self, after: int) -> int:
        """Index of the next entry for a reader that has had the event numbered `after`."""
        place = bisect.bisect_right(self._entries, after, key=_number)
        if place < len(self._entries) and self._entries[place].first <= after:
            while place and not isinstance(self._entries[place].event, Began):
                place -= 1
        return place


def _together(entries: Sequence[_Entry]) -> list[_Entry]:
    made: list[_Entry] = []
    for _, group in itertools.groupby(entries, lambda entry: _text_of(entry.event)):
        same = list(group)
        made += [_joined(same)] if _text_of(same[0].event) is not None else same
    return made


def _text_of(event: Event) -> tuple[object, ...] | None:
    """Identifies the text of which an event is a piece; None: the event is no piece of text."""
    match event:
        case Text():
            return "text", event.turn
        case Calling():
            return "calling", event.turn, event.index
        case Output():
            return "output", event.call
    return None


def _joined(entries: Sequence[_Entry]) -> _Entry:
    last = entries[-1].event
    events = [entry.event for entry in entries]
    if isinstance(last, Calling):
        pieces = [event for event in events if isinstance(event, Calling)]
        name, arguments = "".join(p.name for p in pieces), "".join(p.arguments for p in pieces)
        last = replace(last, name=name, arguments=arguments)
    elif isinstance(last, Text | Output):
        last = replace(last, text="".join(e.text for e in events if isinstance(e, Text | Output)))
    return _Entry(entries[0].first, last)
