"""What the second phase of training practises: handbooks, rules that are quoted, lists of fields.

The first phase has at most four sentences about two things in a passage. Here there are up to twelve about five, and
nearly half of the questions have no answer in them: to say so, the model has to look for the thing and for what is asked
of it at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from random import Random
from typing import Any, Literal, NamedTuple

from chatglm.knowledge.answering import CITED, CITED_EN, CLASSIC, NOT_FOUND

from .base import CITIES, FIRST, GIVEN, SURNAMES, TOWNS, Sample, Split, assistant, draw, form, nonsense, user
from .passages import _EN as TOPICS_EN
from .passages import _FREE as FREE
from .passages import _FREE_EN as FREE_EN
from .passages import _THEN as THEN
from .passages import _THEN_EN as THEN_EN
from .passages import _ZH as TOPICS
from .passages import Attribute, _asked, _clock, _evening, _lines, _names, _passages, _place, _slots, _told
from .vocabulary import MONTHS_EN, THINGS, word
from .wording import choose, dress, spread, upper

UNTOLD = 0.45
"""Share of the questions that nothing answers."""

_UNTOLD = ("This is not given in the text.", "材料中没有说。")
"""In free words, where questions are asked in so many ways that the answer does not repeat them."""

Kind = Literal["cited", "classic", "free"]


@dataclass(frozen=True)
class Question:
    """A question, undressed; the sentence that answers it, or None; and how it is said in free words that none does."""

    core: str
    answer: str | None
    untold: str
    source: int = 0
    """Place of the sentence in the text."""


def _dialogue(
    rng: Random,
    split: Split,
    chinese: bool,
    sentences: Sequence[str],
    asked: Sequence[Question],
    shares: tuple[int, int, int] = (6, 1, 3),
) -> Sample:
    """Questions about a text, in one of the prompts that texts come in; `shares` are those of cited, classic and free."""
    kind: Kind = rng.choices(("cited", "classic", "free"), shares)[0]  # type: ignore[assignment]
    numbers: list[int] = []
    if kind == "cited":
        parts = _grouped(rng, sentences)
        numbers = [number for number, part in enumerate(parts, 1) for _ in part]
        context = _passages(rng, [_lines(rng, part, chinese) for part in parts])
        frames: tuple[str, ...] = (_slots(CITED if chinese else CITED_EN),)
    else:
        context = rng.choice(("" if chinese else " ", "\n")).join(sentences)
        frames = (_slots(CLASSIC),) if kind == "classic" else FREE if chinese else FREE_EN
    none = NOT_FOUND["zh" if chinese or kind == "classic" else "en"]
    messages: list[dict[str, Any]] = []
    said: set[str] = set()
    for question in asked:
        core = form(rng, split, THEN if chinese else THEN_EN).format(question.core) if messages else question.core
        typed = dress(rng, split, core, not chinese, "ask", calm=0.7)
        if question.answer is None:
            answer = question.untold if kind == "free" else none
        else:
            answer = question.answer + (f"[{numbers[question.source]}]" if numbers else "")
        if answer in said:
            continue
        said.add(answer)
        if not messages:
            typed = form(rng, split, frames).format(c=context, q=typed)
        messages += [user(typed), assistant(answer)]
    return Sample("knowledge" if kind == "cited" else "passages", messages)


def _grouped(rng: Random, sentences: Sequence[str]) -> list[list[str]]:
    """All in one passage, each in one of its own, or something between."""
    luck = rng.random()
    joined = 1.0 if luck < 0.4 else 0.5 if luck < 0.65 else 0.0
    parts = [[sentences[0]]]
    for sentence in sentences[1:]:
        if rng.random() < joined:
            parts[-1].append(sentence)
        else:
            parts.append([sentence])
    return parts


def _first(sample: Sample) -> str:
    return str(sample.messages[0]["content"])


# Handbooks


def handbook(rng: Random, split: Split) -> Sample:
    """Lines about several things, mixed, and questions about them."""
    return draw(rng, split, lambda: _handbook(rng, split), _first)


def _handbook(rng: Random, split: Split) -> Sample:
    chinese = rng.random() < 0.6
    told: list[tuple[str, Attribute]] = []
    untold: list[tuple[str, Attribute]] = []
    for topic in rng.sample(TOPICS if chinese else TOPICS_EN, rng.choice((1, 2, 2, 3, 3, 4, 4, 5))):
        one, other = _names(rng, split, topic.name, 2)
        attributes = rng.sample(topic.attributes, len(topic.attributes))
        count = rng.choice((1, 1, 2, 2, 3, 3, 4))
        told += [(one, attribute) for attribute in attributes[:count]]
        untold += [(one, attribute) for attribute in attributes[count:]] * 2
        for attribute in attributes[:count]:  # another of its kind is near, too: named, or told of
            if rng.random() < 0.25:
                told.append((other, attribute))
            else:
                untold.append((other, attribute))
    rng.shuffle(told)
    told = told[:12]
    values = [draw(rng, split, partial(attribute.make, rng)) for _, attribute in told]
    plain = rng.random() < 0.6
    sentences = []
    for (name, attribute), value in zip(told, values, strict=True):
        made = upper(attribute.says.format(e=name, v=value))
        sentences.append(made if plain else _told(rng, split, attribute, name, value))
    untold = [cell for cell in untold if cell not in told]
    asked = []
    for _ in range(rng.choice((1, 2, 3, 4)) if split == "train" else 1):
        lacks = bool(untold) and rng.random() < UNTOLD
        place = rng.randrange(len(told))
        name, attribute = rng.choice(untold) if lacks else told[place]
        answer = None if lacks else upper(attribute.says.format(e=name, v=values[place]))
        usual = attribute.asks[0].format(e=name)
        said = (
            f"{usual}，材料中没有说。" if chinese else f"{upper(usual.split(' is ', 1)[1])} is not given in the text."
        )
        asked.append(Question(_asked(rng, split, attribute, name, False, chinese), answer, said, place))
    return _dialogue(rng, split, chinese, sentences, asked)


# Rules and notices


def _some(*words: str) -> Callable[[Random], str]:
    """One of these words, or one that means nothing."""

    def make(rng: Random) -> str:
        if rng.random() < 0.25:
            return word(rng, 2) if words[0].isascii() else nonsense(rng, rng.choice((2, 2, 3)))
        return rng.choice(words)

    return make


def _number(rng: Random) -> str:
    return str(rng.randint(2, rng.choice((12, 99, 999, 9999))))


_GOODS_EN = (
    "umbrella",
    "lamp",
    "kettle",
    "printer",
    "camera",
    "bike",
    "phone",
    "drill",
    "ladder",
    "tent",
    "blanket",
    "radio",
    "fridge",
    "clock",
    "helmet",
    "key",
    "charger",
    "heater",
    "fan",
    "mirror",
)
_SLOTS: dict[str, Callable[[Random], str]] = {
    "n": _number,
    "m": _number,
    "who": lambda rng: rng.choice(SURNAMES) + rng.choice((*"".join(rng.choices(GIVEN, k=3)), "经理", "老师", "主任", "医生")),
    "person": lambda rng: rng.choice(SURNAMES) + "".join(rng.choices(GIVEN, k=rng.choice((1, 2)))),
    "group": _some("职工", "学员", "实习生", "会员", "住户", "老师", "司机", "队员", "读者", "客人"),
    "leave": _some("婚假", "产假", "事假", "调休", "探亲假", "寒假", "丧假", "公休", "护理假"),
    "doc": _some("周报", "作业", "论文", "申请表", "发票", "体检表", "合同", "简历", "月报", "借书证", "成绩单", "保险单", "预算表", "车票"),
    "dept": _some("人事部", "办公室", "教务处", "前台", "市场部", "后勤处", "行政部", "技术部", "图书室", "保安室", "客服", "采购部"),
    "when": lambda rng: rng.choice((f"每月{rng.randint(1, 28)}日", f"每周{rng.choice('一二三四五')}", f"{rng.randint(1, 12)}月{rng.randint(1, 28)}日", f"星期{rng.choice('一二三四五六日')}", "月底", "年底", f"{rng.randint(2, 30)}天内")),
    "date": lambda rng: f"{rng.randint(1, 12)}月{rng.randint(1, 28)}日",
    "day": lambda rng: f"{rng.randint(1, 12)}月{rng.randint(1, 28)}日",
    "month": lambda rng: rng.choice("一 二 三 四 五 六 七 八 九 十 十一 十二".split()) + "月",  # noqa: SIM905
    "clock": _clock,
    "evening": _evening,
    "room": lambda rng: rng.choice((f"{rng.randint(101, 999)}室", f"{rng.choice('一二三四五六')}楼大厅", "地下室", "东门", "仓库", f"{rng.choice('ABCD')}座", f"{rng.choice('一二三四')}号楼", "操场", "礼堂")),
    "place": lambda rng: _place(rng) + rng.choice("园 店 楼 馆 桥 山 岛 湖 站 寺".split()),  # noqa: SIM905
    "shop": _some("食堂", "超市", "药店", "咖啡厅", "健身房", "游泳馆", "书店", "邮局", "体育馆", "停车场", "展厅", "阅览室", "理发店", "花店"),
    "thing": _some(*THINGS),
    "item": _some(*THINGS),
    "plant": _some("荷花", "菊花", "梅花", "杏花", "樱桃", "柿子", "玉米", "葡萄", "茶叶", "水稻", "枇杷", "石榴"),
    "event": _some("运动节", "画展", "夏令营", "培训", "比赛", "讲座", "年会", "招聘会", "音乐节", "毕业典礼", "报名", "义卖", "开学典礼"),
    "city": lambda rng: nonsense(rng) if rng.random() < 0.15 else rng.choice(CITIES),
    "code": lambda rng: "".join(rng.choices("abcdefghkmnprstxyABCDEFGH0123456789", k=rng.randint(3, 6))),
    "job": _some("厨师", "护士", "律师", "画家", "记者", "工程师", "会计", "导游", "农民", "司机", "飞行员", "演员"),
    # English
    "Who": lambda rng: word(rng, 2).capitalize() if rng.random() < 0.2 else rng.choice(FIRST),
    "shops": _some("gym", "library", "canteen", "bakery", "garden", "market", "office", "shop", "zoo", "bank", "cinema", "station"),
    "goods": _some(*_GOODS_EN),
    "wares": _some(*_GOODS_EN),
    "paper": _some("report", "form", "application", "invoice", "essay", "contract", "survey", "timesheet", "homework"),
    "Day": lambda rng: f"{rng.choice(MONTHS_EN)} {rng.randint(1, 28)}",
    "hour": lambda rng: f"{rng.randint(1, 12)}{rng.choice(('', ':30'))} {rng.choice(('am', 'pm'))}",
    "town": lambda rng: word(rng, 2).capitalize() if rng.random() < 0.2 else rng.choice(TOWNS),
    "where": _some("the basement", "the main hall", "the kitchen", "building 3", "the second floor", "room 12", "the red box", "the drawer"),
    "meet": _some("meeting", "concert", "course", "party", "exam", "workshop", "tour", "lecture", "race", "show"),
}  # fmt: skip
"""What sentences are filled with. Slots of a rule are filled once, so that its questions name the same things."""

# A sentence, and # behind it what is asked of it. "(a|b)" is one of them; slots stand in {}.
_RULES = tuple(
    """{group}(每年|每月|一年|每学期)(可以|能|最多|可)(休|请){n}天{leave}。#{leave}(可以|能|)(休|请|有)(几天|多少天|多久);{group}(可以|能)(休|请)(几天|多少天){leave};{leave}是(几天|多少天)
{leave}(一共|共|为|有|是){n}天。#{leave}(有|是|一共|)(几天|多少天|多久|多长)
{doc}(要|须|应|必须|)(在|){when}(之前|前|以前)(交|提交|送|上交)(给|到|至){dept}。#{doc}(什么时候|哪天|几号)(交|之前交|提交|截止);{doc}(交给|提交给|送给)(谁|哪个部门);{doc}(要|)交(到|给)(哪里|谁|哪)
{doc}(由|归){dept}(负责|审批|保管|发放|管理)。#{doc}(由|归|是)(谁|哪个部门)(负责|审批|保管|发放|管理)(的|);谁(负责|管){doc}
(领取|办理|补办|打印){doc}(要|需要|需|请){n}元。#{doc}(要|收|)(多少钱|几块钱|几元)
(办理|审核|修改){doc}(要|需要|需){n}天。#{doc}(要|办|办理|审核)(多久|几天|多长时间)
{shop}(每天|平日|周末|)(从|){clock}(开门|开放|营业)(，|到|至){evening}(关门|停止营业|为止|结束)。#{shop}(几点|什么时候)(开门|关门|开放|营业|开始营业);{shop}(开到|营业到)(几点|什么时候)
{shop}(在|位于|设在|搬到了){room}。#{shop}(在|位于|搬到)(哪|哪里|哪儿|几楼|哪个地方);(怎么去|去哪找){shop}
{shop}(禁止|不许|不准)(吸烟|拍照|带宠物|大声说话|饮食)。#{shop}(可以|能|允许)(吸烟|拍照|带宠物|吃东西)吗;在{shop}不能做什么
{thing}(放|存放|锁|收)在{room}。#{thing}(放|存|)在(哪|哪里|哪儿)(了|);(去哪|哪里)(拿|找){thing}
{thing}的(密码|账号|型号|编号)(是|为){code}。#{thing}的(密码|账号|型号|编号)(是|)(什么|多少)
{thing}(卖|每个|一件|){n}元，{item}(卖|每个|一件|){m}元。#{thing}(多少钱|几块钱|怎么卖|要多少元);{item}(多少钱|几块钱|怎么卖|要多少元)
{thing}(充满|用完|晾干|修好)(一次|)(要|需要|需|大约要){n}(小时|分钟)。#{thing}要(多久|多长时间|几小时|几分钟)(充满|用完|晾干|修好);{thing}(多久|多长时间)
{thing}(可以|能|可)(用|连续使用|坚持){n}(小时|分钟|天)。#{thing}(可以|能)(用|使用)(多久|多长时间|几小时|几天)
{thing}(从{city}|自{city})(运来|进口|发货)。#{thing}(从|是从|是)(哪里|哪儿)(运来|进口|发货|来)(的|)
{thing}坏了(请|要|可以)(找|联系|打给){who}。#{thing}坏了(找|联系|打给)(谁|哪位|哪个);谁(修|管){thing}
{plant}(在|一般在|每年|多在){month}(开花|成熟|上市|收获)。#{plant}(几月|什么时候|哪个月)(开花|成熟|上市|收获|开);{plant}是几月的
{event}(从|自|于|将于){date}(开始|起|开幕)，{day}结束。#{event}(什么时候|哪天|几号)(开始|结束|开幕);{event}从哪天开始
{event}(在|将在|于){room}(举行|进行|开|举办)。#{event}(在|)(哪|哪里|哪儿|什么地方)(举行|开|进行|举办|)
{event}由{who}(主持|负责|组织)。#(谁|哪位)(主持|负责|组织){event};{event}(是|由|)(谁|哪位)(主持|负责|组织)的
{event}(有|一共有|共有|来了){n}(人|名学生|个家庭)(参加|报名|)。#{event}(有|)(多少|几个|几)人(参加|报名|来);多少人(参加|报名)(了|){event}
{person}(住|住在|生活在|搬到了){city}。#{person}住(在|)(哪|哪里|哪儿|哪个城市);{person}(在|搬到)哪里
{person}在{city}(工作|上班|读书)。#{person}在(哪|哪里|哪儿)(工作|上班|读书)
{person}(是|当了|做)(一名|){job}。#{person}(是|)(做|干)什么(的|工作);{person}的(工作|职业)(是|)什么
{person}(买了|带了|喜欢|丢了){thing}。#{person}(买|带|喜欢|丢)了(什么|啥);谁(买|带|喜欢|丢)了{thing}
{person}(坐在|站在|在){room}(等|开会|值班)。#{person}在(哪|哪里|哪儿)(等|开会|值班|)
{place}(高|长|深|宽){n}米，(建于|修于|发现于){m}年。#{place}(有|)(多高|多长|多深|多宽);{place}(是|)(哪年|什么时候)(建|修|发现)的
{place}(全长|总长)(是|为|约|){n}(米|公里)。#{place}(有|)多长;{place}的(全长|长度)(是|)(多少|)
{place}高度(是|为|约|){n}米。#{place}(有|)多高;{place}的高度(是|)(多少|)
{place}面积(是|为|约|){n}亩。#{place}(有|)多大;{place}的面积(是|)(多少|)
{place}(有|住着|共有){n}(户人|个人|只鸟|棵树|家店)，(盛产|出产){plant}。#{place}(有|住着|共有)多少(户|人|鸟|树|店);{place}(盛产|出产)(什么|啥)
{place}(离|距|距离){city}(有|){n}(公里|千米|里)。#{place}(离|到|距){city}(有|)(多远|几公里|多少公里)
(系统|网站|后台|接口|程序)的(端口|超时|上限|版本)(是|为|设为){n}。#(系统|网站|后台|接口|程序|)(的|)(端口|超时|上限|版本)(是|)(多少|几)
(数据|日志|备份|照片|文件)(放|存|保存)在 /{code}/{code} (下面|里|目录)。#(数据|日志|备份|照片|文件)(放|存|保存|)在(哪|哪里|哪儿|哪个目录)
(重启|停止|更新|安装)(服务|程序|系统|电脑)(要|需要|请)(用|找|输入){code}。#(重启|停止|更新|安装)(服务|程序|系统|电脑)(要|需要)(用|)(什么|谁);怎么(重启|停止|更新|安装)(服务|程序|系统|电脑)
(公司|学校|酒店|工厂|医院)(决定|宣布|通知)(从|){when}(起|开始)(增加|取消|调整){shop}的(班次|时间|价格)。#(公司|学校|酒店|工厂|医院)(决定|宣布|通知)(了|)什么;{shop}(从|)(什么时候|哪天)(开始|)(调整|增加|取消)
{thing}在(保修|退货|换货)期内(坏了|出问题)(免费|可以)(修|换|退)。#{thing}(坏了|出问题)(怎么办|能换吗|免费吗)
(保修|退货|换货|试用|质保)期(为|是|有)(一年|两年|半年|三年|{n}天|{n}个月)。#(保修|退货|换货|试用|质保)(期|)(是|有|)(多久|多长|几年|几天|几个月)""".splitlines()
)
_RULES_EN = tuple(
    """the {shops} is open from {hour} (to|until) {hour}.#when (does|is) the {shops} (open|close);what are the opening hours of the {shops};how long is the {shops} open
the {shops} opens at {hour}.#when does the {shops} open;what time does the {shops} open;when is the {shops} open
the {shops} (is|lies) (in|behind|next to) {where}.#where is the {shops};where can i find the {shops}
(the |){goods} (costs|cost) {n} (dollars|euros|yuan).#how much (is|are|does|do) (the |){goods}( cost|);what (is the price of|do i pay for) (the |){goods}
a {goods} is {n} dollars, a {wares} is {m} dollars.#how much is (a|the) {goods};how much is (a|the) {wares};what does (a|the) {wares} cost
(entry|parking|breakfast|a ticket|the tour) (costs|is) {n} dollars( a day| per person|).#how much (is|does) (entry|parking|breakfast|a ticket|the tour)( cost|);what does (entry|parking|breakfast|a ticket|the tour) cost
the {meet} (starts|begins) at {hour}.#when does the {meet} (start|begin);what time is the {meet}
the {meet} (is|takes place) on {Day}.#when is the {meet};on which day is the {meet};what is the date of the {meet}
the {meet} is (held|given|led) by {Who}.#who (holds|gives|leads) the {meet};by whom is the {meet} (held|given|led)
{n} people came to the {meet}.#how many people came to the {meet};how many (guests|people) were at the {meet}
{Who} lives in {town}.#where does {Who} live;which town does {Who} live in
{Who} works (at|in) the {shops}.#where does {Who} work;who works (at|in) the {shops}
{Who} (bought|just bought) a {goods}.#what did {Who} buy;who bought (a|the) {goods}
{Who} lost (a|the) {goods}.#what did {Who} lose;who lost (a|the) {goods}
{Who} found a {goods}.#what did {Who} find;who found (a|the) {goods}
{Who} has {n} {goods}s.#how many {goods}s does {Who} have
send the {paper} to {Who} before {Day}.#who gets the {paper};when is the {paper} due;where do i send the {paper}
the {paper} is due on {Day}.#when is the {paper} due;what is the deadline (for|of) the {paper}
the {goods} (is|are) (kept|stored|locked) in {where}.#where (is|are) the {goods}( kept|);where can i find the {goods}
the (password|code|number) of the {goods} is {code}.#what is the (password|code|number) of the {goods}
guests need a {goods}.#what do guests need
the {goods} (runs|works|lasts) for {n} (hours|days|minutes).#how long does the {goods} (run|work|last)
charging the {goods} takes {n} (hours|minutes).#how long does charging the {goods} take;how long do i charge the {goods}
if the {goods} breaks, (call|ask|tell) {Who}.#who do i (call|ask|tell) if the {goods} breaks;the {goods} is broken, who (helps|do i call)""".splitlines()
)
_LEADS = ("", "", "", "", "注意：", "通知：", "另外，", "今年", "按规定，")
_SLOT = re.compile(r"\{(\w+)\}")
_CHOICE = re.compile(r"\(([^()]*)\)")


