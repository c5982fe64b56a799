"""Runs the tasks that wait in the database: a few at a time, fewer while clients wait for answers.

A server first writes that it runs a task. If the server dies, the task waits again, for a server that has its model; if
this happens too often, the task fails. The answer and the end are written together, and only by the server that runs
the task.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from chatglm.database import Database, Instance
from chatglm.errors import OutputError
from chatglm.serving.access.callers import Caller
from chatglm.serving.bodies import Limits
from chatglm.serving.failures import failure_of
from chatglm.serving.stored.batches import Batches, line_request
from chatglm.serving.stored.calls import Reply, pause_of
from chatglm.serving.stored.files import delete_expired
from chatglm.serving.stored.storage import Storage

__all__ = ["BACKGROUND", "Background", "Server"]

log = logging.getLogger("chatglm.serving")
Result = TypeVar("Result")

BACKGROUND = "background:"
"""Prefix of the engine's client for tasks; the owner follows."""
ATTEMPTS = 5
"""How often a task may be cut off before it fails: it may be the reason why the server dies."""
_ALONE = 2  # a task that was cut off this often runs alone, so that it cannot cut off another one
_ADOPT_SECONDS = 5.0
_CLEAN_SECONDS = 60.0
_BATCH_SECONDS = 30 * 86400.0  # seconds that a finished batch is kept
_LOOK_SECONDS = 1.0
_STORE_SECONDS = 2.0


class Server(Protocol):
    """The server that runs the requests."""

    async def send(self, caller: Caller, path: str, body: dict[str, Any], *, wait: bool) -> Reply: ...

    def serves(self, model: str) -> bool: ...

    def live(self) -> int:
        """Number of running requests whose clients wait for them."""


@dataclass(frozen=True)
class _Claimed:
    """
    Attributes:
        line: where the body is, if the task is a line of a batch: file, place and size in bytes.
    """

    number: int
    owner: str
    path: str
    body: str | None
    line: tuple[str, int, int] | None
    alone: bool


class Background:
    """
    Args:
        batches: their lines are also run.
        bodies: limits of a line.
        parallel: tasks that run at a time while no client waits; otherwise one.
        lifetime: seconds that a finished task is kept.
    """

    def __init__(
        self,
        storage: Storage,
        server: Server,
        batches: Batches,
        bodies: Limits,
        lifetime: float,
        parallel: int = 8,
    ) -> None:
        self._storage, self._server, self._lifetime, self._parallel = storage, server, lifetime, parallel
        self._batches, self._bodies = batches, bodies
        self._running: dict[asyncio.Task[None], _Claimed] = {}
        self._worker: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._ending = False
        self._resting: dict[str, float] = {}
        """Until when no task of an owner begins: one was refused because the server is busy, or the owner's tokens are
        used up. Others' tasks run meanwhile."""
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
        """Stop running tasks; they wait again, for the next server."""
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
        if self._due("adopt", _ADOPT_SECONDS):
            await self._try(self._adopt)
        if self._due("clean", _CLEAN_SECONDS):
            await self._try(self._clean)
        while await self._try(self._batches.step):
            pass
        if (room := self._room()) > 0:
            owners = Counter(claimed.owner for claimed in self._running.values())
            now = time.monotonic()
            self._resting = {owner: until for owner, until in self._resting.items() if until > now}
            resting = frozenset(self._resting)
            for claimed in await self._try(lambda database, me: _claim(database, me, room, owners, resting)) or ():
                task = asyncio.get_running_loop().create_task(self._run(claimed))
                self._running[task] = claimed
                task.add_done_callback(self._ended)

    async def _try(self, work: Callable[[Database, Instance], Result]) -> Result | None:
        """Call a function; None: it failed, and is tried again later."""
        try:
            return await self._storage.run(work)
        except OutputError as error:
            self._complain(error)
        except Exception:
            log.exception("tasks cannot be run")
        return None

    def _due(self, what: str, seconds: float) -> bool:
        now = time.monotonic()
        if now - self._last.get(what, -seconds) < seconds:
            return False
        self._last[what] = now
        return True

    def _complain(self, error: OutputError) -> None:
        """Log a problem, at most once a minute: a full disk stays full for some time."""
        if time.monotonic() - self._complaint > 60:
            self._complaint = time.monotonic()
            log.error("tasks wait: %s", error)

    def _room(self) -> int:
        """How many tasks may begin now."""
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
            body = await asyncio.to_thread(self._body, claimed)
            reply = await self._server.send(caller, claimed.path, body, wait=False)
            if reply.failure is not None and reply.failure.status == 429:
                self._resting[claimed.owner] = time.monotonic() + pause_of(reply.failure)
                await self._store(lambda database, instance: _put_back(database, instance, claimed.number))
                return
            ended = _Ended.of(reply, time.time() + self._lifetime)
        except Exception as error:
            failure = failure_of(error)
            if failure.status == 500:
                log.exception("a task failed")
            ended = _Ended("failed", None, None, failure.message, failure.code or "", time.time() + self._lifetime)
        await self._store(lambda database, instance: ended.write(database, instance, claimed.number))

    async def _store(self, write: Callable[[Database, Instance], None]) -> None:
        """Store something; as long as the disk is full, again and again."""
        while True:
            try:
                await self._storage.run(write)
            except OutputError as error:
                self._complain(error)
                await asyncio.sleep(_STORE_SECONDS)
            else:
                return

    def _body(self, claimed: _Claimed) -> dict[str, Any]:
        if claimed.line is None:
            body: dict[str, Any] = json.loads(claimed.body or "{}")
            return body
        name, place, size = claimed.line
        return line_request(self._storage.file(name), place, size, self._bodies)

    # Tasks that other servers have left

    def _adopt(self, database: Database, me: Instance) -> None:
        """Take over the tasks and batches of servers that have died, if their model is served here."""
        for other, model in database.read(
            "SELECT DISTINCT instance, model FROM tasks WHERE state IN ('waiting', 'running') AND instance != ? "
            "UNION SELECT instance, model FROM batches WHERE finished IS NULL AND instance != ?",
            (me.id, me.id),
        ):
            if me.alive(other) or not self._server.serves(model):
                continue
            left, now = (other, model), time.time()
            problem = f"the server ended {ATTEMPTS} times while it was running; it is not tried again"
            with database.transaction() as connection:
                connection.execute(
                    "UPDATE tasks SET state = 'failed', problem = ?, finished = ?, expires = ? "
                    "WHERE instance = ? AND model = ? AND state = 'running' AND attempts >= ?",
                    (problem, now, now + self._lifetime, *left, ATTEMPTS),
                )
                connection.execute(
                    "UPDATE tasks SET state = 'waiting', instance = ? "
                    "WHERE instance = ? AND model = ? AND state IN ('waiting', 'running')",
                    (me.id, *left),
                )
                connection.execute(
                    "UPDATE batches SET instance = ? WHERE instance = ? AND model = ? AND finished IS NULL",
                    (me.id, *left),
                )

    def _clean(self, database: Database, me: Instance) -> None:
        """Delete expired tasks; those that waited too long fail."""
        now = time.time()
        with database.transaction() as connection:
            connection.execute(
                "DELETE FROM tasks WHERE batch IS NULL AND expires < ? AND state IN ('done', 'failed')", (now,)
            )
            connection.execute(
                "UPDATE tasks SET state = 'failed', problem = 'it was not run in time', finished = ?, expires = ? "
                "WHERE batch IS NULL AND expires < ? AND state = 'waiting'",
                (now, now + self._lifetime, now),
            )
            connection.execute("DELETE FROM batches WHERE finished < ?", (now - _BATCH_SECONDS,))
        delete_expired(database, self._storage.files)


