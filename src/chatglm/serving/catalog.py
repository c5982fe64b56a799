"""The models on offer: loaded at the start or on first use, unloaded when nobody uses them.

A request holds the models that it has found until it ends, however it ends (`Leases`); a model that is held is never
unloaded. All bookkeeping is done in the server's event loop; loading and closing are done in threads.

The memory budget counts the bytes of a model's weights in memory, and of its keys and values. Before a model is loaded,
this is an estimate from its files; afterwards it is what the model has taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send

from chatglm.assistant import Assistant, BaseAssistant
from chatglm.encoders import Embedder, Reranker
from chatglm.errors import ChatGLMError, EngineError, InputError, NotFoundError
from chatglm.serving import memory
from chatglm.serving.failures import ModelLoadError, NotOfferedError

__all__ = ["Catalog", "Holder", "Kind", "Leases", "Model", "Offer", "Source", "held"]

log = logging.getLogger("chatglm.serving")
Result = TypeVar("Result")

Kind = Literal["chat", "embedding", "rerank"]
Model = BaseAssistant | Embedder | Reranker

_LONGEST_WAIT = 600.0  # seconds that a request waits for its model
_MOST_ADAPTERS = 64
_LOOK_AGAIN = 1.0  # seconds after which a waiting model looks for memory again
_TRY_AGAIN = 30.0  # seconds after which a model that could not be loaded is tried again
_PAUSES = (0.05, 0.5, 2.0, 10.0)  # seconds between two checks whether an unloaded model is gone


@dataclass(frozen=True)
class Source:
    """A model that can be loaded.

    Attributes:
        name: what requests call it.
        open: loads it; called in a thread.
        aliases: other names for it.
        root: the folder or repository that it comes from, for `/v1/models`.
        size: bytes that it will take, estimated from its files; called in a thread.
        at_start: load it before the server begins; else on first use.
        idle: seconds without a request after which it is unloaded; None: it stays.
    """

    name: str
    kind: Kind
    open: Callable[[], Model]
    aliases: tuple[str, ...] = ()
    root: str = ""
    size: Callable[[], int] = lambda: 0
    at_start: bool = True
    idle: float | None = None


@dataclass(eq=False)
class Holder:
    """A model's place: the model while it is loaded, and who uses it."""

    source: Source
    model: Model | None = None
    owned: bool = True
    bytes: int = 0
    users: int = 0
    last: float = field(default_factory=time.monotonic)
    loading: asyncio.Task[None] | None = None
    failure: str = ""
    failed: float = 0.0
    loads: int = 0
    unloads: int = 0
    context: int | None = None
    """Longest prompt and answer; known after the first loading."""


@dataclass(frozen=True)
class Offer:
    """A name that requests may give.

    Attributes:
        adapter: what the model calls the adapter that answers; None: the model itself does.
    """

    name: str
    holder: Holder
    adapter: str | None = None

    @property
    def parent(self) -> str | None:
        """The name of the model that an adapter belongs to; None: this is not an adapter."""
        return None if self.adapter is None else self.holder.source.name

    @property
    def context(self) -> int | None:
        """Longest prompt and answer; None: unknown, perhaps because the model was never loaded."""
        return self.holder.context


