"""Tool calls: one of the tools on offer, arguments from the user's words, an answer from the observation."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Literal, NamedTuple

from . import base
from .base import Sample, Split, assistant, call, draw, held_out, nonsense, observation, user

Lang = Literal["zh", "en"]
Make = Callable[[Random, Split, Lang], Any]


class _RetryError(Exception):
    """These choices have no sentence on this side of the split."""


# Values. `_open` ones obey the split; a closed vocabulary (units, weekdays …) does not, it is too small for that.


def _open(zh: Callable[[Random], Any], en: Callable[[Random], Any]) -> Make:
    def make(rng: Random, split: Split, lang: Lang) -> Any:
        return draw(rng, split, lambda: zh(rng) if lang == "zh" else en(rng))

    return make


def _same(make: Callable[[Random], Any]) -> Make:
    return _open(make, make)


def _closed(zh: str, en: str) -> Make:
    words = {"zh": zh.split("|"), "en": en.split("|")}
    return lambda rng, split, lang: rng.choice(words[lang])


def _either(often: Make, other: Make, share: float = 0.5) -> Make:
    return lambda rng, split, lang: (often if rng.random() < share else other)(rng, split, lang)


def _number(low: int, high: int) -> Make:
    return _same(lambda rng: rng.randint(low, high))


def _decimal(low: float, high: float, digits: int) -> Make:
    return _same(lambda rng: round(rng.uniform(low, high), digits))


def _mixed(zh: str, en: str, strange: float = 0.2) -> Make:
    """One of a list, or nonsense. A `*` in the list's text separates parts that are combined freely."""
    parts = {"zh": [part.split("|") for part in zh.split("*")], "en": [part.split("|") for part in en.split("*")]}

    def chinese(rng: Random) -> str:
        if rng.random() < strange:
            return nonsense(rng)
        return "".join([rng.choice(words) for words in parts["zh"]])

    def english(rng: Random) -> str:
        if rng.random() < strange:
            return _words(rng)
        return " ".join([rng.choice(words) for words in parts["en"]])

    return _open(chinese, english)


def _words(rng: Random) -> str:
    made = base.word(rng, rng.randint(2, 3))
    return made.capitalize() if rng.random() < 0.5 else made


def _digits(rng: Random, length: int) -> str:
    return "".join(rng.choices("0123456789", k=length))


def _letters(rng: Random, length: int) -> str:
    return "".join(rng.choices("ABCDEFGHJKLMNPQRSTUVWXYZ", k=length))


def _an_id(rng: Random) -> str:
    kind = rng.randrange(4)
    if kind == 0:
        return _digits(rng, rng.randint(5, 9))
    if kind == 1:
        return _letters(rng, 2) + _digits(rng, rng.randint(4, 7))
    if kind == 2:
        return f"{_letters(rng, 1)}-{_digits(rng, rng.randint(3, 5))}"
    return f"{_letters(rng, 2)}{_digits(rng, 3)}{_letters(rng, 1)}{_digits(rng, 2)}"


def _an_expression(rng: Random) -> str:
    space = rng.choice(("", "", " "))
    count = rng.choice((2, 2, 2, 3))
    numbers = [str(rng.randint(2, rng.choice((99, 999, 9999)))) for _ in range(count)]
    text = numbers[0]
    for number in numbers[1:]:
        text += f"{space}{rng.choice('+-*')}{space}{number}"
    return text


def _value_of(expression: str) -> int:
    """Of sums and differences of products, as `_an_expression` makes them."""
    total, sign, product = 0, 1, 1
    for token in re.findall(r"\d+|[+\-*]", expression):
        if token in "+-":
            total, sign, product = total + sign * product, 1 if token == "+" else -1, 1
        elif token != "*":
            product *= int(token)
    return total + sign * product


PLACE = _open(
    lambda rng: rng.choice(base.CITIES) if rng.random() < 0.82 else nonsense(rng, rng.choice((2, 2, 3))),
    lambda rng: rng.choice(base.TOWNS) if rng.random() < 0.7 else base.word(rng, rng.randint(2, 3)).capitalize(),
)
PERSON: Make = lambda rng, split, lang: (base.person if lang == "zh" else base.first_name)(rng, split)  # noqa: E731
PHONE = _open(
    lambda rng: f"1{rng.randint(3, 9)}{_digits(rng, 9)}",
    lambda rng: f"{rng.randint(200, 999)}-{_digits(rng, 4)}",
)
ID = _same(_an_id)
CLOCK = _same(lambda rng: f"{rng.randint(0, 23)}:{rng.randint(0, 59):02d}")
STAMP = _open(
    lambda rng: f"{rng.randint(1, 12)}月{rng.randint(1, 28)}日",
    lambda rng: f"2024-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}",
)
PAST = _either(_closed("今天|昨天|前天|上周一|上周五", "today|yesterday|last Monday|last Friday"), STAMP)
DAY = _either(
    _closed("今天|明天|后天|大后天|周一|周五|周六|周日|下周三", "today|tomorrow|Monday|Friday|Sunday|next Tuesday"),
    STAMP,
)
TITLE = _mixed(
    "蓝色|银色|沉默|遥远|最后|温柔|夏天|雨中|山里|午夜|故乡|时间|孤独|星空|海边|老街*的*旅人|火车|来信|歌|灯塔|小岛|秘密|影子|河流|花园|约定|钟声|风筝|朋友",
    "Silver|Blue|Quiet|Distant|Last|Golden|Summer|Broken|Midnight|Lonely|Hidden|Winter*River|Train|Letter|Garden|Island|Song|Shadow|Harbor|Bridge|Stranger|Road|Lantern",
)
DISH = _mixed(
    "红烧|清蒸|糖醋|麻辣|爆炒|酸菜|葱油|香煎|干锅|凉拌|蒜蓉|番茄*牛肉|豆腐|茄子|排骨|鲈鱼|土豆|鸡翅|白菜|虾仁|面条|蘑菇|鸡蛋|米粉",
    "fried|baked|spicy|grilled|creamy|steamed|garlic|lemon|roasted|sweet*rice|chicken|noodles|salmon|potatoes|tofu|beef|soup|pasta|shrimp|eggplant",
)
COMPANY = _mixed(
    "云海|星河|远山|金石|天成|华光|大洋|东方|绿源|飞鸟|长风|明月|新创|万众*科技|电子|银行|汽车|能源|食品|医药|传媒|地产|钢铁",
    "Blue|North|Silver|Apex|Nova|Green|Iron|Solar|Delta|Pioneer*Tech|Motors|Energy|Foods|Media|Bank|Labs|Steel|Pharma",
    0.25,
)
TOPIC = _mixed(
    "人工智能|新能源|太空|量子|海洋|足球|围棋|中医|电影|音乐|古建筑|机器人|宠物|咖啡|登山|芯片*历史|新闻|技术|比赛|入门|价格|展览|教程|市场|研究",
    "space|solar|quantum|ocean|football|chess|movie|music|robot|coffee|climbing|chip|garden|history*news|history|basics|prices|research|market|events|tips|reviews|rules",
)
ROOM = _mixed(
    "客厅|卧室|主卧|次卧|厨房|书房|阳台|餐厅|卫生间|走廊|车库|儿童房|会议室|办公室|门厅|地下室|阁楼|大厅|仓库|客房",
    "kitchen|bedroom|living room|office|garage|hallway|bathroom|study|balcony|basement|attic|dining room|lobby|guest room|meeting room",
)
TEXT = _mixed(
    "我|今晚我|明天我|周末我|等会儿我|下午我*晚点到|不去了|请你吃饭|来接你|会带伞|在家等你|要加班|去看电影|买菜做饭|把书还你|准时参加|在门口等你|请假一天",
    "I will|we will|maybe I will|tonight I will|tomorrow I will*be late|call you back|stay at home|bring the tickets|cook dinner|wait outside|send the report|take the bus|be there at noon|buy some milk",
    0.12,
)
TASK = _mixed(
    "去|记得|准备|抓紧|按时*交电费|买牛奶|开家长会|取快递|还信用卡|浇花|写周报|吃药|打电话给妈妈|洗车|订蛋糕|体检|健身|遛狗|买机票",
    "pay|check|prepare|bring|send|renew|collect*the rent|the report|the tickets|the keys|the laundry|the slides|the contract|the passport|the parcel|the books",
    0.15,
)
GOODS = _mixed(
    "黑色|白色|大号|小号|新款|儿童|无线|折叠*雨伞|水杯|耳机|背包|台灯|键盘|书架|运动鞋|帽子|毛巾|椅子|风扇",
    "red|black|large|small|wireless|folding|wooden*umbrella|mug|headset|backpack|lamp|keyboard|shelf|chair|hat|fan|blanket",
)
WORD = _open(
    lambda rng: nonsense(rng, rng.choice((2, 2, 4))) if rng.random() < 0.4 else base.word(rng, rng.randint(1, 3)),
    lambda rng: base.word(rng, rng.randint(1, 3)),
)
LANGUAGE = _closed("英语|日语|法语|德语|韩语|俄语|西班牙语", "Chinese|French|German|Japanese|Spanish|Italian|Korean")
CURRENCY = _closed("美元|欧元|日元|英镑|港币|人民币|韩元|泰铢", "USD|EUR|JPY|GBP|HKD|CNY|KRW|THB|AUD|CAD")
FILE = _same(lambda rng: f"{base.word(rng, 2)}{rng.choice(('', '_v2', str(rng.randint(1, 99))))}.{rng.choice(('txt', 'csv', 'pdf', 'docx', 'py', 'log'))}")  # fmt: skip
EMAIL = _same(lambda rng: f"{base.word(rng, 2)}@{base.word(rng, 2)}.{rng.choice(('com', 'cn', 'org', 'net'))}")
EXPRESSION = _same(_an_expression)
AMOUNT = _either(_number(5, 9999), _decimal(0.5, 500, 2), 0.85)
PRICE = _decimal(3, 900, 2)
SKY = _closed("晴|多云|阴|小雨|大雨|雷阵雨|小雪|大雾", "sunny|cloudy|overcast|light rain|heavy rain|snow|fog|windy")
FLIGHT = _same(lambda rng: _letters(rng, 2) + _digits(rng, rng.choice((3, 4))))
TRAIN = _same(lambda rng: rng.choice("GDKTZ") + _digits(rng, rng.choice((2, 3, 4))))


class P(NamedTuple):
    """A parameter: names, descriptions in both languages, what makes values, its JSON type.

    An enum lists its values for both languages. A boolean has the words that users say for true and false, and those
    that answers say.
    """

    names: str
    zh: str
    en: str
    make: Make | None = None
    kind: str = "string"
    optional: bool = False
    enum: tuple[str, str] | None = None
    says: tuple[tuple[str, str], tuple[str, str]] | None = None
    said: tuple[tuple[str, str], tuple[str, str]] | None = None


class F(NamedTuple):
    """A field of an observation: its keys, what makes values, how an answer says it."""

    keys: str
    make: Make
    zh: str
    en: str


class Core(NamedTuple):
    text: str
    slots: frozenset[str]
    kind: Literal["do", "ask", "tail"]


def _core(text: str) -> Core:
    """`…?` is a question, `…$` ends with a value that runs to the end of the message, others ask to do something."""
    kind: Literal["do", "ask", "tail"] = "ask" if text[-1] == "?" else "tail" if text[-1] == "$" else "do"
    return Core(text.rstrip("?$"), frozenset(re.findall(r"\{(\w+)\}", text)), kind)


