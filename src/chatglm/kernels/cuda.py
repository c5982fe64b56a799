"""Linear layers over packed weights on a CUDA device: tests whether Triton works here, and launches its kernels.

One row of inputs (decoding) is multiplied by a kernel that is limited by reading the weights. A few rows are multiplied
by the GPU's matrix units (`cuda_kernels.py`). For more rows, the weights are converted to floats, and torch multiplies.
Block sizes depend on the shapes only: nothing is timed and nothing waits for the device, so a step can be captured in a
CUDA graph after its first run. Under `torch.compile`, the layer is the single operator `chatglm::packed_linear`.

`CHATGLM_KERNELS=reference` turns the kernels off. If it names a CPU variant, they stay on.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from chatglm.errors import InputError
from chatglm.kernels.packing import TILE, PackedWeight

__all__ = ["DTYPES", "Info", "dequantize", "in_planes", "info", "linear", "takes"]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""Supported types of inputs and outputs."""

_OLDEST = (8, 0)
"""Lowest compute capability that Triton supports; also the first one with bfloat16 matrix units."""


@dataclass(frozen=True)
class Info:
    """Whether Triton's kernels are in use for CUDA devices.

    Args:
        variant: "triton", or "reference": torch only.
        reason: why.
    """

    variant: str
    reason: str


def info() -> Info:
    """Whether Triton's kernels are in use for CUDA devices, and why. Never raises."""
    if os.environ.get("CHATGLM_KERNELS") == "reference":
        return Info("reference", "CHATGLM_KERNELS=reference")
    kernels = _load()
    if isinstance(kernels, str):
        return Info("reference", kernels)
    reasons = [_fits(index) for index in range(torch.cuda.device_count())]
    if not reasons:
        return Info("reference", "no CUDA device")
    if all(reasons):
        return Info("reference", reasons[0])
    return Info("triton", f"triton {kernels.triton.__version__}")


def takes(kind: str, index: int | None, dtype: torch.dtype) -> bool:
    """Whether `linear` supports inputs of this type on this device (`device.type`, `device.index`)."""
    if kind != "cuda" or dtype not in DTYPES or os.environ.get("CHATGLM_KERNELS") == "reference":
        return False
    return not isinstance(_load(), str) and not _fits(index or 0)


if torch.cuda.is_available():
    # torch.compile must not trace this function. Marking it imports the compiler, which takes a second, so it is marked
    # only if there is a CUDA device.
    takes = torch.compiler.assume_constant_result(takes)


@functools.cache
def _load() -> Any:
    """The module of kernels, or one line that says why it cannot be used."""
    try:
        from chatglm.kernels import cuda_kernels
    except Exception as error:  # a Triton that does not match torch or the system fails in many ways
        return f"triton cannot be imported ({type(error).__name__}: {error})".splitlines()[0]
    return cuda_kernels


@functools.cache
def _fits(index: int) -> str:
    """Why Triton cannot use this device; empty if it can."""
    if torch.version.cuda is None:
        return "these kernels were written for NVIDIA's devices"
    if torch.cuda.get_device_capability(index) < _OLDEST:
        found = ".".join(map(str, torch.cuda.get_device_capability(index)))
        return f"{torch.cuda.get_device_name(index)} has compute capability {found}; Triton needs 8.0"
    try:
        import triton

        # This creates Triton's driver, which compiles a little C code. Without a C compiler it fails here, not in a
        # layer.
        triton.runtime.driver.active.get_current_target()
    except Exception as error:
        return f"triton does not work here ({type(error).__name__}: {error})".splitlines()[0]
    return ""


# The layer


