"""What requests to Anthropic's routes may contain."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from chatglm.assistant import Options
from chatglm.chat.messages import Message, ToolCall
from chatglm.errors import InputError
from chatglm.serving.dialect import Strict
from chatglm.serving.fields import (
    OPTIONS,
    Content,
    OneOf,
    TextPart,
    TopK,
    Unsupported,
    by_tag,
    part_of,
    sampling_option,
    text_or,
    wrong,
)
from chatglm.serving.hints import CALL, CONTENT_PART, MESSAGE, REQUEST, TOOL, note_ignored
from chatglm.serving.messages import DialogueBuilder
from chatglm.serving.tools import ToolName

__all__ = ["FORMAT_FIELD", "CountRequest", "MessagesRequest"]

FORMAT_FIELD = "output_config.format"


def _drop_thinking(value: Any) -> Any:
    note_ignored("messages.content.thinking")
    return value


class _ThinkingBlock(BaseModel):
    """What another model thought. It is left out of the prompt: these models do not think before they answer."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[Literal["thinking", "redacted_thinking"], BeforeValidator(_drop_thinking)]


class _ToolUseBlock(Strict):
    hints = CALL

    type: Literal["tool_use"]
    id: str
    name: str = Field(min_length=1)
    input: dict[str, Any]


class _ToolResultBlock(Strict):
    hints = CONTENT_PART

    type: Literal["tool_result"]
    tool_use_id: str
    content: Content | None = None
    is_error: bool | None = Field(None, description="the tool failed: the model reads `Error: ` before the content")

    def text(self) -> str:
        text = _text(self.content, "\n")
        return f"Error: {text}" if self.is_error and not text.lower().startswith("error") else text


_UserBlocks = list[Annotated[TextPart | _ToolResultBlock, part_of({"text": TextPart, "tool_result": _ToolResultBlock})]]
_AssistantBlocks = list[
    Annotated[
        TextPart | _ToolUseBlock | _ThinkingBlock,
        part_of(
            {
                "text": TextPart,
                "tool_use": _ToolUseBlock,
                "thinking": _ThinkingBlock,
                "redacted_thinking": _ThinkingBlock,
            }
        ),
    ]
]


class _UserMessage(Strict):
    hints = MESSAGE

    role: Literal["user"]
    content: Annotated[str | _UserBlocks, text_or(_UserBlocks)]


class _AssistantMessage(Strict):
    hints = MESSAGE

    role: Literal["assistant"]
    content: Annotated[str | _AssistantBlocks, text_or(_AssistantBlocks)]


class _SystemMessage(Strict):
    hints = MESSAGE

    role: Literal["system"]
    content: Content


_Message = Annotated[
    _UserMessage | _AssistantMessage | _SystemMessage,
    by_tag("role", {"user": _UserMessage, "assistant": _AssistantMessage, "system": _SystemMessage}),
]


class _Tool(Strict):
    hints = TOOL

    type: Literal["custom"] | None = None
    name: Annotated[str, ToolName(128)]
    description: str | None = None
    input_schema: dict[str, Any] = Field(description="JSON schema of an object")
    strict: bool | None = Field(None, description="whether every keyword of the schema must be enforced")
    input_examples: list[dict[str, Any]] | None = Field(None, description="shown to the model with the tool")

    def function(self) -> dict[str, Any]:
        """The tool in the form that the assistant takes."""
        made: dict[str, Any] = {"name": self.name, "description": self.description, "parameters": self.input_schema}
        made |= {"strict": self.strict, "input_examples": self.input_examples}
        return {"type": "function", "function": {name: value for name, value in made.items() if value is not None}}


def _tool(value: Any) -> Any:
    if not isinstance(value, dict):
        raise wrong("must be an object with `name` and `input_schema`")
    kind = value.get("type")
    if kind not in (None, "custom"):
        raise wrong(
            f"tools of type {kind!r:.60} are not supported; supported: tools of your own, with `input_schema`. "
            "Tools that run on this server are for OpenAI's interfaces (`server_tools` of /v1/chat/completions)"
        )
    return _Tool


_Tools = list[Annotated[_Tool, OneOf(_tool)]]


class _ToolChoice(Strict):
    type: Literal["auto", "any", "none"]
    disable_parallel_tool_use: bool | None = None


class _NamedToolChoice(Strict):
    type: Literal["tool"]
    name: str
    disable_parallel_tool_use: bool | None = None


_AnyToolChoice = Annotated[
    _ToolChoice | _NamedToolChoice,
    by_tag("type", {"auto": _ToolChoice, "any": _ToolChoice, "tool": _NamedToolChoice, "none": _ToolChoice}),
]


class _Thinking(BaseModel):
    """Accepted and ignored: these models cannot think before they answer."""

    model_config = ConfigDict(extra="allow")

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]


