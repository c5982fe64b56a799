"""What is looked for in texts and questions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatglm.knowledge.grams import folded, grams, older_grams, question_grams


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("知识库", ["知", "知识", "识", "识库", "库"]),
        ("用apt-get装", ["用", "apt", "get", "装"]),
        ("ＧＬＭ－４ Café", ["glm", "4", "cafe"]),
        ("版本3.14", ["版", "版本", "本", "3.14"]),
        ("共1,234,567元", ["共", "1234567", "元"]),
        (
            "白发渔樵，惯\n看秋月",
            ["白", "白发", "发", "发渔", "渔", "渔樵", "樵", "惯", "惯看", "看", "看秋", "秋", "秋月", "月"],
        ),
        ("", []),
        ("，。\n", []),
    ],
)
def test_grams(text: str, found: list[str]) -> None:
    assert grams(text) == found


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("关羽的武器是什么？", ["关", "关羽", "羽", "武", "武器", "器"]),
        ("我想知道关羽的武器。", ["关", "关羽", "羽", "武", "武器", "器"]),
        ("是什么", ["是", "是什", "什", "什么", "么"]),
        ("how many?", ["how", "many"]),
    ],
)
def test_question_grams(question: str, found: list[str]) -> None:
    assert question_grams(question) == found


@given(st.text())
def test_grams_stand_in_the_folded_text(text: str) -> None:
    plain = folded(text)
    assert all(gram in plain for gram in grams(text))
    assert folded(plain) == plain


@given(st.text())
def test_a_question_asks_for_nothing_that_its_text_has_not(text: str) -> None:
    assert set(question_grams(text)) <= set(grams(text))


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("林冲的老婆姓什么？", ["妻", "浑家", "娘子", "夫人"]),
        ("誰殺死了強盜？", ["杀", "斩", "诛", "贼", "盗", "强人"]),  # the longest word, in either script
        ("版本是多少", []),
    ],
)
def test_older_words_for_those_of_a_question(question: str, found: list[str]) -> None:
    assert older_grams(question) == [gram for gram in found if gram not in question_grams(question)]


@given(st.text())
def test_older_words_are_others(text: str) -> None:
    assert not set(older_grams(text)) & set(question_grams(text))