class Domain:
    """What a kind of tool is called, takes and returns, and what users say who want it.

    Sentences and descriptions are lists separated by "|". `lead` begins an answer that reads fields off the
    observation; `done` acknowledges an action; of several, the first one counts whose slots are all given.
    """

    def __init__(
        self,
        key: str,
        names: tuple[str, str],
        docs: tuple[str, str],
        params: dict[str, P],
        says: tuple[str, str],
        bare: tuple[str, str] = ("", ""),
        lead: tuple[str, str] | None = None,
        done: tuple[str, str] | None = None,
        fields: Sequence[F] = (),
        clash: str = "",
        follow: bool = False,
    ) -> None:
        self.key, self.params, self.fields, self.follow = key, params, fields, follow
        self.clash = clash or key
        self.verbs, self.nouns = names[0].split(), names[1].split()
        self.docs = _by_language(docs)
        self.required = frozenset(name for name, param in params.items() if not param.optional)
        self.cores = {lang: [_core(text) for text in texts] for lang, texts in _by_language(says).items()}
        self.bare = {lang: [_core(text) for text in texts if text] for lang, texts in _by_language(bare).items()}
        self.is_action = done is not None
        answers = done or lead or ("", "")
        self.answers = {lang: [_core(text) for text in texts] for lang, texts in _by_language(answers).items()}


def _by_language(pair: tuple[str, str]) -> dict[str, list[str]]:
    return {"zh": pair[0].split("|"), "en": pair[1].split("|")}


ON = P("on state power is_on turn_on", "是否打开", "whether to switch it on", kind="boolean",
       says=(("打开|开一下|开启", "关掉|关闭|关上"), ("turn on|switch on", "turn off|switch off")),
       said=(("打开", "关闭"), ("on", "off")))  # fmt: skip


def _place(
    names: str = "city location place city_name",
    zh: str = "城市|城市名称|地点",
    en: str = "city|name of the city|place",
) -> P:
    return P(names, zh, en, PLACE)


def _day(**more: Any) -> P:
    return P("date day when", "日期|哪一天", "date|day", DAY, optional=True, **more)


