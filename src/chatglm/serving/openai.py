"""OpenAI's `/v1/chat/completions`, `/v1/completions` and `/v1/models`, with vLLM's names for options OpenAI has not.

A field that is not honoured is refused by name; those of OpenAI's that are known and not supported are listed as such.
"""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from chatglm.assistant import Answer, CallDelta, Delta, Finish, Options, TextDelta, TokenLogprob
from chatglm.chat.messages import Message
from chatglm.errors import ChatGLMError, InputError
from chatglm.params import SamplingParams
from chatglm.serving.dialect import (
    EventStream,
    Failure,
    Served,
    Service,
    Strict,
    dialect_route,
    failure_of,
    first_of,
    whole_of,
)

__all__ = ["render", "router"]


# Requests


def _refuse(value: Any) -> None:
    if value is not None:
        raise PydanticCustomError("unsupported", "not supported here; leave it out")


def _refuse_true(value: Any) -> Any:
    if value is True:
        raise PydanticCustomError("unsupported", "true is not supported here; leave it out")
    if value is not False and value is not None:
        raise PydanticCustomError("bool_type", "input should be a valid boolean")
    return value


Never = Annotated[Literal[False], BeforeValidator(_refuse_true)]
"""A switch that can only be off. (`Literal[False]` alone takes 0 for it.)"""

Unsupported = Annotated[None, BeforeValidator(_refuse), Field(description="not supported: null, or left out")]

_EXACT = 2**53
_OPTIONS = {option.name: option for option in SamplingParams.options()}


def _option(name: str) -> Any:
    """A field for an option of generation: its range and its words. What is left out is as the model's folder says."""
    option = _OPTIONS[name]
    bounds: dict[str, Any] = {}
    # Those that JSON's readers would round (a seed's) are left to SamplingParams.
    if option.high is not None and option.high < _EXACT:
        bounds["le"] = option.high
    if option.low is not None and option.low > -_EXACT:
        bounds["gt" if option.above else "ge"] = option.low
    if option.kind == "number":
        bounds["allow_inf_nan"] = False
    return Field(None, description=option.help, **bounds)


class _TextPart(Strict):
    type: Literal["text"]
    text: str


Content = str | list[_TextPart]


class _SystemMessage(Strict):
    role: Literal["system", "developer"]
    content: Content
    name: Unsupported = None


class _UserMessage(Strict):
    role: Literal["user"]
    content: Content
    name: Unsupported = None


class _CalledFunction(Strict):
    name: str = Field(min_length=1)
    arguments: str = Field(description="a JSON object")


class _Call(Strict):
    id: str
    type: Literal["function"]
    function: _CalledFunction
    index: int | None = Field(None, description="as streams have it; of no meaning here")


class _AssistantMessage(Strict):
    role: Literal["assistant"]
    content: Content | None = None
    tool_calls: list[_Call] | None = None
    name: Unsupported = None
    refusal: Unsupported = None
    audio: Unsupported = None
    function_call: Unsupported = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None


class _ToolMessage(Strict):
    role: Literal["tool"]
    content: Content
    tool_call_id: str
    name: Unsupported = None


ChatMessage = Annotated[_SystemMessage | _UserMessage | _AssistantMessage | _ToolMessage, Field(discriminator="role")]


class _Function(Strict):
    name: str = Field(pattern=r"^[\w.-]+$", max_length=64)
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="JSON schema of an object")
    strict: bool | None = None


class _Tool(Strict):
    type: Literal["function"]
    function: _Function


class _Name(Strict):
    name: str


class _NamedTool(Strict):
    type: Literal["function"]
    function: _Name


class _Text(Strict):
    type: Literal["text"]


class _JsonObject(Strict):
    type: Literal["json_object"]


class _Schema(Strict):
    name: str = Field(pattern=r"^[\w-]+$", max_length=64)
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = Field(None, description="the schema is always followed")


class _JsonSchema(Strict):
    type: Literal["json_schema"]
    json_schema: _Schema


class _Regex(Strict):
    type: Literal["regex"]
    pattern: str


class _Grammar(Strict):
    type: Literal["grammar"]
    grammar: str = Field(description="EBNF, as in llama.cpp")


ResponseFormat = Annotated[_Text | _JsonObject | _JsonSchema | _Regex | _Grammar, Field(discriminator="type")]


class _StreamOptions(Strict):
    include_usage: bool | None = Field(None, description="a last chunk with the usage")
    include_obfuscation: Never | None = None


