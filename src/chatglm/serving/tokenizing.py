"""`/tokenize` and `/detokenize` as vLLM has them: what a model reads, without an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from chatglm.assistant import Assistant
from chatglm.chat.messages import Message, ToolSpec
from chatglm.encoders.tokens import Tokens
from chatglm.errors import InputError, UnsupportedError
from chatglm.serving.access.callers import Caller, caller_of
from chatglm.serving.dialect import Strict, refusals
from chatglm.serving.failures import NotOfferedError
from chatglm.serving.hints import TOKENIZE
from chatglm.serving.messages import ChatMessage, messages_of
from chatglm.serving.openai.responses import ErrorResponse
from chatglm.serving.service import Service
from chatglm.serving.tools import Tools, tools_of

__all__ = ["add_tokenizing"]


class TokenizeRequest(Strict):
    hints = TOKENIZE

    model: str | None = Field(None, description="default: the first; models for embeddings and rerank are also allowed")
    prompt: str | None = Field(None, description="a text; or give `messages`")
    messages: list[ChatMessage] | None = Field(None, min_length=1, description="a dialogue")
    tools: Tools | None = None
    add_special_tokens: bool | None = Field(
        None, description="add control tokens around a text (default: true); a dialogue always has its own"
    )
    add_generation_prompt: bool | None = Field(
        None, description="end a dialogue with the beginning of the assistant's message (default: true)"
    )
    return_token_strs: bool | None = Field(None, description="also return the text of each token")


class TokenizeResponse(BaseModel):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(Strict):
    hints = TOKENIZE

    model: str | None = Field(None, description="default: the first model")
    tokens: Annotated[list[Annotated[int, Field(ge=0)]], Field(fail_fast=True)]


class DetokenizeResponse(BaseModel):
    prompt: str


_REFUSALS = refusals(ErrorResponse, 400, 404, 501, 503)


class _OfAssistant:
    """The tokens of a model that answers."""

    def __init__(self, assistant: Assistant) -> None:
        self._form, self._tokenizer = assistant.format, assistant.tokenizer
        self.longest, self.size = assistant.context, len(assistant.tokenizer)

    def encode(self, text: str, special: bool) -> list[int]:
        ids = self._tokenizer.encode_text(text)
        return self._tokenizer.build_inputs_with_special_tokens(ids) if special else ids

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec], generation: bool) -> list[int]:
        return self._form.ids(messages, tools, generation)

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.to_text(ids)

    def name(self, token: int) -> str:
        return self._tokenizer.to_text([token])


class _OfEncoder:
    """The tokens of a model for embeddings or rerank."""

    def __init__(self, tokens: Tokens) -> None:
        self.longest, self.size = tokens.longest, tokens.size
        self.encode, self.decode, self.name = tokens.encode, tokens.decode, tokens.name

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec], generation: bool) -> list[int]:
        raise UnsupportedError("messages: this model reads texts, not dialogues; send prompt")


def add_tokenizing(routes: APIRouter, service: Service) -> None:
    async def model_of(name: str | None, caller: Caller) -> _OfAssistant | _OfEncoder:
        if (encoder := await service.any_encoder(name, caller)) is not None:
            return _OfEncoder(encoder.tokenizer)
        served = await service.find(name, caller)
        if not isinstance(served.assistant, Assistant):
            raise NotOfferedError(
                f"model: {served.name!r} is at another server, and only that server knows its tokens; ask it"
            )
        return _OfAssistant(served.assistant)

    @routes.post("/tokenize", response_model=TokenizeResponse, responses=_REFUSALS)
    async def tokenize(body: TokenizeRequest, request: Request) -> Response:
        """The ids of a text, or of a dialogue's prompt."""
        if (body.prompt is None) == (body.messages is None):
            raise InputError("prompt: give either prompt or messages")
        model = await model_of(body.model, caller_of(request))
        if body.messages is None:
            if body.tools:
                raise InputError("tools: need messages")
            make = partial(model.encode, body.prompt or "", body.add_special_tokens is not False)
        else:
            messages, tools = messages_of(body.messages), ToolSpec.list_from(tools_of(body.tools or []))
            make = partial(model.prompt, messages, tools, body.add_generation_prompt is not False)
        ids = await asyncio.to_thread(make)
        found: dict[str, Any] = {"count": len(ids), "max_model_len": model.longest, "tokens": ids, "token_strs": None}
        if body.return_token_strs:
            found["token_strs"] = await asyncio.to_thread(lambda: [model.name(token) for token in ids])
        return JSONResponse(found)

    @routes.post("/detokenize", response_model=DetokenizeResponse, responses=_REFUSALS)
    async def detokenize(body: DetokenizeRequest, request: Request) -> Response:
        """The text of token ids; control tokens are written as their names."""
        model = await model_of(body.model, caller_of(request))
        if (most := max(body.tokens, default=0)) >= model.size:
            raise InputError(f"tokens: {most} is not a token of this model; its ids go from 0 to {model.size - 1}")
        return JSONResponse({"prompt": await asyncio.to_thread(model.decode, body.tokens)})
