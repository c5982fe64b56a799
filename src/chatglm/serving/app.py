"""The app: dialects over assistants, `/health`, `/metrics` and pages for people."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.metadata
import logging
import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from chatglm.assistant import BaseAssistant
from chatglm.serving import anthropic, chatchat, legacy, openai, rerank, zhipu
from chatglm.serving.access.keys import Keyring
from chatglm.serving.bodies import Limits
from chatglm.serving.catalog import Catalog, Leases, Model
from chatglm.serving.dialect import REFUSED, Dialect, spoken
from chatglm.serving.encoding import Encoder
from chatglm.serving.failures import Failure, failure_of
from chatglm.serving.front import OPEN, Front, hint
from chatglm.serving.hints import DROPPED_HEADER, IGNORED_HEADER
from chatglm.serving.pages import docs_page, start_page
from chatglm.serving.records import REQUEST_ID
from chatglm.serving.service import Service

if TYPE_CHECKING:
    from chatglm.knowledge import Shelf
    from chatglm.tools.interpreter.pool import Kernels
    from chatglm.tools.toolbox import Toolbox

__all__ = ["DIALECTS", "OPTIONAL", "create_app"]

DIALECTS: tuple[Dialect, ...] = (
    anthropic.DIALECT,
    rerank.DIALECT,
    openai.DIALECT,
    zhipu.V4,
    zhipu.V3_STREAM,
    zhipu.V3,
    legacy.DIALECT,
)
"""All dialects. If several own a path, the first counts; if none does, errors have OpenAI's shape."""

OPTIONAL: Mapping[str, tuple[Dialect, ...]] = {"chatchat": (chatchat.V3, chatchat.V1)}
"""Dialects that a server speaks only on request."""


