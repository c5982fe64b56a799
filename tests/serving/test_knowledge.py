"""Documents over HTTP: bases of one's own, and chat completions that say what they rest on."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import ResponseOutputMessage, ResponseOutputText
from openai.types.responses.response_output_text import AnnotationFileCitation

from chatglm.assistant import Assistant
from chatglm.knowledge import Shelf, bounds, places
from chatglm.serving.access.key_sources import Texts
from chatglm.serving.access.keys import Keyring
from scripted import ScriptedEngine, Writer
from server import serving
from waiting import until

TEXT = "灭火器在门口右侧。离开实验室前须关闭气阀和电源。\n"
QUESTION: list[Any] = [{"role": "user", "content": "灭火器放在哪里？"}]
ALICE, BOB = "alice.0123456789abcdef", "bob.fedcba9876543210"


def ready(client: httpx.Client, base: str) -> dict[str, Any]:
    def look() -> Any:
        (file,) = client.get(f"/v1/knowledge/{base}/files").json()["data"]
        return dict(file) if file["state"] in ("ready", "failed") else None

    return until(look, pause=0.05)


def fill(client: httpx.Client, base: str) -> None:
    assert client.post("/v1/knowledge", json={"name": base, "about": "规定"}).status_code == 201
    answer = client.post(f"/v1/knowledge/{base}/files", files={"file": ("安全.txt", TEXT.encode("gb18030"))})
    assert answer.status_code == 202, answer.text
    assert ready(client, base)["state"] == "ready"


@pytest.fixture(scope="module")
def url(write: Writer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    engine = ScriptedEngine(write.say("灭火器在门口右侧。"), context=2048)
    with (
        Shelf(tmp_path_factory.mktemp("home")) as shelf,
        Assistant(write.form, engine) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant}, knowledge=shelf) as address,
    ):
        with httpx.Client(base_url=address, timeout=60) as client:
            fill(client, "手册")
        yield address


def test_no_answer_has_the_key_of_an_external_store(
    write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server may show the request in its errors."""
    pytest.importorskip("langchain_core")

    def opened(place: places.Place, secret: str, embeddings: Any) -> Any:
        raise RuntimeError(f"denied: {secret}")

    monkeypatch.setenv("STORE_KEY", "hunter2")
    monkeypatch.setitem(places._KINDS, "qdrant", places._Kind("langchain", opened, opened))  # type: ignore[misc]
    with (
        Shelf(tmp_path, embedder=_Embedder(), vectors_at="qdrant:http://:$STORE_KEY@h#c") as shelf,
        Assistant(write.form, ScriptedEngine(write.say("灭火器"))) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant}, knowledge=shelf) as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        fill(client, "手册")
        shelf.base("手册", None).wait()
        answers = [
            client.get("/v1/knowledge/手册"),
            client.get("/v1/knowledge/手册/events"),
            client.post("/v1/knowledge/手册/search", json={"question": "灭火器放在哪里？"}),
            client.post("/v1/knowledge/手册/ask", json={"question": "灭火器放在哪里？", "extract": True}),
        ]
        for answer in answers:
            assert answer.status_code == 200
            assert "denied: …" in answer.text
            assert "hunter2" not in answer.text


class _Embedder:
    name, size = "none", 1

    def passages(self, texts: list[str]) -> Any:
        raise AssertionError("the store is opened first")

    questions = passages


@contextmanager
def two_callers(
    write: Writer, engine: ScriptedEngine, home: Path
) -> Iterator[tuple[httpx.Client, httpx.Client, Shelf]]:
    """Clients of Alice and Bob at a server with bases and keys, and the shelf of its bases."""
    with (
        Shelf(home) as shelf,
        Assistant(write.form, engine) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant}, knowledge=shelf, keys=Keyring([Texts([ALICE, BOB], "test")])) as url,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {ALICE}"}, timeout=60) as alice,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {BOB}"}, timeout=60) as bob,
    ):
        yield alice, bob, shelf


