"""Memory that threads keep goes back to the system, and `/metrics` says what is in use."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import AutoTokenizer

from chatglm.assistant import Assistant
from chatglm.chat.formats import chat_format
from chatglm.loading import demo_folder
from chatglm.serving import memory
from garbage import no_garbage
from scripted import ScriptedEngine, Writer
from server import serving
from waiting import until

glibc = pytest.mark.skipif(memory.heap() is None, reason="glibc 2.33 or later tells")


def resident() -> int:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) << 10


@glibc
def test_what_threads_have_freed_is_given_back() -> None:
    size, kept = 96 << 20, []

    def work() -> None:
        held = [bytearray(64 << 10) for _ in range(size >> 16)]
        for piece in held:
            piece[::4096] = b"x" * (len(piece) // 4096)
        kept.append(held[-1])  # which alone keeps the rest from the system
        del held[:-1]

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    used, free = memory.heap() or (0, 0)
    assert free > size / 2
    before = resident()
    memory.release()
    assert resident() < before - size / 2
    assert kept
    assert used > 0


def test_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_function", lambda *_: None)
    monkeypatch.setattr(memory, "_calls", memory._calls.__wrapped__)
    memory.release()
    assert memory.heap() is None
    with memory.Threads(1) as pool:
        assert pool.submit(int, 5).result() == 5


def test_a_server_gives_memory_back_after_requests(write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[float] = []
    monkeypatch.setattr("chatglm.serving.connections._RELEASE", 0.02)
    monkeypatch.setattr("chatglm.serving.connections.memory.release", lambda: calls.append(time.monotonic()))
    engine: Any = ScriptedEngine(write.say("x"))
    with Assistant(write.form, engine) as assistant, serving({"demo": assistant}) as url:
        time.sleep(0.2)
        assert not calls  # nobody asked anything
        figures = httpx.get(f"{url}/metrics").text
        until(lambda: calls)
        time.sleep(0.2)
        assert len(calls) == 1
    assert "chatglm_python_blocks" in figures
    if sys.platform == "linux" and memory.heap() is not None:
        assert 'chatglm_heap_bytes{state="used"}' in figures


CHAT, TEXT, MESSAGES, LEGACY = "/v1/chat/completions", "/v1/completions", "/v1/messages", "/"
LONG = "长" * 2000
REQUESTS: dict[str, tuple[str, dict[str, Any], int]] = {
    "an answer": (CHAT, {"messages": [{"role": "user", "content": "x"}]}, 200),
    "a stream": (CHAT, {"messages": [{"role": "user", "content": "x"}], "stream": True}, 200),
    "a long prompt": (CHAT, {"messages": [{"role": "user", "content": LONG}]}, 400),
    "a stream of a long prompt": (CHAT, {"messages": [{"role": "user", "content": LONG}], "stream": True}, 400),
    "many messages": (CHAT, {"messages": [{"role": "user", "content": "x"}] * 300}, 400),
    "unknown fields": (CHAT, {"messages": [{"role": "user", "content": "x", "colour": "red"}] * 300}, 400),
    "no such grammar": (
        CHAT,
        {
            "messages": [{"role": "user", "content": "x"}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nope"}}},
        },
        400,
    ),
    "several prompts": (TEXT, {"prompt": ["a", "b"], "max_tokens": 3}, 200),
    "a long one of several prompts": (TEXT, {"prompt": ["a", LONG]}, 400),
    "another dialect": (MESSAGES, {"max_tokens": 3, "messages": [{"role": "user", "content": LONG}]}, 400),
    "api.py": (LEGACY, {"prompt": LONG}, 400),
}


@pytest.fixture(scope="module")
def write() -> Writer:
    return Writer(chat_format(AutoTokenizer.from_pretrained(demo_folder())))


@pytest.fixture(scope="module")
def url(write: Writer) -> Iterator[str]:
    engine: Any = ScriptedEngine(write.say("x"))
    with Assistant(write.form, engine) as assistant, serving({"demo": assistant}) as at:
        yield at


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_are_gone_when_they_are_over(url: str, name: str) -> None:
    path, body, status = REQUESTS[name]
    with httpx.Client(base_url=url) as client:
        client.post(path, json=body)  # what is made once for all requests
        with no_garbage():
            for _ in range(2):
                answer = client.post(path, json=body)
                assert answer.status_code == status, answer.text
            assert client.get("/health").status_code == 200  # the handler of the request before has returned


@glibc
@pytest.mark.parametrize("pool", ["memory.Threads", "ThreadPoolExecutor"])
def test_the_end_of_a_threads_arena_is_given_back(pool: str) -> None:
    """In a process of its own, as glibc's bounds are for good. Other threads keep it, whatever is released."""
    program = f"""
import ctypes
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from chatglm.serving import memory
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) << 2
malloc, free = ctypes.CDLL(None).malloc, ctypes.CDLL(None).free
malloc.restype, free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
free(malloc(30 << 20))  # from now on glibc keeps up to 60 MB at the end of each arena
held = (ctypes.c_void_p * 640)()
def work():
    for number in range(640):
        held[number] = malloc(64000)
        ctypes.memset(held[number], 1, 64000)
    for number in reversed(range(640)):
        free(held[number])
with {pool}(1) as pool:
    pool.submit(int).result()
    before = resident()
    pool.submit(work).result()
    memory.release()
    print((resident() - before) >> 10)
"""
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    kept = int(done.stdout)
    assert (kept < 10) if pool == "memory.Threads" else (kept > 30)


def test_threads_say_what_became_of_their_work() -> None:
    with memory.Threads(1) as pool:
        assert pool.submit(divmod, 7, 2).result() == (3, 1)
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 7, 0).result()


def test_large_requests_are_worked_on_a_few_at_a_time_and_small_ones_do_not_wait(
    write: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a text takes while it is tokenised is many times its size."""
    before, running, most, lock = write.form.tokenizer.encode_text, 0, 0, threading.Lock()
    begun, go_on = threading.Event(), threading.Event()

    def encode(text: str) -> list[int]:
        nonlocal running, most
        if len(text) < 1000:
            return before(text)
        with lock:
            running += 1
            most = max(most, running)
        begun.set()
        assert go_on.wait(60)
        with lock:
            running -= 1
        return [5] * len(text)  # more than the model can read

    monkeypatch.setattr(write.form.tokenizer, "encode_text", encode)
    engine: Any = ScriptedEngine(write.say("x"))
    statuses: list[int] = []
    with Assistant(write.form, engine) as assistant, serving({"demo": assistant}) as url:

        def ask(text: str) -> None:
            statuses.append(httpx.post(f"{url}{TEXT}", json={"prompt": text}, timeout=60).status_code)

        large = [threading.Thread(target=ask, args=("x" * 100_000,)) for _ in range(40)]
        for one in large:
            one.start()
        assert begun.wait(60)
        for _ in range(3):
            ask("x")
        assert statuses == [200] * 3
        go_on.set()
        for one in large:
            one.join()
    assert sorted(statuses) == [200] * 3 + [400] * 40
    assert most <= memory._LARGE_AT_ONCE
