"""Documents over HTTP: bases of one's own, and chat completions that say what they rest on."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from chatglm.assistant import Assistant
from chatglm.knowledge import Shelf
from chatglm.serving import knowledge
from chatglm.serving.access.key_sources import Texts
from chatglm.serving.access.keys import Keyring
from scripted import ScriptedEngine, Writer
from server import serving

TEXT = "灭火器在门口右侧。离开实验室前须关闭气阀和电源。\n"
QUESTION: list[Any] = [{"role": "user", "content": "灭火器放在哪里？"}]
ALICE, BOB = "alice.0123456789abcdef", "bob.fedcba9876543210"


def ready(client: httpx.Client, base: str) -> dict[str, Any]:
    end = time.monotonic() + 60
    while True:
        (file,) = client.get(f"/v1/knowledge/{base}/files").json()["data"]
        if file["state"] in ("ready", "failed"):
            return dict(file)
        assert time.monotonic() < end
        time.sleep(0.05)


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


@pytest.mark.parametrize("how", [{"model": "knowledge:手册"}, {"model": "demo", "extra_body": {"knowledge": ["手册"]}}])
def test_openais_client_gets_citations_streamed_and_not(url: str, how: dict[str, Any]) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="x") as client:
        whole = client.chat.completions.create(messages=QUESTION, **how)
        message: Any = whole.choices[0].message
        assert message.content == "灭火器在门口右侧。[1]"
        assert message.answered is True
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
        ({"model": "knowledge:没有"}, 404, "there is none"),
        ({"model": "knowledge:"}, 400, "names no base"),
        ({"model": "knowledge:../x"}, 400, "a name has"),
        ({"model": "knowledge:手册", "knowledge": ["手册"]}, 400, "has the bases already"),
        ({"model": "demo", "knowledge": ["手册"], "n": 2}, 400, "n: answers from documents"),
        ({"model": "demo", "knowledge": ["手册"], "logprobs": True}, 400, "logprobs: answers"),
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
    keys = Keyring([Texts([ALICE, BOB], "test")])
    engine = ScriptedEngine(write.say("灭火器在门口右侧。"), context=2048)
    with (
        Shelf(tmp_path) as shelf,
        Assistant(write.form, engine) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant}, knowledge=shelf, keys=keys) as url,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {ALICE}"}, timeout=60) as alice,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {BOB}"}, timeout=60) as bob,
    ):
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
        patch.setattr(knowledge, "_FILE_BYTES", 1000)
        assert status("large.txt", bytes(100_000)) == 413
    with monkeypatch.context() as patch:
        patch.setattr(knowledge, "_BASE_BYTES", 100)
        assert status("more.txt", bytes(100)) == 413
        assert status("安全.txt", TEXT.encode("gb18030")) == 202  # in its own place there is room
    with monkeypatch.context() as patch:
        patch.setattr(knowledge, "_FILES", 1)
        assert status("another.txt", b"x") == 413
    with monkeypatch.context() as patch:
        patch.setattr(knowledge, "_WAITING", 0)
        assert status("later.txt", b"x") == 429
    with monkeypatch.context() as patch:
        patch.setattr(knowledge, "_BASES", 1)
        assert httpx.post(f"{url}/v1/knowledge", json={"name": "多"}).status_code == 413
    (file,) = httpx.get(files).json()["data"]
    assert file["name"] == "安全.txt"
    assert not list(tmp_path.iterdir())


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
        end = time.monotonic() + 30
        while not engine.aborted:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert engine.idle
