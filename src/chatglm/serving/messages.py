"""Messages of requests in OpenAI's shape: every role, calls of today and of before `tools`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from chatglm.chat.messages import Message
from chatglm.errors import InputError
from chatglm.serving.dialect import Strict
from chatglm.serving.fields import Content, OneOf, Unsupported, by_tag, wrong
from chatglm.serving.hints import CALL, MESSAGE, note_ignored

__all__ = ["ChatMessage", "HeaderLine", "messages_of"]


def _arguments(value: Any) -> Any:
    if isinstance(value, str):
        return str
    if isinstance(value, dict):
        return dict[str, Any]
    raise wrong("must be an object, or a string that holds one as JSON")


class _CalledFunction(Strict):
    hints = CALL

    name: str = Field(min_length=1)
    arguments: Annotated[str | dict[str, Any], OneOf(_arguments)] | None = Field(
        None, description="an object, or a string that holds one as JSON; a call that was cut short may have any text"
    )


class _Call(Strict):
    hints = CALL

    id: str | None = None
    type: Literal["function"] | None = None
    function: _CalledFunction


class _SystemMessage(Strict):
    hints = MESSAGE

    role: Literal["system", "developer"]
    content: Content


class _UserMessage(Strict):
    hints = MESSAGE

    role: Literal["user"]
    content: Content


def _header(value: Any) -> Any:
    if isinstance(value, dict):  # somebody's notes about the message
        note_ignored("messages.metadata")
        return None
    if isinstance(value, str) and "\n" in value:
        raise wrong("must be one line of text")
    return value


HeaderLine = Annotated[
    str | None,
    BeforeValidator(_header, json_schema_input_type=Annotated[str, Field(pattern=r"^[^\n]*$")] | dict[str, Any] | None),
    Field(description="of an entry of ChatGLM3's history: its header line. Objects are ignored"),
]


class _AssistantMessage(Strict):
    hints = MESSAGE

    role: Literal["assistant"]
    content: Content | None = None
    tool_calls: list[_Call] | None = None
    function_call: _CalledFunction | None = None
    refusal: str | None = Field(None, description="taken for the content where there is none")
    audio: Unsupported = None
    metadata: HeaderLine = None


class _ToolMessage(Strict):
    hints = MESSAGE

    role: Literal["tool", "function", "observation"]
    content: Content | None = None
    tool_call_id: str | None = None


ChatMessage = Annotated[
    _SystemMessage | _UserMessage | _AssistantMessage | _ToolMessage,
    by_tag(
        "role",
        {
            "system": _SystemMessage,
            "developer": _SystemMessage,
            "user": _UserMessage,
            "assistant": _AssistantMessage,
            "tool": _ToolMessage,
            "function": _ToolMessage,
            "observation": _ToolMessage,
        },
    ),
]


def messages_of(given: list[Any]) -> list[Message]:
    """Messages of a request as the assistant takes them.

    Raises:
        InputError: a message contradicts itself.
    """
    messages = []
    for number, message in enumerate(given):
        data = message.model_dump(exclude_none=True)
        if data.get("tool_calls") and data.get("function_call"):
            raise InputError(f"messages[{number}].function_call: cannot be given together with tool_calls")
        refusal = data.pop("refusal", None)
        if refusal and not data.get("content"):
            data["content"] = refusal
        messages.append(Message.from_dict(data, number))
    return messages
