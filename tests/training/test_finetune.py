"""`finetune` whole: data in, weights out that `load` reads and that say what they were taught."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from chatglm.chat.messages import Message
from chatglm.errors import (
    ChatGLMError,
    CheckpointError,
    DependencyError,
    InputError,
    NumericalError,
    OutputError,
    UnsupportedError,
)
from chatglm.loading import load_parts
from chatglm.output import working_in
from chatglm.training.finetune import Result, finetune
from chatglm.training.logs import read_log
from chatglm.training.methods import merge
from chatglm.training.pretrain import pretrain
from chatglm.training.settings import Settings
from disks import small_files

TURNS = [("你是谁？", "我是小智。"), ("几岁了？", "三岁啦！"), ("再见", "下次聊。")]
VERSIONS = ("chatglm", "chatglm2", "chatglm3", "glm4")


def quiet(line: str) -> None:
    assert line


def written(folder: Path, rows: list[Any], name: str = "data.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return file


def dialogue(turns: list[tuple[str, str]]) -> dict[str, Any]:
    return {"conversation": [{"human": question, "assistant": answer} for question, answer in turns]}


def settings_of(model: Path | None, data: Path, output: Path, method: str = "full", **changes: Any) -> Settings:
    arguments = {
        "output_dir": str(output),
        "use_cpu": True,
        "report_to": "none",
        "max_steps": 40,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "warmup_steps": 0,
        **changes.pop("training_args", {}),
    }
    data_config = {"train_file": str(data), **changes.pop("data_config", {})}
    tree = {"model": model and str(model), "method": method, "max_length": 128, "training_args": arguments, **changes}
    return Settings.from_dict({**tree, "data_config": data_config})


def tune(*args: Any, resume: Any = False, overwrite: bool = False, **changes: Any) -> Result:
    return finetune(settings_of(*args, **changes), resume=resume, overwrite=overwrite, say=quiet)


def says_every_turn(model: Any, tokenizer: Any, turns: list[tuple[str, str]] = TURNS) -> None:
    history: list[Any] = []
    for question, answer in turns:
        response, history = model.chat(tokenizer, question, history, do_sample=False, max_new_tokens=24)
        assert response == answer


@pytest.fixture(scope="module")
def taught(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Result]:
    """`taught("glm4")` is a full run on one dialogue of three turns, made once."""
    made: dict[str, Result] = {}

    def get(version: str) -> Result:
        if version not in made:
            folder = tmp_path_factory.mktemp(version)
            data = written(folder, [dialogue(TURNS)])
            made[version] = tune(checkpoint(version), data, folder / "out", save_dtype="float32")
        return made[version]

    return get


@pytest.mark.parametrize("version", VERSIONS)
def test_every_generation_learns_a_dialogue_and_says_every_turn(version: str, taught) -> None:
    result = taught(version)
    assert result.losses[-1] < 0.1 < result.losses[0]
    model, tokenizer, _ = load_parts(result.output, dtype=torch.float32)
    says_every_turn(model, tokenizer)


@pytest.mark.parametrize("version", ["chatglm3", "glm4"])
def test_lora_learns_a_dialogue_and_merges(version: str, checkpoint, tmp_path: Path) -> None:
    data = written(tmp_path, [dialogue(TURNS)])
    lora = {"peft_type": "LORA", "r": 16, "lora_dropout": 0.0}
    steps = {"max_steps": 70, "lr_scheduler_type": "linear"}
    result = tune(checkpoint(version), data, tmp_path / "out", "lora", peft_config=lora, training_args=steps)
    assert result.trained < result.weights / 50
    model, tokenizer, _ = load_parts(result.output, dtype=torch.float32)  # names its base
    says_every_turn(model, tokenizer)
    merged = merge(result.output, tmp_path / "merged", dtype="float32")
    assert merged.agreement == 1
    assert merged.effect > 1
    assert merged.difference < 1e-3
    model, tokenizer, _ = load_parts(merged.output, dtype=torch.float32)
    says_every_turn(model, tokenizer)


def test_a_prefix_learns_what_its_model_does_not_say(taught, tmp_path: Path) -> None:
    """P-tuning v2: the state alone is saved, `load(prefix=…)` reads it, and the model without it is as it was."""
    base = taught("chatglm3").output
    other = [("你是谁？", "我是大明。")]
    result = tune(
        base,
        written(tmp_path, [dialogue(other)]),
        tmp_path / "out",
        "ptuning",
        peft_config={"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 16},
        training_args={"max_steps": 60, "learning_rate": 0.3},
    )
    assert result.losses[-1] < 0.5 < result.losses[0]  # with dropout
    state = torch.load(result.output / "pytorch_model.bin", weights_only=True)
    assert list(state) == ["transformer.prefix_encoder.embedding.weight"]
    assert result.trained == state["transformer.prefix_encoder.embedding.weight"].numel()
    assert not (result.output / "config.json").exists()
    model, tokenizer, _ = load_parts(base, prefix=result.output, dtype=torch.float32)
    says_every_turn(model, tokenizer, other)
    says_every_turn(*list(load_parts(base, dtype=torch.float32))[:2])


@pytest.mark.parametrize(("version", "projection"), list(zip(VERSIONS, (True, False, True, False), strict=True)))
def test_prefixes_of_every_generation_load_as_they_were(version: str, projection: bool, checkpoint, tmp_path) -> None:
    prefix = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4, "prefix_projection": projection}
    data = written(tmp_path, [dialogue(TURNS)])
    caught: list[Any] = []

    class Keep(TrainerCallback):
        def on_train_end(self, *args: Any, model: Any, **kwargs: Any) -> None:
            caught.append(model)

    few = {"max_steps": 2}
    settings = settings_of(
        checkpoint(version), data, tmp_path / "out", "ptuning", peft_config=prefix, training_args=few
    )
    finetune(settings, say=quiet, callbacks=[Keep()])
    model, _, form = load_parts(checkpoint(version), prefix=tmp_path / "out", dtype=torch.float32)
    ids = torch.tensor([form.prompt([Message("user", "你好")])])
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, caught[0].eval()(input_ids=ids).logits)


def test_freeze_trains_the_last_blocks_alone(checkpoint, tmp_path: Path) -> None:
    data = written(tmp_path, [dialogue(TURNS)])
    options = {"trainable_layers": 1, "save_dtype": "float32", "training_args": {"max_steps": 3}}
    tune(checkpoint("chatglm3"), data, tmp_path / "out", "freeze", **options)
    before = load_parts(checkpoint("chatglm3"), dtype=torch.float32).model.state_dict()
    after = load_parts(tmp_path / "out", dtype=torch.float32).model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("encoder.layers.2." in name for name in changed)


def test_what_is_saved_has_the_checkpoint_s_precision(checkpoint, tmp_path: Path) -> None:
    data = written(tmp_path, [dialogue(TURNS)])
    tune(checkpoint("chatglm"), data, tmp_path / "out", training_args={"max_steps": 1})
    model = load_parts(tmp_path / "out", dtype="auto").model
    assert model.dtype == torch.float16
    assert model.config.use_cache
    # Embedding and head are one weight, and written once.
    weights = sum(p.numel() for p in model.parameters())
    assert (tmp_path / "out" / "model.safetensors").stat().st_size < 2 * weights + 20_000


# Half precision


@pytest.mark.parametrize("method", ["lora", "ptuning", "full"])
def test_bf16_computes_low_and_learns_in_float32(method: str, checkpoint, tmp_path: Path) -> None:
    seen: list[set[torch.dtype]] = []

    class Look(TrainerCallback):
        def on_step_end(self, *args: Any, model: Any, **kwargs: Any) -> None:
            seen.append({p.dtype for p in model.parameters() if p.requires_grad})
            seen.append({p.dtype for p in model.parameters() if not p.requires_grad})

    data = written(tmp_path, [dialogue(TURNS)])
    arguments = {"bf16": True, "max_steps": 4}
    settings = settings_of(checkpoint("chatglm3"), data, tmp_path / "out", method, training_args=arguments)
    result = finetune(settings, say=quiet, callbacks=[Look()])
    assert seen[0] == {torch.float32}
    assert seen[1] == (set() if method == "full" else {torch.bfloat16})
    if method != "ptuning":
        assert result.losses[-1] < result.losses[0]


# The folder of a run


def test_the_folder_of_a_run(checkpoint, tmp_path: Path) -> None:
    data = written(tmp_path, [dialogue(TURNS[:n]) for n in (1, 2, 3)])
    held_out = written(tmp_path, [dialogue(TURNS)], "val.jsonl")
    settings = settings_of(
        checkpoint("chatglm3"),
        data,
        tmp_path / "out",
        predict_with_generate=True,
        max_new_tokens=8,
        data_config={"val_file": str(held_out)},
        training_args={"max_steps": 20, "eval_strategy": "steps", "eval_steps": 10},
    )
    result = finetune(settings, say=quiet)
    out = tmp_path / "out"
    assert Settings.load(out / "settings.yaml") == settings
    records = read_log(out / "train_log.jsonl")
    assert tuple(records) == result.records
    assert [r["step"] for r in records if "loss" in r] == list(range(1, 21))
    assert all(r["tokens_per_second"] > 0 and r["learned_tokens"] > 0 for r in records if "loss" in r)
    assert [r["step"] for r in records if "eval_loss" in r] == [10, 20]
    assert result.metrics["eval_bleu-4"] == pytest.approx(100)  # it knows the dialogue by now
    assert result.metrics["eval_rouge-l"] == pytest.approx(100)
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert not list(out.glob(".*"))


def test_an_output_folder_is_not_overwritten(checkpoint, tmp_path: Path) -> None:
    data = written(tmp_path, [dialogue(TURNS)])
    few = {"training_args": {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}}
    tune(checkpoint("chatglm3"), data, tmp_path / "out", **few)
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    with pytest.raises(InputError, match=r"out: exists already, .*--resume.*--overwrite"):
        tune(checkpoint("chatglm3"), data, tmp_path / "out", **few)
    # Nor by a run that is refused later on: bad data, a bad model folder.
    bad = written(tmp_path, [dialogue(TURNS), {"messages": 3}], "bad.jsonl")
    with pytest.raises(InputError, match=r"bad\.jsonl:2"):
        tune(checkpoint("chatglm3"), bad, tmp_path / "out", overwrite=True, **few)
    with pytest.raises(ChatGLMError, match="nowhere"):
        tune(tmp_path / "nowhere", data, tmp_path / "out", overwrite=True, **few)
    lora = {"peft_type": "LORA", "target_modules": ["w_proj"]}
    with pytest.raises(InputError, match="no linear layer 'w_proj'"):
        tune(checkpoint("chatglm3"), data, tmp_path / "out", "lora", overwrite=True, peft_config=lora)
    assert {file: file.read_bytes() for file in before} == before
    result = tune(checkpoint("chatglm3"), data, tmp_path / "out", overwrite=True, training_args={"max_steps": 1})
    assert result.steps == 1
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_a_folder_that_is_no_run_is_never_overwritten(checkpoint, tmp_path: Path) -> None:
    data = written(tmp_path, [dialogue(TURNS)])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(InputError, match="is not the folder of a run"):
        tune(checkpoint("chatglm3"), data, tmp_path / "mine", overwrite=True)
    with pytest.raises(InputError, match="is a file"):
        tune(checkpoint("chatglm3"), data, tmp_path / "mine" / "thesis.txt")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"


def test_a_model_is_never_written_over_by_its_own_run(copied, tmp_path: Path) -> None:
    """Neither by resuming in its folder, nor by overwriting a run's folder that it lies in."""
    data = written(tmp_path, [dialogue(TURNS)])
    base = copied("chatglm3")
    few = {"training_args": {"max_steps": 1, "save_strategy": "steps"}}
    before = {file: file.read_bytes() for file in base.rglob("*") if file.is_file()}
    for output in (base, tmp_path / "linked"):
        if not output.exists():
            output.symlink_to(base)
        for options in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(InputError, match="this folder holds the model itself"):
                tune(base, data, output, **options, **few)
    other = shutil.copytree(base, tmp_path / "other")
    with pytest.raises(InputError, match=r"--resume: .*other is not the folder of a run"):
        tune(base, data, other, resume=True, **few)
    assert {file: file.read_bytes() for file in base.rglob("*") if file.is_file()} == before
    tune(base, data, tmp_path / "out", **few)
    shutil.copytree(base, tmp_path / "out" / "checkpoint-9")
    with pytest.raises(InputError, match="this folder holds the model itself"):
        tune(tmp_path / "out" / "checkpoint-9", data, tmp_path / "out", overwrite=True, **few)


