"""Where weights lie.

A checkpoint's file is mapped and used where it lies, which costs nothing at the start and is shared between processes.
But the system maps a file in pages of 4 KiB, and a core that streams through gigabytes of weights then waits for the
tables of those pages. Memory of the process itself can have pages of 2 MiB.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from chatglm.errors import InputError, UnsupportedError

__all__ = ["to_huge_pages"]

_HUGE = 2 << 20


def to_huge_pages(model: nn.Module) -> int:
    """Move a model's large tensors into memory of this process that the system maps by huge pages, where it can.

    One after the other: what has been moved out of a mapped file is no longer this process's memory, and stays in the
    system's cache.

    Returns:
        bytes that were moved.

    Raises:
        InputError: the model is not on the CPU.
        UnsupportedError: this system has no such pages that a program can ask for.
    """
    advice: int | None = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is None:
        raise UnsupportedError("huge_pages: this system has none that a program can ask for (Linux has); leave it out")
    moved: dict[tuple[int, torch.Size, torch.dtype], Tensor] = {}
    files = list(_mapped_files())
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type != "cpu":
            raise InputError(f"huge_pages: for a model on the CPU, not on {tensor.device}")
        if tensor.nbytes < _HUGE or not tensor.is_contiguous():
            continue
        key = tensor.data_ptr(), tensor.shape, tensor.dtype
        if key not in moved:
            moved[key] = _copy(tensor.detach(), advice)
            _release(tensor, files)
        tensor.data = moved[key]
    return sum(tensor.nbytes for tensor in moved.values())


def _copy(tensor: Tensor, advice: int) -> Tensor:
    size = tensor.nbytes + _HUGE  # older systems do not begin it on a huge page
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared memory, the default, has none
    memory.madvise(advice)
    start = -torch.frombuffer(memory, dtype=torch.uint8).data_ptr() % _HUGE
    made = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=start).view(tensor.shape)
    return made.copy_(tensor)


def _mapped_files() -> Iterator[range]:
    """Addresses at which files are mapped."""
    for line in Path("/proc/self/maps").read_text(errors="replace").splitlines():
        fields = line.split(maxsplit=5)
        if fields[4] != "0":  # the file's inode
            yield range(*(int(part, 16) for part in fields[0].split("-")))


def _release(tensor: Tensor, files: list[range]) -> None:
    """Let go of the pages of a mapped file that a tensor fills. Who reads there again gets the file's bytes."""
    page = mmap.PAGESIZE
    start, end = -(-tensor.data_ptr() // page) * page, (tensor.data_ptr() + tensor.nbytes) // page * page
    if any(start in file and end - 1 in file for file in files):
        libc = ctypes.CDLL(None)
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), ctypes.c_int(mmap.MADV_DONTNEED))
