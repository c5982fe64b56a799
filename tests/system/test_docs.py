"""The documentation as pages: they build without a warning, and the cookbook's recipes run.

An indented block behind a recipe is what it prints last.
"""

from __future__ import annotations

import importlib
import inspect
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from test_tools_docs import Example, examples

from kernels import need_sandbox

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
RECIPES = examples((DOCS / "cookbook.md").read_text("utf-8"))
LOADING = (DOCS / "reference" / "loading.md").read_text("utf-8")
"""Tells of the Auto classes, which are subclasses of those of transformers, in words."""
REFERENCE = {
    name: page
    for page in (DOCS / "reference").glob("*.md")
    for name in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.MULTILINE)
}


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_recipe(recipe: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "Kernels" in recipe.text:
        need_sandbox()
    script = tmp_path / "recipe.py"
    script.write_text("\n" * (recipe.line - 1) + recipe.text, "utf-8")  # a traceback has the page's lines
    runpy.run_path(str(script))
    printed = capsys.readouterr().out
    assert printed.endswith(recipe.printed)
    assert printed.strip() or "Remote" in recipe.text


def test_the_pages_build(tmp_path: Path) -> None:
    """Strictly: a broken link, a page that no menu has, or a name without a docstring is an error."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    for name, page in REFERENCE.items():
        built = (tmp_path / "site" / "reference" / page.stem / "index.html").read_text("utf-8")
        assert f'id="{name}"' in built, f"{name} is not on {page.name}"
    for file in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|link|iframe)[^>]+(?:src|href)=[\"']?(https?:[^\"' >]+)", file.read_text("utf-8")
        )
        assert not [one for one in loaded if "github.com/chatglm" not in one], f"{file.name} loads from elsewhere"


@pytest.mark.parametrize(
    "room",
    [
        "chatglm",
        "chatglm.assistant",
        "chatglm.params",
        "chatglm.errors",
        "chatglm.loading",
        "chatglm.chat.messages",
        "chatglm.tools",
        "chatglm.knowledge",
        "chatglm.langchain",
        "chatglm.characters",
        "chatglm.encoders",
    ],
)
def test_public_names_are_in_the_reference_with_a_docstring(room: str) -> None:
    """Classes with their public methods, functions; aliases of types and constants are told of where they are used."""
    module = importlib.import_module(room)
    shown = {name.rpartition(".")[2] for name in REFERENCE}
    for name in module.__all__:
        value = getattr(module, name)
        if not (inspect.isclass(value) or inspect.isfunction(value)) or not value.__module__.startswith("chatglm"):
            continue
        assert name in shown or f"`{name}`" in LOADING, f"docs/reference has no {room}.{name}"
        assert inspect.getdoc(value), f"{room}.{name} has no docstring"
        if inspect.isclass(value):
            for method, member in vars(value).items():
                plain = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
                if not method.startswith("_") and (inspect.isfunction(plain) or isinstance(plain, property)):
                    assert inspect.getdoc(getattr(value, method)), f"{room}.{name}.{method} has no docstring"
