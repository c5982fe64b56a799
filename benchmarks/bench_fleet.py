"""What does `chatglm serve --remote` cost in front of a replica?

    python benchmarks/bench_fleet.py [--rounds 20] [--concurrency 16] [--tokens 128] [--pace 10]

The replica of this benchmark says words, one every --pace milliseconds, and does no work, as if it ran on another
machine: what is measured is the server in front alone. Asked are, by turns, the replica itself, a server in front of it
(one URL) and a server in front of two (`RemoteFleet`, with its health checks). Each turn is --concurrency streamed
requests at once.

- first: milliseconds to the first token, median of a turn; beside it what it is more than the replica's own, as the
  median over turns.
- CPU: of the server in front (user and system, from /proc), for a token and for a request: slope and intercept of two
  sizes of answers. From them, how many tokens a second one core of it can pass on.

Prints a table for people and one JSON line for machines. Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from common import machine

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(value: Any) -> bytes:
    data = f"data: {value if isinstance(value, str) else json.dumps(value)}\n\n".encode()
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pace: float) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            if head.startswith("GET"):
                data = b'{"data": [{"id": "m"}]}'
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data))
                continue
            length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
            assert length is not None
            asked = json.loads(await reader.readexactly(int(length[1])))
            writer.write(HEAD)
            begun = time.perf_counter()
            for number in range(asked["max_tokens"]):
                await asyncio.sleep(max(0.0, begun + (number + 1) * pace - time.perf_counter()))
                writer.write(chunk({"choices": [{"index": 0, "delta": {"content": "word "}}]}))
            usage = {"prompt_tokens": 9, "completion_tokens": asked["max_tokens"]}
            writer.write(chunk({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}))
            writer.write(chunk({"choices": [], "usage": usage}) + chunk("[DONE]") + b"0\r\n\r\n")
    writer.close()


def replica(port: int, pace: float) -> None:
    async def serve() -> None:
        server = await asyncio.start_server(lambda *pair: answer(*pair, pace), "127.0.0.1", port, backlog=512)
        await server.serve_forever()

    asyncio.run(serve())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@contextlib.contextmanager
def front(*urls: str) -> Iterator[tuple[str, int]]:
    """Address and process of a server in front of these."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("chatglm")), "serve", "--port", str(port), "--quiet", "--name", "m"]
    process = subprocess.Popen([*command, "--remote", ",".join(urls)], stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            time.sleep(0.1)
        yield f"{url}/v1", process.pid
    finally:
        process.terminate()
        process.wait()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def turn(client: httpx.AsyncClient, url: str, concurrency: int, tokens: int) -> list[float]:
    """Seconds to the first token of each request."""

    async def one(number: int) -> float:
        messages = [{"role": "user", "content": f"question {number}"}]
        body = {"model": "m", "messages": messages, "max_tokens": tokens, "stream": True}
        begun, first = time.perf_counter(), 0.0
        async with client.stream("POST", f"{url}/chat/completions", json=body) as response:
            assert response.status_code == 200
            async for data in response.aiter_bytes():
                if not first and b"word" in data:
                    first = time.perf_counter() - begun
        return first

    return await asyncio.gather(*(one(number) for number in range(concurrency)))


async def measure(arguments: argparse.Namespace, urls: dict[str, str], pids: dict[str, int]) -> dict[str, Any]:
    firsts: dict[str, list[float]] = {name: [] for name in urls}
    spent: dict[str, dict[int, float]] = {name: {} for name in pids}
    sizes = (arguments.tokens // 8, arguments.tokens)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=arguments.concurrency)
    async with httpx.AsyncClient(timeout=120, limits=limits) as client:
        for url in urls.values():
            await turn(client, url, arguments.concurrency, 4)
        for _ in range(arguments.rounds):
            for name, url in urls.items():
                firsts[name].append(statistics.median(await turn(client, url, arguments.concurrency, sizes[0])))
        for name, pid in pids.items():
            for size in sizes:
                before = cpu_seconds(pid)
                for _ in range(arguments.rounds):
                    await turn(client, urls[name], arguments.concurrency, size)
                spent[name][size] = (cpu_seconds(pid) - before) / (arguments.rounds * arguments.concurrency)
    rows: dict[str, Any] = {}
    for name in urls:
        more = [mine - its for mine, its in zip(firsts[name], firsts["replica"], strict=True)]
        rows[name] = {
            "first_ms": 1e3 * statistics.median(firsts[name]),
            "more_ms": 1e3 * statistics.median(more),
        }
        if name in pids:
            small, large = (spent[name][size] for size in sizes)
            token = (large - small) / (sizes[1] - sizes[0])
            rows[name] |= {"token_us": 1e6 * token, "request_ms": 1e3 * (small - sizes[0] * token)}
            rows[name]["tokens_per_core_second"] = 1 / token if token > 0 else None
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--pace", type=float, default=10, help="milliseconds from token to token")
    arguments = parser.parse_args()
    ports = [free_port(), free_port()]
    servers = [
        multiprocessing.Process(target=replica, args=(port, arguments.pace / 1e3), daemon=True) for port in ports
    ]
    for one in servers:
        one.start()
    addresses = [f"http://127.0.0.1:{port}/v1" for port in ports]
    time.sleep(1)
    with front(addresses[0]) as (single, first), front(*addresses) as (fleet, second):
        urls = {"replica": addresses[0], "one URL": single, "two URLs": fleet}
        rows = asyncio.run(measure(arguments, urls, {"one URL": first, "two URLs": second}))
    for one in servers:
        one.terminate()
    print(f"{arguments.concurrency} at once, a token every {arguments.pace:g} ms; {arguments.rounds} turns")
    print(f"{'asked':10} {'first token':>12} {'more':>8} {'CPU a token':>12} {'a request':>10} {'tokens/s a core':>16}")
    for name, row in rows.items():
        line = f"{name:10} {row['first_ms']:9.1f} ms {row['more_ms']:5.1f} ms"
        if "token_us" in row:
            line += f" {row['token_us']:9.0f} µs {row['request_ms']:7.1f} ms {row['tokens_per_core_second'] or 0:16.0f}"
        print(line)
    print(json.dumps({"machine": machine(), "arguments": vars(arguments), "rows": rows}))


if __name__ == "__main__":
    main()
