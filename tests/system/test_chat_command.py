"""`chatglm chat`, run as users run it; where a process more would show nothing, through `main`."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from chatglm.assistant import Assistant
from chatglm.chat.formats import chat_format, postprocess_v1
from chatglm.chat.messages import Message
from chatglm.cli import main
from chatglm.loading import AutoTokenizer, demo_folder, load_parts
from conftest import VERSIONS
from scripted import ScriptedEngine, Writer
from server import serving

COMMAND = shutil.which("chatglm", path=str(Path(sys.executable).parent)) or "chatglm"
ENVIRONMENT = {**os.environ, "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"}


def chatglm(*arguments: object, stdin: str = "", status: int = 0) -> tuple[str, str]:
    done = subprocess.run(
        [COMMAND, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        env=ENVIRONMENT,
    )
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """`chatglm chat` in this process: what it writes to stdout and stderr."""

    def run(*arguments: object, lines: tuple[str, ...] = (), status: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        assert main(["chat", *map(str, arguments)]) == status
        return tuple(capsys.readouterr())

    return run


@pytest.fixture
def over(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Writer, ScriptedEngine]]:
    """Make the command talk to an engine that says what it is told, in the format of a folder."""

    def put(say: Callable[[Writer], list[list[int]]], folder: Path | None = None, **options: Any) -> Any:
        write = Writer(chat_format(AutoTokenizer.from_pretrained(folder or demo_folder())))
        engine = ScriptedEngine(*say(write), **options)
        assistant = Assistant(write.form, engine)  # type: ignore[arg-type]
        monkeypatch.setattr("chatglm.cli.chat.open_assistant", lambda arguments: assistant)
        return write, engine

    return put


# In float32, where rounding does not tell an answer with a cache from one without.
GREEDY = ("--dtype", "float32", "--temperature", 0, "--max-new-tokens", 6)


def expected(folder: Path, *questions: str, history: tuple[dict[str, str], ...] = ()) -> list[str]:
    """What the official method answers, with as many tokens more as the reply has blanks in front: it counts them, and
    the command does not (differences: lead-uncounted).
    """
    model, tokenizer, _ = load_parts(folder, dtype=torch.float32)
    turns: list[Any] = list(history)
    answers = []
    generate, made = model.generate, []

    def record(*arguments: Any, **options: Any) -> Any:
        out = generate(*arguments, **options)
        given = arguments[0] if arguments else options["input_ids"]
        made.append(out[0, given.shape[1] :].tolist())
        return out

    model.generate = record
    for question in questions:
        model.chat(tokenizer, question, turns, temperature=0, max_new_tokens=6)
        blank = [tokenizer.token_bytes(token).isspace() for token in made[-1]]
        lead = blank.index(False) if False in blank else len(blank)
        response, turns = model.chat(tokenizer, question, turns, temperature=0, max_new_tokens=6 + lead)
        assert isinstance(response, str)  # random weights may write what is no well-formed call either
        answers.append(response)
    return answers


QUESTIONS = ("你好", "我叫小明，你呢？", "What is my name?", "3+5=?")


@pytest.mark.parametrize("version", [*VERSIONS, "demo"])
def test_answers_are_those_of_model_chat(version: str, checkpoint, chat) -> None:
    folder = demo_folder() if version == "demo" else checkpoint(version)
    out, err = chat("--model", folder, *GREEDY, lines=QUESTIONS)
    assert out == "".join(f"{answer}\n" for answer in expected(folder, *QUESTIONS))
    assert err == ""  # quiet when nobody looks at a terminal


def test_the_command_itself(checkpoint) -> None:
    """One question; line by line; `clear` forgets what was said, empty lines are nothing, `stop` ends."""
    folder = checkpoint("chatglm3")
    first, second = expected(folder, "你好", "再见")
    (fresh,) = expected(folder, "再见")
    assert fresh != second
    assert chatglm("chat", "--model", folder, "你好", *GREEDY) == (f"{first}\n", "")
    lines = "你好\n\n再见\nclear\n再见\nstop\n不会到这里\n"
    assert chatglm("chat", "--model", folder, *GREEDY, stdin=lines) == (f"{first}\n{second}\n{fresh}\n", "")


def test_the_end_of_the_input_ends_the_dialogue(checkpoint, chat) -> None:
    folder = checkpoint("chatglm3")
    assert chat("--model", folder, *GREEDY, lines=("你好",))[0] == f"{expected(folder, '你好')[0]}\n"


@pytest.mark.parametrize("version", ["chatglm3", "glm4"])
def test_system_message(version: str, checkpoint, chat) -> None:
    folder = checkpoint(version)
    said = expected(folder, *QUESTIONS[:2], history=({"role": "system", "content": "Be brief."},))
    assert said != expected(folder, *QUESTIONS[:2])
    out, _ = chat("--model", folder, *GREEDY, "--system", "Be brief.", lines=("忘掉", "clear", *QUESTIONS[:2]))
    assert out.endswith("".join(f"{answer}\n" for answer in said))


@pytest.mark.parametrize("version", ["chatglm", "chatglm2"])
def test_no_place_for_a_system_message(version: str, checkpoint, chat) -> None:
    assert "--system" in chat("--model", checkpoint(version), "hi", "--system", "x", status=1)[1]


def test_sampling_is_obeyed(checkpoint, chat) -> None:
    options = ["--model", checkpoint("glm4"), "--max-new-tokens", 8, "hi"]
    first, again, other = (chat(*options, "--seed", seed)[0] for seed in (1, 1, 2))
    assert first == again != other
    nearly_greedy = chat(*options, "--seed", 2, "--top-p", 0.001)[0]
    assert nearly_greedy == chat(*options, "--temperature", 0)[0] != other


# What is shown besides


FIGURES = re.compile(
    r"\[first token (\d+\.\d+) s, (\d+\.\d) tokens/s, (\d+) tokens; prompt (\d+) tokens, (\d+) of them from the cache\]"
)


def test_figures(chat) -> None:
    begin = time.perf_counter()
    out, err = chat("--verbose", lines=QUESTIONS[:3])
    whole = time.perf_counter() - begin
    assert out == chat(lines=QUESTIONS[:3])[0]
    found = FIGURES.findall(err)
    assert len(found) == err.count("\n") == 3
    form = chat_format(AutoTokenizer.from_pretrained(demo_folder()))
    turns: list[Message] = []
    held = 0
    for question, answer, (first, rate, made, prompt, cached) in zip(QUESTIONS, out.splitlines(), found, strict=False):
        turns.append(Message("user", question))
        assert int(prompt) == len(form.prompt(turns))
        # A further turn computes what is new: the last token of an answer, and the question.
        assert int(cached) == held
        reply = form.example([*turns, Message("assistant", answer)])[0][int(prompt) :]
        held = int(prompt) + len(reply) - 1
        # Blanks that a reply begins with are not counted (differences: lead-uncounted).
        lead = [form.tokenizer.token_bytes(token).isspace() for token in reply].index(False)
        assert int(made) == len(reply) - lead
        assert 0 <= float(first) < whole
        assert float(rate) > (int(made) - 1) / whole
        turns.append(Message("assistant", answer))
    (figures,) = re.findall(r".+", chat("--verbose", "--max-new-tokens", 1, "你好")[1])
    assert re.fullmatch(r"\[first token \S+ s, 1 token; prompt \d+ tokens, 0 of them from the cache\]", figures)


def test_left_out_turns_are_told(over, chat) -> None:
    over(lambda write: [write.say("好的。")], context=64)
    out, err = chat(lines=("一二三四五六七八九十" * 2,) * 3)
    assert out == "好的。\n" * 3
    assert re.fullmatch(r"(\[the context is too short; oldest turns left out: \d of \d\]\n)+", err)


def test_calls_are_readable(over, chat) -> None:
    calls = [("get_weather", {"city": "北京", "days": 2}), ("now", {})]
    over(lambda write: [write.call(*calls, text="我看看。"), write.call(calls[1])])
    out, _ = chat(lines=("天气", "几点"))
    text, *lines = out.splitlines()
    assert text == "我看看。"
    assert [json.loads(line) for line in lines] == [
        {"name": name, "parameters": parameters} for name, parameters in (*calls, calls[1])
    ]
    assert "北京" in out


def test_an_answer_does_not_control_the_terminal(over, chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --lines, or without the packages for a terminal."""
    over(lambda write: [write.say("\x1b[31m红\x07\r\n\t🙂")])
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdout", screen)
    chat("--lines", "红")
    assert screen.getvalue() == "[31m红\n\t🙂\n"


