"""Every error that chatglm raises on purpose.

    ChatGLMError
    ├── CheckpointError        a model folder is missing, incomplete, damaged or of an unknown kind
    │   └── TokenizerError     its tokenizer file is missing, damaged or does not fit the model
    ├── ConfigError            a config.json asks for an architecture that no official checkpoint has
    ├── InputError             an argument of a call is wrong: a role, a history, ids without [gMASK] …
    │   ├── ContextError       a prompt is longer than the model's context, or than the caller allows
    │   ├── NotFoundError      what is named does not exist, or is somebody else's
    │   └── ToolError          a tool that a model was to have cannot be had: its function, file or server is wrong
    ├── UnsupportedError       an option that exists elsewhere and is not honoured here
    ├── NumericalError         a model returned NaN or infinity
    ├── BusyError              a conversation is being answered already; wait, or stop that answer
    ├── QueueFullError         the engine has as many requests waiting as it may have; try again later
    ├── EngineError            the engine's books contradict themselves: a fault of chatglm's, not of the caller's
    ├── ServiceError           another server, which was asked for an answer, failed or cannot be reached
    ├── SandboxError           code of a model cannot be run safely here, or its sandbox failed
    ├── OutputError            a result cannot be written: the disk is full, or cannot be written at all
    └── DependencyError        an optional package that the call needs is not installed

A message says what was wrong, where, and what to do. The classes also derive from the built-in error that code
written against `transformers` or the official repositories expects (`OSError`, `ValueError`, …).
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
    "SandboxError",
    "ServiceError",
    "TokenizerError",
    "ToolError",
    "UnsupportedError",
]


class ChatGLMError(Exception):
    """Base of the tree: `except ChatGLMError` catches whatever chatglm refuses.

    Attributes:
        dialogue: where an assistant was calling tools (`run`), the messages that were whole before it went wrong.
    """

    dialogue: tuple[Any, ...] = ()


class CheckpointError(ChatGLMError, OSError):
    """A model folder cannot be loaded; the message names the file."""


class TokenizerError(CheckpointError):
    """A tokenizer file is missing, damaged or does not fit the model beside it."""


class ConfigError(ChatGLMError, ValueError):
    """A configuration describes a model that is not one of the family."""


class InputError(ChatGLMError, ValueError):
    """An argument is wrong; nothing was changed."""


class ContextError(InputError):
    """A prompt leaves no room for an answer; the message says how long it is, and how long it may be.

    Attributes:
        field: what is too long: `messages` or `prompt`; "" if it is not known.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class NotFoundError(InputError):
    """There is no such conversation, turn, file, task, response or base of documents, or it is somebody else's: nobody
    is told which."""


class ToolError(InputError):
    """A tool cannot be offered: the message names the function, file, document or server, and what is wrong with it.
    What goes wrong when a model calls a tool is no error: the model is told."""


class UnsupportedError(ChatGLMError, ValueError):
    """An option is recognised and refused by name, rather than ignored."""


class NumericalError(ChatGLMError, ArithmeticError):
    """A model's scores hold NaN or infinity: weights or precision are at fault, and no token is drawn from them."""


class BusyError(ChatGLMError, RuntimeError):
    """A conversation has one answer at a time, and its Python one program at a time, and another is under way: wait for
    its end, or stop it."""


class QueueFullError(ChatGLMError, RuntimeError):
    """Too many requests are waiting; nothing is wrong with this one, and it may be sent again later.

    Attributes:
        retry_after: seconds until those that wait now will probably have begun.
    """

    retry_after: float = 1.0


class EngineError(ChatGLMError, RuntimeError):
    """The engine found its own books wrong, or was called out of order: a bug, which the message helps to find."""


def typed_error(error: BaseException, what: str) -> ChatGLMError:
    """Whatever was raised, as an error of this tree, with its cause.

    Libraries written in Rust raise `PanicException`, which is a `BaseException` and no `Exception`.

    Args:
        what: failed, for the message.

    Raises:
        KeyboardInterrupt, SystemExit, GeneratorExit: these are no failures, and go on.
    """
    if isinstance(error, ChatGLMError):
        return error
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
        raise error
    made = EngineError(f"{what}: {type(error).__name__}: {str(error)[:400]}")
    made.__cause__ = error
    return made


class ServiceError(ChatGLMError, ConnectionError):
    """Another server failed: the message has its address and what it said.

    Attributes:
        status: of its response; 0: there was none, or the answer broke off.
        sent: whether it got the request; False: the connection was refused or could not be made in time.
    """

    status: int = 0
    sent: bool = True


class SandboxError(ChatGLMError, RuntimeError):
    """This machine cannot confine a model's code, or a sandbox could not be started; the message names the layer and
    what to install."""


class OutputError(ChatGLMError, OSError):
    """A result cannot be written; the message names the file, the reason, and how much room there is."""


class DependencyError(ChatGLMError, ImportError):
    """An optional package is needed; the message gives the command that installs it."""
