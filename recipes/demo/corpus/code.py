"""The code interpreter: Python for a task, and an answer from its output, which is what that code really prints."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from random import Random
from typing import Any, Literal, NamedTuple

from . import base
from .base import Sample, Split, assistant, call, draw, held_out, observation, system, user

Lang = Literal["zh", "en"]

PROMPT = "你是一位智能AI助手，你叫ChatGLM，你连接着一台电脑，但请注意不能联网。在使用Python解决任务时，你可以运行代码并得到结果，如果运行结果有错误，你需要尽可能对代码进行改进。你可以处理用户上传到电脑上的文件，文件默认存储路径是/mnt/data/。"
"""The official system prompt of the mode."""


class Task(NamedTuple):
    """A request that is solved by running code.

    Attributes:
        asks: cores of the request in both languages, separated by "|"; `…?` is a question.
        code: what solves it.
        output: what that prints; None for a picture.
        answer: with `{r}` for the output; "" where it is the usual one.
        lacking: the name that is not defined when the first line, an import, is left out.
    """

    asks: tuple[str, str]
    code: str
    output: str | None
    answer: tuple[str, str] = ("", "")
    lacking: str = ""


_RESULT = {"zh": "结果是 {r}。", "en": "The result is {r}."}
_PICTURE = {"zh": "图已经画好了。", "en": "Here is the plot."}
_TABLE = ("表格如下：\n{r}", "Here is the table:\n{r}")
_FRAMES: dict[tuple[Lang, str], list[str]] = {
    ("zh", "do"): ["{c}", "{c}。", "帮我{c}", "帮我{c}。", "请帮我{c}。", "请{c}。", "请{c}", "麻烦{c}。", "麻烦你{c}，谢谢。", "能帮我{c}吗？", "能不能{c}？", "可以{c}吗？", "可不可以{c}", "你好，{c}。", "你好，请{c}", "嗨，帮我{c}吧", "我想{c}", "我需要{c}。", "用Python{c}", "用Python{c}。", "写段代码{c}。", "写个程序{c}", "请用代码{c}。", "运行代码，{c}。", "劳驾{c}。", "快帮我{c}！", "{c}，谢谢！", "{c}，麻烦了。", "{c}吧", "{c}好吗？", "拜托{c}！", "接下来{c}。", "顺便{c}。", "不好意思，{c}。", "请写代码{c}"],
    ("zh", "ask"): ["{c}？", "{c}", "{c}?", "请问{c}？", "请问{c}", "你好，{c}？", "想问一下，{c}？", "我想知道{c}。", "我想知道{c}", "帮我算算{c}。", "帮我看看{c}", "告诉我{c}。", "你知道{c}吗？", "能告诉我{c}吗？", "用Python算，{c}？", "用代码算一下{c}", "嗨，{c}？", "{c}，谢谢。", "快告诉我{c}", "对了，{c}？", "麻烦问下{c}？", "写段代码，看看{c}。", "再问一下，{c}？", "不好意思，{c}？"],
    ("en", "do"): ["{C}.", "{c}", "{C}", "Please {c}.", "please {c}", "Can you {c}?", "can you {c}", "Could you {c}?", "Could you please {c}?", "I want you to {c}.", "I would like you to {c}.", "{C}, please.", "{c} please", "Hi, {c}.", "Hello, please {c}.", "I need you to {c}.", "Use Python to {c}.", "use Python to {c}", "Write some code to {c}.", "With Python, {c}.", "Run some code to {c}.", "Now {c}.", "Quick, {c}!", "Next, {c}.", "Go ahead and {c}.", "Just {c}, thanks.", "{C}. Thank you!"],
    ("en", "ask"): ["{C}?", "{c}", "{c}?", "{C}", "Hi, {c}?", "Hello! {C}?", "Excuse me, {c}?", "Quick question: {c}?", "Tell me, {c}?", "By the way, {c}?", "So, {c}?", "Hey, {c}", "{C}? Thanks.", "{C}? Use Python.", "Just curious, {c}?", "One more thing: {c}?", "Can you tell me: {c}?", "With code: {c}?", "Sorry, {c}?", "I wonder: {c}?"],
}  # fmt: skip
_WHETHER = [frame for frame in _FRAMES["zh", "ask"] if not any(part in frame for part in ("知道", "告诉", "看看"))]
"""For questions that end with 吗."""
_CHAT: dict[Lang, list[tuple[str, str]]] = {
    "zh": [
        ("你好|您好|嗨|哈喽|早上好|下午好|晚上好|嘿|在吗|早啊", "你好！需要我用代码帮你算点什么吗？"),
        ("谢谢|谢谢你|多谢|太感谢了|感谢|辛苦了|谢啦|非常感谢|谢谢您", "不客气！"),
        ("再见|拜拜|回头见|下次聊|先这样|晚安|明天见|不聊了", "再见！"),
        ("你真棒|做得好|真厉害|太好了|算得真快|不错|你好厉害|干得漂亮", "谢谢夸奖！"),
        ("上网查一下天气|帮我上网搜新闻|打开一个网页|上网看看股价|从网上下载一张图片|给我朋友发封邮件|上网订张票", "抱歉，我不能联网。"),
        ("你能做什么|你会干什么|你有什么功能|你能帮我做什么|你可以做哪些事", "我可以写Python代码并运行，用来计算、列表格和画图。"),
    ],
    "en": [
        ("hello|hi|hey|good morning|good evening|hi there|hello there|good afternoon", "Hello! Shall I compute something for you?"),
        ("thanks|thank you|thanks a lot|many thanks|thank you so much|great, thanks|cheers", "You are welcome!"),
        ("bye|goodbye|see you|see you later|good night|that is all|bye bye", "Goodbye!"),
        ("well done|good job|you are great|nice work|you are clever|awesome|very good", "Thank you!"),
        ("look up the weather online|search the web for news|open a web page|check the stock price online|download a picture from the internet|send an email to my friend|book a ticket online", "Sorry, I cannot go online."),
        ("what can you do|what can you do for me|what are you able to do|how can you help me", "I can write and run Python code: calculations, tables and plots."),
    ],
}  # fmt: skip
_CHAT_FRAMES: dict[Lang, list[str]] = {
    "zh": [
        "{c}",
        "{c}。",
        "{c}！",
        "{c}~",
        "{c}啊",
        "{c}！！",
        "嗯嗯，{c}",
        "哈哈，{c}",
        "{c}…",
        "哦，{c}。",
        "{c}，{c}",
        "{c}呢",
        "那{c}",
    ],
    "en": [
        "{c}",
        "{C}",
        "{C}.",
        "{C}!",
        "{c}!",
        "{c}...",
        "Oh, {c}.",
        "well, {c}",
        "{C} :)",
        "{C}!!",
        "Ah, {c}!",
        "OK, {c}",
        "So, {c}.",
    ],
}


def _number(rng: Random, split: Split, low: int, high: int) -> int:
    return draw(rng, split, lambda: rng.randint(low, high))


def _both(rng: Random, split: Split, first: Callable[[], int], second: Callable[[int], int]) -> tuple[int, int]:
    """Two numbers, the second depending on the first."""
    while True:
        a = draw(rng, split, first)
        for _ in range(5):
            b = second(a)
            if held_out(str(b)) == (split == "test"):
                return a, b


def _numbers(rng: Random, split: Split, low: int, high: int, count: int) -> list[int]:
    """Different numbers; together they are on the split's side."""
    return draw(rng, split, lambda: rng.sample(range(low, high + 1), count), lambda made: ",".join(map(str, made)))


