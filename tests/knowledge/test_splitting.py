"""Pieces of a text: laws for any text, and where Chinese and other texts are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatglm.errors import InputError
from chatglm.knowledge.reading import Mark, Reading, read
from chatglm.knowledge.splitting import split

_texts = st.text(
    st.one_of(
        st.sampled_from("天地玄黄宇宙洪荒。，！？；…“”\n \t　#第一回"),
        st.sampled_from("ab1.,- "),
        st.characters(exclude_categories=["Cc", "Cs"]),
    ),
    max_size=2000,
)


@given(_texts, st.integers(20, 400))
def test_pieces_are_the_text(text: str, size: int) -> None:
    reading = read(text.encode(), name="a.md")
    pieces = list(split(reading, size=size))
    assert "".join(piece.text for piece in pieces) == reading.text
    assert [piece.n for piece in pieces] == list(range(len(pieces)))
    at = 0
    for piece in pieces:
        assert piece.start == at < piece.end
        assert piece.text == reading.text[piece.start : piece.end]
        at = piece.end


@given(st.lists(st.sampled_from(["知识", "word", "12,345.67", "3.14%", "。", " ", "，", "\n", "x" * 30]), max_size=400))
def test_no_word_and_no_number_is_cut(parts: list[str]) -> None:
    reading = Reading("".join(parts))
    for piece in list(split(reading, size=20))[1:]:
        before, after = reading.text[piece.start - 1], reading.text[piece.start]
        assert not (before.isascii() and before.isalnum() and after.isascii() and after.isalnum())
        assert not (before in ".," and after.isdigit() and reading.text[piece.start - 2].isdigit())


def test_sentences_stay_whole() -> None:
    text = "".join(f"这是第{n}句话，它不长也不短，说的是一件事情。" for n in range(200))
    pieces = list(split(Reading(text)))
    assert all(piece.text.endswith("。") for piece in pieces)
    assert all(350 <= len(piece.text) <= 650 for piece in pieces)


def test_rules_and_spaces_do_not_fill_pieces() -> None:
    row = "    |软件包       |说明             |\n    |-------------+-----------------|\n"
    pieces = list(split(Reading(row * 100)))
    assert all(1000 <= len(piece.text) <= 1900 for piece in pieces)
    assert all(len(piece.text) <= 3 * 500 * 1.25 for piece in split(Reading(" " * 9000 + "字" * 9000)))


def test_titles_are_the_headings_above() -> None:
    text = "# 手册\n前言在此。\n## 休假\n年假十天。\n### 病假\n病假五天。\n## 报销\n月底报销。\n"
    pieces = list(split(read(text.encode(), name="手册.md")))
    assert [piece.title for piece in pieces] == ["手册", "手册 > 休假", "手册 > 休假 > 病假", "手册 > 报销"]


def test_a_heading_is_never_left_behind() -> None:
    reading = Reading("第一章\n\n正文", (Mark(0, 3, "heading", "第一章", 1),))
    assert [piece.text for piece in split(reading)] == ["第一章\n\n正文"]


def test_size_in_tokens() -> None:
    text = "天地玄黄。" * 400
    assert len(list(split(Reading(text), size=100, tokens=lambda text: len(text) // 2))) == pytest.approx(10, abs=1)


def test_sizes_that_are_refused() -> None:
    with pytest.raises(InputError, match="at least 20"):
        list(split(Reading("天"), size=1))