@pytest.mark.parametrize("how", [{"model": "knowledge:手册"}, {"model": "demo", "extra_body": {"knowledge": ["手册"]}}])
def test_openais_client_gets_citations_streamed_and_not(url: str, how: dict[str, Any]) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="x") as client:
        whole = client.chat.completions.create(messages=QUESTION, **how)
        message: Any = whole.choices[0].message
        assert message.content == "灭火器在门口右侧。[1]"
        assert message.answered is True
        assert message.unsupported == []
        (citation,) = message.citations
        assert (citation["n"], citation["file"], citation["text"]) == (1, "安全.txt", "灭火器在门口右侧。")
        assert TEXT.encode("gb18030")[slice(*citation["bytes"])].decode("gb18030") == citation["text"]
        assert whole.usage is not None
        assert whole.usage.completion_tokens > 0
        deltas: list[Any] = []
        with client.chat.completions.create(messages=QUESTION, stream=True, **how) as stream:
            deltas = [chunk.choices[0].delta for chunk in stream]
        assert deltas[0].passages[0]["text"] == TEXT
        assert "".join(delta.content or "" for delta in deltas) == message.content
        cited = [each for delta in deltas[:-1] for each in getattr(delta, "citations", None) or ()]
        assert cited == message.citations == deltas[-1].citations
        assert deltas[-1].answered is True
        assert "knowledge:手册" in [model.id for model in client.models.list()]
        assert client.models.retrieve("knowledge:手册").id == "knowledge:手册"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("knowledge:没有")


@pytest.mark.parametrize("how", [{"model": "knowledge:手册"}, {"model": "demo", "extra_body": {"knowledge": ["手册"]}}])
def test_responses_annotate_what_they_rest_on(url: str, how: dict[str, Any]) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="x") as client:
        whole = client.responses.create(input="灭火器放在哪里？", store=False, **how)
        (item,) = whole.output
        assert isinstance(item, ResponseOutputMessage)
        (part,) = item.content
        assert isinstance(part, ResponseOutputText)
        assert whole.output_text == part.text == "灭火器在门口右侧。[1]"
        (cited,) = part.annotations
        assert isinstance(cited, AnnotationFileCitation)
        assert (cited.filename, cited.file_id, cited.index) == ("安全.txt", "手册/安全.txt", len(part.text))
        extra = cited.model_extra or {}
        assert extra["text"] == "灭火器在门口右侧。"
        assert TEXT.encode("gb18030")[slice(*extra["bytes"])].decode("gb18030") == extra["text"]
        assert (whole.model_extra or {})["answered"] is True
        with client.responses.create(input="灭火器放在哪里？", stream=True, store=False, **how) as stream:
            events = list(stream)
        added = [event for event in events if event.type == "response.output_text.annotation.added"]
        assert [(event.annotation_index, event.to_dict()["annotation"]) for event in added] == [(0, cited.to_dict())]
        (last,) = (event for event in events if event.type == "response.completed")
        assert last.response.output[0].content[0].annotations == [cited]  # type: ignore[union-attr]
        refused = client.responses.create(input="月球绕地球一圈需要多久？", store=False, **how)
        assert refused.output_text == "根据已知信息无法回答该问题。"
        assert (refused.model_extra or {})["answered"] is False
        with pytest.raises(openai.BadRequestError, match="tools: not supported for answers"):
            client.responses.create(input="x", tools=[{"type": "function", "name": "f", "parameters": {}}], **how)
        with pytest.raises(openai.BadRequestError, match="include"):
            client.responses.create(input="x", include=["message.output_text.logprobs"], **how)


