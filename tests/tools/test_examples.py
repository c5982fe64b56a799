"""Built-in tools: what they answer, what they are held to, and that the demo model can use them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatglm.assistant import Assistant
from chatglm.chat.messages import ToolCall
from chatglm.errors import ToolError
from chatglm.tools.arithmetic import calculate
from chatglm.tools.examples import EXAMPLES
from chatglm.tools.toolbox import Toolbox
from chatglm.tools.units import convert


@pytest.fixture(scope="module")
def box() -> Iterator[Toolbox]:
    with Toolbox.open(["examples"]) as made:
        yield made


def now(box: Toolbox, name: str, /, **arguments: Any) -> Any:
    (outcome,) = box.call_now([ToolCall(name, arguments)])
    return json.loads(outcome.text)


# Arithmetic


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12*34", 408), ("1+2*3", 7), ("(1+2)*3", 9), ("7/2", 3.5), ("6/2", 3), ("7//2", 3), ("7%3", 1),
        ("2**10", 1024), ("(" * 99 + "1" + ")" * 99, 1), ("0x10", 16), ("10x10", 100),
        ("0x10 x 2", 32), ("3乘以4减2", 10), ("8除以2加1", 5),
        ("2^10", 1024), ("-3+5", 2), ("（１＋２）×３", 9), ("9÷3", 3), ("3x4", 12), ("3 X (4-1)", 9), ("5 − 2", 3),
        ("1,000+1", 1001), ("1,234,567*2", 2469134), ("0.1+0.2", 0.3), ("12*34=", 408), ("12*34 = ?", 408),
        ("50%*8", 4), ("200*15%", 30), ("sqrt(16)", 4), ("max(3, 1, 2)", 3), ("round(2.567, 2)", 2.57),
        ("2*pi", 6.28318530718),
        ("10**300/10**299", 10), ("1e3", 1000), ("2**-1", 0.5), ("(-1)**99999999999", -1), ("1**999999999999", 1),
        ("0**99999999999", 0), ("2**4096-2**4096", 0),
        ("round(1234, -2)", 1200), ("round(2.675, 2)", 2.67), ("round(5, -10**9)", 0), ("round(5, 10**9)", 5),
        ("round(1.5, -10**9)", 0),
    ],
)  # fmt: skip
def test_expressions(expression: str, value: float) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("1/0", "division by zero"), ("1%0", "division by zero"), ("0**-1", "division by zero"),
        ("9**9**9", "too large"), ("9**9**9**9**9**9", "too large"), ("2**99999", "too large"),
        ("1e308*10", "too large"),
        ("1e999", "too large"), ("(2**8000)*(2**8000)", "too large"), ("exp(10000)", "too large"),
        ("2.0**99999", "too large"),
        ("(-8)**0.5", "no real number"), ("sqrt(-1)", "sqrt has no value"), ("", "not an"), ("1+", "not an"),
        ("x+1", "not an arithmetic"), ("'a'*9", "not an arithmetic"), ("[1]*9", "not an arithmetic"), ("True+1", "not"),
        ("1<2", "not an arithmetic"), ("lambda: 1", "not an arithmetic"), ("__import__('os').system('id')", "not an"),
        ("abs.__class__", "not an arithmetic"), ("open('x')", "not an arithmetic"), ("(1).real", "not an arithmetic"),
        ("1 if 1 else 2", "not an arithmetic"), ("sqrt(x=4)", "not an arithmetic"), ("1<<99999", "not an arithmetic"),
        ("round(1, 2, 3)", "not an arithmetic"), ("1j*2", "not an arithmetic"), ("(" * 150, "not an arithmetic"),
        ("1+" * 150 + "1", "at most 200"), ("9" * 5000, "at most 200"), ("\0", "not an arithmetic"),
        ("\ud800", "not an"),
    ],
)  # fmt: skip
def test_expressions_that_are_refused(expression: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        calculate(expression)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789+-*/%().,^x×÷ eπsqrtmax=", max_size=60) | st.text(max_size=200))
def test_any_expression_has_a_value_or_is_refused(expression: str) -> None:
    with contextlib.suppress(ValueError):
        value = calculate(expression)
        assert math.isfinite(value) if isinstance(value, float) else value.bit_length() <= 8192


def _combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda parts: f"({''.join(parts)})")


@given(st.recursive(st.integers(0, 999).map(str), _combined, max_leaves=8))
def test_expressions_mean_what_python_means(expression: str) -> None:
    assert calculate(expression) == eval(expression)  # noqa: S307


def test_calculator(box: Toolbox) -> None:
    assert now(box, "calculator", expression="12*34") == {"result": 408}
    assert now(box, "calculator", expression="1/0") == {"error": "division by zero"}


# Units


@pytest.mark.parametrize(
    ("amount", "source", "target", "value"),
    [
        (5, "公里", "米", 5000), (1, "mile", "km", 1.60934), (3, "斤", "公斤", 1.5), (100, "华氏度", "摄氏度", 37.7778),
        (0, "C", "F", 32), (-40, "celsius", "fahrenheit", -40), (0, "K", "℃", -273.15), (1, "亩", "平方米", 666.667),
        (3, "尺", "米", 1), (1, "GB", "MB", 1000), (1, "GiB", "MiB", 1024), (36, "km/h", "m/s", 10),
        (2, "Hours", "分钟", 120),
        (1, "KM", " m ", 1000), (1, "kWh", "kJ", 3600), (1e-9, "m", "nm", 1),
    ],
)  # fmt: skip
def test_units(amount: float, source: str, target: str, value: float) -> None:
    assert convert(amount, source, target) == value


@pytest.mark.parametrize(
    ("amount", "source", "target", "words"),
    [
        (1, "米", "公斤", "different things"), (1, "furlong", "m", "unknown unit: furlong"),
        (1, "C", "m", "different things"),
        (-300, "C", "K", "absolute zero"), (1e308, "km", "nm", "too large"), (1, "x" * 999, "m", "unknown unit"),
    ],
)  # fmt: skip
def test_units_that_are_refused(amount: float, source: str, target: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        convert(amount, source, target)


# The others


def test_clock(box: Toolbox) -> None:
    for city in ("东京", "Tokyo", "Asia/Tokyo", " new york ", "纽约", "上海市", "UTC"):
        assert re.fullmatch(r"\d\d:\d\d", now(box, "get_time", city_name=city)["time"]), city
    for city in ("火星", "", "../../etc/passwd", "/etc/localtime", "\0", "x" * 10_000):
        assert now(box, "get_time", city_name=city) == {"error": "not found"}, city


def test_weather_is_made_up_and_says_so_to_people(box: Toolbox) -> None:
    (outcome,) = box.call_now([ToolCall("get_weather", {"city_name": "北京"})])
    assert json.loads(outcome.text) == {"condition": "晴", "temperature": 21}
    assert "made up" in outcome.whole
    assert now(box, "get_weather", city_name="New York") == {"condition": "cloudy", "temperature": 8}
    assert now(box, "get_weather", city_name="火星") == {"error": "not found"}


def test_chance(box: Toolbox) -> None:
    first = now(box, "random_number_generator", seed=42, range=(1, 100))
    assert first == now(box, "random_number_generator", seed="42", range=["1", 100])
    assert 1 <= first["result"] < 100
    assert "error" in now(box, "random_number_generator", seed=1, range=[5, 5])
    assert "error" in now(box, "random_number_generator", seed=1, range=[5])
    assert 2 <= now(box, "roll_dice", count=2)["result"] <= 12
    assert "error" in now(box, "roll_dice", count=10**15, sides=6)


# Search in a folder


def test_search(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("the password is tulip")
    root = tmp_path / "notes"
    (root / "trip" / ".hidden").mkdir(parents=True)
    (root / "plan.md").write_text("# Plan\nBuy TULIP bulbs\n")
    (root / "trip" / "list.txt").write_bytes("第一行\n在北京买郁金香\n".encode("gb18030"))
    (root / "trip" / ".hidden" / "x.txt").write_text("tulip")
    (root / "tulip.bin").write_bytes(b"\0tulip")
    (root / "link.txt").symlink_to(outside / "secret.txt")
    (root / "folder").symlink_to(outside)
    os.mkfifo(root / "pipe")
    large = root / "large.txt"
    large.write_bytes(b"tulip" + bytes(2 << 20))
    with Toolbox.open([f"search_files={root}"]) as box:

        async def look(query: str, may: bool = True) -> str:
            async def permit(*_: Any) -> bool:
                return may

            return (await box.call(ToolCall("search_files", {"query": query}), permit)).text

        assert "did not permit" in asyncio.run(look("tulip", may=False))
        found = json.loads(asyncio.run(look("tulip")))["result"]
        assert found == "plan.md:2: Buy TULIP bulbs; tulip.bin"
        assert json.loads(asyncio.run(look("郁金香"))) == {"result": "trip/list.txt:2: 在北京买郁金香"}
        for query in ("password", "secret", "  ", "x.txt", "../outside"):
            assert "error" in json.loads(asyncio.run(look(query)))


@pytest.mark.parametrize(
    "source", ["search_files", "search_files=", "search_files=/no/such", f"search_files={__file__}"]
)
def test_search_needs_a_folder(source: str) -> None:
    with pytest.raises(ToolError, match="folder"):
        Toolbox.open([source])


# As tools


def test_names() -> None:
    with Toolbox.open(["examples"]) as box:
        assert [spec.name for spec in box.specs] == list(EXAMPLES)
    with Toolbox.open(["calculator", "get_time"]) as box:
        assert [spec.name for spec in box.specs] == ["calculator", "get_time"]


def test_they_are_described_as_the_demo_model_has_learned() -> None:
    """As in the official demo, and as in `recipes/demo/corpus/tools.py`."""
    with Toolbox.open(["get_weather", "calculator"]) as box:
        assert [spec.given for spec in box.specs] == [
            {
                "name": "get_weather",
                "description": "Get the current weather for `city_name`",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "city_name": {"type": "string", "description": "The name of the city to be queried"}
                    },
                    "required": ["city_name"],
                },
            },
            {
                "name": "calculator",
                "description": "计算表达式",
                "parameters": {
                    "type": "object",
                    "properties": {"expression": {"type": "string", "description": "表达式"}},
                    "required": ["expression"],
                },
            },
        ]


@pytest.fixture(scope="module")
def assistant() -> Iterator[Assistant]:
    with Assistant.load() as made:
        yield made


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("北京的天气怎么样？", "北京的天气：晴，21度。"),
        ("How is the weather in Paris?", "The weather in Paris: light rain, 10 degrees."),
        ("计算123+456", "123+456=579。"),
        ("35*17等于多少？", "35*17=595。"),
        ("用种子42生成1到100的随机数", "1到100的随机数：82。"),
        ("东京现在几点？", "东京的时间：{time}。"),
    ],
)
def test_the_demo_model_uses_them(assistant: Assistant, box: Toolbox, question: str, answer: str) -> None:
    new = assistant.run(question, box, params={"temperature": 0})
    time = json.loads(new[1].content).get("time", "")
    assert new[-1].content == answer.format(time=time)


def test_they_take_neither_network_nor_torch() -> None:
    code = (
        "import sys; from chatglm.tools import Toolbox, Function; from chatglm.tools.examples import EXAMPLES;"
        "absent = {'torch', 'pydantic', 'mcp', 'IPython', 'httpx', 'requests', 'yaml'} & set(sys.modules);"
        "assert not absent, absent"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
