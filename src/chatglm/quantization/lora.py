"""LoRA over integer weights (QLoRA, Dettmers et al. 2023): the adapter is trained, the integers are fixed.

`QuantizedLinear` is a subclass of `nn.Linear`, so PEFT adapts it like one. PEFT cannot merge an adapter into integers;
`adapt` makes it raise a clear error for that.
"""

from __future__ import annotations

from typing import Any

from peft.tuners.lora import Linear

from chatglm.errors import UnsupportedError
from chatglm.quantization.linear import QuantizedLinear

__all__ = ["MERGE", "adapt"]

MERGE = (
    "an adapter cannot be merged into quantised weights; merge it into the original ones (chatglm merge ADAPTER "
    "--model ORIGINAL --output DIR) and quantise the result, or keep it apart (--adapter)"
)


class QuantizedLoraLinear(Linear):  # type: ignore[misc]
    """PEFT's LoRA layer around a `QuantizedLinear`."""

    def merge(self, *args: Any, **kwargs: Any) -> None:
        """Refuse to merge.

        Raises:
            UnsupportedError: always; an adapter cannot be added to integers.
        """
        raise UnsupportedError(MERGE)


def adapt(config: Any) -> None:
    """Let a `LoraConfig` wrap quantised layers in `QuantizedLoraLinear`; other configurations stay unchanged.

    Raises:
        UnsupportedError: the configuration uses DoRA, which needs the norms of floating-point weights.
    """
    if hasattr(config, "_register_custom_module"):
        if getattr(config, "use_dora", False):
            raise UnsupportedError("DoRA needs floating-point weights, and these are quantised; use plain LoRA")
        config._register_custom_module({QuantizedLinear: QuantizedLoraLinear})
