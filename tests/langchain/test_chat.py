"""`ChatChatGLM`: what it makes of messages and options, and what LangChain's own tests do not ask."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import warnings
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest
from clever import Clever
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.load import dumps
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from pydantic import BaseModel, ValidationError

from chatglm.assistant import Assistant, Delta, Finish, TextDelta, Usage
from chatglm.chat.messages import Message, ToolCall
from chatglm.errors import ChatGLMError, InputError, QueueFullError, ServiceError, UnsupportedError
from chatglm.langchain import ChatChatGLM, ChatGLM, ChatGLMReranker
from chatglm.langchain.messages import messages_of

WEATHER = {
    "name": "get_weather",
    "description": "查询城市的天气",
    "parameters": {"type": "object", "properties": {"city_name": {"type": "string"}}, "required": ["city_name"]},
}


# Messages


def test_messages_of_every_kind() -> None:
    call = {"name": "get_weather", "args": {"city_name": "北京"}, "id": "1", "type": "tool_call"}
    assert messages_of(
        [
            SystemMessage("简短"),
            HumanMessage("你好", name="anna"),
            AIMessage("查一下", tool_calls=[call]),
            ToolMessage("晴", tool_call_id="1"),
            FunctionMessage("雨", name="get_weather"),
            ChatMessage("好", role="user"),
        ]
    ) == [
        Message("system", "简短"),
        Message("user", "你好"),
        Message("assistant", "查一下", (ToolCall("get_weather", {"city_name": "北京"}, "1"),)),
        Message("observation", "晴", tool_call_id="1"),
        Message("observation", "雨"),
        Message("user", "好"),
    ]


def test_blocks_of_text_are_joined_and_other_models_thoughts_left_out() -> None:
    content: list[Any] = [
        "甲",
        {"type": "text", "text": "乙"},
        {"type": "reasoning", "reasoning": "…"},
        {"type": "tool_use", "id": "1", "name": "x", "input": {}},
    ]
    assert messages_of([AIMessage(content)])[0].content == "甲乙"


@pytest.mark.parametrize("kind", ["image", "image_url", "audio", "input_audio", "file", "video", "made-up"])
def test_pictures_and_sound_are_refused_with_their_place(kind: str) -> None:
    with pytest.raises(UnsupportedError, match=r"messages\[1\]"):
        messages_of([HumanMessage("a"), HumanMessage([{"type": kind, "url": "x", "base64": "AA=="}])])


def test_messages_that_are_no_messages_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="remove"):
        messages_of([RemoveMessage(id="1")])
    with pytest.raises(InputError, match="role"):
        messages_of([ChatMessage("x", role="narrator")])


def test_a_call_that_was_cut_short_stays_in_the_dialogue() -> None:
    broken = {"name": "f", "args": '{"a": ', "id": "7", "error": "cut", "type": "invalid_tool_call"}
    (message,) = messages_of([AIMessage("", invalid_tool_calls=[broken])])
    assert (message.tool_calls[0].name, message.tool_calls[0].text) == ("f", '{"a": ')


# Options


def test_the_same_seed_says_the_same(demo: ChatChatGLM) -> None:
    assistant = demo.opened()
    wild: dict[str, Any] = {"temperature": 2, "top_p": 1, "model_kwargs": {"top_k": 0}, "max_tokens": 20}
    texts = [ChatChatGLM(assistant=assistant, **wild, seed=seed).invoke("讲个故事").text for seed in (3, 3, 4, 5, 6)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


def test_stop_of_the_object_and_of_the_call(demo: ChatChatGLM) -> None:
    whole = demo.invoke("你好").text
    end = whole[4]
    assert demo.invoke("你好", stop=[end]).text == whole.split(end)[0]
    held = ChatChatGLM(assistant=demo.opened(), temperature=0, stop=[end]).invoke("你好")
    assert held.text == whole.split(end)[0]
    assert held.response_metadata["stop_sequence"] == end


def test_max_tokens_ends_an_answer_and_says_so(demo: ChatChatGLM) -> None:
    answer = demo.invoke("你好", max_tokens=2)
    assert answer.response_metadata["finish_reason"] == "length"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 2


def test_several_answers_and_what_they_cost(demo: ChatChatGLM) -> None:
    model = ChatChatGLM(assistant=demo.opened(), n=3, max_tokens=4)
    result = model.generate([[HumanMessage("你好")]])
    assert len(result.generations[0]) == 3
    assert result.llm_output is not None
    used = [g.message.usage_metadata for g in result.generations[0]]  # type: ignore[union-attr]
    with pytest.raises(InputError, match="n:"):
        list(model.stream("你好"))
    told = model._generate([HumanMessage("你好")]).llm_output
    assert told is not None
    assert told["token_usage"]["completion_tokens"] == sum(one["output_tokens"] for one in used if one)
    assert told["token_usage"]["prompt_tokens"] == demo.opened().count("你好")


def test_log_probabilities_whole_and_streamed(demo: ChatChatGLM) -> None:
    whole = demo.invoke("你好", logprobs=True, top_logprobs=2).response_metadata["logprobs"]["content"]
    full: AIMessageChunk | None = None
    for chunk in demo.stream("你好", logprobs=True, top_logprobs=2):
        full = chunk if full is None else full + chunk
    assert full is not None
    assert b"".join(bytes(token["bytes"]) for token in whole).decode() == full.text
    assert all(len(token["top_logprobs"]) == 2 for token in whole)
    assert full.response_metadata["logprobs"]["content"] == whole


@pytest.mark.parametrize("name", ["max_token", "functions", "user", "top_n"])
def test_options_that_there_are_not_are_refused_by_name(demo: ChatChatGLM, name: str) -> None:
    with pytest.raises(InputError, match=name):
        demo.invoke("你好", **{name: 1})
    with pytest.raises(InputError, match=name):
        next(demo.stream("你好", **{name: 1}))
    with pytest.raises(ValidationError, match=name):
        ChatChatGLM(**{name: 1})


def test_options_out_of_range_are_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="temperature"):
        ChatChatGLM(model=str(tmp_path / "none"), temperature=-1)
    with pytest.raises(ValidationError, match="repetition"):
        ChatChatGLM(model=str(tmp_path / "none"), model_kwargs={"repetition": 1})
    with pytest.raises(ValidationError, match="assistant"):
        ChatChatGLM(assistant=Clever(), model="x")
    with pytest.raises(ChatGLMError, match="none"):
        ChatChatGLM(model=str(tmp_path / "none")).invoke("你好")


def test_a_model_of_this_process_cannot_be_another_one(demo: ChatChatGLM) -> None:
    with pytest.raises(InputError, match="model='x'"):
        demo.invoke("你好", model="x")
    with pytest.raises(InputError, match="model='x'"):
        ChatChatGLM(assistant=Clever()).invoke("你好", model="x")


# Streams


def test_what_is_streamed_is_the_whole_and_so_is_its_usage(demo: ChatChatGLM) -> None:
    chunks = list(demo.stream("你好"))
    assert sum(bool(chunk.text) for chunk in chunks) > 2
    full = chunks[0]
    for chunk in chunks[1:]:
        full += chunk
    whole = demo.invoke("你好")
    assert full.text == whole.text
    assert full.usage_metadata is not None
    assert whole.usage_metadata is not None
    assert full.usage_metadata["total_tokens"] == whole.usage_metadata["total_tokens"]
    assert full.response_metadata["finish_reason"] == whole.response_metadata["finish_reason"] == "stop"


def test_usage_can_be_left_out_of_a_stream(demo: ChatChatGLM) -> None:
    quiet = ChatChatGLM(assistant=demo.opened(), stream_usage=False)
    assert all(chunk.usage_metadata is None for chunk in quiet.stream("你好", max_tokens=3))
    told = quiet.stream("你好", max_tokens=3, stream_options={"include_usage": True})
    assert any(chunk.usage_metadata is not None for chunk in told)


class Heard(BaseCallbackHandler):
    def __init__(self) -> None:
        self.tokens: list[str] = []

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        self.tokens.append(token)


def test_callbacks_hear_tokens_of_invoke_if_the_model_streams(demo: ChatChatGLM) -> None:
    for streaming in (False, True):
        heard = Heard()
        model = ChatChatGLM(assistant=demo.opened(), temperature=0, streaming=streaming)
        text = model.invoke("你好", {"callbacks": [heard]}).text
        assert "".join(heard.tokens) == (text if streaming else "")


async def test_callbacks_hear_tokens_in_coroutines(demo: ChatChatGLM) -> None:
    heard = Heard()
    model = ChatChatGLM(assistant=demo.opened(), temperature=0, streaming=True)
    answer = await model.ainvoke("你好", {"callbacks": [heard]})
    assert "".join(heard.tokens) == answer.text == (await demo.ainvoke("你好")).text


def test_text_is_streamed_at_once_where_tools_are_bound(demo: ChatChatGLM) -> None:
    pieces = [chunk.text for chunk in demo.bind_tools([WEATHER]).stream("你好")]
    assert len([piece for piece in pieces if piece]) > 2


async def test_who_leaves_a_stream_ends_the_request(demo: ChatChatGLM) -> None:
    assistant = demo.opened()
    stream = demo.stream("你好", temperature=1.0)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    more = demo.astream("你好")
    await anext(more)
    await more.aclose()  # type: ignore[attr-defined]
    for _ in range(200):
        stats = assistant.stats()
        assert stats is not None
        if stats.running == 0:
            return
        await asyncio.sleep(0.01)
    pytest.fail("a request is still running")


# Tools and structured output


def test_the_demo_model_calls_a_tool_and_reads_its_result(demo: ChatChatGLM) -> None:
    model = demo.bind_tools([WEATHER])
    asked: list[BaseMessage] = [HumanMessage("北京的天气怎么样？")]
    call = model.invoke(asked)
    assert [(one["name"], one["args"]) for one in call.tool_calls] == [("get_weather", {"city_name": "北京"})]
    assert call.response_metadata["finish_reason"] == "tool_calls"
    result = ToolMessage(json.dumps({"condition": "晴", "temperature": 21}, ensure_ascii=False), tool_call_id="1")
    assert model.invoke([*asked, call, result]).text == "北京的天气：晴，21度。"


def test_a_streamed_call_comes_in_pieces_with_its_arguments(demo: ChatChatGLM) -> None:
    chunks = [c for c in demo.bind_tools([WEATHER]).stream("北京的天气怎么样？") if c.tool_call_chunks]
    assert len(chunks) > 1
    assert chunks[0].tool_call_chunks[0]["name"] == "get_weather"
    assert json.loads("".join(c.tool_call_chunks[0]["args"] or "" for c in chunks)) == {"city_name": "北京"}


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("any", "required"),
        ("required", "required"),
        (True, "required"),
        ("get_weather", "get_weather"),
        ({"type": "function", "function": {"name": "get_weather"}}, "get_weather"),
        ({"type": "function", "name": "get_weather"}, "get_weather"),
    ],
)
def test_every_form_of_tool_choice(asked: Any, meant: str) -> None:
    bound = ChatChatGLM(assistant=Clever()).bind_tools([WEATHER], tool_choice=asked)
    assert bound.kwargs["tool_choice"] == meant  # type: ignore[attr-defined]


@pytest.mark.parametrize("asked", ["other", 3, {"type": "function"}, ["get_weather"]])
def test_a_tool_choice_that_is_none_is_refused(asked: Any) -> None:
    with pytest.raises(InputError, match="tool_choice"):
        ChatChatGLM(assistant=Clever()).bind_tools([WEATHER], tool_choice=asked)


def test_a_call_that_is_asked_for_holds_to_its_schema(demo: ChatChatGLM) -> None:
    answer = demo.bind_tools([WEATHER], tool_choice="any").invoke("你好", max_tokens=60)
    assert [call["name"] for call in answer.tool_calls] == ["get_weather"]
    assert list(answer.tool_calls[0]["args"]) == ["city_name"]


def test_a_call_that_has_no_room_is_an_invalid_call(demo: ChatChatGLM) -> None:
    answer = demo.bind_tools([WEATHER], tool_choice="any").invoke("北京的天气怎么样？", max_tokens=6)
    assert answer.tool_calls == []
    assert [call["name"] for call in answer.invalid_tool_calls] == ["get_weather"]


class Person(BaseModel):
    """A person."""

    kind: bool


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_is_held_by_grammar_even_where_the_model_is_small(demo: ChatChatGLM, method: Any) -> None:
    model = demo.with_structured_output(Person, method=method)
    assert isinstance(model.invoke("你好"), Person)
    held = demo.with_structured_output(Person.model_json_schema(), method=method, include_raw=True).invoke("你好")
    assert isinstance(held, dict)
    assert held["parsing_error"] is None
    assert set(held["parsed"]) == {"kind"}
    assert isinstance(held["raw"], AIMessage)


def test_structured_output_refuses_what_it_does_not_know(demo: ChatChatGLM) -> None:
    with pytest.raises(InputError, match="method"):
        demo.with_structured_output(Person, method="magic")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="tools"):
        demo.with_structured_output(Person, tools=[])


# Endpoints, retries, life


class Failing(Clever):
    """Has no answer the first `count` times."""

    def __init__(self, count: int, error: ChatGLMError, begun: bool = False) -> None:
        self.count, self.error, self.begun, self.asked = count, error, begun, 0

    def stream(self, messages: Any, **options: Any) -> Generator[Delta]:
        self.asked += 1
        if self.begun:
            yield TextDelta("begun")
        if self.asked <= self.count:
            raise self.error
        yield TextDelta("hello")
        yield Finish("stop", Usage(1, 1))

    async def astream(self, messages: Any, **options: Any) -> AsyncGenerator[Delta]:
        for delta in self.stream(messages, **options):
            yield delta


def full() -> QueueFullError:
    error = QueueFullError("full")
    error.retry_after = 0.001
    return error


async def test_a_question_that_found_no_place_is_asked_again() -> None:
    for ask in ("invoke", "stream"):
        failing = Failing(2, full())
        model = ChatChatGLM(assistant=failing)
        assert "hello" in (model.invoke("a").text if ask == "invoke" else "".join(c.text for c in model.stream("a")))
        assert failing.asked == 3
    failing = Failing(2, full())
    assert (await ChatChatGLM(assistant=failing).ainvoke("a")).text == "hello"
    failing = Failing(2, full())
    assert "".join([c.text async for c in ChatChatGLM(assistant=failing).astream("a")]) == "hello"


def test_nothing_is_asked_again_too_often_or_after_it_began_or_where_it_is_wrong() -> None:
    failing = Failing(9, full())
    with pytest.raises(QueueFullError):
        ChatChatGLM(assistant=failing, max_retries=1).invoke("a")
    assert failing.asked == 2
    begun = Failing(1, full(), begun=True)
    with pytest.raises(QueueFullError):
        list(ChatChatGLM(assistant=begun).stream("a"))
    assert begun.asked == 1
    wrong = Failing(1, InputError("wrong"))
    with pytest.raises(InputError):
        ChatChatGLM(assistant=wrong).invoke("a")
    assert wrong.asked == 1


def test_an_endpoint_that_is_not_there_is_a_service_error() -> None:
    model = ChatChatGLM(base_url="http://127.0.0.1:9/v1", model="x", max_retries=0, timeout=2)
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:9"):
        model.invoke("你好")
    model.close()


def test_the_endpoint_answers_as_the_model_itself(demo: ChatChatGLM, endpoint: str) -> None:
    model = ChatChatGLM(base_url=f"{endpoint}/v1", model="chatglm3-6b", temperature=0)
    try:
        whole = model.invoke("你好")
        assert whole.text == "".join(chunk.text for chunk in model.stream("你好")) == demo.invoke("你好").text
        call = model.bind_tools([WEATHER]).invoke("北京的天气怎么样？").tool_calls
        assert [(one["name"], one["args"]) for one in call] == [("get_weather", {"city_name": "北京"})]
        assert model.get_num_tokens("你好") > 0
        assert model.get_num_tokens_from_messages([HumanMessage("你好")]) == demo.opened().count("你好")
        with pytest.raises(UnsupportedError, match="tokens"):
            model.get_token_ids("你好")
        with pytest.raises(ChatGLMError, match="no-such"):
            model.invoke("你好", model="no-such")
    finally:
        model.close()


def test_the_key_comes_from_the_environment_and_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATGLM_API_KEY", "very-secret")
    model = ChatChatGLM(base_url="http://127.0.0.1:9/v1", model="x")
    assert model.api_key is not None
    assert model.api_key.get_secret_value() == "very-secret"
    assert "very-secret" not in repr(model) + str(model) + dumps(model)
    assert ChatChatGLM(model="/x").api_key is None


def test_tokens_are_counted_by_the_models_own_vocabulary(demo: ChatChatGLM) -> None:
    assistant = demo.opened()
    assert isinstance(assistant, Assistant)
    ids = demo.get_token_ids("你好，世界")
    assert ids == list(assistant.tokenizer.encode_text("你好，世界"))
    assert demo.get_num_tokens("你好，世界") == len(ids)
    asked = [SystemMessage("简短"), HumanMessage("你好")]
    assert demo.get_num_tokens_from_messages(asked) == demo.invoke(asked).usage_metadata["input_tokens"]  # type: ignore[index]
    assert demo.get_num_tokens_from_messages(asked, [WEATHER]) > demo.get_num_tokens_from_messages(asked)


def test_the_profile_says_what_may_be_asked(demo: ChatChatGLM) -> None:
    profile = ChatChatGLM(assistant=demo.opened()).profile
    assert profile is not None
    assert profile["max_input_tokens"] == demo.opened().context
    assert profile["tool_calling"]
    assert not profile["image_inputs"]


def test_a_model_that_was_closed_opens_again() -> None:
    model = ChatChatGLM(temperature=0)
    first = model.opened()
    text = model.invoke("你好").text
    copy = model.model_copy(update={"temperature": 1.0})
    assert copy.opened() is first
    model.close()
    assert model.invoke("你好").text == text
    assert model.opened() is not first
    model.close()


def test_what_is_written_down_has_no_model(demo: ChatChatGLM) -> None:
    assert "assistant" not in ChatChatGLM(assistant=demo.opened()).model_dump()
    assert "Assistant" not in dumps(demo)


async def test_batches_are_answered_together(demo: ChatChatGLM) -> None:
    asked: list[Any] = ["你好", "你是谁", "计算1+1"]
    assert [a.text for a in demo.batch(asked)] == [a.text for a in await demo.abatch(asked)]


def test_models_at_an_endpoint_that_nobody_closes_leave_no_connection(endpoint: str) -> None:
    def ask() -> None:
        ChatChatGLM(base_url=f"{endpoint}/v1", model="chatglm3-6b", max_tokens=2).invoke("你好")
        ChatGLM(endpoint_url=endpoint, max_tokens=100).invoke("你好")
        with contextlib.suppress(ServiceError):
            ChatGLMReranker(model=f"{endpoint}#none").compress_documents([Document("a")], "b")

    gc.collect()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        ask()
        gc.collect()
    assert [str(one.message) for one in heard if one.category is ResourceWarning] == []
