"""Answering from a passage: the answer is the sentence that tells it, or says that none does.

Every attribute has one phrase that ends just before the value. The answer has that phrase, whatever words the passage and
the question have; mostly they have it, too, so that an answer is a copy up to the value, and only there is it decided what
is told, or whether anything is.
"""

# ruff: noqa: SIM905
from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from chatglm.knowledge.answering import _REWRITE, CITED, CITED_EN, CLASSIC, NOT_FOUND
from chatglm.knowledge.summarising import MAP, REDUCE, REFINE, WHOLE
from chatglm.knowledge.tool import SEARCH, SEARCH_KNOWLEDGE

from .base import (
    CITIES,
    FIRST,
    GIVEN,
    SURNAMES,
    TOWNS,
    Sample,
    Split,
    assistant,
    call,
    draw,
    form,
    nonsense,
    observation,
    one_piece,
    user,
)
from .vocabulary import (
    ADJECTIVES_EN,
    BOOKS,
    COLOURS,
    COLOURS_EN,
    FOODS,
    FOODS_EN,
    HOBBIES,
    HOBBIES_EN,
    JOBS,
    MONTHS_EN,
    NOUNS_EN,
    PLACES,
    THINGS,
    THINGS_EN,
    Maker,
    word,
)
from .wording import choose, dress, mistyped, upper

MADE_UP = 0.1
"""Share of values, names and topics that are of no list."""


@dataclass(frozen=True)
class Attribute:
    """What is told and asked of an entity {e}; {v} is the value.

    In English a question is a verb and what the sentence begins with: "who is {e}'s founder".
    """

    says: str
    asks: tuple[str, ...]
    make: Maker
    other_says: tuple[str, ...] = ()
    other_asks: tuple[str, ...] = ()
    """Patterns of other ways to tell and to ask."""


@dataclass(frozen=True)
class Topic:
    name: Maker
    attributes: tuple[Attribute, ...]


def _listed(values: Sequence[str]) -> Maker:
    return lambda rng: nonsense(rng, 2) if rng.random() < MADE_UP else rng.choice(values)


def _listed_en(values: Sequence[str]) -> Maker:
    return lambda rng: word(rng, 2) if rng.random() < MADE_UP else rng.choice(values)


def _proper(values: Sequence[str]) -> Maker:
    return lambda rng: word(rng, 2).capitalize() if rng.random() < MADE_UP else rng.choice(values)


def _count(unit: str, most: int = 999) -> Maker:
    """A number, mostly of two digits, and its unit."""
    return lambda rng: f"{rng.randint(2, min(99, most) if rng.random() < 0.6 else most)}{unit}"


def _person(rng: Random) -> str:
    if rng.random() < MADE_UP:
        return nonsense(rng, 2)
    return rng.choice(SURNAMES) + "".join(rng.choices(GIVEN, k=rng.choice((1, 2))))


def _place(rng: Random) -> str:
    return nonsense(rng, 2) if rng.random() < MADE_UP else "".join(rng.sample(PLACES, 2))


def _suffixed(endings: str) -> Maker:
    one_piece(endings.split())
    return lambda rng: _place(rng) + rng.choice(endings.split())


def _clock(rng: Random) -> str:
    part, first, last = rng.choice((("上午", 6, 11), ("下午", 1, 6), ("晚上", 7, 11)))
    return f"{part}{rng.randint(first, last)}点{rng.choice(('', '', '半', '10分', '20分', '40分'))}"


def _evening(rng: Random) -> str:
    return f"{rng.choice(('下午5', '下午6', '晚上7', '晚上8', '晚上9', '晚上10', '晚上11'))}点{rng.choice(('', '', '半', '10分', '20分', '40分'))}"


def _named(pattern: str, endings: str = "") -> Maker:
    """An English name: a word, and what it is the name of."""
    words = tuple(text.capitalize() for text in (*ADJECTIVES_EN, *NOUNS_EN))
    return lambda rng: pattern.format(_proper(words)(rng), rng.choice(endings.split() or [""]))


_TOPICS = "友情 航海 战争 爱情 数学 星空 家庭 旅行 植物 历史 建筑 音乐 美食 昆虫 海洋 沙漠 童年 医学".split()
_SUBJECTS = "书法 摄影 绘画 钢琴 围棋 烹饪 游泳 舞蹈 剪纸 陶艺 吉他 英语 法语 数学 物理 写作 历史 化学 武术 编程".split()  # fmt: skip
_LANGUAGES = "Python C++ Java Rust Go Ruby Lua Perl Swift Scala Haskell Julia Kotlin PHP AWK APL".split()  # fmt: skip

_KINDS: dict[str, Maker] = {
    "person": _person,
    "city": _listed(CITIES),
    "food": _listed(FOODS),
    "thing": _listed(THINGS),
    "job": _listed(JOBS),
    "hobby": _listed(HOBBIES),
    "topic": _listed(_TOPICS),
    "colour": lambda rng: _listed(COLOURS)(rng) + "色",
    "language": lambda rng: word(rng, 2).capitalize() if rng.random() < MADE_UP else rng.choice(_LANGUAGES),
    "street": lambda rng: _place(rng) + rng.choice(("路", "街")) + rng.choice(("", f"{rng.randint(1, 99)}号")),
    "river": lambda rng: _place(rng) + rng.choice(("河", "江", "湖")),
    "room": lambda rng: f"{rng.randint(101, 999)}教室",
    "year": lambda rng: f"{rng.randint(1900, 2025)}年",
    "date": lambda rng: f"{rng.randint(1, 12)}月{rng.randint(1, 28)}日",
    "weekday": lambda rng: f"星期{rng.choice('一二三四五六日')}{rng.choice(('', '上午', '下午', '晚上'))}",
    "clock": _clock,
    "evening": _evening,
    "version": lambda rng: f"{rng.randint(1, 12)}.{rng.randint(0, 30)}",
    "money": _count("元"),
    "people": _count("人"),
    "age": _count("岁", 99),
    "gram": _count("克"),
    "metre": _count("米"),
    "page": _count("页"),
    "warranty": _count("个月", 48),
    "minutes": _count("分钟", 99),
    "port": _count(""),
    # English
    "name": _proper(FIRST),
    "town": _proper(TOWNS),
    "dish": _listed_en(FOODS_EN),
    "goods": _listed_en(THINGS_EN),
    "fun": _listed_en(HOBBIES_EN),
    "tint": lambda rng: _listed_en(COLOURS_EN)(rng) if rng.random() < 0.6 else "dark " + rng.choice(COLOURS_EN),
    "road": lambda rng: f"{rng.randint(1, 99)} {word(rng, 2).capitalize()} {rng.choice(('Street', 'Road'))}",
    "day": lambda rng: f"{rng.choice(MONTHS_EN)} {rng.randint(1, 28)}",
    "hour": lambda rng: f"{rng.randint(1, 12)}{rng.choice(('', ':30'))} {rng.choice(('am', 'pm'))}",
    "dollars": _count(" dollars"),
    "staff": _count(""),
    "old": _count("", 99),
    "grams": _count(" grams"),
    "pages": _count(" pages"),
    "months": _count(" months", 48),
}


