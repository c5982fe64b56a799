"""Answering from a passage: the answer quotes the sentence that tells it, or says that none does.

A passage is a few cells of a grid of entities and attributes, so that for every question there is the same attribute of
another entity and another attribute of the same entity. A quarter of the grids are of made-up words throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from .base import Sample, Split, assistant, draw, nonsense, user
from .vocabulary import MAKERS, Maker, value, word


@dataclass(frozen=True)
class Attribute:
    """What can be said and asked of an entity; {e} is the entity, {v} the value."""

    kind: str
    says: tuple[str, ...]
    asks: tuple[str, ...]
    reverse: tuple[str, ...] = ()


@dataclass(frozen=True)
class Topic:
    name: Maker
    pronoun: str
    attributes: tuple[Attribute, ...]


def _attributes(text: str) -> tuple[Attribute, ...]:
    """One attribute a line: kind | sentence / … | question / …"""
    lines = [line.split("|") for line in text.strip().splitlines()]
    return tuple(
        Attribute(kind.strip(), tuple(s.strip() for s in says.split("/")), tuple(a.strip() for a in asks.split("/")))
        for kind, says, asks in lines
    )


def _suffixed(*endings: str) -> Maker:
    place = MAKERS["street"]  # for its first part only

    def make(rng: Random) -> str:
        if rng.random() < 0.2:
            return nonsense(rng, rng.randint(2, 3)) + rng.choice(endings)
        return place(rng)[:2] + rng.choice(endings)

    return make


def _prefixed_en(*patterns: str) -> Maker:
    return lambda rng: rng.choice(patterns).format(word(rng, rng.randint(2, 3)).capitalize())


_ZH = (
    Topic(MAKERS["company"], "该公司", _attributes("""
person|{e}的创始人是{v}/{v}创办了{e}/{e}由{v}一手创立|{e}的创始人是谁/谁创办了{e}/{e}是谁创立的/创办{e}的人叫什么
year|{e}成立于{v}/{v}，{e}正式成立/{e}是{v}创立的|{e}是哪一年成立的/{e}什么时候成立/{e}成立于何时/{e}的成立时间是什么
city|{e}的总部设在{v}/{e}总部位于{v}/{e}把总部放在了{v}|{e}的总部在哪里/{e}总部位于哪个城市/{e}的总部设在什么地方/哪座城市是{e}的总部所在地
thing|{e}主要生产{v}/{e}的主要产品是{v}/{e}靠卖{v}起家|{e}生产什么/{e}的主要产品是什么/{e}靠卖什么起家/{e}主要做什么产品
people|{e}有员工{v}/{e}的员工人数是{v}/在{e}上班的员工一共{v}|{e}有多少员工/{e}的员工人数是多少/{e}一共有多少人上班/{e}的员工有几个
person|{e}的现任经理是{v}/{v}现在担任{e}的经理/{e}聘请{v}当经理|{e}的经理是谁/谁是{e}的经理/现在谁担任{e}的经理/{e}聘请谁当经理
phone|{e}的客服电话是{v}/拨打{v}可以联系{e}客服/{e}的客服热线为{v}|{e}的客服电话是多少/怎么打电话联系{e}客服/{e}的客服热线是什么号码/{e}客服的电话号码是多少
""")),
    Topic(MAKERS["person"], "他", _attributes("""
city|{e}出生在{v}/{e}的出生地是{v}/{v}是{e}出生的地方|{e}出生在哪里/{e}的出生地是哪儿/{e}是在什么地方出生的/哪里是{e}的出生地
job|{e}的职业是{v}/{e}是一名{v}/{e}当{v}很多年了|{e}的职业是什么/{e}是做什么工作的/{e}干哪一行/{e}当的是什么
age|{e}今年{v}岁/{e}的年龄是{v}岁/{e}刚满{v}岁|{e}今年多大/{e}几岁了/{e}的年龄是多少/{e}多少岁了
hobby|{e}的爱好是{v}/{e}平时喜欢{v}/{e}一有空就{v}|{e}的爱好是什么/{e}平时喜欢做什么/{e}有什么爱好/{e}一有空就做什么
food|{e}最爱吃{v}/{e}最喜欢的食物是{v}/{v}是{e}最爱吃的东西|{e}最爱吃什么/{e}最喜欢的食物是什么/什么是{e}最爱吃的/{e}爱吃的东西是什么
school|{e}毕业于{v}/{e}是从{v}毕业的/{e}的母校是{v}|{e}毕业于哪所学校/{e}是从哪里毕业的/{e}的母校是哪所/{e}在哪个学校毕业
company|{e}在{v}上班/{e}的工作单位是{v}/{e}受雇于{v}|{e}在哪里上班/{e}的工作单位是哪家/{e}受雇于哪里/{e}在哪家单位上班
cm|{e}身高{v}/{e}的身高是{v}/量下来{e}身高有{v}|{e}的身高是多少/{e}有多高/{e}身高多少/{e}个子多高
""")),
    Topic(MAKERS["code"], "它", _attributes("""
money|{e}的售价是{v}/{e}卖{v}/买一台{e}要花{v}|{e}的售价是多少/{e}卖多少钱/买一台{e}要多少钱/{e}的价格是多少
weight|{e}重{v}/{e}的重量是{v}/{e}称下来有{v}重|{e}有多重/{e}的重量是多少/{e}重多少/{e}称下来多重
colour|{e}的外壳是{v}的/{e}采用{v}外壳/{e}的外壳颜色为{v}|{e}的外壳是什么颜色/{e}采用什么颜色的外壳/{e}外壳的颜色是什么/{e}的外壳是哪种颜色
long|{e}充满电能用{v}/{e}的续航是{v}/{e}一次充电可用{v}|{e}的续航是多久/{e}充满电能用多久/{e}一次充电可以用多长时间/{e}的电池能用多久
days|{e}的保修期是{v}/{e}保修{v}/购买{e}后可保修{v}|{e}的保修期是多久/{e}保修多长时间/{e}能保修几天/购买{e}后保修多久
company|{e}由{v}制造/{e}的生产厂家是{v}/{v}制造了{e}|{e}是哪家制造的/{e}的生产厂家是谁/谁制造了{e}/{e}由谁制造
cm|{e}的宽度是{v}/{e}宽{v}/{e}的机身有{v}宽|{e}有多宽/{e}的宽度是多少/{e}宽多少/{e}的机身多宽
""")),
    Topic(_suffixed("村", "镇", "县", "岛", "市"), "这里", _attributes("""
