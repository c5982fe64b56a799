"""Names and sizes of a decoder's parts in official checkpoints, computed from the configuration.

The modules of the models have these names and sizes; `BareModel` is built from them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from chatglm.kernels.decoder import Shape
from chatglm.models.configuration import ChatGLMConfig, GLMConfig
from chatglm.models.positions import rotary_angles, two_row_positions

__all__ = ["ALPHA", "BlockNames", "DecoderMixin", "Layout", "Matrix", "layout_of"]

ALPHA = math.sqrt(2 * 28)
"""Factor of ChatGLM-6B's residual branches, for any number of layers."""


@dataclass(frozen=True)
class Matrix:
    """A linear layer or an embedding table: the name of its module, and its size."""

    name: str
    rows: int
    columns: int
    bias: bool = False


@dataclass(frozen=True)
class BlockNames:
    """The parts of one layer, in the order of `kernels.decoder.Block`. Norms are names of modules."""

    norm1: str
    qkv: Matrix
    dense: Matrix
    norm2: str
    up: Matrix
    down: Matrix


@dataclass(frozen=True)
class Layout:
    """The parts of a decoder.

    Attributes:
        shape: sizes that the weights do not show.
        embedding: the input embedding.
        head: the output head; it shares its weight with the embedding if the configuration ties them.
        norm_bias: whether norms have a bias (LayerNorm) or not (RMSNorm).
    """

    shape: Shape
    embedding: Matrix
    blocks: tuple[BlockNames, ...]
    final_norm: str
    head: Matrix
    norm_bias: bool


def layout_of(config: ChatGLMConfig | GLMConfig) -> Layout:
    return _of_chatglm_6b(config) if isinstance(config, GLMConfig) else _of_the_others(config)


class DecoderMixin:
    """Methods for the native decoder and the engine, for a model with the layout of its configuration."""

    config: Any
    get_submodule: Any

    @property
    def is_causal_decoder(self) -> bool:
        """Whether every token attends only to those before it, also in prompts."""
        return not isinstance(self.config, GLMConfig)

    def decoder_parts(self) -> tuple[Shape, list[Any], nn.Module, nn.Module]:
        """The parts for the native decoder: shape, blocks as (norm1, qkv, dense, norm2, up, down), final norm, head."""
        layout, get = layout_of(self.config), self.get_submodule
        blocks = [
            (get(b.norm1), get(b.qkv.name), get(b.dense.name), get(b.norm2), get(b.up.name), get(b.down.name))
            for b in layout.blocks
        ]
        return layout.shape, blocks, get(layout.final_norm), get(layout.head.name)

    def rotary_angles(self, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of positions, each float32 (B, S, angles)."""
        return rotary_angles(position_ids, self.config)

    def positions_of(self, input_ids: Tensor) -> Tensor:
        """Positions of ids (B, S) in new sequences: (B, S); for ChatGLM-6B both positions, (B, 2, S)."""
        if isinstance(self.config, GLMConfig):
            return two_row_positions(input_ids, self.config)
        return torch.arange(input_ids.shape[1], device=input_ids.device).expand(input_ids.shape)


def _blocks(
    shape: Shape, hidden: int, count: int, layers: str, attention: str, *, bias: bool, qkv_bias: bool
) -> tuple[BlockNames, ...]:
    """The names and sizes of `count` layers.

    Args:
        layers: name of the module that holds them.
        attention: name of the attention in each layer.
        bias: whether linear layers other than qkv have a bias.
        qkv_bias: whether qkv has a bias.
    """
    width, gates = shape.heads * shape.channels, 2 if shape.gated else 1

    def block(number: int) -> BlockNames:
        at = f"{layers}.{number}"
        qkv_rows = width + 2 * shape.groups * shape.channels
        return BlockNames(
            f"{at}.input_layernorm",
            Matrix(f"{at}.{attention}.query_key_value", qkv_rows, hidden, qkv_bias),
            Matrix(f"{at}.{attention}.dense", hidden, width, bias),
            f"{at}.post_attention_layernorm",
            Matrix(f"{at}.mlp.dense_h_to_4h", gates * shape.inner, hidden, bias),
            Matrix(f"{at}.mlp.dense_4h_to_h", hidden, shape.inner, bias),
        )

    return tuple(map(block, range(count)))


def _of_the_others(config: ChatGLMConfig) -> Layout:
    hidden, width, bias = config.hidden_size, config.kv_channels, config.add_bias_linear
    heads, layers = config.num_attention_heads, "transformer.encoder.layers"
    shape = Shape(
        heads=heads,
        groups=config.multi_query_group_num if config.multi_query_attention else heads,
        channels=width,
        inner=config.ffn_hidden_size,
        eps=config.layernorm_epsilon,
        pairs=tuple((2 * i, 2 * i + 1) for i in range(width // 4)),
        interleaved=not config.multi_query_attention,
    )
    qkv_bias = bias or config.add_qkv_bias
    return Layout(
        shape,
        Matrix("transformer.embedding.word_embeddings", config.padded_vocab_size, hidden),
        _blocks(shape, hidden, config.num_layers, layers, "self_attention", bias=bias, qkv_bias=qkv_bias),
        "transformer.encoder.final_layernorm",
        Matrix("transformer.output_layer", config.padded_vocab_size, hidden, bias),
        norm_bias=False,
    )


def _of_chatglm_6b(config: GLMConfig) -> Layout:
    hidden, heads, layers = config.hidden_size, config.num_attention_heads, "transformer.layers"
    width = hidden // heads
    half, quarter = width // 2, width // 4
    shape = Shape(
        heads=heads,
        groups=heads,
        channels=width,
        inner=config.inner_hidden_size,
        eps=config.layernorm_epsilon,
        pairs=tuple((start + i, start + quarter + i) for start in (0, half) for i in range(quarter)),
        gated=False,
        interleaved=True,
        alpha=ALPHA,
    )
    return Layout(
        shape,
        Matrix("transformer.word_embeddings", config.vocab_size, hidden),
        _blocks(shape, hidden, config.num_layers, layers, "attention", bias=True, qkv_bias=True),
        "transformer.final_layernorm",
        Matrix("lm_head", config.vocab_size, hidden),
        norm_bias=True,
    )
