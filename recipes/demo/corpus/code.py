"""The code interpreter: Python for a task, and an answer from its output, which is what that code really prints.

Code takes its values from the request as they stand there and in the same order, and of two tasks that differ in little
the code differs in little, late.
"""

# ruff: noqa: SIM905
from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from random import Random
from typing import Any, Literal, NamedTuple

from . import base
from .base import Sample, Split, assistant, call, draw, form, held_out, known, observation, persistently, system, user
from .chat import GREETINGS, IDENTITY, ask
from .vocabulary import ANIMALS_EN, NOUNS_EN, THINGS_EN, word
from .wording import Kind, choose, dress, ways

Lang = Literal["zh", "en"]

PROMPT = "你是一位智能AI助手，你叫ChatGLM，你连接着一台电脑，但请注意不能联网。在使用Python解决任务时，你可以运行代码并得到结果，如果运行结果有错误，你需要尽可能对代码进行改进。你可以处理用户上传到电脑上的文件，文件默认存储路径是/mnt/data/。"
"""The official system prompt of the mode."""


class Task(NamedTuple):
    """A request that is solved by running code.

    Attributes:
        asks: patterns of the request, separated by "|" outside of brackets, with {slots}; `…?` is a question, `…$` ends
            with data.
        values: what stands for the slots.
        code: what solves it.
        output: what that prints; None for a picture.
    """

    asks: str
    values: dict[str, Any]
    code: str
    output: str | None


_RESULT = {"zh": "结果是{r}。", "en": "The result is {r}."}
_ROWS = {"zh": "结果如下：\n{r}", "en": "Here is the result:\n{r}"}
_PICTURE = {"zh": "图已经画好了。", "en": "Here is the plot."}


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
    asks = (
        "计算( |){e}|算(一下|下|算|)( |){e}|{e}( |)(等于|是|得)(多少|几)?|{e}(=|)?|求{e}(的值|的结果|)|{e}的(值|结果)(是多少|)?|计算：{e}$|(运行|执行){e}"
        if lang == "zh"
        else "(compute|calculate|evaluate|work out) {e}|what is {e}?|(what's|how much is) {e}?|{e} =|the (value|result) of {e}?"
    )
    return Task(asks, {"e": shown}, f"print({shown})", str(value))


def _in_words(rng: Random, split: Split, lang: Lang) -> Task:
    """Sums that are said, not written."""
    a, b = _number(rng, split, 2, 999), _number(rng, split, 2, 99)
    if (kind := rng.randrange(7)) == 4:
        a, b = _number(rng, split, 2, 99), rng.randint(2, 4)
        if rng.random() < 0.25:
            a, b = 2, rng.randint(3, 30)
    elif kind == 5:
        a = rng.randint(3, 12)
    elif kind == 6:
        a = rng.choice((2, 3, 5, 7, 10, a, a))
    zh, en, code, value = (
        ("{a}( |)(加|加上)( |){b}", "{a} plus {b}", f"{a} + {b}", str(a + b)),
        ("{a}( |)(减|减去)( |){b}", "{a} minus {b}", f"{a} - {b}", str(a - b)),
        ("{a}( |)(乘|乘以)( |){b}", "{a} (times|multiplied by) {b}", f"{a} * {b}", str(a * b)),
        ("{a}( |)(除以)( |){b}", "{a} divided by {b}", f"{a} / {b}", str(a / b)),
        ("{a}的{b}次(方|幂)", "{a} to the (power of|power) {b}", f"{a} ** {b}", str(a**b)),
        ("{a}的阶乘", "(the |)factorial of {a}", f"math.factorial({a})", str(math.factorial(a))),
        (
            "(根号{a}|{a}的平方根)",
            "(the |)square root of {a}",
            f"round(math.sqrt({a}), 4)",
            str(round(math.sqrt(a), 4)),
        ),
    )[kind]
    if kind == 3:
        code, value = f"round({code}, 2)", str(round(a / b, 2))
    lead = "import math\n" if kind > 4 else ""
    asks = (
        f"(计算|算|算一下|求){zh}|{zh}(是|等于|得)(多少|几)?|{zh}"
        if lang == "zh"
        else f"(compute|calculate|find) {en}|what is {en}?|(what's|how much is) {en}?|{en}"
    )
    return Task(asks, {"a": a, "b": b}, f"{lead}print({code})", value)


def _listed(rng: Random, split: Split, lang: Lang) -> tuple[list[int], str]:
    """Numbers, and how they are said."""
    values = _numbers(rng, split, rng.choice((3, 3, 4, 4, 5)))
    mark = rng.choice(("、", "，", ", ", ",", " ")) if lang == "zh" else rng.choice((", ", ", ", ",", " "))
    shown = mark.join(map(str, values))
    return values, f"[{shown}]" if "," in mark and rng.random() < 0.3 else shown