def linear(inputs: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
    """inputs (…, columns) of one of `DTYPES`, on the weight's device → (…, rows) of the same type. Sums are float32;
    the bias (rows,), of any float type, is added before the result is rounded once.

    The difference from `reference.linear` in exact arithmetic comes from rounding the result and the float32 sums and,
    for more than one row, from rounding each weight to the type of the inputs.

    Raises:
        InputError: the inputs have another width.
    """
    if inputs.shape[-1] != weight.columns:
        raise InputError(
            f"a weight of {weight.rows}x{weight.columns} takes {weight.columns} inputs, got {inputs.shape[-1]}"
        )
    # Outside of torch.compile, calling the operator would take longer than launching the kernel.
    run = torch.ops.chatglm.packed_linear if torch.compiler.is_compiling() else _run
    outputs: Tensor = run(
        inputs, weight.data, weight.scales, bias, weight.rows, weight.columns, weight.bits, weight.group_size
    )
    return outputs


def _run(
    inputs: Tensor,
    data: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    rows: int,
    columns: int,
    bits: int,
    group_size: int,
) -> Tensor:
    given = inputs.detach().reshape(-1, columns)
    if not given.numel():
        return inputs.new_empty(*inputs.shape[:-1], rows)
    shape, words, scales = _held(data, scales, rows, columns, bits, group_size)
    bias = None if bias is None else bias.detach().contiguous()
    with torch.cuda.device_of(inputs):
        if len(given) > _FEW:
            numbers = _numbers(words, scales, shape, given.dtype)
            outputs = F.linear(given, numbers, None if bias is None else bias.to(given.dtype))
        else:
            outputs = given.new_empty(len(given), rows)
            (_one if len(given) == 1 else _few)(given, words, scales, bias, outputs, shape)
    return outputs.view(*inputs.shape[:-1], rows)


def dequantize(weight: PackedWeight, dtype: torch.dtype) -> Tensor:
    """The weight (rows, columns) in `dtype`, one of `DTYPES`: integer times scale, rounded once; see
    `reference.dequantize`.
    """
    shape, words, scales = _held(
        weight.data, weight.scales, weight.rows, weight.columns, weight.bits, weight.group_size
    )
    with torch.cuda.device_of(words):
        return _numbers(words, scales, shape, dtype)


def _held(
    data: Tensor, scales: Tensor, rows: int, columns: int, bits: int, group_size: int
) -> tuple[_Shape, Tensor, Tensor]:
    """Sizes, words and scales of a weight, in the form for the kernels."""
    if data.storage_offset() % 4:  # not aligned for reading words
        data = data.clone()
    shape = _Shape(rows, columns, bits, group_size, scales.shape[1], data.numel() // scales.shape[0])
    return shape, data.detach().view(torch.int32), scales.detach().contiguous()


torch.library.custom_op("chatglm::packed_linear", _run, mutates_args=())


@torch.library.register_fake("chatglm::packed_linear")  # type: ignore[untyped-decorator]
def _like(inputs: Tensor, data: Tensor, scales: Tensor, bias: Tensor | None, rows: int, *_: int) -> Tensor:
    return inputs.new_empty(*inputs.shape[:-1], rows)


class _Shape(NamedTuple):
    rows: int
    columns: int
    bits: int
    group_size: int
    groups: int
    tile_bytes: int

    @property
    def tiles(self) -> int:
        return -(-self.rows // TILE)

    @property
    def steps(self) -> int:
        """Number of words of a row."""
        return self.tile_bytes // (4 * TILE)

    @property
    def group_steps(self) -> int:
        """Number of words that share a scale; 0 if the whole row shares one."""
        return self.group_size * self.bits // 32


def _one(given: Tensor, words: Tensor, scales: Tensor, bias: Tensor | None, outputs: Tensor, shape: _Shape) -> None:
    """Launch `one_row`; given (1, columns)."""
    # A thread has 8 words in flight. With few tiles, more threads share a tile, so that every multiprocessor has enough
    # reads under way. If the steps of a block were more than half its threads, Triton would pass inputs through shared
    # memory, with a barrier for each plane. Up to that number each thread loads the inputs that it needs.
    warps = 16 if shape.tiles <= 512 or shape.bits == 8 else 8
    _load().one_row[(shape.tiles,)](
        given if given.stride(1) == 1 else given.contiguous(),
        words,
        scales,
        scales if bias is None else bias,
        outputs,
        shape.rows,
        shape.columns,
        shape.steps,
        shape.groups,
        BITS=shape.bits,
        GROUP_STEPS=shape.group_steps,
        STEPS=16 * warps,
        BIASED=bias is not None,
        num_warps=warps,
        enable_fp_fusion=True,
    )


_FEW = 64
"""Up to this number of rows of inputs, a kernel multiplies by the packed weights."""


def _few(given: Tensor, words: Tensor, scales: Tensor, bias: Tensor | None, outputs: Tensor, shape: _Shape) -> None:
    """Launch `few_rows`; given (count, columns)."""
    count = len(given)
    block = _block(count, given.dtype, shape)
    _load().few_rows[(-(-shape.rows // block.outputs),)](
        in_planes(given, shape.bits, shape.steps),
        words,
        scales,
        scales if bias is None else bias,
        outputs,
        count,
        shape.rows,
        shape.steps,
        shape.groups,
        BITS=shape.bits,
        GROUP_STEPS=shape.group_steps,
        ROWS=block.rows,
        OUTPUTS=block.outputs,
        STEPS=block.steps,
        TIMES=block.times,
        BIASED=bias is not None,
        # Tests run Triton's interpreter, which does not know PTX instructions.
        ASSEMBLED=shape.bits == 4 and given.dtype != torch.float32 and block.whole and words.is_cuda,
        num_warps=block.warps,
        num_stages=block.stages,
        enable_fp_fusion=True,
    )


class _Block(NamedTuple):
    rows: int
    outputs: int
    steps: int
    times: int
    warps: int
    stages: int
    whole: bool  # each block of steps has one scale per row


def _block(count: int, dtype: torch.dtype, shape: _Shape) -> _Block:
    """Block sizes that keep the matrix units busy and fit into the shared memory of every GPU from 8.0 on (99 KiB)."""
    rows = max(8, 1 << (count - 1).bit_length())
    if dtype == torch.float32:  # no matrix units: plain multiplications
        return _Block(rows, 32, 16, 1, 4, 2, False)
    whole = not shape.group_steps or shape.group_steps >= 16
    # Measured on an H200 with the layers of ChatGLM3-6B. Groups are short, so several are loaded together.
    steps = max(16, shape.group_steps) if shape.group_steps else 64
    if count > 32 or (count > 8 and not shape.group_steps):
        return _Block(rows, 64, steps, 1, 4, 3, whole)
    if not shape.group_steps:
        return _Block(rows, 16, steps, 1, 1, 3, whole)
    return _Block(rows, 32, steps, 64 // steps, 2, 3, whole)


def _numbers(words: Tensor, scales: Tensor, shape: _Shape, dtype: torch.dtype) -> Tensor:
    """The weight as floats (rows, columns)."""
    numbers = torch.empty(shape.rows, shape.columns, dtype=dtype, device=words.device)
    _load().unpacked[(shape.tiles, -(-shape.steps // 64))](
        words,
        scales,
        numbers,
        shape.rows,
        shape.columns,
        shape.steps,
        shape.groups,
        BITS=shape.bits,
        GROUP_STEPS=shape.group_steps,
        STEPS=64,
        num_warps=4,
    )
    return numbers


def in_planes(given: Tensor, bits: int, steps: int) -> Tensor:
    """Sort inputs (count, columns) into (count, planes, steps): plane i, step s is the input for the i-th number,
    counted from the lowest bit, of a row's word s. Inputs beyond the last column are 0.
    """
    planes = 32 // bits
    missing = planes * steps - given.shape[1]
    padded = F.pad(given, (0, missing)) if missing else given
    if bits == 8:
        return padded.unflatten(1, (steps, 4)).transpose(1, 2).contiguous()
    # The first 4 of 8 columns are the low halves of the bytes, the other 4 the high halves.
    return padded.unflatten(1, (steps, 2, 4)).permute(0, 3, 2, 1).flatten(1, 2).contiguous()
