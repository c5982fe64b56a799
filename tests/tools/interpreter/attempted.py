"""A host that starts a bare shell in the sandbox and lets it try things: `python attempted.py OPTIONS`, as JSON.

Run in a process of its own, so that it can be another user's; prints a report as JSON. Needs the standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

from attempts import Attempt, Surroundings

from chatglm.tools.interpreter.limits import Limits
from chatglm.tools.interpreter.sandbox import Confined, start

LIMITS = Limits(memory=1 << 30, file=16 << 20, processes=32, open_files=256)


def ask(confined: Confined, code: str, seconds: float = 20.0) -> str:
    """What a cell printed, or how it failed."""
    data = code.encode()
    confined.channel.settimeout(seconds)
    try:
        confined.channel.sendall(struct.pack(">I", len(data)) + data)
        size = struct.unpack(">I", exactly(confined.channel, 4))[0]
        return exactly(confined.channel, size).decode()
    except (OSError, EOFError) as error:
        with contextlib.suppress(OSError):
            return f"GONE {error!r} {os.read(confined.printed, 2000).decode()}"
        return f"GONE {error!r}"


def exactly(channel: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = channel.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def memory_segments() -> set[str]:
    found = set()
    for kind in ("shm", "sem", "msg"):
        lines = Path("/proc/sysvipc", kind).read_text().splitlines()[1:]
        found |= {f"{kind} {line.split()[1]}" for line in lines}
    return found


def alive(processes: list[int]) -> list[int]:
    return [process for process in processes if _runs(process)]


def _runs(process: int) -> bool:
    """Whether it is there and no zombie: when the parent of those is gone, init takes its time."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def of_user(uid: int) -> list[int]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{name}").st_uid == uid:
                found.append(int(name))
    return found


def attempt(options: dict[str, Any], around: Surroundings, wanted: list[Attempt]) -> dict[str, Any]:
    began = time.monotonic()
    before = memory_segments()
    given: dict[str, Any] = {"tier": options["tier"], "abi": options.get("abi")}
    given["without"] = frozenset(options.get("without", ()))
    confined = start(around.mine, LIMITS, **given)
    report: dict[str, Any] = {"attempts": {}}
    for each in wanted:
        started = time.monotonic()
        printed = ask(confined, each.code)
        lines = [line for line in printed.splitlines() if line.startswith(("GOT", "no:", "GONE", "Traceback"))]
        after = ask(confined, "print(40 + 2)").strip()
        report["attempts"][each.name] = {
            "lines": lines or [printed[-300:]],
            "arrived": around.arrived(),
            "after": after,
            "seconds": round(time.monotonic() - started, 2),
        }
    processes = confined.processes()
    user = os.stat(around.mine).st_uid
    ending = time.monotonic()
    confined.end()
    report["end"] = round(time.monotonic() - ending, 3)
    left = [f"process {process}" for process in alive(processes)]
    if user != os.getuid():
        left += [f"process {process} of the user" for process in of_user(user)]
    left += sorted(memory_segments() - before)
    left += [name for name in (".tmp",) if (around.mine / name).is_symlink() or (around.mine / name).exists()]
    beat = around.mine / "beat"
    if beat.exists():
        last = beat.stat().st_mtime_ns
        time.sleep(0.2)
        left += ["the daemon"] * (beat.stat().st_mtime_ns != last)
    report["left"] = left + around.arrived()
    confined.channel.close()
    os.close(confined.printed)
    if any(each.name.startswith("24") for each in wanted):
        again = start(around.mine, LIMITS, **given)
        report["next"] = ask(again, "import os, json; print(os.environ.get('POISONED'), os.environ.get('LD_PRELOAD'))")
        again.end()
    report["seconds"] = round(time.monotonic() - began, 1)
    return report


def live(options: dict[str, Any], around: Surroundings) -> None:
    """Start one with a daemon in it, say which processes there are, and wait to be killed."""
    confined = start(around.mine, LIMITS, tier=options["tier"], abi=options.get("abi"))
    daemon = next(each for each in around.attempts() if each.name.startswith("20"))
    printed = ask(confined, daemon.code)
    print(json.dumps({"processes": confined.processes(), "printed": printed}), flush=True)
    time.sleep(60)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    with Surroundings() as surroundings:
        if asked.get("live"):
            live(asked, surroundings)
        else:
            names = tuple(asked.get("names", ("",)))
            chosen = [each for each in surroundings.attempts() if each.name.startswith(names) and not each.watched]
            print(json.dumps(attempt(asked, surroundings, chosen)))
