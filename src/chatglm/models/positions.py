"""Positions of tokens, and the angles of the rotary embedding at these positions, for both architectures.

They depend only on ids and configuration, so the models' forward pass and the native decoder both use this module.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chatglm.chat.generations import Generation
from chatglm.errors import InputError
from chatglm.models.configuration import ChatGLMConfig, GLMConfig

__all__ = ["rotary_angles", "rotary_tables", "two_row_positions", "two_row_tables"]


def rotary_angles(position_ids: Tensor, config: ChatGLMConfig | GLMConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines for the native decoder, each float32 (B, S, angles).

    Args:
        position_ids: (B, S); for ChatGLM-6B (B, 2, S).
    """
    if isinstance(config, GLMConfig):
        cosines, sines = two_row_tables(position_ids, config, torch.float32)
        return cosines[:, 0].flatten(-2), sines[:, 0].flatten(-2)
    cosines, sines = rotary_tables(position_ids, config, torch.float32)
    return cosines[:, 0], sines[:, 0]


def rotary_tables(position_ids: Tensor, config: ChatGLMConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, each (B, 1, S, kv_channels / 4), in `dtype`.

    Angle i of position p is p · base^(−2i/d) over the d = kv_channels / 2 channels that are rotated. `rope_ratio`
    stretches the context: ChatGLM2-6B-32k divides positions by it, later models multiply the base of 10000 with it.

    They are computed in float32 from the integer positions, for any number of positions, and rounded once. The official
    ChatGLM2 code computes them in the precision of the weights; in fp16, neighbouring positions become equal from 2049
    on. `config.official_half_rope` does the same as that code.

    Args:
        position_ids: (B, S).
    """
    dim = config.kv_channels // 2
    ratio = config.rope_ratio
    interpolate = config.chatglm_generation == Generation.CHATGLM2
    work = dtype if config.official_half_rope and interpolate else torch.float32
    exponents = torch.arange(0, dim, 2, device=position_ids.device, dtype=work) / dim
    frequencies = 1.0 / (10000 * (1.0 if interpolate else ratio)) ** exponents
    positions = position_ids.to(work)
    if interpolate and ratio != 1:
        positions = positions / ratio
    angles = (positions[:, None, :, None] * frequencies).float()
    return angles.cos().to(dtype), angles.sin().to(dtype)


def two_row_positions(input_ids: Tensor, config: GLMConfig, attention_mask: Tensor | None = None) -> Tensor:
    """Both positions of every token, (B, 2, S), computed from the ids.

    Args:
        input_ids: (B, S), each row with a `[gMASK]` or `[MASK]` and a `<sop>`. The first `[gMASK]` is used, or, if
            there is none, the first `[MASK]`.
        attention_mask: (B, S) with zero for padding on the left, which has position 0.

    Raises:
        InputError: a row has no mask token, or no `<sop>`.
    """
    places = torch.arange(input_ids.shape[1], device=input_ids.device)
    start = torch.zeros_like(input_ids[:, :1])
    if attention_mask is not None:
        start = (attention_mask == 0).sum(dim=-1, keepdim=True)
    is_gmask: Tensor = torch.eq(input_ids, config.gmask_token_id or 0)
    is_mask: Tensor = torch.eq(input_ids, config.mask_token_id or 0)
    is_blank = torch.where(is_gmask.any(dim=-1, keepdim=True), is_gmask, is_mask)
    is_sop: Tensor = torch.eq(input_ids, config.bos_token_id or 0)
    for found, name in (
        (is_blank, f"[gMASK] ({config.gmask_token_id}) or [MASK] ({config.mask_token_id})"),
        (is_sop, f"<sop> ({config.bos_token_id})"),
    ):
        rows = (~found.any(dim=-1)).nonzero().flatten().tolist()
        if rows:
            raise InputError(
                f"input_ids: row {rows[0]} has no {name}; encode prompts with this model's tokenizer, which appends "
                "[gMASK] <sop>, or give position_ids of shape (batch, 2, tokens)"
            )
    blank = is_blank.int().argmax(dim=-1, keepdim=True)
    sop = is_sop.int().argmax(dim=-1, keepdim=True)
    row0 = torch.where(places >= sop, blank - start, (places - start).clamp(min=0))
    row1 = (places - sop + 1).clamp(min=0)
    return torch.stack((row0, row1), dim=1)


def two_row_tables(position_ids: Tensor, config: GLMConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines of both positions, each (B, 1, S, 2, D / 4), in `dtype`.

    The official code rounds the inverse frequencies to fp16, for any precision of the model, and the weights were
    trained with this; so this code rounds them, too. Angles and cosines are computed in float32. Official fp16 models
    compute these in fp16; `config.official_half_rope` does the same.

    Args:
        position_ids: (B, 2, S).
    """
    dim = config.hidden_size // config.num_attention_heads // 2
    device = position_ids.device
    exponents = torch.arange(0, dim, 2, device=device, dtype=torch.float32) / dim
    frequencies = (1.0 / (10000**exponents)).half()
    work = dtype if config.official_half_rope and dtype == torch.float16 else torch.float32
    angles = position_ids.transpose(1, 2)[:, None, :, :, None].to(work) * frequencies.to(work)
    return angles.cos().to(dtype), angles.sin().to(dtype)
