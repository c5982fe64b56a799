"""Summaries of a base's files: their deltas, and beside them how far they are and what they rest on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from chatglm.assistant import BaseAssistant, Finish, TextDelta
from chatglm.knowledge import Base, Citation, CitationEvent
from chatglm.knowledge.summarising import Progress, Summary
from chatglm.serving.dialect import failure_within
from chatglm.serving.openai.events import error_body, usage_of
from chatglm.serving.sse import event
from chatglm.serving.usage import UsageTotal

__all__ = ["OfFiles", "summary_events"]


@dataclass
class OfFiles:
    """One summary.

    Attributes:
        progress: that nobody has been told yet.
        cited: citations so far.
        done: None: it has not ended.
    """

    base: Base
    files: Sequence[str]
    progress: list[Progress] = field(default_factory=list)
    cited: list[Citation] = field(default_factory=list)
    done: Summary | None = None

    async def deltas(self, assistant: BaseAssistant, **how: Any) -> AsyncGenerator[TextDelta | Finish]:
        """The summary's text as it comes, and how it ended; an empty text where it has only got further.

        Args:
            how: fields of `SummaryRequest`.
        """
        async with aclosing(self.base.asummarise(assistant, self.files, **how)) as events:
            async for one in events:
                match one:
                    case Progress():
                        self.progress.append(one)
                        yield TextDelta("")
                    case TextDelta():
                        yield one
                    case CitationEvent():
                        self.cited.append(one.citation)
                    case Summary():
                        self.done = one
                        reason = one.finish.reason if one.finish is not None else "stop"
                        yield Finish(reason, one.usage)

    def whole(self, finish: Finish, model: str) -> dict[str, Any]:
        """The summary as JSON values."""
        assert self.done is not None
        total = UsageTotal()
        total.add(finish)
        return {
            "summary": self.done.text,
            "citations": [each.to_dict() for each in self.done.citations],
            "unsupported": [list(place) for place in self.done.unsupported],
            "parts": self.done.parts,
            "asked": self.done.asked,
            "kept": self.done.kept,
            "model": model,
            "finish_reason": finish.reason,
            "usage": usage_of(total),
        }


async def summary_events(made: OfFiles, deltas: AsyncGenerator[TextDelta | Finish], model: str) -> AsyncGenerator[str]:
    """A summary as events: `progress`, `text`, `citation`, and at last `done` with all of it."""
    told = 0
    finish: Finish | None = None
    try:
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
            yield event(made.whole(finish, model), "done")
    except Exception as error:  # the status has been sent
        yield event(error_body(failure_within(error)), "error")
