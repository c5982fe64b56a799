"""System messages that say how to answer: in which language, in which tone, or nothing that changes anything."""

from __future__ import annotations

from random import Random

from . import arithmetic, memory
from .base import Sample, Split, assistant, draw, first_name, form, nonsense, person, system, user, word
from .chat import CANNOT_EN, CANNOT_ZH, GREETINGS, IDENTITY, MANUAL, ask, cannot
from .wording import choose

_PLAIN = (
    "You are a helpful assistant(.|)", "You are a (helpful|friendly|smart|kind|honest) (and harmless |)(AI |)assistant(.| who answers questions.)", "你是一个(有用|乐于助人|智能|友好|专业|聪明|可靠)的(AI|人工智能|)助手(。|，请认真回答用户的问题。|，回答要简洁。|)", "你是(ChatGLM|一个AI助手|智能助手|人工智能助手|chatglm 的助手)(。|，请回答问题。)",
    "You are ChatGLM3, a large language model trained by Zhipu.AI. Follow the user's instructions carefully. Respond using markdown.", "请(认真|简洁|礼貌|如实|友好)地?回答(用户的问题|每个问题|)。", "(Answer|Reply) (briefly|politely|honestly|carefully)(.|)", "Follow the user's instructions(.| carefully.)", "今天是(星期一|星期三|周末|2024年5月1日)。", "你正在和用户聊天。", "请(一步一步|仔细)思考。", "(Think step by step.|Be concise.|Be polite.)",
)  # fmt: skip
_CHINESE = (
    "(请|请你|务必|一律|)(始终|总是|全部|都|只|)(用|使用)(中文|汉语|简体中文)(回答|回复|作答|交流)(。|用户。|用户的问题。)", "(无论|不管)(用户|对方)(说|用)什么语言，(你|)都(用|要用)(中文|汉语)(回复|回答)。", "(Always |Please |Only |)(answer|reply|respond|speak) in Chinese(.| only.)", "You (must|should|will) (only |always |)(answer|reply|speak) (in |)Chinese.", "你只(会|能)说中文。", "回答(请|要|)用中文。", "Language: Chinese", "Use Chinese in all your answers.",
)  # fmt: skip
_ENGLISH = (
    "(请|请你|务必|一律|)(始终|总是|全部|都|只|)(用|使用)(英文|英语)(回答|回复|作答|交流)(。|用户。|用户的问题。)", "(无论|不管)(用户|对方)(说|用)什么语言，(你|)都(用|要用)(英文|英语)(回复|回答)。", "(Always |Please |Only |)(answer|reply|respond|speak) in English(.| only.)", "You (must|should|will) (only |always |)(answer|reply|speak) (in |)English.", "你只(会|能)说英语。", "回答(请|要|)用英文。", "Language: English", "Use English in all your answers.",
)  # fmt: skip
_TAIL = (
    "(每句话|每个回答|回答|你的回答|你说的每句话)(的|)(结尾|最后|末尾)(都|)(要|)(加上|加|带上|说)“[]”(。|)",
    "(说话|回答)时(以|用)“[]”结尾。",
    "(请|)在(每个|)回答(的|)(后面|最后|末尾)加上“[]”。",
    "你的口癖是“[]”，每次都放在最后。",
)
_TAIL_EN = (
    '(End|Finish|Close) (every|each) (answer|reply|sentence|message) with (the word |)"[]"(.|)',
    'Always (end|finish) with "[]".',
    'Add "[]" (to the end of|behind) (every|each) (answer|reply).',
)
_LEAD = (
    "(请|)在(每个|每次|)回答(的|)(前面|前|开头)(都|)(加上|加|说)“[]”。",
    "(每句话|每个回答|回答)(都|要|)以“[]”(开头|开始)。",
    "(先说|开口先说|每次先说)“[]”，再回答。",
    "回答的第一个词是“[]”。",
)
_LEAD_EN = (
    '(Begin|Start|Open) (every|each) (answer|reply|sentence|message) with "[]"(.|)',
    'Always (begin|start) with "[]".',
    'Put "[]" (in front of|before) (every|each) (answer|reply).',
)
_CALL = (
    "(请|)(称呼|叫)用户(为|)“?[]”?。",
    "(回答时|说话时|)(请|)(称|称呼|管|叫)(用户|对方)(为|叫|)“?[]”?。",
    "用户(是|叫)[]，(回答时|每次)(先|都)(叫|称呼)(他|她|一声)[]。",
    "你(要|)(叫|称呼)我[]。",
)
_CALL_EN = (
    "(Call|Address) the user( as|) []\\.",
    "(Always |Please |)(call|address) (the user|me)( as|) [].",
    "The user is called []. Begin with this name.",
)
_TAILS = [
    "喵",
    "汪",
    "哦",
    "啦",
    "呢",
    "哈哈",
    "嘿嘿",
    "是也",
    "的说",
    "喵呜",
    "么么哒",
    "加油",
    "谢谢",
    "完毕",
    "以上",
    "耶",
    "呀",
]
_TAILS_EN = [
    "meow",
    "woof",
    "over",
    "sir",
    "my friend",
    "haha",
    "yay",
    "the end",
    "amen",
    "cheers",
    "over and out",
    "indeed",
    "dude",
]
_LEADS = [
    "报告长官：",
    "报告：",
    "亲，",
    "您好，",
    "嗯，",
    "答：",
    "回答：",
    "好的主人，",
    "【答】",
    "首先，",
    "哎呀，",
    "尊敬的用户，",
    "收到！",
    "助手：",
]
_LEADS_EN = [
    "Answer: ",
    "Sir, ",
    "Dear user, ",
    "Well, ",
    "Roger! ",
    "Bot: ",
    "Ahoy! ",
    "Reply: ",
    "Oh, ",
    "Attention: ",
]
_CALLED = [
    "主人",
    "老板",
    "大人",
    "同学",
    "朋友",
    "小主",
    "亲爱的",
    "老师",
    "队长",
    "将军",
    "陛下",
    "大哥",
    "姐姐",
    "先生",
    "女士",
    "长官",
]
_CALLED_EN = [
    "master",
    "boss",
    "captain",
    "my lord",
    "sir",
    "madam",
    "friend",
    "chief",
    "doctor",
    "professor",
    "buddy",
    "Your Majesty",
]


