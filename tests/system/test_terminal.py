"""`chatglm chat` on a terminal, typed into as people do."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tmux import Terminal, tmux_server

from chatglm.chat.messages import Message
from chatglm.conversation.store import Store
from chatglm.tools.interpreter.sandbox import protection

HOST = [sys.executable, str(Path(__file__).parent / "terminal_host.py")]
ENGLISH = {"LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", "PYTHONIOENCODING": "utf-8"}
PROMPT = re.compile(r"^(?:\w+ )?> *$")

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs tmux")


class Chat:
    """The program in a terminal, which waits for a line."""

    def __init__(self, terminal: Terminal, home: Path) -> None:
        self.terminal, self.home = terminal, home
        self.ready()

    def ready(self, prompts: int = 0) -> str:
        """Wait for an empty line to type into, of which there have been so many."""

        def right(text: str) -> bool:
            *_, line, bar = ["", "", *text.splitlines()]
            return "Alt+Enter" in bar and PROMPT.match(line) is not None and self.count(text) > prompts

        return self.terminal.until(right)

    @staticmethod
    def count(text: str) -> int:
        return len(re.findall(r"^(?:\w+ )?> ?", text, re.M))

    def ask(self, line: str) -> str:
        """Type a line; returns what is shown of it until the next one may be typed."""
        before = self.count(self.terminal.text())
        self.terminal.type(line)
        self.terminal.keys("Enter")
        text = self.ready(before)
        shown = [found.rstrip() for found in text.rpartition(f"> {line}\n")[2].splitlines()]
        return "\n".join(shown[:-2]).strip()

    def leave(self, *keys: str) -> int:
        """Leave; returns the exit status."""
        self.terminal.keys(*keys or ("C-d",))
        text = self.terminal.until(r"\[status (\d+)\]")
        return int(re.findall(r"\[status (\d+)\]", text)[-1])


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """With a short name: a path that is broken over two lines of the terminal is not found in what it shows."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Chat]]:
    with tmux_server() as server:

        def begin(*arguments: str, home: Path | None = None, **options: Any) -> Chat:
            home = home or tmp_path_factory.mktemp("home")
            more = options.pop("environment", {})
            environment = {**ENGLISH, "CHATGLM_HOME": str(home), "EDITOR": str(editor), **more}
            return Chat(server([*HOST, *arguments], environment=environment, **options), home)

        editor = tmp_path_factory.mktemp("bin") / "editor"
        editor.write_text('#!/bin/sh\nprintf "written\\nelsewhere" > "$1"\n')
        editor.chmod(0o755)
        yield begin


@pytest.fixture(scope="module")
def shared(start: Callable[..., Chat]) -> Chat:
    """One program for many tests."""
    return start("--tools", "examples", "--mode", "chat")


@pytest.fixture
def chat(shared: Chat) -> Chat:
    """It, in a new conversation."""
    shared.ask("/clear")
    shared.ask("/mode chat")
    return shared


# Saying something


def test_answers_are_markdown_printed_once(chat: Chat) -> None:
    out = chat.ask("markdown")
    assert out.startswith("标题\n\n第一段 粗体 和 code，use <div> here.\n\n • 一\n • 二\n\n  def f(x):")
    assert re.search(r"─+\n 北京\s+21\n\n完。$", out)
    assert out.count("第一段") == 1
    out = chat.ask("long")
    assert out.split() == [word for n in range(1, 61) for word in ("第", str(n), "段")]


def test_nothing_that_a_model_says_steers_the_terminal(chat: Chat) -> None:
    assert chat.ask("hostile") == "a]0;ownedb[2Jc31mde"


def test_chinese_and_slashes(chat: Chat) -> None:
    assert chat.ask("你好，世界") == "你说：你好，世界"
    assert chat.ask("//help") == "你说：/help"
    assert chat.ask("/usr/bin 是什么") == "你说：/usr/bin 是什么"
    assert "Did you mean /help?" in chat.ask("/hepl")
    assert "no such command" in chat.ask("/xyzzy")


