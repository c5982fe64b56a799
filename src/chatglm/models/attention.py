"""The reference implementation of attention, and masks that `transformers` does not make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from chatglm.errors import UnsupportedError

__all__ = ["eager_attention", "one_token_attention", "packed_examples", "show_everything_to_padding"]

MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(batch, head, query, key) indices → whether the query sees the key; as in `transformers.masking_utils`."""


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Softmax attention in plain torch, with scores in float32. It is the reference, and also returns the weights.

    Args:
        query: (B, N, S, D). key, value: (B, G, T, D), each serving N / G query heads.
        attention_mask: (B, 1, S, T or more), added to the scores.

    Returns:
        context (B, S, N, D) and weights (B, N, S, T).
    """
    groups, keys = key.shape[1], key.shape[2]
    grouped = query.unflatten(1, (groups, -1))  # (B, G, N/G, S, D): heads that share a key are neighbours
    # In half precision, products overflow (float16) or lose their differences (bfloat16).
    scores = torch.matmul(grouped.float() * scaling, key[:, :, None].float().transpose(-1, -2))
    if attention_mask is not None:
        scores = scores + attention_mask[:, :, None, :, :keys]
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    context = torch.matmul(weights, value[:, :, None]).flatten(1, 2)
    return context.transpose(1, 2).contiguous(), weights.flatten(1, 2)


def one_token_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """SDPA for one new token. Heads that share a key become rows of one product, so keys are not copied for each head.

    Args:
        query: (B, N, 1, D). key, value: (B, G, T, D), each serving N / G query heads.
        mask: (B, 1, 1, T or more): floats that are added to the scores, or booleans that are False for masked keys.

    Returns:
        context (B, 1, N, D).
    """
    rows = query.unflatten(1, (key.shape[1], -1)).squeeze(3)
    seen = mask[..., : key.shape[2]].expand(-1, -1, rows.shape[2], -1)
    context = nn.functional.scaled_dot_product_attention(rows, key, value, attn_mask=seen, scale=scaling)
    return context.flatten(1, 2)[:, None]


def show_everything_to_padding(mask: Any, padding: Any, queries: int) -> Any:
    """Let padding tokens attend to every column, as in the official code. Their outputs are not used.

    In some attention kernels, a row without any visible column would be NaN, and NaN spreads through a batched matrix
    product.

    Args:
        mask: 4-d mask made by `transformers` for the implementation in use; anything else is returned unchanged.
        padding: (B, T) with zero for padding, or None.
        queries: number of new tokens, which are the last columns of `padding`.
    """
    if not isinstance(mask, Tensor) or mask.ndim != 4 or not isinstance(padding, Tensor) or padding.ndim != 2:
        return mask
    if queries == 1:
        return mask
    padded = (padding[:, -queries:] == 0)[:, None, :, None]
    return mask | padded if mask.dtype == torch.bool else mask.masked_fill(padded, 0.0)


def packed_examples(position_ids: Tensor | None, prefix: int, implementation: str | None) -> MaskFunction | None:
    """The mask that keeps packed examples from attending to one another; None if every row has one example.

    Args:
        position_ids: (B, S), or ChatGLM-6B's (B, 2, S). An example begins at position 0; if there are two positions,
            both are 0, which is true only for the first token of a prompt.
        prefix: number of columns in front (P-tuning), which every example attends to.
        implementation: name of the attention implementation.

    Raises:
        UnsupportedError: the implementation takes no mask.
    """
    if position_ids is None or position_ids.shape[-1] < 2:
        return None
    rows = position_ids if position_ids.ndim == 3 else position_ids[:, None]
    begins = (rows == 0).all(dim=1)[:, 1:]
    if not torch.compiler.is_compiling() and not begins.any():
        return None
    if implementation is not None and "flash" in implementation:
        raise UnsupportedError(
            f"packed examples need a mask, which {implementation} does not support; use sdpa, or do not pack"
        )
    number = nn.functional.pad(begins.cumsum(dim=-1), (prefix + 1, 0))
    number[:, :prefix] = -1

    def same_example(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        keys = number[batch, key]
        return (keys < 0) | (keys == number[batch, query])

    return same_example
