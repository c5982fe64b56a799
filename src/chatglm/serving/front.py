"""What happens to a request before a dialect sees it: limits on its head, a server that is full or stopping, API keys,
HEAD and OPTIONS, and slightly wrong paths."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatglm.errors import ChatGLMError
from chatglm.hosts import check_host
from chatglm.serving import records
from chatglm.serving.access.callers import CALLER, CLIENT_HEADER, Caller, check_origin
from chatglm.serving.bodies import BodyError
from chatglm.serving.failures import (
    FAILURE,
    Failure,
    ForbiddenError,
    OverloadedError,
    ShuttingDownError,
    failure_of,
)
from chatglm.serving.logs import log_request
from chatglm.serving.records import Record
from chatglm.serving.service import OVERLOADED, Service

__all__ = ["OPEN", "Front", "hint"]

_URL_BYTES = 8 << 10
_HEAD_BYTES = 32 << 10
_ALWAYS = ("/health", "/metrics")
"""Paths that are answered even if the server is full or stopping."""

OPEN = ("/", "/docs", "/openapi.json", "/health")
"""Paths that may be read without a key."""

_OPENAI = r"(chat/completions|completions|embeddings|models)"


class Front:
    """Middleware around all dialects.

    Args:
        render: an error in the shape of the dialect that a path belongs to.
        dialect_of: the name of this dialect.
        open_metrics: whether `/metrics` may be read without a key.
        log_text: whether the log has the texts of requests and answers.
        page: path of a mounted app that checks its callers itself; "": there is none.
        hosts: allowed host names of the server, besides those of this machine itself; empty: all.
    """

    def __init__(
        self,
        app: ASGIApp,
        service: Service,
        render: Callable[[str, Failure], Response],
        dialect_of: Callable[[str], str],
        open_metrics: bool = False,
        log_text: bool = False,
        page: str = "",
        hosts: Collection[str] = (),
    ) -> None:
        self._page = page
        self._hosts = frozenset(host.lower() for host in hosts)
        self._app, self._service, self._render, self._dialect_of = app, service, render, dialect_of
        self._open = (*OPEN, "/metrics") if open_metrics else OPEN
        self._log_text = log_text

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._open_socket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = scope.get("state", {})
        state = {**given}
        path, method = _usual(scope["path"], scope["headers"]), scope["method"]
        record = records.enter(scope["headers"], self._log_text)
        passing = _Passing(send, record)
        end: Callable[[], None] | None = None
        scope = {**scope, "state": state}
        if path != scope["path"]:
            scope |= {"path": path, "raw_path": path.encode()}
        try:
            try:
                if CALLER in given:  # the server's own request, for somebody
                    self._admit_own(record, given[CALLER])
                else:
                    if self._service.timeout is not None:
                        record.deadline = record.began + self._service.timeout
                    self._check(scope, path)
                    end = self._admit(record, scope, path, passing)
            except ChatGLMError as error:
                failure = failure_of(error)
                state[FAILURE] = failure
                response = self._render(path, failure)
                response.headers.update(failure.headers)
                await response(scope, receive, passing.send)
                return
            if method == "HEAD":
                await self._app({**scope, "method": "GET"}, receive, _without_body(passing.send))
            else:
                await self._app(scope, receive, passing.send)
        except Exception:
            passing.status = max(passing.status, 500)
            raise
        finally:
            if end is not None:
                end()
            if FAILURE in state:
                given[FAILURE] = state[FAILURE]
            if not (path in _ALWAYS and passing.status == 200):  # what machines ask every few seconds
                failed: Failure | None = state.get(FAILURE)
                status = passing.status if failed is None else failed.status  # a dialect may have another one for it
                self._service.metrics.note(record, self._dialect_of(path), status)
                log_request(record, method, path, status, failed)

    async def _open_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accept a WebSocket if its handshake has what a request needs. A refusal is answered as a request.

        A browser opens WebSockets for any page, and lets it read them; so the page must be one that may use the server.
        """
        path = scope["path"]
        record = records.enter(scope["headers"], self._log_text)
        state: dict[str, Any] = {**scope.get("state", {})}
        status, failure = 101, None
        try:
            self._check({**scope, "method": "GET"}, path)
            check_origin(Headers(scope=scope), self._service.origins)
            passing = _Passing(send, record)
            self._admit(record, {**scope, "state": state, "method": "GET"}, path, passing)
        except ChatGLMError as error:
            failure = failure_of(error)
            status = failure.status
            response = self._render(path, failure)
            response.headers.update(failure.headers)
            await response(scope, receive, send)
        else:
            await self._app({**scope, "state": state}, receive, send)
        finally:
            self._service.metrics.note(record, self._dialect_of(path), status)
            log_request(record, "GET", path, status, failure)

    def _admit(self, record: Record, scope: Scope, path: str, passing: _Passing) -> Callable[[], None] | None:
        """Find the caller by the key, where keys are needed. What this returns is called when the response has ended.

        Raises:
            AuthenticationError: the key is missing or wrong.
            ForbiddenError: it may not read the figures.
            RateLimitError: it has used up a limit.
        """
        keys, method, rates = self._service.keys, scope["method"], self._service.rates
        if keys is None or method == "OPTIONS" or (path in self._open and method in ("GET", "HEAD")):
            return None
        if self._page and (path == self._page or path.startswith(f"{self._page}/")):
            return None
        key = keys.authenticate(scope["headers"])
        record.key = key.name
        client = key.id
        if "forward" in key.may and (asked_for := Headers(scope=scope).get(CLIENT_HEADER)):
            client = f"{key.id} {asked_for[:64]}"
        caller = scope["state"][CALLER] = Caller(key.id, client)
        if path == "/metrics":
            self._service.permit(caller, "metrics")
        if key.limited:
            passing.more = lambda: rates.headers(key)
            if method == "POST":  # requests that only read or delete do not use a model
                return rates.begin(key)
        return None

    def _admit_own(self, record: Record, caller: Caller) -> None:
        """
        Raises:
            AuthenticationError: the caller's key has been removed or has expired.
            RateLimitError: it has used its tokens up for now.
        """
        key = self._service.key_of(caller)
        if key is not None:
            record.key = key.name
            self._service.rates.check_tokens(key)

    def _check(self, scope: Scope, path: str) -> None:
        """
        Raises:
            ForbiddenError: the request is for another server.
            ChatGLMError: the head is too large, or the server is full or ends.
        """
        host = Headers(scope=scope).get("host")  # a browser always sends one; old programs may not
        if host is not None and (problem := check_host(host, self._hosts)):
            raise ForbiddenError(problem)
        if scope["http_version"] not in ("1.0", "1.1"):
            raise BodyError(f"HTTP/{scope['http_version']} is not supported; use HTTP/1.1", "bad_request", 505)
        url = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
        if url > _URL_BYTES:
            raise BodyError(f"the URL has {url:,} bytes; at most {_URL_BYTES:,} are supported", "too_large", 414)
        head = sum(len(name) + len(value) for name, value in scope["headers"])
        if head > _HEAD_BYTES:
            raise BodyError(f"the headers have {head:,} bytes; at most {_HEAD_BYTES:,} are supported", "too_large", 431)
        if path in _ALWAYS:
            return
        if self._service.drain.begun:
            raise ShuttingDownError
        if scope.get("state", {}).get(OVERLOADED):
            raise OverloadedError


