"""`search_knowledge`: what a model gets of documents when it calls for them, and who may have it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_bases import made

from chatglm.chat.messages import ToolCall
from chatglm.knowledge import Base, Bases, Upload
from chatglm.knowledge.tool import SEARCH
from chatglm.tools.tool import Outcome
from chatglm.tools.toolbox import Toolbox


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Base]:
    with made(tmp_path) as opened:
        yield opened


def called(tool: Any, **arguments: Any) -> Outcome:
    with Toolbox([tool]) as box:
        return asyncio.run(box.call(ToolCall(SEARCH, arguments)))


def test_passages_have_numbers_files_and_places(base: Base) -> None:
    outcome = called(Bases([base]).tool(), question="灭火器放在哪里？")
    assert not outcome.failed
    assert outcome.text.startswith("[1] 《安全.txt》\n实验室内禁止饮食。")
    assert "灭火器在门口右侧。" in outcome.text
    assert outcome.whole.startswith("[1] 安全.txt 0–34\n")  # people see where it stands


def test_what_is_not_there_is_said(base: Base) -> None:
    outcome = called(Bases([base]).tool(), question="月球绕地球一圈需要多久？")
    assert (outcome.text, outcome.failed) == ('{"error": "not found"}', True)


def test_results_are_bounded(base: Base) -> None:
    base.add(Upload("长.txt", "".join(f"第{n}条规定了灭火器放在第{n}号门口。" for n in range(2000)).encode()))
    outcome = called(Bases([base]).tool(characters=300), question="灭火器放在哪里？")
    assert 0 < len(outcome.text) <= 300
    assert not outcome.failed


def test_wrong_arguments_are_told(base: Base) -> None:
    tool = Bases([base]).tool()
    for arguments, said in (
        ({}, "question: must be a text"),
        ({"question": " "}, "question: must be a text"),
        ({"question": 3}, "question: must be a text"),
        ({"question": "灭" * 1001}, "longer than 1,000"),
        ({"question": "气阀", "base": "secret"}, "there is no base"),
    ):
        outcome = called(tool, **arguments)
        assert outcome.failed
        assert said in outcome.text


def test_rights_are_looked_at_when_it_is_called(base: Base) -> None:
    base.store.share("li", "read")
    tool = Bases([base], who="li").tool()
    assert "灭火器" in called(tool, question="灭火器放在哪里？").text
    base.store.share("li", None)
    outcome = called(tool, question="灭火器放在哪里？")
    assert outcome.failed
    assert "灭火器在" not in outcome.text
    assert "there is no such base" in outcome.text  # as of a base that nobody has
