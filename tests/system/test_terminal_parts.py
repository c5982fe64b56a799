"""What the terminal is made of, without one: what a line means, Markdown as it grows, events as they are shown."""

from __future__ import annotations

import argparse
import io
import itertools
import os
import re
import stat
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.cells import cell_len
from rich.console import Console
from rich.theme import Theme

from chatglm.cli.shown import plain
from chatglm.cli.terminal import run_terminal
from chatglm.cli.terminal.actions import Actions
from chatglm.cli.terminal.commands import COMMANDS, Do, Say, Unknown, named, read
from chatglm.cli.terminal.files import Files
from chatglm.cli.terminal.keys import history_at, unblocked
from chatglm.cli.terminal.markdown import THEME, Rendered, breaks
from chatglm.cli.terminal.pictures import Abilities, Pictures, ask
from chatglm.cli.terminal.screen import Screen, size
from chatglm.cli.terminal.setup import Setup
from chatglm.cli.terminal.turns import Turns
from chatglm.cli.terminal.words import _WORDS, Words, language_of
from chatglm.conversation import events
from chatglm.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]
MARKDOWN = st.text(st.sampled_from("a b\n\n*_`#->|1.中文，。\t[](!~\"'<&=:\\"), max_size=120)


# Lines


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("你好", Say("你好")),
        ("  hello  ", Say("hello")),
        ("//help", Say("/help")),
        ("///", Say("//")),
        ("/usr/bin/env 是什么？", Say("/usr/bin/env 是什么？")),
        ("/etc", Say("/etc")),
        ("/* 注释 */", Say("/* 注释 */")),
        ("/1 + 1", Say("/1 + 1")),
        ("/", Say("/")),
        ("/nosuch\nword", Say("/nosuch\nword")),
        ("/hepl", Unknown("hepl", "help")),
        ("/xyzzy", Unknown("xyzzy", "")),
        ("/char", Unknown("char", "character")),
    ],
)
def test_what_a_line_means(typed: str, meant: object) -> None:
    assert read(typed) == meant


@pytest.mark.parametrize(
    ("typed", "name", "argument"),
    [
        ("/help", "help", ""),
        ("/?", "help", ""),
        ("/HELP mode", "help", "mode"),
        ("／模式  tools", "mode", "tools"),
        ("/system 你是\n诗人", "system", "你是\n诗人"),
        ("/set temperature 0.5", "params", "temperature 0.5"),
        ("clear", "clear", ""),
        ("清空", "clear", ""),
        ("stop", "exit", ""),
        (" 退出 ", "exit", ""),
        ("/bye", "exit", ""),
        ("quit", "exit", ""),
    ],
)
def test_commands_and_their_other_words(typed: str, name: str, argument: str) -> None:
    command = named(name)
    assert command is not None
    assert read(typed) == Do(command, argument)


def test_every_command_does_something_and_is_in_the_documentation() -> None:
    words = [word for command in COMMANDS for word in (command.name, *command.aliases)]
    assert len(words) == len(set(words))
    text = (REPOSITORY / "docs" / "chat.md").read_text("utf-8")
    for command in COMMANDS:
        assert sum(hasattr(part, command.name) for part in (Actions, Setup, Turns, Files)) == 1, command.name
        assert f"`/{command.name}" in text, f"docs/chat.md does not name /{command.name}"


@given(st.text(max_size=40))
def test_any_line_means_something(typed: str) -> None:
    assert isinstance(read(typed), Do | Say | Unknown)


@pytest.mark.parametrize(
    ("typed", "text"),
    [('"""a\nb"""', "a\nb"), ('"""\na\nb\n"""', "a\nb"), ('say """x"""', 'say """x"""'), ("a\nb", "a\nb")],
)
def test_blocks_lose_their_marks(typed: str, text: str) -> None:
    assert unblocked(typed) == text


# Words


