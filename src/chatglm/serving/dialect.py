"""What all dialects share: bodies and their limits, hints, errors in the dialect's shape, streams that end with their
reader.

A dialect is a module or package with a `Dialect`, which `app.DIALECTS` lists.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shlex
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, model_validator
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from chatglm.assistant import Answer, Called, Delta, Options, Transcript
from chatglm.errors import ChatGLMError
from chatglm.serving import bodies
from chatglm.serving.bodies import BodyError
from chatglm.serving.catalog import Kind
from chatglm.serving.failures import FAILURE, Failure, ShuttingDownError, TimeLimitError, failure_of
from chatglm.serving.hints import NOTHING, Hints, note_dropped, start_notes
from chatglm.serving.records import LONGEST_TEXT, current
from chatglm.serving.server_tools import Calling, Said
from chatglm.serving.service import Drain, Served, Service

__all__ = [
    "REFUSED",
    "Dialect",
    "EventStream",
    "Refusals",
    "Strict",
    "all_of",
    "check_type",
    "dialect_route",
    "failure_within",
    "first_of",
    "note_unenforced",
    "refusals",
    "spoken",
    "telling",
    "until_gone",
    "whole_of",
    "whole_run",
]

log = logging.getLogger("chatglm.serving")
Result = TypeVar("Result")


REFUSED: Mapping[int, str] = {
    400: "a field is wrong, or not supported; the error names it",
    401: "the API key is missing, wrong or expired",
    403: "the API key may not use the model, or may not do this",
    404: "no such model",
    413: "the body is too large",
    429: "too many requests wait, or a limit of the API key is reached; `Retry-After` says when to try again",
    500: "the engine has stopped",
    501: "the model is at another server, and only that server can do this",
    502: "the server behind this one failed",
    503: "the model cannot be loaded now, or the server is full, or is stopping",
}
"""What statuses mean on most routes."""

Refusals = dict[int | str, dict[str, Any]]
"""Refusals of a route for the OpenAPI document: what FastAPI takes as `responses`."""


def refusals(model: type[BaseModel], *statuses: int, words: Mapping[int, str] | None = None) -> Refusals:
    """What a route refuses, as the OpenAPI document says it.

    Args:
        model: the shape of the dialect's errors.
        statuses: those that the route may answer.
        words: what they mean there, where that is not what `REFUSED` says.
    """
    said = {**REFUSED, **(words or {})}
    return {status: {"model": model, "description": said[status]} for status in statuses}


@dataclass(frozen=True)
class Dialect:
    """One way to speak HTTP. `app.DIALECTS` lists them.

    Attributes:
        name: for figures and logs.
        title: for people.
        router: its routes over a service; their `route_class` is `dialect_route(name, service, render)`.
        render: writes an error as the dialect's clients expect it.
        owns: a regular expression: paths whose errors have this dialect's shape, even where no route answers.
        base: path of the base URL that its clients are given.
        example: path and body of a request that works; the body gets the `model`, unless the path has it as `{model}`.
            `chatglm serve` and the start page show it as `curl`.
        kind: of the model that the example needs. Without one, the dialect is not shown.
        sockets: whether it has a WebSocket.
    """

    name: str
    title: str
    router: Callable[[Service], APIRouter]
    render: Callable[[Failure], Response]
    owns: str
    base: str
    example: tuple[str, Mapping[str, Any]]
    kind: Kind = "chat"
    sockets: bool = False

    def curl(self, url: str, model: str, *, key: bool = False, between: str = " ") -> str:
        """The example as a command for a shell.

        Args:
            url: of the server, without a slash at its end.
            model: a name that it serves.
            key: whether the server needs an API key; the command takes it from CHATGLM_API_KEY.
            between: what stands between the parts of the command.
        """
        path, fields = self.example
        body = fields if "{model}" in path else {"model": model, **fields}
        parts = [f"curl {shlex.quote(url + path.replace('{model}', quote(model, safe='')))}"]
        parts += ['-H "Authorization: Bearer $CHATGLM_API_KEY"'] * key
        parts += ["-H 'Content-Type: application/json'", f"-d {shlex.quote(json.dumps(body, ensure_ascii=False))}"]
        return between.join(parts)


def spoken(dialects: Iterable[Dialect], service: Service) -> list[tuple[Dialect, str]]:
    """The dialects that this server has a model for, each with the model that its example asks."""
    found = []
    for dialect in dialects:
        if (name := next(iter(service.catalog.of(dialect.kind)), None)) is not None:
            found.append((dialect, name))
    return found


def _document(schema: dict[str, Any], model: type[Any]) -> None:
    """Say in the OpenAPI document what `Strict` accepts besides the fields of a model."""
    forbids = model.model_config.get("extra") == "forbid"
    # Where other fields are allowed, a hint with another value than the neutral one is such a field.
    schema["properties"] = {**model.hints.document(neutral=forbids), **schema.get("properties", {})}
    if forbids:
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
        forbids = cls.model_config.get("extra") == "forbid"
        kept: dict[str, Any] = {}
        refused = False
        for name, value in given.items():
            if value is None:  # left out
                continue
            if name in own:
                kept[name] = _whole(value)
            elif not refused and not cls.hints.accept(name, value):
                kept[name] = value  # to be refused, or for a model that takes others
                refused = forbids  # one is enough: only the first is told, and there may be a hundred thousand
        return kept


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 4.0 is 4. (How deep lists are nested, `bodies` has bounded.)"""
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


