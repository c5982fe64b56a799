"""Weights in huge pages: the same numbers at the same place."""

from __future__ import annotations

import mmap
import os
import platform
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import chatglm
from chatglm.errors import InputError, UnsupportedError
from chatglm.loading import load_parts
from chatglm.models import memory
from chatglm.models.memory import read_in, to_huge_pages
from chatglm.params import SamplingParams

HUGE = 2 << 20
HAS = hasattr(mmap, "MADV_HUGEPAGE")
needs_huge_pages = pytest.mark.skipif(not HAS, reason="this system has no huge pages")


def in_memory(start: int, end: int) -> dict[str, int]:
    """What the system says of the addresses' mappings, KiB."""
    found: dict[str, int] = {}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        key, _, value = line.partition(" ")
        if not key.endswith(":"):
            first, last = (int(part, 16) for part in key.split("-"))
            inside = first < end and last > start
        elif inside and value.endswith("kB"):
            found[key[:-1]] = found.get(key[:-1], 0) + int(value.split()[0])
    return found


def of(tensor: torch.Tensor) -> dict[str, int]:
    return in_memory(tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes)


def mapped_file(folder: Path, mebibytes: int = 12) -> tuple[Path, nn.Module, torch.Tensor]:
    """A module whose large tensor lies in a mapped file, between small ones; and what is in it."""
    file = folder / "model.safetensors"
    wanted = torch.arange(mebibytes << 18, dtype=torch.float32)
    save_file({"first": torch.zeros(100), "weight": wanted, "last": torch.ones(100)}, file)
    module = nn.Module()
    for name, tensor in load_file(file).items():
        module.register_buffer(name, tensor)
    return file, module, wanted


@pytest.fixture
def cannot_collapse(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that makes no huge pages of a file."""
    monkeypatch.setattr(memory, "_MADV_COLLAPSE", -1)
    monkeypatch.setattr(memory._Span, "_huge_in_file", lambda self: False)


@needs_huge_pages
def test_large_tensors_stay_what_and_where_they_are() -> None:
    model = nn.Sequential(nn.Linear(1024, 1024), nn.Linear(1024, 1024), nn.Linear(8, 8)).to(torch.bfloat16)
    model[0].to(torch.float32)
    model[1].weight.data = torch.randint(0, 255, (3, 1 << 20), dtype=torch.uint8).float().requires_grad_()
    model.register_buffer("table", torch.arange(1 << 20, dtype=torch.int64))
    model.tied = nn.Linear(1024, 1024)
    model.tied.weight = model[0].weight
    before = {name: (tensor.data_ptr(), tensor.detach().clone()) for name, tensor in model.state_dict().items()}
    moved = to_huge_pages(model)
    assert 6 * HUGE <= moved <= 12 * HUGE  # 4, 12 and 8 MiB, without the ends that fill no huge page
    for name, tensor in model.state_dict().items():
        place, wanted = before[name]
        assert tensor.data_ptr() == place
        assert torch.equal(tensor, wanted), name
    assert model.tied.weight is model[0].weight
    assert model[0].weight.requires_grad
    with torch.no_grad():
        model[0].weight.add_(1)
    assert torch.equal(model[0].weight.detach(), before["0.weight"][1] + 1)


@needs_huge_pages
@pytest.mark.skipif(memory._linux() < (6, 1), reason="this system makes huge pages later, not at once")
def test_they_are_huge_pages() -> None:
    model = nn.Linear(4096, 4096)
    moved = to_huge_pages(model)
    assert of(model.weight.detach())["AnonHugePages"] << 10 >= moved > 0.9 * model.weight.nbytes


@needs_huge_pages
def test_a_model_says_the_same_from_huge_pages(cannot_collapse: None) -> None:
    ids = torch.tensor([[64790, 64792, 5, 6, 7]]) % 4000
    plain = load_parts(dtype="float32").model
    moved = load_parts(dtype="float32", huge_pages=True).model
    options = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": None}
    assert torch.equal(moved.generate(ids, **options), plain.generate(ids, **options))
    for model in (plain, moved):
        model.quantize(4)
    to_huge_pages(moved)
    assert torch.equal(moved.generate(ids, **options), plain.generate(ids, **options))


@needs_huge_pages
def test_an_assistant_answers_while_its_weights_move(cannot_collapse: None, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def behind(model: nn.Module) -> threading.Thread:
        threads.append(memory.to_huge_pages_behind(model))
        return threads[0]

    monkeypatch.setattr("chatglm.loading.to_huge_pages_behind", behind)
    params = SamplingParams(temperature=0, max_new_tokens=40)
    wanted = chatglm.load().reply("你好", params=params).content
    moving = chatglm.load(huge_pages=True)
    assert moving.reply("你好", params=params).content == wanted
    threads[0].join()
    assert moving.reply("你好", params=params).content == wanted


@needs_huge_pages
def test_only_on_the_cpu() -> None:
    for move in (to_huge_pages, memory.to_huge_pages_behind):
        with pytest.raises(InputError, match="huge_pages: only supported for a model on the CPU; this one is on meta"):
            move(nn.Linear(1024, 1024, device="meta"))


def test_a_system_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    for move in (to_huge_pages, memory.to_huge_pages_behind):
        with pytest.raises(UnsupportedError, match="huge_pages"):
            move(nn.Linear(1024, 1024))


@needs_huge_pages
def test_a_copy_takes_a_files_place(tmp_path: Path, cannot_collapse: None) -> None:
    file, module, wanted = mapped_file(tmp_path)
    assert torch.equal(module.weight, wanted)
    assert of(module.weight)["Anonymous"] == 0
    place = module.weight.data_ptr()
    moved = to_huge_pages(module)
    assert 12 << 20 >= moved >= 8 << 20
    after = of(module.weight)
    assert after["Anonymous"] == after["AnonHugePages"] == moved >> 10  # one copy, and in huge pages
    assert after["Rss"] <= (12 << 10) + 4096
    assert module.weight.data_ptr() == place
    assert torch.equal(module.weight, wanted)
    assert torch.equal(module.first, torch.zeros(100))
    assert torch.equal(module.last, torch.ones(100))
    assert torch.equal(load_file(file)["weight"], wanted)


@needs_huge_pages
def test_who_reads_meanwhile_notices_nothing(
    tmp_path: Path, cannot_collapse: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_PIECE", HUGE)
    _, module, wanted = mapped_file(tmp_path, 64)
    stop, seen = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            seen.append(torch.equal(module.weight, wanted))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    thread = memory.to_huge_pages_behind(module)
    thread.join()
    stop.set()
    for reader in readers:
        reader.join()
    assert len(seen) >= 3
    assert all(seen)
    assert of(module.weight)["Anonymous"] >= 60 << 10


@needs_huge_pages
def test_a_model_may_go_meanwhile(tmp_path: Path, cannot_collapse: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_PIECE", HUGE)
    _, module, _ = mapped_file(tmp_path, 64)
    place = module.weight.data_ptr()
    thread = memory.to_huge_pages_behind(module)
    assert thread.is_alive()
    module.weight = torch.zeros(1)
    del module
    thread.join()  # what was read was still there, or this process is not
    assert in_memory(place, place + HUGE).get("Anonymous", 0) == 0


@needs_huge_pages
def test_without_memory_it_stays_where_it_is(
    tmp_path: Path, cannot_collapse: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, module, wanted = mapped_file(tmp_path)
    for call, failed in (("mmap", memory._FAILED), ("mremap", memory._FAILED)):
        with monkeypatch.context() as patched:
            patched.setattr(memory._libc(), call, lambda *_, failed=failed: failed)
            to_huge_pages(module)
        assert of(module.weight)["Anonymous"] == 0
        assert torch.equal(module.weight, wanted)


def drop(file: Path) -> None:
    """Have the system let go of a file."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


reads_in = pytest.mark.skipif(memory._linux() < (5, 18), reason="this system cannot read files by huge pages")


@reads_in
def test_what_is_not_in_memory_is_read_in(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    wanted = os.urandom((9 << 20) + 12345)
    file.write_bytes(wanted)
    assert read_in([file]) == 0  # just written
    drop(file)
    first = read_in([file, tmp_path / "none"])
    if first == 0:
        pytest.skip("this file system lives in memory")
    assert first == len(wanted)
    assert read_in([file]) == 0
    assert file.read_bytes() == wanted


@reads_in
def test_others_files_of_which_the_system_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights"
    wanted = os.urandom((9 << 20) + 12345)
    file.write_bytes(wanted)
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "posix_fadvise", lambda *_: pytest.fail("what may be in memory is not let go of"))
    assert read_in([file]) == len(wanted)
    assert file.read_bytes() == wanted


@reads_in
def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "weights").touch()
    assert read_in([tmp_path / "weights"]) == 0


