"""A base whose vectors lie in any of LangChain's vector stores: Milvus, PostgreSQL with pgvector, Qdrant …

Texts, places, grams and access stay in the base's own file; the store has a document for each text, under an id that is
made of the base and the text's digest (a UUID, which every store takes), with the store's own embedding. What it finds
and the base does not have is left out, so a store that is behind, or holds more, gives no wrong hits. The base notes in
`vector` what it has given to the store.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from chatglm.errors import ChatGLMError, ServiceError
from chatglm.knowledge.lexical import Candidate, View, pieces_of
from chatglm.knowledge.models import unit
from chatglm.knowledge.store import Store, digest_of
from chatglm.knowledge.vectors import Following

if TYPE_CHECKING:
    from langchain_core.documents import Document
    from langchain_core.vectorstores import VectorStore

__all__ = ["External", "is_external"]

Result = TypeVar("Result")
Sense = Callable[[float], float]

_MOST = 10_000
_NEAR = 0.02
_PREFIX = "langchain "

_SENSES: tuple[Sense, ...] = (
    lambda score: score,  # a cosine
    lambda score: 1 - score,  # the distance of cosines
    lambda score: 1 - score / 2,  # a distance, squared
    lambda score: 1 - score * score / 2,  # a distance
    lambda score: 2 * score - 1,  # a cosine, from 0 to 1
)
"""From what stores give as scores to cosines."""


def is_external(name: str) -> bool:
    """Whether what a base notes as the maker of its vectors is one of LangChain's stores."""
    return name.startswith(_PREFIX)


