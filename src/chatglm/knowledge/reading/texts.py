"""Text files: plain text and Markdown."""

from __future__ import annotations

import re
from pathlib import PurePath

from chatglm.errors import InputError
from chatglm.knowledge.encodings import Decoded, decode, garbage_in
from chatglm.knowledge.reading.documents import Limits, Mark, Reading
from chatglm.knowledge.reading.headings import headings_in

__all__ = ["decoded", "read_markdown", "read_text", "warnings_of"]


def decoded(data: bytes, limits: Limits, encoding: str | None = None) -> Decoded:
    """A file's text, if it is not too long.

    Raises:
        InputError: it is no text, or too long.
    """
    found = decode(data, encoding)
    if len(found.text) > limits.characters:
        raise InputError(f"has {len(found.text):,} characters, and at most {limits.characters:,} are read; divide it")
    return found


def warnings_of(text: str, damaged: int = 0) -> tuple[str, ...]:
    """What looks wrong with a text."""
    found = []
    if damaged:
        found.append(f"{damaged:,} places are damaged or in another encoding; they read as \ufffd")
    if spans := garbage_in(text):
        share = sum(end - start for start, end in spans) / len(text)
        places = ", ".join(f"{start:,}–{end:,}" for start, end in spans[:3]) + (", …" if len(spans) > 3 else "")
        percent = f"{share:.0%}" if share >= 0.01 else f"{share:.2%}"
        found.append(f"{percent} of the characters look like text in a wrong encoding ({places})")
    return tuple(found)


def read_text(data: bytes, name: str, limits: Limits) -> Reading:
    """Plain text, with the headings that it seems to have."""
    found = decoded(data, limits)
    return _reading(found, headings_in(found.text), "text/plain")


_FENCE = re.compile(r"^ {0,3}(?P<fence>`{3,}|~{3,})[^\n]*\n(?:.*?\n)??(?: {0,3}(?P=fence)[`~]*[ \t]*$|\Z)", re.M | re.S)
_HASHES = re.compile(r"^ {0,3}(?P<hashes>#{1,6})(?:[ \t]+(?P<title>[^\n]*?))?(?:[ \t]+#+)?[ \t]*$", re.M)
_UNDERLINED = re.compile(r"^(?P<title>[^\n\s][^\n]*)\n(?P<line>=+|-+)[ \t]*$", re.M)
_TABLE = re.compile(r"^[^\n]*\|[^\n]*\n[ \t]*[|:-][-|: \t]*-[-|: \t]*\n(?:[^\n]*\|[^\n]*(?:\n|\Z))*", re.M)


def read_markdown(data: bytes, name: str, limits: Limits) -> Reading:
    """Markdown as it stands: headings, fenced code and tables are marked."""
    found = decoded(data, limits)
    text = found.text
    code = [Mark(match.start(), match.end(), "code", "") for match in _FENCE.finditer(text)]
    marks = [*code, *(Mark(match.start(), match.end(), "table", "") for match in _TABLE.finditer(text))]
    for expression in (_HASHES, _UNDERLINED):
        for match in expression.finditer(text):
            if any(mark.start <= match.start() < mark.end for mark in code):
                continue
            title = (match["title"] or "").strip()
            level = len(match["hashes"]) if expression is _HASHES else 1 if match["line"][0] == "=" else 2
            if title:
                marks.append(Mark(match.start(), match.end(), "heading", title, level))
    return _reading(found, marks, "text/markdown")


def _reading(found: Decoded, marks: list[Mark], media: str) -> Reading:
    return Reading(
        found.text,
        tuple(sorted(marks, key=lambda mark: (mark.start, mark.end))),
        media,
        found.encoding,
        found.bytes_of,
        warnings_of(found.text, found.damaged),
    )


def stem_of(name: str) -> str:
    """A file's name without folders and ending."""
    return PurePath(name).stem