people|{e}的人口是{v}/{e}住着{v}/{e}共有居民{v}|{e}的人口是多少/{e}住着多少人/{e}有多少居民/{e}的居民有多少
thing|{e}的特产是{v}/{e}盛产{v}/{e}出产的{v}很有名|{e}的特产是什么/{e}盛产什么/{e}出产的什么很有名/{e}有什么特产
km|{e}距离省城{v}/从省城到{e}有{v}/{e}离省城{v}远|{e}距离省城多远/从省城到{e}有多远/{e}离省城有多少公里/{e}到省城的距离是多少
river|{v}从{e}旁边流过/{e}紧邻{v}/{e}靠近{v}|什么河流经{e}/哪条河从{e}旁边流过/{e}紧邻什么水/{e}靠近哪条河
length|{e}的海拔是{v}/{e}海拔{v}/{e}高出海面{v}|{e}的海拔是多少/{e}海拔多高/{e}的海拔有多少/{e}高出海面多少
person|{e}的负责人叫{v}/{v}是{e}的负责人/{e}的负责人由{v}担任|{e}的负责人是谁/谁是{e}的负责人/{e}的负责人叫什么/{e}的负责人由谁担任
weekday|{e}的集市在{v}/{e}{v}有集市/{v}是{e}赶集的日子|{e}的集市在什么时候/{e}哪天有集市/{e}赶集的日子是哪天/{e}什么时候赶集
""")),
    Topic(MAKERS["book"], "这本书", _attributes("""
person|{e}的作者是{v}/{v}写了{e}/{e}是{v}的作品|{e}的作者是谁/谁写了{e}/{e}是谁的作品/{e}是谁写的
year|{e}出版于{v}/{v}，{e}首次出版/{e}是{v}出版的|{e}是哪一年出版的/{e}什么时候出版/{e}出版于何时/{e}的出版时间是什么
pages|{e}一共{v}/{e}全书{v}/{e}的页数是{v}|{e}一共多少页/{e}有几页/{e}的页数是多少/{e}全书有多少页
topic|{e}讲的是{v}/{e}的主题是{v}/{e}写的是关于{v}的故事|{e}讲的是什么/{e}的主题是什么/{e}写的是关于什么的故事/{e}讲了什么
name|{e}的主人公叫{v}/{e}的主角是{v}/{v}是{e}里的主人公|{e}的主人公是谁/{e}的主角叫什么/谁是{e}里的主人公/{e}里的主角是谁
money|{e}的定价是{v}/{e}定价{v}/{e}每本{v}|{e}的定价是多少/{e}定价多少/{e}每本多少钱/{e}一本要多少钱
""")),
    Topic(_suffixed("博物馆", "公园", "美术馆", "古塔", "展览馆"), "这里", _attributes("""
hours|{e}的开放时间是{v}/{e}{v}开放/{e}每天{v}对外开放|{e}的开放时间是什么/{e}几点开放/{e}什么时候开放/{e}每天几点到几点开放
weekday|{e}{v}闭馆/{e}的闭馆日是{v}/{v}，{e}不开门|{e}哪天闭馆/{e}的闭馆日是什么时候/{e}什么时候闭馆/{e}哪天不开门
money|{e}的门票是{v}/{e}门票{v}/进{e}参观要买{v}的门票|{e}的门票多少钱/{e}门票是多少/进{e}参观要多少钱/{e}的票价是多少
street|{e}位于{v}/{e}的地址是{v}/{e}坐落在{v}|{e}位于哪里/{e}的地址是什么/{e}坐落在什么地方/{e}在哪条路上
thing|{e}最有名的展品是{v}/{e}收藏的{v}最有名/{e}的镇馆之宝是{v}|{e}最有名的展品是什么/{e}收藏的什么最有名/{e}的镇馆之宝是什么/{e}有什么有名的展品
year|{e}建于{v}/{v}，{e}建成/{e}是{v}修建的|{e}建于哪一年/{e}是什么时候修建的/{e}哪一年建成/{e}的修建时间是什么
people|{e}每天限{v}入场/{e}的参观名额是每天{v}/{e}一天最多接待{v}|{e}每天限多少人入场/{e}的参观名额是多少/{e}一天最多接待多少人/{e}每天能进多少人
""")),
    Topic(_suffixed("节", "灯会", "庙会", "音乐节", "运动会"), "它", _attributes("""
date|{e}在{v}举行/{e}的日期是{v}/每年{v}是{e}|{e}在哪天举行/{e}的日期是什么/{e}什么时候举行/{e}是几月几日
city|{e}的举办地是{v}/{e}在{v}举办/{v}是{e}的举办地|{e}的举办地是哪里/{e}在哪里举办/哪里是{e}的举办地/{e}在什么地方举办
food|过{e}要吃{v}/{e}的传统食物是{v}/人们在{e}吃{v}|过{e}要吃什么/{e}的传统食物是什么/人们在{e}吃什么/{e}吃什么东西
person|{e}是为了纪念{v}/人们用{e}纪念{v}/{e}纪念的人是{v}|{e}是为了纪念谁/人们用{e}纪念谁/{e}纪念的人是谁/{e}纪念的是哪个人
years|{e}已有{v}的历史/{e}的历史长达{v}/{e}流传了{v}|{e}有多久的历史/{e}的历史有多长/{e}流传了多久/{e}已有多少年的历史
people|去年{e}来了{v}/{e}的参加人数是{v}/参加{e}的有{v}|去年{e}来了多少人/{e}的参加人数是多少/参加{e}的有多少人/有多少人参加{e}
""")),
    Topic(_suffixed("鸟", "鱼", "熊", "蛙", "鹿", "猴"), "它", _attributes("""
food|{e}以{v}为食/{e}主要吃{v}/{e}的食物是{v}|{e}以什么为食/{e}主要吃什么/{e}的食物是什么/{e}吃的是什么
river|{e}生活在{v}边/{e}的栖息地是{v}/{v}一带能见到{e}|{e}生活在哪里/{e}的栖息地是哪里/哪里能见到{e}/{e}栖息在什么地方
long|{e}的寿命是{v}/{e}能活{v}/{e}一般可以活到{v}|{e}的寿命是多久/{e}能活多久/{e}的寿命有多长/{e}一般可以活多长时间
length|{e}的身体长{v}/{e}体长{v}/成年{e}的体长是{v}|{e}的身体有多长/{e}体长多少/成年{e}的体长是多少/{e}长多少
animal|{e}的天敌是{v}/{e}最怕{v}/{v}会捕食{e}|{e}的天敌是什么/{e}最怕什么/什么会捕食{e}/{e}害怕什么动物
colour|{e}的尾巴是{v}的/{e}长着{v}的尾巴/{e}有一条{v}尾巴|{e}的尾巴是什么颜色/{e}长着什么颜色的尾巴/{e}有一条什么颜色的尾巴/{e}尾巴的颜色是什么
""")),
    Topic(_suffixed("课", "班", "讲座"), "这门课", _attributes("""
