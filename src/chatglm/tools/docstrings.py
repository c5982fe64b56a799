"""Reads descriptions of a function and its parameters from its docstring, in the styles of Google, reST and NumPy."""

from __future__ import annotations

import re

__all__ = ["read_docstring"]

_SECTION = re.compile(
    r"(Args|Arguments|Parameters|Params|Keyword Args|Returns?|Yields?|Raises|Examples?|Notes?|Attributes|See Also"
    r"|References|Warnings?|Todo):\s*$"
)
_PARAMETERS = ("Args", "Arguments", "Parameters", "Params", "Keyword Args")
_GOOGLE = re.compile(r"\*{0,2}(\w+) *(?:\([^()]*(?:\([^()]*\)[^()]*)*\))? *: *(.*)")
_FIELD = re.compile(r":(\w+)(?: +([^:]*?))?:(?: +(.*))?$")
_NUMPY = re.compile(r"\*{0,2}(\w+(?: *, *\w+)*) *(?::.*)?$")


def read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """The description in front of all sections, and the description of each parameter; each as one line.

    Args:
        text: the result of `inspect.getdoc`.
    """
    described: list[str] = []
    told: dict[str, list[str]] = {}
    # What the lines belong to: the description, parameters in Google's or NumPy's style, a field of reST, or nothing.
    place, inner = "described", 0
    open_names: tuple[str, ...] = ()
    lines = text.splitlines()
    for number, line in enumerate(lines):
        indent, words = len(line) - len(line.lstrip()), line.strip()
        if words and set(words) == {"-"}:
            continue
        if indent == 0 and words:
            underlined = number + 1 < len(lines) and re.fullmatch(r"-{3,}\s*", lines[number + 1]) is not None
            if (section := _SECTION.fullmatch(words)) or underlined:
                name = section[1] if section else words
                place = ("numpy" if underlined else "google") if name in _PARAMETERS else "other"
                inner, open_names = 0, ()
                continue
            if field := _FIELD.match(words):
                place, open_names = "field", ()
                if field[1] in ("param", "parameter", "arg", "argument", "key", "keyword") and field[2]:
                    open_names = (field[2].split()[-1].lstrip("*"),)
                    told[open_names[0]] = [field[3] or ""]
                continue
            if place == "google":  # sections are indented in this style, so this is text again
                place = "other"
        if place == "described":
            described.append(words)
        elif place == "google":
            inner = inner or indent
            entry = _GOOGLE.fullmatch(words) if indent == inner else None
            if entry:
                open_names = (entry[1],)
                told[entry[1]] = [entry[2]]
            elif open_names:
                told[open_names[0]].append(words)
        elif place == "numpy" and indent == 0:
            entry = _NUMPY.fullmatch(words)
            open_names = tuple(re.split(r" *, *", entry[1])) if entry else ()
            told |= {name: [] for name in open_names}
        elif place in ("numpy", "field"):
            for name in open_names:
                told[name].append(words)
    return _joined(described), {name: said for name, parts in told.items() if (said := _joined(parts))}


def _joined(parts: list[str]) -> str:
    return " ".join(" ".join(parts).split())
