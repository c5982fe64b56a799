"""Playing a described persona: the system message describes, the answers are in the first person and copy it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from .base import Sample, Split, assistant, draw, held_out, nonsense, persistently, pick, system, user
from .vocabulary import TEMPERS, TEMPERS_EN, an, value, word


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
    "age": _Part("age", "今年{v}岁", ("你今年多大", "你今年几岁", "你多大了"), "我今年多大", 0.6),
    "job": _Part("job", "{o}职业是{v}", ("你的职业是什么", "你是做什么的"), "我的职业是什么", 0.6),
    "home": _Part("city", "{o}家乡是{v}", ("你的家乡是哪里", "你的家乡在哪里"), "我的家乡是哪里", 0.45),
    "temper": _Part("temper", "{o}性格很{v}", ("你的性格怎么样", "你的性格如何"), "我的性格怎么样", 0.4),
    "hobby": _Part("hobby", "{o}爱好是{v}", ("你的爱好是什么", "你有什么爱好"), "我的爱好是什么", 0.5),
    "food": _Part("food", "最爱吃{v}", ("你最爱吃什么", "你喜欢吃什么"), "我最爱吃什么", 0.4),
    "colour": _Part("colour", "最喜欢的颜色是{v}", ("你最喜欢的颜色是什么", "你喜欢什么颜色"), "我最喜欢的颜色是什么", 0.15),
    "pet": _Part("petname", "{o}宠物叫{v}", ("你的宠物叫什么", "你的宠物叫什么名字"), "我的宠物叫什么", 0.2),
    "friend": _Part("person", "{o}好朋友是{v}", ("你的好朋友是谁", "谁是你的好朋友"), "我的好朋友是谁", 0.2),
    "dream": _Part("dream", "{o}梦想是{v}", ("你的梦想是什么", "你有什么梦想"), "我的梦想是什么", 0.2),
    "birthday": _Part("date", "{o}生日是{v}", ("你的生日是哪天", "你的生日是什么时候"), "我的生日是哪天", 0.12),
    "any": _Part("any", "{o}{s}是{v}", ("你的{s}是什么",), "我的{s}是什么", 0.2),
}  # fmt: skip
_EN = {
    "age": _Part("age", "{my} age is {v}.", ("how old are you", "what is your age"), "My age is something", 0.6),
    "job": _Part("en.job", "{I} {work} as {a}.", ("what do you work as", "what is your job"), "I work as something", 0.6),
    "home": _Part("en.city", "{I} {come} from {v}.", ("where do you come from", "where are you from"), "I come from a place", 0.45),
    "temper": _Part("en.temper", "{my} character is {v}.", ("what is your character like", "how is your character"), "My character is something", 0.4),
    "hobby": _Part("en.hobby", "{my} hobby is {v}.", ("what is your hobby", "do you have a hobby"), "My hobby is something", 0.5),
    "food": _Part("en.food", "{my} favorite food is {v}.", ("what is your favorite food", "what's your favorite food"), "My favorite food is something", 0.4),
    "colour": _Part("en.colour", "{my} favorite color is {v}.", ("what is your favorite color", "what's your favorite color"), "My favorite color is something", 0.15),
    "pet": _Part("en.petname", "{my} pet is called {v}.", ("what is your pet called", "what is the name of your pet"), "My pet is called something", 0.2),
    "friend": _Part("en.name", "{my} best friend is {v}.", ("who is your best friend", "what is your best friend called"), "My best friend is someone", 0.2),
    "dream": _Part("en.dream", "{my} dream is {v}.", ("what is your dream", "what's your dream"), "My dream is something", 0.2),
    "birthday": _Part("en.date", "{my} birthday is on {v}.", ("when is your birthday", "what day is your birthday"), "My birthday is on a day", 0.12),
    "any": _Part("en.any", "{my} {s} is {v}.", ("what is your {s}", "what's your {s}"), "My {s} is something", 0.2),
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
_NAME, _NAME_EN = ("你叫什么名字", "你叫什么", "你是谁", "你的名字是什么"), ("what is your name", "who are you", "what's your name")  # fmt: skip
_INTRO = ("请自我介绍", "介绍一下你自己", "自我介绍一下", "请介绍一下你自己")
_INTRO_EN = ("introduce yourself", "please introduce yourself", "tell me about yourself", "tell me who you are")
_FRAMES = ("{q}？", "{q}？", "{q}", "{q}?", "请问{q}？", "{n}，{q}？", "对了，{q}？", "那么，{q}？")
_FRAMES_EN = ("{Q}?", "{Q}?", "{Q}", "{q}?", "{q}", "{n}, {q}?", "By the way, {q}?", "Please tell me, {q}?")
_ENDS, _ENDS_EN = ("", "。", "！", "，{n}。"), ("", ".", "!", ", {n}.")

# What is said to it whoever it is, and its answers.
_TALK = {
    "hello": (("你好", "您好", "嗨", "哈喽", "早上好", "晚上好", "很高兴见到你"), "你好，我是{n}。"),
    "bye": (("再见", "拜拜", "下次再聊", "晚安", "回头见", "我先走了"), "再见，下次再聊！"),
    "ai": (("你是AI吗", "你是机器人吗", "你是人工智能吗", "你是ChatGLM吗", "你是真人吗", "你是程序吗"), "我是{n}。"),
    "how": (("你好吗", "最近怎么样", "你今天好吗", "你今天怎么样"), "我很好，你呢？"),
    "thanks": (("谢谢", "谢谢你", "多谢", "非常感谢"), "不客气。"),
    "praise": (("你真棒", "我喜欢你", "你真可爱", "你真有趣"), "谢谢你这么说。"),
}
_TALK_EN = {
    "hello": (("hello", "hi", "hey", "good morning", "good evening", "nice to meet you"), "Hello, I am {n}."),
    "bye": (("bye", "goodbye", "see you", "good night", "see you later"), "Goodbye, see you next time!"),
    "ai": (("are you an AI", "are you a robot", "are you ChatGLM", "are you human", "are you a machine"), "I am {n}."),
    "how": (("how are you", "how are you today", "how do you do", "how have you been"), "I am fine, and you?"),
    "thanks": (("thanks", "thank you", "thank you very much", "many thanks"), "You are welcome."),
    "praise": (("you are great", "I like you", "you are funny", "you are cute"), "Thank you for saying so."),
}
_ASKING = ("ai", "how")
_WOMEN = {"Alice", "Carol", "Emma", "Grace", "Iris", "Kate", "Mary", "Olivia", "Rose", "Tina", "Uma", "Wendy", "Yara", "Zoe", "Bella", "Diana", "Fiona", "Hannah", "Julia", "Laura", "Nora", "Ruby", "Lucy", "Linda", "Sophie"}  # fmt: skip
"""Of the vocabulary's names; any other one is a he, where the description says he or she."""