def test_several_lines(chat: Chat) -> None:
    terminal = chat.terminal
    before = chat.count(terminal.text())
    terminal.paste("一\n/help\n三")
    terminal.keys("Enter")
    assert "3 行：一\n/help\n三" in chat.ready(before)
    before = chat.count(terminal.text())
    terminal.type("a")
    terminal.keys("M-Enter")
    terminal.type("b\\")
    terminal.keys("Enter")
    terminal.type("c")
    terminal.keys("Enter")
    assert "3 行：a\nb\nc" in chat.ready(before)
    before = chat.count(terminal.text())
    for line in ('"""x', "", 'y"""'):
        terminal.type(line)
        terminal.keys("Enter")
    assert "3 行：x\n\ny" in chat.ready(before).replace("行：x\ny", "行：x\n\ny")
    before = chat.count(terminal.text())
    terminal.keys("C-o")
    terminal.until("elsewhere")
    terminal.keys("Enter")
    assert "2 行：written\nelsewhere" in chat.ready(before)


def test_history_and_completion(chat: Chat) -> None:
    chat.ask("findme one")
    chat.ask("another")
    terminal = chat.terminal
    terminal.keys("C-r")
    terminal.type("findme")
    terminal.until("findme one")
    before = chat.count(terminal.text())
    terminal.keys("Enter")
    time.sleep(0.3)
    terminal.keys("Enter")
    assert chat.ready(before).count("你说：findme one") == 2
    terminal.type("/mo")
    terminal.until("talk, use tools")
    terminal.keys("Tab")
    terminal.until(r"> /mode")
    terminal.type(" to")
    terminal.keys("Tab")
    terminal.until(r"> /mode tools")
    terminal.keys("C-c")
    chat.ready()
    file = chat.home / "chat_history"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "findme one" in file.read_text("utf-8")


# Ctrl+C


def test_ctrl_c_stops_an_answer_and_keeps_what_there_is(chat: Chat) -> None:
    terminal = chat.terminal
    before = chat.count(terminal.text())
    terminal.type("slow")
    terminal.keys("Enter")
    terminal.until(r"\b1 2 3 4 5")
    terminal.keys("C-c")
    assert chat.ready(before).rstrip().splitlines()[-4:][0].endswith("[stopped]")
    assert chat.ask("history").startswith("slow | 1 2 3 4 5")


def test_what_is_typed_meanwhile_waits(chat: Chat) -> None:
    terminal = chat.terminal
    terminal.type("slow")
    terminal.keys("Enter")
    terminal.until(r"\b1 2 3")
    terminal.type("typed early")
    terminal.until(r"\b10 11")
    assert "typed" not in terminal.screen()
    terminal.keys("C-c")
    terminal.until(r"> typed early")
    terminal.keys("C-c")
    chat.ready()


def test_ctrl_c_again_and_again_leaves(start: Callable[..., Chat]) -> None:
    chat = start("--no-store")
    chat.terminal.type("slow")
    chat.terminal.keys("Enter")
    chat.terminal.until(r"\b1 2 3")
    while "[status" not in chat.terminal.text():
        chat.terminal.keys("C-c")
        time.sleep(0.2)
    assert chat.leave("Enter") == 130
    assert not {"conversations.sqlite", "chat_history"} & set(os.listdir(chat.home))


# Commands


def test_help(chat: Chat) -> None:
    out = chat.ask("/help")
    for words in ("/mode chat|tools|code|character|documents  ", "/exit", "Ctrl+O"):
        assert words in out
    assert "/帮助" in chat.ask("/help help")
    assert chat.ask("/retry now").startswith("Usage: /retry")


