"""Makes tools from web services: a model may call each operation of an OpenAPI document that the owner names.

Documents are OpenAPI 3.0 and 3.1 (https://spec.openapis.org/oas/v3.1.0) in JSON or YAML; or a small YAML file with the
place of the document and settings:

    document: weather.json            # or an address
    base: https://api.example.com/v1  # default: the first of the document's servers
    headers: {Authorization: "Bearer ${WEATHER_TOKEN}"}   # from the environment; a model never sees it
    query: {key: "${WEATHER_KEY}"}
    only: [get_weather, "POST /reports"]
    private: true                     # the service's name has an address in a private network
    seconds: 10

A model can choose only the values of an operation's parameters. The destination of requests is fixed when the document
is read: no value adds a part to a path, redirects are not followed, and a name with a private address is refused when
it is resolved, unless the owner's own address is private. Proxies of the environment are not used, because they would
resolve names themselves.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin, urlsplit

from chatglm.chat.messages import ToolSpec
from chatglm.errors import ChatGLMError, DependencyError, ToolError
from chatglm.tools.documents import MOST_BYTES, from_environment, parse_document, read_bytes
from chatglm.tools.parameters import checked, plain, plain_text, target, tool_name, word_name
from chatglm.tools.threads import LoopThread
from chatglm.tools.tool import Consent, Outcome

if TYPE_CHECKING:
    import httpx

__all__ = ["OpenAPITools", "Operation", "open_tools"]

MOST_TOOLS = 100
"""Most operations of one document; if it has more, choose some with `only`."""
MOST_ANSWER = 256 << 10
"""Most bytes of an answer that are read."""
_MOST_REFUSAL = 1000  # most characters of an error's answer

_METHODS = ("get", "head", "post", "put", "patch", "delete")
_SETTINGS = {"document", "base", "headers", "query", "only", "private", "seconds"}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
# Headers that a model must not set: those of HTTP itself, of the sender's identity, and of proxies.
_HEADERS_OF_OURS = {
    "accept", "accept-encoding", "authorization", "connection", "content-encoding", "content-length", "content-type",
    "cookie", "date", "expect", "forwarded", "host", "keep-alive", "origin", "referer", "te", "trailer",
    "transfer-encoding", "upgrade", "user-agent", "via", "x-http-method", "x-http-method-override", "x-method-override",
    "x-original-url", "x-real-ip", "x-rewrite-url",
}  # fmt: skip
_PREFIXES_OF_OURS = ("proxy-", "sec-", "x-forwarded-")
_DEFAULTS = {"path": "simple", "header": "simple", "query": "form", "cookie": "form"}

log = logging.getLogger("chatglm.tools")


def open_tools(path: str | Path) -> OpenAPITools:
    """Call `OpenAPITools.read` for a document, or for a small YAML file that names one.

    Raises:
        ToolError: a setting is unknown or wrong. Also the errors of `OpenAPITools.read`.
        DependencyError: httpx is not installed.
    """
    data, where, _ = _fetch(path, 10.0)
    given = parse_document(data, where)
    if "document" not in given:
        return OpenAPITools.read(path)
    if unknown := given.keys() - _SETTINGS:
        raise ToolError(f"{where}: unknown {', '.join(sorted(unknown)):.200}; known: {', '.join(sorted(_SETTINGS))}")
    document = given.pop("document")
    if not isinstance(document, str):
        raise ToolError(f"{where}: document: expected a file or an address, got {document!r:.60}")
    if not _is_address(document):
        document = str(Path(where).parent / document)
    for name, kind, wanted in (
        ("base", str, "a text"),
        ("headers", dict, "an object"),
        ("query", dict, "an object"),
        ("only", list, "a list"),
        ("private", bool, "true or false"),
    ):
        if not isinstance(given.get(name), kind | None):
            raise ToolError(f"{where}: {name}: expected {wanted}, got {given[name]!r:.60}")
    seconds = given.get("seconds", 10)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 3600:
        raise ToolError(f"{where}: seconds: expected a number of at most 3600, got {seconds!r:.60}")
    return OpenAPITools.read(document, **given)


class OpenAPITools(Sequence["Operation"]):
    """The operations of one service.

    Attributes:
        left_out: operations of the document that are not offered as tools: the reasons, by `METHOD /path`.
    """

    def __init__(self, operations: Sequence[Operation], service: _Service, left_out: Mapping[str, str]) -> None:
        self._operations, self._service, self.left_out = tuple(operations), service, dict(left_out)

    @classmethod
    def read(
        cls,
        source: str | Path | Mapping[str, Any],
        base: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        only: Sequence[str] | None = None,
        private: bool = False,
        seconds: float = 10.0,
    ) -> OpenAPITools:
        """Read a document, and make its operations tools.

        Args:
            source: a file, an http(s) address, or the document itself. Only the user of the service may name it, never
                a model, a page or a request.
            base: the service's address; default: the first of the document's `servers`.
            headers, query: sent with each request; `${NAME}` in them is replaced by the environment variable.
            only: names of operations, or `METHOD /path`; the others are left out.
            private: whether the name in `base` may have an address in a private network.
            seconds: time limit of a call.

        Raises:
            ToolError: the document cannot be read, or is not OpenAPI 3.0 or 3.1; there is no base; one of `only` is
                unknown or cannot be offered; or no operations are left, or too many.
            DependencyError: httpx is not installed.
        """
        secrets: set[str] = set()
        if isinstance(source, Mapping):
            document, where, found_at = dict(source), "document", ""
        else:
            data, where, found_at = _fetch(source, seconds)
            document = parse_document(data, where)
        version = document.get("openapi")
        if "swagger" in document:
            raise ToolError(f"{where}: Swagger {document['swagger']!s:.10} is not supported; convert it to OpenAPI 3")
        if not isinstance(version, str) or not version.startswith(("3.0", "3.1")):
            raise ToolError(f"{where}: openapi: {version!r:.20}; supported are 3.0 and 3.1")
        owners = base is not None
        if base is None:
            base = _server(document, where, found_at)
        base = _base(base, where)
        # A document from the network must not decide that requests go to a private network.
        trusted = owners or not found_at or urlsplit(found_at).hostname == urlsplit(base).hostname
        service = _Service(
            base,
            _fields(headers, f"{where}: headers", secrets),
            _fields(query, f"{where}: query", secrets),
            frozenset(secrets),
            private or (trusted and _is_private_name(urlsplit(base).hostname or "")),
            seconds,
        )
        operations, left_out = _operations(document, where, service, only)
        if not operations:
            reasons = "; ".join(f"{name}: {why}" for name, why in list(left_out.items())[:3])
            raise ToolError(f"{where}: has no operation that can be offered{f' ({reasons})' if reasons else ''}")
        if len(operations) > MOST_TOOLS:
            raise ToolError(f"{where}: {len(operations)} operations; choose at most {MOST_TOOLS} with `only`")
        for name, why in left_out.items():
            log.warning("%s: %s is left out: %s", where, name, why)
        return cls(operations, service, left_out)

    def __len__(self) -> int:
        return len(self._operations)

    def __getitem__(self, index: Any) -> Any:
        return self._operations[index]

    def close(self) -> None:
        """End all connections."""
        self._service.close()


# Reading


@dataclass(frozen=True)
class _Place:
    """The place of an argument in the request."""

    within: str  # path, query, header, cookie, property (of the body) or body (all of it)
    name: str
    explode: bool = False
    as_json: bool = False


@dataclass(frozen=True)
class _Shape:
    """How to make an operation's request."""

    method: str
    path: str
    places: Mapping[str, _Place]
    content: str = ""  # the body's media type
    form: Mapping[str, bool] = field(default_factory=dict)


