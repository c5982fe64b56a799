"""`chatglm chat` in a pipe, where it does more than ask and answer: tools, JSON, conversations that go on."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from terminal_host import Scripted, use

from chatglm.cli import main
from chatglm.conversation.store import Store
from chatglm.knowledge import open_base

HOST = [sys.executable, str(Path(__file__).parent / "terminal_host.py")]
Run = Callable[..., tuple[str, str]]


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The command in this process, with an assistant that says what it is told: what goes to stdout and stderr."""
    monkeypatch.setenv("CHATGLM_HOME", str(tmp_path / "home"))
    use(lambda name, made: monkeypatch.setattr(f"{name}.open_assistant", made))

    def run(*arguments: str, lines: tuple[str, ...] = (), status: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        assert main(["chat", *arguments]) == status
        return tuple(capsys.readouterr())

    return run


def told(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_events_as_json(chat: Run, tmp_path: Path) -> None:
    out, err = chat("--json", lines=("你好", "", "fail", "clear", "history", "stop", "never"), status=1)
    events = told(out)
    kinds = [event["event"] for event in events]
    assert kinds[:3] == ["began", "title", "began"]
    assert [event["message"] for event in events if event["event"] == "failed"] == ["the engine has stopped: no reason"]
    assert "".join(event["text"] for event in events if event["event"] == "text") == "你说：你好history"
    assert err == ""
    assert not (tmp_path / "home" / "conversations.sqlite").exists()
    _, err = chat("fail", "--json", status=1)
    assert err == ""


@pytest.mark.parametrize("encoding", ["ascii", "gbk", "latin-1", "utf-8"])
def test_json_is_json_in_every_encoding(encoding: str, chat: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Characters that the encoding of stdout lacks would become escapes that JSON does not have."""
    written = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding, write_through=True))
        chat("--json", "café 你 😀")
        out = written.getvalue().decode(encoding)
    assert "".join(event["text"] for event in told(out) if event["event"] == "text") == "你说：café 你 😀"


def test_the_model_searches_bases_by_a_tool(chat: Run, tmp_path: Path) -> None:
    (tmp_path / "安全.txt").write_text("灭火器在门口右侧。", "utf-8")
    with open_base("手册", create=True) as base:
        base.add(tmp_path / "安全.txt")
    call = 'call search_knowledge {"question": "灭火器放在哪里？"}'
    for options in (("--tools", "calculator"), ("--mode", "tools")):
        out = chat(call, "--json", "--knowledge", "手册", *options)[0]
        outcome = next(event for event in told(out) if event["event"] == "answered")
        assert outcome["text"] == "[1] 《安全.txt》\n灭火器在门口右侧。", outcome
        assert "安全.txt 0–9" in outcome["whole"]
    out = chat(call, "--json", "--tools", "calculator")[0]  # without bases there is no such tool
    assert "not found" in next(event for event in told(out) if event["event"] == "answered")["text"]


def test_numbers_grow_and_the_last_event_is_the_end(chat: Run) -> None:
    events = told(chat("--json", "markdown")[0])
    assert [event["number"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["event"] == "done"
    assert events[-1]["finish"] == "stop"


def test_conversations_go_on(chat: Run, tmp_path: Path) -> None:
    assert chat("--continue", "first")[0] == "你说：first\n"  # there is none yet, and it is kept
    assert chat("--continue", lines=("history",))[0] == "first | 你说：first | history\n"
    (name,) = {event["turn"] for event in told(chat("--continue", "--json", "x")[0]) if event["event"] == "done"}
    assert name == 6
    assert chat("plain")[0] == "你说：plain\n"
    assert chat("history", "--continue", "--system", "s")[0].startswith("s | first | ")
    assert chat("history", "--continue")[0].startswith("s | first | ")  # settings stay
    _, err = chat("x", "--continue", "0123456789abcdef", status=1)
    assert err == "chatglm: conversation '0123456789abcdef': no such conversation\n"


def test_a_conversation_of_the_page_goes_on(chat: Run, tmp_path: Path) -> None:
    """The page names models as its server does, which means nothing here."""
    chat("--continue", "first")
    store = Store(tmp_path / "home" / "conversations.sqlite")
    user = store.users.local().id
    (one,) = store.conversations(user)
    store.configure(user, one.id, {"model": "chatglm3-6b", "adapter": "poems", "theme": "dark"})
    out, err = chat("--continue", "history")
    assert out == "first | 你说：first | history\n"
    assert err == (
        "chatglm: this conversation began with the model chatglm3-6b; demo answers now\n"
        "[the model has no adapter 'poems'; it answers without one]\n"
    )
    assert store.conversation(user, one.id).settings == {"model": "chatglm3-6b", "adapter": "poems", "theme": "dark"}
    store.configure(user, one.id, {"model": "demo"})
    assert chat("--continue", "x")[1] == ""
    store.close()


def test_tools(chat: Run, tmp_path: Path) -> None:
    asked = 'call calculator {"expression": "6*7"}'
    out, err = chat("--tools", "examples", asked, "--verbose")
    assert out.startswith("我看看。工具说：")
    assert "42" in out
    assert err.startswith('[calculator {"expression": "6*7"} → ')
    assert "first token" in err
    (tmp_path / "mine.py").write_text(
        "from typing import Annotated\nfrom chatglm.tools import Consent, register_tool\n\n\n"
        "@register_tool(consent=Consent.ALWAYS)\ndef piped_delete(word: Annotated[str, 'a word', True]) -> str:\n"
        '    """Delete."""\n    return f"deleted {word}"\n'
    )
    asked = 'call piped_delete {"word": "a"}'
    options = ("--tools", str(tmp_path / "mine.py"))
    assert "did not permit" in chat(*options, asked)[0]
    assert "deleted a" in chat(*options, "--tools-without-asking", asked)[0]
    kinds = [event["event"] for event in told(chat(*options, "--json", asked)[0])]
    assert [kind for kind in kinds if kind in ("called", "asked", "answered")] == ["called", "asked", "answered"]


def test_an_answer_that_fails_is_one_line(chat: Run) -> None:
    out, err = chat("--continue", "fail", status=1)
    assert (out, err) == ("", "chatglm: the engine has stopped: no reason\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tools-without-asking"], "--tools-without-asking: there are no tools"),
        (
            ["--tools", "examples", "--tools-without-asking", "--code-runs-with-my-rights"],
            "--tools-without-asking: cannot be used with --code-runs-with-my-rights",
        ),
        (["--mode", "character"], "--character NAME|FILE"),
        (["--no-store", "--continue"], "--no-store"),
        (["--lines", "--json"], "--lines: cannot be used with --json"),
        (["--tools", "nowhere.py"], "nowhere.py"),
        (["--json", "--top-p", "7"], "top_p is 7.0"),
    ],
)
def test_options_that_cannot_be(arguments: list[str], words: str, chat: Run) -> None:
    out, err = chat(*arguments, status=1)
    assert out == ""
    assert words in err
    assert err.count("\n") == 1


def test_no_sandbox_no_interpreter(chat: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from chatglm.tools.interpreter import sandbox

    found = sandbox.Protection("none", {"landlock": "the kernel has none"})
    monkeypatch.setattr(sandbox, "protection", lambda: found)
    _, err = chat("--interpreter", "code print(1)", status=1)
    assert "cannot be confined on this machine (landlock: the kernel has none)" in err
    assert "--code-runs-with-my-rights" in err


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("question", [True, False])
def test_ctrl_c_ends_the_answer(question: bool, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*HOST, "--json", *(["slow"] if question else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "CHATGLM_HOME": str(tmp_path), "PYTHONIOENCODING": "utf-8"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if not question:
            process.stdin.write("slow\n")
            process.stdin.flush()
        while '"text": "1 2' not in (line := process.stdout.readline()):
            assert line
        process.send_signal(signal.SIGINT)
        while (event := json.loads(process.stdout.readline()))["event"] != "done":
            pass
        assert event["finish"] == "stopped"
        out, _ = process.communicate("" if question else "again\n", timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == (130 if question else 0)
    assert ("你说：" in out) is not question


@pytest.mark.skipif(os.name != "posix", reason="a pipe whose reader has left")
def test_a_reader_that_leaves(tmp_path: Path) -> None:
    command = '"$@" --json slow | head -n 3; exit "${PIPESTATUS[0]}"'
    done = subprocess.run(
        ["bash", "-c", command, "bash", *HOST],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "CHATGLM_HOME": str(tmp_path), "PYTHONIOENCODING": "utf-8"},
    )
    assert (done.returncode, done.stderr) == (141, "")


def test_the_host_is_an_assistant() -> None:
    with Scripted() as assistant:
        assert assistant.defaults.temperature == 0.5
