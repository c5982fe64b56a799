"""Vector search in any vector store of LangChain: Milvus, PostgreSQL with pgvector, Qdrant …

Texts, positions, grams and access rights stay in the base's own file. The store gets one document for each text. Its id
is a UUID, computed from the base's id and the digest of the text. The embedding of the store makes the vectors. Results
that the base does not have are ignored, so an outdated or shared store gives no wrong hits. The table `vector` of the
base records which texts the store has (scale 0), or may have because it was asked to add them (scale -1).
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from chatglm.errors import ChatGLMError, NotFoundError, ServiceError
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
"""Largest number of results that are requested from the store."""
_NEAR = 0.02
"""Largest difference between a converted score and the true cosine."""
_PREFIX = "langchain "

_SENSES: tuple[Sense, ...] = (
    lambda score: score,  # cosine similarity
    lambda score: 1 - score,  # cosine distance
    lambda score: 1 - score / 2,  # squared Euclidean distance of unit vectors
    lambda score: 1 - score * score / 2,  # Euclidean distance of unit vectors
    lambda score: 2 * score - 1,  # cosine similarity, scaled to 0 to 1
)
"""Convert the score of a store to a cosine; stores define their scores differently."""


def is_external(name: str) -> bool:
    """Whether the `vectors` entry of a base names a vector store of LangChain."""
    return name.startswith(_PREFIX)


class External(Following):
    """Vector search through a vector store: `open_base(name, neighbours=lambda base: External(base, store))`.

    Several bases may share a store. Then pass `only`, so that the store searches the documents of one base. Without it
    the results of other bases are filtered out here, which is slower the more of them there are.

    The base remembers only the name of such a store, not its address. So only `delete_base(name, neighbours=…)` and a
    `Shelf` with `neighbours` delete the base's documents together with the base. Another program that deletes the
    base, such as `chatglm knowledge remove`, leaves the documents in the store, and says so. Each document has the
    base's id in its metadata field `base`.

    Args:
        base: the file of the base.
        vectors: the vector store, with its embedding model.
        only: takes the base's id; returns the arguments with which the store searches only documents whose metadata
            field `base` has this id.
        name: name under which the base remembers the store; default: the name of its class.
        close: is called to close the store.
        hide: removes passwords and keys from the message of an error.
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
        hide: Callable[[str], str] = lambda said: said,
    ) -> None:
        self.id = base.meta("id")
        """The id of the base. It is in the metadata of each of its documents in the store."""
        super().__init__(base, f"{_PREFIX}{name or type(vectors).__name__} {self.id}")
        self._vectors, self._only = vectors, dict(only(self.id))
        self.close, self._hide = close, hide
        self._sense: Sense | None = None
        self._lock = threading.Lock()

    # Writing into the store

    def _take(self, digests: Sequence[bytes], texts: Sequence[str]) -> None:
        metadata = [{"digest": digest.hex(), "base": self.id} for digest in digests]
        self._note(digests, -1)  # if the store fails or the process is killed, the store may have them nevertheless
        self._told(lambda: self._vectors.add_texts(list(texts), metadata, ids=list(map(self._id, digests))))
        # If the process is killed here, the texts are added a second time: under the same ids, or, in a store that
        # allows an id twice, as duplicates, which `nearest` treats as one.
        try:
            self._note(digests, 0)
        except NotFoundError:
            if not self._store.was_renamed():  # another process has deleted the base, perhaps before `add_texts` ended
                self.drop(digests)
            raise

    def _note(self, digests: Sequence[bytes], scale: int) -> None:
        with self._store.writing() as connection:
            connection.executemany(
                "INSERT INTO vector (digest, scale, v) VALUES (?, ?, x'') "
                "ON CONFLICT DO UPDATE SET scale = excluded.scale",
                [(each, scale) for each in digests],
            )
            self._store.changed(connection)

    def drop(self, digests: Sequence[bytes]) -> None:
        """Delete texts from the store.

        Raises:
            ServiceError: the store cannot delete them.
        """
        ids = list(map(self._id, digests))
        try:
            if ids:
                self._delete(ids)
        except ServiceError as error:  # some stores, such as FAISS, refuse if one text is missing
            try:
                there = [self._id(each) for each in self._found(digests)]
            except ServiceError:
                raise error from None
            if len(there) == len(ids):
                raise
            if there:
                self._delete(there)

    def _delete(self, ids: list[str]) -> None:
        if self._told(lambda: self._vectors.delete(ids=ids)) is False:  # Milvus logs the reason, but raises nothing
            raise ServiceError(f"{self.name}: failed to delete texts")

    def check(self, repair: bool) -> list[str]:
        """Check that the store still has all texts that were added to it. If the store has no lookup by id, it is
        searched for each text, which takes as long as adding them.

        Args:
            repair: remove missing texts from the base's record, so that the next `fill` adds them again.

        Returns:
            a sentence about missing texts; empty if there are none.

        Raises:
            ServiceError: the store cannot be reached, or fails.
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
        """The digests of those texts that the store has."""
        try:
            return self._found(texts)
        except ServiceError as error:
            if not isinstance(error.__cause__, NotImplementedError):
                raise
        found = [document for text in texts.values() for document, _ in self._search(text, 4)]
        return set(filter(None, map(self._digest, found)))

    def _found(self, digests: Iterable[bytes]) -> set[bytes]:
        """Those of the digests that the store has, by their ids."""
        found = self._told(lambda: self._vectors.get_by_ids(list(map(self._id, digests))))
        return set(filter(None, map(self._digest, found)))

    # Search

    def nearest(self, view: View, question: str, limit: int) -> list[tuple[Candidate, float]]:
        """The nearest pieces with their cosines; see `Neighbours`.

        Raises:
            ServiceError: the store cannot be reached or fails, or it has none of the base's texts any more.
            InputError: the vectors were made with another model or store.
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
            # Results may belong to other files, other bases or deleted texts. Then ask for more of them.
            if len(hits) >= limit or len(found) < wanted or wanted >= _MOST:
                break
            wanted *= 4
        if not by_digest and view.connection.execute("SELECT 1 FROM vector WHERE scale >= 0 LIMIT 1").fetchone():
            raise ServiceError(f"{self.name}: has none of the base's texts; check the base with repair=True")
        return hits[:limit]

    def _search(self, text: str, k: int) -> list[tuple[Document, float]]:
        return self._told(lambda: self._vectors.similarity_search_with_score(text, k=k, **self._only))

    def _cosines(self, question: str, found: Sequence[tuple[Document, float]]) -> list[float]:
        """Convert the store's scores to cosines. The kind of score is determined once and then remembered."""
        with self._lock:
            sense = self._sense
            if sense is None:
                sense, sure = self._sensed(question, found)
                self._sense = sense if sure else None
        return [sense(float(score)) for _, score in found]

    def _sensed(self, question: str, found: Sequence[tuple[Document, float]]) -> tuple[Sense, bool]:
        """Determine the kind of score, by computing the cosines of up to three results here.

        Returns:
            the conversion to cosines, and whether it is certain. If not, the next search tries again.
        """
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
        sign = -1.0 if found[0][1] < found[-1][1] else 1.0  # unknown kind of score: only the order can be used
        return (lambda score: sign * score), found[0][1] != found[-1][1]

    def _digest(self, document: Document) -> bytes | None:
        """The digest of a document's text; None: the document does not belong to this base."""
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
            said = self._hide(str(error))
            cause = error if said == str(error) else None  # a traceback with the cause would show the secret
            raise ServiceError(f"{self.name}: failed ({type(error).__name__}: {said:.300})") from cause


def _pieces(view: View, by_digest: Mapping[bytes, float]) -> list[tuple[Candidate, float]]:
    """The searchable pieces that have these texts, the nearest first.

    Args:
        by_digest: the cosine of each text.
    """
    ids = [
        row[0]
        for digest in by_digest
        for row in view.connection.execute("SELECT id FROM piece WHERE digest = ?", (digest,)).fetchall()
    ]
    found = [(piece, by_digest[piece.digest]) for piece in pieces_of(view, 0, ids)]
    found.sort(key=lambda each: (-each[1], each[0].name, each[0].n))
    return found
