"""Tool calls: one of the tools on offer, arguments copied from the user's words, an answer copied from the observation.

An answer says again what was asked, in the question's words, and only then differs: by the values that the tool
returned, or by its error.
"""

# ruff: noqa: SIM905
from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Literal

from chatglm.tools.examples import EXAMPLES
from chatglm.tools.functions import Function

from . import base, beyond
from .base import Sample, Split, assistant, call, draw, form, held_out, known, observation, persistently, user
from .chat import GREETINGS, IDENTITY, ask
from .vocabulary import ANIMALS, ANIMALS_EN, BOOKS, FOODS, FOODS_EN, NOUNS_EN, THINGS, THINGS_EN, word
from .wording import Kind, choose, dress, ways

Lang = Literal["zh", "en"]
Pair = tuple[str, str]
Make = Callable[[Random, Split, bool], Any]


class _RetryError(Exception):
    """These choices have no sentence on this side of the split."""


_PARTS = ("早上", "上午", "下午", "晚上", "")
_FIRMS = "云海 星河 远山 金石 天成 华光 大洋 东方 绿源 飞鸟 长风 明月 新创 万众 百川 北辰 南山 恒信 海棠 银杏".split()  # fmt: skip
_FIRMS_EN = "North Silver Apex Nova Green Iron Solar Delta Pioneer Apple Tesla Orion Atlas Lotus Zenith Falcon".split()  # fmt: skip
_TASKS = "开会 吃药 买牛奶 交电费 取快递 还信用卡 浇花 写周报 给妈妈打电话 洗车 订蛋糕 体检 健身 遛狗 买机票 接孩子 喝水 睡觉 起床 交作业 做饭 看比赛 跑步 倒垃圾 背单词 去医院 去银行 理发 拿护照 练琴".split()  # fmt: skip
_TASKS_EN = "buy milk;call Mom;take the medicine;pay the rent;water the flowers;walk the dog;go to bed;wake up;drink water;send the report;join the meeting;do the homework;wash the car;go to the bank;pick up the kids;cook dinner;go running;check the oven;feed the cat;book the tickets;clean the room;see the doctor".split(";")  # fmt: skip
_TEXTS = "我晚点到 我到家了 明天见 生日快乐 晚上一起吃饭 会议取消了 我在门口等你 记得带伞 路上小心 谢谢你的礼物 今天不用等我 周末去爬山 我已经出发了 到了告诉我 下午三点开会 快递到了 我忘带钥匙了 新年快乐 早点休息 我明天请假".split()  # fmt: skip
_TEXTS_EN = "I will be late;I am home;see you tomorrow;happy birthday;dinner is ready;the meeting is off;I am at the door;bring an umbrella;take care;thank you for the gift;do not wait for me;call me back;I am on my way;the parcel is here;good luck;I forgot my keys;happy new year;see you at noon".split(";")  # fmt: skip
_COLOURS = ("Silver", "Blue", "Quiet", "Lost", "Golden", "Hidden", "Winter", "Old", "Green", "Wild", "Red", "Little")

base.one_piece("查询 天气 城市 股票 代码 价格 货币 换成 订单 订单号 状态 设置 提醒 计算 表达式 时间 距离 两地 播放 音乐 歌曲 随机数 随机 种子 生成 范围 搜索 新闻 发送 短信 消息 电话 电话号码 联系人 作者 图书 翻译 文本 起点 终点 内容 收件人 主题 姓名 书名 金额 目标 语言 编号 信息 情况 怎么样 是多少 是什么 有多远 没有合适的工具来完成这件事 出错了 请告诉我".split())  # fmt: skip
known((*_FIRMS, *_FIRMS_EN, *_TASKS, *_TASKS_EN, *_TEXTS, *_TEXTS_EN))


# Values. Open ones obey the split; a closed vocabulary (currencies, the weather …) does not, it is too small for that.


def _open(zh: Callable[[Random], Any], en: Callable[[Random], Any] | None = None) -> Make:
    return lambda rng, split, english: draw(rng, split, lambda: (en or zh)(rng) if english else zh(rng))


def _closed(zh: str, en: str) -> Make:
    base.one_piece((*zh.split("|"), *en.split("|")))
    words = (zh.split("|"), en.split("|"))
    return lambda rng, split, english: rng.choice(words[english])


def _listed(zh: str, en: str) -> Make:
    """One of a list; some are made up."""
    words = (zh.split("|"), en.split("|"))
    known((*words[0], *words[1]))
    return _open(
        lambda rng: base.nonsense(rng, 2) if rng.random() < 0.25 else rng.choice(words[0]),
        lambda rng: word(rng, 2) if rng.random() < 0.25 else rng.choice(words[1]),
    )


def _an_id(rng: Random) -> str:
    digits = "".join(rng.choices("0123456789", k=rng.randint(3, 5)))
    return (
        digits if rng.random() < 0.6 else "".join(rng.choices("ABCDEFGHKLMNPRSTXY", k=rng.randint(1, 2))) + digits[:3]
    )


def _an_expression(rng: Random) -> str:
    text = f"{rng.randint(2, 999)}{rng.choice('+-*')}{rng.randint(2, 999)}"
    return text if rng.random() < 0.75 else f"{text}{rng.choice('+-')}{rng.randint(2, 99)}"


def _value_of(expression: str) -> int:
    """Of what `_an_expression` makes."""
    total = 0
    for term in expression.replace("-", "+-").split("+"):
        product = 1
        for factor in term.split("*"):
            product *= int(factor)
        total += product
    return total


def _a_time(rng: Random) -> str:
    return f"{rng.randint(0, 23)}:{rng.choice((0, 15, 30, 45, rng.randint(0, 59))):02d}"


def _a_title(rng: Random) -> str:
    return base.nonsense(rng, 2) if rng.random() < 0.15 else "".join(rng.sample(BOOKS, rng.choice((2, 2, 3))))


def _a_title_en(rng: Random) -> str:
    first = word(rng, 2).capitalize() if rng.random() < 0.15 else rng.choice(_COLOURS)
    title = f"{first} {rng.choice(NOUNS_EN).capitalize()}"
    if rng.random() < 0.3:
        title += f" {rng.choice(('of', 'and', 'in the', 'on the', 'for a'))} {rng.choice(NOUNS_EN).capitalize()}"
    return title.lower() if rng.random() < 0.15 else title


PLACE: Make = lambda rng, split, english: (base.town if english else base.city)(rng, split)  # noqa: E731
PERSON: Make = lambda rng, split, english: (base.first_name if english else base.person)(rng, split)  # noqa: E731
ID = _open(_an_id)
NUMBER = _open(lambda rng: rng.randint(2, 999))
TIME = _open(_a_time)
WHEN = _open(
    lambda rng: (
        _a_time(rng)
        if rng.random() < 0.5
        else f"{rng.choice(('', '', '', '明天', '今天', '后天', '周一'))}{rng.choice((*_PARTS, '明早' if rng.random() < 0.3 else '', '今晚' if rng.random() < 0.3 else ''))}{rng.randint(1, 12)}点{rng.choice(('', '', '半'))}".replace(
            "天明早", "天早上"
        ).replace("天今晚", "天晚上")
    ),
    lambda rng: _a_time(rng) if rng.random() < 0.5 else f"{rng.randint(1, 12)} {rng.choice(('am', 'pm'))}",
)
TITLE = _open(_a_title, _a_title_en)
EXPRESSION = _open(_an_expression)
RATE = _open(lambda rng: round(rng.uniform(2, 900), 1))
PHONE = _open(lambda rng: "".join(rng.choices("0123456789", k=5)))
THING = _listed("|".join((*FOODS, *THINGS, *ANIMALS)), "|".join((*FOODS_EN, *THINGS_EN, *ANIMALS_EN)))
COMPANY = _open(
    lambda rng: (
        (base.nonsense(rng, 2) if rng.random() < 0.2 else rng.choice(_FIRMS))
        + rng.choice(("", "科技", "银行", "汽车", "能源", "电子"))
        if rng.random() < 0.6
        else _an_id(rng)
    ),
    lambda rng: (
        (word(rng, 2).capitalize() if rng.random() < 0.3 else rng.choice(_FIRMS_EN))
        + rng.choice(("", " Bank", " Motors", " Labs"))
        if rng.random() < 0.6
        else "".join(rng.choices("ABCDEFGHKLMNPRSTXY", k=rng.randint(3, 4)))
    ),
)
TOPIC = _listed(
    "足球|围棋|电影|音乐|机器人|咖啡|芯片|太空|海洋|教育|医疗|房价|股市|旅游|高铁|新能源|人工智能|天文|农业|环保|游戏|摄影|登山|汽车|手机|动物|历史|科技|经济|体育|大学|医院|物流|图书",
    "football|chess|movies|music|robots|coffee|chips|space|oceans|schools|health|housing|stocks|travel|trains|energy|history|science|sports|games|cars|phones|animals|art|food|farming",
)
HEADLINE = _closed(
    "市场回暖|大会开幕|价格上涨|价格下跌|新品发布|比赛结束|展览开放|专家提醒|人数创新高|今天有大事",
    "a new record|prices rise|prices fall|the show opens|a big surprise|experts warn|a new rule|the final result",
)
TASK = _open(
    lambda rng: rng.choice(("买", "找", "问")) + base.nonsense(rng, 2) if rng.random() < 0.15 else rng.choice(_TASKS),
    lambda rng: rng.choice(("call ", "meet ", "ask ")) + word(rng, 2).capitalize() if rng.random() < 0.15 else rng.choice(_TASKS_EN),
)  # fmt: skip
TEXT = _open(
    lambda rng: f"我在{rng.choice(base.CITIES)}" if rng.random() < 0.15 else rng.choice(_TEXTS),
    lambda rng: f"I am in {rng.choice(base.TOWNS)}" if rng.random() < 0.15 else rng.choice(_TEXTS_EN),
)
SKY = _closed("晴|多云|阴|小雨|大雨|小雪|大雾|雷阵雨", "sunny|cloudy|overcast|light rain|heavy rain|snow|fog|windy")
DEGREES = _open(lambda rng: rng.randint(-15, 39))
STATE = _closed(
    "已发货|待付款|配送中|已签收|已取消|备货中", "shipped|not paid yet|on the way|delivered|canceled|being packed"
)
INFO = _closed("正常|已完成|进行中|已取消|暂无|可用|已过期|排队中", "normal|done|in progress|canceled|none|open|expired|waiting")  # fmt: skip
CURRENCY = _closed("美元|欧元|日元|英镑|港币|人民币|韩元|泰铢", "dollars|euros|pounds|yuan|yen|won|HKD|THB|AUD|CAD|SGD|CHF")  # fmt: skip
LANGUAGE = _closed("英语|日语|法语|德语|韩语|俄语|西班牙语", "Chinese|French|German|Japanese|Spanish|Italian|Korean")
FOREIGN = _open(lambda rng: word(rng, rng.randint(1, 2)))


