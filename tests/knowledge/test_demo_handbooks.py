"""The demo model answers from handbooks of its world, with the right citations."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import chatglm

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "demo"


@pytest.fixture(scope="module")
def handbooks() -> Iterator[ModuleType]:
    sys.path.insert(0, str(RECIPE))
    try:
        import handbooks

        yield handbooks
    finally:
        sys.path.remove(str(RECIPE))


@pytest.fixture(scope="module")
def demo() -> Iterator[chatglm.Assistant]:
    with chatglm.load() as assistant:
        yield assistant


@pytest.mark.parametrize("form", ["lines", "files"])
def test_the_demo_model_answers_from_ten_lines_with_the_right_citation(
    handbooks: ModuleType, demo: chatglm.Assistant, form: str
) -> None:
    score = handbooks.measure(demo, form)
    assert score.asked == 50
    assert score.right >= 40, score.wrong
    assert score.refused >= 0.75 * score.unanswerable
