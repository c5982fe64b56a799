"""Converts the output of a cell, which is foreign: text becomes safe to show, and pictures are checked PNG files."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable

from chatglm.tools.interpreter.limits import Limits
from chatglm.tools.pictures import png_problem

__all__ = ["RESULT", "Output", "clean"]

RESULT = 8 << 10
"""Most characters of one result or traceback. The shell's note about omitted characters may be added to it."""

_ESCAPES = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-Z\\^-~]")
_UNFINISHED = re.compile(r"(?:\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]{0,4096}\x1b?|[ -/]*)|\x9b[0-?]*[ -/]*)\Z")
_CONTROL = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n\r"}


class Output:
    """Collects the output of one cell.

    Attributes:
        total: bytes of all output, including output that is not kept.
        pictures: PNG files, checked.
        error: the traceback, if there was one.
    """

    def __init__(self, limits: Limits, on_output: Callable[[str], None] | None = None) -> None:
        self.total = 0
        self.pictures: list[bytes] = []
        self.error = ""
        self.failure: Exception | None = None  # an error of `on_output`
        self._limits = limits
        self._tell = on_output
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._parts: list[str] = []
        self._held = ""
        self._shown = 0  # bytes
        self._cut = False
        self._full = False

    def printed(self, data: bytes) -> None:
        """Add bytes that the cell or its child processes printed."""
        self.total += len(data)
        if not self._cut:
            self._add(self._decoder.decode(data[: 2 * self._limits.shown]))

    def result(self, text: str) -> None:
        """Add the text of a value, on separate lines."""
        self._block(text[: RESULT + 100])

    def note(self, text: str) -> None:
        """Add a note of chatglm."""
        self._block(text)

    def fail(self, text: str) -> None:
        """Set the traceback that ended the cell."""
        self.total += len(text)
        self.error = clean(text[: RESULT + 100])

    def picture(self, data: bytes, size: int) -> None:
        """Add a picture. If it is invalid, or there are too many, a note replaces it.

        Args:
            data: the PNG file; empty if it was too large to be kept.
            size: size of the file in bytes.
        """
        self.total += size
        if len(self.pictures) == self._limits.pictures:
            problem = f"only the first {self._limits.pictures} of a cell are shown"
        elif size > self._limits.picture:
            problem = f"{size:,} bytes; the limit is {self._limits.picture:,}"
        else:
            problem = png_problem(data, self._limits.side, self._limits.picture)
        if not problem:
            self.pictures.append(data)
        elif not self._full:
            self._full = len(self.pictures) == self._limits.pictures  # one note is enough
            self._block(f"[picture left out: {problem}]")

    def close(self) -> str:
        """The whole text, cut to `Limits.shown`."""
        if not self._cut:
            self._add(self._decoder.decode(b"", final=True))
            self._push(clean(self._held))
        text = "".join(self._parts)
        if "\r" in text:  # progress bars: text that was overwritten is removed
            text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
        if self._cut:
            text += f"\n[output cut: {self.total} bytes, of which the first {self._limits.shown} are shown]\n"
        return text

    def _block(self, text: str) -> None:
        if self._cut:
            self.total += len(text)
            return
        last = self._held[-1:] or next((part[-1] for part in reversed(self._parts) if part), "\n")
        self.total += len(text)
        self._add(("" if last == "\n" else "\n") + text + ("" if text.endswith("\n") else "\n"))

    def _add(self, text: str) -> None:
        text = self._held + text
        unfinished = _UNFINISHED.search(text, max(0, len(text) - 4200))
        self._held = text[unfinished.start() :] if unfinished else ""
        self._push(clean(text[: unfinished.start()] if unfinished else text))

    def _push(self, text: str) -> None:
        if not text or self._cut:
            return
        data = text.encode("utf-8")
        if self._shown + len(data) > self._limits.shown:
            self._cut = True
            text = data[: self._limits.shown - self._shown].decode("utf-8", "ignore")
        self._shown += len(data)
        self._parts.append(text)
        if self._tell is not None and text:
            try:
                self._tell(text)
            except Exception as error:
                self.failure, self._tell = error, None


def clean(text: str) -> str:
    """Remove escape sequences of terminals and control characters, and replace lone surrogates."""
    text = _ESCAPES.sub("", text).translate(_CONTROL)
    return text.encode("utf-8", "replace").decode("utf-8")
