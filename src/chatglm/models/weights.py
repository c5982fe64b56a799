"""Reads the headers of weight files: names, shapes and types, checked before any weights are read.

A header is foreign input. Its size is checked before it is read, and every number in it is compared with the file's
size. The pickle of a .bin file must have nothing but tensors; this is checked before torch opens it (with
`weights_only=True`).
"""

from __future__ import annotations

import math
import os
import pickletools
import zipfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor

from chatglm.chat.files import parse_json, size_of
from chatglm.errors import CheckpointError

__all__ = ["TYPES", "About", "headers", "load_bin", "mapped", "tensors_of"]

About = tuple[tuple[int, ...], torch.dtype]
"""Shape and type of a tensor."""

TYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Names of types in safetensors files."""

_MAX_HEADER = 25_000_000
"""Most bytes of a header. The format allows 100 MB, but a thousand tensors need 0.1 MB, and parsed JSON takes more
memory.
"""

_MAX_DIMENSIONS = 8

# Names in the pickle of a state dict (torch.save). Everything else is refused before torch reads it.
_GLOBALS = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_tensor_v3",
        "torch._utils _rebuild_parameter",
        "torch.nn.parameter Parameter",
        "torch Size",
        "torch device",
        "torch.storage TypedStorage",
        "torch.storage UntypedStorage",
    }
)
_STORAGES = frozenset(
    f"torch {kind}Storage"
    for kind in ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
)
_DTYPES = frozenset(f"torch {str(dtype).removeprefix('torch.')}" for dtype in TYPES.values())


def headers(files: Iterable[Path]) -> dict[str, tuple[Path, About]]:
    """File, shape and type of every tensor of a checkpoint.

    Raises:
        CheckpointError: see `tensors_of`; or two files have a tensor of the same name.
    """
    found: dict[str, tuple[Path, About]] = {}
    for file in files:
        for name, about in tensors_of(file).items():
            if name in found:
                raise CheckpointError(
                    f"{file}: holds {name:.200}, and so does {found[name][0].name}; they belong to different "
                    "checkpoints, download them again"
                )
            found[name] = file, about
    return found


def tensors_of(file: str | os.PathLike[str]) -> dict[str, About]:
    """Shapes and types of the tensors of a safetensors or .bin file.

    Raises:
        CheckpointError: the file is not complete, its header is inconsistent, or it holds other objects.
    """
    file = Path(file)
    if file.suffix == ".safetensors":
        return _of_safetensors(file)
    found = load_bin(file)
    total = 0
    for name, tensor in found.items():
        if tensor.layout != torch.strided or tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
            raise CheckpointError(f"{file}: {name:.200} has fewer numbers in the file than its shape; {_again(file)}")
        total += tensor.numel() * tensor.itemsize
    if total > 2 * size_of(file):  # tied weights may be counted twice
        raise CheckpointError(f"{file}: its tensors have {total:,} bytes, more than the file; {_again(file)}")
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in found.items()}


def load_bin(file: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a .bin file. It is mapped into memory if it is a zip archive (torch 1.6 and later).

    Raises:
        CheckpointError: the file is not complete, or holds more than tensors.
    """
    file = Path(file)
    mappable = _check_bin(file)
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=mappable)
    except Exception as error:  # any error that damage may cause
        raise CheckpointError(f"{file}: cannot be read ({_line(error)}); {_again(file)}") from None
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{file}: holds {type(loaded).__name__} where a dict of tensors is expected")
    return {str(name): tensor for name, tensor in loaded.items() if isinstance(tensor, Tensor)}


def mapped(files: Iterable[Path]) -> dict[str, Tensor]:
    """All tensors of a checkpoint's files, mapped into memory if the format allows it.

    Raises:
        CheckpointError: a file cannot be read.
    """
    found: dict[str, Tensor] = {}
    for file in files:
        try:
            if file.suffix == ".safetensors":
                with safe_open(file, framework="pt") as opened:
                    found.update((name, opened.get_tensor(name)) for name in opened.keys())  # noqa: SIM118 — no mapping
            else:
                found |= load_bin(file)
        except CheckpointError:
            raise
        except Exception as error:  # safetensors, zip files and torch raise several kinds
            raise CheckpointError(f"{file}: cannot be read ({error}); copy it again") from error
    return found


