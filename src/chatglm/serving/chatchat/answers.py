"""Answers from bases in the form of Langchain-Chatchat 0.3: OpenAI's chunks, the first of which has `docs`."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from chatglm.assistant import Finish, Options, TextDelta
from chatglm.chat.messages import Message
from chatglm.errors import InputError, NotFoundError
from chatglm.knowledge import Bases
from chatglm.serving.access.callers import caller_of
from chatglm.serving.chatchat.shapes import NOTHING_FOUND, reference, said, threshold_of
from chatglm.serving.chatchat.temporary import Temporary
from chatglm.serving.dialect import EventStream, failure_within, first_of, whole_of
from chatglm.serving.failures import NotOfferedError
from chatglm.serving.knowledge.answers import FromDocuments
from chatglm.serving.knowledge.shelves import open_bases, shelf_of, who_of
from chatglm.serving.service import Service
from chatglm.serving.sse import event

__all__ = ["Asked", "answer_files", "answer_kb", "bases_for", "references"]


@dataclass(frozen=True)
class Asked:
    """A question for a base.

    Attributes:
        mode: local_kb, temp_kb or search_engine.
        name: name of the base, or the id of a temporary one.
        top_k: maximum number of hits.
        distance: hits with a larger distance are left out (0 to 2); None: no limit.
        model: name of a served model; "" or None: the first.
        most: maximum number of tokens of the answer; 0 or None: no limit but the model's.
        direct: return only the hits, without a model's answer.
    """

    mode: str
    name: str
    question: str
    history: Sequence[Message] = ()
    top_k: int = 3
    distance: float | None = None
    stream: bool = False
    model: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    most: int | None = None
    prompt: str = "default"
    direct: bool = False

    def check(self) -> None:
        """Check the mode and the prompt.

        Raises:
            NotOfferedError: the mode is search_engine.
            InputError: the prompt is unknown.
        """
        if self.mode == "search_engine":
            raise NotOfferedError(
                f"search_engine {self.name!r:.40}: this server does not use search engines; put documents into a base "
                "and use local_kb, or upload them and use temp_kb"
            )
        if self.prompt not in ("default", "text", "Default"):
            raise InputError(
                f"prompt_name: {self.prompt!r:.40} is unknown; use default. Each base can have its own prompt "
                "(PATCH /v1/knowledge/NAME)"
            )


async def bases_for(service: Service, request: Request, temporary: Temporary, mode: str, name: str) -> Bases | None:
    """The base to search, as `Bases`; None: there is none of this name that the caller may read."""
    caller = caller_of(request)
    shelf_of(service)

    def found() -> Bases:
        if mode == "temp_kb":
            who = who_of(caller)
            return Bases([temporary.base(name, who)], who=who)
        return open_bases(service, caller, [name])

    try:
        return await asyncio.to_thread(found)
    except (NotFoundError, InputError):
        return None


def references(request: Request, documents: FromDocuments, base: str) -> list[str]:
    """`docs` of an answer: its passages, with the numbers by which the answer cites them."""
    found = [reference(request, base, each.n, each.file, each.text) for each in documents.passages]
    return found or [NOTHING_FOUND]


async def begin(
    service: Service, request: Request, asked: Asked, bases: Bases
) -> tuple[FromDocuments, AsyncGenerator[TextDelta | Finish], str]:
    """Start an answer. Returns it, its deltas and the model's name."""
    caller = caller_of(request)
    served = await service.find(asked.model or None, caller)
    params = dict(asked.params)
    if asked.most:
        # Chatchat's clients always send 2048, which may leave no room for documents in the context of a small model.
        context = served.assistant.context
        params["max_new_tokens"] = asked.most if context is None else min(asked.most, max(context // 2, 1))
    options: Options = {"params": params, "adapter": served.adapter, "client": caller.client}
    documents = FromDocuments(bases)
    how = {"k": asked.top_k, "threshold": threshold_of(asked.distance), "strict": False}
    messages = [*asked.history, Message("user", asked.question)]
    deltas = service.watch(served, caller, documents.deltas(served.assistant, messages, options, **how))
    return documents, deltas, served.name


async def answer_kb(service: Service, request: Request, temporary: Temporary, asked: Asked) -> Response:
    """Answer a request to `/chat/kb_chat` or `/knowledge_base/MODE/NAME/chat/completions`."""
    asked.check()
    bases = await bases_for(service, request, temporary, asked.mode, asked.name)
    if bases is None:
        return said(404, f"未找到知识库 {asked.name}")
    if asked.direct:
        threshold = threshold_of(asked.distance)
        hits = await asyncio.to_thread(bases.search, asked.question, k=asked.top_k, threshold=threshold)
        docs = [reference(request, asked.name, n, hit.file, hit.text) for n, hit in enumerate(hits, 1)]
        whole = _reply("chat.completion", None, "", "stop", docs=docs)
        return EventStream(_once(whole)) if asked.stream else JSONResponse(whole)
    documents, deltas, model = await begin(service, request, asked, bases)
    if asked.stream:
        return EventStream(_chunks(request, documents, await first_of(request, deltas), model, asked.name))
    (answer,) = await whole_of(request, deltas)
    docs = references(request, documents, asked.name)
    text, reason = answer.message.content, answer.finish.reason
    return JSONResponse(_reply("chat.completion", model, text, reason, docs=docs, **documents.whole()))


def _reply(kind: str, model: str | None, text: str, reason: str | None, **more: Any) -> dict[str, Any]:
    """Chatchat's `OpenAIChatOutput` as JSON: OpenAI's fields together with its own."""
    shared = {"role": "assistant", "content": text}
    if kind == "chat.completion":
        choice: dict[str, Any] = {"message": {**shared, "finish_reason": reason, "tool_calls": []}}
    else:
        choice = {"delta": {"content": text, "tool_calls": []}, "role": "assistant"}
    return {
        "id": f"chat{secrets.token_hex(16)}",
        "object": kind,
        "model": model,
        "created": int(time.time()),
        **shared,
        "finish_reason": reason,
        "tool_calls": [],
        "status": None,
        "message_type": 1,
        "message_id": None,
        "is_ref": False,
        **more,
        "choices": [choice],
    }


async def _once(whole: dict[str, Any]) -> AsyncGenerator[str]:
    yield event(whole)


async def _chunks(
    request: Request, documents: FromDocuments, deltas: AsyncGenerator[TextDelta | Finish], model: str, base: str
) -> AsyncGenerator[str]:
    kind = "chat.completion.chunk"
    try:
        async with aclosing(deltas):
            begun = False
            async for delta in deltas:
                if not begun:
                    begun = True
                    yield event(_reply(kind, model, "", None, docs=references(request, documents, base)))
                if isinstance(delta, TextDelta):
                    yield event(_reply(kind, model, delta.text, None))
                else:
                    yield event(_reply(kind, model, "", delta.reason, **documents.whole()))
    except Exception as error:  # the status has been sent
        yield event({"error": failure_within(error).message})


async def answer_files(service: Service, request: Request, temporary: Temporary, asked: Asked) -> Response:
    """Answer a request to `/chat/file_chat`: events with `answer`, and a last one with `docs`."""
    asked.check()
    bases = await bases_for(service, request, temporary, "temp_kb", asked.name)
    if bases is None:
        return said(404, f"未找到临时知识库 {asked.name}，请先上传文件")
    documents, deltas, _ = await begin(service, request, asked, bases)
    begun = await first_of(request, deltas)

    def docs() -> list[str]:
        found = [f"出处 [{each.n}] [{each.file}] \n\n{each.text}\n\n" for each in documents.passages]
        return found or [NOTHING_FOUND]

    async def told() -> AsyncGenerator[str]:
        whole = ""
        try:
            async with aclosing(begun):
                async for delta in begun:
                    if isinstance(delta, TextDelta):
                        whole += delta.text
                        if asked.stream:
                            yield event({"answer": delta.text})
            yield event({"docs": docs()} if asked.stream else {"answer": whole, "docs": docs()})
        except Exception as error:  # the status has been sent
            yield event({"error": failure_within(error).message})

    return EventStream(told())
