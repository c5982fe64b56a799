"""Documents over HTTP: `/v1/knowledge`, and chat completions that are answered from bases.

Who a request comes from is its API key. Whoever makes a base owns it; nobody else knows that it is there until it is
shared. Where the server needs no keys, everybody may do everything.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from chatglm.assistant import BaseAssistant, Finish, Options, TextDelta, Usage
from chatglm.chat.messages import Message
from chatglm.errors import InputError, NotFoundError, QueueFullError, UnsupportedError
from chatglm.knowledge import Base, Bases, CitationEvent, Done, Passage, Passages, Shelf, Upload
from chatglm.knowledge.base import permit
from chatglm.knowledge.store import File, Role
from chatglm.serving import bodies
from chatglm.serving.access.callers import Caller, caller_of
from chatglm.serving.bodies import BodyError
from chatglm.serving.dialect import Refusals, Strict
from chatglm.serving.failures import ForbiddenError
from chatglm.serving.service import Service
from chatglm.serving.stored.uploads import FORM_BYTES, receive

__all__ = ["PREFIX", "FromDocuments", "add_knowledge", "bases_of", "open_bases"]

PREFIX = "knowledge:"
"""Of a model's name that names bases: `knowledge:NAME+NAME`."""
_FILE_BYTES = 64 << 20
_BASE_BYTES = 4 << 30
"""Of all files of a base together."""
_FILES = 10_000
_BASES = 100
"""That one caller may read and still make another."""
_WAITING = 1000
"""Files of a base that are not read yet."""
_TEXT = 100_000
"""Characters of one answer."""
_LAST = 1 << 31
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "its name says how it is read"}
                    },
                    "additionalProperties": False,
                }
            }
        },
    }
}


class _NewBase(Strict):
    name: str = Field(max_length=64)
    about: str | None = Field(None, max_length=1000)


class _Search(Strict):
    question: str = Field(min_length=1, max_length=10_000)
    k: int = Field(5, ge=1, le=100)
    files: list[str] | None = Field(None, max_length=1000)
    knowledge: list[str] | None = Field(None, max_length=15, description="further bases, searched as one with this")


class _Knowledge(BaseModel):
    object: Literal["knowledge"]
    name: str
    about: str
    role: Role
    files: int
    pieces: int


class _AllKnowledge(BaseModel):
    object: Literal["list"]
    data: list[_Knowledge]


class _DeletedKnowledge(BaseModel):
    name: str
    object: Literal["knowledge"]
    deleted: Literal[True]


class _KnowledgeFile(BaseModel):
    name: str
    size: int
    media: str
    encoding: str | None
    state: Literal["queued", "reading", "indexing", "ready", "failed"]
    error: str
    pieces: int
    done: int
    total: int
    added: float
    warnings: list[str]


class _KnowledgeFiles(BaseModel):
    object: Literal["list"]
    data: list[_KnowledgeFile]


class _DeletedFile(BaseModel):
    file: str
    deleted: Literal[True]


class _Text(BaseModel):
    file: str
    start: int
    end: int
    text: str


class _Hit(BaseModel):
    base: str
    file: str
    piece: int
    start: int
    end: int
    score: float
    parts: dict[str, float]
    title: str
    page: int | None
    text: str
    edited: bool


class _Hits(BaseModel):
    hits: list[_Hit]
    warnings: list[str]


def shelf_of(service: Service) -> Shelf:
    """
    Raises:
        NotFoundError: the server was started without bases.
    """
    if service.shelf is None:
        raise NotFoundError("this server has no knowledge bases; start it with `chatglm serve --knowledge`")
    return service.shelf


def _who(caller: Caller) -> str | None:
    return caller.owner or None


def open_bases(service: Service, caller: Caller, names: Sequence[str]) -> Bases:
    """
    Raises:
        NotFoundError: there is no such base, or the caller may not read it.
    """
    return shelf_of(service).bases(names, _who(caller))


def bases_of(model: str | None, knowledge: Sequence[str] | None) -> tuple[list[str], str | None]:
    """The bases that a request names, and the model that is left.

    Raises:
        InputError: it names them twice, or none.
    """
    if model is None or not model.startswith(PREFIX):
        return list(knowledge or ()), model
    if knowledge:
        raise InputError("knowledge: the model's name has the bases already; leave one of them out")
    names = model.removeprefix(PREFIX).split("+")
    if not all(names):
        raise InputError(f"model: {model!r:.80} names no base; expected {PREFIX}NAME or {PREFIX}NAME+NAME")
    return names, None


