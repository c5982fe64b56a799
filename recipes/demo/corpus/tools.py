"""Tool calls: one of the tools on offer, arguments copied from the user's words, an answer copied from the observation.

An answer says again what was asked, in the question's words, and only then differs: by the values that the tool
returned, or by its error.
"""

# ruff: noqa: SIM905
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from . import base
from .base import Sample, Split, assistant, call, draw, held_out, known, observation, persistently, user
from .chat import GREETINGS, ask
from .vocabulary import ANIMALS, ANIMALS_EN, BOOKS, FOODS, FOODS_EN, NOUNS_EN, THINGS, THINGS_EN, word

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
    return f"{first} {rng.choice(NOUNS_EN).capitalize()}"


PLACE: Make = lambda rng, split, english: (base.town if english else base.city)(rng, split)  # noqa: E731
PERSON: Make = lambda rng, split, english: (base.first_name if english else base.person)(rng, split)  # noqa: E731
ID = _open(_an_id)
NUMBER = _open(lambda rng: rng.randint(2, 999))
TIME = _open(_a_time)
WHEN = _open(
    lambda rng: (
        _a_time(rng)
        if rng.random() < 0.5
        else f"{rng.choice(_PARTS)}{rng.randint(1, 12)}点{rng.choice(('', '', '半'))}"
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
)  # fmt: skip
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


# How a request is dressed: {c} is its core, {C} the same with a capital.

_FRAMES: dict[tuple[Lang, str], tuple[str, ...]] = {
    ("zh", "do"): ("{c}", "{c}。", "帮我{c}", "帮我{c}。", "请{c}。", "请帮我{c}。", "麻烦{c}。", "你好，{c}。"),
    ("zh", "ask"): ("{c}？", "{c}？", "{c}", "{c}?", "请问{c}？", "你好，{c}？", "我想知道{c}。"),
    ("zh", "tail"): ("{c}", "{c}", "请{c}", "麻烦{c}", "你好，{c}"),
    ("en", "do"): ("{C}.", "{c}", "{C}", "Please {c}.", "Can you {c}?", "Could you {c}?"),
    ("en", "ask"): ("{C}?", "{C}?", "{c}", "{c}?", "Hi, {c}?", "Please tell me, {c}?"),
    ("en", "tail"): ("{C}", "{c}", "Please {c}", "Hi, {c}"),
}
_FOLLOW: dict[Lang, tuple[str, ...]] = {
    "zh": ("那{v}呢？", "{v}呢？", "那{v}呢", "{v}呢", "再查一下{v}"),
    "en": ("And {v}?", "What about {v}?", "what about {v}", "How about {v}?"),
}
_SUPPLY: dict[Lang, tuple[str, ...]] = {"zh": ("{v}", "{v}。", "是{v}"), "en": ("{v}", "{v}.", "It is {v}.")}
_ERRORS = ("timeout", "not found", "服务不可用", "网络错误", "请求超时", "没有结果", "参数错误", "没有权限", "service unavailable", "bad request", "network error", "access denied")  # fmt: skip
_SUCCESS: tuple[dict[str, Any], ...] = ({"status": "ok"}, {"success": True}, {"result": "success"})
_NO_TOOL = {"zh": "没有合适的工具来完成这件事。", "en": "None of the tools can do that."}
_VERBS = ("get", "query", "find", "fetch", "check", "search", "do", "run", "call", "use")
_STYLES = ("{v}_{n}", "{v}_{n}", "{n}_{v}", "{v}{N}", "{n}_{a}", "{a}_{n}", "{v}_{n}_{a}", "{n}_tool", "{n}_api", "my_{n}", "{n}_v2")  # fmt: skip


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
    if split == "train" and domain.names and rng.random() < 0.1:
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


def _offer(rng: Random, split: Split, lang: Lang, domain: Domain, alone: bool) -> _Tool:
    name = _name(rng, split, domain, alone)
    if domain.official and rng.random() < 0.2:
        official = {**domain.official, "name": domain.official["name"] if split == "train" else name}
        return _Tool(domain, official, dict(zip(domain.slots, official["parameters"]["properties"], strict=True)))
    english = lang == "en" or rng.random() < 0.08
    names = {slot: param.name for slot, param in domain.slots.items()}
    properties = {
        names[slot]: {"type": param.kind, "description": rng.choice(param.told[english].split("|"))}
        for slot, param in domain.slots.items()
    }
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    doc = rng.choice(domain.docs[english].split("|"))
    return _Tool(domain, {"name": name, "description": doc, "parameters": parameters}, names)


def _values(rng: Random, split: Split, english: bool, domain: Domain) -> dict[str, Any]:
    """What a request says: all different."""
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
    return {called: values[slot] for slot, called in tool.names.items()}


def _dressed(rng: Random, split: Split, lang: Lang, make: Callable[[], str]) -> str:
    """A request in a frame, on its side of the split."""
    for _ in range(100):
        core = make()
        kind = {"?": "ask", "$": "tail"}.get(core[-1], "do")
        core = core.rstrip("?$")
        text = rng.choice(_FRAMES[lang, kind]).format(c=core, C=core[0].upper() + core[1:])
        if held_out(text) == (split == "test"):
            return text
    raise _RetryError


def _ask(rng: Random, split: Split, lang: Lang, domain: Domain) -> tuple[str, dict[str, Any]]:
    """A request, and the values in it."""
    values = _values(rng, split, lang == "en", domain)
    cores = domain.asks[lang == "en"].split("|")
    return _dressed(rng, split, lang, lambda: rng.choice(cores).format_map(values)), values


def _reply(rng: Random, split: Split, english: bool, domain: Domain, values: dict[str, Any]) -> tuple[str, str]:
    """What the tool returns, and the answer that says so."""
    lead = domain.lead[english].format_map(values)
    colon, stop, comma = (": ", ".", ", ") if english else ("：", "。", "，")
    luck = rng.random()
    if luck < 0.05:
        error = rng.choice(_ERRORS)
        return _json({"error": error}), f"{lead}{colon}{'error, ' if english else '出错了，'}{error}{stop}"
    if domain.done[0]:
        return _json(rng.choice(_SUCCESS)), f"{lead}{colon}{domain.done[english]}{stop}"
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
        result[rng.choice(one.keys.split())] = value
        said.append(one.said[english].format(v=value))
    text = comma.join(said)
    if luck < 0.12:  # not every tool returns JSON
        return text, f"{lead}{joint}{text}{stop}"
    return _json(result), f"{lead}{joint}{text}{stop}"


def _json(data: dict[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False)


def _run(rng: Random, split: Split, lang: Lang, tool: _Tool, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Call, observation, answer."""
    result, answer = _reply(rng, split, lang == "en", tool.domain, values)
    return [call(tool.schema["name"], _arguments(tool, values)), observation(result), assistant(answer)]


def _domain(rng: Random, split: Split) -> Domain:
    return _look_up(rng, split) if rng.random() < 0.08 else rng.choices(DOMAINS, _WEIGHTS)[0]


def _fits(domain: Domain, others: list[Domain]) -> bool:
    """Whether none of the others could be taken for it."""
    return domain.key not in [other.key for other in others]


def sample(rng: Random, split: Split) -> Sample:
    return persistently(lambda: _sample(rng, split), _RetryError)


_OTHERWISE = {
    "city_name": "city location place town", "symbol": "stock code ticker stock_code", "amount": "value money number",
    "from_currency": "source base from_unit", "to_currency": "target quote to_unit", "order_id": "id order order_no number",
    "time": "when at datetime", "content": "text message task", "expression": "expr formula query", "origin": "start from_city source",
    "destination": "end to_city target", "song": "title name song_name", "seed": "random_seed start", "range": "limits bounds",
    "topic": "keyword query subject", "to": "recipient receiver contact", "text": "content message body", "name": "person contact contact_name",
    "title": "book book_title name", "language": "lang target_language to_language", "id": "number no key",
}  # fmt: skip
"""What users call the parameters that the grammar has one name for."""


def otherwise_named(rng: Random, split: Split) -> Sample:
    """A sample whose tools have other parameters than usual; now and then names that mean nothing."""
    made = sample(rng, split)
    names: dict[str, dict[str, str]] = {}
    tools = []
    for schema in made.tools:
        own: dict[str, str] = {}
        for name in schema["parameters"]["properties"]:
            own[name] = name
            if rng.random() < 0.75:
                own[name] = word(rng, 2) if rng.random() < 0.15 else rng.choice(_OTHERWISE[name].split())
        if len(set(own.values())) < len(own):
            own = {name: name for name in own}
        names[schema["name"]] = own
        told = schema["parameters"]
        properties = {own[name]: about for name, about in told["properties"].items()}
        parameters = {**told, "properties": properties, "required": [own[name] for name in told["required"]]}
        tools.append({**schema, "parameters": parameters})
    messages = [
        {**message, "tool_calls": [_renamed(call, names) for call in message["tool_calls"]]}
        if "tool_calls" in message
        else message
        for message in made.messages
    ]
    return Sample("tools", messages, tools)


def _renamed(made: dict[str, Any], names: dict[str, dict[str, str]]) -> dict[str, Any]:
    own = names[made["name"]]
    return {**made, "arguments": {own[name]: value for name, value in made["arguments"].items()}}


def _sample(rng: Random, split: Split) -> Sample:
    lang: Lang = "zh" if rng.random() < 0.62 else "en"
    # Of several the right one has to be found, which is the hardest: it is learned from more.
    count = rng.choices((1, 2, 3), (35, 50, 15) if split == "train" else (50, 43, 7))[0]
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
    if fate < 0.1:
        messages = _chat(rng, split, lang)
    elif fate < 0.18:
        unserved = _domain(rng, split)
        if not _fits(unserved, domains):
            raise _RetryError
        messages = [user(_ask(rng, split, lang, unserved)[0]), assistant(_NO_TOOL[lang])]
    elif fate < 0.3 and first.domain.bare[0]:
        messages = _missing(rng, split, lang, first)
    else:
        messages = _request(rng, split, lang, tools)
    return Sample("tools", messages, schemas)


def _chat(rng: Random, split: Split, lang: Lang) -> list[dict[str, Any]]:
    said, answer = ask(rng, split, GREETINGS, lang == "en")
    return [user(said), assistant(answer)]


def _missing(rng: Random, split: Split, lang: Lang, tool: _Tool) -> list[dict[str, Any]]:
    """A request that lacks its argument, the question for it, and mostly the argument and the call."""
    domain, english = tool.domain, lang == "en"
    cores = domain.bare[english].split("|")
    messages = [
        user(_dressed(rng, split, lang, lambda: rng.choice(cores))),
        assistant(domain.missing[english]),
    ]
    if rng.random() < 0.65:
        values = _values(rng, split, english, domain)
        (value,) = values.values()
        messages += [user(rng.choice(_SUPPLY[lang]).format(v=value)), *_run(rng, split, lang, tool, values)]
    return messages


def _request(rng: Random, split: Split, lang: Lang, tools: list[_Tool]) -> list[dict[str, Any]]:
    tool = tools[0]
    text, values = _ask(rng, split, lang, tool.domain)
    messages = [user(text), *_run(rng, split, lang, tool, values)]
    fate = rng.random()
    if fate < 0.1 and tool.domain.follows:
        again = _values(rng, split, lang == "en", tool.domain)
        if again != values:
            (value,) = again.values()
            messages += [user(rng.choice(_FOLLOW[lang]).format(v=value)), *_run(rng, split, lang, tool, again)]
    elif fate < 0.2:
        said, answer = ask(rng, split, {"thanks": GREETINGS["thanks"]}, lang == "en")
        messages += [user(said), assistant(answer)]
    elif fate < (0.3 if len(tools) == 1 else 0.9 if split == "train" else 0.7):
        others = [rng.choice(tools) for _ in range(rng.choice((1, 1, 2)))]
        if split == "train":  # which of them it is has to be found for each once; then it stands there
            others = [*tools[1:], *others[: 2 - len(tools[1:])]]
        for other in others:
            text, values = _ask(rng, split, lang, other.domain)
            messages += [user(text), *_run(rng, split, lang, other, values)]
    return messages
