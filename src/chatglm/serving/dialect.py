"""What all dialects share: which model is meant, bodies and their limits, hints, errors in the dialect's shape, streams
that end with their reader.

A dialect is a module with a function that takes a `Service` and returns a router whose `route_class` is
`dialect_route(name, service, render)`: `render` writes an error as the dialect's clients expect it. `app.create_app`
lists the dialects.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import math
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, model_validator
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from chatglm.assistant import Answer, BaseAssistant, Delta, Transcript
from chatglm.errors import (
    ChatGLMError,
    ContextError,
    InputError,
    QueueFullError,
    ServiceError,
    UnsupportedError,
)
from chatglm.serving import bodies
from chatglm.serving.bodies import BodyError, Limits
from chatglm.serving.hints import NOTHING, Hints, start_notes
from chatglm.serving.metrics import Metrics
from chatglm.serving.validation import problem_of

__all__ = [
    "OVERLOADED",
    "Drain",
    "EventStream",
    "Failure",
    "OverloadedError",
    "Served",
    "Service",
    "ShuttingDownError",
    "Strict",
    "client_of",
    "dialect_route",
    "failure_of",
    "first_of",
    "until_gone",
    "whole_of",
]

log = logging.getLogger("chatglm.serving")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Failure:
    """What went wrong, before a dialect puts it into its own shape.

    Attributes:
        kind: `invalid_request_error`, `rate_limit_error` or `server_error`, as OpenAI names them.
        param: the field of the request at fault, if one is.
        code: a word for programs.
        retry_after: seconds after which to come again, if there was no room.
        close: whether the connection ends, because the rest of the request is not read or the server ends.
    """

    status: int
    message: str
    kind: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    retry_after: float | None = None
    close: bool = False

    @property
    def headers(self) -> dict[str, str]:
        made = {} if self.retry_after is None else {"Retry-After": str(max(1, math.ceil(self.retry_after)))}
        return {**made, "Connection": "close"} if self.close else made


def _document(schema: dict[str, Any], model: type[Any]) -> None:
    """Say in the OpenAPI document what `Strict` accepts besides the fields of a model."""
    schema["properties"] = {**model.hints.document(), **schema.get("properties", {})}
    if model.model_config.get("extra") == "forbid":
        schema["additionalProperties"] = {"type": "null"}


class Strict(BaseModel):
    """A part of a request: unknown fields are refused, and so are values of another type.

    Accepted and ignored are unknown fields that are null, and those that `hints` lists. A model's own fields come
    first: one that is listed there too is the model's.
    """

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra=_document)
    hints: ClassVar[Hints] = NOTHING

    @model_validator(mode="before")
    @classmethod
    def _without_hints(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        own = {field.alias or name for name, field in cls.model_fields.items()}
        kept = {}
        for name, value in given.items():
            if value is None:  # left out
                continue
            if name in own:
                kept[name] = _whole(value)
            elif not cls.hints.accept(name, value):
                kept[name] = value  # to be refused
        return kept


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 4.0 is 4. (How deep lists are nested, `bodies` has bounded.)"""
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


OVERLOADED = "chatglm.overloaded"
"""Key of `scope["state"]`: set by the server for requests beyond its limit of connections, which are refused."""


class UnknownModelError(InputError):
    """No model of that name is served."""


class ShuttingDownError(ChatGLMError):
    """The server ends, and this request with it."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down; send the request again in a moment")


class OverloadedError(ChatGLMError):
    """There are as many connections as the server takes."""

    def __init__(self) -> None:
        super().__init__("the server has too many connections; send the request again in a moment")


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


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

    def find(self, name: str | None) -> Served:
        """
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


def client_of(request: Request) -> str:
    """Who asks, for a fair share of the engine: a hash of the peer's address and of the API key, if one is sent.

    The address alone would make one client of all behind a proxy; the key alone, of all who send the same dummy key.
    """
    headers = request.headers
    key = headers.get("authorization") or headers.get("x-api-key") or headers.get("api-key") or ""
    address = request.client.host if request.client is not None else ""
    return hashlib.blake2b(f"{address}\n{key}".encode(), digest_size=16).hexdigest()


def failure_of(error: Exception) -> Failure:
    """Every error that a route may raise, as its status and words."""
    match error:
        case RequestValidationError():
            problem = problem_of(error.errors()[0])
            return Failure(400, problem.message, param=problem.field or None, code=problem.code)
        case BodyError():
            unread = error.status != 400
            return Failure(error.status, str(error), param=error.param, code=error.code, close=unread)
        case ShuttingDownError():
            return Failure(503, str(error), "server_error", code="shutting_down", retry_after=5, close=True)
        case OverloadedError():
            return Failure(503, str(error), "server_error", code="overloaded", retry_after=1, close=True)
        case HTTPException():
            return Failure(error.status_code, str(error.detail), code=_word(error.status_code))
        case UnknownModelError():
            return Failure(404, str(error), param="model", code="model_not_found")
        case ContextError():
            return Failure(400, str(error), param=error.field or None, code="context_length_exceeded")
        case UnsupportedError():
            return Failure(400, str(error), param=_field(str(error)), code="unsupported")
        case InputError():
            return Failure(400, str(error), param=_field(str(error)), code="invalid_value")
        case QueueFullError():
            return Failure(429, str(error), "rate_limit_error", code="queue_full", retry_after=error.retry_after)
        case ServiceError():
            return Failure(502, str(error), "server_error", code="upstream")
        case ChatGLMError():
            return Failure(500, str(error), "server_error", code="engine")
    return Failure(500, "an error within the server; its log has more", "server_error", code="internal")