_OTHERWISE = {
    "的创始人是": "{v}(创立|创办|创建)了{e};创始人是{v};{e}由{v}创办#(谁|哪位)(创立|创办|创建|开)了{e};{e}(是|)(谁|哪位)(创立|创办|创建|开)的;谁是{e}的创始人;{e}(的|)创始人(叫什么|叫啥|是哪位|)",
    "的总部设在": "总部(设|)在{v};{e}的总部在{v};总部位于{v};{e}总部位于{v}#{e}(的|)总部(在|位于|是在)(哪|哪里|哪儿|哪个城市);{e}在(哪里|哪个城市)",
    "成立于": "{v}成立;{e}(是|)(在|){v}成立(的|);成立时间是{v}#{e}(是|)(什么时候|哪年|何时|哪一年)(成立|创办|建立)的;{e}(的|)成立(时间|年份)(是|)(什么时候|)",
    "主要生产": "{e}(生产|主营|做){v};主要(产品|业务)是{v};生产{v}#{e}(生产|做|卖|主营)(什么|啥)(的|产品|);{e}(的|)(主要产品|业务)是(什么|啥)",
    "的员工人数是": "{e}(共|)有{v}员工;员工(有|人数是|共){v};有{v}员工#{e}(有|共有)(多少|几个|几名)(员工|人);{e}(的|)员工(人数|数量|有多少|数)(是多少|)",
    "出生在": "{e}(是{v}人|生于{v});出生于{v};来自{v}#{e}(是|)(哪里|哪儿)(人|出生的|来的);{e}(出生地|老家|家乡)(是|在)(哪里|哪);{e}(生|出生|来自)(于|在|)(哪里|哪儿|哪)",
    "的职业是": "{e}(是一名|是|做){v};(职业|工作)是{v};{e}当{v}#{e}(是|)(做什么|干什么|干嘛)(工作|)的;{e}(的|)(工作|职业)(是|)(什么|啥);{e}从事什么(工作|职业)",
    "的爱好是": "{e}(喜欢|爱|平时喜欢){v};(最|)(喜欢|爱){v};爱好{v};{e}的兴趣是{v}#{e}(喜欢|爱)(什么|做什么|干什么|干嘛);{e}有(什么|啥)(爱好|兴趣);{e}(的|)(爱好|兴趣)(是|)(什么|啥)",
    "最爱吃": "{e}(喜欢|爱|最喜欢)吃{v};(喜欢|最爱|爱)吃{v}#{e}(喜欢|爱|最喜欢)吃(什么|啥);{e}最(爱|喜欢)的(食物|菜)是(什么|啥)",
    "今年": "{e}{v}(了|);今年{v};{e}的年龄是{v}#{e}(多大|几岁|多少岁)(了|);{e}(的|)年龄(是|)(多少|多大)",
    "的售价是": "{e}(卖|售价|价格是|定价){v};(售价|价格|售价为|定价){v};卖{v}#{e}(卖|要|)(多少钱|几块钱|啥价);{e}(的|)(价格|售价|价钱)(是|)(多少|);买{e}要多少钱",
    "的重量是": "{e}(重|重量为){v};(重|净重|重量为){v}#{e}(有|)(多重|几斤|多沉);{e}(的|)(重量)(是|)(多少|多大)",
    "的颜色是": "{e}是{v}的;颜色(是|为){v};通体{v}#{e}(是|)(什么|啥|哪种)(颜色|色)(的|)",
    "的保修期是": "{e}(保修|质保){v};(保修|保修期|质保期)(是|为|){v}#{e}(保修|质保)(多久|多长时间|几年|几个月);{e}(的|)(保修期|质保)(是|有)(多久|多长)",
    "的产地是": "{e}(产自|产于|在{v}生产，来自){v};(产自|产于|产地为|产地){v}#{e}(产自|产于|是)(哪里|哪儿|哪)(生产的|产的|);{e}(的|)产地(在|是)(哪|哪里|哪儿)",
    "的人口是": "{e}(有|住着){v};人口(有|约|为|){v}#{e}有(多少|几)(人|人口|人居住);{e}(的|)人口(有|是|)(多少|几)",
    "的特产是": "{e}(盛产|出产|以{v}闻名，特产){v};(盛产|出产|特产是|特产){v}#{e}(盛产|出产|有)(什么|啥)(特产|);{e}(的|)特产(是|有)(什么|啥)",
    "的海拔是": "{e}海拔{v};(海拔|海拔为|海拔约){v}#{e}(海拔|有)(多高|多少|多少米);{e}(的|)(高度|海拔)(是|)(多少|)",
    "紧邻": "{e}(靠近|旁边是|挨着){v};(靠近|挨着|临近){v}#{e}(靠近|挨着|旁边是|临近)(哪条河|什么|哪条江)",
    "的集市在": "{e}(逢|每逢|在){v}(赶集|有集市);(集市|赶集)(在|是){v}#{e}(什么时候|哪天|星期几)(有集市|赶集);{e}(的|)(集市|赶集)(是|)(什么时候|哪天|周几)",
    "的作者是": "{e}(由{v}所写|是{v}写的|是{v}的作品);作者(是|为|){v};{v}写了{e}#(谁|哪位)(写|写作|创作)了{e};{e}(是|)(谁|哪位)(写|创作)的;{e}(的|)作者(叫什么|是哪位|)",
    "出版于": "{e}(在{v}出版|{v}出版);{v}出版;(出版时间|出版年份)是{v}#{e}(是|)(什么时候|哪年|哪一年|何时)出版的;{e}(的|)出版(时间|年份)(是|)(哪年|)",
    "一共有": "{e}(有|共|全书){v};(全书|共|全书共|有){v}#{e}(有|共|多)(几|多少)页;{e}(的|)页数(是|)(多少|)",
    "的定价是": "{e}(卖|定价|售价){v};(定价|售价|价格)(为|){v}#{e}(卖|要|)(多少钱|几块钱);{e}(的|)(价格|定价)(是|)(多少|)",
    "讲的是": "{e}(讲述|写的是|的主题是){v};(主题|内容)是{v};讲述{v}#{e}(讲|写|说)(了|的是|)(什么|啥);{e}(的|)(主题|内容)(是|)(什么|啥);{e}是关于什么的",
    "位于": "{e}(在|坐落在|地址是|设在){v};(在|坐落在|地址是|地址：|设在){v}#{e}(在|在什么|坐落在)(哪|哪里|哪儿|地方);{e}(的|)(地址|位置)(是|)(什么|哪里|在哪);(怎么去|去哪里找){e}",
    "的门票是": "{e}(门票|票价){v};(门票|票价|入场费)(为|){v}#{e}(门票|票|进去)(要|)(多少钱|几块钱);{e}(的|)(票价|门票)(是|)(多少|);去{e}要多少钱",
    "的馆长是": "馆长(是|为|叫){v};{v}(任|担任|是){e}(的|)馆长#(谁|哪位)是{e}的馆长;{e}(的|)馆长(叫什么|叫啥|是哪位|);谁管{e}",
    "建于": "{e}(在{v}建成|{v}建成|始建于{v});(始建于|建成于){v}#{e}(是|)(什么时候|哪年|哪一年|何时)(建|建成|修建)的;{e}(的|)(建成时间|历史从哪年)(是|)(哪年|)",
    "开放到": "{e}({v}关门|{v}闭馆);({v}闭馆|{v}关门|开到{v})#{e}(几点|什么时候)(关门|闭馆|结束);{e}(开|开放)到(几点|什么时候);{e}(的|)关门时间",
    "的举办地是": "{e}在{v}(举办|举行);(在{v}举行|地点在{v}|举办地为{v})#{e}在(哪|哪里|哪儿|哪个城市)(举办|举行|办|开);{e}(的|)(地点|举办地)(在|是)(哪|哪里)",
    "的日期是": "{e}(于|在|将于){v}(举行|开幕|举办);(时间|日期)(是|为|定在){v};{v}(举行|开幕)#{e}(是|在|)(哪天|什么时候|几号|何时)(举行|开始|开|办|);{e}(的|)(时间|日期)(是|)(哪天|几号|)",
    "的传统食物是": "{e}要吃{v};(传统食物|美食)(是|有){v};大家吃{v}#{e}(吃|要吃)(什么|啥);{e}(的|)(传统美食|食物)(是|有)(什么|啥)",
    "的主持人是": "主持人(是|为|：){v};由{v}主持;{v}主持{e}#(谁|哪位)主持{e};{e}(由|是|)(谁|哪位)主持(的|);谁是{e}的主持人",
    "的参加人数是": "{e}有{v}参加;(有{v}参加|{v}参加了);参加人数(为|有){v}#{e}有(多少|几)人(参加|报名|去);(多少|几个)人参加了{e}",
    "的老师是": "(老师|任课老师|讲师)(是|为|叫){v};{e}由{v}(教|讲|授课)#(谁|哪位)(教|上|讲){e};{e}(是|)(谁|哪位)(教|讲|上)的;{e}(的|)老师(叫什么|是哪位|)",
    "的上课时间是": "{e}(在|每逢){v}上课;(上课时间|时间)(是|为|：){v};{v}上课#{e}(什么时候|哪天|星期几|周几)上课;{e}(的|)(上课时间|时间)(是|)(哪天|)",
    "的教室是": "{e}在{v}(上课|);(教室|地点)(是|为|：|在){v};在{v}上#{e}在(哪|哪里|哪个教室|哪间教室)(上课|上|);{e}(的|)教室(在哪|是哪间|)",
    "的学费是": "{e}(收费|学费){v};(学费|收费|费用)(为|是|){v}#{e}(要|收|)(多少钱|多少学费);{e}(的|)(学费|费用|价格)(是|)(多少|)",
    "的名额是": "{e}(招|只收|最多){v};(名额|限额|招)(为|是|){v}#{e}(招|收|能报)(多少|几个)人;{e}(的|)名额(有|是)(多少|几个)",
    "的最新版本是": "(最新|当前|现在的)版本(是|为){v};{e}已更新到{v}#{e}(现在|最新|)(是|到|出到)(什么|哪个|第几|几)版(本|)(了|);{e}(的|)版本(号|)(是|)(多少|)",
    "的开发者是": "{e}由{v}(开发|编写);(开发者|作者)(是|为){v};{v}开发了{e}#(谁|哪位)(开发|编写|写)了{e};{e}(是|)(谁|哪位)(开发|写|做)的;{e}(的|)(作者|开发者)(是谁|叫什么|)",
    "使用的语言是": "{e}(用|使用){v}(编写|写成);(用{v}编写|编程语言为{v}|用{v}写成)#{e}(是|)用(什么|啥)(语言|)(写|编写|开发)的;{e}(的|)(编程语言|语言)(是|)(什么|啥)",
    "的价格是": "{e}(卖|售价|要){v};(价格|售价|费用)(为|是|){v}#{e}(卖|要|)(多少钱|几块钱|啥价);{e}(的|)(价钱|价格|费用)(是|)(多少|);买{e}要多少钱",
    "的端口是": "{e}(用|监听|使用)端口{v};端口(号|)(为|是){v};监听{v}端口#{e}(用|监听|在)(哪个|什么|几号)端口;{e}(的|)端口(号|)(是|)(几|什么|)",
    "的终点站是": "{e}(开往|到|终到){v};(终点站|终点)(是|为){v};开往{v}#{e}(开往|到|去)(哪|哪里|哪儿|什么地方);{e}(的|)(终点|目的地)(是|)(哪里|哪)",
    "的发车时间是": "{e}{v}(发车|开车|出发);({v}发车|{v}开车|发车时间为{v})#{e}(几点|什么时候)(发车|开|出发|开车);{e}(的|)(开车|发车|出发)时间(是|)(几点|)",
    "的票价是": "{e}(票价|每张){v};(票价|车票)(为|是|){v}#{e}(的|)(票|车票|票价)(要|是|)(多少|多少钱|几块钱);坐{e}要多少钱",
    "的列车长是": "列车长(是|为|叫){v};{v}(任|担任|是){e}(的|)列车长#(谁|哪位)是{e}的列车长;{e}(的|)列车长(叫什么|是哪位|)",
    "全程需要": "{e}(要开|要坐|行驶){v};(全程|行程|路上要)(约|){v};要坐{v}#{e}(要|)(开|坐|跑|走)(多久|多长时间|几分钟);{e}(的|)(用时|全程时间)(是|)(多久|)",
    "的招牌菜是": "{e}的(拿手菜|特色菜)是{v};(招牌菜|拿手菜|特色)(是|为){v};以{v}出名#{e}(有|的)(什么|啥)(好吃的|招牌菜|特色菜);{e}(的|)(拿手菜|特色)(是|)(什么|啥);去{e}吃什么",
    "的老板是": "老板(是|为|叫){v};{e}是{v}开的;{v}(开|经营)(了|){e}#(谁|哪位)(开|经营)了{e};{e}(是|)(谁|哪位)(开|经营)的;{e}(的|)老板(叫什么|是哪位|)",
    "营业到": "{e}({v}打烊|开到{v});({v}打烊|开到{v}|{v}关门)#{e}(几点|什么时候)(打烊|关门);{e}(开|营业)到(几点|什么时候);{e}(的|)打烊时间",
    "的人均消费是": "{e}人均{v};(人均|人均消费|每人约){v}#{e}(人均|一个人)(要|)(多少钱|多少);在{e}吃饭(一个人|)(要|)多少钱;{e}(的|)人均(是多少|)",
}
"""How else attributes are told and asked, by their phrase: patterns of sentences # patterns of questions."""
_OTHERWISE_EN = {
    "founder": "{v} founded {e};{e} was founded by {v}#who (founded|started|set up|created) {e};by whom was {e} founded",
    "head office": "{e} is based in {v};{e} has its head office in {v}#where is {e} (based|located);(in which|what) city is {e};where does {e} have its head office",
    "main product": "{e} (makes|sells|produces) {v}#what does {e} (make|sell|produce)",
    "number of employees": "{e} has {v} employees;{v} people work at {e}#how many (employees|people|workers) does {e} have;how many people work (at|for) {e}",
    "home town": "{e} (was born|grew up) in {v};{e} comes from {v}#where (was|is) {e} (born|from);where does {e} come from;which town does {e} come from",
    "favourite food": "{e} (loves|likes) (eating |){v};{e} likes to eat {v}#what does {e} (like|love) to eat;what food does {e} (like|love)",
    "hobby": "{e} (loves|enjoys|likes) {v};in the evening {e} enjoys {v}#what does {e} (do in the free time|enjoy|like doing)",
    "age": "{e} is {v} years old;{e} is {v}#how old is {e}",
    "price": "{e} costs {v};{e} is sold for {v};you pay {v} for {e}#how much (is|does) {e}( cost|);what does {e} cost;how much do i pay for {e}",
    "weight": "{e} weighs {v}#how (heavy is|much does) {e}( weigh|);what does {e} weigh",
    "colour": "{e} comes in {v};{e} is painted {v}#what (color|colour) is {e};which colour does {e} have",
    "warranty": "{e} has a warranty of {v};{e} is covered for {v}#how long is (the warranty of {e}|{e}'s warranty);how long is {e} covered",
    "address": "{e} (is|stands|lies) at {v};you find {e} at {v}#where is {e};where can i find {e};where does {e} stand",
    "director": "{v} (directs|runs|leads) {e};{e} is run by {v}#who (directs|runs|leads|is the head of) {e}",
    "ticket price": "tickets for {e} cost {v};a ticket for {e} costs {v}#how much (is a ticket|are tickets) for {e};what do tickets for {e} cost",
    "closing time": "{e} closes at {v};{e} is open until {v}#when does {e} close;how long is {e} open;until when is {e} open",
    "author": "{v} wrote {e};{e} was written by {v}#who wrote {e};by whom was {e} written",
    "main character": "{e} is about {v};the hero of {e} is {v}#who is {e} about;who is the hero of {e}",
    "length": "{e} has {v};{e} runs to {v}#how long is {e};how many pages does {e} have",
    "destination": "{e} goes to {v};{e} runs to {v}#where does {e} go( to|);where is {e} going",
    "departure time": "{e} leaves at {v};{e} departs at {v}#when does {e} (leave|depart|start);what time does {e} leave",
    "driver": "{v} drives {e};{e} is driven by {v}#who drives {e}",
    "latest version": "{e} is now at version {v};version {v} of {e} is out#(which|what) version of {e} is (the latest|new|out)",
    "developer": "{v} (develops|made|wrote) {e};{e} is made by {v}#who (develops|made|wrote|built) {e}",
    "language": "{e} is written in {v};{e} uses {v}#what (is {e} written in|language does {e} use);in which language is {e} written",
    "leader": "{v} (leads|heads|runs) {e};{e} is led by {v}#who (leads|heads|runs|is in charge of) {e}",
    "budget": "{e} has {v} to spend;{e} has a budget of {v}#how much (money |)(can {e} spend|does {e} have);how big is the budget of {e}",
    "deadline": "{e} (ends|must be done|is due) on {v}#when (is {e} due|does {e} end|must {e} be done)",
    "office": "{e} (works|sits) in {v}#where does {e} (work|sit);where is the office of {e}",
}


