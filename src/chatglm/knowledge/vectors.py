"""Vector search in the file of a base. Vectors are stored as int8 values with a scale.

The key of a vector is the digest of its text. So a text that occurs twice, or is still in a changed file, is embedded
only once. A small base is searched exactly. From 100,000 vectors on, an index of faiss (`NAME.ivf`, beside the base) is
used. It is built from the base, so losing it loses no data.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chatglm.errors import InputError
from chatglm.knowledge.lexical import Candidate, View, pieces_of
from chatglm.knowledge.models import Embedder, Matrix
from chatglm.knowledge.store import VECTORS, VISIBLE, Store, header_of

__all__ = ["Following", "Neighbours", "Vectors"]

INDEXED_FROM = 100_000
"""Number of vectors from which an index is used."""
_REBUILT_AT = 0.2
"""Share of vectors newer than the index at which it is built again. Newer ones are searched exactly."""
_CHUNK = 8192
_LISTS, _PROBES = 256, 16
"""Parameters of the faiss index (IVF): number of lists, and how many of them a search reads."""


class Neighbours(Protocol):
    """Vector search of a base. It is also the `Filler` that makes the vectors.

    Attributes:
        name: name of the embedder, or of the store that has the vectors.
    """

    name: str

    def nearest(self, view: View, question: str, limit: int) -> list[tuple[Candidate, float]]:
        """The nearest searchable pieces with their cosines to the question; the best first, at most `limit`."""

    def fill(self, progress: Callable[[int, int], None], go_on: Callable[[], bool]) -> bool:
        """Make missing vectors: see `indexing.Filler`."""
        ...

    def drop(self, digests: Sequence[bytes]) -> None:
        """Delete the vectors of texts that no piece has any more."""
        ...

    def left(self) -> int:
        """The number of texts that have no vector yet."""

    def check(self, repair: bool) -> list[str]:
        """Check for missing vectors. Returns one sentence for each fault. With `repair`, the next `fill` makes the
        missing vectors again."""


class Following:
    """Keeps vectors up to date with a base: passes each new text to `_take` once, and drops texts that no piece has any
    more.

    Args:
        store: the base.
        name: name of the embedder or of the vector store. If the vectors of the base were made under another name,
            `fill` deletes them first.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.name = name
        self._store = store

    _batch = 16
    """Number of texts for one call of `_take`."""

    def _take(self, digests: Sequence[bytes], texts: Sequence[str]) -> None:
        """Store the vectors of texts, and insert their digests into the table `vector`."""
        raise NotImplementedError

    def drop(self, digests: Sequence[bytes]) -> None:
        """Delete the vectors of texts outside of the base's file."""

    def check(self, repair: bool) -> list[str]:
        """Check for missing vectors: see `Neighbours`."""
        return []

    def _is_mine(self) -> bool:
        """Whether the base has vectors. They must have been made under this name.

        Raises:
            InputError: the vectors were made with another model or store.
        """
        other = self._store.meta("vectors")
        if other and other != self.name:
            raise InputError(f"its vectors were made by {other}, not by {self.name}; add files with {self.name} first")
        return bool(other)

    def left(self) -> int:
        """The number of texts that have no vector yet."""
        with self._store.reading() as connection:
            (count,) = connection.execute(
                "SELECT count(DISTINCT piece.digest) FROM piece JOIN file ON file.id = piece.file "
                f"{VECTORS} WHERE {VISIBLE} AND vector.id IS NULL"
            ).fetchone()
        return int(count)

    def fill(self, progress: Callable[[int, int], None], go_on: Callable[[], bool]) -> bool:
        """Make missing vectors: see `Filler.fill`.

        Raises:
            ChatGLMError: the embedder or the store fails.
        """
        self._forget()
        if self._store.meta("vectors") != self.name:
            with self._store.writing() as connection:
                connection.execute("DELETE FROM vector")
                connection.execute("INSERT OR REPLACE INTO meta VALUES ('vectors', ?)", (self.name,))
                self._store.changed(connection)
        total, done, after = self.left(), 0, 0
        progress(done, total)
        while total and go_on():
            texts, after = self._texts("vector.id IS NULL", after)
            if not texts:
                return False
            self._take(list(texts), list(texts.values()))
            done += len(texts)
            progress(done, max(done, total))
        return bool(total)

    def _texts(self, which: str, after: int) -> tuple[dict[bytes, str], int]:
        """The next batch of searchable texts, by digest, and the id of its last piece.

        Args:
            which: an SQL condition on `piece` and `vector`.
            after: the id of a piece; the batch begins after it.
        """
        with self._store.reading() as connection:
            rows = connection.execute(
                "SELECT piece.*, file.name FROM piece JOIN file ON file.id = piece.file "
                f"{VECTORS} WHERE piece.id > ? AND {VISIBLE} AND {which} ORDER BY piece.id LIMIT {self._batch}",
                (after,),
            ).fetchall()
            pieces = self._store.stored(connection, rows)
        texts = {
            row["digest"]: header_of(piece.file, piece.title) + piece.text
            for row, piece in zip(rows, pieces, strict=True)
        }
        return texts, rows[-1]["id"] if rows else after

    def _forget(self) -> None:
        """Drop the texts that no piece has: those of removed, changed and edited files. Their rows in the table
        `vector` are deleted last: if the process is killed before that, the next call drops the texts again."""
        with self._store.reading() as connection:
            rows = connection.execute(
                "SELECT digest FROM vector WHERE NOT EXISTS (SELECT 1 FROM piece WHERE piece.digest = vector.digest)"
            ).fetchall()
        if not rows:
            return
        digests = [row["digest"] for row in rows]
        self.drop(digests)
        with self._store.writing() as connection:
            connection.executemany("DELETE FROM vector WHERE digest = ?", [(each,) for each in digests])
            self._store.changed(connection)


