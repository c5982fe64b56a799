"""Pictures on a terminal, by `textual-image`: as sixels or by kitty's protocol where it can, else in half cells.

When the package is imported, it asks the terminal what it can do, reads the answer from the keyboard's input, and takes
keys that people press meanwhile as a part of it. So it is imported as if there were no terminal. This module asks the
terminal itself, in one question, and keeps the keys.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["Abilities", "Pictures", "ask"]

_WIDEST, _HIGHEST = 100, 30
"""Most cells of a picture."""
_LEFT = 4
"""Lines of the terminal that a picture leaves free for other text."""
_CELL = (10, 20)
"""Pixels of a cell if the terminal does not say: those of the VT340."""
_PATIENCE = 1.0
"""Seconds to wait for the answer of a terminal; all terminals in use answer in this time, also over slow lines."""
# How large a cell is (XTWINOPS 16), then what it can do (DA1): the second one is answered by all, and comes last.
_QUESTION = b"\x1b[16t\x1b[c"
_SIZE, _ABLE = re.compile(rb"\x1b\[6;(\d{1,4});(\d{1,4})t"), re.compile(rb"\x1b\[\?([\d;]*)c")
_SIXEL = b"4"
_KITTY = ("xterm-kitty", "xterm-ghostty")
"""Terminals that place pictures by characters of a line (kitty's Unicode placeholders), by their TERM."""


@dataclass(frozen=True)
class Abilities:
    """What a terminal can do.

    Attributes:
        sixel: whether it shows sixels.
        cell: width and height of a cell, in pixels.
    """

    sixel: bool = False
    cell: tuple[int, int] = _CELL


def ask(descriptor: int, question: Callable[[bytes], object]) -> tuple[Abilities, bytes]:
    """Ask a terminal what it can do; also returns what somebody has typed meanwhile.

    Args:
        descriptor: where it is read from.
        question: writes to it.
    """
    try:
        import termios

        before = termios.tcgetattr(descriptor)
    except (ImportError, OSError, ValueError):
        return Abilities(), b""
    raw = [*before[:6], [*before[6]]]
    raw[3] &= ~(termios.ICANON | termios.ECHO)
    raw[6][termios.VMIN], raw[6][termios.VTIME] = 0, 0
    heard = b""
    try:
        termios.tcsetattr(descriptor, termios.TCSANOW, raw)
        question(_QUESTION)
        end = time.monotonic() + _PATIENCE
        while not _ABLE.search(heard) and (left := end - time.monotonic()) > 0:
            if select.select([descriptor], [], [], left)[0]:
                heard += os.read(descriptor, 4096)
    except OSError:
        pass
    finally:
        with contextlib.suppress(OSError):
            termios.tcsetattr(descriptor, termios.TCSANOW, before)
    able, size = _ABLE.search(heard), _SIZE.search(heard)
    cell = (int(size[2]), int(size[1])) if size and int(size[1]) and int(size[2]) else _cell_of(descriptor)
    found = Abilities(able is not None and _SIXEL in able[1].split(b";"), cell)
    return found, _ABLE.sub(b"", _SIZE.sub(b"", heard))


def _cell_of(descriptor: int) -> tuple[int, int]:
    """Pixels of a cell, as the system knows them of a terminal that does not say (`struct winsize` of tty_ioctl(4))."""
    import fcntl
    import termios

    with contextlib.suppress(OSError):
        rows, columns, width, height = struct.unpack("HHHH", fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8)))
        if rows and columns and width >= columns and height >= rows:
            return width // columns, height // rows
    return _CELL


class Pictures:
    """
    Args:
        typed: called with keys that were typed while the terminal was asked.
    """

    def __init__(self, console: Console, typed: Callable[[bytes], object]) -> None:
        self._console, self._typed = console, typed
        self._abilities: Abilities | None = None

    def drawn(self, data: bytes) -> RenderableType | None:
        """Draw a PNG file, no larger than fits on the terminal; None: it cannot be shown here.

        It takes long the first time, and may be called in another thread while nothing else is written.
        """
        if not self._console.color_system:
            return None
        if self._abilities is None:
            self._abilities, typed = ask(sys.__stdin__.fileno() if sys.__stdin__ else -1, self._write)
            if typed:
                self._typed(typed)
        try:
            return self._image(data, self._abilities)
        except Exception:  # an error of another package about a foreign file: its name is still shown
            return None

    def _write(self, question: bytes) -> None:
        self._console.file.write(question.decode())
        self._console.file.flush()

    def _image(self, data: bytes, abilities: Abilities) -> RenderableType:
        from PIL import Image
        from rich.measure import Measurement

        picture = Image.open(io.BytesIO(data), formats=["PNG"])
        picture.load()
        with _no_terminal(abilities.cell):
            from textual_image.renderable import HalfcellImage, SixelImage, TGPImage

            kitty = os.environ.get("TERM") in _KITTY
            kind = SixelImage if abilities.sixel else TGPImage if kitty else HalfcellImage
            made = kind(picture, *self._size(picture.size, abilities.cell, sharp=kind is not HalfcellImage))
            Measurement.get(self._console, self._console.options, made)  # it remembers how large a cell is
        return made

    def _size(self, pixels: tuple[int, int], cell: tuple[int, int], *, sharp: bool) -> tuple[int, int]:
        """Cells for a picture of so many pixels.

        Args:
            sharp: it is shown in pixels, and is not enlarged; half cells are coarse, and use all the space.
        """
        width, height = pixels[0] / cell[0], pixels[1] / cell[1]
        room = min(_WIDEST, self._console.width - 1), max(2, min(_HIGHEST, self._console.height - _LEFT))
        scale = min(room[0] / width, room[1] / height, *([1.0] if sharp else []))
        return max(1, round(width * scale)), max(1, round(height * scale))


@contextlib.contextmanager
def _no_terminal(cell: tuple[int, int]) -> Iterator[None]:
    """Hide the terminal from `textual-image`, which then takes the size of a cell from the environment."""
    names = ("TEXTUAL_CELL_WIDTH", "TEXTUAL_CELL_HEIGHT")
    before, out = {name: os.environ.get(name) for name in names}, sys.__stdout__
    os.environ.update(zip(names, map(str, cell), strict=True))
    sys.__stdout__ = io.StringIO()  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        sys.__stdout__ = out  # type: ignore[misc]
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
