"""Whoever may not read a base cannot tell it from one that does not exist: held over every route of the application."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from chatglm.assistant import Assistant
from chatglm.knowledge import Shelf, Upload
from chatglm.serving.access.key_sources import Texts
from chatglm.serving.access.keys import Keyring
from chatglm.serving.app import OPTIONAL, create_app
from scripted import ScriptedEngine, Writer
from server import serving

ALICE, BOB = "alice.0123456789abcdef", "bob.fedcba9876543210"
BASE, UNKNOWN = "甲方手册", "乙方手册"
FILE = "机密.txt"
SECRET = "须关闭气阀"
QUESTION = "灭火器放在哪里？"
TAKING = {
    ("post", "/v1/knowledge"),
    ("post", "/knowledge_base/create_knowledge_base"),
    ("post", "/local_doc_qa/upload_file"),
    ("post", "/local_doc_qa/upload_files"),
}
"""What makes a base says that a name is taken, by whomever."""
BASES = ("knowledge_base_name", "knowledge_base_id", "kb_name", "param")
FILES = ("file", "file_name", "file_names", "files", "old_doc", "doc_name")


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    url: str
    more: Mapping[str, Any]


class Samples:
    """Requests that fit the document, in which all that can name a base names this one.

    Args:
        document: OpenAPI.
        model: in the place of a model's name; None: it stands for the base.
    """

    def __init__(self, document: Mapping[str, Any], base: str, model: str | None) -> None:
        self._document, self._base, self._model = document, base, model or f"knowledge:{base}"

    def requests(self) -> Iterator[Request]:
        for path, operations in self._document["paths"].items():
            for method, operation in operations.items():
                yield self._request(method, path, operation)

    def _request(self, method: str, path: str, operation: Mapping[str, Any]) -> Request:
        url, params = path, {}
        for parameter in operation.get("parameters", ()):
            field, schema = parameter["name"], parameter["schema"]
            if parameter["in"] == "path":
                value = self._value(field, schema)
                if field == "name":
                    value = self._base if "/knowledge/" in path else self._model
                url = url.replace(f"{{{field}}}", urllib.parse.quote(str(value), safe=""))
            elif parameter.get("required") or field in (*BASES, *FILES):
                params[field] = self._value(field, schema)
        more: dict[str, Any] = {"params": params}
        content = operation.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            more["json"] = self._value("", content["application/json"]["schema"])
        elif "multipart/form-data" in content:
            schema = content["multipart/form-data"]["schema"]
            files = [name for name, one in schema["properties"].items() if _is_file(one)]
            more["files"] = [(name, (FILE, b"x")) for name in files]
            more["data"] = {
                name: self._value(name, {"type": "string"}) for name in BASES if name in schema["properties"]
            }
        return Request(method, path, url, more)

    def _value(self, field: str, schema: Mapping[str, Any]) -> Any:
        if "$ref" in schema:
            found: Any = self._document
            for part in schema["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            return self._value(field, found)
        if field == "model":
            return self._model
        if field == "messages":
            return [{"role": "user", "content": QUESTION}]
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return schema["enum"][0]
        for union in ("anyOf", "oneOf", "allOf"):
            if union in schema:
                return self._value(field, schema[union][0])
        match schema.get("type"):
            case "object" | None:
                properties = schema.get("properties", {})
                wanted = {
                    *schema.get("required", ()),
                    *(name for name in (*BASES, *FILES, "knowledge", "model", "input", "query")),
                }
                if not self._model.startswith("knowledge:") or "model" not in properties:
                    wanted -= {"model"}
                else:
                    wanted -= {"knowledge"}
                return {name: self._value(name, one) for name, one in properties.items() if name in wanted}
            case "array":
                return [self._value(field, schema.get("items", {"type": "string"}))]
            case "integer" | "number":
                return max(schema.get("minimum", 1), 1)
            case "boolean":
                return False
            case "null":
                return None
        if field in (*BASES, "knowledge", "name", ""):
            return self._base
        if field in FILES:
            return FILE
        return QUESTION


def _is_file(schema: Mapping[str, Any]) -> bool:
    return "binary" in (schema.get("format"), schema.get("items", {}).get("format"))


def _plain(text: str, base: str) -> str:
    """Without the base's name, and without what is never the same twice."""
    for form in (base, json.dumps(base)[1:-1], urllib.parse.quote(base)):
        text = text.replace(form, "BASE")
    return re.sub(r"[0-9a-f]{16,}|\d{10,}(\.\d+)?|\d\d:\d\d:\d\d|req_\w+", "ID", text)


