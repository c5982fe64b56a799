"""Chooses the layers of a model to quantise, and replaces them. Works with any `nn.Module`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from chatglm.errors import InputError
from chatglm.quantization.linear import QuantizedEmbedding, QuantizedLinear
from chatglm.quantization.schemes import Scheme, check

__all__ = ["Chosen", "choose", "dequantize_module", "is_quantized", "pack", "quantize_module", "share", "swap"]

_HEADS = ("output_layer", "lm_head", "embed_out")
"""Usual names of output heads, for models that do not say which layer is the head."""

_NEVER = ("prefix_encoder", "classifier_head", "score", "classifier")
"""Small layers that are trained last. They are not quantised, as in the official code."""


@dataclass(frozen=True)
class Chosen:
    """Names of the layers to quantise.

    Attributes:
        linears: the chosen `nn.Linear` layers, including the output head if it is chosen.
        embeddings: the input embedding, if it is chosen.
        tied: (embedding, head) if both share one weight.
    """

    linears: tuple[str, ...]
    embeddings: tuple[str, ...]
    tied: tuple[str, str] | None


def choose(model: nn.Module, *, head: bool = False, embedding: bool = False, skip: Iterable[str] = ()) -> Chosen:
    """Choose all linear layers except the output head and small layers that are trained last.

    Args:
        head, embedding: choose the output head or the input embedding too. If both share one weight (ChatGLM-6B),
            either option chooses both.
        skip: names of modules to leave unquantised, with all modules inside them: full names
            (`transformer.encoder.layers.0.mlp`) or last parts (`dense_4h_to_h`).

    Raises:
        InputError: an entry of `skip` matches no module, or no layer is left to quantise.
    """
    skip = tuple(skip)
    modules = dict(model.named_modules())
    skipped = {
        entry: {name for name in modules if name == entry or name.endswith(f".{entry}") or name.startswith(f"{entry}.")}
        for entry in skip
    }
    for entry, names in skipped.items():
        if not names:
            raise InputError(f"modules_to_not_convert: the model has no module {entry!r}")
    left = {name for names in skipped.values() for name in names}
    below = tuple(f"{name}." for name in left)

    output = _ask(model, "get_output_embeddings")
    heads = {n for n, m in modules.items() if (m is output if output is not None else n.rpartition(".")[2] in _HEADS)}
    inputs = _ask(model, "get_input_embeddings")
    tables = [
        n
        for n, m in modules.items()
        if isinstance(m, nn.Embedding) and (m is inputs or inputs is None) and n not in left
    ]
    tables = [name for name in tables if not any(part in _NEVER for part in name.split("."))]
    tied = None
    if (
        output is not None
        and inputs is not None
        and len(heads) == len(tables) == 1
        and _one_weight(model, inputs, output)
    ):
        tied = (tables[0], next(iter(heads)))
        head = embedding = head or embedding
    linears = [
        name
        for name, module in modules.items()
        if isinstance(module, nn.Linear)
        and name not in left
        and not name.startswith(below)
        and not any(part in _NEVER for part in name.split("."))
        and (head or name not in heads)
    ]
    if not linears:
        raise InputError(f"{type(model).__name__}: has no linear layer to quantise")
    return Chosen(tuple(linears), tuple(tables) if embedding else (), tied)


def _ask(model: nn.Module, method: str) -> Any:
    try:
        return getattr(model, method)()
    except (AttributeError, NotImplementedError):
        return None


def _one_weight(model: Any, inputs: Any, output: Any) -> bool:
    tied = getattr(getattr(model, "config", None), "tie_word_embeddings", False)
    return bool(tied) or getattr(inputs, "weight", None) is getattr(output, "weight", 0)


def swap(
    model: nn.Module,
    chosen: Chosen,
    scheme: Scheme,
    *,
    device: Any = None,
    progress: Callable[[str], None] | None = None,
) -> None:
    """Replace the chosen layers one after the other. Each old weight is freed before the next layer is made.

    All weights are checked before the first layer is replaced: freed weights could not be put back.

    Args:
        device: where to compute and keep the new layers; default: the device of each old layer.
        progress: called with the name of every layer that is done.

    Raises:
        InputError: a weight cannot be quantised; names the layer. Nothing is changed then.
    """
    for name in (*chosen.linears, *chosen.embeddings):
        weight: Any = model.get_submodule(name).weight
        if weight.device.type != "meta":
            try:
                check(weight.detach(), scheme)
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
    for name in (*chosen.linears, *chosen.embeddings):
        layer = model.get_submodule(name)
        if (
            chosen.tied is not None
            and name == chosen.tied[0]
            and isinstance(head := model.get_submodule(chosen.tied[1]), QuantizedLinear)
        ):
            packed = None if head.weight.device.type == "meta" else head.packed()
            assert isinstance(layer, nn.Embedding)
            made: nn.Module = QuantizedEmbedding.from_embedding(layer, scheme, packed=packed)
        else:
            if device is not None and layer.weight.device.type != "meta":  # type: ignore[union-attr]
                layer = layer.to(device)
            made = (
                QuantizedLinear.from_linear(layer, scheme)
                if isinstance(layer, nn.Linear)
                else QuantizedEmbedding.from_embedding(layer, scheme)  # type: ignore[arg-type]
            )
        model.set_submodule(name, made)
        del layer
        if progress is not None:
            progress(name)
    share(model, chosen)


def pack(model: nn.Module, chosen: Chosen) -> None:
    """Convert the chosen layers, as loaded from a checkpoint, to the kernels' layout."""
    for name in (*chosen.linears, *chosen.embeddings):
        model.get_submodule(name).pack_()  # type: ignore[operator]
    share(model, chosen)


