"""Deltas of an assistant as OpenAI's JSON, whole or in chunks, and errors in OpenAI's shape."""

from __future__ import annotations

import codecs
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse

from chatglm.assistant import (
    Answer,
    CallDelta,
    Called,
    Delta,
    Finish,
    PromptDelta,
    PromptToken,
    TextDelta,
    TokenLogprob,
)
from chatglm.chat.messages import Message
from chatglm.serving.dialect import failure_within
from chatglm.serving.failures import Failure
from chatglm.serving.knowledge.answers import FromDocuments
from chatglm.serving.server_tools import Calling, Said, pictures, report
from chatglm.serving.sse import compact, event
from chatglm.serving.usage import UsageTotal

__all__ = [
    "Head",
    "call_piece",
    "calls_here",
    "chat_choice",
    "chat_events",
    "document_events",
    "error_body",
    "logprobs_of",
    "render",
    "text_choice",
    "text_events",
    "usage_of",
]


def render(failure: Failure) -> Response:
    return JSONResponse(error_body(failure), failure.status)


def error_body(failure: Failure) -> dict[str, Any]:
    inner = {"message": failure.message, "type": failure.kind, "param": failure.param, "code": failure.code}
    return {"error": inner}


def usage_of(total: UsageTotal) -> dict[str, Any]:
    return {
        "prompt_tokens": total.prompt_tokens,
        "completion_tokens": total.completion_tokens,
        "total_tokens": total.prompt_tokens + total.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": total.cached_tokens},
    }


def _token(data: bytes, logprob: float) -> dict[str, Any]:
    return {"token": data.decode("utf-8", "replace"), "logprob": max(logprob, -9999.0), "bytes": list(data)}


