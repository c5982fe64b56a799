"""This package, as `chatglm chat` and `chatglm serve` run it: `load_to_answer(folder)` and its `Engine`, greedy.

No speculation: random weights say nothing that could be guessed, and it is the model that is measured.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from protocol import MOST_CONTEXT, Session, prompts, threads

session = Session()

import torch  # noqa: E402

from chatglm import __version__  # noqa: E402
from chatglm.engine.engine import Engine, Request  # noqa: E402
from chatglm.loading import load_to_answer  # noqa: E402
from chatglm.params import SamplingParams  # noqa: E402

session.imported()


class ChatGLM:
    def __init__(self, folder: str, huge_pages: bool) -> None:
        self._model = load_to_answer(folder, huge_pages=huge_pages).model
        self._engine = Engine(self._model, context=MOST_CONTEXT, speculate=False)
        self._requests: list[Request] = []

    def start(self, batch: int, context: int) -> float:
        for thread in threading.enumerate():
            if thread.name == "huge pages" and self._requests:  # after the first token, which comes while they are made
                thread.join()
        for request in self._requests:
            self._engine.abort(request)
        asked = prompts(batch, context)
        begin = time.perf_counter()
        # Nothing stops an answer: random weights would at random.
        params = SamplingParams(temperature=0, max_new_tokens=MOST_CONTEXT - context)
        self._requests = [self._engine.submit(prompt, params) for prompt in asked]
        waiting = set(range(batch))
        while waiting:
            waiting -= {self._requests.index(event.request) for event in self._engine.step()}
        return time.perf_counter() - begin

    def decode(self, steps: int) -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            if len(self._engine.step()) != len(self._requests):
                raise RuntimeError("a step did not give every sequence a token")
        return time.perf_counter() - begin

    def about(self) -> dict[str, Any]:
        from chatglm.engine.runners import NativeRunner
        from chatglm.kernels import native
        from chatglm.kernels.decoder import PAGE_TOKENS

        runner = self._engine.runner
        if not isinstance(runner, NativeRunner):
            raise RuntimeError("the engine does not use the native decoder")
        model = self._model
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        layers = [m.packed() for m in model.modules() if hasattr(m, "packed") and m not in (embedding, head)]
        weights = [*layers, head.packed()]
        info = native.info()
        return {
            "version": __version__,
            "kernels": info.variant,
            "threads": info.threads,
            "bits": sorted({weight.bits for weight in weights}),
            "group_size": sorted({weight.group_size for weight in weights}),
            "weight_bytes": sum(weight.data.nbytes + weight.scales.nbytes for weight in weights),
            "layer_weights": sum(weight.rows * weight.columns for weight in layers),
            "cache_bytes_per_token": runner.page_bytes // PAGE_TOKENS,  # keys and values
        }


torch.set_num_threads(threads())
session.serve(lambda: ChatGLM(sys.argv[1], "--huge-pages" in sys.argv))
