"""Summaries of a base's files: their deltas, and beside them how far they are and what they rest on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from chatglm.assistant import BaseAssistant, Finish, TextDelta
from chatglm.knowledge import Base, Citation, CitationEvent
from chatglm.knowledge.summarising import Progress, Summary

__all__ = ["OfFiles"]


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
