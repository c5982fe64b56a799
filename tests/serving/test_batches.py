"""Files and batches, with OpenAI's client against a real server."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from chatglm.assistant import Assistant
from chatglm.encoders import Embedder
from chatglm.serving.connections import Server
from chatglm.serving.service import Service
from chatglm.serving.stored import background, files
from chatglm.serving.stored.files import FileLimits
from scripted import ScriptedEngine, Writer
from server import serving
from tiny_encoders import WIDTH, make_sentence
from waiting import until

CHAT = "/v1/chat/completions"


def line(number: int | str, body: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    chat = {"model": "demo", "messages": [{"role": "user", "content": "你好"}], "max_tokens": 8}
    return {"custom_id": f"id {number}", "method": "POST", "url": CHAT, "body": chat | (body or {}), **more}


def jsonl(*lines: Any) -> bytes:
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in lines).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Service]]:
    """A server with the demo model, and one for embeddings."""
    servers: list[Server] = []
    with (
        Assistant.load(dtype="float32") as assistant,
        Embedder.load(make_sentence(tmp_path_factory.mktemp("encoders") / "m")) as encoder,
        serving(
            {"demo": assistant}, encoders={"tiny": encoder}, servers=servers, home=tmp_path_factory.mktemp("home")
        ) as url,
    ):
        yield url, servers[0]._service


@pytest.fixture
def client(server: tuple[str, Service]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server[0]}/v1", api_key="any", max_retries=0) as made:
        yield made


def ended(client: openai.OpenAI, batch: Any) -> Any:
    def look() -> Any:
        found = client.batches.retrieve(batch.id)
        return found if found.status in ("completed", "failed", "expired", "cancelled") else None

    return until(look, pause=0.05)


def begun(client: openai.OpenAI, content: bytes, endpoint: Any = CHAT, **options: Any) -> Any:
    file = client.files.create(file=("in.jsonl", io.BytesIO(content)), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **options)


def lines(client: openai.OpenAI, file: str | None) -> dict[str, Any]:
    assert file is not None
    found = [json.loads(each) for each in client.files.content(file).text.splitlines()]
    assert len({each["custom_id"] for each in found}) == len(found)
    return {each["custom_id"]: each for each in found}


def test_a_batch_with_the_openai_package(client: openai.OpenAI) -> None:
    content = jsonl(line(1), line(2, {"messages": []}), line(3, {"n": 2}), line(4, {"model": "gpt-9"}))
    batch = begun(client, content, metadata={"for": "测试"})
    assert batch.status in ("validating", "in_progress")
    done = ended(client, batch)
    assert done.status == "completed"
    assert done.metadata == {"for": "测试"}
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (4, 2, 2)
    assert done.created_at <= done.in_progress_at <= done.finalizing_at <= done.completed_at
    good, bad = lines(client, done.output_file_id), lines(client, done.error_file_id)
    assert list(good) == ["id 1", "id 3"]
    assert list(bad) == ["id 2", "id 4"]
    direct = client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "你好"}], max_tokens=8)
    response = good["id 1"]["response"]
    assert response["status_code"] == 200
    assert response["body"]["object"] == "chat.completion"
    assert good["id 1"]["error"] is None
    assert len(good["id 3"]["response"]["body"]["choices"]) == 2
    assert response["body"]["usage"]["prompt_tokens"] == direct.usage.prompt_tokens  # type: ignore[union-attr]
    assert [bad[name]["response"]["status_code"] for name in bad] == [400, 404]
    assert bad["id 2"]["response"]["body"]["error"]["param"] == "messages"
    listed = client.batches.list(limit=1)
    assert listed.data[0].id == batch.id
    about = client.files.retrieve(done.output_file_id)
    assert (about.purpose, about.filename) == ("batch_output", f"{batch.id}_output.jsonl")
    assert about.bytes == len(client.files.content(about.id).content)


def test_embeddings(client: openai.OpenAI) -> None:
    texts = ["你好世界", "天气怎么样"]
    good = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"model": "tiny", "input": texts}}
    wrong = good | {"custom_id": "b", "body": {"model": "demo", "input": texts}}
    done = ended(client, begun(client, jsonl(good, wrong), "/v1/embeddings"))
    vectors = [one["embedding"] for one in lines(client, done.output_file_id)["a"]["response"]["body"]["data"]]
    direct = client.embeddings.create(model="tiny", input=texts)
    assert [len(vector) for vector in vectors] == [WIDTH, WIDTH]
    for got, wanted in zip(vectors, direct.data, strict=True):
        assert got == pytest.approx(wanted.embedding, abs=1e-5)
    assert lines(client, done.error_file_id)["b"]["response"]["status_code"] == 404


def test_responses(client: openai.OpenAI) -> None:
    body = {"model": "demo", "input": "你好", "temperature": 0, "max_output_tokens": 8}
    asked = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": body}
    done = ended(client, begun(client, jsonl(asked), "/v1/responses"))
    answer = lines(client, done.output_file_id)["a"]["response"]["body"]
    assert (answer["object"], answer["status"]) == ("response", "incomplete")
    direct = client.responses.create(model="demo", input="你好", temperature=0, max_output_tokens=8)
    assert answer["output"][0]["content"][0]["text"] == direct.output_text
    assert client.responses.retrieve(answer["id"]).output_text == direct.output_text


def test_completions(client: openai.OpenAI) -> None:
    asked = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "1 + 1", "max_tokens": 2}}
    done = ended(client, begun(client, jsonl(asked), "/v1/completions"))
    assert lines(client, done.output_file_id)["a"]["response"]["body"]["object"] == "text_completion"


def test_a_file_is_checked(client: openai.OpenAI) -> None:
    wrong = [
        b'{"custom_id": "a", }',
        json.dumps(line(1) | {"custom_id": 7}).encode(),
        json.dumps(line(2) | {"url": "/v1/embeddings"}).encode(),
        json.dumps(line(3)).encode(),
        json.dumps(line(3)).encode(),
        json.dumps(line(4) | {"method": "GET"}).encode(),
        json.dumps(line(5) | {"body": None}).encode(),
        b'{"custom_id": "b", "custom_id": "c"}',
        b'{"a": ' + b"[" * 3000 + b"]" * 3000 + b"}",
    ]
    failed = ended(client, begun(client, b"\n".join(wrong)))
    assert failed.status == "failed"
    assert failed.output_file_id is None
    found = {error.line: (error.code, error.param) for error in failed.errors.data}
    assert found == {
        1: ("invalid_json_line", None),
        2: ("invalid_value", "custom_id"),
        3: ("mismatched_url", "url"),
        5: ("duplicate_custom_id", "custom_id"),
        6: ("invalid_method", "method"),
        7: ("missing_required_parameter", "body"),
        8: ("invalid_json_line", None),
        9: ("invalid_json_line", None),
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "file: is empty"),
        (b"\n \n", "file: is empty"),
        (b'{"a": 1}\na,b,c\n', "line 2 is not a JSON object"),
        (b"[1]\n", "line 1 is not"),
    ],
)
def test_what_is_no_jsonl_is_refused_at_once(client: openai.OpenAI, content: bytes, words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        client.files.create(file=("in.jsonl", content), purpose="batch")


def test_lines_with_streams_and_blank_lines(client: openai.OpenAI) -> None:
    content = b"\xef\xbb\xbf" + jsonl(line(1, {"stream": True})) + b"\r\n\n" + jsonl(line("二")).strip()
    done = ended(client, begun(client, content))
    assert list(lines(client, done.output_file_id)) == ["id 二"]
    (failed,) = lines(client, done.error_file_id).values()
    assert failed["response"] is None
    assert failed["error"]["message"].startswith("stream: ")


def test_files(client: openai.OpenAI) -> None:
    content = bytes(range(256)) * 10_000  # several pieces, anything but text
    made = [client.files.create(file=(name, content), purpose="user_data") for name in ("a/../b.bin", "名 字.bin")]
    assert [file.filename for file in made] == ["b.bin", "名 字.bin"]
    assert [file.bytes for file in made] == [len(content)] * 2
    assert client.files.content(made[0].id).content == content
    assert client.files.retrieve(made[1].id).filename == "名 字.bin"
    newest = client.files.list(purpose="user_data", limit=1)
    assert [file.id for file in newest] == [made[1].id, made[0].id]  # page by page
    oldest = client.files.list(purpose="user_data", order="asc")
    assert [file.id for file in oldest.data] == [file.id for file in made]
    assert client.files.delete(made[0].id).deleted
    for act in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            act(made[0].id)
    with pytest.raises(openai.NotFoundError):
        client.files.list(after=made[0].id)


def test_a_file_that_expires(client: openai.OpenAI) -> None:
    made = client.files.create(
        file=("a", b"{}"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert made.expires_at == made.created_at + 3600
    with pytest.raises(openai.BadRequestError, match=r"expires_after\[seconds\]: must be an integer from 3600"):
        client.files.create(file=("a", b"{}"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 5})


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"files": {"file": b"x"}}, 400, "purpose: must be one of"),
        ({"data": {"purpose": "batch"}, "files": {"other": b"x"}}, 400, "a file in the field 'other'"),
        ({"files": [("file", b"x"), ("file", b"y")]}, 400, "more than one file"),
        ({"files": {"file": b"x"}, "data": {"purpose": "batch", "color": "red"}}, 400, "color: unknown field"),
        ({"files": {"file": b"x"}, "data": {"purpose": "p" * 5000}}, 400, "purpose: too long"),
        ({"files": [("file", b"x"), *((f"f{n}", (None, b"")) for n in range(20))]}, 400, "more than 16 fields"),
        ({"json": {"file": "x"}}, 400, "multipart/form-data"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, 400, "is not a form"),
        ({"content": b"--b\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, 400, "cut off"),
        (
            {"content": b"--b--\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
            400,
            "file: required",
        ),
        (
            {"content": b"x", "headers": {"Content-Type": f"multipart/form-data; boundary={'b' * 999}"}},
            400,
            "not a form",
        ),
        ({"files": {"file": b"x"}, "headers": {"Content-Encoding": "gzip"}}, 415, "gzip"),
    ],
)
def test_a_form_that_is_wrong(server: tuple[str, Service], options: dict[str, Any], status: int, words: str) -> None:
    folder = server[1].storage.files
    before = sorted(folder.iterdir())
    with httpx.Client() as client:
        request = client.build_request("POST", f"{server[0]}/v1/files", **options)
        answer = client.send(request)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]["message"]
    assert sorted(folder.iterdir()) == before


def test_a_client_that_leaves_in_the_middle_leaves_nothing(server: tuple[str, Service]) -> None:
    folder = server[1].storage.files
    before = sorted(folder.iterdir())

    def parts() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"x" * (3 << 20)
        until(lambda: len(list(folder.iterdir())) > len(before))
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        httpx.post(
            f"{server[0]}/v1/files", content=parts(), headers={"Content-Type": "multipart/form-data; boundary=b"}
        )
    until(lambda: sorted(folder.iterdir()) == before)


def test_batches_that_cannot_begin(client: openai.OpenAI) -> None:
    other = client.files.create(file=("a", b"x"), purpose="user_data")
    with pytest.raises(openai.BadRequestError, match="purpose is 'user_data'; upload it with purpose batch"):
        client.batches.create(input_file_id=other.id, endpoint=CHAT, completion_window="24h")
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.batches.create(input_file_id="file-x", endpoint=CHAT, completion_window="24h")
    with pytest.raises(openai.BadRequestError, match="completion_window: must be a time"):
        client.batches.create(input_file_id=other.id, endpoint=CHAT, completion_window="1 year")  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match="endpoint: must be one of"):
        client.batches.create(input_file_id=other.id, endpoint="/v1/images", completion_window="24h")  # type: ignore[arg-type]
    with pytest.raises(openai.NotFoundError):
        client.batches.cancel("batch_x")


@pytest.fixture
def slow(write: Writer, tmp_path: Path) -> Iterator[tuple[openai.OpenAI, Service, ScriptedEngine]]:
    """A server whose answers take a while, eight at a time."""
    servers: list[Server] = []
    engine = ScriptedEngine(write.say("a long answer " * 3), delay=0.05)
    with (
        Assistant(write.form, engine) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant}, servers=servers, home=tmp_path) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client,
    ):
        yield client, servers[0]._service, engine


def test_a_batch_is_cancelled(slow: tuple[openai.OpenAI, Service, ScriptedEngine]) -> None:
    client, _, engine = slow
    batch = begun(client, jsonl(*(line(number, {"max_tokens": None}) for number in range(50))))
    until(lambda: len(engine.asked) >= 8)
    with pytest.raises(openai.BadRequestError, match=r"is the input of batch_.*cancel it first"):
        client.files.delete(batch.input_file_id)
    assert client.batches.cancel(batch.id).status == "cancelling"
    done = ended(client, batch)
    assert done.status == "cancelled"
    good, bad = lines(client, done.output_file_id), lines(client, done.error_file_id)
    assert 8 <= len(good) < 50
    assert len(good) + len(bad) == 50
    assert {each["error"]["code"] for each in bad.values()} == {"batch_cancelled"}
    assert len(engine.asked) == len(good)
    with pytest.raises(openai.BadRequestError, match="is cancelled already"):
        client.batches.cancel(batch.id)
    client.files.delete(batch.input_file_id)


def test_a_batch_whose_time_is_over(slow: tuple[openai.OpenAI, Service, ScriptedEngine]) -> None:
    client, service, engine = slow
    batch = begun(client, jsonl(*(line(number, {"max_tokens": None}) for number in range(50))))
    until(lambda: len(engine.asked) >= 8)
    service.storage.open()[0].write("UPDATE batches SET expires = ?", (time.time(),))
    done = ended(client, batch)
    assert done.status == "expired"
    assert done.expired_at is not None
    bad = lines(client, done.error_file_id)
    assert {each["error"]["code"] for each in bad.values()} == {"batch_expired"}
    assert len(lines(client, done.output_file_id)) + len(bad) == 50


def test_an_owner_may_store_so_much(slow: tuple[openai.OpenAI, Service, ScriptedEngine]) -> None:
    client, service, _ = slow
    service.files.limits = FileLimits(count=2, bytes=1000, all_bytes=1500)
    client.files.create(file=("a", b"x" * 900), purpose="user_data")
    with pytest.raises(openai.APIStatusError, match="the stored files have 900 bytes") as caught:
        client.files.create(file=("a", b"x" * 900), purpose="user_data")
    assert caught.value.status_code == 413
    client.files.create(file=("a", b"x"), purpose="user_data")
    with pytest.raises(openai.APIStatusError, match="2 files are stored; at most 2 are allowed"):
        client.files.create(file=("a", b"x"), purpose="user_data")
    with pytest.raises((openai.APIStatusError, openai.APIConnectionError)):
        client.files.create(file=("a", b"x" * 100_000), purpose="user_data")
    assert len(client.files.list().data) == 2


def test_what_servers_left_is_deleted(
    slow: tuple[openai.OpenAI, Service, ScriptedEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, service, _ = slow
    made = client.files.create(file=("a", b"{}"), purpose="batch")
    kept = client.files.create(file=("a", b"x"), purpose="user_data")
    left = service.storage.file("file-left.part")
    left.write_bytes(b"x")
    monkeypatch.setattr(background, "_CLEAN_SECONDS", 0.05)
    monkeypatch.setattr(files, "_LEFT_SECONDS", 0)
    service.storage.open()[0].write("UPDATE files SET expires = 1 WHERE id = ?", (made.id,))
    until(lambda: [file.name for file in service.storage.files.iterdir()] == [kept.id])
    assert [file.id for file in client.files.list()] == [kept.id]
