"""Langchain-Chatchat 0.3: `/knowledge_base/…` and `/chat/…`.

The bases are those of `/v1/knowledge`. Their own settings say how texts are cut and searched: fields of a request about
this have no effect, and the header `X-Chatglm-Ignored` lists them.
"""

from __future__ import annotations

import asyncio
import datetime
import fnmatch
import json
import tempfile
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from chatglm.chat.messages import Message
from chatglm.errors import ChatGLMError, InputError, NotFoundError, RoomError
from chatglm.knowledge import Base, Shelf, bounds
from chatglm.knowledge.store import File
from chatglm.serving import bodies
from chatglm.serving.access.callers import caller_of
from chatglm.serving.bodies import BodyError
from chatglm.serving.chatchat.answers import Asked, answer_files, answer_kb
from chatglm.serving.chatchat.shapes import (
    AT_ONCE,
    Coded,
    attacks,
    document,
    find_base,
    refused,
    render,
    said,
    threshold_of,
    work,
)
from chatglm.serving.chatchat.temporary import Temporary
from chatglm.serving.dialect import Dialect, EventStream, Strict, check_type, dialect_route, telling
from chatglm.serving.failures import Failure, NotOfferedError
from chatglm.serving.hints import CHATCHAT, MESSAGE, Hints, note_ignored
from chatglm.serving.knowledge import filing
from chatglm.serving.knowledge.shelves import shelf_of, who_of
from chatglm.serving.knowledge.summaries import OfFiles
from chatglm.serving.messages import ChatMessage, messages_of
from chatglm.serving.openai.requests import Generation
from chatglm.serving.service import Service
from chatglm.serving.sse import event

__all__ = ["DIALECT"]

NAME = "chatchat"
_ATTACK = "Don't attack me"
_DOCUMENTS = 1000
"""Maximum number of documents in one response."""
_LOOK_SECONDS = 0.5
_Name = Annotated[str, Field(max_length=1000)]
_Files = Annotated[list[str], Field(max_length=1000)]
_FORM_FIELDS = (
    "knowledge_base_name",
    "override",
    "to_vector_store",
    "chunk_size",
    "chunk_overlap",
    "zh_title_enhance",
    "docs",
    "not_refresh_vs_cache",
)
_TEMPORARY_FIELDS = ("prev_id", "chunk_size", "chunk_overlap", "zh_title_enhance")
_STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}
_EITHER: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {}, "text/event-stream": {}}}}
_NOT_HERE = {
    ("POST", "/chat/feedback"): "answers have no message_id here, and feedback is not stored",
    ("POST", "/chat/chat/completions"): "use /v1/chat/completions, or /knowledge_base/local_kb/NAME/chat/completions",
    ("POST", "/server/configs"): "this server does not show its settings; GET /v1/models lists its models",
    ("POST", "/server/get_prompt_template"): "GET /v1/knowledge/NAME has the prompt of a base",
    ("GET", "/tools"): "the server's tools are those of `server_tools` in /v1/chat/completions",
    ("POST", "/tools/call"): "the server's tools are those of `server_tools` in /v1/chat/completions",
}


class _Request(Strict):
    hints = CHATCHAT


class _NewBase(_Request):
    knowledge_base_name: str = Field(max_length=1000)
    kb_info: str | None = Field(None, max_length=1000)


class _Info(_Request):
    knowledge_base_name: _Name
    kb_info: str = Field(max_length=1000)


class _Search(_Request):
    query: str | None = Field(None, max_length=10_000)
    knowledge_base_name: _Name
    top_k: int = Field(3, ge=1, le=100)
    score_threshold: float | None = Field(None, ge=0, le=2, description="maximum distance; 2: any")
    file_name: str | None = Field(None, max_length=1000, description="% matches any text, _ matches any character")
    metadata: dict[str, Any] | None = Field(None, max_length=20)


