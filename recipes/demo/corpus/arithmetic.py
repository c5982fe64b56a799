"""Small sums, worked out the way that they are written by hand: a digit at a time, each step one fact to know."""

from __future__ import annotations

from random import Random

from corpus.base import Sample, Split, assistant, draw, first_name, person, user
from corpus.chat import greeting

_ZH = {
    "+": ("{a}+{b}", "{a}+{b}=", "{a}+{b}=?", "{a}加{b}等于几？", "{a}加{b}等于多少？", "请问{a}+{b}等于多少？", "{a}+{b}等于几？", "计算{a}+{b}", "{a} + {b}"),
    "-": ("{a}-{b}", "{a}-{b}=", "{a}-{b}=?", "{a}减{b}等于几？", "{a}减{b}等于多少？", "请问{a}-{b}等于多少？", "{a}-{b}等于几？", "计算{a}-{b}", "{a} - {b}"),
    "×": ("{a}×{b}", "{a}×{b}=", "{a}*{b}=?", "{a}乘{b}等于几？", "{a}乘以{b}等于多少？", "请问{a}×{b}等于多少？", "{a}*{b}等于几？", "计算{a}×{b}", "{a} * {b}"),
}  # fmt: skip
_EN = {
    "+": ("What is {a} plus {b}?", "What is {a} + {b}?", "what is {a} + {b}", "How much is {a} plus {b}?", "Calculate {a} + {b}"),
    "-": ("What is {a} minus {b}?", "What is {a} - {b}?", "what is {a} - {b}", "How much is {a} minus {b}?", "Calculate {a} - {b}"),
    "×": ("What is {a} times {b}?", "What is {a} * {b}?", "what is {a} * {b}", "How much is {a} times {b}?", "Calculate {a} * {b}"),
}  # fmt: skip
_MORE_ZH = {"+": ("再加{b}呢？", "再加{b}等于几？"), "-": ("再减{b}呢？", "再减{b}等于几？"), "×": ("再乘{b}呢？", "再乘以{b}等于几？")}  # fmt: skip
_MORE_EN = {"+": ("And plus {b}?", "Plus {b}?"), "-": ("And minus {b}?", "Minus {b}?"), "×": ("And times {b}?", "Times {b}?")}  # fmt: skip
_STORY_ZH = {
    "+": "{who}有{a}{unit}{what}，又买了{b}{unit}，一共有多少{unit}？",
    "-": "{who}有{a}{unit}{what}，送给别人{b}{unit}，还剩多少{unit}？",
    "×": "每盒有{b}{unit}{what}，{a}盒一共有多少{unit}？",
}
_STORY_EN = {
    "+": "{who} has {a} {what} and buys {b} more. How many {what} does {who} have now?",
    "-": "{who} has {a} {what} and gives {b} away. How many {what} are left?",
    "×": "There are {a} boxes with {b} {what} in each. How many {what} are there?",
}
_THINGS = (("个", "苹果"), ("个", "橘子"), ("颗", "糖"), ("支", "铅笔"), ("本", "书"), ("个", "鸡蛋"), ("张", "邮票"), ("块", "饼干"))  # fmt: skip
_THINGS_EN = ("apples", "oranges", "sweets", "pencils", "books", "eggs", "stamps", "cookies")


def solve(a: int, operator: str, b: int, english: bool) -> tuple[str, int]:
    """The working, and the result. Sums of numbers of one digit are known by heart, all others go by digits."""
    colon, comma, so, stop, swap = (
        (": ", ", ", "so ", ".", "swapped ") if english else ("：", "，", "所以", "。", "反过来")
    )
    result = a + b if operator == "+" else a - b if operator == "-" else a * b
    steps: list[str] = []
    if a < 10 and b < 10:
        return f"{a}{operator}{b}={result}{stop}", result
    if operator == "+":
        ones = a % 10 + b % 10
        carry = "+1" if ones > 9 else ""
        steps = [f"{a % 10}+{b % 10}={ones}", f"{a // 10}+{b // 10}{carry}={a // 10 + b // 10 + ones // 10}"]
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


