"""`chatglm finetune`: teach a model dialogues; `chatglm finetune preview`: see what it would learn from them."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import Any

from chatglm.cli.models import model_of_environment, note, quieten
from chatglm.errors import InputError

PREVIEW = "preview"

# A flag, the setting that it stands for, its type, and a line of help.
SHARED: tuple[tuple[str, str, Any, str], ...] = (
    ("--output", "training_args.output_dir", str, "folder for the result, its logs and checkpoints"),
    ("--val-file", "data_config.val_file", str, "data to evaluate on"),
    ("--epochs", "training_args.num_train_epochs", float, "number of epochs (default: 3)"),
    ("--steps", "training_args.max_steps", int, "number of steps, instead of --epochs"),
    ("--lr", "training_args.learning_rate", float, "learning rate (default: depends on the method)"),
    ("--batch-size", "training_args.per_device_train_batch_size", int, "rows in a batch, on each device (default: 4)"),
    ("--accumulate", "training_args.gradient_accumulation_steps", int, "gradient accumulation steps (default: 1)"),
    ("--max-length", "max_length", int, "longest example, and length of a row, in tokens (default: 1024)"),
    ("--seed", "training_args.seed", int, "random seed (default: 42)"),
    ("--log-every", "training_args.logging_steps", int, "steps between records of the loss (default: 10)"),
    ("--save-every", "training_args.save_steps", int, "steps between checkpoints (default: 500)"),
    ("--eval-every", "training_args.eval_steps", int, "steps between evaluations (default: every epoch)"),
    ("--method", "method", str, "full, lora, ptuning or freeze (default: {method})"),
    ("--lora-rank", "peft_config.r", int, "LoRA: rank (default: 8)"),
    ("--target-modules", "peft_config.target_modules", str, "LoRA: layers, separated by commas, or all-linear"),
    ("--prefix-tokens", "peft_config.num_virtual_tokens", int, "P-tuning: virtual tokens (default: 128)"),
    ("--layers", "trainable_layers", int, "freeze: number of last blocks to train (default: 3)"),
)
SWITCHES: tuple[tuple[str, str, str], ...] = (
    ("--bf16", "training_args.bf16", "compute in bfloat16"),
    ("--fp16", "training_args.fp16", "compute in float16"),
    ("--cpu", "training_args.use_cpu", "train on the CPU"),
    ("--gradient-checkpointing", "training_args.gradient_checkpointing", "use less memory and more time"),
)
ONLY_OF = {"--lora-rank": "lora", "--target-modules": "lora", "--prefix-tokens": "ptuning", "--layers": "freeze"}
"""Flags that only one method has."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "chatglm finetune [preview] DATA [--model FOLDER] --output FOLDER [options]"
    parser.add_argument(
        "data",
        nargs="*",
        metavar="DATA",
        help=".json, .jsonl, .csv, .tsv or .parquet file with dialogues, or the folder of the files that --settings "
        "names; `preview DATA` prints dialogues with the learned text in colour, and trains nothing",
    )
    parser.add_argument(
        "--loss",
        metavar="TURNS",
        help="learned turns: all (default), last, or split: all, each in a pass of its own",
    )
    parser.add_argument("--no-packing", action="store_true", help="put each example into a row of its own")
    parser.add_argument("--skip-bad-rows", action="store_true", help="skip rows that cannot be read, and list them")
    parser.add_argument(
        "--generate", action="store_true", help="score generated answers at every evaluation (Rouge, BLEU)"
    )
    parser.add_argument("--dialogues", type=int, metavar="N", help="preview: how many are shown (default: 3)")
    add_shared_arguments(parser)


def add_shared_arguments(parser: argparse.ArgumentParser, method: str = "lora") -> None:
    """What `finetune` and `pretrain` both have.

    Args:
        method: the default one.
    """
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="checkpoint folder or repository id (default: MODEL_PATH, else the bundled demo model)",
    )
    parser.add_argument(
        "--settings", metavar="FILE", help="YAML file with settings; those of the official finetune_hf.py work"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change any setting, such as training_args.weight_decay=0.1; may be repeated",
    )
    for flag, name, kind, line in SHARED:
        parser.add_argument(
            flag, dest=name, type=kind, metavar=flag.rsplit("-", 1)[-1].upper(), help=line.format(method=method)
        )
    for flag, name, line in SWITCHES:
        parser.add_argument(flag, dest=name, action="store_true", default=None, help=line)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="yes",
        metavar="CHECKPOINT",
        help="continue from the last checkpoint in --output, or from this one: a folder, or the number of a step",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in the output folder")