def test_a_pipe_gives_the_answers_and_nothing_else(over, chat) -> None:
    """Byte for byte: no prompt, no colours, no commands but `clear` and `stop`; what looks like one is a question."""

    def replies(write: Writer) -> list[list[int]]:
        texts = ("# 标题\n\n**粗**  [链接](http://a)\n\n| a |\n", "\x1b[31m红\x07 \t🙂", "", "/", "end")
        call = write.call(("now", {"zone": "东"}), text="我看看。")
        return [*map(write.say, texts), call, write.call(("now", {}))]

    _, engine = over(replies)
    lines = ("你好", "", "   ", "/help", "clear", "/usr/bin", "//", '"""', "clear ", "/clear", "\x1b[A", "退出", "c")
    out, err = chat(lines=lines)
    assert out.encode() == WAS
    assert err == ""
    read = AutoTokenizer.from_pretrained(demo_folder())
    asked = [read.decode(one.ids) for one in engine.asked]
    assert ["标题" in prompt for prompt in asked] == [False, True, False, False, False, False, False]
    assert all(line in prompt for line, prompt in zip(("你好", "/help", "/usr/bin"), asked, strict=False))


WAS = (
    "# 标题\n\n**粗**  [链接](http://a)\n\n| a |\n"
    "\x1b[31m红\x07 \t🙂\n"
    "\n/\nend\n"
    '我看看。\n{"name": "now", "parameters": {"zone": "东"}}\n{"name": "now", "parameters": {}}\n'
).encode()


