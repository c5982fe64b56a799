"""The thread that runs an engine. Callers submit requests to it, and read the events of each from a queue."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from chatglm.errors import EngineError, typed_error

if TYPE_CHECKING:
    from chatglm.engine.engine import Engine, EngineStats, Event
    from chatglm.params import SamplingParams

__all__ = ["Driver", "Ticket"]


@dataclass(eq=False)
class Ticket:
    """A request to the engine, and the queue of its events: for a thread, or for the event loop `loop`."""

    answers: int
    begin: Callable[[], Any]
    loop: asyncio.AbstractEventLoop | None
    inbox: Any
    request: Any = None
    open: set[int] = field(default_factory=set)  # answers that are not finished


_log = logging.getLogger("chatglm.engine")
_FAILURES, _WINDOW = 5, 60.0
"""An engine that fails more than 5 times in 60 seconds is not started again."""
_FORKED = "this assistant was made before a fork, and its threads are not in the child process; load it in the child"


class Driver:
    """Owns the only thread that uses the engine. If the engine fails, its requests fail, and it is restarted, unless it
    has failed too often.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._tickets: dict[int, Ticket] = {}
        # Held while it is checked that the thread runs, and an order is queued. Garbage collection may release tickets
        # at that time, so the lock is re-entrant.
        self._lock = threading.RLock()
        self._ended = ""
        self._calls: set[Future[Any]] = set()
        self._cause: BaseException | None = None
        self._failures: list[float] = []  # times of the engine's failures
        self._thread: threading.Thread | None = threading.Thread(target=self._work, name="chatglm engine", daemon=True)
        self._thread.start()
        _drivers.add(self)

    @property
    def problem(self) -> str:
        return self._ended

    def stats(self) -> EngineStats:
        return self._engine.stats()  # each number is right, but they may be of different moments

    def submit(
        self,
        asked: Sequence[tuple[Sequence[int], SamplingParams, Mapping[str, Any]]],
        loop: asyncio.AbstractEventLoop | None,
    ) -> list[Ticket]:
        """Submit requests; the engine accepts all or none.

        Args:
            asked: for each request, the prompt's ids, the options of generation, and other options of
                `Engine.submit`.
            loop: the event loop whose coroutines read the events; None: threads read them.

        Raises:
            EngineError: the thread has ended; the message says why.
            InputError: the requests want more answers than may wait at once.
        """
        self.check_size(sum(params.n for _, params, _ in asked))
        tickets = [
            Ticket(
                params.n,
                partial(self._engine.submit, ids, params, **options),
                loop,
                queue.SimpleQueue() if loop is None else asyncio.Queue(),
            )
            for ids, params, options in asked
        ]
        self._order(partial(self._begin, *tickets))
        return tickets

    def check(self) -> None:
        """Check that the thread is running.

        Raises:
            EngineError: the thread has ended; the message says why.
        """
        if self._ended:
            raise EngineError(self._ended) from self._cause

    def check_size(self, answers: int) -> None:
        """Check a number of answers.

        Raises:
            InputError: one request with so many answers could never be accepted.
        """
        self._engine.check_size(answers)

    def release(self, ticket: Ticket, index: int | None = None) -> None:
        """End a request whose events nobody reads any more, or only its answer number `index`."""
        if ticket.open or ticket.request is None:
            with self._lock:
                if not self._ended:
                    self._orders.put(partial(self._abort, ticket, index))

    def call(self, work: Callable[[], Any]) -> Any:
        """Run a function in the engine's thread, between two steps. Returns its result, or raises its error.

        Raises:
            EngineError: the thread has ended.
        """
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        self._calls.add(future)
        try:
            self._order(run)
            return future.result()
        finally:
            self._calls.discard(future)

    def stop(self) -> None:
        if self._thread is None:
            return  # the thread is in the parent process
        with self._lock:
            self._orders.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def disown(self) -> None:
        """Called in the child process after a fork, where the thread does not exist: all requests fail. Locks and
        queues are replaced, because the thread may have been using the old ones.
        """
        self._thread, self._ended, self._cause = None, _FORKED, None
        self._lock, self._orders = threading.RLock(), queue.SimpleQueue()
        tickets, self._tickets = list(self._tickets.values()), {}
        for ticket in tickets:
            if ticket.loop is None:
                ticket.inbox = queue.SimpleQueue()
                ticket.inbox.put(EngineError(_FORKED))

    def _order(self, order: Callable[[], None]) -> None:
        with self._lock:
            self.check()
            self._orders.put(order)

    # In the thread

    def _work(self) -> None:
        while not self._ended:
            try:
                while self._obey():
                    if not self._engine.idle:
                        self._pass_on(self._engine.step())
                self._end("the assistant is closed", None)
            except BaseException as error:
                self._begin_again(error)

    def _begin_again(self, error: BaseException) -> None:
        """After an error of the engine: fail all its requests, and restart it, unless it has failed too often."""
        why = f"the engine stopped: {type(error).__name__}: {error}"
        now = time.monotonic()
        self._failures = [then for then in self._failures if now - then < _WINDOW] + [now]
        if len(self._failures) > _FAILURES or not isinstance(error, Exception):
            _log.critical("%s; it is not started again", why, exc_info=error)
            self._end(why, error)
            return
        _log.error("%s; its requests have failed, and it starts again", why, exc_info=error)
        try:
            self._engine.restart()
        except BaseException as another:
            _log.critical("the engine cannot be started again", exc_info=another)
            self._end(why, error)
            return
        left = list(self._tickets.values())
        self._tickets.clear()
        self._fail(left, why, error)

    def _obey(self) -> bool:
        """Carry out the queued orders; if the engine is idle, wait for one. Returns whether the thread goes on."""
        while True:
            try:
                order = self._orders.get(block=self._engine.idle)
            except queue.Empty:
                return True
            if order is None:
                return False
            order()

    def _begin(self, *tickets: Ticket) -> None:
        begun: list[Ticket] = []
        try:
            for ticket in tickets:
                ticket.request = ticket.begin()
                begun.append(ticket)
        except BaseException as error:  # an error of one of these requests, not of the engine
            failure = typed_error(error, "the request could not begin")
            for ticket in begun:
                self._engine.abort(ticket.request)
            self._deliver([(ticket, failure) for ticket in tickets])
            return
        for ticket in tickets:
            ticket.open = set(range(ticket.answers))
            self._tickets[id(ticket.request)] = ticket

    def _abort(self, ticket: Ticket, index: int | None = None) -> None:
        if id(ticket.request) not in self._tickets or index not in (None, *ticket.open):
            return  # it has ended already
        self._engine.abort(ticket.request, index)
        ticket.open -= ticket.open if index is None else {index}
        self._forget_if_over(ticket)

    def _forget_if_over(self, ticket: Ticket) -> None:
        if not ticket.open:
            del self._tickets[id(ticket.request)]

    def _pass_on(self, events: Sequence[Event]) -> None:
        news: list[tuple[Ticket, Any]] = []
        for event in events:
            ticket = self._tickets.get(id(event.request))
            if ticket is None:
                continue  # aborted
            if event.finish is not None:
                ticket.open.remove(event.index)
                self._forget_if_over(ticket)
            news.append((ticket, event.error or event))
        self._deliver(news)

    def _deliver(self, news: Sequence[tuple[Ticket, Any]]) -> None:
        # An event loop is woken once for all its readers.
        late: dict[asyncio.AbstractEventLoop, list[tuple[Ticket, Any]]] = {}
        for ticket, item in news:
            if ticket.loop is None:
                ticket.inbox.put(item)
            else:
                late.setdefault(ticket.loop, []).append((ticket, item))
        for loop, items in late.items():
            try:
                loop.call_soon_threadsafe(_put_all, items)
            except RuntimeError:  # the loop was closed with its readers
                for ticket, _ in items:
                    self._abort(ticket)

    def _end(self, why: str, error: BaseException | None) -> None:
        with self._lock:
            self._ended, self._cause = why, error
        left = list(self._tickets.values())
        self._tickets.clear()
        if error is None:
            for ticket in left:
                self._engine.abort(ticket.request)
        while not self._orders.empty():  # requests that were submitted, but not begun
            order = self._orders.get()
            if isinstance(order, partial) and order.func == self._begin:
                left += order.args
        self._fail(left, why, error)
        for future in [*self._calls]:
            with contextlib.suppress(InvalidStateError):
                future.set_exception(EngineError(why))

    def _fail(self, tickets: Sequence[Ticket], why: str, error: BaseException | None) -> None:
        for ticket in tickets:
            ticket.open.clear()
            news = EngineError(why)
            news.__cause__ = error
            self._deliver([(ticket, news)])


_drivers: weakref.WeakSet[Driver] = weakref.WeakSet()


def _after_fork() -> None:
    for driver in list(_drivers):
        driver.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _put_all(items: Sequence[tuple[Ticket, Any]]) -> None:
    for ticket, item in items:
        ticket.inbox.put_nowait(item)
