"""A chat model that answers from documents: of this machine by name, open already, and of a server."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from answers import Reader
from clever import Clever
from langchain_core._api import LangChainBetaWarning
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from pydantic import ValidationError
from small_bases import made

from chatglm.assistant import Ask
from chatglm.errors import ChatGLMError, InputError, NotFoundError, ServiceError, UnsupportedError
from chatglm.knowledge import Base, Bases, Shelf, Upload, open_base, open_bases
from chatglm.langchain import ChatChatGLM, KnowledgeRetriever
from chatglm.loading import demo_folder
from server import serving

ANSWER = "灭火器在门口右侧。食堂早餐七点开始，周五供应饺子。"
QUESTION = "灭火器在哪里？周五吃什么？"
WAYS = ["name", "object", "endpoint"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    made(folder).close()
    return folder


@pytest.fixture(scope="module")
def base(home: Path) -> Iterator[Base]:
    with open_base("手册", home=home) as opened:
        yield opened


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    with Shelf(home) as shelf, serving({"demo": Reader(ANSWER)}, knowledge=shelf) as address:
        yield f"{address}/v1"


@pytest.fixture
def model(request: pytest.FixtureRequest, home: Path) -> Iterator[ChatChatGLM]:
    """A model that says `ANSWER`, over documents that are named in one of three ways."""
    match request.param:
        case "name":
            found = ChatChatGLM(assistant=Reader(ANSWER), knowledge=["手册"], home=home)
        case "object":
            found = ChatChatGLM(assistant=Reader(ANSWER), knowledge=request.getfixturevalue("base"))
        case _:
            found = ChatChatGLM(base_url=request.getfixturevalue("url"), knowledge="手册")
    yield found
    found.close()


each_way = pytest.mark.parametrize("model", WAYS, indirect=True)


def whole(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    first, *rest = chunks
    summed = first + rest
    assert isinstance(summed, AIMessageChunk)
    return summed


def same_metadata(streamed: AIMessage, message: AIMessage) -> None:
    message.response_metadata.pop("token_usage")  # LangChain's own, beside `usage_metadata`
    assert streamed.response_metadata == message.response_metadata


def check(message: AIMessage, base: Base) -> None:
    """Citations are what the files say, and stand at their sentences in the answer."""
    cited = message.response_metadata["citations"]
    assert {each["file"] for each in cited} == {"安全.txt", "食堂.txt"}
    assert message.response_metadata["answered"] is True
    for each in cited:
        assert base.text(each["file"], each["start"], each["end"]) == each["text"]
        assert each["text"][:4] in message.text[slice(*each["sentence"])]
    (block,) = message.content_blocks
    assert block["type"] == "text"
    assert block["text"] == message.text
    for each, note in zip(cited, block["annotations"], strict=True):
        assert note["type"] == "citation"
        assert (note["title"], note["cited_text"]) == (each["file"], each["text"])
        assert [note["start_index"], note["end_index"]] == each["sentence"]
        assert note["extras"]["start"] == each["start"]


@each_way
def test_an_answer_has_its_citations_whole_and_streamed(model: ChatChatGLM, base: Base) -> None:
    message = model.invoke(QUESTION)
    check(message, base)
    chunks = list(model.stream(QUESTION))
    streamed = whole(chunks)
    check(streamed, base)
    assert streamed.content == message.content
    same_metadata(streamed, message)
    assert streamed.usage_metadata is not None
    assert streamed.usage_metadata == message.usage_metadata
    assert streamed.additional_kwargs["citations"] == message.response_metadata["citations"]
    first = next(n for n, chunk in enumerate(chunks) if "citations" in chunk.additional_kwargs)
    assert any(chunk.text for chunk in chunks[first:])  # before the text has ended
    assert len(chunks) > 4


@each_way
async def test_in_coroutines_too(model: ChatChatGLM, base: Base) -> None:
    message = await model.ainvoke(QUESTION)
    check(message, base)
    streamed = whole([chunk async for chunk in model.astream(QUESTION)])
    check(streamed, base)
    assert streamed.content == message.content
    same_metadata(streamed, message)


@each_way
def test_callbacks_hear_of_it_and_chains_go_on_with_text(model: ChatChatGLM, base: Base) -> None:
    loud = model.model_copy(update={"streaming": True})
    check(loud.invoke(QUESTION), base)
    assert (model | StrOutputParser()).invoke(QUESTION) == "".join((model | StrOutputParser()).stream(QUESTION))


@each_way
def test_what_the_documents_do_not_have_is_not_answered(model: ChatChatGLM) -> None:
    message = model.invoke("冥王星的轨道周期有多长？")
    assert message.response_metadata["answered"] is False
    assert message.response_metadata["citations"] == []
    assert message.text == "根据已知信息无法回答该问题。"
    assert message.content_blocks == [{"type": "text", "text": message.text}]


@each_way
def test_standard_blocks_have_the_citations(model: ChatChatGLM) -> None:
    standard = model.model_copy(update={"output_version": "v1"})
    message = standard.invoke(QUESTION)
    streamed = whole(list(standard.stream(QUESTION)))
    assert isinstance(message.content, list)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LangChainBetaWarning)
        told = model.stream_events(QUESTION, version="v3").output
    assert told.response_metadata["citations"] == message.response_metadata["citations"]
    plain: Any = [message.content_blocks, streamed.content_blocks, told.content_blocks]
    for (block,) in plain:
        assert block["text"] == message.text
        assert {note["title"] for note in block["annotations"]} == {"安全.txt", "食堂.txt"}
    assert plain[0][0]["annotations"] == plain[1][0]["annotations"] == plain[2][0]["annotations"]


@each_way
@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
    ],
)
def test_what_has_no_place_is_refused_by_name(model: ChatChatGLM, asked: dict[str, Any], named: str) -> None:
    with pytest.raises((UnsupportedError, InputError), match=f"^{named}\\b"):
        model.invoke(QUESTION, **asked)
    with pytest.raises((UnsupportedError, InputError), match=f"^{named}\\b"):
        list(model.stream(QUESTION, **asked))


@each_way
def test_the_last_message_must_be_a_question(model: ChatChatGLM) -> None:
    with pytest.raises(InputError, match="question"):
        model.invoke([HumanMessage("x"), AIMessage("y")])


def test_earlier_messages_are_the_history(base: Base) -> None:
    reader = Reader(ANSWER)
    model = ChatChatGLM(assistant=reader, knowledge=Bases([base]), knowledge_options={"style": "classic"})
    model.invoke([("system", "简短"), ("user", "你好"), ("assistant", "你好！"), ("user", QUESTION)])
    asked = reader.asked[-1]
    assert [message.role for message in asked] == ["system", "user", "assistant", "user"]
    assert "已知信息" in asked[-1].content


def test_a_call_may_name_other_bases(home: Path, tmp_path: Path) -> None:
    with open_base("港口", create=True, home=home) as other:
        other.add(Upload("灯塔.txt", "港口的灯塔高32米。".encode()))
    model = ChatChatGLM(assistant=Reader("港口的灯塔高32米。"), home=home)
    try:
        assert "citations" not in model.invoke("灯塔高多少米？").response_metadata
        message = model.invoke("灯塔高多少米？", knowledge=["手册", "港口"])
        assert [each["base"] for each in message.response_metadata["citations"]] == ["港口"]
        bound = model.bind(knowledge="港口")
        assert bound.invoke("灯塔高多少米？").response_metadata["citations"]
    finally:
        model.close()


def test_bases_are_opened_when_they_are_asked_and_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Bases] = []

    def noted(*args: Any, **options: Any) -> Bases:
        found.append(open_bases(*args, **options))
        return found[-1]

    monkeypatch.setattr("chatglm.langchain.chat.open_bases", noted)
    model = ChatChatGLM(assistant=Reader(ANSWER), knowledge=["没有"], home=home)
    with pytest.raises(NotFoundError, match="没有"):
        model.invoke(QUESTION)
    again = ChatChatGLM(assistant=Reader(ANSWER), knowledge=["手册"], home=home)
    again.invoke(QUESTION)
    again.model_copy().invoke(QUESTION)
    (opened,) = found
    again.close()
    with pytest.raises(ChatGLMError, match="closed"):
        opened.search("x")
    assert again.invoke(QUESTION).response_metadata["answered"]
    again.close()


def test_options_of_a_server_are_the_servers_and_a_base_must_be_there(url: str) -> None:
    model = ChatChatGLM(base_url=url, knowledge=["手册"], knowledge_options={"k": 3})
    with pytest.raises(InputError, match="knowledge_options"):
        model.invoke(QUESTION)
    model.close()
    other = ChatChatGLM(base_url=url, knowledge=["没有"])
    with pytest.raises(ServiceError, match="没有"):
        other.invoke(QUESTION)
    other.close()


def test_bases_of_this_machine_may_be_read_by_a_model_at_a_server(url: str, base: Base) -> None:
    with ChatChatGLM(base_url=url).opened() as assistant:
        model = ChatChatGLM(assistant=assistant, knowledge=base)
        check(model.invoke(QUESTION), base)


def test_a_server_that_passes_over_knowledge_is_found_out() -> None:
    """Other servers ignore fields that they do not know, and would answer from nothing."""
    with Plain() as address:
        model = ChatChatGLM(base_url=f"{address}/v1", model="m", knowledge=["手册"])
        with pytest.raises(UnsupportedError, match="without documents"):
            model.invoke(QUESTION)
        model.close()


@pytest.mark.parametrize("wrong", [[], [1], 5, {"a": 1}, ["a", object()]])
def test_knowledge_must_be_names_or_bases(wrong: Any) -> None:
    with pytest.raises(ValidationError, match="knowledge"):
        ChatChatGLM(assistant=Reader(""), knowledge=wrong)


def test_streams_that_are_left_leave_nothing(base: Base) -> None:
    reader = Reader(ANSWER)
    model = ChatChatGLM(assistant=reader, knowledge=base)
    for count in range(6):
        stream = model.stream(QUESTION)
        for _ in range(count):
            next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert reader.open == 0


async def test_coroutines_that_are_left_leave_nothing(base: Base) -> None:
    reader = Reader(ANSWER)
    model = ChatChatGLM(assistant=reader, knowledge=base)
    for count in range(6):
        stream = model.astream(QUESTION)
        for _ in range(count):
            await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        assert reader.open == 0


def test_an_agent_without_tools_answers_from_documents(base: Base) -> None:
    from langchain.agents import create_agent

    agent = create_agent(ChatChatGLM(assistant=Reader(ANSWER), knowledge=base), [])
    check(agent.invoke({"messages": [("user", QUESTION)]})["messages"][-1], base)


def test_an_agent_has_documents_as_a_tool(base: Base) -> None:
    from langchain.agents import create_agent
    from langchain_core.tools import create_retriever_tool

    class Asks(Clever):
        def _call(self, ask: Ask) -> tuple[str, dict[str, Any]] | None:
            return None if ask.messages[-1].role == "observation" else ("handbook", {"query": "灭火器在哪里？"})

    tool = create_retriever_tool(KnowledgeRetriever(opened=base, k=1), "handbook", "Searches the handbook.")
    agent = create_agent(ChatChatGLM(assistant=Asks()), [tool])
    said = agent.invoke({"messages": [("user", QUESTION)]})["messages"]
    assert "灭火器在门口右侧" in said[-2].text
    assert said[-1].text == "It is 5."


def test_a_folder_answers_from_a_handbook(tmp_path: Path) -> None:
    with made(tmp_path, files={"town.txt": "小镇的图书馆建于1962年。图书馆的馆长叫王芳。"}) as base:
        model = ChatChatGLM(model=str(demo_folder()), temperature=0, knowledge=[base.name], home=tmp_path)
        message = model.invoke("图书馆的馆长是谁？")
        model.close()
        assert "王芳" in message.text
        (cited,) = message.response_metadata["citations"]
        assert "图书馆的馆长叫王芳。" in cited["text"]
        assert message.usage_metadata is not None
        assert message.usage_metadata["output_tokens"] > 0


class Plain:
    """A server of OpenAI's form that knows of no documents."""

    def __enter__(self) -> str:
        import threading
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(
                    b'data: {"choices": [{"index": 0, "delta": {"content": "hello"}}]}\n\n'
                    b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
                )

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
