"""Small talk that refers back: the user tells facts, corrects some, chats, and asks for them later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from .base import Sample, Split, assistant, draw, nonsense, user
from .vocabulary import an, value, word


@dataclass(frozen=True)
class Fact:
    """A kind of fact; {v} is the value, {s} what else it is about (a pet's kind, a person, a thing)."""

    kind: str
    says: tuple[str, ...]
    reply: str
    asks: tuple[str, ...]
    answer: str
    about: tuple[str, ...] = ()
    """What {s} may be; "@…" a kind of the vocabulary; "*" a made-up noun."""
    weight: int = 2


_RELATIVES = ("爸爸", "妈妈", "哥哥", "姐姐", "弟弟", "妹妹", "爷爷", "奶奶", "外公", "同桌", "邻居", "同事", "老板", "室友", "儿子", "女儿", "表弟", "外婆")  # fmt: skip
_OBJECTS = (
    "钥匙",
    "手机",
    "眼镜",
    "护照",
    "钱包",
    "雨伞",
    "身份证",
    "充电器",
    "遥控器",
    "帽子",
    "耳机",
    "手表",
    "药",
    "车票",
    "相机",
)
_NUMBERS = (
    "房间号",
    "座位号",
    "学号",
    "工号",
    "车牌号",
    "快递单号",
    "门禁密码",
    "储物柜号",
    "航班号",
    "订单号",
    "会员号",
    "门牌号",
)
_EVENTS = ("考试", "面试", "婚礼", "体检", "演出", "比赛", "搬家", "开学", "聚会", "答辩")
_RELATIVES_EN = ("father", "mother", "brother", "sister", "grandfather", "neighbor", "boss", "son", "daughter", "uncle", "aunt", "roommate", "cousin", "grandmother")  # fmt: skip
_OBJECTS_EN = ("keys", "phone", "glasses", "passport", "wallet", "umbrella", "charger", "hat", "watch", "ticket", "camera", "headphones")  # fmt: skip
_NUMBERS_EN = ("room number", "seat number", "student number", "flight number", "order number", "locker number", "door code", "member number")  # fmt: skip
_EVENTS_EN = ("exam", "interview", "wedding", "concert", "match", "party", "flight", "check-up")

_ZH = {
    "name": Fact("name", ("我叫{v}", "我是{v}", "我的名字叫{v}", "我的名字是{v}", "叫我{v}就行", "你可以叫我{v}", "大家都叫我{v}", "我姓名是{v}", "本人{v}"),
        "很高兴认识你，{v}！", ("我叫什么名字", "我叫什么", "我的名字是什么", "我是谁", "我的名字叫什么", "该怎么称呼我"), "你叫{v}。", weight=6),
    "city": Fact("city", ("我住在{v}", "我家在{v}", "我现在在{v}生活", "我在{v}住了好几年了", "我人在{v}", "我目前住{v}"),
        "{v}是个好地方。", ("我住在哪儿", "我家在哪里", "我住在哪个城市", "我在哪里生活", "我住哪儿", "我目前住在什么地方"), "你住在{v}。", weight=4),
    "job": Fact("job", ("我是一名{v}", "我的职业是{v}", "我的工作是{v}", "我当{v}好几年了", "我在当{v}", "我靠当{v}吃饭"),
        "{v}这个工作真不错。", ("我是做什么的", "我的职业是什么", "我的工作是什么", "我做什么工作", "我干哪一行", "我靠什么吃饭"), "你的职业是{v}。", weight=3),
    "hobby": Fact("hobby", ("我的爱好是{v}", "我平时爱{v}", "我没事就{v}", "我闲下来就{v}", "我一有空就{v}", "我业余时间喜欢{v}"),
        "{v}很有意思。", ("我的爱好是什么", "我平时爱做什么", "我有什么爱好", "我闲下来做什么", "我一有空就干什么", "我业余时间喜欢干什么"), "你的爱好是{v}。", weight=3),
    "pet": Fact("petname", ("我养了一只{s}，叫{v}", "我的{s}叫{v}", "我家有只{s}，名字叫{v}", "我家的{s}名叫{v}", "我有一只叫{v}的{s}", "我给我的{s}起名叫{v}"),
        "{v}这个名字真可爱！", ("我的{s}叫什么", "我的{s}叫什么名字", "我家{s}叫什么", "我家那只{s}的名字是什么", "我养的{s}叫什么名字"), "你的{s}叫{v}。", ("@animal",), 4),
    "food": Fact("food", ("我最喜欢吃{v}", "我最爱吃{v}", "我特别爱吃{v}", "我最喜欢的食物是{v}", "{v}是我最爱吃的", "我每天都想吃{v}"),
        "{v}听起来很好吃。", ("我最喜欢吃什么", "我最爱吃什么", "我喜欢的食物是什么", "什么是我最爱吃的", "我每天都想吃什么", "我爱吃的是什么"), "你最喜欢吃{v}。", weight=3),
    "colour": Fact("colour", ("我最喜欢{v}", "我最喜欢的颜色是{v}", "我偏爱{v}", "{v}是我最喜欢的颜色", "颜色里我最爱{v}", "我喜欢的颜色是{v}"),
        "{v}很好看。", ("我最喜欢什么颜色", "我最喜欢的颜色是什么", "我偏爱什么颜色", "我喜欢哪种颜色", "什么颜色是我最喜欢的"), "你最喜欢{v}。"),
    "number": Fact("figure", ("我的幸运数字是{v}", "我最喜欢的数字是{v}", "{v}是我的幸运数字", "我总觉得{v}能给我带来好运", "我喜欢{v}这个数字"),
        "好的，{v}是你的幸运数字。", ("我的幸运数字是多少", "我的幸运数字是什么", "我最喜欢哪个数字", "我喜欢的数字是几", "哪个数字能给我带来好运"), "你的幸运数字是{v}。"),
    "book": Fact("book", ("我最喜欢的书是{v}", "我最近在看{v}", "我正在读{v}", "我很喜欢{v}这本书", "我在读一本叫{v}的书"),
        "{v}是本好书。", ("我在看什么书", "我喜欢的书是哪本", "我说的书叫什么", "我读的是哪本书", "我提到的书是什么"), "你说的书是{v}。"),
    "sport": Fact("sport", ("我最喜欢的运动是{v}", "我最擅长的运动是{v}", "运动里我最爱{v}", "{v}是我最喜欢的运动", "我喜欢的运动是{v}"),
        "{v}对身体很好。", ("我最喜欢什么运动", "我最喜欢的运动是什么", "我擅长什么运动", "我爱哪种运动", "哪项运动是我最喜欢的"), "你最喜欢的运动是{v}。"),
    "age": Fact("age", ("我今年{v}岁", "我{v}岁了", "我刚满{v}岁", "我的年龄是{v}岁", "我已经{v}岁了", "本人{v}岁"),
        "{v}岁，正是好时候。", ("我今年多大", "我多大了", "我几岁了", "我的年龄是多少", "我今年几岁", "我多少岁"), "你今年{v}岁。", weight=3),
    "birthday": Fact("month", ("我的生日是{v}", "我的生日在{v}", "我{v}过生日", "我是{v}出生的", "{v}是我的生日", "我生日就在{v}"),
        "好的，{v}是你的生日。", ("我的生日是哪天", "我什么时候过生日", "我的生日是什么时候", "我哪天过生日", "我是什么时候出生的", "我的生日在几月"), "你的生日是{v}。", weight=3),
    "school": Fact("school", ("我在{v}读书", "我在{v}上学", "我的学校是{v}", "我是{v}的学生", "我就读于{v}", "我念的是{v}"),
        "{v}是所好学校。", ("我在哪里上学", "我的学校是哪所", "我在哪儿读书", "我是哪个学校的学生", "我就读于哪里", "我念的是哪所学校"), "你在{v}上学。"),
    "friend": Fact("person", ("我最好的朋友叫{v}", "我最好的朋友是{v}", "我和{v}是好朋友", "{v}是我最好的朋友", "我有个好朋友叫{v}", "跟我最要好的是{v}"),
        "替我向{v}问好！", ("我最好的朋友叫什么", "我最好的朋友是谁", "我的好朋友叫什么名字", "谁是我最好的朋友", "跟我最要好的是谁"), "你最好的朋友叫{v}。", weight=3),
    "where": Fact("city", ("{s}住在{v}", "我朋友{s}住在{v}", "{s}现在在{v}", "我同学{s}搬去了{v}", "我有个朋友{s}在{v}", "{s}家在{v}"),
        "原来{s}在{v}。", ("{s}住在哪儿", "{s}在哪里", "{s}住哪个城市", "我朋友{s}住在哪里", "{s}家在哪儿", "{s}在什么地方"), "{s}在{v}。", ("@person",), 4),
    "whose": Fact("job", ("{s}是一名{v}", "我朋友{s}是当{v}的", "{s}的工作是{v}", "{s}的职业是{v}", "我认识的{s}是个{v}", "{s}在当{v}"),
        "原来{s}是{v}。", ("{s}是做什么的", "{s}的工作是什么", "{s}的职业是什么", "我朋友{s}做什么工作", "{s}干哪一行"), "{s}是{v}。", ("@person",)),
    "relative": Fact("person", ("我{s}叫{v}", "我的{s}叫{v}", "我{s}的名字是{v}", "{v}是我{s}", "我{s}名叫{v}", "我有个{s}叫{v}"),
        "好的，你的{s}叫{v}。", ("我{s}叫什么", "我的{s}叫什么名字", "我{s}的名字是什么", "我{s}是谁", "谁是我{s}"), "你的{s}叫{v}。", _RELATIVES, 3),
    "job of": Fact("job", ("我{s}是一名{v}", "我{s}的职业是{v}", "我{s}的工作是{v}", "我的{s}是当{v}的", "我{s}在当{v}"),
        "好的，你的{s}是{v}。", ("我{s}是做什么的", "我{s}的职业是什么", "我{s}的工作是什么", "我的{s}做什么工作", "我{s}干哪一行"), "你的{s}是{v}。", _RELATIVES),
    "plan": Fact("plan", ("我周末打算{v}", "这个周末我要{v}", "我周末准备{v}", "周末我想{v}", "我计划周末{v}", "到了周末我就{v}"),
        "{v}，听起来不错。", ("我周末打算做什么", "这个周末我要干什么", "我周末准备做什么", "我周末有什么计划", "周末我想做什么"), "你周末打算{v}。", weight=3),
    "place": Fact("spot", ("我把{s}放在{v}了", "{s}在{v}", "我的{s}放在{v}", "我刚把{s}搁在{v}", "{s}我放{v}了", "我的{s}就在{v}"),
        "好的，{s}在{v}。", ("我的{s}在哪儿", "我把{s}放哪儿了", "{s}放在哪里", "我的{s}放在什么地方", "我把{s}搁哪儿了", "{s}在哪里"), "你的{s}在{v}。", _OBJECTS, 4),
    "code": Fact("code", ("我的{s}是{v}", "{s}是{v}", "记一下，我的{s}是{v}", "我{s}是{v}", "帮我记住{s}：{v}"),
        "好的，你的{s}是{v}。", ("我的{s}是多少", "我的{s}是什么", "{s}是多少", "我{s}多少", "刚才的{s}是多少"), "你的{s}是{v}。", _NUMBERS, 3),
    "event": Fact("day", ("我{v}有{s}", "我的{s}在{v}", "{s}定在{v}", "我的{s}是{v}", "{v}我要{s}"),
        "好的，你的{s}在{v}。", ("我的{s}是什么时候", "我哪天{s}", "{s}定在哪天", "我的{s}在几号", "什么时候{s}"), "你的{s}在{v}。", _EVENTS),
    "made": Fact("nonsense", ("我的{s}是{v}", "我的{s}叫{v}", "记住，我的{s}是{v}", "我{s}是{v}", "{s}是{v}"),
        "好的，你的{s}是{v}。", ("我的{s}是什么", "我的{s}叫什么", "{s}是什么", "我{s}是什么", "什么是我的{s}"), "你的{s}是{v}。", ("*",), 6),
}  # fmt: skip

_EN = {
    "name": Fact("en.name", ("my name is {v}", "I am {v}", "I'm {v}", "I am called {v}", "you can call me {v}", "call me {v}", "my friends call me {v}", "people call me {v}"),
        "Nice to meet you, {v}!", ("what is my name", "what am I called", "who am I", "what's my name", "how do people call me"), "Your name is {v}.", weight=6),
    "city": Fact("en.city", ("I live in {v}", "my home is in {v}", "I have lived in {v} for years", "I am staying in {v}", "these days I live in {v}"),
        "{v} is a nice place.", ("where do I live", "where is my home", "which city do I live in", "in which place do I live", "what city am I in"), "You live in {v}.", weight=4),
    "job": Fact("en.job", ("I am {a}", "I work as {a}", "my job is {v}", "I earn my living as {a}", "I have been {a} for years"),
        "Being {a} is a fine job.", ("what is my job", "what do I do", "what do I work as", "what do I do for a living", "what's my job"), "You are {a}.", weight=3),
    "hobby": Fact("en.hobby", ("my hobby is {v}", "I enjoy {v}", "in my free time I enjoy {v}", "I love {v}", "I am really into {v}"),
        "I hear that {v} is fun.", ("what is my hobby", "what do I enjoy", "what do I do for fun", "what's my hobby", "what do I love doing"), "Your hobby is {v}.", weight=3),
    "pet": Fact("en.petname", ("my {s} is called {v}", "I have a {s} called {v}", "my {s}'s name is {v}", "I named my {s} {v}", "my pet {s} is named {v}"),
        "{v} is a cute name!", ("what is my {s} called", "what is the name of my {s}", "what is my {s}'s name", "how is my {s} called", "what did I name my {s}"), "Your {s} is called {v}.", ("@en.animal",), 4),
    "food": Fact("en.food", ("my favorite food is {v}", "I like to eat {v}", "the food I like best is {v}", "I could eat {v} every day", "I love to eat {v}"),
        "Mmm, {v}!", ("what is my favorite food", "what do I like to eat", "which food do I like best", "what could I eat every day", "what's my favorite food"), "Your favorite food is {v}.", weight=3),
    "colour": Fact("en.colour", ("my favorite color is {v}", "the color I like best is {v}", "I like the color {v}", "{v} is my favorite color"),
        "What a pretty color, {v}.", ("what is my favorite color", "which color do I like best", "what color do I like", "what's my favorite color"), "Your favorite color is {v}."),
    "number": Fact("figure", ("my lucky number is {v}", "my favorite number is {v}", "{v} is my lucky number", "the number {v} brings me luck"),
        "OK, {v} is your lucky number.", ("what is my lucky number", "what is my favorite number", "which number brings me luck", "what's my lucky number"), "Your lucky number is {v}."),
    "book": Fact("en.book", ("my favorite book is {v}", "I am reading {v}", "I like a book called {v}", "the book I am reading is {v}"),
        "{v} is a good book.", ("which book do I read", "what is my book called", "what am I reading", "which book did I mention"), "Your book is {v}."),
    "sport": Fact("en.sport", ("my favorite sport is {v}", "the sport I like best is {v}", "{v} is my favorite sport", "my sport is {v}"),
        "Doing {v} keeps you healthy.", ("what is my favorite sport", "which sport do I like best", "what is my sport", "what's my favorite sport"), "Your favorite sport is {v}."),
    "age": Fact("age", ("I am {v} years old", "I just turned {v}", "my age is {v}", "I am already {v} years old", "I have just turned {v}"),
        "{v} is a good age.", ("how old am I", "what is my age", "what's my age", "how many years old am I"), "You are {v} years old.", weight=3),
    "birthday": Fact("en.date", ("my birthday is on {v}", "I celebrate my birthday on {v}", "I was born on {v}", "{v} is my birthday"),
        "OK, your birthday is on {v}.", ("when is my birthday", "when do I celebrate my birthday", "when was I born", "what is the date of my birthday"), "Your birthday is on {v}.", weight=3),
    "school": Fact("en.school", ("I go to {v}", "I study at {v}", "my school is {v}", "I am a student at {v}"),
        "{v} is a good school.", ("where do I study", "which school do I go to", "what is my school", "where am I a student"), "You go to {v}."),
    "friend": Fact("en.name", ("my best friend is {v}", "my best friend is called {v}", "{v} is my best friend", "I have a best friend called {v}"),
        "Say hello to {v} from me!", ("who is my best friend", "what is my best friend called", "what's the name of my best friend", "what is the name of my best friend"), "Your best friend is {v}.", weight=3),
    "where": Fact("en.city", ("{s} lives in {v}", "my friend {s} lives in {v}", "{s} is in {v} now", "{s} moved to {v}", "the home of {s} is in {v}"),
        "So {s} is in {v}.", ("where does {s} live", "where is {s}", "which city is {s} in", "where is the home of {s}", "where does my friend {s} live"), "{s} is in {v}.", ("@en.name",), 4),
    "whose": Fact("en.job", ("{s} is {a}", "my friend {s} works as {a}", "{s} works as {a}", "the job of {s} is {v}"),
        "So {s} is {a}.", ("what does {s} do", "what is the job of {s}", "what does {s} work as", "what does my friend {s} do"), "{s} is {a}.", ("@en.name",)),
    "relative": Fact("en.name", ("my {s} is called {v}", "my {s}'s name is {v}", "the name of my {s} is {v}", "I have a {s} called {v}"),
        "OK, your {s} is {v}.", ("what is my {s} called", "what is my {s}'s name", "what is the name of my {s}", "who is my {s}"), "Your {s} is {v}.", _RELATIVES_EN, 3),
    "job of": Fact("en.job", ("my {s} is {a}", "my {s} works as {a}", "the job of my {s} is {v}", "my {s} earns a living as {a}"),
        "OK, your {s} is {a}.", ("what does my {s} do", "what is the job of my {s}", "what does my {s} work as", "what is my {s}'s job"), "Your {s} is {a}.", _RELATIVES_EN),
    "plan": Fact("en.plan", ("this weekend I will {v}", "at the weekend I want to {v}", "I plan to {v} this weekend", "on Sunday I am going to {v}"),
        "To {v} sounds nice.", ("what will I do this weekend", "what is my plan for the weekend", "what do I plan this weekend", "what am I going to do at the weekend"), "You plan to {v}.", weight=3),
    "place": Fact("en.spot", ("I put my {s} {v}", "I left my {s} {v}", "I keep my {s} {v}", "I placed my {s} {v}"),
        "OK, {v}: your {s}.", ("where did I put my {s}", "where did I leave my {s}", "where do I keep my {s}", "where can I find my {s}"), "Look {v}.", _OBJECTS_EN, 4),
    "code": Fact("code", ("my {s} is {v}", "remember my {s}: {v}", "the {s} is {v}", "please note that my {s} is {v}"),
        "OK, your {s} is {v}.", ("what is my {s}", "what's my {s}", "what is the {s}", "which {s} do I have"), "Your {s} is {v}.", _NUMBERS_EN, 3),
    "event": Fact("en.date", ("my {s} is on {v}", "the {s} is on {v}", "I have my {s} on {v}", "on {v} I have my {s}"),
        "OK, your {s} is on {v}.", ("when is my {s}", "when do I have my {s}", "on which day is my {s}", "what is the date of my {s}"), "Your {s} is on {v}.", _EVENTS_EN),
    "made": Fact("en.nonsense", ("my {s} is {v}", "my {s} is called {v}", "remember that my {s} is {v}", "the name of my {s} is {v}"),
        "OK, your {s} is {v}.", ("what is my {s}", "what is my {s} called", "what's my {s}", "which is my {s}"), "Your {s} is {v}.", ("*",), 6),
}  # fmt: skip

_TELL = (
    "{t}。", "{t}。", "{t}", "{t}", "{t}！", "{t}~", "{t}哦。", "对了，{t}。", "告诉你，{t}。", "跟你说一下，{t}。", "{t}，你记一下。", "你知道吗，{t}。",
    "其实{t}。", "说起来，{t}。", "顺便说一句，{t}。", "{t}呢。", "{t}，别忘了哦。", "请记住，{t}。", "嗯，{t}。",
)  # fmt: skip
_TELL_FIRST = (
    "你好，{t}。",
    "你好！{t}。",
    "嗨，{t}。",
    "您好，{t}",
    "哈喽，{t}！",
    "早上好，{t}。",
    "你好呀，{t}。",
    "晚上好，{t}。",
    *_TELL,
)
_TELL_TWO = ("{t}，{u}。", "{t}，{u}。", "{t}，{u}", "{t}。{u}。", "{t}，另外{u}。", "对了，{t}，{u}。", "{t}，还有，{u}。", "{t}，而且{u}。", "告诉你，{t}，{u}。", "嗯，{t}，{u}！")  # fmt: skip
_CORRECT = (
    "不对，{t}", "我说错了，{t}", "等等，{t}", "更正一下，{t}", "不好意思，说错了，{t}", "我记错了，{t}", "不是的，{t}", "改一下，{t}",
    "抱歉，刚才说错了，{t}", "不对不对，{t}", "哎呀，错了，{t}", "口误，{t}", "刚才不算，{t}", "重新说一遍，{t}", "更正：{t}", "情况变了，{t}",
    "我刚才弄错了，{t}", "不，{t}才对", "应该是这样：{t}", "我改主意了，{t}", "现在不一样了，{t}", "错了错了，{t}",
)  # fmt: skip
_CORRECT_ENDS = ("。", "。", "", "！", "哦。", "，抱歉。", "~", "，别记错了。")
_ASK = (
    "{q}？", "{q}？", "{q}来着？", "{q}来着", "{q}？", "{q}", "{q}?", "对了，{q}？", "考考你，{q}？", "你还记得{q}吗？", "你记得{q}吗", "我刚才说{q}？",
    "你知道{q}吗？", "请问{q}？", "问你一下，{q}？", "你说说，{q}？", "我忘了，{q}？", "那么，{q}？", "还记不记得{q}？", "提醒我一下，{q}？", "我想问，{q}？",
    "我跟你说过{q}吗？", "你能告诉我{q}吗？", "再问你，{q}？", "好，{q}？", "说说看，{q}呢？",
)  # fmt: skip
_TELL_EN = (
    "{T}.", "{T}.", "{T}", "{t}", "{T}!", "By the way, {t}.", "You know, {t}.", "Let me tell you, {t}.", "Well, {t}.", "Just so you know, {t}.",
    "Please remember: {t}.", "So, {t}.", "Also, {t}.", "Actually {t}.", "{T}, you know.", "{T}, do not forget it.",
)  # fmt: skip
_TELL_FIRST_EN = (
    "Hello, {t}.",
    "Hi, {t}.",
    "Hi! {T}.",
    "Hello! {T}.",
    "Hey, {t}!",
    "Good morning, {t}.",
    "Hi there, {t}",
    *_TELL_EN,
)
_TELL_TWO_EN = ("{T} and {u}.", "{T} and {u}.", "{T}, and {u}.", "{T}. {U}.", "{T}. Also, {u}.", "Well, {t} and {u}.", "{t} and {u}", "By the way, {t}, and {u}.")  # fmt: skip
_CORRECT_EN = (
    "No, {t}", "Sorry, {t}", "Wait, {t}", "I was wrong, {t}", "Correction: {t}", "My mistake, {t}", "Not quite: {t}", "No no, {t}",
    "I made a mistake, {t}", "Oops, {t}", "Things have changed, {t}", "I must correct myself: {t}", "That was wrong, {t}",
    "Let me fix that: {t}", "Oh no, {t}", "Forget that, {t}", "I mean, {t}", "It is different now, {t}",
)  # fmt: skip
_CORRECT_ENDS_EN = (".", ".", "", "!", ", sorry.", " now.", ", actually.", ", please note.")
_ASK_EN = (
    "{Q}?", "{Q}?", "{Q}?", "{Q}", "{q}?", "{q}", "By the way, {q}?", "Do you remember: {q}?", "So, {q}?", "Tell me, {q}?", "Quick test: {q}?",
    "And {q}?", "Now, {q}?", "I forgot: {q}?", "One question: {q}?", "Hey, {q}?", "Remind me, {q}?", "{Q} again?", "Please tell me, {q}?", "OK, {q}?",
)  # fmt: skip
CORRECTED, CORRECTED_EN = "好的，改成{v}了。", "OK, noted: {v}."
UNTOLD, UNTOLD_EN = "你还没有告诉我。", "You have not told me yet."

SMALL_TALK = (
    (("今天天气不错", "今天天气真好", "外面太阳真好", "今天阳光明媚", "天气真舒服", "今天是个大晴天"), "是啊，适合出去走走。"),
    (("我有点累", "今天好累啊", "累死我了", "我快累趴下了", "上班好累", "我今天特别疲惫"), "辛苦了，好好休息一下吧。"),
    (("下雨了", "外面在下雨", "今天又下雨了", "雨下得好大", "这雨下个不停", "又是下雨天"), "出门记得带伞。"),
    (("我今天很开心", "今天心情真好", "我好高兴", "今天特别快乐", "我心情不错", "太开心了"), "真为你高兴！"),
    (("我有点难过", "我心情不好", "今天不太开心", "我好伤心", "我有些失落", "心里不好受"), "别难过，我陪你聊聊。"),
    (("我饿了", "肚子好饿", "我还没吃饭", "好想吃东西", "肚子咕咕叫了", "我快饿扁了"), "那就去吃点东西吧。"),
    (("好无聊", "我有点无聊", "不知道干什么好", "闲着没事干", "今天真无聊", "无聊死了"), "那我们聊聊天吧。"),
    (("最近好忙", "我最近特别忙", "今天忙坏了", "事情好多啊", "忙得团团转", "工作太忙了"), "再忙也要注意身体。"),
    (("今天好冷", "天气太冷了", "外面冷死了", "降温了，好冷", "冻死我了", "今天冷得发抖"), "多穿点衣服，别着凉。"),
    (("今天好热", "天气太热了", "热死我了", "外面热得不行", "这天真热", "热得睡不着"), "多喝水，注意防暑。"),
    (("哈哈", "哈哈哈", "真好笑", "笑死我了", "太好笑了", "嘻嘻"), "看来你心情不错。"),
    (("好的", "嗯嗯", "知道了", "明白了", "原来如此", "行吧"), "嗯，我在听。"),
    (("周末到了", "终于放假了", "明天放假", "假期开始了", "终于周五了", "可以休息了"), "祝你玩得开心！"),
    (("我感冒了", "我有点不舒服", "我头疼", "我发烧了", "我嗓子疼", "身体不太舒服"), "多休息，早日康复。"),
    (("我在喝茶", "我刚泡了杯咖啡", "我正在喝咖啡", "喝杯茶歇一会儿", "我在喝水", "来杯奶茶放松一下"), "真惬意啊。"),
    (("在吗", "你在吗", "还在吗", "在不在", "有人吗", "你还在听吗"), "我在。"),
    (("我刚下班", "我到家了", "刚回到家", "我刚放学", "终于下班了", "下班回来了"), "欢迎回来。"),
)  # fmt: skip
"""Remarks that tell no fact, and what is said to them; not greetings, thanks or goodbyes, which are said elsewhere."""
_TALK_ENDS = ("", "", "。", "！", "啊", "呀。", "呢", "~", "……", "，哈哈", "，真的", "，你说呢")
_ASK_ENDS = ("", "？", "？？", "?", "，喂", "，亲", "~")
_TALK_STARTS = ("", "", "", "哎呀，", "嗯，", "话说，", "跟你说，", "哇，", "说真的，", "对了，", "诶，")
SMALL_TALK_EN = (
    (("the weather is nice today", "what a lovely day", "the sun is shining", "it is sunny today", "such nice weather"), "Yes, a good day for a walk."),
    (("I am a bit tired", "I am so tired", "what a tiring day", "I feel exhausted", "I am worn out"), "Take a good rest."),
    (("it is raining", "it is raining again", "so much rain today", "it rains a lot here", "the rain does not stop"), "Do not forget your umbrella."),
    (("I am happy today", "I feel great", "I am in a good mood", "today was wonderful", "I am so glad"), "I am happy for you!"),
    (("I am sad", "I feel down", "I am in a bad mood", "I had a bad day", "I feel a little lonely"), "I am sorry. Let us talk."),
    (("I am hungry", "I have not eaten yet", "I am starving", "my stomach is empty", "I need some food"), "Then have something to eat."),
    (("I am bored", "this is boring", "I have nothing to do", "I feel bored", "what a boring day"), "Then let us chat."),
    (("I am busy", "I have so much work", "work is hard these days", "I am very busy today", "so many things to do"), "Take care of yourself."),
    (("it is cold", "it is so cold today", "I am freezing", "what a cold day", "winter is so cold"), "Dress warmly."),
    (("it is hot", "it is too hot today", "I am melting", "what a hot day", "the heat is terrible"), "Drink enough water."),
    (("haha", "that is funny", "hahaha", "you make me laugh", "how funny"), "You seem to be in a good mood."),
    (("I see", "all right", "got it", "okay then", "that makes sense"), "Yes, I am listening."),
    (("the weekend is here", "my holiday starts today", "finally Friday", "no work tomorrow", "I am on holiday"), "Have a good time!"),
    (("I have a cold", "I do not feel well", "I have a headache", "I am ill", "my throat hurts"), "Get well soon."),
    (("I am drinking tea", "I just made coffee", "time for some coffee", "I am having a cup of tea", "I am having a drink"), "How cozy."),
    (("are you there", "are you still there", "is anyone there", "can you hear me", "are you listening"), "I am here."),
    (("I just got home", "I am back home", "work is over", "I am done for today", "school is over"), "Welcome back."),
)  # fmt: skip
_TALK_ENDS_EN = ("", ".", ".", "!", ", you know.", "...", ", really.", " :)", " my friend.", ", I think.", "!!")
_TALK_STARTS_EN = ("", "", "", "Well, ", "Oh, ", "Hm, ", "You know, ", "Honestly, ", "Ah, ", "By the way, ", "So, ")


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


@dataclass
class _Told:
    key: str
    fact: Fact
    about: str
    value: str

    def form(self, template: str) -> str:
        return template.format(v=self.value, s=self.about, a=an(self.value))


def sample(rng: Random, split: Split) -> Sample:
    """Two to six turns; at least one asks."""
    while True:
        try:
            return _sample(rng, split)
        except RuntimeError:  # too few ways to say this to have one on this side
            continue


def _sample(rng: Random, split: Split) -> Sample:
    chinese = rng.random() < 0.65
    facts = _ZH if chinese else _EN
    keys, weights = list(facts), [fact.weight for fact in facts.values()]

    def about(fact: Fact) -> str:
        if not fact.about:
            return ""
        first = fact.about[0]
        if first == "*":
            return draw(rng, split, lambda: nonsense(rng, rng.randint(2, 3)) if chinese else word(rng, 2))
        return value(rng, split, first[1:]) if first[0] == "@" else rng.choice(fact.about)

    def fresh(known: dict[tuple[str, str], _Told]) -> _Told:
        """A fact that is not told yet."""
        while True:
            key = rng.choices(keys, weights)[0]
            subject = about(facts[key])
            taken = {told.about for told in known.values()} if subject else set()
            if (key, subject) in known or (subject in taken and key not in ("where", "whose", "relative", "job of")):
                continue
            told = _Told(key, facts[key], subject, value(rng, split, facts[key].kind))
            if all(told.value != other.value for other in known.values()) and told.value != subject:
                return told

    def saying(frames: Sequence[str], *told: _Told) -> str:
        texts = [one.form(rng.choice(one.fact.says)) for one in told]
        first, second = texts[0], texts[-1]
        return rng.choice(frames).format(t=first, T=_upper(first), u=second, U=_upper(second))

    def correcting(told: _Told) -> str:
        text = saying(_CORRECT if chinese else _CORRECT_EN, told)
        return text + rng.choice(_CORRECT_ENDS if chinese else _CORRECT_ENDS_EN)

    def asking(told: _Told) -> str:
        question = told.form(rng.choice(told.fact.asks))
        return rng.choice(_ASK if chinese else _ASK_EN).format(q=question, Q=_upper(question))

    def chatting(remarks: Sequence[str]) -> str:
        remark = rng.choice(remarks)
        if chinese:
            ask = remark.endswith(("吗", "不在"))
            return rng.choice(_TALK_STARTS) + remark + rng.choice(_ASK_ENDS if ask else _TALK_ENDS)
        start = rng.choice(_TALK_STARTS_EN)
        ask = remark.startswith(("are you", "is any", "can you"))
        end = rng.choice(("?", "", "??", ", my friend?")) if ask else rng.choice(_TALK_ENDS_EN)
        return start + (remark if start or rng.random() < 0.2 else _upper(remark)) + end

    known: dict[tuple[str, str], _Told] = {}
    changed: set[tuple[str, str]] = set()
    asked: set[tuple[str, str]] = set()
    messages: list[dict[str, Any]] = []
    frames: Sequence[str]

    def say(make: Callable[[], str], reply: str) -> None:
        messages.extend((user(draw(rng, split, make)), assistant(reply)))

    turns = rng.choice((2, 2, 3, 3, 4, 4, 5, 6))
    questions = 1 if turns < 4 else rng.choice((1, 2, 2, 3))
    for turn in range(turns):
        left = turns - turn
        open_ones = [told for key, told in known.items() if key not in asked]
        choice = rng.random()
        if left == questions + 1 and not known and rng.random() < 0.85:  # or nothing would be there to ask for
            choice = 1.0
        if not open_ones and rng.random() < 0.5:
            open_ones = list(known.values())  # once more
        if left <= questions or (turn and choice < 0.15 and open_ones):
            if open_ones and rng.random() < 0.75:
                mended = [told for told in open_ones if (told.key, told.about) in changed]
                told = rng.choice(mended if mended and rng.random() < 0.7 else open_ones)
                reply = told.form(told.fact.answer)
            else:
                told, reply = _untold(rng, facts, known, fresh, about), UNTOLD if chinese else UNTOLD_EN
            asked.add((told.key, told.about))
            say(lambda: asking(told), reply)  # noqa: B023
        elif turn and known and choice < 0.34:  # a correction; asked again later, it has the new value
            key = rng.choice(list(known))
            old = known[key]
            new = _Told(old.key, old.fact, old.about, value(rng, split, old.fact.kind))
            if new.value in {told.value for told in known.values()}:
                continue
            known[key] = new
            asked.discard(key)
            changed.add(key)
            reply = (CORRECTED if chinese else CORRECTED_EN).format(v=new.value)
            say(lambda: correcting(new), reply)  # noqa: B023
        elif (turn and choice < 0.5) or (not turn and choice < 0.06):
            remarks, reply = rng.choice(SMALL_TALK if chinese else SMALL_TALK_EN)
            say(lambda: chatting(remarks), reply)  # noqa: B023
        else:
            one = fresh(known)
            known[one.key, one.about] = one
            if rng.random() < 0.3:
                two = fresh(known)
                known[two.key, two.about] = two
                reply = one.form(one.fact.reply) + ("" if chinese else " ") + two.form(two.fact.reply)
                frames = _TELL_TWO if chinese else _TELL_TWO_EN
                say(lambda: saying(frames, one, two), reply if chinese else _upper(reply))  # noqa: B023
            else:
                frames = (_TELL if turn else _TELL_FIRST) if chinese else (_TELL_EN if turn else _TELL_FIRST_EN)
                say(lambda: saying(frames, one), _upper(one.form(one.fact.reply)))  # noqa: B023
    return Sample("memory", messages)


_PAIRS = {"where": "whose", "whose": "where", "relative": "job of", "job of": "relative"}
"""Facts about the same people."""


def _untold(
    rng: Random,
    facts: dict[str, Fact],
    known: dict[tuple[str, str], _Told],
    fresh: Callable[[dict[tuple[str, str], _Told]], _Told],
    about: Callable[[Fact], str],
) -> _Told:
    """What was not told; half of the time of the same kind, about something else, or of another kind, about the same."""
    similar = [told for told in known.values() if told.about]
    if similar and rng.random() < 0.5:
        told = rng.choice(similar)
        key = _PAIRS.get(told.key, "")
        if key and (key, told.about) not in known and rng.random() < 0.5:
            return _Told(key, facts[key], told.about, "")
        for _ in range(20):
            other = about(told.fact)
            if all(other != one.about and other not in one.value for one in known.values()):
                return _Told(told.key, told.fact, other, "")
    return fresh(known)
