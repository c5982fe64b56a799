"""Adapters of folders: what is taken changes the answers, everything else is one typed line."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoHaConfig, LoKrConfig, LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file

import chatglm
from chatglm.errors import ChatGLMError, CheckpointError, UnsupportedError
from chatglm.loading import add_adapter, load_parts, remove_adapter

QUESTION = {"do_sample": False, "max_new_tokens": 6}
QKV = ["query_key_value"]
KINDS: dict[str, Callable[[], Any]] = {
    "LoRA": lambda: LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=64, target_modules=QKV),
    "LoRA by expressions": lambda: LoraConfig(
        task_type="CAUSAL_LM",
        r=2,
        lora_alpha=64,
        target_modules=r".*layers\.[01]\..*(query_key_value|dense)",
        rank_pattern={r"layers\.0\..*query_key_value": 4},
        alpha_pattern={"dense": 128},
    ),
    "DoRA of one layer": lambda: LoraConfig(
        task_type="CAUSAL_LM",
        r=2,
        lora_alpha=64,
        target_modules=["dense"],
        layers_to_transform=[1],
        layers_pattern="layers",
        use_dora=True,
    ),
    "LoRA of the embedding": lambda: LoraConfig(
        task_type="CAUSAL_LM", r=2, lora_alpha=64, target_modules=["word_embeddings"]
    ),
    "IA3": lambda: IA3Config(
        task_type="CAUSAL_LM", target_modules=[*QKV, "dense_4h_to_h"], feedforward_modules=["dense_4h_to_h"]
    ),
    "LoHa": lambda: LoHaConfig(task_type="CAUSAL_LM", r=2, alpha=64, target_modules=QKV),
    "LoKr": lambda: LoKrConfig(task_type="CAUSAL_LM", r=2, alpha=64, target_modules=QKV),
}


@pytest.fixture(scope="module")
def saved(checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, str]]:
    """An adapter's folder for the tiny ChatGLM3, and what the model answers with it."""
    made: dict[str, tuple[Path, str]] = {}

    def get(kind: str) -> tuple[Path, str]:
        if kind not in made:
            model, tokenizer, _ = load_parts(checkpoint("chatglm3"), dtype=torch.float32)
            adapted = get_peft_model(model, KINDS[kind]()).eval()
            torch.manual_seed(0)
            with torch.no_grad():
                for name, parameter in adapted.named_parameters():
                    if any(part in name for part in ("lora_", "ia3_", "hada_", "lokr_")):
                        parameter.normal_(0, 0.5)
            folder = tmp_path_factory.mktemp("adapter")
            adapted.save_pretrained(folder)
            made[kind] = folder, adapted.chat(tokenizer, "你好", **QUESTION)[0]
        return made[kind]

    return get


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_taken_changes_answers_alike_everywhere(kind: str, saved, checkpoint) -> None:
    folder, wanted = saved(kind)
    base = checkpoint("chatglm3")
    plain, tokenizer, _ = load_parts(base, dtype=torch.float32)
    assert plain.chat(tokenizer, "你好", **QUESTION)[0] != wanted
    adapted = load_parts(base, adapter=folder, dtype=torch.float32).model
    assert adapted.chat(tokenizer, "你好", **QUESTION)[0] == wanted
    *_, last = adapted.stream_chat(tokenizer, "你好", **QUESTION)
    assert last[0] == wanted
    plain.load_adapter(folder)  # the way of transformers
    assert plain.chat(tokenizer, "你好", **QUESTION)[0] == wanted
    with chatglm.load(base, adapter=folder, dtype=torch.float32) as assistant:
        assert assistant.reply("你好", params={"temperature": 0, "max_new_tokens": 6}).content == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_on_quantised_weights_it_works_or_is_refused_by_name(kind: str, saved, checkpoint) -> None:
    folder, _ = saved(kind)
    model, tokenizer, _ = load_parts(checkpoint("chatglm3"), dtype=torch.float32)
    model.quantize(8, group_size=32)
    plain = model.chat(tokenizer, "你好", **QUESTION)[0]
    if (method := kind.partition(" ")[0]) in ("DoRA", "LoHa", "LoKr"):
        for put in (partial(add_adapter, model, folder, "default"), partial(model.load_adapter, folder)):
            with pytest.raises(UnsupportedError, match=rf"adapter_config\.json: {method} .* quantised"):
                put()
        assert model.chat(tokenizer, "你好", **QUESTION)[0] == plain
    else:
        assert add_adapter(model, folder, "default").chat(tokenizer, "你好", **QUESTION)[0] != plain


