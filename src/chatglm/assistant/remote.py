"""An assistant at the end of a wire: any OpenAI-compatible endpoint (vLLM, SGLang, another `chatglm serve`)."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chatglm.assistant.base import (
    Ask,
    BaseAssistant,
    CallDelta,
    Delta,
    Finish,
    Messages,
    Options,
    TextDelta,
    TokenLogprob,
    Usage,
    params_of,
)
from chatglm.chat.messages import Message
from chatglm.errors import ChatGLMError, DependencyError, InputError, QueueFullError, ServiceError, UnsupportedError
from chatglm.params import SamplingParams

if TYPE_CHECKING:
    import httpx
    from typing_extensions import Unpack

__all__ = ["RemoteAssistant"]

# Of the options that are not OpenAI's, those that vLLM and SGLang know, by their names.
_NAMES = {"max_new_tokens": "max_tokens", "stop_ids": "stop_token_ids", "min_new_tokens": "min_tokens"}


class RemoteAssistant(BaseAssistant):
    """The interface of `Assistant`, over HTTP.

    Args:
        url: where the endpoint's routes begin: `http://host:8000/v1`.
        model: its name there; default: the first that the endpoint lists.
        key: sent as a bearer token.
        timeout: seconds without a byte after which the endpoint counts as gone.
        defaults: what holds where the caller does not say; what is at its default is not sent.

    Raises:
        DependencyError: `httpx` is not installed.
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
        try:
            import httpx
        except ImportError:
            raise DependencyError("remote assistants need the httpx package: pip install 'chatglm[serve]'") from None
        self.url, self.defaults = url.rstrip("/"), defaults or SamplingParams()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._make: dict[str, Any] = {"headers": headers, "timeout": httpx.Timeout(timeout, connect=10)}
        self._client = httpx.Client(**self._make)
        self._errors: tuple[type[Exception], ...] = (httpx.HTTPError, httpx.StreamError)
        self._model = model

    def close(self) -> None:
        self._client.close()

    @property
    def model(self) -> str:
        """The model's name at the endpoint.

        Raises:
            ServiceError: the endpoint does not answer, or has no model.
        """
        if self._model is None:
            try:
                answer = self._client.get(f"{self.url}/models")
                answer.raise_for_status()
                self._model = str(answer.json()["data"][0]["id"])
            except self._errors + (ValueError, LookupError, TypeError) as error:  # noqa: RUF005
                raise ServiceError(f"{self.url}/models: no model's name to be had ({error}); give one") from error
        return self._model

    def stream(self, messages: Messages, **options: Unpack[Options]) -> Generator[Delta]:
        return self._read("chat/completions", self._body(Ask.of(messages, options, self.defaults)))

    def astream(self, messages: Messages, **options: Unpack[Options]) -> AsyncGenerator[Delta]:
        return self._aread("chat/completions", self._body(Ask.of(messages, options, self.defaults)))

    def stream_text(
        self,
        prompt: str | Sequence[int],
        *,
        params: SamplingParams | Mapping[str, Any] | None = None,
        adapter: str | None = None,
    ) -> Generator[Delta]:
        return self._read("completions", self._text_body(prompt, params_of(params, self.defaults), adapter))

    def astream_text(
        self,
        prompt: str | Sequence[int],
        *,
        params: SamplingParams | Mapping[str, Any] | None = None,
        adapter: str | None = None,
    ) -> AsyncGenerator[Delta]:
        return self._aread("completions", self._text_body(prompt, params_of(params, self.defaults), adapter))

    def _read(self, route: str, body: dict[str, Any]) -> Generator[Delta]:
        reading = _Reading(self.url, body.get("n", 1))
        try:
            with self._client.stream("POST", f"{self.url}/{route}", json={"model": self.model, **body}) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise _refusal(answer)
                for line in answer.iter_lines():
                    yield from reading.take(line)
        except self._errors as error:
            raise ServiceError(f"{self.url}: {type(error).__name__}: {error}") from error
        yield from reading.end()

    async def _aread(self, route: str, body: dict[str, Any]) -> AsyncGenerator[Delta]:
        import httpx

        reading = _Reading(self.url, body.get("n", 1))
        try:
            # A client belongs to one event loop, an assistant to none.
            async with (
                httpx.AsyncClient(**self._make) as client,
                client.stream("POST", f"{self.url}/{route}", json={"model": self.model, **body}) as answer,
            ):
                if answer.status_code != 200:
                    await answer.aread()
                    raise _refusal(answer)
                async for line in answer.aiter_lines():
                    for delta in reading.take(line):
                        yield delta
        except self._errors as error:
            raise ServiceError(f"{self.url}: {type(error).__name__}: {error}") from error
        for delta in reading.end():
            yield delta

    def _body(self, ask: Ask) -> dict[str, Any]:
        body = self._common(ask.params, ask.adapter)
        body["messages"] = [_without_extras(message) for message in ask.messages]
        if ask.params.logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": ask.params.logprobs}
        if ask.tools:
            choice: Any = ask.tool_choice
            if choice not in ("auto", "none", "required"):
                choice = {"type": "function", "function": {"name": choice}}
            body |= {"tools": [tool.wrapped() for tool in ask.tools], "tool_choice": choice}
            body |= {} if ask.parallel_calls else {"parallel_tool_calls": False}
        if ask.response_format is not None:
            body["response_format"] = ask.response_format
        return body

    def _text_body(self, prompt: str | Sequence[int], params: SamplingParams, adapter: str | None) -> dict[str, Any]:
        body = self._common(params, adapter)
        if params.logprobs is not None:
            body["logprobs"] = params.logprobs
        return {**body, "prompt": prompt if isinstance(prompt, str) else list(prompt)}

    def _common(self, params: SamplingParams, adapter: str | None) -> dict[str, Any]:
        if adapter is not None:
            raise UnsupportedError("adapter: an endpoint has adapters under names of their own; give that as model")
        given = params.to_dict()
        given.pop("logprobs", None)
        for name in ("max_length", "bad_words_ids", "prompt_logprobs"):
            if name in given:
                raise UnsupportedError(f"{name}: OpenAI-compatible endpoints have no such option")
        if "logit_bias" in given:
            given["logit_bias"] = {str(token): bias for token, bias in given["logit_bias"].items()}
        body = {_NAMES.get(name, name): value for name, value in given.items()}
        return {**body, "stream": True, "stream_options": {"include_usage": True}}


