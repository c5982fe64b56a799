"""docs/langchain.md: its examples run (marked as in docs/tools.md), and its lists are complete."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from client_scripts import run_script
from test_tools_docs import Example, examples

import chatglm.langchain

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = (REPOSITORY / "docs" / "langchain.md").read_text("utf-8")
EXAMPLES = examples(TEXT)

pytestmark = [
    pytest.mark.filterwarnings("ignore::langchain_core._api.deprecation.LangChainDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*langchain-community:DeprecationWarning"),
]


def test_every_example_says_whether_it_runs() -> None:
    assert sum(example.mark == "run" for example in EXAMPLES) == 5
    assert all(re.fullmatch("run|not run: .+", example.mark) for example in EXAMPLES)


@pytest.mark.parametrize("example", [one for one in EXAMPLES if one.mark == "run"], ids=str)
def test_example(example: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "page.py"
    script.write_text("\n" * (example.line - 1) + example.text, "utf-8")
    runpy.run_path(str(script))
    assert capsys.readouterr().out.strip()


def test_examples_that_do_not_run_are_python() -> None:
    for example in EXAMPLES:
        compile(example.text, "page.py", "exec")


@pytest.mark.parametrize("example", [one for one in EXAMPLES if "a server" in one.mark], ids=str)
def test_example_of_another_framework(example: Example, endpoint: str, tmp_path: Path) -> None:
    """In an environment of its own, which has what the example needs: its packages and ours do not get on."""
    script = tmp_path / "page.py"
    text = example.text.replace("http://127.0.0.1:8000", endpoint).replace('"demo"', '"chatglm3-6b"')
    script.write_text(text, "utf-8")
    assert "你好" in run_script("frameworks", script)


def test_every_name_and_every_script_is_told_of() -> None:
    for name in chatglm.langchain.__all__:
        assert f"`{name}`" in TEXT
    for script in (REPOSITORY / "examples" / "langchain").glob("*.py"):
        assert f"`{script.name}`" in TEXT
