"""What Anthropic's routes answer: models for the API document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

__all__ = ["CountResponse", "ErrorResponse", "MessageResponse", "ModelResponse", "ModelsResponse"]


class _Error(BaseModel):
    type: str
    message: str
    details: dict[str, Any] | None = None


class ErrorResponse(BaseModel):
    type: Literal["error"]
    error: _Error
    request_id: str


class _Text(BaseModel):
    type: Literal["text"]
    text: str


class _ToolUse(BaseModel):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class _Usage(BaseModel):
    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class MessageResponse(BaseModel):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[Annotated[_Text | _ToolUse, Field(discriminator="type")]]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"]
    stop_sequence: str | None
    usage: _Usage


class CountResponse(BaseModel):
    input_tokens: int


class ModelResponse(BaseModel):
    type: Literal["model"]
    id: str
    display_name: str
    created_at: str
    lifecycle: Literal["active"]
    max_input_tokens: int | None
    max_tokens: int | None


class ModelsResponse(BaseModel):
    data: list[ModelResponse]
    has_more: bool
    first_id: str | None
    last_id: str | None
