"""Engines in processes of their own, one at work at a time, and the probe that runs between their slices."""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatglm.models.memory import read_in

__all__ = ["Peer", "Probe", "Reading", "Worker", "WorkerError", "available", "cpu_times", "drop", "running", "touch"]

WORKERS = Path(__file__).resolve().parent / "workers"
PROBE_MS = 150
PATIENCE_S = 900


@dataclass(frozen=True)
class Peer:
    """An engine: the interpreter and script that run it, its model, and options of the script.

    Args:
        small_pages: the page cache is to hold the model in pages of 4 KiB.
    """

    name: str
    python: str
    script: str
    model: str
    options: tuple[str, ...] = ()
    small_pages: bool = False

    @property
    def command(self) -> list[str]:
        return [self.python, str(WORKERS / self.script), self.model, *self.options]


@dataclass(frozen=True)
class Reading:
    """Read bandwidth, GB/s."""

    best: float
    median: float


class Probe:
    """The running probe.c."""

    def __init__(self, program: Path, threads: int) -> None:
        self._process = subprocess.Popen(
            [program, str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._latest: tuple[float, Reading] | None = None
        self.readings: list[Reading] = []

    def read(self) -> Reading:
        """A reading not older than a moment."""
        if self._latest is None or time.monotonic() - self._latest[0] > 0.05:
            reading = Reading(*self._ask(f"read {PROBE_MS}"))
            self.readings.append(reading)
            self._latest = time.monotonic(), reading
        return self._latest[1]

    def peak(self) -> float:
        """Gop/s of int8 multiply-adds; 0 where there is no such instruction."""
        return self._ask("dot 400")[0]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, command: str) -> tuple[float, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        time.sleep(0.005)
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        best, median = map(float, self._process.stdout.readline().split())
        return best, median


class WorkerError(RuntimeError):
    """An engine that ended, or did not answer."""


class Worker:
    """A peer's process, stopped except while it works.

    Args:
        watch: sample its memory, which takes a little of the cores' time.
    """

    def __init__(self, peer: Peer, threads: int, log: Path, watch: bool = False) -> None:
        self.name = peer.name
        self._log = log
        environment = {**os.environ, "BENCH_THREADS": str(threads), "CHATGLM_NUM_THREADS": str(threads)}
        environment |= {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._begin = time.monotonic()
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                peer.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment
            )
        self.memory = Memory(self._process.pid) if watch else None
        try:
            times = self._answer()
        except BaseException:
            self.close()
            raise
        self.start_seconds = {
            "imports": times["imported"] - self._begin,
            "load and first token": times["first"] - times["imported"],
            "whole": times["first"] - self._begin,
        }
        self._signal(signal.SIGSTOP)

    def ask(self, command: str) -> dict[str, Any]:
        """Let it work on a command and wait for its answer."""
        assert self._process.stdin is not None
        self._signal(signal.SIGCONT)
        try:
            self._process.stdin.write(f"{command}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, as its answer will say
        answer = self._answer()
        self._signal(signal.SIGSTOP)
        return answer

    def cpu_ticks(self) -> int:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def in_huge_pages(self) -> int:
        """Bytes of its memory, its own and files', that it sees by pages of 2 MiB."""
        lines = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text().splitlines()
        kinds = "AnonHugePages:", "ShmemPmdMapped:", "FilePmdMapped:"
        return sum(int(line.split()[1]) for line in lines if line.startswith(kinds)) * 1024

    def close(self) -> None:
        if self.memory is not None:
            self.memory.stop()
        self._process.kill()
        self._process.communicate()

    def _signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE_S)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            last = [text for text in self._log.read_text(errors="replace").splitlines() if text.strip()][-1:]
            what = f"ended with {self._process.wait()}" if ready else f"no answer in {PATIENCE_S} s"
            raise WorkerError(f"{self.name}: {what}; {''.join(last)[-200:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Memory:
    """Peaks of a process' resident memory, sampled every 10 ms."""

    def __init__(self, pid: int) -> None:
        self.peak = {"resident": 0, "anonymous": 0, "file-backed": 0}
        self._status = Path(f"/proc/{pid}/status")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            try:
                fields = dict(line.split(":", 1) for line in self._status.read_text().splitlines())
                kilobytes = {name: int(fields[name].split()[0]) for name in ("RssAnon", "RssFile", "RssShmem")}
            except (OSError, KeyError):  # it has ended
                return
            now = {
                "resident": sum(kilobytes.values()) * 1024,
                "anonymous": kilobytes["RssAnon"] * 1024,
                "file-backed": (kilobytes["RssFile"] + kilobytes["RssShmem"]) * 1024,
            }
            self.peak = {name: max(value, now[name]) for name, value in self.peak.items()}


def cpu_times() -> tuple[int, int]:
    """Ticks that all CPUs were busy with, and that the host took away."""
    numbers = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _, _, irq, softirq, steal = numbers
    return user + nice + system + irq + softirq, steal


@contextmanager
def running(peers: Sequence[Peer], threads: int, logs: Path) -> Iterator[list[Worker]]:
    """Engines that are loaded and stopped; one that cannot be is named and left out."""
    with ExitStack() as stack:
        workers = []
        for peer in peers:
            touch(Path(peer.model), peer.small_pages)
            try:
                worker = Worker(peer, threads, logs / f"{peer.name}.log")
            except WorkerError as error:
                print(f"left out: {error}", flush=True)
                continue
            stack.callback(worker.close)
            workers.append(worker)
        for worker in workers:  # what loading the others pushed out of memory comes back
            worker.ask("start 1 32")
            worker.ask("decode 2")
        yield workers


def touch(path: Path, small_pages: bool = False) -> None:
    """Have a file, or a folder's files, in the page cache."""
    files = _files(path)
    if not small_pages:
        read_in(files)
        return
    for file in files:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            mapped.madvise(mmap.MADV_RANDOM)  # each page by itself
            mapped[:: mmap.PAGESIZE]


def drop(path: Path) -> None:
    """Have nothing of a folder's files in the page cache."""
    for file in _files(path):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _files(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else [path]


def available() -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024
