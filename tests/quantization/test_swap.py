"""Which layers are chosen, in our models and others', and what comes of the model."""

from __future__ import annotations

import pytest
import torch
from small import FAMILY, OTHERS, logits, small
from torch import nn

from chatglm.errors import InputError
from chatglm.quantization.linear import QuantizedEmbedding, QuantizedLinear
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


def test_progress() -> None:
    seen: list[str] = []
    quantize_module(small("chatglm3"), 4, progress=seen.append)
    assert len(seen) == 8