class _TemporarySearch(_Request):
    knowledge_id: _Name
    query: str = Field("", max_length=10_000)
    top_k: int = Field(3, ge=1, le=100)
    score_threshold: float | None = Field(None, ge=0, le=2)


class _Deleted(_Request):
    knowledge_base_name: _Name
    file_names: _Files


class _Updated(_Request):
    knowledge_base_name: _Name
    file_names: _Files
    docs: str | None = None


class _Whole(_Request):
    knowledge_base_name: _Name


class _Summary(_Request):
    knowledge_base_name: _Name
    model_name: str | None = None
    temperature: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=0)


class _FileSummary(_Summary):
    file_name: str


class _PieceSummary(_Summary):
    doc_ids: list[Any] | None = None


class _Said(Strict):
    hints = MESSAGE

    role: Literal["system", "user", "assistant", "human", "ai"]
    content: str

    def message(self) -> Message:
        roles: Mapping[str, Any] = {"human": "user", "ai": "assistant"}
        return Message(roles.get(self.role, self.role), self.content)


class _Question(_Request):
    query: str = Field(min_length=1, max_length=10_000)
    top_k: int = Field(3, ge=1, le=100)
    score_threshold: float | None = Field(None, ge=0, le=2)
    history: list[_Said] | None = Field(None, max_length=1000)
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=0, description="0: no limit but the model's")
    prompt_name: str = "default"

    def params(self) -> dict[str, Any]:
        return {} if self.temperature is None else {"temperature": self.temperature}

    def past(self) -> list[Message]:
        return [each.message() for each in self.history or ()]


class _KbQuestion(_Question):
    mode: Literal["local_kb", "temp_kb", "search_engine"] = "local_kb"
    kb_name: _Name = ""
    stream: bool | None = Field(None, description="default: true")
    model: str | None = None
    return_direct: bool | None = None


class _FileQuestion(_Question):
    knowledge_id: _Name
    stream: bool | None = None
    model_name: str | None = None


class _Completion(Generation):
    hints = Hints("", {**Generation.hints.fields, **CHATCHAT.fields})

    messages: list[ChatMessage] = Field(min_length=1)
    top_k: int = Field(3, ge=1, le=100, description="number of hits that are used; not a sampling option here")
    score_threshold: float | None = Field(None, ge=0, le=2)
    prompt_name: str = "default"
    return_direct: bool | None = None


class _Document(BaseModel):
    page_content: str
    metadata: dict[str, Any]
    type: Literal["Document"]
    id: str | None
    score: float


