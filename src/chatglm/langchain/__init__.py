"""ChatGLM in LangChain: chat models, completions, embeddings, rerankers, retrievers, and chains that stream.

    from chatglm.langchain import ChatChatGLM

    model = ChatChatGLM(model="/models/chatglm3-6b")     # or base_url="http://host:8000/v1"; default: the demo model
    for chunk in model.stream("你好"):
        print(chunk.content, end="")

It needs the extra `langchain`: pip install 'chatglm[langchain]'.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from chatglm.errors import DependencyError

if TYPE_CHECKING:
    from chatglm.langchain.chat import ChatChatGLM
    from chatglm.langchain.completion import ChatGLM
    from chatglm.langchain.documents import ChatGLMEmbeddings, ChatGLMReranker
    from chatglm.langchain.knowledge import KnowledgeRetriever, KnowledgeStore
    from chatglm.langchain.streams import astream_predict, astream_summary, stream_predict, stream_summary
    from chatglm.langchain.structured import ChatGLM3
    from chatglm.langchain.tools import langchain_tools

_HOMES = {
    "ChatChatGLM": "chat",
    "ChatGLM": "completion",
    "ChatGLM3": "structured",
    "ChatGLMEmbeddings": "documents",
    "ChatGLMReranker": "documents",
    "KnowledgeRetriever": "knowledge",
    "KnowledgeStore": "knowledge",
    "astream_predict": "streams",
    "astream_summary": "streams",
    "langchain_tools": "tools",
    "stream_predict": "streams",
    "stream_summary": "streams",
}

__all__ = [
    "ChatChatGLM",
    "ChatGLM",
    "ChatGLM3",
    "ChatGLMEmbeddings",
    "ChatGLMReranker",
    "KnowledgeRetriever",
    "KnowledgeStore",
    "astream_predict",
    "astream_summary",
    "langchain_tools",
    "stream_predict",
    "stream_summary",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        importlib.import_module("langchain_core")
    except ImportError as error:
        raise DependencyError("chatglm.langchain needs langchain-core: pip install 'chatglm[langchain]'") from error
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
