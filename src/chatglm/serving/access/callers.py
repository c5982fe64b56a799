"""Who sends a request: for fair shares of the engine, and so that nobody sees what belongs to others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from chatglm.serving.failures import ForbiddenError

__all__ = ["CALLER", "CLIENT_HEADER", "Caller", "caller_of", "check_origin"]

CLIENT_HEADER = "X-Chatglm-Client"
"""Header in which another `chatglm serve` in front of this one (`--remote`) names its client, so that its clients share
fairly. If keys are needed, the header counts only with a key that has the right `forward`."""

CALLER = "chatglm.caller"
"""Key of `scope["state"]`: the caller, found by its API key, or set by the server if it sends a request for somebody
itself."""


@dataclass(frozen=True)
class Caller:
    """The sender of a request.

    Attributes:
        owner: id of the API key; "" where the server needs none. What a caller stores (tasks, responses, files) belongs
            to its owner, and only callers with the same owner see it.
        client: for a fair share of the engine. `Options.client` takes it.
    """

    owner: str
    client: str


def caller_of(request: HTTPConnection) -> Caller:
    """Return the sender of a request.

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
        ForbiddenError: the request comes from a page that may not use the server.
    """
    origin = headers.get("origin")
    if origin is None or "*" in origins or origin in origins:
        return
    if origin.partition("://")[2] != headers.get("host"):
        raise ForbiddenError(
            f"Origin: pages of {origin:.100} may not use this server; `chatglm serve --cors ORIGIN` allows them"
        )
