"""Request bodies: their size is limited before they are read, and their JSON before it is used.

Sizes, depth and counts are checked in time linear in the size. A refusal says the reason: too large,
compressed, not UTF-8, not JSON, nested too deeply, too many items.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request

from chatglm.errors import InputError

__all__ = ["LARGE", "BodyError", "Limits", "containers", "parse", "parse_now", "parts", "read"]

_BYTES_PER_TOKEN = 16
_DIGITS = 100
LARGE = 1 << 16
"""Bytes: larger bodies are parsed in a thread, so that the event loop goes on."""


@dataclass(frozen=True)
class Limits:
    """How large a request may be.

    Attributes:
        body: bytes.
        items: entries of one array or object. Numbers do not count, so that prompts may be token ids.
        values: entries of all arrays and objects together, without numbers.
        depth: of arrays and objects in each other.
        seconds: that sending a body may take, plus one for every `rate` bytes.
        rate: bytes per second that a slow client must reach after that time.
    """

    body: int = 16 << 20
    items: int = 2048
    values: int = 1 << 15
    depth: int = 100
    seconds: float = 30.0
    rate: int = 8192

    @classmethod
    def of_context(cls, tokens: int) -> Limits:
        """Return the limits for a model: a body may have 16 bytes per token of its context, and 1 MiB for tools,
        schemas and a longer history.

        Args:
            tokens: length of the context.
        """
        return cls(body=_BYTES_PER_TOKEN * tokens + (1 << 20))


class BodyError(InputError):
    """A body cannot be read.

    Attributes:
        status: of the response.
        code: a word for programs.
        param: the field at fault, if it is known.
    """

    def __init__(self, message: str, code: str = "bad_json", status: int = 400, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


async def read(request: Request, limits: Limits) -> bytes:
    """The body as it was sent.

    Raises:
        BodyError, ClientDisconnect: as `parts`.
    """
    return b"".join([part async for part in parts(request, limits)])


async def parts(request: Request, limits: Limits) -> AsyncIterator[bytes]:
    """The pieces of the body as they arrive.

    Raises:
        BodyError: it is compressed, too large or too slow; what is too large is not read to its end.
        ClientDisconnect: the client left.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise BodyError(
            f"Content-Encoding: {encoding[:40]!r} is not supported; send the body uncompressed",
            "unsupported_encoding",
            415,
        )
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length[:20]) > limits.body:
        raise _too_large(limits)
    size = 0
    start = time.monotonic()
    while True:
        left = start + limits.seconds + size / limits.rate - time.monotonic()
        try:
            message = await asyncio.wait_for(request.receive(), max(left, 0.0))
        except asyncio.TimeoutError:
            raise BodyError(
                f"the body did not arrive in time: {size} bytes in {time.monotonic() - start:.0f} seconds",
                "timeout",
                408,
            ) from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        size += len(part)
        if size > limits.body:
            raise _too_large(limits)
        yield part
        if not message.get("more_body", False):
            return


def _too_large(limits: Limits) -> BodyError:
    return BodyError(f"the body is too large; this server takes at most {limits.body:,} bytes", "too_large", 413)


async def parse(body: bytes, limits: Limits, executor: Executor | None = None) -> dict[str, Any]:
    """The JSON object that a body is.

    Args:
        executor: where large bodies are parsed; None: the event loop's.

    Raises:
        BodyError: it is none, or exceeds a limit; the message says which.
    """
    if len(body) <= LARGE:
        return parse_now(body, limits)
    return await asyncio.get_running_loop().run_in_executor(executor, parse_now, body, limits)


def parse_now(body: bytes, limits: Limits) -> dict[str, Any]:
    """`parse` for callers that are in a thread already."""
    text = _text(body)
    if not text.strip(" \t\r\n"):
        raise BodyError("the body is empty; send a JSON object")
    _check_structure(text, limits)
    long = re.search(rf"[0-9]{{{_DIGITS + 1}}}", text)
    try:
        value = json.loads(
            text,
            parse_int=_integer if long else None,
            parse_float=_finite,
            parse_constant=_no_number,
            object_pairs_hook=_object,
        )
    except json.JSONDecodeError as error:
        reason = error.msg.removesuffix(" at")
        near = f", near {text[error.pos : error.pos + 20]!r}" if error.pos < len(text) else ", where it ends"
        raise BodyError(
            f"the body is not JSON: {reason[:1].lower()}{reason[1:]} at character {error.pos}{near}"
        ) from None
    except RecursionError:
        raise _too_deep(limits) from None
    if not isinstance(value, dict):
        kind = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(type(value), "a number")
        raise BodyError(f"the body must be a JSON object, got {kind}")
    _check_counts(value, limits)
    if re.search(r"\\u[dD][89a-fA-F]", text):
        _check_surrogates(value)
    return value