def quoting(rng: Random, split: Split) -> Sample:
    """Rules and notices of every kind. An answer is the sentence that has it, as it stands."""
    return draw(rng, split, lambda: _quoting(rng, split), _first)


class _Rule(NamedTuple):
    """A sentence, what leads to it, its questions, and what these ask of: two that share some of it ask the same."""

    sentence: str
    lead: str
    questions: list[str]
    subjects: frozenset[tuple[str, ...]]


def _rule(rng: Random, chinese: bool, rule: str) -> _Rule:
    says, _, asks = rule.partition("#")
    given = {slot: _SLOTS[slot](rng) for slot in sorted(set(_SLOT.findall(rule)))}
    said = choose(rng, says)
    literal = _SLOT.sub("", said)
    questions = [_alike(rng, literal, ask).format_map(given) for ask in asks.split(";")]
    fixed = {each for group in _CHOICE.findall(says) for each in group.split("|") if len(each) > 1 and each in literal}
    subjects: set[tuple[str, ...]] = set()
    for ask in asks.split(";"):
        slots = tuple(given[slot] for slot in _SLOT.findall(ask))
        words = {(each,) for group in _CHOICE.findall(ask) for each in group.split("|") if each in fixed}
        subjects |= {slots} if slots else words or {(ask,)}
    sentence = said.format_map(given)
    return _Rule(
        sentence if chinese else upper(sentence), rng.choice(_LEADS) if chinese else "", questions, frozenset(subjects)
    )


