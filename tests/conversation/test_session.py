"""A conversation as terminal and page use it: what is told, what is stored, what goes wrong with one answer only."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from talks import Teller, contents, heard, text_of, until

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
        kept = store.tree(user, session.id).turn(done.turn).details
        assert kept["tokens"] == done.completion_tokens
        assert 0 < kept["seconds"] <= done.seconds + 0.001
        assert contents(store, user, session) == [("  你好\n世界 ", "stop"), ("你好呀", "stop")]
        assert not session.running
        before = await session.send("再见")
        assert before == len(events)
        assert not any(isinstance(event, Title) for event in await heard(session, before))
        await sessions.close()

    asyncio.run(talk())


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("  你好\n世界 ", "你好 世界"),
        ("字" * 40, "字" * 40),
        ("字" * 41, "字" * 39 + "…"),
        (
            "请写一篇关于春天的散文，要求语言优美，情感真挚，八百字左右，适合高中的学生们阅读和背诵",
            "请写一篇关于春天的散文，要求语言优美，情感真挚，八百字左右…",
        ),
        (
            "请写一篇关于春天的散文，要求语言优美而且情感真挚。八百字左右就好了适合高中的学生们阅读",
            "请写一篇关于春天的散文，要求语言优美而且情感真挚。",
        ),
        ("Please write a comprehensive introduction to thermodynamics", "Please write a comprehensive…"),
        ("What is the capital of France? And of Germany, and of Italy?", "What is the capital of France?"),
        ("Explain to me what is new in version 3.11.5-beta and later", "Explain to me what is new in version…"),
        ("一" * 30 + "thermodynamics二", "一" * 30 + "…"),
        ("x" * 100, "x" * 39 + "…"),
        ("一" * 37 + "👨\u200d👩\u200d👧" * 3, "一" * 37 + "…"),
    ],
)
def test_titles_are_cut_between_words(store: Store, user: int, text: str, title: str) -> None:
    sessions = Sessions({"demo": Teller.text("好")}, store)
    session = sessions.open(user, store.make(user))

    async def talk() -> None:
        await session.send(text)
        await heard(session)

    asyncio.run(talk())
    assert session.conversation.title == title
    assert len(title) <= 40


def test_a_conversation_is_one_object_as_long_as_somebody_holds_it(
    store: Store, user: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if so many others were opened since that it need not be kept in mind: no two answers are made at once."""
    monkeypatch.setattr("chatglm.conversation.session._OPEN", 8)
    sessions = Sessions({"demo": Teller.text("好" * 20, pause=0.01)}, store)
    names = [store.make(user) for _ in range(30)]
    held = sessions.open(user, names[0])
    gone = weakref.ref(sessions.open(user, names[1]))

    async def talk() -> None:
        for name in names[2:]:
            sessions.open(user, name)
        gc.collect()
        assert gone() is None
        assert sessions.open(user, names[0]) is held
        before = await held.send("问")
        with pytest.raises(BusyError):
            await sessions.open(user, names[0]).send("等等")
        numbers = [event.number for event in await heard(held, before)]
        # Numbers go on growing when it has been forgotten.
        again = sessions.open(user, names[0])
        assert again.last == numbers[-1]
        await sessions.delete(user, names[0])
        with pytest.raises(NotFoundError):
            sessions.open(user, names[0])

    asyncio.run(talk())


def test_a_user_is_deleted_with_answers_and_files(store: Store, user: int, other: int, tmp_path: Path) -> None:
    sessions = Sessions({"demo": Teller.text("好" * 1000, pause=0.01)}, store)

    async def data() -> AsyncIterator[bytes]:
        yield b"a"

    async def talk() -> None:
        mine, his = await sessions.make(user), await sessions.make(other)
        for session in (mine, his):
            await session.upload("a.txt", data())
        await his.send("问")
        await until(his, Text)
        await sessions.delete_user(other)
        assert not his.running
        with pytest.raises(NotFoundError):
            await sessions.delete_user(other)
        assert [each.name for each in (tmp_path / "conversations").iterdir()] == [mine.id]
        with await mine.file("a.txt") as file:
            assert file.read() == b"a"

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
            (Settings(model="gpt"), "model: there is no 'gpt'"),
            (Settings(adapter="x"), "adapter: there is no 'x'"),
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
