"""`transformers.Trainer` as training scripts use it: it trains, evaluates, predicts and keeps the best checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_utils import EvalPrediction
from transformers.utils.generic import find_labels

from chatglm import AutoModel, AutoTokenizer
from chatglm.loading import AutoModelForSequenceClassification
from conftest import VERSIONS

STEPS: dict[str, Any] = {
    "max_steps": 1,
    "report_to": [],
    "use_cpu": True,
    "eval_strategy": "steps",
    "eval_steps": 1,
    "save_steps": 1,
    "dataloader_pin_memory": False,
    "disable_tqdm": True,
    "per_device_eval_batch_size": 2,
}


def rows(tokenizer: Any) -> list[dict[str, Any]]:
    """Of two lengths, so that batches are padded; the prompt is not learned."""
    made = []
    for text in ("你好", "你好，世界", "a", "今天天气很好"):
        ids = tokenizer(text)["input_ids"]
        made.append({"input_ids": ids, "labels": [-100, *ids[1:]]})
    return made


def correct(prediction: EvalPrediction) -> dict[str, float]:
    scores = prediction.predictions
    assert scores.shape[:2] == prediction.label_ids.shape
    kept = prediction.label_ids[:, 1:] != -100
    return {"accuracy": float((scores[:, :-1].argmax(-1) == prediction.label_ids[:, 1:])[kept].mean())}


@pytest.mark.parametrize("adapted", [False, True], ids=["full", "peft"])
@pytest.mark.parametrize("version", VERSIONS)
def test_it_evaluates(version: str, adapted: bool, checkpoint, tmp_path: Path, capfd) -> None:
    model: Any = AutoModel.from_pretrained(checkpoint(version)).float()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint(version))
    if adapted:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["query_key_value"]))
    data = rows(tokenizer)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(output_dir=str(tmp_path), load_best_model_at_end=True, **STEPS),
        train_dataset=data,
        eval_dataset=data,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        compute_metrics=correct,
    )
    trainer.train()
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-1")
    found = trainer.predict(data)
    batch = DataCollatorForSeq2Seq(tokenizer, return_tensors="np")([dict(row) for row in data])
    assert np.array_equal(np.sort(found.label_ids.ravel()), np.sort(batch["labels"].ravel()))
    with torch.no_grad():  # the mean over batches, as the Trainer has it
        collate = DataCollatorForSeq2Seq(tokenizer)
        expected = np.mean([float(model(**collate(data[n : n + 2])).loss) for n in (0, 2)])
    assert found.metrics["test_loss"] == pytest.approx(expected, abs=1e-4)
    assert found.metrics["test_accuracy"] == correct(EvalPrediction(found.predictions, found.label_ids))["accuracy"]


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_classes_are_evaluated(version: str, checkpoint, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint(version), num_labels=3).float()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint(version))
    data = [{"input_ids": row["input_ids"], "labels": n % 3} for n, row in enumerate(rows(tokenizer))]
    trainer = Trainer(
        model=model,
        args=TrainingArguments(output_dir=str(tmp_path), load_best_model_at_end=True, **STEPS),
        train_dataset=data,
        eval_dataset=data,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda p: {"right": float((p.predictions.argmax(-1) == p.label_ids).mean())},
    )
    trainer.train()
    found = trainer.predict(data)
    assert found.label_ids.tolist() == [0, 1, 2, 0]
    assert found.predictions.shape == (4, 3)
    assert {"test_loss", "test_right"} <= found.metrics.keys()


@pytest.mark.parametrize("version", VERSIONS)
def test_it_generates_while_it_evaluates(version: str, loaded, tmp_path: Path) -> None:
    """Seq2SeqTrainer with predict_with_generate, as the official finetune_hf.py uses it."""
    model, tokenizer = loaded(version)
    prompts = [{"input_ids": tokenizer(text)["input_ids"]} for text in ("你好", "你好")]
    data = [{**prompt, "labels": prompt["input_ids"]} for prompt in prompts]
    trainer = Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(output_dir=str(tmp_path), predict_with_generate=True, **STEPS),
        eval_dataset=data,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        processing_class=tokenizer,
    )
    found = trainer.predict(data, max_new_tokens=3, do_sample=False)
    ids = torch.tensor([prompts[0]["input_ids"]])
    expected = model.generate(ids, max_new_tokens=3, do_sample=False)[0].tolist()
    assert [row.tolist()[: len(expected)] for row in found.predictions] == [expected, expected]
    assert "test_loss" in found.metrics


@pytest.mark.parametrize("version", VERSIONS)
def test_labels_alone_are_required(version: str, loaded) -> None:
    """Whatever else looks for labels in the signature, as accelerate's and TRL's trainers do, finds one."""
    model, _ = loaded(version)
    assert find_labels(type(model)) == ["labels"]


@pytest.mark.parametrize("version", VERSIONS)
def test_prefix_tuning_of_peft_finds_the_sizes(version: str, checkpoint, tmp_path: Path) -> None:
    """Without being told: layers, heads and width of keys and values; and it trains and generates."""
    from peft import PrefixTuningConfig, get_peft_model

    model = AutoModel.from_pretrained(checkpoint(version)).float()
    config = model.config
    assert config.to_dict().get("num_key_value_heads", config.num_attention_heads) == (
        getattr(config, "multi_query_group_num", None) or config.num_attention_heads
    )
    config.save_pretrained(tmp_path)
    assert "num_key_value_heads" not in (tmp_path / "config.json").read_text("utf-8")
    assert type(config).from_dict(config.to_dict()).to_dict() == config.to_dict()
    if version == "chatglm":  # its positions depend on where the prompt ends, which virtual tokens would move
        return
    adapted = get_peft_model(model, PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    ids = AutoTokenizer.from_pretrained(checkpoint(version))("你好", return_tensors="pt")["input_ids"]
    adapted(input_ids=ids, labels=ids).loss.backward()
    assert adapted.prompt_encoder["default"].embedding.weight.grad.abs().sum() > 0
    assert adapted.generate(input_ids=ids, max_new_tokens=2, do_sample=False).shape[1] == ids.shape[1] + 2
