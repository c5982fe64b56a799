"""Small sums, worked out the way that they are written by hand: a digit at a time, each step one fact to know; and counting.

Sums that are too large for that are refused: the code interpreter is for those.
"""

# ruff: noqa: SIM905
from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from .base import Sample, Split, assistant, draw, first_name, form, person, user
from .chat import greeting
from .vocabulary import ANIMALS, ANIMALS_EN, COLOURS, COLOURS_EN, FOODS, FOODS_EN, THINGS, THINGS_EN
from .wording import Kind, dress, upper

# {a} and {b} are numbers; the rest is dressed.
_ZH = {
    "+": ("{a}+{b}", "{a}+{b}=", "{a}+{b}=?", "{a} + {b}", "{a} + {b} =", "{a}加{b}", "{a}加{b}等于几", "{a}加{b}等于多少", "{a}+{b}等于多少", "{a}+{b}等于几", "{a} + {b} 等于几", "{a} 加 {b} 等于几", "{a}+{b}是多少", "{a}加上{b}是多少", "{a}与{b}的和", "{a}和{b}加起来是多少", "{a}＋{b}", "{a}加{b}得多少", "{a}跟{b}的和是几", "{a}+{b}得几", "你会算{a}+{b}吗", "{a}+{b}你会吗", "{a}再加{b}是几"),
    "-": ("{a}-{b}", "{a}-{b}=", "{a}-{b}=?", "{a} - {b}", "{a} - {b} =", "{a}减{b}", "{a}减{b}等于几", "{a}减{b}等于多少", "{a}-{b}等于多少", "{a}-{b}等于几", "{a} - {b} 等于几", "{a} 减 {b}", "{a}-{b}是多少", "{a}减去{b}是多少", "{a}与{b}的差", "{a}减掉{b}还剩多少", "{a}－{b}", "{a}减{b}得多少", "从{a}里减去{b}", "{a}比{b}多多少", "你会算{a}-{b}吗", "{a}—{b}"),
    "×": ("{a}×{b}", "{a}×{b}=", "{a}*{b}=?", "{a}*{b}", "{a} × {b}", "{a} * {b}", "{a}x{b}", "{a}X{b}=", "{a}乘{b}", "{a}乘以{b}", "{a}乘{b}等于几", "{a}乘以{b}等于多少", "{a}×{b}等于多少", "{a}*{b}等于几", "{a}×{b}是多少", "{a}和{b}的积", "{a}与{b}相乘", "{a}个{b}是多少", "{a}乘{b}得多少", "{a}的{b}倍是多少", "{a}＊{b}", "你会算{a}×{b}吗"),
    "÷": ("{a}÷{b}", "{a}÷{b}=", "{a}/{b}=?", "{a}/{b}", "{a} ÷ {b}", "{a} / {b}", "{a}除以{b}", "{a}除以{b}等于几", "{a}除以{b}等于多少", "{a}÷{b}等于多少", "{a}/{b}等于几", "{a}÷{b}是多少", "{a}除以{b}得多少", "{a}除以{b}得几", "{a} 除以 {b}", "{b}除{a}等于几", "{a}平均分成{b}份是多少", "{a}里面有几个{b}", "{a}除以{b}的商"),
}  # fmt: skip
_EN = {
    "+": ("what is {a} plus {b}", "what is {a} + {b}", "{a} + {b}", "{a}+{b}", "{a} plus {b}", "how much is {a} plus {b}", "what's {a} + {b}", "add {a} and {b}", "the sum of {a} and {b}", "what do you get if you add {a} and {b}", "{a} + {b} equals", "what does {a} plus {b} equal", "compute {a}+{b}", "calculate {a} + {b}", "{a} and {b} make"),
    "-": ("what is {a} minus {b}", "what is {a} - {b}", "{a} - {b}", "{a}-{b}", "{a} minus {b}", "how much is {a} minus {b}", "what's {a} - {b}", "subtract {b} from {a}", "take {b} from {a}", "the difference between {a} and {b}", "what is {a} take away {b}", "compute {a}-{b}", "calculate {a} - {b}", "what does {a} minus {b} equal"),
    "×": ("what is {a} times {b}", "what is {a} * {b}", "{a} * {b}", "{a}*{b}", "{a} x {b}", "{a} times {b}", "how much is {a} times {b}", "what's {a} * {b}", "multiply {a} by {b}", "the product of {a} and {b}", "compute {a}*{b}", "calculate {a} * {b}", "what is {a} multiplied by {b}", "what does {a} times {b} equal"),
    "÷": ("what is {a} divided by {b}", "what is {a} / {b}", "{a} / {b}", "{a}/{b}", "{a} divided by {b}", "how much is {a} divided by {b}", "what's {a} / {b}", "divide {a} by {b}", "how many times does {b} go into {a}", "compute {a}/{b}", "calculate {a} / {b}", "what does {a} divided by {b} equal", "{a} over {b}"),
}  # fmt: skip
_BY_TWO = (
    {"×": ("{a}的两倍是多少", "{a}的两倍", "{a}的2倍等于几", "{a}翻倍是多少", "两个{a}是多少"), "÷": ("{a}的一半是多少", "{a}的一半", "一半的{a}是几", "{a}的二分之一", "{a}分成两半是多少")},
    {"×": ("double {a}", "twice {a}", "what is twice {a}", "what is double {a}", "two times {a}"), "÷": ("half of {a}", "what is half of {a}", "what is {a} halved", "halve {a}", "one half of {a}")},
)  # fmt: skip
_COMMAND = ("compute", "calculate", "add", "subtract", "take", "multiply", "divide", "从")
_MORE_ZH = {"+": ("再加{b}呢", "再加{b}", "再加{b}等于几", "加{b}呢", "再加上{b}是多少", "那再加{b}", "结果再加{b}"), "-": ("再减{b}呢", "再减{b}", "再减{b}等于几", "减{b}呢", "再减去{b}是多少", "那再减{b}", "结果再减{b}"), "×": ("再乘{b}呢", "再乘以{b}等于几", "再乘{b}", "乘{b}呢", "那再乘{b}", "结果再乘以{b}")}  # fmt: skip
_MORE_EN = {"+": ("and plus {b}", "plus {b}", "add {b}", "now add {b}", "plus {b} more"), "-": ("and minus {b}", "minus {b}", "subtract {b}", "now take away {b}", "less {b}"), "×": ("and times {b}", "times {b}", "multiply by {b}", "now times {b}")}  # fmt: skip
_STORY_ZH = {
    "+": ("{who}有{a}{unit}{what}，又买了{b}{unit}，一共有多少{unit}", "{who}有{a}{unit}{what}，妈妈又给了{b}{unit}，现在有几{unit}{what}", "树下有{a}{unit}{what}，又来了{b}{unit}，一共几{unit}", "左边有{a}{unit}{what}，右边有{b}{unit}，加起来有多少{unit}", "{who}有{a}{unit}{what}，朋友有{b}{unit}，两人一共有多少{unit}{what}", "昨天买了{a}{unit}{what}，今天买了{b}{unit}，总共买了多少"),
    "-": ("{who}有{a}{unit}{what}，送给别人{b}{unit}，还剩多少{unit}", "{who}有{a}{unit}{what}，用掉了{b}{unit}，还有几{unit}", "盒子里有{a}{unit}{what}，拿走{b}{unit}，还剩几{unit}", "{a}{unit}{what}，丢了{b}{unit}，还有多少{unit}", "{who}有{a}{unit}{what}，吃了{b}{unit}，剩下多少{unit}", "一共{a}{unit}{what}，卖了{b}{unit}，还有几{unit}没卖"),
    "×": ("每盒有{b}{unit}{what}，{a}盒一共有多少{unit}", "一盒{what}有{b}{unit}，买{a}盒，一共多少{unit}", "{a}个袋子，每个装{b}{unit}{what}，总共有几{unit}{what}", "{who}每天用{b}{unit}{what}，{a}天用多少{unit}", "一排{b}{unit}{what}，{a}排有多少{unit}"),
    "÷": ("{a}{unit}{what}平均分给{b}个人，每人几{unit}", "把{a}{unit}{what}分成{b}份，每份多少{unit}", "{a}{unit}{what}分给{b}个小朋友，每人分到几{unit}", "{who}有{a}{unit}{what}，每盒装{b}{unit}，能装几盒", "{a}{unit}{what}，{b}个人平分，一人几{unit}"),
}  # fmt: skip
_STORY_EN = {
    "+": ("{who} has {a} {what} and buys {b} more. How many {what} does {who} have now?", "there are {a} {what} here and {b} there. how many in all?", "{who} has {a} {what}. a friend gives {who} {b} more. how many now?", "{a} {what} and {b} {what}, how many together?"),
    "-": ("{who} has {a} {what} and gives {b} away. How many {what} are left?", "there are {a} {what}. {b} are gone. how many are left?", "{who} had {a} {what} and lost {b}. how many are left?", "out of {a} {what}, {b} were eaten. how many remain?"),
    "×": ("There are {a} boxes with {b} {what} in each. How many {what} are there?", "{a} bags hold {b} {what} each. how many {what} in all?", "{who} buys {a} packs of {b} {what}. how many {what} is that?"),
    "÷": ("{a} {what} are shared by {b} children. How many does each get?", "{who} puts {a} {what} into {b} equal boxes. how many in each box?", "divide {a} {what} among {b} people. how many for each?"),
}  # fmt: skip
_THINGS = (("个", "苹果"), ("个", "橘子"), ("颗", "糖"), ("支", "铅笔"), ("本", "书"), ("个", "鸡蛋"), ("张", "邮票"), ("块", "饼干"), ("只", "鸡"), ("朵", "花"), ("个", "梨"), ("块", "糖"), ("条", "鱼"), ("辆", "车"), ("瓶", "水"), ("个", "球"))  # fmt: skip
_THINGS_EN = ("apples", "oranges", "sweets", "pencils", "books", "eggs", "stamps", "cookies", "cats", "balls", "pens", "cups", "toys", "coins", "birds", "stickers")  # fmt: skip
_FIGURES = "零一二三四五六七八九"
_SAID_EN = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS_EN = "twenty thirty forty fifty sixty seventy eighty ninety".split()

