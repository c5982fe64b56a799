"""Generates ids from ids: many requests at once with one model.

    engine = Engine(model)
    request = engine.submit(ids, SamplingParams(temperature=0), stop_ids={2})
    while not engine.idle:
        for event in engine.step():
            ...

Only one thread may call an engine; `Assistant` has this thread. A step plans (`scheduler`), runs the model once
(`runners`) and chooses tokens (`sampling`). The answer to a request does not depend on other requests: on the native
kernels, the sums of a row are the same in any batch, and each answer has its own random numbers.
"""

from __future__ import annotations

import logging
import os
import time
from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from chatglm.engine.constraint import Constraint
from chatglm.engine.pages import PAGE_TOKENS, PageTable
from chatglm.engine.runners import Chunk, Runner, runner_for
from chatglm.engine.sampling import LONGEST_LEAD, Answer, Draw, draw, log_probabilities
from chatglm.engine.scheduler import Scheduler, Span, Task
from chatglm.engine.speculation import PromptLookup, Proposer, Speculator
from chatglm.errors import (
    ChatGLMError,
    EngineError,
    InputError,
    NumericalError,
    QueueFullError,
    UnsupportedError,
    typed_error,
)
from chatglm.params import SamplingParams

__all__ = ["Engine", "EngineStats", "Event", "Request"]

_log = logging.getLogger("chatglm.engine")
_DIALOGUES = 16
"""Without a memory limit, there is room for this many dialogues of full length, if the machine has the memory."""
_SHARE = 0.25
"""Largest share of the available memory that keys and values get if the caller sets no limit."""


class Request:
    """Handle of a submitted request.

    Attributes:
        prompt: ids of the prompt.
        cached_tokens: number of tokens of the prompt that came from the prefix cache.
        prompt_logprobs: with `params.prompt_logprobs`, an entry for every token of the prompt except the first;
            complete when the first event comes. Else empty.
    """

    def __init__(self, prompt: list[int], params: SamplingParams, adapter: str | None) -> None:
        self.prompt, self.params, self.adapter = prompt, params, adapter
        self.cached_tokens = 0
        self.prompt_logprobs: list[Draw] = []
        self._answers: list[_Answering] = []
        self._failure: ChatGLMError | None = None  # of the prompt, and so of all answers
        self._limit = self._longest = 0  # most tokens of prompt and answer: without a lead, with the longest


@dataclass(eq=False)
class _Answering:
    """One of a request's n answers while it is being generated."""

    request: Request
    answer: Answer
    task: Task | None = None  # the first answer's task reads the prompt; the others fork from it
    began: float = 0.0  # time of its first step


@dataclass(frozen=True)
class Event:
    """What a step added to one answer.

    Attributes:
        index: number of the answer among the request's n answers.
        tokens: the new tokens; a stop id that ended the answer is the last of them.
        logprobs: an entry for each token, if `params.logprobs` is set; else empty.
        finish: why the answer ended: "stop" (a stop id), "length", "error"; None: it has not ended.
        error: the error that ended this answer.
        cached_tokens: see `Request`.
        lead: how many of the first of `tokens` are not counted (`uncounted` of `Engine.submit`).
    """

    request: Request
    index: int
    tokens: list[int]
    logprobs: list[Draw]
    finish: Literal["stop", "length", "error"] | None = None
    error: ChatGLMError | None = None
    cached_tokens: int = 0
    lead: int = 0


@dataclass(frozen=True)
class EngineStats:
    """The present state of an engine, and totals since it was made.

    Attributes:
        waiting, running: numbers of answers that wait and run now.
        pages_used, pages_total: pages of key/value memory, with `PAGE_TOKENS` tokens each; used: a sequence has them.
        prompt_tokens, cached_tokens: tokens of all prompts, and how many of them came from the prefix cache.
        generated_tokens: tokens of all answers.
        preemptions: how often an answer lost its pages and was computed again.
        proposed_tokens, accepted_tokens: tokens that speculation proposed, and those that were accepted.
        steps: runs of the model.
        restarts: how often the engine was restarted after an error; its requests failed.
    """

    waiting: int = 0
    running: int = 0
    pages_used: int = 0
    pages_total: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0
    proposed_tokens: int = 0
    accepted_tokens: int = 0
    steps: int = 0
    restarts: int = 0


