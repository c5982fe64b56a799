"""`/v1/knowledge`: bases of the callers, their files and pieces, search, answers, and who may read them.

The API key identifies the caller. If the server needs no keys, everybody may do everything.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as InPath
from fastapi.responses import JSONResponse
from starlette.responses import StreamingResponse

from chatglm.assistant import Options
from chatglm.chat.messages import Message
from chatglm.errors import InputError, NotFoundError, QueueFullError
from chatglm.knowledge import Base, Shelf, bounds
from chatglm.knowledge.store import Role
from chatglm.serving.access.callers import caller_of
from chatglm.serving.dialect import EventStream, Refusals, first_of, telling, whole_of
from chatglm.serving.knowledge import filing
from chatglm.serving.knowledge.answers import FromDocuments
from chatglm.serving.knowledge.shelves import base_for, open_bases, shelf_of, who_of
from chatglm.serving.knowledge.summaries import OfFiles
from chatglm.serving.openai.knowledge_api import bodies
from chatglm.serving.openai.knowledge_api.bodies import file_shown, knowledge_shown, piece_shown
from chatglm.serving.openai.knowledge_api.events import (
    answer_events,
    answer_of,
    broken_off,
    progress_events,
    summary_events,
    summary_of,
)
from chatglm.serving.service import Service

__all__ = ["add_knowledge"]

_TEXT = 100_000
"""Most characters of one response."""
_PIECES = 500
_LAST = 1 << 31
_FOLLOWING = 100
"""Most streams of progress at a time."""
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                            "description": "one or several files; the ending of the name says how a file is read",
                        }
                    },
                    "additionalProperties": False,
                }
            }
        },
    }
}
_STREAM: dict[str, Any] = {"content": {"text/event-stream": {}}}
_CONTENT: dict[str, Any] = {"content": {"application/octet-stream": {}}}
_Number = Annotated[int, InPath(ge=1, le=_LAST)]


def add_knowledge(routes: APIRouter, service: Service, refused: Callable[..., Refusals]) -> None:
    """Add `/knowledge…`.

    Args:
        refused: `refusals` of the dialect.
    """
    words = {
        404: "there is no such base, file or piece, or the caller may not read it, or the server has no bases",
        408: "the file did not arrive in time",
        413: "the file is too large, or too much is stored",
        429: "too many files wait to be read, or too many clients follow",
        500: "a base cannot be read or written",
    }
    refusals = refused(400, 404, 500, words=words)
    more_refusals = refused(400, 404, 408, 413, 429, 500, words=words)
    answer_refusals = refused(400, 404, 429, 500, 502, 503)
    following = 0

    async def work(request: Request, call: Any, *arguments: Any, **named: Any) -> Any:
        """Call a method of the shelf for a caller, in a thread."""
        return await asyncio.to_thread(
            partial(call, shelf_of(service), who_of(caller_of(request)), *arguments, **named)
        )

    @routes.get("/knowledge", response_model=bodies.AllKnowledge, responses=refusals)
    async def list_bases(request: Request) -> dict[str, Any]:
        """The bases that the caller may read."""

        def listed(shelf: Shelf, who: str | None) -> list[dict[str, Any]]:
            return [knowledge_shown(name, seen, who) for name, seen in shelf.listed(who).items()]

        return {"object": "list", "data": await work(request, listed)}

    @routes.post("/knowledge", status_code=201, response_model=bodies.OneKnowledge, responses=more_refusals)
    async def make(body: bodies.NewBase, request: Request) -> dict[str, Any]:
        """A new base, which is the caller's own."""

        def made(shelf: Shelf, who: str | None) -> dict[str, Any]:
            base = shelf.make(body.name, who)
            base.configure(about=body.about)
            return _shown(base, who)

        return dict(await work(request, made))

    @routes.get("/knowledge/{name}", response_model=bodies.OneKnowledge, responses=refusals)
    async def retrieve(name: str, request: Request) -> dict[str, Any]:
        """A base and its settings."""
        return dict(await work(request, lambda shelf, who: _shown(base_for(shelf, who, name, "read"), who)))

    @routes.patch("/knowledge/{name}", response_model=bodies.OneKnowledge, responses=refusals)
    async def change(name: str, body: bodies.Change, request: Request) -> dict[str, Any]:
        """Change settings of a base, or its name; for its owners. Settings that are left out stay."""

        def changed(shelf: Shelf, who: str | None) -> dict[str, Any]:
            base = base_for(shelf, who, name, "own")
            new = name if body.name is None else body.name
            if new != name:
                shelf.check_free(new)  # before anything is changed
            given = {"about": body.about, "prompt": body.prompt}
            settings = {key: value or None for key, value in given.items() if value is not None}
            if body.strict is not None:
                settings["strict"] = None if body.strict else "mixed"
            base.configure(**settings)
            if new != name:
                shelf.rename(name, new, who)
            return _shown(base_for(shelf, who, new, "own"), who)

        return dict(await work(request, changed))

    @routes.delete("/knowledge/{name}", response_model=bodies.DeletedKnowledge, responses=refusals)
    async def delete(name: str, request: Request) -> dict[str, Any]:
        """Delete a base with all its files; for its owners."""

        def deleted(shelf: Shelf, who: str | None) -> None:
            base_for(shelf, who, name, "own")
            shelf.delete(name, who)

        await work(request, deleted)
        return {"name": name, "object": "knowledge", "deleted": True}

    # Files

    @routes.get("/knowledge/{name}/files", response_model=bodies.Files, responses=refusals)
    async def files(name: str, request: Request) -> dict[str, Any]:
        """The files of a base, with their progress."""
        found = await work(request, lambda shelf, who: shelf.base(name, who).files())
        return {"object": "list", "data": [file_shown(file) for file in found]}

    @routes.post(
        "/knowledge/{name}/files",
        status_code=202,
        response_model=bodies.Files,
        responses=more_refusals,
        openapi_extra=_FORM,
    )
    async def upload(name: str, request: Request) -> dict[str, Any]:
        """Add files, or new states of them, sent as a form (`file`, once or several times, 64 MiB in all); they are
        read in the background."""
        base: Base = await work(request, base_for, name, "write")
        with tempfile.TemporaryDirectory(prefix="chatglm-") as folder:
            form = await filing.form_of(request, service, Path(folder), "file")
            added = await asyncio.to_thread(lambda: filing.add_files(shelf_of(service), base, filing.contents_of(form)))
        return {"object": "list", "data": [file_shown(file) for file in added]}

    @routes.delete("/knowledge/{name}/files/{file:path}", response_model=bodies.DeletedFile, responses=refusals)
    async def remove(name: str, file: str, request: Request) -> dict[str, Any]:
        """Remove a file from a base."""
        base: Base = await work(request, base_for, name, "write")
        if not await asyncio.to_thread(base.remove, file, wait=False):
            raise NotFoundError(f"file {file!r:.200}: the base has no such file")
        return {"file": file, "deleted": True}

    @routes.get("/knowledge/{name}/files/{file:path}/text", response_model=bodies.Text, responses=refusals)
    async def text(
        name: str,
        file: str,
        request: Request,
        start: Annotated[int, Query(ge=0, le=_LAST)] = 0,
        end: Annotated[int | None, Query(ge=0, le=_LAST)] = None,
    ) -> dict[str, Any]:
        """Characters of a file's text, as citations count them; 100,000 at most."""
        base: Base = await work(request, base_for, name, "read")
        last = start + _TEXT if end is None else min(end, start + _TEXT)
        found = await asyncio.to_thread(base.text, file, start, last)
        return {"file": file, "start": start, "end": start + len(found), "text": found}

    @routes.get(
        "/knowledge/{name}/files/{file:path}/content",
        response_class=Response,
        responses={**refusals, 200: _CONTENT},
    )
    async def content(name: str, file: str, request: Request) -> Response:
        """The file itself, as it was added; 64 MiB at most."""
        base: Base = await work(request, base_for, name, "read")
        return filing.attachment(file, await asyncio.to_thread(base.store.content, file, bounds.UPLOAD_BYTES))

    @routes.get("/knowledge/{name}/files/{file:path}/pieces", response_model=bodies.Pieces, responses=refusals)
    async def pieces(
        name: str,
        file: str,
        request: Request,
        limit: Annotated[int, Query(ge=1, le=_PIECES)] = 100,
        after: Annotated[int, Query(ge=-1, le=_LAST)] = -1,
    ) -> dict[str, Any]:
        """The pieces of a file in their order, including disabled ones; `after`: number (`n`) of the last piece of the
        previous page."""
        base: Base = await work(request, base_for, name, "read")
        found = await asyncio.to_thread(base.store.pieces, file, after + 1, limit + 1)
        return {
            "object": "list",
            "data": [piece_shown(piece) for piece in found[:limit]],
            "has_more": len(found) > limit,
        }

    # Pieces

    @routes.get("/knowledge/{name}/pieces/{piece}", response_model=bodies.Piece, responses=refusals)
    async def piece(name: str, piece: _Number, request: Request) -> dict[str, Any]:
        """One piece."""
        base: Base = await work(request, base_for, name, "read")
        return piece_shown(await asyncio.to_thread(base.store.piece_by_id, piece))

    @routes.patch("/knowledge/{name}/pieces/{piece}", response_model=bodies.Piece, responses=refusals)
    async def edit(name: str, piece: _Number, body: bodies.PieceChange, request: Request) -> dict[str, Any]:
        """Change the text of a piece for search and answers, disable it, or restore the text of the file. The file
        itself does not change."""
        base: Base = await work(request, base_for, name, "write")

        def edited() -> dict[str, Any]:
            if (body.text is None) == (body.disabled is None):
                raise InputError("text: give either text or disabled, not both")
            known = base.store.piece_by_id(piece)
            said = body.text
            if body.disabled is False:
                said = base.text(known.file, known.start, known.end)
            base.edit(piece, said)
            return piece_shown(base.store.piece_by_id(piece))

        return await asyncio.to_thread(edited)

    # How far files are

    @routes.get(
        "/knowledge/{name}/events",
        response_class=StreamingResponse,
        responses={**refused(400, 404, 429, 500, words=words), 200: _STREAM},
    )
    async def events(name: str, request: Request, follow: bool = False) -> Response:
        """Progress of the files that are being indexed: events `file`, each with a file as `…/files` lists it, and
        finally `done`. With `follow` the stream continues when nothing is left to do."""
        await work(request, base_for, name, "read")
        if following >= _FOLLOWING:
            raise QueueFullError(
                f"{_FOLLOWING} clients follow the progress of bases, which is the limit; try again later"
            )

        async def told() -> AsyncGenerator[str]:
            nonlocal following
            following += 1
            try:
                async for one in progress_events(lambda: work(request, base_for, name, "read"), follow):
                    yield one
            finally:
                following -= 1

        return EventStream(telling(request, told(), broken_off))

    # Search and answers

    @routes.post("/knowledge/{name}/search", response_model=bodies.Hits, responses=refusals)
    async def search(name: str, body: bodies.Search, request: Request) -> dict[str, Any]:
        """The pieces that answer a question best."""

        def found(shelf: Shelf, who: str | None) -> dict[str, Any]:
            names = list(dict.fromkeys([name, *(body.knowledge or ())]))
            hits = shelf.bases(names, who).search(body.question, k=body.k, files=body.files or ())
            rows = [{**vars(hit), "parts": dict(hit.parts)} for hit in hits]
            return {"hits": rows, "warnings": list(hits.warnings)}

        return dict(await work(request, found))

    @routes.post("/knowledge/{name}/ask", response_model=bodies.Answer, responses={**answer_refusals, 200: _STREAM})
    async def ask(name: str, body: bodies.Ask, request: Request) -> Response:
        """An answer from a base, with its passages and citations. Streamed: events `passages`, `text`, `citation`, and
        finally `done`, which has everything that the answer has without `stream`."""
        caller = caller_of(request)
        names = list(dict.fromkeys([name, *(body.knowledge or ())]))
        documents = FromDocuments(await asyncio.to_thread(open_bases, service, caller, names))
        history = [Message(said.role, said.content) for said in body.history or ()]
        messages = [*history, Message("user", body.question)]
        served = None if body.extract else await service.find(body.model, caller)
        options: Options = {}
        if served is not None:
            options = {"params": body.params(), "adapter": served.adapter, "client": caller.client}
        said = documents.deltas(None if served is None else served.assistant, messages, options, **body.how())
        if served is not None:
            said = service.watch(served, caller, said)
        model = None if served is None else served.name
        if body.stream:
            begun = await first_of(request, said)
            told = answer_events(documents, begun, model, bool(body.show_prompt))
            return EventStream(telling(request, told, broken_off))
        (answer,) = await whole_of(request, said)
        return JSONResponse(answer_of(documents, answer.finish, model, bool(body.show_prompt)))

    @routes.post(
        "/knowledge/{name}/summarise",
        response_model=bodies.SummaryAnswer,
        responses={**answer_refusals, 200: _STREAM},
    )
    async def summarise(name: str, body: bodies.Summarise, request: Request) -> Response:
        """A summary of files of any length. Streamed: events `progress`, `text` of the last summary, `citation`, and
        finally `done`. The same request continues a summary that was broken off."""
        caller = caller_of(request)
        base: Base = await work(request, base_for, name, "read")
        served = await service.find(body.model, caller)
        options: Options = {"params": body.params(), "adapter": served.adapter, "client": caller.client}
        made = OfFiles(base, body.files or ())
        how = {**body.how(), "model": served.name, "options": options}
        said = service.watch(served, caller, made.deltas(served.assistant, **how))
        if body.stream:
            told = summary_events(made, await first_of(request, said), served.name)
            return EventStream(telling(request, told, broken_off), silent=True)
        (answer,) = await whole_of(request, said)
        return JSONResponse(summary_of(made, answer.finish, served.name))

    # Who may do what

    @routes.get("/knowledge/{name}/access", response_model=bodies.Access, responses=refusals)
    async def access(name: str, request: Request) -> dict[str, Any]:
        """Who may read, write or own a base; for its owners. `*` is everyone."""
        base: Base = await work(request, base_for, name, "own")
        return _access(await asyncio.to_thread(base.store.roles))

    @routes.put("/knowledge/{name}/access/{who}", response_model=bodies.Access, responses=refusals)
    async def share(name: str, who: str, body: bodies.RoleChange, request: Request) -> dict[str, Any]:
        """Let somebody read, write or own a base: the id of an API key, a user of the page, or `*`."""
        base: Base = await work(request, base_for, name, "own")
        return _access(await asyncio.to_thread(_shared, base, who, body.role))

    @routes.delete("/knowledge/{name}/access/{who}", response_model=bodies.Access, responses=refusals)
    async def unshare(name: str, who: str, request: Request) -> dict[str, Any]:
        """Take all rights to a base from somebody. The last owner cannot be removed."""
        base: Base = await work(request, base_for, name, "own")
        return _access(await asyncio.to_thread(_shared, base, who, None))


def _shown(base: Base, who: str | None) -> dict[str, Any]:
    files = base.files()
    return {
        "object": "knowledge",
        "name": base.name,
        "about": base.setting("about"),
        "role": base.store.role(who),
        "files": len(files),
        "pieces": sum(file.pieces for file in files),
        "settings": {
            "prompt": base.setting("prompt"),
            "strict": base.setting("strict") not in ("no", "mixed", "0"),
            "embedder": base.setting("embedder"),
            "reranker": base.setting("reranker"),
        },
        "trouble": base.trouble,
    }


def _access(roles: dict[str, Role]) -> dict[str, Any]:
    return {"object": "list", "data": [{"who": who, "role": role} for who, role in roles.items()]}


def _shared(base: Base, who: str, role: Role | None) -> dict[str, Role]:
    """
    Raises:
        InputError: the base would have no owner.
    """
    roles = base.store.roles()
    if role != "own" and roles.get(who) == "own" and list(roles.values()).count("own") == 1:
        raise InputError(
            f"who: {who!r:.80} is the base's only owner; make somebody else an owner first, or delete the base"
        )
    base.store.share(who, role)
    return base.store.roles()
