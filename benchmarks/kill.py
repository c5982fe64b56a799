"""Is anything lost when the server is killed? kill -9 again and again, while tasks and a batch are under way.

    python benchmarks/kill.py [--kills 20] [--tasks 200] [--lines 500] [--seed N] [--json FILE]

A real `chatglm serve` with the demo model is killed at a random moment after it has begun, and started again over the
same home folder. Meanwhile a client sends tasks (ZhipuAI v4's `/async/chat/completions`) and a batch (`/v1/batches`).
What was acknowledged is followed to its end: each task and each line is answered, or reported failed, once.

That nothing runs twice to an end is counted in the server's own database: a trigger notes every end.

Prints a table for people and one JSON line for machines. Linux, or another system with signals.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from common import machine

TASK, RESULT = "/api/paas/v4/async/chat/completions", "/api/paas/v4/async-result/"
CHAT = "/v1/chat/completions"
PATIENCE_S = 600
LIFE_S = (0.05, 1.5)
"""The least and the most that a server lives once it is ready."""


class Server:
    """`chatglm serve`, which is killed and started again on the same port."""

    def __init__(self, home: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [sys.executable, "-m", "chatglm.cli", "serve", "--quiet", "--port", str(self.port)]
        self._environment = {**os.environ, "CHATGLM_HOME": str(home)}
        self._log = (home.parent / "server.log").open("ab")
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdout=subprocess.DEVNULL, stderr=self._log
        )
        until(self._ready)

    def _ready(self) -> bool:
        assert self._process.poll() is None, "the server has ended by itself; see server.log"
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        return False

    def kill(self) -> None:
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()


def until(true: Callable[[], Any], every: float = 0.05) -> Any:
    end = time.monotonic() + PATIENCE_S
    while not (found := true()):
        if time.monotonic() > end:
            raise TimeoutError("waited too long; see server.log")
        time.sleep(every)
    return found


def body(number: int) -> dict[str, Any]:
    """A request whose answer has 40 tokens."""
    messages = [{"role": "user", "content": f"{number} + {number} = ?"}]
    return {"model": "demo", "messages": messages, "max_tokens": 40, "min_tokens": 40}


def note_ends(database: Path) -> None:
    """From now on, the database writes down every end."""
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS ends (id TEXT, state TEXT)")
        connection.execute(
            "CREATE TRIGGER IF NOT EXISTS note_end AFTER UPDATE OF state ON tasks "
            "WHEN NEW.state IN ('done', 'failed') BEGIN INSERT INTO ends VALUES (NEW.id, NEW.state); END"
        )


def kill(kills: int, tasks: int, lines: int, seed: int) -> dict[str, Any]:
    """Do all of it; returns what is counted."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        home = Path(folder) / "home"
        home.mkdir()
        server = Server(home)
        stack.callback(server.close)
        client = stack.enter_context(httpx.Client(base_url=server.url, timeout=30))
        content = "".join(
            json.dumps({"custom_id": f"line {number}", "method": "POST", "url": CHAT, "body": body(number)}) + "\n"
            for number in range(lines)
        )
        file = client.post("/v1/files", files={"file": ("in.jsonl", content)}, data={"purpose": "batch"}).json()
        note_ends(home / "tasks.sqlite")
        started = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
        batch = client.post("/v1/batches", json=started).json()["id"]
        begin = time.monotonic()
        ids: list[str] = []
        running: list[int] = []
        for left in range(kills, 0, -1):
            life = time.monotonic() + chance.uniform(*LIFE_S)
            wanted = -(-(tasks - len(ids)) // left)  # of the rest, this life's share
            for number in range(len(ids), len(ids) + wanted):
                if time.monotonic() < life:
                    with contextlib.suppress(httpx.TransportError):
                        ids.append(client.post(TASK, json=body(number)).json()["id"])
            time.sleep(max(0.0, life - time.monotonic()))
            server.kill()
            running.append(_running(home / "tasks.sqlite"))
            server.start()
        for number in range(len(ids), tasks):
            ids.append(client.post(TASK, json=body(number)).json()["id"])
        states = Counter(until(lambda task=task: _ended(client, task)) for task in ids)
        done = until(lambda: _finished(client, batch), 0.2)
        counted = done["request_counts"]
        found = Counter(custom_id for custom_id in _output(client, done))
        with contextlib.closing(sqlite3.connect(home / "tasks.sqlite")) as connection:
            ends = Counter(name for (name,) in connection.execute("SELECT id FROM ends"))
        return {
            "machine": machine(),
            "kills": kills,
            "seconds": round(time.monotonic() - begin, 1),
            "running_when_killed": running,
            "tasks": {"acknowledged": len(ids), **states},
            "batch": {"state": done["status"], **counted},
            "lines_in_output": len(found),
            "lines_twice_in_output": sum(count > 1 for count in found.values()),
            "ended": len(ends),
            "ended_more_than_once": sum(count > 1 for count in ends.values()),
        }


def _running(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection:
        return int(connection.execute("SELECT count(*) FROM tasks WHERE state = 'running'").fetchone()[0])


def _ended(client: httpx.Client, task: str) -> str:
    answer = client.get(RESULT + task)
    if answer.status_code == 404:
        return "lost"
    state = str(answer.json()["task_status"])
    return "" if state == "PROCESSING" else {"SUCCESS": "done", "FAIL": "failed"}[state]


def _finished(client: httpx.Client, batch: str) -> dict[str, Any] | None:
    found: dict[str, Any] = client.get(f"/v1/batches/{batch}").json()
    return found if found["status"] in ("completed", "failed", "expired", "cancelled") else None


def _output(client: httpx.Client, batch: dict[str, Any]) -> Iterator[str]:
    for name in ("output_file_id", "error_file_id"):
        if batch[name] is not None:
            for line in client.get(f"/v1/files/{batch[name]}/content").text.splitlines():
                yield json.loads(line)["custom_id"]


def wrong(result: dict[str, Any], tasks: int, lines: int) -> list[str]:
    """What does not add up."""
    counted = {name: result["tasks"].get(name, 0) for name in ("done", "failed", "lost")}
    checks = {
        f"of {tasks} tasks {counted['done']} are done, {counted['failed']} failed": counted["done"] + counted["failed"]
        == tasks,
        f"{counted['lost']} tasks are lost": counted["lost"] == 0,
        f"the batch is {result['batch']['state']}": result["batch"]["state"] == "completed",
        f"the output has {result['lines_in_output']} of {lines} lines": result["lines_in_output"] == lines,
        f"{result['lines_twice_in_output']} lines are there twice": result["lines_twice_in_output"] == 0,
        f"{result['ended_more_than_once']} ended more than once": result["ended_more_than_once"] == 0,
        f"{result['ended']} ends of {tasks + lines}": result["ended"] >= tasks + lines,
    }
    return [words for words, right in checks.items() if not right]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--lines", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = kill(arguments.kills, arguments.tasks, arguments.lines, arguments.seed)
    for name, value in result.items():
        if name != "machine":
            print(f"{name.replace('_', ' '):24}{value}")
    faults = wrong(result, arguments.tasks, arguments.lines)
    print(*(f"WRONG: {fault}" for fault in faults), sep="\n", end="\n" if faults else "")
    print(line := json.dumps(result))
    if arguments.json is not None:
        arguments.json.write_text(line + "\n", "utf-8")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
