"""What requests to OpenAI's routes may contain."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from chatglm.assistant import Delta, Options, PromptDelta
from chatglm.chat.messages import Message
from chatglm.errors import InputError
from chatglm.serving.dialect import Strict
from chatglm.serving.fields import OPTIONS, OneOf, Strings, TopK, Unsupported, sampling_option, wrong
from chatglm.serving.hints import REQUEST, STREAM_OPTIONS, note_ignored
from chatglm.serving.messages import ChatMessage, messages_of
from chatglm.serving.server_tools import ServerToolNames
from chatglm.serving.structured import Guided
from chatglm.serving.tools import FunctionCallChoice, Functions, ToolChoice, Tools, chosen_tool, is_flat, tools_of

__all__ = ["ChatRequest", "CompletionRequest", "Generation", "Sampling"]


class _StreamOptions(Strict):
    hints = STREAM_OPTIONS

    include_usage: bool | None = Field(None, description="send a last chunk with the usage")


def _no_limit(value: Any) -> Any:
    """-1 means no limit in LM Studio and llama.cpp."""
    return None if value == -1 else value


_AtLeastOne = Annotated[
    Annotated[int, Field(ge=1)] | None,
    BeforeValidator(_no_limit, json_schema_input_type=Annotated[int, Field(ge=1)] | Literal[-1] | None),
    Field(description=OPTIONS["max_new_tokens"].help),
]
_AtLeastZero = Annotated[
    Annotated[int, Field(ge=0)] | None,
    BeforeValidator(_no_limit, json_schema_input_type=Annotated[int, Field(ge=-1)] | None),
]


def _bias(value: Any) -> Any:
    if isinstance(value, dict):
        for token in value:
            if not (token.isascii() and token.isdigit() and len(token) < 10):
                raise wrong(f"maps token ids to numbers; {token!r:.40} is not a token id")
    return value


_NAMES = {"max_tokens": "max_new_tokens", "min_tokens": "min_new_tokens", "stop_token_ids": "stop_ids"}
"""Names of sampling options, by the fields that have other names."""


class Sampling(Strict):
    """Sampling options under OpenAI's names, or vLLM's."""

    temperature: float | None = sampling_option("temperature")
    top_p: float | None = sampling_option("top_p")
    top_k: TopK = None
    min_p: float | None = sampling_option("min_p")
    repetition_penalty: float | None = sampling_option("repetition_penalty")
    presence_penalty: float | None = sampling_option("presence_penalty")
    frequency_penalty: float | None = sampling_option("frequency_penalty")
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], BeforeValidator(_bias)] | None = Field(
        None, description=OPTIONS["logit_bias"].help, json_schema_extra={"propertyNames": {"pattern": "^[0-9]{1,9}$"}}
    )
    seed: int | None = sampling_option("seed")
    stop: Strings | None = Field(None, description=OPTIONS["stop"].help)
    stop_token_ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(fail_fast=True)] | None = Field(
        None, description=OPTIONS["stop_ids"].help
    )

    def sampling(self) -> dict[str, Any]:
        """Return those that the request sets."""
        return self._given(Sampling)

    def _given(self, fields_of: type[Sampling]) -> dict[str, Any]:
        given = {_NAMES.get(name, name): getattr(self, name) for name in fields_of.model_fields}
        return {name: value for name, value in given.items() if name in OPTIONS and value is not None}


class Generation(Sampling):
    """What all routes that make text accept, and ZhipuAI's too."""

    hints = REQUEST

    model: str | None = Field(None, description="default: the first model of `/v1/models`")
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: _AtLeastOne = None
    min_tokens: int | None = sampling_option("min_new_tokens")
    n: int | None = sampling_option("n")

    def options(self) -> dict[str, Any]:
        """Return the sampling options that the request sets."""
        return {"n": 1} | self._given(Generation)

    def usage_wanted(self) -> bool:
        """Whether a stream ends with the usage."""
        if self.stream_options is not None and not self.stream:
            note_ignored("stream_options")
            return False
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(Generation, Guided):
    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: _AtLeastOne = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    functions: Functions | None = Field(None, description="older form of `tools`; the answer has `function_call`")
    function_call: FunctionCallChoice | None = Field(None, description="older form of `tool_choice`")
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    modalities: list[Literal["text"]] | None = None
    audio: Unsupported = None
    server_tools: ServerToolNames | None = None
    knowledge: Annotated[list[str], Field(max_length=16)] | None = Field(
        None, description="bases of documents to answer from; or `knowledge:NAME` as the model"
    )

    def asked(self) -> tuple[list[Message], Options]:
        """Return the dialogue and how it is to be answered.

        Raises:
            InputError: fields contradict each other.
        """
        made: Options = {"params": self._params(), "trim": False, "tools": self._tools()}
        choice = self._choice()
        if choice is not None:
            made["tool_choice"] = choice
        if self.parallel_tool_calls is not None:
            made["parallel_calls"] = self.parallel_tool_calls
        elif self.old_calls:
            made["parallel_calls"] = False
        made["response_format"] = self.format()
        return messages_of(self.messages), made

    @property
    def old_calls(self) -> bool:
        """Whether the client reads `function_call` instead of `tool_calls`: one that sends `functions`, or tools in the
        form of ChatGLM3's demos."""
        return bool(self.functions) or (bool(self.tools) and is_flat(self.tools))

    def _params(self) -> dict[str, Any]:
        values = self.options()
        limit = self.max_completion_tokens
        if limit is not None:
            if self.max_tokens not in (None, limit):
                raise InputError(f"max_tokens: is {self.max_tokens}, and max_completion_tokens is {limit}; send one")
            values["max_new_tokens"] = limit
        if self.top_logprobs is not None and not self.logprobs:
            if self.top_logprobs:
                raise InputError("top_logprobs: needs logprobs: true")
            note_ignored("top_logprobs")
        if self.logprobs:
            values["logprobs"] = self.top_logprobs or 0
        return values

    def _tools(self) -> Any:
        if self.functions is not None and not self.functions:
            note_ignored("functions")
        if self.functions and self.tools:
            raise InputError("functions: cannot be given together with tools")
        return tools_of(self.tools or self.functions or [])

    def _choice(self) -> str | None:
        if self.function_call is None:
            return None if self.tool_choice is None else chosen_tool(self.tool_choice)
        choice = chosen_tool(self.function_call)
        if not self.functions and not self.old_calls:
            if choice not in ("none", "auto"):
                raise InputError("function_call: needs functions; with tools, use tool_choice")
            note_ignored("function_call")
            return None if self.tool_choice is None else chosen_tool(self.tool_choice)
        if self.tool_choice is not None:
            raise InputError("function_call: cannot be given together with tool_choice")
        return choice


