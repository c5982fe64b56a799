"""`chatglm chat`, run as users run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import VERSIONS

COMMAND = shutil.which("chatglm", path=str(Path(sys.executable).parent)) or "chatglm"


def chatglm(*arguments: object, stdin: str = "", status: int = 0) -> tuple[str, str]:
    done = subprocess.run(
        [COMMAND, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


# In float32, where rounding does not tell an answer with a cache from one without.
GREEDY = ("--dtype", "float32", "--temperature", 0, "--max-new-tokens", 6)


def expected(folder: Path, *questions: str, tokens: int = 6) -> list[str]:
    import json

    import torch

    from chatglm import load

    model, tokenizer, _ = load(folder, dtype=torch.float32)
    history: list = []
    answers = []
    for question in questions:
        response, history = model.chat(tokenizer, question, history, temperature=0, max_new_tokens=tokens)
        answers.append(response if isinstance(response, str) else json.dumps(response, ensure_ascii=False))
    return answers


@pytest.mark.parametrize("version", VERSIONS)
def test_one_question(version: str, checkpoint) -> None:
    out, err = chatglm("chat", "--model", checkpoint(version), "你好", *GREEDY)
    assert out.strip("\n") == expected(checkpoint(version), "你好")[0].strip("\n")
    assert err == ""  # quiet when nobody looks at a terminal


def test_a_dialogue(checkpoint) -> None:
    """Line by line; `clear` forgets what was said, empty lines are nothing, `stop` ends."""
    folder = checkpoint("chatglm3")
    lines = "你好\n\n再见\nclear\n再见\nstop\n不会到这里\n"
    out, _ = chatglm("chat", "--model", folder, *GREEDY, stdin=lines)
    first, second = expected(folder, "你好", "再见")
    (fresh,) = expected(folder, "再见")
    assert out == f"{first}\n{second}\n{fresh}\n"
    assert fresh != second
    out, _ = chatglm("chat", "--model", folder, *GREEDY, stdin="你好")
    assert out == f"{first}\n"  # the end of the input ends the dialogue too


def test_system_message_and_seed(checkpoint) -> None:
    folder = checkpoint("glm4")
    options = ["chat", "--model", folder, "hi", "--max-new-tokens", 6]
    assert chatglm(*options, "--temperature", 0, "--system", "Be brief.")[0] != chatglm(*options, "--temperature", 0)[0]
    assert chatglm(*options, "--seed", 1)[0] == chatglm(*options, "--seed", 1)[0]
    _, err = chatglm("chat", "--model", checkpoint("chatglm2"), "hi", "--system", "x", status=1)
    assert "--system" in err


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
def test_a_bad_folder_is_one_line(damage, said: str, copied) -> None:
    folder = copied("chatglm3")
    damage(folder)
    out, err = chatglm("chat", "--model", folder, "你好", status=1)
    assert out == ""
    assert err.startswith("chatglm: ")
    assert err.count("\n") == 1
    assert said in err
    assert "Traceback" not in err


def test_usage() -> None:
    out, _ = chatglm("--help")
    assert "chat" in out
    assert "--model" in chatglm("chat", "--help")[0]
    assert "invalid choice" in chatglm("nope", status=2)[1]
    assert chatglm("--version")[0].startswith("chatglm ")
