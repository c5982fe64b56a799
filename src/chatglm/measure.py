"""Measures speed with many clients at once. Each client asks, reads the stream, and asks again.

The figures are those that a client sees, for a model in this process or for any OpenAI-compatible endpoint.

    with Assistant.load() as assistant:
        clients = Clients(assistant, Workload(prompt_tokens=256))
        print(clients.run(concurrency=4, requests=16).to_dict())
"""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any

from chatglm.assistant import BaseAssistant, Delta, Finish, TextDelta, Usage
from chatglm.errors import ChatGLMError, InputError

__all__ = ["Clients", "Level", "Sample", "Spread", "Workload"]

# These words are so common that any vocabulary has one piece for each. So texts of the same number of words have about
# the same number of tokens. Their meaning is irrelevant.
_TEXT = (
    "the of and to in is you that it for on are as with this have from one not what all when your can there use each "
    "which do how will up about many so like into time has look two more write go see number way my than water call "
    "who now find day did get come made"
)
_WORDS = _TEXT.split()


@dataclass(frozen=True)
class Workload:
    """What every client does.

    Attributes:
        prompt_tokens: length of a first prompt, including the template and the shared prefix.
        max_new_tokens: most tokens of an answer.
        shared_prefix: number of tokens at the beginning of the prompt that are the same for all (as with a system
            prompt or a document).
        turns: number of turns in a dialogue. Each turn sends the whole dialogue so far; the next begins when the answer
            is complete.
        turn_tokens: tokens that each later turn adds to the dialogue, besides the previous answer.
        hold: ask for answers of full length (`min_new_tokens`; `min_tokens` at an endpoint).
        chat: send dialogues; else plain texts without a chat format.
        seed: determines the texts.

    Raises:
        InputError: a number is too small, or the prefix is longer than the prompt.
    """

    prompt_tokens: int = 128
    max_new_tokens: int = 64
    shared_prefix: int = 0
    turns: int = 1
    turn_tokens: int = 32
    hold: bool = True
    chat: bool = True
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("prompt_tokens", "max_new_tokens", "turns", "turn_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.shared_prefix <= self.prompt_tokens:
            raise InputError(
                f"shared_prefix is {self.shared_prefix}; it must be from 0 to prompt_tokens, {self.prompt_tokens}"
            )


@dataclass(frozen=True)
class Sample:
    """One request, as its client saw it. Times are of `time.perf_counter`, in seconds.

    Attributes:
        turn: number of the turn in its dialogue, from 0.
        arrivals: times at which the pieces of the answer arrived.
        usage: token counts reported by the assistant; None: the request failed.
        failure: kind and text of the error; None: no error.
    """

    turn: int
    begin: float
    arrivals: tuple[float, ...]
    end: float
    usage: Usage | None
    failure: tuple[str, str] | None = None

    @property
    def first(self) -> float:
        """Seconds until the first piece; until the end if no text came."""
        return (self.arrivals[0] if self.arrivals else self.end) - self.begin

    @property
    def new_tokens(self) -> int:
        """Number of tokens by `usage`; if an endpoint does not report it, the number of pieces."""
        assert self.usage is not None
        return self.usage.completion_tokens or len(self.arrivals)

    @property
    def rate(self) -> float:
        """Tokens per second, from the request to the end. (How many tokens the first piece has is unknown.)"""
        return self.new_tokens / (self.end - self.begin)


@dataclass(frozen=True)
class Spread:
    """Number, median and percentiles of some values."""

    count: int
    median: float
    p90: float
    p99: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Compute them; None if there are no values."""
        if len(values) < 2:
            return cls(1, *[values[0]] * 3) if values else None
        cuts = statistics.quantiles(values, n=100, method="inclusive")
        return cls(len(values), cuts[49], cuts[89], cuts[98])


@dataclass(frozen=True)
class Level:
    """The results of a run with a certain number of clients.

    Attributes:
        seconds: from the first request to the end of the last one.
        guessed: number of tokens accepted from speculation; None: the assistant is not in this process.
    """

    concurrency: int
    seconds: float
    samples: tuple[Sample, ...]
    guessed: int | None = None

    @property
    def good(self) -> list[Sample]:
        """The requests that did not fail."""
        return [sample for sample in self.samples if sample.usage is not None]

    @property
    def failures(self) -> dict[str, int]:
        """Number of failed requests, by kind of error."""
        return dict(Counter(sample.failure[0] for sample in self.samples if sample.failure is not None))

    @property
    def tokens_per_second(self) -> float:
        """New tokens per second of all clients together."""
        return sum(sample.new_tokens for sample in self.good) / self.seconds

    @property
    def cached(self) -> float | None:
        """Share of the prompts' tokens that came from a cache; None if the assistant does not count prompt tokens."""
        read = sum(sample.usage.prompt_tokens for sample in self.good if sample.usage is not None)
        found = sum(sample.usage.cached_tokens for sample in self.good if sample.usage is not None)
        return found / read if read else None

    def to_dict(self) -> dict[str, Any]:
        """Figures as JSON values. Names of times in seconds end in `_s`. A spread is None if there were no values."""
        good = self.good
        gaps = [late - early for sample in good for early, late in itertools.pairwise(sample.arrivals)]
        lengths = {
            "prompt_tokens": [sample.usage.prompt_tokens for sample in good if sample.usage is not None],
            "new_tokens": [sample.new_tokens for sample in good],
        }
        spreads = {
            "first_token_s": Spread.of([sample.first for sample in good]),
            "first_token_later_turns_s": Spread.of([sample.first for sample in good if sample.turn]),
            "between_tokens_s": Spread.of(gaps),
        }
        words = {sample.failure[0]: sample.failure[1] for sample in reversed(self.samples) if sample.failure}
        return {
            "concurrency": self.concurrency,
            "requests": len(self.samples),
            "failures": self.failures,
            "failure_words": words,
            "seconds": self.seconds,
            **{
                name: {"total": sum(of_all), "least": min(of_all, default=0), "most": max(of_all, default=0)}
                for name, of_all in lengths.items()
            },
            **{name: None if spread is None else asdict(spread) for name, spread in spreads.items()},
            "tokens_per_second_total": self.tokens_per_second,
            "tokens_per_second_each": statistics.median(sample.rate for sample in good) if good else None,
            "cached_share": self.cached,
            "guessed_tokens": self.guessed,
        }


class Clients:
    """Clients that send requests to an assistant. First, two short requests are sent: they show how many tokens a text
    of a certain number of words has in this vocabulary, and that the assistant answers.

    Args:
        assistant: answers the requests. The caller closes it.
        workload: what the clients ask.

    Attributes:
        workload: the same, but `hold` is off if the endpoint refuses it.
        counted: whether the assistant reports numbers of tokens. If not, each word and each piece of an answer counts
            as one token.

    Raises:
        ServiceError: the endpoint does not answer. The assistant's other errors are raised too.
    """

    def __init__(self, assistant: BaseAssistant, workload: Workload) -> None:
        self._assistant = assistant
        self._numbers = itertools.count()
        self._over = threading.Event()
        self.workload = replace(workload, max_new_tokens=1)
        probes = [self._probe(size) for size in (len(_WORDS), 2 * len(_WORDS))]
        self.counted = all(probes)
        self._each = max((probes[1] - probes[0]) / len(_WORDS), 0.1) if self.counted else 1.0
        self._around = probes[0] - self._each * len(_WORDS) if self.counted else 0.0
        self.workload = replace(workload, hold=self.workload.hold)

    def run(
        self,
        concurrency: int,
        *,
        requests: int | None = None,
        seconds: float | None = None,
        watch: Callable[[Sample], None] = lambda sample: None,
    ) -> Level:
        """Run a number of clients at once.

        Args:
            concurrency: number of clients.
            requests: number of requests to make; only whole dialogues are made, and at least one for every client.
            seconds: instead of `requests`: after this time no new dialogue begins, but for the first of every client.
            watch: called with every sample, from several threads.

        Raises:
            InputError: `concurrency` is below 1, or not exactly one of `requests` and `seconds` is given and above 0.
        """
        if concurrency < 1:
            raise InputError(f"{concurrency} clients at once: at least 1 is needed")
        if (requests is None) == (seconds is None) or (requests or seconds or 0) <= 0:
            raise InputError("either a number of requests or of seconds is needed, above 0")
        dialogues = max(-(-(requests or 0) // self.workload.turns), concurrency)
        left = itertools.count() if requests is None else iter(range(dialogues))
        lock = threading.Lock()
        samples: list[Sample] = []
        before = self._assistant.stats()
        begin = time.perf_counter()

        def work() -> None:
            for dialogue in itertools.count():
                late = seconds is not None and time.perf_counter() - begin >= seconds
                if self._over.is_set() or (late and dialogue > 0):
                    return
                with lock:
                    if next(left, None) is None:
                        return
                    number = next(self._numbers)
                for sample in self._dialogue(number):
                    with lock:
                        samples.append(sample)
                    watch(sample)

        with ThreadPoolExecutor(concurrency, thread_name_prefix="chatglm client") as pool:
            try:
                for task in [pool.submit(work) for _ in range(concurrency)]:
                    task.result()
            except BaseException:
                self._over.set()  # the other clients end at their next token, and begin no other dialogue
                raise
        after = self._assistant.stats()
        guessed = after.accepted_tokens - before.accepted_tokens if before is not None and after is not None else None
        return Level(concurrency, max(sample.end for sample in samples) - begin, tuple(samples), guessed)

    def _dialogue(self, number: int) -> Iterator[Sample]:
        # Each workload has other texts. An assistant would answer texts that it has seen before from its cache.
        rng = Random(f"{self.workload} {number}")
        shared = self._text(Random(f"{self.workload}"), self.workload.shared_prefix, 0)
        own = self._text(rng, self.workload.prompt_tokens - self.workload.shared_prefix - self._around)
        said = [f"{shared} {own}".lstrip()]
        for turn in range(self.workload.turns):
            sample, answer = self._ask(said, turn)
            yield sample
            if sample.failure is not None:
                return
            said += [answer, self._text(rng, self.workload.turn_tokens - self._around)]

    def _text(self, rng: Random, tokens: float, least: int = 1) -> str:
        """Words that make about this number of tokens."""
        return " ".join(rng.choices(_WORDS, k=max(round(tokens / self._each), least)))

    def _ask(self, said: Sequence[str], turn: int) -> tuple[Sample, str]:
        arrivals: list[float] = []
        text: list[str] = []
        usage = failure = None
        begin = time.perf_counter()
        try:
            with closing(self._stream(said)) as deltas:
                for delta in deltas:
                    if self._over.is_set():
                        break
                    if isinstance(delta, Finish):
                        usage = delta.usage
                        continue
                    arrivals.append(time.perf_counter())
                    text.append(delta.text if isinstance(delta, TextDelta) else "")
        except ChatGLMError as error:
            failure = type(error.__cause__ or error).__name__, str(error)
        if usage is None and failure is None:
            failure = "broken off", "the stream ended without a finish reason"
        return Sample(turn, begin, tuple(arrivals), time.perf_counter(), usage, failure), "".join(text)

    def _stream(self, said: Sequence[str]) -> Generator[Delta]:
        length = self.workload.max_new_tokens
        params = {
            "temperature": 0,
            "max_new_tokens": length,
            **({"min_new_tokens": length} if self.workload.hold else {}),
        }
        if not self.workload.chat:
            return self._assistant.stream_text("\n".join(said), params=params)
        roles = itertools.cycle(("user", "assistant"))
        messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]
        return self._assistant.stream(messages, params=params, trim=False)

    def _probe(self, words: int) -> int:
        """Number of tokens of a prompt with this number of words; 0: not reported."""
        text = " ".join(itertools.islice(itertools.cycle(_WORDS), words))
        while True:
            try:
                with closing(self._stream([text])) as deltas:
                    ends = [delta for delta in deltas if isinstance(delta, Finish)]
                return ends[0].usage.prompt_tokens
            except InputError:
                if not self.workload.hold:
                    raise
                # An endpoint may refuse `min_tokens`, so try without it. If something else is wrong, this fails, too.
                self.workload = replace(self.workload, hold=False)
