"""Requests that the server sends to itself for somebody: tasks and lines of batches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Scope

from chatglm.serving.access.callers import CALLER, Caller
from chatglm.serving.failures import FAILURE, Failure
from chatglm.serving.sse import compact

__all__ = ["Calls", "Reply"]

_LONGEST_WAIT = 30.0  # seconds between two tries


@dataclass(frozen=True)
class Reply:
    """The answer of a route.

    Attributes:
        value: the JSON of the answer; text, if it is not JSON.
        failure: what went wrong, independent of the dialect; None: nothing.
    """

    status: int
    value: Any
    failure: Failure | None


class Calls:
    """Sends requests through the routes of the app.

    Attributes:
        app: the app that gets them; set when it is made.
    """

    app: ASGIApp | None = None

    async def send(self, caller: Caller, path: str, body: Mapping[str, Any]) -> Reply:
        """POST a body as this caller. Nobody checks the caller's key again.

        While the server is busy (status 429), the request waits. If this call is cancelled, so is the request.
        """
        text = compact(body).encode()  # not longer than it was accepted
        while True:
            reply = await self._send(caller, path, text)
            if reply.failure is None or reply.failure.status != 429:
                return reply
            await asyncio.sleep(min(reply.failure.retry_after or 1.0, _LONGEST_WAIT))

    async def _send(self, caller: Caller, path: str, body: bytes) -> Reply:
        assert self.app is not None
        state: dict[str, Any] = {CALLER: caller}
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
            "client": None,
            "server": None,
            "state": state,
        }
        sent = False
        status, kind = 500, ""
        parts: list[bytes] = []

        async def receive() -> Message:
            nonlocal sent
            if sent:
                await asyncio.Event().wait()  # the caller waits until the end
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status, kind
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = {name.lower(): value for name, value in message["headers"]}
                kind = headers.get(b"content-type", b"").decode("latin-1")
            else:
                parts.append(message.get("body", b""))

        await self.app(scope, receive, send)
        answer = b"".join(parts)
        return Reply(
            status,
            json.loads(answer) if kind.startswith("application/json") else answer.decode("utf-8", "replace"),
            state.get(FAILURE),
        )
