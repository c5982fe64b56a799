"""What goes wrong ends one answer; what is another user's does not exist; what is killed is found again."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from talks import Teller, contents, heard, text_of, until

import waiting
from chatglm.assistant import CallDelta, Finish, RemoteAssistant, TextDelta, Usage
from chatglm.conversation.events import Began, Called, Done, Event, Failed, Text
from chatglm.conversation.session import Session, Sessions
from chatglm.conversation.settings import Settings
from chatglm.conversation.store import Store
from chatglm.errors import BusyError, InputError, NotFoundError, OutputError, ServiceError
from chatglm.tools import Toolbox
from scripted import Writer
from server import serving

HERE = Path(__file__).resolve().parent


def test_many_readers(store: Store, user: int, over: Any, write: Writer) -> None:
    """They come, leave and come back; all of them see the same, and none holds the answer up."""
    text = "春眠不觉晓" * 20
    sessions = Sessions({"demo": over(write.say(text), delay=0.002)}, store)

    async def jumpy(session: Session, most: int) -> list[Event]:
        found: list[Event] = []
        while not (found and isinstance(found[-1], Done | Failed)):
            left = most
            async for event in session.events(found[-1].number if found else 0):
                found.append(event)
                left -= 1
                if not left:
                    break
        return found

    async def sleepy(session: Session) -> list[Event]:
        reading = session.events()
        found = [await anext(reading)]
        while session.running:
            await asyncio.sleep(0.01)
        return found + [event async for event in reading]

    async def talk() -> None:
        session = await sessions.make(user)
        await session.send("问")
        found = await asyncio.gather(heard(session), jumpy(session, 1), jumpy(session, 7), sleepy(session))
        assert all(events == found[0] for events in found)
        assert text_of(found[0]) == text

    asyncio.run(talk())


def test_two_users(store: Store, user: int, other: int) -> None:
    sessions = Sessions({"demo": Teller.text("答" * 50, pause=0.001)}, store)

    async def talk() -> None:
        mine, his = await sessions.make(user), await sessions.make(other)
        await asyncio.gather(mine.send("我的"), his.send("他的"))
        both = await asyncio.gather(heard(mine), heard(his))
        turns = [{event.turn for event in events if isinstance(event, Began)} for events in both]
        assert not turns[0] & turns[1]
        assert [text for text, _ in contents(store, other, his)] == ["他的", "答" * 50]
        for thief, session in ((other, mine), (user, his)):
            with pytest.raises(NotFoundError):
                sessions.open(thief, session.id)
            with pytest.raises(NotFoundError):
                await sessions.delete(thief, session.id)
        assert sessions.open(user, mine.id) is mine
        with pytest.raises(NotFoundError, match="no such user"):
            await sessions.make(12_345)

    asyncio.run(talk())


ARGUMENTS: dict[str, Any] = {
    "text": "x",
    "turn": 0,  # filled in
    "rating": 1,
    "call": "call_1",
    "yes": True,
    "name": "a.txt",
    "settings": Settings(system="x"),
}
"""What a method of Session is called with. Whoever adds a parameter adds it here."""


def test_anothers_turns_and_files_are_none(store: Store, user: int, other: int) -> None:
    """Every method of a session with another user's ids, and of a conversation that has been deleted."""
    sessions = Sessions({"demo": Teller.text("答")}, store)

    async def data() -> AsyncIterator[bytes]:
        yield b"x"

    async def talk() -> None:
        his = await sessions.make(other)
        await heard(his, await his.send("秘密"))
        await his.upload("a.txt", data())
        his_turn = store.tree(other, his.id).path()[-1].id
        mine = await sessions.make(user)
        await heard(mine, await mine.send("问"))
        before = (store.tree(other, his.id), store.files(other, his.id), store.conversation(other, his.id))
        own = (store.tree(user, mine.id), store.files(user, mine.id))
        methods = [name for name, _ in inspect.getmembers(Session, inspect.isfunction) if name[0] != "_"]
        assert len(methods) > 10
        gone = await sessions.make(user)
        store.delete(user, gone.id)
        for name in methods:
            parameters = list(inspect.signature(getattr(Session, name)).parameters.values())[1:]
            given = {each.name: ARGUMENTS.get(each.name) for each in parameters if each.default is each.empty}
            if "data" in given:
                given["data"] = data()
            if "turn" in given:
                with pytest.raises(InputError) as error:
                    await getattr(mine, name)(**{**given, "turn": his_turn})
                assert "秘密" not in str(error.value)
            if name == "file":
                with pytest.raises(NotFoundError):
                    await mine.file("a.txt")
            if name in ("events", "has_news", "news", "stop"):
                continue
            with pytest.raises(InputError):
                await getattr(gone, name)(**{**given, **({"turn": 1} if "turn" in given else {})})
        assert before == (store.tree(other, his.id), store.files(other, his.id), store.conversation(other, his.id))
        assert own == (store.tree(user, mine.id), store.files(user, mine.id))

    asyncio.run(talk())


