"""OpenAI's routes: `/v1/chat/completions`, `/v1/completions`, `/v1/models`; those of `embeddings.py` join them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from chatglm.serving.access.callers import caller_of
from chatglm.serving.dialect import (
    Dialect,
    EventStream,
    dialect_route,
    first_of,
    note_unenforced,
    refusals,
    whole_of,
    whole_run,
)
from chatglm.serving.knowledge.answers import FromDocuments, refuse_beside_documents
from chatglm.serving.knowledge.shelves import bases_of, open_bases
from chatglm.serving.openai.adapters import add_adapters
from chatglm.serving.openai.batches import add_batches
from chatglm.serving.openai.embeddings import add_embeddings
from chatglm.serving.openai.events import (
    Head,
    chat_choice,
    chat_events,
    document_events,
    render,
    text_choice,
    text_events,
    usage_of,
)
from chatglm.serving.openai.knowledge_api.routes import add_knowledge
from chatglm.serving.openai.models import add_models
from chatglm.serving.openai.requests import ChatRequest, CompletionRequest
from chatglm.serving.openai.responses import (
    ChatResponse,
    CompletionResponse,
    ErrorResponse,
)
from chatglm.serving.openai.responses_api import add_routes
from chatglm.serving.service import Service
from chatglm.serving.tokenizing import add_tokenizing
from chatglm.serving.usage import UsageTotal

__all__ = ["DIALECT"]

_REFUSALS = refusals(ErrorResponse, 400, 404, 429, 500, 502, 503)
_STREAM: dict[str, Any] = {"content": {"text/event-stream": {}}}


def _router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["OpenAI"], route_class=dialect_route("openai", service, render))

    @routes.post("/chat/completions", response_model=ChatResponse, responses={**_REFUSALS, 200: _STREAM})
    async def chat(body: ChatRequest, request: Request) -> Response:
        """The assistant's next message."""
        caller = caller_of(request)
        names, model = bases_of(body.model, body.knowledge)
        served, with_usage = await service.find(model, caller), body.usage_wanted()
        messages, options = body.asked()
        options |= {"adapter": served.adapter, "client": caller.client}
        tools = body.server_tools or ()
        service.server_tools.check(caller, tools, options)
        head = Head("chatcmpl", "chat.completion.chunk" if body.stream else "chat.completion", served.name)
        if names:
            refuse_beside_documents({"server_tools": tools, "logprobs": body.logprobs, "n": (body.n or 1) > 1})
            documents = FromDocuments(await asyncio.to_thread(open_bases, service, caller, names))
            said = service.watch(served, caller, documents.deltas(served.assistant, messages, options))
            if body.stream:
                return EventStream(document_events(head, await first_of(request, said), documents, with_usage))
            (answer,) = await whole_of(request, said)
            choice = chat_choice(0, answer, False)
            choice["message"] |= documents.whole()
            total = UsageTotal()
            total.add(answer.finish)
            return JSONResponse(head.whole([choice], usage_of(total)))
        with body.naming_its_fields():
            await note_unenforced(served, service.server_tools.shown(options, tools))
            deltas = service.answer(served, caller, messages, options, tools, answers=body.n or 1)
            if body.stream:
                begun = await first_of(request, deltas)
                return EventStream(chat_events(head, begun, with_usage, body.old_calls), bool(tools))
            answers, called = await whole_run(request, deltas)
        total = UsageTotal()
        for answer in answers:
            total.add(answer.finish)
        choices = [chat_choice(number, answer, body.old_calls, called) for number, answer in enumerate(answers)]
        return JSONResponse(head.whole(choices, usage_of(total)))

    @routes.post("/completions", response_model=CompletionResponse, responses={**_REFUSALS, 200: _STREAM})
    async def complete(body: CompletionRequest, request: Request) -> Response:
        """The continuation of a text, without the format of a dialogue."""
        caller = caller_of(request)
        served, with_usage = await service.find(body.model, caller), body.usage_wanted()
        values, prompts, n = body.params(), body.prompts(), body.n or 1
        deltas = service.watch(
            served,
            caller,
            served.assistant.astream_texts(prompts, params=values, adapter=served.adapter, client=caller.client),
            answers=n,
            prompts=len(prompts),
        )
        deltas = body.shown(deltas)
        head = Head("cmpl", "text_completion", served.name)
        if body.stream:
            return EventStream(text_events(head, await first_of(request, deltas), n, with_usage))
        answers = await whole_of(request, deltas)
        total, choices = UsageTotal(), []
        for number, answer in enumerate(answers):
            total.add(answer.finish, number // n)
            choices.append(text_choice(number, answer))
        return JSONResponse(head.whole(choices, usage_of(total)))

    add_embeddings(routes, service)
    add_knowledge(routes, service, partial(refusals, ErrorResponse))
    add_adapters(routes, service)

    add_routes(routes, service, _REFUSALS)

    add_models(routes, service, refusals(ErrorResponse, 404), documents=True)

    add_batches(routes, service)

    # vLLM has these beside `/v1`.
    beside = APIRouter(tags=["OpenAI"], route_class=dialect_route("openai", service, render))
    add_tokenizing(beside, service)
    routes.routes.extend(beside.routes)
    return routes


DIALECT = Dialect(
    name="openai",
    title="OpenAI",
    router=_router,
    render=render,
    owns="/v1(/.*)?|/(de)?tokenize",
    base="/v1",
    example=("/v1/chat/completions", {"messages": [{"role": "user", "content": "你好"}]}),
)
