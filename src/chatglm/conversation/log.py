"""The events of one answer, for any number of readers, each at its own pace."""

from __future__ import annotations

import asyncio
import bisect
import itertools
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

from chatglm.conversation.events import Began, Calling, Done, Event, Failed, Output, Text

__all__ = ["EventLog"]

_MOST = 4096
"""Most single events that are kept; beyond that, the older half is joined."""
_TOLD = 256
"""Most events that a reader gets at a time."""


@dataclass(frozen=True)
class _Entry:
    """An event, or several pieces of text as one.

    Attributes:
        first: number of the first piece; the event has the last one's.
    """

    first: int
    event: Event


def _number(entry: _Entry) -> int:
    return entry.event.number


class EventLog:
    """
    Its size grows only with the text in the events, not with their number: older pieces of one text of a long answer
        are
    joined. A reader that was away meanwhile gets the turn again, from its `Began` on.

    Args:
        last: number of the last event before this answer.
        most: events that are kept singly.
    """

    def __init__(self, last: int, most: int = _MOST) -> None:
        self.last = last
        self._most = self._limit = most
        self._entries: list[_Entry] = []
        self._news = asyncio.Event()
        self.ended = False

    def add(self, event: Event) -> None:
        """Number an event, and send it to all readers. After `Done` or `Failed`, no event is sent."""
        if self.ended:
            return
        self.last += 1
        self._entries.append(_Entry(self.last, replace(event, number=self.last)))
        self.ended = isinstance(event, Done | Failed)
        if len(self._entries) > self._limit:
            half = len(self._entries) // 2
            self._entries[:half] = _together(self._entries[:half])
            # Turns and calls stay single, and are few: it is not tried again for each event.
            self._limit = max(self._most, len(self._entries) + self._most // 4)
        self._news.set()
        self._news = asyncio.Event()

    def settle(self) -> None:
        """Join the pieces of texts: the answer has ended, and its readers have had time to read it."""
        self._entries = _together(self._entries)

    def forget(self) -> None:
        """Keep nothing: later readers read the store."""
        self._entries = []

    @property
    def empty(self) -> bool:
        """Whether there is nothing to read."""
        return not self._entries

    async def read(self, after: int = 0) -> AsyncGenerator[tuple[Event, ...]]:
        """Events with a number above `after`, as they come: each time all that are there; ends with the answer.

        Args:
            after: of an event that this log has not had: all are told.
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
        """Index of the entry that a reader gets who has had the event numbered `after`."""
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
    """What text an event is a piece of; None: of none."""
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
