"""An assistant at the end of a wire: any OpenAI-compatible endpoint (vLLM, SGLang, another `chatglm serve`)."""

from __future__ import annotations

import json
import secrets
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
from chatglm.chat.personas import staged
from chatglm.errors import (
    ChatGLMError,
    ContextError,
    DependencyError,
    InputError,
    QueueFullError,
    ServiceError,
    UnsupportedError,
)
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
        client: str | None = None,
    ) -> Generator[Delta]:
        return self._read("completions", self._text_body(prompt, params_of(params, self.defaults), adapter))

    def astream_text(
        self,
        prompt: str | Sequence[int],
        *,
        params: SamplingParams | Mapping[str, Any] | None = None,
        adapter: str | None = None,
        client: str | None = None,
    ) -> AsyncGenerator[Delta]:
        return self._aread("completions", self._text_body(prompt, params_of(params, self.defaults), adapter))

    def _read(self, route: str, body: dict[str, Any]) -> Generator[Delta]:
        reading = _Reading(self.url, body.get("n", 1), route == "chat/completions")
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

        reading = _Reading(self.url, body.get("n", 1), route == "chat/completions")
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
        if ask.prefill:
            raise UnsupportedError(
                "prefill: OpenAI-compatible endpoints cannot continue a given beginning of an answer"
            )
        body = self._common(ask.params, ask.adapter)
        body["messages"] = [_without_extras(message) for message in staged(ask.messages, ask.persona)]
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
    except ValueError:
        said = answer.text[:200]
    text, code = _error_of(said)
    match answer.status_code:
        case 400 | 413 | 422:
            return _is_context(text, code) or InputError(text)
        case 429:
            full = QueueFullError(f"{answer.url}: {text}")
            if (seconds := answer.headers.get("Retry-After", "")).isdigit():
                full.retry_after = int(seconds)
            return full
    return ServiceError(f"{answer.url}: status {answer.status_code}: {text}")


def _error_of(said: Any) -> tuple[str, str]:
    """Words and code of an error, in OpenAI's shape or another."""
    inner = said.get("error") or said if isinstance(said, Mapping) else said
    if not isinstance(inner, Mapping):
        return str(inner)[:1000], ""
    text = inner.get("message") or inner.get("detail") or inner
    return str(text)[:1000], str(inner.get("code") or inner.get("type") or "")


def _is_context(text: str, code: str) -> ContextError | None:
    if code == "context_length_exceeded" or "maximum context length" in text:
        return ContextError(text)
    return None


