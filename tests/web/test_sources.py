"""Answers with their numbers as links and unsupported sentences marked: whatever Markdown has made of the text."""

from __future__ import annotations

import html
import re

import pytest
from attacks import ATTACKS
from hypothesis import given, settings
from hypothesis import strategies as st

from chatglm.conversation.events import Cited, Quote, Source
from chatglm.web.render import render
from chatglm.web.sources import cited_html, cited_of, source_at
from chatglm.web.words import Words

SOURCES = tuple(
    Source(n=n, base="手册", file="a b.txt", start=10 * n, end=10 * n + 5, title="", text=f"passage {n}")
    for n in (1, 2)
)


def cited(text: str, *sentences: tuple[str, int | None]) -> Cited:
    """Sentences of a text, each with the number that it rests on, or with none."""
    quotes, unsupported, at = [], [], 0
    for sentence, n in sentences:
        start = text.index(sentence, at)
        at = start + len(sentence)
        if n is None:
            unsupported.append((start, at))
        else:
            quotes.append(
                Quote(n=n, base="手册", file="a b.txt", start=start, end=at, text=f"<q>{start}", sentence=(start, at))
            )
    return Cited(answered=True, quotes=tuple(quotes), unsupported=tuple(unsupported))


def dressed(text: str, found: Cited, language: str = "en") -> str:
    return cited_html(render(text), text, found, SOURCES, "/ui", Words(language))


def test_each_number_opens_what_its_own_sentence_rests_on() -> None:
    text = "甲在门口。[1] 乙在**楼上**。[1]\n\n- 丙有`三`个。[2]\n- 丁没有。"
    shown = dressed(
        text, cited(text, ("甲在门口。[1]", 1), ("乙在**楼上**。[1]", 1), ("丙有`三`个。[2]", 2), ("丁没有。", None))
    )
    starts = [text.index(one) for one in ("甲", "乙", "丙")]
    assert [int(at) for at in re.findall(r"&amp;at=(\d+)&amp;", shown)] == starts
    assert re.findall(r'<span class="unsupported" title="[^"]*">(.*?)</span>', shown) == ["丁没有"]
    assert "&lt;q&gt;" in shown  # the quotation, for a pointer that rests there
    assert "<q>" not in shown


def test_a_number_without_a_sentence_opens_its_passage() -> None:
    shown = dressed("见 [2]。又见 [7]。", Cited(answered=True))
    assert source_at("/ui", "手册", "a b.txt", 20, 25).replace("&", "&amp;") in shown
    assert "[7]" in shown


def test_numbers_in_code_and_links_stay_as_they_are() -> None:
    text = "`a[1]` 和 [x](http://e.example/[1]) 与\n\n```\nb[1]\n```\n"
    shown = dressed(text, Cited(answered=True))
    assert "cite" not in shown
    assert shown == render(text)


def test_a_sentence_over_bold_text_is_marked_in_parts_that_nest() -> None:
    text = "前面**粗的一句没有出处**后面。"
    shown = dressed(text, cited(text, (text, None)))
    assert shown.count("<span") == shown.count("</span>") == 3
    assert re.sub(r"</?span[^>]*>", "", shown) == render(text)


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_stay_what_they_were(attack: str) -> None:
    text = f"{attack} 一句话。[1]\n\n另一句 {attack}"
    found = Cited(
        answered=True,
        quotes=(Quote(n=1, base=attack, file=attack, start=0, end=5, text=attack, sentence=(0, len(text))),),
        unsupported=((0, len(text)),),
    )
    shown = dressed(text, found)
    links = re.findall(
        r'<a class="cite" data-do="source" href="([^"]*)" title="([^"]*)" aria-label="[^"]*">1</a>', shown
    )
    for address, title in links:
        assert address.startswith("/ui/bases/")
        assert "<" not in title
    plain = re.sub(r'<a class="cite"[^>]*?>(\d+)</a>', r"[\1]", re.sub(r'<span class="unsupported"[^>]*>', "", shown))
    assert plain.replace("</span>", "") == render(text).replace("</span>", "")


@settings(max_examples=60, deadline=None)
@given(st.text("ab甲乙。.[]12*_`#- \n<&>", max_size=80), st.data())
def test_dressing_takes_nothing_away(text: str, data: st.DataObject) -> None:
    spans = data.draw(st.lists(st.tuples(st.integers(0, 80), st.integers(0, 80)).map(sorted).map(tuple), max_size=3))
    found = Cited(answered=True, unsupported=tuple(sorted({(a, b) for a, b in spans if a < b})))
    shown, plain = dressed(text, found), render(text)

    def letters(one: str) -> str:
        return "".join(re.findall(r"[^\W_]", html.unescape(re.sub(r"<[^>]*>", "", one))))

    assert letters(shown) == letters(plain)
    assert shown.count("<") == shown.count(">")
    assert shown.count("<span") == shown.count("</span>")


def test_what_is_stored_is_read_again() -> None:
    found = cited("一句。二句。", ("一句。", 1), ("二句。", None))
    assert cited_of(found.to_dict()) == found
    assert cited_of(None) is None
