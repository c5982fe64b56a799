"""A short run of `benchmarks/soak.py`: many clients, well and badly behaved, against a real server."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "soak.py"


@pytest.fixture(scope="module")
def soak() -> ModuleType:
    spec = importlib.util.spec_from_file_location("soak", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["soak"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_nothing_is_lost(soak: ModuleType) -> None:
    result, wrong = soak.soak(streams=16, seconds=10, fill_first=False)
    assert wrong == []
    assert result["requests"] >= 32
    assert len(result["whole"]) >= 5
    memory = result["memory_mb"]
    assert memory["after"] - memory["before"] < 300  # of it 200 are keys and values, touched for the first time


def test_what_does_not_add_up_is_told(soak: ModuleType) -> None:
    """The checks themselves: figures that are right pass, and each that is wrong is found."""
    counts = soak.Counts()
    counts.statuses[soak.CHAT, 200] += 3
    counts.statuses[soak.CHAT, 400] += 1
    counts.reasons["stop"] += 2
    counts.kinds["chat"] += 2
    counts.left, counts.prompt_tokens, counts.completion_tokens = 1, 30, 9
    route = 'chatglm_requests_total{dialect="openai",route="/v1/chat/completions",status="%d"}'
    right = {
        route % 200: 3,
        route % 400: 1,
        **{
            f'chatglm_{name}{{model="demo"}}': value
            for name, value in {
                "answers_running": 0,
                "engine_running": 0,
                "engine_waiting": 0,
                "engine_pages_used": 0,
                "prompt_tokens_total": 30,
                "completion_tokens_total": 9,
                "engine_prompt_tokens_total": 45,
                "engine_generated_tokens_total": 12,
                "time_to_first_token_seconds_count": 3,
            }.items()
        },
        'chatglm_answers_total{model="demo",reason="stop"}': 2,
        'chatglm_answers_total{model="demo",reason="broken off"}': 1,
    }
    assert soak.compare(counts, {}, right) == []
    for name in right:
        for change in (-1, 1) if "engine" not in name else (-40, 40):
            changed = {**right, name: right[name] + change}
            found = soak.compare(counts, {}, changed)
            more = name.endswith(("prompt_tokens_total{", "generated_tokens_total{")) or (
                "engine" in name and "tokens" in name and change > 0
            )
            fewer = name.startswith("chatglm_time_to_first") and change < 0
            assert bool(found) != (more or fewer), (name, change, found)


def test_growth_is_that_after_the_warm_up(soak: ModuleType) -> None:
    flat = [100.0 + 3 * n for n in range(20)] + [160.0] * 60
    assert soak.growth(flat) == 0
    noisy = [100.0 + 10 * (n % 7 == 0) for n in range(80)]
    assert abs(soak.growth(noisy)) < 1
    assert soak.growth([100 + n / 3600 for n in range(90)]) == pytest.approx(1, rel=0.01)
