"""docs/serving.md and its Chinese guide: every Python example runs, against a real server with the demo model.

Above each example stands who runs it: `<!-- client: NAME -->`, where NAME is an environment of
`clients/environments.py`, or `own` for the one that runs the tests. Examples of one `##` section for the same client
run as one script, in their order, so that a later one may use what an earlier one has made. A `sh` block runs if it is
marked so: `<!-- client: sh -->`. In all of them `http://127.0.0.1:8000` stands for the server.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from client_scripts import OWN, run_script
from environments import ENVIRONMENTS

from chatglm.assistant import Assistant
from chatglm.tools.interpreter.pool import Kernels
from chatglm.tools.toolbox import Toolbox
from kernels import need_sandbox
from server import serving

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"
ADDRESS = "http://127.0.0.1:8000"
SHELL = "sh"
WITH_TOOLS = "Tools on the server"
"""The section whose server runs tools."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    section: str
    client: str
    language: str
    line: int
    text: str


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, each with the client that the comment above it names."""
    found = []
    section = client = ""
    lines = enumerate(page.splitlines(), 1)
    for number, line in lines:
        if fence := re.fullmatch(r"\s*```(\w*).*", line):
            inner = []
            for _, code in lines:
                if code.strip() == "```":
                    break
                inner.append(code)
            found.append(Block(section, client, fence[1], number + 1, "\n".join(inner)))
            client = ""
        elif mark := re.fullmatch(r"\s*<!-- client: (\S+) -->\s*", line):
            client = mark[1]
        elif line.strip():
            client = ""
            if line.startswith("## "):
                section = line.removeprefix("## ").strip()
    return found


@pytest.fixture(scope="module")
def demo_with_tools() -> Iterator[str]:
    need_sandbox()
    with (
        Assistant.load(dtype="float32") as assistant,
        Toolbox.open(["calculator", "get_weather"]) as tools,
        serving({"demo": assistant}, toolbox=tools, kernels=Kernels(spare=0)) as url,
    ):
        yield url


BLOCKS = [*blocks(PAGE.read_text("utf-8")), *blocks((PAGE.parent / "zh" / "serving.md").read_text("utf-8"))]
SCRIPTS = list(dict.fromkeys((block.section, block.client) for block in BLOCKS if block.client))


def unmarked(found: list[Block]) -> list[int]:
    """Lines of the Python examples that nobody runs."""
    return [block.line for block in found if block.language == "python" and not block.client]


def test_every_example_says_who_runs_it() -> None:
    assert not unmarked(BLOCKS), "above a Python example: <!-- client: own -->, or another environment"
    known = {OWN, SHELL, *ENVIRONMENTS}
    assert {block.client for block in BLOCKS} <= {"", *known}
    for block in BLOCKS:
        assert (block.client == SHELL) == (bool(block.client) and block.language == "sh"), block
    assert SCRIPTS


def test_what_is_found() -> None:
    page = (
        "## A\n\n<!-- client: own -->\n\n```python\nx\n```\n\n```python\ny\n```\n"
        "<!-- client: own -->\ntext\n```python\nz\n```\n"
    )
    first, second, third = blocks(page)
    assert (first.section, first.client, first.line, first.text) == ("A", "own", 6, "x")
    assert (second.client, third.client) == ("", "")
    assert unmarked([first, second, third]) == [10, 15]


@pytest.mark.parametrize(("section", "client"), SCRIPTS)
def test_example(section: str, client: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """It ends without an error. Lines of a traceback are those of the page."""
    demo: str = request.getfixturevalue("demo_with_tools" if section == WITH_TOOLS else "demo")
    text = ""
    for block in BLOCKS:
        if (block.section, block.client) == (section, client):
            text += "\n" * (block.line - 1 - text.count("\n")) + block.text + "\n"
    text = text.replace(ADDRESS, demo)
    if client == SHELL:
        if shutil.which("curl") is None:
            pytest.skip("needs curl")
        done = subprocess.run(
            ["sh", "-eu"], input=text.replace("curl ", "curl --fail-with-body "), capture_output=True, text=True,
            timeout=300, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return
    script = tmp_path / "serving.md.py"
    script.write_text(text, "utf-8")
    assert run_script(client, script).strip(), "an example shows something"
