"""The client side of OpenAI's HTTP interface: makes the bodies of requests, and reads deltas from responses.

Servers (vLLM, SGLang, llama.cpp, another `chatglm serve`, cloud services) differ in the fields that they leave out or
send as null.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chatglm.assistant.base import (
    Ask,
    CallDelta,
    Delta,
    Finish,
    PromptDelta,
    PromptToken,
    TextDelta,
    TokenLogprob,
    Usage,
)
from chatglm.chat.messages import INTERPRETER, Message, ToolSpec, whole_text
from chatglm.chat.personas import staged
from chatglm.errors import (
    ChatGLMError,
    ContextError,
    InputError,
    QueueFullError,
    ServiceError,
    UnsupportedError,
)
from chatglm.params import SamplingParams

__all__ = ["MISREAD", "Lines", "Question", "Reading", "refusal"]

MISREAD = (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError)
"""Exceptions while reading JSON that does not have OpenAI's form."""

# Options that have another name in requests: OpenAI's, or that of vLLM and SGLang.
_NAMES = {"max_new_tokens": "max_tokens", "stop_ids": "stop_token_ids", "min_new_tokens": "min_tokens"}
_LINE_BYTES = 64 << 20


@dataclass(frozen=True)
class Question:
    """A request, without the name of the model.

    Attributes:
        route: path below the base URL.
        body: JSON body of the request, without `model`.
        params: options of generation in the request.
        client: identifies the caller, so that the endpoint can share fairly between callers.
    """

    route: str
    body: Mapping[str, Any]
    params: SamplingParams
    client: str | None = None

    @classmethod
    def of_dialogue(cls, ask: Ask) -> Question:
        """A request for the answer to a dialogue.

        Raises:
            UnsupportedError: OpenAI's interface has no field for something in it.
        """
        if ask.prefill:
            raise UnsupportedError(
                "prefill: OpenAI-compatible endpoints cannot continue a given beginning of an answer"
            )
        body = _common(ask.params, ask.adapter)
        body["messages"] = [_without_extras(message) for message in staged(ask.messages, ask.persona)]
        if ask.params.logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": ask.params.logprobs}
        if ask.tools:
            choice: Any = ask.tool_choice
            if choice not in ("auto", "none", "required"):
                choice = {"type": "function", "function": {"name": choice}}
            body |= {"tools": [_function(tool) for tool in ask.tools], "tool_choice": choice}
            body |= {} if ask.parallel_calls else {"parallel_tool_calls": False}
        if ask.response_format is not None:
            body["response_format"] = ask.response_format
        return cls("chat/completions", body, ask.params, ask.client)

    @classmethod
    def of_text(
        cls, prompt: str | Sequence[int], params: SamplingParams, adapter: str | None, client: str | None
    ) -> Question:
        """A request for the continuation of a text or ids.

        Raises:
            UnsupportedError: OpenAI's interface has no field for one of the options.
        """
        body = _common(params, adapter)
        body["prompt"] = prompt if isinstance(prompt, str) else list(prompt)
        if params.logprobs is not None:
            body["logprobs"] = params.logprobs
        if params.prompt_logprobs is not None:
            del body["stream_options"]  # only a whole response shows which tokens are the prompt's
            body |= {"stream": False, "echo": True, "logprobs": max(params.prompt_logprobs, params.logprobs or 0)}
        return cls("completions", body, params, client)

    @property
    def counted(self) -> Mapping[str, Any]:
        """The body of a request that counts the prompt's tokens (`/tokenize` of vLLM, `chatglm serve`), without the
        model.
        """
        return {name: self.body[name] for name in ("messages", "tools") if name in self.body}

    @property
    def streamed(self) -> bool:
        """Whether the answer is read by `reading`; else by `whole`."""
        return bool(self.body["stream"])

    def sent(self, model: str) -> bytes:
        """The body of the request as JSON."""
        return json.dumps({"model": model, **self.body}, ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "surrogatepass"
        )

    def reading(self, url: str) -> Reading:
        """The reader for a streamed response.

        Args:
            url: address of the server, for errors.
        """
        return Reading(url, self.params.n, "messages" in self.body)

    def whole(self, url: str, data: bytes, seconds: float) -> Iterator[Delta]:
        """The deltas of a response that is not streamed: the prompt and each answer, with log-probabilities of both.

        Args:
            url: address of the server, for errors.
            data: body of the response.
            seconds: time from the request to the response.

        Raises:
            UnsupportedError: the server did not return the prompt.
            ServiceError: the response does not have OpenAI's form.
        """
        try:
            said = json.loads(data)
            choices, usage = said["choices"], _usage_of(said["usage"])
            prompt = int(said["usage"]["prompt_tokens"])  # required: tells where the answer begins
            for choice in choices:
                number, count = int(choice.get("index") or 0), len(choice["logprobs"]["tokens"])
                yield from self._texts(url, choice, prompt, number)
                yield Finish(
                    "length" if choice.get("finish_reason") == "length" else "stop",
                    usage if len(choices) == 1 else replace(usage, completion_tokens=count - prompt),
                    choice=number,
                    first_seconds=seconds,
                    seconds=seconds,
                )
        except MISREAD as error:
            if isinstance(error, ChatGLMError):
                raise
            raise ServiceError(f"{url}: its answer is not in the form of OpenAI's completions ({error})") from error

    def _texts(self, url: str, choice: Mapping[str, Any], own: int, number: int) -> Iterator[Delta]:
        """The prompt, which has `own` tokens, and the text after it."""
        given, text, asked = choice["logprobs"], whole_text(str(choice["text"])), self.body["prompt"]
        tokens = [_bytes(token) for token in given["tokens"]]
        if len(tokens) < own or (isinstance(asked, str) and not text.startswith(asked)):
            raise UnsupportedError(f"echo: {url} does not give the prompt back with its log-probabilities")
        tops = [_likeliest(top) for top in given.get("top_logprobs") or [None] * len(tokens)]
        values = [None if value is None else float(value) for value in given["token_logprobs"]]
        offsets = given.get("text_offset") or []
        length = len(asked) if isinstance(asked, str) else offsets[own] if len(offsets) > own else len(text)
        rows, wanted = list(zip(tokens, values, tops, strict=True)), self.params.prompt_logprobs
        yield PromptDelta(
            text[:length], tuple(PromptToken(token, value, top[:wanted]) for token, value, top in rows[:own]), number
        )
        wanted, logprobs = self.params.logprobs, []
        if wanted is not None:
            logprobs = [
                TokenLogprob(token, value, top[:wanted]) for token, value, top in rows[own:] if value is not None
            ]
        if length < len(text) or logprobs:
            yield TextDelta(text[length:], tuple(logprobs), number)


