"""The prompts that the page suggests: the demo model answers each of them right."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chatglm.assistant import Assistant
from chatglm.conversation.events import Answered, Called, Done, Event, Text
from chatglm.conversation.session import Sessions
from chatglm.conversation.settings import Settings
from chatglm.conversation.store import Store
from chatglm.tools.interpreter.pool import Kernels
from chatglm.tools.interpreter.sandbox import protection
from chatglm.tools.toolbox import Toolbox
from chatglm.web.examples import PROMPTS, prompts_of

# What the answer to each prompt must match; of a call, its arguments and what it returned.
_RIGHT: dict[str, tuple[str, str, str]] = {
    "你是谁？": ("", "", r"chatglm 的演示模型"),
    "你能做什么？": ("", "", r"闲聊.*工具"),
    "3加5等于几？": ("", "", r"=8。"),
    "讲个笑话": ("", "", r"为什么.*因为"),
    "Who are you?": ("", "", r"demo model of chatglm"),
    "What can you do?": ("", "", r"chat.*tools"),
    "What is 12 + 30?": ("", "", r"=42\."),
    "Tell me a joke": ("", "", r"Why .*Because"),
    "查一下北京的天气": (r'"北京"', r"晴.*21", r"北京的天气：晴，21度"),
    "上海的天气怎么样？": (r'"上海"', r"小雨.*18", r"上海的天气：小雨，18度"),
    "东京现在几点了？": (r'"东京"', r"\d\d:\d\d", r"东京的时间：\d\d:\d\d"),
    "12*34 等于多少？": (r"12\*34", r"408", r"=408"),
    "What is the weather in Paris?": (r'"Paris"', r"light rain.*10", r"light rain, 10 degrees"),
    "What is the weather in London?": (r'"London"', r"fog.*9", r"fog, 9 degrees"),
    "What time is it in Paris?": (r'"Paris"', r"\d\d:\d\d", r"time in Paris: \d\d:\d\d"),
    "What time is it in London?": (r'"London"', r"\d\d:\d\d", r"time in London: \d\d:\d\d"),
    "计算 123*456": (r"123\*456", r"56088", r"56088"),
    "画出 sin 的图像": (r"np\.sin\(x\)", r"\[Image\]", r"图已经画好了"),
    "求 1 到 100 的和": (r"sum\(range\(1 ?, 100", r"5050", r"5050"),
    "求 [1, 2, 3, 4] 的平均值": (r"\[1, 2, 3, 4\]", r"2\.5", r"2\.5"),
    "Compute 12*34": (r"12\*34", r"408", r"408"),
    "Plot the sine function": (r"np\.sin\(x\)", r"\[Image\]", r"Here is the plot"),
    "What is the sum of 1 to 100?": (r"sum\(range\(1, 100", r"5050", r"5050"),
    "Compute the mean of [1, 2, 3, 4]": (r"\[1, 2, 3, 4\]", r"2\.5", r"2\.5"),
}


class _Demo:
    """Conversations with the demo model, in an event loop that stays."""

    def __init__(self, folder: Path, kernels: Kernels | None) -> None:
        self.loop = asyncio.new_event_loop()
        self.assistant = Assistant.load(dtype="float32")
        self.store = Store(folder / "conversations.sqlite")
        self.user = self.store.users.local().id
        self.box, self.kernels = Toolbox.open(["examples"]), kernels
        self.sessions = Sessions({"demo": self.assistant}, self.store, toolbox=self.box, kernels=kernels, folder=folder)

    def answer(self, mode: Any, prompt: str) -> list[Event]:
        async def ask() -> list[Event]:
            session = await self.sessions.make(self.user, Settings(mode=mode, params={"temperature": 0.0}))
            await session.send(prompt)
            return [event async for event in session.events()]

        return self.loop.run_until_complete(ask())

    def close(self) -> None:
        self.loop.run_until_complete(self.sessions.close())
        if self.kernels is not None:
            self.loop.run_until_complete(self.kernels.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.box.close()
        self.assistant.close()
        self.store.close()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Demo]:
    safe = protection().tier != "none"
    made = _Demo(tmp_path_factory.mktemp("examples"), Kernels(spare=0) if safe else None)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("mode", "prompt"), [(mode, prompt) for (mode, _), prompts in PROMPTS.items() for prompt in prompts]
)
def test_the_demo_model_answers_right(demo: _Demo, mode: str, prompt: str) -> None:
    if mode == "code" and demo.kernels is None:
        if os.environ.get("CI") == "true":
            pytest.fail("this machine cannot run code safely, which CI must")
        pytest.skip("this machine cannot run code safely")
    arguments, result, text = _RIGHT[prompt]
    events = demo.answer(mode, prompt)
    assert isinstance(events[-1], Done), events[-1]
    assert events[-1].finish == "stop"
    calls = [event for event in events if isinstance(event, Called)]
    results = [event for event in events if isinstance(event, Answered)]
    said = "".join(event.text for event in events if isinstance(event, Text))
    assert len(calls) == len(results) == (1 if arguments else 0)
    if arguments:
        assert re.search(arguments, calls[0].arguments)
        assert re.search(result, results[0].text)
        assert not results[0].failed
        assert bool(results[0].pictures) == ("Image" in result)
    assert re.search(text, said)


def test_there_are_four_for_each_mode_and_language() -> None:
    assert all(len(set(prompts)) == 4 for prompts in PROMPTS.values())
    assert {language for _, language in PROMPTS} == {"zh", "en"}
    assert prompts_of("character", "zh") == ()
