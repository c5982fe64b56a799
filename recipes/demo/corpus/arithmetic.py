"""Small sums, worked out the way that they are written by hand: digits one at a time, so that they generalise."""

from __future__ import annotations

from random import Random

from corpus.base import Sample, Split, assistant, draw, first_name, person, user

_ZH = {
    "+": ["{a}加{b}等于多少", "{a}+{b}等于几", "{a}+{b}=", "{a} + {b} = ?", "计算{a}+{b}", "算一下{a}加{b}", "{a}加上{b}是多少", "{a}与{b}的和是多少", "帮我算{a}+{b}",
          "{a}和{b}加起来是多少", "求{a}+{b}", "{a}+{b}"],
    "-": ["{a}减{b}等于多少", "{a}-{b}等于几", "{a}-{b}=", "{a} - {b} = ?", "计算{a}-{b}", "算一下{a}减{b}", "{a}减去{b}是多少", "{a}与{b}的差是多少", "帮我算{a}-{b}",
          "从{a}里减掉{b}还剩多少", "求{a}-{b}", "{a}-{b}"],
    "×": ["{a}乘{b}等于多少", "{a}×{b}等于几", "{a}×{b}=", "{a} * {b} = ?", "计算{a}*{b}", "算一下{a}乘以{b}", "{a}乘以{b}是多少", "{a}与{b}的积是多少", "帮我算{a}×{b}",
          "{a}的{b}倍是多少", "求{a}×{b}", "{a}*{b}"],
}  # fmt: skip
_EN = {
    "+": ["what is {a} plus {b}", "{a} + {b}", "{a}+{b}=", "calculate {a} + {b}", "add {a} and {b}", "how much is {a} plus {b}", "compute {a}+{b}", "what is {a} + {b}", "the sum of {a} and {b}"],
    "-": ["what is {a} minus {b}", "{a} - {b}", "{a}-{b}=", "calculate {a} - {b}", "subtract {b} from {a}", "how much is {a} minus {b}", "compute {a}-{b}", "what is {a} - {b}", "take {b} from {a}"],
    "×": ["what is {a} times {b}", "{a} * {b}", "{a}*{b}=", "calculate {a} * {b}", "multiply {a} by {b}", "how much is {a} times {b}", "compute {a}*{b}", "what is {a} x {b}", "the product of {a} and {b}"],
}  # fmt: skip
_ZH_OPEN = ["", "", "", "请问", "请问", "你知道", "嗯，", "问一下，", "那", "请", "好的，", "我想知道"]
_ZH_END = ["", "", "？", "？", "?", "呢？", "，谢谢", "。", "呀？"]
_EN_OPEN = ["", "", "", "please: ", "hey, ", "so ", "okay, ", "can you tell me ", "now "]
_EN_END = ["", "", "?", "?", "!", ".", " please", ", please"]

_ZH_THINGS = ["苹果", "橘子", "糖", "铅笔", "书", "气球", "鸡蛋", "邮票", "贝壳", "积木", "硬币", "饼干"]
_ZH_UNITS = {"书": "本", "铅笔": "支", "糖": "颗", "气球": "只", "邮票": "张", "硬币": "枚", "饼干": "块"}
_EN_THINGS = ["apples", "oranges", "sweets", "pencils", "books", "balloons", "eggs", "stamps", "shells", "coins", "cookies", "marbles"]  # fmt: skip


def solve(a: int, operator: str, b: int, english: bool) -> tuple[str, int]:
    """The working, and the result. Numbers of one digit are known by heart."""
    comma, so, stop = (", ", "so ", ".") if english else ("，", "所以", "。")
    steps: list[str] = []
    if operator == "+":
        result = a + b
        if a > 9 or b > 9:
            ones = a % 10 + b % 10
            carry = ones // 10
            steps.append(f"{a % 10}+{b % 10}={ones}")
            tens = f"{a // 10}+{b // 10}" + ("+1" if carry else "")
            steps.append(f"{tens}={a // 10 + b // 10 + carry}")
    elif operator == "-":
        result = a - b
        if b > a:
            steps.append(f"{b}>{a}")
            inner, _ = _difference(b, a)
            steps += inner + ([f"{b}-{a}={b - a}"] if inner else [])
        else:
            steps, _ = _difference(a, b)
    else:
        result = a * b
        if a > 9:
            left, right = a // 10 * b, a % 10 * b
            steps = [f"{a // 10}×{b}={left}", f"{a % 10}×{b}={right}", f"{left}0+{right}={result}"]
    working = comma.join(steps)
    return (working + comma + so if working else "") + f"{a}{operator}{b}={result}{stop}", result


def _difference(a: int, b: int) -> tuple[list[str], int]:
    """Steps of a - b for a >= b."""
    if a < 10:
        return [], a - b
    borrow = a % 10 < b % 10
    ones = (f"1{a % 10}" if borrow else f"{a % 10}") + f"-{b % 10}={a % 10 + 10 * borrow - b % 10}"
    tens = f"{a // 10}-{b // 10}" + ("-1" if borrow else "") + f"={a // 10 - b // 10 - borrow}"
    return [ones, tens], a - b


