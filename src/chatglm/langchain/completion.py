"""`ChatGLM`: an `LLM` of LangChain, which answers a text with a text, as in many tutorials."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, closing
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.llms import LLM
from langchain_core.outputs import GenerationChunk
from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from chatglm.assistant import Delta, Finish, TextDelta
from chatglm.chat.messages import Message, messages_from_pairs
from chatglm.errors import DependencyError, InputError, ServiceError
from chatglm.langchain.opened import Opened
from chatglm.langchain.source import Source

__all__ = ["ChatGLM"]


class ChatGLM(Source, LLM):
    """An LLM, which answers a text with a text. Each prompt is a question of a dialogue; with `raw`, the model
    continues the prompt.

    It also replaces `langchain_community.llms.ChatGLM`, whose `max_token` means `max_tokens`: with `endpoint_url`, it
    uses the legacy interface of the official `api.py` (`POST /`), which `chatglm serve` has, too.

    Attributes:
        streaming: whether `invoke` streams, too, so that callbacks get every token.
        raw: continue the text, without the format of a dialogue.
        history: pairs of question and answer in front of each prompt.
        with_history: whether every answer is added to `history`.
        endpoint_url: URL of a legacy interface, such as http://127.0.0.1:8000/. It has no streams, no seed, and no stop
            sequences (the text is cut here). `max_tokens` is sent as its `max_length`, which also counts the prompt.

    Raises:
        ValidationError (pydantic's): an option is wrong when the object is made; it names the option.
        InputError: an option of a call is wrong.
        Errors of the model: see `chatglm.load` and `Assistant.stream`.
    """

    model_config = ConfigDict(extra="forbid")  # LangChain's own models ignore unknown options

    streaming: bool = False
    raw: bool = False
    history: list[list[str]] = Field(default_factory=list)
    with_history: bool = False
    endpoint_url: str | None = None

    _clients: Opened[Any] = PrivateAttr(default_factory=Opened)

    @model_validator(mode="before")
    @classmethod
    def _older_name(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "max_token" in values:
            values = {**values, "max_tokens": values["max_token"]}
            del values["max_token"]
        return values

    def model_post_init(self, context: Any, /) -> None:
        """Check that the fields can be used together.

        Raises:
            InputError: they cannot.
        """
        super().model_post_init(context)
        if self.endpoint_url is not None and (self.base_url, self.model, self.assistant) != (None, None, None):
            raise InputError("endpoint_url: cannot be given with `base_url`, `model` or `assistant`")
        if self.raw and (self.history or self.with_history):
            raise InputError("raw: the completion of a text has no history; leave one of them out")

    @property
    def _llm_type(self) -> str:
        return "chatglm-completion"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        where = self.endpoint_url or self.base_url
        return {"model": self.name_of(), "endpoint": where, "adapter": self.adapter, "raw": self.raw, **self.params()}

    def _call(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> str:
        if self.endpoint_url is not None:
            return self._remember(prompt, _cut(self._ask(prompt, kwargs), stop or self.stop))
        manager = run_manager if self.streaming else None
        return "".join(chunk.text for chunk in self._stream(prompt, stop, manager, **kwargs))

    async def _acall(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> str:
        if self.endpoint_url is not None:
            return await super()._acall(prompt, stop, run_manager, **kwargs)  # in a thread
        manager = run_manager if self.streaming else None
        return "".join([chunk.text async for chunk in self._astream(prompt, stop, manager, **kwargs)])

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        if self.endpoint_url is not None:
            yield GenerationChunk(text=self._call(prompt, stop, run_manager, **kwargs))
            return
        assistant = self.opened(kwargs.pop("model", None))
        options: dict[str, Any] = {"params": self._single(stop, kwargs), "adapter": self.adapter}

        def begin() -> tuple[Any, Delta | None]:
            deltas = (
                assistant.stream_text(prompt, **options)
                if self.raw
                else assistant.stream(self._dialogue(prompt), **options)
            )
            return deltas, next(deltas, None)

        deltas, delta = self.tries(begin)
        texts = []
        with closing(deltas):
            while delta is not None:
                if (chunk := _chunk(delta)) is not None:
                    texts.append(chunk.text)
                    if run_manager is not None:
                        run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk
                delta = next(deltas, None)
        self._remember(prompt, "".join(texts))

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        if self.endpoint_url is not None:
            yield GenerationChunk(text=await self._acall(prompt, stop, run_manager, **kwargs))
            return
        assistant = await self.aopened(kwargs.pop("model", None))
        options: dict[str, Any] = {"params": self._single(stop, kwargs), "adapter": self.adapter}

        async def begin() -> tuple[Any, Delta | None]:
            deltas = (
                assistant.astream_text(prompt, **options)
                if self.raw
                else assistant.astream(self._dialogue(prompt), **options)
            )
            return deltas, await anext(deltas, None)

        deltas, delta = await self.atries(begin)
        texts = []
        async with aclosing(deltas):
            while delta is not None:
                if (chunk := _chunk(delta)) is not None:
                    texts.append(chunk.text)
                    if run_manager is not None:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk
                delta = await anext(deltas, None)
        self._remember(prompt, "".join(texts))

    def _dialogue(self, prompt: str) -> list[Message]:
        return messages_from_pairs(self.history, prompt)

    def _single(self, stop: list[str] | None, kwargs: dict[str, Any]) -> dict[str, Any]:
        params = self.params(stop, kwargs)
        if params.get("n", 1) != 1:
            raise InputError("n: a completion has one text; give the prompt several times")
        return params

    def _remember(self, prompt: str, text: str) -> str:
        if self.with_history:
            self.history = [*self.history, [prompt, text]]
        return text

    # The legacy interface

    def _ask(self, prompt: str, kwargs: dict[str, Any]) -> str:
        """Ask the legacy interface; returns its answer.

        Raises:
            DependencyError: `httpx` is not installed.
            InputError: the interface does not have an option.
            ServiceError: the endpoint does not answer, or its answer has another form.
        """
        try:
            import httpx
        except ImportError as error:
            raise DependencyError("endpoint_url needs httpx: pip install httpx") from error
        params = self._single(None, kwargs)
        names = {"temperature": "temperature", "top_p": "top_p", "max_new_tokens": "max_length"}
        if unknown := params.keys() - names.keys() - {"stop"}:
            raise InputError(f"{', '.join(sorted(unknown))}: the legacy interface has no such option")
        body = {
            "prompt": prompt,
            "history": self.history,
            **{names[key]: params[key] for key in names if key in params},
        }
        headers = {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key.get_secret_value()}"}

        def connected() -> Any:
            made = httpx.Client(timeout=self.timeout, headers=headers)
            weakref.finalize(self._clients, made.close)  # when no copy of this object uses them any more
            return made

        client = self._clients.get((self.timeout, *headers.values()), connected)
        assert self.endpoint_url is not None

        def post() -> str:
            try:
                answer = client.post(self.endpoint_url, json=body)
                data = answer.raise_for_status().json()
            except (httpx.HTTPError, ValueError) as error:
                raise ServiceError(f"{self.endpoint_url} does not answer: {error}") from error
            if not isinstance(data, dict) or not isinstance(data.get("response"), str):
                raise ServiceError(f"{self.endpoint_url} answered without a `response`")
            return str(data["response"])

        return self.tries(post)

    def close(self) -> None:
        super().close()
        for client in self._clients.clear():
            client.close()

    # Counting

    def get_num_tokens(self, text: str) -> int:
        return len(text) if self.endpoint_url is not None else super().get_num_tokens(text)


def _chunk(delta: Delta) -> GenerationChunk | None:
    if isinstance(delta, TextDelta):
        return GenerationChunk(text=delta.text)
    if isinstance(delta, Finish):
        usage = delta.usage
        used = {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        }
        return GenerationChunk(text="", generation_info={"finish_reason": delta.reason, "token_usage": used})
    return None


def _cut(text: str, stop: list[str] | None) -> str:
    """Cut a text before its first stop sequence, because a legacy interface has no stop sequences."""
    ends = [text.index(end) for end in stop or () if end in text]
    return text[: min(ends)] if ends else text
