"""Summaries of texts of any length, part by part.

    map-reduce:  the text in parts -> a summary of each, several at a time -> while these do not fit into one prompt,
                 neighbours are joined -> the last summary, which is streamed
    refine:      the first part's summary -> that with the second part -> … -> with the last, which is streamed

A part is as long as the model's context allows. What the model has said is kept under a digest of all that it was
asked (prompt, options, model), so a run that was killed goes on where it was, and a changed text costs its changed
parts only. At last each paragraph is compared with the parts: those that say it are its citations, in their own words.

`Base.summarise` does it with the files of a base; `FileTexts` is one file without a base.
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
"""For a text that the model can read at once."""
MAP = _prompts(
    "写出下面文字的概要，只说其中有的内容：\n\n{text}",
    "Summarise the following text. Say only what it says:\n\n{text}",
)
"""For each part of a longer one."""
REDUCE = _prompts(
    "下面是一篇长文各部分的概要，依先后排列。把它们合成一篇概要，分段写，只说其中有的内容：\n\n{text}",
    "These are summaries of the parts of a long text, in order. Make one summary of them, in paragraphs. Say only what "
    "they say:\n\n{text}",
)
"""For summaries of parts, as often as they do not fit into one prompt, and for the last time."""
REFINE = _prompts(
    "下面是一篇长文前一部分的概要，和接着的文字。把它们合成一篇概要，分段写，只说其中有的内容。\n\n概要：\n{summary}\n\n接着的文字：\n{text}",
    "This is a summary of the first part of a long text, and the text that follows. Make one summary of both, in "
    "paragraphs. Say only what they say.\n\nSummary:\n{summary}\n\nWhat follows:\n{text}",
)
"""For each next part, beside the summary of those before."""
FOCUS = _prompts("\n\n概要的重点：{focus}", "\n\nThe summary is above all to be about: {focus}")
"""At the end of each of them, if a focus is asked for."""

_VERSION = 1
"""Whoever changes what becomes of a model's answers adds one, and whole summaries are made anew."""
_PART_TOKENS = 8_000
_PART_CHARACTERS = 3_000
"""Of a part, where tokens cannot be counted and the context is not known."""
_ANSWER_TOKENS = 512
_LAST_TOKENS = 1_024
_SPARE = 16
_LEAST_ROOM = 48
_PIECE = 400
_SUPPORTED = 0.35
_LEAST_GAIN = 0.1
_CITED_PARTS = 3
_FOCUS = 500
_TRIES = 60
_ALL = 1 << 62
_SAMPLE = 4_000
_ENDS = "。！？!?.…\n"
_NAMES = re.compile(r"\{(text|summary|focus)\}")
_PARAGRAPH = re.compile(r"\S[^\n]*(?<!\s)")


# What comes


@dataclass(frozen=True)
class Progress:
    """The progress of a summary.

    Attributes:
        stage: "reading" (files are cut into parts), "map" (parts are summarised), "collapse" (neighbouring summaries
            are joined), "refine" (parts are added to the summary), "reduce" (the last summary begins), "citing".
        done, total: numbers of files, parts or groups of summaries.
        kept: how many of `done` were stored by an earlier run.
    """

    stage: Literal["reading", "map", "collapse", "refine", "reduce", "citing"]
    done: int
    total: int
    kept: int = 0


@dataclass(frozen=True)
class Span:
    """A stretch of a file: characters of its text, and the headings above where it begins."""

    file: str
    start: int
    end: int
    title: str = ""
    page: int | None = None


