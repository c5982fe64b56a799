"""`POST /` as `api.py` of ChatGLM-6B and ChatGLM2-6B had it: a prompt and a history in, a response and a history out.

Where the official server takes 0 for "not given" (`temperature or 0.95`), 0 is 0 here.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from chatglm.chat.messages import Message, messages_from_pairs
from chatglm.errors import InputError
from chatglm.serving.access.callers import caller_of
from chatglm.serving.dialect import Dialect, Strict, dialect_route, refusals, whole_of
from chatglm.serving.failures import Failure
from chatglm.serving.fields import OneOf, wrong
from chatglm.serving.hints import MESSAGE, REQUEST
from chatglm.serving.messages import HeaderLine
from chatglm.serving.service import Service

__all__ = ["DIALECT"]

Turn = Annotated[list[str], Field(min_length=2, max_length=2)]


class _Entry(Strict):
    """One message, as ChatGLM3's history has it."""

    hints = MESSAGE

    role: Literal["system", "user", "assistant", "observation", "tool"]
    content: str
    metadata: HeaderLine = None


def _history(value: Any) -> Any:
    if not isinstance(value, list):
        raise wrong("must be a list of pairs (prompt, response), or of messages")
    return list[_Entry] if value and isinstance(value[0], dict) else list[Turn]


class _Question(Strict):
    hints = REQUEST

    model: str | None = Field(None, description="default: the first")
    prompt: str
    history: Annotated[list[Turn] | list[_Entry], OneOf(_history)] | None = Field(
        None, description="the dialogue so far: pairs (prompt, response), or messages as ChatGLM3's history has them"
    )
    max_length: int | None = Field(None, ge=1, description="prompt and answer together, in tokens; default 2048")
    top_p: float | None = Field(None, gt=0, le=1, description="default 0.7")
    temperature: float | None = Field(None, ge=0, allow_inf_nan=False, description="default 0.95; 0 is greedy")


class _Reply(BaseModel):
    response: str
    history: list[list[str]] | list[dict[str, Any]]
    status: int
    time: str


class _Refusal(BaseModel):
    status: int
    error: str
    time: str


def _now() -> str:
    return datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S")


def _render(failure: Failure) -> Response:
    return JSONResponse({"status": failure.status, "error": failure.message, "time": _now()}, failure.status)


def _router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["api.py"], route_class=dialect_route("legacy", service, _render, any_type=True))

    @routes.post("/", response_model=_Reply, responses=refusals(_Refusal, 400, 404, 429, 500, 502, 503))
    async def answer(question: _Question, request: Request) -> Response:
        """A prompt and a history in, a response and a history out, as `api.py` does."""
        caller = caller_of(request)
        served = await service.find(question.model, caller)
        history: list[Any] = [
            turn.model_dump(exclude_defaults=True) if isinstance(turn, _Entry) else turn
            for turn in question.history or ()
        ]
        by_role = any(isinstance(turn, dict) for turn in history)
        asked = Message("user", question.prompt)
        messages = (
            [*(Message.from_dict(turn, number) for number, turn in enumerate(history)), asked]
            if by_role
            else messages_from_pairs(history, question.prompt)
        )
        # Tokens of a model at another server cannot be counted here.
        default = None if served.assistant.context is None else 2048
        params = {
            "max_new_tokens": None,
            "max_length": default if question.max_length is None else question.max_length,
            "top_p": 0.7 if question.top_p is None else question.top_p,
            "temperature": 0.95 if question.temperature is None else question.temperature,
        }
        deltas = served.assistant.astream(messages, params=params, adapter=served.adapter, client=caller.client)
        (whole,) = await whole_of(request, service.watch(served, caller, deltas))
        message = whole.message
        if message.tool_calls:
            raise InputError("history: the model calls a tool, which this dialect cannot return; use /v1")
        response = message.content
        new = (
            [{"role": "user", "content": question.prompt}, {"role": "assistant", "content": response}]
            if by_role
            else [[question.prompt, response]]
        )
        return JSONResponse({"response": response, "history": [*history, *new], "status": 200, "time": _now()})

    return routes


DIALECT = Dialect(
    name="legacy",
    title="api.py of ChatGLM-6B and ChatGLM2-6B",
    router=_router,
    render=_render,
    owns="/",
    base="/",
    example=("/", {"prompt": "你好", "history": []}),
)
