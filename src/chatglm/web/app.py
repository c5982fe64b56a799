"""The page: its routes, over conversations and models.

`add_page` puts it under `/ui` of an app. It is a separate app, and does not change the API beside it and its document.
The origin and the user of every request are checked; a conversation of another user is treated as one that does not
exist.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import importlib
import importlib.metadata
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import jinja2
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from chatglm.assistant import BaseAssistant
from chatglm.characters import Character
from chatglm.conversation.answering import Knowledge
from chatglm.conversation.documents import Documents
from chatglm.conversation.export import json_line, markdown
from chatglm.conversation.importing import read_conversations
from chatglm.conversation.session import Session, Sessions
from chatglm.conversation.settings import MODES, Settings
from chatglm.conversation.store import Conversation, Draft, Store
from chatglm.conversation.tree import Turn
from chatglm.conversation.users import LOCAL, SignInError, User
from chatglm.errors import InputError, NotFoundError
from chatglm.params import SamplingParams
from chatglm.web.accounts import Accounts, Rate, check_source
from chatglm.web.assets import Assets
from chatglm.web.bases import BasePages
from chatglm.web.examples import prompts_of
from chatglm.web.failures import Failure, LimitError, SignInNeededError, failure_of
from chatglm.web.render import render
from chatglm.web.requests import fields_of, form_of, parts, read, whole_number
from chatglm.web.sources import cited_of, source_at, sources_of
from chatglm.web.streaming import Macros, stream
from chatglm.web.views import Face, file_of, found_list, items_of, listed
from chatglm.web.words import LANGUAGES, Words, language_of

if TYPE_CHECKING:
    from chatglm.tools.interpreter.pool import Kernels
    from chatglm.tools.toolbox import Toolbox

__all__ = ["Models", "Page", "add_page"]

log = logging.getLogger("chatglm.web")

_BASE = "/ui"
_SOURCE_AT = functools.partial(source_at, _BASE)
_THEMES = ("auto", "light", "dark")
_PREFERENCES = "chatglm_language", "chatglm_theme"
_KEPT_SECONDS = 400 * 86400
_LISTED = 40
_TURNS, _CHARACTERS = 60, 300_000
"""Turns and characters of a conversation that a page shows first, from its end; earlier ones are loaded on demand."""
_IMPORT = 16 << 20
_CONVERSATIONS, _CONVERSATIONS_SECONDS = 60, 60.0
_TEND = 3600.0
"""Seconds between two searches for guests whose cookie has ended."""
_ANSWERS = 8
"""Most running answers of one user."""
_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_HEADERS = [
    (name.lower().encode(), value.encode())
    for name, value in {
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "same-origin",  # with "no-referrer" browsers name no origin when a form is sent
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    }.items()
]
_PICTURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}
_ALONE = ("n", "logprobs", "prompt_logprobs")
_TYPED = ("number", "integer", "strings")


@dataclass(frozen=True)
class Models:
    """The models that a page offers.

    Attributes:
        names: each with the names of its adapters, now; the first is the usual one.
        get: the model for a conversation's settings.
        defaults: defaults of a model's options of generation; None: unknown, for example because it is not loaded.
        called: the page's name of a model that a conversation names otherwise: the terminal uses folders as names.
    """

    names: Callable[[], Mapping[str, Sequence[str]]]
    get: Callable[[Settings], Awaitable[BaseAssistant]] | Mapping[str, BaseAssistant]
    defaults: Callable[[str], SamplingParams | None] = lambda name: None
    called: Callable[[str], str] = lambda model: model

    @classmethod
    def of(cls, assistants: Mapping[str, BaseAssistant]) -> Models:
        names = {name: tuple(one.adapters) for name, one in assistants.items()}
        return cls(lambda: names, assistants, lambda name: getattr(assistants.get(name), "defaults", None))


def add_page(
    app: Starlette,
    models: Models | Mapping[str, BaseAssistant],
    store: Store,
    *,
    toolbox: Toolbox | None = None,
    kernels: Kernels | None = None,
    knowledge: Knowledge | None = None,
    folder: Path | None = None,
    login: bool = False,
    hosts: Collection[str] = (),
    key: str = "",
    facts: Callable[[], Sequence[tuple[str, str]]] = lambda: (),
) -> Page:
    """Put the page under `/ui` of an app. Conversations that are being answered are stopped when the app ends.

    Args:
        models: the models on offer. The caller closes them, and also store, toolbox and kernels.
        toolbox: for the mode `tools`. None: there are none.
        kernels: for the mode `code`. None: there is no interpreter.
        knowledge: for the mode `documents`. None: there is none. If it is `Documents`, people make and fill its bases.
        folder: of conversations' files; None: beside the store's own.
        login: whether people have to sign in. If not, every browser is one user.
        hosts: allowed host names of the page, besides those of this machine itself; empty: all.
        key: whoever opens `/ui/mine?key=KEY` gets the conversations of this machine's own user, those of the terminal;
            "": nobody does.
        facts: further lines of the about box: (key of a word `about.KEY`, text).
    """
    page = Page(models, store, toolbox, kernels, knowledge, folder, login, hosts, key, facts)
    app.mount(_BASE, page)
    inner = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(outer: Any) -> AsyncIterator[Any]:
        async with inner(outer) as state:
            tending = asyncio.create_task(page.tend())
            try:
                yield state
            finally:
                tending.cancel()
                await page.close()

    app.router.lifespan_context = lifespan
    page.prepare()
    return page


class Page:
    """The page as an ASGI app; see `add_page`."""

    def __init__(
        self,
        models: Models | Mapping[str, BaseAssistant],
        store: Store,
        toolbox: Toolbox | None,
        kernels: Kernels | None,
        knowledge: Knowledge | None,
        folder: Path | None,
        login: bool,
        hosts: Collection[str],
        key: str,
        facts: Callable[[], Sequence[tuple[str, str]]],
    ) -> None:
        self.models = models if isinstance(models, Models) else Models.of(models)
        self.store, self.toolbox, self.kernels = store, toolbox, kernels
        self.sessions = Sessions(
            self.models.get, store, toolbox=toolbox, kernels=kernels, folder=folder, knowledge=knowledge
        )
        self.knowledge, self.base = knowledge, _BASE
        self.accounts = Accounts.of(store.users, login, key)
        self.bases = BasePages(self, knowledge, store.users) if isinstance(knowledge, Documents) else None
        self.assets = Assets()
        self._hosts, self._facts = frozenset(host.lower() for host in hosts), facts
        self._closing: asyncio.Event | None = None
        self._closed = False
        self._new = Rate(_CONVERSATIONS, _CONVERSATIONS_SECONDS)
        self._answering: dict[int, list[Session]] = {}
        self._begun: dict[int, list[Session]] = {}
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("chatglm.web"),
            autoescape=True,
            trim_blocks=True,
            undefined=jinja2.StrictUndefined,
            auto_reload=False,
        )
        self._templates.filters["filesizeformat"] = lambda count, binary=True: _bytes(count)  # as in the about box
        self._modules: dict[str, Any] = {}
        # Steps of answers do not wait for pages. Making a page is work in Python, so more threads are not faster.
        self._drawing = ThreadPoolExecutor(2, "chatglm-page")
        self._app = self._routes()

    def prepare(self) -> None:
        """Load in advance what the first answer needs: templates, colours of code, formulas, streams."""
        for name in self._templates.list_templates(["html"]):
            self._templates.get_template(name)
        render("```python\npass\n```\n\n$x$")
        for language in LANGUAGES:
            self._macros(Words(language))
        importlib.import_module("anyio._backends._asyncio")

    def _routes(self) -> Router:
        def route(path: str, endpoint: Callable[[Request], Awaitable[Response]], *methods: str) -> Route:
            async def answer(request: Request) -> Response:
                try:
                    return await endpoint(request)
                except ClientDisconnect:
                    raise
                except Exception as error:
                    return await self._refuse(request, error)

            return Route(path, answer, methods=list(methods or ("GET",)))

        c = "/c/{id}"
        return Router(
            [
                route("/", self._start),
                route("/new", self._empty),
                route("/login", self._login_form),
                route("/login", self._login, "POST"),
                route("/mine", self._mine),
                route("/logout", self._logout, "POST"),
                route("/preferences", self._prefer, "POST"),
                route("/about", self._about),
                route("/import", self._import, "POST"),
                route("/conversations", self._list),
                route("/conversations", self._make, "POST"),
                route("/conversations/{id}", self._change, "PATCH"),
                route("/conversations/{id}", self._delete, "DELETE"),
                route(c, self._show),
                route(c + "/turns", self._earlier),
                route(c + "/events", self._events),
                route(c + "/send", self._send, "POST"),
                route(c + "/again", self._again, "POST"),
                route(c + "/choose", self._choose, "POST"),
                route(c + "/permit", self._permit, "POST"),
                route(c + "/observe", self._observe, "POST"),
                route(c + "/rate", self._rate, "POST"),
                route(c + "/stop", self._stop, "POST"),
                route(c + "/files/{name}", self._upload, "PUT"),
                route(c + "/files/{name:path}", self._file),
                route(c + "/export", self._export),
                route(c + "/basis/{turn}", self._basis),
                route("/static/{version}/{name}", self._static),
                *(self.bases.routes(route) if self.bases is not None else ()),
            ],
            redirect_slashes=False,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name for name, _ in message["headers"]}
                more = [pair for pair in _HEADERS if pair[0] not in names]
                if b"cache-control" not in names:
                    more.append((b"cache-control", b"no-store"))
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        request = Request(scope, receive)
        try:
            check_source(request, scope["method"], self._hosts)
        except Exception as error:
            await (await self._refuse(request, error))(scope, receive, guarded)
            return
        with contextlib.suppress(ClientDisconnect):
            try:
                await self._app(scope, receive, guarded)
            except HTTPException as error:  # there is no such route
                await (await self._refuse(request, error))(scope, receive, guarded)

    def end(self) -> None:
        """End all streams of events, so that connections can be closed; called in the event loop's thread."""
        self._closed = True
        if self._closing is not None:
            self._closing.set()

    async def tend(self) -> None:
        """From time to time, delete guests whose cookie has ended, with all their data."""
        while True:
            try:
                for user in await asyncio.to_thread(self.store.users.lost):
                    with contextlib.suppress(NotFoundError):  # another process has done it
                        if isinstance(self.knowledge, Documents):
                            for left in await asyncio.to_thread(self.knowledge.forget, user):
                                log.warning("a guest was deleted, but %s", left)
                        await self.sessions.delete_user(user)
            except Exception:
                log.exception("guests whose cookie has ended could not be deleted; trying again later")
            await asyncio.sleep(_TEND)

    async def close(self) -> None:
        """Stop all answers."""
        self.end()
        await self.sessions.close()
        if self.bases is not None:
            await asyncio.to_thread(self.bases.close)

    def ending(self) -> asyncio.Event:
        """Set when the server stops."""
        if self._closing is None:
            self._closing = asyncio.Event()
            if self._closed:
                self._closing.set()
        return self._closing

    # Pages

    async def _drawn(self, work: Callable[..., Response], *arguments: Any, **named: Any) -> Response:
        """Make a page in a thread."""
        return await asyncio.get_running_loop().run_in_executor(
            self._drawing, functools.partial(work, *arguments, **named)
        )

    async def _start(self, request: Request) -> Response:
        return await self._drawn(self._page, request, newest=True)

    async def _empty(self, request: Request) -> Response:
        mode = request.query_params.get("mode", "chat")
        knowledge = tuple(request.query_params.getlist("knowledge")[:20])
        settings = Settings(mode=mode if mode in MODES else "chat", knowledge=knowledge)  # type: ignore[arg-type]
        return await self._drawn(self._page, request, settings)

    async def _show(self, request: Request) -> Response:
        return await self._drawn(self._page, request, name=request.path_params["id"])

    def _page(
        self, request: Request, settings: Settings | None = None, name: str = "", *, newest: bool = False
    ) -> Response:
        """The page at one conversation, or at none. It reads the store, and is called in a thread.

        Args:
            settings: for a conversation that does not exist yet.
            name: of the conversation.
            newest: show the user's newest conversation, if there is one.
        """
        user, t = self.accounts.who(request), _words(request)
        if user is None and (name or newest) and (again := _cookie_left_out(request)):
            return again
        conversations = () if user is None else self.store.conversations(user.id, limit=_LISTED + 1)
        if newest and conversations:
            name = conversations[0].id
        running = False
        items: list[Any] = []
        earlier: int | None = None
        found: Conversation | None = None
        if name:
            if user is None:
                raise _no_conversation()
            session = self.sessions.open(user.id, name)
            running = session.running
            found = session.conversation
            settings = Settings.from_dict(found.settings, found.mode)
            items, earlier = self._items(session, settings, t, running)
        settings = settings or Settings()
        page = self.render(
            request,
            "page.html",
            conversation=found,
            items=items,
            earlier=earlier,
            running=0 if running else None,
            current=found.id if found else None,
            search="",
            login=self.accounts.login,
            user=user.name if user else "",
            interpreter=self.kernels is not None,
            manages=self.bases is not None,
            **_list_of(conversations, 0),
            **self._settings(settings, t, user),
        )
        return HTMLResponse(page)

    def _items(
        self, session: Session, settings: Settings, t: Words, running: bool, before: int | None = None
    ) -> tuple[list[Any], int | None]:
        """Turns to show, from the end or from before a turn; and the first of them, if there are earlier ones."""
        tree = self.store.tree(session.user, session.id)
        path = tree.path()
        if before is not None:
            ids = [turn.id for turn in path]
            if before not in ids:
                raise NotFoundError(f"turn {before}: no such turn in this conversation")
            path = path[: ids.index(before)]
        elif running:  # the turns of the running answer come as events
            while path and path[-1].message.role != "user":
                path = path[:-1]
        start = _first_shown(path)
        earlier, path = (path[start].id if start else None), path[start:]
        files = self.store.files(session.user, session.id)
        at = self._files_at(session.id)
        return items_of(tree, path, files, at, self._face(settings, t), _BASE, t), earlier

    async def _earlier(self, request: Request) -> Response:
        before = whole_number(request.query_params.get("before", ""), "before")

        def earlier() -> Response:
            _, session = self._find(request)
            items, first = self._items(session, session.settings, _words(request), False, before)
            return HTMLResponse(self.render(request, "turns.html", items=items, earlier=first))

        return await self._drawn(earlier)

    def render(self, request: Request, template: str, **values: Any) -> str:
        shown = self._templates.get_template(template).render(**self._common(request), **values)
        # An imported text may end in half a surrogate pair, which a page cannot have.
        return shown.encode("utf-8", "replace").decode()

    def _macros(self, t: Words) -> Macros:
        """The macros of the template of turns, in one language."""
        module = self._modules.get(t.language)
        if module is None:
            template = self._templates.get_template("turn.html")
            module = self._modules[t.language] = template.make_module({"t": t, "base": _BASE, "source_at": _SOURCE_AT})

        def macros(name: str, *values: Any) -> str:
            return str(getattr(module, name)(*values)).strip()

        return macros

    def _common(self, request: Request) -> dict[str, Any]:
        theme = request.cookies.get(_PREFERENCES[1], "auto")
        return {
            "t": _words(request),
            "base": _BASE,
            "theme": theme if theme in _THEMES else "auto",
            "static": lambda name: f"{_BASE}/{self.assets.path(name)}",
            "modes": MODES,
            "source_at": _SOURCE_AT,
        }

    def _settings(self, settings: Settings, t: Words, user: User | None) -> dict[str, Any]:
        """Values for the sheet of settings and for empty states."""
        models = self.models.names()
        wanted = self.models.called(settings.model)
        name = wanted if wanted in models else next(iter(models), "")
        tools = [] if self.toolbox is None else self.toolbox.specs
        on = settings.tools
        defaults = self.models.defaults(name) or SamplingParams()
        options = [
            {
                "name": option.name,
                "kind": option.kind,
                "help": t.option(option.name, option.help),
                "low": option.low,
                "high": option.high,
                "default": getattr(defaults, option.name),
                "value": settings.params.get(option.name),
            }
            for option in SamplingParams.options()
            if option.name not in _ALONE and option.kind in _TYPED
        ]
        return {
            "settings": {
                **{one.name: getattr(settings, one.name) for one in dataclasses.fields(settings)},
                "model": name,
            },
            "mode": settings.mode,
            "missing": "" if wanted in ("", name) else wanted.rstrip("/").rpartition("/")[2],
            "models": list(models),
            "adapters": list(models.get(name, ())),
            "tools": [
                {
                    "name": spec.name,
                    "description": str(spec.flat().get("description", "")),
                    "on": on is None or spec.name in on,
                }
                for spec in tools
            ],
            "options": options,
            "character": Face.of_character(settings.character),
            "characters": _characters(),
            "prompts": prompts_of(settings.mode, t.language),
            "bases": self._bases(settings, user),
        }

    def _bases(self, settings: Settings, user: User | None) -> list[dict[str, Any]]:
        """The bases that can be ticked, if they are shown."""
        if settings.mode not in ("documents", "tools") or self.knowledge is None:
            return []
        known = self.knowledge.known(None if user is None else user.id)
        return [{"name": name, "documents": count} for name, count in known]

    def _face(self, settings: Settings, t: Words) -> Face:
        character = Face.of_character(settings.character) if settings.mode == "character" else None
        return character or Face(t("turn.assistant"), "G", 0)

    async def _about(self, request: Request) -> Response:
        user = await self._who(request)
        t = _words(request)
        used = await asyncio.to_thread(self.store.used, user.id) if user else 0
        sandbox = await asyncio.to_thread(self._sandbox, t)
        rows = [
            ("version", f"chatglm {importlib.metadata.version('chatglm')}"),
            ("model", ", ".join(self.models.names())),
            *((key, t.said(text)) for key, text in await asyncio.to_thread(self._facts)),
            ("sandbox", sandbox),
            ("storage", t("about.storage.used", used=_bytes(used), most=_bytes(self.store.limits.bytes))),
            ("user", _named(user, t)),
        ]
        return HTMLResponse(self.render(request, "about.html", rows=rows))

    def _sandbox(self, t: Words) -> str:
        if self.kernels is None:
            return t("about.sandbox.off")
        from chatglm.tools.interpreter.sandbox import protection

        return t(f"about.sandbox.{self.kernels.tier or protection().tier}")

    # Accounts

    async def _login_form(self, request: Request) -> Response:
        return HTMLResponse(self.render(request, "login.html", error="", tried=""))

    async def _login(self, request: Request) -> Response:
        fields = await form_of(request)
        try:
            token = await self.accounts.sign_in(request, fields.get("name", ""), fields.get("password", ""))
        except (SignInError, LimitError) as error:
            failure = failure_of(error)
            told = failure.message(_words(request))
            page = self.render(request, "login.html", error=told, tried=fields.get("name", "")[:80])
            return HTMLResponse(page, failure.status, failure.headers)
        response = RedirectResponse(f"{_BASE}/", 303)
        self.accounts.keep(request, response, token, _BASE)
        return response

    async def _mine(self, request: Request) -> Response:
        token = await self.accounts.open_own(request, request.query_params.get("key", ""))
        response = RedirectResponse(f"{_BASE}/", 303)
        self.accounts.keep(request, response, token, _BASE)
        return response

    async def _logout(self, request: Request) -> Response:
        await self.accounts.sign_out(request)
        response = RedirectResponse(f"{_BASE}/login" if self.accounts.login else f"{_BASE}/", 303)
        self.accounts.forget(response, _BASE)
        return response

    async def _prefer(self, request: Request) -> Response:
        """Language and colours of this browser."""
        fields = await fields_of(request, language=str, theme=str)
        response = Response(status_code=204)
        for (name, value), key in zip((("language", LANGUAGES), ("theme", _THEMES)), _PREFERENCES, strict=True):
            if name in fields:
                if fields[name] not in value:
                    raise InputError(f"{name}: must be one of {', '.join(value)}")
                response.set_cookie(
                    key, fields[name], max_age=_KEPT_SECONDS, path=_BASE, samesite="strict", httponly=True,
                    secure=request.url.scheme == "https",
                )  # fmt: skip
        return response

    async def _who(self, request: Request) -> User | None:
        return await asyncio.to_thread(self.accounts.who, request)

    # Conversations

    async def _open(self, request: Request) -> tuple[User, Session]:
        """
        Raises:
            NotFoundError: the user has no such conversation.
        """
        return await asyncio.to_thread(self._find, request)

    def _find(self, request: Request) -> tuple[User, Session]:
        user = self.accounts.who(request)
        if user is None:
            raise _no_conversation()
        return user, self.sessions.open(user.id, request.path_params["id"])

    async def _list(self, request: Request) -> Response:
        search = request.query_params.get("search", "").strip()[:200]
        before = whole_number(request.query_params.get("before") or "0", "before")

        def make() -> Response:
            user = self.accounts.who(request)
            if user is None:
                shown = _list_of((), 0)
            elif search:
                shown = {"conversations": found_list(self.store.search(user.id, search, limit=50)), "more": None}
            else:
                shown = _list_of(self.store.conversations(user.id, limit=_LISTED + 1, offset=before), before)
            current = request.query_params.get("current") or None
            return HTMLResponse(self.render(request, "list.html", search=search, current=current, **shown))

        return await self._drawn(make)

    async def _make(self, request: Request) -> Response:
        self._new.take(await self.accounts.asker(request))  # before anything is read for a stranger
        fields = await fields_of(request, settings=dict, title=str)
        settings = await asyncio.to_thread(_settings_of, Settings(), fields.get("settings", {}))
        self._check_model(fields.get("settings", {}))

        async def make(user: User) -> Mapping[str, Any]:
            session = await self.sessions.make(user.id, settings, title=fields.get("title", ""))
            return {"id": session.id}

        return await self._made(request, make)

    def _check_model(self, given: Mapping[str, Any]) -> None:
        """
        Raises:
            InputError: the chosen model is not on offer.
        """
        known = self.models.names()
        if (name := given.get("model")) and name not in known:
            raise InputError(f"model: there is no {name!r:.80}; known: {', '.join(known) or 'none'}")

    async def _made(self, request: Request, make: Callable[[User], Awaitable[Mapping[str, Any]]]) -> Response:
        """Make something for the user of a request, who may be a new one: then the browser gets the cookie even if it
        cannot be made, and is the same user when it tries again."""
        user, token = await self.accounts.someone(request)
        response: Response
        try:
            response = JSONResponse(await make(user), 201)
        except Exception as error:
            response = await self._refuse(request, error)
        if token:
            self.accounts.keep(request, response, token, _BASE)
        return response

    async def _change(self, request: Request) -> Response:
        fields = await fields_of(request, settings=dict, title=str)
        user, session = await self._open(request)
        if "settings" in fields:
            old = await asyncio.to_thread(lambda: session.settings)
            self._check_model(fields["settings"])
            await session.configure(await asyncio.to_thread(_settings_of, old, fields["settings"]))
        if "title" in fields:
            await asyncio.to_thread(self.store.rename, user.id, session.id, fields["title"])
        found = await asyncio.to_thread(lambda: session.conversation)
        return JSONResponse({"id": found.id, "title": found.title, "mode": found.mode})

    async def _delete(self, request: Request) -> Response:
        user, session = await self._open(request)
        await self.sessions.delete(user.id, session.id)
        return Response(status_code=204)

    async def _import(self, request: Request) -> Response:
        """A character card becomes a conversation with that character; each dialogue of a file becomes one."""
        self._new.take(await self.accounts.asker(request))
        name = request.query_params.get("name", "file")[:200]
        data = await read(request, _IMPORT)
        code = self.kernels is not None
        made, skipped = await asyncio.to_thread(_imported, data, name, self.toolbox, code)

        async def store(user: User) -> Mapping[str, Any]:
            names = await asyncio.to_thread(self.store.make_all, user.id, made)
            return {"id": names[-1], "ids": names, "skipped": skipped[:20]}

        return await self._made(request, store)

    # One conversation

    async def _send(self, request: Request) -> Response:
        fields = await fields_of(request, text=str, files=list)
        user, session = await self._open(request)
        files = fields.get("files", [])
        if not all(isinstance(name, str) for name in files):
            raise InputError("files: must be names")
        return await self._begin(user, session, lambda: session.send(fields.get("text", ""), files))

    async def _again(self, request: Request) -> Response:
        fields = await fields_of(request, turn=int, text=(str, type(None)))
        user, session = await self._open(request)
        return await self._begin(user, session, lambda: session.again(_turn(fields), fields.get("text")))

    async def _begin(self, user: User, session: Session, begin: Callable[[], Awaitable[int]]) -> Response:
        if self._closed:
            raise LimitError(5.0)
        begun = self._begun.get(user.id, [])
        others = [one for one in self._answering.get(user.id, ()) if one.running and one is not session]
        # Also those that are just beginning: several requests may be here at once.
        if len({*others, *begun} - {session}) >= _ANSWERS:
            raise LimitError(5.0)
        self._begun[user.id] = begun
        begun.append(session)
        try:
            after = await begin()
        finally:
            begun.remove(session)
            if not begun:
                self._begun.pop(user.id, None)
        running = [one for one in self._answering.get(user.id, ()) if one.running and one is not session]
        self._answering[user.id] = [*running, session]
        if len(self._answering) > 1000:
            self._answering = {
                number: left
                for number, sessions in self._answering.items()
                if (left := [one for one in sessions if one.running])
            }
        return JSONResponse({"after": after}, 202)

    async def _choose(self, request: Request) -> Response:
        fields = await fields_of(request, turn=int)
        _, session = await self._open(request)
        await session.choose(_turn(fields))
        return JSONResponse({"after": session.last})

    async def _basis(self, request: Request) -> Response:
        """The page about an answer from documents: what the model saw, what was found."""
        _, session = await self._open(request)
        number = whole_number(request.path_params["turn"], "turn")
        turn = (await session.tree()).turns.get(number)
        cited = cited_of(turn.details.get("cited")) if turn is not None else None
        if turn is None or cited is None:
            raise NotFoundError("no such answer from documents in this conversation")
        sources = sources_of(turn.details.get("sources"))
        values = {"conversation": session.id, "turn": turn, "cited": cited, "sources": sources}
        return HTMLResponse(await asyncio.to_thread(self.render, request, "knowledge/basis.html", **values))

    async def _permit(self, request: Request) -> Response:
        fields = await fields_of(request, call=str, yes=bool, always=bool)
        _, session = await self._open(request)
        await session.permit(_call(fields), fields.get("yes", False), fields.get("always", False))
        return JSONResponse({"after": session.last})

    async def _observe(self, request: Request) -> Response:
        fields = await fields_of(request, call=str, text=str)
        _, session = await self._open(request)
        await session.observe(_call(fields), fields.get("text", ""))
        return JSONResponse({"after": session.last})

    async def _rate(self, request: Request) -> Response:
        fields = await fields_of(request, turn=int, rating=int)
        _, session = await self._open(request)
        await session.rate(_turn(fields), fields.get("rating", 0))
        return JSONResponse({"after": session.last})

    async def _stop(self, request: Request) -> Response:
        _, session = await self._open(request)
        await session.stop()
        return JSONResponse({"after": session.last})

    async def _events(self, request: Request) -> Response:
        def find() -> tuple[Session, Settings]:
            _, session = self._find(request)
            return session, session.settings

        session, settings = await asyncio.to_thread(find)
        given = request.headers.get("last-event-id") or request.query_params.get("after") or "0"
        after = whole_number(given, "after")
        if not session.has_news(after):
            return Response(status_code=204)  # this status tells a browser not to come back
        t = _words(request)
        macros = self._macros(t)
        events = stream(
            session,
            after,
            base=self._files_at(session.id),
            root=_BASE,
            face=self._face(settings, t),
            t=t,
            macros=macros,
            closing=self.ending(),
        )
        return StreamingResponse(
            events, media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )

    # Files

    def _files_at(self, conversation: str) -> str:
        return f"{_BASE}/c/{conversation}/files/"

    async def _upload(self, request: Request) -> Response:
        _, session = await self._open(request)
        name = request.path_params["name"]
        file = await session.upload(name, parts(request, self.store.limits.bytes))
        shown = file_of(file.name, self._files_at(session.id), file.size)
        return JSONResponse({"name": shown.name, "url": shown.url, "size": shown.size}, 201)

    async def _file(self, request: Request) -> Response:
        _, session = await self._open(request)
        name = request.path_params["name"]
        file = await session.file(name)
        try:
            head = await asyncio.to_thread(file.read, 16)
            size = await asyncio.to_thread(file.seek, 0, 2)
            await asyncio.to_thread(file.seek, 0)
        except BaseException:
            file.close()
            raise
        kind = next((kind for front, kind in _PICTURES.items() if head.startswith(front)), None)
        last = name.rpartition("/")[2]
        headers = {
            "Content-Length": str(size),
            "Content-Disposition": f"{'inline' if kind else 'attachment'}; filename*=UTF-8''{quote(last, safe='')}",
            "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
            "Cache-Control": "private, no-cache",
        }

        async def pieces() -> AsyncIterator[bytes]:
            left = size
            try:
                while left and (piece := await asyncio.to_thread(file.read, min(left, 256 << 10))):
                    left -= len(piece)
                    yield piece
            finally:
                file.close()

        return StreamingResponse(pieces(), media_type=kind or "application/octet-stream", headers=headers)

    async def _export(self, request: Request) -> Response:
        _, session = await self._open(request)
        form = request.query_params.get("form", "md")
        found, settings, tree, files = await asyncio.to_thread(
            lambda: (
                session.conversation,
                session.settings,
                self.store.tree(session.user, session.id),
                self.store.files(session.user, session.id),
            )
        )
        t = _words(request)
        if form == "md":
            speakers = {
                "user": t("turn.user"),
                "assistant": self._face(settings, t).name,
                "observation": t("call.result"),
            }
            data = markdown(tree, title=found.title, files=files, speakers=speakers).encode("utf-8", "replace")
            kind = "text/markdown; charset=utf-8"
        elif form == "jsonl":
            row = await session.training_row()
            data, kind = (json_line(row) if row is not None else b""), "application/jsonl; charset=utf-8"
        else:
            raise InputError("form: must be md or jsonl")
        name = f"{found.title.replace('/', ' ').strip() or 'conversation'}.{form}"
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
        return Response(data, media_type=kind, headers=headers)

    # The rest

    async def _static(self, request: Request) -> Response:
        found = self.assets.respond(request, request.path_params["version"], request.path_params["name"])
        if found is None:
            raise HTTPException(404)
        return found

    async def _refuse(self, request: Request, error: Exception) -> Response:
        failure = failure_of(error)
        if failure.status >= 500:
            log.error("%s failed", request.url.path, exc_info=error)
        t = _words(request)
        form = request.headers.get("content-type", "").startswith(("application/x-www-form", "multipart/form"))
        wants_page = "text/html" in request.headers.get("accept", "") and (request.method in ("GET", "HEAD") or form)
        if isinstance(error, SignInNeededError) and wants_page:
            return _cookie_left_out(request) or RedirectResponse(f"{_BASE}/login", 303)
        if wants_page:
            page = self.render(request, "error.html", status=failure.status, message=failure.message(t))
            return HTMLResponse(page, failure.status, failure.headers)
        return _json_failure(failure, t)