def test_a_dialogue_of_responses_goes_on_about_documents(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="x") as client:
        first = client.responses.create(model="knowledge:手册", input="灭火器放在哪里？")
        again = client.responses.create(
            model="knowledge:手册", input="气阀在离开实验室前要怎么办？", previous_response_id=first.id
        )
        assert again.output[0].content[0].annotations  # type: ignore[union-attr]
        said = client.responses.create(
            model="knowledge:手册",
            input=[*first.output, {"role": "user", "content": "灭火器放在哪里？"}],  # type: ignore[list-item]
        )
        assert said.output_text == "灭火器在门口右侧。[1]"
        message = client.chat.completions.create(model="knowledge:手册", messages=QUESTION).choices[0].message
        sent: Any = [*QUESTION, message, *QUESTION]
        assert client.chat.completions.create(model="knowledge:手册", messages=sent).choices[0].message.content


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages", {"max_tokens": 9, "messages": QUESTION}),
        ("/api/paas/v4/chat/completions", {"messages": QUESTION}),
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/responses/input_tokens", {"input": "x"}),
        ("/", {"prompt": "x"}),
    ],
)
def test_dialects_without_citations_refuse_documents(url: str, path: str, body: dict[str, Any]) -> None:
    answer = httpx.post(url + path, json={**body, "model": "knowledge:手册"})
    assert answer.status_code in (400, 404)
    assert "no place for citations" in answer.text
    answer = httpx.post(url + path, json={**body, "model": "demo", "knowledge": ["手册"]})
    assert answer.status_code == 400
    assert "knowledge: unknown field" in answer.text
    listed = [model["id"] for model in httpx.get(f"{url}/api/paas/v4/models").json()["data"]]
    assert listed == ["demo"]


def test_any_model_is_no_answer_without_documents(write: Writer) -> None:
    with (
        Assistant(write.form, ScriptedEngine(write.say("x"))) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant}, any_model=True) as url,
    ):
        for path in ("/v1/messages", "/v1/chat/completions"):
            body = {"model": "knowledge:手册", "max_tokens": 9, "messages": QUESTION}
            assert httpx.post(url + path, json=body).status_code == 404


def test_what_the_documents_do_not_have(url: str) -> None:
    body = {"model": "knowledge:手册", "messages": [{"role": "user", "content": "月球绕地球一圈需要多久？"}]}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body).json()
    message = answer["choices"][0]["message"]
    assert message["content"] == "根据已知信息无法回答该问题。"
    assert (message["answered"], message["citations"]) == (False, [])
    assert answer["usage"]["total_tokens"] == 0
    lines = httpx.post(f"{url}/v1/chat/completions", json={**body, "stream": True}).text.split("\n\n")
    assert lines[-2] == "data: [DONE]"
    assert json.loads(lines[-3].removeprefix("data: "))["choices"][0]["delta"]["answered"] is False


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ({"model": "knowledge:没有"}, 404, "there is no such base"),
        ({"model": "knowledge:"}, 400, "does not name a base"),
        ({"model": "knowledge:../x"}, 400, "a name has"),
        ({"model": "knowledge:手册", "knowledge": ["手册"]}, 400, "names bases already"),
        ({"model": "demo", "knowledge": ["手册"], "n": 2}, 400, "n: not supported for answers"),
        ({"model": "demo", "knowledge": ["手册"], "logprobs": True}, 400, "logprobs: not supported"),
        ({"model": "demo", "knowledge": ["手册"], "response_format": {"type": "json_object"}}, 400, "response_format"),
        ({"knowledge": ["手册"], "messages": [*QUESTION, {"role": "assistant", "content": "x"}]}, 400, "messages"),
    ],
)
def test_what_is_refused(url: str, more: dict[str, Any], status: int, words: str) -> None:
    answer = httpx.post(f"{url}/v1/chat/completions", json={"messages": QUESTION, **more})
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]["message"]