_DATE = _open(
    lambda rng: rng.choice((f"{rng.randint(1, 12)}月{rng.randint(1, 28)}日", f"{rng.randint(1, 12)}月{rng.randint(1, 28)}号", f"周{rng.choice('一二三四五六日')}", f"星期{rng.choice('一二三四五六天')}", f"2026-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}", rng.choice(("今天", "明天", "后天", "下周一")))),
    lambda rng: rng.choice((f"{rng.choice(('March', 'May', 'June', 'July', 'August', 'April'))} {rng.randint(1, 28)}", rng.choice(("Monday", "Tuesday", "Friday", "Sunday", "tomorrow", "next week")), f"2026-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}")),
)  # fmt: skip
_ABOUT = "年假 病假 报销 加班 食堂 班车 工资 保修 退货 发票 密码 会议室 停车 培训 考勤 合同 社保 公积金 体检 奖金 快递 打印机 门禁 假期 试用期 离职 入职 出差 补贴 学费 宿舍 选课 考试".split()
_ABOUT_EN = "vacation;sick leave;refunds;parking;the canteen;warranty;returns;invoices;passwords;training;contracts;bonuses;shipping;the printer;overtime;travel costs;the gym;meeting rooms".split(
    ";"
)
_QUERY = _open(
    lambda rng: (base.nonsense(rng, 2) if rng.random() < 0.2 else rng.choice(_ABOUT)) + rng.choice(("", "", "有几天", "怎么申请", "的规定", "要多久", "找谁", "是多少", "流程", "的标准", "怎么办")),
    lambda rng: rng.choice(("", "", "the rules for ", "how to get ")) + (word(rng, 2) if rng.random() < 0.2 else rng.choice(_ABOUT_EN)),
)  # fmt: skip
_PASSAGE = _open(
    lambda rng: rng.choice(("员工每年有{}天", "需要{}个工作日", "由{}负责", "请联系{}", "每月{}号办理", "标准是{}元")).format(rng.choice((str(rng.randint(2, 99)), rng.choice(base.SURNAMES) + "经理"))),
    lambda rng: rng.choice(("it takes {} days", "ask {}", "up to {} dollars", "on day {} of each month", "there are {} of them")).format(rng.choice((str(rng.randint(2, 99)), rng.choice(base.FIRST)))),
)  # fmt: skip


@dataclass(frozen=True)
class Slot:
    """A parameter: its name, what it is in both languages, what makes its values, its JSON type."""

    name: str
    told: Pair
    make: Make
    kind: str = "string"


@dataclass(frozen=True)
class Field:
    """What an observation has under one of `keys`, and how an answer says it."""

    keys: str
    make: Make
    said: Pair = ("{v}", "{v}")


@dataclass(frozen=True)
class Domain:
    """What a kind of tool is called, takes and returns, and what users say who want it.

    Alternatives are separated by "|". Of what users say `…?` is a question, `…$` ends with a value that runs to the
    end of the message, others ask to do something. An answer begins with `lead`; `done` is said where nothing but
    success is returned. `bare` requests lack the first slot, and `missing` asks for it.
    """

    key: str
    names: str
    nouns: str
    docs: Pair
    slots: dict[str, Slot]
    asks: Pair
    lead: Pair
    fields: tuple[Field, ...] = ()
    done: Pair = ("", "")
    bare: Pair = ("", "")
    missing: Pair = ("", "")
    joint: str = ""
    official: dict[str, Any] = field(default_factory=dict)
    """The schema of ChatGLM3's own demo, if it has the tool."""
    follows: bool = False


def _city() -> dict[str, Slot]:
    return {"city": Slot("city_name", ("城市", "city"), PLACE)}