@cache
def _asks(rule: str) -> frozenset[str]:
    """Everything that is asked of what a rule says."""
    return frozenset(spread(*rule.partition("#")[2].split(";")))


def _alike(rng: Random, said: str, ask: str) -> str:
    """A question that makes its choices as the sentence made them: where that says 高, it does not ask 多长."""

    def one(found: re.Match[str]) -> str:
        choices = found[1].split("|")
        same = [each for each in choices if (word := each.lstrip("多几")) and word in said]
        return rng.choice(same or choices)

    return _CHOICE.sub(one, ask)


def _quoting(rng: Random, split: Split) -> Sample:
    chinese = rng.random() < 0.65
    rules: list[str] = []
    for rule in rng.sample(_RULES if chinese else _RULES_EN, rng.choice((2, 3, 3, 4, 4, 5, 6, 8))):
        if not any(_asks(rule) & _asks(other) for other in rules):  # when it opens, and from when to when it is open
            rules.append(rule)
    made = [_rule(rng, chinese, rule) for rule in rules]
    told = [*made]
    for first, rule in zip(made, rules, strict=True):  # the same is told of another thing
        if rng.random() < 0.3:
            other = _rule(rng, chinese, rule)
            if not other.subjects & first.subjects:
                told.append(other)
    # Of the last ones nothing is told, and of them it is asked.
    missing = [told.pop(rng.randrange(len(told))) for _ in range(min(len(told) - 1, rng.choice((1, 1, 2))))]
    rng.shuffle(told)
    asked = []
    for _ in range(rng.choice((1, 2, 3)) if split == "train" else 1):
        lacks = bool(missing) and rng.random() < UNTOLD * 0.8
        place = rng.randrange(len(told))
        core = rng.choice((rng.choice(missing) if lacks else told[place]).questions)
        asked.append(Question(core, None if lacks else told[place].sentence, _UNTOLD[chinese], place))
    return _dialogue(rng, split, chinese, [rule.lead + rule.sentence for rule in told], asked)