def _word(status: int) -> str:
    return {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(status, "bad_request")


def _field(message: str) -> str | None:
    """Messages of this package begin with the field that they are about."""
    found = re.match(r"'?([a-z_]+[\w.\[\]]*)'?(?=:| is | has )", message)
    return found[1] if found else None


def dialect_route(
    name: str, service: Service, render: Callable[[Failure], Response], *, any_type: bool = False
) -> type[APIRoute]:
    """A class of routes whose errors have the dialect's shape, and whose requests are counted.

    Args:
        any_type: read bodies as JSON even if `Content-Type` is absent, or that of a form (what `curl -d` sends).
    """

    class DialectRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def answer(request: Request) -> Response:
                notes = start_notes()
                try:
                    if self.body_field is not None:
                        _check_type(request.headers.get("content-type"), any_type)
                        body = await bodies.read(request, service.limits)
                        request = _ParsedRequest(request, await bodies.parse(body, service.limits))
                        del body
                    response = await handle(request)
                except (ClientGoneError, ClientDisconnect):
                    response = Response(status_code=499)
                except Exception as error:
                    failure = failure_of(error)
                    if failure.status == 500:
                        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
                    response = render(failure)
                    response.headers.update(failure.headers)
                response.headers.update(notes.headers())
                service.metrics.requests.labels(name, self.path_format, str(response.status_code)).inc()
                return response

            return answer

    return DialectRoute


class _ParsedRequest(Request):
    """A request whose body has been read, checked and parsed already."""

    def __init__(self, request: Request, value: dict[str, Any]) -> None:
        headers = [(name, text) for name, text in request.scope["headers"] if name != b"content-type"]
        scope = {**request.scope, "headers": [*headers, (b"content-type", b"application/json")]}
        super().__init__(scope, request.receive)
        self._value = value

    async def body(self) -> bytes:
        return b"{...}"  # FastAPI asks whether there is one

    async def json(self) -> Any:
        return self._value


def _check_type(given: str | None, any_type: bool) -> None:
    kind = (given or "").partition(";")[0].strip().lower()
    if kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        return
    if any_type and kind in ("", "application/x-www-form-urlencoded"):
        return
    said = f"Content-Type is {kind[:80]}" if kind else "there is no Content-Type"
    raise BodyError(f"the body must be a JSON object, sent with Content-Type: application/json; {said}")


def _drain_of(scope: Scope) -> Drain:
    service: Service = scope["app"].state.service
    return service.drain


async def until_gone(request: Request, work: Awaitable[Result]) -> Result:
    """What the work gives. It is cancelled when the client goes away, or the server ends.

    Raises:
        ClientGoneError: the client went.
        ShuttingDownError: the server ends.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request.receive))
    ending = asyncio.ensure_future(_drain_of(request.scope).wait())
    try:
        await asyncio.wait({working, leaving, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError if leaving.done() else ShuttingDownError()
        return working.result()
    finally:
        await _cancel(working, leaving, ending)


async def whole_of(request: Request, deltas: AsyncGenerator[Delta]) -> tuple[Answer, ...]:
    """All answers, for a client that stays."""
    transcript = Transcript()

    async def read() -> None:
        async with contextlib.aclosing(deltas):
            async for delta in deltas:
                transcript.add(delta)

    await until_gone(request, read())
    return transcript.answers()


async def first_of(request: Request, deltas: AsyncGenerator[Result]) -> AsyncGenerator[Result]:
    """A stream, once it has begun: what goes wrong before is raised here, while there is a status to say it with."""
    first = await until_gone(request, anext(deltas))

    async def whole() -> AsyncGenerator[Result]:
        async with contextlib.aclosing(deltas):
            yield first
            try:
                async for delta in deltas:
                    yield delta
            except asyncio.CancelledError:
                if not _drain_of(request.scope).over:
                    raise
                raise ShuttingDownError from None  # the dialect tells the client

    return whole()


class EventStream(StreamingResponse):
    """Server-sent events. When the client goes away, or all is sent, the iterator is closed at once."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str]) -> None:
        self._events = events
        # A proxy that buffers (nginx) would make a lump of the stream.
        super().__init__(events, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self.stream_response(send))
        leaving = asyncio.ensure_future(_gone(receive))
        ending = asyncio.ensure_future(_drain_of(scope).wait())
        try:
            await asyncio.wait({sending, leaving, ending}, return_when=asyncio.FIRST_COMPLETED)
            if ending.done() and not sending.done() and not leaving.done():
                sending.cancel()  # `first_of` makes an error of it, which is the last event
                await asyncio.wait({sending, leaving}, timeout=2, return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and not sending.cancelled():
                sending.result()
        finally:
            await _cancel(sending, leaving, ending)
            await self._events.aclose()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
