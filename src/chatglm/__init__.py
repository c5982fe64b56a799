"""ChatGLM-6B, ChatGLM2, ChatGLM3, GLM-4-9B and CharacterGLM on current `transformers` and torch, without remote code.

    from chatglm import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModel.from_pretrained(path).half().cuda().eval()
    response, history = model.chat(tokenizer, "你好", history=[])

or, with an engine that answers many requests at once:

    with chatglm.load(path) as assistant:
        print(assistant.reply("你好").content)

`import chatglm` is fast: names are loaded when they are first used. It also registers this family with the Auto classes
of `transformers`, so that existing code works unchanged.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from chatglm.models.registration import install as _register_models
from chatglm.quantization.registration import install as _register_quantizer

if TYPE_CHECKING:
    from chatglm.assistant import Assistant, RemoteAssistant, load
    from chatglm.chat.messages import Message
    from chatglm.chat.tokenizers import ChatGLM4Tokenizer, ChatGLMTokenizer
    from chatglm.errors import ChatGLMError
    from chatglm.loading import (
        AutoConfig,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )
    from chatglm.models.chatglm import (
        ChatGLMForConditionalGeneration,
        ChatGLMForSequenceClassification,
        ChatGLMModel,
    )
    from chatglm.models.configuration import ChatGLMConfig
    from chatglm.params import SamplingParams

__version__ = "0.2.0"

_HOMES = {
    "Assistant": "chatglm.assistant",
    "AutoConfig": "chatglm.loading",
    "AutoModel": "chatglm.loading",
    "AutoModelForCausalLM": "chatglm.loading",
    "AutoModelForSeq2SeqLM": "chatglm.loading",
    "AutoModelForSequenceClassification": "chatglm.loading",
    "AutoTokenizer": "chatglm.loading",
    "ChatGLM4Tokenizer": "chatglm.chat.tokenizers",
    "ChatGLMConfig": "chatglm.models.configuration",
    "ChatGLMError": "chatglm.errors",
    "ChatGLMForConditionalGeneration": "chatglm.models.chatglm",
    "ChatGLMForSequenceClassification": "chatglm.models.chatglm",
    "ChatGLMModel": "chatglm.models.chatglm",
    "ChatGLMTokenizer": "chatglm.chat.tokenizers",
    "Message": "chatglm.chat.messages",
    "RemoteAssistant": "chatglm.assistant",
    "SamplingParams": "chatglm.params",
    "load": "chatglm.assistant",
}

__all__ = [
    "Assistant",
    "AutoConfig",
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForSeq2SeqLM",
    "AutoModelForSequenceClassification",
    "AutoTokenizer",
    "ChatGLM4Tokenizer",
    "ChatGLMConfig",
    "ChatGLMError",
    "ChatGLMForConditionalGeneration",
    "ChatGLMForSequenceClassification",
    "ChatGLMModel",
    "ChatGLMTokenizer",
    "Message",
    "RemoteAssistant",
    "SamplingParams",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'chatglm' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


_register_models()
_register_quantizer()
