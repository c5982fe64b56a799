"""`ChatGLM`: a text for a text, from a model, an endpoint, or the legacy interface."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import PromptTemplate
from pydantic import ValidationError

from chatglm.assistant import TextDelta
from chatglm.errors import InputError, ServiceError
from chatglm.langchain import ChatChatGLM, ChatGLM


@pytest.fixture(scope="module")
def model(demo: ChatChatGLM) -> ChatGLM:
    return ChatGLM(assistant=demo.opened(), temperature=0)


@pytest.fixture
def legacy(endpoint: str) -> Iterator[ChatGLM]:
    made = ChatGLM(endpoint_url=f"{endpoint}/", temperature=0)
    yield made
    made.close()


class Heard(BaseCallbackHandler):
    def __init__(self) -> None:
        self.tokens: list[str] = []

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        self.tokens.append(token)


def test_a_prompt_is_a_question_of_a_dialogue(model: ChatGLM, demo: ChatChatGLM) -> None:
    assert model.invoke("你好") == demo.invoke("你好").text == "".join(model.stream("你好"))


async def test_the_same_in_coroutines(model: ChatGLM) -> None:
    pieces = [piece async for piece in model.astream("你好")]
    assert len(pieces) > 2
    assert await model.ainvoke("你好") == "".join(pieces) == model.invoke("你好")
    assert await model.abatch(["你好", "你是谁"]) == model.batch(["你好", "你是谁"])


def test_a_raw_text_goes_on_where_it_ends(demo: ChatChatGLM) -> None:
    raw = ChatGLM(assistant=demo.opened(), raw=True, temperature=0, max_tokens=8)
    text = raw.invoke("今天")
    assert text == "".join(raw.stream("今天"))
    deltas = demo.opened().stream_text("今天", params={"temperature": 0, "max_new_tokens": 8})
    assert text == "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
    assert text


def test_a_raw_text_has_no_history() -> None:
    with pytest.raises(ValidationError, match="raw"):
        ChatGLM(raw=True, with_history=True)
    with pytest.raises(ValidationError, match="raw"):
        ChatGLM(raw=True, history=[["a", "b"]])


def test_a_history_is_kept_only_if_it_is_wanted(demo: ChatChatGLM) -> None:
    forgetful = ChatGLM(assistant=demo.opened(), temperature=0)
    forgetful.invoke("你好")
    assert forgetful.history == []
    keeping = ChatGLM(assistant=demo.opened(), temperature=0, with_history=True)
    first = keeping.invoke("我叫小明")
    second = "".join(keeping.stream("我叫什么名字？"))
    assert keeping.history == [["我叫小明", first], ["我叫什么名字？", second]]
    assert "小明" in second


def test_an_answer_that_was_left_is_not_kept(demo: ChatChatGLM) -> None:
    keeping = ChatGLM(assistant=demo.opened(), with_history=True)
    stream = keeping.stream("你好")
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert keeping.history == []


def test_stop_and_options_of_a_call(model: ChatGLM) -> None:
    whole = model.invoke("你好")
    assert model.invoke("你好", stop=[whole[3]]) == whole.split(whole[3])[0]
    assert len(model.invoke("你好", max_tokens=2)) < len(whole)
    with pytest.raises(InputError, match="'max_token'"):
        model.invoke("你好", max_token=2)
    with pytest.raises(InputError, match="n:"):
        model.invoke("你好", n=2)
    with pytest.raises(ValidationError, match="max_tokns"):
        ChatGLM(max_tokns=2)


def test_callbacks_hear_tokens_if_the_model_streams(demo: ChatChatGLM) -> None:
    for streaming in (False, True):
        heard = Heard()
        text = ChatGLM(assistant=demo.opened(), streaming=streaming).invoke("你好", {"callbacks": [heard]})
        assert "".join(heard.tokens) == (text if streaming else "")


def test_a_chain_of_a_prompt_and_a_model(model: ChatGLM) -> None:
    chain = PromptTemplate.from_template("计算{a}+{b}") | model | StrOutputParser()
    assert "5" in chain.invoke({"a": 2, "b": 3})
    assert "".join(chain.stream({"a": 2, "b": 3})) == chain.invoke({"a": 2, "b": 3})


def test_tokens_are_counted_by_the_models_own_vocabulary(model: ChatGLM, demo: ChatChatGLM) -> None:
    assert model.get_num_tokens("你好，世界") == demo.get_num_tokens("你好，世界")


def test_an_openai_endpoint(endpoint: str, model: ChatGLM) -> None:
    far = ChatGLM(base_url=f"{endpoint}/v1", model="chatglm3-6b", temperature=0)
    try:
        assert far.invoke("你好") == model.invoke("你好")
        assert far.invoke("你好", model="other-model") == model.invoke("你好")
    finally:
        far.close()


# The legacy interface


def test_the_legacy_interface_answers(legacy: ChatGLM, model: ChatGLM) -> None:
    assert legacy.invoke("你好") == model.invoke("你好") == "".join(legacy.stream("你好"))


async def test_the_legacy_interface_in_coroutines(legacy: ChatGLM, model: ChatGLM) -> None:
    assert await legacy.ainvoke("你好") == "".join([p async for p in legacy.astream("你好")]) == model.invoke("你好")


def test_the_legacy_interface_gets_the_history(endpoint: str) -> None:
    with_history = ChatGLM(endpoint_url=f"{endpoint}/", temperature=0, with_history=True)
    try:
        with_history.invoke("我叫小明")
        assert "小明" in with_history.invoke("我叫什么名字？")
        assert len(with_history.history) == 2
    finally:
        with_history.close()


def test_the_legacy_interface_has_no_stop_so_the_text_is_cut(legacy: ChatGLM) -> None:
    whole = legacy.invoke("你好")
    assert legacy.invoke("你好", stop=[whole[3], whole[2]]) == whole[:2]


def test_the_legacy_interface_refuses_what_it_has_not(legacy: ChatGLM, endpoint: str) -> None:
    with pytest.raises(InputError, match="seed"):
        legacy.invoke("你好", seed=3)
    with pytest.raises(ValidationError, match="endpoint_url"):
        ChatGLM(endpoint_url=endpoint, base_url=endpoint)


def test_a_legacy_interface_that_is_none(endpoint: str) -> None:
    for url in (f"{endpoint}/health", "http://127.0.0.1:9/"):
        wrong = ChatGLM(endpoint_url=url, max_retries=0)
        with pytest.raises(ServiceError, match=url):
            wrong.invoke("你好")
        wrong.close()