DOMAINS = (
    Domain("weather", "get_weather query_weather weather_forecast get_current_weather", "weather forecast",
        ("查询天气|查询城市的天气", "get the weather|get the weather of a city"), _city(),
        ("{city}的天气怎么样?|查一下{city}的天气|{city}天气怎么样?", "how is the weather in {city}?|check the weather in {city}|what is the weather in {city}?"),
        ("{city}的天气", "The weather in {city}"),
        (Field("condition weather", SKY), Field("temperature temp", DEGREES, ("{v}度", "{v} degrees"))),
        bare=("查一下天气|天气怎么样?|天气好不好?", "check the weather|how is the weather?"), missing=("请告诉我城市。", "Please tell me the city."),
        official={"name": "get_weather", "description": "Get the current weather for `city_name`", "parameters": {"type": "object", "properties": {"city_name": {"type": "string", "description": "The name of the city to be queried"}}, "required": ["city_name"]}},
        follows=True),
    Domain("stock", "track get_stock_price query_stock stock_price", "stock share",
        ("查询股票价格|追踪指定股票的实时价格", "get the stock price|track the price of a stock"),
        {"symbol": Slot("symbol", ("股票|需要追踪的股票代码", "stock|stock symbol"), COMPANY)},
        ("查询股票{symbol}的价格|查一下股票{symbol}的价格|股票{symbol}的价格是多少?", "check the price of stock {symbol}|what is the price of stock {symbol}?"),
        ("股票{symbol}的价格", "The price of stock {symbol}"), (Field("price current_price", RATE),),
        bare=("查一下股票价格|看一下股票价格|股票价格是多少?", "check the price of a stock|what is the stock price?"), missing=("请告诉我股票。", "Please tell me the stock."),
        official={"name": "track", "description": "追踪指定股票的实时价格", "parameters": {"type": "object", "properties": {"symbol": {"description": "需要追踪的股票代码"}}, "required": ["symbol"]}},
        follows=True),
    Domain("exchange", "convert_currency exchange_rate currency_exchange", "currency money",
        ("货币换算|把一种货币换成另一种货币", "convert currency|convert money into another currency"),
        {"amount": Slot("amount", ("金额", "amount"), NUMBER, "integer"),
         "source": Slot("from_currency", ("原货币", "currency to convert from"), CURRENCY),
         "target": Slot("to_currency", ("目标货币", "currency to convert to"), CURRENCY)},
        ("把{amount}{source}换成{target}|{amount}{source}换成{target}是多少?", "convert {amount} {source} to {target}|how much is {amount} {source} to {target}?"),
        ("{amount}{source}换成{target}", "{amount} {source} to {target}"), (Field("result amount", RATE),)),
    Domain("order", "get_order_status query_order track_order", "order",
        ("查询订单状态|查询订单", "get the status of an order|check an order"),
        {"order_id": Slot("order_id", ("订单号", "order number"), ID)},
        ("查一下订单{order_id}的状态|订单{order_id}的状态是什么?|查询订单{order_id}", "check the status of order {order_id}|what is the status of order {order_id}?"),
        ("订单{order_id}的状态", "The status of order {order_id}"), (Field("status state", STATE),),
        bare=("查一下订单的状态|订单的状态是什么?", "check the status of my order|check my order|what is the status of my order?"), missing=("请告诉我订单号。", "Please tell me the order number."),
        follows=True),
    Domain("reminder", "set_reminder add_reminder create_reminder", "reminder",
        ("设置提醒|在指定时间提醒", "set a reminder|remind at a time"),
        {"time": Slot("time", ("提醒的时间", "time of the reminder"), WHEN), "content": Slot("content", ("提醒的内容", "what to remind of"), TASK)},
        ("{time}提醒我{content}$|在{time}提醒我{content}$", "remind me at {time} to {content}$|at {time} remind me to {content}$"),
        ("{time}提醒你{content}", "Reminder at {time} to {content}"), done=("已设好", "set")),
    Domain("calculator", "calculator calculate compute", "math expression",
        ("计算表达式|计算器", "calculate an expression|calculator"), {"expression": Slot("expression", ("表达式", "expression"), EXPRESSION)},
        ("计算{expression}|算一下{expression}|{expression}等于多少?", "calculate {expression}|compute {expression}|what is {expression}?"),
        ("{expression}", "{expression}"), (Field("result value", NUMBER),), joint="="),
    Domain("clock", "get_time get_current_time world_clock", "time clock",
        ("查询时间|查询城市的当前时间", "get the time|get the time in a city"), _city(),
        ("查一下{city}的时间|{city}现在几点?|{city}的时间是几点?", "check the time in {city}|what is the time in {city}?|what time is it in {city}?"),
        ("{city}的时间", "The time in {city}"), (Field("time now", TIME),),
        bare=("查一下时间|看一下时间|现在几点?", "check the time|what time is it?"), missing=("请告诉我城市。", "Please tell me the city."), follows=True),
    Domain("distance", "get_distance calculate_distance distance_between", "distance",
        ("查询两地的距离|计算距离", "get the distance between two places|calculate the distance"),
        {"start": Slot("origin", ("起点", "start"), PLACE), "end": Slot("destination", ("终点", "end"), PLACE)},
        ("从{start}到{end}有多远?|从{start}到{end}的距离是多少?|查一下从{start}到{end}的距离", "how far is it from {start} to {end}?|what is the distance from {start} to {end}?|check the distance from {start} to {end}"),
        ("从{start}到{end}的距离", "The distance from {start} to {end}"), (Field("distance_km km", NUMBER, ("{v}公里", "{v} km")),)),
    Domain("music", "play_music play_song music_player", "music song",
        ("播放音乐|播放歌曲", "play music|play a song"), {"song": Slot("song", ("歌曲", "song"), TITLE)},
        ("播放{song}|播放歌曲{song}|放一首{song}", "play {song}|play the song {song}|put on the song {song}"),
        ("播放{song}", "Playing {song}"), done=("已开始", "started"),
        bare=("播放音乐|播放歌曲|放一首歌", "play music|play a song"), missing=("请告诉我歌曲。", "Please tell me the song.")),
    Domain("random", "random_number_generator", "random random_number",
        ("生成随机数|用种子生成范围内的随机数", "generate a random number|generate a random number in a range"),
        {"seed": Slot("seed", ("随机种子", "random seed"), NUMBER, "integer"), "range": Slot("range", ("随机数的范围", "range of the number"), NUMBER, "array")},
        ("用种子{seed}生成{low}到{high}的随机数|用种子{seed}生成一个{low}到{high}的随机数", "with seed {seed} generate a random number from {low} to {high}|use seed {seed} for a random number from {low} to {high}"),
        ("{low}到{high}的随机数", "A random number from {low} to {high}"), (Field("result number", NUMBER),),
        official={"name": "random_number_generator", "description": "Generates a random number x, s.t. range[0] <= x < range[1]", "parameters": {"type": "object", "properties": {"seed": {"type": "integer", "description": "The random seed used by the generator"}, "range": {"type": "array", "description": "The range of the generated numbers"}}, "required": ["seed", "range"]}}),
    Domain("news", "search_news get_news news_search", "news headlines",
        ("搜索新闻|查询新闻", "search the news|get the news"), {"topic": Slot("topic", ("主题", "topic"), TOPIC)},
        ("搜索{topic}新闻|查一下{topic}新闻|有什么{topic}新闻?", "search for news about {topic}|check the news about {topic}|what is the news about {topic}?"),
        ("{topic}新闻", "News about {topic}"), (Field("title headline", HEADLINE),)),
    Domain("message", "send_message send_sms send_text", "message sms",
        ("发送短信|给联系人发消息", "send a message|send a text message"),
        {"to": Slot("to", ("收件人", "recipient"), PERSON), "text": Slot("text", ("内容", "text"), TEXT)},
        ("给{to}发短信：{text}$|给{to}发消息：{text}$", "send a message to {to}: {text}$|text {to}: {text}$"),
        ("给{to}发消息", "Message to {to}"), done=("已发送", "sent")),
    Domain("phone", "get_phone_number find_contact contact_lookup", "phone contact",
        ("查询电话号码|查询联系人的电话", "find a phone number|get the phone number of a person"), {"name": Slot("name", ("姓名", "name"), PERSON)},
        ("查一下{name}的电话|{name}的电话是多少?|{name}的电话号码是多少?", "find the phone number of {name}|what is the phone number of {name}?"),
        ("{name}的电话", "The phone number of {name}"), (Field("phone number", PHONE),), follows=True),
    Domain("book", "get_author find_book book_info", "book author",
        ("查询书的作者|查询图书", "find the author of a book|get the author of a book"), {"title": Slot("title", ("书名", "title"), TITLE)},
        ("查一下《{title}》的作者|《{title}》的作者是谁?", 'find the author of "{title}"|who is the author of "{title}"?'),
        ("《{title}》的作者", 'The author of "{title}"'), (Field("author writer", PERSON),)),
    Domain("translate", "translate translate_text translator", "translation translate",
        ("翻译文本|翻译", "translate a text|translate"),
        {"text": Slot("text", ("要翻译的文本", "text to translate"), THING), "language": Slot("language", ("目标语言", "target language"), LANGUAGE)},
        ("把“{text}”翻译成{language}|“{text}”翻译成{language}是什么?", 'translate "{text}" into {language}|what is "{text}" in {language}?'),
        ("“{text}”翻译成{language}", '"{text}" in {language}'), (Field("result translation", FOREIGN),)),
    Domain("units", "convert_unit unit_converter convert_units", "unit convert units",
        ("单位换算|把一种单位换成另一种", "convert units|convert a unit into another"),
        {"amount": Slot("amount", ("数值|数量", "value|amount"), NUMBER, "number"), "source": Slot("from_unit", ("原单位", "unit to convert from"), _closed("公里|米|厘米|英里|英寸|英尺|公斤|克|斤|磅|盎司|升|毫升|加仑|摄氏度|华氏度|小时|分钟|平方米|亩", "km|meters|cm|miles|inches|feet|kg|grams|pounds|ounces|liters|gallons|celsius|fahrenheit|hours|minutes")),
         "target": Slot("to_unit", ("目标单位", "unit to convert to"), _closed("公里|米|厘米|英里|英寸|英尺|公斤|克|斤|磅|盎司|升|毫升|加仑|摄氏度|华氏度|小时|分钟|平方米|亩", "km|meters|cm|miles|inches|feet|kg|grams|pounds|ounces|liters|gallons|celsius|fahrenheit|hours|minutes"))},
        ("{amount}{source}换成{target}是多少?", "convert {amount} {source} to {target}"), ("{amount}{source}换成{target}", "{amount} {source} in {target}"), (Field("result value", RATE),)),
    Domain("dice", "roll_dice throw_dice dice", "dice die",
        ("掷骰子|掷几个骰子", "roll dice|throw some dice"),
        {"count": Slot("count", ("骰子的个数|几个骰子", "how many dice|number of dice"), NUMBER, "integer"), "sides": Slot("sides", ("每个骰子的面数|面数", "sides of each|how many sides"), NUMBER, "integer")},
        ("", ""), ("骰子的点数", "The dice show"), (Field("result total", NUMBER),)),
    Domain("files", "search_files find_files grep_files", "file files folder",
        ("在文件夹中查找文件名或内容|查找文件", "search files for a word|find text in files"), {"query": Slot("query", ("要查找的词|关键词", "word to look for|what to look for"), TOPIC)},
        ("查找文件{query}", "search the files for {query}"), ("查找{query}的结果", "Files with {query}"), (Field("result files", _open(lambda rng: f"{word(rng, 2)}.{rng.choice(('txt', 'md', 'csv', 'py'))}")),)),
    Domain("mail", "send_email send_mail email", "email mail",
        ("发送电子邮件|给联系人发邮件", "send an email|send an email to a person"), {"to": Slot("to", ("收件人", "recipient"), PERSON), "subject": Slot("subject", ("主题", "subject"), TOPIC)},
        ("给{to}发邮件，主题是{subject}$", "send an email to {to} about {subject}"), ("给{to}发邮件", "Email to {to}"), done=("已发送", "sent")),
    Domain("knowledge", "search_knowledge knowledge_search search_documents", "knowledge documents docs",
        ("在知识库中检索与问题有关的段落|检索文档", "search the knowledge base for passages|search the documents"), {"query": Slot("query", ("问题或关键词|问题", "question or keywords|question"), _QUERY)},
        ("在知识库里查{query}", "search the documents for {query}"), ("{query}", "{query}"), (Field("result passage", _PASSAGE),)),
    Domain("light", "switch_light set_light turn_light", "light lamp",
        ("打开或关闭房间的灯|控制灯", "turn the light of a room on or off|control a light"), {"room": Slot("room", ("房间", "room"), _listed("客厅|卧室|厨房|书房|阳台|走廊|浴室|餐厅|车库|门口|儿童房|办公室|会议室|地下室", "kitchen|bedroom|bathroom|hall|garage|office|garden|cellar|attic|study|corridor|balcony")), "state": Slot("state", ("on 或 off|开关状态", "on or off|state"), lambda rng, split, english: rng.choice(("on", "off")))},
        ("", ""), ("{room}的灯", "The light in the {room}"), done=("已设好", "set")),
    Domain("calendar", "get_schedule list_events get_calendar", "calendar schedule",
        ("查询日程|查询某天的安排", "get the schedule of a day|list the events of a day"), {"date": Slot("date", ("日期", "date"), _DATE)},
        ("查一下{date}的日程", "what is on my calendar for {date}?"), ("{date}的日程", "The schedule for {date}"), (Field("event title", TASK),), follows=True),
    Domain("hotel", "book_hotel reserve_hotel hotel_booking", "hotel room",
        ("预订酒店|在城市预订酒店", "book a hotel|book a hotel in a city"), {"city": Slot("city_name", ("城市", "city"), PLACE), "date": Slot("date", ("入住日期", "date of arrival"), _DATE)},
        ("在{city}订酒店，{date}入住", "book a hotel in {city} for {date}"), ("{city}的酒店", "The hotel in {city}"), (Field("name hotel", TITLE),)),
)  # fmt: skip

