"""Passwords and API keys of external stores and endpoints are never stored, printed, logged or answered."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from small_bases import HANDBOOK

from chatglm.cli import main
from chatglm.errors import InputError, ServiceError
from chatglm.knowledge import Shelf, Upload, base, open_base, places
from chatglm.knowledge.external import External

pytest.importorskip("langchain_core")

from langchain_core.vectorstores import InMemoryVectorStore
from test_external import Pairs

SECRET = "hunter2/%"
QUOTED = "hunter2%2F%25"
METHODS = ["add_texts", "delete", "get_by_ids", "similarity_search_with_score"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    known = base.embedder_of
    monkeypatch.setattr(base, "embedder_of", lambda given: _Pairs() if given == "pairs" else known(given))
    monkeypatch.setenv("CHATGLM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STORE_KEY", SECRET)
    folder = tmp_path / "documents"
    folder.mkdir()
    for name, text in HANDBOOK.items():
        (folder / name).write_text(text, "utf-8")
    return tmp_path


class _Pairs:
    name, size = "pairs", 64

    def passages(self, texts: list[str]) -> Any:
        import numpy as np

        return np.array(Pairs().embed_documents(texts), np.float32)

    questions = passages


class _Tells(InMemoryVectorStore):
    """Says the key when it fails, as a proxy may that shows the request.

    Attributes:
        fails: the method that fails; "": none.
    """

    fails = ""

    def __getattribute__(self, name: str) -> Any:
        if name in METHODS and name == _Tells.fails:

            def told(*_: object, **__: object) -> None:
                raise RuntimeError(f"denied: {SECRET}, or {QUOTED} in {'x' * 270}{SECRET}")

            return told
        return super().__getattribute__(name)


@pytest.mark.parametrize("place", ["qdrant:http://:$STORE_KEY@h#c", "milvus:http://u:$STORE_KEY@h:19530#c"])
def test_a_key_is_shown_nowhere(
    place: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: Any
) -> None:
    store = _Tells(Pairs())
    opening = ""

    def opened(place: places.Place, secret: str, embeddings: Any) -> Any:
        assert secret == SECRET
        if opening:
            raise RuntimeError(opening)
        return store, lambda of: {}, lambda: None

    kind = places._Kind("langchain", opened, opened)  # type: ignore[arg-type]
    monkeypatch.setitem(places._KINDS, places.place_of(place).kind, kind)  # type: ignore[misc]
    caplog.set_level(logging.DEBUG)
    documents = str(home / "documents")
    monkeypatch.setattr(_Tells, "fails", "")
    assert main(["knowledge", "add", "b", documents, "--embedder", "pairs", "--vectors-at", place]) == 0
    said: list[str] = []

    def run(*arguments: str, denied: bool = True) -> None:
        main(["knowledge", *arguments])
        shown = "".join(capsys.readouterr())
        assert not denied or "denied" in shown
        said.append(shown)

    monkeypatch.setattr(_Tells, "fails", "similarity_search_with_score")
    run("search", "b", "灭火器", "--explain")
    run("search", "b", "灭火器", "--json")
    run("ask", "b", "灭火器放在哪里？", "--extract")
    monkeypatch.setattr(_Tells, "fails", "get_by_ids")
    run("check", "b")
    monkeypatch.setattr(_Tells, "fails", "delete")
    (home / "documents" / "食堂.txt").unlink()
    run("sync", "b", documents)
    monkeypatch.setattr(_Tells, "fails", "add_texts")
    (home / "documents" / "新.txt").write_text("新的文件。", "utf-8")
    run("sync", "b", documents)
    with Shelf() as shelf:
        one = shelf.base("b", None)
        one.wait()
        assert "denied" in one.trouble
        said.append(one.trouble)
    opening = f"denied: {SECRET}"
    run("search", "b", "灭火器")
    run("list", denied=False)
    run("list", "--json", denied=False)
    run("show", "b", "安全.txt", "--json", denied=False)
    run("export", "b", str(home / "copy"), denied=False)
    run("remove", "b", "--yes")
    run("check", "--repair")
    said.append(caplog.text)
    kept = b"".join(file.read_bytes() for file in home.rglob("*") if file.is_file())
    for secret in (SECRET, QUOTED, "hunter2"):
        assert secret not in "".join(said)
        assert secret.encode() not in kept


def test_a_traceback_does_not_show_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_base("b", create=True, home=tmp_path) as one:
        vectors = External(one.store, _Tells(Pairs()), hide=lambda said: said.replace(SECRET, "…").replace(QUOTED, "…"))
        monkeypatch.setattr(_Tells, "fails", "similarity_search_with_score")
        with pytest.raises(ServiceError, match="denied") as raised:
            vectors._search("x", 1)
        assert "hunter2" not in "".join(traceback.format_exception(raised.value))


@contextlib.contextmanager
def echo() -> Iterator[str]:
    """The address of a server that refuses every request, and shows its headers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = json.dumps({"denied": dict(self.headers)}).encode()
            self.send_response(401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815 - the name that `http.server` asks for

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.filterwarnings("ignore:Api key is used with", "ignore:Failed to obtain server version")
def test_a_server_of_qdrant_that_shows_the_key(home: Path) -> None:
    pytest.importorskip("langchain_qdrant")
    with (
        echo() as address,
        open_base("b", create=True, embedder=_Pairs(), vectors_at=f"qdrant:http://:$STORE_KEY@{address[7:]}#c") as one,
    ):
        one.add(Upload("a.txt", "灭火器".encode()))
        assert "denied" in one.trouble
        assert "hunter2" not in one.trouble


def test_an_endpoint_that_shows_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATGLM_API_KEY", SECRET)
    with (
        echo() as address,
        open_base("b", create=True, home=tmp_path, embedder=f"{address}/v1#m", reranker=f"{address}/v1#m") as one,
    ):
        one.add(Upload("a.txt", "灭火器".encode()))
        assert "denied" in one.trouble
        warnings = one.search("灭火器").warnings
        assert "denied" in warnings[0]
        assert "hunter2" not in "".join((one.trouble, *warnings))


@pytest.mark.parametrize("which", ["embedder", "reranker"])
@pytest.mark.parametrize("address", ["http://u:hunter2@127.0.0.1:9/v1#m", "https://hunter2@h/v1#m"])
def test_the_address_of_an_endpoint_has_no_password(which: str, address: str, tmp_path: Path) -> None:
    """The base would store it, and show it to everybody who may read the base."""
    options: Any = {which: address}
    with open_base("b", create=True, home=tmp_path, **options) as one:
        with pytest.raises(InputError, match="CHATGLM_API_KEY") as refused:
            one.add(Upload("a.txt", "灭火器".encode()))
        assert one.files() == []
        (warning,) = one.search("灭火器").warnings
        with pytest.raises(InputError, match="CHATGLM_API_KEY"):
            one.configure(**options)
        assert one.setting(which) == ""
    assert "hunter2" not in str(refused.value) + warning
