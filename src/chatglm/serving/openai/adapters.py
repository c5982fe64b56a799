"""LoRA adapters that come and go while the server runs, by vLLM's `/v1/load_lora_adapter` and `unload_lora_adapter`."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import Field

from chatglm.errors import ChatGLMError, InputError, UnsupportedError
from chatglm.serving.access.callers import caller_of
from chatglm.serving.dialect import Refusals, Strict, refusals
from chatglm.serving.failures import ForbiddenError, NotOfferedError
from chatglm.serving.openai.responses import ErrorResponse
from chatglm.serving.service import Service

__all__ = ["add_adapters"]

_NAME = r"^[^\s=/\\]{1,128}$"


class LoadAdapterRequest(Strict):
    lora_name: str = Field(pattern=_NAME, description="the name that requests use for it (`model`)")
    lora_path: str = Field(
        min_length=1, max_length=4096, description="its folder, inside the folder of --adapters-from"
    )
    load_inplace: bool | None = Field(None, description="replace an adapter that has this name")
    base_model_name: str | None = Field(None, description="the model that it is for; default: the first")


class UnloadAdapterRequest(Strict):
    lora_name: str = Field(pattern=_NAME)


_REFUSALS: Refusals = {
    200: {"content": {"text/plain": {}}},
    **refusals(
        ErrorResponse,
        *(400, 403, 404, 501, 503),
        words={
            400: "a field is wrong, or the folder is not an adapter for this model",
            403: "this caller may not do it",
            404: "no such model or adapter",
        },
    ),
}


def add_adapters(routes: APIRouter, service: Service) -> None:
    def permit(request: Request) -> None:
        service.permit(caller_of(request), "manage-adapters")
        if service.keys is None and not _is_local(request):
            raise ForbiddenError("adapters are loaded and unloaded from this machine only, or with an API key that may")

    @routes.post("/load_lora_adapter", response_class=Response, responses=_REFUSALS)
    async def load(body: LoadAdapterRequest, request: Request) -> Response:
        """Load a LoRA adapter under its own name. Running requests continue."""
        permit(request)
        caller = caller_of(request)
        base = service.offer(body.base_model_name, caller)
        folder = _folder(body.lora_path, service.adapters_from)
        try:
            await service.catalog.load_adapter(body.lora_name, folder, base, replace=bool(body.load_inplace))
        except (InputError, UnsupportedError, NotOfferedError):
            raise
        except (ChatGLMError, OSError) as error:
            raise InputError(f"lora_path: {error}") from error
        return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' added successfully.")

    @routes.post("/unload_lora_adapter", response_class=Response, responses=_REFUSALS)
    async def unload(body: UnloadAdapterRequest, request: Request) -> Response:
        """Remove an adapter, as soon as no request uses it any more."""
        permit(request)
        await service.catalog.unload_adapter(body.lora_name)
        return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")


def _is_local(request: Request) -> bool:
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def _folder(given: str, root: Path | None) -> Path:
    """
    Raises:
        InputError, UnsupportedError: adapters are not loaded from there.
    """
    if root is None:
        raise UnsupportedError(
            "lora_path: no adapters can be loaded; start `chatglm serve` with --adapters-from FOLDER"
        )
    try:
        whole = (root / given).resolve()
        inside = whole.is_relative_to(root.resolve()) and whole.is_dir()
    except (OSError, ValueError, RuntimeError):
        inside = False
    if not inside:
        raise InputError(
            f"lora_path: {given!r:.200} is not a folder within {root.name!r}, where adapters are loaded from"
        )
    return whole
