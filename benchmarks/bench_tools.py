"""What a tool's call costs, and how long the worst that a model can write takes to be refused.

    python benchmarks/bench_tools.py [--count 10000]

- outputs: what models write where a call should be (`tests/tools/model_outputs.py`), read as ChatGLM3's and as GLM-4's
  syntax and given to a toolbox. At most 50 ms each is what we hold ourselves to; the time is this thread's on the
  processor, so that other programs do not count.
- call: a plain function, which gets a thread, and a coroutine; both from a thread that waits (`call_now`).
- tool: a function with a nested type made into a tool; pydantic is imported once before.

Prints a table, and one JSON line for machines.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "tools"))

from common import machine
from model_outputs import outputs

from chatglm.chat.calls import parse_json_arguments, parse_python_call
from chatglm.chat.messages import ToolCall
from chatglm.tools import Function, Toolbox


@dataclass
class Point:
    x: int
    y: float = 0.0


async def echo(x: Any) -> Any:
    """Says it again."""
    return x


def plain(x: int) -> int:
    """The same."""
    return x


def structured(points: list[Point], name: str = "") -> int:
    """Counts points."""
    return len(points)


async def worst(count: int) -> list[tuple[float, str]]:
    """Milliseconds of each output, the slowest last."""
    times = []
    with Toolbox([echo, plain]) as box, tempfile.TemporaryDirectory() as folder:
        for text in outputs(count, f"{folder}/ran"):
            name, _, body = text.partition("\n")
            for parse in (parse_python_call, parse_json_arguments):
                begun = time.thread_time()
                arguments = parse(body)
                await box.call(ToolCall(name, arguments or {}, text=body if arguments is None else None))
                times.append(((time.thread_time() - begun) * 1e3, f"{parse.__name__} {len(text)} {text[:40]!r}"))
        assert not Path(folder, "ran").exists()
    return sorted(times)


def median(work: Callable[[], Any], times: int = 300) -> float:
    """Milliseconds by the clock."""
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        found.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    options = parser.parse_args()
    times = asyncio.run(worst(options.count))
    with Toolbox([echo, plain]) as box:
        figures = {
            "output_ms_median": times[len(times) // 2][0],
            "output_ms_worst": times[-1][0],
            "call_function_ms": median(lambda: box.call_now([ToolCall("plain", {"x": 1})])),
            "call_coroutine_ms": median(lambda: box.call_now([ToolCall("echo", {"x": 1})])),
            "make_tool_ms": median(lambda: Function.of(structured), 50),
        }
    print(machine())
    for name, value in figures.items():
        print(f"{name:20} {value:8.3f}")
    print("slowest:", *(f"{milliseconds:.1f} ms {what}" for milliseconds, what in times[-3:]), sep="\n  ")
    print(json.dumps({"machine": machine(), "count": options.count, **figures}, ensure_ascii=False))


if __name__ == "__main__":
    main()