@dataclass(frozen=True)
class Server:
    shelf: Shelf
    url: str
    document: Mapping[str, Any]

    def client(self, key: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=60)

    def state(self) -> tuple[Any, ...]:
        """All that anybody could have changed of the base."""
        base = self.shelf.base(BASE, None)
        files = base.files()
        pieces = [base.pieces(file.name) for file in files]
        return files, pieces, base.store.roles(), base.setting("about"), base.setting("prompt"), base.setting("strict")


@pytest.fixture(scope="module")
def server(write: Writer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    engine = ScriptedEngine(write.say("灭火器在门口右侧。"), context=2048, pace=100)
    home = tmp_path_factory.mktemp("home")
    options: dict[str, Any] = {
        "keys": Keyring([Texts([ALICE, BOB], "test")]),
        "dialects": tuple(OPTIONAL),
        "home": home,
    }
    with Shelf(home) as shelf, Assistant(write.form, engine) as assistant:  # type: ignore[arg-type]
        document = create_app({"demo": assistant}, knowledge=shelf, **options).openapi()
        with serving({"demo": assistant}, knowledge=shelf, **options) as url:
            found = Server(shelf, url, document)
            with found.client(ALICE) as client:
                assert client.post("/v1/knowledge", json={"name": BASE, "about": "机密"}).status_code == 201
            shelf.base(BASE, None).add(Upload(FILE, f"灭火器在门口右侧。离开前{SECRET}。".encode()))
            yield found


def ask(client: httpx.Client, request: Request) -> httpx.Response:
    return client.request(request.method, request.url, **request.more)


@pytest.mark.parametrize("model", [None, "demo"])
def test_a_base_of_another_is_one_that_does_not_exist(server: Server, model: str | None) -> None:
    before = server.state()
    mine = Samples(server.document, BASE, model).requests()
    nobodys = Samples(server.document, UNKNOWN, model).requests()
    seen = 0
    with server.client(BOB) as bob:
        for asked, unknown in zip(mine, nobodys, strict=True):
            operation = (asked.method, asked.path)
            answer = ask(bob, asked)
            assert SECRET not in answer.text, operation
            if operation in TAKING:
                assert "taken" in answer.text or "已存在" in answer.text, operation
                continue
            other = ask(bob, unknown)
            assert answer.status_code == other.status_code, (operation, answer.text, other.text)
            assert _plain(answer.text, BASE) == _plain(other.text, UNKNOWN), operation
            seen += 1
        assert BASE not in bob.get("/v1/models").text
        assert BASE not in bob.get("/v1/knowledge").text
        assert BASE not in bob.get("/knowledge_base/list_knowledge_bases").text
        assert BASE not in bob.get("/local_doc_qa/list_knowledge_base").text
        assert bob.get(f"/v1/knowledge/{BASE}/events").status_code == 404
    assert seen > 80
    assert server.state() == before


def test_the_same_requests_reach_the_base_of_their_owner(server: Server) -> None:
    """So the test above asks what could be answered."""
    reached = set()
    with server.client(ALICE) as alice:
        for model in (None, "demo"):
            for request in Samples(server.document, BASE, model).requests():
                changes = re.search("delete|upload|update|access|summar|/files$", request.path)
                if request.method == "get" or (request.method == "post" and not changes):
                    answer = ask(alice, request)
                    if answer.status_code < 300 and any(each in answer.text for each in (SECRET, BASE, FILE)):
                        reached.add(request.path)
    assert reached >= {
        "/v1/models",
        "/v1/knowledge",
        "/v1/knowledge/{name}",
        "/v1/knowledge/{name}/search",
        "/v1/knowledge/{name}/ask",
        "/v1/knowledge/{name}/files/{file}/text",
        "/v1/knowledge/{name}/files/{file}/content",
        "/v1/knowledge/{name}/files/{file}/pieces",
        "/v1/knowledge/{name}/pieces/{piece}",
        "/v1/chat/completions",
        "/v1/responses",
        "/knowledge_base/list_knowledge_bases",
        "/knowledge_base/list_files",
        "/knowledge_base/search_docs",
        "/knowledge_base/download_doc",
        "/knowledge_base/{mode}/{param}/chat/completions",
        "/chat/kb_chat",
        "/local_doc_qa/list_knowledge_base",
        "/local_doc_qa/local_doc_chat",
    }
