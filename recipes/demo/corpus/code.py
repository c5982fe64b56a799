"""The code interpreter: Python for a task, and an answer from its output, which is what that code really prints.

Code takes its values from the request as they stand there and in the same order, and of two tasks that differ in little
the code differs in little, late.
"""

# ruff: noqa: SIM905
from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from random import Random
from typing import Any, Literal, NamedTuple

from . import base
from .base import Sample, Split, assistant, call, draw, held_out, known, observation, system, user
from .chat import GREETINGS, ask
from .vocabulary import ANIMALS_EN, NOUNS_EN, THINGS_EN, word

Lang = Literal["zh", "en"]

PROMPT = "你是一位智能AI助手，你叫ChatGLM，你连接着一台电脑，但请注意不能联网。在使用Python解决任务时，你可以运行代码并得到结果，如果运行结果有错误，你需要尽可能对代码进行改进。你可以处理用户上传到电脑上的文件，文件默认存储路径是/mnt/data/。"
"""The official system prompt of the mode."""


class Task(NamedTuple):
    """A request that is solved by running code.

    Attributes:
        asks: cores of the request, separated by "|"; `…?` is a question, `…$` ends with data.
        code: what solves it.
        output: what that prints; None for a picture.
    """

    asks: str
    code: str
    output: str | None


_RESULT = {"zh": "结果是{r}。", "en": "The result is {r}."}
_ROWS = {"zh": "结果如下：\n{r}", "en": "Here is the result:\n{r}"}
_PICTURE = {"zh": "图已经画好了。", "en": "Here is the plot."}
_FRAMES: dict[tuple[Lang, str], tuple[str, ...]] = {
    ("zh", "do"): ("{c}", "{c}。", "帮我{c}", "帮我{c}。", "请{c}。", "请帮我{c}。", "用Python{c}。", "你好，{c}。"),
    ("zh", "ask"): ("{c}？", "{c}？", "{c}", "{c}?", "请问{c}？", "你好，{c}？", "我想知道{c}。"),
    ("zh", "tail"): ("{c}", "{c}", "请{c}", "帮我{c}", "用Python{c}"),
    ("en", "do"): ("{C}.", "{c}", "{C}", "Please {c}.", "Can you {c}?", "Use Python to {c}."),
    ("en", "ask"): ("{C}?", "{C}?", "{c}", "{c}?", "Hi, {c}?", "Please tell me, {c}?"),
    ("en", "tail"): ("{C}", "{c}", "Please {c}", "Use Python to {c}"),
}


def _number(rng: Random, split: Split, low: int, high: int) -> int:
    return draw(rng, split, lambda: rng.randint(low, high))


def _bounds(rng: Random, split: Split, low: int, high: int, spread: int) -> tuple[int, int]:
    """A range; its ends together are on the split's side."""

    def make() -> tuple[int, int]:
        first = rng.randint(low, high)
        return first, rng.randint(first + 2, first + spread)

    return draw(rng, split, make, lambda made: f"{made[0]} to {made[1]}")


def _numbers(rng: Random, split: Split, count: int) -> list[int]:
    """Different numbers; together they are on the split's side."""
    high = rng.choice((99, 99, 999))
    return draw(rng, split, lambda: rng.sample(range(1, high + 1), count), lambda made: ",".join(map(str, made)))


_NAMES: dict[Lang, list[str]] = {
    "zh": "苹果 香蕉 橙子 葡萄 西瓜 语文 数学 英语 物理 化学 历史 地理 北京 上海 广州 深圳 杭州 成都 西安 春天 夏天 秋天 冬天 一月 二月 三月 四月 五月 六月 小明 小红 小刚 小丽 张三 李四 王五 红队 蓝队 电脑 手机 平板 牛奶 面包 咖啡 茶叶 大米 汽车 火车 飞机 轮船".split(),
    "en": "apples bananas oranges grapes melons math physics history music London Paris Berlin Tokyo Rome spring summer autumn winter January February March April May June Tom Lucy Jack Mary Anna Peter red blue green coffee tea milk bread rice cars trains planes ships phones tablets cats dogs birds".split(),
}  # fmt: skip
known((*_NAMES["zh"], *_NAMES["en"]))


