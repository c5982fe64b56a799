"""fastllm (ftllm), int4 in groups: it quantises a bf16 folder as it loads it. Its scheduler runs by itself, so a slice
goes from one token that it hands out to another; the driver stops the process in between.

One thread: with two, its pool and its scheduler both spin, and two cores are too few for that.
"""

from __future__ import annotations

import ctypes
import sys
import time
from typing import Any

from protocol import MOST_BATCH, MOST_CONTEXT, Session, prompts

session = Session()

from ftllm import llm  # noqa: E402

session.imported()

LIBRARY = llm.fastllm_lib
NAP = 0.0002


class FastLlm:
    def __init__(self, folder: str) -> None:
        llm.set_cpu_threads(1)
        llm.set_cpu_low_mem(True)
        self._model = llm.model(folder, dtype="int4g")
        self._model.set_max_batch(MOST_BATCH)
        self._requests: list[int] = []

    def start(self, batch: int, context: int) -> float:
        for request in self._requests:
            LIBRARY.abort_response_llm_model(self._model.model, request)
        texts = [(ctypes.c_int * context)(*ids) for ids in prompts(batch, context)]
        begin = time.perf_counter()
        self._requests = [
            LIBRARY.launch_response_llm_model(
                self._model.model,
                context,
                text,
                MOST_CONTEXT - context,  # most tokens
                MOST_CONTEXT - context,  # least tokens
                False,
                1.0,
                1,
                1.0,
                1.0,
                False,
                0,
                None,
            )
            for text in texts
        ]
        for request in self._requests:
            self._next(request)
        return time.perf_counter() - begin

    def decode(self, steps: int) -> float:
        self._drain()
        self._step()  # the one that had begun
        begin = time.perf_counter()
        for _ in range(steps):
            self._step()
        return time.perf_counter() - begin

    def about(self) -> dict[str, Any]:
        from importlib.metadata import version

        return {"version": version("ftllm"), "threads": 1}

    def _step(self) -> None:
        for request in self._requests:
            self._next(request)

    def _drain(self) -> None:
        """Take what was made before anybody asked."""
        for request in self._requests:
            while LIBRARY.can_fetch_response_llm_model(self._model.model, request):
                self._next(request)

    def _next(self, request: int) -> None:
        while not LIBRARY.can_fetch_response_llm_model(self._model.model, request):
            time.sleep(NAP)
        if LIBRARY.fetch_response_llm_model(self._model.model, request) < 0:
            raise RuntimeError("a sequence ended")


session.serve(lambda: FastLlm(sys.argv[1]))