class ClientGoneError(Exception):
    """The client has gone; nobody waits for the answer."""


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
                notes, record, status = start_notes(), current(), 0
                record.dialect, record.route = name, self.path_format
                try:
                    if self.body_field is not None:
                        if not check_type(request.headers.get("content-type"), any_type):
                            service.check_page(request.headers)
                        body = await bodies.read(request, service.limits)
                        record.body = len(body)
                        if record.asked is not None:
                            record.asked = body[: 4 * LONGEST_TEXT].decode("utf-8", "replace")[:LONGEST_TEXT]
                        request = _ParsedRequest(request, await bodies.parse(body, service.limits, service.parsing))
                        del body
                    response = await handle(request)
                except (ClientGoneError, ClientDisconnect):
                    response = Response(status_code=499)
                except Exception as error:
                    failure = failure_of(error)
                    status = failure.status  # in whatever shape the dialect shows it
                    if (state := request.scope.get("state")) is not None:
                        state[FAILURE] = failure
                    if failure.status == 500:
                        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
                    response = render(failure)
                    response.headers.update(failure.headers)
                    # FastAPI keeps an error about a body in a variable, so the error keeps itself and the body alive.
                    traceback.clear_frames(error.__traceback__)
                response.headers.update(notes.headers())
                service.metrics.requests.labels(name, self.path_format, str(status or response.status_code)).inc()
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
        return b"{...}"  # FastAPI checks whether there is one

    async def json(self) -> Any:
        return self._value


def check_type(given: str | None, any_type: bool = False) -> bool:
    """
    Args:
        given: the header Content-Type. A page of another site can send a body of any other type, without asking first.
        any_type: whether a form's will do, or none.

    Returns:
        Whether it is JSON's.

    Raises:
        BodyError: it will not do.
    """
    kind = (given or "").partition(";")[0].strip().lower()
    if kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        return True
    if any_type and kind in ("", "application/x-www-form-urlencoded"):
        return False
    said = f"Content-Type is {kind[:80]}" if kind else "there is no Content-Type"
    raise BodyError(f"the body must be a JSON object, sent with Content-Type: application/json; {said}")


def _drain_of(scope: Scope) -> Drain:
    service: Service = scope["app"].state.service
    return service.drain