_EXPOSED = (
    REQUEST_ID,
    *(f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")),
)


def create_app(
    assistants: Mapping[str, BaseAssistant] | Catalog,
    *,
    origins: Sequence[str] = (),
    hosts: Collection[str] = (),
    limits: Limits | None = None,
    any_model: bool = False,
    keys: Keyring | None = None,
    open_metrics: bool = False,
    encoders: Mapping[str, Encoder] | None = None,
    home: Path | None = None,
    adapters_from: Path | None = None,
    log_text: bool = False,
    timeout: float | None = None,
    toolbox: Toolbox | None = None,
    kernels: Kernels | None = None,
    tools_without_asking: bool = False,
    page: str = "",
    knowledge: Shelf | None = None,
    dialects: Collection[str] = (),
) -> FastAPI:
    """An ASGI app. The assistants stay their owner's: close them when the server has ended.

    Args:
        assistants: by the model names that requests give; a request that names none gets the first. Or a catalog, whose
            models may be loaded on first use.
        origins: web pages that may use the server from a browser (CORS), such as `https://chat.example`; `*`: all.
        hosts: names under which the server may be asked for (`Host`), besides those of this machine itself; empty: all.
        limits: of request bodies; by default from the longest context of the models.
        any_model: answer requests for unknown models with the first model.
        keys: one of them is needed for all but the pages for people, `/openapi.json` and `/health`; None: none is.
        open_metrics: let `/metrics` be read without a key, too.
        encoders: for embeddings and rerank, by the name that requests give; a request that names none gets the first.
        home: folder of what clients store: tasks, files, batches. It is made when the first one stores something.
            Default: CHATGLM_HOME, or `~/.chatglm`.
        adapters_from: folder from within which LoRA adapters may be loaded by request; None: none may.
        log_text: let the log lines of requests (logger `chatglm.requests`) have the beginning of what was asked and
            answered.
        timeout: seconds that a request may take.
        toolbox: tools that run here for requests that ask for them by name (`server_tools`), and for keys that may
            (`tools`); None: there are none. It stays its owner's, like the assistants.
        kernels: where the code interpreter runs, for requests and keys likewise (`interpreter`); None: there is none.
            The app opens and closes it.
        tools_without_asking: offer tools that need a person's consent, too.
        page: path under which somebody mounts a page that checks itself who asks: no API key is needed there.
        knowledge: bases of documents that requests may be answered from (`/v1/knowledge`); None: there are none. They
            stay their owner's.
        dialects: of `OPTIONAL`, that are spoken besides.
    """
    spoken_here = (*DIALECTS, *(one for name in dialects for one in OPTIONAL[name]))

    def dialect_of(path: str) -> Dialect:
        return next((dialect for dialect in spoken_here if re.fullmatch(dialect.owns, path)), openai.DIALECT)

    def render(path: str, failure: Failure) -> Response:
        """An error in the shape of the dialect that the path belongs to, or else in OpenAI's."""
        return dialect_of(path).render(failure)

    given: dict[str, Model] = {}
    if not isinstance(assistants, Catalog):
        given = {**assistants, **(encoders or {})}
    catalog = assistants if isinstance(assistants, Catalog) else Catalog(given=given)
    service = Service(
        catalog, limits, any_model, keys, home, adapters_from, toolbox, kernels, tools_without_asking, knowledge
    )
    version = importlib.metadata.version("chatglm")
    # The document takes most of a second. So it is made on the first request for it, in a thread.
    app = FastAPI(title="chatglm", version=version, description=__doc__, openapi_url=None, lifespan=_lifespan)
    app.state.service, app.state.dialects = service, spoken_here
    service.origins = tuple(origins)
    service.timeout = timeout
    service.calls.app = app
    for dialect in spoken_here:
        app.include_router(dialect.router(service))
    app.add_middleware(Leases)
    app.add_middleware(
        Front,
        service=service,
        render=render,
        dialect_of=lambda path: "page" if page and path.startswith(f"{page}/") else dialect_of(path).name,
        open_metrics=open_metrics,
        log_text=log_text,
        page=page,
        hosts=hosts,
    )
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"),
            allow_headers=("*",),
            expose_headers=(IGNORED_HEADER, DROPPED_HEADER, "Retry-After", *_EXPOSED),
        )

    @app.get("/", include_in_schema=False)
    async def start(request: Request) -> Response:
        url = str(request.base_url).rstrip("/")
        known = spoken(spoken_here, service)
        return start_page(version, service.catalog.offers, url, known, key=service.keys is not None, page=page)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return docs_page(await asyncio.to_thread(app.openapi))

    @app.get("/openapi.json", include_in_schema=False)
    async def document() -> Response:
        return JSONResponse(await asyncio.to_thread(app.openapi))

    @app.get(
        "/health",
        tags=["server"],
        responses={503: {"description": "a model does not answer, or the server is stopping"}},
    )
    async def health() -> Response:
        """Whether every model answers."""
        if problem := service.problem():
            return JSONResponse({"status": "failed", "problem": problem}, 503)
        if service.drain.announced:
            return JSONResponse({"status": "draining"}, 503)
        said: dict[str, Any] = {"status": "ok"}
        if restarts := service.restarts():
            said["restarts"] = restarts
        if out := service.replicas_out():
            said["replicas_out"] = out
        if service.server_tools.kernels is not None:
            said["kernels"] = service.server_tools.kernels.running
        return JSONResponse(said)

    @app.get(
        "/metrics", tags=["server"], response_class=Response, responses={200: {"content": {CONTENT_TYPE_LATEST: {}}}}
    )
    async def metrics() -> Response:
        """Metrics for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/get_load", include_in_schema=False)
    async def load() -> Response:
        """Number of running requests, for vllm-router: its policy `power_of_two` asks for it every second."""
        return JSONResponse({"load": service.metrics.running})

    # What no route answers, in the shape that most clients read.
    async def refuse(request: Request, error: Exception) -> Response:
        failure = failure_of(error)
        if failure.status == 500:
            logging.getLogger("chatglm.serving").error("%s failed", request.url.path, exc_info=error)
        headers = getattr(error, "headers", None) or {}
        if failure.status == 404:
            known = _paths(await asyncio.to_thread(app.openapi))
            failure = _said(
                failure, f"{request.url.path[:200]}: not found; {hint(request.method, request.url.path, known)}"
            )
        elif failure.status == 405:
            if request.method == "OPTIONS":
                return Response(status_code=204, headers={**headers, "Allow": f"{headers.get('Allow', '')}, OPTIONS"})
            failure = _said(
                failure, f"{request.method} is not allowed for {request.url.path[:200]}; use {headers.get('Allow')}"
            )
        response = render(request.url.path, failure)
        response.headers.update(headers)
        return response

    app.add_exception_handler(HTTPException, refuse)
    app.add_exception_handler(Exception, refuse)
    _complete_document(app, keys is not None)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    service.catalog.begin()
    service.background.resume()
    async with contextlib.AsyncExitStack() as stack:
        if service.server_tools.kernels is not None:
            await stack.enter_async_context(service.server_tools.kernels)
        try:
            yield
        finally:
            await service.background.close()
            service.storage.close()
            for close in service.closing:
                await asyncio.to_thread(close)


def _said(failure: Failure, message: str) -> Failure:
    return dataclasses.replace(failure, message=message)


def _paths(document: Mapping[str, Any]) -> dict[str, list[str]]:
    """The documented routes: methods of each path."""
    return {path: [method.upper() for method in operations] for path, operations in document["paths"].items()}


def _complete_document(app: FastAPI, keys: bool) -> None:
    """Leave FastAPI's own validation error out of the document, which dialects replace by theirs; add what is said of
    keys before a dialect sees a request.

    Args:
        keys: whether requests need one.
    """
    make = app.openapi

    def openapi() -> dict[str, Any]:
        document = make()
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                operation["responses"].pop("422", None)
                if keys and not (path in OPEN and method == "get"):
                    operation["security"] = [{"key": []}]
                    for status in (401, 403, 429):
                        operation["responses"].setdefault(str(status), {"description": REFUSED[status]})
        for name in ("HTTPValidationError", "ValidationError"):
            document.get("components", {}).get("schemas", {}).pop(name, None)
        if keys:
            document.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        return document

    app.openapi = openapi  # type: ignore[method-assign]