_MORE_ASKS: dict[str, Pair] = {
    "weather": (
        "{city}(今天|明天|现在|)(的|)天气(怎么样|如何|咋样|好吗|好不好|)?|{city}(今天|明天|现在|)(冷|热|下雨|下雪|刮风)(吗|不)?|{city}(冷不冷|热不热|会下雨吗|多少度|气温多少|气温是多少)?|天气 {city}|{city}天气|(看看|查查|查询|看一下|搜一下|告诉我){city}(今天|明天|那边|)(的|)天气|我(明天|下周|周末|)(要|想|准备)去{city}(玩|出差|)，(帮我|)(看看|查查|查一下)(那边|那里|当地|)(的|)天气|(适合|能)去{city}玩吗，天气怎么样?|{city}那边天气(好吗|怎么样)?|今天{city}天气(怎么样|如何)?|出门去{city}要带伞吗?",
        "(what is|what's|how is|how's) the weather (like |)(in|for) {city}( today| now| tomorrow|)?|weather in {city}|{city} weather|is it (raining|cold|hot|sunny|snowing|windy) in {city}( today| now|)?|(show|tell) me the weather (in|for) {city}|what is the temperature in {city}?|do i need an umbrella in {city}?|i am going to {city}, how is the weather there?|get the weather for {city}",
    ),
    "stock": (
        "(股票|)(代码|){symbol}(现在|今天|)(的|)(股价|价格)(是|)(多少|怎么样)?|{symbol}(多少钱|什么价|涨了吗)?|股票{symbol}(现在|)(多少钱|什么价)?|(看看|查查|追踪|帮我查|看一下)(股票|){symbol}(的|)(股价|价格|行情)|{symbol}的股价",
        "(how much is|what is the price of) {symbol}( stock| shares|)( now|)?|{symbol} (stock price|share price|price)|(track|check|look up) (the stock |){symbol}|how is {symbol} doing?",
    ),
    "exchange": (
        "{amount}{source}(等于|是|能换|可以换|合)多少{target}?|(把|将){amount}{source}(兑换|兑|转|折合)成{target}|{amount}{source}换{target}|换{amount}{source}的{target}",
        "how many {target} are {amount} {source}?|{amount} {source} in {target}|change {amount} {source} (to|into) {target}|exchange {amount} {source} for {target}",
    ),
    "order": (
        "(我的|)订单{order_id}(到哪了|发货了吗|怎么样了|什么情况|到哪里了)?|(看看|查查|跟踪|帮我看下)(我的|)订单{order_id}|订单号{order_id}(，|的)(状态|进度|情况)|{order_id}(这个|)订单(到哪了|发了吗)?",
        "where is (my |)order {order_id}?|(track|look up|find) (my |)order {order_id}|order {order_id} status|has order {order_id} (shipped|arrived)?",
    ),
    "reminder": (
        "{time}(叫|喊|通知)我{content}$|(设个|设置|定个|加个)(提醒|闹钟)，{time}{content}$|{time}(别忘了|要)提醒我{content}$|(请在|到){time}(时|)提醒我{content}$|(提醒我|记得提醒我){time}{content}$",
        "(set|add|create) a reminder (at|for) {time} to {content}$|(don't let me forget|i need) to {content} at {time}|{time} reminder: {content}$",
    ),
    "calculator": (
        "{expression}(等于|是|得|=)(多少|几|)?|{expression}=|(算算|计算一下|求|帮我算|算){expression}|{expression}的(结果|值)(是|)(多少|)?|计算：{expression}$",
        "(how much is|what's|work out|evaluate|solve|compute) {expression}?|{expression} =|the result of {expression}",
    ),
    "clock": (
        "{city}(现在|)(是|)(几点|什么时间|几点钟)(了|)?|(看看|查查|告诉我){city}(现在|当地|)(的|)时间|{city}时间|现在{city}(是|)几点(了|)?",
        "(what's the|current|local) time in {city}?|time in {city}|(tell|show) me the time in {city}|what time is it now in {city}?",
    ),
    "distance": (
        "{start}到{end}(有|)(多远|多少公里|多少路)?|{start}(离|距|距离){end}(有|)(多远|多少公里)?|(算算|查查|测一下)(从|){start}到{end}的(距离|路程)",
        "how far (is|away is) {end} from {start}?|distance (from|between) {start} (to|and) {end}|how many km from {start} to {end}?",
    ),
    "music": (
        "(我想听|来一首|放|播|听|点播|来首|放首)(歌曲|歌|){song}|(打开|播放)(音乐|歌曲|歌)《{song}》|播放《{song}》|给我(放|播)(一首|){song}",
        "(i want to hear|let me hear|start playing|listen to) (the song |){song}|play me {song}|can you put on {song}?",
    ),
    "random": (
        "(生成|给我|来|取|要)(一个|个|){low}(到|-|和|至){high}(之间|)的随机数，(种子|seed)(用|是|为|){seed}$|{low}到{high}(之间|)(随机|任意)(取|选)一个(数|数字)，种子{seed}$|(随机种子|种子){seed}，范围{low}到{high}，(生成|来个)随机数",
        "(give me|pick|draw|i need) a random number (between|from) {low} (and|to) {high} (with|using) seed {seed}|random number {low} to {high}, seed {seed}",
    ),
    "news": (
        "(看看|查查|找找|帮我搜|有没有)(最近的|今天的|关于|){topic}(的|方面的|)新闻|{topic}(方面|)(最近|)有(什么|啥)(新闻|消息)?|{topic}(的|)(最新消息|新闻|头条)|关于{topic}的(新闻|报道)",
        "(any|is there any|show me|find|latest) news (about|on) {topic}?|{topic} news|what is new (in|about) {topic}?|headlines about {topic}",
    ),
    "message": (
        "(发|发条|发个)(短信|消息|信息)给{to}(，内容是|，说|：|说){text}$|(告诉|通知|跟){to}(说|)(：|，|){text}$|给{to}(发|捎)(个|条)(信|信息|短信)说{text}$",
        "(tell|text|message|write) {to}( that|:|) {text}$|send {to} a (text|message)( saying|:|) {text}$|let {to} know: {text}$",
    ),
    "phone": (
        "{name}(的|)(电话|手机号|号码|联系方式)(是|)(多少|几|什么|)?|(找一下|查查|查询|我要|给我){name}的(电话|号码|手机号)|怎么(联系|打给){name}?",
        "(what's|look up|get|give me|i need) {name}'s (phone number|number|phone)?|phone number of {name}|how can i (call|reach) {name}?",
    ),
    "book": (
        "(谁|哪位)(写|写作)(了|的)《{title}》?|《{title}》(是|)(谁|哪位)(写|作)的?|《{title}》作者|(查查|搜)《{title}》(的作者|这本书是谁写的)",
        'who wrote "{title}"?|author of "{title}"|(look up|tell me) (the author of|who wrote) "{title}"',
    ),
    "translate": (
        "(把|将){text}(翻译|译|翻)成{language}|(把|将)“{text}”(翻译|译|翻)成{language}|{text}用{language}怎么(说|写)?|{text}的{language}(是什么|怎么说)?|翻译成{language}：{text}$|(用|){language}(翻译|说)(一下|)“{text}”|“{text}”的{language}",
        '(translate|put|turn) {text} (to|into) {language}|how do you say {text} in {language}?|{text} in {language}|say "{text}" in {language}|{language} for {text}?',
    ),
    "units": (
        "(把|将|){amount}{source}(换算|换|转|转换)成{target}|{amount}{source}(等于|是|合|有)(多少|几){target}?|{amount}{source}换{target}|多少{target}是{amount}{source}?",
        "(convert|change) {amount} {source} (to|into) {target}|how many {target} (are|is|in) {amount} {source}?|{amount} {source} in {target}|what is {amount} {source} in {target}?",
    ),
    "files": (
        "(找|查找|搜索|找一下|搜一下|查一下)(哪些|)文件(里有|里写了|中有|包含){query}(的|)|(哪个|哪些|什么)文件(里|中)(有|提到|写了|包含){query}?|在(文件夹|文件|目录)(里|中)(找|搜|查)(一下|){query}|(搜|找|查找)(文件|)“{query}”",
        "(search|look through|scan) (the |my |)files for {query}|which files (mention|contain|have) {query}?|find {query} in (the |my |)files|(find|search) files (about|with) {query}",
    ),
    "mail": (
        "(发|写|发送|发一封)(邮件|一封邮件|email)给{to}(，|)(主题|标题)(是|为|：|){subject}$|给{to}(发|写)(一封|个|)(邮件|email)(，主题是|，关于|说){subject}$|(邮件|email)通知{to}{subject}$",
        "(send|write) (an |)(email|mail) to {to} (about|with the subject|on|regarding) {subject}|(email|mail) {to} about {subject}|(send|write) {to} an email about {subject}",
    ),
    "knowledge": (
        "(查|查一下|搜|在|检索)(知识库|文档|资料)(里|中|)(，|)(关于|){query}|(知识库|文档|资料)(里|中)(有没有|怎么说|关于|说的){query}?|{query}?|根据(文档|资料|知识库)，{query}?|(帮我|)(查|查查|找找|搜一下){query}",
        "(search|look in|check) the (documents|knowledge base|docs) (for|about) {query}|what do the (documents|docs) say about {query}?|{query}?|(find|look up) {query} in the documents",
    ),
    "light": (
        "(把|)(打开|开|点亮){room}(的|)灯|(把|)(关掉|关|关上|关闭){room}(的|)灯|(把|将){room}(的|)灯(打开|开一下|点亮|开开)|(把|将){room}(的|)灯(关掉|关上|关了|关一下)|{room}(开|亮)灯|{room}关灯",
        "(turn on|switch on) the (light in the {room}|{room} light)|(turn off|switch off) the (light in the {room}|{room} light)|turn the {room} light on|turn the {room} light off|lights on in the {room}|lights off in the {room}",
    ),
    "calendar": (
        "(查|看|看看|查一下){date}(有什么|的|有没有|)(安排|日程|会议|行程)|{date}(我|)(有|有没有)(什么|)(安排|日程|会|会议)?|我{date}(忙吗|有空吗|要干嘛)?",
        "(what is|what's|show) (on |)my (calendar|schedule|agenda) (for|on) {date}?|(do i have|any) (meetings|plans|appointments) on {date}?|am i (free|busy) on {date}?",
    ),
    "hotel": (
        "(订|预订|预定|帮我订)(一间|一个|){city}(的|)酒店，{date}入住|在{city}(订|找)(一家|个|)酒店，{date}(入住|住)|{date}去{city}，(订|帮我订)(个|)酒店",
        "(book|reserve|find) a hotel in {city} for {date}|i need a hotel in {city} on {date}",
    ),
}
"""More ways to ask, as patterns."""
DOMAIN_OF = {domain.key: domain for domain in DOMAINS}
_USUAL = frozenset(name for domain in DOMAINS for name in domain.names.split())
_WEIGHTS = [1.5 if domain.official else 1.0 for domain in DOMAINS]

