"""Indexes for many pieces, here with few."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from test_base_laws import FILES, QUESTIONS, seen, uploads

from chatglm.knowledge import Step, indexing, open_base, vectors
from chatglm.knowledge.large import Tantivy
from chatglm.knowledge.models import Matrix

pytest.importorskip("tantivy")


@settings(max_examples=15, deadline=None)
@given(FILES, FILES, QUESTIONS)
def test_tantivy_finds_what_the_base_finds(
    tmp_path_factory: pytest.TempPathFactory, before: dict[str, str], files: dict[str, str], question: str
) -> None:
    with open_base("b", create=True, home=tmp_path_factory.mktemp("home")) as base:
        base.finder = finder = Tantivy(base.store, least=1)
        base.add(*uploads(before))
        base.add(*uploads(files))
        for piece in base.pieces(min(files)) if files else ():
            if not piece.disabled:
                base.edit(piece.id, "玄黄ab。")
        with base.store.reading() as connection:
            if base.store.size(connection)[0]:
                assert finder.ready(connection)
        found = seen(base.search(question, k=20))
        answerable = base.finder and [hit.parts for hit in base.search(question, k=20)]
        base.finder = None
        assert seen(base.search(question, k=20)) == found
        assert [hit.parts for hit in base.search(question, k=20)] == answerable


def test_edited_pieces_are_found_without_reading_all(tmp_path: Path) -> None:
    with open_base("b", create=True, home=tmp_path) as base, base.store.reading() as connection:
        plan = connection.execute("EXPLAIN QUERY PLAN SELECT id, folded FROM piece WHERE edited IS NOT NULL").fetchall()
        assert "piece_edited" in plan[0]["detail"]


def test_tantivys_folder_may_be_lost(tmp_path: Path) -> None:
    with open_base("b", create=True, home=tmp_path) as base:
        base.finder = Tantivy(base.store, least=1)
        base.add(*uploads({"甲.txt": "天地玄黄。"}))
        base.store.file.with_suffix(".tantivy.json").unlink()
        assert base.search("玄黄")
        base.add(*uploads({"乙.txt": "宇宙洪荒。"}))
        with base.store.reading() as connection:
            assert base.finder.ready(connection)
        assert base.search("洪荒")[0].file == "乙.txt"


def test_tantivy_has_pieces_that_were_disabled_when_it_was_made(tmp_path: Path) -> None:
    with open_base("b", create=True, home=tmp_path) as base:
        base.add(*uploads({"甲.txt": "天地玄黄。", "乙.txt": "宇宙洪荒。"}))
        (piece,) = base.pieces("甲.txt")
        base.edit(piece.id, None)
        base.finder = finder = Tantivy(base.store, least=1)
        finder.follow()
        assert base.search("玄黄") == []
        base.store.restore(piece.id)
        with base.store.reading() as connection:
            assert finder.ready(connection)
        assert base.search("玄黄")[0].file == "甲.txt"


def test_tantivy_has_files_whose_indexing_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "BATCH", 1)
    text = "\n\n".join(f"第{n}段，" + "宇宙洪荒。" * 80 for n in range(4))
    with open_base("b", create=True, home=tmp_path) as base:
        base.finder = Tantivy(base.store, least=1)

        def stop(step: Step) -> None:
            if step.file == "乙.txt" and step.done:
                base._indexer.end()

        base.add(*uploads({"甲.txt": "天地玄黄。", "乙.txt": text}), progress=stop)
        assert base.store.find("乙.txt").state == "indexing"
    with open_base("b", home=tmp_path) as base:
        base.finder = finder = Tantivy(base.store, least=1)
        base.wait()
        with base.store.reading() as connection:
            assert finder.ready(connection)
        found = [hit.start for hit in base.search("洪荒", k=20)]
        base.finder = None
        assert len(found) == len(base.pieces("乙.txt")) > 1
        assert sorted(found) == sorted(hit.start for hit in base.search("洪荒", k=20))


class Drawn:
    """Vectors drawn by the text."""

    name, size = "drawn", 16

    def passages(self, texts: list[str]) -> Matrix:
        rows = [np.random.default_rng(list(text.strip()[-6:].encode())).standard_normal(16) for text in texts]
        matrix = np.asarray(rows, np.float32)
        return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)

    questions = passages


def test_faiss_finds_what_comparing_all_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    files = {f"{n}.txt": f"第 {n:06}" for n in range(700)}
    with open_base("b", create=True, home=tmp_path, embedder=Drawn()) as base:
        base.add(*uploads(files))
        questions = [f"第 {n:06}" for n in range(0, 700, 70)]
        exact = [[hit.file for hit in base.search(question, mode="vector", k=3)] for question in questions]
        monkeypatch.setattr(vectors, "INDEXED_FROM", 500)
        monkeypatch.setattr(vectors, "_LISTS", 4)
        found = [[hit.file for hit in base.search(question, mode="vector", k=3)] for question in questions]
        assert [each[0] for each in found] == [each[0] for each in exact]
        assert base.store.file.with_suffix(".ivf").exists()
        base.add(*uploads({"new.txt": "第 999999"}))
        base.remove("0.txt")
        assert base.search("第 999999", mode="vector")[0].file == "new.txt"
        assert base.search("第 000000", mode="vector")[0].file != "0.txt"
    with open_base("b", home=tmp_path, embedder=Drawn()) as base:  # from the file
        assert base.search("第 000070", mode="vector")[0].file == "70.txt"
