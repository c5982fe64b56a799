"""Limits of a model's code, and the result of a cell."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Cell", "Limits"]

_MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Limits of one kernel. Sizes are bytes, times are seconds.

    Attributes:
        memory: of all its processes together (proportional set size, page tables).
        file, folder, files: the largest file; all files of the conversation's folder together; how many files and
            folders it has. `file` 0: no file can be written; `files` 0: none can be made.
        processes: at once, threads included.
        open_files: of each process.
        seconds, cpu: of one cell, by the clock and of processors.
        idle_cpu: of processors, between cells.
        shown: text of one cell that people get.
        told: characters of it that the model gets.
        output, parts: text of one cell at which it is ended; results, tracebacks and pictures at which it is.
        pictures, picture, side: pictures of one cell; bytes, and pixels of each side, of one.
    """

    memory: int = 1024 * _MIB
    file: int = 256 * _MIB
    folder: int = 512 * _MIB
    files: int = 5_000
    processes: int = 64
    open_files: int = 256
    seconds: float = 60.0
    cpu: float = 120.0
    idle_cpu: float = 5.0
    shown: int = 64 << 10
    told: int = 1_024
    output: int = 64 * _MIB
    parts: int = 20_000
    pictures: int = 20
    picture: int = 4 * _MIB
    side: int = 4_096


@dataclass(frozen=True)
class Cell:
    """The result of a cell.

    Attributes:
        text: what it printed and its results, in their order, cut to `Limits.shown`.
        pictures: PNG files, checked.
        files: names of files that it made or changed, beneath the conversation's folder.
        error: the traceback of the exception that ended it; "" if none did.
        ended: why the kernel was ended, and with it all variables; "" if it goes on.
        seconds: that it took.
    """

    text: str = ""
    pictures: tuple[bytes, ...] = ()
    files: tuple[str, ...] = ()
    error: str = ""
    ended: str = ""
    seconds: float = 0.0
