"""What is looked for in texts, and what of a question is looked for: the only place that knows it.

Of Chinese, its characters and their pairs: 知识库 is 知, 知识, 识, 识库, 库. That needs no dictionary, knows every new
name, and finds more than a dictionary's words do. Kana and Hangul are taken likewise. Of other scripts, whole words and
numbers. Letters are folded: full-width to plain ones (Unicode's NFKC), no case, no accents, traditional characters to
simplified ones. A line break between two Chinese characters is none.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from chatglm.knowledge.older_words import older
from chatglm.knowledge.variants import SIMPLIFIED

__all__ = ["VERSION", "WIDE", "folded", "grams", "grams_of", "is_word", "older_grams", "question_grams"]

VERSION = 1
"""Whoever changes what this module returns adds one, and bases are indexed anew."""

WIDE = (
    "\u3005-\u3007\u3040-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Characters of scripts that are written without spaces, as ranges of an expression."""
_TOKEN = re.compile(rf"[{WIDE}]+|[0-9]+(?:\.[0-9]+)+|[^\W_{WIDE}]+")
_IS_WIDE = re.compile(f"[{WIDE}]")
_UNUSUAL = re.compile(r"[^\x00-\x7f\u3001-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
_WRAP = re.compile(rf"(?<=[{WIDE}，、；：])[ \t]*\n[ \t\u3000]*(?=[{WIDE}])")
_GROUPS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])")
_WORD_CHARACTERS = 64

_QUESTION = re.compile(
    "我?想知道|为什么|为何|是什么|什么(?:样|时候)?|怎么[样办]?|怎样|如何|多[少久大长高远]|哪[些里儿个一位年]?|几[个次岁年]?|谁"
    "|吗|呢|吧|啊|呀|么|是否|有没有|能否|可否|请问|请|告诉|最[后终]|到底|究竟|[一总]共|[的了是在有和与及或被把这那它其]"
)


@lru_cache(8192)
def _folded_character(character: str) -> str:
    folded = unicodedata.normalize("NFKC", character)
    plain = "".join(each for each in unicodedata.normalize("NFD", folded) if not 0x300 <= ord(each) < 0x370)
    return unicodedata.normalize("NFC", plain).casefold()


def folded(text: str) -> str:
    """A text as its grams see it: each of `grams(text)` is a substring of it."""
    plain = _UNUSUAL.sub(lambda found: _folded_character(found[0]), text).lower().translate(SIMPLIFIED)
    plain = _GROUPS.sub(lambda found: found[0].replace(",", ""), plain)
    return _WRAP.sub("", plain) if "\n" in plain else plain


def is_word(gram: str) -> bool:
    """Whether a gram is a whole word or number, and not of a script without spaces."""
    return _IS_WIDE.match(gram) is None


def grams_of(plain: str) -> list[str]:
    """The grams of a text that is `folded` already."""
    found: list[str] = []
    for match in _TOKEN.finditer(plain):
        run = match[0]
        if not _IS_WIDE.match(run):
            found.append(run[:_WORD_CHARACTERS])
            continue
        last = len(run) - 1
        for at in range(last):
            found.append(run[at])
            found.append(run[at : at + 2])
        found.append(run[last])
    return found


def grams(text: str) -> list[str]:
    """The grams of a text, in its order, each as often as it stands there."""
    return grams_of(folded(text))


def question_grams(question: str) -> list[str]:
    """Those of a question, without its question words; all of them if nothing else is left. Each once."""
    plain = folded(question)
    return list(dict.fromkeys(grams_of(_QUESTION.sub(" ", plain)) or grams_of(plain)))


def older_grams(question: str) -> list[str]:
    """Those that an old text may have instead: of older words for the question's. Of a word its pairs, or the word if
    it is one character. Each once, and none that the question has itself."""
    own = set(question_grams(question))
    found: dict[str, None] = {}
    for word in older(_QUESTION.sub(" ", folded(question))):
        found.update(dict.fromkeys([word] if len(word) == 1 else [word[at : at + 2] for at in range(len(word) - 1)]))
    return [gram for gram in found if gram not in own]