DOMAINS = [
    Domain("weather", ("get query check fetch", "weather forecast weather_info current_weather"),
        ("查询天气|查询城市的天气情况|获取某地的天气预报", "get the weather of a city|look up the weather forecast|tell what the weather is like"),
        {"city": _place(), "date": _day()},
        ("查一下{city}的天气|查查{city}{date}的天气|看看{city}{date}天气如何|{city}天气怎么样?|{city}的天气好吗?|{city}{date}天气怎么样?|{city}{date}会下雨吗?|{city}现在冷不冷?|{city}外面热吗?|{date}{city}的天气好不好?",
         "check the weather in {city}|look up the weather in {city} for {date}|what is the weather like in {city}?|how is the weather in {city}?|is it cold in {city}?|will it rain in {city}?|what is the weather forecast for {city} for {date}?"),
        ("查一下天气|天气怎么样?|外面冷不冷?|会不会下雨?", "check the weather|what is the weather like?|is it going to rain?|how cold is it outside?"),
        lead=("{city}{date}的天气：|{city}的天气：", "Weather in {city} for {date}: |Weather in {city}: "),
        fields=(F("condition weather sky", SKY, "{v}", "{v}"), F("temperature temp temp_c", _number(-15, 39), "气温{v}度", "{v} degrees"),
                F("humidity hum", _number(10, 99), "湿度{v}%", "humidity {v}%"), F("wind wind_level", _number(1, 60), "风速{v}公里每小时", "wind {v} km/h")),
        follow=True),
    Domain("air", ("get query check", "air_quality aqi pollution air_index"),
        ("查询空气质量|获取城市的空气质量指数|查看空气污染情况", "get the air quality of a city|look up the air quality index|check the air pollution"),
        {"city": _place()},
        ("查一下{city}的空气质量|看看{city}的污染指数|{city}空气怎么样?|{city}的空气质量好不好?|{city}今天有雾霾吗?|{city}的空气指数是多少?",
         "check the air quality in {city}|look up the pollution in {city}|how is the air in {city}?|is the air in {city} polluted?|what is the air quality in {city}?"),
        ("查一下空气质量|今天空气怎么样?|有没有雾霾?", "check the air quality|how is the air today?|is the air polluted?"),
        lead=("{city}的空气质量：", "Air quality in {city}: "),
        fields=(F("aqi index", _number(8, 320), "指数{v}", "index {v}"), F("level grade", _closed("优|良|轻度污染|中度污染|重度污染", "good|fair|moderate|poor"), "等级为{v}", "level {v}"),
                F("pm25 pm2_5", _number(3, 250), "PM2.5为{v}", "PM2.5 {v}")),
        follow=True),
    Domain("stock", ("get query track fetch", "stock stock_price share_price quote"),
        ("查询股票价格|获取公司的股价|查看某只股票的行情", "get the stock price of a company|look up a share price|track a stock"),
        {"symbol": P("symbol company stock_name ticker code", "股票名称|公司名称|股票代码", "company|stock symbol|name of the stock", _either(COMPANY, _open(lambda rng: _digits(rng, 6), lambda rng: _letters(rng, rng.randint(3, 4))), 0.65))},
        ("查一下{symbol}的股价|看看{symbol}的股票|查询{symbol}的行情|{symbol}的股价是多少?|{symbol}现在多少钱一股?|{symbol}的股票涨了吗?|{symbol}今天的股价怎么样?",
         "check the stock price of {symbol}|look up shares of {symbol}|what is the stock price of {symbol}?|how is {symbol} stock doing?|how much is a share of {symbol}?"),
        ("查一下股价|股票现在多少钱?|看看股票行情", "check the stock price|how much is a share?|look up a stock"),
        lead=("{symbol}的股价：", "Stock of {symbol}: "),
        fields=(F("price current_price value", PRICE, "现价{v}元", "price {v}"), F("change change_percent", _decimal(-9, 9, 2), "涨跌{v}%", "change {v}%"),
                F("volume vol", _number(1000, 99999), "成交量{v}手", "volume {v}")),
        follow=True),
    Domain("alarm", ("set add create", "alarm alarm_clock wake_up"),
        ("设置闹钟|新建一个闹钟|在指定时间响铃叫醒用户", "set an alarm|create an alarm clock|wake the user up at a time"),
        {"time": P("time clock_time at hour", "时间|闹钟时间|响铃的时间", "time|time of the alarm", CLOCK), "label": P("label note title", "标签|闹钟的备注", "label|note of the alarm", TASK, optional=True)},
        ("设一个{time}的闹钟|定个{time}的闹钟|把闹钟设在{time}|在{time}叫我起床|{time}叫醒我|设一个{time}的闹钟，备注“{label}”|定个{time}的闹钟，标签是“{label}”",
         "set an alarm for {time}|wake me up at {time}|create an alarm at {time}|set my alarm to {time}|set an alarm for {time} with the label \"{label}\""),
        ("设一个闹钟|定个闹钟|叫我起床", "set an alarm|wake me up|create an alarm"),
        done=("好的，{time}的闹钟已设好，备注“{label}”。|好的，{time}的闹钟已设好。", "OK, the alarm is set for {time}, labelled \"{label}\".|OK, the alarm is set for {time}."),
        clash="clock"),
    Domain("timer", ("start set begin", "timer countdown stopwatch"),
        ("启动倒计时|设置计时器|开始倒数若干分钟", "start a countdown|set a timer|count down some minutes"),
        {"minutes": P("minutes duration mins length", "分钟数|倒计时的分钟数", "number of minutes|minutes to count down", _number(1, 240), "integer")},
        ("倒计时{minutes}分钟|开始{minutes}分钟的倒计时|设一个{minutes}分钟的计时器|计时{minutes}分钟|定时{minutes}分钟",
         "start a timer for {minutes} minutes|set a {minutes} minute timer|count down {minutes} minutes|start a countdown of {minutes} minutes|time {minutes} minutes"),
        ("开始倒计时|设一个计时器|帮忙计时", "start a timer|start a countdown|set a timer"),
        done=("好的，{minutes}分钟倒计时开始。", "OK, the timer runs for {minutes} minutes."), clash="clock"),
    Domain("reminder", ("add create set", "reminder todo reminder_item"),
        ("添加提醒|新建待办提醒|提醒用户做一件事", "add a reminder|create a to-do reminder|remind the user of something"),
        {"content": P("content task what text", "提醒内容|要做的事", "thing to remember|content of the reminder", TASK), "date": _day()},
        ("提醒我“{content}”|{date}提醒我“{content}”|加个提醒：{content}$|添加提醒“{content}”|新建一个{date}的提醒“{content}”|设个提醒，内容是“{content}”|提醒我{content}$",
         "remind me: {content}$|add a reminder to {content}$|remind me to {content}$|create a reminder for {date}: {content}$|set a reminder \"{content}\" for {date}|set a reminder \"{content}\""),
        ("加个提醒|设个提醒|提醒我一件事", "add a reminder|set a reminder|remind me of something"),
        done=("好的，{date}会提醒您：{content}。|好的，会提醒您：{content}。", "OK, reminder for {date}: {content}.|OK, reminder: {content}."), clash="agenda"),
    Domain("calendar", ("add create schedule", "event meeting calendar_event appointment"),
        ("添加日程|在日历中新建会议|安排一个会议", "add an event to the calendar|schedule a meeting|create an appointment"),
        {"title": P("title subject name event", "会议主题|日程名称", "title|title of the meeting", _mixed("每周|项目|预算|产品|招聘|年终|客户|设计|安全*会议|讨论|评审|总结|培训|面谈", "budget|team|project|design|sales|hiring|safety|product*review|meeting|workshop|talk|training|planning")), "date": P("date day on", "日期|会议日期", "date|day", DAY), "time": P("time start start_time", "开始时间", "start time", CLOCK, optional=True)},
        ("安排{date}的“{title}”|在日历上加一个{date}的“{title}”|把“{title}”排在{date}{time}|把{date}{time}的“{title}”加到日程里|新建日程“{title}”，时间是{date}|加一个{date}{time}的日程“{title}”",
         "schedule \"{title}\" for {date}|put \"{title}\" on my calendar for {date}|add \"{title}\" for {date} at {time}|create an event \"{title}\" for {date} at {time}|add an appointment \"{title}\" for {date}"),
        ("安排{date}的会议|在日历上加一个{date}的日程|安排“{title}”这个会|新建日程“{title}”", "schedule a meeting for {date}|put \"{title}\" on my calendar|create an event for {date}"),
        done=("好的，{date}{time}的日程“{title}”已添加。|好的，{date}的日程“{title}”已添加。", "OK, \"{title}\" is on the calendar for {date} at {time}.|OK, \"{title}\" is on the calendar for {date}."), clash="agenda"),
    Domain("translate", ("translate do run", "text translation sentence translator"),
        ("翻译文本|把一段文字翻译成另一种语言|多语言翻译", "translate a text|translate text into another language|give a translation"),
        {"text": P("text content sentence source_text", "要翻译的文字|原文", "text|text to translate", TEXT), "target": P("target language target_language to", "目标语言|目标语种", "target language|language to translate into", LANGUAGE)},
        ("把“{text}”翻译成{target}|将“{text}”译成{target}|翻译“{text}”，译成{target}|“{text}”用{target}怎么说?|“{text}”的{target}是什么?|用{target}翻译：{text}$|翻译成{target}：{text}$",
         "translate \"{text}\" into {target}|put \"{text}\" into {target}|how do you say \"{text}\" in {target}?|what is \"{text}\" in {target}?|translate into {target}: {text}$"),
        ("翻译成{target}|把一句话译成{target}|翻译“{text}”", "translate something into {target}|translate \"{text}\"|give a translation into {target}"),
        lead=("“{text}”的{target}译文：", "\"{text}\" in {target}: "),
        fields=(F("translation result translated", _same(lambda rng: " ".join(base.word(rng) for _ in range(rng.randint(2, 4)))), "{v}", "{v}"),), clash="language"),
    Domain("dictionary", ("lookup define explain", "word dictionary definition meaning"),
        ("查词典|查询一个词的意思|解释词语", "look a word up in the dictionary|find the meaning of a word|define a word"),
        {"word": P("word term entry", "词语|要查的词", "word|word to look up", WORD)},
        ("查一下“{word}”这个词|解释“{word}”|在词典里查“{word}”|“{word}”是什么意思?|“{word}”这个词怎么解释?|什么叫“{word}”?",
         "define \"{word}\"|look up the word \"{word}\"|find \"{word}\" in the dictionary|what does \"{word}\" mean?|what is the meaning of \"{word}\"?"),
        ("查个词|解释一个词|查词典", "look up a word|define a word|check the dictionary"),
        lead=("“{word}”：", "\"{word}\": "),
        fields=(F("meaning definition", _mixed("一种|古代的|常见的|罕见的|南方的*植物|乐器|点心|鸟|游戏|衣服|工具|颜色|舞蹈", "a small|a rare|an old|a common|a sweet*plant|tool|bird|game|dance|cake|stone|boat"), "意思是{v}", "means {v}"),
                F("part_of_speech pos", _closed("名词|动词|形容词|副词", "noun|verb|adjective|adverb"), "词性为{v}", "it is a word of class {v}")), clash="language"),
    Domain("currency", ("convert exchange calculate", "currency money amount"),
        ("货币换算|把一种货币换成另一种|按汇率换算金额", "convert money between currencies|exchange one currency into another|convert an amount"),
        {"amount": P("amount value sum money", "金额", "amount|amount of money", AMOUNT, "number"), "source": P("source from_currency base src", "原货币|来源货币", "source currency|currency to convert from", CURRENCY), "target": P("target to_currency dest dst", "目标货币|换成哪种货币", "target currency|currency to convert to", CURRENCY)},
        ("把{amount}{source}换成{target}|换算{amount}{source}到{target}|{amount}{source}是多少{target}?|{amount}{source}能换多少{target}?|{amount}{source}等于多少{target}?",
         "convert {amount} {source} to {target}|exchange {amount} {source} into {target}|how much is {amount} {source} in {target}?|what is {amount} {source} in {target}?|how many {target} are {amount} {source}?"),
        ("把{source}换成{target}|把{amount}{source}换成别的货币", "convert {source} to {target}|convert {amount} {source}"),
        lead=("{amount}{source}：", "{amount} {source}: "),
        fields=(F("result converted amount", _decimal(1, 90000, 2), "合{v}{target}", "{v} {target}"), F("rate exchange_rate", _decimal(0.01, 9, 4), "汇率为{v}", "rate {v}")), clash="convert"),
    Domain("rate", ("get query lookup", "exchange_rate fx_rate rate currency_rate"),
        ("查询汇率|获取两种货币之间的汇率|查看实时汇率", "get the exchange rate of two currencies|look up an exchange rate|check currency rates"),
        {"source": P("base from_currency source currency1", "原货币|基准货币", "base currency|source currency", CURRENCY), "target": P("quote to_currency target currency2", "目标货币", "target currency|quoted currency", CURRENCY)},
        ("查一下{source}对{target}的汇率|看看{source}兑{target}的汇率|{source}对{target}的汇率是多少?|{source}兑{target}现在多少?|今天{source}对{target}的汇率怎么样?",
         "check the exchange rate from {source} to {target}|look up the rate of {source} to {target}|what is the exchange rate of {source} to {target}?|what is the {source} to {target} rate?"),
        ("查一下{source}的汇率|{source}的汇率是多少?", "check the exchange rate of {source}|what is the exchange rate of {source}?"),
        lead=("{source}对{target}：", "{source} to {target}: "), fields=(F("rate value price", _decimal(0.01, 99, 4), "汇率{v}", "rate {v}"), F("date updated", STAMP, "更新于{v}", "updated {v}")), clash="convert"),
    Domain("music", ("play start", "music song track audio"),
        ("播放音乐|播放指定的歌曲|放一首歌", "play music|play a song|start a music track"),
        {"song": P("song title track name", "歌名|歌曲名称", "song title|name of the song", TITLE), "artist": P("artist singer performer", "歌手", "artist|singer", PERSON, optional=True)},
        ("播放《{song}》|放一首《{song}》|放{artist}的《{song}》|播放{artist}唱的《{song}》|来一首《{song}》|来一首{artist}的《{song}》|放歌曲《{song}》听听",
         "play the song \"{song}\"|play \"{song}\" by {artist}|put on the song \"{song}\"|start the track \"{song}\"|put on the song \"{song}\" by {artist}"),
        ("放首歌|播放音乐|来点音乐", "play a song|play some music|put on some music"),
        done=("好的，正在播放{artist}的《{song}》。|好的，正在播放《{song}》。", "OK, playing \"{song}\" by {artist}.|OK, playing \"{song}\"."), clash="music"),
    Domain("light", ("set switch control", "light lamp lights room_light"),
        ("控制房间的灯|打开或关闭灯光|智能灯开关", "control the lights of a room|switch a light on or off|smart light switch"),
        {"room": P("room location area where", "房间|房间名称", "room|name of the room", ROOM), "on": ON},
        ("{on}{room}的灯|把{room}的灯{on}|{on}{room}里的灯|把{room}的电灯{on}|{on}{room}灯", "{on} the light in the {room}|{on} the {room} lights|{on} the lamp in the {room}|{on} the lights of the {room}|{on} the {room} lamp"),
        ("{on}灯|把灯{on}|{on}电灯", "{on} the light|{on} the lights|{on} the lamp"),
        done=("好的，{room}的灯已{on}。", "OK, the light in the {room} is {on}.")),
    Domain("aircon", ("set adjust change", "temperature ac_temperature thermostat aircon"),
        ("设置空调温度|调节室内温度|控制空调", "set the temperature of the air conditioner|adjust the thermostat|control the air conditioning"),
        {"degrees": P("degrees temperature temp value", "温度|目标温度", "temperature|target temperature", _number(5, 40), "integer"),
         "mode": P("mode ac_mode", "模式|空调模式", "mode|mode of the air conditioner", optional=True, enum=("制冷|制热|除湿|送风", "cool|heat|dry|fan"))},
        ("把空调调到{degrees}度|空调设成{degrees}度|把温度调成{degrees}度|空调开{mode}，{degrees}度|把空调调到{mode}模式{degrees}度|室温调到{degrees}度",
         "set the air conditioner to {degrees} degrees|set the temperature to {degrees}|adjust the thermostat to {degrees} degrees|set the air conditioner to {mode} at {degrees} degrees|change the room temperature to {degrees}"),
        ("调一下空调|调一下温度|把空调调一调", "adjust the air conditioner|change the temperature|set the thermostat"),
        done=("好的，空调已设为{mode}{degrees}度。|好的，空调已设为{degrees}度。", "OK, the air conditioner is set to {mode} at {degrees} degrees.|OK, the air conditioner is set to {degrees} degrees.")),
    Domain("curtain", ("set control move", "curtain blinds curtains shade"),
        ("控制窗帘|拉开或合上房间的窗帘", "control the curtains of a room|open or close the blinds of a room"),
        {"room": P("room place location", "房间|窗帘所在的房间", "room|room of the curtains", ROOM),
         "open": P("open is_open opened", "是否拉开", "whether to open them", kind="boolean", says=(("拉开|打开", "拉上|合上|关上"), ("open|pull open", "close|shut")), said=(("拉开", "拉上"), ("open", "closed")))},
        ("{open}{room}的窗帘|把{room}的窗帘{open}|把{room}窗帘{open}|{open}{room}窗帘", "{open} the curtains in the {room}|{open} the {room} curtains|{open} the curtains of the {room}|{open} the blinds in the {room}"),
        ("{open}窗帘|把窗帘{open}", "{open} the curtains|{open} the blinds"),
        done=("好的，{room}的窗帘已{open}。", "OK, the curtains in the {room} are {open}.")),
    Domain("door", ("lock control set", "door door_lock smart_lock"),
        ("控制门锁|给门上锁或开锁|智能门锁", "control a door lock|lock or unlock a door"),
        {"door": P("door which door_name", "哪扇门|门的名称", "door|name of the door", _mixed("前|后|东|西|南|北|侧|正*门|院门|楼门|库门", "front|back|side|north|south|garden|east*door|gate|entrance")),
         "locked": P("locked lock is_locked", "是否上锁", "whether to lock it", kind="boolean", says=(("锁上|锁好", "解锁|开锁"), ("lock", "unlock")), said=(("锁上", "解锁"), ("locked", "unlocked")))},
        ("把{door}{locked}|现在把{door}{locked}|将{door}{locked}|去把{door}{locked}", "{locked} the {door}|{locked} my {door}|{locked} the {door} now|{locked} the {door} at once"),
        ("把门{locked}|将门{locked}", "{locked} the door|{locked} a door"),
        done=("好的，{door}已{locked}。", "OK, the {door} is {locked}.")),
    Domain("volume", ("set adjust change", "volume sound_volume loudness"),
        ("调节音量|设置设备的音量", "set the volume|adjust the sound volume of a device"),
        {"level": P("level volume percent value", "音量|音量大小", "volume|volume level", _number(0, 100), "integer"), "device": P("device speaker target", "设备", "device|name of the device", _mixed("客厅|卧室|厨房|书房|我的*音箱|电视|手机|电脑|平板", "kitchen|bedroom|office|my|old|new*speaker|phone|laptop|tablet|radio"), optional=True)},
        ("把音量调到{level}|音量设为{level}|把{device}的音量调到{level}|{device}音量调成{level}|将音量调整为{level}|把声音调到{level}",
         "set the volume to {level}|change the volume to {level}|turn the sound to {level}|adjust the volume to {level}|set the volume of the {device} to {level}"),
        ("调一下音量|改一下音量|调整声音", "change the volume|adjust the volume|set the sound"),
        done=("好的，{device}的音量已调到{level}。|好的，音量已调到{level}。", "OK, the volume of the {device} is {level}.|OK, the volume is {level}.")),
    Domain("channel", ("switch change set", "channel tv_channel tv"),
        ("切换电视频道|把电视调到某个频道", "switch the TV channel|change the channel of the television"),
        {"channel": P("channel number channel_id", "频道|频道号", "channel|channel number", _number(1, 250), "integer")},
        ("把电视换到{channel}频道|电视调到{channel}台|换到{channel}台|看{channel}频道|切到{channel}台",
         "switch the TV to channel {channel}|change to channel {channel}|put on channel {channel}|turn the television to channel {channel}|show channel {channel}"),
        ("换个台|换个频道|切换电视频道", "change the channel|switch the TV channel|change the TV channel"),
        done=("好的，已换到{channel}频道。", "OK, the TV shows channel {channel}.")),
    Domain("route", ("plan get find", "route navigation directions path"),
        ("导航|规划从一地到另一地的路线|查询路线", "plan a route|get directions from one place to another|navigate"),
        {"start": P("start origin from_place departure", "起点|出发地", "start|place of departure", PLACE), "end": P("end destination to_place goal", "终点|目的地", "destination|place to go", PLACE),
         "way": P("mode by transport", "出行方式", "means of transport", optional=True, enum=("开车|骑车|步行|公交", "car|bike|foot|bus"))},
        ("导航从{start}到{end}|规划从{start}到{end}的路线|查一下{start}到{end}怎么走|从{start}到{end}怎么走?|从{start}去{end}，{way}怎么走?|{start}到{end}有多远?|从{start}{way}去{end}要多久?",
         "plan a route from {start} to {end}|show the way from {start} to {end}|give directions from {start} to {end} by {way}|how do I get from {start} to {end}?|how far is it from {start} to {end}?|how long is the way from {start} to {end} by {way}?"),
        ("导航去{end}|规划去{end}的路线|去{end}怎么走?", "plan a route to {end}|how do I get to {end}?|show the way to {end}"),
        lead=("从{start}到{end}：", "From {start} to {end}: "), fields=(F("distance km distance_km", _decimal(1, 900, 1), "全程{v}公里", "{v} km"), F("duration minutes time", _number(5, 900), "需要{v}分钟", "{v} minutes")), clash="map"),
    Domain("nearby", ("find search list", "nearby places poi nearby_places"),
        ("搜索附近的地点|在地图上查找周边设施", "find places nearby|search the map for facilities around a place"),
        {"kind": P("kind category keyword type", "地点类型|要找的地方", "kind of place|category of the place", _closed("加油站|药店|超市|银行|厕所|停车场|医院|地铁站|书店|公园|面馆", "pharmacy|supermarket|bank|parking lot|hospital|bookstore|park|cafe|bakery|gas station")), "place": P("near center around location", "在哪里附近|中心地点", "center of the search", PLACE)},
        ("找一下{place}附近的{kind}|搜索{place}周边的{kind}|看看{place}附近有没有{kind}|{place}附近有{kind}吗?|{place}附近哪里有{kind}?|{place}周围最近的{kind}在哪?",
         "find a {kind} near {place}|search for a {kind} around {place}|look for a {kind} close to {place}|is there a {kind} near {place}?|where is the nearest {kind} in {place}?"),
        ("找一下附近的{kind}|附近哪里有{kind}?", "find a {kind} nearby|where is the nearest {kind}?"),
        lead=("{place}附近的{kind}：", "The {kind} near {place}: "), fields=(F("name title", _mixed("幸福|和平|人民|东风|光明|新华|利民|康宁*一店|二店|总店|小站|中心", "Corner|Central|Happy|Green|River|Sunny*House|Point|Place|Hall|Plaza"), "{v}", "{v}"), F("distance meters", _number(50, 3000), "距离{v}米", "{v} meters away")), clash="map"),
    Domain("train", ("search query find", "train trains train_tickets train_schedule"),
        ("查询火车票|查询两地之间的火车|搜索高铁车次", "search train tickets|find trains between two cities|look up a train"),
        {"start": P("origin from_station departure from_city", "出发站|出发城市", "departure city|station of departure", PLACE), "end": P("destination to_station arrival to_city", "到达站|到达城市", "arrival city|station of arrival", PLACE), "date": _day()},
        ("查一下{start}到{end}的火车票|查{date}从{start}到{end}的火车|看看{date}{start}到{end}的高铁|{start}到{end}有火车吗?|{date}从{start}到{end}的火车票还有吗?|从{start}到{end}坐什么火车?",
         "find a train from {start} to {end}|search train tickets from {start} to {end} for {date}|look up trains from {start} to {end}|is there a train from {start} to {end}?|which train goes from {start} to {end}?"),
        ("查一下去{end}的火车票|去{end}有火车吗?", "find a train to {end}|is there a train to {end}?"),
        lead=("{start}到{end}的火车：", "Train from {start} to {end}: "), fields=(F("train number train_no", TRAIN, "车次{v}", "number {v}"), F("departs departure_time time", CLOCK, "{v}发车", "departs at {v}"), F("price fare", PRICE, "票价{v}元", "price {v}"))),
    Domain("flight", ("book search find", "flight flights plane_ticket flight_ticket"),
        ("查询机票|搜索两个城市之间的航班|查找飞机票", "search flights|find a flight between two cities|look up plane tickets"),
        {"start": P("origin from_city departure source", "出发城市|起飞城市", "departure city|city of departure", PLACE), "end": P("destination to_city arrival dest", "到达城市|目的地", "arrival city|destination", PLACE), "date": _day()},
        ("查一下{start}到{end}的机票|查{date}从{start}飞{end}的航班|看看{date}{start}到{end}的飞机票|{start}飞{end}有航班吗?|{date}从{start}到{end}的机票多少钱?|从{start}飞到{end}坐哪个航班?",
         "find a flight from {start} to {end}|search flights from {start} to {end} for {date}|look up plane tickets from {start} to {end}|is there a flight from {start} to {end}?|which flight goes from {start} to {end}?"),
        ("查一下去{end}的机票|去{end}有航班吗?", "find a flight to {end}|is there a flight to {end}?"),
        lead=("{start}到{end}的航班：", "Flight from {start} to {end}: "), fields=(F("flight flight_no number", FLIGHT, "航班号{v}", "number {v}"), F("departs takeoff time", CLOCK, "{v}起飞", "departs at {v}"), F("price fare", _number(200, 5000), "票价{v}元", "price {v}"))),
    Domain("hotel", ("find book search", "hotel hotels hotel_room room_booking"),
        ("搜索酒店|查找某个城市的酒店|预订住宿", "find a hotel|search hotels in a city|look for a place to stay"),
        {"city": _place(), "nights": P("nights days stay", "住几晚|入住天数", "number of nights", _number(1, 60), "integer", optional=True)},
        ("找一家{city}的酒店|查一下{city}的酒店|在{city}找个酒店住{nights}晚|搜索{city}的宾馆|{city}有什么酒店?|{city}住{nights}晚有哪些酒店?",
         "find a hotel in {city}|look for a hotel in {city} for {nights} nights|search hotels in {city}|which hotel is good in {city}?|where can I stay in {city} for {nights} nights?"),
        ("找一家酒店|搜索酒店|有什么酒店?", "find a hotel|search for a hotel|which hotel is good?"),
        lead=("{city}的酒店：", "Hotel in {city}: "), fields=(F("name hotel", _mixed("金色|海景|湖畔|江南|时代|如意|云顶|花园*大酒店|宾馆|客栈|度假村", "Grand|Royal|Lake|Garden|Harbor|Palm*Hotel|Inn|Lodge|Palace"), "{v}", "{v}"), F("price price_per_night", _number(90, 2000), "每晚{v}元", "{v} per night"), F("rating score", _decimal(2, 5, 1), "评分{v}", "rated {v}"))),
    Domain("takeaway", ("order buy", "food takeaway meal delivery"),
        ("点外卖|订一份餐|下单外卖", "order food|order a takeaway meal|have a meal delivered"),
        {"dish": P("dish food item meal", "菜名|要点的菜", "dish|dish to order", DISH), "count": P("count quantity number portions", "份数|数量", "number of portions|quantity", _number(1, 60), "integer", optional=True)},
        ("点个外卖，要“{dish}”|点{count}份{dish}|叫{count}份{dish}外卖|叫个{dish}的外卖|订一份{dish}|外卖点{count}份{dish}",
         "order {count} portions of {dish}|order {dish} for me|order a takeaway of {dish}|get {count} portions of {dish} delivered|have {dish} delivered"),
        ("点个外卖|叫外卖|订餐", "order a takeaway|order some food|order a meal"),
        done=("好的，已下单{count}份{dish}。|好的，已下单{dish}。", "OK, {count} portions of {dish} are ordered.|OK, {dish} is ordered."), fields=(F("minutes eta", _number(10, 90), "预计{v}分钟送达", "It takes {v} minutes"), F("order_id id", ID, "订单号{v}", "Order number {v}"))),
    Domain("recipe", ("get find search", "recipe recipes cooking_guide"),
        ("查询菜谱|获取一道菜的做法|查找食谱", "get a recipe|find out how to cook a dish|look up a recipe"),
        {"dish": P("dish name dish_name food", "菜名|菜的名称", "dish|name of the dish", DISH)},
        ("查一下{dish}的做法|找{dish}的菜谱|搜一下{dish}的食谱|{dish}怎么做?|{dish}要怎么烧?|{dish}的菜谱是什么?",
         "find a recipe for {dish}|look up how to cook {dish}|get the recipe of {dish}|how do I cook {dish}?|what is the recipe for {dish}?"),
        ("查个菜谱|找个食谱", "find a recipe|look up a recipe"),
        lead=("{dish}的做法：", "Recipe for {dish}: "), fields=(F("steps method", _mixed("先洗净|先切块|先腌制|先焯水*再炒熟|再蒸透|再炖烂|再烤香", "wash|cut|slice|season|marinate*and fry|and bake|and boil|and steam"), "{v}", "{v}"), F("minutes time cooking_time", _number(5, 180), "用时{v}分钟", "{v} minutes")), follow=True),
    Domain("parcel", ("track query check", "parcel express package shipment"),
        ("查询快递|根据单号跟踪包裹|查询物流信息", "track a parcel|look up a package by its number|get the shipment status"),
        {"number": P("number tracking_number waybill code", "快递单号|运单号", "tracking number|number of the parcel", ID)},
        ("查一下快递{number}|查快递，单号{number}|跟踪包裹{number}|快递{number}到哪了?|单号{number}的快递到了吗?|包裹{number}现在在哪里?",
         "track parcel {number}|check the package {number}|look up my shipment {number}|where is parcel {number}?|has the package {number} arrived?"),
        ("查一下快递|查物流|我的快递到哪了?", "track my parcel|check my package|where is my parcel?"),
        lead=("快递{number}：", "Parcel {number}: "), fields=(F("status state", _closed("运输中|已签收|派送中|已揽收|待取件", "in transit|delivered|on the way|picked up|waiting for pickup"), "{v}", "{v}"), F("location place at", PLACE, "在{v}", "now in {v}"), F("date expected", STAMP, "日期{v}", "date {v}")), clash="order", follow=True),
    Domain("order", ("get check query", "order order_status purchase"),
        ("查询订单状态|根据订单号查询订单", "get the status of an order|look up an order by its number"),
        {"order": P("order_id order_no order id", "订单号|订单编号", "order number|id of the order", ID)},
        ("查一下订单{order}|查询订单{order}的状态|看看订单{order}发货没有|订单{order}怎么样了?|订单{order}到哪一步了?|我的订单{order}发货了吗?",
         "check order {order}|look up the status of order {order}|show me order {order}|what is the status of order {order}?|has order {order} been shipped?"),
        ("查一下订单|我的订单怎么样了?", "check my order|what is the status of my order?"),
        lead=("订单{order}：", "Order {order}: "), fields=(F("status state", _closed("待付款|已付款|已发货|已完成|已取消", "unpaid|paid|shipped|finished|cancelled"), "{v}", "{v}"), F("total amount", PRICE, "金额{v}元", "total {v}")), clash="order", follow=True),
    Domain("stockroom", ("check get query", "inventory stock_level warehouse goods_count"),
        ("查询库存|查看商品还剩多少件", "check the inventory|see how many pieces of a product are left"),
        {"item": P("item product goods name", "商品|商品名称", "product|name of the product", GOODS)},
        ("查一下{item}的库存|看看{item}还有没有货|查询{item}的存货|{item}还有多少件?|{item}有货吗?|仓库里还有{item}吗?",
         "check the inventory of {item}|see if {item} is in stock|look up our inventory of {item}|how many pieces of {item} are left?|is {item} in stock?"),
        ("查一下库存|还有多少货?", "check the inventory|how many are left in stock?"),
        lead=("{item}的库存：", "Inventory of {item}: "), fields=(F("count quantity left", _number(0, 900), "还有{v}件", "{v} left"), F("shelf place location", ID, "货架{v}", "shelf {v}")), follow=True),
    Domain("email", ("send write", "email mail message_by_mail"),
        ("发送电子邮件|给某个邮箱写信", "send an email|write a mail to an address"),
        {"to": P("to recipient address email", "收件人|邮箱地址", "recipient|email address", EMAIL), "subject": P("subject title topic", "主题|邮件主题", "subject|subject of the mail", TOPIC, optional=True), "body": P("body content text", "正文|邮件内容", "body|content of the mail", TEXT)},
        ("给{to}发邮件，内容是“{body}”|发邮件到{to}，说“{body}”|给{to}写封邮件，主题“{subject}”，内容“{body}”|发封邮件给{to}：{body}$|发邮件给{to}，主题是“{subject}”，正文是“{body}”",
         "send an email to {to} saying \"{body}\"|email {to}: {body}$|write a mail to {to} with the text \"{body}\"|send an email to {to}, subject \"{subject}\", text \"{body}\"|mail {to} about \"{subject}\" and say \"{body}\""),
        ("给{to}发封邮件|发邮件说“{body}”", "send an email to {to}|send an email saying \"{body}\""),
        done=("好的，邮件已发给{to}。", "OK, the email to {to} has been sent.")),
    Domain("sms", ("send", "sms text_message message short_message"),
        ("发短信|给联系人发送短信", "send a text message|send an SMS to a contact"),
        {"to": P("to contact receiver name", "联系人|收信人", "contact|person to write to", _either(PERSON, PHONE, 0.75)), "text": P("text content message body", "短信内容|内容", "text|content of the message", TEXT)},
        ("给{to}发短信说{text}$|发短信告诉{to}“{text}”|给{to}发条短信：{text}$|短信通知{to}“{text}”|发条短信给{to}，内容是“{text}”",
         "text {to}: {text}$|send a text message to {to} saying \"{text}\"|send {to} an SMS: {text}$|tell {to} by text message \"{text}\"|send the message \"{text}\" to {to} by SMS"),
        ("给{to}发条短信|发短信说“{text}”", "send {to} a text message|send an SMS saying \"{text}\""),
        done=("好的，短信已发给{to}。", "OK, the message to {to} has been sent.")),
    Domain("phone", ("make start dial", "call phone_call phone"),
        ("打电话|拨打联系人的电话", "make a phone call|call a contact by phone"),
        {"who": P("contact who name callee", "联系人|要打给谁", "contact|person to call", _either(PERSON, PHONE, 0.75))},
        ("给{who}打电话|打电话给{who}|拨打{who}的电话|呼叫{who}|打个电话给{who}", "call {who}|phone {who}|make a call to {who}|ring {who}|dial {who}"),
        ("打个电话|拨个电话", "make a phone call|make a call"),
        done=("好的，正在呼叫{who}。", "OK, calling {who}.")),
    Domain("contact", ("find get lookup", "contact user user_info member"),
        ("查询用户信息|按姓名查找联系人资料", "look up a user|find the details of a person by name"),
        {"name": P("name person user user_name", "姓名|用户姓名", "name|name of the person", PERSON)},
        ("查一下{name}的资料|查找用户{name}|看看{name}的联系方式|{name}的电话是多少?|{name}是哪个部门的?|{name}的个人信息有哪些?",
         "look up {name}|find the details of {name}|show the user {name}|what is the phone number of {name}?|which department is {name} in?"),
        ("查个人的资料|查找一个用户", "look up a person|find a user"),
        lead=("{name}：", "{name}: "), fields=(F("phone mobile tel", PHONE, "电话{v}", "phone {v}"), F("department dept", _closed("销售部|技术部|财务部|人事部|市场部", "sales|engineering|finance|marketing|support"), "部门为{v}", "department {v}"), F("age years", _number(18, 90), "{v}岁", "age {v}")), follow=True),
    Domain("note", ("save add write", "note memo notes"),
        ("保存笔记|记录一条备忘", "save a note|write a memo down"),
        {"text": P("text content note", "笔记内容|要记的内容", "text|text of the note", TEXT), "title": P("title name heading", "标题", "title|title of the note", TOPIC, optional=True)},
        ("记一条笔记：{text}$|记下来：{text}$|写一条备忘“{text}”|把“{text}”记到笔记里|新建笔记“{title}”，内容是“{text}”|记个笔记，标题“{title}”，内容“{text}”",
         "write this down: {text}$|save a note: {text}$|make a note \"{text}\"|add a note titled \"{title}\" with the text \"{text}\"|note down \"{text}\""),
        ("记一条笔记|写个备忘", "write a note|save a memo"),
        done=("好的，已记下“{text}”。", "OK, noted: \"{text}\"."), clash="agenda"),
    Domain("search", ("search web do", "web search internet google_search"),
        ("搜索网页|在互联网上搜索信息", "search the web|find information on the internet"),
        {"query": P("query keyword q keywords", "关键词|搜索内容", "keywords|search query", TOPIC), "count": P("count limit top_k num", "结果数量|返回条数", "number of results", _number(1, 60), "integer", optional=True)},
        ("搜索{query}|搜一下{query}|上网查{query}|在网上搜“{query}”|搜“{query}”，要{count}条结果|网上搜索“{query}”，返回{count}条",
         "search the web for {query}|google {query}|look for \"{query}\" on the internet|search for \"{query}\" online|find {count} web results for \"{query}\""),
        ("上网搜一下|搜索一下网页", "search the web|look something up online"),
        lead=("搜索结果：", "Search result: "), fields=(F("title headline", TITLE, "标题《{v}》", "title \"{v}\""), F("source site", EMAIL, "来源{v}", "from {v}"), F("total hits", _number(1, 90000), "共{v}条", "{v} hits")), clash="any"),
    Domain("news", ("get fetch read", "news headlines latest_news"),
        ("获取新闻|查询某个主题的最新新闻", "get the news|fetch the latest headlines about a topic"),
        {"topic": P("topic subject category", "主题|新闻主题", "topic|topic of the news", _mixed("体育|财经|科技|娱乐|国际|教育|健康|汽车|军事|农业|旅游*|界|类|行业", "sports|finance|science|travel|health|education|farming|fashion*today|world|business|policy"))},
        ("看看{topic}新闻|查一下{topic}的最新新闻|读一下{topic}新闻|有什么{topic}新闻?|{topic}有什么新消息?|今天{topic}方面有什么新闻?",
         "read the {topic} news|get the latest news about {topic}|show headlines about {topic}|what is new in {topic}?|is there any news about {topic}?"),
        ("看看新闻|有什么新闻?", "read the news|show me some headlines"),
        lead=("{topic}新闻：", "News about {topic}: "), fields=(F("title headline", TITLE, "《{v}》", "\"{v}\""), F("date published", STAMP, "发布日期{v}", "published {v}")), clash="any", follow=True),
    Domain("movie", ("get find query", "movie film movie_info film_info"),
        ("查询电影信息|查找一部电影的评分和导演", "get information about a movie|look up the rating and director of a film"),
        {"title": P("title movie name film", "片名|电影名称", "title|title of the movie", TITLE)},
        ("查一下电影《{title}》|看看《{title}》这部电影的信息|查询影片《{title}》|电影《{title}》好看吗?|《{title}》这部电影是谁导演的?|电影《{title}》评分多少?",
         "look up the movie \"{title}\"|find the film \"{title}\"|get information about the movie \"{title}\"|who directed the film \"{title}\"?|what is the rating of the movie \"{title}\"?"),
        ("查一部电影|查电影信息", "look up a movie|find a film"),
        lead=("电影《{title}》：", "Movie \"{title}\": "), fields=(F("director directed_by", PERSON, "导演{v}", "directed by {v}"), F("rating score", _decimal(1, 10, 1), "评分{v}", "rated {v}"), F("year released", _number(1930, 2024), "{v}年上映", "released in {v}")), follow=True),
    Domain("book", ("find search get", "book book_info library_book"),
        ("查询图书|在图书馆查找一本书", "look up a book|find a book in the library"),
        {"title": P("title book name book_title", "书名", "title|title of the book", TITLE)},
        ("查一下图书《{title}》|在图书馆找《{title}》这本书|查询书籍《{title}》|图书馆有《{title}》这本书吗?|《{title}》这本书是谁写的?|书《{title}》放在哪里?",
         "look up the book \"{title}\"|find the book \"{title}\" in the library|search for the book \"{title}\"|who wrote the book \"{title}\"?|does the library have the book \"{title}\"?"),
        ("查一本书|找本书", "look up a book|find a book"),
        lead=("图书《{title}》：", "Book \"{title}\": "), fields=(F("author writer", PERSON, "作者{v}", "by {v}"), F("shelf place", ID, "书架{v}", "shelf {v}"), F("copies available", _number(0, 60), "可借{v}本", "{v} copies")), follow=True),
    Domain("calculator", ("calculate compute evaluate", "expression math calculator formula"),
        ("计算算式|计算数学表达式的值", "calculate an expression|compute the value of a formula"),
        {"expression": P("expression formula expr equation", "算式|数学表达式", "expression|formula to compute", EXPRESSION)},
        ("计算{expression}|算一下{expression}|求{expression}的值|算算{expression}|{expression}等于多少?|{expression}是多少?|{expression}得几?",
         "calculate {expression}|compute {expression}|work out {expression}|what is {expression}?|how much is {expression}?"),
        ("算个数|做个计算", "calculate something|do a calculation"),
        lead=("{expression}的结果：", "{expression}: "), fields=(F("result value answer", _number(0, 1), "{v}", "{v}"),), clash="any", follow=True),
    Domain("unit", ("convert change", "unit units measure unit_value"),
        ("单位换算|把一个数值换算成另一种单位", "convert units|convert a value into another unit"),
        {"value": P("value number amount quantity", "数值", "value|number to convert", AMOUNT, "number"), "source": P("from_unit source unit1", "原单位", "source unit|unit to convert from", _closed("米|公里|英里|英尺|英寸|厘米", "meters|miles|feet|inches|yards")), "target": P("to_unit target unit2", "目标单位", "target unit|unit to convert to", _closed("千米|毫米|海里|码|里", "kilometers|centimeters|millimeters|nautical miles"))},
        ("把{value}{source}换算成{target}|换算{value}{source}为{target}|{value}{source}是多少{target}?|{value}{source}等于多少{target}?|{value}{source}合多少{target}?",
         "convert {value} {source} to {target}|change {value} {source} into {target}|how many {target} are {value} {source}?|what is {value} {source} in {target}?"),
        ("把{source}换算成{target}", "convert {source} to {target}|convert from {source} to {target}"),
        lead=("{value}{source}：", "{value} {source}: "), fields=(F("result value converted", _decimal(0.1, 9000, 3), "合{v}{target}", "{v} {target}"),), clash="convert"),
    Domain("random", ("generate get roll", "random_number random number_generator dice"),
        ("生成随机数|在两个数之间随机取一个", "generate a random number|pick a random number between two limits"),
        {"low": P("low minimum lower start", "最小值|下限", "minimum|lower limit", _number(0, 400), "integer"), "high": P("high maximum upper stop", "最大值|上限", "maximum|upper limit", _number(800, 9999), "integer")},
        ("生成一个{low}到{high}之间的随机数|在{low}和{high}之间随机选一个数|随机给我一个{low}到{high}的数|从{low}到{high}随机取一个数",
         "generate a random number between {low} and {high}|pick a random number from {low} to {high}|give me any random number between {low} and {high}|draw a random number from {low} to {high}"),
        ("生成一个随机数，最小是{low}|随机取一个不超过{high}的数", "generate a random number up to {high}|pick a random number from {low} upwards"),
        lead=("{low}到{high}的随机数：", "Random number from {low} to {high}: "), fields=(F("number value result", _number(0, 9999), "{v}", "{v}"),)),
    Domain("lottery", ("check get query", "lottery lottery_result draw_result"),
        ("查询彩票开奖结果|按期号查彩票", "check the lottery results|look up a lottery draw by its number"),
        {"issue": P("issue draw number period", "期号|彩票期号", "draw number|number of the draw", _same(lambda rng: str(rng.randint(2020001, 2025150))))},
        ("查一下{issue}期的彩票|看看第{issue}期彩票开奖|查询彩票第{issue}期的结果|第{issue}期彩票开的什么?|{issue}期彩票中奖号码是多少?",
         "check the lottery draw {issue}|look up lottery draw {issue}|show the lottery result of draw {issue}|what were the lottery numbers of draw {issue}?|what is the result of lottery draw {issue}?"),
        ("查一下彩票|彩票开奖了吗?", "check the lottery|what are the lottery numbers?"),
        lead=("第{issue}期：", "Draw {issue}: "), fields=(F("numbers result", _same(lambda rng: " ".join(f"{rng.randint(1, 36):02d}" for _ in range(5))), "号码{v}", "numbers {v}"), F("prize jackpot", _number(100, 90000), "奖金{v}万元", "prize {v}"))),
    Domain("steps", ("get read query", "steps step_count pedometer"),
        ("查询步数|读取某天走了多少步", "get the step count|read how many steps were walked on a day"),
        {"date": P("date day when", "日期|哪一天", "date|day", PAST)},
        ("查一下{date}的步数|看看{date}走了多少步|{date}我走了多少步?|{date}的步数是多少?", "get my steps for {date}|look up the step count for {date}|how many steps are there for {date}?|what is my step count for {date}?"),
        ("查一下步数|我走了多少步?", "get my steps|how many steps did I walk?"),
        lead=("{date}的步数：", "Steps for {date}: "), fields=(F("steps count", _number(100, 30000), "{v}步", "{v} steps"), F("km distance", _decimal(0.1, 20, 1), "{v}公里", "{v} km")), follow=True),
    Domain("sensor", ("read get query", "sensor device_temperature machine_temperature"),
        ("读取设备温度|查询机器的温度传感器", "read the temperature of a device|query the sensor of a machine"),
        {"device": P("device device_id machine sensor", "设备编号|设备", "device|id of the device", ID)},
        ("读取设备{device}的温度|查一下{device}号设备的温度|看看机器{device}热不热|设备{device}多少度?|机器{device}的温度正常吗?|{device}号设备现在温度多少?",
         "read the temperature of device {device}|check the sensor of machine {device}|look up device {device}|how hot is device {device}?|what is the temperature of machine {device}?"),
        ("读取设备温度|机器热不热?", "read the device temperature|how hot is the machine?"),
        lead=("设备{device}：", "Device {device}: "), fields=(F("temperature temp value", _decimal(-20, 120, 1), "温度{v}度", "{v} degrees"), F("status state", _closed("正常|过热|离线", "normal|overheated|offline"), "状态{v}", "status {v}")), follow=True),
    Domain("database", ("query count select", "database table records db"),
        ("查询数据库|统计数据表的记录数", "query the database|count the records of a table"),
        {"table": P("table table_name source", "表名|数据表", "table|name of the table", _same(lambda rng: base.word(rng, 2) + rng.choice(("", "_log", "_info", "_list")))), "limit": P("limit max_rows rows", "最多返回的行数", "maximum number of rows", _number(1, 500), "integer", optional=True)},
        ("查询数据表{table}|查一下数据库里的{table}表|统计{table}表的记录|数据表{table}有多少行?|{table}表里有多少条记录?|查询数据表{table}，最多{limit}行",
         "query the table {table}|count the records in table {table}|look into the database table {table}|how many rows are in table {table}?|query the table {table} with at most {limit} rows"),
        ("查询数据库|查一张数据表", "query the database|query a table"),
        lead=("数据表{table}：", "Table {table}: "), fields=(F("rows count", _number(0, 90000), "{v}行", "{v} rows"), F("updated date", STAMP, "更新于{v}", "updated {v}"))),
    Domain("file", ("find search locate", "file files file_search"),
        ("查找文件|按文件名搜索文件", "find a file|search files by name"),
        {"name": P("name filename file pattern", "文件名", "file name|name of the file", FILE), "folder": P("folder directory path", "文件夹|目录", "folder|folder to search", _same(lambda rng: f"/{base.word(rng, 2)}"), optional=True)},
        ("找一下文件{name}|搜索文件{name}|在{folder}里找文件{name}|查找{folder}目录下的文件{name}|文件{name}在哪里?|文件{name}放在哪个文件夹?",
         "find the file {name}|search for the file {name}|look for the file {name} in {folder}|locate the file {name} under {folder}|where is the file {name}?"),
        ("找个文件|搜索一个文件", "find a file|search for a file"),
        lead=("文件{name}：", "File {name}: "), fields=(F("path location", _same(lambda rng: f"/{base.word(rng, 2)}/{base.word(rng, 1)}"), "位于{v}", "found in {v}"), F("size size_kb", _number(1, 9000), "大小{v}KB", "{v} KB")), follow=True),
    Domain("taxi", ("call book order", "taxi cab ride car"),
        ("叫出租车|预约一辆车", "call a taxi|book a ride"),
        {"start": P("start pickup from_place", "上车地点", "pickup place|place of departure", PLACE), "end": P("end dropoff destination to_place", "下车地点|目的地", "destination|place to go", PLACE)},
        ("叫一辆从{start}到{end}的出租车|从{start}打车去{end}|叫辆车，从{start}到{end}|预约从{start}去{end}的出租车", "call a taxi from {start} to {end}|book a cab from {start} to {end}|order a ride from {start} to {end}|get a taxi from {start} to {end}"),
        ("叫辆出租车去{end}|打车去{end}", "call a taxi to {end}|book a cab to {end}"),
        done=("好的，从{start}到{end}的车已叫好。", "OK, a taxi from {start} to {end} is coming."), fields=(F("plate license_plate", _same(lambda rng: _letters(rng, 1) + _digits(rng, 5)), "车牌{v}", "Plate {v}"), F("minutes eta wait", _number(1, 60), "{v}分钟后到", "It takes {v} minutes"))),
    Domain("doctor", ("book make", "appointment doctor_visit registration"),
        ("预约挂号|预约医院科室的医生", "book a doctor|make an appointment at a hospital department"),
        {"department": P("department dept section", "科室", "department|department of the hospital", _closed("内科|外科|儿科|眼科|牙科|皮肤科|骨科", "dentistry|surgery|cardiology|pediatrics|eye care")), "date": P("date day", "日期|就诊日期", "date|day of the visit", DAY)},
        ("挂一个{date}的{department}号|预约{date}的{department}|挂一个{department}的号，时间是{date}|挂{department}的号，{date}去", "book a doctor in {department} for {date}|make a doctor appointment in {department} for {date}|book {department} for {date}|get me a visit at {department} for {date}"),
        ("挂个{department}的号|预约{date}看医生", "book a doctor in {department}|make a doctor appointment for {date}"),
        done=("好的，{date}的{department}已预约。", "OK, {department} is booked for {date}."), fields=(F("number queue_no", _number(1, 120), "排号{v}", "Your number is {v}"), F("doctor name", PERSON, "医生{v}", "The doctor is {v}")), clash="agenda"),
    Domain("buy", ("buy add order", "cart item_to_cart product shopping_cart"),
        ("把商品加入购物车|购买商品", "add a product to the shopping cart|buy a product"),
        {"item": P("item product goods", "商品|要买的商品", "product|product to buy", GOODS), "count": P("count quantity number", "数量|件数", "quantity|number of pieces", _number(1, 99), "integer")},
        ("买{count}件{item}|把{count}件{item}加到购物车|购物车里加{count}件{item}|下单{count}件{item}|往购物车放{count}件{item}", "buy {count} pieces of {item}|add {count} pieces of {item} to the cart|put {count} pieces of {item} into my cart|order {count} pieces of {item}"),
        ("买{item}|把{item}加到购物车", "buy {item}|add {item} to the cart"),
        done=("好的，{count}件{item}已加入购物车。", "OK, {count} pieces of {item} are in the cart."), fields=(F("total sum price", PRICE, "共{v}元", "The total is {v}"),)),
    Domain("now", ("get read tell", "time current_time now clock"),
        ("获取当前时间|查询现在几点|报时", "get the current time|tell what time it is|read the clock"),
        {},
        ("查一下现在的时间|看一下时间|报一下时|现在几点了?|现在是什么时间?|几点了?|这会儿几点?", "tell me the time|check the current time|read the clock|what time is it?|what is the time now?|how late is it?"),
        lead=("现在的时间：", "The time now: "), fields=(F("time now current", CLOCK, "{v}", "{v}"),), clash="clock"),
    Domain("battery", ("get check read", "battery battery_level power_status charge"),
        ("查询电量|查看电池还剩多少电", "get the battery level|check how much charge is left in the battery"),
        {},
        ("查一下电量|看看电池还有多少电|检查一下电池|还剩多少电?|电池电量是多少?|现在电量还有多少?", "check the battery|read the battery level|look how much charge is left|how much battery is left?|what is the battery level?|is the battery low?"),
        lead=("电量：", "Battery: "), fields=(F("percent level battery", _number(1, 100), "还剩{v}%", "{v}% left"), F("hours remaining", _decimal(0.5, 30, 1), "可用{v}小时", "{v} hours to go"))),
    Domain("stop", ("stop pause end", "playback music player media"),
        ("停止播放|让播放器停下来", "stop the playback|make the player stop"),
        {},
        ("停止播放|把音乐停掉|关掉音乐|让音乐停下|停一下音乐", "stop the music|stop playing|pause the music|make the music stop|end the playback"),
        done=("好的，已停止播放。", "OK, the music has stopped."), clash="music"),
]  # fmt: skip

