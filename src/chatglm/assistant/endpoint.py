"""One OpenAI-compatible endpoint: reuses its connections, and reports their failures."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import secrets
import ssl
import threading
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from chatglm.assistant.base import Delta
from chatglm.assistant.wire import MISREAD, Lines, Question, refusal
from chatglm.errors import ChatGLMError, DependencyError, InputError, ServiceError, UnsupportedError

if TYPE_CHECKING:
    import httpx

__all__ = ["Endpoint"]

_IDLE = 4.0  # seconds that a connection is kept; many servers (uvicorn) close it after 5
_KEPT = 100  # most idle connections
_WHOLE_BYTES = 64 << 20  # most bytes of a response that is not streamed
_REFUSAL_BYTES = 1 << 20


class Endpoint:
    """An OpenAI-compatible endpoint, and the connections to it.

    Args:
        url: the base URL: `http://host:8000/v1`.
        model: the model's name at the endpoint; None: the first that the endpoint lists, when a request needs it.
        key: sent as a bearer token.
        timeout: seconds without a byte after which the endpoint counts as gone.
        connect: seconds that making a connection may take.

    Attributes:
        name: the URL without user and password; for messages and statistics.

    Raises:
        DependencyError: `httpx` is not installed.
        InputError: `url` is not the URL of an endpoint.
    """

    def __init__(
        self, url: str, model: str | None = None, key: str | None = None, *, timeout: float = 600, connect: float = 10
    ) -> None:
        try:
            import httpx
        except ImportError:
            raise DependencyError("remote assistants need the httpx package: pip install 'chatglm[serve]'") from None
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, TypeError) as error:
            raise InputError(f"{url!r:.200} is not a URL: {error}") from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise InputError(f"{url!r:.200}: expected the base URL of an endpoint, such as http://host:8000/v1")
        if parsed.query or parsed.fragment:
            raise InputError(f"{url!r:.200}: a base URL ends with its path; leave out what follows ? or #")
        self.url, self.model = url.rstrip("/"), model
        self.name = str(parsed.copy_with(userinfo=b"")).rstrip("/")
        self._root = self.url.removesuffix("/v1")  # base URL of routes that are not OpenAI's
        self._timeout, self._connect = timeout, connect
        self._options: dict[str, Any] = {
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
            "timeout": httpx.Timeout(timeout, connect=connect),
            # The caller decides how many requests run at once.
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=_KEPT, keepalive_expiry=_IDLE),
        }
        self._secret = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._clients: dict[asyncio.AbstractEventLoop, tuple[httpx.AsyncClient, AsyncGenerator[None]]] = {}
        self._closed = False

    def close(self) -> None:
        """Close all connections, even those in use. Those of the calling event loop are closed when that loop ends."""
        with self._lock:
            self._closed = True
            client, self._client = self._client, None
            others = [(loop, kept) for loop, (_, kept) in self._clients.items() if loop.is_running()]
        if client is not None:
            client.close()
        for loop, kept in others:
            if loop is not _running_loop():
                with suppress(TimeoutError, RuntimeError):  # the loop hangs, or has just ended
                    asyncio.run_coroutine_threadsafe(_end(kept), loop).result(5)

    # Answers

    def read(self, question: Question) -> Generator[Delta]:
        """Stream the answer.

        Raises:
            InputError, ContextError, QueueFullError: the endpoint refuses the request.
            UnsupportedError: the prompt's log-probabilities were requested, and the endpoint does not return them.
            ServiceError: the endpoint does not answer, or fails; see its `status` and `sent`.
        """
        reading, lines, begun = question.reading(self.name), Lines(self.name), time.perf_counter()
        if self.model is None:
            self.model = self.models()[0]
        answer = self._open(question, self.model)
        try:
            with self._errors():
                if answer.status_code != 200:
                    raise self._refusal(answer, _all(answer.iter_bytes(), _REFUSAL_BYTES))
                if not question.streamed:
                    data = _all(answer.iter_bytes(), _WHOLE_BYTES)
                    yield from question.whole(self.name, data, time.perf_counter() - begun)
                    return
                for data in answer.iter_bytes():
                    for line in lines.take(data):
                        yield from reading.take(line)
                for line in lines.last():
                    yield from reading.take(line)
            yield from reading.end()
        finally:
            answer.close()

    async def aread(self, question: Question) -> AsyncGenerator[Delta]:
        """`read` for coroutines."""
        reading, lines, begun = question.reading(self.name), Lines(self.name), time.perf_counter()
        if self.model is None:
            self.model = (await self.amodels())[0]
        answer = await self._aopen(question, self.model)
        try:
            with self._errors():
                if answer.status_code != 200:
                    raise self._refusal(answer, await _aall(answer.aiter_bytes(), _REFUSAL_BYTES))
                if not question.streamed:
                    data = await _aall(answer.aiter_bytes(), _WHOLE_BYTES)
                    for delta in question.whole(self.name, data, time.perf_counter() - begun):
                        yield delta
                    return
                async for data in answer.aiter_bytes():
                    for line in lines.take(data):
                        for delta in reading.take(line):
                            yield delta
                for line in lines.last():
                    for delta in reading.take(line):
                        yield delta
            for delta in reading.end():
                yield delta
        finally:
            await answer.aclose()

    def _refusal(self, answer: httpx.Response, body: bytes) -> ChatGLMError:
        return refusal(self.name, answer.status_code, body, answer.headers.get("Retry-After"))

    # Models, token counts and health

    def models(self) -> list[str]:
        """The names of its models.

        Raises:
            ServiceError: the endpoint does not list them, or has none.
        """
        with self._errors():
            return self._names(self._http().get(f"{self.url}/models"))

    async def amodels(self) -> list[str]:
        """`models` for coroutines."""
        client = await self._ahttp()
        with self._errors():
            return self._names(await client.get(f"{self.url}/models"))

    def _names(self, answer: httpx.Response) -> list[str]:
        if answer.status_code != 200:
            raise self._trouble(answer)
        try:
            names = [str(one["id"]) for one in answer.json()["data"]]
        except MISREAD as error:
            raise ServiceError(f"{self.name}/models: sent no list of models ({error})") from error
        if not names:
            raise ServiceError(f"{self.name}/models: lists no model")
        return names

    def count(self, question: Question) -> int:
        """How many tokens the prompt of a dialogue has.

        Raises:
            UnsupportedError: the endpoint has no route for this.
            InputError, QueueFullError, ServiceError: see `read`.
        """
        if self.model is None:
            self.model = self.models()[0]
        client = self._http()
        with self._errors():
            answer = client.post(f"{self._root}/tokenize", json={"model": self.model, **question.counted})
        if answer.status_code in (404, 405, 501):
            raise UnsupportedError(f"the tokens of a prompt cannot be counted: {self.name} has no /tokenize")
        if answer.status_code != 200:
            raise self._refusal(answer, answer.content[:_REFUSAL_BYTES])
        try:
            return int(answer.json()["count"])
        except MISREAD as error:
            raise ServiceError(f"{self.name}: /tokenize sent no count ({error})") from error

    async def acheck(self, timeout: float) -> None:
        """Check the endpoint's health. An endpoint without a route for this is healthy if it answers at all.

        Args:
            timeout: seconds.

        Raises:
            ServiceError: it does not answer, or is not healthy.
        """
        client = await self._ahttp()
        with self._errors():
            answer = await client.get(f"{self._root}/health", timeout=timeout)
        if answer.status_code >= 500:
            raise self._trouble(answer)

    def _trouble(self, answer: httpx.Response) -> ServiceError:
        """The error for a failed request that no caller made, such as a check of the health."""
        error = self._refusal(answer, answer.content[:_REFUSAL_BYTES])
        if not isinstance(error, ServiceError):
            error = ServiceError(f"{self.name}: status {answer.status_code}: {error}")
            error.status = answer.status_code
        return error

    # Connections

    def _open(self, question: Question, model: str) -> httpx.Response:
        client, content, tries = self._http(), question.sent(model), _Tries()
        while True:
            request = self._request(client, question, content, {"trace": tries.note})
            with self._errors():
                try:
                    return client.send(request, stream=True)
                except _stale():
                    if not tries.again():
                        raise

    async def _aopen(self, question: Question, model: str) -> httpx.Response:
        client, content, tries = await self._ahttp(), question.sent(model), _Tries()
        while True:
            request = self._request(client, question, content, {"trace": tries.anote})
            with self._errors():
                try:
                    return await client.send(request, stream=True)
                except _stale():
                    if not tries.again():
                        raise

    def _request(
        self, client: httpx.Client | httpx.AsyncClient, question: Question, content: bytes, more: dict[str, Any]
    ) -> httpx.Request:
        headers = {"Content-Type": "application/json"}
        if question.client is not None:
            # With this, the other server can distinguish clients, but cannot find out their addresses.
            digest = hashlib.blake2b(question.client.encode(), key=self._secret, digest_size=16)
            headers["X-Chatglm-Client"] = digest.hexdigest()
        return client.build_request(
            "POST", f"{self.url}/{question.route}", content=content, headers=headers, extensions=more
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Convert all errors of a connection to `ServiceError`."""
        import httpx

        try:
            yield
        except (httpx.HTTPError, httpx.StreamError) as error:
            match error:
                case httpx.ConnectTimeout():
                    words = f"no connection within {self._connect:g} seconds"
                case httpx.TimeoutException():
                    words = f"no answer within {error.request.extensions['timeout']['read']:g} seconds"
                case httpx.ConnectError():
                    words = f"no connection ({error})"
                case _:
                    words = f"the connection broke: {type(error).__name__}: {error}"
            failed = ServiceError(f"{self.name}: {words}")
            failed.sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            raise failed from error

    def _http(self) -> httpx.Client:
        import httpx

        with self._lock:
            self._check()
            if self._client is None:
                self._client = httpx.Client(verify=_trusted(), **self._options)
                weakref.finalize(self, self._client.close)  # if the caller does not close it
            return self._client

    async def _ahttp(self) -> httpx.AsyncClient:
        """The HTTP client for the running event loop: a client can be used in only one loop."""
        import httpx

        loop = asyncio.get_running_loop()
        with self._lock:
            self._check()
            if loop not in self._clients:
                for ended in [other for other in self._clients if other.is_closed()]:
                    del self._clients[ended]
                client = httpx.AsyncClient(verify=_trusted(), **self._options)
                kept = _until_closed(client)
                await anext(kept)  # does not wait, so no other coroutine runs in between
                self._clients[loop] = client, kept
            return self._clients[loop][0]

    def _check(self) -> None:
        if self._closed:
            raise ServiceError(f"{self.name}: the assistant is closed")


