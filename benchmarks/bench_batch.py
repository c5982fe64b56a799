"""How much of the engine's speed does `chatglm batch` reach? The same requests to both, by turns.

    python benchmarks/bench_batch.py [--model MODEL] [--concurrency 8] [--requests 64] [--new-tokens 64] [--rounds 5]

- engine: `Assistant.aanswers`, so many at a time, in this process.
- batch: what `chatglm batch` runs: lines read from a file, through the server's routes, answers written to a file.

Answers are greedy and all of the same length (`min_tokens`), and every prompt is another one, so both compute the same.
Prints tokens/s of each, the median ratio over the rounds, and one JSON line for machines.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from common import machine

from chatglm.assistant import Assistant
from chatglm.serving.access.callers import Caller
from chatglm.serving.app import create_app
from chatglm.serving.stored.batch_files import Book, answer_lines

CHAT = "/v1/chat/completions"


def question(turn: str, number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{turn} {number}: tell me about the number {number}."}]


async def by_engine(assistant: Assistant, turn: str, requests: int, tokens: int, concurrency: int) -> None:
    places = asyncio.Semaphore(concurrency)
    params = {"max_new_tokens": tokens, "min_new_tokens": tokens, "temperature": 0.0}

    async def ask(number: int) -> None:
        async with places:
            (answer,) = await assistant.aanswers(question(turn, number), params=params)  # type: ignore[arg-type]
            assert answer.finish.usage.completion_tokens == tokens

    await asyncio.gather(*map(ask, range(requests)))


async def by_batch(assistant: Assistant, turn: str, requests: int, tokens: int, concurrency: int) -> None:
    service = create_app({"model": assistant}).state.service
    caller = Caller("", "batch")

    async def send(path: str, body: dict[str, Any]) -> tuple[int, str]:
        reply = await service.send(caller, path, body)
        return reply.status, json.dumps(reply.value, ensure_ascii=False)

    options = {"max_tokens": tokens, "min_tokens": tokens, "temperature": 0}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
        with source.open("w", encoding="utf-8") as file:
            for number in range(requests):
                body = {"model": "model", "messages": question(turn, number), **options}
                line = {"custom_id": str(number), "method": "POST", "url": CHAT, "body": body}
                file.write(json.dumps(line) + "\n")
        with source.open("rb") as lines, contextlib.closing(Book(target)) as book:
            await answer_lines(lines, book, send, service.limits, concurrency, lambda: None)
        found = [json.loads(line)["response"]["body"]["usage"] for line in target.read_text("utf-8").splitlines()]
        assert [usage["completion_tokens"] for usage in found] == [tokens] * requests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="default: the demo model")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    rates: dict[str, list[float]] = {"engine": [], "batch": []}
    with Assistant.load(given.model, **({} if given.model else {"dtype": "float32"})) as assistant:
        for turn in range(-1, given.rounds):  # the first warms up
            order = [("engine", by_engine), ("batch", by_batch)]
            for name, work in order if turn % 2 else reversed(order):
                begin = time.perf_counter()
                asyncio.run(work(assistant, f"{turn} {name}", given.requests, given.new_tokens, given.concurrency))
                if turn >= 0:
                    rates[name].append(given.requests * given.new_tokens / (time.perf_counter() - begin))
    ratios = [batch / engine for batch, engine in zip(rates["batch"], rates["engine"], strict=True)]
    for name, values in rates.items():
        print(f"{name:8} {statistics.median(values):8.1f} tokens/s   ({', '.join(f'{value:.1f}' for value in values)})")
    print(f"ratio    {statistics.median(ratios):8.3f}            ({', '.join(f'{value:.3f}' for value in ratios)})")
    about = {name: getattr(given, name) for name in ("model", "concurrency", "requests", "new_tokens", "rounds")}
    print(json.dumps({"machine": machine(), **about, "tokens_per_second": rates, "ratios": ratios}))


if __name__ == "__main__":
    main()
