"""What requests to `/v1/responses` may contain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from chatglm.assistant import Options
from chatglm.chat.messages import INTERPRETER, ToolSpec
from chatglm.errors import InputError
from chatglm.serving.dialect import Strict
from chatglm.serving.fields import OPTIONS, OneOf, Unsupported, sampling_option, wrong
from chatglm.serving.hints import REQUEST, STREAM_OPTIONS, note_ignored
from chatglm.serving.openai.requests import Sampling
from chatglm.serving.openai.responses_api.items import Item
from chatglm.serving.server_tools import ServerToolNames
from chatglm.serving.structured import TextFormat
from chatglm.serving.tools import Tool, ToolChoice, Tools, chosen_tool, tool_choice_of, tool_of, tools_of

__all__ = ["FORMAT_FIELD", "CountRequest", "ResponsesRequest"]

FORMAT_FIELD = "text.format"

_Include = Literal[
    "message.output_text.logprobs",
    "code_interpreter_call.outputs",  # which are always there
    # parts that items never have here
    "reasoning.encrypted_content",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "web_search_call.action.sources",
    "web_search_call.results",
]


class _StreamOptions(Strict):
    hints = STREAM_OPTIONS


class _Text(Strict):
    format: TextFormat | None = None
    verbosity: str | None = Field(None, description="accepted; has no effect")


class _AutoContainer(Strict):
    type: Literal["auto"]


_ContainerId = Annotated[str, Field(pattern="^cntr_[0-9a-f]{48}$")]


def _container(value: Any) -> Any:
    if isinstance(value, str):
        return _ContainerId
    if isinstance(value, dict):
        return _AutoContainer
    raise wrong("must be {'type': 'auto'}, or the container_id of an earlier call")


class _CodeInterpreter(Strict):
    """The server's code interpreter, for API keys that may use it."""

    type: Literal["code_interpreter"]
    container: Annotated[_ContainerId | _AutoContainer, OneOf(_container)] | None = Field(
        None,
        description="auto (default): the container that the dialogue has used, else a new one; or the `container_id` "
        "of an earlier call",
    )


def _tool(value: Any) -> Any:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "code_interpreter":
        return _CodeInterpreter
    if kind not in (None, "function"):
        text = (
            f"tools of type {kind!r:.60} are not supported; supported: function, code_interpreter, and tools of the "
            "server by name (server_tools)"
        )
        raise PydanticCustomError("unsupported", "{message}", {"message": text})
    return tool_of(value)


_ToolList = list[Annotated[Tool | _CodeInterpreter, OneOf(_tool)]]


def _tools(value: Any) -> Any:
    return _ToolList if isinstance(value, list) else Tools


class _AllowedTool(Strict):
    type: Literal["function", "code_interpreter"]
    name: str | None = None

    @property
    def named(self) -> str:
        return INTERPRETER if self.type == "code_interpreter" else self.name or ""


class _HostedChoice(Strict):
    type: Literal["code_interpreter"]


class _AllowedTools(Strict):
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[_AllowedTool] = Field(min_length=1)


def _choice(value: Any) -> Any:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "allowed_tools":
        return _AllowedTools
    if kind == "code_interpreter":
        return _HostedChoice
    if kind not in (None, "function", "tool", "none", "auto", "required", "any"):
        text = f"choices of type {kind!r:.60} are not supported; supported: function, code_interpreter, allowed_tools"
        raise PydanticCustomError("unsupported", "{message}", {"message": text})
    return tool_choice_of(value)


def _no_background(value: Any) -> Any:
    if value is True:
        raise PydanticCustomError(
            "unsupported", "true is not supported; leave it out, or send the request in a batch (/v1/batches)"
        )
    return value


def _input(value: Any) -> Any:
    if isinstance(value, str):
        return str
    if isinstance(value, list):
        return list[Item]
    raise wrong("must be a string or a list of items")


