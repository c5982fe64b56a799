"""Metrics for Prometheus: what clients experience, measured here, and the figures of the engines."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from chatglm.assistant import BaseAssistant, CallDelta, Finish, TextDelta, Usage
from chatglm.serving import memory
from chatglm.serving.records import LONGEST_TEXT, Record, current

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100)

_MOST_KEYS = 200  # names of keys among the labels; the figures of further keys are added up

# Figures of the engine that are totals; the others are momentary.
_TOTALS = ("_tokens", "preemptions", "steps", "restarts")


class _Piece(Protocol):
    """A delta, or another part of an answer."""

    @property
    def choice(self) -> int: ...


Some = TypeVar("Some", bound=_Piece)


@dataclasses.dataclass
class _Prompt:
    """Results of a prompt: the time of the first delta, the number of complete answers, and their tokens."""

    first: float
    finished: int = 0
    tokens: int = 0


class Metrics:
    """One registry for each app.

    Args:
        assistants: gives those that are loaded, by name; at every scrape they are asked for their engines' figures.

    Attributes:
        live: running requests whose clients wait for them.
    """

    def __init__(self, assistants: Callable[[], Mapping[str, BaseAssistant]]) -> None:
        self.live = 0
        registry = self._registry = CollectorRegistry()
        by_model = ("model",)
        self.requests = Counter(
            "chatglm_requests",
            "Requests (status 429: too many wait)",
            ("dialect", "route", "status"),
            registry=registry,
        )
        self._open = Gauge("chatglm_answers_running", "Requests that are running", by_model, registry=registry)
        self._first = Histogram(
            "chatglm_time_to_first_token_seconds",
            "Time from a request to its first delta",
            by_model,
            buckets=_SECONDS,
            registry=registry,
        )
        self._each = Histogram(
            "chatglm_time_per_token_seconds",
            "Time for each token of an answer, from its first delta on",
            by_model,
            buckets=tuple(seconds / 10 for seconds in _SECONDS),
            registry=registry,
        )
        self._ends = Counter("chatglm_answers", "Answers by how they ended", ("model", "reason"), registry=registry)
        self._prompt = Counter("chatglm_prompt_tokens", "Tokens of prompts", by_model, registry=registry)
        self._cached = Counter(
            "chatglm_cached_tokens", "Tokens of prompts that came from the prefix cache", by_model, registry=registry
        )
        self._made = Counter("chatglm_completion_tokens", "Tokens of answers", by_model, registry=registry)
        self._texts = Counter(
            "chatglm_encoded_texts", "Texts that were embedded or ranked", by_model, registry=registry
        )
        self._encoded = Counter(
            "chatglm_encoded_tokens", "Tokens of texts that were embedded or ranked", by_model, registry=registry
        )
        self._encoding = Histogram(
            "chatglm_encoding_seconds",
            "Time of a request for embeddings or rerank",
            by_model,
            buckets=_SECONDS,
            registry=registry,
        )
        self._calls = Counter(
            "chatglm_tool_calls", "Tool calls that the server carried out", ("tool", "outcome"), registry=registry
        )
        by_key = ("key", "dialect", "model")
        self._key_requests = Counter(
            "chatglm_key_requests",
            "Requests by the name of their API key (none: without a key), with the refused ones",
            (*by_key, "status"),
            registry=registry,
        )
        self._key_tokens = Counter(
            "chatglm_key_tokens",
            "Tokens by the name of the API key; kind: prompt, cached (of the prompt's), completion",
            (*by_key, "kind"),
            registry=registry,
        )
        self._keys: set[str] = set()
        registry.register(_Engines(assistants))
        registry.register(_Replicas(assistants))
        registry.register(_Memory())

    async def watch(
        self,
        model: str,
        deltas: AsyncGenerator[Some],
        answers: int = 1,
        prompts: int = 1,
        live: bool = True,
        record: Record | None = None,
        count: Callable[[int], None] | None = None,
    ) -> AsyncGenerator[Some]:
        """The same deltas, measured.

        Args:
            prompts: of the request.
            answers: number of answers to each prompt. Each is counted once, by how it ended: its finish reason, "broken
                off" (its reader left) or "failed". A request that is refused at the beginning has a status, and no
                answer.
            live: whether a client waits for the answer.
            record: gets the results.
            count: called with the numbers of tokens, as soon as they are known.
        """
        start, finished, pieces = time.perf_counter(), 0, 0
        begun: dict[int, _Prompt] = {}
        ended = "broken off"
        record = record or Record()
        keep = record.answered is not None
        self._open.labels(model).inc()
        self.live += live
        try:
            async with aclosing(deltas):
                async for delta in deltas:
                    number = delta.choice // answers
                    if number not in begun:
                        begun[number] = _Prompt(time.perf_counter())
                        self._first.labels(model).observe(begun[number].first - start)
                        if record.first is None:
                            record.first = begun[number].first - record.began
                    pieces += 1
                    if isinstance(delta, Finish):
                        finished += 1
                        tokens = self._note_end(model, begun[number], delta.usage, answers, record)
                        pieces -= delta.usage.completion_tokens + 1
                        self._ends.labels(model, delta.reason).inc()
                        if count is not None:
                            count(tokens)
                    elif keep:
                        _keep(record, delta)
                    yield delta
        except Exception:
            ended = "failed" if begun else ""
            raise
        finally:
            self._open.labels(model).dec()
            self.live -= live
            if finished < answers * prompts:
                record.ended = ended
                if ended:
                    self._ends.labels(model, ended).inc(answers * prompts - finished)
                # Its tokens are unknown: a piece has at least one, and a prompt's text about four bytes for each.
                unread = prompts - sum(1 for prompt in begun.values() if prompt.finished)
                lost = max(0, pieces), record.body // 4 * unread // prompts if ended == "broken off" else 0
                record.completion_tokens += lost[0]
                record.prompt_tokens += lost[1]
                if count is not None:
                    count(sum(lost))

    @contextmanager
    def encoding(self, model: str) -> Iterator[None]:
        """Measure the work on a request for embeddings or rerank."""
        start = time.perf_counter()
        with self._open.labels(model).track_inprogress():
            yield
        self._encoding.labels(model).observe(time.perf_counter() - start)

    def note_encoded(self, model: str, texts: int, tokens: int, count: Callable[[int], None] | None = None) -> None:
        """
        Args:
            count: called with the number of tokens.
        """
        record = current()
        record.model = model
        record.prompt_tokens += tokens
        if count is not None:
            count(tokens)
        self._texts.labels(model).inc(texts)
        self._encoded.labels(model).inc(tokens)

    def show_kernels(self, running: Callable[[], int]) -> None:
        """Show how many kernels run the model's code; asked at every scrape."""
        Gauge("chatglm_kernels", "Processes that run the model's code", registry=self._registry).set_function(running)

    def note_rounds(self, model: str, record: Record, count: Callable[[int], None] | None, usage: Usage) -> None:
        """Count tokens of complete rounds of an answer that broke off."""
        self._prompt.labels(model).inc(usage.prompt_tokens)
        self._cached.labels(model).inc(usage.cached_tokens)
        self._made.labels(model).inc(usage.completion_tokens)
        record.prompt_tokens += usage.prompt_tokens
        record.cached_tokens += usage.cached_tokens
        record.completion_tokens += usage.completion_tokens
        if count is not None:
            count(usage.prompt_tokens + usage.completion_tokens)

    def note_call(self, tool: str, failed: bool) -> None:
        """Count a tool call that the server has carried out."""
        self._calls.labels(tool, "failed" if failed else "done").inc()

    def _note_end(self, model: str, prompt: _Prompt, usage: Usage, answers: int, record: Record) -> int:
        """Count a complete answer, perhaps the last one to its prompt. Returns how many tokens came with it."""
        found = usage.completion_tokens
        if not prompt.finished:
            self._prompt.labels(model).inc(usage.prompt_tokens)
            self._cached.labels(model).inc(usage.cached_tokens)
            record.prompt_tokens += usage.prompt_tokens
            record.cached_tokens += usage.cached_tokens
            found += usage.prompt_tokens
        self._made.labels(model).inc(usage.completion_tokens)
        record.completion_tokens += usage.completion_tokens
        prompt.finished += 1
        prompt.tokens += usage.completion_tokens
        if prompt.finished == answers < prompt.tokens:
            seconds = time.perf_counter() - prompt.first
            self._each.labels(model).observe(seconds / (prompt.tokens - answers) * answers)
        return found

    def note(self, record: Record, dialect: str, status: int) -> None:
        """Count a request that has ended.

        Args:
            dialect: that its path belongs to.
        """
        key = record.key or "none"
        if key not in self._keys:
            if len(self._keys) >= _MOST_KEYS:
                key = "others"
            self._keys.add(key)
        labels = (key, record.dialect or dialect, record.model or "none")
        self._key_requests.labels(*labels, str(status)).inc()
        if record.model:
            for kind, tokens in (
                ("prompt", record.prompt_tokens),
                ("cached", record.cached_tokens),
                ("completion", record.completion_tokens),
            ):
                self._key_tokens.labels(*labels, kind).inc(tokens)

    @property
    def running(self) -> int:
        """Running requests of all models."""
        return round(sum(sample.value for metric in self._open.collect() for sample in metric.samples))

    def text(self) -> bytes:
        """The metrics as a scrape gets them."""
        return generate_latest(self._registry)


