"""What all dialects serve: the models on offer, figures about their use, and how the server ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from chatglm.assistant import BaseAssistant, Delta
from chatglm.encoders import Embedder, Reranker
from chatglm.errors import InputError
from chatglm.serving import records
from chatglm.serving.background import BACKGROUND, Background
from chatglm.serving.batches import Batches
from chatglm.serving.bodies import Limits
from chatglm.serving.callers import Caller
from chatglm.serving.calls import Calls, Reply
from chatglm.serving.encoding import Encoder, ServedEmbedder, ServedReranker
from chatglm.serving.failures import ForbiddenError, UnknownModelError
from chatglm.serving.files import Files
from chatglm.serving.keys import ACTIONS, Key, Keyring
from chatglm.serving.limits import RateLimits
from chatglm.serving.metrics import Metrics
from chatglm.serving.storage import Storage
from chatglm.serving.tasks import Tasks

__all__ = ["OVERLOADED", "Drain", "Served", "Service"]

EncoderKind = TypeVar("EncoderKind", Embedder, Reranker)

OVERLOADED = "chatglm.overloaded"
"""Key of `scope["state"]`: set by the server for requests beyond its limit of connections, which are refused."""


@dataclass(frozen=True)
class Served:
    """A model on offer."""

    name: str
    assistant: BaseAssistant
    adapter: str | None = None


class Drain:
    """How a server ends: `/health` says so, it takes no new requests, waits for those that run, and at last ends them.

    Attributes:
        announced: `/health` says so.
        begun: new requests are refused.
        over: what still runs is ended.
    """

    def __init__(self) -> None:
        self.announced = self.begun = self.over = False
        self.when_begun: list[Callable[[], None]] = []
        self._waiting: set[asyncio.Future[None]] = set()

    def announce(self) -> None:
        self.announced = True

    def begin(self) -> None:
        if not self.begun:
            self.announced = self.begun = True
            for call in self.when_begun:
                call()

    def end(self) -> None:
        """End what still runs."""
        self.begin()
        self.over = True
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def wait(self) -> None:
        """Return at the end."""
        if not self.over:
            future = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)


class Service:
    """The models on offer, and the figures about their use.

    Args:
        assistants: by the name that requests give. Their adapters are models of their own names, too.
        limits: of bodies; by default from the longest context of the models.
        any_model: answer requests for unknown models with the first model.
        keys: that callers need; None: they need none.
        encoders: for embeddings and rerank, by the name that requests give.
        home: folder of what is stored; None: `chatglm.home.home_path()`.

    Attributes:
        parsing: one thread for large bodies. Several would take turns, each with the memory of its body.
        calls: requests of the server to itself.
        tasks: requests that are answered later.
        files: that clients upload, and that batches make.
        batches: files with requests, which are answered later.
    """

    def __init__(
        self,
        assistants: Mapping[str, BaseAssistant],
        limits: Limits | None = None,
        any_model: bool = False,
        keys: Keyring | None = None,
        encoders: Mapping[str, Encoder] | None = None,
        home: Path | None = None,
    ) -> None:
        if not assistants and not encoders:
            raise InputError("create_app: no models given")
        contexts = [assistant.context for assistant in assistants.values()]
        known = [context for context in contexts if context is not None]
        self.encoders: dict[str, Encoder] = dict(encoders or {})
        of_context = len(known) == len(contexts) and not self.encoders
        self.limits = limits or (Limits.of_context(max(known)) if of_context else Limits())
        self.any_model, self.keys = any_model, keys
        self.models = {name: Served(name, assistant) for name, assistant in assistants.items()}
        for assistant in assistants.values():
            for adapter in assistant.adapters:
                self.models.setdefault(adapter, Served(adapter, assistant, adapter))
        self.metrics = Metrics(assistants)
        self.drain = Drain()
        self.rates = RateLimits()
        self.timeout: float | None = None
        self.parsing = ThreadPoolExecutor(1, "chatglm-bodies")
        self.calls = Calls()
        self.storage = Storage(home)
        self.tasks = Tasks(self.storage, self._work, self._model_of)
        self.files = Files(self.storage, self._work)
        self.batches = Batches(self.storage, self.files, self._work, self._model_of, self.limits)
        self.background = Background(self.storage, self, self.batches, self.limits, self.tasks.limits.lifetime)
        self.drain.when_begun.append(self.background.end)

    def _work(self) -> None:
        self.background.wake()

    def _model_of(self, name: Any) -> str:
        return name if isinstance(name, str) and self._has(name) else next(iter(self.models))

    def _has(self, name: str) -> bool:
        return name in self.models or name in self.encoders

    def serves(self, name: str) -> bool:
        """Whether requests for a model of this name are answered."""
        return self._has(name) or self.any_model

    def live(self) -> int:
        """How many requests are under way whose clients wait for them."""
        return self.metrics.live

    async def send(self, caller: Caller, path: str, body: Mapping[str, Any]) -> Reply:
        """POST a body to a path of this server; see `Calls.send`."""
        return await self.calls.send(caller, path, body)

    async def call(self, caller: Caller, path: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        """The status and the JSON of the answer to a request of the server to itself, in somebody's name."""
        reply = await self.send(caller, path, body)
        return reply.status, reply.value

    def key_of(self, caller: Caller) -> Key | None:
        """The API key of a caller, as it is now; None where no keys are needed.

        Raises:
            AuthenticationError: the key was removed or has expired since the caller was known (a task may wait long).
        """
        return None if self.keys is None else self.keys.get(caller.owner)

    def permit(self, caller: Caller, action: str) -> None:
        """Let those pass who may do this. Where no keys are needed, all may.

        Args:
            action: one of `keys.ACTIONS`.

        Raises:
            ForbiddenError: the caller's key may not.
        """
        key = self.key_of(caller)
        if key is not None and action not in key.may:
            raise ForbiddenError(
                f"the API key {key.name!r} may not {ACTIONS[action]}; a key may that is made with "
                f"`chatglm keys add --may {action}`"
            )

    def offered(self, caller: Caller) -> dict[str, Served]:
        """The models that a caller may use."""
        key = self.key_of(caller)
        return {name: served for name, served in self.models.items() if key is None or key.allows(name)}

    async def find(self, name: str | None, caller: Caller) -> Served:
        """The model that is meant.

        Args:
            name: None: the first that the caller may use.

        Raises:
            UnknownModelError: there is none of that name.
            ForbiddenError: the caller's key may not use it.
        """
        offered = self.offered(caller)
        if name in offered:
            return offered[name]
        if name in self.models or not offered:
            shown = ", ".join(offered) or "none of those that are served here"
            raise ForbiddenError(f"model: this API key may not use {name or 'any'!r}; it may use: {shown}", "model")
        if not name or self.any_model:
            return next(iter(offered.values()))
        raise UnknownModelError(
            f"model: {name!r:.100} is not served here; available: {', '.join(offered)}. (`chatglm serve --name` "
            "adds a name, `--any-model` accepts all.)"
        )

    async def encoder(self, name: str | None, caller: Caller) -> ServedEmbedder:
        """The embedding model that is meant.

        Args:
            name: None: the first that the caller may use.

        Raises:
            UnknownModelError: there is none of that name, or none at all.
            ForbiddenError: the caller's key may not use it.
        """
        found, encoder = self._encoder(name, caller, Embedder)
        return ServedEmbedder(found, encoder, caller, self.metrics, self._count(caller))

    async def reranker(self, name: str | None, caller: Caller) -> ServedReranker:
        """The model for rerank that is meant; as `encoder`."""
        found, encoder = self._encoder(name, caller, Reranker)
        return ServedReranker(found, encoder, caller, self.metrics, self._count(caller))

    async def any_encoder(self, name: str | None, caller: Caller) -> Encoder | None:
        """The encoder of this name, of either kind; None: there is none."""
        key = self.key_of(caller)
        encoder = self.encoders.get(name or "")
        return encoder if key is None or name is None or key.allows(name) else None

    def _encoder(self, name: str | None, caller: Caller, kind: type[EncoderKind]) -> tuple[str, EncoderKind]:
        what, option = ("embeddings", "--embedding") if kind is Embedder else ("rerank", "--rerank")
        served = {known: one for known, one in self.encoders.items() if isinstance(one, kind)}
        if not served:
            raise UnknownModelError(
                f"model: this server has no model for {what}; start it with `chatglm serve {option} FOLDER` (a model's "
                "folder or repository id)"
            )
        key = self.key_of(caller)
        offered = {known: one for known, one in served.items() if key is None or key.allows(known)}
        if name in offered:
            return name, offered[name]
        if name in served or not offered:
            shown = ", ".join(offered) or f"none for {what}"
            raise ForbiddenError(f"model: this API key may not use {name or 'any'!r}; it may use: {shown}", "model")
        if not name or self.any_model:
            return next(iter(offered.items()))
        raise UnknownModelError(
            f"model: {name!r:.100} is no model for {what} of this server; available: {', '.join(offered)}. (`chatglm "
            f"serve {option} NAME=FOLDER` gives a model a name.)"
        )

    def restarts(self) -> int:
        """How often an engine failed and was started again."""
        stats = {id(served.assistant): served.assistant.stats() for served in self.models.values()}
        return sum(one.restarts for one in stats.values() if one is not None)

    def replicas_out(self) -> dict[str, str]:
        """The endpoints behind this server that get no requests now, and why."""
        return {
            replica.name: replica.problem
            for served in self.models.values()
            for replica in served.assistant.replicas()
            if replica.problem
        }

    def problem(self) -> str:
        """Why some model does not answer any more; "" if all do."""
        return "; ".join(
            f"{name}: {problem}" for name, served in self.models.items() if (problem := served.assistant.problem())
        )

    def watch(
        self, served: Served, caller: Caller, deltas: AsyncGenerator[Delta], *, answers: int = 1, prompts: int = 1
    ) -> AsyncGenerator[Delta]:
        """The same deltas, counted for the caller and the figures. Every route sends its deltas through here.

        Args:
            answers: that are asked for to each prompt.
            prompts: of the request.
        """
        record = records.current()
        record.model = served.name
        live = not caller.client.startswith(BACKGROUND)
        return self.metrics.watch(served.name, deltas, answers, prompts, live, record, self._count(caller))

    def _count(self, caller: Caller) -> Callable[[int], None] | None:
        """What gets the numbers of a caller's tokens; None where there are no limits."""
        return None if self.keys is None else partial(self.rates.count, caller.owner)