def test_overwriting_waits_until_all_is_in_order_and_takes_only_what_runs_write(checkpoint, tmp_path: Path) -> None:
    data = written(tmp_path, [dialogue(TURNS)])
    few = {"max_steps": 1, "save_strategy": "steps"}
    out = tmp_path / "out"
    tune(checkpoint("chatglm3"), data, out, training_args=few)
    for name in ("checkpoint-mine", "adapter_of_mine"):
        (out / name).mkdir()
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.is_file()}
    with pytest.raises(InputError, match="training_args: Invalid beta"):
        tune(checkpoint("chatglm3"), data, out, overwrite=True, training_args={**few, "adam_beta1": 2})
    with pytest.raises(DependencyError, match=r"training_args\.optim: .*bitsandbytes"):
        tune(checkpoint("chatglm3"), data, out, overwrite=True, training_args={**few, "optim": "adamw_bnb_8bit"})
    with pytest.raises(InputError, match="dataloader_drop_last: a batch has 4 rows, and the data only 1"):
        tune(checkpoint("chatglm3"), data, out, overwrite=True, training_args={**few, "dataloader_drop_last": True})
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.is_file()} == before
    tune(checkpoint("chatglm3"), data, out, overwrite=True, training_args=few)
    assert (out / "checkpoint-mine").is_dir()
    assert (out / "adapter_of_mine").is_dir()


