"""External stores that a base remembers: found by every program, without a password in the base."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_bases import HANDBOOK, unreachable

from chatglm.cli import main
from chatglm.errors import InputError
from chatglm.knowledge import Shelf, Upload, base, import_base, open_base, places
from chatglm.knowledge.places import Place, place_of

QUESTION = "灭火器放在哪里？"


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ("milvus:http://h:19530#c", Place("milvus", "http://h:19530", "", "", "c")),
        ("milvus:https://u:$PW@h#c", Place("milvus", "https://h", "u", "PW", "c")),
        ("milvus:/x@y/m.db#c_1", Place("milvus", "/x@y/m.db", "", "", "c_1")),
        ("milvus:/x/m.db#c_1", Place("milvus", "/x/m.db", "", "", "c_1")),
        ("qdrant:http://:$KEY@[::1]:6333/q#c", Place("qdrant", "http://[::1]:6333/q", "", "KEY", "c")),
        ("qdrant:/a#b#c", Place("qdrant", "/a#b", "", "", "c")),
        ("postgresql://u:$PW@h:5432/db#c", Place("postgresql", "postgresql://h:5432/db", "u", "PW", "c")),
        ("postgresql://u@/db?host=/run#c", Place("postgresql", "postgresql:///db?host=/run", "u", "", "c")),
    ],
)
def test_places(given: str, place: Place) -> None:
    assert place_of(given) == place
    assert str(place) == given


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("", "expected milvus:PLACE"),
        ("nowhere", "expected milvus:PLACE"),
        ("chroma:/x#c", "expected milvus:PLACE"),
        ("milvus:http://h:19530", "expected milvus:PLACE"),
        ("milvus:#c", "expected milvus:PLACE"),
        ("milvus:/x#c d", "name of a collection"),
        ("milvus:/x#1", "name of a collection"),
        ("milvus:ftp://h#c", "not valid"),
        ("milvus:http://h:99999999#c", "not valid"),
        ("milvus:http://h?token=x#c", "not valid"),
        ("postgresql:db#c", "not valid"),
        ("postgresql:///db#c", "not valid"),
        ("postgresql://u:hunter2@h/db#c", "never remembers"),
        ("postgresql://u:$A$B@h/db#c", "never remembers"),
        ("postgresql://u@h/db?password=hunter2#c", "never remembers"),
        ("qdrant:http://:hunter2@h:6333#c", "never remembers"),
        ("qdrant:http://hunter2@h:6333#c", "never remembers"),
        ("milvus:/x\n#c", "expected milvus:PLACE"),
        ("milvus:root:hunter2@h:19530#c", "not valid"),
        ("qdrant:hunter2@h:6333#c", "not valid"),
        ("qdrant://:hunter2@h:6333#c", "not valid"),
        ("postgresql://u:pass#hunter2@h/db", "name of a collection"),
        ("postgresql://u@h/db?PASSWORD=hunter2#c", "never remembers"),
        ("postgresql://u@h/db?oauth_client_secret=hunter2#c", "never remembers"),
    ],
)
def test_what_names_no_store_or_has_a_password(given: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=why) as refused:
        open_base("b", create=True, home=tmp_path, vectors_at=given)
    assert "hunter2" not in str(refused.value)


class Pairs:
    """A text as the pairs of its characters: near is what is written alike."""

    name, size = "pairs", 4096

    def passages(self, texts: list[str]) -> Any:
        rows = np.full((len(texts), self.size), 1e-6, np.float32)
        for row, text in zip(rows, texts, strict=True):
            for one, two in pairwise(text):
                row[(ord(one) * 31 + ord(two)) % self.size] += 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    questions = passages


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    known = base.embedder_of
    monkeypatch.setattr(base, "embedder_of", lambda given: Pairs() if given == "pairs" else known(given))
    monkeypatch.setenv("CHATGLM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CHATGLM_TEST_PASSWORD", "hunter2")
    folder = tmp_path / "documents"
    folder.mkdir()
    for name, text in HANDBOOK.items():
        (folder / name).write_text(text, "utf-8")
    return tmp_path


@pytest.fixture(params=["qdrant", "milvus", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "qdrant":
        pytest.importorskip("langchain_qdrant")
        yield "qdrant:q#chatglm"  # in the folder of whoever adds files
    elif request.param == "milvus":
        pytest.importorskip("milvus_lite")
        pytest.importorskip("langchain_milvus")
        yield f"milvus:{tmp_path / 'm.db'}#chatglm"
    else:
        pgserver = pytest.importorskip("pgserver")
        pytest.importorskip("langchain_postgres")
        folder = tempfile.mkdtemp()  # pytest's own may be read by this user only, and the server runs as another
        server = pgserver.get_server(folder, cleanup_mode="stop")
        try:
            server.psql("CREATE EXTENSION IF NOT EXISTS vector")
            # The server lets everybody in, but the password must be found.
            yield server.get_uri().replace("postgres:@", "postgres:$CHATGLM_TEST_PASSWORD@") + "#chatglm"
        finally:
            server.cleanup()
            shutil.rmtree(folder)


def found(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[list[dict[str, Any]], str]:
    """Hits by meaning, and what is said beside them."""
    capsys.readouterr()
    assert main(["knowledge", "search", "手册", QUESTION, "--json", *options]) == 0
    shown = capsys.readouterr()
    return json.loads(shown.out)["hits"], shown.err


def test_every_program_finds_the_vectors(
    place: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = str(home / "documents")
    monkeypatch.chdir(tmp_path)
    assert main(["knowledge", "add", "手册", documents, "--embedder", "pairs", "--vectors-at", place]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.chdir("/")
    hits, said = found(capsys, "--mode", "vector")
    assert (hits[0]["file"], said) == ("安全.txt", "")
    with Shelf() as shelf:
        hit = shelf.bases(["手册"], None).search(QUESTION, mode="vector")[0]
        assert (hit.file, round(hit.parts["vector"], 2)) == ("安全.txt", round(hits[0]["parts"]["vector"], 2))
        shelf.base("手册", None).add(Upload("安全.txt", "灭火器放在走廊。".encode()))
    assert main(["knowledge", "check", "手册"]) == 0, capsys.readouterr().out
    assert found(capsys, "--mode", "vector")[0][0]["text"] == "灭火器放在走廊。"
    with open_base("手册") as one:
        with one.store.reading() as connection:
            (stored,) = connection.execute("SELECT sum(length(v)) FROM vector").fetchone()
        assert stored == 0  # they are not in the file
        one.export(home / "copy")
    assert b"hunter2" not in (home / "copy").read_bytes()
    import_base(home / "copy", "副本")  # whoever made a file does not choose where texts are sent
    with open_base("副本") as copy:
        assert copy.setting("vectors_at") == ""
    assert main(["knowledge", "sync", "手册", documents, "--vectors-at", "none"]) == 0
    with open_base("手册") as one, one.store.reading() as connection:
        (stored,) = connection.execute("SELECT min(length(v)) FROM vector").fetchone()
        assert stored == Pairs.size


def held(place: str) -> set[tuple[str, str]]:
    """The documents of a collection: the base and the first line of each."""
    where = place_of(place)
    vectors, _, close = places._KINDS[where.kind].opened(where, where.secret(), places._embeddings(Pairs()))
    try:
        documents = vectors.similarity_search("灭火器", k=50)
        return {(each.metadata["base"], each.page_content.partition("\n")[0]) for each in documents}
    finally:
        close()


def test_a_base_that_leaves_a_store_takes_its_texts_out(
    place: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    documents = str(home / "documents")
    for name in ("手册", "别的"):
        assert main(["knowledge", "add", name, documents, "--embedder", "pairs", "--vectors-at", place]) == 0
    with open_base("手册") as one, open_base("别的") as other:
        ids = one.store.meta("id"), other.store.meta("id")
    assert {base for base, _ in held(place)} == set(ids)
    assert main(["knowledge", "add", "手册", documents, "--vectors-at", "none", "--embedder", "none"]) == 0
    assert {base for base, _ in held(place)} == {ids[1]}  # what other bases have there stays
    assert found(capsys)[1] == ""
    assert main(["knowledge", "add", "别的", documents, "--vectors-at", f"{place}2"]) == 0
    assert capsys.readouterr().err == ""
    assert held(place) == set()
    assert {base for base, _ in held(f"{place}2")} == {ids[1]}
    assert main(["knowledge", "check", "别的"]) == 0
    assert main(["knowledge", "remove", "别的", "--yes"]) == 0
    assert capsys.readouterr().err == ""
    assert held(f"{place}2") == set()


def down(*_: object) -> None:
    raise ConnectionError("no server")


def test_a_store_that_cannot_be_reached_when_a_base_leaves_it_is_said(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("langchain_qdrant")
    place, documents = f"qdrant:{tmp_path / 'q'}#chatglm", str(home / "documents")
    leave = ["knowledge", "add", "手册", documents, "--vectors-at", "none"]
    assert main(["knowledge", "add", "手册", documents, "--embedder", "pairs", "--vectors-at", place]) == 0
    with monkeypatch.context() as patched:
        patched.setattr(places, "_qdrant_client", down)
        capsys.readouterr()
        assert main(leave) == 0
        said = capsys.readouterr().err
        assert f"still be in qdrant at {tmp_path / 'q'}, collection chatglm" in said
        assert "check 手册 --repair" in said
        hits, said = found(capsys, "--mode", "vector")
        assert (hits[0]["file"], said) == ("安全.txt", "")
        assert main(leave) == 0
        assert capsys.readouterr().err == ""  # it is tried once
        main(["knowledge", "check", "手册", "--repair"])
        assert "collection chatglm" in capsys.readouterr().out
        with open_base("手册") as base:
            base.export(home / "copy")
    import_base(home / "copy", "副本")  # whoever made a file does not choose which stores are asked
    with open_base("副本") as copy:
        assert copy.check() == []
    assert held(place)
    main(["knowledge", "check", "手册", "--repair"])
    assert "were deleted" in capsys.readouterr().out
    assert held(place) == set()
    assert main(["knowledge", "check", "手册"]) == 0


def test_a_base_that_comes_back_to_a_store_keeps_its_texts_there(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("langchain_qdrant")
    place, documents = f"qdrant:{tmp_path / 'q'}#chatglm", str(home / "documents")
    add = ["knowledge", "add", "手册", documents, "--embedder", "pairs", "--vectors-at"]
    assert main([*add, place]) == 0
    with monkeypatch.context() as patched:
        patched.setattr(places, "_qdrant_client", down)
        assert main([*add, "none"]) == 0
    assert main([*add, place]) == 0
    assert main(["knowledge", "check", "手册", "--repair"]) == 0, capsys.readouterr().out
    assert len(held(place)) > 0
    with pytest.raises(InputError, match="is not a setting"), open_base("手册") as base:
        base.configure(**{f"left {place}": "new"})


def test_a_program_that_is_running_follows_to_another_place(home: Path, tmp_path: Path) -> None:
    """Else the two would delete each other's vectors in turn."""
    pytest.importorskip("langchain_qdrant")
    place, documents = f"qdrant:{tmp_path / 'q'}#chatglm", str(home / "documents")
    assert main(["knowledge", "add", "手册", documents, "--embedder", "pairs"]) == 0
    with Shelf() as shelf:
        running = shelf.base("手册", None)
        assert running.search(QUESTION, mode="vector")[0].file == "安全.txt"
        assert main(["knowledge", "add", "手册", documents, "--vectors-at", place]) == 0
        hits = running.search(QUESTION, mode="vector")
        assert (hits[0].file, hits.warnings) == ("安全.txt", ())
        running.add(Upload("新.txt", "新的文件。".encode()))
        with running.store.reading() as connection:
            assert connection.execute("SELECT sum(length(v)) FROM vector").fetchone()[0] == 0
        running.configure(vectors_at=None)
        running.wait()
        assert not running.trouble
        assert running.search(QUESTION, mode="vector")[0].file == "安全.txt"
    assert held(place) == set()


