"""Text of models, tools, documents and files, as a terminal may get it: nothing in it controls the terminal. Tables and
figures of answers.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TextIO, cast

__all__ = ["figures", "plain", "plain_output", "print_table", "tell", "width"]

# C0 and C1, and what turns the direction of text round.
_STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def plain(text: str) -> str:
    """Text without what would control a terminal: of the control characters, only line breaks and tabs are left."""
    return _STEERS.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def tell(text: object, end: str = "\n") -> None:
    """Write a text to stderr: plain if stderr is a terminal, otherwise unchanged."""
    print(plain(str(text)) if sys.stderr.isatty() else text, end=end, file=sys.stderr)


def width(text: str) -> int:
    """Columns of a terminal that a text takes: two for a Chinese character, none for an accent on another character."""
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows below a head, in columns that are as wide as their widest cell."""
    every = [head, *rows]
    widths = [max(width(row[column]) for row in every) for column in range(len(head))]
    for row in every:
        print("  ".join(cell + " " * (most - width(cell)) for cell, most in zip(row, widths, strict=True)).rstrip())


def figures(first_seconds: float, completion: int, prompt: int, cached: int, rate: str = "") -> str:
    """The line about an answer that `--verbose` shows.

    Args:
        completion, prompt, cached: tokens of the answer, of the prompt, and of the prompt from the cache.
        rate: text before the tokens of the answer.
    """
    return (
        f"[first token {first_seconds:.2f} s, {rate}{_tokens(completion)}; prompt {_tokens(prompt)}, {cached} of them "
        "from the cache]"
    )


def _tokens(count: int) -> str:
    return f"{count} token{'' if count == 1 else 's'}"


@contextmanager
def plain_output() -> Iterator[None]:
    """Make everything plain that is written to stdout while this lasts, if stdout is a terminal."""
    if not sys.stdout.isatty():
        yield
        return
    with redirect_stdout(cast(TextIO, _Plain(sys.stdout))):
        yield


class _Plain:
    """A terminal's stream that writes plain text only."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(plain(text))
        return len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
