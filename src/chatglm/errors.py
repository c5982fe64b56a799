"""Every error that chatglm raises on purpose.

    ChatGLMError
    ├── CheckpointError        a model folder is missing, incomplete, damaged or of an unknown kind
    │   └── TokenizerError     its tokenizer file is missing, damaged or does not fit the model
    ├── ConfigError            a config.json asks for an architecture that no official checkpoint has
    ├── InputError             an argument of a call is wrong: a role, a history, ids without [gMASK] …
    ├── UnsupportedError       an option that exists elsewhere and is not honoured here
    ├── NumericalError         a model returned NaN or infinity
    └── DependencyError        an optional package that the call needs is not installed

A message says what was wrong, where, and what to do. The classes also derive from the built-in error that code
written against `transformers` or the official repositories expects (`OSError`, `ValueError`, …).
"""

from __future__ import annotations

__all__ = [
    "ChatGLMError",
    "CheckpointError",
    "ConfigError",
    "DependencyError",
    "InputError",
    "NumericalError",
    "TokenizerError",
    "UnsupportedError",
]


class ChatGLMError(Exception):
    """Base of the tree: `except ChatGLMError` catches whatever chatglm refuses."""


class CheckpointError(ChatGLMError, OSError):
    """A model folder cannot be loaded; the message names the file."""


class TokenizerError(CheckpointError):
    """A tokenizer file is missing, damaged or does not fit the model beside it."""


class ConfigError(ChatGLMError, ValueError):
    """A configuration describes a model that is not one of the family."""


class InputError(ChatGLMError, ValueError):
    """An argument is wrong; nothing was changed."""


class UnsupportedError(ChatGLMError, ValueError):
    """An option is recognised and refused by name, rather than ignored."""


class NumericalError(ChatGLMError, ArithmeticError):
    """A model's scores hold NaN or infinity: weights or precision are at fault, and no token is drawn from them."""


class DependencyError(ChatGLMError, ImportError):
    """An optional package is needed; the message gives the command that installs it."""