# Lists of fields

# Name / other names # questions | kind of value
_FIELDS = tuple(
    """时间/开始时间/日期#(什么时候|几点|哪天)(开始|);是什么时候|when
地点/地址/位置#在(哪|哪里|哪儿)(开|举行|);(地方|地址)(在|是)哪|room
主持人/负责人/组织者#(谁|哪位)(主持|负责|组织)(的|);负责的人是谁|who
联系人/联系电话/电话#(联系|打给|找)谁;(怎么|如何)联系|who
人数/参加人数/名额#(有|)(多少|几)(个|)人(参加|);能报多少人|n
费用/价格/票价#(要|)(多少钱|几块钱);(贵吗|怎么收费)|n
主题/题目/内容#(讲|关于|说)(的|)什么;是什么内容|thing
城市/所在地/目的地#(去|到)(哪|哪里|哪个城市);(是|在)哪个城市|city
姓名/名字/称呼#叫(什么|什么名字);(他|她|这人)是谁|person
职业/工作/职位#(是|)(做|干)什么(的|工作);当什么|job
编号/单号/型号#(号码|编号)是多少;是几号|code
截止日期/截止/期限#(什么时候|哪天)(截止|结束|到期);最晚哪天|date
部门/单位/所属部门#(是|在|属于)(哪个部门|什么部门);哪个部门的|dept
时长/用时/耗时#(要|用|花)(多久|多长时间|几分钟);有多长|n""".splitlines()
)
_FIELDS_EN = tuple(
    """Time/Start/Date#when (does it start|is it);what time is it|hour
Place/Location/Address#where (is it|does it take place|do we meet)|where
Host/Speaker/Teacher#who (leads it|is the host);who (speaks|is the speaker);who (teaches|is the teacher)|Who
Contact/Phone/Call#who (do i|should we) (call|contact)|Who
Price/Cost/Fee#how much (is it|does it cost);what do i pay|n
Guests/Seats/People#how many (people|seats|guests)( are there|)|n
City/Destination/Town#(which|what) (city|town);where do we go|town
Deadline/Due/Until#when is it due;what is the (last day|deadline)|Day
Code/Number/Model#what is the (number|code)|code
Bring/Item/Gift#what (do i|should i) bring|goods""".splitlines()
)


