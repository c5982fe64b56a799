"""The C++ library: finding it, choosing the variant for this CPU, and calling it.

The library has plain C functions on raw pointers, called through ctypes. It depends on neither torch nor Python: it is
built in seconds, and one build works with every version of both. Two environment variables control it:

    CHATGLM_KERNELS       auto (default), reference (torch only), or a variant: avx512, avx-vnni, avx2, neon, portable
    CHATGLM_NUM_THREADS   threads, at most the CPUs; default: the physical cores that this process may use
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import logging
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, Structure, c_char_p, c_float, c_int, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chatglm.errors import InputError
from chatglm.kernels.packing import PackedWeight

__all__ = [
    "DTYPES",
    "STORES",
    "Batch",
    "Info",
    "Layer",
    "Model",
    "Weight",
    "info",
    "library",
    "linear",
    "set_threads",
    "store_of_two_bytes",
    "torch_on_one_thread",
    "weight_of",
]

_log = logging.getLogger("chatglm.kernels")
_INTERFACE = 3
_NAME = "libchatglm_kernels"

DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
"""Types of inputs and outputs, with the library's numbers for them."""

STORES = {torch.float32: 0, torch.float16: 1, torch.int8: 3, torch.int16: 4}
"""Types in which keys and values can be stored. Integers have a scale for each token of each group."""

PLAIN = {torch.float16: 16, torch.bfloat16: 17, torch.float32: 32}


class Weight(Structure):
    """cg_weight of cpu/api.h. The fields of all structures here are those of that header."""

    _fields_ = (
        ("data", c_void_p),
        ("scales", c_void_p),
        ("bias", c_void_p),
        ("rows", c_int64),
        ("columns", c_int64),
        ("group", c_int32),
        ("kind", c_int32),
    )


class Layer(Structure):
    """cg_layer of cpu/api.h."""

    _fields_ = (
        ("norm1", c_void_p),
        ("norm1_bias", c_void_p),
        ("norm2", c_void_p),
        ("norm2_bias", c_void_p),
        ("qkv", Weight),
        ("dense", Weight),
        ("up", Weight),
        ("down", Weight),
    )


class Model(Structure):
    """cg_model of cpu/api.h."""

    _fields_ = (
        ("layer", POINTER(Layer)),
        ("final_norm", c_void_p),
        ("final_norm_bias", c_void_p),
        ("head", Weight),
        ("pairs", c_void_p),
        ("hidden", c_int64),
        ("inner", c_int64),
        ("layers", c_int32),
        ("heads", c_int32),
        ("groups", c_int32),
        ("channels", c_int32),
        ("angles", c_int32),
        ("gated", c_int32),
        ("interleaved", c_int32),
        ("page_tokens", c_int32),
        ("store", c_int32),
        ("eps", c_float),
        ("alpha", c_float),
    )


class Batch(Structure):
    """cg_batch of cpu/api.h."""

    _fields_ = (
        ("hidden", c_void_p),
        ("cosines", c_void_p),
        ("sines", c_void_p),
        ("tables", c_void_p),
        ("sequence", c_void_p),
        ("position", c_void_p),
        ("visible", c_void_p),
        ("wanted", c_void_p),
        ("logits", c_void_p),
        ("states", c_void_p),
        ("rows", c_int64),
        ("pages_per_table", c_int64),
        ("wanted_count", c_int64),
    )


@dataclass(frozen=True)
class Info:
    """Which CPU kernels are in use, and why.

    Args:
        variant: name of the native variant, or "reference": torch only.
        reason: why this one is used.
        variants: all variants that this CPU can run, the best first; empty without the library.
        threads: number of threads of the native kernels.
        path: of the library's file; None without the library.
    """

    variant: str
    reason: str
    variants: tuple[str, ...]
    threads: int
    path: Path | None


@dataclass(frozen=True)
class _Loaded:
    library: Any
    info: Info


def library() -> Any | None:
    """The native library, or None if torch does the work.

    Raises:
        InputError: an environment variable asks for a variant or a number of threads that is not possible.
    """
    return _load(os.environ.get("CHATGLM_KERNELS", "auto"), os.environ.get("CHATGLM_NUM_THREADS", "")).library


