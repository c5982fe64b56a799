"""`chatglm merge`: a LoRA adapter and its base model as one checkpoint, verified."""

from __future__ import annotations

import argparse

from chatglm.cli.models import DTYPES, model_of_environment, note, quieten
from chatglm.models.fields import dtype_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("adapter", metavar="ADAPTER", help="LoRA adapter: folder or repository id")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder for the merged checkpoint")
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="base model: folder or repository id (default: MODEL_PATH, else what the adapter names)",
    )
    parser.add_argument(
        "--dtype",
        type=dtype_name,
        choices=DTYPES,
        default="auto",
        help="data type of the merged weights (default: auto, that of the base checkpoint)",
    )
    parser.add_argument("--device", default="cpu", help="device to compute on (default: cpu)")
    parser.add_argument("--overwrite", action="store_true", help="replace the contents of the output folder")


def run(arguments: argparse.Namespace) -> int:
    quieten()
    from chatglm import hub
    from chatglm.loading import adapter_base
    from chatglm.training.methods import merge

    model_of_environment(arguments)
    hub.folder(arguments.adapter, say=note)
    if (base := arguments.model) is None and (hub.folder(arguments.adapter) / "adapter_config.json").is_file():
        base = adapter_base(arguments.adapter)
    if base is not None:
        hub.folder(base, say=note)
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
