"""Anthropic's `/v1/messages`, `/v1/messages/count_tokens` and `/v1/models`.

OpenAI has a `/v1/models`, too. Requests with an `anthropic-version` header, and those under `/anthropic`, get the one
of this module (`front`).
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from chatglm.errors import InputError
from chatglm.serving.access.callers import caller_of
from chatglm.serving.anthropic.events import REQUEST_ID, Reply, events, render, request_id
from chatglm.serving.anthropic.requests import FORMAT_FIELD, CountRequest, MessagesRequest
from chatglm.serving.anthropic.responses import (
    CountResponse,
    ErrorResponse,
    MessageResponse,
    ModelResponse,
    ModelsResponse,
)
from chatglm.serving.catalog import Offer
from chatglm.serving.dialect import Dialect, EventStream, all_of, dialect_route, first_of, note_unenforced, refusals
from chatglm.serving.service import Service
from chatglm.serving.structured import format_named

__all__ = ["DIALECT"]

_REFUSALS = refusals(ErrorResponse, 400, 401, 403, 404, 413, 429, 500, 502, 503)
_STREAM: dict[str, Any] = {"content": {"text/event-stream": {}}}


def _said(content: Mapping[str, Any], name: str) -> Response:
    return JSONResponse(content, headers={REQUEST_ID: name})


def _router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["Anthropic"], route_class=dialect_route("anthropic", service, render))
    started = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")

    @routes.post("/v1/messages", response_model=MessageResponse, responses={**_REFUSALS, 200: _STREAM})
    async def messages(body: MessagesRequest, request: Request) -> Response:
        """The assistant's next message."""
        caller, name = caller_of(request), request_id()
        served = await service.find(body.model, caller)
        dialogue, options = body.asked()
        options |= {"adapter": served.adapter, "client": caller.client}
        reply = Reply(served.name, body.max_tokens)
        with format_named(FORMAT_FIELD):
            await note_unenforced(served, options, FORMAT_FIELD)
            deltas = service.watch(served, caller, served.assistant.astream(dialogue, **options))
            if body.stream:
                response = EventStream(events(reply, await first_of(request, deltas), name))
                response.headers[REQUEST_ID] = name
                return response
            for delta in await all_of(request, deltas):
                for _ in reply.take(delta):
                    pass
        return _said(reply.message, name)

    @routes.post("/v1/messages/count_tokens", response_model=CountResponse, responses=_REFUSALS)
    async def count_tokens(body: CountRequest, request: Request) -> Response:
        """How many tokens the prompt of these messages has."""
        caller = caller_of(request)
        served = await service.find(body.model, caller)
        dialogue, options = body.asked()
        with format_named(FORMAT_FIELD):
            counted = await asyncio.to_thread(partial(served.assistant.count, dialogue, **options))
        return _said({"input_tokens": counted}, request_id())

    def listed(served: Offer) -> dict[str, Any]:
        context = served.context
        return {
            "type": "model",
            "id": served.name,
            "display_name": served.name,
            "created_at": started,
            "lifecycle": "active",
            "max_input_tokens": context,
            "max_tokens": context,
        }

    @routes.get("/anthropic/v1/models", response_model=ModelsResponse, responses=refusals(ErrorResponse, 400))
    async def models(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=1000)] = 20,
        after_id: str | None = None,
        before_id: str | None = None,
    ) -> Response:
        """The models on offer, and their adapters. Also at `/v1/models`, with an `anthropic-version` header."""
        names = list(service.offered(caller_of(request)))
        for field, given in (("after_id", after_id), ("before_id", before_id)):
            if given is not None and given not in names:
                raise InputError(f"{field}: {given!r:.100} is not a model of this server")
        start = 0 if after_id is None else names.index(after_id) + 1
        end = len(names) if before_id is None else names.index(before_id)
        inside = names[start:end]
        # Before an id means: those next to it.
        shown = inside[-limit:] if before_id is not None and after_id is None else inside[:limit]
        page = {"data": [listed(service.models[name]) for name in shown], "has_more": len(shown) < len(inside)}
        first, last = (shown[0], shown[-1]) if shown else (None, None)
        return _said({**page, "first_id": first, "last_id": last}, request_id())

    @routes.get(
        "/anthropic/v1/models/{name:path}", response_model=ModelResponse, responses=refusals(ErrorResponse, 404)
    )
    async def model(name: str, request: Request) -> Response:
        """One model."""
        return _said(listed(service.offer(name, caller_of(request))), request_id())

    return routes


DIALECT = Dialect(
    name="anthropic",
    title="Anthropic",
    router=_router,
    render=render,
    owns="/v1/messages(/.*)?|/anthropic(/.*)?",
    base="/",
    example=("/v1/messages", {"max_tokens": 200, "messages": [{"role": "user", "content": "你好"}]}),
)
