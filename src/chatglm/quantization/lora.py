"""Adapters over integer weights (QLoRA, Dettmers et al. 2023): the adapter is trained, the integers are fixed.

`QuantizedLinear` is a subclass of `nn.Linear`, so PEFT adapts it like one. But PEFT would merge an adapter into the
packed bytes as if they were the weights.
"""

from __future__ import annotations

from typing import Any

from chatglm.errors import UnsupportedError

__all__ = ["MERGE", "refuse_merging"]

MERGE = (
    "an adapter cannot be merged into quantised weights; merge it into the original ones (chatglm merge ADAPTER "
    "--model ORIGINAL --output DIR) and quantise the result, or keep it apart (--adapter)"
)


def refuse_merging(model: Any) -> None:
    """Make a PEFT model with quantised layers raise `UnsupportedError` when an adapter of any kind is to be merged.
    PEFT asks for permission before it changes the first layer.
    """
    model.base_model._check_merge_allowed = _refuse


def _refuse() -> None:
    raise UnsupportedError(MERGE)
