"""Summaries of texts of any length, part by part.

    map-reduce:  split the text into parts -> summarise each part, several at a time -> while the summaries do not fit
                 into one prompt, join neighbouring ones -> write the final summary, which is streamed
    refine:      summarise the first part -> summarise this summary and the second part -> … -> and the last part, which
                 is streamed

By default a part is as long as the model's context allows, but not longer than 8,000 tokens. Each answer of the model
is stored under a digest of its request (prompt, options, model). So a run that was killed continues where it was, and
after a change of the text only the changed parts are summarised again. At the end each paragraph of the summary is
compared with the parts. The parts that support it are cited, with their own text.

`Base.summarise` does this for the files of a base. `FileTexts` is a single file without a base.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol

from chatglm.assistant.base import BaseAssistant, Finish, Options, TextDelta, Usage, params_of
from chatglm.chat.messages import Message
from chatglm.database import Database
from chatglm.errors import ChatGLMError, InputError, QueueFullError, UnsupportedError
from chatglm.home import home_folder
from chatglm.knowledge import splitting
from chatglm.knowledge.answering import CitationEvent
from chatglm.knowledge.citations import Citation, Citer, sentences
from chatglm.knowledge.encodings import ByteMap
from chatglm.knowledge.grams import grams, is_word
from chatglm.knowledge.kept import TABLE, Kept
from chatglm.knowledge.packing import Passage
from chatglm.knowledge.reading import Mark, Reading
from chatglm.knowledge.store import digest_of
from chatglm.params import SamplingParams

__all__ = [
    "MAP",
    "REDUCE",
    "REFINE",
    "WHOLE",
    "FileTexts",
    "Part",
    "Progress",
    "Span",
    "Style",
    "Summary",
    "SummaryEvent",
    "SummaryRequest",
    "Texts",
    "asummarise",
    "known_summary",
    "language_of",
    "summarise",
]

Style = Literal["map-reduce", "refine"]


def _prompts(chinese: str, english: str) -> Mapping[str, str]:
    return MappingProxyType({"zh": chinese, "en": english})


WHOLE = _prompts(
    "写出下面文字的概要，分段写，只说其中有的内容：\n\n{text}",
    "Summarise the following text in paragraphs. Say only what it says:\n\n{text}",
)
"""The prompts (by language) for a text that fits into one part."""
MAP = _prompts(
    "写出下面文字的概要，只说其中有的内容：\n\n{text}",
    "Summarise the following text. Say only what it says:\n\n{text}",
)
"""The prompts for each part of a longer text."""
REDUCE = _prompts(
    "下面是一篇长文各部分的概要，依先后排列。把它们合成一篇概要，分段写，只说其中有的内容：\n\n{text}",
    "These are summaries of the parts of a long text, in order. Make one summary of them, in paragraphs. Say only what "
    "they say:\n\n{text}",
)
"""The prompts that join summaries of parts, also for the final summary."""
REFINE = _prompts(
    "下面是一篇长文前一部分的概要，和接着的文字。把它们合成一篇概要，分段写，只说其中有的内容。\n\n概要：\n{summary}\n\n接着的文字：\n{text}",
    "This is a summary of the first part of a long text, and the text that follows. Make one summary of both, in "
    "paragraphs. Say only what they say.\n\nSummary:\n{summary}\n\nWhat follows:\n{text}",
)
"""The prompts of "refine": the summary of all parts before, and the next part."""
FOCUS = _prompts("\n\n概要的重点：{focus}", "\n\nThe summary is above all to be about: {focus}")
"""This is added to the end of each prompt if the request has a focus."""

_VERSION = 1
"""Increase this number when the processing of a model's answers changes. Stored final summaries are then not used."""
_PART_TOKENS = 8_000
_PART_CHARACTERS = 3_000
"""Largest length of a part if the model's context is not known."""
_ANSWER_TOKENS = 512
"""Largest number of tokens in the summary of a part."""
_LAST_TOKENS = 1_024
"""Largest number of tokens in the final summary, if the request does not set `max_new_tokens`."""
_SPARE = 16
_LEAST_ROOM = 48
"""Smallest number of tokens for a part."""
_PIECE = 400
"""Wanted size in characters of the pieces from which parts are built."""
_SUPPORTED = 0.35
"""Smallest share of a paragraph that the cited parts together must cover."""
_LEAST_GAIN = 0.1
"""Smallest share of a paragraph that each cited part must add."""
_CITED_PARTS = 3
"""Largest number of parts that are cited for a paragraph."""
_FOCUS = 500
_TRIES = 60
"""How often a request is tried while the model's queue is full."""
_ALL = 1 << 62
_SAMPLE = 4_000
_ENDS = "。！？!?.…\n"
_NAMES = re.compile(r"\{(text|summary|focus)\}")
_PARAGRAPH = re.compile(r"\S[^\n]*(?<!\s)")