def _fetch(source: str | Path, seconds: float) -> tuple[bytes, str, str]:
    """Load a document. Returns its bytes, its name for messages, and its address; "" if it is a file."""
    if not _is_address(source):
        return read_bytes(Path(source)), str(source), ""
    httpx, address = _httpx(), str(source)
    where = _shown(address)
    try:
        with httpx.stream("GET", address, timeout=seconds, follow_redirects=False) as answer:
            if answer.status_code != 200:
                raise ToolError(f"{where}: answers with status {answer.status_code}{_leads(answer)}")
            data = b""
            for part in answer.iter_bytes(1 << 16):
                data += part
                if len(data) > MOST_BYTES:
                    raise ToolError(f"{where}: larger than {MOST_BYTES:,} bytes")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ToolError(f"{where}: cannot be read ({type(error).__name__})") from None
    return data, where, address


def _is_address(source: str | Path) -> bool:
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def _shown(address: str) -> str:
    """An address without the parts that may be secret: user, password and query."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _leads(answer: httpx.Response) -> str:
    location = answer.headers.get("location")
    if not location:
        return ""
    return f", which leads to {_shown(urljoin(str(answer.request.url), location))}; redirects are not followed"


def _server(document: Mapping[str, Any], where: str, found_at: str) -> str:
    servers = document.get("servers")
    first = servers[0] if isinstance(servers, list) and servers else {}
    address = first.get("url") if isinstance(first, Mapping) else None
    if isinstance(address, str):
        variables = first.get("variables")
        for name, variable in (variables if isinstance(variables, Mapping) else {}).items():
            if isinstance(variable, Mapping):
                address = address.replace(f"{{{name}}}", str(variable.get("default", "")))
    elif found_at:
        address = "/"
    if not isinstance(address, str) or not (_is_address(address) or found_at):
        raise ToolError(f"{where}: names no server with a complete address; give `base`")
    return urljoin(found_at, address)


def _base(address: str, where: str) -> str:
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not _is_address(address) or not host or re.search(r"[\s\x00-\x1f\x7f{}\\]", address):
        raise ToolError(f"{where}: base: {address!r:.100} is not an http(s) address")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ToolError(
            f"{where}: base: an address without user, query and fragment is expected; use `headers`, `query`"
        )
    return address.rstrip("/")


def _fields(given: Mapping[str, str] | None, where: str, secrets: set[str]) -> dict[str, str]:
    found = {}
    for name, value in (given or {}).items():
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise ToolError(f"{where}: {name!s:.60}: expected a text")
        text = from_environment(str(value), f"{where}: {name!s:.60}", secrets)
        if re.search(r"[\x00-\x1f\x7f]", text) or (where.endswith("headers") and not _TOKEN.fullmatch(str(name))):
            raise ToolError(f"{where}: {name!s:.60} has a line break or another character that cannot be sent")
        found[str(name)] = text
    return found


def _operations(
    document: Mapping[str, Any], where: str, service: _Service, only: Sequence[str] | None
) -> tuple[list[Operation], dict[str, str]]:
    paths = document.get("paths")
    if not isinstance(paths, Mapping):
        raise ToolError(f"{where}: has no `paths`")
    wanted = None if only is None else set(map(str, only))
    count = sum(method in item for item in paths.values() if isinstance(item, Mapping) for method in _METHODS)
    if count > (MOST_TOOLS if wanted is None else 100 * MOST_TOOLS):  # checked before the operations are read
        raise ToolError(f"{where}: {count:,} operations; choose at most {MOST_TOOLS} with `only`")
    found: list[Operation] = []
    names: set[str] = set()
    left_out: dict[str, str] = {}
    for path, item in paths.items():
        if isinstance(item, Mapping) and isinstance(item.get("$ref"), str):
            item = target(document, item["$ref"], f"{where}: {path!s:.100}")
        for method in _METHODS:
            operation = item.get(method) if isinstance(item, Mapping) else None
            if not isinstance(operation, Mapping):
                continue
            address, known = f"{method.upper()} {path}", str(operation.get("operationId") or "")
            own = re.sub(r"[{}]", "", f"{method}_{path.strip('/')}")
            name = tool_name(known or own, names)
            if wanted is not None:
                if not wanted & {address, known, name}:
                    continue
                wanted -= {address, known, name}
            try:
                spec, shape = _Reading(document, f"{where}: {address}", service).read(
                    name, method, str(path), item, operation
                )
            except ToolError as error:
                if wanted is not None:
                    raise
                left_out[address] = str(error).removeprefix(f"{where}: {address}: ")
                continue
            names.add(name)
            found.append(Operation(spec, shape, service))
    if wanted:
        raise ToolError(f"{where}: only: there is no {', '.join(sorted(wanted)):.200}")
    return found, left_out


class _Reading:
    """Reads one operation."""

    def __init__(self, document: Mapping[str, Any], where: str, service: _Service) -> None:
        self._document, self._where, self._service = document, where, service
        self._properties: dict[str, Any] = {}
        self._required: list[str] = []
        self._places: dict[str, _Place] = {}

    def read(
        self, name: str, method: str, path: str, item: Mapping[str, Any], operation: Mapping[str, Any]
    ) -> tuple[ToolSpec, _Shape]:
        if not path.startswith("/") or re.search(r"[?#\\\s]", path):
            raise self._wrong(f"{path!r:.60} is not a path")
        if operation.get("servers") or item.get("servers"):
            raise self._wrong("has servers of its own; give a document for each service")
        parameters = {}
        for given in (item.get("parameters"), operation.get("parameters")):
            for one in given if isinstance(given, list) else ():
                one = self._resolved(one)
                if not isinstance(one, Mapping) or not isinstance(one.get("name"), str):
                    raise self._wrong(f"{one!r:.60} is not a parameter")
                parameters[one["name"], str(one.get("in"))] = one
        for parameter in parameters.values():
            self._parameter(parameter)
        filled = {place.name for place in self._places.values() if place.within == "path"}
        if (named := set(re.findall(r"\{([^{}]*)\}", path))) != filled:
            raise self._wrong(f"the path names {sorted(named)}, but its parameters are {sorted(filled)}")
        content, form = self._body(operation, method)
        whole = plain(
            {"type": "object", "properties": self._properties, "required": self._required}, self._document, self._where
        )
        if not whole["properties"]:
            whole.pop("required", None)
        whole["additionalProperties"] = False
        summary, told = plain_text(operation.get("summary")), plain_text(operation.get("description"), 600)
        description = told if told.startswith(summary) else f"{summary.rstrip('.')}. {told}".rstrip()
        spec = {"name": name, "description": description or f"{method.upper()} {path}", "parameters": whole}
        return ToolSpec(spec), _Shape(method.upper(), path, self._places, content, form)

    def _wrong(self, words: str) -> ToolError:
        return ToolError(f"{self._where}: {words}")

    def _resolved(self, given: Any) -> Any:
        for _ in range(20):
            if not isinstance(given, Mapping) or not isinstance(given.get("$ref"), str):
                return given
            given = target(self._document, given["$ref"], self._where)
        raise self._wrong("its $refs lead in a circle")

    def _add(self, wished: str, schema: Any, required: bool, place: _Place, told: str = "") -> None:
        name = word_name(wished, ())
        if name in self._places:
            name = word_name(f"{place.within if place.within != 'property' else 'body'}_{name}", self._places)
        if told and isinstance(schema, Mapping) and "description" not in schema:
            schema = {**schema, "description": told}
        self._properties[name] = schema
        self._places[name] = place
        if required:
            self._required.append(name)

    def _parameter(self, given: Mapping[str, Any]) -> None:
        name, within = given["name"], str(given.get("in"))
        if within not in _DEFAULTS:
            raise self._wrong(
                f"parameter {name!r:.60} is in {within!r:.20}; supported are path, query, header and cookie"
            )
        required = given.get("required") is True or within == "path"
        if self._owners(name, within):
            return
        if within == "header":
            lower = name.lower()
            if lower in _HEADERS_OF_OURS or lower.startswith(_PREFIXES_OF_OURS) or not _TOKEN.fullmatch(name):
                if required and lower not in ("accept", "content-type", "authorization"):
                    raise self._wrong(
                        f"needs the header {name!r:.60}, which a model does not set; give it in `headers`"
                    )
                return
        if within == "cookie" and not _TOKEN.fullmatch(name):
            raise self._wrong(f"cookie {name!r:.60} has no valid name")
        content, schema = given.get("content"), given.get("schema", {})
        style = given.get("style", _DEFAULTS[within])
        if isinstance(content, Mapping):
            if list(content) != ["application/json"]:
                raise self._wrong(
                    f"parameter {name!r:.60} is written as {', '.join(map(str, content)):.60}; only JSON is supported"
                )
            schema = _schema_of(content["application/json"])
        elif style != _DEFAULTS[within]:
            raise self._wrong(
                f"parameter {name!r:.60} has the style {style!r:.20}; only {_DEFAULTS[within]} is supported"
            )
        elif self._is_object(schema):
            raise self._wrong(
                f"parameter {name!r:.60} is an object, which the style {style} cannot write unambiguously"
            )
        explode = given.get("explode", style == "form") is True
        told = plain_text(given.get("description"))
        self._add(name, schema, required, _Place(within, name, explode, isinstance(content, Mapping)), told)

    def _owners(self, name: str, within: str) -> bool:
        """Whether the owner sets this parameter (`headers`, `query`)."""
        if within == "query":
            return name in self._service.query
        return within == "header" and name.lower() in {one.lower() for one in self._service.headers}

    def _is_object(self, schema: Any) -> bool:
        schema = self._resolved(schema)
        return isinstance(schema, Mapping) and (schema.get("type") == "object" or "properties" in schema)

    def _body(self, operation: Mapping[str, Any], method: str) -> tuple[str, dict[str, bool]]:
        body = self._resolved(operation.get("requestBody"))
        content = body.get("content") if isinstance(body, Mapping) else None
        if not isinstance(body, Mapping) or not isinstance(content, Mapping) or not content:
            return "", {}
        if method in ("get", "head"):
            raise self._wrong("has a body, which GET and HEAD do not have")
        kinds = {str(kind).partition(";")[0].strip().lower(): inner for kind, inner in content.items()}
        kind = next((kind for kind in kinds if kind == "application/json" or kind.endswith("+json")), "")
        if not kind and "*/*" in kinds:
            kinds["application/json"], kind = kinds["*/*"], "application/json"
        form = not kind and "application/x-www-form-urlencoded" in kinds
        kind = "application/x-www-form-urlencoded" if form else kind
        if not kind:
            raise self._wrong(f"its body is {', '.join(kinds):.100}; supported are JSON and forms")
        required = body.get("required") is True
        schema = self._resolved(_schema_of(kinds[kind]))
        if not isinstance(schema, Mapping):
            schema = {}
        shown = plain(schema, self._document, self._where)
        properties = shown.get("properties")
        if shown.get("type") != "object" or not properties or "anyOf" in shown:
            if form:
                raise self._wrong("its form names no fields")
            self._add("body", schema, required, _Place("body", "body"), plain_text(body.get("description")))
            return kind, {}
        # The properties become arguments of their own, because small models write flat calls better than nested ones.
        for name, inner in properties.items():
            self._add(name, inner, required and name in shown.get("required", ()), _Place("property", name))
        return kind, dict.fromkeys(shown.get("required", ()), True)


def _schema_of(content: Any) -> Any:
    return content.get("schema", {}) if isinstance(content, Mapping) else {}


# Calling


class Operation:
    """An operation as a tool. GET and HEAD need no consent; other methods may change something, and need it once."""

    def __init__(self, spec: ToolSpec, shape: _Shape, service: _Service) -> None:
        self._spec, self._shape, self._service = spec, shape, service

    @property
    def spec(self) -> ToolSpec:
        return self._spec

    @property
    def seconds(self) -> float:
        """Time limit of a call in seconds. The service's own time-out is shorter, because its message says more."""
        return self._service.seconds + 1

    @property
    def consent(self) -> Consent:
        return Consent.NEVER if self._shape.method in ("GET", "HEAD") else Consent.ONCE

    def problem(self, arguments: Mapping[str, Any]) -> str:
        try:
            self._request(arguments)
        except ToolError as error:
            return str(error)
        return ""

    async def run(self, arguments: Mapping[str, Any]) -> Outcome:
        try:
            target, headers, content = self._request(arguments)
        except ToolError as error:
            return Outcome(f"Arguments of {self._spec.name} are wrong ({error}).", failed=True)
        return await self._service.ask(self._shape.method, target, headers, content)

    def _request(self, arguments: Mapping[str, Any]) -> tuple[str, dict[str, str], bytes | None]:
        """Make a request. Returns the path and query after the base, the headers, and the body (None: no body).

        Raises:
            ToolError: the arguments are wrong, or a value cannot be written at its place.
        """
        values, problem = checked(arguments, self._spec.flat()["parameters"])
        if problem:
            raise ToolError(problem)
        parts: dict[str, list[tuple[str, Any, _Place]]] = {}
        for argument, place in self._shape.places.items():
            if values.get(argument) is not None:
                parts.setdefault(place.within, []).append((place.name, values[argument], place))
        path = self._shape.path
        for name, value, _ in parts.get("path", ()):
            path = path.replace(f"{{{name}}}", _segment(name, value))
        if any(segment in (".", "..") for segment in path.split("/")):
            raise ToolError("a path may not go to `.` or `..`")
        query = [pair for name, value, place in parts.get("query", ()) for pair in _pairs(name, value, place)]
        headers = {name: _header(name, value) for name, value, _ in parts.get("header", ())}
        cookies = [f"{name}={quote(_scalar(value, name), safe='')}" for name, value, _ in parts.get("cookie", ())]
        if cookies and not any(name.lower() == "cookie" for name in self._service.headers):
            headers["Cookie"] = "; ".join(cookies)
        content: bytes | None = None
        if "body" in parts:
            content = _json_bytes(parts["body"][0][1])
        elif "property" in parts or (self._shape.content and self._shape.form):
            fields = {name: value for name, value, _ in parts.get("property", ())}
            if missing := [name for name in self._shape.form if name not in fields]:
                raise ToolError(f"missing: {', '.join(missing)}")
            if self._shape.content == "application/x-www-form-urlencoded":
                pairs = [pair for name, value in fields.items() for pair in _pairs(name, value, _FORM)]
                content = _written(pairs).encode()
            else:
                content = _json_bytes(fields)
        if content is not None:
            headers["Content-Type"] = self._shape.content
        return path + (f"?{_written(query)}" if query else ""), headers, content


