"""What every engine of `bench_cpu.py` answers: one command a line, one JSON object a line. Standard library only.

    start BATCH CONTEXT   forget everything, read BATCH random prompts of CONTEXT tokens: seconds until each has its
                          first new token
    decode STEPS          so many more tokens of every sequence: seconds
    about                 what the engine says of itself

Before the first command the process says when (CLOCK_MONOTONIC, the same in every process) it came to life, had its
modules, had the model and had a first token of a prompt of 8.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

CLOCK = time.monotonic
VOCABULARY = 65024
MOST_CONTEXT = 4096
MOST_BATCH = 8


class Engine(Protocol):
    def start(self, batch: int, context: int) -> float: ...

    def decode(self, steps: int) -> float: ...

    def about(self) -> dict[str, Any]: ...


class Session:
    """The line to the driver. Whatever libraries print goes to stderr."""

    def __init__(self) -> None:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a stopped process would outlive its driver
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._times = {"born": CLOCK()}

    def imported(self) -> None:
        self._times["imported"] = CLOCK()

    def serve(self, load: Callable[[], Engine]) -> None:
        """Load, make a first token, and answer until stdin ends."""
        engine = load()
        self._times["loaded"] = CLOCK()
        engine.start(1, 8)
        self._times["first"] = CLOCK()
        self._say(self._times)
        for line in sys.stdin:
            name, *numbers = line.split()
            result = getattr(engine, name)(*map(int, numbers))
            self._say(result if isinstance(result, dict) else {"seconds": result})
        os._exit(0)  # some engines' threads would not end

    def _say(self, message: dict[str, Any]) -> None:
        print(json.dumps(message), file=self._out, flush=True)


_random = random.Random(1)


def prompts(batch: int, context: int) -> list[list[int]]:
    """Random ids, none of them special; never the same prompt twice, so that no cache helps."""
    return [[_random.randrange(300, 60000) for _ in range(context)] for _ in range(batch)]


def threads() -> int:
    return int(os.environ["BENCH_THREADS"])