def test_bases_and_their_files(url: str) -> None:
    with httpx.Client(base_url=url, timeout=60) as client:
        (base,) = client.get("/v1/knowledge").json()["data"]
        assert (base["name"], base["about"], base["role"], base["files"]) == ("手册", "规定", "own", 1)
        hits = client.post("/v1/knowledge/手册/search", json={"question": "气阀", "k": 1}).json()["hits"]
        assert hits[0]["file"] == "安全.txt"
        text = client.get("/v1/knowledge/手册/files/安全.txt/text", params={"start": 0, "end": 9}).json()
        assert text == {"file": "安全.txt", "start": 0, "end": 9, "text": "灭火器在门口右侧。"}
        assert client.post("/v1/knowledge", json={"name": "手册"}).status_code == 400
        assert client.post("/v1/knowledge", json={"name": "../x"}).status_code == 400
        assert client.get("/v1/knowledge/手册/files/安全.txt/text", params={"start": 10**30}).status_code == 400
        form = client.post("/v1/knowledge/手册/files", files={"file": ("a.txt", b"x")}, data={"ocr": "always"})
        assert form.status_code == 400
        assert "ocr: unknown field" in form.json()["error"]["message"]
        for name in ("../x.txt", "/x.txt", "a/../../x.txt", "..\\x.txt"):
            answer = client.post("/v1/knowledge/手册/files", files={"file": (name, b"x")})
            assert answer.status_code == 400, name
        fill(client, "第二")
        assert client.delete("/v1/knowledge/第二/files/没有.txt").status_code == 404
        assert client.delete("/v1/knowledge/第二/files/安全.txt").json()["deleted"] is True
        assert client.delete("/v1/knowledge/第二").json()["deleted"] is True
        assert client.get("/v1/knowledge/第二/files").status_code == 404


def test_nobody_sees_anothers_base(write: Writer, tmp_path: Path) -> None:
    engine = ScriptedEngine(write.say("灭火器在门口右侧。"), context=2048)
    with two_callers(write, engine, tmp_path) as (alice, bob, shelf):
        fill(alice, "手册")

        def everything(client: httpx.Client) -> list[tuple[int, str]]:
            """Status of every route about the base, and what it says of a name that nobody has."""
            found = []
            for name in ("手册", "没有"):
                files = f"/v1/knowledge/{name}/files"
                for method, path, body in (
                    ("GET", files, None),
                    ("DELETE", f"{files}/安全.txt", None),
                    ("GET", f"{files}/安全.txt/text", None),
                    ("POST", f"/v1/knowledge/{name}/search", {"question": "气阀"}),
                    ("DELETE", f"/v1/knowledge/{name}", None),
                    ("POST", "/v1/chat/completions", {"model": f"knowledge:{name}", "messages": QUESTION}),
                    ("POST", "/v1/chat/completions", {"knowledge": [name], "messages": QUESTION}),
                ):
                    answer = client.request(method, path, json=body)
                    found.append((answer.status_code, answer.text.replace(name, "")))
                answer = client.post(files, files={"file": ("a.txt", b"x")})
                found.append((answer.status_code, answer.text.replace(name, "")))
            return found

        found = everything(bob)
        half = len(found) // 2
        assert {status for status, _ in found} == {404}
        assert found[:half] == found[half:]  # nothing tells them apart
        assert bob.get("/v1/knowledge").json()["data"] == []
        assert [model["id"] for model in bob.get("/v1/models").json()["data"]] == ["demo"]
        who = next(iter(shelf.base("手册", None).store.roles()))
        assert who != "*"
        shelf.base("手册", None).store.share("*", "read")
        assert bob.post("/v1/knowledge/手册/search", json={"question": "气阀"}).status_code == 200
        assert bob.delete("/v1/knowledge/手册/files/安全.txt").status_code == 403
        assert bob.delete("/v1/knowledge/手册").status_code == 403
        assert alice.delete("/v1/knowledge/手册").status_code == 200


def events_of(lines: Iterable[str]) -> list[tuple[str, Any]]:
    """Names and data of server-sent events."""
    found, name = [], ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            found.append((name, json.loads(line.removeprefix("data: "))))
    return found