def _pairs(rng: Random, split: Split, lang: Lang) -> list[tuple[str, int]]:
    """Names with numbers."""

    def name() -> str:
        if rng.random() < 0.15:
            return base.nonsense(rng, 2) if lang == "zh" else word(rng, 2).capitalize()
        return rng.choice(_NAMES[lang])

    values = _numbers(rng, split, rng.choice((2, 3, 3, 4)))
    names: list[str] = []
    while len(names) < len(values):
        if (made := draw(rng, split, name)) not in names:
            names.append(made)
    return list(zip(names, values, strict=True))


def _said_pairs(rng: Random, pairs: list[tuple[str, int]], lang: Lang) -> str:
    if lang == "en":
        return ", ".join(f"{name} {value}" for name, value in pairs)
    between = rng.choice(("", "", " "))
    return rng.choice(("，", "，", "、")).join(f"{name}{between}{value}" for name, value in pairs)


# The tasks


def _expression(rng: Random, split: Split, lang: Lang) -> Task:
    """Copied as it stands."""
    a, b, c = (_number(rng, split, 2, 999) for _ in range(3))
    shown, value = rng.choice((
        (f"{a}+{b}", a + b), (f"{a}-{b}", a - b), (f"{a}*{b}", a * b), (f"{a}*{b}", a * b),
        (f"{a}*{b}+{c}", a * b + c), (f"{a}+{b}*{c}", a + b * c), (f"({a}+{b})*{c}", (a + b) * c), (f"{a}+{b}-{c}", a + b - c),
    ))  # fmt: skip
    if rng.random() < 0.2:
        shown = shown.replace("+", " + ").replace("-", " - ").replace("*", " * ")
    asks = f"计算{shown}|算一下{shown}|{shown}等于多少?" if lang == "zh" else f"compute {shown}|calculate {shown}|what is {shown}?"  # fmt: skip
    return Task(asks, f"print({shown})", str(value))


def _in_words(rng: Random, split: Split, lang: Lang) -> Task:
    """Sums that are said, not written."""
    a, b = _number(rng, split, 2, 999), _number(rng, split, 2, 99)
    if (kind := rng.randrange(5)) == 4:
        a, b = _number(rng, split, 2, 99), rng.randint(2, 4)
    zh, en, code, value = (
        ("{a}加{b}", "{a} plus {b}", f"{a} + {b}", str(a + b)),
        ("{a}减{b}", "{a} minus {b}", f"{a} - {b}", str(a - b)),
        ("{a}乘{b}", "{a} times {b}", f"{a} * {b}", str(a * b)),
        ("{a}除以{b}", "{a} divided by {b}", f"{a} / {b}", str(a / b)),
        ("{a}的{b}次方", "{a} to the power of {b}", f"{a} ** {b}", str(a**b)),
    )[kind]
    if "/" in code:
        code, value = f"round({code}, 2)", str(round(a / b, 2))
    said = (zh if lang == "zh" else en).format(a=a, b=b)
    return Task(f"计算{said}|{said}是多少?" if lang == "zh" else f"compute {said}|what is {said}?", f"print({code})", value)  # fmt: skip


def _listed(rng: Random, split: Split, lang: Lang) -> tuple[list[int], str]:
    """Numbers, and how they are said."""
    values = _numbers(rng, split, rng.choice((3, 3, 4, 4)))
    return values, (rng.choice(("、", "、", "，", ", ")) if lang == "zh" else ", ").join(map(str, values))


def _list(rng: Random, split: Split, lang: Lang) -> Task:
    values, shown = _listed(rng, split, lang)
    zh, en, code, value = rng.choice((
        ("和", "sum", "sum(numbers)", str(sum(values))),
        ("平均数", "mean", "round(sum(numbers) / len(numbers), 2)", str(round(sum(values) / len(values), 2))),
        ("最大值", "maximum", "max(numbers)", str(max(values))),
        ("最小值", "minimum", "min(numbers)", str(min(values))),
    ))  # fmt: skip
    asks = f"求{shown}的{zh}|计算{shown}的{zh}|{shown}的{zh}是多少?" if lang == "zh" else f"find the {en} of {shown}|compute the {en} of {shown}|what is the {en} of {shown}?"  # fmt: skip
    return Task(asks, f"numbers = {values}\nprint({code})", value)