@reads_in
def test_older_systems_are_left_to_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights"
    file.write_bytes(bytes(3 << 20))
    drop(file)
    monkeypatch.setattr(platform, "release", lambda: "5.15.0-91-generic")
    assert read_in([file]) == 0


@pytest.fixture
def in_huge_pages(tmp_path: Path) -> tuple[Path, nn.Module, torch.Tensor]:
    """`mapped_file`, of which the page cache has huge pages; skips where it cannot."""
    file, _, wanted = mapped_file(tmp_path, 32)
    drop(file)
    read_in([file])
    module = nn.Module()
    module.register_buffer("weight", load_file(file)["weight"])
    assert torch.equal(module.weight, wanted)
    if of(module.weight).get("FilePmdMapped", 0) < 28 << 10:
        pytest.skip("this file system has no huge pages")
    return file, module, wanted


@reads_in
def test_a_file_in_huge_pages_is_not_copied(in_huge_pages: tuple[Path, nn.Module, torch.Tensor]) -> None:
    _, module, wanted = in_huge_pages
    to_huge_pages(module)
    assert of(module.weight)["Anonymous"] == 0
    assert torch.equal(module.weight, wanted)


@reads_in
def test_what_was_let_go_comes_back_in_huge_pages(in_huge_pages: tuple[Path, nn.Module, torch.Tensor]) -> None:
    _, module, wanted = in_huge_pages
    memory.read_back(module)
    before = of(module.weight)
    first = -(-module.weight.data_ptr() // HUGE) * HUGE
    for start in range(first, first + 14 * HUGE, 2 * HUGE):  # every other one, as when memory is short
        assert memory._libc().madvise(start, HUGE, 21) == 0  # MADV_PAGEOUT
    assert of(module.weight)["Rss"] <= before["Rss"] - 14 * 1024
    assert torch.equal(module.weight, wanted)
    after = of(module.weight)
    assert after["Rss"] >= before["Rss"] - 2048
    assert after["FilePmdMapped"] >= before["FilePmdMapped"] - 2048
