"""Small talk that refers back: the user tells facts, corrects some, chats, and asks for them later.

What is told, confirmed, asked and answered has the same words in front of the value, so the answer is a continuation
that stood there before; what was never told is known to be missing only where its value would stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from .base import Sample, Split, assistant, draw, held_out, nonsense, persistently, user
from .chat import GREETINGS, IDENTITY, ask, greeting
from .vocabulary import an, value, word


@dataclass(frozen=True)
class Fact:
    """A kind of fact; {v} is the value, {a} the value with its article, {s} what else it is about."""

    kind: str
    says: tuple[str, ...]
    asks: tuple[str, ...]
    answer: str
    untold: str
    """The answer where nothing was told; it begins as `answer` does."""
    about: tuple[str, ...] = ()
    """What {s} may be; "@…" a kind of the vocabulary; "*" a list of nouns, or a made-up one."""
    weight: int = 2
    reply: str = ""
    """What is said when it is told, if not just the answer."""


_RELATIVES = ("爸爸", "妈妈", "哥哥", "姐姐", "弟弟", "妹妹", "爷爷", "奶奶", "老师", "同桌", "邻居", "同事", "老板", "儿子", "女儿")  # fmt: skip
_OBJECTS = ("钥匙", "手机", "眼镜", "护照", "钱包", "雨伞", "身份证", "充电器", "遥控器", "帽子", "耳机", "手表")
_NUMBERS = ("房间号", "座位号", "学号", "工号", "车牌号", "门禁密码", "航班号", "会员号", "门牌号", "密码")
_EVENTS = ("考试", "面试", "婚礼", "体检", "演出", "比赛", "聚会", "答辩")
_NOUNS = ("昵称", "网名", "外号", "暗号", "队名", "小名", "笔名", "代号", "吉祥物", "礼物", "口令", "艺名")
_RELATIVES_EN = ("father", "mother", "brother", "sister", "neighbor", "boss", "son", "daughter", "uncle", "aunt", "teacher", "cousin")  # fmt: skip
_OBJECTS_EN = ("keys", "phone", "glasses", "passport", "wallet", "umbrella", "charger", "hat", "watch", "ticket")
_NUMBERS_EN = ("room number", "seat number", "student number", "flight number", "order number", "door code", "password")
_EVENTS_EN = ("exam", "interview", "wedding", "concert", "match", "party", "check-up")
_NOUNS_EN = ("nickname", "username", "code word", "team", "pen name", "stage name", "mascot", "gift", "secret", "dream")

_ZH = {
    "name": Fact("name", ("我叫{v}", "我叫{v}", "我叫{v}", "我的名字叫{v}"), ("我叫什么", "我叫什么名字", "我的名字叫什么", "我的名字是什么"), "你叫{v}", "你叫什么", weight=12, reply="你好，{v}！"),
    "city": Fact("city", ("我住在{v}", "我家住在{v}"), ("我住在哪里", "我住在哪儿"), "你住在{v}", "你住在哪里", weight=5),
    "job": Fact("job", ("我的职业是{v}", "我的工作是{v}"), ("我的职业是什么", "我的工作是什么"), "你的工作是{v}", "你的工作是什么", weight=3),
    "hobby": Fact("hobby", ("我的爱好是{v}",), ("我的爱好是什么", "我有什么爱好"), "你的爱好是{v}", "你的爱好是什么", weight=4),
    "food": Fact("food", ("我最喜欢吃{v}", "我喜欢吃{v}"), ("我最喜欢吃什么", "我喜欢吃什么"), "你喜欢吃{v}", "你喜欢吃什么", weight=4),
    "colour": Fact("colour", ("我最喜欢的颜色是{v}", "我喜欢的颜色是{v}"), ("我最喜欢的颜色是什么", "我喜欢的颜色是什么"), "你喜欢的颜色是{v}", "你喜欢的颜色是什么"),
    "sport": Fact("sport", ("我最喜欢的运动是{v}", "我喜欢的运动是{v}"), ("我最喜欢的运动是什么", "我喜欢的运动是什么"), "你喜欢的运动是{v}", "你喜欢的运动是什么"),
    "book": Fact("book", ("我最喜欢的书是{v}", "我喜欢的书是{v}"), ("我最喜欢的书是什么", "我喜欢的书是哪本"), "你喜欢的书是{v}", "你喜欢的书是哪本"),
    "number": Fact("digits", ("我的幸运数字是{v}",), ("我的幸运数字是多少", "我的幸运数字是什么"), "你的幸运数字是{v}", "你的幸运数字是多少"),
    "age": Fact("age", ("我今年{v}岁", "我今年{v}岁了"), ("我今年多大", "我今年几岁", "我多大了"), "你今年{v}岁", "你今年多大", weight=4),
    "birthday": Fact("day", ("我的生日是{v}",), ("我的生日是哪天", "我的生日是什么时候"), "你的生日是{v}", "你的生日是哪天", weight=3),
    "school": Fact("school", ("我的学校是{v}",), ("我的学校是哪所", "我的学校是什么"), "你的学校是{v}", "你的学校是哪所"),
    "friend": Fact("person", ("我最好的朋友叫{v}", "我最好的朋友是{v}"), ("我最好的朋友叫什么", "我最好的朋友是谁"), "你最好的朋友是{v}", "你最好的朋友是谁", weight=3),
    "plan": Fact("plan", ("我周末打算{v}", "我周末要{v}"), ("我周末打算做什么", "我周末要做什么"), "你周末打算{v}", "你周末打算做什么", weight=3),
    "pet": Fact("petname", ("我的{s}叫{v}", "我养了一只{s}，叫{v}"), ("我的{s}叫什么", "我的{s}叫什么名字"), "你的{s}叫{v}", "你的{s}叫什么", ("@animal",), 4),
    "relative": Fact("person", ("我{s}叫{v}", "我的{s}叫{v}"), ("我{s}叫什么", "我的{s}叫什么名字"), "你的{s}叫{v}", "你的{s}叫什么", _RELATIVES, 4),
    "where": Fact("city", ("{s}住在{v}", "我朋友{s}住在{v}"), ("{s}住在哪里", "{s}住在哪儿"), "{s}住在{v}", "{s}住在哪里", ("@person",), 4),
    "whose": Fact("job", ("{s}的工作是{v}",), ("{s}的工作是什么",), "{s}的工作是{v}", "{s}的工作是什么", ("@person",), 3),
    "place": Fact("spot", ("我的{s}在{v}", "我把{s}放在{v}了"), ("我的{s}在哪里", "我的{s}在哪儿", "我把{s}放在哪里了"), "你的{s}在{v}", "你的{s}在哪里", _OBJECTS, 5),
    "event": Fact("day", ("我的{s}在{v}",), ("我的{s}在哪天", "我的{s}在什么时候"), "你的{s}在{v}", "你的{s}在哪天", _EVENTS, 3),
    "code": Fact("digits", ("我的{s}是{v}",), ("我的{s}是多少", "我的{s}是什么"), "你的{s}是{v}", "你的{s}是多少", _NUMBERS, 4),
    "any": Fact("any", ("我的{s}是{v}",), ("我的{s}是什么",), "你的{s}是{v}", "你的{s}是什么", ("*",), 6),
}  # fmt: skip

_EN = {
    "name": Fact("en.name", ("my name is {v}", "my name is {v}", "I am {v}", "I'm {v}"), ("what is my name", "what is my name", "what's my name"), "your name is {v}", "your name is something", weight=12, reply="Nice to meet you, {v}!"),
    "city": Fact("en.city", ("I live in {v}",), ("where do I live", "which city do I live in"), "you live in {v}", "you live in a place", weight=5),
    "job": Fact("en.job", ("I work as {a}", "I am {a}"), ("what do I work as", "what is my job"), "you work as {a}", "you work as something", weight=3),
    "hobby": Fact("en.hobby", ("my hobby is {v}",), ("what is my hobby", "what's my hobby"), "your hobby is {v}", "your hobby is something", weight=4),
    "food": Fact("en.food", ("my favorite food is {v}",), ("what is my favorite food", "what's my favorite food"), "your favorite food is {v}", "your favorite food is something", weight=4),
    "colour": Fact("en.colour", ("my favorite color is {v}",), ("what is my favorite color", "what's my favorite color"), "your favorite color is {v}", "your favorite color is something"),
    "sport": Fact("en.sport", ("my favorite sport is {v}",), ("what is my favorite sport", "what's my favorite sport"), "your favorite sport is {v}", "your favorite sport is something"),
    "book": Fact("en.book", ("my favorite book is {v}",), ("what is my favorite book", "what's my favorite book"), "your favorite book is {v}", "your favorite book is something"),
    "number": Fact("digits", ("my lucky number is {v}",), ("what is my lucky number", "what's my lucky number"), "your lucky number is {v}", "your lucky number is something"),
    "age": Fact("age", ("I am {v} years old", "my age is {v}"), ("how old am I", "what is my age"), "your age is {v}", "your age is something", weight=4),
    "birthday": Fact("en.date", ("my birthday is on {v}",), ("when is my birthday", "what day is my birthday"), "your birthday is on {v}", "your birthday is on a day", weight=3),
    "friend": Fact("en.name", ("my best friend is {v}", "my best friend is called {v}"), ("who is my best friend", "what is my best friend called"), "your best friend is {v}", "your best friend is someone", weight=3),
    "plan": Fact("en.plan", ("this weekend I will {v}", "this weekend I want to {v}"), ("what will I do this weekend", "what do I want to do this weekend"), "this weekend you want to {v}", "this weekend you want to do something", weight=3),
    "pet": Fact("en.petname", ("my {s} is called {v}", "I have {b} called {v}"), ("what is my {s} called", "what is the name of my {s}"), "your {s} is called {v}", "your {s} is called something", ("@en.animal",), 4),
    "relative": Fact("en.name", ("my {s} is called {v}",), ("what is my {s} called", "what is the name of my {s}"), "your {s} is called {v}", "your {s} is called something", _RELATIVES_EN, 4),
    "where": Fact("en.city", ("{s} lives in {v}", "my friend {s} lives in {v}"), ("where does {s} live", "which city does {s} live in"), "{s} lives in {v}", "{s} lives in a place", ("@en.name",), 4),
    "whose": Fact("en.job", ("{s} works as {a}",), ("what does {s} work as",), "{s} works as {a}", "{s} works as something", ("@en.name",), 3),
    "place": Fact("en.spot", ("I put my {s} {v}", "I left my {s} {v}"), ("where did I put my {s}", "where did I leave my {s}"), "you put your {s} {v}", "you put your {s} in a place", _OBJECTS_EN, 5),
    "event": Fact("en.date", ("my {s} is on {v}",), ("when is my {s}", "what day is my {s}"), "your {s} is on {v}", "your {s} is on a day", _EVENTS_EN, 3),
    "code": Fact("digits", ("my {s} is {v}",), ("what is my {s}", "what's my {s}"), "your {s} is {v}", "your {s} is something", _NUMBERS_EN, 4),
    "any": Fact("en.any", ("my {s} is {v}",), ("what is my {s}", "what's my {s}"), "your {s} is {v}", "your {s} is something", ("*",), 6),
}  # fmt: skip

_ANY = ("food", "city", "animal", "thing", "colour")
"""Kinds of values for a fact about anything."""
UNTOLD, UNTOLD_EN = "，你还没有告诉我。", " that you have not told me yet."
CONFIRM, CONFIRM_EN = "好的，", "OK, "
CORRECTED, CORRECTED_EN = "明白了，", "I see, "

_TELL = ("{t}。", "{t}。", "{t}", "{t}！", "对了，{t}。", "请记住，{t}。")
_TELL_FIRST = ("{t}。", "{t}。", "{t}", "{t}！", "你好，{t}。", "你好！{t}。")
_TELL_TWO = ("{t}，{u}。", "{t}，{u}", "{t}。{u}。", "你好，{t}，{u}。")
_CORRECT = ("不对，{t}。", "说错了，{t}。", "我记错了，{t}。", "不是，{t}。", "更正一下，{t}")
_ASK = ("{q}？", "{q}？", "{q}", "{q}?", "请问{q}？", "对了，{q}？", "那么，{q}？", "你还记得{q}吗？")
_TELL_EN = ("{T}.", "{T}.", "{T}", "{t}", "{T}!", "By the way, {t}.", "Please remember: {t}.")
_TELL_FIRST_EN = ("{T}.", "{T}.", "{T}", "{t}", "Hello, {t}.", "Hi, {t}.", "Hi! {T}.")
_TELL_TWO_EN = ("{T} and {u}.", "{T}, and {u}.", "{T}. {U}.", "Hi, {t} and {u}.")
_CORRECT_EN = ("No, {t}.", "Sorry, {t}.", "I was wrong, {t}.", "Correction: {t}.", "Wait, {t}.")
_ASK_EN = ("{Q}?", "{Q}?", "{Q}", "{q}?", "{q}", "By the way, {q}?", "Do you remember: {q}?", "Please tell me, {q}?")

# Remarks that tell no fact, and what is said to them; not greetings, thanks or goodbyes, which are said elsewhere.
SMALL_TALK = (
    (("今天天气不错", "今天天气真好", "今天天气很好"), "是啊，适合出去走走。"),
    (("我有点累", "我好累", "今天好累", "我累了"), "辛苦了，好好休息一下吧。"),
    (("下雨了", "外面下雨了", "今天下雨了"), "出门记得带伞。"),
    (("我很开心", "我今天很开心", "我好高兴", "今天心情真好"), "真为你高兴！"),
    (("我有点难过", "我很难过", "我好伤心"), "别难过，我陪你聊聊。"),
    (("我饿了", "我好饿", "肚子好饿"), "那就去吃点东西吧。"),
    (("好无聊", "我好无聊", "我有点无聊"), "那我们聊聊天吧。"),
    (("我很忙", "最近好忙", "我最近很忙"), "再忙也要注意身体。"),
    (("好冷", "今天好冷", "今天真冷"), "多穿点衣服，别着凉。"),
    (("好热", "今天好热", "今天真热"), "多喝水，注意防暑。"),
    (("哈哈", "哈哈哈", "真好笑"), "看来你心情不错。"),
    (("周末到了", "放假了", "终于放假了"), "祝你玩得开心！"),
)
SMALL_TALK_EN = (
    (("the weather is nice today", "what a lovely day", "what nice weather"), "Yes, a good day for a walk."),
    (("I am tired", "I am so tired", "I am a bit tired"), "Take a good rest."),
    (("it is raining", "it is raining again", "it is raining today"), "Do not forget your umbrella."),
    (("I am happy", "I am happy today", "I am so happy"), "I am happy for you!"),
    (("I am sad", "I am so sad", "I feel sad"), "I am sorry. Let us talk."),
    (("I am hungry", "I am so hungry", "I am very hungry"), "Then have something to eat."),
    (("I am bored", "I am so bored", "I feel bored"), "Then let us chat."),
    (("I am busy", "I am so busy", "I am very busy today"), "Take care of yourself."),
    (("it is cold", "it is so cold today", "it is very cold"), "Dress warmly."),
    (("it is hot", "it is so hot today", "it is very hot"), "Drink enough water."),
    (("haha", "hahaha", "that is funny"), "You seem to be in a good mood."),
    (("the weekend is here", "finally weekend", "it is the weekend"), "Have a good time!"),
)
_TALK_ENDS, _TALK_ENDS_EN = ("", "。", "！", "~", "……"), ("", ".", "!", "...", " :)", "!!")


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _value(rng: Random, split: Split, kind: str) -> str:
    """As the vocabulary has it; numbers stay short, and a fact about anything may have any value."""
    if kind == "digits":
        return draw(rng, split, lambda: str(rng.randint(2, 999)))
    if kind == "any":
        coined = rng.random() < 0.3
        return draw(rng, split, lambda: nonsense(rng, 2)) if coined else value(rng, split, rng.choice(_ANY))
    if kind == "en.any":
        coined = rng.random() < 0.3
        return draw(rng, split, lambda: word(rng, 2)) if coined else value(rng, split, "en." + rng.choice(_ANY))
    return value(rng, split, kind)


@dataclass(frozen=True)
class _Told:
    key: str
    fact: Fact
    about: str
    value: str

    def form(self, template: str) -> str:
        return template.format(v=self.value, s=self.about, a=an(self.value), b=an(self.about))


def sample(rng: Random, split: Split) -> Sample:
    """Two to seven turns, often a greeting first; at least one asks."""
    return persistently(lambda: _Talk(rng, split).sample())


class _Talk:
    """A dialogue in the making."""

    def __init__(self, rng: Random, split: Split) -> None:
        self.rng, self.split = rng, split
        self.english = rng.random() < 0.37
        self.facts = _EN if self.english else _ZH
        self.known: dict[tuple[str, str], _Told] = {}
        self.values: set[str] = set()
        """All that was ever told: a value stands for one thing only, also when it was taken back."""
        self.messages: list[dict[str, Any]] = []

    def sample(self) -> Sample:
        rng = self.rng
        start = rng.random()
        if start < 0.4:
            self.say(greeting(rng, self.split, self.english))
        elif start < 0.5:
            self.chat()
        if rng.random() < 0.06:  # who it is, not who the user is
            self.say(ask(rng, self.split, {"name": IDENTITY["name"]}, self.english))
        tells = rng.choice((0, 1, 1, 1, 1, 1, 2, 2, 2, 3))
        for _ in range(tells):
            self.tell()
            if rng.random() < 0.12:
                self.chat()
            if rng.random() < 0.12:
                self.correct()
        asked: set[tuple[str, str]] = set()
        for _ in range(rng.choice((1, 1, 2, 2, 3)) if tells else 1):
            rest = [told for key, told in self.known.items() if key not in asked]
            if rest and rng.random() < 0.8:
                told = rng.choice(rest)
                asked.add((told.key, told.about))
                self.answer(told, known=True)
            else:
                self.answer(self.other(), known=False)
            if rng.random() < 0.05:
                self.chat()
        if rng.random() < 0.08:
            end = rng.choice(("thanks", "bye"))
            self.say(ask(rng, self.split, {end: GREETINGS[end]}, self.english))
        return Sample("memory", self.messages)

    def say(self, pair: tuple[str, str]) -> None:
        self.messages += [user(pair[0]), assistant(pair[1])]

    def chat(self) -> None:
        remarks, reply = self.rng.choice(SMALL_TALK_EN if self.english else SMALL_TALK)
        ends = _TALK_ENDS_EN if self.english else _TALK_ENDS
        shown = [_upper(remark) for remark in remarks] if self.english and self.rng.random() < 0.6 else list(remarks)
        self.say((self.side([remark + end for remark in shown for end in ends]), reply))

    def tell(self) -> None:
        one, rng = self.fresh(), self.rng
        confirm = CONFIRM_EN if self.english else CONFIRM
        if rng.random() >= 0.25:
            frames: Sequence[str]
            if self.english:
                frames = _TELL_EN if self.messages else _TELL_FIRST_EN
            else:
                frames = _TELL if self.messages else _TELL_FIRST
            stop = "." if self.english else "。"
            self.say((self.saying(frames, one), one.form(one.fact.reply or confirm + one.fact.answer + stop)))
            return
        two = self.fresh()
        if two.key == "name":  # which is told first
            one, two = two, one
        text = self.saying(_TELL_TWO_EN if self.english else _TELL_TWO, one, two)
        first, second = one.form(one.fact.answer), two.form(two.fact.answer)
        if one.fact.reply:
            reply = one.form(one.fact.reply) + (f" {_upper(second)}." if self.english else f"{second}。")
        else:
            reply = f"{confirm}{first} and {second}." if self.english else f"{confirm}{first}，{second}。"
        self.say((text, reply))

    def correct(self) -> None:
        old = self.rng.choice(list(self.known.values()))
        new = self.new(old.key, old.about)
        self.known[old.key, old.about] = new
        text = self.saying(_CORRECT_EN if self.english else _CORRECT, new)
        answer = new.form(new.fact.answer)
        self.say((text, f"{CORRECTED_EN}{answer}." if self.english else f"{CORRECTED}{answer}。"))

    def answer(self, told: _Told, known: bool) -> None:
        questions = [told.form(question) for question in told.fact.asks]
        frames = _ASK_EN if self.english else _ASK
        text = self.side([frame.format(q=q, Q=_upper(q)) for q in questions for frame in frames])
        if known:
            reply = told.form(told.fact.answer) + ("." if self.english else "。")
        else:
            reply = told.form(told.fact.untold) + (UNTOLD_EN if self.english else UNTOLD)
        self.say((text, _upper(reply)))

    def side(self, texts: Sequence[str]) -> str:
        """One of those on the split's side."""
        mine = [text for text in texts if held_out(text) == (self.split == "test")]
        if not mine:
            raise RuntimeError(f"all of {texts[:3]} … are on the other side")
        return self.rng.choice(mine)

    def saying(self, frames: Sequence[str], one: _Told, two: _Told | None = None) -> str:
        def make() -> str:
            first = one.form(self.rng.choice(one.fact.says))
            second = two.form(self.rng.choice(two.fact.says)) if two else ""
            if second.startswith(("我住", "我今", "我周")) and first.startswith("我"):  # as in: 我叫小明，今年20岁
                second = second[1:] if self.rng.random() < 0.5 else second
            form = self.rng.choice(frames)
            return form.format(t=first, T=_upper(first), u=second, U=_upper(second))

        return draw(self.rng, self.split, make)

    def new(self, key: str, about: str) -> _Told:
        """A value that nothing else has."""
        while True:
            told = _value(self.rng, self.split, self.facts[key].kind)
            # Nothing that is part of another: what was told must be one thing.
            if not any(told in other or other in told for other in (*self.values, about) if other):
                self.values.add(told)
                return _Told(key, self.facts[key], about, told)

    def about(self, fact: Fact) -> str:
        rng, first = self.rng, fact.about[0] if fact.about else ""
        if first == "*":
            if rng.random() < 0.6:
                return rng.choice(_NOUNS_EN if self.english else _NOUNS)
            return draw(rng, self.split, lambda: word(rng, 2) if self.english else nonsense(rng, 2))
        return value(rng, self.split, first[1:]) if first[:1] == "@" else rng.choice(fact.about) if first else ""

    def free(self) -> tuple[str, str]:
        """A kind of fact, and what it is about, that was not told."""
        weights = [fact.weight for fact in self.facts.values()]
        while True:
            key = self.rng.choices(list(self.facts), weights)[0]
            about = self.about(self.facts[key])
            if (key, about) not in self.known and about not in self.values:
                return key, about

    def fresh(self) -> _Told:
        """Something new to tell."""
        key, about = self.free()
        told = self.known[key, about] = self.new(key, about)
        self.values |= {about} - {""}
        return told

    def other(self) -> _Told:
        """What was not told; half of the time of a kind that was, about something else."""
        similar = [told for told in self.known.values() if told.about]
        for _ in range(20 if similar and self.rng.random() < 0.5 else 0):
            told = self.rng.choice(similar)
            about = self.about(told.fact)
            if (told.key, about) not in self.known and about not in self.values:
                return _Told(told.key, told.fact, about, "")
        key, about = self.free()
        return _Told(key, self.facts[key], about, "")
