"""Several `chatglm serve` as processes, behind `vllm-router` and behind `--remote A,B`; some of them are killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from client_scripts import program_of

COMMAND = shutil.which("chatglm", path=str(Path(sys.executable).parent)) or "chatglm"


class Process:
    """A server of its own, at an address."""

    def __init__(self, log: Path, *command: str, url: str = "") -> None:
        self._log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "no_proxy": "127.0.0.1"},
            )
        self._url = url

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def ready(self) -> str:
        """Its address, once it answers."""
        end = time.monotonic() + 120
        while True:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.1)
            if url := self._url or next(iter(re.findall(r"running on (http://\S+)", self.log)), ""):
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"{url}/health").status_code == 200:
                        return url

    def answered(self) -> int:
        """Dialogues' turns so far."""
        lines = httpx.get(f"{self.ready()}/metrics").text.splitlines()
        found = [line for line in lines if line.startswith("chatglm_requests_total{") and "/chat/completions" in line]
        return round(sum(float(line.rpartition(" ")[2]) for line in found if 'status="200"' in line))

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)


Start = Callable[..., Process]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    made: list[Process] = []
    folder = tmp_path_factory.mktemp("processes")

    def begin(*command: str, url: str = "") -> Process:
        made.append(Process(folder / f"{len(made)}.log", *command, url=url))
        return made[-1]

    yield begin
    for one in made:
        one.kill()


@pytest.fixture(scope="module")
def replicas(start: Start) -> list[Process]:
    """Three, of which each test that kills one takes its own."""
    command = (COMMAND, "serve", "--port", "0", "--quiet", "--threads", "1", "--name", "demo")
    made = [start(*command) for _ in range(3)]
    for one in made:
        one.ready()
    return made


def cached_tokens(url: str, name: str) -> tuple[int, int]:
    """Tokens of the prompts of 12 dialogues of three turns, four at a time, and how many came from a cache."""

    def talk(number: int) -> tuple[int, int]:
        # A router that looks at texts takes those that begin alike for one dialogue.
        messages = [
            {"role": "system", "content": f"{name} {number}. " * 20},
            {"role": "user", "content": f"你好，我是{number}号"},
        ]
        prompt = cached = 0
        for _ in range(3):
            body = {"messages": messages, "max_tokens": 12, "temperature": 0}
            answer = client.post(f"{url}/v1/chat/completions", json=body).raise_for_status().json()
            prompt += answer["usage"]["prompt_tokens"]
            cached += answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            messages += [answer["choices"][0]["message"], {"role": "user", "content": "再说一遍"}]
        return prompt, cached

    with httpx.Client(timeout=120) as client, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(talk, range(12)))
    return sum(prompt for prompt, _ in found), sum(cached for _, cached in found)


def outcomes(url: str, count: int, halfway: Callable[[], None]) -> Counter[str]:
    """Of so many requests, sixteen at a time, what became of them. Halfway through, something happens."""
    found: Counter[str] = Counter()

    async def one(number: int) -> None:
        messages = [{"role": "user", "content": f"第{number}个问题：你好"}]
        async with places:
            try:
                body = {"messages": messages, "max_tokens": 8, "min_tokens": 8}
                answer = await client.post(f"{url}/v1/chat/completions", json=body)
                found[str(answer.status_code)] += 1
            except httpx.TransportError as error:
                found[type(error).__name__] += 1
            if found.total() == count // 3:
                halfway()

    async def all_of_them() -> None:
        await asyncio.gather(*(one(number) for number in range(count)))

    async def run() -> None:
        nonlocal places, client
        places = asyncio.Semaphore(16)
        async with httpx.AsyncClient(timeout=120) as client:
            await all_of_them()

    places: asyncio.Semaphore
    client: httpx.AsyncClient
    asyncio.run(run())
    return found


def test_vllm_router(start: Start, replicas: list[Process]) -> None:
    program = program_of("router")
    urls = [one.ready() for one in replicas[:2]]
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        port, figures = (str(free.getsockname()[1]) for free in (one, other))
    router = start(
        *(str(program), "-m", "vllm_router.launch_router", "--port", port, "--prometheus-port", figures),
        *("--worker-urls", *urls, "--policy", "cache_aware", "--worker-startup-check-interval", "1"),
        *("--health-check-interval-secs", "1", "--health-failure-threshold", "1"),
        url=f"http://127.0.0.1:{port}",
    )
    url = router.ready()
    assert httpx.get(f"{url}/v1/models").json()["data"][0]["id"] == "demo"
    body = {"messages": [{"role": "user", "content": "你好"}], "stream": True}
    lines = [line for line in httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).iter_lines() if line]
    assert len(lines) > 5
    assert lines[-1] == "data: [DONE]"
    assert all(load["load"] == 0 for load in httpx.get(f"{url}/get_loads").json()["workers"])
    # Dialogues keep to the replica that has them in its cache.
    whole, alone = cached_tokens(urls[0], "one")
    before = [one.answered() for one in replicas[:2]]
    prompt, through = cached_tokens(url, "two")
    assert min(one.answered() - then for one, then in zip(replicas, before, strict=False)) >= 6
    assert 1 > through / prompt >= 0.9 * alone / whole > 0
    # Of a replica that is killed, at most the requests that it had are lost.
    found = outcomes(url, 200, replicas[0].kill)
    assert found["200"] >= 200 - 16
    assert found.total() == 200
    assert outcomes(url, 20, lambda: None) == {"200": 20}


def test_remote_fleet(start: Start, replicas: list[Process]) -> None:
    urls = [one.ready() for one in replicas[1:]]
    front = start(
        *(COMMAND, "serve", "--port", "0", "--quiet", "--name", "front"),
        *("--remote", ",".join(f"{url}/v1" for url in urls)),
    )
    url = front.ready()
    whole, alone = cached_tokens(urls[0], "three")
    before = [one.answered() for one in replicas[1:]]
    prompt, through = cached_tokens(url, "four")
    assert min(one.answered() - then for one, then in zip(replicas[1:], before, strict=True)) >= 6
    assert 1 > through / prompt >= 0.9 * alone / whole > 0
    # None fails that had not begun, and none of these had: their answers come whole.
    found = outcomes(url, 200, replicas[2].kill)
    assert found["200"] >= 200 - 16
    assert found.total() == 200
    assert outcomes(url, 20, lambda: None) == {"200": 20}
    assert list(httpx.get(f"{url}/health").json()["replicas_out"]) == [f"{urls[1]}/v1"]
    # A replica that is told to stop finishes what it has, and nobody notices.
    replicas[1].process.send_signal(signal.SIGTERM)
    assert replicas[1].process.wait(60) == 0
    assert httpx.get(f"{url}/v1/models").status_code == 200
