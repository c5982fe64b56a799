"""What is there besides the dialects: pages, health, HEAD, OPTIONS, CORS, and hints where a path is wrong."""

from __future__ import annotations

import argparse
import contextlib
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from chatglm.assistant import Assistant
from chatglm.cli import serve
from scripted import ScriptedEngine, Writer
from server import serving

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "x"}]}


@contextlib.contextmanager
def client(write: Writer, **options: Any) -> Iterator[httpx.Client]:
    engine = ScriptedEngine(write.say("好"))
    with (
        Assistant(write.form, engine) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant, "alias": assistant}, **options) as url,
        httpx.Client(base_url=url) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def plain(write: Writer) -> Iterator[httpx.Client]:
    with client(write) as made:
        yield made


def test_pages_need_nothing_else(plain: httpx.Client) -> None:
    for path in ("/", "/docs"):
        page = plain.get(path)
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert not re.findall(r"""<script|(?:src|href)=["'](?!/|data:)|url\(|@import""", page.text)
        for target in re.findall(r'href="(/[^"]*)"', page.text):
            assert plain.get(target).status_code == 200, target
    start = plain.get("/").text
    for part in ("demo", "alias", "/v1/models", "/docs", "/health", f"{plain.base_url}/v1/chat/completions", "ChatGLM"):
        assert part in start
    assert 'lang="zh"' in start
    docs = plain.get("/docs").text
    for part in ("/v1/chat/completions", "temperature", "messages", "max_tokens", "required", "POST", "429"):
        assert part in docs
    assert plain.get("/redoc").status_code == 404


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/health", "/metrics", "/v1/models", "/v1/models/demo", "/openapi.json"]
)
def test_head_is_get_without_a_body(plain: httpx.Client, path: str) -> None:
    head, whole = plain.head(path), plain.get(path)
    assert head.status_code == whole.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == whole.headers["content-type"]
    if path != "/metrics":  # whose text changes
        assert head.headers["content-length"] == whole.headers["content-length"]
    assert plain.head("/v1/chat/completions").status_code == 405
    assert plain.head("/v1/models/other").status_code == 404


@pytest.mark.parametrize(
    "path", ["//v1/chat/completions", "/v1/v1/chat/completions", "/chat/completions", "/v1//chat/completions"]
)
def test_paths_that_are_nearly_right_are_answered(plain: httpx.Client, path: str) -> None:
    answer = plain.post(f"{str(plain.base_url).rstrip('/')}{path}", json=CHAT)
    assert answer.status_code == 200, answer.text
    assert answer.json()["object"] == "chat.completion"


def test_models_without_their_prefix(plain: httpx.Client) -> None:
    assert plain.get("/models").json() == plain.get("/v1/models").json()


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("GET", "/v1", "this is the base URL"),
        ("GET", "/v1/", "this is the base URL"),
        ("POST", "/openai/deployments/gpt-4/chat/completions", 'use POST /v1/chat/completions and "model": "gpt-4" in'),
        ("POST", "/openai/v1/chat/completions", "use POST /v1/chat/completions"),
        ("POST", "/api/chat/completions", "use POST /v1/chat/completions"),
        ("POST", "/v1/audio/speech", "this server has POST"),
        ("GET", "/redoc", "/docs"),
        ("POST", "/nothing", "/v1/completions"),
    ],
)
def test_wrong_paths_get_a_hint(plain: httpx.Client, method: str, path: str, words: str) -> None:
    answer = plain.request(method, path)
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert error["code"] == "not_found"
    assert error["message"].startswith(f"{path}: not found; ")
    assert words in error["message"]


