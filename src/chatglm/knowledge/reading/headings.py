"""Headings of texts that do not mark them: 第三回, 第二章, 一、, （一）, 1.1."""

from __future__ import annotations

import re
from dataclasses import replace

from chatglm.knowledge.reading.documents import Mark, Reading

__all__ = ["headings_in", "with_headings"]

_LONGEST = 40
_CONTENTS = 5
_SPACE = "[ \t\u3000\xa0]"
_NUMBER = "[〇零一二三四五六七八九十百千两0-9０-９]{1,7}"
_CHAPTER = re.compile(
    rf"^(?P<before>[^\n第。！？]{{0,8}}?)第{_SPACE}?{_NUMBER}{_SPACE}?(?P<unit>[编編部卷篇章回节節条條])(?P<rest>[^\n]*)$",
    re.MULTILINE,
)
_LEVELS = {unit: level for level, units in enumerate(("编編部", "卷篇", "章回", "节節", "条條"), 1) for unit in units}
_LIST = re.compile(
    r"^[ \t\u3000]*(?:(?P<one>[一二三四五六七八九十]{1,3}、)|(?P<two>（[一二三四五六七八九十]{1,3}）)"
    r"|(?P<three>[0-9]{1,2}(?:\.[0-9]{1,2}){1,3}\.?[ \t\u3000\xa0])"
    r"|(?P<four>楔子|引子|序言|前言|附录|后记)(?=[ \t\u3000\n]))(?P<rest>[^\n]*)$",
    re.MULTILINE,
)
_SENTENCE = re.compile("[。！？；，：,;:!?]")


def headings_in(text: str) -> list[Mark]:
    """Lines that are headings by their form. Lines of sentences are none, but for the number of an article (第三条)."""
    found: list[Mark] = []
    for match in _CHAPTER.finditer(text):
        rest = match["rest"]
        level = _LEVELS[match["unit"]]
        if match["before"].strip() and not rest.startswith((" ", "\u3000", "\xa0", "\t")):
            continue  # a sentence: 见第三章的说明
        if _is_title(rest):
            found.append(_mark(text, match.start(), match.end(), level))
        elif level == 5 and rest.startswith((" ", "\u3000", "\t", "：", "【", "（")):
            found.append(_mark(text, match.start(), match.start("rest"), level))
    for match in _LIST.finditer(text):
        if _is_title(match["rest"]) and (match["rest"].strip() or match["four"]):
            level = 8 if match["four"] else 6 if match["one"] else 7 if match["two"] else 8
            if match["three"]:
                level += match["three"].strip(" \t\u3000\xa0.").count(".") - 1
            found.append(_mark(text, match.start(), match.end(), level))
    return _without_contents(text, sorted(found, key=lambda mark: mark.start))


def _without_contents(text: str, marks: list[Mark]) -> list[Mark]:
    """Headings with nothing between many of them are a table of contents; the last may be the first that is not."""
    runs: list[list[Mark]] = []
    for mark in marks:
        if runs and not text[runs[-1][-1].end : mark.start].strip():
            runs[-1].append(mark)
        else:
            runs.append([mark])
    return [mark for run in runs for mark in (run if len(run) < _CONTENTS else run[-1:])]


def with_headings(reading: Reading) -> Reading:
    """A reading with the headings of its text, if it marks none."""
    if any(mark.kind == "heading" for mark in reading.marks):
        return reading
    marks = sorted([*reading.marks, *headings_in(reading.text)], key=lambda mark: (mark.start, -mark.end))
    return replace(reading, marks=tuple(marks))


def _is_title(rest: str) -> bool:
    if len(rest) > _LONGEST or _SENTENCE.search(rest):
        return False
    return all(rest.count(opened) >= rest.count(closed) for opened, closed in ("()", "（）"))  # else a line's end


def _mark(text: str, start: int, end: int, level: int) -> Mark:
    line = text[start:end]
    start += len(line) - len(line.lstrip())
    return Mark(start, start + len(line.strip()), "heading", " ".join(line.split()), level)