def _listed(rng: Random, values: Sequence[Any], lang: Lang) -> str:
    return rng.choice(("、", "，", "、", ",", " ") if lang == "zh" else (", ", ", ", ",", " ")).join(map(str, values))


def _name(rng: Random, split: Split, lang: Lang) -> str:
    def make() -> str:
        if rng.random() < 0.25:
            return base.nonsense(rng, 2) if lang == "zh" else base.word(rng, 2).capitalize()
        return rng.choice(_NAMES[lang])

    return draw(rng, split, make)


_NAMES: dict[Lang, list[str]] = {
    "zh": ["苹果", "香蕉", "橙子", "葡萄", "西瓜", "语文", "数学", "英语", "物理", "化学", "历史", "地理", "北京", "上海", "广州", "深圳", "杭州", "成都", "西安", "春天", "夏天", "秋天", "冬天", "一月", "二月", "三月", "四月", "五月", "六月", "小明", "小红", "小刚", "小丽", "张三", "李四", "王五", "红队", "蓝队", "电脑", "手机", "平板", "牛奶", "面包", "咖啡", "茶叶", "大米", "汽车", "火车", "飞机", "轮船"],
    "en": ["apples", "bananas", "oranges", "grapes", "melons", "math", "physics", "history", "music", "London", "Paris", "Berlin", "Tokyo", "Rome", "spring", "summer", "autumn", "winter", "January", "February", "March", "April", "May", "June", "Tom", "Lucy", "Jack", "Mary", "Anna", "Peter", "red", "blue", "green", "coffee", "tea", "milk", "bread", "rice", "cars", "trains", "planes", "ships", "phones", "tablets", "cats", "dogs", "birds"],
}  # fmt: skip


def _pairs(rng: Random, split: Split, lang: Lang, count: int) -> list[tuple[str, int]]:
    names: list[str] = []
    while len(names) < count:
        name = _name(rng, split, lang)
        if name not in names:
            names.append(name)
    return list(zip(names, _numbers(rng, split, 1, 99 if rng.random() < 0.7 else 999, count), strict=True))


def _said_pairs(rng: Random, pairs: Sequence[tuple[str, int]], lang: Lang) -> str:
    between, after = rng.choice(
        ((" ", "、"), ("", "，"), (" ", "，"), ("：", "，")) if lang == "zh" else ((" ", ", "), (": ", ", "))
    )
    return after.join(f"{name}{between}{value}" for name, value in pairs)


# The tasks


def _expression(rng: Random, split: Split, lang: Lang) -> Task:
    a, b, c = (_number(rng, split, 2, rng.choice((99, 999, 9999, 99999))) for _ in range(3))
    kind = rng.randrange(7)
    code, value = [
        (f"{a} + {b}", a + b),
        (f"{a} - {b}", a - b),
        (f"{a} * {b}", a * b),
        (f"{a} * {b} + {c}", a * b + c),
        (f"{a} + {b} * {c}", a + b * c),
        (f"({a} + {b}) * {c}", (a + b) * c),
        (f"{a} * {b} - {c}", a * b - c),
    ][kind]
    shown = code.replace(" ", "") if rng.random() < 0.6 else code
    if rng.random() < 0.25:
        shown = shown.replace("*", "×")
    elif kind < 3 and rng.random() < 0.3:
        word = ("加|减|乘" if lang == "zh" else "plus|minus|times").split("|")[kind]
        shown = f"{a}{word}{b}" if lang == "zh" else f"{a} {word} {b}"
    return Task(
        (f"计算{shown}|算一下{shown}|求{shown}的值|算{shown}|算算{shown}|{shown}等于多少?|{shown}是多少?|{shown}得多少?",
         f"compute {shown}|calculate {shown}|work out {shown}|find the value of {shown}|evaluate {shown}|what is {shown}?|how much is {shown}?"),
        f"print({code})", str(value))  # fmt: skip


