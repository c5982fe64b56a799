"""Facts about a request, for its log line and for the metrics."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable
from contextvars import ContextVar

__all__ = ["LONGEST_TEXT", "REQUEST_ID", "Record", "current", "enter"]

REQUEST_ID = "x-request-id"
"""Header with the id of a request: the client's, if it has only plain characters; it is returned."""

LONGEST_TEXT = 2000
"""Characters of a request and of its answer that are kept for the log, if it has texts."""

_SANE = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class Record:
    """One request.

    Attributes:
        id: the request's.
        began: `time.perf_counter()` when it came.
        dialect, route: of the route that answered; a route is a pattern such as `/v1/models/{name}`.
        key: name of the API key; "" without.
        model: the model that was asked; "" if there is none.
        prompt_tokens, cached_tokens, completion_tokens: of all its answers; of one that broke off, as far as they are
            known.
        first: seconds to the first delta of an answer; None: there was none.
        ended: "broken off" or "failed" if not all answers are whole.
        body: bytes of the request's body.
        deadline: when it must have ended, by the clock of `began`; None: no limit.
        asked, answered: texts, if they are kept.
    """

    __slots__ = (
        "answered",
        "asked",
        "began",
        "body",
        "cached_tokens",
        "completion_tokens",
        "deadline",
        "dialect",
        "ended",
        "first",
        "id",
        "key",
        "model",
        "prompt_tokens",
        "route",
    )

    def __init__(self, request_id: str = "", texts: bool = False) -> None:
        self.id, self.began = request_id, time.perf_counter()
        self.dialect = self.route = self.key = self.model = self.ended = ""
        self.prompt_tokens = self.cached_tokens = self.completion_tokens = self.body = 0
        self.first: float | None = None
        self.deadline: float | None = None
        self.asked: str | None = "" if texts else None
        self.answered: str | None = "" if texts else None

    @property
    def left(self) -> float | None:
        """Seconds to the deadline; None if there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - time.perf_counter())


_CURRENT: ContextVar[Record | None] = ContextVar("record", default=None)


def _new_id() -> str:
    return f"req_{secrets.token_hex(12)}"


def current() -> Record:
    """The record of the current request; outside of requests, a record that nobody reads."""
    return _CURRENT.get() or Record(_new_id())


def enter(headers: Iterable[tuple[bytes, bytes]], texts: bool) -> Record:
    """Begin the record of a request, and make it the current one of this task.

    Args:
        headers: names in lower case.
        texts: whether to keep what was asked and answered.
    """
    given = next((value for name, value in headers if name == b"x-request-id"), b"")
    record = Record(given.decode() if _SANE.fullmatch(given) else _new_id(), texts)
    _CURRENT.set(record)
    return record