def test_a_server_of_postgresql_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.setattr(places, "_CONNECT_SECONDS", 2)
    with unreachable() as port:
        ((_, why),) = places.emptied([f"postgresql://u@127.0.0.1:{port}/d#c"], "b").items()
    assert "timeout" in why


def test_a_server_of_milvus_that_fails_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    grpc, pb2 = pytest.importorskip("grpc"), pytest.importorskip("pymilvus.grpc_gen.milvus_pb2")
    monkeypatch.setattr(places, "_SECONDS", 1)
    calls = 0

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc, name-defined]
        def service(self, details: Any) -> Any:
            name = details.method.rpartition("/")[2]

            def answer(request: bytes, context: Any) -> bytes:
                nonlocal calls
                if name in ("Connect", "GetVersion"):
                    return bytes(getattr(pb2, f"{name}Response")().SerializeToString())
                calls += 1
                context.abort(grpc.StatusCode.UNAVAILABLE if calls < 10 else grpc.StatusCode.UNAUTHENTICATED, "no")
                return b""

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(ThreadPoolExecutor(2), [Handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    place = f"milvus:http://127.0.0.1:{port}#c"
    assert "timeout: 1s" in places.emptied([place], "b")[place]
    server.stop(None).wait()


def test_a_store_that_cannot_be_opened_is_said(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CHATGLM_TEST_PASSWORD")
    place = "qdrant:http://:$CHATGLM_TEST_PASSWORD@127.0.0.1:9#c"
    documents = str(home / "documents")
    assert main(["knowledge", "add", "手册", documents, "--embedder", "pairs", "--vectors-at", place]) == 0
    assert "CHATGLM_TEST_PASSWORD" in capsys.readouterr().err
    hits, said = found(capsys)
    assert hits[0]["file"] == "安全.txt"
    assert "CHATGLM_TEST_PASSWORD" in said
    assert main(["knowledge", "check", "手册"]) == 1
    assert main(["knowledge", "add", "手册", documents, "--embedder", "none", "--vectors-at", place]) == 0
    assert "needs an embedder" in capsys.readouterr().err


def test_a_qdrant_server_that_is_down_prints_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("langchain_qdrant")
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    failed: list[object] = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    before = set(threading.enumerate())
    places._qdrant_client(place_of(f"qdrant:http://127.0.0.1:{port}#c"), "").close()
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
    assert not failed