# Events and results


@dataclass(frozen=True)
class Progress:
    """The progress of a summary.

    Attributes:
        stage: "reading" (files are split into parts), "map" (parts are summarised), "collapse" (neighbouring summaries
            are joined), "refine" (parts are added to the summary), "reduce" (the final summary begins), "citing"
            (citations are searched for).
        done, total: number of finished files, parts or groups of summaries, and of all of them.
        kept: how many of `done` had answers stored by an earlier run.
    """

    stage: Literal["reading", "map", "collapse", "refine", "reduce", "citing"]
    done: int
    total: int
    kept: int = 0


@dataclass(frozen=True)
class Span:
    """A section of a file.

    Attributes:
        file: the name of the file.
        start, end: position in the file's text, in characters.
        title: the headings above its start, the highest first, with " > " between them.
        page: the page on which it starts. None: the file has no pages.
    """

    file: str
    start: int
    end: int
    title: str = ""
    page: int | None = None


@dataclass(frozen=True)
class Part:
    """A part that is summarised with one prompt: a section of a file, or several short files.

    Attributes:
        n: its number, from 1.
        spans: the sections, in order; one for each file.
    """

    n: int
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Summary:
    """The last event.

    Attributes:
        text: the whole summary.
        citations: the citations of its paragraphs. `sentence` is the position of the paragraph in `text`, and `n` is
            the number of the part.
        unsupported: (start, end) of the paragraphs that no part supports, in characters of `text`.
        parts: number of parts.
        asked: number of answers that the model gave in this run.
        kept: number of stored answers that were used.
        usage: tokens of the answers of this run.
        finish: the `Finish` of the final answer. None: it was stored.
    """

    text: str
    citations: tuple[Citation, ...]
    unsupported: tuple[tuple[int, int], ...] = ()
    parts: int = 1
    asked: int = 0
    kept: int = 0
    usage: Usage = field(default_factory=lambda: Usage(0, 0))
    finish: Finish | None = None


SummaryEvent = Progress | TextDelta | CitationEvent | Summary


# Requests


@dataclass(frozen=True)
class SummaryRequest:
    """Options of a summary.

    Attributes:
        style: "map-reduce", or "refine": one part after the other, which takes longer but keeps connections between
            parts better.
        focus: what the summary should concentrate on, at most 500 characters; "": everything.
        language: language of the prompts: "zh" or "en"; "": the language of the text.
        part: largest number of tokens in a part (of characters, if the model's server cannot count tokens). None: as
            many as the context allows, at most 8,000.
        at_once: number of parts that the model summarises at the same time, from 1 to 256.
        model: identifies the model and its settings, so that its answers can be stored and used again. "": answers
            are neither stored nor used again.
        options: options for the assistant. Answers are greedy (temperature 0) unless `params` says otherwise. Its
            `max_new_tokens` applies to the final summary.
    """

    style: Style = "map-reduce"
    focus: str = ""
    language: str = ""
    part: int | None = None
    at_once: int = 8
    model: str = ""
    options: Options | None = None

    def check(self) -> None:
        """Check the fields.

        Raises:
            InputError: a field has a wrong value; the message names the field.
            UnsupportedError: an option of the assistant is not supported here; the message names it.
        """
        if self.style not in ("map-reduce", "refine"):
            raise InputError(f"style {self.style!r:.40}: must be map-reduce or refine")
        if len(self.focus) > _FOCUS:
            raise InputError(f"focus: longer than {_FOCUS} characters")
        if self.language not in ("", "zh", "en"):
            raise InputError(f"language {self.language!r:.40}: must be zh or en")
        if self.part is not None and self.part < _LEAST_ROOM:
            raise InputError(f"part={self.part}: must be at least {_LEAST_ROOM}")
        if not 1 <= self.at_once <= 256:
            raise InputError(f"at_once={self.at_once}: must be from 1 to 256")
        for name in ("tools", "response_format", "prefill", "persona"):
            if (self.options or {}).get(name):
                raise UnsupportedError(f"{name}: not supported for summaries; leave it out")
        if params_of((self.options or {}).get("params"), None).n != 1:
            raise UnsupportedError("n: a text gets one summary; leave it out")


