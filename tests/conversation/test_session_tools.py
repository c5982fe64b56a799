"""Tools in conversations: those of a toolbox, those that a person answers, and the interpreter."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any, TypeVar

import pytest
from talks import contents, heard, text_of, until

from chatglm.assistant import RemoteAssistant
from chatglm.chat.messages import Message
from chatglm.conversation.events import (
    Answered,
    Asked,
    Began,
    Called,
    Calling,
    Done,
    Event,
    Note,
    Output,
    Text,
)
from chatglm.conversation.session import Sessions
from chatglm.conversation.settings import Settings
from chatglm.conversation.store import Store, StoreLimits
from chatglm.errors import InputError, QueueFullError, ToolError
from chatglm.tools import Consent, Function, Toolbox
from chatglm.tools.interpreter.pool import Kernels
from kernels import need_sandbox, pieces
from scripted import Writer
from server import serving


def get_weather(city: str) -> str:
    """The weather.

    Args:
        city: a city
    """
    return f"{city}：晴"


def order(thing: str) -> str:
    """Order something.

    Args:
        thing: what
    """
    return f"{thing}已订"


E = TypeVar("E", bound=Any)
WEATHER = ("get_weather", {"city": "北京"})
ORDER = ("order", {"thing": "茶"})


@pytest.fixture
def box() -> Any:
    with Toolbox([get_weather, Function.of(order, consent=Consent.ALWAYS)]) as box:
        yield box


def kinds(events: list[Event]) -> list[str]:
    """Without pieces of text."""
    return [event.kind for event in events if not isinstance(event, Text | Calling | Output)]


def found_of(events: list[Event], kind: type[E]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


def test_a_tool_is_called(store: Store, user: int, over: Any, write: Writer, box: Toolbox) -> None:
    sessions = Sessions({"demo": over(write.call(WEATHER, text="我看看"), write.say("晴天"))}, store, toolbox=box)

    async def talk() -> None:
        session = await sessions.make(user, Settings(mode="tools", tools=("get_weather",)))
        await session.send("北京天气")
        events = await heard(session)
        assert kinds(events) == ["began", "title", "began", "called", "began", "answered", "began", "done"]
        called = next(event for event in events if isinstance(event, Called))
        answered = next(event for event in events if isinstance(event, Answered))
        assert (called.name, called.arguments, called.code) == ("get_weather", '{"city": "北京"}', False)
        assert (answered.call, answered.text, answered.failed) == (called.call, "北京：晴", False)
        assert contents(store, user, session) == [
            ("北京天气", "stop"),
            ("我看看", "tool_calls"),
            ("北京：晴", "stop"),
            ("晴天", "stop"),
        ]
        turns = store.tree(user, session.id).path()
        assert [event.turn for event in events if isinstance(event, Began)] == [turn.id for turn in turns]
        assert turns[2].id == answered.turn
        assert turns[2].message.tool_call_id == turns[1].message.tool_calls[0].id == called.call
        assert set(turns[2].details) == {"seconds"}
        first, last = turns[1].details["tokens"], turns[3].details["tokens"]
        done = events[-1]
        assert isinstance(done, Done)
        assert done.completion_tokens == last > first > 0  # of both rounds
        assert 0 < done.writing_seconds <= done.seconds
        calling = [event for event in events if isinstance(event, Calling)]
        assert "".join(event.name for event in calling) == "get_weather"

    asyncio.run(talk())


@pytest.mark.parametrize("yes", [True, False])
def test_a_person_is_asked(store: Store, user: int, over: Any, write: Writer, box: Toolbox, yes: bool) -> None:
    replies = (write.call(ORDER), write.say("好"), write.call(ORDER), write.say("好"))
    sessions = Sessions({"demo": over(*replies)}, store, toolbox=box)

    async def talk() -> None:
        session = await sessions.make(user, Settings(mode="tools"))
        await session.send("订茶")
        asked = await until(session, Asked)
        assert asked.wants == "permission"
        with pytest.raises(InputError, match="does not wait for an observation"):
            await session.observe(asked.call, "x")
        with pytest.raises(InputError, match="does not wait for a permission"):
            await session.permit("another", True)
        await session.permit(asked.call, yes, always=True)
        with pytest.raises(InputError, match="does not wait"):
            await session.permit(asked.call, True)
        answered = await until(session, Answered)
        assert answered.text == "茶已订" if yes else answered.failed
        await heard(session)
        with pytest.raises(InputError, match="no answer is waiting"):
            await session.permit(asked.call, True)
        after = await session.send("再订")
        if yes:  # always
            assert "asked" not in kinds(await heard(session, after))
        else:
            await session.permit((await until(session, Asked, after)).call, False)
        await heard(session)

    asyncio.run(talk())


def test_calls_run_together_and_each_is_told_when_it_ends(store: Store, user: int, over: Any, write: Writer) -> None:
    last = threading.Event()

    def first() -> str:
        """Waits for the second."""
        last.wait(60)
        return "一"

    def second() -> str:
        """Ends at once."""
        return "二"

    calls = write.call(("first", {}), ("second", {}))
    with Toolbox([first, second], seconds=100) as box:
        sessions = Sessions({"demo": over(calls, write.say("好"))}, store, toolbox=box)

        async def talk() -> None:
            session = await sessions.make(user, Settings(mode="tools"))
            await session.send("做")
            assert (await until(session, Answered)).text == "二"
            last.set()
            events = await heard(session)
            assert [event.text for event in events if isinstance(event, Answered)] == ["二", "一"]
            assert [text for text, _ in contents(store, user, session)] == ["做", "", "一", "二", "好"]

        asyncio.run(talk())


def test_a_person_is_asked_once(store: Store, user: int, over: Any, write: Writer) -> None:
    """While others run; in another conversation anew."""
    ran: list[str] = []

    async def note(text: str) -> str:
        """Note.

        Args:
            text: what
        """
        ran.append(text)
        await asyncio.sleep(0.01)
        return text

    replies = []
    for _ in range(3):
        replies += [write.call(ORDER, *(("note", {"text": str(n)}) for n in range(6))), write.say("好")]
    with Toolbox([note, Function.of(order, consent=Consent.ONCE)]) as box:
        sessions = Sessions({"demo": over(*replies)}, store, toolbox=box)

        async def talk() -> None:
            one, two = [await sessions.make(user, Settings(mode="tools")) for _ in range(2)]
            for session, asks in ((one, True), (one, False), (two, True)):
                after = await session.send("做")
                found: list[Event] = []
                async for event in session.events(after):
                    found.append(event)
                    if asks and isinstance(event, Answered) and len(found_of(found, Answered)) == 6:
                        assert len(ran) == 6  # all but the one that waits
                        await session.permit(found_of(found, Asked)[0].call, True)
                assert len(found_of(found, Answered)) == 7
                assert len(found_of(found, Asked)) == asks
                ran.clear()

        asyncio.run(talk())


def test_so_many_calls_run_together(store: Store, user: int, over: Any, write: Writer) -> None:
    running = most = 0

    async def count(number: int) -> str:
        """Count.

        Args:
            number: which
        """
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        return str(number)

    calls = write.call(*(("count", {"number": n}) for n in range(9)))
    with Toolbox([count]) as box:
        sessions = Sessions({"demo": over(calls, write.say("好"))}, store, toolbox=box)

        async def talk() -> None:
            session = await sessions.make(user, Settings(mode="tools"))
            await heard(session, await session.send("数"))
            assert [text for text, _ in contents(store, user, session)][2:-1] == list("012345678")

        asyncio.run(talk())
    assert most == 4


def test_a_turn_has_so_many_calls(store: Store, user: int, over: Any, write: Writer) -> None:
    ran: list[int] = []

    def count(number: int) -> str:
        """Count.

        Args:
            number: which
        """
        ran.append(number)
        return str(number)

    calls = write.call(*(("count", {"number": n}) for n in range(40)))
    with Toolbox([count]) as box:
        sessions = Sessions({"demo": over(calls, write.say("好"))}, store, toolbox=box)

        async def talk() -> None:
            session = await sessions.make(user, Settings(mode="tools"))
            await heard(session, await session.send("数"))
            told = [text for text, _ in contents(store, user, session)][2:-1]
            assert told == [*map(str, range(32)), *["Not carried out: more than 32 calls at once."] * 8]

        asyncio.run(talk())
    assert sorted(ran) == list(range(32))


def test_stop_ends_a_tool(store: Store, user: int, over: Any, write: Writer) -> None:
    begun, over_it = threading.Event(), threading.Event()

    async def wait() -> str:
        """Waits."""
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            over_it.set()
        return ""

    with Toolbox([wait, Function.of(order, consent=Consent.ALWAYS)]) as box:
        assistant = over(write.call(("wait", {})), write.call(ORDER), write.say("好"))
        sessions = Sessions({"demo": assistant}, store, toolbox=box)

        async def talk() -> None:
            session = await sessions.make(user, Settings(mode="tools"))
            await session.send("等")
            await until(session, Began)
            await asyncio.to_thread(begun.wait, 60)
            await session.stop()
            assert over_it.is_set()
            *_, answered, done = await heard(session)
            assert isinstance(answered, Answered)
            assert (answered.text, answered.failed) == ("Stopped by the user.", True)
            assert isinstance(done, Done)
            assert done.finish == "stopped"
            assert contents(store, user, session)[-1] == ("Stopped by the user.", "stopped")
            after = await session.send("订")
            await until(session, Asked, after)
            await session.stop()  # while a person is asked
            assert contents(store, user, session)[-1][1] == "stopped"
            await session.again(done.turn)
            assert text_of(await heard(session)) == "好"

        asyncio.run(talk())


MANUAL = """
- name: look_up
  description: 查
  parameters: {type: object, properties: {word: {type: string}}, required: [word]}