@dataclass
class FromDocuments:
    """A chat completion from documents: its deltas, and beside them what an answer from documents has besides."""

    bases: Bases
    passages: tuple[Passage, ...] = ()
    cited: list[dict[str, Any]] = field(default_factory=list)
    done: Done | None = None

    async def deltas(
        self, assistant: BaseAssistant, messages: Sequence[Message], options: Options
    ) -> AsyncGenerator[TextDelta | Finish]:
        """The answer's text as it comes, and how it ended.

        Raises:
            InputError, UnsupportedError: the last message is no question, or an option has no place here.
        """
        *history, last = messages
        if last.role != "user":
            raise InputError("messages: the last one must be the user's question, to be answered from documents")
        for name in ("tools", "response_format"):
            if options.get(name):
                raise UnsupportedError(f"{name}: answers from documents have no place for it; leave it out")
        async with aclosing(self.bases.aask(assistant, last.content, history=history, options=options)) as events:
            async for event in events:
                if isinstance(event, Passages):
                    self.passages = event.passages
                elif isinstance(event, CitationEvent):
                    self.cited.append(event.citation.to_dict())
                elif isinstance(event, TextDelta):
                    yield event
                elif isinstance(event, Done):
                    self.done = event
                    yield replace(event.finish or Finish("stop", Usage(0, 0)), choice=0)

    def shown(self) -> list[dict[str, Any]]:
        """The passages that the model was given."""
        return [
            {
                "n": each.n,
                "base": each.base,
                "file": each.file,
                "start": each.start,
                "end": each.end,
                "title": each.header,
                "page": each.page,
                "text": each.text,
            }
            for each in self.passages
        ]

    def whole(self) -> dict[str, Any]:
        """What a message has besides its text."""
        assert self.done is not None
        return {"citations": [each.to_dict() for each in self.done.citations], "answered": self.done.answered}


