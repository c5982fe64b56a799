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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests of LangChain's suites that a class names as `beyond` its model."""
    for item in items:
        beyond = getattr(getattr(item, "cls", None), "beyond", ())
        if item.name in beyond or getattr(item, "originalname", None) in beyond:
            item.add_marker(pytest.mark.skip(reason="the demo model is too small for this answer; TestClever runs it"))
