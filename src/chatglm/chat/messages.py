"""Messages, tool calls and tools, and their conversion from and to common forms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chatglm.chat.calls import as_json
from chatglm.errors import InputError

__all__ = ["INTERPRETER", "Message", "ToolCall", "ToolSpec", "messages_from_pairs", "unreadable_part"]

INTERPRETER = "interpreter"
"""The name of the built-in tool that runs code; its one argument is `code`."""

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "observation": "observation",
    "tool": "observation",
    "function": "observation",
}


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool by the model.

    Attributes:
        id: distinguishes calls of one message, if a protocol needs it.
        text: the arguments as they were written, if this differs from `json.dumps(arguments)`. The text of a truncated
            call is not a JSON object, and `arguments` is empty. Any other text means the same as `arguments`, written
            in another way, for example with other spaces.
    """

    name: str
    arguments: Mapping[str, Any]
    id: str = ""
    text: str | None = None

    @property
    def cut(self) -> bool:
        """Whether the arguments are not a JSON object, because the call was truncated."""
        return self.text is not None and not self.arguments

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's form, with the arguments as a JSON string."""
        arguments = json.dumps(self.arguments, ensure_ascii=False) if self.text is None else self.text
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": arguments}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "tool_calls") -> ToolCall:
        """Read OpenAI's form, or `{"name", "arguments"}`. Arguments are an object, or a string that holds one as JSON;
        any other string is kept as `text`.

        Raises:
            InputError: there is no name, or the arguments are neither an object nor a string.
        """
        inner = data.get("function", data) if isinstance(data, Mapping) else None
        if not isinstance(inner, Mapping):
            raise InputError(f"{where}: expected {{'name', 'arguments'}} or OpenAI's form of it, got {data!r:.80}")
        name, arguments = inner.get("name"), inner.get("arguments")
        if not isinstance(name, str) or not name:
            raise InputError(f"{where}: a call needs a name, got {data!r:.80}")
        text = None
        if isinstance(arguments, str):
            read = _json_object(arguments or "{}")
            arguments, text = (read, None) if read is not None else ({}, arguments)
        if arguments is not None and not isinstance(arguments, Mapping):
            raise InputError(f"{where}: arguments of {name} must be an object, got {type(arguments).__name__}")
        return cls(name, dict(arguments or {}), str(data.get("id") or ""), text)


def _json_object(text: str) -> dict[str, Any] | None:
    """The object in a JSON text; None if it is not one, or has what JSON does not allow (NaN, a lone surrogate)."""
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) and as_json(read) is not None else None