def info() -> Info:
    """Which CPU kernels are in use, and why.

    Raises:
        InputError: an environment variable asks for a variant or a number of threads that is not possible.
    """
    loaded = _load(os.environ.get("CHATGLM_KERNELS", "auto"), os.environ.get("CHATGLM_NUM_THREADS", ""))
    if loaded.library is None:
        return loaded.info
    return Info(**{**vars(loaded.info), "threads": loaded.library.cg_threads()})


def set_threads(count: int) -> int:
    """Set the number of threads of the native kernels. It is limited to the CPUs that this process may use; a warning
    in the log tells if it was reduced.

    Returns:
        The number of threads that is used.

    Raises:
        InputError: `count` is not an integer, or less than 1.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InputError(f"{count!r:.40} threads: expected an integer, at least 1")
    count = _no_more_than_cpus(count, f"{count} threads")
    if (lib := library()) is not None:
        lib.cg_set_threads(count)
    return count


def store_of_two_bytes() -> torch.dtype:
    """The two-byte type for keys and values that is faster with the variant in use: int16 or float16.

    Raises:
        InputError: see `library`.
    """
    lib = library()
    return torch.int16 if lib is not None and lib.cg_store() == STORES[torch.int16] else torch.float16


@contextmanager
def torch_on_one_thread() -> Iterator[None]:
    """Limit torch to the calling thread, between steps of the native kernels. Waking torch's other threads for one row
    of scores takes longer than computing the row. They also stay awake for milliseconds, on cores that the next step
    needs.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


_lock = threading.Lock()


@functools.cache
def _pause_openmp() -> Any:
    """OpenMP's `omp_pause_resource_all`, or None. It ends the threads that torch keeps for the calling thread."""
    try:
        return ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).omp_pause_resource_all
    except (OSError, AttributeError):
        return None


def _before_fork() -> None:
    # In the child, GNU OpenMP would wait for threads of the parent, which do not exist there. So the threads are ended
    # before. Both processes start new ones when they need them.
    if (pause := _pause_openmp()) is not None:
        pause(1)


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)


def _load(wanted: str, threads: str) -> _Loaded:
    with _lock:
        return _load_once(wanted, threads)


@functools.cache
def _load_once(wanted: str, threads: str) -> _Loaded:
    count = _thread_count(threads)
    if wanted == "reference":
        return _Loaded(None, Info("reference", "CHATGLM_KERNELS=reference", (), count, None))
    path = _find()
    problem, lib = "", None
    if path is None:
        problem = "this installation has no native library (it was built without a C++ compiler)"
    else:
        try:
            lib = _declare(ctypes.CDLL(str(path)))
        except (OSError, AttributeError) as error:
            problem = f"{path} cannot be used ({error})"
        if lib is not None and lib.cg_interface() != _INTERFACE:
            problem, lib = f"{path} is of another version; install chatglm again", None
    if lib is None:
        if wanted != "auto":
            raise InputError(f"CHATGLM_KERNELS={wanted}: {problem}")
        return _Loaded(None, Info("reference", problem, (), count, None))
    variants = tuple(lib.cg_variants().decode().split())
    if wanted == "auto":
        reason = "the best for this CPU"
        lib.cg_use(variants[0].encode())
    else:
        reason = f"CHATGLM_KERNELS={wanted}"
        if lib.cg_use(wanted.encode()):
            raise InputError(f"{reason}: available on this CPU are {', '.join(variants)}, and reference (torch)")
    lib.cg_set_threads(count)
    return _Loaded(lib, Info(lib.cg_variant().decode(), reason, variants, count, path))


def _find() -> Path | None:
    """The library's file: beside this file, or where an editable installation puts it."""
    names = (f"{_NAME}.so", f"{_NAME}.dylib", f"{_NAME}.dll")
    for name in names:
        if (path := Path(__file__).with_name(name)).is_file():
            return path
    try:
        files = importlib.metadata.files("chatglm") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name in names and (path := Path(str(file.locate()))).is_file():
            return path
    return None


