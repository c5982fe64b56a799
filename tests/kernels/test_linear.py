"""Linear layers over packed weights: every variant that this CPU has, against torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_packing import drawn
from torch import Tensor

from chatglm.errors import InputError
from chatglm.kernels import native, reference
from chatglm.kernels.linear import linear
from chatglm.kernels.packing import GROUP_SIZES, PackedWeight, pack

UNIT = 2.0**-24  # half a unit in the last place of a float32, relative


@pytest.fixture(params=["avx512", "avx-vnni", "avx2", "neon", "portable"])
def library(request: pytest.FixtureRequest) -> Any:
    lib = native.library()
    if lib is None:
        pytest.skip(f"no native kernels: {native.info().reason}")
    if request.param not in native.info().variants:
        pytest.skip(f"this CPU cannot run {request.param}")
    before = lib.cg_variant()
    lib.cg_use(request.param.encode())
    yield lib
    lib.cg_use(before)


def packed_weight(rows: int, columns: int, bits: int, group_size: int) -> PackedWeight:
    integers, scales = drawn(rows, columns, bits, group_size)
    return pack(integers, scales, bits=bits, group_size=group_size)


def parts(inputs: Tensor, weight: PackedWeight) -> Tensor:
    """What each block adds to each output, exactly: (M, rows, blocks) in float64."""
    padded = F.pad(inputs.float(), (0, weight.padded_columns - weight.columns))
    integers, scales = reference.quantize_inputs(padded, weight.block)
    columns = F.pad(reference.dequantize(weight, torch.float64), (0, weight.padded_columns - weight.columns))
    values = integers.double().unflatten(1, (-1, weight.block)) * scales.double()[..., None]
    return torch.einsum("mbk,rbk->mrb", values, columns.unflatten(1, (-1, weight.block)))


def bound(inputs: Tensor, weight: PackedWeight) -> Tensor:
    """How far float32 sums may be off.

    Integer products are exact, and exact as float32 (below 2^24). A block's part is rounded when the two scales are
    multiplied and when it is added, as are all later sums: at most (blocks + 1) roundings of it, and one of the end.
    """
    added = parts(inputs, weight)
    return (added.shape[-1] + 2) * UNIT * added.abs().sum(dim=-1) + UNIT * added.sum(dim=-1).abs() + 1e-30


SHAPES = [(1, 5), (16, 128), (37, 300), (48, 1024), (130, 96), (33, 1001)]


@pytest.mark.parametrize("group_size", [*GROUP_SIZES, 0])
@pytest.mark.parametrize("bits", [4, 8])
def test_variants_compute_what_the_reference_says(library: Any, bits: int, group_size: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for rows, columns in SHAPES:
        weight = packed_weight(rows, columns, bits, group_size)
        for count in (1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 64):
            inputs = torch.randn(count, columns, generator=generator) * 3
            inputs[0, : columns // 2] *= 100  # one block's values say nothing about another's
            off = (native.linear(library, inputs, weight).double() - parts(inputs, weight).sum(dim=-1)).abs()
            assert (off <= bound(inputs, weight)).all(), (rows, columns, count, float(off.max()))


def test_thousands_of_rows(library: Any) -> None:
    weight = packed_weight(64, 256, 4, 128)
    inputs = torch.randn(3001, 256)
    off = (native.linear(library, inputs, weight).double() - parts(inputs, weight).sum(dim=-1)).abs()
    assert (off <= bound(inputs, weight)).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_how_far_from_exact_inputs(library: Any, bits: int) -> None:
    """An input is off by half its block's scale at most: so is the sum, times the weights' sizes."""
    weight = packed_weight(40, 512, bits, 64)
    inputs = torch.randn(9, 512)
    _, scales = reference.quantize_inputs(inputs, 64)
    sizes = reference.dequantize(weight, torch.float64).abs().unflatten(1, (-1, 64)).sum(dim=-1)
    most = (scales.double() / 2) @ sizes.T + bound(inputs, weight)
    exact = inputs.double() @ reference.dequantize(weight, torch.float64).T
    assert ((native.linear(library, inputs, weight).double() - exact).abs() <= most * (1 + 1e-6)).all()


def test_inputs_become_the_reference_s_bytes(library: Any) -> None:
    inputs = torch.randn(5, 256) * torch.logspace(-30, 30, 5)[:, None]
    inputs[1, 64:128] = 0
    inputs[2, 3] = 0.5 / 127  # halves round to even
    got, scales, sums = torch.empty(5, 256, dtype=torch.int8), torch.empty(5, 4), torch.empty(5, 4, dtype=torch.int32)
    library.cg_quantize(inputs.data_ptr(), 5, 256, 64, got.data_ptr(), scales.data_ptr(), sums.data_ptr())
    integers, wanted = reference.quantize_inputs(inputs, 64)
    assert torch.equal(got, integers)
    assert torch.equal(scales, wanted)
    assert torch.equal(sums.long(), integers.long().unflatten(1, (4, 64)).sum(dim=-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_types_strides_and_bias(library: Any, dtype: torch.dtype) -> None:
    weight = packed_weight(37, 200, 4, 32)
    inputs = torch.randn(2, 3, 400).to(dtype)[..., 100:300]  # rows that do not follow one another, at odd addresses
    bias = torch.randn(37).to(dtype)
    got = native.linear(library, inputs, weight, bias)
    assert (got.dtype, got.shape) == (dtype, (2, 3, 37))
    wanted = reference.linear_int8(inputs.double(), weight, bias)
    steps = {torch.float32: UNIT, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}[dtype]
    most = bound(inputs.reshape(-1, 200), weight).view(2, 3, 37) + (wanted.abs() + bias.double().abs()) * steps * 1.01
    assert ((got.double() - wanted).abs() <= most + 1e-6).all()


def test_unaligned_weights(library: Any) -> None:
    weight = packed_weight(32, 256, 4, 128)
    data = torch.empty(len(weight.data) + 1, dtype=torch.uint8)[1:].copy_(weight.data)
    scales = torch.empty(weight.scales.numel() + 1, dtype=torch.float16)[1:].view_as(weight.scales).copy_(weight.scales)
    moved = PackedWeight(data, scales, 32, 256, 4, 128)
    inputs = torch.randn(4, 256)
    assert torch.equal(native.linear(library, inputs, moved), native.linear(library, inputs, weight))


def test_broken_numbers_are_not_hidden(library: Any) -> None:
    weight = packed_weight(16, 128, 8, 64)
    for broken in (float("nan"), float("inf"), float("-inf")):
        inputs = torch.randn(3, 128)
        inputs[1, 70] = broken
        got = native.linear(library, inputs, weight)
        assert not got[1].isfinite().any()
        assert got[[0, 2]].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_plain_weights(library: Any, dtype: torch.dtype) -> None:
    for rows, columns in SHAPES:
        weight = (torch.randn(rows, columns) / columns**0.5).to(dtype)
        inputs = torch.randn(7, columns)
        wanted = inputs.double() @ weight.double().T
        most = (columns + 2) * UNIT * (inputs.double().abs() @ weight.double().abs().T) + 1e-30
        assert ((native.linear(library, inputs, weight).double() - wanted).abs() <= most).all()


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_any_number_of_threads_computes_the_same(library: Any, threads: int) -> None:
    weight, inputs = packed_weight(333, 256, 4, 64), torch.randn(9, 256)
    wanted = native.linear(library, inputs, weight)
    before = library.cg_threads()
    try:
        library.cg_set_threads(threads)
        assert torch.equal(native.linear(library, inputs, weight), wanted)
    finally:
        library.cg_set_threads(before)


def test_gradients_pass_through() -> None:
    weight = packed_weight(24, 96, 4, 32)
    inputs, bias = torch.randn(2, 3, 96, requires_grad=True), torch.randn(24, requires_grad=True)
    out = linear(inputs, weight, bias)
    wanted = torch.randn_like(out)
    out.backward(wanted)
    assert torch.allclose(inputs.grad, wanted @ reference.dequantize(weight), atol=1e-5)
    assert torch.allclose(bias.grad, wanted.sum(dim=(0, 1)), atol=1e-6)


def test_wrong_width_is_refused() -> None:
    lib = native.library()
    if lib is None:
        pytest.skip(f"no native kernels: {native.info().reason}")
    with pytest.raises(InputError, match="a weight of 16x128 takes 128 inputs, got 64"):
        native.linear(lib, torch.randn(2, 64), packed_weight(16, 128, 4, 64))
