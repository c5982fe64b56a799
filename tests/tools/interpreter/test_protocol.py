"""What the model reads of a cell, and the interpreter as a tool."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from chatglm.chat.messages import ToolCall
from chatglm.errors import QueueFullError
from chatglm.tools.interpreter import tool as module
from chatglm.tools.interpreter.limits import Cell, Limits
from chatglm.tools.interpreter.protocol import observation, upload_notice
from chatglm.tools.interpreter.sandbox import Protection
from chatglm.tools.interpreter.tool import Interpreter
from chatglm.tools.tool import Consent
from chatglm.tools.toolbox import Toolbox

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x02\x00\x00\x00\x02\x08\x00\x00\x00\x00" + bytes(8)


class Scripted:
    """Kernels that answer with a given cell."""

    def __init__(self, answer: Cell | Exception, tier: Any = "full") -> None:
        self.answer, self.tier, self.limits = answer, tier, Limits()
        self.asked: list[Any] = []

    async def run(self, conversation: str, code: str, **options: Any) -> Cell:
        self.asked.append((conversation, code, options))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def call(kernels: Scripted, code: Any = "1", name: str = "interpreter") -> Any:
    box = Toolbox([Interpreter(kernels, "c", user="u")])  # type: ignore[arg-type, list-item]
    return asyncio.run(box.call(ToolCall(name, {"code": code})))


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Cell("55\n"), "55"),
        (Cell(), ""),
        (Cell(pictures=(PNG,)), "[Image]"),
        (Cell("drawn\n", (PNG, PNG)), "drawn\n[Image]\n[Image]"),
        (Cell("a\n", error="Traceback …\n\nNameError: x\n"), "a\nTraceback …\n\nNameError: x"),
        (Cell("a", ended="more than 1024 MiB of memory"), "a\n[the kernel was ended: more than 1024 MiB of memory]"),
        (Cell("中" * 1024), "中" * 1024),
        (Cell("中" * 1025), "中" * 1024 + " [TRUNCATED]"),
    ],
)
def test_observations_have_the_official_form_and_pass_the_toolbox_as_they_are(cell: Cell, text: str) -> None:
    assert observation(cell) == text
    assert call(Scripted(cell)).text == text


def test_what_says_most_is_kept_of_a_long_cell() -> None:
    error = "Traceback (most recent call last):\n" + "frame\n" * 500 + "ValueError: the reason"
    text = observation(Cell("x" * 5_000, (PNG,), error=error, ended="its process ended itself"))
    assert len(text) <= 1024
    assert text.startswith("xxxx")
    for part in (" [TRUNCATED]\n", "Traceback (most recent", "ValueError: the reason\n", "ended itself]\n"):
        assert part in text
    assert text.endswith("\n[Image]")


def test_an_uploaded_file_is_announced_as_in_the_official_prompts() -> None:
    assert upload_notice("a.csv", 35380) == "#File: /mnt/data/a.csv\n#Size: 35380\n#File uploaded"


def test_a_call_runs_in_its_conversation_and_people_get_the_whole() -> None:
    kernels = Scripted(Cell("y" * 3_000, (PNG,), ("a.txt",), "E: x", "", 1.0))
    found = call(kernels, "print(1)", "python")
    assert kernels.asked == [("c", "print(1)", {"user": "u", "on_output": None})]
    assert found.whole == "y" * 3_000 + "\nE: x"
    assert (found.pictures, found.files, found.failed) == ((PNG,), ("a.txt",), True)
    assert not call(Scripted(Cell("1"))).failed


@pytest.mark.parametrize("code", [None, 3, ["print(1)"]])
def test_a_call_without_code_is_told(code: Any) -> None:
    kernels = Scripted(Cell())
    assert "code: expected the Python code" in call(kernels, code).text
    assert kernels.asked == []


def test_full_kernels_are_an_observation() -> None:
    found = call(Scripted(QueueFullError("all 8 Python kernels are running code")))
    assert found.failed
    assert "all 8 Python kernels" in found.text


@pytest.mark.parametrize(
    ("tier", "machine", "consent"),
    [
        ("full", "none", Consent.NEVER),
        ("confined", "none", Consent.NEVER),
        ("none", "full", Consent.ALWAYS),
        (None, "full", Consent.NEVER),
        (None, "confined", Consent.NEVER),
        (None, "none", Consent.ALWAYS),
    ],
)
def test_a_person_is_asked_where_nothing_confines_the_code(
    tier: Any, machine: Any, consent: Consent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "protection", lambda: Protection(machine, {}))
    assert Interpreter(Scripted(Cell(), tier)).consent is consent  # type: ignore[arg-type]