def _declare(lib: Any) -> Any:
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "cg_interface": (c_int, []),
        "cg_variants": (c_char_p, []),
        "cg_variant": (c_char_p, []),
        "cg_use": (c_int, [c_char_p]),
        "cg_set_threads": (None, [c_int]),
        "cg_threads": (c_int, []),
        "cg_store": (c_int, []),
        "cg_linear": (c_int, [POINTER(Weight), c_void_p, c_int, c_int64, c_int64, c_void_p, c_int, c_int64]),
        "cg_quantize": (None, [c_void_p, c_int64, c_int64, c_int, c_void_p, c_void_p, c_void_p]),
        "cg_page_bytes": (c_int64, [POINTER(Model)]),
        "cg_decoder_new": (c_void_p, [POINTER(Model)]),
        "cg_decoder_free": (None, [c_void_p]),
        "cg_decoder_run": (c_int, [c_void_p, POINTER(Batch)]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


# Threads


def _thread_count(text: str) -> int:
    if not text:
        return _usable_cores()
    # int() refuses more than 4,300 digits, so only the last 400 are read.
    if not (text.isascii() and text.isdecimal()) or (count := int(text[-400:])) < 1:
        raise InputError(f"CHATGLM_NUM_THREADS={text:.40}: expected a number of threads, at least 1")
    return _no_more_than_cpus(count, f"CHATGLM_NUM_THREADS={text:.40}")


def _no_more_than_cpus(count: int, asked: str) -> int:
    """Limit `count` to the number of CPUs: more threads only compete for them, and a system limits its threads."""
    most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if count > most:
        _log.warning("%s: this process may use %d CPUs, so it gets %d threads", asked, most, most)
    return min(count, most)


def _usable_cores() -> int:
    """Number of physical cores that this process may run on, limited to its cgroup's share of CPU time."""
    if not hasattr(os, "sched_getaffinity"):
        return max(1, (os.cpu_count() or 2) // 2)
    allowed = os.sched_getaffinity(0)
    cores = set()
    for cpu in allowed:
        siblings = _read(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings or str(cpu))
    quota = _quota()
    return max(1, len(cores) if quota is None else min(len(cores), math.ceil(quota)))


def _quota() -> float | None:
    """The number of CPUs whose time the cgroup (v2, else v1) grants; None without a limit."""
    limit = _read("/sys/fs/cgroup/cpu.max").split()
    if len(limit) != 2:
        limit = [_read(f"/sys/fs/cgroup/cpu/cpu.cfs_{name}_us") for name in ("quota", "period")]
    try:
        quota, period = (int(number) for number in limit)
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


# Calls


def weight_of(weight: PackedWeight | Tensor, bias: Tensor | None = None) -> Weight:
    """Describe a weight for the library. The result keeps no tensor alive; the caller must.

    Args:
        weight: packed, or a contiguous matrix (rows, columns) of float16, bfloat16 or float32, on the CPU.
        bias: contiguous float32 (rows,).
    """
    address = bias.data_ptr() if bias is not None else None
    if isinstance(weight, PackedWeight):
        return Weight(
            weight.data.data_ptr(),
            weight.scales.data_ptr(),
            address,
            weight.rows,
            weight.columns,
            weight.group_size,
            weight.bits,
        )
    return Weight(weight.data_ptr(), None, address, *weight.shape, 0, PLAIN[weight.dtype])


def linear(lib: Any, inputs: Tensor, weight: PackedWeight | Tensor, bias: Tensor | None = None) -> Tensor:
    """inputs (…, columns) of float32, float16 or bfloat16, on the CPU → (…, rows) of the same type.

    Raises:
        InputError: the inputs have another width.
        MemoryError: there is no memory for the inputs.
    """
    columns = weight.columns if isinstance(weight, PackedWeight) else weight.shape[1]
    outputs = weight.rows if isinstance(weight, PackedWeight) else weight.shape[0]
    if inputs.shape[-1] != columns:
        raise InputError(f"a weight of {outputs}x{columns} takes {columns} inputs, got {inputs.shape[-1]}")
    rows = inputs.reshape(-1, columns)
    if rows.stride(-1) != 1:
        rows = rows.contiguous()
    if bias is not None:
        bias = bias.detach().to(torch.float32).contiguous()
    out = torch.empty((*inputs.shape[:-1], outputs), dtype=inputs.dtype)
    kind = DTYPES[inputs.dtype]
    described = weight_of(weight, bias)
    count, stride = rows.shape[0], rows.stride(0) if rows.shape[0] > 1 else columns
    if lib.cg_linear(described, rows.data_ptr(), kind, count, stride, out.data_ptr(), kind, outputs):
        raise MemoryError("no memory for a linear layer's inputs")
    return out