def test_ask_streamed_and_not(url: str) -> None:
    ask = f"{url}/v1/knowledge/手册/ask"
    body = {"question": "灭火器放在哪里？", "show_prompt": True}
    whole = httpx.post(ask, json=body).json()
    assert (whole["answer"], whole["answered"], whole["model"]) == ("灭火器在门口右侧。[1]", True, "demo")
    assert whole["citations"][0]["text"] == "灭火器在门口右侧。"
    assert whole["passages"][0]["text"] == TEXT
    assert whole["usage"]["completion_tokens"] > 0
    assert whole["prompt"].startswith("已知信息：")
    assert whole["unsupported"] == []
    streamed = events_of(httpx.post(ask, json={**body, "stream": True}).text.splitlines())
    names = [name for name, _ in streamed]
    assert (names[0], names[-1]) == ("passages", "done")
    assert streamed[0][1]["passages"] == whole["passages"]
    assert "".join(data["text"] for name, data in streamed if name == "text") == whole["answer"]
    assert [data for name, data in streamed if name == "citation"] == whole["citations"]
    last = streamed[-1][1]
    assert {**last, "usage": None} == {**whole, "usage": None}


def test_summarise_streamed_and_not(write: Writer, tmp_path: Path) -> None:
    engine = ScriptedEngine(write.say("灭火器在门口右侧。"), context=512)
    with (
        Shelf(tmp_path) as shelf,
        Assistant(write.form, engine) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant}, knowledge=shelf) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        text = "".join(f"第{n}层：{TEXT}" for n in range(60))
        client.post("/v1/knowledge", json={"name": "长"})
        client.post("/v1/knowledge/长/files", files={"file": ("长.txt", text.encode())})
        ready(client, "长")
        route = "/v1/knowledge/长/summarise"
        told = events_of(client.post(route, json={"part": 200, "stream": True}).text.splitlines())
        assert told[0][0] == "progress"
        assert {data["stage"] for name, data in told if name == "progress"} >= {"reading", "map", "reduce", "citing"}
        done = told[-1][1]
        assert told[-1][0] == "done"
        assert done["parts"] > 1
        assert done["asked"] > done["parts"]
        assert done["citations"][0]["text"] in text
        assert "".join(data["text"] for name, data in told if name == "text") == done["summary"] == "灭火器在门口右侧。"
        assert [data for name, data in told if name == "citation"] == done["citations"]
        again = client.post(route, json={"part": 200}).json()
        assert (again["summary"], again["asked"], again["model"]) == (done["summary"], 0, "demo")
        assert again["citations"] == done["citations"]
        assert client.post(route, json={"files": ["没有.txt"]}).status_code == 404
        assert client.post(route, json={"style": "best"}).status_code == 400
        assert client.post("/v1/knowledge/没有/summarise", json={}).status_code == 404


def test_ask_takes_what_is_said_of_how(url: str) -> None:
    with httpx.Client(base_url=url, timeout=60) as client:

        def ask(**body: Any) -> dict[str, Any]:
            return dict(client.post("/v1/knowledge/手册/ask", json={"question": "灭火器放在哪里？", **body}).json())

        extracted = ask(extract=True)
        assert extracted["answered"] is True
        assert extracted["model"] is None
        assert extracted["citations"][0]["text"] in TEXT
        assert "问：灭火器放在哪里？" in ask(style="依据：{context}\n问：{question}", show_prompt=True)["prompt"]
        assert ask(question="月球绕地球一圈需要多久？")["answered"] is False
        assert ask(question="月球绕地球一圈需要多久？", strict=False)["answer"].startswith("（文档中没有答案")
        for wrong, words in (
            ({"style": "{{ config }}"}, "prompt"),
            ({"question": ""}, "question"),
            ({"k": 0}, "k"),
            ({"model": "other"}, "model"),
            ({"files": ["没有.txt"]}, "没有.txt"),
            ({"n": 2}, "n"),
        ):
            assert words in ask(**wrong)["error"]["message"]
        assert client.post("/v1/knowledge/没有/ask", json={"question": "x"}).status_code == 404


