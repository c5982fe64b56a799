"""A browser, and views of a module's own `site` in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browser import Site, Views, browsing, viewing


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing() as made:
        yield made


@pytest.fixture
def views(browser: Any, site: Site) -> Iterator[Views]:
    with viewing(browser, site) as made:
        yield made