class _JsonFormat(Strict):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class _OutputConfig(Strict):
    effort: str | None = Field(None, description="accepted; has no effect")
    format: _JsonFormat | None = Field(None, description="the answer's text is JSON that follows this schema")


class _ContextEdit(BaseModel):
    model_config = ConfigDict(extra="allow")

    type: Literal["clear_thinking_20251015"]


class _ContextManagement(Strict):
    """Thinking is never in the prompt, so clearing it changes nothing."""

    edits: list[_ContextEdit] | None = None


class CountRequest(Strict):
    """What `/v1/messages/count_tokens` takes, and `/v1/messages` too."""

    hints = REQUEST

    model: str | None = Field(None, description="default: the first model of `/v1/models`")
    messages: list[_Message] = Field(min_length=1)
    system: Content | None = None
    tools: _Tools | None = None
    tool_choice: _AnyToolChoice | None = None
    thinking: _Thinking | None = None
    output_config: _OutputConfig | None = None
    output_format: _JsonFormat | None = Field(None, description="older form of `output_config.format`")
    context_management: _ContextManagement | None = None
    thread: Unsupported = None

    def asked(self) -> tuple[list[Message], Options]:
        """Return the dialogue and how it is to be answered.

        Raises:
            InputError: fields contradict each other.
        """
        messages, prefill = self._dialogue()
        made: Options = {"trim": False, "prefill": prefill, "tools": [tool.function() for tool in self.tools or ()]}
        if (choice := self.tool_choice) is not None:
            made["parallel_calls"] = not choice.disable_parallel_tool_use
            if isinstance(choice, _NamedToolChoice):
                made["tool_choice"] = choice.name
            else:
                made["tool_choice"] = "required" if choice.type == "any" else choice.type
        made["response_format"] = self._format()
        if self.thinking is not None:
            note_ignored("thinking")
        if self.output_config is not None and self.output_config.effort is not None:
            note_ignored("output_config.effort")
        if self.context_management is not None:
            note_ignored("context_management")
        return messages, made

    def _format(self) -> dict[str, Any] | None:
        given = self.output_config.format if self.output_config is not None else None
        if given is not None and self.output_format is not None:
            raise InputError(f"output_format: cannot be given together with {FORMAT_FIELD}")
        given = given or self.output_format
        return None if given is None else {"type": "json_schema", "json_schema": {"schema": given.schema_}}

    def _dialogue(self) -> tuple[list[Message], str]:
        """The messages, and how the answer begins: what the assistant has said last."""
        made = DialogueBuilder(join="\n")
        if system := _text(self.system, "\n"):
            made.say("system", system)
        for message in self.messages:
            blocks = message.content
            if isinstance(blocks, str):
                made.say(message.role, blocks)
                continue
            texts = [block for block in blocks if isinstance(block, TextPart)]
            if texts == blocks:
                # The model's text is one text, wherever it was cut; other authors write blocks as paragraphs.
                made.say(message.role, _text(texts, "" if message.role == "assistant" else "\n"))
                continue
            for block in blocks:
                match block:
                    case TextPart():
                        made.say(message.role, block.text)
                    case _ToolUseBlock():
                        made.call(ToolCall(block.name, block.input, block.id))
                    case _ToolResultBlock():
                        made.result(block.tool_use_id, block.text())
        last = made.messages[-1] if made.messages else None
        if last is None or last.role == "system":
            raise InputError("messages: there is nothing to answer")
        if last.role != "assistant":
            return made.messages, ""
        where = f"messages[{len(self.messages) - 1}]"
        if last.tool_calls:
            raise InputError(f"{where}: the last message asks for tools; their results must follow it, as tool_result")
        if last.content != last.content.rstrip():
            raise InputError(f"{where}.content: the beginning of an answer must not end with blanks")
        return made.messages[:-1], last.content


class MessagesRequest(CountRequest):
    max_tokens: int = Field(ge=1, description=OPTIONS["max_new_tokens"].help)
    stream: bool | None = None
    stop_sequences: list[Annotated[str, Field(min_length=1)]] | None = Field(None, description=OPTIONS["stop"].help)
    temperature: float | None = sampling_option("temperature")
    top_p: float | None = sampling_option("top_p")
    top_k: TopK = None

    def asked(self) -> tuple[list[Message], Options]:
        messages, made = super().asked()
        params = {"max_new_tokens": self.max_tokens, "stop": self.stop_sequences}
        params |= {name: getattr(self, name) for name in ("temperature", "top_p", "top_k")}
        made["params"] = {name: value for name, value in params.items() if value is not None}
        return messages, made | {"start": True}


def _text(content: Any, join: str) -> str:
    """The text of a string or of text blocks."""
    return content if isinstance(content, str) else join.join(part.text for part in content or ())