def test_words_are_there_in_both_languages_with_the_same_places() -> None:
    for name, pair in _WORDS.items():
        english, chinese = ({f for _, f, _, _ in string.Formatter().parse(text) if f} for text in pair)
        assert english == chinese, name
    used = set()
    for file in (REPOSITORY / "src" / "chatglm" / "cli" / "terminal").glob("*.py"):
        used |= set(re.findall(r"words\(\s*\"(\w+)\"", file.read_text("utf-8")))
        used |= set(re.findall(r"self\.(?:said|changed)\(\"(\w+)\"", file.read_text("utf-8")))
    assert used <= set(_WORDS)


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C.UTF-8"}, "en"),
        ({"LANG": "C", "LC_MESSAGES": "zh_TW"}, "zh"),
        ({"LC_ALL": "", "LANG": "zh"}, "zh"),
        ({}, "en"),
    ],
)
def test_the_locale_decides(environment: dict[str, str], language: str) -> None:
    assert language_of(environment) == language


# Markdown


def shown(text: str, width: int = 40, color: Any = None) -> str:
    out = io.StringIO()
    Console(file=out, width=width, theme=Theme(THEME), color_system=color, force_terminal=True).print(Rendered(text))
    return out.getvalue()


@given(MARKDOWN, st.integers(2, 50))
def test_any_markdown_is_shown_within_the_width(text: str, width: int) -> None:
    for line in shown(plain(text), width).split("\n"):
        assert cell_len(line) <= max(width, 4)


def test_what_markdown_looks_like() -> None:
    assert shown("春眠不觉晓，\n处处闻啼鸟。") == "春眠不觉晓，\n处处闻啼鸟。\n"
    assert shown("use <div> &amp; **b**") == "use <div> & b\n"
    assert shown("- a\n- b\n") == " • a\n • b\n"
    assert shown("```python\nx = 1\n\ny\n```") == "  x = 1\n\n  y\n"
    assert shown("[text](http://a.b)") == "text (http://a.b)\n"
    assert "\x1b]8" not in shown("[text](http://a.b)", color="truecolor")  # no links whose address is not seen
    assert "\x1b[" in shown("```python\nimport os\n```", color="standard")
    assert (
        shown("和 $x_1 + x_2$、\\(a*b*c\\)：\n\n$$\n\\int_0^1 x\\,dx\n$$\n")
        == "和 x_1 + x_2、a*b*c：\n\n  \\int_0^1 x\\,dx\n"
    )


@given(st.text(st.sampled_from("ab 中文，。（）“”,.()-"), max_size=80), st.integers(2, 30))
def test_lines_are_broken_where_chinese_allows(text: str, width: int) -> None:
    places = [0, *breaks(text, width), len(text)]
    assert places == sorted(set(places)) or not text
    pieces = [text[begin:end] for begin, end in itertools.pairwise(places)]
    assert "".join(pieces) == text
    assert all(cell_len(piece.rstrip()) <= width for piece in pieces)


def test_chinese_and_latin_share_lines() -> None:
    text = "Hello 这是一个很长的中文段落，里面有 English words，标点不在行首。"
    lines = shown(text, 24).splitlines()
    assert lines == ["Hello 这是一个很长的中文", "段落，里面有 English", "words，标点不在行首。"]


@given(st.text(max_size=60))
def test_nothing_steers_the_terminal(text: str) -> None:
    for sign in plain(text):
        assert sign in "\n\t" or not (ord(sign) < 32 or 127 <= ord(sign) < 160)
    assert plain("a\r\nb\rc\u202e\u2028") == "a\nb\nc"


# Events


def screen(width: int = 60, **options: Any) -> tuple[Screen, io.StringIO]:
    out = io.StringIO()
    console = Console(
        file=out, width=width, height=30, theme=Theme(THEME), color_system=None, markup=False, emoji=False
    )
    return Screen(console, Words("en"), **options), out


def told(*happenings: events.Event, width: int = 60) -> str:
    face, out = screen(width)
    face.begin("thinking")
    for event in happenings:
        face.show(event, 7)
    face.end()
    return out.getvalue()


def test_sentences_without_a_source_are_shown() -> None:
    text = "十天。[1] 二十天。"
    cited = events.Cited(answered=True, unsupported=((6, len(text)),))
    shown = told(events.Began(turn=1, parent=0, role="assistant"), events.Text(turn=1, text=text), cited)
    assert shown.count("二十天。") == 2
    assert "Not in these sources:" in shown
    assert shown.rstrip().splitlines()[-1].strip() == "二十天。", shown


