"""Connections with limits, and a server that finishes what it has begun.

uvicorn parses HTTP and runs the app. Its h11 protocol has no time limits for headers and for clients that do not read,
and it drops clients that close their side after the request; `Connection` adds this. `Server` adds how it ends: new
requests are refused while running ones finish, and those that do not finish in time get an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http
import json
import logging
import os
import signal
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import HANDLED_SIGNALS

from chatglm.errors import InputError
from chatglm.serving import memory
from chatglm.serving.service import IDLE, OVERLOADED, Idle, Service

__all__ = ["BareServer", "Connection", "ConnectionLimits", "Server", "bind", "run"]

log = logging.getLogger("uvicorn.error")


@dataclass(frozen=True)
class ConnectionLimits:
    """How many clients may be connected, and how long the server waits for them. Times in seconds.

    Attributes:
        connections: at a time, WebSockets included. Beyond it, the one that has been idle longest is closed; if none is
            idle, the new one gets a 503.
        head: from the first byte of a request (or from connecting) to the end of its headers.
        idle: between two requests.
        rest: for what remains of a body that nobody reads.
        stall: for a client that does not read its response.
        head_bytes: of request line and headers.
    """

    connections: int = 1000
    head: float = 20.0
    idle: float = 60.0
    rest: float = 20.0
    stall: float = 60.0
    head_bytes: int = 32 << 10


_RELEASE = 20.0  # seconds between two releases of memory, if there were requests
_LOOK = 0.25  # seconds between two looks at whether a half-closed client is still there
_LOOKS_A_PROBE = 20
_MESSAGE_BYTES = 1 << 20  # of a WebSocket, from a client
_SEND_BUFFER = 128 << 10  # bytes in the system for a client that does not read; without a limit it grows to megabytes


class _Parser(h11.Connection):
    """A parser that remembers what was wrong."""

    error: h11.RemoteProtocolError | None = None

    def next_event(self) -> Any:
        try:
            return super().next_event()
        except h11.RemoteProtocolError as error:
            self.error = error
            raise


class _Transport:
    """A transport whose `close` lets the client read the response. Without it, a client that still sends is cut off.

    Args:
        sending: whether the client is in the middle of a request.
    """

    def __init__(self, inner: asyncio.Transport, sending: Callable[[], bool], limits: ConnectionLimits) -> None:
        self._inner, self._sending, self._limits = inner, sending, limits
        self.lingering = False
        self.timer: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def is_closing(self) -> bool:
        return self.lingering or self._inner.is_closing()

    def close(self) -> None:
        if self.is_closing():
            return
        seconds = self._limits.stall
        if self._sending() and self._inner.can_write_eof():
            self.lingering = True
            seconds = self._limits.rest
            self._inner.write_eof()
            self._inner.resume_reading()
        else:
            self._inner.close()
        # Neither a client that goes on sending nor one that does not read keeps the connection open.
        self.timer = asyncio.get_running_loop().call_later(seconds, self._inner.abort)


class Connection(H11Protocol):
    """One client."""

    def __init__(self, *arguments: Any, limits: ConnectionLimits, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._limits = limits
        self.conn = _Parser(h11.SERVER, limits.head_bytes)
        self.timeout_keep_alive = limits.idle  # type: ignore[assignment]
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._half_closed = False
        self._looks = 0
        self._since = self.loop.time()  # when it became idle

    # Timers

    def _after(self, seconds: float, name: str, action: Callable[[], None]) -> None:
        """Call it after that time, unless `_stop(name)` comes first."""
        self._stop(name)
        self._timers[name] = self.loop.call_later(seconds, action)

    def _stop(self, name: str) -> None:
        if timer := self._timers.pop(name, None):
            timer.cancel()

    @property
    def _running(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _sending(self) -> bool:
        """Whether the client is in the middle of a request."""
        return self.conn.their_state is h11.SEND_BODY or bool(self.conn.trailing_data[0])

    # What the event loop says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # clients that vanish without a word
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        if len(self.connections) >= self._limits.connections and not self._make_room():
            if len(self.connections) >= 2 * self._limits.connections:
                transport.abort()
            self.app_state = {**self.app_state, OVERLOADED: True}
        wrapped: Any = _Transport(transport, lambda: self._sending, self._limits)
        super().connection_made(wrapped)
        self._after(self._limits.head, "head", self._too_late)

    def _make_room(self) -> bool:
        idle = {one: since for one in self.connections if (since := _idle_since(one)) is not None}
        if not idle:
            return False
        longest = min(idle, key=idle.__getitem__)
        if isinstance(longest, Connection):
            self.connections.discard(longest)
            longest.transport.abort()
        else:
            longest.shutdown()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        for name in list(self._timers):
            self._stop(name)
        if timer := getattr(self.transport, "timer", None):
            timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return  # nobody reads it any more
        if not self._running and "head" not in self._timers:
            self._after(self._limits.head, "head", self._too_late)
        super().data_received(data)
        if self._running:
            self._stop("head")
        elif self.conn.their_state is not h11.SEND_BODY:
            self._stop("rest")

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that has sent everything may wait for its answer. One that has left looks the same at first."""
        whole = self._running and self.conn.their_state is not h11.SEND_BODY
        if self.transport.is_closing() or not whole or self.scope["scheme"] == "https":  # TLS ends both ways at once
            self.transport.close()
            return False
        if not self._half_closed:
            self._half_closed = True
            self._after(_LOOK, "look", self._look)
        return True

    def _look(self) -> None:
        """See whether a half-closed client is still there."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
            return
        # A client that waits ignores this line; the system of one that left answers it with a reset.
        if self._running and not self.cycle.response_started and self.scope["http_version"] == "1.1":
            if self._looks % _LOOKS_A_PROBE == 0:
                self.transport.write(self.conn.send(h11.InformationalResponse(status_code=100, headers=[])))
            self._looks += 1
        self._after(_LOOK, "look", self._look)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._after(self._limits.stall, "stall", self.transport.abort)

    def resume_writing(self) -> None:
        self._stop("stall")
        super().resume_writing()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Give the connection to the WebSocket protocol, which has its own time limits."""
        for name in list(self._timers):
            self._stop(name)
        self.app_state = {**self.app_state, IDLE: Idle()}
        super().handle_websocket_upgrade(event)

    # What the server says

    def on_response_complete(self) -> None:
        self._since = self.loop.time()
        super().on_response_complete()
        if self._running or self.transport.is_closing():
            return
        if self._half_closed:
            self.transport.close()
        elif self.conn.their_state is h11.SEND_BODY:
            self._after(self._limits.rest, "rest", self.transport.abort)
        elif self._sending:
            self._after(self._limits.head, "head", self._too_late)

    def shutdown(self) -> None:
        """Take no further request. A client that has just connected may still send one, and gets a refusal."""
        if self.cycle is not None:
            super().shutdown()

    def _too_late(self) -> None:
        self._timers.pop("head", None)
        if self._running or self.transport.is_closing():
            return
        if self.conn.trailing_data[0]:
            self._refuse(408, f"the headers did not arrive within {self._limits.head:g} seconds", "timeout")
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is not valid HTTP."""
        error = getattr(self.conn, "error", None)
        status = getattr(error, "error_status_hint", 400)
        if status == 431:
            words = f"the request line and headers are too large; at most {self._limits.head_bytes:,} bytes are read"
            self._refuse(status, words, "too_large")
        else:
            self._refuse(status, f"this is not a valid HTTP/1.1 request: {error or msg}", "bad_request")

    def _refuse(self, status: int, message: str, code: str) -> None:
        """Answer without the app, which has not got a request, and close."""
        inner = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        body = json.dumps({"error": inner}).encode()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        reason = http.HTTPStatus(status).phrase.encode()
        with contextlib.suppress(h11.LocalProtocolError):  # a response is under way already
            for event in (
                h11.Response(status_code=status, headers=headers, reason=reason),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                if data := self.conn.send(event):
                    self.transport.write(data)
        self.transport.close()


def _idle_since(one: Any) -> float | None:
    """When a connection became idle, in the time of the event loop; None: it is being answered, or closed.

    Args:
        one: a `Connection`, or a WebSocket of uvicorn.
    """
    if isinstance(one, Connection):
        return None if one._running else one._since
    idle: Idle = one.app_state[IDLE]
    return None if one.transport.is_closing() else idle.since


class BareServer(uvicorn.Server):
    """A server for any app, with limits of connections. A signal ends it, and not the process.

    Args:
        tls: speak HTTPS.
        ready: is told the server's URL when requests are taken.
        last: done when it ends, before running requests are waited for.
        patience: seconds that those may take; None: no limit.
        sockets: speak WebSocket, too; needs the package `websockets`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: ConnectionLimits | None = None,
        log_level: str = "info",
        tls: ssl.SSLContext | None = None,
        ready: Callable[[str], None] = lambda url: None,
        last: Callable[[], Awaitable[None]] | None = None,
        patience: int | None = None,
        sockets: bool = False,
    ) -> None:
        self._ready, self._last = ready, last
        protocol: Any = partial(Connection, limits=limits or ConnectionLimits())
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="websockets-sansio" if sockets else "none",
            ws_max_size=_MESSAGE_BYTES,
            ws_per_message_deflate=False,  # what is small may be large inside
            loop="asyncio",
            log_config=None,  # `logs.configure` says where lines go
            log_level=log_level,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=patience,
        )
        config.load()
        config.ssl = tls
        self._scheme = "https" if tls else "http"
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # As many threads as the event loop's own.
        threads = memory.LoopThreads(min(32, (os.cpu_count() or 1) + 4), "chatglm-work")
        asyncio.get_running_loop().set_default_executor(threads)
        await super().startup(sockets)
        self._releasing = asyncio.create_task(self._release_memory())
        urls = []
        for one in sockets or ():
            host, port = one.getsockname()[:2]
            urls.append(f"{self._scheme}://[{host}]:{port}" if ":" in host else f"{self._scheme}://{host}:{port}")
        self.announce(urls)

    def announce(self, urls: Sequence[str]) -> None:
        """Requests are taken at these addresses."""
        if urls:
            self._ready(urls[0].replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:"))

    async def _release_memory(self) -> None:
        """Give memory back that threads have kept for large requests."""
        seen = 0
        while True:
            await asyncio.sleep(_RELEASE)
            if seen != self.server_state.total_requests:
                seen = self.server_state.total_requests
                await asyncio.to_thread(memory.release)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._releasing.cancel()
        if self._last is not None:
            await self._last()
        await super().shutdown(sockets)
        self._abort_connections()
        await asyncio.sleep(0)

    def _abort_connections(self) -> None:
        """End those that are left, such as one that never asked: nobody else closes them, and their clients would wait
        for ever."""
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but a signal that was obeyed does not kill the process afterwards: it ends with status 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and sig == signal.SIGINT:
            os._exit(130)  # a second Ctrl-C: at once, whatever is under way
        self.should_exit = True


class Server(BareServer):
    """A server for an app of `create_app`.

    Args:
        drain: seconds that running requests may take to finish when the server is told to stop.
        drain_delay: seconds before that, in which new requests are still taken while `/health` says that the server
            ends: for balancers that only notice it there. A second SIGTERM cuts them short.
        ready, tls: as of `BareServer`.
    """

    def __init__(
        self,
        app: FastAPI,
        *,
        drain: float = 30.0,
        drain_delay: float = 0.0,
        limits: ConnectionLimits | None = None,
        log_level: str = "info",
        ready: Callable[[str], None] = lambda url: None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        speaks = any(dialect.sockets for dialect in app.state.dialects)
        super().__init__(app, limits=limits, log_level=log_level, tls=tls, ready=ready, sockets=speaks)
        self._service: Service = app.state.service
        self._drain, self._drain_delay = drain, drain_delay
        self._hurried = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        _tell_systemd("READY=1")

    def announce(self, urls: Sequence[str]) -> None:
        names = ", ".join(self._service.catalog.offers)
        keys = self._service.keys
        log.info("No API key is needed" if keys is None else f"An API key is needed (number of keys: {len(keys.keys)})")
        for url in urls:
            log.info("chatglm is running on %s (%s); press Ctrl-C to stop", url, names)
        super().announce(urls)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._releasing.cancel()
        drain, tasks, connections = self._service.drain, self.server_state.tasks, self.server_state.connections
        _tell_systemd("STOPPING=1")
        if self._drain_delay:
            drain.announce()
            log.info("Taking requests for %g s more, while /health says that the server is stopping", self._drain_delay)
            await _until(lambda: self._hurried, self._drain_delay)
        drain.begin()
        for connection in list(connections):
            if isinstance(connection, Connection):  # a WebSocket ends when it has been answered
                connection.shutdown()
        if tasks:
            log.info("Waiting for running requests to finish: %d; press Ctrl-C again to stop at once", len(tasks))
        await _until(lambda: not tasks, self._drain)
        if tasks:
            log.warning("Requests that did not finish within %g s, and are cancelled: %d", self._drain, len(tasks))
            drain.end()
            await _until(lambda: not tasks, 5)
        for server in self.servers:
            server.close()
        for task in list(tasks):
            task.cancel()
        for connection in list(connections):
            connection.transport.close()
        await _until(lambda: not connections and not tasks, 5)
        self._abort_connections()
        for one in sockets or ():
            one.close()
        await self.lifespan.shutdown()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._hurried = self.should_exit
        super().handle_exit(sig, frame)


def _tell_systemd(state: str) -> None:
    """Tell a service manager that waits for it (`Type=notify`) how the server is; `man sd_notify` has the protocol."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
            one.sendto(state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
    except OSError as error:
        log.warning("NOTIFY_SOCKET=%s cannot be used: %s", address, error)


async def _until(true: Callable[[], bool], seconds: float) -> None:
    """Return when the condition is true, or that time is over."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not true() and loop.time() < end:
        await asyncio.sleep(0.02)


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets at an address, one for each of its IP addresses; they do not listen yet.

    Args:
        port: 0 for any free one.

    Raises:
        InputError: the address cannot be used; the message says why and names the options.
    """
    bound: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                one = socket.socket(family, kind, protocol)
            except OSError:
                continue  # the system has no IPv6
            bound.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if not port and len(bound) > 1:
                address = (address[0], bound[0].getsockname()[1], *address[2:])
            one.bind(address)
            one.setblocking(False)
    except (OSError, UnicodeError) as error:
        for one in bound:
            one.close()
        raise _unusable(host, port, error) from None
    if not bound:
        raise InputError(f"--host {host}: this machine does not support this kind of address")
    return bound


def _unusable(host: str, port: int, error: OSError | UnicodeError) -> InputError:
    if isinstance(error, socket.gaierror | UnicodeError):
        return InputError(f"--host {host}: no such address")
    match error.errno:
        case errno.EADDRINUSE:
            return InputError(f"--port {port}: in use at {host} already; stop that server or choose another port")
        case errno.EACCES:
            return InputError(f"--port {port}: ports below 1024 need root rights; choose a higher one")
        case errno.EADDRNOTAVAIL:
            return InputError(
                f"--host {host}: this machine does not have this address; 0.0.0.0 means all its addresses"
            )
    return InputError(f"--host {host} --port {port}: {error.strerror or error}")


def run(server: BareServer, sockets: Sequence[socket.socket]) -> None:
    """Serve until a signal comes.

    Raises:
        InputError: another program listens at the address by now.
    """
    _allow_files()
    try:
        server.run(list(sockets))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        host, port = sockets[0].getsockname()[:2]
        raise _unusable(host, port, error) from None


def _allow_files() -> None:
    """Raise the limit of open files: each connection is one, and many systems allow only 1,024 by default."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 16384 if hard == resource.RLIM_INFINITY else min(hard, 16384)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
