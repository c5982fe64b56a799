"""Layers with packed integer weights, which replace `nn.Linear` and `nn.Embedding`.

`.half()`, `.float()` and `.to(dtype)` never convert the integers. They convert biases and the type of an embedding's
output; moving to a device moves everything. In a state dict, weights of the official scheme have the official names,
types and shapes: `weight` int8 (rows, columns · bits / 8), `weight_scale` (rows,). Weights in groups have the packed
bytes as they are in memory (`kernels/packing.py`): `weight` uint8, `weight_scale` float16 (tiles, groups, 16). So a
safetensors file can be mapped into memory and used without a copy.
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
    """The common part of both layers: an integer weight (rows, columns) and its scales.

    `weight` is a parameter without gradient. The scales are a buffer: so the first floating-point *parameter* of a
    model still tells the model's precision.
    """

    weight: Tensor
    weight_scale: Tensor
    scheme: Scheme
    rows: int
    columns: int
    _view: PackedWeight | None
    _is_hf_initialized = True  # transformers would draw random initial values, which fails for integers

    def _hold(self, scheme: Scheme, rows: int, columns: int, packed: PackedWeight | None, device: Any) -> None:
        self.scheme, self.rows, self.columns, self._view = scheme, rows, columns, None
        if packed is None:  # no weight yet; it will be loaded in the layout of a checkpoint
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
        """The weight in the form for the kernels. Bytes in the official layout are packed again at each call."""
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
        """Replace the weight by another one of the same shape and scheme."""
        self.weight = nn.Parameter(packed.data, requires_grad=False)
        self.weight_scale = packed.scales

    def pack_(self) -> None:
        """Convert bytes in the official layout to the kernels' layout, once, in place."""
        if self.weight.dtype == torch.int8 and self.weight.device.type != "meta":
            self.put(self.packed())

    def dequantized(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight as floating-point numbers, (rows, columns)."""
        return dequantize(self.packed(), dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        held = (self._parameters["weight"], self._buffers["weight_scale"])

        def only_moved(tensor: Tensor) -> Tensor:
            if not any(tensor is one for one in held):
                return fn(tensor)
            moved = fn(tensor.detach().view(torch.uint8))  # conversions of floats do not change integers
            if moved.dtype != torch.uint8:  # but .type(dtype) does
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
    """y = x Wᵀ + b with an integer W; x is (…, in_features) of any float type, and y has the same type.

    It is a subclass of `nn.Linear`, which PEFT needs; its `weight` holds bytes. Inputs and bias get gradients.
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
        nn.Module.__init__(self)  # nn.Linear.__init__ would allocate a float weight
        self.in_features, self.out_features = in_features, out_features
        self._hold(scheme, out_features, in_features, packed, device)
        self.register_parameter("bias", None if bias is None else _as_parameter(bias))

    @classmethod
    def from_linear(cls, layer: nn.Linear, scheme: Scheme, *, packed: PackedWeight | None = None) -> QuantizedLinear:
        """Quantise a layer. `packed`, if given, is used as its weight; otherwise the weight is rounded."""
        if layer.weight.device.type != "meta" and packed is None:
            packed = quantize(layer.weight.detach(), scheme)
        return cls(
            layer.in_features, layer.out_features, scheme, bias=layer.bias, packed=packed, device=layer.weight.device
        ).train(layer.training)

    def to_linear(self, dtype: torch.dtype) -> nn.Linear:
        """An `nn.Linear` with the rounded weight and the bias, both in `dtype` and without gradients."""
        layer = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        layer.weight = nn.Parameter(self.dequantized(dtype), requires_grad=False)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias.detach().to(dtype), requires_grad=False)
        return layer.train(self.training)

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs (…, in_features) of any float type → (…, out_features) of the same type."""
        return linear(inputs, self.packed(), self._parameters["bias"])

    def reset_parameters(self) -> None:
        raise InputError("a quantised layer has no random weights to draw; make it from an nn.Linear")

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.scheme}, bias={self.bias is not None}"


class QuantizedEmbedding(_Packed, nn.Embedding):
    """An embedding with an integer table; rows become floats at look-up: ids (…) → (…, embedding_dim)."""

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
        self.dtype = dtype  # of the output
        self._hold(scheme, num_embeddings, embedding_dim, packed, device)

    @classmethod
    def from_embedding(
        cls, layer: nn.Embedding, scheme: Scheme, *, packed: PackedWeight | None = None
    ) -> QuantizedEmbedding:
        """Quantise an embedding. `packed`, if given, is used as its weight; otherwise the weight is rounded."""
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
        """An `nn.Embedding` with the rounded weight, in `dtype` and without gradients."""
        return nn.Embedding(
            self.num_embeddings, self.embedding_dim, _weight=self.dequantized(dtype), _freeze=True
        ).train(self.training)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 — nn.Embedding's name for it
        """ids (…) → (…, embedding_dim), in the layer's `dtype`."""
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
