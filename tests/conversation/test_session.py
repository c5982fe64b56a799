"""A conversation as terminal and page use it: what is told, what is stored, what goes wrong with one answer only."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from talks import contents, heard, text_of, until

from chatglm.conversation.events import Began, Done, Event, Failed, Text, Title
from chatglm.conversation.session import Sessions
from chatglm.conversation.settings import Settings
from chatglm.conversation.store import Store
from chatglm.errors import BusyError, InputError, NotFoundError
from scripted import Writer


def test_a_question_and_its_answer(store: Store, user: int, over: Any, write: Writer) -> None:
    sessions = Sessions({"demo": over(write.say("你好呀"))}, store)
    session = sessions.open(user, store.make(user))

    async def talk() -> None:
        before = await session.send("  你好\n世界 ")
        assert before == 0
        events = await heard(session, before)
        question, title, answer, *_, done = events
        assert [event.number for event in events] == list(range(1, len(events) + 1))
        assert isinstance(question, Began)
        assert question.role == "user"
        assert title == Title(title="你好 世界")
        assert isinstance(answer, Began)
        assert answer.parent == question.turn
        assert text_of(events) == "你好呀"
        assert isinstance(done, Done)
        assert (done.turn, done.finish) == (answer.turn, "stop")
        assert done.prompt_tokens > 0
        assert contents(store, user, session) == [("  你好\n世界 ", "stop"), ("你好呀", "stop")]
        assert not session.running
        before = await session.send("再见")
        assert before == len(events)
        assert not any(isinstance(event, Title) for event in await heard(session, before))
        await sessions.close()

    asyncio.run(talk())


def test_a_stopped_answer_is_kept(store: Store, user: int, over: Any, write: Writer) -> None:
    sessions = Sessions({"demo": over(write.say("很长" * 200), delay=0.01)}, store)
    session = sessions.open(user, store.make(user))

    async def talk() -> None:
        await session.send("你好")
        await until(session, Text)
        with pytest.raises(BusyError):
            await session.send("等等")
        with pytest.raises(BusyError):
            await session.undo()
        await session.stop()
        events = await heard(session)
        assert isinstance(events[-1], Done)
        assert events[-1].finish == "stopped"
        assert contents(store, user, session)[-1] == (text_of(events), "stopped")
        assert await session.undo() == "你好"
        assert contents(store, user, session) == []
        await sessions.close()

    asyncio.run(talk())


def test_branches(store: Store, user: int, over: Any, write: Writer) -> None:
    sessions = Sessions({"demo": over(*(write.say(text) for text in ("一", "二", "三", "四")))}, store)
    session = sessions.open(user, store.make(user))

    async def talk() -> None:
        async def ask(work: Any) -> list[Event]:
            return await heard(session, await work)

        first = (await ask(session.send("问")))[-1]
        assert isinstance(first, Done)
        second = await ask(session.again(first.turn))
        assert [event.place for event in second if isinstance(event, Began)] == [(2, 2)]
        third = await ask(session.again(first.turn, "改问"))
        assert [(event.place, event.text) for event in third if isinstance(event, Began)] == [
            ((2, 2), "改问"),
            ((1, 1), ""),
        ]
        assert contents(store, user, session) == [("改问", "stop"), ("三", "stop")]
        await session.choose(first.turn)
        assert contents(store, user, session) == [("问", "stop"), ("一", "stop")]
        await session.rate(first.turn, 1)
        assert (await session.tree()).turn(first.turn).rating == 1
        assert await session.undo() == "问"
        await ask(session.send("新问"))
        assert (await session.tree()).place(store.tree(user, session.id).path()[0].id) == (3, 3)

    asyncio.run(talk())


def test_a_failing_model_ends_its_answer_only(store: Store, user: int, over: Any, write: Writer) -> None:
    sessions = Sessions({"demo": over(RuntimeError("broken"), write.say("好"))}, store)
    session = sessions.open(user, store.make(user))

    async def talk() -> None:
        await session.send("问")
        events = await heard(session)
        assert isinstance(events[-1], Failed)
        assert "broken" in events[-1].message
        await session.again(events[-1].turn or 0)
        assert text_of(await heard(session)) == "好"

    asyncio.run(talk())


def test_settings_are_checked_and_others_see_nothing(store: Store, user: int, over: Any, write: Writer) -> None:
    sessions = Sessions({"demo": over(write.say("好"))}, store)
    session = sessions.open(user, store.make(user, settings={"theme": "dark"}))

    async def talk() -> None:
        for settings, said in (
            (Settings(params={"temperature": -1}), "temperature"),
            (Settings(params={"n": 2}), "n: a conversation"),
            (Settings(params={"temprature": 1}), "did you mean temperature"),
            (Settings(model="gpt"), "model: no 'gpt'"),
            (Settings(adapter="x"), "adapter: no 'x'"),
            (Settings(mode="sing"), "mode 'sing'"),  # type: ignore[arg-type]
            (Settings(tools=["a"]), "tools: must"),  # type: ignore[arg-type]
        ):
            with pytest.raises(InputError, match=said):
                await session.configure(settings)
        found = session.settings
        assert found.more == {"theme": "dark"}
        await session.configure(Settings(system="短", params={"temperature": 0}, more=found.more))
        assert session.settings == Settings(system="短", params={"temperature": 0}, more={"theme": "dark"})

    asyncio.run(talk())
    with pytest.raises(NotFoundError):
        sessions.open(user + 1, session.id)
