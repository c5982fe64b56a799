"""Batches: the lines of a file as requests, and their answers as another file.

A line is a task (`tasks.py`, `background.py`) whose body stays in the input file. Its answer is written once, into the
database; when all lines are finished, output files are made of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from chatglm.database import Database, Instance
from chatglm.errors import ChatGLMError, InputError, NotFoundError, OutputError, QueueFullError
from chatglm.serving.access.callers import Caller
from chatglm.serving.bodies import BodyError, Limits, parse_now
from chatglm.serving.stored.files import PART, Files, StoredFile, insert_file, lines_of, new_file_id
from chatglm.serving.stored.storage import Storage

__all__ = [
    "LINE_ID",
    "Batch",
    "BatchLimits",
    "BatchLine",
    "Batches",
    "LineError",
    "answer_line",
    "duplicate",
    "error_line",
    "line_request",
    "new_line_id",
    "read_line",
    "without_stream",
]

State = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]

LINE_ID = "batch_req_"
"""Prefix of the ids of lines."""
_ID = 512  # characters of a custom_id
_ERRORS = 100  # errors of a file that are listed
_DAYS_30 = 30 * 86400.0
_ROWS = 200


@dataclass(frozen=True)
class BatchLimits:
    """
    Attributes:
        lines: of one batch.
        open: unfinished batches of one owner.
    """

    lines: int = 50_000
    open: int = 100


@dataclass(frozen=True)
class Batch:
    """
    Attributes:
        endpoint: the path that every line names as its `url`.
        input, output, error_output: ids of files. The error file has the lines that were not answered with success.
        window: time for finishing it, as the client wrote it.
        errors: of the input file, if the batch failed because of them: `code`, `message`, `line` and `param` of each.
        total, done, failed: lines.
        created, expires, begun, cancelling, finalizing, finished: Unix seconds.
    """

    id: str
    endpoint: str
    model: str
    input: str
    state: State
    window: str
    metadata: dict[str, str] | None
    errors: list[dict[str, Any]]
    output: str | None
    error_output: str | None
    total: int
    done: int
    failed: int
    created: float
    expires: float
    begun: float | None
    cancelling: float | None
    finalizing: float | None
    finished: float | None


class Batches:
    """
    Args:
        started: called when there is a new batch.
        model_of: the name of the model that a request for this name gets.
        bodies: limits of the bodies in lines.
    """

    def __init__(
        self,
        storage: Storage,
        files: Files,
        started: Callable[[], None],
        model_of: Callable[[Any], str],
        bodies: Limits,
        limits: BatchLimits | None = None,
    ) -> None:
        self._storage, self._files, self._started, self._model_of = storage, files, started, model_of
        self._bodies, self.limits = bodies, limits or BatchLimits()

    async def create(
        self,
        caller: Caller,
        dialect: str,
        endpoint: str,
        path: str,
        input_file: str,
        *,
        window: str = "24h",
        seconds: float = 86400.0,
        metadata: Mapping[str, str] | None = None,
        keep: float | None = None,
    ) -> Batch:
        """Create a batch. It is stored when this returns; its file is checked afterwards.

        Args:
            endpoint: the `url` that every line must have.
            path: the path of this server that answers the lines.
            seconds: lines that are not finished after this time fail.
            keep: seconds after which the output is deleted; None: 30 days.

        Raises:
            NotFoundError: there is no such file.
            InputError: the file is for another purpose.
            QueueFullError: the owner has too many unfinished batches.
            OutputError: it cannot be stored.
        """
        stored = await self._files.get(caller, input_file)
        if stored.purpose != "batch":
            raise InputError(f"input_file_id: the file's purpose is {stored.purpose!r}; upload it with purpose batch")
        name, now = f"batch_{secrets.token_hex(16)}", time.time()
        content = self._storage.file(stored.id)

        def store(database: Database, instance: Instance) -> None:
            model = self._model_of(_model_in(content, self._bodies))
            with database.transaction() as connection:
                (count,) = connection.execute(
                    "SELECT count(*) FROM batches WHERE owner = ? AND finished IS NULL", (caller.owner,)
                ).fetchone()
                if count >= self.limits.open:
                    raise QueueFullError(
                        f"{count:,} batches are unfinished; at most {self.limits.open:,} are allowed. Send it again "
                        "later"
                    )
                connection.execute(
                    "INSERT INTO batches (id, owner, dialect, endpoint, path, model, input, state, instance, "
                    "time_window, metadata, keep, created, expires) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, 'validating', ?, ?, ?, ?, ?, ?)",
                    (
                        name,
                        caller.owner,
                        dialect,
                        endpoint,
                        path,
                        model,
                        stored.id,
                        instance.id,
                        window,
                        json.dumps(None if metadata is None else dict(metadata), ensure_ascii=False),
                        keep,
                        now,
                        now + seconds,
                    ),
                )

        await self._storage.run(store)
        self._started()
        return await self.get(caller, dialect, name)

    async def get(self, caller: Caller, dialect: str, name: str) -> Batch:
        """
        Raises:
            NotFoundError: there is no such batch, or it is another owner's.
        """
        found = await self._read("id = ? AND owner = ? AND dialect = ?", (name, caller.owner, dialect))
        if not found:
            raise NotFoundError(f"batch {name!r:.80} does not exist")
        return found[0]

    async def page(
        self, caller: Caller, dialect: str, *, after: str | None = None, limit: int = 20
    ) -> tuple[list[Batch], bool]:
        """The owner's batches, the newest first, from one on, and whether there are more.

        Raises:
            NotFoundError: `after` is not a batch.
        """
        conditions, values = "owner = ? AND dialect = ?", [caller.owner, dialect]
        if after is not None:
            await self.get(caller, dialect, after)
            conditions += " AND number < (SELECT number FROM batches WHERE id = ?)"
            values.append(after)
        found = await self._read(f"{conditions} ORDER BY number DESC LIMIT {int(limit) + 1}", tuple(values))
        return found[:limit], len(found) > limit

    async def cancel(self, caller: Caller, dialect: str, name: str) -> Batch:
        """Start no further line. Running lines are finished, and then the batch is cancelled.

        Raises:
            NotFoundError: as `get`.
            InputError: the batch is finished.
        """
        batch = await self.get(caller, dialect, name)
        if batch.finished is not None:
            raise InputError(f"batch {name} is {batch.state} already, and cannot be cancelled")

        def cancel(database: Database, _: Instance) -> None:
            with database.transaction() as connection:
                connection.execute(
                    "UPDATE batches SET state = 'cancelling', cancelling = ? "
                    "WHERE id = ? AND state IN ('validating', 'in_progress')",
                    (time.time(), name),
                )
                _give_up(connection, name, "batch_cancelled", "the batch was cancelled before this line was run")

        await self._storage.run(cancel)
        self._started()
        return await self.get(caller, dialect, name)

    async def _read(self, conditions: str, values: tuple[Any, ...]) -> list[Batch]:
        if not self._storage.exists():
            return []

        def read(database: Database, _: Instance) -> list[Batch]:
            return [_batch(database, row) for row in database.read(f"SELECT * FROM batches WHERE {conditions}", values)]

        return await self._storage.run(read)

    # What the background does

    def step(self, database: Database, me: Instance) -> bool:
        """Do the work for batches of this server, besides running lines.

        Returns:
            Whether there may be new lines to run.
        """
        rows = database.read("SELECT * FROM batches WHERE instance = ? AND finished IS NULL", (me.id,))
        for row in rows:
            if row["state"] == "validating":
                self._validate(database, row)
                continue
            if row["state"] == "in_progress" and row["expires"] < time.time():
                with database.transaction() as connection:
                    _give_up(
                        connection, row["id"], "batch_expired", "the batch's time was over before this line was run"
                    )
            if not database.read(
                "SELECT 1 FROM tasks WHERE batch = ? AND state IN ('waiting', 'running') LIMIT 1", (row["id"],)
            ):
                self._finish(database, row)
        return any(row["state"] == "validating" for row in rows)

    def _validate(self, database: Database, row: sqlite3.Row) -> None:
        """Make tasks of the lines, or store what is wrong with them."""
        errors: list[dict[str, Any]] = []
        lines: list[tuple[str, int, int]] = []
        seen: set[str] = set()
        try:
            for number, place, text in lines_of(self._storage.file(row["input"]), self._bodies.body):
                if len(lines) >= self.limits.lines:
                    raise InputError(f"the file has more than {self.limits.lines:,} lines")
                try:
                    line = read_line(text, self._bodies)
                    if line.url != row["endpoint"]:
                        words = f"url: must be {row['endpoint']}, the batch's endpoint; got {line.url!r:.80}"
                        raise LineError("mismatched_url", words, "url")
                    if line.custom_id in seen:
                        raise duplicate(line.custom_id)
                except LineError as error:
                    errors.append({"code": error.code, "message": str(error), "param": error.param, "line": number})
                    if len(errors) >= _ERRORS:
                        break
                    continue
                seen.add(line.custom_id)
                lines.append((line.custom_id, place, len(text)))
            if not lines and not errors:
                raise InputError("the file has no lines")
        except (OSError, ChatGLMError) as error:
            errors.append({"code": "invalid_file", "message": str(error), "param": None, "line": None})
        now = time.time()
        with database.transaction() as connection:
            if errors:
                connection.execute(
                    "UPDATE batches SET state = 'failed', errors = ?, finished = ? WHERE id = ?",
                    (json.dumps(errors, ensure_ascii=False), now, row["id"]),
                )
                return
            begun = connection.execute(
                "UPDATE batches SET state = 'in_progress', begun = ?, total = ? WHERE id = ? AND state = 'validating'",
                (now, len(lines), row["id"]),
            ).rowcount
            if not begun:
                return  # cancelled
            connection.executemany(
                "INSERT INTO tasks (id, owner, dialect, path, model, batch, custom_id, place, size, state, instance, "
                "bytes, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'waiting', ?, 0, ?)",
                (
                    (
                        new_line_id(),
                        row["owner"],
                        row["dialect"],
                        row["path"],
                        row["model"],
                        row["id"],
                        custom_id,
                        place,
                        size,
                        row["instance"],
                        now,
                    )
                    for custom_id, place, size in lines
                ),
            )

    def _finish(self, database: Database, row: sqlite3.Row) -> None:
        """Write the output files and the end of the batch, in one transaction."""
        name, now = row["id"], time.time()
        database.write(
            "UPDATE batches SET finalizing = ?, state = CASE state WHEN 'in_progress' THEN 'finalizing' ELSE state END "
            "WHERE id = ? AND finalizing IS NULL",
            (now, name),
        )
        counts = _counts(database, name)
        expires = now + (row["keep"] or _DAYS_30)
        good = self._write(database, f"{name}_output.jsonl", "status < 300", name, expires)
        bad = self._write(database, f"{name}_error.jsonl", "(status IS NULL OR status >= 300)", name, expires)
        expired = database.read("SELECT 1 FROM tasks WHERE batch = ? AND code = 'batch_expired' LIMIT 1", (name,))
        state = "cancelled" if row["cancelling"] is not None else "expired" if expired else "completed"
        with database.transaction() as connection:
            for stored in (good, bad):
                if stored is not None:
                    insert_file(connection, row["owner"], stored)
            connection.execute(
                "UPDATE batches SET state = ?, finished = ?, output = ?, error_output = ?, done = ?, failed = ? "
                "WHERE id = ?",
                (state, time.time(), good and good.id, bad and bad.id, *counts, name),
            )
            connection.execute("DELETE FROM tasks WHERE batch = ?", (name,))

    def _write(self, database: Database, title: str, which: str, batch: str, expires: float) -> StoredFile | None:
        """A file of the lines of one kind; None if there are none."""
        rows = _lines(database, which, batch)
        if (first := next(rows, None)) is None:
            return None
        stored = new_file_id()
        part = self._storage.file(stored + PART)
        try:
            with part.open("xb") as output:
                os.chmod(part, 0o600)
                output.write(first)
                for line in rows:
                    output.write(line)
                output.flush()
                os.fsync(output.fileno())
                size = output.tell()
            part.rename(self._storage.file(stored))
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink()
            raise OutputError(f"{part}: cannot be written ({error.strerror}); free disk space") from None
        return StoredFile(stored, title, "batch_output", size, time.time(), expires)


class LineError(InputError):
    """A line is not a request of a batch.

    Attributes:
        code, param: as OpenAI has them.
    """

    def __init__(self, code: str, message: str, param: str | None) -> None:
        super().__init__(message)
        self.code, self.param = code, param


@dataclass(frozen=True)
class BatchLine:
    """A line of a batch: a request and its name."""

    custom_id: str
    url: str
    body: dict[str, Any]


def read_line(text: bytes, limits: Limits) -> BatchLine:
    """Read a line. The route checks its body later.

    Raises:
        LineError: it is not a request of a batch.
    """
    try:
        line = parse_now(text, limits)
    except BodyError as error:
        raise LineError("invalid_json_line", str(error).replace("the body", "the line"), None) from None
    custom_id, url, body = line.get("custom_id"), line.get("url"), line.get("body")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= _ID:
        words = f"custom_id: required; a string of 1 to {_ID} characters"
        raise LineError("missing_required_parameter" if custom_id is None else "invalid_value", words, "custom_id")
    if line.get("method", "POST") != "POST":
        raise LineError("invalid_method", "method: must be POST", "method")
    if not isinstance(url, str):
        raise LineError("missing_required_parameter", "url: required; a path such as /v1/chat/completions", "url")
    if not isinstance(body, dict):
        raise LineError("missing_required_parameter", "body: required; an object", "body")
    return BatchLine(custom_id, url, body)


def duplicate(custom_id: str) -> LineError:
    """The error for two lines with the same name."""
    return LineError("duplicate_custom_id", f"custom_id: {custom_id!r:.80} is used twice", "custom_id")


def without_stream(body: dict[str, Any]) -> dict[str, Any]:
    """
    Raises:
        InputError: the body asks for a stream.
    """
    if body.get("stream"):
        raise InputError("stream: a batch has no streams; leave it out")
    return body


def line_request(file: Path, place: int, size: int, limits: Limits) -> dict[str, Any]:
    """The body of a line.

    Raises:
        InputError: it asks for a stream.
        OSError: the file cannot be read.
    """
    with file.open("rb") as content:
        content.seek(place)
        body: dict[str, Any] = parse_now(content.read(size), limits)["body"]
    return without_stream(body)


def _model_in(file: Path, limits: Limits) -> Any:
    """The model that the first line asks for; None if there is none."""
    try:
        for _, _, text in lines_of(file, limits.body):
            return parse_now(text, limits)["body"]["model"]
    except (OSError, InputError, KeyError, TypeError):
        pass
    return None


def _give_up(connection: sqlite3.Connection, batch: str, code: str, problem: str) -> None:
    connection.execute(
        "UPDATE tasks SET state = 'failed', code = ?, problem = ?, finished = ? WHERE batch = ? AND state = 'waiting'",
        (code, problem, time.time(), batch),
    )


def _counts(database: Database, batch: str) -> tuple[int, int]:
    """How many lines are done, and how many failed."""
    ((done, failed),) = database.read(
        "SELECT coalesce(sum(status < 300), 0), coalesce(sum(status IS NULL OR status >= 300), 0) FROM tasks "
        "WHERE batch = ? AND state IN ('done', 'failed')",
        (batch,),
    )
    return done, failed


def _batch(database: Database, row: sqlite3.Row) -> Batch:
    done, failed = (row["done"], row["failed"]) if row["finished"] is not None else _counts(database, row["id"])
    return Batch(
        row["id"],
        row["endpoint"],
        row["model"],
        row["input"],
        cast("State", row["state"]),
        row["time_window"],
        json.loads(row["metadata"]),
        json.loads(row["errors"]),
        row["output"],
        row["error_output"],
        row["total"],
        done,
        failed,
        row["created"],
        row["expires"],
        row["begun"],
        row["cancelling"],
        row["finalizing"],
        row["finished"],
    )


def _lines(database: Database, which: str, batch: str) -> Iterator[bytes]:
    """The lines of an output file, in the order of the input."""
    last = -1
    while rows := database.read(
        f"SELECT number, id, custom_id, status, answer, code, problem FROM tasks "
        f"WHERE batch = ? AND number > ? AND {which} ORDER BY number LIMIT {_ROWS}",
        (batch, last),
    ):
        for row in rows:
            last = row["number"]
            yield _line(row).encode()


def _line(row: sqlite3.Row) -> str:
    if row["status"] is None:
        return error_line(row["id"], row["custom_id"], row["code"] or "server_error", row["problem"])
    return answer_line(row["id"], row["custom_id"], row["status"], row["answer"])


def answer_line(name: str, custom_id: str, status: int, answer: str) -> str:
    """A line of an output file, in OpenAI's form.

    Args:
        answer: JSON.
    """
    response = f'{{"status_code": {status}, "request_id": {json.dumps(name)}, "body": {answer}}}'
    return f'{_front(name, custom_id)}, "response": {response}, "error": null}}\n'


def error_line(name: str, custom_id: str | None, code: str, message: str, line: int | None = None) -> str:
    """A line of an output file about a request that was not run.

    Args:
        line: its number, if it has no `custom_id`.
    """
    error: dict[str, Any] = {"code": code, "message": message}
    if line is not None:
        error["line"] = line
    return f'{_front(name, custom_id)}, "response": null, "error": {json.dumps(error, ensure_ascii=False)}}}\n'


def _front(name: str, custom_id: str | None) -> str:
    return f'{{"id": {json.dumps(name)}, "custom_id": {json.dumps(custom_id, ensure_ascii=False)}'


def new_line_id() -> str:
    return f"{LINE_ID}{secrets.token_hex(12)}"
