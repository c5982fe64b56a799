"""Langchain-Chatchat's routes, asked as its own clients ask: bodies are those of its Python SDK and of its `api.py`."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from chatglm.assistant import Assistant
from chatglm.knowledge import Shelf, bounds
from chatglm.serving.access.key_sources import Texts
from chatglm.serving.access.keys import Keyring
from chatglm.serving.app import create_app
from chatglm.serving.chatchat import v1
from chatglm.serving.connections import ConnectionLimits, Server
from chatglm.serving.knowledge import filing
from scripted import ScriptedEngine, Writer
from server import serving
from waiting import until

TEXT = "灭火器在门口右侧。离开实验室前须关闭气阀和电源。\n"
QUESTION = "灭火器放在哪里？"
ANSWER = "灭火器在门口右侧。"
NOTHING = ["<span style='color:red'>未找到相关文档,该回答为大模型自身能力解答！</span>"]
ALICE, BOB = "alice.0123456789abcdef", "bob.fedcba9876543210"
SDK_UPLOAD = {
    "override": "false",
    "to_vector_store": "true",
    "chunk_size": "250",
    "chunk_overlap": "50",
    "zh_title_enhance": "false",
    "docs": "{}",
    "not_refresh_vs_cache": "false",
}


@pytest.fixture(scope="module")
def url(write: Writer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    engine = ScriptedEngine(write.say(ANSWER), context=2048)
    with (
        Shelf(tmp_path_factory.mktemp("home")) as shelf,
        Assistant(write.form, engine) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant}, knowledge=shelf, dialects=("chatchat",)) as address,
    ):
        with httpx.Client(base_url=address, timeout=60) as client:
            fill(client, "样例")
        yield address


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


def fill(client: httpx.Client, name: str) -> None:
    body = {"knowledge_base_name": name, "vector_store_type": None, "kb_info": "规定", "vs_type": None}
    answer = client.post("/knowledge_base/create_knowledge_base", json={**body, "embed_model": None})
    assert answer.json() == {"code": 200, "msg": f"已新增知识库 {name}", "data": None}
    assert upload(client, name)["data"] == {"failed_files": {}}


def upload(client: httpx.Client, name: str, *files: tuple[str, bytes], **more: str) -> dict[str, Any]:
    given = [("files", file) for file in files or (("安全.txt", TEXT.encode()),)]
    data = {"knowledge_base_name": name, **SDK_UPLOAD, **more}
    answer = client.post("/knowledge_base/upload_docs", data=data, files=given)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def events(text: str) -> list[Any]:
    """As the SDK reads streams: every event begins with `data: `, and all of it is JSON."""
    assert text.endswith("\n\n")
    return [json.loads(block.removeprefix("data: ")) for block in text.strip().split("\n\n") if block[:1] != ":"]


# 0.3


def test_bases(client: httpx.Client) -> None:
    (base,) = client.get("/knowledge_base/list_knowledge_bases").json()["data"]
    assert {key: base[key] for key in ("kb_name", "kb_info", "file_count")} == {
        "kb_name": "样例",
        "kb_info": "规定",
        "file_count": 1,
    }
    assert base.keys() == {"id", "kb_name", "kb_info", "vs_type", "embed_model", "file_count", "create_time"}

    def made(name: str) -> tuple[int, str]:
        answer = client.post("/knowledge_base/create_knowledge_base", json={"knowledge_base_name": name}).json()
        return answer["code"], answer["msg"]

    assert made(" ") == (404, "知识库名称不能为空，请重新填写知识库名称")
    assert made("样例") == (404, "已存在同名知识库 样例")
    assert made("../x") == (403, "Don't attack me")
    assert made("a/b")[0] == 403
    fill(client, "第二")
    answer = client.post("/knowledge_base/update_info", json={"knowledge_base_name": "第二", "kb_info": "新"}).json()
    assert answer == {"code": 200, "msg": "知识库介绍修改完成", "data": {"kb_info": "新"}}
    delete = "/knowledge_base/delete_knowledge_base"
    assert client.post(delete, json="第二").json() == {"code": 200, "msg": "成功删除知识库 第二", "data": None}
    assert client.post(delete, json="第二").json()["code"] == 404
    assert client.post(delete, json="../样例").json()["code"] == 403
    assert client.post(delete, json={"knowledge_base_name": "样例"}).status_code == 400
    assert client.post(delete, content=b"[" * 100_000).status_code == 400


def test_files(client: httpx.Client) -> None:
    fill(client, "文件")
    (row,) = client.get("/knowledge_base/list_files", params={"knowledge_base_name": "文件"}).json()["data"]
    shown = {key: row[key] for key in ("kb_name", "file_name", "file_ext", "docs_count", "in_db", "No")}
    assert shown == {
        "kb_name": "文件",
        "file_name": "安全.txt",
        "file_ext": ".txt",
        "docs_count": 1,
        "in_db": True,
        "No": 1,
    }
    assert upload(client, "文件")["data"] == {"failed_files": {"安全.txt": "文件 安全.txt 已存在。"}}
    assert upload(client, "文件", override="true")["data"] == {"failed_files": {}}
    failed = upload(client, "文件", ("wiki/甲.md", "# 题\n灭火器在二楼。".encode()), ("坏.pdf", b"%PDF-1.4"))["data"]
    assert failed["failed_files"].keys() == {"坏.pdf"}
    update = {"knowledge_base_name": "文件", "file_names": ["安全.txt", "坏.pdf", "没有.txt"]}
    failed = client.post("/knowledge_base/update_docs", json=update).json()["data"]["failed_files"]
    assert failed.keys() == {"坏.pdf", "没有.txt"}
    where = {"knowledge_base_name": "文件", "file_name": "安全.txt"}
    answer = client.get("/knowledge_base/download_doc", params=where)
    assert (answer.content, answer.headers["content-disposition"][:10]) == (TEXT.encode(), "attachment")
    answer = client.get("/knowledge_base/download_doc", params={**where, "preview": True})
    assert answer.headers["content-disposition"].startswith("inline")
    assert client.get("/knowledge_base/download_doc", params={**where, "file_name": "../x"}).json()["code"] == 500
    lines = events(client.post("/knowledge_base/recreate_vector_store", json={"knowledge_base_name": "文件"}).text)
    assert {"code": 200, "msg": "(3 / 3): 安全.txt", "total": 3, "finished": 3, "doc": "安全.txt"} in lines
    assert [line["code"] for line in lines].count(500) == 1
    gone = {"knowledge_base_name": "文件", "file_names": ["安全.txt", "没有.txt"], "delete_content": False}
    answer = client.post("/knowledge_base/delete_docs", json={**gone, "not_refresh_vs_cache": False})
    assert answer.json()["data"] == {"failed_files": {"没有.txt": "未找到文件 没有.txt"}}
    client.post("/knowledge_base/delete_knowledge_base", json="文件")


def test_search(client: httpx.Client) -> None:
    def search(**body: Any) -> list[dict[str, Any]]:
        answer = client.post("/knowledge_base/search_docs", json={"knowledge_base_name": "样例", **body})
        assert answer.status_code == 200, answer.text
        return list(answer.json())

    (found,) = search(query=QUESTION, top_k=3, score_threshold=0.4, file_name="", metadata={})
    assert found.keys() == {"page_content", "metadata", "type", "id", "score"}
    assert (found["page_content"], found["metadata"]["source"], found["type"]) == (TEXT, "安全.txt", "Document")
    assert 0 <= found["score"] <= 0.4
    assert search(query=QUESTION, score_threshold=0.0) == []
    assert search(query=QUESTION, file_name="%.md") == []
    (listed,) = search(query="", file_name="安%.tx_")
    assert (listed["page_content"], listed["id"]) == (TEXT, found["id"])
    assert search(query="", metadata={"source": "安全.txt"}) == [listed]
    assert (
        search(query="", metadata={"source": "安全.txt", "page": 3}) == search(query="", metadata={"source": "x"}) == []
    )
    assert search(query="") == search(query=QUESTION, knowledge_base_name="没有") == []
    assert search(query="", file_name="%" * 500 + "x") == []  # quickly


@pytest.mark.parametrize("question", [QUESTION, "月球绕地球一圈需要多久？"])
def test_kb_chat_has_docs_streamed_and_not(client: httpx.Client, question: str) -> None:
    # differences: chatchat-docs
    body: dict[str, Any] = {
        "query": question,
        "mode": "local_kb",
        "kb_name": "样例",
        "top_k": 3,
        "score_threshold": 1.0,
        "history": [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "你好！"}],
        "model": "demo",
        "temperature": 0.7,
        "max_tokens": 2048,
        "prompt_name": "default",
        "return_direct": False,
    }
    chunks = events(client.post("/chat/kb_chat", json={**body, "stream": True}).text)
    whole = client.post("/chat/kb_chat", json={**body, "stream": False}).json()
    first, *more, last = chunks
    assert first["docs"] == whole["docs"]
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
    assert text == whole["choices"][0]["message"]["content"] == whole["content"]
    assert all("docs" not in chunk for chunk in more)
    assert (last["finish_reason"], last["answered"]) == ("stop", question == QUESTION)
    assert first["choices"] == [{"delta": {"content": "", "tool_calls": []}, "role": "assistant"}]
    fields = ("object", "role", "status", "message_type", "message_id", "is_ref", "tool_calls")
    assert [first[name] for name in fields] == ["chat.completion.chunk", "assistant", None, 1, None, False, []]
    if question == QUESTION:
        url = f"{client.base_url}/knowledge_base/download_doc?knowledge_base_name=%E6%A0%B7%E4%BE%8B&file_name="
        assert whole["docs"] == [f"出处 [1] [安全.txt]({url}%E5%AE%89%E5%85%A8.txt) \n\n{TEXT}\n\n"]
        assert text == f"{ANSWER}[1]"
        assert whole["citations"][0]["text"] == ANSWER
    else:
        assert whole["docs"] == NOTHING
        assert text.startswith("（文档中没有答案")


def test_openais_client(url: str) -> None:
    base = f"{url}/knowledge_base/local_kb/样例"
    with openai.OpenAI(base_url=base, api_key="x", max_retries=0) as client:
        asked: Any = {"model": "demo", "messages": [{"role": "user", "content": QUESTION}]}
        extra = {"top_k": 3, "score_threshold": 2.0, "temperature": 0.7, "prompt_name": "default"}
        whole: Any = client.chat.completions.create(**asked, extra_body={**extra, "return_direct": False})
        assert whole.choices[0].message.content == f"{ANSWER}[1]"
        assert whole.docs[0].startswith("出处 [1] [安全.txt](")
        stream: Any
        with client.chat.completions.create(**asked, stream=True, extra_body=extra) as stream:
            chunks = list(stream)
        assert chunks[0].docs == whole.docs
        assert "".join(chunk.choices[0].delta.content for chunk in chunks) == f"{ANSWER}[1]"
        direct: Any = client.chat.completions.create(**asked, extra_body={"return_direct": True})
        assert (direct.docs, direct.choices[0].message.content) == (whole.docs, "")


def test_files_for_a_while(client: httpx.Client) -> None:
    def uploaded(**data: str) -> dict[str, Any]:
        given = [("files", ("安全.txt", TEXT.encode())), ("files", ("坏.pdf", b"%PDF-1.4"))]
        sent = {"chunk_size": "250", "chunk_overlap": "50", "zh_title_enhance": "false", **data}
        return dict(client.post("/knowledge_base/upload_temp_docs", data=sent, files=given).json()["data"])

    made = uploaded(prev_id="4")  # there is none
    assert [*made["failed_files"][0]] == ["坏.pdf"]
    assert uploaded(prev_id=made["id"])["id"] == made["id"]
    body = {"knowledge_id": made["id"], "query": QUESTION, "top_k": 3, "score_threshold": 1.0}
    (found,) = client.post("/knowledge_base/search_temp_docs", json=body).json()
    assert found["page_content"] == TEXT
    asked = {
        **body,
        "history": [],
        "model_name": None,
        "temperature": 0.01,
        "max_tokens": 100,
        "prompt_name": "default",
    }
    streamed = events(client.post("/chat/file_chat", json={**asked, "stream": True}).text)
    assert "".join(each.get("answer", "") for each in streamed) == f"{ANSWER}[1]"
    assert streamed[-1] == {"docs": [f"出处 [1] [安全.txt] \n\n{TEXT}\n\n"]}
    (whole,) = events(client.post("/chat/file_chat", json={**asked, "stream": False}).text)
    assert whole == {"answer": f"{ANSWER}[1]", **streamed[-1]}
    kb = {"mode": "temp_kb", "kb_name": made["id"], "query": QUESTION, "stream": False}
    assert client.post("/chat/kb_chat", json=kb).json()["content"] == f"{ANSWER}[1]"
    assert client.post("/chat/file_chat", json={**asked, "knowledge_id": "x"}).json()["code"] == 404
    assert client.post("/knowledge_base/search_temp_docs", json={**body, "knowledge_id": "x"}).status_code == 404
    assert made["id"] not in client.get("/v1/knowledge").text  # nobody finds it


def test_summaries(client: httpx.Client) -> None:
    api, body = "/knowledge_base/kb_summary_api", {"knowledge_base_name": "样例", "model_name": "demo"}
    (line,) = events(client.post(f"{api}/summary_file_to_vector_store", json={**body, "file_name": "安全.txt"}).text)
    assert line == {"code": 200, "msg": "安全.txt 总结完成", "doc": "安全.txt", "summary": ANSWER}
    (line,) = events(client.post(f"{api}/recreate_summary_vector_store", json=body).text)
    assert (line["msg"], line["total"], line["finished"]) == ("(1 / 1): 安全.txt", 1, 1)
    (line,) = events(client.post(f"{api}/summary_file_to_vector_store", json={**body, "file_name": "x"}).text)
    assert line["code"] == 500
    (line,) = events(client.post(f"{api}/recreate_summary_vector_store", json={"knowledge_base_name": "x"}).text)
    assert line["code"] == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "words"),
    [
        ("POST", "/knowledge_base/search_engine/bing/chat/completions", "chat", "does not use search engines"),
        (
            "POST",
            "/chat/kb_chat",
            {"query": "x", "mode": "search_engine", "kb_name": "bing"},
            "does not use search engines",
        ),
        ("POST", "/local_doc_qa/bing_search_chat", {"question": "x"}, "does not use search engines"),
        ("POST", "/chat/feedback", {"message_id": "x"}, "feedback is not stored"),
        ("POST", "/chat/chat/completions", "chat", "/v1/chat/completions"),
        ("GET", "/tools", None, "server_tools"),
        ("POST", "/tools/call", {"name": "x"}, "server_tools"),
        ("POST", "/server/configs", None, "does not show its settings"),
        (
            "POST",
            "/knowledge_base/kb_summary_api/summary_doc_ids_to_vector_store",
            {"knowledge_base_name": "样例", "doc_ids": ["1"]},
            "not pieces",
        ),
        (
            "POST",
            "/knowledge_base/update_docs",
            {"knowledge_base_name": "样例", "file_names": [], "docs": "[1]"},
            "docs",
        ),
    ],
)
def test_what_there_is_not(client: httpx.Client, method: str, path: str, body: Any, words: str) -> None:
    if body == "chat":
        body = {"model": "demo", "messages": [{"role": "user", "content": "x"}]}
    answer = client.request(method, path, json=body)
    assert answer.status_code == 501
    assert answer.json()["code"] == 501
    assert words in answer.json()["msg"]


def test_what_is_wrong_is_named(client: httpx.Client) -> None:
    for path, body, words in (
        ("/chat/kb_chat", {"query": "x", "kb_name": "样例", "prompt_name": "mine"}, "prompt_name"),
        ("/chat/kb_chat", {"query": "", "kb_name": "样例"}, "query"),
        ("/chat/kb_chat", {"query": "x", "kb_name": "样例", "top_k": 0}, "top_k"),
        ("/chat/kb_chat", {"query": "x", "kb_name": "样例", "colour": 1}, "colour: unknown field"),
        ("/chat/kb_chat", {"query": "x", "kb_name": "样例", "model": "other"}, "model"),
    ):
        answer = client.post(path, json=body)
        assert answer.status_code in (400, 404)
        assert words in answer.json()["msg"]
    assert client.post("/chat/kb_chat", json={"query": "x", "kb_name": "没有"}).json()["msg"] == "未找到知识库 没有"
    for name in ("../x.txt", "/x.txt"):
        form: Any = {"data": {"knowledge_base_name": "样例"}, "files": [("files", (name, b"x"))]}
        assert client.post("/knowledge_base/upload_docs", **form).status_code == 400
    form = {"data": {"knowledge_base_name": "样例", "docs": '{"a": []}'}, "files": [("files", ("a.txt", b"x"))]}
    assert client.post("/knowledge_base/upload_docs", **form).status_code == 501
    answer = client.post("/knowledge_base/upload_docs", data={"knowledge_base_name": "样例", **SDK_UPLOAD})
    assert answer.status_code == 400


def test_what_has_no_effect_is_said(client: httpx.Client) -> None:
    # differences: chatchat-settings
    body = {"knowledge_base_name": "样例", "query": QUESTION, "embed_model": "bge-large-zh", "vs_type": "faiss"}
    answer = client.post("/knowledge_base/search_docs", json=body)
    assert answer.headers["x-chatglm-ignored"] == "embed_model, vs_type"


def test_uploads_are_bounded(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def status(path: str, field: str, *files: bytes, **data: str) -> int:
        given = [(field, (f"{number}.txt", content)) for number, content in enumerate(files)]
        return client.post(path, data=data, files=given).status_code

    with monkeypatch.context() as patch:
        patch.setattr(bounds, "UPLOAD_BYTES", 1000)
        large = bytes(100_000)
        assert status("/knowledge_base/upload_docs", "files", large, knowledge_base_name="样例") == 413
        assert status("/knowledge_base/upload_temp_docs", "files", large) == 413
        assert status("/local_doc_qa/upload_file", "file", large, knowledge_base_id="样例") == 413
    with monkeypatch.context() as patch:
        patch.setattr(filing, "AT_ONCE", 2)
        assert status("/local_doc_qa/upload_files", "files", b"a", b"b", b"c", knowledge_base_id="样例") == 400
    with monkeypatch.context() as patch:
        patch.setattr(bounds, "BASES", 1)
        assert status("/local_doc_qa/upload_file", "file", b"x", knowledge_base_id="更多") == 413
        answer = client.post("/knowledge_base/create_knowledge_base", json={"knowledge_base_name": "更多"})
        assert answer.status_code == 413
    assert client.get("/local_doc_qa/list_files", params={"knowledge_base_id": "样例"}).json()["data"] == ["安全.txt"]


# 0.1


def test_local_doc_qa(client: httpx.Client) -> None:
    def call(method: str, path: str, **more: Any) -> dict[str, Any]:
        answer = client.request(method, f"/local_doc_qa/{path}", **more)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def added(name: str, content: bytes, field: str = "file", path: str = "upload_file") -> dict[str, Any]:
        return call("POST", path, data={"knowledge_base_id": "老"}, files={field: (name, content)})

    done = added("甲.txt", TEXT.encode())
    assert (done["code"], done["msg"]) == (200, "文件 甲.txt 已上传至新的知识库，并已加载知识库，请开始提问。")
    assert added("甲.txt", TEXT.encode())["msg"] == "文件 甲.txt 已存在。"
    assert added("坏.pdf", b"%PDF")["code"] == 500
    done = added("乙.txt", "气阀在二楼。".encode(), "files", "upload_files")
    assert done["msg"] == "documents 乙.txt upload success"
    assert "老" in call("GET", "list_knowledge_base")["data"]
    files = {"params": {"knowledge_base_id": "老"}}
    assert call("GET", "list_files", **files)["data"] == ["乙.txt", "坏.pdf", "甲.txt"]
    new = {"params": {"knowledge_base_id": "老", "old_doc": "乙.txt"}, "files": {"new_doc": ("丙.txt", b"x")}}
    assert call("POST", "update_file", **new)["msg"] == "document 乙.txt delete and document 丙.txt upload success"
    new["files"] = {"new_doc": ("坏2.pdf", b"%PDF")}
    new["params"]["old_doc"] = "丙.txt"
    assert call("POST", "update_file", **new)["code"] == 500  # differences: chatchat-update-file
    assert "丙.txt" in call("GET", "list_files", **files)["data"]
    assert call("DELETE", "delete_file", params={"knowledge_base_id": "老", "doc_name": "丙.txt"})["code"] == 200
    assert call("DELETE", "delete_file", params={"knowledge_base_id": "老", "doc_name": "丙.txt"})["code"] == 404
    assert call("DELETE", "delete_knowledge_base", **files)["msg"] == "Knowledge Base 老 delete success"
    assert call("GET", "list_files", **files) == {"code": 404, "msg": "Knowledge base 老 not found", "data": []}
    assert call("GET", "list_files", params={"knowledge_base_id": "../x"})["code"] == 403


def test_local_doc_chat(client: httpx.Client) -> None:
    body = {"knowledge_base_id": "样例", "question": QUESTION, "streaming": False, "history": [["你好", None]]}
    whole = client.post("/local_doc_qa/local_doc_chat", json=body).json()
    assert (whole["question"], whole["response"]) == (QUESTION, ANSWER)
    assert whole["history"] == [["你好", None], [QUESTION, ANSWER]]
    (source,) = whole["source_documents"]
    assert source.startswith(f"出处 [1] 安全.txt：\n\n{TEXT}\n\n相关度：0.")
    assert client.post("/local_doc_qa/local_doc_chat", json={**body, "streaming": True}).text == ANSWER
    unknown = client.post("/local_doc_qa/local_doc_chat", json={**body, "knowledge_base_id": "没有"}).json()
    assert unknown["response"] == "Knowledge base 没有 not found"
    assert (unknown["history"], unknown["source_documents"]) == ([["你好", None]], [])
    chat = client.post("/chat", json={"question": "你好", "streaming": False, "history": []}).json()
    assert chat == {"question": "你好", "response": ANSWER, "history": [["你好", ANSWER]], "source_documents": []}
    assert client.post("/chat", json={"question": "你好", "streaming": True}).text == ANSWER


def answered(socket: ClientConnection, question: dict[str, Any]) -> tuple[Any, str, Any]:
    """First flag, text, last flag."""
    socket.send(json.dumps(question))
    first = json.loads(socket.recv(60))
    text = ""
    while not (said := str(socket.recv(60))).startswith('{"question"'):
        text += said
    return first, text, json.loads(said)


@pytest.mark.parametrize("path", ["stream_chat", "stream_chat/样例"])
def test_the_websocket(url: str, path: str) -> None:
    question = {"question": QUESTION, "history": [], "knowledge_base_id": "样例"}
    with connect(f"ws{url[4:]}/local_doc_qa/{path}") as socket:
        for turn in (1, 2):
            first, text, last = answered(socket, question)
            assert first == {"question": QUESTION, "turn": turn, "flag": "start"}
            assert text == ANSWER
            assert (last["turn"], last["flag"]) == (turn, "end")
            assert last["sources_documents"][0].startswith("出处 [1] 安全.txt：")
        socket.send(json.dumps({**question, "knowledge_base_id": "没有"}))
        assert json.loads(socket.recv(60)) == {"error": "Knowledge base 没有 not found"}
        with pytest.raises(ConnectionClosed):
            socket.recv(60)


@pytest.mark.parametrize("said", ["no json", "[1]", '{"question": ""}', '{"question": "x", "colour": 1}', "[" * 9000])
def test_a_wrong_message_ends_the_websocket_with_a_sentence(url: str, said: str) -> None:
    with connect(f"ws{url[4:]}/local_doc_qa/stream_chat") as socket:
        socket.send(said)
        assert json.loads(socket.recv(60)).keys() == {"error"}
        with pytest.raises(ConnectionClosed):
            socket.recv(60)


@contextmanager
def slow(
    write: Writer, home: Path, timeout: float | None = None, limits: ConnectionLimits | None = None
) -> Iterator[tuple[httpx.Client, ScriptedEngine]]:
    """A server with a base, whose answers take longer than a request may, or than a test needs."""
    engine = ScriptedEngine(write.say(ANSWER * 100), context=2048, delay=0.02)
    with (
        Shelf(home) as shelf,
        Assistant(write.form, engine) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant}, knowledge=shelf, dialects=("chatchat",), timeout=timeout, limits=limits) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        fill(client, "样例")
        yield client, engine


def test_an_answer_on_a_websocket_has_the_time_of_a_request(write: Writer, tmp_path: Path) -> None:
    with slow(write, tmp_path, 1.0) as (client, engine):
        with connect(f"ws{str(client.base_url)[4:].rstrip('/')}/local_doc_qa/stream_chat/样例") as socket:
            socket.send(json.dumps({"question": QUESTION}))
            while not (said := str(socket.recv(60))).startswith('{"error"'):
                assert "end" not in said
            assert "took longer than this server allows" in said
            with pytest.raises(ConnectionClosed):
                socket.recv(60)
        until(lambda: engine.aborted)


def test_a_stream_of_summaries_that_takes_too_long_ends_with_a_sentence(write: Writer, tmp_path: Path) -> None:
    with slow(write, tmp_path, 1.5) as (client, _):
        upload(client, "样例", ("二.txt", TEXT.encode() * 2))
        path = "/knowledge_base/kb_summary_api/recreate_summary_vector_store"
        (last,) = events(client.post(path, json={"knowledge_base_name": "样例"}).text)  # the second file is not begun
        assert last["code"] == 504
        assert "took longer than this server allows" in last["msg"]


def test_idle_websockets_make_room_and_answered_ones_do_not(write: Writer, tmp_path: Path) -> None:
    with slow(write, tmp_path, limits=ConnectionLimits(connections=3)) as (client, _):
        client.headers["Connection"] = "close"
        address = f"ws{str(client.base_url)[4:].rstrip('/')}/local_doc_qa/stream_chat/样例"
        with connect(address) as oldest, connect(address) as busy, connect(address) as idle:
            busy.send(json.dumps({"question": QUESTION}))
            assert json.loads(busy.recv(60))["flag"] == "start"
            assert client.get("/health").status_code == 200
            with pytest.raises(ConnectionClosed):
                oldest.recv(60)
            assert idle.ping().wait(60)
            with connect(address) as fourth, connect(address) as fifth:
                for socket in (fourth, fifth):
                    socket.send(json.dumps({"question": QUESTION}))
                    assert json.loads(socket.recv(60))["flag"] == "start"
                with pytest.raises(ConnectionClosed):
                    idle.recv(60)
                assert client.get("/v1/models").status_code == 503  # now all are busy
                assert busy.recv(60)


def test_a_websocket_that_is_silent_for_long_is_closed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v1, "_IDLE_SECONDS", 0.1)
    with connect(f"ws{url[4:]}/local_doc_qa/stream_chat") as socket, pytest.raises(ConnectionClosed):
        socket.recv(60)


def test_a_page_of_another_site_gets_no_websocket(url: str) -> None:
    address = f"ws{url[4:]}/local_doc_qa/stream_chat"
    with pytest.raises(InvalidStatus) as raised, connect(address, origin="https://evil.example"):  # type: ignore[arg-type]
        pass
    assert raised.value.response.status_code == 403
    with connect(address, origin=url):  # type: ignore[arg-type]
        pass
    with connect(f"{address}_bing") as socket:
        assert "search engines" in json.loads(socket.recv(60))["error"]


def websockets_of(routes: Iterable[Any]) -> Iterator[str]:
    """The paths of all WebSockets, with a base where a path has one."""
    for route in routes:
        if isinstance(route, WebSocketRoute):
            yield route.path.replace("{knowledge_base_id}", "样例")
        inner = getattr(route, "original_router", route)  # how FastAPI includes routers depends on its version
        yield from websockets_of(getattr(inner, "routes", None) or ())


def test_a_websocket_for_another_host_is_refused(write: Writer, tmp_path: Path) -> None:
    """A page whose name points to 127.0.0.1 has an Origin that fits its Host: only the name is foreign."""
    servers: list[Server] = []
    with (
        Shelf(tmp_path) as shelf,
        Assistant(write.form, ScriptedEngine(write.say(ANSWER))) as assistant,  # type: ignore[arg-type]
        serving(
            {"demo": assistant}, knowledge=shelf, dialects=("chatchat",), hosts=["Chat.example"], servers=servers
        ) as url,
    ):
        port = httpx.URL(url).port

        def answer(host: str, path: str) -> tuple[int, str]:
            """To the handshake of a WebSocket with the headers of a browser: status and error."""
            asked = f"{host}:{port}"
            with socket.create_connection(("127.0.0.1", port)) as plain:
                try:
                    with connect(f"ws://{asked}{path}", sock=plain, origin=f"http://{asked}") as opened:  # type: ignore[arg-type]
                        assert opened.response is not None
                        return opened.response.status_code, ""
                except InvalidStatus as refused:
                    return refused.response.status_code, json.loads(refused.response.body)["msg"]

        paths = set(websockets_of(servers[0].config.app.routes))  # type: ignore[union-attr]
        assert "/local_doc_qa/stream_chat/样例" in paths
        for path in sorted(paths):
            for host in ("127.0.0.1", "localhost", "[::1]", "chat.example"):
                assert answer(host, path) == (101, ""), (host, path)
            for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "0.0.0.0"):
                status, said = answer(host, path)
                assert (status, "`--allow-host NAME`" in said) == (403, True), (host, path)


def test_a_page_of_another_site_changes_nothing(client: httpx.Client) -> None:
    evil = {"Origin": "https://evil.example"}
    for path, field, data in (
        ("/knowledge_base/upload_docs", "files", {"knowledge_base_name": "样例"}),
        ("/knowledge_base/upload_temp_docs", "files", {}),
        ("/local_doc_qa/upload_file", "file", {"knowledge_base_id": "样例"}),
        ("/v1/knowledge/样例/files", "file", {}),
    ):
        answer = client.post(path, data=data, files={field: ("x.txt", b"x")}, headers=evil)
        assert answer.status_code == 403, path
    delete, plain = "/knowledge_base/delete_knowledge_base", {"Content-Type": "text/plain", **evil}
    assert client.post(delete, content='"样例"'.encode(), headers=plain).status_code == 400
    assert client.get("/local_doc_qa/list_files", params={"knowledge_base_id": "样例"}).json()["data"] == ["安全.txt"]


def test_a_client_that_leaves_ends_its_answer(write: Writer, tmp_path_factory: pytest.TempPathFactory) -> None:
    engine = ScriptedEngine(write.say("灭火器在门口右侧。" * 200), context=4096, delay=0.01)
    with (
        Shelf(tmp_path_factory.mktemp("home")) as shelf,
        Assistant(write.form, engine) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant}, knowledge=shelf, dialects=("chatchat",)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        fill(client, "样例")
        with connect(f"ws{url[4:]}/local_doc_qa/stream_chat/样例") as socket:
            socket.send(json.dumps({"question": QUESTION}))
            assert json.loads(socket.recv(60))["flag"] == "start"
            assert socket.recv(60)
        for _ in range(600):
            if engine.aborted:
                break
            client.get("/health")
        assert engine.aborted
        assert engine.idle


def test_a_server_that_ends_answers_a_websocket_first(write: Writer, tmp_path_factory: pytest.TempPathFactory) -> None:
    engine = ScriptedEngine(write.say("灭火器在门口右侧。" * 10), context=2048, delay=0.01)
    servers: list[Server] = []
    with (
        Shelf(tmp_path_factory.mktemp("home")) as shelf,
        Assistant(write.form, engine) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant}, knowledge=shelf, dialects=("chatchat",), servers=servers, drain=30) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        fill(client, "样例")
        address = f"ws{url[4:]}/local_doc_qa/stream_chat/样例"
        with connect(address) as socket, connect(address) as idle:
            socket.send(json.dumps({"question": QUESTION}))
            text = str(socket.recv(60)) + str(socket.recv(60))
            servers[0].should_exit = True
            text += "".join(map(str, socket))  # until it is closed
            assert text.count(ANSWER) == 10 + 1  # of the answer, and of its source
            assert '"flag": "end"' in text
            with pytest.raises(ConnectionClosed):
                idle.recv(60)


def test_keys_and_websockets(write: Writer, tmp_path_factory: pytest.TempPathFactory) -> None:
    engine = ScriptedEngine(write.say(ANSWER), context=2048)
    with (
        Shelf(tmp_path_factory.mktemp("home")) as shelf,
        Assistant(write.form, engine) as assistant,  # type: ignore[arg-type]
        serving(
            {"demo": assistant}, knowledge=shelf, dialects=("chatchat",), keys=Keyring([Texts([ALICE, BOB], "test")])
        ) as url,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {ALICE}"}, timeout=60) as alice,
    ):
        fill(alice, "样例")
        address = f"ws{url[4:]}/local_doc_qa/stream_chat/样例"
        with pytest.raises(InvalidStatus) as raised, connect(address):
            pass
        assert raised.value.response.status_code == 401
        assert json.loads(raised.value.response.body)["code"] == 401
        with connect(address, additional_headers={"Authorization": f"Bearer {ALICE}"}) as socket:
            assert answered(socket, {"question": QUESTION})[1] == ANSWER
        with connect(address, additional_headers={"Authorization": f"Bearer {BOB}"}) as socket:
            socket.send(json.dumps({"question": QUESTION}))
            assert json.loads(socket.recv(60)) == {"error": "Knowledge base 样例 not found"}


def test_only_who_asks_for_it_gets_it(write: Writer) -> None:
    with Assistant(write.form, ScriptedEngine(write.say("x"))) as assistant:  # type: ignore[arg-type]
        with TestClient(create_app({"demo": assistant})) as client:
            assert client.get("/knowledge_base/list_knowledge_bases").status_code == 404
            assert client.post("/chat", json={"question": "x"}).status_code == 404
        paths = create_app({"demo": assistant}, dialects=("chatchat",)).openapi()["paths"]
        assert "/knowledge_base/{mode}/{param}/chat/completions" in paths
        assert "/local_doc_qa/local_doc_chat" in paths
        with TestClient(create_app({"demo": assistant}, dialects=("chatchat",))) as client:
            answer = client.get("/knowledge_base/list_knowledge_bases")  # the server has no bases
            assert answer.status_code == 404
            assert "--knowledge" in answer.json()["msg"]
