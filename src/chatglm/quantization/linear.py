"""Layers over packed integer weights, in place of `nn.Linear` and `nn.Embedding`.

Their weights are never converted: `.half()`, `.float()` and `.to(dtype)` change biases and what comes out, and move the
rest. In a state dict the official scheme has the official names, types and shapes (`weight` int8 (rows, columns · bits
/ 8), `weight_scale` (rows,)); groups have the packed bytes as they lie in memory (`weight` uint8, `weight_scale`
float16 (tiles, groups, 16); `kernels/packing.py`), so that a safetensors file of them is mapped and used where it lies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from chatglm.errors import InputError
from chatglm.kernels.linear import linear
from chatglm.kernels.packing import TILE, PackedWeight, shapes
from chatglm.kernels.reference import dequantize
from chatglm.quantization.schemes import Scheme, from_official, official_shape, quantize, to_official

__all__ = ["QuantizedEmbedding", "QuantizedLinear"]


class _Packed(nn.Module):
    """What both layers share: an integer weight (rows, columns) and its scales.

    `weight` is a parameter that is not trained. Scales are a buffer, so that the first floating-point *parameter* of a
    model still tells its precision.
    """

    weight: Tensor
    weight_scale: Tensor
    scheme: Scheme
    rows: int
    columns: int
    _view: PackedWeight | None
    _is_hf_initialized = True  # transformers draws no random numbers for these, which integers do not take

    def _hold(self, scheme: Scheme, rows: int, columns: int, packed: PackedWeight | None, device: Any) -> None:
        self.scheme, self.rows, self.columns, self._view = scheme, rows, columns, None
        if packed is None:  # empty, in the form that a checkpoint has
            if scheme.official:
                weight = torch.empty(official_shape(rows, columns, scheme.bits), dtype=torch.int8, device=device)
                scales = torch.empty(rows, dtype=torch.float16, device=device)
            else:
                size, shape = shapes(rows, columns, scheme.bits, scheme.group_size)
                weight = torch.empty(size, dtype=torch.uint8, device=device)
                scales = torch.empty(shape, dtype=torch.float16, device=device)
        else:
            weight, scales = packed.data, packed.scales
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("weight_scale", scales)

    def packed(self) -> PackedWeight:
        """The weight as the kernels take it; official bytes that a checkpoint left here are packed for this call."""
        weight, scales = self._parameters["weight"], self._buffers["weight_scale"]
        view = self._view
        if view is not None and view.data is weight and view.scales is scales:
            return view
        assert weight is not None
        assert scales is not None
        if weight.dtype == torch.int8:
            return from_official(weight.data, scales, self.scheme.bits)
        self._view = PackedWeight(weight, scales, self.rows, self.columns, self.scheme.bits, self.scheme.group_size)
        return self._view

    def put(self, packed: PackedWeight) -> None:
        """Take on another weight of the same shape and scheme."""
        self.weight = nn.Parameter(packed.data, requires_grad=False)
        self.weight_scale = packed.scales

    def pack_(self) -> None:
        """Bring official bytes, as a checkpoint has them, into the kernels' layout, once."""
        if self.weight.dtype == torch.int8 and self.weight.device.type != "meta":
            self.put(self.packed())

    def dequantized(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(rows, columns) as numbers."""
        return dequantize(self.packed(), dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        held = (self._parameters["weight"], self._buffers["weight_scale"])

        def only_moved(tensor: Tensor) -> Tensor:
            if not any(tensor is one for one in held):
                return fn(tensor)
            moved = fn(tensor.detach().view(torch.uint8))  # conversions leave integers alone …
            if moved.dtype != torch.uint8:  # … but for .type(dtype)
                return tensor.detach().to(moved.device)
            return moved.view(tensor.dtype)

        self._view = None
        return super()._apply(only_moved, recurse)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.scheme.official and self.weight.dtype == torch.uint8:
            destination[f"{prefix}weight"], destination[f"{prefix}weight_scale"] = to_official(self.packed())

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        name, scale = f"{prefix}weight", f"{prefix}weight_scale"
        if (
            self.weight.dtype == torch.uint8
            and name in state_dict
            and scale in state_dict
            and state_dict[name].dtype == torch.int8
        ):
            packed = from_official(state_dict[name], state_dict[scale], self.scheme.bits)
            state_dict = {**state_dict, name: packed.data, scale: packed.scales}
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class QuantizedLinear(_Packed, nn.Linear):
    """y = x Wᵀ + b with integers for W; inputs (…, in_features) of any float type, and outputs of the same.

    It is an `nn.Linear` to whoever asks, PEFT above all; its `weight` is bytes. The gradient reaches inputs and bias.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        scheme: Scheme,
        *,
        bias: nn.Parameter | Tensor | None = None,
        packed: PackedWeight | None = None,
        device: Any = None,
    ) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would make a float weight
        self.in_features, self.out_features = in_features, out_features
        self._hold(scheme, out_features, in_features, packed, device)
        self.register_parameter("bias", None if bias is None else _as_parameter(bias))

    @classmethod
    def from_linear(cls, layer: nn.Linear, scheme: Scheme, *, packed: PackedWeight | None = None) -> QuantizedLinear:
        """The same layer, its weight rounded (or given, where something better than rounding found the integers)."""
        if layer.weight.device.type != "meta" and packed is None:
            packed = quantize(layer.weight.detach(), scheme)
        return cls(
            layer.in_features, layer.out_features, scheme, bias=layer.bias, packed=packed, device=layer.weight.device
        ).train(layer.training)

    def to_linear(self, dtype: torch.dtype) -> nn.Linear:
        layer = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        layer.weight = nn.Parameter(self.dequantized(dtype), requires_grad=False)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias.detach().to(dtype), requires_grad=False)
        return layer.train(self.training)

    def forward(self, inputs: Tensor) -> Tensor:
        return linear(inputs, self.packed(), self._parameters["bias"])

    def reset_parameters(self) -> None:
        raise InputError("a quantised layer has no random weights to draw; make it from an nn.Linear")

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.scheme}, bias={self.bias is not None}"


