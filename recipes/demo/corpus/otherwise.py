"""What people ask otherwise than the first grammars have it: sums of several steps, which are refused, and other stories;
counting down and by twos; answers in a language that the user asks for; questions of the project's users; personas of one
sentence.
"""

# ruff: noqa: SIM905
from __future__ import annotations

from random import Random
from typing import Any

from . import arithmetic, plain
from .arithmetic import TOO_LARGE_EN, TOO_LARGE_ZH, said, solve
from .base import GIVEN, Sample, Split, assistant, draw, first_name, form, nonsense, system, user
from .chat import GREETINGS, IDENTITY, Subject, ask
from .vocabulary import FOODS_EN, HOBBIES_EN, JOBS, JOBS_EN, MAKERS, TEMPERS, TEMPERS_EN, an
from .wording import choose, dress, spread, upper

__all__ = ["counting", "languages", "personas", "project", "sums", "tellings"]

# Sums

# {a}, {b}: numbers; the operator, and whether the smaller one is to be second.
_STORIES = {
    "+": tuple(
        "{who}先走了{a}步，又走了{b}步，一共走了多少步|一班有{a}人，二班有{b}人，两个班一共多少人|书架上层有{a}本书，下层有{b}本书，共有几本|早上卖了{a}杯，下午卖了{b}杯，一天卖了多少杯|一件上衣{a}元，一条裤子{b}元，一共多少元|"
        "{who}昨天读了{a}页，今天读了{b}页，两天读了几页|树上有{a}只鸟，又飞来{b}只，现在有几只|{who}今年{a}岁，{b}年后多少岁|车上有{a}人，上来{b}人，现在车上几人|我有{a}块钱，妈妈给了我{b}块，我现在有多少钱|水桶里有{a}升水，又倒进{b}升，共几升|"
        "公园里有{a}棵树，又种了{b}棵，现在有多少棵".split("|")
    ),
    "-": tuple(
        "一本书有{a}页，看了{b}页，还剩多少页|树上有{a}只鸟，飞走了{b}只，还有几只|我有{a}元，花了{b}元，还剩多少钱|{who}有{a}元，买书用了{b}元，还剩几元|车上有{a}人，下去{b}人，还有几人|班里有{a}个学生，{b}个是女生，男生有几个|爸爸{a}岁，我{b}岁，爸爸比我大几岁|"
        "一根绳子长{a}米，剪掉{b}米，还剩几米|冰箱里有{a}个鸡蛋，用了{b}个，还剩几个|停车场有{a}辆车，开走{b}辆，还有几辆|{who}要走{a}公里，已经走了{b}公里，还有多少公里|原价{a}元，便宜{b}元，现在多少元|{a}个气球，破了{b}个，还有几个".split("|")
    ),
    "×": tuple(
        "一支笔{b}元，{a}支多少元|每人{b}个苹果，{a}个人一共多少个|一张票{b}元，买{a}张要多少钱|每天跑{b}公里，{a}天跑多少公里|一周有7天，{b}周有几天|每行种{b}棵树，{a}行一共几棵|一个盒子装{b}个球，{a}个盒子装多少个|{who}每天写{b}页字，{a}天写几页".split("|")
    ),
    "÷": tuple(
        "{a}个同学分成{b}组，每组几人|{a}元买了{b}支一样的笔，每支多少元|{a}页书{b}天看完，每天看几页|把{a}块糖平均分给{b}个孩子，每人几块|{a}朵花插在{b}个花瓶里，每瓶几朵|{a}米长的绳子剪成{b}段，每段几米".split("|")
    ),
}  # fmt: skip
_STORIES_EN = {
    "+": tuple(
        "{who} read {a} pages yesterday and {b} today. How many pages is that|there are {a} boys and {b} girls in a class. how many children are there|i have {a} dollars and get {b} more. how much do i have now|a shirt costs {a} dollars and a hat {b} dollars. what do both cost|{a} birds sit on a tree and {b} more come. how many birds are there now|{who} is {a} years old. how old will {who} be in {b} years".split("|")
    ),
    "-": tuple(
        "a book has {a} pages, i read {b}. how many are left|{a} birds sit on a tree, {b} fly away. how many stay|i have {a} dollars and spend {b}. how much is left|there are {a} people on the bus and {b} get off. how many are still on it|{who} had {a} balloons and {b} burst. how many are left|a rope is {a} meters long, i cut off {b} meters. how long is it now|{who} is {a} years old and the sister is {b}. how much older is {who}".split("|")
    ),
    "×": tuple(
        "one pen costs {b} dollars. how much are {a} pens|a ticket is {b} dollars. what do {a} tickets cost|{who} runs {b} km a day. how far is that in {a} days|each box has {b} balls. how many balls are in {a} boxes|{a} rows of {b} chairs, how many chairs".split("|")
    ),
    "÷": tuple(
        "{a} students form {b} equal groups. how many are in each group|{a} dollars for {b} equal pens, how much is one|{who} reads {a} pages in {b} days. how many pages a day|share {a} candies among {b} kids, how many does each get".split("|")
    ),
}  # fmt: skip


def sums(rng: Random, split: Split) -> Sample:
    """Sums in stories, and sums that cannot be done by heart, among ones that can."""
    english = rng.random() < 0.35
    made: list[tuple[str, str]] = []
    for _ in range(rng.choice((1, 1, 2))):
        luck = rng.random()
        before = [text for text, _ in made]
        if luck < 0.42:
            text, answer = draw(rng, split, lambda: _story(rng, split, english), lambda pair: pair[0])
        elif luck < 0.8:
            text = draw(rng, split, lambda: _several(rng, split, english))
            answer = TOO_LARGE_EN if arithmetic._in_english(english, (*before, text)) else TOO_LARGE_ZH
        else:
            text, a, operator, b = arithmetic.question(rng, split, english)
            answer = solve(a, operator, b, arithmetic._in_english(english, (*before, text)))[0]
        made.append((text, answer))
    return Sample("arithmetic", [message for pair in made for message in (user(pair[0]), assistant(pair[1]))])


