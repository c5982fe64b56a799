"""AutoGPTQ's and GPTQModel's checkpoints: read, written, and refused where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from small import logits, small

import chatglm
from chatglm.errors import ChatGLMError, CheckpointError, InputError, UnsupportedError
from chatglm.kernels.packing import pack, unpack
from chatglm.quantization.folder import Job, quantize_folder
from chatglm.quantization.gptq_format import from_gptq, to_gptq
from chatglm.quantization.linear import QuantizedLinear
from chatglm.quantization.schemes import Scheme, quantize
from chatglm.quantization.swap import is_quantized


def by_the_book(integers: np.ndarray, scales: np.ndarray, size: int, zero: int) -> dict[str, torch.Tensor]:
    """AutoGPTQ's `QuantLinear.pack`, as its documentation describes the layout: loops, one nibble at a time."""
    rows, columns = integers.shape
    qweight = np.zeros((columns // 8, rows), dtype=np.uint32)
    for column in range(columns):
        qweight[column // 8] |= (integers[:, column] + 8).astype(np.uint32) << np.uint32(4 * (column % 8))
    qzeros = np.zeros((columns // size, rows // 8), dtype=np.uint32)
    for row in range(rows):
        qzeros[:, row // 8] |= np.uint32(zero) << np.uint32(4 * (row % 8))
    return {
        "qweight": torch.from_numpy(qweight.view(np.int32)),
        "qzeros": torch.from_numpy(qzeros.view(np.int32)),
        "scales": torch.from_numpy(scales.T.copy()),
        "g_idx": torch.arange(columns, dtype=torch.int32) // size,
    }


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.sampled_from((32, 64, 128)), st.integers(0, 2**31))
def test_both_ways(rows: int, groups: int, size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    integers = torch.randint(-8, 8, (8 * rows, groups * size), generator=generator, dtype=torch.int8)
    scales = torch.randn(8 * rows, groups, generator=generator).half()
    packed = pack(integers, scales, bits=4, group_size=size)
    made = to_gptq(packed)
    book = by_the_book(integers.numpy(), scales.numpy(), size, 7)
    assert all(torch.equal(made[name], book[name]) for name in book)
    again = from_gptq(made, size)
    assert torch.equal(again.data, packed.data)
    assert torch.equal(again.scales, packed.scales)
    newer = by_the_book(integers.numpy(), scales.numpy(), size, 8)
    assert torch.equal(from_gptq(newer, size, "gptq_v2").data, packed.data)
    del newer["g_idx"]
    assert torch.equal(unpack(from_gptq(newer, size, "gptq_v2"))[0], integers)


def test_what_does_not_fit() -> None:
    made = to_gptq(quantize(torch.randn(16, 64), Scheme(4, 32)))
    with pytest.raises(UnsupportedError, match="asymmetric"):
        from_gptq({**made, "qzeros": made["qzeros"] + 1}, 32)
    with pytest.raises(UnsupportedError, match="desc_act"):
        from_gptq({**made, "g_idx": made["g_idx"].flip(0)}, 32)
    with pytest.raises(CheckpointError, match="groups of 64"):
        from_gptq(made, 64)
    for weight, scheme in (
        (torch.randn(12, 64), Scheme(4, 32)),
        (torch.randn(16, 40), Scheme(4, 32)),
        (torch.randn(16, 64), Scheme(8, 32)),
        (torch.randn(16, 64), Scheme(4, 0)),
    ):
        with pytest.raises(InputError, match="GPTQ's format"):
            to_gptq(quantize(weight, scheme))


SIZES = {"hidden_size": 64, "num_attention_heads": 8, "ffn_hidden_size": 64, "multi_query_group_num": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A ChatGLM3 as GPTQModel would write it."""
    small("chatglm3", **SIZES).save_pretrained(tmp_path / "plain")
    quantize_folder(tmp_path / "plain", tmp_path / "gptq", Job(Scheme(4, 32), layout="gptq"))
    return tmp_path / "gptq"


def test_folder(folder: Path, tmp_path: Path) -> None:
    about = json.loads((folder / "config.json").read_text("utf-8"))["quantization_config"]
    assert about["quant_method"] == "gptq"
    assert (about["bits"], about["group_size"], about["desc_act"], about["sym"]) == (4, 32, False, True)
    state = load_file(folder / "model.safetensors")
    name = "transformer.encoder.layers.0.mlp.dense_h_to_4h"
    assert tuple(state[f"{name}.qweight"].shape) == (8, 128)
    assert f"{name}.weight" not in state

    model = chatglm.AutoModel.from_pretrained(folder)
    assert isinstance(model.get_submodule(name), QuantizedLinear)
    plain = small("chatglm3", **SIZES).quantize(4, group_size=32)
    assert torch.equal(logits(model, "chatglm3"), logits(plain, "chatglm3"))
    model.save_pretrained(tmp_path / "ours")  # in our layout from here on
    again = chatglm.AutoModel.from_pretrained(tmp_path / "ours")
    assert again.config.quantization_config.scheme == "groups"
    assert torch.equal(logits(again, "chatglm3"), logits(model, "chatglm3"))


def test_newer_format_without_order(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    for name in list(state):
        if name.endswith("qzeros"):
            state[name] = state[name] + 0x11111111
        if name.endswith("g_idx"):
            del state[name]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    wanted = logits(small("chatglm3", **SIZES).quantize(4, group_size=32), "chatglm3")
    with pytest.raises(UnsupportedError, match="zero points"):
        chatglm.AutoModel.from_pretrained(folder)
    change(folder, checkpoint_format="gptq_v2")
    model = chatglm.AutoModel.from_pretrained(folder)
    assert is_quantized(model)
    assert torch.equal(logits(model, "chatglm3"), wanted)


def change(folder: Path, **changes: Any) -> None:
    about = json.loads((folder / "config.json").read_text("utf-8"))
    about["quantization_config"] |= changes
    (folder / "config.json").write_text(json.dumps(about), "utf-8")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"bits": 3}, "bits=3"),
        ({"group_size": -1}, "group_size=-1"),
        ({"desc_act": True}, "desc_act=true"),
        ({"sym": False}, "sym=false"),
        ({"checkpoint_format": "marlin"}, "checkpoint_format='marlin'"),
        ({"dynamic": {"mlp": {}}}, "dynamic"),
        ({"group_size": 64}, "made for another model"),
    ],
)
def test_refused_by_name(folder: Path, changes: dict[str, Any], match: str) -> None:
    change(folder, **changes)
    with pytest.raises(ChatGLMError, match=match):
        chatglm.AutoModel.from_pretrained(folder)
