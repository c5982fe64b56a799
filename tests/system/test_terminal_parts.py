"""What the terminal is made of, without one: what a line means, Markdown as it grows, events as they are shown."""

from __future__ import annotations

import io
import itertools
import os
import re
import stat
import string
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.theme import Theme

from chatglm.cli.terminal.actions import Actions
from chatglm.cli.terminal.commands import COMMANDS, Do, Say, Unknown, named, read
from chatglm.cli.terminal.files import Files
from chatglm.cli.terminal.keys import history_at, unblocked
from chatglm.cli.terminal.markdown import THEME, Rendered, breaks, plain
from chatglm.cli.terminal.screen import Screen, size
from chatglm.cli.terminal.setup import Setup
from chatglm.cli.terminal.turns import Turns
from chatglm.cli.terminal.words import _WORDS, Words, language_of
from chatglm.conversation import events

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
    assert "45 more lines; /turns 7 shows all" in out
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


def test_pictures_are_drawn_where_that_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    """By `textual-image`, which is not installed with the extra; whatever it raises, the picture is named."""
    drawn: list[bytes] = []

    def image(stream: io.BytesIO) -> str:
        drawn.append(stream.read())
        if drawn[-1] != b"good":
            raise ValueError("no picture")
        return "[drawn]"

    monkeypatch.setitem(sys.modules, "textual_image", ModuleType("textual_image"))
    monkeypatch.setitem(sys.modules, "textual_image.renderable", SimpleNamespace(Image=image))
    face, out = screen()
    face.picture(b"good")
    assert drawn == []  # not on a terminal without colours
    out = io.StringIO()
    face = Screen(Console(file=out, force_terminal=True, color_system="standard", markup=False), Words("en"))
    face.picture(b"good")
    face.picture(b"bad")
    face.file("picture", "a.png", 1200)
    face.end()
    assert drawn == [b"good", b"bad"]
    assert out.getvalue().count("drawn") == 1
    assert "a.png (1.2 kB)" in out.getvalue()


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
