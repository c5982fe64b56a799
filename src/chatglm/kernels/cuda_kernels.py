"""The Triton kernels: a packed weight times one row of inputs, times a few rows, and the conversion of a weight to
floats.

The layout of `packing.py` suits a GPU, so the weights need no second copy. Read as 32-bit words, it is words[tile,
step, row]: a word holds 8 (4 bits) or 4 (8 bits) columns of one row in one step, and the 16 rows of a tile are
adjacent. So four threads read the 64 bytes of a step, 16 bytes each; a warp reads 512 adjacent bytes; and each thread
works on fixed rows, so it needs the scales of these rows only.

Plane i of a step consists of the i-th number of each word, counted from the lowest bit; `cuda.in_planes` tells the
column of each. Integers are converted to float32 without the conversion instruction, which has a low throughput: their
bits are put into the mantissa of 2^23, and then 2^23 is subtracted. Both steps are exact.

This file does not import torch. Only `kernels/cuda.py` imports this file, because Triton may not be installed.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["few_rows", "one_row", "unpacked"]

_LANES = tl.constexpr(16)  # rows of a tile
_EXPONENT = tl.constexpr(0x4B000000)  # exponent bits of 2^23, with which the last bit of the mantissa means 1
_TWO_23 = tl.constexpr(8388608.0)


@triton.jit
def one_row(
    inputs,
    words,
    scales,
    bias,
    outputs,
    rows,
    columns,
    steps,
    groups,
    BITS: tl.constexpr,
    GROUP_STEPS: tl.constexpr,
    STEPS: tl.constexpr,
    BIASED: tl.constexpr,
):
    """Compute one tile of 16 outputs for one row of inputs. Memory is read once, in order; sums are float32.

    inputs (columns,); words int32 (tiles, steps, 16); scales float16 (tiles, groups, 16), each for GROUP_STEPS steps
    (0: for the whole row); bias (rows,), read if BIASED; outputs (rows,).
    Grid: tiles.
    """
    PLANES: tl.constexpr = 32 // BITS
    tile = tl.program_id(0)
    lane = tl.arange(0, _LANES)
    sums = tl.zeros((STEPS, _LANES), tl.float32)
    for first in range(0, steps, STEPS):
        step = first + tl.arange(0, STEPS)
        place = (tile * steps + step)[:, None] * _LANES + lane[None, :]
        held = tl.load(words + place, (step < steps)[:, None], 0)
        part = tl.zeros((STEPS, _LANES), tl.float32)
        for plane in tl.static_range(PLANES):
            # Numbers are not shifted down within a half word, so they are 2^(plane · BITS mod 16) times too large. The
            # inputs are divided by the same factor.
            half = held if plane * BITS < 16 else held >> 16
            bits = (half & (((1 << BITS) - 1) << plane * BITS % 16)) | _EXPONENT
            weight = bits.to(tl.float32, bitcast=True) - (_TWO_23 + (1 << (BITS - 1 + plane * BITS % 16)))
            column = step * PLANES + (plane if BITS == 8 else plane // 2 + plane % 2 * 4)
            x = tl.load(inputs + column, column < columns, 0.0).to(tl.float32) * (1.0 / (1 << plane * BITS % 16))
            part += x[:, None] * weight
        if GROUP_STEPS > 0:
            where = (tile * groups + step // GROUP_STEPS)[:, None] * _LANES + lane[None, :]
            part *= tl.load(scales + where, (step < steps)[:, None], 0.0).to(tl.float32)
        sums += part
    total = tl.sum(sums, axis=0)
    if GROUP_STEPS == 0:
        total *= tl.load(scales + tile * _LANES + lane).to(tl.float32)
    row = tile * _LANES + lane
    if BIASED:
        total += tl.load(bias + row, row < rows, 0.0).to(tl.float32)
    tl.store(outputs + row, total.to(outputs.dtype.element_ty), row < rows)


@triton.jit
def few_rows(
    inputs,
    words,
    scales,
    bias,
    outputs,
    count,
    rows,
    steps,
    groups,
    BITS: tl.constexpr,
    GROUP_STEPS: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    STEPS: tl.constexpr,
    TIMES: tl.constexpr,
    BIASED: tl.constexpr,
    ASSEMBLED: tl.constexpr,
):
    """Multiply a few rows of inputs, with the GPU's matrix units: for each plane, (OUTPUTS, STEPS) weights times
    (STEPS, ROWS) inputs. The weights are the first factor because the matrix units take that from registers: words go
    from memory through shared memory into the registers of the threads that convert and multiply them.

    If a step of the loop stays within one group, or a row has one scale, the integers are multiplied unscaled, which is
    exact, and the sums are scaled. With shorter groups the scaled weights are rounded to the type of the inputs.

    inputs (count, planes, steps), contiguous: `cuda.in_planes`; outputs (count, rows); TIMES: number of
    pieces of STEPS steps that are loaded together; ASSEMBLED: 4-bit numbers are converted by `_numbers`, two at a time;
    all else as in `one_row`.
    Grid: blocks of outputs.
    """
    PLANES: tl.constexpr = 32 // BITS
    row = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    tile, lane = row // _LANES, row % _LANES
    # Memory holds the padding rows of the last tile, but no further tiles.
    real = row < (rows + _LANES - 1) // _LANES * _LANES
    number = tl.arange(0, ROWS)
    given = inputs + number.to(tl.int64)[None, :] * (PLANES * steps)
    sums = tl.zeros((OUTPUTS, ROWS), tl.float32)
    for start in range(0, steps, STEPS * TIMES):
        for time in tl.static_range(TIMES):
            first = start + time * STEPS
            step = first + tl.arange(0, STEPS)
            there = real[:, None] & (step < steps)[None, :]
            held = tl.load(words + (tile * steps)[:, None] * _LANES + step[None, :] * _LANES + lane[:, None], there, 0)
            known = (step < steps)[:, None] & (number < count)[None, :]
            x = given + step[:, None]
            part = tl.zeros((OUTPUTS, ROWS), tl.float32)
            if ASSEMBLED:
                w0, w1, w2, w3, w4, w5, w6, w7 = _numbers(held, inputs.dtype.element_ty)
                part = tl.dot(w0, tl.load(x, known, 0.0), part)
                part = tl.dot(w1, tl.load(x + steps, known, 0.0), part)
                part = tl.dot(w2, tl.load(x + 2 * steps, known, 0.0), part)
                part = tl.dot(w3, tl.load(x + 3 * steps, known, 0.0), part)
                part = tl.dot(w4, tl.load(x + 4 * steps, known, 0.0), part)
                part = tl.dot(w5, tl.load(x + 5 * steps, known, 0.0), part)
                part = tl.dot(w6, tl.load(x + 6 * steps, known, 0.0), part)
                part = tl.dot(w7, tl.load(x + 7 * steps, known, 0.0), part)
            else:
                if GROUP_STEPS > 0 and GROUP_STEPS < STEPS:
                    where = (tile * groups)[:, None] * _LANES + (step // GROUP_STEPS)[None, :] * _LANES + lane[:, None]
                    scale = tl.load(scales + where, there, 0.0).to(tl.float32)
                for plane in tl.static_range(PLANES):
                    bits = ((held >> (plane * BITS)) & ((1 << BITS) - 1)) | _EXPONENT
                    weight = bits.to(tl.float32, bitcast=True) - (_TWO_23 + (1 << (BITS - 1)))
                    if GROUP_STEPS > 0 and GROUP_STEPS < STEPS:
                        weight *= scale
                    of_plane = tl.load(x + plane * steps, known, 0.0)
                    part = tl.dot(weight.to(of_plane.dtype), of_plane, part, input_precision="ieee")
            if GROUP_STEPS > 0 and GROUP_STEPS >= STEPS:
                group = tl.zeros_like(tile) + first // GROUP_STEPS
                place = (tile * groups + group) * _LANES + lane
                part *= tl.load(scales + place, real & (group < groups), 0.0).to(tl.float32)[:, None]
            sums += part
    if GROUP_STEPS == 0:
        sums *= tl.load(scales + row, real, 0.0).to(tl.float32)[:, None]
    if BIASED:
        sums += tl.load(bias + row, row < rows, 0.0).to(tl.float32)[:, None]
    place = outputs + number.to(tl.int64)[None, :] * rows + row[:, None]
    tl.store(place, sums.to(outputs.dtype.element_ty), (row < rows)[:, None] & (number < count)[None, :])


def _pairs(kind: str, exponent: int, one: int, offset: int) -> tl.constexpr:
    """PTX code that converts two words of 8 columns to 8 pairs of 16-bit floats. As in `one_row`, the bits are put into
    the mantissa of a number whose last mantissa bit means 1 (2^7 for bfloat16, 2^10 for float16). Then that number and
    the offset of 8 are subtracted. Each instruction converts two numbers.

    Args:
        exponent, one, offset: constants, each repeated in both halves of 32 bits; the offset is negative.
    """
    lines = [f"{{ .reg .b32 a, b, t, o, n; mov.b32 o, {one:#x}; mov.b32 n, {offset:#x};"]
    lines += ["prmt.b32 a, $8, $9, 0x5410; prmt.b32 b, $8, $9, 0x7632;"]  # low halves, high halves
    for plane in range(8):
        half = "ab"[plane // 4]
        if plane % 4:
            lines.append(f"shr.u32 {half}, {half}, 4;")
        lines.append(f"lop3.b32 t, {half}, 0x000F000F, {exponent:#x}, 0xEA; fma.rn.{kind}x2 ${plane}, t, o, n;")
    return tl.constexpr(" ".join([*lines, "}"]))


_BFLOAT16 = _pairs("bf16", 0x43004300, 0x3F803F80, 0xC308C308)
_FLOAT16 = _pairs("f16", 0x64006400, 0x3C003C00, 0xE408E408)
_EIGHT_BFLOAT16 = tl.constexpr((tl.bfloat16,) * 8)
_EIGHT_FLOAT16 = tl.constexpr((tl.float16,) * 8)
_OPERANDS = tl.constexpr("=r,=r,=r,=r,=r,=r,=r,=r,r,r")


@triton.jit
def _numbers(held, kind: tl.constexpr):
    """Convert words of 8 columns to the 8 planes as 16-bit floats."""
    if kind == tl.bfloat16:
        return tl.inline_asm_elementwise(_BFLOAT16, _OPERANDS, [held], dtype=_EIGHT_BFLOAT16, is_pure=True, pack=2)
    else:
        return tl.inline_asm_elementwise(_FLOAT16, _OPERANDS, [held], dtype=_EIGHT_FLOAT16, is_pure=True, pack=2)


@triton.jit
def unpacked(words, scales, outputs, rows, columns, steps, groups, BITS: tl.constexpr, GROUP_STEPS: tl.constexpr,
             STEPS: tl.constexpr):  # fmt: skip
    """Convert the weight to floats, outputs (rows, columns), each rounded once.

    Grid: tiles, blocks of STEPS words.
    """
    PLANES: tl.constexpr = 32 // BITS
    tile = tl.program_id(0)
    lane = tl.arange(0, _LANES)
    step = tl.program_id(1) * STEPS + tl.arange(0, STEPS)
    there = (step < steps)[:, None] & (lane < _LANES)[None, :]
    held = tl.load(words + (tile * steps + step)[:, None] * _LANES + lane[None, :], there, 0)
    if GROUP_STEPS > 0:
        where = (tile * groups + step // GROUP_STEPS)[:, None] * _LANES + lane[None, :]
        scale = tl.load(scales + where, there, 0.0).to(tl.float32)
    else:
        scale = tl.load(scales + tile * _LANES + lane).to(tl.float32)[None, :]
    kind: tl.constexpr = outputs.dtype.element_ty
    if BITS == 4:  # the first 4 of 8 columns are the low halves of the bytes, the other 4 the high halves
        a = tl.join(_plane(held, scale, 0, BITS, kind), _plane(held, scale, 1, BITS, kind))
        b = tl.join(_plane(held, scale, 2, BITS, kind), _plane(held, scale, 3, BITS, kind))
        c = tl.join(_plane(held, scale, 4, BITS, kind), _plane(held, scale, 5, BITS, kind))
        d = tl.join(_plane(held, scale, 6, BITS, kind), _plane(held, scale, 7, BITS, kind))
        numbers = tl.join(tl.join(a, c), tl.join(b, d))  # (STEPS, 16, high or low, byte / 2, byte % 2)
    else:
        a = tl.join(_plane(held, scale, 0, BITS, kind), _plane(held, scale, 2, BITS, kind))
        b = tl.join(_plane(held, scale, 1, BITS, kind), _plane(held, scale, 3, BITS, kind))
        numbers = tl.join(a, b)
    numbers = tl.reshape(numbers, (STEPS, _LANES, PLANES))
    numbers = tl.reshape(tl.permute(numbers, (1, 0, 2)), (_LANES, STEPS * PLANES))
    row = tile * _LANES + lane
    column = tl.program_id(1) * (STEPS * PLANES) + tl.arange(0, STEPS * PLANES)
    place = outputs + row.to(tl.int64)[:, None] * columns + column[None, :]
    tl.store(place, numbers, (row < rows)[:, None] & (column < columns)[None, :])


@triton.jit
def _plane(held, scale, plane: tl.constexpr, BITS: tl.constexpr, kind: tl.constexpr):
    bits = ((held >> (plane * BITS)) & ((1 << BITS) - 1)) | _EXPONENT
    return ((bits.to(tl.float32, bitcast=True) - (_TWO_23 + (1 << (BITS - 1)))) * scale).to(kind)
