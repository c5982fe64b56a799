"""Answers conversations from knowledge bases (the mode `documents`), or offers a search in them (the mode `tools`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial

from chatglm.assistant.base import BaseAssistant, Delta, Finish, Options, TextDelta, Usage
from chatglm.chat.messages import Message
from chatglm.conversation.events import Cited, Quote, Source
from chatglm.errors import InputError, NotFoundError
from chatglm.knowledge.answering import Done, Passages
from chatglm.knowledge.base import Bases
from chatglm.knowledge.citations import Citation
from chatglm.knowledge.shelf import Shelf
from chatglm.knowledge.tool import SearchKnowledge
from chatglm.tools.tool import Tool

__all__ = ["Documents"]


class Documents:
    """The `knowledge` argument of `Sessions`.

    Args:
        shelf: the bases; the caller closes it.
        who: returns the name under which a user of the store may read bases; None: every user may read all bases.
    """

    def __init__(self, shelf: Shelf, who: Callable[[int], str] | None = None) -> None:
        self.shelf, self._who = shelf, who

    def known(self, user: int | None) -> list[tuple[str, int]]:
        """The bases that a user may read, each with its number of files.

        Args:
            user: None: a person whom the store does not know yet.
        """
        try:
            who = self.who(user)
        except NotFoundError:
            return []
        return [(name, seen.files) for name, seen in self.shelf.listed(who).items()]

    def who(self, user: int | None) -> str | None:
        """The name under which a user may read bases; None: the user may read all of them.

        Raises:
            NotFoundError: this user is unknown, and has no bases.
        """
        if self._who is None:
            return None
        if user is None:
            raise NotFoundError("there is no such base; it may have been deleted")
        return self._who(user)

    def forget(self, user: int) -> list[str]:
        """Delete a user's bases, and end the access to bases of others. Call it before the user is deleted.

        Returns:
            the bases that the user may still have rights in, in sentences: see `Shelf.forget`.
        """
        return [] if self._who is None else self.shelf.forget(self._who(user))

    def _bases(self, names: Sequence[str], user: int) -> Bases:
        who = self.who(user)
        found = list(names) or self.shelf.names(who)
        if not found:
            raise InputError("there is no knowledge base yet; `chatglm knowledge add NAME FILES` makes one")
        return self.shelf.bases(found, who)

    def tool(self, bases: Sequence[str], user: int) -> Tool:
        """`search_knowledge` in these bases. Each call checks what the user may read."""
        return SearchKnowledge(partial(self._bases, bases, user))

    async def answer(
        self,
        assistant: BaseAssistant | None,
        question: str,
        *,
        history: Sequence[Message],
        bases: Sequence[str],
        user: int,
        options: Options,
        language: str,
    ) -> AsyncGenerator[tuple[Source, ...] | Cited | Delta]:
        """Answer a question; see `Knowledge.answer`.

        Raises:
            InputError: there is no base, or a named base does not exist.
        """
        found = await asyncio.to_thread(self._bases, bases, user)
        searched: Passages | None = None
        async with aclosing(
            found.aask(assistant, question, history=history, options=options, language=language)
        ) as events:
            async for event in events:
                if isinstance(event, Passages):
                    searched = event
                    yield tuple(
                        Source(
                            n=each.n,
                            base=each.base,
                            file=each.file,
                            start=each.start,
                            end=each.end,
                            title=each.header,
                            text=each.text.strip(),
                            page=each.page,
                        )
                        for each in event.passages
                    )
                elif isinstance(event, TextDelta):
                    yield event
                elif isinstance(event, Done):
                    closest: tuple[Citation, ...] = ()
                    if not event.answered and event.prompt and searched is not None and searched.passages:
                        closest = await asyncio.to_thread(_closest, found, searched.question)
                    yield Cited(
                        answered=event.answered,
                        quotes=tuple(map(_quote, event.citations)),
                        unsupported=event.unsupported,
                        question="" if searched is None else searched.question,
                        prompt=event.prompt,
                        closest=tuple(map(_quote, closest)),
                    )
                    yield event.finish or Finish("stop", Usage(0, 0))


def _closest(bases: Bases, question: str) -> tuple[Citation, ...]:
    """The sentences of the documents that are closest to a question, found without a model."""
    return next((event.citations for event in bases.ask(None, question) if isinstance(event, Done)), ())


def _quote(citation: Citation) -> Quote:
    return Quote(
        n=citation.n,
        base=citation.base,
        file=citation.file,
        start=citation.start,
        end=citation.end,
        text=citation.text,
        page=citation.page,
        sentence=citation.sentence,
    )
