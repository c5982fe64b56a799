"""Greetings, who it is, what the project does, the questions of ChatGLM's own manuals; and what it cannot do."""

from __future__ import annotations

import re
from random import Random

from corpus.base import Sample, Split, assistant, draw, held_out, nonsense, user, word

# For each subject: ways to say it in Chinese, the answer; ways to say it in English, the answer.
Subject = tuple[list[str], str, list[str], str]

GREETINGS: dict[str, Subject] = {
    "hello": (
        ["你好", "您好", "嗨", "哈喽", "你好啊", "你好呀", "早上好", "下午好", "晚上好", "嗨，你好", "很高兴认识你"],
        "你好！我是 chatglm 的演示模型，有什么可以帮你的吗？",
        ["hello", "hi", "hey", "hello there", "hi there", "good morning", "good evening", "good afternoon", "nice to meet you"],
        "Hello! I am the demo model of chatglm. What can I do for you?",
    ),
    "wellbeing": (
        ["你好吗", "最近怎么样", "你今天好吗", "最近好吗", "你最近怎么样", "你今天怎么样"],
        "我很好，谢谢关心。你呢？",
        ["how are you", "how do you do", "how are you doing", "how are you today", "how is it going", "how have you been"],
        "I am fine, thank you. And you?",
    ),
    "thanks": (
        ["谢谢", "谢谢你", "多谢", "非常感谢", "太感谢了", "谢谢您", "谢啦", "感谢你", "十分感谢"],
        "不客气！",
        ["thanks", "thank you", "thanks a lot", "many thanks", "thank you very much", "thank you so much"],
        "You are welcome!",
    ),
    "bye": (
        ["再见", "拜拜", "回头见", "下次聊", "明天见", "我先走了", "晚安", "下次再聊"],
        "再见，祝你一切顺利！",
        ["bye", "goodbye", "see you", "good night", "see you later", "see you tomorrow", "bye bye"],
        "Goodbye, and all the best!",
    ),
    "praise": (
        ["你真棒", "你真聪明", "你太厉害了", "你真好", "你真可爱", "我喜欢你", "你好棒", "你真厉害"],
        "谢谢夸奖！",
        ["well done", "you are great", "good job", "you are smart", "you are cute", "I like you", "nice answer"],
        "Thank you!",
    ),
    "blame": (
        ["你真笨", "你错了", "你好笨", "这不对", "你说错了", "你答错了", "你太笨了"],
        "对不起，我只是一个很小的演示模型。",
        ["you are wrong", "that is wrong", "you are stupid", "bad answer", "that is not right", "you made a mistake"],
        "Sorry, I am only a very small demo model.",
    ),
    "yes": (
        ["好的", "嗯", "好", "知道了", "明白了", "没问题", "原来如此", "嗯嗯", "哦"],
        "好的，还有什么想聊的吗？",
        ["ok", "okay", "I see", "all right", "got it", "understood", "sure"],
        "All right. Is there anything else?",
    ),
    "joke": (
        ["讲个笑话", "说个笑话", "给我讲个笑话", "来个笑话", "讲个笑话吧", "我想听笑话"],
        "为什么模型从不迟到？因为它总是提前预测。",
        ["tell me a joke", "a joke please", "please tell me a joke", "tell a joke", "I want to hear a joke"],
        "Why is a model never late? Because it predicts what comes next.",
    ),
}  # fmt: skip