def _numbers(rng: Random, split: Split, operator: str) -> tuple[int, int]:
    """A pair; those of two digits are split into learned and held out, whatever the words around them."""
    if operator == "×":
        if rng.random() < 0.5:
            return rng.randint(0, 9), rng.randint(0, 9)
        return draw(rng, split, lambda: (rng.randint(10, 99), rng.randint(2, 9)), lambda p: f"{p[0]}×{p[1]}")
    top = 9 if rng.random() < 0.2 else 99

    def pair() -> tuple[int, int]:
        a, b = rng.randint(0, top), rng.randint(0, top)
        return (b, a) if operator == "-" and b > a and rng.random() < 0.9 else (a, b)

    return pair() if top == 9 else draw(rng, split, pair, lambda p: f"{p[0]}{operator}{p[1]}")


def _question(rng: Random, split: Split, english: bool) -> tuple[str, str, int]:
    """Words, the answer, its value."""

    def make() -> tuple[str, str, int]:
        if rng.random() < 0.25:
            return _story(rng, split, english)
        operator = rng.choice("+-×")
        a, b = _numbers(rng, split, operator)
        answer, value = solve(a, operator, b, english)
        core = rng.choice((_EN if english else _ZH)[operator]).format(a=a, b=b)
        if english:
            text = rng.choice(_EN_OPEN) + core + rng.choice(_EN_END)
            text = text[:1].upper() + text[1:] if rng.random() < 0.5 else text
        else:
            text = rng.choice(_ZH_OPEN) + core + rng.choice(_ZH_END)
        return text, answer, value

    return draw(rng, split, make, lambda made: made[0])


def _story(rng: Random, split: Split, english: bool) -> tuple[str, str, int]:
    """A sum with something in it to count."""
    operator = rng.choice("+-×")
    a, b = _numbers(rng, split, operator)
    if operator == "-" and b > a:
        a, b = b, a
    if english:
        who, what = first_name(rng, split), rng.choice(_EN_THINGS)
        text = {
            "+": f"{who} has {a} {what} and gets {b} more. How many {what} does {who} have now?",
            "-": f"{who} has {a} {what} and gives {b} away. How many {what} are left?",
            "×": f"There are {a} boxes with {b} {what} in each. How many {what} are there?",
        }[operator]
    else:
        who, what = person(rng, split), rng.choice(_ZH_THINGS)
        unit = _ZH_UNITS.get(what, "个")
        text = {
            "+": rng.choice([f"{who}有{a}{unit}{what}，又买了{b}{unit}，现在一共有多少{unit}？", f"{who}有{a}{unit}{what}，朋友送了{b}{unit}，一共有几{unit}？"]),
            "-": rng.choice([f"{who}有{a}{unit}{what}，送给别人{b}{unit}，还剩多少{unit}？", f"盒子里有{a}{unit}{what}，拿走{b}{unit}，还剩几{unit}？"]),
            "×": rng.choice([f"每盒有{b}{unit}{what}，{a}盒一共有多少{unit}？", f"有{a}个盒子，每个盒子里有{b}{unit}{what}，一共有多少{unit}？"]),
        }[operator]  # fmt: skip
    answer, value = solve(a, operator, b, english)
    return text, answer, value


def sample(rng: Random, split: Split) -> Sample:
    """One to three sums; a later one may go on from the result."""
    english = rng.random() < 0.35
    text, answer, value = _question(rng, split, english)
    messages = [user(text), assistant(answer)]
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        if 0 <= value <= 99 and rng.random() < 0.5:
            before = value

            def follow(before: int = before) -> tuple[str, str, int]:
                operator = rng.choice("+-") if before < 10 or rng.random() < 0.7 else "×"
                b = (
                    rng.randint(1, min(before, 99) or 1)
                    if operator == "-"
                    else rng.randint(2, 9)
                    if operator == "×"
                    else rng.randint(1, 99)
                )
                working, result = solve(before, operator, b, english)
                verbs = (
                    {"+": "加", "-": "减", "×": "乘以"} if not english else {"+": "plus", "-": "minus", "×": "times"}
                )
                zh = [
                    f"再{verbs[operator]}{b}呢？",
                    f"{verbs[operator]}{b}呢",
                    f"然后{verbs[operator]}{b}等于几？",
                    f"结果再{verbs[operator]}{b}是多少？",
                ]
                en = [
                    f"And {verbs[operator]} {b}?",
                    f"{verbs[operator]} {b}?",
                    f"now {verbs[operator]} {b}",
                    f"And that {verbs[operator]} {b}?",
                ]
                return rng.choice(en if english else zh), working, result  # fmt: skip

            try:
                text, answer, value = follow()
            except ZeroDivisionError:  # pragma: no cover
                continue
        else:
            text, answer, value = _question(rng, split, english)
        messages += [user(text), assistant(answer)]
    return Sample("arithmetic", messages)