def test_pieces_are_read_edited_switched_off_and_given_back(url: str) -> None:
    with httpx.Client(base_url=url, timeout=60) as client:
        fill(client, "改")
        (piece,) = client.get("/v1/knowledge/改/files/安全.txt/pieces").json()["data"]
        one = f"/v1/knowledge/改/pieces/{piece['id']}"
        assert client.get(one).json() == piece

        def found() -> list[str]:
            return [
                hit["text"] for hit in client.post("/v1/knowledge/改/search", json={"question": "气阀"}).json()["hits"]
            ]

        edited = client.patch(one, json={"text": "气阀在二楼。"}).json()
        assert (edited["text"], edited["edited"]) == ("气阀在二楼。", True)
        assert found() == ["气阀在二楼。"]
        assert client.patch(one, json={"disabled": True}).json()["disabled"] is True
        assert found() == []
        assert client.patch(one, json={"disabled": False}).json() == piece
        assert found() == [TEXT]
        for wrong in ({}, {"text": ""}, {"text": "x", "disabled": True}, {"text": "x" * 10_001}, {"own": 1}):
            assert client.patch(one, json=wrong).status_code == 400, wrong
        assert client.get("/v1/knowledge/改/pieces/9999").status_code == 404
        assert client.get(f"/v1/knowledge/改/pieces/{10**30}").status_code == 400
        page = client.get("/v1/knowledge/改/files/安全.txt/pieces", params={"after": 0}).json()
        assert (page["data"], page["has_more"]) == ([], False)
        client.delete("/v1/knowledge/改")


def test_files_come_back_as_they_were(url: str) -> None:
    answer = httpx.get(f"{url}/v1/knowledge/手册/files/安全.txt/content")
    assert answer.content == TEXT.encode("gb18030")
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert httpx.get(f"{url}/v1/knowledge/手册/files/没有.txt/content").status_code == 404


def test_several_files_and_their_progress(url: str) -> None:
    with httpx.Client(base_url=url, timeout=60) as client:
        client.post("/v1/knowledge", json={"name": "多份"})
        assert events_of(client.get("/v1/knowledge/多份/events").iter_lines())[-1][0] == "done"
        given = [("file", (f"第{n}份.txt", f"第{n}条：灭火器在{n}楼。".encode())) for n in range(5)]
        given.append(("file", ("坏.pdf", b"%PDF-1.4 no pages")))
        answer = client.post("/v1/knowledge/多份/files", files=given)
        assert answer.status_code == 202, answer.text
        assert len(answer.json()["data"]) == 6
        with client.stream("GET", "/v1/knowledge/多份/events") as stream:
            told = events_of(stream.iter_lines())
        assert told[-1] == ("done", {"files": 6, "failed": 1, "pieces": 5, "trouble": ""})
        files = {file["name"]: file["state"] for file in client.get("/v1/knowledge/多份/files").json()["data"]}
        assert files.pop("坏.pdf") == "failed"
        assert set(files.values()) == {"ready"}
        last = {data["name"]: data["state"] for name, data in told if name == "file"}
        assert last == {name: state for name, state in ({**files, "坏.pdf": "failed"}).items() if name in last}
        twice = [("file", ("a.txt", b"x")), ("file", ("./a.txt", b"y"))]
        assert client.post("/v1/knowledge/多份/files", files=twice).status_code == 400
        client.delete("/v1/knowledge/多份")


