"""llama.cpp through llama-cpp-python's C functions: its own repacked kernels, flash attention, greedy sampler."""

from __future__ import annotations

import sys
import time
from typing import Any

from protocol import MOST_BATCH, MOST_CONTEXT, Session, prompts, threads

session = Session()

import llama_cpp as c  # noqa: E402

session.imported()

AT_ONCE = 2048


class LlamaCpp:
    def __init__(self, path: str) -> None:
        c.llama_backend_init()
        self._model = c.llama_model_load_from_file(path.encode(), c.llama_model_default_params())
        options = c.llama_context_default_params()
        options.n_ctx = MOST_CONTEXT
        options.n_batch = AT_ONCE
        options.n_seq_max = MOST_BATCH
        options.n_threads = options.n_threads_batch = threads()
        options.flash_attn_type = 1
        options.kv_unified = True
        self._context = c.llama_init_from_model(self._model, options)
        self._sampler = c.llama_sampler_init_greedy()
        self._batch = c.llama_batch_init(AT_ONCE, 0, 1)
        self._last: list[int] = []
        self._position = 0

    def start(self, batch: int, context: int) -> float:
        texts = prompts(batch, context)
        c.llama_memory_clear(c.llama_get_memory(self._context), True)
        self._last = []
        begin = time.perf_counter()
        rows = [
            (token, place, number, place == context - 1)
            for number, text in enumerate(texts)
            for place, token in enumerate(text)
        ]
        for first in range(0, len(rows), AT_ONCE):
            self._last += self._run(rows[first : first + AT_ONCE])
        self._position = context
        return time.perf_counter() - begin

    def decode(self, steps: int) -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            self._last = self._run([(token, self._position, n, True) for n, token in enumerate(self._last)])
            self._position += 1
        return time.perf_counter() - begin

    def about(self) -> dict[str, Any]:
        return {"version": c.__version__, "system": c.llama_print_system_info().decode()}

    def _run(self, rows: list[tuple[int, int, int, bool]]) -> list[int]:
        """Run (token, position, sequence, is asked for) through the model; what comes after those asked for."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, asked) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, asked
            batch.seq_id[i][0] = sequence
        if c.llama_decode(self._context, batch):
            raise RuntimeError("llama_decode failed")
        wanted = [i for i, row in enumerate(rows) if row[3]]
        return [c.llama_sampler_sample(self._sampler, self._context, i) for i in wanted]


session.serve(lambda: LlamaCpp(sys.argv[1]))