class _Tries:
    """Decides whether a failed request is sent again. A reused connection may have been closed by the server meanwhile;
    then the request is sent again. On a new connection it is not, because the server may have received it.
    """

    def __init__(self) -> None:
        self._made, self._left = False, 3

    def note(self, event: str, info: Any) -> None:
        if event.startswith("connection.connect"):
            self._made = True

    async def anote(self, event: str, info: Any) -> None:
        self.note(event, info)

    def again(self) -> bool:
        self._left -= 1
        return not self._made and self._left > 0


def _stale() -> tuple[type[Exception], ...]:
    """The errors of a reused connection that the server had closed meanwhile."""
    import httpx

    return (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


@functools.cache
def _trusted() -> ssl.SSLContext:
    """The trusted certificates. Reading them takes a tenth of a second, too long to do for each client."""
    import httpx

    return httpx.create_ssl_context()


async def _until_closed(client: httpx.AsyncClient) -> AsyncGenerator[None]:
    """Close a client when this generator is closed. An event loop closes its asynchronous generators when it ends."""
    try:
        yield
    finally:
        await client.aclose()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread; None: there is none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _end(kept: AsyncGenerator[None]) -> None:
    await kept.aclose()


def _all(pieces: Iterator[bytes], limit: int) -> bytes:
    found = b""
    for piece in pieces:
        found += piece
        if len(found) >= limit:
            break
    return found[:limit]


async def _aall(pieces: AsyncIterator[bytes], limit: int) -> bytes:
    found = b""
    async for piece in pieces:
        found += piece
        if len(found) >= limit:
            break
    return found[:limit]