_BY_KEY = {domain.key: domain for domain in DOMAINS}

# How a request is dressed: {c} is its core, {C} the same with a capital.

_FRAMES: dict[tuple[Lang, str], list[str]] = {
    ("zh", "do"): ["{c}", "{c}。", "帮我{c}", "帮我{c}。", "请帮我{c}。", "请{c}。", "麻烦{c}。", "麻烦你{c}，谢谢。", "麻烦帮我{c}", "能帮我{c}吗？", "能不能{c}？", "能不能帮我{c}？", "可以帮我{c}吗", "可不可以{c}？", "你好，{c}。", "你好，请{c}", "嗨，帮我{c}吧", "我想{c}", "我要{c}。", "我想让你{c}。", "劳驾{c}。", "赶紧{c}", "快帮我{c}！", "{c}，谢谢！", "{c}，麻烦了。", "{c}，快点", "{c}吧", "{c}好吗？", "{c}可以吗？", "请你{c}，谢谢。", "拜托{c}！", "我有点忙，你{c}吧。", "顺便{c}。", "接下来{c}。", "不好意思，{c}。", "在吗？{c}", "我现在需要{c}。", "那就{c}吧。"],
    ("zh", "tail"): ["{c}", "帮我{c}", "请帮我{c}", "请{c}", "麻烦{c}", "麻烦你{c}", "你好，{c}", "你好，请{c}", "嗨，帮我{c}", "我想{c}", "我要{c}", "劳驾{c}", "快帮我{c}", "顺便{c}", "接下来{c}", "不好意思，{c}", "在吗？{c}", "赶紧{c}", "拜托{c}", "我需要{c}"],
    ("zh", "ask"): ["{c}？", "{c}", "{c}?", "请问{c}？", "请问{c}", "你好，{c}？", "你好，请问{c}？", "想问一下，{c}？", "我想知道{c}。", "我想知道{c}", "帮我看看{c}。", "帮我看一下{c}", "告诉我{c}。", "你知道{c}吗？", "能告诉我{c}吗？", "问一下{c}", "打听一下，{c}？", "麻烦问下{c}？", "嗨，{c}？", "{c}，谢谢。", "{c}，急！", "帮我查查{c}。", "快告诉我{c}", "劳驾，{c}？", "对了，{c}？", "哎，{c}？", "话说{c}？", "再问一下，{c}？", "不好意思，{c}？", "我很好奇，{c}？"],
    ("en", "do"): ["{C}.", "{c}", "{C}", "Please {c}.", "please {c}", "Can you {c}?", "can you {c}", "Could you {c}?", "Could you please {c}?", "I want you to {c}.", "I would like you to {c}.", "{C}, please.", "{c} please", "Hi, {c}.", "Hey, can you {c}?", "Would you {c}?", "Hello, please {c}.", "I need you to {c}.", "Go ahead and {c}.", "Now {c}.", "Quick, {c}!", "Next, {c}.", "Kindly {c}.", "Just {c}, thanks.", "{C}. Thank you!", "Help me to {c}."],
    ("en", "tail"): ["{C}", "{c}", "Please {c}", "please {c}", "Can you {c}", "Could you {c}", "Hi, {c}", "Hello, please {c}", "I want you to {c}", "I need you to {c}", "Now {c}", "Next, {c}", "Quick, {c}", "Kindly {c}", "Go ahead and {c}", "Hey, {c}"],
    ("en", "ask"): ["{C}?", "{c}", "{c}?", "{C}", "Hi, {c}?", "Hello! {C}?", "Excuse me, {c}?", "Quick question: {c}?", "Tell me, {c}?", "Please tell me: {c}?", "By the way, {c}?", "So, {c}?", "Hey, {c}", "{C}? Thanks.", "{C}, please?", "Just curious, {c}?", "One more thing: {c}?", "Can you tell me: {c}?", "Sorry, {c}?", "I wonder: {c}?", "Now, {c}?", "My question is: {c}?"],
}  # fmt: skip
_WHETHER = [
    frame for frame in _FRAMES["zh", "ask"] if not any(part in frame for part in ("知道", "告诉", "看看", "看一下"))
]
"""For questions that end with 吗."""
_FOLLOW: dict[Lang, list[str]] = {
    "zh": ["那{v}呢？", "{v}呢？", "{v}呢", "那{v}呢", "再查一下{v}", "换成{v}呢？", "还有{v}呢？", "再看看{v}。", "那么{v}呢？", "再帮我查{v}", "{v}的也查一下。", "也查查{v}吧"],
    "en": ["And {v}?", "What about {v}?", "what about {v}", "How about {v}?", "how about {v}", "And for {v}?", "Now for {v}.", "The same for {v}, please.", "Also for {v}.", "Then {v}?", "Next: {v}.", "And what about {v}?"],
}  # fmt: skip
_SUPPLY: dict[Lang, list[str]] = {
    "zh": ["{v}", "{v}。", "是{v}", "{v}吧", "哦，{v}", "就{v}", "{v}，谢谢", "嗯，{v}。", "那就{v}。", "好的，{v}", "我说的是{v}。", "{v}！"],
    "en": ["{v}", "{v}.", "It is {v}.", "it is {v}", "Oh, {v}.", "{v}, please.", "Sorry, {v}.", "I mean {v}.", "Sure, {v}", "Take {v}.", "{v}, thanks.", "Let us say {v}."],
}  # fmt: skip

