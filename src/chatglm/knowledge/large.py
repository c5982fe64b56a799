"""An additional index for large bases, made with tantivy. It is faster than SQLite's index, so searches use more grams.

The index is the folder `NAME.tantivy` beside the base. It is built from the base, so losing it loses no data. It is
updated whenever files are indexed. If it is not up to date, the base's own index is used. Deleted pieces stay in it
until it is rebuilt; searches filter them out. Edited pieces are scored one by one from the base.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import sqlite3
import threading
from collections.abc import Mapping
from typing import Any

from chatglm.knowledge import grams as tokens
from chatglm.knowledge.store import VISIBLE, Store

__all__ = ["LARGE_FROM", "Tantivy", "finder_of"]

LARGE_FROM = 300_000
"""Number of pieces from which a base gets this index, if tantivy is installed."""
_HEAP = 256 << 20
_REBUILT_AT = 0.3


class Tantivy:
    """The tantivy index of a base. It implements `lexical.Finder`.

    Args:
        store: the base.
        least: number of pieces from which the base gets an index.
    """

    def __init__(self, store: Store, least: int = LARGE_FROM) -> None:
        self._store = store
        self._least = least
        self._folder = store.file.with_suffix(".tantivy")
        self._about = store.file.with_suffix(".tantivy.json")
        self._lock = threading.Lock()
        self._index: Any = None
        self._known: dict[str, Any] = {}

    def ready(self, connection: sqlite3.Connection) -> bool:
        """Whether there is an index with all pieces that this connection sees."""
        if self._store.size(connection)[0] < self._least:
            return False
        (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM piece").fetchone()
        with self._lock:
            known = self._opened()
        return known is not None and known["last"] >= last

    def find(
        self, connection: sqlite3.Connection, weights: Mapping[str, float], limit: int
    ) -> tuple[list[int], list[float]]:
        """Find the pieces with the largest sum of weights of the grams that they contain. Call `ready` first.

        Args:
            weights: the weight of each gram.
            limit: number of pieces; edited pieces come in addition.

        Returns:
            ids of pieces, and their sums of weights, in any order.
        """
        import tantivy

        with self._lock:
            schema, searcher = self._index.schema, self._index.searcher()
        query = tantivy.Query
        parts = [
            query.boost_query(query.const_score_query(query.term_query(schema, "g", gram, "basic"), 1.0), weight)
            for gram, weight in weights.items()
        ]
        either = query.boolean_query([(tantivy.Occur.Should, part) for part in parts])
        found: dict[int, float] = {}
        for score, address in searcher.search(either, limit, count=False).hits:
            found[searcher.doc(address)["id"][0]] = score
        for row in connection.execute("SELECT id, folded FROM piece WHERE edited IS NOT NULL"):
            own = set(tokens.grams_of(row["folded"]))
            found[row["id"]] = sum(weight for gram, weight in weights.items() if gram in own)
        return list(found), list(found.values())

    def follow(self) -> None:
        """Add the new pieces of the base to the index, or build it again if it has too many deleted ones. Call it only
        while holding the base's lock for indexing."""
        import tantivy

        with self._store.reading() as connection:
            count, last = connection.execute(
                "SELECT count(*), coalesce(max(piece.id), 0) FROM piece JOIN file ON file.id = piece.file "
                f"WHERE {VISIBLE}"
            ).fetchone()
            if count < self._least:
                return
            with self._lock:
                known = self._opened()
                if known is not None and known["last"] >= last:
                    return
                if known is None or known["docs"] > (1 + _REBUILT_AT) * count:
                    shutil.rmtree(self._folder, ignore_errors=True)
                    self._folder.mkdir(mode=0o700)
                    self._index = tantivy.Index(self._schema(), str(self._folder))
                    known = {"last": 0, "docs": 0}
                docs = known["docs"] + self._write(connection, known["last"])
                (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM piece").fetchone()
                self._known = {"of": self._key(), "last": last, "docs": docs}
                self._about.write_text(json.dumps(self._known), "utf-8")
                self._index.reload()

    def _write(self, connection: sqlite3.Connection, after: int) -> int:
        import tantivy

        writer = self._index.writer(_HEAP, 1)
        docs = 0
        # Also add pieces that searches do not see now: a disabled piece may be restored, and a file may be partly
        # indexed.
        for row in connection.execute("SELECT id, folded FROM piece WHERE id > ?", (after,)):
            text = " ".join(dict.fromkeys(tokens.grams_of(row["folded"])))
            writer.add_document(tantivy.Document(id=row["id"], g=[text]))
            docs += 1
        writer.commit()
        writer.wait_merging_threads()
        return docs

    def _opened(self) -> dict[str, Any] | None:
        """Open the index on disk if necessary. Returns its largest piece id (`last`) and its number of documents
        (`docs`); None: there is no index of this base."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(self._about.read_text("utf-8"))
            if known["of"] == self._key():
                if self._index is None:
                    import tantivy

                    self._index = tantivy.Index.open(str(self._folder))
                if known != self._known:
                    self._index.reload()
                    self._known = known
                return {"last": int(known["last"]), "docs": int(known["docs"])}
        return None

    def _key(self) -> str:
        return f"{self._store.meta('id')} {tokens.VERSION}"

    def _schema(self) -> Any:
        import tantivy

        builder = tantivy.SchemaBuilder()
        builder.add_integer_field("id", stored=True, indexed=True)
        builder.add_text_field("g", tokenizer_name="whitespace", index_option="basic")
        return builder.build()


def finder_of(store: Store) -> Tantivy | None:
    """The tantivy index of a base; None: tantivy is not installed."""
    return Tantivy(store) if importlib.util.find_spec("tantivy") else None
