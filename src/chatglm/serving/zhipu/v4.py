"""ZhipuAI's v4: what the packages `zhipuai` 2 and `zai-sdk`, and LangChain's `ChatZhipuAI`, speak."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from chatglm.serving.access.callers import caller_of
from chatglm.serving.dialect import Dialect, EventStream, dialect_route, first_of, note_unenforced, refusals, whole_run
from chatglm.serving.failures import Failure
from chatglm.serving.hints import note_ignored
from chatglm.serving.openai.batches import BatchResponse, add_begun_batches, add_files, refused_by, shown
from chatglm.serving.openai.embeddings import EmbeddingRequest, EmbeddingsResponse, embeddings_of
from chatglm.serving.openai.models import add_models
from chatglm.serving.service import Service
from chatglm.serving.zhipu.codes import refusal_of
from chatglm.serving.zhipu.events import ChatHead, chat_answer, chat_events, error_of, new_id, task_answer
from chatglm.serving.zhipu.requests import TokenizerRequest, ZhipuBatchRequest, ZhipuChatRequest
from chatglm.serving.zhipu.responses import TokenizerResponse, ZhipuChatResponse, ZhipuRefusal, ZhipuTaskResponse

__all__ = ["DIALECT"]

NAME, BASE = "zhipu-v4", "/api/paas/v4"

_REFUSALS = refusals(
    ZhipuRefusal,
    *(400, 429, 500, 502, 503),
    words={400: "a field is wrong or not supported, or there is no such model"},
)
_UNREAD = refusals(
    ZhipuRefusal,
    *(404, 500),
    words={404: "there is no such task, it has expired, or belongs to another key", 500: "nothing can be read"},
)
_STREAM: dict[str, Any] = {"content": {"text/event-stream": {}}}


def render(failure: Failure) -> Response:
    return JSONResponse(error_of(failure), refusal_of(failure).status)


def _router(service: Service) -> APIRouter:
    routes = APIRouter(prefix=BASE, tags=["ZhipuAI v4"], route_class=dialect_route(NAME, service, render))

    @routes.post("/chat/completions", response_model=ZhipuChatResponse, responses={**_REFUSALS, 200: _STREAM})
    async def chat(body: ZhipuChatRequest, request: Request) -> Response:
        """The assistant's next message."""
        caller = caller_of(request)
        served = await service.find(body.model, caller)
        messages, options = body.asked()
        options |= {"adapter": served.adapter, "client": caller.client}
        tools = body.server_tools or ()
        service.server_tools.check(caller, tools, options)
        head, answers = ChatHead(served.name, body.request_id), body.n or 1
        with body.naming_its_fields():
            await note_unenforced(served, service.server_tools.shown(options, tools))
            deltas = service.answer(served, caller, messages, options, tools, answers=answers)
            if body.stream:
                begun = await first_of(request, deltas)
                return EventStream(chat_events(head, begun, answers, bool(body.tool_stream)), bool(tools))
            return JSONResponse(chat_answer(head, *await whole_run(request, deltas)))

    @routes.post("/async/chat/completions", response_model=ZhipuTaskResponse, responses=_REFUSALS)
    async def begin(body: ZhipuChatRequest, request: Request) -> Response:
        """Answer later: `/async-result/{id}` has the answer then."""
        caller = caller_of(request)
        served = await service.find(body.model, caller)
        _, options = body.asked()
        service.server_tools.check(caller, body.server_tools or (), options)
        with body.naming_its_fields():
            await note_unenforced(served, options)
        given = {**await request.json(), "model": served.name, "request_id": body.request_id or new_id()}
        if given.pop("stream", None):
            note_ignored("stream")
        task = await service.tasks.submit(caller, NAME, f"{BASE}/chat/completions", given)
        return JSONResponse(task_answer(task))

    @routes.get("/async-result/{task_id}", response_model=ZhipuTaskResponse, responses=_UNREAD)
    async def result(task_id: str, request: Request) -> Response:
        """The state of a request that is answered later, and its answer."""
        return JSONResponse(task_answer(await service.tasks.get(caller_of(request), NAME, task_id)))

    @routes.post("/embeddings", response_model=EmbeddingsResponse, responses=_REFUSALS)
    async def embeddings(body: EmbeddingRequest, request: Request) -> Response:
        """Vectors of texts."""
        return await embeddings_of(service, body, request, {"completion_tokens": 0})

    @routes.post("/tokenizer", response_model=TokenizerResponse, responses=_REFUSALS)
    async def count(body: TokenizerRequest, request: Request) -> Response:
        """How many tokens the prompt of these messages has."""
        served = await service.find(body.model, caller_of(request))
        messages, options = body.asked()
        tokens = await asyncio.to_thread(partial(served.assistant.count, messages, **options))
        own_id = new_id()
        return JSONResponse(
            {
                "id": own_id,
                "request_id": body.request_id or own_id,
                "created": int(time.time()),
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }
        )

    add_models(
        routes, service, refusals(ZhipuRefusal, 400, 404, words={400: "no such model", 404: "a path of several lines"})
    )

    refused = refused_by(ZhipuRefusal)
    add_files(routes, service, refused)

    @routes.post("/batches", response_model=BatchResponse, responses=refused(400, 404, 429, 500))
    async def begin_batch(body: ZhipuBatchRequest, request: Request) -> Response:
        """Answer all requests of a file."""
        batch = await service.batches.create(
            caller_of(request),
            NAME,
            body.endpoint,
            body.path(BASE),
            body.input_file_id,
            window=body.completion_window,
            seconds=body.seconds(),
            metadata=body.metadata,
        )
        return JSONResponse(shown(batch))

    add_begun_batches(routes, service, NAME, refused)
    return routes


DIALECT = Dialect(
    name=NAME,
    title="ZhipuAI v4",
    router=_router,
    render=render,
    owns=f"{BASE}(/.*)?",
    base=BASE,
    example=(f"{BASE}/chat/completions", {"messages": [{"role": "user", "content": "你好"}]}),
)