person|{e}的老师是{v}/{e}由{v}主讲/{v}教{e}|{e}的老师是谁/{e}由谁主讲/谁教{e}/{e}是谁讲的
weekday|{e}安排在{v}/{e}的上课时间是{v}/{e}{v}上课|{e}安排在什么时候/{e}的上课时间是哪天/{e}什么时候上课/{e}哪天上课
room|{e}在{v}上/{e}的教室是{v}/{e}的上课地点在{v}|{e}在哪里上/{e}的教室是哪间/{e}的上课地点在哪儿/{e}在哪间教室
number|{e}有{v}个学分/{e}的学分是{v}分/选{e}可得{v}个学分|{e}有几个学分/{e}的学分是多少/选{e}可得多少学分/{e}能拿几个学分
book|{e}的教材是{v}/{e}用{v}作教材/{e}采用的课本是{v}|{e}的教材是什么/{e}用什么作教材/{e}采用的课本是哪本/{e}用哪本书
few|{e}限报{v}/{e}的名额是{v}/{e}只招{v}|{e}限报多少人/{e}的名额是多少/{e}只招多少人/{e}有多少名额
money|{e}的学费是{v}/{e}收学费{v}/报{e}要交{v}学费|{e}的学费是多少/{e}收多少学费/报{e}要交多少钱/{e}学费多少
""")),
    Topic(_suffixed("图书馆", "学校", "办公室", "阅览室"), "这里", _attributes("""
days|{e}规定借期为{v}/在{e}借书要在{v}内归还/{e}的借书期限是{v}|{e}的借书期限是多久/在{e}借书要在几天内归还/{e}规定的借期是多长/{e}的书可以借多少天
number|{e}每人最多借{v}本书/{e}的借书上限是{v}本/在{e}一次可以借{v}本书|{e}每人最多借几本书/{e}的借书上限是多少/在{e}一次可以借多少本书/{e}能借几本
money|{e}规定迟到罚款{v}/{e}的迟到罚款是{v}/在{e}迟到一次要罚{v}|{e}迟到罚款多少/{e}的迟到罚款是多少/在{e}迟到一次要罚多少钱/{e}规定迟到罚多少
person|在{e}请假要找{v}/{e}的请假由{v}批准/{v}负责{e}的请假|在{e}请假要找谁/{e}的请假由谁批准/谁负责{e}的请假/{e}请假找哪位
code|{e}的无线网密码是{v}/{e}的WiFi密码为{v}/连{e}的无线网要输入密码{v}|{e}的无线网密码是什么/{e}的WiFi密码是多少/连{e}的无线网要输入什么密码/{e}的网络密码是什么
clock|{e}{v}开门/{e}的开门时间是{v}/{v}，{e}准时开门|{e}几点开门/{e}的开门时间是几点/{e}什么时候开门/{e}早上几点开门
spot|{e}的打印机在窗台{v}/{e}把打印机放在{v}/打印机放在{e}的{v}|{e}的打印机在哪里/{e}把打印机放在哪儿/{e}的打印机放在什么地方/在{e}哪里可以找到打印机
days|{e}的报销要在{v}内办完/{e}规定{v}内报销/在{e}报销的期限是{v}|{e}的报销要在多久内办完/{e}规定几天内报销/在{e}报销的期限是多少/{e}的报销期限是多长
""".replace("在窗台{v}", "在{v}"))),
    Topic(_suffixed("餐厅", "饭店", "面馆", "茶馆", "商店"), "这家店", _attributes("""
food|{e}的招牌是{v}/{e}最拿手的是{v}/{v}是{e}的招牌|{e}的招牌是什么/{e}最拿手的是什么/什么是{e}的招牌/{e}有什么招牌
hours|{e}的营业时间是{v}/{e}{v}营业/{e}每天{v}接待客人|{e}的营业时间是什么/{e}几点营业/{e}什么时候营业/{e}每天几点到几点接待客人
phone|{e}的订座电话是{v}/{e}订座请拨{v}/预订{e}请打{v}|{e}的订座电话是多少/{e}订座拨什么号码/预订{e}打什么电话/怎么打电话预订{e}
money|{e}人均消费{v}/在{e}吃一顿大约{v}/{e}的人均价格是{v}|{e}人均消费多少/在{e}吃一顿大约多少钱/{e}的人均价格是多少/{e}人均要多少钱
street|{e}开在{v}/{e}的店址是{v}/{e}的门面在{v}|{e}开在哪里/{e}的店址是什么/{e}的门面在哪儿/{e}开在什么地方
person|{e}的老板叫{v}/{v}是{e}的老板/{e}的店主是{v}|{e}的老板是谁/谁是{e}的老板/{e}的老板叫什么/{e}的店主是哪位
few|{e}能坐{v}/{e}的座位够{v}坐/{e}最多容纳{v}|{e}能坐多少人/{e}的座位够多少人坐/{e}最多容纳多少人/{e}坐得下几个人
""")),
    Topic(_suffixed("汤", "饼", "糕", "面", "粥"), "它", _attributes("""
ingredient|{e}的主料是{v}/做{e}主要用{v}/{e}用{v}做成|{e}的主料是什么/做{e}主要用什么/{e}用什么做成/{e}的主要原料是什么
minutes|{e}要煮{v}/做{e}需要{v}/{e}的烹饪时间是{v}|{e}要煮多久/做{e}需要多长时间/{e}的烹饪时间是多少/{e}要做几分钟
grams|{e}要放糖{v}/做{e}时加{v}糖/{e}里的糖是{v}|{e}要放多少糖/做{e}时加多少糖/{e}里的糖是多少/{e}放几克糖
few|一份{e}够{v}吃/{e}的分量供{v}吃/做好的{e}可供{v}食用|一份{e}够几个人吃/{e}的分量是多少/做好的{e}可供多少人食用/{e}够多少人吃
city|{e}起源于{v}/{e}的发源地是{v}/{v}是{e}的老家|{e}起源于哪里/{e}的发源地是哪里/哪里是{e}的老家/{e}是从什么地方来的
colour|做好的{e}是{v}的/{e}的颜色是{v}/{e}出锅时呈{v}|做好的{e}是什么颜色/{e}的颜色是什么/{e}出锅时呈什么颜色/{e}看上去是什么颜色
""")),
    Topic(lambda rng: rng.choice("GDKTZ") + str(rng.randint(1, 9999)) + rng.choice(("次列车", "次航班", "路公交")), "它", _attributes("""
