"""Offers tools of MCP servers (https://modelcontextprotocol.io), which the user names in a file:

    servers:
      files:   {command: [npx, -y, "@modelcontextprotocol/server-filesystem", /srv/docs], env: {TOKEN: "${MY_TOKEN}"}}
      weather: {url: https://mcp.example.com/mcp, headers: {Authorization: "Bearer ${WEATHER_TOKEN}"}, seconds: 60}

The files of Claude Desktop and Cursor (`mcpServers`: `command`, `args`, `env`, or `url`) can be used unchanged.

A server with `command` is a program of the user, and runs with the user's rights. It gets only PATH and HOME of the
environment, and the variables in the file. All connections run in one thread. A server that does not start is left out,
and a warning names it. A server that ends is started again; calls fail meanwhile. The size of a server's messages is
limited. Errors of a server become failed calls for the model. Tools stay as they were when the server started: later
messages can remove tools, but cannot add tools or change one that a person has agreed to.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import os
import re
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from chatglm.chat.messages import ToolSpec
from chatglm.errors import DependencyError, ToolError
from chatglm.tools.documents import from_environment, read_document
from chatglm.tools.parameters import checked, plain, plain_text, tool_name
from chatglm.tools.pictures import png_problem
from chatglm.tools.threads import LoopThread
from chatglm.tools.tool import Consent, Outcome

if TYPE_CHECKING:
    import httpx2
    import mcp_types
    from mcp import Client
    from typing_extensions import Self

__all__ = ["MCPServers", "MCPTool", "open_servers"]

MOST_SERVERS = 32
MOST_TOOLS = 200
"""Most tools of one server."""
MOST_MESSAGE = 4 << 20
"""Most bytes of one message of a server."""

_MOST_SKIPPED = 256 << 20  # bytes of one line; if it is longer, the server is ended
_MOST_UNASKED = 2_000  # most messages within ten seconds
_MOST_PAGES = 50
_MOST_LATE = 3  # unanswered calls in a row after which a server is started again
_WAITS = (0.5, 60.0)  # first and longest wait, in seconds, before a server that ended is started again
_KEPT = {"PATH", "HOME"} if os.name == "posix" else {"PATH", "PATHEXT", "SYSTEMROOT", "TEMP", "USERPROFILE", "APPDATA"}
_GRACE = 1.0  # seconds that a server has to end by itself, and again after SIGTERM
_FIELDS = {"command", "args", "env", "cwd", "url", "headers", "seconds", "type", "disabled"}
# Ends the server when this process ends, in any case. (The signal comes when the thread that started it ends; this
# thread runs until then.)
_LAUNCH = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
os.getppid() == int(sys.argv[1]) or sys.exit(1)
try:
    os.execvpe(sys.argv[2], sys.argv[2:], os.environ)
except OSError as error:
    sys.exit(f"{sys.argv[2]}: {error.strerror}")
"""

log = logging.getLogger("chatglm.tools")


def open_servers(path: str | Path) -> MCPServers:
    """Call `MCPServers.read` for a file."""
    return MCPServers.read(Path(path))


