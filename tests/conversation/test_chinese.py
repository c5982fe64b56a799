"""Errors in Chinese: every pattern is a sentence of the package's, and the usual faults have one."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatglm.characters import Character
from chatglm.chat.files import read_file
from chatglm.conversation.chinese import _PARTS, SENTENCES, option, said
from chatglm.conversation.importing import read_conversations
from chatglm.conversation.prompts import manual_tools
from chatglm.conversation.settings import Settings
from chatglm.conversation.store import Store, StoreLimits
from chatglm.errors import ChatGLMError
from chatglm.params import SamplingParams

SOURCE = Path(__file__).parents[2] / "src" / "chatglm"


def shape(text: str) -> str:
    """A pattern without the names of its places."""
    return re.sub(r"\{\}(\{\})*", "{}", re.sub(r"\{[^{}]*\}", "{}", text))


def shapes_of(node: ast.expr) -> list[str]:
    """What a literal may be: conditional parts are places."""
    match node:
        case ast.Constant(value=str(text)):
            return [shape(text.replace("{", "").replace("}", "") if "{" in text else text)]
        case ast.JoinedStr():
            parts = [[one.value] if isinstance(one, ast.Constant) else _choices(one.value) for one in node.values]
            found = [""]
            for part in parts:
                found = [front + one for front in found for one in part]
            return [shape(one) for one in found]
    return []


def _choices(node: ast.expr) -> list[str]:
    if isinstance(node, ast.IfExp) and all(isinstance(one, ast.Constant) for one in (node.body, node.orelse)):
        return ["{}", str(node.body.value), str(node.orelse.value)]  # type: ignore[attr-defined]
    return ["{}"]


def test_every_pattern_is_a_sentence_of_the_package() -> None:
    known = set()
    for file in SOURCE.rglob("*.py"):
        if file.name != "chinese.py" and file.parent.name not in ("kernels", "quantization"):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.expr):
                    known.update(shapes_of(node))
    composed = (
        "This model's",
        "max_length is",
        "{name} is {value}",
        "{name} is not an option",
        "{where}: not valid JSON",
        "{name}: no such file; names",
        "row {n}: a row with",
        "{variant}: the best",
        "the request could not begin",
        "the answer could not be read",
        "this answer failed",
    )  # of several literals
    assert [one for one in SENTENCES if shape(one) not in known and not one.startswith(composed)] == []


def test_both_languages_have_the_same_places() -> None:
    for english, chinese in {**SENTENCES, **_PARTS}.items():
        places = [{name for _, name, _, _ in string.Formatter().parse(text) if name} for text in (english, chinese)]
        assert places[1] <= places[0], english
        assert re.search(r"[\u4e00-\u9fff]", chinese), english
        assert not re.search(r"[,;?!] |[\u4e00-\u9fff][,;:?!]", chinese), f"{chinese}: punctuation"
        assert not chinese.endswith(("。", ".")), chinese  # a part of another sentence, perhaps


@given(st.text(max_size=60))
def test_what_nobody_has_translated_stays(text: str) -> None:
    assert said(text, "en") == text
    assert said(text) if text else said(text) == ""


def test_what_is_quoted_in_a_sentence() -> None:
    assert said("model: there is no 'gpt'; known: demo") == "没有模型“gpt”，可选：demo"
    assert said("tools: there is no 'a'; known: none") == "没有工具“a”，可选：无"
    assert said("a.png: not a PNG file") == "a.png 不是 PNG 文件"
    assert said("卡.json: the card has no name") == "卡.json：角色卡没有名称"
    assert said("/x/y.txt: No such file or directory") == "/x/y.txt：没有这个文件或文件夹"
    assert said("temperature is -1; it must be from 0 to 100") == "temperature 不能是 -1，应为 0 到 100 的数"
    assert said("nobody knows this") == "nobody knows this"
    assert said("x: " * 5_000) == "x: " * 5_000


def _params(**given: Any) -> Callable[[Path], object]:
    return lambda folder: SamplingParams.from_dict(given)


def _card(data: bytes, name: str = "a.json") -> Callable[[Path], object]:
    return lambda folder: Character.from_bytes(data, name)


def _stored(work: Callable[[Store, int, str], object], **limits: int) -> Callable[[Path], object]:
    def run(folder: Path) -> object:
        store = Store(folder / "c.sqlite", limits=StoreLimits(**limits)) if limits else Store(folder / "c.sqlite")
        try:
            user = store.users.local().id
            return work(store, user, store.make(user))
        finally:
            store.close()

    return run


@pytest.mark.parametrize(
    "wrong",
    [
        _params(temperature=-1),
        _params(temperature="warm"),
        _params(top_k=1.5),
        _params(top_p=7),
        _params(seed="x"),
        _params(max_new_tokens=0),
        _params(stop=""),
        _params(temprature=1),
        _params(zzzz=1),
        _card(b"{"),
        _card(b"[1]"),
        _card(b'{"spec": "chara_card_v2", "data": {"description": "x"}}'),
        _card(b"no picture", "a.png"),
        _card(b"no zip", "a.charx"),
        _card(b"\xff\xfe\xfd", "a.yaml"),
        lambda folder: Character.named("nobody"),
        lambda folder: Character.read(folder / "nothing.json"),
        lambda folder: read_conversations(b""),
        lambda folder: read_conversations(b"\xff\xfe"),
        lambda folder: read_file(folder / "nothing", 1),
        lambda folder: read_file(folder, 1),
        lambda folder: manual_tools("x" * 100_000),
        lambda folder: manual_tools("[]"),
        lambda folder: Settings(params={"n": 2}).check(),
        _stored(lambda store, user, name: store.conversation(user, "0" * 32)),
        _stored(lambda store, user, name: store.make(user), conversations=1),
        _stored(lambda store, user, name: store.tree(user, name).turn(7)),
        _stored(lambda store, user, name: store.rate(user, name, 7, 1)),
    ],
)
def test_usual_faults_are_told_in_chinese(wrong: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises((ChatGLMError, OSError)) as raised:
        wrong(tmp_path)
    told = said(str(raised.value))
    assert re.search(r"[\u4e00-\u9fff]", told), told
    rest = told.replace(str(tmp_path), "")
    assert not re.search(r"[A-Za-z]{2,} [a-z]{2,} [a-z]{2,}", rest), told


def test_options_are_explained_in_chinese() -> None:
    assert option("seed", "…").startswith("种子")
    assert option("unknown", "as it says") == "as it says"
