"""Quantised folders through the Auto classes: what loads, what is saved, what is refused."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from small import FAMILY, logits, small
from torch import nn

import chatglm
from chatglm.errors import ChatGLMError, CheckpointError, InputError, UnsupportedError
from chatglm.quantization.linear import QuantizedEmbedding, QuantizedLinear
from chatglm.quantization.settings import QuantizationConfig
from chatglm.quantization.swap import dequantize_module, is_quantized, quantize_module

VERSIONS = ("chatglm", "chatglm2", "chatglm3")
LAYERS = (QuantizedLinear, QuantizedEmbedding)


@torch.no_grad()
def recorded(model: Any, record: dict[str, Any]) -> torch.Tensor:
    scores: torch.Tensor = model(input_ids=torch.tensor(record["input_ids"])).logits
    return scores


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("bits", [8, 4])
def test_official_one_liner(version: str, bits: int, checkpoint, golden, shared: Path, tmp_path: Path) -> None:
    """Logits as recorded; and what is saved is the official layout, tensor by tensor."""
    model = chatglm.AutoModel.from_pretrained(checkpoint(version)).quantize(bits).half().eval()
    g = golden(version)
    record = json.loads((shared / "golden" / version / "quant.json").read_text("utf-8"))["tests"][f"int{bits}"]["model"]
    tensors = load_file(shared / "golden" / version / "quant.safetensors")
    model.save_pretrained(tmp_path)
    about = json.loads((tmp_path / "config.json").read_text("utf-8"))
    assert about["quantization_bit"] == bits
    assert "quantization_config" not in about
    saved = load_file(tmp_path / "model.safetensors")
    for name in (name for name in tensors if name.startswith(f"int{bits}.layers.")):
        if name.endswith(("weight", "weight_scale")):
            (found,) = (tensor for full, tensor in saved.items() if full.endswith(name.split(".", 1)[1]))
            assert torch.equal(found, tensors[name])

    again = chatglm.AutoModel.from_pretrained(tmp_path, dtype=torch.float32)
    assert torch.equal(recorded(again, record), recorded(model.float(), record))
    plain = dequantize_module(again, torch.float16).float()  # as recorded: weights rounded to fp16, float32 arithmetic
    scores = recorded(plain, record)
    assert scores.argmax(-1).tolist() == record["logits"]["argmax"]
    torch.testing.assert_close(scores[..., g.columns], tensors[f"int{bits}.logits.cols"], atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    ("version", "embeddings"), [("chatglm", False), ("chatglm", True), ("chatglm2", False), ("chatglm3", False)]
)
def test_official_checkpoints_as_they_are_published(version: str, embeddings: bool, copied, tmp_path: Path) -> None:
    """Torch files with pickled names, `quantization_bit`, and ChatGLM-6B-int4-qe's embedding that is the head too."""
    folder = copied(version)
    model = chatglm.AutoModel.from_pretrained(folder).quantize(4, quantize_embeddings=embeddings)
    state = dict(model.state_dict())
    if embeddings:
        table, head = "transformer.word_embeddings", "lm_head"
        assert torch.equal(state[f"{table}.weight"], state[f"{head}.weight"])
        assert state[f"{table}.weight"].dtype == torch.int8
    for old in folder.glob("pytorch_model*"):
        old.unlink()
    torch.save(state, folder / "pytorch_model.bin")
    about = json.loads((folder / "config.json").read_text("utf-8")) | {"quantization_bit": 4}
    if version == "chatglm":
        about["quantization_embeddings"] = embeddings
    (folder / "config.json").write_text(json.dumps(about), "utf-8")
    ids = torch.tensor([[5, 74874 % 60000, 6, *((130001, 130004) if version == "chatglm" else (9,))]])
    with torch.no_grad():
        wanted = model.float()(input_ids=ids).logits
        for auto in (chatglm.AutoModel, transformers.AutoModelForCausalLM):
            loaded = auto.from_pretrained(folder, trust_remote_code=True).float()
            assert torch.equal(loaded(input_ids=ids).logits, wanted)
            assert all(m.weight.dtype == torch.uint8 for m in loaded.modules() if isinstance(m, LAYERS))
    if embeddings:
        assert isinstance(loaded.lm_head, QuantizedLinear)
        assert loaded.transformer.word_embeddings.weight is loaded.lm_head.weight
        loaded.save_pretrained(tmp_path / "again")
        assert json.loads((tmp_path / "again" / "config.json").read_text("utf-8"))["quantization_embeddings"] is True
        with torch.no_grad():
            again = chatglm.AutoModel.from_pretrained(tmp_path / "again").float()
            assert torch.equal(again(input_ids=ids).logits, wanted)


SETTINGS = [
    {"bits": 4, "group_size": 32},
    {"bits": 8, "group_size": 128, "head": True},
    {"bits": 4, "group_size": 64, "head": True, "embedding": True},
    {"bits": 8, "group_size": 0},
    {"bits": 4, "group_size": 0, "head": True, "embedding": True},
]