def test_settings_and_sharing(write: Writer, tmp_path: Path) -> None:
    engine = ScriptedEngine(write.say("灭火器在门口右侧。"), context=2048)
    with two_callers(write, engine, tmp_path) as (alice, bob, _):
        fill(alice, "手册")
        base, access = "/v1/knowledge/手册", "/v1/knowledge/手册/access"
        changed = alice.patch(base, json={"about": "新", "strict": False, "prompt": "{context}{question}"}).json()
        assert (changed["about"], changed["settings"]["strict"]) == ("新", False)
        changed = alice.patch(base, json={"prompt": "", "strict": True}).json()
        assert (changed["about"], changed["settings"]["prompt"], changed["settings"]["strict"]) == ("新", "", True)
        assert alice.patch(base, json={"prompt": "nothing"}).status_code == 400
        ((alice_id, role),) = [(each["who"], each["role"]) for each in alice.get(access).json()["data"]]
        assert role == "own"
        bob.post("/v1/knowledge", json={"name": "乙"})
        bob_id = bob.get("/v1/knowledge/乙/access").json()["data"][0]["who"]
        assert bob.get(base).status_code == 404
        assert alice.put(f"{access}/{bob_id}", json={"role": "read"}).status_code == 200
        assert bob.get(base).json()["role"] == "read"
        for forbidden in (
            bob.get(access),
            bob.put(f"{access}/{bob_id}", json={"role": "own"}),
            bob.delete(f"{access}/{alice_id}"),
            bob.patch(base, json={"about": "x"}),
            bob.patch(f"{base}/pieces/1", json={"disabled": True}),
            bob.post(f"{base}/files", files={"file": ("a.txt", b"x")}),
        ):
            assert forbidden.status_code == 403
        assert alice.delete(f"{access}/{alice_id}").status_code == 400  # nobody would own it
        assert alice.put(f"{access}/{alice_id}", json={"role": "read"}).status_code == 400
        assert alice.put(f"{access}/{bob_id}", json={"role": "all"}).status_code == 400
        alice.delete(f"{access}/{bob_id}")
        assert bob.get(base).status_code == 404


def test_a_base_gets_another_name(write: Writer, tmp_path: Path) -> None:
    engine = ScriptedEngine(write.say("灭火器在门口右侧。"), context=2048)
    with two_callers(write, engine, tmp_path) as (alice, bob, _):
        base = "/v1/knowledge"
        fill(alice, "手册")
        bob.post(base, json={"name": "乙"})
        for name in ("乙", "../x", ""):
            refused = alice.patch(f"{base}/手册", json={"name": name, "about": "新"})
            assert refused.status_code == 400, refused.text
        assert alice.get(f"{base}/手册").json()["about"] != "新"  # nothing of a refused request was done
        unknown, others = (bob.patch(f"{base}/{name}", json={"name": "丙"}) for name in ("无", "手册"))
        assert (unknown.status_code, others.status_code) == (404, 404)
        assert others.text.replace("手册", "无") == unknown.text
        answer = alice.patch(f"{base}/手册", json={"name": "规定", "about": "新"}).json()
        assert (answer["name"], answer["about"], answer["role"], answer["files"]) == ("规定", "新", "own", 1)
        assert alice.patch(f"{base}/规定", json={"name": "规定"}).json()["name"] == "规定"
        assert alice.get(f"{base}/手册").status_code == 404
        assert bob.get(f"{base}/规定").status_code == 404
        found = alice.post(f"{base}/规定/search", json={"question": "灭火器"}).json()["hits"]
        assert {hit["base"] for hit in found} == {"规定"}


def test_a_server_without_bases(demo: str) -> None:
    answer = httpx.get(f"{demo}/v1/knowledge")
    assert answer.status_code == 404
    assert "--knowledge" in answer.json()["error"]["message"]