_NOUNS = (
    ("航班", "flight"), ("火车", "train"), ("快递", "parcel"), ("酒店", "hotel"), ("商品", "product"), ("学生", "student"), ("员工", "employee"), ("会员", "member"),
    ("合同", "contract"), ("课程", "course"), ("房间", "room"), ("车辆", "vehicle"), ("病人", "patient"), ("项目", "project"), ("药品", "medicine"), ("邮件", "email"),
    ("设备", "device"), ("账单", "bill"), ("比赛", "match"), ("活动", "event"), ("仓库", "warehouse"), ("客户", "customer"), ("任务", "task"), ("餐桌", "table"),
)  # fmt: skip
base.one_piece(zh for zh, _ in _NOUNS)


def _look_up(rng: Random, split: Split) -> Domain:
    """A tool that looks something up by its number: only the description tells what."""
    zh, en = rng.choice(_NOUNS)
    if rng.random() < 0.15:
        zh, en = draw(rng, split, lambda: base.nonsense(rng, 2)), draw(rng, split, lambda: word(rng, 2))
    return Domain(
        f"look up {en} {zh}", "", f"{en} {en}_info",
        (f"查询{zh}|查询{zh}信息", f"look up a {en}|get information about a {en}"),
        {"id": Slot("id", (f"{zh}编号", f"{en} number"), ID)},
        (f"查询{zh}{{id}}|查一下{zh}{{id}}|{zh}{{id}}的情况怎么样?", f"look up {en} {{id}}|check {en} {{id}}|what about {en} {{id}}?"),
        (f"{zh}{{id}}的情况", f"The status of {en} {{id}}"), (Field("result status info", INFO),), follows=True,
    )  # fmt: skip


_FOLLOW: dict[Lang, tuple[str, ...]] = {
    "zh": (
        "那{v}呢？",
        "{v}呢？",
        "那{v}呢",
        "{v}呢",
        "再查一下{v}",
        "{v}",
        "还有{v}",
        "换成{v}",
        "那么{v}呢？",
        "再看看{v}",
        "{v}的呢",
        "{v}也查一下",
    ),
    "en": (
        "And {v}?",
        "What about {v}?",
        "what about {v}",
        "How about {v}?",
        "{v}?",
        "now {v}",
        "and for {v}?",
        "also {v}",
        "the same for {v}",
    ),
}
_SUPPLY: dict[Lang, tuple[str, ...]] = {
    "zh": ("{v}", "{v}。", "是{v}", "{v}吧", "就{v}", "哦，{v}", "{v}的"),
    "en": ("{v}", "{v}.", "It is {v}.", "it's {v}", "{v} please", "oh, {v}"),
}
_ERRORS = ("timeout", "not found", "服务不可用", "网络错误", "请求超时", "没有结果", "参数错误", "没有权限", "service unavailable", "bad request", "network error", "access denied", "timed out", "invalid key", "no data", "内部错误", "余额不足", "城市不存在", "rate limit exceeded", "connection refused")  # fmt: skip
_RAISED = ("TimeoutError: timed out", "ValueError: bad value", "KeyError: 'data'", "ConnectionError: refused", "RuntimeError: broken", "OSError: no disk", "TypeError: wrong type", "PermissionError: denied", "ValueError: unknown city", "HTTPError: 404", "HTTPError: 500")  # fmt: skip
_SUCCESS: tuple[dict[str, Any], ...] = ({"status": "ok"}, {"success": True}, {"result": "success"})
_NO_TOOL = {"zh": "没有合适的工具来完成这件事。", "en": "None of the tools can do that."}
_VERBS = ("get", "query", "find", "fetch", "check", "search", "do", "run", "call", "use")
_STYLES = ("{v}_{n}", "{v}_{n}", "{n}_{v}", "{v}{N}", "{n}_{a}", "{a}_{n}", "{v}_{n}_{a}", "{n}_tool", "{n}_api", "my_{n}", "{n}_v2")  # fmt: skip


