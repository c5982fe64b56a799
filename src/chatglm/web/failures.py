"""Failures of requests of the page: a status, a code for programs and a message for people."""

from __future__ import annotations

import math
from dataclasses import dataclass

from starlette.exceptions import HTTPException

from chatglm.conversation.users import SignInError
from chatglm.errors import (
    BusyError,
    ChatGLMError,
    InputError,
    NotFoundError,
    QueueFullError,
    RoomError,
    ServiceError,
    UnsupportedError,
)
from chatglm.web.words import Words

__all__ = ["BodyError", "Failure", "ForbiddenError", "LimitError", "SignInNeededError", "failure_of"]


class SignInNeededError(ChatGLMError):
    """Nobody has signed in."""

    def __init__(self) -> None:
        super().__init__("nobody has signed in")


class ForbiddenError(ChatGLMError):
    """The request comes from a host name or page that is not allowed."""


class LimitError(ChatGLMError):
    """There were too many requests of a kind.

    Attributes:
        retry_after: seconds until another one is taken.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"too many tries; try again in {math.ceil(retry_after)} s")
        self.retry_after = retry_after


class BodyError(InputError):
    """A body is too large or too slow.

    Attributes:
        status: of the response.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Failure:
    """
    Attributes:
        code: a word for programs; `error.CODE` is the key of its message.
        detail: in English; "" if there is nothing more to say.
    """

    status: int
    code: str
    detail: str = ""
    retry_after: float | None = None

    def message(self, t: Words) -> str:
        """One line for people."""
        words = t(f"error.{self.code}")
        if not self.detail:
            return words
        said = t.said(self.detail)
        return said if t.language == "en" or said != self.detail else f"{words}：{said}"

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(max(1, math.ceil(self.retry_after)))}


def failure_of(error: Exception) -> Failure:
    """Every error that a route may raise."""
    said = str(error)
    match error:
        case HTTPException():
            code = {404: "not_found", 405: "method", 413: "too_large"}.get(error.status_code, "invalid")
            return Failure(error.status_code, code)
        case SignInNeededError():
            return Failure(401, "unauthorized")
        case ForbiddenError():
            return Failure(403, "forbidden", said)
        case LimitError():
            return Failure(429, "limit", said, error.retry_after)
        case BodyError():
            return Failure(error.status, {413: "too_large", 408: "timeout"}.get(error.status, "invalid"), said)
        case SignInError():
            return Failure(403, "wrong_password")
        case RoomError():
            return Failure(413, "too_large", said)
        case NotFoundError():
            return Failure(404, "not_found", said)
        case InputError() | UnsupportedError():
            return Failure(400, "invalid", said)
        case QueueFullError():
            return Failure(429, "limit", said, error.retry_after)
        case ServiceError():
            return Failure(502, "service", said)
        case BusyError():
            return Failure(409, "busy", said)
        case ChatGLMError():
            return Failure(500, "internal", said)
    return Failure(500, "internal")
