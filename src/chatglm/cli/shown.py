"""Text of models, tools, documents and files, as a terminal may get it: nothing in it controls the terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TextIO, cast

__all__ = ["plain", "plain_output", "tell"]

# C0 and C1, and what turns the direction of text round.
_STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def plain(text: str) -> str:
    """Text without what would control a terminal: of the control characters, only line breaks and tabs are left."""
    return _STEERS.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def tell(text: object, end: str = "\n") -> None:
    """Write a text to stderr: plain if stderr is a terminal, otherwise unchanged."""
    print(plain(str(text)) if sys.stderr.isatty() else text, end=end, file=sys.stderr)


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
