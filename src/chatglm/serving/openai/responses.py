"""What OpenAI's routes answer: models for the API document."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

__all__ = ["ChatResponse", "CompletionResponse", "ErrorResponse", "ModelResponse", "ModelsResponse"]


class _Error(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    error: _Error


class _CachedTokens(BaseModel):
    cached_tokens: int


class _UsageResponse(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: _CachedTokens


class _CalledFunction(BaseModel):
    name: str
    arguments: str


class _Call(BaseModel):
    id: str
    type: Literal["function"]
    function: _CalledFunction


class ServerToolCall(_Call):
    """A call that the server carried out.

    Attributes:
        output: what the model was told; failed: whether that is an error.
    """

    output: str
    failed: bool
    seconds: float


class _ResponseMessage(BaseModel):
    role: Literal["assistant"]
    content: str | None
    server_tool_calls: list[ServerToolCall] | None = None
    images: list[dict[str, Any]] | None = None
    citations: list[dict[str, Any]] | None = None
    answered: bool | None = None
    unsupported: list[list[int]] | None = None
    tool_calls: list[_Call] | None = None
    function_call: _CalledFunction | None = None


class _ChatChoice(BaseModel):
    index: int
    message: _ResponseMessage
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "tool_calls", "function_call"]
    stop_reason: str | None = None


class ChatResponse(BaseModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[_ChatChoice]
    usage: _UsageResponse


class _CompletionChoice(BaseModel):
    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"]
    stop_reason: str | None = None


class CompletionResponse(BaseModel):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[_CompletionChoice]
    usage: _UsageResponse


class ModelResponse(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: str | None
    max_model_len: int | None
    permission: list[dict[str, Any]]


class ModelsResponse(BaseModel):
    object: Literal["list"]
    data: list[ModelResponse]
