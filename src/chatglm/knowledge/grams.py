"""Grams: the index terms of texts and of questions. Only this module defines them.

Chinese text gives single characters and pairs (unigrams and bigrams): 知识库 gives 知, 知识, 识, 识库, 库. This needs
no dictionary, also works for new names, and finds more than the words of a dictionary. Kana and Hangul are handled in
the same way. Other scripts give whole words and numbers. Text is first folded (normalised): full-width letters become
half-width (Unicode NFKC), case and accents are removed, traditional characters become simplified. A line break between
two Chinese characters is removed.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from chatglm.knowledge.older_words import older
from chatglm.knowledge.variants import SIMPLIFIED

__all__ = ["VERSION", "WIDE", "folded", "grams", "grams_of", "is_word", "older_grams", "question_grams"]

VERSION = 1
"""Increase this number when the results of this module change. Bases are then indexed again when they are opened."""

WIDE = (
    "\u3005-\u3007\u3040-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Characters that give single characters and pairs (Chinese, kana, Hangul), as ranges for a regular expression."""
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
    """Normalise a text. Each of `grams(text)` is a substring of the result."""
    plain = _UNUSUAL.sub(lambda found: _folded_character(found[0]), text).lower().translate(SIMPLIFIED)
    plain = _GROUPS.sub(lambda found: found[0].replace(",", ""), plain)
    return _WRAP.sub("", plain) if "\n" in plain else plain


def is_word(gram: str) -> bool:
    """Whether a gram is a word or a number, and not a Chinese (kana, Hangul) character or pair."""
    return _IS_WIDE.match(gram) is None


def grams_of(plain: str) -> list[str]:
    """The grams of a text that `folded` has already normalised, in order, with repetitions."""
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
    """The grams of a text, in order, with repetitions."""
    return grams_of(folded(text))


def question_grams(question: str) -> list[str]:
    """The grams of a question, each once, without question words (什么, 怎么, 吗 …). If nothing is left, the question
    words stay."""
    plain = folded(question)
    return list(dict.fromkeys(grams_of(_QUESTION.sub(" ", plain)) or grams_of(plain)))


def older_grams(question: str) -> list[str]:
    """The grams of older Chinese words that mean the same as words of the question. An old text may use those instead.

    A word gives its pairs, or itself if it has one character. Each gram occurs once; grams of the question are left
    out.
    """
    own = set(question_grams(question))
    found: dict[str, None] = {}
    for word in older(_QUESTION.sub(" ", folded(question))):
        found.update(dict.fromkeys([word] if len(word) == 1 else [word[at : at + 2] for at in range(len(word) - 1)]))
    return [gram for gram in found if gram not in own]