def _attributes(lines: str) -> tuple[Attribute, ...]:
    """One attribute a line: phrase | what stands for the value in questions | kind of value."""
    made = []
    for line in lines.split():
        phrase, asks, kind = line.split("|")
        one_piece((phrase, *asks.split("/")))
        other_says, other_asks = (tuple(part.split(";")) if part else () for part in _OTHERWISE[phrase].split("#"))
        asked = tuple(f"{{e}}{phrase}{ask}" for ask in asks.split("/"))
        made.append(Attribute(f"{{e}}{phrase}{{v}}。", asked, _KINDS[kind], other_says, other_asks))
    return tuple(made)


def _attribute_en(name: str, asks: str, make: Maker) -> Attribute:
    place = "in " if asks == "where" else ""
    says, more = _OTHERWISE_EN.get(name, "#").split("#")
    common_says = (f"the {name} of {{e}} is {place}{{v}}",)
    common = (
        f"{asks} is the {name} of {{e}}",
        f"{asks}'s {{e}}'s {name}",
        f"(tell me |give me |)the {name} of {{e}}",
        f"{{e}}'s {name}",
        f"(do you know|what about) {{e}}'s {name}",
    )
    return Attribute(
        f"{{e}}'s {name} is {place}{{v}}.",
        (f"{asks} is {{e}}'s {name}",),
        make,
        (*common_says, *(part for part in says.split(";") if part)),
        (*common, *(part for part in more.split(";") if part)),
    )


