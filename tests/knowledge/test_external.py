"""Bases whose vectors lie in one of LangChain's stores: in memory, Milvus, PostgreSQL with pgvector, Qdrant."""

from __future__ import annotations

import contextlib
import hashlib
import runpy
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_bases import HANDBOOK
from test_tools_docs import examples

from chatglm.errors import NotFoundError, ServiceError
from chatglm.knowledge import Base, Hits, Shelf, Upload, delete_base, import_base, open_base, places, rename_base
from chatglm.knowledge.external import External
from chatglm.knowledge.indexing import Item
from waiting import until

pytest.importorskip("langchain_core")

from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

KINDS = ["memory", "milvus", "postgres", "qdrant"]
QUESTIONS = ["年假要提前几天申请？", "灭火器放在哪里？", "早餐几点开始？", "车票怎么报销？", "周五有什么吃的"]


class Pairs(Embeddings):
    """A text as the pairs of characters in it: near is what is written alike. 64 numbers of length 1."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        rows = np.zeros((len(texts), 64), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for at in range(len(text)):
                for size in (1, 2):
                    row[hashlib.blake2b(text[at : at + size].encode(), digest_size=8).digest()[0] % 64] += 1
        found: list[list[float]] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).tolist()
        return found

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


@dataclass
class Kind:
    """
    Attributes:
        open: the store of a collection, as a new program opens it.
        only: holds a search to one base, in the store's own form.
    """

    open: Callable[[str], VectorStore]
    only: Callable[[str], Mapping[str, Any]]

    def neighbours(self, collection: str, shared: bool = False) -> Callable[[Any], External]:
        only: Any = {"only": self.only} if shared else {}
        return lambda base: External(base, self.open(collection), **only)


@contextlib.contextmanager
def memory() -> Iterator[Kind]:
    kept: dict[str, InMemoryVectorStore] = {}
    yield Kind(
        lambda name: kept.setdefault(name, InMemoryVectorStore(Pairs())),
        lambda base: {"filter": lambda document: document.metadata["base"] == base},
    )


@contextlib.contextmanager
def milvus() -> Iterator[Kind]:
    pytest.importorskip("milvus_lite")
    langchain_milvus = pytest.importorskip("langchain_milvus")
    with tempfile.TemporaryDirectory() as folder:

        def opened(name: str) -> VectorStore:
            found: VectorStore = langchain_milvus.Milvus(
                Pairs(),
                connection_args={"uri": f"{folder}/milvus.db"},
                collection_name=f"c{name}",
                index_params={"index_type": "FLAT", "metric_type": "L2"},
                consistency_level="Strong",
            )
            return found

        yield Kind(opened, lambda base: {"expr": f'base == "{base}"'})


@contextlib.contextmanager
def postgres(folder: str) -> Iterator[str]:
    """A server's address; it is stopped at the end."""
    pgserver = pytest.importorskip("pgserver")
    server = pgserver.get_server(folder, cleanup_mode="stop")
    server.psql("CREATE EXTENSION IF NOT EXISTS vector")
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    server.cleanup()


@contextlib.contextmanager
def pgvector() -> Iterator[Kind]:
    langchain_postgres = pytest.importorskip("langchain_postgres")
    from sqlalchemy import create_engine

    folder = tempfile.mkdtemp()  # pytest's own may be read by this user only, and the server runs as another
    with postgres(folder) as url:
        engine = create_engine(url)

        def opened(name: str) -> VectorStore:
            found: VectorStore = langchain_postgres.PGVector(Pairs(), connection=engine, collection_name=name)
            return found

        yield Kind(opened, lambda base: {"filter": {"base": base}})
        engine.dispose()
    shutil.rmtree(folder)


@contextlib.contextmanager
def qdrant() -> Iterator[Kind]:
    langchain_qdrant = pytest.importorskip("langchain_qdrant")
    from qdrant_client import QdrantClient, models

    with tempfile.TemporaryDirectory() as folder, contextlib.closing(QdrantClient(path=folder)) as client:

        def opened(name: str) -> VectorStore:
            if not client.collection_exists(name):
                size = models.VectorParams(size=64, distance=models.Distance.COSINE)
                client.create_collection(name, vectors_config=size)
            found: VectorStore = langchain_qdrant.QdrantVectorStore(client, name, Pairs())
            return found

        def only(base: str) -> Mapping[str, Any]:
            wanted = models.FieldCondition(key="metadata.base", match=models.MatchValue(value=base))
            return {"filter": models.Filter(must=[wanted])}

        yield Kind(opened, only)


