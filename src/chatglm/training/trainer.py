"""The training loop: `transformers.Trainer`, with exact losses, exact resume and complete checkpoints.

What it changes, and why:

- The loss of a step is the sum over its learned tokens, divided by their number, over all accumulated batches and all
  processes. So neither accumulation nor the number of processes changes what is learned.
- The order of rows depends on seed and epoch only. With several processes, the last batches are filled with empty rows,
  from which nothing is learned, instead of repeated rows.
- A checkpoint is valid once its mark is written, which happens last. An incomplete checkpoint after a crash is never
  used.
- A loss that is NaN or infinite stops the run, and the error names the rows.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import importlib.util
import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import DefaultFlowCallback
from transformers.trainer_utils import rotate_checkpoints

from chatglm.errors import CheckpointError, DependencyError, InputError, NumericalError
from chatglm.training.examples import IGNORE, Collator, Example, counted
from chatglm.training.methods import read_weights, write_weights
from chatglm.training.settings import Settings

__all__ = ["FamilyTrainer", "arguments_of", "check_checkpoint", "check_steps", "last_checkpoint", "precision"]

Row = Sequence[Example]

_MARK = "complete.json"


def arguments_of(settings: Settings) -> TrainingArguments:
    """`training_args` as an object of `transformers`, completed from the other settings.

    Raises:
        InputError: transformers refuses a value, or there is no `output_dir`.
    """
    given = dict(settings.training_args)
    if not given.get("output_dir"):
        raise InputError("training_args.output_dir is not set; say where the result goes with --output")
    if settings.data_config.val_file or settings.texts.hold_out:
        given.setdefault("eval_strategy", "epoch")
    if "report_to" not in given:
        given["report_to"] = ["tensorboard"] if importlib.util.find_spec("tensorboard") else "none"
    given.setdefault("dataloader_pin_memory", torch.cuda.is_available())
    given.setdefault("ddp_find_unused_parameters", False)  # every step uses all trained weights
    given["output_dir"] = str(settings.output)
    if not torch.accelerator.is_available():
        given["use_cpu"] = True  # otherwise Accelerate does not connect processes on a CPU, and each trains by itself
    fixed = {
        "remove_unused_columns": False,
        "label_names": ["shift_labels"],
        "disable_tqdm": True,  # we draw the progress bar
        "logging_nan_inf_filter": False,  # we stop at such values instead of averaging over them
    }
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    try:
        args = TrainingArguments(**{name: value for name, value in {**given, **fixed}.items() if name in known})
        processes, started = args.world_size, int(os.environ.get("WORLD_SIZE") or 1)
        # With several GPUs the Trainer would copy the model to all of them in this process (DataParallel). That splits
        # every input, and so fails on the number of learned tokens.
        args._n_gpu = min(args.n_gpu, 1)
    except ImportError as error:
        reason = " ".join(str(error).split())
        if "deepspeed" in given:
            raise DependencyError(
                f"training_args.deepspeed: pip install deepspeed, or remove the line; it saves memory on several GPUs "
                f"({reason:.200})"
            ) from None
        raise InputError(f"training_args: {reason}") from None
    except (ValueError, TypeError) as error:
        raise InputError(f"training_args: {' '.join(str(error).split())}") from None
    if started > 1 and processes == 1:
        raise InputError(
            f"{started} processes were started, but they are not connected, and each would train the same; start one "
            "process, or use --cpu to train on CPUs"
        )
    return args


def precision(settings: Settings) -> torch.dtype | None:
    """Precision of the computation: bfloat16, float16, or None for float32."""
    if settings.training_args.get("bf16"):
        return torch.bfloat16
    return torch.float16 if settings.training_args.get("fp16") else None


# Rows in their order


class _Filled(Dataset[Row]):
    """Rows, followed by empty rows up to `length`, from which nothing is learned."""

    def __init__(self, rows: Any, length: int) -> None:
        self._rows, self._length = rows, length
        first = rows[0][0]
        self._filler = [Example((first.ids[0],), (IGNORE,), tuple((0,) for _ in first.positions))]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Row:
        row: Row = self._rows[index] if index < len(self._rows) else self._filler
        return row


class _Order(Sampler[int]):
    """A new order of `count` rows in every epoch, from seed and epoch only; then the rows that fill up to `length`. If
    `length` is smaller, the last rows of the order are left out.
    """

    def __init__(self, count: int, length: int, seed: int, shuffled: bool) -> None:
        self._count, self._length, self._seed, self._shuffled = count, length, seed, shuffled
        self.epoch = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        if self._shuffled:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self.epoch)
            yield from torch.randperm(self._count, generator=generator)[: self._length].tolist()
        else:
            yield from range(min(self._count, self._length))
        yield from range(self._count, self._length)


class _Batches:
    """Makes batches with the collator, and adds the sources of the rows and the numbers of tokens for the loop."""

    def __init__(self, collator: Collator) -> None:
        self._collator = collator

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        batch: dict[str, Any] = dict(self._collator(rows))
        batch["where"] = [_sources(row) for row in rows]
        batch["tokens"] = sum(len(example) for row in rows for example in row)
        return batch


def _sources(row: Row) -> str:
    """The places that the examples of a row come from, each once."""
    return ", ".join(dict.fromkeys(example.where or "(no source)" for example in row))


class _Flow(TrainerCallback):  # type: ignore[misc]
    """Sets the epoch of order and rows. Logs at every save, so that no average of losses spans a checkpoint, and at the
    end, so that every run has a loss.
    """

    def __init__(self, order: _Order, rows: Any) -> None:
        self._order, self._rows = order, rows

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # If a run continues within an epoch, this is a fraction.
        self._order.epoch = epoch = int((state.epoch or 0) + 1e-9)
        if hasattr(self._rows, "set_epoch"):
            self._rows.set_epoch(epoch)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_log = control.should_log or control.should_save or state.global_step >= state.max_steps

    on_epoch_end = on_step_end


@functools.cache
def _leave_group_at_exit() -> None:
    """Leave the process group before Python ends, which nothing else does. Otherwise threads still serve the group at
    that time, and the C++ library sometimes aborts the process ("terminate called without an active exception").
    """

    def leave() -> None:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    atexit.register(leave)


class FamilyTrainer(Trainer):  # type: ignore[misc]
    """Trains a model of the family on rows of examples.

    Args:
        model: a PEFT model or a model of this package. The weights to train require a gradient.
        args: see `arguments_of`.
        rows: item i is the list of examples that share row i. Rows that change with the epoch have `set_epoch`.
        collator: makes a batch from rows.
        held_out: rows to evaluate on.
        scores: returns further figures for the model at every evaluation; called in every process.
        callbacks: further callbacks.
    """

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        rows: Any,
        collator: Collator,
        *,
        held_out: Any = None,
        scores: Callable[[Any], Mapping[str, float]] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self._scores = scores
        seed = args.seed if args.data_seed is None else args.data_seed
        length = _full(len(rows), args.train_batch_size, args.world_size, drop=args.dataloader_drop_last)
        self._order = _Order(len(rows), length, seed, args.train_sampling_strategy != "sequential")
        if held_out is not None:
            count = _full(len(held_out), args.eval_batch_size, args.world_size)
            if args.dataloader_drop_last:  # the loader would drop a batch that is not full, but no row may be missing
                count = math.ceil(count / args.eval_batch_size) * args.eval_batch_size
            held_out = _Filled(held_out, count)
        super().__init__(
            model=model,
            args=args,
            data_collator=_Batches(collator),
            train_dataset=_Filled(rows, length),
            eval_dataset=held_out,
            callbacks=[_Flow(self._order, rows), *callbacks],
        )
        self.remove_callback(PrinterCallback)
        assert isinstance(self.callback_handler.callbacks[0], DefaultFlowCallback)  # it must run before `_Flow`
        self.model_accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch
        self._rows_of_step: list[str] = []
        self._counted = torch.zeros(2, dtype=torch.long)  # all and learned tokens of all processes, since the last log
        self._evaluated: list[Tensor] = []
        self._clock = time.perf_counter()
        if args.world_size > 1:
            _leave_group_at_exit()

    def try_optimizer(self) -> None:
        """Make the optimizer before anything on disk is changed, to report errors early.

        Raises:
            DependencyError: it needs a package that is not installed.
            InputError: it refuses a value.
        """
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return  # these make the optimizer from the wrapped model
        try:
            self.create_optimizer()
        except ImportError as error:
            raise DependencyError(f"training_args.optim: {' '.join(str(error).split())}") from None
        except (ValueError, TypeError) as error:
            raise InputError(f"training_args: {' '.join(str(error).split())}") from None

    # The loss

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor | None:
        """Number of learned tokens in the batches of a step, over all processes."""
        if not batch_samples:
            return None
        counts = torch.tensor(
            [
                sum(int(batch["tokens"]) for batch in batch_samples),
                sum(int(batch["shift_labels"].ne(IGNORE).sum()) for batch in batch_samples),
            ],
            device=device,
        )
        if self.args.world_size > 1:
            counts = self.accelerator.reduce(counts, "sum")
        self._counted += counts.cpu()
        # The loss of a step without learned tokens must be 0, not 0/0.
        return counts[1].clamp(min=1)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Run one batch forward and backward.

        Raises:
            NumericalError: the loss is NaN or infinite; the message names the rows.
        """
        self._rows_of_step += (sources := inputs.pop("where"))
        inputs.pop("tokens")
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            raise NumericalError(self._bad_loss(float(loss), model, inputs, sources))
        return loss

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        inputs = {name: value for name, value in inputs.items() if name not in ("where", "tokens")}
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Check the gradients before the weights change. It is called before every optimizer step, with complete
        gradients.
        """
        norm = super()._get_grad_norm(model, grad_norm)
        # With fp16 an overflow is normal: the scaler then skips the step.
        if norm is not None and self.accelerator.scaler is None and not math.isfinite(float(norm)):
            raise NumericalError(
                f"step {self.state.global_step + 1}: the gradient is {float(norm)}, from "
                f"{_listed(self._rows_of_step)}; {self._advice()}"
            )
        self._rows_of_step = []
        return norm

    @torch.no_grad()
    def _bad_loss(self, loss: float, model: Any, inputs: dict[str, Any], sources: list[str]) -> str:
        """The error message for a batch; names the rows whose own loss is NaN or infinite."""
        bad = sources
        if not (self.is_fsdp_enabled or self.is_deepspeed_enabled):  # with these, all processes must call the model
            alone = self.accelerator.unwrap_model(model)
            rows = [{k: v[n : n + 1] for k, v in inputs.items() if isinstance(v, Tensor)} for n in range(len(sources))]
            with self.compute_loss_context_manager():
                found = [where for where, row in zip(sources, rows, strict=True) if not alone(**row).loss.isfinite()]
            bad = found or sources
        whose = "its row" if len(sources) == 1 else "every row of it"
        if len(bad) < len(sources):
            whose = f"{len(bad)} of its {len(sources)} rows"
        return f"step {self.state.global_step + 1}: the loss is {loss}, from {whose}: {_listed(bad)}; {self._advice()}"

    def _advice(self) -> str:
        kept = last_checkpoint(Path(self.args.output_dir))
        return (
            "try a lower learning rate, or bf16 in place of fp16. "
            + (f"The last good checkpoint is {kept}" if kept else "There is no checkpoint yet")
            + "; nothing was written over it"
        )

    # Data

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self._order

    # Evaluation: the mean over all learned tokens. Each counts once, for any batch size and number of processes

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, None, None]:
        inputs = self._prepare_inputs({k: v for k, v in inputs.items() if k not in ("where", "tokens")})
        with torch.no_grad(), self.compute_loss_context_manager():
            total = model(**inputs, num_items_in_batch=1).loss.detach().double()
        learned = inputs["shift_labels"].ne(IGNORE).sum()
        self._evaluated.append(torch.stack([total, learned.to(total)]))
        return (total / learned.clamp(min=1)).float(), None, None

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        self._evaluated = []
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        total, learned = self.accelerator.reduce(torch.stack(self._evaluated).sum(0), "sum").tolist()
        if not learned:
            raise InputError("nothing is learned in the evaluation data, so there is no loss; see `finetune preview`")
        output.metrics[f"{metric_key_prefix}_loss"] = total / learned
        output.metrics[f"{metric_key_prefix}_learned_tokens"] = int(learned)
        if self._scores is not None:
            was, self.model.config.use_cache = self.model.config.use_cache, True
            try:
                scored = self._scores(self.model)
            finally:
                self.model.config.use_cache = was
            output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in scored.items()})
        return output

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        self._clock = time.perf_counter()  # evaluation does not count as training time
        return metrics

    # Logs

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            tokens, learned = self._counted.tolist()
            now = time.perf_counter()
            logs |= {
                "tokens": tokens,
                "learned_tokens": learned,
                "tokens_per_second": round(tokens / max(now - self._clock, 1e-9), 1),
            }
            self._counted.zero_()
            self._clock = now
        super().log(logs, start_time)

    # Checkpoints

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write all files, then the mark, then remove old checkpoints."""
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save and folder.exists():  # left by a crash or an older run
            (folder / _MARK).unlink(missing_ok=True)
            shutil.rmtree(folder)
        self.accelerator.wait_for_everyone()
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        except Exception:
            if self.args.should_save:  # most likely a full disk; an incomplete checkpoint is useless
                shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            sizes = {str(f.relative_to(folder)): f.stat().st_size for f in sorted(folder.rglob("*")) if f.is_file()}
            draft = folder / f".{_MARK}.partial"
            about = {"step": self.state.global_step, **_factors(self.args), "files": sizes}
            draft.write_text(json.dumps(about), "utf-8")
            draft.replace(folder / _MARK)
            rotate_checkpoints(
                output_dir=str(folder.parent),
                save_total_limit=limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )
        self._clock = time.perf_counter()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if self.args.should_save:
            model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            write_weights(model, Path(output_dir or self.args.output_dir), state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        whole = self.accelerator.unwrap_model(self.model if model is None else model)
        if not read_weights(whole, Path(resume_from_checkpoint)):
            super()._load_from_checkpoint(resume_from_checkpoint, model)


def _full(count: int, batch: int, processes: int, *, drop: bool = False) -> int:
    """Number of rows that fill all batches of all processes. A single process keeps its short last batch.

    Args:
        drop: leave the last rows out, instead of filling up with empty ones; in a single process the loader does this.
    """
    if processes == 1:
        return count
    whole = batch * processes
    return (count // whole if drop else math.ceil(count / whole)) * whole


def _listed(rows: Sequence[str], most: int = 8) -> str:
    shown = "; ".join(rows[:most])
    return shown if len(rows) <= most else f"{shown}; and {counted(len(rows) - most, 'more row')}"


def check_checkpoint(folder: Path) -> None:
    """Raise `CheckpointError` unless a run can continue from this checkpoint."""
    _check_whole(folder)
    # Without these files the Trainer would continue, but not in the same way as the run.
    if not [*folder.glob("optimizer*"), *folder.glob("global_step*")]:  # the latter is DeepSpeed's
        raise CheckpointError(f"{folder}: was saved without the optimizer (save_only_model); it cannot be resumed from")


def check_steps(folder: Path, args: TrainingArguments) -> bool:
    """Check that the run's steps have as many rows as those before this checkpoint. Otherwise some rows of the epoch
    would be skipped, and others learned twice.

    Returns:
        False if this is unknown, because an earlier release wrote the checkpoint.

    Raises:
        InputError: a step would have more or fewer rows.
    """
    about, now = json.loads((folder / _MARK).read_text("utf-8")), _factors(args)
    if not now.keys() <= about.keys():
        return False
    was = {name: int(about[name]) for name in now}
    before, after = math.prod(was.values()), math.prod(now.values())
    if before != after:
        raise InputError(
            f"--resume: a step was of {before} rows in {folder} ({_product(was)}), and would be of {after} now "
            f"({_product(now)}); change these numbers so that their product is {before} again, or start a new run in "
            "another folder"
        )
    return True


def _factors(args: TrainingArguments) -> dict[str, int]:
    """The numbers whose product is the number of rows in a step."""
    return {
        "processes": args.world_size,
        "per_device_train_batch_size": args.per_device_train_batch_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
    }


def _product(factors: Mapping[str, int]) -> str:
    return " × ".join(f"{name} {value}" for name, value in factors.items())


def _check_whole(folder: Path) -> None:
    """Raise `CheckpointError` unless a checkpoint exists, is complete, and has not changed since it was written."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such checkpoint")
    try:
        files = json.loads((folder / _MARK).read_text("utf-8"))["files"]
        wrong = [name for name, size in files.items() if (folder / name).stat().st_size != size]
    except FileNotFoundError as error:
        what = "was not finished" if error.filename == str(folder / _MARK) else f"lacks {Path(error.filename).name}"
        raise CheckpointError(f"{folder}: this checkpoint {what}; resume from an earlier one") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / _MARK}: cannot be read ({error}); resume from an earlier one") from None
    if wrong:
        raise CheckpointError(
            f"{folder / wrong[0]}: has changed since it was written; resume from an earlier checkpoint"
        )


def last_checkpoint(output: Path) -> Path | None:
    """The newest complete checkpoint of a run, or None."""
    found = {
        int(match[1]): folder
        for folder in (output.iterdir() if output.is_dir() else ())
        if (match := re.fullmatch(r"checkpoint-(\d+)", folder.name))
    }
    for _, folder in sorted(found.items(), reverse=True):
        try:
            _check_whole(folder)
        except CheckpointError:
            continue
        return folder
    return None
