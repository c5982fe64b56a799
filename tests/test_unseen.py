"""How answers to dialogues that were written by hand are judged (`recipes/demo/unseen.py`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from chatglm.chat.messages import Message

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "demo"


@pytest.fixture(scope="module")
def judging() -> Iterator[ModuleType]:
    sys.path.insert(0, str(RECIPE))
    try:
        import unseen

        yield unseen
    finally:
        sys.path.remove(str(RECIPE))


def said(text: str) -> Message:
    return Message("assistant", text)


def called(name: str, **arguments: Any) -> Message:
    made = {"role": "assistant", "content": "", "tool_calls": [{"name": name, "arguments": arguments}]}
    return Message.from_dict(made, 0)


@pytest.mark.parametrize(
    ("item", "text", "verdict"),
    [
        ({"number": 63}, "100-37：10-7=3，9-3=6，所以100-37=63。", "right"),
        ({"number": 63}, "100-37：1-7=63，所以100-37=163。", "wrong"),
        ({"number": -3}, "5-8=-3。", "right"),
        ({"number": 3}, "5-8=-3。", "wrong"),
        ({"number": 5}, "抱歉，这个我还不会。", "honest"),
        ({"refuse": True}, "抱歉，这个我还不会。", "right"),
        ({"refuse": True}, "北京。", "wrong"),
        ({"has": ["10天"], "cite": 1}, "员工每年有 10 天年假。[1]", "right"),
        ({"has": ["10天"], "cite": 1}, "员工每年有 10 天年假。[2]", "wrong"),
        ({"has": ["8"]}, "I am 18 years old.", "wrong"),
        ({"any": ["hi"]}, "This is it.", "wrong"),
        ({"is": "你是谁？"}, "你是谁", "right"),
        ({"has": ["２０"]}, "你今年20岁。", "right"),
        ({"has": ["好"]}, "好 eld eld eld eld eld eld", "babble"),
        ({"has": ["好"]}, "", "babble"),
    ],
)
def test_what_is_said(judging: ModuleType, item: dict[str, Any], text: str, verdict: str) -> None:
    assert judging.judge(item, said(text), text, True) == verdict


def test_an_answer_without_an_end_is_babble(judging: ModuleType) -> None:
    assert judging.judge({"has": ["好"]}, said("好"), "好", False) == "babble"


def test_calls(judging: ModuleType) -> None:
    item = {"call": {"name": "get_weather", "arguments": {"city": "北京"}}}
    assert judging.judge(item, called("get_weather", city="北京 "), "x", True) == "right"
    assert judging.judge(item, called("get_weather", place="北京"), "x", True) == "wrong"
    assert judging.judge(item, called("get_time", city="北京"), "x", True) == "wrong"
    assert judging.judge(item, said("没有合适的工具来完成这件事。"), "x", True) == "honest"
    assert judging.judge({"has": ["好"]}, called("get_time", city="北京"), "x", True) == "wrong"
    code = {"code": ["sum(range(1, 100"]}
    assert judging.judge(code, called("interpreter", code="print(sum( range(1,100+1)))"), "x", True) == "right"
    assert judging.judge(code, called("interpreter", code="print(5050)"), "x", True) == "wrong"


def test_the_file(judging: ModuleType) -> None:
    """Enough of each, none twice, and each says what is right."""
    dialogues = judging.read()
    assert sum(map(len, dialogues.values())) >= 300
    ways = {"is", "has", "any", "lacks", "number", "call", "code", "cite", "refuse"}
    asked = [
        (item.get("system"), tuple(item["ask"]), str(item["tools"]), item.get("returned"))
        for skill, items in dialogues.items()
        for item in items
        if skill != "examples"
    ]
    assert len(set(asked)) == len(asked)
    for items in dialogues.values():
        for item in items:
            assert ways & set(item), item
            assert set(item) <= ways | {"ask", "system", "tools", "called", "returned"}, item


def test_the_table(judging: ModuleType) -> None:
    tally = judging.Tally()
    tally.verdicts |= {"right": 2, "honest": 1, "wrong": 1}
    assert judging.report({"tools": tally}).splitlines()[-2:] == [
        "| tools | 50.0% of 4 | 75.0% | 0.0% |",
        "| all | 50.0% of 4 | 75.0% | 0.0% |",
    ]