class Catalog:
    """
    Args:
        sources: what can be loaded; the first of a kind answers requests that name none.
        memory: bytes that loaded models may take together; None: no limit. Of those that nobody uses, the one that was
            used least recently is unloaded first.
        given: models that are loaded, by name, and stay their owner's.

    Raises:
        InputError: two models have the same name.
    """

    def __init__(
        self,
        sources: Sequence[Source] = (),
        *,
        memory: int | None = None,
        given: Mapping[str, Model] | None = None,
    ) -> None:
        self._memory = memory
        self._holders: list[Holder] = []
        self.offers: dict[str, Offer] = {}
        self._lock = asyncio.Lock()
        self._freed = asyncio.Event()
        self._begun = False
        self._adapters = asyncio.Lock()
        self._using: dict[Offer, int] = {}  # adapters that came while the server runs, and how many requests use each
        self._freed_adapter = asyncio.Event()
        for name, model in (given or {}).items():
            known = next((one for one in self._holders if one.model is model), None)
            if known is not None:
                self.offers[name] = Offer(name, known)
                continue
            kind: Kind = "chat" if isinstance(model, BaseAssistant) else "rerank"
            if isinstance(model, Embedder):
                kind = "embedding"
            holder = Holder(Source(name, kind, _loaded_by_others), model, owned=False)
            self._holders.append(holder)
            self._name(holder)
        for source in sources:
            holder = Holder(source)
            self._holders.append(holder)
            self._name(holder)

    def _name(self, holder: Holder) -> None:
        source = holder.source
        for name in (source.name, *source.aliases):
            if name in self.offers:
                raise InputError(f"{name}: two models have this name; give one of them another")
            self.offers[name] = Offer(name, holder)
        self._name_adapters(holder)

    def _name_adapters(self, holder: Holder) -> None:
        if isinstance(holder.model, BaseAssistant):
            holder.context = holder.model.context
            for adapter in holder.model.adapters:
                self.offers.setdefault(adapter, Offer(adapter, holder, adapter))
        elif holder.model is not None:
            holder.context = holder.model.max_tokens

    def start(self) -> None:
        """Load what is loaded at the start; for before the server begins.

        Raises:
            ChatGLMError: a model cannot be loaded.
        """
        for holder in self._holders:
            if holder.source.at_start and holder.model is None:
                if self._memory is not None:
                    needed, taken = holder.source.size(), self._taken()
                    if taken + needed > self._memory:
                        raise InputError(
                            f"{holder.source.name}: needs {_size(needed)}, and {_size(self._memory - taken)} of the "
                            f"memory budget are left; raise `memory`, or load it on first use"
                        )
                self._put(holder, holder.source.open())

    def begin(self) -> None:
        """Begin to unload what is idle; called in the event loop."""
        self._begun = True
        for holder in self._holders:
            self._watch(holder)

    def close(self) -> None:
        """Close the models that were loaded here."""
        for holder in self._holders:
            if holder.owned and holder.model is not None:
                model, holder.model = holder.model, None
                model.close()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # What there is

    def of(self, *kinds: Kind) -> dict[str, Offer]:
        """The names of models of these kinds."""
        return {name: offer for name, offer in self.offers.items() if offer.holder.source.kind in kinds}

    def assistants(self) -> dict[str, BaseAssistant]:
        """Those that are loaded, by the model's own name."""
        return {one.source.name: one.model for one in self._holders if isinstance(one.model, BaseAssistant)}

    @property
    def context(self) -> int | None:
        """The longest context; None: one is not known, or there are encoders, whose requests have many texts."""
        contexts = [one.context for one in self._holders if one.source.kind == "chat"]
        known = [context for context in contexts if context is not None]
        return max(known) if len(known) == len(self._holders) else None

    def models(self) -> Iterator[Holder]:
        return iter(self._holders)

    # Use

    async def acquire(self, offer: Offer) -> Model:
        """The model, loaded if need be. It stays until the request ends that asks.

        Raises:
            ModelLoadError: it cannot be loaded, or not now; the message says why.
        """
        holder = offer.holder
        holder.users += 1
        if offer in self._using:
            self._using[offer] += 1
        leases = _leases.get()
        if leases is not None:
            leases.append((self, offer))
        elif (task := asyncio.current_task()) is not None:  # outside of a request: until this task ends
            task.add_done_callback(lambda _: self.release(offer))
        if holder.model is None:
            await self._wait_for(holder)
        assert holder.model is not None
        return holder.model

    async def hold(self, offer: Offer) -> Model:
        """`acquire` for a task that may outlive the request in which it began: the model stays until that task ends."""
        token = _leases.set(None)
        try:
            return await self.acquire(offer)
        finally:
            _leases.reset(token)

    def release(self, offer: Offer) -> None:
        if self._using.get(offer):
            self._using[offer] -= 1
            self._freed_adapter.set()
        self._let_go(offer.holder)

    def _let_go(self, holder: Holder) -> None:
        holder.users -= 1
        holder.last = time.monotonic()
        if not holder.users:
            self._freed.set()
            self._watch(holder)

    # Adapters

    async def load_adapter(self, name: str, folder: Path, base: Offer, *, replace: bool = False) -> None:
        """Put an adapter on a model, under a name of its own. The model stays loaded as long as it has the adapter.

        Args:
            replace: an adapter of the same model that has this name already.

        Raises:
            InputError: the name is taken, or there are too many adapters.
            NotOfferedError: the model is at another server.
            ChatGLMError: the folder is not an adapter of this model; nothing has changed.
        """
        # Not the adapter that `base` may name: the request would wait for itself to let go of it.
        model = await self.acquire(Offer(base.holder.source.name, base.holder))
        if not isinstance(model, Assistant):
            raise NotOfferedError(
                f"lora_name: {base.holder.source.name!r} is at another server, which has its adapters"
            )
        async with self._adapters:
            old = self.offers.get(name)
            if old is not None and not (replace and old in self._using and old.holder is base.holder):
                hint = "; load_inplace replaces an adapter" if old in self._using else ""
                raise InputError(f"lora_name: {name!r} is the name of a model or adapter already{hint}")
            if len(self._using) >= _MOST_ADAPTERS:
                raise InputError(f"lora_name: there are {_MOST_ADAPTERS} adapters already; unload one")
            offer = Offer(name, base.holder, await _in_thread(partial(model.load_adapter, folder)))
            self._using[offer] = 0
            base.holder.users += 1
            self.offers[name] = offer
        if old is not None:
            await self._take_away(old)

    async def unload_adapter(self, name: str) -> None:
        """Remove an adapter: its name at once, its weights when no request uses them.

        Raises:
            NotFoundError: there is no adapter of this name that was loaded while the server runs.
        """
        offer = self.offers.get(name)
        if offer is None or offer not in self._using:
            raise NotFoundError(f"lora_name: {name!r} is not an adapter that was loaded here")
        del self.offers[name]
        await self._take_away(offer)

    async def _take_away(self, offer: Offer) -> None:
        task = asyncio.ensure_future(self._take_away_unused(offer))
        _unloading.add(task)
        task.add_done_callback(_unloading.discard)
        await asyncio.shield(task)  # also if nobody waits for it any more

    async def _take_away_unused(self, offer: Offer) -> None:
        while self._using[offer]:
            self._freed_adapter.clear()
            await self._freed_adapter.wait()
        del self._using[offer]
        model = offer.holder.model
        assert isinstance(model, Assistant)
        assert offer.adapter is not None
        try:
            await _in_thread(partial(model.unload_adapter, offer.adapter))
        finally:
            self._let_go(offer.holder)

    # Loading

    async def _wait_for(self, holder: Holder) -> None:
        if holder.loading is None:
            wait = holder.failed + _TRY_AGAIN - time.monotonic()
            if holder.failure and wait > 0:
                raise ModelLoadError(holder.failure, wait)
            holder.loading = asyncio.create_task(self._load(holder))
        try:
            await asyncio.wait_for(asyncio.shield(holder.loading), _LONGEST_WAIT)
        except asyncio.TimeoutError:
            raise ModelLoadError(
                f"model {holder.source.name!r} is still being loaded; send the request again later", _TRY_AGAIN
            ) from None

    async def _load(self, holder: Holder) -> None:
        name = holder.source.name
        try:
            needed, end = await self._needed(holder), time.monotonic() + _LONGEST_WAIT
            while True:
                async with self._lock:  # one at a time: each sees what memory the others have taken
                    if await self._make_room(needed):
                        start = time.monotonic()
                        self._put(holder, await _in_thread(holder.source.open))
                        holder.failure = ""
                        log.info("model %s was loaded in %.1f seconds", name, time.monotonic() - start)
                        return
                # Without the lock: meanwhile, smaller models can be loaded.
                if time.monotonic() >= end:
                    raise ModelLoadError(
                        f"model {name!r} needs {_size(needed)} of memory, which other models in use occupy; send the "
                        "request again later",
                        _TRY_AGAIN,
                    )
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._freed.wait(), min(end - time.monotonic(), _LOOK_AGAIN))
        except Exception as error:
            if isinstance(error, ModelLoadError):
                raise
            holder.failure = f"model {name!r} cannot be loaded: {error}"
            holder.failed = time.monotonic()
            if not isinstance(error, ChatGLMError):
                holder.failure = f"model {name!r} cannot be loaded ({type(error).__name__}); the server's log has more"
            log.error("model %s cannot be loaded", name, exc_info=error)
            raise ModelLoadError(holder.failure, _TRY_AGAIN) from error
        finally:
            holder.loading = None

    def _put(self, holder: Holder, model: Model) -> None:
        holder.model, holder.bytes = model, model.memory
        holder.loads += 1
        holder.last = time.monotonic()
        self._name_adapters(holder)

    def _taken(self) -> int:
        return sum(holder.bytes for holder in self._holders if holder.model is not None)

    async def _needed(self, holder: Holder) -> int:
        """Bytes of memory that a model needs; 0 without a budget."""
        if self._memory is None:
            return 0
        needed: int = await _in_thread(holder.source.size)
        if needed > self._memory:
            raise InputError(f"it needs {_size(needed)}, and the memory budget is {_size(self._memory)}")
        return needed

    async def _make_room(self, needed: int) -> bool:
        """Unload models that nobody uses until there is so much memory; False: those in use occupy it."""
        while self._memory is not None and self._taken() + needed > self._memory:
            self._freed.clear()
            unused = [one for one in self._holders if one.model is not None and one.owned and not one.users]
            if not unused:
                return False
            await _in_thread(self._take_out(min(unused, key=lambda one: one.last)))
        return True

    def _take_out(self, holder: Holder) -> Callable[[], None]:
        """Hide a loaded model from further requests. The returned function closes it and frees its memory."""
        assert holder.model is not None
        held, name = [holder.model], holder.source.name
        holder.model = None
        holder.unloads += 1
        log.info("model %s is unloaded", name)

        def close() -> None:
            gone = weakref.ref(held[0])
            held.pop().close()
            if not _is_gone(gone):
                log.warning("model %s is unloaded, but something still refers to it and keeps its memory", name)
            memory.release()

        return close

    def _watch(self, holder: Holder) -> None:
        """Unload a model when it has been idle long enough."""
        if holder.source.idle is None or not self._begun:
            return

        def look() -> None:
            assert holder.source.idle is not None
            rest = holder.last + holder.source.idle - time.monotonic()
            if holder.model is None or holder.users:
                return
            if rest > 0:
                loop.call_later(rest, look)
            else:
                # Taken out here and now: a request that comes before the task runs must not get it.
                task = loop.create_task(_in_thread(self._take_out(holder)))
                _unloading.add(task)
                task.add_done_callback(_unloading.discard)

        loop = asyncio.get_running_loop()
        loop.call_later(holder.source.idle, look)


