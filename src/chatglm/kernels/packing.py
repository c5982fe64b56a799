"""The memory layout of integer weights: tiles that kernels of every instruction set read from beginning to end.

A weight of R rows (outputs) and K columns (inputs) is cut into tiles of 16 rows. Within a tile, 4 neighbouring columns
of each of the 16 rows are adjacent: 64 bytes, which is one AVX-512 register with one row per 32-bit lane. Instructions
that multiply 4 bytes by 4 bytes and add up (VNNI's vpdpbusd, NEON's sdot) then need no shuffle, and a matrix-vector
product reads memory once, in order.

    8 bits   data[tile, step, row, k]  = q[16·tile + row, 4·step + k] + 128                  (steps of 4 columns)
    4 bits   data[tile, step, row, k]  = q[16·tile + row, 8·step + k] + 8                    (steps of 8 columns)
                                         | q[16·tile + row, 8·step + 4 + k] + 8  << 4
    scales[tile, group, row], float16; group g has columns g·group_size … ; weight = q · scale

Rows are padded to a multiple of 16, and columns to a multiple of the group size (of `BLOCK` with one scale per row),
with q = 0 and scale 0. A packed checkpoint holds the same bytes, so its file can be mapped into memory and used without
a copy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from chatglm.errors import InputError

__all__ = ["BLOCK", "GROUP_SIZES", "TILE", "PackedWeight", "pack", "shapes", "unpack"]

TILE = 16
"""Rows of a tile."""

GROUP_SIZES = (32, 64, 128)
"""Numbers of columns that can share a scale; otherwise a whole row shares one."""

BLOCK = 128
"""Inputs that share a scale when inputs are quantised, if a whole row of the weight shares one."""


@dataclass(frozen=True)
class PackedWeight:
    """An integer weight in the layout above.

    Args:
        data: uint8, 1-d; see the module's docstring.
        scales: float16, (tiles, groups, 16).
        rows, columns: of the weight itself, without padding.
        bits: 4 or 8.
        group_size: columns that share a scale: 32, 64 or 128; 0 if the whole row shares one.

    Raises:
        InputError: unsupported bits or group size, or data or scales of another type or shape.
    """

    data: Tensor
    scales: Tensor
    rows: int
    columns: int
    bits: int
    group_size: int

    def __post_init__(self) -> None:
        size, scales = shapes(self.rows, self.columns, self.bits, self.group_size)
        if self.data.shape != (size,) or self.data.dtype != torch.uint8:
            raise InputError(
                f"a packed weight of {self.rows}x{self.columns} at {self.bits} bits is {size} bytes, got "
                f"{tuple(self.data.shape)} of {self.data.dtype}"
            )
        if tuple(self.scales.shape) != scales or self.scales.dtype != torch.float16:
            raise InputError(
                f"scales of a packed weight of {self.rows}x{self.columns} are {scales} of float16, got "
                f"{tuple(self.scales.shape)} of {self.scales.dtype}"
            )

    @property
    def block(self) -> int:
        """Inputs that share a scale when inputs are quantised: the weight's group size, or 128."""
        return self.group_size or BLOCK

    @property
    def padded_columns(self) -> int:
        """Number of columns with padding."""
        return _up(self.columns, self.block)

    def to(self, device: torch.device | str) -> PackedWeight:
        """The same weight on a device."""
        return PackedWeight(
            self.data.to(device), self.scales.to(device), self.rows, self.columns, self.bits, self.group_size
        )


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def shapes(rows: int, columns: int, bits: int, group_size: int) -> tuple[int, tuple[int, int, int]]:
    """Number of bytes of the data, and shape of the scales.

    Raises:
        InputError: unsupported bits or group size.
    """
    if bits not in (4, 8):
        raise InputError(f"bits={bits}: must be 4 or 8")
    if group_size not in (0, *GROUP_SIZES):
        raise InputError(f"group_size={group_size}: must be {', '.join(map(str, GROUP_SIZES))}, or 0 for whole rows")
    if rows < 1 or columns < 1:
        raise InputError(f"a weight of {rows}x{columns} is empty")
    padded = _up(columns, group_size or BLOCK)
    tiles = _up(rows, TILE) // TILE
    return tiles * TILE * padded * bits // 8, (tiles, padded // group_size if group_size else 1, TILE)


def pack(integers: Tensor, scales: Tensor, *, bits: int, group_size: int) -> PackedWeight:
    """Pack an integer weight.

    Args:
        integers: int8, (rows, columns): -8 … 7 at 4 bits, -128 … 127 at 8.
        scales: (rows, groups), or (rows,) with one scale per row; stored as float16.
        group_size: columns that share a scale, or 0 for whole rows. The last group may be shorter.

    Raises:
        InputError: a shape does not fit, or an integer or scale is out of range.
    """
    rows, columns = integers.shape
    _, (tiles, groups, _) = shapes(rows, columns, bits, group_size)
    if scales.ndim == 1:
        scales = scales[:, None]
    given = -(-columns // group_size) if group_size else 1
    if scales.shape != (rows, given):
        raise InputError(
            f"scales of {rows}x{columns} in groups of {group_size} are {(rows, given)}, got {tuple(scales.shape)}"
        )
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    if integers.dtype != torch.int8 or (bits == 4 and not bool(((integers >= low) & (integers <= high)).all())):
        raise InputError(f"integers of {bits} bits are int8 from {low} to {high}")
    halves = scales.to(torch.float16)
    if not bool(halves.isfinite().all()):
        raise InputError("a scale is not finite in float16; the weight it belongs to is broken or too large")
    padded = _up(columns, group_size or BLOCK)
    whole = integers.new_zeros(tiles * TILE, padded)
    whole[:rows, :columns] = integers
    laid_scales = halves.new_zeros(tiles * TILE, groups)
    laid_scales[:rows, :given] = halves
    if bits == 8:
        steps = whole.view(tiles, TILE, padded // 4, 4).permute(0, 2, 1, 3)
        data = steps.contiguous().view(torch.uint8) ^ 0x80  # q + 128
    else:
        steps = whole.view(tiles, TILE, padded // 8, 2, 4).permute(3, 0, 2, 1, 4)
        low_half, high_half = (steps + 8).to(torch.uint8)
        data = low_half | (high_half << 4)
    return PackedWeight(
        data.reshape(-1),
        laid_scales.view(tiles, TILE, groups).permute(0, 2, 1).contiguous(),
        rows,
        columns,
        bits,
        group_size,
    )


def unpack(weight: PackedWeight) -> tuple[Tensor, Tensor]:
    """The integers, int8 (rows, columns), and the scales, float16 (rows, groups); the inverse of `pack`."""
    tiles = weight.scales.shape[0]
    padded = weight.padded_columns
    if weight.bits == 8:
        steps = (weight.data ^ 0x80).view(torch.int8).view(tiles, padded // 4, TILE, 4)
        whole = steps.permute(0, 2, 1, 3).reshape(tiles * TILE, padded)
    else:
        low, high = weight.data & 15, weight.data >> 4
        both = (torch.stack((low, high)).to(torch.int8) - 8).view(2, tiles, padded // 8, TILE, 4)
        whole = both.permute(1, 3, 2, 0, 4).reshape(tiles * TILE, padded)
    scales = weight.scales.permute(0, 2, 1).reshape(tiles * TILE, -1)
    given = -(-weight.columns // weight.group_size) if weight.group_size else 1
    return whole[: weight.rows, : weight.columns].contiguous(), scales[: weight.rows, :given].contiguous()
