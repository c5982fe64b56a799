"""Citations: which sentences of the passages support each sentence of an answer, with their positions in the files.

Small models often write wrong passage numbers. So a number is kept only if that passage has enough of the sentence's
words (`WRITTEN`). A sentence without a valid number gets the passage that has most of its words, if it has enough
(`FOUND`). The cited text is always taken from the file. Each sentence is decided when it is complete, so a streamed
answer has the same citations as a whole one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from chatglm.errors import NotFoundError
from chatglm.knowledge.encodings import ByteMap
from chatglm.knowledge.grams import WIDE, grams, is_word
from chatglm.knowledge.packing import Passage
from chatglm.knowledge.reading.documents import Mark, page_at

__all__ = ["Citation", "Citer", "Sentence", "Sources", "sentences"]

WRITTEN = 0.25
"""Smallest share of a sentence that a passage must contain if the model wrote its number."""
FOUND = 0.5
"""Smallest share of a sentence without a valid number that a passage must contain to be cited."""
_LEAST = 8
"""A sentence without a valid number and with fewer characters is too short to decide."""
_MORE = 0.15
"""How much a neighbouring sentence must raise the covered share to be cited, too."""
_MOST_TOGETHER = 3
"""Largest number of sentences in one citation."""

_END = r"(?:[。！？!?；;…\n]|\.(?=\s))+"
_CLOSING = r"[”’」』）)】》〉\"']"
_NUMBER = r"(?:\[\d{1,3}\]|［\d{1,3}］|【\d{1,3}】)"
_SENTENCE = re.compile(rf"{_END}(?:{_NUMBER}|{_CLOSING}|\s)*")
_LINE = rf"\n(?=\s*\n)|(?<![{WIDE}，、])\n|\n(?![{WIDE}])"  # not between two Chinese characters: that is line wrapping
_PASSAGE_SENTENCE = re.compile(rf"(?:[。！？!?；;…]|\.(?=\s)|{_LINE})+(?:{_CLOSING}|\s)*")
_NUMBERS = re.compile(r"[\[［【](\d{1,3})[\]］】]")
_MAY_GO_ON = re.compile(r"(?:[\[［【]\d{0,3}|\.)?")
_MAY_BE_NUMBER = re.compile(r"[\[［【](?:\d{0,3}$|\d{1,3}[\]］】])")
_ITEM = re.compile(r"\s*(?:[-*•#>]+|\d{1,2}[.、)）])\s*")
_LONGEST = 20_000
"""Length, in characters, at which a longer sentence is cut."""


@dataclass(frozen=True)
class Citation:
    """A part of a file that supports a sentence of an answer.

    Attributes:
        n: the number of the passage.
        base, file: names of the base and of the file.
        start, end: position in the file's text, in characters.
        bytes: (start, end) in bytes of the original file. None: the file is not a text file, or the piece was edited.
        page: the page on which the citation starts. None: the file has no pages.
        text: the file's text from `start` to `end`; for an edited piece, the edited text.
        sentence: (start, end) of the supported sentence, in characters of the answer.
        edited: whether `text` comes from an edited piece, or from a version of the file that was replaced during the
            answer. Then `start` and `end` are those of the whole passage.
    """

    n: int
    base: str
    file: str
    start: int
    end: int
    bytes: tuple[int, int] | None
    page: int | None
    text: str
    sentence: tuple[int, int]
    edited: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; positions are lists."""
        found = vars(self).copy()
        return {**found, "bytes": list(self.bytes) if self.bytes else None, "sentence": list(self.sentence)}


@dataclass(frozen=True)
class Sentence:
    """A complete sentence of an answer.

    Attributes:
        start, end: its position in the answer, in characters.
        citations: the passages that support it.
        supported: whether a passage supports it. None: the sentence is too short to decide.
    """

    start: int
    end: int
    citations: tuple[Citation, ...]
    supported: bool | None


class Sources(Protocol):
    """Access to the texts of the files and to gram statistics. `Bases` has these methods."""

    def text(self, base: str, file: str, start: int, end: int) -> str:
        """The text of a file from character `start` to before `end`."""
        ...

    def places(self, base: str, file: str) -> tuple[tuple[Mark, ...], ByteMap | None]:
        """The marks of a file, and its map from characters to bytes (None: it is not a text file)."""
        ...

    def rarity(self, grams: Iterable[str]) -> Mapping[str, float]:
        """The inverse document frequency (idf) of each gram."""
        ...


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """The sentences of a document's text: (start, end) in characters, without surrounding white space."""
    at = 0
    for match in _PASSAGE_SENTENCE.finditer(text):
        yield from _trimmed(text, at, match.end())
        at = match.end()
    yield from _trimmed(text, at, len(text))


