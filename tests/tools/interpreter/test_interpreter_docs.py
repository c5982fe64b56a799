"""docs/interpreter.md: its examples run (marked as in docs/tools.md), and its figures are those of the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_tools_docs import Example, examples

from chatglm.tools.interpreter.kernel import RESTARTED
from chatglm.tools.interpreter.limits import Limits
from kernels import need_sandbox

PAGE = Path(__file__).resolve().parents[3] / "docs" / "interpreter.md"
TEXT = PAGE.read_text("utf-8")
EXAMPLES = examples(TEXT)


def test_every_example_runs() -> None:
    assert len(EXAMPLES) == 2
    assert {example.mark for example in EXAMPLES} == {"run"}


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_example(example: Example, tmp_path: Path) -> None:
    need_sandbox()
    script = tmp_path / "page.py"
    script.write_text("\n" * (example.line - 1) + example.text, "utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip("\n").endswith(example.printed.rstrip("\n"))
    if "123 * 456" in example.text:
        assert "56088" in done.stdout


def test_limits_and_notes_are_those_of_the_code() -> None:
    rows = dict(re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (.+?) \|", TEXT, re.MULTILINE))
    usual = Limits()
    assert rows["`memory`"].startswith(f"{usual.memory >> 30} GiB")
    assert rows["`folder`, `files`"] == f"{usual.folder >> 20} MiB, {usual.files:,} files and folders"
    assert rows["`processes`, `open_files`"] == f"{usual.processes}, {usual.open_files}"
    assert rows["`seconds`"] == f"{usual.seconds:g} of a cell"
    assert rows["`shown`, `told`"].startswith(f"{usual.shown >> 10} KiB for people, {usual.told:,} characters")
    assert RESTARTED in TEXT
