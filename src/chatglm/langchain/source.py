"""The model behind LangChain's objects, and its options of generation."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, SkipValidation

from chatglm.assistant import Assistant, BaseAssistant, RemoteAssistant
from chatglm.chat.messages import Message
from chatglm.errors import InputError, QueueFullError, ServiceError, UnsupportedError
from chatglm.langchain.opened import Opened
from chatglm.params import SamplingParams

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Source"]

T = TypeVar("T")

_KEY = "CHATGLM_API_KEY"
_MAY_PASS = (QueueFullError, ServiceError)
_OF_OPENAI = {"max_tokens": "max_new_tokens", "max_completion_tokens": "max_new_tokens", "top_logprobs": "logprobs"}


class Source(BaseModel):
    """A model in this process, or one behind an endpoint. It is opened at the first request. Copies share it.

    Attributes:
        assistant: an existing assistant; the caller closes it.
        model: a checkpoint folder or a repository id; with `base_url`, the model's name at the endpoint. Without
            `assistant`, `model` and `base_url`, it is the demo model of the package.
        base_url: an OpenAI-compatible endpoint, such as http://host:8000/v1.
        api_key: key for the endpoint; default: the environment variable CHATGLM_API_KEY.
        adapter: the LoRA adapter that answers.
        load_options: other options of `chatglm.load`, such as `{"huge_pages": True}`.
        timeout: seconds without a byte after which an endpoint counts as gone.
        max_retries: how often a request is sent again if there is no answer, because too many requests are waiting or
            the endpoint does not answer. It is not sent again after its answer has begun.
        temperature, top_p, max_tokens, stop, seed, n: options of generation; None: the default of the model's folder.
        model_kwargs: more fields of `SamplingParams`, such as `{"repetition_penalty": 1.1}`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", protected_namespaces=())

    assistant: SkipValidation[BaseAssistant | None] = Field(default=None, exclude=True, repr=False)
    model: str | None = None
    base_url: str | None = None
    api_key: SecretStr | None = None
    adapter: str | None = None
    load_options: dict[str, Any] = Field(default_factory=dict)
    timeout: float = Field(default=600, gt=0)
    max_retries: int = Field(default=2, ge=0, le=100)
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: list[str] | None = None
    seed: int | None = None
    n: int = 1
    model_kwargs: dict[str, Any] = Field(default_factory=dict)

    _opened: Opened[BaseAssistant] = PrivateAttr(default_factory=Opened)

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if self.assistant is not None and (self.model is not None or self.base_url is not None):
            raise InputError("assistant: cannot be given with `model` or `base_url`; it is a model already")
        if self.api_key is None and self.base_url is not None and os.environ.get(_KEY):
            self.api_key = SecretStr(os.environ[_KEY])
        self.params()  # checks the options before a model is loaded

    def opened(self, model: str | None = None) -> BaseAssistant:
        """The assistant that answers.

        Args:
            model: name of another model at the endpoint, for this call.

        Raises:
            InputError: another model was requested, but the model is in this process.
            CheckpointError, TokenizerError, DependencyError: see `chatglm.load`.
        """
        if self.assistant is not None:
            if model is not None:
                raise InputError(f"model={model!r:.80}: this model was given as an assistant and cannot be another one")
            return self.assistant
        if self.base_url is None and model not in (None, self.model):
            raise InputError(
                f"model={model!r:.80}: a model of this process cannot be another one; make a second object"
            )
        name = self.model if model is None else model
        return self._opened.get(self._key(name), lambda: self._open(name))

    async def aopened(self, model: str | None = None) -> BaseAssistant:
        """`opened` for coroutines. Loading a model does not block the event loop."""
        name = self.model if model is None else model
        if self.assistant is not None or self._key(name) in self._opened:
            return self.opened(model)
        return await asyncio.to_thread(self.opened, model)

    def _key(self, name: str | None) -> tuple[Any, ...]:
        """A key for the model or endpoint, made from the fields, because a copy may have other fields."""
        if self.base_url is None:
            return name, repr(self.load_options)
        key = None if self.api_key is None else self.api_key.get_secret_value()
        return name, self.base_url, key, self.timeout

    def _open(self, name: str | None) -> BaseAssistant:
        if self.base_url is None:
            return Assistant.load(name, **self.load_options)
        key = None if self.api_key is None else self.api_key.get_secret_value()
        return RemoteAssistant(self.base_url, name, key=key, timeout=self.timeout)

    def close(self) -> None:
        """Close the models that this object has opened. The next request opens them again."""
        for assistant in self._opened.clear():
            assistant.close()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        memo = {} if memo is None else memo
        memo[id(self.assistant)] = self.assistant  # a model is not copied
        return super().__deepcopy__(memo)

    def name_of(self, model: str | None = None) -> str:
        """The model's name in answers."""
        name = self.model if model is None else model
        if name is None:
            return "chatglm"
        return name if self.base_url is not None else os.path.basename(os.path.normpath(name))

    def params(self, stop: Sequence[str] | None = None, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The options of generation that the object or the call gives; those of the call have priority.

        Args:
            stop: stop sequences of the call.
            given: other options of the call.

        Raises:
            InputError: an option is unknown or out of range; names it.
        """
        found: dict[str, Any] = dict(self.model_kwargs)
        own = {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens, "seed": self.seed}
        found |= {key: value for key, value in own.items() if value is not None}
        found |= {key: value for key, value in (given or {}).items() if value is not None}
        for theirs, ours in _OF_OPENAI.items():
            if theirs in found:
                found[ours] = found.pop(theirs)
        if "logprobs" in found and isinstance(found["logprobs"], bool):
            found["logprobs"] = 0 if found["logprobs"] else None
        if ends := self.stop if stop is None else stop:
            found["stop"] = list(ends)
        if self.n != 1:
            found.setdefault("n", self.n)
        SamplingParams.from_dict(found)
        return found

    def get_num_tokens(self, text: str) -> int:
        """Number of tokens of a text. If the model is behind an endpoint, it is the number for a prompt with this text
        as the question, or, if the endpoint cannot count, the number of characters. LangChain's chains use it to cut
        documents.
        """
        assistant = self.opened()
        if isinstance(assistant, Assistant):
            return len(assistant.tokenizer.encode_text(text))
        try:
            return assistant.count([Message("user", text)])
        except (UnsupportedError, InputError):  # some routers answer 400 for an unknown route
            return len(text)

    def tries(self, first: Callable[[], T]) -> T:
        """Call `first`, and return its result. If too many requests are waiting, or the endpoint does not answer, it is
        called again, up to `max_retries` times.
        """
        for attempt in range(self.max_retries):
            try:
                return first()
            except _MAY_PASS as error:
                time.sleep(_pause(error, attempt))
        return first()

    async def atries(self, first: Callable[[], Awaitable[T]]) -> T:
        """`tries` for coroutines."""
        for attempt in range(self.max_retries):
            try:
                return await first()
            except _MAY_PASS as error:
                await asyncio.sleep(_pause(error, attempt))
        return await first()


def _pause(error: Exception, attempt: int) -> float:
    """Seconds until the next try. An error that would come again is raised instead."""
    status = getattr(error, "status", 0)
    if 400 <= status < 500 and status != 408:  # the request is wrong
        raise error
    asked = getattr(error, "retry_after", None)
    return min(float(asked) if asked else 0.25 * 2**attempt, 30.0)
