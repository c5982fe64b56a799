"""How people type: a request's core is dressed with politeness, particles, punctuation, other words for the same, typing
errors, spaces, half and full width, and words of the other language. What stands for values is left as it is, so that an
answer can copy it.
"""

# ruff: noqa: SIM905
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Literal

from .base import Split, form, held_out

__all__ = ["Kind", "choose", "dress", "dressed", "spread", "upper", "ways"]

Kind = Literal["ask", "do", "tail", "say"]
"""A question, something to do, something to do that ends with a value of the user's, a remark."""

# {} is the core. The first ones are the usual ones.
_FRAMES: dict[tuple[bool, Kind], tuple[str, ...]] = {
    (False, "ask"): tuple(
        "hello，{}|hi，{}|hi {}|ok，{}|请问{}|请问一下，{}|我想知道{}|想问一下{}|问一下{}|想请教一下，{}|你知道{}吗|你能告诉我{}吗|能告诉我{}吗|告诉我{}|跟我说说{}|那个，{}|"
        "哎，{}|话说{}|对了，{}|那么{}|那{}|嗯，{}|你好，{}|你好 {}|您好，请问{}|嗨，{}|你说{}|我问你，{}|麻烦问下{}|{}，谢谢|{}，你知道吗|{}来着|"
        "我有个问题，{}|小助手，{}|chatglm，{}|{}呀|{}呢|{}啊|请告诉我{}|不知道{}|想了解一下{}|能不能告诉我{}".split(
            "|"
        )
    ),
    (False, "do"): tuple(
        "hi，{}|please {}|请{}|帮我{}|请帮我{}|麻烦{}|麻烦帮我{}|麻烦你{}|能帮我{}吗|可以帮我{}吗|能不能{}|能不能帮我{}|可不可以{}|你能{}吗|你可以{}吗|可以{}吗|"
        "我想{}|我要{}|我想让你{}|请你{}|给我{}|快{}|劳驾，{}|{}吧|{}呗|{}好吗|{}可以吗|{}行吗|{}，谢谢|{}谢谢|你好，{}|你好，请{}|"
        "那个，{}|嗯，{}|现在{}|来，{}|帮忙{}|替我{}|试着{}|你来{}|需要你{}|有劳{}".split("|")
    ),
    (False, "tail"): tuple(
        "请{}|帮我{}|请帮我{}|麻烦{}|麻烦帮我{}|你好，{}|请你{}|现在{}|那个，{}|嗯，{}|给我{}|来，{}|能不能{}|帮忙{}|我想{}|我要{}".split(
            "|"
        )
    ),
    (False, "say"): tuple(
        "{}|{}|{}|{}|{}啊|{}呀|嗯，{}|哎，{}|那个，{}|唉，{}|对了，{}|{}了|其实{}|跟你说，{}".split("|")
    ),
    (True, "ask"): tuple(
        "please tell me, {}|can you tell me {}|could you tell me {}|hi, {}|hello, {}|hey, {}|excuse me, {}|quick question: {}|tell me {}|"
        "i want to know {}|do you know {}|so {}|and {}|well, {}|by the way, {}|just wondering, {}|ok, {}|{} please|{}, thanks|"
        "{}, do you know|i would like to know {}|one question: {}|um, {}|now {}|please, {}|let me ask: {}|btw {}".split(
            "|"
        )
    ),
    (True, "do"): tuple(
        "please {}|can you {}|could you {}|could you please {}|can you please {}|hi, {}|hello, please {}|hey, {}|i want you to {}|"
        "i need you to {}|i would like you to {}|help me {}|help me to {}|{} please|{}, please|{} for me|{}, thanks|{} thank you|would you {}|"
        "will you {}|just {}|now {}|ok, {}|kindly {}|pls {}|try to {}|let's {}|go ahead and {}".split("|")
    ),
    (True, "tail"): tuple(
        "please {}|can you {}|could you {}|hi, {}|hey, {}|hello, please {}|i want you to {}|i need you to {}|help me {}|now {}|just {}|"
        "ok, {}|pls {}|would you {}|could you please {}".split("|")
    ),
    (True, "say"): tuple(
        "{}|{}|{}|well, {}|oh, {}|so {}|you know, {}|by the way, {}|hey, {}|ah, {}|{} today".split("|")
    ),
}
_ENDS: dict[tuple[bool, Kind], tuple[str, ...]] = {
    (False, "ask"): ("？", "？", "？", "?", "?", "", "", "", "？？", "。", "～", "……", "？！", " ？", "??"),
    (False, "do"): ("。", "。", "", "", "", "", "！", "!", "～", "~", ".", "！！", " "),
    (False, "tail"): ("",),
    (False, "say"): ("。", "！", "", "", "", "~", "～", "……", "...", "!", "！！", "，哈哈", "。。。"),
    (True, "ask"): ("?", "?", "?", "?", "", "", "", "??", "？", " ?", ".", "!"),
    (True, "do"): (".", "", "", "", "!", "!!", "?", " ", "。"),
    (True, "tail"): ("",),
    (True, "say"): (".", "!", "", "", "...", "!!", " :)", ", haha"),
}

