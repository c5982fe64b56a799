"""OpenAI's dialect, with vLLM's names for the options that OpenAI does not have.

A field that would change the answer and is not supported is refused by name.
"""

from chatglm.serving.openai.routes import DIALECT

__all__ = ["DIALECT"]