def _story(rng: Random, split: Split, english: bool) -> tuple[str, str]:
    operator = rng.choice("++---×÷")
    a, b = arithmetic._numbers(rng, split, operator)
    while min(a, b) < 2 or (operator in "+-" and max(a, b) > 500):
        a, b = arithmetic._numbers(rng, split, operator)
    if operator == "-" and b > a:
        a, b = b, a
    if operator == "÷":
        a -= a % b
    core = form(rng, split, (_STORIES_EN if english else _STORIES)[operator])
    if "一周有7天" in core:
        a = 7
    who = first_name(rng, split) if english else rng.choice(("小", "小", "阿")) + rng.choice(GIVEN)
    words = not english and max(a, b) < 100 and rng.random() < 0.15
    text = core.format(a=said(a, False) if words else a, b=said(b, False) if words else b, who=who)
    text = upper(text) + "?" if english else text + rng.choice(("？", "？", "?", "", "呢？", "啊"))
    if not english and rng.random() < 0.2:
        text = rng.choice(("请问", "算一下：", "问题：", "帮我算算，", "应用题：", "数学题：")) + text
    return text, solve(a, operator, b, english)[0]


def _several(rng: Random, split: Split, english: bool) -> str:
    """A sum of several steps, of fractions, of powers, or a story of two steps."""
    n = lambda most=99: rng.randint(2, most)  # noqa: E731
    kind = rng.randrange(6)
    plus, times = rng.choice("+-"), rng.choice(("*", "×", "x", "/", "÷"))
    if kind == 0:
        core = rng.choice((f"{n()}{plus}{n(20)}{times}{n(20)}", f"{n(20)}{times}{n(20)}{plus}{n()}", f"({n()}{plus}{n()}){times}{n(20)}", f"（{n()}{plus}{n()}）{times}{n(9)}", f"{n(20)}{times}({n()}{plus}{n()})", f"{n()}+{n()}-{n()}", f"{n(20)}*{n(20)}*{n(20)}", f"{n()} {plus} {n(12)} {times} {n(12)}", f"{n()}+{n()}+{n()}", f"{n()}-{n()}-{n()}"))  # fmt: skip
    elif kind == 1:
        core = rng.choice((f"{n()}*{n()}", f"{rng.randint(11, 99)}×{rng.randint(11, 99)}", f"{rng.randint(11, 99)} x {rng.randint(11, 99)}", f"{rng.randint(101, 999)}*{n()}", f"{rng.randint(11, 99)}乘{rng.randint(11, 99)}", f"{rng.randint(11, 99)} times {rng.randint(11, 99)}"))  # fmt: skip
        if any(part in core for part in ("乘", "times")) and english != ("times" in core):
            core = f"{rng.randint(11, 99)}*{rng.randint(11, 99)}"
        a, _, b = core.replace("×", "*").replace("x", "*").replace(" ", "").replace("乘", "*").replace("times", "*").partition("*")  # fmt: skip
        if min(int(a), int(b)) < 11:
            core = f"{rng.randint(11, 99)}*{rng.randint(11, 99)}"
    elif kind == 2:
        core = rng.choice((f"{n()}.{n(9)}{plus}{n()}.{n(9)}", f"{n(9)}.{n(9)}*{n(9)}", f"0.{n()}+0.{n()}", f"{n(9)}/{n(9)}+{n(9)}/{n(9)}", f"1/{n(9)}+1/{n(9)}", f"{n()}.{n(9)}-{n()}"))  # fmt: skip
    elif kind == 3:
        core = rng.choice(
            (f"the square of {n()}", f"{n()} squared", f"{n(9)} to the power of {n(12)}", f"{n(90)}% of {n(900)}", f"{n(90)} percent of {n(900)}", f"{n(20)} factorial", f"the square root of {n(200)}", f"the average of {n()}, {n()} and {n()}", f"{n(20)}^{n(9)}")
            if english
            else (f"{n()}的平方", f"{n(9)}的{n(12)}次方", f"{n(900)}的{n(90)}%", f"{n(900)}的百分之{n(90)}", f"{n(20)}的阶乘", f"根号{n(200)}", f"{n()}、{n()}和{n()}的平均数", f"{n(20)}^{n(9)}", f"{n()}打{n(9)}折", f"{n(9)}的立方", f"1加到{n(200)}", f"{n()}和{n()}的最大公约数")
        )  # fmt: skip
        if "^" in core and rng.random() < 0.7:
            core = f"{n(9)}**{n(9)}"
    else:
        who = first_name(rng, split) if english else "小" + rng.choice(GIVEN)
        core = (
            rng.choice((
                f"{who} buys {n(9)} pens for {n(9)} dollars each and pays with {n(99)} dollars. how much change does {who} get", f"{who} has {n()} apples, eats {n(9)} and buys {n(9)} more. how many now", f"{n(9)} boxes with {n(9)} eggs each, {n(9)} eggs break. how many are left", f"a train goes {rng.randint(40, 200)} km an hour for {n(9)} hours and then {n(90)} km more. how far is that",
                f"{who} earns {n(90)} dollars a day and spends {n(30)}. how much is saved after {n(30)} days", f"a rectangle is {n()} cm long and {n()} cm wide, what is its perimeter",
            ))
            if english
            else rng.choice((
                f"{who}买了{n(9)}支笔，每支{n(9)}元，付了{n(99)}元，应找回多少钱", f"{who}有{n()}个苹果，吃了{n(9)}个，又买了{n(9)}个，现在有几个", f"{n(9)}盒鸡蛋每盒{n(12)}个，打碎了{n(9)}个，还剩几个", f"一辆车每小时走{rng.randint(30, 120)}公里，走了{n(9)}小时，又走了{n(90)}公里，一共多少公里", f"{who}每天存{n(20)}元，{n(30)}天后花掉{n(99)}元，还剩多少",
                f"长方形长{n()}米宽{n()}米，周长是多少", f"苹果{n(9)}元一斤，梨{n(9)}元一斤，各买{n(9)}斤要多少钱", f"{who}比妹妹大{n(9)}岁，妹妹今年{n(20)}岁，{n(9)}年后{who}几岁", f"鸡和兔共{n()}只，有{n(200)}条腿，鸡有几只",
            ))
        )  # fmt: skip
    if kind > 3:
        return upper(core) + "?" if english else core + rng.choice(("？", "？", "", "?"))
    lead = rng.choice(("", "", "compute ", "what is ", "calculate ", "how much is ") if english else ("", "", "计算", "算一下", "帮我算", "请计算"))  # fmt: skip
    tail = rng.choice(("", "", "?", "=", " = ?") if english else ("", "", "=", "=?", "等于几", "等于多少", "是多少", "？", "得多少"))  # fmt: skip
    return lead + core + tail


