"""An assistant whose model is behind an OpenAI-compatible endpoint (vLLM, SGLang, another `chatglm serve`)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chatglm.assistant.base import Ask, BaseAssistant, Delta, Messages, Options, params_of
from chatglm.assistant.endpoint import Endpoint
from chatglm.assistant.wire import Question
from chatglm.params import SamplingParams

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["RemoteAssistant"]


class RemoteAssistant(BaseAssistant):
    """An assistant whose model is behind an OpenAI-compatible HTTP endpoint. `RemoteFleet` uses several endpoints.

    Args:
        url: the endpoint's base URL: `http://host:8000/v1`.
        model: the model's name at the endpoint; default: the first that the endpoint lists.
        key: sent as a bearer token.
        timeout: seconds without a byte after which the endpoint counts as gone.
        defaults: options of generation that the caller does not give; options with their default value are not sent.

    Attributes:
        endpoint: the server and the connections to it.

    Raises:
        DependencyError: `httpx` is not installed.
        InputError: `url` is not a URL of an endpoint.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        key: str | None = None,
        timeout: float = 600,
        defaults: SamplingParams | None = None,
    ) -> None:
        self.endpoint = Endpoint(url, model, key, timeout=timeout)
        self.url, self.defaults = self.endpoint.url, defaults or SamplingParams()

    def close(self) -> None:
        self.endpoint.close()

    @property
    def model(self) -> str:
        """The model's name at the endpoint.

        Raises:
            ServiceError: the endpoint does not answer, or has no model.
        """
        if self.endpoint.model is None:
            self.endpoint.model = self.endpoint.models()[0]
        return self.endpoint.model

    def count(self, messages: Messages, **options: Unpack[Options]) -> int:
        return self.endpoint.count(Question.of_dialogue(Ask.of(messages, options, self.defaults)))

    def stream(self, messages: Messages, **options: Unpack[Options]) -> Generator[Delta]:
        return self.endpoint.read(Question.of_dialogue(Ask.of(messages, options, self.defaults)))

    def astream(self, messages: Messages, **options: Unpack[Options]) -> AsyncGenerator[Delta]:
        return self.endpoint.aread(Question.of_dialogue(Ask.of(messages, options, self.defaults)))

    def stream_text(
        self,
        prompt: str | Sequence[int],
        *,
        params: SamplingParams | Mapping[str, Any] | None = None,
        adapter: str | None = None,
        client: str | None = None,
    ) -> Generator[Delta]:
        return self.endpoint.read(Question.of_text(prompt, params_of(params, self.defaults), adapter, client))

    def astream_text(
        self,
        prompt: str | Sequence[int],
        *,
        params: SamplingParams | Mapping[str, Any] | None = None,
        adapter: str | None = None,
        client: str | None = None,
    ) -> AsyncGenerator[Delta]:
        return self.endpoint.aread(Question.of_text(prompt, params_of(params, self.defaults), adapter, client))
