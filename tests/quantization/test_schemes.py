"""Integers and scales: the official ones bit for bit, and what holds for any weight."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from chatglm.errors import InputError
from chatglm.kernels.packing import unpack
from chatglm.models.checkpoint import weight_files
from chatglm.quantization.schemes import (
    Scheme,
    from_official,
    quantize,
    quantize_groups,
    quantize_rows,
    relative_error,
    to_official,
)

SIZES = (32, 64, 128)


@pytest.mark.parametrize("version", ["chatglm", "chatglm2", "chatglm3"])
def test_official_integers_bit_for_bit(version: str, checkpoint, shared: Path) -> None:
    state = {k: v for f in weight_files(checkpoint(version)) for k, v in torch.load(f, weights_only=True).items()}
    record = load_file(shared / "golden" / version / "quant.safetensors")
    names = [name for name in record if ".layers." in name and name.endswith(".weight")]
    assert len(names) == 24
    for name in names:
        bits, layer = int(name[3]), name.split(".", 1)[1]
        (weight,) = (tensor for full, tensor in state.items() if full.endswith(layer))
        made, scales = to_official(quantize(weight, Scheme(bits, 0)))
        assert torch.equal(made, record[name])
        assert torch.equal(scales, record[f"{name}_scale"])
        again = from_official(record[name], record[f"{name}_scale"], bits)
        assert torch.equal(again.data, quantize(weight, Scheme(bits, 0)).data)


@pytest.mark.parametrize("version", ["chatglm", "chatglm2", "chatglm3"])
def test_official_rounding_cases(version: str, shared: Path) -> None:
    """Ties, a number just below one, a row of zeros. differences: quantize-anywhere"""
    record = json.loads((shared / "golden" / version / "quant.json").read_text("utf-8"))
    assert record["official_quantize(4)_on_cpu_only_machine"].startswith("AssertionError")
    micro = record["rounding_micro"]
    integers, scales = quantize_rows(torch.tensor(micro["w"]).half(), 4)
    assert integers.tolist() == micro["q"]
    assert scales.tolist() == micro["scale"]
    made, _ = to_official(quantize(torch.tensor(micro["w"]).half(), Scheme(4, 0)))
    assert made.view(torch.uint8).tolist() == micro["packed"]
    zero = record["zero_row"]
    for bits in (4, 8):
        integers, scales = quantize_rows(torch.zeros(1, 8).half(), bits)
        assert integers.tolist() == zero["q_int8_cpu"]
        assert scales.tolist() == zero["scale"]


def test_computed_in_the_weights_precision() -> None:
    """Of float16 weights 1 % of the int8 integers are not those of a float32 computation; and they are the official."""
    weight = torch.randn(64, 512, generator=torch.Generator().manual_seed(0)).half()
    ours, scales = quantize_rows(weight, 8)
    official = torch.round(weight / (weight.abs().max(dim=-1).values / 127).half()[:, None]).to(torch.int8)
    assert torch.equal(ours, official)
    exact = torch.round(weight.float() / scales.float()[:, None]).to(torch.int8)
    assert 0.002 < (ours != exact).float().mean() < 0.02


matrices = st.tuples(
    st.integers(1, 40), st.integers(1, 300), st.integers(0, 2**31), st.sampled_from((1e-2, 1.0, 5.0)), st.booleans()
)


def drawn(shape: tuple[int, int, int, float, bool]) -> torch.Tensor:
    rows, columns, seed, spread, heavy = shape
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator) * spread
    return weight**3 if heavy else weight


@settings(deadline=None)
@given(matrices, st.sampled_from((4, 8)), st.sampled_from((0, *SIZES)))
def test_error_is_half_a_step_where_nothing_is_cut_off(shape, bits: int, size: int) -> None:
    weight = drawn(shape)
    packed = quantize(weight, Scheme(bits, size))
    integers, scales = unpack(packed)
    spread = scales.float().repeat_interleave(size or weight.shape[1], dim=1)[:, : weight.shape[1]]
    low, high = int(integers.min()), int(integers.max())
    assert -(2 ** (bits - 1)) <= low
    assert high <= 2 ** (bits - 1) - 1
    inside = (integers > -(2 ** (bits - 1))) & (integers < 2 ** (bits - 1) - 1)
    off = (weight - integers.float() * spread).abs()
    # The scale is a float16: near its smallest numbers it is itself rounded, hence the second term.
    assert (off <= spread.abs() * 0.5001 + 2e-7 * 2**bits)[inside].all()


@settings(deadline=None)
@given(matrices, st.sampled_from(SIZES))
def test_groups_are_never_worse_than_plain_rounding(shape, size: int) -> None:
    weight = drawn(shape)
    integers, scales = quantize_groups(weight, 4, size)
    columns = weight.shape[1]
    padded = torch.nn.functional.pad(weight, (0, -columns % size)).unflatten(1, (-1, size))
    furthest = padded.gather(-1, padded.abs().argmax(-1, keepdim=True))
    plain = (furthest / -8).half().float()
    steps = torch.where(plain != 0, padded / plain, 0).round().clamp(-8, 7)
    spread = scales.float().repeat_interleave(size, dim=1)[:, :columns]
    ours = (weight - integers.float() * spread).square().sum()
    assert ours <= (padded - steps * plain).square().sum() * (1 + 1e-5)


@settings(deadline=None)
@given(matrices, st.sampled_from((4, 8)))
def test_official_bytes_round_trip(shape, bits: int) -> None:
    weight = drawn(shape).half()
    if bits == 4 and weight.shape[1] % 2:
        with pytest.raises(InputError, match="two columns in a byte"):
            to_official(quantize(weight, Scheme(bits, 0)))
        return
    packed = quantize(weight, Scheme(bits, 0))
    again = from_official(*to_official(packed), bits)
    assert torch.equal(packed.data, again.data)
    assert torch.equal(packed.scales, again.scales)


def test_even_column_in_the_high_half() -> None:
    packed = quantize(torch.tensor([[7.0, -7.0, 1.0, 2.0]]).half(), Scheme(4, 0))
    made, scales = to_official(packed)
    assert made.tolist() == [[(7 << 4) | 9, (1 << 4) | 2]]
    assert scales.tolist() == [1.0]


def test_groups_beat_rows() -> None:
    weight = torch.randn(64, 1024, generator=torch.Generator().manual_seed(0)) ** 3
    errors = [relative_error(weight, quantize(weight, Scheme(4, size))) for size in (0, 128, 64, 32)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 2 * errors[2]
    assert relative_error(weight, quantize(weight, Scheme(8, 128))) < 0.02
    assert relative_error(torch.zeros(4, 64), quantize(torch.zeros(4, 64), Scheme(4))) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scheme", [Scheme(4, 0), Scheme(8, 0), Scheme(4), Scheme(8, 64)])
def test_every_precision(dtype: torch.dtype, scheme: Scheme) -> None:
    """differences: half-scales"""
    weight = torch.randn(40, 200, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert relative_error(weight, quantize(weight, scheme)) < (0.25 if scheme.bits == 4 else 0.015)


def test_nothing_wraps_around() -> None:
    """differences: no-wrap. bfloat16 division makes 128 of 127.5, denormal float16 scales make 10 of 7."""
    weight = torch.linspace(-3, 3, 4096).bfloat16()[None] * torch.linspace(0.5, 2, 64).bfloat16()[:, None]
    integers, scales = quantize_rows(weight, 8)
    assert (
        (integers.float() * scales.float()[:, None] - weight.float()).abs() <= weight.float().abs() * 0.02 + 0.03
    ).all()
    tiny = torch.arange(1, 17).half()[None] * 6e-8
    assert int(quantize_rows(tiny, 4)[0].max()) <= 7


@pytest.mark.parametrize("scheme", [Scheme(4, 0), Scheme(8, 32)])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9])
def test_broken_weights_are_refused(scheme: Scheme, value: float) -> None:
    weight = torch.ones(3, 64)
    weight[1, 2] = value
    with pytest.raises(InputError, match=r"finite|damaged"):
        quantize(weight, scheme)


@pytest.mark.parametrize(("bits", "size"), [(3, 128), (16, 0), (4, 1), (4, 256), (8, -1)])
def test_numbers_that_there_are_not(bits: int, size: int) -> None:
    with pytest.raises(InputError, match=r"must be|can have"):
        Scheme(bits, size)