_unloading: set[asyncio.Task[None]] = set()
_leases: ContextVar[list[tuple[Catalog, Offer]] | None] = ContextVar("chatglm.serving leases", default=None)


@contextmanager
def held() -> Iterator[None]:
    """Models that are found inside are held until its end. For connections that answer one request after the other."""
    found: list[tuple[Catalog, Offer]] = []
    token = _leases.set(found)
    try:
        yield
    finally:
        _leases.reset(token)
        for catalog, offer in found:
            catalog.release(offer)


class Leases:
    """Middleware: what a request has found is held until it ends, with its stream and however it ends. What a question
    on a WebSocket has found, its route holds itself (`held`)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        with held():
            await self._app(scope, receive, send)


def _loaded_by_others() -> Model:
    raise EngineError("a model that others loaded is never loaded here")


def _is_gone(model: weakref.ref[Model]) -> bool:
    """Let go of a model that refers to itself.

    A garbage collection does not free it while another thread refers to it, as a scrape of the metrics or the end of a
    request may do; and the next full collection may be hours away. So this tries again.
    """
    for pause in _PAUSES:
        gc.collect()
        if model() is None:
            return True
        time.sleep(pause)
    gc.collect()
    return model() is None


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 29 else f"{count / (1 << 20):.1f} MiB"


async def _in_thread(work: Callable[[], Result]) -> Result:
    """Work in a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def run() -> None:
        result: Result | None = None
        failure: BaseException | None = None
        try:
            result = work()
        except BaseException as error:
            failure = error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")

        def tell() -> None:
            if future.cancelled():
                return
            if failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        if not loop.is_closed():
            loop.call_soon_threadsafe(tell)

    threading.Thread(target=run, name="chatglm loading", daemon=True).start()
    return await future
