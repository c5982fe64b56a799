"""The loop: what a step's loss is, where a run goes on, what stops it. On a tiny model and made-up rows."""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import rig
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from transformers import TrainingArguments

from chatglm.errors import CheckpointError, InputError, NumericalError
from chatglm.training.examples import IGNORE, Collator, Example
from chatglm.training.settings import Settings
from chatglm.training.trainer import _full, _Order, arguments_of, check_checkpoint, check_steps, last_checkpoint

NO_DROPOUT = {"hidden_dropout": 0.0}


def run_rig(output: Path, processes: int = 1, status: int = 0, **options: Any) -> None:
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*launch, str(Path(rig.__file__)), str(output), json.dumps(options)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == status, done.stderr[-3000:]


def test_the_loss_of_a_step_is_the_mean_over_its_learned_tokens(tmp_path: Path) -> None:
    """Recomputed from full logits, over two accumulated batches with different numbers of tokens."""
    model, rows = rig.tiny(**NO_DROPOUT), rig.made_up(4)
    whole = copy.deepcopy(model).eval()
    total, count = 0.0, 0
    for example in (example for row in rows for example in row):
        logits = whole(input_ids=torch.tensor([example.ids])).logits[0]
        targets = torch.tensor(example.targets)
        total += float(cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum").detach())
        count += int((targets != IGNORE).sum())
    trainer = rig.build(tmp_path, rows, model=model, gradient_accumulation_steps=2, num_train_epochs=1)
    trainer.train()
    assert rig.losses(trainer) == pytest.approx([total / count], rel=1e-5)
    first = trainer.state.log_history[0]
    assert first["learned_tokens"] == count
    assert first["tokens"] == sum(len(example) for row in rows for example in row)


def test_accumulation_is_a_bigger_batch(tmp_path: Path) -> None:
    apart = rig.build(tmp_path / "a", model=rig.tiny(**NO_DROPOUT), gradient_accumulation_steps=3)
    at_once = rig.build(tmp_path / "b", model=rig.tiny(**NO_DROPOUT), per_device_train_batch_size=6)
    apart.train()
    at_once.train()
    assert len(rig.losses(apart)) == 6  # 14 rows: an uneven last step too
    assert rig.losses(apart) == pytest.approx(rig.losses(at_once), abs=1e-5)


def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    """torchrun, gloo. 13 rows do not come out even: nothing is seen twice, and evaluation counts each row once. One may
    also continue for two, within an epoch.
    """
    rows = {"rows_made": 13, "model_changes": NO_DROPOUT, "evaluate": True}
    saving = {"save_strategy": "steps", "save_steps": 2}
    run_rig(tmp_path / "two", processes=2, per_device_train_batch_size=2, **saving, **rows)
    rig.run(tmp_path / "one", per_device_train_batch_size=4, **rows)
    two, one = (rig.logged(tmp_path / name) for name in ("two", "one"))
    assert len(one) == 8
    assert [step for step, _ in two] == [step for step, _ in one]
    assert [loss for _, loss in two] == pytest.approx([loss for _, loss in one], abs=1e-5)
    evaluated = [rig.logged(tmp_path / name, "eval_loss") for name in ("two", "one")]
    assert len(evaluated[0]) == 2
    assert [loss for _, loss in evaluated[0]] == pytest.approx([loss for _, loss in evaluated[1]], abs=1e-5)
    for name in ("log.jsonl", "checkpoint-2"):
        copy = shutil.copytree if (tmp_path / "two" / name).is_dir() else shutil.copyfile
        (tmp_path / "resumed").mkdir(exist_ok=True)
        copy(tmp_path / "two" / name, tmp_path / "resumed" / name)
    options = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    start = tmp_path / "resumed" / "checkpoint-2"
    assert check_steps(start, rig.build(tmp_path / "same", **options).args)
    with pytest.raises(
        InputError,
        match=r"--resume: a step was of 4 rows .*\(processes 2 × per_device_train_batch_size 2 × "
        r"gradient_accumulation_steps 1\), and would be of 2 now \(processes 1 × .* 2 × .* 1\)",
    ):
        check_steps(start, rig.build(tmp_path / "fewer", per_device_train_batch_size=2).args)
    rig.run(tmp_path / "resumed", resume=True, **options, **rows)
    assert [loss for _, loss in rig.logged(tmp_path / "resumed")] == pytest.approx([loss for _, loss in two], abs=1e-5)


@pytest.mark.parametrize("stop", [5, 7])  # within an epoch of 7 steps, and at its end
def test_a_resumed_run_is_the_uninterrupted_one(stop: int, tmp_path: Path) -> None:
    """Losses, learning rates and weights to the last bit, with dropout."""
    saving = {"save_strategy": "steps", "save_steps": stop, "logging_steps": 3}
    whole = rig.build(tmp_path / "whole", **saving)
    whole.train()
    shutil.copytree(tmp_path / "whole" / f"checkpoint-{stop}", tmp_path / "other" / f"checkpoint-{stop}")
    torch.manual_seed(999)
    again = rig.build(tmp_path / "other", **saving)
    again.train(resume_from_checkpoint=str(last_checkpoint(tmp_path / "other")))

    def history(trainer: Any) -> list[tuple[int, float, float]]:
        return [(r["step"], r["loss"], r["learning_rate"]) for r in trainer.state.log_history if "loss" in r]

    assert history(again) == history(whole)
    assert any(step > stop for step, *_ in history(again))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_killed_while_saving_and_resumed(tmp_path: Path) -> None:
    """kill -9 in the middle of a checkpoint: that one is not taken for one, and the log comes out the same."""
    saving = {"save_strategy": "steps", "save_steps": 3}
    rig.run(tmp_path / "whole", **saving)
    run_rig(tmp_path / "killed", die=True, status=-signal.SIGKILL, **saving)
    assert (tmp_path / "killed" / "checkpoint-9" / "model.safetensors").exists()  # half of it is there
    assert last_checkpoint(tmp_path / "killed") == tmp_path / "killed" / "checkpoint-6"
    with pytest.raises(CheckpointError, match=r"checkpoint-9: this checkpoint was not finished"):
        check_checkpoint(tmp_path / "killed" / "checkpoint-9")
    rig.run(tmp_path / "killed", resume=True, **saving)
    assert rig.logged(tmp_path / "killed") == rig.logged(tmp_path / "whole")
    assert len(rig.logged(tmp_path / "whole")) == 14
    assert last_checkpoint(tmp_path / "killed") == tmp_path / "killed" / "checkpoint-14"


def test_a_damaged_checkpoint_is_not_resumed_from(tmp_path: Path) -> None:
    trainer = rig.build(tmp_path, save_strategy="steps", save_steps=4, max_steps=8)
    trainer.train()
    newest = last_checkpoint(tmp_path)
    assert newest == tmp_path / "checkpoint-8"
    with (newest / "optimizer.pt").open("ab") as stream:
        stream.truncate(10)
    with pytest.raises(CheckpointError, match=r"optimizer\.pt: has changed since it was written"):
        check_checkpoint(newest)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    (tmp_path / "checkpoint-4" / "scheduler.pt").unlink()
    with pytest.raises(CheckpointError, match=r"lacks scheduler\.pt"):
        check_checkpoint(tmp_path / "checkpoint-4")
    assert last_checkpoint(tmp_path) is None
    (newest / "complete.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"complete\.json: cannot be read"):
        check_checkpoint(newest)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        check_checkpoint(tmp_path / "checkpoint-5")


def test_only_so_many_checkpoints_are_kept(tmp_path: Path) -> None:
    rig.build(tmp_path, save_strategy="steps", save_steps=2, max_steps=8, save_total_limit=2).train()
    assert sorted(f.name for f in tmp_path.glob("checkpoint-*")) == ["checkpoint-6", "checkpoint-8"]
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-8"


def poison(model: Any, token_id: int) -> Any:
    """One id's embedding is NaN from now on."""

    def poisoned(module: Any, args: Any, states: torch.Tensor) -> torch.Tensor:
        return states.masked_fill((args[0] == token_id)[..., None], math.nan)

    model.get_input_embeddings().register_forward_hook(poisoned)
    return model


def test_a_loss_that_is_no_number_stops_and_names_the_rows(tmp_path: Path) -> None:
    rows = rig.made_up(12)
    bad = [[Example([95, 1, 95, 5], [IGNORE, 6, 7, 8], (range(4),), "bad.jsonl:77")]]
    rows = [[e for e in row if 95 not in e.ids] or [Example([5], [6], (range(1),), "made.jsonl:0")] for row in rows]
    trainer = rig.build(
        tmp_path,
        rows + bad,
        model=poison(rig.tiny(), 95),
        train_sampling_strategy="sequential",
        per_device_train_batch_size=3,
        save_strategy="steps",
        save_steps=2,
        num_train_epochs=1,
    )
    with pytest.raises(NumericalError, match=r"step 5: the loss is nan, from .*bad\.jsonl:77; try") as caught:
        trainer.train()
    assert "made.jsonl" not in str(caught.value)
    assert f"last good checkpoint is {tmp_path / 'checkpoint-4'}" in str(caught.value)
    check_checkpoint(tmp_path / "checkpoint-4")


def test_a_row_alone_is_no_number(tmp_path: Path) -> None:
    row = [Example([95, 5], [IGNORE, 6], (range(2),), "bad.jsonl:77")]
    trainer = rig.build(tmp_path, [row], model=poison(rig.tiny(), 95), max_steps=1)
    with pytest.raises(NumericalError, match=r"step 1: the loss is nan, from its row: bad\.jsonl:77; try"):
        trainer.train()


def test_a_gradient_that_is_no_number_never_reaches_the_weights(tmp_path: Path) -> None:
    model = rig.tiny(**NO_DROPOUT)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.transformer.output_layer.weight.register_hook(lambda grad: grad * math.inf)
    with pytest.raises(NumericalError, match=r"step 1: the gradient is (nan|inf), from made\.jsonl"):
        rig.build(tmp_path, model=model).train()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("batch", [1, 3, 5])
def test_evaluation_is_the_mean_over_tokens_however_they_are_batched(batch: int, tmp_path: Path) -> None:
    trainer = rig.build(
        tmp_path, held_out=rig.made_up(7, seed=5), model=rig.tiny(**NO_DROPOUT), per_device_eval_batch_size=batch
    )
    model = trainer.model.eval()
    examples = [example for row in rig.made_up(7, seed=5) for example in row]
    count = sum(target != IGNORE for example in examples for target in example.targets)
    with torch.no_grad():
        total = sum(float(model(**Collator(0)([example]), num_items_in_batch=1).loss) for example in examples)
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] == pytest.approx(total / count, rel=1e-6)
    assert metrics["eval_learned_tokens"] == count


@pytest.mark.parametrize("batch", [2, 8])
def test_evaluation_drops_no_rows(batch: int, tmp_path: Path) -> None:
    """`dataloader_drop_last` is for training; the data need not fill a single batch."""
    options = {"held_out": rig.made_up(3, seed=5), "per_device_eval_batch_size": batch}
    kept, dropping = (
        rig.build(tmp_path, model=rig.tiny(), dataloader_drop_last=drop, **options).evaluate() for drop in (False, True)
    )
    assert dropping["eval_learned_tokens"] == kept["eval_learned_tokens"]
    assert dropping["eval_loss"] == pytest.approx(kept["eval_loss"], rel=1e-6)


def test_evaluation_that_measures_nothing_is_refused(tmp_path: Path) -> None:
    silent = [[Example([5, 6], [IGNORE, IGNORE], (range(2),), "x:1")]]
    with pytest.raises(InputError, match="nothing is learned in the evaluation data"):
        rig.build(tmp_path, held_out=silent).evaluate()


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 4), st.integers(0, 9), st.integers(0, 3))
def test_every_epoch_sees_every_row_once_then_the_filling(
    count: int, batch: int, processes: int, seed: int, epoch: int
) -> None:
    length = _full(count, batch, processes)
    order = _Order(count, length, seed, shuffled=True)
    order.epoch = epoch
    drawn = list(order)
    assert sorted(drawn[:count]) == list(range(count))
    assert drawn[count:] == list(range(count, length))
    assert processes == 1 or length % (batch * processes) == 0
    assert length - count < batch * processes
    assert drawn == list(order)