clock|{e}{v}出发/{e}的出发时间是{v}/{v}，{e}准时出发|{e}几点出发/{e}的出发时间是几点/{e}什么时候出发/{e}的发车时间是几点
city|{e}的终点是{v}/{e}开往{v}/{e}最后到达{v}|{e}的终点是哪里/{e}开往哪里/{e}最后到达哪儿/{e}的终点站是什么地方
minutes|{e}全程{v}/{e}的运行时间是{v}/坐{e}要花{v}|{e}全程多长时间/{e}的运行时间是多久/坐{e}要花多久/{e}要开几分钟
money|{e}的票价是{v}/坐{e}要{v}/{e}的车票卖{v}|{e}的票价是多少/坐{e}要多少钱/{e}的车票卖多少/{e}的票多少钱
number|{e}停在{v}号站台/{e}的站台号是{v}号/{e}从{v}号站台上车|{e}停在几号站台/{e}的站台号是多少/{e}从哪个站台上车/{e}在几号站台
person|{e}的司机是{v}/{v}负责驾驶{e}/{e}由{v}驾驶|{e}的司机是谁/谁负责驾驶{e}/{e}由谁驾驶/{e}是谁开的
""")),
    Topic(lambda rng: word(rng, 2).capitalize(), "该软件", _attributes("""
version|{e}的最新版本是{v}版/{e}已经更新到{v}版/{e}目前是{v}版|{e}的最新版本是什么/{e}已经更新到哪个版本/{e}目前是哪一版/{e}的版本号是多少
language|{e}是用{v}写的/{e}的编程语言是{v}/{e}采用{v}开发|{e}是用什么语言写的/{e}的编程语言是什么/{e}采用什么语言开发/{e}用哪种语言写成
person|{e}的开发者是{v}/{v}开发了{e}/{e}出自{v}之手|{e}的开发者是谁/谁开发了{e}/{e}出自谁之手/{e}是谁开发的
figure|{e}的默认端口是{v}/{e}默认监听{v}端口/{e}使用端口{v}|{e}的默认端口是多少/{e}默认监听哪个端口/{e}使用什么端口/{e}用的端口号是多少
code|{e}的默认密码是{v}/{e}初始密码为{v}/首次登录{e}要用密码{v}|{e}的默认密码是什么/{e}初始密码是多少/首次登录{e}要用什么密码/{e}的登录密码是什么
weekday|{e}的备份时间是{v}/{e}{v}自动备份/{v}，{e}会做备份|{e}的备份时间是什么时候/{e}哪天自动备份/{e}什么时候做备份/{e}何时备份
""")),
    Topic(_suffixed("花", "树", "草", "藤"), "它", _attributes("""
length|{e}能长到{v}高/{e}的高度是{v}/长成的{e}高{v}|{e}能长到多高/{e}的高度是多少/长成的{e}有多高/{e}有多高
month|{e}在{v}开放/{e}的花期从{v}开始/每到{v}，{e}就开了|{e}在什么时候开放/{e}的花期从几月开始/{e}几月开花/{e}什么时候开花
days|{e}每{v}浇一次水/{e}的浇水间隔是{v}/养{e}要隔{v}浇水|{e}多少天浇一次水/{e}的浇水间隔是多久/养{e}要隔几天浇水/{e}隔多久浇一次水
colour|{e}的叶子是{v}的/{e}长着{v}叶子/{e}有{v}的叶片|{e}的叶子是什么颜色/{e}长着什么颜色的叶子/{e}的叶片是什么颜色/{e}叶子的颜色是什么
topic|{e}的花语是{v}/{e}象征{v}/人们用{e}表示{v}|{e}的花语是什么/{e}象征什么/人们用{e}表示什么/{e}代表什么意思
""")),
    Topic(_suffixed("项目", "计划", "会议", "工程"), "它", _attributes("""
person|{e}的负责人是{v}/{e}由{v}负责/{v}负责{e}|{e}的负责人是谁/{e}由谁负责/谁负责{e}/{e}的事找谁
money|{e}的预算是{v}/{e}的经费有{v}/批给{e}的经费是{v}|{e}的预算是多少/{e}的经费有多少/批给{e}的经费是多少/{e}有多少预算
date|{e}的截止日期是{v}/{e}要在{v}前完成/{e}最晚{v}结束|{e}的截止日期是什么/{e}要在哪天前完成/{e}最晚什么时候结束/{e}什么时候截止
room|{e}的地点在{v}/{e}在{v}召开/{e}安排在{v}进行|{e}的地点在哪里/{e}在哪儿召开/{e}安排在什么地方进行/{e}在哪里进行
few|{e}的成员有{v}/{e}共{v}参加/参与{e}的一共{v}|{e}的成员有多少/{e}共多少人参加/参与{e}的一共几个人/{e}有多少成员
code|{e}的编号是{v}/{e}编号为{v}/{e}登记的号码是{v}|{e}的编号是多少/{e}编号是什么/{e}登记的号码是什么/{e}的编号是什么
""")),
)  # fmt: skip

_EN = (
    Topic(MAKERS["en.company"], "It", _attributes("""
en.name|{e} was founded by {v}/{v} founded {e}/The founder of {e} is {v}|Who founded {e}/Who is the founder of {e}/Who was {e} founded by/By whom was {e} founded
en.year|{e} was founded in {v}/{e} began in {v}/In {v}, {e} was founded|When was {e} founded/In which year did {e} begin/In what year was {e} founded/What year did {e} begin
en.city|The head office of {e} is in {v}/{e} has its head office in {v}/{e} has its main office in {v}|Where is the head office of {e}/Where does {e} have its head office/In which city is the office of {e}/Where is the main office of {e}
en.thing|{e} makes {v}/{e} sells {v}/The main product of {e} is {v}|What does {e} make/What does {e} sell/What is the main product of {e}/What is the product of {e}
en.people|{e} employs {v}/{v} work at {e}/The staff of {e} is {v}|How many people does {e} employ/How many people work at {e}/How big is the staff of {e}/How many people are on the staff of {e}
""")),
    Topic(MAKERS["en.name"], "This person", _attributes("""
en.city|{e} was born in {v}/{v} is where {e} was born/The birthplace of {e} is {v}|Where was {e} born/What is the birthplace of {e}/In which city was {e} born/In what place was {e} born
en.job|{e} works as a {v}/The job of {e} is {v}/{e} earns a living as a {v}|What is the job of {e}/What does {e} work as/What is {e}'s job/How does {e} earn a living
age|{e} is {v} years old/{e} has just turned {v}/The age of {e} is {v}|How old is {e}/What is the age of {e}/What is {e}'s age/How many years old is {e}
en.hobby|The hobby of {e} is {v}/{e}'s hobby is {v}/In the free hours {e} enjoys {v}|What is the hobby of {e}/What is {e}'s hobby/What does {e} enjoy/What hobby does {e} have
en.food|{e} likes to eat {v}/The favorite food of {e} is {v}/{e}'s favorite food is {v}|What does {e} like to eat/What is the favorite food of {e}/What is {e}'s favorite food/Which food does {e} like
en.school|{e} studied at {v}/{e} went to {v}/The school of {e} was {v}|Where did {e} study/Which school did {e} go to/What was the school of {e}/At which school did {e} study
""")),
    Topic(lambda rng: word(rng, 2).capitalize() + " " + str(rng.randint(2, 900)), "It", _attributes("""