def _without_extras(message: Message) -> dict[str, Any]:
    """A message as every endpoint knows it.

    Raises:
        UnsupportedError: it has more to it.
    """
    data = message.to_dict()
    for name in ("metadata", "tools"):
        if name in data:
            raise UnsupportedError(f"messages: {name} of a message is ChatGLM's own form; pass tools as tools")
    data.pop("loss", None)
    return data


def _refusal(answer: httpx.Response) -> ChatGLMError:
    try:
        said = answer.json()
        inner = said.get("error", said)
        text = str(inner.get("message") if isinstance(inner, Mapping) else inner)
    except (ValueError, AttributeError):
        text = answer.text[:200]
    match answer.status_code:
        case 400 | 422:
            return InputError(text)
        case 429:
            full = QueueFullError(f"{answer.url}: {text}")
            if (seconds := answer.headers.get("Retry-After", "")).isdigit():
                full.retry_after = int(seconds)
            return full
    return ServiceError(f"{answer.url}: status {answer.status_code}: {text}")


class _Reading:
    """Lines of a stream in, deltas out. The finish waits for the usage, which comes last."""

    def __init__(self, url: str, choices: int) -> None:
        self._url, self._choices = url, choices
        self._reasons: dict[int, Any] = {}
        self._usage: Mapping[str, Any] = {}
        self._tokens: dict[int, int] = {}
        self._asked = time.perf_counter()
        self._first: dict[int, float] = {}  # seconds to the first token

    def take(self, line: str) -> Iterator[Delta]:
        if not line.startswith("data:") or line[5:].strip() == "[DONE]":
            return
        try:
            chunk = json.loads(line[5:])
            if "error" in chunk:
                inner = chunk["error"]
                said = inner.get("message") if isinstance(inner, Mapping) else inner
                raise ServiceError(f"{self._url}: failed within an answer: {said}")
            self._usage = chunk.get("usage") or self._usage
            for choice in chunk.get("choices") or ():
                yield from self._choice(choice)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ServiceError(f"{self._url}: sent what is no OpenAI stream ({line:.80!r}: {error})") from error

    def _choice(self, choice: Mapping[str, Any]) -> Iterator[Delta]:
        number = int(choice.get("index", 0))
        delta = choice.get("delta") or {}
        text = delta.get("content") or choice.get("text") or ""
        logprobs = tuple(_logprobs(choice.get("logprobs")))
        self._tokens[number] = self._tokens.get(number, 0) + 1
        calls = delta.get("tool_calls") or ()
        if text or calls:
            self._first.setdefault(number, time.perf_counter() - self._asked)
        if text or logprobs:
            yield TextDelta(text, logprobs, number)
        for piece in calls:
            function = piece.get("function") or {}
            yield CallDelta(
                int(piece.get("index", 0)),
                piece.get("id") or "",
                function.get("name") or "",
                function.get("arguments") or "",
                number,
            )
        if choice.get("finish_reason"):
            self._reasons[number] = choice["finish_reason"]

    def end(self) -> Iterator[Delta]:
        if len(self._reasons) < self._choices:
            raise ServiceError(f"{self._url}: the stream ended in the middle of an answer")
        details = self._usage.get("prompt_tokens_details") or {}
        for number, reason in sorted(self._reasons.items()):
            # The endpoint counts all answers together; each gets its share of what came.
            share = self._tokens[number] / sum(self._tokens.values())
            usage = Usage(
                int(self._usage.get("prompt_tokens", 0)),
                round(int(self._usage.get("completion_tokens", 0)) * share),
                int(details.get("cached_tokens") or 0),
            )
            seconds = time.perf_counter() - self._asked
            yield Finish(
                reason if reason in ("length", "tool_calls") else "stop",
                usage,
                choice=number,
                first_seconds=self._first.get(number, seconds),
                seconds=seconds,
            )


def _logprobs(given: Any) -> Iterator[TokenLogprob]:
    if not given:
        return
    if "content" in given:
        for entry in given["content"] or ():
            top = tuple((_data(other), float(other["logprob"])) for other in entry.get("top_logprobs") or ())
            yield TokenLogprob(_data(entry), float(entry["logprob"]), top)
        return
    tops = given.get("top_logprobs") or [{}] * len(given["tokens"])
    for token, value, top in zip(given["tokens"], given["token_logprobs"], tops, strict=True):
        likeliest = tuple((str(other).encode(), float(its)) for other, its in (top or {}).items())
        yield TokenLogprob(str(token).encode(), float(value), likeliest)


def _data(entry: Mapping[str, Any]) -> bytes:
    return bytes(entry["bytes"]) if entry.get("bytes") is not None else str(entry["token"]).encode()
