"""Messages of requests in OpenAI's shape: every role, and calls in the present form and the form before `tools`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from chatglm.chat.messages import Message, ToolCall
from chatglm.errors import InputError
from chatglm.serving.dialect import Strict
from chatglm.serving.fields import Content, JsonText, OneOf, Unsupported, by_tag, wrong
from chatglm.serving.hints import CALL, MESSAGE, note_ignored

__all__ = ["ChatMessage", "DialogueBuilder", "HeaderLine", "messages_of"]


def _arguments(value: Any) -> Any:
    if isinstance(value, str):
        return JsonText
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


class _ServerCall(Strict):
    """A call that the server carried out for an earlier answer, in the form of that answer."""

    hints = CALL

    id: str | None = None
    type: Literal["function"] | None = None
    function: _CalledFunction
    output: str
    failed: bool | None = None
    seconds: float | None = None


class _SystemMessage(Strict):
    hints = MESSAGE

    role: Literal["system", "developer"]
    content: Content


class _UserMessage(Strict):
    hints = MESSAGE

    role: Literal["user"]
    content: Content


def _header(value: Any) -> Any:
    if isinstance(value, dict):  # notes of a client about the message
        note_ignored("messages.metadata")
        return None
    if isinstance(value, str) and "\n" in value:
        raise wrong("must be one line of text")
    return value


HeaderLine = Annotated[
    str | None,
    BeforeValidator(_header, json_schema_input_type=Annotated[str, Field(pattern=r"^[^\n]*$")] | dict[str, Any] | None),
    Field(description="the header line of an entry of ChatGLM3's history. Objects are ignored"),
]


class _AssistantMessage(Strict):
    hints = MESSAGE

    role: Literal["assistant"]
    content: Content | None = None
    tool_calls: list[_Call] | None = None
    server_tool_calls: list[_ServerCall] | None = Field(None, description="from an earlier answer")
    images: list[dict[str, Any]] | None = Field(None, description="from an earlier answer; the models do not see them")
    function_call: _CalledFunction | None = None
    refusal: str | None = Field(None, description="used as the content if there is none")
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
    """Messages of a request in the form that the assistant takes.

    Raises:
        InputError: a message contradicts itself.
    """
    messages = []
    for number, message in enumerate(given):
        data = message.model_dump(exclude_none=True)
        if data.get("tool_calls") and data.get("function_call"):
            raise InputError(f"messages[{number}].function_call: cannot be given together with tool_calls")
        for call in data.pop("server_tool_calls", ()):
            call_id = call.get("id") or ""
            messages.append(Message.from_dict({"role": "assistant", "tool_calls": [call]}, number))
            messages.append(Message("observation", call["output"], tool_call_id=call_id))
        if data.pop("images", None):
            note_ignored("messages.images")
        refusal = data.pop("refusal", None)
        if refusal and not data.get("content"):
            data["content"] = refusal
        messages.append(Message.from_dict(data, number))
    return messages


class DialogueBuilder:
    """A dialogue put together from pieces, for dialects in which calls and their results are pieces of messages, or
    stand between them.

    Args:
        join: is put between successive texts of the same role, which become one message; None: each is a message.
    """

    def __init__(self, join: str | None = None) -> None:
        self._join = join
        self._made: list[Message] = []
        # The last message, while pieces are still added to it; None: it is complete. Its pieces are joined once, at the
        # end: a message may have a hundred thousand of them.
        self._role: str | None = None
        self._texts: list[str] = []
        self._calls: list[ToolCall] = []

    @property
    def messages(self) -> list[Message]:
        """All messages up to now."""
        return [*self._made, *self._last()]

    def _last(self) -> list[Message]:
        if self._role is None:
            return []
        return [Message(self._role, (self._join or "").join(self._texts), tool_calls=tuple(self._calls))]

    def _end(self) -> None:
        self._made += self._last()
        self._role, self._texts, self._calls = None, [], []

    def _begin(self, role: str, *texts: str) -> None:
        self._end()
        self._role, self._texts = role, list(texts)

    def say(self, role: str, text: str) -> None:
        """Add a text of the system, the user or the assistant."""
        if self._join is not None and self._role == role and not self._calls:
            self._texts.append(text)
        else:
            self._begin(role, text)

    def call(self, call: ToolCall) -> None:
        """Add a call to the message with the assistant's text and calls before it."""
        if self._role != "assistant":
            self._begin("assistant")
        self._calls.append(call)

    def result(self, call_id: str, text: str) -> None:
        """Add the result of a tool."""
        self._end()
        self._made.append(Message("observation", text, tool_call_id=call_id))