def _list(rng: Random, split: Split, lang: Lang) -> Task:
    values, shown = _listed(rng, split, lang)
    zh, en, code, value = rng.choice((
        ("(和|总和)", "(sum|total)", "sum(numbers)", str(sum(values))),
        ("(平均数|平均值|均值|平均)", "(mean|average)", "round(sum(numbers) / len(numbers), 2)", str(round(sum(values) / len(values), 2))),
        ("(最大值|最大的数)", "(maximum|largest|max)", "max(numbers)", str(max(values))),
        ("(最小值|最小的数)", "(minimum|smallest|min)", "min(numbers)", str(min(values))),
    ))  # fmt: skip
    asks = (
        f"(求|计算|算一下|算)( |){{l}}( |)的{zh}|{{l}}( |)的{zh}(是|)(多少|几)?|求{zh}：{{l}}$|{zh}：{{l}}$|(这几个数|这些数)的{zh}(是多少|)：{{l}}$|{{l}}，求{zh}"
        if lang == "zh"
        else f"(find|compute|calculate|get) the {en} of {{l}}|(what is|what's) the {en} of {{l}}?|{en} of {{l}}|{{l}}: {en}?"
    )
    return Task(asks, {"l": shown}, f"numbers = {values}\nprint({code})", value)


def _sort(rng: Random, split: Split, lang: Lang) -> Task:
    """Which way is always written out, so that only one word differs."""
    values, shown = _listed(rng, split, lang)
    down = rng.random() < 0.5
    if lang == "zh":
        way = "(从大到小|降序|由大到小)" if down else "(从小到大|升序|由小到大)"
        asks = f"(把|将|给)( |){{l}}( |){way}(排序|排列|排一下|排)|{way}(排序|排列|排)：{{l}}$|(排序|排一下)：{{l}}，{way}|{{l}}( |){way}(排序|排列)"
    else:
        way = (
            "(from largest to smallest|in descending order|descending)"
            if down
            else "(from smallest to largest|in ascending order|ascending)"
        )
        asks = f"(sort|order|arrange) {{l}} {way}|sort {way}: {{l}}$"
    return Task(
        asks,
        {"l": shown},
        f"numbers = {values}\nprint(sorted(numbers, reverse={down}))",
        str(sorted(values, reverse=down)),
    )


