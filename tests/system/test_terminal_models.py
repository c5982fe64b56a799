"""The model of a dialogue, and another one that replaces it: which of them is used, and that the others are closed."""

from __future__ import annotations

import argparse
import asyncio
import threading
from collections import defaultdict
from typing import Any

import pytest

from chatglm.cli.terminal import models
from chatglm.cli.terminal.models import Models
from chatglm.errors import CheckpointError
from waiting import auntil


class Fake:
    def __init__(self, name: str) -> None:
        self.name, self.closed = name, False

    def close(self) -> None:
        self.closed = True


class Loading:
    """Models that load as long as a test wants; those with "broken" in their names fail then."""

    def __init__(self) -> None:
        self.may: dict[str, threading.Event] = defaultdict(threading.Event)
        self.made: dict[str, Fake] = {}

    def __call__(self, arguments: argparse.Namespace) -> Any:
        assert self.may[arguments.model].wait(120)
        if "broken" in arguments.model:
            raise CheckpointError(f"{arguments.model}: damaged")
        self.made[arguments.model] = Fake(arguments.model)
        return self.made[arguments.model]


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Loading:
    loading = Loading()
    monkeypatch.setattr(models, "open_assistant", loading)
    return loading


def begun(name: str, told: list[BaseException | None]) -> Models:
    arguments = argparse.Namespace(model=name, remote=None, adapter=None, prefix=None)
    found = Models(arguments, lambda assistant: None)
    found.begin(told.append)
    return found


def test_the_first_model_comes_too_late(loading: Loading) -> None:
    async def main() -> None:
        told: list[BaseException | None] = []
        used = begun("big", told)
        loading.may["small"].set()
        assert await used.change("small") is loading.made["small"]
        loading.may["big"].set()
        await auntil(lambda: "big" in loading.made and loading.made["big"].closed)
        assert used.now is loading.made["small"]
        assert used.name == "small"
        assert not loading.made["small"].closed
        assert told == []
        used.close()

    asyncio.run(main())


def test_the_first_model_fails_too_late(loading: Loading) -> None:
    async def main() -> None:
        told: list[BaseException | None] = []
        used = begun("broken", told)
        loading.may["small"].set()
        await used.change("small")
        loading.may["broken"].set()
        await auntil(lambda: not used.working)
        await asyncio.sleep(0)
        assert told == []
        assert used.error is None
        assert used.now is loading.made["small"]
        used.close()

    asyncio.run(main())


def test_another_model_fails_and_the_first_stays(loading: Loading) -> None:
    async def main() -> None:
        told: list[BaseException | None] = []
        used = begun("big", told)
        loading.may["broken"].set()
        with pytest.raises(CheckpointError, match="broken: damaged"):
            await used.change("broken")
        assert used.loading
        loading.may["big"].set()
        await auntil(lambda: told == [None])
        assert used.now is loading.made["big"]
        loading.may["small"].set()
        await used.change("small")
        assert loading.made["big"].closed
        used.close()

    asyncio.run(main())
