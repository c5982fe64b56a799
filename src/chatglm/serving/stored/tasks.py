"""Tasks: requests that are answered later, by a route of this server, and asked for by their id.

A task is in the database before its client gets the id, and its answer and its end are written together, once. So if a
server is killed at any time, each of its tasks is finished, runs again, or has failed with a reason.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from chatglm.database import Database, Instance
from chatglm.errors import InputError, NotFoundError, QueueFullError
from chatglm.serving.access.callers import Caller
from chatglm.serving.stored.storage import Storage

__all__ = ["Task", "TaskLimits", "Tasks"]

State = Literal["waiting", "running", "done", "failed"]


@dataclass(frozen=True)
class TaskLimits:
    """
    Attributes:
        open: tasks of one owner that wait or run.
        bytes: of all requests and answers of one owner.
        lifetime: seconds. A task that is not finished in this time fails; a finished task is deleted after this time.
    """

    open: int = 1000
    bytes: int = 1 << 30
    lifetime: float = 24 * 3600.0


@dataclass(frozen=True)
class Task:
    """
    Attributes:
        state: "failed" also if the answer is an error.
        status: HTTP status of the answer; None: there is none.
        answer: its JSON.
        problem: why it failed, in words; "": it did not.
        body: the request.
        created, finished: Unix seconds.
    """

    id: str
    state: State
    status: int | None
    answer: Any
    problem: str
    body: dict[str, Any]
    created: float
    finished: float | None


class Tasks:
    """
    Args:
        started: called when there is a new task.
        model_of: the name of the model that a request for this name gets.
    """

    def __init__(
        self,
        storage: Storage,
        started: Callable[[], None],
        model_of: Callable[[Any], str],
        limits: TaskLimits | None = None,
    ) -> None:
        self._storage, self._started, self._model_of = storage, started, model_of
        self.limits = limits or TaskLimits()

    async def submit(self, caller: Caller, dialect: str, path: str, body: Mapping[str, Any]) -> Task:
        """Store a request that is to be sent to a path of this server. It is stored when this returns.

        Args:
            dialect: its name; only the same dialect finds the task again.

        Raises:
            InputError: the answer would be a stream.
            QueueFullError: the caller's owner has too many tasks.
            OutputError: it cannot be stored.
        """
        if body.get("stream"):
            raise InputError("stream: a task has no stream; leave it out")
        text = json.dumps(body, ensure_ascii=False)
        now = time.time()
        task = Task(secrets.token_hex(16), "waiting", None, None, "", dict(body), now, None)
        model, expires, size = self._model_of(body.get("model")), now + self.limits.lifetime, len(text.encode())

        def store(database: Database, instance: Instance) -> None:
            with database.transaction() as connection:
                waiting, used = connection.execute(
                    "SELECT sum(state IN ('waiting', 'running')), sum(bytes) FROM tasks "
                    "WHERE owner = ? AND batch IS NULL",
                    (caller.owner,),
                ).fetchone()
                if (waiting or 0) >= self.limits.open:
                    raise QueueFullError(
                        f"{waiting:,} tasks wait; at most {self.limits.open:,} are allowed. Send it again later"
                    )
                if (used or 0) + size > self.limits.bytes:
                    raise QueueFullError(
                        f"the stored tasks and answers have {used:,} bytes; at most {self.limits.bytes:,} are kept. "
                        "Send it again when older ones have expired"
                    )
                connection.execute(
                    "INSERT INTO tasks (id, owner, dialect, path, model, body, state, instance, bytes, created, "
                    "expires) VALUES (?, ?, ?, ?, ?, ?, 'waiting', ?, ?, ?, ?)",
                    (task.id, caller.owner, dialect, path, model, text, instance.id, size, now, expires),
                )

        await self._storage.run(store)
        self._started()
        return task

    async def get(self, caller: Caller, dialect: str, task: str) -> Task:
        """
        Raises:
            NotFoundError: there is no such task, it has expired, or it is another owner's.
        """
        rows = (
            await self._storage.run(
                lambda database, _: database.read(
                    "SELECT * FROM tasks WHERE id = ? AND owner = ? AND dialect = ? AND batch IS NULL",
                    (task, caller.owner, dialect),
                )
            )
            if self._storage.exists()
            else []
        )
        if not rows or (rows[0]["finished"] is not None and rows[0]["expires"] < time.time()):
            raise NotFoundError(f"task {task!r:.80} does not exist; it may have expired")
        (row,) = rows
        answer = None if row["answer"] is None else json.loads(row["answer"])
        return Task(
            row["id"],
            cast("State", row["state"]),
            row["status"],
            answer,
            row["problem"],
            json.loads(row["body"]),
            row["created"],
            row["finished"],
        )
