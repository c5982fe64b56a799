"""Progress, answers and summaries as server-sent events, and whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from chatglm.assistant import Finish, TextDelta, Usage
from chatglm.errors import NotFoundError
from chatglm.knowledge import Base
from chatglm.serving.failures import Failure
from chatglm.serving.knowledge.answers import FromDocuments
from chatglm.serving.knowledge.summaries import OfFiles
from chatglm.serving.openai.events import error_body, usage_of
from chatglm.serving.openai.knowledge_api.bodies import file_shown
from chatglm.serving.sse import event
from chatglm.serving.usage import UsageTotal

__all__ = ["answer_events", "answer_of", "broken_off", "progress_events", "summary_events", "summary_of"]

_LOOK_SECONDS = 0.5
_TOLD = 1000
"""Most files of a base whose progress is sent at a time."""


async def progress_events(base_now: Callable[[], Any], follow: bool) -> AsyncGenerator[str]:
    """Events of a base's files.

    Args:
        base_now: the base, while the caller may still read it.
    """
    before: dict[str, Any] = {}
    while True:
        base: Base = await base_now()
        waiting = {file.name: file for file in (await asyncio.to_thread(base.store.waiting))[:_TOLD]}
        told = [file for name, file in waiting.items() if before.get(name) != file]
        for name in before.keys() - waiting.keys():
            try:
                told.append(await asyncio.to_thread(base.store.find, name))
            except NotFoundError:  # removed since
                continue
        for file in told:
            yield event(file_shown(file), "file")
        if not waiting and (before or not follow):
            files = await asyncio.to_thread(base.files)
            failed = sum(file.state == "failed" for file in files)
            pieces = sum(file.pieces for file in files)
            whole = {"files": len(files), "failed": failed, "pieces": pieces, "trouble": base.trouble}
            yield event(whole, "done")
            if not follow:
                return
        elif not told:
            yield ": nothing new\n\n"  # only a failing write shows that a silent client has gone
        before = waiting
        await asyncio.sleep(_LOOK_SECONDS)


def broken_off(failure: Failure) -> str:
    """The last event of a stream that breaks off."""
    return event(error_body(failure), "error")


def answer_of(documents: FromDocuments, finish: Finish, model: str | None, prompt: bool) -> dict[str, Any]:
    assert documents.done is not None
    total = UsageTotal()
    total.add(finish)
    return {
        "answer": documents.done.text,
        **documents.whole(),
        "passages": documents.shown(),
        "question": documents.question,
        "warnings": list(documents.warnings),
        "model": model,
        "finish_reason": finish.reason,
        "usage": usage_of(total),
        **({"prompt": documents.done.prompt} if prompt else {}),
    }


async def answer_events(
    documents: FromDocuments, deltas: AsyncGenerator[TextDelta | Finish], model: str | None, prompt: bool
) -> AsyncGenerator[str]:
    """An answer as events: first passages, then citations with their sentences, the whole answer at the end."""
    told, begun = 0, False
    finish = Finish("stop", Usage(0, 0))
    async with aclosing(deltas):
        async for delta in deltas:
            if not begun:
                begun = True
                head = {"passages": documents.shown(), "question": documents.question}
                yield event({**head, "warnings": list(documents.warnings)}, "passages")
            for citation in documents.cited[told:]:
                yield event(citation.to_dict(), "citation")
            told = len(documents.cited)
            if isinstance(delta, TextDelta):
                yield event({"text": delta.text}, "text")
            else:
                finish = delta
    yield event(answer_of(documents, finish, model, prompt), "done")


def summary_of(made: OfFiles, finish: Finish, model: str) -> dict[str, Any]:
    """`SummaryAnswer`."""
    assert made.done is not None
    total = UsageTotal()
    total.add(finish)
    return {
        "summary": made.done.text,
        "citations": [each.to_dict() for each in made.done.citations],
        "unsupported": [list(place) for place in made.done.unsupported],
        "parts": made.done.parts,
        "asked": made.done.asked,
        "kept": made.done.kept,
        "model": model,
        "finish_reason": finish.reason,
        "usage": usage_of(total),
    }


async def summary_events(made: OfFiles, deltas: AsyncGenerator[TextDelta | Finish], model: str) -> AsyncGenerator[str]:
    """A summary as events: `progress`, `text`, `citation`, and finally `done` with the whole answer."""
    told = 0
    finish: Finish | None = None
    async with aclosing(deltas):
        async for delta in deltas:
            for one in made.progress:
                yield event(dict(vars(one)), "progress")
            made.progress.clear()
            for citation in made.cited[told:]:
                yield event(citation.to_dict(), "citation")
            told = len(made.cited)
            if isinstance(delta, Finish):
                finish = delta
            elif delta.text:
                yield event({"text": delta.text}, "text")
    if finish is not None:
        yield event(summary_of(made, finish, model), "done")
