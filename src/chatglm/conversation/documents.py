"""The mode `documents`: conversations answered from knowledge bases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from chatglm.assistant.base import BaseAssistant, Delta, Finish, Options, TextDelta, Usage
from chatglm.chat.messages import Message
from chatglm.conversation.events import Source
from chatglm.errors import InputError
from chatglm.knowledge.answering import Done, Passages
from chatglm.knowledge.base import Bases
from chatglm.knowledge.shelf import Shelf

__all__ = ["Documents"]


class Documents:
    """What `Sessions` takes as `knowledge`.

    Args:
        shelf: stays its owner's.
        who: by whose name a user of the store may read bases; None: every user may read all.
    """

    def __init__(self, shelf: Shelf, who: Callable[[int], str] | None = None) -> None:
        self._shelf, self._who = shelf, who

    def known(self, user: int | None) -> list[tuple[str, int]]:
        """The bases that a user may read, and how many files each has.

        Args:
            user: None: somebody whom the store does not know yet.
        """
        if user is None and self._who is not None:
            return []
        who = None if user is None else self._name(user)
        return [(name, len(self._shelf.base(name, who).files())) for name in self._shelf.names(who)]

    def _name(self, user: int) -> str | None:
        return None if self._who is None else self._who(user)

    def _bases(self, names: Sequence[str], user: int) -> Bases:
        who = self._name(user)
        found = list(names) or self._shelf.names(who)
        if not found:
            raise InputError("there is no knowledge base yet; `chatglm knowledge add NAME FILES` makes one")
        return self._shelf.bases(found, who)

    async def answer(
        self,
        assistant: BaseAssistant,
        question: str,
        *,
        history: Sequence[Message],
        bases: Sequence[str],
        user: int,
        options: Options,
        language: str,
    ) -> AsyncGenerator[tuple[Source, ...] | Delta]:
        """An answer: first its passages, then text, at last `Finish`.

        Raises:
            InputError: there is no base, or not the one that is named.
        """
        found = await asyncio.to_thread(self._bases, bases, user)
        async with aclosing(
            found.aask(assistant, question, history=history, options=options, language=language)
        ) as events:
            async for event in events:
                if isinstance(event, Passages):
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
                    yield event.finish or Finish("stop", Usage(0, 0))
