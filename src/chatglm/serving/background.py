"""Runs what waits in the database: a few at a time, fewer while clients wait for answers of their own.

Whoever runs a task has written so first. A task whose server died waits again, for a server that has its model; one
that was cut too often failed. The answer is written together with the end, and only by who runs the task.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Protocol

from chatglm.database import Database
from chatglm.errors import OutputError
from chatglm.serving.callers import Caller
from chatglm.serving.calls import Reply
from chatglm.serving.failures import failure_of
from chatglm.serving.instances import Instance
from chatglm.serving.storage import Storage

__all__ = ["BACKGROUND", "Background", "Server"]

log = logging.getLogger("chatglm.serving")

BACKGROUND = "background:"
"""Before the owner, the client that an owner's tasks are for the engine."""
ATTEMPTS = 5
"""So often a task may be cut before it is given up: perhaps it is what ends the server."""
_ALONE = 2  # a task that was cut so often runs alone, so that no other one is cut with it
_ADOPT_SECONDS = 5.0
_CLEAN_SECONDS = 60.0
_LOOK_SECONDS = 1.0
_STORE_SECONDS = 2.0


class Server(Protocol):
    """What runs the requests."""

    async def send(self, caller: Caller, path: str, body: dict[str, Any]) -> Reply: ...

    def serves(self, model: str) -> bool: ...

    def live(self) -> int:
        """How many requests are under way whose clients wait for them."""


@dataclass(frozen=True)
class _Claimed:
    number: int
    owner: str
    path: str
    body: dict[str, Any]
    alone: bool


class Background:
    """
    Args:
        parallel: tasks that run at a time while no client waits; otherwise one.
        lifetime: seconds that a finished task is kept.
    """

    def __init__(self, storage: Storage, server: Server, lifetime: float, parallel: int = 8) -> None:
        self._storage, self._server, self._lifetime, self._parallel = storage, server, lifetime, parallel
        self._running: dict[asyncio.Task[None], _Claimed] = {}
        self._worker: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._ending = False
        self._last: dict[str, float] = {}
        self._complaint = 0.0

    # Starting and ending

    def resume(self) -> None:
        """Begin, if there is something from earlier servers."""
        if self._storage.exists():
            self.wake()

    def wake(self) -> None:
        """Look for what waits. To be called in the server's event loop."""
        if self._ending:
            return
        if self._worker is None or self._worker.done():
            self._news = asyncio.Event()
            self._running = {}
            self._worker = asyncio.get_running_loop().create_task(self._work())
        self._news.set()

    def end(self) -> None:
        """Stop what runs; it waits again, for the next server."""
        self._ending = True
        self._news.set()
        if self._worker is not None:
            self._worker.cancel()

    async def close(self) -> None:
        """End, and wait for it."""
        self.end()
        if self._worker is not None:
            await asyncio.wait({self._worker})
            self._worker = None

    async def _work(self) -> None:
        try:
            while not self._ending:
                self._news.clear()
                await self._step()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._news.wait(), _LOOK_SECONDS)
        finally:
            while running := set(self._running):
                for task in running:
                    task.cancel()
                await asyncio.wait(running, timeout=1)  # `asyncio.wait_for` of Python 3.11 may lose a cancellation
            try:
                await self._storage.run(_put_back)
            except OutputError as error:
                self._complain(error)

    async def _step(self) -> None:
        try:
            if self._due("adopt", _ADOPT_SECONDS):
                await self._storage.run(self._adopt)
            if self._due("clean", _CLEAN_SECONDS):
                await self._storage.run(_clean)
            if (room := self._room()) > 0:
                owners = Counter(claimed.owner for claimed in self._running.values())
                for claimed in await self._storage.run(
                    lambda database, instance: _claim(database, instance, room, owners)
                ):
                    task = asyncio.get_running_loop().create_task(self._run(claimed))
                    self._running[task] = claimed
                    task.add_done_callback(self._ended)
        except OutputError as error:
            self._complain(error)
        except Exception:
            log.exception("tasks cannot be run")

    def _due(self, what: str, seconds: float) -> bool:
        now = time.monotonic()
        if now - self._last.get(what, -seconds) < seconds:
            return False
        self._last[what] = now
        return True

    def _complain(self, error: OutputError) -> None:
        """Once a minute: a full disk stays full for a while."""
        if time.monotonic() - self._complaint > 60:
            self._complaint = time.monotonic()
            log.error("tasks wait: %s", error)

    def _room(self) -> int:
        """How many may begin now."""
        if any(claimed.alone for claimed in self._running.values()):
            return 0
        return (1 if self._server.live() else self._parallel) - len(self._running)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._news.set()

    # One task

    async def _run(self, claimed: _Claimed) -> None:
        try:
            caller = Caller(claimed.owner, f"{BACKGROUND}{claimed.owner}")
            reply = await self._server.send(caller, claimed.path, claimed.body)
        except Exception as error:
            log.exception("a task failed")
            reply = Reply(500, None, failure_of(error))
        ended = _Ended.of(reply, time.time() + self._lifetime)
        while True:
            try:
                await self._storage.run(lambda database, instance: ended.write(database, instance, claimed.number))
            except OutputError as error:
                self._complain(error)
                await asyncio.sleep(_STORE_SECONDS)
            else:
                return

    # What others have left

    def _adopt(self, database: Database, me: Instance) -> None:
        """Take over the tasks of servers that have died, if their model is served here."""
        for (other,) in database.read("SELECT DISTINCT instance FROM tasks WHERE state IN ('waiting', 'running')"):
            if me.alive(other):
                continue
            now = time.time()
            for (model,) in database.read(
                "SELECT DISTINCT model FROM tasks WHERE instance = ? AND state IN ('waiting', 'running')", (other,)
            ):
                if not self._server.serves(model):
                    continue
                with database.transaction() as connection:
                    connection.execute(
                        "UPDATE tasks SET state = 'failed', problem = ?, finished = ?, expires = ? "
                        "WHERE instance = ? AND model = ? AND state = 'running' AND attempts >= ?",
                        (
                            f"the server ended {ATTEMPTS} times while it ran; it is not tried again",
                            now,
                            now + self._lifetime,
                            other,
                            model,
                            ATTEMPTS,
                        ),
                    )
                    connection.execute(
                        "UPDATE tasks SET state = 'waiting', instance = ? "
                        "WHERE instance = ? AND model = ? AND state IN ('waiting', 'running')",
                        (me.id, other, model),
                    )


