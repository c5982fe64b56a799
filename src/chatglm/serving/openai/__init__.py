"""OpenAI's dialect, with vLLM's names for the options that OpenAI does not have.

A field that would change the answer and is not supported is refused by name.
"""

from chatglm.serving.openai.events import render
from chatglm.serving.openai.routes import router

__all__ = ["render", "router"]