def _attributes_en(lines: str) -> tuple[Attribute, ...]:
    """One attribute a line: name | question word | kind of value."""
    made = (line.strip().split("|") for line in lines.strip().splitlines())
    return tuple(_attribute_en(name, asks, _KINDS[kind]) for name, asks, kind in made)


_ZH = (
    Topic(_suffixed("公司 集团 科技 银行"), _attributes("""
        的创始人是|谁|person
        的总部设在|哪里/什么地方|city
        成立于|哪一年|year
        主要生产|什么|thing
        的员工人数是|多少|people
    """)),
    Topic(_person, _attributes("""
        出生在|哪里/什么地方|city
        的职业是|什么|job
        的爱好是|什么|hobby
        最爱吃|什么|food
        今年|多大|age
    """)),
    Topic(_suffixed("手机 相机 音箱 手表 电脑"), _attributes("""
        的售价是|多少|money
        的重量是|多少|gram
        的颜色是|什么|colour
        的保修期是|多久|warranty
        的产地是|哪里/什么地方|city
    """)),
    Topic(_suffixed("村 镇 县 岛"), _attributes("""
        的人口是|多少|people
        的特产是|什么|food
        的海拔是|多少|metre
        紧邻|哪条河|river
        的集市在|什么时候/星期几|weekday
    """)),
    Topic(
        lambda rng: f"《{nonsense(rng, 2) if rng.random() < MADE_UP else '之'.join(rng.sample(BOOKS, 2))}》",
        _attributes("""
        的作者是|谁|person
        出版于|哪一年|year
        一共有|多少页|page
        的定价是|多少|money
        讲的是|什么|topic
    """)),
    Topic(_suffixed("博物馆 美术馆 科技馆 展览馆"), _attributes("""
        位于|哪里/什么地方|street
        的门票是|多少|money
        的馆长是|谁|person
        建于|哪一年|year
        开放到|几点|evening
    """)),
    Topic(_suffixed("音乐节 美食节 灯会 庙会"), _attributes("""
        的举办地是|哪里/什么地方|city
        的日期是|哪一天|date
        的传统食物是|什么|food
        的主持人是|谁|person
        的参加人数是|多少|people
    """)),
    Topic(lambda rng: _listed(_SUBJECTS)(rng) + rng.choice(("初级班", "高级班", "周末班", "暑期班", "夜校", "公开课")), _attributes("""
        的老师是|谁|person
        的上课时间是|什么时候/星期几|weekday
        的教室是|哪一间|room
        的学费是|多少|money
        的名额是|多少|people
    """)),
    Topic(lambda rng: word(rng, 2).capitalize(), _attributes("""
        的最新版本是|多少|version
        的开发者是|谁|person
        使用的语言是|什么|language
        的价格是|多少|money
        的端口是|多少|port
    """)),
    Topic(lambda rng: f"{rng.choice('GDKTZC')}{rng.randint(1, 999)}次列车", _attributes("""
        的终点站是|哪里|city
        的发车时间是|几点|clock
        的票价是|多少|money
        的列车长是|谁|person
        全程需要|多久/多长时间|minutes
    """)),
    Topic(_suffixed("餐厅 面馆 饭店 茶馆"), _attributes("""
        的招牌菜是|什么|food
        位于|哪里/什么地方|street
        的老板是|谁|person
        营业到|几点|evening
        的人均消费是|多少|money
    """)),
)  # fmt: skip

_EN = (
    Topic(_named("{} {}", "Ltd Bank Motors Foods Labs"), _attributes_en("""
        founder|who|name
        head office|where|town
        main product|what|goods
        number of employees|what|staff
    """)),
    Topic(_proper(FIRST), _attributes_en("""
        home town|what|town
        favourite food|what|dish
        hobby|what|fun
        age|what|old
    """)),
    Topic(_named("the {} {}", "phone camera speaker watch bike"), _attributes_en("""
        price|what|dollars
        weight|what|grams
        colour|what|tint
        warranty|what|months
    """)),
    Topic(_named("the {} {}", "Museum Gallery Park"), _attributes_en("""
        address|what|road
        director|who|name
        ticket price|what|dollars
        closing time|what|hour
    """)),
    Topic(lambda rng: f"The {word(rng, 2).capitalize() if rng.random() < MADE_UP else rng.choice(ADJECTIVES_EN).capitalize()} {rng.choice(NOUNS_EN).capitalize()}", _attributes_en("""
        author|who|name
        main character|who|name
        length|what|pages
        price|what|dollars
    """)),
    Topic(lambda rng: f"train {rng.choice('ABCDEFGHK')}{rng.randint(1, 999)}", _attributes_en("""
        destination|what|town
        departure time|what|hour
        ticket price|what|dollars
        driver|who|name
    """)),
    Topic(lambda rng: word(rng, 2).capitalize(), _attributes_en("""
        latest version|what|version
        developer|who|name
        language|what|language
        price|what|dollars
    """)),
    Topic(_named("the {} project"), _attributes_en("""
        leader|who|name
        budget|what|dollars
        deadline|what|day
        office|where|town
    """)),
)  # fmt: skip

