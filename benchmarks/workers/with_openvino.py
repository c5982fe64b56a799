"""OpenVINO GenAI's continuous batching (what LLMPipeline uses on a CPU), step by step, greedy.

int8 activations in groups of 128, the setting that was fastest here; keys and values as the plug-in chooses.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from protocol import MOST_BATCH, MOST_CONTEXT, Session, prompts, threads

session = Session()

import numpy as np  # noqa: E402
import openvino  # noqa: E402
import openvino_genai as genai  # noqa: E402

session.imported()


class OpenVino:
    def __init__(self, folder: str) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = 1  # GB
        scheduler.max_num_batched_tokens = 2048
        scheduler.max_num_seqs = MOST_BATCH
        properties = {"INFERENCE_NUM_THREADS": threads(), "DYNAMIC_QUANTIZATION_GROUP_SIZE": 128}
        self._pipeline = genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", properties)
        self._requests: list[Any] = []
        self._number = 0

    def start(self, batch: int, context: int) -> float:
        for request in self._requests:
            request.cancel()
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        options = genai.GenerationConfig()
        options.max_new_tokens = MOST_CONTEXT - context
        options.ignore_eos = True
        options.do_sample = False
        tensors = [openvino.Tensor(np.array([ids], dtype=np.int64)) for ids in prompts(batch, context)]
        begin = time.perf_counter()
        self._requests = []
        for tensor in tensors:
            self._requests.append(self._pipeline.add_request(self._number, tensor, options))
            self._number += 1
        waiting = list(self._requests)
        while waiting:
            self._pipeline.step()
            waiting = [request for request in waiting if not request.can_read()]
        end = time.perf_counter()
        self._read()
        return end - begin

    def decode(self, steps: int) -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            self._pipeline.step()
            if self._read() != len(self._requests):
                raise RuntimeError("a step did not make a token of every sequence")
        return time.perf_counter() - begin

    def about(self) -> dict[str, Any]:
        return {"version": genai.__version__}

    def _read(self) -> int:
        return sum(bool(request.read()) for request in self._requests if request.can_read())


session.serve(lambda: OpenVino(sys.argv[1]))
