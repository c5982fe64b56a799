"""How long a model's code waits for its interpreter, what a kernel takes, and how soon one that does harm is stopped.

    python benchmarks/bench_interpreter.py [--times 9] [--tier full|confined] [--json FILE]

Every figure is a median of so many measurements, each in a kernel of its own where that matters. Reaction and overshoot
are those of cells that take memory, disk and files as fast as they can.

Prints a table for people and one JSON line for machines, with the load of the machine before and after. Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import machine

from chatglm.tools.interpreter.kernel import Kernel
from chatglm.tools.interpreter.limits import Limits
from chatglm.tools.interpreter.pool import Kernels
from chatglm.tools.interpreter.sandbox import Tier, protection
from chatglm.tools.interpreter.watchdog import _memory

MIB = 1 << 20
GOALS = {
    "cold start, s": 1.0,
    "first cell with a spare kernel, s": 0.2,
    "memory before imports, MiB": 30.0,
    "round trip of a cell, ms": 20.0,
    "kill, s": 0.2,
    "reaction to too much memory, s": 0.5,
    "reaction to too much on the disk, s": 0.5,
    "reaction to too many files, s": 0.5,
    "overshoot of memory, %": 40.0,
}
PLOT = "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3]); plt.title('中文'); plt.show()"
MEMORY = """
import time
taken = []
while True:
    taken.append(bytearray(b"x" * (8 << 20)))
    print(len(taken) * 8 + {base}, time.time())
"""
DISK = """
import time
for number in range(10_000):
    with open(f"f{{number}}", "wb") as file: file.write(bytes(8 << 20))
    print((number + 1) * 8, time.time())
"""
FILES = """
import time
for number in range(1_000_000):
    open(f"f{{number}}", "w").close()
    if number % 50 == 0: print(number + 1, time.time())
"""


async def measured(times: int, tier: Tier | None) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in GOALS}
    for name in ("memory with the usual imports, MiB", "the usual imports, s", "first plot, s", "another plot, s"):
        found[name] = []
    for name in ("overshoot on the disk, %", "overshoot of files, %"):
        found[name] = []
    with tempfile.TemporaryDirectory() as root:
        for number in range(times):
            await starts(Path(root) / f"start{number}", tier, found)
        for number in range(max(3, times // 3)):
            await imports(Path(root) / f"import{number}", tier, found)
            await spares(Path(root) / f"spare{number}", tier, found)
            await harms(Path(root) / f"harm{number}", tier, found)
    return found


async def starts(folder: Path, tier: Tier | None, found: dict[str, list[float]]) -> None:
    begun = time.perf_counter()
    kernel = await Kernel.start(folder, tier=tier)
    found["cold start, s"].append(time.perf_counter() - begun)
    found["memory before imports, MiB"].append(memory(kernel))
    for _ in range(20):
        begun = time.perf_counter()
        await kernel.run("1")
        found["round trip of a cell, ms"].append(1000 * (time.perf_counter() - begun))
    begun = time.perf_counter()
    await kernel.end("measured")
    found["kill, s"].append(time.perf_counter() - begun)
    await kernel.close()


async def imports(folder: Path, tier: Tier | None, found: dict[str, list[float]]) -> None:
    kernel = await Kernel.start(folder, tier=tier)
    begun = time.perf_counter()
    await kernel.load()
    found["the usual imports, s"].append(time.perf_counter() - begun)
    found["memory with the usual imports, MiB"].append(memory(kernel))
    for name in ("first plot, s", "another plot, s"):
        begun = time.perf_counter()
        assert len((await kernel.run(PLOT)).pictures) == 1
        found[name].append(time.perf_counter() - begun)
    await kernel.close()


async def spares(home: Path, tier: Tier | None, found: dict[str, list[float]]) -> None:
    async with Kernels(home, tier=tier) as kernels:
        while not kernels._spares:
            await asyncio.sleep(0.05)
        begun = time.perf_counter()
        await kernels.run("conversation", "1")
        found["first cell with a spare kernel, s"].append(time.perf_counter() - begun)


async def harms(folder: Path, tier: Tier | None, found: dict[str, list[float]]) -> None:
    limits = Limits(memory=512 * MIB, folder=256 * MIB, files=2_000)
    for name, code, limit in (
        ("memory", MEMORY, limits.memory // MIB),
        ("disk", DISK, limits.folder // MIB),
        ("files", FILES, limits.files),
    ):
        kernel = await Kernel.start(folder / name, limits, tier=tier)
        cell = await kernel.run(code.format(base=round(memory(kernel))))
        ended = time.time()
        assert cell.ended, cell
        # When the limit was passed; or the last that was heard, if that is what ended it.
        steps = [tuple(map(float, line.split())) for line in re.findall(r"^\d+ \d+\.\d+$", cell.text, re.MULTILINE)]
        passed = next((at for amount, at in steps if amount > limit), steps[-1][1])
        which = {"memory": "too much memory", "disk": "too much on the disk", "files": "too many files"}[name]
        found[f"reaction to {which}, s"].append(ended - passed)
        if name == "files":
            over = len(os.listdir(folder / name)) / limit - 1
        else:
            over = int(re.findall(r"\((\d+) MiB\)", cell.ended)[0]) / limit - 1
        found[f"overshoot {'on the' if name == 'disk' else 'of'} {name}, %"].append(100 * over)
        await kernel.close()


def memory(kernel: Kernel) -> float:
    assert kernel._process is not None
    return sum(map(_memory, kernel._process.watchdog.started.result().processes())) / MIB


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=9)
    parser.add_argument("--tier", choices=("full", "confined"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    before = os.getloadavg()[0]
    begun = time.perf_counter()
    protection()
    probe = time.perf_counter() - begun
    found = asyncio.run(measured(arguments.times, arguments.tier))
    result: dict[str, Any] = {
        "machine": machine(),
        "tier": arguments.tier or protection().tier,
        "load": [round(before, 1), round(os.getloadavg()[0], 1)],
        "probe, s": round(probe, 3),
    }
    print(f"{'':40}{'median':>10}{'least':>10}{'most':>10}{'goal':>10}")
    for name, values in found.items():
        middle = statistics.median(values)
        result[name] = {"median": round(middle, 4), "least": round(min(values), 4), "most": round(max(values), 4)}
        goal = f"{GOALS[name]:g}" if name in GOALS else ""
        print(f"{name:40}{middle:10.3f}{min(values):10.3f}{max(values):10.3f}{goal:>10}")
    print(
        "tier {}, found in {} s; load average {} before, {} after".format(
            result["tier"], round(probe, 2), *result["load"]
        )
    )
    missed = [name for name, goal in GOALS.items() if statistics.median(found[name]) > goal]
    print(*(f"MISSED: {name}" for name in missed), sep="\n", end="\n" if missed else "")
    print(line := json.dumps(result))
    if arguments.json is not None:
        arguments.json.write_text(line + "\n", "utf-8")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