_CHAT: dict[Lang, list[tuple[str, str]]] = {
    "zh": [
        ("你好|您好|嗨|哈喽|早上好|下午好|晚上好|嘿|hello|在吗|大家好|早啊", "你好！有什么可以帮你的吗？"),
        ("谢谢|谢谢你|多谢|太感谢了|感谢|辛苦了|谢啦|非常感谢|麻烦你了|谢谢您", "不客气！"),
        ("再见|拜拜|回头见|我走了|下次聊|先这样|晚安|明天见|不聊了|我先下了", "再见！"),
        ("好的|知道了|明白了|行|没问题|嗯|原来如此|了解|我懂了|收到", "好的，有需要再告诉我。"),
        ("你真棒|做得好|真厉害|太好了|你真聪明|不错|真好用|你好厉害|干得漂亮", "谢谢夸奖！"),
        ("今天好累|我有点困|工作好忙|我累坏了|最近压力好大|忙了一天|我好疲惫", "辛苦了，记得休息一下。"),
    ],
    "en": [
        ("hello|hi|hey|good morning|good evening|hi there|hello there|good afternoon|howdy|greetings", "Hello! How can I help you?"),
        ("thanks|thank you|thanks a lot|many thanks|thank you so much|thanks for your help|great, thanks|cheers", "You are welcome!"),
        ("bye|goodbye|see you|see you later|good night|talk to you later|that is all|I have to go|bye bye", "Goodbye!"),
        ("OK|I see|all right|got it|understood|fine|sure|good to know", "OK, tell me when you need something."),
        ("well done|good job|you are great|nice work|you are clever|awesome|very good", "Thank you!"),
        ("I am tired|I am so tired|long day today|I am exhausted|so much work today|I feel sleepy", "Take a little rest."),
    ],
}  # fmt: skip
_CHAT_FRAMES: dict[Lang, list[str]] = {
    "zh": [
        "{c}",
        "{c}。",
        "{c}！",
        "{c}~",
        "{c}啊",
        "{c}，{c}",
        "{c}！！",
        "嗯嗯，{c}",
        "哈哈，{c}",
        "{c}…",
        "哦，{c}。",
        "{c}哦",
        "{c}啦",
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
        "Yes, {c}.",
    ],
}

