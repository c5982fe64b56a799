"""Options of all commands that answer with a model: which model, and where and how it runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from chatglm.cli.shown import tell
from chatglm.errors import InputError
from chatglm.models.fields import PRECISIONS, dtype_name

if TYPE_CHECKING:
    from chatglm.assistant import BaseAssistant

__all__ = [
    "add_assistant_arguments",
    "add_model_arguments",
    "find_model",
    "loading_options",
    "model_identity",
    "model_name",
    "model_of_environment",
    "note",
    "open_assistant",
    "print_json",
    "quieten",
    "remote_urls",
]

MODEL_PATH = "MODEL_PATH"
"""Environment variable of the official demos: the model if `--model` is missing."""
REMOTE_KEY = "CHATGLM_REMOTE_KEY"
"""Environment variable with an endpoint's key: everybody can read a command line."""
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


DTYPES = ("auto", *PRECISIONS)


def add_model_arguments(parser: argparse.ArgumentParser, on_cpu: str = "bfloat16", *, several: bool = False) -> None:
    """Give a command the options of a model of this machine, which `loading_options` reads.

    Args:
        on_cpu: default dtype on a CPU.
        several: `--model` may be repeated, and name each model; it is a list then.
    """
    parser.add_argument(
        "--model",
        action="append" if several else "store",
        metavar="[NAME=]MODEL" if several else "MODEL",
        help="checkpoint folder, or repository id such as THUDM/chatglm3-6b, which is downloaded unless it is in the "
        "cache (default: MODEL_PATH, else the base model of --adapter, else the bundled demo model)"
        + ("; repeat it for several models" if several else ""),
    )
    parser.add_argument("--adapter", metavar="ADAPTER", help="PEFT adapter (LoRA …): folder or repository id")
    parser.add_argument("--prefix", metavar="PATH", help="P-tuning v2 state: the folder or file that training wrote")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: a GPU if there is one, else the CPU)")
    parser.add_argument(
        "--dtype",
        type=dtype_name,
        choices=DTYPES,
        help="data type of the weights: float32 (fp32), float16 (fp16, half), bfloat16 (bf16), or auto (default): the "
        f"checkpoint's on a GPU, {on_cpu} on a CPU",
    )
    parser.set_defaults(dtype_on_cpu=on_cpu)
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="CPU threads (default: CHATGLM_NUM_THREADS, else the physical cores that this process may use)",
    )
    parser.add_argument(
        "--huge-pages",
        action="store_true",
        default=None,
        help="put the weights in 2 MiB huge pages (faster on a CPU); if the file system has none, they are copied into "
        "memory that other processes do not share",
    )