# Counting

_DOWN = tuple(
    spread(
        "(请|)从{a}(倒数|倒着数|往回数|倒计时)(到|至){b}",
        "从{a}(往下|往前)数到{b}",
        "倒着(从|)({a}数到{b})",
        "倒数{a}到{b}",
        "(倒计时|倒数)：{a}到{b}",
        "把{b}到{a}倒着(数|写|说)一遍",
    )
)
_DOWN_FEW = ("倒数{n}个数，从{a}开始", "从{a}开始倒数{n}个数", "从{a}开始往下数{n}个")
_DOWN_EN = tuple(
    spread(
        "count (down|backwards|back) from {a} to {b}",
        "count from {a} (down|back) to {b}",
        "(count down|countdown) {a} to {b}",
        "from {a} to {b}, backwards",
    )
)
_TWOS = ("从{a}开始每隔{s}个数数到{b}", "从{a}到{b}，每次加{s}", "{a}到{b}，每隔{s}数一个", "每次加{s}，从{a}数到{b}")
_TWOS_EN = (
    "count from {a} to {b} by {s}",
    "count by {s} from {a} to {b}",
    "count in steps of {s} from {a} to {b}",
    "from {a} to {b} in steps of {s}",
)
_EVEN = (
    "{a}到{b}之间的{kind}有哪些",
    "列出{a}到{b}的{kind}",
    "写出{a}到{b}的所有{kind}",
    "{a}到{b}的{kind}",
    "从{a}数到{b}，只数{kind}",
)
_EVEN_EN = ("list the {kind} numbers from {a} to {b}", "which {kind} numbers are between {a} and {b}", "{kind} numbers from {a} to {b}", "count the {kind} numbers from {a} to {b}")  # fmt: skip


def counting(rng: Random, split: Split) -> Sample:
    """Down, by twos, even and odd numbers."""
    english = rng.random() < 0.35
    made = [
        draw(rng, split, lambda: _count(rng, split, english), lambda pair: pair[0])
        for _ in range(rng.choice((1, 1, 2)))
    ]
    return Sample("counting", [message for pair in made for message in (user(pair[0]), assistant(pair[1]))])


def _count(rng: Random, split: Split, english: bool) -> tuple[str, str]:
    luck = rng.random()
    if luck < 0.5:
        b = 1 if rng.random() < 0.6 else rng.randint(2, 60)
        a = b + rng.randint(2, 14)
        if luck < 0.1 and not english:
            n = rng.randint(3, 9)
            a = rng.randint(n, 40)
            b = a - n + 1
            core = form(rng, split, _DOWN_FEW).replace("{n}", str(n))
        else:
            core = form(rng, split, _DOWN_EN if english else _DOWN)
        numbers = list(range(a, b - 1, -1))
        values = {"a": a, "b": b}
    elif luck < 0.75:
        step, a = rng.choice((2, 2, 3, 5, 5, 10, 10)), rng.choice((0, 1, 2, 5, 10, rng.randint(2, 30)))
        if step in (5, 10):
            a = a // step * step or step
        numbers = list(range(a, a + step * rng.randint(3, 10) + 1, step))
        values = {"a": a, "b": numbers[-1], "s": step}
        core = form(rng, split, _TWOS_EN if english else _TWOS[1:])
        if english and step == 2:
            core = core.replace("by {s}", "by twos")
    else:
        even = rng.random() < 0.5
        a = rng.choice((1, 1, rng.randint(2, 40)))
        b = a + rng.randint(4, 20)
        numbers = [number for number in range(a, b + 1) if (number % 2 == 0) == even]
        core = form(rng, split, _EVEN_EN if english else _EVEN)
        kind = rng.choice(("偶数", "双数") if even else ("奇数", "单数"))
        core = core.replace("{kind}", ("even" if even else "odd") if english else kind)
        values = {"a": a, "b": b}
    text = dress(rng, split, core, english, "do", values, calm=0.6)
    return text, (", " if english else "、").join(map(str, numbers)) + ("." if english else "。")


