"""A short run of `benchmarks/kill.py`: kill -9 while tasks and a batch are under way."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "kill.py"


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FILE.parent))
    spec = importlib.util.spec_from_file_location("kill", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "kill", module)
    spec.loader.exec_module(module)
    return module


def test_nothing_is_lost_and_nothing_ends_twice(kill: ModuleType) -> None:
    result = kill.kill(kills=2, tasks=12, lines=24, seed=3)
    assert kill.wrong(result, 12, 24) == []
    assert sum(result["running_when_killed"]) > 0
    result["tasks"] = {"done": 10, "failed": 1, "lost": 1}
    assert kill.wrong(result | {"lines_twice_in_output": 1, "ended": 35}, 12, 24) == [
        "of 12 tasks 10 are done, 1 failed",
        "1 tasks are lost",
        "1 lines are there twice",
        "35 ends of 36",
    ]
