"""`chatglm info`."""

from __future__ import annotations

import json

import pytest

from chatglm import __version__
from chatglm.cli import main
from chatglm.kernels import native


def test_it_says_which_kernels_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["chatglm"].strip() == __version__
    assert lines["kernels"].strip() == native.info().variant
    assert lines["selected because"].strip() == native.info().reason


def test_json_holds_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["threads"] == native.info().threads
    assert found["kernels here"][-1] == "reference"