def _keep(record: Record, delta: Any) -> None:
    """Keep the beginning of an answer's text for the log."""
    said = record.answered or ""
    if len(said) < LONGEST_TEXT:
        match delta:
            case TextDelta():
                said += delta.text
            case CallDelta():
                said += f"{delta.name} {delta.arguments}" if delta.name else delta.arguments
        record.answered = said[:LONGEST_TEXT]


class _Engines(Collector):
    """Asks the engines at every scrape."""

    def __init__(self, assistants: Callable[[], Mapping[str, BaseAssistant]]) -> None:
        self._assistants = assistants

    def collect(self) -> Iterator[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for model, assistant in self._assistants().items():
            stats = assistant.stats()
            for name, value in [] if stats is None else dataclasses.asdict(stats).items():
                kind = CounterMetricFamily if name.endswith(_TOTALS) else GaugeMetricFamily
                label = f"chatglm_engine_{name}"
                family = families.setdefault(label, kind(label, f"The engine's {name}", labels=["model"]))
                family.add_metric([model], value)
        yield from families.values()


class _Replicas(Collector):
    """Asks assistants that stand before several endpoints."""

    def __init__(self, assistants: Callable[[], Mapping[str, BaseAssistant]]) -> None:
        self._assistants = assistants

    def collect(self) -> Iterator[Metric]:
        labels = ["model", "replica"]
        up = GaugeMetricFamily("chatglm_replica_up", "Whether the endpoint gets requests", labels=labels)
        running = GaugeMetricFamily("chatglm_replica_running", "Requests that are running there", labels=labels)
        asked = CounterMetricFamily("chatglm_replica_requests", "Requests sent there", labels=labels)
        failed = CounterMetricFamily("chatglm_replica_failures", "Requests sent there that failed", labels=labels)
        families: tuple[GaugeMetricFamily | CounterMetricFamily, ...] = (up, running, asked, failed)
        for model, assistant in self._assistants().items():
            for one in assistant.replicas():
                for family, value in zip(
                    families, (not one.problem, one.running, one.requests, one.failures), strict=True
                ):
                    family.add_metric([model, one.name], value)
        yield from (family for family in families if family.samples)


class _Memory(Collector):
    """Heap memory of this process. It has more from the system: weights, and pages of keys and values."""

    def collect(self) -> Iterator[Metric]:
        if (found := memory.heap()) is not None:
            family = GaugeMetricFamily("chatglm_heap_bytes", "The C library's heap", labels=["state"])
            for state, value in zip(("used", "free"), found, strict=True):
                family.add_metric([state], value)
            yield family
        yield GaugeMetricFamily("chatglm_python_blocks", "Python's small objects", sys.getallocatedblocks())
