"""An engine that says what it is told: ids in, ids out, no model."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from chatglm.chat.calls import render_python_call
from chatglm.chat.formats import ChatFormat
from chatglm.chat.messages import INTERPRETER, Message, ToolCall
from chatglm.engine.engine import EngineStats, Event
from chatglm.engine.sampling import Draw
from chatglm.errors import InputError, QueueFullError
from chatglm.params import SamplingParams


@dataclass(eq=False)
class Asked:
    """A request, as it came to the engine."""

    ids: list[int]
    params: SamplingParams
    constraint: Any
    stop_ids: Collection[int]
    adapter: str | None
    uncounted: Callable[[int], bool] | None = None
    client: str | None = None
    replies: list[list[int]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)

    def lead(self, reply: list[int]) -> int:
        """How many of a reply's first tokens are not counted."""
        return 0 if self.uncounted is None else len([*takewhile(self.uncounted, reply[:8])])


class ScriptedEngine:
    """Answers requests in turn with the given replies, `pace` ids a step; the last one again and again.

    Args:
        replies: ids, the stop id included; or an error to raise from `step`.
        delay: seconds that a step takes.
        room: requests at a time; the next one is refused, and told to come again after `retry_after` seconds.
    """

    adapters: tuple[str, ...] = ()
    max_waiting = 256
    memory = 1 << 20

    def __init__(
        self,
        *replies: list[int] | BaseException,
        pace: int = 1,
        delay: float = 0.0,
        room: int = 1000,
        retry_after: float = 1.0,
        context: int = 512,
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        self.replies = list(replies)
        self.pace, self.delay, self.room, self.retry_after = pace, delay, room, retry_after
        self.context = self.capacity = context
        self.asked: list[Asked] = []
        self.running: list[Asked] = []
        self.aborted: list[Asked] = []
        self.made = 0
        self.restarts = 0
        self.watch = watch

    @property
    def idle(self) -> bool:
        return not self.running

    def submit(
        self,
        ids: Sequence[int],
        params: SamplingParams,
        *,
        stop_ids: Collection[int] = (),
        constraint: Any = None,
        adapter: str | None = None,
        uncounted: Callable[[int], bool] | None = None,
        client: str | None = None,
    ) -> Asked:
        if len(self.running) >= self.room:
            full = QueueFullError(f"{self.room} requests are waiting; try again later")
            full.retry_after = self.retry_after
            raise full
        if not ids:
            raise InputError("the prompt has no tokens")
        asked = Asked(list(ids), params, constraint, stop_ids, adapter, uncounted, client)
        for _ in range(params.n):
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
            if isinstance(reply, BaseException):
                raise reply
            asked.replies.append(reply)
        asked.places = [0] * params.n
        self.asked.append(asked)
        self.running.append(asked)
        return asked

    def check_size(self, answers: int) -> None:
        if answers > 256:
            raise InputError(
                f"{answers} answers are asked for at once, and at most 256 may wait; ask for fewer at a time"
            )

    def abort(self, asked: Asked, index: int | None = None) -> None:
        if index is not None:
            asked.ended.append(index)
            asked.replies[index] = asked.replies[index][: asked.places[index]]
            if any(place < len(reply) for place, reply in zip(asked.places, asked.replies, strict=True)):
                return
        self.aborted.append(asked)
        self.running = [one for one in self.running if one is not asked]

    def step(self) -> list[Event]:
        self.watch()
        time.sleep(self.delay)
        events = []
        for asked in list(self.running):
            most = asked.params.max_new_tokens or 10_000
            for index, reply in enumerate(asked.replies):
                start = asked.places[index]
                lead = asked.lead(reply)
                end = min(len(reply), most + lead)
                if start >= end:
                    continue
                stop = asked.places[index] = min(start + self.pace, end)
                tokens = reply[start:stop]
                self.made += len(tokens)
                wanted = asked.params.logprobs
                draws = [] if wanted is None else [Draw(token, -0.5, ((token, -0.5),) * wanted) for token in tokens]
                finish = None
                if stop == end:
                    finish = "stop" if reply[end - 1] in asked.stop_ids else "length"
                events.append(Event(asked, index, tokens, draws, finish, None, 1, max(min(stop, lead) - start, 0)))
            ends = [min(len(reply), most + asked.lead(reply)) for reply in asked.replies]
            if all(place >= end for place, end in zip(asked.places, ends, strict=True)):
                self.running.remove(asked)
        return events

    def restart(self) -> None:
        self.running.clear()
        self.restarts += 1

    def stats(self) -> EngineStats:
        return EngineStats(restarts=self.restarts, running=len(self.running), pages_total=8, generated_tokens=self.made)


class Writer:
    """Replies as a model of a format writes them."""

    def __init__(self, form: ChatFormat) -> None:
        self.form = form
        self.end = min(form.stop_ids)

    def say(self, text: str, line: str = "") -> list[int]:
        """Text, or with a line of metadata whatever that makes of it."""
        return [*self.form.opening(line), *self.form.tokenizer.encode_text(text), self.end]

    def counted(self, text: str) -> int:
        """How many tokens of `say(text)` a caller sees in the usage: all but the blanks that it begins with."""
        blank = [self.form.tokenizer.token_bytes(token).isspace() for token in self.say(text)]
        return len(blank) - blank.index(False)

    def call(self, *calls: tuple[str, dict[str, Any]], text: str = "") -> list[int]:
        """ChatGLM3's calls, after a text if there is one."""
        parts = [self.say(text)[:-1]] if text else []
        parts += [self.say(render_python_call(arguments), name)[:-1] for name, arguments in calls]
        header = self.form.header_id()
        assert header is not None
        ids = [token for part in parts for token in (header, *part)]
        return [*ids[1:], self.end]

    def code(self, code: str) -> list[int]:
        """A call of the code interpreter."""
        ids, learned = self.form.example([Message("assistant", "", (ToolCall(INTERPRETER, {"code": code}),))])
        return [token for token, own in zip(ids, learned, strict=True) if own]