class Pieces(io.StringIO):
    """Remembers what was written at a time; Ctrl-C comes once, at a word."""

    def __init__(self, interrupt_at: str = "") -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.interrupted = threading.Event()
        self._interrupt_at = interrupt_at

    def write(self, text: str) -> int:
        self.pieces.append(text)
        if self._interrupt_at and self._interrupt_at in self.getvalue() + text and not self.interrupted.is_set():
            self.interrupted.set()
            self.interrupt()
        return super().write(text)

    def interrupt(self) -> None:
        raise KeyboardInterrupt


def test_text_streams_in_whole_characters_as_it_stays(over, chat, checkpoint, monkeypatch) -> None:
    """ChatGLM-6B's half-width punctuation becomes full width beside Chinese, which is known a character later."""
    text = "你好,world!再见:好;你 ?吗? 𠮷🙂[[训练时间]],ok"
    over(lambda write: [write.say(text)], checkpoint("chatglm"))
    pieces = Pieces()
    monkeypatch.setattr(sys, "stdout", pieces)
    chat("问")
    (told,) = {decoded(checkpoint("chatglm"), text)}
    assert pieces.getvalue() == f"{postprocess_v1(told)}\n"
    assert "你好，world" in told.replace(",", "，")
    assert len(pieces.pieces) > 10
    assert not any("�" in piece for piece in pieces.pieces)


def decoded(folder: Path, text: str) -> str:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return str(tokenizer.decode(tokenizer.encode_text(text)))


# Ctrl-C