# What fails


def test_another_servers_model(store: Store, user: int, over: Any, write: Writer) -> None:
    """RemoteAssistant, with a tool; then the server is gone."""

    def add(a: int, b: int) -> int:
        """Add.

        Args:
            a: one
            b: the other
        """
        return a + b

    local = over(write.call(("add", {"a": 1, "b": 2})), write.say("三"))

    async def talk() -> None:
        session = await sessions.make(user, Settings(mode="tools"))
        events = await heard(session, await session.send("一加二"))
        assert [text for text, _ in contents(store, user, session)] == ["一加二", "", "3", "三"]
        called = next(event for event in events if isinstance(event, Called))
        assert called.arguments == '{"a": 1, "b": 2}'
        done = events[-1]
        assert isinstance(done, Done)
        assert done.prompt_tokens > done.completion_tokens > 0
        assert done.seconds >= done.first_seconds > 0

    async def gone() -> None:
        session = await sessions.make(user)
        failed = (await heard(session, await session.send("问")))[-1]
        assert isinstance(failed, Failed)
        assert "127.0.0.1" in failed.message

    with Toolbox([add]) as box, serving({"demo": local}) as url, RemoteAssistant(f"{url}/v1") as remote:
        sessions = Sessions({"there": remote}, store, toolbox=box)
        asyncio.run(talk())
    with RemoteAssistant(f"{url}/v1", "demo") as remote:
        sessions = Sessions({"there": remote}, store)
        asyncio.run(gone())


FINISH = Finish("stop", Usage(1, 1))


@pytest.mark.parametrize(
    ("deltas", "kept"),
    [
        (ServiceError("the other server broke off"), ""),
        ((), ""),  # a stream without an end
        ((TextDelta("半"),), "半"),
        ((CallDelta(0, "1", "f", '{"a": '), TextDelta("句")), "句"),
    ],
)
def test_a_broken_model(store: Store, user: int, deltas: Any, kept: str) -> None:
    sessions = Sessions({"demo": Teller(deltas, (TextDelta("好"), FINISH))}, store)

    async def talk() -> None:
        session = await sessions.make(user)
        failed = (await heard(session, await session.send("问")))[-1]
        assert isinstance(failed, Failed)
        turn = store.tree(user, session.id).path()[-1]
        assert (turn.id, turn.message.content, turn.finish) == (failed.turn, kept, "stopped")
        assert text_of(await heard(session, await session.again(turn.id))) == "好"

    asyncio.run(talk())


def test_a_model_that_cannot_be_had(store: Store, user: int) -> None:
    models: list[Any] = [InputError("model: there is no 'x'"), Teller.text("好")]

    async def find(settings: Settings) -> Any:
        found = models.pop(0)
        if isinstance(found, Exception):
            raise found
        assert settings.model == "x"
        return found

    sessions = Sessions(find, store)

    async def talk() -> None:
        session = await sessions.make(user, Settings(model="x"))
        failed = (await heard(session, await session.send("问")))[-1]
        assert failed == Failed(turn=None, message="model: there is no 'x'")
        question = store.tree(user, session.id).path()[-1]
        assert text_of(await heard(session, await session.again(question.id))) == "好"

    asyncio.run(talk())


