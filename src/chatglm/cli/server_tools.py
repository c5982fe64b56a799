"""Tools on the command line: tools that a model may call, and tools that `chatglm serve` runs for requests."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from chatglm.errors import InputError, SandboxError

if TYPE_CHECKING:
    from chatglm.tools.interpreter.pool import Kernels
    from chatglm.tools.toolbox import Toolbox

__all__ = ["KEPT", "add_source_arguments", "add_tool_arguments", "only_here", "open_kernels", "open_tools"]

KEPT = 16
"""Most folders of the interpreter that are kept for one user; each may have 512 MiB (`Limits.folder`)."""


def add_source_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    """Give a command `--tools`, which may be repeated: `Toolbox.open` takes its list.

    Args:
        what: beginning of the help: what the tools are for.
    """
    parser.add_argument(
        "--tools",
        action="append",
        default=[],
        metavar="FILE",
        help=f"{what}a Python file, which is run with this program's rights; an OpenAPI document; a YAML file with MCP "
        "servers; or `examples` for the built-in ones (docs/tools.md); may be repeated",
    )


def add_tool_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a server the options that `open_tools` reads."""
    add_source_arguments(
        parser,
        "run these tools on the server, for requests that name them (`server_tools`) and API keys that may use them: ",
    )
    parser.add_argument(
        "--tools-without-asking",
        action="store_true",
        help="also offer tools that need a person's consent: on a server there is nobody to ask (default: they are "
        "refused)",
    )
    parser.add_argument(
        "--interpreter",
        nargs="?",
        const="auto",
        default="off",
        choices=("auto", "full", "confined", "off"),
        help="run the model's Python code on the server, in a sandbox, for requests that ask for it and keys that may "
        "use it. auto: the best sandbox of this machine; if other machines can reach the server, it must be full. "
        "confined: a sandbox without namespaces is enough (default: off; without a value: auto)",
    )


@contextlib.contextmanager
def open_tools(
    arguments: argparse.Namespace, addresses: Sequence[socket.socket], home: Path | None = None
) -> Iterator[tuple[Toolbox | None, Kernels | None]]:
    """The tools that the command line asks for, and where the interpreter's code runs.

    Args:
        addresses: where the server will listen.
        home: where folders of the interpreter are kept; None: they are temporary.

    Raises:
        InputError: options contradict each other. ToolError: a source of tools is wrong.
        SandboxError: this machine has no sufficient sandbox.
        DependencyError: a package is missing.
    """
    if arguments.tools_without_asking and not arguments.tools:
        raise InputError("--tools-without-asking: there are no tools; add --tools FILE")
    kernels = None if arguments.interpreter == "off" else open_kernels(arguments.interpreter, addresses, home)
    with contextlib.ExitStack() as stack:
        box = None
        if arguments.tools:
            from chatglm.tools.toolbox import Toolbox

            box = stack.enter_context(Toolbox.open(arguments.tools))
        yield box, kernels


def only_here(addresses: Sequence[socket.socket]) -> bool:
    """Whether only this machine itself can reach these sockets."""
    return all(ipaddress.ip_address(one.getsockname()[0].partition("%")[0]).is_loopback for one in addresses)


def open_kernels(wanted: str, addresses: Sequence[socket.socket], home: Path | None = None) -> Kernels:
    """
    Args:
        wanted: the tier of the sandbox, or `auto`.
        home: where folders are kept; None: they are temporary.

    Raises:
        SandboxError: this machine has no sufficient sandbox.
    """
    from chatglm.tools.interpreter.pool import Kernels
    from chatglm.tools.interpreter.sandbox import protection

    found = protection()
    missing = "; ".join(f"{layer}: {reason}" for layer, reason in found.layers.items() if reason)
    if found.tier == "none":
        raise SandboxError(f"--interpreter: the model's code cannot be confined on this machine ({missing})")
    if found.tier == "confined" and (wanted == "full" or (wanted == "auto" and not only_here(addresses))):
        raise SandboxError(
            f"--interpreter {wanted}: this machine's sandbox has no namespaces ({missing})"
            + ("" if wanted == "full" else ", and others reach the server; add --interpreter confined if it is enough")
        )
    return Kernels(home, kept=KEPT)
