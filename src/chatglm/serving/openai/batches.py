"""OpenAI's `/v1/files` and `/v1/batches`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel, BeforeValidator, Field

from chatglm.serving import bodies
from chatglm.serving.access.callers import caller_of
from chatglm.serving.dialect import Refusals, Strict, refusals
from chatglm.serving.fields import wrong
from chatglm.serving.openai.responses import ErrorResponse
from chatglm.serving.service import Service
from chatglm.serving.stored.batches import Batch
from chatglm.serving.stored.files import PURPOSES, StoredFile
from chatglm.serving.stored.uploads import FORM_BYTES

__all__ = ["BatchBody", "BatchResponse", "add_batches", "add_begun_batches", "add_files", "refused_by", "shown"]

Refused = Callable[..., Refusals]

_FILE = "the content of the file; with purpose `batch`: JSON lines, one request in each"
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": _FILE},
                        "purpose": {
                            "type": "string",
                            "enum": list(PURPOSES),
                            "description": "what the file is for, such as `batch`",
                        },
                        "expires_after[anchor]": {"const": "created_at"},
                        "expires_after[seconds]": {
                            "type": "integer",
                            "minimum": 3600,
                            "maximum": 2592000,
                            "description": "default: 30 days with purpose `batch`, else never",
                        },
                    },
                    "additionalProperties": False,
                }
            }
        },
    }
}


def refused_by(model: type[BaseModel]) -> Refused:
    """`refusals` of a dialect's routes for files and batches.

    Args:
        model: the shape of the dialect's errors.
    """
    words = {
        400: "a field is wrong, or not supported",
        404: "it does not exist, has expired, or belongs to another key",
        408: "the file did not arrive in time",
        413: "the file is too large, or too much is stored",
        429: "too many batches are unfinished",
        500: "nothing can be stored",
    }
    return partial(refusals, model, words=words)


def _window(value: Any) -> Any:
    found = re.fullmatch(r"([1-9][0-9]{0,2})([hd])", value) if isinstance(value, str) else None
    if found is None or not 1 <= int(found[1]) * (24 if found[2] == "d" else 1) <= 720:
        raise wrong('must be a time from "1h" to "30d", such as "24h"')
    return value


class _ExpiresAfter(Strict):
    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=2592000)


_Window = Annotated[
    str,
    BeforeValidator(_window),
    Field(description="lines that are not answered in this time fail", json_schema_extra={"pattern": "^[1-9]h$"}),
]


class BatchBody(Strict):
    """Fields of a new batch in every dialect, besides the endpoint."""

    input_file_id: str = Field(description="a file of JSON lines, uploaded with purpose `batch`")
    completion_window: _Window = "24h"
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
        ]
        | None
    ) = None

    def seconds(self) -> float:
        """The completion window."""
        return int(self.completion_window[:-1]) * (86400.0 if self.completion_window[-1] == "d" else 3600.0)


class BatchRequest(BatchBody):
    endpoint: Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]
    completion_window: _Window
    output_expires_after: _ExpiresAfter | None = Field(None, description="default: 30 days")


class _FileResponse(BaseModel):
    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"]


class _FilesResponse(BaseModel):
    object: Literal["list"]
    data: list[_FileResponse]
    first_id: str | None
    last_id: str | None
    has_more: bool


class _DeletedResponse(BaseModel):
    id: str
    object: Literal["file"]
    deleted: Literal[True]


class _BatchError(BaseModel):
    code: str
    message: str
    param: str | None
    line: int | None


class _BatchErrors(BaseModel):
    object: Literal["list"]
    data: list[_BatchError]


class _Counts(BaseModel):
    total: int
    completed: int
    failed: int


class BatchResponse(BaseModel):
    id: str
    object: Literal["batch"]
    endpoint: str
    model: str
    errors: _BatchErrors | None
    input_file_id: str
    completion_window: str
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: _Counts
    metadata: dict[str, str] | None


class _BatchesResponse(BaseModel):
    object: Literal["list"]
    data: list[BatchResponse]
    first_id: str | None
    last_id: str | None
    has_more: bool


def _file(stored: StoredFile) -> dict[str, Any]:
    return {
        "id": stored.id,
        "object": "file",
        "bytes": stored.bytes,
        "created_at": int(stored.created),
        "expires_at": _whole(stored.expires),
        "filename": stored.name,
        "purpose": stored.purpose,
        "status": "processed",
    }


def shown(batch: Batch) -> dict[str, Any]:
    ended = {
        f"{state}_at": _whole(batch.finished) if batch.state == state else None
        for state in ("completed", "failed", "expired", "cancelled")
    }
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": {"object": "list", "data": batch.errors} if batch.errors else None,
        "input_file_id": batch.input,
        "completion_window": batch.window,
        "status": batch.state,
        "output_file_id": batch.output,
        "error_file_id": batch.error_output,
        "created_at": int(batch.created),
        "in_progress_at": _whole(batch.begun),
        "expires_at": int(batch.expires),
        "finalizing_at": _whole(batch.finalizing),
        "cancelling_at": _whole(batch.cancelling),
        **ended,
        "request_counts": {"total": batch.total, "completed": batch.done, "failed": batch.failed},
        "metadata": batch.metadata,
    }


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)


def _list(data: list[dict[str, Any]], more: bool) -> dict[str, Any]:
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, **ends, "has_more": more}


def add_batches(routes: APIRouter, service: Service) -> None:
    """Give OpenAI's router the routes of files and batches."""
    refused = refused_by(ErrorResponse)
    add_files(routes, service, refused)

    @routes.post("/batches", response_model=BatchResponse, responses=refused(400, 404, 429, 500))
    async def create(body: BatchRequest, request: Request) -> dict[str, Any]:
        """Answer all requests of a file."""
        keep = body.output_expires_after
        batch = await service.batches.create(
            caller_of(request),
            "openai",
            body.endpoint,
            body.endpoint,
            body.input_file_id,
            window=body.completion_window,
            seconds=body.seconds(),
            metadata=body.metadata,
            keep=None if keep is None else float(keep.seconds),
        )
        return shown(batch)

    add_begun_batches(routes, service, "openai", refused)