def test_a_folder_that_cannot_be_made(checkpoint, tmp_path: Path) -> None:
    data = written(tmp_path, [dialogue(TURNS)])
    with pytest.raises(InputError, match=r"data\.jsonl/out: cannot be written to"):
        tune(checkpoint("chatglm3"), data, data / "out")


def test_a_run_that_ends_before_its_first_record_has_a_loss_all_the_same(checkpoint, tmp_path: Path) -> None:
    data = written(tmp_path, [dialogue(TURNS)])
    arguments = {"max_steps": 3, "logging_steps": 10}
    result = tune(checkpoint("chatglm3"), data, tmp_path / "out", training_args=arguments)
    assert [record["step"] for record in result.records if "loss" in record] == [3]
    assert (tmp_path / "out" / "loss.png").is_file()


def test_what_is_said_of_one_is_right(checkpoint, tmp_path: Path) -> None:
    text = tmp_path / "one.txt"
    text.write_text("你好，世界。" * 9, "utf-8")
    said: list[str] = []
    settings = settings_of(checkpoint("chatglm3"), text, tmp_path / "out", training_args={"max_steps": 1})
    result = pretrain(settings, say=said.append)
    assert re.match(r"1 document, \d+ tokens, 1 row of up to 128$", said[0])
    assert result.steps == 1


