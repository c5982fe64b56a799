"""A base whose vectors lie in any of LangChain's vector stores: Milvus, PostgreSQL with pgvector, Qdrant …

Texts, places, grams and access stay in the base's own file; the store has a document for each text, under an id that is
made of the text's digest (a UUID, which every store takes), with the store's own embedding. What it finds and the base
does not have is left out, so a store that is behind, or holds more, gives no wrong hits.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from chatglm.errors import ServiceError
from chatglm.knowledge.lexical import Candidate, View, pieces_of
from chatglm.knowledge.store import Store
from chatglm.knowledge.vectors import Following

if TYPE_CHECKING:
    from langchain_core.vectorstores import VectorStore

__all__ = ["External"]

Result = TypeVar("Result")

_MOST = 10_000


class External(Following):
    """Finds a base's texts through a vector store: `open_base(name, neighbours=lambda base: External(base, store))`.

    Args:
        base: the base's file.
        vectors: the store; it belongs to this base alone.
        name: by which the base remembers that its vectors are there.
    """

    def __init__(self, base: Store, vectors: VectorStore, name: str = "") -> None:
        super().__init__(base, name or f"langchain {type(vectors).__name__}")
        self._vectors = vectors

    def _take(self, digests: Sequence[bytes], texts: Sequence[str]) -> None:
        metadata = [{"digest": digest.hex()} for digest in digests]
        self._told(lambda: self._vectors.add_texts(list(texts), metadata, ids=list(map(_id, digests))))
        with self._store.writing() as connection:  # what is noted here is there; ids make a second time harmless
            connection.executemany(
                "INSERT OR IGNORE INTO vector (digest, scale, v) VALUES (?, 0, x'')", [(each,) for each in digests]
            )
            self._store.changed(connection)

    def drop(self, digests: Sequence[bytes]) -> None:
        """Delete texts in the store.

        Raises:
            ServiceError: the store cannot delete.
        """
        self._told(lambda: self._vectors.delete(ids=[_id(digest) for digest in digests]))

    def nearest(self, view: View, question: str, limit: int) -> list[tuple[Candidate, float]]:
        """See `Neighbours`.

        Raises:
            ServiceError: the store cannot be asked.
        """
        if not self._is_mine():
            return []
        wanted = limit
        while True:
            found = self._told(lambda: self._vectors.similarity_search_with_score(question, k=wanted))  # noqa: B023
            hits = _best(view, found)
            # With files, or texts that are gone, the first ones may be of no use.
            if len(hits) >= limit or len(found) < wanted or wanted >= _MOST:
                return hits[:limit]
            wanted *= 4

    def _told(self, work: Callable[[], Result]) -> Result:
        try:
            return work()
        except Exception as error:
            raise ServiceError(f"{self.name}: failed ({type(error).__name__}: {str(error)[:300]})") from error


def _best(view: View, found: Sequence[tuple[Any, float]]) -> list[tuple[Candidate, float]]:
    """Pieces of what a store found, in its order. Scores of some stores are distances: the best has the smallest."""
    sign = -1.0 if len(found) > 1 and found[0][1] < found[-1][1] else 1.0
    hits: list[tuple[Candidate, float]] = []
    for document, score in found:
        digest = _digest(document)
        if digest is not None:
            ids = [row[0] for row in _with(view.connection, digest)]
            hits += [(piece, sign * float(score)) for piece in pieces_of(view, 0, ids)]
    return hits


def _with(connection: sqlite3.Connection, digest: bytes) -> list[Any]:
    return connection.execute("SELECT id FROM piece WHERE digest = ?", (digest,)).fetchall()


def _digest(document: Any) -> bytes | None:
    try:
        return bytes.fromhex(document.metadata["digest"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None  # somebody else's


def _id(digest: bytes) -> str:
    return str(uuid.UUID(bytes=digest))
