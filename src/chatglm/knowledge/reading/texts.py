"""Text files, read unchanged and with a byte map: plain text, Markdown, reStructuredText, source code."""

from __future__ import annotations

import re
from collections.abc import Iterable

from chatglm.errors import InputError
from chatglm.knowledge.encodings import Decoded, decode, garbage_in
from chatglm.knowledge.reading.documents import Limits, Mark, Reading
from chatglm.knowledge.reading.headings import headings_in

__all__ = ["decoded", "read_code", "read_markdown", "read_rst", "read_text", "warnings_of"]


def decoded(data: bytes, limits: Limits, encoding: str | None = None) -> Decoded:
    """Decode a text file: see `encodings.decode`.

    Args:
        encoding: the encoding that the file declares.

    Raises:
        InputError: the file is not text, or is too long.
    """
    found = decode(data, encoding)
    if len(found.text) > limits.characters:
        raise InputError(f"has {len(found.text):,} characters, and at most {limits.characters:,} are read; split it")
    return found


def warnings_of(text: str, damaged: int = 0) -> tuple[str, ...]:
    """Warnings about damaged places and about parts that look like text in a wrong encoding.

    Args:
        damaged: number of damaged places: see `Decoded`.
    """
    found = []
    if damaged:
        found.append(f"places that are damaged or in another encoding, and read as \ufffd: {damaged:,}")
    if spans := garbage_in(text):
        share = sum(end - start for start, end in spans) / len(text)
        places = ", ".join(f"{start:,}–{end:,}" for start, end in spans[:3]) + (", …" if len(spans) > 3 else "")
        percent = f"{share:.0%}" if share >= 0.01 else f"{share:.2%}"
        found.append(f"{percent} of the characters look like text in a wrong encoding (characters {places})")
    return tuple(found)


def _reading(found: Decoded, marks: Iterable[Mark], media: str) -> Reading:
    return Reading(
        found.text,
        tuple(sorted(marks, key=lambda mark: (mark.start, -mark.end))),
        media,
        found.encoding,
        found.bytes_of,
        warnings_of(found.text, found.damaged),
    )


def read_text(data: bytes, name: str, limits: Limits) -> Reading:
    """Read plain text. Headings are recognised by their form: see `headings.headings_in`.

    Raises:
        InputError: the file is not text, or is too long.
    """
    found = decoded(data, limits)
    return _reading(found, headings_in(found.text), "text/plain")


# Markdown

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_RULE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_TABLE_CELL = re.compile(r":?-+:?")


def read_markdown(data: bytes, name: str, limits: Limits) -> Reading:
    """Read Markdown. Headings, fenced code and tables are marked.

    Raises:
        InputError: the file is not text, or is too long.
    """
    found = decoded(data, limits)
    return _reading(found, _marks_of_markdown(found.text), "text/markdown")


def _may_be_title(line: str) -> bool:
    return bool(line.strip()) and "|" not in line and not line.lstrip().startswith(("#", ">", "-", "*", "+"))


def _hashes(line: str) -> tuple[int, str] | None:
    """Level and title of a heading that begins with `#`; None: the line is none. Its time is linear in its length."""
    bare = line.lstrip(" ")
    title = bare.lstrip("#")
    level = len(bare) - len(title)
    if len(line) - len(bare) > 3 or not 1 <= level <= 6 or (title and title[0] not in " \t"):
        return None
    title = title.rstrip(" \t")
    closed = title.rstrip("#")
    return level, (closed if closed[-1:] in ("", " ", "\t") else title).strip()


def _is_table_rule(line: str) -> bool:
    """Whether a line is the one below the head of a table. Its time is linear in its length."""
    if not set(line) <= set(" \t|:-"):
        return False
    cells = line.strip(" \t").removeprefix("|").removesuffix("|").split("|")
    return all(_TABLE_CELL.fullmatch(cell.strip(" \t")) for cell in cells)


