"""The tool `search_knowledge(question)`: search in bases, for models that call tools."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from chatglm.chat.messages import ToolSpec
from chatglm.knowledge.answering import Documents, numbered
from chatglm.knowledge.packing import Passage
from chatglm.tools.tool import Consent, Outcome

__all__ = ["SEARCH", "SEARCH_KNOWLEDGE", "SearchKnowledge"]

SEARCH = "search_knowledge"
"""The tool's name."""
SEARCH_KNOWLEDGE = ToolSpec(
    {
        "name": SEARCH,
        "description": "在用户的文档中查找与问题有关的段落",
        "parameters": {
            "type": "object",
            "properties": {"question": {"type": "string", "description": "要查找的问题，不依赖上文的一句话"}},
            "required": ["question"],
        },
    }
)
"""The definition of the tool that the model gets."""
_QUESTION = 1_000
_NOTHING = '{"error": "not found"}'


class SearchKnowledge:
    """A tool that returns numbered passages for a question, each with its file, headings and page.

    The result for people also has the position of each passage in its file.

    Args:
        bases: returns the `Bases`. It is called for every search, so that access rights are checked then.
        k: largest number of hits.
        characters: largest length of the result for the model, in characters.
    """

    spec = SEARCH_KNOWLEDGE
    consent = Consent.NEVER

    def __init__(self, bases: Callable[[], Documents], *, k: int = 5, characters: int = 1_000) -> None:
        self._bases, self._k, self._characters = bases, k, characters

    def problem(self, arguments: Mapping[str, Any]) -> str:
        """What is wrong with the arguments of a call, in a sentence for the model; "" if they are valid."""
        if unknown := arguments.keys() - {"question"}:
            return f"there is no {min(unknown)}, only question"
        question = arguments.get("question")
        if not isinstance(question, str) or not question.strip():
            return "question: must be a text that is not empty"
        return f"question: longer than {_QUESTION:,} characters" if len(question) > _QUESTION else ""

    async def run(self, arguments: Mapping[str, Any]) -> Outcome:
        """Search, and return the passages. If nothing is found, or the documents seem to have no answer, the outcome is
        a failure "not found".

        Raises:
            NotFoundError: a base no longer exists, or the user may no longer read it.
        """
        return await asyncio.to_thread(self._found, arguments["question"])

    def _found(self, question: str) -> Outcome:
        bases = self._bases()
        hits = bases.search(question, k=self._k)
        if not hits or bases.answerable(question).refused():
            return Outcome(_NOTHING, failed=True)
        passages = bases.passages(hits, self._characters, k=self._k, show=numbered)
        several = len({passage.base for passage in passages}) > 1
        places = [_place(passage, several) for passage in passages]
        return Outcome(numbered(passages), "\n".join([*places, "", numbered(passages), *hits.warnings]))


def _place(passage: Passage, several: bool) -> str:
    base = f"{passage.base}: " if several else ""
    return f"[{passage.n}] {base}{passage.file} {passage.start}–{passage.end}"