def logprobs_of(tokens: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    return [
        {**_token(one.data, one.logprob), "top_logprobs": [_token(*other) for other in one.alternatives]}
        for one in tokens
    ]


def _chat_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    content = logprobs_of(tokens)
    return {"content": content, "refusal": None} if content else None


def _text_logprobs(tokens: Sequence[TokenLogprob | PromptToken], start: int) -> dict[str, Any] | None:
    """
    Args:
        start: characters of the text in front of these tokens.
    """
    if not tokens:
        return None
    return {
        "tokens": [one.data.decode("utf-8", "replace") for one in tokens],
        "token_logprobs": [None if one.logprob is None else max(one.logprob, -9999.0) for one in tokens],
        "top_logprobs": [None if one.logprob is None else _likeliest(one.alternatives) for one in tokens],
        "text_offset": _offsets([one.data for one in tokens], start),
    }


def _likeliest(alternatives: Sequence[tuple[bytes, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for data, value in alternatives:  # the likeliest comes first; parts of characters may look the same
        found.setdefault(data.decode("utf-8", "replace"), max(value, -9999.0))
    return found


def _offsets(pieces: Sequence[bytes], start: int) -> list[int]:
    """Where each token begins: the characters that are complete before it."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    found = []
    for piece in pieces:
        found.append(start)
        start += len(decoder.decode(piece))
    return found


def _message(message: Message, old_calls: bool, called: Sequence[Called]) -> dict[str, Any]:
    made: dict[str, Any] = {"role": "assistant", "content": message.content, **calls_here(called)}
    if message.tool_calls:
        made["content"] = message.content or None
        calls = [call.to_dict() for call in message.tool_calls]
        if old_calls:
            made["function_call"] = calls[0]["function"]
        else:
            made["tool_calls"] = calls
    return made


def calls_here(called: Sequence[Called]) -> dict[str, Any]:
    """Fields of a message about calls that the server carried out, and about the pictures of their results."""
    made: dict[str, Any] = {"server_tool_calls": [report(one) for one in called]} if called else {}
    if shown := [url for one in called for url in pictures(one)]:
        made["images"] = [{"type": "image_url", "image_url": {"url": url}} for url in shown]
    return made


def _reason(finish: Finish, old_calls: bool) -> str:
    return "function_call" if old_calls and finish.reason == "tool_calls" else finish.reason


def _stop(finish: Finish) -> dict[str, str]:
    """vLLM's field for the stop sequence that ended the answer."""
    return {"stop_reason": finish.stop} if finish.stop else {}


def chat_choice(number: int, answer: Answer, old_calls: bool, called: Sequence[Called] = ()) -> dict[str, Any]:
    """
    Args:
        old_calls: whether the client reads `function_call` instead of `tool_calls`.
        called: what the server carried out.
    """
    return {
        "index": number,
        "message": _message(answer.message, old_calls, called),
        "logprobs": _chat_logprobs(answer.logprobs),
        "finish_reason": _reason(answer.finish, old_calls),
        **_stop(answer.finish),
    }


def text_choice(number: int, answer: Answer) -> dict[str, Any]:
    text, logprobs = "", None
    if answer.prompt is not None:
        text, logprobs = answer.prompt.text, _prompt_logprobs(answer.prompt)
    own = _text_logprobs(answer.logprobs, len(text))
    if logprobs is not None and own is not None:
        own = {name: [*values, *own[name]] for name, values in logprobs.items()}
    return {
        "index": number,
        "text": text + answer.message.content,
        "logprobs": own or logprobs,
        "finish_reason": answer.finish.reason,
        **_stop(answer.finish),
    }


def _prompt_logprobs(prompt: PromptDelta) -> dict[str, Any] | None:
    found = _text_logprobs(prompt.tokens, 0)
    if found is not None:
        # SentencePiece puts a space in front of a text, which is in the tokens and not in the text.
        more = max(
            0, len(b"".join(token.data for token in prompt.tokens).decode("utf-8", "replace")) - len(prompt.text)
        )
        found["text_offset"] = [max(0, offset - more) for offset in found["text_offset"]]
    return found


def call_piece(delta: CallDelta, old_calls: bool = False) -> dict[str, Any]:
    """The `delta` of a chunk."""
    if old_calls:
        named = {"name": delta.name} if delta.name else {}
        return {"function_call": {**named, "arguments": delta.arguments}}
    piece: dict[str, Any] = {"index": delta.index, "function": {"arguments": delta.arguments}}
    if delta.name:
        piece |= {"id": delta.id, "type": "function"}
        piece["function"] = {"name": delta.name, "arguments": delta.arguments}
    return {"tool_calls": [piece]}


class Head:
    """The beginning of all chunks of an answer."""

    def __init__(self, prefix: str, kind: str, model: str) -> None:
        self._fields: dict[str, Any] = {
            "id": f"{prefix}-{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            "model": model,
        }
        self._begin = compact(self._fields).removesuffix("}")  # once for all chunks

    def whole(self, choices: Sequence[Mapping[str, Any]], usage: Mapping[str, Any] | None) -> dict[str, Any]:
        return {**self._fields, "choices": list(choices), "usage": usage}

    def event(self, choice: Mapping[str, Any] | None, usage: Mapping[str, Any] | None, with_usage: bool) -> str:
        choices = "" if choice is None else compact(choice)
        end = f',"usage":{compact(usage)}' if with_usage else ""
        return f'data: {self._begin},"choices":[{choices}]{end}}}\n\n'


async def chat_events(
    head: Head, deltas: AsyncGenerator[Said], with_usage: bool, old_calls: bool
) -> AsyncGenerator[str]:
    total = UsageTotal()
    begun: set[int] = set()
    try:
        async with aclosing(deltas):
            async for delta in deltas:
                if isinstance(delta, Calling):
                    continue
                choice: dict[str, Any] = {"index": delta.choice, "delta": {}, "logprobs": None, "finish_reason": None}
                if delta.choice not in begun:
                    begun.add(delta.choice)
                    yield head.event({**choice, "delta": {"role": "assistant", "content": ""}}, None, with_usage)
                match delta:
                    case TextDelta():
                        choice |= {"delta": {"content": delta.text}, "logprobs": _chat_logprobs(delta.logprobs)}
                    case CallDelta():
                        choice["delta"] = call_piece(delta, old_calls)
                    case Called():
                        choice["delta"] = calls_here([delta])
                    case Finish():
                        choice |= {"finish_reason": _reason(delta, old_calls), **_stop(delta)}
                        total.add(delta)
                yield head.event(choice, None, with_usage)
        if with_usage:
            yield head.event(None, usage_of(total), True)
        yield event("[DONE]")
    except Exception as error:  # the status has been sent
        yield event(error_body(failure_within(error)))


async def document_events(
    head: Head, deltas: AsyncGenerator[TextDelta | Finish], documents: FromDocuments, with_usage: bool
) -> AsyncGenerator[str]:
    """An answer from documents: first passages, then citations with their sentences, all of them at the end."""
    total = UsageTotal()

    def chunk(delta: dict[str, Any], reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return head.event(choice, None, with_usage)

    try:
        told = 0
        async with aclosing(deltas):
            begun = False
            async for delta in deltas:
                if not begun:
                    begun = True
                    yield chunk({"role": "assistant", "content": "", "passages": documents.shown()})
                if told < len(documents.cited):
                    yield chunk({"citations": [each.to_dict() for each in documents.cited[told:]]})
                    told = len(documents.cited)
                if isinstance(delta, TextDelta):
                    yield chunk({"content": delta.text})
                else:
                    total.add(delta)
                    yield chunk(documents.whole(), delta.reason)
        if with_usage:
            yield head.event(None, usage_of(total), True)
        yield event("[DONE]")
    except Exception as error:  # the status has been sent
        yield event(error_body(failure_within(error)))


async def text_events(head: Head, deltas: AsyncGenerator[Delta], n: int, usage: bool) -> AsyncGenerator[str]:
    total = UsageTotal()
    lengths: Counter[int] = Counter()
    try:
        async with aclosing(deltas):
            async for delta in deltas:
                number = delta.choice
                choice: dict[str, Any] = {"index": number, "text": "", "logprobs": None, "finish_reason": None}
                if isinstance(delta, TextDelta):
                    choice |= {"text": delta.text, "logprobs": _text_logprobs(delta.logprobs, lengths[number])}
                    lengths[number] += len(delta.text)
                elif isinstance(delta, PromptDelta):
                    choice |= {"text": delta.text, "logprobs": _prompt_logprobs(delta)}
                    lengths[number] += len(delta.text)
                elif isinstance(delta, Finish):
                    choice |= {"finish_reason": delta.reason, **_stop(delta)}
                    total.add(delta, number // n)
                yield head.event(choice, None, usage)
        if usage:
            yield head.event(None, usage_of(total), True)
        yield event("[DONE]")
    except Exception as error:
        yield event(error_body(failure_within(error)))
