"""Laws of bases, with texts that nobody thought of."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_base import written

from chatglm.knowledge import Bases, Hit, Upload, open_base, searching
from chatglm.knowledge.packing import shown
from chatglm.knowledge.store import StoredPiece

# Few characters, so that texts share grams, stand in each other and are often equal.
TEXTS = st.text(alphabet="天地玄黄宇宙洪荒日月ab1 。，\n", max_size=900)
FILES = st.dictionaries(st.sampled_from([f"{letter}.txt" for letter in "甲乙丙丁戊己"]), TEXTS, max_size=6)
QUESTIONS = st.text(alphabet="天地玄黄宇宙洪荒日月星ab1？", min_size=1, max_size=30)
FEW = settings(max_examples=25, deadline=None)


def uploads(files: Mapping[str, str]) -> list[Upload]:
    return [Upload(name, text.encode()) for name, text in files.items()]


def seen(hits: list[Hit]) -> list[tuple[str, int, int, float]]:
    """What does not depend on the base."""
    return [(hit.file, hit.start, hit.end, round(hit.score, 9)) for hit in hits]


@FEW
@given(FILES, QUESTIONS, st.data())
def test_two_bases_are_their_union_in_any_order(files: dict[str, str], question: str, data: st.DataObject) -> None:
    left = data.draw(st.sets(st.sampled_from(sorted(files))) if files else st.just(set()))
    order = data.draw(st.permutations(sorted(files)))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        home = Path(folder)
        one, a, b = (stack.enter_context(open_base(name, create=True, home=home)) for name in ("one", "a", "b"))
        for name in order:  # one after the other
            one.add(Upload(name, files[name].encode()))
        a.add(*uploads({name: text for name, text in files.items() if name in left}))
        b.add(*uploads({name: text for name, text in files.items() if name not in left}))
        expected = seen(one.search(question, k=20))
        # Of texts that stand in both, the first in the order of files is shown, so bases come in no order.
        assert seen(Bases([a, b]).search(question, k=20)) == expected
        assert seen(Bases([b, a]).search(question, k=20)) == expected
        assert Bases([a, b]).answerable(question) == Bases([one]).answerable(question)
        with pytest.MonkeyPatch.context() as few:  # candidates: equals at the end are cut alike
            few.setattr(searching, "CANDIDATES", 2)
            expected = seen(one.search(question, k=2))
            assert seen(Bases([a, b]).search(question, k=2)) == expected
            assert seen(Bases([b, a]).search(question, k=2)) == expected


@FEW
@given(FILES, FILES, QUESTIONS)
def test_a_changed_base_is_one_that_was_always_so(before: dict[str, str], after: dict[str, str], question: str) -> None:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        home = Path(folder)
        old, new = (stack.enter_context(open_base(name, create=True, home=home)) for name in ("old", "new"))
        old.add(*uploads(before))
        old.remove(*(before.keys() - after.keys()))
        old.add(*uploads(after))
        new.add(*uploads(after))
        assert seen(old.search(question, k=20)) == seen(new.search(question, k=20))
        assert old.check() == []
        once = written(old.store.file)
        assert not old.add(*uploads(after)).changed
        assert written(old.store.file) == once


@FEW
@given(FILES, QUESTIONS, st.integers(0, 700), st.integers(1, 4), st.sampled_from([0, 1, 2, None]), st.booleans())
def test_passages_hold_their_budget(
    files: dict[str, str], question: str, budget: int, k: int, steps: int | None, headings: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder, open_base("b", create=True, home=Path(folder)) as base:
        base.add(*uploads({**files, "章.md": "\n".join(f"# {name}\n\n{text}" for name, text in files.items())}))
        bases = Bases([base])
        hits = bases.search(question, k=10)
        passages = bases.passages(hits, budget, k=k, steps=steps, headings=headings)
        assert len(shown(passages)) <= budget
        assert len(passages) <= k
        places = [set(passage.pieces) for passage in passages]
        assert sum(map(len, places)) == len(set().union(*places))
        for number, passage in enumerate(passages, 1):
            assert passage.n == number
            assert base.text(passage.file, passage.start, passage.end) == passage.text
        everything = bases.passages(hits, float("inf"), k=k, steps=steps, headings=headings)
        wanted = {hit.piece for hit in hits[:k]}
        assert wanted <= {piece for passage in everything for piece in passage.pieces}


def my_faiss(pieces: list[StoredPiece], hit: int, chunk_size: float) -> list[int]:
    """Which pieces Langchain-ChatGLM (v0.1.17) shows of one hit: those around it in the same source, one behind and
    one before in turn, until one would make the text longer than `chunk_size`."""
    taken, length = {hit}, len(pieces[hit].text)
    for distance in range(1, len(pieces)):
        for at in (hit + distance, hit - distance):
            if 0 <= at < len(pieces):
                if length + len(pieces[at].text) > chunk_size:
                    return sorted(taken)
                length += len(pieces[at].text)
                taken.add(at)
    return sorted(taken)


@FEW
@given(st.lists(TEXTS, min_size=1, max_size=8), QUESTIONS)
def test_without_a_budget_one_hit_is_widened_as_langchain_chatglm_did(parts: list[str], question: str) -> None:
    with tempfile.TemporaryDirectory() as folder, open_base("b", create=True, home=Path(folder)) as base:
        base.add(Upload("a.txt", "\n\n".join(parts).encode()), Upload("b.txt", "天地玄黄。".encode()))
        bases = Bases([base])
        for hit in bases.search(question, k=3):
            pieces = base.pieces(hit.file)
            at = next(piece.n for piece in pieces if piece.id == hit.piece)
            (passage,) = bases.passages([hit], float("inf"), k=1, steps=None, headings=False)
            assert [piece.n for piece in pieces if piece.id in passage.pieces] == my_faiss(pieces, at, float("inf"))
