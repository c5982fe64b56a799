"""What bases survive, with fewer rounds than `benchmarks/bench_knowledge.py` has."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    file = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_knowledge.py"
    spec = importlib.util.spec_from_file_location("bench_knowledge", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_killed_bases_are_whole(bench: ModuleType, tmp_path: Path) -> None:
    assert bench.killed(tmp_path, kills=5, files=40, characters=6_000)["kills"] == 5


def test_eight_processes(bench: ModuleType, tmp_path: Path) -> None:
    report = bench.processes(tmp_path, 8, 3)
    assert report["adds"]
    assert report["searches"]


def test_a_base_stays_small(bench: ModuleType, tmp_path: Path) -> None:
    report = bench.churn(tmp_path, 30)
    assert report["bytes_at_the_end"] < 2 * report["bytes_after_a_tenth"]


def test_an_unchanged_folder_writes_nothing(bench: ModuleType, tmp_path: Path) -> None:
    assert bench.resync(tmp_path, 100)["bytes_written"] == 0