def test_wrong_methods_are_told_the_right_one(plain: httpx.Client) -> None:
    answer = plain.get("/v1/chat/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["error"]["message"] == "GET is not allowed for /v1/chat/completions; use POST"
    options = plain.options("/v1/chat/completions")
    assert (options.status_code, options.headers["allow"]) == (204, "POST, OPTIONS")


ORIGIN = "https://chat.example"


def test_browsers_are_allowed_only_on_request(write: Writer, plain: httpx.Client) -> None:
    asking = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    asking["Access-Control-Request-Headers"] = "authorization,content-type"
    assert "access-control-allow-origin" not in plain.options("/v1/chat/completions", headers=asking).headers
    assert "access-control-allow-origin" not in plain.get("/v1/models", headers={"Origin": ORIGIN}).headers
    for origins in ([ORIGIN], ["*"]):
        with client(write, origins=origins) as browser:
            answer = browser.options("/v1/chat/completions", headers=asking)
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == origins[0]
            assert "content-type" in answer.headers["access-control-allow-headers"].lower()
            answer = browser.post("/v1/chat/completions", json={**CHAT, "store": None}, headers={"Origin": ORIGIN})
            assert answer.headers["access-control-allow-origin"] == origins[0]
            assert "X-Chatglm-Ignored" in answer.headers["access-control-expose-headers"]
            wrong = browser.post("/v1/chat/completions", content=b"{", headers={"Origin": ORIGIN})
            assert (wrong.status_code, wrong.headers["access-control-allow-origin"]) == (400, origins[0])
            other = browser.get("/v1/models", headers={"Origin": "https://other.example"})
            assert ("access-control-allow-origin" in other.headers) == (origins == ["*"])


def test_only_names_of_this_machine_are_answered_to(write: Writer, plain: httpx.Client) -> None:
    """Else a page whose name points to 127.0.0.1 could read what its visitor's server answers."""
    with client(write, hosts=["Chat.example"]) as made:
        port = made.base_url.port

        def status(host: str, path: str = "/v1/models") -> int:
            return made.get(path, headers={"Host": host}).status_code

        for host in ("127.0.0.1", "localhost", "LOCALHOST.", "[::1]", "127.0.0.2", "chat.example", "CHAT.example"):
            for one in (host, f"{host}:{port}", f"{host}:1"):
                assert status(one) == 200, one
        for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "0.0.0.0"):
            for path in ("/", "/health", "/metrics", "/openapi.json", "/v1/models", "/nowhere"):
                assert status(host, path) == 403, (host, path)
            refused = made.post("/v1/chat/completions", json=CHAT, headers={"Host": host})
            assert refused.status_code == 403
            assert "`--allow-host NAME`" in refused.json()["error"]["message"]
        assert made.post("/v1/chat/completions", json=CHAT).status_code == 200
        with socket.create_connection(("127.0.0.1", port)) as old:  # a browser always says for which host it asks
            old.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            assert old.recv(100).split()[1] == b"200"
    assert plain.get("/v1/models", headers={"Host": "chat.example"}).status_code == 200


@pytest.mark.parametrize(
    ("given", "local", "keyed", "names"),
    [
        ([], True, False, ["localhost"]),
        ([], True, True, []),
        ([], False, False, []),
        (["a.example"], True, True, ["a.example", "localhost"]),
        (["a.example"], False, False, ["a.example", "localhost"]),
    ],
)
def test_names_are_checked_where_no_key_is_needed(given: list[str], local: bool, keyed: bool, names: list[str]) -> None:
    arguments = argparse.Namespace(allow_host=given)
    assert list(serve._hosts(arguments, local=local, keyed=keyed)) == names


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/v1/files", {"files": {"file": ("a.txt", b"x")}, "data": {"purpose": "user_data"}}),
        ("/api/paas/v4/files", {"files": {"file": ("a.txt", b"x")}, "data": {"purpose": "user_data"}}),
        ("/", {"content": b'{"prompt": "x"}', "headers": {"Content-Type": "application/x-www-form-urlencoded"}}),
        ("/", {"content": b'{"prompt": "x"}'}),
    ],
    ids=["files", "v4 files", "form", "no type"],
)
def test_pages_of_other_sites_cannot_send_what_browsers_send_without_asking(
    plain: httpx.Client, write: Writer, path: str, options: dict[str, Any]
) -> None:
    """Of forms and bodies without a type, a browser does not ask first (CORS) whether the page may send them."""

    def status(browser: httpx.Client, origin: str | None) -> int:
        more = {} if origin is None else {"Origin": origin}
        return browser.post(path, **{**options, "headers": {**options.get("headers", {}), **more}}).status_code

    own = str(plain.base_url).rstrip("/")
    assert [status(plain, origin) for origin in (None, own, ORIGIN, "null")] == [200, 200, 403, 403]
    with client(write, origins=[ORIGIN]) as browser:
        assert [status(browser, origin) for origin in (ORIGIN, "https://other.example")] == [200, 403]
