"""Text and pictures of a cell."""

from __future__ import annotations

import struct
import zlib

from hypothesis import given
from hypothesis import strategies as st

from chatglm.tools.interpreter.limits import Limits
from chatglm.tools.interpreter.output import Output, clean
from chatglm.tools.pictures import png_problem


def png(width: int = 2, height: int = 2) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(width) for _ in range(height))) if width * height < 10_000 else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@given(
    text=st.lists(
        st.sampled_from(["中文", "a", "\n", "\x1b[31m", "\x1b[0;1;38;5;9m", "\x1b]8;;http://x\x07", "é", "😀"])
    ),
    cuts=st.lists(st.integers(1, 7), min_size=1),
)
def test_text_does_not_depend_on_how_it_is_cut(text: list[str], cuts: list[int]) -> None:
    data, heard = "".join(text).encode(), []
    output = Output(Limits(), heard.append)
    while data:
        for cut in cuts:
            output.printed(data[:cut])
            data = data[cut:]
    plain = "".join(part for part in text if not part.startswith("\x1b"))
    assert output.close() == plain
    assert "".join(heard) == plain


@given(st.binary(max_size=300))
def test_any_bytes_become_text_without_controls(data: bytes) -> None:
    output = Output(Limits())
    output.printed(data)
    text = output.close()
    assert text.encode("utf-8").decode("utf-8") == text
    assert not any(
        character not in "\t\n" and not 32 <= ord(character) < 127 and ord(character) < 160 for character in text
    )


def test_a_flood_is_cut_at_a_character_and_counted() -> None:
    heard: list[str] = []
    output = Output(Limits(shown=100), heard.append)
    for _ in range(1_000):
        output.printed("中".encode() * 100)
    text = output.close()
    assert text.startswith("中" * 33 + "\n[output cut: 300000 bytes")
    assert "".join(heard) == "中" * 33
    assert output.total == 300_000


def test_results_stand_on_lines_of_their_own() -> None:
    output = Output(Limits())
    output.printed(b"a")
    output.result("5")
    output.result("6\n")
    output.printed(b"b")
    assert output.close() == "a\n5\n6\nb"


def test_what_was_written_over_is_gone() -> None:
    output = Output(Limits())
    output.printed(b" 10%\r 50%\r100%\r\nok\r\n 30%\r")
    assert output.close() == "100%\nok\n 30%"


def test_a_long_line_behind_a_carriage_return() -> None:
    """To look for another one from each of its characters would take minutes, and the event loop would wait."""
    output = Output(Limits(shown=1 << 20))
    output.printed(b"x\r" + b"y" * 900_000)
    assert output.close() == "y" * 900_000


def test_surrogates_and_escapes_of_results_and_errors() -> None:
    output = Output(Limits())
    output.result("\ud800\x1b[31mred\x1b[0m")
    output.fail("\x1b[1mNameError\x1b[0m \x00")
    assert output.close() == "?red\n"
    assert output.error == "NameError "
    assert clean("\x1b(B\x9b1m\x07ok") == "ok"


def test_pictures_are_png_files_of_bounded_size_and_number() -> None:
    output = Output(Limits(pictures=2, side=100, picture=1_000))
    output.picture(b"<svg/>" * 10, 60)
    output.picture(png(101, 3), 99)
    output.picture(png()[:20], 20)
    output.picture(b"", 1_001)
    for _ in range(3):
        output.picture(png(), len(png()))
    assert output.pictures == [png(), png()]
    text = output.close()
    assert text.splitlines() == [
        "[picture left out: no PNG file]",
        "[picture left out: 101 × 3 pixels; the limit is 100 each way]",
        "[picture left out: no PNG file]",
        "[picture left out: 1,001 bytes; the limit is 1,000]",
        "[picture left out: only the first 2 of a cell are shown]",
    ]
    assert png_problem(png(0, 5), 100)


def test_a_reader_that_fails_is_asked_no_more() -> None:
    def broken(text: str) -> None:
        raise KeyError(text)

    output = Output(Limits(), broken)
    output.printed(b"a")
    output.printed(b"b")
    assert output.close() == "ab"
    assert isinstance(output.failure, KeyError)
