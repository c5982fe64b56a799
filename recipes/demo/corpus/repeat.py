"""Repeating and looking up: what no pattern helps with, so that copying itself is learned, for every character."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from . import passages
from .base import CITIES, FIRST, GIVEN, SURNAMES, Sample, Split, assistant, draw, nonsense, user
from .vocabulary import ANIMALS, ANIMALS_EN, FOODS, FOODS_EN, HOBBIES, JOBS, NOUNS_EN, THINGS, THINGS_EN, word

_REPEAT = ("请重复：{}", "重复一遍：{}", "跟我念：{}", "复述：{}")
_REPEAT_EN = ("Repeat: {}", "Repeat after me: {}", "Say: {}")
_WHAT = ("{}是什么？", "{}后面写的是什么？", "{}？", "查一下{}。")
_WHAT_EN = ("What is {}?", "What does it say for {}?", "{}?", "Look up {}.")
_THEN = ("{}呢？", "那{}呢？", "{}？")
_THEN_EN = ("And {}?", "{}?", "What about {}?")
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
    if rng.random() < 0.15:
        return passages.text(rng, split, chinese, rng.choice((1, 2, 2, 3, 3, 4)))

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


def _repeat(rng: Random, split: Split) -> list[tuple[str, str]]:
    """One or two things to repeat."""
    chinese = rng.random() < 0.65
    turns = []
    for _ in range(rng.choice((1, 1, 2))):
        line = _line(rng, split, chinese)
        turns.append((rng.choice(_REPEAT if chinese else _REPEAT_EN).format(line), line))
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
    mark = rng.choice(("\n", "\n", "；" if chinese else "; "))
    text = mark.join(f"{key}{colon}{made}" for key, made in entries.items())
    if split == "train" and rng.random() < 0.3:
        # By the value, as a tool is found by its description: what is to be said stands before what is asked for.
        key, made = rng.choice(list(entries.items()))
        return [(f"{text}\n{rng.choice(_WHOSE if chinese else _WHOSE_EN).format(made)}", f"{key}{colon}{made}")]
    turns = []
    for number, key in enumerate(rng.sample(keys[:-1], rng.choice((1, 1, 2)))):
        if rng.random() < 0.15:
            key = keys[-1]
        ask = rng.choice((_THEN if number else _WHAT) if chinese else (_THEN_EN if number else _WHAT_EN)).format(key)
        turns.append((ask if number else f"{text}\n{ask}", f"{key}{colon}{entries.get(key, none)}"))
        if key not in entries:
            break
    return turns


def sample(rng: Random, split: Split) -> Sample:
    """Something to repeat, or a list to look up in."""
    turns = draw(rng, split, lambda: rng.choice((_repeat, _look_up))(rng, split), lambda made: made[0][0])
    messages = [message for question, answer in turns for message in (user(question), assistant(answer))]
    return Sample("repeating", messages)
