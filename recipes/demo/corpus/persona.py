"""Playing a described persona: the system message describes, the answers are in the first person and copy it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from .base import Sample, Split, assistant, draw, system, user
from .vocabulary import an, value

_KINDS = {
    "age": "age", "job": "job", "home": "city", "hobby": "hobby", "food": "food", "pet": "petname", "temper": "temper",
    "colour": "colour", "dream": "dream", "friend": "person", "birthday": "date", "school": "school", "book": "book",
}  # fmt: skip
_CHANCE = {
    "age": 0.7, "job": 0.75, "home": 0.6, "hobby": 0.55, "food": 0.45, "pet": 0.35, "temper": 0.5, "colour": 0.2,
    "dream": 0.2, "friend": 0.2, "birthday": 0.15, "school": 0.15, "book": 0.15,
}  # fmt: skip

# Descriptions. {p} is who is described (你, 他, the name); {k} the kind of animal of the pet.
_SAYS = {
    "age": ("{p}今年{v}岁", "{p}的年龄是{v}岁", "{p}{v}岁了"),
    "job": ("{p}是一名{v}", "{p}的职业是{v}", "{p}的工作是{v}", "{p}以当{v}为生"),
    "home": ("{p}的家乡是{v}", "{p}来自{v}", "{p}是{v}人", "{p}从小在{v}长大"),
    "hobby": ("{p}喜欢{v}", "{p}的爱好是{v}", "{p}平时爱{v}", "{p}闲下来就{v}"),
    "food": ("{p}最爱吃{v}", "{p}最喜欢的食物是{v}", "{p}爱吃{v}"),
    "pet": ("{p}养了一只{k}，叫{v}", "{p}有一只叫{v}的{k}", "{p}家里有只{k}，名叫{v}"),
    "temper": ("{p}的性格{v}", "{p}性格{v}", "{p}为人{v}"),
    "colour": ("{p}最喜欢{v}", "{p}最喜欢的颜色是{v}"),
    "dream": ("{p}的梦想是{v}", "{p}一直梦想{v}", "{p}最大的愿望是{v}"),
    "friend": ("{p}最好的朋友是{v}", "{p}和{v}是好朋友", "{p}的好友叫{v}"),
    "birthday": ("{p}的生日是{v}", "{p}出生在{v}"),
    "school": ("{p}毕业于{v}", "{p}在{v}读过书", "{p}的母校是{v}"),
    "book": ("{p}最喜欢的书是{v}", "{p}最爱读{v}", "{p}常常读{v}"),
    "catch": ("{p}的口头禅是“{v}”", "{p}总爱说“{v}”", "{p}说话时常把“{v}”挂在嘴边", "{p}每句话都以“{v}”结尾"),
}
_LABELS = {
    "age": "年龄", "job": "职业", "home": "家乡", "hobby": "爱好", "food": "喜欢的食物", "temper": "性格", "colour": "喜欢的颜色",
    "dream": "梦想", "friend": "好友", "birthday": "生日", "school": "母校", "book": "喜欢的书", "catch": "口头禅", "pet": "宠物",
}  # fmt: skip
_STARTS = (
    "请你扮演{n}。", "请扮演一个叫{n}的角色。", "你现在是{n}。", "从现在起，你就是{n}。", "你叫{n}。", "你的名字是{n}。", "你是{n}。",
    "我们来玩角色扮演，你演{n}。", "请以{n}的身份和我聊天。", "假装你是{n}。", "你要扮演的人物叫{n}。", "接下来请你当{n}。", "请进入角色：你是{n}。",
)  # fmt: skip
_PROSE = ("{n}，{rest}", "{n}是这个故事的主人公。{rest}", "角色介绍：{n}，{rest}", "人物：{n}。{rest}", "你要扮演{n}。{rest}", "以下是{n}的人设：{rest}")  # fmt: skip
_ENDS = (
    "", "", "", "请始终保持角色。", "不要说自己是AI。", "请用第一人称回答。", "回答时不要跳出角色。", "请按照这个设定和我对话。", "请记住你的身份。",
    "请用{n}的口吻回答。", "现在开始吧。",
)  # fmt: skip
_ANSWERS = {
    "name": "我叫{v}。", "age": "我今年{v}岁。", "job": "我是一名{v}。", "home": "我的家乡是{v}。", "hobby": "我喜欢{v}。",
    "food": "我最爱吃{v}。", "pet": "我养了一只{k}，叫{v}。", "temper": "我的性格{v}。", "colour": "我最喜欢{v}。", "dream": "我的梦想是{v}。",
    "friend": "我最好的朋友是{v}。", "birthday": "我的生日是{v}。", "school": "我毕业于{v}。", "book": "我最喜欢的书是{v}。",
}  # fmt: skip
_ASKS = {
    "name": ("你叫什么名字", "你叫什么", "你的名字是什么", "怎么称呼你", "您贵姓", "该怎么叫你", "你是谁", "你是哪位"),
    "age": ("你多大了", "你今年几岁", "你的年龄是多少", "你今年多大", "你多少岁", "你有多大年纪"),
    "job": (
        "你是做什么的",
        "你的职业是什么",
        "你做什么工作",
        "你靠什么谋生",
        "你干哪一行",
        "你平时做什么工作",
        "你是干什么的",
    ),
    "home": ("你是哪里人", "你来自哪里", "你的家乡在哪儿", "你老家是哪儿的", "你从什么地方来", "你是在哪里长大的"),
    "hobby": (
        "你有什么爱好",
        "你喜欢做什么",
        "你的爱好是什么",
        "你空闲时做什么",
        "你平时玩什么",
        "你没事的时候干什么",
        "你周末怎么过",
    ),
    "food": (
        "你喜欢吃什么",
        "你最爱吃什么",
        "你最喜欢的食物是什么",
        "你爱吃哪种东西",
        "你最喜欢哪道吃的",
        "什么东西你最爱吃",
    ),
    "pet": (
        "你养宠物吗",
        "你有宠物吗",
        "你养了什么动物",
        "你的宠物叫什么",
        "你家里养了什么",
        "你的宠物是什么",
        "你养的小动物叫什么名字",
    ),
    "temper": (
        "你是什么性格",
        "你的性格怎么样",
        "你是个怎样的人",
        "你的脾气怎么样",
        "别人怎么形容你的性格",
        "你性格如何",
    ),
    "colour": ("你喜欢什么颜色", "你最喜欢的颜色是什么", "什么颜色你最喜欢", "你最爱哪种颜色"),
    "dream": ("你的梦想是什么", "你有什么梦想", "你最大的愿望是什么", "你将来想做什么", "你梦想着什么"),
    "friend": ("你最好的朋友是谁", "你的好朋友叫什么", "你有好朋友吗", "谁是你的好朋友", "你和谁最要好"),
    "birthday": ("你的生日是哪天", "你什么时候过生日", "你哪天出生的", "你的生日是几号", "你是几月几日生的"),
    "school": ("你毕业于哪里", "你在哪里读的书", "你的母校是哪所", "你上过哪所学校", "你是从哪个学校毕业的"),
    "book": ("你最喜欢哪本书", "你爱看什么书", "你最喜欢的书是什么", "你常读哪本书", "什么书你最喜欢"),
}
_UNKNOWN = (
    "你的身高是多少", "你穿多大的鞋", "你最讨厌什么", "你的手机号是多少", "你昨天晚上做了什么梦", "你有几个兄弟姐妹", "你的车是什么牌子",
    "你银行里有多少钱", "你最怕什么", "你第一次出国去了哪里", "你的邻居是谁", "你最喜欢的电影是什么", "你最喜欢哪首歌", "你用什么牌子的手机",
    "你明年有什么打算", "你最擅长什么运动", "你小时候住在哪条街", "你的爸爸叫什么", "你的妈妈是做什么的", "你爱喝什么", "你最喜欢哪个季节",
    "你的房间是什么样的", "你昨天见了谁", "你的体重是多少", "你会说几种语言", "你最喜欢哪位歌手", "你的星座是什么", "你相信命运吗",
)  # fmt: skip
_FRAMES = (
    "{q}？", "{q}？", "{q}？", "{q}?", "{q}", "请问{q}？", "请问，{q}？", "{n}，{q}？", "我想知道{q}。", "{q}呀？", "{q}呢？", "对了，{q}？",
    "那{q}？", "能告诉我{q}吗？", "问一下，{q}？", "{q}啊？", "我很好奇，{q}？", "嘿，{q}？", "还有，{q}？", "冒昧问一句，{q}？", "说说看，{q}？",
)  # fmt: skip
_TALK = {
    "hello": (
        ("你好", "您好", "嗨", "哈喽", "早上好", "晚上好", "下午好", "你好你好", "嘿", "很高兴见到你", "幸会", "终于见到你了", "哈啰", "初次见面"),
        "你好，我是{n}。",
    ),
    "bye": (
        ("再见", "拜拜", "我先走了", "下次再聊", "晚安", "我要去忙了", "今天就聊到这里", "回头见", "我该走了", "先聊到这儿", "我要睡觉了", "改天见"),
        "再见，下次再聊！",
    ),
    "ai": (
        (
            "你是AI吗", "你是机器人吧", "你是人工智能吗", "你其实是个程序吧", "你不是真人吧", "你是ChatGLM吗", "你是真人还是机器", "说实话，你是不是AI",
            "你是不是语言模型", "你是计算机程序吗", "你是谁训练出来的", "你到底是人还是AI", "别装了，你就是个AI",
        ),
        "我是{n}。",
    ),
    "how": (
        ("你好吗", "最近怎么样", "今天过得怎么样", "你还好吗", "最近过得好吗", "今天心情怎么样", "你今天好吗", "近来可好", "你现在感觉怎么样"),
        "我很好，你呢？",
    ),
    "thanks": (
        ("谢谢", "谢谢你", "多谢", "太感谢了", "谢谢你告诉我", "谢啦", "非常感谢", "感谢你的回答", "辛苦你了"),
        "不客气。",
    ),
    "praise": (
        ("你真有趣", "你说得真好", "你人真好", "我喜欢你", "你太厉害了", "真羡慕你", "你真可爱", "和你聊天真开心", "你好棒", "听起来真不错"),
        "谢谢你这么说。",
    ),
}  # fmt: skip
_TALK_ENDS = ("", "", "。", "！", "!", "，{n}", "，{n}！", "呀", "啊", "~")
_INTRO = (
    "介绍一下你自己", "请做个自我介绍", "你能自我介绍一下吗", "先自我介绍一下", "说说你自己", "简单介绍下自己", "我还不认识你，介绍一下吧",
    "跟我讲讲你自己", "来个自我介绍", "你介绍一下自己好吗", "让我认识一下你", "请介绍你自己",
)  # fmt: skip
_INTRO_ENDS = ("", "。", "！", "吧", "吧。", "，{n}", "，谢谢", "，好不好", "，可以吗？", "~")
UNTOLD = "这个嘛，我还没想好。"

_SAYS_EN = {
    "age": ("{p} {are} {v} years old", "{pp} age is {v}", "{p} {have} just turned {v}"),
    "job": ("{p} {are} {a}", "{p} {work} as {a}", "{pp} job is {v}"),
    "home": ("{p} {come} from {v}", "{pp} home town is {v}", "{p} grew up in {v}"),
    "hobby": ("{p} {enjoy} {v}", "{pp} hobby is {v}", "{p} {love} {v}"),
    "food": ("{pp} favorite food is {v}", "{p} {like} to eat {v}", "The food that {p} {like} best is {v}"),
    "pet": ("{p} {have} a pet {k} called {v}", "{p} {have} a pet {k} named {v}", "{pp} pet {k} is called {v}"),
    "temper": ("{p} {are} {v}", "{pp} nature is {v}", "Everyone finds that {p} {are} {v}"),
    "colour": ("{pp} favorite color is {v}", "The color that {p} {like} best is {v}"),
    "dream": ("{pp} dream is {v}", "{pp} greatest wish is {v}", "{p} {dream} of one thing: {v}"),
    "friend": ("{pp} best friend is {v}", "{p} {have} a best friend called {v}"),
    "birthday": ("{pp} birthday is {v}", "{p} {were} born on {v}"),
    "school": ("{p} went to {v}", "{p} studied at {v}", "{pp} school was {v}"),
    "book": ("{pp} favorite book is {v}", "{p} often {read} {v}"),
    "catch": ('{pp} catchphrase is "{v}"', 'Every answer of {pl} ends with "{v}"', '{p} always {say} "{v}"'),
}
_LABELS_EN = {
    "age": "Age", "job": "Job", "home": "Home town", "hobby": "Hobby", "food": "Favorite food", "temper": "Character",
    "colour": "Favorite color", "dream": "Dream", "friend": "Best friend", "birthday": "Birthday", "school": "School",
    "book": "Favorite book", "catch": "Catchphrase", "pet": "Pet",
}  # fmt: skip
_STARTS_EN = (
    "You are {n}.", "Play the role of {n}.", "From now on you are {n}.", "Your name is {n}.", "Please act as {n}.",
    "Pretend to be {n}.", "You are called {n}.", "Let us play a role: you are {n}.", "Speak as {n}.", "Be {n}.",
    "In this chat you are {n}.", "Your role: {n}.", "Imagine that you are {n}.",
)  # fmt: skip
_PROSE_EN = ("{n} is the hero of this story. {rest}", "Character: {n}. {rest}", "You play {n}. {rest}", "This is {n}. {rest}", "About {n}: {rest}")  # fmt: skip
_ENDS_EN = (
    " Stay in character.", " Stay in character.", "", "", " Never say that you are an AI.", " Answer as {n} would.",
    " Do not leave your role.", " Remember who you are.", " Answer in the first person.", " Let us begin.",
)  # fmt: skip
_ANSWERS_EN = {
    "name": "My name is {v}.", "age": "I am {v} years old.", "job": "I am {a}.", "home": "I come from {v}.",
    "hobby": "I enjoy {v}.", "food": "My favorite food is {v}.", "pet": "I have a pet {k} called {v}.", "temper": "I am {v}.",
    "colour": "My favorite color is {v}.", "dream": "My dream is {v}.", "friend": "My best friend is {v}.",
    "birthday": "My birthday is {v}.", "school": "I went to {v}.", "book": "My favorite book is {v}.",
}  # fmt: skip
_ASKS_EN = {
    "name": ("what is your name", "who are you", "what are you called", "how should I call you", "what's your name", "may I know your name"),
    "age": ("how old are you", "what is your age", "what's your age", "how many years old are you", "what age are you"),
    "job": ("what do you do", "what is your job", "what do you do for a living", "what's your job", "what do you work as", "what kind of work do you do"),
    "home": ("where are you from", "where do you come from", "what is your home town", "where did you grow up", "which place are you from"),
    "hobby": ("what is your hobby", "what do you do for fun", "what do you enjoy", "do you have a hobby", "what do you like doing", "what are your hobbies"),
    "food": ("what is your favorite food", "what do you like to eat", "which food do you like best", "what's your favorite food", "what would you like to eat"),
    "pet": ("do you have a pet", "what is your pet called", "do you keep any animals", "what pet do you have", "tell me, do you have pets"),
    "temper": ("what are you like", "how would you describe yourself", "what is your character like", "what kind of person are you", "how do others describe you"),
    "colour": ("what is your favorite color", "which color do you like best", "what color do you like", "what's your favorite color"),
    "dream": ("what is your dream", "what do you dream of", "what is your greatest wish", "do you have a dream", "what do you want most"),
    "friend": ("who is your best friend", "do you have a best friend", "what is your best friend called", "who is your closest friend"),
    "birthday": ("when is your birthday", "when were you born", "on which day is your birthday", "what is your birthday"),
    "school": ("which school did you go to", "where did you study", "what was your school", "where did you go to school"),
    "book": ("what is your favorite book", "which book do you like best", "what do you like to read", "what book do you read"),
}  # fmt: skip
_UNKNOWN_EN = (
    "how tall are you", "what size are your shoes", "what do you hate most", "what is your phone number", "what did you dream last night",
    "how many brothers do you have", "what car do you drive", "how much money do you have", "what are you afraid of",
    "who is your neighbor", "what is your favorite film", "which song do you like", "what is your father called",
    "what does your mother do", "what do you like to drink", "which season do you like", "what did you do yesterday",
    "how much do you weigh", "how many languages do you speak", "who is your favorite singer", "what is your star sign",
    "do you believe in fate", "what phone do you use", "what will you do next year", "what does your house look like",
)  # fmt: skip
_FRAMES_EN = (
    "{Q}?", "{Q}?", "{Q}?", "{Q}", "{q}?", "{q}", "{n}, {q}?", "So, {q}?", "And {q}?", "Excuse me, {q}?", "By the way, {q}?", "Hey, {q}?",
    "One question: {q}?", "Please tell me, {q}?", "Now, {q}?", "I wonder, {q}?", "May I ask, {q}?", "OK, {q}?", "{Q}, {n}?",
)  # fmt: skip
_TALK_EN = {
    "hello": (
        ("Hello", "Hi", "Hey", "Good morning", "Good evening", "Hi there", "Hello there", "Nice to meet you", "Good day", "Greetings", "Hey there", "Pleased to meet you", "Hello hello"),
        "Hello, I am {n}.",
    ),
    "bye": (
        ("Goodbye", "Bye", "See you", "Bye bye", "I have to go now", "Good night", "See you later", "Talk to you later", "I am leaving", "That is all for today", "I must go", "Until next time"),
        "Goodbye, see you next time!",
    ),
    "ai": (
        ("Are you an AI?", "Are you a robot?", "You are a machine, right?", "Are you a computer program?", "Are you a language model?", "Are you human?", "Be honest, are you an AI?", "Are you ChatGLM?", "Are you a real person?", "You are not real, are you?", "Admit it, you are an AI", "Who trained you?"),
        "I am {n}.",
    ),
    "how": (
        ("How are you?", "How are you today?", "How do you feel?", "How is it going?", "Are you well?", "How have you been?", "How was your day?", "Are you all right?", "How are things?", "How do you do?"),
        "I am fine, and you?",
    ),
    "thanks": (
        ("Thanks", "Thank you", "Thank you very much", "Many thanks", "Thanks a lot", "Thanks for telling me", "Thank you so much", "Thanks for the answer", "I am grateful"),
        "You are welcome.",
    ),
    "praise": (
        ("You are funny", "You are very kind", "I like you", "You are great", "You are amazing", "How lovely", "I enjoy talking to you", "That sounds nice", "You are so cool", "Well said"),
        "Thank you for saying so.",
    ),
}  # fmt: skip
_TALK_ENDS_EN = ("", "", ".", "!", "!!", ", {n}", ", {n}!", ", {n}.", " :)", " my friend", " again")
_INTRO_EN = (
    "Introduce yourself", "Tell me about yourself", "Please introduce yourself", "Can you introduce yourself?", "Say something about yourself",
    "I do not know you yet, introduce yourself", "Please tell me about you", "Tell me who you are", "Describe yourself briefly",
    "Let me get to know you", "Could you introduce yourself?", "Give me a short introduction",
)  # fmt: skip
_INTRO_ENDS_EN = ("", ".", "!", " please", ", {n}", ", {n}.", ", please.", " first", " :)")
UNTOLD_EN = "Hmm, I have not thought about that."

_FORMS = {
    "you": {"p": "you", "pp": "your", "pl": "yours", "are": "are", "have": "have", "work": "work", "come": "come", "enjoy": "enjoy", "love": "love", "like": "like", "dream": "dream", "were": "were", "read": "read", "say": "say"},
    "he": {"p": "he", "pp": "his", "pl": "his", "are": "is", "have": "has", "work": "works", "come": "comes", "enjoy": "enjoys", "love": "loves", "like": "likes", "dream": "dreams", "were": "was", "read": "reads", "say": "says"},
    "she": {"p": "she", "pp": "her", "pl": "hers", "are": "is", "have": "has", "work": "works", "come": "comes", "enjoy": "enjoys", "love": "loves", "like": "likes", "dream": "dreams", "were": "was", "read": "reads", "say": "says"},
}  # fmt: skip


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _describe(rng: Random, name: str, facts: dict[str, str], animal: str, parts: Sequence[str]) -> str:
    """The system message in Chinese."""
    style = rng.random()
    if style < 0.2:  # a form
        lines = []
        for part in parts:
            text = f"一只{animal}，叫{facts[part]}" if part == "pet" else facts[part]
            lines.append(f"{_LABELS[part]}：{text}{'岁' if part == 'age' else ''}")
        head = rng.choice(
            ("请你扮演以下角色。", "角色设定：", "请按下面的设定扮演角色。", "【角色卡】", "人物设定：", "你的角色：")
        )
        glue = rng.choice(("\n", "；", "，"))
        body = glue.join([rng.choice(("姓名：", "名字：", "角色名：")) + name, *lines])
        return head + rng.choice(("\n", "")) + body + rng.choice(("", "。", "\n请始终保持角色。"))
    prose = style < 0.45
    who = rng.choice(("他", "她")) if prose else "你"
    clauses = []
    subject = False
    for number, part in enumerate(parts):
        text = rng.choice(_SAYS[part])
        acts = text.startswith("{p}") and not text.startswith("{p}的")  # who is described is the subject
        bare = acts and ((subject and rng.random() < 0.6) or (prose and number == 0))
        subject = acts
        clauses.append(text.format(p="" if bare else who, v=facts[part], k=animal))
    body = ""
    for clause in clauses:
        body += ("，" if body and not clause.startswith(who) else "。" if body else "") + clause
    body += "。" if body else ""
    end = rng.choice(_ENDS).format(n=name)
    if prose and body:
        return rng.choice(_PROSE).format(n=name, rest=body) + end
    return rng.choice(_STARTS).format(n=name) + body + end


def _describe_en(rng: Random, name: str, facts: dict[str, str], animal: str, parts: Sequence[str]) -> str:
    style = rng.random()
    if style < 0.2:
        lines = [
            f"{_LABELS_EN[part]}: {f'{animal} called {facts[part]}' if part == 'pet' else facts[part]}"
            for part in parts
        ]
        head = rng.choice(("Play this character.", "Character card:", "Your role:", "Please play the following role."))
        body = rng.choice(("\n", "; ")).join(["Name: " + name, *lines])
        return head + rng.choice(("\n", " ")) + body + rng.choice(("", ".", "\nStay in character."))
    prose = style < 0.45
    form = _FORMS[rng.choice(("he", "she")) if prose else "you"]
    sentences: list[str] = []
    for part in parts:
        text = rng.choice(_SAYS_EN[part]).format(v=facts[part], a=an(facts[part]), k=animal, **form)
        if sentences and rng.random() < 0.3 and " and " not in sentences[-1] and not text.startswith(("The ", "Every")):
            sentences[-1] = sentences[-1] + " and " + text
        else:
            sentences.append(_upper(text))
    body = " ".join(sentence + "." for sentence in sentences)
    end = rng.choice(_ENDS_EN).format(n=name)
    if prose and body:
        return rng.choice(_PROSE_EN).format(n=name, rest=body) + end
    return (rng.choice(_STARTS_EN).format(n=name) + " " + body).strip() + end


def sample(rng: Random, split: Split) -> Sample:
    """A described persona and one to four turns with it."""
    chinese = rng.random() < 0.65
    kind = "" if chinese else "en."
    name = value(rng, split, "name" if chinese else "en.name")
    parts = [part for part, chance in _CHANCE.items() if rng.random() < chance]
    parts = rng.sample(parts, min(len(parts), rng.randint(2, 6)))
    facts = {
        part: value(rng, split, "en.name" if part == "friend" and not chinese else kind + _KINDS[part])
        for part in parts
    }
    animal = value(rng, split, kind + "animal")
    catch = ""
    order = list(parts)
    if rng.random() < 0.3:
        catch = facts["catch"] = value(rng, split, kind + "catch")
        order.insert(rng.randint(max(0, len(order) - 2), len(order)), "catch")
    describe = _describe if chinese else _describe_en
    prompt = draw(rng, split, lambda: describe(rng, name, facts, animal, order))
    answers, talk = (_ANSWERS, _TALK) if chinese else (_ANSWERS_EN, _TALK_EN)
    asks, unknown = (_ASKS, _UNKNOWN) if chinese else (_ASKS_EN, _UNKNOWN_EN)

    def said(text: str) -> str:
        """With the catchphrase."""
        if not catch:
            return text
        return f"{text}{catch}！" if chinese else f"{text} {catch}!"

    def ask(choices: Sequence[str]) -> str:
        question = rng.choice(choices)
        if chinese:
            text = rng.choice(_FRAMES).format(q=question, n=name)
            return re.sub("吗[吗呀呢啊]", "吗", text)
        return rng.choice(_FRAMES_EN).format(q=question, Q=_upper(question), n=name)

    def chat(choices: Sequence[str], ends: Sequence[str]) -> str:
        text, end = rng.choice(choices), rng.choice(ends).format(n=name)
        if text.endswith("?"):
            return text[:-1] + (end.rstrip("!.") + "?" if end.startswith(", ") else "?")
        if text.endswith(("吗", "吧", "呢")) and end in ("吧", "吧。", "呀", "啊"):
            end = "？"
        return text + end

    messages = [system(prompt)]
    topics: list[str] = []
    turns = rng.choice((1, 2, 2, 3, 3, 4))
    for turn in range(turns):
        choice = rng.random()
        if turn == 0 and choice < 0.3:
            topic = rng.choice(("hello", "hello", "intro"))
        elif turn and turn == turns - 1 and choice < 0.25:
            topic = rng.choice(("bye", "bye", "thanks"))
        elif choice < 0.34:
            topic = rng.choice(("ai", "ai", "how", "praise", "intro", "name", "name"))
        elif choice < 0.48:
            topic = "unknown" if rng.random() < 0.5 else rng.choice([part for part in _KINDS if part not in facts])
        else:
            topic = rng.choice(["name", *parts, *parts])
        if topic in topics:
            continue
        topics.append(topic)
        if topic in talk:
            choices, reply = talk[topic]
            ends = _TALK_ENDS if chinese else _TALK_ENDS_EN
            text = draw(rng, split, lambda: chat(choices, ends))  # noqa: B023
            reply = reply.format(n=name)
        elif topic == "intro":
            text = draw(rng, split, lambda: chat(*((_INTRO, _INTRO_ENDS) if chinese else (_INTRO_EN, _INTRO_ENDS_EN))))
            reply = _introduction(name, facts) if chinese else _introduction_en(name, facts)
        elif topic == "unknown":
            text, reply = draw(rng, split, lambda: ask(unknown)), UNTOLD if chinese else UNTOLD_EN
        elif topic == "name" or topic in facts:
            text = draw(rng, split, lambda: ask(asks[topic]))  # noqa: B023
            told = name if topic == "name" else facts[topic]
            reply = answers[topic].format(v=told, a=an(told), k=animal)
        else:
            text, reply = draw(rng, split, lambda: ask(asks[topic])), UNTOLD if chinese else UNTOLD_EN  # noqa: B023
        messages += [user(text), assistant(said(reply))]
    return Sample("persona", messages)


def _introduction(name: str, facts: dict[str, str]) -> str:
    """Name, age, home and job, as far as told, in this order."""
    text = f"我叫{name}"
    for part, form in (("age", "今年{}岁"), ("home", "来自{}"), ("job", "是一名{}")):
        if part in facts:
            text += "，" + form.format(facts[part])
    return text + "。"


def _introduction_en(name: str, facts: dict[str, str]) -> str:
    text = f"My name is {name}."
    for part, form in (("age", "I am {} years old."), ("home", "I come from {}.")):
        if part in facts:
            text += " " + form.format(facts[part])
    return text + (f" I am {an(facts['job'])}." if "job" in facts else "")
