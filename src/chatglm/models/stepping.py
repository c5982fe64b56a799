"""Makes an iterator over tokens from `generate` of `transformers`, with its public argument `streamer`.

`generate` runs in its own thread, in lock step with the reader: it computes a token only when the reader asks for it.
So the cache and the random generator are in the expected state when the reader stops.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from chatglm.errors import UnsupportedError

__all__ = ["step_through"]


class _Abandoned(BaseException):
    """Ends `generate` when the reader has stopped. It is not an `Exception`, so that nothing catches it by accident."""


class _LockStep(BaseStreamer):  # type: ignore[misc]
    """Passes tokens from the generating thread to the reading thread, one at a time.

    Args:
        streamer: the caller's streamer, which gets everything, too.
    """

    def __init__(self, streamer: BaseStreamer | None = None) -> None:
        self._streamer = streamer
        self.token: Tensor | None = None
        self.error: BaseException | None = None
        self.abandoned = False
        self._wanted = threading.Semaphore(0)
        self._ready = threading.Semaphore(0)
        self._seen_prompt = False

    # Generating thread

    def put(self, value: Tensor) -> None:
        if self._streamer is not None:
            self._streamer.put(value)
        if not self._seen_prompt:  # the first call has the prompt
            self._seen_prompt = True
            return
        # Assisted decoding gives several tokens at once, (1, tokens).
        for token in value.unbind(-1) if value.ndim == 2 else (value,):
            self.token = token
            self._ready.release()
            self.wait()

    def end(self) -> None:
        """Called by `generate` after its last token. The reader needs `finish` instead."""
        if self._streamer is not None:
            self._streamer.end()

    def wait(self) -> None:
        self._wanted.acquire()
        if self.abandoned:
            raise _Abandoned

    def finish(self, error: BaseException | None) -> None:
        self.token, self.error = None, error
        self._ready.release()

    # Reading thread

    def next(self) -> Tensor | None:
        self._wanted.release()
        self._ready.acquire()
        if self.error is not None:
            raise self.error
        return self.token

    def abandon(self) -> None:
        self.abandoned = True
        self._wanted.release()


def step_through(model: Any, *args: Any, **kwargs: Any) -> Iterator[Tensor]:
    """Iterate over the new tokens of `model.generate(*args, **kwargs)`, each (batch,). Its errors are raised here.

    Closing the iterator early ends the generation and the caller's `streamer`.

    Raises:
        UnsupportedError: beam search was requested; its answer is known only at the end.
    """
    if (kwargs.get("num_beams") or 1) > 1:
        raise UnsupportedError(
            f"num_beams={kwargs['num_beams']}: beam search cannot be streamed, because its answer is known only at the "
            "end; use chat or generate, or leave num_beams out"
        )
    link = _LockStep(kwargs.pop("streamer", None))
    settings = _ThreadSettings()

    def run() -> None:
        error: BaseException | None = None
        try:
            link.wait()
            with settings.apply():
                model.generate(*args, streamer=link, **kwargs)
        except _Abandoned:
            link.end()  # readers of the caller's streamer must not wait
            return
        except BaseException as caught:
            error = caught
        link.finish(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name="chatglm-generate", daemon=True)
    thread.start()
    try:
        while (token := link.next()) is not None:
            yield token
    finally:
        link.abandon()
        thread.join()


class _ThreadSettings:
    """Copies settings that torch has for each thread, from the calling thread to the generating one."""

    def __init__(self) -> None:
        self.inference = torch.is_inference_mode_enabled()
        self.autocast = [
            (kind, torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)
        ]
        self.device = torch.cuda.current_device() if torch.cuda.is_available() else None

    @contextlib.contextmanager
    def apply(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            if self.device is not None:
                stack.enter_context(torch.cuda.device(self.device))
            if self.inference:
                stack.enter_context(torch.inference_mode())
            for kind, dtype in self.autocast:
                stack.enter_context(torch.autocast(kind, dtype=dtype))
            yield