_ASK = ("{}？", "{}？", "{}？", "{}?", "{}", "请问{}？", "{}呢？", "我想知道{}。")
_ASK_EN = ("{}?", "{}?", "{}?", "{}", "Tell me, {}?", "Excuse me, {}?", "Quick question: {}?")
_THEN = ("{}", "{}", "那{}", "那{}呢", "还有，{}", "再问一下，{}", "另外{}", "好的，{}", "接着问：{}")
_THEN_EN = ("{}", "{}", "and {}", "also, {}", "ok, {}", "next: {}", "one more: {}")

_FREE = (
    "{c}\n\n{q}", "{c}\n\n{q}", "{c}\n{q}", "{c}\n{q}", "{c}{q}", "材料：{c}\n问题：{q}", "阅读材料，回答问题。\n{c}\n{q}", "{q}\n\n{c}", "{q}\n材料：{c}", "问题：{q}\n材料：{c}",
    "根据下面的内容回答问题。\n{c}\n问：{q}", "请根据以下材料回答：\n{c}\n\n{q}", "以下是一段文字：\n{c}\n请问，{q}", "“{c}”\n{q}", "已知：{c}\n{q}", "阅读：{c}\n{q}", "文章：\n{c}\n\n问题：\n{q}", "背景：{c}\n提问：{q}", "{c}\n\n根据上文，{q}", "看看这段话：{c} {q}", "内容如下：\n{c}\n\n问：{q}\n答：",
    "根据这段文字回答：{q}\n\n{c}", "资料：{c}\n\n{q}", "请阅读下面的短文并回答问题。\n\n{c}\n\n{q}", "有这样一段话：{c}\n那么{q}", "{c} 请问{q}",
)  # fmt: skip
_FREE_EN = (
    "{c}\n\n{q}", "{c}\n\n{q}", "{c}\n{q}", "{c}\n{q}", "{c} {q}", "Text: {c}\nQuestion: {q}", "Read the text and answer.\n{c}\n{q}", "{q}\n\n{c}", "{q}\nText: {c}", "Read this and answer: {c}\n\n{q}", "Context: {c}\n\nQ: {q}", "Passage:\n{c}\n\nQuestion:\n{q}", "Given that: {c}\n{q}", "Here is a text:\n{c}\n\n{q}", "\"{c}\"\n{q}", "Answer from the text.\n\n{c}\n\n{q}", "Use the following text to answer.\n{c}\nQ: {q}\nA:", "According to this: {c}\n{q}", "Question: {q}\nContext: {c}", "Based on the passage, {q}\n\n{c}",
)  # fmt: skip
_SOURCES = (
    "参考资料：\n{c}\n\n请根据参考资料回答问题，并标出引用的编号。\n问题：{q}",
    "参考资料：\n{c}\n\n请根据参考资料回答并标注编号：{q}",
    "资料：\n{c}\n\n{q}（请在答案后写出编号）",
    "以下是检索到的段落：\n{c}\n\n请依据段落回答，并注明出处编号。{q}",
)
_SOURCES_EN = (
    "References:\n{c}\n\nAnswer the question from the references and give the number of the one you quote.\nQuestion: {q}",
    "Sources:\n{c}\n\nAnswer with the number of your source: {q}",
    "{c}\n\nAnswer the question and cite the source in brackets.\n{q}",
)

_FILLERS = ("消息是昨天公布的。", "更多情况以后再说。", "以上内容仅供参考。", "详细介绍如下。")
one_piece(("材料中没有说", "根据已知信息无法回答该问题", "初级班", "高级班", "周末班", "暑期班", "公开课", "次列车"))
_FILLERS_EN = ("The news came out yesterday.", "More will be told later.", "All of this is public.")


def _made_up(rng: Random, split: Split, chinese: bool) -> Topic:
    """A topic whose attributes mean nothing, nor its values."""
    made: list[Attribute] = []
    for _ in range(4):
        if chinese:
            phrase, ask = rng.choice((("是", "什么"), ("是", "什么"), ("在", "哪里")))
            phrase = f"的{draw(rng, split, lambda: nonsense(rng, 2))}{phrase}"
            make: Maker = rng.choice((lambda rng: nonsense(rng, 2), _KINDS["port" if ask == "什么" else "city"]))
            made.append(Attribute(f"{{e}}{phrase}{{v}}。", (f"{{e}}{phrase}{ask}",), make))
        else:
            make = rng.choice((lambda rng: word(rng, 2), _KINDS["port"]))
            made.append(_attribute_en(draw(rng, split, lambda: word(rng, 2)), "what", make))
    if chinese:
        return Topic(rng.choice((lambda rng: nonsense(rng, 2), rng.choice(_ZH).name)), tuple(made))
    return Topic(rng.choice((lambda rng: word(rng, 2).capitalize(), rng.choice(_EN).name)), tuple(made))


def _names(rng: Random, split: Split, make: Maker, count: int) -> list[str]:
    """Names of which none holds another."""
    names: list[str] = []
    while len(names) < count:
        name = draw(rng, split, lambda: make(rng))
        if not any(name in other or other in name for other in names):
            names.append(name)
    return names


def _cells(rng: Random, split: Split, topic: Topic, size: int) -> list[tuple[int, Attribute]]:
    """Entities and attributes that are told, in order; a quarter has the same attribute of two entities, which is the
    hardest: it is learned from more.
    """
    attributes = rng.sample(topic.attributes, len(topic.attributes))
    if size > 1 and rng.random() < (0.4 if split == "train" else 0.25):
        return [(entity, attribute) for attribute in attributes for entity in (0, 1)][:size]
    if rng.random() < 0.2:
        return [(rng.randrange(2), attribute) for attribute in attributes[:size]]
    return [(0, attribute) for attribute in attributes[:size]]


def _passage(sentences: list[str], rng: Random, chinese: bool) -> str:
    if rng.random() < 0.1:
        sentences = [*sentences]
        sentences.insert(rng.randint(1, len(sentences)), rng.choice(_FILLERS if chinese else _FILLERS_EN))
    return rng.choice(("" if chinese else " ",) * 4 + ("\n",)).join(sentences)


def _sources(rng: Random, sentences: list[str]) -> tuple[str, dict[str, int]]:
    """Numbered sources of a sentence each, and the number of each: behind it, where quoting comes to it by itself, or in
    front.
    """
    behind = rng.random() < 0.4
    numbers = {sentence: number for number, sentence in enumerate(sentences, 1)}
    return "\n".join(
        f"{text}{' ' * rng.randint(0, 1)}[{number}]" if behind else f"[{number}] {text}"
        for text, number in numbers.items()
    ), numbers


def text(rng: Random, split: Split, chinese: bool, count: int) -> str:
    """So many sentences that have nothing to do with one another, not even what they tell."""
    told = [(topic, attribute) for topic in (_ZH if chinese else _EN) for attribute in topic.attributes]
    rng.shuffle(told)
    sentences = []
    for topic, attribute in {attribute.says: (topic, attribute) for topic, attribute in told}.values():
        (name,) = _names(rng, split, topic.name, 1)
        made = draw(rng, split, partial(attribute.make, rng))
        sentences.append(upper(attribute.says.format(e=name, v=made)))
        if len(sentences) == count:
            break
    return ("" if chinese else " ").join(sentences)


@dataclass(frozen=True)
class Line:
    """A line of a handbook, and how it is asked for."""

    text: str
    question: str


def handbook(rng: Random, split: Split, chinese: bool, count: int = 10) -> tuple[list[Line], list[str]]:
    """Lines about four entities, mixed; and questions about them that no line answers."""
    lines: list[Line] = []
    untold: list[str] = []
    ask = _ASK if chinese else _ASK_EN
    for n, topic in enumerate(rng.sample(_ZH if chinese else _EN, 4)):
        (name,) = _names(rng, split, topic.name, 1)
        for place, attribute in enumerate(rng.sample(topic.attributes, len(topic.attributes))):
            question = rng.choice(ask).format(rng.choice(attribute.asks).format(e=name))
            if place < (count + 3 - n) // 4:
                made = draw(rng, split, partial(attribute.make, rng))
                lines.append(Line(upper(attribute.says.format(e=name, v=made)), upper(question)))
            else:
                untold.append(upper(question))
    rng.shuffle(lines)
    return lines, untold