_DESCRIPTION: dict[Lang, list[str]] = {
    "zh": ["{c}", "{c}", "{c}", "{c}。", "用于{c}", "该工具可以{c}", "工具：{c}"],
    "en": ["{C}", "{C}", "{c}", "{C}.", "Tool to {c}", "Used to {c}."],
}
_ERRORS = _mixed(
    "网络|服务|参数|权限|连接|数据|接口|账号|系统|请求*超时|不可用|错误|不足|已断开|不存在|繁忙|已过期|失败",
    "network|service|parameter|connection|server|account|request|database*timeout|not available|not found|expired|refused|is busy|failed",
    0.15,
)
_PLAIN = _mixed(
    "一切|全部|目前|今天|大约|已经*正常|完成|没有记录|需要等待|有三条|在处理中|售完|更新",
    "all|everything|nothing|already|nearly*fine|done|found|sold out|in progress|updated|closed",
    0.3,
)
_ELSE: dict[Lang, list[str]] = {
    "zh": ["洗一下碗", "给猫剪指甲", "修一下自行车", "织一条围巾", "把地扫一扫", "烧一壶水", "搬一下家", "给花浇水", "理个发", "补一下轮胎", "缝一颗扣子", "擦擦窗户", "把被子叠好", "遛一下狗", "熨一下衬衫", "种一棵树", "修一修屋顶", "把雪铲掉"],
    "en": ["wash the dishes", "fix my bicycle", "cut my hair", "knit a scarf", "sweep the floor", "boil some water", "water the plants", "walk the dog", "iron my shirt", "plant a tree", "repair the roof", "clean the windows", "make my bed", "sew a button on", "carry my bags", "shovel the snow"],
}  # fmt: skip
_NO_TOOL = {"zh": "没有合适的工具来完成这件事。", "en": "None of the tools can do that."}
_AFFIXES = ("{a}_{n}", "{n}_{a}", "{n}_v2", "{n}_api", "api_{n}", "my_{n}", "{n}2", "{a}-{n}")