_FORMS = {
    "I": {"I": "I", "my": "My", "come": "come", "work": "work"},
    "you": {"I": "You", "my": "Your", "come": "come", "work": "work"},
    "he": {"I": "He", "my": "His", "come": "comes", "work": "works"},
    "she": {"I": "She", "my": "Her", "come": "comes", "work": "works"},
}


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


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
        self.noun = self._noun()
        self.facts = {key: self._value(self.parts[key].kind) for key in told}
        if len({self.name, self.noun, *self.facts.values()}) < len(self.facts) + 2:
            raise RuntimeError("two things of the same name")
        self.catch = ""
        if rng.random() < 0.25:
            coined = rng.random() < 0.15
            chosen = CATCHES_EN if self.english else CATCHES
            self.catch = self._coined() if coined else pick(rng, chosen, split)
            self.catch = _upper(self.catch)

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

    def side(self, frames: Sequence[str], texts: Sequence[str]) -> str:
        """A text in a frame, on the split's side."""
        name = self.name
        made = [frame.format(q=text, Q=_upper(text), n=name) for frame in frames for text in texts]
        mine = [text for text in made if held_out(text) == (self.split == "test")]
        if not mine:
            raise RuntimeError(f"all of {texts} are on the other side")
        return self.rng.choice(mine)

    def turn(self, topic: str) -> tuple[str, str]:
        """What the user says, what it says."""
        english, rng = self.english, self.rng
        frames: Sequence[str] = _FRAMES_EN if english else _FRAMES
        talk = _TALK_EN if english else _TALK
        if topic == "intro":
            ends = [
                ("{Q}" if english and rng.random() < 0.6 else "{q}") + end for end in (_ENDS_EN if english else _ENDS)
            ]
            return self.side(ends, _INTRO_EN if english else _INTRO), self.introduction()
        if topic == "name":
            reply = f"My name is {self.name}." if english else f"我叫{self.name}。"
            return self.side(frames, _NAME_EN if english else _NAME), reply
        if topic in talk:
            texts, reply = talk[topic]
            if topic not in _ASKING:
                big = "{Q}" if english and rng.random() < 0.6 else "{q}"
                frames = tuple(big + end for end in (_ENDS_EN if english else _ENDS))
            return self.side(frames, texts), reply.format(n=self.name)
        part, noun = self.parts[topic], self.noun if topic in self.facts else self._noun(told=False)
        question = self.side(frames, [text.format(s=noun) for text in part.asks])
        if topic in self.facts:
            return question, self._clause(topic, "I" if english else "我") + ("" if english else "。")
        return question, part.untold.format(s=noun) + (UNTOLD_EN if english else UNTOLD)

    def sample(self) -> Sample:
        rng = self.rng
        tries = 1 if self.split == "train" else 30  # with few ways to describe this one, another is soon made
        messages = [system(self.side(("{q}",), [self.describe() for _ in range(tries)]))]
        missing = [key for key in self.parts if key not in self.facts]
        topics: list[str] = []
        turns = rng.choice((1, 2, 2, 3, 3, 4))
        for turn in range(turns):
            choice = rng.random()
            if turn == 0 and choice < 0.35:
                topic = rng.choice(("hello", "hello", "intro"))
            elif turn and turn == turns - 1 and choice < 0.15:
                topic = rng.choice(("bye", "thanks"))
            elif choice < 0.32:
                topic = rng.choice(("ai", "how", "praise", "intro", "name", "name"))
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
