"""Runs an encoder in one thread, over batches of rows from all requests.

Rows of similar length share a batch, and each client gets a fair share.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

import torch
from torch import Tensor

from chatglm.encoders.tokens import Row
from chatglm.errors import EngineError, NumericalError, QueueFullError, typed_error

__all__ = ["Batches", "EncoderStats"]

_log = logging.getLogger("chatglm.encoders")

BATCH_TOKENS = 4096
"""Tokens of a batch, including padding. A longer row is a batch by itself."""
BATCH_ROWS = 64
WAITING_TOKENS = 1 << 20
"""Most tokens of all waiting requests. If there are more, only clients with more than an equal share are refused."""
_ALIKE = 0.5
"""The shortest row of a batch has at least this share of the longest row's tokens, because padding costs time."""


@dataclass(eq=False)
class _Job:
    """A request: its rows, the longest first, and where their results go."""

    rows: deque[tuple[int, Row]]
    tokens: int
    results: list[Tensor | None]
    future: Future[Tensor] = field(default_factory=Future)
    left: int = 0

    def fail(self, error: BaseException) -> None:
        with contextlib.suppress(InvalidStateError):  # it was cancelled, or has an error already
            self.future.set_exception(error)


@dataclass(frozen=True)
class EncoderStats:
    """Counts since the encoder was started.

    Attributes:
        waiting: number of rows that wait now.
        rows, input_tokens: numbers of rows and tokens that were computed.
        batches: number of batches that the model computed.
    """

    waiting: int = 0
    rows: int = 0
    input_tokens: int = 0
    batches: int = 0


class Batches:
    """The thread of an encoder, and the requests that wait for it.

    Args:
        run: computes the results of rows: float32 (rows, numbers), on the CPU. It is called only in this thread.
        name: of the thread.
    """

    def __init__(self, run: Callable[[Sequence[Row]], Tensor], name: str) -> None:
        self._run = run
        self._clients: OrderedDict[str, deque[_Job]] = OrderedDict()
        self._waiting: dict[str, int] = {}  # tokens by client
        self._wake = threading.Condition()
        self._ended = ""
        self._rows = self._tokens = self._batches = 0
        self._rate = 1000.0  # tokens a second; recent ones count most
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, rows: Sequence[Row], client: str) -> Future[Tensor]:
        """Queue the rows of a request.

        Returns:
            A future of the results, float32 (rows, numbers), in the order of the rows. If it is cancelled, the
            remaining rows are not computed. If a result is not finite, it has a `NumericalError`.

        Raises:
            QueueFullError: too many tokens are waiting.
            EngineError: the encoder is closed.
        """
        ordered = sorted(enumerate(rows), key=lambda entry: -len(entry[1].ids))
        tokens = sum(len(row.ids) for row in rows)
        job = _Job(deque(ordered), tokens, [None] * len(rows), left=len(rows))
        with self._wake:
            if self._ended:
                raise EngineError(self._ended)
            own, total = self._waiting.get(client, 0), sum(self._waiting.values())
            share = WAITING_TOKENS // len({*self._waiting, client})
            if total and total + tokens > WAITING_TOKENS and own + tokens > share:
                error = QueueFullError(f"{total:,} tokens of texts are waiting; send this request again in a moment")
                error.retry_after = total / self._rate
                raise error
            self._clients.setdefault(client, deque()).append(job)
            self._waiting[client] = own + tokens
            self._wake.notify()
        return job.future

    def stats(self) -> EncoderStats:
        with self._wake:
            waiting = sum(len(job.rows) for jobs in self._clients.values() for job in jobs)
        return EncoderStats(waiting, self._rows, self._tokens, self._batches)

    def stop(self) -> None:
        """End the thread. Requests that still wait fail with `EngineError`."""
        with self._wake:
            self._ended = "the encoder is closed"
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # In the thread

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._clients and not self._ended:
                    self._wake.wait()
                if self._ended:
                    left = [job for jobs in self._clients.values() for job in jobs]
                    self._clients.clear()
                    break
                chosen = self._choose()
            if chosen:
                self._compute(chosen)
        for job in left:
            job.fail(EngineError(self._ended))

    def _choose(self) -> list[tuple[_Job, int, Row]]:
        """Choose the rows of the next batch: one in turn from each client's first request, all of similar length."""
        chosen: list[tuple[_Job, int, Row]] = []
        longest = 0
        for client in list(self._clients):
            jobs = self._clients[client]
            while jobs and (jobs[0].future.done() or not jobs[0].rows):
                self._forget(client, jobs.popleft())
            if not jobs:
                del self._clients[client]
        clients = list(self._clients)
        taken = True
        while taken:
            taken = False
            for client in clients:
                job = self._clients[client][0]
                # Only the longest row that is left of a request is tried. If it does not fit, it begins a later batch.
                if not job.rows or len(chosen) == BATCH_ROWS:
                    continue
                number, row = job.rows[0]
                size = len(row.ids)
                top = max(longest, size)
                fits = top * (len(chosen) + 1) <= BATCH_TOKENS and size >= top * _ALIKE and (longest >= size * _ALIKE)
                if chosen and not fits:
                    continue
                longest, taken = top, True
                job.rows.popleft()
                chosen.append((job, number, row))
        if clients:
            self._clients.move_to_end(clients[0])
        return chosen

    def _forget(self, client: str, job: _Job) -> None:
        left = self._waiting[client] - job.tokens
        if left > 0:
            self._waiting[client] = left
        else:
            del self._waiting[client]

    def _compute(self, chosen: Sequence[tuple[_Job, int, Row]]) -> None:
        begin = time.perf_counter()
        rows = [row for _, _, row in chosen]
        try:
            results = self._run(rows)
        except BaseException as error:
            jobs = {id(job): job for job, _, _ in chosen}
            if len(jobs) > 1:  # perhaps only one request caused it: compute each alone
                for job in jobs.values():
                    self._compute([entry for entry in chosen if entry[0] is job])
                return
            failure = typed_error(error, "the encoder failed")
            _log.error("an encoder failed", exc_info=error)
            chosen[0][0].fail(failure)
            return
        tokens = sum(len(row.ids) for row in rows)
        self._rows += len(rows)
        self._tokens += tokens
        self._batches += 1
        self._rate += 0.1 * (tokens / max(time.perf_counter() - begin, 1e-6) - self._rate)
        finite = torch.isfinite(results).all(1).tolist()
        for (job, number, _), result, good in zip(chosen, results, finite, strict=True):
            job.results[number] = result
            job.left -= 1
            if not good:
                job.fail(NumericalError("the encoder's result is not a finite number; its weights may be damaged"))
            elif not job.left and not job.future.done():
                with contextlib.suppress(InvalidStateError):
                    job.future.set_result(torch.stack([one for one in job.results if one is not None]))