def test_uploads_are_bounded(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    files = f"{url}/v1/knowledge/手册/files"

    def status(name: str, content: bytes) -> int:
        return httpx.post(files, files={"file": (name, content)}, timeout=60).status_code

    with monkeypatch.context() as patch:
        patch.setattr(bounds, "UPLOAD_BYTES", 1000)
        assert status("large.txt", bytes(100_000)) == 413
    with monkeypatch.context() as patch:
        patch.setattr(bounds, "BASE_BYTES", 100)
        assert status("more.txt", bytes(100)) == 413
        assert status("安全.txt", TEXT.encode("gb18030")) == 202  # in its own place there is room
    with monkeypatch.context() as patch:
        patch.setattr(bounds, "FILES", 1)
        assert status("another.txt", b"x") == 413
    with monkeypatch.context() as patch:
        patch.setattr(bounds, "WAITING", 0)
        assert status("later.txt", b"x") == 429
    with monkeypatch.context() as patch:
        patch.setattr(bounds, "BASES", 1)
        assert httpx.post(f"{url}/v1/knowledge", json={"name": "多"}).status_code == 413
    (file,) = httpx.get(files).json()["data"]
    assert file["name"] == "安全.txt"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("route", ["ask", "summarise"])
def test_a_stream_that_takes_too_long_ends_with_an_error(write: Writer, tmp_path: Path, route: str) -> None:
    engine = ScriptedEngine(write.say("灭火器在门口右侧。" * 200), context=4096, delay=0.05)
    with (
        Shelf(tmp_path) as shelf,
        Assistant(write.form, engine) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant}, knowledge=shelf, timeout=3) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        fill(client, "手册")
        body = {"stream": True} if route == "summarise" else {"stream": True, "question": "灭火器放在哪里？"}
        told = events_of(client.post(f"/v1/knowledge/手册/{route}", json=body).text.splitlines())
        assert len(told) > 1
        name, data = told[-1]
        assert (name, data["error"]["code"]) == ("error", "timeout")


def test_a_reader_that_leaves_ends_the_answer(write: Writer, tmp_path: Path) -> None:
    engine = ScriptedEngine(write.say("灭火器在门口右侧。" * 200), context=4096, delay=0.02)
    with (
        Shelf(tmp_path) as shelf,
        Assistant(write.form, engine) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant}, knowledge=shelf) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        fill(client, "手册")
        body = {"model": "knowledge:手册", "messages": QUESTION, "stream": True}
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            assert "passages" in next(answer.iter_lines())
        until(lambda: engine.aborted)
        assert engine.idle


def test_a_model_searches_the_bases_that_its_caller_may_read(write: Writer, tmp_path: Path) -> None:
    call = write.call(("search_knowledge", {"question": "灭火器放在哪里？"}))
    engine = ScriptedEngine(*[call, write.say("门口右侧。")] * 4, context=2048)
    with two_callers(write, engine, tmp_path) as (alice, bob, _):
        fill(alice, "手册")

        def asked(client: httpx.Client, *tools: str) -> Any:
            body = {"model": "demo", "messages": QUESTION, "server_tools": list(tools)}
            return client.post("/v1/chat/completions", json=body).json()

        for tool in ("search_knowledge", "search_knowledge:手册"):
            message = asked(alice, tool)["choices"][0]["message"]
            assert message["content"] == "门口右侧。"
            (made,) = message["server_tool_calls"]
            assert made["output"].startswith("[1] 《安全.txt》\n灭火器在门口右侧。")
            (made,) = asked(bob, tool)["choices"][0]["message"]["server_tool_calls"]
            assert made["failed"] is True
            assert "灭火器在" not in json.dumps(made, ensure_ascii=False)
        twice = asked(alice, "search_knowledge", "search_knowledge:手册")
        assert "search_knowledge is given 2 times" in twice["error"]["message"]
    with (
        Assistant(write.form, engine) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant}) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        body = {"model": "demo", "messages": QUESTION, "server_tools": ["search_knowledge:手册"]}
        assert "--knowledge" in client.post("/v1/chat/completions", json=body).json()["error"]["message"]