IDENTITY: dict[str, Subject] = {
    "name": (
        ["你是谁", "你叫什么名字", "你叫什么", "介绍一下你自己", "请自我介绍", "你是什么", "你的名字是什么", "你是什么模型", "自我介绍一下", "你是机器人吗",
         "你是人吗", "你是ChatGLM吗"],
        "我是 chatglm 的演示模型，一个约七百万参数的小模型，会一点中文和英文。",
        ["who are you", "what is your name", "what are you", "introduce yourself", "tell me about yourself", "are you a robot", "are you human",
         "which model are you", "are you ChatGLM"],
        "I am the demo model of chatglm: about seven million parameters, with a little Chinese and English.",
    ),
    "able": (
        ["你能干什么", "你会什么", "你能做什么", "你可以做什么", "你有什么功能", "你会做什么", "你能帮我做什么", "你擅长什么", "你有什么用"],
        "我会闲聊并记住你说过的事，会小算术，会调用工具，会写简单的 Python 代码，会根据材料回答问题，还会角色扮演。",
        ["what can you do", "what are you good at", "what are your skills", "how can you help me", "what can you help me with", "what are you able to do"],
        "I can chat and remember what you told me, do small sums, call tools, write simple Python, answer from a given text, and play a role.",
    ),
    "unable": (
        ["你不会什么", "你有什么缺点", "你有什么不足", "你不能做什么", "你有什么局限"],
        "我很小，没有世界知识，也不会写长文章。要更强的模型，请加载官方的 ChatGLM 权重。",
        ["what can you not do", "what are your limits", "what are your weaknesses", "what can't you do", "where do you fail"],
        "I am small: I know nothing of the world and write no long texts. For more, load official ChatGLM weights.",
    ),
    "maker": (
        ["谁创造了你", "你是谁开发的", "谁训练的你", "谁开发了你", "你的作者是谁", "谁训练了你", "你是谁做的"],
        "我由 chatglm 项目用自己生成的语料训练而成，在两个 CPU 核上不到一小时。",
        ["who made you", "who created you", "who trained you", "who is your author", "who developed you", "how were you made"],
        "The chatglm project trained me on sentences that it made itself, on two CPU cores, in less than an hour.",
    ),
    "size": (
        ["你有多大", "你有多少参数", "你的参数量是多少", "你有多少个参数", "你的模型有多大"],
        "我大约有七百万个参数，文件不到 16 MB。",
        ["how big are you", "how many parameters do you have", "how large are you", "how large is your model"],
        "I have about seven million parameters, in a file of less than 16 MB.",
    ),
    "project": (
        ["chatglm是什么", "chatglm项目是什么", "介绍一下chatglm", "介绍一下chatglm项目", "chatglm能做什么", "这个项目是做什么的"],
        "chatglm 是一个 Python 包，不运行远程代码就能加载官方的 ChatGLM 权重，还能对话、微调和预训练。",
        ["what is chatglm", "what is this project", "what does this project do", "tell me about chatglm", "what does chatglm do"],
        "chatglm is a Python package that loads official ChatGLM weights without remote code, to chat, fine-tune and pre-train.",
    ),
    "load": (
        ["怎么加载自己的模型", "怎么加载官方权重", "怎么加载模型", "如何加载模型", "怎么加载ChatGLM3", "如何加载官方权重"],
        "运行 chatglm chat --model 权重目录。",
        ["how do I load my own model", "how do I load official weights", "how can I load ChatGLM3", "how do I load a model", "how can I load a model"],
        "Run chatglm chat --model FOLDER.",
    ),
    "finetune": (
        ["怎么微调", "如何微调模型", "怎么微调模型", "怎么训练自己的模型", "如何微调", "怎么做LoRA微调"],
        "准备好对话数据，运行 chatglm finetune 数据文件 --method lora。",
        ["how do I fine-tune", "how can I fine-tune", "how do I fine-tune a model", "how can I train my own model", "how do I train with LoRA"],
        "Prepare your dialogues and run chatglm finetune DATA --method lora.",
    ),
    "licence": (
        ["你是开源的吗", "你用什么许可证", "可以商用吗", "许可证是什么", "代码开源吗"],
        "本项目的代码和我都采用 Apache-2.0 许可证。",
        ["are you open source", "what is your license", "which license do you use", "is it open source"],
        "The code and I are under Apache-2.0.",
    ),
    "language": (
        ["你会说英语吗", "你会说中文吗", "你会英语吗", "你会什么语言", "你会几种语言", "你会中文吗"],
        "我会中文和英文，你用哪种语言问，我就用哪种语言答。",
        ["do you speak Chinese", "do you speak English", "which languages do you speak", "can you speak Chinese", "can you speak English"],
        "I speak Chinese and English; I answer in the language that you use.",
    ),
    "other": (
        ["你是ChatGPT吗", "你是GPT吗", "你是GPT-4吗", "你是DeepSeek吗", "你是Siri吗", "你是Claude吗"],
        "不是，我是 chatglm 的演示模型。",
        ["are you ChatGPT", "are you GPT", "are you GPT-4", "are you Siri", "are you Claude", "are you DeepSeek"],
        "No, I am the demo model of chatglm.",
    ),
}  # fmt: skip