def add_files(routes: APIRouter, service: Service, refused: Refused) -> None:
    """Give a dialect's router the routes of files."""

    @routes.post("/files", response_model=_FileResponse, responses=refused(400, 408, 413, 500), openapi_extra=_FORM)
    async def upload(request: Request) -> dict[str, Any]:
        """Store a file."""
        service.check_page(request.headers)
        limits = service.files.limits
        bounds = dataclasses.replace(
            service.limits, body=limits.bytes + FORM_BYTES, seconds=limits.seconds, rate=limits.rate
        )
        return _file(await service.files.create(caller_of(request), request, bodies.parts(request, bounds)))

    @routes.get("/files", response_model=_FilesResponse, responses=refused(400, 404, 500))
    async def files(
        request: Request,
        purpose: str | None = None,
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=10000)] = 10000,
        order: Literal["asc", "desc"] = "desc",
    ) -> dict[str, Any]:
        """The stored files."""
        found, more = await service.files.page(
            caller_of(request), purpose=purpose, after=after, limit=limit, newest=order == "desc"
        )
        return _list([_file(stored) for stored in found], more)

    @routes.get("/files/{file_id}", response_model=_FileResponse, responses=refused(404, 500))
    async def file(file_id: str, request: Request) -> dict[str, Any]:
        """A stored file, without its content."""
        return _file(await service.files.get(caller_of(request), file_id))

    @routes.get(
        "/files/{file_id}/content",
        response_class=FileResponse,
        responses={
            200: {"content": {"application/octet-stream": {}}, "description": "as it was uploaded"},
            **refused(404, 500),
        },
    )
    async def content(file_id: str, request: Request) -> FileResponse:
        """The content of a file."""
        place = await service.files.content(caller_of(request), file_id)
        return FileResponse(place, media_type="application/octet-stream", headers={"X-Content-Type-Options": "nosniff"})

    @routes.delete("/files/{file_id}", response_model=_DeletedResponse, responses=refused(400, 404, 500))
    async def delete(file_id: str, request: Request) -> dict[str, Any]:
        """Delete a file."""
        await service.files.delete(caller_of(request), file_id)
        return {"id": file_id, "object": "file", "deleted": True}


def add_begun_batches(routes: APIRouter, service: Service, dialect: str, refused: Refused) -> None:
    """Give a dialect's router the routes of its batches, except that which begins one."""

    @routes.get("/batches", response_model=_BatchesResponse, responses=refused(400, 404, 500))
    async def batches(
        request: Request, after: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
    ) -> dict[str, Any]:
        """The batches, the newest first."""
        found, more = await service.batches.page(caller_of(request), dialect, after=after, limit=limit)
        return _list([shown(batch) for batch in found], more)

    @routes.get("/batches/{batch_id}", response_model=BatchResponse, responses=refused(404, 500))
    async def batch(batch_id: str, request: Request) -> dict[str, Any]:
        """A batch and its progress."""
        return shown(await service.batches.get(caller_of(request), dialect, batch_id))

    @routes.post("/batches/{batch_id}/cancel", response_model=BatchResponse, responses=refused(400, 404, 500))
    async def cancel(batch_id: str, request: Request) -> dict[str, Any]:
        """Cancel a batch: no further line of it is run. Lines that are answered are in its output."""
        return shown(await service.batches.cancel(caller_of(request), dialect, batch_id))
