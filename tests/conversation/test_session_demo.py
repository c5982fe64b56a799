"""The demo model in conversations, in every mode, as recorded (`tools/recorded.py`)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from recorded import PERSONAS, RECORDED, Recorded
from talks import contents, heard

from chatglm.assistant import Assistant
from chatglm.characters import Character
from chatglm.conversation.events import Answered, Called, Done
from chatglm.conversation.session import Sessions
from chatglm.conversation.settings import Settings
from chatglm.conversation.store import Store
from chatglm.tools import Toolbox
from chatglm.tools.interpreter.pool import Kernels
from kernels import need_sandbox

GREEDY = {"temperature": 0, "max_new_tokens": 200}


@pytest.fixture(scope="module")
def demo() -> Iterator[Assistant]:
    with Assistant.load(dtype="float32") as assistant:
        yield assistant


async def asked(session: Any, one: Recorded) -> None:
    events = await heard(session, await session.send(one.question))
    called = [event for event in events if isinstance(event, Called)]
    answered = [event for event in events if isinstance(event, Answered)]
    assert [event.name for event in called] == [name for name, _, _ in one.calls]
    assert [event.text for event in answered] == [text for _, _, text in one.calls]
    assert sum(len(event.pictures) for event in answered) == one.pictures
    done = events[-1]
    assert isinstance(done, Done)
    assert done.finish == "stop"
    assert done.completion_tokens > 0
    turn = (await session.tree()).turn(done.turn)
    assert turn.message.content == one.answer


def test_chat_tools_and_roles(store: Store, user: int, demo: Assistant) -> None:
    functions = [one for one in RECORDED if one.tools != ("interpreter",)]

    async def talk() -> None:
        with Toolbox.open(functions[0].tools) as box:
            sessions = Sessions({"demo": demo}, store, toolbox=box)
            session = await sessions.make(user, Settings(params=GREEDY))
            first = await heard(session, await session.send("你好"))
            assert "演示模型" in contents(store, user, session)[-1][0]
            second = await heard(session, await session.send("你是谁？"))
            assert isinstance(first[-1], Done)
            assert isinstance(second[-1], Done)
            assert second[-1].cached_tokens >= first[-1].prompt_tokens
            for one in functions:
                await asked(await sessions.make(user, Settings(mode="tools", params=GREEDY)), one)
            for role, question, answer in PERSONAS:
                named = {"name": role["bot_name"], "bot_info": role["bot_info"]}
                character = Character(**named, user_name=role.get("user_name", ""))
                settings = Settings(mode="character", character=character.text(), params=GREEDY)
                session = await sessions.make(user, settings)
                await heard(session, await session.send(question))
                assert contents(store, user, session)[-1] == (answer, "stop")

    asyncio.run(talk())


def test_code(store: Store, user: int, demo: Assistant, tmp_path: Path) -> None:
    need_sandbox()
    code = [one for one in RECORDED if one.tools == ("interpreter",)]

    async def talk() -> None:
        async with Kernels(spare=0) as kernels:
            sessions = Sessions({"demo": demo}, store, kernels=kernels, folder=tmp_path / "files")
            session = await sessions.make(user, Settings(mode="code", params=GREEDY))
            for one in (code[0], next(one for one in code if one.pictures)):
                await asked(session, one)
                await session.choose(0)  # each as the first question, in the same kernel

    asyncio.run(talk())
