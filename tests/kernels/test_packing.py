"""The layout of integer weights: nothing is lost in it, and it is where the text says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chatglm.errors import InputError
from chatglm.kernels.packing import GROUP_SIZES, PackedWeight, pack, shapes, unpack

SIZES = (*GROUP_SIZES, 0)


def drawn(rows: int, columns: int, bits: int, group_size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    low, high = -(1 << (bits - 1)), 1 << (bits - 1)
    groups = -(-columns // group_size) if group_size else 1
    integers = torch.randint(low, high, (rows, columns), dtype=torch.int8, generator=generator)
    return integers, torch.rand(rows, groups, generator=generator).half()


@given(
    rows=st.integers(1, 50),
    columns=st.integers(1, 300),
    bits=st.sampled_from((4, 8)),
    group_size=st.sampled_from(SIZES),
    seed=st.integers(0, 99),
)
def test_round_trip(rows: int, columns: int, bits: int, group_size: int, seed: int) -> None:
    integers, scales = drawn(rows, columns, bits, group_size, seed)
    packed = pack(integers, scales, bits=bits, group_size=group_size)
    back, back_scales = unpack(packed)
    assert torch.equal(back, integers)
    assert torch.equal(back_scales, scales)
    assert (packed.data.shape[0], tuple(packed.scales.shape)) == shapes(rows, columns, bits, group_size)


@pytest.mark.parametrize("bits", [4, 8])
def test_every_integer_is_where_the_layout_says(bits: int) -> None:
    integers, scales = drawn(40, 256, bits, 32)
    packed = pack(integers, scales, bits=bits, group_size=32)
    for row, column in ((0, 0), (1, 3), (17, 4), (39, 255), (31, 12), (16, 128)):
        tile, lane = divmod(row, 16)
        assert packed.scales[tile, column // 32, lane] == scales[row, column // 32]
        if bits == 8:
            steps = packed.data.view(-1, 64, 16, 4)
            assert int(steps[tile, column // 4, lane, column % 4]) - 128 == integers[row, column]
        else:
            step, inside = divmod(column, 8)
            byte = int(packed.data.view(-1, 32, 16, 4)[tile, step, lane, inside % 4])
            assert (byte >> 4 if inside >= 4 else byte & 15) - 8 == integers[row, column]


def test_what_does_not_fit_is_refused() -> None:
    integers, scales = drawn(16, 64, 4, 32)
    for wrong, reason in (
        ({"bits": 3}, "bits=3"),
        ({"group_size": 48}, "group_size=48"),
        ({"group_size": 64}, r"scales of 16x64 in groups of 64 are \(16, 1\)"),
    ):
        with pytest.raises(InputError, match=reason):
            pack(integers, scales, **{"bits": 4, "group_size": 32, **wrong})
    with pytest.raises(InputError, match="from -8 to 7"):
        pack(integers + 8, scales, bits=4, group_size=32)
    with pytest.raises(InputError, match="int8"):
        pack(integers.int(), scales, bits=8, group_size=32)
    with pytest.raises(InputError, match="not finite"):
        pack(integers, scales.float() * 1e6, bits=4, group_size=32)
    packed = pack(integers, scales, bits=4, group_size=32)
    with pytest.raises(InputError, match="16x64 at 8 bits is 1024 bytes"):
        PackedWeight(packed.data, packed.scales, 16, 64, 8, 32)
    with pytest.raises(InputError, match="scales of a packed weight of 16x64 are"):
        PackedWeight(packed.data, packed.scales.float(), 16, 64, 4, 32)
