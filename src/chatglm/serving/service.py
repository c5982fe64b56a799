"""What all dialects share: the models on offer, metrics of their use, and how the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from chatglm.assistant import BaseAssistant, Options
from chatglm.chat.messages import Message
from chatglm.encoders import Embedder, Reranker
from chatglm.errors import InputError
from chatglm.serving import records
from chatglm.serving.access.callers import Caller, check_origin
from chatglm.serving.access.keys import ACTIONS, Key, Keyring
from chatglm.serving.access.limits import RateLimits
from chatglm.serving.bodies import Limits
from chatglm.serving.catalog import Catalog, Kind, Offer
from chatglm.serving.encoding import Encoder, ServedEmbedder, ServedReranker
from chatglm.serving.failures import ForbiddenError, UnknownModelError
from chatglm.serving.memory import Threads
from chatglm.serving.metrics import Metrics
from chatglm.serving.server_tools import Said, ServerTools, new_container
from chatglm.serving.stored.background import BACKGROUND, Background
from chatglm.serving.stored.batches import Batches
from chatglm.serving.stored.calls import Calls, Reply
from chatglm.serving.stored.files import Files
from chatglm.serving.stored.storage import Storage
from chatglm.serving.stored.tasks import Tasks

if TYPE_CHECKING:
    from chatglm.knowledge import Shelf
    from chatglm.tools.interpreter.pool import Kernels
    from chatglm.tools.toolbox import Toolbox

__all__ = ["DOCUMENTS", "IDLE", "OVERLOADED", "Drain", "Idle", "Served", "Service"]

Some = TypeVar("Some", bound=Said)

_WORDS: dict[Kind, tuple[str, str]] = {
    "chat": ("chat", "--model"),
    "embedding": ("embeddings", "--embedding"),
    "rerank": ("rerank", "--rerank"),
}
"""By kind of model: what it is for, and the option that names one."""

DOCUMENTS = "knowledge:"
"""Prefix of a name in the field `model` that stands for bases of documents: `knowledge:NAME+NAME`."""

OVERLOADED = "chatglm.overloaded"
"""Key of `scope["state"]`: set by the server for requests beyond its limit of connections, which are refused."""

IDLE = "chatglm.idle"
"""Key of `scope["state"]`: the `Idle` of a WebSocket, which its route keeps up to date."""


@dataclass
class Idle:
    """Whether a WebSocket is idle, and may be closed to make room for other connections.

    Attributes:
        since: when it began to wait for the client, in the time of the event loop; None: it does not wait.
    """

    since: float | None = None


@dataclass(frozen=True)
class Served:
    """A model on offer."""

    name: str
    assistant: BaseAssistant
    adapter: str | None = None


class Drain:
    """How a server stops: `/health` says so, it takes no new requests, waits for running ones, and finally ends them.

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
    """The models on offer, and the metrics of their use.

    Args:
        catalog: the models on offer. Adapters are models of their own names, too.
        limits: of bodies; by default from the longest context of the models.
        any_model: answer requests for unknown models with the first model.
        keys: that callers need; None: they need none.
        adapters_from: folder from within which adapters may be loaded; None: none may.
        home: folder of what is stored; None: `chatglm.home.home_path()`.
        toolbox, kernels, tools_without_asking: see `ServerTools`.
        shelf: bases of documents; None: there are none.

    Attributes:
        parsing: one thread for large bodies. Several threads would not be faster, and would need the memory of several
            bodies.
        calls: requests of the server to itself.
        tasks: requests that are answered later.
        files: that clients upload, and that batches make.
        batches: files with requests, which are answered later.
        server_tools: tools that run here.
        closing: is called when the server has ended.
        origins: pages that may use the server from a browser.
    """

    def __init__(
        self,
        catalog: Catalog,
        limits: Limits | None = None,
        any_model: bool = False,
        keys: Keyring | None = None,
        home: Path | None = None,
        adapters_from: Path | None = None,
        toolbox: Toolbox | None = None,
        kernels: Kernels | None = None,
        tools_without_asking: bool = False,
        shelf: Shelf | None = None,
    ) -> None:
        if not catalog.offers:
            raise InputError("create_app: no models given")
        self.catalog, self.adapters_from = catalog, adapters_from
        self.limits = limits or (Limits() if catalog.context is None else Limits.of_context(catalog.context))
        self.any_model, self.keys = any_model, keys
        self.metrics = Metrics(catalog.assistants)
        self.server_tools = ServerTools(self.permit, self.metrics, toolbox, kernels, tools_without_asking, shelf)
        if kernels is not None:
            self.metrics.show_kernels(lambda: kernels.running)
        self.shelf = shelf
        self.drain = Drain()
        self.rates = RateLimits()
        self.timeout: float | None = None
        self.parsing = Threads(1, "chatglm-bodies")
        self.calls = Calls()
        self.storage = Storage(home)
        self.tasks = Tasks(self.storage, self._work, self._model_of)
        self.files = Files(self.storage, self._work)
        self.batches = Batches(self.storage, self.files, self._work, self._model_of, self.limits)
        self.background = Background(self.storage, self, self.batches, self.limits, self.tasks.limits.lifetime)
        self.drain.when_begun.append(self.background.end)
        self.closing: list[Callable[[], None]] = []
        self.origins: Sequence[str] = ()

    def _work(self) -> None:
        self.background.wake()

    def _model_of(self, name: Any) -> str:
        return name if isinstance(name, str) and self._has(name) else next(iter({**self.models, **self.catalog.offers}))

    def _has(self, name: str) -> bool:
        return name in self.catalog.offers

    def serves(self, name: str) -> bool:
        """Whether requests for a model of this name are answered."""
        return self._has(name) or self.any_model

    def live(self) -> int:
        """Number of running requests whose clients wait for them."""
        return self.metrics.live

    async def send(self, caller: Caller, path: str, body: Mapping[str, Any], *, wait: bool = True) -> Reply:
        """POST a body to a path of this server; see `Calls.send`."""
        return await self.calls.send(caller, path, body, wait=wait)

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

    def check_page(self, headers: Mapping[str, str]) -> None:
        """Refuse what a page of another site sends. For requests that browsers send without asking first (CORS): forms,
        and bodies without a type. Where keys are needed, no page has one that it was not given.

        Raises:
            ForbiddenError: such a page sent it.
        """
        if self.keys is None:
            check_origin(headers, self.origins)

    def permit(self, caller: Caller, action: str) -> None:
        """Check that a caller may do this. If no keys are needed, everybody may.

        Args:
            action: one of `keys.ACTIONS`.

        Raises:
            ForbiddenError: the caller's key may not.
        """
        key = self.key_of(caller)
        if key is not None and action not in key.may:
            raise ForbiddenError(
                f"the API key {key.name!r} may not {ACTIONS[action]}; make a key that may with "
                f"`chatglm keys add --may {action}`"
            )

    @property
    def models(self) -> dict[str, Offer]:
        """The models that answer."""
        return self.catalog.of("chat")

    def offered(self, caller: Caller, *kinds: Kind) -> dict[str, Offer]:
        """What a caller may use, by name: the models that answer, or those of other kinds."""
        key = self.key_of(caller)
        offers = self.catalog.of(*(kinds or ("chat",)))
        return {name: offer for name, offer in offers.items() if key is None or key.allows(name)}

    async def find(self, name: str | None, caller: Caller) -> Served:
        """Find the model of a request. It is loaded if needed, and stays until the request ends.

        Args:
            name: None: the first that the caller may use.

        Raises:
            UnknownModelError: there is none of that name.
            ForbiddenError: the caller's key may not use it.
            ModelLoadError: it cannot be loaded, or not now.
        """
        offer = self.offer(name, caller)
        assistant = await self.catalog.acquire(offer)
        assert isinstance(assistant, BaseAssistant)
        return Served(offer.name, assistant, offer.adapter)

    def offer(self, name: str | None, caller: Caller, *kinds: Kind) -> Offer:
        """`find` without the model, which need not be loaded.

        Args:
            kinds: of models; default: those that answer.
        """
        known, offered = self.catalog.of(*(kinds or ("chat",))), self.offered(caller, *kinds)
        what, option = _WORDS[kinds[0] if kinds else "chat"]
        if not known:
            raise UnknownModelError(
                f"model: this server has no model for {what}; start it with `chatglm serve {option} FOLDER` (a model's "
                "folder or repository id)"
            )
        if name in offered:
            return offered[name]
        if name and name.startswith(DOCUMENTS):
            raise UnknownModelError(
                f"model: {name!r:.80} stands for documents; ask them at /v1/chat/completions, /v1/responses and "
                "/v1/knowledge/NAME/ask; answers of this route have no place for citations"
            )
        if name in known or not offered:
            shown = ", ".join(offered) or "none of those that are served here"
            raise ForbiddenError(f"model: this API key may not use {name or 'any'!r}; it may use: {shown}", "model")
        if not name or self.any_model:
            return next(iter(offered.values()))
        if name in self.catalog.offers:
            raise UnknownModelError(f"model: {name!r:.100} is not a model for {what}; available: {', '.join(offered)}")
        raise UnknownModelError(
            f"model: {name!r:.100} is not served here; available: {', '.join(offered)}. (`chatglm serve {option} "
            "NAME=FOLDER` gives a model a name, `--any-model` accepts all.)"
        )

    async def encoder(self, name: str | None, caller: Caller) -> ServedEmbedder:
        """Find the embedding model of a request; as `find`."""
        offer = self.offer(name, caller, "embedding")
        encoder = await self.catalog.acquire(offer)
        assert isinstance(encoder, Embedder)
        return ServedEmbedder(offer.name, encoder, caller, self.metrics, self._count(caller))

    async def reranker(self, name: str | None, caller: Caller) -> ServedReranker:
        """Find the model for rerank of a request; as `find`."""
        offer = self.offer(name, caller, "rerank")
        encoder = await self.catalog.acquire(offer)
        assert isinstance(encoder, Reranker)
        return ServedReranker(offer.name, encoder, caller, self.metrics, self._count(caller))

    async def any_encoder(self, name: str | None, caller: Caller) -> Encoder | None:
        """The encoder of this name, of either kind; None: there is none."""
        offers = self.offered(caller, "embedding", "rerank")
        if name not in offers:
            return None
        encoder = await self.catalog.acquire(offers[name])
        assert not isinstance(encoder, BaseAssistant)
        return encoder

    def restarts(self) -> int:
        """How often an engine failed and was started again."""
        stats = [assistant.stats() for assistant in self.catalog.assistants().values()]
        return sum(one.restarts for one in stats if one is not None)

    def replicas_out(self) -> dict[str, str]:
        """The endpoints behind this server that get no requests now, and why."""
        return {
            replica.name: replica.problem
            for assistant in self.catalog.assistants().values()
            for replica in assistant.replicas()
            if replica.problem
        }

    def problem(self) -> str:
        """Why some model does not answer any more; "" if all do. A model that is not loaded is not a problem."""
        return "; ".join(
            f"{name}: {problem}"
            for name, assistant in self.catalog.assistants().items()
            if (problem := assistant.problem())
        )

    def answer(
        self,
        served: Served,
        caller: Caller,
        messages: Sequence[Message],
        options: Options,
        tools: Sequence[str] = (),
        container: str = "",
        *,
        keep: bool = False,
        answers: int = 1,
    ) -> AsyncGenerator[Said]:
        """The answer to a dialogue as it comes, counted as by `watch`.

        Args:
            tools: of the server, that the caller may use (`ServerTools.check`).
            container: the interpreter's; "": a new one. keep: whether it stays when the answer is whole.
        """
        assistant = served.assistant
        if not tools:
            return self.watch(served, caller, assistant.astream(messages, **options), answers=answers)
        container = container or new_container()
        spent = partial(self.metrics.note_rounds, served.name, records.current(), self._count(caller))
        said = self.server_tools.run(assistant, messages, options, tools, caller, container, keep, spent)
        return self.watch(served, caller, said)

    def watch(
        self, served: Served, caller: Caller, deltas: AsyncGenerator[Some], *, answers: int = 1, prompts: int = 1
    ) -> AsyncGenerator[Some]:
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
        """A function that counts tokens of a caller; None if there are no limits."""
        return None if self.keys is None else partial(self.rates.count, caller.owner)