def test_settings(chat: Chat) -> None:
    assert chat.ask("/mode") == "mode: chat"
    assert chat.ask("/mode nonsense").startswith("Usage: /mode")
    assert chat.ask("/system 你是诗人").startswith("system message is now 你是诗人")
    assert chat.ask("history") == "你是诗人 | history"
    assert chat.ask("/system off").startswith("system message is now none")
    assert chat.ask("/params temperature 0.25").startswith("temperature = 0.25\nscores are divided by it")
    assert chat.ask("/params temperature 9e9").startswith("temperature = 9")
    assert "must be" in chat.ask("/params top_p 2")
    assert "did you mean temperature" in chat.ask("/params temprature 1")
    assert "is not an option of generation" in chat.ask("/params options")
    assert chat.ask("/params temperature off").startswith("temperature = 0.5\n")
    assert "repetition_penalty" in chat.ask("/params")
    assert chat.ask("/adapter cafe").startswith("adapter is now cafe")
    assert "there is no 'other'; known: cafe" in chat.ask("/adapter other")
    assert chat.ask("/adapter off").startswith("adapter is now none")
    assert chat.ask("/summary 他喜欢茶").startswith("summary is now 他喜欢茶")
    assert "summary: 他喜欢茶" in chat.ask("/summary")
    assert chat.ask("/summary on").startswith("memory is now on")
    assert chat.ask("/summary off").startswith("memory is now off")


def test_a_download_can_be_stopped(tmp_path: Path) -> None:
    """While a model by its repository's name is fetched, there is no line to type into yet."""
    with tmux_server() as server:
        terminal = server(
            [*HOST, "--model", "somebody/endless"], environment={**ENGLISH, "CHATGLM_HOME": str(tmp_path)}
        )
        terminal.until("downloading")
        terminal.keys("C-c")
        assert "Traceback" not in terminal.until(r"\[status 130\]")


def test_another_model(chat: Chat, tmp_path: Path) -> None:
    assert chat.ask("/model") == "model: demo"
    assert "missing: no such folder" in chat.ask(f"/model {tmp_path / 'missing'}")
    assert chat.ask("still here") == "你说：still here"
    (tmp_path / "mine").mkdir()
    assert chat.ask(f"/model {tmp_path / 'mine'}").startswith("model is now mine")


def test_branches(chat: Chat) -> None:
    assert chat.ask("/turns") == "Nothing has been said yet."
    chat.ask("first")
    chat.ask("second")
    assert chat.ask("/branch") == "No answer here has another version."
    assert chat.ask("/retry") == "你说：second"
    assert re.search(r"4\s+<\s+2/2\s+你说：second", chat.ask("/turns"))
    assert chat.ask("/branch") == "Turn 4, version 2 of 2."
    assert "你说：second" in chat.ask("/branch 1")
    assert re.search(r"4\s+<\s+1/2", chat.ask("/turns"))
    assert "There is no version 7; there are 1 to 2." in chat.ask("/branch 7")
    assert chat.ask("/turns 3") == "second"
    assert chat.ask("/turns 9") == "There is no turn 9; /turns lists 1 to 4."
    before = chat.count(chat.terminal.text())
    chat.terminal.type("/edit 1")
    chat.terminal.keys("Enter")
    chat.terminal.until(r"> first$|> first\n")
    chat.terminal.type(" again")
    chat.terminal.keys("Enter")
    assert "你说：first again" in chat.ready(before + 1)
    assert re.search(r"1\s+>\s+2/2\s+first again\n2\s+<\s+你说：first again", chat.ask("/turns"))
    before = chat.count(chat.terminal.text())
    chat.terminal.type("/undo")
    chat.terminal.keys("Enter")
    chat.terminal.until(r"Taken back.*\n+> first again")
    chat.terminal.keys("C-c")
    chat.ready(before)


