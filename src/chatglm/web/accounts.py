"""Who sends a request, and whether its origin is allowed.

If people sign in, a cookie has the token of a login. If not, every browser is one user: its cookie also has a token,
and the user is made when the browser first stores something. Pages of other sites can neither send requests for a user
(`Origin`) nor reach a server of this machine by a name that points here (`Host`).
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from chatglm.conversation.users import SignInError, User, Users
from chatglm.hosts import check_host
from chatglm.web.failures import ForbiddenError, LimitError, SignInNeededError

__all__ = ["COOKIE", "Accounts", "Rate", "check_source"]

COOKIE = "chatglm_session"
_COOKIE_SECONDS = 400 * 86400  # as long as browsers keep one
_TRIES, _TRIES_SECONDS = 5, 60.0
_GUESTS, _GUESTS_SECONDS = 60, 60.0
_UNSAFE = ("POST", "PUT", "PATCH", "DELETE")


class Rate:
    """A limit of times in a number of seconds, for each key.

    Args:
        keys: how many are remembered; the least recently seen is forgotten first.
    """

    def __init__(self, most: int, seconds: float, keys: int = 10_000) -> None:
        self._most, self._seconds, self._keys = most, seconds, keys
        self._times: OrderedDict[str, list[float]] = OrderedDict()

    def take(self, key: str) -> None:
        """Count one try.

        Raises:
            LimitError: there were too many.
        """
        now = time.monotonic()
        times = [one for one in self._times.pop(key, ()) if one > now - self._seconds]
        self._times[key] = times
        if len(times) >= self._most:
            raise LimitError(times[0] + self._seconds - now)
        times.append(now)
        while len(self._times) > self._keys:
            self._times.popitem(last=False)


@dataclass(frozen=True)
class Accounts:
    """
    Args:
        login: whether people have to sign in.
        key: whoever has it may sign in as this machine's own user; "": nobody may.
    """

    users: Users
    login: bool
    key: str
    _tries: Rate
    _guests: Rate

    @classmethod
    def of(cls, users: Users, login: bool, key: str = "") -> Accounts:
        return cls(users, login, key, Rate(_TRIES, _TRIES_SECONDS), Rate(_GUESTS, _GUESTS_SECONDS))

    def who(self, request: Request) -> User | None:
        """The user of a request; None: a browser that has stored nothing yet. It reads the store, and is called in a
        thread.

        Raises:
            SignInNeededError: people have to sign in, and this one has not.
        """
        token = request.cookies.get(COOKIE, "")
        found = self.users.of_token(token) if token else None
        if found is not None and self.login and found.guest:  # from a time when nobody had to sign in
            found = None
        if found is None and self.login:
            raise SignInNeededError
        return found

    async def asker(self, request: Request) -> str:
        """A name for whoever asks, to limit how often: that of the user, or the address of a browser that has stored
        nothing yet.

        Raises:
            SignInNeededError: people have to sign in, and this one has not.
        """
        found = await asyncio.to_thread(self.who, request)
        return f"address {_address(request)}" if found is None else str(found.id)

    async def someone(self, request: Request) -> tuple[User, str]:
        """The user of a request, made for a browser that has stored nothing yet; and the token for its cookie ("": it
        has one).

        Raises:
            SignInNeededError: people have to sign in, and this one has not.
            LimitError: too many new browsers came from one address.
        """
        found = await asyncio.to_thread(self.who, request)
        if found is not None:
            return found, ""
        self._guests.take(_address(request))
        return await asyncio.to_thread(self.users.guest)

    async def sign_in(self, request: Request, name: str, password: str) -> str:
        """The token of a new login.

        Raises:
            SignInError: the name or the password is wrong.
            LimitError: there were five tries within a minute, from this address or for this name.
        """
        self._tries.take(f"address {_address(request)}")
        self._tries.take(f"name {name[:80].casefold()}")
        return await asyncio.to_thread(self.users.sign_in, name, password)

    async def open_own(self, request: Request, key: str) -> str:
        """The token of a login as this machine's own user.

        Raises:
            SignInError: the key is wrong, or there is none.
            LimitError: there were five tries within a minute from this address.
        """
        self._tries.take(f"address {_address(request)}")
        if not self.key or not hmac.compare_digest(self.key.encode(), key.encode("utf-8", "replace")):
            raise SignInError("the key is wrong; use the address that the program showed when it started")
        return await asyncio.to_thread(self.users.sign_in_local)

    async def sign_out(self, request: Request) -> None:
        if token := request.cookies.get(COOKIE, ""):
            await asyncio.to_thread(self.users.sign_out, token)

    def keep(self, request: Request, response: Response, token: str, path: str) -> None:
        """Let the browser keep a token."""
        response.set_cookie(
            COOKIE,
            token,
            max_age=_COOKIE_SECONDS,
            path=path,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )

    def forget(self, response: Response, path: str) -> None:
        response.delete_cookie(COOKIE, path=path, httponly=True, samesite="strict")


def check_source(connection: HTTPConnection, method: str, hosts: Collection[str]) -> None:
    """
    Args:
        hosts: allowed host names of the page; empty: all. Names of this machine itself are always allowed.

    Raises:
        ForbiddenError: the request names another host, or changes something and comes from a page of another site.
    """
    host = connection.headers.get("host", "")
    if problem := check_host(host, hosts):
        raise ForbiddenError(problem)
    if method in _UNSAFE:
        origin = connection.headers.get("origin", "")
        if not origin or urlsplit(origin).netloc.lower() != host.lower():
            raise ForbiddenError(f"Origin {origin[:80]!r}: only this page itself may make changes")


def _address(request: Request) -> str:
    return request.client.host if request.client else ""