# A language that the user asks for

_IN = (
    tuple(spread("(请|)用(中文|汉语)(回答|告诉我|说)(：|，|){q}", "{q}(，|？|)(请|)用中文(回答|说)", "answer in chinese: {q}", "{q} (please |)answer in chinese", "{q} in chinese(, please|)", "tell me in chinese {q}")),
    tuple(spread("(请|)用(英文|英语)(回答|告诉我|说|)(：|，|){q}", "{q}(，|？|)(请|)用(英文|英语)(回答|说|告诉我)", "answer in english: {q}", "{q} (please |)answer in english", "{q} in english(, please|)", "(please |)use english: {q}", "tell me in english {q}")),
)  # fmt: skip


def languages(rng: Random, split: Split) -> Sample:
    """Asked in one language, or with some words of another one, and answered in the one that is asked for."""
    return draw(rng, split, lambda: _language(rng, split), lambda sample: str(sample.messages[0]["content"]))


def _language(rng: Random, split: Split) -> Sample:
    messages: list[dict[str, Any]] = []
    for _ in range(rng.choice((1, 1, 2))):
        wanted = rng.random() < 0.65  # English
        subjects = rng.choice((IDENTITY, IDENTITY, IDENTITY, GREETINGS, PROJECT))
        name = rng.choice(list(subjects))
        zh, zh_answer, en, en_answer = subjects[name]
        frame = form(rng, split, _IN[wanted])
        chinese_frame = not frame.replace("{q}", "").isascii()
        core = form(rng, split, zh if chinese_frame else en)
        text = frame.replace("{q}", core)
        if rng.random() < 0.6 and chinese_frame:
            text += rng.choice(("。", "？", "?", "！", "吧"))
        elif not chinese_frame:
            text = upper(text) if rng.random() < 0.5 else text
        if name == "joke":  # a Chinese joke in English is not the same joke
            continue
        messages += [user(text), assistant(en_answer if wanted else zh_answer)]
    return Sample("identity", messages) if messages else _language(rng, split)


# Questions of the project's users