def test_blocks_are_printed_once() -> None:
    text = "第一段\n\n第二段\n\n- 一\n- 二\n"
    pieces = [events.Text(turn=2, text=sign) for sign in text]
    out = told(events.Began(turn=2, parent=1, role="assistant"), *pieces, events.Done(turn=2, finish="stop"))
    assert out.strip() == "第一段\n\n第二段\n\n • 一\n • 二"


def test_a_call_is_a_panel_with_its_time() -> None:
    out = told(
        events.Calling(turn=2, index=0, name="calculator"),
        events.Called(turn=2, call="c", name="calculator", arguments='{"expression": "3*7"}'),
        events.Answered(turn=3, call="c", text="21", seconds=0.25),
    )
    assert re.search(r"─ calculator · 0\.2 s ─", out)
    assert 'expression="3*7"' in out
    assert "→ 21" in out


def test_a_long_result_is_folded() -> None:
    result = "\n".join(f"line {n}" for n in range(50))
    out = told(
        events.Called(turn=2, call="c", name="f", arguments="{}"),
        events.Answered(turn=3, call="c", text=result, failed=True, seconds=2),
    )
    assert "line 4" in out
    assert "line 5\n" not in out
    assert "more lines: 45; /turns 7 shows all" in out
    assert "failed · 2.0 s" in out


def test_code_shows_with_its_output() -> None:
    out = told(
        events.Called(turn=2, call="c", name="interpreter", arguments="print(1)\nx", code=True),
        events.Output(call="c", text="1\n"),
        events.Answered(turn=3, call="c", text="1", whole="1\n", seconds=0.01),
    )
    assert "Python · 10 ms" in out
    assert "print(1)" in out
    assert len(re.findall(r"│ 1 ", out)) == 1


def test_hostile_text_is_harmless_everywhere() -> None:
    bad = "\x1b]0;own\x07\x9b31m[red]x[/red]:smile:\x08"
    out = told(
        events.Text(turn=2, text=bad),
        events.Calling(turn=2, index=0, name=bad, arguments=bad),
        events.Called(turn=2, call="c", name=bad, arguments=bad),
        events.Output(call="c", text=bad),
        events.Answered(turn=3, call="c", text=bad, whole=bad, seconds=0),
        events.Note(code="left_out", text=bad),
        events.Failed(turn=2, message=bad),
    )
    assert "[red]x[/red]:smile:" in out
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", out)


# Pictures


