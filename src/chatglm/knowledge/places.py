"""Addresses of external vector stores. The base stores the address as a setting, so every program finds its vectors.

    milvus:http://HOST:19530#COLLECTION            a Milvus server
    milvus:FILE.db#COLLECTION                      a Milvus Lite file
    postgresql://USER@HOST/DATABASE#COLLECTION     PostgreSQL with pgvector
    qdrant:http://HOST:6333#COLLECTION             a Qdrant server
    qdrant:FOLDER#COLLECTION                       a local folder of Qdrant, without a server

A base never stores a password. It stores the name of an environment variable that has the password, written as
`postgresql://USER:$PGPASSWORD@HOST/…`. An API key of Qdrant or a token of Milvus is written in the same place:
`qdrant:http://:$QDRANT_KEY@HOST:6333#COLLECTION`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from chatglm.errors import ChatGLMError, DependencyError, InputError, ServiceError
from chatglm.knowledge.external import External
from chatglm.knowledge.models import Embedder, hidden
from chatglm.knowledge.store import Store

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore
    from qdrant_client import QdrantClient
    from qdrant_client.models import Filter
    from sqlalchemy import Engine

__all__ = ["Place", "emptied", "external_of", "place_of"]

_COLLECTION = re.compile(r"[A-Za-z_]\w{0,62}", re.ASCII)
_VARIABLE = re.compile(r"\$([A-Za-z_]\w*)", re.ASCII)
_FORM = "milvus:PLACE#COLLECTION, postgresql://USER@HOST/DATABASE#COLLECTION or qdrant:PLACE#COLLECTION"
_SECRETS = {"password", "sslpassword", "passfile", "options", "oauth_client_secret"}
_NO_PATH = re.compile(r"//|[^/]*@")
"""A path that begins like this is probably an address without http://, and may contain a password."""
_CONNECT_SECONDS = 10
"""Time limit for connecting to a server. (Qdrant's client has a limit of its own: 5 seconds without an answer.)"""
_SECONDS = 60
"""Time limit for one call to a server, such as a search or the addition of a few texts."""
_EMPTY_SECONDS = 600
"""Time limit for deleting all documents of a base."""


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

    @property
    def where(self) -> str:
        """The store and the collection, for people. It does not depend on the user or the password."""
        return f"{self.kind} at {self.at}, collection {self.collection}"

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
        raise InputError(  # the text may be part of a password that contains #, so it is not shown
            "vectors_at: what follows # is no name of a collection; use up to 63 letters, digits and _"
        )
    if kind == "postgresql":
        at = f"postgresql:{at}"
    if "://" not in at and kind != "postgresql":
        if _NO_PATH.match(at):
            raise InputError(
                f"vectors_at: its address is not valid; a server's begins with {kind}:http://, and a relative path "
                "with @ in it begins with ./"
            )
        return Place(kind, os.path.abspath(os.path.expanduser(at)), "", "", collection)  # type: ignore[arg-type]
    try:
        parts = urlsplit(at)
        asked = parse_qs(parts.query, keep_blank_values=True)
        port = parts.port
    except ValueError:
        raise InputError(f"vectors_at: its address is not valid; expected {_FORM}") from None
    database = kind == "postgresql"
    valid = parts.scheme == "postgresql" if database else parts.scheme in ("http", "https") and not parts.query
    named = parts.hostname or (database and "host" in asked)  # the parameter `host` may be a socket's folder
    if not valid or not named or parts.fragment:
        raise InputError(f"vectors_at: its address is not valid; expected {_FORM}")
    variable = _VARIABLE.fullmatch(parts.password or "")
    key = bool(parts.username) and variable is None and not database
    if (parts.password and variable is None) or key or {name.lower() for name in asked} & _SECRETS:
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
        embedder: makes the vectors. If the vectors in the store were made by another embedder, they are made again when
            files are next indexed.

    Raises:
        InputError: `given` is not an address of a store, or the environment variable with its password is not set.
        DependencyError: a package is missing.
        ServiceError: the store cannot be opened.
    """
    place = place_of(given)
    with _access(place) as secret:
        vectors, only, close = _KINDS[place.kind].opened(place, secret, _embeddings(embedder))
    name = f"{place.kind} {place.collection} {embedder.name}"
    return External(base, vectors, only=only, name=name, close=close, hide=lambda said: hidden(said, secret))


def emptied(places: Iterable[str], base: str) -> dict[str, str]:
    """Delete the documents of a base from external stores. Documents of other bases stay.

    Args:
        places: the addresses of the stores.
        base: the base's id.

    Returns:
        for each address: a sentence that says why documents may still be there; "": there are none.
    """
    found = {}
    for given in places:
        found[given], where = "", "an external store"
        try:
            place = place_of(given)
            where = place.where
            if not place.is_path or os.path.exists(place.at):
                with _access(place) as secret:
                    _KINDS[place.kind].empty(place, secret, base)
        except ChatGLMError as error:
            found[given] = f"texts of the base may still be in {where} ({error})"
    return found


@contextlib.contextmanager
def _access(place: Place) -> Iterator[str]:
    """A context in which an external store is used. It yields the password or API key, and converts errors.

    Raises:
        InputError: the environment variable with the password is not set.
        DependencyError: a package is missing.
        ServiceError: the store cannot be used.
    """
    secret, package = place.secret(), _KINDS[place.kind].package
    try:
        yield secret
    except ImportError:
        raise DependencyError(f"{package} is needed for vectors in {place.kind}: pip install {package}") from None
    except ChatGLMError:
        raise
    except Exception as error:
        said = hidden(str(error), secret)
        raise ServiceError(
            f"{place.kind} at {place.at}: cannot be opened ({type(error).__name__}: {said:.300})"
        ) from None


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


@dataclass(frozen=True)
class _Kind:
    """A kind of store.

    Attributes:
        package: the Python package that is needed.
        opened: opens a store, and makes the collection if it does not exist.
        empty: deletes the documents of a base, given its id, if the collection exists.
    """

    package: str
    opened: Callable[[Place, str, Embeddings], _Opened]
    empty: Callable[[Place, str, str], None]


def _milvus(place: Place, secret: str, embeddings: Embeddings) -> _Opened:
    from langchain_milvus import Milvus

    class Bounded(Milvus):
        """Adds a time limit to the calls: without one, the client tries a call 75 times. The `timeout` argument of the
        constructor does not help: it is ignored when texts are deleted, and fails when the first ones are added."""

        def add_texts(self, *given: Any, **named: Any) -> list[str]:
            return super().add_texts(*given, **{"timeout": _SECONDS, **named})

        def delete(self, *given: Any, **named: Any) -> bool | None:
            return super().delete(*given, **{"timeout": _SECONDS, **named})

    vectors = Bounded(
        embeddings,
        connection_args=_milvus_server(place, secret),
        collection_name=place.collection,
        index_params={"index_type": "FLAT" if place.is_path else "AUTOINDEX", "metric_type": "L2"},
        consistency_level="Strong",
    )
    return vectors, lambda base: {"expr": f'base == "{base}"', "timeout": _SECONDS}, lambda: None


def _milvus_server(place: Place, secret: str) -> dict[str, Any]:
    server = {"uri": place.at, "timeout": _CONNECT_SECONDS}
    return server | {"token": f"{place.user}:{secret}" if place.user else secret} if secret else server


def _empty_milvus(place: Place, secret: str, base: str) -> None:
    from pymilvus import MilvusClient

    with contextlib.closing(MilvusClient(**_milvus_server(place, secret))) as client:
        if client.has_collection(place.collection, timeout=_SECONDS):
            client.delete(place.collection, filter=f'base == "{base}"', timeout=_EMPTY_SECONDS)


def _postgresql(place: Place, secret: str, embeddings: Embeddings) -> _Opened:
    from langchain_postgres import PGVector

    engine = _engine(place, secret, _SECONDS)
    try:
        vectors = PGVector(embeddings, connection=engine, collection_name=place.collection)
    except BaseException:
        engine.dispose()
        raise
    return vectors, lambda base: {"filter": {"base": base}}, engine.dispose


def _engine(place: Place, secret: str, seconds: int) -> Engine:
    """An engine of SQLAlchemy for a PostgreSQL server.

    Args:
        seconds: time limit for one statement.
    """
    from sqlalchemy import Connection, create_engine, event, make_url

    url = make_url(place.at).set(drivername="postgresql+psycopg", username=place.user or None, password=secret or None)
    limits = {
        "connect_timeout": _CONNECT_SECONDS,
        "tcp_user_timeout": 1000 * _SECONDS,  # if the host disappears while a request is sent …
        "keepalives_idle": _SECONDS // 2,  # … or while the answer is awaited
        "keepalives_interval": _SECONDS // 6,
        "keepalives_count": 3,
    }
    given = {name: value for name, value in limits.items() if name not in url.query}
    engine = create_engine(url, pool_pre_ping=True, connect_args=given)

    # Set in each transaction, not as an option of the connection: poolers such as PgBouncer refuse such an option, or
    # pass it on to the next client.
    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {1000 * seconds}")

    return engine


def _empty_postgresql(place: Place, secret: str, base: str) -> None:
    from sqlalchemy import text

    engine = _engine(place, secret, _EMPTY_SECONDS)
    try:
        with engine.begin() as connection:
            if connection.scalar(text("SELECT to_regclass('langchain_pg_embedding')")) is not None:
                connection.execute(
                    text(
                        "DELETE FROM langchain_pg_embedding USING langchain_pg_collection AS collection "
                        "WHERE collection_id = collection.uuid AND collection.name = :collection "
                        "AND langchain_pg_embedding.cmetadata->>'base' = :base"
                    ),
                    {"collection": place.collection, "base": base},
                )
    finally:
        engine.dispose()


def _qdrant(place: Place, secret: str, embeddings: Embeddings) -> _Opened:
    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import models

    client = _qdrant_client(place, secret)
    try:
        if not client.collection_exists(place.collection):
            size = len(embeddings.embed_query("size"))
            shape = models.VectorParams(size=size, distance=models.Distance.COSINE)
            client.create_collection(place.collection, vectors_config=shape)
        vectors = QdrantVectorStore(client, place.collection, embeddings)
    except BaseException:
        client.close()
        raise

    return vectors, lambda base: {"filter": _qdrant_filter(base)}, client.close


def _qdrant_client(place: Place, secret: str) -> QdrantClient:
    from qdrant_client import QdrantClient

    if place.is_path:
        return QdrantClient(path=place.at)
    # The check would ask for the server's version in a thread, which prints a traceback if the server is down.
    return QdrantClient(url=place.at, api_key=secret or None, check_compatibility=False)


def _qdrant_filter(base: str) -> Filter:
    from qdrant_client import models

    wanted = models.FieldCondition(key="metadata.base", match=models.MatchValue(value=base))
    return models.Filter(must=[wanted])


def _empty_qdrant(place: Place, secret: str, base: str) -> None:
    with contextlib.closing(_qdrant_client(place, secret)) as client:
        if client.collection_exists(place.collection):
            client.delete(place.collection, _qdrant_filter(base))


_KINDS: Mapping[str, _Kind] = {
    "milvus": _Kind("langchain-milvus", _milvus, _empty_milvus),
    "postgresql": _Kind("langchain-postgres", _postgresql, _empty_postgresql),
    "qdrant": _Kind("langchain-qdrant", _qdrant, _empty_qdrant),
}
