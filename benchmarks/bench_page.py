"""Many users of the page at once: does everybody get an answer, how soon does it begin, does anybody see another's?

    python benchmarks/bench_page.py [--users 50] [--coders 10] [--seconds 60] [--pause 1]
        [--json FILE]

Starts `chatglm web` on the demo model. Each user is a browser of its own that asks one question after the other, and
`coders` of them let the code interpreter compute; of those, as many run at once as there are kernels (eight), and the
others wait. Every text that a user sends has a word of its own, which is looked for in all that other users get.

"The engine alone" is as many clients of the model in one process, without the page. Both run on the same machine, and
so do the clients. "Added by the page" is, for each answer, what its reader saw less what the conversation itself has
measured (`first_seconds`).

Prints a table for people and one JSON line for machines. Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from common import machine

GOAL_ADDED, GOAL_STALL, GOAL_MEMORY = 0.2, 100.0, 150.0
ASK = "请重复：{word}"
CODE = "计算 {number}*34"


# The server: `chatglm web` as it is, and a look at its event loop


def serve(report: Path) -> int:
    from chatglm.cli import main
    from chatglm.serving import connections

    class Watched(connections.BareServer):
        """Measures for how long nothing else can happen in the event loop."""

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            self.gaps: list[float] = []
            self.watch = asyncio.create_task(self.look())

        async def look(self) -> None:
            last = time.perf_counter()
            while True:
                await asyncio.sleep(0.002)
                now = time.perf_counter()
                self.gaps.append(now - last - 0.002)
                last = now

        async def shutdown(self, sockets: Any = None) -> None:
            self.watch.cancel()
            gaps = sorted(self.gaps)
            worst = {"longest": gaps[-1], "above 50 ms": sum(gap > 0.05 for gap in gaps), "looks": len(gaps)}
            worst["above 100 ms"] = sum(gap > 0.1 for gap in gaps)
            report.write_text(json.dumps(worst), "utf-8")
            await super().shutdown(sockets)

    connections.BareServer = Watched  # type: ignore[misc]
    return main(["web", "--port", "0"])


def resident(process: int) -> float:
    """MiB of memory of a process, without those that it has started."""
    status = Path(f"/proc/{process}/status").read_text("utf-8")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


# The users


@dataclass
class User:
    number: int
    codes: bool
    got: list[str] = field(default_factory=list)  # all that the server has sent
    asked: int = 0
    answered: int = 0
    told: int = 0  # that all kernels are busy
    failures: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    added: list[float] = field(default_factory=list)

    @property
    def word(self) -> str:
        return f"m{self.number:03d}x"


async def use(user: User, url: str, end: float, pause: float) -> None:
    limits = httpx.Limits(max_connections=2)
    headers = {"Origin": url.removesuffix("/ui"), "Accept-Language": "zh"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120, limits=limits) as client:
        settings = {"mode": "code" if user.codes else "chat", "params": {"temperature": 0}}
        made = await client.post("/conversations", json={"settings": settings, "title": f"title {user.word}"})
        if made.status_code != 201:
            user.failures.append(made.text)
            return
        conversation = made.json()["id"]
        await client.put(f"/c/{conversation}/files/{user.word}.txt", content=user.word.encode())
        while time.perf_counter() < end:
            await ask(user, client, conversation)
            user.got.append((await client.get(f"/c/{conversation}")).text)
            user.got.append((await client.get("/conversations", params={"search": "m0"})).text)
            if user.asked % 4 == 0:  # a conversation that never ends would only measure its length
                conversation = (await client.post("/conversations", json={"settings": settings})).json()["id"]
            await asyncio.sleep(pause)


async def ask(user: User, client: httpx.AsyncClient, conversation: str) -> None:
    text = CODE.format(number=100 + user.number) if user.codes else ASK.format(word=user.word)
    began = time.perf_counter()
    user.asked += 1
    sent = await client.post(f"/c/{conversation}/send", json={"text": text})
    if sent.status_code != 202:
        user.failures.append(sent.text)
        return
    first, kind, data = 0.0, "", ""
    async with client.stream("GET", f"/c/{conversation}/events", params=sent.json()) as response:
        async for line in response.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                data = value
                user.got.append(data)
                if kind in ("text", "calling") and not first:
                    first = time.perf_counter() - began
                if kind == "answered" and "kernels are running code" in data:
                    user.told += 1
    if kind != "done":
        user.failures.append(data[:300])
        return
    user.answered += 1
    user.first.append(first)
    user.added.append(first - json.loads(data)["first_seconds"])


async def all_use(users: list[User], url: str, seconds: float, pause: float = 1.0) -> float:
    """Seconds that it took."""
    began = time.perf_counter()
    await asyncio.gather(*(use(user, url, began + seconds, pause) for user in users))
    return time.perf_counter() - began


# The engine alone


async def alone(users: int, seconds: float, pause: float) -> list[float]:
    """Seconds to the first token of so many clients at once."""
    from chatglm.assistant import Assistant, TextDelta

    first: list[float] = []

    async def client(number: int, assistant: Assistant, end: float) -> None:
        while time.perf_counter() < end:
            began, seen = time.perf_counter(), False
            text = ASK.format(word=f"m{number:03d}x")
            async for delta in assistant.astream(text, params={"temperature": 0}, client=str(number)):
                if isinstance(delta, TextDelta) and not seen:
                    first.append(time.perf_counter() - began)
                    seen = True
            await asyncio.sleep(pause)

    with Assistant.load(dtype="float32") as assistant:
        end = time.perf_counter() + seconds
        await asyncio.gather(*(client(number, assistant, end) for number in range(users)))
    return first


def measured(given: argparse.Namespace) -> dict[str, Any]:
    users = [User(number, number < given.coders) for number in range(given.users)]
    loads = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(report)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "CHATGLM_HOME": folder},
        )
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"the page is at (\S+)/ ", line):
                break
        else:
            raise SystemExit("".join(lines))
        url = f"{found[1]}/ui"
        warm = User(len(users), codes=False)
        asyncio.run(all_use([warm], url, 2))
        before = resident(process.pid)
        took = asyncio.run(all_use(users, url, given.seconds, given.pause))
        after = resident(process.pid)
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
        process.wait(60)
        process.stderr.close()
        loop = json.loads(report.read_text("utf-8"))
    leaks = []
    for user in users:
        seen = set(re.findall(r"m\d{3}x", "\n".join(user.got))) - {user.word}
        leaks += [f"{user.word} saw {other}" for other in sorted(seen)]
    engine = asyncio.run(alone(given.users, min(given.seconds, 20), given.pause))
    talkers = [user for user in users if not user.codes]
    first = sorted(seconds for user in talkers for seconds in user.first)
    added = sorted(seconds for user in talkers for seconds in user.added)
    coders = sorted(seconds for user in users if user.codes for seconds in user.first)
    return {
        "users": len(users),
        "with the interpreter": given.coders,
        "pause, s": given.pause,
        "load before and after": [loads, round(os.getloadavg()[0], 1)],
        "seconds": round(took, 1),
        "questions": sum(user.asked for user in users),
        "answered": sum(user.answered for user in users),
        "failures": [failure for user in users for failure in user.failures][:5],
        "cells told that all kernels are busy": sum(user.told for user in users),
        "answers a second": round(sum(user.answered for user in users) / took, 1),
        "first token, s": spread(first),
        "first token with the interpreter, s": spread(coders),
        "first token of the engine alone, s": spread(sorted(engine)),
        "added by the page, s": spread(added),
        "others' words seen": leaks[:5],
        "event loop held, longest, ms": round(loop["longest"] * 1000, 1),
        "event loop held above 100 ms, times": loop["above 100 ms"],
        "event loop held above 50 ms, times": loop["above 50 ms"],
        "looks at the event loop": loop["looks"],
        "memory before, MiB": round(before, 1),
        "memory more after, MiB": round(after - before, 1),
        "said by the server": [line for line in errors.splitlines() if "/mine?key=" not in line][-5:],
        "machine": machine(),
    }


def spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    return {
        "median": round(statistics.median(values), 3),
        "95 %": round(values[int(0.95 * (len(values) - 1))], 3),
        "most": round(values[-1], 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--coders", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--pause", type=float, default=1, help="seconds between an answer and the next question")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        return serve(given.serve)
    result = measured(given)
    for key, value in result.items():
        if key != "machine":
            print(f"{key:38} {value}")
    over = []
    if result["answered"] < result["questions"] or result["failures"]:
        over.append("not everybody was answered")
    if result["others' words seen"]:
        over.append("somebody saw another's text")
    if result["added by the page, s"].get("95 %", 0) > GOAL_ADDED:
        over.append(f"the page adds more than {GOAL_ADDED} s")
    if result["event loop held, longest, ms"] > GOAL_STALL:
        over.append(f"the event loop was held for more than {GOAL_STALL:g} ms")
    if result["memory more after, MiB"] > GOAL_MEMORY:
        over.append(f"more than {GOAL_MEMORY:g} MiB more")
    print("goals missed: " + ("; ".join(over) or "none"))
    line = json.dumps(result, ensure_ascii=False)
    print(line)
    if given.json:
        given.json.write_text(line + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
