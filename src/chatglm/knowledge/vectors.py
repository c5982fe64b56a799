"""Vectors of a base's texts: int8 with a scale in the base's file, searched exactly, or, of many, through an index.

A vector belongs to a text by its digest, so a text that stands twice, or still stands in a changed file, is embedded
once. The index (`NAME.ivf`, faiss) lies beside the base and is made from it: losing it loses nothing.
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
from chatglm.knowledge.store import VISIBLE, Store, header_of

__all__ = ["Following", "Neighbours", "Vectors"]

INDEXED_FROM = 100_000
_REBUILT_AT = 0.2
_CHUNK = 8192
_LISTS, _PROBES = 256, 16


class Neighbours(Protocol):
    """What finds a base's texts by their meaning, and is told of new and deleted ones (a `Filler`)."""

    name: str

    def nearest(self, view: View, question: str, limit: int) -> list[tuple[Candidate, float]]:
        """Pieces that are searched, with their likeness to the question; the best first."""

    def fill(self, progress: Callable[[int, int], None], go_on: Callable[[], bool]) -> bool: ...

    def drop(self, digests: Sequence[bytes]) -> None: ...

    def left(self) -> int:
        """How many texts have no vector yet."""

    def check(self, repair: bool) -> list[str]:
        """What is wrong, in sentences; with `repair`, what is missing is made by the next `fill`."""


class Following:
    """Follows a base: gives each of its texts to something that finds by meaning, once, and takes those back that no
    piece has any more.

    Args:
        store: of the base.
        name: of the model or the store of vectors; when texts are given to another, those of this one are forgotten.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.name = name
        self._store = store

    _batch = 16
    """Texts that are given at once."""

    def _take(self, digests: Sequence[bytes], texts: Sequence[str]) -> None:
        """Take texts in, and insert their digests into `vector`."""
        raise NotImplementedError

    def drop(self, digests: Sequence[bytes]) -> None:
        """Forget texts that the base has deleted already."""

    def check(self, repair: bool) -> list[str]:
        """What is wrong, in sentences."""
        return []

    def _is_mine(self) -> bool:
        """Whether what the base notes as done was done with this one.

        Raises:
            InputError: it was done with another.
        """
        other = self._store.meta("vectors")
        if other and other != self.name:
            raise InputError(f"its vectors were made by {other}, not by {self.name}; add files with {self.name} first")
        return bool(other)

    def left(self) -> int:
        """How many texts are still to take."""
        with self._store.reading() as connection:
            (count,) = connection.execute(
                "SELECT count(DISTINCT piece.digest) FROM piece JOIN file ON file.id = piece.file "
                f"LEFT JOIN vector ON vector.digest = piece.digest WHERE {VISIBLE} AND vector.id IS NULL"
            ).fetchone()
        return int(count)

    def fill(self, progress: Callable[[int, int], None], go_on: Callable[[], bool]) -> bool:
        """Take texts while one may; returns whether there are more."""
        if self._store.meta("vectors") != self.name:
            with self._store.writing() as connection:
                connection.execute("DELETE FROM vector")
                connection.execute("INSERT OR REPLACE INTO meta VALUES ('vectors', ?)", (self.name,))
                self._store.changed(connection)
        self._forget()
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
        """The next texts that are searched, by their digests, and the id of their last piece.

        Args:
            which: a condition of SQL on `piece` and `vector`.
            after: the id of a piece.
        """
        with self._store.reading() as connection:
            rows = connection.execute(
                "SELECT piece.*, file.name FROM piece JOIN file ON file.id = piece.file "
                "LEFT JOIN vector ON vector.digest = piece.digest "
                f"WHERE piece.id > ? AND {VISIBLE} AND {which} ORDER BY piece.id LIMIT {self._batch}",
                (after,),
            ).fetchall()
            pieces = self._store.stored(connection, rows)
        texts = {
            row["digest"]: header_of(piece.file, piece.title) + piece.text
            for row, piece in zip(rows, pieces, strict=True)
        }
        return texts, rows[-1]["id"] if rows else after

    def _forget(self) -> None:
        """Take texts back that no piece has: of pieces that were edited, and those that could not be dropped."""
        gone = "SELECT digest FROM vector WHERE NOT EXISTS (SELECT 1 FROM piece WHERE piece.digest = vector.digest)"
        with self._store.reading() as connection:
            if connection.execute(f"{gone} LIMIT 1").fetchone() is None:
                return
        with self._store.writing() as connection:
            digests = [row["digest"] for row in connection.execute(gone).fetchall()]
            connection.executemany("DELETE FROM vector WHERE digest = ?", [(each,) for each in digests])
            self._store.changed(connection)
        self.drop(digests)


class Vectors(Following):
    """The vectors in a base's own file.

    Args:
        embedder: when vectors are made with it, those of another are deleted.
    """

    def __init__(self, store: Store, embedder: Embedder) -> None:
        super().__init__(store, embedder.name)
        self._embedder = embedder
        self._lock = threading.Lock()
        self._rows = _Rows()
        self._index: tuple[Any, int] | None = None  # with the largest id in it

    def _take(self, digests: Sequence[bytes], texts: Sequence[str]) -> None:
        vectors = self._embedder.passages(texts)
        scales = np.abs(vectors).max(axis=1) / 127
        whole = np.rint(vectors / np.maximum(scales, 1e-12)[:, None]).astype(np.int8)
        with self._store.writing() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO vector (digest, scale, v) VALUES (?, ?, ?)",
                [
                    (digest, float(scale), row.tobytes())
                    for digest, scale, row in zip(digests, scales, whole, strict=True)
                ],
            )
            self._store.changed(connection)

    # Search

    def nearest(self, view: View, question: str, limit: int) -> list[tuple[Candidate, float]]:
        if not self._is_mine():
            return []
        asked = self._embedder.questions([question])[0]
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
        """The index, up to date enough; None: there is none, or the base is small."""
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
        except ImportError:  # all are compared
            return None
        _write_index(file, key, self._index)
        return self._index


class _Rows:
    """Vectors in memory: those with larger ids than the index has."""

    def __init__(self) -> None:
        self._key = (-1, -1, -1)
        self.ids: NDArray[np.int64] = np.empty(0, np.int64)
        self._whole: NDArray[np.int8] = np.empty((0, 0), np.int8)
        self._scales: NDArray[np.float32] = np.empty(0, np.float32)

    def follow(self, connection: sqlite3.Connection, behind: int) -> None:
        """Take what is new, or all if something is gone."""
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
        """Every id's likeness to a question."""
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
    whole = np.frombuffer(b"".join(row["v"] for row in rows), np.int8).reshape(len(rows), width)
    return ids, whole, scales


def _best(view: View, ids: NDArray[np.int64], scores: NDArray[Any], limit: int) -> list[tuple[Candidate, float]]:
    """The pieces that are searched of the best vectors."""
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
    """Keep an index beside the base. Where that fails, it is made again the next time."""
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
    """The index that lies beside the base, if it is this base's and whole."""
    try:
        import faiss

        about = json.loads(file.with_suffix(".ivf.json").read_text("utf-8"))
        if about["of"] != key or about["size"] != file.stat().st_size:
            return None
        return faiss.read_index(str(file)), int(about["last"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError):
        return None
