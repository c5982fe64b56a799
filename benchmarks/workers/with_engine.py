"""Steps of this package's engine, and the same steps of the native decoder alone.

start BATCH CONTEXT   forget everything, read BATCH random prompts of CONTEXT tokens: seconds
engine STEPS          so many steps of `Engine.step`, a token for every sequence: seconds
decoder STEPS         as many calls of the decoder with the inputs of the latest of those steps: seconds
about                 what the engine says of itself
"""

from __future__ import annotations

import sys
import time
from typing import Any

from protocol import MOST_CONTEXT, Session, prompts, threads

session = Session()

import torch  # noqa: E402

import chatglm  # noqa: E402
from chatglm.engine.engine import Engine  # noqa: E402
from chatglm.engine.runners import NativeRunner  # noqa: E402
from chatglm.kernels import native  # noqa: E402
from chatglm.loading import load_to_answer  # noqa: E402
from chatglm.params import SamplingParams  # noqa: E402

session.imported()


class Latest:
    """The decoder's `run`, with the inputs of its latest call kept."""

    def __init__(self, run: Any) -> None:
        self._run = run
        self.inputs: tuple[Any, ...] = ()
        self.options: dict[str, Any] = {}

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        self.inputs, self.options = inputs, options
        return self._run(*inputs, **options)

    @torch.inference_mode()
    def again(self) -> None:
        self._run(*self.inputs, **self.options)


class Steps:
    def __init__(self, folder: str) -> None:
        # Guesses would make steps of several tokens.
        self._engine = Engine(load_to_answer(folder).model, context=MOST_CONTEXT, speculate=False)
        if not isinstance(self._engine.runner, NativeRunner):
            raise RuntimeError("the engine does not use the native decoder")
        self._latest = Latest(self._engine.runner.decoder.run)
        self._engine.runner.decoder.run = self._latest  # type: ignore[method-assign]
        self._requests: list[Any] = []

    def start(self, batch: int, context: int) -> float:
        for request in self._requests:
            self._engine.abort(request)
        params = SamplingParams(temperature=0, max_length=MOST_CONTEXT)  # and no stop ids: they go on
        begin = time.perf_counter()
        self._requests = [self._engine.submit(ids, params) for ids in prompts(batch, context)]
        waiting = set(map(id, self._requests))
        while waiting:
            waiting -= {id(event.request) for event in self._engine.step()}
        return time.perf_counter() - begin

    def engine(self, steps: int) -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            events = self._engine.step()
            if [len(event.tokens) for event in events] != [1] * len(self._requests):
                raise RuntimeError(f"a step gave {[len(event.tokens) for event in events]} tokens")
        return time.perf_counter() - begin

    def decoder(self, steps: int) -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            self._latest.again()
        return time.perf_counter() - begin

    def about(self) -> dict[str, Any]:
        info = native.info()
        return {"version": chatglm.__version__, "kernels": info.variant, "threads": info.threads}


torch.set_num_threads(threads())
session.serve(lambda: Steps(sys.argv[1]))
