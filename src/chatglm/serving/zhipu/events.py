"""Deltas of an assistant as ZhipuAI's clients read them, whole or as events of a stream."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from chatglm.assistant import Answer, CallDelta, Called, Delta, Finish, TextDelta
from chatglm.errors import InputError
from chatglm.serving.dialect import failure_within
from chatglm.serving.failures import Failure
from chatglm.serving.openai.events import call_piece, calls_here, usage_of
from chatglm.serving.server_tools import Calling, Said
from chatglm.serving.sse import compact, event
from chatglm.serving.stored.tasks import Task
from chatglm.serving.usage import UsageTotal
from chatglm.serving.zhipu.codes import refusal_of

__all__ = [
    "ChatHead",
    "InvokeHead",
    "chat_answer",
    "chat_events",
    "error_event",
    "error_of",
    "invoke_answer",
    "invoke_events",
    "invoke_task",
    "new_id",
    "task_answer",
]


def new_id() -> str:
    """An id as ZhipuAI's look: the time, then random digits."""
    return time.strftime("%Y%m%d%H%M%S") + secrets.token_hex(9)


# v4


def error_of(failure: Failure) -> dict[str, Any]:
    refusal = refusal_of(failure)
    return {"error": {"code": str(refusal.code), "message": refusal.message}}


class ChatHead:
    """The beginning of an answer, and of each of its chunks."""

    def __init__(self, model: str, request_id: str | None, own_id: str | None = None) -> None:
        self.id = own_id or new_id()
        self.request_id = request_id or self.id
        self.created, self.model = int(time.time()), model
        fields = {"id": self.id, "created": self.created, "model": model}
        self._begin = compact(fields).removesuffix("}")  # once for all chunks

    def event(self, choice: Mapping[str, Any], usage: Mapping[str, Any] | None = None) -> str:
        end = "" if usage is None else f',"usage":{compact(usage)}'
        return f'data: {self._begin},"choices":[{compact(choice)}]{end}}}\n\n'


def chat_answer(head: ChatHead, answers: Sequence[Answer], called: Sequence[Called] = ()) -> dict[str, Any]:
    """
    Args:
        called: what the server carried out.
    """
    total = UsageTotal()
    choices = []
    for number, answer in enumerate(answers):
        total.add(answer.finish)
        message: dict[str, Any] = {"role": "assistant", "content": answer.message.content, **calls_here(called)}
        if answer.message.tool_calls:
            message["tool_calls"] = [call.to_dict() for call in answer.message.tool_calls]
        choices.append({"index": number, "finish_reason": answer.finish.reason, "message": message})
    return {
        "id": head.id,
        "request_id": head.request_id,
        "created": head.created,
        "model": head.model,
        "choices": choices,
        "usage": usage_of(total),
    }


def task_answer(task: Task) -> dict[str, Any]:
    """A request that is answered later, and its answer if it is there."""
    body = task.body
    made = {"id": task.id, "request_id": body["request_id"], "model": body["model"]}
    match task.state:
        case "done":
            return {**task.answer, **made, "task_status": "SUCCESS"}
        case "failed":
            error = task.answer if isinstance(task.answer, dict) else error_of(Failure(500, task.problem))
            return {**made, "task_status": "FAIL", **error}
    return {**made, "task_status": "PROCESSING"}


async def chat_events(head: ChatHead, deltas: AsyncGenerator[Said], answers: int, pieces: bool) -> AsyncGenerator[str]:
    """
    Args:
        answers: that come; the usage is in the chunk that ends the last of them.
        pieces: send the arguments of a call as they come; else calls are sent whole.
    """
    total, finished = UsageTotal(), 0
    try:
        async with aclosing(deltas if pieces else _whole_calls(deltas)) as shown:
            async for delta in shown:
                if isinstance(delta, Calling):
                    continue
                choice: dict[str, Any] = {"index": delta.choice}
                usage = None
                match delta:
                    case TextDelta():
                        choice["delta"] = {"role": "assistant", "content": delta.text}
                    case CallDelta():
                        choice["delta"] = {"role": "assistant", **call_piece(delta)}
                    case Called():
                        choice["delta"] = {"role": "assistant", **calls_here([delta])}
                    case Finish():
                        total.add(delta)
                        finished += 1
                        choice |= {"finish_reason": delta.reason, "delta": {"role": "assistant", "content": ""}}
                        usage = usage_of(total) if finished == answers else None
                yield head.event(choice, usage)
        yield event("[DONE]")
    except Exception as error:  # the status has been sent
        yield event(error_of(failure_within(error)))