def test_settings_of_the_other_command_are_refused(checkpoint, tmp_path: Path) -> None:
    data = written(tmp_path, [dialogue(TURNS)])
    for changes, name in (({"texts": {"split": "line"}}, "texts"), ({"tokenizer": "x"}, "tokenizer")):
        with pytest.raises(InputError, match=f"{name}: has no effect in fine-tuning"):
            tune(checkpoint("chatglm3"), data, tmp_path / "out", **changes)
    for changes, name in (({"packing": False}, "packing"), ({"loss": "last"}, "loss")):
        with pytest.raises(InputError, match=f"{name}: has no effect in pre-training"):
            pretrain(settings_of(checkpoint("chatglm3"), data, tmp_path / "out", **changes), say=quiet)


def test_a_refused_run_leaves_room_for_the_next(checkpoint, tmp_path: Path) -> None:
    data = written(tmp_path, [{"messages": 3}])
    with pytest.raises(InputError, match=r"data\.jsonl:1"):
        tune(checkpoint("chatglm3"), data, tmp_path / "out")
    written(tmp_path, [dialogue(TURNS)])
    assert tune(checkpoint("chatglm3"), data, tmp_path / "out", training_args={"max_steps": 1}).steps == 1


@pytest.mark.parametrize("method", ["lora", "ptuning", "full"])
def test_a_resumed_run_is_the_uninterrupted_one(method: str, checkpoint, tmp_path: Path) -> None:
    """With a row order, LoRA's dropout and the prefix's; the log, too, is that of one run."""
    rows = [dialogue([(f"问{n}", f"答{n}{n}")]) for n in range(9)]
    data = written(tmp_path, rows)
    arguments = {
        "max_steps": 8,
        "save_strategy": "steps",
        "save_steps": 3,
        "logging_steps": 2,
        "per_device_train_batch_size": 2,
    }
    options = {"training_args": arguments, "packing": False}
    whole = tune(checkpoint("chatglm3"), data, tmp_path / "out", method, **options)
    results = [tmp_path / "whole", tmp_path / "out"]
    shutil.copytree(results[1], results[0])
    shutil.rmtree(tmp_path / "out" / "checkpoint-8")
    shutil.rmtree(tmp_path / "out" / "checkpoint-6")
    again = tune(checkpoint("chatglm3"), data, tmp_path / "out", method, resume=True, **options)
    assert again.steps == 8
    assert again.losses == whole.losses
    assert [r["step"] for r in again.records] == [r["step"] for r in whole.records]
    for name in ("adapter_model.safetensors", "pytorch_model.bin", "model.safetensors"):
        if (results[0] / name).exists():
            assert (results[0] / name).read_bytes() == (results[1] / name).read_bytes()