_FORM = _Place("query", "", explode=True)


def _segment(name: str, value: Any) -> str:
    """A part of a path. A slash is refused, because many servers decode `%2F` before they look for the route.

    Raises:
        ToolError: the value is empty, or has slashes or line breaks.
    """
    text = ",".join(_scalar(one, name) for one in value) if isinstance(value, list) else _scalar(value, name)
    if not text or re.search(r"[/\\\x00-\x1f\x7f]", text):
        raise ToolError(f"{name} must not be empty or have slashes or line breaks, got {text!r:.60}")
    return quote(text, safe="")


def _pairs(name: str, value: Any, place: _Place) -> list[tuple[str, str]]:
    if place.as_json:
        return [(name, _json_bytes(value).decode())]
    if not isinstance(value, list):
        return [(name, _scalar(value, name))]
    texts = [_scalar(one, name) for one in value]
    return [(name, text) for text in texts] if place.explode else [(name, ",".join(texts))]


def _header(name: str, value: Any) -> str:
    text = ",".join(_scalar(one, name) for one in value) if isinstance(value, list) else _scalar(value, name)
    if not text.isascii() or not text.isprintable():
        raise ToolError(f"{name} is sent as a header, so it must be plain ASCII on one line, got {text!r:.60}")
    return text.strip()


