"""LangChain's own tests of chat models: over the demo model where it can do what they ask, else over a script."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from clever import Clever
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from chatglm.langchain import ChatChatGLM


class TestUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatChatGLM

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "/models/chatglm3-6b"}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return (
            {"CHATGLM_API_KEY": "secret"},
            {"base_url": "http://127.0.0.1:8000/v1", "model": "chatglm3-6b"},
            {"api_key": "secret"},
        )


class Integration(ChatModelIntegrationTests):
    """Pictures, sound and PDF are off: the family reads text."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatChatGLM

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return False


class TestDemo(Integration):
    @pytest.fixture
    def model(self, demo: ChatChatGLM) -> ChatChatGLM:
        return ChatChatGLM(assistant=demo.opened())

    @property
    def has_tool_calling(self) -> bool:
        return False  # other functions than its own are beyond it: see TestClever

    @property
    def has_structured_output(self) -> bool:
        return False

    @property
    def supports_json_mode(self) -> bool:
        return False


class TestClever(Integration):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"assistant": Clever()}


class TestEndpoint(TestDemo):
    """The demo model behind a real server, which has it under two names."""

    @pytest.fixture
    def model(self, endpoint: str) -> Iterator[ChatChatGLM]:  # type: ignore[override]
        model = ChatChatGLM(base_url=f"{endpoint}/v1", model="chatglm3-6b", max_tokens=64)
        yield model
        model.close()

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "other-model"
