"""Both READMEs and the guides to the models: what they show is what happens.

Python blocks run against a tiny checkpoint. A `console` block is a terminal: lines behind `$` (and `>` where one goes
on) are run in their order in one folder, and print what stands below them, where `…` stands for anything. There
`path/to/chatglm3-6b` is the demo model. Shell blocks (`sh`) are checked by name: the command exists.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from cafe import check_what_it_learned
from chatglm.cli import COMMANDS
from chatglm.loading import demo_folder, load_parts

ROOT = Path(__file__).resolve().parents[2]
READMES = (ROOT / "README.md", ROOT / "README.zh.md")
PAGES = (*READMES, ROOT / "docs" / "models.md", ROOT / "docs" / "zh" / "models.md")


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """The fenced blocks of a language, each with the `##` heading above it."""
    found, section = [], ""
    for part in re.split(r"^(?=## )", page.read_text("utf-8"), flags=re.MULTILINE):
        section = part.splitlines()[0].removeprefix("## ")
        found += [(section, text) for text in re.findall(rf"^```{language}\n(.*?)^```", part, re.DOTALL | re.MULTILINE)]
    return found


def code_of(snippet: str) -> str:
    """Without comments, in which languages differ."""
    return re.sub(r"\s+# .*$", "", snippet, flags=re.MULTILINE)


SNIPPETS = {code_of(text): f"{page.name}-{n}" for page in PAGES for n, (_, text) in enumerate(blocks(page, "python"))}


@pytest.mark.parametrize("snippet", SNIPPETS, ids=SNIPPETS.values())
def test_snippet(snippet: str, copied, tmp_path: Path) -> None:
    """As printed, but for the device, the path, and answers kept short."""
    folder, adapter = copied("chatglm3"), tmp_path / "adapter"
    (folder / "generation_config.json").write_text('{"max_new_tokens": 4}')
    code = snippet.replace(".half().cuda()", ".float()").replace('"path/to/chatglm3-6b"', "path")
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


@dataclass(frozen=True)
class Step:
    command: str
    shown: str

    @property
    def pattern(self) -> str:
        return ".*?".join(map(re.escape, self.shown.strip().split("…")))


def steps(text: str) -> list[Step]:
    """What is typed in a console block, each with what is shown below it."""
    found = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        typed = 1
        while lines[typed - 1].endswith("\\"):
            typed += 1
        command = "\n".join(line.removeprefix("> ") for line in lines[:typed])
        found.append(Step(command, "\n".join(lines[typed:])))
    return found


CONSOLES: dict[str, list[Step]] = {}
for _section, _text in blocks(READMES[0], "console"):
    CONSOLES.setdefault(_section, []).extend(steps(_text))


def test_what_a_console_block_holds() -> None:
    text = "$ one \\\n>   two\nshown …\nmore\n$ three &\n"
    assert steps(text) == [Step("one \\\n  two", "shown …\nmore"), Step("three &", "")]
    assert re.fullmatch(steps(text)[0].pattern, "shown x\ny\nmore", re.DOTALL)
    assert not re.fullmatch(steps(text)[0].pattern, "shown x\nless", re.DOTALL)


@contextmanager
def started(command: str, port: int, cwd: Path, env: dict[str, str]) -> Iterator[None]:
    """A command in the background, from when its port answers until the block's end."""
    with (cwd / "background.log").open("w+b") as log:
        process = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=cwd, env=env, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 120
            while True:
                assert process.poll() is None, Path(log.name).read_text("utf-8")
                with socket.socket() as client:
                    if client.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert time.monotonic() < deadline, Path(log.name).read_text("utf-8")
                time.sleep(0.1)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def typed(command: str, folder: Path, env: dict[str, str], *, stderr: int) -> subprocess.CompletedProcess[str]:
    """A command as it runs in a folder without a terminal."""
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
        text=True, encoding="utf-8", timeout=600, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("section", CONSOLES)
