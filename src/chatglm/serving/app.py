"""The server: dialects over assistants, `/health` and `/metrics`."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from chatglm.assistant import BaseAssistant
from chatglm.serving import legacy, openai
from chatglm.serving.dialect import Service, failure_of

__all__ = ["create_app"]

DIALECTS = (openai.router, legacy.router)
"""A dialect is a line here: a function from the `Service` to its router."""


def create_app(assistants: Mapping[str, BaseAssistant]) -> FastAPI:
    """An ASGI app. The assistants stay their owner's: close them when the server has ended.

    Args:
        assistants: by the model names that requests give; a request that names none gets the first.
    """
    service = Service(assistants)
    app = FastAPI(title="chatglm", version=importlib.metadata.version("chatglm"), description=__doc__)
    for dialect in DIALECTS:
        app.include_router(dialect(service))

    @app.get("/health", tags=["server"], responses={503: {"description": "a model does not answer any more"}})
    async def health() -> dict[str, str]:
        """Whether every model answers."""
        if problem := service.problem():
            return JSONResponse({"status": "failed", "problem": problem}, 503)  # type: ignore[return-value]
        return {"status": "ok"}

    @app.get(
        "/metrics", tags=["server"], response_class=Response, responses={200: {"content": {CONTENT_TYPE_LATEST: {}}}}
    )
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    # What no route answers, in the shape that most clients read.
    async def refuse(request: Request, error: Exception) -> Response:
        failure = failure_of(error)
        if failure.status == 500:
            logging.getLogger("chatglm.serving").error("%s failed", request.url.path, exc_info=error)
        response = openai.render(failure)
        response.headers.update(getattr(error, "headers", None) or {})
        return response

    app.add_exception_handler(HTTPException, refuse)
    app.add_exception_handler(Exception, refuse)
    _without_422(app)
    return app


def _without_422(app: FastAPI) -> None:
    """FastAPI documents its own validation error, which dialects here replace by theirs."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        document = make()
        for operations in document["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            document.get("components", {}).get("schemas", {}).pop(name, None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
