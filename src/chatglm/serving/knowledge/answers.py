"""Answers from documents for all APIs of the server: the deltas of the text, with passages and citations."""

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
    """Refuse options that answers from documents do not support.

    Args:
        given: these options, by the name of their field, with the values in the request.

    Raises:
        UnsupportedError: one of them is set; the message names it.
    """
    for name, value in given.items():
        if value:
            raise UnsupportedError(f"{name}: not supported for answers from documents; leave it out")


@dataclass
class FromDocuments:
    """One answer from documents. `deltas` fills the attributes while it runs.

    Attributes:
        bases: the bases to search.
        passages: the passages in the prompt.
        question: the question that was searched for. A follow-up is rewritten into a complete question.
        warnings: warnings of the search.
        cited: the citations so far.
        done: the result. None: the answer is not complete yet.
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
        """Generate the answer. Yields its text as it is generated, and finally one `Finish`.

        Args:
            assistant: the model that writes the answer. None: the answer consists of the best sentences of the
                documents.
            messages: the dialogue; the last message is the question.
            options: options for the assistant.
            how: further fields of `answering.Request`.

        Raises:
            InputError: the last message is not from the user, or an option is wrong.
            UnsupportedError: an option is not supported here.
            ChatGLMError: as `Bases.ask`.
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
        """The passages as JSON values. `title` has the whole source line (file, headings and page)."""
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
        """The fields of a message besides its text, as JSON values. Call it when `done` is set."""
        assert self.done is not None
        return {
            "citations": [each.to_dict() for each in self.done.citations],
            "answered": self.done.answered,
            "unsupported": [list(place) for place in self.done.unsupported],
        }
