"""What comes of reading a document: its text, and what is known about stretches of it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from chatglm.errors import InputError
from chatglm.knowledge.encodings import ByteMap

__all__ = ["Draft", "Kind", "Limits", "Mark", "Reading", "page_at"]

Kind = Literal["page", "heading", "table", "code", "sheet", "slide"]


@dataclass(frozen=True)
class Limits:
    """What one document may cost. What is beyond is refused with a sentence that says so.

    Attributes:
        bytes: of the file.
        characters: of its text.
        unpacked: bytes of all members of a zip file, docx, pptx, xlsx or epub together.
        members: files in it.
        pages: of a PDF, slides, pictures of one file.
        columns: of a table.
        depth: zip files within zip files, levels of JSON.
        pixels: of one picture.
        seconds: of one document, where it is read in a process of its own.
        memory: bytes, likewise.
    """

    bytes: int = 200 << 20
    characters: int = 50_000_000
    unpacked: int = 400 << 20
    members: int = 10_000
    pages: int = 5_000
    columns: int = 2_000
    depth: int = 3
    pixels: int = 60_000_000
    seconds: float = 60.0
    memory: int = 2 << 30


@dataclass(frozen=True)
class Mark:
    """What is known about a stretch of text.

    Attributes:
        start, end: in characters.
        kind: a "heading" is the heading's own characters, everything else the stretch that is that page or table.
        value: the page's number, the heading's text, the sheet's name.
        level: of a heading, 1 is the highest.
    """

    start: int
    end: int
    kind: Kind
    value: str
    level: int = 0


def page_at(marks: Iterable[Mark], character: int) -> int | None:
    """The number of the page or slide on which a character stands; None: it is on none."""
    for mark in marks:
        if mark.kind in ("page", "slide") and mark.start <= character < mark.end and mark.value.isdecimal():
            return int(mark.value)
    return None


@dataclass(frozen=True)
class Reading:
    """A document's text.

    Attributes:
        text: changed as little as possible; line ends are `\\n`. It is what citations quote.
        marks: by their start.
        media: the media type: "text/plain".
        encoding: of a text file, by Python's name.
        bytes_of: of a text file: where its characters stand in the file, exactly; None: pages and characters are all
            that is known.
        warnings: in sentences: what could not be read, or looks wrong.
    """

    text: str
    marks: tuple[Mark, ...] = ()
    media: str = "text/plain"
    encoding: str | None = None
    bytes_of: ByteMap | None = None
    warnings: tuple[str, ...] = ()

    def page_at(self, character: int) -> int | None:
        """The number of the page or slide on which a character stands."""
        return page_at(self.marks, character)

    def marks_to_json(self) -> str:
        """For a database."""
        return json.dumps([[m.start, m.end, m.kind, m.value, m.level] for m in self.marks], ensure_ascii=False)

    @staticmethod
    def marks_from_json(text: str) -> tuple[Mark, ...]:
        """What `marks_to_json` made.

        Raises:
            InputError: it did not make this.
        """
        try:
            rows: list[Any] = json.loads(text)
            return tuple(Mark(int(a), int(b), kind, str(value), int(level)) for a, b, kind, value, level in rows)
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(f"no marks of a document: {error}") from None


class Draft:
    """A text that is put together, with its marks.

    Raises:
        InputError: from each method that adds: the text becomes longer than the limits allow.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._parts: list[str] = []
        self._marks: list[Mark] = []
        self._length = 0
        self.warnings: list[str] = []

    @property
    def length(self) -> int:
        """Characters so far."""
        return self._length

    def add(self, text: str) -> None:
        """Text, as it is."""
        if text:
            self._parts.append(text)
            self._length += len(text)
            if self._length > self._limits.characters:
                raise InputError(
                    f"has more than {self._limits.characters:,} characters, the limit for a file; split it"
                )

    def line(self, text: str) -> None:
        """Text, and the end of a line."""
        self.add(text)
        self.add("\n")

    def heading(self, text: str, level: int) -> None:
        """A heading on a line of its own."""
        value = " ".join(text.split())
        if value:
            with self.part("heading", value, level):
                self.add(value)
            self.add("\n")

    @contextlib.contextmanager
    def part(self, kind: Kind, value: str, level: int = 0) -> Iterator[None]:
        """Whatever is added meanwhile is that page, sheet, table …"""
        start, at = self._length, len(self._marks)
        yield
        if self._length > start:
            self._marks.insert(at, Mark(start, self._length, kind, value, level))

    def section(self, value: str, level: int) -> None:
        """From here on the text is under a heading that does not stand in it."""
        self._marks.append(Mark(self._length, self._length, "heading", value, level))

    def take(self, reading: Reading, below: int = 0) -> None:
        """Another document, its headings `below` levels lower."""
        begin = self._length
        self.add(reading.text)
        for mark in reading.marks:
            level = mark.level + below if mark.kind == "heading" else mark.level
            self._marks.append(replace(mark, start=mark.start + begin, end=mark.end + begin, level=level))

    def reading(self, media: str) -> Reading:
        """What has been put together."""
        return Reading("".join(self._parts), tuple(self._marks), media, warnings=tuple(self.warnings))
