"""Splits texts into tokens for the search: the index splits at spaces.

Chinese has no spaces between words. So each run of Chinese characters is replaced by its pairs: 知识库 becomes the
tokens 知识, 识库 and 库, and is found as a phrase of pairs. A single character is found at the beginning of a pair,
or as the end of a run. Kana and Hangul are treated in the same way. Other words are found by their beginnings,
in lower case and without accents; identifiers also by their parts. Full-width letters count as ordinary ones
(Unicode's NFKC).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

__all__ = ["TOKENS", "Snippet", "query_of", "snippet_of", "tokens_of"]

TOKENS = 2
"""Version of the tokens. If the result of `tokens_of` changes, add 1: then indexes are made again."""

_INDEXED = 100_000
_QUERY_CHARACTERS = 200
_QUERY_TERMS = 16
_WORD_CHARACTERS = 64

_WIDE = (
    "\u3005-\u3007\u3040-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Characters of scripts without spaces between words, as ranges for a regular expression."""
_RUN = re.compile(rf"[{_WIDE}]+|[^\W{_WIDE}]+")
_FOLD = re.compile(r"[^\x00-\x7f\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
_PART = re.compile(r"[A-Z]+(?![a-z])[0-9]*|[A-Z]?[a-z]+[0-9]*|[0-9]+|[^A-Za-z0-9_]+")
_ACCENTS = range(0x300, 0x370)


@lru_cache(4096)
def _folded_character(character: str) -> str:
    folded = unicodedata.normalize("NFKC", character)
    plain = "".join(each for each in unicodedata.normalize("NFD", folded) if ord(each) not in _ACCENTS)
    # In other scripts marks are part of the word. Compose again what was decomposed.
    folded = unicodedata.normalize("NFC", plain)
    return folded.casefold() if len(folded.casefold()) > len(folded) else folded


def _folded(text: str) -> str:
    """Replace special forms of letters by ordinary ones; keeps upper and lower case."""
    return _FOLD.sub(lambda found: _folded_character(found[0]), text)


def _is_wide(run: str) -> bool:
    return re.match(f"[{_WIDE}]", run) is not None


def _runs(text: str) -> Iterator[str]:
    return (found[0] for found in _RUN.finditer(_folded(text)))


def _plain(word: str) -> str:
    return word.casefold()[:_WORD_CHARACTERS]


def tokens_of(text: str) -> str:
    """The tokens of a text, separated by spaces. Only its first 100,000 characters are read."""
    found: list[str] = []
    for run in _runs(text[:_INDEXED]):
        if _is_wide(run):
            found += map("".join, pairwise(run))
            found.append(run[-1])
            continue
        whole = _plain(run)
        found.append(whole)
        found += (part for each in _PART.findall(run) if (part := _plain(each)) != whole)
    return " ".join(found)


def _terms(query: str) -> list[str]:
    runs = _runs(query[:_QUERY_CHARACTERS])
    return list(dict.fromkeys(run if _is_wide(run) else _plain(run) for run in runs if run.strip("_")))[:_QUERY_TERMS]


def query_of(query: str) -> str:
    """Convert a person's input to a query of SQLite's FTS5 for texts with all of its words; "" if it has no words.

    Only the first 200 characters and 16 words are used. The query is valid for any input.
    """
    terms = []
    for term in _terms(query):
        pairs = " ".join(map("".join, pairwise(term)))
        terms.append(f'"{pairs}"' if _is_wide(term) and pairs else f'"{term}" *')
    return " AND ".join(terms)


@dataclass(frozen=True)
class Snippet:
    """A part of a text, to show what a search found.

    Attributes:
        text: in one line, with "…" where the text goes on.
        marks: places of the words in it, (start, end) in characters, in order and without overlaps.
    """

    text: str
    marks: tuple[tuple[int, int], ...] = ()


def snippet_of(text: str, query: str, characters: int = 80) -> Snippet:
    """The part of a text around the first place where the words of a query are."""
    text = text[:_INDEXED]
    folded = _folded(text)
    if len(folded) != len(text):  # then places in the two differ, so the normalised text is shown
        text = folded
    terms = sorted(_terms(query), key=len, reverse=True)
    expressions = [re.escape(term) if _is_wide(term) else rf"(?<![^\W_{_WIDE}]){re.escape(term)}" for term in terms]
    # Parts of an identifier are found inside of a word.
    found = [re.compile("|".join(each), re.IGNORECASE) for each in (expressions, map(re.escape, terms)) if terms]
    first = next((match.start() for each in found if (match := each.search(folded))), 0)
    start = max(first - characters // 3, 0)
    end = min(start + characters, len(text))
    before, after = "…" if start else "", "…" if end < len(text) else ""
    piece = re.sub(r"\s", " ", text[start:end])
    marks: list[tuple[int, int]] = []
    for each in found:
        marks = [(match.start() + len(before), match.end() + len(before)) for match in each.finditer(folded[start:end])]
        if marks:
            break
    return Snippet(before + piece + after, tuple(marks))