def test_a_run_is_not_resumed_as_another(checkpoint, tmp_path: Path) -> None:
    data = written(tmp_path, [dialogue(TURNS)])
    saving = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    tune(checkpoint("chatglm3"), data, tmp_path / "out", training_args=saving)
    faster = {**saving, "learning_rate": 0.5}
    with pytest.raises(InputError, match=r"--resume: training_args.learning_rate was 0.01 in .* but is 0.5 now"):
        tune(checkpoint("chatglm3"), data, tmp_path / "out", resume=True, training_args=faster)
    with pytest.raises(InputError, match=r"--resume: loss was 'all' in .* but is 'last' now"):
        tune(checkpoint("chatglm3"), data, tmp_path / "out", resume=True, loss="last", training_args=saving)
    start = tmp_path / "out" / "checkpoint-2"
    with pytest.raises(InputError, match=r"--resume: method was 'full' in .* but is 'ptuning' now"):
        tune(checkpoint("chatglm3"), data, tmp_path / "new", "ptuning", resume=start, training_args=saving)
    with pytest.raises(CheckpointError, match="checkpoint-7: no such checkpoint"):
        tune(checkpoint("chatglm3"), data, tmp_path / "out", resume=tmp_path / "out" / "checkpoint-7")
    written(tmp_path, [dialogue(TURNS), dialogue(TURNS)])
    with pytest.raises(InputError, match=r"--resume: the data was 1 examples, .* but is 2 examples"):
        tune(checkpoint("chatglm3"), data, tmp_path / "out", resume=True, training_args=saving)
    written(tmp_path, [dialogue(TURNS)])
    longer = tune(checkpoint("chatglm3"), data, tmp_path / "out", resume=True, training_args={**saving, "max_steps": 3})
    assert longer.steps == 3