def _scalar(value: Any, name: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        try:
            str(value).encode()
        except UnicodeEncodeError:
            raise ToolError(f"{name} has half of a surrogate pair, which is not a character") from None
        return str(value)
    raise ToolError(f"{name} must be a text, a number, true or false, got {value!r:.60}")


def _json_bytes(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError):
        raise ToolError("they cannot be written as JSON") from None


def _written(pairs: Sequence[tuple[str, str]]) -> str:
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)


class _Service:
    """Connections to one service, which are reused. They run in a separate thread."""

    def __init__(
        self,
        base: str,
        headers: Mapping[str, str],
        query: Mapping[str, str],
        secrets: frozenset[str],
        private: bool,
        seconds: float,
    ) -> None:
        self.base, self.headers, self.query, self.seconds = base, headers, query, seconds
        self._secrets, self._private = secrets, private
        self._name = urlsplit(base).netloc
        self._thread = LoopThread(f"chatglm {self._name}")
        self._client: httpx.AsyncClient | None = None
        self._closed = False
        _httpx()

    def close(self) -> None:
        self._closed = True
        if self._client is not None:
            with suppress(Exception):  # connections may be broken already
                self._thread.run(self._client.aclose(), 5)
        self._thread.close()

    async def ask(self, method: str, target: str, headers: Mapping[str, str], content: bytes | None) -> Outcome:
        """Send a request to the service. Errors become an outcome for the model."""
        httpx = _httpx()
        if self._closed:
            return Outcome(f"The connection to {self._name} has been closed.", failed=True)
        try:
            outcome = await self._thread.awaited(self._in_time(method, target, headers, content))
        except (TimeoutError, asyncio.TimeoutError):
            outcome = Outcome(f"{self._name} did not answer within {self.seconds:g} seconds.", failed=True)
        except (ChatGLMError, ValueError) as error:
            outcome = Outcome(f"{self._name}: {error}", failed=True)
        except httpx.ConnectError as error:
            why = ": its certificate is not trusted" if "CERTIFICATE" in str(error) else ""
            outcome = Outcome(f"{self._name} cannot be reached{why}.", failed=True)
        except (httpx.HTTPError, httpx.StreamError) as error:
            outcome = Outcome(f"The connection to {self._name} broke ({type(error).__name__}).", failed=True)
        return Outcome(self._hidden(outcome.text), failed=outcome.failed)

    def _hidden(self, text: str) -> str:
        for secret in self._secrets:
            for written in (secret, quote(secret, safe="")):
                text = text.replace(written, "***")
        return text

    async def _in_time(self, method: str, target: str, headers: Mapping[str, str], content: bytes | None) -> Outcome:
        return await asyncio.wait_for(self._asked(method, target, headers, content), self.seconds)

    async def _asked(self, method: str, target: str, headers: Mapping[str, str], content: bytes | None) -> Outcome:
        if self._client is None:
            httpx = _httpx()
            limits = httpx.Limits(max_connections=20, max_keepalive_connections=5, keepalive_expiry=30)
            self._client = httpx.AsyncClient(
                transport=_transport(self._private, _written([*self.query.items()]), limits),
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # users must not share cookies
                timeout=self.seconds,
                follow_redirects=False,
                trust_env=False,
            )
        # Compressed data may become a thousand times as large, so it would evade the size limit.
        own = {"Accept": "application/json, text/*;q=0.9, */*;q=0.1", "Accept-Encoding": "identity"}
        sent = {**own, **headers, **self.headers}
        async with self._client.stream(method, self.base + target, headers=sent, content=content) as answer:
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise ToolError("the answer is compressed, which was not asked for")
            data, whole = b"", True
            async for part in answer.aiter_raw(1 << 14):
                data += part
                if len(data) > MOST_ANSWER:
                    data, whole = data[:MOST_ANSWER], False
                    break
            return _outcome(answer, data, whole)