def _router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["Langchain-Chatchat 0.3"], route_class=dialect_route(NAME, service, render))
    temporary, adding = Temporary(), asyncio.Semaphore(AT_ONCE)
    service.closing.append(temporary.close)
    refusals = refused(400, 404, 500)
    answered = refused(400, 404, 429, 500, 501, 502, 503)

    # Bases

    @routes.get("/knowledge_base/list_knowledge_bases", response_model=Coded, responses=refusals)
    async def list_bases(request: Request) -> Response:
        """List the bases that the caller may read."""

        def listed(shelf: Shelf, who: str | None) -> list[dict[str, Any]]:
            return [
                {
                    "id": number,
                    "kb_name": name,
                    "kb_info": seen.about,
                    "vs_type": "sqlite",
                    "embed_model": seen.embedder,
                    "file_count": seen.files,
                    "create_time": _time(seen.made),
                }
                for number, (name, seen) in enumerate(shelf.listed(who).items(), 1)
            ]

        return said(200, "success", await work(service, request, listed))

    @routes.post("/knowledge_base/create_knowledge_base", response_model=Coded, responses=refusals)
    async def make(body: _NewBase, request: Request) -> Response:
        """Make a base, which the caller owns."""
        name = body.knowledge_base_name
        if attacks(name):
            return said(403, _ATTACK)
        if not name.strip():
            return said(404, "知识库名称不能为空，请重新填写知识库名称")

        def made(shelf: Shelf, who: str | None) -> Response:
            if shelf.taken(name):
                return said(404, f"已存在同名知识库 {name}")
            shelf.make(name, who).configure(about=body.kb_info)
            return said(200, f"已新增知识库 {name}")

        try:
            return await work(service, request, made)
        except InputError as error:
            if isinstance(error, RoomError | NotFoundError):
                raise
            return said(403, str(error))

    @routes.post(
        "/knowledge_base/delete_knowledge_base",
        response_model=Coded,
        responses=refusals,
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "string"}}}}
        },
    )
    async def delete(request: Request) -> Response:
        """Delete a base with all its files. Only its owners may. The body is its name, as a JSON string."""
        name = await _string_of(request, service)
        if attacks(name):
            return said(403, _ATTACK)
        if await find_base(service, request, name, "own") is None:
            return said(404, f"未找到知识库 {name}")
        await work(service, request, lambda shelf, who: shelf.delete(name, who))
        return said(200, f"成功删除知识库 {name}")

    @routes.post("/knowledge_base/update_info", response_model=Coded, responses=refusals)
    async def describe(body: _Info, request: Request) -> Response:
        """Set the description of a base. Only its owners may."""
        name = body.knowledge_base_name
        if attacks(name):
            return said(403, _ATTACK)
        base = await find_base(service, request, name, "own")
        if base is None:
            return said(404, f"未找到知识库 {name}")
        await asyncio.to_thread(partial(base.configure, about=body.kb_info or None))
        return said(200, "知识库介绍修改完成", {"kb_info": body.kb_info})

    # Files

    @routes.get("/knowledge_base/list_files", response_model=Coded, responses=refusals)
    async def files(knowledge_base_name: str, request: Request) -> Response:
        """List the files of a base."""
        if attacks(knowledge_base_name):
            return said(403, _ATTACK, [])
        base = await find_base(service, request, knowledge_base_name)
        if base is None:
            return said(404, f"未找到知识库 {knowledge_base_name}", [])
        found = await asyncio.to_thread(base.files)
        return said(200, "success", [_file(base, file, number) for number, file in enumerate(found, 1)])

    @routes.post(
        "/knowledge_base/upload_docs",
        response_model=Coded,
        responses=refused(400, 404, 408, 413, 429, 500, 501),
        openapi_extra=_form("files", *_FORM_FIELDS, required="knowledge_base_name"),
    )
    async def upload(request: Request) -> Response:
        """Add files. The response comes when they can be found."""
        shelf_of(service)
        with tempfile.TemporaryDirectory(prefix="chatglm-") as folder:
            form = await filing.form_of(request, service, Path(folder), "files", _FORM_FIELDS)
            fields = form.fields
            name = fields.get("knowledge_base_name")
            if name is None:
                raise InputError("knowledge_base_name: required")
            _check_docs(fields.get("docs"))
            if not _flag(fields, "to_vector_store", True):
                raise NotOfferedError("to_vector_store: files are always indexed here; leave it out")
            override = _flag(fields, "override", False)
            _ignore(fields, "chunk_size", "chunk_overlap", "zh_title_enhance", "not_refresh_vs_cache")
            if attacks(name):
                return said(403, _ATTACK)
            base = await find_base(service, request, name, "write")
            if base is None:
                return said(404, f"未找到知识库 {name}")
            async with adding:
                failed = await asyncio.to_thread(
                    lambda: _added(shelf_of(service), base, filing.contents_of(form), override)
                )
        return said(200, "文件上传与向量化完成", {"failed_files": failed})

    @routes.post("/knowledge_base/delete_docs", response_model=Coded, responses=refusals)
    async def remove(body: _Deleted, request: Request) -> Response:
        """Remove files from a base. No copy is kept, because a base has no folder of documents."""
        name = body.knowledge_base_name
        if attacks(name):
            return said(403, _ATTACK)
        base = await find_base(service, request, name, "write")
        if base is None:
            return said(404, f"未找到知识库 {name}")

        def removed() -> dict[str, str]:
            return {file: f"未找到文件 {file}" for file in body.file_names if not base.remove(file, wait=False)}

        return said(200, "文件删除完成", {"failed_files": await asyncio.to_thread(removed)})

    @routes.post("/knowledge_base/update_docs", response_model=Coded, responses=refused(400, 404, 500, 501))
    async def update(body: _Updated, request: Request) -> Response:
        """Try again to read files that could not be read. Files that could be read are indexed already."""
        name = body.knowledge_base_name
        _check_docs(body.docs)
        if attacks(name):
            return said(403, _ATTACK)
        base = await find_base(service, request, name, "write")
        if base is None:
            return said(404, f"未找到知识库 {name}")
        async with adding:
            failed = await asyncio.to_thread(_updated, shelf_of(service), base, body.file_names)
        return said(200, "更新文档完成", {"failed_files": failed})

    @routes.get("/knowledge_base/download_doc", response_class=Response, responses=refusals)
    async def download(knowledge_base_name: str, file_name: str, request: Request, preview: bool = False) -> Response:
        """Download a file as it was added."""
        if attacks(knowledge_base_name):
            return said(403, _ATTACK)
        base = await find_base(service, request, knowledge_base_name)
        if base is None:
            return said(404, f"未找到知识库 {knowledge_base_name}")
        try:
            content = await asyncio.to_thread(base.store.content, file_name, bounds.UPLOAD_BYTES)
        except (NotFoundError, InputError):
            return said(500, f"{file_name} 读取文件失败")
        return filing.attachment(file_name, content, inline=preview)

    @routes.post("/knowledge_base/recreate_vector_store", response_class=Response, responses={**refusals, **_STREAM})
    async def recreate(body: _Whole, request: Request) -> Response:
        """Rebuild a base's index from its texts. The response has one event for each file."""
        name = body.knowledge_base_name
        base = None if attacks(name) else await find_base(service, request, name, "write")

        async def told() -> AsyncGenerator[str]:
            if base is None:
                yield event({"code": 404, "msg": f"未找到知识库 ‘{name}’"})
                return
            async with adding:
                await asyncio.to_thread(partial(base.check, repair=True))
            found = await asyncio.to_thread(base.files)
            for number, file in enumerate(found, 1):
                while file.state not in ("ready", "failed"):
                    await asyncio.sleep(_LOOK_SECONDS)
                    file = await asyncio.to_thread(base.store.find, file.name)
                yield event(_line(number, len(found), file, name))

        return EventStream(telling(request, told(), _broken_off), silent=True)

    # Search

    @routes.post("/knowledge_base/search_docs", response_model=list[_Document], responses=refusals)
    async def search(body: _Search, request: Request) -> Response:
        """Search a base. Without a query, the pieces of the files that `file_name` or `metadata` selects are listed."""
        base = await find_base(service, request, body.knowledge_base_name)
        found = [] if base is None else await asyncio.to_thread(_searched, base, body)
        return JSONResponse(found)

    @routes.post(
        "/knowledge_base/upload_temp_docs",
        response_model=Coded,
        responses=refused(400, 404, 408, 413, 429, 500),
        openapi_extra=_form("files", *_TEMPORARY_FIELDS),
    )
    async def upload_temporary(request: Request) -> Response:
        """Upload files into a temporary base. It is deleted after a day without use, or when the server ends."""
        shelf_of(service)
        who = who_of(caller_of(request))
        with tempfile.TemporaryDirectory(prefix="chatglm-") as folder:
            form = await filing.form_of(request, service, Path(folder), "files", _TEMPORARY_FIELDS)
            _ignore(form.fields, "chunk_size", "chunk_overlap", "zh_title_enhance")

            def added() -> tuple[str, dict[str, str]]:
                contents = filing.contents_of(form)
                name, base = temporary.make(who, form.fields.get("prev_id"))
                return name, _added(temporary.shelf(), base, contents, True)

            async with adding:
                name, failed = await asyncio.to_thread(added)
        return said(200, "success", {"id": name, "failed_files": [{file: why} for file, why in failed.items()]})

    @routes.post("/knowledge_base/search_temp_docs", response_model=list[_Document], responses=refusals)
    async def search_temporary(body: _TemporarySearch, request: Request) -> Response:
        """Search a temporary base."""
        shelf_of(service)
        who = who_of(caller_of(request))

        def found() -> list[dict[str, Any]]:
            base = temporary.base(body.knowledge_id, who)
            hits = base.search(body.query, k=body.top_k, threshold=threshold_of(body.score_threshold))
            return [document(hit) for hit in hits]

        return JSONResponse(await asyncio.to_thread(found) if body.query.strip() else [])

    # Summaries

    @routes.post(
        "/knowledge_base/kb_summary_api/summary_file_to_vector_store",
        response_class=Response,
        responses={**answered, **_STREAM},
    )
    async def summarise(body: _FileSummary, request: Request) -> Response:
        """Summarise a file, and keep the summary with the base. An event has the summary when it is ready."""
        return await summaries(body, request, [body.file_name])

    @routes.post(
        "/knowledge_base/kb_summary_api/recreate_summary_vector_store",
        response_class=Response,
        responses={**answered, **_STREAM},
    )
    async def summarise_all(body: _Summary, request: Request) -> Response:
        """Summarise each file of a base. An event for each file has its summary when it is ready."""
        return await summaries(body, request, None)

    @routes.post(
        "/knowledge_base/kb_summary_api/summary_doc_ids_to_vector_store",
        response_model=Coded,
        responses=refused(400, 501),
    )
    async def summarise_pieces(body: _PieceSummary) -> Response:
        """Refused: files are summarised, not pieces of them."""
        raise NotOfferedError(
            "doc_ids: files are summarised here, not pieces of them; use summary_file_to_vector_store"
        )

    async def summaries(body: _Summary, request: Request, names: list[str] | None) -> Response:
        name = body.knowledge_base_name
        base = None if attacks(name) else await find_base(service, request, name)
        caller = caller_of(request)
        served = await service.find(body.model_name, caller)
        params: dict[str, Any] = {} if body.temperature is None else {"temperature": body.temperature}
        if body.max_tokens:
            params["max_new_tokens"] = body.max_tokens
        how = {
            "model": served.name,
            "options": {"params": params, "adapter": served.adapter, "client": caller.client},
        }

        async def told() -> AsyncGenerator[str]:
            if base is None:
                yield event({"code": 404, "msg": f"未找到知识库 ‘{name}’"})
                return
            files = [file.name for file in await asyncio.to_thread(base.files)] if names is None else names
            for number, file in enumerate(files, 1):
                made = OfFiles(base, [file])
                try:
                    async for _ in service.watch(served, caller, made.deltas(served.assistant, **how)):
                        pass
                    assert made.done is not None
                    line = {"code": 200, "msg": f"{file} 总结完成", "doc": file, "summary": made.done.text}
                    if names is None:
                        line |= {"msg": f"({number} / {len(files)}): {file}", "total": len(files), "finished": number}
                    yield event(line)
                except ChatGLMError as error:
                    yield event({"code": 500, "msg": f"知识库'{name}'总结文件‘{file}’时出错。已跳过。（{error}）"})

        return EventStream(telling(request, told(), _broken_off), silent=True)

    # Answers

    @routes.post("/chat/kb_chat", response_class=Response, responses={**answered, **_EITHER})
    async def kb_chat(body: _KbQuestion, request: Request) -> Response:
        """Answer from a base. `docs` has the passages that the answer is made from."""
        return await answer_kb(
            service,
            request,
            temporary,
            Asked(
                body.mode,
                body.kb_name,
                body.query,
                body.past(),
                body.top_k,
                body.score_threshold,
                body.stream is not False,
                body.model,
                body.params(),
                body.max_tokens,
                body.prompt_name,
                bool(body.return_direct),
            ),
        )

    @routes.post(
        "/knowledge_base/{mode}/{param}/chat/completions",
        response_class=Response,
        responses={**answered, **_EITHER},
    )
    async def completions(
        mode: Literal["local_kb", "temp_kb", "search_engine"], param: str, body: _Completion, request: Request
    ) -> Response:
        """Answer from a base, for OpenAI's clients. Their base URL is `/knowledge_base/local_kb/NAME`."""
        *history, last = messages_of(body.messages)
        if last.role != "user":
            raise InputError("messages: the last one must be the user's question, to be answered from documents")
        params = body.options()
        params.pop("top_k", None)
        most = params.pop("max_new_tokens", None)
        return await answer_kb(
            service,
            request,
            temporary,
            Asked(
                mode,
                param,
                last.content,
                history,
                body.top_k,
                body.score_threshold,
                bool(body.stream),
                body.model,
                params,
                most,
                body.prompt_name,
                bool(body.return_direct),
            ),
        )

    @routes.post("/chat/file_chat", response_class=Response, responses={**answered, **_EITHER})
    async def file_chat(body: _FileQuestion, request: Request) -> Response:
        """Answer from a temporary base."""
        return await answer_files(
            service,
            request,
            temporary,
            Asked(
                "temp_kb",
                body.knowledge_id,
                body.query,
                body.past(),
                body.top_k,
                body.score_threshold,
                bool(body.stream),
                body.model_name,
                body.params(),
                body.max_tokens,
                body.prompt_name,
            ),
        )

    # Routes of Chatchat that are refused here

    for (method, path), why in _NOT_HERE.items():
        routes.add_api_route(
            path, _not_here(f"{path}: {why}"), methods=[method], response_model=Coded, responses=refused(501)
        )
    return routes