def _range(rng: Random, split: Split, lang: Lang) -> Task:
    """Sums, even and odd numbers and primes from one number to another."""
    kind = rng.randrange(4)
    within = rng.random() < 0.3
    if kind == 0:
        a = 1 if within or rng.random() < 0.5 else _number(rng, split, 2, 99)
        b = rng.choice((100, 100, 1000, 10)) if within and rng.random() < 0.5 else _number(rng, split, a + 9, 999)
        asks = (
            "(计算|求|算一下|算)( |){a}( |)(到|加到|至|-|一直加到)( |){b}( |)的(和|总和)|{a}( |)(加到|到|一直加到)( |){b}( |)(的和|)(是|等于)多少?|(从|){a}( |)(加到|累加到)( |){b}|{a}到{b}(加起来|求和|所有数的和)(是多少|)?"
            if lang == "zh"
            else "add up (the |all |)numbers from {a} to {b}|(what is|what's) the sum of (the numbers from |all numbers from |){a} to {b}?|sum (of |){a} to {b}|(add|sum) {a} to {b}"
        )
        return Task(asks, {"a": a, "b": b}, f"print(sum(range({a}, {b} + 1)))", str((a + b) * (b - a + 1) // 2))
    while True:
        a, b = _bounds(rng, split, 2, 60, 15)
        if within:
            a, b = 2 if kind == 3 else 1, rng.choice((10, 20, 30, 50, 100))
        primes = [i for i in range(a, b + 1) if all(i % j for j in range(2, i))]
        if primes:
            break
    zh, en, test, found = (
        ("(偶数|双数)", "even numbers", "i % 2 == 0", [i for i in range(a, b + 1) if i % 2 == 0]),
        ("(奇数|单数)", "odd numbers", "i % 2 == 1", [i for i in range(a, b + 1) if i % 2 == 1]),
        ("(质数|素数)", "(primes|prime numbers)", "all(i % j for j in range(2, i))", primes),
    )[kind - 1]  # fmt: skip
    if within:
        asks = f"{{b}}(以内|以下|之内)的{zh}(有哪些|有什么|)?|(列出|找出|求|写出){{b}}(以内|以下|之内)的(所有|){zh}" if lang == "zh" else f"(all |)(the |){en} (up to|below|under) {{b}}|(list|find|show) (all |the |){en} (up to|below) {{b}}"  # fmt: skip
    else:
        asks = f"(列出|找出|求|写出|找){{a}}(到|至|-){{b}}(之间|)的(所有|){zh}|{{a}}(到|至|-){{b}}(之间|)的{zh}(有哪些|有什么|是哪些)?" if lang == "zh" else f"(list|find|show|print) (all |)the {en} from {{a}} to {{b}}|what are the {en} (from|between) {{a}} (to|and) {{b}}?|{en} from {{a}} to {{b}}"  # fmt: skip
    return Task(asks, {"a": a, "b": b}, f"print([i for i in range({a}, {b} + 1) if {test}])", str(found))


def _a_day(rng: Random) -> date:
    return date(rng.randint(2020, 2026), rng.randint(1, 12), rng.randint(1, 28))


def _days(rng: Random, split: Split, lang: Lang) -> Task:
    """Dates are written as Python reads them, or in Chinese, which it reads too."""
    a = draw(rng, split, lambda: _a_day(rng))
    if rng.random() < 0.3:
        n = _number(rng, split, 2, 999)
        asks = "{a}(之后|后|过|再过|往后){n}天(是|)(哪天|几号|哪一天|几月几号)?|{a}(加|加上){n}天(是哪天|)?" if lang == "zh" else "(which|what) day is {a} plus {n} days?|what is {a} plus {n} days?|{n} days after {a}|what date is {n} days after {a}?"  # fmt: skip
        code = f"from datetime import date, timedelta\na = date.fromisoformat('{a}')\nprint(a + timedelta({n}))"
        return Task(asks, {"a": a, "n": n}, code, str(a + timedelta(n)))
    b = draw(rng, split, lambda: a + timedelta(rng.randint(2, 400)))
    if lang == "zh" and rng.random() < 0.4:
        one, two = (f"{day.year}年{day.month}月{day.day}日" for day in (a, b))
        code = f"from datetime import datetime\na = datetime.strptime('{one}', '%Y年%m月%d日')\nb = datetime.strptime('{two}', '%Y年%m月%d日')\nprint((b - a).days)"
    else:
        one, two = str(a), str(b)
        code = f"from datetime import date\na = date.fromisoformat('{one}')\nb = date.fromisoformat('{two}')\nprint((b - a).days)"
    asks = "(从|){a}( |)(到|至|和)( |){b}( |)(一共|总共|)(有|隔了|相差|相隔|)(多少|几)天?|(计算|求|算)(从|){a}到{b}(的天数|有几天)|{a}(和|与|到){b}(之间|)(差|相差)(多少|几)天?" if lang == "zh" else "how many days (are there |)(from|between) {a} (to|and) {b}?|(count|compute) the days (from|between) {a} (to|and) {b}|days from {a} to {b}"  # fmt: skip
    return Task(asks, {"a": one, "b": two}, code, str((b - a).days))


_WORDS = [*NOUNS_EN, *ANIMALS_EN, *(thing for thing in THINGS_EN if thing.isalpha()), "strawberry", "banana", "hello", "python", "computer", "student", "teacher", "summer", "coffee", "letter", "success", "school", "apple", "happy", "world", "program"]  # fmt: skip
known(_WORDS)


def _letters(rng: Random, split: Split, lang: Lang) -> Task:
    text = draw(rng, split, lambda: word(rng, 2) if rng.random() < 0.15 else rng.choice(_WORDS))
    kind = rng.randrange(4)
    if kind == 0:
        asks = "把(单词|字符串|)( |){t}( |)(倒过来写|反过来写|倒序|反转|翻转)|(单词|){t}(倒过来|反过来)(是|)(什么|怎么写)?" if lang == "zh" else "(reverse|turn around) (the word |){t}|what is (the word |){t} (reversed|backwards)?|(spell|write) {t} backwards"  # fmt: skip
        return Task(asks, {"t": text}, f"text = '{text}'\nprint(text[::-1])", text[::-1])
    if kind == 1:
        asks = "(单词|){t}(一共|)有(几个|多少个|多少)字母?|(计算|求)(单词|){t}的长度|{t}(有|)多长?|{t}的(字母数|长度)" if lang == "zh" else "how (long is|many letters are in|many letters has) (the word |){t}?|count the letters (of|in) (the word |){t}|(the |)length of {t}"  # fmt: skip
        return Task(asks, {"t": text}, f"text = '{text}'\nprint(len(text))", str(len(text)))
    letter = rng.choice(text if rng.random() < 0.85 else "abcdefghiklmnoprstuwy")
    output = str(text.count(letter))
    if lang == "zh":
        asks = "(单词|){t}( |)(里|中|里面|当中)(一共|)有(几|多少)个(字母|)( |){c}?|(数一下|数数|统计)(单词|){t}(里|中)(有几个|)(字母|){c}|{c}在{t}(里|中)出现(几|多少)次?"
        return Task(asks, {"t": text, "c": letter}, f"text = '{text}'\nprint(text.count('{letter}'))", output)
    asks = "how many {c}('s|s|) are (there |)in (the word |){t}?|count (the letter |){c} in (the word |){t}|how often (is|does) {c} (in|occur in) {t}?|number of {c} in {t}"
    return Task(asks, {"t": text, "c": letter}, f"letter = '{letter}'\nprint('{text}'.count(letter))", output)


def _table(rng: Random, split: Split, lang: Lang) -> Task:
    if rng.random() < 0.3:
        a, b = _bounds(rng, split, 1, 199, 3)
        asks = "(用表格|)(列出|写出|打印){a}到{b}的平方|{a}到{b}的平方(表|有哪些|)" if lang == "zh" else "(list|show|print|make a table of) the squares (from|of) {a} to {b}|squares from {a} to {b}"  # fmt: skip
        output = "\n".join(f"{i} {i * i}" for i in range(a, b + 1))
        return Task(asks, {"a": a, "b": b}, f"for i in range({a}, {b} + 1):\n    print(i, i * i)", output)
    pairs = _pairs(rng, split, lang)
    shown = _said_pairs(rng, pairs, lang)
    asks = "(做|列|画|生成|整理成)(一张|一个|成|)(表格|表)(：|，|:){l}$|(用表格|以表格)(显示|展示|列出)(：|，|){l}$|{l}，(做成|列成|整理成)表格" if lang == "zh" else "(make|create|show|print) a table(: | of | with ){l}$|(put|turn) this into a table: {l}$|table: {l}$"  # fmt: skip
    output = "\n".join(f"{name} {value}" for name, value in pairs)
    return Task(asks, {"l": shown}, f"data = {dict(pairs)}\nfor name in data:\n    print(name, data[name])", output)


def _chart(rng: Random, split: Split, lang: Lang) -> Task:
    zh, en, drawn = rng.choice((
        ("(柱状图|条形图|柱形图)", "(bar chart|bar graph|bar plot)", "bar(names, values)"),
        ("(折线图|线图)", "(line chart|line graph|line plot)", "plot(names, values)"),
        ("(饼图|饼状图)", "(pie chart|pie)", "pie(values, labels=names)"),
    ))  # fmt: skip
    pairs = _pairs(rng, split, lang)
    shown = _said_pairs(rng, pairs, lang)
    asks = f"(画|做|生成|绘制)(一个|一张|个|张|){zh}(：|，|:| ){{l}}$|(用|以){zh}(显示|展示|表示|画出)(：|，|){{l}}$|{{l}}，(画成|做成|画个|画){zh}|{zh}：{{l}}$" if lang == "zh" else f"(draw|make|plot|show|create) a {en}(: | of | with | for ){{l}}$|{en}: {{l}}$|(show|plot) {{l}} as a {en}"  # fmt: skip
    code = f"import matplotlib.pyplot as plt\ndata = {dict(pairs)}\nnames, values = list(data), list(data.values())\nplt.{drawn}\nplt.show()"
    return Task(asks, {"l": shown}, code, None)


def _curve(rng: Random, split: Split, lang: Lang) -> Task:
    """The formula is the last thing said in front of the range, and the range comes first in the code's line."""
    start, end = 0, 10
    ranged = ""
    if rng.random() < 0.45:
        start, end = rng.choice((0, 0, 1, -5, -10)), _number(rng, split, 2, 99)
        ranged = (
            rng.choice(("，x从{s}到{n}", "，范围{s}到{n}", "，{s}到{n}"))
            if lang == "zh"
            else rng.choice((" for x from {s} to {n}", " from {s} to {n}", " between {s} and {n}"))
        )
    a, b = _number(rng, split, 2, 99), _number(rng, split, 1, 99)
    zh, en, formula = rng.choice((
        ("(正弦|sin|sine|正弦函数|sin函数|sin(x))( |)(曲线|的图像|图像|函数|图|)", "(a |the |)(sine|sin)( curve| function| wave|)", "np.sin(x)"),
        ("(余弦|cos|余弦函数|cos函数|cos(x))( |)(曲线|的图像|图像|函数|图|)", "(a |the |)(cosine|cos)( curve| function|)", "np.cos(x)"),
        ("(指数|exp|指数函数)(曲线|的图像|函数|)", "(an |the |)exponential( curve| function|)", "np.exp(x)"),
        ("y( |)=( |)sin(x)(的图像|的曲线|)", "y( |)=( |)sin(x)", "np.sin(x)"),
        ("y( |)=( |)cos(x)(的图像|的曲线|)", "y( |)=( |)cos(x)", "np.cos(x)"),
        ("y=exp(x)的图像", "y=exp(x)", "np.exp(x)"),
        ("{f}(的图像|的曲线|)", "{f}", f"{a}*x+{b}"),
        ("{f}(的图像|的曲线|)", "{f}", f"{a}*x-{b}"),
        ("{f}(的图像|的曲线|)", "{f}", f"x**2+{b}"),
        ("{f}(的图像|的曲线|)", "{f}", "x**2"),
    ))  # fmt: skip
    shown = "y=" + formula.replace("*x", "x").replace("x**2", rng.choice(("x^2", "x²", "x**2")))
    zh, en = (each.replace("(x)", "\ue000x\ue001") for each in (zh, en))
    asks = f"(画|画出|绘制|画一下|画个|画一个|做出){zh}{ranged}|{zh}{ranged}(怎么画|长什么样)?" if lang == "zh" else f"(plot|draw|show|sketch) {en}{ranged}|(show me|make) a (plot|graph) of {en}{ranged}"  # fmt: skip
    code = f"import numpy as np\nimport matplotlib.pyplot as plt\nx = np.linspace({start}, {end}, 200)\nplt.plot(x, {formula})\nplt.show()"
    return Task(asks, {"f": shown, "s": start, "n": end}, code, None)


_TASKS: list[tuple[Callable[[Random, Split, Lang], Task], int]] = [
    (_expression, 12), (_in_words, 12), (_list, 14), (_sort, 9), (_range, 12), (_days, 10), (_letters, 10), (_table, 8), (_chart, 12), (_curve, 12),
]  # fmt: skip
_MAKERS = [make for make, _ in _TASKS]
_WEIGHTS = [weight for _, weight in _TASKS]
_LEADS: dict[Lang, tuple[str, ...]] = {
    "zh": ("", "", "", "", "", "用Python", "用python", "写代码", "用代码", "运行代码", "请用Python代码", "编程"),
    "en": ("", "", "", "", "", "use Python to ", "with python, ", "write code to ", "run code: ", "using code, "),
}


def _typed(rng: Random, split: Split, lang: Lang, task: Task) -> str:
    """A request for a task, as it is typed."""
    core = form(rng, split, ways(task.asks))
    kind: Kind = "ask" if core[-1] == "?" else "tail" if core[-1] == "$" else "do"
    core = choose(rng, core.rstrip("?$")).replace("\ue000", "(").replace("\ue001", ")")
    if kind == "do" and rng.random() < 0.3:
        core = rng.choice(_LEADS[lang]) + core
    return dress(rng, split, core, lang == "en", kind, task.values, calm=0.4)


def _task(rng: Random, split: Split, lang: Lang) -> tuple[str, Task]:
    """A task and the words that ask for it."""
    while True:
        task = rng.choices(_MAKERS, _WEIGHTS)[0](rng, split, lang)
        for _ in range(15):
            text = _typed(rng, split, lang, task)
            if held_out(text) == (split == "test"):
                return text, task


_EXECUTE: dict[Lang, tuple[str, ...]] = {
    "zh": (
        "运行这段代码：\n",
        "运行：\n",
        "执行下面的代码：\n",
        "帮我运行：\n",
        "请运行这段代码：\n",
        "运行 ",
        "运行",
        "执行：",
        "跑一下这段代码\n",
        "运行下面的Python代码\n",
        "试试这个：\n",
        "执行 ",
    ),
    "en": (
        "Run this code:\n",
        "Run this:\n",
        "Please run this:\n",
        "Execute this code:\n",
        "run ",
        "execute: ",
        "run the following\n",
        "try this code\n",
        "what does this print?\n",
    ),
}


def _given(rng: Random, split: Split, lang: Lang) -> list[dict[str, Any]]:
    """Code of the user's, run as it stands."""
    while True:
        task = rng.choices(_MAKERS, _WEIGHTS)[0](rng, split, lang)
        if rng.random() < 0.25:
            said = word(rng, 2)
            task = Task("", {}, f"print('{said}')", said)
        if task.output is not None and len(task.code) < 60:
            lead = form(rng, split, [each for each in _EXECUTE[lang] if "\n" not in task.code or each.endswith("\n")])
            fenced = lead.endswith("\n") and rng.random() < 0.25
            text = lead + (f"```python\n{task.code}\n```" if fenced else task.code)
            if held_out(text) == (split == "test"):
                return [user(text), *_run(lang, task)]


# A cell that fails, and the next one that does not

_NAMES_OF_ERRORS = (
    "print",
    "sum",
    "range",
    "sorted",
    "len",
    "max",
    "min",
    "round",
    "math",
    "numbers",
    "date",
    "plt",
    "np",
)


def _broken(rng: Random, code: str) -> tuple[str, str, int, str] | None:
    """A code with an error in it: the code, the error, the number of its line and the line."""
    lines = code.split("\n")
    kind = rng.randrange(3)
    if kind == 0:  # a name is mistyped
        found = [(n, name) for n, line in enumerate(lines) for name in _NAMES_OF_ERRORS if f"{name}(" in line]
        if not found:
            return None
        number, name = rng.choice(found)
        wrong = name[:-2] + name[-1] if rng.random() < 0.5 else name[0] + name[2:]
        lines[number] = lines[number].replace(f"{name}(", f"{wrong}(", 1)
        return "\n".join(lines), f"NameError: name '{wrong}' is not defined", number + 1, lines[number]
    if kind == 1 and lines[0].startswith(("import ", "from ")):  # the import is missing
        missing = (
            "math"
            if lines[0] == "import math"
            else "np"
            if "numpy" in lines[0]
            else "plt"
            if "matplotlib" in lines[0]
            else "date"
            if "import date" in lines[0] and "datetime import datetime" not in lines[0]
            else ""
        )
        used = [n for n, line in enumerate(lines[1:]) if missing and re.search(rf"\b{missing}\.", line)]
        if not used or (missing == "np" and "np." not in lines[used[0] + 1]):
            return None
        left = lines[1:]
        return "\n".join(left), f"NameError: name '{missing}' is not defined", used[0] + 1, left[used[0]]
    number = len(lines) - 1
    if not lines[number].endswith("))"):
        return None
    lines[number] = lines[number][:-1]
    return "\n".join(lines), "SyntaxError: incomplete input", number + 1, lines[number]


def _corrected(rng: Random, lang: Lang, task: Task) -> list[dict[str, Any]] | None:
    """A call that fails, the traceback, and a call that is right."""
    if (broken := _broken(rng, task.code)) is None:
        return None
    code, error, number, line = broken
    cell = rng.randint(1, 9)
    if error.startswith("Syntax"):
        shown = f"  Cell In[{cell}], line {number}\n    {line.strip()}\n{' ' * (4 + len(line.strip()))}^\n{error}"
    else:
        shown = f"Traceback (most recent call last):\n\n  Cell In[{cell}], line {number}\n    {line.strip()}\n\n{error}"
    failed = {**call("interpreter", {"code": code}), "loss": False}  # what is wrong is not learned
    return [failed, observation(f"```result\n{shown}\n```"), *_run(lang, task)]


# Several cells: what a cell leaves is there in the next


def _cells(rng: Random, split: Split, lang: Lang) -> list[dict[str, Any]]:
    """Numbers that are asked about again."""
    values, shown = _listed(rng, split, lang)
    zh = lang == "zh"
    steps = [
        (("(求|计算|算)(它们的|这些数的|)(和|总和)", "(它们的|)(和|总和)(是多少|呢)"), ("(and |)(what is |)(their|the) (sum|total)", "sum them (up|)"), "print(sum(numbers))", str(sum(values))),
        (("(求|计算|算)(它们的|这些数的|)(平均数|平均值)", "(平均数|平均值|均值)(是多少|呢)"), ("(and |)(what is |)(their|the) (mean|average)",), "print(round(sum(numbers) / len(numbers), 2))", str(round(sum(values) / len(values), 2))),
        (("(最大的|最大值|最大)(是多少|呢|是哪个)", "哪个最大"), ("(and |)(what is |)(the largest|the maximum|the max)", "which one is the largest"), "print(max(numbers))", str(max(values))),
        (("(最小的|最小值|最小)(是多少|呢|是哪个)", "哪个最小"), ("(and |)(what is |)(the smallest|the minimum|the min)", "which one is the smallest"), "print(min(numbers))", str(min(values))),
        (("(一共|)有(几|多少)个数", "(个数|数量)(呢|是多少)"), ("how many (are there|numbers)",), "print(len(numbers))", str(len(values))),
        (("从小到大(排序|排列|排一下)", "(升序|)排(序|一下)"), ("sort them", "put them in order"), "print(sorted(numbers, reverse=False))", str(sorted(values))),
    ]  # fmt: skip
    chosen = rng.sample(steps, rng.choice((1, 2, 2, 3)))
    cores = (
        (
            "numbers = {l}",
            "(有|给定|已知)(这些|一组|几个|)数(：|字：|据：|，){l}",
            "(保存|记住|定义)(这些数|一个列表|数据)：{l}",
            "我的数据是 {l}",
        )
        if zh
        else ("numbers = {l}", "(here are|take|remember|keep) (these|some|my) numbers: {l}", "my (data|list) is {l}")
    )
    text = draw(rng, split, lambda: choose(rng, form(rng, split, cores)).format(l=shown))
    code = f"numbers = {values}\nprint(numbers)"
    messages = [user(text), *_run(lang, Task("", {}, code, str(values)))]
    for zh_asks, en_asks, line, output in chosen:
        core = choose(rng, form(rng, split, zh_asks if zh else en_asks))
        said = draw(rng, split, lambda core=core: dress(rng, split, core, not zh, "ask"))  # type: ignore[misc]
        messages += [user(said), *_run(lang, Task("", {}, line, output))]
    return messages


# Tables that were uploaded

_COLUMNS = ("城市 人口 面积", "姓名 语文 数学", "产品 销量 价格", "月份 收入 支出", "水果 数量 单价", "员工 年龄 工资", "name age score", "city sales cost", "product price stock", "month income cost", "team wins losses", "student math physics")  # fmt: skip
_SHOW = (
    "(看看|显示|打开|读取|查看|展示)(这个|一下这个|)(表格|文件|数据|表)(有什么|的内容|里有什么|的前几行|)",
    "(这个|)(表格|文件|表)(里|)(有|是)什么",
    "(前几行|前五行)(是什么|)",
)
_SHOW_EN = (
    "(show|read|open|display) (me |)(the |this |)(table|file|data|first rows)( of this table| of the file|)",
    "what is in (the|this) (file|table)",
    "(print|list) the first rows",
)
_SHAPE, _SHAPE_EN = (
    ("(这个表|表格|)(有|一共有|共)(几|多少)行", "(数据|表)(有多大|的大小)"),
    ("how many rows (are there|does it have)", "how (big|long) is the table"),
)
_COLUMN = {"sum": (("{c}(的|)(总和|总数|合计|总计)(是多少|)", "(求|算|计算){c}的(和|总和)"), ("(what is |)the (sum|total) of {c}", "sum (up |)the column {c}")), "mean": (("{c}(的|)(平均|平均值|平均数|均值)(是多少|)", "(求|算|计算)(平均|){c}的(平均值|平均数)"), ("(what is |)the (mean|average) of {c}", "average {c}")), "max": (("(最大|最高)的{c}(是多少|)", "{c}(的|)(最大值|最高)(是多少|)"), ("(what is |)the (maximum|largest|highest) {c}",)), "min": (("(最小|最低)的{c}(是多少|)", "{c}(的|)(最小值|最低)(是多少|)"), ("(what is |)the (minimum|smallest|lowest) {c}",))}  # fmt: skip
_DRAW_TABLE = (
    ("(画|做)(一个|个|){c}的(柱状图|条形图)", "(用柱状图|)画(出|)(每个|各){k}的{c}"),
    ("(draw|make|plot) a bar chart of {c}", "plot {c} (by|for each) {k}"),
)


def _uploaded(rng: Random, split: Split, lang: Lang) -> list[dict[str, Any]]:
    """A file is announced; its table is read, and then asked about."""
    zh = lang == "zh"
    chinese = zh and rng.random() < 0.6
    key, *columns = rng.choice([each for each in _COLUMNS if each.isascii() != chinese]).split()
    pool = _NAMES["zh" if chinese else "en"]
    names = rng.sample(pool, rng.randint(3, 5))
    figures = [[rng.randint(1, 99) for _ in columns] for _ in names]
    rows = [[name, *row] for name, row in zip(names, figures, strict=True)]
    stem = rng.choice(
        ("sales", "scores", "data", "table", "list", "report", "cities", "数据", "成绩", "销售", word(rng, 2))
    )
    file = f"{stem}{rng.choice(('', '', str(rng.randint(1, 2026))))}.{'csv' if rng.random() < 0.8 else 'xlsx'}"
    size = rng.randint(40, 9999)
    notice = f"#File: /mnt/data/{file}\n#Size: {size}\n#File uploaded\n"
    reader = "read_csv" if file.endswith("csv") else "read_excel"
    head = f"import pandas as pd\ndf = pd.{reader}('/mnt/data/{file}')\n"
    shown = _frame(columns, key, rows)

    def typed(pair: tuple[Sequence[str], Sequence[str]], **values: str) -> str:
        core = choose(rng, form(rng, split, pair[0 if zh else 1]))
        return draw(
            rng, split, lambda: dress(rng, split, core, not zh, "ask" if core[:1] in "这前有哪wh" else "do", values)
        )

    def about() -> tuple[str, Task]:
        """One more thing to know of the table."""
        luck, column = rng.random(), rng.choice(columns)
        if luck < 0.2:
            return typed((_SHAPE, _SHAPE_EN)), Task("", {}, "print(len(df))", str(len(rows)))
        if luck < 0.35:
            code = f"import matplotlib.pyplot as plt\nplt.bar(df['{key}'], df['{column}'])\nplt.show()"
            return typed(_DRAW_TABLE, c=column, k=key), Task("", {}, code, None)
        name = rng.choice(list(_COLUMN))
        numbers = [row[columns.index(column)] for row in figures]
        mean = round(sum(numbers) / len(numbers), 2)
        made = {"sum": str(sum(numbers)), "mean": str(mean), "max": str(max(numbers)), "min": str(min(numbers))}[name]
        call_of = f"round(df['{column}'].mean(), 2)" if name == "mean" else f"df['{column}'].{name}()"
        return typed(_COLUMN[name], c=column), Task("", {}, f"print({call_of})", made)

    if rng.random() < 0.6:
        messages = [
            user(notice + typed((_SHOW, _SHOW_EN))),
            *_run(lang, Task("", {}, head + "print(df.head())", shown)),
        ]
    else:
        said, task = about()
        messages = [user(notice + said), *_run(lang, task._replace(code=head + task.code))]
    for _ in range(rng.choice((0, 1, 1, 2))):
        said, task = about()
        messages += [user(said), *_run(lang, task)]
    return messages


def _wide(text: str) -> int:
    return sum(2 if ord(sign) > 0x2E80 else 1 for sign in text)


def _frame(columns: Sequence[str], key: str, rows: Sequence[Sequence[Any]]) -> str:
    """A table as pandas prints it in this project's kernels, which count Chinese characters as two."""
    table = [[key, *columns], *rows]
    widths = [max(_wide(str(row[place])) for row in table) for place in range(len(table[0]))]
    lines = []
    for number, row in enumerate(table):
        cells = ["" if not number else str(number - 1)]
        cells += [" " * (width - _wide(str(cell))) + str(cell) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([cells[0] or " ", *cells[1:]]))
    return "\n".join(lines)


def _run(lang: Lang, task: Task) -> list[dict[str, Any]]:
    """Call, observation, answer."""
    messages = [call("interpreter", {"code": task.code})]
    if task.output is None:
        return [*messages, observation("[Image]"), assistant(_PICTURE[lang])]
    answer = (_ROWS if "\n" in task.output else _RESULT)[lang].replace("{r}", task.output)
    return [*messages, observation(f"```result\n{task.output}\n```"), assistant(answer)]


def sample(rng: Random, split: Split) -> Sample:
    return persistently(lambda: _sample(rng, split))


def _sample(rng: Random, split: Split) -> Sample:
    lang: Lang = "zh" if rng.random() < 0.62 else "en"
    messages = [system(PROMPT)]
    fate = rng.random()
    if fate < 0.06:
        messages += _chat(rng, split, lang)
    elif fate < 0.11:
        messages += _given(rng, split, lang)
    elif fate < 0.18:
        messages += _cells(rng, split, lang)
    elif fate < 0.28:
        messages += _uploaded(rng, split, lang)
    else:
        text, task = _task(rng, split, lang)
        fails = _corrected(rng, lang, task) if fate < 0.42 else None
        messages += [user(text), *(fails or _run(lang, task))]
        if fate > 0.8:
            text, task = _task(rng, split, lang)
            messages += [user(text), *_run(lang, task)]
        elif fate > 0.77:
            messages += _chat(rng, split, lang, "thanks")
    return Sample("code", messages)


def _chat(rng: Random, split: Split, lang: Lang, about: str = "") -> list[dict[str, Any]]:
    subjects = {about: GREETINGS[about]} if about else GREETINGS if rng.random() < 0.7 else {"name": IDENTITY["name"]}
    said, answer = ask(rng, split, subjects, lang == "en")
    return [user(said), assistant(answer)]