def _division(rng: Random, split: Split, lang: Lang) -> Task:
    b = _number(rng, split, 3, 99)
    a = _number(rng, split, 100, 99999)
    if rng.random() < 0.5:
        return Task(
            (f"计算{a}除以{b}，保留两位小数|求{a}/{b}，保留两位小数|{a}除以{b}等于多少，保留两位小数?|{a}/{b}保留两位小数是多少?",
             f"divide {a} by {b} and round to two decimals|compute {a}/{b} to two decimals|what is {a} divided by {b}, to two decimals?|what is {a}/{b} rounded to two decimals?"),
            f"print(round({a} / {b}, 2))", str(round(a / b, 2)))  # fmt: skip
    return Task(
        (f"求{a}除以{b}的余数|计算{a}除以{b}余几|算一下{a}对{b}取模|{a}除以{b}余多少?|{a}除以{b}的余数是几?",
         f"find the remainder of {a} divided by {b}|compute {a} modulo {b}|what is the remainder of {a} divided by {b}?|what is {a} mod {b}?"),
        f"print({a} % {b})", str(a % b))  # fmt: skip


def _power(rng: Random, split: Split, lang: Lang) -> Task:
    a, n = _number(rng, split, 2, 99), rng.randint(2, 12)
    return Task(
        (f"计算{a}的{n}次方|算一下{a}的{n}次幂|求{a}的{n}次方|{a}的{n}次方是多少?|{a}的{n}次幂等于几?|{a}自乘{n}次的幂是多少?",
         f"compute {a} to the power of {n}|raise {a} to the power {n}|calculate {a}**{n}|what is {a} to the power of {n}?|what is {a}^{n}?"),
        f"print({a} ** {n})", str(a**n))  # fmt: skip


def _factorial(rng: Random, split: Split, lang: Lang) -> Task:
    n = _number(rng, split, 3, 18)
    return Task(
        (f"计算{n}的阶乘|求{n}的阶乘|算一下{n}!|算出{n}的阶乘|{n}的阶乘是多少?|{n}!等于多少?",
         f"compute the factorial of {n}|calculate {n}!|find the factorial of {n}|work out {n} factorial|what is the factorial of {n}?|what is {n} factorial?"),
        f"import math\nprint(math.factorial({n}))", str(math.factorial(n)), lacking="math")  # fmt: skip