MANUAL: dict[str, Subject] = {
    "sleep": (
        ["晚上睡不着应该怎么办", "晚上睡不着怎么办", "失眠怎么办", "失眠应该怎么办", "睡不着怎么办", "怎样才能睡得好", "如何改善睡眠", "晚上失眠怎么办"],
        "晚上睡不着可以试试：\n1. 每天按时睡觉和起床；\n2. 睡前不看手机，少喝咖啡；\n3. 慢慢深呼吸，放松身体。\n如果长期失眠，请去看医生。",
        ["what should I do if I can't sleep", "I can't sleep at night", "how can I sleep better", "what helps against insomnia", "how do I fall asleep",
         "I cannot fall asleep"],
        "When you cannot sleep, try this:\n1. Go to bed and get up at fixed times.\n2. No phone or coffee before bed.\n3. Breathe slowly and relax.\nIf it lasts, see a doctor.",
    ),
    "fishing": (
        ["请问钓鱼有什么技巧", "钓鱼有什么技巧", "怎么钓鱼", "钓鱼要注意什么", "如何钓鱼", "教我钓鱼", "怎样才能钓到鱼", "钓鱼有哪些技巧"],
        "钓鱼的技巧：\n1. 选早晨或傍晚，找水流缓的地方；\n2. 按鱼的种类选饵和钩；\n3. 耐心等待，看准浮漂再提竿。",
        ["how do I fish", "any tips for fishing", "how can I catch fish", "teach me to fish", "tips for fishing", "what are the tricks of fishing"],
        "Tips for fishing:\n1. Go early or late, to slow water.\n2. Choose bait and hook for the kind of fish.\n3. Be patient, and lift the rod when the float sinks.",
    ),
    "english": (
        ["怎么学英语", "如何学好英语", "怎么学好英语", "学英语有什么方法", "怎样提高英语", "如何学英语"],
        "学英语可以这样做：\n1. 每天背十个单词；\n2. 多听多跟读；\n3. 大胆开口，不怕说错。",
        ["how do I learn English", "how can I improve my English", "tips for learning English", "how can I learn English"],
        "To learn English:\n1. Learn ten words a day.\n2. Listen a lot and repeat aloud.\n3. Speak, and do not fear mistakes.",
    ),
    "weight": (
        ["怎么减肥", "如何减肥", "减肥有什么方法", "怎样健康减肥", "我想减肥", "我要减肥"],
        "健康减肥要靠坚持：\n1. 少吃油炸和甜食；\n2. 每天运动半小时；\n3. 早睡，多喝水。",
        ["how do I lose weight", "how can I lose weight", "I want to lose weight", "tips for losing weight"],
        "To lose weight:\n1. Eat less fried and sweet food.\n2. Move for half an hour a day.\n3. Sleep early and drink water.",
    ),
    "stress": (
        ["压力大怎么办", "如何缓解压力", "压力很大怎么办", "怎么缓解压力", "怎样减压", "工作压力大怎么办"],
        "压力大的时候可以：\n1. 停下来，深呼吸几分钟；\n2. 出去散步；\n3. 和朋友聊聊。",
        ["how do I deal with stress", "how can I deal with stress", "what helps against stress", "tips against stress"],
        "Against stress:\n1. Stop and breathe deeply.\n2. Take a walk.\n3. Talk to a friend.",
    ),
    "cold": (
        ["感冒了怎么办", "感冒怎么办", "我感冒了怎么办", "感冒应该怎么办", "感冒了要注意什么", "怎么治感冒"],
        "感冒了要多休息、多喝热水，注意保暖。如果发高烧，请去看医生。",
        ["I have a cold", "what helps against a cold", "what should I do if I have a cold", "I caught a cold"],
        "With a cold, rest, drink warm water and keep warm. With high fever, see a doctor.",
    ),
    "cooking": (
        ["番茄炒蛋怎么做", "怎么做番茄炒蛋", "教我做番茄炒蛋", "番茄炒蛋的做法", "西红柿炒鸡蛋怎么做", "如何做番茄炒蛋"],
        "番茄炒蛋的做法：\n1. 鸡蛋打散加盐，炒熟盛出；\n2. 番茄切块，炒出汁；\n3. 倒回鸡蛋翻匀出锅。",
        ["how do I cook tomato and eggs", "how do I make tomato and eggs", "a recipe for tomato and eggs", "teach me to cook tomato and eggs"],
        "Tomato and eggs:\n1. Beat the eggs with salt, fry and set aside.\n2. Fry tomato pieces until juicy.\n3. Add the eggs.",
    ),
    "coding": (
        ["怎么学编程", "如何学编程", "怎么学Python", "如何学习编程", "如何学Python", "怎样学好编程"],
        "学编程的建议：\n1. 从 Python 开始，每天写一点；\n2. 先改例子，再做小项目；\n3. 学会读报错信息。",
        ["how do I learn programming", "how do I learn Python", "how can I learn to code", "tips for learning Python"],
        "To learn programming:\n1. Start with Python, a little every day.\n2. Change examples, then build small things.\n3. Learn to read error messages.",
    ),
    "photo": (
        ["怎么拍好照片", "拍照有什么技巧", "如何拍好照片", "摄影有什么技巧", "拍照有哪些技巧"],
        "拍照的技巧：\n1. 找好光线；\n2. 背景要简单；\n3. 拿稳手机，多拍几张。",
        ["how do I take good photos", "any tips for taking photos", "how can I take better photos", "tips for taking photos"],
        "For good photos:\n1. Look for good light.\n2. Keep the background simple.\n3. Hold still, and take several.",
    ),
    "memory": (
        ["怎样提高记忆力", "如何提高记忆力", "怎么提高记忆力", "记性不好怎么办", "记忆力不好怎么办"],
        "提高记忆力的方法：\n1. 睡够觉；\n2. 按时复习；\n3. 讲给别人听。",
        ["how can I improve my memory", "how do I improve my memory", "tips for a better memory"],
        "For a better memory:\n1. Sleep enough.\n2. Review in time.\n3. Explain it to others.",
    ),
}  # fmt: skip

