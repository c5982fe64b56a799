"""Files written tensor by tensor are safetensors files like any other, and lie well in memory."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from chatglm.errors import CheckpointError
from chatglm.models.weights import tensors_of
from chatglm.quantization.store import ALIGNMENT, Source, StreamWriter

TENSORS = {
    "a.weight": torch.arange(1024, dtype=torch.int32).view(torch.uint8),
    "a.weight_scale": torch.randn(2, 3, 16).half(),
    "b.bias": torch.randn(7).bfloat16(),
    "c.flag": torch.tensor(True),
    "d.none": torch.empty(0, 3),
    "e.weight": torch.randint(-128, 127, (5, 13), dtype=torch.int8),
    "f.index": torch.arange(3),
}


def test_writer(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    writer = StreamWriter(file, {name: (tuple(t.shape), t.dtype) for name, t in TENSORS.items()})
    for name in reversed(list(TENSORS)):
        assert not file.exists()
        writer.put(name, TENSORS[name])
    writer.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]
    assert file.stat().st_size == writer.size
    again = load_file(file)
    assert set(again) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert again[name].dtype == tensor.dtype
        assert torch.equal(again[name], tensor)
    assert tensors_of(file) == {name: (tuple(t.shape), t.dtype) for name, t in TENSORS.items()}
    (length,) = struct.unpack("<Q", file.read_bytes()[:8])
    assert (8 + length) % ALIGNMENT == 0
    assert again["a.weight"].data_ptr() % ALIGNMENT == 0


def test_writer_gives_up(tmp_path: Path) -> None:
    writer = StreamWriter(tmp_path / "model.safetensors", {"a": ((2,), torch.float32)})
    with pytest.raises(AssertionError):
        writer.close()
    writer.drop()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["safetensors", "bin", "old"])
def test_source(kind: str, tmp_path: Path) -> None:
    file = tmp_path / ("model.safetensors" if kind == "safetensors" else "model.bin")
    if kind == "safetensors":
        save_file(TENSORS, file)
    else:
        torch.save(TENSORS, file, _use_new_zipfile_serialization=kind == "bin")
    source = Source([file])
    assert set(source.about) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(source.get(name), tensor)
    file.unlink()
    if kind == "safetensors":
        with pytest.raises(CheckpointError, match="cannot be read"):
            source.get("a.weight")
