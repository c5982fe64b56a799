"""Chains of `langchain_classic` that stream: text, phases, errors, and what is left when a reader leaves."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from typing import Any

import pytest
from clever import Clever
from langchain_classic.chains import LLMChain
from langchain_classic.chains.summarize import load_summarize_chain
from langchain_core.documents import Document
from langchain_core.language_models import FakeListLLM
from langchain_core.prompts import PromptTemplate

from chatglm.assistant import BaseAssistant, Delta, Finish, TextDelta, Usage
from chatglm.errors import ChatGLMError, InputError, ServiceError
from chatglm.langchain import (
    ChatChatGLM,
    ChatGLM,
    astream_predict,
    astream_summary,
    stream_predict,
    stream_summary,
)
from waiting import until

pytestmark = [
    pytest.mark.filterwarnings("ignore::langchain_core._api.deprecation.LangChainDeprecationWarning"),
]

PROMPT = PromptTemplate.from_template("{question}")
MAKES: dict[str, Callable[[BaseAssistant], Any]] = {
    "chat": lambda assistant: ChatChatGLM(assistant=assistant, temperature=0),
    "completion": lambda assistant: ChatGLM(assistant=assistant, temperature=0),
}
both = pytest.mark.parametrize("kind", MAKES)
DOCUMENTS = [Document(page_content=f"document {n}") for n in range(4)]


class Told(Clever):
    """Says what it was asked, a word at a time, after `map` or `reduce`; counts what runs.

    Attributes:
        fails: at which answer, and after how many words.
        running: answers that were begun and have not ended.
    """

    def __init__(self, fails: tuple[int, int] = (-1, 0), delay: float = 0.0) -> None:
        self.fails, self.delay = fails, delay
        self.asked: list[str] = []
        self.running = self.words = 0

    def stream(self, messages: Any, **options: Any) -> Generator[Delta]:
        self.asked.append(messages[-1].content)
        number = len(self.asked) - 1
        phase = "reduce" if "part" in messages[-1].content else "map"
        self.running += 1
        try:
            for place, word in enumerate([phase, *(f" part{n}" for n in range(5))]):
                if (number, place) == self.fails:
                    raise ServiceError("the model is gone")
                time.sleep(self.delay)
                self.words += 1
                yield TextDelta(word)
            yield Finish("stop", Usage(1, 6))
        finally:
            self.running -= 1

    async def astream(self, messages: Any, **options: Any) -> AsyncGenerator[Delta]:
        for delta in self.stream(messages, **options):
            yield delta


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "chatglm chain"]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert threads() == []


# A chain's text


@both
def test_a_chain_streams_what_it_would_say_whole(demo: ChatChatGLM, kind: str) -> None:
    chain = LLMChain(llm=MAKES[kind](demo.opened()), prompt=PROMPT)
    pieces = list(stream_predict(chain, question="你好"))
    assert len(pieces) > 2
    assert "".join(pieces) == chain.predict(question="你好")


@both
async def test_a_chain_streams_in_coroutines(demo: ChatChatGLM, kind: str) -> None:
    chain = LLMChain(llm=MAKES[kind](demo.opened()), prompt=PROMPT)
    pieces = [piece async for piece in astream_predict(chain, question="你好")]
    assert len(pieces) > 2
    assert "".join(pieces) == chain.predict(question="你好")


def test_the_chain_that_is_given_stays_as_it_is(demo: ChatChatGLM) -> None:
    model = ChatChatGLM(assistant=demo.opened())
    chain = LLMChain(llm=model, prompt=PROMPT)
    list(stream_predict(chain, question="你好"))
    assert chain.llm is model
    assert not model.streaming


def test_the_first_piece_comes_before_the_last_is_made() -> None:
    told = Told()
    stream = stream_predict(LLMChain(llm=ChatChatGLM(assistant=told), prompt=PROMPT), question="x")
    assert next(stream) == "map"
    stream.close()
    slow = Told(delay=0.02)
    stream = stream_predict(LLMChain(llm=ChatChatGLM(assistant=slow), prompt=PROMPT), question="x")
    next(stream)
    assert slow.words < 6
    stream.close()


def test_a_model_that_does_not_stream_gives_one_piece() -> None:
    chain = LLMChain(llm=FakeListLLM(responses=["whole"]), prompt=PROMPT)
    assert list(stream_predict(chain, question="x")) == ["whole"]


def test_a_chain_of_today_streams_too(demo: ChatChatGLM) -> None:
    chain = PROMPT | ChatChatGLM(assistant=demo.opened(), temperature=0, streaming=True)
    assert "".join(stream_predict(chain, question="你好")) == chain.invoke({"question": "你好"}).text


def test_an_input_that_is_missing_is_an_exception() -> None:
    with pytest.raises(ValueError, match="question"):
        list(stream_predict(LLMChain(llm=ChatChatGLM(assistant=Told()), prompt=PROMPT)))


@both
@pytest.mark.parametrize("place", [0, 3])
def test_exceptions_of_the_model_come_out(kind: str, place: int) -> None:
    chain = LLMChain(llm=MAKES[kind](Told((0, place))).model_copy(update={"max_retries": 0}), prompt=PROMPT)
    heard: list[str] = []
    with pytest.raises(ServiceError, match="gone"):
        heard.extend(stream_predict(chain, question="x"))
    assert len(heard) == place


async def test_exceptions_come_out_in_coroutines() -> None:
    chain = LLMChain(llm=ChatChatGLM(assistant=Told((0, 2)), max_retries=0), prompt=PROMPT)
    with pytest.raises(ServiceError, match="gone"):
        [piece async for piece in astream_predict(chain, question="x")]


# Summaries


@both
@pytest.mark.parametrize("chain_type", ["map_reduce", "stuff", "refine"])
def test_a_summary_streams_what_it_would_say_whole(kind: str, chain_type: Any) -> None:
    model = MAKES[kind](Told())
    whole = load_summarize_chain(model, chain_type=chain_type).invoke({"input_documents": DOCUMENTS})["output_text"]
    pieces = list(stream_summary(model, DOCUMENTS, chain_type=chain_type))
    assert len(pieces) == 6
    assert "".join(pieces) == whole


def test_map_reduce_streams_the_reduce_phase_alone() -> None:
    told = Told()
    pieces = list(stream_summary(ChatChatGLM(assistant=told), DOCUMENTS))
    assert pieces == ["reduce", " part0", " part1", " part2", " part3", " part4"]
    assert len(told.asked) == len(DOCUMENTS) + 1


def test_the_first_piece_of_a_summary_comes_when_the_map_phase_is_over() -> None:
    told = Told(delay=0.01)
    stream = stream_summary(ChatChatGLM(assistant=told), DOCUMENTS)
    assert next(stream) == "reduce"
    assert told.words <= len(DOCUMENTS) * 6 + 4
    stream.close()


def test_the_demo_model_summarises(demo: ChatChatGLM) -> None:
    model = ChatChatGLM(assistant=demo.opened(), temperature=0, max_tokens=12)
    prompt = PromptTemplate.from_template("{text}\n北京的天气怎么样？")
    options: dict[str, Any] = {"map_prompt": prompt, "combine_prompt": prompt}
    whole = load_summarize_chain(model, chain_type="map_reduce", **options).invoke({"input_documents": DOCUMENTS[:2]})
    assert "".join(stream_summary(model, DOCUMENTS[:2], **options)) == whole["output_text"]


@pytest.mark.parametrize("chain_type", ["map_reduce", "stuff", "refine"])
def test_one_document_is_enough(chain_type: Any) -> None:
    model = ChatChatGLM(assistant=Told())
    whole = load_summarize_chain(model, chain_type=chain_type).invoke({"input_documents": DOCUMENTS[:1]})
    assert "".join(stream_summary(model, DOCUMENTS[:1], chain_type=chain_type)) == whole["output_text"]


async def test_a_summary_in_coroutines() -> None:
    pieces = [piece async for piece in astream_summary(ChatChatGLM(assistant=Told()), DOCUMENTS)]
    assert pieces[0] == "reduce"
    assert len(pieces) == 6


@pytest.mark.parametrize("fails", [(1, 2), (4, 3)])
def test_exceptions_of_either_phase_come_out(fails: tuple[int, int]) -> None:
    with pytest.raises(ServiceError, match="gone"):
        list(stream_summary(ChatChatGLM(assistant=Told(fails), max_retries=0), DOCUMENTS))


def test_a_summary_of_nothing_or_of_no_known_kind_is_refused() -> None:
    model = ChatChatGLM(assistant=Told())
    with pytest.raises(InputError, match="documents"):
        stream_summary(model, [])
    with pytest.raises(InputError, match="chain_type"):
        stream_summary(model, DOCUMENTS, chain_type="magic")  # type: ignore[arg-type]


# Readers that leave


@both
def test_who_leaves_ends_the_chain_and_its_request(kind: str) -> None:
    told = Told(delay=0.001)
    stream = stream_predict(LLMChain(llm=MAKES[kind](told), prompt=PROMPT), question="x")
    next(stream)
    stream.close()
    assert threads() == []
    assert told.running == 0
    assert told.words < 6


def test_nothing_begins_before_it_is_asked_for() -> None:
    told = Told()
    with contextlib.closing(stream_summary(ChatChatGLM(assistant=told), DOCUMENTS)):
        pass
    stream_predict(LLMChain(llm=ChatChatGLM(assistant=told), prompt=PROMPT), question="x")
    assert told.asked == []


async def test_a_task_that_is_cancelled_in_the_map_phase_ends_the_chain() -> None:
    told = Told(delay=0.01)

    async def read() -> None:
        async for _ in astream_summary(ChatChatGLM(assistant=told), DOCUMENTS * 5):
            pass

    task = asyncio.create_task(read())
    while not told.words:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert threads() == []
    assert told.running == 0
    assert len(told.asked) < 6  # not all the documents


def leave_at_random(assistant: BaseAssistant, count: int, question: str) -> None:
    chance = random.Random(5)
    for number in range(count):
        model = MAKES[chance.choice(list(MAKES))](assistant)
        stream = stream_predict(LLMChain(llm=model, prompt=PROMPT), question=question)
        for _ in range(chance.randrange(6)):
            next(stream, None)
        stream.close()
        assert threads() == [], f"stream {number}"


def test_a_thousand_streams_left_at_random_points_leave_nothing(demo: ChatChatGLM) -> None:
    assistant = demo.opened()
    leave_at_random(assistant, 200, "你好")
    told = Told()
    leave_at_random(told, 800, "x")
    assert told.running == 0
    until(lambda: (stats := assistant.stats()) is None or not stats.running, told="a request is still running")


async def test_streams_left_in_coroutines_leave_no_task(demo: ChatChatGLM) -> None:
    chance = random.Random(6)
    before = len(asyncio.all_tasks())
    chain = LLMChain(llm=ChatChatGLM(assistant=demo.opened(), temperature=0), prompt=PROMPT)
    for _ in range(20):
        stream = astream_predict(chain, question="你好")
        for _ in range(chance.randrange(1, 5)):
            await anext(stream, None)
        await stream.aclose()
    assert len(asyncio.all_tasks()) == before
    assert threads() == []
    with pytest.raises(ChatGLMError):
        [piece async for piece in astream_summary(ChatChatGLM(assistant=demo.opened()), [])]