def png(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(out, "PNG")
    return out.getvalue()


def drawing(
    monkeypatch: pytest.MonkeyPatch, term: str = "xterm", abilities: Abilities | None = None, **options: Any
) -> tuple[Pictures, Console, io.StringIO]:
    """Pictures on a terminal of 60 columns and 20 lines."""
    monkeypatch.setenv("TERM", term)
    out = io.StringIO()
    console = Console(file=out, width=60, height=20, force_terminal=True, **{"color_system": "truecolor", **options})
    monkeypatch.setattr("chatglm.cli.terminal.pictures.ask", lambda *_: (abilities or Abilities(), b""))
    return Pictures(console, lambda keys: None), console, out


@pytest.mark.filterwarnings("ignore:.*getdata:DeprecationWarning")  # which textual-image 0.12 uses
@pytest.mark.parametrize(("width", "height"), [(640, 480), (10, 10), (4096, 30), (30, 4096), (4096, 4096)])
def test_pictures_are_drawn_in_half_cells(monkeypatch: pytest.MonkeyPatch, width: int, height: int) -> None:
    pictures, console, out = drawing(monkeypatch)
    drawn = pictures.drawn(png(width, height))
    assert drawn is not None
    console.print(drawn)
    lines = re.sub(r"\x1b\[[\d;]*m", "", out.getvalue()).splitlines()
    assert 1 <= len(lines) <= 16
    assert {len(line) for line in lines} <= set(range(1, 60))
    assert set("".join(lines)) == {"▀"}


def test_pictures_are_sixels_where_the_terminal_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, console, out = drawing(monkeypatch, abilities=Abilities(sixel=True, cell=(10, 20)))
    drawn = pictures.drawn(png(100, 100))
    assert drawn is not None
    console.print(drawn)
    assert "\x1bP" in out.getvalue()
    assert out.getvalue().count("\n") == 5  # as large as it is, in cells of 20 pixels


def test_pictures_go_to_kitty_by_its_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, console, out = drawing(monkeypatch, "xterm-kitty")
    drawn = pictures.drawn(png(640, 480))
    assert drawn is not None
    beside = io.StringIO()
    monkeypatch.setattr(sys, "__stdout__", beside)
    console.print(drawn)
    assert beside.getvalue().startswith("\x1b_G")
    assert chr(0x10EEEE) in out.getvalue()


def test_what_is_no_picture_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, *_ = drawing(monkeypatch)
    for data in (b"", b"bad", png(10, 10)[:60], b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"):
        assert pictures.drawn(data) is None
    pictures, *_ = drawing(monkeypatch, color_system=None)  # NO_COLOR
    assert pictures.drawn(png(10, 10)) is None


@pytest.mark.skipif(os.name == "nt", reason="needs pseudo-terminals")
@pytest.mark.parametrize(
    ("answer", "abilities"),
    [
        (b"\x1b[6;24;12t\x1b[?62;4;22c", Abilities(True, (12, 24))),
        (b"\x1b[?64;1;2;44c", Abilities()),
        (b"\x1b[6;0;0t\x1b[?4c", Abilities(True)),
        (b"", Abilities()),
    ],
)
def test_a_terminal_is_asked_and_keys_are_kept(
    answer: bytes, abilities: Abilities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatglm.cli.terminal.pictures._PATIENCE", 1.0 if answer else 0.05)
    terminal, program = os.openpty()
    try:
        os.write(terminal, "你".encode())
        found, typed = ask(program, lambda question: os.write(terminal, answer[:7] + answer[7:] + b"x"))
        assert found == abilities
        assert typed.decode().startswith("你")
        assert termios_echoes(program)
    finally:
        os.close(terminal)
        os.close(program)


def termios_echoes(descriptor: int) -> bool:
    import termios

    return bool(termios.tcgetattr(descriptor)[3] & termios.ECHO)


def test_sizes() -> None:
    assert [size(n) for n in (0, 999, 1234, 12_345_678)] == ["0 B", "999 B", "1.2 kB", "12.3 MB"]


# Files


@pytest.mark.skipif(os.name == "nt", reason="rights of files")
def test_the_history_is_the_user_s_own_and_does_not_grow_for_ever(tmp_path: Path) -> None:
    file = tmp_path / "history"
    history = history_at(file)
    history.append_string("你好")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(history_at(file).load_history_strings()) == ["你好"]
    file.write_text("".join(f"\n# 2026\n+{n:0>1000}\n" for n in range(2000)), "utf-8")
    kept = list(history_at(file).load_history_strings())
    assert kept[0] == f"{1999:0>1000}"
    assert 100 < len(kept) < 2000
    assert all(len(one) == 1000 for one in kept)
    (tmp_path / "link").symlink_to(file)
    history_at(tmp_path / "link").append_string("elsewhere")
    assert "elsewhere" not in file.read_text("utf-8")


@pytest.mark.parametrize(
    ("language", "said"),
    [("zh", "没有角色“nobody”，可选：tea-house"), ("en", "there is no character 'nobody'; known: tea-house")],
)
def test_what_keeps_it_from_beginning_is_said_in_the_person_s_language(
    language: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> int:
        raise InputError("there is no character 'nobody'; known: tea-house")

    monkeypatch.setattr("chatglm.cli.terminal._run", fails)
    given = argparse.Namespace(language=language, model=None)
    with pytest.raises(InputError) as raised:
        run_terminal(given, lambda settings: settings, lambda assistant: None)
    assert str(raised.value) == said


def test_help_costs_neither_torch_nor_the_packages_of_a_terminal() -> None:
    code = (
        "import sys\nfrom chatglm.cli import main\ntry: main(['chat', '--help'])\nexcept SystemExit: pass\n"
        "loaded = {'torch', 'transformers', 'rich', 'prompt_toolkit', 'pydantic'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for option in ("--continue", "--mode", "--tools", "--interpreter", "--json", "--lines", "--no-store", "--language"):
        assert option in done.stdout