def _marks_of_markdown(text: str) -> list[Mark]:
    marks: list[Mark] = []
    fence, code = "", 0  # the open fence ("": none), and where its code begins
    table: int | None = None
    before, at_before = "", 0
    at = 0
    for line in text.split("\n"):
        end = at + len(line)
        if fence:
            if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                marks.append(Mark(code, end, "code", ""))
                fence = ""
        elif opened := _FENCE.match(line):
            fence, code = opened[1], at
        elif heading := _hashes(line):
            level, title = heading
            if title:
                marks.append(Mark(at, end, "heading", title, level))
        elif table is None and "|" in before and "|" in line and _is_table_rule(line):
            table = at_before
        elif _may_be_title(before) and (rule := _RULE.match(line)):
            marks.append(Mark(at_before, end, "heading", before.strip(), 1 if rule[1][0] == "=" else 2))
        if table is not None and "|" not in line:
            marks.append(Mark(table, at - 1, "table", ""))
            table = None
        before, at_before = line, at
        at = end + 1
    if fence:
        marks.append(Mark(code, len(text), "code", ""))
    if table is not None:
        marks.append(Mark(table, len(text), "table", ""))
    return marks


# reStructuredText

_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1{1,}[ \t]*$")
_LITERAL = re.compile(r"\.\. (?:code|code-block|sourcecode|literalinclude)::|(?!\.\. ).*::$")


def read_rst(data: bytes, name: str, limits: Limits) -> Reading:
    """Read reStructuredText. Headings and literal blocks are marked. The first style of underline in the file is level
    1, the next new style is level 2, and so on.

    Raises:
        InputError: the file is not text, or is too long.
    """
    found = decoded(data, limits)
    return _reading(found, _marks_of_rst(found.text), "text/x-rst")


def _marks_of_rst(text: str) -> list[Mark]:
    marks: list[Mark] = []
    styles: list[str] = []
    lines = text.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    for n in range(1, len(lines)):
        under, title = lines[n].rstrip(), lines[n - 1].strip()
        if not title or not _ADORNMENT.match(under) or _ADORNMENT.match(title) or len(under) < len(title) // 2:
            continue
        over = n > 1 and lines[n - 2].rstrip() == under
        style = under[0] + ("=" if over else "")
        if style not in styles:
            styles.append(style)
        begin = starts[n - 2] if over else starts[n - 1]
        marks.append(Mark(begin, starts[n] + len(lines[n]), "heading", title, styles.index(style) + 1))
    n = 0
    while n < len(lines):
        line = lines[n].strip()
        indent = _indent(lines[n])
        n += 1
        if "::" not in line or not _LITERAL.match(line):
            continue
        begin, last = n, n
        while n < len(lines) and (not lines[n].strip() or _indent(lines[n]) > indent):
            n += 1
            if lines[n - 1].strip():
                last = n
        if last > begin:
            marks.append(Mark(starts[begin], starts[last] - 1, "code", ""))
    return marks


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))


# Code

_DEFINITION = re.compile(
    r"^(?P<indent>[ \t]*)(?P<line>(?:(?:export|default|public|private|protected|internal|static|final|abstract|async"
    r"|pub|pub\([a-z]+\)|unsafe|const|inline|virtual|override|open|sealed|data|local)[ \t]+){0,4}"
    r"(?:class|interface|struct|enum|trait|impl|module|namespace|def|func|fun|fn|function|sub|procedure|macro_rules!)"
    r"[ \t*]+[A-Za-z_][^\n{;]{0,120})",
    re.MULTILINE,
)


def read_code(data: bytes, name: str, limits: Limits) -> Reading:
    """Read source code. Lines that begin a class, function and so on are marked as headings; the indentation gives the
    level.

    Raises:
        InputError: the file is not text, or is too long.
    """
    found = decoded(data, limits)
    marks = []
    for match in _DEFINITION.finditer(found.text):
        value = match["line"].strip().rstrip(":")
        level = 1 + len(match["indent"].expandtabs(4)) // 4
        marks.append(Mark(match.start("line"), match.end("line"), "heading", value, min(level, 9)))
    return _reading(found, marks, "text/x-code")
