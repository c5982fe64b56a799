"""A file of requests, answered into another file: what `chatglm batch` does.

Every answer is written at once. So the same command resumes a run that was stopped or killed: answers that are in the
output are not asked for again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import httpx

from chatglm.errors import InputError, ServiceError
from chatglm.serving.bodies import Limits
from chatglm.serving.stored.batches import (
    LINE_ID,
    BatchLine,
    LineError,
    answer_line,
    duplicate,
    error_line,
    new_line_id,
    read_line,
    without_stream,
)

__all__ = ["Book", "BrokenError", "Send", "Servers", "answer_lines"]

Send = Callable[[str, dict[str, Any]], Awaitable[tuple[int, str]]]
"""Sends a request (path and body), and returns the status and the JSON of the answer."""

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
_TRIES = 6  # tries if a server does not answer: after two seconds, then four …
_LONGEST_WAIT = 60.0
_PATIENCE = 3600.0  # seconds that an answer may take
_LINE_BYTES = 64 << 20  # of an output file
_ALIKE = 1000  # characters


class Book:
    """The output file: its earlier lines, and the new ones.

    Raises:
        InputError: the file is not the output of a batch. It is not changed.
    """

    def __init__(self, file: Path) -> None:
        self.custom_ids: set[str] = set()
        self.lines: set[int] = set()  # numbers of lines that have no custom_id
        self.failed = self.written = 0  # in this run
        self._file = open(file, "a+b", buffering=0)  # noqa: SIM115 — closed by `close`
        try:
            self._resume(file)
        except BaseException:
            self._file.close()
            raise

    def _resume(self, file: Path) -> None:
        place, number = 0, 0
        self._file.seek(0)
        with open(self._file.fileno(), "rb", closefd=False) as reader:
            while line := reader.readline(_LINE_BYTES):
                number += 1
                whole = line.endswith(b"\n")
                try:
                    found = json.loads(line)
                    custom_id, error = found["custom_id"], found["error"]
                    ours = found["id"].startswith(LINE_ID) or found["response"] is not None
                    at = int(error["line"]) if custom_id is None else 0
                except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                    begin = f'{{"id": "{LINE_ID}'.encode()
                    if not whole and line.startswith(begin[: len(line)]):
                        self._file.truncate(place)  # the last run was killed while it wrote this
                        return
                    ours = False
                if not ours:
                    raise InputError(
                        f"{file}: line {number:,} is not an answer of a batch; give the name of a new file for the "
                        "output"
                    )
                if custom_id is None:
                    self.lines.add(at)
                else:
                    self.custom_ids.add(custom_id)
                place += len(line)
                if not whole:
                    self._file.write(b"\n")

    def add(self, line: str, failed: bool) -> None:
        """Write a line to the disk."""
        content = memoryview(line.encode())
        while content:
            content = content[self._file.write(content) :]
        self.written += 1
        self.failed += failed

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.fsync(self._file.fileno())
        self._file.close()


async def answer_lines(
    source: BinaryIO, book: Book, send: Send, limits: Limits, concurrency: int, done: Callable[[], Any]
) -> None:
    """Answer all requests that the book does not have yet.

    Args:
        source: JSON lines.
        limits: of a line.
        concurrency: requests at a time.
        done: called after each line.

    Raises:
        OSError: the input cannot be read, or the output cannot be written.
        ServiceError: no server answers.
    """
    lines: asyncio.Queue[_Read] = asyncio.Queue(2 * concurrency)
    loop = asyncio.get_running_loop()
    # A daemon thread: the program must be able to end while somebody still types lines.
    threading.Thread(target=_read, args=(source, limits.body, lines, loop), daemon=True).start()
    run = _Run(book, send, limits, done)
    workers = [asyncio.ensure_future(run.work(lines)) for _ in range(concurrency)]
    try:
        for worker in asyncio.as_completed(workers):
            await worker
    finally:
        for each in workers:
            each.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


@dataclass(frozen=True)
class _Read:
    """Result of reading: a line with its number; or the end, or why it cannot be read.

    Attributes:
        text: None: the line is too long.
    """

    number: int = 0
    text: bytes | None = None
    end: bool = False
    error: Exception | None = None


def _read(source: BinaryIO, longest: int, lines: asyncio.Queue[_Read], loop: asyncio.AbstractEventLoop) -> None:
    def put(read: _Read) -> None:
        asyncio.run_coroutine_threadsafe(lines.put(read), loop).result()

    number = 0
    with contextlib.suppress(RuntimeError, CancelledError):  # the loop has ended
        try:
            while text := source.readline(longest + 1):
                number += 1
                whole = len(text) <= longest
                while not whole and text and not text.endswith(b"\n"):
                    text = source.readline(longest)
                text = text.removeprefix(b"\xef\xbb\xbf") if number == 1 else text
                if text.strip():
                    put(_Read(number, text if whole else None))
            put(_Read(end=True))
        except (OSError, ValueError) as error:
            put(_Read(error=error))


@dataclass
class _Run:
    """State that all workers share."""

    book: Book
    send: Send
    limits: Limits
    done: Callable[[], Any]
    seen: set[str] = field(default_factory=set)

    async def work(self, lines: asyncio.Queue[_Read]) -> None:
        while True:
            read = await lines.get()
            if read.end or read.error is not None:
                await lines.put(read)  # for the others
                if read.error is not None:
                    raise read.error
                return
            if (line := self._line(read)) is not None:
                await self._answer(line)
            self.done()

    def _line(self, read: _Read) -> BatchLine | None:
        """The line to answer; None: there is nothing to do for it."""
        try:
            if read.text is None:
                raise LineError("line_too_long", f"has more than {self.limits.body:,} bytes", None)
            line = read_line(read.text, self.limits)
            if line.custom_id in self.seen:
                raise duplicate(line.custom_id)
        except LineError as error:
            if read.number not in self.book.lines:
                words = f"line {read.number:,}: {error}"
                self.book.add(error_line(new_line_id(), None, error.code, words, read.number), True)
            return None
        self.seen.add(line.custom_id)
        return None if line.custom_id in self.book.custom_ids else line

    async def _answer(self, line: BatchLine) -> None:
        try:
            if line.url not in PATHS:
                raise InputError(f"url: must be one of: {', '.join(PATHS)}; got {line.url!r:.80}")
            status, text = await self.send(line.url, without_stream(line.body))
        except (InputError, BrokenError) as error:
            code = "server_error" if isinstance(error, BrokenError) else "invalid_value"
            self.book.add(error_line(new_line_id(), line.custom_id, code, str(error)), True)
        else:
            self.book.add(answer_line(new_line_id(), line.custom_id, status, text), status >= 300)


class BrokenError(ServiceError):
    """Servers broke the connection during a request, which may be what ends them."""


class Servers:
    """Endpoints that answer the requests unchanged.

    Args:
        urls: base URLs, which end with /v1.
        model: replaces the model that each line names; None: no replacement.
        key: sent as a bearer token.

    Raises:
        InputError: one is no URL.
    """

    def __init__(self, urls: Sequence[str], model: str | None = None, key: str | None = None) -> None:
        for url in urls:
            if not url.startswith(("http://", "https://")):
                raise InputError(f"--remote {url:.200}: expected the base URL of an endpoint: http://host:8000/v1")
        self._urls, self._model = [url.rstrip("/") for url in urls], model
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(_PATIENCE, connect=10),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=4),
        )

    async def __aenter__(self) -> Servers:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def send(self, path: str, body: dict[str, Any]) -> tuple[int, str]:
        """
        Raises:
            ServiceError: no server answers.
            BrokenError: more than one of them left this request unanswered.
        """
        if self._model is not None:
            body = body | {"model": self._model}
        # Dialogues that begin alike go to one server, which has them in its prefix cache.
        start = repr(body.get("messages") or body.get("prompt"))[:_ALIKE].encode()
        first = int.from_bytes(hashlib.blake2b(start, digest_size=4).digest(), "little")
        tries, broken = 0, 0
        while True:
            url = self._urls[(first + tries) % len(self._urls)]
            try:
                answer = await self._client.post(url + path.removeprefix("/v1"), json=body)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                problem = ServiceError(f"{url}: cannot be reached ({error}); run the command again to resume")
            except (httpx.TransportError, httpx.InvalidURL) as error:
                broken += 1
                problem = BrokenError(f"{url}: left the request unanswered ({type(error).__name__}: {error})")
            else:
                if answer.status_code in (429, 503):
                    await asyncio.sleep(_wait(answer.headers.get("retry-after"), tries))
                    tries += answer.status_code == 503
                    if tries < _TRIES:
                        continue
                if answer.status_code in (401, 403):
                    raise ServiceError(f"{url}: status {answer.status_code}: {answer.text:.300}")
                return answer.status_code, _json(answer)
            tries += 1
            if tries >= _TRIES or broken > 1:
                raise problem
            await asyncio.sleep(min(2.0**tries / len(self._urls), _LONGEST_WAIT))


def _wait(given: str | None, tries: int) -> float:
    seconds = float(given) if given is not None and given.isdecimal() and len(given) < 6 else 2.0**tries
    return min(seconds, _LONGEST_WAIT) * random.uniform(1, 1.25)


def _json(answer: httpx.Response) -> str:
    """The answer in one line of JSON; an answer that is not JSON becomes a JSON string."""
    try:
        value = answer.json()
    except ValueError:
        value = answer.text
    return json.dumps(value, ensure_ascii=False)