@pytest.mark.parametrize("change", ["head", "embedding", "all", "lora_only", "same"])
def test_what_an_adapter_would_change_for_all_is_refused(change: str, checkpoint, tmp_path: Path) -> None:
    """Beside an adapter, PEFT saves whole weights of the base model; other requests use that without the adapter."""
    model, tokenizer, _ = load_parts(checkpoint("chatglm3"), dtype=torch.float32)
    config = KINDS["LoRA"]()
    if change in ("all", "lora_only"):
        config.bias = change
    adapted = get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name or (change in ("all", "lora_only") and name.endswith("bias")):
                parameter.normal_(0, 0.5)
        if change == "head":
            adapted.get_base_model().transformer.output_layer.weight.mul_(-1)
        if change == "embedding":
            adapted.get_base_model().transformer.embedding.word_embeddings.weight.mul_(-1)
    adapted.save_pretrained(tmp_path, save_embedding_layers=True)
    model, tokenizer, _ = load_parts(checkpoint("chatglm3"), dtype=torch.float32)
    before, answer = dict(model.state_dict()), model.chat(tokenizer, "你好", **QUESTION)[0]
    if change == "same":
        made = add_adapter(model, tmp_path, "one")
        model = remove_adapter(made, "one")
    else:
        with pytest.raises(UnsupportedError, match=r"of the base model.*--adapter"):
            add_adapter(model, tmp_path, "one")
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(after[name].data_ptr() == value.data_ptr() for name, value in before.items())
    assert model.chat(tokenizer, "你好", **QUESTION)[0] == answer
    alone = load_parts(checkpoint("chatglm3"), adapter=tmp_path, dtype=torch.float32).model
    assert alone.chat(tokenizer, "你好", **QUESTION)[0] == adapted.chat(tokenizer, "你好", **QUESTION)[0]


@pytest.fixture
def lora(saved, tmp_path: Path) -> Path:
    """A copy to harm."""
    return Path(shutil.copytree(saved("LoRA")[0], tmp_path / "adapter"))


