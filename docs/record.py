"""Record `chatglm chat` in a real terminal, as the animated picture that README shows.

    python docs/record.py docs/pictures/terminal.gif

It needs tmux, Pillow, and the fonts DejaVu Sans Mono (of matplotlib) and Noto Sans CJK (Debian: fonts-noto-cjk).
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import unicodedata
from pathlib import Path
from typing import NamedTuple

import matplotlib
from PIL import Image, ImageDraw, ImageFont

COLUMNS, ROWS = 76, 24
COMMAND = [sys.executable, "-m", "chatglm.cli", "chat", "--tools", "examples", "--mode", "chat", "--temperature", "0"]
# What is typed, and what the screen shows when it is done.
SCRIPT = (
    ("你能做什么？", r"工具"),
    ("/mode tools", r"now tools"),
    ("查一下北京的天气", r"北京的天气：晴"),
    ("/mode code", r"now code"),
    ("求 1 到 100 的和", r"5050[^│]*\n\n"),
    ("/character tea-house", r"茶馆，请坐"),
    ("你叫什么名字？", r"名字？\n.*沈清"),
)
KEY, LINE, READ, FRAME = 0.06, 0.4, 1.6, 0.08  # seconds: for a key, before Enter, to read an answer, between pictures
CELL = (9, 20)
SIZE = 15
BACK, FORE = (24, 26, 31), (216, 218, 222)
COLORS = (
    (54, 58, 66), (224, 108, 117), (152, 195, 121), (229, 192, 123), (97, 175, 239), (198, 120, 221), (86, 182, 194),
    (216, 218, 222), (110, 118, 130), (240, 128, 137), (172, 215, 141), (245, 210, 143), (120, 190, 250),
    (215, 140, 236), (106, 202, 214), (255, 255, 255),
)  # fmt: skip


class Style(NamedTuple):
    color: tuple[int, int, int] = FORE
    bold: bool = False
    dim: bool = False
    under: bool = False
    reverse: bool = False


class Tmux:
    """One program in a terminal."""

    def __init__(self, home: str) -> None:
        self._socket = f"record-{os.getpid()}"
        environment = [f"CHATGLM_HOME={home}", "LC_ALL=C.UTF-8", "COLORTERM=", "TERM=screen-256color"]
        command = shlex.join(["env", *environment, *COMMAND])
        size = ["-x", str(COLUMNS), "-y", str(ROWS)]
        self("-f", "/dev/null", "new-session", "-d", *size, "-s", "r", f"{command}; sleep 100")

    def __call__(self, *words: str) -> str:
        command = ["tmux", "-u", "-L", self._socket, *words]
        return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout

    def look(self) -> tuple[str, tuple[int, int] | None]:
        """The screen with its colours, and where the cursor is, if it is seen."""
        screen = self("capture-pane", "-p", "-e", "-t", "r")
        x, y, seen = self("display-message", "-p", "-t", "r", "#{cursor_x} #{cursor_y} #{cursor_flag}").split()
        return screen, (int(x), int(y)) if seen == "1" else None

    def close(self) -> None:
        subprocess.run(["tmux", "-L", self._socket, "kill-server"], capture_output=True)


def record() -> list[tuple[tuple[str, tuple[int, int] | None], float]]:
    """Screens, and for how many seconds each was seen."""
    seen: list[tuple[tuple[str, tuple[int, int] | None], float]] = []

    def watch(seconds: float, until: str = "") -> None:
        end = time.monotonic() + (120 if until else seconds)
        while time.monotonic() < end:
            begun = time.monotonic()
            look = terminal.look()
            time.sleep(max(0.0, FRAME - (time.monotonic() - begun)))
            if not seen or seen[-1][0] != look:
                seen.append((look, 0.0))
            seen[-1] = look, seen[-1][1] + FRAME  # a busy machine does not make a slow picture
            if until and re.search(until, re.sub(r"\x1b\[[\d;]*m", "", look[0])) and "Alt+Enter" in look[0]:
                return

    with tempfile.TemporaryDirectory() as home:
        terminal = Tmux(home)
        try:
            watch(0, r"> ")
            deadline = time.monotonic() + 60
            while "loading" in terminal.look()[0] and time.monotonic() < deadline:
                time.sleep(0.2)
            seen.clear()
            watch(1.0)
            for line, until in SCRIPT:
                for sign in line:
                    terminal("send-keys", "-t", "r", "-l", sign)
                    watch(KEY)
                watch(LINE)
                terminal("send-keys", "-t", "r", "Enter")
                watch(0.3)
                watch(0, until)
                watch(READ)
            watch(1.5)
        finally:
            terminal.close()
    return seen


def cells(screen: str) -> list[list[tuple[str, Style]]]:
    """Lines of characters, each with its style."""
    found: list[list[tuple[str, Style]]] = [[]]
    style = Style()
    for text, codes in re.findall(r"([^\x1b]+)|\x1b\[([\d;]*)m", screen):
        if not text:
            style = styled(style, [int(code or 0) for code in codes.split(";")])
            continue
        for sign in text:
            if sign == "\n":
                found.append([])
            else:
                found[-1].append((sign, style))
    return found


def styled(style: Style, codes: list[int]) -> Style:
    """A style after the codes of an escape sequence."""
    while codes:
        code = codes.pop(0)
        if code == 0:
            style = Style()
        elif code == 1:
            style = style._replace(bold=True)
        elif code == 2:
            style = style._replace(dim=True)
        elif code == 4:
            style = style._replace(under=True)
        elif code in (7, 27):
            style = style._replace(reverse=code == 7)
        elif code == 22:
            style = style._replace(bold=False, dim=False)
        elif code == 24:
            style = style._replace(under=False)
        elif code == 39:
            style = style._replace(color=FORE)
        elif 30 <= code <= 37:
            style = style._replace(color=COLORS[code - 30])
        elif 90 <= code <= 97:
            style = style._replace(color=COLORS[code - 82])
        elif code in (38, 48):
            del codes[: 2 if codes[:1] == [5] else 4]
    return style


class Painter:
    def __init__(self) -> None:
        latin = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        chinese = subprocess.run(
            ["fc-match", "--format=%{file}", "Noto Sans CJK SC:lang=zh"], check=True, capture_output=True, text=True
        ).stdout
        self._latin = [ImageFont.truetype(str(latin / f"DejaVuSansMono{bold}.ttf"), SIZE) for bold in ("", "-Bold")]
        self._chinese = ImageFont.truetype(chinese, SIZE + 1)

    def paint(self, screen: str, cursor: tuple[int, int] | None) -> Image.Image:
        """A picture of a screen."""
        width, height = CELL
        picture = Image.new("RGB", (COLUMNS * width + 24, ROWS * height + 24), BACK)
        draw = ImageDraw.Draw(picture)
        for y, line in enumerate(cells(screen)[:ROWS]):
            x = 0
            for sign, style in line:
                wide = 2 if unicodedata.east_asian_width(sign) in "WF" else 1
                box = (12 + x * width, 12 + y * height, 12 + (x + wide) * width - 1, 11 + (y + 1) * height)
                color = tuple(c * 2 // 3 for c in style.color) if style.dim else style.color
                if style.reverse:
                    draw.rectangle(box, fill=color)
                    color = BACK
                if "─" <= sign <= "╿":
                    self._line(draw, sign, box, color)
                elif sign.strip():
                    font = self._chinese if wide == 2 else self._latin[style.bold]
                    draw.text(
                        (box[0], box[1] + (height - SIZE) / 2 + SIZE - 2), sign, font=font, fill=color, anchor="ls"
                    )
                if style.under:
                    draw.line((box[0], box[3] - 1, box[2], box[3] - 1), fill=color)
                x += wide
        if cursor is not None:
            x, y = cursor
            draw.rectangle(
                (12 + x * width, 13 + y * height, 12 + (x + 1) * width - 1, 10 + (y + 1) * height), fill=(150, 154, 162)
            )
        return picture

    def _line(self, draw: ImageDraw.ImageDraw, sign: str, box: tuple[int, int, int, int], color: object) -> None:
        """A piece of a frame, which joins the next one."""
        left, top, right, bottom = box
        x, y = (left + right) // 2, (top + bottom) // 2
        if sign in "─╭╮╰╯":
            draw.line((x if sign in "╭╰" else left, y, x if sign in "╮╯" else right + 1, y), fill=color)
        if sign in "│╭╮╰╯":
            draw.line((x, y if sign in "╭╮" else top, x, y if sign in "╰╯" else bottom + 1), fill=color)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="the .gif to write")
    parser.add_argument("--frames", type=Path, help="write single pictures into this folder, too")
    arguments = parser.parse_args()
    seen, painter = record(), Painter()
    pictures = [painter.paint(*look) for look, _ in seen]
    if arguments.frames:
        arguments.frames.mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(pictures):
            picture.save(arguments.frames / f"{number:04}.png")
    palette = pictures[-1].quantize(24, dither=Image.Dither.NONE)  # one for all, so that only what changes is stored
    few = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    times = [max(20, round(seconds * 1000)) for _, seconds in seen]
    few[0].save(arguments.file, save_all=True, append_images=few[1:], duration=times, loop=0, optimize=False)
    print(f"{arguments.file}: {arguments.file.stat().st_size:,} bytes, {len(few)} pictures, {sum(times) / 1000:.0f} s")


if __name__ == "__main__":
    main()
