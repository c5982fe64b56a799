"""The parts of responses that both versions share: a code and a message in the body, and the forms of documents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from chatglm.errors import InputError, NotFoundError
from chatglm.knowledge import Base, Hit, Passage, Shelf
from chatglm.knowledge.store import Role
from chatglm.serving.access.callers import caller_of
from chatglm.serving.dialect import Refusals, refusals
from chatglm.serving.failures import Failure
from chatglm.serving.knowledge.shelves import base_for, shelf_of, who_of
from chatglm.serving.service import Service

__all__ = [
    "AT_ONCE",
    "NOTHING_FOUND",
    "Coded",
    "attacks",
    "distance_of",
    "document",
    "find_base",
    "reference",
    "refused",
    "render",
    "said",
    "source",
    "threshold_of",
    "work",
]

AT_ONCE = 4
"""Maximum number of requests that wait in a thread until files are indexed, so that threads are left for others."""
NOTHING_FOUND = "<span style='color:red'>未找到相关文档,该回答为大模型自身能力解答！</span>"
_Result = TypeVar("_Result")


class Coded(BaseModel):
    """A response with a code in its body.

    Attributes:
        code: an HTTP status. The HTTP status of the response itself is 200 if the request could be understood.
    """

    code: int
    msg: str
    data: Any = None


def said(code: int, msg: str, data: Any = None) -> Response:
    return JSONResponse({"code": code, "msg": msg, "data": data})


def render(failure: Failure) -> Response:
    return JSONResponse({"code": failure.status, "msg": failure.message, "data": None}, failure.status)


def refused(*statuses: int) -> Refusals:
    """The error responses of these routes, for the OpenAPI document; see `dialect.refusals`."""
    words = {
        404: "no such model, or the server has no bases",
        408: "the files did not arrive in time",
        500: "a base cannot be read or written",
        501: "this server does not have it",
    }
    return refusals(Coded, *statuses, words=words)


def attacks(name: str) -> bool:
    """Whether the name of a base tries to reach another folder."""
    return "../" in name or "..\\" in name


async def work(service: Service, request: Request, call: Callable[[Shelf, str | None], _Result]) -> _Result:
    """Run `call(shelf, who)` in a thread; `who` is the caller's name."""
    return await asyncio.to_thread(partial(call, shelf_of(service), who_of(caller_of(request))))


async def find_base(service: Service, request: Request, name: str, role: Role = "read") -> Base | None:
    """A base; None: there is none of this name that the caller may read.

    Raises:
        ForbiddenError: the caller may read the base, but does not have the role.
    """
    shelf_of(service)
    try:
        return await work(service, request, lambda shelf, who: base_for(shelf, who, name, role))
    except (NotFoundError, InputError):
        return None


_STEEP = 4
"""Exponent of distances. Chatchat's clients send thresholds from .4 to 1. With exponent 4 and a threshold of .4, 99 %
of CMRC's questions find something in their own texts, and 27 % in other texts. With exponent 1, which is
2 * (1 - covered), 60 % would find something in other texts.
"""


def threshold_of(distance: float | None) -> float | None:
    """Convert Chatchat's threshold, a distance from 0 (the same) to 2 (anything), to the threshold of `search`."""
    return None if distance is None or distance >= 2 else 1 - (distance / 2) ** (1 / _STEEP)


def distance_of(hit: Hit) -> float:
    """The distance of a hit from the question, from 0 to 2, as Chatchat's vector stores give it."""
    return 2 * (1 - hit.parts.get("rerank", hit.parts.get("covered", 0.0))) ** _STEEP


def document(hit: Hit) -> dict[str, Any]:
    """A hit as a `Document` of Chatchat."""
    metadata = {"source": hit.file, "title": hit.title, "page": hit.page, "start": hit.start, "end": hit.end}
    return {
        "id": str(hit.piece),
        "page_content": hit.text,
        "metadata": metadata,
        "type": "Document",
        "score": distance_of(hit),
    }


def reference(request: Request, base: str, number: int, file: str, text: str) -> str:
    """An entry of `docs` in the form of 0.3, with the URL of the file."""
    query = urlencode({"knowledge_base_name": base, "file_name": file})
    url = f"{str(request.base_url).rstrip('/')}/knowledge_base/download_doc?{query}"
    return f"出处 [{number}] [{file}]({url}) \n\n{text}\n\n"


def source(passages: Sequence[Passage]) -> list[str]:
    """`source_documents` in the form of 0.1."""
    return [
        f"出处 [{each.n}] {PurePosixPath(each.file).name}：\n\n{each.text}\n\n相关度：{each.score:.2f}\n\n"
        for each in passages
    ]
