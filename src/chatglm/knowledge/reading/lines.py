"""Turn positioned lines of a page into text: sort them in reading order, and join the lines of a paragraph."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

__all__ = ["Line", "are_spaced", "in_columns", "in_rows", "joined", "repeated", "text_of"]

_WIDE = "\u3000-\u303f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uff00-\uffef"
_ITEM = re.compile(
    r"[•·●○■□▪–—*◆★※☆►▶◇]|[-–]\s|\(?[0-9]{1,3}[.)）、]|[（(][一二三四五六七八九十0-9]{1,3}[)）]"
    r"|[一二三四五六七八九十]{1,3}、|第[一二三四五六七八九十百0-9]{1,5}[章节条回部篇]|[#$>]\s"
)
_TOUCHING = re.compile(r"[\u4e00-\u9fff](?=[A-Za-z0-9])|[A-Za-z0-9](?=[\u4e00-\u9fff])")
_SPACED = re.compile(r"[\u4e00-\u9fff] (?=[A-Za-z0-9])|[A-Za-z0-9] (?=[\u4e00-\u9fff])")
_ENDS = re.compile(r"[。！？!?：:；;…][”’」』）)\]】》\"']*$")


@dataclass
class Line:
    """A line of text on a page. Coordinates may have any unit; all lines must have the same one.

    Attributes:
        text: the text of the line.
        x0, x1: its left and right end.
        top, bottom: its upper and lower edge. The axis points downwards, so `top < bottom`.
        row: whether it is a row of a table.
    """

    text: str
    x0: float
    x1: float
    top: float
    bottom: float
    row: bool = False

    @property
    def height(self) -> float:
        """The height of the line, at least 0.1."""
        return max(self.bottom - self.top, 0.1)


def joined(lines: Sequence[Line]) -> list[list[Line]]:
    """Group lines into paragraphs. The lines must be in reading order."""
    found: list[list[Line]] = []
    for n, line in enumerate(lines):
        if n and _goes_on(lines[n - 1], line, _right_margin(lines, n - 1)):
            found[-1].append(line)
        else:
            found.append([line])
    return found


def are_spaced(texts: Iterable[str]) -> bool:
    """Whether these texts mostly have a space between Chinese characters and Latin letters or digits."""
    touching = spaced = 0
    for text in texts:
        touching += len(_TOUCHING.findall(text))
        spaced += len(_SPACED.findall(text))
    return spaced > touching


def text_of(paragraph: Sequence[Line], spaced: bool = False) -> str:
    """Join the lines of a paragraph into one text.

    A space is inserted between two lines, but not beside a Chinese character. A hyphen at the end of a line is removed
    if the word continues in lower case.

    Args:
        spaced: also insert a space between a Chinese character and a Latin letter or digit.
    """
    said = paragraph[0].text.strip()
    for line in paragraph[1:]:
        more = line.text.strip()
        if not said or not more:
            said += more
            continue
        before, after = said[-1], more[0]
        wide = bool(re.match(f"[{_WIDE}]", before)), bool(re.match(f"[{_WIDE}]", after))
        if all(wide) or (any(wide) and not (spaced and before.isalnum() and after.isalnum())):
            said += more
        elif not any(wide) and after.islower() and re.search(r"[A-Za-z]-$", said):
            said = said[:-1] + more
        else:
            said += f" {more}"
    return said


def _right_margin(lines: Sequence[Line], n: int) -> float:
    """The rightmost end of the lines near this one that are in the same column."""
    line = lines[n]
    near = lines[max(n - 30, 0) : n + 30]
    return max(
        each.x1 for each in near if each.x0 < line.x1 and each.x1 > line.x0 and abs(each.x0 - line.x0) < 6 * line.height
    )


def _goes_on(line: Line, after: Line, margin: float) -> bool:
    height = min(line.height, after.height)
    return (
        line.x1 > margin - 2.2 * height
        and line.x0 - 4 * height < after.x0 < line.x0 + height
        and not line.row
        and not after.row
        and -0.5 * height < after.top - line.bottom < 1.1 * height
        and max(line.height, after.height) < 1.5 * height
        and not _ENDS.search(line.text.rstrip())
        and not _ITEM.match(after.text.lstrip())
    )


def in_columns(lines: Sequence[Line], width: float) -> list[Line]:
    """Sort lines in reading order. If the page has two columns, the left one comes before the right one; lines across
    the full width divide the page into sections.

    Args:
        lines: the lines. Text in different columns must be in different lines, even at the same height.
        width: the width of the page.
    """
    rows = sorted(lines, key=lambda line: (round(line.top / max(line.height, 1) * 2), line.x0))
    gutter = _gutter(lines, width)
    if gutter is None:
        return _by_rows(lines)
    found: list[Line] = []
    left: list[Line] = []
    right: list[Line] = []
    for line in sorted(rows, key=lambda line: line.top):
        if line.x1 <= gutter:
            left.append(line)
        elif line.x0 >= gutter:
            right.append(line)
        else:
            found += [*_by_rows(left), *_by_rows(right), line]
            left, right = [], []
    return [*found, *_by_rows(left), *_by_rows(right)]


def _by_rows(lines: Sequence[Line]) -> list[Line]:
    """Sort lines from top to bottom, and lines at the same height from left to right."""
    found: list[Line] = []
    row: list[Line] = []
    for line in sorted(lines, key=lambda line: line.top):
        if row and line.top > row[0].top + 0.6 * row[0].height:
            found += sorted(row, key=lambda each: each.x0)
            row = []
        row.append(line)
    return found + sorted(row, key=lambda each: each.x0)


def _gutter(lines: Sequence[Line], width: float) -> float | None:
    """The position of the gap between two columns; None: the page does not have two columns."""
    if len(lines) < 6:
        return None
    height = median(line.height for line in lines)
    best: tuple[float, float] | None = None
    for step in range(30, 71):
        at = width * step / 100
        left = [line for line in lines if line.x1 <= at]
        right = [line for line in lines if line.x0 >= at]
        across = len(lines) - len(left) - len(right)
        if min(len(left), len(right)) < 3 or across > 0.3 * len(lines):
            continue
        if not _overlap(left, right) or min(_reach(left, height), _reach(right, height)) < 0.15 * width:
            continue
        score = across + abs(step - 50) / 100
        if best is None or score < best[0]:
            best = score, at
    return best[1] if best else None


def _reach(lines: Sequence[Line], height: float) -> float:
    """The median width of lines. Columns of text are wide; columns of numbers in a table are not."""
    return median(line.x1 - line.x0 for line in lines)


def _overlap(left: Sequence[Line], right: Sequence[Line]) -> bool:
    """Whether the vertical ranges of two columns overlap by more than 30 % of the page's text."""
    top = max(min(line.top for line in left), min(line.top for line in right))
    bottom = min(max(line.bottom for line in left), max(line.bottom for line in right))
    whole = max(line.bottom for line in [*left, *right]) - min(line.top for line in [*left, *right])
    return bottom - top > 0.3 * whole