@dataclass(frozen=True)
class ToolSpec:
    """The specification of a tool, kept as it was given: ChatGLM3 prompts show the dict unchanged.

    Attributes:
        key: its key, if the tools were given as one dict, the form of ChatGLM3's demo registry; the prompt shows this
            key, too. "" if they were given as a list.
    """

    given: Mapping[str, Any] = field(hash=False)
    key: str = ""

    @classmethod
    def list_from(cls, data: Any, where: str = "tools") -> tuple[ToolSpec, ...]:
        """Read a list of tools, a dict of tools by name, or a single tool.

        Raises:
            InputError: one of them is not a tool.
        """
        if isinstance(data, ToolSpec) or (
            isinstance(data, Mapping) and isinstance(data.get("name") or data.get("type"), str)
        ):
            data = [data]
        if isinstance(data, Mapping):
            return tuple(cls(cls.from_dict(tool, f"{where}[{key!r}]").given, str(key)) for key, tool in data.items())
        if not isinstance(data, Sequence) or isinstance(data, str):
            raise InputError(f"{where}: expected a list of tools, got {data!r:.80}")
        return tuple(cls.from_dict(tool, f"{where}[{number}]") for number, tool in enumerate(data))

    @staticmethod
    def as_given(tools: Sequence[ToolSpec], flat: bool = False) -> Any:
        """The inverse of `list_from`, as JSON values: a list of tools, or a dict of tools by name.

        Args:
            flat: remove OpenAI's wrapping.
        """
        shown = [dict(tool.flat() if flat else tool.given) for tool in tools]
        keys = [tool.key for tool in tools]
        return dict(zip(keys, shown, strict=True)) if all(keys) and keys else shown

    @classmethod
    def from_dict(cls, data: Any, where: str = "tools") -> ToolSpec:
        """Read `{"name", "description", "parameters" or "params"}`, OpenAI's `{"type": "function", "function": …}`, or
        one of GLM-4's own `{"type": "python" | "simple_browser" | "cogview"}`. `python` also stands for ChatGLM3's code
        interpreter.

        Raises:
            InputError: it has another form.
        """
        if isinstance(data, ToolSpec):
            return data
        if isinstance(data, Mapping):
            inner = data.get("function", data)
            if isinstance(inner, Mapping) and isinstance(inner.get("name"), str):
                return cls(data)
            if data.get("type") in ("python", "simple_browser", "cogview"):
                return cls(data)
        raise InputError(
            f"{where}: expected a dict with a `name`, or {{'type': 'function', 'function': …}}; got {data!r:.80}"
        )

    @property
    def name(self) -> str:
        """The name in calls of this tool. For the built-in `python`, this is `INTERPRETER`."""
        return INTERPRETER if self.builtin == "python" else str(self.flat().get("name") or self.given.get("type"))

    @property
    def builtin(self) -> str | None:
        """`python`, `simple_browser` or `cogview`; None for a function."""
        return None if "name" in self.flat() else str(self.given["type"])

    def flat(self) -> Mapping[str, Any]:
        """Name, description and parameters without OpenAI's wrapping."""
        inner = self.given.get("function", self.given)
        return inner if isinstance(inner, Mapping) else self.given

    def wrapped(self) -> Mapping[str, Any]:
        """The tool in OpenAI's form. Built-in tools are unchanged."""
        return self.given if self.builtin or "function" in self.given else {"type": "function", "function": self.given}


@dataclass(frozen=True)
class Message:
    """One message of a dialogue.

    Attributes:
        role: system, user, assistant or observation (the result of a tool).
        content: its text.
        tool_calls: the assistant's tool calls, after its text.
        metadata: the header line of an official ChatGLM3 or GLM-4 history entry, rendered unchanged.
        tools: tools that the model may call, in a system message.
        tool_call_id: id of the call that an observation answers.
        loss: for training, whether the message is learned; None: only if it is an assistant's.

    Raises:
        InputError: the role is unknown, the content is not a string, or the metadata is not one line of text.
    """

    role: str
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    metadata: str = ""
    tools: tuple[ToolSpec, ...] | None = None
    tool_call_id: str = ""
    loss: bool | None = None

    def __post_init__(self) -> None:
        if self.role not in _ROLES.values():
            raise InputError(f"role {self.role!r}: must be system, user, assistant or observation")
        if not isinstance(self.content, str):
            raise InputError(f"content of a {self.role} message: expected a string, got {type(self.content).__name__}")
        if not isinstance(self.metadata, str) or "\n" in self.metadata:
            raise InputError(f"metadata of a {self.role} message must be one line of text, got {self.metadata!r:.80}")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], index: int = 0) -> Message:
        """Read an OpenAI message, or an entry of a ChatGLM3 or GLM-4 history.

        Args:
            index: its place in the dialogue, for error messages.

        Raises:
            InputError: the role is unknown, or a field has the wrong type.
        """
        where = f"messages[{index}]"
        if not isinstance(data, Mapping):
            raise InputError(f"{where}: expected a dict with `role` and `content`, got {data!r:.80}")
        role = _ROLES.get(str(data.get("role")))
        if role is None:
            raise InputError(f"{where}: role {data.get('role')!r}; must be one of {', '.join(_ROLES)}")
        content = data.get("content")
        if content is None:
            content = ""
        elif isinstance(content, list):
            content = "".join(_text_part(part, where) for part in content)
        elif not isinstance(content, str):
            raise InputError(f"{where}: content must be a string, got {type(content).__name__}")
        calls = data.get("tool_calls") or ([data["function_call"]] if data.get("function_call") else [])
        if not isinstance(calls, list | tuple):
            raise InputError(f"{where}: tool_calls must be a list, got {type(calls).__name__}")
        if calls and role != "assistant":
            raise InputError(f"{where}: only an assistant message has tool_calls, this one is from {role}")
        metadata, loss = data.get("metadata") or "", data.get("loss")
        if not isinstance(metadata, str) or "\n" in metadata:
            raise InputError(f"{where}: metadata must be one line of text, got {metadata!r:.80}")
        if loss is not None and not isinstance(loss, bool):
            raise InputError(f"{where}: loss must be true or false, got {loss!r}")
        tools = data.get("tools")
        return cls(
            role,
            content,
            tuple(ToolCall.from_dict(call, f"{where}.tool_calls[{n}]") for n, call in enumerate(calls)),
            metadata,
            None if tools is None else ToolSpec.list_from(tools, f"{where}.tools"),
            str(data.get("tool_call_id") or ""),
            loss,
        )

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's form; `from_dict` reads it again."""
        data: dict[str, Any] = {"role": "tool" if self.role == "observation" else self.role, "content": self.content}
        if self.tool_calls:
            data["tool_calls"] = [call.to_dict() for call in self.tool_calls]
        if self.tools is not None:
            data["tools"] = ToolSpec.as_given(self.tools)
        for name in ("metadata", "tool_call_id"):
            if value := getattr(self, name):
                data[name] = value
        if self.loss is not None:
            data["loss"] = self.loss
        return data


