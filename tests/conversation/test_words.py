from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatglm.conversation.store import _MIGRATIONS
from chatglm.conversation.words import query_of, snippet_of, tokens_of


@pytest.fixture(scope="module")
def index() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    statement = next(each for each in _MIGRATIONS[0].split(";") if "VIRTUAL TABLE words" in each)
    connection.execute(statement)
    yield connection
    connection.close()


def finds(index: sqlite3.Connection, text: str, query: str) -> bool:
    index.execute("BEGIN")
    try:
        index.execute("INSERT INTO words (rowid, tokens) VALUES (1, ?)", (tokens_of(text),))
        asked = query_of(query)
        return bool(asked and index.execute("SELECT rowid FROM words WHERE words MATCH ?", (asked,)).fetchall())
    finally:
        index.execute("ROLLBACK")


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("今天天气很好", "天"),
        ("今天天气很好", "好"),  # the last of its run
        ("今天天气很好", "天气"),
        ("今天天气很好", "天气很"),
        ("问：库？", "库"),
        ("知识库，问答", "知识库 问答"),
        ("用GPT4模型写", "gpt4模型"),
        ("ＣｈａｔＧＬＭ３", "chatglm3"),  # full width
        ("ChatGLM3-6B", "glm3"),
        ("ChatGLM3-6B", "ＣＨＡＴ"),
        ("call get_weather(city)", "get_wea"),
        ("call get_weather(city)", "weather"),
        ("getHTTPResponse", "http"),
        ("getHTTPResponse", "response"),
        ("Un café, señor Müller", "cafe senor muller"),
        ("Un cafe", "CAFÉ"),
        ("cafe\u0301", "café"),
        ("Straße", "strasse"),
        ("Привет, мир", "прив"),
        ("ひらがな カタカナ", "がな"),
        ("x" * 500, "x" * 300),
    ],
)
def test_it_is_found(index: sqlite3.Connection, text: str, query: str) -> None:
    assert finds(index, text, query)


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("今天天气很好", "气天"),
        ("今天天气很好", "天很"),
        ("天，气", "天气"),
        ("上天 天气", "上天气"),  # two runs are no phrase
        ("weather", "eather"),
        ("今天", "今天 明天"),
        ("今天", ""),
        ("今天", '"*^:()'),
        ("some text", "OR"),
    ],
)
def test_it_is_not_found(index: sqlite3.Connection, text: str, query: str) -> None:
    assert not finds(index, text, query)


words = st.text(st.sampled_from("今天气库aBé_3ß 　,\"'*^:(){}-+\0\ud800ＡﬁÅİ한😀"), max_size=12) | st.text(max_size=12)


@given(words, words, words)
def test_a_piece_of_a_text_is_found(index: sqlite3.Connection, before: str, piece: str, after: str) -> None:
    """Any query is valid; and a text finds what was cut out of it at spaces."""
    finds(index, before, piece)
    if query_of(piece):
        assert finds(index, f"{before} {piece} {after}", piece)


@given(
    st.text(st.sampled_from("今天气很好吗"), min_size=1, max_size=12), st.text(st.sampled_from("今天气很"), max_size=4)
)
def test_chinese_is_found_as_substrings(index: sqlite3.Connection, text: str, query: str) -> None:
    assert finds(index, text, query) == (query in text and bool(query))


@given(words, words)
def test_snippets_mark_what_is_in_them(text: str, query: str) -> None:
    snippet = snippet_of(text, query)
    end = 0
    for start, stop in snippet.marks:
        assert end <= start < stop <= len(snippet.text)
        end = stop


def test_a_snippet_shows_the_word_where_it_is() -> None:
    snippet = snippet_of("前言" * 500 + "\n今天的天气很好。" + "后记" * 500, "天气")
    assert len(snippet.text) < 90
    assert [snippet.text[start:end] for start, end in snippet.marks] == ["天气"]
    assert snippet.text.startswith("…")
    assert snippet.text.endswith("…")
    assert "\n" not in snippet.text
    marked = snippet_of("Call get_weather in the CAFÉ", "weather cafe")
    assert [marked.text[start:end] for start, end in marked.marks][-1] == "CAFÉ"