def add_assistant_arguments(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Give a command the options that `open_assistant` reads: of a model and its engine, or of an endpoint instead."""
    add_model_arguments(parser, several=several)
    parser.add_argument(
        "--draft",
        metavar="MODEL",
        help="draft model for speculative decoding: folder or repository id (same vocabulary; the output is unchanged)",
    )
    parser.add_argument(
        "--kv-cache",
        choices=("auto", "float32", "float16", "int8"),
        help="data type of the KV cache; int8 halves its memory at a small loss of accuracy (default: auto, the "
        "type of the weights; two bytes for each number if they are quantised, and for the bundled demo model)",
    )
    parser.add_argument(
        "--kv-memory",
        type=float,
        metavar="GIB",
        help="size of the KV cache in GiB (default: 16 full contexts, at most a quarter of the free memory)",
    )
    parser.add_argument(
        "--remote",
        metavar="URL",
        action="append",
        help="use a model of an OpenAI-compatible endpoint (http://host:8000/v1) instead; repeat for several endpoints "
        "with the same model: each dialogue stays at one of them, and another one answers if that one fails; the API "
        f"key is read from {REMOTE_KEY}",
    )
    parser.add_argument(
        "--remote-model", metavar="NAME", help="name of that model (default: the first that the endpoint lists)"
    )


def open_assistant(arguments: argparse.Namespace, **engine: Any) -> BaseAssistant:
    """The assistant that a command line asks for. The caller closes it.

    Args:
        arguments: of `add_assistant_arguments`.
        engine: what `Engine` takes besides.

    Raises:
        InputError: an option does not fit; names it.
        CheckpointError, TokenizerError, DependencyError: as `chatglm.load`.
    """
    urls, name = remote_urls(arguments), arguments.remote_model
    if not urls:
        from chatglm.assistant import Assistant

        options = loading_options(arguments)
        return Assistant.load(arguments.model, **options, **_engine_options(arguments, options["device"]), **engine)
    from chatglm.assistant import RemoteAssistant, RemoteFleet

    key = os.environ.get(REMOTE_KEY)
    return RemoteAssistant(urls[0], name, key=key) if len(urls) == 1 else RemoteFleet(urls, name, key=key)


def remote_urls(arguments: argparse.Namespace) -> list[str]:
    """The URLs of `--remote`, which may be repeated or have commas between URLs. Empty: a model of this machine.

    Raises:
        InputError: it is given without a URL, or another option cannot be used with it.
    """
    if arguments.remote is None:
        if arguments.remote_model is not None:
            raise InputError("--remote-model needs --remote URL")
        return []
    for option in _OF_THE_MODEL:
        if getattr(arguments, option) is not None:
            raise InputError(f"--{option.replace('_', '-')} cannot be used with --remote")
    urls = [url for given in arguments.remote for part in given.split(",") if (url := part.strip())]
    if not urls:
        raise InputError("--remote: give the URL of an endpoint, such as http://host:8000/v1")
    return urls


def model_name(arguments: argparse.Namespace) -> str:
    """What to call the model that `open_assistant` has opened."""
    if arguments.remote is not None:
        return arguments.remote_model or "remote"
    from chatglm.hub import folder_name

    return folder_name(arguments.model) if arguments.model else "demo"


def model_identity(arguments: argparse.Namespace) -> str:
    """A key that identifies the model of `open_assistant`, for storing its answers. A folder that was written again is
    another model. Nothing is loaded."""
    if arguments.remote is not None:
        return json.dumps([remote_urls(arguments), arguments.remote_model])
    find_model(arguments)
    from chatglm import hub
    from chatglm.loading import demo_folder

    folders = [hub.folder(arguments.model) if arguments.model else demo_folder()]
    folders += [hub.folder(name) for name in (arguments.adapter, arguments.prefix) if name]
    files = [
        (str(file.resolve()), seen.st_size, seen.st_mtime_ns)
        for folder in folders
        for file in sorted(folder.iterdir() if folder.is_dir() else [folder])
        if (seen := file.stat())
    ]
    return json.dumps([files, arguments.device, arguments.dtype, arguments.kv_cache])


def note(line: str) -> None:
    """Write a note for the user to stderr, apart from answers."""
    tell(f"chatglm: {line}")


def print_json(value: Any, *, flush: bool = False) -> None:
    """Write a value as a line of JSON to stdout, for programs: in ASCII where the encoding of stdout lacks a character.
    Otherwise it would be written as an escape that JSON does not have (`\\xe9`, `\\U0001f600`).
    """
    line = json.dumps(value, ensure_ascii=False)
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        line = json.dumps(value)
    print(line, flush=flush)


def quieten() -> None:
    """Switch off progress bars of libraries without a terminal, and their warnings; those of chatglm stay."""
    import warnings

    import transformers

    warnings.simplefilter("ignore", FutureWarning)

    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def model_of_environment(arguments: argparse.Namespace) -> None:
    """If `--model` is missing: use MODEL_PATH, and PT_PATH beside it, as in the official demos."""
    if arguments.model is not None or not (named := os.environ.get(MODEL_PATH)):
        return
    arguments.model = named
    note(f"model from MODEL_PATH: {named}")
    tokenizer = os.environ.get("TOKENIZER_PATH")
    if tokenizer and tokenizer != named:
        note("TOKENIZER_PATH is not used: the tokenizer is always the one of the model's folder")
    state = os.environ.get("PT_PATH")
    if state and getattr(arguments, "prefix", state) is None and arguments.adapter is None:
        arguments.prefix = state
        note(f"P-tuning state from PT_PATH: {state}")


def find_model(arguments: argparse.Namespace) -> None:
    """Choose the model if the command line does not name one, and download what is missing.

    Raises:
        CheckpointError: it is not available.
    """
    from chatglm import hub
    from chatglm.loading import adapter_base

    model_of_environment(arguments)
    if arguments.adapter is not None:
        hub.folder(arguments.adapter, say=note)
        if arguments.model is None:
            arguments.model = adapter_base(arguments.adapter)
            note(f"base model of the adapter: {arguments.model or 'the bundled demo model'}")
    for name in (arguments.model, getattr(arguments, "draft", None)):
        if name is not None:
            hub.folder(name, say=note)
    if arguments.prefix is not None:
        hub.folder(arguments.prefix, "state", say=note)


def loading_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `load` and `load_parts` take besides `arguments.model`, which is decided here too (`find_model`); sets the
    number of threads.

    Raises:
        InputError: there is no such device, or less than one thread.
        CheckpointError: a model cannot be found or downloaded.
    """
    if arguments.threads is not None and arguments.threads < 1:
        raise InputError(f"--threads {arguments.threads}: must be at least 1")
    import torch

    from chatglm.loading import check_device

    quieten()
    _use_threads(arguments.threads)
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(device)
    find_model(arguments)
    dtype = arguments.dtype or "auto"
    if dtype == "auto" and torch.device(device).type == "cpu":
        # fp16 arithmetic is slow and inexact on CPUs; the small model can use float32.
        dtype = "float32" if arguments.model is None else arguments.dtype_on_cpu
    return {
        "adapter": arguments.adapter,
        "prefix": arguments.prefix,
        "huge_pages": bool(arguments.huge_pages),
        "device": device,
        "dtype": dtype,
    }


def _engine_options(arguments: argparse.Namespace, device: str) -> dict[str, Any]:
    import torch

    from chatglm.kernels import native

    options: dict[str, Any] = {"draft": arguments.draft}
    if arguments.kv_cache not in (None, "auto"):
        options["store"] = getattr(torch, arguments.kv_cache)
    elif arguments.model is None and torch.device(device).type == "cpu":
        # The small model computes in float32, and keeps what it has read as models of half precision do.
        options["store"] = native.store_of_two_bytes()
    if arguments.kv_memory is not None:
        if not 0 < arguments.kv_memory < 1 << 20:
            raise InputError(f"--kv-memory {arguments.kv_memory:g}: must be more than 0 GiB")
        options["memory"] = int(arguments.kv_memory * (1 << 30))
    return options


def _use_threads(count: int | None) -> None:
    """Set one number of threads for the native kernels and torch; more threads than CPUs would wait for one another."""
    import torch

    from chatglm.kernels import native

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if count is not None and count > cpus:
        note(f"--threads {count}: this process has {cpus} CPUs; {cpus} threads are used")
        count = cpus
    if count is not None:
        native.set_threads(count)
    elif not os.environ.get("CHATGLM_NUM_THREADS"):
        return  # each has a default of its own, torch's by OMP_NUM_THREADS too
    torch.set_num_threads(count or native.info().threads)
