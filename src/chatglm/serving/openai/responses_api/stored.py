"""Responses that are kept, each for the API key that made it."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chatglm.database import Database
from chatglm.errors import InputError, NotFoundError
from chatglm.serving.access.callers import Caller
from chatglm.serving.failures import PreviousResponseError
from chatglm.serving.stored.storage import Storage

__all__ = ["Chain", "ResponseLimits", "Responses", "Stored"]


@dataclass(frozen=True)
class ResponseLimits:
    """
    Attributes:
        count: responses of one owner; a new one replaces the least recently used.
        bytes: of all responses of one owner with their inputs; likewise.
        chain: how many earlier responses one response can continue.
        chain_bytes: of these, with their inputs.
        lifetime: seconds from its last use after which a response is deleted.
    """

    count: int = 10_000
    bytes: int = 256 << 20
    chain: int = 1000
    chain_bytes: int = 16 << 20
    lifetime: float = 30 * 24 * 3600.0


@dataclass(frozen=True)
class Stored:
    """A response, and the items of the request that it answers."""

    response: dict[str, Any]
    input: list[dict[str, Any]]


@dataclass(frozen=True)
class Chain:
    """The responses that a new one continues: their ids, and all their items, the oldest first."""

    ids: tuple[str, ...] = ()
    items: tuple[dict[str, Any], ...] = ()


class Responses:
    """
    Args:
        storage: where they are stored.
    """

    def __init__(self, storage: Storage, limits: ResponseLimits | None = None) -> None:
        self._storage = storage
        self.limits = limits or ResponseLimits()

    async def prepare(self) -> None:
        """Make sure that there is a place to keep responses.

        Raises:
            OutputError: there is none.
        """
        await self._storage.run(lambda database, _: None)

    async def save(self, caller: Caller, stored: Stored, chain: Chain) -> None:
        """Keep a response. The responses that it continues are kept as long as it is.

        Raises:
            OutputError: it cannot be written.
        """
        response, given = (json.dumps(part, ensure_ascii=False) for part in (stored.response, stored.input))
        name, now = stored.response["id"], time.time()
        size, expires = len(response.encode()) + len(given.encode()), now + self.limits.lifetime
        items = [item["id"] for item in (*stored.input, *stored.response["output"])]

        def write(database: Database, _: Any) -> None:
            with database.transaction() as connection:
                connection.execute("DELETE FROM responses WHERE expires <= ?", (now,))
                connection.execute(
                    "INSERT INTO responses (id, owner, previous, response, input, bytes, expires) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (name, caller.owner, chain.ids[-1] if chain.ids else None, response, given, size, expires),
                )
                connection.executemany(
                    "INSERT INTO response_items (id, response) VALUES (?, ?)", [(item, name) for item in items]
                )
                connection.executemany(
                    "UPDATE responses SET expires = ? WHERE id = ?", [(expires, each) for each in chain.ids]
                )
                self._make_room(connection, caller.owner, name)

        await self._storage.run(write)

    def _make_room(self, connection: Any, owner: str, newest: str) -> None:
        count, used = connection.execute(
            "SELECT count(*), sum(bytes) FROM responses WHERE owner = ?", (owner,)
        ).fetchone()
        while count > 1 and (count > self.limits.count or used > self.limits.bytes):
            oldest = connection.execute(
                "SELECT id, bytes FROM responses WHERE owner = ? AND id != ? ORDER BY expires, rowid LIMIT 1",
                (owner, newest),
            ).fetchone()
            connection.execute("DELETE FROM responses WHERE id = ?", (oldest["id"],))
            count, used = count - 1, used - oldest["bytes"]

    async def get(self, caller: Caller, name: str) -> Stored:
        """
        Raises:
            NotFoundError: there is none of this id, or it belongs to another key.
        """
        row = await self._row(caller, name)
        return Stored(json.loads(row["response"]), json.loads(row["input"]))

    async def delete(self, caller: Caller, name: str) -> None:
        """
        Raises:
            NotFoundError: there is none of this id, or it belongs to another key.
        """

        def work(database: Database, _: Any) -> int:
            return database.write("DELETE FROM responses WHERE id = ? AND owner = ?", (name, caller.owner))

        if not self._storage.exists() or not await self._storage.run(work):
            raise _unknown(name)

    async def chain(self, caller: Caller, last: str | None) -> Chain:
        """A response and all those that it continues.

        Raises:
            PreviousResponseError: one of them is not there any more.
            InputError: they are too many.
        """
        if last is None:
            return Chain()
        if not self._storage.exists():
            raise PreviousResponseError(last)

        def work(database: Database, _: Any) -> list[Any]:
            rows: list[Any] = []
            name, size = last, 0
            while name is not None:
                found = database.read(_ONE, (name, caller.owner, time.time()))
                if not found:
                    raise PreviousResponseError(name)
                rows.append(found[0])
                name, size = found[0]["previous"], size + found[0]["bytes"]
                if len(rows) > self.limits.chain or size > self.limits.chain_bytes:
                    raise InputError(
                        f"previous_response_id: {last}: the dialogue before it is too long; at most "
                        f"{self.limits.chain:,} responses of {self.limits.chain_bytes:,} bytes can be continued. Send "
                        "the dialogue as input instead"
                    )
            return rows[::-1]

        rows = await self._storage.run(work)
        items: list[dict[str, Any]] = []
        for row in rows:
            items += json.loads(row["input"]) + json.loads(row["response"])["output"]
        return Chain(tuple(row["id"] for row in rows), tuple(items))

    async def items(self, caller: Caller, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Stored items by their ids, with the others of their responses.

        Raises:
            NotFoundError: one is not there.
            InputError: their responses are too large.
        """
        if not names:
            return {}

        def work(database: Database, _: Any) -> dict[str, dict[str, Any]]:
            found: dict[str, dict[str, Any]] = {}
            size = 0
            for name in names:
                if name in found:
                    continue
                rows = database.read(
                    "SELECT responses.input, responses.response, responses.bytes FROM response_items JOIN responses "
                    "ON responses.id = response_items.response "
                    "WHERE response_items.id = ? AND owner = ? AND expires > ?",
                    (name, caller.owner, time.time()),
                )
                if not rows:
                    raise NotFoundError(f"input: there is no item with id {name!r:.100}; send the item itself")
                if (size := size + rows[0]["bytes"]) > self.limits.chain_bytes:
                    raise self._too_large()
                for item in json.loads(rows[0]["input"]) + json.loads(rows[0]["response"])["output"]:
                    found[item["id"]] = item
            return found

        if not self._storage.exists():
            raise NotFoundError(f"input: there is no item with id {names[0]!r:.100}; send the item itself")
        return await self._storage.run(work)

    def check_sizes(self, known: Mapping[str, dict[str, Any]], names: Sequence[str]) -> None:
        """Check how much text references stand for, if each is replaced by its item.

        Args:
            known: of `items`.
            names: ids of the references; one may be given several times.

        Raises:
            InputError: too much.
        """
        times = Counter(names)
        if sum(len(json.dumps(known[name])) * count for name, count in times.items()) > self.limits.chain_bytes:
            raise self._too_large()

    def _too_large(self) -> InputError:
        return InputError(
            f"input: its references stand for more than {self.limits.chain_bytes:,} bytes; give fewer of them"
        )

    async def _row(self, caller: Caller, name: str) -> Any:
        def work(database: Database, _: Any) -> list[Any]:
            return database.read(_ONE, (name, caller.owner, time.time()))

        rows = await self._storage.run(work) if self._storage.exists() else []
        if not rows:
            raise _unknown(name)
        return rows[0]


_ONE = "SELECT * FROM responses WHERE id = ? AND owner = ? AND expires > ?"


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(f"Response with id {name!r:.100} not found.")
