"""`finetune`: trains a model on dialogues and writes the result. `pretrain` uses the part `train`, too.

The folder of a run:

    settings.yaml       the settings, all of them
    train_log.jsonl     measurements, one line for each record
    loss.png            loss over steps
    checkpoint-N/       to resume from
    data/               encoded examples; can be deleted
    adapter_model.safetensors, adapter_config.json     LoRA: what `load(adapter=…)` reads
    pytorch_model.bin                                  P-tuning v2: what `load(prefix=…)` reads
    config.json, model.safetensors, tokenizer …        full, freeze: what `load(…)` reads
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import TrainerCallback, TrainingArguments

from chatglm import hub
from chatglm.chat.formats import ChatFormat, chat_format
from chatglm.errors import DependencyError, InputError
from chatglm.loading import Loaded
from chatglm.models.checkpoint import check_folder
from chatglm.output import LOCK, reporting_disk_errors, working_in
from chatglm.training.dialogues import read_dialogues
from chatglm.training.examples import Collator, Tally, pack
from chatglm.training.logs import JsonLog, Progress, draw, read_log
from chatglm.training.methods import checkpoint_dtype, fitting_tokenizer, prepare, trained, write_rest, write_weights
from chatglm.training.metrics import Answers
from chatglm.training.settings import Settings
from chatglm.training.store import Rows, Store, build_store
from chatglm.training.trainer import (
    FamilyTrainer,
    arguments_of,
    check_checkpoint,
    check_steps,
    last_checkpoint,
    precision,
)

__all__ = ["Result", "Say", "finetune", "opened", "refuse", "train"]

SETTINGS, LOG, PICTURE, DATA = "settings.yaml", "train_log.jsonl", "loss.png", "data"

Say = Callable[[str], None]

# Settings that may change when a run is resumed, because they change neither the order nor the result of steps.
_FREE = ("num_train_epochs", "max_steps", "output_dir", "use_cpu", "disable_tqdm", "run_name", "report_to")
_STEP = ("per_device_train_batch_size", "gradient_accumulation_steps")  # only their product counts (`check_steps`)
_FREE_FAMILIES = ("logging_", "save_", "eval_", "dataloader_num", "dataloader_pin", "dataloader_pers", "hub_", "log_")


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes:
        output: its folder.
        steps: number of steps, including earlier parts of a resumed run.
        records: the records of the log.
        trained, weights: number of trained weights, and of all weights.
        metrics: figures of the last evaluation, by name (`eval_loss` …).
    """

    output: Path
    steps: int
    records: tuple[Mapping[str, Any], ...]
    trained: int
    weights: int
    metrics: Mapping[str, float]

    @property
    def losses(self) -> list[float]:
        """The loss at each record of training."""
        return [record["loss"] for record in self.records if "loss" in record]


