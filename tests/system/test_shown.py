"""Tables and figures as a terminal shows them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from chatglm.cli import keys
from chatglm.cli.shown import figures, width
from chatglm.serving.access.keys import Key


def test_columns_of_keys_with_chinese_names_begin_one_below_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    made = [Key(id=f"id{n}", name=name, created=time.time()) for n, name in enumerate(("小明", "alice", "全角ｅ"))]
    keys._list(made, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    starts = {cell_len(line[: line.index(f"id{n}")]) for n, line in enumerate(lines[1:])}
    assert starts == {cell_len(lines[0][: lines[0].index("ID")])}


@given(st.text("ab 中文，ｅé。한々", max_size=20))
def test_width_is_that_of_a_terminal(text: str) -> None:
    assert width(text) == cell_len(text)
    assert width(f"{text}e\u0301\u200b") == width(text) + 1  # an accent, and a blank without width


def test_one_token_is_one_token() -> None:
    assert figures(0.5, 1, 1, 0) == "[first token 0.50 s, 1 token; prompt 1 token, 0 of them from the cache]"
    assert figures(0.5, 11, 7, 4, "4.0 tokens/s, ") == (
        "[first token 0.50 s, 4.0 tokens/s, 11 tokens; prompt 7 tokens, 4 of them from the cache]"
    )
