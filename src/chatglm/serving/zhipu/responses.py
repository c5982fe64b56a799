"""What ZhipuAI's routes answer: models for the API document."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from chatglm.serving.openai.responses import ServerToolCall

__all__ = ["InvokeResponse", "TokenizerResponse", "ZhipuChatResponse", "ZhipuRefusal", "ZhipuTaskResponse"]


class _ZhipuError(BaseModel):
    code: str
    message: str


class ZhipuRefusal(BaseModel):
    error: _ZhipuError


class _ZhipuFunction(BaseModel):
    name: str
    arguments: str


class _ZhipuCall(BaseModel):
    id: str
    type: Literal["function"]
    function: _ZhipuFunction


class _ZhipuMessage(BaseModel):
    role: Literal["assistant"]
    content: str
    tool_calls: list[_ZhipuCall] | None = None
    server_tool_calls: list[ServerToolCall] | None = None
    images: list[dict[str, Any]] | None = None


class _ZhipuChoice(BaseModel):
    index: int
    finish_reason: Literal["stop", "length", "tool_calls"]
    message: _ZhipuMessage


class _ZhipuPromptDetails(BaseModel):
    cached_tokens: int


class _ZhipuUsage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: _ZhipuPromptDetails


class ZhipuChatResponse(BaseModel):
    id: str
    request_id: str
    created: int
    model: str
    choices: list[_ZhipuChoice]
    usage: _ZhipuUsage


class ZhipuTaskResponse(BaseModel):
    """`choices` and `usage` with SUCCESS, `error` with FAIL."""

    id: str
    request_id: str
    model: str
    task_status: Literal["PROCESSING", "SUCCESS", "FAIL"]
    created: int | None = None
    choices: list[_ZhipuChoice] | None = None
    usage: _ZhipuUsage | None = None
    error: _ZhipuError | None = None


class _PromptUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class TokenizerResponse(BaseModel):
    id: str
    request_id: str
    created: int
    usage: _PromptUsage


class _InvokeChoice(BaseModel):
    role: Literal["assistant"]
    content: str


class _InvokeUsage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class _InvokeError(BaseModel):
    code: int
    msg: str


class _InvokeData(BaseModel):
    request_id: str
    task_id: str
    task_status: Literal["PROCESSING", "SUCCESS", "FAIL"]
    choices: list[_InvokeChoice] | None = None
    usage: _InvokeUsage | None = None
    error: _InvokeError | None = None


class InvokeResponse(BaseModel):
    """An answer, or what is wrong: both come with HTTP status 200, which the clients need to read them."""

    code: int
    msg: str
    data: _InvokeData | None = None
    success: bool