async def until_gone(request: Request, work: Awaitable[Result]) -> Result:
    """The result of the work. It is cancelled when the client leaves, or the server stops.

    Raises:
        ClientGoneError: the client left.
        ShuttingDownError: the server is stopping.
        TimeLimitError: it takes longer than a request may.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request.receive))
    ending = asyncio.ensure_future(_drain_of(request.scope).wait())
    try:
        left = current().left
        await asyncio.wait({working, leaving, ending}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            if not leaving.done() and not ending.done():
                raise TimeLimitError
            raise ClientGoneError if leaving.done() else ShuttingDownError()
        return working.result()
    finally:
        await _cancel(working, leaving, ending)
        # A task keeps its error, the error this frame, and this frame the task: with them the request would stay until
        # the garbage is collected.
        del working, leaving, ending


async def all_of(request: Request, deltas: AsyncGenerator[Result]) -> list[Result]:
    """All deltas, for a client that stays."""
    read: list[Result] = []

    async def work() -> None:
        async with contextlib.aclosing(deltas):
            async for delta in deltas:
                read.append(delta)

    await until_gone(request, work())
    return read


async def whole_of(request: Request, deltas: AsyncGenerator[Delta]) -> tuple[Answer, ...]:
    """All answers, for a client that stays."""
    transcript = Transcript()
    for delta in await all_of(request, deltas):
        transcript.add(delta)
    return transcript.answers()


async def whole_run(request: Request, said: AsyncGenerator[Said]) -> tuple[tuple[Answer, ...], list[Called]]:
    """All answers, and the calls that the server carried out, for a client that stays."""
    transcript, called = Transcript(), []
    for one in await all_of(request, said):
        if isinstance(one, Called):
            called.append(one)
        elif not isinstance(one, Calling):
            transcript.add(one)
    return transcript.answers(), called


async def first_of(request: Request, deltas: AsyncGenerator[Result]) -> AsyncGenerator[Result]:
    """A stream that has begun: earlier errors are raised here, while the response can still have their status."""
    first = await until_gone(request, anext(deltas))

    async def whole() -> AsyncGenerator[Result]:
        ending = _ending_in_words(request, deltas)
        async with contextlib.aclosing(deltas), contextlib.aclosing(ending) as rest:
            yield first
            async for delta in rest:
                yield delta

    return whole()


async def _ending_in_words(request: Request, parts: AsyncGenerator[Result]) -> AsyncGenerator[Result]:
    """The same parts. A stream is cancelled when the server ends or its time is over; then an error says which."""
    async with contextlib.aclosing(parts):
        try:
            async for part in parts:
                yield part
        except asyncio.CancelledError:
            if not _drain_of(request.scope).over:
                if current().left != 0:
                    raise
                raise TimeLimitError from None
            raise ShuttingDownError from None  # the dialect tells the client


async def telling(request: Request, events: AsyncGenerator[str], tell: Callable[[Failure], str]) -> AsyncGenerator[str]:
    """The same events, and a last one if they break off.

    Args:
        tell: makes this event.
    """
    try:
        async with contextlib.aclosing(_ending_in_words(request, events)) as told:
            async for one in told:
                yield one
    except Exception as error:  # the status has been sent
        yield tell(failure_within(error))


def failure_within(error: Exception) -> Failure:
    """The failure that ends a stream, for its last event. Unexpected errors are logged."""
    if not isinstance(error, ChatGLMError):
        log.error("a stream failed", exc_info=error)
    return failure_of(error)


async def note_unenforced(served: Served, options: Options, field: str = "response_format") -> None:
    """Note in the response which keywords of schemas are not enforced in the answer.

    Args:
        field: of the request that holds the response format.

    Raises:
        InputError, UnsupportedError: a schema is wrong, or cannot be held.
    """
    if options.get("tools") or options.get("response_format"):  # reading their schemas takes a while
        for what in await asyncio.to_thread(partial(served.assistant.dropped, **options)):
            note_dropped(what.replace("response_format", field, 1))


class EventStream(StreamingResponse):
    """Server-sent events. When the client goes away, or all is sent, the iterator is closed at once.

    Args:
        silent: whether there may be nothing to say for long, because tools run here: then comments are sent, which
            clients skip. Only a failing write shows that a silent client has gone.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str], silent: bool = False) -> None:
        self._events = events = _breathing(events) if silent else events
        # A proxy that buffers (nginx) would hold back the stream.
        super().__init__(events, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self.stream_response(send))
        leaving = asyncio.ensure_future(_gone(receive))
        ending = asyncio.ensure_future(_drain_of(scope).wait())
        try:
            left = current().left
            await asyncio.wait({sending, leaving, ending}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done() and not leaving.done():  # the server ends, or the time of the request is over
                sending.cancel()  # `first_of` makes an error of it, which is the last event
                await asyncio.wait({sending, leaving}, timeout=2, return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and not sending.cancelled():
                sending.result()
        finally:
            await _cancel(sending, leaving, ending)
            del sending, leaving, ending  # as in `until_gone`
            await self._events.aclose()


_BREATH = 1.0  # seconds


async def _breathing(events: AsyncGenerator[str]) -> AsyncGenerator[str]:
    """The same events, and comments while there are none."""

    async def following() -> str:
        return await anext(events)

    coming = asyncio.ensure_future(following())
    try:
        while True:
            try:
                await asyncio.wait({coming}, timeout=_BREATH)
            except asyncio.CancelledError:
                coming.cancel()  # it knows whether there is a last event to send
                await asyncio.wait({coming})
            if not coming.done():
                yield ": tools are running\n\n"
                continue
            try:
                one = coming.result()
            except StopAsyncIteration:
                return
            yield one
            coming = asyncio.ensure_future(following())
    finally:
        await _cancel(coming)
        await events.aclose()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