def tree_of(arguments: argparse.Namespace, method: str = "lora") -> dict[str, Any]:
    """The tree of settings that file, flags and --set make, each over the one before.

    Args:
        method: the method if neither file nor flag names one.
    """
    from chatglm import hub
    from chatglm.training.settings import RENAMED, assign, read_yaml

    tree: dict[str, Any] = read_yaml(arguments.settings) if arguments.settings else {"method": method}
    if isinstance(arguments_given := tree.get("training_args"), dict):
        for old, new in RENAMED.items():
            if old in arguments_given and new not in arguments_given:
                arguments_given[new] = arguments_given.pop(old)
    given = {name: getattr(arguments, name) for _, name, *_ in (*SHARED, *SWITCHES)}
    if not tree.get("model") and getattr(arguments, "config", None) is None:
        model_of_environment(arguments)
    if arguments.model is not None:
        tree["model"] = arguments.model
    if tree.get("model"):
        hub.folder(str(tree["model"]), say=note)
    peft = tree.get("peft_config")
    kind = str(peft.get("peft_type")).upper() if isinstance(peft, dict) else "None"
    of_file = tree.get("method") or {"LORA": "lora", "PREFIX_TUNING": "ptuning"}.get(kind, "full")
    chosen = given["method"] or of_file
    if chosen != of_file and peft is not None:
        del tree["peft_config"]  # the file's settings are for another method
    for flag, name, *_ in SHARED:
        if given[name] is not None and ONLY_OF.get(flag, chosen) != chosen:
            raise InputError(f"{flag} is for --method {ONLY_OF[flag]}, and the method is {chosen}")
    if given["training_args.num_train_epochs"] is not None and given["training_args.max_steps"] is None:
        put(tree, "training_args.max_steps", None)  # the file's, which would go before
    for name, value in given.items():
        if value is not None:
            several = name.endswith("target_modules") and "," in value
            put(tree, name, [part.strip() for part in value.split(",")] if several else value)
    for part in ("eval", "save", "logging"):
        if given[f"training_args.{part}_steps"] is not None:
            put(tree, f"training_args.{part}_strategy", "steps")
    for assignment in arguments.set:
        assign(tree, assignment)
    return tree


def resume_from(arguments: argparse.Namespace, settings: Any) -> Any:
    """What `finetune(resume=…)` takes, from `--resume [yes | no | NUMBER | FOLDER]`."""
    said = arguments.resume
    if said is None or said.lower() == "no":
        return False
    if said.lower() == "yes":
        return True
    return settings.output / f"checkpoint-{said}" if said.isdecimal() else said


def put(tree: dict[str, Any], name: str, value: Any) -> None:
    """Set `a.b` in a tree of settings."""
    *groups, last = name.split(".")
    place: Any = tree
    for group in groups:
        if place.get(group) is None:
            place[group] = {}
        place = place[group]
        if not isinstance(place, dict):
            raise InputError(f"{group}: expected a mapping of settings, got {place!r:.80}")
    place[last] = value


def run(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    words = list(arguments.data)
    preview = words[:1] == [PREVIEW]
    if len(words) - preview > 1:
        raise InputError(f"expected one DATA, got {' '.join(words)}")
    data = words[preview:]
    tree = tree_of(arguments)
    if data:
        files = tree.get("data_config")
        named = isinstance(files, dict) and files.get("train_file")  # DATA is the folder of the named files
        put(tree, "data_config.folder" if named and Path(data[0]).is_dir() else "data_config.train_file", data[0])
    if arguments.loss is not None:
        tree.pop("combine", None)
        tree["loss"] = arguments.loss
    for flag, name, value in (
        ("no_packing", "packing", False),
        ("skip_bad_rows", "skip_bad_rows", True),
        ("generate", "predict_with_generate", True),
    ):
        if getattr(arguments, flag):
            tree[name] = value

    quieten()
    from chatglm.training.settings import Settings

    settings = Settings.from_dict(tree, where=arguments.settings or "settings")
    if arguments.dialogues is not None and not preview:
        raise InputError("--dialogues: is an option of `chatglm finetune preview`; leave it out")
    if preview:
        return _preview(settings, 3 if arguments.dialogues is None else arguments.dialogues)
    from chatglm.training.finetune import finetune

    finished(finetune(settings, resume=resume_from(arguments, settings), overwrite=arguments.overwrite), settings)
    return 0


def _preview(settings: Any, count: int) -> int:
    from chatglm.chat.formats import chat_format
    from chatglm.training.methods import fitting_tokenizer
    from chatglm.training.preview import preview

    file = settings.data_config.path("train")
    if file is None:
        raise InputError("DATA: give the file with the dialogues")
    folder = settings.base
    for line in preview(
        file,
        chat_format(fitting_tokenizer(folder, folder)),
        loss=settings.loss,
        max_length=settings.max_length,
        one_pass=settings.one_pass,
        columns=settings.data_config.columns,
        skip_bad_rows=settings.skip_bad_rows,
        limit=count,
        color=sys.stdout.isatty(),
    ):
        print(line)
    return 0


def finished(result: Any, settings: Any) -> None:
    """Print the result of a run and how to use it."""
    import os

    from chatglm.training.examples import counted

    if int(os.environ.get("RANK", "0")):
        return
    option = {"lora": "--adapter", "ptuning": "--prefix"}.get(settings.method)
    model = f"--model {shlex.quote(settings.model)} " if settings.model else ""
    output = shlex.quote(str(result.output))
    use = f"{model}{option} {output}" if option else f"--model {output}"
    last = f", loss {result.losses[-1]:.4g}" if result.losses else ""
    print(f"{counted(result.steps, 'step')}{last}; result in {result.output}\nTry it: chatglm chat {use}")
