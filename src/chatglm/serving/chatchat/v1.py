"""langchain-ChatGLM 0.1, as its `api.py` answered: `/local_doc_qa/…`, `/chat`, and a WebSocket.

A base is made by the first file that is uploaded to it. Answers use exactly the prompt of 0.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field, ValidationError

from chatglm.assistant import Finish, Options, TextDelta
from chatglm.chat.messages import Message
from chatglm.errors import InputError, NotFoundError
from chatglm.knowledge import Base, Bases, Shelf
from chatglm.serving.access.callers import Caller, caller_of
from chatglm.serving.bodies import Limits, parse_now
from chatglm.serving.catalog import held
from chatglm.serving.chatchat.shapes import AT_ONCE, Coded, attacks, find_base, refused, render, said, source, work
from chatglm.serving.dialect import Dialect, EventStream, Strict, dialect_route, failure_within, first_of, whole_of
from chatglm.serving.failures import NotOfferedError, ShuttingDownError, TimeLimitError
from chatglm.serving.hints import CHATCHAT
from chatglm.serving.knowledge import filing
from chatglm.serving.knowledge.answers import FromDocuments
from chatglm.serving.knowledge.shelves import base_for, open_bases, shelf_of
from chatglm.serving.service import IDLE, Idle, Service
from chatglm.serving.validation import problem_of

__all__ = ["DIALECT"]

NAME = "chatchat-v0.1"
_ATTACK = "Don't attack me"
_K = 5
_NO_SEARCH = (
    "bing_search_chat: this server does not use search engines; put documents into a base and use local_doc_chat"
)
_TURNS = 1000
"""Maximum number of turns of one WebSocket."""
_IDLE_SECONDS = 600.0
_LOOK_SECONDS = 1.0

_Turn = Annotated[list[str | None], Field(min_length=2, max_length=2)]


class _Question(Strict):
    hints = CHATCHAT

    question: str = Field(min_length=1, max_length=10_000)
    history: list[_Turn] | None = Field(None, max_length=1000)
    model: str | None = Field(None, description="default: the first")

    def messages(self) -> list[Message]:
        """The dialogue, with the question as its last message."""
        made = []
        for asked, answer in self.history or ():
            made += [Message("user", asked or ""), Message("assistant", answer or "")]
        return [*made, Message("user", self.question)]


class _Chat(_Question):
    streaming: bool | None = None


class _DocChat(_Chat):
    knowledge_base_id: str = Field(max_length=1000)


class _SocketQuestion(_Question):
    knowledge_base_id: str | None = Field(None, max_length=1000)


class _Answer(BaseModel):
    question: str
    response: str
    history: list[list[str | None]]
    source_documents: list[str]


def _router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["langchain-ChatGLM 0.1"], route_class=dialect_route(NAME, service, render))
    adding = asyncio.Semaphore(AT_ONCE)
    refusals = refused(400, 404, 500)
    uploads = refused(400, 404, 408, 413, 429, 500)
    answers: dict[int | str, dict[str, Any]] = {
        **refused(400, 404, 429, 500, 502, 503),
        200: {"content": {"text/plain": {}}},
    }

    async def base_to_fill(request: Request, name: str) -> Base:
        """A base that the caller may write. If nobody has a base of this name, a new one is made.

        Raises:
            ForbiddenError: the caller may only read the base.
            InputError: the base is not visible to the caller, or the name is not allowed.
            RoomError: the caller has too many bases.
        """

        def found(shelf: Shelf, who: str | None) -> Base:
            if shelf.taken(name):
                try:
                    return base_for(shelf, who, name, "write")
                except NotFoundError:
                    raise InputError(f"knowledge_base_id: {name!r:.80} is taken; choose another") from None
            return shelf.make(name, who)

        return await work(service, request, found)

    async def uploaded(request: Request, field: str, *, single: bool = False) -> dict[str, tuple[bool, str]] | None:
        """Add the files of a form (see `_added`); None: the name of the base is an attack, and nothing was added."""
        shelf_of(service)
        with tempfile.TemporaryDirectory(prefix="chatglm-") as folder:
            form = await filing.form_of(request, service, Path(folder), field, ("knowledge_base_id",))
            name = _base_of(form.fields)
            if attacks(name):
                return None
            if single and len(form.files) > 1:
                raise InputError("file: the form has several files; use upload_files")
            base = await base_to_fill(request, name)
            async with adding:
                return await asyncio.to_thread(lambda: _added(shelf_of(service), base, filing.contents_of(form)))

    @routes.post(
        "/local_doc_qa/upload_file",
        response_model=Coded,
        responses=uploads,
        openapi_extra=_form("file"),
    )
    async def upload_file(request: Request) -> Response:
        """Add a file to a base, which is made if it does not exist. The response comes when the file can be found."""
        added = await uploaded(request, "file", single=True)
        if added is None:
            return said(403, _ATTACK, [])
        ((file, (new, error)),) = added.items()
        if error:
            return said(500, "文件上传失败，请重新上传", error)
        if not new:
            return said(200, f"文件 {file} 已存在。")
        return said(200, f"文件 {file} 已上传至新的知识库，并已加载知识库，请开始提问。")

    @routes.post(
        "/local_doc_qa/upload_files",
        response_model=Coded,
        responses=uploads,
        openapi_extra=_form("files"),
    )
    async def upload_files(request: Request) -> Response:
        """Add several files."""
        added = await uploaded(request, "files")
        if added is None:
            return said(403, _ATTACK, [])
        failed = {file: error for file, (_, error) in added.items() if error}
        if len(failed) == len(added):
            return said(500, f"documents {', '.join(failed)} upload fail", failed)
        whole = ", ".join(file for file in added if file not in failed)
        return said(200, f"documents {whole} upload success", failed or None)

    @routes.get("/local_doc_qa/list_knowledge_base", response_model=Coded, responses=refusals)
    async def list_bases(request: Request) -> Response:
        """List the names of the bases that the caller may read."""
        return said(200, "success", await work(service, request, lambda shelf, who: shelf.names(who)))

    @routes.get("/local_doc_qa/list_files", response_model=Coded, responses=refusals)
    async def list_files(knowledge_base_id: str, request: Request) -> Response:
        """List the names of a base's files."""
        if attacks(knowledge_base_id):
            return said(403, _ATTACK, [])
        base = await find_base(service, request, knowledge_base_id)
        if base is None:
            return said(404, f"Knowledge base {knowledge_base_id} not found", [])
        return said(200, "success", [file.name for file in await asyncio.to_thread(base.files)])

    @routes.delete("/local_doc_qa/delete_knowledge_base", response_model=Coded, responses=refusals)
    async def delete(knowledge_base_id: str, request: Request) -> Response:
        """Delete a base with all its files. Only its owners may."""
        if attacks(knowledge_base_id):
            return said(403, _ATTACK)
        if await find_base(service, request, knowledge_base_id, "own") is None:
            return said(404, f"Knowledge base {knowledge_base_id} not found")
        await work(service, request, lambda shelf, who: shelf.delete(knowledge_base_id, who))
        return said(200, f"Knowledge Base {knowledge_base_id} delete success")

    @routes.delete("/local_doc_qa/delete_file", response_model=Coded, responses=refusals)
    async def remove(knowledge_base_id: str, doc_name: str, request: Request) -> Response:
        """Remove a file from a base. The base is kept if this was its last file."""
        if attacks(knowledge_base_id):
            return said(403, _ATTACK)
        base = await find_base(service, request, knowledge_base_id, "write")
        if base is None:
            return said(404, f"Knowledge base {knowledge_base_id} not found")
        if not await asyncio.to_thread(base.remove, doc_name, wait=False):
            return said(404, f"document {doc_name} not found")
        return said(200, f"document {doc_name} delete success")

    @routes.post(
        "/local_doc_qa/update_file",
        response_model=Coded,
        responses=uploads,
        openapi_extra=_form("new_doc", base=False),
    )
    async def update(knowledge_base_id: str, old_doc: str, request: Request) -> Response:
        """Replace a file by another. The old file is removed as soon as the new one can be found."""
        shelf_of(service)
        with tempfile.TemporaryDirectory(prefix="chatglm-") as folder:
            form = await filing.form_of(request, service, Path(folder), "new_doc")
            if attacks(knowledge_base_id):
                return said(403, _ATTACK)
            if len(form.files) > 1:
                raise InputError("new_doc: the form has several files; send one")
            base = await find_base(service, request, knowledge_base_id, "write")
            if base is None:
                return said(404, f"Knowledge base {knowledge_base_id} not found")

            def updated() -> Response:
                if all(file.name != old_doc for file in base.files()):
                    return said(404, f"document {old_doc} not found")
                ((file, (new, error)),) = _added(shelf_of(service), base, filing.contents_of(form)).items()
                if error:
                    return said(500, f"document {file} upload fail, and {old_doc} is as it was", error)
                if file != old_doc:
                    base.remove(old_doc, wait=False)
                if not new:
                    return said(200, f"document {file} already exists")
                return said(200, f"document {old_doc} delete and document {file} upload success")

            async with adding:
                return await asyncio.to_thread(updated)

    # Answers

    @routes.post("/local_doc_qa/local_doc_chat", response_model=_Answer, responses=answers)
    async def doc_chat(body: _DocChat, request: Request) -> Response:
        """Answer from a base. A streamed answer is plain text without its source documents."""
        caller = caller_of(request)
        bases = await _bases(service, caller, body.knowledge_base_id)
        if bases is None:
            return _answer(body, f"Knowledge base {body.knowledge_base_id} not found", body.history or [], [])
        documents = FromDocuments(bases)
        deltas = await _deltas(service, caller, body, documents)
        if body.streaming:
            return _plain(await first_of(request, deltas))
        (answer,) = await whole_of(request, deltas)
        text = answer.message.content
        return _answer(body, text, [*(body.history or ()), [body.question, text]], source(documents.passages))

    @routes.post("/chat", response_model=_Answer, responses=answers)
    async def chat(body: _Chat, request: Request) -> Response:
        """Answer without a base."""
        deltas = await _deltas(service, caller_of(request), body, None)
        if body.streaming:
            return _plain(await first_of(request, deltas))
        (answer,) = await whole_of(request, deltas)
        text = answer.message.content
        return _answer(body, text, [*(body.history or ()), [body.question, text]], [])

    @routes.post("/local_doc_qa/bing_search_chat", response_model=Coded, responses=refused(501))
    async def search_chat() -> Response:
        """Refused: this server does not use search engines."""
        raise NotOfferedError(_NO_SEARCH)

    @routes.websocket("/local_doc_qa/stream_chat")
    @routes.websocket("/local_doc_qa/stream_chat/{knowledge_base_id}")
    async def stream_chat(socket: WebSocket, knowledge_base_id: str | None = None) -> None:
        await _converse(service, socket, knowledge_base_id)

    @routes.websocket("/local_doc_qa/stream_chat_bing")
    async def stream_search(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_json({"error": _NO_SEARCH})
        await socket.close()

    return routes


def _form(files: str, *, base: bool = True) -> dict[str, Any]:
    """The OpenAPI description of a form with files."""
    binary = {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
    name: dict[str, Any] = {"knowledge_base_id": {"type": "string"}} if base else {}
    schema = {
        "type": "object",
        "required": [files, *name],
        "properties": {**name, files: binary},
        "additionalProperties": False,
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def _base_of(fields: dict[str, str]) -> str:
    if "knowledge_base_id" not in fields:
        raise InputError("knowledge_base_id: required")
    return fields["knowledge_base_id"]


def _added(shelf: Shelf, base: Base, contents: dict[str, bytes]) -> dict[str, tuple[bool, str]]:
    """Add files and wait until they can be found.

    Returns:
        for each file: whether it is new, and why it cannot be read ("": it can).
    """
    known = {file.name: file for file in base.files()}
    there = {name for name, content in contents.items() if name in known and known[name].size == len(content)}
    new = {name: content for name, content in contents.items() if name not in there}
    added = {file.name: file for file in (filing.add_files(shelf, base, new, wait=True) if new else ())}
    return {name: (name in new, added[name].error if name in added else "") for name in contents}


def _answer(body: _Question, text: str, history: Sequence[Sequence[str | None]], sources: list[str]) -> Response:
    shown = {"question": body.question, "response": text, "history": history, "source_documents": sources}
    return JSONResponse(shown)


async def _bases(service: Service, caller: Caller, name: str) -> Bases | None:
    shelf_of(service)
    try:
        return await asyncio.to_thread(open_bases, service, caller, [name])
    except (NotFoundError, InputError):
        return None


async def _deltas(
    service: Service, caller: Caller, body: _Question, documents: FromDocuments | None
) -> AsyncGenerator[TextDelta | Finish]:
    served = await service.find(body.model, caller)
    options: Options = {"adapter": served.adapter, "client": caller.client}
    messages = body.messages()
    if documents is None:
        deltas: AsyncGenerator[Any] = served.assistant.astream(messages, **options)
    else:
        deltas = documents.deltas(served.assistant, messages, options, k=_K, style="classic")
    return service.watch(served, caller, deltas)


class _PlainStream(EventStream):
    media_type = "text/plain"


def _plain(deltas: AsyncGenerator[TextDelta | Finish]) -> StreamingResponse:
    """Stream the text of an answer. The client is not told of an error after the start."""

    async def texts() -> AsyncGenerator[str]:
        try:
            async with aclosing(deltas):
                async for delta in deltas:
                    if isinstance(delta, TextDelta) and delta.text:
                        yield delta.text
        except Exception as error:  # the status has been sent
            failure_within(error)

    return _PlainStream(texts())


# The WebSocket


class _Talk:
    """A WebSocket. Its client may send the next question or disconnect while an answer is sent."""

    def __init__(self, service: Service, socket: WebSocket) -> None:
        self._service, self._socket = service, socket
        self._idle: Idle = socket.scope.get("state", {}).get(IDLE, Idle())
        self._coming: asyncio.Future[Any] | None = None

    def _next(self) -> asyncio.Future[Any]:
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._socket.receive())
        return self._coming

    async def question(self) -> _SocketQuestion:
        """Wait for the client's next question.

        Raises:
            WebSocketDisconnect: the client disconnected or was silent for too long, or the server is stopping.
            BodyError, InputError: the message is not a question.
        """
        coming, loop = self._next(), asyncio.get_running_loop()
        self._idle.since = loop.time()
        end = loop.time() + _IDLE_SECONDS
        while not coming.done():
            await asyncio.wait({coming}, timeout=_LOOK_SECONDS)
            if not coming.done() and (self._service.drain.begun or loop.time() > end):
                raise WebSocketDisconnect(1001)
        self._coming, self._idle.since = None, None
        return _read(coming.result(), self._service.limits)

    async def send(self, deltas: AsyncGenerator[TextDelta | Finish]) -> None:
        """Send the texts of an answer as they are generated.

        Raises:
            WebSocketDisconnect: the client disconnected.
            ShuttingDownError: the server is stopping.
            TimeLimitError: the answer takes longer than the time limit of a request.
        """

        async def said() -> None:
            async for delta in deltas:
                if isinstance(delta, TextDelta) and delta.text:
                    await self._socket.send_text(delta.text)

        saying, ending = asyncio.ensure_future(said()), asyncio.ensure_future(self._service.drain.wait())
        loop, limit = asyncio.get_running_loop(), self._service.timeout
        end = None if limit is None else loop.time() + limit
        try:
            waiting = {saying, ending, self._next()}
            while not saying.done():
                left = None if end is None else max(0.0, end - loop.time())
                done, _ = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    raise TimeLimitError
                if ending in done:
                    raise ShuttingDownError
                if (coming := self._next()) in done and not saying.done():
                    if coming.result()["type"] == "websocket.disconnect":
                        raise WebSocketDisconnect(1001)
                    waiting.discard(coming)  # the next question waits for its turn
            saying.result()
        finally:
            for task in (saying, ending):
                task.cancel()
            await asyncio.gather(saying, ending, return_exceptions=True)

    async def end(self, *words: Any) -> None:
        """Send last JSON values, if the client is still connected, and close the WebSocket."""
        if self._coming is not None:
            self._coming.cancel()
            await asyncio.gather(self._coming, return_exceptions=True)
        with contextlib.suppress(Exception):  # the client may disconnect at any time
            for each in words:
                await self._socket.send_json(each)
            await self._socket.close()


async def _converse(service: Service, socket: WebSocket, name: str | None) -> None:
    """Answer questions until the client disconnects, is silent for too long, or names a base that it may not read.

    Args:
        name: name of the base, from the path; None: each question names its base.
    """
    await socket.accept()
    talk = _Talk(service, socket)
    last: list[dict[str, Any]] = []
    try:
        for turn in range(1, _TURNS + 1):
            body = await talk.question()
            base = body.knowledge_base_id or name
            if base is None:
                raise InputError("knowledge_base_id: required")
            with held():  # the model is free while the client thinks about its next question
                found = await _turn(service, socket, talk, body, base, turn)
            if not found:
                last = [{"error": f"Knowledge base {base} not found"}]
                break
    except WebSocketDisconnect:
        pass
    except Exception as error:
        last = [{"error": failure_within(error).message}]
    finally:
        await talk.end(*last)


def _read(message: Any, limits: Limits) -> _SocketQuestion:
    """Parse a message of the client.

    Raises:
        WebSocketDisconnect: the client disconnected.
        BodyError, InputError: the message is not a question.
    """
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    text = message.get("text")
    content = (message.get("bytes") or b"") if text is None else text.encode("utf-8", "surrogatepass")
    try:
        return _SocketQuestion.model_validate(parse_now(content, limits))
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(problem_of({**first, "loc": ("body", *first["loc"])}).message) from None


async def _turn(service: Service, socket: WebSocket, talk: _Talk, body: _SocketQuestion, base: str, turn: int) -> bool:
    """Answer a question; returns False if the caller has no such base."""
    caller = caller_of(socket)
    key = service.key_of(caller)
    ended = service.rates.begin(key) if key is not None and key.limited else (lambda: None)
    try:
        bases = await _bases(service, caller, base)
        if bases is None:
            return False
        flag: dict[str, Any] = {"question": body.question, "turn": turn, "flag": "start"}
        await socket.send_json(flag)
        documents = FromDocuments(bases)
        async with aclosing(await _deltas(service, caller, body, documents)) as deltas:
            await talk.send(deltas)
        flag |= {"flag": "end", "sources_documents": source(documents.passages)}
        await socket.send_text(json.dumps(flag, ensure_ascii=False))
    finally:
        ended()
    return True


DIALECT = Dialect(
    name=NAME,
    title="langchain-ChatGLM 0.1",
    router=_router,
    render=render,
    owns="/local_doc_qa(/.*)?|/chat",
    base="/",
    example=("/chat", {"question": "你好", "history": []}),
    sockets=True,
)