class _Tool(NamedTuple):
    """A tool as offered: its domain, its schema, and what its parameters are called."""

    domain: Domain
    schema: dict[str, Any]
    names: dict[str, str]

    def description(self, slot: str) -> str:
        return str(self.schema["parameters"]["properties"][self.names[slot]]["description"])


def _frame(rng: Random, frames: Sequence[str], core: str) -> str:
    return rng.choice(frames).replace("{c}", core).replace("{C}", core[0].upper() + core[1:])


def _name(rng: Random, domain: Domain) -> str:
    if rng.random() < 0.14:
        made = base.word(rng, rng.randint(2, 3))
        return made if rng.random() < 0.6 else f"{made}_{base.word(rng, rng.randint(1, 2))}"
    verb, noun = rng.choice(domain.verbs), rng.choice(domain.nouns)
    style = rng.random()
    if style < 0.6:
        name = f"{verb}_{noun}"
    elif style < 0.8:
        name = verb + "".join(part.capitalize() for part in noun.split("_"))
    elif style < 0.9:
        name = f"{noun}_{verb}"
    else:
        name = noun
    if rng.random() < 0.2:
        name = rng.choice(_AFFIXES).format(a=base.word(rng, rng.randint(1, 2)), n=name)
    return name


def _offer(rng: Random, split: Split, lang: Lang, domain: Domain) -> _Tool:
    name = draw(rng, split, lambda: _name(rng, domain))
    properties: dict[str, Any] = {}
    names: dict[str, str] = {}
    required = []
    for slot, param in domain.params.items():
        if param.optional and rng.random() < 0.5:
            continue
        called = rng.choice(param.names.split())
        if rng.random() < 0.08:
            called = draw(rng, split, lambda: base.word(rng, 2))
        if called in properties or keyword.iskeyword(called):
            called = slot
        names[slot] = called
        schema: dict[str, Any] = {
            "type": param.kind,
            "description": rng.choice((param.zh if lang == "zh" else param.en).split("|")),
        }
        if param.enum:
            schema["enum"] = param.enum[lang == "en"].split("|")
        properties[called] = schema
        if not param.optional:
            required.append(called)
    description = _frame(rng, _DESCRIPTION[lang], rng.choice(domain.docs[lang]))
    parameters: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
    return _Tool(domain, {"name": name, "description": description, "parameters": parameters}, names)


