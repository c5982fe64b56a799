"""What each method trains, and merging."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from chatglm.chat.messages import Message
from chatglm.errors import CheckpointError, InputError, TokenizerError, UnsupportedError
from chatglm.loading import load_parts
from chatglm.training.methods import ALL_LAYERS, checkpoint_dtype, fitting_tokenizer, merge, prepare, trained
from chatglm.training.settings import Settings

VERSIONS = ("chatglm", "chatglm2", "chatglm3", "glm4")


def prepared(folder: Path, method: str, low: torch.dtype | None = None, **changes: Any) -> Any:
    return prepare(Settings.from_dict({"model": str(folder), "method": method, **changes}), low_precision=low)


def learning(model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("version", VERSIONS)
def test_lora_goes_on_every_linear_layer_of_a_block(version: str, checkpoint) -> None:
    model = prepared(checkpoint(version), "lora").model
    found = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in learning(model)}
    assert found == set(ALL_LAYERS)
    assert all("lora_" in name for name in learning(model))
    # all-linear comes to the same: the output head is left out.
    other = prepared(checkpoint(version), "lora", peft_config={"peft_type": "LORA", "target_modules": "all-linear"})
    assert learning(other.model) == learning(model)
    official = prepared(checkpoint(version), "lora", peft_config={"r": 4, "target_modules": ["query_key_value"]})
    assert all("query_key_value.lora_" in name for name in learning(official.model))
    assert 0 < trained(official.model)[0] < trained(model)[0] / 2


@pytest.mark.parametrize("version", VERSIONS)
def test_full_trains_all_and_ptuning_the_prefix_alone(version: str, checkpoint) -> None:
    model = prepared(checkpoint(version), "full").model
    count, weights = trained(model)
    assert count == weights
    assert model.dtype == torch.float32
    model = prepared(checkpoint(version), "ptuning", torch.bfloat16, peft_config={"num_virtual_tokens": 5}).model
    assert learning(model) == {"transformer.prefix_encoder.embedding.weight"}
    assert model.transformer.prefix_encoder.embedding.weight.shape[0] == 5
    dtypes = {p.requires_grad: p.dtype for p in model.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}


def test_an_untrained_adapter_changes_nothing(checkpoint) -> None:
    plain, _, form = load_parts(checkpoint("glm4"), dtype=torch.float32)
    ids = torch.tensor([form.prompt([Message("user", "你好")])])
    with torch.no_grad():
        adapted = prepared(checkpoint("glm4"), "lora").model.eval()(input_ids=ids).logits
        assert torch.equal(plain(input_ids=ids).logits, adapted)


def test_a_tokenizer_of_another_model(copied, checkpoint) -> None:
    folder = copied("chatglm2")
    with pytest.raises(TokenizerError, match=r"its tokenizer is of chatglm3 .* describes a model of chatglm2"):
        fitting_tokenizer(checkpoint("chatglm3"), folder)


def adapter(folder: Path, output: Path, size: float = 0.3) -> Path:
    """A LoRA adapter with weights that matter, the same every time: one that is too large for a dtype is refused."""
    torch.manual_seed(1)
    model = prepared(folder, "lora").model
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=size)
    model.save_pretrained(str(output), save_embedding_layers=False)
    return output


@pytest.mark.parametrize(("version", "dtype"), [*((version, "auto") for version in VERSIONS), ("chatglm3", "float32")])
def test_merged_answers_as_base_and_adapter_do(version: str, dtype: str, checkpoint, tmp_path: Path) -> None:
    made = adapter(checkpoint(version), tmp_path / "adapter")
    merged = merge(made, tmp_path / "merged", dtype=dtype)
    saved = torch.float32 if dtype == "float32" else checkpoint_dtype(checkpoint(version))
    rounding = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}[saved]
    assert merged.effect > 0.5 * merged.scale
    assert merged.difference < rounding * merged.scale
    assert merged.agreement > 0.9
    assert f"{merged.difference:.2e}" in str(merged)
    both, _, form = load_parts(made, dtype=torch.float32)
    alone = load_parts(tmp_path / "merged", dtype=torch.float32).model
    ids = torch.tensor([form.prompt([Message("user", "一个探针没有的问题")])])
    with torch.no_grad():
        wanted, got = both(input_ids=ids).logits, alone(input_ids=ids).logits
    torch.testing.assert_close(got, wanted, rtol=0, atol=float(wanted.abs().max()) * rounding)
    weights = load_file(tmp_path / "merged" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {saved}
    assert not any("lora" in name for name in weights)
    assert checkpoint_dtype(tmp_path / "merged") == saved


def test_a_merge_that_answers_otherwise_is_not_written(checkpoint, tmp_path: Path) -> None:
    """An adapter so large that float16 cannot hold the sum."""
    made = adapter(checkpoint("chatglm3"), tmp_path / "adapter", size=3e5)
    with pytest.raises(CheckpointError, match="not written: the merged model's scores are not those of base"):
        merge(made, tmp_path / "merged")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["adapter"]


def test_a_merge_overwrites_only_when_told_and_only_when_it_succeeds(checkpoint, tmp_path: Path) -> None:
    made = adapter(checkpoint("chatglm3"), tmp_path / "adapter")
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "config.json").write_text("old")
    (tmp_path / "merged" / "model-00001-of-00009.safetensors").write_text("old")
    with pytest.raises(InputError, match=r"merged: exists already; .*--overwrite"):
        merge(made, tmp_path / "merged")
    weights = load_file(made / "adapter_model.safetensors")
    save_file({name: value * float("nan") for name, value in weights.items()}, made / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="not written"):
        merge(made, tmp_path / "merged", overwrite=True)
    assert (tmp_path / "merged" / "config.json").read_text() == "old"
    save_file(weights, made / "adapter_model.safetensors")
    merge(made, tmp_path / "merged", overwrite=True)
    assert not (tmp_path / "merged" / "model-00001-of-00009.safetensors").exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["adapter", "merged"]


def test_a_merge_never_removes_what_it_is_made_from_nor_what_is_no_checkpoint(copied, tmp_path: Path) -> None:
    """`--overwrite` replaces a folder: an adapter in it, a base, or anything else must not go with it."""
    base = copied("chatglm3")
    made = adapter(base, tmp_path / "runs" / "adapter")
    for name, content in {
        "notes/config.json": "{}",
        "notes/diary.txt": "mine",
        "other/a.json": "{}",
        "file": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)

    def held() -> dict[Path, int]:
        return {file: file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()}

    before = held()
    for output, said in {
        made: "this folder holds what is merged",
        tmp_path / "runs": "this folder holds what is merged",
        tmp_path: "this folder holds what is merged",
        base: "has pytorch_model",
        tmp_path / "notes": r"has diary\.txt in it",
        tmp_path / "other": r"no config\.json",
        tmp_path / "file": "is a file",
        tmp_path / "file" / "below": "cannot be made",
    }.items():
        with pytest.raises(InputError, match=said):
            merge(made, output, overwrite=True)
    assert held() == before
    # A base that looks like what a merge writes.
    weights = load_parts(base).model
    for file in base.glob("*.bin*"):
        file.unlink()
    weights.save_pretrained(base)
    before = held()
    with pytest.raises(InputError, match="this folder holds what is merged"):
        merge(made, base, overwrite=True)
    assert held() == before


def test_a_merge_into_a_linked_folder(checkpoint, tmp_path: Path) -> None:
    made = adapter(checkpoint("chatglm3"), tmp_path / "adapter")
    (tmp_path / "disk").mkdir()
    (tmp_path / "merged").symlink_to(tmp_path / "disk")
    for _ in range(2):
        merge(made, tmp_path / "merged", overwrite=True)
    assert (tmp_path / "merged").is_symlink()
    assert (tmp_path / "disk" / "model.safetensors").is_file()


def test_an_adapter_of_another_model_and_a_device_that_is_not_there(checkpoint, tmp_path: Path) -> None:
    made = adapter(checkpoint("chatglm3"), tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors: made for another model: its tensor"):
        merge(made, tmp_path / "merged", model=checkpoint("glm4"))
    with pytest.raises(InputError, match="device 'abacus' cannot be used"):
        merge(made, tmp_path / "merged", device="abacus")
    assert not (tmp_path / "merged").exists()


def test_what_cannot_be_merged(checkpoint, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no adapter_config\.json"):
        merge(checkpoint("chatglm3"), tmp_path / "merged")
    (tmp_path / "prefix").mkdir()
    torch.save({}, tmp_path / "prefix" / "pytorch_model.bin")
    with pytest.raises(UnsupportedError, match="virtual tokens cannot be merged"):
        merge(tmp_path / "prefix", tmp_path / "merged")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "adapter_config.json").write_text(json.dumps({"peft_type": "IA3"}))
    with pytest.raises(UnsupportedError, match="only LoRA adapters"):
        merge(tmp_path / "other", tmp_path / "merged")
    with pytest.raises(InputError, match="dtype is 'int4'"):
        merge(adapter(checkpoint("chatglm3"), tmp_path / "adapter"), tmp_path / "merged", dtype="int4")
    assert not (tmp_path / "merged").exists()
