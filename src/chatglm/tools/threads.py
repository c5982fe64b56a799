"""Where tools run: each plain function in a thread of its own, given up when its time is over; and an event loop in a
thread, for callers that have none."""

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
    """A thread for each call. Python cannot end a thread: one whose caller has gone is abandoned, and counted until it
    ends by itself. They are daemons: none keeps the program from ending."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._abandoned = 0

    @property
    def abandoned(self) -> int:
        """Calls that go on although nobody waits for them."""
        return self._abandoned

    async def run(self, work: Callable[[], T]) -> T:
        """
        Args:
            work: must not raise.

        Raises:
            RuntimeError: the system has no room for another thread.
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
    """An event loop in a daemon thread, started when it is first needed. It ends when it is closed, or when nobody has
    it any more."""

    def __init__(self, name: str = "chatglm tools") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = 0
        self._given_up: weakref.finalize[[asyncio.AbstractEventLoop, int], LoopThread] | None = None

    def run(self, work: Coroutine[Any, Any, T], seconds: float | None = None) -> T:
        """The coroutine's result; what interrupts the waiting cancels it.

        Raises:
            RuntimeError: called from a coroutine of this very loop, which would wait for itself.
            concurrent.futures.CancelledError: it was closed meanwhile.
            TimeoutError: it takes longer than `seconds`.
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
        """`run` for coroutines of any other event loop; who is cancelled there cancels it here."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._started()))

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._process != os.getpid():  # threads do not live on in a fork
                self._loop, self._process = asyncio.new_event_loop(), os.getpid()
                self._thread = threading.Thread(target=_serve, args=(self._loop,), name=self._name, daemon=True)
                self._thread.start()
                self._given_up = weakref.finalize(self, _end, self._loop, self._process)
                self._given_up.atexit = False
            return self._loop

    def close(self) -> None:
        """End the thread; what still runs in it is cancelled."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
            if self._given_up is not None:
                self._given_up.detach()
        if loop is None or thread is None or self._process != os.getpid():
            return
        _end(loop, self._process)
        if thread is not threading.current_thread():  # else a coroutine in it closes it: it ends behind that
            thread.join(timeout=5)


def _end(loop: asyncio.AbstractEventLoop, process: int) -> None:
    """Cancel what runs in a loop, and stop it."""

    async def end() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.wait(others, timeout=1) if others else None
        loop.stop()

    if process == os.getpid():  # the thread is not in a fork
        asyncio.run_coroutine_threadsafe(end(), loop)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()