def _outcome(answer: httpx.Response, data: bytes, whole: bool) -> Outcome:
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    textual = kind.startswith("text/") or re.search(
        r"[/+](json|xml|yaml|javascript|x-ndjson|x-www-form-urlencoded)$", kind
    )
    if not data:
        text = f"(no content, HTTP {answer.status_code})"
    elif textual or (not kind and b"\0" not in data):
        text = _decoded(answer, data) + ("" if whole else f"\n(cut after {MOST_ANSWER:,} bytes)")
    else:
        size = f"{len(data):,} bytes" if whole else f"more than {MOST_ANSWER:,} bytes"
        text = f"({size} of {plain_text(kind, 60) or 'an unknown kind'}, which is no text)"
    if answer.status_code < 300:
        return Outcome(text)
    if answer.status_code < 400:
        return Outcome(f"HTTP {answer.status_code}{_leads(answer)}", failed=True)
    return Outcome(f"HTTP {answer.status_code} {answer.reason_phrase}: {text[:_MOST_REFUSAL]}", failed=True)


def _decoded(answer: httpx.Response, data: bytes) -> str:
    try:
        return data.decode(answer.charset_encoding or "utf-8", errors="replace")
    except LookupError:
        return data.decode("utf-8", errors="replace")


# Addresses