en.money|{e} costs {v}/The price of {e} is {v}/{e} sells for {v}|How much does {e} cost/What is the price of {e}/What does {e} cost/How much does {e} sell for
en.weight|{e} weighs {v}/The weight of {e} is {v}/{e} has a weight of {v}|How much does {e} weigh/What is the weight of {e}/What does {e} weigh/How heavy is {e}
en.colour|{e} comes in {v}/The color of {e} is {v}/{e} is painted {v}|What color does {e} come in/What is the color of {e}/What color is {e}/What color is {e} painted
en.long|The battery of {e} lasts {v}/{e} has a battery that lasts {v}/On one charge {e} lasts {v}|How long does the battery of {e} last/How long does {e} last on one charge/How long does {e} last/What is the battery life of {e}
en.company|{e} is made by {v}/{v} makes {e}/The maker of {e} is {v}|Who makes {e}/Who is the maker of {e}/Which company makes {e}/Who is {e} made by
""")),
    Topic(_prefixed_en("{}", "{} Village", "Port {}", "New {}"), "It", _attributes("""
en.people|The population of {e} is {v}/{v} live in {e}/{e} is home to {v}|What is the population of {e}/How many people live in {e}/How many people is {e} home to/How big is the population of {e}
en.thing|{e} is famous for {v}/{e} is known for its {v}/People come to {e} for {v}|What is {e} famous for/What is {e} known for/What do people come to {e} for/Why do people come to {e}
en.km|{e} is {v} from the capital/The distance from the capital to {e} is {v}/From {e} to the capital it is {v}|How far is {e} from the capital/What is the distance from the capital to {e}/How far is it from {e} to the capital/What is the distance of {e} from the capital
en.river|{e} lies on {v}/{e} is next to {v}/{v} flows past {e}|Which river does {e} lie on/What water is {e} next to/What flows past {e}/On which water does {e} lie
en.name|The mayor of {e} is {v}/{v} is mayor of {e}/{e} has a mayor called {v}|Who is the mayor of {e}/What is the mayor of {e} called/Who is mayor of {e}/What is the name of the mayor of {e}
""")),
    Topic(MAKERS["en.book"], "This book", _attributes("""
en.name|{e} was written by {v}/{v} wrote {e}/The author of {e} is {v}|Who wrote {e}/Who is the author of {e}/Who was {e} written by/What is the name of the author of {e}
en.year|{e} was published in {v}/{e} came out in {v}/In {v}, {e} was published|When was {e} published/When did {e} come out/In which year was {e} published/What year did {e} come out
en.pages|{e} has {v}/{e} is {v} long/The length of {e} is {v}|How many pages does {e} have/How long is {e}/What is the length of {e}/How many pages are in {e}
en.topic|{e} is about {v}/The subject of {e} is {v}/{e} tells a story of {v}|What is {e} about/What is the subject of {e}/What does {e} tell a story of/What subject is {e} about
en.name|The hero of {e} is {v}/{v} is the hero of {e}/{e} has a hero called {v}|Who is the hero of {e}/What is the hero of {e} called/Which hero does {e} have/What is the name of the hero of {e}
""")),
    Topic(_prefixed_en("{} Museum", "{} Park", "{} Gallery", "{} Castle"), "It", _attributes("""
en.hours|{e} is open from {v}/The opening hours of {e} are {v}/Visitors can enter {e} from {v}|When is {e} open/What are the opening hours of {e}/When can visitors enter {e}/From when to when is {e} open
en.weekday|{e} is closed on {v}/On {v}, {e} stays closed/{e} closes every {v}|When is {e} closed/On which day does {e} stay closed/On what day is {e} closed/When does {e} stay closed
en.money|A ticket for {e} costs {v}/The ticket price of {e} is {v}/Entering {e} costs {v}|How much is a ticket for {e}/What is the ticket price of {e}/How much does entering {e} cost/What does a ticket for {e} cost
en.street|{e} is at {v}/The address of {e} is {v}/{e} stands at {v}|What is the address of {e}/Where is {e}/Where does {e} stand/At what address is {e}
en.year|{e} was built in {v}/In {v}, {e} was built/The building of {e} dates from {v}|When was {e} built/In which year was {e} built/From when does the building of {e} date/What year was {e} built
""")),
    Topic(_prefixed_en("{} Festival", "{} Day", "{} Fair"), "It", _attributes("""
en.date|{e} is on {v}/{e} takes place on {v}/The date of {e} is {v}|When is {e}/When does {e} take place/What is the date of {e}/On which date is {e}
en.city|{e} is held in {v}/The host of {e} is {v}/{v} is the city that hosts {e}|Where is {e} held/In which city is {e} held/Which city hosts {e}/Which place is the host of {e}
en.food|People eat {v} at {e}/The food of {e} is {v}/At {e}, everyone eats {v}|What do people eat at {e}/What is the food of {e}/What does everyone eat at {e}/Which food do people eat at {e}
en.people|{v} came to {e} last year/{e} had {v} last year/Last year, {v} joined {e}|How many people came to {e} last year/How many people joined {e}/How many people did {e} have last year/How many people came to {e}
""")),
    Topic(lambda rng: "the " + word(rng, 2) + rng.choice((" bird", " fish", " bear", " frog", " deer")), "It", _attributes("""
en.food|{e} eats {v}/The food of {e} is {v}/{e} feeds on {v}|What does {e} eat/What is the food of {e}/What does {e} feed on/On what does {e} feed
en.river|{e} lives near {v}/The home of {e} is {v}/{e} is found near {v}|Where does {e} live/What is the home of {e}/Where is {e} found/Near what does {e} live
en.long|{e} lives for {v}/{e} can reach an age of {v}/The life of {e} lasts {v}|How long does {e} live/What age can {e} reach/How long does the life of {e} last/For how long does {e} live
en.length|{e} grows to {v}/The length of {e} is {v}/{e} is {v} long|How long is {e}/What is the length of {e}/How long does {e} grow/To what length does {e} grow
en.animal|The enemy of {e} is the {v}/{e} is hunted by the {v}/{e} fears the {v}|What is the enemy of {e}/What is {e} hunted by/What does {e} fear/Which animal does {e} fear
""")),
    Topic(lambda rng: word(rng, 2).capitalize() + rng.choice((" class", " course", " workshop")), "It", _attributes("""
en.name|The teacher of {e} is {v}/{e} is taught by {v}/{v} teaches {e}|Who is the teacher of {e}/Who teaches {e}/Who is {e} taught by/By whom is {e} taught
en.weekday|{e} meets on {v}/The day of {e} is {v}/{e} takes place on {v}|When does {e} meet/What is the day of {e}/When does {e} take place/On which day does {e} meet
en.room|{e} is held in {v}/The room of {e} is {v}/Go to {v} for {e}|Where is {e} held/What is the room of {e}/Where do I go for {e}/In which room is {e} held
number|{e} gives {v} credits/You get {v} credits for {e}/The credits for {e} are {v}|How many credits does {e} give/How many credits do I get for {e}/How many credits are there for {e}/What are the credits for {e}
en.money|The fee for {e} is {v}/{e} costs {v}/You pay {v} for {e}|What is the fee for {e}/How much does {e} cost/How much do I pay for {e}/What does {e} cost
""")),
    Topic(_prefixed_en("{} Library", "{} School", "{} Office"), "It", _attributes("""
