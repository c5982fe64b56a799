"""Deltas of an assistant as a response, whole or as events."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Any

from chatglm.assistant import CallDelta, Called, Finish, TextDelta, Usage
from chatglm.chat.messages import INTERPRETER, ToolCall
from chatglm.errors import ChatGLMError
from chatglm.knowledge import Citation
from chatglm.serving.failures import Failure, failure_of
from chatglm.serving.knowledge.answers import FromDocuments
from chatglm.serving.openai.events import logprobs_of
from chatglm.serving.openai.responses_api.containers import citation
from chatglm.serving.openai.responses_api.items import item_id
from chatglm.serving.server_tools import Calling, Said, pictures
from chatglm.serving.sse import event

__all__ = ["Writer", "events"]

log = logging.getLogger("chatglm.serving")

_LABEL = "server"
"""Label of this server in items about calls of its tools."""


class Writer:
    """One response: deltas in, events out; and the whole response, once all deltas are in.

    Args:
        model: its name.
        fields: of the request, which the response repeats.
        store: whether it is kept.
        container: of the server's interpreter, where it may be used.
        keeps_files: whether the container stays when the response is whole, so that clients can get its files.
        documents: the documents that the answer is made from; None: no documents.
    """

    def __init__(
        self,
        model: str,
        fields: Mapping[str, Any],
        store: bool,
        container: str = "",
        keeps_files: bool = False,
        documents: FromDocuments | None = None,
    ) -> None:
        self.response: dict[str, Any] = {
            "id": f"resp_{secrets.token_hex(24)}",
            "object": "response",
            "created_at": int(time.time()),
            "completed_at": None,
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": model,
            "output": [],
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "store": store,
            "usage": None,
            **fields,
        }
        self._number = -1
        self._open: dict[str, Any] | None = None  # the item that is being written
        self._running: dict[str, int] = {}  # calls that the server carries out: the places of their items
        self._container, self._keeps_files = container, keeps_files
        self._documents, self._cited = documents, 0
        self._made: dict[str, None] = {}  # files that code has made, and no text has cited

    def begin(self) -> Iterator[dict[str, Any]]:
        for name in ("created", "in_progress"):
            yield self._whole(name)

    def take(self, delta: Said) -> Iterator[dict[str, Any]]:
        """The events that a delta makes."""
        if self._documents is not None:
            yield from self._cite(self._documents)
        match delta:
            case TextDelta():
                yield from self._text(delta)
            case CallDelta():
                yield from self._call(delta)
            case Calling():
                yield from self._begin_here(delta.call)
            case Called():
                yield from self._end_here(delta)
            case Finish():
                yield from self._finish(delta)

    def fail(self, failure: Failure) -> Iterator[dict[str, Any]]:
        """The events of a response that cannot be finished."""
        code = "rate_limit_exceeded" if failure.status == 429 else "server_error"
        yield self._event("error", code=failure.code, message=failure.message, param=failure.param)
        self.response |= {"status": "failed", "error": {"code": code, "message": failure.message}}
        yield self._whole("failed")

    def _text(self, delta: TextDelta) -> Iterator[dict[str, Any]]:
        if self._open is None or self._open["type"] != "message":
            yield from self._close()
            made = {"id": item_id("message"), "type": "message", "status": "in_progress", "role": "assistant"}
            yield self._add({**made, "content": []})
            part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            yield self._event("response.content_part.added", **self._place, content_index=0, part={**part})
            self._item["content"].append({**part, "annotations": [], "logprobs": []})
        part = self._item["content"][0]
        logprobs = logprobs_of(delta.logprobs)
        part["text"] += delta.text
        part["logprobs"] += logprobs
        yield self._event(
            "response.output_text.delta", **self._place, content_index=0, delta=delta.text, logprobs=logprobs
        )

    def _cite(self, documents: FromDocuments) -> Iterator[dict[str, Any]]:
        """Citations of the sentences that are complete now."""
        if self._open is not None:
            for cited in documents.cited[self._cited :]:
                yield self._annotation(_citation(cited))
            self._cited = len(documents.cited)
        if documents.done is not None:
            self.response["answered"] = documents.done.answered

    def _annotation(self, made: dict[str, Any]) -> dict[str, Any]:
        annotations = self._item["content"][0]["annotations"]
        place = {**self._place, "content_index": 0, "annotation_index": len(annotations)}
        annotations.append(made)
        return self._event("response.output_text.annotation.added", **place, annotation=made)

    def _call(self, delta: CallDelta) -> Iterator[dict[str, Any]]:
        if delta.name:
            yield from self._close()
            made = {"id": item_id("function_call"), "type": "function_call", "status": "in_progress"}
            yield self._add({**made, "call_id": delta.id, "name": delta.name, "arguments": ""})
        if delta.arguments:
            self._item["arguments"] += delta.arguments
            yield self._event("response.function_call_arguments.delta", **self._place, delta=delta.arguments)

    def _begin_here(self, call: ToolCall) -> Iterator[dict[str, Any]]:
        """A call that the server carries out: as an item that OpenAI's clients know."""
        yield from self._close()
        code = call.arguments.get("code")
        if call.name == INTERPRETER and isinstance(code, str):
            kind, field, text = "code_interpreter_call", "code", code
            more: dict[str, Any] = {"container_id": self._container, "outputs": None}
        else:
            kind, field, text = "mcp_call", "arguments", call.to_dict()["function"]["arguments"]
            more = {"server_label": _LABEL, "name": call.name, "output": None, "error": None}
            more["approval_request_id"] = None
        item = {"id": item_id(kind), "type": kind, "status": "in_progress", field: "", **more}
        yield self._add(item)
        self._open, self._running[call.id] = None, self._index
        place, writing = {"item_id": item["id"], "output_index": self._index}, f"response.{kind}_{field}"
        yield self._event(f"response.{kind}.in_progress", **place)
        item[field] = text
        yield self._event(f"{writing}.delta", **place, delta=text)
        yield self._event(f"{writing}.done", **place, **{field: text})
        if field == "code":
            yield self._event(f"response.{kind}.interpreting", **place)

    def _end_here(self, called: Called) -> Iterator[dict[str, Any]]:
        index = self._running.pop(called.call.id)
        item, outcome = self.response["output"][index], called.outcome
        ended = "completed"
        if item["type"] == "code_interpreter_call":
            shown = [{"type": "image", "url": url} for url in pictures(called)]
            item["outputs"] = [{"type": "logs", "logs": outcome.text}, *shown]
            if self._keeps_files:
                self._made |= dict.fromkeys(outcome.files)
        else:
            item["output"] = outcome.text
            if outcome.failed:
                told = [{"type": "text", "text": outcome.text}]
                item["error"], ended = {"type": "mcp_tool_execution_error", "content": told}, "failed"
        item["status"] = ended
        yield self._event(f"response.{item['type']}.{ended}", item_id=item["id"], output_index=index)
        yield self._event("response.output_item.done", output_index=index, item=item)

    def _add(self, item: dict[str, Any]) -> dict[str, Any]:
        self._open = item
        self.response["output"].append(item)
        shown = {**item, "content": []} if "content" in item else {**item}
        return self._event("response.output_item.added", output_index=self._index, item=shown)

    def _close(self, status: str = "completed") -> Iterator[dict[str, Any]]:
        if self._open is None:
            return
        item, place = self._open, self._place
        if item["type"] == "message":
            part = item["content"][0]
            for name in self._made:
                yield self._annotation(citation(self._container, name, part["text"]))
            self._made = {}
            done = {"text": part["text"], "logprobs": part["logprobs"]}
            yield self._event("response.output_text.done", **place, content_index=0, **done)
            yield self._event("response.content_part.done", **place, content_index=0, part=part)
        else:
            done = {"name": item["name"], "arguments": item["arguments"]}
            yield self._event("response.function_call_arguments.done", **place, **done)
        item["status"] = status
        yield self._event("response.output_item.done", output_index=self._index, item=item)
        self._open = None

    def _finish(self, finish: Finish) -> Iterator[dict[str, Any]]:
        status = "incomplete" if finish.reason == "length" else "completed"
        yield from self._close(status)
        self.response |= {"status": status, "usage": _usage(finish.usage)}
        if status == "completed":
            self.response["completed_at"] = int(time.time())
        else:
            self.response["incomplete_details"] = {"reason": "max_output_tokens"}
        yield self._whole(status)

    @property
    def _item(self) -> dict[str, Any]:
        assert self._open is not None
        return self._open

    @property
    def _index(self) -> int:
        return len(self.response["output"]) - 1

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self._item["id"], "output_index": self._index}

    def _whole(self, name: str) -> dict[str, Any]:
        return self._event(f"response.{name}", response=self.response)

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        self._number += 1
        return {"type": kind, "sequence_number": self._number, **fields}


def _citation(cited: Citation) -> dict[str, Any]:
    """A citation as OpenAI's clients read it, at the end of its sentence, with all its fields."""
    own = {"type": "file_citation", "file_id": f"{cited.base}/{cited.file}", "filename": cited.file}
    return {**own, "index": cited.sentence[1], **cited.to_dict()}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


async def events(
    writer: Writer, deltas: AsyncGenerator[Said], save: Callable[[], Awaitable[None]]
) -> AsyncGenerator[str]:
    """
    Args:
        save: called when the response is complete, before the client gets its end and may continue it.
    """
    for made in writer.begin():
        yield event(made, made["type"])
    try:
        async with aclosing(deltas):
            async for delta in deltas:
                for made in writer.take(delta):
                    if "response" in made:
                        await save()
                    yield event(made, made["type"])
    except Exception as error:  # the status has been sent
        if not isinstance(error, ChatGLMError):
            log.error("a stream failed", exc_info=error)
        for made in writer.fail(failure_of(error)):
            yield event(made, made["type"])