# Other words for the same, and how they are mistyped. Each pair: what stands there, what may stand there instead.
_OTHER_WORDS = [
    ("什么", "啥 什麽 神马 甚么 什么".split()), ("怎么", "咋 怎样 如何 怎麽".split()), ("怎样", "怎么 咋 如何".split()), ("如何", "怎么 怎样 咋".split()),
    ("哪里", "哪儿 哪 那里 哪个地方".split()), ("哪儿", "哪里 哪".split()), ("怎么样", "咋样 如何 怎样".split()), ("吗", "嘛 么 不 吧".split()), ("几岁", "多大".split()),
    ("多少", "几 多少".split()), ("应该", "该 要 应当".split()), ("一下", "下 一哈 下子".split()), ("知道", "晓得".split()), ("喜欢", "喜歡 爱".split()),
    ("可以", "能 行".split()), ("谢谢", "谢了 多谢".split()), ("没有", "没".split()), ("名字", "名子 姓名".split()), ("现在", "目前 如今 此刻".split()),
    ("等于", "是 得 等於".split()), ("计算", "算 算算 算一下".split()), ("帮我", "帮忙 给我 替我".split()), ("为什么", "为啥 为何".split()), ("谁", "哪位".split()),
    ("这个", "这".split()), ("时候", "时间".split()), ("的", "地 得 d".split()), ("在", "再".split()), ("请", "清".split()), ("你", "您 妳".split()), ("做", "作 弄".split()),
    ("天气", "天汽".split()), ("查", "查查 搜 看".split()), ("查一下", "查查 查下 看看 看一下 搜一下".split()), ("我", "俺 咱".split()), ("吃", "恰".split()),
]  # fmt: skip
_OTHER_WORDS_EN = [
    ("what is", "what's;whats;wat is".split(";")), ("who is", "who's;whos".split(";")), ("how is", "how's;hows".split(";")), ("where is", "where's;wheres".split(";")),
    ("I am", "I'm;im;i am".split(";")), ("do not", "don't;dont".split(";")), ("cannot", "can't;cant".split(";")), ("you", "u;ya;yo".split(";")), ("are", "r".split(";")),
    ("please", "pls;plz;pleas".split(";")), ("your", "ur;youre".split(";")), ("tell me", "say;give me".split(";")), ("what", "wat;waht;what".split(";")), ("favorite", "favourite;fav".split(";")),
    ("color", "colour".split(";")), ("how", "hwo;how".split(";")), ("the", "teh;da;the".split(";")), ("for", "4;for".split(";")), ("to", "2;to".split(";")), ("thanks", "thx;thank you;ty".split(";")),
]  # fmt: skip
_FOREIGN = [
    ("查一下", "check一下"), ("查", "check "), ("天气", "weather"), ("计算", "calculate "), ("算", "compute "), ("帮我", "help me "), ("请", "please "), ("名字", "name"),
    ("喜欢", "like"), ("你好", "hello"), ("谢谢", "thanks"), ("再见", "bye"), ("问题", "question"), ("时间", "time"), ("告诉我", "tell me "), ("介绍", "introduce"),
    ("城市", "city"), ("价格", "price"), ("工作", "job"), ("朋友", "friend"), ("生日", "birthday"), ("颜色", "color"), ("重复", "repeat"), ("总结", "summarize"),
]  # fmt: skip
_INNERMOST = re.compile(r"\(([^()]*)\)")
_SLOT = re.compile(r"(\{[^{}]*\})")
_WIDE_MARKS = str.maketrans("，：？！（）", ",:?!()")
_NARROW_MARKS = str.maketrans(",:?!", "，：？！")
_WIDE = str.maketrans({chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F)})


def spread(*patterns: str) -> list[str]:
    """All sentences of patterns such as "你(叫|是(个|))什么": one choice of each bracket."""
    made: dict[str, None] = {}
    for pattern in patterns:
        if (found := _INNERMOST.search(pattern)) is None:
            made[pattern] = None
            continue
        before, after = pattern[: found.start()], pattern[found.end() :]
        made |= dict.fromkeys(spread(*(before + choice + after for choice in found[1].split("|"))))
    return list(made)


def choose(rng: Random, pattern: str) -> str:
    """One of them."""
    while (found := _INNERMOST.search(pattern)) is not None:
        pattern = pattern[: found.start()] + rng.choice(found[1].split("|")) + pattern[found.end() :]
    return pattern


