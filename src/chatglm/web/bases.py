"""Bases of documents on the page: make, fill, search, read, share and delete them.

These are pages and forms that need no script; a script uploads files that are dropped, and shows the progress of files.
For people who may not read a base, it does not exist.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, Protocol
from urllib.parse import quote, urlencode

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from chatglm.conversation.documents import Documents
from chatglm.conversation.users import User, Users
from chatglm.errors import InputError, NotFoundError
from chatglm.knowledge import Base, Done, File, Hit, StoredPiece, Upload, bounds
from chatglm.knowledge.base import permit
from chatglm.knowledge.store import ROLES, Role, Summary
from chatglm.web.accounts import Accounts
from chatglm.web.failures import ForbiddenError, LimitError
from chatglm.web.pictures import Pictures
from chatglm.web.requests import form_of, parts, whole_number
from chatglm.web.sources import Passage, passage_of

__all__ = ["BasePages"]

_SENDING, _LOOKING = 4, 8
"""Most files that one user sends at a time; most pages that show the progress of files."""
_ROWS = 100
"""Files on one page."""
_PIECES = 20
"""Pieces on one page."""
_FORM = 256 << 10
_FORM_FILES = 200
_HITS = 20
_QUOTED = 2_000
"""Most characters that are marked in a picture."""
_TICK = 0.4
_BEAT = 15.0
_WAIT_STATES = ("queued", "reading", "indexing")
_FILTERS: Mapping[str, tuple[str, ...]] = {
    "": (),
    "waiting": _WAIT_STATES,
    "ready": ("ready",),
    "failed": ("failed",),
}
_EVERYONE = "*"


class Frame(Protocol):
    """The page that these pages belong to."""

    accounts: Accounts
    base: str

    def render(self, request: Request, template: str, **values: Any) -> str: ...

    def ending(self) -> asyncio.Event:
        """Set when the server stops."""


Endpoint = Callable[[Request], Awaitable[Response]]
State = Literal["waiting", "reading", "indexing", "vectors", "ready", "failed"]


@dataclass(frozen=True)
class Shelved:
    """A base in the list."""

    name: str
    about: str
    role: Role
    holds: Summary


@dataclass(frozen=True)
class Row:
    """A file of a base.

    Attributes:
        percent: progress of its work; None: unknown.
        why: why it failed.
    """

    id: int
    name: str
    size: int
    state: State
    pieces: int
    percent: int | None = None
    why: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asker:
    """
    Attributes:
        who: the user who reads bases; None: this machine's owner.
    """

    user: User | None
    who: str | None

    @property
    def key(self) -> str:
        return "" if self.user is None else str(self.user.id)


class BasePages:
    """The routes under `/bases`."""

    def __init__(self, frame: Frame, documents: Documents, users: Users) -> None:
        self._frame, self._documents, self._users = frame, documents, users
        self._shelf = documents.shelf
        self._sending: Counter[str] = Counter()
        self._looking: Counter[str] = Counter()
        self._storing = threading.Semaphore(2)  # contents of files in memory
        self._searching = asyncio.Semaphore(4)
        self._pictures = Pictures()

    def close(self) -> None:
        self._pictures.close()

    def routes(self, route: Callable[..., Route]) -> list[Route]:
        """
        Args:
            route: makes one of a path, an endpoint and methods.
        """

        def form(path: str, endpoint: Endpoint) -> Route:
            return route(path, endpoint, "POST")

        one = "/bases/{base}"
        return [
            route("/bases", self._list),
            form("/bases", self._make),
            route(one, self._files),
            route(one + "/events", self._events),
            route(one + "/files", self._put, "PUT"),
            form(one + "/files", self._post),
            form(one + "/file", self._change),
            route(one + "/file", self._file),
            form(one + "/pieces/{piece}", self._edit),
            route(one + "/source", self._source),
            route(one + "/picture", self._picture),
            route(one + "/search", self._search),
            route(one + "/settings", self._settings),
            form(one + "/settings", self._configure),
            form(one + "/name", self._rename),
            form(one + "/share", self._share),
            route(one + "/delete", self._sure),
            form(one + "/delete", self._delete),
        ]

    # Who asks, and for what

    def _asker(self, request: Request) -> Asker:
        """
        Raises:
            SignInNeededError: people have to sign in, and this one has not.
            NotFoundError: the user is unknown, and bases belong to users.
        """
        user = self._frame.accounts.who(request)
        return Asker(user, self._documents.who(None if user is None else user.id))

    def _found(self, request: Request, role: Role = "read") -> tuple[Asker, Base]:
        """The user, and the base that the address names.

        Raises:
            NotFoundError: there is no such base, or they may not read it.
            ForbiddenError: they may read it, but not do what needs this role.
        """
        asker = self._asker(request)
        base = self._shelf.base(request.path_params["base"], asker.who)
        try:
            permit(base, asker.who, role)
        except NotFoundError:
            raise
        except InputError as error:
            raise ForbiddenError(str(error)) from None
        return asker, base

    async def _open(self, request: Request, role: Role = "read") -> tuple[Asker, Base]:
        return await asyncio.to_thread(self._found, request, role)

    async def _shown(self, request: Request, template: str, make: Callable[[], dict[str, Any]]) -> Response:
        """A page with the values of `make`; both are made in a thread."""
        return HTMLResponse(
            await asyncio.to_thread(lambda: self._frame.render(request, f"knowledge/{template}", **make()))
        )

    def _head(self, asker: Asker, base: Base) -> dict[str, Any]:
        """Values that all pages of a base show."""
        role = base.store.role(asker.who) or "read"
        return {
            "name": base.name,
            "about": base.setting("about"),
            "holds": base.store.summary(),
            "may": ROLES[: ROLES.index(role) + 1],
            "at": self._at(base.name),
        }

    def _at(self, base: str) -> str:
        return f"{self._frame.base}/bases/{quote(base, safe='')}"

    # The list

    async def _list(self, request: Request) -> Response:
        return await self._listed(request)

    async def _listed(self, request: Request, wrong: str = "", fields: Mapping[str, str] | None = None) -> Response:
        def make() -> dict[str, Any]:
            user = self._frame.accounts.who(request)
            try:
                asker = self._asker(request)
                names = self._shelf.names(asker.who)
            except NotFoundError:
                asker, names = Asker(user, None), []
            return {"bases": [self._card(name, asker.who) for name in names], "wrong": wrong, "fields": fields or {}}

        response = await self._shown(request, "bases.html", make)
        response.status_code = 400 if wrong else 200
        return response

    def _card(self, name: str, who: str | None) -> Shelved:
        base = self._shelf.base(name, who)
        return Shelved(name, base.setting("about"), base.store.role(who) or "read", base.store.summary())

    async def _make(self, request: Request) -> Response:
        fields = await form_of(request)
        name, about = fields.get("name", "").strip(), fields.get("about", "").strip()
        user, token = await self._frame.accounts.someone(request)

        def make() -> None:
            who = self._documents.who(user.id)
            self._shelf.make(name, who).configure(about=about or None)

        try:
            await asyncio.to_thread(make)
        except InputError as error:
            response = await self._listed(request, str(error), fields)
        else:
            response = RedirectResponse(self._at(name), 303)
        if token:
            self._frame.accounts.keep(request, response, token, self._frame.base)
        return response

    # Files

    async def _files(self, request: Request) -> Response:
        asker, base = await self._open(request)
        state, words, start = _window(request)

        def make() -> dict[str, Any]:
            head = self._head(asker, base)
            if head["holds"].waiting:
                base.resume()  # what another program has left
            rows, more = self._rows(base, state, words, start)
            return {
                **head,
                "rows": rows,
                "state": state,
                "words": words,
                "start": start,
                "before": max(0, start - _ROWS) if start else None,
                "after": start + _ROWS if more else None,
                "busy": _busy(base, head["holds"]),
                "trouble": base.trouble,
                "limits": {"file": bounds.UPLOAD_BYTES, "files": bounds.FILES},
            }

        return await self._shown(request, "files.html", make)

    def _rows(self, base: Base, state: str, words: str, start: int) -> tuple[list[Row], bool]:
        files = base.store.files(_FILTERS[state], words, start=start, most=_ROWS + 1)
        rows = files[:_ROWS]
        vectors = base.store.with_vectors([each.id for each in rows]) if base.works and base.setting("embedder") else {}
        return [_row(each, vectors.get(each.id)) for each in rows], len(files) > _ROWS

    async def _events(self, request: Request) -> Response:
        """The progress of the files on one page, until nothing is left to do.

        A reader that comes back and knows the final state is told not to come again.
        """
        asker, base = await self._open(request)
        window = _window(request)
        now = await asyncio.to_thread(self._state, request, asker, base, window)
        if not now["busy"] and request.headers.get("last-event-id") == now["id"]:
            return Response(status_code=204)
        if self._looking[asker.key] >= _LOOKING:
            raise LimitError(5.0)
        return StreamingResponse(
            self._told(request, asker, base, window),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},
        )

    async def _told(
        self, request: Request, asker: Asker, base: Base, window: tuple[str, str, int]
    ) -> AsyncGenerator[bytes]:
        self._looking[asker.key] += 1
        try:
            shown: dict[str, Any] = {}
            quiet = 0.0
            more = True
            yield b"retry: 1000\n\n"
            while True:
                begun = asyncio.get_running_loop().time()
                try:
                    now = await asyncio.to_thread(self._state, request, asker, base, window)
                except InputError:  # the base is gone, or they may not read it any more
                    return
                new = {key: value for key, value in now["files"].items() if shown.get(key) != value}
                if new or now["summary"] != shown.get("summary"):
                    data = json.dumps({"files": new, "summary": now["summary"]}, ensure_ascii=False)
                    yield f"id: {now['id']}\ndata: {data}\n\n".encode("utf-8", "replace")
                    quiet = 0.0
                shown = {**now["files"], "summary": now["summary"]}
                if not more:
                    return
                more = now["busy"]  # when all is done, it is read once more
                took = asyncio.get_running_loop().time() - begun
                pause = max(_TICK, 5 * took)  # a large base is read less often
                quiet += pause
                if quiet > _BEAT:
                    yield b": alive\n\n"
                    quiet = 0.0
                try:
                    await asyncio.wait_for(self._frame.ending().wait(), pause)
                    return
                except asyncio.TimeoutError:
                    pass
        finally:
            self._looking[asker.key] -= 1

    def _state(self, request: Request, asker: Asker, base: Base, window: tuple[str, str, int]) -> dict[str, Any]:
        permit(base, asker.who, "read")
        head = self._head(asker, base)
        rows, _ = self._rows(base, *window)
        shared = {**head, "trouble": base.trouble, "state": window[0], "words": window[1]}
        files = {
            f"f{row.id}": self._frame.render(request, "knowledge/row.html", row=row, **head).strip() for row in rows
        }
        summary = self._frame.render(request, "knowledge/summary.html", **shared).strip()
        known = hashlib.sha256(json.dumps([files, summary]).encode()).hexdigest()[:16]
        return {"files": files, "summary": summary, "id": known, "busy": _busy(base, head["holds"])}

    async def _put(self, request: Request) -> Response:
        """Upload a file as the body."""
        name = bounds.file_name(request.query_params.get("name", ""))
        asker, base = await self._open(request, "write")
        with self._turn(asker), tempfile.TemporaryFile(prefix="chatglm-") as body:
            size = 0
            async for part in parts(request, bounds.UPLOAD_BYTES):
                size += len(part)
                await asyncio.to_thread(body.write, part)
            file = await asyncio.to_thread(self._add, base, name, body, size)
        return JSONResponse({"id": file.id, "name": file.name, "state": _row(file, None).state}, 202)

    async def _post(self, request: Request) -> Response:
        """Upload files in a form, for browsers in which no script sends them one by one."""
        asker, base = await self._open(request, "write")
        with self._turn(asker):
            stream = parts(request, bounds.UPLOAD_BYTES + (1 << 20))
            parser = MultiPartParser(request.headers, stream, max_files=_FORM_FILES, max_fields=1)
            try:
                form = await parser.parse()
            except MultiPartException as error:
                raise InputError(f"the form cannot be read ({error.message})") from None
            try:
                for each in form.getlist("file"):
                    if isinstance(each, UploadFile) and each.filename:
                        size = each.size or 0
                        name = bounds.file_name(each.filename)
                        await asyncio.to_thread(self._add, base, name, each.file, size)
            finally:
                await form.close()
        return RedirectResponse(self._at(base.name), 303)

    @contextmanager
    def _turn(self, asker: Asker) -> Iterator[None]:
        if self._sending[asker.key] >= _SENDING:
            raise LimitError(2.0)
        self._sending[asker.key] += 1
        try:
            yield
        finally:
            self._sending[asker.key] -= 1

    def _add(self, base: Base, name: str, body: BinaryIO, size: int) -> File:
        """
        Raises:
            RoomError, QueueFullError: as `Shelf.check_room`.
        """
        self._shelf.check_room(base, {name: size})
        with self._storing:
            body.seek(0)
            base.add(Upload(name, body.read()), wait=False)
        return base.store.find(name)

    async def _change(self, request: Request) -> Response:
        """Remove a file, or read it again."""
        fields = await form_of(request)
        _, base = await self._open(request, "write")
        name, do = fields.get("name", ""), fields.get("do", "")
        if do == "again" and not name:
            names = [each.name for each in await asyncio.to_thread(base.store.files, ("failed",), most=bounds.WAITING)]
            await asyncio.to_thread(base.retry, *names)
        elif do == "again":
            await asyncio.to_thread(base.retry, name)
        elif do == "remove":
            if not await asyncio.to_thread(base.remove, name, wait=False):
                raise NotFoundError(f"file {name!r:.200}: the base has no such file")
        else:
            raise InputError("do: must be again or remove")
        return RedirectResponse(self._at(base.name), 303)

    # The contents of a file

    async def _file(self, request: Request) -> Response:
        asker, base = await self._open(request)
        name = request.query_params.get("name", "")
        span = _span(request)

        def make() -> dict[str, Any]:
            file = base.store.find(name)
            count = base.store.count_pieces(name)
            pages = max(1, math.ceil(count / _PIECES))
            if span is not None:
                page = max(0, base.store.count_pieces(name, span[0]) - 1) // _PIECES
            else:
                page = min(_number(request, "page", 1), pages) - 1
            pieces = base.store.pieces(name, page * _PIECES, _PIECES) if count else []
            found = [piece for piece in pieces if piece.text.strip()]
            return {
                **self._head(asker, base),
                "file": _row(file, None),
                "pieces": [(piece, _marked(piece, span)) for piece in found],
                "page": page + 1,
                "pages": pages,
                "picture": next((piece.page for piece in found if _shows(file, piece.page)), None),
            }

        return await self._shown(request, "file.html", make)

    async def _edit(self, request: Request) -> Response:
        """Change a piece, disable it, or undo that."""
        fields = await form_of(request, _FORM)
        _, base = await self._open(request, "write")
        number, do = whole_number(request.path_params["piece"], "piece", 9), fields.get("do", "")
        if do == "save":
            text = fields.get("text", "").replace("\r\n", "\n")
            await asyncio.to_thread(base.edit, number, text)
        elif do == "disable":
            await asyncio.to_thread(base.edit, number, None)
        elif do == "restore":
            await asyncio.to_thread(base.store.restore, number)
        else:
            raise InputError("do: must be save, disable or restore")
        name, page = fields.get("name", ""), fields.get("page", "1")
        address = f"{self._at(base.name)}/file?{urlencode({'name': name, 'page': page})}#p{number}"
        return RedirectResponse(address, 303)

    async def _source(self, request: Request) -> Response:
        """A passage with the cited sentence in it; `bare`: for a dialog."""
        asker, base = await self._open(request)
        name = request.query_params.get("name", "")
        span = _span(request)
        if span is None:
            raise InputError("at: is missing")

        def make() -> dict[str, Any]:
            file = base.store.find(name)
            passage: Passage = passage_of(base, name, *span)
            return {
                **self._head(asker, base),
                "file": _row(file, None),
                "passage": passage,
                "picture": passage.page if _shows(file, passage.page) else None,
            }

        return await self._shown(request, "bare.html" if "bare" in request.query_params else "source.html", make)

    async def _picture(self, request: Request) -> Response:
        """A page of a PDF, with the sentence marked."""
        _, base = await self._open(request)
        name, number = request.query_params.get("name", ""), _number(request, "page", 1)
        span = _span(request)

        def mark() -> str:
            return "" if span is None else base.text(name, span[0], min(span[1], span[0] + _QUOTED))

        quoted = await asyncio.to_thread(mark)
        file = await asyncio.to_thread(base.store.find, name)
        if not _shows(file, number):
            raise NotFoundError(f"{name}: has no pictures of pages")
        data = await self._pictures.page(base, file, number, quoted)
        tag = f'"{hashlib.sha256(data).hexdigest()[:24]}"'
        headers = {
            "ETag": tag,
            "Cache-Control": "private, no-cache",
            "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
        }
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type="image/png", headers=headers)

    # Search

    async def _search(self, request: Request) -> Response:
        asker, base = await self._open(request)
        question = request.query_params.get("q", "").strip()[:1000]
        k = min(_number(request, "k", 5), _HITS)

        def make() -> dict[str, Any]:
            head = {**self._head(asker, base), "question": question, "k": k, "hits": None}
            if not question:
                return head
            asked = self._shelf.bases([base.name], asker.who)
            hits = asked.search(question, k=k)
            told = asked.answerable(question)
            done = next((each for each in asked.ask(None, question, k=k) if isinstance(each, Done)), None)
            return {
                **head,
                "hits": [(hit, _scores(hit, hits)) for hit in hits],
                "warnings": hits.warnings,
                "refused": told.refused() or not hits,
                "told": told,
                "best": done.citations if done is not None else (),
            }

        async with self._searching:
            return await self._shown(request, "search.html", make)

    # Settings, sharing, deletion

    async def _settings(self, request: Request) -> Response:
        return await self._set(request)

    async def _set(self, request: Request, wrong: str = "", saved: bool = False) -> Response:
        asker, base = await self._open(request)

        def make() -> dict[str, Any]:
            head = self._head(asker, base)
            shares = sorted(base.store.roles().items()) if self._frame.accounts.login and "own" in head["may"] else None
            return {
                **head,
                "prompt": base.setting("prompt"),
                "strict": base.setting("strict") not in ("no", "mixed", "0"),
                "embedder": base.setting("embedder"),
                "reranker": base.setting("reranker"),
                "shares": shares,
                "me": asker.who,
                "wrong": wrong,
                "saved": saved or "saved" in request.query_params,
            }

        response = await self._shown(request, "settings.html", make)
        response.status_code = 400 if wrong else 200
        return response

    async def _configure(self, request: Request) -> Response:
        fields = await form_of(request, _FORM)
        _, base = await self._open(request, "own")

        def store() -> None:
            about, prompt = fields.get("about", "").strip(), fields.get("prompt", "").replace("\r\n", "\n").strip()
            strict = "mixed" if fields.get("strict") == "mixed" else None
            base.configure(about=about or None, prompt=prompt or None, strict=strict)

        try:
            await asyncio.to_thread(store)
        except InputError as error:
            return await self._set(request, str(error))
        return RedirectResponse(f"{self._at(base.name)}/settings?saved", 303)

    async def _rename(self, request: Request) -> Response:
        fields = await form_of(request)
        asker, base = await self._open(request, "own")
        name = fields.get("name", "").strip()
        try:
            if name != base.name:
                await asyncio.to_thread(self._shelf.rename, base.name, name, asker.who)
        except NotFoundError:
            raise
        except InputError as error:
            return await self._set(request, str(error))
        return RedirectResponse(f"{self._at(name)}/settings?saved", 303)

    async def _share(self, request: Request) -> Response:
        fields = await form_of(request)
        asker, base = await self._open(request, "own")
        if not self._frame.accounts.login:
            raise NotFoundError("nobody signs in here, so there is nobody to share a base with")

        def share() -> None:
            given, role = fields.get("who", "").strip(), fields.get("role", "")
            roles = base.store.roles()
            who = given if given in roles or given == _EVERYONE else self._users.named(given).name
            owners = {name for name, has in roles.items() if has == "own"}
            if role != "own" and owners == {who}:
                raise InputError(f"{who}: is the only owner; make somebody else an owner first")
            if role not in ("", *ROLES):
                raise InputError(f"role: must be one of {', '.join(ROLES)}")
            if who == _EVERYONE and role == "own":
                raise InputError("everyone cannot own a base; choose read or write")
            base.store.share(who, role or None)  # type: ignore[arg-type]

        try:
            await asyncio.to_thread(share)
        except InputError as error:
            return await self._set(request, str(error))
        still = await asyncio.to_thread(base.store.role, asker.who)
        return RedirectResponse(f"{self._at(base.name)}/settings?saved" if still else f"{self._frame.base}/bases", 303)

    async def _sure(self, request: Request) -> Response:
        asker, base = await self._open(request, "own")
        return await self._shown(request, "delete.html", lambda: self._head(asker, base))

    async def _delete(self, request: Request) -> Response:
        fields = await form_of(request)
        asker, base = await self._open(request, "own")
        if fields.get("sure") != base.name:
            raise InputError("sure: must be the base's name")
        await asyncio.to_thread(self._shelf.delete, base.name, asker.who)
        return RedirectResponse(f"{self._frame.base}/bases", 303)


def _busy(base: Base, holds: Summary) -> bool:
    return bool(holds.waiting) or base.works


def _row(file: File, vectors: tuple[int, int] | None) -> Row:
    state: State = "waiting" if file.state == "queued" else file.state
    percent = None
    if state == "indexing" and file.total:
        percent = 100 * file.done // file.total
    if state == "ready" and vectors is not None and vectors[0] < vectors[1]:
        state, percent = "vectors", 100 * vectors[0] // vectors[1]
    return Row(file.id, file.name, file.size, state, file.pieces, percent, file.error, file.warnings)


def _shows(file: File, page: int | None) -> bool:
    """Whether there is a picture of a page."""
    return page is not None and file.media == "application/pdf"


def _marked(piece: StoredPiece, span: tuple[int, int] | None) -> list[tuple[str, bool]]:
    """A piece's text in stretches, each with whether it is in the span."""
    if span is None or piece.edited or span[1] <= piece.start or span[0] >= piece.end:
        return [(piece.text.strip("\n"), False)]
    first, last = (max(0, min(at, piece.end) - piece.start) for at in span)
    text = piece.text
    return [each for each in ((text[:first], False), (text[first:last], True), (text[last:], False)) if each[0]]


