"""Converts messages from LangChain's form to that of chatglm, and answers back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.block_translators import register_translator
from langchain_core.messages.content import Annotation, Citation, ContentBlock, TextContentBlock
from langchain_core.messages.tool import tool_call_chunk

from chatglm.assistant import Answer, CallDelta, Delta, Finish, TextDelta, Usage
from chatglm.assistant.base import TokenLogprob
from chatglm.chat.messages import Message, ToolCall, unreadable_part
from chatglm.errors import UnsupportedError
from chatglm.knowledge.answering import CitationEvent, Done, Event, Passages

__all__ = ["chunk_of", "message_of", "messages_of"]

_PROVIDER = "chatglm"


def messages_of(messages: Sequence[BaseMessage]) -> list[Message]:
    """Convert LangChain's messages.

    Raises:
        UnsupportedError: a message has a picture or something else that is not text, or is of an unknown type.
        InputError: a message has an unknown role.
    """
    return [_message(message, number) for number, message in enumerate(messages)]


def _message(message: BaseMessage, number: int) -> Message:
    where = f"messages[{number}]"
    text = _text(message.content, where)
    if isinstance(message, AIMessage):
        calls = tuple(ToolCall(call["name"], call["args"], call["id"] or "") for call in message.tool_calls)
        broken = tuple(
            ToolCall(call["name"] or "", {}, call["id"] or "", call["args"] or "")
            for call in message.invalid_tool_calls
            if call["name"]
        )
        return Message("assistant", text, calls + broken)
    if isinstance(message, SystemMessage):
        return Message("system", text)
    if isinstance(message, HumanMessage):
        return Message("user", text)
    if isinstance(message, ToolMessage):
        return Message("observation", text, tool_call_id=message.tool_call_id)
    if isinstance(message, FunctionMessage):
        return Message("observation", text)
    if isinstance(message, ChatMessage):
        return Message.from_dict({"role": message.role, "content": text}, number)
    raise UnsupportedError(f"{where}: messages of type {message.type!r} are not supported")


def _text(content: str | Sequence[Any], where: str) -> str:
    """The text of a message's blocks. An assistant's blocks may also have tool calls, which are read elsewhere."""
    if isinstance(content, str):
        return content
    parts = []
    for block in content:
        if isinstance(block, str):
            parts.append(block)
        elif isinstance(block, Mapping) and block.get("type") in ("text", "output_text", "input_text"):
            parts.append(str(block.get("text", "")))
        elif isinstance(block, Mapping) and block.get("type") in ("tool_use", "tool_call", "function_call"):
            continue
        elif isinstance(block, Mapping) and block.get("type") in ("reasoning", "thinking", "redacted_thinking"):
            continue  # from the answer of another model; not a part of the text
        elif isinstance(block, Mapping):
            raise UnsupportedError(f"{where}.content: {unreadable_part(block.get('type'))}")
        else:
            raise UnsupportedError(f"{where}.content: a {type(block).__name__} is not a block of a message")
    return "".join(parts)


def chunk_of(delta: Delta | Event, model: str, usage: bool = True) -> AIMessageChunk | None:
    """Convert a delta, or an event of an answer from documents, to a chunk; None: LangChain has no form for it.

    Args:
        model: name of the model.
        usage: whether the last chunk has the numbers of tokens.
    """
    if isinstance(delta, TextDelta):
        more = {"logprobs": _logprobs(delta.logprobs)} if delta.logprobs else {}
        return AIMessageChunk(content=delta.text, response_metadata=more)
    if isinstance(delta, CallDelta):
        piece = tool_call_chunk(name=delta.name or None, args=delta.arguments, id=delta.id or None, index=delta.index)
        return AIMessageChunk(content="", tool_call_chunks=[piece])
    if isinstance(delta, CitationEvent):  # also all in the last chunk: event streams keep one value of a key
        return AIMessageChunk(content="", additional_kwargs={"citations": [delta.citation.to_dict()]})
    if isinstance(delta, Passages):
        return (
            AIMessageChunk(content="", response_metadata={"warnings": list(delta.warnings)}) if delta.warnings else None
        )
    if isinstance(delta, Finish | Done):
        finish = delta if isinstance(delta, Finish) else delta.finish or Finish("stop", Usage(0, 0))
        told = _end(finish, model)
        if isinstance(delta, Done):
            told |= {"answered": delta.answered, "citations": [each.to_dict() for each in delta.citations]}
        return AIMessageChunk(
            content="",
            response_metadata=told,
            usage_metadata=_usage(finish) if usage else None,
            chunk_position="last",
        )
    return None


def message_of(answer: Answer, model: str) -> AIMessage:
    """Convert a complete answer."""
    metadata = _end(answer.finish, model)
    if answer.logprobs:
        metadata["logprobs"] = _logprobs(answer.logprobs)
    calls, broken = [], []
    for call in answer.message.tool_calls:
        if call.cut:
            broken.append(
                {"name": call.name, "args": call.text, "id": call.id, "error": "cut short", "type": "invalid_tool_call"}
            )
        else:
            calls.append({"name": call.name, "args": dict(call.arguments), "id": call.id, "type": "tool_call"})
    return AIMessage(
        content=answer.message.content,
        tool_calls=calls,
        invalid_tool_calls=broken,
        response_metadata=metadata,
        usage_metadata=_usage(answer.finish),
    )


def _end(finish: Finish, model: str) -> dict[str, Any]:
    found: dict[str, Any] = {"finish_reason": finish.reason, "model_name": model, "model_provider": _PROVIDER}
    if finish.note:
        found["note"] = finish.note
    if finish.stop:
        found["stop_sequence"] = finish.stop
    return found


def _usage(finish: Finish) -> UsageMetadata:
    usage = finish.usage
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        input_token_details={"cache_read": usage.cached_tokens},
    )


def _logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Log-probabilities in OpenAI's form, so that the same code can read them."""

    def one(data: bytes, logprob: float) -> dict[str, Any]:
        return {"token": data.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(data)}

    return {
        "content": [
            {**one(token.data, token.logprob), "top_logprobs": [one(*other) for other in token.alternatives]}
            for token in tokens
        ]
    }


# LangChain's standard blocks


def _blocks(message: AIMessage) -> list[ContentBlock]:
    """The answer's text with its citations, in LangChain's standard form.

    Raises:
        NotImplementedError: there are no citations; LangChain itself makes the blocks of other messages.
    """
    cited = message.response_metadata.get("citations")
    if not cited or not isinstance(message.content, str):
        raise NotImplementedError
    annotations: list[Annotation] = [
        Citation(
            type="citation",
            title=each["file"],
            start_index=each["sentence"][0],
            end_index=each["sentence"][1],
            cited_text=each["text"],
            extras={name: value for name, value in each.items() if name not in ("text", "sentence")},
        )
        for each in cited
    ]
    # Without ids, because blocks with different ids are not joined in a stream.
    return [TextContentBlock(type="text", text=message.content, annotations=annotations)]


register_translator(_PROVIDER, _blocks, _blocks)
