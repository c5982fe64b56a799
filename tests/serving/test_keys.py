"""API keys: who gets in, what they may do, and where keys come from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from chatglm.assistant import Assistant
from chatglm.errors import InputError
from chatglm.serving.keys import Keyring, Texts, written
from scripted import ScriptedEngine, Writer
from server import serving

ALICE, BOB, PLAIN = "alice.0123456789abcdef", "bob.fedcba9876543210", "sk-plain-text-without-a-dot"
CHAT = {"messages": [{"role": "user", "content": "x"}]}


class Fixed:
    """A source whose keys a test sets."""

    def __init__(self, *entries: dict[str, Any]) -> None:
        self.set(*entries)

    def set(self, *entries: dict[str, Any]) -> None:
        self.found, self.new = written([(entry, "entry") for entry in entries], "test"), True

    def changed(self) -> bool:
        return self.new

    def credentials(self) -> Any:
        self.new = False
        return self.found


@contextlib.contextmanager
def server(write: Writer, keys: Keyring | None, **options: Any) -> Iterator[httpx.Client]:
    engine = ScriptedEngine(write.say("好"))
    with (
        Assistant(write.form, engine) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant, "other": assistant}, keys=keys, **options) as url,
        httpx.Client(base_url=url) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def guarded(write: Writer) -> Iterator[httpx.Client]:
    keys = Keyring(
        [
            Fixed(
                {"key": ALICE, "name": "alice", "models": frozenset({"other"})},
                {"key": BOB, "name": "bob", "may": frozenset({"metrics"})},
                {"key": PLAIN, "name": "plain"},
                {"key": "late.0123456789abcdef", "name": "late", "expires": 1e9},
            )
        ]
    )
    with server(write, keys) as client:
        yield client


@pytest.mark.parametrize("key", [BOB, PLAIN])
@pytest.mark.parametrize(
    "header",
    ["Authorization: Bearer {}", "authorization: bearer  {}", "Authorization: {}", "X-API-Key: {}", "api-key: {}"],
)
def test_a_key_is_taken_from_every_usual_header(guarded: httpx.Client, key: str, header: str) -> None:
    name, _, value = header.format(key).partition(": ")
    answer = guarded.post("/v1/chat/completions", json=CHAT, headers={name: value})
    assert answer.status_code == 200, answer.text


def test_a_dummy_in_another_header_does_not_matter(guarded: httpx.Client) -> None:
    headers = {"Authorization": "Bearer EMPTY", "x-api-key": BOB}
    assert guarded.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (None, "missing_api_key"),
        ("", "missing_api_key"),
        ("Bearer", "missing_api_key"),
        ("Bearer alice.0123456789abcdeg", "invalid_api_key"),
        ("Bearer alice.", "invalid_api_key"),
        ("Bearer alice", "invalid_api_key"),
        ("Bearer nobody.0123456789abcdef", "invalid_api_key"),
        ("Bearer .0123456789abcdef", "invalid_api_key"),
        (f"Bearer {ALICE} {ALICE}", "invalid_api_key"),
        (f"Bearer {ALICE.upper()}", "invalid_api_key"),
        (f"Basic {ALICE}", "invalid_api_key"),
        ("Bearer " + "x" * 9000, "invalid_api_key"),
        (b"Bearer \xff\xfe\x80", "invalid_api_key"),
        ("Bearer late.0123456789abcdef", "expired_api_key"),
    ],
)
def test_others_are_refused_in_the_shape_of_the_dialect(
    guarded: httpx.Client, sent: str | bytes | None, code: str
) -> None:
    headers = {} if sent is None else {b"Authorization": sent if isinstance(sent, bytes) else sent.encode()}
    answer = guarded.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("authentication_error", code, None)
    assert "0123456789abcde" not in answer.text
    old = guarded.post("/", json={"prompt": "x"}, headers=headers)
    assert old.status_code == 401
    assert old.json()["error"] == error["message"]


def test_pages_and_health_need_no_key(guarded: httpx.Client) -> None:
    for path in ("/", "/docs", "/openapi.json", "/health"):
        assert guarded.get(path).status_code == 200
        assert guarded.head(path).status_code == 200
    assert guarded.options("/v1/chat/completions").status_code == 204
    for method, path in (
        ("GET", "/metrics"),
        ("GET", "/v1/models"),
        ("GET", "/nothing"),
        ("POST", "/"),
        ("PUT", "/docs"),
    ):
        assert guarded.request(method, path).status_code == 401, path


def test_models_that_a_key_may_not_use(guarded: httpx.Client) -> None:
    headers = {"Authorization": f"Bearer {ALICE}"}
    assert [model["id"] for model in guarded.get("/v1/models", headers=headers).json()["data"]] == ["other"]
    answer = guarded.post("/v1/chat/completions", json={**CHAT, "model": "demo"}, headers=headers)
    assert answer.status_code == 403
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("permission_denied", "model")
    assert "it may use: other" in error["message"]
    unknown = guarded.post("/v1/chat/completions", json={**CHAT, "model": "third"}, headers=headers)
    assert unknown.status_code == 404
    assert "demo" not in unknown.text
    answer = guarded.post("/v1/chat/completions", json=CHAT, headers=headers)  # the first that it may use
    assert answer.json()["model"] == "other"


@pytest.mark.parametrize("path", ["/metrics", "//metrics"])
def test_figures_are_for_keys_that_may(guarded: httpx.Client, path: str) -> None:
    url = f"{str(guarded.base_url).rstrip('/')}{path}"
    assert guarded.get(url, headers={"api-key": BOB}).status_code == 200
    answer = guarded.get(url, headers={"api-key": PLAIN})
    assert answer.status_code == 403
    assert "--may metrics" in answer.json()["error"]["message"]


def test_figures_may_be_open(write: Writer) -> None:
    with server(write, Keyring([Texts([BOB], "test")]), open_metrics=True) as client:
        assert client.get("/metrics").status_code == 200
        assert client.post("/metrics").status_code == 401


def test_a_removed_key_is_refused_soon(write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatglm.serving.keys._LOOK", 0.0)
    source = Fixed({"key": ALICE}, {"key": BOB})
    keys = Keyring([source])
    with server(write, keys) as client:
        assert client.get("/v1/models", headers={"api-key": ALICE}).status_code == 200
        source.set({"key": BOB})
        assert client.get("/v1/models", headers={"api-key": ALICE}).status_code == 401
        assert client.get("/v1/models", headers={"api-key": BOB}).status_code == 200
        source.set()
        assert client.get("/v1/models", headers={"api-key": BOB}).status_code == 401  # and not: open to all


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["short"], "test: key 1: has 5 characters"),
        (["x" * 513], "has 513 characters"),
        (["with blanks in it"], "without blanks"),
        (["ключ-0123456789"], "ASCII"),
        (["same.0123456789", "same.abcdefghij"], "test: key 2: another key has the same id"),
        ([PLAIN, PLAIN], "test: key 2"),
    ],
)
def test_texts_that_cannot_be_keys(texts: list[str], words: str) -> None:
    with pytest.raises(InputError) as caught:
        Texts(texts, "test")
    assert words in str(caught.value)
    assert texts[-1] not in str(caught.value)
