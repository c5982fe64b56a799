"""Starts a kernel, checks its use of resources every 0.2 s, and ends it, in a thread that no event loop can block.

The figures come from proc(5). Memory is the proportional set size (pages that several processes share count once) plus
the page tables. The processor time of children that lived for less than 0.2 s and were not waited for is not counted.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from chatglm.errors import ChatGLMError, SandboxError
from chatglm.tools.interpreter.folder import DEPTH, Folder, Usage
from chatglm.tools.interpreter.limits import Limits
from chatglm.tools.interpreter.sandbox import Confined, Tier, open_files, places, start

__all__ = ["Watchdog"]

PERIOD = 0.2
GRACE = 2.0
"""Seconds from an interrupt to the end of a kernel that ignores it."""
_MIB = 1 << 20
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PROC = os.path.isdir("/proc/self")


class Watchdog(threading.Thread):
    """Watches one kernel's process.

    Args:
        folder: the conversation's folder.
        on_end: called once, in this thread, when the kernel and all its processes have ended.

    Attributes:
        started: future of the started sandbox, or of the error.
        ended: why the kernel was ended; "" while it lives.
        stopped: why the running cell was interrupted; "" if it was not.
    """

    def __init__(self, folder: Folder, limits: Limits, tier: Tier | None, on_end: Callable[[], None]) -> None:
        super().__init__(name="chatglm-kernel", daemon=True)
        self.started: Future[Confined] = Future()
        self.ended = ""
        self.stopped = ""
        self._folder = folder
        self._limits = limits
        self._tier = tier
        self._on_end = on_end
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._reason = ""
        self._shell = 0  # process id of the shell, as seen from outside
        self._until = self._end_at = self._again_at = self._lost_at = float("inf")
        self._cpu = _Processors()
        self._allowed = float("inf")  # processor seconds
        self._resting = True
        self._before: Usage | None = None
        self._walked = 0.0  # time of the last check of the folder
        self._walk_took = 0.0
        self._cpu_at_walk = -1.0

    # Called by the event loop's thread.

    def cell(self, before: Usage) -> None:
        """Note that a cell begins.

        Args:
            before: size of the folder. If it is over a limit, the cell may still run, to remove files. It must not add
                any, so the kernel must be one that cannot write (see `Kernel`).
        """
        with self._lock:
            self._before = before
            self.stopped, self._resting = "", False
            self._until = time.monotonic() + self._limits.seconds
            self._again_at = self._end_at = float("inf")
            self._allowed = self._cpu.used + self._limits.cpu
            self._cpu_at_walk = -1.0

    def check(self) -> None:
        """Check the folder now, at the end of a cell, because a short cell has perhaps never been checked. Blocks."""
        if self._reason or self._before is None:
            return
        if why := self._overfull(self.started.result().processes(), self._before):
            self.end(why)

    def rest(self) -> None:
        """Note that no cell runs now."""
        with self._lock:
            self._resting = True
            self._until = self._again_at = self._end_at = float("inf")
            self._allowed = self._cpu.used + self._limits.idle_cpu

    def interrupt(self, reason: str) -> None:
        """Send SIGINT to the shell and its child processes. If the cell runs on after `GRACE`, the kernel is ended."""
        with self._lock:
            self._interrupt(reason)

    def end(self, reason: str) -> None:
        """End the kernel soon. If it is called again, the first reason is kept."""
        self._reason = self._reason or reason
        self._wake.set()

    def lost(self) -> None:
        """Note that the kernel has closed its end of the socket. If its process does not end by itself, it is ended."""
        with self._lock:
            self._lost_at = min(self._lost_at, time.monotonic())
        self._wake.set()

    @property
    def ending(self) -> str:
        """Why the kernel is being ended, or was ended; "" if neither."""
        return self._reason

    def found(self, inside: int) -> None:
        """Find the shell among the kernel's processes.

        Args:
            inside: the shell's process id inside the sandbox.
        """
        confined = self.started.result()
        self._shell = next((pid for pid in confined.processes() if _number_inside(pid) == inside), 0)

    # Run in this thread.

    def run(self) -> None:
        try:
            confined = start(self._folder.path, self._limits, tier=self._tier)
        except Exception as error:
            failure = error if isinstance(error, ChatGLMError) else SandboxError(f"the sandbox did not start: {error}")
            self.ended = str(failure)
            self.started.set_exception(failure)
            self._on_end()
            return
        self.started.set_result(confined)
        try:
            while not self._reason:
                if self._wake.wait(PERIOD):
                    self._wake.clear()
                if not self._reason and (why := self._look(confined)):
                    self.end(why)
        except Exception as error:
            self._reason = f"it can no longer be watched ({type(error).__name__}: {error})"
        finally:
            try:
                confined.end()
            finally:
                self.ended = self._reason
                self._on_end()

    def _interrupt(self, reason: str) -> None:
        if self.stopped or self._resting:
            return
        self.stopped = reason
        now, self._until = time.monotonic(), float("inf")
        self._again_at, self._end_at = now + GRACE / 4, now + GRACE
        self._signal()

    def _signal(self) -> None:
        for pid in _below(self._shell, self.started.result().processes()):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGINT)

    def _look(self, confined: Confined) -> str:
        """The reason why the kernel must be ended; "" if there is none."""
        status = confined.process.poll()
        if status is not None:
            return _gone(status)
        now = time.monotonic()
        if now - self._lost_at > PERIOD:
            return "it closed its connection to the host"
        pids = confined.processes()
        with self._lock:
            before, used = self._cpu.used, self._cpu.add(pids)
            quiet = self._resting and used == before
            if used > self._allowed:
                limit = self._limits.idle_cpu if self._resting else self._limits.cpu
                return f"more than {limit:g} s of processor time {'between cells' if self._resting else 'in one cell'}"
            if now >= self._until:
                self._interrupt(f"the time limit of {self._limits.seconds:g} s")
            if now >= self._again_at:  # the shell may not have begun the cell at the first signal
                self._again_at = float("inf")
                self._signal()
            if now >= self._end_at:
                return f"it did not stop within {GRACE:g} s after it was interrupted ({self.stopped})"
        if quiet:  # a stopped process uses no time
            return ""
        return self._over_memory(pids, confined.shared()) or self._over_folder(pids, used, now)

    def _over_memory(self, pids: Sequence[int], shared: int) -> str:
        memory = sum(map(_memory, pids)) + shared
        if memory > self._limits.memory:
            return f"more than {self._limits.memory // _MIB} MiB of memory ({memory // _MIB} MiB)"
        return ""

    def _over_folder(self, pids: Sequence[int], used: float, now: float) -> str:
        before = self._before
        if before is None or used == self._cpu_at_walk or now - self._walked < 10 * self._walk_took:
            return ""  # nothing ran since then, or checks would take more than a tenth of the time
        why = self._overfull(pids, before)
        self._walked, self._walk_took, self._cpu_at_walk = now, time.monotonic() - now, used
        return why

    def _overfull(self, pids: Sequence[int], before: Usage) -> str:
        files, room = max(self._limits.files, before.number), max(self._limits.folder, before.size)
        usage = self._folder.usage(files)
        size = usage.size + _unnamed(pids, self._folder.device)
        if usage.number > files:
            return f"more than {files} files and folders in its folder"
        if usage.depth > max(DEPTH - 1, before.depth):
            return f"folders nested {DEPTH} deep in its folder"
        if size > room:
            return f"more than {room // _MIB} MiB in its folder ({size // _MIB} MiB)"
        return ""


class _Processors:
    """Processor seconds of a tree of processes, including ended ones that were waited for."""

    def __init__(self) -> None:
        self.used = 0.0
        self._before = 0.0

    def add(self, pids: Sequence[int]) -> float:
        now = sum(fields[0] for pid in pids if (fields := _stat(pid)))
        # The time of a process that was not waited for is lost when it ends, so the sum can become smaller.
        self.used += max(0.0, now - self._before)
        self._before = now
        return self.used


class _Fields(NamedTuple):
    seconds: float
    parent: int


def _stat(pid: int) -> _Fields | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return _Fields(sum(map(int, fields[11:15])) / _TICKS, int(fields[1]))


def _memory(pid: int) -> int:
    """Bytes of a process: its share of pages, in memory or swapped out, and its page tables."""
    for place in places(pid):
        with contextlib.suppress(OSError):
            try:
                share = _kilobytes(f"{place}/smaps_rollup", (b"Pss:", b"SwapPss:"))
            except PermissionError:  # counts shared pages in full, but everybody may read it
                share = _kilobytes(f"{place}/status", (b"RssAnon:", b"RssShmem:", b"VmSwap:"))
            if share:  # else this thread has ended
                return 1024 * (share + _kilobytes(f"{place}/status", (b"VmPTE:",)))
    return 0


def _kilobytes(path: str, names: tuple[bytes, ...]) -> int:
    with open(path, "rb") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(names))


def _unnamed(pids: Sequence[int], device: int) -> int:
    """Bytes on the disk of deleted files that are still open or mapped, which are not in the folder any more."""
    files: dict[int, int] = {}
    for pid in pids:
        for path in open_files(pid):
            with contextlib.suppress(OSError):
                status = os.stat(path)
                if status.st_nlink == 0 and status.st_dev == device and stat.S_ISREG(status.st_mode):
                    files[status.st_ino] = status.st_blocks * 512
    where = f"{os.major(device):02x}:{os.minor(device):02x}".encode()
    mapped: dict[tuple[int, bytes], int] = {}  # by file and offset, because processes may share a mapping
    for pid in pids:
        for line in _maps(pid):
            if line.endswith(b"(deleted)\n"):
                span, _, offset, at, number = line.split(maxsplit=5)[:5]
                if at == where and int(number) not in files:
                    begin, end = (int(address, 16) for address in span.split(b"-"))
                    mapped[int(number), offset] = end - begin
    return sum(files.values()) + sum(mapped.values())


def _maps(pid: int) -> Iterator[bytes]:
    """Lines of a process's list of mappings."""
    for place in places(pid):
        with contextlib.suppress(OSError), open(f"{place}/maps", "rb") as maps:
            if first := maps.readline():
                yield first
                yield from maps
                return


def _number_inside(pid: int) -> int:
    """A process's id in its own namespace; 0: unknown."""
    if not _PROC:
        return pid
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"NSpid:"):
                    return int(line.split()[-1])
    except OSError:
        pass
    return 0


def _below(top: int, pids: Sequence[int]) -> list[int]:
    """A process and all its descendants among the given ones."""
    if not top or top not in pids:
        return []
    parents = {pid: fields.parent for pid in pids if (fields := _stat(pid))}
    found, new = [], [top]
    while new:
        found += new
        new = [pid for pid, parent in parents.items() if parent in new and pid not in found]
    return found


def _gone(status: int) -> str:
    if status < 0 or status > 128:
        number = -status if status < 0 else status - 128
        with contextlib.suppress(ValueError):
            return f"its process was ended by {signal.Signals(number).name}"
    return f"its process ended itself (exit status {status})"
