"""Weights in huge pages: the same numbers elsewhere."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from chatglm.errors import InputError, UnsupportedError
from chatglm.loading import load_parts
from chatglm.models.memory import to_huge_pages

HUGE = 2 << 20
needs_huge_pages = pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="this system has no huge pages")


@needs_huge_pages
def test_large_tensors_move_and_stay_what_they_are() -> None:
    model = nn.Sequential(nn.Linear(1024, 1024), nn.Linear(1024, 1024), nn.Linear(8, 8)).to(torch.bfloat16)
    model[0].to(torch.float32)
    model[1].weight.data = torch.randint(0, 255, (3, 1 << 20), dtype=torch.uint8).float().requires_grad_()
    model.register_buffer("table", torch.arange(1 << 20, dtype=torch.int64))
    model.tied = nn.Linear(1024, 1024)
    model.tied.weight = model[0].weight
    before = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    small = model[2].weight.data_ptr()
    moved = to_huge_pages(model)
    assert moved == 4 * (1 << 20) + 12 * (1 << 20) + 8 * (1 << 20)
    after = model.state_dict()
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        assert torch.equal(after[name], tensor), name
        assert (after[name].data_ptr() % HUGE == 0) == (tensor.nbytes >= HUGE), name
    assert model.tied.weight is model[0].weight
    assert model[2].weight.data_ptr() == small
    assert model[0].weight.requires_grad
    with torch.no_grad():
        model[0].weight.add_(1)  # it is memory of our own
    assert torch.equal(model[0].weight.detach(), before["0.weight"] + 1)


@needs_huge_pages
def test_a_model_says_the_same_from_huge_pages() -> None:
    ids = torch.tensor([[64790, 64792, 5, 6, 7]]) % 4000
    plain = load_parts(dtype="float32").model
    moved = load_parts(dtype="float32", huge_pages=True).model
    assert moved.get_input_embeddings().weight.data_ptr() % HUGE == 0
    options = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": None}
    assert torch.equal(moved.generate(ids, **options), plain.generate(ids, **options))
    for model in (plain, moved):
        model.quantize(4)
    to_huge_pages(moved)
    assert torch.equal(moved.generate(ids, **options), plain.generate(ids, **options))


@needs_huge_pages
def test_only_on_the_cpu() -> None:
    with pytest.raises(InputError, match="huge_pages: for a model on the CPU, not on meta"):
        to_huge_pages(nn.Linear(1024, 1024, device="meta"))


def test_a_system_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    with pytest.raises(UnsupportedError, match="huge_pages"):
        to_huge_pages(nn.Linear(1024, 1024))


def resident(file: Path) -> int:
    """KiB of a mapped file that count as this process's memory."""
    total, of_file = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if not line.split()[0].endswith(":"):
            of_file = line.endswith(str(file))
        elif of_file and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total


@needs_huge_pages
def test_what_was_moved_out_of_a_file_is_let_go(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    wanted = torch.arange(3 << 20, dtype=torch.float32)
    save_file({"first": torch.zeros(100), "weight": wanted, "last": torch.ones(100)}, file)
    tensors = load_file(file)
    kept = tensors["weight"].detach()
    module = nn.Module()
    for name, tensor in tensors.items():
        module.register_buffer(name, tensor)
    assert torch.equal(module.weight, wanted)
    assert resident(file) > 12 << 10
    assert to_huge_pages(module) == wanted.nbytes
    assert resident(file) < 1 << 10
    assert torch.equal(module.weight, wanted)
    assert module.weight.data_ptr() != kept.data_ptr()
    assert torch.equal(kept, wanted)  # who still reads there gets the file's bytes
    assert torch.equal(module.last, torch.ones(100))
