"""Stores of encoded examples: what is read is what was encoded, once; and nothing is lost when it goes wrong."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

import chatglm.training.store as module
from chatglm import AutoTokenizer
from chatglm.chat.formats import chat_format
from chatglm.errors import InputError
from chatglm.training.examples import Collator, Example, Tally, encode_files, pack
from chatglm.training.store import Rows, Store, build_store

ROWS = [{"prompt": f"问题{n}", "response": "答" * n, "history": [["你好", "早"]]} for n in range(1, 13)]


@pytest.fixture(scope="session")
def formats(checkpoint: Callable[[str], Path]) -> dict[str, Any]:
    return {name: chat_format(AutoTokenizer.from_pretrained(checkpoint(name))) for name in ("chatglm", "chatglm3")}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


def plain(example: Example) -> tuple[Any, ...]:
    rows = tuple([int(n) for n in row] for row in example.positions)
    return [int(n) for n in example.ids], [int(n) for n in example.targets], rows, example.where


@pytest.mark.parametrize("kind", ["chatglm", "chatglm3"])
def test_what_is_read_is_what_was_encoded(kind: str, formats, data: Path, tmp_path: Path) -> None:
    tally = Tally()
    expected = [e for _, made in encode_files(data, formats[kind], tally=tally) for e in made]
    store = build_store(tmp_path / "stores", data, formats[kind])
    assert len(store) == len(expected) == (24 if kind == "chatglm" else 12)
    assert [plain(example) for example in store] == [plain(example) for example in expected]
    assert store.lengths.tolist() == list(map(len, expected))
    assert store.tally == tally
    assert store[3].where == f"{data}:{2 if kind == 'chatglm' else 4}"
    for index in (-1, len(store)):
        with pytest.raises(IndexError):
            store[index]
    again = pickle.loads(pickle.dumps(store))  # noqa: S301
    assert len(pickle.dumps(store)) < 1000
    assert plain(again[5]) == plain(store[5])


def test_a_store_is_made_once(formats, data: Path, tmp_path: Path, monkeypatch) -> None:
    root, form, seen = tmp_path / "stores", formats["chatglm3"], []

    def build(**options: Any) -> Path:
        return build_store(root, data, form, **options).folder

    first = build(progress=lambda tally: seen.append(tally.dialogues))
    assert seen == [12]
    real = module.encode_files
    monkeypatch.setattr(module, "encode_files", lambda *a, **k: pytest.fail("encoded again"))
    assert build(progress=lambda tally: seen.append(tally.dialogues)) == first
    assert seen == [12, 12]
    monkeypatch.setattr(module, "encode_files", real)
    others = [build(**o) for o in ({"loss": "last"}, {"max_length": 20}, {"skip_bad_rows": True})]
    others.append(build_store(root, data, formats["chatglm"]).folder)
    others.append(build_store(root, [data, data], form).folder)
    # The same size and time, other words.
    about = data.stat()
    data.write_text(data.read_text("utf-8").replace("response", "rESPONSE", 1).replace("rESPONSE", "response"))
    os.utime(data, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert build() == first
    data.write_bytes(data.read_bytes().replace(b'"\\u7b54"', b'"\\u7b55"', 1))
    os.utime(data, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert data.stat().st_size == about.st_size
    others.append(build())
    assert len({first, *others}) == 7
    assert {path.name for path in root.iterdir()} == {folder.name for folder in (first, *others)}


def test_added_tokens_make_another_store(data: Path, checkpoint, tmp_path: Path) -> None:
    """Otherwise a run with --overwrite would learn the ids of a vocabulary without them."""
    found = []
    for token in (None, "<新词>", "<词>"):
        tokenizer = AutoTokenizer.from_pretrained(checkpoint("chatglm3"))
        if token is not None:
            tokenizer.add_tokens([token])
        store = build_store(tmp_path / "stores", data, chat_format(tokenizer))
        found.append(store.folder)
    assert len(set(found)) == 3


def test_samples_cover_a_file(tmp_path: Path) -> None:
    file = tmp_path / "large"
    data = np.random.default_rng(0).bytes(1000)
    file.write_bytes(data)
    assert b"".join(module._samples(file, 1000, count=4, length=300))[:300] == data[:300]
    samples = list(module._samples(file, 1000, count=4, length=10))
    assert [len(sample) for sample in samples] == [10] * 4
    assert samples[0] == data[:10]
    assert samples[-1] == data[-10:]
    file.write_bytes(data[:25])
    assert b"".join(module._samples(file, 25, count=4, length=10)) == data[:25]


def test_bad_data_leaves_nothing_behind(formats, data: Path, tmp_path: Path) -> None:
    root, form = tmp_path / "stores", formats["chatglm3"]
    good = build_store(root, data, form)
    before = {path: path.read_bytes() for path in good.folder.iterdir()}
    text = data.read_text("utf-8")
    data.write_text(text + "[1]\n")
    with pytest.raises(InputError, match=r"data\.jsonl:13: a row must be an object"):
        build_store(root, data, form)
    assert [*root.iterdir()] == [good.folder]
    assert {path: path.read_bytes() for path in good.folder.iterdir()} == before
    store = build_store(root, data, form, skip_bad_rows=True)
    assert store.tally.skipped[0].where == f"{data}:13"
    assert Store(store.folder).tally == store.tally
    assert "skipped: 1 bad row" in store.tally.lines()


@pytest.mark.parametrize(
    ("rows", "options", "reason"),
    [
        ([], {}, "the files hold no dialogues"),
        (
            [{"prompt": "a", "response": "b", "loss": False}],
            {},
            "no assistant message is learned in any of 1 dialogues",
        ),
        ([{"prompt": "a", "response": "b"}], {"max_length": 3}, "no assistant turn fits into max_length=3"),
        (
            [7, 8],
            {"skip_bad_rows": True},
            r"no row can be used, of 2; the first, .*:1: a row must be an object, got int",
        ),
    ],
)
def test_nothing_to_learn(rows: Any, options: Any, reason: str, formats, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=f"there is nothing to learn: {reason}"):
        build_store(tmp_path / "stores", file, formats["chatglm3"], **options)
    assert list((tmp_path / "stores").iterdir()) == []


@pytest.mark.parametrize("name", ["ids.bin", "store.json"])
def test_a_damaged_store_is_made_again(name: str, formats, data: Path, tmp_path: Path) -> None:
    store = build_store(tmp_path / "stores", data, formats["chatglm3"])
    whole = plain(store[11])
    file = store.folder / name
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(InputError, match="make it again"):
        Store(store.folder)
    assert plain(build_store(tmp_path / "stores", data, formats["chatglm3"])[11]) == whole
    assert [*(tmp_path / "stores").iterdir()] == [store.folder]
    with pytest.raises(InputError, match="not a store"):
        Store(tmp_path)


def test_another_process_was_faster(formats, data: Path, tmp_path: Path, monkeypatch) -> None:
    root, form = tmp_path / "stores", formats["chatglm3"]
    real = module._refuse_silence

    def meanwhile(*arguments: Any) -> None:
        monkeypatch.setattr(module, "_refuse_silence", real)
        monkeypatch.setattr(module.os, "getpid", lambda: -1)
        build_store(root, data, form)
        real(*arguments)

    monkeypatch.setattr(module, "_refuse_silence", meanwhile)
    store = build_store(root, data, form)
    assert [*root.iterdir()] == [store.folder]
    assert len(store) == 12


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_in_a_loader(workers: int, formats, data: Path, tmp_path: Path) -> None:
    store = build_store(tmp_path / "stores", data, formats["chatglm"])
    plan = pack(store.lengths, 64)
    rows = Rows(store, plan)
    assert len(rows) == len(plan) < len(store)
    assert [plain(example) for example in rows[1]] == [plain(store[n]) for n in plan[1]]
    assert len(Rows(store)) == len(store)
    assert [plain(example) for example in Rows([store[4]])[0]] == [plain(store[4])]
    with pytest.raises(IndexError):
        rows[len(rows)]
    collate = Collator(3, length=64)
    batches = list(DataLoader(rows, batch_size=2, collate_fn=collate, num_workers=workers))
    expected = [collate([rows[n] for n in range(start, min(start + 2, len(rows)))]) for start in range(0, len(rows), 2)]
    assert len(batches) == len(expected)
    for batch, other in zip(batches, expected, strict=True):
        assert all(batch[name].equal(other[name]) for name in other)
