"""QLoRA: adapters over integers train, are saved and load; merging is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small import FAMILY, ids_for, logits, small

import chatglm
from chatglm.errors import InputError, UnsupportedError
from chatglm.loading import add_adapter, load_parts
from chatglm.quantization.linear import QuantizedLinear
from chatglm.quantization.swap import quantize_module

peft = pytest.importorskip("peft")


@pytest.fixture(params=[{"bits": 4, "group_size": 32}, {"bits": 8, "group_size": 0}], ids=str)
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


def integers(model: Any) -> list[torch.Tensor]:
    return [module.weight.clone() for module in model.modules() if isinstance(module, QuantizedLinear)]


def train(model: Any, kind: str) -> list[float]:
    ids = ids_for(kind, 12)
    steps = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(12):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        steps.step()
        steps.zero_grad()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("kind", [*FAMILY, "llama"])
@pytest.mark.parametrize("targets", ["all-linear", None])
def test_peft_as_everyone_uses_it(kind: str, targets: str | None, settings: dict[str, Any], tmp_path: Path) -> None:
    """Nothing of ours is asked: get_peft_model on a quantised model."""
    quantize_module(small(kind), **settings).save_pretrained(tmp_path / "base")
    base = chatglm.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    before = integers(base)
    if targets is None:
        targets = ["q_proj", "v_proj"] if kind == "llama" else ["query_key_value"]
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM"))
    losses = train(model, kind)
    assert losses[-1] < 0.9 * losses[0]
    assert all(torch.equal(a, b) for a, b in zip(before, integers(model), strict=True))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    model.save_pretrained(tmp_path / "adapter")
    wanted = logits(model.eval(), kind)
    again = peft.PeftModel.from_pretrained(
        chatglm.AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter"
    ).eval()
    assert torch.equal(logits(again, kind), wanted)


def test_through_the_training_room(checkpoint, tmp_path: Path, settings: dict[str, Any]) -> None:
    from chatglm.training.methods import merge, prepare
    from chatglm.training.settings import Settings

    chatglm.AutoModel.from_pretrained(checkpoint("chatglm3")).quantize(
        settings["bits"], group_size=settings["group_size"]
    ).save_pretrained(tmp_path / "base")
    for name in ("tokenizer.model", "tokenizer_config.json"):
        (tmp_path / "base" / name).write_bytes((checkpoint("chatglm3") / name).read_bytes())

    def given(**changes: Any) -> Settings:
        data = {"train_file": "x.jsonl"}
        arguments = {"output_dir": str(tmp_path / "out")}
        about = {"model": str(tmp_path / "base"), "data_config": data, "training_args": arguments, **changes}
        return Settings.from_dict(about)

    model, _, _ = prepare(given(method="lora"))
    wrapped = model.base_model.model.transformer.encoder.layers[0].self_attention.query_key_value
    assert isinstance(wrapped.base_layer, QuantizedLinear)
    assert train(model, "chatglm3")[-1] < 25
    with pytest.raises(UnsupportedError, match="chatglm merge ADAPTER --model ORIGINAL"):
        model.merge_and_unload()
    model.save_pretrained(tmp_path / "adapter")
    wanted = logits(model.eval(), "chatglm3")
    assert torch.equal(logits(load_parts(tmp_path / "adapter", dtype=torch.float32).model, "chatglm3"), wanted)
    loaded = load_parts(tmp_path / "base", adapter=tmp_path / "adapter", dtype=torch.float32)
    assert torch.equal(logits(loaded.model, "chatglm3"), wanted)
    with pytest.raises(UnsupportedError, match="cannot be merged into quantised weights"):
        loaded.model.merge_and_unload()
    with pytest.raises(UnsupportedError, match="cannot be merged into quantised weights"):
        merge(tmp_path / "adapter", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    merge(tmp_path / "adapter", tmp_path / "merged", model=checkpoint("chatglm3"))  # into the original weights

    for method in ("full", "freeze"):
        with pytest.raises(UnsupportedError, match="integers cannot be trained"):
            prepare(given(method=method))
    with pytest.raises(UnsupportedError, match="DoRA"):
        prepare(given(method="lora", peft_config={"peft_type": "LORA", "use_dora": True}))
    model, _, _ = prepare(given(method="ptuning", peft_config={"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3}))
    losses = train(model, "chatglm3")
    assert losses[-1] < losses[0]
    assert not any(p.requires_grad for name, p in model.named_parameters() if "prefix_encoder" not in name)


def test_an_adapter_of_the_original_on_the_quantised(tmp_path: Path) -> None:
    """Trained on fp16, used on int8: the same names, nearly the same answers."""
    plain = small("chatglm3")
    plain.save_pretrained(tmp_path / "plain")
    model = peft.get_peft_model(plain, peft.LoraConfig(r=4, target_modules=["query_key_value"]))
    train(model, "chatglm3")
    model.save_pretrained(tmp_path / "adapter")
    base = chatglm.AutoModel.from_pretrained(tmp_path / "plain").quantize(8)
    quantised = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    wanted = logits(model.eval(), "chatglm3")
    assert (logits(quantised, "chatglm3") - wanted).norm() / wanted.norm() < 0.05


def test_what_is_written_says_nothing_new(tmp_path: Path) -> None:
    model = peft.get_peft_model(small("chatglm3").quantize(4), peft.LoraConfig(r=2, target_modules=["query_key_value"]))
    model.save_pretrained(tmp_path)
    about = json.loads((tmp_path / "adapter_config.json").read_text("utf-8"))
    assert about["peft_type"] == "LORA"
    with pytest.raises(InputError, match="quantised already"):
        quantize_module(model, 4)


@pytest.mark.parametrize("kind", ["IA3", "LoRA, with floats beside the integers"])
def test_a_refused_merge_changes_nothing(kind: str, settings: dict[str, Any], tmp_path: Path) -> None:
    targets = ["query_key_value", "dense_4h_to_h"]
    config = (
        peft.IA3Config(task_type="CAUSAL_LM", target_modules=targets, feedforward_modules=targets[1:])
        if kind == "IA3"
        else peft.LoraConfig(task_type="CAUSAL_LM", target_modules=targets)
    )
    saved = peft.get_peft_model(small("chatglm3"), config)
    with torch.no_grad():
        for name, parameter in saved.named_parameters():
            if "lora_" in name or "ia3_" in name:
                parameter.fill_(0.5)
    saved.save_pretrained(tmp_path)
    skip = () if kind == "IA3" else ("transformer.encoder.layers.0",)  # its layers would be merged first
    model = add_adapter(quantize_module(small("chatglm3"), **settings, skip=skip), tmp_path, "default")
    wanted = logits(model, "chatglm3")
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(UnsupportedError, match="cannot be merged into quantised weights"):
            merge()
        assert torch.equal(logits(model, "chatglm3"), wanted)
    plain = logits(quantize_module(small("chatglm3"), **settings, skip=skip), "chatglm3")
    assert torch.equal(logits(model.unload(), "chatglm3"), plain)
