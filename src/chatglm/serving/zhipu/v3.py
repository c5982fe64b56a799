"""ZhipuAI's v3: what the package `zhipuai` 1 and CharacterGLM's API speak.

Its clients read nothing of a response whose status is not 200. So errors have that status, too, and say in their body
what is wrong; on a route that streams they are an event.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from chatglm.assistant import Delta
from chatglm.serving.access.callers import caller_of
from chatglm.serving.dialect import Dialect, EventStream, dialect_route, first_of, whole_of
from chatglm.serving.failures import Failure
from chatglm.serving.service import Service
from chatglm.serving.zhipu.codes import refusal_of
from chatglm.serving.zhipu.events import InvokeHead, error_event, invoke_answer, invoke_events, invoke_task, new_id
from chatglm.serving.zhipu.requests import InvokeRequest
from chatglm.serving.zhipu.responses import InvokeResponse

__all__ = ["DIALECT", "STREAM_DIALECT"]

NAME, BASE = "zhipu-v3", "/api/paas/v3/model-api"

_DONE = "操作成功"


def _status(failure: Failure) -> int:
    """The status of a response. 405 stays: no client of this dialect sends such a request."""
    return 405 if failure.status == 405 else 200


def render(failure: Failure) -> Response:
    refusal = refusal_of(failure)
    return JSONResponse({"code": refusal.code, "msg": refusal.message, "success": False}, _status(failure))


def render_event(failure: Failure) -> Response:
    """Write an error as an event, for clients that read only events."""
    return Response(error_event(failure, InvokeHead(None)), _status(failure), media_type="text/event-stream")


def _done(data: dict[str, Any]) -> Response:
    return JSONResponse({"code": 200, "msg": _DONE, "data": data, "success": True})


async def _asked(service: Service, model: str, body: InvokeRequest, request: Request) -> AsyncGenerator[Delta]:
    caller = caller_of(request)
    served = await service.find(model, caller)
    messages, options = body.asked()
    options |= {"adapter": served.adapter, "client": caller.client}
    return service.watch(served, caller, served.assistant.astream(messages, **options))


def _router(service: Service) -> APIRouter:
    routes = APIRouter(prefix=BASE, tags=["ZhipuAI v3"], route_class=dialect_route(NAME, service, render))

    @routes.post("/{model:path}/invoke", response_model=InvokeResponse)
    async def invoke(model: str, body: InvokeRequest, request: Request) -> Response:
        """The assistant's next message. Errors have status 200 too: `success` is false, `code` and `msg` say why."""
        deltas = await _asked(service, model, body, request)
        (answer,) = await whole_of(request, deltas)
        return _done(invoke_answer(InvokeHead(body.request_id), answer, body.return_type != "text"))

    @routes.post("/{model:path}/async-invoke", response_model=InvokeResponse)
    async def begin(model: str, body: InvokeRequest, request: Request) -> Response:
        """Answer later: `-/async-invoke/{task_id}` has the answer then."""
        caller = caller_of(request)
        served = await service.find(model, caller)
        body.asked()
        given = {**await request.json(), "model": served.name, "request_id": body.request_id or new_id()}
        task = await service.tasks.submit(caller, NAME, f"{BASE}/{served.name}/invoke", given)
        return _done(invoke_task(task))

    @routes.get("/-/async-invoke/{task_id}", response_model=InvokeResponse)
    async def result(task_id: str, request: Request) -> Response:
        """The state of a request that is answered later, and its answer."""
        return _done(invoke_task(await service.tasks.get(caller_of(request), NAME, task_id)))

    return routes


def _stream_router(service: Service) -> APIRouter:
    routes = APIRouter(prefix=BASE, tags=["ZhipuAI v3"], route_class=dialect_route(NAME, service, render_event))

    @routes.post(
        "/{model:path}/sse-invoke",
        response_class=Response,
        responses={200: {"content": {"text/event-stream": {}}}},
    )
    async def stream(model: str, body: InvokeRequest, request: Request) -> Response:
        """The assistant's next message as named events: `add` …, `finish`; or `error`, `interrupted`."""
        begun = await first_of(request, await _asked(service, model, body, request))
        return EventStream(invoke_events(InvokeHead(body.request_id), begun, body.incremental is not False))

    return routes


_EXAMPLE = {"prompt": [{"role": "user", "content": "你好"}]}

DIALECT = Dialect(
    name=NAME,
    title="ZhipuAI v3",
    router=_router,
    render=render,
    owns=r"/api/paas/v3(/.*)?",
    base=BASE,
    example=(f"{BASE}/{{model}}/invoke", _EXAMPLE),
)
STREAM_DIALECT = Dialect(
    name=NAME,
    title="ZhipuAI v3, streamed",
    router=_stream_router,
    render=render_event,
    owns=rf"{BASE}/.+/sse-invoke",
    base=BASE,
    example=(f"{BASE}/{{model}}/sse-invoke", _EXAMPLE),
)
