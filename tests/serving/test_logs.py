"""Log lines: one for each request, without users' text, which nobody can forge or block."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import threading
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatglm.assistant import Assistant
from chatglm.serving import logs
from chatglm.serving.access.key_sources import written
from chatglm.serving.access.keys import Keyring
from chatglm.serving.logs import LineWriter
from scripted import ScriptedEngine, Writer
from server import serving
from waiting import until

ALICE = "alice.0123456789abcdef"
SECRET = "天机不可泄露"
CHAT = {"messages": [{"role": "user", "content": SECRET}]}


class Fixed:
    def changed(self) -> bool:
        return False

    def credentials(self) -> Any:
        return written([({"key": ALICE, "name": "alice", "models": ["demo"]}, "entry")], "test")


class Lines(logging.Handler):
    """What is logged of requests."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def last(self, count: int = 1) -> dict[str, Any]:
        """The last one, when there are so many. (A line is written after the client has the response.)"""
        until(lambda: len(self.records) >= count)
        assert len(self.records) == count
        fields: dict[str, Any] = self.records[-1].request  # type: ignore[attr-defined]
        return fields


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, logger = Lines(), logging.getLogger("chatglm.requests")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@contextlib.contextmanager
def client(write: Writer, words: str = "好 好 好", delay: float = 0, **options: Any) -> Iterator[httpx.Client]:
    engine = ScriptedEngine(write.say(words), pace=1, delay=delay, context=1 << 16)
    with (
        Assistant(write.form, engine) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant, "other": assistant}, keys=Keyring([Fixed()]), **options) as url,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {ALICE}"}, timeout=60) as made,
    ):
        yield made


@pytest.mark.parametrize("stream", [False, True])
def test_a_line_has_what_is_known_and_no_text(write: Writer, lines: Lines, stream: bool) -> None:
    with client(write) as http:
        answer = http.post("/v1/chat/completions", json={**CHAT, "stream": stream}, headers={"X-Request-ID": "mine-1"})
        assert answer.headers["x-request-id"] == "mine-1"
        fields = lines.last()
    assert fields.pop("ms") >= fields.pop("first_ms") >= 0
    prompt = fields.pop("prompt_tokens")
    assert prompt > 3
    assert fields == {
        "id": "mine-1",
        "method": "POST",
        "dialect": "openai",
        "route": "/v1/chat/completions",
        "status": 200,
        "key": "alice",
        "model": "demo",
        "cached_tokens": 1,
        "completion_tokens": write.counted("好 好 好"),
    }
    assert SECRET not in str(lines.records[-1].__dict__)


def test_lines_of_refusals(write: Writer, lines: Lines) -> None:
    with client(write) as http:
        http.post("/v1/chat/completions", json=CHAT, headers={"Authorization": "Bearer wrong-key-here"})
        fields = lines.last(1)
        assert (fields["status"], fields["code"], fields["path"]) == (401, "invalid_api_key", "/v1/chat/completions")
        assert "key" not in fields
        http.post("/v1/chat/completions", json={**CHAT, "model": "other"})
        fields = lines.last(2)
        assert (fields["status"], fields["code"], fields["key"]) == (403, "permission_denied", "alice")
        assert "model" not in fields
        http.get("/v1/models/nothing")
        assert lines.last(3)["route"] == "/v1/models/{name}"
        http.get("/health")
        http.get("/v1/nothing")
        fields = lines.last(4)  # none for /health
        assert (fields["status"], fields["path"]) == (404, "/v1/nothing")


def test_a_reader_that_leaves(write: Writer, lines: Lines) -> None:
    with client(write, "word " * 400, 0.005) as http:
        with http.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
            next(answer.iter_lines())
        fields = lines.last()
    assert (fields["status"], fields["ended"]) == (200, "broken off")
    assert 1 <= fields["completion_tokens"] < 400


