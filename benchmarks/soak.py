"""Does a server stay whole when many clients use and misuse it for a long time?

    python benchmarks/soak.py [--streams 200] [--minutes 10] [--seed 0]

Starts `chatglm serve` with the demo model. So many clients at a time ask it for dialogues, tool calls, JSON that
follows a schema, plain completions and `api.py`'s answers, as streams and whole; some go away in the middle of an
answer or before it, some send what is wrong, and some what is meant to hurt (`tests/hostile.py`). At the end it must
hold that

- nothing failed: every answer is whole, what was wrong got its 4xx, and the only other refusal is 429; hostile requests
  got an answer or a refusal of theirs, and the process lives;
- no memory was lost: resident memory does not grow any more once the key/value memory has been touched;
- every page is back, nothing runs or waits;
- the server's figures are the clients' (of those that went away, the server alone knows how far they got).

Prints a table for people and one JSON line for machines; exits with 1 and says why where something does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from hostile import ALLOWED
from hostile import requests as hostile_requests

COMMAND = shutil.which("chatglm", path=str(Path(sys.executable).parent)) or "chatglm"
CHAT, TEXT, LEGACY = "/v1/chat/completions", "/v1/completions", "/"

WEATHER = {
    "name": "get_weather",
    "description": "查询城市的天气",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
PLACE = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["city", "age"],
    "additionalProperties": False,
}
HOSTILE = [one for one in hostile_requests() if one.model in ("", "demo")]
MOST_ANSWERS = 2048  # that a hostile request may get
QUESTIONS = ("你好", "你是谁？", "北京的天气怎么样？", "给我讲一个故事。", "1+1等于几？", "Hello!", "写一首诗吧", "🙂")


@dataclass(frozen=True)
class Ask:
    """One request, and what has to come of it.

    Attributes:
        body: JSON, or bytes that are none.
        status: what a wrong one is answered with; None: it is a right one.
        answers: that it asks for.
        hostile: any answer and any refusal will do, and how many answers were begun is not known.
    """

    kind: str
    path: str
    body: dict[str, Any] | bytes
    status: int | None = None
    answers: int = 1
    hostile: bool = False


def draw(rng: random.Random) -> Ask:
    """A request of some kind."""
    kinds = ("chat", "dialogue", "many", "tools", "schema", "text", "legacy", "wrong", "flood", "hostile")
    (kind,) = rng.choices(kinds, (6, 4, 2, 3, 2, 3, 2, 4, 0.1, 1))
    body: dict[str, Any] = {"model": "demo", "stream": rng.random() < 0.7, "max_tokens": rng.randrange(4, 48)}
    if body["stream"]:
        body["stream_options"] = {"include_usage": True}
    if rng.random() < 0.3:
        body |= {"temperature": rng.choice((0, 0.7, 1.5)), "top_p": 0.9, "seed": rng.randrange(1000)}
    if rng.random() < 0.2:
        body["stop"] = ["。", "\n"]
    if rng.random() < 0.15:
        body |= {"repetition_penalty": 1.1, "min_tokens": 3}
    said = [{"role": "user", "content": rng.choice(QUESTIONS)}]
    match kind:
        case "chat":
            if rng.random() < 0.2:
                body |= {"logprobs": True, "top_logprobs": 2}
            return Ask(kind, CHAT, {**body, "messages": said})
        case "dialogue":  # beginnings that come again, and ends that do not
            turns = [{"role": "system", "content": f"你是{rng.choice('甲乙丙丁')}。" + "请认真回答每一个问题。" * 12}]
            for _ in range(rng.randrange(4)):
                turns += [
                    {"role": "user", "content": rng.choice(QUESTIONS)},
                    {"role": "assistant", "content": str(rng.randrange(10**6))},
                ]
            return Ask(kind, CHAT, {**body, "messages": turns + said})
        case "many":
            n = rng.randrange(2, 5)
            return Ask(kind, CHAT, {**body, "messages": said, "n": n, "temperature": 1.0}, answers=n)
        case "tools":
            wrapped = [{"type": "function", "function": WEATHER}]
            choice = rng.choice(("auto", "required", {"type": "function", "function": {"name": "get_weather"}}))
            return Ask(kind, CHAT, {**body, "messages": said, "tools": wrapped, "tool_choice": choice})
        case "schema":
            shape = {"type": "json_schema", "json_schema": {"name": "place", "schema": PLACE}}
            body.pop("stop", None)
            return Ask(kind, CHAT, {**body, "max_tokens": 64, "messages": said, "response_format": shape})
        case "text":
            prompts = [rng.choice(QUESTIONS) for _ in range(rng.randrange(1, 4))]
            return Ask(kind, TEXT, {**body, "prompt": prompts}, answers=len(prompts))
        case "legacy":
            history = [["你好", "你好！"]] * rng.randrange(2)
            return Ask(kind, LEGACY, {"prompt": said[0]["content"], "history": history, "max_length": 256})
        case "flood":  # more than may wait
            return Ask(kind, TEXT, {**body, "prompt": [f"第{n}题" for n in range(200)]}, answers=200)
        case "hostile":
            one = rng.choice(HOSTILE)
            return Ask(f"hostile: {one.name}", one.path, one.content, answers=MOST_ANSWERS, hostile=True)
    wrong: list[tuple[str, dict[str, Any] | bytes, int]] = [
        (CHAT, b'{"model": "demo", "messages": [', 400),
        (CHAT, b"\xff\xfe", 400),
        (CHAT, b"[]", 400),
        (CHAT, {**body, "messages": "hello"}, 400),
        (CHAT, {**body, "messages": []}, 400),
        (CHAT, {**body, "messages": said, "max_tokens": "many"}, 400),
        (CHAT, {**body, "messages": said, "temperature": -1}, 400),
        (CHAT, {**body, "messages": said, "model": "gpt-9"}, 404),
        (CHAT, {**body, "messages": said, "colour": "red"}, 400),
        (CHAT, {**body, "messages": [{"role": "wizard", "content": "?"}]}, 400),
        (CHAT, {**body, "messages": [{"role": "user", "content": "长" * 4000}]}, 400),
        (CHAT, {**body, "messages": said, "response_format": {"type": "regex", "pattern": "("}}, 400),
        (TEXT, {**body, "prompt": []}, 400),
        (TEXT, {**body, "prompt": [10**9]}, 400),
        (TEXT, {**body, "prompt": "word " * 4000}, 400),
        (LEGACY, {"prompt": 5}, 400),
        (LEGACY, {"prompt": "?", "history": [["one"]]}, 400),
    ]
    path, content, status = rng.choice(wrong)
    return Ask(kind, path, content, status)


@dataclass
class Counts:
    """What the clients met.

    Attributes:
        statuses: by (route, status); of those that went away before there was one, by route.
        reasons: of whole answers; how they ended.
        tokens: (prompt, completion) of whole requests, as their usage says.
        left: answers that nobody waited for, at most and at least so many begun.
        failures: what should not have been.
        hostile: requests that were meant to hurt.
        kinds: whole requests of each kind.
    """

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    left: int = 0
    perhaps: int = 0
    chunks: int = 0
    failures: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    hostile: int = 0
    first: list[float] = field(default_factory=list)


async def events(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """Of a stream; ends with [DONE], or raises."""
    async for line in answer.aiter_lines():
        if line == "data: [DONE]":
            return
        if line.startswith("data: "):
            yield json.loads(line[6:])
    raise ValueError("the stream ended without [DONE]")


def check_chat(kind: str, choice: dict[str, Any], message: dict[str, Any]) -> None:
    """What a whole answer of a kind has to be like.

    Raises:
        ValueError: it is not.
    """
    reason = choice["finish_reason"]
    if kind == "schema" and reason == "stop":
        made = json.loads(message["content"])
        if made.keys() != {"city", "age"}:
            raise ValueError(f"the schema asks for city and age, not {made}")
    calls = message.get("tool_calls") or []
    for number, call in enumerate(calls):
        if call["function"]["name"] != "get_weather":
            raise ValueError(f"no call of get_weather: {call}")
        # The last call of an answer that max_tokens has cut may have a part of its arguments only.
        whole = reason != "length" or number < len(calls) - 1
        if whole and not isinstance(json.loads(call["function"]["arguments"]), dict):
            raise ValueError(f"no arguments of get_weather: {call}")


async def request(client: httpx.AsyncClient, ask: Ask, leave: int | None, counts: Counts) -> None:
    """Send it and read what comes; go away after `leave` events (0: at once), if that is not None."""
    data = ask.body if isinstance(ask.body, bytes) else json.dumps(ask.body).encode()
    streaming = isinstance(ask.body, dict) and bool(ask.body.get("stream"))
    begin = time.monotonic()
    answer = None
    try:
        sending = client.build_request("POST", ask.path, content=data, headers={"Content-Type": "application/json"})
        answer = await client.send(sending, stream=True)
        status = answer.status_code
        counts.statuses[ask.path, status] += 1
        if ask.hostile:
            counts.perhaps += ask.answers
            problem = await answer.aread()
            if status not in ALLOWED:
                counts.failures.append(f"{ask.kind}: status {status}: {problem[:200]!r}")
            counts.hostile += 1
            return
        if status != 200:
            problem = await answer.aread()
            if status == 429 and answer.headers.get("Retry-After", "").isdigit():
                counts.perhaps += ask.answers  # of several prompts some may have begun
            elif status != ask.status:
                counts.failures.append(f"{ask.kind}: status {status}: {problem[:200]!r}")
            return
        if ask.status is not None:
            counts.failures.append(f"{ask.path} {data[:100]!r}: status 200, and {ask.status} was due")
        if streaming:
            reasons, usage, n = Counter[str](), {}, 0
            async for event in events(answer):
                n += 1
                if n == 1:
                    counts.first.append(time.monotonic() - begin)
                if "error" in event:
                    counts.failures.append(f"{ask.kind}: within the stream: {event['error']}")
                    return
                reasons.update(c["finish_reason"] for c in event["choices"] if c["finish_reason"])
                usage = event.get("usage") or usage
                if leave is not None and n > leave:
                    counts.left += ask.answers
                    return
            counts.chunks += n
        else:
            whole = json.loads(await answer.aread())
            if ask.path == LEGACY:
                if whole["status"] != 200 or not isinstance(whole["response"], str):
                    raise ValueError(f"api.py's dialect: {whole}")
                counts.kinds[ask.kind] += 1
                counts.reasons["legacy"] += 1
                return
            usage, reasons = whole["usage"], Counter(choice["finish_reason"] for choice in whole["choices"])
            if ask.path == CHAT:
                for choice in whole["choices"]:
                    check_chat(ask.kind, choice, choice["message"])
        if reasons.total() != ask.answers:
            raise ValueError(f"{ask.answers} answers asked for, {reasons} came")
        counts.reasons += reasons
        counts.kinds[ask.kind] += 1
        counts.prompt_tokens += usage["prompt_tokens"]
        counts.completion_tokens += usage["completion_tokens"]
    except asyncio.CancelledError:
        if answer is None:
            counts.unknown[ask.path] += 1
            counts.perhaps += ask.answers
        elif ask.hostile:
            counts.perhaps += ask.answers
        else:
            counts.left += ask.answers
        raise
    except (httpx.HTTPError, ValueError, LookupError) as error:
        counts.failures.append(f"{ask.kind}: {type(error).__name__}: {error}")
    finally:
        if answer is not None:
            await answer.aclose()


async def client_of(url: str, rng: random.Random, until: float, counts: Counts) -> None:
    """One client after another; each asks something, and some lose patience."""
    async with httpx.AsyncClient(base_url=url, timeout=600, verify=False, trust_env=False) as client:
        while time.monotonic() < until:
            ask = draw(rng)
            fate = rng.random()
            leave = rng.randrange(12) if fate < 0.15 and ask.status is None else None
            doing = request(client, ask, leave, counts)
            if fate > 0.92 and ask.status is None:
                task = asyncio.ensure_future(doing)
                await asyncio.wait([task], timeout=rng.random() * 2)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            else:
                await doing


def figures(url: str) -> dict[str, float]:
    """What `/metrics` says: name with labels, and value."""
    text = httpx.get(f"{url}/metrics", timeout=60, trust_env=False).text
    rows = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


def resident(process: int) -> float:
    """Memory of a process, in MB."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


