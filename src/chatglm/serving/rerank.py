"""Rerank: how well each of several documents answers a query. Jina's `/v1/rerank` and Cohere's `/v1/rerank` and
`/v2/rerank` have nearly the same shape, and `/rerank` is vLLM's and TEI's path."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from chatglm.errors import InputError, UnsupportedError
from chatglm.serving.access.callers import caller_of
from chatglm.serving.dialect import Dialect, Strict, dialect_route, refusals, until_gone
from chatglm.serving.failures import Failure
from chatglm.serving.fields import OneOf, wrong
from chatglm.serving.hints import RERANK, note_dropped
from chatglm.serving.service import Service

__all__ = ["DIALECT"]


class _Document(Strict):
    """A document. Fields besides the text are returned, but not read."""

    model_config = ConfigDict(extra="allow", strict=True)

    text: str


def _document(value: Any) -> Any:
    if isinstance(value, str):
        return str
    if isinstance(value, dict):
        return _Document
    raise wrong("must be a string, or an object with `text`")


class RerankRequest(Strict):
    hints = RERANK

    model: str | None = Field(None, description="default: the first model for rerank of `/v1/models`")
    query: Annotated[str | _Document, OneOf(_document)]
    documents: list[Annotated[str | _Document, OneOf(_document)]] = Field(min_length=1, max_length=2048)
    top_n: int | None = Field(None, ge=1, description="return only this many of the best documents; default: all")
    return_documents: bool | None = Field(
        None, description="return the texts of the documents; default: true, but false for `/v2/rerank`, as with Cohere"
    )
    max_tokens_per_doc: int | None = Field(
        None, ge=1, description="must be at least what the model reads; longer documents are cut to what it reads"
    )
    truncation: bool | None = Field(None, description="false: refuse documents that are longer than the model reads")


class _Text(BaseModel):
    model_config = ConfigDict(extra="allow")

    text: str


class _Result(BaseModel):
    index: int
    relevance_score: float
    document: _Text | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class RerankResponse(BaseModel):
    id: str
    object: Literal["list"]
    model: str
    results: list[_Result]
    usage: _Usage
    meta: dict[str, Any]


class _Refusal(BaseModel):
    message: str
    detail: str
    code: str | None
    param: str | None


_REFUSALS = refusals(
    _Refusal,
    *(400, 404, 429, 500, 503),
    words={404: "no such model, or not one for reranking", 500: "the encoder has failed"},
)


def _render(failure: Failure) -> Response:
    """Cohere's clients read `message`, Jina's read `detail`."""
    found = {
        "message": failure.message,
        "detail": failure.message,
        "code": failure.code,
        "param": failure.param,
    }
    return JSONResponse(found, failure.status)


def _given(document: str | _Document) -> dict[str, Any]:
    return {"text": document} if isinstance(document, str) else document.model_dump()


def _router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["rerank"], route_class=dialect_route("rerank", service, _render))

    async def rank(body: RerankRequest, request: Request, version: str) -> Response:
        encoder = await service.reranker(body.model, caller_of(request))
        longest = encoder.encoder.max_tokens
        if body.max_tokens_per_doc is not None and body.max_tokens_per_doc < longest:
            raise UnsupportedError(f"max_tokens_per_doc: at least {longest} is supported; leave it out")
        texts = [document if isinstance(document, str) else document.text for document in body.documents]
        query = body.query if isinstance(body.query, str) else body.query.text
        found = await until_gone(request, encoder.score(query, texts))
        if found.cut and body.truncation is False:
            raise InputError(
                f"documents[{found.cut[0]}]: has, with the query, more than the {longest} tokens that the model reads"
            )
        if found.cut:
            note_dropped(f"documents: beyond {longest} tokens ({len(found.cut)} of them)")
        best = sorted(range(len(texts)), key=lambda number: -found.values[number])[: body.top_n]
        shown = version != "2" if body.return_documents is None else body.return_documents
        results = [
            {"index": number, "relevance_score": found.values[number]}
            | ({"document": _given(body.documents[number])} if shown else {})
            for number in best
        ]
        return JSONResponse(
            {
                "id": f"rerank-{secrets.token_hex(12)}",
                "object": "list",
                "model": encoder.name,
                "results": results,
                "usage": {"prompt_tokens": found.tokens, "total_tokens": found.tokens},
                "meta": {
                    "api_version": {"version": version},
                    "billed_units": {"search_units": 1},
                    "tokens": {"input_tokens": found.tokens},
                },
            }
        )

    @routes.post("/v1/rerank", response_model=RerankResponse, responses=_REFUSALS)
    async def first(body: RerankRequest, request: Request) -> Response:
        """The documents that answer a query best, in Jina's and Cohere's shape."""
        return await rank(body, request, "1")

    @routes.post("/rerank", response_model=RerankResponse, responses=_REFUSALS)
    async def plain(body: RerankRequest, request: Request) -> Response:
        """The same."""
        return await rank(body, request, "1")

    @routes.post("/v2/rerank", response_model=RerankResponse, responses=_REFUSALS)
    async def second(body: RerankRequest, request: Request) -> Response:
        """The same, without the documents' texts, as Cohere's second version has it."""
        return await rank(body, request, "2")

    return routes


DIALECT = Dialect(
    name="rerank",
    title="Rerank (Jina, Cohere)",
    router=_router,
    render=_render,
    owns="(/v[12])?/rerank",
    base="/",
    example=("/v1/rerank", {"query": "苹果", "documents": ["水果", "汽车"]}),
    kind="rerank",
)
