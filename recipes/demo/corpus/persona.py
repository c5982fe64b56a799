"""Playing a described persona: the system message describes, the answers are in the first person and copy it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from chatglm.chat.personas import Persona

from . import beyond, passages
from .base import Sample, Split, assistant, draw, form, held_out, nonsense, persistently, pick, system, user
from .vocabulary import TEMPERS, TEMPERS_EN, an, value, word
from .wording import Kind, choose, dress, upper


@dataclass(frozen=True)
class _Part:
    """Something to tell of a persona; {v} is the value, {a} the value with its article, {s} what it is about.

    In Chinese `says` goes without the person, who is written in front of it: 你的, 我的, 他的 for {o}, else 你, 我, 他. In
    English {I}, {my}, {come} and {work} are the person's forms.
    """

    kind: str
    says: str
    asks: tuple[str, ...]
    untold: str
    """The answer where it is not told, as far as "…, I have not thought about it"."""
    chance: float


# In the order in which they are told.
_ZH = {
    "age": _Part("age", "今年{v}岁", ("你今年多大", "你今年几岁", "你多大了", "你(今年|现在|)(多大|几岁|多少岁|贵庚|年方几何)(了|啦|呀|)", "(今年|)贵庚", "你的年龄(是|)(多少|)", "几岁(了|啦)", "多大(了|啦|年纪)", "您高寿"), "我今年多大", 0.6),
    "job": _Part("job", "{o}职业是{v}", ("你的职业是什么", "你是做什么的", "你的(职业|工作|身份)(是|)(什么|啥)", "你(是|)(做什么|干什么|干啥|做啥|干嘛)(工作|)(的|)", "你(从事|做)(什么|哪一)(行|职业|工作)", "你(在哪高就|靠什么生活|平时做什么工作)", "您的职业是"), "我的职业是什么", 0.6),
    "home": _Part("city", "{o}家乡是{v}", ("你的家乡是哪里", "你的家乡在哪里", "你(的|)(家乡|老家|家|故乡)(是|在)(哪里|哪儿|哪)", "你(是|)(哪里|哪儿)(人|来的)", "你(来自|住在|住)(哪里|哪儿|哪)", "你从(哪里|哪儿)来"), "我的家乡是哪里", 0.45),
    "temper": _Part("temper", "{o}性格很{v}", ("你的性格怎么样", "你的性格如何", "你(的|)(性格|脾气|个性)(怎么样|如何|是什么样的|好吗|)", "你是(什么|怎样)(性格|的人|样的人)", "你是个怎样的人"), "我的性格怎么样", 0.4),
    "hobby": _Part("hobby", "{o}爱好是{v}", ("你的爱好是什么", "你有什么爱好", "你(的|)(爱好|兴趣)(是|)(什么|啥)", "你(有|)(什么|啥|哪些)(爱好|兴趣)", "(你|)(平时|没事|空闲时|业余)(喜欢|爱)(干嘛|做什么|干什么|干啥)", "你(喜欢|爱)(做什么|干什么|干嘛|什么)"), "我的爱好是什么", 0.5),
    "food": _Part("food", "最爱吃{v}", ("你最爱吃什么", "你喜欢吃什么", "你(最|)(爱|喜欢)吃(什么|啥)", "你(最|)(喜欢|爱)的(食物|菜)(是|)(什么|啥)", "(想|爱)吃(点|)(什么|啥)"), "我最爱吃什么", 0.4),
    "colour": _Part("colour", "最喜欢的颜色是{v}", ("你最喜欢的颜色是什么", "你喜欢什么颜色", "你(最|)喜欢(的颜色是|)(什么|哪种|啥)(颜色|)", "你爱(什么|哪种)颜色"), "我最喜欢的颜色是什么", 0.15),
    "pet": _Part("petname", "{o}宠物叫{v}", ("你的宠物叫什么", "你的宠物叫什么名字", "你(的|家的|)宠物(叫|名叫)(什么|啥)(名字|)", "你的宠物是谁", "你养的宠物叫什么"), "我的宠物叫什么", 0.2),
    "friend": _Part("person", "{o}好朋友是{v}", ("你的好朋友是谁", "谁是你的好朋友", "你(的|)(最|)好(朋友|友)(是|叫)(谁|什么|啥)", "谁是你(的|)(最|)好(的|)朋友"), "我的好朋友是谁", 0.2),
    "dream": _Part("dream", "{o}梦想是{v}", ("你的梦想是什么", "你有什么梦想", "你(的|)(梦想|理想|愿望)(是|)(什么|啥)", "你(有|)(什么|啥)(梦想|理想|愿望)", "你(最|)想(做|要)(什么|做什么)"), "我的梦想是什么", 0.2),
    "birthday": _Part("date", "{o}生日是{v}", ("你的生日是哪天", "你的生日是什么时候", "你(的|)生日(是|在|)(哪天|什么时候|几号|几月几号)", "你(哪天|什么时候|几号)(过|)生日"), "我的生日是哪天", 0.12),
    "any": _Part("any", "{o}{s}是{v}", ("你的{s}是什么", "你的{s}(是|叫)(什么|啥)", "你(用|)(的|){s}(呢|是什么)", "说说你的{s}"), "我的{s}是什么", 0.2),
}  # fmt: skip
_EN = {
    "age": _Part("age", "{my} age is {v}.", ("how old are you", "what is your age", "(what is|what's|whats) your age", "how old r u", "your age", "(tell me|may i know) your age"), "My age is something", 0.6),
    "job": _Part("en.job", "{I} {work} as {a}.", ("what do you work as", "what is your job", "what do you (work as|do|do for a living|do for work)", "(what is|what's|whats) your (job|profession|work)", "how do you earn your money"), "I work as something", 0.6),
    "home": _Part("en.city", "{I} {come} from {v}.", ("where do you come from", "where are you from", "where (do you come from|are you from|do you live|is your home)", "(which|what) (city|town) are you from", "where do u come from", "(what is|what's) your home town"), "I come from a place", 0.45),
    "temper": _Part("en.temper", "{my} character is {v}.", ("what is your character like", "how is your character", "what (are you like|kind of person are you)", "describe your character", "(what's|what is) your temper"), "My character is something", 0.4),
    "hobby": _Part("en.hobby", "{my} hobby is {v}.", ("what is your hobby", "do you have a hobby", "(what is|what's|whats) your hobby", "what do you (do in your free time|like to do|like doing|enjoy|do for fun)", "(tell me about|any) your hobby"), "My hobby is something", 0.5),
    "food": _Part("en.food", "{my} favorite food is {v}.", ("what is your favorite food", "what's your favorite food", "(what is|what's|whats) your (favorite|favourite|fav) food", "what do you (like|love) to eat", "what food do you (like|love)"), "My favorite food is something", 0.4),
    "colour": _Part("en.colour", "{my} favorite color is {v}.", ("what is your favorite color", "what's your favorite color", "(what is|what's|whats) your (favorite|favourite|fav) (color|colour)", "(which|what) (color|colour) do you like( best|)"), "My favorite color is something", 0.15),
    "pet": _Part("en.petname", "{my} pet is called {v}.", ("what is your pet called", "what is the name of your pet", "(what is|what's) the name of your pet", "(what is|what's|whats) your pet's name", "how is your pet called"), "My pet is called something", 0.2),
    "friend": _Part("en.name", "{my} best friend is {v}.", ("who is your best friend", "what is your best friend called", "(what is|what's) your best friend's name", "whos your best friend"), "My best friend is someone", 0.2),
    "dream": _Part("en.dream", "{my} dream is {v}.", ("what is your dream", "what's your dream", "(what is|what's|whats) your (dream|wish)", "what do you (dream of|wish for|want most)"), "My dream is something", 0.2),
    "birthday": _Part("en.date", "{my} birthday is on {v}.", ("when is your birthday", "what day is your birthday", "(what|which) day is your birthday", "when were you born"), "My birthday is on a day", 0.12),
    "any": _Part("en.any", "{my} {s} is {v}.", ("what is your {s}", "what's your {s}", "(what is|what's|whats) your {s}", "tell me your {s}", "do you have a {s}"), "My {s} is something", 0.2),
}  # fmt: skip
UNTOLD, UNTOLD_EN = "，我还没想好。", " that I have not thought about."
_NOUNS = ("武器", "绰号", "法宝", "代号", "暗号", "吉祥物", "礼物", "笔名")
_NOUNS_EN = ("nickname", "weapon", "code word", "mascot", "gift", "secret", "pen name", "weakness")
_NEVER = ("身高", "体重", "手机号", "星座", "国籍", "学校", "血型", "网名")
_NEVER_EN = ("height", "weight", "phone number", "star sign", "school", "favorite song", "favorite film", "salary")
"""What is asked for and never told."""
_ANY = ("thing", "animal", "food", "colour")

CATCHES = ("好嘞", "没问题", "真有意思", "说得对", "就这么办", "哎呀呀", "天哪", "妙啊", "加油哦", "太棒了", "喵呜", "嘿嘿")  # fmt: skip
CATCHES_EN = ("No problem", "You bet", "Easy peasy", "Off we go", "Well well", "Trust me", "Oh dear", "Ahoy", "Cheers", "Dear me", "Just like that", "Holy cow")  # fmt: skip
_CATCH = ("每句话都以“{v}”结尾。", "口头禅是“{v}”。")
_CATCH_EN = ("End every answer with “{v}”.", "{my} catchphrase is “{v}”.")

# The first two also stand in front of a description in the third person.
_STARTS = ("请你扮演{n}。", "请扮演{n}。", "你是{n}。", "你叫{n}。", "你现在是{n}。")
_STARTS_EN = ("Please play {n}.", "You play {n}.", "You are {n}.", "Your name is {n}.")
_NAME = (
    "你(叫|是叫|名叫)(什么|啥)(名字|)",
    "你是(谁|哪位|什么人)",
    "你的(名字|大名|姓名)(是|叫|)(什么|啥|)",
    "(怎么|如何)称呼(你|您)",
    "请问你是",
    "(你|您)贵姓",
    "报上名来",
)
_NAME_EN = (
    "(what is|what's|whats|tell me) your name",
    "who (are|r) (you|u)",
    "what (are you called|should i call you)",
    "your name",
    "may i ask your name",
)
_INTRO = (
    "(请|)自我介绍(一下|)",
    "(请|)(介绍|介绍介绍|说说|讲讲|聊聊)(一下|下|)(你|您)自己(吧|)",
    "(请|)做个自我介绍",
    "说说你是个怎样的人物",
    "跟我讲讲你自己",
)
_INTRO_EN = (
    "(please |can you |)(introduce|describe) yourself",
    "tell me (about|something about|more about) yourself",
    "tell me who you are",
    "introduce yourself to me",
)
_USER = (
    "我(是谁|叫什么|叫什么名字|是哪位|叫啥)",
    "(你|)(知道|认识|认得|记得)我(是谁|叫什么|)(吗|)",
    "你在(和|跟)谁(说话|聊天|对话)",
    "我的名字(是什么|)",
)
_USER_EN = (
    "who am i",
    "(what is|what's|do you know|tell me) my name",
    "do you (know|recognize) me",
    "who are you talking to",
)
_LIST = {
    "age": "年龄|岁数",
    "job": "职业|工作|身份",
    "home": "家乡|籍贯|老家|来自",
    "temper": "性格|个性",
    "hobby": "爱好|兴趣",
    "food": "爱吃|最爱吃|喜欢的食物",
    "colour": "喜欢的颜色",
    "pet": "宠物",
    "friend": "好朋友|朋友",
    "dream": "梦想|愿望",
    "birthday": "生日",
}
_LIST_EN = {
    "age": "Age",
    "job": "Job|Occupation|Profession",
    "home": "Home|From|Home town",
    "temper": "Character|Personality|Temper",
    "hobby": "Hobby|Hobbies|Likes",
    "food": "Favorite food|Favourite food|Food",
    "colour": "Favorite color|Colour",
    "pet": "Pet",
    "friend": "Best friend|Friend",
    "dream": "Dream|Wish",
    "birthday": "Birthday",
}
_LIST_STARTS = (
    "",
    "",
    "角色设定：\n",
    "人物设定\n",
    "请扮演以下角色：\n",
    "你要扮演的角色：\n",
    "# 角色\n",
    "角色卡\n",
)
_LIST_STARTS_EN = ("", "", "Character:\n", "Play this character:\n", "# Persona\n", "You are this person:\n", "Role:\n")
_SHORT = {
    "age": ("今年{v}岁", "{v}岁"),
    "job": ("是{c}{v}", "职业是{v}", "做{v}"),
    "home": ("来自{v}", "住在{v}", "家乡是{v}"),
    "temper": ("性格{v}", "很{v}"),
    "hobby": ("喜欢{v}", "爱好是{v}", "爱{v}"),
    "food": ("喜欢吃{v}", "爱吃{v}"),
    "colour": ("喜欢{v}",),
    "pet": ("养了宠物{v}", "宠物叫{v}"),
    "friend": ("好友是{v}", "好朋友叫{v}"),
    "dream": ("想{v}", "梦想{v}"),
    "birthday": ("生日{v}", "{v}出生"),
}
_SHORT_EN = {
    "age": ("{v} years old", "aged {v}"),
    "job": ("{a}", "working as {a}"),
    "home": ("from {v}", "living in {v}"),
    "temper": ("very {v}", "who is {v}"),
    "hobby": ("who loves {v}", "who likes {v}"),
    "food": ("who loves to eat {v}", "who likes {v}"),
    "colour": ("who loves {v}",),
    "pet": ("with a pet called {v}", "who has a pet called {v}"),
    "friend": ("whose best friend is {v}", "best friend of {v}"),
    "dream": ("who wants {v}", "dreaming {v}"),
    "birthday": ("born on {v}",),
}
NOT_KNOWN, NOT_KNOWN_EN = "这个我不知道。", "That I do not know."

# What is said to it whoever it is, and its answers.
_TALK = {
    "hello": (
        (
            "(你|您)好(啊|呀|)",
            "(嗨|哈喽|嘿|hi|hello)",
            "(早上|下午|晚上)好",
            "很高兴(见到|认识)你",
            "(在吗|在不在|打扰了|有人吗)",
        ),
        "你好，我是{n}。",
    ),
    "bye": (
        ("(再见|拜拜|晚安|回头见|明天见)(啦|了|)", "下次(再聊|见)", "我(先|要)走(了|啦)", "先这样"),
        "再见，下次再聊！",
    ),
    "ai": (("你是(不是|)(AI|机器人|人工智能|ChatGLM|真人|程序|模型|ChatGPT|假人)(吗|吧|)",), "我是{n}。"),
    "how": (("你(今天|最近|)(好吗|怎么样|过得好吗)", "最近(怎么样|好吗|如何)"), "我很好，你呢？"),
    "thanks": (("(谢谢|多谢|感谢|谢啦)(你|您|)", "(非常|太)(感谢|谢谢)(了|)"), "不客气。"),
    "praise": (("你(真|好|太)(棒|可爱|有趣|好|厉害)(了|)", "我(好|很|)喜欢你"), "谢谢你这么说。"),
}
_TALK_EN = {
    "hello": (
        ("(hello|hi|hey)( there|)", "good (morning|evening|afternoon)", "nice to (meet|see) you"),
        "Hello, I am {n}.",
    ),
    "bye": (
        ("(bye|goodbye|good night|farewell)( then|)", "see (you|ya)( later| soon|)", "i have to go"),
        "Goodbye, see you next time!",
    ),
    "ai": (("are you (an AI|a robot|ChatGLM|human|a machine|a program|real|ChatGPT)",), "I am {n}."),
    "how": (("how (are you|r u|do you do|have you been|is it going)( today|)",), "I am fine, and you?"),
    "thanks": (("(thanks|thank you|many thanks|thx)( a lot| very much|)",), "You are welcome."),
    "praise": (("you are (great|funny|cute|nice|the best)", "I (like|love) you"), "Thank you for saying so."),
}
_WOMEN = {"Alice", "Carol", "Emma", "Grace", "Iris", "Kate", "Mary", "Olivia", "Rose", "Tina", "Uma", "Wendy", "Yara", "Zoe", "Bella", "Diana", "Fiona", "Hannah", "Julia", "Laura", "Nora", "Ruby", "Lucy", "Linda", "Sophie"}  # fmt: skip
"""Of the vocabulary's names; any other one is a he, where the description says he or she."""

