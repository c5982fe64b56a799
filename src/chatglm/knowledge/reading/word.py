"""Word documents (.docx): headings (by style or outline level), automatic numbers, tables, text boxes, notes.

The format is ECMA-376, part 1, chapter 17. Text that tracked changes have deleted is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from chatglm.errors import InputError
from chatglm.knowledge.reading.archives import Archive
from chatglm.knowledge.reading.documents import Draft, Limits, Reading
from chatglm.knowledge.reading.headings import with_headings
from chatglm.knowledge.reading.xml import Element, below, local, parse

__all__ = ["read_docx"]

_HEADING = re.compile(r"(?:heading|标题|標題)\s*([1-9])$", re.IGNORECASE)
_SKIPPED = {"del", "moveFrom", "instrText", "delText", "Fallback", "rPr", "pPr", "sectPr"}


def read_docx(data: bytes, name: str, limits: Limits) -> Reading:
    """Read a Word document. Footnotes and endnotes follow at the end of the text.

    Raises:
        InputError: the file is damaged or encrypted, or is not a Word document.
    """
    draft = Draft(limits)
    with Archive(data, limits) as archive:
        main = "word/document.xml"
        if main not in archive:
            raise InputError("is not a Word document: word/document.xml is missing")
        body = next(below(parse(archive.read(main), main), "body"), None)
        if body is None:
            raise InputError("is not a Word document: it has no body")
        styles = _styles(archive)
        numbers = _Numbers.of(archive)
        _Writer(draft, styles, numbers).blocks(body)
        for part in ("word/footnotes.xml", "word/endnotes.xml"):
            if part in archive:
                _Writer(draft, styles, numbers).notes(parse(archive.read(part), part))
    reading = draft.reading("application/vnd.openxmlformats-officedocument.wordprocessingml.document")
    return with_headings(reading)


def _value(element: Element | None, name: str = "val") -> str | None:
    if element is None:
        return None
    return next((value for key, value in element.attrib.items() if key.rpartition("}")[2] == name), None)


def _child(element: Element | None, *path: str) -> Element | None:
    for name in path:
        element = next((each for each in element if local(each) == name), None) if element is not None else None
    return element


@dataclass
class _Style:
    level: int = 0
    number: tuple[str, int] | None = None
    based: str | None = None


def _styles(archive: Archive) -> dict[str, _Style]:
    if "word/styles.xml" not in archive:
        return {}
    found: dict[str, _Style] = {}
    for element in below(parse(archive.read("word/styles.xml"), "word/styles.xml"), "style"):
        identity = _value(element, "styleId") or ""
        name = _value(_child(element, "name")) or ""
        outline = _value(_child(element, "pPr", "outlineLvl"))
        level = 0
        if match := _HEADING.match(name.strip()):
            level = int(match[1])
        elif name.lower() in ("title", "标题"):
            level = 1
        elif outline is not None and outline.isdecimal() and int(outline) < 9:
            level = int(outline) + 1
        found[identity] = _Style(level, _number_of(_child(element, "pPr")), _value(_child(element, "basedOn")))
    return found


def _number_of(properties: Element | None) -> tuple[str, int] | None:
    number = _value(_child(properties, "numPr", "numId"))
    level = _value(_child(properties, "numPr", "ilvl")) or "0"
    return (number, int(level)) if number and level.isdecimal() else None


@dataclass
class _Numbers:
    """Automatic numbers of paragraphs, such as 第一条, 1.1, (a). The file contains only the rules for them. Word
    computes the numbers when it shows the document; this class computes them in the same way."""

    levels: dict[tuple[str, int], tuple[str, str, int, bool]] = field(default_factory=dict)
    """By (abstract list, level): number format, text such as 第%1条, first number, whether all numbers are Arabic."""
    lists: dict[str, str] = field(default_factory=dict)
    """The abstract list of each list, by ids."""
    counts: dict[str, list[int]] = field(default_factory=dict)
    """By abstract list: the current number on each of its nine levels."""

    @classmethod
    def of(cls, archive: Archive) -> _Numbers:
        found = cls()
        if "word/numbering.xml" not in archive:
            return found
        root = parse(archive.read("word/numbering.xml"), "word/numbering.xml")
        for element in below(root, "abstractNum"):
            abstract = _value(element, "abstractNumId") or ""
            for level in below(element, "lvl"):
                place = _value(level, "ilvl") or ""
                start = _value(_child(level, "start")) or "1"
                if place.isdecimal() and start.isdecimal():
                    found.levels[abstract, int(place)] = (
                        _value(_child(level, "numFmt")) or "decimal",
                        _value(_child(level, "lvlText")) or "",
                        int(start),
                        _child(level, "isLgl") is not None,
                    )
        for element in root:
            if local(element) == "num":
                found.lists[_value(element, "numId") or ""] = _value(_child(element, "abstractNumId")) or ""
        return found

    def next(self, number: str, level: int) -> str:
        """The number (with its text) before the next paragraph of a list; "- " for a bullet; "" if there is none.

        Args:
            number: id of the list.
            level: level in the list, from 0.
        """
        abstract = self.lists.get(number)
        if abstract is None or (abstract, level) not in self.levels or level > 8:
            return ""
        counts = self.counts.setdefault(abstract, [0] * 9)
        form, text, start, arabic = self.levels[abstract, level]
        counts[level] = counts[level] + 1 if counts[level] else start
        counts[level + 1 :] = [0] * (8 - level)
        if form in ("bullet", "none"):
            return "- " if form == "bullet" else ""

        def said(match: re.Match[str]) -> str:
            place = int(match[1]) - 1
            inner, _, first, _ = self.levels.get((abstract, place), ("decimal", "", 1, False))
            return _written(counts[place] or first, "decimal" if arabic else inner)

        return re.sub(r"%([1-9])", said, text) + " "


def _written(number: int, form: str) -> str:
    if form in (
        "chineseCounting",
        "chineseCountingThousand",
        "japaneseCounting",
        "taiwaneseCountingThousand",
        "ideographDigital",
    ):
        return _chinese(number)
    if form in ("lowerLetter", "upperLetter") and 0 < number <= 26:
        return chr((96 if form == "lowerLetter" else 64) + number)
    if form in ("lowerRoman", "upperRoman") and 0 < number < 40:
        roman = "x" * (number // 10) + ("", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix")[number % 10]
        return roman if form == "lowerRoman" else roman.upper()
    if form == "decimalEnclosedCircle" and 0 < number <= 20:
        return chr(0x245F + number)
    return str(number)


def _chinese(number: int) -> str:
    """A number in Chinese numerals: 12 gives 十二, 105 gives 一百零五. Numbers above 9,999 stay in digits."""
    if not 0 < number < 10_000:
        return str(number)
    said, gap = "", False
    for unit, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit, number = divmod(number, unit)
        if digit:
            said += ("零" if gap and said else "") + "零一二三四五六七八九"[digit] + name
            gap = False
        else:
            gap = True
    return said.removeprefix("一") if said.startswith("一十") else said


class _Writer:
    """Adds the paragraphs and tables of a document to a draft."""

    def __init__(self, draft: Draft, styles: dict[str, _Style], numbers: _Numbers) -> None:
        self._draft = draft
        self._styles = styles
        self._numbers = numbers

    def blocks(self, container: Element) -> None:
        """Add the paragraphs and tables of a body or text box."""
        for element in container:
            name = local(element)
            if name == "p":
                self._paragraph(element)
            elif name == "tbl":
                self._table(element)
            elif name in ("sdt", "sdtContent", "ins", "moveTo", "customXml", "smartTag"):
                self.blocks(element)

    def notes(self, root: Element) -> None:
        """Add footnotes or endnotes. Notes with a type are separators, not text."""
        for note in below(root, "footnote", "endnote"):
            if _value(note, "type") is None:
                self.blocks(note)

    def _paragraph(self, element: Element) -> None:
        boxes: list[Element] = []
        text = "".join(_pieces(element, boxes)).strip()
        properties = _child(element, "pPr")
        level, number = self._form(properties)
        if text:
            if number:
                text = self._numbers.next(*number) + text
            if level and len(text) <= 200:
                self._draft.heading(text, level)
            else:
                self._draft.line(text)
        for box in boxes:
            self.blocks(box)

    def _form(self, properties: Element | None) -> tuple[int, tuple[str, int] | None]:
        """The heading level of a paragraph (0: no heading), and its list (id, level; None: none). They come from the
        paragraph itself, or else from its style or the styles on which its style is based."""
        level, number = 0, _number_of(properties)
        outline = _value(_child(properties, "outlineLvl"))
        if outline is not None and outline.isdecimal() and int(outline) < 9:
            level = int(outline) + 1
        identity = _value(_child(properties, "pStyle"))
        for _ in range(10):
            style = self._styles.get(identity or "")
            if style is None:
                break
            level, number = level or style.level, number or style.number
            identity = style.based
        return level, number if number and number[0] != "0" else None

    def _table(self, table: Element) -> None:
        with self._draft.part("table", ""):
            for row in table:
                if local(row) != "tr":
                    continue
                cells = [self._cell(cell) for cell in _cells(row)]
                if any(cells):
                    self._draft.line(" | ".join(cells))

    def _cell(self, cell: Element) -> str:
        boxes: list[Element] = []
        said = (" ".join("".join(_pieces(each, boxes)).split()) for each in below(cell, "p"))
        return " ".join(filter(None, said))


def _cells(row: Element) -> Iterator[Element]:
    for element in row:
        if local(element) == "tc":
            yield element
        elif local(element) in ("sdt", "sdtContent", "customXml"):
            yield from _cells(element)


def _pieces(element: Element, boxes: list[Element]) -> Iterator[str]:
    """The parts of a paragraph's text. Text boxes that are anchored in it are appended to `boxes` instead."""
    stack = [iter(element)]
    while stack:
        each = next(stack[-1], None)
        if each is None:
            stack.pop()
            continue
        name = local(each)
        if name == "t":
            yield each.text or ""
        elif name == "tab":
            yield "\t"
        elif name in ("br", "cr"):
            yield "\n"
        elif name == "noBreakHyphen":
            yield "-"
        elif name == "txbxContent":
            boxes.append(each)
        elif name not in _SKIPPED:
            stack.append(iter(each))