def _common(params: SamplingParams, adapter: str | None) -> dict[str, Any]:
    if adapter is not None:
        raise UnsupportedError("adapter: an endpoint serves an adapter as a model; give the adapter's name as model")
    given = params.to_dict()
    for name in ("logprobs", "prompt_logprobs"):
        given.pop(name, None)
    for name in ("max_length", "bad_words_ids"):
        if name in given:
            raise UnsupportedError(f"{name}: a remote model cannot do this; its OpenAI interface has no such option")
    if "logit_bias" in given:
        given["logit_bias"] = {str(token): bias for token, bias in given["logit_bias"].items()}
    body = {_NAMES.get(name, name): value for name, value in given.items()}
    return {**body, "stream": True, "stream_options": {"include_usage": True}}


_INTERPRETER = {
    "type": "function",
    "function": {
        "name": INTERPRETER,
        "description": "Runs Python code and returns what it prints. Variables are kept; there is no internet.",
        "parameters": {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
    },
}
"""The code interpreter as a function, for endpoints that know only functions. `chatglm serve` recognises it."""


def _function(tool: ToolSpec) -> Mapping[str, Any]:
    return _INTERPRETER if tool.builtin == "python" else tool.wrapped()


def _without_extras(message: Message) -> dict[str, Any]:
    """A message with the fields that every endpoint knows.

    Raises:
        UnsupportedError: it has metadata or tools, which other endpoints do not know.
    """
    data = message.to_dict()
    for name in ("metadata", "tools"):
        if name in data:
            raise UnsupportedError(
                f"messages: a message has `{name}`, which OpenAI-compatible endpoints do not know; remove it, and give "
                "tools in the option `tools`"
            )
    data.pop("loss", None)
    return data


def refusal(url: str, status: int, body: bytes, retry_after: str | None) -> ChatGLMError:
    """The error for a response whose status is not 200.

    Args:
        retry_after: the header `Retry-After`; None: there is none.
    """
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = body[:200].decode("utf-8", "replace")
    text, code = _error_of(said)
    match status:
        case 400 | 413 | 422:
            return _is_context(text, code) or InputError(text)
        case 429:
            full = QueueFullError(f"{url}: {text}")
            if retry_after is not None and retry_after.isdecimal() and len(retry_after) < 6:
                full.retry_after = int(retry_after)
            return full
    error = ServiceError(f"{url}: status {status}: {text}")
    error.status = status
    return error


def _error_of(said: Any) -> tuple[str, str]:
    """Message and code of an error, in OpenAI's form or another one; "" if it has no code."""
    inner = said.get("error") or said if isinstance(said, Mapping) else said
    if not isinstance(inner, Mapping):
        return whole_text(str(inner)[:1000]), ""
    text = inner.get("message") or inner.get("detail") or inner
    return whole_text(str(text)[:1000]), str(inner.get("code") or inner.get("type") or "")


def _is_context(text: str, code: str) -> ContextError | None:
    if code == "context_length_exceeded" or "maximum context length" in text:
        return ContextError(text)
    return None


class Lines:
    """Splits bytes into lines. Only line feeds end a line, because JSON may contain the other line ends of Unicode."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._rest: list[bytes] = []
        self._size = 0

    def take(self, data: bytes) -> Iterator[bytes]:
        """Add bytes; yields the lines that are complete now.

        Raises:
            ServiceError: a line has more than 64 MiB.
        """
        first, *more = data.split(b"\n")
        self._rest.append(first)
        self._size += len(first)
        if self._size > _LINE_BYTES:
            raise ServiceError(f"{self._url}: sent a line of more than {_LINE_BYTES >> 20} MiB")
        if more:
            yield b"".join(self._rest)
            yield from more[:-1]
            self._rest, self._size = [more[-1]], len(more[-1])

    def last(self) -> Iterator[bytes]:
        """The text after the last line feed, if there is any."""
        if self._size:
            yield b"".join(self._rest)


class Reading:
    """Turns the lines of a stream into deltas. `Finish` comes at the end, because servers send the usage last.

    Fields that are not needed may be missing.

    Args:
        url: address of the server, for errors.
        choices: number of answers.
        chat: the answers are messages: spaces in front of the text are left out. (ChatGLM3's replies begin with a line
            end and a space, which other servers send.)
    """

    def __init__(self, url: str, choices: int, chat: bool) -> None:
        self._url, self._choices, self._chat = url, choices, chat
        self._reasons: dict[int, Any] = {}
        self._stops: dict[int, str] = {}  # the stop sequence that ended each choice, if the server reports it
        self._done = False
        self._usage = Usage(0, 0)
        self._tokens: dict[int, int] = {}
        self._asked = time.perf_counter()
        self._first: dict[int, float] = {}  # seconds to the first token
        self._spoken: set[int] = set()  # choices whose text has begun
        self._held: dict[int, list[TokenLogprob]] = {}  # tokens of the spaces in front of the text
        self._calls: dict[int, list[tuple[int, str]]] = {}  # for each choice, the server's index and id of each call
        self._halves: dict[tuple[int, int | None], str] = {}  # by choice and call (None: its text), see `_joined`

    def take(self, line: bytes) -> Iterator[Delta]:
        """The deltas of a line.

        Raises:
            ContextError: the server reports that the prompt is too long.
            ServiceError: the server reports another error, or the line does not have OpenAI's form.
        """
        if not line.startswith(b"data:"):
            return
        data = line[5:].strip()
        if data == b"[DONE]":
            self._done = True
        if not data or data == b"[DONE]":
            return
        try:
            chunk = json.loads(data)
            if chunk.get("error"):
                text, code = _error_of(chunk)
                error = ServiceError(f"{self._url}: failed within an answer: {text}")
                error.status = 500  # the server has begun to answer, and cannot continue
                raise _is_context(text, code) or error
            if usage := chunk.get("usage"):
                self._usage = _usage_of(usage)
            for choice in chunk.get("choices") or ():
                yield from self._choice(choice)
        except MISREAD as error:
            if isinstance(error, ChatGLMError):
                raise
            raise ServiceError(
                f"{self._url}: its stream is not in OpenAI's form ({line[:80].decode('utf-8', 'replace')!r}: {error})"
            ) from error

    def _choice(self, choice: Mapping[str, Any]) -> Iterator[Delta]:
        number = int(choice.get("index") or 0)
        delta = choice.get("delta") or {}
        text = self._joined(number, None, str(delta.get("content") or choice.get("text") or ""))
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

    def _joined(self, number: int, call: int | None, text: str) -> str:
        """The next text of an answer or of a call's arguments. Servers in JavaScript may cut it between the halves of a
        surrogate pair: then the first half is kept until the second one comes.
        """
        text = self._halves.pop((number, call), "") + text
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._halves[number, call] = text[:-1], text[-1]
        return whole_text(text)

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
        index, name = int(piece.get("index") or 0), whole_text(str(function.get("name") or ""))
        given = whole_text(str(piece.get("id") or ""))
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
        arguments = self._joined(number, place, arguments)
        return CallDelta(place, known[place][1] if begins else "", name if begins else "", arguments, number)

    def end(self) -> Iterator[Delta]:
        """The deltas at the end of the stream: a `Finish` for each answer.

        Raises:
            ServiceError: an answer is incomplete.
        """
        if self._done:  # the answers are complete, even if the server gives no reason
            for number in range(self._choices):
                self._reasons.setdefault(number, "stop")
        if len(self._reasons) < self._choices:
            raise ServiceError(f"{self._url}: the stream ended in the middle of an answer")
        for number in [number for number, call in self._halves if call is None]:
            yield TextDelta("\ufffd", choice=number)
        for number, reason in sorted(self._reasons.items()):
            # The server counts the tokens of all answers together. Each answer gets the share of its number of chunks.
            share = self._tokens.get(number, 0) / max(1, sum(self._tokens.values()))
            usage = replace(self._usage, completion_tokens=round(self._usage.completion_tokens * share))
            seconds = time.perf_counter() - self._asked
            yield Finish(
                "length" if reason == "length" else "tool_calls" if self._calls.get(number) else "stop",
                usage,
                choice=number,
                first_seconds=self._first.get(number, seconds),
                seconds=seconds,
                stop=self._stops.get(number, ""),
            )


def _usage_of(given: Mapping[str, Any]) -> Usage:
    counts = (
        given.get("prompt_tokens"),
        given.get("completion_tokens"),
        (given.get("prompt_tokens_details") or {}).get("cached_tokens"),
    )
    return Usage(*(max(0, int(count or 0)) for count in counts))


def _bytes(token: Any) -> bytes:
    return whole_text(str(token)).encode()


def _likeliest(top: Mapping[str, Any] | None) -> tuple[tuple[bytes, float], ...]:
    known = ((_bytes(token), float(value)) for token, value in (top or {}).items() if value is not None)
    return tuple(sorted(known, key=lambda pair: -pair[1]))


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
            _bytes(token),
            float(value),
            tuple((_bytes(other), float(its)) for other, its in (top or {}).items() if its is not None),
        )
        for token, value, top in zip(tokens, given.get("token_logprobs") or (), tops, strict=True)
        if value is not None
    ]


def _alternatives(given: Any) -> tuple[tuple[bytes, float], ...]:
    return tuple((_data(other), float(other["logprob"])) for other in given or () if other.get("logprob") is not None)


def _data(entry: Mapping[str, Any]) -> bytes:
    return bytes(entry["bytes"]) if entry.get("bytes") is not None else _bytes(entry["token"])