@pytest.mark.parametrize(("count", "batch", "processes", "kept"), [(13, 2, 2, 12), (13, 4, 3, 12), (3, 2, 2, 0)])
def test_rows_that_do_not_fill_the_last_batch_may_be_dropped(count: int, batch: int, processes: int, kept: int) -> None:
    length = _full(count, batch, processes, drop=True)
    for shuffled in (False, True):
        drawn = list(_Order(count, length, 1, shuffled=shuffled))
        assert len(set(drawn)) == len(drawn) == length == kept
        assert set(drawn) <= set(range(count))


def test_orders_differ_between_epochs_and_seeds() -> None:
    def drawn(seed: int, epoch: int) -> list[int]:
        order = _Order(50, 50, seed, shuffled=True)
        order.epoch = epoch
        return list(order)

    assert len({tuple(drawn(*key)) for key in ((1, 0), (1, 1), (2, 0), (2, 1))}) == 4


def test_rows_learn_of_each_epoch(tmp_path: Path) -> None:
    class Changing(list[Any]):
        epochs: list[int] = []  # noqa: RUF012

        def set_epoch(self, epoch: int) -> None:
            self.epochs.append(epoch)

    rows = Changing(rig.made_up(4))
    saving = {"save_strategy": "steps", "save_steps": 3, "num_train_epochs": 3}
    rig.build(tmp_path, rows, **saving).train()
    assert rows.epochs == [0, 1, 2]
    rows.epochs.clear()
    rig.build(tmp_path, rows, **saving).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert rows.epochs == [1, 2]  # step 3 of 6 lies in the second epoch


def test_the_cache_is_on_in_what_is_saved(tmp_path: Path) -> None:
    trainer = rig.build(tmp_path, save_strategy="steps", save_steps=2, max_steps=2)
    trainer.train()
    assert trainer.model.config.use_cache is False  # in training
    assert json.loads((tmp_path / "checkpoint-2" / "config.json").read_text())["use_cache"] is True


def test_one_process_trains_on_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several of them would be DataParallel, which splits all inputs, and fails on the number of learned tokens."""
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: self._n_gpu or 2))
    trainer = rig.build(tmp_path, max_steps=1)
    assert trainer.args.n_gpu == 1
    assert trainer.args.train_batch_size == 2


def test_arguments_that_transformers_refuses() -> None:
    with pytest.raises(InputError, match=r"training_args: .*nonsense"):
        arguments_of(Settings.from_dict({"training_args": {"output_dir": "x", "lr_scheduler_type": "nonsense"}}))
    with pytest.raises(InputError, match="--output"):
        arguments_of(Settings.from_dict({}))
