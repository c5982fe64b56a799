"""What `preview` prints: all of what training sees, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chatglm import AutoTokenizer
from chatglm.chat.formats import chat_format
from chatglm.errors import InputError
from chatglm.training.examples import IGNORE, Example, encode_files
from chatglm.training.preview import preview, show
from conftest import VERSIONS

MESSAGES = [
    {"role": "user", "content": "你好 😀"},
    {"role": "assistant", "content": "你好！\n再见"},
    {"role": "user", "content": "\x1b[31mhi"},
    {"role": "assistant", "content": "Bye."},
    {"role": "user", "content": "unseen"},
]


@pytest.fixture(scope="session")
def formats(checkpoint: Callable[[str], Path]) -> dict[str, Any]:
    return {name: chat_format(AutoTokenizer.from_pretrained(checkpoint(name))) for name in VERSIONS}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "a.jsonl"
    silent = {"prompt": "a", "response": "b", "loss": False}
    rows = [{"messages": MESSAGES}, silent, {"prompt": "c", "response": "d"}, {"prompt": "e", "response": "f"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_without_color(formats, data: Path) -> None:
    lines = list(preview(data, formats["glm4"], limit=1, color=False))
    text = "\n".join(lines)
    assert lines[0] == f"── {data}:1 (messages): 23 tokens, 11 learned ──"
    assert (
        "[gMASK]<sop><|user|>\n你好 😀<|assistant|>⟦\n你好！\n再见<|user|>⟧\n␛[31mhi<|assistant|>⟦\nBye.<|user|>⟧\n"
        in text
    )
    assert "unseen" not in text  # nothing behind the last learned token is trained on
    assert "\x1b" not in text
    assert f"{data}:3" not in text
    assert re.fullmatch(
        r"4 dialogues \(1 messages, 3 pairs\): 3 examples, \d+ tokens, \d+ learned \(\d+\.\d%\)", lines[-2]
    )
    assert lines[-1] == "without anything to learn: 1 dialogue"


def test_data_do_not_steer_the_terminal(formats, tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps({"prompt": "a\x9b31mb\x9dc", "response": "\x07d"}), "utf-8")
    text = "\n".join(preview(file, formats["glm4"], color=False))
    assert "a\ufffd31mb\ufffdc" in text
    assert "\u2407d" in text


def test_color(formats, data: Path) -> None:
    text = "\n".join(preview(data, formats["glm4"], limit=1, color=True))
    green, plain = "\x1b[32m", "\x1b[0m"
    assert f"{green}你好！{plain}\n{green}再见<|user|>{plain}\n␛[31mhi\x1b[2m<|assistant|>{plain}\n{green}Bye." in text
    assert "⟦" not in text
    assert re.sub(r"\x1b\[\d*m", "", text).startswith(f"── {data}:1")


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("kind", VERSIONS)
def test_what_stands_in_color_is_what_is_learned(kind: str, color: bool, formats, data: Path) -> None:
    tokenizer = formats[kind].tokenizer
    for _, examples in encode_files(data, formats[kind]):
        for example in examples:
            text = show(example, tokenizer, color)
            pattern = r"\x1b\[32m(.*?)\x1b\[0m" if color else r"⟦(.*?)⟧"
            marked = "".join(re.findall(pattern, text, re.DOTALL))
            bare = "".join(
                dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)).get(token)
                or tokenizer.token_bytes(token).decode()
                for token in example.targets
                if token != IGNORE
            )
            assert marked == (bare.replace("\n", "") if color else bare)
            assert "�" not in text


def test_a_target_that_is_not_the_next_input_is_shown(formats) -> None:
    tokenizer = formats["glm4"].tokenizer
    a, b, c = tokenizer.encode_text("一") + tokenizer.encode_text("二") + tokenizer.encode_text("三")
    example = Example([a, b, a], [IGNORE, c, IGNORE], (range(3),))
    assert show(example, tokenizer, color=False) == "一二⟦三⟧"


def test_several_examples_and_nothing_learned(formats, data: Path) -> None:
    lines = list(preview(data, formats["chatglm"], limit=9, color=False))
    assert any(line.startswith(f"── {data}:1 (messages), example 2 of 2: ") for line in lines)
    assert f"── {data}:2 (pairs): nothing is learned ──" in lines


def test_cut_and_skipped_rows_are_counted(formats, data: Path) -> None:
    with data.open("a") as opened:
        opened.write("{}\n")
    with pytest.raises(InputError, match=r"a\.jsonl:5: "):
        list(preview(data, formats["glm4"], limit=0))
    lines = list(preview(data, formats["glm4"], limit=9, max_length=12, skip_bad_rows=True, color=False))
    assert sum(line.endswith("learned, cut ──") for line in lines) == 1
    assert "too long and cut between rounds: 1 dialogue; not learned, as they do not fit at all: 1 turn" in "\n".join(
        lines
    )
    assert lines[-2] == "skipped: 1 bad row"
    assert lines[-1].startswith(f"  {data}:5: a row with the fields (none)")