def _is_private_name(host: str) -> bool:
    """Whether a host is clearly this machine or in a private network, without resolving it."""
    try:
        return not _is_public(host.strip("[]"))
    except ValueError:
        return host.lower().rstrip(".") == "localhost" or host.lower().rstrip(".").endswith(".localhost")


def _is_public(address: str) -> bool:
    """Whether an IP address is in the public Internet.

    Raises:
        ValueError: it is not an IP address.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in ipaddress.ip_network("64:ff9b::/96"):  # NAT64
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return inner.is_global and not inner.is_multicast
    return ip.is_global and not ip.is_multicast


def _transport(private: bool, query: str, limits: httpx.Limits) -> httpx.AsyncBaseTransport:
    """A transport that resolves a name itself, and connects to the address that it has checked. Otherwise a second
    resolution could give another address. It also adds the owner's query, which must not be in httpx's log of
    addresses.
    """
    http = _httpx()

    class Transport(http.AsyncHTTPTransport):  # type: ignore[misc, name-defined]
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            host = request.url.host
            try:
                _is_public(host)
                found = [host]
            except ValueError:
                try:
                    infos = await asyncio.get_running_loop().getaddrinfo(
                        host, request.url.port or 443, type=socket.SOCK_STREAM
                    )
                except OSError:
                    raise ToolError(f"{host} has no address") from None
                found = list(dict.fromkeys(str(info[4][0]) for info in infos))
            if not private and (hidden := [one for one in found if not _is_public(one)]):
                private_words = "an address of a private network; its owner can allow that (`private`)"
                raise ToolError(f"{host} leads to {hidden[0]}, {private_words}")
            request.extensions = {**request.extensions, "sni_hostname": host}
            address, last = request.url, found[:4][-1]
            whole = "&".join(part for part in (query, address.query.decode()) if part)
            for one in found[:4]:
                request.url = address.copy_with(host=one, query=whole.encode() or None)
                try:
                    return await super().handle_async_request(request)
                except (http.ConnectError, http.ConnectTimeout):
                    if one == last:
                        raise
                finally:
                    request.url = address
            raise AssertionError("getaddrinfo gives an address, or raises")

    return Transport(limits=limits)  # type: ignore[no-any-return]


def _httpx() -> Any:
    try:
        import httpx
    except ImportError:
        raise DependencyError('tools of web services need httpx: pip install "chatglm[tools]"') from None
    return httpx
