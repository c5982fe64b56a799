"""Knowledge bases in LangChain: `KnowledgeRetriever` searches them, `KnowledgeStore` stores documents in one, and
`ChatChatGLM` answers from them.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from pydantic import ConfigDict, Field, PrivateAttr

from chatglm.assistant import BaseAssistant, RemoteAssistant
from chatglm.chat.messages import Message
from chatglm.errors import InputError
from chatglm.knowledge import Base, Bases, Event, Hit, NotFoundError, Upload, open_base, open_bases
from chatglm.knowledge.remote import aask_remote, ask_remote
from chatglm.langchain.opened import Opened

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Documents", "KnowledgeRetriever", "KnowledgeStore"]

_KEPT = "document:"
_MOST_FILES = 10_000
"""Most files to which a search is limited by names. With more, their hits are selected after the search."""
_MOST_HITS = 1000


def _document(hit: Hit) -> Document:
    """Convert a hit. Its metadata has the place: characters `start` to `end` in the text of the file `source`."""
    metadata: dict[str, Any] = {
        "source": hit.file,
        "base": hit.base,
        "start": hit.start,
        "end": hit.end,
        "title": hit.title,
        "score": hit.score,
        "piece": hit.piece,
    }
    if hit.page is not None:
        metadata["page"] = hit.page
    return Document(page_content=hit.text, metadata=metadata)


class Documents:
    """The documents from which a chat model answers.

    Args:
        bases: open bases on this machine; or names of bases on the server that answers.
        options: fields of `chatglm.knowledge.answering.Request`.

    Raises:
        InputError: options are given for bases on a server, which has its own.
    """

    def __init__(self, bases: Bases | Sequence[str], options: dict[str, Any]) -> None:
        self._bases, self._options = bases, options
        if options and not isinstance(bases, Bases):
            raise InputError(
                f"knowledge_options: {min(options)}: the bases are on a server, which uses its own settings; leave it "
                "out"
            )

    def ask(self, assistant: BaseAssistant, messages: Sequence[Message], options: dict[str, Any]) -> Generator[Event]:
        """Answer the last message from the documents; see `Bases.ask` for the events.

        Raises:
            InputError: the last message is not the user's.
        """
        question, history = _question(messages)
        if isinstance(self._bases, Bases):
            return self._bases.ask(assistant, question, history=history, options=options, **self._options)
        assert isinstance(assistant, RemoteAssistant)
        return ask_remote(assistant, self._bases, messages, **options)

    def aask(
        self, assistant: BaseAssistant, messages: Sequence[Message], options: dict[str, Any]
    ) -> AsyncGenerator[Event]:
        """`ask` for coroutines."""
        question, history = _question(messages)
        if isinstance(self._bases, Bases):
            return self._bases.aask(assistant, question, history=history, options=options, **self._options)
        assert isinstance(assistant, RemoteAssistant)
        return aask_remote(assistant, self._bases, messages, **options)


def _question(messages: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    if not messages or messages[-1].role != "user":
        raise InputError("messages: the last one must be the user's question, to be answered from documents")
    return messages[-1].content, messages[:-1]


class KnowledgeRetriever(BaseRetriever):
    """Finds the pieces of knowledge bases that answer a question.

        KnowledgeRetriever(bases=["三国"]).invoke("谁在赤壁放火？")

    Attributes:
        bases: names of this user's bases; several are searched together.
        opened: open bases, instead of names.
        k: number of pieces; `invoke(question, k=…)` overrides it.
        files: names of the files to search; (): all.
        threshold: hits with lower scores are left out; None: no hit is left out.
        mode: "auto", "lexical", "vector".
        home: the folder with the bases; None: that of CHATGLM_HOME.
        who: the user whose rights apply; None: the owner of this machine.

    Raises:
        InputError: not exactly one of `bases` and `opened` is given.
        NotFoundError: there is no such base, or the user may not read it.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    bases: list[str] = Field(default_factory=list)
    opened: Any = Field(default=None, exclude=True, repr=False)
    k: int = Field(default=5, ge=1)
    files: list[str] = Field(default_factory=list)
    threshold: float | None = None
    mode: Literal["auto", "lexical", "vector"] = "auto"
    home: Path | None = None
    who: str | None = None

    _opened: Opened[Bases] = PrivateAttr(default_factory=Opened)

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if bool(self.bases) == (self.opened is not None):
            raise InputError("give `bases` (names) or `opened` (bases that are open)")

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        hits = self._open().search(
            query, k=self.k if k is None else k, files=self.files, threshold=self.threshold, mode=self.mode
        )
        return [_document(hit) for hit in hits]

    def _open(self) -> Base | Bases:
        if self.opened is not None:
            found: Base | Bases = self.opened
            return found
        key = (tuple(self.bases), self.home, self.who)
        return self._opened.get(key, lambda: open_bases(self.bases, home=self.home, who=self.who))

    def close(self) -> None:
        """Close the bases that were opened by their names; the next question opens them again."""
        for bases in self._opened.clear():
            bases.close()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        memo = {} if memo is None else memo
        memo[id(self.opened)] = self.opened
        return super().__deepcopy__(memo)


