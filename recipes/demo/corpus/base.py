"""What every grammar shares: a sample, the split into learned and held out, and values to fill in."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, TypeVar

Split = Literal["train", "test"]
T = TypeVar("T")


@dataclass(frozen=True)
class Sample:
    """One dialogue.

    Attributes:
        skill: the row of the model card that it counts for.
        messages: OpenAI-shaped dicts: role, content, tool_calls …
        tools: on offer, if any.
        must: for each assistant message, the strings that a right answer contains; None: exactly that answer. A tool
            call is always compared whole.
    """

    skill: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = field(default_factory=list)
    must: list[tuple[str, ...] | None] | None = None


def held_out(text: str) -> bool:
    """Whether a sentence or value is kept from training: one in ten, by its checksum, whoever asks."""
    return zlib.crc32(text.encode()) % 10 == 0


_kept_forms = False


@contextmanager
def of_kept_forms() -> Iterator[None]:
    """The other side, made of forms that were kept from training wherever there are any; else it has learned ones."""
    global _kept_forms
    _kept_forms = True
    try:
        yield
    finally:
        _kept_forms = False


def form(rng: Random, split: Split, forms: Sequence[T]) -> T:
    """One of several ways to say something. One in eight of them is kept from training, whatever is filled in."""
    kept = [each for each in forms if zlib.crc32(f"form {each}".encode()) % 8 == 0]
    learned = [each for each in forms if each not in kept]
    return rng.choice((kept if _kept_forms and split == "test" else learned) or forms)


LISTED: set[str] = set()
"""Words of the closed world: the lists that values are taken from. They are known on both sides of the split; what is
held out are sentences, and values that are made up or put together. `known` adds to them.
"""
_LISTED_IN_TEST = 0.3
"""On the other side a listed word is taken less often, so that unseen values are met often enough."""


def known(words: Iterable[str]) -> None:
    """These are words of the closed world."""
    LISTED.update(words)


PHRASES: set[str] = set()
"""What the tokenizer has one piece for, besides words: what sentences are put together from. `one_piece` adds to them."""


def one_piece(phrases: Iterable[str]) -> None:
    """These are not to be taken apart, so that what belongs together stands side by side."""
    PHRASES.update(phrases)


def draw(rng: Random, split: Split, make: Callable[[], T], text: Callable[[T], str] = str) -> T:
    """Make things until one is on the right side of the split.

    Raises:
        RuntimeError: a grammar that is too small to have such a thing.
    """
    for _ in range(2000):
        made = make()
        name = text(made)
        if text is str and name in LISTED:  # a value; what has a text of its own is a sentence
            if split == "train" or rng.random() < _LISTED_IN_TEST:
                return made
        elif held_out(name) == (split == "test"):
            return made
    raise RuntimeError(f"no {split} sentence in 2000 tries; the last was {text(made)!r}")


def persistently(make: Callable[[], T], error: type[Exception] = RuntimeError) -> T:
    """Make it until it does not end in that error: where there were too few ways to have one on this side."""
    while True:
        try:
            return make()
        except error:
            continue


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": "", "tool_calls": [{"name": name, "arguments": arguments}]}


def observation(text: str) -> dict[str, Any]:
    return {"role": "tool", "content": text}


# Values

COMMON = [bytes([0xA1 + row, 0xA1 + cell]).decode("gb2312") for row in range(15, 54) for cell in range(94)] + [
    bytes([0xA1 + 54, 0xA1 + cell]).decode("gb2312") for cell in range(89)
]
"""The 3,755 common characters of GB 2312's first level."""