@contextmanager
def served(log: Path) -> Iterator[tuple[int, str]]:
    """A server with the demo model: process and address. What it says goes to the log."""
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            [COMMAND, "serve", "--port", "0", "--name", "demo"],
            stdout=subprocess.DEVNULL,
            stderr=out,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    try:
        while not (found := re.search(r"running on (http://\S+)", log.read_text("utf-8"))):
            if process.poll() is not None:
                raise RuntimeError(f"the server ended: {log.read_text('utf-8')}")
            time.sleep(0.1)
        yield process.pid, found[1]
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()
        process.wait()


def fill(url: str) -> None:
    """Touch all of the key/value memory: prompts that have nothing in common, until no page is new."""
    page, total = 64, int(figures(url)['chatglm_engine_pages_total{model="demo"}'])
    with httpx.Client(base_url=url, timeout=600, trust_env=False) as client:
        for number in range(-(-total * page // 1900) + 1):
            ids = [100 + (number * 7919 + place * 31) % 4000 for place in range(1900)]
            client.post(TEXT, json={"model": "demo", "prompt": ids, "max_tokens": 1}).raise_for_status()


async def use(url: str, process: int, streams: int, seconds: float, seed: int) -> tuple[Counts, list[float]]:
    """Clients for so long; what they met, and the server's memory, once a second."""
    counts, memory = Counts(), [resident(process)]
    until = time.monotonic() + seconds

    async def watch() -> None:
        while True:
            await asyncio.sleep(1)
            memory.append(resident(process))
            if sys.stderr.isatty():
                done = counts.kinds.total()
                print(f"\r{until - time.monotonic():5.0f} s left, {done} whole answers", end="", file=sys.stderr)

    watching = asyncio.ensure_future(watch())
    await asyncio.gather(*(client_of(url, random.Random(f"{seed} {n}"), until, counts) for n in range(streams)))
    watching.cancel()
    return counts, memory


def settled(url: str) -> dict[str, float]:
    """The figures once nothing is under way any more; the last ones if that does not come."""
    for _ in range(300):
        now = figures(url)
        if not any(now.get(f'chatglm_{name}{{model="demo"}}') for name in ("answers_running", "engine_running")):
            break
        time.sleep(0.1)
    return now


def compare(counts: Counts, before: dict[str, float], after: dict[str, float]) -> list[str]:
    """Where the server's figures are not what the clients met."""
    wrong = list(counts.failures)

    def since(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    def ours(name: str) -> float:
        return since(f'chatglm_{name}{{model="demo"}}')

    for name in ("answers_running", "engine_running", "engine_waiting", "engine_pages_used"):
        if left := after[f'chatglm_{name}{{model="demo"}}']:
            wrong.append(f"{name} is {left:g} when all is over")
    dialects = {CHAT: "openai", TEXT: "openai", LEGACY: "legacy"}
    for path, dialect in dialects.items():
        routes = re.compile(rf'chatglm_requests_total{{dialect="{dialect}",route="{re.escape(path)}",status="(\d+)"}}')
        said = Counter({int(found[1]): since(name) for name in after if (found := routes.fullmatch(name))})
        met = Counter({status: count for (of, status), count in counts.statuses.items() if of == path})
        # Who went away before there was an answer: answered or not (499), or never read at all.
        gone = sum(said[status] - met[status] for status in (200, 429, 499))
        differ = [status for status in said | met if status not in (200, 429, 499) and said[status] != met[status]]
        if differ or said[200] < met[200] or not 0 <= gone <= counts.unknown[path]:
            wrong.append(f"{path}: statuses {dict(said)} at the server, {dict(met)} and {counts.unknown[path]} unknown")
    reasons = {
        found[1]: since(name)
        for name in after
        if (found := re.fullmatch(r'chatglm_answers_total{model="demo",reason="(.+)"}', name))
    }
    whole = counts.reasons.total()
    if not whole + counts.left <= sum(reasons.values()) <= whole + counts.left + counts.perhaps:
        wrong.append(
            f"answers: {reasons} at the server; {whole} whole, {counts.left} left, up to {counts.perhaps} perhaps begun"
        )
    for reason in ("stop", "length", "tool_calls"):
        if reasons.get(reason, 0) < counts.reasons[reason]:
            wrong.append(f"answers: {reason}: {reasons} at the server, {counts.reasons} at the clients")
    if reasons.get("failed", 0) > counts.hostile * MOST_ANSWERS:
        wrong.append(f"answers: {reasons['failed']:g} failed")
    # What was finished for those that went away, and api.py's dialect, which tells no usage.
    beyond = sum(reasons.get(r, 0) - counts.reasons[r] for r in ("stop", "length", "tool_calls"))
    for name, met in (("prompt", counts.prompt_tokens), ("completion", counts.completion_tokens)):
        if not met <= ours(f"{name}_tokens_total") <= met + beyond * 2048 + 1e-9:
            wrong.append(f"{name} tokens: {ours(f'{name}_tokens_total'):g} at the server, {met} at the clients")
        theirs = {"prompt": "prompt", "completion": "generated"}[name]
        if ours(f"engine_{theirs}_tokens_total") < ours(f"{name}_tokens_total"):
            wrong.append(f"{name} tokens: {ours(f'engine_{theirs}_tokens_total'):g} in the engine, fewer than answered")
    if ours("time_to_first_token_seconds_count") > sum(reasons.values()):
        wrong.append("more first tokens than answers")
    return wrong


def growth(memory: list[float]) -> float:
    """MB an hour, after a warm-up of a third: the median of slopes, which single samples do not move."""
    rest = memory[len(memory) // 3 :]
    half = len(rest) // 2
    slopes = [(rest[n + half] - rest[n]) / half for n in range(len(rest) - half)] if half else [0.0]
    return statistics.median(slopes) * 3600


def soak(streams: int, seconds: float, seed: int = 0, *, fill_first: bool = True) -> tuple[dict[str, Any], list[str]]:
    """A server and its clients.

    Args:
        fill_first: touch all of the key/value memory before, so that growth is a loss.

    Returns:
        figures, and what did not hold.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with served(log) as (process, url):
            if fill_first:
                fill(url)
            before = settled(url)
            counts, memory = asyncio.run(use(url, process, streams, seconds, seed))
            after = settled(url)
            end = resident(process)
        wrong = compare(counts, before, after)
        said = log.read_text("utf-8")
        if "Traceback" in said or "ERROR" in said:
            wrong.append(f"the server's log: {said[-3000:]}")
    name = 'chatglm_{}{{model="demo"}}'.format
    generated = after[name("engine_generated_tokens_total")] - before[name("engine_generated_tokens_total")]
    result = {
        "streams": streams,
        "seconds": seconds,
        "requests": sum(counts.statuses.values()) + counts.unknown.total(),
        "whole": dict(counts.kinds),
        "hostile": counts.hostile,
        "statuses": {f"{path} {status}": count for (path, status), count in sorted(counts.statuses.items())},
        "left": counts.left,
        "gone before a status": counts.unknown.total(),
        "tokens_per_s": round(generated / seconds, 1),
        "first_token_median_s": round(statistics.median(counts.first), 3) if counts.first else None,
        "preemptions": after[name("engine_preemptions_total")],
        "memory_mb": {"before": round(memory[0], 1), "most": round(max(memory), 1), "after": round(end, 1)},
        "memory_curve_mb": [round(memory[n * (len(memory) - 1) // 10]) for n in range(11)],
        "growth_mb_per_hour": round(growth(memory), 1),
    }
    return result, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    result, wrong = soak(arguments.streams, arguments.minutes * 60, arguments.seed)
    most = 5.0  # MB that a run may grow by; an hour of it for short ones
    grown = result["growth_mb_per_hour"] * max(arguments.minutes / 60, 1 / 60)
    if grown > most:
        wrong.append(f"memory: grew by {grown:.1f} MB after the warm-up")
    for key, value in result.items():
        print(f"{key:>22}  {value}")
    for line in wrong[:20]:
        print(f"WRONG: {line}")
    print(json.dumps({**result, "wrong": len(wrong)}, ensure_ascii=False))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
