"""How fast answers come: many clients at once, each of whom asks, reads the stream, and asks again.

What is measured is what a client sees, whoever answers: a model of this process or any OpenAI-compatible endpoint.

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

# So common that any vocabulary has one piece for each, and texts of equal length cost the same; what they say is of no
# interest.
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
        prompt_tokens: of a first turn, template and shared prefix among them.
        max_new_tokens: of an answer.
        shared_prefix: so many first tokens of the prompt are the same for all (a system prompt, a document).
        turns: of a dialogue; each sends again all that was said. The next begins when the answer is there.
        turn_tokens: that each later turn adds to the dialogue besides the answer before it.
        hold: ask that no answer ends early (`min_new_tokens`; `min_tokens` at an endpoint).
        chat: dialogues; else plain texts, without any format of a dialogue.
        seed: decides the texts.

    Raises:
        InputError: a number is too small, or the prefix longer than the prompt.
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
    """One request, as its client saw it. Times are of `time.perf_counter`.

    Attributes:
        turn: of its dialogue, from 0.
        arrivals: when each piece of the answer came.
        usage: as the assistant told it; None: the request failed.
        failure: what went wrong: its kind and its words; None: nothing.
    """

    turn: int
    begin: float
    arrivals: tuple[float, ...]
    end: float
    usage: Usage | None
    failure: tuple[str, str] | None = None

    @property
    def first(self) -> float:
        """Seconds to the first piece; to the end where no text came."""
        return (self.arrivals[0] if self.arrivals else self.end) - self.begin

    @property
    def new_tokens(self) -> int:
        """As the usage says; where an endpoint sends none, the pieces that came."""
        assert self.usage is not None
        return self.usage.completion_tokens or len(self.arrivals)

    @property
    def rate(self) -> float:
        """Tokens/s, from asking to the end. (Which token it was that showed first, no client knows.)"""
        return self.new_tokens / (self.end - self.begin)


@dataclass(frozen=True)
class Spread:
    """Of some values."""

    count: int
    median: float
    p90: float
    p99: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None where there are none."""
        if len(values) < 2:
            return cls(1, *[values[0]] * 3) if values else None
        cuts = statistics.quantiles(values, n=100, method="inclusive")
        return cls(len(values), cuts[49], cuts[89], cuts[98])


@dataclass(frozen=True)
class Level:
    """What so many clients at once saw.

    Attributes:
        seconds: from the first request to the end of the last.
        guessed: tokens that came from speculation; None: the assistant is not of this process.
    """

    concurrency: int
    seconds: float
    samples: tuple[Sample, ...]
    guessed: int | None = None

    @property
    def good(self) -> list[Sample]:
        return [sample for sample in self.samples if sample.usage is not None]

    @property
    def failures(self) -> dict[str, int]:
        """How many requests failed, by kind."""
        return dict(Counter(sample.failure[0] for sample in self.samples if sample.failure is not None))

    @property
    def tokens_per_second(self) -> float:
        """Of all clients together."""
        return sum(sample.new_tokens for sample in self.good) / self.seconds

    @property
    def cached(self) -> float | None:
        """Share of the prompts' tokens that were not computed again; None where prompts are not counted."""
        read = sum(sample.usage.prompt_tokens for sample in self.good if sample.usage is not None)
        found = sum(sample.usage.cached_tokens for sample in self.good if sample.usage is not None)
        return found / read if read else None

    def to_dict(self) -> dict[str, Any]:
        """Figures for machines; seconds are in the names. A spread is None where there was nothing to measure."""
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
    """Those who ask. Two short requests come first: they show how many tokens a text of so many words has, in whatever
    vocabulary, and that there is somebody who answers.

    Args:
        assistant: who answers. It stays its owner's.
        workload: what is asked.

    Attributes:
        workload: what is really asked: not held to a length where the endpoint refuses to.
        counted: whether the assistant tells how many tokens there were; else a word counts as one, and so does every
            piece of an answer.

    Raises:
        ServiceError: there is nobody. And what else the assistant raises.
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
        """Have so many clients at work at a time.

        Args:
            requests: to make: in whole dialogues, and at least one dialogue for every client.
            seconds: after which no new dialogue begins, instead.
            watch: is told every sample; called from several threads.

        Raises:
            InputError: no client, or not one of `requests` and `seconds`.
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
            while seconds is None or time.perf_counter() - begin < seconds:
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
                self._over.set()  # the others end at their next token
                raise
        after = self._assistant.stats()
        guessed = after.accepted_tokens - before.accepted_tokens if before is not None and after is not None else None
        return Level(concurrency, max(sample.end for sample in samples) - begin, tuple(samples), guessed)

    def _dialogue(self, number: int) -> Iterator[Sample]:
        # Another workload, other texts: those that an assistant has seen before would be answered from its cache.
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
        """Words that make about so many tokens."""
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
        """Tokens of a prompt of so many words; 0: not told."""
        text = " ".join(itertools.islice(itertools.cycle(_WORDS), words))
        while True:
            try:
                with closing(self._stream([text])) as deltas:
                    ends = [delta for delta in deltas if isinstance(delta, Finish)]
                return ends[0].usage.prompt_tokens
            except InputError:
                if not self.workload.hold:
                    raise
                # Who does not know `min_tokens` may refuse it; and if that was not it, will say so again.
                self.workload = replace(self.workload, hold=False)
