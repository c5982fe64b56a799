"""The routes of Langchain-Chatchat 0.3 and of langchain-ChatGLM 0.1, on request (`--dialect chatchat`)."""

from __future__ import annotations

from chatglm.serving.chatchat.v1 import DIALECT as V1
from chatglm.serving.chatchat.v3 import DIALECT as V3

__all__ = ["V1", "V3"]
