"""Items of the Responses API: what a request may contain, how they are stored, and the dialogue that they make.

A stored item is a dict as OpenAI's clients read it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from chatglm.chat.messages import INTERPRETER, Message, ToolCall
from chatglm.serving.dialect import Strict
from chatglm.serving.fields import JsonText, OneOf, by_tag, part_of, text_or, wrong
from chatglm.serving.hints import CONTENT_PART, ITEM, MESSAGE, note_ignored
from chatglm.serving.messages import DialogueBuilder

__all__ = ["Item", "ItemReference", "dialogue_of", "item_id", "stored"]

_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "code_interpreter_call": "ci",
    "mcp_call": "mcp",
}


def item_id(kind: str) -> str:
    """A new id for an item of this type."""
    return f"{_PREFIXES[kind]}_{secrets.token_hex(16)}"


class _TextPart(Strict):
    hints = CONTENT_PART

    type: Literal["input_text", "output_text", "text"]
    text: str


class _RefusalPart(Strict):
    hints = CONTENT_PART

    type: Literal["refusal"]
    refusal: str

    @property
    def text(self) -> str:
        return self.refusal


_Parts = list[
    Annotated[
        _TextPart | _RefusalPart,
        part_of({"input_text": _TextPart, "output_text": _TextPart, "text": _TextPart, "refusal": _RefusalPart}),
    ]
]
_Content = Annotated[str | _Parts, text_or(_Parts)]


class _MessageItem(Strict):
    hints = MESSAGE

    type: Literal["message"] | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: _Content


class _CallItem(Strict):
    hints = ITEM

    type: Literal["function_call"]
    call_id: str
    name: str = Field(min_length=1)
    arguments: JsonText


class _ResultItem(Strict):
    hints = ITEM

    type: Literal["function_call_output"]
    call_id: str
    output: _Content


class _Logs(Strict):
    hints = CONTENT_PART

    type: Literal["logs"]
    logs: str


class _Picture(Strict):
    hints = CONTENT_PART

    type: Literal["image"]
    url: str


class _CodeItem(Strict):
    """A cell that the server's interpreter ran for an earlier response."""

    hints = ITEM

    type: Literal["code_interpreter_call"]
    code: str
    container_id: str = Field(pattern="^cntr_[0-9a-f]{48}$")
    outputs: list[Annotated[_Logs | _Picture, by_tag("type", {"logs": _Logs, "image": _Picture})]] | None = None


class _ServerCallItem(Strict):
    """A call of another tool of the server, which it carried out for an earlier response."""

    hints = ITEM

    type: Literal["mcp_call"]
    server_label: str
    name: str = Field(min_length=1)
    arguments: JsonText
    output: str | None = None
    error: str | dict[str, Any] | None = None


class _ReasoningItem(BaseModel):
    """What another model thought. It is left out of the prompt: these models cannot think before they answer."""

    model_config = ConfigDict(extra="allow")

    type: Literal["reasoning"]


class ItemReference(Strict):
    """An item of a stored response, or of its input."""

    type: Literal["item_reference"] | None = None
    id: str


_BRANCHES: dict[str, Any] = {
    "message": _MessageItem,
    "function_call": _CallItem,
    "function_call_output": _ResultItem,
    "code_interpreter_call": _CodeItem,
    "mcp_call": _ServerCallItem,
    "reasoning": _ReasoningItem,
    "item_reference": ItemReference,
}


def _item(value: Any) -> Any:
    if not isinstance(value, dict):
        raise wrong("must be an object with a `type`, such as message")
    kind = value.get("type")
    if kind is None:
        return ItemReference if "id" in value and "role" not in value else _MessageItem
    if isinstance(kind, str) and kind in _BRANCHES:
        return _BRANCHES[kind]
    known = ", ".join(_BRANCHES)
    raise PydanticCustomError(
        "unsupported",
        "{message}",
        {"message": f"items of type {kind!r:.60} are not supported; supported: {known}"},
    )


Item = Annotated[
    _MessageItem | _CallItem | _ResultItem | _CodeItem | _ServerCallItem | _ReasoningItem | ItemReference, OneOf(_item)
]


def stored(item: Any) -> dict[str, Any] | None:
    """An item of a request as it is stored, with an id of its own; None for what is left out of the prompt."""
    match item:
        case str():
            return _message("user", item)
        case _MessageItem():
            return _message(item.role, _text(item.content))
        case _CallItem():
            made = {"call_id": item.call_id, "name": item.name, "arguments": item.arguments}
            return {"id": item_id("function_call"), "type": "function_call", "status": "completed", **made}
        case _ResultItem():
            made = {"call_id": item.call_id, "output": _text(item.output)}
            return {
                "id": item_id("function_call_output"),
                "type": "function_call_output",
                "status": "completed",
                **made,
            }
        case _CodeItem() | _ServerCallItem():
            made = item.model_dump(exclude={"type"})
            return {"id": item_id(item.type), "type": item.type, "status": "completed", **made}
    note_ignored("input.reasoning")
    return None


def _message(role: str, text: str) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "input_text", "text": text}
    if role == "assistant":
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"id": item_id("message"), "type": "message", "status": "completed", "role": role, "content": [part]}


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _printed(outputs: Iterable[dict[str, Any]]) -> str:
    """The output of a cell as the model got it."""
    return "\n".join(part["logs"] for part in outputs if part["type"] == "logs")


def dialogue_of(instructions: str | None, items: Iterable[dict[str, Any]]) -> list[Message]:
    """The messages that stored items make, after the instructions."""
    made = DialogueBuilder()
    if instructions:
        made.say("system", instructions)
    for item in items:
        match item["type"]:
            case "message":
                role = "system" if item["role"] == "developer" else item["role"]
                made.say(role, "".join(part["text"] for part in item["content"]))
            case "function_call":
                made.call(ToolCall.from_dict({**item, "id": item["call_id"]}))
            case "function_call_output":
                made.result(item["call_id"], item["output"])
            case "code_interpreter_call":
                made.call(ToolCall(INTERPRETER, {"code": item["code"]}, item["id"]))
                made.result(item["id"], _printed(item["outputs"] or ()))
            case "mcp_call":
                made.call(ToolCall.from_dict({**item, "id": item["id"]}))
                made.result(item["id"], item["output"] or "")
    return made.messages
