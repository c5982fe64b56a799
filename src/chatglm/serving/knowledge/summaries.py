"""Summaries of a base's files for the APIs of the server: the deltas of the text, with progress and citations."""

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
    """One summary. `deltas` fills the attributes while it runs.

    Attributes:
        base: the base.
        files: names of the files; empty: all.
        progress: progress that has not been sent yet. The sender empties the list.
        cited: the citations so far.
        done: the result. None: the summary is not complete yet.
    """

    base: Base
    files: Sequence[str]
    progress: list[Progress] = field(default_factory=list)
    cited: list[Citation] = field(default_factory=list)
    done: Summary | None = None

    async def deltas(self, assistant: BaseAssistant, **how: Any) -> AsyncGenerator[TextDelta | Finish]:
        """Generate the summary. Yields its text as it is generated, and finally one `Finish`. For progress without text
        it yields an empty `TextDelta`, so that the sender can send the progress.

        Args:
            assistant: the model.
            how: fields of `SummaryRequest`.

        Raises:
            ChatGLMError: as `Base.summarise`.
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
