"""What people ask the demo model, and what it calls and answers at temperature 0: tests compare, and README and the
page show these. The code really runs, and the plots are really drawn.

The demo's world is small. Left out, because it does them wrong: two cities in one question, `上海今天天气` (it looks
for a city of that name), more than two functions at once, functions and the interpreter together, `画出 y=x 的平方`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["PERSONAS", "RECORDED", "Recorded"]

PERSONAS: tuple[tuple[dict[str, str], str, str], ...] = (
    (
        {"bot_name": "苏梦远", "bot_info": "苏梦远是一位当红的歌手。", "user_name": "陆星辰"},
        "你叫什么名字？",
        "我叫苏梦远。",
    ),
    ({"bot_name": "Mia", "bot_info": "Mia is a tea-house keeper."}, "What is your name?", "My name is Mia."),
)
"""Roles, what is asked, and what is answered. Of a role the demo knows little but the name."""


@dataclass(frozen=True)
class Recorded:
    """
    Attributes:
        tools: on offer: built-in examples, or the interpreter.
        calls: names, arguments, and what came of it.
        pictures: how many the caller gets.
    """

    question: str
    tools: tuple[str, ...]
    calls: tuple[tuple[str, dict[str, Any], str], ...]
    answer: str
    pictures: int = 0


_TWO = ("calculator", "get_weather")
_CODE = ("interpreter",)


def _run(question: str, code: str, output: str, answer: str) -> Recorded:
    pictures = int(output == "[Image]")
    return Recorded(question, _CODE, (("interpreter", {"code": code}, output),), answer, pictures)


def _weather(question: str, city: str, found: str, answer: str) -> Recorded:
    return Recorded(question, _TWO, (("get_weather", {"city_name": city}, found),), answer)


def _sum(question: str, expression: str, result: str, answer: str) -> Recorded:
    call = ("calculator", {"expression": expression}, f'{{"result": {result}}}')
    return Recorded(question, _TWO, (call,), answer)


_SINE = (
    "import numpy as np\nimport matplotlib.pyplot as plt\nx = np.linspace(0, 10, 200)\n"
    "plt.plot(x, np.sin(x))\nplt.show()"
)
_BARS = (
    "import matplotlib.pyplot as plt\ndata = {pairs}\nnames, values = list(data), list(data.values())\n"
    "plt.bar(names, values)\nplt.show()"
)

RECORDED: tuple[Recorded, ...] = (
    _weather("北京的天气怎么样？", "北京", '{"condition": "晴", "temperature": 21}', "北京的天气：晴，21度。"),
    _weather("广州的天气怎么样？", "广州", '{"condition": "多云", "temperature": 27}', "广州的天气：多云，27度。"),
    _weather(
        "What's the weather in London?",
        "London",
        '{"condition": "fog", "temperature": 9}',
        "The weather in London: fog, 9 degrees.",
    ),
    _sum("计算128*46", "128*46", "5888", "128*46=5888。"),
    _sum("帮我计算123*456+789", "123*456+789", "56877", "123*456+789=56877。"),
    _sum("Calculate 37*89", "37*89", "3293", "37*89=3293."),
    Recorded("你好", _TWO, (), "你好！我是 chatglm 的演示模型，有什么可以帮你的吗？"),
    _run("计算1到100的和", "print(sum(range(1, 100 + 1)))", "5050", "结果是5050。"),
    _run("用Python计算2的10次方", "print(2 ** 10)", "1024", "结果是1024。"),
    _run(
        "求 3, 5, 8 的平均数",
        "numbers = [3, 5, 8]\nprint(round(sum(numbers) / len(numbers), 2))",
        "5.33",
        "结果是5.33。",
    ),
    _run(
        "单词strawberry里有几个字母r？", "text = 'strawberry'\nprint(text.count('r'))", "3", "结果是3。"
    ),
    _run(
        "2024-01-01到2024-12-25有多少天？",
        "from datetime import date\na = date.fromisoformat('2024-01-01')\nb = date.fromisoformat('2024-12-25')\n"
        "print((b - a).days)",
        "359",
        "结果是359。",
    ),
    _run(
        "做一张表格：北京21，上海18",
        "data = {'北京': 21, '上海': 18}\nfor name in data:\n    print(name, data[name])",
        "北京 21\n上海 18",
        "结果如下：\n北京 21\n上海 18",
    ),
    _run("What is the mean of 3, 5, 8?", "numbers = [3, 5, 8]\nprint(round(sum(numbers) / len(numbers), 2))", "5.33",
         "The result is 5.33."),
    _run("画出正弦曲线", _SINE, "[Image]", "图已经画好了。"),
    _run("Plot a sine curve", _SINE, "[Image]", "Here is the plot."),
    _run(
        "画一个柱状图，苹果3，香蕉5，橙子8",
        _BARS.replace("{pairs}", "{'苹果': 3, '香蕉': 5, '橙子': 8}"),
        "[Image]",
        "图已经画好了。",
    ),
    _run(
        "Draw a bar chart: apples 3, bananas 5",
        _BARS.replace("{pairs}", "{'apples': 3, 'bananas': 5}"),
        "[Image]",
        "Here is the plot.",
    ),
)  # fmt: skip
