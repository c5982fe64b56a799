"""The demo model, in this process and behind a server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chatglm.langchain import ChatChatGLM
from server import serving


@pytest.fixture(scope="session")
def demo() -> Iterator[ChatChatGLM]:
    model = ChatChatGLM(temperature=0)
    model.opened()
    yield model
    model.close()


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """The address of a server that has the demo model under two names."""
    model = ChatChatGLM()
    assistant = model.opened()
    with serving({"chatglm3-6b": assistant, "other-model": assistant}) as url:
        yield url
    model.close()
