"""Deltas of an assistant as Anthropic's JSON, whole or as events, and errors in Anthropic's shape."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse
from pydantic_core import from_json

from chatglm.assistant import CallDelta, Delta, Finish, Start, TextDelta
from chatglm.chat.calls import as_json
from chatglm.errors import ChatGLMError
from chatglm.serving import records
from chatglm.serving.failures import Failure, failure_of
from chatglm.serving.sse import event

__all__ = ["REQUEST_ID", "Reply", "events", "render", "request_id"]

log = logging.getLogger("chatglm.serving")

REQUEST_ID = "request-id"
"""Anthropic's header: clients show it with errors."""

_KINDS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def request_id() -> str:
    """The same as in the log."""
    return records.current().id


def render(failure: Failure) -> Response:
    """Anthropic's own server answers 529 if it is overloaded. Here it is 503, after which every client tries again, and
    which proxies and load balancers know.
    """
    name = request_id()
    return JSONResponse(_error(failure, name), failure.status, {REQUEST_ID: name})


def _error(failure: Failure, name: str) -> dict[str, Any]:
    message = failure.message
    if (
        failure.code == "context_length_exceeded"
    ):  # clients recognise the error by these words, and compact the dialogue
        message = f"prompt is too long: {message}"
    inner: dict[str, Any] = {"type": _KINDS.get(failure.status, "invalid_request_error"), "message": message}
    if failure.param == "thread":  # Anthropic's tool runner then sends the whole dialogue instead
        inner["details"] = {"error_code": "thread_unsupported_request", "unsupported": []}
    return {"type": "error", "error": inner, "request_id": name}


class Reply:
    """One answer: deltas in, events out; and the whole message, once all are in.

    Args:
        model: its name.
        most: tokens that the answer may have.
    """

    def __init__(self, model: str, most: int) -> None:
        self._most = most
        self.message: dict[str, Any] = {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(0, 0, 0),
        }
        self._begun = False
        self._open: dict[str, Any] | None = None  # the block that is being written
        self._arguments = ""

    def take(self, delta: Delta) -> Iterator[dict[str, Any]]:
        """The events that a delta makes."""
        if isinstance(delta, Start):
            self.message["usage"] = _usage(delta.prompt_tokens, delta.cached_tokens, 0)
        if not self._begun:
            self._begun = True
            yield {"type": "message_start", "message": {**self.message, "content": []}}
            yield {"type": "ping"}
        match delta:
            case TextDelta() if delta.text:
                yield from self._text(delta.text)
            case CallDelta():
                yield from self._call(delta)
            case Finish():
                yield from self._close()
                yield from self._finish(delta)

    def _text(self, text: str) -> Iterator[dict[str, Any]]:
        if self._open is None or self._open["type"] != "text":
            yield from self._close()
            yield from self._begin({"type": "text", "text": ""})
        assert self._open is not None
        self._open["text"] += text
        yield self._delta({"type": "text_delta", "text": text})

    def _call(self, delta: CallDelta) -> Iterator[dict[str, Any]]:
        if delta.name:
            yield from self._close()
            name = f"toolu_{delta.id.removeprefix('call_')}"
            yield from self._begin({"type": "tool_use", "id": name, "name": delta.name, "input": {}})
        # A call that was cut short may have arguments that no client can read.
        if delta.arguments and (self._arguments or _read(delta.arguments) is not None):
            self._arguments += delta.arguments
            yield self._delta({"type": "input_json_delta", "partial_json": delta.arguments})

    def _begin(self, block: dict[str, Any]) -> Iterator[dict[str, Any]]:
        self.message["content"].append(block)
        self._open, self._arguments = block, ""
        yield {"type": "content_block_start", "index": self._index, "content_block": {**block}}

    def _close(self) -> Iterator[dict[str, Any]]:
        if self._open is not None:
            if self._open["type"] == "tool_use":
                self._open["input"] = _read(self._arguments) or {}
            yield {"type": "content_block_stop", "index": self._index}
        self._open = None

    @property
    def _index(self) -> int:
        return len(self.message["content"]) - 1

    def _delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    def _finish(self, finish: Finish) -> Iterator[dict[str, Any]]:
        end = {"stop_reason": self._reason(finish), "stop_sequence": finish.stop or None}
        usage = _usage(finish.usage.prompt_tokens, finish.usage.cached_tokens, finish.usage.completion_tokens)
        self.message |= {**end, "usage": usage}
        yield {"type": "message_delta", "delta": end, "usage": usage}
        yield {"type": "message_stop"}

    def _reason(self, finish: Finish) -> str:
        match finish.reason:
            case "length":
                all_used = finish.usage.completion_tokens >= self._most
                return "max_tokens" if all_used else "model_context_window_exceeded"
            case "tool_calls":
                return "tool_use"
        return "stop_sequence" if finish.stop else "end_turn"


def _usage(prompt: int, cached: int, completion: int) -> dict[str, int]:
    """Anthropic counts tokens that came from the prefix cache apart from the others."""
    return {
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": completion,
    }


def _read(text: str) -> dict[str, Any] | None:
    """The object that a text is, or begins to be."""
    try:
        read = from_json(text, allow_partial=True)
    except ValueError:
        return None
    return read if isinstance(read, dict) and as_json(read) is not None else None


async def events(reply: Reply, deltas: AsyncGenerator[Delta], name: str) -> AsyncGenerator[str]:
    """
    Args:
        name: of the request.
    """
    try:
        async with aclosing(deltas):
            async for delta in deltas:
                for made in reply.take(delta):
                    yield event(made, made["type"])
    except Exception as error:  # the status has been sent
        failure = failure_of(error)
        if not isinstance(error, ChatGLMError):
            log.error("a stream failed", exc_info=error)
        yield event(_error(failure, name), "error")
