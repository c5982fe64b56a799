"""A linear layer over packed weights, computed by the fastest kernels that this machine has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from chatglm.kernels import cuda, native, reference
from chatglm.kernels.packing import PackedWeight

__all__ = ["linear"]


def linear(inputs: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
    """inputs (…, columns) of any float type → (…, rows) of the same type; differentiable in inputs and bias.

    On a CPU with native kernels, the inputs are quantised to int8 for each call, each row in blocks of `weight.block`;
    `reference.linear_int8` defines the result and bounds its error. Elsewhere inputs are multiplied unrounded: by
    Triton kernels that read the packed bytes, on a CUDA device that Triton supports; else by torch, which unpacks the
    whole weight first.
    """
    if torch.is_grad_enabled() and (inputs.requires_grad or (bias is not None and bias.requires_grad)):
        outputs: Tensor = _Linear.apply(inputs, weight)
        return outputs if bias is None else outputs + bias.to(outputs.dtype)
    return _forward(inputs, weight, bias)


def _forward(inputs: Tensor, weight: PackedWeight, bias: Tensor | None) -> Tensor:
    device = inputs.device
    if device == weight.data.device and cuda.takes(device.type, device.index, inputs.dtype):
        return cuda.linear(inputs, weight, bias)
    fits = inputs.device.type == weight.data.device.type == "cpu" and inputs.dtype in native.DTYPES
    if fits and not torch.compiler.is_compiling() and (lib := native.library()) is not None:
        return native.linear(lib, inputs, weight, bias)
    return reference.linear(inputs, weight, bias)


class _Linear(torch.autograd.Function):
    """The weight is constant. The gradient ignores that inputs may be rounded."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: PackedWeight) -> Tensor:
        ctx.weight = weight
        return _forward(inputs, weight, None)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        device, weight = gradient.device, ctx.weight
        on_card = device == weight.data.device and cuda.takes(device.type, device.index, gradient.dtype)
        numbers = (cuda if on_card else reference).dequantize(weight, gradient.dtype)
        return gradient @ numbers, None
