"""Reads and writes the checkpoint format of AutoGPTQ and GPTQModel (4 bits, symmetric).

A linear layer of K inputs and R outputs, in groups of g inputs, is stored as four tensors (AutoGPTQ, `qlinear_*.py`;
GPTQModel writes the same):

    qweight  int32 (K/8, R)      nibble i (bits 4i …) of entry [k, r] is q + 8 of input 8k + i
    scales   float16 (K/g, R)
    qzeros   int32 (K/g, R/8)    nibble i of entry [·, r] is the zero point of output 8r + i. We support 8 only. The
                                 older format ("gptq", the default) stores it as 7, "gptq_v2" as 8
    g_idx    int32 (K,)          the group of each input k: k // g, unless `desc_act` is set
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from chatglm.errors import CheckpointError, InputError, UnsupportedError
from chatglm.kernels.packing import GROUP_SIZES, PackedWeight, pack, unpack
from chatglm.quantization.linear import QuantizedLinear
from chatglm.quantization.schemes import Scheme

__all__ = ["GPTQTensors", "check_gptq", "from_gptq", "gptq_config", "to_gptq"]

_ZEROS = {"gptq": 0x77777777, "gptq_v2": -0x77777778}
"""Eight zero points as an int32, in each format."""


def check_gptq(bits: int, group_size: int | None, fields: dict[str, Any]) -> None:
    """Raise `UnsupportedError` for a GPTQ folder that our layout cannot hold. `fields` are those of its config."""
    form = fields.get("checkpoint_format") or "gptq"
    for wrong, text in (
        (bits != 4, f"bits={bits}; only 4 is supported"),
        (
            group_size not in GROUP_SIZES,
            f"group_size={group_size}; only {', '.join(map(str, GROUP_SIZES))} are supported",
        ),
        (bool(fields.get("desc_act")), "desc_act=true (columns in their own order); only false is supported"),
        (fields.get("sym") is False, "sym=false (zero points); only true is supported"),
        (form not in _ZEROS, f"checkpoint_format={form!r}; only {' and '.join(_ZEROS)} are supported"),
        (bool(fields.get("dynamic")), "dynamic (settings per layer), which is not supported"),
    ):
        if wrong:
            raise UnsupportedError(
                f"config.json: GPTQ weights with {text}; quantise the original weights: chatglm quantize --method gptq"
            )


def gptq_config(scheme: Scheme, *, head: bool, act_order: bool) -> dict[str, Any]:
    """The `quantization_config` that AutoGPTQ and GPTQModel read."""
    return {
        "quant_method": "gptq",
        "checkpoint_format": "gptq",
        "bits": scheme.bits,
        "group_size": scheme.group_size,
        "desc_act": False,
        "static_groups": act_order,
        "sym": True,
        "true_sequential": True,
        "lm_head": head,
    }


def to_gptq(weight: PackedWeight) -> dict[str, Tensor]:
    """Convert a weight in groups at 4 bits to the tensors qweight, qzeros, scales and g_idx.

    Raises:
        InputError: the rows are not a multiple of 8, the columns are not a multiple of the group size, or the weight
            has 8 bits or no groups.
    """
    size = weight.group_size
    if weight.bits != 4 or not size or weight.columns % size or weight.rows % 8:
        raise InputError(
            f"a weight of {weight.rows}x{weight.columns} at {weight.bits} bits in groups of {size} cannot be written "
            "in GPTQ's format, which needs 4 bits, a multiple of 8 rows, and complete groups; use chatglm's own format"
        )
    integers, scales = unpack(weight)
    nibbles = (integers.T.to(torch.int32) + 8).unflatten(0, (-1, 8))  # (K/8, 8, R)
    packed = torch.zeros(nibbles.shape[0], weight.rows, dtype=torch.int32, device=integers.device)
    for number in range(8):
        packed |= nibbles[:, number] << (4 * number)
    zeros = torch.full((weight.columns // size, weight.rows // 8), _ZEROS["gptq"], dtype=torch.int32)
    return {
        "qweight": packed,
        "qzeros": zeros.to(packed.device),
        "scales": scales.T.contiguous(),
        "g_idx": torch.arange(weight.columns, dtype=torch.int32, device=packed.device) // size,
    }


def from_gptq(tensors: dict[str, Tensor], group_size: int, form: str = "gptq", name: str = "weight") -> PackedWeight:
    """Pack the GPTQ tensors of a layer; the inverse of `to_gptq`.

    Args:
        tensors: qweight, qzeros, scales, and g_idx if the file has it.
        form: `checkpoint_format`: "gptq" or "gptq_v2".
        name: of the layer, for error messages.

    Raises:
        UnsupportedError: zero points other than 8, or columns in an order of their own (`desc_act`).
        CheckpointError: the shapes do not fit together.
    """
    qweight, scales = tensors["qweight"], tensors["scales"]
    columns, rows = qweight.shape[0] * 8, qweight.shape[1]
    if scales.shape != (-(-columns // group_size), rows):
        raise CheckpointError(
            f"{name}.scales has the shape {tuple(scales.shape)}, which does not fit a layer of {rows}x{columns} in "
            f"groups of {group_size}"
        )
    if not bool((tensors["qzeros"] == _ZEROS[form]).all()):
        raise UnsupportedError(
            f"{name}.qzeros: zero points other than 8 (asymmetric weights); quantise the original weights: chatglm "
            "quantize --method gptq"
        )
    order = tensors.get("g_idx")
    if order is not None and not torch.equal(order.cpu().long(), torch.arange(columns) // group_size):
        raise UnsupportedError(
            f"{name}.g_idx: columns in their own order (desc_act); quantise the original weights: chatglm "
            "quantize --method gptq"
        )
    shifts = torch.arange(0, 32, 4, dtype=torch.int32, device=qweight.device)
    nibbles = (qweight[:, None] >> shifts[:, None]) & 15  # (K/8, 8, R)
    integers = (nibbles.flatten(0, 1) - 8).to(torch.int8).T.contiguous()
    return pack(integers, scales.T.contiguous(), bits=4, group_size=group_size)


class GPTQTensors(nn.Module):
    """Holds the GPTQ tensors of a layer until all are loaded. It cannot compute; `to_quantized` makes a layer that can.

    Raises:
        UnsupportedError: the layer's size does not fit the format.
    """

    def __init__(self, layer: nn.Linear, name: str, group_size: int) -> None:
        super().__init__()
        rows, columns = layer.out_features, layer.in_features
        if columns % group_size or rows % 8:
            raise UnsupportedError(
                f"{name}: {rows}x{columns} is not a valid size for GPTQ weights in groups of {group_size}"
            )
        self.name, self.group_size, self.bias = name, group_size, layer.bias
        device = layer.weight.device
        groups = columns // group_size
        for kind, shape, dtype in (
            ("qweight", (columns // 8, rows), torch.int32),
            ("qzeros", (groups, rows // 8), torch.int32),
            ("scales", (groups, rows), torch.float16),
            ("g_idx", (columns,), torch.int32),
        ):
            self.register_buffer(kind, torch.empty(shape, dtype=dtype, device=device))

    def to_quantized(self, form: str) -> QuantizedLinear:
        """Convert the tensors to a quantised layer.

        Args:
            form: `checkpoint_format`: "gptq" or "gptq_v2".

        Raises:
            UnsupportedError, CheckpointError: see `from_gptq`.
        """
        tensors = dict(self.named_buffers())
        packed = from_gptq(tensors, self.group_size, form, self.name)
        return QuantizedLinear(
            packed.columns, packed.rows, Scheme(4, self.group_size), bias=self.bias, packed=packed
        ).eval()
