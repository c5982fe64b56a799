"""The tiny random models that the recorded outputs belong to, drawn again from their seeds.

The order of the draws and their spreads are part of the record: change nothing here.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


class Draw:
    """One seeded stream of normal numbers."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, std: float) -> Tensor:
        return torch.randn(*shape, generator=self._generator) * std

    def linear(self, rows: int, columns: int, gain: float) -> Tensor:
        return self.normal(rows, columns, std=gain / math.sqrt(columns))


def chatglm(config: dict[str, Any], draw: Draw) -> Iterator[tuple[str, Tensor]]:
    """ChatGLM-6B's names; the head's last rows, which no token has, are zero."""
    hidden, inner, vocabulary = config["hidden_size"], config["inner_hidden_size"], config["vocab_size"]
    yield "transformer.word_embeddings.weight", draw.normal(vocabulary, hidden, std=0.3)
    for layer in range(config["num_layers"]):
        at = f"transformer.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{at}{name}.weight", 1 + draw.normal(hidden, std=0.15)
            yield f"{at}{name}.bias", draw.normal(hidden, std=0.1)
        for name, rows, columns, gain, bias in (
            ("attention.query_key_value", 3 * hidden, hidden, 2.0, 0.3),
            ("attention.dense", hidden, hidden, 6.0, 0.1),
            ("mlp.dense_h_to_4h", inner, hidden, 1.5, 0.1),
            ("mlp.dense_4h_to_h", hidden, inner, 5.0, 0.1),
        ):
            yield f"{at}{name}.weight", draw.linear(rows, columns, gain)
            yield f"{at}{name}.bias", draw.normal(rows, std=bias)
    yield "transformer.final_layernorm.weight", 1 + draw.normal(hidden, std=0.15)
    yield "transformer.final_layernorm.bias", draw.normal(hidden, std=0.1)
    head = draw.normal(vocabulary, hidden, std=0.5)
    head[130344:] = 0
    head[:20] *= 0.5
    yield "lm_head.weight", head


def chatglm2(config: dict[str, Any], draw: Draw, vocabulary: int) -> Iterator[tuple[str, Tensor]]:
    """The names of ChatGLM2, ChatGLM3 and GLM-4."""
    hidden, ffn, rows = config["hidden_size"], config["ffn_hidden_size"], config["padded_vocab_size"]
    inner = config["num_attention_heads"] * config["kv_channels"]
    qkv = inner + 2 * config["multi_query_group_num"] * config["kv_channels"]
    yield "transformer.embedding.word_embeddings.weight", draw.normal(rows, hidden, std=0.3)
    for layer in range(config["num_layers"]):
        at = f"transformer.encoder.layers.{layer}."
        yield f"{at}input_layernorm.weight", 1 + draw.normal(hidden, std=0.15)
        yield f"{at}self_attention.query_key_value.weight", draw.linear(qkv, hidden, 2.0)
        yield f"{at}self_attention.query_key_value.bias", draw.normal(qkv, std=0.3)
        yield f"{at}self_attention.dense.weight", draw.linear(hidden, inner, 1.0)
        yield f"{at}post_attention_layernorm.weight", 1 + draw.normal(hidden, std=0.15)
        yield f"{at}mlp.dense_h_to_4h.weight", draw.linear(2 * ffn, hidden, 1.5)
        yield f"{at}mlp.dense_4h_to_h.weight", draw.linear(hidden, ffn, 1.0)
    yield "transformer.encoder.final_layernorm.weight", 1 + draw.normal(hidden, std=0.15)
    head = draw.normal(rows, hidden, std=0.5)
    head[vocabulary:] = 0
    yield "transformer.output_layer.weight", head


def state(record: dict[str, Any]) -> dict[str, Tensor]:
    """All weights of a recorded model, in the precision that they were stored in."""
    draw, config = Draw(record["seed"]), record["config"]
    made = chatglm(config, draw) if "inner_hidden_size" in config else chatglm2(config, draw, record["real_vocab"])
    return {name: tensor.to(getattr(torch, record["dtype"])) for name, tensor in made}


def digest(weights: dict[str, Tensor]) -> str:
    """Tells whether this torch draws the numbers that the record was made with."""
    total = hashlib.sha256()
    for name in sorted(weights):
        total.update(weights[name].contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:16]