class Vectors(Following):
    """Vectors in the file of the base.

    Each vector is stored as int8 values and a scale: the largest absolute value is stored as 127.

    Args:
        store: the base.
        embedder: makes the vectors. `fill` first deletes the vectors of another embedder.
    """

    def __init__(self, store: Store, embedder: Embedder) -> None:
        super().__init__(store, embedder.name)
        self._embedder = embedder
        self._lock = threading.Lock()
        self._rows = _Rows()
        self._index: tuple[Any, int] | None = None  # the index, and the largest id in it

    def _take(self, digests: Sequence[bytes], texts: Sequence[str]) -> None:
        vectors = self._embedder.passages(texts)
        scales = np.abs(vectors).max(axis=1) / 127
        whole = np.rint(vectors / np.maximum(scales, 1e-12)[:, None]).astype(np.int8)
        with self._store.writing() as connection:
            self._check_size(connection, whole.shape[1])
            connection.executemany(
                "INSERT OR IGNORE INTO vector (digest, scale, v) VALUES (?, ?, ?)",
                [
                    (digest, float(scale), row.tobytes())
                    for digest, scale, row in zip(digests, scales, whole, strict=True)
                ],
            )
            self._store.changed(connection)

    def _check_size(self, connection: sqlite3.Connection, size: int) -> None:
        """Check that new vectors can be compared with those of the base. An endpoint may now serve another model."""
        row = connection.execute("SELECT length(v) FROM vector LIMIT 1").fetchone()
        if row is not None and row[0] != size:
            raise InputError(
                f"{self.name} makes vectors of {size} numbers, but those of the base have {row[0]}; use the model that "
                "made them, or give the new one another name"
            )

    # Search

    def nearest(self, view: View, question: str, limit: int) -> list[tuple[Candidate, float]]:
        """The nearest pieces with their cosines: see `Neighbours`.

        Raises:
            InputError: the vectors were made with another model.
            ChatGLMError: the embedder fails.
        """
        if not self._is_mine():
            return []
        asked = self._embedder.questions([question])[0]
        self._check_size(view.connection, len(asked))
        with self._lock:
            (count, last) = view.connection.execute("SELECT count(*), coalesce(max(id), 0) FROM vector").fetchone()
            if not count:
                return []
            index = self._indexed(view.connection, count, last)
            self._rows.follow(view.connection, index[1] if index else 0)
            ids, scores = self._rows.scores(asked)
            if index is not None:
                more, their = index[0].search(asked[None], min(4 * limit, count))[1::-1]
                known = more[0] >= 0
                ids, scores = np.concatenate([ids, more[0][known]]), np.concatenate([scores, their[0][known]])
        return _best(view, ids, scores, limit)

    def _indexed(self, connection: sqlite3.Connection, count: int, last: int) -> tuple[Any, int] | None:
        """The index, rebuilt if too many vectors are newer. None: the base is small, or faiss is not installed."""
        if count < INDEXED_FROM:
            return None
        file = self._store.file.with_suffix(".ivf")
        key = f"{self._store.meta('id')} {self.name}"
        if self._index is None:
            self._index = _read_index(file, key)
        if self._index is not None and last - self._index[1] <= _REBUILT_AT * count:
            return self._index
        try:
            self._index = _make_index(connection, count)
        except ImportError:  # without faiss all vectors are compared
            return None
        _write_index(file, key, self._index)
        return self._index