@pytest.mark.parametrize("kind", [*FAMILY, "llama"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("sharded", [False, True])
def test_same_logits_after_saving(kind: str, settings: dict[str, Any], sharded: bool, tmp_path: Path) -> None:
    model = quantize_module(small(kind), **settings)
    wanted = logits(model, kind)
    model.save_pretrained(tmp_path, max_shard_size="8KB" if sharded else "5GB")
    assert sharded == (tmp_path / "model.safetensors.index.json").is_file()
    auto = transformers.AutoModelForCausalLM
    for options in ({}, {"dtype": torch.float32}, {"device_map": "cpu", "low_cpu_mem_usage": True}):
        again = auto.from_pretrained(tmp_path, **options)
        assert again.dtype == torch.float32
        assert torch.equal(logits(again, kind), wanted)
    half = auto.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert logits(half, kind).dtype == torch.bfloat16
    assert {m.weight_scale.dtype for m in half.modules() if isinstance(m, LAYERS)} == {torch.float16}


@pytest.mark.parametrize("kind", [*FAMILY, "llama"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_quantised_while_loading(kind: str, settings: dict[str, Any], tmp_path: Path) -> None:
    model = small(kind)
    model.save_pretrained(tmp_path / "plain", max_shard_size="30KB")
    wanted = logits(quantize_module(model, **settings), kind)
    auto = transformers.AutoModelForCausalLM
    for config in (QuantizationConfig(**settings), {"quant_method": "chatglm", **settings}):
        made = auto.from_pretrained(tmp_path / "plain", quantization_config=config)
        assert torch.equal(logits(made, kind), wanted)
    made.save_pretrained(tmp_path / "made")
    assert torch.equal(logits(auto.from_pretrained(tmp_path / "made"), kind), wanted)


@pytest.mark.parametrize("kind", [*FAMILY, "llama"])
def test_a_damaged_weight_is_named_while_it_is_quantised(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = small(kind)
    name = next(
        name
        for name, module in reversed(list(model.named_modules()))
        if "mlp" in name and isinstance(module, torch.nn.Linear)
    )
    model.get_submodule(name).weight.data[0, 0] = float("nan")
    model.save_pretrained(tmp_path)
    settings = QuantizationConfig(bits=4, group_size=32)
    with pytest.raises(CheckpointError, match=rf"safetensors: {name}\.weight: .*NaN"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=settings)
    assert "CONVERSION" not in "".join(capsys.readouterr())  # the report of transformers


@pytest.mark.parametrize("size", [0, 32])
def test_part_of_it_left_on_disk(size: int, tmp_path: Path) -> None:
    model = small("chatglm3").quantize(4, group_size=size)
    wanted = logits(model, "chatglm3")
    model.save_pretrained(tmp_path / "q")
    parts = ("embedding", "encoder.layers.0", "encoder.layers.1", "encoder.final_layernorm", "output_layer")
    there = {f"transformer.{part}": "disk" if part == "encoder.layers.1" else "cpu" for part in parts}
    loaded = chatglm.AutoModel.from_pretrained(tmp_path / "q", device_map=there, offload_folder=str(tmp_path / "rest"))
    assert torch.equal(logits(loaded, "chatglm3"), wanted)


def test_config_says_what_it_is(tmp_path: Path) -> None:
    quantize_module(small("chatglm3"), 4, 32, head=True, skip=("dense_4h_to_h",)).save_pretrained(tmp_path)
    about = json.loads((tmp_path / "config.json").read_text("utf-8"))
    assert about["quantization_config"] == {
        "quant_method": "chatglm",
        "version": 1,
        "scheme": "groups",
        "bits": 4,
        "group_size": 32,
        "head": True,
        "embedding": False,
        "modules_to_not_convert": ["dense_4h_to_h"],
    }
    model = chatglm.AutoModel.from_pretrained(tmp_path)
    assert type(model.transformer.encoder.layers[0].mlp.dense_4h_to_h) is nn.Linear
    assert isinstance(model.transformer.encoder.layers[0].mlp.dense_h_to_4h, QuantizedLinear)


def test_mapped_not_copied(tmp_path: Path) -> None:
    """Data of a folder in groups lies in the file's pages after loading, and after casting; so does every cast's."""
    quantize_module(small("chatglm3"), 4, 32, head=True, embedding=True).save_pretrained(tmp_path)
    model = chatglm.AutoModel.from_pretrained(tmp_path).bfloat16()
    spans = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if str(tmp_path) in line:
            low, high = (int(part, 16) for part in line.split()[0].split("-"))
            spans.append((low, high))
    assert spans
    layers = [module for module in model.modules() if isinstance(module, LAYERS)]
    assert len(layers) == 10
    for layer in layers:
        for tensor in (layer.weight, layer.weight_scale, layer.packed().data):
            assert any(low <= tensor.data_ptr() < high for low, high in spans)


def test_quantize_method() -> None:
    model = small("chatglm3")
    assert model.quantize(0) is model
    assert not is_quantized(model)
    assert model.quantize(4, group_size=64, head=True, empty_init=True, use_quantization_cache=True) is model
    assert model.config.quantization_config.group_size == 64
    assert model.half().dtype == torch.float16
    assert model.float().dtype == torch.float32
    with pytest.raises(InputError, match="quantised already"):  # differences: second-quantize
        model.quantize(8)
    with pytest.raises(InputError, match="no argument 'bit'"):
        small("chatglm3").quantize(8, bit=3)
    with pytest.raises(InputError, match="4 or 8"):
        small("chatglm3").quantize(3)


def test_generates(tmp_path: Path) -> None:
    model = small("chatglm3").quantize(8)
    ids = torch.tensor([[5, 6, 7]])
    wanted = model.generate(ids, max_new_tokens=6, do_sample=False)
    model.save_pretrained(tmp_path)
    again = chatglm.AutoModel.from_pretrained(tmp_path)
    assert torch.equal(again.generate(ids, max_new_tokens=6, do_sample=False), wanted)


def test_back_to_floats(tmp_path: Path) -> None:
    quantize_module(small("chatglm3"), 8, 32).save_pretrained(tmp_path)
    model = chatglm.AutoModel.from_pretrained(tmp_path).dequantize()
    assert not is_quantized(model)
    model.save_pretrained(tmp_path / "plain")
    again = chatglm.AutoModel.from_pretrained(tmp_path / "plain")
    assert not is_quantized(again)
    assert torch.equal(logits(again, "chatglm3"), logits(model, "chatglm3"))


# What is refused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    quantize_module(small("chatglm3"), 4, 32).save_pretrained(tmp_path / "q")
    return tmp_path / "q"


def change(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    about = json.loads(file.read_text("utf-8"))
    for name, value in changes.items():
        if name in about["quantization_config"]:
            about["quantization_config"][name] = value
        else:
            about[name] = value
    file.write_text(json.dumps(about), "utf-8")


def refused(folder: Path, match: str, kind: type[Exception] = CheckpointError) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(kind, match=match) as raised:
            chatglm.AutoModel.from_pretrained(folder)
    assert "\n" not in str(raised.value)


def test_truncated(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    refused(folder, r"model\.safetensors: .* bytes, but its header says")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"version": 2}, "layout version 2, and this chatglm reads version 1"),
        ({"scheme": "ternary"}, "scheme 'ternary'"),
        ({"group_size": 64}, "made for another model or scheme|in the model that config.json describes"),
        ({"bits": 8}, "made for another model or scheme|in the model that config.json describes"),
        ({"head": True}, "output_layer.weight is not quantised"),
        (
            {"hidden_size": 80, "num_attention_heads": 10},
            "made for another model or scheme|in the model that config.json describes",
        ),
        ({"num_layers": 3}, r"layers\.2.* is not (there|in the weight files); the (folder|checkpoint) is incomplete"),
        ({"ffn_hidden_size": 96}, "made for another model or scheme|in the model that config.json describes"),
    ],
)
def test_another_scheme_or_model(folder: Path, changes: dict[str, Any], match: str) -> None:
    change(folder, **changes)
    refused(folder, match)


def test_a_tensor_is_missing(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["transformer.encoder.layers.1.mlp.dense_h_to_4h.weight_scale"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    refused(folder, r"layers\.1\.mlp\.dense_h_to_4h\.weight_scale is missing")


def test_not_quantised_at_all(folder: Path, tmp_path: Path) -> None:
    small("chatglm3").save_pretrained(tmp_path / "plain")
    shutil.copyfile(folder / "config.json", tmp_path / "plain" / "config.json")
    refused(tmp_path / "plain", "is not quantised .* though config.json says so")


@pytest.mark.parametrize("method", ["awq", "bitsandbytes", "fp8", None])
def test_other_quantisers_are_refused_by_name(folder: Path, method: str | None) -> None:
    change(folder, quant_method=method)
    refused(folder, f"quant_method {method!r} in quantization_config is not supported", UnsupportedError)


def test_other_quantisers_as_arguments(tmp_path: Path) -> None:
    small("chatglm3").save_pretrained(tmp_path)
    with pytest.raises(UnsupportedError, match="'awq'"):
        chatglm.AutoModel.from_pretrained(tmp_path, quantization_config={"quant_method": "awq"})
    with pytest.raises(UnsupportedError, match="load_in_8bit"):
        chatglm.AutoModel.from_pretrained(tmp_path, load_in_8bit=True)
    with pytest.raises(ChatGLMError, match="calibration data"):
        chatglm.AutoModel.from_pretrained(
            tmp_path, quantization_config=QuantizationConfig(4, 32, scheme="gptq", sym=True)
        )


def test_unknown_fields() -> None:
    with pytest.raises(InputError, match="unknown field 'colour'"):
        QuantizationConfig(4, colour="red")
    with pytest.raises(InputError, match="cannot be used with group_size"):
        QuantizationConfig(4, 32, scheme="official")
