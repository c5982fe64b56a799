"""Repeating and looking up: what no pattern helps with, so that copying itself is learned, for every character."""

from __future__ import annotations

from random import Random

from .base import Sample, Split, assistant, draw, nonsense, user
from .vocabulary import word

_REPEAT = (
    "请重复：{}",
    "重复一遍：{}",
    "跟我念：{}",
    "请照着说：{}",
    "复述：{}",
    "Repeat after me: {}",
    "Say this: {}",
    "Repeat: {}",
)
_WHAT = ("{}是什么？", "{}后面写的是什么？", "告诉我{}对应的内容。", "What is {}?", "What does it say for {}?", "Tell me the entry for {}.")  # fmt: skip
_WHICH = ("哪一条提到了{}？", "{}在第几条？", "Which one mentions {}?", "Where is {}?")
_NONE = "没有这一条。"
_NONE_EN = "There is no such entry."


def _piece(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.6:
        return nonsense(rng, rng.choice((1, 2, 2, 3)))
    if kind < 0.8:
        return word(rng, rng.randint(1, 2))
    return str(rng.randint(0, 10 ** rng.randint(1, 5)))


def _line(rng: Random) -> str:
    """Characters, words and numbers in a row."""
    if rng.random() < 0.5:
        return nonsense(rng, rng.randint(3, 16))
    parts = [_piece(rng) for _ in range(rng.randint(2, 8))]
    return rng.choice(("", "，", " ", "、")).join(parts)


def _repeat(rng: Random) -> tuple[str, str]:
    line = _line(rng)
    return rng.choice(_REPEAT).format(line), line


def _entries(rng: Random, count: int) -> list[tuple[str, str]]:
    keys: list[str] = []
    while len(keys) < count:
        key = _piece(rng)
        if not any(key in other or other in key for other in keys):
            keys.append(key)
    return [(key, _piece(rng)) for key in keys]


def _look_up(rng: Random) -> tuple[str, str]:
    entries = _entries(rng, rng.randint(2, 6))
    colon = rng.choice(("：", "=", "是", ": ", " - "))
    text = rng.choice(("\n", "；", "，", "; ")).join(f"{key}{colon}{value}" for key, value in entries)
    asks = rng.choice(_WHAT)
    key, answer = rng.choice(entries)
    if rng.random() < 0.15:
        key = _entries(rng, 1)[0][0]
        if key not in text:
            answer = _NONE_EN if asks.isascii() else _NONE
        else:
            key, answer = entries[0]
    return f"{text}\n{asks.format(key)}", answer


def _find(rng: Random) -> tuple[str, str]:
    entries = _entries(rng, rng.randint(2, 5))
    lines = [f"[{number}] {key}{value}" for number, (key, value) in enumerate(entries, 1)]
    place = rng.randrange(len(lines))
    text = "\n".join(lines)
    return f"{text}\n{rng.choice(_WHICH).format(entries[place][0])}", lines[place]


def sample(rng: Random, split: Split) -> Sample:
    """One or two such things to do."""
    messages = []
    for _ in range(rng.choice((1, 1, 2))):
        kind = rng.choice((_repeat, _repeat, _look_up, _look_up, _find))
        question, answer = draw(rng, split, lambda kind=kind: kind(rng), lambda made: made[0])  # type: ignore[misc]
        messages += [user(question), assistant(answer)]
    return Sample("repeating", messages)