class External(Following):
    """Finds a base's texts through a vector store: `open_base(name, neighbours=lambda base: External(base, store))`.

    Several bases may share a store. Then its answers should be held to one of them (`only`); without that they are
    sorted out here, which takes longer the more others there are.

    Args:
        base: the base's file.
        vectors: the store.
        only: arguments of the store's search that hold it to documents whose metadata has this `base` (an id).
        name: of the store, by which the base remembers where its vectors are; default: its class.
        close: closes the store.
    """

    _batch = 64

    def __init__(
        self,
        base: Store,
        vectors: VectorStore,
        *,
        only: Callable[[str], Mapping[str, Any]] = lambda base: {},
        name: str = "",
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.id = base.meta("id")
        """By which the store's documents are known as this base's."""
        super().__init__(base, f"{_PREFIX}{name or type(vectors).__name__} {self.id}")
        self._vectors, self._only = vectors, dict(only(self.id))
        self.close = close
        self._sense: Sense | None = None
        self._lock = threading.Lock()

    # What the store has

    def _take(self, digests: Sequence[bytes], texts: Sequence[str]) -> None:
        metadata = [{"digest": digest.hex(), "base": self.id} for digest in digests]
        self._told(lambda: self._vectors.add_texts(list(texts), metadata, ids=list(map(self._id, digests))))
        # Who is killed here gives them once more: under the same ids, or, in a store that has ids twice, as documents
        # that are found as one.
        with self._store.writing() as connection:
            self._note(connection, digests)

    def _note(self, connection: Any, digests: Sequence[bytes]) -> None:
        connection.executemany(
            "INSERT OR IGNORE INTO vector (digest, scale, v) VALUES (?, 0, x'')", [(each,) for each in digests]
        )
        self._store.changed(connection)

    def drop(self, digests: Sequence[bytes]) -> None:
        """Delete texts in the store. Where that fails, it is tried again by the next `fill`.

        Raises:
            ServiceError: the store cannot delete.
        """
        if not digests:
            return
        try:
            self._told(lambda: self._vectors.delete(ids=list(map(self._id, digests))))
        except ServiceError:
            with self._store.writing() as connection:
                self._note(connection, digests)
            raise

    def check(self, repair: bool) -> list[str]:
        """Whether the store has all that was given to it. A store that cannot be asked for documents by their ids is
        searched for each text, which takes as long as to add them.

        Raises:
            ServiceError: the store cannot be asked.
        """
        if self._store.meta("vectors") != self.name:
            return []
        missing: set[bytes] = set()
        texts, after = self._texts("vector.id IS NOT NULL", 0)
        while texts:
            missing |= texts.keys() - self._there(texts)
            texts, after = self._texts("vector.id IS NOT NULL", after)
        if repair and missing:
            with self._store.writing() as connection:
                connection.executemany("DELETE FROM vector WHERE digest = ?", [(each,) for each in missing])
                self._store.changed(connection)
        done = "; they were added again" if repair else ""
        return [f"texts that are no longer in {self.name}: {len(missing):,}{done}"] if missing else []

    def _there(self, texts: Mapping[bytes, str]) -> set[bytes]:
        """Which of these the store has."""
        try:
            found = self._told(lambda: self._vectors.get_by_ids(list(map(self._id, texts))))
        except ServiceError as error:
            if not isinstance(error.__cause__, NotImplementedError):
                raise
            found = [document for text in texts.values() for document, _ in self._search(text, 4)]
        return set(filter(None, map(self._digest, found)))

    # Search

    def nearest(self, view: View, question: str, limit: int) -> list[tuple[Candidate, float]]:
        """See `Neighbours`.

        Raises:
            ServiceError: the store cannot be asked, or has lost the base's texts.
        """
        if not self._is_mine():
            return []
        wanted = limit
        while True:
            found = self._search(question, wanted)
            by_digest: dict[bytes, float] = {}
            for (document, _), cosine in zip(found, self._cosines(question, found), strict=True):
                if (digest := self._digest(document)) is not None:
                    by_digest.setdefault(digest, cosine)
            hits = _pieces(view, by_digest)
            # With files, other bases, or texts that are gone, the first ones may be of no use.
            if len(hits) >= limit or len(found) < wanted or wanted >= _MOST:
                break
            wanted *= 4
        if not by_digest and view.connection.execute("SELECT 1 FROM vector LIMIT 1").fetchone():
            raise ServiceError(f"{self.name}: has none of the base's texts; check the base with repair=True")
        return hits[:limit]

    def _search(self, text: str, k: int) -> list[tuple[Document, float]]:
        return self._told(lambda: self._vectors.similarity_search_with_score(text, k=k, **self._only))

    def _cosines(self, question: str, found: Sequence[tuple[Document, float]]) -> list[float]:
        """What a store found has distances of several kinds as its scores, or likenesses."""
        with self._lock:
            sense = self._sense
            if sense is None:
                sense, sure = self._sensed(question, found)
                self._sense = sense if sure else None
        return [sense(float(score)) for _, score in found]

    def _sensed(self, question: str, found: Sequence[tuple[Document, float]]) -> tuple[Sense, bool]:
        """What scores mean, by some whose cosines are computed here; and whether nothing else is possible."""
        model = self._vectors.embeddings
        if model is None or len(found) < 2:
            sign = -1.0 if len(found) > 1 and found[0][1] < found[-1][1] else 1.0
            return (lambda score: sign * score), False
        probes = [found[n] for n in sorted({0, len(found) // 2, len(found) - 1})]
        texts = [document.page_content for document, _ in probes]
        asked = self._told(lambda: unit([model.embed_query(question)]))[0]
        cosines = self._told(lambda: unit(model.embed_documents(texts))) @ asked
        errors = [
            max(abs(sense(float(score)) - cosine) for (_, score), cosine in zip(probes, cosines, strict=True))
            for sense in _SENSES
        ]
        fit = sorted(range(len(_SENSES)), key=errors.__getitem__)
        if errors[fit[0]] <= _NEAR:
            return _SENSES[fit[0]], errors[fit[1]] > 2 * _NEAR
        sign = -1.0 if found[0][1] < found[-1][1] else 1.0  # of some other kind: their order must do
        return (lambda score: sign * score), found[0][1] != found[-1][1]

    def _digest(self, document: Document) -> bytes | None:
        """Of the text; None: it is somebody else's."""
        told = document.metadata
        try:
            return bytes.fromhex(told["digest"]) if told["base"] == self.id else None
        except (KeyError, TypeError, ValueError):
            return None

    def _id(self, digest: bytes) -> str:
        return str(uuid.UUID(bytes=digest_of(self.id, digest)))

    def _told(self, work: Callable[[], Result]) -> Result:
        try:
            return work()
        except ChatGLMError:
            raise
        except Exception as error:
            raise ServiceError(f"{self.name}: failed ({type(error).__name__}: {str(error)[:300]})") from error


def _pieces(view: View, by_digest: Mapping[bytes, float]) -> list[tuple[Candidate, float]]:
    """The pieces that are searched of texts, the nearest first."""
    ids = [
        row[0]
        for digest in by_digest
        for row in view.connection.execute("SELECT id FROM piece WHERE digest = ?", (digest,)).fetchall()
    ]
    found = [(piece, by_digest[piece.digest]) for piece in pieces_of(view, 0, ids)]
    found.sort(key=lambda each: (-each[1], each[0].name, each[0].n))
    return found