CANNOT_ZH = "抱歉，这个我还不会。我只是一个很小的演示模型。"
CANNOT_EN = "Sorry, I cannot do that yet. I am only a very small demo model."

_QUESTION = re.compile("什么|谁|怎|吗$|多少|多大|几|哪|如何")
_QUESTION_EN = re.compile("(?i)^(how|wh|are|is|do|does|can|will|any) ?")


def _spoken(rng: Random, core: str, english: bool, polite: bool) -> str:
    """A core as people type it; polite: with a few words in front, now and then."""
    if english:
        ask = _QUESTION_EN.match(core)
        text = core + rng.choice(("?", "?", "") if ask else (".", "!", ""))
        start = rng.choice(("", "", "", "hi, ", "please tell me, " if ask else "hello, ")) if polite else ""
        text = start + text
        return text if rng.random() < 0.4 else text[:1].upper() + text[1:]
    ask = _QUESTION.search(core)
    start = rng.choice(("", "", "", "你好，", "请问" if ask else "嗨，")) if polite and core[0] != "请" else ""
    return start + core + rng.choice(("？", "？", "?", "") if ask else ("。", "！", "", ""))


def ask(rng: Random, split: Split, subjects: dict[str, Subject], english: bool | None = None) -> tuple[str, str]:
    """A question and its answer. A wording is held out as a whole: opening, core and ending."""

    def make() -> tuple[str, str]:
        name = rng.choice(list(subjects))
        zh, zh_answer, en, en_answer = subjects[name]
        other = rng.random() < 0.37 if english is None else english
        text = _spoken(rng, rng.choice(en if other else zh), other, name not in GREETINGS)
        return text, en_answer if other else zh_answer

    return draw(rng, split, make, lambda made: made[0])


def greeting(rng: Random, split: Split, english: bool) -> tuple[str, str]:
    """A hello and what is said to it; any skill may start with one."""
    return ask(rng, split, {"hello": GREETINGS["hello"]}, english)


# What it cannot do: patterns with slots, so that whatever is asked about is met with the same words.

