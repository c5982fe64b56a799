"""docs/differences.md and the tests name the same differences."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_every_difference_is_written_and_tested() -> None:
    written = re.findall(r"^## `([a-z0-9-]+)`$", (ROOT / "docs" / "differences.md").read_text("utf-8"), re.MULTILINE)
    assert len(written) == len(set(written))
    files = [file for file in (ROOT / "tests").rglob("test_*.py") if file.name != Path(__file__).name]
    named = {slug for file in files for slug in re.findall(r"differences: ([a-z0-9-]+)", file.read_text("utf-8"))}
    assert set(written) - named == set(), "no test names these"
    assert named - set(written) == set(), "docs/differences.md has no entry for these"
