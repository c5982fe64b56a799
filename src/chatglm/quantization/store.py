"""Tensor files: reading single tensors, and writing a safetensors file tensor by tensor."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from chatglm.errors import CheckpointError
from chatglm.models.weights import TYPES, About, load_bin, tensors_of

__all__ = ["Source", "StreamWriter"]

_NAMES = {dtype: name for name, dtype in TYPES.items()}

ALIGNMENT = 64
"""Bytes: the size of an AVX-512 register and of a cache line."""


class Source:
    """Reads the tensors of a checkpoint's files one at a time.

    Raises:
        CheckpointError: a file is not complete, or its header is invalid.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self.about: dict[str, About] = {}
        self._file: dict[str, Path] = {}
        self._bins: dict[Path, dict[str, Tensor]] = {}
        for file in files:
            for name, about in tensors_of(file).items():
                self.about[name], self._file[name] = about, file

    def get(self, name: str) -> Tensor:
        """Return a tensor, mapped into memory if the file format allows it.

        Raises:
            CheckpointError: the file can no longer be read.
        """
        file = self._file[name]
        try:
            if file.suffix == ".safetensors":
                with safe_open(file, framework="pt") as opened:
                    tensor: Tensor = opened.get_tensor(name)
                return tensor
            if file not in self._bins:
                self._bins = {file: load_bin(file)}  # only one file of this kind in memory
            return self._bins[file][name]
        except CheckpointError:
            raise
        except (OSError, RuntimeError, KeyError) as error:
            raise CheckpointError(f"{file}: cannot be read ({error})") from error


class StreamWriter:
    """Writes a safetensors file tensor by tensor, in any order. The file gets its final name when it is complete.

    All sizes are known at the start, so the header can be written first, as the format requires
    (github.com/huggingface/safetensors, "Format"). The data begins at a multiple of 64 bytes, and tensors whose size is
    a multiple of 64 come first. So packed weights are aligned in memory when the file is mapped.
    """

    def __init__(self, file: Path, tensors: Mapping[str, About]) -> None:
        self.file = file
        self._part = file.with_name(file.name + ".part")
        sizes = {n: torch.empty(s, dtype=d, device="meta").nbytes for n, (s, d) in tensors.items()}
        order = sorted(tensors, key=lambda name: (sizes[name] % ALIGNMENT != 0, -tensors[name][1].itemsize))
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        self._places: dict[str, tuple[int, int]] = {}
        at = 0
        for name in order:
            shape, dtype = tensors[name]
            self._places[name] = (at, sizes[name])
            header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [at, at + sizes[name]]}
            at += sizes[name]
        self._about = dict(tensors)
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % ALIGNMENT)
        self._start, self.size = 8 + len(text), 8 + len(text) + at
        self._stream = self._part.open("wb")
        self._stream.write(len(text).to_bytes(8, "little") + text)

    def put(self, name: str, tensor: Tensor) -> None:
        """Write one tensor. Its shape and type must be those announced to the constructor."""
        shape, dtype = self._about.pop(name)
        assert tuple(tensor.shape) == shape, name
        assert tensor.dtype == dtype, name
        place, size = self._places[name]
        self._stream.seek(self._start + place)
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        if size:
            self._stream.write(flat.view(torch.uint8).numpy().data)

    def close(self) -> None:
        """Finish: flush the file to disk and give it its final name. All tensors must be written."""
        assert not self._about, f"not written: {sorted(self._about)[:3]}"
        self._stream.truncate(self.size)
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        self._part.rename(self.file)

    def drop(self) -> None:
        """Give up: delete the unfinished file."""
        self._stream.close()
        self._part.unlink(missing_ok=True)