def _not_here(why: str) -> Any:
    async def refuse() -> Response:
        """Refused."""
        raise NotOfferedError(why)

    return refuse


def _form(files: str, *fields: str, required: str = "") -> dict[str, Any]:
    """The OpenAPI description of a form with files."""
    properties: dict[str, Any] = {name: {"type": "string"} for name in fields}
    properties[files] = {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
    schema = {
        "type": "object",
        "required": [files, *([required] if required else [])],
        "properties": properties,
        "additionalProperties": False,
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


async def _string_of(request: Request, service: Service) -> str:
    """Read a body that is the name of a base.

    Raises:
        BodyError: the body is not a JSON string, or is longer than 1000 characters.
    """
    check_type(request.headers.get("content-type"))
    try:
        found = json.loads(await bodies.read(request, service.limits))
        if isinstance(found, str) and len(found) <= 1000:
            found.encode()
            return found
    except (ValueError, RecursionError):
        pass
    raise BodyError('the body must be the name of a base as a JSON string, such as "samples"')


def _flag(fields: Mapping[str, str], name: str, default: bool) -> bool:
    given = fields.get(name, str(default)).lower()
    if given in ("true", "1", "yes", "on"):
        return True
    if given in ("false", "0", "no", "off"):
        return False
    raise InputError(f"{name}: must be true or false")


def _ignore(fields: Mapping[str, str], *names: str) -> None:
    for name in names:
        if name in fields:
            note_ignored(name)


def _check_docs(docs: str | None) -> None:
    """Check that a request has no texts of its own.

    Raises:
        NotOfferedError: the request has texts that would replace those of the files.
    """
    if docs and docs.strip() not in ("", "{}", "null"):
        raise NotOfferedError(
            "docs: the text of a base comes from its files; change its pieces (PATCH /v1/knowledge/NAME/pieces/ID) "
            "instead"
        )


def _added(shelf: Shelf, base: Base, contents: Mapping[str, bytes], override: bool) -> dict[str, str]:
    """Add files and wait until they can be found.

    Returns:
        for each file that cannot be found: why.
    """
    known = {file.name: file for file in base.files()}
    failed = {
        name: f"文件 {name} 已存在。"
        for name, content in contents.items()
        if not override and name in known and known[name].size == len(content)
    }
    new = {name: content for name, content in contents.items() if name not in failed}
    if new:
        added = filing.add_files(shelf, base, new, wait=True)
        failed |= {file.name: file.error for file in added if file.state == "failed"}
    return failed


def _updated(shelf: Shelf, base: Base, names: list[str]) -> dict[str, str]:
    failed = {}
    for name in dict.fromkeys(names):
        try:
            if base.store.find(name).state == "failed":
                content = base.store.content(name, bounds.UPLOAD_BYTES)
                filing.add_files(shelf, base, {name: content}, wait=True)
            file = base.store.find(name)
        except NotFoundError as error:
            failed[name] = str(error)
            continue
        if file.state == "failed":
            failed[name] = file.error
    return failed


def _searched(base: Base, body: _Search) -> list[dict[str, Any]]:
    names = None
    if body.file_name:
        pattern = "".join(_WILD.get(one, one) for one in body.file_name)
        names = [file.name for file in base.files() if fnmatch.fnmatchcase(file.name, pattern)]
        if not names:
            return []
    if isinstance(given := (body.metadata or {}).get("source"), str):
        names = [name for name in ([file.name for file in base.files()] if names is None else names) if name == given]
        if not names:
            return []
    if body.query and body.query.strip():
        threshold = threshold_of(body.score_threshold)
        found = [document(hit) for hit in base.search(body.query, k=body.top_k, files=names or (), threshold=threshold)]
    elif names is None and not body.metadata:
        return []
    else:
        found = []
        for name in [file.name for file in base.files()] if names is None else names:
            for piece in base.store.pieces(name, 0, _DOCUMENTS - len(found)):
                metadata = {"source": name, "title": piece.title, "page": piece.page}
                metadata |= {"start": piece.start, "end": piece.end}
                shown = {"id": str(piece.id), "page_content": piece.text, "metadata": metadata, "type": "Document"}
                found.append({**shown, "score": 0.0})
            if len(found) >= _DOCUMENTS:
                break
    wanted = (body.metadata or {}).items()
    return [each for each in found if all(each["metadata"].get(key) == value for key, value in wanted)]


_WILD = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
"""Replacements that turn a pattern of SQL's LIKE into one of `fnmatch`."""


def _broken_off(failure: Failure) -> str:
    return event({"code": failure.status, "msg": failure.message})


def _line(number: int, total: int, file: File, base: str) -> dict[str, Any]:
    if file.state == "failed":
        return {"code": 500, "msg": f"添加文件‘{file.name}’到知识库‘{base}’时出错：{file.error}。已跳过。"}
    shown = {"code": 200, "msg": f"({number} / {total}): {file.name}"}
    return {**shown, "total": total, "finished": number, "doc": file.name}


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).isoformat(timespec="seconds")


def _file(base: Base, file: File, number: int) -> dict[str, Any]:
    return {
        "kb_name": base.name,
        "file_name": file.name,
        "file_ext": PurePosixPath(file.name).suffix,
        "file_version": 1,
        "document_loader": file.media,
        "text_splitter": "",
        "create_time": _time(file.added),
        "file_mtime": file.added,
        "file_size": file.size,
        "custom_docs": False,
        "docs_count": file.pieces,
        "in_folder": True,
        "in_db": file.state == "ready",
        "No": number,
    }


DIALECT = Dialect(
    name=NAME,
    title="Langchain-Chatchat 0.3",
    router=_router,
    render=render,
    owns="/knowledge_base(/.*)?|/chat/(kb_chat|file_chat|feedback|chat/completions)|/server/.*|/tools(/.*)?",
    base="/",
    example=("/chat/kb_chat", {"query": "你好", "kb_name": "samples", "stream": False}),
)
