"""Bodies of the page's requests: their size is limited, and every field of their JSON is checked."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect, Request

from chatglm.errors import InputError
from chatglm.web.failures import BodyError

__all__ = ["fields_of", "form_of", "parts", "read", "whole_number"]

_JSON = 5 << 20
_PARTS = 200_000  # lists and objects in it: reading more stops all others for a while
_FORM = 16 << 10
_SECONDS, _RATE = 30.0, 8 << 10  # that a body may take, and one more for so many bytes


async def parts(request: Request, most: int) -> AsyncGenerator[bytes]:
    """The pieces of the body as they arrive.

    Args:
        most: bytes of it.

    Raises:
        BodyError: it is compressed, too large or too slow.
        ClientDisconnect: the client left.
    """
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise BodyError("Content-Encoding: send the body uncompressed", 415)
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length[:20]) > most:
        raise _too_large(most)
    size, begun = 0, time.monotonic()
    while True:
        left = begun + _SECONDS + size / _RATE - time.monotonic()
        try:
            message = await asyncio.wait_for(request.receive(), max(left, 0.0))
        except asyncio.TimeoutError:
            raise BodyError("the body did not arrive in time", 408) from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise _too_large(most)
        yield part
        if not message.get("more_body", False):
            return


async def read(request: Request, most: int) -> bytes:
    """The whole body.

    Raises:
        BodyError, ClientDisconnect: as `parts`.
    """
    return b"".join([part async for part in parts(request, most)])


async def fields_of(request: Request, **kinds: type | tuple[type, ...]) -> dict[str, Any]:
    """The fields of a JSON object; what is not sent is left out.

    Args:
        kinds: of each field that may be there.

    Raises:
        InputError: it is not a JSON object, or has another field, or a value of another type; names the field.
        BodyError, ClientDisconnect: as `parts`.
    """
    body = await read(request, _JSON)
    if not body.strip():
        return {}
    if len(body) > 64 << 10:
        return await asyncio.to_thread(_fields, body, kinds)
    return _fields(body, kinds)


def _fields(body: bytes, kinds: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    if body.count(b"[") + body.count(b"{") > _PARTS:
        raise InputError(f"the body has more than {_PARTS:,} lists and objects")
    try:
        value = json.loads(body, parse_constant=_no_number)
    except UnicodeDecodeError:
        raise InputError("the body is not UTF-8") from None
    except RecursionError:
        raise InputError("the body is nested too deep") from None
    except ValueError as error:
        raise InputError(f"the body is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise InputError("the body must be a JSON object")
    for name, given in value.items():
        if name not in kinds:
            raise InputError(f"{name!r:.60}: no such field; known: {', '.join(kinds)}")
        kind = kinds[name]
        # A bool is an int in Python, but never meant as a number.
        allowed = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(given, allowed) or (isinstance(given, bool) and bool not in allowed):
            raise InputError(f"{name}: {given!r:.60} is of the wrong type")
    _check_text(value)
    return value


def _check_text(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        raise InputError("the body has half of a surrogate pair, or is nested too deep") from None


async def form_of(request: Request, most: int = _FORM) -> dict[str, str]:
    """The fields of a form as browsers send it without files; of several with one name the first.

    Args:
        most: bytes of it.

    Raises:
        InputError: it is not UTF-8, or has too many fields.
        BodyError, ClientDisconnect: as `parts`.
    """
    body = await read(request, most)
    try:
        found = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=20, errors="strict")
    except ValueError:
        raise InputError("the form cannot be read") from None
    return {name: values[0] for name, values in found.items()}


def _too_large(most: int) -> BodyError:
    return BodyError(f"the body is too large; at most {most:,} bytes are taken", 413)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def whole_number(text: str, name: str, digits: int = 15) -> int:
    """A number of a path or a query, in at most so many digits.

    Raises:
        InputError: it is none.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= digits):
        raise InputError(f"{name}: must be a whole number")
    return int(text)
