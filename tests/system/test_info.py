"""`chatglm info`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from chatglm import __version__
from chatglm.cli import main
from chatglm.kernels import native
from chatglm.tools.interpreter import sandbox


def test_it_says_which_kernels_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["chatglm"].strip() == __version__
    assert lines["kernels"].strip() == native.info().variant
    assert lines["selected because"].strip() == native.info().reason


def test_the_version_is_the_same_everywhere() -> None:
    root = Path(__file__).resolve().parents[2]
    told = re.search('^version = "(.+)"$', (root / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert told is not None
    assert told[1] == __version__
    assert f"## {__version__} (" in (root / "docs" / "changelog.md").read_text("utf-8")


def test_json_holds_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["threads"] == native.info().threads
    assert found["kernels here"][-1] == "reference"


def test_it_says_how_code_is_confined_and_what_is_missing(monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    layers = {"namespaces": "bubblewrap is not installed: apt install bubblewrap", "landlock": "", "seccomp": ""}
    monkeypatch.setattr(sandbox, "protection", lambda: sandbox.Protection("confined", layers))
    assert main(["info"]) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["sandbox"].strip() == "confined"
    assert lines["sandbox: namespaces"].strip() == layers["namespaces"]
    assert lines["sandbox: landlock"].strip() == "works"
