"""OpenAI's `/v1/containers`: the files of a dialogue's code interpreter.

A container is what `Kernels` calls a conversation. Only its folder is stored: the id of a file is a hash of the
container and the name of the file.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from chatglm.errors import InputError, NotFoundError
from chatglm.serving import bodies
from chatglm.serving.access.callers import Caller, caller_of
from chatglm.serving.dialect import refusals
from chatglm.serving.openai.listing import page_of
from chatglm.serving.openai.responses import ErrorResponse
from chatglm.serving.service import Service
from chatglm.serving.stored.uploads import FORM_BYTES, receive
from chatglm.tools.interpreter.folder import checked_name

__all__ = ["add_containers", "citation"]

_FOLDER = "/mnt/data/"
"""The path of the folder as the code sees it."""
_PIECE = 256 << 10
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary", "description": "with its name"}},
                    "additionalProperties": False,
                }
            }
        },
    }
}

_WORDS = {
    400: "a parameter is wrong",
    403: "the key may not use the interpreter",
    404: "the server has no interpreter, or there is no such container or file, or it belongs to another key",
    408: "the file did not arrive in time",
    413: "the file is too large",
    500: "the file cannot be stored",
    503: "the interpreter has been closed",
}
_REFUSALS = refusals(ErrorResponse, 400, 403, 404, 503, words=_WORDS)
_UPLOAD_REFUSALS = refusals(ErrorResponse, *_WORDS, words=_WORDS)


class _Container(BaseModel):
    id: str
    object: Literal["container"]
    name: str
    status: Literal["running", "idle"]


class _DeletedContainer(BaseModel):
    id: str
    object: Literal["container.deleted"]
    deleted: Literal[True]


class _File(BaseModel):
    id: str
    object: Literal["container.file"]
    container_id: str
    path: str
    bytes: int
    created_at: int
    source: Literal["assistant", "user"]


class _DeletedFile(BaseModel):
    id: str
    object: Literal["container.file.deleted"]
    deleted: Literal[True]


class _Files(BaseModel):
    object: Literal["list"]
    data: list[_File]
    first_id: str | None
    last_id: str | None
    has_more: bool


class _Download(StreamingResponse):
    """A file with its present size, in pieces. It is closed at the end.

    Code may write to it meanwhile. Added bytes are left out; if bytes are missing, the connection breaks off.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        size = os.fstat(file.fileno()).st_size
        headers = {
            "Content-Length": str(size),
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
            "X-Content-Type-Options": "nosniff",
        }
        super().__init__(_pieces(file, size), headers=headers, media_type="application/octet-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


async def _pieces(file: BinaryIO, left: int) -> AsyncIterator[bytes]:
    while left and (piece := await asyncio.to_thread(file.read, min(left, _PIECE))):
        left -= len(piece)
        yield piece


def _file_id(container: str, name: str) -> str:
    return f"cfile_{hashlib.sha256(f'{container}/{name}'.encode()).hexdigest()[:48]}"


def citation(container: str, name: str, text: str) -> dict[str, Any]:
    """The annotation of a text that names a file which the code has made, as OpenAI's clients read it.

    It marks the first place of the text that has the path or name of the file; otherwise it is empty and at the end.
    """
    last = name.rpartition("/")[2]
    for shown in (f"sandbox:{_FOLDER}{name}", f"{_FOLDER}{name}", name, last):
        if (start := text.find(shown)) >= 0:
            end = start + len(shown)
            break
    else:
        start = end = len(text)
    return {
        "type": "container_file_citation",
        "container_id": container,
        "file_id": _file_id(container, name),
        "filename": last,
        "start_index": start,
        "end_index": end,
    }


def add_containers(routes: APIRouter, service: Service) -> None:
    """Give OpenAI's router the routes of containers."""

    async def names_of(caller: Caller, container: str) -> dict[str, tuple[str, dict[str, Any]]]:
        """The files by their ids, the oldest first: their names, and what clients are shown.

        Raises:
            NotFoundError: the caller has no such container.
        """
        from chatglm.tools.interpreter.output import clean

        kernels, user = service.server_tools.interpreter(caller)
        marks = await kernels.marks(container, user=user)
        if marks is None:
            raise _unknown(container)
        uploaded = await kernels.uploaded(container, user=user)
        found: dict[str, tuple[str, dict[str, Any]]] = {}
        for name, mark in sorted(marks.items(), key=lambda named: (named[1].changed, named[0])):
            if clean(name) != name:  # it has bytes that no JSON can have, or control characters
                continue
            file_id = _file_id(container, name)
            shown = {
                "id": file_id,
                "object": "container.file",
                "container_id": container,
                "path": _FOLDER + name,
                "bytes": mark.size,
                "created_at": mark.changed // 1_000_000_000,
                "source": "user" if uploaded.get(name) == mark else "assistant",
            }
            found[file_id] = (name, shown)
        return found

    async def one_of(caller: Caller, container: str, file: str) -> tuple[str, dict[str, Any]]:
        found = (await names_of(caller, container)).get(file)
        if found is None:
            raise _no_file(container, file)
        return found

    @routes.get("/containers/{container_id}", response_model=_Container, responses=_REFUSALS)
    async def container(container_id: str, request: Request) -> dict[str, Any]:
        """The variables and files of a dialogue's interpreter: `running`, or `idle` if only the files are left."""
        kernels, user = service.server_tools.interpreter(caller_of(request))
        state = await kernels.state(container_id, user=user)
        if state is None:
            raise _unknown(container_id)
        return {"id": container_id, "object": "container", "name": "", "status": state}

    @routes.delete("/containers/{container_id}", response_model=_DeletedContainer, responses=_REFUSALS)
    async def delete(container_id: str, request: Request) -> dict[str, Any]:
        """End the code of a container, and delete its variables and files."""
        kernels, user = service.server_tools.interpreter(caller_of(request))
        if await kernels.state(container_id, user=user) is None:
            raise _unknown(container_id)
        await kernels.end(container_id, user=user)
        return {"id": container_id, "object": "container.deleted", "deleted": True}

    @routes.post(
        "/containers/{container_id}/files", response_model=_File, responses=_UPLOAD_REFUSALS, openapi_extra=_FORM
    )
    async def upload(container_id: str, request: Request) -> dict[str, Any]:
        """Store a file in a container; it replaces a file of the same name."""
        service.check_page(request.headers)
        caller = caller_of(request)
        kernels, user = service.server_tools.interpreter(caller)
        if await kernels.state(container_id, user=user) is None:
            raise _unknown(container_id)
        slow = service.files.limits
        bounds = dataclasses.replace(
            service.limits, body=kernels.limits.file + FORM_BYTES, seconds=slow.seconds, rate=slow.rate
        )
        with tempfile.TemporaryDirectory(prefix="chatglm-") as folder:
            path = Path(folder) / "upload"
            form = await receive(request, bodies.parts(request, bounds), path, check=checked_name)
            if form.fields:
                raise InputError(f"{next(iter(form.fields))[:80]}: unknown field of the form; send the file itself")
            name = form.name or ""
            with path.open("rb") as file:
                await kernels.put(container_id, name, _pieces(file, form.size), user=user)
        return (await one_of(caller, container_id, _file_id(container_id, name)))[1]

    @routes.get("/containers/{container_id}/files", response_model=_Files, responses=_REFUSALS)
    async def files(
        container_id: str,
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
        after: str | None = None,
    ) -> dict[str, Any]:
        """The files of a container, from code and clients, the last changed first."""
        found = [shown for _, shown in (await names_of(caller_of(request), container_id)).values()]
        return page_of(found, limit, order, after, "file of this container")

    @routes.get("/containers/{container_id}/files/{file_id}", response_model=_File, responses=_REFUSALS)
    async def file(container_id: str, file_id: str, request: Request) -> dict[str, Any]:
        """A file of a container, without its content."""
        return (await one_of(caller_of(request), container_id, file_id))[1]

    @routes.get(
        "/containers/{container_id}/files/{file_id}/content",
        response_class=Response,
        responses={200: {"content": {"application/octet-stream": {}}, "description": "the file"}, **_REFUSALS},
    )
    async def content(container_id: str, file_id: str, request: Request) -> Response:
        """The content of a file."""
        caller = caller_of(request)
        name, _ = await one_of(caller, container_id, file_id)
        kernels, user = service.server_tools.interpreter(caller)
        try:
            opened = await kernels.open(container_id, name, user=user)
        except InputError:  # the code has removed it meanwhile, or put something else in its place
            raise _no_file(container_id, file_id) from None
        return _Download(opened, name.rpartition("/")[2])

    @routes.delete("/containers/{container_id}/files/{file_id}", response_model=_DeletedFile, responses=_REFUSALS)
    async def delete_file(container_id: str, file_id: str, request: Request) -> dict[str, Any]:
        """Delete a file of a container."""
        caller = caller_of(request)
        name, _ = await one_of(caller, container_id, file_id)
        kernels, user = service.server_tools.interpreter(caller)
        try:
            await kernels.delete(container_id, name, user=user)
        except InputError:
            raise _no_file(container_id, file_id) from None
        return {"id": file_id, "object": "container.file.deleted", "deleted": True}


def _unknown(container: str) -> NotFoundError:
    return NotFoundError(f"Container with id {container!r:.100} not found.")


def _no_file(container: str, file: str) -> NotFoundError:
    return NotFoundError(f"File with id {file!r:.100} not found in container {container!r:.100}.")
