"""Bases whose vectors lie in one of LangChain's stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_bases import HANDBOOK

from chatglm.knowledge import Upload, open_base
from chatglm.knowledge.external import External

pytest.importorskip("langchain_core")


def store() -> Any:
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import InMemoryVectorStore
    from test_knowledge_vectors import Meanings

    class Own(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return Meanings().passages(texts).tolist()  # type: ignore[no-any-return]

        def embed_query(self, text: str) -> list[float]:
            return self.embed_documents([text])[0]

    return InMemoryVectorStore(Own())


def test_what_is_meant_is_found_in_the_store(tmp_path: Path) -> None:
    vectors = store()
    with open_base("b", create=True, home=tmp_path, neighbours=lambda base: External(base, vectors)) as base:
        base.add(*(Upload(name, text.encode()) for name, text in HANDBOOK.items()))
        assert len(vectors.store) == 4
        assert base.search("旅游")[0].title == "休假"
        assert base.search("旅游", mode="vector", files=["食堂.txt"])[0].file == "食堂.txt"
        base.add(*(Upload(name, text.encode()) for name, text in HANDBOOK.items()))
        assert len(vectors.store) == 4
        base.remove("员工手册.md")
        assert len(vectors.store) == 2
        vectors.add_texts(["休假和旅游"])  # somebody else's
        assert {hit.file for hit in base.search("旅游", mode="vector")} == {"食堂.txt", "安全.txt"}


def test_a_store_that_fails_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = store()
    with open_base("b", create=True, home=tmp_path, neighbours=lambda base: External(base, vectors)) as base:
        base.add(Upload("食堂.txt", HANDBOOK["食堂.txt"].encode()))

        def broken(*_: object, **__: object) -> None:
            raise ConnectionError("no server")

        monkeypatch.setattr(type(vectors), "similarity_search_with_score", broken)
        hits = base.search("饺子")
        assert hits[0].file == "食堂.txt"
        assert "no server" in hits.warnings[0]
        monkeypatch.setattr(type(vectors), "delete", broken)
        base.remove("食堂.txt")  # the base has it no more, whatever the store has
        assert base.search("饺子") == []
        assert "no server" in base.trouble
