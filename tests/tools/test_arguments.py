"""Ten thousand calls as models write them, right and wrong, through both parsers and a toolbox: nothing is raised, and
nothing of them is run."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from model_outputs import outputs

from chatglm.chat.calls import ArgumentStream, parse_json_arguments, parse_python_call
from chatglm.chat.formats import ChatFormat, chat_format
from chatglm.chat.messages import Message, ToolCall
from chatglm.loading import AutoTokenizer
from chatglm.tools import Toolbox

COUNT = 10_000


async def echo(x: Any) -> Any:
    """Says it again."""
    return x


async def add(a: int, b: int = 1) -> int:
    """Adds."""
    return a + b


@pytest.fixture(scope="module")
def forms(checkpoint: Any) -> list[ChatFormat]:
    return [chat_format(AutoTokenizer.from_pretrained(checkpoint(name))) for name in ("chatglm3", "glm4")]


def test_outputs_of_models_as_arguments(forms: list[ChatFormat], tmp_path: Path, monkeypatch: Any) -> None:
    mark = tmp_path / "ran"
    for module, name in ((os, "system"), (os, "popen"), (subprocess, "Popen")):
        monkeypatch.setattr(module, name, lambda *args, **options: mark.touch())
    whole = refused = 0

    async def run() -> None:
        nonlocal whole, refused
        with Toolbox([echo, add]) as box:
            for text in outputs(COUNT, str(mark)):
                for form in forms:
                    call = form.read_call(text)
                    if call is None:  # as an answer that was cut short has it
                        name, _, body = text.partition("\n")
                        call = ToolCall(name, {}, text=body)
                    else:
                        whole += 1
                        if len(text) < 2000:  # it goes into the next prompt
                            form.text([Message("user", "q"), Message("assistant", "", (call,))])
                    outcome = await box.call(call)
                    refused += outcome.failed
                    assert len(outcome.text) <= 1024 + len(" [TRUNCATED]")
                    outcome.text.encode()
                    outcome.whole.encode()

    asyncio.run(run())
    assert not mark.exists()
    # The generator makes all kinds: of its calls some are whole, and of those some are carried out.
    assert whole > COUNT / 4
    assert 0 < 2 * COUNT - refused < whole


def test_streams_of_them(forms: list[ChatFormat], tmp_path: Path) -> None:
    """Piece by piece, as an answer comes."""
    for text in outputs(500, str(tmp_path / "ran"), seed=1):
        body = text.partition("\n")[2][:3000]
        for python in (True, False):
            stream = ArgumentStream(python)
            told = "".join(stream.feed(body[place : place + 7]) for place in range(0, len(body), 7))
            told.encode()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "text",
    [
        "tool_call(x=[" + "[]," * 300_000 + "])",
        "tool_call(x=" + "'a' " * 250_000 + ")",
        "tool_call(" + " " * 1_000_000 + ")",
        "tool_call(" + ",".join(f"k{number}=1" for number in range(100_000)) + ")",
        '{"x": [' + "1," * 500_000 + "1]}",
        '{"x": {' + '"a": [],' * 100_000 + '"b": 1}}',
    ],
    ids=["lists", "strings", "blanks", "names", "numbers", "members"],
)
def test_a_megabyte_of_values_is_no_call(text: str) -> None:
    """To read them would take seconds, and no tool needs them."""
    assert parse_python_call(text) is None
    assert parse_json_arguments(text) is None


def test_a_megabyte_of_text_is_one() -> None:
    text = "a, 'b' \\n" * 100_000
    assert parse_python_call(f'tool_call(x="{text}")') == {"x": text.replace("\\n", "\n")}
    assert parse_json_arguments(f'{{"x": "{text}"}}') == {"x": text.replace("\\n", "\n")}
    numbers = ", ".join(["1.25"] * 9_000)
    assert parse_python_call(f"tool_call(x=[{numbers}])") == parse_json_arguments(f'{{"x": [{numbers}]}}')
