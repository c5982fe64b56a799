"""Does fine-tuning cost less here than with PEFT and `transformers.Trainer` on `transformers`' native GLM class?

    python benchmarks/training_speed.py [--layers 8] [--hidden 1024] [--steps 6] [--rounds 3]

Both sides train LoRA of the same rank on the attention's input projections (one joint matrix here, three there) of the
same random weights, on the same dialogues in the same batches, in the same precision; only answers are learned. Every
run is a process of its own, sides take turns; medians of tokens per second (after the first steps) and of the peak of
resident memory, and the median ratio of neighbouring runs. `packed` is our default, which puts short dialogues into one
row; `alone` has one dialogue in a row, padded, as the other side has it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from typing import Any

import torch
from common import Memory, child, machine, native_twin

SIDES = ("packed", "alone", "native")
VOCABULARY = 65024


def dialogues(count: int, longest: int) -> list[tuple[list[int], list[int]]]:
    """Ids and already shifted targets: three turns of question and answer, of many lengths."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for _ in range(count):
        ids: list[int] = [64790, 64792]
        learned: list[bool] = [False, False]
        for _ in range(3):
            for is_answer in (False, True):
                length = int(torch.randint(8, longest // 6, (1,), generator=generator))
                ids += torch.randint(100, 60000, (length,), generator=generator).tolist()
                learned += [is_answer] * length
        targets = [ids[n + 1] if learned[n + 1] else -100 for n in range(len(ids) - 1)]
        made.append((ids[:-1], targets))
    return made


class Clock:
    """Times of steps, and of the tokens in them."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def callback(self) -> Any:
        from transformers import TrainerCallback

        clock = self

        class Watch(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                clock.times.append(time.perf_counter())

        return Watch()


def measure(side: str, layers: int, hidden: int, steps: int, batch: int, longest: int) -> dict[str, Any]:
    from peft import LoraConfig, get_peft_model
    from transformers import Trainer, TrainingArguments, set_seed

    from chatglm.models.chatglm import ChatGLMForConditionalGeneration
    from chatglm.models.configuration import ChatGLMConfig
    from chatglm.training.examples import Collator, Example, pack
    from chatglm.training.store import Rows
    from chatglm.training.trainer import FamilyTrainer

    set_seed(1)
    config = ChatGLMConfig(
        num_layers=layers,
        hidden_size=hidden,
        ffn_hidden_size=hidden * 13696 // 4096,
        num_attention_heads=hidden // 128,
        kv_channels=128,
        multi_query_attention=True,
        multi_query_group_num=2,
        padded_vocab_size=VOCABULARY,
        add_qkv_bias=True,
        add_bias_linear=False,
        seq_length=8192,
        chatglm_generation="chatglm3",
    )
    model: Any = ChatGLMForConditionalGeneration(config).to(torch.bfloat16)
    targets = ["query_key_value"]
    if side == "native":
        model, targets = native_twin(model), ["q_proj", "k_proj", "v_proj"]
    model.requires_grad_(False)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=32, target_modules=targets))
    data = dialogues(batch * steps, longest)
    examples = [Example(ids, wanted, (range(len(ids)),)) for ids, wanted in data]
    clock = Clock()
    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(),  # nothing is saved
        per_device_train_batch_size=batch,
        num_train_epochs=1,
        learning_rate=1e-4,
        bf16=True,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        remove_unused_columns=False,
        train_sampling_strategy="sequential",
        label_names=["shift_labels"],
        dataloader_pin_memory=False,
    )
    if side == "native":

        def collate(rows: list[Any]) -> dict[str, torch.Tensor]:
            width = max(len(row) for row in rows)
            width = -(-width // 8) * 8
            ids = torch.zeros(len(rows), width, dtype=torch.long)
            labels = torch.full((len(rows), width), -100)
            mask = torch.zeros(len(rows), width, dtype=torch.long)
            for number, row in enumerate(rows):
                ids[number, : len(row)] = torch.tensor(row.ids)
                labels[number, 1 : len(row)] = torch.tensor(row.targets[:-1])
                mask[number, : len(row)] = 1
            return {"input_ids": ids, "labels": labels, "attention_mask": mask}

        arguments.label_names = ["labels"]
        trainer: Any = Trainer(
            model, arguments, data_collator=collate, train_dataset=examples, callbacks=[clock.callback()]
        )
    else:
        plan = pack([len(e) for e in examples], longest) if side == "packed" else [[n] for n in range(len(examples))]
        rows = Rows(examples, plan)
        trainer = FamilyTrainer(model, arguments, rows, Collator(0), callbacks=[clock.callback()])
    tokens = sum(map(len, examples))
    with Memory() as memory:
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    return {
        "tokens_per_second": tokens / seconds,
        "peak_gib": memory.peak["rss"] / 2**30,
        "loss": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--longest", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        side, *rest = options.child
        print(json.dumps(measure(side, *map(int, rest))))
        return
    sizes = (options.layers, options.hidden, options.steps, options.batch, options.longest)
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for number in range(options.rounds):
        for side in SIDES if number % 2 else SIDES[::-1]:
            runs[side].append(child(__file__, side, *sizes))
    report: dict[str, Any] = {"machine": machine(), "sizes": vars(options), "runs": runs}
    print(f"{report['machine']}\nLoRA, bf16, {options.layers} layers of {options.hidden}, vocabulary {VOCABULARY}\n")
    print(f"{'':10}{'tokens/s':>10}{'ratio':>8}{'peak GiB':>10}{'ratio':>8}")
    for side in SIDES:
        speed = statistics.median(run["tokens_per_second"] for run in runs[side])
        peak = statistics.median(run["peak_gib"] for run in runs[side])
        pairs = list(zip(runs[side], runs["native"], strict=True))
        faster = statistics.median(a["tokens_per_second"] / b["tokens_per_second"] for a, b in pairs)
        smaller = statistics.median(a["peak_gib"] / b["peak_gib"] for a, b in pairs)
        print(f"{side:10}{speed:10.1f}{faster:7.2f}×{peak:10.2f}{smaller:7.2f}×")
        report[side] = {"tokens_per_second": speed, "peak_gib": peak, "faster": faster, "memory": smaller}
    # The first step's loss comes before any learning: the same data, the same weights, the same loss.
    first = {side: runs[side][0]["loss"][0] for side in ("alone", "native")}
    print(f"loss of the first step: {first['alone']:.4f} here, {first['native']:.4f} there")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
