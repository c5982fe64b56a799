"""What does it gain to learn every turn of a dialogue in one pass?

    python benchmarks/learned_turns.py [--seconds 60] [--rounds 2]

The same model with the same random weights learns the same dialogues of several turns for the same time with each
setting of `loss`: `all` (every assistant turn, one pass), `last` (only the last turn, as the official ChatGLM2 code has
it) and `split` (every turn in a pass of its own). Settings take turns. Reported: learned tokens per second, and at the
end the loss over all turns of held-out dialogues. Dialogues come from the demo model's grammar for small talk.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import torch
from common import child, machine

ROOT = Path(__file__).resolve().parents[1]
LOSSES = ("all", "last", "split")


def write_data(folder: Path) -> None:
    sys.path.insert(0, str(ROOT / "recipes" / "demo"))
    from corpus import draw_sample

    rng = Random(11)
    for name, split, count in (("train.jsonl", "train", 20_000), ("val.jsonl", "test", 200)):
        with (folder / name).open("w", encoding="utf-8") as out:
            for _ in range(count):
                messages = draw_sample(rng, split, "memory").messages  # type: ignore[arg-type]
                out.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")


def write_model(folder: Path) -> None:
    """The demo model's sizes and tokenizer, weights at random."""
    from transformers import AutoTokenizer

    from chatglm.loading import demo_folder
    from chatglm.models.chatglm import ChatGLMForConditionalGeneration
    from chatglm.models.configuration import ChatGLMConfig

    torch.manual_seed(0)
    ChatGLMForConditionalGeneration(ChatGLMConfig.from_pretrained(demo_folder())).save_pretrained(folder)
    AutoTokenizer.from_pretrained(demo_folder()).save_pretrained(folder)


def measure(loss: str, folder: str, seconds: int) -> dict[str, Any]:
    from transformers import TrainerCallback

    from chatglm.training.finetune import finetune
    from chatglm.training.settings import Settings

    class Stop(TrainerCallback):  # type: ignore[misc]
        start = 0.0

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if time.perf_counter() - self.start > seconds:
                control.should_training_stop = control.should_log = True

    with tempfile.TemporaryDirectory() as output:
        settings = Settings.from_dict(
            {
                "method": "full",
                "model": f"{folder}/model",
                "loss": loss,
                "max_length": 512,
                "data_config": {"train_file": f"{folder}/train.jsonl"},
                "training_args": {
                    "output_dir": f"{output}/run",
                    "per_device_train_batch_size": 4,
                    "num_train_epochs": 100,
                    "learning_rate": 1e-3,
                    "lr_scheduler_type": "constant_with_warmup",
                    "warmup_steps": 20,
                    "bf16": True,
                    "use_cpu": True,
                    "logging_steps": 20,
                    "save_strategy": "no",
                    "report_to": "none",
                },
            }
        )
        # Held-out dialogues are measured in the same way for all: every turn.
        result = finetune(settings, say=lambda line: None, callbacks=[Stop()])
        records = [record for record in result.records if "learned_tokens" in record]
        learned = sum(record["learned_tokens"] for record in records)
        held_out = evaluate(f"{output}/run", f"{folder}/val.jsonl")
    return {"learned_per_second": learned / seconds, "steps": result.steps, "loss": held_out}


def evaluate(model: str, data: str) -> float:
    from chatglm.loading import load_parts
    from chatglm.training.metrics import evaluate as measured

    loaded = load_parts(model, dtype=torch.float32)
    return float(measured(loaded, data, loss="all", max_length=512, samples=0, batch_size=8)["loss"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        loss, folder, seconds = options.child
        print(json.dumps(measure(loss, folder, int(seconds))))
        return
    runs: dict[str, list[dict[str, Any]]] = {loss: [] for loss in LOSSES}
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder))
        write_model(Path(folder) / "model")
        for number in range(options.rounds):
            for loss in LOSSES if number % 2 else LOSSES[::-1]:
                runs[loss].append(child(__file__, loss, folder, options.seconds))
    report: dict[str, Any] = {"machine": machine(), "seconds": options.seconds, "runs": runs}
    print(f"{report['machine']}\nequal time: {options.seconds} s each, {options.rounds} rounds, medians\n")
    print(f"{'loss':8}{'learned tokens/s':>18}{'ratio to all':>14}{'held-out loss':>15}")
    base = statistics.median(run["learned_per_second"] for run in runs["all"])
    for loss in LOSSES:
        speed = statistics.median(run["learned_per_second"] for run in runs[loss])
        value = statistics.median(run["loss"] for run in runs[loss])
        print(f"{loss:8}{speed:18.0f}{speed / base:13.2f}×{value:15.3f}")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
