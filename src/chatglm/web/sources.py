"""Sources of answers for people: numbers that open their source, sentences that nothing supports, and passages."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import quote as in_address
from urllib.parse import urlencode

from chatglm.conversation.events import Cited, Quote, Source
from chatglm.knowledge import Base
from chatglm.web.words import Words

__all__ = ["Passage", "cited_html", "cited_of", "passage_of", "source_at", "sources_of"]

_AROUND, _QUOTED = 500, 4_000
"""Characters of a passage around its quotation, and of the quotation."""
_TAG = re.compile(r"""<(?:[^<>"']|"[^"]*"|'[^']*')*>""")
_NUMBER = re.compile(r"\[(\d{1,3})\]")
_TOKEN = re.compile(r"\[\d{1,3}\]|&(?:#\w+|\w+);|.", re.DOTALL)
_LETTER = re.compile(r"[^\W_]")
_ITEM = re.compile(r"\s*(?:[-*•#>]+|\d{1,2}[.、)）])\s*")
_WITHOUT = ("code", "pre", "a", "math")
_TOOLTIP = 200


# Data that is stored with a turn


def sources_of(given: Any) -> tuple[Source, ...]:
    """
    Args:
        given: as `Source.to_dict` has them.
    """
    return tuple(Source(**_known(Source, one)) for one in given or ())


def cited_of(given: Any) -> Cited | None:
    """
    Args:
        given: as `Cited.to_dict` has it; None: the turn does not answer from documents.
    """
    if not given:
        return None
    quotes = {
        name: tuple(Quote(**{**_known(Quote, one), "sentence": tuple(one["sentence"])}) for one in given[name])
        for name in ("quotes", "closest")
    }
    unsupported = tuple((start, end) for start, end in given["unsupported"])
    return Cited(**{**_known(Cited, given), **quotes, "unsupported": unsupported})


def _known(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    return {one.name: given[one.name] for one in fields(kind) if one.name in given}


def source_at(root: str, base: str, file: str, start: int, end: int) -> str:
    """Address of a passage.

    Args:
        root: of the page: "/ui".
    """
    return f"{root}/bases/{in_address(base, safe='')}/source?{urlencode({'name': file, 'at': start, 'end': end})}"


# Passages


@dataclass(frozen=True)
class Passage:
    """A part of a file's text, with the text around it.

    Attributes:
        edited: the edited text of its piece, which is searched instead; "" if nobody has edited it.
    """

    title: str
    page: int | None
    before: str
    quoted: str
    after: str
    start: int
    end: int
    edited: str = ""


def passage_of(base: Base, file: str, start: int, end: int) -> Passage:
    """
    Raises:
        NotFoundError: the base has no such file, or none of it could be read.
    """
    end = min(end, start + _QUOTED)
    first = max(0, start - _AROUND)
    before, quoted, after = (base.text(file, *span) for span in ((first, start), (start, end), (end, end + _AROUND)))
    if first and (line := before.find("\n")) >= 0:  # from the beginning of a line, if there is one
        before = before[line + 1 :]
    at = max(0, base.store.count_pieces(file, start) - 1)
    piece = next(iter(base.store.pieces(file, at, 1)), None)
    marks, _ = base.store.places(file)
    pages = [mark for mark in marks if mark.kind in ("page", "slide") and mark.start <= start < mark.end]
    page = int(pages[-1].value) if pages and pages[-1].value.isdecimal() else None
    title, edited = ("", "") if piece is None else (piece.title, piece.text if piece.edited else "")
    return Passage(title, page, before, quoted, after, start, start + len(quoted), edited)


# Answers


def cited_html(shown: str, text: str, cited: Cited, sources: Sequence[Source], root: str, t: Words) -> str:
    """An answer's HTML with its numbers as links and its unsupported sentences marked.

    Sentences are given by their places in the text. Letters and digits are the same in its HTML, whatever Markdown made
    of the rest. So each sentence is looked for by its letters and digits, after the one before it.

    Args:
        shown: safe HTML of the text.
        root: address of the page: "/ui".
    """
    parts = _Parts(shown)
    marked: list[tuple[int, int]] = []
    quotes: list[tuple[int, Quote]] = []
    at = 0
    spans = sorted({*(quote.sentence for quote in cited.quotes), *cited.unsupported})
    for start, end in spans:
        found = parts.find(text[start:end], at)
        if found is None:
            continue
        at = found[1]
        if (start, end) in cited.unsupported:
            marked.append(found)
        quotes += [(found[1], quote) for quote in cited.quotes if quote.sentence == (start, end)]
    passages = {source.n: source for source in sources}

    def link(n: int, place: int) -> str | None:
        own = [quote for end, quote in quotes if quote.n == n and end >= place]
        quote = own[0] if own else next((quote for quote in cited.quotes if quote.n == n), None)
        target = quote or passages.get(n)
        if target is None:
            return None
        said = " ".join(target.text.split())
        said = said if len(said) <= _TOOLTIP else said[:_TOOLTIP] + "…"
        href = source_at(root, target.base, target.file, target.start, target.end)
        label = html.escape(t("cited.open", n=n))
        return (
            f'<a class="cite" data-do="source" href="{html.escape(href)}" title="{html.escape(said)}" '
            f'aria-label="{label}">{n}</a>'
        )

    return parts.html(link, marked, html.escape(t("cited.unsupported")))


_Link = Callable[[int, int], str | None]
"""Makes a link for the number of a passage that ends at a letter; None: there is no number."""


class _Parts:
    """HTML as tags and texts, and the letters and digits of its texts as one string."""

    def __init__(self, shown: str) -> None:
        self._parts: list[tuple[str, bool, int]] = []  # the part, whether it is text to look at, its first letter
        letters: list[str] = []
        depth, at, count = 0, 0, 0

        def text(part: str) -> None:
            nonlocal count
            if part:
                self._parts.append((part, depth == 0, count))
                found = _LETTER.findall(html.unescape(part))
                letters.extend(found)
                count += len(found)

        for tag in _TAG.finditer(shown):
            text(shown[at : tag.start()])
            at = tag.end()
            name = re.match(r"</?([a-z0-9]+)", tag[0])
            if name and name[1] in _WITHOUT:
                depth += -1 if tag[0].startswith("</") else 1
            self._parts.append((tag[0], False, count))
        text(shown[at:])
        self._letters = "".join(letters)

    def find(self, sentence: str, at: int) -> tuple[int, int] | None:
        """Find a sentence of the original text, from a letter on; returns its letters (start, end)."""
        for form in (sentence, _ITEM.sub("", sentence, count=1)):  # of a list, HTML has no numbers
            letters = "".join(_LETTER.findall(form))
            place = self._letters.find(letters, at) if letters else -1
            if place >= 0:
                return place, place + len(letters)
        return None

    def html(self, link: _Link, marked: Sequence[tuple[int, int]], note: str) -> str:
        """The HTML with links for numbers, and with marks around parts of it."""
        return "".join(
            "".join(self._dressed(part, first, link, marked, note)) if plain else part
            for part, plain, first in self._parts
        )

    def _dressed(
        self,
        part: str,
        first: int,
        link: Callable[[int, int], str | None],
        marked: Sequence[tuple[int, int]],
        note: str,
    ) -> Iterator[str]:
        if "[" not in part and not any(start < first + len(part) and first < end for start, end in marked):
            yield part
            return
        letter, inside = first, False
        for token in _TOKEN.finditer(part):
            count = len(_LETTER.findall(html.unescape(token[0])))
            within = any(start <= letter < end for start, end in marked)
            if within and count and not inside:
                yield f'<span class="unsupported" title="{note}">'
                inside = True
            elif inside and not within:
                yield "</span>"
                inside = False
            number = _NUMBER.fullmatch(token[0])
            made = link(int(number[1]), letter + count) if number else None
            yield token[0] if made is None else made
            letter += count
        if inside:
            yield "</span>"
