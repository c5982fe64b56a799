"""Events of an answer for readers that come, leave and come back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from hypothesis import given, settings
from hypothesis import strategies as st

from chatglm.conversation.events import Began, Calling, Done, Event, Note, Output, Text
from chatglm.conversation.log import EventLog


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    events: list[Event] = []
    for turn in range(1, draw(st.integers(1, 4)) + 1):
        events.append(Began(turn=turn, parent=None, role="assistant"))
        for _ in range(draw(st.integers(0, 12))):
            word = draw(st.sampled_from("天地玄黄"))
            events.append(
                draw(
                    st.sampled_from(
                        [
                            Text(turn=turn, text=word),
                            Text(turn=turn, text=word),
                            Calling(turn=turn, index=0, name=word, arguments=word),
                            Output(call=f"c{turn}", text=word),
                            Note(code="x", text=word),
                        ]
                    )
                )
            )
    return [*events, Done(turn=1, finish="stop")]


def shown(events: Sequence[Event]) -> dict[object, str]:
    """What a reader has on its screen: texts by what they belong to, a turn anew where it begins."""
    screen: dict[object, str] = {}
    turn = 0
    for event in events:
        match event:
            case Began():
                turn = event.turn
                screen = {key: text for key, text in screen.items() if key[-1] < turn}  # type: ignore[index]
                screen["turn", turn] = ""
            case Text():
                screen["text", turn] = screen.get(("text", turn), "") + event.text
            case Calling():
                key = "name", turn
                screen[key] = screen.get(key, "") + event.name
                screen["arguments", turn] = screen.get(("arguments", turn), "") + event.arguments
            case Output():
                screen["output", turn] = screen.get(("output", turn), "") + event.text
            case Note():
                screen["note", event.number, turn] = event.text
    return screen


async def read(log: EventLog, after: int = 0, most: int = 1 << 30) -> list[Event]:
    found: list[Event] = []
    async with aclosing(log.read(after)) as told:
        async for events in told:
            found += events
            if len(found) >= most:
                break
    return found[:most]


@settings(deadline=None)
@given(answers(), st.lists(st.integers(1, 20), max_size=6), st.integers(0, 50))
def test_any_split_is_the_same_sequence(events: list[Event], splits: list[int], last: int) -> None:
    log = EventLog(last)
    for event in events:
        log.add(event)

    async def talk() -> None:
        whole = await read(log)
        assert whole == events
        assert [event.number for event in whole] == [last + n for n in range(1, len(events) + 1)]
        found: list[Event] = []
        for most in splits:
            found += await read(log, found[-1].number if found else last, most)
        found += await read(log, found[-1].number if found else last)
        assert found == whole
        assert await read(log, log.last) == []
        assert await read(log, log.last + 100) == whole  # numbers of a process that is no more

    asyncio.run(talk())


@settings(deadline=None)
@given(answers(), st.integers(2, 6), st.lists(st.integers(0, 5), max_size=30))
def test_a_bounded_log_shows_the_same(events: list[Event], most: int, steps: list[int]) -> None:
    """Readers that fall behind begin a turn anew; in the end everybody has the same on the screen."""
    log = EventLog(0, most)
    slow: list[Event] = []

    async def talk() -> None:
        due = iter(steps)
        for event in events:
            log.add(event)
            if (step := next(due, 0)) and log.last > (slow[-1].number if slow else 0):
                slow.extend(await read(log, slow[-1].number if slow else 0, min(step, 1)))
        slow.extend(await read(log, slow[-1].number if slow else 0))
        late = await read(log)
        numbered = list(events)
        assert shown(late) == shown(slow)
        assert {k: v for k, v in shown(late).items() if k[0] != "note"} == {  # type: ignore[index]
            k: v
            for k, v in shown(numbered).items()
            if k[0] != "note"  # type: ignore[index]
        }

    asyncio.run(talk())


def test_a_long_answer_takes_few_events() -> None:
    log = EventLog(0, 100)
    log.add(Began(turn=1, parent=None, role="assistant"))
    for number in range(10_000):
        log.add(Text(turn=1, text=str(number % 10)))
    log.add(Done(turn=1, finish="stop"))
    log.add(Note(code="late", text="told to nobody"))

    async def talk() -> None:
        events = await read(log)
        assert len(events) <= 103
        assert "".join(event.text for event in events if isinstance(event, Text)) == "0123456789" * 1000
        again = await read(log, 50)
        assert [event.number for event in again] == [event.number for event in events]
        assert (await read(log, 9_990))[0].number == 9_991
        log.settle()
        assert [event.kind for event in await read(log)] == ["began", "text", "done"]
        assert len(await read(log, 9_990)) == 3
        assert [event.kind for event in await read(log, 10_001)] == ["done"]
        assert not log.empty
        log.forget()
        assert log.empty
        assert await read(log) == []
        assert log.last == 10_002

    asyncio.run(talk())


def test_readers_hold_nothing_up_and_leave() -> None:
    async def talk() -> None:
        log = EventLog(0)
        readers = [asyncio.ensure_future(read(log)) for _ in range(3)]
        leaves = asyncio.ensure_future(read(log))
        await asyncio.sleep(0)
        log.add(Began(turn=1, parent=None, role="assistant"))
        await asyncio.sleep(0)
        leaves.cancel()
        for _ in range(5):
            log.add(Text(turn=1, text="字"))
        log.add(Done(turn=1, finish="stop"))
        assert {len(found) for found in await asyncio.gather(*readers)} == {7}

    asyncio.run(talk())
