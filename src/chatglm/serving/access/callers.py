"""Who asks: for fair shares of the engine, and so that nobody sees what belongs to another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from chatglm.serving.failures import ForbiddenError

__all__ = ["CALLER", "CLIENT_HEADER", "Caller", "caller_of", "check_origin"]

CLIENT_HEADER = "X-Chatglm-Client"
"""Says for whom another `chatglm serve` asks that stands in front of this one (`--remote`): its clients are to share
fairly. Where keys are needed, only those with the right `forward` are believed."""

CALLER = "chatglm.caller"
"""Key of `scope["state"]`: who asks, found by the API key, or where the server itself sends a request in somebody's
name."""


@dataclass(frozen=True)
class Caller:
    """Who a request comes from.

    Attributes:
        owner: id of the API key; "" where the server needs none. What a caller stores (tasks, responses, files) belongs
            to its owner, and only callers with the same owner see it.
        client: for a fair share of the engine. `Options.client` takes it.
    """

    owner: str
    client: str


def caller_of(request: HTTPConnection) -> Caller:
    """Who sends a request.

    With an API key, the key is the client, or says for which client it asks. Without one a client is a hash of the
    peer's address and of the key that is sent although none is needed. The address alone would make one client of all
    behind a proxy; the key alone, of all who send the same dummy key.
    """
    if (caller := request.scope.get("state", {}).get(CALLER)) is not None:
        assert isinstance(caller, Caller)
        return caller
    headers = request.headers
    client = headers.get(CLIENT_HEADER, "")
    key = headers.get("authorization") or headers.get("x-api-key") or headers.get("api-key") or ""
    address = request.client.host if request.client is not None else ""
    return Caller("", hashlib.blake2b(f"{address}\n{key}\n{client}".encode(), digest_size=16).hexdigest())


def check_origin(headers: Mapping[str, str], origins: Sequence[str]) -> None:
    """
    Args:
        origins: of pages that may use the server, besides its own.

    Raises:
        ForbiddenError: a page asks that may not.
    """
    origin = headers.get("origin")
    if origin is None or "*" in origins or origin in origins:
        return
    if origin.partition("://")[2] != headers.get("host"):
        raise ForbiddenError(
            f"Origin: pages of {origin:.100} may not use this server; `chatglm serve --cors ORIGIN` allows them"
        )
