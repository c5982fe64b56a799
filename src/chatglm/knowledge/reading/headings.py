"""Recognise headings in plain text by their form: 第三回, 第二章, 一、, （一）, 1.1."""

from __future__ import annotations

import re
from dataclasses import replace

from chatglm.knowledge.reading.documents import Mark, Reading

__all__ = ["headings_in", "with_headings"]

_LONGEST = 40
_BLANK = r"[^\S\n]"
_NUMBER = "[〇零一二三四五六七八九十百千两0-9０-９]{1,7}"
_CHAPTER = re.compile(
    rf"^(?P<before>[^\n第。！？]{{0,8}}?)第{_BLANK}?{_NUMBER}{_BLANK}?(?P<unit>[编編部卷篇章回节節条條])(?P<rest>[^\n]*)$",
    re.MULTILINE,
)
_LEVELS = {unit: level for level, units in enumerate(("编編部", "卷篇", "章回", "节節", "条條"), 1) for unit in units}
_LIST = re.compile(
    rf"^{_BLANK}*(?:(?P<one>[一二三四五六七八九十]{{1,3}}、)|(?P<two>（[一二三四五六七八九十]{{1,3}}）)"
    rf"|(?P<three>[0-9]{{1,3}}(?:\.[0-9]{{1,3}}){{1,4}})\.?{_BLANK}"
    r"|(?P<four>楔子|引子|序言|前言|附录|后记)(?=\s))(?P<rest>[^\n]*)$",
    re.MULTILINE,
)
_LINES = re.compile(rf"{_BLANK}*\n{_BLANK}*")
_GAP = re.compile(rf"{_BLANK}*\n{_BLANK}*\n")
_ENDS_IN_GAP = re.compile(rf"\n{_BLANK}*\n\Z")
_SENTENCE = re.compile("[。！？；，,;!?]|：$|:$")
_PAIRS = (("（", "）"), ("(", ")"), ("“", "”"), ("《", "》"), ("[", "]"))


def headings_in(text: str) -> list[Mark]:
    """Find the lines that look like headings. A line with a sentence is not a heading, but the number of an article
    (第三条) in front of a sentence is. Lines of a table of contents are left out."""
    found: list[Mark] = []
    for match in _CHAPTER.finditer(text):
        rest = match["rest"]
        level = _LEVELS[match["unit"]]
        if match["before"].strip() and not rest[:1].isspace():
            continue  # part of a sentence: 见第三章的说明
        if _is_title(rest):
            found.append(_mark(text, match.start(), match.end(), level))
        elif level == 5 and rest.startswith((" ", "\xa0", "\u3000", "\t", "：", "【", "（")):
            found.append(_mark(text, match.start(), match.start("rest"), level))
    chapter = min((mark.level for mark in found), default=8)  # 序言 gets the level of the highest numbered headings
    numbers: set[tuple[int, ...]] = set()
    for match in _LIST.finditer(text):
        if not _is_title(match["rest"]) or not (match["rest"].strip() or match["four"]):
            continue
        level = chapter if match["four"] else 6 if match["one"] else 7 if match["two"] else 8
        if match["three"]:
            number = tuple(map(int, match["three"].split(".")))
            before = (*number[:-1], number[-1] - 1) if number[-1] > 1 else number[:-1]
            if len(before) > 1 and before not in numbers and not _stands_alone(text, match.start(), match.end()):
                continue  # a version, amount or address: 1.3 is a heading only after 1.2, or between empty lines
            numbers.add(number)
            level += len(number) - 2
        found.append(_mark(text, match.start(), match.end(), level))
    return _with_content(text, sorted(found, key=lambda mark: mark.start))


def _with_content(text: str, marks: list[Mark]) -> list[Mark]:
    """Remove headings that have no text below them: they are lines of a table of contents."""
    kept = [False] * len(marks)
    after = [0] * len(marks)  # index of the next heading that is not a subheading of this one
    for n in range(len(marks) - 1, -1, -1):
        end = marks[n + 1].start if n + 1 < len(marks) else len(text)
        kept[n] = bool(text[marks[n].end : end].strip())
        below = n + 1
        while below < len(marks) and marks[below].level > marks[n].level:
            kept[n] = kept[n] or kept[below]
            below = after[below]
        after[n] = below
    for n in range(1, len(marks)):
        if (
            not kept[n - 1]
            and _LINES.fullmatch(text, marks[n - 1].end, marks[n].start)
            and not _GAP.match(text, marks[n].end)
        ):
            kept[n] = False  # the last line of a table of contents
    return [mark for mark, keep in zip(marks, kept, strict=True) if keep]


def with_headings(reading: Reading) -> Reading:
    """Add the headings that are recognised in the text, if the reading has no headings yet."""
    if any(mark.kind == "heading" for mark in reading.marks):
        return reading
    marks = sorted([*reading.marks, *headings_in(reading.text)], key=lambda mark: (mark.start, -mark.end))
    return replace(reading, marks=tuple(marks))


def _is_title(rest: str) -> bool:
    return (
        len(rest) <= _LONGEST
        and not _SENTENCE.search(rest.strip())
        and all(rest.count(one) == rest.count(other) for one, other in _PAIRS)
    )


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether there are empty lines before and after a line."""
    before = text[max(start - 200, 0) : start]
    return bool(_GAP.match(text, end)) and (not before.strip() or bool(_ENDS_IN_GAP.search(before)))


def _mark(text: str, start: int, end: int, level: int) -> Mark:
    line = text[start:end]
    start += len(line) - len(line.lstrip())
    return Mark(start, start + len(line.strip()), "heading", " ".join(line.split()), level)
