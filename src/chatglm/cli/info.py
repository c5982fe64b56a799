"""chatglm info: facts about this machine and this installation, which kernels are in use and why, and how the code of a
model would be confined."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
from typing import Any

from chatglm.cli.models import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of the list")


def run(arguments: argparse.Namespace) -> int:
    found = collect()
    if arguments.json:
        print_json(found)
        return 0
    width = max(map(len, found))
    for name, value in found.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        print(f"{name:<{width}}  {shown if shown not in (None, '') else 'none'}")
    return 0


def collect() -> dict[str, Any]:
    import torch
    from huggingface_hub import constants

    from chatglm import __version__
    from chatglm.errors import CheckpointError
    from chatglm.hub import cached
    from chatglm.kernels import cuda, native
    from chatglm.loading import demo_folder
    from chatglm.tools.interpreter.sandbox import protection

    kernels, on_cuda, sandbox = native.info(), cuda.info(), protection()
    try:
        demo: str | None = str(demo_folder())
    except CheckpointError:
        demo = None
    return {
        "chatglm": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": importlib.metadata.version("transformers"),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cuda": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())],
        "kernels": kernels.variant,
        "selected because": kernels.reason,
        "kernels here": [*kernels.variants, "reference"],
        "threads": kernels.threads,
        "cuda kernels": on_cuda.variant,
        "cuda selected because": on_cuda.reason,
        "library": str(kernels.path) if kernels.path else None,
        "demo model": demo,
        "sandbox": sandbox.tier,
        **{f"sandbox: {layer}": reason or "works" for layer, reason in sandbox.layers.items()},
        "hub": f"{constants.ENDPOINT}{' (offline)' if constants.HF_HUB_OFFLINE else ''}",
        "models in the cache": cached(),
    }


def _cpu() -> str:
    """The name of the CPU, if the system knows it, and the number of CPUs."""
    name = ""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        name = platform.processor()
    return f"{name or platform.machine()}, {os.cpu_count()} logical"
