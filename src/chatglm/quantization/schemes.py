"""Weights as integers and scales: the official scheme, bit for bit, and our scheme of groups of columns.

Both schemes are symmetric: weight ≈ integer · scale, without a zero point. In the official scheme (group size 0) one
scale serves a whole row. In our scheme one scale serves 32, 64 or 128 columns of a row; at 4 bits its error is less
than half of the official one. Each function here takes one matrix, works on the device of that matrix, and processes a
few rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from chatglm.errors import InputError
from chatglm.kernels.packing import GROUP_SIZES, TILE, PackedWeight, pack, shapes, unpack

__all__ = [
    "Scheme",
    "check",
    "from_official",
    "group_scales",
    "integers_of",
    "official_shape",
    "quantize",
    "quantize_groups",
    "quantize_rows",
    "relative_error",
    "rows_at_once",
    "to_official",
]

_SHRINK = (1.0, 0.92, 0.84, 0.76)
"""Scales that are tried for a group at 4 bits, relative to the scale that just represents its largest weight."""

_AT_ONCE = 1 << 18
"""Weights processed at a time on a CPU. Their float32 copies fit into its cache."""
_AT_ONCE_THERE = 1 << 25
"""Weights processed at a time on other devices: 128 MiB in float32, so that launching kernels takes little of the time.
"""


@dataclass(frozen=True)
class Scheme:
    """How weights become integers.

    Args:
        bits: 4 or 8.
        group_size: columns that share a scale: 32, 64 or 128; 0 for the official scheme, one scale per row.

    Raises:
        InputError: other bits or group sizes.
    """

    bits: int
    group_size: int = 128

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise InputError(f"bits is {self.bits!r}; weights can have 4 or 8")
        if self.group_size not in (0, *GROUP_SIZES):
            raise InputError(
                f"group_size is {self.group_size!r}; it must be {', '.join(map(str, GROUP_SIZES))}, or 0 for the "
                "official scheme, a scale per row"
            )

    @property
    def official(self) -> bool:
        """Whether this is the official scheme, one scale per row."""
        return self.group_size == 0

    def __str__(self) -> str:
        return f"int{self.bits}, " + ("a scale per row (official)" if self.official else f"groups of {self.group_size}")


def quantize(weight: Tensor, scheme: Scheme) -> PackedWeight:
    """Round a weight (rows, columns) of any float type to integers of the scheme, and pack them.

    Raises:
        InputError: the weight is not a matrix of floats, is empty, holds NaN or infinity, or is too large for float16
            scales.
    """
    (size, shape), (rows, columns) = _shapes(weight, scheme), weight.shape
    data = torch.empty(size, dtype=torch.uint8, device=weight.device)
    scales = torch.empty(shape, dtype=torch.float16, device=weight.device)
    whole = PackedWeight(data, scales, rows, columns, scheme.bits, scheme.group_size)
    for part, place in zip(_pieces(weight), _tiles(whole), strict=True):
        if scheme.official:
            integers, steps = quantize_rows(part, scheme.bits)
        else:
            integers, steps = quantize_groups(part, scheme.bits, scheme.group_size)
        made = pack(integers, steps, bits=scheme.bits, group_size=scheme.group_size)
        place.data.copy_(made.data)
        place.scales.copy_(made.scales)
    return whole


def check(weight: Tensor, scheme: Scheme) -> None:
    """Check whether `quantize` accepts a weight. The weight is read once, and not quantised.

    Raises:
        InputError: as `quantize`.
    """
    _shapes(weight, scheme)
    low, high = weight.aminmax()
    largest = torch.maximum(low.abs(), high.abs())
    if scheme.official:
        scale = largest / (2 ** (scheme.bits - 1) - 1)
    else:
        scale = largest.float() / (127 if scheme.bits == 8 else 8)
    _require_finite(scale.half())


def _shapes(weight: Tensor, scheme: Scheme) -> tuple[int, tuple[int, int, int]]:
    """`packing.shapes` of a weight."""
    if weight.ndim != 2:
        raise InputError(f"a weight of shape {tuple(weight.shape)} is not a matrix")
    if not weight.is_floating_point():
        raise InputError(f"a weight of {weight.dtype} has integers already; only floats can be rounded")
    rows, columns = weight.shape
    return shapes(rows, columns, scheme.bits, scheme.group_size)


def _pieces(weight: Tensor) -> Iterator[Tensor]:
    """Split a weight into pieces of a few rows; each piece but the last is a whole number of tiles."""
    yield from weight.split(rows_at_once(weight.shape[1], weight.device))


def _tiles(packed: PackedWeight) -> Iterator[PackedWeight]:
    """Split a packed weight into the same pieces as `_pieces`; the bytes of each piece are contiguous."""
    tiles = packed.scales.shape[0]
    bytes_of_tile = packed.data.numel() // tiles
    count = rows_at_once(packed.columns, packed.data.device) // TILE
    for start in range(0, tiles, count):
        stop = min(start + count, tiles)
        yield PackedWeight(
            packed.data[start * bytes_of_tile : stop * bytes_of_tile],
            packed.scales[start:stop],
            min(stop * TILE, packed.rows) - start * TILE,
            packed.columns,
            packed.bits,
            packed.group_size,
        )


def rows_at_once(columns: int, device: torch.device) -> int:
    """Number of rows of a weight that are processed at a time."""
    return max(1, (_AT_ONCE if device.type == "cpu" else _AT_ONCE_THERE) // columns // TILE) * TILE


def quantize_rows(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The official scheme (`quantization.py` of every official checkpoint): scale = max|w| / (2^(bits−1) − 1) per row,
    q = round_half_even(w / scale), all computed in the weight's own type.

    A row of zeros has scale 0 and integers 0. Integers are clamped to ±(2^(bits−1) − 1). float16 weights of normal size
    never exceed this range. Other weights can (bfloat16, subnormal numbers); there the int8 conversion of the official
    code would wrap around.

    Returns:
        The integers, int8 (rows, columns), and the scales, float16 (rows,).

    Raises:
        InputError: a scale is not finite in float16.
    """
    highest = 2 ** (bits - 1) - 1
    scales = (weight.abs().amax(dim=1) / highest).half()
    _require_finite(scales)
    steps = torch.round(weight / scales[:, None])
    steps = torch.where(scales[:, None] > 0, steps, torch.zeros_like(steps)).clamp_(-highest, highest)
    return steps.to(torch.int8), scales


