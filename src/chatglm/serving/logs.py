"""Logs: one line for each request, and lines about the server, as text or as JSON.

Logging never waits for the reader of the log: lines go to a thread that writes them, and if the reader is too slow for
a long time, lines are dropped and counted. Text of clients can neither begin a new line nor control a terminal.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import re
import threading
import time
from collections import deque
from typing import Any, Literal

from chatglm.serving.failures import Failure
from chatglm.serving.records import Record

__all__ = ["WAITING", "LineWriter", "configure", "log_request"]

WAITING = 10_000
"""Lines that may wait for a slow reader."""

requests = logging.getLogger("chatglm.requests")

_PLAIN = re.compile(r"[\w./:{}@+-]+")
# Control characters, separators of lines, marks that turn the direction of text, and halves of surrogate pairs.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_FIELDS = "request"


def log_request(record: Record, method: str, path: str, status: int, failure: Failure | None) -> None:
    """One line, when the response has ended. It has no text of users and no key.

    Args:
        path: shown where no route answered.
        failure: what went wrong, if it is known.
    """
    if not requests.isEnabledFor(logging.INFO):
        return
    fields: dict[str, Any] = {"id": record.id, "method": method}
    if record.route:
        fields |= {"dialect": record.dialect, "route": record.route}
    else:
        fields["path"] = path[:200]
    fields["status"] = status
    if failure is not None and failure.code:
        fields["code"] = failure.code
    if record.key:
        fields["key"] = record.key
    if record.model:
        fields |= {
            "model": record.model,
            "prompt_tokens": record.prompt_tokens,
            "cached_tokens": record.cached_tokens,
            "completion_tokens": record.completion_tokens,
        }
    if record.ended:
        fields["ended"] = record.ended
    if record.first is not None:
        fields["first_ms"] = round(record.first * 1000, 1)
    fields["ms"] = round((time.perf_counter() - record.began) * 1000, 1)
    if record.asked is not None:
        fields |= {"asked": record.asked, "answered": record.answered}
    requests.info("request", extra={_FIELDS: fields})


def _escaped(text: str) -> str:
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class _TextFormatter(logging.Formatter):
    """`2030-12-31 23:59:59 INFO request id=… status=200 …`."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        fields: dict[str, Any] = getattr(record, _FIELDS, {})
        words = [when, record.levelname, *_escaped(record.getMessage()).splitlines()]
        for name, value in fields.items():
            text = str(value)
            # In a JSON string a quote, a backslash and a control character are escaped.
            shown = text if _PLAIN.fullmatch(text) else _escaped(json.dumps(text, ensure_ascii=False))
            words.append(f"{name}={shown}")
        line = " ".join(words)
        if record.exc_info:  # lines of a traceback are indented, so that none looks like a line of the log
            trace = self.formatException(record.exc_info)
            line += "".join(f"\n    {_escaped(one)}" for one in trace.splitlines())
        return line


class _JSONFormatter(logging.Formatter):
    """One JSON object in each line: `time`, `level`, `logger`, `message`, and the fields of a request."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
        made = {
            "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info:
            made["traceback"] = self.formatException(record.exc_info)
        return _escaped(json.dumps(made, ensure_ascii=False, default=str))


class LineWriter(logging.Handler):
    """Writes lines to a file descriptor, from a thread of its own.

    Args:
        waiting: lines that may wait; further ones are dropped, and their number is logged when there is room again.
    """

    def __init__(self, descriptor: int, waiting: int = WAITING) -> None:
        super().__init__()
        self._descriptor, self._waiting = descriptor, waiting
        self._lines: deque[bytes] = deque()
        self._there = threading.Condition(threading.Lock())
        self._writing = self._ended = False
        self.dropped = 0
        self._said = 0
        # A daemon thread: a reader that never reads must not keep the process from ending.
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        except Exception:
            self.handleError(record)
            return
        with self._there:
            if len(self._lines) >= self._waiting:
                self.dropped += 1
                return
            if self.dropped > self._said:
                count, self._said = self.dropped - self._said, self.dropped
                note = logging.LogRecord(
                    "chatglm.requests",
                    logging.WARNING,
                    "",
                    0,
                    f"the reader of the log was too slow; lines dropped here: {count}",
                    None,
                    None,
                )
                self._lines.append(self.format(note).encode() + b"\n")
            self._lines.append(line)
            self._there.notify()

    def _write(self) -> None:
        while True:
            with self._there:
                self._writing = False
                while not self._lines:
                    if self._ended:
                        return
                    self._there.notify_all()
                    self._there.wait()
                self._writing = True
                data = b"".join(self._lines)
                self._lines.clear()
            view = memoryview(data)
            while view:
                try:
                    # Without Python's own buffers, whose locks would be held when the process ends.
                    view = view[os.write(self._descriptor, view[:4096]) :]
                except BlockingIOError:
                    time.sleep(0.05)
                except OSError:  # nobody reads it any more, or the disk is full
                    break

    def flush(self, seconds: float = 2.0) -> None:
        """Wait until all is written, but no longer."""
        end = time.monotonic() + seconds
        with self._there:
            while (self._lines or self._writing) and (left := end - time.monotonic()) > 0:
                self._there.wait(min(left, 0.05))

    def close(self) -> None:
        """Write what is left, as far as it is read."""
        self.flush()
        with self._there:
            self._ended = True
            self._there.notify_all()
        super().close()


def configure(style: Literal["text", "json"], descriptor: int = 2) -> LineWriter:
    """Send the server's logs to a file descriptor.

    Returns:
        The handler of the loggers `chatglm`, `uvicorn` and `asyncio`; close it at the end.
    """
    handler = LineWriter(descriptor)
    handler.setFormatter(_JSONFormatter() if style == "json" else _TextFormatter())
    for name in ("chatglm", "uvicorn", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO)
    return handler
