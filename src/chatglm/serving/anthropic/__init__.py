"""Anthropic's dialect: the Messages API.

A field that would change the answer and is not supported is refused by name.
"""

from chatglm.serving.anthropic.routes import DIALECT

__all__ = ["DIALECT"]