class _Passing:
    """Passes the response to the client, with further headers.

    Attributes:
        status: of the response; 499 until it begins.
        more: further headers.
    """

    def __init__(self, send: Send, record: Record) -> None:
        self._send, self._record = send, record
        self.status = 499
        self.more: Callable[[], Mapping[str, str]] | None = None

    def send(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            added = {records.REQUEST_ID: self._record.id, **(self.more() if self.more else {})}
            kept = [(name, value) for name, value in message["headers"] if name.lower() != b"x-request-id"]
            headers = [*kept, *((name.encode(), value.encode()) for name, value in added.items())]
            message = {**message, "headers": headers}
        return self._send(message)


def _usual(path: str, headers: Sequence[tuple[bytes, bytes]]) -> str:
    """The intended path if a base URL was put together wrongly: `//v1/models`, `/v1/v1/models`, `/models`.

    Anthropic's clients take a base URL with or without `/anthropic`. The list of models, which OpenAI has under the
    same path, is theirs if they say so by their header.
    """
    path = re.sub(r"/{2,}", "/", path)
    path = re.sub(r"^(/v1)+(?=/v1(/|$))", "", path)
    if path.startswith("/anthropic/v1/messages"):
        return path.removeprefix("/anthropic")
    path = f"/v1{path}" if re.fullmatch(rf"/{_OPENAI}", path) else path
    if re.match(r"/v1/models(/|$)", path) and any(name == b"anthropic-version" for name, _ in headers):
        return f"/anthropic{path}"
    return path


def _without_body(send: Send) -> Send:
    async def head_only(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return head_only


def hint(method: str, path: str, routes: Mapping[str, list[str]]) -> str:
    """What to do about a path that does not exist.

    Args:
        routes: methods of each path that does.
    """
    listed = ", ".join(f"{' and '.join(methods)} {known}" for known, methods in routes.items())
    if path.rstrip("/") == "/v1":
        return f"this is the base URL of the OpenAI interface; this server has {listed}"
    if azure := re.fullmatch(rf"/openai/(?:deployments/([^/]+)/|v1/)?{_OPENAI}", path):
        model = f' and "model": "{azure[1]}" in the body' if azure[1] else ""
        return f"Azure's paths are not supported; use {method} /v1/{azure[2]}{model} (base URL: http://HOST:PORT/v1)"
    if known := re.search(rf"/{_OPENAI}/?$", path):
        return f"use {method} /v1/{known[1]} (base URL: http://HOST:PORT/v1)"
    if path in ("/redoc", "/swagger", "/doc", "/api", "/openapi", "/v1/docs"):
        return "the documentation is at /docs, the OpenAPI document at /openapi.json"
    return f"this server has {listed}"