EVIL = "(([a-z_.0-9])+)+Z"
LIES: dict[str, tuple[dict[str, Any], str]] = {
    f"{next(iter(fields))}={str(next(iter(fields.values())))[:30]}": (fields, match)
    for fields, match in (
        ({"peft_type": "PREFIX_TUNING"}, "PREFIX_TUNING.*LoRA, IA³, LoHa, LoKr.*P-tuning v2"),
        ({"peft_type": "PROMPT_TUNING"}, "not supported"),
        ({"peft_type": "P_TUNING"}, "not supported"),
        ({"peft_type": "ADALORA"}, "not supported"),
        ({"peft_type": "XLORA"}, "not supported"),
        ({"peft_type": ["LORA"]}, "not supported"),
        ({"peft_type": None}, "not supported"),
        ({"peft_type": "IA3"}, "is not supported|missing tensors"),
        ({"task_type": "DANCE"}, "task_type"),
        ({"r": 10**9}, "r is"),
        ({"r": 0}, "r is"),
        ({"r": "2"}, "r is"),
        ({"r": True}, "r is"),
        ({"r": 4}, "rank 2"),
        ({"lora_alpha": "16"}, "lora_alpha"),
        ({"lora_alpha": 1e30}, "lora_alpha"),
        ({"lora_dropout": 2}, "lora_dropout"),
        ({"bias": "some"}, "bias"),
        ({"use_dora": "yes"}, "use_dora"),
        ({"use_dora": True}, "missing"),
        ({"fan_in_fan_out": 1}, "fan_in_fan_out"),
        ({"target_modules": None}, "target_modules"),
        ({"target_modules": 5}, "target_modules"),
        ({"target_modules": [5]}, "target_modules"),
        ({"target_modules": []}, "names no layer"),
        ({"target_modules": ["q_proj"]}, "names no layer"),
        ({"target_modules": "("}, "not a valid expression"),
        ({"target_modules": "a" * 5_000}, "expression of more"),
        ({"target_modules": ["query_key_value", "dense"]}, "missing"),
        ({"target_modules": ["dense"]}, "missing .* and tensors that do not fit its settings"),
        ({"target_modules": ["mlp"]}, "adapter_config.json"),
        ({"exclude_modules": 5}, "exclude_modules"),
        ({"layers_to_transform": "all"}, "layers_to_transform"),
        ({"layers_to_transform": [0]}, "tensors that do not fit its settings"),
        ({"layers_to_transform": [0], "layers_pattern": EVIL}, "layers_pattern"),
        ({"rank_pattern": [1]}, "rank_pattern"),
        ({"rank_pattern": {"query_key_value": 10**9}}, "rank_pattern"),
        ({"rank_pattern": {"query_key_value": "a"}}, "rank_pattern"),
        ({"rank_pattern": {"query_key_value": 3}}, "made for another model"),
        ({"alpha_pattern": {"query_key_value": []}}, "alpha_pattern"),
        ({"modules_to_save": "all"}, "modules_to_save"),
        ({"modules_to_save": [EVIL]}, "modules_to_save"),
        ({"modules_to_save": ["output_layer"]}, "missing"),
        ({"init_lora_weights": "pissa_niter_100000"}, "init_lora_weights"),
        ({"init_lora_weights": "olora"}, "init_lora_weights"),
        ({"init_lora_weights": 5}, "init_lora_weights"),
        ({"megatron_config": {"a": 1}, "megatron_core": "megatron.core"}, "megatron_config"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"target_parameters": ["a"]}, "target_parameters"),
        ({"loftq_config": {"a": 1}}, "loftq_config"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"use_qalora": True}, "use_qalora"),
        ({"unheard": 1}, "unheard"),
    )
}


@pytest.mark.parametrize("lie", LIES)
def test_settings_that_lie(lie: str, lora: Path, checkpoint) -> None:
    fields, match = LIES[lie]
    file = lora / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **fields}), "utf-8")
    with pytest.raises(ChatGLMError, match=match) as caught:
        load_parts(checkpoint("chatglm3"), adapter=lora)
    assert "\n" not in str(caught.value)
    assert "adapter_" in str(caught.value)


@pytest.mark.parametrize("targets", [["query_key_value", "mlp"], ["dense"]], ids=" ".join)
@pytest.mark.parametrize("others", [0, 1, 2])
def test_an_adapter_that_fails_leaves_the_model_as_it_was(
    others: int, targets: list[str], lora: Path, saved, checkpoint
) -> None:
    model, tokenizer, _ = load_parts(checkpoint("chatglm3"), dtype=torch.float32)
    for number in range(others):
        model = add_adapter(model, saved("LoRA")[0], f"good {number}")

    def state() -> dict[str, Any]:
        return {
            name: (type(module), [(own, value.requires_grad) for own, value in module.named_parameters(recurse=False)])
            for name, module in model.named_modules()
        }

    before, answer = state(), model.chat(tokenizer, "你好", **QUESTION)[0]
    file = lora / "adapter_config.json"
    right = file.read_text("utf-8")
    file.write_text(json.dumps({**json.loads(right), "target_modules": targets}), "utf-8")
    with pytest.raises(CheckpointError):
        add_adapter(model, lora, "bad")
    assert state() == before
    assert model.chat(tokenizer, "你好", **QUESTION)[0] == answer
    file.write_text(right, "utf-8")
    adapted = add_adapter(model, lora, "bad")
    adapted.set_adapter("bad")
    assert adapted.chat(tokenizer, "你好", **QUESTION)[0] == saved("LoRA")[1]


