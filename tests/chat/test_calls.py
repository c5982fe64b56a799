"""Tool calls are read, and nothing else happens."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chatglm.chat.calls import (
    ArgumentStream,
    as_json,
    fenced,
    parse_json_arguments,
    parse_python_call,
    render_python_call,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(max_size=12) | st.sampled_from(["symbol", "def", "a-b", "ﬁ", "True", "北京"]), JSON))
def test_round_trip(arguments: dict) -> None:
    assert parse_python_call(render_python_call(arguments)) == arguments


def test_numbers_that_json_does_not_have() -> None:
    read = parse_python_call(render_python_call({"a": math.inf, "b": [-math.inf], "c": math.nan}))
    assert read == {"a": math.inf, "b": [-math.inf], "c": None}


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("```python\ntool_call(symbol='10111')\n```", {"symbol": "10111"}),
        (" ```python\ntool_call(symbol='10111')\n```", {"symbol": "10111"}),
        ("tool_call(x=[1,2], y={'k': None})", {"x": [1, 2], "y": {"k": None}}),
        ("```py\ntool_call()\n```\n", {}),
        ("```\ntool_call(flag=true, none=null, off=False)\n```", {"flag": True, "none": None, "off": False}),
        ("tool_call(n=-1.5, m=+2, t=(1,))", {"n": -1.5, "m": 2, "t": (1,)}),
        ("tool_call(text='中文\\n第二行')", {"text": "中文\n第二行"}),
        ("tool_call(\n    a=1,\n    b=2,\n)", {"a": 1, "b": 2}),
        ("tool_call(a=1, **{'x-y': 2})", {"a": 1, "x-y": 2}),
        ("```python\n# 查询\ntool_call(a=1)  # it's done\n```", {"a": 1}),
        ("tool_call(a=r'\\d+(x).y', b='it\\'s', c='a' \"b\")", {"a": "\\d+(x).y", "b": "it's", "c": "ab"}),
        (
            "tool_call(a='''f(x).y\n+1''', b=1.5e-3, c=.5, d=1_000)",
            {"a": "f(x).y\n+1", "b": 1.5e-3, "c": 0.5, "d": 1000},
        ),
    ],
)
def test_calls(text: str, arguments: dict) -> None:
    assert parse_python_call(text) == arguments


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "print(1)",
        "tool_call",
        "tool_call(1)",
        "tool_call(a=b)",
        "tool_call(a=f())",
        "tool_call(a=1, a=2)",
        "tool_call(**x)",
        "tool_call(**{1: 2})",
        "tool_call(a=1, **{'a': 2})",
        "tool_call(a=1).b",
        "x.tool_call(a=1)",
        "tool_call(a=1); import os",
        "tool_call(a=[x for x in (1,)])",
        "tool_call(a='x' + 'y')",
        "tool_call(a=f'{1}')",
        "tool_call(a=-True)",
        "tool_call(a=lambda: 1)",
        "tool_call(a=__import__('os').system('true'))",
        "tool_call(a=1\x00)",
        "tool_call(a=" + "[" * 5000 + "]" * 5000 + ")",
        "tool_call(a='x')" * 2,
        "```python\n```",
        "tool_call(a=" + "9" * 10000 + ")",
        "tool_call(a={[]: 1})",
        "tool_call(a={**{}})",
        "tool_call(a=b'x')",
        "tool_call(a=1j)",
        "tool_call(a=...)",
        "tool_call(a='" + "x" * (1 << 20) + "')",
    ],
)
def test_what_is_no_call(text: str) -> None:
    assert parse_python_call(text) is None


def test_nothing_is_executed() -> None:
    import builtins

    import chatglm.chat.calls as calls

    builtins_touched = [name for name in ("eval", "exec", "compile", "__import__") if name in vars(calls)]
    assert not builtins_touched
    assert parse_python_call("tool_call(a=print('executed'))") is None
    assert hasattr(builtins, "eval")


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=60) | st.text(alphabet="tool_call(=)[]{}'\"#,*:1a\n\\ ", max_size=40).map("tool_call(a=".__add__)
)
def test_any_text_is_answered(text: str) -> None:
    assert parse_python_call(text) is None or isinstance(parse_python_call(text), dict)
    assert parse_json_arguments(text) is None or isinstance(parse_json_arguments(text), dict)


def test_json() -> None:
    assert parse_json_arguments('{"city": "北京", "days": 3}') == {"city": "北京", "days": 3}
    for text in ("", "[1]", '"x"', "{", '{"a": 1} {"b": 2}', "[" * 100_000, "nope"):
        assert parse_json_arguments(text) is None


def test_names_of_arguments_are_keywords_where_python_has_them() -> None:
    assert render_python_call({"城市": "北京", "a-b": 1}) == "```python\ntool_call(城市='北京', **{'a-b': 1})\n```"


@pytest.mark.parametrize(
    "rest",
    [
        ".a" * 100_000,
        ".a1" * 100_000,
        "()" * 100_000,
        "(a=" + "1+" * 100_000 + "1)",
        "(a=" + "[0]" * 100_000 + ")",
        "(a=" + "'x'%" * 100_000 + "1)",
        "(a='x'" + ".a" * 100_000 + ")",
        "(a=f'{x" + ".a" * 100_000 + "}')",
        '(a=f"{x' + ".a" * 100_000 + '}")',
        "(a=1\\\n" + ".a" * 100_000 + ")",
        "(#'\na" + ".a" * 100_000 + ")",
    ],
    ids=lambda rest: rest[:12],
)
def test_chains_do_not_reach_the_compiler(rest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ast.parse` of Python 3.10 ends the process on these."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("ast.parse was called")

    # Only what the module sees: pytest needs `ast` to report a failure.
    monkeypatch.setattr("chatglm.chat.calls.ast", SimpleNamespace(parse=refuse))
    assert parse_python_call("tool_call" + rest) is None


@pytest.mark.parametrize("text", [" ", "``` ", "\n", "'", "\\'", "'''\\", "\"'", "1_", "tool_call   "])
def test_time_is_linear(text: str) -> None:
    """A model that repeats itself does not stop the server. Each is a way to make a careless pattern quadratic."""
    start = time.perf_counter()
    for before in ("```python\n", "tool_call(a=", "tool_call(a='''"):
        assert parse_python_call(before + text * 100_000) is None
        assert fenced(before + text * 100_000) is None or text == "``` "
    assert time.perf_counter() - start < 10


@given(st.text(alphabet="` \n\tapython", max_size=24))
def test_a_fence_holds_what_was_put_in(code: str) -> None:
    assert fenced(f"```python\n{code}\n```") == code


WHOLE = {
    "tool_call()": "{}",
    "tool_call(city='北京', n=-3)": '{"city": "北京", "n": -3}',
    "tool_call(a='it\\'s', b=\"x\\\"y\", c=True, d=None)": '{"a": "it\'s", "b": "x\\"y", "c": true, "d": null}',
    "tool_call(**{'a b': [1, {'k': 'v'}], 'c': 2.5})": '{"a b": [1, {"k": "v"}], "c": 2.5}',
}


def told(text: str, cuts: Iterable[int], python: bool = True) -> tuple[str, ArgumentStream]:
    """What comes of a call in pieces."""
    reading = ArgumentStream(python)
    places = [0, *sorted({cut for cut in cuts if cut < len(text)}), len(text)]
    return "".join(reading.feed(text[begin:end]) for begin, end in pairwise(places)), reading


@pytest.mark.parametrize("call", WHOLE)
def test_arguments_of_a_call_that_is_cut_anywhere(call: str) -> None:
    """What is there is a beginning of the whole JSON text, and grows with the call."""
    assert told(f"```python\n{call}\n```", ())[0] == WHOLE[call]
    length = 0
    for end in range(len(call) + 1):
        so_far, _ = told(f"```python\n{call[:end]}", range(end + 20))
        assert WHOLE[call].startswith(so_far)
        assert len(so_far) >= length
        length = len(so_far)
    assert length == len(WHOLE[call])


CUTS = st.lists(st.integers(1, 200), max_size=12)
ARGUMENTS = st.dictionaries(st.text(max_size=6), JSON, max_size=4)


@given(ARGUMENTS, CUTS)
def test_arguments_in_pieces_are_the_json_of_the_whole(arguments: dict[str, Any], cuts: list[int]) -> None:
    """However a call is cut into pieces, in both syntaxes."""
    assume(as_json(arguments) is not None)
    for text, python in (
        (render_python_call(arguments), True),
        (json.dumps(arguments, ensure_ascii=False), False),
        (json.dumps(arguments, indent=1), False),
    ):
        made, reading = told(text, cuts, python)
        assert made == as_json((parse_python_call if python else parse_json_arguments)(text) or {})
        assert reading.done


@given(st.text(alphabet="tool_call(=)[]{}'\"#,*:1a\\u \n-.eTrue", max_size=40), CUTS, st.booleans())
def test_arguments_of_any_text_are_never_taken_back(text: str, cuts: list[int], python: bool) -> None:
    """If the text is a call after all, what was told is a beginning of its arguments, but for keys that come twice."""
    text = ("tool_call(a=" if python else '{"a": ') + text
    made, reading = told(text, cuts, python)
    assert made == told(text, (), python)[0]
    arguments = parse_python_call(text) if python else parse_json_arguments(text)
    whole = None if arguments is None else as_json(arguments)
    if whole is not None and not whole.startswith(made):
        assert reading.done
        assert json.loads(made) == arguments
        assert made.count('"a"') + made.count('""') > 1


@pytest.mark.parametrize(
    ("call", "most"),
    [
        ("tool_call(a='x' 'y')", '{"a": "x'),
        ("tool_call(a='''x''')", '{"a": '),
        ("tool_call(a=r'x')", '{"a": '),
        ("tool_call(a=(1, 2))", '{"a": '),
        ("tool_call(a='\\d')", '{"a": "'),
        ("tool_call(a=0x10, b=1)", '{"a": '),
        ("tool_call(a=1_000)", '{"a": '),
        ("tool_call(# so\n a=1)", "{"),
        ("tool_call(a=[1, 2,],)", '{"a": [1, 2]}'),
        ("tool_call(a=-0, b=-0.0, c=1e3)", '{"a": 0, "b": -0.0, "c": 1000.0}'),
    ],
)
def test_less_common_python_waits_for_the_whole_call(call: str, most: str) -> None:
    assert told(call, range(len(call)))[0] == most
    arguments = parse_python_call(call)
    assert arguments is not None
    assert str(as_json(arguments)).startswith(most)


def test_surrogate_pairs_in_json() -> None:
    text = '{"a": "\\ud83d\\ude42!", "b": "\\ud83dx"}'
    assert told(text, range(60), False)[0] == '{"a": "🙂!", "b": "'