def _json_failure(failure: Failure, t: Words) -> Response:
    said = {"error": {"code": failure.code, "message": failure.message(t)}}
    return JSONResponse(said, failure.status, failure.headers)


def _words(request: Request) -> Words:
    return Words(language_of(request.headers.get("accept-language", ""), request.cookies.get(_PREFERENCES[0], "")))


def _cookie_left_out(request: Request) -> Response | None:
    """Answer a browser that follows a link of another site, and so leaves strict cookies out: a page that loads itself
    again gets them."""
    if request.headers.get("sec-fetch-site") != "cross-site":
        return None
    return HTMLResponse('<!doctype html><meta http-equiv="refresh" content="0"><title>chatglm</title>')


def _list_of(found: Sequence[Conversation], before: int) -> dict[str, Any]:
    """For the template of lists: conversations (one more than shown was looked for), and where the next page begins."""
    return {"conversations": listed(found[:_LISTED]), "more": before + _LISTED if len(found) > _LISTED else None}


def _named(user: User | None, t: Words) -> str:
    """The name of the person at the page."""
    if user is None or user.guest:
        return t("about.user.guest")
    return t("about.user.local") if user.name == LOCAL else user.name


def _first_shown(path: Sequence[Turn]) -> int:
    """The first turn of a path that is shown: a question, if there is one."""
    start, size = len(path), 0
    while start and len(path) - start < _TURNS and size < _CHARACTERS:
        start -= 1
        size += len(path[start].message.content)
    while start and path[start].message.role != "user":
        start -= 1
    return start