class Texts(Protocol):
    """The files to summarise."""

    def files(self) -> Sequence[str]:
        """The names of the files, in the order of the summary."""

    def reading(self, file: str) -> Reading:
        """The text of a file with its marks."""
        ...

    def text(self, base: str, file: str, start: int, end: int) -> str:
        """The text of a file from character `start` to before `end`."""
        ...

    def places(self, base: str, file: str) -> tuple[tuple[Mark, ...], ByteMap | None]:
        """The marks of a file, and its map from characters to bytes (None: it is not a text file)."""
        ...

    @property
    def base(self) -> str:
        """The name of the base in citations."""

    def kept(self) -> Kept:
        """The store for answers. The caller closes it."""

    def changed(self) -> float:
        """The time of the last change, in Unix seconds. Stored answers that were last used before it may be about texts
        that no longer exist, and are deleted."""


class FileTexts:
    """A single text outside of any base. The answers of the model are stored in `summaries.sqlite` in the home folder.

    Args:
        reading: the text.
        name: its name in citations.
        home: the home folder; None: that of `CHATGLM_HOME`.
    """

    base = ""

    def __init__(self, reading: Reading, name: str, *, home: Path | None = None) -> None:
        self._reading, self._name, self._home = reading, name, home

    def files(self) -> Sequence[str]:
        """The name of the text, as the only one."""
        return (self._name,)

    def reading(self, file: str) -> Reading:
        """The text, with its marks."""
        return self._reading

    def text(self, base: str, file: str, start: int, end: int) -> str:
        """The text from character `start` to before `end`."""
        return self._reading.text[start:end]

    def places(self, base: str, file: str) -> tuple[tuple[Mark, ...], ByteMap | None]:
        """The marks of the text, and its map from characters to bytes (None: it is not a text file)."""
        return self._reading.marks, self._reading.bytes_of

    def kept(self) -> Kept:
        """The store for answers. The caller closes it.

        Raises:
            OutputError: the database cannot be created or opened.
        """
        return Kept(Database(home_folder(self._home) / "summaries.sqlite", (TABLE,)), owned=True)

    def changed(self) -> float:
        """0: a changed text has other digests, so old answers need not be deleted."""
        return 0.0


def summarise(texts: Texts, assistant: BaseAssistant, request: SummaryRequest) -> Generator[SummaryEvent]:
    """`asummarise` for synchronous callers. It runs an event loop of its own.

    Raises:
        ChatGLMError: as `asummarise`.
    """
    request.check()
    loop = asyncio.new_event_loop()
    events = asummarise(texts, assistant, request)

    async def following() -> SummaryEvent | None:
        return await anext(events, None)

    try:
        while (event := loop.run_until_complete(following())) is not None:
            yield event
    finally:
        loop.run_until_complete(events.aclose())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def asummarise(texts: Texts, assistant: BaseAssistant, request: SummaryRequest) -> AsyncGenerator[SummaryEvent]:
    """Summarise texts. Yields `Progress` several times, then the summary as `TextDelta`s, its citations as
    `CitationEvent`s, and finally `Summary`.

    Closing the iterator cancels the requests to the model. If `request.model` is set, complete answers are stored, and
    the same call continues from there.

    Raises:
        InputError, UnsupportedError: an option is wrong, there is no text, or the model's context is too short.
        ChatGLMError: as the assistant's `stream`: the message also says how many parts are done.
        OutputError: the answers of the model cannot be stored.
    """
    request.check()
    kept = await asyncio.to_thread(texts.kept) if request.model else None
    try:
        async with aclosing(_Making(texts, assistant, request, kept).events()) as events:
            async for event in events:
                yield event
        if kept is not None:
            await asyncio.to_thread(kept.tidy, texts.changed())
    finally:
        if kept is not None:
            kept.close()


