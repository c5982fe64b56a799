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

__all__ = ["Calls", "Reply", "pause_of"]

_LONGEST_WAIT = 30.0  # seconds between two tries


@dataclass(frozen=True)
class Reply:
    """The answer of a route.

    Attributes:
        text: as it was sent.
        is_json: whether the text is JSON.
        failure: what went wrong, independent of the dialect; None: nothing.
    """

    status: int
    text: str
    is_json: bool
    failure: Failure | None

    @property
    def value(self) -> Any:
        """What the JSON stands for; the text, if it is not JSON."""
        return json.loads(self.text) if self.is_json else self.text

    @property
    def line(self) -> str:
        """The answer as JSON in one line. Mostly it is that already: large answers are not read and written again."""
        return self.text if self.is_json and "\n" not in self.text else json.dumps(self.value, ensure_ascii=False)


def pause_of(failure: Failure) -> float:
    """Seconds until a request that was refused with status 429 is tried again."""
    return min(failure.retry_after or 1.0, _LONGEST_WAIT)


class Calls:
    """Sends requests through the routes of the app.

    Attributes:
        app: the app that gets them; set when it is made.
    """

    app: ASGIApp | None = None

    async def send(self, caller: Caller, path: str, body: Mapping[str, Any], *, wait: bool = True) -> Reply:
        """POST a body as this caller. Nobody checks the caller's key again.

        If this call is cancelled, so is the request.

        Args:
            wait: while the server is busy or the caller's tokens are used up (status 429), wait and try again.
        """
        text = compact(body).encode()  # not longer than it was accepted
        while True:
            reply = await self._send(caller, path, text)
            if reply.failure is None or reply.failure.status != 429 or not wait:
                return reply
            await asyncio.sleep(pause_of(reply.failure))

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
        answer = b"".join(parts).decode("utf-8", "replace")
        return Reply(status, answer, kind.startswith("application/json"), state.get(FAILURE))
