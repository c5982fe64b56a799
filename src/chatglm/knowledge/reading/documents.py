"""What comes of reading a document: its text, and what is known about stretches of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from chatglm.errors import InputError
from chatglm.knowledge.encodings import ByteMap

__all__ = ["Kind", "Limits", "Mark", "Reading"]

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
        for mark in self.marks:
            if mark.kind in ("page", "slide") and mark.start <= character < mark.end and mark.value.isdecimal():
                return int(mark.value)
        return None

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