class KnowledgeStore(VectorStore):
    """A vector store in a knowledge base: documents are stored on disk, and found by words and by vectors.

    A document is one text of any length. It is found by its best piece, and returned as a whole, with its metadata.

    Args:
        base: the name of a base, which is made if there is none; or an open base.
        embedding: makes the vectors; None: the base is searched only by words.
        home: the folder with the bases; None: that of CHATGLM_HOME.

    Raises:
        InputError: the name is not valid. Also the other errors of `open_base`.
    """

    def __init__(self, base: str | Base, embedding: Embeddings | None = None, *, home: Path | None = None) -> None:
        self._embedding = embedding
        self._own = isinstance(base, str)
        if isinstance(base, str):
            self.base = open_base(base, create=True, home=home, embedder=embedding)
        else:
            self.base = base

    @property
    def embeddings(self) -> Embeddings | None:
        return self._embedding

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        base: str | Base = "langchain",
        home: Path | None = None,
        **kwargs: Any,
    ) -> KnowledgeStore:
        _refuse(kwargs)
        store = cls(base, embedding, home=home)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts, or replace texts whose ids exist. Returns their ids.

        Raises:
            InputError: there are more or fewer metadata or ids than texts, or metadata are not JSON values; or a text
                cannot be added. The others are added then, and an older text of its id keeps its metadata.
        """
        _refuse(kwargs)
        given = list(texts)
        for name, values in (("metadatas", metadatas), ("ids", ids)):
            if values is not None and len(values) != len(given):
                raise InputError(f"{name}: expected one for each text, got {len(values)} for {len(given)} texts")
        named = [ids[n] if ids is not None else None for n in range(len(given))]
        chosen = [each if each is not None else str(uuid.uuid4()) for each in named]
        kept: dict[str, str | None] = {}
        for n, number in enumerate(chosen):
            metadata = metadatas[n] if metadatas is not None else {}
            try:
                kept[_KEPT + _name(number)] = json.dumps({"id": number, "metadata": metadata}, ensure_ascii=False)
            except (TypeError, ValueError, RecursionError) as error:
                raise InputError(f"metadatas[{n}]: cannot be kept as JSON ({error})") from None
        last = {_name(number): text for number, text in zip(chosen, given, strict=True)}  # the last text counts
        report = self.base.add(*(Upload(name, text.encode("utf-8", "surrogatepass")) for name, text in last.items()))
        failed = dict(report.failed)
        self.base.configure(**{key: value for key, value in kept.items() if key.removeprefix(_KEPT) not in failed})
        if failed:
            name, why = next(iter(failed.items()))
            number = next(number for number in chosen if _name(number) == name)
            raise InputError(f"texts: the one with the id {number!r:.80} cannot be added ({why}); texts: {len(failed)}")
        return chosen

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        """Delete documents; None: all. Unknown ids are ignored."""
        _refuse(kwargs)
        names = [file.name for file in self.base.files()] if ids is None else [_name(number) for number in ids]
        there = {file.name for file in self.base.files()}
        self.base.remove(*(name for name in names if name in there))
        self.base.configure(**{_KEPT + name: None for name in names})
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents with these ids; unknown ids are left out."""
        found = []
        for number in dict.fromkeys(ids):
            try:
                found.append(self._whole(_name(number)))
            except NotFoundError:
                continue
        return found

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        """The documents that answer a question best, with scores from 0 to 1; higher is better.

        Args:
            kwargs: `filter`: values that the metadata must have, such as `{"page": 3}`; `mode`: "auto", "lexical" or
                "vector"; `threshold`: hits with lower scores are left out.

        Raises:
            InputError: the filter has something else than equality, or an option is unknown.
        """
        asked: dict[str, Any] = {key: kwargs.pop(key) for key in ("mode", "threshold") if key in kwargs}
        wanted_values = kwargs.pop("filter", None)
        _refuse(kwargs)
        names = None if wanted_values is None else self._with(wanted_values)
        if names is not None and not names:
            return []
        if names is not None and len(names) <= _MOST_FILES:
            asked["files"] = sorted(names)
        scores: dict[str, float] = {}
        wanted = k
        while len(scores) < k:
            hits = self.base.search(query, k=wanted, **asked)
            scores = {}
            for hit in hits:
                if names is None or hit.file in names:
                    scores.setdefault(hit.file, hit.score)
            if len(hits) < wanted or wanted == _MOST_HITS:
                break
            wanted = min(2 * wanted, _MOST_HITS)  # several hits may be pieces of one document
        return [(self._whole(name), score) for name, score in list(scores.items())[:k]]

    def _with(self, values: Any) -> set[str]:
        """Names of the files whose documents have these values in their metadata."""
        if not isinstance(values, dict):
            raise InputError("filter: must be names and values of metadata, such as {'page': 3}")
        for name, value in values.items():
            if str(name).startswith("$") or not isinstance(value, str | int | float | bool | None):
                raise InputError(
                    f"filter: {name}: only a single value to be equal to is supported, no operator or list"
                )
        there = {file.name for file in self.base.files()}
        found = set()
        for file, kept in self.base.store.metas(_KEPT).items():
            metadata = json.loads(kept)["metadata"]
            if file in there and all(name in metadata and _same(metadata[name], one) for name, one in values.items()):
                found.add(file)
        return found

    def close(self) -> None:
        """Close the base, if it was opened by its name."""
        if self._own:
            self.base.close()

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda score: score

    def _whole(self, name: str) -> Document:
        kept = json.loads(self.base.setting(_KEPT + name, "{}"))
        return Document(page_content=self.base.text(name), metadata=kept.get("metadata", {}), id=kept.get("id", name))


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal in JSON, where true is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _name(number: str) -> str:
    """A valid file name for an id, which may be any text."""
    return hashlib.sha256(number.encode("utf-8", "surrogatepass")).hexdigest()[:40] + ".txt"


def _refuse(kwargs: dict[str, Any]) -> None:
    if kwargs:
        raise InputError(f"{', '.join(sorted(kwargs))}: a knowledge base has no such option")
