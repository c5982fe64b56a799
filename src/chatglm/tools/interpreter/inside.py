"""The first program in the sandbox: it takes rights away from itself, then becomes the kernel.

Run as `python -I inside.py` with a policy as JSON on its standard input (made by `sandbox.py`). It knows the standard
library and the files beside it, which import nothing of this package but each other.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import types
from typing import Any

_DEATH_SIGNAL, _DUMPABLE, _NO_NEW_PRIVILEGES = 1, 4, 38  # linux/prctl.h


def main() -> None:
    policy: dict[str, Any] = json.load(sys.stdin)
    beside = _files_beside()
    try:
        _close_files({policy["channel"], policy["status"]})
        _restrict(policy, beside)
    except Exception as error:
        os.write(policy["status"], f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os.write(policy["status"], b"\n")
    os.close(policy["status"])
    sys.argv = [""]
    sys.path += [path for path in policy["packages"] if path not in sys.path]
    shell = importlib.import_module(f"{beside}.shell")
    shell.prepare(policy)
    shell.serve(policy["channel"])


def _files_beside() -> str:
    """The name of a package of the files beside this one: their folder is on no path where a cell's code could import
    from, and hides no module of the same name."""
    package = types.ModuleType("_chatglm_interpreter")
    package.__path__ = [os.path.dirname(os.path.abspath(__file__))]
    sys.modules[package.__name__] = package
    return package.__name__


def _close_files(kept: set[int]) -> None:
    """Keep standard output and error, and what is named; standard input becomes empty."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    highest = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 16)
    low = 3
    for number in sorted(kept):
        os.closerange(low, number)
        low = number + 1
    os.closerange(low, highest)


def _restrict(policy: dict[str, Any], beside: str) -> None:
    with contextlib.suppress(OSError):
        os.chdir(policy["folder"])
    if policy["tier"] == "none":
        return
    for name, value in policy["rlimits"].items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
    os.nice(policy["nice"])
    if policy["uid"] is not None:  # started by root: with root's id all its capabilities go
        os.setgroups([])
        os.setresgid(policy["uid"], policy["uid"], policy["uid"])
        os.setresuid(policy["uid"], policy["uid"], policy["uid"])
    libc = ctypes.CDLL(None)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    libc.prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_DUMPABLE, 0, 0, 0, 0)
    if policy["landlock"] is not None:
        importlib.import_module(f"{beside}.landlock").restrict(policy["landlock"], policy["abi"])


if __name__ == "__main__":
    main()