en.days|At {e}, books must be returned within {v}/{e} lends books for {v}/The loan period of {e} is {v}|How long does {e} lend books/What is the loan period of {e}/When must books be returned at {e}/For how long can books be kept at {e}
number|{e} lends at most {v} books/The limit of {e} is {v} books/You may borrow {v} books from {e}|How many books does {e} lend/What is the limit of {e}/How many books may I borrow from {e}/How many books can I borrow from {e}
en.money|Being late at {e} costs {v}/The late fee of {e} is {v}/{e} charges a late fee of {v}|What does being late at {e} cost/What is the late fee of {e}/Which late fee does {e} charge/How much is the late fee at {e}
en.code|The WiFi password of {e} is {v}/{e} has the WiFi password {v}/Use the password {v} for the WiFi of {e}|What is the WiFi password of {e}/Which WiFi password does {e} have/Which password is used for the WiFi of {e}/What password does the WiFi of {e} have
en.clock|{e} opens its doors at {v}/The doors of {e} open at {v}/At {v}, {e} opens|When does {e} open its doors/When do the doors of {e} open/When does {e} open/At what time does {e} open
""")),
    Topic(_prefixed_en("{} Cafe", "{} Kitchen", "{} House", "{} Bar"), "It", _attributes("""
en.food|The special of {e} is {v}/{e} is best at {v}/{e} has {v} as its special|What is the special of {e}/What is {e} best at/Which special does {e} have/What does {e} have as its special
phone|The phone number of {e} is {v}/To call {e}, dial {v}/{e} has the phone number {v}|What is the phone number of {e}/How can I call {e}/Which phone number does {e} have/Which number do I dial to call {e}
en.money|A meal at {e} costs {v}/The price of a meal at {e} is {v}/{e} serves a meal for {v}|How much is a meal at {e}/What does a meal at {e} cost/What is the price of a meal at {e}/For how much does {e} serve a meal
en.name|The owner of {e} is {v}/{v} owns {e}/{e} belongs to {v}|Who is the owner of {e}/Who owns {e}/Who does {e} belong to/What is the name of the owner of {e}
en.few|{e} has seats for {v}/The seats of {e} are enough for {v}/{v} can sit in {e}|How many seats does {e} have/How many people can sit in {e}/For how many people does {e} have seats/How many people are the seats of {e} enough for
""")),
    Topic(lambda rng: rng.choice(("Train ", "Flight ", "Bus ")) + rng.choice("ABCDKXZ") + str(rng.randint(1, 999)), "It", _attributes("""
en.clock|{e} leaves at {v}/The departure of {e} is at {v}/At {v}, {e} departs|When does {e} leave/When is the departure of {e}/At what time does {e} depart/What time does {e} leave
en.city|{e} goes to {v}/The last stop of {e} is {v}/{e} ends in {v}|Where does {e} go/What is the last stop of {e}/Where does {e} end/To which city does {e} go
en.minutes|{e} takes {v}/The trip with {e} lasts {v}/{e} is on the way for {v}|How long does {e} take/How long does the trip with {e} last/How long is {e} on the way/How many minutes does {e} take
number|{e} uses platform {v}/The platform of {e} is {v}/{e} waits at platform {v}|Which platform does {e} use/What is the platform of {e}/At which platform does {e} wait/Which platform is {e} at
""")),
    Topic(lambda rng: word(rng, 2).capitalize(), "It", _attributes("""
version|The latest version of {e} is {v}/{e} is now at version {v}/{e} has reached version {v}|What is the latest version of {e}/Which version is {e} at/Which version has {e} reached/What version of {e} is the latest
en.language|{e} is written in {v}/The language of {e} is {v}/{e} was built with {v}|What is {e} written in/What is the language of {e}/What was {e} built with/Which language is {e} written in
en.name|The developer of {e} is {v}/{v} developed {e}/{e} was developed by {v}|Who is the developer of {e}/Who developed {e}/Who was {e} developed by/By whom was {e} developed
figure|{e} listens on port {v}/The port of {e} is {v}/{e} uses port {v}|Which port does {e} listen on/What is the port of {e}/Which port does {e} use/On which port does {e} listen
""")),
    Topic(lambda rng: "Project " + word(rng, 2).capitalize(), "It", _attributes("""