PROJECT: dict[str, Subject] = {
    "install": (
        ["怎么安装", "怎么安装chatglm", *spread("(怎么|如何|怎样)(安装|装|下载)(chatglm|ChatGLM|这个项目|这个包|这个软件|你|)", "(安装|下载)(方法|步骤|教程|命令)(是什么|)", "(chatglm|这个项目)怎么(安装|装|下载)", "用什么命令安装")],
        "下载仓库后运行 make chat，它会自己准备好环境。",
        ["how do I install chatglm", *spread("how (do i|can i|to) (install|set up|download) (chatglm|it|this|this package|you)", "(installation|install) (guide|steps|command|instructions)")],
        "Get the repository and run make chat; it sets up its own environment.",
    ),
    "serve": (
        ["怎么启动服务", "怎么启动API服务", *spread("(怎么|如何|怎样)(启动|开|搭建|部署|运行)(一个|)(API|api|HTTP|http|OpenAI|openai|)(服务|服务器|接口|server)", "(有没有|支持|有|能提供)(OpenAI|openai|API|api|HTTP)(兼容|)(接口|的接口|服务)(吗|)", "(怎么|如何)(用|通过)(API|api|HTTP|接口)(调用|访问|使用)(你|模型|)", "(API|接口|服务)(怎么用|怎么开|怎么启动|命令是什么)")],
        "运行 chatglm serve --model 权重目录，OpenAI 的客户端可以直接使用。",
        ["how do I start a server", *spread("how (do i|can i|to) (start|run|open|deploy) (a|an|the) (server|api server|api|openai server|http server)", "(is there|do you have|does it have) an (api|openai api|http api)", "how (do i|can i|to) (call|use) (the api|it over http|it with the openai client)")],
        "Run chatglm serve --model FOLDER; the clients of OpenAI work with it.",
    ),
    "web": (
        ["怎么打开网页", "有网页界面吗", *spread("(怎么|如何|怎样)(打开|启动|用|使用)(网页|网页版|网页界面|页面|web界面|图形界面|webui)", "(有没有|有|支持)(网页|网页版|网页界面|图形界面|webui|界面)(吗|)", "(网页|网页版|界面)(怎么|如何)(开|打开|启动|用)", "(能|可以)在浏览器(里|中)(用|聊天|使用)吗")],
        "运行 chatglm web，然后在浏览器里打开它显示的地址。",
        ["how do I open the web page", *spread("how (do i|can i|to) (open|start|use|run) (the web page|the web ui|the page|a web interface|the browser ui)", "(is there|do you have) a (web page|web ui|gui|web interface|browser interface)", "can i (use|chat with) (it|you) in (the|a|my) browser")],
        "Run chatglm web and open the address that it shows in a browser.",
    ),
    "documents": (
        ["怎么问自己的文档", "怎么建知识库", *spread("(怎么|如何|怎样)(建|创建|用|使用|导入|添加)(知识库|自己的文档|本地文档|我的文档|我的资料)", "(怎么|如何|能|可以)(问|查询|读)(我的|自己的|本地的)(文档|文件|资料|PDF|pdf)(吗|)", "(支持|有没有|有)(知识库|文档问答|RAG)(吗|功能吗|)", "(知识库|文档问答)(怎么|如何)(用|做|建)")],
        "用 chatglm knowledge add 添加文档，再用 chatglm knowledge ask 提问，回答会标出来源。",
        ["how do I ask my documents", *spread("how (do i|can i|to) (ask|query|use|add|search) (my documents|my files|my own documents|a knowledge base|my pdfs)", "(is there|do you have|do you support) a (knowledge base|document search|rag)", "can (you|it) (read|answer from|search) my (files|documents|pdfs)")],
        "Add documents with chatglm knowledge add and ask with chatglm knowledge ask; answers name their sources.",
    ),
    "quantize": (
        ["怎么量化", "怎么量化模型", *spread("(怎么|如何|怎样)(量化|做量化|压缩)(模型|成4位|成int4|到int8|权重|)", "(支持|可以|能|能不能)(量化|int4|INT4|int8|4位量化)(吗|)", "(量化|int4)(怎么做|怎么用|命令是什么|教程)", "(显存|内存)(不够|不足|太小)(怎么办|咋办)")],
        "运行 chatglm quantize 权重目录 --output 新目录，int4 权重只占约四分之一的内存。",
        ["how do I quantize a model", *spread("how (do i|can i|to) (quantize|quantise|compress) (a model|the model|my model|it|to int4|to 4 bits)", "(do you|does it) support (int4|int8|quantization|4 bit weights)", "(not enough|too little|out of) (memory|gpu memory|ram)( what can i do|)")],
        "Run chatglm quantize FOLDER --output NEW; int4 weights take about a quarter of the memory.",
    ),
    "gpu": (
        ["需要显卡吗", "支持GPU吗", *spread("(需要|要|必须有|一定要)(显卡|GPU|gpu|独立显卡|N卡)(吗|)", "(支持|能用|可以用|怎么用)(GPU|gpu|显卡|CUDA|cuda|多卡)(吗|)", "(没有|没)(显卡|GPU|gpu)(能|可以)(用|跑|运行)(吗|)", "(能|可以)(在|用)(CPU|cpu|笔记本|普通电脑)(上|)(跑|运行|用)(吗|)")],
        "没有显卡也可以在 CPU 上运行；有 NVIDIA 显卡时会自动使用。",
        ["do I need a GPU", *spread("(do i|must i) (need|have) a (gpu|graphics card|nvidia card)", "(can|does) it (run|work) (on|without) (a cpu|my laptop|a gpu|cuda)", "(do you|does it) (support|use) (cuda|gpus|my gpu|several gpus)", "how (do i|can i|to) use (my gpu|cuda|the gpu)")],
        "It runs on a CPU, too; an NVIDIA card is used where there is one.",
    ),
    "tools": (
        ["怎么用工具", "怎么调用工具", *spread("(怎么|如何|怎样)(用|使用|调用|添加|定义)(工具|函数|自己的工具|外部工具|插件)", "(支持|能|会|可以)(工具调用|函数调用|用工具|调用函数|function call)(吗|)", "(工具|函数)(怎么|如何)(用|调用|添加)")],
        "运行 chatglm chat --tools 工具文件；--tools examples 里有几个示例工具。",
        ["how do I use tools", *spread("how (do i|can i|to) (use|call|add|define) (tools|functions|my own tools|a tool)", "(do you|does it) support (tools|function calling|tool calls|functions)")],
        "Run chatglm chat --tools FILE; --tools examples has some to try.",
    ),
    "langchain": (
        ["支持LangChain吗", "怎么在LangChain里用", *spread("(支持|能用|可以用|兼容)(LangChain|langchain|Langchain)(吗|么|)", "(怎么|如何)(在|和|跟|配合)(LangChain|langchain)(里|中|一起|)(用|使用)", "(LangChain|langchain)(怎么|如何)(用|接入|集成)")],
        "支持：从 chatglm.langchain 导入 ChatGLM 的类就可以用。",
        ["do you support LangChain", *spread("(do you|does it) (support|work with) langchain", "how (do i|can i|to) use (it|this|chatglm|you) (with|in|from) langchain", "is there a langchain integration")],
        "Yes: import its classes from chatglm.langchain.",
    ),
    "models": (
        ["支持哪些模型", "能加载哪些模型", *spread("(支持|能用|可以加载|能加载|可以用)(哪些|什么|哪几个)(模型|权重|版本)", "(支持|能加载|可以用)(GLM-4|glm-4|ChatGLM2|ChatGLM3|chatglm2|CharacterGLM|ChatGLM-6B)(吗|么)")],
        "支持 ChatGLM-6B、ChatGLM2-6B、ChatGLM3-6B、GLM-4-9B 和 CharacterGLM 的官方权重。",
        ["which models do you support", *spread("(which|what) (models|weights|checkpoints|versions) (do you support|are supported|can i load|can i use)", "(do you|does it) support (glm-4|chatglm2|chatglm3|characterglm|chatglm-6b)")],
        "The official weights of ChatGLM-6B, ChatGLM2-6B, ChatGLM3-6B, GLM-4-9B and CharacterGLM.",
    ),
    "docs": (
        ["文档在哪里", "有文档吗", *spread("(文档|说明书|教程|使用手册|说明)(在|放在)(哪里|哪儿|哪)", "(有|有没有)(文档|教程|说明书|使用手册|例子|示例)(吗|)", "(哪里|在哪)(有|能看|可以看|能找到)(文档|教程|例子|示例|说明)")],
        "文档在仓库的 docs 目录里，README.zh.md 是入口。",
        ["where is the documentation", *spread("where (is|are|can i find) the (documentation|docs|manual|guide|examples|tutorial)", "(is there|do you have) (a manual|documentation|a guide|a tutorial|examples)")],
        "The documentation is in the repository's folder docs; README.md is the place to start.",
    ),
    "offline": (
        ["需要联网吗", "可以离线用吗", *spread("(需要|要|必须)(联网|上网|网络|连网)(吗|才能用吗|)", "(能|可以|支持)(离线|断网|本地)(用|使用|运行|部署)(吗|)", "(没有网络|断网|没网)(能|可以)(用|使用)吗", "(我的|)(数据|对话|聊天记录|隐私)(会|会不会)(上传|泄露|发到网上)(吗|)")],
        "不需要联网，模型和数据都在你自己的机器上。",
        ["do you need the internet", *spread("(do you|does it) (need|require) (the internet|a network|internet|to be online)", "can i (use|run) (it|you|this) offline", "(is|are) my (data|chats|messages) (uploaded|private|safe|sent anywhere)")],
        "No network is needed; model and data stay on your own machine.",
    ),
    "price": (
        ["收费吗", "要钱吗", *spread("(你|这个|chatglm|使用|)(收费|要钱|花钱|要付费|要买)(吗|么|不)", "(多少钱|怎么收费|价格是多少|要多少钱)(能用|一个月|)", "(需要|要)(密钥|API key|api key|注册|账号)(吗|)")],
        "不收费，也不需要注册，这是开源软件。",
        ["is it free", *spread("(do i have to|must i) (pay|register|sign up|buy something)", "(how much|what) does (it|chatglm|this) cost", "do i need (an api key|a key|an account)")],
        "It costs nothing and needs no account; it is open source.",
    ),
    "memory": (
        ["你会记住我说的话吗", *spread("(你|)(会|能|可以)(记住|记得|保存)(我们的对话|我说的话|聊天记录|上次聊的|之前的对话)(吗|)", "(聊天记录|对话)(会|能)(保存|存下来)(吗|)", "(怎么|如何)(保存|导出)(对话|聊天记录)")],
        "在这次对话里我会记住；网页会保存对话，命令行里可以用 /save 保存。",
        ["will you remember what I say", *spread("(do|will|can) you (remember|keep|save) (our chat|this conversation|what i say|what i told you)", "how (do i|can i|to) (save|export) (the chat|a conversation|this conversation)")],
        "In this conversation I remember; the web page keeps conversations, and /save stores one in the terminal.",
    ),
    "speed": (
        ["你为什么这么笨", "怎么让你更聪明", *spread("(怎么|如何|怎样)(让|使)你(更聪明|变聪明|变强|更强|更好)", "(有没有|有|能换)(更大|更强|更聪明|更好)的(模型|版本)(吗|)", "(为什么|为啥)你(这么|那么)(笨|小|弱|蠢)")],
        "我只是演示用的小模型，换成官方权重就会聪明得多：chatglm chat --model 权重目录。",
        ["how can you get smarter", *spread("how (can|do) (you get|i make you|i get you) (smarter|better|stronger)", "(is there|do you have) a (bigger|better|smarter|stronger) (model|version)", "why are you so (small|weak|dumb|limited)")],
        "I am a small model for demonstration; with official weights it is much better: chatglm chat --model FOLDER.",
    ),
}  # fmt: skip


