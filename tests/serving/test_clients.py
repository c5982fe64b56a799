"""Clients that people have, against the demo model behind the real server."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel, Field

from chatglm.assistant import Finish, RemoteAssistant, TextDelta
from chatglm.errors import InputError, QueueFullError, ServiceError, UnsupportedError
from scripted import Writer
from server import serving

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from langchain_community.llms import ChatGLM
    from langchain_community.llms.chatglm3 import ChatGLM3
    from langchain_openai import ChatOpenAI

# What langchain's packages say of themselves and of each other.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:pydantic.*")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Clients of langchain's that leave their sockets to the garbage collector meet it here."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


HELLO: Any = [{"role": "user", "content": "你好"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "the weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ASK_WEATHER: Any = [{"role": "user", "content": "北京的天气怎么样？"}]


class Place(BaseModel):
    city: str = Field(max_length=12)
    population: int = Field(ge=0, le=99)


@pytest.fixture
def client(demo: str) -> Any:
    with openai.OpenAI(base_url=f"{demo}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_openai_chat_and_stream(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["demo"]
    whole = client.chat.completions.create(model="demo", messages=HELLO)
    said = whole.choices[0].message.content
    assert said is not None
    assert "演示模型" in said
    assert whole.usage is not None
    assert whole.usage.completion_tokens > 5
    stream = client.chat.completions.create(
        model="demo", messages=HELLO, stream=True, stream_options={"include_usage": True}, logprobs=True
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == said
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    text = client.completions.create(model="demo", prompt="你好", max_tokens=4, n=2, temperature=1.0, seed=3)
    assert len(text.choices) == 2


def test_openai_seed(client: openai.OpenAI) -> None:
    def draw(seed: int) -> str | None:
        made = client.chat.completions.create(model="demo", messages=HELLO, temperature=5, seed=seed, max_tokens=20)
        return made.choices[0].message.content

    assert draw(5) == draw(5)
    assert len({draw(seed) for seed in range(4)}) > 1


def test_openai_async(demo: str) -> None:
    async def many() -> None:
        async with openai.AsyncOpenAI(base_url=f"{demo}/v1", api_key="none") as client:
            whole = await asyncio.gather(
                *(client.chat.completions.create(model="demo", messages=HELLO) for _ in range(6))
            )
            said = {one.choices[0].message.content for one in whole}
            assert len(said) == 1
            text = ""
            async with await client.chat.completions.create(model="demo", messages=HELLO, stream=True) as stream:
                async for chunk in stream:
                    text += chunk.choices[0].delta.content or ""
            assert {text} == said

    asyncio.run(many())


def test_openai_tools(client: openai.OpenAI) -> None:
    forced: Any = {"type": "function", "function": {"name": "get_weather"}}
    made = client.chat.completions.create(model="demo", messages=ASK_WEATHER, tools=[WEATHER], tool_choice=forced)
    assert made.choices[0].finish_reason == "tool_calls"
    (call,) = made.choices[0].message.tool_calls or ()
    assert call.type == "function"
    assert json.loads(call.function.arguments).keys() == {"city"}
    answer = {"role": "tool", "tool_call_id": call.id, "content": "晴，20度"}
    messages: Any = [*ASK_WEATHER, made.choices[0].message, answer]
    said = client.chat.completions.create(
        model="demo", messages=messages, tools=[WEATHER], tool_choice="none", max_tokens=40
    )
    assert said.choices[0].finish_reason in ("stop", "length")
    assert said.choices[0].message.tool_calls is None

    with client.chat.completions.stream(
        model="demo", messages=ASK_WEATHER, tools=[WEATHER], tool_choice="required"
    ) as stream:
        (streamed,) = stream.get_final_completion().choices[0].message.tool_calls or ()
    assert streamed.function.arguments == call.function.arguments
    assert streamed.id.startswith("call_")


def test_openai_structured_output(client: openai.OpenAI) -> None:
    made = client.chat.completions.parse(model="demo", messages=ASK_WEATHER, response_format=Place)
    assert isinstance(made.choices[0].message.parsed, Place)
    any_object = client.chat.completions.create(
        model="demo", messages=HELLO, response_format={"type": "json_object"}, max_tokens=300, temperature=1, seed=4
    )
    if any_object.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(any_object.choices[0].message.content or ""), dict)


def test_openai_errors(client: openai.OpenAI, over: Any, write: Writer) -> None:
    with pytest.raises(openai.NotFoundError, match="gpt-9"):
        client.chat.completions.create(model="gpt-9", messages=HELLO)
    picture: Any = {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}
    with pytest.raises(openai.BadRequestError, match="images are not supported") as caught:
        client.chat.completions.create(model="demo", messages=[{"role": "user", "content": [picture]}])
    assert caught.value.param == "messages[0].content[0]"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "word " * 5000}])
    assert caught.value.code == "context_length_exceeded"
    assert re.search(r"This model's maximum context length is \d+ tokens; .* \d+ tokens", caught.value.message)
    url, _ = over(write.say("好"), room=0)
    busy = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    with busy, pytest.raises(openai.RateLimitError):
        busy.chat.completions.create(model="demo", messages=HELLO)


def test_langchain_openai(demo: str) -> None:
    model = ChatOpenAI(base_url=f"{demo}/v1", api_key="none", model="demo", temperature=0, stream_usage=True)  # type: ignore[arg-type]
    whole = model.invoke("你好")
    assert "演示模型" in str(whole.content)
    assert whole.usage_metadata is not None
    assert "".join(str(chunk.content) for chunk in model.stream("你好")) == whole.content
    assert asyncio.run(model.ainvoke("你好")).content == whole.content
    assert [one.content for one in model.batch(["你好"] * 3)] == [whole.content] * 3
    asked = model.bind_tools([WEATHER], tool_choice="get_weather").invoke("北京的天气怎么样？")
    assert asked.tool_calls[0]["name"] == "get_weather"
    assert asked.tool_calls[0]["args"].keys() == {"city"}
    found = model.with_structured_output(Place, method="json_schema").invoke("北京的天气怎么样？")
    assert isinstance(found, Place)


def test_langchain_chatglm(demo: str) -> None:
    """ChatGLM speaks api.py's dialect, ChatGLM3 OpenAI's; both ask for 20,000 tokens."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = ChatGLM(endpoint_url=f"{demo}/", temperature=0.01, with_history=True)
        assert "演示模型" in old.invoke("你好")
        assert old.history[-1][0] == "你好"
        assert isinstance(old.invoke("你是谁？"), str)
        assert len(old.history) == 2
        new = ChatGLM3(endpoint_url=f"{demo}/v1/chat/completions", model="demo", temperature=0.01)
        assert "演示模型" in new.invoke("你好")