@pytest.mark.parametrize("method", ["keep", "finish", "ask"])
def test_a_store_that_fails(store: Store, user: int, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr("chatglm.conversation.answering.KEEP_SECONDS", 0.01)
    sessions = Sessions({"demo": Teller.text("答" * 100, pause=0.002)}, store)

    async def talk() -> None:
        session = await sessions.make(user)
        await session.send("问")
        with monkeypatch.context() as patch:
            await until(session, Text)

            def broken(*arguments: Any, **named: Any) -> None:
                raise OutputError("the disk is full")

            patch.setattr(store, method, broken)
            if method == "ask":
                await session.stop()
                with pytest.raises(OutputError):
                    await session.send("再问")
            else:
                failed = (await heard(session))[-1]
                assert isinstance(failed, Failed)
                assert "the disk is full" in failed.message
        assert not session.running
        assert all(turn.finish for turn in store.tree(user, session.id).turns.values())
        assert isinstance((await heard(session, await session.send("又问")))[-1], Done)

    asyncio.run(talk())


def test_a_stop_does_not_wait_for_what_hangs(
    store: Store, user: int, over: Any, write: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatglm.conversation.answering._GRACE", 0.05)
    release = threading.Event()

    class Stubborn(Teller):
        async def astream(self, messages: Any, **options: Any) -> Any:
            yield TextDelta("半")
            while not release.is_set():
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    continue

    sessions = Sessions({"demo": Stubborn()}, store)

    async def talk() -> None:
        session = await sessions.make(user)
        await session.send("问")
        await until(session, Text)
        await session.stop()
        done = (await heard(session))[-1]
        assert isinstance(done, Done)
        assert done.finish == "stopped"
        assert contents(store, user, session)[-1] == ("半", "stopped")
        release.set()
        await asyncio.sleep(0.05)

    asyncio.run(talk())


def test_closing_keeps_what_there_is(store: Store, user: int) -> None:
    sessions = Sessions({"demo": Teller.text("答" * 1000, pause=0.001)}, store)

    async def talk() -> None:
        both = [await sessions.make(user), await sessions.make(user)]
        for session in both:
            await session.send("问")
            await until(session, Text)
        await sessions.close()
        for session in both:
            text, finish = contents(store, user, session)[-1]
            assert text
            assert finish == "stopped"

    asyncio.run(talk())


def test_a_loop_that_ends_keeps_what_there_is(store: Store, user: int) -> None:
    sessions = Sessions({"demo": Teller.text("答" * 1000, pause=0.001)}, store)

    async def talk() -> Session:
        session = await sessions.make(user)
        await session.send("问")
        await until(session, Text)
        return session

    session = asyncio.run(talk())
    assert contents(store, user, session)[-1][1] == "stopped"


def test_a_deleted_conversation_ends_its_answer(store: Store, user: int) -> None:
    sessions = Sessions({"demo": Teller.text("答" * 1000, pause=0.001)}, store)

    async def talk() -> None:
        session = await sessions.make(user)
        await session.send("问")
        await until(session, Text)
        await sessions.delete(user, session.id)
        assert isinstance((await heard(session))[-1], Failed)
        with pytest.raises(NotFoundError):
            sessions.open(user, session.id)

    asyncio.run(talk())


def test_words_of_a_code_call_as_they_come(store: Store, user: int) -> None:
    """Pieces of JSON become pieces of code, wherever they are cut."""
    from chatglm.conversation.answering import _Code

    text = '{"code": "a = \\"\\u4f60\\ud83d\\ude00\\"\\nprint(a)"}'
    assert _Code().feed('{"code": "a\\udc00b') == "a"  # half a character is no text
    for size in (1, 2, 3, 7, 100):
        code = _Code()
        made = [code.feed(text[at : at + size]) for at in range(0, len(text), size)]
        assert "".join(made) == 'a = "你😀"\nprint(a)'


# Other processes


CHILD = """
import asyncio, sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from chatglm.conversation.session import Sessions
from chatglm.conversation.store import Store
from talks import Teller

async def talk():
    store = Store(Path(sys.argv[1]))
    user = store.users.local().id
    sessions = Sessions({"demo": Teller.text("第一答", "长" * 100_000, pause=0.01)}, store)
    session = await sessions.make(user)
    await session.send("一")
    async for event in session.events(): pass
    await session.send("二")
    print(session.id, flush=True)
    async for event in session.events(): pass

asyncio.run(talk())
"""


def test_a_killed_process(tmp_path: Path) -> None:
    """Another process is told that it answers; killed, it loses a second of the open answer at most."""
    file = tmp_path / "c.sqlite"
    arguments = [sys.executable, "-c", CHILD, str(file), str(HERE), str(HERE.parent)]
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    name = child.stdout.readline().strip()
    store = Store(file)
    user = store.users.local().id
    sessions = Sessions({"demo": Teller.text("好")}, store)
    session = sessions.open(user, name)

    async def busy() -> None:
        with pytest.raises(BusyError, match="another program"):
            await session.send("三")

    try:
        waiting.until(lambda: (path := contents(store, user, session))[3:] and path[3][0], pause=0.05)
        asyncio.run(busy())
        session = Sessions({"demo": Teller.text("好")}, store).open(user, name)
        assert contents(store, user, session)[-1][1] is None  # it is left as it is
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
    again = Sessions({"demo": Teller.text("好")}, store).open(user, name)
    path = contents(store, user, again)
    assert path[:3] == [("一", "stop"), ("第一答", "stop"), ("二", "stop")]
    assert set(path[3][0]) == {"长"}
    assert path[3][1] == "stopped"
    assert store.search(user, "长长")

    async def goes_on() -> None:
        assert text_of(await heard(again, await again.send("三"))) == "好"

    asyncio.run(goes_on())
    store.close()
