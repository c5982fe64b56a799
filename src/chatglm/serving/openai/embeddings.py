"""OpenAI's `/v1/embeddings`."""

from __future__ import annotations

import asyncio
import base64
import sys
from array import array
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from chatglm.encoders import Embeddings
from chatglm.serving.access.callers import caller_of
from chatglm.serving.dialect import Strict, refusals, until_gone
from chatglm.serving.fields import OneOf, wrong
from chatglm.serving.hints import EMBEDDING, note_dropped
from chatglm.serving.openai.responses import ErrorResponse
from chatglm.serving.service import Service
from chatglm.serving.sse import compact

__all__ = ["EmbeddingRequest", "EmbeddingsResponse", "add_embeddings", "embeddings_of"]


def _input(value: Any) -> Any:
    if isinstance(value, str):
        return _Text
    if not isinstance(value, list):
        raise wrong("must be a string, a list of strings, a list of token ids, or a list of such lists")
    if not value:
        raise wrong("must not be empty")
    if isinstance(value[0], str):
        return _Texts
    return _ManyIds if isinstance(value[0], list) else _Ids


_Text = Annotated[str, Field(min_length=1)]
_Texts = Annotated[list[_Text], Field(min_length=1, max_length=2048)]
_Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, fail_fast=True)]
_ManyIds = Annotated[list[_Ids], Field(min_length=1, max_length=2048)]


class EmbeddingRequest(Strict):
    hints = EMBEDDING

    model: str | None = Field(None, description="default: the first model for embeddings of `/v1/models`")
    input: Annotated[_Text | _Texts | _Ids | _ManyIds, OneOf(_input)] = Field(
        description="one text or several; or token ids, as `/tokenize` gives them for this model. Texts that are "
        "longer than the model reads are cut, and `X-Chatglm-Dropped` says how many were."
    )
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="base64: of float32 numbers, least significant byte first"
    )
    dimensions: int | None = Field(
        None, ge=1, description="length of the vectors; only for models that were trained for shorter ones"
    )
    prompt_name: str | None = Field(
        None, description="which of the prompts of the model's folder is put in front of each text (query, passage …)"
    )

    def texts(self) -> list[str] | list[list[int]]:
        given: Any = self.input
        return [given] if isinstance(given, str) or isinstance(given[0], int) else given


class _Embedding(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class _Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    object: Literal["list"]
    data: list[_Embedding]
    model: str
    usage: _Usage


_REFUSALS = refusals(
    ErrorResponse,
    *(400, 404, 429, 500, 503),
    words={404: "no such model, or not one for embeddings", 500: "the encoder has failed"},
)


def add_embeddings(routes: APIRouter, service: Service) -> None:
    @routes.post("/embeddings", response_model=EmbeddingsResponse, responses=_REFUSALS)
    async def embeddings(body: EmbeddingRequest, request: Request) -> Response:
        """Vectors of texts."""
        return await embeddings_of(service, body, request)


async def embeddings_of(
    service: Service, body: EmbeddingRequest, request: Request, more_usage: Mapping[str, int] | None = None
) -> Response:
    """
    Args:
        more_usage: what else the usage has.
    """
    encoder = await service.encoder(body.model, caller_of(request))
    found = await until_gone(
        request, encoder.embed(body.texts(), dimensions=body.dimensions, prompt_name=body.prompt_name)
    )
    if found.cut:
        note_dropped(f"input: beyond {encoder.encoder.max_tokens} tokens ({len(found.cut)} of the texts)")
    in_base64 = body.encoding_format == "base64"
    content = await asyncio.to_thread(_written, encoder.name, found, in_base64, more_usage or {})
    return Response(content, media_type="application/json")


def _written(model: str, found: Embeddings, in_base64: bool, more_usage: Mapping[str, int]) -> str:
    """The response as JSON, written vector by vector, so that other threads can run."""
    write = _in_base64 if in_base64 else list
    data = ",".join(
        compact({"object": "embedding", "index": number, "embedding": write(vector)})
        for number, vector in enumerate(found.vectors)
    )
    tokens = sum(found.tokens)
    usage = compact({"prompt_tokens": tokens, **more_usage, "total_tokens": tokens})
    return f'{{"object":"list","data":[{data}],"model":{compact(model)},"usage":{usage}}}'


def _in_base64(vector: array[float]) -> str:
    if sys.byteorder == "big":
        vector = vector[:]
        vector.byteswap()
    return base64.b64encode(vector.tobytes()).decode()