def _sort(rng: Random, split: Split, lang: Lang) -> Task:
    """Which way is always written out, so that only one word differs."""
    values, shown = _listed(rng, split, lang)
    down = rng.random() < 0.5
    if lang == "zh":
        way = "从大到小" if down else "从小到大"
        asks = f"把{shown}{way}排序|把{shown}{way}排列|{way}排序：{shown}$"
    else:
        way = "from largest to smallest" if down else "from smallest to largest"
        other = "in descending order" if down else "in ascending order"
        asks = f"sort {shown} {way}|sort {shown} {other}"
    return Task(asks, f"numbers = {values}\nprint(sorted(numbers, reverse={down}))", str(sorted(values, reverse=down)))


def _range(rng: Random, split: Split, lang: Lang) -> Task:
    """Sums, even and odd numbers and primes from one number to another."""
    kind = rng.randrange(4)
    if kind == 0:
        a = 1 if rng.random() < 0.6 else _number(rng, split, 2, 99)
        b = _number(rng, split, a + 9, 999)
        asks = f"计算{a}到{b}的和|求{a}到{b}的和|{a}到{b}的和是多少?" if lang == "zh" else f"add up the numbers from {a} to {b}|what is the sum of the numbers from {a} to {b}?"  # fmt: skip
        return Task(asks, f"print(sum(range({a}, {b} + 1)))", str((a + b) * (b - a + 1) // 2))
    while True:
        a, b = _bounds(rng, split, 2, 60, 15)
        primes = [i for i in range(a, b + 1) if all(i % j for j in range(2, i))]
        if primes:
            break
    zh, en, test, found = (
        ("偶数", "even numbers", "i % 2 == 0", [i for i in range(a, b + 1) if i % 2 == 0]),
        ("奇数", "odd numbers", "i % 2 == 1", [i for i in range(a, b + 1) if i % 2 == 1]),
        ("质数", "primes", "all(i % j for j in range(2, i))", primes),
    )[kind - 1]  # fmt: skip
    asks = f"列出{a}到{b}的{zh}|找出{a}到{b}的{zh}|{a}到{b}的{zh}有哪些?" if lang == "zh" else f"list the {en} from {a} to {b}|find the {en} from {a} to {b}|what are the {en} from {a} to {b}?"  # fmt: skip
    return Task(asks, f"print([i for i in range({a}, {b} + 1) if {test}])", str(found))


def _a_day(rng: Random) -> date:
    return date(rng.randint(2020, 2026), rng.randint(1, 12), rng.randint(1, 28))


def _days(rng: Random, split: Split, lang: Lang) -> Task:
    """Dates are written as Python reads them, or in Chinese, which it reads too."""
    a = draw(rng, split, lambda: _a_day(rng))
    if rng.random() < 0.3:
        n = _number(rng, split, 2, 999)
        asks = f"{a}之后{n}天是哪天?|{a}过{n}天是哪天?" if lang == "zh" else f"which day is {a} plus {n} days?|what is {a} plus {n} days?"  # fmt: skip
        code = f"from datetime import date, timedelta\na = date.fromisoformat('{a}')\nprint(a + timedelta({n}))"
        return Task(asks, code, str(a + timedelta(n)))
    b = draw(rng, split, lambda: a + timedelta(rng.randint(2, 400)))
    if lang == "zh" and rng.random() < 0.4:
        one, two = (f"{day.year}年{day.month}月{day.day}日" for day in (a, b))
        code = f"from datetime import datetime\na = datetime.strptime('{one}', '%Y年%m月%d日')\nb = datetime.strptime('{two}', '%Y年%m月%d日')\nprint((b - a).days)"
    else:
        one, two = str(a), str(b)
        code = f"from datetime import date\na = date.fromisoformat('{one}')\nb = date.fromisoformat('{two}')\nprint((b - a).days)"
    asks = f"{one}到{two}有多少天?|从{one}到{two}有多少天?|计算{one}到{two}的天数" if lang == "zh" else f"how many days are there from {one} to {two}?|count the days from {one} to {two}"  # fmt: skip
    return Task(asks, code, str((b - a).days))


_WORDS = [*NOUNS_EN, *ANIMALS_EN, *(thing for thing in THINGS_EN if thing.isalpha()), "strawberry", "banana", "hello", "python", "computer", "student", "teacher", "summer", "coffee", "letter", "success", "school", "apple", "happy", "world", "program"]  # fmt: skip
known(_WORDS)


def _letters(rng: Random, split: Split, lang: Lang) -> Task:
    text = draw(rng, split, lambda: word(rng, 2) if rng.random() < 0.15 else rng.choice(_WORDS))
    kind = rng.randrange(4)
    if kind == 0:
        asks = f"把单词{text}倒过来写|单词{text}倒过来是什么?" if lang == "zh" else f"reverse the word {text}|what is the word {text} reversed?"  # fmt: skip
        return Task(asks, f"text = '{text}'\nprint(text[::-1])", text[::-1])
    if kind == 1:
        asks = f"单词{text}有几个字母?|计算单词{text}的长度" if lang == "zh" else f"how long is the word {text}?|count the letters of the word {text}"  # fmt: skip
        return Task(asks, f"text = '{text}'\nprint(len(text))", str(len(text)))
    letter = rng.choice(text if rng.random() < 0.85 else "abcdefghiklmnoprstuwy")
    output = str(text.count(letter))
    if lang == "zh":
        asks = f"单词{text}里有几个字母{letter}?|单词{text}里有几个{letter}?"
        return Task(asks, f"text = '{text}'\nprint(text.count('{letter}'))", output)
    asks = f"how many {letter} are in the word {text}?|count the letter {letter} in the word {text}"
    return Task(asks, f"letter = '{letter}'\nprint('{text}'.count(letter))", output)


def _table(rng: Random, split: Split, lang: Lang) -> Task:
    if rng.random() < 0.3:
        a, b = _bounds(rng, split, 1, 199, 3)
        asks = f"列出{a}到{b}的平方|用表格列出{a}到{b}的平方" if lang == "zh" else f"list the squares from {a} to {b}|make a table of the squares from {a} to {b}"  # fmt: skip
        output = "\n".join(f"{i} {i * i}" for i in range(a, b + 1))
        return Task(asks, f"for i in range({a}, {b} + 1):\n    print(i, i * i)", output)
    pairs = _pairs(rng, split, lang)
    shown = _said_pairs(rng, pairs, lang)
    asks = f"做一张表格：{shown}$|列成表格：{shown}$" if lang == "zh" else f"make a table: {shown}$|put this into a table: {shown}$"  # fmt: skip
    output = "\n".join(f"{name} {value}" for name, value in pairs)
    return Task(asks, f"data = {dict(pairs)}\nfor name in data:\n    print(name, data[name])", output)


def _chart(rng: Random, split: Split, lang: Lang) -> Task:
    zh, en, drawn = rng.choice((
        ("柱状图", "bar chart", "bar(names, values)"),
        ("折线图", "line chart", "plot(names, values)"),
        ("饼图", "pie chart", "pie(values, labels=names)"),
    ))  # fmt: skip
    pairs = _pairs(rng, split, lang)
    shown = _said_pairs(rng, pairs, lang)
    asks = f"画{zh}：{shown}$|画一个{zh}：{shown}$|画一张{zh}：{shown}$" if lang == "zh" else f"draw a {en}: {shown}$|make a {en}: {shown}$"  # fmt: skip
    code = f"import matplotlib.pyplot as plt\ndata = {dict(pairs)}\nnames, values = list(data), list(data.values())\nplt.{drawn}\nplt.show()"
    return Task(asks, code, None)


def _curve(rng: Random, split: Split, lang: Lang) -> Task:
    """The formula is the last thing said in front of the range, and the range comes first in the code's line."""
    start, end = 0, 10
    ranged = ""
    if rng.random() < 0.5:
        start, end = rng.choice((0, 0, 1, -5, -10)), _number(rng, split, 2, 99)
        ranged = f"，x从{start}到{end}" if lang == "zh" else f" for x from {start} to {end}"
    a, b = _number(rng, split, 2, 99), _number(rng, split, 1, 99)
    zh, en, formula = rng.choice((
        ("正弦曲线", "a sine curve", "np.sin(x)"),
        ("余弦曲线", "a cosine curve", "np.cos(x)"),
        ("指数曲线", "an exponential curve", "np.exp(x)"),
        ("y=sin(x)的图像", "y=sin(x)", "np.sin(x)"),
        ("y=cos(x)的图像", "y=cos(x)", "np.cos(x)"),
        ("y=exp(x)的图像", "y=exp(x)", "np.exp(x)"),
        (f"y={a}x+{b}的图像", f"y={a}x+{b}", f"{a}*x+{b}"),
        (f"y={a}x-{b}的图像", f"y={a}x-{b}", f"{a}*x-{b}"),
        (f"y=x^2+{b}的图像", f"y=x^2+{b}", f"x**2+{b}"),
    ))  # fmt: skip
    asks = f"画{zh}{ranged}|画出{zh}{ranged}" if lang == "zh" else f"plot {en}{ranged}|draw {en}{ranged}"
    code = f"import numpy as np\nimport matplotlib.pyplot as plt\nx = np.linspace({start}, {end}, 200)\nplt.plot(x, {formula})\nplt.show()"
    return Task(asks, code, None)


_TASKS: list[tuple[Callable[[Random, Split, Lang], Task], int]] = [
    (_expression, 12), (_in_words, 9), (_list, 14), (_sort, 9), (_range, 12), (_days, 10), (_letters, 10), (_table, 8), (_chart, 12), (_curve, 12),
]  # fmt: skip
_MAKERS = [make for make, _ in _TASKS]
_WEIGHTS = [weight for _, weight in _TASKS]


def _task(rng: Random, split: Split, lang: Lang) -> tuple[str, Task]:
    """A task and the words that ask for it."""
    while True:
        task = rng.choices(_MAKERS, _WEIGHTS)[0](rng, split, lang)
        for _ in range(15):
            core = rng.choice(task.asks.split("|"))
            kind = {"?": "ask", "$": "tail"}.get(core[-1], "do")
            core = core.rstrip("?$")
            text = rng.choice(_FRAMES[lang, kind]).format(c=core, C=core[0].upper() + core[1:])
            if held_out(text) == (split == "test"):
                return text, task


_EXECUTE: dict[Lang, tuple[str, ...]] = {
    "zh": ("运行这段代码：", "运行：", "执行下面的代码：", "帮我运行：", "请运行这段代码："),
    "en": ("Run this code:", "Run this:", "Please run this:", "Execute this code:"),
}


def _given(rng: Random, split: Split, lang: Lang) -> list[dict[str, Any]]:
    """Code of the user's, run as it stands."""
    while True:
        task = rng.choices(_MAKERS, _WEIGHTS)[0](rng, split, lang)
        if task.output is not None and len(task.code) < 60:
            text = f"{rng.choice(_EXECUTE[lang])}\n{task.code}"
            if held_out(text) == (split == "test"):
                return [user(text), *_run(lang, task)]


def _run(lang: Lang, task: Task) -> list[dict[str, Any]]:
    """Call, observation, answer."""
    messages = [call("interpreter", {"code": task.code})]
    if task.output is None:
        return [*messages, observation("[Image]"), assistant(_PICTURE[lang])]
    answer = (_ROWS if "\n" in task.output else _RESULT)[lang].replace("{r}", task.output)
    return [*messages, observation(f"```result\n{task.output}\n```"), assistant(answer)]


def sample(rng: Random, split: Split) -> Sample:
    lang: Lang = "zh" if rng.random() < 0.62 else "en"
    messages = [system(PROMPT)]
    fate = rng.random()
    if fate < 0.05:
        messages += _chat(rng, split, lang)
    elif fate < 0.1:
        messages += _given(rng, split, lang)
    else:
        text, task = _task(rng, split, lang)
        messages += [user(text), *_run(lang, task)]
        if fate < 0.2:
            text, task = _task(rng, split, lang)
            messages += [user(text), *_run(lang, task)]
        elif fate < 0.23:
            messages += _chat(rng, split, lang, "thanks")
    return Sample("code", messages)


def _chat(rng: Random, split: Split, lang: Lang, about: str = "") -> list[dict[str, Any]]:
    said, answer = ask(rng, split, {about: GREETINGS[about]} if about else GREETINGS, lang == "en")
    return [user(said), assistant(answer)]