_OTHERWISE = {
    "city_name": "city location place town name region area address cityname target_city",
    "symbol": "stock code ticker stock_code stock_symbol company name share",
    "amount": "value money number quantity sum count",
    "from_currency": "source base from_unit from currency source_currency",
    "to_currency": "target quote to_unit to target_currency",
    "order_id": "id order order_no number order_number orderId",
    "time": "when at datetime moment remind_time date_time",
    "content": "text message task what event note title",
    "expression": "expr formula query input math equation",
    "origin": "start from_city source from start_point departure",
    "destination": "end to_city target to end_point arrival",
    "song": "title name song_name music track keyword",
    "seed": "random_seed start key",
    "range": "limits bounds interval between",
    "topic": "keyword query subject q keywords category about",
    "to": "recipient receiver contact person to_name",
    "text": "content message body words input",
    "name": "person contact contact_name who full_name",
    "title": "book book_title name book_name",
    "language": "lang target_language to_language target to",
    "id": "number no key code identifier",
    "count": "number dice how_many n",
    "sides": "faces side_count max",
    "from_unit": "source unit from source_unit unit_from",
    "to_unit": "target to target_unit unit_to",
    "query": "keyword q text question search_query keywords input",
    "subject": "title topic about headline",
    "room": "place location area room_name",
    "state": "status action switch on_off mode",
    "date": "day when check_in on_date",
}
"""What users call the parameters that the grammar has one name for."""
_OPTIONAL = (
    ("unit", {"type": "string", "enum": ["celsius", "fahrenheit"]}), ("limit", {"type": "integer", "description": "how many at most"}), ("lang", {"type": "string", "description": "language of the answer"}), ("format", {"type": "string", "enum": ["short", "long"]}),
    ("page", {"type": "integer", "description": "页码"}), ("timeout", {"type": "number", "description": "seconds to wait"}), ("verbose", {"type": "boolean", "description": "是否显示详细信息"}), ("days", {"type": "integer", "description": "未来几天"}), ("detail", {"type": "boolean"}), ("top_k", {"type": "integer", "description": "返回的条数"}),
)  # fmt: skip
_BUILT_IN: dict[str, dict[str, Any]] = {
    name: dict(Function.of(function).spec.given) for name, function in EXAMPLES.items()
}
"""The tools that come with the package: what `--tools examples` and the page offer."""
_OF_DOMAIN = {
    "weather": "get_weather",
    "clock": "get_time",
    "calculator": "calculator",
    "units": "convert_unit",
    "random": "random_number_generator",
    "dice": "roll_dice",
}
_SERVED = "天气 冷 热 雨 伞 几点 时间 几号 星期 股 价 钱 翻译 译 怎么说 新闻 消息 订 酒店 提醒 闹钟 音乐 歌 听 短信 邮件 电话 算 多少 距离 多远 公里 换 查 搜 找 灯 日程 会 书 作者 写 weather rain cold time date day stock price cost much translate say news book hotel remind alarm music play song sing message email mail call phone number far distance compute calculate square convert light search find look calendar write wrote author random order know".split()
"""Words of requests that some tool may serve."""


@dataclass(frozen=True)
class _Tool:
    """A tool as offered: its domain, its schema, and what its parameters are called."""

    domain: Domain
    schema: dict[str, Any]
    names: dict[str, str]


def _name(rng: Random, split: Split, domain: Domain, alone: bool) -> str:
    """Usual names are learned, seldom enough that names are read and not said by heart; on the other side of the split
    all names are unseen.
    """
    if split == "train" and domain.names and rng.random() < 0.2:
        return rng.choice(domain.names.split())

    def make() -> str:
        if rng.random() < (0.1 if alone else 0.05):
            return word(rng, 2)
        noun = rng.choice(domain.nouns.split())
        camel = "".join(part.capitalize() for part in noun.split("_"))
        return rng.choice(_STYLES).format(v=rng.choice(_VERBS), n=noun, N=camel, a=word(rng, rng.randint(1, 2)))

    while (name := draw(rng, split, make)) in _USUAL:
        pass
    return name


def _called(rng: Random, name: str) -> str:
    """What a parameter is called: as usual, in other words, or by something that means nothing."""
    luck = rng.random()
    if luck < 0.4:
        return name
    if luck < 0.88:
        return rng.choice(_OTHERWISE[name].split())
    if luck < 0.95:
        return word(rng, 2)
    first, *others = rng.choice((name, *_OTHERWISE[name].split())).split("_")
    return rng.choice(
        (
            first + "".join(part.capitalize() for part in others),
            f"{name}_str",
            f"the_{name}",
            f"input_{name}",
            f"{name}1",
        )
    )


def _built_in(domain: Domain) -> _Tool:
    schema = _BUILT_IN[_OF_DOMAIN[domain.key]]
    return _Tool(domain, schema, dict(zip(domain.slots, schema["parameters"]["properties"], strict=True)))


def _offer(rng: Random, split: Split, lang: Lang, domain: Domain, alone: bool) -> _Tool:
    name = _name(rng, split, domain, alone)
    if domain.key in _OF_DOMAIN and rng.random() < 0.15:
        tool = _built_in(domain)
        return tool if split == "train" else _Tool(domain, {**tool.schema, "name": name}, tool.names)
    if domain.official and rng.random() < 0.15:
        official = {**domain.official, "name": domain.official["name"] if split == "train" else name}
        return _Tool(domain, official, dict(zip(domain.slots, official["parameters"]["properties"], strict=True)))
    english = lang == "en" or rng.random() < 0.12
    for _ in range(20):
        names = {slot: _called(rng, param.name) for slot, param in domain.slots.items()}
        if len(set(names.values())) == len(names):
            break
    else:
        names = {slot: param.name for slot, param in domain.slots.items()}
    # Some say little of their parameters: then their order and names are all there is.
    bare, untyped = rng.random() < 0.18, rng.random() < 0.04
    properties: dict[str, dict[str, Any]] = {}
    for slot, param in domain.slots.items():
        about: dict[str, Any] = {} if untyped else {"type": param.kind}
        if not bare:
            about["description"] = form(rng, split, param.told[english].split("|"))
        if param.kind == "array" and rng.random() < 0.5:
            about["items"] = {"type": "integer"}
        if slot == "state" and rng.random() < 0.5:
            about["enum"] = ["on", "off"]
        properties[names[slot]] = about
    required = [] if domain.key == "dice" else list(properties)
    if rng.random() < 0.12:  # what a call may leave out
        extra, about = rng.choice(_OPTIONAL)
        if extra not in properties:
            properties[extra] = dict(about)
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if rng.random() < 0.93:
        parameters["required"] = required
    schema: dict[str, Any] = {"name": name}
    if not bare or domain.nouns.split()[0] not in name or rng.random() < 0.7:
        schema["description"] = form(rng, split, domain.docs[english].split("|"))
    return _Tool(domain, {**schema, "parameters": parameters}, names)


def _values(rng: Random, split: Split, english: bool, domain: Domain) -> dict[str, Any]:
    """What a request says: all different."""
    if domain.key == "dice":
        return {"count": rng.randint(1, 6), "sides": rng.choice((6, 6, 6, 20, 12, 8, 10, 4))}
    while True:
        values = {slot: param.make(rng, split, english) for slot, param in domain.slots.items()}
        if domain.key == "random":
            del values["range"]
            low, high = NUMBER(rng, split, english), NUMBER(rng, split, english)
            values |= {"low": 1 if rng.random() < 0.4 else min(low, high), "high": max(low, high)}
        if len(set(map(str, values.values()))) == len(values):
            return values


def _arguments(tool: _Tool, values: dict[str, Any]) -> dict[str, Any]:
    if tool.domain.key == "random":
        values = {"seed": values["seed"], "range": [values["low"], values["high"]]}
    return {called: values[slot] for slot, called in tool.names.items() if slot in values}


