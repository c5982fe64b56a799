"""Memory that threads keep goes back to the system, and `/metrics` says what is in use."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from chatglm.assistant import Assistant
from chatglm.serving import memory
from scripted import ScriptedEngine, Writer
from server import serving

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
    memory.release()
    assert memory.heap() is None


def test_a_server_gives_memory_back_after_requests(write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[float] = []
    monkeypatch.setattr("chatglm.serving.connections._RELEASE", 0.02)
    monkeypatch.setattr("chatglm.serving.connections.memory.release", lambda: calls.append(time.monotonic()))
    engine: Any = ScriptedEngine(write.say("x"))
    with Assistant(write.form, engine) as assistant, serving({"demo": assistant}) as url:
        time.sleep(0.2)
        assert not calls  # nobody asked anything
        figures = httpx.get(f"{url}/metrics").text
        end = time.monotonic() + 30
        while not calls:
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(0.2)
        assert len(calls) == 1
    assert "chatglm_python_blocks" in figures
    if sys.platform == "linux" and memory.heap() is not None:
        assert 'chatglm_heap_bytes{state="used"}' in figures
