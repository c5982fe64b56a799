"""Answers from bases on a server (`chatglm serve --knowledge`), with the same events as for local bases."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, field, replace
from typing import Any

from chatglm.assistant import Delta, Finish, Options, RemoteAssistant, TextDelta
from chatglm.assistant.base import Ask, Messages
from chatglm.assistant.wire import Question, Reading
from chatglm.errors import UnsupportedError
from chatglm.knowledge.answering import CitationEvent, Done, Event, Passages
from chatglm.knowledge.citations import Citation
from chatglm.knowledge.packing import Passage

__all__ = ["aask_remote", "ask_remote"]


def ask_remote(
    assistant: RemoteAssistant, names: Sequence[str], messages: Messages, **options: Any
) -> Generator[Event]:
    """Answer the last message from bases on the assistant's server. Yields the same events as `Bases.ask`.

    The server does not send its prompt, a rewritten question, the warnings of its search, or scores. So `Done.prompt`
    and `Passages.warnings` are empty, `Passages.question` is the question as it was asked, and the score of each
    passage is 0.

    Args:
        assistant: the server.
        names: names of bases on the server.
        messages: the dialogue; its last message is the question.
        options: options for the assistant.

    Raises:
        UnsupportedError: an option is not supported for answers from documents, or the server does not support
            `knowledge` (it is not `chatglm serve --knowledge`).
        InputError: the server refuses the request, or has no such base.
        ServiceError: the server does not answer, or its answer does not have the expected form.
    """
    asked = _asked(assistant, names, messages, options)
    with closing(assistant.endpoint.read(asked)) as deltas:
        for delta in deltas:
            yield from asked.heard.events(delta)


async def aask_remote(
    assistant: RemoteAssistant, names: Sequence[str], messages: Messages, **options: Any
) -> AsyncGenerator[Event]:
    """`ask_remote` for coroutines."""
    asked = _asked(assistant, names, messages, options)
    async with aclosing(assistant.endpoint.aread(asked)) as deltas:
        async for delta in deltas:
            for event in asked.heard.events(delta):
                yield event


def _asked(assistant: RemoteAssistant, names: Sequence[str], messages: Messages, options: dict[str, Any]) -> _Asked:
    chosen: Options = {**options}  # type: ignore[typeddict-item]
    ask = Ask.of(messages, chosen, assistant.defaults)
    for name, value in (("tools", ask.tools), ("response_format", ask.response_format)):
        if value:
            raise UnsupportedError(f"{name}: not supported for answers from documents; leave it out")
    if ask.params.logprobs is not None:
        raise UnsupportedError("logprobs: not supported for answers from documents; leave it out")
    plain = Question.of_dialogue(ask)
    heard = _Heard(assistant.endpoint.name, ask.messages[-1].content)
    return _Asked(plain.route, {**plain.body, "knowledge": list(names)}, plain.params, plain.client, heard=heard)


@dataclass
class _Heard:
    """Passages, citations and the result from the server, until they are yielded as events."""

    url: str
    question: str
    passages: tuple[Passage, ...] | None = None
    cited: list[Citation] = field(default_factory=list)
    told: int = 0
    begun: bool = False
    answered: bool = False
    unsupported: tuple[tuple[int, int], ...] = ()
    text: str = ""

    def hear(self, delta: Mapping[str, Any]) -> None:
        if self.passages is None and "passages" in delta:
            self.passages = tuple(map(_passage, delta["passages"]))
        if "answered" in delta:  # the last delta; it repeats all citations
            self.answered = bool(delta["answered"])
            self.unsupported = tuple((start, end) for start, end in delta.get("unsupported") or ())
        else:
            self.cited += map(_citation, delta.get("citations") or ())

    def events(self, delta: Delta) -> Iterator[Event]:
        """The events for a delta of the server.

        Raises:
            UnsupportedError: the server has sent no passages.
        """
        if self.passages is None:
            raise UnsupportedError(
                f"{self.url}: answers without documents; `knowledge` needs `chatglm serve --knowledge`"
            )
        if not self.begun:
            self.begun = True
            yield Passages(self.passages, self.question)
        for citation in self.cited[self.told :]:
            yield CitationEvent(citation)
        self.told = len(self.cited)
        if isinstance(delta, TextDelta):
            self.text += delta.text
            yield delta
        elif isinstance(delta, Finish):
            yield Done(self.text, self.answered, tuple(self.cited), self.unsupported, finish=replace(delta, choice=0))


@dataclass(frozen=True)
class _Asked(Question):
    heard: _Heard = field(kw_only=True)

    def reading(self, url: str) -> Reading:
        return _Reading(url, self.heard)


class _Reading(Reading):
    """Reads the server's stream. The text is not parsed further, because citations refer to its characters."""

    def __init__(self, url: str, heard: _Heard) -> None:
        super().__init__(url, 1, chat=False)
        self._heard = heard

    def _choice(self, choice: Mapping[str, Any]) -> Iterator[Delta]:
        self._heard.hear(choice.get("delta") or {})
        return super()._choice(choice)


def _passage(given: Mapping[str, Any]) -> Passage:
    return Passage(
        int(given["n"]),
        str(given["base"]),
        str(given["file"]),
        int(given["start"]),
        int(given["end"]),
        str(given["title"]),
        given["page"],
        str(given["text"]),
        0.0,
        (),
    )


def _citation(given: Mapping[str, Any]) -> Citation:
    bytes_of, (first, last) = given["bytes"], given["sentence"]
    return Citation(
        int(given["n"]),
        str(given["base"]),
        str(given["file"]),
        int(given["start"]),
        int(given["end"]),
        None if bytes_of is None else (int(bytes_of[0]), int(bytes_of[1])),
        None if given["page"] is None else int(given["page"]),
        str(given["text"]),
        (int(first), int(last)),
        bool(given.get("edited")),
    )
