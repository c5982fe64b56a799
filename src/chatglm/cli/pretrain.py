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
    parser.add_argument("--config", metavar="FILE", help="config.json of a fresh model, in place of --model")
    parser.add_argument("--tokenizer", metavar="FOLDER", help="its tokenizer, if it does not lie beside config.json")
    parser.add_argument(
        "--split",
        choices=("file", "blank", "line"),
        help="where a document of a .txt file ends (default: file)",
    )
    parser.add_argument("--hold-out", type=float, metavar="SHARE", help="share of the documents to evaluate on")
    add_shared_arguments(parser)


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
