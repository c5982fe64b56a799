"""`chatglm pretrain`: GLM's blank infilling over plain texts, on a checkpoint or from nothing."""

from __future__ import annotations

import argparse

from chatglm.cli.finetune import add_shared_arguments, finished, put, resume_from, tree_of
from chatglm.cli.models import quieten


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "chatglm pretrain TEXTS [--model FOLDER | --config FILE --tokenizer FOLDER] --output FOLDER [options]"
    )
    parser.add_argument("texts", metavar="TEXTS", help=".txt or .jsonl file, or a folder of them")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="train a new model with random weights, of this config.json; not together with --model",
    )
    parser.add_argument(
        "--tokenizer", metavar="FOLDER", help="tokenizer of the new model (default: the folder of --config)"
    )
    parser.add_argument(
        "--split",
        choices=("file", "blank", "line"),
        help="documents of a .txt file: the whole file (default), or parts between blank lines, or lines",
    )
    parser.add_argument(
        "--hold-out",
        type=float,
        metavar="SHARE",
        help="share of the documents to evaluate on, such as 0.01 (default: none)",
    )
    add_shared_arguments(parser, method="full")


def run(arguments: argparse.Namespace) -> int:
    tree = tree_of(arguments, method="full")
    put(tree, "data_config.train_file", arguments.texts)
    for name in ("config", "tokenizer"):
        if (value := getattr(arguments, name)) is not None:
            tree[name] = value
    for name in ("split", "hold_out"):
        if (value := getattr(arguments, name)) is not None:
            put(tree, f"texts.{name}", value)

    quieten()
    from chatglm.training.pretrain import pretrain
    from chatglm.training.settings import Settings

    settings = Settings.from_dict(tree, where=arguments.settings or "settings")
    finished(pretrain(settings, resume=resume_from(arguments, settings), overwrite=arguments.overwrite), settings)
    return 0
