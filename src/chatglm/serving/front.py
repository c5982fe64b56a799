"""What happens to a request before a dialect sees it: limits on its head, a server that is full or ending, API keys,
HEAD and OPTIONS, paths that people get slightly wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatglm.errors import ChatGLMError
from chatglm.serving.bodies import BodyError
from chatglm.serving.callers import CALLER, Caller
from chatglm.serving.failures import Failure, OverloadedError, ShuttingDownError, failure_of
from chatglm.serving.service import OVERLOADED, Service

__all__ = ["OPEN", "Front", "hint"]

_URL_BYTES = 8 << 10
_HEAD_BYTES = 32 << 10
_ALWAYS = ("/health", "/metrics")
"""Paths that are answered also when the server is full or ends."""

OPEN = ("/", "/docs", "/openapi.json", "/health")
"""Paths that may be read without a key."""

_OPENAI = r"(chat/completions|completions|embeddings|models)"


class Front:
    """Middleware around all dialects.

    Args:
        render: an error in the shape of the dialect that a path belongs to.
        open_metrics: whether `/metrics` may be read without a key.
    """

    def __init__(
        self,
        app: ASGIApp,
        service: Service,
        render: Callable[[str, Failure], Response],
        open_metrics: bool = False,
    ) -> None:
        self._app, self._service, self._render = app, service, render
        self._open = (*OPEN, "/metrics") if open_metrics else OPEN

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or CALLER in scope.get("state", {}):  # the server's own requests have passed before
            await self._app(scope, receive, send)
            return
        path = _usual(scope["path"], scope["headers"])
        try:
            self._check(scope, path)
            state = self._authenticate(scope, path)
        except ChatGLMError as error:
            failure = failure_of(error)
            response = self._render(path, failure)
            response.headers.update(failure.headers)
            await response(scope, receive, send)
            return
        scope = {**scope, "state": state}
        if path != scope["path"]:
            scope |= {"path": path, "raw_path": path.encode()}
        if scope["method"] == "HEAD":
            scope |= {"method": "GET"}
            send = _without_body(send)
        await self._app(scope, receive, send)

    def _authenticate(self, scope: Scope, path: str) -> dict[str, Any]:
        """The scope's state, with the caller in it where keys are needed.

        Raises:
            AuthenticationError: the key is missing or wrong.
            ForbiddenError: it may not read the figures.
        """
        state, keys = scope.get("state", {}), self._service.keys
        if keys is None or scope["method"] == "OPTIONS" or (path in self._open and scope["method"] in ("GET", "HEAD")):
            return {**state}
        key = keys.authenticate(scope["headers"])
        caller = Caller(key.id, key.id)
        if path == "/metrics":
            self._service.permit(caller, "metrics")
        return {**state, CALLER: caller}

    def _check(self, scope: Scope, path: str) -> None:
        """
        Raises:
            ChatGLMError: the head is too large, or the server is full or ends.
        """
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


def _usual(path: str, headers: Sequence[tuple[bytes, bytes]]) -> str:
    """The path that is meant where a base URL was put together wrongly: `//v1/models`, `/v1/v1/models`, `/models`.

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
