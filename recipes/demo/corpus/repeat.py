"""Repeating and looking up: what no pattern helps with, so that copying itself is learned, for every character."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from . import chat, memory, passages
from .base import CITIES, FIRST, GIVEN, SURNAMES, Sample, Split, assistant, draw, form, nonsense, user
from .vocabulary import ANIMALS, ANIMALS_EN, FOODS, FOODS_EN, HOBBIES, JOBS, NOUNS_EN, THINGS, THINGS_EN, word
from .wording import spread

_REPEAT = spread(
    "(请|麻烦|请你|帮我|)(重复|复述|重说|复读)(一遍|一下|一次|)(：|:|，)[]", "(请|你|)(重复|复述|复读)(下面|后面|以下|这)(的|)(一句|句|)(话|内容|文字)：[]", "(重复|复述)(我的话|我说的话|我的)(：|，| |:)[]", "(请|)(跟|和|随)(我|着我)(念|说|读|一起念)(一遍|一下|)(：|，| |:)[]",
    "(请|你|)(说|念|读|念一下|说一下|读一下|念一遍|读一遍)(：|:)[]", "(请|)把“[]”(再|)(说|念|重复|写|读)一遍", "(学我说|学我说话|照着说|照着念|原样返回|原样输出|照抄|抄一遍|输出|打印|回复)(：|:| )[]", "“[]”，(请|)(重复|复述|再说)(一遍|一下|)", "(请|)(重复|复述|念)[]", "[]\n(请|)(重复|复述)(上面|前面|这)(的|)(话|一句|句子)",
)  # fmt: skip
_REPEAT_EN = spread(
    "(please |can you |)(repeat|say|echo)( after me| this| the following| these words|)(: |, )[]", "(please |)(repeat|say|echo|read|write) [MARK][]MARK]", "(say|repeat) it back: []", "(copy|print|output|return|type) this: []", "[]\n(please |)(repeat|say) (that|this|it|the sentence)( again|)", "(repeat|say|read aloud) the (sentence|words|line|text)(: |:\n)[]",
)  # fmt: skip
_REPEAT_EN = [each.replace("[MARK]", '"').replace("MARK]", '"') for each in _REPEAT_EN]
_WHAT = (
    "{}是什么？",
    "{}后面写的是什么？",
    "{}？",
    "查一下{}。",
    "{}对应的是什么",
    "{}呢",
    "{}是多少",
    "告诉我{}",
    "{}那一行写的是什么？",
    "{}：？",
    "请问{}是什么",
    "表里{}是什么？",
    "{}的值",
)
_WHAT_EN = (
    "What is {}?",
    "What does it say for {}?",
    "{}?",
    "Look up {}.",
    "what's {}",
    "tell me {}",
    "find {}",
    "what is the value of {}",
    "{}: ?",
    "what stands behind {}?",
    "give me {} please",
)
_THEN = ("{}呢？", "那{}呢？", "{}？", "还有{}呢", "{}", "再看看{}", "那{}")
_THEN_EN = ("And {}?", "{}?", "What about {}?", "and {}", "how about {}", "also {}", "now {}")
_WHOSE = ("哪个是{}？", "{}是哪个？", "哪一行写着{}？")
_WHOSE_EN = ("Which one is {}?", "Which line says {}?")
_WORDS = [*FOODS, *HOBBIES, *JOBS, *THINGS, *ANIMALS, *CITIES]
_KEYS_EN = [*ANIMALS_EN, *NOUNS_EN]  # "What is …?" needs the singular
_WORDS_EN = [*_KEYS_EN, *FOODS_EN, *THINGS_EN]


def _name(rng: Random) -> str:
    return rng.choice(SURNAMES) + "".join(rng.choices(GIVEN, k=rng.choice((1, 2))))


def _number(rng: Random) -> str:
    return str(rng.randint(1, 10 ** rng.choice((2, 2, 3, 4))))


def _word(rng: Random) -> str:
    return rng.choice(_WORDS)


def _line(rng: Random, split: Split, chinese: bool) -> str:
    """What is to be repeated: in Chinese mostly of any characters. Or a few sentences: what long quotes are made of."""
    luck = rng.random()
    if luck < 0.15:
        return passages.text(rng, split, chinese, rng.choice((1, 2, 2, 3, 3, 4)))
    if luck < 0.35:  # a sentence that would be answered by itself
        return _sentence(rng, split, chinese)

    def several(most: int, mark: str, make: Callable[[Random], str]) -> str:
        # Different ones: this side has few short numbers, and would have many that come twice.
        return mark.join(dict.fromkeys(draw(rng, split, lambda: make(rng)) for _ in range(rng.randint(1, most))))

    kind = rng.random()
    if kind < 0.1:
        return several(3, " ", _number)
    if not chinese:
        if kind < 0.55:
            return several(3, " ", lambda rng: word(rng, rng.randint(1, 2)))
        return several(3, rng.choice((" ", ", ")), lambda rng: rng.choice(_WORDS_EN))
    if kind < 0.75:
        return draw(rng, split, lambda: nonsense(rng, rng.choice((2, 3, 3, 4, 4, 5, 6, 8))))
    return several(3, rng.choice(("", "，", "、")), rng.choice((_word, _word, _name)))


def _sentence(rng: Random, split: Split, chinese: bool) -> str:
    """What people say to the model; here it is only a text."""
    kind = rng.random()
    if kind < 0.3:
        return chat.cannot(rng, split, not chinese)[0].strip()
    if kind < 0.6:
        subjects = {**chat.GREETINGS, **chat.IDENTITY, **chat.MANUAL}
        return chat.ask(rng, split, subjects, not chinese)[0].strip()
    return memory.remark(rng, split, not chinese).strip()


def _repeat(rng: Random, split: Split) -> list[tuple[str, str]]:
    """One or two things to repeat."""
    chinese = rng.random() < 0.65
    turns = []
    for _ in range(rng.choice((1, 1, 2))):
        line = _line(rng, split, chinese)
        asked = form(rng, split, _REPEAT if chinese else _REPEAT_EN)
        if not chinese and rng.random() < 0.5:
            asked = asked[0].upper() + asked[1:]
        turns.append((asked.replace("[]", line), line))
    return turns


def _key(rng: Random, chinese: bool) -> str:
    kind = rng.random()
    if not chinese:
        return rng.choice(FIRST) if kind < 0.4 else rng.choice(_KEYS_EN) if kind < 0.75 else word(rng, 2)
    return _name(rng) if kind < 0.3 else _word(rng) if kind < 0.65 else nonsense(rng, 2)


def _value(rng: Random, chinese: bool) -> str:
    kind = rng.random()
    return _number(rng) if kind < 0.4 else _key(rng, chinese) if chinese or kind < 0.7 else rng.choice(_WORDS_EN)


def _look_up(rng: Random, split: Split) -> list[tuple[str, str]]:
    """A list of keys and values and one or two questions for a key. The answer is the line of the list."""
    chinese = rng.random() < 0.65
    colon, none = ("：", "没有。") if chinese else (": ", "not there.")
    keys: list[str] = []
    count = rng.choice((2, 3, 3, 4, 5))
    while len(keys) <= count:  # the last one is not in the list
        key = draw(rng, split, lambda: _key(rng, chinese))
        if not any(key in other or other in key for other in keys):
            keys.append(key)
    entries: dict[str, str] = {}
    for key in keys[:-1]:
        while (made := draw(rng, split, lambda: _value(rng, chinese))) in {*keys, *entries.values()}:
            pass
        entries[key] = made
    mark = rng.choice(("\n", "\n", "\n", "；" if chinese else "; "))
    shown = colon if rng.random() < 0.7 else rng.choice((" ", "=", " = ", "\t", " - ", ":"))
    text = mark.join(f"{key}{shown}{made}" for key, made in entries.items())
    if split == "train" and rng.random() < 0.3:
        # By the value, as a tool is found by its description: what is to be said stands before what is asked for.
        key, made = rng.choice(list(entries.items()))
        return [(f"{text}\n{rng.choice(_WHOSE if chinese else _WHOSE_EN).format(made)}", f"{key}{colon}{made}")]
    turns = []
    for number, key in enumerate(rng.sample(keys[:-1], rng.choice((1, 1, 2)))):
        if rng.random() < 0.15:
            key = keys[-1]
        asks = (_THEN if number else _WHAT) if chinese else (_THEN_EN if number else _WHAT_EN)
        ask = form(rng, split, asks).format(key)
        turns.append((ask if number else f"{text}\n{ask}", f"{key}{colon}{entries.get(key, none)}"))
        if key not in entries:
            break
    return turns


def sample(rng: Random, split: Split) -> Sample:
    """Something to repeat, or a list to look up in."""
    turns = draw(rng, split, lambda: rng.choice((_repeat, _look_up))(rng, split), lambda made: made[0][0])
    messages = [message for question, answer in turns for message in (user(question), assistant(answer))]
    return Sample("repeating", messages)