def test_a_resumed_run_has_as_many_rows_in_each_step(checkpoint, tmp_path: Path) -> None:
    """Other processes, batches or accumulation: the rest of an epoch would be of other rows, in silence."""
    data = written(tmp_path, [dialogue([(f"问{n}", f"答{n}{n}")]) for n in range(9)])
    base, out = checkpoint("chatglm3"), tmp_path / "out"

    def arguments(batch: int, accumulated: int, **others: Any) -> dict[str, Any]:
        sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulated}
        return {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, **sizes, **others}

    options: dict[str, Any] = {"packing": False}
    whole = tune(base, data, out, training_args=arguments(2, 2), **options)
    shutil.rmtree(out / "checkpoint-4")
    for batch, accumulated in ((2, 1), (1, 2), (4, 2)):
        with pytest.raises(InputError, match=r"--resume: a step was of 4 rows .* and would be of \d now .*; "):
            tune(base, data, out, resume=True, training_args=arguments(batch, accumulated), **options)
    with pytest.raises(InputError, match=r"--resume: training_args\.dataloader_drop_last was None in"):
        tune(base, data, out, resume=True, training_args=arguments(2, 2, dataloader_drop_last=True), **options)
    again = tune(base, data, out, resume=True, training_args=arguments(1, 4), **options)
    assert again.losses == pytest.approx(whole.losses, abs=1e-5)
    dropped = arguments(2, 2, dataloader_drop_last=True)
    tune(base, data, tmp_path / "dropped", training_args=dropped, **options)
    changed = {**dropped, **arguments(1, 4)}
    with pytest.raises(InputError, match=r"--resume: training_args\.gradient_accumulation_steps was 2"):
        tune(base, data, tmp_path / "dropped", resume=True, training_args=changed, **options)
    start = out / "checkpoint-4"  # of an earlier release: without the numbers
    about = json.loads((start / "complete.json").read_text("utf-8"))
    del about["processes"]
    (start / "complete.json").write_text(json.dumps(about), "utf-8")
    with pytest.raises(InputError, match=r"--resume: training_args\.gradient_accumulation_steps was 4"):
        tune(base, data, out, resume=True, training_args=arguments(2, 2), **options)


def test_resuming_where_there_is_nothing_yet_begins(checkpoint, tmp_path: Path) -> None:
    data = written(tmp_path, [dialogue(TURNS)])
    settings = settings_of(checkpoint("chatglm3"), data, tmp_path / "out", training_args={"max_steps": 1})
    said: list[str] = []
    assert finetune(settings, resume=True, say=said.append).steps == 1
    assert said[0] == f"no complete checkpoint in {tmp_path / 'out'}: starting from the beginning"


def test_without_its_optimizer_a_run_is_not_resumed(checkpoint, tmp_path: Path) -> None:
    """It would go on, with other losses; and must not begin anew in silence."""
    data = written(tmp_path, [dialogue(TURNS)])
    arguments = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "save_only_model": True}
    tune(checkpoint("chatglm3"), data, tmp_path / "out", training_args=arguments)
    for resume in (True, tmp_path / "out" / "checkpoint-1"):
        with pytest.raises(CheckpointError, match=r"checkpoint-\d: was saved without the optimizer"):
            tune(checkpoint("chatglm3"), data, tmp_path / "out", resume=resume, training_args=arguments)


# What stops a run


def test_nothing_to_learn_is_refused(checkpoint, tmp_path: Path) -> None:
    silent = {"messages": [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "好", "loss": False}]}
    with pytest.raises(InputError, match="nothing to learn"):
        tune(checkpoint("chatglm3"), written(tmp_path, [silent]), tmp_path / "out")


def test_a_loss_that_is_no_number_names_file_and_line(copied, tmp_path: Path) -> None:
    """A weight that is NaN, for one character only."""
    folder = copied("chatglm3")
    model, tokenizer, _ = load_parts(folder, dtype=torch.float32)
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer.encode_text("龙")[-1]] = float("nan")
    model.save_pretrained(folder)
    for file in folder.glob("pytorch_model*"):
        file.unlink()
    data = written(tmp_path, [dialogue([("你好", "你好呀")]), dialogue([("你好", "龙")]), dialogue([("早", "早上好")])])
    with pytest.raises(NumericalError, match=r"the loss is nan, from 1 of its 3 rows: .*data\.jsonl:2; "):
        tune(folder, data, tmp_path / "out", packing=False)


