"""A trainer over a tiny model and made-up examples, in this process or, as a script, in one that may be killed."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from chatglm.models.chatglm import ChatGLMForConditionalGeneration
from chatglm.models.configuration import ChatGLMConfig
from chatglm.training.examples import IGNORE, Collator, Example
from chatglm.training.logs import JsonLog, read_log
from chatglm.training.settings import Settings
from chatglm.training.trainer import FamilyTrainer, arguments_of, last_checkpoint

VOCABULARY = 96


def tiny(**changes: Any) -> ChatGLMForConditionalGeneration:
    torch.manual_seed(7)
    sizes = {
        "num_layers": 2,
        "padded_vocab_size": VOCABULARY,
        "hidden_size": 32,
        "ffn_hidden_size": 48,
        "kv_channels": 8,
        "num_attention_heads": 4,
        "multi_query_attention": True,
        "multi_query_group_num": 2,
        "add_qkv_bias": True,
        "seq_length": 64,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "hidden_dropout": 0.1,  # so that a resumed run must also draw what the other would have drawn
        "chatglm_generation": "chatglm3",
    }
    return ChatGLMForConditionalGeneration(ChatGLMConfig(**{**sizes, **changes}))


def made_up(count: int = 14, seed: int = 3) -> list[list[Example]]:
    """Rows of one or two examples of different lengths, learned in part, the first ids never."""
    generator = torch.Generator().manual_seed(seed)

    def one(number: int) -> Example:
        length = int(torch.randint(4, 12, (1,), generator=generator))
        ids = torch.randint(4, VOCABULARY, (length + 1,), generator=generator).tolist()
        learned = [IGNORE if n < length // 3 else ids[n + 1] for n in range(length)]
        return Example(ids[:-1], learned, (range(length),), f"made.jsonl:{number}")

    return [[one(10 * row + n) for n in range(1 + row % 2)] for row in range(count)]


def build(output: Path, rows: Any = None, held_out: Any = None, model: Any = None, **arguments: Any) -> FamilyTrainer:
    given = {
        "output_dir": str(output),
        "use_cpu": True,
        "report_to": "none",
        "logging_steps": 1,
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 2,
        "num_train_epochs": 2,
        "save_strategy": "no",
        "warmup_steps": 0,
        **arguments,
    }
    rows = made_up() if rows is None else rows
    evaluates = {"val_file": "made up"} if held_out is not None else {}
    settings = Settings.from_dict({"method": "full", "training_args": given, "data_config": evaluates})
    return FamilyTrainer(
        tiny() if model is None else model,
        arguments_of(settings),
        rows,
        Collator(0),
        held_out=held_out,
    )


def losses(trainer: FamilyTrainer) -> list[float]:
    return [record["loss"] for record in trainer.state.log_history if "loss" in record]


class DiesWhileSaving(FamilyTrainer):
    """Kills its process, -9, in the middle of writing the checkpoint of step 9."""

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.state.global_step == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        super()._save_optimizer_and_scheduler(output_dir)


def run(output: Path, *, die: bool = False, resume: bool = False, rows_made: int = 14, **options: Any) -> None:
    """Train; the log lies in the folder."""
    held_out = None
    if options.pop("evaluate", False):
        held_out, options["eval_strategy"] = made_up(5, seed=8), "epoch"
    trainer = build(output, made_up(rows_made), held_out, tiny(**options.pop("model_changes", {})), **options)
    if die:
        trainer.__class__ = DiesWhileSaving
    start = last_checkpoint(output) if resume else None
    upto = json.loads((start / "trainer_state.json").read_text())["global_step"] if start else 0
    if trainer.is_world_process_zero():
        trainer.add_callback(JsonLog(output / "log.jsonl", upto))
    trainer.train(resume_from_checkpoint=str(start) if start else None)


def logged(output: Path, name: str = "loss") -> list[tuple[int, float]]:
    return [(record["step"], record[name]) for record in read_log(output / "log.jsonl") if name in record]


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), **json.loads(sys.argv[2]))
