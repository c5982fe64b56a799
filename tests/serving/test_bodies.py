"""Bodies: what is too large, too deep, too much or no JSON is refused with the reason, in every dialect."""

from __future__ import annotations

import gzip
import json
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from chatglm.serving.bodies import BodyError, Limits, parse_now
from scripted import Writer

ROUTES = {
    "/v1/chat/completions": b'"model": "demo", "messages": [{"role": "user", "content": "x"}]',
    "/v1/completions": b'"model": "demo", "prompt": "x"',
    "/": b'"prompt": "x"',
}
JSON = {"content-type": "application/json"}
LIMIT = (16 * 512) + (1 << 20)  # the scripted engine's context is 512 tokens


def message_of(answer: httpx.Response) -> str:
    body = answer.json()
    return body["error"] if isinstance(body["error"], str) else body["error"]["message"]


WRONG = (
    (b"", "the body is not JSON: expecting property name enclosed in double quotes at character"),
    (b'"a": NaN}', "the body has NaN, which is not JSON"),
    (b'"a": -Infinity}', "the body has -Infinity, which is not JSON"),
    (b'"a": 1e999}', "the number 1e999, which is too large"),
    (b'"a": 1' + b"0" * 5000 + b"}", "an integer of 5001 digits"),
    (b'"a": ' + b"[" * 101 + b"]" * 101 + b"}", "a: arrays and objects are nested too deeply"),
    (b'"tools": ' + b"[" * 500 + b"]" * 500 + b"}", "tools: arrays and objects are nested too deeply"),
    (b'"a": ' + b'{"b":' * 30_000 + b"1" + b"}" * 30_001, "nested too deeply"),
    (b'"a": ' + b"[" * 30_000, "nested too deeply"),
    (b'"a": ' + b"[" * 100_000, "the body has too many values (100,00"),
    (b'"stop": [' + b'"a",' * 100_000 + b'"a"]}', "stop: too many items (100,001)"),
    (b'"prompts": [' + b'"a",' * 20_000 + b'"a"]}', "prompts: too many items (20,001)"),
    (b'"turns": [' + b'{"role":""},' * 30_000 + b"{}]}", "turns: too many items (30,001)"),
    (b'"a": [' + (b"[" + b'"",' * 2000 + b'""],') * 20 + b"0]}", "the body has too many values"),
    (b'"a": 1, "a": 2}', "the key 'a' twice"),
    (b'"a": "\\ud800"}', "half of a surrogate pair (\\ud800)"),
    (b'"a": {"\\udc00": 1}}', "half of a surrogate pair (\\udc00)"),
    (b'"a": "\xed\xa0\x80"}', "not UTF-8 (byte 0xED at offset"),
    (b'"a": "' + "你好".encode("gb18030") + b'"}', "it looks like GBK"),
    (b'"a": "\x00"}', "invalid control character at character"),
    (b"\"a\": 'b'}", "expecting value at character"),
)


def test_each_is_told_apart(over: Any, write: Writer) -> None:
    url, engine = over(write.say("好"))
    with httpx.Client(base_url=url, headers=JSON) as client:
        for more, words in WRONG:
            for route, begin in ROUTES.items():
                answer = client.post(route, content=b"{" + begin + b", " + more)
                assert answer.status_code == 400, answer.text
                assert words in message_of(answer)
                assert answer.json().keys() == ({"error"} if route != "/" else {"status", "error", "time"})
    assert engine.asked == []


WHOLE: tuple[tuple[bytes, dict[str, str], int, str], ...] = (
    (b"", JSON, 400, "the body is empty"),
    (b" \n", JSON, 400, "the body is empty"),
    (b"[]", JSON, 400, "must be a JSON object, got an array"),
    (b"null", JSON, 400, "must be a JSON object, got null"),
    ('{"prompt": "x"}'.encode("utf-16"), JSON, 400, "it looks like UTF-16"),
    (gzip.compress(b"{}"), {**JSON, "content-encoding": "gzip"}, 415, "Content-Encoding: 'gzip' is not supported"),
    (b"{}", {"content-type": "text/plain"}, 400, "sent with Content-Type: application/json; Content-Type is text"),
    (b"{" + b" " * LIMIT + b"}", JSON, 413, f"takes at most {LIMIT:,} bytes"),
)


def test_whole_bodies(over: Any, write: Writer) -> None:
    url, engine = over(write.say("好"))
    with httpx.Client(base_url=url) as client:
        for content, headers, status, words in WHOLE:
            for route in ROUTES:
                answer = client.post(route, content=content, headers=headers)
                assert answer.status_code == status, answer.text
                assert words in message_of(answer)
    assert engine.asked == []


