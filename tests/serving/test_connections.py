"""Clients that are slow, half closed, too many or gone; and how a server ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from chatglm.assistant import Assistant
from chatglm.errors import InputError
from chatglm.serving.app import create_app
from chatglm.serving.bodies import Limits
from chatglm.serving.connections import BareServer, ConnectionLimits, Server, bind
from scripted import ScriptedEngine, Writer
from server import serving
from waiting import until

SHORT = ConnectionLimits(connections=8, head=0.5, idle=0.5, rest=0.5, stall=0.5)
LONG = ConnectionLimits(head=600, idle=600, rest=600, stall=600)  # longer than any test waits
CHAT = "/v1/chat/completions"
ASK = {"model": "demo", "messages": [{"role": "user", "content": "x"}]}


@pytest.fixture
def start(write: Writer) -> Iterator[Callable[..., tuple[str, ScriptedEngine, Server]]]:
    """A server over a scripted engine: its address, the engine, and itself."""
    with contextlib.ExitStack() as stack:

        def get(*replies: Any, limits: Any = LONG, drain: float = 5, **options: Any) -> Any:
            engine = ScriptedEngine(*replies, **options)
            assistant = stack.enter_context(Assistant(write.form, engine))  # type: ignore[arg-type]
            servers: list[Server] = []
            url = stack.enter_context(serving({"demo": assistant}, limits=limits, drain=drain, servers=servers))
            return url, engine, servers[0]

        yield get


def connect(url: str, size: int | None = None) -> socket.socket:
    parts = urlsplit(url)
    made = socket.socket()
    if size is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    made.settimeout(60)
    made.connect((parts.hostname, parts.port))
    return made


def rest_of(connection: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            data += part
    return data


def post(path: str, body: dict[str, Any], version: str = "1.1", more: str = "") -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/{version}\r\nHost: x\r\nContent-Type: application/json\r\n{more}"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


# Clients that wait with their side closed, and those that left


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("stream", [False, True])
def test_half_closed_clients_get_their_answer(start: Any, write: Writer, stream: bool, version: str) -> None:
    """As `nc -N` closes its side after the request."""
    url, engine, _ = start(write.say("word " * 40 + "end"), delay=0.02)
    with connect(url) as connection:
        connection.sendall(post(CHAT, {**ASK, "stream": stream}, version))
        connection.shutdown(socket.SHUT_WR)
        answer = rest_of(connection)
    assert b"HTTP/1.1 200 OK" in answer
    assert b"end" in answer
    assert answer.rstrip().endswith((b"}", b"[DONE]", b"0"))
    assert engine.aborted == []


def test_half_closed_clients_that_leave_are_noticed(start: Any, write: Writer) -> None:
    url, engine, server = start(write.say("word " * 400), delay=0.02)
    connection = connect(url)
    connection.sendall(post(CHAT, ASK))
    connection.shutdown(socket.SHUT_WR)
    until(lambda: bool(engine.running))
    time.sleep(0.5)
    assert engine.running  # it may still wait
    connection.close()
    until(lambda: len(engine.aborted) == 1 and not server.server_state.connections)


def test_pipelined_requests_are_answered_in_their_order(start: Any, write: Writer) -> None:
    url, _, _ = start(write.say("one"), write.say("two"), write.say("three"), delay=0.01)
    with connect(url) as connection:
        connection.sendall(post("/", {"prompt": "x"}) * 3)
        connection.shutdown(socket.SHUT_WR)
        answer = rest_of(connection)
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert answer.index(b'"one"') < answer.index(b'"two"') < answer.index(b'"three"')


def test_slow_readers_hold_little_and_leave_at_once(start: Any, write: Writer) -> None:
    """One that reads nothing is cut off after a while; one that leaves frees its request."""
    url, engine, server = start(write.say("word " * 100_000), pace=50, delay=0.002, context=1 << 20)
    with httpx.Client(base_url=url, timeout=60) as client:
        for leave in (True, False):
            connection = connect(url, 4096)
            connection.sendall(post(CHAT, {**ASK, "stream": True, "n": 4}))
            until(lambda: bool(engine.running))
            (running,) = [one for one in server.server_state.connections if one._running]
            until(lambda running=running: "stall" in running._timers)
            assert running.transport.get_write_buffer_size() < 1 << 18
            if leave:
                connection.close()
            else:
                running.loop.call_soon_threadsafe(running.transport.abort)  # as if its time were over
            until(lambda: not engine.running)
            assert client.get("/health").json() == {"status": "ok"}
            connection.close()


# Clients that do not come to the point


def test_stalled_connections_do_not_live_on(start: Any, write: Writer) -> None:
    url, _, server = start(write.say("one"), limits=SHORT)
    silent, head, again = connect(url), connect(url), connect(url)
    head.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n")
    again.sendall(post("/", {"prompt": "x"}))
    assert b"200 OK" in again.recv(65536)
    again.sendall(b"GET /hea")
    assert rest_of(silent) == b""
    for connection in (head, again):
        answer = rest_of(connection)
        assert b"HTTP/1.1 408" in answer
        assert b"did not arrive within" in answer
    for connection in (silent, head, again):
        connection.close()
    with connect(url) as unread:  # a body that no route reads, and that never ends
        unread.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
        assert b"200 OK" in rest_of(unread)
    until(lambda: not server.server_state.connections)


def test_headers_byte_by_byte_are_late_too(start: Any, write: Writer) -> None:
    url, _, _ = start(write.say("one"), limits=SHORT)
    with connect(url) as connection:
        begin = time.monotonic()
        with contextlib.suppress(OSError):
            for byte in b"POST / HTTP/1.1\r\nX: " + b"x" * 1000:
                connection.sendall(bytes([byte]))
                time.sleep(0.05)
        assert time.monotonic() - begin < 40  # all of it would take 50 seconds
        assert b"408" in rest_of(connection)


def test_bodies_have_a_time_limit(write: Writer) -> None:
    engine = ScriptedEngine(write.say("one"))
    with (
        Assistant(write.form, engine) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant}, body=Limits(seconds=0.5)) as url,
        connect(url) as connection,
    ):
        connection.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        )
        answer = rest_of(connection)
        assert b"HTTP/1.1 408" in answer
        told = re.search(rb"the body did not arrive in time: 1 bytes in (\d+) seconds", answer)
        assert told is not None
        assert int(told[1]) < 30  # the usual limit
        assert b'"status":408' in answer  # the shape of this dialect


def test_idle_connections_make_room(start: Any, write: Writer) -> None:
    """Many that say nothing keep nobody out."""
    url, _, server = start(write.say("one"), limits=ConnectionLimits(connections=8))
    idle = [connect(url) for _ in range(20)]
    assert httpx.post(url, json={"prompt": "x"}).status_code == 200
    assert len(server.server_state.connections) <= 8
    for connection in idle:
        connection.close()


def test_too_many_running_requests_are_told(start: Any, write: Writer) -> None:
    url, engine, _ = start(write.say("word " * 400), limits=ConnectionLimits(connections=4), delay=0.05)
    running = [connect(url) for _ in range(4)]
    for connection in running:
        connection.sendall(post(CHAT, {**ASK, "stream": True}))
    until(lambda: len(engine.running) == 4)
    for path, body in ((CHAT, ASK), ("/", {"prompt": "x"})):
        answer = httpx.post(url + path, json=body)
        assert (answer.status_code, answer.headers["connection"]) == (503, "close")
        assert int(answer.headers["retry-after"]) >= 1
        assert "too many connections" in answer.text
        assert ("status" in answer.json()) == (path == "/")
    assert httpx.get(f"{url}/health").json() == {"status": "ok"}
    for connection in running:
        connection.close()
    until(lambda: not engine.running)
    assert httpx.post(url, json={"prompt": "x", "max_length": 30}, timeout=60).status_code == 200


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),  # TLS
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: x\r\n" * 20_000 + b"\r\n", 431),
        (b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    ],
)
def test_what_is_no_request(start: Any, write: Writer, data: bytes, status: int) -> None:
    url, _, server = start(write.say("one"))
    with connect(url) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = rest_of(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d" % status), answer
    assert json.loads(body)["error"]  # in the shape of the path's dialect
    until(lambda: not server.server_state.connections)


# The end


def test_a_drain_lets_answers_finish_and_refuses_new_ones(start: Any, write: Writer) -> None:
    url, engine, server = start(write.say("word " * 60 + "end"), delay=0.03)
    with httpx.stream("POST", url + CHAT, json={**ASK, "stream": True}, timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        server.should_exit = True
        until(lambda: server._service.drain.begun)
        for path, body in ((CHAT, ASK), ("/", {"prompt": "x"})):
            late = httpx.post(url + path, json=body)
            assert (late.status_code, late.headers["connection"]) == (503, "close")
            assert int(late.headers["retry-after"]) >= 1
            assert "shutting down" in late.text
        health = httpx.get(f"{url}/health")
        assert (health.status_code, health.json()) == (503, {"status": "draining"})
        text = "".join(line for line in lines)
    assert text.endswith("data: [DONE]")
    assert "end" in text
    assert len(engine.asked) == 1


def test_a_drain_that_runs_out_says_so(start: Any, write: Writer) -> None:
    url, engine, server = start(write.say("word " * 400), delay=0.05, drain=0.3)
    answers: dict[str, httpx.Response] = {}

    def whole(path: str, body: Any) -> None:
        answers[path] = httpx.post(url + path, json=body, timeout=60)

    threads = [threading.Thread(target=whole, args=each) for each in ((CHAT, ASK), ("/", {"prompt": "x"}))]
    for thread in threads:
        thread.start()
    until(lambda: len(engine.running) == 2)
    with httpx.stream("POST", url + CHAT, json={**ASK, "stream": True}, timeout=60) as stream:
        lines = stream.iter_lines()
        next(lines)
        server.should_exit = True
        last = [line for line in lines if line][-1]  # and the transfer is whole, or httpx would raise
    error = json.loads(last.removeprefix("data: "))["error"]
    assert (error["type"], error["code"]) == ("server_error", "shutting_down")
    for thread in threads:
        thread.join()
    assert answers[CHAT].status_code == answers["/"].status_code == 503
    assert answers[CHAT].json()["error"]["code"] == "shutting_down"
    assert answers["/"].json().keys() == {"status", "error", "time"}
    until(lambda: not engine.running and not server.server_state.connections)


@pytest.mark.parametrize("kind", [BareServer, Server])
def test_a_connection_that_never_asked_is_closed_at_the_end(write: Writer, kind: type[BareServer]) -> None:
    """As browsers open them in advance. Such a client would else wait for ever where the process lives on."""
    (listening,) = bind("127.0.0.1", 0)
    options: dict[str, Any] = {"drain": 1} if kind is Server else {"patience": 1}
    with Assistant(write.form, ScriptedEngine(write.say("x"))) as assistant:  # type: ignore[arg-type]
        server = kind(create_app({"demo": assistant}), limits=LONG, log_level="warning", **options)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
        thread.start()
        until(lambda: server.started)
        with connect(f"http://127.0.0.1:{listening.getsockname()[1]}") as silent:
            until(lambda: bool(server.server_state.connections))
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()
            with contextlib.suppress(ConnectionResetError):
                assert silent.recv(1) == b""
    listening.close()


# Addresses


def test_addresses_that_cannot_be_used() -> None:
    (free,) = bind("127.0.0.1", 0)
    port = free.getsockname()[1]
    free.listen()
    with free, pytest.raises(InputError, match=f"--port {port}: in use at 127.0.0.1"):
        bind("127.0.0.1", port)
    with pytest.raises(InputError, match=r"--host 192\.0\.2\.1: this machine does not have this address"):
        bind("192.0.2.1", 0)
    with pytest.raises(InputError, match="--host no such host: no such address"):
        bind("no such host", 0)
    both = bind("localhost", 0)
    assert len({one.getsockname()[1] for one in both}) == 1
    for one in both:
        one.close()