def test_conversations_are_found_and_go_on(chat: Chat, tmp_path: Path) -> None:
    chat.ask("今天天气怎么样")
    chat.ask("/clear")
    chat.ask("unrelated")
    assert re.search(r"1\s+今天天气怎么样", chat.ask("/search 天气"))
    assert chat.ask("/search 没有的词") == "Nothing found."
    assert "Continued: 今天天气怎么样" in chat.ask("/load 1")
    assert chat.ask("history").startswith("今天天气怎么样 | 你说：")
    assert "unrelated" in chat.ask("/load")
    assert "no such conversation" in chat.ask("/load abcdef12")
    assert "no such file" in chat.ask("/load ~no-such-user/a.json")
    file, other = tmp_path / "a.json", tmp_path / "b.jsonl"
    assert "written." in chat.ask(f"/save {file}")
    assert [m["role"] for m in json.loads(file.read_text("utf-8"))["messages"]] == ["user", "assistant"] * 2
    before = chat.count(chat.terminal.text())
    chat.terminal.type(f"/save {file}")
    chat.terminal.keys("Enter")
    chat.terminal.until("Overwrite it")
    file.unlink()
    chat.terminal.keys("n")
    chat.ready(before)
    assert not file.exists()
    assert "written." in chat.ask(f"/export jsonl {other}")
    assert json.loads(other.read_text("utf-8"))["messages"][0]["content"] == "今天天气怎么样"
    assert "written." in chat.ask(f"/export md {tmp_path / 'c.md'}")
    assert "今天天气怎么样" in (tmp_path / "c.md").read_text("utf-8")
    assert "Usage: /export" in chat.ask("/export pdf x")
    assert "Conversations read from b.jsonl: 1" in chat.ask(f"/load {other}")
    assert chat.ask("history").startswith("今天天气怎么样 | 你说：")
    assert "conversations.sqlite" in chat.ask(f"/load {chat.home / 'conversations.sqlite'}")


def test_stats(chat: Chat) -> None:
    chat.ask("hello")
    out = chat.ask("/stats").replace("\n", " ")
    assert re.search(r"first token \d\.\d\d s, .* prompt 10 tokens, 0 of them from the cache", out)
    assert "--continue" in out


def test_a_question_without_an_answer_is_saved_as_text_alone(chat: Chat, tmp_path: Path) -> None:
    store = Store(chat.home / "conversations.sqlite")  # as if the power had failed before the answer began
    store.make(store.users.local().id, title="问题", messages=[Message("user", "问题")])
    store.close()
    assert "问题" in chat.ask("/load")
    assert "Continued: 问题" in chat.ask("/load 1")
    assert "no answer to save" in chat.ask(f"/save {tmp_path / 'a.json'}")
    assert not (tmp_path / "a.json").exists()
    assert "written." in chat.ask(f"/save {tmp_path / 'a.md'}")


def test_failures_are_one_line(chat: Chat) -> None:
    assert chat.ask("fail") == "the engine has stopped: no reason"
    assert chat.ask("after") == "你说：after"


# Leaving, and going on


def test_going_on_after_kill_9(start: Callable[..., Chat]) -> None:
    chat = start()
    chat.ask("remember me")
    chat.terminal.type("slow")
    chat.terminal.keys("Enter")
    chat.terminal.until(r"\b1 2 3 4 5")
    time.sleep(1.5)  # an open turn is stored about once a second
    (child,) = (int(line) for line in _children(chat.terminal.pid()))
    os.kill(child, signal.SIGKILL)
    chat.terminal.until(r"\[status 137\]")
    store = Store(chat.home / "conversations.sqlite")  # as if it had been begun on the page
    user = store.users.local().id
    (one,) = store.conversations(user)
    store.configure(user, one.id, {"model": "chatglm3-6b"})
    store.close()
    again = start("--continue", home=chat.home)
    text = again.terminal.text()
    assert "Continued: remember me" in text
    assert "This conversation began with the model chatglm3-6b; demo answers now." in text
    assert "你说：remember me" in text
    assert again.ask("history").startswith("remember me | 你说：remember me | slow | 1 2 3")
    assert again.leave() == 0
    with sqlite3.connect(chat.home / "conversations.sqlite") as database:
        assert database.execute("SELECT count(*) FROM conversations").fetchone() == (1,)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_model_that_cannot_be_loaded_is_one_line(start: Callable[..., Chat], tmp_path: Path) -> None:
    with tmux_server() as server:
        terminal = server(
            [*HOST, "--model", str(tmp_path / "missing")], environment={**ENGLISH, "CHATGLM_HOME": str(tmp_path)}
        )
        text = terminal.until(r"\[status 1\]")
    assert len(re.findall("missing: no such folder", text)) == 1
    assert "Traceback" not in text