def _text(body: bytes) -> str:
    if body.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in body[:4]:
        raise BodyError("the body is not UTF-8; it looks like UTF-16. Send JSON in UTF-8", "bad_encoding")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = f"byte 0x{body[error.start]:02X} at offset {error.start}"
    try:
        body.decode("gb18030")
    except UnicodeDecodeError:
        guess = ""
    else:
        guess = "; it looks like GBK, the encoding of Chinese Windows consoles"
    raise BodyError(
        f"the body is not UTF-8 ({place}){guess}. Send JSON in UTF-8, or escape other characters than ASCII as \\uXXXX",
        "bad_encoding",
    )


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise BodyError(f"the body has an integer of {len(digits)} digits; at most {_DIGITS} are supported")
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BodyError(f"the body has the number {text[:40]}, which is too large")
    return value


def _no_number(name: str) -> None:
    raise BodyError(f"the body has {name}, which is not JSON; use a number or null")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise BodyError(f"the body has the key {twice[:80]!r} twice in one object; remove one", param=_param(twice))
    return made


def _param(name: str) -> str | None:
    return name if re.fullmatch(r"\w{1,64}", name, re.ASCII) else None


def _too_deep(limits: Limits, field: str | None = None) -> BodyError:
    where = f"{field}: " if field else "the body: "
    return BodyError(
        f"{where}arrays and objects are nested too deeply; at most {limits.depth} levels are supported",
        "too_deep",
        param=field,
    )


def _check_structure(text: str, limits: Limits) -> None:
    """Refuse too many arrays and objects before any is made: making them is what takes long.

    Raises:
        BodyError: there are too many.
    """
    if (count := containers(text, limits.values)) > limits.values:
        raise _too_many_values(count, limits)


def containers(text: str, most: int) -> int:
    """How many arrays and objects a JSON text has; it need not be exact if there are no more than `most`."""
    count = text.count("[") + text.count("{")
    if count > most:
        # Most of them may be in strings, which are every second piece between quotes.
        outside = "".join(text.replace("\\\\", "").replace('\\"', "").split('"')[::2])
        count = outside.count("[") + outside.count("{")
    return count


def _too_many_values(count: int, limits: Limits) -> BodyError:
    text = f"the body has too many values ({count:,}); at most {limits.values:,} are supported"
    return BodyError(text, "too_many_items")


def _check_counts(value: dict[str, Any], limits: Limits) -> None:
    """
    Raises:
        BodyError: there is too much of something; nothing is walked twice.
    """
    level: list[tuple[str, Any]] = [("", value)]
    total, depth = 0, 0
    while level:
        depth += 1
        below: list[tuple[str, Any]] = []
        for field, container in level:
            if depth > limits.depth:
                raise _too_deep(limits, _param(field))
            entries: Iterable[tuple[str, Any]]
            if isinstance(container, dict):
                entries = container.items() if field else ((name, each) for name, each in container.items())
                named = [(field or name, each) for name, each in entries if type(each) not in (int, float)]
            else:
                named = [(field, each) for each in container if type(each) not in (int, float)]
            if len(named) > limits.items:
                where = _param(field)
                raise BodyError(
                    f"{where or 'the body'}: too many items ({len(named):,}); "
                    f"an array or object may have at most {limits.items:,}",
                    "too_many_items",
                    param=where,
                )
            total += len(named)
            below += [(name, each) for name, each in named if isinstance(each, dict | list)]
        level = below
    if total > limits.values:
        raise _too_many_values(total, limits)


def _check_surrogates(value: Any) -> None:
    """Refuse half of a surrogate pair, which JSON can write: it is not text, and tokenizers cannot handle it."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BodyError(
            f"the body has half of a surrogate pair (\\u{ord(error.object[error.start]):04x}), which is not a "
            "character; write characters beyond \\uffff as themselves or as both halves",
            "bad_encoding",
        ) from None