MAKES: dict[str, Callable[[], contextlib.AbstractContextManager[Kind]]] = {
    "memory": memory,
    "milvus": milvus,
    "postgres": pgvector,
    "qdrant": qdrant,
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Iterator[Kind]:
    with MAKES[request.param]() as found:
        yield found


@pytest.fixture
def name() -> str:
    return uuid.uuid4().hex[:12]


def filled(base: Base, files: Mapping[str, str] = HANDBOOK) -> Base:
    base.add(*(Upload(file, text.encode()) for file, text in files.items()))
    assert not base.trouble
    return base


def alike(found: Hits, expected: Hits) -> None:
    assert not found.warnings
    assert [(hit.file, hit.start) for hit in found] == [(hit.file, hit.start) for hit in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.score == pytest.approx(other.score, abs=0.02)
        assert one.parts["vector"] == pytest.approx(other.parts["vector"], abs=0.02)


def test_a_store_finds_what_the_bases_own_vectors_find(kind: Kind, name: str, tmp_path: Path) -> None:
    with (
        filled(open_base("own", create=True, home=tmp_path, embedder=Pairs())) as own,
        filled(open_base("other", create=True, home=tmp_path, neighbours=kind.neighbours(name))) as other,
    ):
        for question in QUESTIONS:
            for options in ({}, {"mode": "vector"}, {"mode": "vector", "files": ["食堂.txt", "安全.txt"]}):
                alike(other.search(question, **options), own.search(question, **options))  # type: ignore[arg-type]


def test_what_is_deleted_edited_or_changed_is_so_in_the_store(kind: Kind, name: str, tmp_path: Path) -> None:
    vectors = kind.open(name)
    with filled(open_base("b", create=True, home=tmp_path, neighbours=lambda base: External(base, vectors))) as base:

        def held() -> set[str]:
            return {document.page_content for document, _ in vectors.similarity_search_with_score("年假", k=50)}

        before = held()
        assert len(before) == 4
        filled(base)  # nothing has changed
        assert held() == before
        base.remove("员工手册.md")
        assert len(held()) == 2
        base.add(Upload("食堂.txt", "食堂早餐八点开始。".encode()))
        assert any("八点" in text for text in held())
        assert not any("七点" in text for text in held())
        (piece,) = base.pieces("安全.txt")
        base.edit(piece.id, "灭火器搬到了走廊。")
        until(lambda: any("走廊" in text for text in held()))  # in the background
        base.wait()
        assert any("走廊" in text for text in held())
        assert not any("右侧" in text for text in held())
        assert base.search("走廊", mode="vector")[0].text == "灭火器搬到了走廊。"
        base.edit(piece.id, None)
        assert all(hit.file != "安全.txt" for hit in base.search("灭火器搬到了走廊", mode="vector"))
        assert base.check() == []


def test_the_next_program_goes_on_with_the_store(kind: Kind, name: str, tmp_path: Path) -> None:
    filled(open_base("b", create=True, home=tmp_path, neighbours=kind.neighbours(name))).close()
    with open_base("b", home=tmp_path, neighbours=kind.neighbours(name)) as base:
        assert base.search(QUESTIONS[0], mode="vector")[0].title == "休假"
        neighbours = base.neighbours()
        assert neighbours is not None
        assert neighbours.left() == 0
    with open_base("b", home=tmp_path) as plain:  # without the store
        hits = plain.search(QUESTIONS[0])
        assert hits[0].title == "休假"
        assert "searched by words only" in hits.warnings[0]
        plain.add(Upload("neu.txt", "新的文件。".encode()))
        assert "have no vectors" in plain.trouble
    with open_base("b", home=tmp_path, neighbours=kind.neighbours(name)) as base:
        base.wait()
        assert base.search("新的文件", mode="vector")[0].file == "neu.txt"


@pytest.mark.parametrize("shared", [False, True])
def test_two_bases_in_one_store_do_not_meet(kind: Kind, name: str, tmp_path: Path, shared: bool) -> None:
    two = [
        filled(open_base(each, create=True, home=tmp_path, neighbours=kind.neighbours(name, shared))) for each in "ab"
    ]
    with two[0], two[1]:
        first, second = (base.search(QUESTIONS[0], mode="vector", k=50) for base in two)
        assert len(first) == len(second) == 4
        assert {hit.base for hit in first} == {"a"}
        two[0].remove(*HANDBOOK)
        assert two[0].search(QUESTIONS[0]) == []
        alike(two[1].search(QUESTIONS[0], mode="vector", k=50), second)


def test_a_store_that_has_lost_texts_is_filled_again(kind: Kind, name: str, tmp_path: Path) -> None:
    with filled(open_base("b", create=True, home=tmp_path, neighbours=kind.neighbours(name))) as base:
        before = base.search(QUESTIONS[1], mode="vector")
        neighbours = base.neighbours()
        assert isinstance(neighbours, External)
        with base.store.reading() as connection:
            ids = [neighbours._id(row["digest"]) for row in connection.execute("SELECT digest FROM vector")]
        lost = kind.open(name)
        lost.delete(ids=ids[:1])
        (said,) = base.check()
        assert said.startswith("texts that are no longer in")
        assert said.endswith(": 1")
        lost.delete(ids=ids)
        hits = base.search(QUESTIONS[1])
        assert hits[0].file == "安全.txt"
        assert "has none of the base's texts" in hits.warnings[0]
        assert base.check(repair=True)[0].endswith(": 4; they were added again")
        assert base.check() == []
        alike(base.search(QUESTIONS[1], mode="vector"), before)


def test_texts_that_are_given_twice_are_found_once(kind: Kind, name: str, tmp_path: Path) -> None:
    """As when a process is killed between the store and the base's own note."""
    with filled(open_base("b", create=True, home=tmp_path, neighbours=kind.neighbours(name))) as base:
        with base.store.writing() as connection:
            connection.execute("DELETE FROM vector")
        base.wait()
        hits = base.search(QUESTIONS[0], mode="vector", k=50)
        assert len(hits) == 4
        base.remove("员工手册.md")
        left = kind.open(name).similarity_search_with_score("年假", k=50)
        assert {document.page_content.partition("\n")[0] for document, _ in left} == {"安全", "食堂"}
        assert len(base.search(QUESTIONS[0], mode="vector", k=50)) == 2


@pytest.mark.parametrize("kind", ["postgres"], indirect=True)
def test_a_statement_that_waits_for_another_client_of_the_server(
    kind: Kind, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_EMPTY_SECONDS", 1)
    store: Any = kind.open(name)
    engine = store._engine
    place = f"{engine.url.set(drivername='postgresql').render_as_string(hide_password=False)}#c"
    with contextlib.closing(engine.raw_connection()) as other:
        other.cursor().execute("LOCK TABLE langchain_pg_embedding")
        release = threading.Timer(20, other.rollback)
        release.start()
        why = places.emptied([place], "b")[place]
        release.cancel()
    assert "statement timeout" in why


def test_a_server_that_is_down_and_comes_back(tmp_path: Path, name: str) -> None:
    langchain_postgres = pytest.importorskip("langchain_postgres")
    from sqlalchemy import create_engine

    folder = tempfile.mkdtemp()
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        with postgres(folder) as url:
            engine = create_engine(url)
            vectors = langchain_postgres.PGVector(Pairs(), connection=engine, collection_name=name)
            base = stack.enter_context(
                open_base("b", create=True, home=tmp_path, neighbours=lambda store: External(store, vectors))
            )
            filled(base)
            before = base.search(QUESTIONS[2])
        hits = base.search(QUESTIONS[2])
        assert hits[0].file == before[0].file
        assert "failed" in hits.warnings[0]
        base.add(Upload("neu.txt", "新的文件。".encode()))
        assert "have no vectors" in base.trouble
        base.remove("食堂.txt")
        assert base.search("饺子") == []
        assert "not checked" in base.check()[0]
        with postgres(folder):
            base.wait()
            assert not base.trouble
            held = [document.page_content for document in vectors.similarity_search("食堂", k=50)]
            assert any("新的文件" in text for text in held)
            assert not any("饺子" in text for text in held)  # what could not be deleted then is deleted now
            assert base.search("新的文件")[0].file == "neu.txt"
            assert base.check() == []
            engine.dispose()


def test_a_copy_of_a_base_is_not_the_same_base(tmp_path: Path) -> None:
    with memory() as kind:
        with filled(open_base("b", create=True, home=tmp_path, neighbours=kind.neighbours("x"))) as base:
            base.export(tmp_path / "copy.sqlite")
        import_base(tmp_path / "copy.sqlite", "c", home=tmp_path)
        with open_base("c", home=tmp_path, neighbours=kind.neighbours("x")) as copy:
            assert "searched by words only" in copy.search(QUESTIONS[0]).warnings[0]
            copy.wait()
            assert len(copy.search(QUESTIONS[0], mode="vector", k=50)) == 4
            copy.remove(*HANDBOOK)
        with open_base("b", home=tmp_path, neighbours=kind.neighbours("x")) as base:
            assert len(base.search(QUESTIONS[0], mode="vector", k=50)) == 4


def test_a_shelf_opens_its_bases_over_one_store(tmp_path: Path) -> None:
    with memory() as kind, Shelf(tmp_path, neighbours=kind.neighbours("x", shared=True)) as shelf:
        for each in "ab":
            filled(shelf.make(each, None))
        for each in "ab":
            hits = shelf.bases([each], None).search(QUESTIONS[1], mode="vector", k=50)
            assert len(hits) == 4
            assert {hit.base for hit in hits} == {each}
        both = shelf.bases(["a", "b"], None).search(QUESTIONS[1])
        assert not both.warnings
        assert both[0].file == "安全.txt"


def test_a_base_that_is_deleted_with_its_store_leaves_no_texts_in_it(kind: Kind, name: str, tmp_path: Path) -> None:
    neighbours = kind.neighbours(name, shared=True)
    with Shelf(tmp_path, neighbours=neighbours) as shelf:
        for each in ("a", "b", "other"):
            filled(shelf.make(each, None))
        shelf.delete("a", None)
    assert delete_base("b", home=tmp_path, neighbours=neighbours) == []
    left = kind.open(name).similarity_search("年假", k=50)
    with open_base("other", home=tmp_path) as base:
        assert {document.metadata["base"] for document in left} == {base.store.meta("id")}
    assert len(left) == 4


def test_texts_that_stay_in_a_store_are_told_to_who_deletes_the_base(tmp_path: Path) -> None:
    vectors = InMemoryVectorStore(Pairs())

    def fails(base: Any) -> External:
        raise ConnectionError("no server")

    for name in "abc":
        filled(open_base(name, create=True, home=tmp_path, neighbours=lambda base: External(base, vectors))).close()
    (said,) = delete_base("a", home=tmp_path)
    assert "its texts may still be in langchain InMemoryVectorStore" in said
    (said,) = delete_base("b", home=tmp_path, neighbours=fails)
    assert "no server" in said
    with Shelf(tmp_path) as shelf:
        shelf.delete("c", None)
        assert shelf.names(None) == []
    assert len(vectors.store) == 12


class Scored(InMemoryVectorStore):
    """Gives its scores in another sense.

    Attributes:
        sense: from a cosine to a score.
    """

    sense: Callable[[float], float]

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Any, float]]:
        return [
            (found, self.sense(cosine)) for found, cosine in super().similarity_search_with_score(query, k, **kwargs)
        ]


@pytest.mark.parametrize(
    "sense",
    [
        lambda cosine: cosine,
        lambda cosine: 1 - cosine,
        lambda cosine: 2 - 2 * cosine,
        lambda cosine: max(0.0, 2 - 2 * cosine) ** 0.5,
        lambda cosine: (cosine + 1) / 2,
    ],
    ids=["cosine", "distance of cosines", "distance squared", "distance", "half"],
)
def test_scores_of_any_kind_become_cosines(tmp_path: Path, sense: Callable[[float], float]) -> None:
    vectors = Scored(Pairs())
    vectors.sense = sense
    with (
        filled(open_base("own", create=True, home=tmp_path, embedder=Pairs())) as own,
        filled(
            open_base("b", create=True, home=tmp_path, neighbours=lambda base: External(base, vectors, name="s"))
        ) as base,
    ):
        for question in QUESTIONS:
            alike(base.search(question, mode="vector"), own.search(question, mode="vector"))
            (one,) = base.search(question, mode="vector", k=1)
            assert one.parts["vector"] == pytest.approx(
                own.search(question, mode="vector", k=1)[0].parts["vector"], abs=0.02
            )


@pytest.mark.parametrize("sign", [1, -1])
def test_scores_of_an_unknown_kind_give_an_order(tmp_path: Path, sign: int) -> None:
    vectors = Scored(Pairs())
    vectors.sense = lambda cosine: sign * 40 * cosine
    with (
        filled(open_base("own", create=True, home=tmp_path, embedder=Pairs())) as own,
        filled(open_base("b", create=True, home=tmp_path, neighbours=lambda base: External(base, vectors))) as base,
    ):
        for question in QUESTIONS:
            found, expected = (each.search(question) for each in (base, own))
            assert [hit.file for hit in found] == [hit.file for hit in expected]


def test_what_is_not_the_bases_own_is_left_out(tmp_path: Path) -> None:
    vectors = InMemoryVectorStore(Pairs())
    with filled(open_base("b", create=True, home=tmp_path, neighbours=lambda base: External(base, vectors))) as base:
        vectors.add_texts(["年假年假"] * 40, [{"digest": "00", "base": n} for n in range(39)] + [{}])
        found = base.search("年假", mode="vector")
        assert len(found) == 4
        assert {hit.file for hit in found} == set(HANDBOOK)


def test_a_store_that_fails_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = InMemoryVectorStore(Pairs())
    with filled(open_base("b", create=True, home=tmp_path, neighbours=lambda base: External(base, vectors))) as base:

        def broken(*_: object, **__: object) -> None:
            raise ConnectionError("no server")

        monkeypatch.setattr(InMemoryVectorStore, "similarity_search_with_score", broken)
        hits = base.search("饺子")
        assert hits[0].file == "食堂.txt"
        assert "no server" in hits.warnings[0]
        monkeypatch.setattr(InMemoryVectorStore, "delete", broken)
        base.remove("食堂.txt")  # the base has it no more, whatever the store has
        assert base.search("饺子") == []
        assert "no server" in base.trouble
        neighbours = base.neighbours()
        assert neighbours is not None
        with pytest.raises(ServiceError, match="no server"):
            neighbours.drop([bytes.fromhex(each["metadata"]["digest"]) for each in vectors.store.values()])


def held(vectors: InMemoryVectorStore) -> set[str]:
    """The files whose texts a store has."""
    return {each["text"].partition("\n")[0] for each in vectors.store.values()}


def test_what_a_program_without_the_store_removes_is_deleted_in_it_later(tmp_path: Path) -> None:
    vectors = InMemoryVectorStore(Pairs())
    filled(open_base("b", create=True, home=tmp_path, neighbours=lambda base: External(base, vectors))).close()
    with open_base("b", home=tmp_path) as plain:
        plain.remove("食堂.txt")
    with open_base("b", home=tmp_path, neighbours=lambda base: External(base, vectors)) as base:
        base.wait()
        assert not base.trouble
        assert "食堂" not in held(vectors)
        assert base.check() == []


def test_a_store_that_refuses_to_delete_what_it_does_not_have(tmp_path: Path) -> None:
    class Strict(InMemoryVectorStore):
        def delete(self, ids: Any = None, **named: Any) -> None:
            if missing := set(ids) - self.store.keys():
                raise ValueError(f"no such ids: {missing}")
            super().delete(ids)

    vectors = Strict(Pairs())
    with filled(open_base("b", create=True, home=tmp_path, neighbours=lambda base: External(base, vectors))) as base:
        lost = next(key for key, each in vectors.store.items() if "休假" in each["text"])
        vectors.delete([lost])
        base.remove("员工手册.md")
        assert not base.trouble
        assert held(vectors) == {"安全", "食堂"}
        vectors.delete(list(vectors.store))
        base.remove("食堂.txt")
        assert not base.trouble


def test_a_store_that_says_by_its_result_that_it_did_not_delete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As LangChain's Milvus, which only logs why."""
    vectors = InMemoryVectorStore(Pairs())
    with filled(open_base("b", create=True, home=tmp_path, neighbours=lambda base: External(base, vectors))) as base:
        with monkeypatch.context() as patched:
            patched.setattr(InMemoryVectorStore, "delete", lambda *_, **__: False)
            base.remove("食堂.txt")
            assert "failed to delete" in base.trouble
        base.wait()
        assert not base.trouble
        assert "食堂" not in held(vectors)


@pytest.mark.parametrize("error", [SystemExit, TimeoutError])
def test_texts_that_the_store_has_taken_without_saying_so_are_deleted_with_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    vectors = InMemoryVectorStore(Pairs())
    add = InMemoryVectorStore.add_texts

    def broken(self: InMemoryVectorStore, *given: Any, **named: Any) -> None:
        add(self, *given, **named)
        raise error

    monkeypatch.setattr(InMemoryVectorStore, "add_texts", broken)
    with open_base("b", create=True, home=tmp_path, neighbours=lambda base: External(base, vectors)) as base:
        with contextlib.suppress(SystemExit):
            base.add(Upload("食堂.txt", HANDBOOK["食堂.txt"].encode()))
        assert "食堂" in held(vectors)
        assert base.search("饺子")[0].file == "食堂.txt"
        assert base.check() == []
        monkeypatch.undo()
        base.remove("食堂.txt")
        assert not base.trouble
        assert held(vectors) == set()
        filled(base)
        assert len(base.search("饺子", mode="vector")) == 4


@pytest.mark.parametrize("after", [False, True])
def test_a_process_that_is_killed_while_the_store_deletes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    vectors = InMemoryVectorStore(Pairs())
    delete = InMemoryVectorStore.delete

    def killed(self: InMemoryVectorStore, ids: list[str]) -> None:
        if after:
            delete(self, ids)
        raise SystemExit

    with filled(open_base("b", create=True, home=tmp_path, neighbours=lambda base: External(base, vectors))) as base:
        monkeypatch.setattr(InMemoryVectorStore, "delete", killed)
        with pytest.raises(SystemExit):
            base.remove("食堂.txt")
        monkeypatch.undo()
    with open_base("b", home=tmp_path, neighbours=lambda base: External(base, vectors)) as base:
        base.wait()
        assert "食堂" not in held(vectors)
        assert base.check() == []


def test_another_model_in_the_same_store_leaves_no_removed_texts(tmp_path: Path) -> None:
    vectors = InMemoryVectorStore(Pairs())
    filled(open_base("b", create=True, home=tmp_path, neighbours=lambda base: External(base, vectors))).close()
    with open_base("b", home=tmp_path) as plain:
        plain.remove("食堂.txt")
    with open_base("b", home=tmp_path, neighbours=lambda base: External(base, vectors, name="new")) as base:
        base.wait()
        assert "食堂" not in held(vectors)
        assert base.check() == []


def test_a_file_that_comes_while_the_last_vectors_are_made_gets_vectors(tmp_path: Path) -> None:
    """Another process queues it; this one has the lock, and has just looked at the queue for the last time."""

    class Late(External):
        come = False

        def fill(self, progress: Any, go_on: Any) -> bool:
            more = super().fill(progress, go_on)
            if not self.come:
                self.come = True
                base._indexer.enqueue([Item("neu.txt", body="新的文件。".encode())])
            return more

    with open_base("b", create=True, home=tmp_path, neighbours=lambda base: Late(base, vectors)) as base:
        vectors = InMemoryVectorStore(Pairs())
        filled(base)
        assert base.files()[0].state == "ready"
        assert "neu" in held(vectors)


@pytest.mark.parametrize("renamed", [False, True])
def test_a_base_that_another_process_deletes_while_texts_are_added(tmp_path: Path, renamed: bool) -> None:
    vectors = InMemoryVectorStore(Pairs())

    class Slow(InMemoryVectorStore):
        def add_texts(self, *given: Any, **named: Any) -> list[str]:
            if renamed:
                rename_base("b", "c", home=tmp_path)
            else:
                delete_base("b", home=tmp_path)
            return vectors.add_texts(*given, **named)

        def delete(self, ids: Any = None, **named: Any) -> None:
            vectors.delete(ids)

    with open_base("b", create=True, home=tmp_path, neighbours=lambda base: External(base, Slow(Pairs()))) as base:
        with pytest.raises(NotFoundError):
            filled(base)
        assert bool(held(vectors)) == renamed
    if renamed:
        with open_base("c", home=tmp_path, neighbours=lambda base: External(base, vectors, name="Slow")) as base:
            base.wait()
            assert base.check() == []


def test_the_example_of_the_documentation_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "knowledge.md"
    (example,) = [each for each in examples(page.read_text("utf-8")) if "External" in each.text]
    script = tmp_path / "page.py"
    script.write_text(example.text, "utf-8")
    runpy.run_path(str(script))
    assert "vector" in capsys.readouterr().out