def _scores(hit: Hit, hits: Sequence[Hit]) -> list[tuple[str, float, float]]:
    """The parts of a score, the total last: (name, value, share of the largest among the hits)."""
    found = []
    for name in ("lexical", "covered", "vector", "rerank"):
        if name in hit.parts:
            most = max(abs(each.parts.get(name, 0.0)) for each in hits) if name == "lexical" else 1.0
            found.append((name, hit.parts[name], min(1.0, max(0.0, hit.parts[name] / (most or 1.0)))))
    return [*found, ("fused", hit.score, min(1.0, max(0.0, hit.score)))]


def _window(request: Request) -> tuple[str, str, int]:
    """Which files a page shows: their state, words in their names, and the first one."""
    state = request.query_params.get("state", "")
    if state not in _FILTERS:
        raise InputError(f"state: must be one of {', '.join(filter(None, _FILTERS))}")
    return state, request.query_params.get("words", "").strip()[:200], _number(request, "start", 0)


def _number(request: Request, name: str, otherwise: int) -> int:
    return max(whole_number(request.query_params.get(name) or str(otherwise), name, 9), min(otherwise, 1))


def _span(request: Request) -> tuple[int, int] | None:
    """Characters of a file's text that the address names."""
    if "at" not in request.query_params:
        return None
    start = _number(request, "at", 0)
    return start, max(start, _number(request, "end", start))
