"""OpenAI's list of models, for all dialects that have it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request

from chatglm.serving.access.callers import Caller, caller_of
from chatglm.serving.catalog import Kind, Offer
from chatglm.serving.dialect import Refusals
from chatglm.serving.openai.responses import ModelResponse, ModelsResponse
from chatglm.serving.service import DOCUMENTS, Service

__all__ = ["add_models"]

_KINDS: tuple[Kind, ...] = ("chat", "embedding", "rerank")
_PERMISSION: dict[str, Any] = {
    "object": "model_permission",
    "allow_create_engine": False,
    "allow_sampling": True,
    "allow_logprobs": True,
    "allow_search_indices": False,
    "allow_view": True,
    "allow_fine_tuning": False,
    "organization": "*",
    "group": None,
    "is_blocking": False,
}
"""Older clients read it; it is the same for all models."""


def add_models(routes: APIRouter, service: Service, unknown: Refusals, *, documents: bool = False) -> None:
    """Add `GET /models` and `GET /models/{name}`.

    Args:
        unknown: how the dialect answers for an unknown model, by status, for the OpenAPI document.
        documents: whether the dialect answers from bases: they are listed, too.
    """
    started = int(time.time())

    def listed(offer: Offer) -> dict[str, Any]:
        digest = hashlib.blake2b(offer.name.encode(), digest_size=12).hexdigest()
        return {
            "id": offer.name,
            "object": "model",
            "created": started,
            "owned_by": "chatglm",
            "root": offer.holder.source.root or offer.name,
            "parent": offer.parent,
            "max_model_len": offer.context,
            "permission": [{**_PERMISSION, "id": f"modelperm-{digest}", "created": started}],
        }

    async def with_documents(caller: Caller) -> list[dict[str, Any]]:
        """The entries of bases: the first model, once for each base that it answers from."""
        first = next(iter(service.offered(caller).values()), None)
        if first is None or service.shelf is None or not documents:
            return []
        names = await asyncio.to_thread(service.shelf.names, caller.owner or None)
        return [{**listed(replace(first, name=f"{DOCUMENTS}{name}")), "parent": first.name} for name in names]

    @routes.get("/models", response_model=ModelsResponse)
    async def models(request: Request) -> dict[str, Any]:
        """The models on offer, their other names and adapters, and those for embeddings and rerank."""
        caller = caller_of(request)
        offers = service.offered(caller, *_KINDS).values()
        return {"object": "list", "data": [listed(offer) for offer in offers] + await with_documents(caller)}

    @routes.get("/models/{name:path}", response_model=ModelResponse, responses=unknown)
    async def model(name: str, request: Request) -> dict[str, Any]:
        """One model."""
        caller = caller_of(request)
        if name.startswith(DOCUMENTS):
            for found in await with_documents(caller):
                if found["id"] == name:
                    return found
        return listed(service.offer(name, caller, *_KINDS))