def sample(rng: Random, split: Split) -> Sample:
    """A passage and a few questions."""
    return draw(rng, split, lambda: _sample(rng, split), lambda made: str(made.messages[0]["content"]))


def _joined(rng: Random, split: Split, entity: str, told: list[tuple[Attribute, str]]) -> str:
    """One sentence of several attributes of the same thing: in Chinese it is named once."""
    clauses = []
    for number, (attribute, made) in enumerate(told):
        ways = [way for way in attribute.other_says if way.startswith("{e}")] if not number else []
        ways = ways or ([way for way in attribute.other_says if "{e}" not in way] if number else [])
        way = choose(rng, form(rng, split, ways)) if ways and rng.random() < 0.75 else attribute.says.rstrip("。")
        if number and way.startswith("{e}"):
            way = way.removeprefix("{e}").removeprefix("的")
        clauses.append(way.format(e=entity, v=made))
    return "，".join(clauses) + "。"


def _told(rng: Random, split: Split, attribute: Attribute, entity: str, made: str) -> str:
    """A sentence that tells an attribute: mostly in the answer's words."""
    ways = [way for way in attribute.other_says if "{e}" in way]
    if not ways or rng.random() < 0.6:
        return upper(attribute.says.format(e=entity, v=made))
    stop = attribute.says[-1]
    return upper(choose(rng, form(rng, split, ways)).format(e=entity, v=made)) + stop


def _asked(rng: Random, split: Split, attribute: Attribute, entity: str, alone: bool, chinese: bool) -> str:
    """A question for an attribute, undressed; of the only thing that a passage tells of, sometimes without its name."""
    ways = attribute.other_asks
    core = choose(rng, form(rng, split, ways)) if ways and rng.random() < 0.6 else rng.choice(attribute.asks)
    if alone and rng.random() < 0.25 and "{e}" in core:
        core = core.replace("{e}'s", "its").replace("{e}", rng.choice(("它", "", "")) if chinese else "it")
        core = core.removeprefix("的")
    return core.format(e=entity)


def _of_whom(rng: Random, attribute: Attribute, made: str, person: bool, chinese: bool) -> str:
    """The other way round: of whom it is told."""
    if chinese:
        who = "谁" if person else rng.choice(("哪个", "什么"))
        return attribute.says.rstrip("。").format(e=who, v=made)
    name = attribute.says.removeprefix("{e}'s ").partition(" is ")[0]
    return f"whose {name} is {made}"


_FILES = "员工手册.docx 产品说明.md 价格表.xlsx 通知.txt 会议纪要.docx 校历.pdf 常见问题.md 公司简介.pdf 使用指南.pdf guide.md report.pdf notes.txt 合同.docx 新闻.html faq.md 年报.pdf README.md 规定.doc".split()
_TITLES = (
    "",
    "",
    "",
    "第一章 总则",
    "第三章 休假",
    "第二节 说明",
    "概述",
    "保修",
    "价格",
    "附录",
    "常见问题",
    "Overview",
    "Contact",
    "背景",
    "联系方式",
    "2024年",
    "一、基本情况",
)


def _passages(rng: Random, parts: list[str]) -> str:
    """Numbered passages with their files, as `chatglm.knowledge` shows them."""
    shown = []
    for number, part in enumerate(parts, 1):
        file = (
            rng.choice(_FILES)
            if rng.random() < 0.7
            else nonsense(rng, rng.randint(2, 4)) + rng.choice((".md", ".pdf", ".docx", ".txt"))
        )
        title = rng.choice(_TITLES) if rng.random() < 0.8 else nonsense(rng, 3)
        page = f"（第 {rng.randint(1, 99)} 页）" if rng.random() < 0.2 else ""
        if title and rng.random() < 0.2:
            title += f" > {rng.choice(_TITLES) or '附则'}"
        shown.append(f"[{number}] 《{file}》{' ' + title if title else ''}{page}\n{part}")
    return "\n\n".join(shown)


def _slots(prompt: str) -> str:
    """A prompt of the package with the slots of this file."""
    return prompt.replace("{context}", "{c}").replace("{question}", "{q}")


def _lines(rng: Random, part: list[str], chinese: bool) -> str:
    """Sentences of a passage: in a row, a line each, or each under a heading."""
    luck = rng.random()
    if luck < 0.5:
        return ("" if chinese else " ").join(part)
    if luck < 0.85:
        return "\n".join(part)
    first = rng.randint(1, 9)
    return "\n\n".join(
        f"## {f'第{n}条' if chinese else f'Rule {n}'}\n\n{sentence}" for n, sentence in enumerate(part, first)
    )


def _sample(rng: Random, split: Split, knowledge: bool = False) -> Sample:
    chinese = rng.random() < 0.65
    topic = _made_up(rng, split, chinese) if rng.random() < MADE_UP else rng.choice(_ZH if chinese else _EN)
    cells = _cells(rng, split, topic, rng.choice((1, 2, 2, 2, 3, 3, 3, 4, 4)))
    if rng.random() < 0.5:
        cells.sort(key=lambda cell: cell[0])  # first all of one, then of the other
    else:
        rng.shuffle(cells)
    entities = _names(rng, split, topic.name, 3)  # of the third nothing is told
    values: dict[tuple[int, Attribute], str] = {}
    for entity, attribute in cells:
        while (made := draw(rng, split, partial(attribute.make, rng))) in entities:
            pass
        values[entity, attribute] = made
    answers = {cell: upper(cell[1].says.format(e=entities[cell[0]], v=made)) for cell, made in values.items()}
    alone = len({entity for entity, _ in cells}) == 1
    joined = chinese and alone and len(cells) > 1 and rng.random() < 0.4
    if joined:
        sentences = [_joined(rng, split, entities[cells[0][0]], [(cell[1], values[cell]) for cell in values])]
    else:
        sentences = [
            _told(rng, split, attribute, entities[entity], values[entity, attribute]) for entity, attribute in values
        ]
    numbers: dict[tuple[int, Attribute], int] = {}
    style = rng.random() * (0.6 if knowledge else 1)
    frames: tuple[str, ...]
    none = "材料中没有说"
    gap, lang = ("", "zh") if chinese else (" ", "en")
    if style < 0.12 and not joined:
        context, by_text = _sources(rng, sentences)
        numbers = {cell: by_text[text] for cell, text in zip(values, sentences, strict=True)}
        frames = _SOURCES if chinese else _SOURCES_EN
    elif style < (0.5 if knowledge else 0.3):
        parts = [[sentence] for sentence in sentences]
        while len(parts) > 1 and rng.random() < 0.5:  # several in one passage
            last = parts.pop()
            parts[-1] += last
        while rng.random() < 0.35 and len(parts) < 5:  # passages of something else
            alone = False
            parts.insert(rng.randint(0, len(parts)), [text(rng, split, chinese, rng.randint(1, 2))])
        places = [n for n, part in enumerate(parts, 1) for sentence in part if sentence in sentences]
        numbers = dict(zip(values, places * (len(values) if joined else 1), strict=False))
        shown = [_lines(rng, part, chinese) for part in parts]
        # What stands around, as files have it.
        if rng.random() < 0.3:
            shown = [
                part + gap + rng.choice(_FILLERS if chinese else _FILLERS_EN) if rng.random() < 0.4 else part
                for part in shown
            ]
        context, frames, none = _passages(rng, shown), (_slots(CITED if chinese else CITED_EN),), NOT_FOUND[lang]
    elif (chinese and style < 0.4) or knowledge:
        context = _passage(sentences, rng, chinese)
        frames, none = (_slots(CLASSIC),), NOT_FOUND["zh"]  # as that prompt demands it
    else:
        context = _passage(sentences, rng, chinese)
        frames = _FREE if chinese else _FREE_EN

    def turn(frames: tuple[str, ...]) -> tuple[str, str]:
        """A question in one of these wordings, and its answer."""
        cell = rng.choice(cells)
        if rng.random() < (0.25 if knowledge else 0.15):
            others = [(e, a) for e in (0, 1, 2) for a in topic.attributes if (e, a) not in values]
            near = [(e, a) for e, a in others if e in dict(cells) or a in {b for _, b in cells}]
            cell = rng.choice(near or others)
        entity, attribute = cell
        core = _asked(rng, split, attribute, entities[entity], alone and entity == cells[0][0], chinese)
        if cell in values and rng.random() < 0.07 and list(values.values()).count(values[cell]) == 1:
            core = _of_whom(rng, attribute, values[cell], topic.name is _person, chinese)
        core = form(rng, split, frames).format(core)
        question = dress(rng, split, core, not chinese, "ask", calm=0.7)
        if made := answers.get(cell):
            number = f"[{numbers[cell]}]" if numbers else ""
            return question, made + number
        if none in NOT_FOUND.values():
            return question, none
        plain = rng.choice(attribute.asks[:1]).format(e=entities[entity])
        if chinese:
            return question, f"{plain}，{none}。"
        return question, f"{upper(plain.split(' is ', 1)[1])} is not given in the text."

    question, answer = turn(("{}",))
    messages = [user(form(rng, split, frames).format(c=context, q=question)), assistant(answer)]
    said = {answer}
    # More is learned of a passage that more is asked of.
    for _ in range(rng.choice((1, 2, 3, 4, 5) if split == "train" else (0, 0, 1, 1, 2, 3))):
        if knowledge and numbers:  # each question has its own passages there
            break
        question, answer = turn(_THEN if chinese else _THEN_EN)
        if answer not in said:  # some ask the same again and are dropped
            said.add(answer)
            messages += [user(question), assistant(answer)]
    return Sample("knowledge" if knowledge else "passages", messages)