def test_an_answer_that_is_interrupted_is_forgotten(over, chat, monkeypatch) -> None:
    stdout = Pieces("two")

    def wait() -> None:
        if engine.made > 20:  # the first answer is not over before it is interrupted
            assert stdout.interrupted.wait(60)

    write, engine = over(lambda write: [write.say("one two three " * 50), write.say("好")], watch=wait)
    monkeypatch.setattr(sys, "stdout", stdout)
    chat(lines=("first", "second", "third"))
    assert stdout.getvalue().splitlines()[1:] == ["好", "好"]
    assert engine.aborted == engine.asked[:1]
    asked = [Message("user", "second"), Message("assistant", "好"), Message("user", "third")]
    assert [one.ids for one in engine.asked[1:]] == [write.form.prompt(asked[:1]), write.form.prompt(asked)]


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C works, even where the tests run in a shell's background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Dropping(Pieces):
    """Where Ctrl-C comes in a finalizer, whose exceptions Python drops."""

    def interrupt(self) -> None:
        class Last:
            def __del__(self) -> None:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(1000):  # here Python notices
                    pass

        Last()


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_in_a_finalizer_is_not_lost(over, chat, monkeypatch, ctrl_c) -> None:
    stdout = Dropping("two")

    def wait() -> None:
        if engine.made > 20:
            assert stdout.interrupted.wait(60)

    _, engine = over(lambda write: [write.say("one two three " * 50), write.say("好")], watch=wait)
    monkeypatch.setattr(sys, "stdout", stdout)
    chat(lines=("first", "second"))
    assert stdout.getvalue().splitlines()[1:] == ["好"]
    assert engine.aborted == engine.asked[:1]


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_ends_the_answer_not_the_dialogue(ctrl_c) -> None:
    long = [
        "--min-new-tokens",
        "1500",
        "--max-new-tokens",
        "1500",
        "--stop",
        "闲聊",
    ]  # which the second answer soon says
    process = subprocess.Popen(
        [COMMAND, "chat", *long, "--threads", "1", "--verbose"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write("你好\n".encode())
        process.stdin.flush()
        begun = process.stdout.read(12)  # it speaks
        process.send_signal(signal.SIGINT)
        out, err = process.communicate("你会什么\nstop\n".encode(), timeout=300)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, err.decode()
    *broken, answer = (begun + out).decode().splitlines()
    assert broken[0].startswith("你好")
    assert answer == "我会"
    (figures,) = FIGURES.findall(err.decode())  # of the second answer alone
    form = chat_format(AutoTokenizer.from_pretrained(demo_folder()))
    assert int(figures[3]) == len(form.prompt([Message("user", "你会什么")]))


# Where the model is


def test_remote(checkpoint, chat) -> None:
    write = Writer(chat_format(AutoTokenizer.from_pretrained(demo_folder())))
    replies = [write.say("你好 🙂 there"), write.say("再见"), write.call(("now", {"zone": "东"}))]
    with (
        Assistant(write.form, ScriptedEngine(*replies)) as assistant,  # type: ignore[arg-type]
        serving({"demo": assistant}) as url,
    ):
        out, err = chat("--remote", f"{url}/v1", "--verbose", "--system", "s", "--top-k", 5, lines=("a", "b", "c"))
        asked = assistant._engine.asked  # type: ignore[attr-defined]
    assert out == '你好 🙂 there\n再见\n{"name": "now", "parameters": {"zone": "东"}}\n'
    said = [Message("system", "s"), Message("user", "a"), Message("assistant", "你好 🙂 there"), Message("user", "b")]
    assert asked[1].ids == write.form.prompt(said)
    assert {one.params.top_k for one in asked} == {5}
    assert len(FIGURES.findall(err)) == 3


SHOW = """
import sys, torch
from chatglm.cli import main
from chatglm.kernels import native
assert main(["chat", "你好", "--max-new-tokens", "1", *sys.argv[1:]]) == 0
count = torch.get_num_threads()
print(native.info().threads if native.library() else count, count, file=sys.stderr)
"""


@pytest.mark.parametrize(("arguments", "threads"), [(["--threads", "1"], "1 1"), ([], "2 2")])
def test_threads(arguments: list[str], threads: str) -> None:
    """Native kernels and torch obey alike: the option, and where it is not given the variable."""
    done = subprocess.run(
        [sys.executable, "-c", SHOW, *arguments],
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, "CHATGLM_NUM_THREADS": "2"},
        timeout=300,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == threads


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--threads", "0"], "--threads 0: must be at least 1"),
        (["--device", "abacus"], "device 'abacus' cannot be used"),
        (["--top-p", "2"], "top_p is 2.0; it must be above 0, at most 1"),
        (["--max-new-tokens", "0"], "max_new_tokens is 0"),
        (["--remote-model", "x"], "--remote-model"),
        *((["--remote", "http://x", f"--{option}", "1"], f"--{option}") for option in ("model", "prefix", "threads")),
        (["--remote", "http://x", "--dtype", "float16"], "--dtype"),
    ],
)
def test_wrong_options_are_one_line(arguments: list[str], words: str, chat) -> None:
    out, err = chat("你好", *arguments, status=1)
    assert out == ""
    assert err.startswith("chatglm: ")
    assert words in err
    assert err.count("\n") == 1


def test_characters_need_their_description(copied, chat, tmp_path: Path) -> None:
    folder = copied("chatglm2")
    plain = chat("--model", folder, "--max-new-tokens", "3", "--verbose", "hi")[1]
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "chatglm_generation": "characterglm"}))
    assert "--character NAME|FILE" in chat("--model", folder, "hi", status=1)[1]
    (tmp_path / "role.yaml").write_text("bot_name: 李白\nbot_info: 李白是唐代诗人。\n", "utf-8")
    _, err = chat("--model", folder, "--persona", tmp_path / "role.yaml", "--max-new-tokens", "3", "--verbose", "hi")
    assert int(err.partition("prompt ")[2].split()[0]) > int(plain.partition("prompt ")[2].split()[0])