def _core(rng: Random, split: Split, english: bool, domain: Domain, values: dict[str, Any]) -> tuple[str, Kind]:
    """A request with its slots, and its kind."""
    if domain.key == "dice":
        core = _dice(rng, split, english, values)
    else:
        asks = ways(domain.asks[english])
        more = ways(_MORE_ASKS[domain.key][english]) if domain.key in _MORE_ASKS else []
        if not asks or (more and rng.random() < 0.65):
            asks = more
        core = form(rng, split, asks)
        if domain.key == "light":
            off = ("关", "off")[english]
            core = form(rng, split, [each for each in asks if (off in each) == (values["state"] == "off")])
    kind: Kind = "ask" if core[-1] == "?" else "tail" if core[-1] == "$" else "do"
    core = choose(rng, core.rstrip("?$"))
    if not english and domain.key != "calculator" and rng.random() < 0.08:
        core = re.sub(r"(?<=[^{}\s])(?=\{)|(?<=\})(?=[^{}\s])", lambda found: rng.choice(("", " ")), core)
    return core, kind


_COUNTS = "零一两三四五六"
_COUNTS_EN = "zero one two three four five six".split()


def _dice(rng: Random, split: Split, english: bool, values: dict[str, Any]) -> str:
    """A request for dice; what it does not say is taken out of the values."""
    if rng.random() < 0.6:
        del values["sides"]
    count = values["count"]
    if count == 1 and "sides" not in values and rng.random() < 0.6:
        del values["count"]
        return form(
            rng,
            split,
            ("(roll|throw) (a die|the dice|dice)", "roll (for me|please)")
            if english
            else ("(掷|扔|投|丢)(骰子|色子|一下骰子)", "(玩|来)(一次|)(掷|扔)骰子"),
        )
    said = str(count) if rng.random() < 0.5 else (_COUNTS_EN if english else _COUNTS)[count]
    if english:
        of = "{sides}-sided " if "sides" in values else ""
        return form(rng, split, (f"(roll|throw) {said} {of}(dice|die)", f"(i want to roll|give me) {said} {of}dice"))
    of = "{sides}面(的|)" if "sides" in values else ""
    return form(rng, split, (f"(掷|扔|投|丢)(出|){said}(个|枚|颗|){of}(骰子|色子)", f"来{said}个{of}骰子"))


def _ask(rng: Random, split: Split, lang: Lang, domain: Domain) -> tuple[str, dict[str, Any]]:
    """A request, and the values in it."""
    english = lang == "en"
    values = _values(rng, split, english, domain)
    for _ in range(100):
        asked = dict(values)
        core, kind = _core(rng, split, english, domain, asked)
        text = dress(rng, split, core, english, kind, asked, calm=0.35)
        if held_out(text) == (split == "test"):
            return text, asked
    raise _RetryError


# What comes back

_NOISE: tuple[tuple[str, Any], ...] = (("humidity", 40), ("source", "api"), ("updated", "10:30"), ("code", 200), ("ok", True), ("id", 7), ("unit", "C"), ("message", "success"), ("wind", "微风"), ("lang", "zh"), ("request_id", "a1b2"), ("cached", False), ("version", 2), ("更新时间", "08:00"))  # fmt: skip
_CHINESE_KEYS = {
    "condition": "天气",
    "temperature": "温度",
    "price": "价格",
    "status": "状态",
    "time": "时间",
    "distance_km": "距离",
    "title": "标题",
    "phone": "电话",
    "author": "作者",
    "result": "结果",
}


def _reply(rng: Random, split: Split, english: bool, domain: Domain, values: dict[str, Any]) -> tuple[str, str]:
    """What the tool returns, and the answer that says so."""
    lead = domain.lead[english].format_map({"count": 1, **values})
    colon, stop, comma = (": ", ".", ", ") if english else ("：", "。", "，")
    luck = rng.random()
    if luck < 0.09:
        wrong = "error, " if english else "出错了，"
        if luck < 0.05:
            error = rng.choice(_ERRORS)
            shown = rng.choice(
                (
                    _json({"error": error}),
                    _json({"error": error}),
                    _json({"success": False, "error": error}),
                    _json({"status": "error", "message": error}),
                )
            )
        elif luck < 0.07:
            error = rng.choice(_RAISED)
            shown = f"Error: {error}"
        else:
            error = shown = rng.choice(
                (
                    "it was not used: the user did not permit it.",
                    "Arguments are wrong (a value is missing).",
                    "Tool not found. Please use a provided tool.",
                    "the tool is off for now.",
                    "服务器没有响应。",
                    "调用失败。",
                )
            )
            error = error.rstrip(".。")
        return shown, f"{lead}{colon}{wrong}{error}{stop}"
    if domain.done[0]:
        return rng.choice((_json(rng.choice(_SUCCESS)), _json(rng.choice(_SUCCESS)), "ok", "done", "成功", "True", "null")), f"{lead}{colon}{domain.done[english]}{stop}"  # fmt: skip
    joint = domain.joint or colon
    first = rng.randrange(len(domain.fields))
    chosen = domain.fields if rng.random() < 0.6 else domain.fields[first : first + 1]
    result: dict[str, Any] = {}
    said = []
    for one in chosen:
        value = one.make(rng, split, english if rng.random() < 0.9 else not english)
        if domain.key == "calculator":
            value = _value_of(values["expression"])
        elif domain.key == "random":
            value = rng.randint(values["low"], values["high"] - 1)
        elif domain.key == "dice":
            value = rng.randint(values.get("count", 1), values.get("count", 1) * values.get("sides", 6))
        key = rng.choice(one.keys.split())
        if not english and rng.random() < 0.05:
            key = _CHINESE_KEYS.get(key, key)
        result[key] = value
        said.append(one.said[english].format(v=value))
    text = comma.join(said)
    answer = f"{lead}{joint}{text}{stop}"
    if luck < 0.17:  # not every tool returns JSON
        return rng.choice(
            (text, text, "\n".join(f"{key}: {told}" for key, told in result.items()), text + stop)
        ), answer
    return _shaped(rng, result, values), answer


def _shaped(rng: Random, result: dict[str, Any], values: dict[str, Any]) -> str:
    """A result as JSON of any shape."""
    luck = rng.random()
    if luck < 0.55:
        return _json(result)
    items = list(result.items())
    if luck < 0.85:
        for _ in range(rng.randint(1, 2)):
            items.insert(rng.choice((0, len(items))), rng.choice(_NOISE))
        if rng.random() < 0.4:
            items.insert(0, ("query", next(iter(values.values()), "")))
        result = dict(items) | result
    if luck > 0.7:
        outer = rng.choice(("data", "result", "response", "output", "数据"))
        result = {outer: result} if rng.random() < 0.6 else {"code": 0, outer: result}
        if rng.random() < 0.3:
            return _json([result])
    return json.dumps(result, ensure_ascii=False, indent=2) if rng.random() < 0.08 else _json(result)


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False)


