"""Markdown that grows: however it comes, its blocks are the same, and none is closed too early."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from chatglm.conversation.markdown import RENDERED, Splitter

MARKDOWN = st.text(st.sampled_from("a b\n\n*_`#->|1.中文，。\t[](!~\"'<&=:\\$\r"), max_size=120)


def pieces(text: str, sizes: list[int]) -> list[str]:
    """A text cut into pieces of these lengths, again and again."""
    places = itertools.accumulate(itertools.cycle(sizes), initial=0)
    cuts = [*itertools.takewhile(lambda place: place < len(text), places), len(text)]
    return [text[begin:end] for begin, end in itertools.pairwise(cuts)]


@given(MARKDOWN, st.lists(st.integers(1, 9), min_size=1, max_size=20))
def test_blocks_are_the_same_however_the_text_comes(text: str, sizes: list[int]) -> None:
    splitter, found = Splitter(), []
    for piece in pieces(text, sizes):
        if splitter.feed(piece):
            found += splitter.take()
    last, rest = splitter.close()
    found += last
    whole = Splitter()
    whole.feed(text)
    assert found == whole.close()[0]
    assert "".join(found) + rest == text.replace("\r\n", "\n").replace("\r", "\n") or not text.strip()
    assert splitter.text == ""


def test_a_block_is_closed_when_nothing_can_change_it() -> None:
    splitter = Splitter()

    def add(text: str) -> list[str]:
        return splitter.take() if splitter.feed(text) else []

    assert add("# Title") == []
    assert add("\n\n") == ["# Title\n\n"]
    assert add("```python\n") == []
    assert add("a = 1\n\n\nb = 2\n") == []  # empty lines end no code
    assert add("```\n") == ["```python\na = 1\n\n\nb = 2\n```\n"]
    assert add("- one\n") == []
    assert add("- two\n\n  more\n") == []
    assert add("\nend") == []
    assert add(" of it\n") == ["- one\n- two\n\n  more\n\n"]
    assert splitter.close() == (["end of it\n"], "")


def test_what_is_too_long_is_no_markdown() -> None:
    splitter = Splitter()
    splitter.feed("a\n\n" * RENDERED)
    blocks, rest = splitter.close()
    assert 0 < len(blocks) <= 5_000
    assert "".join(blocks) + rest == "a\n\n" * RENDERED