def _prompt(value: Any) -> Any:
    if isinstance(value, str):
        return str
    if not isinstance(value, list):
        raise wrong("must be a string, a list of strings, a list of token ids, or a list of such lists")
    if not value:
        raise wrong("must not be empty")
    if isinstance(value[0], str):
        return list[str]
    return list[_Ids] if isinstance(value[0], list) else _Ids


_Ids = Annotated[list[int], Field(fail_fast=True)]
_Prompt = Annotated[str | list[str] | _Ids | list[_Ids], OneOf(_prompt)]


class CompletionRequest(Generation):
    prompt: _Prompt = Field(description="texts, or token ids")
    max_tokens: _AtLeastZero = Field(
        None, description="longest answer in tokens; 0: no answer, for example to score the prompt"
    )
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool | None = Field(None, description="return the prompt in front of the answer")
    add_special_tokens: Literal[True] | None = Field(
        None,
        description="texts get the control tokens that the model expects in front; token ids are taken as they are",
    )

    def prompts(self) -> list[str | list[int]]:
        given: Any = self.prompt
        return [given] if isinstance(given, str) or isinstance(given[0], int) else list(given)

    def params(self) -> dict[str, Any]:
        """Return the sampling options, those about log-probabilities among them."""
        values = self.options()
        if self.logprobs is not None:
            values["logprobs"] = self.logprobs
        if self.echo and self.logprobs is not None:
            values["prompt_logprobs"] = self.logprobs
        elif values.get("max_new_tokens") == 0 or (self.echo and not isinstance(self.prompts()[0], str)):
            values["prompt_logprobs"] = 0  # for requests without an answer, and for the text of token ids
        return values

    async def shown(self, deltas: AsyncGenerator[Delta]) -> AsyncGenerator[Delta]:
        """What the client gets: with `echo` the prompt is in front of each answer, otherwise it is not."""
        prompts, n = self.prompts(), self.n or 1
        begun: set[int] = set()
        async with aclosing(deltas):
            async for delta in deltas:
                if isinstance(delta, PromptDelta):
                    if self.echo:
                        begun.add(delta.choice)
                        yield replace(delta, tokens=()) if self.logprobs is None else delta
                    continue
                if self.echo and delta.choice not in begun:
                    begun.add(delta.choice)
                    yield PromptDelta(str(prompts[delta.choice // n]), (), delta.choice)
                yield delta
