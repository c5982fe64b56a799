"""The first program in the sandbox: it gives up its rights, and then becomes the kernel.

It is run as `python -I inside.py`, with a policy as JSON on standard input (made by `sandbox.py`). It uses only the
standard library and the files in its folder, which import nothing of this package.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
import signal
import struct
import sys
import types
from typing import Any

# linux/prctl.h, linux/capability.h
_DEATH_SIGNAL, _DUMPABLE, _KEEP_CAPABILITIES, _NO_NEW_PRIVILEGES, _AMBIENT, _RAISE = 1, 4, 8, 38, 47, 2
_READ_ANYTHING = 2  # CAP_DAC_READ_SEARCH
_CAPABILITIES_VERSION = 0x20080522


def main() -> None:
    policy: dict[str, Any] = json.load(sys.stdin)
    beside = _files_beside()
    status = policy["status"]
    try:
        _close_files({policy["channel"], status})
        if policy["tier"] == "none":
            _die_with_parent()
        else:
            _restrict(policy, beside)
        os.chdir(policy["folder"])
        if policy["scratch"].startswith(policy["folder"]):
            os.mkdir(policy["scratch"], 0o700)
        if policy["trial"]:
            _filter(policy, beside)
    except Exception as error:
        os.write(status, f"{error}\n".encode("utf-8", "replace")[:4096])
        os._exit(1)
    os.write(status, b"\n")
    os.close(status)
    if policy["trial"]:
        os._exit(0)
    sys.argv = [""]
    sys.path += [path for path in policy["packages"] if path not in sys.path]
    shell = importlib.import_module(f"{beside}.shell")
    shell.prepare(policy)
    if policy["tier"] != "none":
        _filter(policy, beside)
    shell.serve(policy["channel"])


def _files_beside() -> str:
    """Make a package of the files in this folder, and return its name. The folder is not on the import path, so that a
    cell cannot import them, and they hide no module of the same name.
    """
    package = types.ModuleType("_chatglm_interpreter")
    package.__path__ = [os.path.dirname(os.path.abspath(__file__))]
    sys.modules[package.__name__] = package
    return package.__name__


def _close_files(kept: set[int]) -> None:
    """Close all files except standard output, standard error and the given ones. Standard input becomes empty."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    low = 3
    for number in sorted(kept):
        os.closerange(low, number)
        low = number + 1
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    os.closerange(low, most if 0 < most < 1 << 20 else 1 << 20)


def _restrict(policy: dict[str, Any], beside: str) -> None:
    """Apply all layers except the filter of system calls, because libraries must be loaded before it."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # if the machine has no memory left, this process is killed first
    os.nice(policy["nice"])
    with _layer("limits"):
        for name, value in policy["rlimits"].items():
            kind = getattr(resource, f"RLIMIT_{name}")
            hard = resource.getrlimit(kind)[1]
            given = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (given, given))
    with _layer("namespaces"):
        if policy["uid"] is not None:
            _become(policy["uid"], policy["reads"])
    libc = ctypes.CDLL(None)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    libc.prctl(_DUMPABLE, int(policy["dumpable"]), 0, 0, 0)
    _die_with_parent()
    if policy["landlock"] is not None:
        with _layer("landlock"):
            importlib.import_module(f"{beside}.landlock").restrict(policy["landlock"], policy["abi"])


def _filter(policy: dict[str, Any], beside: str) -> None:
    if policy["signals"] is not None:
        with _layer("seccomp"):
            seccomp = importlib.import_module(f"{beside}.seccomp")
            allowed = {name: policy[name] for name in ("attributes", "creates")}
            seccomp.load(seccomp.program(policy["signals"], os.getpid(), **allowed))


@contextlib.contextmanager
def _layer(name: str) -> Any:
    """Put the name of the layer in front of an error's message."""
    try:
        yield
    except Exception as error:
        raise RuntimeError(f"{name}: {error}") from error


def _become(uid: int, reads: bool) -> None:
    """Change to another user id, if root started the program. All capabilities of root are lost.

    Args:
        reads: keep the capability to read folders that are closed to others, for a Python in root's home. Landlock
            limits which folders can be read.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    libc.prctl(_KEEP_CAPABILITIES, int(reads), 0, 0, 0)
    os.setresuid(uid, uid, uid)
    kept = 1 << _READ_ANYTHING if reads else 0
    header = struct.pack("Ii", _CAPABILITIES_VERSION, 0)
    if libc.capset(header, struct.pack("6I", kept, kept, kept, 0, 0, 0)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if reads:
        libc.prctl(_AMBIENT, _RAISE, _READ_ANYTHING, 0, 0)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    main()