# Our own


def test_remote_assistant_is_an_assistant(demo: str) -> None:
    with RemoteAssistant(f"{demo}/v1") as remote:
        assert remote.model == "demo"
        (whole,) = remote.answers("你好", params={"logprobs": 2})
        assert "演示模型" in whole.message.content
        assert b"".join(token.data for token in whole.logprobs).decode().strip() == whole.message.content
        assert whole.finish.usage.completion_tokens > 5
        assert asyncio.run(remote.areply("你好")) == whole.message
        deltas = list(remote.stream("你好", params={"max_new_tokens": 3}))
        assert all(isinstance(delta, TextDelta) for delta in deltas[:-1])
        assert isinstance(deltas[-1], Finish)
        assert deltas[-1].reason == "length"
        assert deltas[-1].usage.completion_tokens == 3
        *_, end = remote.stream_text("你好", params={"max_new_tokens": 2})
        assert isinstance(end, Finish)

        async def follow() -> str:
            deltas = remote.astream_text("你好", params={"max_new_tokens": 2})
            return "".join([delta.text async for delta in deltas if isinstance(delta, TextDelta)])

        asyncio.run(follow())


def test_remote_tool_loop_and_errors(over: Any, write: Writer) -> None:
    def add(a: int, b: int) -> int:
        """Adds."""
        return a + b

    url, engine = over(write.call(("add", {"a": 1, "b": 2})), write.say("三"), delay=0.002)
    with RemoteAssistant(f"{url}/v1", "demo") as remote:
        new = remote.run("1+2?", [add])
        assert [message.content for message in new] == ["", "3", "三"]
        assert new[1].tool_call_id == new[0].tool_calls[0].id
        with pytest.raises(InputError, match="tokens"):
            remote.reply("word " * 900)
        with pytest.raises(UnsupportedError, match="bad_words_ids"):
            remote.reply("q", params={"bad_words_ids": [[1]]})
        engine.room = 0
        with pytest.raises(QueueFullError):
            remote.reply("q")
        engine.room = 9
        engine.replies = [write.say("word " * 400)]
        deltas = remote.stream("q")
        next(deltas)
        deltas.close()
    with RemoteAssistant("http://127.0.0.1:9/v1", "demo") as nobody:
        with pytest.raises(ServiceError, match=r"127\.0\.0\.1:9"):
            nobody.reply("q")
        with pytest.raises(ServiceError, match=r"127\.0\.0\.1:9"):
            asyncio.run(nobody.areply("q"))


def test_a_remote_model_gives_the_prompts_log_probabilities(demo: str) -> None:
    asked = {"prompt": "你好", "echo": True, "logprobs": 2, "max_tokens": 2, "temperature": 0}
    with RemoteAssistant(f"{demo}/v1") as remote, serving({"demo": remote}) as front:
        for more in ({}, {"max_tokens": 0}, {"prompt": [5, 6, 7, 8]}, {"prompt": ["你好", "再见"]}):
            bodies = [
                httpx.post(f"{url}/v1/completions", json={**asked, **more}, timeout=60).json() for url in (demo, front)
            ]
            assert bodies[1]["choices"] == bodies[0]["choices"]
            assert bodies[1]["usage"]["prompt_tokens"] == bodies[0]["usage"]["prompt_tokens"]
            assert bodies[1]["usage"]["completion_tokens"] == bodies[0]["usage"]["completion_tokens"]
        answer = httpx.post(
            f"{front}/v1/completions", json={**asked, "logprobs": None, "prompt": [5, 6, 7]}, timeout=60
        )
        assert answer.json()["choices"][0]["logprobs"] is None