_ALIKE = {
    "hour": "when",
    "date": "when",
    "Day": "when",
    "room": "where",
    "city": "where",
    "town": "where",
    "person": "who",
    "Who": "who",
}
"""Of which kind values are that short questions, such as "when", ask for alike."""


def fields(rng: Random, split: Split) -> Sample:
    """A list of names and values, and questions that do not use those names. An answer is the line."""
    return draw(rng, split, lambda: _fields(rng, split), _first)


def _fields(rng: Random, split: Split) -> Sample:
    chinese = rng.random() < 0.7
    colon = "：" if chinese else ": "
    lines: list[tuple[str, str, str]] = []
    kinds = []
    for field in rng.sample(_FIELDS if chinese else _FIELDS_EN, rng.choice((2, 3, 3, 4, 5))):
        names, _, rest = field.partition("#")
        asks, _, kind = rest.rpartition("|")
        place, questions = rng.randrange(names.count("/") + 1), asks.split(";")
        if len(questions) > names.count("/"):  # each name has its own
            questions = [questions[place]]
        name = names.split("/")[place]
        lines.append((name, _SLOTS[kind](rng), rng.choice((*questions, name))))
        kinds.append(_ALIKE.get(kind, kind))
    missing = lines.pop() if rng.random() < 0.5 and kinds[-1] not in kinds[:-1] else None
    title = rng.choice(
        ("会议", "活动", "通知", "订单", "讲座", "") if chinese else ("Meeting", "Event", "Note", "", "")
    )
    shown = [f"{name}{colon}{value}" for name, value, _ in lines]
    prefix = title if chinese and rng.random() < 0.4 else ""
    shown[0] = prefix + shown[0]
    text = "\n".join(shown)
    asked = [*range(len(lines))]
    rng.shuffle(asked)
    messages: list[dict[str, Any]] = []
    for place in asked[: rng.choice((1, 2, 3)) if split == "train" else 1]:
        ask, answer = lines[place][2], shown[place]
        if missing and rng.random() < 0.35:
            ask, answer = missing[2], _UNTOLD[chinese]
        core = choose(rng, ask)
        if chinese and title and rng.random() < 0.4:
            core = title + core
        typed = dress(rng, split, core, not chinese, "ask", calm=0.7)
        if not messages:
            frames = FREE if chinese else FREE_EN
            typed = form(rng, split, frames).format(c=text, q=typed) if rng.random() < 0.5 else f"{text}\n\n{typed}"
        messages += [user(typed), assistant(answer)]
    return Sample("passages", messages)
