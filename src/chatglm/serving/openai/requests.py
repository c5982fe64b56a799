"""What requests to OpenAI's routes may contain."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from chatglm.assistant import Options
from chatglm.chat.messages import Message
from chatglm.errors import InputError
from chatglm.serving.dialect import Strict
from chatglm.serving.fields import OPTIONS, Content, Function, Never, Unsupported, sampling_option

__all__ = ["Call", "ChatRequest", "CompletionRequest"]


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


class Call(Strict):
    id: str
    type: Literal["function"]
    function: _CalledFunction
    index: int | None = Field(None, description="as streams have it; of no meaning here")


class _AssistantMessage(Strict):
    role: Literal["assistant"]
    content: Content | None = None
    tool_calls: list[Call] | None = None
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


class _Tool(Strict):
    type: Literal["function"]
    function: Function


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
    temperature: float | None = sampling_option("temperature")
    top_p: float | None = sampling_option("top_p")
    top_k: int | None = sampling_option("top_k")
    min_p: float | None = sampling_option("min_p")
    repetition_penalty: float | None = sampling_option("repetition_penalty")
    presence_penalty: float | None = sampling_option("presence_penalty")
    frequency_penalty: float | None = sampling_option("frequency_penalty")
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        None, description=OPTIONS["logit_bias"].help, json_schema_extra={"propertyNames": {"pattern": "^[0-9]{1,9}$"}}
    )
    seed: int | None = sampling_option("seed")
    stop: Annotated[str, Field(min_length=1)] | list[Annotated[str, Field(min_length=1)]] | None = Field(
        None, description=OPTIONS["stop"].help
    )
    stop_token_ids: list[Annotated[int, Field(ge=0)]] | None = Field(None, description=OPTIONS["stop_ids"].help)
    max_tokens: int | None = sampling_option("max_new_tokens")
    min_tokens: int | None = sampling_option("min_new_tokens")
    n: int | None = sampling_option("n")
    user: str | None = Field(None, description="the caller's own; of no meaning here")

    def options(self) -> dict[str, Any]:
        """Of `SamplingParams`, those that the request has."""
        names = {"max_tokens": "max_new_tokens", "min_tokens": "min_new_tokens", "stop_token_ids": "stop_ids"}
        given = {names.get(name, name): getattr(self, name) for name in _Generation.model_fields}
        return {"n": 1} | {name: value for name, value in given.items() if name in OPTIONS and value is not None}

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
    max_completion_tokens: int | None = sampling_option("max_new_tokens")
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
