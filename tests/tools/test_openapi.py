"""A real service, served by uvicorn, is called through its own document, and through one written by hand."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import uvicorn
import yaml
from fastapi import Cookie, FastAPI, Form, Header, Query, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse, StreamingResponse
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from chatglm.chat.messages import ToolCall
from chatglm.errors import ToolError
from chatglm.schemas import held
from chatglm.tools import openapi
from chatglm.tools.openapi import OpenAPITools, open_tools
from chatglm.tools.tool import Consent, Outcome, Tool
from chatglm.tools.toolbox import Toolbox


class Item(BaseModel):
    id: int = Field(json_schema_extra={"readOnly": True}, default=0)
    name: str = Field(description="what it is called", max_length=20)
    price: float | None = None
    parts: list[Item] = []


BOMB = gzip.compress(b"0" * 5_000_000)
app = FastAPI(title="Shop", servers=[{"url": "http://shop.invalid"}])


@app.get("/items/{item_id}", operation_id="get_item")
def get_item(
    item_id: str,
    words: Annotated[list[str], Query(description="to look for")] = [],  # noqa: B006
    x_trace: Annotated[str | None, Header()] = None,
    session: Annotated[str | None, Cookie()] = None,
) -> dict[str, Any]:
    """One item."""
    return {"id": item_id, "words": words, "trace": x_trace, "session": session}


@app.post("/items/{item_id}", operation_id="make-item")
def make_item(item_id: int, item: Item, dry: bool = False) -> dict[str, Any]:
    return {"id": item_id, "dry": dry, "item": item.model_dump()}


@app.delete("/items", operation_id="delete_all")
def delete_all() -> Response:
    return Response(status_code=204)


@app.post("/form", operation_id="send_form")
def send_form(name: Annotated[str, Form()], count: Annotated[int, Form()] = 1) -> dict[str, Any]:
    return {"name": name, "count": count}


@app.get("/echo", operation_id="echo")
def echo(request: Request, q: str = "") -> dict[str, Any]:
    return {"headers": dict(request.headers), "query": str(request.url.query)}


@app.get("/secret", operation_id="secret")
def secret() -> str:
    return "nobody is to see this"


@app.get("/bad/{kind}", operation_id="bad")
async def bad(kind: str) -> Response:
    async def long() -> Any:
        for _ in range(160):  # 10 MiB
            yield b"x" * 65536

    async def drip() -> Any:
        for _ in range(100):
            yield b" "
            await asyncio.sleep(0.02)

    match kind:
        case "hang":
            await asyncio.sleep(60)
        case "huge":
            return StreamingResponse(long(), media_type="text/plain")
        case "drip":
            return StreamingResponse(drip(), media_type="text/plain")
        case "crash":
            raise RuntimeError("inside")
        case "fail":
            return PlainTextResponse("no such thing, Bearer t0psecret " + "y" * 5000, 418)
        case "redirect":
            return RedirectResponse("/secret")
        case "binary":
            return Response(b"\0\1\2" * 100, media_type="application/zip")
        case "bomb":
            return Response(BOMB, media_type="text/plain", headers={"Content-Encoding": "gzip"})
        case "cookie":
            return PlainTextResponse("ok", headers={"Set-Cookie": "session=of-another; Path=/"})
        case "latin":
            return Response("é".encode("latin-1"), media_type="text/plain; charset=latin-1")
    return PlainTextResponse("well")


def free() -> socket.socket:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(64)
    return listening


@contextlib.contextmanager
def raw(answer: bytes) -> Iterator[str]:
    """A server that says this, whatever it is asked."""
    with free() as listening:

        def live() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.recv(4096)
                        connection.sendall(answer)

        threading.Thread(target=live, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def serving(**options: Any) -> Iterator[int]:
    """The port of the shop."""
    listening = free()
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1, **options)
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join(60)


@pytest.fixture(scope="module")
def shop() -> Iterator[str]:
    with serving() as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def tools(shop: str) -> Iterator[OpenAPITools]:
    found = OpenAPITools.read(app.openapi(), shop, seconds=1.5)
    yield found
    found.close()


def call(tools: OpenAPITools, name: str, /, **arguments: Any) -> Outcome:
    (tool,) = [one for one in tools if one.spec.name == name]
    return asyncio.run(tool.run(arguments))


def answer(tools: OpenAPITools, name: str, /, **arguments: Any) -> Any:
    outcome = call(tools, name, **arguments)
    assert not outcome.failed, outcome.text
    return json.loads(outcome.text)


def test_what_a_model_is_shown(tools: OpenAPITools) -> None:
    specs = {tool.spec.name: tool.spec.flat() for tool in tools}
    assert list(specs) == ["get_item", "make_item", "delete_all", "send_form", "echo", "secret", "bad"]
    assert specs["get_item"] == {
        "name": "get_item",
        "description": "Get Item. One item.",
        "parameters": {
            "type": "object",
            "properties": {
                "item_id": {"type": "string"},
                "words": {"type": "array", "description": "to look for", "items": {"type": "string"}},
                "x_trace": {"type": ["string", "null"]},
                "session": {"type": ["string", "null"]},
            },
            "required": ["item_id"],
            "additionalProperties": False,
        },
    }
    made = specs["make_item"]["parameters"]
    assert made["required"] == ["item_id", "name"]
    assert made["properties"]["name"] == {"type": "string", "description": "what it is called", "maxLength": 20}
    assert made["properties"]["parts"]["items"]["properties"]["parts"]["items"] == {"description": "again Item"}
    assert "id" not in made["properties"]
    consents = {tool.spec.name: tool.consent for tool in tools}
    assert consents["get_item"] is Consent.NEVER
    assert consents["make_item"] is consents["delete_all"] is Consent.ONCE


def test_calls(tools: OpenAPITools) -> None:
    got = answer(tools, "get_item", item_id="北京 a?b#c&d%2F..", words=["x&y", "z"], x_trace="t", session="a;b=c")
    assert got == {"id": "北京 a?b#c&d%2F..", "words": ["x&y", "z"], "trace": "t", "session": "a%3Bb%3Dc"}
    part = {"id": 0, "name": "rim", "price": None, "parts": []}
    got = answer(tools, "make_item", item_id="7", dry=True, name="车", price=2, parts=[{"name": "rim"}])
    assert got == {"id": 7, "dry": True, "item": {"id": 0, "name": "车", "price": 2.0, "parts": [part]}}
    assert call(tools, "delete_all").text == "(no content, HTTP 204)"
    assert answer(tools, "send_form", name="a&count=9", count=2) == {"name": "a&count=9", "count": 2}
    assert call(tools, "bad", kind="latin").text == "é"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"item_id": "../secret"}, "slashes"),
        ({"item_id": "..\\secret"}, "slashes"),
        ({"item_id": ".."}, "`.` or `..`"),
        ({"item_id": ""}, "must not be empty"),
        ({"item_id": "a\r\nHost: b"}, "line breaks"),
        ({"item_id": "a", "x_trace": "a\r\nX-Other: b"}, "plain ASCII on one line"),
        ({"item_id": "a", "host": "b"}, "unknown: host"),
        ({"item_id": "a", "base": "http://b"}, "unknown: base"),
        ({"item_id": {"a": 1}}, "item_id must be string"),
        ({"item_id": "\ud800"}, "surrogate"),
        ({}, "missing: item_id"),
    ],
)
def test_no_value_changes_where_a_request_goes(tools: OpenAPITools, arguments: dict[str, Any], said: str) -> None:
    outcome = call(tools, "get_item", **arguments)
    assert outcome.failed
    assert outcome.text.startswith("Arguments of get_item are wrong")
    assert any(word in outcome.text for word in said.split("|")), outcome.text


def test_whatever_a_service_does_is_an_observation(tools: OpenAPITools) -> None:
    async def all_at_once() -> list[Outcome]:
        (bad,) = [tool for tool in tools if tool.spec.name == "bad"]
        kinds = ("hang", "huge", "drip", "crash", "fail", "redirect", "binary", "bomb", "well")
        return await asyncio.gather(*(bad.run({"kind": kind}) for kind in kinds))

    hang, huge, drip, crash, fail, redirect, binary, bomb, well = asyncio.run(all_at_once())
    assert (well.text, well.failed) == ("well", False)
    assert "did not answer within 1.5 seconds" in hang.text
    assert "did not answer within 1.5 seconds" in drip.text
    assert huge.text == "x" * openapi.MOST_ANSWER + f"\n(cut after {openapi.MOST_ANSWER:,} bytes)"
    assert crash.text == "HTTP 500 Internal Server Error: Internal Server Error"
    assert fail.text.startswith("HTTP 418 I'm a Teapot: no such thing")
    assert len(fail.text) < 1100
    assert "redirects are not followed" in redirect.text
    assert "nobody" not in redirect.text
    assert binary.text == "(300 bytes of application/zip, which is no text)"
    assert "compressed" in bomb.text
    assert all(one.failed for one in (hang, drip, crash, fail, redirect, bomb))


def test_one_users_cookies_are_not_anothers(tools: OpenAPITools) -> None:
    assert call(tools, "bad", kind="cookie").text == "ok"
    assert answer(tools, "get_item", item_id="a")["session"] is None


@pytest.mark.parametrize("said", [b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort", b"\x16\x03nonsense", b""])
def test_a_service_that_does_not_speak_http(said: bytes) -> None:
    with raw(said) as address:
        tools = OpenAPITools.read(app.openapi(), address, seconds=2)
        assert "broke" in call(tools, "secret").text
        tools.close()
    assert "cannot be reached" in call(OpenAPITools.read(app.openapi(), address), "secret").text


def test_the_owners_secrets_are_sent_and_never_shown(
    shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "t0psecret")
    (tmp_path / "shop.json").write_text(json.dumps(app.openapi()))
    settings = {
        "document": "shop.json",
        "base": shop,
        "headers": {"Authorization": "Bearer ${SHOP_TOKEN}", "X-Trace": "ours"},
        "query": {"key": "${SHOP_TOKEN}", "q": "fixed"},
        "only": ["GET /echo", "bad", "get_item"],
        "seconds": 5,
    }
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(settings))
    tools = open_tools(tmp_path / "shop.yaml")
    assert [tool.spec.name for tool in tools] == ["get_item", "echo", "bad"]
    assert "t0psecret" not in str([tool.spec for tool in tools])
    assert tools[1].spec.flat()["parameters"]["properties"] == {}  # `q` is the owner's
    assert "x_trace" not in tools[0].spec.flat()["parameters"]["properties"]
    with caplog.at_level("DEBUG"):
        got = answer(tools, "echo")
    assert "/echo" in caplog.text
    assert "t0psecret" not in caplog.text
    assert got["headers"]["authorization"] == "Bearer ***"  # sent, and hidden where it comes back
    assert got["query"] == "key=***&q=fixed"
    assert answer(tools, "get_item", item_id="a", words=["b"])["words"] == ["b"]
    assert "t0psecret" not in call(tools, "bad", kind="fail").text
    tools.close()
    closed = call(tools, "echo")
    assert (closed.failed, "closed" in closed.text) == (True, True)
    monkeypatch.delenv("SHOP_TOKEN")
    with pytest.raises(ToolError, match="Authorization: the environment has no SHOP_TOKEN"):
        open_tools(tmp_path / "shop.yaml")


def test_a_document_by_its_address(shop: str) -> None:
    tools = open_tools(f"{shop}/openapi.json")
    # Its server is named by its whole address, and is on no private network.
    assert "shop.invalid" in call(tools, "secret").text
    with pytest.raises(
        ToolError, match=r"/bad/redirect: answers with status 307, which leads to http://127\S+/secret; red"
    ):
        open_tools(f"{shop}/bad/redirect")
    with pytest.raises(ToolError, match="larger than"):
        open_tools(f"{shop}/bad/huge")
    with pytest.raises(ToolError, match=r"cannot be read \(ReadTimeout\)"):
        OpenAPITools.read(f"{shop}/bad/hang", seconds=0.2)
    with pytest.raises(ToolError, match=r"^http://127.0.0.1:1/a: cannot be read"):
        open_tools("http://user:pass@127.0.0.1:1/a?key=b")


def test_a_toolbox_of_services(shop: str, tmp_path: Path) -> None:
    (tmp_path / "shop.json").write_text(json.dumps({**app.openapi(), "servers": [{"url": shop}]}))
    settings = {"document": "shop.json", "only": ["GET /items/{item_id}", "delete_all"]}
    (tmp_path / "some.yaml").write_text(yaml.safe_dump(settings))
    asked: list[str] = []

    async def permit(call: ToolCall, tool: Tool) -> bool:
        asked.append(call.name)
        return True

    calls = [
        ToolCall("get_item", {"item_id": "a/b"}),
        ToolCall("delete_all", {}),
        ToolCall("get_item", {"item_id": "a"}),
    ]
    with Toolbox.open([tmp_path / "some.yaml"]) as box:
        wrong, deleted, item = box.call_now(calls, permit)
        (unasked,) = box.also().call_now(calls[1:2])
    assert (asked, wrong.failed, deleted.text) == (["delete_all"], True, "(no content, HTTP 204)")
    assert json.loads(item.text)["id"] == "a"
    assert "permits" in unasked.text
    for source in (tmp_path / "shop.json", f"{shop}/openapi.json"):
        with Toolbox.open([source]) as box:
            assert len(box.specs) == 7


# Addresses


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "10.1.2.3", "169.254.169.254", "0.0.0.0", "224.0.0.1", "100.64.0.1"),
        *("[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[fe80::1]", "[2002:7f00:1::]"),
    ],
)
def test_addresses_that_are_private(host: str) -> None:
    assert openapi._is_private_name(host)
    assert not openapi._is_private_name("example.com")
    assert not openapi._is_public(host.strip("[]"))
    assert openapi._is_public("93.184.216.34")


def test_a_name_that_leads_to_a_private_address_is_refused(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = int(shop.rpartition(":")[2])
    asked: list[str] = []

    async def resolve(self: Any, host: str, port: int, **options: Any) -> Any:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolve)
    tools = OpenAPITools.read(app.openapi(), f"http://shop.example:{port}")
    refused = call(tools, "secret")
    assert refused.failed
    assert "shop.example leads to 127.0.0.1, an address of a private network" in refused.text
    allowed = OpenAPITools.read(app.openapi(), f"http://shop.example:{port}", private=True)
    assert "nobody" in call(allowed, "secret").text
    assert answer(allowed, "echo")["headers"]["host"] == f"shop.example:{port}"
    assert set(asked) == {"shop.example"}
    tools.close()
    allowed.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the command openssl")
def test_a_certificate_is_checked_by_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although it is an address that is connected to."""
    certificate, key = tmp_path / "a.pem", tmp_path / "a.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2"]
    command += ["-nodes", "-subj", "/CN=a", "-addext", "subjectAltName=DNS:shop.example"]
    subprocess.run([*command, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serving(ssl_certfile=str(certificate), ssl_keyfile=str(key)) as port:

        async def resolve(self: Any, host: str, port_: int, **options: Any) -> Any:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolve)
        for host, said in (("shop", "nobody is to see this"), ("other", "its certificate is not trusted")):
            found = OpenAPITools.read(app.openapi(), f"https://{host}.example:{port}", private=True)
            assert said in call(found, "secret").text
            found.close()


def test_a_document_from_elsewhere_does_not_point_at_our_network(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {**app.openapi(), "servers": [{"url": "http://127.0.0.1:9"}]}
    monkeypatch.setattr(openapi, "_fetch", lambda *_: (json.dumps(document).encode(), "x", "https://api.example/x"))
    assert "private network" in call(OpenAPITools.read("https://api.example/x"), "secret").text


# Documents


def written(**paths: Any) -> dict[str, Any]:
    server = {"url": "https://{where}/v1", "variables": {"where": {"default": "a.example"}}}
    items = {path.replace("__", "/"): {"get": operation} for path, operation in paths.items()}
    return {"openapi": "3.0.3", "servers": [server], "paths": items}


def parameter(within: str, name: str = "a", **more: Any) -> dict[str, Any]:
    return {
        "parameters": [{"in": within, "name": name, "required": within == "path", "schema": {"type": "string"}, **more}]
    }


BY_HAND = """
openapi: 3.0.3
servers: [{url: SHOP}]
paths:
  /items/{item_id}:
    parameters:
      - {name: item_id, in: path, required: true, schema: {type: integer}}
    get:
      parameters:
        - {name: words, in: query, explode: false, schema: {type: array, items: {type: string}}}
        - {$ref: '#/components/parameters/Page'}
        - {name: item_id, in: query, schema: {type: string}, description: another}
    post:
      summary: Make
      requestBody:
        required: true
        content: {application/json; charset=utf-8: {schema: {$ref: '#/components/schemas/Item'}}}
  /echo:
    get:
      operationId: echo
      parameters: [{name: f, in: query, content: {application/json: {schema: {type: object}}}}]
    post:
      operationId: echo
      requestBody: {content: {application/json: {schema: {type: array, items: {}}}}}
components:
  parameters:
    Page: {name: 'page[size]', in: query, schema: {type: integer, nullable: true}}
  schemas:
    Item:
      allOf:
        - {type: object, properties: {name: {type: string}}, required: [name]}
        - {properties: {item_id: {type: integer}}}
"""


def test_a_document_written_by_hand(shop: str, tmp_path: Path) -> None:
    text = BY_HAND.replace("SHOP", shop)
    (tmp_path / "shop.yaml").write_text(text)
    tools = open_tools(tmp_path / "shop.yaml")
    shown = {tool.spec.name: tool.spec.flat() for tool in tools}
    assert list(shown) == ["get_items_item_id", "post_items_item_id", "echo", "echo_2"]
    assert shown["get_items_item_id"]["parameters"]["properties"] == {
        "item_id": {"type": "integer"},
        "words": {"type": "array", "items": {"type": "string"}},
        "page_size": {"type": ["integer", "null"]},
        "query_item_id": {"type": "string", "description": "another"},
    }
    got = answer(tools, "get_items_item_id", item_id=3, words=["a", "b"], page_size=None, query_item_id="x")
    assert got == {"id": "3", "words": ["a,b"], "trace": None, "session": None}
    assert shown["post_items_item_id"]["parameters"]["required"] == ["item_id", "name"]
    made = answer(tools, "post_items_item_id", item_id=1, name="n", body_item_id=2)
    assert (made["id"], made["item"]["name"]) == (1, "n")
    assert answer(tools, "echo", f={"a": [1]})["query"] == "f=%7B%22a%22%3A%20%5B1%5D%7D"
    assert "HTTP 405" in call(tools, "echo_2", body=[1]).text
    tools.close()


@pytest.mark.parametrize(
    ("operation", "said"),
    [
        (parameter("query", style="deepObject", schema={"type": "object"}), "'deepObject'; only form is supported"),
        (parameter("query", style="pipeDelimited"), "the style 'pipeDelimited'"),
        (parameter("query", schema={"type": "object"}), "is an object"),
        (parameter("query", content={"text/csv": {}}), "is written as text/csv; only JSON is supported"),
        (parameter("body"), "is in 'body'"),
        (parameter("header", "Host", required=True), "needs the header 'Host', which a model does not set"),
        (parameter("header", "X-Forwarded-For", required=True), "needs the header"),
        (parameter("path", "b"), "the path names"),
        ({"parameters": [5]}, "5 is not a parameter"),
        ({"parameters": [{"$ref": "other.yaml#/a"}]}, "points to another document"),
        ({"servers": [{"url": "https://b.example"}]}, "servers of its own"),
        ({"requestBody": {"content": {"application/json": {}}}}, "GET and HEAD do not have"),
    ],
)  # fmt: skip
def test_operations_that_are_left_out_are_named_with_the_reason(
    operation: Any, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    document = written(__x=operation, __well={})
    tools = OpenAPITools.read(document)
    assert [tool.spec.name for tool in tools] == ["get_well"]
    assert said in tools.left_out["GET /x"]
    assert said in caplog.text
    with pytest.raises(ToolError, match="x"):
        OpenAPITools.read(document, only=["GET /x"])


def test_headers_that_are_not_a_models_to_set_are_not_shown() -> None:
    names = ("Host", "Authorization", "Content-Length", "X-Forwarded-For", "Transfer-Encoding", "Cookie", "X-Mine")
    given = {"parameters": [{"in": "header", "name": name, "schema": {"type": "string"}} for name in names]}
    (tool,) = OpenAPITools.read(written(__x=given))
    assert list(tool.spec.flat()["parameters"]["properties"]) == ["X_Mine"]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"swagger": "2.0"}, "Swagger 2.0 is not supported"),
        ({"openapi": "4.0.0"}, "supported are 3.0 and 3.1"),
        ({"openapi": "3.1.0", "servers": [{"url": "/v1"}], "paths": {}}, "give `base`"),
        ({"openapi": "3.1.0", "servers": [{"url": "https://a:b@c"}], "paths": {}}, "without user, query"),
        ({"openapi": "3.1.0", "servers": [{"url": "https://a"}]}, "has no `paths`"),
        ({"openapi": "3.1.0", "servers": [{"url": "https://a"}], "paths": {}}, "has no operation"),
        (written(**{f"__p{n}": {} for n in range(101)}), "101 operations; choose at most 100 with `only`"),
    ],
)
def test_documents_that_are_refused(document: Any, said: str) -> None:
    with pytest.raises(ToolError, match=said):
        OpenAPITools.read(document)


