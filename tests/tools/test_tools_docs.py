"""docs/tools.md and its Chinese guide: their examples run.

Above an example (Python, YAML) stands `<!-- run -->`; or `<!-- file: NAME -->` where it is a file that the examples
behind it use; or `<!-- not run: REASON -->`. An indented block right behind an example is what it prints last.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE, CHINESE = DOCS / "tools.md", DOCS / "zh" / "tools.md"


@dataclass(frozen=True)
class Example:
    line: int
    mark: str
    text: str
    printed: str

    def __str__(self) -> str:
        return f"line{self.line}"


def examples(page: str) -> list[Example]:
    found = []
    pattern = r"^(?:<!-- (.+) -->\n)?```(?:python|yaml)\n((?:(?!```).*\n)*)```\n(?:\n((?: {4}.*\n)+))?"
    for match in re.finditer(pattern, page, re.MULTILINE):
        line = page.count("\n", 0, match.start(2)) + 1
        printed = re.sub(r"^ {4}", "", match[3] or "", flags=re.MULTILINE)
        found.append(Example(line, match[1] or "", match[2], printed))
    return found


EXAMPLES = examples(PAGE.read_text("utf-8"))
IN_CHINESE = examples(CHINESE.read_text("utf-8"))


def test_what_is_found() -> None:
    page = (
        "a\n<!-- run -->\n```python\nx\n```\n\n    out\n\n```python\ny\n```\n<!-- file: a.py -->\n```python\nz\n```\n"
    )
    assert examples(page) == [
        Example(4, "run", "x\n", "out\n"),
        Example(10, "", "y\n", ""),
        Example(14, "file: a.py", "z\n", ""),
    ]


def test_every_example_says_whether_it_runs() -> None:
    assert len(EXAMPLES) >= 6
    assert IN_CHINESE
    for example in [*EXAMPLES, *IN_CHINESE]:
        assert re.fullmatch(r"run|file: \S+|not run: .+", example.mark), f"tools.md, line {example.line}"


@pytest.mark.parametrize("example", [one for one in [*EXAMPLES, *IN_CHINESE] if one.mark == "run"], ids=str)
def test_example(example: Example, tmp_path: Path) -> None:
    for other in EXAMPLES if example in EXAMPLES else IN_CHINESE:
        if other.mark.startswith("file: ") and other.line < example.line:
            (tmp_path / other.mark.removeprefix("file: ")).write_text(other.text, "utf-8")
    script = tmp_path / "page.py"
    script.write_text("\n" * (example.line - 1) + example.text, "utf-8")  # a traceback has the page's lines
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "an example shows something"
    assert done.stdout.endswith(example.printed)
