"""Limits of a model's code, and the result of a cell."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Cell", "Limits"]

_MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Limits of one kernel. Sizes are in bytes, times in seconds.

    Attributes:
        memory: memory of all its processes together (proportional set size, page tables).
        file: size of a file; 0: no file can be written.
        folder: size of all files in the conversation's folder.
        files: number of files and folders in that folder; 0: none can be made.
        processes: number of processes and threads at once.
        open_files: number of open files of each process.
        seconds, cpu: time of one cell, and its processor time.
        idle_cpu: processor time between two cells.
        shown: size of one cell's text for people.
        told: number of characters of one cell's text for the model.
        output: size of one cell's output; beyond it, the kernel is ended.
        parts: number of one cell's results, tracebacks and pictures; beyond it, the kernel is ended.
        pictures: number of pictures of one cell that are kept.
        picture, side: size of a picture, and pixels of each side; larger ones are left out.
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
        text: its output and results in order, cut to `Limits.shown`.
        pictures: PNG files, checked.
        files: paths, in the conversation's folder, of files that it made or changed.
        error: the traceback of the exception that ended it; "" if none did.
        ended: why the kernel was ended, so that all variables are lost; "" if it was not.
        seconds: duration of the cell.
    """

    text: str = ""
    pictures: tuple[bytes, ...] = ()
    files: tuple[str, ...] = ()
    error: str = ""
    ended: str = ""
    seconds: float = 0.0
