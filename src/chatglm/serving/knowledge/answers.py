"""Answers from documents, in the forms of several dialects: their deltas, and beside them what they rest on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from chatglm.assistant import BaseAssistant, Finish, Options, TextDelta, Usage
from chatglm.chat.messages import Message
from chatglm.errors import InputError, UnsupportedError
from chatglm.knowledge import Bases, Citation, CitationEvent, Done, Passage, Passages

__all__ = ["FromDocuments", "refuse_beside_documents"]


def refuse_beside_documents(given: Mapping[str, object]) -> None:
    """
    Args:
        given: fields of a request that an answer from documents has no place for, with what is set.

    Raises:
        UnsupportedError: one is set.
    """
    for name, value in given.items():
        if value:
            raise UnsupportedError(f"{name}: not supported for answers from documents; leave it out")


@dataclass
class FromDocuments:
    """One answer from documents.

    Attributes:
        bases: that are asked.
        passages: that the model was given.
        question: as it was searched.
        warnings: of the search.
        cited: citations so far.
        done: how it ended; None: it has not.
    """

    bases: Bases
    passages: tuple[Passage, ...] = ()
    question: str = ""
    warnings: tuple[str, ...] = ()
    cited: list[Citation] = field(default_factory=list)
    done: Done | None = None

    async def deltas(
        self, assistant: BaseAssistant | None, messages: Sequence[Message], options: Options, **how: Any
    ) -> AsyncGenerator[TextDelta | Finish]:
        """The answer's text as it comes, and how it ended.

        Args:
            assistant: None: sentences of the documents are the answer.
            how: it is answered: fields of `answering.Request`.

        Raises:
            InputError, UnsupportedError: the last message is not a question, or an option is not supported here.
        """
        *history, last = messages
        if last.role != "user":
            raise InputError("messages: the last one must be the user's question, to be answered from documents")
        refuse_beside_documents({name: options.get(name) for name in ("tools", "response_format")})
        asked = self.bases.aask(assistant, last.content, history=history, options=options, **how)
        async with aclosing(asked) as events:
            async for event in events:
                if isinstance(event, Passages):
                    self.passages, self.question, self.warnings = event.passages, event.question, event.warnings
                elif isinstance(event, CitationEvent):
                    self.cited.append(event.citation)
                elif isinstance(event, TextDelta):
                    yield event
                elif isinstance(event, Done):
                    self.done = event
                    yield replace(event.finish or Finish("stop", Usage(0, 0)), choice=0)

    def shown(self) -> list[dict[str, Any]]:
        """The passages, as JSON values."""
        return [
            {
                "n": each.n,
                "base": each.base,
                "file": each.file,
                "start": each.start,
                "end": each.end,
                "title": each.header,
                "page": each.page,
                "text": each.text,
            }
            for each in self.passages
        ]

    def whole(self) -> dict[str, Any]:
        """What a message has besides its text."""
        assert self.done is not None
        return {
            "citations": [each.to_dict() for each in self.done.citations],
            "answered": self.done.answered,
            "unsupported": [list(place) for place in self.done.unsupported],
        }
