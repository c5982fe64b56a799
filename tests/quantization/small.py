"""Small random models of both architectures and of other families, and ids that they read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from chatglm.models.chatglm import ChatGLMForConditionalGeneration
from chatglm.models.configuration import ChatGLMConfig, GLMConfig
from chatglm.models.glm import GLMForConditionalGeneration

FAMILY = ("chatglm", "chatglm3")
OTHERS = ("glm", "llama", "moss")
VOCABULARY = 160


def draw(model: Any, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.2 if parameter.ndim > 1 else 0.1))
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
    return model.eval()


def small(kind: str, seed: int = 0, **changes: Any) -> Any:
    """A model that is not tied to sizes which fit: 40 columns, 76 rows."""
    if kind == "chatglm3":
        sizes: dict[str, Any] = {
            "num_layers": 2,
            "padded_vocab_size": VOCABULARY,
            "hidden_size": 40,
            "ffn_hidden_size": 38,
            "kv_channels": 8,
            "num_attention_heads": 5,
            "multi_query_attention": True,
            "multi_query_group_num": 1,
            "add_qkv_bias": True,
            "seq_length": 64,
            "eos_token_id": 2,
            "pad_token_id": 0,
            "chatglm_generation": "chatglm3",
        }
        return draw(ChatGLMForConditionalGeneration(ChatGLMConfig(**{**sizes, **changes})), seed)
    if kind == "chatglm":
        sizes = {
            "vocab_size": VOCABULARY,
            "hidden_size": 40,
            "num_layers": 2,
            "num_attention_heads": 2,
            "inner_hidden_size": 76,
            "max_sequence_length": 64,
            "mask_token_id": 150,
            "gmask_token_id": 151,
            "bos_token_id": 154,
            "eos_token_id": 155,
            "pad_token_id": 3,
        }
        model = draw(GLMForConditionalGeneration(GLMConfig(**{**sizes, **changes})), seed)
        model.tie_weights()
        return model
    if kind == "glm":
        from transformers import GlmConfig, GlmForCausalLM

        config = GlmConfig(
            vocab_size=VOCABULARY,
            hidden_size=40,
            intermediate_size=76,
            num_hidden_layers=2,
            num_attention_heads=5,
            num_key_value_heads=1,
            head_dim=8,
            pad_token_id=0,
            **changes,
        )
        return draw(GlmForCausalLM(config), seed)
    if kind == "llama":
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=40,
            intermediate_size=76,
            num_hidden_layers=2,
            num_attention_heads=5,
            num_key_value_heads=5,
            **changes,
        )
        return draw(LlamaForCausalLM(config), seed)
    from transformers import CodeGenConfig, CodeGenForCausalLM  # what MOSS is made of

    config = CodeGenConfig(
        vocab_size=VOCABULARY, n_embd=48, n_layer=2, n_head=4, rotary_dim=4, n_positions=64, **changes
    )
    return draw(CodeGenForCausalLM(config), seed)


def ids_for(kind: str, length: int = 9, seed: int = 1) -> Tensor:
    ids = torch.randint(4, 140, (1, length), generator=torch.Generator().manual_seed(seed))
    if kind == "chatglm":
        ids[0, -2:] = torch.tensor([151, 154])
    return ids


@torch.no_grad()
def logits(model: nn.Module, kind: str, length: int = 9) -> Tensor:
    scores: Tensor = model(input_ids=ids_for(kind, length)).logits
    return scores