async def _whole_calls(deltas: AsyncGenerator[Said]) -> AsyncGenerator[Said]:
    """The same deltas, where each call is one."""
    held: dict[int, CallDelta] = {}  # the call that each answer has begun
    async with aclosing(deltas):
        async for delta in deltas:
            before = held.get(delta.choice)
            if isinstance(delta, CallDelta) and before is not None and before.index == delta.index:
                held[delta.choice] = replace(before, arguments=before.arguments + delta.arguments)
                continue
            if before is not None:
                yield held.pop(delta.choice)
            if isinstance(delta, CallDelta):
                held[delta.choice] = delta
            else:
                yield delta


# v3

_SHARE = 100
"""Events that repeat the whole text are sent when it has grown by one part in this many: otherwise the size of a stream
would grow with the square of the answer."""


class InvokeHead:
    """Ids of an answer."""

    def __init__(self, request_id: str | None) -> None:
        self.task_id = new_id()
        self.request_id = request_id or self.task_id

    def data(self, status: str, **more: Any) -> dict[str, Any]:
        return {"request_id": self.request_id, "task_id": self.task_id, "task_status": status, **more}


def _invoke_usage(total: UsageTotal) -> dict[str, int]:
    return {
        "prompt_tokens": total.prompt_tokens,
        "completion_tokens": total.completion_tokens,
        "total_tokens": total.prompt_tokens + total.completion_tokens,
    }


def invoke_task(task: Task) -> dict[str, Any]:
    """A request that is answered later, and its answer if it is there."""
    made = {"request_id": task.body["request_id"], "task_id": task.id}
    match task.state:
        case "done":
            return {**task.answer["data"], **made}
        case "failed":
            refusal = task.answer
            if not isinstance(refusal, dict):
                failed = refusal_of(Failure(500, task.problem))
                refusal = {"code": failed.code, "msg": failed.message}
            error = {"code": refusal["code"], "msg": refusal["msg"]}
            return {**made, "task_status": "FAIL", "error": error}
    return {**made, "task_status": "PROCESSING"}


def invoke_answer(head: InvokeHead, answer: Answer, as_json: bool) -> dict[str, Any]:
    """
    Args:
        as_json: the content is a JSON string, quotes included.

    Raises:
        InputError: the answer is a tool call.
    """
    if answer.message.tool_calls:
        raise _no_calls()
    content, total = answer.message.content, UsageTotal()
    total.add(answer.finish)
    choice = {"role": "assistant", "content": compact(content) if as_json else content}
    return head.data("SUCCESS", choices=[choice], usage=_invoke_usage(total))


def _no_calls() -> InputError:
    return InputError("prompt: the model answers with a tool call, which v3 cannot return; use v4")


async def invoke_events(head: InvokeHead, deltas: AsyncGenerator[Delta], incremental: bool) -> AsyncGenerator[str]:
    total, text, sent = UsageTotal(), "", 0
    try:
        async with aclosing(deltas):
            async for delta in deltas:
                match delta:
                    case TextDelta() if incremental:
                        if delta.text:
                            yield _named("add", delta.text, head.task_id)
                    case TextDelta():
                        text += delta.text
                        if len(text) - sent > len(text) // _SHARE:
                            sent = len(text)
                            yield _named("add", text, head.task_id)
                    case CallDelta():
                        raise _no_calls()
                    case Finish():
                        total.add(delta)
        if sent < len(text):
            yield _named("add", text, head.task_id)
        meta = {"task_status": "SUCCESS", "usage": _invoke_usage(total)}
        yield _named("finish", "", head.task_id, {**meta, "task_id": head.task_id, "request_id": head.request_id})
    except Exception as error:
        yield error_event(failure_within(error), head)


def error_event(failure: Failure, head: InvokeHead) -> str:
    """The last event of a stream that fails; `interrupted` if the answer up to here is valid."""
    refusal = refusal_of(failure)
    name = "interrupted" if failure.code == "shutting_down" else "error"
    meta = head.data("FAIL", code=refusal.code, msg=refusal.message)
    return _named(name, refusal.message, head.task_id, meta)


def _named(name: str, text: str, own_id: str, meta: Mapping[str, Any] | None = None) -> str:
    # Readers remove one space after the colon, so a text that begins with a space needs two. Each line of the text has
    # a line of its own; a carriage return would end one, too.
    lines = "".join(f"data:{' ' if line[:1] == ' ' else ''}{line}\n" for line in re.split("\r\n|\r|\n", text))
    end = "" if meta is None else f"meta:{compact(meta)}\n"
    return f"event:{name}\n{lines}id:{own_id}\n{end}\n"