def test_a_persona_is_played(chat, tmp_path: Path) -> None:
    (tmp_path / "role.json").write_text(
        json.dumps({"bot_name": "苏梦远", "bot_info": "苏梦远是一位当红的歌手。"}), "utf-8"
    )
    assert "苏梦远" in chat("--persona", tmp_path / "role.json", "--temperature", "0", "你叫什么名字？")[0]


@pytest.mark.parametrize("version", [*VERSIONS, "characterglm"])
def test_every_generation_plays_a_character(version: str, copied, chat) -> None:
    folder = copied("chatglm2" if version == "characterglm" else version)
    if version == "characterglm":
        config = json.loads((folder / "config.json").read_text("utf-8"))
        (folder / "config.json").write_text(json.dumps({**config, "chatglm_generation": version}))
    options = ("--model", folder, "--max-new-tokens", "3", "--verbose", "你好")
    _, err = chat(*options, "--character", "tea-house")
    assert int(err.partition("prompt ")[2].split()[0]) > 60  # the description, the greeting and the examples


def test_a_character_greets(chat, tmp_path: Path) -> None:
    greeting = "你好，我是沈清。欢迎来我的茶馆，请坐。"
    options = ("--character", "tea-house", "--temperature", "0")
    out, _ = chat(*options, lines=("你叫什么名字？", "clear", "你的家乡是哪里？", "stop"))
    first, name, again, home = out.splitlines()
    assert (first, again) == (greeting, greeting)
    assert "沈清" in name
    assert "杭州" in home
    assert greeting not in chat(*options, "你叫什么名字？")[0]
    card = {"name": "Ada", "description": "You come from London.", "first_mes": "\x1b]0;title\x07Hello, I am {{char}}."}
    (tmp_path / "card.json").write_text(json.dumps(card))
    out, _ = chat("--character", tmp_path / "card.json", "--temperature", "0", lines=("Where are you from?",))
    assert out == "]0;titleHello, I am Ada.\nI come from London.\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bot_name: [1", "not valid YAML"),
        ("- a", "expected names with texts"),
        ("nme: x", "unknown name 'nme'"),
        ("bot_name: 3", "bot_name: expected a text"),
        ("[" * 100000, "not valid YAML"),
        ("#" * 300000, "larger than"),
        (None, "tea-house"),
    ],
)
def test_wrong_personas_are_one_line(text: str | None, words: str, chat, tmp_path: Path) -> None:
    file = tmp_path / "role.yaml"
    if text is not None:
        file.write_text(text)
    out, err = chat("你好", "--character", file, status=1)
    assert (out, err.count("\n")) == ("", 1)
    assert f"--character: {file}: " in err
    assert words in err


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: shutil.rmtree(f), "no such folder"),
        (lambda f: (f / "config.json").unlink(), "config.json: no such file"),
        (lambda f: (f / "tokenizer.model").unlink(), "tokenizer.model: no such file"),
        (lambda f: (f / "pytorch_model-00002-of-00002.bin").unlink(), "pytorch_model-00002-of-00002.bin"),
        (lambda f: (f / "pytorch_model-00001-of-00002.bin").write_bytes(b"PK"), "pytorch_model-00001-of-00002.bin"),
        (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "'bert'"),
    ],
)
def test_a_bad_folder_is_one_line(damage, said: str, copied, chat) -> None:
    folder = copied("chatglm3")
    damage(folder)
    out, err = chat("--model", folder, "你好", status=1)
    assert out == ""
    assert err.startswith("chatglm: ")
    assert err.count("\n") == 1
    assert said in err


def test_a_home_that_does_not_exist_is_one_line(chat) -> None:
    _, err = chat("--model", "~no-such-user/x", "你好", status=1)
    assert err.startswith("chatglm: ~no-such-user/x: no such folder")


def test_usage() -> None:
    out, _ = chatglm("--help")
    assert "chat" in out
    said, _ = chatglm("chat", "--help")
    assert all(option in said for option in ("--model", "--threads", "--top-k", "--remote"))
    assert "invalid choice" in chatglm("nope", status=2)[1]
    assert "--threads: invalid int value: 'many'" in chatglm("chat", "--threads", "many", status=2)[1]
    assert chatglm("--version")[0].startswith("chatglm ")