def _values(rng: Random, split: Split, lang: Lang, tool: _Tool, slots: frozenset[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for slot in tool.names:
        if slot in slots:
            param = tool.domain.params[slot]
            if param.enum:
                values[slot] = rng.choice(param.enum[lang == "en"].split("|"))
            elif param.make is None:
                values[slot] = rng.random() < 0.5
            else:
                values[slot] = param.make(rng, split, lang)
    if "target" in values and values["target"] == values.get("source"):
        raise _RetryError
    if "end" in values and values["end"] == values.get("start"):
        raise _RetryError
    return values


def _fill(text: str, domain: Domain, lang: Lang, values: dict[str, Any], rng: Random | None = None) -> str:
    """Put values in; booleans as users say them (with `rng`) or as answers do."""
    shown: dict[str, Any] = {}
    for slot, value in values.items():
        if isinstance(value, bool):
            param = domain.params[slot]
            if rng is not None and param.says:
                shown[slot] = rng.choice(param.says[lang == "en"][not value].split("|"))
            elif param.said:
                shown[slot] = param.said[lang == "en"][not value]
        else:
            shown[slot] = value
    return text.format_map(shown)


def _ask(rng: Random, split: Split, lang: Lang, tool: _Tool, cores: Sequence[Core]) -> tuple[str, Core, dict[str, Any]]:
    """A request for a tool: the user's words, and the values in them."""
    fitting = [core for core in cores if core.slots <= tool.names.keys()]
    if not fitting:
        raise _RetryError
    for _ in range(30):
        core = rng.choice(fitting)
        values = _values(rng, split, lang, tool, core.slots)
        for _ in range(15):
            said = _fill(core.text, tool.domain, lang, values, rng)
            text = _frame(rng, _WHETHER if said[-1] == "吗" else _FRAMES[lang, core.kind], said)
            if held_out(text) == (split == "test"):
                return text, core, values
    raise _RetryError


def _computed(rng: Random, split: Split, domain: Domain, values: dict[str, Any]) -> int | float | None:
    """What a tool of this kind really returns, where that can be told from its arguments."""
    if domain.key == "calculator":
        return _value_of(values["expression"])
    if domain.key == "random":
        return draw(rng, split, lambda: rng.randint(values["low"], values["high"]))
    if domain.key == "unit":
        return float(round(values["value"] * _METERS[values["source"]] / _METERS[values["target"]], 3))
    return None


_METERS = {
    "米": 1, "公里": 1000, "英里": 1609.344, "英尺": 0.3048, "英寸": 0.0254, "厘米": 0.01,
    "千米": 1000, "毫米": 0.001, "海里": 1852, "码": 0.9144, "里": 500,
    "meters": 1, "miles": 1609.344, "feet": 0.3048, "inches": 0.0254, "yards": 0.9144,
    "kilometers": 1000, "centimeters": 0.01, "millimeters": 0.001, "nautical miles": 1852,
}  # fmt: skip


_SUCCESS: list[tuple[str, Any]] = [("status", "ok"), ("success", True), ("result", "success"), ("status", "success")]


def _reply(rng: Random, split: Split, lang: Lang, domain: Domain, values: dict[str, Any]) -> tuple[str, str]:
    """What the tool returns, and the answer that says so."""
    zh = lang == "zh"
    luck = rng.random()
    if luck < 0.06:
        error = _ERRORS(rng, split, "en" if rng.random() < 0.2 else lang)
        if rng.random() < 0.2:
            error += " " + str(draw(rng, split, lambda: rng.randint(100, 999)))
        said = f"工具报告了错误：{error}。" if zh else f"The tool reported an error: {error}."
        return _json({rng.choice(("error", "error", "error_message")): error}), said
    if luck < 0.11:
        text = _PLAIN(rng, split, lang)
        return text, f"工具返回：{text}。" if zh else f"The tool returned: {text}."
    best = [core for core in domain.answers[lang] if core.slots <= values.keys()]
    lead = _fill(best[0].text, domain, lang, values)
    result: dict[str, Any] = {}
    if domain.is_action:
        if luck < 0.15:
            reason = _ERRORS(rng, split, lang)
            result = {"success": False, rng.choice(("reason", "message")): reason}
            return _json(result), f"没有成功：{reason}。" if zh else f"That did not work: {reason}."
        result.update([rng.choice(_SUCCESS)])
    count = rng.choice((1, 2, 2, 3))
    if domain.is_action:
        count = rng.choice((0, 1, 1))
    chosen = rng.sample(domain.fields, min(count, len(domain.fields)))
    parts: list[str] = []
    for field in chosen:
        key = rng.choice(field.keys.split())
        if key in result:
            key = field.keys.split()[0]
        computed = _computed(rng, split, domain, values)
        value = field.make(rng, split, lang) if computed is None else computed
        result[key] = value
        text = field.zh if zh else field.en
        parts.append(text.replace("{target}", str(values.get("target"))).replace("{v}", str(value)))
    if domain.is_action:
        tail = "，".join(parts) + "。" if zh else " " + ", ".join(parts) + "."
        return _json(result), lead + (tail if parts else "")
    return _json(result), lead + ("，" if zh else ", ").join(parts) + ("。" if zh else ".")


def _json(data: dict[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False)


def _run(
    rng: Random, split: Split, lang: Lang, tool: _Tool, values: dict[str, Any], messages: list[dict[str, Any]]
) -> None:
    """Call, observation, answer."""
    arguments = {called: values[slot] for slot, called in tool.names.items() if slot in values}
    result, answer = _reply(rng, split, lang, tool.domain, values)
    messages += [call(tool.schema["name"], arguments), observation(result), assistant(answer)]


def _generic(rng: Random, split: Split, lang: Lang) -> Domain:
    """A tool for something that does not exist: only its description tells what it is for."""
    zh = draw(rng, split, lambda: nonsense(rng, rng.randint(2, 3)))
    en = draw(rng, split, lambda: base.word(rng, 2))
    zh_of = draw(
        rng,
        split,
        lambda: (
            nonsense(rng, 2)
            if rng.random() < 0.6
            else rng.choice(["编号", "名称", "地区", "型号", "日期", "类别", "等级", "颜色", "部门", "时间", "代码"])
        ),
    )
    en_of = draw(
        rng,
        split,
        lambda: (
            base.word(rng, 2)
            if rng.random() < 0.6
            else rng.choice(
                ["code", "name", "region", "model", "size", "level", "color", "owner", "version", "zone", "key"]
            )
        ),
    )
    number = rng.random() < 0.3
    make = AMOUNT if number else _either(ID, WORD)
    parameter = P(f"{en_of} {en_of} key value", zh_of, en_of, make, "integer" if number else "string")
    keys = [draw(rng, split, lambda: base.word(rng, rng.randint(1, 2))) for _ in range(2)]
    fields = [F(key, rng.choice((ID, AMOUNT, WORD, SKY, PRICE)), f"{key}为{{v}}", f"{key} is {{v}}") for key in keys]
    if rng.random() < 0.35:
        fields = [F("result", rng.choice((ID, AMOUNT, WORD)), "{v}", "{v}")]
    return Domain(
        f"generic {en}",
        ("get query check find", f"{en} {en} {en}_info"),
        (f"查询{zh}|获取{zh}|查看{zh}的信息", f"get the {en}|look up the {en}|check the {en}"),
        {"key": parameter},
        (f"查一下{zh}，{zh_of}是{{key}}|查询{zh_of}为{{key}}的{zh}|看看{zh_of}{{key}}的{zh}|{zh_of}{{key}}的{zh}是什么?|{zh_of}是{{key}}的{zh}怎么样?|{zh_of}{{key}}的{zh}是多少?",
         f"look up the {en} of {en_of} {{key}}|get the {en} for {en_of} {{key}}|check the {en} with {en_of} {{key}}|what is the {en} of {en_of} {{key}}?|how is the {en} for {en_of} {{key}}?"),
        (f"查一下{zh}|看看{zh}|{zh}是什么?", f"look up the {en}|check the {en}|what is the {en}?"),
        lead=("查询结果：", "Result: "), fields=fields, follow=True)  # fmt: skip


_ROOM = 28
"""Limits what tools cost in tokens: of a tool about 4, of a parameter about 3 (in tens and more)."""


def _domain(rng: Random, split: Split, lang: Lang) -> Domain:
    return _generic(rng, split, lang) if rng.random() < 0.12 else rng.choice(DOMAINS)


def _others(rng: Random, split: Split, lang: Lang, first: Domain, count: int) -> list[Domain]:
    """Domains that cannot be taken for one another."""
    chosen = [first]
    while len(chosen) < count:
        other = _domain(rng, split, lang)
        if all(other.clash != domain.clash for domain in chosen):
            chosen.append(other)
    return chosen


def sample(rng: Random, split: Split) -> Sample:
    while True:
        try:
            return _sample(rng, split)
        except _RetryError:
            continue


def _sample(rng: Random, split: Split) -> Sample:
    lang: Lang = "zh" if rng.random() < 0.65 else "en"
    count = rng.choices((1, 2, 3, 4), (35, 42, 19, 4))[0]
    domains = _others(rng, split, lang, _domain(rng, split, lang), count)
    docs: Lang = lang if rng.random() < 0.9 else "en" if lang == "zh" else "zh"
    fate = rng.random()
    if fate < 0.05:
        tools, messages = _offers(rng, split, docs, domains), _chat(rng, split, lang)
    elif fate < 0.12:
        # Nothing on offer does it. A web search or a calculator could be thought to do too much.
        tools = _offers(rng, split, docs, domains)
        if rng.random() < 0.2:
            text = draw(rng, split, lambda: _frame(rng, _FRAMES[lang, "do"], rng.choice(_ELSE[lang])))
        else:
            unserved = _generic(rng, split, lang) if rng.random() < 0.15 else rng.choice(DOMAINS)
            if any(domain.clash in (unserved.clash, "any") for domain in domains):
                raise _RetryError
            text, _, _ = _ask(rng, split, lang, _offer(rng, split, lang, unserved), unserved.cores[lang])
        messages = [user(text), assistant(_NO_TOOL[lang])]
    elif fate < 0.2:
        tools = _offers(rng, split, lang, domains)
        messages = _missing(rng, split, lang, tools[0])
    else:
        tools = _offers(rng, split, docs, domains)
        messages = _request(rng, split, lang, tools)
    schemas = [tool.schema for tool in tools]
    if len({schema["name"] for schema in schemas}) < len(schemas):
        raise _RetryError
    if 4 * len(tools) + 3 * sum(len(tool.names) for tool in tools) > _ROOM:
        raise _RetryError
    rng.shuffle(schemas)
    return Sample("tools", messages, schemas)


def _offers(rng: Random, split: Split, lang: Lang, domains: Sequence[Domain]) -> list[_Tool]:
    return [_offer(rng, split, lang, domain) for domain in domains]


def _chat(rng: Random, split: Split, lang: Lang) -> list[dict[str, Any]]:
    said, answer = rng.choice(_CHAT[lang])
    choices = said.split("|")
    text = draw(rng, split, lambda: _frame(rng, _CHAT_FRAMES[lang], rng.choice(choices)))
    return [user(text), assistant(answer)]


def _missing(rng: Random, split: Split, lang: Lang, tool: _Tool) -> list[dict[str, Any]]:
    """A request that lacks a required argument, the question for it, and mostly the answer and the call."""
    domain = tool.domain
    text, core, values = _ask(rng, split, lang, tool, domain.bare[lang])
    lacking = [slot for slot in tool.names if slot in domain.required and slot not in core.slots]
    description = tool.description(lacking[0])
    question = f"请告诉我{description}。" if lang == "zh" else f"Please tell me the {description}."
    messages = [user(text), assistant(question)]
    param = domain.params[lacking[0]]
    if len(lacking) > 1 or param.make is None or rng.random() < 0.35:
        return messages
    make = param.make

    def supply() -> tuple[Any, str]:
        value = make(rng, split, lang)
        return value, rng.choice(_SUPPLY[lang]).replace("{v}", str(value))

    value, text = draw(rng, split, supply, lambda made: made[1])
    values[lacking[0]] = value
    if len(set(map(str, values.values()))) < len(values):
        raise _RetryError
    messages.append(user(text))
    _run(rng, split, lang, tool, values, messages)
    return messages


def _request(rng: Random, split: Split, lang: Lang, tools: Sequence[_Tool]) -> list[dict[str, Any]]:
    tool = tools[0]
    messages: list[dict[str, Any]] = []
    text, _, values = _ask(rng, split, lang, tool, tool.domain.cores[lang])
    messages.append(user(text))
    _run(rng, split, lang, tool, values, messages)
    fate = rng.random()
    if fate < 0.12 and tool.domain.follow and len(values) == 1:
        ((slot, first),) = values.items()
        make = tool.domain.params[slot].make
        if make is not None:

            def follow() -> tuple[Any, str]:
                value = make(rng, split, lang)
                return value, rng.choice(_FOLLOW[lang]).replace("{v}", str(value))

            value, text = draw(rng, split, follow, lambda made: made[1])
            if value != first:
                messages.append(user(text))
                _run(rng, split, lang, tool, {slot: value}, messages)
    elif fate > 0.88:
        other = rng.choice(tools)
        text, _, values = _ask(rng, split, lang, other, other.domain.cores[lang])
        messages.append(user(text))
        _run(rng, split, lang, other, values, messages)
    elif fate > 0.85:
        messages += _chat(rng, split, lang)
    return messages
