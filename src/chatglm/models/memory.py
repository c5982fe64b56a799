"""Puts weights into huge pages.

A checkpoint's file is mapped, which takes no time at the start, and several processes share the memory. But a core that
reads gigabytes in pages of 4 KiB waits for the page tables. Pages of 2 MiB avoid this. There are two ways to get them:
the system may keep the file itself in such pages (`read_in`), or the weights are copied into memory of this process
(`to_huge_pages`). Addresses do not change in either case.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from tqdm import tqdm

from chatglm.errors import InputError, UnsupportedError

__all__ = ["read_back", "read_in", "to_huge_pages", "to_huge_pages_behind"]

_HUGE = 2 << 20
_PIECE = 64 << 20
"""Bytes that are copied at once: this much memory is needed in addition to the weights."""
_READERS = 4
"""Number of reads at the same time. One at a time would be slow, because each would wait for the one before."""

_READS_HUGE_PAGES = (5, 18)
"""Least version of Linux. With the same advice, older versions read every small page separately."""

# linux/mman.h; Python's mmap has no names for these.
_MADV_POPULATE_READ = 22  # Linux 5.14
_MADV_COLLAPSE = 25  # Linux 6.1
_MREMAP_TO = 1 | 2  # MAYMOVE | FIXED


def read_in(files: Iterable[Path]) -> int:
    """Let the system read files in pages of 2 MiB before they are mapped, except for parts that are in memory already.

    Otherwise a mapped file is read on access, a few KiB at a time, into pages of 4 KiB, which stay in use. With this
    function, file systems that support huge pages (XFS from Linux 5.18, ext4 from 6.16) keep the file in huge pages,
    for every process that maps it later; other file systems at least read large pieces. A terminal shows a progress
    bar. Parts that cannot be read in this way are read on access.

    Returns:
        number of bytes that were requested from the system.
    """
    if _linux() < _READS_HUGE_PAGES:
        return 0
    missing: list[tuple[_Mapping, int, int]] = []
    for file in files:
        try:
            mapping = _Mapping(file)
        except (OSError, ValueError):  # no such file, or an empty one, or it cannot be mapped
            continue
        missing += ((mapping, start, size) for start, size in mapping.missing())
    total = sum(size for _, _, size in missing)
    shown = tqdm(total=total, desc="reading weights", unit="B", unit_scale=True, leave=False, disable=None, delay=1)
    with shown as bar, ThreadPoolExecutor(_READERS) as pool:
        try:
            for size in pool.map(lambda block: block[0].read(block[1], block[2]), missing):
                bar.update(size)
        finally:
            pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for the rest
    return total


def read_back(model: nn.Module) -> None:
    """Read parts of a mapped model again that the system has removed from memory, in the same way as `read_in`."""
    if _linux() >= _READS_HUGE_PAGES:
        for span in _spans(model):
            if span.mapped:
                _read_huge_pages(span.start, span.size)


def to_huge_pages(model: nn.Module) -> int:
    """Move a model's large weights into huge pages, if the system has any.

    Parts of mapped files that are not in huge pages are copied, piece by piece, into memory of this process. Each copy
    replaces the original at the same address in one step, so other threads may read meanwhile; writes during the copy
    may be lost.

    Returns:
        number of bytes that were moved, or were in huge pages already.

    Raises:
        InputError: the model is not on the CPU.
        UnsupportedError: on this system, programs cannot request huge pages (it is not Linux).
    """
    spans = _spans(model)
    for span in spans:
        span.collapse()
    return sum(span.size for span in spans)


def to_huge_pages_behind(model: nn.Module) -> threading.Thread:
    """Run `to_huge_pages` in a thread with low priority, and return the thread. The model can be used meanwhile, but
    its weights must not change.

    Raises:
        InputError, UnsupportedError: see `to_huge_pages`; raised before the thread is started.
    """
    spans = _spans(model)
    kept = [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]  # nothing is unmapped meanwhile

    def work(_: list[Tensor]) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)  # on Linux, this is for this thread only
        for span in spans:
            span.collapse()

    thread = threading.Thread(target=work, args=(kept,), name="huge pages", daemon=True)
    thread.start()
    return thread


class _Mapping:
    """A file that is mapped to read it into memory."""

    def __init__(self, file: Path) -> None:
        with file.open("rb") as stream:
            self._map = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
            self._file = os.dup(stream.fileno())
            # For files of other users, the system does not tell which parts are in memory (mincore(2)).
            self._told = os.fstat(self._file).st_uid == os.geteuid() or os.access(file, os.W_OK)
        self._start = int(np.frombuffer(self._map, dtype=np.uint8).ctypes.data)
        _read_huge_pages(self._start, len(self._map))

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def missing(self) -> Iterator[tuple[int, int]]:
        """Positions and sizes of the blocks of 2 MiB that are not, or perhaps not, completely in memory."""
        for start in range(0, len(self._map), _HUGE):
            size = min(_HUGE, len(self._map) - start)
            if not self._told or not all(map(self._held, range(start, start + size, _HUGE // 4))):
                yield start, size

    def _held(self, place: int) -> bool:
        found = ctypes.c_uint8(0)
        _libc().mincore(self._start + place, 1, ctypes.byref(found))
        return bool(found.value & 1)

    def read(self, start: int, size: int) -> int:
        if self._told:  # removes what is in memory in small pages
            os.posix_fadvise(self._file, start, size, os.POSIX_FADV_DONTNEED)
        _libc().madvise(self._start + start, size, _MADV_POPULATE_READ)
        return size


@dataclass(frozen=True)
class _Span:
    """A range of addresses in bytes, of whole huge pages, and whether a file is mapped there."""

    start: int
    size: int
    mapped: bool

    def collapse(self) -> None:
        """Convert it to huge pages."""
        _libc().madvise(self.start, self.size, mmap.MADV_HUGEPAGE)
        # Newer systems convert it at once, some also if a file is mapped. Older ones convert it later, but not files.
        if _libc().madvise(self.start, self.size, _MADV_COLLAPSE) != 0 and self.mapped and not self._huge_in_file():
            for start in range(self.start, self.start + self.size, _PIECE):
                _replace(start, min(_PIECE, self.start + self.size - start))

    def _huge_in_file(self) -> bool:
        """Whether most of it is in huge pages of the file, as requested by `read_in`."""
        for place in range(self.start, self.start + self.size, _HUGE):
            ctypes.string_at(place, 1)  # only pages that were accessed are counted
        inside, held = False, 0
        for line in Path("/proc/self/smaps").read_text(errors="replace").splitlines():
            key, _, value = line.partition(" ")
            if not key.endswith(":"):
                inside = self.start in _addresses(key)
            elif inside and key == "FilePmdMapped:":
                held += int(value.split()[0]) << 10
        return held > 0.9 * self.size


def _spans(model: nn.Module) -> list[_Span]:
    """The ranges of addresses with a model's large tensors; for mapped files, including the parts between them."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        raise UnsupportedError("huge_pages: not supported on this system, only on Linux; leave it out")
    files = list(_mapped_files())
    ends: dict[range | int, tuple[int, int]] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type != "cpu":
            raise InputError(f"huge_pages: only supported for a model on the CPU; this one is on {tensor.device}")
        if not tensor.is_contiguous():
            continue
        start, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        file = next((file for file in files if start in file and end - 1 in file), None)
        key = start if file is None else file
        first, last = ends.get(key, (start, end))
        ends[key] = min(first, start), max(last, end)
    spans = []
    for key, (start, end) in ends.items():
        start, end = -(-start // _HUGE) * _HUGE, end // _HUGE * _HUGE
        if end > start:
            spans.append(_Span(start, end - start, isinstance(key, range)))
    return spans


def _read_huge_pages(start: int, size: int) -> None:
    # Both are needed: without MADV_RANDOM, most pages would have other sizes.
    for advice in (mmap.MADV_HUGEPAGE, mmap.MADV_RANDOM):
        _libc().madvise(start, size, advice)


def _mapped_files() -> Iterator[range]:
    """Addresses of mapped files that are large enough for a huge page. There are many small ones; they are left out."""
    for line in Path("/proc/self/maps").read_text(errors="replace").splitlines():
        fields = line.split(maxsplit=5)
        found = _addresses(fields[0])
        if len(found) >= _HUGE and fields[4] != "0":  # the file's inode
            yield found


def _addresses(text: str) -> range:
    start, _, end = text.partition("-")
    return range(int(start, 16), int(end, 16))


def _replace(start: int, size: int) -> None:
    """Replace a part of memory by a copy at the same address."""
    room = size + _HUGE  # on older systems, it does not begin at the border of a huge page
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    found = _libc().mmap(None, room, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    if found == _FAILED:
        return  # no memory is left: keep the original
    copy = -(-found // _HUGE) * _HUGE
    _libc().madvise(copy, size, mmap.MADV_HUGEPAGE)
    ctypes.memmove(copy, start, size)
    moved = _libc().mremap(copy, size, size, _MREMAP_TO, start) == start
    left = [(found, copy), (copy + size, found + room)] if moved else [(found, found + room)]
    for first, last in left:
        if last > first:
            _libc().munmap(first, last - first)


_FAILED = ctypes.c_void_p(-1).value


@cache
def _libc() -> Any:
    """The C library, for system calls about memory. They run without Python's lock."""
    address, size, flag = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = address, size, flag
    libc.mincore.argtypes = address, size, address
    libc.munmap.argtypes = address, size
    libc.mmap.argtypes = address, size, flag, flag, flag, ctypes.c_long
    libc.mremap.argtypes = address, size, size, flag, address
    libc.mmap.restype = libc.mremap.restype = address
    return libc


def _linux() -> tuple[int, int]:
    """The version of Linux; (0, 0) on other systems."""
    if sys.platform != "linux":
        return 0, 0
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    return (int(found[1]), int(found[2])) if found else (0, 0)
