"""Every error that chatglm raises on purpose.

    ChatGLMError
    ├── CheckpointError        a model folder is missing, incomplete, damaged or of an unknown kind
    │   └── TokenizerError     its tokenizer file is missing, damaged or does not fit the model
    ├── ConfigError            a config.json asks for an architecture that no official checkpoint has
    ├── InputError             an argument of a call is wrong: a role, a history, ids without [gMASK] …
    │   ├── ContextError       a prompt is longer than the model's context, or than the caller allows
    │   ├── NotFoundError      a thing with this name does not exist, or belongs to somebody else
    │   ├── RoomError          something is full: a knowledge base, or all that one user may store
    │   └── ToolError          a tool cannot be offered to a model: its function, file or server is wrong
    ├── UnsupportedError       an option that exists elsewhere, but is not supported here
    ├── NumericalError         a model returned NaN or infinity
    ├── BusyError              a conversation is being answered already; wait, or stop that answer
    ├── QueueFullError         as many requests wait for the engine as are allowed; try again later
    ├── EngineError            the engine's internal state is inconsistent: a bug of chatglm, not of the caller
    ├── ServiceError           another server that should answer failed, or cannot be reached
    ├── SandboxError           code of a model cannot be run safely here, or its sandbox failed
    ├── OutputError            a result cannot be written: the disk is full, or writing failed
    └── DependencyError        an optional package that the call needs is not installed

A message says what was wrong, where, and what to do. Each class below the base also derives from a built-in error
(`OSError`, `ValueError`, …), because code written for `transformers` or the official repositories expects that one.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "BusyError",
    "ChatGLMError",
    "CheckpointError",
    "ConfigError",
    "ContextError",
    "DependencyError",
    "EngineError",
    "InputError",
    "NotFoundError",
    "NumericalError",
    "OutputError",
    "QueueFullError",
    "RoomError",
    "SandboxError",
    "ServiceError",
    "TokenizerError",
    "ToolError",
    "UnsupportedError",
]


class ChatGLMError(Exception):
    """Base of all errors here: `except ChatGLMError` catches every error that chatglm raises on purpose.

    Attributes:
        dialogue: if an assistant was calling tools (`run`), the messages that were complete before the error.
    """

    dialogue: tuple[Any, ...] = ()


class CheckpointError(ChatGLMError, OSError):
    """A model folder cannot be loaded; the message names the file."""


class TokenizerError(CheckpointError):
    """A tokenizer file is missing, damaged or does not fit the model beside it."""


class ConfigError(ChatGLMError, ValueError):
    """A configuration describes a model that does not belong to the family."""


class InputError(ChatGLMError, ValueError):
    """An argument is wrong; nothing was changed."""


class ContextError(InputError):
    """A prompt leaves no room for an answer. The message tells its length, and the allowed length.

    Attributes:
        field: name of the field that is too long: `messages` or `prompt`; "" if unknown.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class NotFoundError(InputError):
    """There is no such conversation, turn, file, task, response or knowledge base, or it belongs to somebody else. The
    message is the same in both cases.
    """


class RoomError(InputError):
    """A limit of storage is reached. The message tells the limit, and what to remove."""


class ToolError(InputError):
    """A tool cannot be offered: the message names the function, file, document or server, and what is wrong with it.
    A failed call of a tool by a model raises no error; the model is told."""


class UnsupportedError(ChatGLMError, ValueError):
    """An option is known but not supported. It is refused by name instead of being ignored."""


class NumericalError(ChatGLMError, ArithmeticError):
    """A model's scores contain NaN or infinity, because of its weights or the precision. No token is sampled then."""


class BusyError(ChatGLMError, RuntimeError):
    """The conversation is already being answered, or another program uses its files. Wait for the end, or stop it."""


class QueueFullError(ChatGLMError, RuntimeError):
    """Too many requests are waiting. This request is valid and can be sent again later.

    Attributes:
        retry_after: seconds until the waiting requests will probably have begun.
    """

    retry_after: float = 1.0


class EngineError(ChatGLMError, RuntimeError):
    """The engine's internal state is inconsistent, or its methods were called in a wrong order. This is a bug; the
    message helps to find it.
    """


def typed_error(error: BaseException, what: str) -> ChatGLMError:
    """Convert any exception to an error of this tree, with the exception as its cause.

    Libraries written in Rust raise `PanicException`, which derives from `BaseException` and not from `Exception`.

    Args:
        what: what failed, for the message.

    Raises:
        KeyboardInterrupt, SystemExit, GeneratorExit: these are not failures, and are raised again.
    """
    if isinstance(error, ChatGLMError):
        return error
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
        raise error
    made = EngineError(f"{what}: {type(error).__name__}: {str(error)[:400]}")
    made.__cause__ = error
    return made


class ServiceError(ChatGLMError, ConnectionError):
    """Another server failed. The message has its address and its answer.

    Attributes:
        status: HTTP status of its response; 0: there was no response, or it broke off.
        sent: whether the server got the request; False: the connection was refused, or could not be made in time.
    """

    status: int = 0
    sent: bool = True


class SandboxError(ChatGLMError, RuntimeError):
    """This machine cannot confine a model's code, or a sandbox could not be started; the message names the layer and
    what to install."""


class OutputError(ChatGLMError, OSError):
    """A result cannot be written; the message names the file, the reason, and the free space."""


class DependencyError(ChatGLMError, ImportError):
    """An optional package is needed; the message gives the command that installs it."""