class CountRequest(Strict):
    """What `/v1/responses/input_tokens` takes, and `/v1/responses` too."""

    hints = REQUEST

    model: str | None = Field(None, description="default: the first model of `/v1/models`")
    input: Annotated[str | list[Item], OneOf(_input)] | None = Field(
        None, description="may be left out where `previous_response_id` is given"
    )
    instructions: str | None = Field(
        None, description="a system message at the beginning; the instructions of earlier responses do not count"
    )
    previous_response_id: str | None = Field(None, description="a stored response that this one continues")
    tools: Annotated[_ToolList | Tools, OneOf(_tools)] | None = None
    server_tools: ServerToolNames | None = None
    tool_choice: Annotated[ToolChoice | _AllowedTools | _HostedChoice, OneOf(_choice)] | None = None
    parallel_tool_calls: bool | None = None
    text: _Text | None = None
    truncation: Literal["auto", "disabled"] | None = Field(
        None, description="auto: leave out the oldest turns if the context is too short for all"
    )
    conversation: Unsupported = None
    prompt: Unsupported = None

    def items(self) -> list[Any]:
        """The items of the input."""
        return [self.input] if isinstance(self.input, str) else list(self.input or ())

    def _hosted(self) -> list[_CodeInterpreter]:
        return [tool for tool in self.tools if isinstance(tool, _CodeInterpreter)] if self.tools else []

    def _functions(self) -> Any:
        if isinstance(self.tools, list):
            return tools_of([tool for tool in self.tools if not isinstance(tool, _CodeInterpreter)])
        return tools_of(self.tools or [])

    def run_here(self) -> tuple[str, ...]:
        """Names of the server's tools that the model may call."""
        names = dict.fromkeys([*(self.server_tools or ()), *([INTERPRETER] if self._hosted() else ())])
        if isinstance(self.tool_choice, _AllowedTools):
            allowed = {tool.named for tool in self.tool_choice.tools}
            return tuple(name for name in names if name in allowed)
        return tuple(names)

    def container(self, items: Sequence[dict[str, Any]]) -> str:
        """The interpreter's files and variables that are asked for, or of the dialogue; "": there are none yet.

        Args:
            items: the dialogue.
        """
        asked = next((tool.container for tool in self._hosted() if isinstance(tool.container, str)), None)
        used = (item["container_id"] for item in reversed(items) if item["type"] == "code_interpreter_call")
        return asked or next(used, "")

    def asked(self) -> Options:
        """Return the options of the answer.

        Raises:
            InputError: fields contradict each other.
        """
        made: Options = {"trim": self.truncation == "auto", "tools": self._functions()}
        if isinstance(self.tool_choice, _AllowedTools):
            allowed = [tool.named for tool in self.tool_choice.tools]
            tools = ToolSpec.list_from(made["tools"])
            if missing := set(allowed) - {tool.name for tool in tools} - set(self.run_here()):
                raise InputError(f"tool_choice.tools: {min(missing)!r:.80} is not one of the tools")
            made["tools"] = [tool.wrapped() for tool in tools if tool.name in allowed]
            made["tool_choice"] = self.tool_choice.mode
        elif isinstance(self.tool_choice, _HostedChoice):
            made["tool_choice"] = INTERPRETER
        elif self.tool_choice is not None:
            made["tool_choice"] = chosen_tool(self.tool_choice)
        if self.parallel_tool_calls is not None:
            made["parallel_calls"] = self.parallel_tool_calls
        if self.text is not None and self.text.format is not None:
            made["response_format"] = self.text.format.nested()
        if self.text is not None and self.text.verbosity is not None:
            note_ignored("text.verbosity")
        return made


class ResponsesRequest(CountRequest, Sampling):
    knowledge: Annotated[list[str], Field(max_length=16)] | None = Field(
        None, description="bases of documents to answer from; or `knowledge:NAME` as the model"
    )
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_output_tokens: int | None = Field(None, ge=1, description=OPTIONS["max_new_tokens"].help)
    min_tokens: int | None = sampling_option("min_new_tokens")
    top_logprobs: int | None = Field(None, ge=0, le=20)
    include: list[_Include] | None = None
    metadata: dict[str, str] | None = Field(None, max_length=16)
    store: bool | None = Field(None, description="whether the response is kept for later requests; default: true")
    max_tool_calls: int | None = Field(None, ge=1, description="only has an effect if tools of the server are used")
    background: Annotated[bool | None, BeforeValidator(_no_background)] = Field(
        None, json_schema_extra={"enum": [False, None]}
    )

    def asked(self) -> Options:
        if not self.items() and self.previous_response_id is None:
            raise InputError("input: required")
        if self.stream_options is not None and not self.stream:
            note_ignored("stream_options")
        if self.max_tool_calls is not None:
            if self.run_here():
                raise InputError("max_tool_calls: not supported where the server runs tools; leave it out")
            note_ignored("max_tool_calls")
        values = self.sampling()
        if self.max_output_tokens is not None:
            values["max_new_tokens"] = self.max_output_tokens
        if self.min_tokens is not None:
            values["min_new_tokens"] = self.min_tokens
        if "message.output_text.logprobs" in (self.include or ()) or self.top_logprobs:
            values["logprobs"] = self.top_logprobs or 0
        return super().asked() | {"params": values, "start": False}

    def shown(self) -> dict[str, Any]:
        """The fields that a response repeats."""
        tools = [
            {"type": "function", "description": None, "parameters": None, "strict": None, **tool.flat()}
            for tool in ToolSpec.list_from(self._functions())
        ]
        for tool in self._hosted():
            container = tool.container if isinstance(tool.container, str) else {"type": "auto"}
            tools.append({"type": "code_interpreter", "container": container})
        choice: Any = "auto" if self.tool_choice is None else self.tool_choice
        if isinstance(choice, _AllowedTools | _HostedChoice):
            choice = choice.model_dump(exclude_none=True)
        else:
            choice = chosen_tool(choice)
            choice = choice if choice in ("none", "auto", "required") else {"type": "function", "name": choice}
        format_ = {"type": "text"} if self.text is None or self.text.format is None else self.text.format.plain()
        return {
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "metadata": self.metadata or {},
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "previous_response_id": self.previous_response_id,
            "text": {"format": format_},
            "tool_choice": choice,
            "tools": tools,
            "top_logprobs": self.top_logprobs or 0,
            "truncation": self.truncation or "disabled",
        }