"""


def test_a_person_answers_for_the_tools(store: Store, user: int, over: Any, write: Writer) -> None:
    sessions = Sessions({"demo": over(write.call(("look_up", {"word": "茶"})), write.say("是叶子"))}, store)

    async def talk() -> None:
        for text, said in (
            ("- a: [", "neither JSON nor YAML"),
            ("x" * 70_000, "larger"),
            ("[]", "1 to 32"),
            (MANUAL * 2, "different names"),
            ("- {name: a, parameters: {$ref: 'http://x'}}", "manual"),
            ("- 3", "expected a dict"),
        ):
            with pytest.raises((ToolError, InputError), match=said):
                await sessions.make(user, Settings(mode="tools", manual=text))
        session = await sessions.make(user, Settings(mode="tools", manual=MANUAL))
        await session.send("茶是什么")
        asked = await until(session, Asked)
        assert asked.wants == "observation"
        with pytest.raises(InputError, match="longer than"):
            await session.observe(asked.call, "x" * 100_000)
        await session.observe(asked.call, "叶子")
        await heard(session)
        assert [text for text, _ in contents(store, user, session)] == ["茶是什么", "", "叶子", "是叶子"]
        row = await session.training_row()
        assert row is not None
        assert [tool["name"] for tool in row["tools"]] == ["look_up"]

    asyncio.run(talk())


# The interpreter


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Any:
    need_sandbox()
    kernels = Kernels(tmp_path_factory.mktemp("kernels"), spare=0)
    yield kernels
    asyncio.run(kernels.close())


PLOT = """
import base64
print('算', 6 * 7)
open('out.txt', 'w').write('hi')
import os; os.makedirs('in', exist_ok=True); open('in/b.txt', 'w').write('x')
from IPython.display import Image, display
png = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='
display(Image(base64.b64decode(png)))
"""


def test_code(store: Store, user: int, other: int, over: Any, write: Writer, kernels: Kernels, tmp_path: Path) -> None:
    assistant = over(write.code(PLOT), write.say("四十二"), write.say("看过了"))
    sessions = Sessions({"demo": assistant}, store, kernels=kernels, folder=tmp_path / "files")

    async def talk() -> None:
        session = await sessions.make(user, Settings(mode="code"))
        file = await session.upload("数据.csv", pieces(b"a,b\n", b"1,2\n"))
        assert (file.size, file.kind) == (8, "upload")
        await session.send("算一算", ["数据.csv"])
        events = await heard(session)
        assert kinds(events) == ["began", "title", "began", "called", "began", "answered", "began", "done"]
        called = next(event for event in events if isinstance(event, Called))
        assert called.code
        assert called.arguments.strip() == PLOT.strip()
        shown = "".join(event.arguments for event in events if isinstance(event, Calling))
        assert shown == called.arguments
        outputs = [event for event in events if isinstance(event, Output)]
        assert {event.call for event in outputs} == {called.call}
        assert "".join(event.text for event in outputs).startswith("算 42\n")
        answered = next(event for event in events if isinstance(event, Answered))
        assert sorted(answered.files) == ["in/b.txt", "out.txt"]
        (picture,) = answered.pictures
        assert answered.text == "算 42\n[Image]"
        assert not answered.failed
        kept = {file.name: (file.kind, file.turn) for file in await session.files()}
        question = store.tree(user, session.id).path()[0]
        assert kept == {
            "数据.csv": ("upload", question.id),
            picture: ("picture", answered.turn),
            "out.txt": ("produced", answered.turn),
            "in/b.txt": ("produced", answered.turn),
        }
        with await session.file(picture) as stream:
            assert stream.read(4) == b"\x89PNG"
        with await session.file("in/b.txt") as stream:
            assert stream.read() == b"x"
        with pytest.raises(InputError, match="no such file"):
            await session.file("../out.txt")
        assert "#File: /mnt/data/数据.csv\n#Size: 8\n#File uploaded\n算一算" in assistant.prompts()[-1]
        assert "数据.csv" not in question.message.content
        # An edited question is about the same files.
        await session.again(question.id, "看一看")
        await heard(session)
        assert "#File uploaded\n看一看" in assistant.prompts()[-1]
        # And so is what it teaches.
        await session.choose(answered.turn)
        row = await session.training_row()
        assert row is not None
        assert row["tools"] == [{"type": "python"}]
        assert row["messages"][0]["content"] == "#File: /mnt/data/数据.csv\n#Size: 8\n#File uploaded\n算一算"
        assert await kernels.state(session.id, user=str(user)) == "running"
        await sessions.delete(user, session.id)
        assert await kernels.state(session.id, user=str(user)) is None
        assert list((tmp_path / "files").iterdir()) == []

    asyncio.run(talk())


def test_stop_ends_a_cell(store: Store, user: int, over: Any, write: Writer, kernels: Kernels) -> None:
    loop = "print('一', flush=True)\nwhile True: pass"
    assistant = over(write.code(loop), write.code("x = 1"), write.say("好"), write.code("print(x)"), write.say("一"))
    sessions = Sessions({"demo": assistant}, store, kernels=kernels)

    async def talk() -> None:
        session = await sessions.make(user, Settings(mode="code"))
        await session.send("转圈")
        await until(session, Output)
        await session.stop()
        assert contents(store, user, session)[-1] == ("一\nStopped by the user.", "stopped")
        await session.send("设")
        await heard(session)
        await kernels.end(session.id, user=str(user), keep=True)
        after = await session.send("看")
        events = await heard(session, after)
        notes = [event.code for event in events if isinstance(event, Note)]
        assert notes == ["restarted"]
        assert (await until(session, Answered, after)).failed

    asyncio.run(talk())


def test_code_of_another_servers_model(store: Store, user: int, over: Any, write: Writer, kernels: Kernels) -> None:
    """It runs here, in this conversation's kernel."""
    local = over(write.code("print(6 * 7)"), write.say("四十二"))

    async def talk() -> None:
        sessions = Sessions({"there": remote}, store, kernels=kernels)
        session = await sessions.make(user, Settings(mode="code"))
        await heard(session, await session.send("算"))
        assert [text for text, _ in contents(store, user, session)] == ["算", "", "42", "四十二"]

    with serving({"demo": local}) as url, RemoteAssistant(f"{url}/v1") as remote:
        asyncio.run(talk())


