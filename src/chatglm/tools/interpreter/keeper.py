"""The parent of a kernel without a process namespace: `python keeper.py COMMAND…`.

Orphaned descendants become its children, so no process escapes by forking twice. The keeper ends all of them when it
gets SIGTERM, when the program that started it ends, and when the command ends. It is outside of the command's Landlock
domain, so the command cannot send signals to it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

__all__ = ["below"]

_DEATH_SIGNAL, _DUMPABLE, _SUBREAPER = 1, 4, 36  # linux/prctl.h
_PATIENCE = 5.0  # seconds until it gives up on processes that do not die


def below(root: int) -> list[int]:
    """Descendants of a process, parents first, without itself."""
    found: list[int] = []
    ahead = [root]
    while ahead:
        new = [child for parent in ahead for child in _children(parent)]
        found += new
        ahead = new
    return found


def _children(parent: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{parent}/task"):
            with contextlib.suppress(OSError):
                found += map(int, Path(f"/proc/{parent}/task/{thread}/children").read_bytes().split())
    return found


def _end(status: int) -> None:
    """Kill all descendants until none is left, because a process may fork while the list is read. Then exit."""
    give_up = time.monotonic() + _PATIENCE
    while time.monotonic() < give_up:
        for process in below(os.getpid()):
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            os._exit(status)
        time.sleep(0.001)
    os._exit(1)


def _keep(command: list[str]) -> None:
    libc = ctypes.CDLL(None)
    started_by = os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: _end(128 + signal.SIGTERM))
    libc.prctl(_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)
    libc.prctl(_DUMPABLE, 0, 0, 0, 0)
    if os.getppid() != started_by:  # the starting program died before this was set
        os._exit(1)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.execv(command[0], command)
    gone, status = os.wait()
    while gone != child:
        gone, status = os.wait()
    code = os.waitstatus_to_exitcode(status)
    _end(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    _keep(sys.argv[1:])