class _Rows:
    """Vectors in memory: those with larger ids than the index has (all, if there is no index)."""

    def __init__(self) -> None:
        self._key = (-1, -1, -1)
        self.ids: NDArray[np.int64] = np.empty(0, np.int64)
        self._whole: NDArray[np.int8] = np.empty((0, 0), np.int8)
        self._scales: NDArray[np.float32] = np.empty(0, np.float32)

    def follow(self, connection: sqlite3.Connection, behind: int) -> None:
        """Load new vectors, or all of them if some were deleted.

        Args:
            behind: only vectors with larger ids are kept in memory.
        """
        count, last = connection.execute(
            "SELECT count(*), coalesce(max(id), 0) FROM vector WHERE id > ?", (behind,)
        ).fetchone()
        if self._key == (behind, count, last):
            return
        top = int(self.ids[-1]) if len(self.ids) and self._key[0] == behind else behind
        (old,) = connection.execute("SELECT count(*) FROM vector WHERE id > ? AND id <= ?", (behind, top)).fetchone()
        if old != len(self.ids) or self._key[0] != behind:
            top = behind
        ids, whole, scales = _load(connection, top)
        if top > behind and len(ids):
            ids = np.concatenate([self.ids, ids])
            whole = np.concatenate([self._whole, whole])
            scales = np.concatenate([self._scales, scales])
        if top == behind or len(ids):
            self.ids, self._whole, self._scales = ids, whole, scales
        self._key = (behind, count, last)

    def scores(self, asked: Matrix) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The ids of the vectors in memory, and the cosine of each with a question's vector: (vectors,) each."""
        scores = np.empty(len(self.ids), np.float32)
        for start in range(0, len(self.ids), _CHUNK):
            part = slice(start, start + _CHUNK)
            scores[part] = self._whole[part].astype(np.float32) @ asked
        return self.ids, scores * self._scales


def _load(
    connection: sqlite3.Connection, after: int
) -> tuple[NDArray[np.int64], NDArray[np.int8], NDArray[np.float32]]:
    rows = connection.execute("SELECT id, scale, v FROM vector WHERE id > ? ORDER BY id", (after,)).fetchall()
    ids = np.fromiter((row["id"] for row in rows), np.int64, len(rows))
    scales = np.fromiter((row["scale"] for row in rows), np.float32, len(rows))
    width = len(rows[0]["v"]) if rows else 0
    if any(len(row["v"]) != width for row in rows):
        raise InputError("its vectors were made by several models; add files with an embedder of another name")
    whole = np.frombuffer(b"".join(row["v"] for row in rows), np.int8).reshape(len(rows), width)
    return ids, whole, scales


def _best(view: View, ids: NDArray[np.int64], scores: NDArray[Any], limit: int) -> list[tuple[Candidate, float]]:
    """The searchable pieces that belong to the best vectors, the best first."""
    if view.files is not None:
        own = view.connection.execute(
            "SELECT DISTINCT vector.id FROM vector JOIN piece ON piece.digest = vector.digest "
            f"WHERE piece.file IN ({','.join(map(str, view.files))})"
        )
        keep = np.isin(ids, np.array([row[0] for row in own], np.int64))
        ids, scores = ids[keep], scores[keep]
    found: list[tuple[Candidate, float]] = []
    order = np.argsort(-scores, kind="stable")
    for start in range(0, len(order), limit):
        part = order[start : start + limit]
        by_id = {int(ids[place]): float(scores[place]) for place in part}
        rows = view.connection.execute(
            "SELECT vector.id, piece.id FROM vector JOIN piece ON piece.digest = vector.digest "
            f"WHERE vector.id IN ({','.join(map(str, by_id))})"
        ).fetchall()
        by_piece = {row[1]: by_id[row[0]] for row in rows}
        found += [(piece, by_piece[piece.id]) for piece in pieces_of(view, 0, list(by_piece))]
        if len(found) >= limit:
            break
    found.sort(key=lambda each: (-each[1], each[0].name, each[0].n))
    return found[:limit]


# The index of many vectors


def _make_index(connection: sqlite3.Connection, count: int) -> tuple[Any, int]:
    import faiss

    ids, whole, scales = _load(connection, 0)
    size = whole.shape[1]
    lists = _LISTS if count < 1_000_000 else 4 * _LISTS
    index: Any = faiss.index_factory(size, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    sample = np.random.default_rng(0).choice(len(ids), min(len(ids), 64 * lists), replace=False)
    index.train(whole[sample].astype(np.float32) * scales[sample, None])
    for start in range(0, len(ids), _CHUNK):
        part = slice(start, start + _CHUNK)
        index.add_with_ids(whole[part].astype(np.float32) * scales[part, None], ids[part])
    index.nprobe = _PROBES
    return index, int(ids[-1])


def _write_index(file: Path, key: str, index: tuple[Any, int]) -> None:
    """Store the index beside the base. If this fails, the index is built again the next time."""
    import faiss

    part = file.with_suffix(f".ivf-{os.getpid()}")
    with contextlib.suppress(OSError, RuntimeError):
        about = file.with_suffix(".ivf.json")
        about.unlink(missing_ok=True)
        faiss.write_index(index[0], str(part))
        part.chmod(0o600)
        part.replace(file)
        about.write_text(json.dumps({"of": key, "last": index[1], "size": file.stat().st_size}), "utf-8")


def _read_index(file: Path, key: str) -> tuple[Any, int] | None:
    """Load the index beside the base; None: there is none, it belongs to another base, or it is damaged."""
    try:
        import faiss

        about = json.loads(file.with_suffix(".ivf.json").read_text("utf-8"))
        if about["of"] != key or about["size"] != file.stat().st_size:
            return None
        return faiss.read_index(str(file)), int(about["last"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError):
        return None