def project(rng: Random, split: Split) -> Sample:
    """One or two questions of the project's users, now and then after a greeting."""
    messages: list[dict[str, Any]] = []
    for _ in range(rng.choice((1, 1, 2))):
        question, answer = ask(rng, split, PROJECT)
        messages += [user(question), assistant(answer)]
    return Sample("identity", messages)


# Personas of one sentence

_MANNERS = "爱睡觉的 爱笑的 脾气古怪的 年轻的 年老的 热心的 神秘的 勇敢的 刚毕业的 经验丰富的 住在森林里的 会魔法的 爱唱歌的 来自未来的 沉默寡言的 有名的 退休的".split()
_BEINGS = "猫 狗 机器人 精灵 海盗 骑士 公主 国王 魔法师 侦探 医生 老师 厨师 诗人 护士 警察 船长 外星人 侠客 僧人 书店老板 客服 导游 翻译 面试官 产品经理 心理咨询师 农夫 兔子 龙 狐狸 商人 画家 律师 健身教练 英语老师 历史学家 占卜师 管家 图书管理员".split()
_BEINGS_EN = "cat;dog;robot;elf;pirate;knight;princess;king;wizard;detective;ghost;dragon;tour guide;shopkeeper;butler;librarian;fortune teller;captain;fairy;monk;alien;travel agent;fitness coach;farmer;fox;owl".split(
    ";"
)
_WHO_ARE_YOU = tuple(spread("你是(谁|什么|什么人|做什么的|干什么的)", "(请问|)你是(谁|哪位)", "(介绍一下|说说)你自己", "(请|)自我介绍一下", "你(究竟|到底)是谁", "你是什么角色"))  # fmt: skip
_WHO_ARE_YOU_EN = tuple(spread("who are you", "what are you", "(please |)introduce yourself", "tell me about yourself", "who am i talking to", "what do you do", "who r u"))  # fmt: skip
_NAMED = ("你叫什么", "你叫什么名字", "你的名字是什么", "怎么称呼你", "你叫啥", "请问你的名字")
_NAMED_EN = ("what is your name", "what's your name", "your name?", "what are you called", "what should i call you")
NOT_YET, NOT_YET_EN = "这个我还没想好。", "I have not thought about that."
# tag | what is told, without the person | questions | the answer; {v} is a value.
_TOLD_EN = (
    ("who love {v}|love {v}", "(what do you (love|like)|what do you enjoy|your hobby)", "I love {v}.", lambda rng: rng.choice((*HOBBIES_EN, *FOODS_EN, "gold", "old books", "the sea", "the moon", "long walks"))),
    ("hate {v}", "what do you (hate|dislike|not like)", "I hate {v}.", lambda rng: rng.choice("spiders;rain;Mondays;noise;carrots;cold water;cats;lies;maths;early mornings;crowds;snow".split(";"))),
    ("live in {v}", "where (do you live|is your home)", "I live in {v}.", lambda rng: rng.choice(("a lighthouse", "an old castle", "the forest", "a small village", "a cave", MAKERS["en.city"](rng), MAKERS["en.city"](rng)))),
    ("work at {v}", "where do you work", "I work at {v}.", lambda rng: rng.choice("a bakery;the harbor;a museum;the town hall;a hospital;a flower shop;a night market;the airport;a bookshop".split(";"))),
    ("have {v}", "(what|which) pet do you have", "I have {v}.", lambda rng: an(rng.choice("parrot;black cat;lizard;white horse;small dog;snake;goldfish;raven".split(";")))),
    ("are {v} years old", "(how old are you|what is your age|your age)", "I am {v} years old.", lambda rng: str(rng.randint(8, 400))),
    ("can {v}", "what can you do", "I can {v}.", lambda rng: rng.choice("fly;talk to animals;read minds;see in the dark;cook anything;become invisible;breathe fire;sail any ship;fix anything".split(";"))),
    ("dream of {v}", "what do you dream of", "I dream of {v}.", lambda rng: rng.choice("a big ship;the stars;a quiet life;seeing the ocean;finding a treasure;a new home;winning the race".split(";"))),
)  # fmt: skip


