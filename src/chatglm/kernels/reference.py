"""Every operation in plain torch. It is slow, but runs anywhere, and it defines the correct results."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from chatglm.kernels.packing import PackedWeight, unpack

__all__ = ["LEVELS", "dequantize", "linear", "linear_int8", "quantize_inputs"]

LEVELS = {torch.int8: 127, torch.int16: 8191}
"""The largest integer of each type. 8191 for int16 keeps sums of products within 32 bits, if the sum of the other
factors' magnitudes is bounded accordingly (`to_words` in cpu/kernels.inl).
"""


def dequantize(weight: PackedWeight, dtype: torch.dtype = torch.float32) -> Tensor:
    """The weight (rows, columns) in `dtype`: integer times scale, rounded once."""
    integers, scales = unpack(weight)
    size = weight.group_size or weight.columns
    spread = scales.float().repeat_interleave(size, dim=1)[:, : weight.columns]
    return (integers.float() * spread).to(dtype)


def linear(inputs: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
    """inputs (…, columns) → (…, rows), multiplied in the type of the inputs, as the official code does."""
    return F.linear(inputs, dequantize(weight, inputs.dtype), None if bias is None else bias.to(inputs.dtype))


def quantize_inputs(inputs: Tensor, block: int, dtype: torch.dtype = torch.int8) -> tuple[Tensor, Tensor]:
    """Quantise inputs symmetrically, per row and block: scale = max|x| / levels, q = round_half_even(x / scale).

    Args:
        inputs: float32 (rows, columns), columns a multiple of `block`.
        block: columns that share a scale.
        dtype: int8 or int16; `LEVELS` has their levels.

    Returns:
        The integers (rows, columns), and the scales, float32 (rows, blocks). A block of zeros has scale 0.
    """
    blocks = inputs.unflatten(-1, (-1, block))
    largest = blocks.abs().amax(dim=-1)
    levels = float(LEVELS[dtype])
    # Not `127 / largest`: torch computes that as 127 · (1 / largest), which is rounded twice.
    inverse = torch.where(largest > 0, torch.full_like(largest, levels) / largest, torch.zeros_like(largest))
    inverse = torch.where(inverse.isfinite(), inverse, torch.zeros_like(inverse))  # max|x| was subnormal: treated as 0
    integers = (blocks * inverse[..., None]).round().to(dtype)
    return integers.flatten(-2), largest / levels


def linear_int8(inputs: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
    """Compute what the native kernels compute: integer products within a block, float32 sums over blocks.

    The difference from `linear` is at most Σ_blocks (input scale / 2) · Σ_columns |weight|, plus rounding.
    """
    rows = inputs.reshape(-1, weight.columns).float()
    padding = weight.padded_columns - weight.columns
    integers, input_scales = quantize_inputs(F.pad(rows, (0, padding)), weight.block)
    weights, scales = unpack(weight)
    weights = F.pad(weights, (0, padding)).double().unflatten(1, (-1, weight.block))
    products = torch.einsum("mbk,rbk->mrb", integers.double().unflatten(1, (-1, weight.block)), weights)  # exact
    outputs = (products * input_scales[:, None].double() * scales.double()).sum(dim=-1)
    if bias is not None:
        outputs = outputs + bias.double()
    return outputs.to(inputs.dtype).reshape(*inputs.shape[:-1], weight.rows)
