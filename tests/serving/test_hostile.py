"""One server, hostile clients, and bystanders who must not notice them.

The server is a process of its own, so that one that dies is seen; what it was asked at that time is named. It has the
demo model and a tiny GLM-4. While `hostile.py`'s requests come, bystanders stream, and every text of theirs must be the
one that they get alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostile import (
    ALLOWED,
    CHAT,
    INVOKE,
    LEGACY,
    MESSAGES,
    RESPONSES,
    TEXT,
    V4,
    Hostile,
    extremes,
    misbehaviours,
    requests,
)

SERVER = """
import sys
from chatglm.assistant import Assistant
from chatglm.serving.app import create_app
from chatglm.serving.connections import Server, bind, run
from chatglm.serving.logs import configure
with Assistant.load(dtype="float32", memory=96 << 20) as demo:
    with Assistant.load(sys.argv[1], dtype="float32", memory=32 << 20) as glm4:
        server = Server(create_app({"demo": demo, "glm4": glm4}), drain=1)
        configure("text")
        run(server, bind("127.0.0.1", 0))
"""
QUESTIONS = ("你好", "北京的天气怎么样？", "给我讲一个故事。", "Hello!")
_GROWTH = 80.0  # MB: what is free at the ends of heaps, of which each thread has one, and what runs just now
_LARGE = 100_000  # bytes of requests that a server which leaks would show by
SECONDS = 180.0  # that an answer may take; a server that hangs is one that failed


def question(text: str, number: int) -> dict[str, Any]:
    sampling = {"temperature": 0} if number % 2 else {"temperature": 1, "seed": number}
    return {
        "model": "demo",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 60,
        "stream": True,
        **sampling,
    }


async def streamed(client: httpx.AsyncClient, body: dict[str, Any]) -> str:
    """The text of a stream; raises unless it is whole."""
    text, ended = "", False
    async with client.stream("POST", CHAT, json=body) as answer:
        assert answer.status_code == 200, await answer.aread()
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                ended = True
            elif line.startswith("data: "):
                event = json.loads(line[6:])
                assert "error" not in event, event
                text += "".join(choice["delta"].get("content") or "" for choice in event["choices"])
    assert ended
    return text


class Bystanders:
    """Clients that stream all the time, in a thread. They know what they get alone."""

    def __init__(self, url: str) -> None:
        self.url, self.wrong, self.texts = url, [], 0
        self._end = threading.Event()
        asyncio.run(self._learn())
        self._thread = threading.Thread(target=lambda: asyncio.run(self._work()))
        self._thread.start()

    def close(self) -> None:
        self._end.set()
        self._thread.join(SECONDS)

    async def _learn(self) -> None:
        async with httpx.AsyncClient(base_url=self.url, timeout=SECONDS) as client:
            bodies = [question(text, number) for number, text in enumerate(QUESTIONS)]
            self._alone = [(body, await streamed(client, body)) for body in bodies]

    async def _work(self) -> None:
        async with httpx.AsyncClient(base_url=self.url, timeout=SECONDS) as client:
            await asyncio.gather(*(self._stream(client, *each) for each in self._alone), self._ask_health(client))

    async def _stream(self, client: httpx.AsyncClient, body: dict[str, Any], alone: str) -> None:
        while not self._end.is_set() and not self.wrong:
            try:
                text = await streamed(client, body)
            except (AssertionError, httpx.HTTPError, OSError) as error:
                self.wrong.append(f"a bystander got {type(error).__name__}: {error}")
                return
            self.texts += 1
            if text != alone:
                self.wrong.append(f"a bystander got {text!r}, alone {alone!r}")
            await asyncio.sleep(0.2)

    async def _ask_health(self, client: httpx.AsyncClient) -> None:
        while not self._end.is_set():
            try:
                health = await client.get("/health")
            except (httpx.HTTPError, OSError) as error:
                self.wrong.append(f"/health: {type(error).__name__}: {error}")
                return
            if (health.status_code, health.json()) != (200, {"status": "ok"}):
                self.wrong.append(f"/health: {health.status_code} {health.text}")
                return
            await asyncio.sleep(0.1)


class Stage:
    """The server with its bystanders, and what is sent to it."""

    def __init__(self, folder: Path, log: Path) -> None:
        self._log = log
        with log.open("w", encoding="utf-8") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVER, str(folder)],
                stderr=out,
                env={**os.environ, "OMP_NUM_THREADS": "1", "CHATGLM_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
            )
        end = time.monotonic() + 300
        while not (found := re.search(r"running on (http://\S+)", self.log)):
            assert self._process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.05)
        self.url = found[1]
        self.host, port = self.url.removeprefix("http://").split(":")
        self.port = int(port)
        self.bystanders = Bystanders(self.url)

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")

    @property
    def memory(self) -> float:
        """In MB, resident."""
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines())
        return int(fields["VmRSS"].split()[0]) / 1024

    def growth(self, before: float, allowed: float) -> float:
        """MB by which memory has grown, once what is free was given back (every 20 seconds) and tasks are over."""
        end = time.monotonic() + 120
        while (grown := self.memory - before) >= allowed and time.monotonic() < end:
            time.sleep(0.2)
        return grown

    def trouble(self) -> str:
        """What is wrong with the server or for its bystanders; "" if nothing."""
        if (status := self._process.poll()) is not None:
            return f"the server ended with status {status}: {self.log[-2000:]}"
        return "; ".join(self.bystanders.wrong)

    def close(self) -> None:
        self.bystanders.close()
        self._process.terminate()
        try:
            self._process.wait(SECONDS)
        finally:
            self._process.kill()
            self._process.wait()

    def send(self, one: Hostile, client: httpx.Client) -> str:
        """What is wrong with the answer; "" if nothing."""
        try:
            answer = client.post(one.path, content=one.content, headers={"Content-Type": "application/json"})
        except (httpx.HTTPError, OSError) as error:
            return f"{one.name}: {type(error).__name__}: {error}"
        if answer.status_code not in ALLOWED:
            return f"{one.name}: status {answer.status_code}: {answer.text[:300]}"
        if answer.status_code != 200:
            body = answer.json()
            error = body["error"] if one.path == LEGACY else body["error"]["message"]
            if not isinstance(error, str) or not error or "Traceback" in error or "panic" in error.lower():
                return f"{one.name}: no clear message: {answer.text[:300]}"
        return ""

    def send_all(self, them: Sequence[Hostile], at_once: int = 6) -> None:
        """Send them, several at a time. Fails with the names of those under way when anybody suffers."""
        waiting, found, lock = list(reversed(them)), [], threading.Lock()
        under_way: dict[int, str] = {}

        def work(number: int) -> None:
            with httpx.Client(base_url=self.url, timeout=SECONDS) as client:
                while True:
                    with lock:
                        if not waiting or found:
                            return
                        one = waiting.pop()
                        under_way[number] = one.name
                    wrong = self.send(one, client)
                    with lock:
                        if wrong or (wrong := self.trouble()):
                            found.append(f"{wrong}\n(under way: {'; '.join(under_way.values())})")

        with ThreadPoolExecutor(at_once) as pool:
            for done in [pool.submit(work, number) for number in range(at_once)]:
                done.result()
        if found:
            time.sleep(0.5)  # a process that crashes needs a moment to be gone
            pytest.fail("\n".join([*found, self.trouble()]), pytrace=False)


@pytest.fixture(scope="module")
def stage(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with contextlib.closing(Stage(checkpoint("glm4"), tmp_path_factory.mktemp("hostile") / "log")) as made:
        yield made


def test_requests(stage: Stage) -> None:
    """The first time they may fill what is bounded: 128 MB of keys and values, grammars, tables of a vocabulary. The
    second time they cost nothing."""
    them = requests()
    assert len(them) >= 300
    for sent, allowed in ((them, 300), ([one for one in them if len(one.content) > _LARGE] + them[::4], _GROWTH)):
        before = stage.memory
        stage.send_all(sent)
        grown = stage.growth(before, allowed)
        assert grown < allowed, f"{len(sent)} requests: {before:.0f} MB before, {grown:.0f} MB more after"
    assert "Traceback" not in stage.log, stage.log[-3000:]


def test_options_at_their_extremes(stage: Stage) -> None:
    them = list(extremes(httpx.get(f"{stage.url}/openapi.json").json()))
    assert len(them) >= 600
    before = stage.memory
    stage.send_all(them)
    grown = stage.growth(before, _GROWTH)
    assert grown < _GROWTH, f"{before:.0f} MB before, {grown:.0f} MB more after"
    assert "Traceback" not in stage.log, stage.log[-3000:]


def test_connections(stage: Stage) -> None:
    for name, act in misbehaviours().items():
        act(stage.host, stage.port)
        assert not (trouble := stage.trouble()), f"{name}: {trouble}"
    assert "Traceback" not in stage.log, stage.log[-3000:]


BASES: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        CHAT,
        {
            "model": "demo",
            "max_tokens": 3,
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": [{"type": "text", "text": "x"}]},
            ],
            "tools": [
                {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
            ],
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "integer"}}},
            "stop": ["a"],
            "logit_bias": {"5": 1},
            "stream_options": {"include_usage": True},
        },
    ),
    (
        TEXT,
        {"model": "demo", "max_tokens": 3, "prompt": ["a", "b"], "n": 2, "logprobs": 1, "temperature": 1, "top_k": 3},
    ),
    (
        MESSAGES,
        {
            "model": "demo",
            "max_tokens": 3,
            "system": [{"type": "text", "text": "s"}],
            "messages": [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "y"}]},
                {"role": "assistant", "content": "z"},
            ],
            "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}],
            "stop_sequences": ["a"],
        },
    ),
    (
        RESPONSES,
        {
            "model": "demo",
            "max_output_tokens": 3,
            "instructions": "s",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "x"}]},
                {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": "y"},
                {"type": "reasoning", "summary": []},
            ],
            "tools": [{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}],
            "text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "integer"}}},
            "top_logprobs": 1,
            "metadata": {"a": "b"},
        },
    ),
    (LEGACY, {"prompt": "x", "history": [["a", "b"]], "max_length": 30, "top_p": 0.5}),
    (
        V4,
        {
            "model": "demo",
            "max_tokens": 3,
            "messages": [{"role": "user", "content": "x"}],
            "tools": [{"type": "web_search", "web_search": {"enable": False}}],
            "meta": {"bot_name": "a", "bot_info": "b", "user_name": "c", "user_info": "d"},
            "thinking": {"type": "disabled"},
            "stream": True,
        },
    ),
    (
        INVOKE,
        {
            "prompt": [{"role": "user", "content": "x"}],
            "meta": {"bot_name": "a", "user_name": "c"},
            "ref": {"enable": False},
            "max_tokens": 3,
            "return_type": "text",
        },
    ),
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["<|user|>", "auto", "required", "json_object", -(2**63), 2**64, 1e39]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def mutated(draw: st.DrawFn) -> Hostile:
    """A good request with some values, keys or bytes replaced."""
    path, base = draw(st.sampled_from(BASES))
    body = json.loads(json.dumps(base))
    for _ in range(draw(st.integers(1, 3))):
        here: Any = body
        while True:
            keys = list(here) if isinstance(here, dict) else list(range(len(here)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(here[key], dict | list) and draw(st.booleans()):
                here = here[key]
                continue
            match draw(st.sampled_from(("replace", "delete", "copy", "rename"))):
                case "replace":
                    here[key] = draw(VALUES)
                case "delete":
                    del here[key]
                case "copy" if isinstance(here, list):
                    here += [here[key]] * draw(st.integers(1, 5))
                case "rename" if isinstance(here, dict):
                    here[draw(st.text(max_size=8))] = here.pop(key)
            break
    data = json.dumps(body).encode()
    if draw(st.integers(0, 4)) == 0:
        place = draw(st.integers(0, len(data)))
        data = data[:place] + draw(st.binary(max_size=4)) + data[place + draw(st.integers(0, 3)) :]
    return Hostile(f"mutation {data[:500]!r} at {path}", path, data)


def test_mutations(stage: Stage) -> None:
    with httpx.Client(base_url=stage.url, timeout=SECONDS) as client:

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(mutated())
        def check(one: Hostile) -> None:
            assert not (wrong := stage.send(one, client) or stage.trouble()), wrong

        check()


def test_bystanders_have_got_their_texts(stage: Stage) -> None:
    """In the end, after all of the above."""
    assert not (trouble := stage.trouble()), trouble
    assert stage.bystanders.texts >= 8
    with httpx.Client(base_url=stage.url, timeout=SECONDS) as client:
        figures = client.get("/metrics").text
        for model in ("demo", "glm4"):
            assert f'chatglm_engine_restarts_total{{model="{model}"}} 0.0' in figures
