"""Any terminal, pipe and disk: a command ends in one line and an exit status, never in a traceback."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chatglm.assistant import Assistant
from chatglm.chat.formats import chat_format
from chatglm.cli import main
from chatglm.loading import AutoTokenizer, demo_folder
from scripted import ScriptedEngine, Writer

ANSWER = "你好 😀 ok"
PROGRAM = [sys.executable, "-m", "chatglm.cli"]


def console(encoding: str, errors: str = "strict", content: bytes = b"") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(content), encoding=encoding, errors=errors, write_through=True)


def answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the command talk to an engine that says `ANSWER`."""
    write = Writer(chat_format(AutoTokenizer.from_pretrained(demo_folder())))
    engine = ScriptedEngine(write.say(ANSWER))
    monkeypatch.setattr("chatglm.cli.chat.open_assistant", lambda arguments: Assistant(write.form, engine))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("gbk", "你好 \\U0001f600 ok"),
        ("cp936", "你好 \\U0001f600 ok"),
        ("ascii", "\\u4f60\\u597d \\U0001f600 ok"),
        ("utf-8", ANSWER),
    ],
)
def test_an_answer_is_written_whole_in_any_encoding(encoding: str, expected: str, monkeypatch) -> None:
    answers(monkeypatch)
    out = console(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["chat", "你好"]) == 0
    assert out.buffer.getvalue().decode(encoding).strip() == expected


@pytest.mark.parametrize(
    ("encoding", "errors", "raw"),
    [("gbk", "strict", "你好\n".encode("gbk")), ("ascii", "surrogateescape", "你好\n".encode())],
    ids=["gbk", "posix"],
)
def test_questions_are_read_in_the_terminal_s_encoding(encoding, errors, raw, monkeypatch, capsys) -> None:
    answers(monkeypatch)
    asked: list[str] = []
    monkeypatch.setattr("chatglm.cli.plain.PlainDialogue.ask", lambda self, question: asked.append(question))
    monkeypatch.setattr(sys, "stdin", console(encoding, errors, raw))
    assert main(["chat"]) == 0
    assert asked == ["你好"]


def test_questions_in_another_encoding_are_refused(monkeypatch, capsys) -> None:
    answers(monkeypatch)
    monkeypatch.setattr(sys, "stdin", console("utf-8", content="你好\n".encode("gbk")))
    assert main(["chat"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("chatglm: the input is not utf-8 (")
    assert "PYTHONIOENCODING=gbk" in err
    assert main(["chat", "你好".encode("gbk").decode("utf-8", "surrogateescape")]) == 1
    assert "not in the terminal's encoding" in capsys.readouterr().err


def test_a_question_of_the_posix_locale_is_utf_8(monkeypatch, capsys) -> None:
    answers(monkeypatch)
    asked: list[str] = []
    monkeypatch.setattr("chatglm.cli.plain.PlainDialogue.ask", lambda self, question: asked.append(question))
    assert main(["chat", "你好".encode().decode("ascii", "surrogateescape")]) == 0
    assert asked == ["你好"]


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1, "the output cannot be written: No space left on device"),
        (OSError(errno.EACCES, "Permission denied", "a/b"), 1, "a/b: Permission denied"),
        (OSError(errno.EACCES, "Permission denied", b"a\xff"), 1, "Permission denied"),
        (OSError(), 1, "OSError"),
        (MemoryError(), 1, "out of memory; "),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory:\nyou tried"), 1, "out of memory (DefaultCPU"),
        (RuntimeError("can't start new thread"), 1, "out of memory (can't start new thread)"),
        (UnicodeEncodeError("gbk", "😀", 0, 1, "illegal"), 1, "text cannot be encoded or decoded: 'gbk'"),
        (ModuleNotFoundError("No module named 'x'", name="x"), 1, "the package x is not installed"),
        (ImportError("libtorch.so: failed to map segment"), 1, "a library cannot be loaded (libtorch.so: failed"),
        (KeyboardInterrupt(), 130, ""),
        (EOFError(), 1, "the input ended before there was an answer"),
        (BrokenPipeError(), 141, ""),
    ],
    ids=repr,
)
def test_what_is_no_fault_of_ours_is_one_line(
    error: BaseException, status: int, said: str, monkeypatch, capsys
) -> None:
    def run(arguments: Any) -> int:
        raise error

    command = SimpleNamespace(add_arguments=lambda parser: None, run=run)
    monkeypatch.setitem(sys.modules, "chatglm.cli.info", command)
    assert main(["info"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err
    assert err.count("\n") <= 1


def test_a_fault_of_ours_is_not_hidden(monkeypatch) -> None:
    def run(arguments: Any) -> int:
        raise ZeroDivisionError

    monkeypatch.setitem(sys.modules, "chatglm.cli.info", SimpleNamespace(add_arguments=lambda parser: None, run=run))
    with pytest.raises(ZeroDivisionError):
        main(["info"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("words", [["--help"], ["chat", "--help"], ["--version"]], ids=" ".join)
def test_a_full_disk_is_no_success(words: list[str], buffered: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    if not buffered:
        environment["PYTHONUNBUFFERED"] = "1"
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*PROGRAM, *words], stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    assert done.returncode == 1
    assert done.stderr == "chatglm: the output cannot be written: No space left on device\n"
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*PROGRAM, *words, "--nonsense"], stderr=full, stdout=subprocess.DEVNULL, env=environment)
    assert done.returncode in (0, 1, 2)


@pytest.mark.skipif(os.name == "nt", reason="shell redirections")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str) -> None:
    done = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *PROGRAM, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(os.name == "nt", reason="a working folder cannot be deleted there")
def test_a_working_folder_that_was_deleted(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    script = 'cd "$0" && rmdir "$0" && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, str(tmp_path / "gone"), *PROGRAM, "merge", "x", "--output", "y"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
    )
    assert done.returncode == 1
    assert done.stderr == "chatglm: the working folder does not exist any more; change to another folder\n"