def in_rows(lines: Sequence[Line]) -> list[Line]:
    """Join consecutive lines at the same height, which are cells of a table, into one line: `a | b | c`."""
    found: list[Line] = []
    for line in lines:
        last = found[-1] if found else None
        if last and abs(last.bottom - line.bottom) < 0.4 * min(last.height, line.height) and line.x0 >= last.x1:
            text = f"{last.text.strip()} | {line.text.strip()}"
            found[-1] = Line(text, last.x0, line.x1, min(last.top, line.top), max(last.bottom, line.bottom), row=True)
        else:
            found.append(line)
    return found


def repeated(pages: Sequence[Sequence[Line]]) -> Iterator[set[int]]:
    """For each page, the indices of lines that are headers or footers: they recur at the top or bottom of many pages
    (running titles, page numbers)."""
    edges = [[*range(min(2, len(page))), *range(max(len(page) - 2, 2), len(page))] for page in pages]
    forms = [
        {place: _forms(page[place], number) for place in places}
        for number, (page, places) in enumerate(zip(pages, edges, strict=True))
    ]
    counts = Counter(form for page in forms for form in set().union(*page.values()))
    least = max(4, len(pages) // 3)
    for page in forms:
        yield {place for place, own in page.items() if max(counts[form] for form in own) >= least}


def _forms(line: Line, page: int) -> set[str]:
    """Forms of a line for comparison between pages: the line as it is, and the line with its first or last number
    replaced by its difference to the number of the page, so that page numbers are equal on all pages. Each form
    includes the vertical position of the line."""
    text = f"{' '.join(line.text.split())} {round(line.top / 8)}"
    numbers = [] if _ITEM.match(line.text) else list(re.finditer(r"(?<![0-9])[0-9]{1,5}(?![0-9])", line.text))
    found = {text}
    for number in (numbers[:1], numbers[-1:]):
        for match in number:
            rest = f"{line.text[: match.start()]}#{int(match[0]) - page}#{line.text[match.end() :]}"
            found.add(f"{' '.join(rest.split())} {round(line.top / 8)}")
    return found