def test_settings_are_checked(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(written(__x={})))
    for more, said in (
        ({"bse": "x"}, "unknown bse; known: base"),
        ({"base": 5}, "base: expected a text, got 5"),
        ({"base": "ftp://a"}, "is not an http"),
        ({"seconds": True}, "seconds: expected"),
        ({"headers": {"A": "b\nc"}}, "line break"),
        ({"headers": {"A B": "c"}}, "line break or another"),
        ({"only": ["nothing"]}, "there is no nothing"),
    ):
        (tmp_path / "a.yaml").write_text(yaml.safe_dump({"document": "a.json", **more}))
        with pytest.raises(ToolError, match=said):
            open_tools(tmp_path / "a.yaml")


WHOLE = {**written(__a={}), **app.openapi(), "openapi": "3.1.0", "servers": [{"url": "http://a.example"}]}
WORDS = st.sampled_from(["", "#", "#/paths", "path", "object", "{a}", "/b"])
ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | WORDS,
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.sampled_from(["$ref", "type", "in"]), one, max_size=3),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


PLACES = [path for path in places(WHOLE) if path and path[0] != "info"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PLACES), ODD), min_size=1, max_size=3))
def test_a_document_is_read_or_refused(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    document = json.loads(json.dumps(WHOLE))
    for (*path, last), value in changes:
        found = document
        for key in path:
            found = found[key] if isinstance(found, dict | list) and _has(found, key) else {}
        if isinstance(found, dict) or (isinstance(found, list) and _has(found, last)):
            found[last] = value
    with contextlib.suppress(ToolError):
        for tool in OpenAPITools.read(document):
            flat = tool.spec.flat()
            assert json.dumps(flat)
            assert held(flat["parameters"])
            target, headers, _ = tool._request(dict.fromkeys(flat["parameters"]["properties"], "x"))
            assert target.startswith("/")
            assert not {"Host", "Authorization"} & headers.keys()


def _has(found: Any, key: Any) -> bool:
    return key in found if isinstance(found, dict) else isinstance(key, int) and key < len(found)
