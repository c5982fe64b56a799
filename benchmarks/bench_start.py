"""How long the package takes to start, as whole processes, in turns.

    python benchmarks/bench_start.py [--rounds 15] [--save]

Bounds that we hold it to, as medians: `import chatglm` 50 ms above Python's own start, `chatglm --help` 100 ms, and
`chatglm chat "你好"` 2 s. `--save` writes `results/bench_start.{json,md}`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import machine

RESULTS = Path(__file__).resolve().parent / "results"
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import chatglm": [sys.executable, "-c", "import chatglm"],
    "chatglm --help": [sys.executable, "-m", "chatglm.cli", "--help"],
    'chatglm chat "你好"': [sys.executable, "-m", "chatglm.cli", "chat", "你好"],
}
BOUNDS = {"import chatglm": 0.050, "chatglm --help": 0.100, 'chatglm chat "你好"': 2.0}


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds of each command, one of each in every round; a first round, which fills caches, does not count."""
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "CHATGLM_HOME": home}
        for number in range(rounds + 1):
            for name, command in COMMANDS.items():
                begun = time.perf_counter()
                subprocess.run(command, env=env, cwd=home, check=True, capture_output=True)
                if number:
                    taken[name].append(time.perf_counter() - begun)
    return taken


def report(taken: dict[str, list[float]]) -> str:
    """A table with medians; what the interpreter itself needs is taken off the import alone."""
    lines = ["| | median | fastest | slowest | bound | |", "|---|---|---|---|---|---|"]
    bare = statistics.median(taken["python -c pass"])
    for name, seconds in taken.items():
        off = bare if name == "import chatglm" else 0.0
        middle = statistics.median(seconds) - off
        bound = BOUNDS.get(name)
        verdict = "" if bound is None else "held" if middle <= bound else "MISSED"
        cells = [f"{1000 * (value - off):.0f} ms" for value in (statistics.median(seconds), min(seconds), max(seconds))]
        lines.append(
            f"| `{name}` | {' | '.join(cells)} | {'' if bound is None else f'{1000 * bound:.0f} ms'} | {verdict} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--save", action="store_true", help="write results/bench_start.json and .md")
    arguments = parser.parse_args()
    taken = measure(arguments.rounds)
    table = report(taken)
    print(machine(), table, sep="\n\n")
    if arguments.save:
        about = {"machine": machine(), "rounds": arguments.rounds, "seconds": taken}
        (RESULTS / "bench_start.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", "utf-8")
        command = f"python benchmarks/bench_start.py --rounds {arguments.rounds} --save"
        text = (
            f"# How long the package takes to start\n\n`{command}`. Whole processes, in turns; `import chatglm` is "
            f"without the interpreter's own start.\n\n```\n{machine()}\n```\n\n"
        )
        (RESULTS / "bench_start.md").write_text(text + table + "\n", "utf-8")


if __name__ == "__main__":
    main()
