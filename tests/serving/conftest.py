"""Servers over scripted engines, and one with the demo model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from chatglm.assistant import Assistant
from chatglm.chat.formats import chat_format
from chatglm.loading import AutoTokenizer, demo_folder
from scripted import ScriptedEngine, Writer
from server import serving

# httpx gives up after five seconds; where other tests keep the processors busy, an answer may take longer.
httpx._config.DEFAULT_TIMEOUT_CONFIG.read = 60.0


@pytest.fixture(scope="session")
def write() -> Writer:
    return Writer(chat_format(AutoTokenizer.from_pretrained(demo_folder())))


@pytest.fixture
def over(write: Writer) -> Iterator[Callable[..., tuple[str, ScriptedEngine]]]:
    """A server over an engine with these replies: its address, and the engine. The model is called `demo`."""
    with contextlib.ExitStack() as stack:

        def get(*replies: Any, **options: Any) -> tuple[str, ScriptedEngine]:
            engine = ScriptedEngine(*replies, **options)
            assistant = stack.enter_context(Assistant(write.form, engine))  # type: ignore[arg-type]
            return stack.enter_context(serving({"demo": assistant})), engine

        yield get


@pytest.fixture(scope="session")
def demo() -> Iterator[str]:
    """A server with the demo model."""
    with Assistant.load(dtype="float32") as assistant, serving({"demo": assistant}) as url:
        yield url
