"""Knowledge bases as vector stores and retrievers: LangChain's own tests, and what they do not ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests
from pydantic import ValidationError

from chatglm.errors import ChatGLMError, InputError
from chatglm.knowledge import Base, NotFoundError, Upload, open_base
from chatglm.langchain import KnowledgeRetriever, KnowledgeStore

STORY = {
    "red.txt": "黄盖在赤壁放火，烧了曹操的船。周瑜在岸上看。",
    "green.txt": "刘备在新野练兵。诸葛亮住在隆中的草庐里。",
    "blue.txt": "The lighthouse keeper feeds the gulls at noon. He keeps the lamp oil in the cellar.",
    "grey.txt": "The harbour master counts the ships. The gulls follow every ship into the harbour.",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Base]:
    home = tmp_path_factory.mktemp("bases")
    made = open_base("三国", create=True, home=home)
    made.add(*(Upload(name, text.encode()) for name, text in STORY.items()))
    yield made
    made.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[KnowledgeStore]:
    made = KnowledgeStore("kept", home=tmp_path)
    yield made
    made.base.close()


class TestStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[KnowledgeStore]:
        made = KnowledgeStore("suite", self.get_embeddings(), home=tmp_path)
        yield made
        made.base.close()


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def opened(self, base: Base) -> None:
        self._base = base

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return KnowledgeRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"opened": self._base}

    @property
    def retriever_query_example(self) -> str:
        return "gulls of the harbour and the lighthouse; 赤壁 新野"


def test_a_retriever_says_where_each_piece_stands(base: Base) -> None:
    first = KnowledgeRetriever(opened=base, k=1).invoke("谁在赤壁放火？")[0]
    told = first.metadata
    assert (told["source"], told["base"]) == ("red.txt", "三国")
    assert base.text("red.txt")[told["start"] : told["end"]] == first.page_content
    assert told["score"] > 0


def test_a_retriever_opens_bases_by_name_and_only_when_asked(tmp_path: Path) -> None:
    retriever = KnowledgeRetriever(bases=["later"], home=tmp_path)
    with pytest.raises(NotFoundError, match="later"):
        retriever.invoke("x")
    with open_base("later", create=True, home=tmp_path) as made:
        made.add(Upload("a.txt", "周瑜在岸上看。".encode()))
    assert retriever.invoke("周瑜")[0].metadata["source"] == "a.txt"
    retriever.close()
    assert retriever.invoke("周瑜")
    retriever.close()


def test_a_retriever_searches_only_in_some_files(base: Base) -> None:
    found = KnowledgeRetriever(opened=base, files=["grey.txt"]).invoke("gulls")
    assert {document.metadata["source"] for document in found} == {"grey.txt"}


def test_a_retriever_leaves_out_what_is_below_its_threshold(base: Base) -> None:
    asked = "gulls that quarrel with Byzantium's emperor"
    assert KnowledgeRetriever(opened=base, threshold=0).invoke(asked)
    assert KnowledgeRetriever(opened=base, threshold=1).invoke(asked) == []
    with pytest.raises(InputError, match="threshold"):
        KnowledgeRetriever(opened=base, threshold=1.1).invoke(asked)


def test_a_retriever_needs_one_kind_of_base(base: Base) -> None:
    with pytest.raises(ValidationError, match="bases"):
        KnowledgeRetriever()
    with pytest.raises(ValidationError, match="bases"):
        KnowledgeRetriever(bases=["a"], opened=base)


def test_a_store_keeps_documents_over_processes(tmp_path: Path) -> None:
    made = KnowledgeStore("kept", home=tmp_path)
    (number,) = made.add_documents([Document(page_content="黄盖放火。", metadata={"page": 3, "tags": ["火"]})])
    made.base.close()
    again = KnowledgeStore("kept", home=tmp_path)
    try:
        (found,) = again.similarity_search("黄盖")
        assert found == Document(page_content="黄盖放火。", metadata={"page": 3, "tags": ["火"]}, id=number)
        assert again.get_by_ids([number]) == [found]
    finally:
        again.base.close()


def test_a_long_document_is_found_by_its_best_piece_and_comes_whole(store: KnowledgeStore) -> None:
    long = "\n\n".join(f"第{n}章 将军{n}守着城门，看着远处的烟。" * 12 for n in range(30)) + "\n\n最后，孟获归降。"
    store.add_texts([long, "别的事情，孟获没有来。"], [{"n": 1}, {"n": 2}], ids=["long", "short"])
    found = store.similarity_search("孟获归降", k=2)
    assert {document.id for document in found} == {"long", "short"}
    assert next(document for document in found if document.id == "long").page_content == long


def test_scores_fall_from_one_to_nothing(store: KnowledgeStore) -> None:
    store.add_texts(list(STORY.values()))
    found = store.similarity_search_with_score("gulls in the harbour", k=3)
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert store.similarity_search_with_relevance_scores("gulls", k=1)[0][1] <= 1


def test_ids_and_metadata_must_be_as_many_as_texts(store: KnowledgeStore) -> None:
    with pytest.raises(InputError, match="metadatas"):
        store.add_texts(["a", "b"], [{}])
    with pytest.raises(InputError, match="ids"):
        store.add_texts(["a"], ids=["1", "2"])
    with pytest.raises(InputError, match=r"metadatas\[0\]"):
        store.add_texts(["a"], [{"x": object()}])
    assert not list(store.base.files())


def test_a_text_that_cannot_be_added_is_named_and_changes_nothing(store: KnowledgeStore) -> None:
    store.add_texts(["黄盖放火。"], [{"page": 1}], ids=["1"])
    with pytest.raises(InputError, match="the one with the id '1' cannot be added"):
        store.add_texts(["\1\2\0" * 200, "周瑜看。"], [{"page": 2}, {"page": 3}], ids=["1", "2"])
    assert [(one.id, one.metadata) for one in store.get_by_ids(["1", "2"])] == [("1", {"page": 1}), ("2", {"page": 3})]
    assert store.similarity_search("黄盖", k=1)[0].metadata["page"] == 1


@pytest.mark.parametrize("number", ["../../etc/passwd", "a/b\\c", "名" * 500, "", "\x00", "x.exe"])
def test_ids_may_be_anything(store: KnowledgeStore, number: str) -> None:
    store.add_texts(["黄盖放火。"], ids=[number])
    assert [found.id for found in store.similarity_search("黄盖")] == [number]
    store.delete([number, "not there"])
    assert store.get_by_ids([number]) == []


def test_everything_can_be_taken_out(store: KnowledgeStore) -> None:
    store.add_texts(["黄盖放火。", "周瑜看。"], ids=["1", "2"])
    assert store.delete()
    assert store.similarity_search("黄盖") == []
    assert store.get_by_ids(["1", "2"]) == []


def test_a_store_refuses_options_that_it_has_not(store: KnowledgeStore) -> None:
    with pytest.raises(InputError, match="namespace"):
        store.add_texts(["a"], namespace="x")
    with pytest.raises(ChatGLMError):
        KnowledgeStore("../../up")


@pytest.fixture
def pages(store: KnowledgeStore) -> KnowledgeStore:
    told = [{"page": 1, "red": True}, {"page": 2, "red": 1}, {"page": 2, "lang": "zh", "tags": ["a"]}, {"lang": None}]
    store.add_texts(
        ["黄盖在赤壁放火。", "黄盖在岸上。", "黄盖在船上。", "黄盖在城里。"], told, ids=["1", "2", "3", "4"]
    )
    return store


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ({"page": 2}, {"2", "3"}),
        ({"page": 2, "lang": "zh"}, {"3"}),
        ({"page": 2.0}, {"2", "3"}),
        ({"red": True}, {"1"}),
        ({"red": 1}, {"2"}),
        ({"lang": None}, {"4"}),
        ({"page": "2"}, set()),
        ({"other": 1}, set()),
        ({}, {"1", "2", "3", "4"}),
    ],
)
def test_a_filter_wants_values_of_metadata(pages: KnowledgeStore, wanted: dict[str, Any], ids: set[str]) -> None:
    assert {found.id for found in pages.similarity_search("黄盖", k=10, filter=wanted)} == ids
    retriever = pages.as_retriever(search_kwargs={"k": 1, "filter": wanted})
    assert len(retriever.invoke("黄盖")) == min(1, len(ids))
    assert {found.id for found, _ in pages.similarity_search_with_relevance_scores("黄盖", k=10, filter=wanted)} == ids


def test_a_filter_of_very_many_documents_is_the_same(pages: KnowledgeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatglm.langchain.knowledge._MOST_FILES", 1)
    assert {found.id for found in pages.similarity_search("黄盖", k=2, filter={"page": 2})} == {"2", "3"}


def test_a_filter_knows_nothing_of_what_is_gone(pages: KnowledgeStore) -> None:
    pages.base.remove(*[file.name for file in pages.base.files()][:2])
    left = {document.id for document in pages.similarity_search("黄盖", k=10)}
    assert {found.id for found in pages.similarity_search("黄盖", k=10, filter={})} == left


@pytest.mark.parametrize(
    "wrong", [{"page": {"$gt": 1}}, {"$or": [{"page": 1}]}, {"tags": ["a"]}, [("page", 1)], lambda document: True]
)
def test_what_is_no_equality_is_refused(pages: KnowledgeStore, wrong: Any) -> None:
    with pytest.raises(InputError, match=r"^filter"):
        pages.similarity_search("黄盖", filter=wrong)


def test_a_store_closes_what_it_has_opened(tmp_path: Path, base: Base) -> None:
    made = KnowledgeStore("kept", home=tmp_path)
    made.close()
    with pytest.raises(ChatGLMError, match="closed"):
        made.similarity_search("a")
    KnowledgeStore(base).close()
    assert base.search("gulls")
