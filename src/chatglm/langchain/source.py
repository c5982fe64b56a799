"""Where the answers of LangChain's objects come from, and how tokens are chosen there."""

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
    """A model of this process, or one behind an endpoint. It is opened when it is first asked, and shared by copies.

    Attributes:
        assistant: one that is there already; it is not closed here.
        model: a checkpoint folder or a repository id; with `base_url`, the model's name there. Neither `assistant` nor
            `model` nor `base_url`: the demo model that comes with the package.
        base_url: an OpenAI-compatible endpoint, such as http://host:8000/v1.
        api_key: of the endpoint; default: the environment's CHATGLM_API_KEY.
        adapter: the LoRA adapter that answers.
        load_options: what `chatglm.load` takes besides the folder, such as `{"quantize": 4}`.
        timeout: seconds without a byte after which an endpoint counts as gone.
        max_retries: how often a question is asked again that had no answer, because too many were waiting or the
            endpoint was not there. Nothing is asked again once its answer has begun.
        temperature, top_p, max_tokens, stop, seed, n: how tokens are chosen; None: as the model's folder says.
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
        self.params()  # refuses what is out of range before a model is loaded

    def opened(self, model: str | None = None) -> BaseAssistant:
        """The assistant that answers.

        Args:
            model: another name at the endpoint than `model`, for this call.

        Raises:
            InputError: a model of this process has one name.
            CheckpointError, TokenizerError, DependencyError: as `chatglm.load`.
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
        """`opened` for coroutines: the event loop goes on while a model is loaded."""
        name = self.model if model is None else model
        if self.assistant is not None or self._key(name) in self._opened:
            return self.opened(model)
        return await asyncio.to_thread(self.opened, model)

    def _key(self, name: str | None) -> tuple[Any, ...]:
        """What decides which model or endpoint answers: a copy may have other fields."""
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
        """End the models that were opened here; the next question opens them again."""
        for assistant in self._opened.clear():
            assistant.close()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        memo = {} if memo is None else memo
        memo[id(self.assistant)] = self.assistant  # a model is not copied
        return super().__deepcopy__(memo)

    def name_of(self, model: str | None = None) -> str:
        """What the model is called in answers."""
        name = self.model if model is None else model
        if name is None:
            return "chatglm"
        return name if self.base_url is not None else os.path.basename(os.path.normpath(name))

    def params(self, stop: Sequence[str] | None = None, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """How tokens are chosen, as far as the object and then the call say it; the model's defaults hold for the rest.

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
        """How many tokens a text has; of a model behind an endpoint, how many it takes as a question, and where the
        endpoint does not count, one for each character. Chains of LangChain cut documents by this."""
        assistant = self.opened()
        if isinstance(assistant, Assistant):
            return len(assistant.tokenizer.encode_text(text))
        try:
            return assistant.count([Message("user", text)])
        except (UnsupportedError, InputError):  # an endpoint in front of another refuses as if the text were wrong
            return len(text)

    def tries(self, first: Callable[[], T]) -> T:
        """What `first` gives, tried again while the model has no place or its endpoint does not answer."""
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
    """Seconds; an error that will not pass is raised."""
    status = getattr(error, "status", 0)
    if 400 <= status < 500 and status != 408:  # it is the question that is wrong
        raise error
    asked = getattr(error, "retry_after", None)
    return min(float(asked) if asked else 0.25 * 2**attempt, 30.0)
