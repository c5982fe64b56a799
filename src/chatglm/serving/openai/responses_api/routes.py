"""OpenAI's `/v1/responses`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from chatglm.chat.messages import Message
from chatglm.errors import ContextError, InputError, OutputError
from chatglm.serving.access.callers import Caller, caller_of
from chatglm.serving.dialect import EventStream, all_of, first_of, note_unenforced
from chatglm.serving.hints import note_ignored
from chatglm.serving.knowledge.answers import FromDocuments, refuse_beside_documents
from chatglm.serving.knowledge.shelves import bases_of, open_bases
from chatglm.serving.openai.listing import page_of
from chatglm.serving.openai.responses import ErrorResponse
from chatglm.serving.openai.responses_api.containers import add_containers
from chatglm.serving.openai.responses_api.documents import (
    DeletedResponse,
    InputTokens,
    ItemList,
    ResponseObject,
)
from chatglm.serving.openai.responses_api.events import Writer, events
from chatglm.serving.openai.responses_api.items import ItemReference, dialogue_of, item_id, stored
from chatglm.serving.openai.responses_api.requests import FORMAT_FIELD, CountRequest, ResponsesRequest
from chatglm.serving.openai.responses_api.stored import Chain, Responses, Stored
from chatglm.serving.server_tools import Said, new_container
from chatglm.serving.service import Service
from chatglm.serving.structured import format_named

__all__ = ["add_routes"]

log = logging.getLogger("chatglm.serving")

_UNKNOWN: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorResponse, "description": "a parameter is wrong"},
    404: {"model": ErrorResponse, "description": "there is no such response"},
    500: {"model": ErrorResponse, "description": "stored responses cannot be read"},
}
_STREAM: dict[str, Any] = {"content": {"text/event-stream": {}}}


@contextlib.contextmanager
def _naming_fields() -> Iterator[None]:
    """Errors about messages and the response format name the fields of this API."""
    try:
        with format_named(FORMAT_FIELD):
            yield
    except ContextError as error:
        raise ContextError(str(error), "input") from error


def add_routes(routes: APIRouter, service: Service, refusals: Mapping[int | str, dict[str, Any]]) -> None:
    """
    Args:
        refusals: for the document, by status.
    """
    kept = Responses(service.storage)
    add_containers(routes, service)

    async def dialogue(body: CountRequest, caller: Caller) -> tuple[list[Message], list[dict[str, Any]], Chain]:
        """The messages that are to be answered, the items of the input, and what the response continues."""
        chain = await kept.chain(caller, body.previous_response_id)
        given = body.items()
        known = await kept.items(caller, [item.id for item in given if isinstance(item, ItemReference)])
        kept.check_sizes(known, [item.id for item in given if isinstance(item, ItemReference)])
        made: list[dict[str, Any]] = []
        for item in given:
            if isinstance(item, ItemReference):  # the same item under an id of its own
                made.append(_copied(known[item.id]))
            elif (plain := stored(item)) is not None:
                made.append(plain)
        messages = dialogue_of(body.instructions, [*chain.items, *made])
        if all(message.role == "system" for message in messages):
            raise InputError("input: there is nothing to answer")
        return messages, made, chain

    async def may_store(body: ResponsesRequest) -> bool:
        """Whether the response is stored. If that is impossible, only a request that asks for it fails."""
        if body.store is False:
            return False
        try:
            await kept.prepare()
        except OutputError as error:
            if body.store:
                raise
            log.warning("responses are not stored: %s", error)
            note_ignored("store")
            return False
        return True

    @routes.post("/responses", response_model=ResponseObject, responses={**refusals, 200: _STREAM})
    async def create(body: ResponsesRequest, request: Request) -> Response:
        """The assistant's answer to items: messages, calls and their results."""
        caller = caller_of(request)
        names, model = bases_of(body.model, body.knowledge)
        served = await service.find(model, caller)
        options = body.asked()
        messages, given, chain = await dialogue(body, caller)
        options |= {"adapter": served.adapter, "client": caller.client}
        tools = body.run_here()
        service.server_tools.check(caller, tools, options)
        documents = None
        if names:
            beside: dict[str, object] = {"tools": body.tools, "server_tools": tools, "top_logprobs": body.top_logprobs}
            beside["include"] = "message.output_text.logprobs" in (body.include or ())
            refuse_beside_documents({**beside, "text.format": options.get("response_format")})
            documents = FromDocuments(await asyncio.to_thread(open_bases, service, caller, names))
        known = body.container([*chain.items, *given])
        container = known or new_container()
        store = await may_store(body)
        keep = store or bool(known)
        defaults = served.assistant.defaults
        sampling = {
            "temperature": defaults.temperature if body.temperature is None else body.temperature,
            "top_p": defaults.top_p if body.top_p is None else body.top_p,
        }
        writer = Writer(served.name, {**body.shown(), **sampling}, store, container, keep, documents)

        async def save() -> None:
            if store:
                await kept.save(caller, Stored(writer.response, given), chain)

        with _naming_fields():
            await note_unenforced(served, service.server_tools.shown(options, tools), FORMAT_FIELD)
            deltas: AsyncGenerator[Said]
            if documents is not None:
                deltas = service.watch(served, caller, documents.deltas(served.assistant, messages, options))
            else:
                deltas = service.answer(served, caller, messages, options, tools, container, keep=keep)
            if body.stream:
                return EventStream(events(writer, await first_of(request, deltas), save), bool(tools))
            for delta in await all_of(request, deltas):
                for _ in writer.take(delta):
                    pass
        await save()
        return JSONResponse(writer.response)

    @routes.post("/responses/input_tokens", response_model=InputTokens, responses=dict(refusals))
    async def input_tokens(body: CountRequest, request: Request) -> Response:
        """How many tokens the prompt of these items has."""
        caller = caller_of(request)
        served = await service.find(body.model, caller)
        options, tools = body.asked(), body.run_here()
        service.server_tools.check(caller, tools, options)
        options = service.server_tools.shown(options, tools)
        messages, _, _ = await dialogue(body, caller)
        with _naming_fields():
            counted = await asyncio.to_thread(partial(served.assistant.count, messages, **options))
        return JSONResponse({"object": "response.input_tokens", "input_tokens": counted})

    @routes.get("/responses/{name}", response_model=ResponseObject, responses=_UNKNOWN)
    async def retrieve(name: str, request: Request, stream: bool = False) -> Response:
        """A stored response."""
        if stream:
            raise InputError("stream: a response that is finished cannot be streamed again; leave it out")
        return JSONResponse((await kept.get(caller_of(request), name)).response)

    @routes.delete("/responses/{name}", response_model=DeletedResponse, responses=_UNKNOWN)
    async def delete(name: str, request: Request) -> Response:
        """Delete a stored response. Responses that continue it cannot be continued any more."""
        await kept.delete(caller_of(request), name)
        return JSONResponse({"id": name, "object": "response", "deleted": True})

    @routes.post("/responses/{name}/cancel", response_model=ResponseObject, responses=_UNKNOWN)
    async def cancel(name: str, request: Request) -> Response:
        """Refused: only responses in the background can be cancelled. To end this kind, close the connection."""
        await kept.get(caller_of(request), name)
        raise InputError("Cannot cancel a synchronous response.")

    @routes.get("/responses/{name}/input_items", response_model=ItemList, responses=_UNKNOWN)
    async def input_items(
        name: str,
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
        after: str | None = None,
    ) -> Response:
        """The items of the request that a stored response answers."""
        items = (await kept.get(caller_of(request), name)).input
        return JSONResponse(page_of(items, limit, order, after, "item of this response"))


def _copied(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "id": item_id(item["type"])}