def knowledge(rng: Random, split: Split) -> Sample:
    """A question in the knowledge base's prompts; its answer ends with the passage's number."""
    luck = rng.random()
    if luck < 0.12:
        return rewriting(rng, split)
    if luck < 0.32:
        return draw(rng, split, lambda: _searching(rng, split), lambda made: str(made.messages[0]["content"]))
    return draw(rng, split, lambda: _sample(rng, split, knowledge=True), lambda made: str(made.messages[0]["content"]))


def _searching(rng: Random, split: Split) -> Sample:
    """With `search_knowledge` as a tool: a call with the question alone, and an answer with the passage's number."""
    chinese = rng.random() < 0.65
    lang = "zh" if chinese else "en"
    topic = rng.choice(_ZH if chinese else _EN)
    (name,) = _names(rng, split, topic.name, 1)
    schema = json.loads(json.dumps(SEARCH_KNOWLEDGE.given))
    called = "question"
    if rng.random() < 0.25:
        called = rng.choice(("query", "q", "keyword", "text", "search_query"))
        parameters = schema["parameters"]
        parameters["properties"] = {called: parameters["properties"].pop("question")}
        parameters["required"] = [called]
    messages = []
    for attribute in rng.sample(topic.attributes, rng.choice((1, 1, 2))):
        core = _asked(rng, split, attribute, name, False, chinese)
        # It is searched for what was typed: nothing says which of several words for the same was meant, or which name.
        if rng.random() < 0.3:
            core = mistyped(rng, core.replace(name, "{e}"), not chinese).replace("{e}", name)
        core = upper(core) if rng.random() < 0.6 else core
        typed = dress(rng, split, "{q}", not chinese, "ask", {"q": core}, calm=0.5)
        messages += [user(typed), call(SEARCH, {called: core})]
        if rng.random() < 0.15:
            messages += [observation('{"error": "not found"}'), assistant(NOT_FOUND[lang])]
            continue
        made = draw(rng, split, partial(attribute.make, rng))
        told = [_told(rng, split, attribute, name, made)]
        if rng.random() < 0.5:
            told.insert(rng.randint(0, 1), rng.choice(_FILLERS if chinese else _FILLERS_EN))
        parts = [_lines(rng, told, chinese)]
        while rng.random() < 0.45 and len(parts) < 4:
            parts.insert(rng.randint(0, len(parts)), text(rng, split, chinese, rng.randint(1, 2)))
        number = next(n for n, part in enumerate(parts, 1) if all(sentence in part for sentence in told))
        answer = upper(attribute.says.format(e=name, v=made))
        messages += [observation(_passages(rng, parts)), assistant(f"{answer}[{number}]")]
    return Sample("knowledge", messages, [schema])


_SHORTEN = (
    "(请|帮我|麻烦|)(用一句话|简单|简短地|)(总结|概括|归纳|提炼|缩写)(一下|下|)(下面|以下|这段|)(的|)(内容|文字|话|材料|短文|)(：|：\n|\n)[]",
    "(总结|概括|摘要|归纳|一句话总结|一句话概括|主要内容|中心意思|太长不看)(：|:|\n)[]",
    "[]\n\n(请|)(总结|概括|归纳)(一下|上文|上面的内容|这段话|)",
    "[]\n(这段话|上文|上面)(主要|)(讲|说)了什么",
    "(帮我|)把(下面|以下|这|)(这|)段(话|文字)(总结|概括)(一下|)(：|\n)[]",
    "给(下面|这)(的|段)(短文|文字|话)写(一句话|个|)(摘要|总结)(：|\n)[]",
    "下面这段(话|文字)的(大意|要点|主旨)是什么(？|：|)\n[]",
)
_SHORTEN_EN = (
    "(please |can you |)(summarize|summarise|sum up|shorten)( this| the text| the following| the following text|)( in one sentence| briefly|)(: |:\n|.\n)[]",
    "(summary|tl;dr|in short|main point)(: |:\n)[]",
    "[]\n\n(please |)(summarize|summarise|sum up) (this|the text|it)( in one sentence|)",
    "(give|write) (me |)a (short |)summary of (this|the text)(: |:\n)[]",
    "what is (this text|the following) about(? |: |?\n)[]",
    "[]\n(what is the main point|give a short summary)?",
)
_NEWS = (
    "(新的|本市|我校|公司|社区|学校|小店|县里|研究所|剧团|村里)(将|决定|计划|宣布|近日)(于|在|从|)(下月|下周|明年|本周|五月|周末|年底)(起|)(开通|推出|举办|建设|延长|开放|搬迁|修建|停止|更新)(新的|一条|一座|)[thing](项目|服务|展览|课程|市场|工程|)",
    "[who](在[city]|)(开|办|买|做|修|写)(了|好了|成了)(一家|一座|一本|一台|一个)[thing](店|厂|馆|)",
    "[city](今年|去年|最近)(种|卖|做|收到|用)了[n](棵树|件[thing]|次活动|万份[thing])",
    "(调查|报告|数据|专家|老师)(显示|说|认为|表示)(，|)[thing]的(价格|数量|质量|需求)(上涨|下降|增加|提高|变好)了",
)
_MORE_NEWS = (
    "(大家|居民|学生|员工|游客|顾客)(会|可以|都|也能)(更加|)(方便|满意|高兴|受益|参加)",
    "(费用|时间|地点|名单|细节)(另行|稍后|以后|下周)(通知|公布|再定)",
    "(预计|据说|听说)(会有|需要|花费)[n](人|元|天)(参加|完成|)",
    "(欢迎|希望)(大家|各位|广大市民)(参加|品尝|报名|光临|关注)",
    "这(让|使)(人们|他们|生活)(更|)(开心|便利|放心|有趣)",
    "(此前|以前|原来)的[thing](已经|早就|一直)(很|太|)(旧|少|贵|小)(了|)",
)
_NEWS_EN = (
    "(the city|the school|our company|the team|the museum|the village|a small shop) (will|plans to|decided to|is going to) (open|build|plant|close|move|start|repair|sell) (a new [thing]|ten [thing]|the [thing]|more [thing]) (this spring|next week|in May|soon|this year|on Monday)",
    "[who] (won|lost|started|finished|left|opened|bought) (the race|the match|a shop|a book|the job|an old house) (in [town]|today|last week|by two points)",
    "(sales|prices|numbers) of [thing] (rose|fell|doubled) (last year|this month|in [town])",
)
_MORE_NEWS_EN = (
    "(people|visitors|students|workers|neighbors) (can|may|will) (join|sign up online|come|help|save time)",
    "(the coach|the mayor|the boss|[who]) (praised|thanked|invited) (everyone|the young players|the guests)",
    "it (will cost|took|needs) [n] (days|dollars|people)",
    "(more|details|the dates) will (follow|be told) (later|soon|next week)",
    "this (makes|made) (life easier|many people happy|things cheaper)",
)


