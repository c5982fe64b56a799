"""Threads for tools: each plain function runs in its own thread, which is abandoned after its time limit. Also an event
loop in a thread, for callers without one.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["LoopThread", "Threads"]

T = TypeVar("T")


class Threads:
    """Runs each call in a new thread. Python cannot end a thread: if nobody waits for it any more, it is abandoned, and
    counted until it ends by itself. The threads are daemons, so they do not keep the program from ending.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._abandoned = 0

    @property
    def abandoned(self) -> int:
        """Number of calls that still run although nobody waits for them."""
        return self._abandoned

    async def run(self, work: Callable[[], T]) -> T:
        """Run a function in a new thread, and return its result.

        Args:
            work: the function; it must not raise.

        Raises:
            RuntimeError: the system cannot start another thread.
        """
        loop = asyncio.get_running_loop()
        came: asyncio.Future[T] = loop.create_future()
        ended = left = False

        def tell(value: T) -> None:
            if not came.done():
                came.set_result(value)

        def carry_out() -> None:
            nonlocal ended
            value = work()
            with self._lock:
                ended = True
                self._abandoned -= left
            with contextlib.suppress(RuntimeError):  # the loop has closed
                loop.call_soon_threadsafe(tell, value)

        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(carry_out,), name="chatglm tool", daemon=True).start()
        try:
            return await came
        except asyncio.CancelledError:
            with self._lock:
                if not ended:
                    left = True
                    self._abandoned += 1
            raise

    def abandon(self, task: asyncio.Task[Any]) -> None:
        """Count a coroutine that does not end although it was cancelled."""
        with self._lock:
            self._abandoned += 1

        def has_ended(_: Any) -> None:
            with self._lock:
                self._abandoned -= 1

        task.add_done_callback(has_ended)


class LoopThread:
    """An event loop in a daemon thread, which is started when it is first needed. It ends when this object is closed or
    garbage-collected.
    """

    def __init__(self, name: str = "chatglm tools") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = 0
        self._given_up: weakref.finalize[[asyncio.AbstractEventLoop, int], LoopThread] | None = None

    def run(self, work: Coroutine[Any, Any, T], seconds: float | None = None) -> T:
        """Run a coroutine in the loop, and return its result. An exception during the wait cancels the coroutine.

        Raises:
            RuntimeError: it was called from a coroutine in the same loop, which would wait for itself.
            concurrent.futures.CancelledError: the loop was closed meanwhile.
            TimeoutError: the coroutine takes longer than `seconds`. Also the errors of the coroutine.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a coroutine that runs in the tools' event loop must await `call`, not `call_now`")
        waiting = asyncio.run_coroutine_threadsafe(work, self._started())
        try:
            return waiting.result(seconds)
        except BaseException:
            waiting.cancel()
            raise

    async def awaited(self, work: Coroutine[Any, Any, T]) -> T:
        """`run` for coroutines in another event loop. Cancelling the caller cancels the coroutine."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._started()))

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._process != os.getpid():  # a fork has no copy of the thread
                self._loop, self._process = asyncio.new_event_loop(), os.getpid()
                self._thread = threading.Thread(target=_serve, args=(self._loop,), name=self._name, daemon=True)
                self._thread.start()
                self._given_up = weakref.finalize(self, _end, self._loop, self._process)
                self._given_up.atexit = False
            return self._loop

    def close(self) -> None:
        """End the thread. Coroutines that still run in it are cancelled."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
            if self._given_up is not None:
                self._given_up.detach()
        if loop is None or thread is None or self._process != os.getpid():
            return
        _end(loop, self._process)
        if thread is not threading.current_thread():  # else a coroutine in the loop closes it; the loop ends after that
            thread.join(timeout=5)


def _end(loop: asyncio.AbstractEventLoop, process: int) -> None:
    """Cancel everything that runs in a loop, and stop the loop."""

    async def end() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.wait(others, timeout=1) if others else None
        loop.stop()

    if process == os.getpid():  # in a fork, there is no such thread
        asyncio.run_coroutine_threadsafe(end(), loop)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()
