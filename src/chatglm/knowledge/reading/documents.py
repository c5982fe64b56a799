"""The result of reading a document: its text, and marks for headings, pages, tables and so on."""

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
    """Limits for one document. A document beyond them is refused with an error that names the limit.

    Attributes:
        bytes: size of the file.
        characters: length of its text.
        unpacked: unpacked size of all members of a zip, docx, pptx, xlsx or epub file together, in bytes.
        members: number of files in such a file; also of parts of an e-mail and of entries in the outline of a PDF.
        pages: number of pages of a PDF, of slides, or of pictures in one file.
        columns: number of columns of a table. Further columns are left out with a warning.
        depth: number of levels of nested zip files and e-mails.
        pixels: number of pixels of one picture.
        seconds: time for one document in a worker process; with OCR, for each page.
        memory: additional memory of a worker process, in bytes.
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
    """A marked part of a text.

    Attributes:
        start, end: position in the text, in characters.
        kind: "heading": the part is the heading itself, without the text below it. The other kinds mark the whole page,
            slide, sheet, table or code block.
        value: the number of the page or slide, the text of the heading, or the name of the sheet; "" for tables and
            code.
        level: the level of a heading; 1 is the highest. 0 for other kinds.
    """

    start: int
    end: int
    kind: Kind
    value: str
    level: int = 0


def page_at(marks: Iterable[Mark], character: int) -> int | None:
    """The number of the page or slide of a character; None: it is on none.

    Args:
        character: position in the text.
    """
    for mark in marks:
        if mark.kind in ("page", "slide") and mark.start <= character < mark.end and mark.value.isdecimal():
            return int(mark.value)
    return None


@dataclass(frozen=True)
class Reading:
    """The text of a document.

    Attributes:
        text: the text, changed as little as possible; line ends are `\\n`. Citations quote it.
        marks: the marks, ordered by their start.
        media: the media type, such as "text/plain".
        encoding: Python's name of the encoding of a text file; None: it is not a text file.
        bytes_of: for a text file, the map from characters of `text` to bytes of the file. None: there is no such map;
            positions are known only in characters and pages.
        warnings: sentences about parts that could not be read or look wrong.
    """

    text: str
    marks: tuple[Mark, ...] = ()
    media: str = "text/plain"
    encoding: str | None = None
    bytes_of: ByteMap | None = None
    warnings: tuple[str, ...] = ()

    def page_at(self, character: int) -> int | None:
        """The number of the page or slide of a character; None: it is on none."""
        return page_at(self.marks, character)

    def marks_to_json(self) -> str:
        """The marks as JSON for a database: a list of [start, end, kind, value, level]."""
        return json.dumps([[m.start, m.end, m.kind, m.value, m.level] for m in self.marks], ensure_ascii=False)

    @staticmethod
    def marks_from_json(text: str) -> tuple[Mark, ...]:
        """Read the result of `marks_to_json`.

        Raises:
            InputError: the text is not such a result.
        """
        try:
            rows: list[Any] = json.loads(text)
            return tuple(Mark(int(a), int(b), kind, str(value), int(level)) for a, b, kind, value, level in rows)
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(f"no marks of a document: {error}") from None


class Draft:
    """Builds a text with its marks, step by step.

    Every method that adds text raises `InputError` if the text becomes longer than `limits.characters`.

    Attributes:
        warnings: warnings for the reading; readers append to it.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._parts: list[str] = []
        self._marks: list[Mark] = []
        self._length = 0
        self.warnings: list[str] = []

    @property
    def length(self) -> int:
        """The length of the text so far, in characters."""
        return self._length

    def add(self, text: str) -> None:
        """Add text, unchanged."""
        if text:
            self._parts.append(text)
            self._length += len(text)
            if self._length > self._limits.characters:
                raise InputError(
                    f"has more than {self._limits.characters:,} characters, the limit for a file; split it"
                )

    def line(self, text: str) -> None:
        """Add text and a line break."""
        self.add(text)
        self.add("\n")

    def heading(self, text: str, level: int) -> None:
        """Add a heading on a line of its own, with its mark. White space is normalised; an empty heading is ignored."""
        value = " ".join(text.split())
        if value:
            with self.part("heading", value, level):
                self.add(value)
            self.add("\n")

    @contextlib.contextmanager
    def part(self, kind: Kind, value: str, level: int = 0) -> Iterator[None]:
        """Mark all text that is added inside the `with` block as a page, sheet, table and so on."""
        start, at = self._length, len(self._marks)
        yield
        if self._length > start:
            self._marks.insert(at, Mark(start, self._length, kind, value, level))

    def section(self, value: str, level: int) -> None:
        """Put the following text under a heading that is not part of the text."""
        self._marks.append(Mark(self._length, self._length, "heading", value, level))

    def take(self, reading: Reading, below: int = 0) -> None:
        """Add the text and marks of another document. Its headings are moved `below` levels down."""
        begin = self._length
        self.add(reading.text)
        for mark in reading.marks:
            level = mark.level + below if mark.kind == "heading" else mark.level
            self._marks.append(replace(mark, start=mark.start + begin, end=mark.end + begin, level=level))

    def reading(self, media: str) -> Reading:
        """The finished text with marks and warnings."""
        return Reading("".join(self._parts), tuple(self._marks), media, warnings=tuple(self.warnings))