@dataclass(frozen=True)
class _Ended:
    """The end of a task."""

    state: str
    status: int | None
    answer: str | None
    problem: str
    code: str
    expires: float

    @classmethod
    def of(cls, reply: Reply, expires: float) -> _Ended:
        problem = reply.failure.message if reply.failure is not None else ""
        if not problem and reply.status >= 400:
            problem = f"the answer has status {reply.status}"
        code = reply.failure.code or "" if reply.failure is not None else ""
        return cls("failed" if problem else "done", reply.status, reply.line, problem, code, expires)

    def write(self, database: Database, instance: Instance, number: int) -> None:
        database.write(
            "UPDATE tasks SET state = ?, status = ?, answer = ?, problem = ?, code = ?, finished = ?, expires = ?, "
            "bytes = bytes + ? WHERE number = ? AND state = 'running' AND instance = ?",
            (
                self.state,
                self.status,
                self.answer,
                self.problem,
                self.code,
                time.time(),
                self.expires,
                len((self.answer or "").encode()),
                number,
                instance.id,
            ),
        )


def _claim(
    database: Database, me: Instance, most: int, owners: Counter[str], resting: frozenset[str]
) -> list[_Claimed]:
    """Take a number of waiting tasks, in turns of their owners.

    Args:
        owners: how many of each run.
        resting: owners of whom none are taken.
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
                row = connection.execute(
                    f"SELECT * {waiting}{more} ORDER BY owner, batch IS NOT NULL, number LIMIT 1", values
                ).fetchone()
                if row is None:
                    break
                owner = row["owner"]
                if owner not in resting:
                    heads.append(row)
            if not heads:
                break
            row = min(heads, key=lambda head: (running[head["owner"]], head["batch"] is not None, head["number"]))
            alone = row["attempts"] >= _ALONE
            if alone and running.total():
                break  # it begins when the others have ended
            connection.execute(
                "UPDATE tasks SET state = 'running', attempts = attempts + 1 WHERE number = ?", (row["number"],)
            )
            running[row["owner"]] += 1
            line = None
            if row["batch"] is not None:
                ((file,),) = connection.execute("SELECT input FROM batches WHERE id = ?", (row["batch"],))
                line = file, row["place"], row["size"]
            found.append(_Claimed(row["number"], row["owner"], row["path"], row["body"], line, alone))
            if alone:
                break
    return found


def _put_back(database: Database, me: Instance, number: int | None = None) -> None:
    """Let a task wait again, or all of this server."""
    database.write(
        "UPDATE tasks SET state = 'waiting', attempts = attempts - 1 "
        "WHERE instance = ?1 AND state = 'running' AND (?2 IS NULL OR number = ?2)",
        (me.id, number),
    )