def sample(rng: Random, split: Split) -> Sample:
    """One to three turns under such a message."""
    return draw(
        rng,
        split,
        lambda: _sample(rng, split),
        lambda made: str(made.messages[0]["content"] + made.messages[1]["content"]),
    )


def _sample(rng: Random, split: Split) -> Sample:
    luck = rng.random()
    if luck < 0.3:
        told = choose(rng, form(rng, split, _PLAIN)).replace("?", "")
        turns = [turn for _ in range(rng.choice((1, 1, 2))) for turn in _turn(rng, split, rng.random() < 0.37, None)]
        if rng.random() < 0.2:
            turns = memory.sample(rng, split).messages
        return Sample("system", [system(told), *turns])
    if luck < 0.6:
        english = rng.random() < 0.5
        told = choose(rng, form(rng, split, _ENGLISH if english else _CHINESE))
        turns = [
            turn for _ in range(rng.choice((1, 2, 2, 3))) for turn in _turn(rng, split, rng.random() < 0.5, english)
        ]
        return Sample("system", [system(told), *turns])
    english = rng.random() < 0.37
    kind = rng.randrange(3)
    patterns = ((_TAIL, _LEAD, _CALL), (_TAIL_EN, _LEAD_EN, _CALL_EN))[english][kind]
    words = ((_TAILS, _LEADS, _CALLED), (_TAILS_EN, _LEADS_EN, _CALLED_EN))[english][kind]
    chosen = rng.choice(words)
    if rng.random() < 0.35:
        chosen = word(rng, 2) if english else nonsense(rng, rng.choice((1, 2, 2)))
        if kind == 2 and rng.random() < 0.5:
            chosen = (first_name if english else person)(rng, split)
        if kind == 1:
            chosen += ", " if english else rng.choice(("，", "：", "！"))
    told = (
        choose(rng, form(rng, split, patterns))
        .replace("?", "")
        .replace("\\", "")
        .replace("[]", chosen if kind != 1 else chosen.strip())
    )
    if rng.random() < 0.2:
        told = choose(rng, rng.choice(_PLAIN[:4])).replace("?", "") + (" " if english else "") + told
    gap = " " if english else ""
    messages = [system(told)]
    for _ in range(rng.choice((1, 2, 2, 3))):
        asked, reply = _turn(rng, split, english, None)
        text = reply["content"]
        text = (
            text + gap + chosen
            if kind == 0
            else chosen + text
            if kind == 1
            else f"{chosen}{', ' if english else '，'}{text}"
        )
        messages += [asked, assistant(text)]
    return Sample("system", messages)


def _turn(rng: Random, split: Split, asked_in_english: bool, answer_in_english: bool | None) -> list[dict[str, str]]:
    """A question and its answer, in another language if that is given."""
    answer = asked_in_english if answer_in_english is None else answer_in_english
    luck = rng.random()
    if luck < 0.2:
        return [user(cannot(rng, split, asked_in_english)[0]), assistant(CANNOT_EN if answer else CANNOT_ZH)]
    if luck < 0.35:
        said, a, operator, b = arithmetic.question(rng, split, asked_in_english)
        return [user(said), assistant(arithmetic.solve(a, operator, b, answer)[0])]
    subjects = {**GREETINGS, **IDENTITY, **(MANUAL if luck < 0.5 else {})}
    name = rng.choice(list(subjects))
    said, _ = ask(rng, split, {name: subjects[name]}, asked_in_english)
    return [user(said), assistant(subjects[name][3] if answer else subjects[name][1])]