def share(model: nn.Module, chosen: Chosen) -> None:
    """Let head and embedding use the same bytes if they share one weight."""
    if chosen.tied is None or not chosen.embeddings:
        return
    table, head = (model.get_submodule(name) for name in chosen.tied)
    table.weight = head.weight
    # Scales are buffers. transformers ties parameters only, so a file holds the scales under both names.
    table.weight_scale = head.weight_scale.clone()  # type: ignore[operator]


def is_quantized(model: nn.Module) -> bool:
    """Whether a model has quantised layers."""
    return any(isinstance(module, (QuantizedLinear, QuantizedEmbedding)) for module in model.modules())


@torch.no_grad()
def quantize_module(
    model: nn.Module,
    bits: int = 4,
    group_size: int = 128,
    *,
    head: bool = False,
    embedding: bool = False,
    skip: Iterable[str] = (),
    device: Any = None,
    progress: Callable[[str], None] | None = None,
) -> nn.Module:
    """Quantise the linear layers of any model in place.

    Args:
        bits: 4 or 8.
        group_size: columns that share a scale: 32, 64 or 128; 0 for the official scheme, one scale per row.
        head, embedding, skip: see `choose`.
        device: where to compute and keep the layers; default: the device of each layer.
        progress: called with the name of every layer that is done.

    Returns:
        The same model.

    Raises:
        InputError: the model is quantised already or has no linear layers, or a weight cannot be quantised (it is not
            finite, for example). The model is then as it was.
    """
    if is_quantized(model):
        raise InputError("this model is quantised already; load the original weights to quantise them otherwise")
    scheme = Scheme(bits, group_size)
    skip = tuple(skip)
    chosen = choose(model, head=head, embedding=embedding, skip=skip)
    quantizer: Any = None
    if hasattr(model, "save_pretrained"):
        # Get our quantiser from the registry of transformers: this file must not import `hooks`, which imports it.
        from transformers.quantizers.auto import AutoHfQuantizer

        from chatglm.models.configuration import QUANTIZER

        about: dict[str, Any] = {"bits": bits, "group_size": group_size, "head": head, "embedding": embedding}
        about |= {"quant_method": QUANTIZER, "modules_to_not_convert": list(skip) or None}
        quantizer = AutoHfQuantizer.from_config(about, pre_quantized=True)
    swap(model, chosen, scheme, device=device, progress=progress)
    if quantizer is not None:
        quantizer.attach(model)
    return model


@torch.no_grad()
def dequantize_module(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Replace quantised layers by floating-point layers with the rounded weights, in place; returns the model."""
    tables: dict[int, nn.Parameter] = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, (QuantizedLinear, QuantizedEmbedding)):
            held = id(module.weight)
            made = module.to_linear(dtype) if isinstance(module, QuantizedLinear) else module.to_embedding(dtype)
            made.weight = tables.setdefault(held, made.weight)  # type: ignore[arg-type]  # shared before, shared after
            model.set_submodule(name, made)
    return model
