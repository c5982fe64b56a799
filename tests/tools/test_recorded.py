"""The demo model calls tools and runs code, with no network: as recorded (`recorded.py`)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from recorded import PERSONAS, RECORDED, Recorded

from chatglm.assistant import Assistant, Called
from chatglm.chat.messages import Message
from chatglm.chat.personas import Persona
from chatglm.tools.interpreter.pool import Kernels
from chatglm.tools.interpreter.tool import Interpreter
from chatglm.tools.toolbox import Toolbox
from kernels import need_sandbox

GREEDY = {"temperature": 0, "max_new_tokens": 200}


@pytest.fixture(scope="module")
def demo() -> Iterator[Assistant]:
    with Assistant.load(dtype="float32") as assistant:
        yield assistant


def told(new: list[Message], heard: list[Any]) -> Recorded:
    called = [one for one in heard if isinstance(one, Called)]
    pictures = sum(len(one.outcome.pictures) for one in called)
    calls = tuple((one.call.name, dict(one.call.arguments), one.outcome.text) for one in called)
    return Recorded("", (), calls, new[-1].content, pictures)


def expected(one: Recorded) -> Recorded:
    return Recorded("", (), one.calls, one.answer, one.pictures)


FUNCTIONS = [one for one in RECORDED if one.tools != ("interpreter",)]


@pytest.mark.parametrize("one", FUNCTIONS, ids=[one.question for one in FUNCTIONS])
def test_functions(demo: Assistant, one: Recorded) -> None:
    with Toolbox.open(one.tools) as box:
        heard: list[Any] = []
        new = demo.run(one.question, box, watch=heard.append, params=GREEDY)
    assert told(new, heard) == expected(one)


@pytest.mark.parametrize(("role", "question", "answer"), PERSONAS)
def test_roles(demo: Assistant, role: dict[str, str], question: str, answer: str) -> None:
    assert demo.reply(question, persona=Persona(**role), params=GREEDY).content == answer


def test_two_tools_in_one_dialogue(demo: Assistant) -> None:
    first, second = RECORDED[0], RECORDED[3]
    with Toolbox.open(first.tools) as box:
        dialogue = [Message("user", first.question)]
        dialogue += demo.run(dialogue, box, params=GREEDY)
        dialogue.append(Message("user", second.question))
        dialogue += demo.run(dialogue, box, params=GREEDY)
    assert [call.name for message in dialogue for call in message.tool_calls] == ["get_weather", "calculator"]
    assert [message.content for message in dialogue if message.role == "assistant" and message.content] == [
        first.answer,
        second.answer,
    ]


def test_code_is_run(demo: Assistant) -> None:
    """In one kernel for all, which takes a second to start."""
    need_sandbox()

    async def ask() -> None:
        async with Kernels(spare=0) as kernels:
            with Toolbox([Interpreter(kernels)]) as box:
                for one in RECORDED:
                    if one.tools == ("interpreter",):
                        heard: list[Any] = []
                        new = await demo.arun(one.question, box, watch=heard.append, params=GREEDY)
                        assert told(new, heard) == expected(one), one.question

    asyncio.run(ask())
