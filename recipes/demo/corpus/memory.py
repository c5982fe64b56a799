"""Small talk that refers back: the user tells facts, corrects some, chats, and asks for them later.

What is told, confirmed, asked and answered has the same words in front of the value, so the answer is a continuation
that stood there before; what was never told is known to be missing only where its value would stand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from chatglm.conversation.memory import _ASK as _RECAP
from chatglm.conversation.memory import LONGEST

from .base import TOWNS, Sample, Split, assistant, draw, form, nonsense, persistently, user
from .chat import GREETINGS, IDENTITY, ask, greeting
from .vocabulary import ANIMALS, ANIMALS_EN, FOODS, FOODS_EN, HOBBIES, HOBBIES_EN, THINGS, THINGS_EN, an, value, word
from .wording import choose, dress, upper


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
_TASKS = (
    "开会",
    "上课",
    "考试",
    "吃饭",
    "接孩子",
    "去机场",
    "看医生",
    "起床",
    "面试",
    "跑步",
    "见客户",
    "赶火车",
    "交作业",
    "打电话",
    "健身",
    "开车",
    "上班",
    "理发",
)
_TASKS_EN = (
    "meeting",
    "lesson",
    "class",
    "appointment",
    "flight",
    "train",
    "dinner",
    "call",
    "shift",
    "game",
    "lunch",
    "show",
)
_RELATIVES_EN = ("father", "mother", "brother", "sister", "neighbor", "boss", "son", "daughter", "uncle", "aunt", "teacher", "cousin")  # fmt: skip
_OBJECTS_EN = ("keys", "phone", "glasses", "passport", "wallet", "umbrella", "charger", "hat", "watch", "ticket")
_NUMBERS_EN = ("room number", "seat number", "student number", "flight number", "order number", "door code", "password")
_EVENTS_EN = ("exam", "interview", "wedding", "concert", "match", "party", "check-up")
_NOUNS_EN = ("nickname", "username", "code word", "team", "pen name", "stage name", "mascot", "gift", "secret", "dream")

_ZH = {
    "name": Fact("name", ("我叫{v}", "我的名字叫{v}", "我(叫|是|名叫|名字是|的名字叫|的名字是|姓名是|就是){v}", "叫我{v}(就好|吧|就行|)", "(大家|朋友们|别人)(都|)叫我{v}", "本人(叫|){v}", "你可以叫我{v}", "我的大名是{v}"), ("我叫什么", "我叫什么名字", "我的名字叫什么", "我的名字是什么", "我(叫|是叫)(什么|啥)(名字|)(来着|)", "我(是谁|的名字)(来着|)", "我的名字(是|叫)(什么|啥)", "(还|你还|)记得我(的名字|叫什么|是谁|叫啥)(吗|)", "我姓名是什么", "怎么称呼我", "知道我是谁吗", "说说我叫什么"), "你叫{v}", "你叫什么", weight=12, reply="你好，{v}！"),
    "city": Fact("city", ("我住在{v}", "我家住在{v}", "我(家|)(住在|住|在|就住在|现在住在|目前住在){v}", "我(家|的家|)在{v}", "我是{v}人", "我来自{v}", "我从{v}来", "我老家(是|在){v}(的|)", "我在{v}(工作|上学|生活|定居|长大)"), ("我住在哪里", "我住在哪儿", "我(家|)(住在|住|在|是住)(哪里|哪儿|哪|什么地方|哪个城市)", "我(来自|老家在|家在|老家是|是)(哪里|哪儿|哪|哪里人|哪儿的人)", "我(在哪|在哪里|在哪个城市)(工作|生活|上学|住)", "我住的城市是哪里", "(还|你|)记得我(住哪|住在哪里|是哪里人|来自哪里)吗"), "你住在{v}", "你住在哪里", weight=5),
    "job": Fact("job", ("我的职业是{v}", "我的工作是{v}", "我的(职业|工作|本职工作|专业)是{v}", "我是(一名|一个|个|一位|){v}", "我(做|当|干){v}(的|)", "我(的工作|)是当{v}的", "我在(公司|单位|老家|)当{v}", "我(现在|目前)是{v}"), ("我的职业是什么", "我的工作是什么", "我的(职业|工作)(是|)(什么|啥)", "我(是|)(做什么|干什么|做啥|干啥|干嘛)(工作|)(的|)", "我(做|干)(什么|啥)工作", "我从事什么职业", "(还|你|)记得我(的工作|是做什么的|的职业)吗"), "你的工作是{v}", "你的工作是什么", weight=3),
    "hobby": Fact("hobby", ("我的爱好是{v}", "我(的爱好|的兴趣|兴趣爱好|平时的爱好)是{v}", "我(平时|没事|业余|周末|闲下来|)(喜欢|爱|爱好|最爱|经常|常常){v}", "我(特别|很|最|非常|也)(喜欢|爱){v}", "{v}是我的爱好"), ("我的爱好是什么", "我有什么爱好", "我(的|)(爱好|兴趣|兴趣爱好)(是|有)(什么|啥|哪些)", "我(有|)(什么|啥|哪些)(爱好|兴趣)", "我(平时|没事|业余|)(喜欢|爱)(做什么|干什么|干嘛|做啥|干啥)", "(还|你|)记得我(的爱好|喜欢做什么)吗"), "你的爱好是{v}", "你的爱好是什么", weight=4),
    "food": Fact("food", ("我最喜欢吃{v}", "我喜欢吃{v}", "我(最|特别|很|非常|超|就|)(喜欢|爱)吃{v}", "我(最|)(喜欢|爱)的(食物|菜|美食)是{v}", "{v}是我(最|)(爱|喜欢)(吃|)的(菜|食物|)", "我(就好|爱吃的是|想吃的是){v}"), ("我最喜欢吃什么", "我喜欢吃什么", "我(最|)(喜欢|爱)吃(什么|啥)(来着|)", "我(最|)(喜欢|爱)的(食物|菜|美食)是(什么|啥)", "我爱吃的是什么", "(还|你|)记得我(喜欢吃|爱吃)(什么|啥)吗"), "你喜欢吃{v}", "你喜欢吃什么", weight=4),
    "colour": Fact("colour", ("我最喜欢的颜色是{v}", "我喜欢的颜色是{v}", "我(最|)(喜欢|爱)(的颜色是|){v}", "我(最|)(喜欢|爱)的颜色(是|就是){v}", "{v}是我(最|)(喜欢|爱)的颜色", "我(偏爱|特别喜欢|就喜欢){v}"), ("我最喜欢的颜色是什么", "我喜欢的颜色是什么", "我(最|)(喜欢|爱)(的颜色是|)(什么|啥|哪种|哪个)(颜色|)", "我(最|)(喜欢|爱)(什么|啥|哪种)颜色", "我(偏爱|爱)哪种颜色", "(还|你|)记得我(喜欢什么颜色|最喜欢的颜色)吗"), "你喜欢的颜色是{v}", "你喜欢的颜色是什么"),
    "sport": Fact("sport", ("我最喜欢的运动是{v}", "我喜欢的运动是{v}", "我(最|)(喜欢|爱)的运动(是|就是){v}", "我(最|)(喜欢|爱)的(体育|)项目是{v}", "{v}是我(最|)喜欢的运动"), ("我最喜欢的运动是什么", "我喜欢的运动是什么", "我(最|)(喜欢|爱)(的运动是|)(什么|啥)(运动|)", "我(最|)(喜欢|爱)(什么|啥|哪种|哪项)运动", "我爱好的运动是什么"), "你喜欢的运动是{v}", "你喜欢的运动是什么"),
    "book": Fact("book", ("我最喜欢的书是{v}", "我喜欢的书是{v}", "我(最|)(喜欢|爱)(看|读|)(的书是|){v}", "我(最近|正在|)在(读|看){v}", "我(最|)(喜欢|爱)的(一本|)书(是|叫){v}"), ("我最喜欢的书是什么", "我喜欢的书是哪本", "我(最|)(喜欢|爱)(的书是|看的书是|读的书是)(什么|哪本|哪一本|啥)", "我(最|)(喜欢|爱)(看|读|)(什么|哪本|啥)书"), "你喜欢的书是{v}", "你喜欢的书是哪本"),
    "number": Fact("digits", ("我的幸运数字是{v}", "我的幸运(数字|数|号码)是{v}", "{v}是我的幸运(数字|数)", "我最喜欢的数字是{v}"), ("我的幸运数字是多少", "我的幸运数字是什么", "我的幸运(数字|数|号码)(是|)(多少|什么|几)", "我最喜欢的数字是(几|多少)"), "你的幸运数字是{v}", "你的幸运数字是多少"),
    "age": Fact("age", ("我今年{v}岁", "我今年{v}岁了", "我(今年|现在|已经|刚|快|)(是|满|){v}(岁|岁了|周岁|了)", "我的年龄是{v}(岁|)", "今年{v}岁"), ("我今年多大", "我今年几岁", "我多大了", "我(今年|现在|)(多大|几岁|多少岁)(了|啦|来着|)", "我的年龄(是|)(多少|多大|几岁)", "(还|你|)记得我(多大|几岁)(了|)吗"), "你今年{v}岁", "你今年多大", weight=4),
    "birthday": Fact("day", ("我的生日是{v}", "我的生日(是|在){v}", "我(是|){v}(生日|出生的|过生日|的生日)", "我生日(是|在|){v}"), ("我的生日是哪天", "我的生日是什么时候", "我(的|)生日(是|在|)(哪天|什么时候|几号|几月几号|哪一天)", "我(哪天|什么时候|几号|几月)(过|)生日", "(还|你|)记得我(的生日|哪天生日)吗"), "你的生日是{v}", "你的生日是哪天", weight=3),
    "school": Fact("school", ("我的学校是{v}", "我的学校(是|叫){v}", "我(在|就读于|毕业于|上的是){v}(上学|读书|念书|)", "我(上|读){v}"), ("我的学校是哪所", "我的学校是什么", "我的学校(是|叫)(哪所|什么|哪个|哪里)", "我(在|)(哪|哪里|哪所学校|哪个学校)(上学|读书|念书)", "我(毕业于|就读于)哪里"), "你的学校是{v}", "你的学校是哪所"),
    "friend": Fact("person", ("我最好的朋友叫{v}", "我最好的朋友是{v}", "我(最|)好(的|)朋友(叫|是|名叫){v}", "{v}是我(最|)好(的|)朋友", "我(的|)(闺蜜|死党|好兄弟|好朋友)(叫|是){v}"), ("我最好的朋友叫什么", "我最好的朋友是谁", "我(最|)好(的|)朋友(叫|是)(什么|谁|啥|什么名字)", "(谁|哪位)是我(最|)好的朋友", "我(的|)(闺蜜|死党|好兄弟|好朋友)(是谁|叫什么)"), "你最好的朋友是{v}", "你最好的朋友是谁", weight=3),
    "plan": Fact("plan", ("我周末打算{v}", "我周末要{v}", "我(周末|这周末|这个周末|周六)(打算|要|想|准备|计划){v}", "(周末|这周末)我(打算|要|想|准备){v}", "我计划周末{v}"), ("我周末打算做什么", "我周末要做什么", "我(周末|这周末|这个周末|周六)(打算|要|想|准备|计划)(做什么|干什么|干嘛|干啥|做啥)", "(周末|这周末)我(打算|要|想)(做什么|干嘛)", "我周末的(计划|安排)是什么"), "你周末打算{v}", "你周末打算做什么", weight=3),
    "pet": Fact("petname", ("我的{s}叫{v}", "我养了一只{s}，叫{v}", "我(的|家的|家|养的|家养的){s}(叫|名叫|的名字叫|的名字是){v}", "我(养了|有|家有|家里有|养着)(一|)(只|条|个){s}(，|，它|，名字|)叫{v}", "我(有|养了)(一|)(只|条|个)(叫|名叫|叫做){v}的{s}", "{v}是我(的|家的|养的){s}", "我家{s}名字叫{v}"), ("我的{s}叫什么", "我的{s}叫什么名字", "我(的|家的|家|养的|那只|那只叫什么的){s}(叫|名叫)(什么|啥)(名字|)(来着|)", "我(的|家|家的){s}的名字(是|)(什么|啥)", "{s}(叫|名叫)(什么|啥)(名字|)", "(还|你|)记得我(的|家){s}(叫什么|的名字)吗"), "你的{s}叫{v}", "你的{s}叫什么", ("@animal",), 4),
    "relative": Fact("person", ("我{s}叫{v}", "我的{s}叫{v}", "我(的|){s}(叫|是|名叫|的名字是|的名字叫){v}", "我{s}名字叫{v}", "{v}是我(的|){s}"), ("我{s}叫什么", "我的{s}叫什么名字", "我(的|){s}(叫|名叫|是)(什么|啥|谁)(名字|)", "我(的|){s}的名字(是|叫)(什么|啥)", "(还|你|)记得我(的|){s}叫什么吗"), "你的{s}叫{v}", "你的{s}叫什么", _RELATIVES, 4),
    "where": Fact("city", ("{s}住在{v}", "我朋友{s}住在{v}", "{s}(住在|住|家在|在|搬到了){v}", "我(的|)朋友{s}(住在|在|来自){v}", "{s}是{v}人", "{s}来自{v}"), ("{s}住在哪里", "{s}住在哪儿", "{s}(住在|住|家在|在|是)(哪里|哪儿|哪|哪个城市|什么地方|哪里人)", "{s}(来自|搬到了)(哪里|哪儿|哪)"), "{s}住在{v}", "{s}住在哪里", ("@person",), 4),
    "whose": Fact("job", ("{s}的工作是{v}", "{s}的(工作|职业)是{v}", "{s}(是|是一名|是个|当|做){v}", "我(的|)朋友{s}是{v}"), ("{s}的工作是什么", "{s}的(工作|职业)(是|)(什么|啥)", "{s}(是|)(做什么|干什么|干嘛|做啥)(工作|)(的|)"), "{s}的工作是{v}", "{s}的工作是什么", ("@person",), 3),
    "place": Fact("spot", ("我的{s}在{v}", "我把{s}放在{v}了", "我(的|){s}(在|就在|放在|落在|忘在){v}(了|)", "我把{s}(放在|放|放到|搁在|落在|忘在|丢在)(了|){v}(了|)", "{s}(在|放在){v}"), ("我的{s}在哪里", "我的{s}在哪儿", "我把{s}放在哪里了", "我(的|){s}(在|放在|放|落在)(哪里|哪儿|哪|什么地方)(了|)", "我把{s}(放在|放|放到|搁)(了|)(哪里|哪儿|哪|什么地方)(了|)", "{s}(在哪|在哪里|在哪儿|放哪了)", "(还|你|)记得我(的|)(把|){s}(放哪了|在哪)吗"), "你的{s}在{v}", "你的{s}在哪里", _OBJECTS, 5),
    "event": Fact("day", ("我的{s}在{v}", "我(的|){s}(在|是|定在|安排在|时间是){v}", "{v}(是|有)我(的|){s}", "我{v}(有|要)(参加|)(一个|){s}"), ("我的{s}在哪天", "我的{s}在什么时候", "我(的|){s}(在|是|定在|安排在)(哪天|什么时候|几号|哪一天|几月几号)", "我(什么时候|哪天|几号)(有|要)(参加|)(一个|){s}", "{s}(是|在)(什么时候|哪天|几号)"), "你的{s}在{v}", "你的{s}在哪天", _EVENTS, 3),
    "code": Fact("digits", ("我的{s}是{v}", "我(的|){s}(是|为|：|就是|改成了){v}", "{s}(是|：){v}", "记住(，|：|)(我的|){s}(是|：){v}", "{v}是我的{s}"), ("我的{s}是多少", "我的{s}是什么", "我(的|){s}(是|)(多少|什么|几|几号)", "{s}(是|)(多少|什么|几)", "(还|你|)记得(我的|){s}(吗|是多少吗)"), "你的{s}是{v}", "你的{s}是多少", _NUMBERS, 4),
    "task": Fact("clock", ("(今天|明天|后天|周一|)我{v}(要|得|有|去|需要){s}", "我(今天|明天|){v}(要|得|去){s}", "{v}我(要|得)(去|){s}", "{v}(要|有)(一个|){s}"), ("我(今天|明天|)(几点|什么时候|何时)(要|得|去|){s}", "{s}(是|在|)(几点|什么时候)", "(还|你|)记得我几点{s}吗"), "你{v}要{s}", "你几点要{s}", _TASKS, 3),
    "any": Fact("any", ("我的{s}是{v}", "我(的|){s}(是|叫|就是|为){v}", "{v}是我的{s}", "我最喜欢的{s}是{v}"), ("我的{s}是什么", "我(的|){s}(是|叫)(什么|啥)", "我最喜欢的{s}是(什么|啥)", "(还|你|)记得我的{s}(吗|是什么吗)", "我的{s}(呢|来着)"), "你的{s}是{v}", "你的{s}是什么", ("*",), 6),
}  # fmt: skip

_EN = {
    "name": Fact("en.name", ("my name is {v}", "I am {v}", "I'm {v}", "my name's {v}", "(I am|I'm|i am|im|i'm|this is|it is|it's) {v}", "call me {v}", "you can call me {v}", "people call me {v}", "(they|everyone) (call|calls) me {v}", "my name: {v}", "I go by {v}", "{v} is my name", "{v} here"), ("what is my name", "what's my name", "(what is|what's|whats|do you know|do you remember|tell me|can you say) my name", "who am I", "who am i", "what am I called", "what do people call me", "my name"), "your name is {v}", "your name is something", weight=12, reply="Nice to meet you, {v}!"),
    "city": Fact("en.city", ("I live in {v}", "I (am|come|'m) from {v}", "I (stay|work|study|grew up|am) in {v}", "my home is in {v}", "I (just|) moved to {v}", "{v} is (my home|where I live)", "i live in {v}"), ("where do I live", "which city do I live in", "where do (I|i) (live|come from|stay)", "(which|what) (city|town|place) do I live in", "where am I from", "where is my home", "(do you remember|do you know) where I live"), "you live in {v}", "you live in a place", weight=5),
    "job": Fact("en.job", ("I work as {a}", "I am {a}", "I (work|am working) as {a}", "I'm {a}", "my job is {v}", "I (am employed|earn my money) as {a}", "I work at a (bank|school|shop|company) as {a}"), ("what do I work as", "what is my job", "what do I (work as|do|do for work|do for a living)", "what (is|'s) my (job|profession|work)", "(do you remember|do you know) (my job|what I do)", "whats my job"), "you work as {a}", "you work as something", weight=3),
    "hobby": Fact("en.hobby", ("my hobby is {v}", "I (like|love|enjoy) {v}", "my favorite hobby is {v}", "in my free time I (like|enjoy|love) {v}", "I am (into|fond of) {v}", "{v} is my hobby"), ("what is my hobby", "what's my hobby", "(what is|what's|whats) my (hobby|favorite hobby)", "what do I (like|love|enjoy) (doing|to do)", "what do I do in my free time", "(do you remember|do you know) my hobby"), "your hobby is {v}", "your hobby is something", weight=4),
    "food": Fact("en.food", ("my favorite food is {v}", "my (favorite|favourite|fav) (food|dish|meal) is {v}", "I (love|like|enjoy|adore) (eating|to eat) {v}", "{v} is my favorite (food|dish)", "I love {v}", "I really like {v}"), ("what is my favorite food", "what's my favorite food", "(what is|what's|whats) my (favorite|favourite|fav) (food|dish|meal)", "what do I (love|like|enjoy) (to eat|eating)", "(do you remember|do you know) what I like to eat", "what food do I (like|love)"), "your favorite food is {v}", "your favorite food is something", weight=4),
    "colour": Fact("en.colour", ("my favorite color is {v}", "my (favorite|favourite|fav) (color|colour) is {v}", "I (love|like) the color {v}", "{v} is my favorite (color|colour)", "the color that I like best is {v}"), ("what is my favorite color", "what's my favorite color", "(what is|what's|whats) my (favorite|favourite|fav) (color|colour)", "(which|what) (color|colour) do I (like|love|prefer)( best|)"), "your favorite color is {v}", "your favorite color is something"),
    "sport": Fact("en.sport", ("my favorite sport is {v}", "my (favorite|favourite|fav) sport is {v}", "{v} is my favorite sport", "the sport I like (best|most) is {v}"), ("what is my favorite sport", "what's my favorite sport", "(what is|what's|whats) my (favorite|favourite|fav) sport", "(which|what) sport do I (like|love|prefer)( best|)"), "your favorite sport is {v}", "your favorite sport is something"),
    "book": Fact("en.book", ("my favorite book is {v}", "my (favorite|favourite|fav) book is {v}", "I am reading {v}", "{v} is my favorite book", "the book I like best is {v}"), ("what is my favorite book", "what's my favorite book", "(what is|what's|whats) my (favorite|favourite|fav) book", "(which|what) book do I (like|love|prefer)( best|)"), "your favorite book is {v}", "your favorite book is something"),
    "number": Fact("digits", ("my lucky number is {v}", "{v} is my lucky number", "my favorite number is {v}"), ("what is my lucky number", "what's my lucky number", "(what is|what's|whats) my (lucky|favorite) number"), "your lucky number is {v}", "your lucky number is something"),
    "age": Fact("age", ("I am {v} years old", "my age is {v}", "(I'm|im|I am) {v}", "I (just|) turned {v}", "I'm {v} years old", "i am {v} now"), ("how old am I", "what is my age", "(what is|what's|whats) my age", "(do you remember|do you know) how old I am", "how old am i now"), "your age is {v}", "your age is something", weight=4),
    "birthday": Fact("en.date", ("my birthday is on {v}", "my birthday is (on|) {v}", "I was born on {v}", "{v} is my birthday", "my bday is {v}"), ("when is my birthday", "what day is my birthday", "(what|which) day is my birthday", "when was I born", "(do you remember|do you know) my birthday", "(what's|whats) my bday"), "your birthday is on {v}", "your birthday is on a day", weight=3),
    "friend": Fact("en.name", ("my best friend is {v}", "my best friend is called {v}", "my best friend is (called|) {v}", "{v} is my best friend", "my bestie is {v}", "my best friend's name is {v}"), ("who is my best friend", "what is my best friend called", "(what is|what's) my best friend (called|'s name)", "(what's|what is) the name of my best friend"), "your best friend is {v}", "your best friend is someone", weight=3),
    "plan": Fact("en.plan", ("this weekend I will {v}", "this weekend I want to {v}", "this weekend I (will|want to|plan to|am going to|would like to) {v}", "I (will|want to|plan to) {v} this weekend", "my plan for the weekend is to {v}"), ("what will I do this weekend", "what do I want to do this weekend", "what (will I do|do I want to do|do I plan to do|am I going to do) this weekend", "(what is|what's) my plan for the weekend", "(what's|whats) my weekend plan"), "this weekend you want to {v}", "this weekend you want to do something", weight=3),
    "pet": Fact("en.petname", ("my {s} is called {v}", "I have {b} called {v}", "my {s}'s name is {v}", "I have {b} (called|named) {v}", "{v} is my {s}", "I own {b} and (it is called|its name is) {v}", "the name of my {s} is {v}"), ("what is my {s} called", "what is the name of my {s}", "(what is|what's|whats) the name of my {s}", "(what is|what's|whats) my {s}'s name", "(do you remember|do you know) my {s}'s name", "how is my {s} called"), "your {s} is called {v}", "your {s} is called something", ("@en.animal",), 4),
    "relative": Fact("en.name", ("my {s} is called {v}", "my {s}'s name is {v}", "my {s} is {v}", "{v} is my {s}", "the name of my {s} is {v}"), ("what is my {s} called", "what is the name of my {s}", "(what is|what's|whats) the name of my {s}", "(what is|what's|whats) my {s}'s name", "who is my {s}"), "your {s} is called {v}", "your {s} is called something", _RELATIVES_EN, 4),
    "where": Fact("en.city", ("{s} lives in {v}", "my friend {s} lives in {v}", "my friend {s} (lives in|is from) {v}", "{s} (is|comes) from {v}", "{s} moved to {v}"), ("where does {s} live", "which city does {s} live in", "where does {s} (live|come from)", "which (city|town) does {s} live in", "where is {s} from"), "{s} lives in {v}", "{s} lives in a place", ("@en.name",), 4),
    "whose": Fact("en.job", ("{s} works as {a}", "{s} is {a}", "my friend {s} (works as|is) {a}", "the job of {s} is {v}"), ("what does {s} work as", "what does {s} (work as|do|do for a living)", "(what is|what's) {s}'s job", "(what is|what's) the job of {s}"), "{s} works as {a}", "{s} works as something", ("@en.name",), 3),
    "place": Fact("en.spot", ("I put my {s} {v}", "I left my {s} {v}", "I (put|left|placed|forgot|hid) my {s} {v}", "my {s} (is|are|lie|lies) {v}", "the {s} (is|are) {v}"), ("where did I put my {s}", "where did I leave my {s}", "where (did I put|did I leave|did I place|did I hide) my {s}", "where (is|are) my {s}", "(do you remember|do you know) where my {s} (is|are)", "I cannot find my {s}, where is it"), "you put your {s} {v}", "you put your {s} in a place", _OBJECTS_EN, 5),
    "event": Fact("en.date", ("my {s} is on {v}", "the {s} is on {v}", "I have my {s} on {v}", "{v} is (the day of|) my {s}"), ("when is my {s}", "what day is my {s}", "when is (my|the) {s}", "(what|which) day is (my|the) {s}", "when do I have my {s}"), "your {s} is on {v}", "your {s} is on a day", _EVENTS_EN, 3),
    "code": Fact("digits", ("my {s} is {v}", "the {s} is {v}", "my {s}: {v}", "{v} is my {s}", "remember my {s}, it is {v}"), ("what is my {s}", "what's my {s}", "(what is|what's|whats) (my|the) {s}", "(do you remember|do you know|tell me) my {s}"), "your {s} is {v}", "your {s} is something", _NUMBERS_EN, 4),
    "task": Fact("en.clock", ("my {s} (is|starts) at {v}", "I have (a|my) {s} at {v}", "at {v} I have (a|my) {s}", "the {s} (is|starts) at {v}"), ("(what time|when) is (my|the) {s}", "when does (my|the) {s} (start|begin)", "at what time is my {s}"), "your {s} is at {v}", "your {s} is at a time", _TASKS_EN, 3),
    "any": Fact("en.any", ("my {s} is {v}", "my {s} is called {v}", "{v} is my {s}", "my favorite {s} is {v}"), ("what is my {s}", "what's my {s}", "(what is|what's|whats) my {s}", "(what is|what's) my favorite {s}", "(do you remember|do you know|tell me) my {s}"), "your {s} is {v}", "your {s} is something", ("*",), 6),
}  # fmt: skip

_ANY = ("food", "city", "animal", "thing", "colour")
"""Kinds of values for a fact about anything."""
UNTOLD, UNTOLD_EN = "，你还没有告诉我。", " that you have not told me yet."
CONFIRM, CONFIRM_EN = "好的，", "OK, "
CORRECTED, CORRECTED_EN = "明白了，", "I see, "

_TELL_TWO = ("{t}，{u}", "{t}。{u}", "{t}，还有{u}", "{t}，另外{u}", "{t}，而且{u}", "{t} {u}")
_CORRECT = (
    "不对，{t}",
    "说错了，{t}",
    "我记错了，{t}",
    "不是，{t}",
    "更正一下，{t}",
    "错了，{t}",
    "等等，{t}",
    "改一下，{t}",
    "哦不，{t}",
    "应该是{t}",
    "我刚才说错了，{t}",
    "不好意思，{t}",
)
_TOLD_LEADS = (
    "",
    "",
    "",
    "",
    "你好，",
    "你好！",
    "对了，",
    "请记住，",
    "记住：",
    "告诉你，",
    "跟你说，",
    "嗯，",
    "哈喽，",
    "那个，",
    "帮我记一下，",
    "请记一下：",
    "其实",
    "顺便说一下，",
    "你好 ",
    "我跟你说，",
)
_TELL_TWO_EN = ("{t} and {u}", "{t}, and {u}", "{t}. {U}", "{t}, also {u}", "{t}; {u}", "{t}, {u}")
_CORRECT_EN = (
    "No, {t}",
    "Sorry, {t}",
    "I was wrong, {t}",
    "Correction: {t}",
    "Wait, {t}",
    "oops, {t}",
    "no no, {t}",
    "actually {t}",
    "my mistake, {t}",
    "not quite, {t}",
    "I meant {t}",
)
_TOLD_LEADS_EN = (
    "",
    "",
    "",
    "",
    "",
    "Hello, ",
    "Hi, ",
    "Hi! ",
    "By the way, ",
    "Please remember: ",
    "remember that ",
    "hey, ",
    "well, ",
    "just so you know, ",
    "you should know that ",
    "note: ",
    "fyi ",
)

# Remarks that tell no fact, and what is said to them; not greetings, thanks or goodbyes, which are said elsewhere.
SMALL_TALK = (
    (
        ("(今天|今天的|外面|外边)天气(不错|真好|很好|好极了|真不错|挺好)", "(天气|阳光)(真|太|很)好"),
        "是啊，适合出去走走。",
    ),
    (
        (
            "我(有点|好|太|真|真的好|)累(了|啊|死了|)",
            "(好|太|真|累死我)累(啊|了|)(今天|)",
            "(今天|最近|上班)(好|太|真)累(啊|)",
            "累死(我|)了",
            "好困(啊|)",
            "我(好|很|太)困(了|)",
        ),
        "辛苦了，好好休息一下吧。",
    ),
    (("(外面|今天|又|)下(大|小|暴|)雨(了|啦)", "(外面|)(在|正在)下雨"), "出门记得带伞。"),
    (
        (
            "我(今天|现在|)(很|好|真|特别|太)(开心|高兴|快乐|幸福)(了|)",
            "(今天|)心情(真|很|特别)好",
            "(太|好)(开心|高兴|棒)了",
            "我(考试|面试|比赛|)(过了|赢了|考了满分|升职了|加薪了|中奖了|脱单了|毕业了)",
        ),
        "真为你高兴！",
    ),
    (
        (
            "我(有点|很|好|太|真|)(难过|伤心|郁闷|失落|不开心|难受|沮丧)(了|)",
            "我(失恋|分手|失业|挂科|被骂|丢钱包|吵架)了",
            "(今天|)心情(不好|很差|糟糕|低落)",
            "(想哭|我哭了|好难过啊|没人理我|我很孤单|我好孤独)",
        ),
        "别难过，我陪你聊聊。",
    ),
    (
        ("我(好|很|太|有点|)饿(了|啊|死了|)", "(肚子|)(好饿|饿了|饿死了|咕咕叫)", "(还没吃饭|想吃东西|没吃早饭)"),
        "那就去吃点东西吧。",
    ),
    (("(好|太|真|)无聊(啊|了|)", "我(好|很|太|有点)无聊", "(没事干|没意思|闲得慌)"), "那我们聊聊天吧。"),
    (
        ("我(最近|今天|)(很|好|太)忙(了|)", "(最近|今天)(好|太|很)忙(啊|)", "(忙死了|又加班了|作业好多|工作好多)"),
        "再忙也要注意身体。",
    ),
    (("(今天|外面|)(好|太|真)冷(啊|)", "(冻死我了|降温了|下雪了)"), "多穿点衣服，别着凉。"),
    (("(今天|外面|)(好|太|真)热(啊|)", "(热死我了|热死了)"), "多喝水，注意防暑。"),
    (("哈哈(哈|哈哈|)", "(真|太|好)(好笑|搞笑|有意思|逗)(了|)", "(笑死我了|嘻嘻|嘿嘿|hhh|233)"), "看来你心情不错。"),
    (("(周末|假期|国庆|春节)到了", "(终于|要|明天|)放假(了|啦)", "(终于|今天)(周末|周五)了"), "祝你玩得开心！"),
)
SMALL_TALK_EN = (
    (
        (
            "the weather is (nice|lovely|great|good)( today|)",
            "what (a lovely day|nice weather|a nice day)",
            "(lovely|nice) weather( today|)",
        ),
        "Yes, a good day for a walk.",
    ),
    (
        ("(I am|im|I'm) (so |very |a bit |really |)(tired|sleepy|exhausted|worn out)", "(so tired|what a long day)"),
        "Take a good rest.",
    ),
    (
        ("(it is|its|it's) raining( again| today| outside|)", "(rain again|so much rain)"),
        "Do not forget your umbrella.",
    ),
    (
        (
            "(I am|im|I'm) (so |very |really |)(happy|glad|excited)( today|)",
            "(I passed my exam|I got the job|we won|good news|I won|I got promoted|best day ever)",
        ),
        "I am happy for you!",
    ),
    (
        (
            "(I am|im|I'm|I feel) (so |very |really |)(sad|lonely|down|depressed|unhappy|upset)",
            "(I lost my job|I failed my exam|we broke up|bad day|I miss home|nobody likes me)",
        ),
        "I am sorry. Let us talk.",
    ),
    (
        ("(I am|im|I'm) (so |very |really |)(hungry|starving)", "(so hungry|I have not eaten)"),
        "Then have something to eat.",
    ),
    (("(I am|im|I'm|I feel) (so |very |really |)bored", "(so boring|nothing to do)"), "Then let us chat."),
    (("(I am|im|I'm) (so |very |really |)busy( today|)", "(so much work|too much homework)"), "Take care of yourself."),
    (("(it is|its|it's) (so |very |)(cold|freezing)( today|)", "(so cold|it is snowing)"), "Dress warmly."),
    (("(it is|its|it's) (so |very |)hot( today|)", "so hot( today|)"), "Drink enough water."),
    (("(haha|hahaha|lol|hehe|rofl)", "(that is|that's) (so |)(funny|hilarious)"), "You seem to be in a good mood."),
    (
        ("(the weekend is here|finally weekend|it is the weekend|it is friday|holidays are here|finally vacation)",),
        "Have a good time!",
    ),
)

# What people tell of their day, of which nothing is asked later.
_DAYS = ["今天", "昨天", "刚才", "上周", "昨晚", "早上", "下午", "前天", "周末"]
_DID = (
    "(去了|去)[spot](一趟|玩|逛了逛|)",
    "(买了|弄丢了|收到了|想买|卖掉了|修好了)(一个|新的|两个|)[thing]",
    "(吃了|做了|点了|想吃)[food]",
    "(看了|读了)(一本书|一部电影|一场比赛|[book])",
    "(和|跟)(朋友|同事|爸妈|女朋友|同学)(去了[spot]|吃了[food]|吵了一架|聊了很久|见了面)",
    "(学了|练了|试了)(一会儿|一下|)[hobby]",
    "(加班|堵车|迟到|摔了一跤|跑了五公里|做了个梦|睡了一天|剪了头发|打扫了房间|搬家了|换工作了|考试了|写完了作业)",
)
_FEELING = ("，(很|好|特别)(开心|好玩|好吃|有意思|累|贵)", "，(真不错|还行|有点远|人好多|太贵了|下次还去)", "", "", "")
_DAYS_EN = ["today", "yesterday", "last week", "this morning", "last night", "on sunday"]
_DID_EN = (
    "went to (the [spot]|[town]|a party|the gym|the doctor)",
    "(bought|lost|found|sold|fixed) (a new [thing]|my [thing]|some [thing])",
    "(ate|cooked|ordered|tried) [food]",
    "(watched|saw) (a film|a match|a show)",
    "met (a friend|my boss|my cousin|an old friend)",
    "(worked late|slept all day|missed the bus|had a dream|cleaned my room|ran five km|got a haircut|wrote an exam|stayed at home)",
)
_FEELING_EN = (", it was (fun|great|nice|boring|so expensive|tasty)", "", "", " and it was (good|hard|cool)")
NOTED, NOTED_EN = "嗯，我知道了。", "I see, thank you for telling me."


def remark(rng: Random, split: Split, english: bool) -> str:
    """Something that is told of the day."""
    nouns = {
        "spot": ("garden;museum;beach;library;market;zoo;mall;park" if english else "公园;超市;商场;医院;学校;海边;图书馆;动物园;银行;公司").split(";"),
        "town": TOWNS, "thing": THINGS_EN if english else THINGS, "food": FOODS_EN if english else FOODS, "hobby": HOBBIES_EN if english else HOBBIES,
        "book": ["《" + name + "》" for name in ("红楼梦", "三体", "活着", "西游记", "围城")],
    }  # fmt: skip
    did = choose(rng, form(rng, split, _DID_EN if english else _DID))
    feeling = choose(rng, rng.choice(_FEELING_EN if english else _FEELING))
    while "[" in did:
        before, _, rest = did.partition("[")
        kind, _, after = rest.partition("]")
        did = before + rng.choice(nouns[kind]) + after
    if english:
        day = rng.choice(_DAYS_EN)
        text = rng.choice((f"I {did} {day}{feeling}", f"{day} I {did}{feeling}", f"we {did}{feeling}"))
    else:
        who, day = rng.choice(("我", "我", "我", "我们", "我妈", "我朋友", "")), rng.choice(_DAYS)
        text = rng.choice((f"{who}{day}{did}{feeling}", f"{day}{who}{did}{feeling}"))
    return dress(rng, split, text, english, "say", calm=0.7)


_PET = (
    ("我(有|养了|家有|家里有|养着)(一|)(只|条|个)(叫|名叫|叫做){n}的{s}，(它|)(很|最|特别|)(喜欢|爱){l}", "我(有|养了|家有)(一|)(只|条|个){s}(，|，它|)叫{n}，(它|)(很|最|特别|)(喜欢|爱){l}", "我(的|家的){s}叫{n}，(它|)(平时|)(最|特别|)(喜欢|爱){l}", "我家{s}{n}(最|特别|)(喜欢|爱){l}"),
    (("我(的|家的|家|养的){s}(叫|名叫)(什么|啥)(名字|)", "{s}(叫|的名字是)(什么|啥)", "我养的{s}叫什么来着", "我(的|家){s}的名字"), "你的{s}叫{n}"),
    (("{n}(喜欢|爱|最喜欢)(什么|做什么|干什么|干嘛|啥|干啥)", "我(的|家|家的){s}(喜欢|爱|最爱)(什么|做什么|干嘛|啥)", "{n}有什么爱好", "它(喜欢|爱)(什么|做什么|干什么)", "{s}喜欢啥"), "{n}喜欢{l}"),
    "好的，你的{s}叫{n}，它喜欢{l}。",
)  # fmt: skip
_PET_EN = (
    ("I have {b} (called|named) {n} (that|which|and it|and he|and she) (likes|loves|enjoys) {l}", "my {s} is called {n} and (it |)(likes|loves) {l}", "my {s} {n} (likes|loves) {l}", "I own {b}, {n}, who (likes|loves) {l}"),
    (("what is my {s} called", "(what is|what's|whats) (my {s}'s name|the name of my {s})", "how is my {s} called", "(do you remember|tell me) my {s}'s name"), "your {s} is called {n}"),
    (("what does (my {s}|{n}|it) (like|love|enjoy)( to do|)", "what (is|'s) {n} fond of", "tell me what {n} likes", "(do you know|do you remember) what (my {s}|{n}) likes"), "{n} likes {l}"),
    "OK, your {s} is called {n}, and it likes {l}.",
)  # fmt: skip
_MORE_ABOUT = (
    "身高",
    "体重",
    "血型",
    "星座",
    "邮箱",
    "地址",
    "学历",
    "专业",
    "银行卡号",
    "手机号",
    "电话",
    "电脑",
    "车",
    "偶像",
    "缺点",
    "优点",
    "梦想",
    "签名",
    "微信号",
    "生肖",
    "鞋码",
    "国籍",
)
_MORE_ABOUT_EN = (
    "height",
    "weight",
    "blood type",
    "star sign",
    "email",
    "address",
    "phone number",
    "car",
    "idol",
    "school",
    "laptop",
    "hometown",
    "salary",
    "language",
    "shoe size",
    "country",
)


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
    other = kind.removeprefix("en.") if kind.startswith("en.") else f"en.{kind}"
    if other in _SAID_IN_BOTH and rng.random() < 0.08:  # pizza, in Chinese; 小红, in English
        kind = other
    return value(rng, split, kind)


_SAID_IN_BOTH = {
    "en.name",
    "en.city",
    "en.food",
    "en.petname",
    "en.book",
    "en.sport",
    "name",
    "city",
    "food",
    "petname",
}


@dataclass(frozen=True)
class _Told:
    key: str
    fact: Fact
    about: str
    value: str

    def slots(self) -> dict[str, str]:
        return {"v": self.value, "s": self.about, "a": an(self.value), "b": an(self.about)}

    def form(self, template: str) -> str:
        return template.format_map(self.slots())


def sample(rng: Random, split: Split) -> Sample:
    """Two to seven turns, often a greeting first; at least one asks."""
    return persistently(lambda: _Talk(rng, split).sample())


def recap(rng: Random, split: Split) -> Sample:
    """What a conversation keeps of such turns."""
    return persistently(lambda: _Talk(rng, split).recap())


def long_recap(rng: Random, split: Split) -> Sample:
    """Of more than a few sentences: what to go on with after each is all that is hard in a recap."""

    def make() -> Sample:
        talk = _Talk(rng, split)
        talk.tells = (2, 2, 3, 3, 4)
        return talk.recap()

    return persistently(make)


def _of_user(told: str) -> str:
    """What "you" were told, in the third person."""
    told = re.sub(r"\byou put your ", "you put the ", told)
    told = re.sub(r"\byou (live|work|want)\b", r"the user \1s", told)
    return re.sub(r"\byour ", "the user's ", re.sub(r"\byou ", "the user ", told))


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
        self.order: list[tuple[str, str] | str] = []
        """What was told, as it came: keys of what is known, and sentences about animals."""
        self.tells: Sequence[int] = (0, 1, 1, 1, 1, 1, 2, 2, 2, 3)
        """How often the user tells something: one of these."""

    def sample(self) -> Sample:
        rng = self.rng
        start = rng.random()
        if start < 0.4:
            self.say(greeting(rng, self.split, self.english))
        elif start < 0.5:
            self.chat()
        if rng.random() < 0.06:  # who it is, not who the user is
            self.say(ask(rng, self.split, {"name": IDENTITY["name"]}, self.english))
        tells = rng.choice(self.tells)
        for _ in range(tells):
            self.tell()
            if rng.random() < 0.12:
                self.chat()
            if self.known and rng.random() < 0.12:
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

    def recap(self) -> Sample:
        """The prompt with which a conversation shortens what has left its context: all facts, in one sentence each."""
        self.sample()
        before = _Talk(self.rng, self.split)
        before.english, before.facts, before.values = self.english, self.facts, set(self.values)
        old = ""
        if self.rng.random() < 0.5:
            before.tell()
            if before.known.keys() & self.known.keys():
                raise RuntimeError("what was told before is told anew")
            old = before.told_of_user()
        lines = [
            f"{'用户' if m['role'] == 'user' else '助手'}：{' '.join(m['content'].split())}" for m in self.messages
        ]
        prompt = _RECAP.format(most=LONGEST, old=old or "（无）", said="\n".join(lines))
        nothing = "The user and the assistant chatted." if self.english else "用户和助手聊了几句。"
        told = [part for part in (old, self.told_of_user()) if part]
        return Sample("recap", [user(prompt), assistant((" " if self.english else "").join(told) or nothing)])

    def told_of_user(self) -> str:
        """What is known, as it is told to somebody else."""
        told = [
            one if isinstance(one, str) else self.known[one].form(self.known[one].fact.answer) for one in self.order
        ]
        if not self.english:
            return "".join(re.sub("^你", "用户", each) + "。" for each in told)
        return " ".join(upper(_of_user(each)) + "." for each in told)

    def say(self, pair: tuple[str, str]) -> None:
        self.messages += [user(pair[0]), assistant(pair[1])]

    def chat(self) -> None:
        if self.rng.random() < 0.4:
            text = draw(self.rng, self.split, lambda: remark(self.rng, self.split, self.english))
            self.say((text, NOTED_EN if self.english else NOTED))
            return
        remarks, reply = self.rng.choice(SMALL_TALK_EN if self.english else SMALL_TALK)

        def make() -> str:
            core = choose(self.rng, form(self.rng, self.split, remarks))
            return dress(self.rng, self.split, core, self.english, "say", calm=0.6)

        self.say((draw(self.rng, self.split, make), reply))

    def tell(self) -> None:
        rng = self.rng
        if rng.random() < 0.12:
            self.tell_of_pet()
            return
        one = self.fresh()
        confirm = CONFIRM_EN if self.english else CONFIRM
        if rng.random() >= 0.25:
            self.order.append((one.key, one.about))
            stop = "." if self.english else "。"
            self.say((self.saying(("{t}",), one), one.form(one.fact.reply or confirm + one.fact.answer + stop)))
            return
        two = self.fresh()
        if two.key == "name":  # which is told first
            one, two = two, one
        self.order += [(one.key, one.about), (two.key, two.about)]
        text = self.saying(_TELL_TWO_EN if self.english else _TELL_TWO, one, two)
        first, second = one.form(one.fact.answer), two.form(two.fact.answer)
        if one.fact.reply:
            reply = one.form(one.fact.reply) + (f" {upper(second)}." if self.english else f"{second}。")
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

    def tell_of_pet(self) -> None:
        """An animal, its name and what it likes, in one sentence."""
        rng, split, english = self.rng, self.split, self.english
        animal = rng.choice(ANIMALS_EN if english else ANIMALS)
        if any(animal in text or text in animal for text in self.values):
            return
        name, like = (self.new(key, "").value for key in ("pet", "hobby"))
        if not english and rng.random() < 0.5:
            like = rng.choice(
                [
                    "晒太阳",
                    "睡觉",
                    "吃鱼",
                    "玩毛线球",
                    "追蝴蝶",
                    "爬树",
                    "啃骨头",
                    "散步",
                    "打滚",
                    "看窗外",
                    "捉老鼠",
                    "游泳",
                    "玩球",
                    "躲猫猫",
                    "咬拖鞋",
                    "吃胡萝卜",
                ]
            )
        elif english and rng.random() < 0.5:
            like = rng.choice(
                [
                    "sleeping",
                    "the sun",
                    "fish",
                    "long walks",
                    "playing with balls",
                    "climbing trees",
                    "chasing birds",
                    "bones",
                    "carrots",
                    "the rain",
                    "cuddling",
                    "digging",
                ]
            )
        if any(like in text or text in like for text in (*(self.values - {like}), name)):
            return
        self.values |= {animal, like}
        says, named, likes, confirm = _PET_EN if english else _PET

        def fill(text: str) -> str:
            return text.format(s=animal, n=name, l=like, b=an(animal))

        def make() -> str:
            return dress(rng, split, choose(rng, form(rng, split, says)), english, "say", {"s": animal, "n": name, "l": like, "b": an(animal)})  # fmt: skip

        self.say((draw(rng, split, make), fill(confirm)))
        self.order += [fill(named[1]), fill(likes[1])]
        stop = "." if english else "。"
        for asks, reply in rng.sample((named, likes), rng.choice((1, 2, 2))):
            if rng.random() < 0.15:
                self.chat()
            text = draw(rng, split, lambda asks=asks: dress(rng, split, choose(rng, form(rng, split, asks)), english, "ask", {"s": animal, "n": name}))  # type: ignore[misc]  # fmt: skip
            self.say((text, upper(fill(reply)) + stop))

    def answer(self, told: _Told, known: bool) -> None:
        def make() -> str:
            core = choose(self.rng, form(self.rng, self.split, told.fact.asks))
            return dress(self.rng, self.split, core, self.english, "ask", told.slots())

        if known:
            reply = told.form(told.fact.answer) + ("." if self.english else "。")
        else:
            reply = told.form(told.fact.untold) + (UNTOLD_EN if self.english else UNTOLD)
        self.say((draw(self.rng, self.split, make), upper(reply)))

    def saying(self, frames: Sequence[str], one: _Told, two: _Told | None = None) -> str:
        rng, split, english = self.rng, self.split, self.english

        def said(told: _Told) -> str:
            return told.form(choose(rng, form(rng, split, told.fact.says)))

        def make() -> str:
            first, second = said(one), said(two) if two else ""
            if second.startswith("我") and first.startswith("我") and second[1:2] not in "的家把":  # 我叫小明，今年20岁
                second = second[1:] if rng.random() < 0.5 else second
            text = form(rng, split, frames).format(t=first, u=second, U=upper(second))
            text = (
                rng.choice(_TOLD_LEADS_EN if english else _TOLD_LEADS) + text
                if frames not in (_CORRECT, _CORRECT_EN)
                else text
            )
            if english and rng.random() < 0.55:
                text = upper(text)
            return text + rng.choice(
                (".", ".", "", "!", " :)") if english else ("。", "。", "", "", "！", "～", "!", "哦", "。。")
            )

        return draw(rng, split, make)

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
                return rng.choice((*_NOUNS_EN, *_MORE_ABOUT_EN) if self.english else (*_NOUNS, *_MORE_ABOUT))
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