class QuantizedEmbedding(_Packed, nn.Embedding):
    """Rows of an integer table, made into numbers when they are looked up: ids (…) → (…, embedding_dim)."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        scheme: Scheme,
        *,
        dtype: torch.dtype,
        packed: PackedWeight | None = None,
        device: Any = None,
    ) -> None:
        nn.Module.__init__(self)
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = self.max_norm = None
        self.norm_type, self.scale_grad_by_freq, self.sparse = 2.0, False, False
        self.dtype = dtype  # of what comes out
        self._hold(scheme, num_embeddings, embedding_dim, packed, device)

    @classmethod
    def from_embedding(
        cls, layer: nn.Embedding, scheme: Scheme, *, packed: PackedWeight | None = None
    ) -> QuantizedEmbedding:
        if layer.weight.device.type != "meta" and packed is None:
            packed = quantize(layer.weight.detach(), scheme)
        return cls(
            layer.num_embeddings,
            layer.embedding_dim,
            scheme,
            dtype=layer.weight.dtype,
            packed=packed,
            device=layer.weight.device,
        ).train(layer.training)

    def to_embedding(self, dtype: torch.dtype) -> nn.Embedding:
        return nn.Embedding(
            self.num_embeddings, self.embedding_dim, _weight=self.dequantized(dtype), _freeze=True
        ).train(self.training)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 — nn.Embedding's name for it
        packed = self.packed()
        tiles, lanes = input // TILE, input % TILE
        scales = packed.scales[tiles, :, lanes].float()  # (…, groups)
        blocks = packed.data.view(packed.scales.shape[0], -1, TILE, 4)[tiles, :, lanes]  # (…, steps, 4)
        if packed.bits == 8:
            integers = (blocks ^ 0x80).view(torch.int8)
        else:
            integers = torch.stack((blocks & 15, blocks >> 4), dim=-2).to(torch.int8) - 8
        numbers = integers.flatten(input.ndim).float()
        size = packed.group_size or numbers.shape[-1]
        spread = scales.repeat_interleave(size, dim=-1)
        return (numbers * spread)[..., : packed.columns].to(self.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=self.weight.device)).dtype
        return super()._apply(fn, recurse)

    def reset_parameters(self) -> None:
        raise InputError("a quantised layer has no random weights to draw; make it from an nn.Embedding")

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, {self.scheme}"


def _as_parameter(bias: nn.Parameter | Tensor) -> nn.Parameter:
    return bias if isinstance(bias, nn.Parameter) else nn.Parameter(bias, requires_grad=False)