def known_summary(texts: Texts, request: SummaryRequest) -> Summary | None:
    """The stored result of `summarise` with the same arguments; None if nothing is stored. Asks no model.

    Raises:
        InputError, UnsupportedError: the request is wrong.
    """
    request.check()
    if not request.model:
        return None
    with closing(texts.kept()) as kept:
        found = kept.get(_digest(texts, request))
    return None if found is None else _from_json(found)


def _digest(texts: Texts, request: SummaryRequest) -> bytes:
    """The digest of everything on which a summary depends: options, prompts and texts. `request.model` represents the
    model's context and default parameters."""
    params = (request.options or {}).get("params")
    given = params.to_dict() if isinstance(params, SamplingParams) else dict(params or {})
    options = {**(request.options or {}), "client": None, "params": sorted(given.items())}
    prompts = [sorted(form.items()) for form in (WHOLE, MAP, REDUCE, REFINE, FOCUS)]
    asked = (request.style, request.focus, request.language, request.part, request.model)
    parts = (part for file in texts.files() for part in (file, "\0", digest_of(texts.text(texts.base, file, 0, _ALL))))
    return digest_of(repr((_VERSION, splitting.VERSION, asked, sorted(options.items()), prompts)), *parts)


class _Making:
    """One run of a summary."""

    def __init__(self, texts: Texts, assistant: BaseAssistant, request: SummaryRequest, kept: Kept | None) -> None:
        self._texts, self._assistant, self._request, self._kept = texts, assistant, request, kept
        self._options: Options = {**(request.options or {})}
        params = params_of(self._options.pop("params", None), replace(assistant.defaults, temperature=0.0))
        context = assistant.context
        most = _ANSWER_TOKENS if context is None else max(1, context // 8)
        self._short = replace(params, max_new_tokens=min(_ANSWER_TOKENS, most), max_length=None)  # for a part
        last = min(params.max_new_tokens or _LAST_TOKENS, 2 * most)
        self._long = replace(params, max_new_tokens=last, max_length=None)
        self._language = request.language
        self._asked = self._known = 0
        self._usage = Usage(0, 0)
        self._reached = (0, 0)
        self._text = ""
        self._finish: Finish | None = None
        self._of_parts: Sequence[str] = ()

    async def events(self) -> AsyncGenerator[SummaryEvent]:
        digest = await asyncio.to_thread(_digest, self._texts, self._request)
        if self._kept is not None and (known := await asyncio.to_thread(self._kept.get, digest)) is not None:
            summary = _from_json(known)
            yield TextDelta(summary.text)
        else:
            self._language = self._language or await asyncio.to_thread(self._spoken)
            room = await asyncio.to_thread(self._room)
            cutter = _Cutter(self._texts, self._tokens, min(room, self._request.part or room))
            for number, file in enumerate(self._texts.files()):
                yield Progress("reading", number, len(self._texts.files()))
                await asyncio.to_thread(cutter.take, file)
            parts = await asyncio.to_thread(cutter.end)
            if not parts:
                raise InputError("there is no text to summarise")
            made = self._refined(parts) if self._request.style == "refine" else self._reduced(parts)
            async with aclosing(made):
                try:
                    async for event in made:
                        yield event
                except ChatGLMError as error:
                    self._tell(error)
                    raise
            yield Progress("citing", 0, len(parts))
            summary = await asyncio.to_thread(self._cited, parts)
            if self._kept is not None:
                await asyncio.to_thread(self._kept.put, digest, _to_json(summary))
        for citation in summary.citations:
            yield CitationEvent(citation)
        yield summary

    def _spoken(self) -> str:
        """The language for the prompts: that of the first file with text."""
        for file in self._texts.files():
            if (text := self._texts.text(self._texts.base, file, 0, _SAMPLE)).strip():
                return language_of(text)
        return "zh"

    def _tell(self, error: ChatGLMError) -> None:
        """Add the number of finished parts to the message of an error."""
        done, total = self._reached
        if total > 1 and error.args:
            kept = " and kept: ask again to continue" if self._kept is not None else ""
            error.args = (f"{error}; {done:,} of {total:,} parts were summarised{kept}", *error.args[1:])

    # Budget

    def _tokens(self, text: str) -> int:
        """The number of tokens of a message. If the model's server cannot count them, each character counts as one."""
        try:
            return self._assistant.count([Message("user", text)], **self._options)
        except UnsupportedError:
            return len(text)

    def _room(self) -> int:
        """Largest number of tokens for a part, and for summaries of parts in one prompt.

        Raises:
            InputError: the model's context is too short.
        """
        context = self._assistant.context
        if context is None:
            return max(self._request.part or 0, _PART_CHARACTERS)
        last = self._long.max_new_tokens or 0
        frames = [self._tokens(self._filled(form)) for form in (MAP, REDUCE, REFINE)]
        room = context - last - max(frames) - _SPARE
        if self._request.style == "refine":
            room -= last + _SPARE
        if room < _LEAST_ROOM:
            raise InputError(
                f"the model's context of {context:,} tokens has no room for a text and its summary; use a model with a "
                "longer context"
            )
        return min(room, max(self._request.part or 0, _PART_TOKENS))

    # Asking

    def _shown(self, part: Part) -> str:
        """The text of a part for a prompt, with file names if there are several files."""
        several = len(self._texts.files()) > 1
        shown = []
        for span in part.spans:
            text = self._texts.text(self._texts.base, span.file, span.start, span.end).strip()
            shown.append(f"《{span.file}》\n{text}" if several else text)
        return "\n\n".join(shown)

    def _filled(self, form: Mapping[str, str], text: str = "", summary: str = "") -> str:
        focus, language = self._request.focus, self._language
        return _filled(form[language] + (FOCUS[language] if focus else ""), text=text, summary=summary, focus=focus)

    def _of(self, form: Mapping[str, str], part: Part, summary: str = "") -> str:
        """The prompt for a part."""
        return self._filled(form, self._shown(part), summary)

    def _joined(self, texts: Sequence[str]) -> str:
        """The prompt that joins summaries."""
        return self._filled(REDUCE, "\n\n".join(texts))

    def _key(self, prompt: str, params: SamplingParams) -> bytes:
        options = {**self._options, "client": None}
        return digest_of(repr((self._request.model, params, sorted(options.items()))), "\0", prompt)

    async def _recalled(self, key: bytes) -> str | None:
        known = None if self._kept is None else await asyncio.to_thread(self._kept.get, key)
        self._known += known is not None
        return known

    async def _keep(self, key: bytes, text: str, finish: Finish) -> None:
        self._asked += 1
        self._usage = Usage(
            self._usage.prompt_tokens + finish.usage.prompt_tokens,
            self._usage.completion_tokens + finish.usage.completion_tokens,
            self._usage.cached_tokens + finish.usage.cached_tokens,
        )
        if self._kept is not None:
            await asyncio.to_thread(self._kept.put, key, text)

    async def _said(self, make: Callable[[], str], params: SamplingParams) -> str:
        """The whole answer to a prompt, stored or from the model. If the model's queue is full, the request is tried up
        to 60 times."""
        prompt = await asyncio.to_thread(make)
        key = self._key(prompt, params)
        if (known := await self._recalled(key)) is not None:
            return known
        messages = [Message("user", prompt)]
        options: Options = {**self._options, "params": params}
        for left in reversed(range(_TRIES)):
            try:
                (answer,) = await self._assistant.aanswers(messages, **options)
                break
            except QueueFullError as error:
                if not left:
                    raise
                await _pause(error)
        text = answer.message.content.strip()
        await self._keep(key, text, answer.finish)
        return text

    async def _each(self, prompts: Iterable[Callable[[], str]]) -> AsyncGenerator[tuple[int, str]]:
        """The answers to several prompts, up to `at_once` at a time: (number of the prompt, answer) as they arrive."""
        waiting = enumerate(prompts)
        running: dict[asyncio.Task[str], int] = {}
        try:
            while True:
                while len(running) < self._request.at_once and (following := next(waiting, None)) is not None:
                    number, prompt = following
                    running[asyncio.ensure_future(self._said(prompt, self._short))] = number
                if not running:
                    return
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield running.pop(task), task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _last(self, make: Callable[[], str]) -> AsyncGenerator[SummaryEvent]:
        """Stream the answer to the final prompt; it becomes the text of the summary."""
        prompt = await asyncio.to_thread(make)
        key = self._key(prompt, self._long)
        if (known := await self._recalled(key)) is not None:
            self._text = known
            yield TextDelta(known)
            return
        options: Options = {**self._options, "params": self._long}
        for left in reversed(range(_TRIES)):
            try:
                async with aclosing(self._assistant.astream([Message("user", prompt)], **options)) as stream:
                    async for delta in stream:
                        if isinstance(delta, Finish):
                            self._finish = delta
                        elif isinstance(delta, TextDelta) and delta.text:
                            self._text += delta.text
                            yield TextDelta(delta.text)
                break
            except QueueFullError as error:
                if not left or self._text:
                    raise
                await _pause(error)
        if self._finish is not None:
            await self._keep(key, self._text, self._finish)

    # The two styles

    async def _reduced(self, parts: Sequence[Part]) -> AsyncGenerator[SummaryEvent]:
        self._reached = 0, len(parts)
        if len(parts) == 1:
            yield Progress("reduce", 0, 1)
            async with aclosing(self._last(partial(self._of, WHOLE, parts[0]))) as last:
                async for event in last:
                    yield event
            return
        summaries = [""] * len(parts)
        yield Progress("map", 0, len(parts))
        async with aclosing(self._each(partial(self._of, MAP, part) for part in parts)) as answers:
            done = 0
            async for number, text in answers:
                summaries[number], done = text, done + 1
                self._reached = done, len(parts)
                yield Progress("map", done, len(parts), self._known)
        self._of_parts = summaries
        left = [text for text in summaries if text]
        while len(groups := await asyncio.to_thread(self._groups, left)) > 1:
            before = self._known
            several = [number for number, group in enumerate(groups) if len(group) > 1]
            left = ["" if len(group) > 1 else group[0] for group in groups]
            yield Progress("collapse", 0, len(several))
            prompts = (partial(self._joined, groups[number]) for number in several)
            async with aclosing(self._each(prompts)) as answers:
                done = 0
                async for number, text in answers:
                    left[several[number]], done = text or groups[several[number]][0], done + 1
                    yield Progress("collapse", done, len(several), self._known - before)
            left = [text for text in left if text]
        yield Progress("reduce", 0, 1)
        if len(left) < 2:  # at most one part has a summary: there is nothing to join
            self._text = "".join(left)
            if left:
                yield TextDelta(self._text)
            return
        async with aclosing(self._last(partial(self._joined, groups[0]))) as last:
            async for event in last:
                yield event
        if not self._text.strip():  # the final answer is empty: use the summaries of the parts instead
            self._text = "\n".join(groups[0])
            yield TextDelta(self._text)

    def _groups(self, texts: Sequence[str]) -> list[list[str]]:
        """Group neighbouring texts so that each group fits into one prompt. The groups are about equally long."""
        room = self._room()
        short = [self._shortened(text, room // 2 - _SPARE) for text in texts]
        costs = [self._tokens(text) for text in short]

        def grouped(most: float) -> list[list[str]]:
            """A group is complete when it has `most` tokens, or when the next text does not fit."""
            groups: list[list[str]] = []
            cost = math.inf
            for text, own in zip(short, costs, strict=True):
                if cost >= most or cost + own > room:
                    groups.append([])
                    cost = 0
                groups[-1].append(text)
                cost += own
            return groups

        fewest = len(grouped(math.inf))
        return grouped(sum(costs) / fewest) if fewest > 1 else grouped(math.inf)

    def _shortened(self, text: str, room: int) -> str:
        """A text, cut to at most `room` tokens: after a sentence if possible, else after any character."""
        if self._tokens(text) <= room:
            return text
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            if self._tokens(text[:middle]) <= room:
                low = middle
            else:
                high = middle - 1
        whole = max((end for _, end in sentences(text[:low]) if text[end - 1] in _ENDS), default=0)
        return text[: whole or low]

    async def _refined(self, parts: Sequence[Part]) -> AsyncGenerator[SummaryEvent]:
        most = self._long.max_new_tokens or 0
        summary = ""
        for number, part in enumerate(parts):
            self._reached = number, len(parts)
            yield Progress("refine", number, len(parts), self._known)
            if summary:
                summary = await asyncio.to_thread(self._shortened, summary, most + _SPARE)
            prompt = partial(self._of, REFINE if summary else WHOLE, part, summary)
            if number < len(parts) - 1:
                summary = await self._said(prompt, self._long) or summary
                continue
            async with aclosing(self._last(prompt)) as last:
                async for event in last:
                    yield event
        if not self._text.strip() and summary:  # the last answer is empty: use the summary of the parts before
            self._text = summary
            yield TextDelta(self._text)

    # Citations

    def _cited(self, parts: Sequence[Part]) -> Summary:
        """The summary with the citations of each paragraph."""
        places = [found.span() for found in _PARAGRAPH.finditer(self._text)]
        own = [_counted(self._text[start:end]) for start, end in places]
        wanted = frozenset[str]().union(*own)
        found = []
        for part, said in zip(parts, self._of_parts or [""] * len(parts), strict=True):
            found.append(wanted.intersection((*grams(self._shown(part)), *grams(said))))
        frequent = Counter(gram for each in found for gram in each)
        weights = {gram: math.log(1 + len(parts) / frequent[gram]) for gram in frequent}
        sources = _Weighed(self._texts, weights)
        citations: list[Citation] = []
        unsupported = []
        for (start, end), said_here in zip(places, own, strict=True):
            taken = _covering(said_here, found, weights)
            citations += [self._citation(parts[number], said_here, (start, end), sources) for number in taken]
            if not taken:
                unsupported.append((start, end))
        return Summary(
            self._text,
            tuple(citations),
            tuple(unsupported),
            len(parts),
            self._asked,
            self._known,
            self._usage,
            self._finish,
        )

    def _citation(self, part: Part, said: frozenset[str], place: tuple[int, int], sources: _Weighed) -> Citation:
        """A citation of those sentences of a part that match a paragraph best.

        Args:
            said: the grams of the paragraph.
            place: (start, end) of the paragraph in the summary.
        """
        base = self._texts.base
        passages = []
        for span in part.spans:
            text = self._texts.text(base, span.file, span.start, span.end)
            share = sum(sources.weights.get(gram, 0.0) for gram in said.intersection(grams(text)))
            score = share if text.strip() else -1.0
            passages.append(
                Passage(part.n, base, span.file, span.start, span.end, span.title, span.page, text, score, ())
            )
        best = max(passages, key=lambda passage: passage.score)
        return Citer([best], sources, numbered=False).quote(part.n, self._text[slice(*place)], place)


class _Weighed:
    """`Sources` for citations in which the weight of a gram depends on the number of parts that have it, not of pieces
    in a base."""

    def __init__(self, texts: Texts, weights: Mapping[str, float]) -> None:
        self.weights = weights
        self.text, self.places = texts.text, texts.places

    def rarity(self, grams: Iterable[str]) -> Mapping[str, float]:
        return {gram: self.weights.get(gram, 0.0) for gram in grams}


def _counted(text: str) -> frozenset[str]:
    """The grams of a text that are compared: pairs and words, or single characters if there is nothing else."""
    found = frozenset(grams(text))
    return frozenset(gram for gram in found if len(gram) > 1 or is_word(gram)) or found


def _covering(said: frozenset[str], found: Sequence[frozenset[str]], weights: Mapping[str, float]) -> list[int]:
    """Choose up to three parts that together cover a paragraph (greedy set cover). Returns their indices, the best
    first; empty if they cover too little.

    Args:
        said: the grams of the paragraph.
        found: for each part, the grams that it has in common with the summary.
        weights: weights of grams. A gram that no part has gets the weight of one that a single part has.
    """
    heaviest = math.log(1 + len(found))
    total = sum(weights.get(gram, heaviest) for gram in said)
    left, taken, covered = set(said), list[int](), 0.0
    while total and len(taken) < _CITED_PARTS:
        gains = [sum(weights[gram] for gram in each & left) / total for each in found]
        best = max(range(len(found)), key=lambda number: (gains[number], -number))
        if gains[best] < _LEAST_GAIN:
            break
        taken.append(best)
        covered += gains[best]
        left -= found[best]
    return taken if covered >= _SUPPORTED else []


# Parts


@dataclass(frozen=True)
class _Stretch:
    """A section of a file that is never divided, and its cost in tokens."""

    span: Span
    cost: int


class _Cutter:
    """Divides files into parts: at headings if one is near, and with several short files in one part.

    Args:
        texts: the files.
        tokens: counts the tokens of a text.
        room: largest number of tokens in a part.
    """

    def __init__(self, texts: Texts, tokens: Callable[[str], int], room: int) -> None:
        self._texts, self._tokens, self._room = texts, tokens, room
        self._parts: list[Part] = []
        self._open: list[_Stretch] = []

    def take(self, file: str) -> None:
        """Add the next file."""
        reading = self._texts.reading(file)
        for piece in splitting.split(reading, size=max(20, min(_PIECE, self._room // 6))):
            if piece.text.strip():
                for start, end, cost in self._small(reading.text, piece.start, piece.end):
                    self._add(_Stretch(Span(file, start, end, piece.title, reading.page_at(start)), cost))

    def end(self) -> list[Part]:
        """End the last part. Returns all parts."""
        self._close()
        return self._parts

    def _small(self, text: str, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Halve a section until each half fits: (start, end, cost in tokens) of each."""
        cost = self._tokens(text[start:end])
        if cost <= self._room or end - start < 2:
            yield start, end, cost
            return
        middle = (start + end) // 2
        yield from self._small(text, start, middle)
        yield from self._small(text, middle, end)

    def _add(self, new: _Stretch) -> None:
        cost = sum(each.cost for each in self._open)
        last = self._open[-1].span if self._open else new.span
        elsewhere = (last.file, last.title) != (new.span.file, new.span.title)
        if self._open and (cost + new.cost > self._room or (elsewhere and cost > self._room / 2)):
            self._close()
        self._open.append(new)

    def _close(self) -> None:
        spans: list[Span] = []
        for each in self._open:
            if spans and spans[-1].file == each.span.file:
                spans[-1] = replace(spans[-1], end=each.span.end)
            else:
                spans.append(each.span)
        self._open = []
        if spans:
            self._parts.append(Part(len(self._parts) + 1, tuple(spans)))


# Helpers


def _filled(template: str, **values: str) -> str:
    """Fill a prompt template in one pass. For example, a `{text}` inside a value is left as it is."""
    return _NAMES.sub(lambda name: values[name[1]], template)


async def _pause(error: QueueFullError) -> None:
    """Wait as long as the error asks for, but from 0.05 to 30 seconds."""
    await asyncio.sleep(min(max(error.retry_after, 0.05), 30.0))


def language_of(text: str) -> str:
    """The language for prompts about a text: "en" if most of its grams are words, else "zh". Only the first 4,000
    characters are considered."""
    found = grams(text[:_SAMPLE])
    return "en" if sum(map(is_word, found)) * 2 > len(found) else "zh"


def _to_json(summary: Summary) -> str:
    return json.dumps(
        {
            "text": summary.text,
            "citations": [citation.to_dict() for citation in summary.citations],
            "unsupported": summary.unsupported,
            "parts": summary.parts,
        },
        ensure_ascii=False,
    )


def _from_json(text: str) -> Summary:
    found = json.loads(text)
    citations = (
        Citation(
            **{
                **each,
                "bytes": None if each["bytes"] is None else tuple(each["bytes"]),
                "sentence": tuple(each["sentence"]),
            }
        )
        for each in found["citations"]
    )
    unsupported = tuple((start, end) for start, end in found["unsupported"])
    return Summary(found["text"], tuple(citations), unsupported, found["parts"], kept=1)