def add_knowledge(routes: APIRouter, service: Service, refused: Callable[..., Refusals]) -> None:
    """Add `/knowledge…`.

    Args:
        refused: `refusals` of the dialect.
    """
    words = {
        404: "there is no such base or file, or the caller may not read it, or the server has no bases",
        408: "the file did not arrive in time",
        413: "the file is too large, or too much is stored",
        429: "too many files wait to be read",
        500: "a base cannot be read or written",
    }
    refusals = refused(400, 404, 500, words=words)
    more_refusals = refused(400, 404, 408, 413, 429, 500, words=words)

    async def work(request: Request, call: Any, *arguments: Any, **named: Any) -> Any:
        """Call a method of the shelf's in somebody's name, in a thread."""
        return await asyncio.to_thread(partial(call, shelf_of(service), _who(caller_of(request)), *arguments, **named))

    @routes.get("/knowledge", response_model=_AllKnowledge, responses=refusals)
    async def list_bases(request: Request) -> dict[str, Any]:
        """The bases that the caller may read."""

        def listed(shelf: Shelf, who: str | None) -> list[dict[str, Any]]:
            return [_shown(shelf.base(name, who), who) for name in shelf.names(who)]

        return {"object": "list", "data": await work(request, listed)}

    @routes.post("/knowledge", status_code=201, response_model=_Knowledge, responses=more_refusals)
    async def make(body: _NewBase, request: Request) -> dict[str, Any]:
        """A new base, which is the caller's own."""

        def made(shelf: Shelf, who: str | None) -> dict[str, Any]:
            if len(shelf.names(who)) >= _BASES:
                raise BodyError(f"name: there are {_BASES} bases that you may read; delete one", "too_large", 413)
            base = shelf.make(body.name, who)
            base.configure(about=body.about)
            return _shown(base, who)

        return dict(await work(request, made))

    @routes.delete("/knowledge/{name}", response_model=_DeletedKnowledge, responses=refusals)
    async def delete(name: str, request: Request) -> dict[str, Any]:
        """Delete a base with all its files; for its owners."""

        def deleted(shelf: Shelf, who: str | None) -> None:
            _base(shelf, who, name, "own")
            shelf.delete(name, who)

        await work(request, deleted)
        return {"name": name, "object": "knowledge", "deleted": True}

    @routes.get("/knowledge/{name}/files", response_model=_KnowledgeFiles, responses=refusals)
    async def files(name: str, request: Request) -> dict[str, Any]:
        """The files of a base, and how far each is."""
        found = await work(request, lambda shelf, who: shelf.base(name, who).files())
        return {"object": "list", "data": [_file(file) for file in found]}

    @routes.post(
        "/knowledge/{name}/files",
        status_code=202,
        response_model=_KnowledgeFile,
        responses=more_refusals,
        openapi_extra=_FORM,
    )
    async def upload(name: str, request: Request) -> dict[str, Any]:
        """Add a file, or a new state of one, sent as a form (`file`); it is read in the background."""
        base: Base = await work(request, _base, name, "write")
        slow = service.files.limits
        limits = replace(service.limits, body=_FILE_BYTES + FORM_BYTES, seconds=slow.seconds, rate=slow.rate)
        with tempfile.TemporaryDirectory(prefix="chatglm-") as folder:
            path = Path(folder) / "file"
            form = await receive(request, bodies.parts(request, limits), path)
            if form.fields:
                raise InputError(f"{next(iter(form.fields))[:80]}: unknown field of the form; send the file itself")
            file = _name(form.name or "")

            def added() -> File:
                files = [each for each in base.files() if each.name != file]
                if len(files) >= _FILES or sum(each.size for each in files) + form.size > _BASE_BYTES:
                    most = f"{_FILES:,} files and {_BASE_BYTES:,} bytes"
                    raise BodyError(f"file: a base has {most} at most; remove some", "too_large", 413)
                if sum(each.state not in ("ready", "failed") for each in files) >= _WAITING:
                    raise QueueFullError(f"{_WAITING:,} files of the base wait to be read; send this one later")
                base.add(Upload(file, path.read_bytes()), wait=False)
                return base.store.find(file)

            return _file(await asyncio.to_thread(added))

    @routes.delete("/knowledge/{name}/files/{file:path}", response_model=_DeletedFile, responses=refusals)
    async def remove(name: str, file: str, request: Request) -> dict[str, Any]:
        """Take a file out of a base."""
        base: Base = await work(request, _base, name, "write")
        if not await asyncio.to_thread(base.remove, file):
            raise NotFoundError(f"file {file!r:.200}: the base has no such file")
        return {"file": file, "deleted": True}

    @routes.get("/knowledge/{name}/files/{file:path}/text", response_model=_Text, responses=refusals)
    async def text(
        name: str,
        file: str,
        request: Request,
        start: Annotated[int, Query(ge=0, le=_LAST)] = 0,
        end: Annotated[int | None, Query(ge=0, le=_LAST)] = None,
    ) -> dict[str, Any]:
        """Characters of a file's text, as citations count them; 100,000 at most."""
        base: Base = await work(request, _base, name, "read")
        last = start + _TEXT if end is None else min(end, start + _TEXT)
        found = await asyncio.to_thread(base.text, file, start, last)
        return {"file": file, "start": start, "end": start + len(found), "text": found}

    @routes.post("/knowledge/{name}/search", response_model=_Hits, responses=refusals)
    async def search(name: str, body: _Search, request: Request) -> dict[str, Any]:
        """The pieces that answer a question best."""

        def found(shelf: Shelf, who: str | None) -> dict[str, Any]:
            names = list(dict.fromkeys([name, *(body.knowledge or ())]))
            hits = shelf.bases(names, who).search(body.question, k=body.k, files=body.files or ())
            rows = [{**vars(hit), "parts": dict(hit.parts)} for hit in hits]
            return {"hits": rows, "warnings": list(hits.warnings)}

        return dict(await work(request, found))


def _base(shelf: Shelf, who: str | None, name: str, role: Role) -> Base:
    """
    Raises:
        NotFoundError: there is no such base, or the caller may not read it.
        ForbiddenError: the caller may read it, but not do what needs this role.
    """
    base = shelf.base(name, who)
    try:
        permit(base, who, role)
    except NotFoundError:
        raise
    except InputError as error:
        raise ForbiddenError(str(error)) from None
    return base


def _shown(base: Base, who: str | None) -> dict[str, Any]:
    files = base.files()
    return {
        "object": "knowledge",
        "name": base.name,
        "about": base.setting("about"),
        "role": base.store.role(who),
        "files": len(files),
        "pieces": sum(file.pieces for file in files),
    }


def _file(file: File) -> dict[str, Any]:
    fields = ("name", "size", "media", "encoding", "state", "error", "pieces", "done", "total", "added")
    return {**{name: getattr(file, name) for name in fields}, "warnings": list(file.warnings)}


def _name(given: str) -> str:
    """
    Raises:
        InputError: no file of a base can have this name.
    """
    parts = PurePosixPath(given.replace("\\", "/")).parts
    if not parts or len(given) > 200 or not given.isprintable() or parts[0] == "/" or ".." in parts:
        raise InputError(f"file: {given!r:.80} is no name of a file; at most 200 printable characters, and no ..")
    return "/".join(parts)