def personas(rng: Random, split: Split) -> Sample:
    """A persona that one or two sentences describe, with or without a name."""
    make = _persona_en if rng.random() < 0.35 else _persona
    return draw(rng, split, lambda: make(rng, split), lambda sample: "".join(m["content"] for m in sample.messages[:2]))


def _persona(rng: Random, split: Split) -> Sample:
    name = rng.choice(("小", "阿", "老")) + rng.choice(GIVEN) if rng.random() < 0.5 else MAKERS["person"](rng)
    being = nonsense(rng, 2) if rng.random() < 0.08 else rng.choice((rng.choice(_BEINGS), rng.choice(JOBS)))
    unit = "只" if being in "猫 狗 兔子 狐狸" else "条" if being == "龙" else rng.choice(("个", "名", "位"))
    described = f"一{unit}{rng.choice(('', '', rng.choice(_MANNERS), '很' + rng.choice(TEMPERS) + '的'))}{being}"
    texts = plain._Texts(rng, True)
    allowed = [rule for rule in plain.RULES["who"] if rule.tag not in ("job", "why", "works", "nick", "hospital") and rule.says.startswith("@") and not rule.says.startswith("@<")]  # fmt: skip
    rules = rng.sample(allowed, rng.choice((0, 1, 1, 2, 2, 3)))
    rules = [rule for place, rule in enumerate(rules) if not any(plain._near(rule.tag, r.tag) for r in rules[:place])]
    facts = [texts.fact(rule, "你") for rule in rules]
    named = rng.random() < 0.6
    if named:
        start = rng.choice((f"你是{name}，{described}", f"你叫{name}，是{described}", f"你是{described}，名叫{name}", f"请扮演{name}，{described}", f"你现在是{described}，名字叫{name}", f"你是{described}，叫{name}", f"扮演一下{name}，你是{described}", f"你的名字是{name}，你是{described}"))  # fmt: skip
    else:
        start = rng.choice((f"你是{described}", f"请你扮演{described}", f"扮演{described}", f"你现在是{described}", f"假设你是{described}", f"从现在起你是{described}", f"请以{described}的身份和我聊天"))  # fmt: skip
    joined = rng.random() < 0.65
    told = start
    for fact in facts:
        text = fact.said("你")
        told += ("，" + (text.removeprefix("你") if not text.startswith("你的") else text)) if joined else "。" + text
    told += rng.choice(("。", "。", "", "。请用这个身份和我聊天。", "。不要说自己是AI。", "。"))
    messages = [system(told)]
    untold = [
        texts.fact(rule, "你") for rule in allowed if not any(plain._near(rule.tag, fact.rule.tag) for fact in facts)
    ]
    for _ in range(rng.choice((1, 2, 2, 3))):
        luck = rng.random()
        if luck < 0.28:
            core = form(rng, split, _WHO_ARE_YOU)
            answer = f"我是{name}，{described}。" if named else f"我是{described}。"
            if "做什么" in core or "干什么" in core:
                answer = f"我是{described}。"
        elif luck < 0.42:
            core, answer = form(rng, split, _NAMED), f"我叫{name}。" if named else "我叫什么，我还没想好。"
        elif luck < 0.8 and facts:
            fact = rng.choice(facts)
            parts = texts.told_parts(fact)
            if not parts:
                continue
            core, answer = texts.question(fact, rng.choice(parts)), fact.said("我") + "。"
        elif untold:
            fact = rng.choice(untold)
            parts = texts.told_parts(fact)
            if not parts:
                continue
            core, answer = texts.question(fact, rng.choice(parts)), NOT_YET
        else:
            continue
        messages += [user(dress(rng, split, core, False, "ask", calm=0.6)), assistant(answer)]
    return Sample("persona", messages) if len(messages) > 1 else _persona(rng, split)