def _text_part(part: Any, where: str) -> str:
    if isinstance(part, Mapping):
        if part.get("type") == "text" and isinstance(part.get("text"), str):
            return str(part["text"])
        raise InputError(f"{where}.content: {unreadable_part(part.get('type'))}")
    raise InputError(f"{where}.content: a part must be an object with `type` and `text`, got {type(part).__name__}")


def unreadable_part(kind: Any, supported: Sequence[str] = ("text",)) -> str:
    """Say why a part of a message's content cannot be read.

    Args:
        kind: the part's `type`.
        supported: types that can be read there.
    """
    if kind == "text" and "text" in supported:
        return "a part of type text needs a `text`, which must be a string"
    for medium, kinds in _MEDIA.items():
        if kind in kinds:
            return f"{medium} not supported by this model; send text"
    for api, kinds in _PARTS_ELSEWHERE.items():
        if kind in kinds and supported == ("text",):
            return f"parts of type {kind} belong to {api}; here use type text"
    return f"parts of type {kind!r:.40} are not supported; supported: {', '.join(supported)}"


_MEDIA = {
    "images are": ("image_url", "image", "input_image", "image_file", "image_base64"),
    "audio is": ("input_audio", "audio", "audio_url"),
    "videos are": ("video_url", "video", "input_video"),
    "files are": ("file", "input_file", "document", "file_url"),
}
_PARTS_ELSEWHERE = {
    "the Responses API": ("input_text", "output_text", "summary_text", "reasoning_text"),
    "Anthropic's Messages API": ("tool_use", "tool_result", "thinking", "redacted_thinking"),
}


def messages_from_pairs(history: Sequence[Sequence[str]], query: str) -> list[Message]:
    """Messages from a history of pairs (query, response), as in ChatGLM-6B and ChatGLM2, and the new query.

    Raises:
        InputError: an entry is not a pair of strings.
    """
    messages: list[Message] = []
    for number, pair in enumerate(history):
        if isinstance(pair, str | Mapping) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise InputError(f"history[{number}]: expected a pair (query, response) of strings, got {pair!r:.80}")
        messages += [Message("user", pair[0]), Message("assistant", pair[1])]
    if not isinstance(query, str):
        raise InputError(f"query: expected a string, got {type(query).__name__}")
    return [*messages, Message("user", query)]


def whole_text(text: str) -> str:
    """Replace surrogates, which JSON can put into a string: a pair becomes its character, and a lone surrogate becomes
    U+FFFD, as in GLM-4's encoder.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