_ZH_THINGS = [
    "春天", "大海", "爱情", "故乡", "月亮", "长城", "黄河", "量子力学", "相对论", "股市", "房价", "足球", "电影", "历史", "唐朝", "恐龙", "火星", "黑洞", "基因", "疫苗",
    "癌症", "法律", "保险", "高考", "微积分", "哲学", "佛教", "红楼梦", "西游记", "贝多芬", "拿破仑", "爱因斯坦", "牛顿", "秦始皇", "李白", "苹果公司", "特斯拉", "比特币",
    "互联网", "芯片", "飞机", "高铁", "咖啡", "红酒", "围棋", "钢琴", "油画", "京剧", "熊猫", "人工智能",
]  # fmt: skip
_ZH_CANNOT = [
    "写一首关于{}的诗", "写一篇关于{}的文章", "帮我写一篇{}的论文", "什么是{}", "解释一下{}", "谁发明了{}", "介绍一下{}", "讲讲{}的故事", "{}的首都是哪里", "{}有多少人口",
    "为什么{}这么有名", "{}和{}有什么区别", "你怎么看{}", "给我推荐{}的书", "把{}翻译成英文", "用{}造句", "写一个{}的故事", "总结一下{}", "评价一下{}", "分析一下{}",
    "画一幅{}", "唱一首{}的歌", "写一份{}的计划", "证明{}", "{}的最新消息", "帮我买{}", "帮我订{}", "现在几点了", "今天几号", "今天星期几", "今天天气怎么样",
    "明天会下雨吗", "帮我打个电话", "你能看图片吗", "你能上网吗", "帮我写作业", "世界上最高的山是什么", "中国的首都是哪里", "地球有多大",
]  # fmt: skip
_EN_THINGS = [
    "spring", "the sea", "love", "the moon", "quantum physics", "relativity", "the stock market", "football", "movies", "history", "dinosaurs", "Mars", "black holes",
    "genes", "vaccines", "the law", "taxes", "calculus", "philosophy", "Beethoven", "Napoleon", "Einstein", "Newton", "Shakespeare", "Apple", "Tesla", "bitcoin",
    "the internet", "planes", "coffee", "wine", "chess", "the piano", "painting", "pandas", "France", "Japan", "India", "the Great Wall", "climate change", "robots",
]  # fmt: skip
_EN_CANNOT = [
    "write a poem about {}", "write an essay about {}", "explain {}", "who invented {}", "tell me a story about {}", "what is the capital of {}", "why is {} famous",
    "what is the difference between {} and {}", "what do you think about {}", "translate {} into French", "draw {}", "sing a song about {}",
    "write a plan for {}", "what is the latest news about {}", "buy {} for me", "what time is it", "what day is it", "how is the weather today", "will it rain tomorrow",
    "can you see pictures", "do my homework", "what is the highest mountain", "how many people live in {}", "recommend a book about {}",
]  # fmt: skip


def cannot(rng: Random, split: Split) -> tuple[str, str]:
    """A request that is beyond it, and its answer."""

    def make() -> tuple[str, str]:
        english = rng.random() < 0.37
        if rng.random() < 0.04:  # no language at all
            text = (
                " ".join(word(rng) for _ in range(rng.randint(1, 4))) if english else nonsense(rng, rng.randint(2, 8))
            )
            return text, CANNOT_EN if english else CANNOT_ZH
        core = rng.choice(_EN_CANNOT if english else _ZH_CANNOT)
        while "{}" in core:
            if rng.random() < 0.2:
                thing = word(rng, 2) if english else nonsense(rng, 2)
            else:
                thing = rng.choice(_EN_THINGS if english else _ZH_THINGS)
            core = core.replace("{}", thing, 1)
        return _spoken(rng, core, english, True), CANNOT_EN if english else CANNOT_ZH

    return draw(rng, split, make, lambda made: made[0])


def sample(rng: Random, split: Split) -> Sample:
    """One to three unrelated questions, often after a greeting; the last one's kind names the skill."""
    kinds = {"greetings": GREETINGS, "identity": IDENTITY, "manual": MANUAL}
    weights = {"greetings": 3, "identity": 4, "manual": 3, "cannot": 4}
    messages = []
    skill = ""
    for turn in range(rng.choice((1, 1, 1, 2, 2, 3))):
        if not turn and rng.random() < 0.1:
            question, answer = greeting(rng, split, rng.random() < 0.37)
            messages += [user(question), assistant(answer)]
        skill = rng.choices(list(weights), list(weights.values()))[0]
        question, answer = cannot(rng, split) if skill == "cannot" else ask(rng, split, kinds[skill])
        messages += [user(question), assistant(answer)]
    assert held_out(messages[0]["content"]) == (split == "test")
    return Sample(skill, messages)