class MCPServers:
    """The running servers of one file. It is a context manager.

    Attributes:
        tools: the tools of all servers, in the order of the file.
        failed: servers that did not start, with the reasons.
        left_out: tools that cannot be offered, as `server.tool`, with the reasons.
    """

    def __init__(self, servers: Sequence[_Server], thread: LoopThread) -> None:
        self._servers, self._thread = list(servers), thread
        self._closed = False
        self.tools: tuple[MCPTool, ...] = ()
        self.failed: dict[str, str] = {}
        self.left_out: dict[str, str] = {}

    @classmethod
    def read(cls, source: str | Path | Mapping[str, Any], *, start: float = 60.0, seconds: float = 30.0) -> MCPServers:
        """Start all servers at the same time.

        Args:
            source: a file, or its contents. Only the user may name it, never a model, a page or a request.
            start: seconds that a server has to list its tools; `npx` may have to download it first.
            seconds: time limit of a call, if the file does not set it.

        Raises:
            ToolError: the file is wrong, or no server offers a tool.
            DependencyError: mcp is not installed.
        """
        where = "MCP servers" if isinstance(source, Mapping) else str(source)
        given = _read(source if isinstance(source, Mapping) else read_document(Path(source)), where, seconds)
        try:
            import mcp  # noqa: F401
        except ImportError:
            raise DependencyError('tools of MCP servers need mcp: pip install "chatglm[mcp]"') from None
        for name in ("mcp.client", "mcp.shared", "client"):
            if (library := logging.getLogger(name)).level == logging.NOTSET:
                library.setLevel(logging.CRITICAL)  # otherwise it logs a traceback for each wrong message of a server
        thread = LoopThread("chatglm MCP servers")
        servers = cls([_Server(one, start) for one in given], thread)
        try:
            thread.run(servers._begin())
            servers._offer(where)
        except BaseException:
            servers.close()
            raise
        return servers

    async def _begin(self) -> None:
        await asyncio.gather(*(server.begin() for server in self._servers))

    def _offer(self, where: str) -> None:
        taken: set[str] = set()
        tools = []
        for server in self._servers:
            if server.failure:
                self.failed[server.name] = server.failure
                log.warning("%s: server %s is left out: %s", where, server.name, server.failure)
                continue
            for told in server.told:
                try:
                    spec = _spec(told, server.name, taken)
                except ToolError as error:
                    self.left_out[f"{server.name}.{plain_text(told.name, 100)}"] = str(error)
                    log.warning("%s: %s", where, error)
                    continue
                taken.add(spec.name)
                hints = told.annotations
                consent = Consent.NEVER if hints is not None and hints.read_only_hint is True else Consent.ONCE
                tools.append(MCPTool(spec, consent, told.name, server, self._thread))
        self.tools = tuple(tools)
        if not tools:
            reasons = [f"{name}: {why}" for name, why in [*self.failed.items(), *self.left_out.items()]]
            raise ToolError(f"{where}: no server offers a tool ({'; '.join(reasons)[:2000] or 'none has one'})")

    def close(self) -> None:
        """End the servers and all connections; running calls fail."""
        if self._closed:
            return
        self._closed = True
        for server in self._servers:
            server.ended = True
        with suppress(Exception):  # a server hangs, or the loop has ended
            self._thread.run(self._end(), 15)
        self._thread.close()

    async def _end(self) -> None:
        await asyncio.gather(*(server.end() for server in self._servers), return_exceptions=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MCPTool:
    """A tool of a server. If the server says that it only reads, it needs no consent; otherwise it needs it once.

    Attributes:
        seconds: time limit of a call.
    """

    def __init__(self, spec: ToolSpec, consent: Consent, name: str, server: _Server, thread: LoopThread) -> None:
        self._spec, self._consent, self._name, self._server, self._thread = spec, consent, name, server, thread
        self.seconds = server.seconds + 2  # the server's own time-out is shorter, and its message says more

    @property
    def spec(self) -> ToolSpec:
        return self._spec

    @property
    def consent(self) -> Consent:
        return self._consent

    def problem(self, arguments: Mapping[str, Any]) -> str:
        return checked(arguments, self._spec.flat()["parameters"])[1]

    async def run(self, arguments: Mapping[str, Any]) -> Outcome:
        values, problem = checked(arguments, self._spec.flat()["parameters"])
        if problem:
            return Outcome(f"Arguments of {self._spec.name} are wrong ({problem}).", failed=True)
        if self._server.ended:
            return Outcome(f"The server {self._server.name} has been closed.", failed=True)
        return await self._thread.awaited(self._server.call(self._name, values))


def _spec(told: mcp_types.Tool, server: str, taken: set[str]) -> ToolSpec:
    where = f"{server}.{plain_text(told.name, 100)}"
    schema = told.input_schema
    try:
        if len(json.dumps(schema)) > MOST_MESSAGE // 16:
            raise ToolError(f"{where}: its schema is larger than {MOST_MESSAGE // 16:,} bytes")
        shown = plain(schema, schema, where)
    except RecursionError:
        raise ToolError(f"{where}: its schema is nested too deeply") from None
    parameters = {"type": "object", "properties": {}, **shown}
    description = plain_text(told.description, 600) or plain_text(told.title) or plain_text(told.name)
    name = tool_name(f"{server}_{told.name[:200]}", taken)
    return ToolSpec({"name": name, "description": description, "parameters": parameters})


# The file


@dataclass(frozen=True)
class _Given:
    """Settings of a server in the file."""

    name: str
    seconds: float
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def _read(document: Mapping[str, Any], where: str, seconds: float) -> list[_Given]:
    if "mcpServers" in document:
        servers = document["mcpServers"]  # such a file may have other settings, too
    elif unknown := document.keys() - {"servers"}:
        raise ToolError(f"{where}: unknown {', '.join(map(str, sorted(unknown)))}; only `servers` is known")
    else:
        servers = document.get("servers")
    if not isinstance(servers, Mapping) or not servers:
        raise ToolError(f"{where}: `servers` names no server")
    if len(servers) > MOST_SERVERS:
        raise ToolError(f"{where}: {len(servers)} servers; at most {MOST_SERVERS} are started")
    found = [_server(str(name), given, f"{where}: {name!s:.60}", seconds) for name, given in servers.items()]
    enabled = [one for one in found if one is not None]
    if not enabled:
        raise ToolError(f"{where}: all servers are disabled")
    return enabled


def _server(name: str, given: Any, where: str, seconds: float) -> _Given | None:
    if not isinstance(given, Mapping):
        raise ToolError(f"{where}: expected `command` or `url`, got {given!r:.60}")
    if unknown := given.keys() - _FIELDS:
        raise ToolError(f"{where}: unknown {', '.join(sorted(unknown)):.200}; known: {', '.join(sorted(_FIELDS))}")
    kind = given.get("type", "http" if "url" in given else "stdio")
    if kind not in ("stdio", "http", "streamable-http", "streamableHttp"):
        raise ToolError(f"{where}: type {kind!r:.30} is not supported; supported: stdio, http (streamable)")
    if ("command" in given) == ("url" in given) or ("url" in given) != (kind != "stdio"):
        raise ToolError(f"{where}: give either `command` or `url`")
    for one in {"args", "env", "cwd"} if "url" in given else {"headers"}:
        if one in given:
            raise ToolError(f"{where}: {one} cannot be used with `{'url' if 'url' in given else 'command'}`")
    if given.get("disabled") not in (None, True, False):
        raise ToolError(f"{where}: disabled: expected true or false")
    if given.get("disabled"):
        return None
    seconds = given.get("seconds", seconds)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 3600:
        raise ToolError(f"{where}: seconds: expected a number of at most 3600, got {seconds!r:.30}")
    if "url" in given:
        url = _text(given["url"], f"{where}: url")
        if not re.fullmatch(r"https?://[^\s/?#@]+([/?#]\S*)?", url, re.IGNORECASE):
            raise ToolError(f"{where}: url: {url!r:.100} is not an http(s) address")
        return _Given(name, seconds, url=url, headers=_texts(given.get("headers"), f"{where}: headers"))
    command = given["command"]
    words = command if isinstance(command, list) else [command]
    args = given.get("args", [])
    if not words or not isinstance(args, list):
        raise ToolError(f"{where}: command: expected a program and its arguments, as a list")
    line = tuple(_text(word, f"{where}: command") for word in [*words, *args])
    if not line[0]:
        raise ToolError(f"{where}: command: no program is named")
    cwd = given.get("cwd")
    if cwd is not None:
        cwd = os.path.expanduser(_text(cwd, f"{where}: cwd"))
        if not os.path.isdir(cwd):
            raise ToolError(f"{where}: cwd: {cwd:.200} is not a folder")
    return _Given(name, seconds, line, _texts(given.get("env"), f"{where}: env"), cwd)


def _text(value: Any, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ToolError(f"{where}: expected a text, got {value!r:.60}")
    text = from_environment(str(value), where, set())
    if "\0" in text or ("headers" in where and not text.isprintable()):
        raise ToolError(f"{where}: has a character that is not allowed there")
    return text


def _texts(given: Any, where: str) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ToolError(f"{where}: expected names with values, got {given!r:.60}")
    return {str(name): _text(value, f"{where}: {name!s:.60}") for name, value in given.items()}


# One server


class _Server:
    """A server and the connection to it, which is made again when it ends. All methods run in the servers' thread.

    Attributes:
        told: the tools that the server offered when it started.
        failure: why the server did not start; "" if it did.
        ended: whether it was ended for good.
    """

    def __init__(self, given: _Given, start: float) -> None:
        self.name, self.seconds = given.name, given.seconds
        self.told: tuple[mcp_types.Tool, ...] = ()
        self.failure = ""
        self.ended = False
        self._given, self._start = given, start
        self._offered: set[str] = set()
        self._client: Client | None = None
        self._lost = asyncio.Event()
        self._why = ""
        self._late = self._status = self._messages = 0
        self._counted = 0.0
        self._stale = False
        self._stderr: deque[bytes] = deque(maxlen=40)
        self._listing: asyncio.Task[None] | None = None
        self._living: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Start the connection; returns when the server has listed its tools, or has failed."""
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._living = asyncio.create_task(self._live(started))
        await started

    async def end(self) -> None:
        self.ended = True
        if self._living is not None:
            self._living.cancel()
            await asyncio.wait({self._living})

    async def _live(self, started: asyncio.Future[None]) -> None:
        wait, most = _WAITS
        try:
            while True:
                begun = time.monotonic()
                await self._once(started)
                if not started.done():  # its tools are unknown, so it cannot be used
                    lines = b"".join(self._stderr).decode(errors="replace").split("\n")
                    last = "\n".join(line[:300] for line in lines if line.strip())[-1000:]
                    self.failure = f"{self._why}{f'; it wrote: {plain_text(last, 1000)}' if last else ''}"
                    return
                wait = _WAITS[0] if time.monotonic() - begun > most else wait
                log.warning("MCP server %s: %s; started again in %g s", self.name, self._why, wait)
                await asyncio.sleep(wait)
                wait = min(2 * wait, most)
        finally:
            if not started.done():
                started.set_result(None)

    async def _once(self, started: asyncio.Future[None]) -> None:
        """Run one connection from its beginning to its end, and store in `_why` why it ended."""
        self._lost, up = asyncio.Event(), asyncio.Event()
        self._why, self._late, self._status, self._messages, self._stale = "", 0, 0, 0, False
        self._stderr.clear()
        connection = asyncio.create_task(self._connected(up, started))
        waiting = asyncio.create_task(up.wait())
        try:
            await asyncio.wait({connection, waiting}, timeout=self._start, return_when=asyncio.FIRST_COMPLETED)
            if not up.is_set() and not connection.done():
                self._why = f"did not list its tools within {self._start:g} seconds"
            else:
                await asyncio.wait({connection})
                error = None if connection.cancelled() else connection.exception()
                self._why = self._why or self._reason(error)
        finally:
            waiting.cancel()
            connection.cancel()
            await asyncio.wait({connection}, timeout=10)
            if connection.done() and not connection.cancelled():
                connection.exception()

    def _reason(self, error: BaseException | None) -> str:
        while inner := getattr(error, "exceptions", None):
            error = inner[0]
        if self._status >= 400:
            return f"answers with HTTP {self._status}"
        match error:
            case None:
                return "the connection ended"
            case ToolError():
                return str(error)
            case OSError() if error.strerror:
                return f"cannot be started: {error.strerror}"
        kind = type(error).__name__
        if kind == "ValidationError":  # pydantic's
            first = error.errors(include_url=False, include_input=False)[0]  # type: ignore[attr-defined]
            place = ".".join(map(str, first["loc"]))
            return f"its messages are not valid MCP ({plain_text(place, 100)}: {plain_text(first['msg'], 100)})"
        if kind in ("ConnectError", "ConnectTimeout"):
            return "cannot be reached"
        return f"{kind}: {plain_text(str(error), 200)}" if kind != "MCPError" else plain_text(str(error), 200)

    async def _connected(self, up: asyncio.Event, started: asyncio.Future[None]) -> None:
        from mcp import Client
        from mcp_types import Implementation

        lost = self._lost
        transport = self._http() if self._given.url else self._stdio()
        client = Client(
            transport,
            cache=None,
            client_info=Implementation(name="chatglm", version="1"),
            message_handler=self._heard,
            read_timeout_seconds=self._start,
        )
        try:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(client)
                tools = await self._list(client)
                self._offered = {tool.name for tool in tools}
                if not started.done():
                    self.told = tuple(tools)
                    started.set_result(None)
                self._client = client
                up.set()
                await self._watch(client, lost)
        finally:
            self._client = None
            lost.set()
            if self._listing is not None:
                self._listing.cancel()
                self._listing = None

    async def _watch(self, client: Client, lost: asyncio.Event) -> None:
        """Wait until the connection is lost. By the protocol of 2026, servers report changes only to clients that
        listen.
        """
        from mcp.client.subscriptions import ListenNotSupportedError

        offered = client.server_capabilities.tools
        with suppress(Exception):  # if the server does not report changes, it is not asked again
            if offered is not None and offered.list_changed:
                listening = asyncio.create_task(self._listen(client))
                try:
                    await lost.wait()
                finally:
                    listening.cancel()
                    with suppress(Exception, asyncio.CancelledError, ListenNotSupportedError):
                        await listening
        await lost.wait()

    async def _listen(self, client: Client) -> None:
        async with client.listen(tools_list_changed=True) as changes:
            async for _ in changes:
                self._changed()

    # Messages of the server

    async def _heard(self, message: Any) -> None:
        from mcp_types import ToolListChangedNotification

        self._count()
        if isinstance(message, ToolListChangedNotification):
            self._changed()

    def _count(self) -> None:
        self._late = 0
        if (now := time.monotonic()) > self._counted + 10:
            self._counted, self._messages = now, 0
        self._messages += 1
        if self._messages > _MOST_UNASKED:
            self._why = f"sent more than {_MOST_UNASKED:,} messages in ten seconds"
            self._lost.set()

    def _changed(self) -> None:
        self._stale = True
        if self._client is not None and (self._listing is None or self._listing.done()):
            self._listing = asyncio.create_task(self._list_again(self._client))

    async def _list_again(self, client: Client) -> None:
        while self._stale:
            await asyncio.sleep(0.1)  # changes come in groups
            self._stale = False
            try:
                offered = {tool.name for tool in await self._list(client)}
            except Exception as error:
                log.warning(
                    "MCP server %s: its tools changed, and cannot be listed: %s", self.name, self._reason(error)
                )
                return
            if new := sorted(offered - {tool.name for tool in self.told}):
                names = plain_text(", ".join(new))
                log.info("MCP server %s has new tools, offered when it is opened again: %s", self.name, names)
            self._offered = offered

    async def _list(self, client: Client) -> list[mcp_types.Tool]:
        from mcp_types import PaginatedRequestParams

        found: dict[str, mcp_types.Tool] = {}
        cursor = None
        for _ in range(_MOST_PAGES):
            page = await client.session.list_tools(params=PaginatedRequestParams(cursor=cursor))
            for tool in page.tools:
                if len(found) == MOST_TOOLS and tool.name not in found:
                    log.warning("MCP server %s: only the first %d tools are offered", self.name, MOST_TOOLS)
                    return list(found.values())
                found.setdefault(tool.name, tool)
            cursor = page.next_cursor
            if not cursor:
                break
        return list(found.values())

    # Calls

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Outcome:
        """Call a tool. The model gets any failure as the result."""
        client, lost = self._client, self._lost
        if client is None:
            why = self._why or "it is being started again"
            return Outcome(f"The server {self.name} is not running ({why}). Try again later.", failed=True)
        if name not in self._offered:
            return Outcome(f"The server {self.name} no longer offers {plain_text(name, 100)}.", failed=True)
        asking = asyncio.create_task(self._ask(client, name, arguments))
        gone = asyncio.create_task(lost.wait())
        try:
            # The time-out of the request itself is shorter, and also tells the server.
            await asyncio.wait({asking, gone}, timeout=self.seconds + 1, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done() and gone.done():
                await asyncio.wait({asking}, timeout=0.2)  # an answer may have come just before the end
            if asking.done():
                return asking.result()
            if gone.done():
                return Outcome(f"The server {self.name} ended during the call.", failed=True)
            return self._too_late()
        finally:
            asking.cancel()
            gone.cancel()

    def _too_late(self) -> Outcome:
        self._late += 1
        if self._late >= _MOST_LATE:
            self._why = f"left {_MOST_LATE} calls without an answer"
            self._lost.set()
        return Outcome(f"The server {self.name} did not answer within {self.seconds:g} seconds.", failed=True)

    async def _ask(self, client: Client, name: str, arguments: Mapping[str, Any]) -> Outcome:
        import mcp_types
        from mcp import MCPError
        from pydantic import TypeAdapter, ValidationError

        request = mcp_types.CallToolRequest(
            params=mcp_types.CallToolRequestParams(name=name, arguments=dict(arguments))
        )
        answers: Any = TypeAdapter(mcp_types.CallToolResult | mcp_types.InputRequiredResult)
        try:
            # Not `call_tool`, which would run the server's regular expressions (jsonschema's `pattern`) on the answer.
            result = await client.session.send_request(request, answers, request_read_timeout_seconds=self.seconds)
            self._late = 0
        except MCPError as error:
            if error.code == mcp_types.REQUEST_TIMEOUT:
                return self._too_late()
            if error.code == mcp_types.CONNECTION_CLOSED or "Session terminated" in str(error):
                self._lost.set()
                return Outcome(f"The server {self.name} ended during the call.", failed=True)
            return Outcome(f"The server {self.name} refused the call: {plain_text(str(error), 1000)}", failed=True)
        except ValidationError:
            return Outcome(f"The server {self.name} sent an answer that is not MCP's.", failed=True)
        except Exception as error:
            return Outcome(f"The call of {self.name} failed: {self._reason(error)}", failed=True)
        if isinstance(result, mcp_types.InputRequiredResult):
            return Outcome(f"The server {self.name} asks for more input, which is not given.", failed=True)
        return _outcome(result)

    # Transports

    @asynccontextmanager
    async def _http(self) -> AsyncGenerator[Any]:
        import httpx2
        from mcp.client.streamable_http import streamable_http_client

        async def note(response: httpx2.Response) -> None:
            self._status = response.status_code

        headers = {**self._given.headers, "Accept-Encoding": "identity"}
        timeout = httpx2.Timeout(min(10.0, self._start), read=max(300.0, self.seconds + 10))
        async with (
            httpx2.AsyncClient(
                headers=headers, timeout=timeout, transport=_bounded_transport(), event_hooks={"response": [note]}
            ) as client,
            streamable_http_client(self._given.url, http_client=client, max_sse_event_size=MOST_MESSAGE) as streams,
        ):
            yield streams

    @asynccontextmanager
    async def _stdio(self) -> AsyncGenerator[Any]:
        import anyio
        from mcp.shared.message import SessionMessage

        env = {name: os.environ[name] for name in _KEPT if name in os.environ} | dict(self._given.env)
        command = self._given.command
        if os.sep not in command[0] and shutil.which(command[0], path=env.get("PATH")) is None:
            raise ToolError(f"there is no program {command[0]!r:.100} in PATH")
        if sys.platform == "linux":
            command = (sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *command)
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=pipe, env=env, cwd=self._given.cwd, start_new_session=True
        )
        try:
            to_session, from_server = anyio.create_memory_object_stream[Any](0)
            to_server, from_session = anyio.create_memory_object_stream[SessionMessage](0)
            lost = self._lost
            async with anyio.create_task_group() as tasks, to_session, from_server, to_server, from_session:
                tasks.start_soon(self._receive, process, to_session, lost)
                tasks.start_soon(self._send, process, from_session, lost)
                tasks.start_soon(self._keep_errors, process)
                try:
                    yield from_server, to_server
                finally:
                    tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await _ended(process)

    async def _receive(self, process: asyncio.subprocess.Process, into: Any, lost: asyncio.Event) -> None:
        import anyio
        from mcp.shared.message import SessionMessage
        from mcp_types import INTERNAL_ERROR, ErrorData, JSONRPCError, jsonrpc_message_adapter

        assert process.stdout is not None
        try:
            async for line, whole in _lines(process.stdout):
                self._count()
                if not line.strip():
                    if lost.is_set():
                        break
                    continue
                message: Any = None
                if whole:
                    try:
                        message = SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
                    except ValueError:
                        words = "its answer is not JSON-RPC"
                else:
                    words = f"its answer is larger than {MOST_MESSAGE:,} bytes"
                if message is None:  # only the call that it may belong to fails
                    head = re.search(rb'"id"\s*:\s*([0-9]{1,15})\b', line[:512])
                    if head is None:
                        continue
                    fault = ErrorData(code=INTERNAL_ERROR, message=words)
                    message = SessionMessage(JSONRPCError(jsonrpc="2.0", id=int(head[1]), error=fault))
                await into.send(message)
                if lost.is_set():
                    break
        except ToolError as error:
            self._why = str(error)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return
        with suppress(TimeoutError, asyncio.TimeoutError):
            code = await asyncio.wait_for(process.wait(), 0.5)
            self._why = self._why or f"ended with status {code}"
        lost.set()
        await into.aclose()

    async def _send(self, process: asyncio.subprocess.Process, messages: Any, lost: asyncio.Event) -> None:
        assert process.stdin is not None
        try:
            async for one in messages:
                process.stdin.write(one.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                await process.stdin.drain()
        except OSError:  # the server no longer reads
            lost.set()

    async def _keep_errors(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while part := await process.stderr.read(256):
            self._stderr.append(part)


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[tuple[bytes, bool]]:
    """Yield lines, including empty ones, each with True; for a line that is too long, its beginning and False.

    Raises:
        ToolError: a line has more than 256 MiB.
    """
    kept, skipped = bytearray(), 0
    while part := await stream.read(1 << 16):
        *ended, rest = part.split(b"\n")
        for end in ended:
            kept += end
            line, whole = bytes(kept), not skipped and len(kept) <= MOST_MESSAGE
            kept, skipped = bytearray(), 0
            yield (line, True) if whole else (line[:512], False)
        if skipped or len(kept) + len(rest) > MOST_MESSAGE:
            skipped += len(kept) + len(rest)
            kept = (kept + rest)[:512] if not kept else kept[:512]
            if skipped > _MOST_SKIPPED:
                raise ToolError(f"sent a line of more than {_MOST_SKIPPED:,} bytes")
        else:
            kept += rest


async def _ended(process: asyncio.subprocess.Process) -> None:
    """End a server and its child processes: close its input, then send SIGTERM, then SIGKILL."""
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
    for hard in (None, False, True):
        if hard is not None:
            _tell_to_end(process, hard)
        with suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), _GRACE)
            break
    _tell_to_end(process, hard=True)  # its child processes
    transport = getattr(process, "_transport", None)  # asyncio waits for pipes that a grandchild may hold open
    if transport is not None:
        transport.close()


def _tell_to_end(process: asyncio.subprocess.Process, hard: bool) -> None:
    with suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":  # it is the leader of its own process group
            os.killpg(process.pid, signal.SIGKILL if hard else signal.SIGTERM)
        elif hard:
            process.kill()
        else:
            process.terminate()


def _bounded_transport() -> httpx2.AsyncBaseTransport:
    """A transport that limits the size of answers. In a stream of events, each event is limited instead."""
    import httpx2

    class Counted(httpx2.AsyncByteStream):
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for part in self._inner:
                size += len(part)
                if size > MOST_MESSAGE:
                    raise httpx2.StreamError(f"its answer is larger than {MOST_MESSAGE:,} bytes")
                yield part

        async def aclose(self) -> None:
            await self._inner.aclose()

    class Transport(httpx2.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            response = await super().handle_async_request(request)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise ToolError("its answers are compressed, which was not asked for")
            if not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
                response.stream = Counted(response.stream)
            return response

    return Transport()


# Results


def _outcome(result: mcp_types.CallToolResult) -> Outcome:
    texts: list[str] = []
    pictures: list[bytes] = []
    for block in result.content:
        match block.type:
            case "text":
                texts.append(block.text)
            case "image":
                picture = _decoded(block.data)
                if picture is not None and not png_problem(picture):
                    pictures.append(picture)
                    texts.append("[Image]")
                else:
                    texts.append(f"[a picture of the kind {plain_text(block.mime_type, 40)}, which is not shown]")
            case "audio":
                texts.append("[a sound, which is not played]")
            case "resource_link":
                texts.append(f"{plain_text(block.name, 100)}: {plain_text(str(block.uri), 500)}")
            case "resource":
                text = getattr(block.resource, "text", None)
                texts.append(text if isinstance(text, str) else f"[a file: {plain_text(str(block.resource.uri), 500)}]")
    if result.structured_content is not None and not any(block.type == "text" for block in result.content):
        with suppress(ValueError, RecursionError):
            texts.append(json.dumps(result.structured_content, ensure_ascii=False))
    return Outcome("\n".join(texts) or "(nothing)", pictures=tuple(pictures), failed=bool(result.is_error))


def _decoded(data: str) -> bytes | None:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return None