def _of_safetensors(file: Path) -> dict[str, About]:
    """Read the header (github.com/huggingface/safetensors, "Format"), which must describe every byte of the file."""
    size = size_of(file)
    with _open(file) as stream:
        prefix = stream.read(8)
        length = int.from_bytes(prefix, "little") if len(prefix) == 8 else size
        if _is_pointer(prefix + stream.read(32)):
            raise _not_whole(file, "safetensors", "a Git LFS pointer")
        if length > size - 8:
            raise _not_whole(file, "safetensors", "empty" if not size else "unreadable header")
        if length > _MAX_HEADER:
            raise _not_whole(file, "safetensors", f"a header of {length:,} bytes")
        stream.seek(8)
        text = stream.read(length)
    try:
        described = parse_json(text, file)
    except CheckpointError as error:
        raise _not_whole(file, "safetensors", f"unreadable header: {str(error).partition(': ')[2]}") from None
    metadata = described.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{file}: `__metadata__` of its header is not an object of strings; {_again(file)}")
    found: dict[str, About] = {}
    places: list[tuple[int, int, str]] = []
    for name, about in described.items():
        found[name], start, end = _entry(file, name, about)
        places.append((start, end, name))
    at = 0
    for start, end, name in sorted(places):
        if start != at:
            raise CheckpointError(
                f"{file}: the header puts {name:.200} at byte {start:,}, where {at:,} is expected; {_again(file)}"
            )
        at = end
    if size != 8 + length + at:
        raise CheckpointError(f"{file}: has {size:,} bytes, but its header says {8 + length + at:,}; {_again(file)}")
    return found


def _entry(file: Path, name: str, about: Any) -> tuple[About, int, int]:
    """Shape and type of one tensor, and the positions of its first byte and of its end."""
    about = about if isinstance(about, dict) else {}
    shape: Any = about.get("shape")
    offsets: Any = about.get("data_offsets")
    kind = about.get("dtype")
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2 or len(shape) > _MAX_DIMENSIONS:
        raise _not_whole(file, "safetensors", f"unreadable header: no valid shape and offsets of {name!r:.200}")
    if not isinstance(kind, str) or kind not in TYPES:
        raise CheckpointError(f"{file}: {name:.200} is of type {kind!r:.60}, which is not supported")
    size = math.prod(shape) * TYPES[kind].itemsize
    if offsets[1] - offsets[0] != size:
        raise CheckpointError(
            f"{file}: the header gives {name:.200} {offsets[1] - offsets[0]:,} bytes, and its shape {list(shape)} of "
            f"{kind} needs {size:,}; {_again(file)}"
        )
    return (tuple(shape), TYPES[kind]), offsets[0], offsets[1]


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 62 for value in values)


def _check_bin(file: Path) -> bool:
    """Check that torch.save wrote a .bin file, and that it has only tensors. Returns whether it is a zip archive.

    Since version 1.6, torch.save writes a zip archive. Its directory is at the end, so a file that was cut off has
    none. Older files are several pickles, followed by the bytes of the tensors.

    Raises:
        CheckpointError: the file is not complete, or holds other objects.
    """
    size = size_of(file)
    with _open(file) as stream:
        head = stream.read(40)
        if head[:2] == b"\x80\x02":
            stream.seek(0)
            for _ in range(5):  # a magic number, the protocol, the system, the state dict, the keys of its storages
                _check_pickle(stream, file)
            return False
        if not head.startswith(b"PK") or not zipfile.is_zipfile(stream):
            what = "cut short or damaged" if size else "empty"
            raise _not_whole(file, "torch", "a Git LFS pointer" if _is_pointer(head) else what)
        try:
            with zipfile.ZipFile(stream) as archive:
                parts = archive.infolist()
                # torch writes without compression, so an entry that is larger than the file is not from torch.
                if any(part.compress_type for part in parts) or sum(part.file_size for part in parts) > size:
                    raise _not_whole(file, "torch", "an archive that torch did not write")
                pickles = [part for part in parts if part.filename.endswith("data.pkl")]
                if len(pickles) != 1 or pickles[0].file_size > _MAX_HEADER:
                    raise _not_whole(file, "torch", "an archive that torch did not write")
                _check_pickle(BytesIO(archive.read(pickles[0])), file)
        except (OSError, RuntimeError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise _not_whole(file, "torch", "damaged archive") from None
    return True


def _check_pickle(stream: BinaryIO, file: Path) -> None:
    """Check that the pickle at the stream's position names only tensors and the classes that hold them.

    Raises:
        CheckpointError: it names something else, or is damaged.
    """
    try:
        for operation, argument, _ in pickletools.genops(stream):
            if operation.name == "GLOBAL":
                if argument not in _GLOBALS and argument not in _STORAGES and argument not in _DTYPES:
                    name = str(argument).replace(" ", ".")
                    raise CheckpointError(
                        f"{file}: holds {name:.100}, which is not a tensor and might be code; it is not opened "
                        "(weights-only)"
                    )
            elif operation.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
                raise CheckpointError(f"{file}: in a pickle protocol that torch.save does not use; save it again")
    except (ValueError, OverflowError, MemoryError, OSError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise _not_whole(file, "torch", "damaged pickle") from None


def _open(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from None


def _is_pointer(head: bytes) -> bool:
    """Whether a file begins like a Git LFS pointer (git-lfs, docs/spec.md)."""
    return head.startswith(b"version https://git-lfs")


def _not_whole(file: Path, kind: str, what: str) -> CheckpointError:
    return CheckpointError(f"{file}: not a complete {kind} file ({what}); {_again(file)}")


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _again(file: Path) -> str:
    return f"download {file.name} again"