class _Reading:
    """Lines of a stream in, deltas out. The finish waits for the usage, which comes last.

    Servers differ in what they leave out or send as null; what is not needed may be missing.

    Args:
        chat: the answer is a message: blanks in front of its text are left out. (ChatGLM3's replies begin with a line
            end and a blank, which other servers send on.)
    """

    def __init__(self, url: str, choices: int, chat: bool) -> None:
        self._url, self._choices, self._chat = url, choices, chat
        self._reasons: dict[int, Any] = {}
        self._stops: dict[int, str] = {}  # of each choice, the stop sequence that ended it, where the server says so
        self._done = False
        self._usage: Mapping[str, Any] = {}
        self._tokens: dict[int, int] = {}
        self._asked = time.perf_counter()
        self._first: dict[int, float] = {}  # seconds to the first token
        self._spoken: set[int] = set()  # choices whose text has begun
        self._held: dict[int, list[TokenLogprob]] = {}  # tokens of blanks in front
        self._calls: dict[int, list[tuple[int, str]]] = {}  # of each choice, the server's index and id of each call

    def take(self, line: str) -> Iterator[Delta]:
        if not line.startswith("data:"):
            return
        data = line[5:].strip()
        if data == "[DONE]":
            self._done = True
        if not data or data == "[DONE]":
            return
        try:
            chunk = json.loads(data)
            if chunk.get("error"):
                text, code = _error_of(chunk)
                raise _is_context(text, code) or ServiceError(f"{self._url}: failed within an answer: {text}")
            self._usage = chunk.get("usage") or self._usage
            for choice in chunk.get("choices") or ():
                yield from self._choice(choice)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            if isinstance(error, ChatGLMError):
                raise
            raise ServiceError(f"{self._url}: sent what is no OpenAI stream ({line!r:.80}: {error})") from error

    def _choice(self, choice: Mapping[str, Any]) -> Iterator[Delta]:
        number = int(choice.get("index") or 0)
        delta = choice.get("delta") or {}
        text = str(delta.get("content") or choice.get("text") or "")
        logprobs = _logprobs(choice.get("logprobs"))
        self._tokens[number] = self._tokens.get(number, 0) + 1
        calls = list(delta.get("tool_calls") or ())
        if old := delta.get("function_call"):
            calls.append({"function": old})
        if text or calls:
            self._first.setdefault(number, time.perf_counter() - self._asked)
        yield from self._text(number, text, logprobs)
        for piece in calls:
            yield self._call(number, piece)
        if choice.get("finish_reason"):
            self._reasons[number] = choice["finish_reason"]
            if isinstance(choice.get("stop_reason"), str):  # vLLM's field
                self._stops[number] = choice["stop_reason"]

    def _text(self, number: int, text: str, logprobs: list[TokenLogprob]) -> Iterator[Delta]:
        if self._chat and number not in self._spoken:
            text = text.lstrip()
            held = [*self._held.pop(number, []), *logprobs]
            if not text:
                self._held[number] = held
                return
            self._spoken.add(number)
            while held and not held[0].data.strip():
                del held[0]
            logprobs = held
        if text or logprobs:
            yield TextDelta(text, tuple(logprobs), number)

    def _call(self, number: int, piece: Mapping[str, Any]) -> CallDelta:
        function = piece.get("function") or {}
        index, name, given = int(piece.get("index") or 0), str(function.get("name") or ""), str(piece.get("id") or "")
        known = self._calls.setdefault(number, [])
        place = next((n for n in reversed(range(len(known))) if known[n][0] == index), None)
        # Some servers give every call the index 0, or repeat a call's id and name with each piece of it.
        begins = place is None or bool(name and given and given != known[place][1])
        if place is None or begins:
            place = len(known)
            known.append((index, given or f"call_{secrets.token_hex(12)}"))
        arguments = function.get("arguments") or ""
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        return CallDelta(place, known[place][1] if begins else "", name if begins else "", arguments, number)

    def end(self) -> Iterator[Delta]:
        if self._done:  # it is over, even if the server does not say why
            for number in range(self._choices):
                self._reasons.setdefault(number, "stop")
        if len(self._reasons) < self._choices:
            raise ServiceError(f"{self._url}: the stream ended in the middle of an answer")
        details = self._usage.get("prompt_tokens_details") or {}
        for number, reason in sorted(self._reasons.items()):
            # The endpoint counts all answers together; each gets its share of what came.
            share = self._tokens.get(number, 0) / max(1, sum(self._tokens.values()))
            usage = Usage(
                int(self._usage.get("prompt_tokens") or 0),
                round(int(self._usage.get("completion_tokens") or 0) * share),
                int(details.get("cached_tokens") or 0),
            )
            seconds = time.perf_counter() - self._asked
            yield Finish(
                "length" if reason == "length" else "tool_calls" if self._calls.get(number) else "stop",
                usage,
                choice=number,
                first_seconds=self._first.get(number, seconds),
                seconds=seconds,
                stop=self._stops.get(number, ""),
            )


def _logprobs(given: Any) -> list[TokenLogprob]:
    if not given:
        return []
    if "content" in given:
        return [
            TokenLogprob(_data(entry), float(entry["logprob"]), _alternatives(entry.get("top_logprobs")))
            for entry in given["content"] or ()
            if entry.get("logprob") is not None
        ]
    tokens = given.get("tokens") or []
    tops = given.get("top_logprobs") or [{}] * len(tokens)
    return [
        TokenLogprob(
            str(token).encode(),
            float(value),
            tuple((str(other).encode(), float(its)) for other, its in (top or {}).items() if its is not None),
        )
        for token, value, top in zip(tokens, given.get("token_logprobs") or (), tops, strict=True)
        if value is not None
    ]


def _alternatives(given: Any) -> tuple[tuple[bytes, float], ...]:
    return tuple((_data(other), float(other["logprob"])) for other in given or () if other.get("logprob") is not None)


def _data(entry: Mapping[str, Any]) -> bytes:
    return bytes(entry["bytes"]) if entry.get("bytes") is not None else str(entry["token"]).encode()
