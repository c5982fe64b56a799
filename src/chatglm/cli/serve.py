"""`chatglm serve`: a model behind OpenAI's HTTP dialect and `api.py`'s."""

from __future__ import annotations

import argparse

from chatglm.cli.models import add_assistant_arguments, model_name, open_assistant
from chatglm.errors import DependencyError, InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_assistant_arguments(parser)
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
    with open_assistant(arguments) as assistant:
        names = arguments.name or [model_name(arguments)]
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
