"""Which layers are chosen, in our models and others', and what comes of the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import FAMILY, OTHERS, logits, small
from torch import nn

from chatglm.errors import InputError
from chatglm.quantization.linear import QuantizedEmbedding, QuantizedLinear
from chatglm.quantization.schemes import Scheme, check, quantize
from chatglm.quantization.swap import choose, dequantize_module, is_quantized, quantize_module

OFFICIAL = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")


@pytest.mark.parametrize("kind", FAMILY)
def test_officially_all_linears_of_every_block(kind: str) -> None:
    model = small(kind)
    chosen = choose(model)
    assert len(chosen.linears) == 8
    assert {name.rpartition(".")[2] for name in chosen.linears} == set(OFFICIAL)
    assert not chosen.embeddings


@pytest.mark.parametrize("kind", [*FAMILY, *OTHERS])
@pytest.mark.parametrize(("bits", "size"), [(8, 0), (8, 64), (4, 32)])
def test_any_model(kind: str, bits: int, size: int) -> None:
    model = small(kind)
    exact = logits(model, kind)
    count = sum(isinstance(module, nn.Linear) for module in model.modules())
    assert quantize_module(model, bits, size) is model
    assert sum(isinstance(module, QuantizedLinear) for module in model.modules()) == count - 1  # but for the head
    off = (logits(model, kind) - exact).norm() / exact.norm()
    assert off < (0.05 if bits == 8 else 0.5)
    plain = dequantize_module(model, torch.float32)
    assert not is_quantized(plain)
    assert sum(type(module) is nn.Linear for module in plain.modules()) == count


@pytest.mark.parametrize("kind", [*FAMILY, *OTHERS])
def test_head_and_embedding(kind: str) -> None:
    model = small(kind)
    exact = logits(model, kind)
    quantize_module(model, 8, 32, head=True, embedding=True)
    assert isinstance(model.get_output_embeddings(), QuantizedLinear)
    assert isinstance(model.get_input_embeddings(), QuantizedEmbedding)
    assert (logits(model, kind) - exact).norm() / exact.norm() < 0.05
    assert model.dtype == torch.float32  # not what the scales are


def test_one_weight_stays_one() -> None:
    model = small("chatglm")
    quantize_module(model, 4, 32, head=True)  # either means both
    assert model.transformer.word_embeddings.weight is model.lm_head.weight
    plain = dequantize_module(model, torch.float32)
    assert plain.transformer.word_embeddings.weight is plain.lm_head.weight


def test_skipped() -> None:
    model = small("chatglm3")
    chosen = choose(model, skip=("dense_4h_to_h", "transformer.encoder.layers.0.self_attention"))
    ends = [name.removeprefix("transformer.encoder.layers.") for name in chosen.linears]
    assert ends == [
        "0.mlp.dense_h_to_4h",
        "1.self_attention.query_key_value",
        "1.self_attention.dense",
        "1.mlp.dense_h_to_4h",
    ]
    with pytest.raises(InputError, match="no module 'nope'"):
        choose(model, skip=("nope",))


def test_prefix_encoder_and_plain_modules() -> None:
    model = small("chatglm3", pre_seq_len=3, prefix_projection=True)
    assert not any("prefix" in name for name in choose(model).linears)
    plain = nn.Sequential(nn.Embedding(8, 16), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))
    quantize_module(plain, 8, 32, embedding=True)
    assert [type(module) for module in plain][::3] == [QuantizedEmbedding, QuantizedLinear]
    assert plain(torch.tensor([1, 2])).shape == (2, 8)


def test_refusals() -> None:
    model = quantize_module(small("chatglm3"), 8)
    with pytest.raises(InputError, match="quantised already"):
        quantize_module(model, 4)
    with pytest.raises(InputError, match="no linear layer"):
        quantize_module(nn.Sequential(nn.ReLU()), 4)
    broken = small("chatglm3")
    broken.transformer.encoder.layers[1].mlp.dense_h_to_4h.weight.data[0, 0] = float("nan")
    with pytest.raises(InputError, match=r"layers\.1\.mlp\.dense_h_to_4h: .*NaN"):
        quantize_module(broken, 4)


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize(
    ("damage", "options", "reason"),
    [
        (lambda layer: layer.weight.data[0].fill_(float("nan")), {}, r"dense_4h_to_h: .*NaN"),
        (lambda layer: layer.weight.data[-1, -1:].fill_(float("inf")), {"group_size": 0}, r"dense_4h_to_h: .*infinity"),
        (lambda layer: layer.weight.data[:1].fill_(-1e6), {"group_size": 32}, r"dense_4h_to_h: .*too large"),
        (lambda layer: setattr(layer, "weight", nn.Parameter(torch.zeros(40))), {}, r"dense_4h_to_h: .* not a matrix"),
        (lambda layer: setattr(layer, "weight", nn.Parameter(torch.zeros(0, 40))), {}, r"dense_4h_to_h: .* is empty"),
        (lambda layer: layer.half().weight.requires_grad_(False), {"skip": [""] * 1_001}, "at most 1,000 names"),
    ],
    ids=["nan", "infinity", "large", "no matrix", "empty", "settings"],
)
def test_all_layers_or_none(kind: str, damage: Any, options: dict[str, Any], reason: str) -> None:
    """What is wrong with the last layer is found before the first is replaced."""
    model = small(kind)
    damage(model.get_submodule(choose(model).linears[-1]))
    before = {name: (module, dict(module.named_parameters())) for name, module in model.named_modules()}
    with pytest.raises(InputError, match=reason):
        quantize_module(model, 4, **options)
    assert not is_quantized(model)
    for name, module in model.named_modules():
        assert module is before[name][0]
        assert all(value is before[name][1][key] for key, value in module.named_parameters())
    assert getattr(model.config, "quantization_config", None) is None


def test_a_damaged_embedding_leaves_the_layers_alone() -> None:
    model = small("chatglm3")
    model.get_input_embeddings().weight.data[7, 3] = float("nan")
    with pytest.raises(InputError, match=r"word_embeddings: .*NaN"):
        model.quantize(8, quantize_embeddings=True)
    assert not is_quantized(model)
    assert is_quantized(model.quantize(8))


@given(
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    st.sampled_from([(8, 0), (4, 0), (8, 32), (4, 32)]),
    st.floats(1, 1e9),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_what_is_checked_beforehand_is_what_can_be_quantised(
    dtype: torch.dtype, bits_and_size: tuple[int, int], largest: float, negative: bool
) -> None:
    weight = torch.ones(3, 40)
    weight[1, 35] = -largest if negative else largest
    scheme = Scheme(*bits_and_size)

    def refused(work: Any) -> bool:
        try:
            work(weight.to(dtype), scheme)
        except InputError:
            return True
        return False

    assert refused(check) == refused(quantize)


def test_progress() -> None:
    seen: list[str] = []
    quantize_module(small("chatglm3"), 4, progress=seen.append)
    assert len(seen) == 8