def test_the_prompt_is_there_before_the_model(tmp_path: Path) -> None:
    """With the model in the box: one question waits for it; a program that is left at once does not."""
    command = [sys.executable, "-m", "chatglm.cli", "chat", "--temperature", "0"]
    environment = {**ENGLISH, "CHATGLM_HOME": str(tmp_path)}
    with tmux_server() as server:
        left, asked = (server(command, environment=environment) for _ in range(2))
        asked.until("\n> ")
        asked.type("3加5等于几？")
        asked.keys("Enter")
        left.until("loading the model · chat")
        left.keys("C-d")
        assert left.until(r"\[status \d+\]").rstrip().endswith("[status 0]")
        asked.until(r"> 3加5等于几？\n.*=8。\n")
        asked.until("demo · chat")
        asked.keys("C-d")
        text = asked.until(r"\[status \d+\]")
    assert text.rstrip().endswith("[status 0]")
    assert "Traceback" not in text


def test_forty_columns_in_chinese_without_colours(start: Callable[..., Chat]) -> None:
    chinese = {"LC_ALL": "zh_CN.UTF-8", "PYTHONUTF8": "1", "NO_COLOR": "1"}
    chat = start(width=40, height=30, environment=chinese)
    assert "请开始提问" in chat.terminal.text()
    out = chat.ask("markdown")
    assert "第一段 粗体 和 code，use <div> here." in out.replace("\n", "")
    assert "退出程序" in chat.ask("/帮助")
    assert "没有这个命令" in chat.ask("/xyzzy")
    codes = ";".join(re.findall(r"\x1b\[([\d;]*)m", chat.terminal.screen(colors=True)))
    assert not re.search(r"\b(3[0-8]|48|9[0-7])\b", codes)
    assert chat.leave("C-c") == 130


def test_one_question_is_answered_and_not_kept(start: Callable[..., Chat], tmp_path: Path) -> None:
    with tmux_server() as server:
        terminal = server([*HOST, "markdown"], environment={**ENGLISH, "CHATGLM_HOME": str(tmp_path)})
        text = terminal.until(r"\[status 0\]")
    assert text.startswith("标题\n\n第一段 粗体 和 code")
    assert not (tmp_path / "conversations.sqlite").exists()


# Tools and code

TOOLS = """
import time
from typing import Annotated

from chatglm.tools import Consent, register_tool


@register_tool(consent=Consent.ALWAYS)
def delete_all(word: Annotated[str, "a word", True]) -> str:
    \"\"\"Delete everything.\"\"\"
    return f"deleted {word}"


@register_tool
def wait(seconds: Annotated[float, "how long", True]) -> str:
    \"\"\"Wait.\"\"\"
    time.sleep(seconds)
    return "waited"


@register_tool
def lines(count: Annotated[int, "how many", True]) -> str:
    \"\"\"Many lines.\"\"\"
    return "\\n".join(f"line {n}" for n in range(count))
"""


def test_tools(chat: Chat) -> None:
    assert "mode is now tools" in chat.ask("/mode tools")
    out = chat.ask('call calculator {"expression": "6*7"}')
    assert re.search(
        r'我看看。\n\n?╭─ calculator · [\d.]+ m?s ─+╮\n│ expression="6\*7" +│\n│ → .*42.*│\n╰─+╯\n\n工具说：', out
    )
    assert "calculator" in chat.ask("/tools")
    assert re.search(r"calculator\s+off", chat.ask("/tools off calculator"))
    assert re.search(r"failed · ", chat.ask('call calculator {"expression": "6*7"}'))
    assert re.search(r"calculator\s+on", chat.ask("/tools on calculator"))
    assert "Nothing found" in chat.ask("/tools off nonsense")
    assert "calculator" in chat.ask("/turns")
    chat.ask('call calculator {"expression": "六*7"}')
    assert '{"expression": "六*7"}' in chat.ask("/turns 10")


