"""LangChain's own tests of chat models: over the demo model where it can do what they ask, else over a script.

What is off, and why: pictures, sound and PDF, in questions and in results of tools (the family reads text); messages in
Anthropic's form of tools (LangChain's own is one for all); another model for a call, but with an endpoint (a model of
this process is one); recorded HTTP (the server of these tests is a real one); LangChain's serialization, which loads
classes of its own list only.
"""

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
    """Calls of tools and structured output are held to their schemas by grammar, so the demo model does much of it.

    Attributes:
        beyond: tests that want a certain answer, or a long one, which it does not think of; `TestClever` does.
    """

    beyond = (
        "test_tool_calling",
        "test_tool_calling_async",
        "test_unicode_tool_call_integration",
        "test_structured_output[pydantic]",
        "test_structured_output_async[pydantic]",
        "test_structured_output_pydantic_2_v1",
        "test_json_mode",
    )

    @pytest.fixture
    def model(self, demo: ChatChatGLM) -> ChatChatGLM:
        return ChatChatGLM(assistant=demo.opened())


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