@dataclass(frozen=True)
class _Ended:
    """The end of a task."""

    state: str
    status: int
    answer: str
    problem: str
    expires: float

    @classmethod
    def of(cls, reply: Reply, expires: float) -> _Ended:
        problem = reply.failure.message if reply.failure is not None else ""
        if not problem and reply.status >= 400:
            problem = f"the answer has status {reply.status}"
        answer = json.dumps(reply.value, ensure_ascii=False)
        return cls("failed" if problem else "done", reply.status, answer, problem, expires)

    def write(self, database: Database, instance: Instance, number: int) -> None:
        database.write(
            "UPDATE tasks SET state = ?, status = ?, answer = ?, problem = ?, finished = ?, expires = ?, "
            "bytes = bytes + ? WHERE number = ? AND state = 'running' AND instance = ?",
            (
                self.state,
                self.status,
                self.answer,
                self.problem,
                time.time(),
                self.expires,
                len(self.answer),
                number,
                instance.id,
            ),
        )


def _claim(database: Database, me: Instance, most: int, owners: Counter[str]) -> list[_Claimed]:
    """Take so many of the tasks that wait, in turns of their owners.

    Args:
        owners: how many of each run.
    """
    waiting = "FROM tasks WHERE instance = ? AND state = 'waiting'"
    if not database.read(f"SELECT 1 {waiting} LIMIT 1", (me.id,)):
        return []
    found: list[_Claimed] = []
    running = Counter(owners)
    with database.transaction() as connection:
        while len(found) < most:
            heads = []
            owner = None
            while True:  # the first task of each owner, by the index
                more, values = ("", (me.id,)) if owner is None else (" AND owner > ?", (me.id, owner))
                row = connection.execute(f"SELECT * {waiting}{more} ORDER BY owner, number LIMIT 1", values).fetchone()
                if row is None:
                    break
                owner = row["owner"]
                heads.append(row)
            if not heads:
                break
            row = min(heads, key=lambda head: (running[head["owner"]], head["number"]))
            alone = row["attempts"] >= _ALONE
            if alone and running.total():
                break  # it begins when the others have ended
            connection.execute(
                "UPDATE tasks SET state = 'running', attempts = attempts + 1 WHERE number = ?", (row["number"],)
            )
            running[row["owner"]] += 1
            found.append(_Claimed(row["number"], row["owner"], row["path"], json.loads(row["body"]), alone))
            if alone:
                break
    return found


def _put_back(database: Database, me: Instance) -> None:
    database.write(
        "UPDATE tasks SET state = 'waiting', attempts = attempts - 1 WHERE instance = ? AND state = 'running'", (me.id,)
    )


def _clean(database: Database, me: Instance) -> None:
    """Delete what has expired; what waited too long has failed."""
    now = time.time()
    with database.transaction() as connection:
        connection.execute("DELETE FROM tasks WHERE expires < ? AND state IN ('done', 'failed')", (now,))
        connection.execute(
            "UPDATE tasks SET state = 'failed', problem = 'it was not run in time', finished = ?, "
            "expires = ? + (expires - created) WHERE expires < ? AND state = 'waiting'",
            (now, now, now),
        )