def permit(chat: Chat, line: str, key: str) -> str:
    """Ask, and answer the question that comes up."""
    before = chat.count(chat.terminal.text())
    asked = chat.terminal.text().count("May delete_all be used?")
    chat.terminal.type(line)
    chat.terminal.keys("Enter")
    chat.terminal.until(lambda text: text.count("May delete_all be used?") > asked)
    chat.terminal.keys(key)
    return chat.ready(before).rpartition(f"> {line}\n")[2]


def test_consent_and_ctrl_c_during_a_tool(chat: Chat, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TOOLS)
    assert "delete_all" in chat.ask(f"/tools {tmp_path / 'mine.py'}")
    assert "calculator" in chat.ask("/tools")  # those that were open stay so
    asked = 'call delete_all {"word": "a"}'
    out = permit(chat, asked, "n")
    assert "did not permit it" in out
    assert "deleted" not in out
    assert "deleted a" in permit(chat, asked, "y")
    assert "deleted a" in permit(chat, asked, "a")
    assert "May delete_all be used?" not in chat.ask(asked)
    assert re.search(r"line 4 +│\n│ … more lines: 45; /turns 19 shows all", chat.ask('call lines {"count": 50}'))
    assert "line 49" in chat.ask("/turns 19")
    before = chat.count(chat.terminal.text())
    chat.terminal.type('call wait {"seconds": 30}')
    chat.terminal.keys("Enter")
    chat.terminal.until(r"wait · running")
    chat.terminal.keys("C-c")
    text = chat.ready(before)
    assert "[stopped]" in text.rpartition("seconds")[2]
    assert chat.ask("after") == "你说：after"