@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")  # of PEFT, for a second one
@pytest.mark.parametrize("targets", [["query_key_value", "mlp"], ["dense"]], ids=" ".join)
@pytest.mark.parametrize("others", [0, 1])
def test_as_does_one_that_fails_by_the_way_of_transformers(
    others: int, targets: list[str], lora: Path, checkpoint
) -> None:
    model, tokenizer, _ = load_parts(checkpoint("chatglm3"), dtype=torch.float32)
    for number in range(others):
        model.load_adapter(lora, f"good {number}")
    answer, names = model.chat(tokenizer, "你好", **QUESTION)[0], [name for name, _ in model.named_modules()]
    file = lora / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), "target_modules": targets}), "utf-8")
    learned = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    with pytest.raises(CheckpointError):
        model.load_adapter(lora, "bad")
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == learned
    assert [name for name, _ in model.named_modules()] == names
    assert model.chat(tokenizer, "你好", **QUESTION)[0] == answer
    assert list(getattr(model, "peft_config", ())) == [f"good {number}" for number in range(others)]


@pytest.mark.parametrize("setting", ["target_modules", "exclude_modules", "rank_pattern"])
def test_expressions_have_a_time_limit(setting: str, lora: Path, checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatglm.models.adapters._SECONDS", 1)
    file = lora / "adapter_config.json"
    value: Any = {EVIL: 2} if setting == "rank_pattern" else EVIL
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), setting: value}), "utf-8")
    begun = time.monotonic()
    with pytest.raises(ChatGLMError, match="seconds to match"):
        load_parts(checkpoint("chatglm3"), adapter=lora)
    assert time.monotonic() - begun < 60


def test_weights_that_are_not_the_adapters(lora: Path, saved, checkpoint) -> None:
    file, base = lora / "adapter_model.safetensors", checkpoint("chatglm3")
    plain = load_parts(base).model
    whole = load_file(saved("LoRA")[0] / "adapter_model.safetensors")
    first = sorted(whole)[0]
    for tensors, match in (
        ({"x": torch.zeros(1)}, "missing tensors: 6 .*tensors that do not fit its settings: 1"),
        ({}, "holds no tensors"),
        ({name: tensor for name, tensor in whole.items() if name != first}, "missing tensors: 1"),
        ({**whole, "y": torch.zeros(1)}, "tensors that do not fit its settings"),
        ({**whole, first: torch.zeros(2, 3)}, "made for another model: its tensor .* is 2×3, this model's is 2×64"),
        *(
            ({**whole, f"base_model.model.transformer.{name}.weight": torch.zeros(3, 3)}, f"tensor .*{name}.* is 3×3")
            for name in ("embedding.word_embeddings", "output_layer")
        ),
    ):
        file.unlink(missing_ok=True)
        save_file(tensors, file)
        with pytest.raises(CheckpointError, match=match):
            load_parts(base, adapter=lora)
        with pytest.raises(CheckpointError, match=match):
            plain.load_adapter(lora)  # the way of transformers
        assert not hasattr(plain, "peft_config")
    for data in (b"", b"x" * 100, b"version https://git-lfs.github.com/spec/v1\n"):
        file.write_bytes(data)
        with pytest.raises(CheckpointError, match="not a complete safetensors file"):
            load_parts(base, adapter=lora)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"no adapter_model\.safetensors"):
        load_parts(base, adapter=lora)
    for data in (b"[" * 100_000, b"[]", b"{"):
        (lora / "adapter_config.json").write_bytes(data)
        with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
            load_parts(base, adapter=lora)


@pytest.mark.parametrize("version", ["chatglm", "glm4"])
def test_an_adapter_of_another_base_is_one_line(version: str, lora: Path, checkpoint) -> None:
    with pytest.raises(CheckpointError, match="made for another model") as caught:
        load_parts(checkpoint(version), adapter=lora)
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="made for another model") as caught:
        load_parts(checkpoint(version)).model.load_adapter(lora)
    assert "\n" not in str(caught.value)


def test_prompt_tuning_of_peft_is_refused(checkpoint, tmp_path: Path) -> None:
    model = load_parts(checkpoint("chatglm3")).model
    get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)).save_pretrained(tmp_path)
    for way in (load_parts, chatglm.load):
        with pytest.raises(UnsupportedError, match="PROMPT_TUNING"):
            way(checkpoint("chatglm3"), adapter=tmp_path)