def _news(rng: Random, split: Split, patterns: tuple[str, ...], chinese: bool) -> str:
    nouns: dict[str, Callable[[], str]] = {
        "thing": lambda: rng.choice(THINGS if chinese else THINGS_EN),
        "who": lambda: _person(rng) if chinese else rng.choice(FIRST),
        "city": lambda: rng.choice(CITIES),
        "town": lambda: rng.choice(TOWNS),
        "n": lambda: str(rng.randint(2, 999)),
    }
    made = choose(rng, form(rng, split, patterns))
    while "[" in made:
        before, _, rest = made.partition("[")
        kind, _, after = rest.partition("]")
        made = before + nouns[kind]() + after
    return upper(made) + ("。" if chinese else ".")


def _entity_text(rng: Random, split: Split, chinese: bool, count: int) -> tuple[list[str], list[str]]:
    """Sentences about so many entities, one after the other, and the first of each."""
    sentences, firsts = [], []
    for topic in rng.sample(_ZH if chinese else _EN, count):
        (name,) = _names(rng, split, topic.name, 1)
        told = rng.sample(topic.attributes, rng.randint(1, 3))
        made = [upper(a.says.format(e=name, v=draw(rng, split, partial(a.make, rng)))) for a in told]
        firsts.append(made[0])
        sentences += made
    return sentences, firsts


def _summary_of_documents(rng: Random, split: Split, chinese: bool, counts: Sequence[int] = (1, 2, 2, 3)) -> Sample:
    """In the prompts of `chatglm.knowledge`: the first sentence of each entity."""
    lang, gap = ("zh", "") if chinese else ("en", " ")
    sentences, firsts = _entity_text(rng, split, chinese, rng.choice(counts))
    luck = rng.random()
    if luck < 0.65:
        body = rng.choice((gap, gap, "\n")).join(sentences)
        prompt = (WHOLE if luck < 0.4 else MAP)[lang].replace("{text}", body)
        return Sample("summary", [user(prompt), assistant(gap.join(firsts))])
    if luck < 0.85:
        more = _entity_text(rng, split, chinese, rng.choice((1, 1, 2)))[1]
        prompt = REDUCE[lang].replace("{text}", gap.join(firsts) + "\n\n" + gap.join(more))
        return Sample("summary", [user(prompt), assistant(gap.join([*firsts, *more]))])
    before = _entity_text(rng, split, chinese, rng.choice((1, 2)))[1]
    prompt = REFINE[lang].replace("{summary}", gap.join(before)).replace("{text}", gap.join(sentences))
    return Sample("summary", [user(prompt), assistant(gap.join([*before, *firsts]))])


_BACK = ("那{k}呢", "{k}呢", "它的{k}呢", "它{k}", "{k}", "那它的{k}", "还有{k}呢", "{k}是什么")
_BACK_EN = ("and its {k}", "what about the {k}", "its {k}", "and the {k}", "{k}")


def rewriting(rng: Random, split: Split) -> Sample:
    """A follow-up in the knowledge base's prompt, as a question that stands alone."""

    def make() -> Sample:
        chinese = rng.random() < 0.62
        topic = rng.choice(_ZH if chinese else _EN)
        one, two = _names(rng, split, topic.name, 2)
        first, second = rng.sample(topic.attributes, 2)
        mark = "？" if chinese else "?"
        question = upper(first.asks[0].format(e=one)) + rng.choice((mark, mark, ""))
        answer = upper(first.says.format(e=one, v=draw(rng, split, partial(first.make, rng))))
        if rng.random() < 0.5:  # the same of another
            follow = form(
                rng,
                split,
                ("那{}呢", "{}呢", "那么{}呢", "换成{}呢") if chinese else ("and {}", "what about {}", "how about {}"),
            ).format(two)
            whole = first.asks[0].format(e=two)
        else:
            phrase = second.says.partition("{v}")[0].removeprefix("{e}")
            key = (
                phrase.removeprefix("的").removesuffix("是")
                if chinese
                else phrase.removeprefix("'s ").partition(" is")[0]
            )
            asks = (
                [each.replace("{e}", "它") for each in second.asks]
                if chinese
                else [each.replace("{e}'s", "its") for each in second.asks]
            )
            follow = (
                rng.choice(asks)
                if rng.random() < 0.4
                else form(rng, split, _BACK if chinese else _BACK_EN).format(k=key)
            )
            whole = second.asks[0].format(e=one)
        lang = "zh" if chinese else "en"
        who = ("问：", "答：") if chinese else ("Q: ", "A: ")
        prompt = (
            _REWRITE[lang]
            .replace("{context}", f"{who[0]}{question}\n{who[1]}{answer}")
            .replace("{question}", upper(follow) + rng.choice((mark, mark, "")))
        )
        return Sample("knowledge", [user(prompt), assistant(upper(whole) + mark)])

    return draw(rng, split, make, lambda made: str(made.messages[0]["content"]))


def long_summary(rng: Random, split: Split) -> Sample:
    """Of documents that tell of several things: where the next one begins is all that is hard in a summary."""
    return draw(
        rng,
        split,
        lambda: _summary_of_documents(rng, split, rng.random() < 0.62, (2, 2, 3, 3, 4)),
        lambda made: str(made.messages[0]["content"]),
    )


def summary(rng: Random, split: Split) -> Sample:
    """A text, and the sentence of it that says most: the first."""

    def make() -> Sample:
        chinese = rng.random() < 0.62
        if rng.random() < 0.4:
            return _summary_of_documents(rng, split, chinese)
        gap = "" if chinese else " "
        kind = rng.random()
        if kind < 0.3:
            whole = text(rng, split, chinese, rng.randint(2, 4))
            first = whole[: whole.index("。") + 1] if chinese else whole.split(". ")[0].rstrip(".") + "."
        elif kind < 0.45:  # that mean nothing
            parts = [
                nonsense(rng, rng.randint(5, 12)) + "。"
                if chinese
                else upper(" ".join(word(rng, 2) for _ in range(rng.randint(3, 7)))) + "."
                for _ in range(rng.randint(2, 4))
            ]
            first, whole = parts[0], gap.join(parts)
        else:
            first = _news(rng, split, _NEWS if chinese else _NEWS_EN, chinese)
            more = [
                _news(rng, split, _MORE_NEWS if chinese else _MORE_NEWS_EN, chinese) for _ in range(rng.randint(1, 3))
            ]
            whole = gap.join([first, *more])
        asked = choose(rng, form(rng, split, _SHORTEN if chinese else _SHORTEN_EN))
        asked = upper(asked) if rng.random() < 0.7 else asked
        return Sample("summary", [user(asked.replace("[]", whole)), assistant(first)])

    return draw(rng, split, make, lambda made: str(made.messages[0]["content"]))
