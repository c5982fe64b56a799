"""What runs on the card, in Triton: a packed weight times one row of inputs, and times many.

The layout of `packing.py` suits a GPU as it is. Read as 32-bit words it is words[tile, step, row]: a word holds the 8
(4 bits) or 4 (8 bits) columns of one row in one step, and the 16 rows of a tile follow one another. So four threads
read the 64 bytes of a step, 16 bytes each, a warp reads 512 bytes in one piece, and every thread keeps rows of its own,
whose scales it needs anyway. No second copy of the weights is made.

Plane i of a step is the i-th number of each word, counted from its lowest bit; `cuda.in_planes` says which column that
is. Integers become float32 without a conversion instruction, of which a card does few at a time: their bits are put
under the exponent of 2^23, and 2^23 is taken off again; both steps are exact.

Nothing here imports torch, and only `kernels/cuda.py` imports this: Triton may be missing.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["many_rows", "one_row"]

_LANES = tl.constexpr(16)  # rows of a tile
_EXPONENT = tl.constexpr(0x4B000000)  # of 2^23, whose mantissa counts in ones
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
    """One tile of 16 outputs for one row of inputs: memory is read once, in order, sums are float32.

    inputs (columns,); words int32 (tiles, steps, 16); scales float16 (tiles, groups, 16), each for GROUP_STEPS steps,
    0: for the row; bias (rows,), read if BIASED; outputs (rows,).
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
            # Numbers stay where they are in the low half of the word, too large by 2^(plane · BITS mod 16): inputs make
            # up for that.
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
def many_rows(
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
    BIASED: tl.constexpr,
):
    """A block of (ROWS, OUTPUTS) with the card's matrix units: one product of (ROWS, STEPS) by (STEPS, OUTPUTS) for
    each plane. Weights are rounded to the inputs' type, once, as in `reference.dequantize`; with a scale per row their
    integers are multiplied as they are, which is exact, and the scale comes last.

    inputs (count, planes, steps), contiguous: `cuda.in_planes`; outputs (count, rows); all else as in `one_row`.
    Grid: blocks of inputs, which share weights and run together, by blocks of outputs.
    """
    PLANES: tl.constexpr = 32 // BITS
    number = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    tile, lane = row // _LANES, row % _LANES
    real = row < (rows + _LANES - 1) // _LANES * _LANES  # words of padding rows are there, of padding tiles not
    given = inputs + number.to(tl.int64)[:, None] * (PLANES * steps)
    sums = tl.zeros((ROWS, OUTPUTS), tl.float32)
    for first in range(0, steps, STEPS):
        step = first + tl.arange(0, STEPS)
        there = (step < steps)[:, None] & real[None, :]
        held = tl.load(words + (tile * steps)[None, :] * _LANES + step[:, None] * _LANES + lane[None, :], there, 0)
        if GROUP_STEPS > 0:
            group = (step // GROUP_STEPS)[:, None]
            where = (tile * groups)[None, :] * _LANES + group * _LANES + lane[None, :]
            scale = tl.load(scales + where, there, 0.0).to(tl.float32)
        known = (number < count)[:, None] & (step < steps)[None, :]
        for plane in tl.static_range(PLANES):
            bits = ((held >> (plane * BITS)) & ((1 << BITS) - 1)) | _EXPONENT
            weight = bits.to(tl.float32, bitcast=True) - (_TWO_23 + (1 << (BITS - 1)))
            if GROUP_STEPS > 0:
                weight *= scale
            x = tl.load(given + plane * steps + step[None, :], known, 0.0)
            sums = tl.dot(x, weight.to(x.dtype), sums, input_precision="ieee")
    if GROUP_STEPS == 0:
        sums *= tl.load(scales + row, real, 0.0).to(tl.float32)[None, :]
    if BIASED:
        sums += tl.load(bias + row, row < rows, 0.0).to(tl.float32)[None, :]
    place = outputs + number.to(tl.int64)[:, None] * rows + row[None, :]
    tl.store(place, sums.to(outputs.dtype.element_ty), (number < count)[:, None] & (row < rows)[None, :])
