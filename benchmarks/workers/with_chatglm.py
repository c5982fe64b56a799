"""This package, as a user runs it: `load_parts(folder)` and `model.generate`, greedy.

`generate` runs on in a thread of its own and is held between the driver's commands by its streamer, which sees every
token; what is timed is therefore the whole loop, from one token handed out to another.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from typing import Any

from protocol import MOST_CONTEXT, Session, prompts, threads

session = Session()

import torch  # noqa: E402
from transformers.generation.streamers import BaseStreamer  # noqa: E402

from chatglm import __version__  # noqa: E402
from chatglm.loading import load_parts  # noqa: E402

session.imported()


class OverError(Exception):
    """Ends a `generate` whose tokens nobody wants any more."""


class Paced(BaseStreamer):
    """Lets `generate` make so many tokens and then wait."""

    def __init__(self) -> None:
        self._seen_prompt = False
        self._left = 1
        self._go = threading.Semaphore(0)
        self._over = False
        self.done: queue.SimpleQueue[float | BaseException] = queue.SimpleQueue()

    def put(self, value: Any) -> None:
        if not self._seen_prompt:  # `generate` hands out the prompt first
            self._seen_prompt = True
            return
        self._left -= 1
        if not self._left:
            self.done.put(time.perf_counter())
            self._go.acquire()
            if self._over:
                raise OverError

    def end(self) -> None:
        self.done.put(RuntimeError("generate stopped by itself"))

    def more(self, steps: int) -> None:
        self._left = steps
        self._go.release()

    def stop(self) -> None:
        self._over = True
        self._go.release()


class ChatGLM:
    def __init__(self, folder: str) -> None:
        self._model = load_parts(folder).model
        self._model.generation_config.eos_token_id = None  # random weights would stop at random
        self._streamer = Paced()
        self._thread: threading.Thread | None = None

    def start(self, batch: int, context: int) -> float:
        self._stop()
        ids = torch.tensor(prompts(batch, context))
        self._streamer = streamer = Paced()

        def run() -> None:
            try:
                self._model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=MOST_CONTEXT - context,
                    do_sample=False,
                    streamer=streamer,
                )
            except OverError:
                pass
            except BaseException as error:
                streamer.done.put(error)

        self._thread = threading.Thread(target=run, daemon=True)
        begin = time.perf_counter()
        self._thread.start()
        return self._wait() - begin

    def decode(self, steps: int) -> float:
        begin = time.perf_counter()
        self._streamer.more(steps)
        return self._wait() - begin

    def about(self) -> dict[str, Any]:
        from chatglm.kernels import native
        from chatglm.models.native import NativeCache

        self._stop()
        model = self._model
        ids = torch.tensor(prompts(1, 8))
        made = model.generate(ids, max_new_tokens=2, do_sample=False, return_dict_in_generate=True)
        if not isinstance(made.past_key_values, NativeCache):
            raise RuntimeError("generate does not use the native decoder")
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        layers = [m.packed() for m in model.modules() if hasattr(m, "packed") and m not in (embedding, head)]
        weights = [*layers, head.packed()]
        config, info = model.config, native.info()
        return {
            "version": __version__,
            "kernels": info.variant,
            "threads": info.threads,
            "bits": sorted({weight.bits for weight in weights}),
            "group_size": sorted({weight.group_size for weight in weights}),
            "weight_bytes": sum(weight.data.nbytes + weight.scales.nbytes for weight in weights),
            "layer_weights": sum(weight.rows * weight.columns for weight in layers),
            # float16 keys and values
            "cache_bytes_per_token": 2 * 2 * config.multi_query_group_num * config.kv_channels * config.num_layers,
        }

    def _wait(self) -> float:
        result = self._streamer.done.get()
        if isinstance(result, BaseException):
            raise result
        return result

    def _stop(self) -> None:
        if self._thread is not None:
            self._streamer.stop()
            self._thread.join()
            self._thread = None


torch.set_num_threads(threads())
session.serve(lambda: ChatGLM(sys.argv[1]))