def test_code_needs_an_interpreter(store: Store, user: int, over: Any, write: Writer, tmp_path: Path) -> None:
    sessions = Sessions({"demo": over(write.say("好"))}, store, folder=tmp_path / "files")

    async def talk() -> None:
        with pytest.raises(InputError, match="mode: code"):
            await sessions.make(user, Settings(mode="code"))
        session = sessions.open(user, store.make(user, mode="code", messages=[Message("user", "x")]))
        await session.send("问")
        assert "mode: code" in getattr((await heard(session))[-1], "message", "")
        # Without kernels, uploads are kept all the same.
        await session.upload("a.txt", pieces(b"abc"))
        with await session.file("a.txt") as stream:
            assert stream.read() == b"abc"
        with pytest.raises(InputError, match="was uploaded"):
            await session.send("问", ["b.txt"])
        for name in ("../x", "", "a/b", "nul"):
            with pytest.raises(InputError, match="name"):
                await session.upload(name, pieces(b""))
        # What there is no room for is not left behind.
        store.limits = StoreLimits(files=1)
        with pytest.raises(QueueFullError, match="1 files"):
            await session.upload("b.txt", pieces(b"abc"))
        assert [path.name for path in (tmp_path / "files").rglob("*.*")] == ["a.txt"]

    asyncio.run(talk())


def test_a_refused_upload_keeps_the_older_file(
    store: Store, user: int, over: Any, write: Writer, tmp_path: Path
) -> None:
    """If there is no room for a file, the one that it should replace stays, and so does what is stored about it."""
    sessions = Sessions({"demo": over(write.say("好"))}, store, folder=tmp_path / "files")

    async def talk() -> None:
        session = await sessions.make(user)
        await session.upload("a.txt", pieces(b"older"))
        before = store.files(user, session.id)
        store.limits = StoreLimits(bytes=0)
        with pytest.raises(QueueFullError):
            await session.upload("a.txt", pieces(b"newer and larger"))
        assert store.files(user, session.id) == before
        with await session.file("a.txt") as stream:
            assert stream.read() == b"older"

    asyncio.run(talk())