class Engine:
    """Continuous batching over paged keys and values.

    Args:
        model: a causal language model: this package's, or any of `transformers` (Llama, native GLM …).
        memory: bytes for keys and values; default: room for 16 full contexts, but at most a quarter of the free memory.
        store: dtype of stored keys and values; default: float32 for a float32 model, else a type of two bytes.
        budget: most tokens of a step; a longer prompt is read in pieces.
        max_running, max_waiting: most answers that run at once, and that wait in the queue (several clients have equal
            shares of the queue).
        context: most tokens of prompt and answer together; default: the model's context. If the model has a sliding
            window, it is at most this window.
        speculate: guess tokens, and check several in one step if this saves time; the text does not depend on it. True:
            guess from the prompt and the answer so far. Or another proposer (`draft.DraftModel`).
        adaptable: adapters can be added and removed (`replace`). On a CPU the native decoder is not used then, because
            it does not support adapters.

    Raises:
        InputError: `memory` does not hold one page, a number is not positive, or the proposer has another vocabulary.
        UnsupportedError: the model has multi-head latent attention (DeepSeek).
    """

    def __init__(
        self,
        model: Any,
        *,
        memory: int | None = None,
        store: torch.dtype | None = None,
        budget: int = 512,
        max_running: int = 64,
        max_waiting: int = 256,
        context: int | None = None,
        speculate: bool | Proposer = True,
        adaptable: bool = False,
    ) -> None:
        self.runner: Runner = runner_for(model, store, adaptable=adaptable)
        self._adaptable = adaptable and not self.runner.prefix
        self.context = context or self.runner.context or 2048
        if self.runner.window:
            self.context = min(self.context, self.runner.window)
        wanted = _DIALOGUES * (-(-self.context // PAGE_TOKENS) + 1)
        if memory is None:
            pages = max(1, min(wanted, int(_SHARE * _available(model)) // self.runner.page_bytes))
        else:
            pages = memory // self.runner.page_bytes
            if pages < 1:
                raise InputError(
                    f"memory of {memory} bytes is too small: one page of keys and values ({PAGE_TOKENS} tokens) takes "
                    f"{self.runner.page_bytes} bytes"
                )
            pages = min(pages, (max_running + 1) * (-(-self.context // PAGE_TOKENS) + 1))
        self.runner.allocate(pages)
        self._pages = pages
        self._limits = {"budget": max(budget, max_running + 1), "max_running": max_running, "max_waiting": max_waiting}
        self._proposer: Proposer | None = None
        if speculate is not False:
            self._proposer = PromptLookup() if speculate is True else speculate
            if self._proposer.vocabulary not in (None, self.runner.vocabulary):
                raise InputError(
                    f"draft model: its vocabulary has {self._proposer.vocabulary} tokens, the model's has "
                    f"{self.runner.vocabulary}; use a draft model with the same vocabulary"
                )
        self._prompt_tokens = self._cached_tokens = self._generated = self._steps = 0
        self._preemptions = self._proposed = self._accepted = self._restarts = 0  # of removed adapters
        self._begin()
        self._duration = 1.0  # average seconds that an answer runs; recent ones count most

    def _begin(self) -> None:
        """Start with an empty state."""
        self._table = PageTable(self._pages)
        self._scheduler = Scheduler(self._table, **self._limits)
        for adapter in (None, *self.runner.adapters) if self.runner.prefix else ():
            self.runner.write_prefix(self._scheduler.add_prefix(_salt(adapter), self.runner.prefix))
        self._times = _StepTimes()
        self._speculator = None if self._proposer is None else Speculator(self._proposer, self._times)

    def restart(self) -> None:
        """Drop all requests and the prefix cache. Call it when `step` has failed, because the state and the pages may
        be wrong then.
        """
        for task in (*self._scheduler.running, *self._scheduler.waiting):
            self._forget(task.owner)
        self._preemptions += self._scheduler.preemptions
        self._count_guesses()
        self._begin()
        self._restarts += 1

    def replace(self, model: Any) -> None:
        """Replace the model by the same model with one adapter more or less. No request may be using the removed
        adapter, and its name must not be used again, because the prefix cache may have its keys and values.

        Raises:
            UnsupportedError: the engine was not made `adaptable`, or the model has a P-tuning prefix.
        """
        self.check_adaptable()
        self.runner.replace(model)

    def check_adaptable(self) -> None:
        """Check that adapters can be added and removed.

        Raises:
            UnsupportedError: see `replace`.
        """
        if not self._adaptable:
            raise UnsupportedError(
                "this model cannot get adapters while it runs; start `chatglm serve` with --adapters-from FOLDER, and "
                "without a P-tuning prefix"
            )

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the LoRA adapters that a request may ask for."""
        return self.runner.adapters

    @property
    def memory(self) -> int:
        """Bytes of the weights and of the memory for keys and values."""
        return self.runner.weight_bytes + self._pages * self.runner.page_bytes

    @property
    def idle(self) -> bool:
        """Whether there is no request to work on."""
        return self._scheduler.idle

    @property
    def max_waiting(self) -> int:
        """The largest number of answers that may wait in the queue."""
        return self._scheduler.max_waiting

    @property
    def capacity(self) -> int:
        """The largest number of tokens of a prompt and one answer that fit into this memory."""
        pinned = -(-self.runner.prefix // PAGE_TOKENS)
        return (self._table.total - (pinned + 1 if pinned else 0)) * PAGE_TOKENS

    def submit(
        self,
        ids: Sequence[int],
        params: SamplingParams | None = None,
        *,
        stop_ids: Collection[int] = (),
        constraint: Constraint | None = None,
        adapter: str | None = None,
        uncounted: Callable[[int], bool] | None = None,
        client: str | None = None,
    ) -> Request:
        """Queue a request; `step` works on it.

        Args:
            ids: the prompt.
            stop_ids: ids that end an answer, in addition to those of `params`.
            constraint: the grammar of the answers.
            adapter: name of a LoRA adapter; None: the base model.
            uncounted: tells whether a token at the beginning of an answer does not count towards
                `params.max_new_tokens` and `params.min_new_tokens`. At most the first 8 tokens are not counted.
            client: name of the client: places and memory are shared fairly between clients. All requests without a name
                belong to the same client.

        With `params.prompt_logprobs` the whole prompt is computed, even if the prefix cache has a part of it. If
        `params.max_new_tokens` is 0, nothing is generated: each answer has one event, without tokens, which ends it.

        Raises:
            InputError: the prompt is empty, too long, or has ids that the model does not know; the adapter is unknown;
                an option names an id outside of the vocabulary; or the request has more answers than may wait.
            QueueFullError: too many requests wait.
        """
        params = params or SamplingParams()
        prompt = list(ids)
        if not prompt:
            raise InputError("the prompt has no tokens")
        for token in (min(prompt), max(prompt)):
            if not 0 <= token < self.runner.vocabulary:
                raise InputError(f"the prompt has token {token}, and the model knows 0 to {self.runner.vocabulary - 1}")
        self.runner.check_adapter(adapter)
        most = min(self.context, self.capacity)
        if len(prompt) + (params.max_new_tokens != 0) > most:
            raise InputError(
                f"the prompt has {len(prompt)} tokens; at most {most - 1} leave room for an answer (the model's "
                f"context is {self.context}, key/value memory holds {self.capacity})"
            )
        room = params.room(len(prompt))
        limit = most if room is None else min(len(prompt) + room, most)
        request = Request(prompt, params, adapter)
        first = Answer(
            params,
            prompt,
            vocabulary=self.runner.vocabulary,
            stop_ids=stop_ids,
            constraint=constraint,
            uncounted=uncounted,
        )
        others = [first.sibling(n, None if constraint is None else constraint.fork()) for n in range(1, params.n)]
        request._answers = [_Answering(request, answer) for answer in (first, *others)]
        score = 0 if params.prompt_logprobs is None else len(prompt)
        # Room for the longest lead is reserved now; the limit grows when the answer has a lead.
        longest = min(limit + LONGEST_LEAD, most) if uncounted is not None and room else limit
        block = self.runner.block_of(prompt)
        task = Task(prompt[:], longest, _salt(adapter), block, request._answers[0], score, client or "", params.n)
        try:
            self._scheduler.submit(task)
        except QueueFullError as error:
            # Little's law: in the average time of an answer, as many answers end as run at once.
            stats = self.stats()
            error.retry_after = stats.waiting * self._duration / max(stats.running, 1)
            raise
        task.limit = limit
        request._limit, request._longest = limit, longest
        request._answers[0].task = task
        self._prompt_tokens += len(prompt)
        return request

    def check_size(self, answers: int) -> None:
        """Check a number of answers.

        Raises:
            InputError: so many answers at once could never be accepted.
        """
        self._scheduler.check_size(answers)

    def abort(self, request: Request, index: int | None = None) -> None:
        """End a request in any state, and free its memory.

        Args:
            index: number of the answer to end; default: all answers.
        """
        for answering in [each for each in request._answers if index in (None, each.answer.index)]:
            request._answers.remove(answering)
            task, heir = answering.task, next((each for each in request._answers if each.task is None), None)
            if task is not None and heir is not None:  # the other answers need the prompt that it reads
                self._forget(answering)
                heir.task, task.owner = task, heir
            elif task is not None:
                self._end(task)

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Run the model once. Returns the events of the answers; none if only prompts were read.

        Raises:
            EngineError: the internal state is wrong. Other errors of the model or the device are raised, too; then call
                `restart`.
        """
        self._propose()
        begin = time.perf_counter()
        plan = self._scheduler.plan()
        for source, target in plan.copies:
            self.runner.copy(source, target)
        if not plan.spans:
            return []
        self._steps += 1
        scores = self._run(plan.spans)
        # All answers to a prompt draw their first token from the prompt's last scores.
        rows: list[int] = []
        drawing: list[tuple[Span, _Answering]] = []
        proposals: list[Sequence[int]] = []
        over: list[Span] = []
        first = 0
        for span in plan.spans:
            answering: _Answering = span.task.owner
            answering.began = answering.began or begin
            if answering.request._failure is not None or (span.wanted and len(span.task.ids) == span.task.limit):
                over.append(span)
                first += span.wanted
                continue
            if not span.wanted:
                self._scheduler.advance(span)
                continue
            new = [a for a in answering.request._answers if a.task is None] if not answering.answer.tokens else []
            for each in (answering, *new):
                rows += range(first, first + span.wanted)
                drawing.append((span, each))
                proposals.append(span.proposal)
            first += span.wanted
        if over or len(rows) > len(scores):
            scores = scores[rows]
        drawn = draw(scores, [each.answer for _, each in drawing], proposals) if drawing else []
        if first == sum(span.count for span in plan.spans):  # no prompt was read
            self._times.note(first, time.perf_counter() - begin)
        return [*self._finish_read(over), *self._take(drawing, drawn)]

    def _run(self, spans: Sequence[Span]) -> Tensor:
        """Scores of the spans' wanted tokens in order: float32 (rows, vocabulary)."""
        chunks = [Chunk(span.ids, span.start, span.task.pages, span.wanted, _adapter(span.task)) for span in spans]
        scored = [number for number, span in enumerate(spans) if span.task.scoring]
        if not scored:
            return self.runner.run(chunks)
        parts = {number: self._score(spans[number], chunks[number]) for number in scored}
        if others := [number for number in range(len(spans)) if number not in parts]:
            found = self.runner.run([chunks[number] for number in others])
            parts |= zip(others, found.split([spans[number].wanted for number in others]), strict=True)
        return torch.cat([parts[number] for number in range(len(spans))])

    def _score(self, span: Span, chunk: Chunk) -> Tensor:
        """Store the log-probabilities of a prompt's tokens. Returns the scores of the span's wanted tokens."""
        request: Request = span.task.owner.request
        place, last = span.start, torch.empty(0)

        def take(scores: Tensor) -> None:
            nonlocal place, last
            known = len(request.prompt_logprobs)  # those from before a preemption are not stored again
            asked = request.prompt[max(place, known) + 1 : place + len(scores) + 1]
            start = max(known - place, 0)
            count = request.params.prompt_logprobs or 0
            place += len(scores)
            if request._failure is None:
                try:
                    request.prompt_logprobs += log_probabilities(scores[start : start + len(asked)], asked, count)
                except NumericalError as error:  # the rest is still computed, for the prefix cache
                    request._failure = error
            last = scores[len(scores) - span.wanted :]

        self.runner.score(chunk, take)
        return last

    def _finish_read(self, spans: Sequence[Span]) -> Iterator[Event]:
        """End requests after their prompt: no answer is wanted, or the prompt's scores are not finite."""
        for span in spans:
            request: Request = span.task.owner.request
            self._scheduler.advance(span)
            ended, request._answers = request._answers, []
            self._end(span.task)
            finish: Literal["length", "error"] = "length" if request._failure is None else "error"
            for answering in ended:
                yield Event(request, answering.answer.index, [], [], finish, request._failure, request.cached_tokens)

    def _take(
        self, drawing: Sequence[tuple[Span, _Answering]], drawn: Sequence[list[Draw] | ChatGLMError]
    ) -> Iterator[Event]:
        finished = []
        for (span, answering), draws in zip(drawing, drawn, strict=True):
            request, answer = answering.request, answering.answer
            if span.task is answering.task and not request.cached_tokens:
                request.cached_tokens = span.task.reused
                self._cached_tokens += span.task.reused
            if isinstance(draws, ChatGLMError):
                if answering.task is not None:
                    self._scheduler.advance(span)  # other answers to its prompt continue from there
                    finished.append(answering.task)
                else:
                    request._answers.remove(answering)
                yield Event(request, answer.index, [], [], "error", draws, request.cached_tokens)
                continue
            tokens = [each.token for each in draws]
            self._generated += len(tokens)
            self._observe(answering, tokens)
            if answering.task is None:
                answering.task = self._scheduler.fork(span.task, len(request.prompt), tokens, answering)
            else:
                self._scheduler.advance(span, tokens)
            answering.task.limit = min(request._limit + answer.lead, request._longest)
            finish: Literal["stop", "length"] | None = None
            if answer.stopped:
                finish = "stop"
            elif len(answering.task.ids) >= answering.task.limit:
                finish = "length"
            if finish:
                finished.append(answering.task)
            logprobs = draws if request.params.logprobs is not None else []
            lead = max(answer.lead - (len(answer.tokens) - len(tokens)), 0)
            yield Event(request, answer.index, tokens, logprobs, finish, None, request.cached_tokens, lead)
        # Tasks are ended last, because the other answers to a prompt fork from the first one, even if that is finished.
        for task in finished:
            self._end(task)

    def _propose(self) -> None:
        """Make guesses for the tasks that generate a token in the next step."""
        if self._speculator is None:
            return
        due = [task for task in self._scheduler.running if task.remaining == 1]
        reading = sum(task.remaining for task in self._scheduler.running if task.remaining > 1)
        asked = [(task.owner, task.ids, task.limit - len(task.ids) - 1) for task in due]
        try:
            guesses = self._speculator.propose(asked, min(reading, self._scheduler.budget))
            for guess in guesses:
                if guess and not 0 <= min(guess) <= max(guess) < self.runner.vocabulary:
                    raise InputError(f"tokens {guess!r:.80}: some are not among the model's {self.runner.vocabulary}")
        except BaseException as error:
            self._stop_guessing(error)
            return
        for task, guess in zip(due, guesses, strict=True):
            task.proposal = guess

    def _observe(self, answering: _Answering, tokens: Sequence[int]) -> None:
        """Tell the speculator an answer's new tokens."""
        if self._speculator is not None:
            try:
                self._speculator.observe(answering, tokens)
            except BaseException as error:
                self._stop_guessing(error)

    def _forget(self, answering: _Answering) -> None:
        """Tell the speculator that an answer has ended."""
        if self._speculator is not None:
            try:
                self._speculator.forget(answering)
            except BaseException as error:
                self._stop_guessing(error)

    def _stop_guessing(self, error: BaseException) -> None:
        """Turn speculation off after the proposer failed, and free its memory. No answer depends on guesses."""
        failure = typed_error(error, "a proposer failed")
        _log.warning("speculative decoding is off from now on: %s", failure, exc_info=error)
        self._count_guesses()
        self._proposer = self._speculator = None

    def _count_guesses(self) -> None:
        if self._speculator is not None:
            self._proposed += self._speculator.proposed
            self._accepted += self._speculator.accepted

    def _end(self, task: Task) -> None:
        answering: _Answering = task.owner
        if (began := answering.began) and task.state != "finished":
            self._duration += 0.1 * (time.perf_counter() - began - self._duration)
        self._scheduler.finish(task)
        self._forget(answering)
        # These objects refer to each other. Otherwise an answer's memory would wait for the garbage collector.
        answering.task = None
        if answering in answering.request._answers:
            answering.request._answers.remove(answering)

    def stats(self) -> EngineStats:
        """The present state and the totals. Other threads may call it, too."""
        speculator = self._speculator  # read once: the engine's thread may change it meanwhile
        return EngineStats(
            waiting=self._scheduler.waiting_count,
            running=len(self._scheduler.running),
            pages_used=self._table.used,
            pages_total=self._table.total,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            generated_tokens=self._generated,
            preemptions=self._preemptions + self._scheduler.preemptions,
            proposed_tokens=self._proposed + (speculator.proposed if speculator is not None else 0),
            accepted_tokens=self._accepted + (speculator.accepted if speculator is not None else 0),
            steps=self._steps,
            restarts=self._restarts,
        )

    def check(self) -> None:
        """Check the internal state.

        Raises:
            EngineError: an invariant is broken.
        """
        self._scheduler.check()
        for task in (*self._scheduler.running, *self._scheduler.waiting):
            answering: _Answering = task.owner
            if answering.task is not task or task.ids != answering.request.prompt + answering.answer.tokens:
                raise EngineError(f"a task's {len(task.ids)} ids are not its prompt and its answer")


class _StepTimes:
    """The seconds that a step with a number of rows takes: measured, or estimated as for a memory-bound model."""

    _ROW = 0.08  # assumed time of each further row, as a share of the time of a step with one row
    _NEW = 0.1  # weight of the newest measurement
    _FIRST = 4  # of so many first measurements, the shortest is used

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._known: list[int] = []  # its keys, in order
        self._noted: dict[int, int] = {}

    def note(self, rows: int, seconds: float) -> None:
        old, times = self._seconds.get(rows), self._noted.get(rows, 0)
        self._noted[rows] = times + 1
        if old is None:
            insort(self._known, rows)
            self._seconds[rows] = seconds
        elif times < self._FIRST:  # other work may have slowed down any of them
            self._seconds[rows] = min(old, seconds)
        else:
            self._seconds[rows] = old + self._NEW * (min(seconds, 2 * old) - old)

    def __call__(self, rows: int) -> float:
        guess = 1 + self._ROW * (rows - 1)
        if not self._seconds:
            return guess
        place = bisect_left(self._known, rows)
        near = min(self._known[max(place - 1, 0) : place + 1], key=lambda known: abs(known - rows))
        return self._seconds[near] * guess / (1 + self._ROW * (near - 1))


def _salt(adapter: str | None) -> str:
    return "" if adapter is None else f"adapter {adapter}"


def _adapter(task: Task) -> str | None:
    answering: _Answering = task.owner
    return answering.request.adapter


def _available(model: Any) -> int:
    """Bytes of free memory on the model's device."""
    device = next(model.parameters()).device
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4 << 30
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            with open(limit, encoding="ascii") as most, open(used, encoding="ascii") as now:
                free = min(free, int(most.read()) - int(now.read()))
        except (OSError, ValueError):  # no such group, or no limit ("max")
            continue
    return max(free, 0)
