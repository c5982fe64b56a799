"""Tiny random models of any size, made without a checkpoint, for the laws."""

from __future__ import annotations

from typing import Any

import torch

from chatglm.models.chatglm import ChatGLMForConditionalGeneration
from chatglm.models.configuration import ChatGLMConfig, GLMConfig
from chatglm.models.glm import GLMForConditionalGeneration

VOCABULARY = 160


def chatglm_config(**changes: Any) -> ChatGLMConfig:
    sizes = {
        "num_layers": 2,
        "padded_vocab_size": VOCABULARY,
        "hidden_size": 32,
        "ffn_hidden_size": 48,
        "kv_channels": 8,
        "num_attention_heads": 4,
        "multi_query_attention": True,
        "multi_query_group_num": 2,
        "add_qkv_bias": True,
        "seq_length": 64,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "chatglm_generation": "chatglm3",
    }
    return ChatGLMConfig(**{**sizes, **changes})


def glm_config(**changes: Any) -> GLMConfig:
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_layers": 2,
        "num_attention_heads": 2,
        "inner_hidden_size": 64,
        "max_sequence_length": 64,
        "mask_token_id": 150,
        "gmask_token_id": 151,
        "bos_token_id": 154,
        "eos_token_id": 155,
        "pad_token_id": 3,
    }
    return GLMConfig(**{**sizes, **changes})


def draw(model: Any, seed: int = 0) -> Any:
    """Weights large enough that attention and every bias matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.5 if parameter.ndim > 1 else 0.3))
            if "layernorm.weight" in name:
                parameter.add_(1)
    return model.eval()


def chatglm_model(seed: int = 0, **changes: Any) -> ChatGLMForConditionalGeneration:
    return draw(ChatGLMForConditionalGeneration(chatglm_config(**changes)), seed)


def glm_model(seed: int = 0, **changes: Any) -> GLMForConditionalGeneration:
    return draw(GLMForConditionalGeneration(glm_config(**changes)), seed)


def glm_prompt(context: list[int], generated: list[int] = []) -> list[int]:  # noqa: B006
    return [*context, 151, 154, *generated]


def any_model(kind: str, **changes: Any) -> Any:
    return glm_model(**changes) if kind == "glm" else chatglm_model(**changes)


def prompt_ids(kind: str, length: int = 9, seed: int = 1) -> torch.Tensor:
    """One prompt, (1, length), valid for the kind of model."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, 140, (1, length), generator=generator)
    if kind == "glm":
        ids[0, -2:] = torch.tensor([151, 154])
    return ids