en.name|The leader of {e} is {v}/{e} is led by {v}/{v} leads {e}|Who is the leader of {e}/Who leads {e}/Who is {e} led by/By whom is {e} led
en.money|The budget of {e} is {v}/{e} has a budget of {v}/{v} were granted to {e}|What is the budget of {e}/How big is the budget of {e}/How much was granted to {e}/Which budget does {e} have
en.date|{e} must be finished by {v}/The deadline of {e} is {v}/{e} ends on {v}|When must {e} be finished/What is the deadline of {e}/When does {e} end/By when must {e} be finished
en.few|{e} has a team of {v}/The team of {e} is {v}/{v} take part in {e}|How big is the team of {e}/How many people take part in {e}/How many people are in the team of {e}/How many people does the team of {e} have
""")),
)  # fmt: skip

ATTRIBUTE_KINDS = sum(len(topic.attributes) for topic in _ZH), sum(len(topic.attributes) for topic in _EN)
"""How many attributes there are in Chinese and in English."""

_FRAMES_ASK = (
    "{}？", "{}？", "{}？", "{}?", "{}", "请问{}？", "请问，{}？", "我想知道{}。", "想请教一下，{}？", "{}呢？", "麻烦看看{}。",
    "告诉我{}。", "你能告诉我{}吗？", "帮我查查{}。", "问一下，{}？", "你知道{}吗？", "我的问题是：{}？", "说说{}。",
)  # fmt: skip
_FRAMES_ASK_EN = (
    "{}?", "{}?", "{}?", "{}", "Please tell me: {}?", "Quick question: {}?", "I wonder, {}?", "Tell me, {}?", "Hey, {}?",
    "My question: {}?", "One more thing, {}?", "Excuse me, {}?", "{}, please?", "Can you help? {}?",
)  # fmt: skip
_FRAMES_THEN = (
    "{}",
    "{}",
    "那{}",
    "还有，{}",
    "再问一个：{}",
    "另外，{}",
    "接着问：{}",
    "好的。{}",
    "谢谢！{}",
    "对了，{}",
)
_FRAMES_THEN_EN = ("{}", "{}", "And {}", "Also: {}", "Next question: {}", "Thanks! {}", "OK. {}", "Another one: {}")

_FREE = (
    "阅读下面的材料，回答问题。\n材料：{c}\n问题：{q}", "根据以下内容回答：{q}\n{c}", "{c}\n\n{q}", "{q}\n\n{c}", "{c}\n根据上文，{q}",
    "请先读这段话：{c}\n{q}", "材料：{c}\n\n问题：{q}", "问题：{q}\n材料：{c}", "“{c}”\n请根据这段文字回答：{q}", "看材料回答问题。\n{c}\n{q}",
    "下面是一段文字。\n{c}\n\n请回答：{q}", "我有一个问题：{q}\n请在下面的文字里找答案。\n{c}", "文章：\n{c}\n提问：\n{q}", "【材料】{c}\n【问题】{q}",
    "请依据材料作答，不要编造。\n{c}\n{q}", "背景：{c}\n{q}",
)  # fmt: skip
_FREE_EN = (
    "Read the text and answer.\n{c}\nQuestion: {q}", "Text: {c}\n\nQuestion: {q}", "{c}\n\n{q}", "{q}\n\n{c}",
    "Answer the question from the text below.\n{q}\n{c}", "Here is a passage: {c}\n{q}", "Question: {q}\nText: {c}",
    "Use only this text: {c}\n{q}", "Passage:\n{c}\nQuestion:\n{q}", "Context: {c}\n{q}", '"{c}"\n\nAccording to this: {q}',
    "I read this: {c}\nMy question is: {q}", "Please read.\n{c}\nNow answer: {q}", "{c}\nBased on the above: {q}",
)  # fmt: skip
KNOWLEDGE_BASE = (
    "已知信息：\n{c} \n\n根据上述已知信息，简洁和专业的来回答用户的问题。如果无法从中得到答案，请说 “根据已知信息无法回答该问题” "
    "或 “没有提供足够的相关信息”，不允许在答案中添加编造成分，答案请使用中文。 问题是：{q}"
)
SOURCES = "参考资料：\n{c}\n\n请根据参考资料回答问题，并标出引用的编号。\n问题：{q}"
SOURCES_EN = "References:\n{c}\n\nAnswer the question from the references and give the number of the one you quote.\nQuestion: {q}"

_FILLERS = (
    "大家都说这里值得了解。", "消息是昨天公布的。", "更多情况以后再说。", "这些都是公开的资料。", "以上内容仅供参考。", "这件事很多人关心。",
    "记者走访了当地。", "有关介绍如下。", "详细情况可以打听。",
)  # fmt: skip
_FILLERS_EN = (
    "Many people ask about this.", "More will be told later.", "The news came out yesterday.", "All of this is public.",
    "It is worth a visit.", "Some details may change.",
)  # fmt: skip

_MADE_SAYS = (
    ("{e}的@是{v}", "{e}的@叫{v}", "要说{e}的@，那就是{v}"), ("{e}@了{v}", "听说{e}@了{v}", "后来，{e}@了{v}"),
    ("{e}的@在{v}", "{e}把@放在{v}", "{e}的@位于{v}"), ("{e}以{v}为@", "{e}把{v}当作@", "{v}是{e}的@"),
)  # fmt: skip
_MADE_ASKS = (
    ("{e}的@是什么", "{e}的@叫什么", "什么是{e}的@", "哪个是{e}的@"), ("{e}@了什么", "{e}@了哪个", "什么被{e}@了", "{e}@的是什么"),
    ("{e}的@在哪里", "{e}把@放在哪儿", "{e}的@位于什么地方", "哪里有{e}的@"), ("{e}以什么为@", "{e}把什么当作@", "什么是{e}的@", "{e}的@是什么"),
)  # fmt: skip
_MADE_BACK = ("谁的@是{v}", "什么东西的@是{v}"), ("谁@了{v}",), ("谁的@在{v}",), ("谁以{v}为@", "谁把{v}当作@")
_MADE_SAYS_EN = (
    ("The @ of {e} is {v}", "{e}'s @ is {v}", "{v} is the @ of {e}"), ("{e} can @ {v}", "{e} will @ {v}", "Today {e} can @ {v}"),
    ("{e} has the @ in {v}", "The @ of {e} is in {v}", "{e}'s @ is in {v}"),
)  # fmt: skip
_MADE_ASKS_EN = (
    ("What is the @ of {e}", "What is {e}'s @", "Which is the @ of {e}", "What is called the @ of {e}"),
    ("What can {e} @", "What will {e} @", "What does {e} @", "Which thing can {e} @"),
    ("Where is the @ of {e}", "Where is {e}'s @", "Where does {e} have the @", "In what is the @ of {e}"),
)  # fmt: skip
_MADE_BACK_EN = ("Whose @ is {v}",), ("Who can @ {v}",), ("Whose @ is in {v}",)


def _fill(templates: tuple[str, ...], made: str) -> tuple[str, ...]:
    return tuple(template.replace("@", made) for template in templates)


def _made_up(rng: Random, split: Split, chinese: bool) -> Topic:
    """A topic of which no word means anything."""
    attributes = []
    shape = rng.randrange(len(_MADE_SAYS if chinese else _MADE_SAYS_EN))
    says, asks, back = (
        (_MADE_SAYS, _MADE_ASKS, _MADE_BACK) if chinese else (_MADE_SAYS_EN, _MADE_ASKS_EN, _MADE_BACK_EN)
    )
    for _ in range(3):
        if chinese:
            made = draw(rng, split, lambda: nonsense(rng, rng.randint(1, 3)))
            kind = rng.choice(("nonsense", "nonsense", "nonsense", "figure", "code", "person"))
        else:
            made = draw(rng, split, lambda: word(rng, 2))
            kind = rng.choice(("en.nonsense", "en.nonsense", "en.nonsense", "figure", "code", "en.name"))
        each = shape if rng.random() < 0.6 else rng.randrange(len(says))
        attributes.append(Attribute(kind, _fill(says[each], made), _fill(asks[each], made), _fill(back[each], made)))
    if chinese:
        return Topic(lambda rng: nonsense(rng, rng.randint(2, 4)), "它", tuple(attributes))
    return Topic(lambda rng: word(rng, rng.randint(2, 3)).capitalize(), "It", tuple(attributes))


def _names(rng: Random, split: Split, make: Maker, count: int, taken: Sequence[str] = ()) -> list[str]:
    """Names of which none holds another."""
    names: list[str] = []
    while len(names) < count:
        name = draw(rng, split, lambda: make(rng))
        if not any(name in other or other in name for other in (*names, *taken)):
            names.append(name)
    return names


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


@dataclass
class _Fact:
    entity: str
    attribute: Attribute
    value: str
    text: str = ""  # the sentence that tells it


def _tell(rng: Random, cells: list[tuple[str, Attribute]], topic: Topic, split: Split, chinese: bool) -> list[_Fact]:
    """Sentences for the cells of a grid; sometimes one for two."""
    facts = [_Fact(entity, attribute, value(rng, split, attribute.kind)) for entity, attribute in cells]
    single = len({fact.entity for fact in facts}) == 1
    stop = "。" if chinese else "."
    index = 0
    while index < len(facts):
        fact = facts[index]
        template = rng.choice(fact.attribute.says)
        text = template.format(e=fact.entity, v=fact.value)
        after = facts[index + 1] if index + 1 < len(facts) else None
        if after and after.entity == fact.entity and template.startswith("{e}") and rng.random() < 0.3:
            # one sentence for two facts
            second = next((s for s in after.attribute.says if s.startswith("{e}") and not s.startswith("{e}'")), "")
            if second:
                if chinese:
                    second = second.replace("{e}的", "其", 1) if second.startswith("{e}的") else second[3:]
                    text += "，" + second.format(v=after.value)
                else:
                    name = fact.entity if "person" in topic.pronoun else "it"
                    text += " and " + second.format(e=name, v=after.value)
                fact.text = after.text = (text if chinese else _upper(text)) + stop
                index += 2
                continue
        if single and index and template.startswith("{e}") and not template.startswith("{e}'") and rng.random() < 0.3:
            text = template.replace("{e}", topic.pronoun, 1).format(v=fact.value)
        fact.text = (text if chinese else _upper(text)) + stop
        index += 1
    return facts


def _grid(
    rng: Random, split: Split, topic: Topic, size: int
) -> tuple[list[tuple[str, Attribute]], list[str], list[Attribute]]:
    """Some cells of entities x attributes, never all; and what is in the grid."""
    count = rng.choice((1, 2, 2, 2, 3)) if size < len(topic.attributes) else rng.choice((2, 2, 3))
    entities = _names(rng, split, topic.name, count)
    wide = min(len(topic.attributes), max(2, -(-(size + 1) // count)))
    attributes = rng.sample(topic.attributes, wide)
    cells = [(entity, attribute) for entity in entities for attribute in attributes]
    cells = rng.sample(cells, min(size, len(cells) - 1))
    if rng.random() < 0.5:  # told one after the other
        cells.sort(key=lambda cell: entities.index(cell[0]))
    return cells, entities, attributes


def sample(rng: Random, split: Split) -> Sample:
    """A passage and one or two questions."""
    while True:
        try:
            return _sample(rng, split)
        except RuntimeError:  # too few wordings of this question to have one on this side
            continue


def _sample(rng: Random, split: Split) -> Sample:
    chinese = rng.random() < 0.65
    topic = _made_up(rng, split, chinese) if rng.random() < 0.25 else rng.choice(_ZH if chinese else _EN)
    size = rng.choice((3, 3, 4, 4, 5, 6))
    cells, entities, attributes = _grid(rng, split, topic, size)
    facts = _tell(rng, cells, topic, split, chinese)
    sentences = list(dict.fromkeys(fact.text for fact in facts))
    if len(sentences) < 6 and rng.random() < 0.15:
        sentences.insert(rng.randint(1, len(sentences)), rng.choice(_FILLERS if chinese else _FILLERS_EN))
    told = {(fact.entity, fact.attribute.asks) for fact in facts}

    def question() -> tuple[Callable[[], str], str]:
        """How it may be asked, and the sentence that tells, or nothing."""
        if rng.random() < 0.7:
            fact = rng.choice(facts)
            if (
                fact.attribute.reverse
                and fact.value in fact.text
                and rng.random() < 0.15
                and sum(f.value == fact.value for f in facts) == 1
            ):
                return (lambda: rng.choice(fact.attribute.reverse).format(v=fact.value)), fact.text
            return (lambda: rng.choice(fact.attribute.asks).format(e=fact.entity)), fact.text
        missing = [(e, a) for e in entities for a in attributes if (e, a.asks) not in told]
        other = [a for a in topic.attributes if a not in attributes]
        which = rng.random()
        if which < 0.4 and missing:  # told of another entity
            entity, attribute = rng.choice(missing)
        elif which < 0.7 and other:  # told of none
            entity, attribute = rng.choice(facts).entity, rng.choice(other)
        else:  # an entity that is not there
            attribute = rng.choice(facts).attribute
            entity = _names(rng, split, topic.name, 1, entities)[0]
        return (lambda: rng.choice(attribute.asks).format(e=entity)), ""

    def asked(ask: Callable[[], str], then: bool = False) -> str:
        core = ask()
        if chinese:
            text = rng.choice(_FRAMES_ASK).format(core)
            return rng.choice(_FRAMES_THEN).format(text) if then else text
        frames = (rng.choice(_FRAMES_ASK_EN), rng.choice(_FRAMES_THEN_EN) if then else "{}")
        for frame in frames:
            if frame.endswith((", {}?", ": {}?", "And {}")) or rng.random() < 0.05:
                core = core[0].lower() + core[1:]
            core = frame.format(core)
        return core

    numbers: dict[str, int] = {}
    style = rng.random()
    if style < 0.2:
        groups = []
        rest = list(sentences)
        while rest:
            take = rng.choice((1, 1, 2)) if len(sentences) > 2 else 1
            groups.append(rest[:take])
            rest = rest[take:]
        for number, group in enumerate(groups, 1):
            numbers.update(dict.fromkeys(group, number))
        space = "" if chinese else " "
        context = "\n".join(f"[{number}] {space.join(group)}" for number, group in enumerate(groups, 1))
        frames: tuple[str, ...] = (SOURCES if chinese else SOURCES_EN,)
    elif chinese and style < 0.45:
        context = rng.choice(("", "", "\n")).join(sentences)
        frames = (KNOWLEDGE_BASE,)
    else:
        context = rng.choice(("" if chinese else " ",) * 3 + ("\n",)).join(sentences)
        frames = _FREE if chinese else _FREE_EN

    def answer(text: str) -> str:
        if frames[0] is KNOWLEDGE_BASE:
            return f"根据已知信息，“{text}”" if text else "根据已知信息无法回答该问题。"
        if numbers:
            if not text:
                return "参考资料中没有提到这一点。" if chinese else "The references do not say this."
            return f"“{text}”[{numbers[text]}]" if chinese else f'"{text}" [{numbers[text]}]'
        if not text:
            return "材料中没有提到这一点。" if chinese else "The text does not say."
        return f"材料中说：“{text}”" if chinese else f'The text says: "{text}"'

    ask, text = question()
    prompt = draw(rng, split, lambda: rng.choice(frames).format(c=context, q=asked(ask)))
    messages = [user(prompt), assistant(answer(text))]
    if rng.random() < 0.25:
        first = text
        for _ in range(4):
            ask, text = question()
            if text != first:
                break
        messages += [user(draw(rng, split, lambda: asked(ask, then=True))), assistant(answer(text))]
    return Sample("passages", messages)
