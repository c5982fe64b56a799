"""Texts on disk: what is read, that it is kept whole, and that every token of it reaches a row."""

from __future__ import annotations

import itertools
import json
import pickle
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from chatglm.chat.tokenizers import ChatGLMTokenizer
from chatglm.errors import InputError
from chatglm.training.examples import Example
from chatglm.training.infill import Infiller, InfillSettings, Symbols
from chatglm.training.texts import Documents, InfillRows, Split, read_texts, text_files

WHOLE = InfillSettings(span_share=0, suffix_share=1)
SYMBOLS = Symbols(mask=150, sentence_mask=152, document_mask=151, start=154, stop=156, end=2)


@pytest.fixture
def tokenizer(checkpoint: Callable[[str], Path]) -> ChatGLMTokenizer:
    return ChatGLMTokenizer.from_pretrained(checkpoint("chatglm3"))


def contents(path: Path, split: Split = "file") -> list[tuple[str, int]]:
    return [(text.text, text.line) for text in read_texts(path, split=split)]


class TestReading:
    @pytest.mark.parametrize(
        ("split", "expected"),
        [
            ("file", [("一\n二\n\n\n三 \n \n四", 2)]),
            ("blank", [("一\n二", 2), ("三 ", 6), ("四", 8)]),
            ("line", [("一", 2), ("二", 3), ("三 ", 6), ("四", 8)]),
        ],
    )
    @pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
    @pytest.mark.parametrize("newline", ["\n", "\r\n"])
    def test_text_files(
        self, split: Split, expected: list[tuple[str, int]], bom: bytes, newline: str, tmp_path: Path
    ) -> None:
        file = tmp_path / "a.txt"
        file.write_bytes(bom + "\n一\n二\n\n\n三 \n \n四\n\n".replace("\n", newline).encode())
        assert contents(file, split) == expected

    def test_json_lines(self, tmp_path: Path) -> None:
        file = tmp_path / "a.jsonl"
        rows = [{"text": "一\n\n二", "id": 1}, {"text": "  "}, {"text": "三"}]
        file.write_text("\n\n".join(json.dumps(row) for row in rows), "utf-8")
        for split in ("file", "blank", "line"):
            assert contents(file, split) == [("一\n\n二", 1), ("三", 5)]
        file.write_text('{"body": "四"}', "utf-8")
        assert [text.text for text in read_texts(file, field="body")] == ["四"]

    def test_folders_in_order(self, tmp_path: Path) -> None:
        (tmp_path / "b").mkdir()
        for name in ("b/2.txt", "b/1.txt", "a.jsonl", "c.csv"):
            (tmp_path / name).write_text('{"text": "x"}', "utf-8")
        assert [str(file.relative_to(tmp_path)) for file in text_files(tmp_path)] == ["a.jsonl", "b/1.txt", "b/2.txt"]

    @pytest.mark.parametrize(
        ("name", "data", "message"),
        [
            ("a.jsonl", b'{"text": "x"}\n{"text": ', r"a.jsonl:2: not JSON .*each line must be one row"),
            ("a.jsonl", b'{"body": "x"}', r"a.jsonl:1: text: expected a string of that name; the row has 'body'"),
            ("a.jsonl", b'{"text": 3}', r"a.jsonl:1: text: expected a string"),
            ("a.jsonl", b"[1]", r"a.jsonl:1: text: expected a string"),
            ("a.jsonl", b'{"text": "\\ud83d"}', r"a.jsonl:1: text: has half of a surrogate pair"),
            ("a.txt", b"x\n\xff", r"a.txt:2: not UTF-8 .*save the file as UTF-8"),
            ("a.txt", "x".encode("utf-16"), r"a.txt: is UTF-16; save it as UTF-8"),
            ("a.csv", b"x", r"a.csv: the ending must be one of .txt, .jsonl"),
            ("", b"", r"a folder without .txt, .jsonl files"),
            ("none.txt", None, r"none.txt: no such file"),
        ],
    )
    def test_bad_files(self, name: str, data: bytes | None, message: str, tmp_path: Path) -> None:
        if name and data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=message):
            list(read_texts(tmp_path / name))

    def test_bad_arguments(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no files with texts"):
            text_files([])
        with pytest.raises(InputError, match="split 'word': must be one of file, blank, line"):
            list(read_texts(tmp_path, split="word"))  # type: ignore[arg-type]


class TestDocuments:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        file = tmp_path / "data" / "a.txt"
        file.parent.mkdir()
        file.write_text("你好。\n今天天气很好！\n\nHello world.\n<eos> [MASK]\n", "utf-8")
        return file

    def test_ids(self, file: Path, tokenizer: ChatGLMTokenizer, tmp_path: Path) -> None:
        documents = Documents.prepare(file, tokenizer, tmp_path / "store", split="line")
        lines = ["你好。", "今天天气很好！", "Hello world.", "<eos> [MASK]"]
        end = tokenizer.get_command("<eos>")
        expected = [[*tokenizer.encode_text(line), end] for line in lines]
        assert [ids.tolist() for ids in documents] == expected
        assert [ids.tolist() for ids in documents[1:3]] == expected[1:3]
        assert documents[-1].tolist() == expected[-1]
        assert not set(expected[-1][:-1]) & tokenizer.control_ids
        assert documents.lengths.tolist() == [len(ids) for ids in expected]
        assert documents.tokens == sum(map(len, expected))
        assert [documents.where(n) for n in range(4)] == [f"{file}:{line}" for line in (1, 2, 4, 5)]
        with pytest.raises(IndexError):
            documents[4]

    def test_tokenised_once(
        self, file: Path, tokenizer: ChatGLMTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        counted: list[str] = []
        encode = tokenizer.encode_text
        monkeypatch.setattr(tokenizer, "encode_text", lambda text: counted.append(text) or encode(text))
        progress: list[tuple[int, int]] = []

        def prepare(**options: Any) -> Documents:
            return Documents.prepare(file, tokenizer, tmp_path / "store", **options)

        first = prepare(progress=lambda *counts: progress.append(counts))
        assert progress == [(1, first.tokens)]
        assert len(counted) == 1
        assert prepare().folder == first.folder
        assert len(counted) == 1
        assert prepare(split="line").folder != first.folder
        assert len(counted) == 5
        file.write_text("别的", "utf-8")
        assert prepare()[0].tolist()[:-1] == encode("别的")
        assert len(counted) == 6

    def test_a_failed_run_leaves_nothing(
        self, file: Path, tokenizer: ChatGLMTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bad = file.with_name("b.jsonl")
        bad.write_text('{"text": "一"}\n{', "utf-8")
        with pytest.raises(InputError, match=r"b.jsonl:2: not JSON"):
            Documents.prepare(file.parent, tokenizer, tmp_path / "store")
        assert list((tmp_path / "store").iterdir()) == []
        bad.write_text("\n", "utf-8")
        file.write_text(" \n", "utf-8")
        with pytest.raises(InputError, match="no text in it"):
            Documents.prepare(file.parent, tokenizer, tmp_path / "store")
        assert list((tmp_path / "store").iterdir()) == []

    def test_two_processes_prepare_the_same(
        self, file: Path, tokenizer: ChatGLMTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        encode, store = tokenizer.encode_text, tmp_path / "store"

        def other_is_first(text: str) -> list[int]:
            monkeypatch.setattr(tokenizer, "encode_text", encode)
            Documents.prepare(file, tokenizer, store)
            return encode(text)

        monkeypatch.setattr(tokenizer, "encode_text", other_is_first)
        documents = Documents.prepare(file, tokenizer, store)
        assert list(store.iterdir()) == [documents.folder]
        assert len(documents) == 1

    @pytest.mark.parametrize("damage", ["ids.bin", "index.bin", "meta.json"])
    @pytest.mark.parametrize("how", ["cut", "gone"])
    def test_a_damaged_store(
        self, damage: str, how: str, file: Path, tokenizer: ChatGLMTokenizer, tmp_path: Path
    ) -> None:
        folder = Documents.prepare(file, tokenizer, tmp_path / "store").folder
        whole = (folder / damage).read_bytes()
        (folder / damage).write_bytes(whole[:-8]) if how == "cut" else (folder / damage).unlink()
        with pytest.raises(InputError, match=r"not a complete store of texts.*; delete it and run again"):
            Documents.prepare(file, tokenizer, tmp_path / "store")

    def test_pickles_as_its_folder(self, file: Path, tokenizer: ChatGLMTokenizer, tmp_path: Path) -> None:
        documents = Documents.prepare(file, tokenizer, tmp_path / "store", split="line")
        held = documents.hold_out(0.5)[1]
        data = pickle.dumps(held)
        assert len(data) < 2000
        assert [ids.tolist() for ids in pickle.loads(data)] == [ids.tolist() for ids in held]  # noqa: S301

    def test_hold_out(self, file: Path, tokenizer: ChatGLMTokenizer, tmp_path: Path) -> None:
        documents = Documents.prepare(file, tokenizer, tmp_path / "store", split="line")
        left, held = documents.hold_out(0.25, seed=3)
        assert (len(left), len(held)) == (3, 1)
        assert sorted([*map(left.where, range(3)), held.where(0)]) == sorted(map(documents.where, range(4)))
        assert documents.hold_out(0.25, seed=3)[1].where(0) == held.where(0)
        assert {documents.hold_out(0.25, seed=seed)[1].where(0) for seed in range(40)} == set(
            map(documents.where, range(4))
        )
        inner, inner_held = left.hold_out(0.4)
        assert {inner.where(0), inner.where(1), inner_held.where(0)} == set(map(left.where, range(3)))
        for share in (0, 1, -0.5):
            with pytest.raises(InputError, match=f"cannot hold out {share} of 4 documents"):
                documents.hold_out(share)
        with pytest.raises(InputError, match="of 1 document: "):
            held.hold_out(0.5)


# Rows


class Listed:
    """Documents from a list, for `InfillRows`: each closed by the end id."""

    def __init__(self, documents: Sequence[Sequence[int]]) -> None:
        self._ids = [np.array([*ids, SYMBOLS.end], dtype=np.int32) for ids in documents]
        self.lengths = np.array([len(ids) for ids in self._ids])
        self.tokens = int(self.lengths.sum())

    def __getitem__(self, index: int) -> Any:
        return self._ids[index]

    def where(self, index: int) -> str:
        return f"list:{index}"


def rows_of(documents: Sequence[Sequence[int]], mix: InfillSettings, length: int, seed: int = 0) -> InfillRows:
    ends = np.arange(160) % 10 == 9
    return InfillRows(Listed(documents), Infiller(SYMBOLS, mix, ends), length, seed)  # type: ignore[arg-type]


def numbered(sizes: Sequence[int]) -> list[list[int]]:
    """Documents of these sizes, in which a token tells where it stands."""
    return [[10 + (7 * number + place) % 130 for place in range(size)] for number, size in enumerate(sizes)]


SIZES = st.lists(st.one_of(st.integers(1, 30), st.integers(30, 400)), min_size=1, max_size=25)


class TestRows:
    @given(SIZES, st.integers(8, 120), st.sampled_from([0.0, 0.5, 1.0]), st.booleans(), st.integers(0, 1000))
    @settings(max_examples=150, deadline=None)
    def test_every_token_is_read_once(
        self, sizes: list[int], length: int, short: float, together: bool, seed: int
    ) -> None:
        documents = numbered(sizes)
        mix = InfillSettings(span_share=0, suffix_share=1, short_share=short, multi_document=together)
        rows = rows_of(documents, mix, length, seed)
        read: Counter[tuple[str, ...]] = Counter()
        for n in range(len(rows)):
            row = rows[n]
            assert sum(map(len, row)) <= length
            for example in row:
                words = list(example.targets)[1:]
                if not together:
                    document = [*documents[int(example.where.partition(":")[2])], SYMBOLS.end]
                    starts = [at for at in range(len(document)) if document[at : at + len(words)] == words]
                    assert starts, "not a part of its document"
                    assert words != [SYMBOLS.end]
                read.update(words)
        assert read == Counter(token for ids in documents for token in [*ids, SYMBOLS.end])
        assert rows.tokens == sum(read.values())

    @given(SIZES, st.integers(12, 120), st.booleans(), st.booleans())
    @settings(max_examples=100, deadline=None)
    def test_no_row_is_too_long(self, sizes: list[int], length: int, together: bool, two: bool) -> None:
        mix = InfillSettings(
            span_share=0.5, sentence_share=0.3, span_ratio=0.4, short_share=0.3, multi_document=together
        )
        rows = rows_of(numbered(sizes), mix, length)
        assert all(sum(map(len, rows[n])) <= length for n in range(len(rows)))

    def test_short_documents_share_rows(self) -> None:
        documents = numbered([20] * 60)
        packed = rows_of(documents, WHOLE, 128)
        assert len(packed) <= 60 / 5
        assert all(len(packed[n]) >= 5 for n in range(len(packed) - 1))
        joined = rows_of(documents, InfillSettings(multi_document=True), 128)
        assert all(len(joined[n]) == 1 for n in range(len(joined)))
        text = joined[0][0]
        assert list(text.ids[: text.ids.index(SYMBOLS.start)]).count(SYMBOLS.end) >= 3

    def test_documents_without_an_end_are_not_joined(self) -> None:
        mix = InfillSettings(span_share=0, suffix_share=1, short_share=1, multi_document=True)
        rows = rows_of(numbered([40] * 30), mix, 130, 1)
        for n in range(len(rows)):
            for example in rows[n]:
                # A token's neighbours differ by one, unless a document ended between them.
                words = list(example.targets[1:])
                for before, after in itertools.pairwise(words):
                    assert before == SYMBOLS.end or after == SYMBOLS.end or (after - before) % 130 == 1

    def test_short_share_halves_windows(self) -> None:
        documents = numbered([50] * 400)
        mix = InfillSettings(span_share=0, suffix_share=1, short_share=0.25)
        rows = rows_of(documents, mix, 60)
        pieces = Counter(example.where for n in range(len(rows)) for example in rows[n])
        halved = sum(count == 2 for count in pieces.values())
        assert set(pieces.values()) == {1, 2}
        assert abs(halved - 100) < 3.3 * np.sqrt(400 * 0.25 * 0.75)

    def test_epochs_draw_anew_and_rows_stay(self) -> None:
        rows = rows_of(numbered([90] * 20), InfillSettings(), 64, seed=5)
        first = [rows[n] for n in range(len(rows))]
        rows.set_epoch(1)
        second = [rows[n] for n in range(len(rows))]
        assert all(a != b for a, b in zip(first, second, strict=True))
        assert [[e.where for e in row] for row in first] == [[e.where for e in row] for row in second]
        again = rows_of(numbered([90] * 20), InfillSettings(), 64, seed=5)
        again.set_epoch(1)
        # In any order, by any process.
        assert [again[n] for n in reversed(range(len(again)))][::-1] == second
        other = rows_of(numbered([90] * 20), InfillSettings(), 64, seed=6)
        assert [other[n] for n in range(len(other))] != first

    def test_texts_draw_each_for_itself(self) -> None:
        rows = rows_of([list(range(10, 60))] * 30, InfillSettings(), 70)
        assert len({tuple(example.ids) for n in range(len(rows)) for example in rows[n]}) == 30

    def test_workers_change_nothing(self) -> None:
        rows = rows_of(numbered([90] * 20), InfillSettings(), 64)
        loader: Any = DataLoader(rows, batch_size=4, num_workers=2, collate_fn=list, persistent_workers=True)
        for epoch in range(2):
            rows.set_epoch(epoch)
            loaded: list[list[Example]] = [row for batch in loader for row in batch]
            assert loaded == [rows[n] for n in range(len(rows))]

    def test_refusals(self) -> None:
        with pytest.raises(InputError, match="length 3: an example of two tokens"):
            rows_of(numbered([5]), InfillSettings(), 3)
        with pytest.raises(InputError, match="seed -1: must be 0 or more"):
            rows_of(numbered([5]), InfillSettings(), 64, -1)
        with pytest.raises(IndexError):
            rows_of(numbered([5]), InfillSettings(), 64)[1]