TOO_LARGE_ZH = "这道题太大了，我心算不了，请用代码解释器或计算工具。"
TOO_LARGE_EN = "That is too much for me, I cannot do it by heart. Please use the code interpreter or a calculator tool."


def said(number: int, english: bool) -> str:
    """A number from 0 to 199 in words."""
    if english:
        if number > 99:
            return "a hundred" + (f" and {said(number - 100, True)}" if number > 100 else "")
        if number < 20:
            return _SAID_EN[number]
        return _TENS_EN[number // 10 - 2] + (f"-{_SAID_EN[number % 10]}" if number % 10 else "")
    if number > 99:
        rest = number - 100
        return "一百" + (
            "" if not rest else "零" + _FIGURES[rest] if rest < 10 else ("一" if rest < 20 else "") + said(rest, False)
        )
    tens, ones = divmod(number, 10)
    if not tens:
        return _FIGURES[ones]
    return ("" if tens == 1 else _FIGURES[tens]) + "十" + (_FIGURES[ones] if ones else "")


def solve(a: int, operator: str, b: int, english: bool) -> tuple[str, int]:
    """The working, and the result. Sums of numbers of one digit are known by heart, all others go by digits."""
    colon, comma, so, stop, swap = (
        (": ", ", ", "so ", ".", "swapped ") if english else ("：", "，", "所以", "。", "反过来")
    )
    if operator == "÷":
        return _divide(a, b, english)
    result = a + b if operator == "+" else a - b if operator == "-" else a * b
    steps: list[str] = []
    if a < 10 and b < 10:
        return f"{a}{operator}{b}={result}{stop}", result
    if operator == "+":
        steps = _sum(a, b)
    elif operator == "×":
        tens, digit = (a, b) if a > 9 else (b, a)
        ones, left = tens % 10 * digit, tens // 10 * digit
        steps = [f"{tens % 10}×{digit}={ones}", f"{tens // 10}×{digit}={left}"]
        if ones > 9:
            steps.append(f"{left}+{ones // 10}={left + ones // 10}")
    elif a >= b:
        steps = _difference(a, b)
    else:  # the first digit that differs tells; the rest is a difference without a sign
        steps = [*_compare(a, b), f"{swap}{b}-{a}{colon}" + comma.join(_difference(b, a)), f"{b}-{a}={b - a}"]
    return f"{a}{operator}{b}{colon}" + comma.join([*steps, f"{so}{a}{operator}{b}={result}{stop}"]), result


def _digits(number: int, count: int) -> list[int]:
    """The highest first."""
    return [number // 10**place % 10 for place in reversed(range(count))]


def _places(a: int, b: int) -> int:
    """Digits that are written of both: two, or three."""
    return 3 if max(a, b) > 99 else 2


def _sum(a: int, b: int) -> list[str]:
    steps, carry = [], 0
    places = _places(a, b)
    for number, (x, y) in enumerate(zip(reversed(_digits(a, places)), reversed(_digits(b, places)), strict=True)):
        total = x + y + carry
        steps.append(f"{x}+{y}{'+1' if carry else ''}={total}")
        carry = total // 10 if number < places - 1 else 0
    return steps


def _compare(a: int, b: int) -> list[str]:
    """Digits beside each other, the highest first, until one is larger."""
    steps = []
    for x, y in zip(_digits(a, _places(a, b)), _digits(b, _places(a, b)), strict=True):
        steps.append(_beside(x, y))
        if x != y:
            break
    return steps


def _beside(a: int, b: int) -> str:
    return f"{a}{'>' if a > b else '<' if a < b else '='}{b}"


def _difference(a: int, b: int) -> list[str]:
    """Steps of a - b for a >= b: whether a digit borrows is written down before it is needed."""
    places = _places(a, b)
    pairs = list(zip(_digits(a, places), _digits(b, places), strict=True))
    steps = [_beside(x, y) for x, y in pairs]
    borrow = 0
    differ = [x != y for x, y in pairs]
    written = places - differ.index(True) if True in differ else 1  # what stands in front of that is equal
    for x, y in list(reversed(pairs))[:written]:
        need = x - borrow < y
        steps.append(f"{f'1{x}' if need else x}-{y}{'-1' if borrow else ''}={x - borrow - y + 10 * need}")
        borrow = int(need)
    return steps


def _divide(a: int, b: int, english: bool) -> tuple[str, int]:
    """By digits; where the quotient has one digit, by the product. The result is the quotient."""
    colon, comma, so, stop, rest = (
        (": ", ", ", "so ", ".", " remainder ") if english else ("：", "，", "所以", "。", "余")
    )

    def part(x: int) -> str:
        return f"{x}÷{b}={x // b}" + (f"{rest}{x % b}" if x % b else "")

    quotient, left = divmod(a, b)
    whole = f"{so}{part(a)}{stop}"
    if b < 10 and a < 10 * b and not left:  # known by heart
        return f"{part(a)}{stop}", quotient
    if a < 10 * b:
        steps = [f"{b}×{quotient}={b * quotient}"]
        if left:
            steps.append(f"{a}-{b * quotient}={left}")
    else:
        first = a // 10
        steps = [part(first), part(first % b * 10 + a % 10)]
    return f"{a}÷{b}{colon}" + comma.join([*steps, whole]), quotient


_BY_HEART = (10, 12, 15, 20, 25, 50)


def _numbers(rng: Random, split: Split, operator: str) -> tuple[int, int]:
    """A pair; those of two digits and more are split into learned and held out, whatever the words around them."""
    if rng.random() < 0.18:
        a, b = rng.randint(0, 9), rng.randint(0, 9)
        return (a * max(b, 1), max(b, 1)) if operator == "÷" else (a, b)
    if operator == "÷" and rng.random() < 0.15:  # by numbers of two digits whose multiples are known by heart
        b = rng.choice(_BY_HEART)
        return b * rng.randint(1, 9), b

    def pair() -> tuple[int, int]:
        if operator == "×":
            a, b = rng.randint(10, 99), rng.randint(2, 9)
            return (a, b) if rng.random() < 0.8 else (b, a)
        if operator == "÷":
            b = rng.randint(2, 9)
            return (b * rng.randint(2, 99 // b), b) if rng.random() < 0.75 else (rng.randint(b + 1, 99), b)
        high = 999 if rng.random() < 0.4 else 99
        a, b = rng.randint(0, high), rng.randint(0, 99 if rng.random() < 0.3 else high)
        if high > 99 and rng.random() < 0.3:
            a = rng.choice((100, 200, 500, 1000 - 1, a // 10 * 10, a // 100 * 100))
        return (b, a) if operator == "-" and b > a and rng.random() < 0.7 else (a, b)

    return draw(rng, split, pair, lambda p: f"{p[0]}{operator}{p[1]}")


def _shown(rng: Random, number: int, words: bool, wide: bool, english: bool) -> str:
    if words:
        return said(number, english)
    text = str(number)
    return "".join(chr(ord(sign) + 0xFEE0) for sign in text) if wide else text


def _dressed(rng: Random, split: Split, core: str, english: bool, values: dict[str, object]) -> str:
    """A sum as it is typed: mostly no more than the sum."""
    kind: Kind = "do" if core.startswith(_COMMAND) else "ask"
    bare = not any(sign.isalpha() for sign in core.replace("{a}", "").replace("{b}", ""))
    if bare and rng.random() < 0.35:
        text = core.format_map(values) + rng.choice(("", "", "", "?", "？", " =", "="))
        return text.replace("==", "=").replace("= =", "=")
    if bare:
        lead = (
            ("compute ", "calculate ", "what is ", "work out ", "solve ")
            if english
            else ("计算", "算", "算一下", "算算", "求", "计算一下", "口算")
        )
        core, kind = rng.choice((*lead, "", "")) + core, "do" if rng.random() < 0.6 else "ask"
        if core.startswith("what is "):
            kind = "ask"
    return dress(rng, split, core, english, kind, values)


def question(rng: Random, split: Split, english: bool) -> tuple[str, int, str, int]:
    """Words that ask for a sum, and the sum."""

    def make() -> tuple[str, int, str, int]:
        operator = rng.choice("+-×÷+-")
        a, b = _numbers(rng, split, operator)
        if rng.random() < 0.18 and min(a, b) > 1 and max(a, b) < 100:
            if operator == "-" and b > a:
                a, b = b, a
            if operator == "÷":
                a -= a % b
            if english:
                core, values = (
                    form(rng, split, _STORY_EN[operator]),
                    {"who": first_name(rng, split), "what": rng.choice(_THINGS_EN)},
                )
            else:
                unit, what = rng.choice(_THINGS)
                core, values = (
                    form(rng, split, _STORY_ZH[operator]),
                    {"who": person(rng, split), "unit": unit, "what": what},
                )
            text = core.format(a=a, b=b, **values)
            if rng.random() < 0.4 and "." not in text:
                text = dress(rng, split, text.rstrip("?"), english, "ask")
            else:
                text = upper(text) if rng.random() < 0.7 else text
                text += "" if english else rng.choice(("？", "？", "?", "", "。"))
        else:
            core = form(rng, split, (_EN if english else _ZH)[operator])
            if operator in "×÷" and rng.random() < 0.12:  # twice, half
                a, b = rng.randint(2, 99), 2
                core = form(rng, split, _BY_TWO[english][operator])
            words = max(a, b) < 200 and not {"=", "+", "-", "*", "/", "×", "÷"} & set(core) and rng.random() < 0.3
            wide = not english and not words and rng.random() < 0.06
            text = _dressed(rng, split, core, english, {"a": _shown(rng, a, words, wide, english), "b": _shown(rng, b, words, wide, english)})  # fmt: skip
        return text, a, operator, b

    return draw(rng, split, make, lambda made: made[0])


def _in_english(english: bool, texts: Sequence[str]) -> bool:
    """Whether the answer is in English. A sum without a word, in a dialogue without any yet, is answered in Chinese."""
    return english and any(re.search("[A-Za-z]{2}", text) for text in texts)


def _question(rng: Random, split: Split, english: bool, before: Sequence[str]) -> tuple[str, str, int]:
    """Words, the answer, its value."""
    text, a, operator, b = question(rng, split, english)
    return text, *solve(a, operator, b, _in_english(english, (*before, text)))


def _more(rng: Random, split: Split, english: bool, before: Sequence[str], result: int) -> tuple[str, str, int]:
    """A sum that goes on from the result of the one before."""

    def make() -> tuple[str, str, int]:
        operator = rng.choice("+-×" if result > 1 else "+")
        b = rng.randint(1, result) if operator == "-" else rng.randint(2, 9) if operator == "×" else rng.randint(1, 99)
        core = form(rng, split, (_MORE_EN if english else _MORE_ZH)[operator])
        text = core.format(b=b) + rng.choice(("?", "", ".") if english else ("？", "", "？", "。", "?"))
        text = upper(text) if english and rng.random() < 0.6 else text
        return text, *solve(result, operator, b, _in_english(english, (*before, text)))

    return draw(rng, split, make, lambda made: made[0])


def _too_large(rng: Random, split: Split, english: bool, before: Sequence[str]) -> tuple[str, str]:
    """A sum that cannot be done by heart."""

    def make() -> str:
        kind = rng.randrange(4)
        big = lambda: rng.randint(1000, 10 ** rng.randint(4, 7))  # noqa: E731
        if kind == 0:
            operator, a, b = rng.choice("+-×÷"), big(), rng.choice((big(), rng.randint(2, 999)))
        elif kind == 1:
            operator, a, b = "×", rng.randint(11, 999), rng.randint(11, 999)
        elif kind == 2:
            operator, a, b = "÷", rng.randint(101, 9999), rng.randint(11, 999)
        else:
            shown = "+".join(str(rng.randint(2, 999)) for _ in range(rng.randint(3, 5)))
            return dress(rng, split, shown, english, "ask")
        core = form(rng, split, (_EN if english else _ZH)[operator])
        return _dressed(rng, split, core, english, {"a": a, "b": b})

    text = draw(rng, split, make)
    return text, TOO_LARGE_EN if _in_english(english, (*before, text)) else TOO_LARGE_ZH


# Counting

_UP_ZH = (
    "从{a}数到{b}",
    "从{a}开始数到{b}",
    "{a}数到{b}",
    "请从{a}数到{b}",
    "由{a}数到{b}",
    "数数，从{a}到{b}",
    "把{a}到{b}数一遍",
    "列出{a}到{b}",
    "写出{a}到{b}的数",
)
_TO_ZH = ("数到{b}", "数数到{b}", "数数数到{b}", "从头数到{b}")
_UP_EN = (
    "count from {a} to {b}",
    "count {a} to {b}",
    "list the numbers from {a} to {b}",
    "say the numbers {a} to {b}",
    "start at {a} and count to {b}",
)
_TO_EN = ("count to {b}", "count up to {b}", "can you count to {b}")
_MANY_ZH = (
    "{l}，一共有几个",
    "数一下有几个：{l}",
    "{l}，一共几个",
    "数一数：{l}",
    "这里有几样：{l}",
    "{l}，这里有多少种",
    "{l}一共有几种",
    "有多少个：{l}",
    "数数看，{l}，共几个",
    "{l}，总共多少样",
    "下面有几个词：{l}",
)
_MANY_EN = (
    "how many items: {l}",
    "count these: {l}",
    "how many are there: {l}",
    "{l}. How many is that?",
    "count the items: {l}",
    "how many things are in this list: {l}",
    "{l} - how many?",
)


def _counting(rng: Random, split: Split, english: bool) -> tuple[str, str]:
    def make() -> tuple[str, str]:
        if rng.random() < 0.4:
            a = 1 if rng.random() < 0.7 else rng.randint(2, 60)
            b = a + rng.randint(2, 19)
            cores = (
                (_TO_EN if english else _TO_ZH) if a == 1 and rng.random() < 0.4 else (_UP_EN if english else _UP_ZH)
            )
            words = not english and b < 60 and rng.random() < 0.2
            values = {"a": said(a, False) if words else a, "b": said(b, False) if words else b}
            text = dress(rng, split, form(rng, split, cores), english, "do", values)
            return text, (", " if english else "、").join(map(str, range(a, b + 1))) + ("." if english else "。")
        lists = (
            (ANIMALS_EN, FOODS_EN, COLOURS_EN, THINGS_EN)
            if english
            else (ANIMALS, FOODS, [f"{c}色" for c in COLOURS], THINGS)
        )
        if rng.random() < 0.25:
            items = list(
                dict.fromkeys((first_name if english else person)(rng, split) for _ in range(rng.randint(2, 8)))
            )
        else:
            items = rng.sample(rng.choice(lists), rng.randint(2, 8))
        mark = rng.choice((", ", ", ", "; ", " and ")) if english else rng.choice(("、", "、", "，", " ", ","))
        core = form(rng, split, _MANY_EN if english else _MANY_ZH)
        text = core.format(l=mark.join(items))
        text += (
            ""
            if text[-1] in "?." or core.endswith("{l}")
            else rng.choice(("?", "") if english else ("？", "", "?", "。"))
        )
        numbered = (", " if english else "，").join(f"{item} {n}" for n, item in enumerate(items, 1))
        return (
            text,
            f"{numbered}, so {len(items)}." if english else f"{numbered.replace(' ', '')}，一共{len(items)}个。",
        )

    return draw(rng, split, make, lambda made: made[0])


def sample(rng: Random, split: Split) -> Sample:
    """One to three sums, sometimes after a greeting; a later one may go on from the result."""
    english = rng.random() < 0.35
    made: list[tuple[str, str]] = [greeting(rng, split, english)] if rng.random() < 0.06 else []
    kind = rng.random()
    if kind < 0.09:
        made.append(_too_large(rng, split, english, [text for text, _ in made]))
        value = -1
    else:
        text, answer, value = _question(rng, split, english, [text for text, _ in made])
        made.append((text, answer))
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        before = [text for text, _ in made]
        if 0 <= value <= 99 and rng.random() < 0.4:
            text, answer, value = _more(rng, split, english, before, value)
        else:
            text, answer, value = _question(rng, split, english, before)
        made.append((text, answer))
    return Sample("arithmetic", [message for text, answer in made for message in (user(text), assistant(answer))])


def counting(rng: Random, split: Split) -> Sample:
    """One or two things to count."""
    english = rng.random() < 0.35
    made = [_counting(rng, split, english) for _ in range(rng.choice((1, 1, 2)))]
    return Sample("counting", [message for text, answer in made for message in (user(text), assistant(answer))])