def _trimmed(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    plain = text[start:end]
    if stripped := plain.strip():
        first = start + len(plain) - len(plain.lstrip())
        yield first, first + len(stripped)


@dataclass
class _Source:
    """A passage, prepared for comparison with sentences of an answer.

    Attributes:
        own: the file's text at the position of the passage. The passage's text differs from it if a piece was edited.
        parts: (start, end) of the passage's sentences.
        grams: the grams of each sentence.
        all: the grams of the whole passage.
    """

    passage: Passage
    own: str
    parts: list[tuple[int, int]]
    grams: list[frozenset[str]]
    all: frozenset[str] = field(default=frozenset())


class Citer:
    """Reads a streamed answer and finds the citations of its sentences.

    Args:
        passages: the passages of the prompt.
        sources: access to the files.
        numbered: treat numbers in brackets as citations. Wrong numbers are removed from the text, and missing ones are
            inserted at the end of the sentence. False: the text is not changed.
    """

    def __init__(self, passages: Sequence[Passage], sources: Sources, *, numbered: bool = True) -> None:
        self._sources, self._numbered = sources, numbered
        self._passages = [self._source(passage) for passage in passages]
        self._by_n = {source.passage.n: source for source in self._passages}
        self._weights: dict[str, float] = {}
        self._places: dict[tuple[str, str], tuple[tuple[Mark, ...], ByteMap | None]] = {}
        self._rest = ""
        self._told = 0  # characters of `_rest` that `feed` has returned already
        self._length = 0  # length of the final answer text before `_rest`

    def _source(self, passage: Passage) -> _Source:
        try:
            own = self._sources.text(passage.base, passage.file, passage.start, passage.end)
        except NotFoundError:  # the file was removed since the search
            own = ""
        parts = list(sentences(passage.text))
        found = [frozenset(grams(passage.text[start:end])) for start, end in parts]
        return _Source(passage, own, parts, found, frozenset().union(*found))

    def feed(self, text: str) -> tuple[str, list[Sentence]]:
        """Process more text of the model. Returns the next text of the answer and the sentences that are complete now.
        The text may be shorter than the model's, because an incomplete passage number is held back."""
        self._rest += text
        said, whole = "", []
        while (end := self._whole()) is not None:
            more, sentence = self._sentence(end)
            said += more
            whole += sentence
        hold = self._hold()
        if hold > self._told:
            said += self._rest[self._told : hold]
            self._told = hold
        return said, whole

    def end(self) -> tuple[str, list[Sentence]]:
        """End the answer. Returns the rest of its text and its last sentences."""
        said, whole = "", []
        while (end := self._whole(last=True)) is not None:
            more, sentence = self._sentence(end)
            said += more
            whole += sentence
        return said, whole

    def _whole(self, last: bool = False) -> int | None:
        """The end of the first sentence in `_rest`; None if more text could still move it. With `last` no text will
        follow, so every sentence is complete; None then means that nothing is left."""
        match = _SENTENCE.search(self._rest)
        if match is not None and match.start() < _LONGEST:
            behind = self._rest[match.end() : match.end() + 5]
            may_go_on = match.end() + len(behind) == len(self._rest) and _MAY_GO_ON.fullmatch(behind)
            return None if may_go_on and not last else match.end()
        if len(self._rest) > _LONGEST + 5:
            return _LONGEST
        return len(self._rest) or None if last else None

    def _hold(self) -> int:
        """How many characters of the unfinished sentence can be shown: those before a possible end or number."""
        end = _SENTENCE.search(self._rest)
        last = len(self._rest.rstrip()) if end is None else end.start()
        if self._rest[:last].endswith("."):
            last -= 1
        if self._numbered and (number := _MAY_BE_NUMBER.search(self._rest)):
            last = min(last, number.start())
        return last

    def _sentence(self, end: int) -> tuple[str, list[Sentence]]:
        """Remove the first sentence from `_rest`. Returns the part of its text that was not shown yet, and the sentence
        with its citations."""
        raw, self._rest = self._rest[:end], self._rest[end:]
        numbers = [int(number) for number in _NUMBERS.findall(raw)] if self._numbered else []
        cited, supported = self._cited(_NUMBERS.sub("", raw), numbers)
        shown = raw
        if self._numbered:
            kept = {source.passage.n for source, _ in cited}
            shown = _NUMBERS.sub(lambda found: found[0] if int(found[1]) in kept else "", raw)
            core = shown.rstrip()
            missing = [n for n in sorted(kept) if n not in numbers]
            shown = core + "".join(f"[{n}]" for n in missing) + shown[len(core) :]
        said, self._told = shown[self._told :], 0
        begin, self._length = self._length, self._length + len(shown)
        whole = []
        for first, last in _trimmed(shown, 0, len(shown)):
            place = (begin + first, begin + last)
            citations = tuple(self._citation(source, span, place) for source, span in cited)
            whole.append(Sentence(*place, citations, supported))
        return said, whole

    # Comparing a sentence with passages

    def _cited(
        self, sentence: str, numbers: Sequence[int]
    ) -> tuple[list[tuple[_Source, tuple[int, int]]], bool | None]:
        item = _ITEM.match(sentence)
        plain = sentence[item.end() :] if item else sentence
        own = frozenset(grams(plain))
        if not own or not self._passages:
            return [], None
        if new := own - self._weights.keys():
            self._weights |= self._sources.rarity(new)
        known = [self._by_n[n] for n in dict.fromkeys(numbers) if n in self._by_n]
        taken = [source for source in known if self._share(own, source.all) >= WRITTEN]
        if not taken:
            if len(plain.strip()) < _LEAST:
                return [], None
            best = max(self._passages, key=lambda source: (self._share(own, source.all), -source.passage.n))
            if self._share(own, best.all) < FOUND:
                return [], False
            taken = [best]
        return [(source, self._span(own, source)) for source in taken], True

    def _share(self, own: frozenset[str], other: frozenset[str]) -> float:
        """The share of a sentence's grams that `other` has, weighted by rarity (idf); from 0 to 1. It is 0 if `other`
        lacks a number of the sentence.

        Single Chinese characters are ignored if there are pairs or words: they say little about the content.
        """
        counted = [gram for gram in own if len(gram) > 1 or is_word(gram)] or list(own)
        if any(gram[0].isdecimal() and is_word(gram) and gram not in other for gram in counted):
            return 0.0
        total = sum(self._weights.get(gram, 1.0) for gram in counted)
        return sum(self._weights.get(gram, 1.0) for gram in counted if gram in other) / total if total else 0.0

    def _span(self, own: frozenset[str], source: _Source) -> tuple[int, int]:
        """Up to three neighbouring sentences of a passage that match a sentence best: (start, end) in characters of the
        passage's text. A neighbour is added only if it raises the share enough (`_MORE`)."""
        shares = [self._share_of(own, found) for found in source.grams]
        best = max(range(len(shares)), key=lambda at: (shares[at], -at))
        first = last = best
        share = shares[best]
        while last - first + 1 < _MOST_TOGETHER:
            choices = [
                pair for pair in ((first - 1, last), (first, last + 1)) if pair[0] >= 0 and pair[1] < len(shares)
            ]
            grown = [
                (self._share_of(own, frozenset().union(*source.grams[low : high + 1])), low, high)
                for low, high in choices
            ]
            if not grown or max(grown)[0] < share + _MORE:
                break
            share, first, last = max(grown)
        return source.parts[first][0], source.parts[last][1]

    def _share_of(self, own: frozenset[str], other: frozenset[str]) -> float:
        return sum(self._weights.get(gram, 1.0) for gram in own & other) / (
            sum(self._weights.get(gram, 1.0) for gram in own) or 1.0
        )

    def cite(self, n: int, start: int, end: int, sentence: tuple[int, int]) -> Citation:
        """A citation of the characters `start` to `end` of the text of passage `n`.

        Args:
            sentence: (start, end) of the supported sentence in the answer.
        """
        return self._citation(self._by_n[n], (start, end), sentence)

    def quote(self, n: int, text: str, sentence: tuple[int, int]) -> Citation:
        """A citation of the sentences of passage `n` that match a text best.

        Args:
            sentence: (start, end) of the supported sentence in the answer.
        """
        own = frozenset(grams(text))
        if new := own - self._weights.keys():
            self._weights |= self._sources.rarity(new)
        return self._citation(self._by_n[n], self._span(own, self._by_n[n]), sentence)

    def _citation(self, source: _Source, span: tuple[int, int], sentence: tuple[int, int]) -> Citation:
        passage = source.passage
        text = passage.text[span[0] : span[1]]
        at = span[0] if source.own[span[0] : span[1]] == text else source.own.find(text)
        edited = at < 0
        start, end = (passage.start, passage.end) if edited else (passage.start + at, passage.start + at + len(text))
        place = (passage.base, passage.file)
        try:
            if place not in self._places:
                self._places[place] = self._sources.places(*place)
            marks, bytes_of = self._places[place]
            changed = not edited and self._sources.text(*place, start, end) != text
        except NotFoundError:  # the file was removed since the search
            (marks, bytes_of), changed = ((), None), True
        if changed:
            edited, start, end = True, passage.start, passage.end
        has_bytes = bytes_of is not None and not edited and end <= len(bytes_of)
        return Citation(
            passage.n,
            passage.base,
            passage.file,
            start,
            end,
            bytes_of.span(start, end) if has_bytes and bytes_of is not None else None,
            page_at(marks, start),
            text,
            sentence,
            edited,
        )