class _Generation(Strict):
    """What both routes understand."""

    model: str
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: float | None = _option("temperature")
    top_p: float | None = _option("top_p")
    top_k: int | None = _option("top_k")
    min_p: float | None = _option("min_p")
    repetition_penalty: float | None = _option("repetition_penalty")
    presence_penalty: float | None = _option("presence_penalty")
    frequency_penalty: float | None = _option("frequency_penalty")
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        None, description=_OPTIONS["logit_bias"].help, json_schema_extra={"propertyNames": {"pattern": "^[0-9]{1,9}$"}}
    )
    seed: int | None = _option("seed")
    stop: Annotated[str, Field(min_length=1)] | list[Annotated[str, Field(min_length=1)]] | None = Field(
        None, description=_OPTIONS["stop"].help
    )
    stop_token_ids: list[Annotated[int, Field(ge=0)]] | None = Field(None, description=_OPTIONS["stop_ids"].help)
    max_tokens: int | None = _option("max_new_tokens")
    min_tokens: int | None = _option("min_new_tokens")
    n: int | None = _option("n")
    user: str | None = Field(None, description="the caller's own; of no meaning here")

    def options(self) -> dict[str, Any]:
        """Of `SamplingParams`, those that the request has."""
        names = {"max_tokens": "max_new_tokens", "min_tokens": "min_new_tokens", "stop_token_ids": "stop_ids"}
        given = {names.get(name, name): getattr(self, name) for name in _Generation.model_fields}
        return {"n": 1} | {name: value for name, value in given.items() if name in _OPTIONS and value is not None}

    def usage_wanted(self) -> bool:
        """
        Raises:
            InputError: options of a stream without one.
        """
        if self.stream_options is not None and not self.stream:
            raise InputError("stream_options: only with stream: true")
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(_Generation):
    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = _option("max_new_tokens")
    tools: list[_Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | _NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    store: Never | None = None
    service_tier: Literal["auto", "default"] | None = None
    modalities: list[Literal["text"]] | None = None
    audio: Unsupported = None
    function_call: Unsupported = None
    functions: Unsupported = None
    metadata: Unsupported = None
    prediction: Unsupported = None
    reasoning_effort: Unsupported = None
    verbosity: Unsupported = None
    web_search_options: Unsupported = None

    def asked(self) -> tuple[list[Message], Options]:
        """For an assistant.

        Raises:
            InputError: fields contradict each other.
        """
        values = self.options()
        if self.max_completion_tokens is not None:
            if self.max_tokens is not None:
                raise InputError("max_tokens: cannot be given together with max_completion_tokens")
            values["max_new_tokens"] = self.max_completion_tokens
        if self.top_logprobs is not None and not self.logprobs:
            raise InputError("top_logprobs: only with logprobs: true")
        if self.logprobs:
            values["logprobs"] = self.top_logprobs or 0
        made: Options = {"params": values, "trim": False}
        if self.tools is not None:
            made["tools"] = [tool.model_dump(exclude_none=True) for tool in self.tools]
        if self.tool_choice is not None:
            choice = self.tool_choice
            made["tool_choice"] = choice if isinstance(choice, str) else choice.function.name
        if self.parallel_tool_calls is not None:
            made["parallel_calls"] = self.parallel_tool_calls
        if self.response_format is not None:
            made["response_format"] = self.response_format.model_dump(by_alias=True, exclude_none=True)
        messages = []
        for number, message in enumerate(self.messages):
            data = message.model_dump(exclude_none=True)
            if data["role"] == "developer":
                data["role"] = "system"
            messages.append(Message.from_dict(data, number))
        return messages, made


class CompletionRequest(_Generation):
    prompt: str | list[str] | list[int] | list[list[int]] = Field(description="texts, or ids")
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: Never | None = None
    best_of: Unsupported = None
    suffix: Unsupported = None

    def prompts(self) -> list[str | list[int]]:
        """
        Raises:
            InputError: there is none.
        """
        given = self.prompt
        if isinstance(given, str):
            return [given]
        if not given:
            raise InputError("prompt: empty; give a text, texts, or ids")
        if isinstance(given[0], int):
            return [given]  # type: ignore[list-item]
        return list(given)  # type: ignore[arg-type]


# Answers, for the document


class _Error(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    error: _Error


class _CachedTokens(BaseModel):
    cached_tokens: int


class _UsageResponse(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: _CachedTokens


class _ResponseMessage(BaseModel):
    role: Literal["assistant"]
    content: str | None
    tool_calls: list[_Call] | None = None


class _ChatChoice(BaseModel):
    index: int
    message: _ResponseMessage
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatResponse(BaseModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[_ChatChoice]
    usage: _UsageResponse


class _CompletionChoice(BaseModel):
    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"]


class CompletionResponse(BaseModel):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[_CompletionChoice]
    usage: _UsageResponse


class ModelResponse(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelsResponse(BaseModel):
    object: Literal["list"]
    data: list[ModelResponse]


def render(failure: Failure) -> Response:
    return JSONResponse(_error(failure), failure.status)


def _error(failure: Failure) -> dict[str, Any]:
    inner = {"message": failure.message, "type": failure.kind, "param": failure.param, "code": failure.code}
    return {"error": inner}


# Deltas to JSON


class _Total:
    """What all answers to a request used."""

    def __init__(self) -> None:
        self._prompts: dict[int, tuple[int, int]] = {}
        self._made = 0

    def add(self, finish: Finish, prompt: int = 0) -> None:
        self._prompts[prompt] = finish.usage.prompt_tokens, finish.usage.cached_tokens
        self._made += finish.usage.completion_tokens

    def to_dict(self) -> dict[str, Any]:
        read, cached = (sum(column) for column in zip(*self._prompts.values(), strict=True))
        return {
            "prompt_tokens": read,
            "completion_tokens": self._made,
            "total_tokens": read + self._made,
            "prompt_tokens_details": {"cached_tokens": cached},
        }


def _token(data: bytes, logprob: float) -> dict[str, Any]:
    return {"token": data.decode("utf-8", "replace"), "logprob": max(logprob, -9999.0), "bytes": list(data)}


def _chat_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    content = [
        {**_token(one.data, one.logprob), "top_logprobs": [_token(*other) for other in one.alternatives]}
        for one in tokens
    ]
    return {"content": content, "refusal": None} if content else None


def _text_logprobs(tokens: Sequence[TokenLogprob], start: int) -> dict[str, Any] | None:
    """
    Args:
        start: characters of the answer in front of these tokens.
    """
    if not tokens:
        return None
    texts = [one.data.decode("utf-8", "replace") for one in tokens]
    return {
        "tokens": texts,
        "token_logprobs": [max(one.logprob, -9999.0) for one in tokens],
        "top_logprobs": [
            {data.decode("utf-8", "replace"): max(value, -9999.0) for data, value in one.alternatives} for one in tokens
        ],
        "text_offset": [start + sum(map(len, texts[:number])) for number in range(len(texts))],
    }


def _message(message: Message) -> dict[str, Any]:
    made: dict[str, Any] = {"role": "assistant", "content": message.content}
    if message.tool_calls:
        made["content"] = message.content or None
        made["tool_calls"] = [call.to_dict() for call in message.tool_calls]
    return made


def _chat_choice(number: int, answer: Answer) -> dict[str, Any]:
    return {
        "index": number,
        "message": _message(answer.message),
        "logprobs": _chat_logprobs(answer.logprobs),
        "finish_reason": answer.finish.reason,
    }


def _call_piece(delta: CallDelta) -> dict[str, Any]:
    piece: dict[str, Any] = {"index": delta.index, "function": {"arguments": delta.arguments}}
    if delta.name:
        piece |= {"id": delta.id, "type": "function"}
        piece["function"] = {"name": delta.name, "arguments": delta.arguments}
    return piece


class _Head:
    """What all chunks of an answer begin with."""

    def __init__(self, prefix: str, kind: str, model: str) -> None:
        self._fields: dict[str, Any] = {
            "id": f"{prefix}-{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            "model": model,
        }
        self._begin = _encode(self._fields).removesuffix("}")  # once for all chunks

    def whole(self, choices: Sequence[Mapping[str, Any]], usage: Mapping[str, Any] | None) -> dict[str, Any]:
        return {**self._fields, "choices": list(choices), "usage": usage}

    def event(self, choice: Mapping[str, Any] | None, usage: Mapping[str, Any] | None, with_usage: bool) -> str:
        choices = "" if choice is None else _encode(choice)
        end = f',"usage":{_encode(usage)}' if with_usage else ""
        return f'data: {self._begin},"choices":[{choices}]{end}}}\n\n'


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _event(data: Mapping[str, Any]) -> str:
    return f"data: {_encode(data)}\n\n"


async def _chat_events(head: _Head, deltas: AsyncGenerator[Delta], with_usage: bool) -> AsyncGenerator[str]:
    total = _Total()
    begun: set[int] = set()
    try:
        async with aclosing(deltas):
            async for delta in deltas:
                choice: dict[str, Any] = {"index": delta.choice, "delta": {}, "logprobs": None, "finish_reason": None}
                if delta.choice not in begun:
                    begun.add(delta.choice)
                    yield head.event({**choice, "delta": {"role": "assistant", "content": ""}}, None, with_usage)
                match delta:
                    case TextDelta():
                        choice |= {"delta": {"content": delta.text}, "logprobs": _chat_logprobs(delta.logprobs)}
                    case CallDelta():
                        choice["delta"] = {"tool_calls": [_call_piece(delta)]}
                    case Finish():
                        choice["finish_reason"] = delta.reason
                        total.add(delta)
                yield head.event(choice, None, with_usage)
        if with_usage:
            yield head.event(None, total.to_dict(), True)
        yield "data: [DONE]\n\n"
    except ChatGLMError as error:  # the status is long sent
        yield _event(_error(failure_of(error)))


async def _text_events(head: _Head, deltas: AsyncGenerator[Delta], n: int, usage: bool) -> AsyncGenerator[str]:
    total = _Total()
    lengths: Counter[int] = Counter()
    try:
        async with aclosing(deltas):
            async for delta in deltas:
                number = delta.choice
                choice: dict[str, Any] = {"index": number, "text": "", "logprobs": None, "finish_reason": None}
                if isinstance(delta, TextDelta):
                    choice |= {"text": delta.text, "logprobs": _text_logprobs(delta.logprobs, lengths[number])}
                    lengths[number] += len(delta.text)
                elif isinstance(delta, Finish):
                    choice["finish_reason"] = delta.reason
                    total.add(delta, number // n)
                yield head.event(choice, None, usage)
        if usage:
            yield head.event(None, total.to_dict(), True)
        yield "data: [DONE]\n\n"
    except ChatGLMError as error:
        yield _event(_error(failure_of(error)))


_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorResponse, "description": "a field is wrong, or not supported; `param` names it"},
    404: {"model": ErrorResponse, "description": "no such model"},
    429: {"model": ErrorResponse, "description": "too many requests wait; `Retry-After` says when to come again"},
    500: {"model": ErrorResponse, "description": "the engine has stopped"},
    502: {"model": ErrorResponse, "description": "the server behind this one failed"},
}
_STREAM: dict[str, Any] = {"content": {"text/event-stream": {}}}


def router(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["OpenAI"], route_class=dialect_route("openai", service, render))
    started = int(time.time())

    @routes.post("/chat/completions", response_model=ChatResponse, responses={**_REFUSALS, 200: _STREAM})
    async def chat(body: ChatRequest, request: Request) -> Response:
        """The assistant's next message."""
        served, with_usage = service.find(body.model), body.usage_wanted()
        messages, options = body.asked()
        options["adapter"] = served.adapter
        deltas = service.metrics.watch(served.name, served.assistant.astream(messages, **options), body.n or 1)
        head = _Head("chatcmpl", "chat.completion.chunk" if body.stream else "chat.completion", served.name)
        if body.stream:
            return EventStream(_chat_events(head, await first_of(request, deltas), with_usage))
        answers, total = await whole_of(request, deltas), _Total()
        for answer in answers:
            total.add(answer.finish)
        return JSONResponse(head.whole([_chat_choice(n, answer) for n, answer in enumerate(answers)], total.to_dict()))

    @routes.post("/completions", response_model=CompletionResponse, responses={**_REFUSALS, 200: _STREAM})
    async def complete(body: CompletionRequest, request: Request) -> Response:
        """What follows a text, without any format of a dialogue."""
        served, with_usage = service.find(body.model), body.usage_wanted()
        values = body.options() | ({} if body.logprobs is None else {"logprobs": body.logprobs})
        prompts, n = body.prompts(), values["n"]
        deltas = service.metrics.watch(
            served.name,
            served.assistant.astream_texts(prompts, params=values, adapter=served.adapter),
            answers=n,
            prompts=len(prompts),
        )
        head = _Head("cmpl", "text_completion", served.name)
        if body.stream:
            return EventStream(_text_events(head, await first_of(request, deltas), n, with_usage))
        answers = await whole_of(request, deltas)
        total, choices = _Total(), []
        for number, answer in enumerate(answers):
            total.add(answer.finish, number // n)
            choices.append(
                {
                    "index": number,
                    "text": answer.message.content,
                    "logprobs": _text_logprobs(answer.logprobs, 0),
                    "finish_reason": answer.finish.reason,
                }
            )
        return JSONResponse(head.whole(choices, total.to_dict()))

    def listed(served: Served) -> dict[str, Any]:
        return {"id": served.name, "object": "model", "created": started, "owned_by": "chatglm"}

    @routes.get("/models", response_model=ModelsResponse)
    async def models() -> dict[str, Any]:
        """The models on offer, and their adapters."""
        return {"object": "list", "data": [listed(served) for served in service.models.values()]}

    @routes.get("/models/{name:path}", response_model=ModelResponse, responses={404: _REFUSALS[404]})
    async def model(name: str) -> dict[str, Any]:
        """One of them."""
        return listed(service.find(name))

    return routes