@dataclass(frozen=True)
class Part:
    """A part that is summarised with one prompt: a part of a file, or several short files.

    Attributes:
        n: from 1.
    """

    n: int
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Summary:
    """The last event.

    Attributes:
        text: the whole summary.
        citations: citations of its paragraphs: `sentence` is the paragraph's position, `n` the number of the part.
        unsupported: positions of paragraphs that no part supports (start, end).
        parts: number of parts.
        asked, kept: number of the model's answers from this run, and of stored answers.
        usage: tokens of the answers from this run.
        finish: `Finish` of the last answer; None: it was stored.
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


# What is asked


@dataclass(frozen=True)
class SummaryRequest:
    """Options of a summary.

    Attributes:
        style: "map-reduce"; "refine": part after part, which takes longer but keeps connections between parts better.
        focus: the main subject of the summary; "": everything.
        language: language of the prompts: "zh" or "en"; "": the language of the text.
        part: largest number of tokens in a part (characters, if the model's server cannot count tokens); None: as
            many as the context allows, at most 8,000.
        at_once: number of parts that the model summarises at the same time.
        model: identifies the model and its settings, so that its answers can be stored and used again. "": no answers
            are stored or used again.
        options: options of the assistant. Answers are greedy unless `params` says otherwise; its `max_new_tokens`
            applies to the last summary.
    """

    style: Style = "map-reduce"
    focus: str = ""
    language: str = ""
    part: int | None = None
    at_once: int = 8
    model: str = ""
    options: Options | None = None

    def check(self) -> None:
        """
        Raises:
            InputError, UnsupportedError: an option is wrong; names the field.
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
    """Where the text is."""

    def files(self) -> Sequence[str]:
        """Their names, in the order in which they are summarised."""

    def reading(self, file: str) -> Reading: ...

    def text(self, base: str, file: str, start: int, end: int) -> str: ...

    def places(self, base: str, file: str) -> tuple[tuple[Mark, ...], ByteMap | None]: ...

    @property
    def base(self) -> str:
        """What citations call the base."""

    def kept(self) -> Kept:
        """Where answers are kept; whoever asked closes it."""

    def changed(self) -> float:
        """When they changed last, in Unix seconds: what was said before that may be of texts that are gone."""


class FileTexts:
    """A single text that is in no base. The model's answers about it are stored in `summaries.sqlite` of the home
    folder.

    Args:
        name: its name in citations.
        home: instead of `CHATGLM_HOME`.
    """

    base = ""

    def __init__(self, reading: Reading, name: str, *, home: Path | None = None) -> None:
        self._reading, self._name, self._home = reading, name, home

    def files(self) -> Sequence[str]:
        """Its name alone."""
        return (self._name,)

    def reading(self, file: str) -> Reading:
        """The text, with its marks."""
        return self._reading

    def text(self, base: str, file: str, start: int, end: int) -> str:
        """Characters of it."""
        return self._reading.text[start:end]

    def places(self, base: str, file: str) -> tuple[tuple[Mark, ...], ByteMap | None]:
        """Its marks, and its map to bytes."""
        return self._reading.marks, self._reading.bytes_of

    def kept(self) -> Kept:
        """Where answers are kept; whoever asked closes it."""
        return Kept(Database(home_folder(self._home) / "summaries.sqlite", (TABLE,)), owned=True)

    def changed(self) -> float:
        """Long ago: another text has other digests."""
        return 0.0


def summarise(texts: Texts, assistant: BaseAssistant, request: SummaryRequest) -> Generator[SummaryEvent]:
    """`asummarise` for callers without an event loop."""
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
    """Summarise texts. Yields `Progress` several times, then the summary as `TextDelta`, its citations, and
    `Summary`.

    Closing the iterator ends the model's requests. Finished answers are stored, and the same call continues from
    there.

    Raises:
        InputError: the request is wrong, there is no text, or the model's context is too short.
        as the assistant's `stream`: the message says how much is done.
        OutputError: the model's answers cannot be stored.
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
    """The stored result of `summarise`; None: the model would have to be asked.

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
    """Of all that a whole summary depends on. The model's name stands for its context and for its defaults."""
    params = (request.options or {}).get("params")
    given = params.to_dict() if isinstance(params, SamplingParams) else dict(params or {})
    options = {**(request.options or {}), "client": None, "params": sorted(given.items())}
    prompts = [sorted(form.items()) for form in (WHOLE, MAP, REDUCE, REFINE, FOCUS)]
    asked = (request.style, request.focus, request.language, request.part, request.model)
    parts = (part for file in texts.files() for part in (file, "\0", digest_of(texts.text(texts.base, file, 0, _ALL))))
    return digest_of(repr((_VERSION, splitting.VERSION, asked, sorted(options.items()), prompts)), *parts)


class _Making:
    """One summary, on its way."""

    def __init__(self, texts: Texts, assistant: BaseAssistant, request: SummaryRequest, kept: Kept | None) -> None:
        self._texts, self._assistant, self._request, self._kept = texts, assistant, request, kept
        self._options: Options = {**(request.options or {})}
        params = params_of(self._options.pop("params", None), replace(assistant.defaults, temperature=0.0))
        context = assistant.context
        most = _ANSWER_TOKENS if context is None else max(1, context // 8)
        self._short = replace(params, max_new_tokens=min(_ANSWER_TOKENS, most), max_length=None)  # of a part
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
        """The language of the prompts: that of the first file that says something."""
        for file in self._texts.files():
            if (text := self._texts.text(self._texts.base, file, 0, _SAMPLE)).strip():
                return language_of(text)
        return "zh"

    def _tell(self, error: ChatGLMError) -> None:
        """Add to an error how much is done."""
        done, total = self._reached
        if total > 1 and error.args:
            kept = " and kept: ask again to continue" if self._kept is not None else ""
            error.args = (f"{error}; {done:,} of {total:,} parts were summarised{kept}", *error.args[1:])

    # Budget

    def _tokens(self, text: str) -> int:
        """Of a message; where only an endpoint could count them, one for each character."""
        try:
            return self._assistant.count([Message("user", text)], **self._options)
        except UnsupportedError:
            return len(text)

    def _room(self) -> int:
        """Tokens that a part may have at most, and summaries of parts together."""
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
        """A part as a prompt has it."""
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
        """The prompt for summaries of parts."""
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
        """What the model says to a prompt, whole."""
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
        """What the model says to each, as it comes, several at a time."""
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
        """What the model says, as it comes: the summary itself."""
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

    # The two ways

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
        if len(left) < 2:  # the others said nothing
            self._text = "".join(left)
            if left:
                yield TextDelta(self._text)
            return
        async with aclosing(self._last(partial(self._joined, groups[0]))) as last:
            async for event in last:
                yield event
        if not self._text.strip():  # the model said nothing; what it said of the parts is left
            self._text = "\n".join(groups[0])
            yield TextDelta(self._text)

    def _groups(self, texts: Sequence[str]) -> list[list[str]]:
        """Texts that have room in one prompt together, neighbours with neighbours, about equally much in each."""
        room = self._room()
        short = [self._shortened(text, room // 2 - _SPARE) for text in texts]
        costs = [self._tokens(text) for text in short]

        def grouped(most: float) -> list[list[str]]:
            """A group is closed when it costs `most`, or another text has no room in it."""
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
        """A text, or as many of its first sentences or characters as have room."""
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
        if not self._text.strip() and summary:  # to the last part the model said nothing
            self._text = summary
            yield TextDelta(self._text)

    # Citations

    def _cited(self, parts: Sequence[Part]) -> Summary:
        """The summary, with the parts that each of its paragraphs rests on."""
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
        """What of a part says most of a paragraph."""
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
    """Texts for citations, where a word counts the more the fewer parts have it."""

    def __init__(self, texts: Texts, weights: Mapping[str, float]) -> None:
        self.weights = weights
        self.text, self.places = texts.text, texts.places

    def rarity(self, grams: Iterable[str]) -> Mapping[str, float]:
        return {gram: self.weights.get(gram, 0.0) for gram in grams}


def _counted(text: str) -> frozenset[str]:
    """The grams that say what a text says: pairs and words, and single characters only where there is nothing else."""
    found = frozenset(grams(text))
    return frozenset(gram for gram in found if len(gram) > 1 or is_word(gram)) or found


def _covering(said: frozenset[str], found: Sequence[frozenset[str]], weights: Mapping[str, float]) -> list[int]:
    """Numbers of the parts that say a paragraph together, the one that says most first; none, if they say too little.

    What no part has weighs as much as what one has.
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
    """A piece of a file that stays whole."""

    span: Span
    cost: int


class _Cutter:
    """Cuts files into parts that have room: at headings where that is near, and short files together.

    Args:
        tokens: of a text.
        room: tokens of a part.
    """

    def __init__(self, texts: Texts, tokens: Callable[[str], int], room: int) -> None:
        self._texts, self._tokens, self._room = texts, tokens, room
        self._parts: list[Part] = []
        self._open: list[_Stretch] = []

    def take(self, file: str) -> None:
        """The next file."""
        reading = self._texts.reading(file)
        for piece in splitting.split(reading, size=max(20, min(_PIECE, self._room // 6))):
            if piece.text.strip():
                for start, end, cost in self._small(reading.text, piece.start, piece.end):
                    self._add(_Stretch(Span(file, start, end, piece.title, reading.page_at(start)), cost))

    def end(self) -> list[Part]:
        """All parts."""
        self._close()
        return self._parts

    def _small(self, text: str, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """A piece, or what is left when it is halved until it has room; and what it costs."""
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


# Small things


def _filled(template: str, **values: str) -> str:
    """A prompt. What is filled in is not looked at again, whatever stands in it."""
    return _NAMES.sub(lambda name: values[name[1]], template)


async def _pause(error: QueueFullError) -> None:
    """Until another try is worth it."""
    await asyncio.sleep(min(max(error.retry_after, 0.05), 30.0))


def language_of(text: str) -> str:
    """Of prompts about a text: "zh" or "en"."""
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