def _compare(a: int, b: int) -> list[str]:
    """Digits beside each other, tens first, until one is larger."""
    steps = [_beside(a // 10, b // 10)]
    return steps if a // 10 != b // 10 else [*steps, _beside(a % 10, b % 10)]


def _beside(a: int, b: int) -> str:
    return f"{a}{'>' if a > b else '<' if a < b else '='}{b}"


def _difference(a: int, b: int) -> list[str]:
    """Steps of a - b for a >= b: whether the ones borrow is written down before it is needed."""
    steps = [_beside(a // 10, b // 10), _beside(a % 10, b % 10)]
    borrow = a % 10 < b % 10
    steps.append((f"1{a % 10}" if borrow else f"{a % 10}") + f"-{b % 10}={a % 10 + 10 * borrow - b % 10}")
    if a // 10 != b // 10:
        steps.append(f"{a // 10}-{b // 10}" + ("-1" if borrow else "") + f"={a // 10 - b // 10 - borrow}")
    return steps


def _numbers(rng: Random, split: Split, operator: str) -> tuple[int, int]:
    """A pair; those of two digits are split into learned and held out, whatever the words around them."""
    if rng.random() < 0.2:
        return rng.randint(0, 9), rng.randint(0, 9)

    def pair() -> tuple[int, int]:
        if operator == "×":
            a, b = rng.randint(10, 99), rng.randint(2, 9)
            return (a, b) if rng.random() < 0.8 else (b, a)
        a, b = rng.randint(0, 99), rng.randint(0, 99)
        return (b, a) if operator == "-" and b > a and rng.random() < 0.75 else (a, b)

    return draw(rng, split, pair, lambda p: f"{p[0]}{operator}{p[1]}")


def _question(rng: Random, split: Split, english: bool) -> tuple[str, str, int]:
    """Words, the answer, its value."""

    def make() -> tuple[str, str, int]:
        operator = rng.choice("+-×")
        a, b = _numbers(rng, split, operator)
        if rng.random() < 0.15 and min(a, b) > 1:
            if operator == "-" and b > a:
                a, b = b, a
            if english:
                text = _STORY_EN[operator].format(a=a, b=b, who=first_name(rng, split), what=rng.choice(_THINGS_EN))
            else:
                unit, what = rng.choice(_THINGS)
                text = _STORY_ZH[operator].format(a=a, b=b, who=person(rng, split), unit=unit, what=what)
        else:
            text = rng.choice((_EN if english else _ZH)[operator]).format(a=a, b=b)
        answer, value = solve(a, operator, b, english)
        return text, answer, value

    return draw(rng, split, make, lambda made: made[0])


def _more(rng: Random, split: Split, english: bool, before: int) -> tuple[str, str, int]:
    """A sum that goes on from the result of the one before."""

    def make() -> tuple[str, str, int]:
        operator = rng.choice("+-×" if before > 1 else "+")
        b = rng.randint(1, before) if operator == "-" else rng.randint(2, 9) if operator == "×" else rng.randint(1, 99)
        answer, value = solve(before, operator, b, english)
        return rng.choice((_MORE_EN if english else _MORE_ZH)[operator]).format(b=b), answer, value

    return draw(rng, split, make, lambda made: made[0])


def sample(rng: Random, split: Split) -> Sample:
    """One to three sums, sometimes after a greeting; a later one may go on from the result."""
    english = rng.random() < 0.37
    made: list[tuple[str, str]] = [greeting(rng, split, english)] if rng.random() < 0.08 else []
    text, answer, value = _question(rng, split, english)
    made.append((text, answer))
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        if 0 <= value <= 99 and rng.random() < 0.4:
            text, answer, value = _more(rng, split, english, value)
        else:
            text, answer, value = _question(rng, split, english)
        made.append((text, answer))
    return Sample("arithmetic", [message for text, answer in made for message in (user(text), assistant(answer))])
