"""Limits of API keys: buckets, what a key may do at a time, and the headers that say what is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatglm.assistant import Assistant
from chatglm.serving.access.callers import Caller
from chatglm.serving.access.key_sources import written
from chatglm.serving.access.keys import Key, Keyring
from chatglm.serving.access.limits import Bucket, RateLimits, _duration
from chatglm.serving.app import create_app
from chatglm.serving.failures import RateLimitError
from scripted import ScriptedEngine, Writer
from server import serving
from waiting import until

ALICE, BOB = "alice.0123456789abcdef", "bob.fedcba9876543210"
CHAT = {"messages": [{"role": "user", "content": "x"}]}


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Fixed:
    def __init__(self, *entries: dict[str, Any]) -> None:
        self._found = written([(entry, "entry") for entry in entries], "test")

    def changed(self) -> bool:
        return False

    def credentials(self) -> Any:
        return self._found


@contextlib.contextmanager
def limited(
    write: Writer, words: int = 1, delay: float = 0, clock: Callable[[], float] = time.monotonic, **limits: int
) -> Iterator[tuple[httpx.Client, Any]]:
    """A client with Alice's key, which has limits; Bob's has none. An answer has so many words, and each takes `delay`
    seconds. The limits go by `clock`: with one that stands still, the speed of the machine does not matter."""
    engine = ScriptedEngine(write.say("word " * words), pace=1, delay=delay)
    keys = Keyring([Fixed({"key": ALICE, "name": "alice", **limits}, {"key": BOB, "name": "bob"})])
    with (
        pytest.MonkeyPatch.context() as patch,
        Assistant(write.form, engine) as assistant,  # type: ignore[arg-type]
    ):
        patch.setattr("chatglm.serving.service.RateLimits", lambda: RateLimits(clock))
        with (
            serving({"demo": assistant}, keys=keys) as url,
            httpx.Client(base_url=url, headers={"Authorization": f"Bearer {ALICE}"}, timeout=60) as client,
        ):
            yield client, engine


# The law of a bucket


@given(st.integers(1, 10_000), st.lists(st.tuples(st.floats(0, 90), st.integers(1, 50)), max_size=60))
def test_a_bucket_gives_what_it_holds_and_what_flows_in(per_minute: int, asked: list[tuple[float, int]]) -> None:
    now, given_away = 0.0, 0
    bucket = Bucket(per_minute, now)
    for pause, amount in asked:
        now += pause
        if bucket.level(now) >= amount:
            bucket.take(amount, now)
            given_away += amount
        else:  # the wait that is told is enough, and not too long
            wait = bucket.wait(amount, now)
            if amount <= per_minute:
                assert Bucket.level(bucket, now) + wait * per_minute / 60 == pytest.approx(amount)
        assert 0 <= bucket.level(now) <= per_minute
        assert given_away <= per_minute + now * per_minute / 60 + 1e-6


@given(st.integers(1, 1000), st.integers(0, 100_000), st.floats(0.01, 1000))
def test_an_overdrawn_bucket_delays_what_comes_next(per_minute: int, taken: int, pause: float) -> None:
    bucket = Bucket(per_minute, 0.0)
    bucket.take(taken, 0.0)
    ready = bucket.wait(1, 0.0)
    assert bucket.level(ready + pause) >= min(1.0, per_minute) - 1e-6
    assert bucket.level(ready - 1) <= per_minute  # a clock that goes back changes nothing


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0ms"), (0.12, "120ms"), (0.9999, "1s"), (1, "1s"), (59.6, "1m0s"), (360, "6m0s"), (3605, "1h0m5s")],
)
def test_durations_are_written_as_clients_read_them(seconds: float, words: str) -> None:
    assert _duration(seconds) == words


def test_requests_a_minute() -> None:
    clock = Clock()
    rates, key = RateLimits(clock), Key("a", "alice", requests_per_minute=2)
    ends = [rates.begin(key), rates.begin(key)]
    with pytest.raises(
        RateLimitError, match=r"limit of requests in a minute \(2\); send this one again in 30s"
    ) as refused:
        rates.begin(key)
    assert (refused.value.code, refused.value.retry_after) == ("rate_limit_exceeded", 30)
    for end in ends:
        end()
    with pytest.raises(RateLimitError):
        rates.begin(key)
    clock.now += 30
    rates.begin(key)()
    rates.begin(Key("b", "bob", requests_per_minute=2))()  # another key has its own


def test_requests_at_a_time_and_a_refusal_that_costs_nothing() -> None:
    clock = Clock()
    rates, key = RateLimits(clock), Key("a", "alice", requests_per_minute=10, concurrency=1)
    end = rates.begin(key)
    for _ in range(20):
        with pytest.raises(RateLimitError, match=r"limit of requests at a time \(1\)") as refused:
            rates.begin(key)
        assert refused.value.code == "concurrency_limit"
    assert rates.headers(key)["x-ratelimit-remaining-requests"] == "9"
    end()
    rates.begin(key)()


def test_tokens_a_minute_may_be_overdrawn_by_the_last_request() -> None:
    clock = Clock()
    rates, key = RateLimits(clock), Key("a", "alice", tokens_per_minute=60)
    rates.begin(key)
    rates.count("a", 100)
    assert rates.headers(key) == {
        "x-ratelimit-limit-tokens": "60",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1m40s",
    }
    with pytest.raises(RateLimitError, match=r"limit of tokens in a minute \(60\)") as refused:
        rates.begin(key)
    assert refused.value.retry_after == 41
    clock.now += 41
    rates.begin(key)
    rates.count("nobody", 5)  # a key that never asked


def test_changed_limits_hold_at_once_and_forget_no_request_under_way() -> None:
    rates = RateLimits(Clock())
    end = rates.begin(Key("a", "alice", concurrency=1, requests_per_minute=1))
    changed = Key("a", "alice", concurrency=1, requests_per_minute=5)
    with pytest.raises(RateLimitError, match="at a time"):
        rates.begin(changed)
    end()
    rates.begin(changed)()


# Over HTTP


def test_a_key_with_limits_is_told_what_is_left(write: Writer) -> None:
    with limited(write, clock=Clock(), requests_per_minute=3, tokens_per_minute=100_000) as (client, _):
        answer = client.post("/v1/chat/completions", json=CHAT)
        assert answer.headers["x-ratelimit-limit-requests"] == "3"
        assert answer.headers["x-ratelimit-remaining-requests"] == "2"
        assert answer.headers["x-ratelimit-reset-requests"] == "20s"
        used = answer.json()["usage"]["total_tokens"]
        listed = client.get("/v1/models")  # reading costs nothing
        assert listed.headers["x-ratelimit-remaining-requests"] == "2"
        assert listed.headers["x-ratelimit-remaining-tokens"] == str(100_000 - used)
        wrong = client.post("/v1/chat/completions", json={"messages": 1})
        assert (wrong.status_code, wrong.headers["x-ratelimit-remaining-requests"]) == (400, "1")
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
        refused = client.post("/v1/chat/completions", json=CHAT)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "20"
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert refused.json()["error"]["type"] == "rate_limit_error"
        old = client.post("/", json={"prompt": "x"})
        assert (old.status_code, old.json()["status"]) == (429, 429)
        other = client.post("/v1/chat/completions", json=CHAT, headers={"Authorization": f"Bearer {BOB}"})
        assert other.status_code == 200
        assert not [name for name in other.headers if name.startswith("x-ratelimit")]


def test_the_openai_client_waits_and_tries_again(write: Writer) -> None:
    with limited(write, requests_per_minute=60) as (client, _):
        for _ in range(60):
            client.post("/v1/chat/completions", content=b"")
        with openai.OpenAI(base_url=f"{client.base_url}/v1", api_key=ALICE, max_retries=3) as sdk:
            assert sdk.chat.completions.create(model="demo", messages=CHAT["messages"])  # type: ignore[arg-type]
    with limited(write, clock=Clock(), requests_per_minute=3) as (client, _):
        for _ in range(3):
            client.post("/v1/chat/completions", content=b"")
        with openai.OpenAI(base_url=f"{client.base_url}/v1", api_key=ALICE, max_retries=0) as sdk:
            with pytest.raises(openai.RateLimitError) as refused:
                sdk.chat.completions.create(model="demo", messages=CHAT["messages"])  # type: ignore[arg-type]
            assert refused.value.code == "rate_limit_exceeded"


def ending(client: httpx.Client) -> None:
    with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
        next(answer.iter_lines())  # and leaves


def whole(client: httpx.Client) -> None:
    assert client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 3}).status_code == 200


def wrong(client: httpx.Client) -> None:
    assert client.post("/v1/chat/completions", json={**CHAT, "model": "nothing"}).status_code == 404


def nowhere(client: httpx.Client) -> None:
    assert client.post("/v1/nothing", json=CHAT).status_code == 404


def gone(client: httpx.Client) -> None:
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v1/chat/completions", json=CHAT, timeout=0.3)


def free(client: httpx.Client) -> bool:
    answer = client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 1})
    assert answer.status_code == 200 or answer.json()["error"]["code"] == "concurrency_limit"
    return answer.status_code == 200


@pytest.mark.parametrize("end", [ending, whole, wrong, nowhere, gone])
def test_a_slot_is_free_however_the_response_ended(write: Writer, end: Callable[[httpx.Client], None]) -> None:
    with limited(write, 400, 0.005, concurrency=1) as (client, _):
        for _ in range(2):
            end(client)
            until(lambda: free(client))  # the server notices a client that left when it writes the next piece


def test_one_request_at_a_time(write: Writer) -> None:
    with limited(write, 400, 0.05, concurrency=1) as (client, _):
        stream = client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True})
        with stream as answer:
            next(answer.iter_lines())
            refused = client.post("/v1/chat/completions", json=CHAT)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "concurrency_limit")
            assert refused.headers["retry-after"] == "1"
            other = client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 1}, headers={"Authorization": BOB})
            assert other.status_code == 200


def test_tokens_of_streams_that_break_off_count(write: Writer) -> None:
    def left(client: httpx.Client) -> int:
        return int(client.get("/v1/models").headers["x-ratelimit-remaining-tokens"])

    with limited(write, 400, 0.005, Clock(), tokens_per_minute=1000) as (client, _):
        with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
            lines = answer.iter_lines()
            for _ in range(40):
                next(lines)
        until(lambda: left(client) < 1000)
        assert 500 <= left(client) <= 990


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_takes_too_long_is_ended(write: Writer, stream: bool) -> None:
    engine = ScriptedEngine(write.say("word " * 400), pace=1, delay=0.05)
    with (
        Assistant(write.form, engine) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant}, timeout=1.0) as url,
    ):
        answer = httpx.post(f"{url}/v1/chat/completions", json={**CHAT, "stream": stream}, timeout=60)
        if stream:
            first, *_, last = [line for line in answer.text.splitlines() if line]
            assert "chat.completion.chunk" in first
            error = json.loads(last.removeprefix("data: "))["error"]
        else:
            assert answer.status_code == 504
            error = answer.json()["error"]
        assert error["code"] == "timeout"
        assert "--timeout" in error["message"]
        short = {**CHAT, "max_tokens": 1}
        until(lambda: httpx.post(f"{url}/v1/chat/completions", json=short, timeout=60).status_code == 200)
        until(lambda: not engine.running)


# Requests of the server to itself: tasks and batches


def test_tasks_keep_to_the_key_that_made_them(write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatglm.serving.access.keys._LOOK", 0.0)
    source = Fixed(
        {"key": ALICE, "name": "alice", "models": ["demo"], "tokens_per_minute": 6000}, {"key": BOB, "name": "bob"}
    )
    source.changed = lambda: True  # type: ignore[method-assign]
    engine = ScriptedEngine(write.say("好"))
    with Assistant(write.form, engine) as assistant:  # type: ignore[arg-type]
        app = create_app({"demo": assistant, "other": assistant}, keys=Keyring([source]))
        service, alice = app.state.service, Caller("alice", "alice")

        async def ask(caller: Caller, **more: Any) -> tuple[int, str]:
            status, answer = await service.call(caller, "/v1/chat/completions", {**CHAT, **more})
            return status, answer.get("error", {}).get("code", "")

        async def main() -> None:
            assert await ask(alice) == (200, "")
            assert await ask(alice, model="other") == (403, "permission_denied")
            assert await ask(Caller("nobody", "nobody")) == (401, "invalid_api_key")
            assert await ask(Caller("", "")) == (401, "invalid_api_key")  # made when the server needed no keys
            service.rates.count("alice", 6000)  # a tenth of a second's worth is enough for the next
            before = time.monotonic()
            assert await ask(alice) == (200, "")
            assert time.monotonic() - before >= 0.01
            source._found = source._found[1:]
            assert await ask(alice) == (401, "invalid_api_key")
            assert await ask(Caller("bob", "bob"), model="other") == (200, "")

        asyncio.run(main())
