"""What commands that answer with a model share: which one it is, where and how it runs."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from chatglm.errors import InputError

if TYPE_CHECKING:
    from chatglm.assistant import BaseAssistant

__all__ = [
    "add_assistant_arguments",
    "add_model_arguments",
    "loading_options",
    "model_name",
    "open_assistant",
]

REMOTE_KEY = "CHATGLM_REMOTE_KEY"
"""Environment variable with an endpoint's key: a command line is for everybody to read."""
_OF_THE_MODEL = (
    "model",
    "adapter",
    "prefix",
    "device",
    "dtype",
    "threads",
    "huge_pages",
    "draft",
    "kv_cache",
    "kv_memory",
)


def add_model_arguments(parser: argparse.ArgumentParser, on_cpu: str = "bfloat16") -> None:
    """Give a command the options of a model of this machine, which `loading_options` reads.

    Args:
        on_cpu: dtype there, where none is asked for.
    """
    parser.add_argument(
        "--model", metavar="FOLDER", help="checkpoint folder in an official layout (default: the bundled demo model)"
    )
    parser.add_argument("--adapter", metavar="FOLDER", help="PEFT adapter (LoRA …) to put on the model")
    parser.add_argument("--prefix", metavar="PATH", help="P-tuning v2 state: the folder or file that training wrote")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: a GPU if there is one, else the CPU")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "float16", "bfloat16"),
        help=f"precision of the weights; auto (default): the checkpoint's on a GPU, {on_cpu} on a CPU",
    )
    parser.set_defaults(dtype_on_cpu=on_cpu)
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="of the CPU (default: CHATGLM_NUM_THREADS, else the physical cores that this process may use)",
    )

    parser.add_argument(
        "--huge-pages",
        action="store_true",
        default=None,
        help="have the weights in memory pages of 2 MiB, for more tokens a second on a CPU; where the file system has "
        "none, they are copied into memory that is not shared with other processes",
    )


def add_assistant_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a command the options that `open_assistant` reads: of a model and its engine, or of an endpoint instead."""
    add_model_arguments(parser)
    parser.add_argument(
        "--draft",
        metavar="FOLDER",
        help="smaller model of the same vocabulary, which guesses tokens where that is faster; no text depends on it",
    )
    parser.add_argument(
        "--kv-cache",
        choices=("auto", "float32", "float16", "int8"),
        help="keys and values as these; int8 takes half the memory of two bytes, and rounds a little (default: auto, "
        "as the weights are, at most two bytes for quantised ones)",
    )
    parser.add_argument(
        "--kv-memory",
        type=float,
        metavar="GIB",
        help="memory for keys and values, of all dialogues together (default: for 16 full contexts, if a quarter of "
        "what is free has it)",
    )

    parser.add_argument(
        "--remote",
        metavar="URL",
        help="use the model of an OpenAI-compatible endpoint (http://host:8000/v1) instead; its key, if it wants one, "
        f"is read from {REMOTE_KEY}",
    )
    parser.add_argument("--remote-model", metavar="NAME", help="its name there (default: the first that is listed)")


def open_assistant(arguments: argparse.Namespace) -> BaseAssistant:
    """The assistant that a command line asks for. To be closed.

    Args:
        arguments: of `add_assistant_arguments`.

    Raises:
        InputError: an option does not fit; names it.
        CheckpointError, TokenizerError, DependencyError: as `chatglm.load`.
    """
    remote, name = arguments.remote, arguments.remote_model
    if remote is None:
        if name is not None:
            raise InputError("--remote-model: names a model of --remote URL, which is not given")
        from chatglm.assistant import Assistant

        return Assistant.load(arguments.model, **loading_options(arguments), **_engine_options(arguments))
    for option in _OF_THE_MODEL:
        if getattr(arguments, option) is not None:
            raise InputError(f"--{option.replace('_', '-')}: not with --remote, whose endpoint has a model of its own")
    from chatglm.assistant import RemoteAssistant

    return RemoteAssistant(remote, name, key=os.environ.get(REMOTE_KEY))


def model_name(arguments: argparse.Namespace) -> str:
    """What to call the model that `open_assistant` opens."""
    from pathlib import Path

    if arguments.remote is not None:
        return arguments.remote_model or "remote"
    return Path(arguments.model).resolve().name if arguments.model else "demo"


def loading_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `load` and `load_parts` take besides the folder; says `--threads` to whatever computes.

    Raises:
        InputError: there is no such device, or not so many threads.
    """
    if arguments.threads is not None and arguments.threads < 1:
        raise InputError(f"--threads {arguments.threads}: at least 1 is needed")
    import torch

    from chatglm.cli.finetune import quieten
    from chatglm.loading import check_device

    quieten()
    _use_threads(arguments.threads)
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(device)
    dtype = arguments.dtype or "auto"
    if dtype == "auto" and torch.device(device).type == "cpu":
        # fp16 arithmetic is slow and coarse on CPUs; the small model can afford the best.
        dtype = "float32" if arguments.model is None else arguments.dtype_on_cpu
    return {
        "adapter": arguments.adapter,
        "prefix": arguments.prefix,
        "huge_pages": bool(arguments.huge_pages),
        "device": device,
        "dtype": dtype,
    }


def _engine_options(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    options: dict[str, Any] = {"draft": arguments.draft}
    if arguments.kv_cache not in (None, "auto"):
        options["store"] = getattr(torch, arguments.kv_cache)
    if arguments.kv_memory is not None:
        if not 0 < arguments.kv_memory < 1 << 20:
            raise InputError(f"--kv-memory {arguments.kv_memory:g}: must be more than 0 GiB")
        options["memory"] = int(arguments.kv_memory * (1 << 30))
    return options


def _use_threads(count: int | None) -> None:
    """One number for the native kernels and for torch."""
    import torch

    from chatglm.kernels import native

    if count is not None:
        native.set_threads(count)
    elif not os.environ.get("CHATGLM_NUM_THREADS"):
        return  # each has a default of its own, torch's by OMP_NUM_THREADS too
    torch.set_num_threads(count or native.info().threads)
