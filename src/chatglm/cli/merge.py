"""`chatglm merge`: a LoRA adapter and its base model as one checkpoint, verified."""

from __future__ import annotations

import argparse

from chatglm.cli.finetune import quieten


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("adapter", metavar="ADAPTER", help="folder that a LoRA run wrote")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder for the merged checkpoint")
    parser.add_argument("--model", metavar="FOLDER", help="base model (default: the one that the adapter names)")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "float16", "bfloat16"),
        default="auto",
        help="precision of the merged weights; auto: the base checkpoint's",
    )
    parser.add_argument("--device", default="cpu", help="where to compute (default: cpu)")
    parser.add_argument("--overwrite", action="store_true", help="replace what is in the output folder")


def run(arguments: argparse.Namespace) -> int:
    quieten()
    from chatglm.training.methods import merge

    merged = merge(
        arguments.adapter,
        arguments.output,
        model=arguments.model,
        dtype=arguments.dtype,
        device=arguments.device,
        overwrite=arguments.overwrite,
    )
    print(f"{merged}\nmerged and verified: {merged.output}")
    if not merged.effect:
        print("warning: the adapter changes nothing; was it trained?")
    return 0