def _sum_to(rng: Random, split: Split, lang: Lang) -> Task:
    n = _number(rng, split, 10, 9999)
    if rng.random() < 0.6:
        return Task(
            (f"计算1到{n}的和|求1加到{n}|从1加到{n}|把1到{n}的整数加起来|1到{n}的和是多少?|从1加到{n}等于多少?|1+2+…+{n}是多少?",
             f"sum the numbers from 1 to {n}|add up all integers from 1 to {n}|compute the sum 1 to {n}|what is the sum of the numbers from 1 to {n}?|what do 1 to {n} add up to?"),
            f"print(sum(range(1, {n} + 1)))", str(n * (n + 1) // 2))  # fmt: skip
    n = _number(rng, split, 5, 99)
    return Task(
        (f"计算1到{n}的平方和|求1到{n}各数的平方之和|把1到{n}的平方加起来|1到{n}的平方和是多少?|1到{n}的平方加起来是多少?",
         f"compute the sum of squares from 1 to {n}|add up the squares of 1 to {n}|what is the sum of the squares from 1 to {n}?|what do the squares of 1 to {n} add up to?"),
        f"print(sum(i * i for i in range(1, {n} + 1)))", str(n * (n + 1) * (2 * n + 1) // 6))  # fmt: skip


def _list(rng: Random, split: Split, lang: Lang) -> Task:
    values = _numbers(rng, split, 1, rng.choice((99, 999)), rng.randint(3, 6))
    shown = _listed(rng, values, lang)
    kind = rng.randrange(6)
    if kind == 0:
        return Task(
            (f"求{shown}的和|计算{shown}的总和|把{shown}加起来|{shown}的和是多少?|{shown}加起来是多少?|{shown}一共是多少?",
             f"add up {shown}|sum {shown}|compute the sum of {shown}|what is the sum of {shown}?|what is the total of {shown}?"),
            f"numbers = {values}\nprint(sum(numbers))", str(sum(values)))  # fmt: skip
    if kind == 1:
        return Task(
            (f"求{shown}的平均数|计算{shown}的平均值|算一下{shown}的均值|{shown}的平均数是多少?|{shown}平均是多少?",
             f"compute the mean of {shown}|find the average of {shown}|average {shown}|what is the mean of {shown}?|what is the average of {shown}?"),
            f"numbers = {values}\nprint(round(sum(numbers) / len(numbers), 2))", str(round(sum(values) / len(values), 2)))  # fmt: skip
    if kind == 2:
        return Task(
            (f"找出{shown}中最大的数|求{shown}的最大值|挑出{shown}里最大的|{shown}中最大的数是多少?|{shown}里哪个最大?",
             f"find the largest of {shown}|find the maximum of {shown}|pick the biggest of {shown}|what is the maximum of {shown}?|which is the largest of {shown}?"),
            f"numbers = {values}\nprint(max(numbers))", str(max(values)))  # fmt: skip
    if kind == 3:
        return Task(
            (f"找出{shown}中最小的数|求{shown}的最小值|挑出{shown}里最小的|{shown}中最小的数是多少?|{shown}里哪个最小?",
             f"find the smallest of {shown}|find the minimum of {shown}|pick the least of {shown}|what is the minimum of {shown}?|which is the smallest of {shown}?"),
            f"numbers = {values}\nprint(min(numbers))", str(min(values)))  # fmt: skip
    if kind == 4:
        return Task(
            (f"把{shown}从小到大排序|将{shown}按升序排列|给{shown}排序，从小到大|{shown}从小到大怎么排?|{shown}升序排列是什么?",
             f"sort {shown} in ascending order|sort {shown} from smallest to largest|put {shown} in ascending order|what is {shown} in ascending order?|how do I sort {shown} upwards?"),
            f"numbers = {values}\nprint(sorted(numbers))", str(sorted(values)))  # fmt: skip
    return Task(
        (f"把{shown}从大到小排序|将{shown}按降序排列|给{shown}排序，从大到小|{shown}从大到小怎么排?|{shown}降序排列是什么?",
         f"sort {shown} in descending order|sort {shown} from largest to smallest|put {shown} in descending order|what is {shown} in descending order?|how do I sort {shown} downwards?"),
        f"numbers = {values}\nprint(sorted(numbers, reverse=True))", str(sorted(values, reverse=True)))  # fmt: skip


def _primes(rng: Random, split: Split, lang: Lang) -> Task:
    n = _number(rng, split, 10, 60)
    found = [i for i in range(2, n) if all(i % j for j in range(2, i))]
    return Task(
        (f"列出{n}以内的质数|找出小于{n}的所有素数|求{n}以内的素数|输出小于{n}的质数|{n}以内有哪些质数?|小于{n}的素数有哪些?",
         f"list the primes below {n}|find all prime numbers below {n}|print the primes less than {n}|which primes are below {n}?|what are the prime numbers less than {n}?"),
        f"primes = [i for i in range(2, {n}) if all(i % j for j in range(2, i))]\nprint(primes)", str(found))  # fmt: skip


def _is_prime(rng: Random, split: Split, lang: Lang) -> Task:
    n = _number(rng, split, 20, 2000)
    return Task(
        (f"判断{n}是不是质数|检查{n}是否为素数|看看{n}是不是素数|{n}是质数吗?|{n}是不是素数?",
         f"check whether {n} is prime|test if {n} is a prime number|find out if {n} is prime|is {n} a prime number?|is {n} prime?"),
        f"print(all({n} % i for i in range(2, {n})))", str(all(n % i for i in range(2, n))))  # fmt: skip


def _fibonacci(rng: Random, split: Split, lang: Lang) -> Task:
    n = _number(rng, split, 3, 16)
    values = [0, 1]
    while len(values) < n:
        values.append(values[-1] + values[-2])
    return Task(
        (f"输出斐波那契数列的前{n}项|列出前{n}个斐波那契数|生成{n}个斐波那契数|写出斐波那契数列前{n}个数|斐波那契数列前{n}项是什么?|前{n}个斐波那契数有哪些?",
         f"print the first {n} Fibonacci numbers|list {n} Fibonacci numbers|generate the first {n} terms of the Fibonacci sequence|what are the first {n} Fibonacci numbers?"),
        f"numbers = [0, 1]\nwhile len(numbers) < {n}:\n    numbers.append(numbers[-1] + numbers[-2])\nprint(numbers)", str(values))  # fmt: skip


def _divisors(rng: Random, split: Split, lang: Lang) -> Task:
    common = rng.randint(2, 30)
    a, b = _both(
        rng,
        split,
        lambda: common * rng.randint(2, 40) * rng.randint(1, 5),
        lambda _: common * rng.randint(2, 40) * rng.randint(1, 5),
    )
    if rng.random() < 0.5:
        return Task(
            (f"求{a}和{b}的最大公约数|计算{a}与{b}的最大公因数|算一下{a}和{b}的最大公约数|{a}和{b}的最大公约数是多少?|{a}与{b}的最大公因数是几?",
             f"find the greatest common divisor of {a} and {b}|compute the gcd of {a} and {b}|what is the gcd of {a} and {b}?|what is the greatest common divisor of {a} and {b}?"),
            f"import math\nprint(math.gcd({a}, {b}))", str(math.gcd(a, b)), lacking="math")  # fmt: skip
    return Task(
        (f"求{a}和{b}的最小公倍数|计算{a}与{b}的最小公倍数|算一下{a}和{b}的最小公倍数|{a}和{b}的最小公倍数是多少?|{a}与{b}的最小公倍数是几?",
         f"find the least common multiple of {a} and {b}|compute the lcm of {a} and {b}|what is the lcm of {a} and {b}?|what is the least common multiple of {a} and {b}?"),
        f"import math\nprint(math.lcm({a}, {b}))", str(math.lcm(a, b)), lacking="math")  # fmt: skip


def _root(rng: Random, split: Split, lang: Lang) -> Task:
    n = _number(rng, split, 2, 9999)
    return Task(
        (f"计算{n}的平方根|求{n}的算术平方根|把{n}开平方|算一下根号{n}|{n}的平方根是多少?|根号{n}等于多少?",
         f"compute the square root of {n}|find the square root of {n}|calculate sqrt({n})|what is the square root of {n}?|what is sqrt({n})?"),
        f"import math\nprint(round(math.sqrt({n}), 4))", str(round(math.sqrt(n), 4)), lacking="math")  # fmt: skip


def _circle(rng: Random, split: Split, lang: Lang) -> Task:
    r = _number(rng, split, 2, 99)
    if rng.random() < 0.5:
        return Task(
            (f"计算半径为{r}的圆的面积|求半径{r}的圆面积|算一下半径是{r}的圆有多大面积|半径为{r}的圆面积是多少?|半径{r}的圆的面积等于多少?",
             f"compute the area of a circle with radius {r}|find the area of a circle of radius {r}|what is the area of a circle with radius {r}?|how large is a circle of radius {r}?"),
            f"import math\nprint(round(math.pi * {r} ** 2, 2))", str(round(math.pi * r**2, 2)), lacking="math")  # fmt: skip
    return Task(
        (f"计算半径为{r}的圆的周长|求半径{r}的圆周长|算一下半径是{r}的圆的周长|半径为{r}的圆周长是多少?|半径{r}的圆的周长等于多少?",
         f"compute the circumference of a circle with radius {r}|find the circumference of a circle of radius {r}|what is the circumference of a circle with radius {r}?|how long is the circumference of a circle of radius {r}?"),
        f"import math\nprint(round(2 * math.pi * {r}, 2))", str(round(2 * math.pi * r, 2)), lacking="math")  # fmt: skip


def _percent(rng: Random, split: Split, lang: Lang) -> Task:
    p, n = _number(rng, split, 1, 99), _number(rng, split, 10, 9999)
    if rng.random() < 0.5:
        return Task(
            (f"计算{n}的{p}%|求{n}的百分之{p}|算一下{n}的{p}%|{n}的{p}%是多少?|{n}的百分之{p}等于多少?",
             f"compute {p}% of {n}|find {p} percent of {n}|calculate {p}% of {n}|what is {p}% of {n}?|how much is {p} percent of {n}?"),
            f"print(round({n} * {p} / 100, 2))", str(round(n * p / 100, 2)))  # fmt: skip
    a, b = sorted((p, n))
    return Task(
        (f"计算{a}占{b}的百分之几|求{a}占{b}的百分比|算一下{a}是{b}的百分之多少|{a}占{b}的百分之几?|{a}是{b}的百分之多少?",
         f"compute what percent {a} is of {b}|find {a} as a percentage of {b}|what percent of {b} is {a}?|what percentage is {a} of {b}?"),
        f"print(round({a} / {b} * 100, 2))", str(round(a / b * 100, 2)), ("结果是 {r}%。", "The result is {r}%."))  # fmt: skip


def _interest(rng: Random, split: Split, lang: Lang) -> Task:
    money, rate, years = _number(rng, split, 1, 99) * 1000, rng.randint(1, 9), rng.randint(2, 30)
    return Task(
        (f"计算本金{money}元、年利率{rate}%、复利{years}年后的金额|算一下{money}元按{rate}%的年利率复利{years}年是多少|本金{money}元，年利率{rate}%，复利{years}年后有多少钱?|{money}元存{years}年，年利率{rate}%，按复利算有多少钱?",
         f"compute {money} at {rate}% compound interest for {years} years|find what {money} becomes at {rate}% yearly compound interest after {years} years|how much is {money} after {years} years at {rate}% compound interest?|what does {money} grow to in {years} years at {rate}% compound interest?"),
        f"print(round({money} * (1 + {rate} / 100) ** {years}, 2))", str(round(money * (1 + rate / 100) ** years, 2)))  # fmt: skip


def _days(rng: Random, split: Split, lang: Lang) -> Task:
    first = draw(rng, split, lambda: date(2000, 1, 1) + timedelta(rng.randint(0, 10000)))

    def shown(day: date) -> str:
        if rng.random() < 0.4:
            return (
                f"{day.year}年{day.month}月{day.day}日"
                if lang == "zh"
                else f"{_MONTHS[day.month - 1]} {day.day}, {day.year}"
            )
        return str(day)

    if rng.random() < 0.6:
        last = draw(rng, split, lambda: first + timedelta(rng.randint(2, 900)))
        a, b = shown(first), shown(last)
        return Task(
            (f"计算{a}到{b}有多少天|算一下从{a}到{b}相隔几天|求{a}和{b}之间的天数|{a}到{b}有多少天?|从{a}到{b}一共几天?|{a}距离{b}多少天?",
             f"count the days from {a} to {b}|compute the number of days between {a} and {b}|how many days are there from {a} to {b}?|how many days lie between {a} and {b}?"),
            f"from datetime import date\nprint((date({last.year}, {last.month}, {last.day}) - date({first.year}, {first.month}, {first.day})).days)",
            str((last - first).days), ("一共 {r} 天。", "It is {r} days."), lacking="date")  # fmt: skip
    count, a = _number(rng, split, 5, 400), shown(first)
    return Task(
        (f"计算{a}之后{count}天是哪一天|算一下{a}再过{count}天的日期|求{a}往后{count}天的日期|{a}过{count}天是哪天?|{a}之后的第{count}天是几月几日?",
         f"find the date {count} days after {a}|compute the day that is {count} days after {a}|which date is {count} days after {a}?|what is the date {count} days after {a}?"),
        f"from datetime import date, timedelta\nprint(date({first.year}, {first.month}, {first.day}) + timedelta(days={count}))",
        str(first + timedelta(days=count)), ("那天是 {r}。", "The date is {r}."), lacking="date")  # fmt: skip


_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]


def _string(rng: Random, split: Split, lang: Lang) -> Task:
    text = draw(
        rng,
        split,
        lambda: (
            base.word(rng, rng.randint(2, 4))
            if lang == "en" or rng.random() < 0.5
            else base.nonsense(rng, rng.randint(3, 6))
        ),
    )
    kind = rng.randrange(4 if text.isascii() else 2)
    if kind == 0:
        return Task(
            (f"把“{text}”倒过来|反转字符串“{text}”|把字符串“{text}”倒序输出|将“{text}”反着写|“{text}”倒过来是什么?|“{text}”反过来怎么写?",
             f'reverse the string "{text}"|reverse "{text}"|write "{text}" backwards|what is "{text}" reversed?|how do you write "{text}" backwards?'),
            f"print({text!r}[::-1])", text[::-1])  # fmt: skip
    if kind == 1:
        return Task(
            (f"数一数“{text}”有几个字符|计算字符串“{text}”的长度|统计“{text}”的字符数|“{text}”有多少个字符?|字符串“{text}”有多长?",
             f'count the characters in "{text}"|find the length of "{text}"|compute how long the string "{text}" is|how many characters does "{text}" have?|how long is the string "{text}"?'),
            f"print(len({text!r}))", str(len(text)), ("一共 {r} 个字符。", "It has {r} characters."))  # fmt: skip
    if kind == 2:
        return Task(
            (f"把“{text}”变成大写|将字符串“{text}”转成大写|把“{text}”全部大写|“{text}”的大写是什么?|“{text}”大写怎么写?",
             f'convert "{text}" to upper case|put "{text}" in capitals|make "{text}" upper case|what is "{text}" in upper case?|how do you write "{text}" in capitals?'),
            f"print({text!r}.upper())", text.upper())  # fmt: skip
    letter = rng.choice(text)
    return Task(
        (f"数一下“{text}”里有几个{letter}|统计“{text}”中字母{letter}的个数|算一下{letter}在“{text}”里出现几次|“{text}”里有几个{letter}?|字母{letter}在“{text}”中出现了几次?",
         f'count the letter {letter} in "{text}"|find how often {letter} is in "{text}"|count how many {letter} are in "{text}"|how many {letter} are in "{text}"?|how often does {letter} occur in "{text}"?'),
        f"print({text!r}.count({letter!r}))", str(text.count(letter)), ("一共 {r} 个。", "It occurs {r} times."))  # fmt: skip


_UNITS = [
    (("公里", "英里"), ("kilometers", "miles"), "{n} * 0.6214", 0.6214),
    (("英里", "公里"), ("miles", "kilometers"), "{n} * 1.6093", 1.6093),
    (("公斤", "磅"), ("kilograms", "pounds"), "{n} * 2.2046", 2.2046),
    (("磅", "公斤"), ("pounds", "kilograms"), "{n} * 0.4536", 0.4536),
    (("英寸", "厘米"), ("inches", "centimeters"), "{n} * 2.54", 2.54),
    (("英尺", "米"), ("feet", "meters"), "{n} * 0.3048", 0.3048),
]


def _unit(rng: Random, split: Split, lang: Lang) -> Task:
    n = _number(rng, split, 2, 999)
    if rng.random() < 0.3:
        if rng.random() < 0.5:
            return Task(
                (f"把{n}摄氏度换算成华氏度|换算{n}摄氏度为华氏度|{n}摄氏度是多少华氏度?|{n}摄氏度等于多少华氏度?",
                 f"convert {n} degrees Celsius to Fahrenheit|change {n} Celsius into Fahrenheit|what is {n} degrees Celsius in Fahrenheit?|how much is {n} Celsius in Fahrenheit?"),
                f"print(round({n} * 9 / 5 + 32, 2))", str(round(n * 9 / 5 + 32, 2)))  # fmt: skip
        return Task(
            (f"把{n}华氏度换算成摄氏度|换算{n}华氏度为摄氏度|{n}华氏度是多少摄氏度?|{n}华氏度等于多少摄氏度?",
             f"convert {n} degrees Fahrenheit to Celsius|change {n} Fahrenheit into Celsius|what is {n} degrees Fahrenheit in Celsius?|how much is {n} Fahrenheit in Celsius?"),
            f"print(round(({n} - 32) * 5 / 9, 2))", str(round((n - 32) * 5 / 9, 2)))  # fmt: skip
    zh, en, code, factor = rng.choice(_UNITS)
    return Task(
        (f"把{n}{zh[0]}换算成{zh[1]}|换算{n}{zh[0]}为{zh[1]}|{n}{zh[0]}是多少{zh[1]}?|{n}{zh[0]}等于多少{zh[1]}?|{n}{zh[0]}合多少{zh[1]}?",
         f"convert {n} {en[0]} to {en[1]}|change {n} {en[0]} into {en[1]}|how many {en[1]} are {n} {en[0]}?|what is {n} {en[0]} in {en[1]}?"),
        f"print(round({code.format(n=n)}, 2))", str(round(n * factor, 2)))  # fmt: skip


def _base(rng: Random, split: Split, lang: Lang) -> Task:
    n = _number(rng, split, 3, 999)
    zh, en, function = rng.choice(
        (("二进制", "binary", "bin"), ("十六进制", "hexadecimal", "hex"), ("八进制", "octal", "oct"))
    )
    output = {"bin": bin, "hex": hex, "oct": oct}[function](n)
    return Task(
        (f"把{n}转换成{zh}|将{n}转为{zh}|求{n}的{zh}|{n}的{zh}是什么?|{n}用{zh}怎么表示?",
         f"convert {n} to {en}|write {n} in {en}|find the {en} form of {n}|what is {n} in {en}?|how is {n} written in {en}?"),
        f"print({function}({n}))", output)  # fmt: skip


def _rows(rng: Random, split: Split, lang: Lang) -> Task:
    """Tables."""
    kind = rng.randrange(3)
    if kind == 0:
        count = rng.randint(2, 4)
        start = _number(rng, split, 1, 90)
        end = start + count - 1
        name, word, power = rng.choice((("平方", "squares", 2), ("立方", "cubes", 3)))
        output = "\n".join(f"{i} {i**power}" for i in range(start, end + 1))
        return Task(
            (f"列出{start}到{end}的{name}表|做一张{start}到{end}的{name}表|打印{start}到{end}的{name}表|给出{start}到{end}各数的{name}表|用表格列出{start}到{end}的{name}",
             f"make a table of the {word} from {start} to {end}|print a table of {word} of {start} to {end}|list the {word} from {start} to {end} in a table|show the {word} from {start} to {end} as a table"),
            f"for i in range({start}, {end} + 1):\n    print(i, i ** {power})", output, _TABLE)  # fmt: skip
    if kind == 1:
        n, count = _number(rng, split, 2, 99), rng.randint(2, 4)
        output = "\n".join(f"{n} x {i} = {n * i}" for i in range(1, count + 1))
        return Task(
            (f"列出{n}的乘法表，乘到{count}|打印{n}的乘法表，从1到{count}|做一张{n}乘1到{count}的乘法表|写出{n}乘以1到{count}的表",
             f"print the multiplication table of {n} up to {count}|make a multiplication table of {n} from 1 to {count}|show the table of {n} times 1 to {count}|list {n} times 1 to {count} as a table"),
            f"for i in range(1, {count} + 1):\n    print({n}, 'x', i, '=', {n} * i)", output, _TABLE)  # fmt: skip
    pairs = _pairs(rng, split, lang, rng.randint(2, 4))
    shown = _said_pairs(rng, pairs, lang)
    if rng.random() < 0.4:
        output = "\n".join(f"{name} {value}" for name, value in sorted(pairs, key=lambda pair: pair[1], reverse=True))
        return Task(
            (f"把这些数据从大到小排成表格：{shown}$|按数值从大到小列表：{shown}$|从大到小做成表格：{shown}$|做一张从大到小的排名表：{shown}$",
             f"make a ranking table, largest first: {shown}$|print a table sorted from largest to smallest: {shown}$|list these in a table, largest first: {shown}$|sort this into a table, largest first: {shown}$"),
            f"data = {pairs}\nfor name, value in sorted(data, key=lambda row: row[1], reverse=True):\n    print(name, value)", output, _TABLE)  # fmt: skip
    output = "\n".join(f"{name} {value}" for name, value in pairs)
    return Task(
        (f"把这些数据做成表格：{shown}$|用表格列出：{shown}$|做一张表：{shown}$|整理成表格：{shown}$|打印成表格：{shown}$",
         f"make a table of this: {shown}$|put this into a table: {shown}$|print a table: {shown}$|list this as a table: {shown}$|show these data as a table: {shown}$"),
        f"data = {pairs}\nfor name, value in data:\n    print(name, value)", output, _TABLE)  # fmt: skip


_CURVES = [
    ("sin", "正弦", "sine"),
    ("cos", "余弦", "cosine"),
    ("tan", "正切", "tangent"),
    ("exp", "指数", "exponential"),
    ("sqrt", "平方根", "square root"),
]


def _curve(rng: Random, split: Split, lang: Lang) -> Task:
    start = rng.choice((0, 0, -1, -2, -3, -5, -10))
    if rng.random() < 0.6:
        function, zh, en = rng.choice(_CURVES)
        start = max(start, 0) if function == "sqrt" else start
        expression = f"np.{function}(x)"
        names_zh, names_en = (
            [f"{zh}曲线", f"{function}(x)的图像", f"{zh}函数"],
            [f"a {en} curve", f"the graph of {function}(x)", f"the {en} function"],
        )
    else:
        a, b = _number(rng, split, 2, 60), _number(rng, split, 1, 99)
        formula, expression = rng.choice(
            (
                (f"{a}x+{b}", f"{a} * x + {b}"),
                (f"{a}x-{b}", f"{a} * x - {b}"),
                (f"x^2+{b}", f"x ** 2 + {b}"),
                (f"{a}x^2", f"{a} * x ** 2"),
            )
        )
        names_zh, names_en = (
            [f"y={formula}的图像", f"函数{formula}", f"曲线y={formula}"],
            [f"the graph of y={formula}", f"the function {formula}", f"the curve y={formula}"],
        )
    end = _number(rng, split, 1, 60)
    ranged = rng.random() < 0.5
    if not ranged:
        start, end = 0, 10
    zh_range, en_range = (f"，x从{start}到{end}", f" for x from {start} to {end}") if ranged else ("", "")
    zh_name, en_name = rng.choice(names_zh), rng.choice(names_en)
    return Task(
        (f"画{zh_name}{zh_range}|画一下{zh_name}{zh_range}|绘制{zh_name}{zh_range}|画出{zh_name}{zh_range}|作图：{zh_name}{zh_range}$",
         f"plot {en_name}{en_range}|draw {en_name}{en_range}|make a plot of {en_name}{en_range}|show me {en_name}{en_range}"),
        f"import numpy as np\nimport matplotlib.pyplot as plt\nx = np.linspace({start}, {end}, 200)\nplt.plot(x, {expression})\nplt.show()", None, lacking="np")  # fmt: skip


def _chart(rng: Random, split: Split, lang: Lang) -> Task:
    kind, zh, en = rng.choice(
        (
            ("bar", "柱状图|条形图", "bar chart|bar graph"),
            ("plot", "折线图", "line chart|line graph"),
            ("pie", "饼图|饼状图", "pie chart"),
        )
    )
    zh, en = rng.choice(zh.split("|")), rng.choice(en.split("|"))
    pairs = _pairs(rng, split, lang, rng.randint(3, 5))
    names, values = [name for name, _ in pairs], [value for _, value in pairs]
    if kind == "plot" and rng.random() < 0.5:
        shown = _listed(rng, values, lang)
        drawn, given = f"plt.plot({values})", ""
    else:
        shown = _said_pairs(rng, pairs, lang)
        given = f"names = {names}\nvalues = {values}\n"
        drawn = "plt.pie(values, labels=names)" if kind == "pie" else f"plt.{kind}(names, values)"
    return Task(
        (f"画一个{zh}：{shown}$|用{zh}表示：{shown}$|画{zh}，数据是{shown}$|把这些数据画成{zh}：{shown}$|做一张{zh}：{shown}$",
         f"draw a {en} of {shown}$|make a {en}: {shown}$|plot this as a {en}: {shown}$|show a {en} for {shown}$|create a {en} of {shown}$"),
        f"import matplotlib.pyplot as plt\n{given}{drawn}\nplt.show()", None, lacking="plt")  # fmt: skip


def _even(rng: Random, split: Split, lang: Lang) -> Task:
    a, b = _both(rng, split, lambda: rng.randint(1, 900), lambda a: a + rng.randint(3, 16))
    zh, en, odd = rng.choice((("偶数", "even", 0), ("奇数", "odd", 1)))
    return Task(
        (f"列出{a}到{b}之间的{zh}|找出{a}到{b}的所有{zh}|输出{a}到{b}的{zh}|{a}到{b}之间有哪些{zh}?|{a}到{b}的{zh}是哪些?",
         f"list the {en} numbers from {a} to {b}|find all {en} numbers from {a} to {b}|print the {en} numbers from {a} to {b}|which numbers from {a} to {b} are {en}?|what are the {en} numbers from {a} to {b}?"),
        f"print([i for i in range({a}, {b} + 1) if i % 2 == {odd}])", str([i for i in range(a, b + 1) if i % 2 == odd]))  # fmt: skip


_TASKS: list[tuple[Callable[[Random, Split, Lang], Task], int]] = [
    (_expression, 14), (_division, 5), (_power, 5), (_factorial, 4), (_sum_to, 6), (_list, 14), (_primes, 3), (_is_prime, 3),
    (_fibonacci, 2), (_divisors, 5), (_root, 4), (_circle, 4), (_percent, 5), (_interest, 3), (_days, 6), (_string, 8), (_unit, 5),
    (_base, 3), (_rows, 10), (_curve, 7), (_chart, 9), (_even, 3),
]  # fmt: skip
_MAKERS = [make for make, _ in _TASKS]
_WEIGHTS = [weight for _, weight in _TASKS]


def _task(rng: Random, split: Split, lang: Lang) -> tuple[str, Task]:
    """A task and the words that ask for it."""
    while True:
        task = rng.choices(_MAKERS, _WEIGHTS)[0](rng, split, lang)
        cores = task.asks[lang == "en"].split("|")
        for _ in range(15):
            text = _said(rng, lang, rng.choice(cores))
            if held_out(text) == (split == "test"):
                return text, task


def _said(rng: Random, lang: Lang, core: str) -> str:
    kind = "ask" if core[-1] == "?" else "do"
    frames = _WHETHER if core.endswith("吗?") else _FRAMES[lang, kind]
    frame = rng.choice(frames)
    if core[-1] == "$":  # data run to the end of the message
        while not frame.endswith(("{c}", "{C}")):
            frame = rng.choice(frames)
    core = core.rstrip("?$")
    return frame.replace("{c}", core).replace("{C}", core[0].upper() + core[1:])


_EXECUTE: dict[Lang, list[str]] = {
    "zh": ["运行这段代码", "运行下面的代码", "执行这段代码", "帮我跑一下这段代码", "请运行", "请执行下面的代码", "跑一下", "试试这段代码", "看看这段代码的结果", "这段代码输出什么？", "帮我执行", "麻烦运行一下", "你好，运行这段代码", "请直接运行", "测试这段代码", "执行一下", "下面的代码结果是什么？", "能跑一下这段代码吗？"],
    "en": ["Run this code", "run this", "Please run this code", "Execute this code", "Can you run this?", "Try this code", "What does this code print?", "Run the following code", "Please execute this", "run the code below", "Could you run this code?", "Test this code", "Hi, run this code", "What is the output of this code?", "Just run this", "Execute the following"],
}  # fmt: skip


def _given(rng: Random, split: Split, lang: Lang) -> list[dict[str, Any]]:
    """Code of the user's, run as it stands; where it lacks an import, it fails and is corrected."""
    while True:
        task = rng.choices(_MAKERS, _WEIGHTS)[0](rng, split, lang)
        fails = bool(task.lacking)
        if (task.output is not None and "\n" in task.output) or (not fails and rng.random() < 0.7):
            continue
        code = task.code.partition("\n")[2] if fails else task.code
        for _ in range(15):
            lead = rng.choice(_EXECUTE[lang])
            colon = "" if lead[-1] in "？?" else ":" if lang == "en" else "："
            text = f"{lead}{colon}{rng.choice((NEWLINE, NEWLINE, ' ')) if NEWLINE not in code else NEWLINE}{code}"
            if held_out(text) == (split == "test"):
                messages = [user(text)]
                if fails:
                    error = f"NameError: name '{task.lacking}' is not defined"
                    messages += [call("interpreter", {"code": code}), observation(f"```result\n{error}\n```")]
                return messages + _run(lang, task._replace(answer=("", "")))


NEWLINE = "\n"


def _run(lang: Lang, task: Task) -> list[dict[str, Any]]:
    """Call, observation, answer."""
    messages = [call("interpreter", {"code": task.code})]
    if task.output is None:
        return [*messages, observation("[Image]"), assistant(_PICTURE[lang])]
    answer = task.answer[lang == "en"] or _RESULT[lang]
    return [*messages, observation(f"```result\n{task.output}\n```"), assistant(answer.replace("{r}", task.output))]


def sample(rng: Random, split: Split) -> Sample:
    lang: Lang = "zh" if rng.random() < 0.6 else "en"
    messages = [system(PROMPT)]
    if rng.random() < 0.05:
        return Sample("code", [*messages, *_chat(rng, split, lang)])
    if rng.random() < 0.08:
        messages += _given(rng, split, lang)
    else:
        text, task = _task(rng, split, lang)
        messages += [user(text), *_run(lang, task)]
    if rng.random() < 0.1:
        text, task = _task(rng, split, lang)
        messages += [user(text), *_run(lang, task)]
    elif rng.random() < 0.04:
        messages += _chat(rng, split, lang)
    return Sample("code", messages)


def _chat(rng: Random, split: Split, lang: Lang) -> list[dict[str, Any]]:
    said, answer = rng.choice(_CHAT[lang])
    choices = said.split("|")

    def make() -> str:
        core = rng.choice(choices)
        return rng.choice(_CHAT_FRAMES[lang]).replace("{c}", core).replace("{C}", core[0].upper() + core[1:])

    return [user(draw(rng, split, make)), assistant(answer)]
