"""Layers over integers: what they compute, and that nothing but moving is done to the integers."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from chatglm.errors import InputError
from chatglm.kernels import reference
from chatglm.quantization.linear import QuantizedEmbedding, QuantizedLinear
from chatglm.quantization.schemes import Scheme

SCHEMES = [Scheme(4, 0), Scheme(8, 0), Scheme(4, 32), Scheme(8, 128)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def layer(scheme: Scheme, rows: int = 37, columns: int = 200, bias: bool = True) -> QuantizedLinear:
    return QuantizedLinear.from_linear(nn.Linear(columns, rows, bias=bias), scheme)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("shape", [(200,), (1, 200), (2, 3, 200), (0, 200)])
def test_forward_and_gradient(scheme: Scheme, shape: tuple[int, ...]) -> None:
    made = layer(scheme)
    inputs = torch.randn(shape, requires_grad=True)
    outputs = made(inputs)
    weight = made.dequantized()
    exact = inputs @ weight.T + made.bias
    # differences: quantised-matmul. Native kernels round inputs to int8 (kernels/reference.py: linear_int8), which
    # moves an output by half a step of each input, times |weights|.
    bound = (inputs.abs().amax(-1, keepdim=True) / 254) * weight.abs().sum(-1) * 1.02 + 1e-4 if inputs.numel() else 0
    assert ((outputs - exact).abs() <= bound).all()
    outputs.sum().backward()
    torch.testing.assert_close(inputs.grad, weight.sum(0).expand(shape), atol=1e-4, rtol=1e-4)
    assert made.bias.grad is not None
    assert not made.weight.requires_grad


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_casting_leaves_integers_and_scales(scheme: Scheme, dtype: torch.dtype) -> None:
    made = layer(scheme)
    before = [made.weight.data_ptr(), made.weight_scale.data_ptr()]
    for cast in (made.to(dtype), made.type(dtype), made.half().float().to(dtype)):
        assert cast.bias.dtype == dtype
        assert cast.weight.dtype == torch.uint8
        assert cast.weight_scale.dtype == torch.float16
    assert [made.weight.data_ptr(), made.weight_scale.data_ptr()] == before  # not even copied
    assert made(torch.randn(2, 200, dtype=dtype)).dtype == dtype


def test_moves() -> None:
    made = layer(Scheme(4))
    assert made.to("meta").weight.device.type == "meta"
    assert made.weight_scale.device.type == "meta"
    assert made.weight_scale.dtype == torch.float16


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_state_round_trip(scheme: Scheme) -> None:
    made, inputs = layer(scheme), torch.randn(3, 200)
    wanted = made(inputs)
    state = made.state_dict()
    if scheme.official:
        assert state["weight"].dtype == torch.int8
        assert tuple(state["weight"].shape) == (37, 200 * scheme.bits // 8)
        assert tuple(state["weight_scale"].shape) == (37,)
    else:
        assert state["weight"].dtype == torch.uint8
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    other = layer(scheme)
    other.load_state_dict(state)
    empty = QuantizedLinear(200, 37, scheme, bias=torch.zeros(37))
    empty.load_state_dict(state)
    assert torch.equal(empty(inputs), wanted)  # as the checkpoint has them
    empty.pack_()
    for again in (other, empty, copy.deepcopy(made)):
        assert torch.equal(again(inputs), wanted)
        assert again.weight.dtype == torch.uint8
        assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_embedding(scheme: Scheme) -> None:
    table = nn.Embedding(37, 200)
    made = QuantizedEmbedding.from_embedding(table, scheme)
    ids = torch.tensor([[0, 36, 5], [15, 16, 17]])
    assert torch.equal(made(ids), made.dequantized()[ids])
    assert torch.equal(made(ids[0, 0]), made.dequantized()[0])
    assert made.half()(ids).dtype == torch.float16
    assert made.weight_scale.dtype == torch.float16
    assert torch.equal(made.to_embedding(torch.float16).weight, made.dequantized(torch.float16))


def test_back_to_floats() -> None:
    made = layer(Scheme(4))
    plain = made.to_linear(torch.float32)
    assert type(plain) is nn.Linear
    assert torch.equal(plain.weight, reference.dequantize(made.packed()))
    assert torch.equal(plain.bias, made.bias)


def test_no_random_weights() -> None:
    with pytest.raises(InputError, match="no random weights"):
        layer(Scheme(4)).reset_parameters()
