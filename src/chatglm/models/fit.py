"""Checks by the headers of weight files that they hold the model that config.json describes, before they are loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from chatglm.errors import CheckpointError
from chatglm.models.configuration import GLMConfig
from chatglm.models.layout import Matrix, layout_of
from chatglm.models.weights import About

__all__ = ["check_fit"]

_FIRST_ROWS, _LATER_ROWS = 150_528, 130_528
"""Size of ChatGLM-6B's vocabulary, in its first release and in the later ones."""


def check_fit(folder: Path, config: Any, tensors: Mapping[str, tuple[Path, About]], new: tuple[str, ...] = ()) -> None:
    """Check that the tensors of a folder fit its configuration.

    Args:
        tensors: file, shape and type of each tensor in the weight files.
        new: parts of names. Tensors with one of them in their name are not checked, because the caller wants new ones.

    Raises:
        CheckpointError: a tensor that the model needs is missing, or has another shape; names file and tensor.
    """
    # A model that is saved without its head has names without this prefix.
    held = {name.removeprefix("transformer."): found for name, found in tensors.items()}
    if config.num_layers > len(held):
        raise CheckpointError(
            f"{folder}: config.json says num_layers={config.num_layers}, and the weight files hold only {len(held)} "
            "tensors; it describes another model"
        )
    for name, wanted, needed in _wanted(config):
        if any(part in name for part in new):
            continue
        short = name.removeprefix("transformer.")
        if short in held:
            file, (shape, dtype) = held[short]
            quantized = getattr(config, "quantization_config", None) is not None
            if shape != wanted and (dtype.is_floating_point or not quantized):
                raise CheckpointError(_misfit(file, name, shape, wanted, config))
            if not dtype.is_floating_point and not quantized:
                raise CheckpointError(
                    f"{file}: {name} is of {dtype}, and config.json describes a model that is not quantised; use the "
                    "config.json of the folder that the weights come from"
                )
        elif needed and f"{short.removesuffix('.weight')}.qweight" not in held:
            raise CheckpointError(
                f"{folder}: {name} is not in the weight files; the checkpoint is incomplete, or config.json describes "
                "another model"
            )
    _check_new(folder, config, held)


def _wanted(config: Any) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    """Names and shapes of a model's tensors, and whether each is required."""
    layout, hidden = layout_of(config), config.hidden_size

    def of(matrix: Matrix, needed: bool = True) -> Iterator[tuple[str, tuple[int, ...], bool]]:
        yield f"{matrix.name}.weight", (matrix.rows, matrix.columns), needed
        if matrix.bias:
            yield f"{matrix.name}.bias", (matrix.rows,), needed

    def norm(name: str) -> Iterator[tuple[str, tuple[int, ...], bool]]:
        yield f"{name}.weight", (hidden,), True
        if layout.norm_bias:
            yield f"{name}.bias", (hidden,), True

    # If two names share one weight, a file may have either. A classifier has no output head.
    yield from of(layout.embedding, needed=not config.tie_word_embeddings)
    for block in layout.blocks:
        for name in (block.norm1, block.norm2):
            yield from norm(name)
        for matrix in (block.qkv, block.dense, block.up, block.down):
            yield from of(matrix)
    yield from norm(layout.final_norm)
    yield from of(layout.head, needed=False)


def _misfit(file: Path, name: str, found: tuple[int, ...], wanted: tuple[int, ...], config: Any) -> str:
    said = f"{file}: {name} is {_shape(found)}, but {_shape(wanted)} in the model that config.json describes"
    if 0 in found:
        return f"{said}; DeepSpeed ZeRO-3 left it empty: run zero_to_fp32.py in the folder of the training run"
    if isinstance(config, GLMConfig) and (found[0], wanted[0]) == (_FIRST_ROWS, _LATER_ROWS):
        return f"{said}; the weights are of ChatGLM-6B's first release, config.json is of the later release"
    if isinstance(config, GLMConfig) and (found[0], wanted[0]) == (_LATER_ROWS, _FIRST_ROWS):
        return f"{said}; config.json is of ChatGLM-6B's first release, the weights are of the later release"
    return f"{said}; use the config.json of the folder that the weights come from"


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) if shape else "a single number"


def _check_new(folder: Path, config: Any, held: Mapping[str, tuple[Path, About]]) -> None:
    """New parts of the model, which are not in the files, are initialised at random. Refuse those that would be larger
    than the model itself.
    """
    whole = sum(math.prod(shape) for _, (shape, _) in held.values())
    layout = layout_of(config)
    sizes = {"num_labels": config.num_labels * config.hidden_size}
    if config.pre_seq_len:
        width = 2 * config.num_layers * layout.shape.groups * layout.shape.channels
        inner = config.hidden_size if config.prefix_projection else 0
        sizes["pre_seq_len"] = config.pre_seq_len * width + inner * width
    for name, size in sizes.items():
        if size > max(whole, 1 << 24):
            raise CheckpointError(
                f"{folder}: config.json says {name}={getattr(config, name)}, which needs {size:,} new weights; the "
                f"whole model has {whole:,}. Correct config.json"
            )
