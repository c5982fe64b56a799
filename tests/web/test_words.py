"""What the page says, in both languages."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest

import chatglm.web
from chatglm.conversation.settings import MODES
from chatglm.params import SamplingParams
from chatglm.web.words import _WORDS, LANGUAGES, Words, language_of

_FOLDER = Path(chatglm.web.__file__).parent


def test_all_words_are_there_in_both_languages_with_the_same_places() -> None:
    for key, texts in _WORDS.items():
        assert len(texts) == len(LANGUAGES)
        places = [{name for _, name, _, _ in string.Formatter().parse(text) if name} for text in texts]
        assert places[0] == places[1], key
        assert all(text.strip() for text in texts), key
        assert not re.search(r"[\u4e00-\u9fff]", texts[1]), f"{key}: the English words are Chinese"


def test_templates_and_code_ask_for_words_that_are_there() -> None:
    asked: set[str] = set()
    for file in [*_FOLDER.glob("templates/*.html"), *_FOLDER.glob("*.py")]:
        asked |= set(re.findall(r'\bt\("([\w.]+)"[,)]', file.read_text("utf-8")))
    assert len(asked) > 80
    assert asked - set(_WORDS) == set()
    for mode in MODES:
        for key in (f"mode.{mode}", f"mode.{mode}.about", f"empty.{mode}", f"ask.placeholder.{mode}"):
            assert key in _WORDS


def test_scripts_ask_for_words_that_are_there() -> None:
    asked: set[str] = set()
    for file in _FOLDER.glob("static/*.js"):
        asked |= set(re.findall(r'\bwords?(?:\.|\(")(\w+)', file.read_text("utf-8")))
    known = {key.removeprefix("js.") for key in _WORDS if key.startswith("js.")}
    assert asked & known


def test_every_option_is_explained_in_chinese_too() -> None:
    t = Words("zh")
    for option in SamplingParams.options():
        if option.kind in ("number", "integer", "strings") and option.name not in ("n", "logprobs", "prompt_logprobs"):
            assert re.search(r"[\u4e00-\u9fff]", t.option(option.name, option.help)), option.name
            assert Words("en").option(option.name, option.help) == option.help


@pytest.mark.parametrize(
    ("accepted", "kept", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "", "zh"),
        ("en-US,en;q=0.9,zh;q=0.8", "", "en"),
        ("de,fr;q=0.9,zh-TW;q=0.2", "", "zh"),
        ("de", "", "en"),
        ("", "", "en"),
        ("zh;q=0, en;q=0.1", "", "en"),
        ("en;q=nonsense, zh;q=0.1", "", "zh"),
        ("en", "zh", "zh"),
        ("zh", "fr", "zh"),
        ("," * 5000, "", "en"),
    ],
)
def test_the_language_of_a_browser(accepted: str, kept: str, language: str) -> None:
    assert language_of(accepted, kept) == language


def test_words_within_a_script_cannot_end_it() -> None:
    from chatglm.web.words import json_for_script

    assert "<" not in json_for_script({"a": "</script><!--"})