def test_ctrl_c_while_somebody_is_asked_stops_the_answer(chat: Chat, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(re.sub(r"\b(delete_all|wait|lines)\(", r"\1_again(", TOOLS))
    chat.ask(f"/tools {tmp_path / 'mine.py'}")
    before = chat.count(chat.terminal.text())
    chat.terminal.type('call delete_all_again {"word": "a"}')
    chat.terminal.keys("Enter")
    chat.terminal.until("May delete_all_again be used?")
    chat.terminal.keys("C-c")
    assert "[stopped]" in chat.ready(before)


def test_code_with_pictures_files_and_ctrl_c(start: Callable[..., Chat], tmp_path: Path) -> None:
    if protection().tier == "none":
        if os.environ.get("CI"):
            pytest.fail("a sandbox must be there in CI")
        pytest.skip("no sandbox on this machine")
    chat = start("--interpreter")
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    assert chat.ask(f"/upload {tmp_path / 'data.csv'}") == "data.csv (8 B) is uploaded."
    assert "is not a regular file" in chat.ask("/upload /dev/null")
    assert "No such file" in chat.ask("/upload nowhere")
    out = chat.ask("code print(open('data.csv').read().upper())")
    assert re.search(r"╭─ Python · [\d.]+ m?s ─", out)
    assert "│ A,B" in out
    assert "ZeroDivisionError" in chat.ask("code 1/0")
    picture = "import struct, zlib; from IPython.display import Image, display; " + PNG
    out = chat.ask(f"code {picture}; display(Image(data=p)); open('made.txt', 'w').write('x')")
    assert re.search(r"▀\n  picture: \S+\.png \(\d+ B\)  /files", out)
    assert "file: made.txt (1 B)" in out
    assert {"data.csv", "made.txt"} <= set(chat.ask("/files").split())
    assert "written." in chat.ask(f"/files made.txt {tmp_path / 'copy.txt'}")
    assert (tmp_path / "copy.txt").read_text() == "x"
    (tmp_path / "my data.csv").write_text("c\n")
    assert chat.ask(f"/upload {tmp_path / 'my data.csv'}") == "my data.csv (2 B) is uploaded."
    assert "written." in chat.ask(f"/files my data.csv {tmp_path / 'my copy.csv'}")
    assert (tmp_path / "my copy.csv").read_text() == "c\n"
    before = chat.count(chat.terminal.text())
    chat.terminal.type("code print('begun'); import time; time.sleep(50)")
    chat.terminal.keys("Enter")
    chat.terminal.until(r"Python · running[^╰]*\n│ begun")
    chat.terminal.keys("C-c")
    assert "[stopped]" in chat.ready(before).rpartition("sleep(50)")[2]
    assert "│ 6 " in chat.ask("code print(2*3)")
    assert chat.leave() == 0


PNG = (
    "c = lambda k, d: struct.pack('>I', len(d)) + k + d + struct.pack('>I', zlib.crc32(k + d)); "
    "p = b'\\x89PNG\\r\\n\\x1a\\n' + c(b'IHDR', struct.pack('>IIBBBBB', 1, 1, 8, 0, 0, 0, 0)) "
    "+ c(b'IDAT', zlib.compress(b'\\0\\0')) + c(b'IEND', b'')"
)


def test_characters(chat: Chat) -> None:
    out = chat.ask("/character tea-house")
    assert "沈清" in out
    assert "欢迎来我的茶馆" in out
    said = chat.ask("history")
    assert "茶馆" in said
    assert said.endswith("history")
    assert "detective" in chat.ask("/character").replace("\n", " ")
    assert "no such file" in chat.ask("/character nobody")
    assert "character is now none" in chat.ask("/character off")


def test_tools_that_a_person_answers(chat: Chat, tmp_path: Path) -> None:
    (tmp_path / "manual.yaml").write_text("- name: ask_friend\n  description: Ask.\n  parameters: {type: object}\n")
    assert "You answer the calls" in chat.ask(f"/tools manual {tmp_path / 'manual.yaml'}")
    before = chat.count(chat.terminal.text())
    chat.terminal.type("call ask_friend {}")
    chat.terminal.keys("Enter")
    chat.terminal.until(r"What does ask_friend answer\?")
    chat.terminal.type("他说好")
    chat.terminal.keys("Enter")
    text = chat.ready(before)
    assert "→ 他说好" in text
    assert "工具说：他说好" in text
    assert "by themselves again" in chat.ask("/tools manual off")


def test_code_with_my_rights_says_so_in_red_and_asks(start: Callable[..., Chat]) -> None:
    chat = start("--code-runs-with-my-rights", "--no-store")
    assert "runs with your own rights" in chat.terminal.text()
    assert re.search(r"\x1b\[[\d;]*31[\d;]*m[^\x1b]*own rights", chat.terminal.screen(colors=True))
    before = chat.count(chat.terminal.text())
    chat.terminal.type("code print(6*7)")
    chat.terminal.keys("Enter")
    chat.terminal.until("May this code run, with your rights")
    chat.terminal.keys("y")
    assert "│ 42" in chat.ready(before)


def test_without_its_packages_it_is_what_it_was(start: Callable[..., Chat], tmp_path: Path) -> None:
    with tmux_server() as server:
        environment = {**ENGLISH, "CHATGLM_HOME": str(tmp_path), "WITHOUT_PACKAGES": "1"}
        terminal = server(HOST, environment=environment)
        terminal.until(r"stop 终止程序\n\n>")
        terminal.type("**你好**")
        terminal.keys("Enter")
        terminal.until(r"> \*\*你好\*\*\n你说：\*\*你好\*\*\n\n>")
        terminal.type("stop")
        terminal.keys("Enter")
        terminal.until(r"\[status 0\]")
    assert not list(tmp_path.iterdir())