def ways(text: str) -> list[str]:
    """Parts between the "|" that stand in no bracket."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign == "(") - (sign == ")")
        if sign == "|" and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    return [part for part in parts if part]


def upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def dress(
    rng: Random,
    split: Split,
    core: str,
    english: bool,
    kind: Kind,
    values: Mapping[str, Any] | None = None,
    calm: float = 0.3,
) -> str:
    """A core as somebody types it.

    Args:
        core: with {slots} for what is in `values`; of those nothing is changed. Without `values`, it has no slots.
        calm: share of requests that are only given an end.
    """
    if values is None:
        core = core.replace("{", "{{").replace("}", "}}")
        values = {}
        parts = [core]
    else:
        parts = _SLOT.split(core)
    quiet = rng.random() < calm
    if not quiet:
        # Slots stand at odd places.
        parts = [part if place % 2 else _part_mistyped(rng, part, english) for place, part in enumerate(parts)]
    text = "".join(parts)
    if not quiet and rng.random() < 0.62:
        frame = form(rng, split, _FRAMES[english, kind])
        if not quiet and rng.random() < 0.08:
            frame = _errors(rng, frame, english)
        lead = frame.partition("{}")[0]
        if not (lead and text.startswith(lead[:1]) and not english):  # not 请请
            text = frame.replace("{}", text, 1)
    text += rng.choice(_ENDS[english, kind])
    if english:
        look = rng.random()
        if look < 0.5:
            text = upper(text) if not text.startswith("{") else text
        elif look < 0.53 and not values:
            text = text.upper()
        elif look < 0.8:
            text = text.replace("I'm", "i'm").replace("I ", "i ")
    if rng.random() < 0.06:
        text = _elsewhere(text, lambda part: part.translate(_NARROW_MARKS if english else _WIDE_MARKS))
    if not english and rng.random() < 0.05:  # a blank in place of marks, as phones make it
        text = _elsewhere(text, lambda part: re.sub("[，。！？,!?]+", " ", part)).strip()
    if rng.random() < 0.015:
        text += rng.choice("😊😂👍🙏🎉😭🤔😄")
    if rng.random() < 0.03:
        text = rng.choice((" ", "\n", "  ")) + text
    if rng.random() < 0.03:
        text += rng.choice((" ", "\n", "  "))
    if rng.random() < 0.01 and text.isascii() and not values:
        text = text.translate(_WIDE)
    return text.format_map(_Values(values))


def dressed(
    rng: Random, split: Split, cores: Sequence[str], english: bool, kind: Kind, values: Mapping[str, Any] | None = None
) -> str:
    """One of several cores, dressed, on the split's side.

    Raises:
        RuntimeError: there is none in 200 tries.
    """
    for _ in range(200):
        text = dress(rng, split, form(rng, split, cores), english, kind, values)
        if text.strip() and held_out(text) == (split == "test"):
            return text
    raise RuntimeError(f"all of {cores[:3]} … are on the other side")


class _Values(dict[str, Any]):
    """Slots without a value stay as they are."""

    def __missing__(self, key: str) -> str:
        return "{" + key + "}"


def _elsewhere(text: str, change: Any) -> str:
    """Change what is not a slot."""
    return "".join(part if place % 2 else change(part) for place, part in enumerate(_SLOT.split(text)))


def mistyped(rng: Random, core: str, english: bool) -> str:
    """Other words, typing errors and the other language in a core, outside of its {slots}."""
    parts = _SLOT.split(core)
    return "".join(part if place % 2 else _part_mistyped(rng, part, english) for place, part in enumerate(parts))


def _part_mistyped(rng: Random, part: str, english: bool) -> str:
    """The same in a literal part."""
    if not part.strip():
        return part
    if rng.random() < 0.3:
        part = _errors(rng, part, english)
    pairs = _OTHER_WORDS_EN if english else _OTHER_WORDS
    if rng.random() < 0.35:
        here = [(old, new) for old, new in pairs if old in part]
        if here:
            old, new = rng.choice(here)
            if english:
                part = re.sub(rf"(?<![A-Za-z'{{]){re.escape(old)}(?![A-Za-z'}}])", rng.choice(new), part, count=1)
            elif not (old == "的" and rng.random() < 0.5):
                part = part.replace(old, rng.choice(new), 1)
    if not english and rng.random() < 0.06:
        here_too = [(old, foreign) for old, foreign in _FOREIGN if old in part]
        if here_too:
            old, foreign = rng.choice(here_too)
            part = part.replace(old, foreign, 1)
    return part


def _errors(rng: Random, part: str, english: bool) -> str:
    """A letter too few, too many, or two in the wrong order; a blank; words that run together."""
    places = [place for place, sign in enumerate(part) if sign.isalpha()]
    if not places or "{" in part:
        return part
    place, luck = rng.choice(places), rng.random()
    if english:
        if luck < 0.3:
            return part[:place] + part[place + 1 :]
        if luck < 0.55:
            return part[:place] + part[place : place + 2][::-1] + part[place + 2 :]
        if luck < 0.8:
            return part[: place + 1] + part[place] + part[place + 1 :]
        return part.replace("'", "") if luck < 0.9 else part.lower()
    if luck < 0.3:
        return part[:place] + " " + part[place:]
    if luck < 0.5:
        return part[: place + 1] + part[place] + part[place + 1 :]
    if luck < 0.65 and len(places) > 4:
        return part[:place] + part[place + 1 :]
    return part