SURNAMES = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文"
GIVEN = "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华文辉建国玲红梅云峰兰凤洁琳素珍莉飞鹏宇浩然子轩欣怡梓涵一诺雨桐晨曦思远佳慧志远海燕春生小龙晓东雪松天宇若冰梦瑶清扬秋月冬阳立新永康德胜成林振华少华家豪俊熙书瑶语嫣安琪"
FIRST = [
    "Alice", "Bob", "Carol", "David", "Emma", "Frank", "Grace", "Henry", "Iris", "Jack", "Kate", "Leo", "Mary", "Nick",
    "Olivia", "Paul", "Quinn", "Rose", "Sam", "Tina", "Uma", "Victor", "Wendy", "Xavier", "Yara", "Zoe", "Aaron", "Bella",
    "Chris", "Diana", "Ethan", "Fiona", "George", "Hannah", "Ivan", "Julia", "Kevin", "Laura", "Mike", "Nora", "Oscar",
    "Peter", "Ruby", "Steve", "Tom", "Lucy", "Jerry", "Linda", "Martin", "Sophie",
]  # fmt: skip
CITIES = [
    "北京", "上海", "广州", "深圳", "杭州", "南京", "苏州", "武汉", "成都", "重庆", "西安", "天津", "青岛", "大连", "厦门", "宁波",
    "长沙", "郑州", "济南", "合肥", "福州", "昆明", "贵阳", "南宁", "海口", "三亚", "桂林", "珠海", "东莞", "佛山", "无锡", "常州",
    "扬州", "绍兴", "温州", "金华", "台州", "嘉兴", "湖州", "泉州", "漳州", "南昌", "九江", "赣州", "烟台", "威海", "潍坊", "临沂",
    "太原", "大同", "石家庄", "保定", "唐山", "秦皇岛", "沈阳", "长春", "哈尔滨", "吉林", "呼和浩特", "包头", "银川", "兰州", "西宁",
    "乌鲁木齐", "拉萨", "香港", "澳门", "台北", "洛阳", "开封", "宜昌", "襄阳", "株洲", "岳阳", "张家界", "丽江", "大理", "绵阳", "乐山",
]  # fmt: skip
TOWNS = [
    "London", "Paris", "Berlin", "Tokyo", "New York", "Boston", "Chicago", "Seattle", "Madrid", "Rome", "Vienna", "Oslo",
    "Dublin", "Sydney", "Toronto", "Beijing", "Shanghai", "Singapore", "Bangkok", "Mumbai", "Cairo", "Lima", "Prague",
    "Warsaw", "Athens", "Lisbon", "Moscow", "Seoul", "Osaka", "Milan", "Munich", "Zurich", "Geneva", "Denver", "Dallas",
    "Houston", "Miami", "Montreal", "Delhi", "Jakarta",
]  # fmt: skip
known((*CITIES, *TOWNS, *FIRST))
_ONSETS = ["b", "br", "c", "ch", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "pl", "qu", "r", "s", "sh", "st", "t", "tr", "v", "w", "z", ""]  # fmt: skip
_RIMES = ["a", "an", "ar", "e", "el", "en", "er", "i", "in", "ix", "o", "on", "or", "u", "um", "us", "y", "ay", "ee", "oo", "ack", "ell", "ing", "ock", "ump"]  # fmt: skip


def pick(rng: Random, values: Sequence[T], split: Split) -> T:
    """A value of the split's side of a list."""
    return draw(rng, split, lambda: rng.choice(values))


def nonsense(rng: Random, length: int = 2) -> str:
    """Common characters at random: what no pattern helps with must be copied."""
    return "".join(rng.choices(COMMON, k=length))


def word(rng: Random, syllables: int | None = None) -> str:
    """A made-up word of Latin letters."""
    return "".join(rng.choice(_ONSETS) + rng.choice(_RIMES) for _ in range(syllables or rng.randint(1, 3))) or "la"


def person(rng: Random, split: Split) -> str:
    """A Chinese name; sometimes one that is no name at all."""

    def make() -> str:
        if rng.random() < 0.15:
            return nonsense(rng)
        return rng.choice(SURNAMES) + "".join(rng.choices(GIVEN, k=rng.choice((1, 2, 2))))

    return draw(rng, split, make)


def first_name(rng: Random, split: Split) -> str:
    """An English name, or a made-up one."""
    return _typed(rng, draw(rng, split, lambda: rng.choice(FIRST) if rng.random() < 0.5 else word(rng).capitalize()))


def city(rng: Random, split: Split) -> str:
    return draw(rng, split, lambda: rng.choice(CITIES) if rng.random() < 0.85 else nonsense(rng, 2))


def town(rng: Random, split: Split) -> str:
    return _typed(rng, draw(rng, split, lambda: rng.choice(TOWNS) if rng.random() < 0.7 else word(rng).capitalize()))


def _typed(rng: Random, name: str) -> str:
    """Some names are typed in small letters."""
    return name.lower() if rng.random() < 0.08 else name