_FORMS = {
    "I": {"I": "I", "my": "My", "come": "come", "work": "work"},
    "you": {"I": "You", "my": "Your", "come": "come", "work": "work"},
    "he": {"I": "He", "my": "His", "come": "comes", "work": "works"},
    "she": {"I": "She", "my": "Her", "come": "comes", "work": "works"},
}


def sample(rng: Random, split: Split) -> Sample:
    """A described persona and one to four turns with it."""
    return persistently(lambda: _Persona(rng, split).sample())


class _Persona:
    """Who is played."""

    def __init__(self, rng: Random, split: Split) -> None:
        self.rng, self.split = rng, split
        self.english = rng.random() < 0.37
        self.parts = _EN if self.english else _ZH
        self.name = value(rng, split, "en.name" if self.english else "name")
        told = [key for key, part in self.parts.items() if rng.random() < part.chance][:6]
        self.user = value(rng, split, "en.name" if self.english else "name") if rng.random() < 0.25 else ""
        self.noun = self._noun()
        self.facts = {key: self._value(self.parts[key].kind) for key in told}
        if len({self.name, self.noun, self.user, *self.facts.values()}) < len(self.facts) + 3:
            raise RuntimeError("two things of the same name")
        self.catch = ""
        if rng.random() < 0.25:
            coined = rng.random() < 0.15
            chosen = CATCHES_EN if self.english else CATCHES
            self.catch = self._coined() if coined else pick(rng, chosen, split)
            self.catch = upper(self.catch)

    def _coined(self) -> str:
        return draw(self.rng, self.split, lambda: word(self.rng, 2) if self.english else nonsense(self.rng, 2))

    def _noun(self, told: bool = True) -> str:
        """What a fact about anything is about."""
        nouns: Sequence[str] = _NOUNS_EN if self.english else _NOUNS
        if not told:
            nouns = (*nouns, *(_NEVER_EN if self.english else _NEVER))
        return self._coined() if self.rng.random() < 0.3 else self.rng.choice(nouns)

    def _value(self, kind: str) -> str:
        if kind.endswith("temper"):  # a single one, which 很 may stand in front of
            return pick(self.rng, TEMPERS_EN if self.english else TEMPERS, self.split)
        if kind.endswith("any"):
            if self.rng.random() < 0.4:
                return self._coined()
            kind = ("en." if self.english else "") + self.rng.choice(_ANY)
        return value(self.rng, self.split, kind)

    def _clause(self, key: str, person: str) -> str:
        """A part, told of a person: in Chinese 你, 我, 他 or 她, or "" for one who was named before."""
        text, told = self.parts[key].says, self.facts[key]
        if self.english:
            return text.format(v=told, a=an(told), s=self.noun, **_FORMS[person])
        owner = person and person + "的"
        return ("" if "{o}" in text else person) + text.format(o=owner, v=told, s=self.noun)

    def describe(self) -> str:
        """In sentences, as a list, in a few words, or as the fields of CharacterGLM in a system message."""
        luck = self.rng.random()
        if luck < 0.22:
            text = self._list()
        elif luck < 0.4:
            text = self._shortly()
        elif luck < 0.55:
            text = self._fields()
        else:
            text = self._sentences()
        if self.user and luck >= 0.55:
            text += f" You are talking to {self.user}." if self.english else f"和你对话的是{self.user}。"
        if self.rng.random() < 0.06:  # what the lore says
            text += "\n" + passages.text(self.rng, self.split, not self.english, 1)
        return text

    def _caught(self) -> str:
        if not self.catch:
            return ""
        end = self.rng.choice(_CATCH_EN if self.english else _CATCH)
        return end.format(v=self.catch, **_FORMS["you"]) if self.english else end.format(v=self.catch)

    def _list(self) -> str:
        rng, english = self.rng, self.english
        labels = _LIST_EN if english else _LIST
        colon = rng.choice((": ", ": ", ":", " - ")) if english else rng.choice(("：", "：", ":", "： "))
        mark = rng.choice(("", "", "- ", "* "))
        named = rng.choice(("Name", "Name", "Character")) if english else rng.choice(("姓名", "名字", "角色", "角色名"))
        items = [(named, self.name)]
        items += [
            (rng.choice(labels[key].split("|")) if key in labels else self.noun, told)
            for key, told in self.facts.items()
        ]
        if self.catch:
            items.append(("Catchphrase" if english else "口头禅", f"“{self.catch}”"))
        if self.user:
            items.append(("User" if english else "用户", self.user))
        between = "\n" if rng.random() < 0.85 else ("; " if english else "；")
        start = rng.choice(_LIST_STARTS_EN if english else _LIST_STARTS)
        return start + between.join(
            f"{mark if between == chr(10) else ''}{label}{colon}{told}" for label, told in items
        )

    def _shortly(self) -> str:
        rng, english = self.rng, self.english
        short = _SHORT_EN if english else _SHORT
        told = [
            (
                choose(rng, rng.choice(short[key])) if key in short else ("whose {s} is {v}" if english else "{s}是{v}")
            ).format(v=value, a=an(value), s=self.noun, c=rng.choice(("一位", "一名", "个", "", "一个")))
            for key, value in self.facts.items()
        ]
        if english:
            if rng.random() < 0.25:
                told = [*told, f"and hates {value(rng, self.split, 'en.thing')}"]
            text = f"{rng.choice(('You are', 'Play', 'You play', 'Please play', 'Act as'))} {', '.join([self.name, *told])}."
        else:
            start = rng.choice(
                (
                    "你是",
                    "你扮演",
                    "请扮演",
                    "你现在是",
                    "请你扮演",
                    "假设你是",
                    "你的角色是",
                    "你的名字叫",
                    "从现在起你是",
                )
            )
            who = self.name
            if rng.random() < 0.35 and not start.endswith("叫"):
                animal = value(rng, self.split, "animal")
                who = rng.choice(
                    (
                        f"一只名叫{who}的{animal}",
                        f"一只叫{who}的{animal}",
                        f"一个名叫{who}的{rng.choice(('女孩', '男孩', '机器人', '老人', '学生'))}",
                        f"客服{who}",
                        f"店员{who}",
                        f"助手{who}",
                    )
                )
            if rng.random() < 0.25:
                told = [*told, rng.choice(("讨厌", "害怕", "不喜欢")) + value(rng, self.split, "thing")]
            text = start + "，".join([who, *told]) + "。"
        if self.user:
            text += f" You are talking to {self.user}." if english else f"和你对话的是{self.user}。"
        return text + (" " if english and self.catch else "") + self._caught()

    def _fields(self) -> str:
        """As `chatglm.chat.personas` makes sentences of CharacterGLM's fields."""
        rng, english = self.rng, self.english
        person = ("she" if self.name in _WOMEN else "he") if english else ""
        if english:
            info = " ".join(self._clause(key, person) for key in self.facts)
            if "job" in self.facts and rng.random() < 0.5:
                info = f"{self.name} is {an(self.facts['job'])}. " + " ".join(
                    self._clause(key, person) for key in self.facts if key != "job"
                )
        else:
            clauses = [
                self._clause(key, "" if number else rng.choice(("你", "她", "他", "")))
                for number, key in enumerate(self.facts)
            ]
            if "job" in self.facts and rng.random() < 0.5:
                praised = rng.choice(("", "", "当红的", "有名的", "年轻的", "普通的", "出色的"))
                clauses = [
                    f"{self.name}是一位{praised}{self.facts['job']}",
                    *(self._clause(key, "") for key in self.facts if key != "job"),
                ]
            info = "，".join(clauses)
        persona = Persona(
            self.name,
            info + (" " if english and info else "。" if info else "") + self._caught(),
            self.user or Persona.user_name,
        )
        return persona.sentences()

    def _sentences(self) -> str:
        rng = self.rng
        third = rng.random() < 0.3
        starts: Sequence[str] = _STARTS_EN if self.english else _STARTS
        text = rng.choice(starts[:2] if third else starts).format(n=self.name)
        if self.english:
            person = ("she" if self.name in _WOMEN else "he") if third else "you"
        else:
            person = rng.choice(("他", "她")) if third else "你"
        if self.english:
            text = " ".join([text, *(self._clause(key, person) for key in self.facts)])
            end = rng.choice(_CATCH_EN).format(v=self.catch, **_FORMS[person])
            return f"{text} {end}" if self.catch else text
        clauses = [self._clause(key, "" if number else person) for number, key in enumerate(self.facts)]
        text += "，".join(clauses) + ("。" if clauses else "")
        return text + (rng.choice(_CATCH).format(v=self.catch) if self.catch else "")

    def introduction(self) -> str:
        """The description in the first person."""
        if self.english:
            return " ".join([f"I am {self.name}.", *(self._clause(key, "I") for key in self.facts)])
        return "，".join([f"我是{self.name}", *(self._clause(key, "") for key in self.facts)]) + "。"

    def said(self, text: str) -> str:
        """With the catchphrase."""
        if not self.catch:
            return text
        return f"{text} {self.catch}!" if self.english else f"{text}{self.catch}！"

    def typed(self, patterns: Sequence[str], kind: Kind, about: str = "") -> str:
        """One of several patterns as it is typed, sometimes with the persona's name."""
        rng, english = self.rng, self.english

        def make() -> str:
            core = choose(rng, form(rng, self.split, patterns))
            text = dress(rng, self.split, core, english, kind, {"s": about}, calm=0.5)
            if rng.random() < 0.08:
                text = (
                    f"{self.name}, {text}"
                    if english
                    else rng.choice(("{}，{}", "{}，{}", "{} {}")).format(self.name, text)
                )
            return text

        return draw(rng, self.split, make)

    def turn(self, topic: str) -> tuple[str, str]:
        """What the user says, what it says."""
        english, rng = self.english, self.rng
        talk = _TALK_EN if english else _TALK
        if topic == "intro":
            return self.typed(_INTRO_EN if english else _INTRO, "do"), self.introduction()
        if topic == "name":
            reply = f"My name is {self.name}." if english else f"我叫{self.name}。"
            return self.typed(_NAME_EN if english else _NAME, "ask"), reply
        if topic == "user":
            reply = f"You are {self.user}." if english else f"你是{self.user}。"
            return self.typed(_USER_EN if english else _USER, "ask"), reply
        if topic == "world":
            core, kind = beyond.request(rng, self.split, english)
            return draw(
                rng, self.split, lambda: dress(rng, self.split, core, english, kind)
            ), NOT_KNOWN_EN if english else NOT_KNOWN
        if topic in talk:
            texts, reply = talk[topic]
            return self.typed(texts, "ask" if topic in ("ai", "how") else "say"), reply.format(n=self.name)
        part, noun = self.parts[topic], self.noun if topic in self.facts else self._noun(told=False)
        question = self.typed(part.asks, "ask", noun)
        if topic in self.facts:
            return question, self._clause(topic, "I" if english else "我") + ("" if english else "。")
        return question, part.untold.format(s=noun) + (UNTOLD_EN if english else UNTOLD)

    def sample(self) -> Sample:
        rng = self.rng
        tries = 1 if self.split == "train" else 30  # with few ways to describe this one, another is soon made
        described = [
            text for text in (self.describe() for _ in range(tries)) if held_out(text) == (self.split == "test")
        ]
        if not described:
            raise RuntimeError("the description is on the other side")
        messages = [system(described[0])]
        if rng.random() < 0.2:  # a greeting of its own
            hello = f"Hello, I am {self.name}." if self.english else f"你好，我是{self.name}。"
            messages.append(assistant(hello))
        missing = [key for key in self.parts if key not in self.facts]
        topics: list[str] = []
        turns = rng.choice((1, 2, 2, 3, 3, 4))
        for turn in range(turns):
            choice = rng.random()
            if turn == 0 and choice < 0.35:
                topic = rng.choice(("hello", "hello", "intro"))
            elif turn and turn == turns - 1 and choice < 0.15:
                topic = rng.choice(("bye", "thanks"))
            elif choice < 0.3:
                topic = rng.choice(("ai", "how", "praise", "intro", "name", "name"))
            elif choice < 0.34:
                topic = "world"
            elif choice < 0.42 and self.user:
                topic = "user"
            elif choice < 0.45 and missing:
                topic = rng.choice([*missing, "any"] if "any" in missing else missing)
            else:
                topic = rng.choice(["name", *self.facts, *self.facts])
            if topic in topics:
                continue
            topics.append(topic)
            text, reply = self.turn(topic)
            messages += [user(text), assistant(self.said(reply))]
        return Sample("persona", messages)