def test_models_and_arguments_that_cannot_be_trained(checkpoint, tmp_path: Path) -> None:
    data = written(tmp_path, [dialogue(TURNS)])
    with pytest.raises(InputError, match="trainable_layers is 9, but the model has 3 blocks"):
        tune(checkpoint("chatglm3"), data, tmp_path / "out", "freeze", trainable_layers=9)
    prefix = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4}
    config = json.loads((checkpoint("chatglm3") / "config.json").read_text())
    folder = Path(shutil.copytree(checkpoint("chatglm3"), tmp_path / "prefixed"))
    (folder / "config.json").write_text(json.dumps({**config, "pre_seq_len": 8}))
    with pytest.raises(UnsupportedError, match="has a P-tuning prefix already"):
        tune(folder, data, tmp_path / "out", "ptuning", peft_config=prefix)


# Pre-training


@pytest.mark.parametrize("version", ["chatglm", "chatglm3"])
def test_pretraining_learns_and_resumes(version: str, checkpoint, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"{n}：春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。" for n in range(6)), "utf-8")
    settings = settings_of(
        checkpoint(version),
        text,
        tmp_path / "out",
        texts={"split": "blank", "hold_out": 0.2},
        training_args={"max_steps": 12, "save_strategy": "steps", "save_steps": 5, "learning_rate": 2e-2},
    )
    result = pretrain(settings, say=quiet)
    evaluated = [record["eval_loss"] for record in result.records if "eval_loss" in record]
    assert len(evaluated) == 12
    assert evaluated[-1] < evaluated[0] - 2
    assert result.metrics["eval_loss"] > 0
    shutil.rmtree(tmp_path / "out" / "checkpoint-12")
    shutil.rmtree(tmp_path / "out" / "checkpoint-10")
    assert pretrain(settings, resume=True, say=quiet).losses == result.losses
    load_parts(tmp_path / "out")


def test_pretraining_has_a_folder_and_a_disk_for_itself(checkpoint, tmp_path: Path) -> None:
    """A second run in the same folder is refused; a full disk is one line, and what was finished stays and goes on."""
    text, output = tmp_path / "text.txt", tmp_path / "out"
    text.write_text("春眠不觉晓，处处闻啼鸟。" * 4, "utf-8")
    steps = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    settings = settings_of(checkpoint("chatglm3"), text, output, training_args=steps)
    disk = contextlib.ExitStack()

    class Meddler(TrainerCallback):
        refused = 0

        def on_save(self, *_: Any, **__: Any) -> None:
            with pytest.raises(InputError, match="another process is writing there"), working_in(output):
                raise AssertionError
            self.refused += 1
            disk.enter_context(small_files(1 << 14))

    with working_in(output), pytest.raises(InputError, match="another process is writing there"):
        pretrain(settings, say=quiet)
    meddler = Meddler()
    with disk, pytest.raises(OutputError, match=r"out.*: cannot be written: .*continue with --resume"):
        pretrain(settings, say=quiet, callbacks=[meddler])
    assert meddler.refused == 1
    assert (output / "checkpoint-2").is_dir()
    with small_files(1 << 10), pytest.raises(OutputError, match="cannot be written"):
        pretrain(settings_of(checkpoint("chatglm3"), text, tmp_path / "other"), say=quiet)
    assert len(pretrain(settings, resume=True, say=quiet).losses) == 4
    load_parts(output)


def test_a_fresh_model_from_a_configuration(checkpoint, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("春眠不觉晓，处处闻啼鸟。" * 4, "utf-8")
    config = json.loads((checkpoint("chatglm3") / "config.json").read_text())
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.json").write_text(json.dumps({**config, "num_layers": 1}))
    settings = settings_of(
        None,
        text,
        tmp_path / "out",
        config=str(tmp_path / "new" / "config.json"),
        tokenizer=str(checkpoint("chatglm3")),
        training_args={"max_steps": 2},
    )
    pretrain(settings, say=quiet)
    model, tokenizer, _ = load_parts(tmp_path / "out")
    assert model.config.num_layers == 1
    assert model.dtype == torch.float16  # as config.json says
    assert tokenizer.generation == "chatglm3"
    wrong = Settings.from_dict({**settings.to_dict(), "tokenizer": str(checkpoint("glm4"))})
    with pytest.raises(CheckpointError, match="its tokenizer is of glm4"):
        pretrain(wrong, overwrite=True, say=quiet)