def _run(rng: Random, split: Split, lang: Lang, tool: _Tool, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Call, observation, answer."""
    result, answer = _reply(rng, split, lang == "en", tool.domain, values)
    return [call(tool.schema["name"], _arguments(tool, values)), observation(result), assistant(answer)]


def _domain(rng: Random, split: Split) -> Domain:
    return _look_up(rng, split) if rng.random() < 0.07 else rng.choices(DOMAINS, _WEIGHTS)[0]


def _fits(domain: Domain, others: list[Domain]) -> bool:
    """Whether none of the others could be taken for it."""
    return domain.key not in [other.key for other in others]


def sample(rng: Random, split: Split) -> Sample:
    return persistently(lambda: _sample(rng, split), _RetryError)


def _sample(rng: Random, split: Split) -> Sample:
    lang: Lang = "zh" if rng.random() < 0.62 else "en"
    if rng.random() < 0.15 and split == "train":  # all that the package has, as it has them
        tools = [_built_in(DOMAIN_OF[key]) for key in ("calculator", "clock", "units", "random", "dice", "weather")]
        if rng.random() < 0.3:
            tools = rng.sample(tools, rng.randint(1, 5))
        schemas = [tool.schema for tool in tools]
        rng.shuffle(tools)
    else:
        # Of several the right one has to be found, which is the hardest: it is learned from more.
        weights = (24, 28, 17, 11, 8, 6, 3, 3) if split == "train" else (30, 28, 16, 10, 6, 5, 3, 2)
        count = rng.choices(range(1, 9), weights)[0]
        domains: list[Domain] = []
        while len(domains) < count:
            if _fits(domain := _domain(rng, split), domains):
                domains.append(domain)
        tools = [_offer(rng, split, lang, domain, alone=count == 1) for domain in domains]
        schemas = [tool.schema for tool in tools]
        if len({schema["name"] for schema in schemas}) < count:
            raise _RetryError
        rng.shuffle(schemas)
    first, fate = tools[0], rng.random()
    if fate < 0.08:
        messages = _chat(rng, split, lang)
    elif fate < 0.17:
        messages = [user(_unserved(rng, split, lang, tools)), assistant(_NO_TOOL[lang])]
    elif fate < 0.27 and first.domain.bare[0]:
        messages = _missing(rng, split, lang, first)
    elif fate < 0.4:
        messages = _twice(rng, split, lang, tools)
    else:
        messages = _request(rng, split, lang, tools)
        if rng.random() < 0.06:
            messages = _without_calls(messages)
    return Sample("tools", messages, schemas)


def _without_calls(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With results that nothing has called for, as some clients send them back."""
    return [message for message in messages if not message.get("tool_calls")]


def titled(rng: Random, split: Split) -> Sample:
    """As `sample`, with schemas as pydantic and OpenAI's Agents SDK write them: titles, which are not names."""
    made = sample(rng, split)
    return replace(made, tools=[_with_titles(rng, tool) if rng.random() < 0.8 else tool for tool in made.tools])


def _with_titles(rng: Random, tool: dict[str, Any]) -> dict[str, Any]:
    name, given = tool["name"], tool["parameters"]
    camel = "".join(part.capitalize() for part in name.split("_"))
    title = rng.choice((f"{name}_args", f"{name}_args", f"{name}_schema", f"{camel}Args", f"{camel}Input", camel, name))
    properties = {}
    for called, schema in given.get("properties", {}).items():
        told = {**schema, "title": called.replace("_", " ").title()} if isinstance(schema, dict) else schema
        properties[called] = dict(sorted(told.items())) if rng.random() < 0.5 else told
    parameters = {**given, "properties": properties, "title": title}
    if rng.random() < 0.5:
        parameters["additionalProperties"] = False
    if rng.random() < 0.5:
        order = ("properties", "required", "title", "type", "additionalProperties")
        parameters = {key: parameters[key] for key in order if key in parameters}
    return {**tool, "parameters": parameters}


def results(rng: Random, split: Split) -> Sample:
    """A calculator whose results are long, or have the same digit twice in a row: what is hard to copy."""
    return persistently(lambda: _results(rng, split), _RetryError)


def _results(rng: Random, split: Split) -> Sample:
    lang: Lang = "zh" if rng.random() < 0.62 else "en"
    domains = [DOMAIN_OF["calculator"]]
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        if _fits(domain := _domain(rng, split), domains):
            domains.append(domain)
    plain = rng.random() < 0.4
    tools = [
        _built_in(domain)
        if plain and domain.key in _OF_DOMAIN
        else _offer(rng, split, lang, domain, alone=len(domains) == 1)
        for domain in domains
    ]
    schemas = [tool.schema for tool in tools]
    if len({schema["name"] for schema in schemas}) < len(schemas):
        raise _RetryError
    rng.shuffle(schemas)
    messages = []
    for _ in range(rng.choice((1, 1, 2))):
        for _ in range(20):
            asked, values = _ask(rng, split, lang, tools[0].domain)
            value = str(abs(_value_of(values["expression"])))
            if len(value) > 3 and (re.search(r"(\d)\1", value) or rng.random() < 0.2):
                break
        messages += [user(asked), *_run(rng, split, lang, tools[0], values)]
    return Sample("tools", _without_calls(messages) if rng.random() < 0.06 else messages, schemas)


def _unserved(rng: Random, split: Split, lang: Lang, tools: list[_Tool]) -> str:
    """A request that none of the tools is for: another tool's, or one beyond all."""
    domains = [tool.domain for tool in tools]
    if rng.random() < 0.55:
        unserved = _domain(rng, split)
        # A search for documents takes any question.
        if not _fits(unserved, domains) or "knowledge" in (unserved.key, *(domain.key for domain in domains)):
            raise _RetryError
        return _ask(rng, split, lang, unserved)[0]
    core, kind = beyond.request(rng, split, lang == "en")
    if any(served in core.lower() for served in _SERVED) or "knowledge" in [domain.key for domain in domains]:
        raise _RetryError
    text = dress(rng, split, core, lang == "en", kind)
    if held_out(text) != (split == "test"):
        raise _RetryError
    return text


def _chat(rng: Random, split: Split, lang: Lang) -> list[dict[str, Any]]:
    subjects = GREETINGS if rng.random() < 0.7 else {"name": IDENTITY["name"]}
    said, answer = ask(rng, split, subjects, lang == "en")
    return [user(said), assistant(answer)]


def _missing(rng: Random, split: Split, lang: Lang, tool: _Tool) -> list[dict[str, Any]]:
    """A request that lacks its argument, the question for it, and mostly the argument and the call."""
    domain, english = tool.domain, lang == "en"
    cores = domain.bare[english].split("|")
    for _ in range(50):
        core = form(rng, split, cores)
        text = dress(rng, split, core.rstrip("?"), english, "ask" if core[-1] == "?" else "do")
        if held_out(text) == (split == "test"):
            break
    else:
        raise _RetryError
    messages = [user(text), assistant(domain.missing[english])]
    if rng.random() < 0.65:
        values = _values(rng, split, english, domain)
        (value,) = values.values()
        messages += [user(form(rng, split, _SUPPLY[lang]).format(v=value)), *_run(rng, split, lang, tool, values)]
    return messages


def _twice(rng: Random, split: Split, lang: Lang, tools: list[_Tool]) -> list[dict[str, Any]]:
    """One request that takes two calls, one after the other: of one tool, or of two."""
    english = lang == "en"
    gap = " " if english else ""
    one = tools[0]
    same = [tool for tool in tools if tool.domain.follows]
    if same and rng.random() < 0.6:
        one = other = same[0]
        (slot,) = one.domain.slots
        made = [_values(rng, split, english, one.domain)[slot] for _ in range(2)]
        if made[0] == made[1]:
            raise _RetryError
        joint = rng.choice((" and ", " and ", ", ")) if english else rng.choice(("和", "和", "跟", "、", "与", "还有"))
        core, kind = _core(rng, split, english, one.domain, {})
        if not english:
            core = core.replace("怎么样", rng.choice(("怎么样", "分别怎么样", "各怎么样")))
        text = dress(rng, split, core, english, kind, {slot: joint.join(map(str, made))})
        told = [{slot: value} for value in made]
    else:
        if len(tools) < 2:
            raise _RetryError
        other = tools[1]
        told, parts = [], []
        for tool in (one, other):
            values = _values(rng, split, english, tool.domain)
            core, kind = _core(rng, split, english, tool.domain, values)
            if kind == "tail" and tool is one:
                raise _RetryError
            told.append(values)
            parts.append(core.format_map(values))
        between = rng.choice(
            (", and ", " and then ", ". ", ", also ", " and ")
            if english
            else ("，再", "，然后", "，还有", "。", "，", "，顺便", "，接着", "，并且")
        )
        text = parts[0] + between + parts[1] + rng.choice(("", ".", "?") if english else ("", "。", "？"))
        if set(map(str, told[0].values())) & set(map(str, told[1].values())):
            raise _RetryError
    if held_out(text) != (split == "test"):
        raise _RetryError
    messages = [user(text)]
    answers = []
    for tool, values in zip((one, other), told, strict=True):
        result, answer = _reply(rng, split, english, tool.domain, values)
        messages += [call(tool.schema["name"], _arguments(tool, values)), observation(result)]
        answers.append(answer)
    return [*messages, assistant(gap.join(answers))]


def _request(rng: Random, split: Split, lang: Lang, tools: list[_Tool]) -> list[dict[str, Any]]:
    tool = tools[0]
    text, values = _ask(rng, split, lang, tool.domain)
    messages = [user(text), *_run(rng, split, lang, tool, values)]
    fate = rng.random()
    if fate < 0.1 and tool.domain.follows:
        again = _values(rng, split, lang == "en", tool.domain)
        if again != values:
            (value,) = again.values()
            messages += [user(form(rng, split, _FOLLOW[lang]).format(v=value)), *_run(rng, split, lang, tool, again)]
    elif fate < 0.2:
        said, answer = ask(rng, split, {"thanks": GREETINGS["thanks"]}, lang == "en")
        messages += [user(said), assistant(answer)]
    elif fate < (0.3 if len(tools) == 1 else 0.9 if split == "train" else 0.7):
        others = [rng.choice(tools) for _ in range(rng.choice((1, 1, 2)))]
        if split == "train":  # which of them it is has to be found for each once; then it stands there
            others = rng.sample(tools[1:], min(len(tools) - 1, 3)) or others
        for other in others:
            text, values = _ask(rng, split, lang, other.domain)
            messages += [user(text), *_run(rng, split, lang, other, values)]
    return messages
