"""Answering from a passage: the answer is the sentence that tells it, or says that none does.

Every attribute has one phrase that ends just before the value. Question, sentence and answer all begin with it, so an
answer is a copy up to the value, and only there is it decided what is told, or whether anything is.
"""

# ruff: noqa: SIM905
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from .base import CITIES, FIRST, GIVEN, SURNAMES, TOWNS, Sample, Split, assistant, draw, nonsense, one_piece, user
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


def _attributes(lines: str) -> tuple[Attribute, ...]:
    """One attribute a line: phrase | what stands for the value in questions | kind of value."""
    made = []
    for line in lines.split():
        phrase, asks, kind = line.split("|")
        one_piece((phrase, *asks.split("/")))
        made.append(
            Attribute(f"{{e}}{phrase}{{v}}。", tuple(f"{{e}}{phrase}{ask}" for ask in asks.split("/")), _KINDS[kind])
        )
    return tuple(made)


def _attribute_en(name: str, asks: str, make: Maker) -> Attribute:
    place = "in " if asks == "where" else ""
    return Attribute(f"{{e}}'s {name} is {place}{{v}}.", (f"{asks} is {{e}}'s {name}",), make)


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
_THEN = ("{}？", "那{}？", "那{}呢？", "还有，{}？")
_THEN_EN = ("{}?", "And {}?", "Also, {}?")

_FREE = (
    "{c}\n\n{q}",
    "{c}\n\n{q}",
    "{c}\n{q}",
    "材料：{c}\n问题：{q}",
    "阅读材料，回答问题。\n{c}\n{q}",
    "{q}\n\n{c}",
    "{q}\n材料：{c}",
)
_FREE_EN = (
    "{c}\n\n{q}",
    "{c}\n\n{q}",
    "{c}\n{q}",
    "Text: {c}\nQuestion: {q}",
    "Read the text and answer.\n{c}\n{q}",
    "{q}\n\n{c}",
    "{q}\nText: {c}",
)
KNOWLEDGE_BASE = (
    "已知信息：\n{c} \n\n根据上述已知信息，简洁和专业的来回答用户的问题。如果无法从中得到答案，请说 “根据已知信息无法回答该问题” "
    "或 “没有提供足够的相关信息”，不允许在答案中添加编造成分，答案请使用中文。 问题是：{q}"
)
SOURCES = "参考资料：\n{c}\n\n请根据参考资料回答问题，并标出引用的编号。\n问题：{q}"
SOURCES_EN = "References:\n{c}\n\nAnswer the question from the references and give the number of the one you quote.\nQuestion: {q}"

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


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


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


def _sources(sentences: list[str], chinese: bool) -> tuple[str, dict[str, int]]:
    """Numbered sources of a sentence each, and the number of each: behind it, where quoting comes to it by itself."""
    numbers = {sentence: number for number, sentence in enumerate(sentences, 1)}
    return "\n".join(f"{text}{'' if chinese else ' '}[{number}]" for text, number in numbers.items()), numbers


def text(rng: Random, split: Split, chinese: bool, count: int) -> str:
    """So many sentences that have nothing to do with one another, not even what they tell."""
    told = [(topic, attribute) for topic in (_ZH if chinese else _EN) for attribute in topic.attributes]
    rng.shuffle(told)
    sentences = []
    for topic, attribute in {attribute.says: (topic, attribute) for topic, attribute in told}.values():
        (name,) = _names(rng, split, topic.name, 1)
        made = draw(rng, split, partial(attribute.make, rng))
        sentences.append(_upper(attribute.says.format(e=name, v=made)))
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
                lines.append(Line(_upper(attribute.says.format(e=name, v=made)), _upper(question)))
            else:
                untold.append(_upper(question))
    rng.shuffle(lines)
    return lines, untold


def sample(rng: Random, split: Split) -> Sample:
    """A passage and a few questions."""
    return draw(rng, split, lambda: _sample(rng, split), lambda made: str(made.messages[0]["content"]))


def _sample(rng: Random, split: Split) -> Sample:
    chinese = rng.random() < 0.62
    topic = _made_up(rng, split, chinese) if rng.random() < MADE_UP else rng.choice(_ZH if chinese else _EN)
    cells = _cells(rng, split, topic, rng.choice((1, 2, 2, 2, 3, 3, 3, 4, 4)))
    if rng.random() < 0.5:
        cells.sort(key=lambda cell: cell[0])  # first all of one, then of the other
    else:
        rng.shuffle(cells)
    entities = _names(rng, split, topic.name, 3)  # of the third nothing is told
    told: dict[tuple[int, Attribute], str] = {}
    for entity, attribute in cells:
        while (made := draw(rng, split, partial(attribute.make, rng))) in entities:
            pass
        told[entity, attribute] = attribute.says.format(e=entities[entity], v=made)
    sentences = [_upper(text) for text in told.values()]
    numbers: dict[str, int] = {}
    style = rng.random()
    frames: tuple[str, ...]
    none = "材料中没有说"
    if style < 0.25:
        context, numbers = _sources(sentences, chinese)
        frames = (SOURCES if chinese else SOURCES_EN,)
    elif chinese and style < 0.4:
        context = _passage(sentences, rng, chinese)
        frames = (KNOWLEDGE_BASE,)
        none = "根据已知信息无法回答该问题"  # as that prompt demands it
    else:
        context = _passage(sentences, rng, chinese)
        frames = _FREE if chinese else _FREE_EN

    def turn(asks: Callable[[str], str]) -> tuple[str, str]:
        """A question in one of these wordings, and its answer."""
        cell = rng.choice(cells)
        if rng.random() < 0.15:
            others = [(e, a) for e in (0, 1, 2) for a in topic.attributes if (e, a) not in told]
            near = [(e, a) for e, a in others if e in dict(cells) or a in {b for _, b in cells}]
            cell = rng.choice(near or others)
        entity, attribute = cell
        core = rng.choice(attribute.asks).format(e=entities[entity])
        if text := told.get(cell):
            text = _upper(text)
            number = f"{'' if chinese else ' '}[{numbers[text]}]" if numbers else ""
            return asks(core), text + number
        if chinese:
            return asks(core), f"{core}，{none}。"
        return asks(core), f"{_upper(core.split(' is ', 1)[1])} is not given in the text."

    def asked(forms: tuple[str, ...]) -> Callable[[str], str]:
        return lambda core: _upper(rng.choice(forms).format(core)) if not chinese else rng.choice(forms).format(core)

    question, answer = turn(asked(_ASK if chinese else _ASK_EN))
    messages = [user(rng.choice(frames).format(c=context, q=question)), assistant(answer)]
    said = {answer}
    # More is learned of a passage that more is asked of.
    for _ in range(rng.choice((1, 2, 3, 4, 5) if split == "train" else (0, 0, 1, 1, 2, 3))):
        question, answer = turn(asked(_THEN if chinese else _THEN_EN))
        if answer not in said:  # some ask the same again and are dropped
            said.add(answer)
            messages += [user(question), assistant(answer)]
    return Sample("passages", messages)