def test_console(section: str, tmp_path: Path) -> None:
    if any("curl" in step.command for step in CONSOLES[section]) and shutil.which("curl") is None:
        pytest.skip("needs curl")
    port = free_port()
    for name in ("examples", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    programs = tmp_path / "bin"
    programs.mkdir()
    command = programs / "chatglm"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m chatglm.cli "$@"\n')
    command.chmod(0o755)
    env = {
        **os.environ,
        "CHATGLM_HOME": str(tmp_path / "home"),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
    }
    with ExitStack() as stack:
        for step in CONSOLES[section]:
            text = step.command.replace("path/to/chatglm3-6b", str(demo_folder())).replace("8000", str(port))
            if text.endswith("&"):
                stack.enter_context(started(text.removesuffix("&"), port, tmp_path, env))
                continue
            done = typed(text, tmp_path, env, stderr=subprocess.STDOUT)
            assert done.returncode == 0, done.stdout
            printed = "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())
            assert re.fullmatch(step.pattern, printed, re.DOTALL), f"{step.command}\n{printed}"
    if section == "I want to fine-tune":
        check_the_guide_to_training(tmp_path, env)


def check_the_guide_to_training(folder: Path, env: dict[str, str]) -> None:
    """The guide shows README's commands and two more, which are run here on what those have trained."""
    guide = "\n".join(text for _, text in blocks(ROOT / "docs" / "training.md", "sh"))
    shown = re.findall(r"^chatglm .*(?:cafe|out/merged).*$", guide, re.MULTILINE)
    trained = [step.command for step in CONSOLES["I want to fine-tune"]]
    assert [command for command in shown if command in trained] == trained
    printed = {}
    for command in shown:
        if command not in trained:
            short = " --samples 5 --json" if "evaluate" in command else ""
            done = typed(command + short, folder, env, stderr=subprocess.PIPE)
            assert done.returncode == 0, done.stderr
            printed[command.split()[1]] = done.stdout
    assert set(printed) == {"finetune", "evaluate"}
    assert "小豆" in printed["finetune"]  # the preview
    assert json.loads(printed["evaluate"])["loss"] < 0.2
    model, _, form = load_parts(adapter=folder / "out" / "cafe")
    check_what_it_learned(model.float(), form, reads_orders=True)


def test_both_languages_show_the_same() -> None:
    """Commands, outputs and code; so what one of them shows is run for both."""
    for language in ("console", "sh", "python"):
        english, chinese = ([code_of(text) for _, text in blocks(page, language)] for page in READMES)
        assert english == chinese, language


def test_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    shell = "\n".join(text for page in PAGES for _, text in blocks(page, "sh"))
    commands = [shlex.split(line, comments=True) for line in shell.splitlines()]
    assert ["make", "test"] in commands
    for words in filter(None, commands):
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), words
        elif words[0] == "chatglm":
            assert words[1] in COMMANDS, words


def test_ci_runs_what_readme_names() -> None:
    assert (ROOT / ".ci" / "run").read_text("utf-8").rstrip().endswith("exec make test")


def test_the_workflows_call_the_same_commands() -> None:
    text = (ROOT / ".github" / "workflows" / "test.yml").read_text("utf-8")
    commands = [step["run"] for step in yaml.safe_load(text)["jobs"]["test"]["steps"] if "run" in step]
    assert {"make test", "make docs"} <= set(commands)
    assert any(command.endswith("make chat") for command in commands)
    wheels = (ROOT / ".github" / "workflows" / "wheels.yml").read_text("utf-8")
    assert {"wheels", "source", "publish"} == set(yaml.safe_load(wheels)["jobs"])


def test_links() -> None:
    for document in [*READMES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", document.read_text("utf-8")):
            assert (document.parent / target).exists(), f"{document.relative_to(ROOT)} links to {target}"


def test_the_picture_and_the_table_show_the_results() -> None:
    speed = runpy.run_path(str(ROOT / "docs" / "pictures" / "speed.py"))
    shown = json.dumps(speed["figures"](), ensure_ascii=False)
    for name in ("speed.svg", "speed.zh.svg"):
        picture = ElementTree.parse(ROOT / "docs" / "pictures" / name)
        [about] = picture.iter("{http://purl.org/dc/elements/1.1/}description")
        assert about.text == shown, f"python docs/pictures/speed.py draws {name} anew"
    rows = json.loads((ROOT / "benchmarks" / "results" / "bench_cpu.json").read_text("utf-8"))["summary"]
    ratio = {
        row["metric"]: f"{row['ratio']['median']:.2f}"
        for row in rows
        if row["mode"] == "slow" and row["engine"] == "llama.cpp Q4_0"
    }
    english, chinese = (page.read_text("utf-8") for page in READMES)
    one, four, eight = ratio["decode @32"], ratio["batch 4"], ratio["batch 8"]
    assert f"{one}× / {four}× / {eight}×" in english
    assert f"{one} / {four} / {eight} 倍" in chinese