def _no_conversation() -> NotFoundError:
    return NotFoundError("no such conversation; it may have been deleted")


def _turn(fields: Mapping[str, Any]) -> int:
    if "turn" not in fields:
        raise InputError("turn: is missing")
    return int(fields["turn"])


def _call(fields: Mapping[str, Any]) -> str:
    if "call" not in fields:
        raise InputError("call: is missing")
    return str(fields["call"])


def _settings_of(old: Settings, given: Mapping[str, Any]) -> Settings:
    """Settings with the values that were sent.

    A character may be one of the library's names.

    Raises:
        InputError: a value does not fit; names the field.
    """
    known = {one.name for one in dataclasses.fields(Settings)} - {"more"}
    for name in given:
        if name not in known:
            raise InputError(f"settings: {name!r:.60}: no such setting; known: {', '.join(sorted(known))}")
    changed = dict(given)
    character = changed.get("character")
    if isinstance(character, str) and character in Character.library():
        changed["character"] = Character.named(character).text()
    elif isinstance(character, str) and character:
        Character.from_bytes(character.encode("utf-8", "replace"), "character")
    return Settings.from_dict({**old.to_dict(), **changed})


def _imported(data: bytes, name: str, toolbox: Toolbox | None, code: bool) -> tuple[list[Draft], list[str]]:
    """The conversations that a file holds; and why rows, or parts of them, were left out.

    Args:
        toolbox, code: see `Imported.settings`.

    Raises:
        InputError: it is neither a character nor dialogues.
    """
    skipped: list[str] = []
    try:
        character = Character.from_bytes(data, name)
    except InputError as error:
        if not name.lower().endswith((".json", ".jsonl")):
            raise
        try:
            found = read_conversations(data, skipped=skipped)
        except InputError as other:
            raise InputError(f"{name}: neither a character ({error}) nor dialogues ({other})") from None
        if not found:
            raise InputError(f"{name}: {skipped[0] if skipped else 'holds no conversation'}") from None
        made = []
        for one in found:
            settings = one.settings(toolbox, code=code, left_out=skipped)
            made.append(Draft(one.title, settings.mode, settings.to_dict(), one.messages))
        return made, skipped
    settings = Settings(mode="character", character=character.text())
    return [Draft(character.name, settings.mode, settings.to_dict())], []


@functools.cache
def _characters() -> tuple[dict[str, Any], ...]:
    """The characters of the library, to choose from."""
    found = []
    for key in Character.library():
        one = Character.named(key)
        face = Face.of(one.name)
        found.append(
            {
                "key": key,
                "name": one.name,
                "initials": face.initials,
                "hue": face.hue,
                "greeting": one.greetings[0] if one.greetings else "",
                "tags": one.tags,
                "language": one.language or "zh",
            }
        )
    return tuple(found)


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
