"""`chatglm serve`: a model behind OpenAI's HTTP dialect and `api.py`'s."""

from __future__ import annotations

import argparse
from typing import Any

from chatglm.errors import DependencyError, InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", metavar="FOLDER", help="checkpoint folder in an official layout (default: the bundled demo model)"
    )
    parser.add_argument("--adapter", metavar="FOLDER", help="PEFT adapter (LoRA …) to put on the model")
    parser.add_argument("--prefix", metavar="PATH", help="P-tuning v2 state: the folder or file that training wrote")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: a GPU if there is one, else the CPU")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "float16", "bfloat16"),
        default="auto",
        help="precision of the weights; auto: the checkpoint's on a GPU, bfloat16 on a CPU",
    )
    parser.add_argument(
        "--remote", metavar="URL", help="stand in front of an OpenAI-compatible endpoint (http://host:8000/v1) instead"
    )
    parser.add_argument("--remote-model", metavar="NAME", help="the model's name there (default: the first it lists)")
    parser.add_argument(
        "--name",
        action="append",
        metavar="NAME",
        help="what requests call it; may be repeated (default: the folder's name)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: all (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free (default: %(default)s)")
    parser.add_argument(
        "--drain",
        type=float,
        default=30,
        metavar="SECONDS",
        help="after SIGTERM, so long may running answers take to finish (default: %(default)g)",
    )


def run(arguments: argparse.Namespace) -> int:
    try:
        import uvicorn

        from chatglm.serving.app import create_app
    except ImportError as error:
        raise DependencyError(f"{error.name} is needed to serve: pip install 'chatglm[serve]'") from None
    if not 0 <= arguments.port < 65536:
        raise InputError(f"--port {arguments.port}: must be from 0 to 65535")
    if arguments.drain < 0:
        raise InputError(f"--drain {arguments.drain:g}: must not be negative")
    with _assistant(arguments) as assistant:
        names = arguments.name or [_name(arguments)]
        app = create_app(dict.fromkeys(names, assistant))
        # uvicorn stops at SIGTERM and SIGINT: no new connections, running answers go on until the limit.
        uvicorn.run(
            app,
            host=arguments.host,
            port=arguments.port,
            timeout_graceful_shutdown=max(1, round(arguments.drain)),
            server_header=False,
        )
    return 0


def _name(arguments: argparse.Namespace) -> str:
    from pathlib import Path

    if arguments.remote:
        return str(arguments.remote_model or "remote")
    return Path(arguments.model).resolve().name if arguments.model else "demo"


def _assistant(arguments: argparse.Namespace) -> Any:
    if arguments.remote:
        from chatglm.assistant import RemoteAssistant

        for name in ("model", "adapter", "prefix", "device"):
            if getattr(arguments, name) is not None:
                raise InputError(f"--{name}: not with --remote, whose endpoint has a model of its own")
        return RemoteAssistant(arguments.remote, arguments.remote_model)
    import torch

    from chatglm.assistant import Assistant

    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = arguments.dtype
    if dtype == "auto" and torch.device(device).type == "cpu":
        # fp16 arithmetic is slow and coarse on CPUs; the small model can afford the best.
        dtype = "float32" if arguments.model is None else "bfloat16"
    return Assistant.load(
        arguments.model, adapter=arguments.adapter, prefix=arguments.prefix, device=device, dtype=dtype
    )
