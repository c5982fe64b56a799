"""Several endpoints with the same model as one assistant: each dialogue stays at one of them, and moves to another if
that one fails.

The endpoint is chosen by a hash of the dialogue's first messages only (rendezvous hashing). So every turn finds the
prefix cache of the turns before, and all servers in front of the same endpoints make the same choice. If the endpoint
does not answer, or has many more requests than the others, the next one in the dialogue's order answers.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import queue
import random
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from chatglm.assistant.base import Ask, BaseAssistant, Delta, Messages, Options, ReplicaStats, params_of
from chatglm.assistant.endpoint import Endpoint
from chatglm.assistant.wire import Question
from chatglm.chat.personas import staged
from chatglm.errors import ChatGLMError, InputError, QueueFullError, ServiceError
from chatglm.params import SamplingParams

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Breaker", "Checks", "RemoteFleet"]

log = logging.getLogger("chatglm.fleet")

# An endpoint is too busy if it has more running requests than _BUSY_FACTOR times the average plus _BUSY_MORE.
_BUSY_FACTOR, _BUSY_MORE = 1.25, 2
_BROKEN = 2
"""If this many endpoints fail during the same request, it is not sent to others, because it may be the cause."""
_NOT_TAKEN = (401, 403, 404, 405, 503)
"""Statuses of an endpoint that has not started the request."""
_LOST = (0, 502, 504)
"""Statuses of an endpoint that may have started the request (0: no response)."""
_TEXT_START, _IDS_START = 64, 32  # the first characters or ids of a prompt, which decide where it goes


@dataclass(frozen=True)
class Checks:
    """How endpoints are checked. Times are in seconds.

    Attributes:
        every: time between two checks of an endpoint, varied at random by up to a quarter.
        timeout: limit for the answer to a check.
        missed: after this many checks in a row without an answer, the endpoint counts as gone: requests that wait there
            for the first part of an answer are sent to another one.
        failures: after this many failed requests in a row, the endpoint gets no requests for `pause`, then one as a
            trial.
        pause: length of the first pause; it doubles with every failed trial, up to `longest_pause`.
        connect: limit for making a connection.
    """

    every: float = 2.0
    timeout: float = 5.0
    missed: int = 3
    failures: int = 3
    pause: float = 1.0
    longest_pause: float = 30.0
    connect: float = 5.0


class Breaker:
    """A circuit breaker: decides whether an endpoint gets requests.

    Closed: it gets them. Open, after some failures in a row: it gets none. Half-open, after a pause: it gets one, whose
    result decides.
    """

    def __init__(self, checks: Checks, clock: Callable[[], float] = time.monotonic) -> None:
        self._checks, self._clock = checks, clock
        self._failures = 0
        self._pause = checks.pause
        self._until: float | None = None  # open until then; None: closed
        self._trial = False

    @property
    def open(self) -> bool:
        """Whether a request now would be refused."""
        return self._until is not None and (self._trial or self._clock() < self._until)

    def begin(self) -> None:
        """Note that a request is sent."""
        if self._until is not None:
            self._trial = True

    def end(self, well: bool | None) -> None:
        """Note whether the request succeeded. None: its end says nothing about the endpoint."""
        tried, self._trial = self._trial, False
        if well:
            self._failures, self._until, self._pause = 0, None, self._checks.pause
        elif well is False:
            self._failures += 1
            if tried:
                self._pause = min(2 * self._pause, self._checks.longest_pause)
            if tried or self._failures >= self._checks.failures:
                self._until = self._clock() + self._pause * random.uniform(0.75, 1.25)


class _Replica:
    """An endpoint and its state."""

    def __init__(self, endpoint: Endpoint, checks: Checks) -> None:
        self.endpoint, self.name = endpoint, endpoint.name
        self.breaker = Breaker(checks)
        self.known = False  # whether a check has been answered
        self.trouble = ""  # why it gets no requests; "" if it gets them
        self.gone = False  # whether it does not answer checks; then no request waits for it
        self.missed = 0
        self.running = self.requests = self.failures = 0
        self.waiting: set[asyncio.Future[None]] = set()

    @property
    def problem(self) -> str:
        return self.trouble or ("its requests fail" if self.breaker.open else "")

    def note(self, trouble: str) -> None:
        """Store the reason why it gets no requests ("": it gets them), and log a change."""
        if trouble and not self.trouble:
            log.warning("%s gets no requests: %s", self.name, trouble)
        elif self.trouble and not trouble:
            log.warning("%s gets requests again", self.name)
        self.trouble = trouble

    def rank(self, key: bytes) -> bytes:
        return hashlib.blake2b(self.endpoint.url.encode(), key=key, digest_size=16).digest()

    def release(self) -> None:
        """Let requests that wait for this endpoint go to another one."""
        for future in list(self.waiting):
            try:
                future.get_loop().call_soon_threadsafe(_wake, future)
            except RuntimeError:  # the loop has ended, so nobody waits in it
                continue


class RemoteFleet(BaseAssistant):
    """A `RemoteAssistant` with several endpoints that have the same model.

    Args:
        urls: base URLs of the endpoints, as for `RemoteAssistant`.
        model: the model's name at all endpoints; default: the first that the first endpoint lists.
        key: sent to all as a bearer token.
        timeout: seconds without a byte after which an answer counts as lost.
        defaults: options of generation that the caller does not give; options with their default value are not sent.
        checks: how the endpoints are checked.

    Raises:
        DependencyError: `httpx` is not installed.
        InputError: there is no URL, or one is wrong or given twice.
    """

    def __init__(
        self,
        urls: Sequence[str],
        model: str | None = None,
        *,
        key: str | None = None,
        timeout: float = 600,
        defaults: SamplingParams | None = None,
        checks: Checks | None = None,
    ) -> None:
        self._checks = checks or Checks()
        endpoints = [Endpoint(url, model, key, timeout=timeout, connect=self._checks.connect) for url in urls]
        if not endpoints:
            raise InputError("urls: empty; name at least one endpoint")
        names = [endpoint.name for endpoint in endpoints]
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise InputError(f"{twice}: this endpoint is named twice")
        self.defaults = defaults or SamplingParams()
        self._replicas = [_Replica(endpoint, self._checks) for endpoint in endpoints]
        self._model = model
        self._lock = threading.Lock()
        self._background = _Background()
        self._watching = [self._background.start(partial(self._watch, replica)) for replica in self._replicas]

    def close(self) -> None:
        self._background.close()
        for replica in self._replicas:
            replica.endpoint.close()

    def problem(self) -> str:
        found = [(replica.name, replica.problem) for replica in self._replicas]
        if all(problem for _, problem in found):
            return "no endpoint answers: " + "; ".join(f"{name}: {problem}" for name, problem in found)
        return ""

    def replicas(self) -> tuple[ReplicaStats, ...]:
        return tuple(
            ReplicaStats(one.name, one.problem, one.running, one.requests, one.failures) for one in self._replicas
        )

    def count(self, messages: Messages, **options: Unpack[Options]) -> int:
        question, failed = Question.of_dialogue(Ask.of(messages, options, self.defaults)), None
        for replica in sorted(self._replicas, key=lambda one: bool(one.problem)):
            try:
                return replica.endpoint.count(question)
            except ServiceError as error:
                failed = error
        assert failed is not None
        raise failed

    # Answers

    def stream(self, messages: Messages, **options: Unpack[Options]) -> Generator[Delta]:
        return self._background.read(self.astream(messages, **options))

    def astream(self, messages: Messages, **options: Unpack[Options]) -> AsyncGenerator[Delta]:
        ask = Ask.of(messages, options, self.defaults)
        return self._answer(Question.of_dialogue(ask), _key_of_dialogue(ask))

    def stream_text(
        self,
        prompt: str | Sequence[int],
        *,
        params: SamplingParams | Mapping[str, Any] | None = None,
        adapter: str | None = None,
        client: str | None = None,
    ) -> Generator[Delta]:
        return self._background.read(self.astream_text(prompt, params=params, adapter=adapter, client=client))

    def astream_text(
        self,
        prompt: str | Sequence[int],
        *,
        params: SamplingParams | Mapping[str, Any] | None = None,
        adapter: str | None = None,
        client: str | None = None,
    ) -> AsyncGenerator[Delta]:
        question = Question.of_text(prompt, params_of(params, self.defaults), adapter, client)
        return self._answer(question, _key_of_text(prompt))

    async def _answer(self, question: Question, key: bytes) -> AsyncGenerator[Delta]:
        """Ask one endpoint after the other until an answer begins; the rest of it comes from the same endpoint."""
        await self._find_model()
        tried: list[_Replica] = []
        broken = 0
        refused: QueueFullError | None = None
        failed: ServiceError | None = None
        try:
            while (replica := self._next(key, tried)) is not None:
                tried.append(replica)
                well: bool | None = None
                try:
                    async with aclosing(replica.endpoint.aread(question)) as deltas:
                        first = await self._first(replica, deltas)
                        well = True
                        yield first
                        async for delta in deltas:
                            yield delta
                    return
                except ServiceError as error:
                    begun, well = well is True, False
                    failed, broken = error, broken + self._note_failure(replica, error)
                    if begun or broken >= _BROKEN or (error.sent and error.status not in (*_NOT_TAKEN, *_LOST)):
                        raise
                except QueueFullError as error:
                    well = True
                    if refused is not None:
                        error.retry_after = min(error.retry_after, refused.retry_after)
                        raise
                    refused = error
                except ChatGLMError:
                    well = True  # the request is wrong, not the endpoint
                    raise
                finally:
                    self._end(replica, well)
            if refused is not None:
                raise refused
            if failed is not None:
                raise failed
            raise ServiceError(self.problem() or "no endpoint answers")
        finally:
            refused = failed = None  # an error keeps this frame in memory, and with it the request

    async def _first(self, replica: _Replica, deltas: AsyncGenerator[Delta]) -> Delta:
        """The first part of an answer.

        Raises:
            ServiceError: the endpoint is gone. Also the errors of `Endpoint.read`.
        """
        reading = asyncio.ensure_future(anext(deltas))
        lost = asyncio.get_running_loop().create_future()
        replica.waiting.add(lost)
        try:
            if replica.gone:
                _wake(lost)
            await asyncio.wait({reading, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                raise ServiceError(f"{replica.name}: {replica.trouble}")
            return reading.result()
        finally:
            replica.waiting.discard(lost)
            if not reading.done():
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            del reading  # else its error and this frame would keep each other in memory

    def _next(self, key: bytes, tried: Sequence[_Replica]) -> _Replica | None:
        """Choose the next endpoint for a request, and count the request there; None: none is left.

        Endpoints with a known problem come last. They are tried because the problem may be over.
        """
        with self._lock:
            left = sorted((one for one in self._replicas if one not in tried), key=lambda one: one.rank(key))
            well = [one for one in left if not one.problem]
            others = [one for one in left if not one.gone and not one.breaker.open]
            chosen = next((one for one in well if not self._busy(one)), (*well, *others, None)[0])
            if chosen is not None:
                chosen.running += 1
                chosen.requests += 1
                chosen.breaker.begin()
            return chosen

    def _busy(self, one: _Replica) -> bool:
        """Whether an endpoint has many more running requests than the average."""
        loads = [other.running for other in self._replicas if other is one or not other.problem]
        return one.running > _BUSY_FACTOR * sum(loads) / len(loads) + _BUSY_MORE

    def _note_failure(self, replica: _Replica, error: ServiceError) -> bool:
        """Store the failure of a request. Returns whether the request may have caused the endpoint to fail."""
        if error.sent and error.status != 503:
            return error.status in _LOST and not replica.gone
        with self._lock:
            if not replica.trouble:  # stays until a check succeeds
                replica.note("it takes no requests (status 503)" if error.sent else "it cannot be reached")
        return False

    def _end(self, replica: _Replica, well: bool | None) -> None:
        with self._lock:
            replica.running -= 1
            replica.failures += well is False
            replica.breaker.end(well)

    # State of the endpoints

    async def _find_model(self) -> str:
        """The model's name in the requests to all endpoints.

        Raises:
            ServiceError: no endpoint lists its models.
        """
        if self._model is None:
            failed: ServiceError | None = None
            for replica in self._replicas:
                try:
                    name = (await replica.endpoint.amodels())[0]
                except ServiceError as error:
                    failed = failed or error
                    continue
                with self._lock:
                    self._model = self._model or name
                    for other in self._replicas:
                        other.endpoint.model = self._model
                break
            else:
                assert failed is not None
                raise failed
        return self._model

    async def _watch(self, replica: _Replica) -> None:
        while True:
            try:
                await self._check(replica)
            except Exception:
                log.exception("the check of %s failed", replica.name)
            await asyncio.sleep(self._checks.every * random.uniform(0.75, 1.25))

    async def _check(self, replica: _Replica) -> None:
        """Check the health of an endpoint, and, if it was not healthy before, also whether it has the model."""
        trouble, gone = "", False
        try:
            await replica.endpoint.acheck(self._checks.timeout)
            replica.missed = 0
            if not replica.known or replica.trouble:
                trouble = await self._mismatch(replica)
                replica.known = not trouble
        except ServiceError as error:
            if error.status:
                replica.missed, trouble = 0, f"its /health has status {error.status}"
            elif not error.sent:
                replica.missed, trouble = replica.missed + 1, "it cannot be reached"
            else:
                replica.missed, trouble = replica.missed + 1, replica.trouble
            if gone := replica.missed >= self._checks.missed:
                trouble = trouble or "it does not answer checks of its health"
        with self._lock:
            replica.note(trouble)
            replica.gone = gone
            if gone:
                replica.release()

    async def _mismatch(self, replica: _Replica) -> str:
        """The reason why a healthy endpoint cannot answer for the model; "" if it can."""
        try:
            model = await self._find_model()
            names = await replica.endpoint.amodels()
        except ServiceError as error:
            if error.status in (401, 403):
                return f"it refuses the key (status {error.status})"
            return "" if self._model is not None and error.status in (404, 405) else str(error)
        return "" if model in names else f"it does not have the model {model!r}, but {', '.join(names[:20])}"


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _key_of_dialogue(ask: Ask) -> bytes:
    """A hash of the part of a dialogue that is the same in all its turns: the messages up to the first question."""
    found = hashlib.blake2b(digest_size=32)
    for message in staged(ask.messages, ask.persona):
        found.update(f"{message.role}\0{message.content}\0".encode("utf-8", "surrogatepass"))
        if message.role == "user":
            break
    return found.digest()


def _key_of_text(prompt: str | Sequence[int]) -> bytes:
    start = prompt[:_TEXT_START] if isinstance(prompt, str) else ",".join(str(token) for token in prompt[:_IDS_START])
    return hashlib.blake2b(start.encode("utf-8", "surrogatepass"), digest_size=32).digest()


class _Background:
    """An event loop in a thread: for checks, and for callers without an event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="chatglm-fleet", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def close(self) -> None:
        """Cancel everything that runs, and end the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> Future[None]:
        """Run a coroutine in the loop.

        Returns:
            a future of its end. Cancelling the future cancels the coroutine.

        Raises:
            ServiceError: the loop has ended.
        """
        if not self._thread.is_alive():
            raise ServiceError("the assistant is closed")
        return asyncio.run_coroutine_threadsafe(work(), self._loop)

    def read(self, deltas: AsyncGenerator[Delta]) -> Generator[Delta]:
        """Read deltas from outside the loop. Closing this generator closes `deltas`."""
        inbox: queue.SimpleQueue[Delta | Exception | None] = queue.SimpleQueue()

        async def pump() -> None:
            end: Exception | None = ServiceError("the assistant is closed")
            try:
                async with aclosing(deltas):
                    async for delta in deltas:
                        inbox.put(delta)
                end = None
            except Exception as error:
                end = error
            finally:
                inbox.put(end)
                end = None  # as in `_answer`

        pumping = self.start(pump)
        try:
            while (item := inbox.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            pumping.cancel()
            item = None  # as in `_answer`
