"""README's Python snippets run, against a tiny checkpoint; its commands are those of the Makefile and the CLI."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippet(number: int, copied, tmp_path: Path) -> None:
    """As printed, but for the device, the path, and answers kept short."""
    folder, adapter = copied("chatglm3"), tmp_path / "adapter"
    (folder / "generation_config.json").write_text('{"max_new_tokens": 4}')
    code = SNIPPETS[number].replace(".half().cuda()", ".float()").replace('"path/to/chatglm3-6b"', "path")
    code = code.replace('"path/to/adapter"', "adapter")
    before = f"path, adapter = {str(folder)!r}, {str(adapter)!r}\n"
    if "adapter" in code:
        before += (
            "import peft\nfrom chatglm import AutoModel\n"
            "config = peft.LoraConfig(task_type='CAUSAL_LM', target_modules=['query_key_value'])\n"
            "peft.get_peft_model(AutoModel.from_pretrained(path), config).save_pretrained(adapter)\n"
        )
    done = subprocess.run([sys.executable, "-c", before + code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def test_commands_exist() -> None:
    shell = "\n".join(re.findall(r"```(?:sh|bash)\n(.*?)```", README, re.DOTALL))
    makefile = (ROOT / "Makefile").read_text("utf-8")
    commands = [shlex.split(line, comments=True) for line in shell.splitlines()]
    assert ["make", "test"] in commands
    for words in filter(None, commands):
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), words
        elif words[0].endswith("chatglm"):
            from chatglm.cli import COMMANDS

            assert words[1] in COMMANDS, words
        elif words[0].endswith("python"):
            subprocess.run([sys.executable, ROOT / words[1], "--help"], check=True, capture_output=True)


def test_ci_runs_what_readme_names() -> None:
    assert (ROOT / ".ci" / "run").read_text("utf-8").rstrip().endswith("exec make test")


def test_links() -> None:
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text("utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