def quantize_groups(weight: Tensor, bits: int, group_size: int) -> tuple[Tensor, Tensor]:
    """Round each group of columns of every row with a scale of its own (`group_scales`), computed in float32.

    Returns:
        The integers, int8 (rows, columns), and the scales, float16 (rows, groups). The last group of a row may be
        shorter.

    Raises:
        InputError: a scale is not finite in float16.
    """
    columns = weight.shape[1]
    groups = -(-columns // group_size)
    padded = torch.nn.functional.pad(weight.float(), (0, groups * group_size - columns))
    grouped = padded.unflatten(1, (groups, group_size))
    scales = group_scales(grouped, bits)
    _require_finite(scales)
    return integers_of(grouped, scales[..., None], bits).flatten(1)[:, :columns].contiguous(), scales


def group_scales(weights: Tensor, bits: int, importance: Tensor | None = None) -> Tensor:
    """The scale of each group of float32 weights (…, group), as float16 (…).

    8 bits: scale = max|w| / 127. 4 bits: integers are from −8 to 7, so the weight w* of largest magnitude becomes −8:
    scale = −w* / 8, which may be negative. A few smaller scales are tried as well, and the one with the least squared
    error is used. A smaller scale clips the few largest weights, but all others get finer steps. Compared with
    max|w| / 7, the error is about a sixth smaller at the same size.

    Args:
        importance: weights of the squared errors, of a shape that broadcasts to (…, group); default: all equal.
    """
    if bits == 8:
        return (weights.abs().amax(dim=-1) / 127).half()
    furthest = weights.gather(-1, weights.abs().argmax(dim=-1, keepdim=True))
    best = error = None
    for shrink in _SHRINK:
        scale = (furthest * (-shrink / 8)).half()
        off = (weights - integers_of(weights, scale, bits) * scale.float()).square_()
        off = (off if importance is None else off.mul_(importance)).sum(dim=-1, keepdim=True)
        if best is None or error is None:
            best, error = scale, off
        else:
            better = off < error
            best, error = torch.where(better, scale, best), torch.where(better, off, error)
    assert best is not None
    return best[..., 0]


def integers_of(weights: Tensor, scales: Tensor, bits: int) -> Tensor:
    """The nearest integers, int8, for weights and their float16 scales; 0 if the scale is 0."""
    scales = scales.float()
    low, high = (-8, 7) if bits == 4 else (-127, 127)
    steps = torch.where(scales != 0, weights / scales, torch.zeros_like(weights))
    return steps.round_().clamp_(low, high).to(torch.int8)


def _require_finite(scales: Tensor) -> None:
    if not bool(scales.isfinite().all()):
        raise InputError("the weight holds NaN, infinity or numbers too large for float16 scales; it is damaged")


# The official bytes


def official_shape(rows: int, columns: int, bits: int) -> tuple[int, int]:
    """Shape of the official int8 tensor of a weight. At 4 bits a byte holds two columns.

    Raises:
        InputError: the number of columns is odd, at 4 bits.
    """
    if bits == 4 and columns % 2:
        raise InputError(
            f"the official int4 layout stores two columns in a byte, so {columns} columns (an odd number) do not fit"
        )
    return rows, columns * bits // 8


def to_official(weight: PackedWeight) -> tuple[Tensor, Tensor]:
    """The tensors that official checkpoints hold: int8 `weight` and float16 `weight_scale` (rows,).

    At 4 bits a byte is (q[2i] << 4) | (q[2i+1] & 15): the even column is in the high half.

    Raises:
        InputError: the number of columns is odd, at 4 bits.
    """
    official_shape(weight.rows, weight.columns, weight.bits)
    integers, scales = unpack(weight)
    if weight.bits == 4:
        integers = (integers[:, ::2] << 4) | (integers[:, 1::2] & 15)
    return integers.contiguous(), scales[:, 0].contiguous()


def from_official(weight: Tensor, scales: Tensor, bits: int) -> PackedWeight:
    """Pack the tensors of an official checkpoint; the inverse of `to_official`.

    Raises:
        InputError: the tensors do not have the official types and shapes, or a scale is not finite.
    """
    if weight.dtype != torch.int8 or weight.ndim != 2 or scales.shape != weight.shape[:1]:
        raise InputError(
            f"not an official int{bits} weight: {tuple(weight.shape)} of {weight.dtype} with scales "
            f"{tuple(scales.shape)}"
        )
    if bits == 4:
        halves = torch.stack((weight >> 4, (weight << 4) >> 4), dim=-1)  # shifts of int8 keep the sign
        weight = halves.flatten(1)
    return pack(weight.contiguous(), scales, bits=bits, group_size=0)


def relative_error(weight: Tensor, packed: PackedWeight) -> float:
    """‖weight − dequantised weight‖ / ‖weight‖, Frobenius norms; 0 if the weight is all zeros."""
    size = packed.group_size or packed.columns
    off = total = 0.0
    for part, place in zip(_pieces(weight), _tiles(packed), strict=True):
        integers, scales = unpack(place)
        spread = scales.float().repeat_interleave(size, dim=1)[:, : packed.columns]
        exact = part.float()
        off += float((exact - integers * spread).square_().sum(dtype=torch.float64))
        total += float(exact.square().sum(dtype=torch.float64))
    return (off / total) ** 0.5 if total else 0.0