@pytest.mark.parametrize("sent", ["a b", "x" * 129, "id\x7f", "ид", '"', ""])
def test_request_ids_of_clients_are_taken_if_they_are_plain(write: Writer, sent: str) -> None:
    with client(write) as http:
        answer = http.get("/health", headers=[(b"x-request-id", sent.encode())])
    assert re.fullmatch(r"req_[0-9a-f]{24}", answer.headers["x-request-id"])


def test_texts_only_if_they_are_asked_for(write: Writer, lines: Lines) -> None:
    with client(write, "word " * 1000, log_text=True) as http:
        http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": SECRET + "x" * 5000}]})
        fields = lines.last()
    assert SECRET in fields["asked"]
    assert fields["answered"].startswith("word word")
    assert len(fields["asked"]) == len(fields["answered"]) == 2000


# Lines


def shown(style: str, message: str, **fields: Any) -> str:
    formatter: logging.Formatter = {"text": logs._TextFormatter, "json": logs._JSONFormatter}[style]()
    record = logging.LogRecord("chatglm.requests", logging.INFO, "", 0, message, None, None)
    record.request = fields
    return formatter.format(record)


@given(st.sampled_from(["text", "json"]), st.text(max_size=30), st.text(max_size=30))
def test_no_text_can_forge_a_line_or_steer_a_terminal(style: str, message: str, value: str) -> None:
    line = shown(style, message, path=value, status=200)
    assert len(line.splitlines()) == 1
    assert not {unicodedata.category(character) for character in line} & {"Cc", "Zl", "Zp", "Cs"}
    if style == "json":
        assert json.loads(line)["path"] == value
    else:
        assert line.endswith(" status=200")
        assert line.count(" path=") == 1 + message.count(" path=") + value.count(" path=")


def test_a_traceback_is_no_line_of_its_own() -> None:
    try:
        raise ValueError("first\nrequest id=forged status=200")
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "failed", None, (ValueError, error, error.__traceback__))
    lines = logs._TextFormatter().format(record).split("\n")
    assert len(lines) > 3
    assert all(line.startswith("    ") for line in lines[1:])
    assert "traceback" in json.loads(logs._JSONFormatter().format(record))


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


def drained(descriptor: int, whole: Callable[[bytes], bool]) -> bytes:
    data = b""
    while not whole(data):
        data += os.read(descriptor, 1 << 16)
    return data


def test_a_reader_that_does_not_read_costs_lines_and_not_time(pipe: tuple[int, int]) -> None:
    handler = LineWriter(pipe[1], waiting=50)
    handler.setFormatter(logs._TextFormatter())
    record = logging.LogRecord("x", logging.INFO, "", 0, "x" * 1000, None, None)
    done = threading.Event()

    def write() -> None:
        for _ in range(1000):
            handler.emit(record)
        done.set()

    threading.Thread(target=write, daemon=True).start()
    assert done.wait(60)  # nobody reads, and nobody waits
    assert handler.dropped > 500
    seen = drained(pipe[0], lambda data: data.count(b"xxx\n") == 1000 - handler.dropped)
    handler.emit(record)
    rest = drained(pipe[0], lambda data: data.endswith(b"xxx\n"))
    told = re.findall(rb"WARNING the reader of the log was too slow; lines dropped here: (\d+)", seen + rest)
    assert sum(map(int, told)) == handler.dropped
    assert (seen + rest).count(b"\n") == 1001 - handler.dropped + len(told)
    handler.close()


def test_the_last_lines_are_written_at_the_end_and_a_closed_pipe_is_no_error(pipe: tuple[int, int]) -> None:
    handler = LineWriter(pipe[1])
    handler.setFormatter(logs._JSONFormatter())
    record = logging.LogRecord("x", logging.INFO, "", 0, "the last", None, None)
    for _ in range(100):
        handler.emit(record)
    handler.close()
    assert os.read(pipe[0], 1 << 16).count(b"the last") == 100
    again = LineWriter(pipe[1])
    os.close(pipe[0])
    again.emit(record)
    again.close()
