"""Addresses of external vector stores. The base stores the address as a setting, so every program finds its vectors.

    milvus:http://HOST:19530#COLLECTION            a server of Milvus
    milvus:FILE.db#COLLECTION                      a file of Milvus Lite
    postgresql://USER@HOST/DATABASE#COLLECTION     PostgreSQL with pgvector
    qdrant:http://HOST:6333#COLLECTION             a server of Qdrant
    qdrant:FOLDER#COLLECTION                       a folder of Qdrant, without a server

A base never stores a password. It stores the name of an environment variable that has the password, written as
`postgresql://USER:$PGPASSWORD@HOST/…`. An API key of Qdrant or a token of Milvus is written at the same place:
`qdrant:http://:$QDRANT_KEY@HOST:6333#COLLECTION`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from chatglm.errors import ChatGLMError, DependencyError, InputError, ServiceError
from chatglm.knowledge.external import External
from chatglm.knowledge.models import Embedder
from chatglm.knowledge.store import Store

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore

__all__ = ["Place", "external_of", "place_of"]

_COLLECTION = re.compile(r"[A-Za-z_]\w{0,62}", re.ASCII)
_VARIABLE = re.compile(r"\$([A-Za-z_]\w*)", re.ASCII)
_FORM = "milvus:PLACE#COLLECTION, postgresql://USER@HOST/DATABASE#COLLECTION or qdrant:PLACE#COLLECTION"
_SECRETS = {"password", "sslpassword", "passfile", "options"}


@dataclass(frozen=True)
class Place:
    """The address of an external vector store.

    Attributes:
        kind: the kind of the store.
        at: its URL without user and password, or an absolute path.
        user: the user; "": none.
        variable: name of the environment variable with the password or API key; "": none is needed.
        collection: the collection in the store.
    """

    kind: Literal["milvus", "postgresql", "qdrant"]
    at: str
    user: str
    variable: str
    collection: str

    def __str__(self) -> str:
        """The address in the form that `place_of` reads. It does not depend on the current folder."""
        if self.is_path:
            return f"{self.kind}:{self.at}#{self.collection}"
        scheme, _, rest = self.at.partition("://")
        who = quote(self.user, safe="") + (f":${self.variable}" if self.variable else "")
        kind = "" if self.kind == "postgresql" else f"{self.kind}:"
        return f"{kind}{scheme}://{who}{'@' if who else ''}{rest}#{self.collection}"

    @property
    def is_path(self) -> bool:
        """Whether the store is a file or folder on this machine."""
        return "://" not in self.at

    def secret(self) -> str:
        """The password or API key from the environment; "": none is needed.

        Raises:
            InputError: the environment variable is not set.
        """
        if self.variable and not os.environ.get(self.variable):
            raise InputError(
                f"vectors_at: the environment variable {self.variable}, which has the password, is not set"
            )
        return os.environ[self.variable] if self.variable else ""


def place_of(given: str) -> Place:
    """Parse the address of an external store (see the module's description).

    Raises:
        InputError: the text is not such an address, or has a password in it.
    """
    kind, _, rest = given.partition(":")
    at, _, collection = rest.rpartition("#")
    if kind not in ("milvus", "postgresql", "qdrant") or not at or not given.isprintable():
        raise InputError(f"vectors_at: names no store; expected {_FORM}")
    if not _COLLECTION.fullmatch(collection):
        raise InputError(
            f"vectors_at: {collection!r:.80} is no name of a collection; use up to 63 letters, digits and _"
        )
    if kind == "postgresql":
        at = f"postgresql:{at}"
    if "://" not in at and kind != "postgresql":
        return Place(kind, os.path.abspath(os.path.expanduser(at)), "", "", collection)  # type: ignore[arg-type]
    try:
        parts = urlsplit(at)
        asked = parse_qs(parts.query, keep_blank_values=True)
        port = parts.port
    except ValueError:
        raise InputError(f"vectors_at: its address is not valid; expected {_FORM}") from None
    database = kind == "postgresql"
    valid = parts.scheme == "postgresql" if database else parts.scheme in ("http", "https") and not parts.query
    named = parts.hostname or (database and "host" in asked)  # `host` may be the folder of a socket
    if not valid or not named or parts.fragment:
        raise InputError(f"vectors_at: its address is not valid; expected {_FORM}")
    variable = _VARIABLE.fullmatch(parts.password or "")
    key = bool(parts.username) and variable is None and not database
    if (parts.password and variable is None) or key or asked.keys() & _SECRETS:
        raise InputError(
            "vectors_at: has a password, which a base never remembers; set an environment variable to it and write "
            "$NAME instead"
        )
    return Place(
        kind,  # type: ignore[arg-type]
        _without_user(parts, port),
        unquote(parts.username or ""),
        variable[1] if variable else "",
        collection,
    )


def _without_user(parts: SplitResult, port: int | None) -> str:
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    asked = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{host if port is None else f'{host}:{port}'}{parts.path}{asked}"


def external_of(base: Store, given: str, embedder: Embedder) -> External:
    """Open an external store for the vector search of a base.

    Args:
        base: the base.
        given: the address of the store.
        embedder: makes the vectors. If the vectors in the store are from another embedder, they are made again when
            files are next indexed.

    Raises:
        InputError: `given` is not an address of a store, or the environment variable with its password is not set.
        DependencyError: a package is missing.
        ServiceError: the store cannot be opened.
    """
    place = place_of(given)
    secret = place.secret()
    package, opened = _KINDS[place.kind]
    try:
        vectors, only, close = opened(place, secret, _embeddings(embedder))
    except ImportError:
        raise DependencyError(f"{package} is needed for vectors in {place.kind}: pip install {package}") from None
    except ChatGLMError:
        raise
    except Exception as error:
        said = str(error).replace(secret, "…") if secret else str(error)
        raise ServiceError(
            f"{place.kind} at {place.at}: cannot be opened ({type(error).__name__}: {said:.300})"
        ) from None
    return External(base, vectors, only=only, name=f"{place.kind} {place.collection} {embedder.name}", close=close)


def _embeddings(embedder: Embedder) -> Embeddings:
    from langchain_core.embeddings import Embeddings

    class Embedded(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            found: list[list[float]] = embedder.passages(texts).tolist()
            return found

        def embed_query(self, text: str) -> list[float]:
            found: list[float] = embedder.questions([text])[0].tolist()
            return found

    return Embedded()


# The kinds of stores

_Opened = tuple["VectorStore", Callable[[str], Mapping[str, Any]], Callable[[], None]]
"""The store; a function from a base's id to the search arguments that select its documents; a function that closes the
store."""


def _milvus(place: Place, secret: str, embeddings: Embeddings) -> _Opened:
    from langchain_milvus import Milvus

    arguments = {"uri": place.at}
    if secret:
        arguments["token"] = f"{place.user}:{secret}" if place.user else secret
    vectors = Milvus(
        embeddings,
        connection_args=arguments,
        collection_name=place.collection,
        index_params={"index_type": "FLAT" if place.is_path else "AUTOINDEX", "metric_type": "L2"},
        consistency_level="Strong",
    )
    return vectors, lambda base: {"expr": f'base == "{base}"'}, lambda: None


def _postgresql(place: Place, secret: str, embeddings: Embeddings) -> _Opened:
    from langchain_postgres import PGVector
    from sqlalchemy import create_engine, make_url

    url = make_url(place.at).set(drivername="postgresql+psycopg", username=place.user or None, password=secret or None)
    engine = create_engine(url, pool_pre_ping=True)
    try:
        vectors = PGVector(embeddings, connection=engine, collection_name=place.collection)
    except BaseException:
        engine.dispose()
        raise
    return vectors, lambda base: {"filter": {"base": base}}, engine.dispose


def _qdrant(place: Place, secret: str, embeddings: Embeddings) -> _Opened:
    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=place.at) if place.is_path else QdrantClient(url=place.at, api_key=secret or None)
    try:
        if not client.collection_exists(place.collection):
            size = len(embeddings.embed_query("size"))
            shape = models.VectorParams(size=size, distance=models.Distance.COSINE)
            client.create_collection(place.collection, vectors_config=shape)
        vectors = QdrantVectorStore(client, place.collection, embeddings)
    except BaseException:
        client.close()
        raise

    def only(base: str) -> Mapping[str, Any]:
        wanted = models.FieldCondition(key="metadata.base", match=models.MatchValue(value=base))
        return {"filter": models.Filter(must=[wanted])}

    return vectors, only, client.close


_KINDS: Mapping[str, tuple[str, Callable[[Place, str, Embeddings], _Opened]]] = {
    "milvus": ("langchain-milvus", _milvus),
    "postgresql": ("langchain-postgres", _postgresql),
    "qdrant": ("langchain-qdrant", _qdrant),
}
