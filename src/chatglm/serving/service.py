"""What all dialects serve: the models on offer, figures about their use, and how the server ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

from chatglm.assistant import BaseAssistant, Delta
from chatglm.errors import InputError
from chatglm.serving.bodies import Limits
from chatglm.serving.callers import Caller
from chatglm.serving.failures import UnknownModelError
from chatglm.serving.metrics import Metrics

__all__ = ["OVERLOADED", "Drain", "Served", "Service"]

OVERLOADED = "chatglm.overloaded"
"""Key of `scope["state"]`: set by the server for requests beyond its limit of connections, which are refused."""


@dataclass(frozen=True)
class Served:
    """A model on offer."""

    name: str
    assistant: BaseAssistant
    adapter: str | None = None


class Drain:
    """How a server ends: it takes no new requests, waits for those that run, and at last ends them."""

    def __init__(self) -> None:
        self.begun = False
        self.over = False
        self._waiting: set[asyncio.Future[None]] = set()

    def begin(self) -> None:
        self.begun = True

    def end(self) -> None:
        """End what still runs."""
        self.begun = self.over = True
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
    """

    def __init__(
        self, assistants: Mapping[str, BaseAssistant], limits: Limits | None = None, any_model: bool = False
    ) -> None:
        if not assistants:
            raise InputError("create_app: no models given")
        contexts = [assistant.context for assistant in assistants.values()]
        known = [context for context in contexts if context is not None]
        self.limits = limits or (Limits.of_context(max(known)) if len(known) == len(contexts) else Limits())
        self.any_model = any_model
        self.models = {name: Served(name, assistant) for name, assistant in assistants.items()}
        for assistant in assistants.values():
            for adapter in assistant.adapters:
                self.models.setdefault(adapter, Served(adapter, assistant, adapter))
        self.metrics = Metrics(assistants)
        self.drain = Drain()

    async def find(self, name: str | None, caller: Caller) -> Served:
        """The model that is meant.

        Args:
            name: None: the first.

        Raises:
            UnknownModelError: there is none of that name.
        """
        if name in self.models:
            return self.models[name]
        if not name or self.any_model:
            return next(iter(self.models.values()))
        raise UnknownModelError(
            f"model: {name!r:.100} is not served here; available: {', '.join(self.models)}. (`chatglm serve --name` "
            "adds a name, `--any-model` accepts all.)"
        )

    def restarts(self) -> int:
        """How often an engine failed and was started again."""
        stats = {id(served.assistant): served.assistant.stats() for served in self.models.values()}
        return sum(one.restarts for one in stats.values() if one is not None)

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
        return self.metrics.watch(served.name, deltas, answers, prompts)