def finetune(
    settings: Settings,
    *,
    resume: bool | str | Path = False,
    overwrite: bool = False,
    say: Say | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Result:
    """Fine-tune a model on the dialogues of `settings.data_config`, and write the result to `settings.output`.

    Args:
        resume: continue from the newest complete checkpoint of the output folder (from the start if there is none), or
            from the given one. The losses are the same as without the interruption.
        overwrite: allow the folder of a finished run as output; its result is replaced.
        say: called with messages for people about data and result; default: the first process writes them to stderr.
        callbacks: `TrainerCallback` objects of `transformers`.

    Raises:
        InputError: settings, data or output folder are wrong; nothing is changed.
        CheckpointError: the model's folder, or the checkpoint to resume from, is damaged.
        OutputError: the disk is full; finished checkpoints stay.
        NumericalError: the loss is NaN or infinite; the last good checkpoint stays.
        DependencyError: a package that the settings need is not installed.
    """
    if settings.data_config.train_file is None:
        raise InputError("data_config.train_file: no data is given")
    refuse(settings, ("config", "tokenizer", "texts", "infill"), "fine-tuning")
    with opened(settings, resume, overwrite, say) as (args, start, say):
        return _finetune(settings, args, start, overwrite and not resume, say, callbacks)


def _finetune(
    settings: Settings,
    args: TrainingArguments,
    start: Path | None,
    overwrite: bool,
    say: Say,
    callbacks: Sequence[TrainerCallback],
) -> Result:
    base = settings.base
    check_folder(base)
    form = chat_format(fitting_tokenizer(base, base))

    def encoded(part: str) -> Store:
        file = settings.data_config.path(part)
        assert file is not None
        store = _encode(settings, args, file, form)
        if part == "train":
            for line in store.tally.lines():
                say(line)
        return store

    store = encoded("train")
    held_out = encoded("val") if settings.data_config.val_file is not None else None
    scores = None
    if settings.predict_with_generate and (file := settings.data_config.path("val")) is not None:
        scores = Answers(
            form,
            read_dialogues(file, skipped=[] if settings.skip_bad_rows else None, columns=settings.data_config.columns),
            samples=settings.generation_samples,
            max_length=settings.max_length,
            max_new_tokens=settings.max_new_tokens,
            batch_size=args.per_device_eval_batch_size,
            seed=args.seed,
            skip_bad_rows=settings.skip_bad_rows,
        )
    return train(
        settings,
        args,
        lambda: prepare(settings, low_precision=precision(settings)),
        _rows(store, settings),
        base=base,
        data=_fingerprint(store.lengths.tobytes(), store.tally),
        held_out=None if held_out is None else _rows(held_out, settings),
        scores=scores,
        start=start,
        overwrite=overwrite,
        say=say,
        callbacks=callbacks,
    )


def _encode(settings: Settings, args: TrainingArguments, file: Path, form: ChatFormat) -> Store:
    # One process encodes. The others wait and read its result.
    with args.main_process_first(desc="encoding"):
        return build_store(
            settings.output / DATA,
            file,
            form,
            loss=settings.loss,
            max_length=settings.max_length,
            one_pass=settings.one_pass,
            columns=settings.data_config.columns,
            skip_bad_rows=settings.skip_bad_rows,
        )


def _rows(store: Store, settings: Settings) -> Rows:
    return Rows(store, pack(store.lengths.tolist(), settings.max_length) if settings.packing else None)


def _fingerprint(lengths: bytes, tally: Tally) -> str:
    return f"{tally.examples} examples, {tally.learned} learned tokens, {zlib.crc32(lengths):08x}"


def to_stderr(args: TrainingArguments) -> Say:
    """A receiver of messages: in the first process it prints them to stderr, in others it does nothing."""
    return (lambda line: print(line, file=sys.stderr)) if args.process_index == 0 else (lambda line: None)


# Shared by fine-tuning and pre-training


@contextmanager
def opened(
    settings: Settings, resume: bool | str | Path, overwrite: bool, say: Say | None
) -> Iterator[tuple[TrainingArguments, Path | None, Say]]:
    """Check and lock the folder of a run; yields the arguments, the checkpoint to resume from (None: none), and the
    receiver of messages.

    Raises:
        InputError, CheckpointError, OutputError, DependencyError: see `finetune`.
    """
    args = arguments_of(settings)
    say = say or to_stderr(args)
    for note in settings.notes:
        say(note)
    if args.device.type == "cuda" and args.world_size == 1 and (gpus := torch.cuda.device_count()) > 1:
        say(
            f"one of {gpus} GPUs is used; for all, start the command by torchrun --nproc_per_node {gpus} -m chatglm.cli"
        )
    start = open_output(settings, args, resume, overwrite)
    if resume and start is None:
        say(f"no complete checkpoint in {settings.output}: starting from the beginning")
    with writing(settings, args):
        yield args, start, say


def writing(settings: Settings, args: TrainingArguments) -> AbstractContextManager[None]:
    """Make the folder of a run, and hold its lock during the block. Only the first process does this.

    Raises:
        InputError: it cannot be made, or another run is writing there.
        OutputError: the disk is full.
    """
    hint = "; finished checkpoints are kept: continue with --resume"
    if args.process_index:
        return reporting_disk_errors(settings.output, hint)
    return working_in(settings.output, hint)


def refuse(settings: Settings, names: Sequence[str], what: str) -> None:
    """Raise `InputError` if one of the named settings, which have no effect for `what`, differs from its default."""
    plain = Settings()
    for name in names:
        if getattr(settings, name) != getattr(plain, name):
            raise InputError(f"{name}: has no effect in {what}; remove it")


def open_output(settings: Settings, args: TrainingArguments, resume: bool | str | Path, overwrite: bool) -> Path | None:
    """Check the folder of a run before anything is done; returns the checkpoint to resume from, or None to start anew.

    Raises:
        InputError: it is not empty, or cannot be made; or the run to resume had other settings, or steps of more or
            fewer rows.
        CheckpointError: the checkpoint is missing or incomplete.
    """
    output = settings.output
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; give a folder for the result")
    there = next(folder for folder in (output, *output.absolute().parents) if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise InputError(f"{output}: cannot be written to; choose another folder for the result")
    for source in (settings.model, settings.config):
        if source is None or hub.repository(source) is not None:
            continue
        if Path(os.path.expanduser(source)).resolve().is_relative_to(output.resolve()):
            raise InputError(
                f"{output}: this folder holds the model itself ({source}); choose another folder for the result"
            )
    # A folder that holds only encoded data is from a run that was refused later.
    used = sorted(entry.name for entry in output.iterdir() if entry.name not in (DATA, LOCK)) if output.is_dir() else []
    if resume:
        if used and SETTINGS not in used:
            raise InputError(f"--resume: {output} is not the folder of a run (no {SETTINGS}); choose another")
        start = last_checkpoint(output) if resume is True else Path(os.path.expanduser(resume))
        same_steps = False
        if start is not None:
            check_checkpoint(start)
            same_steps = check_steps(start, args)
        for run in {output, start.parent if start is not None else output}:
            if (run / SETTINGS).is_file():
                # If rows that do not fill a batch are dropped, they depend on each of the numbers.
                free = _STEP if same_steps and not args.dataloader_drop_last else ()
                _same_settings(Settings.load(run / SETTINGS), settings, run, free)
        return start
    if used and not overwrite:
        raise InputError(
            f"{output}: exists already, with {used[0]} in it; choose another folder, continue with --resume, or "
            "replace it with --overwrite"
        )
    if used and SETTINGS not in used:
        raise InputError(
            f"{output}: is not the folder of a run (no {SETTINGS}), so it is not overwritten; choose another"
        )
    return None


def _same_settings(old: Settings, new: Settings, output: Path, free: Sequence[str]) -> None:
    before, after = (_flat(settings.to_dict()) for settings in (old, new))
    changed = [
        name
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
        and not (name.startswith("training_args.") and _is_free(name.removeprefix("training_args."), free))
        and name not in ("data_config.num_proc", "save_dtype", "predict_with_generate", "generation_samples")
    ]
    if changed:
        name = changed[0]
        raise InputError(
            f"--resume: {name} was {before.get(name)!r} in {output / SETTINGS} but is {after.get(name)!r} now"
            + (f" (other settings that differ: {len(changed) - 1})" if len(changed) > 1 else "")
            + "; resume with the same settings, or start a new run in another folder"
        )


def _is_free(name: str, also: Sequence[str]) -> bool:
    return name in _FREE or name in also or name.startswith(_FREE_FAMILIES)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def train(
    settings: Settings,
    args: TrainingArguments,
    make: Callable[[], Loaded],
    rows: Any,
    *,
    base: Path,
    data: str,
    held_out: Any = None,
    scores: Callable[[Any], Mapping[str, float]] | None = None,
    start: Path | None = None,
    overwrite: bool = False,
    say: Say,
    callbacks: Sequence[TrainerCallback] = (),
) -> Result:
    """Run the training loop over rows and write the result.

    Args:
        make: returns the model; called after everything else has been checked.
        rows, held_out, scores, callbacks: see `FamilyTrainer`.
        base: the folder whose config.json and generation defaults go with the result.
        data: identifies these rows, for resuming.
        start: a checkpoint to continue from.
        overwrite, say: see `finetune`.

    Raises:
        InputError: there is no evaluation data for `eval_strategy`, the data differs from the run to resume, or there
            are fewer rows than a batch has. Also the errors of `finetune`.
    """
    output = settings.output
    if held_out is None and args.eval_strategy != "no":
        raise InputError("training_args.eval_strategy: there is no data to evaluate on")
    if start is not None and (written := _note(start.parent)) not in (None, data):
        raise InputError(f"--resume: the data was {written}, but is {data} now; start a new run in another folder")
    batch = args.train_batch_size * args.world_size
    if args.dataloader_drop_last and len(rows) < batch:
        raise InputError(f"training_args.dataloader_drop_last: a batch has {batch} rows, and the data only {len(rows)}")
    transformers.set_seed(args.seed)  # before random weights are drawn
    loaded = make()
    count, weights = trained(loaded.model)
    say(f"{settings.method}: {count:,} of {weights:,} weights are trained")
    progress = Progress()
    watchers: list[TrainerCallback] = [progress, *callbacks]
    trainer = FamilyTrainer(
        loaded.model,
        args,
        rows,
        Collator(int(loaded.tokenizer.pad_token_id)),
        held_out=held_out,
        scores=scores,
        callbacks=watchers,
    )
    trainer.try_optimizer()
    if args.process_index == 0:
        if overwrite:
            _clear(output)
        settings.save(output / SETTINGS)
        (output / DATA).mkdir(exist_ok=True)
        (output / DATA / "data.txt").write_text(data + "\n", "utf-8")
        upto = json.loads((start / "trainer_state.json").read_text("utf-8"))["global_step"] if start else 0
        trainer.add_callback(JsonLog(output / LOG, upto))
    if start is not None:
        say(f"resuming from {start}")
    try:
        trainer.train(resume_from_checkpoint=None if start is None else str(start))
    finally:
        progress.close()
    _finish(trainer, settings, loaded, base, output)
    trainer.accelerator.wait_for_everyone()
    # On other machines the file may be missing.
    records = tuple(read_log(output / LOG)) if (output / LOG).is_file() else ()
    if args.process_index == 0:
        try:
            draw(records, output / PICTURE, f"{settings.method}, {base.name}")
        except (DependencyError, InputError) as error:
            say(f"no {PICTURE}: {error}")
    evaluated = [record for record in records if "eval_loss" in record]
    return Result(output, trainer.state.global_step, records, count, weights, evaluated[-1] if evaluated else {})


def _note(output: Path) -> str | None:
    file = output / DATA / "data.txt"
    return file.read_text("utf-8").strip() if file.is_file() else None


def _clear(output: Path) -> None:
    """Remove the files of an earlier run, and no others."""
    weights = ("model*.safetensors*", "adapter_model.safetensors", "adapter_config.json", "pytorch_model*.bin*")
    for pattern in ("checkpoint-[0-9]*", "runs", *weights, LOG, PICTURE):
        for entry in output.glob(pattern):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for name in ("config.json", "generation_config.json"):
        (output / name).unlink(missing_ok=True)


def _finish(trainer: FamilyTrainer, settings: Settings, loaded: Loaded, base: Path, output: Path) -> None:
    """Write the result under another name, then move it, so that a result is always complete."""
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None
    if not trainer.args.should_save:
        return
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    draft = output / ".result.partial"
    shutil.rmtree(draft, ignore_errors=True)
    whole = settings.method in ("full", "freeze")
    dtype: torch.dtype | None = None
    if whole:
        dtype = checkpoint_dtype(base) if settings.save_dtype == "auto" else getattr(torch, settings.save_dtype)
    try:
        write_weights(model, draft, state, dtype=dtype)
        if whole:
            write_rest(loaded.tokenizer, base, draft)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    # The file that makes the folder loadable comes last.
    for file in sorted(draft.iterdir(), key=lambda file: file.name in ("config.json", "adapter_config.json")):
        file.replace(output / file.name)
    draft.rmdir()