def test_what_is_right_is_taken(over: Any, write: Writer) -> None:
    url, engine = over(write.say("好"))
    for route, begin in ROUTES.items():
        body = b"{" + begin + b', "temperature": 1e0, "top_p": 0.5}'
        accepted = [
            (body, JSON),
            (b"\xef\xbb\xbf" + body, JSON),
            (body.replace(b"x", b"\\ud83d\\ude42"), {"content-type": "application/json; charset=utf-8"}),
            (body, {"content-type": "application/vnd.api+json", "content-encoding": "identity"}),
        ]
        if route == "/":  # as the official server did
            accepted += [(body, {}), (body, {"content-type": "application/x-www-form-urlencoded"})]
        for content, headers in accepted:
            answer = httpx.post(url + route, content=content, headers=headers)
            assert answer.status_code == 200, answer.text
    assert len(engine.asked) == 14
    ids = json.dumps({"model": "demo", "prompt": [[7] * 300] * 3}).encode()  # ids are many, and no items
    assert httpx.post(f"{url}/v1/completions", content=ids, headers=JSON).status_code == 200


def raw(url: str, head: str) -> socket.socket:
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=60)
    connection.sendall(head.replace("\n", "\r\n").encode())
    return connection


def answer_to(connection: socket.socket) -> bytes:
    data = b""
    while part := connection.recv(65536):
        data += part
    return data


HEAD = "POST {} HTTP/1.1\nHost: x\nContent-Type: application/json\nConnection: close\n"


def test_what_is_too_large_is_not_read(over: Any, write: Writer) -> None:
    """By its length at once; without one, as soon as it is too much. Who asks whether to send is told not to."""
    url, _ = over(write.say("好"))
    for route in ROUTES:
        with raw(url, HEAD.format(route) + "Content-Length: 50000000\n\n") as connection:
            answer = answer_to(connection)
            assert answer.startswith(b"HTTP/1.1 413"), answer
            assert b"at most" in answer
        with raw(url, HEAD.format(route) + "Content-Length: 50000000\nExpect: 100-continue\n\n") as connection:
            assert answer_to(connection).startswith(b"HTTP/1.1 413")
        with raw(url, HEAD.format(route) + "Transfer-Encoding: chunked\n\n") as connection:
            chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
            for _ in range(LIMIT // 65536 + 1):
                connection.sendall(chunk)
            assert answer_to(connection).startswith(b"HTTP/1.1 413")


def test_who_asks_first_is_told_to_go_on(over: Any, write: Writer) -> None:
    url, _ = over(write.say("好"))
    body = b'{"prompt": "x"}'
    with raw(url, HEAD.format("/") + f"Content-Length: {len(body)}\nExpect: 100-continue\n\n") as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 100")
        connection.sendall(body)
        assert answer_to(connection).startswith(b"HTTP/1.1 200")


def test_long_bodies_end() -> None:
    """A megabyte made to be slow to read. (What takes quadratic time does not end here.)"""
    limits, size = Limits(), 1 << 20
    for text in (
        b'{"a":' * (size // 5),
        b'{"a":' + b"[" * size,
        b'{"a":[' + b"[]," * (size // 3) + b"[]]}",
        b'{"a":"' + b"\\[" * size + b'"',
        b'{"a":' + b"9" * size + b"}",
        b'{"a":0.' + b"9" * size + b"]",
        b'{"a":"' + b"\\u0041" * (size // 6) + b'"',
        b'{"a":"' + b"\\ud800" * (size // 6) + b'"}',
        b"{" + b",".join(b'"%d":""' % n for n in range(size // 12)) + b"}",
    ):
        with pytest.raises(BodyError):
            parse_now(text, limits)
    brackets = "[{" * limits.values + '\\"'
    assert parse_now(json.dumps({"a": brackets}).encode(), limits) == {"a": brackets}


def test_hints_are_ignored_and_listed(over: Any, write: Writer) -> None:
    url, _ = over(write.say("好"))
    more = {"store": True, "metadata": {"a": "b"}, "ignore_eos": False, "colour": None}
    answer = httpx.post(url, json={"prompt": "x", **more})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-chatglm-ignored"] == "store, metadata, ignore_eos"
    assert "x-chatglm-ignored" not in httpx.post(url, json={"prompt": "x"}).headers
    for wrong, words in (
        ({"ignore_eos": True}, "only false is supported"),
        ({"best_of": 2}, "only 1 is supported"),
        ({"best_of": True}, "only 1 is supported"),
        ({"colour": "red"}, "unknown field"),
    ):
        answer = httpx.post(url, json={"prompt": "x", **wrong})
        assert answer.status_code == 400
        assert f"{next(iter(wrong))}: {words}" in answer.json()["error"]
    history = [{"role": "user", "content": "a", "name": "bob"}, {"role": "assistant", "content": "b", "id": "m1"}]
    answer = httpx.post(url, json={"prompt": "x", "history": history})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-chatglm-ignored"] == "messages.name, messages.id"
