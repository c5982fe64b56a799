"""The files of `deploy/`, as far as they can be checked without installing them."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from chatglm.cli import serve

UNIT = Path(__file__).parents[2] / "deploy" / "chatglm.service"


def test_the_units_command_is_one_that_serve_understands() -> None:
    (command,) = re.findall(r"^ExecStart=\S+ serve (.*)$", UNIT.read_text("utf-8"), re.MULTILINE)
    parser = argparse.ArgumentParser(exit_on_error=False)
    serve.add_arguments(parser)
    arguments = parser.parse_args(command.replace("$CHATGLM_OPTIONS", "--model m --name n").split())
    stop = int(re.findall(r"^TimeoutStopSec=(\d+)$", UNIT.read_text("utf-8"), re.MULTILINE)[0])
    assert arguments.drain_delay + arguments.drain + 10 < stop


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_reads_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text("utf-8"), flags=re.M))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_commands_of_the_page_are_ones_that_serve_understands() -> None:
    text = (UNIT.parents[1] / "docs" / "scale.md").read_text("utf-8")
    commands = re.findall(r"^chatglm serve ([^\n#]*)", text, re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        parser = argparse.ArgumentParser(exit_on_error=False)
        serve.add_arguments(parser)
        parser.parse_args(shlex.split(command))