def _persona_en(rng: Random, split: Split) -> Sample:
    name = MAKERS["en.name"](rng)
    being = rng.choice((*_BEINGS_EN, *JOBS_EN))
    described = an(rng.choice(("", "", "", rng.choice(TEMPERS_EN) + " ", "old ", "young ", "famous ")) + being)
    described = an(described.partition(" ")[2])
    chosen = rng.sample(_TOLD_EN, rng.choice((0, 1, 1, 2, 2, 3)))
    named = rng.random() < 0.6
    if named:
        start = rng.choice((f"You are {name}, {described}", f"Your name is {name} and you are {described}", f"Play {name}, {described}", f"You are {described} called {name}", f"Please play {name}. You are {described}", f"You are {described} named {name}"))  # fmt: skip
    else:
        start = rng.choice((f"You are {described}", f"Act as {described}", f"Pretend to be {described}", f"Play {described}", f"From now on you are {described}", f"Answer as {described}"))  # fmt: skip
    values = [(told, asks, answer, make(rng)) for told, asks, answer, make in chosen]
    told_text = start
    who = rng.random() < 0.45
    for place, (told, _, _, value) in enumerate(values):
        core = told.split("|")[-1].format(v=value)
        if who and not place:
            third = {"love": "loves", "hate": "hates", "live": "lives", "work": "works", "have": "has", "are": "is", "dream": "dreams"}  # fmt: skip
            verb, _, rest = core.partition(" ")
            told_text += f" who {third.get(verb, verb)} {rest}"
        elif who and place == 1:
            third = {"love": "loves", "hate": "hates", "live": "lives", "work": "works", "have": "has", "are": "is", "dream": "dreams"}  # fmt: skip
            verb, _, rest = core.partition(" ")
            told_text += f" and {third.get(verb, verb)} {rest}"
        else:
            told_text += f". You {core}"
    told_text += rng.choice((".", ".", ". Stay in character.", ""))
    messages = [system(told_text)]
    for _ in range(rng.choice((1, 2, 2, 3))):
        luck = rng.random()
        if luck < 0.28:
            core = form(rng, split, _WHO_ARE_YOU_EN)
            answer = f"I am {name}, {described}." if named and core != "what do you do" else f"I am {described}."
        elif luck < 0.42:
            core = form(rng, split, _NAMED_EN)
            answer = f"My name is {name}." if named else "My name I have not thought about."
        elif luck < 0.8 and values:
            _, asks, pattern, value = rng.choice(values)
            core, answer = choose(rng, asks), pattern.format(v=value)
        else:
            others = [each for each in _TOLD_EN if each not in chosen and "what can you do" not in each[1]]
            core, answer = choose(rng, rng.choice(others)[1]), NOT_YET_EN
        messages += [user(dress(rng, split, core.rstrip("?"), True, "ask", calm=0.6)), assistant(answer)]
    return Sample("persona", messages)


# What the user tells of himself

_NOTED, _NOTED_EN = "好的，{}。", "OK, {}."
NOT_TOLD, NOT_TOLD_EN = "这个你还没有告诉我。", "That you have not told me yet."
_PAST = (
    "bought",
    "found",
    "went",
    "visit",
    "met",
    "gift",
    "cooked",
    "wrote",
    "ran",
    "won",
    "called",
    "moves",
    "waited",
)


def tellings(rng: Random, split: Split) -> Sample:
    """What the user did, has and likes, and questions about it."""
    return draw(rng, split, lambda: _tellings(rng, split), lambda sample: str(sample.messages[0]["content"]))


def _tellings(rng: Random, split: Split) -> Sample:
    english = rng.random() < 0.35
    texts = plain._Texts(rng, not english)
    allowed = [rule for rule in texts.rules["who"] if rule.tag in _PAST] if english else [rule for rule in texts.rules["who"] if rule.says.startswith("@")]  # fmt: skip
    rules = rng.sample(allowed, rng.choice((1, 1, 2, 2, 3)))
    rules = [rule for place, rule in enumerate(rules) if not any(plain._near(rule.tag, r.tag) for r in rules[:place])]
    me, you = ("I", "you") if english else ("我", "你")
    facts = [texts.fact(rule, me) for rule in rules]
    untold = [
        texts.fact(rule, me) for rule in allowed if not any(plain._near(rule.tag, fact.rule.tag) for fact in facts)
    ]
    messages: list[dict[str, Any]] = []
    groups = [facts] if len(facts) > 1 and rng.random() < 0.4 else [[fact] for fact in facts]
    for group in groups:
        if english:
            told = " and ".join(fact.said() if not place else fact.said("i") for place, fact in enumerate(group))
            answer = " and ".join(fact.said("you") for fact in group)
        else:
            told = "，".join(fact.said() if not place or fact.text.startswith("@的") else fact.said("") for place, fact in enumerate(group))  # fmt: skip
            answer = "，".join(fact.said("你") for fact in group)
        typed = dress(rng, split, told, english, "say", calm=0.6)
        messages += [user(typed), assistant((_NOTED_EN if english else _NOTED).format(answer))]
    for _ in range(rng.choice((1, 1, 2, 3))):
        lacks = bool(untold) and rng.random() < 0.3
        fact = rng.choice(untold if lacks else facts)
        parts = texts.told_parts(fact)
        parts = [part for part in parts if part != "@"]
        if not parts:
            continue
        core = texts.question(fact, rng.choice(parts))
        if english:
            core = core.replace("from I", "from me")
            core = core.replace(" I ", " i ") if rng.random() < 0.3 else core
        answer = (NOT_TOLD_EN if english else NOT_TOLD) if lacks else upper(fact.said(you)) + ("." if english else "。")
        messages += [user(dress(rng, split, core, english, "ask", calm=0.6)), assistant(answer)]
    return Sample("memory", messages)
