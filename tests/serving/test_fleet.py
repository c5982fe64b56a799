"""`RemoteFleet`: several endpoints as one assistant, some of which fail in every way there is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from chatglm.assistant import Assistant, Finish, RemoteAssistant, RemoteFleet, TextDelta
from chatglm.assistant.fleet import Breaker, Checks
from chatglm.errors import InputError, QueueFullError, ServiceError, UnsupportedError
from chatglm.serving.access.key_sources import KeyFile
from chatglm.serving.access.keys import Keyring
from garbage import no_garbage
from scripted import ScriptedEngine, Writer
from server import serving
from waiting import until

# A busy machine may need seconds for a connection or the answer to a check; a replica that is there must not look gone.
QUICK = Checks(every=0.05, timeout=3, missed=2, pause=0.05, longest_pause=0.2, connect=60)
HASTY = replace(QUICK, timeout=0.5)
NEVER = Checks(every=1000, timeout=60, connect=60)  # beyond the first


class Replica:
    """An endpoint that answers each request with its own name, or as it is told.

    Attributes:
        does: what becomes of a request: "answer", a status, "reset" (before a byte), "break" (after the first words),
            "hang" (until the test is over), "slow" (an answer that waits for `go`).
        health: status of `/health`, or "hang".
        asked: bodies of the requests that came.
    """

    def __init__(self, name: str) -> None:
        self.name, self.models = name, ["m"]
        self.does: Any = "answer"
        self.health: Any = 200
        self.asked: list[dict[str, Any]] = []
        self.connections: set[tuple[str, int]] = set()
        self.left = threading.Event()  # a reader went before the end
        self.go = threading.Event()
        self.over = threading.Event()
        self.close_idle = False
        self.open: set[socket.socket] = set()
        replica = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

            def do_GET(self) -> None:
                if self.path == "/health":
                    if replica.health == "hang":
                        replica.over.wait(120)
                    return self.say(200 if replica.health == "hang" else replica.health, {"status": "?"})
                return self.say(200, {"data": [{"id": model} for model in replica.models]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/tokenize":
                    return self.say(404, {"error": "no such route"})
                replica.asked.append(body)
                replica.connections.add(self.client_address)
                does = replica.does
                if isinstance(does, int):
                    return self.say(does, {"error": {"message": "no"}})
                if does == "hang":
                    replica.over.wait(120)
                if does in ("hang", "reset"):
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    self.close_connection = True
                    self.connection.close()
                    return None
                if does == "slow":
                    replica.go.wait(120)
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.chunk({"choices": [{"delta": {"content": replica.name}}]})
                if does == "break":
                    self.close_connection = True
                    return None
                if does == "endless":
                    try:
                        while not replica.over.wait(0.01):
                            self.chunk({"choices": [{"delta": {"content": "more"}}]})
                    except OSError:
                        replica.left.set()
                    self.close_connection = True
                    return None
                self.chunk({"choices": [{"delta": {}, "finish_reason": "stop"}]})
                self.wfile.write(b"0\r\n\r\n")
                self.close_connection = replica.close_idle
                return None

            def chunk(self, value: Any) -> None:
                data = f"data: {json.dumps(value)}\n\n".encode()
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                self.wfile.flush()

            def say(self, status: int, value: Any) -> None:
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(data)

            def handle(self) -> None:
                replica.open.add(self.connection)
                with contextlib.suppress(OSError):
                    super().handle()
                replica.open.discard(self.connection)

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads, request_queue_size = True, 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.over.set()
        self.go.set()
        if self.thread.is_alive():
            self.server.shutdown()
            self.server.server_close()
            self.thread.join(10)
            for connection in list(self.open):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def replicas() -> Iterator[Callable[[int], list[Replica]]]:
    made: list[Replica] = []

    def make(count: int) -> list[Replica]:
        made.extend(Replica(f"r{number}") for number in range(count))
        return made[-count:]

    yield make
    for replica in made:
        replica.stop()


def fleet_of(replicas: list[Replica], checks: Checks = QUICK, **options: Any) -> RemoteFleet:
    return RemoteFleet([replica.url for replica in replicas], "m", checks=checks, **options)


def text_of(fleet: RemoteFleet | RemoteAssistant, messages: Any) -> str:
    return fleet.reply(messages).content


def question_for(fleet: RemoteFleet, replica: Replica) -> str:
    """A question that this replica is the first to be asked."""
    return next(f"question {n}" for n in range(1000) if text_of(fleet, f"question {n}") == replica.name)


# Where a dialogue goes


def test_a_dialogue_keeps_to_its_replica(replicas: Any) -> None:
    group = replicas(3)
    found: Counter[str] = Counter()

    async def talk(number: int) -> None:
        messages = [{"role": "system", "content": "s"}, {"role": "user", "content": f"q{number}"}]
        first = (await fleet.areply(messages)).content
        found[first] += 1
        messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "more"}]
        assert (await fleet.areply(messages)).content == first
        assert (await another.areply(messages)).content == first  # whatever the order of the URLs

    async def talk_all() -> None:
        for number in range(24):
            await talk(number)

    # Without checks: one that is missed on a busy machine sends a dialogue elsewhere.
    with fleet_of(group, NEVER) as fleet, fleet_of(group[::-1], NEVER) as another:
        asyncio.run(talk_all())
        assert min(found[replica.name] for replica in group) >= 2
        assert {one.name: one.requests for one in fleet.replicas()} == {
            replica.url: 2 * found[replica.name] for replica in group
        }


def test_texts_that_begin_alike_go_to_one_replica(replicas: Any) -> None:
    group = replicas(2)

    def place(fleet: RemoteFleet, prompt: Any) -> str:
        first, *_ = fleet.stream_text(prompt)
        return "r0" if len(group[0].asked) > len(before[0]) else "r1" if isinstance(first, TextDelta) else ""

    with fleet_of(group, NEVER) as fleet:
        for prompt in ("x" * 64, list(range(32))):
            found = set()
            for more in range(5):
                before = [list(replica.asked) for replica in group]
                found.add(place(fleet, prompt + ("y" * more if isinstance(prompt, str) else [7] * more)))
            assert len(found) == 1


def test_a_replica_with_much_more_to_do_is_passed_over(replicas: Any) -> None:
    group = replicas(2)
    with fleet_of(group, NEVER) as fleet, ThreadPoolExecutor(40) as pool:
        for replica in group:
            replica.does = "slow"
        waiting = [pool.submit(text_of, fleet, "the same question") for _ in range(40)]
        until(lambda: sum(len(replica.asked) for replica in group) == 40)
        fewer, most = sorted(len(replica.asked) for replica in group)
        assert 10 <= fewer < most
        for replica in group:
            replica.go.set()
        assert Counter(future.result() for future in waiting) == {replica.name: len(replica.asked) for replica in group}
        assert [one.running for one in fleet.replicas()] == [0, 0]


# What fails before the first byte is asked again elsewhere


@pytest.mark.parametrize("how", ["reset", 502, 503, 504, 401, 404])
def test_another_replica_answers(replicas: Any, how: Any) -> None:
    group = replicas(2)
    with fleet_of(group, NEVER) as fleet:
        asked = question_for(fleet, group[0])
        group[0].does = how
        assert text_of(fleet, asked) == "r1"
        assert asyncio.run(fleet.areply(asked)).content == "r1"
        assert fleet.problem() == ""


def test_a_replica_that_is_not_there(replicas: Any) -> None:
    group = replicas(2)
    with fleet_of(group) as fleet:
        asked = question_for(fleet, group[0])
        group[0].stop()
        assert [text_of(fleet, asked) for _ in range(5)] == ["r1"] * 5
        until(lambda: fleet.replicas()[0].problem)
        assert "reached" in fleet.replicas()[0].problem
        group[1].stop()
        with pytest.raises(ServiceError):
            text_of(fleet, asked)
        until(fleet.problem)
        assert all(replica.url in fleet.problem() for replica in group)


def test_a_replica_that_comes_back_gets_its_dialogues_again(replicas: Any, caplog: pytest.LogCaptureFixture) -> None:
    group = replicas(2)
    with fleet_of(group) as fleet:
        asked = question_for(fleet, group[0])
        group[0].health = group[0].does = 503  # as `chatglm serve` while it drains
        until(lambda: fleet.replicas()[0].problem)
        before = len(group[0].asked)
        assert [text_of(fleet, asked) for _ in range(5)] == ["r1"] * 5
        assert len(group[0].asked) == before
        group[0].health, group[0].does = 200, "answer"
        until(lambda: not fleet.replicas()[0].problem)
        assert text_of(fleet, asked) == "r0"
        assert [
            record.getMessage().partition("/v1 ")[2] for record in caplog.records if record.levelname == "WARNING"
        ] == [
            "gets no requests: its /health has status 503",
            "gets requests again",
        ]


def test_nothing_is_asked_again_once_an_answer_has_begun(replicas: Any) -> None:
    group = replicas(2)
    with fleet_of(group, NEVER) as fleet:
        asked = question_for(fleet, group[0])
        before = len(group[1].asked)
        group[0].does = "break"
        deltas = fleet.stream(asked)
        assert next(deltas) == TextDelta("r0")
        with pytest.raises(ServiceError):
            next(deltas)
        assert len(group[1].asked) == before
        assert fleet.replicas()[0].failures == 1


def test_a_replica_that_hangs(replicas: Any) -> None:
    group = replicas(2)
    with fleet_of(group, HASTY) as fleet:
        asked = question_for(fleet, group[0])
        group[0].does = group[0].health = "hang"
        assert text_of(fleet, asked) == "r1"
        assert asyncio.run(fleet.areply(asked)).content == "r1"
        assert "does not answer checks" in fleet.replicas()[0].problem
        group[1].does = group[1].health = "hang"
        with pytest.raises(ServiceError):
            text_of(fleet, asked)


def test_an_error_of_the_engine_is_passed_on(replicas: Any) -> None:
    group = replicas(2)
    with fleet_of(group, NEVER) as fleet:
        asked = question_for(fleet, group[0])
        for status, kind in ((500, ServiceError), (400, InputError)):
            before = len(group[1].asked)
            group[0].does = status
            with pytest.raises(kind):
                text_of(fleet, asked)
            assert len(group[1].asked) == before


def test_a_full_replica_and_two(replicas: Any) -> None:
    group = replicas(3)
    with fleet_of(group, NEVER) as fleet:
        asked = question_for(fleet, group[0])
        group[0].does = 429
        assert text_of(fleet, asked) in ("r1", "r2")
        group[1].does = group[2].does = 429
        before = sum(len(replica.asked) for replica in group)
        with pytest.raises(QueueFullError):
            text_of(fleet, asked)
        assert sum(len(replica.asked) for replica in group) == before + 2
        assert fleet.problem() == ""
        assert not any(one.failures for one in fleet.replicas())


def test_requests_that_nobody_takes_are_gone(replicas: Any) -> None:
    group = replicas(2)
    with fleet_of(group, NEVER) as fleet:
        asked = question_for(fleet, group[0])
        for group[0].does, group[1].does, kind in ((429, 429, QueueFullError), (500, 500, ServiceError)):
            with pytest.raises(kind):
                text_of(fleet, asked)
            with no_garbage(), pytest.raises(kind):
                text_of(fleet, asked)


def test_a_request_that_breaks_replicas_meets_two_of_them(replicas: Any) -> None:
    group = replicas(4)
    with fleet_of(group, NEVER) as fleet:
        for replica in group:
            replica.does = "reset"
        with pytest.raises(ServiceError):
            text_of(fleet, "q")
        assert sum(bool(replica.asked) for replica in group) == 2


# Replicas that fail again and again


def test_a_breaker_opens_and_tries_again() -> None:
    now = [0.0]
    breaker = Breaker(Checks(failures=2, pause=1, longest_pause=4), lambda: now[0])

    def outcome(well: bool | None) -> bool:
        breaker.begin()
        breaker.end(well)
        return breaker.open

    assert not outcome(False)
    assert not outcome(True)  # in a row, that is
    assert not outcome(False)
    assert outcome(False)
    now[0] += 1.3
    assert not breaker.open
    breaker.begin()
    assert breaker.open  # one request is the trial
    breaker.end(None)  # its client left
    assert not breaker.open
    assert outcome(False)
    now[0] += 1.3
    assert breaker.open  # the pause is longer now
    now[0] += 1.3
    assert not breaker.open
    assert not outcome(True)
    assert not outcome(False)


def test_a_replica_whose_requests_fail_gets_a_trial_now_and_then(replicas: Any) -> None:
    group = replicas(2)
    with fleet_of(group) as fleet:
        asked = question_for(fleet, group[0])
        group[0].does = 500
        before = len(group[0].asked)
        for _ in range(QUICK.failures):
            with pytest.raises(ServiceError):
                text_of(fleet, asked)
        assert fleet.replicas()[0].problem == "its requests fail"
        assert text_of(fleet, asked) == "r1"
        assert len(group[0].asked) == before + QUICK.failures
        group[0].does = "answer"
        until(lambda: text_of(fleet, asked) == "r0")


def test_replicas_must_have_the_same_model(replicas: Any) -> None:
    group = replicas(3)
    group[1].models = ["other"]
    with RemoteFleet([replica.url for replica in group], checks=QUICK) as fleet:
        until(lambda: fleet.replicas()[1].problem)
        assert "does not have the model 'm', but other" in fleet.replicas()[1].problem
        assert {text_of(fleet, f"q{number}") for number in range(20)} == {"r0", "r2"}
        assert {body["model"] for replica in group for body in replica.asked} == {"m"}
        group[1].models = ["x", "m"]
        until(lambda: not fleet.replicas()[1].problem)
    with pytest.raises(InputError, match="twice"):
        RemoteFleet([group[0].url, group[0].url + "/"])
    for wrong in ("", "host:8000/v1", "ftp://host/v1", "http://", "http://host/v1?key=secret", "http://host:x/v1"):
        with pytest.raises(InputError, match="URL"):
            RemoteFleet([wrong])


# Readers


def test_a_reader_that_leaves_ends_the_request(replicas: Any) -> None:
    (one,) = replicas(1)
    one.does = "endless"
    with fleet_of([one], NEVER) as fleet:
        deltas = fleet.stream("q")
        next(deltas)
        deltas.close()
        assert one.left.wait(60)
        until(lambda: fleet.replicas()[0].running == 0)
        one.left.clear()

        async def leave() -> None:
            deltas = fleet.astream("q")
            await anext(deltas)
            await deltas.aclose()

        asyncio.run(leave())
        assert one.left.wait(60)
        assert fleet.replicas()[0].running == 0
        assert fleet.replicas()[0].failures == 0


def test_a_fleet_that_is_closed_says_so(replicas: Any) -> None:
    (one,) = replicas(1)
    one.does = "slow"
    fleet = fleet_of([one], NEVER)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(text_of, fleet, "q")
        until(lambda: one.asked)
        fleet.close()
        fleet.close()
        with pytest.raises(ServiceError):
            waiting.result(60)
    with pytest.raises(ServiceError, match="closed"):
        text_of(fleet, "q")
    with pytest.raises(ServiceError, match="closed"):
        asyncio.run(fleet.areply("q"))


@pytest.mark.parametrize("fleet", [False, True])
def test_connections_are_used_again(replicas: Any, fleet: bool) -> None:
    (one,) = replicas(1)

    async def ask_all() -> None:
        for _ in range(5):
            assert (await assistant.areply("q")).content == "r0"
        # One that the server has closed meanwhile is no failure.
        one.close_idle = True
        for _ in range(3):
            assert (await assistant.areply("q")).content == "r0"

    with fleet_of([one], NEVER) if fleet else RemoteAssistant(one.url, "m") as assistant:
        asyncio.run(ask_all())
        assert len(one.connections) <= 4
        one.close_idle = False
        one.connections.clear()
        for _ in range(5):
            text_of(assistant, "q")
        assert len(one.connections) == 1


# Behind a server


def test_a_server_in_front_tells_of_its_replicas(replicas: Any) -> None:
    group = replicas(2)
    with fleet_of(group) as fleet, serving({"m": fleet}) as url:
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
        asked = {"messages": [{"role": "user", "content": question_for(fleet, group[0])}]}
        group[0].stop()
        answer = httpx.post(f"{url}/v1/chat/completions", json=asked)
        assert answer.json()["choices"][0]["message"]["content"] == "r1"
        until(lambda: "replicas_out" in httpx.get(f"{url}/health").json())
        assert list(httpx.get(f"{url}/health").json()["replicas_out"]) == [group[0].url]
        figures = httpx.get(f"{url}/metrics").text
        assert f'chatglm_replica_up{{model="m",replica="{group[0].url}"}} 0.0' in figures
        assert f'chatglm_replica_up{{model="m",replica="{group[1].url}"}} 1.0' in figures
        assert f'chatglm_replica_requests_total{{model="m",replica="{group[1].url}"}}' in figures
        group[1].stop()
        until(lambda: httpx.get(f"{url}/health").status_code == 503)
        assert httpx.post(f"{url}/v1/chat/completions", json=asked).status_code == 502


def test_many_at_once_while_a_replica_dies(replicas: Any) -> None:
    group = replicas(2)

    async def ask_all(fleet: RemoteFleet) -> list[str]:
        async def one(number: int) -> str:
            return (await fleet.areply(f"question {number}")).content

        tasks = [asyncio.ensure_future(one(number)) for number in range(100)]
        while len(group[0].asked) < 10:
            await asyncio.sleep(0.005)
        group[0].over.set()  # those that wait there are cut off
        await asyncio.to_thread(group[0].stop)
        return await asyncio.gather(*tasks)

    group[0].does = "hang"
    with fleet_of(group) as fleet:
        answers = asyncio.run(ask_all(fleet))
        assert answers == ["r1"] * 100
        *_, end = fleet.stream("q")
        assert isinstance(end, Finish)


def test_a_server_in_front_says_for_whom_it_asks(write: Writer, tmp_path: Path) -> None:
    """The replica shares fairly between the front's clients, if it believes the front."""
    file = tmp_path / "keys.yaml"
    file.write_text(
        "keys:\n- {key: forward-0123456789abcdef, name: front, may: [forward]}\n"
        "- {key: someone-0123456789abcdef, name: someone}\n",
        "utf-8",
    )
    for keys, key, expected in (
        (None, None, 2),
        (Keyring([KeyFile(file)]), "forward-0123456789abcdef", 2),
        (Keyring([KeyFile(file)]), "someone-0123456789abcdef", 1),
    ):
        engine = ScriptedEngine(write.say("好"))
        with (
            Assistant(write.form, engine) as assistant,  # type: ignore[arg-type]
            serving({"demo": assistant}, keys=keys) as inner,
            RemoteAssistant(f"{inner}/v1", "demo", key=key) as remote,
            serving({"demo": remote}) as front,
        ):
            for mine in ("a", "b", "a"):
                for path, body in (
                    ("chat/completions", {"messages": [{"role": "user", "content": "q"}]}),
                    ("completions", {"prompt": "q"}),
                ):
                    answer = httpx.post(f"{front}/v1/{path}", json=body, headers={"x-api-key": mine}, timeout=60)
                    assert answer.status_code == 200
            assert len({asked.client for asked in engine.asked}) == expected


def test_the_tokens_of_a_prompt_are_counted_at_the_endpoint(demo: str, replicas: Any) -> None:
    (other,) = replicas(1)
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "你好"}]
    tools = [{"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}]
    with (
        Assistant.load(dtype="float32") as local,
        RemoteAssistant(f"{demo}/v1") as remote,
        RemoteFleet([f"{demo}/v1", "http://127.0.0.1:9/v1"]) as fleet,
        RemoteAssistant(other.url, "m") as without,
    ):
        for assistant in (remote, fleet):
            assert assistant.count(messages) == local.count(messages)
            assert assistant.count(messages, tools=tools) == local.count(messages, tools=tools)
        with pytest.raises(UnsupportedError, match="counted"):
            without.count(messages)
