"""Failures of requests, as a status and a message, before a dialect puts them into its own shape."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from chatglm.errors import (
    BusyError,
    ChatGLMError,
    ContextError,
    InputError,
    NotFoundError,
    OutputError,
    QueueFullError,
    RoomError,
    ServiceError,
    UnsupportedError,
)
from chatglm.serving.bodies import BodyError
from chatglm.serving.validation import problem_of

__all__ = [
    "FAILURE",
    "AuthenticationError",
    "Failure",
    "ForbiddenError",
    "ModelLoadError",
    "NotOfferedError",
    "OverloadedError",
    "PreviousResponseError",
    "RateLimitError",
    "ShuttingDownError",
    "TimeLimitError",
    "UnknownModelError",
    "failure_of",
]

FAILURE = "chatglm.failure"
"""Key of `scope["state"]`: what went wrong with the request, in whatever shape the dialect shows it."""


@dataclass(frozen=True)
class Failure:
    """What went wrong, before a dialect puts it into its own shape.

    Attributes:
        kind: `invalid_request_error`, `authentication_error`, `permission_error`, `rate_limit_error` or `server_error`,
            as OpenAI and Anthropic name them.
        param: the field of the request at fault, if one is.
        code: a word for programs.
        retry_after: seconds after which the client may try again, if a limit was reached.
        close: whether the connection ends, because the rest of the request is not read or the server is stopping.
    """

    status: int
    message: str
    kind: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    retry_after: float | None = None
    close: bool = False

    @property
    def headers(self) -> dict[str, str]:
        made = {} if self.retry_after is None else {"Retry-After": str(max(1, math.ceil(self.retry_after)))}
        if self.status == 401:
            made["WWW-Authenticate"] = "Bearer"
        return {**made, "Connection": "close"} if self.close else made


class UnknownModelError(InputError):
    """No model of that name is served."""


class AuthenticationError(ChatGLMError):
    """A request has no API key, or a wrong one.

    Attributes:
        code: `missing_api_key`, `invalid_api_key` or `expired_api_key` (also of tokens).
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class ForbiddenError(ChatGLMError):
    """The caller may not do this: the API key has not the right, or the request comes from where it must not come from.

    Attributes:
        param: the field that names what it may not use, if one does.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class NotOfferedError(ChatGLMError):
    """A route or option of the dialect that this server does not have."""


class RateLimitError(ChatGLMError):
    """The API key has used up one of its limits for now.

    Attributes:
        retry_after: seconds until a request has room again.
        code: `rate_limit_exceeded` or `concurrency_limit`.
    """

    def __init__(self, message: str, retry_after: float, code: str = "rate_limit_exceeded") -> None:
        super().__init__(message)
        self.retry_after, self.code = retry_after, code


class ModelLoadError(ChatGLMError):
    """A model is not loaded, and cannot be now; the message says why.

    Attributes:
        retry_after: seconds after which it is tried again.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ShuttingDownError(ChatGLMError):
    """The server is stopping, and this request ends with it."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down; send the request again in a moment")


class OverloadedError(ChatGLMError):
    """The server has reached its limit of connections."""

    def __init__(self) -> None:
        super().__init__("the server has too many connections; send the request again in a moment")


class TimeLimitError(ChatGLMError):
    """A request has reached its limit of time."""

    def __init__(self) -> None:
        super().__init__("the request took longer than this server allows (`chatglm serve --timeout`); ask for less")


class PreviousResponseError(InputError):
    """A response that is to be continued does not exist, or belongs to another key."""

    def __init__(self, name: str) -> None:
        super().__init__(f"previous_response_id: Previous response with id {name!r:.100} not found.")


def failure_of(error: Exception) -> Failure:
    """Every error that a route may raise, as its status and words."""
    match error:
        case RequestValidationError():
            problem = problem_of(error.errors()[0])
            return Failure(400, problem.message, param=problem.field or None, code=problem.code)
        case BodyError():
            unread = error.status != 400
            return Failure(error.status, str(error), param=error.param, code=error.code, close=unread)
        case ModelLoadError():
            return Failure(503, str(error), "server_error", code="model_not_loaded", retry_after=error.retry_after)
        case ShuttingDownError():
            return Failure(503, str(error), "server_error", code="shutting_down", retry_after=5, close=True)
        case OverloadedError():
            return Failure(503, str(error), "server_error", code="overloaded", retry_after=1, close=True)
        case AuthenticationError():
            return Failure(401, str(error), "authentication_error", code=error.code)
        case ForbiddenError():
            return Failure(403, str(error), "permission_error", param=error.param, code="permission_denied")
        case NotOfferedError():
            return Failure(501, str(error), code="not_offered")
        case RateLimitError():
            return Failure(429, str(error), "rate_limit_error", code=error.code, retry_after=error.retry_after)
        case TimeLimitError():
            return Failure(504, str(error), "server_error", code="timeout")
        case HTTPException():
            return Failure(error.status_code, str(error.detail), code=_word(error.status_code))
        case UnknownModelError():
            return Failure(404, str(error), param="model", code="model_not_found")
        case PreviousResponseError():
            return Failure(400, str(error), param="previous_response_id", code="previous_response_not_found")
        case RoomError():
            return Failure(413, str(error), param=_field(str(error)), code="too_large")
        case NotFoundError():
            return Failure(404, str(error), param=_field(str(error)), code="not_found")
        case ContextError():
            return Failure(400, str(error), param=error.field or None, code="context_length_exceeded")
        case UnsupportedError():
            return Failure(400, str(error), param=_field(str(error)), code="unsupported")
        case InputError():
            return Failure(400, str(error), param=_field(str(error)), code="invalid_value")
        case BusyError():
            return Failure(409, str(error), code="busy")
        case QueueFullError():
            return Failure(429, str(error), "rate_limit_error", code="queue_full", retry_after=error.retry_after)
        case ServiceError():
            return Failure(502, str(error), "server_error", code="upstream")
        case OutputError():
            return Failure(500, str(error), "server_error", code="storage")
        case ChatGLMError():
            return Failure(500, str(error), "server_error", code="engine")
    return Failure(500, "an error within the server; its log has more", "server_error", code="internal")


def _word(status: int) -> str:
    return {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(status, "bad_request")


def _field(message: str) -> str | None:
    """The field that a message is about: messages of this package begin with it."""
    found = re.match(r"'?([a-z_]+[\w.\[\]]*)'?(?=:| is | has )", message)
    return found[1] if found else None
