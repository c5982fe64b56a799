"""Short texts as people type them: what somebody did, a shop's hours, a product, an event; and questions about any part.

A fact is written once, with its parts marked. In Chinese a question has the words of the fact, with a question word in the
place of the part that is asked for; in English each part has its questions. Nearly half of the questions have no answer
in the text although it comes near: it tells the same of somebody else, or something else of the same one.
"""

# ruff: noqa: SIM905
from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from .base import CITIES, FIRST, GIVEN, SURNAMES, TOWNS, Sample, Split, draw, nonsense
from .persona import _WOMEN as WOMEN
from .practice import Question, _dialogue, _first
from .vocabulary import (
    ANIMALS,
    ANIMALS_EN,
    COLOURS,
    COLOURS_EN,
    DAYS_EN,
    FOODS,
    FOODS_EN,
    HOBBIES,
    HOBBIES_EN,
    JOBS,
    JOBS_EN,
    MAKERS,
    MONTHS_EN,
    THINGS,
    Maker,
    an,
    word,
)
from .wording import choose, upper

__all__ = ["plain"]

UNTOLD = 0.42
"""Share of the questions that nothing answers."""
NONE_ZH, NONE_EN = "材料中没有说。", "This is not given in the text."

STRANGE = 0.15
"""Share of values that mean nothing."""


def _of(words: str, strange: float = STRANGE) -> Maker:
    """One of these words, or one that means nothing."""
    listed = words.split()

    def make(rng: Random) -> str:
        return nonsense(rng, rng.choice((2, 2, 3))) if rng.random() < strange else rng.choice(listed)

    return make


def _of_en(words: str, strange: float = STRANGE) -> Maker:
    listed = words.split(";")
    return lambda rng: word(rng, 2) if rng.random() < strange else rng.choice(listed)


_FIGURES = "一 两 三 四 五 六 七 八 九 十".split()


def _few(rng: Random) -> str:
    """A number, in figures or in characters."""
    return rng.choice(_FIGURES) if rng.random() < 0.5 else str(rng.randint(2, rng.choice((9, 99, 999))))


def _counted(*units: str) -> Maker:
    return lambda rng: _few(rng) + rng.choice(units)


def _person(rng: Random) -> str:
    luck = rng.random()
    if luck < 0.35:
        return rng.choice(("小", "小", "老", "阿")) + rng.choice(GIVEN if luck < 0.25 else SURNAMES)
    if luck < 0.5:
        return rng.choice(SURNAMES) + rng.choice(
            "老师 医生 经理 阿姨 叔叔 奶奶 爷爷 师傅 主任 同学 教授 女士 先生".split()
        )
    if luck < 0.58:
        return rng.choice("妈妈 爸爸 爷爷 奶奶 哥哥 姐姐 弟弟 妹妹 外婆 舅舅 表哥 同桌 班长 邻居 房东".split())
    if luck < 0.66:
        return rng.choice(FIRST)
    return MAKERS["person"](rng)


def _when(rng: Random) -> str:
    luck = rng.random()
    if luck < 0.35:
        return rng.choice(
            "昨天 今天 前天 明天 后天 上周 下周 上个月 下个月 去年 今年 周末 昨晚 今早 上周日 暑假 寒假 国庆节 春节 中秋节 月底 年底 刚才".split()
        )
    if luck < 0.55:
        return (
            rng.choice("上下本这")[:1]
            + "周"
            + rng.choice("一二三四五六日")
            + rng.choice(("", "", "上午", "下午", "晚上"))
        )
    if luck < 0.75:
        return f"{rng.randint(1, 12)}月{rng.randint(1, 28)}{rng.choice('日号')}"
    if luck < 0.85:
        return f"{rng.randint(1990, 2026)}年" + rng.choice(("", f"{rng.randint(1, 12)}月"))
    return rng.choice(("", "昨天", "明天", "今天")) + _clock(rng)


def _clock(rng: Random) -> str:
    hour = rng.choice(_FIGURES[2:]) if rng.random() < 0.45 else str(rng.randint(1, 12))
    half = rng.choice(("点", "点", "点", "点半", "点十分", "点二十", "点四十", "点一刻"))
    if rng.random() < 0.2:
        return f"{rng.randint(6, 22)}:{rng.choice(('00', '30', '15', '45'))}"
    return rng.choice(("", "早上", "上午", "下午", "晚上", "中午", "傍晚")) + hour + half


def _spot(rng: Random) -> str:
    return rng.choice((
        lambda: rng.choice("学校 火车站 地铁站 公园 医院 超市 市场 银行 图书馆 邮局 小区 广场 机场 码头 教堂 酒店 操场 河边 车站".split()) + rng.choice("旁边 对面 门口 后面 附近 里面 东边 南侧 外".split()),
        lambda: rng.choice("一二三四五六七八九") + rng.choice(("楼", "楼大厅", "号楼", "楼东侧", "楼会议室", "号门旁边", "层")),
        lambda: MAKERS["street"](rng),
        lambda: f"{rng.choice('ABCDE')}座{rng.randint(1, 30)}层",
        lambda: f"{rng.randint(101, 999)}" + rng.choice(("室", "房间", "教室", "会议室")),
        lambda: rng.choice("地下室 仓库 礼堂 体育馆 食堂 办公楼 活动室 阳台 院子里 老城区 市中心 大学城 开发区 步行街 村口 山脚下 海边 湖边".split()),
    ))()  # fmt: skip


def _keep(rng: Random) -> str:
    """Where something is kept."""
    return rng.choice("抽屉 柜子 冰箱 书架 桌子 床 沙发 箱子 鞋柜 背包 车 窗台 衣柜 厨房 卧室 客厅 办公桌 信箱 门垫 花盆".split()) + rng.choice(("里", "里", "上", "下面", "旁边", "后面", "左边", "最上层"))  # fmt: skip


def _goods(rng: Random) -> str:
    """Some things, with their number."""
    if rng.random() < STRANGE:
        return "一" + rng.choice("个件台把") + nonsense(rng, 2)
    number = rng.choice(_FIGURES)
    unit, things = rng.choice((
        ("本", "书 词典 小说 杂志 日历 相册 漫画"), ("台", "电脑 冰箱 打印机 电视 洗衣机 相机 空调"), ("斤", "苹果 牛肉 西瓜 土豆 鸡蛋 葡萄 草莓 虾 大米"), ("件", "毛衣 外套 衬衫 大衣 礼物 雨衣"),
        ("双", "运动鞋 袜子 筷子 皮鞋 手套 拖鞋"), ("把", "雨伞 吉他 椅子 钥匙 剪刀 扇子"), ("个", "书包 蛋糕 面包 手机 水杯 台灯 足球 行李箱 花瓶 帽子 西瓜 闹钟"), ("束", "玫瑰 百合 鲜花"), ("瓶", "酱油 牛奶 红酒 可乐 香水 醋"),
        ("辆", "自行车 电动车 汽车 玩具车"), ("张", "电影票 桌子 地图 火车票 贺卡 沙发"), ("盒", "巧克力 茶叶 饼干 月饼 草莓 感冒药"), ("只", "烤鸭 手表 小狗 猫 鹦鹉"), ("条", "裙子 围巾 鱼 裤子 毛巾 项链"), ("副", "眼镜 耳机 手套 象棋"), ("袋", "大米 面粉 洗衣粉 糖"),
    ))  # fmt: skip
    return number + unit + rng.choice(("", "", "", rng.choice(COLOURS) + "色的")) + rng.choice(things.split())


def _money(rng: Random) -> str:
    return _few(rng) + rng.choice(("元", "元", "块", "块钱", "万元", "百元", "美元"))


_MEASURES = "公里 米 里 千米".split()
_CAUSES = "下雨 下大雪 感冒 发烧 堵车 停电 睡过头 生病 闹钟坏了 台风 没带钥匙 身体不舒服 大雾 修路 人数不够 加班 晚点 设备故障 牙疼 忘了时间 没买到票 家里有事 迷路 手机没电 车坏了 临时开会 腿受伤".split()
_CAUSES_EN = "the rain;the snow;a cold;a fever;a traffic jam;a power cut;a storm;a broken alarm clock;a strike;the fog;a flat tire;a late train;bad weather;a headache;a family party;a lost key;the holiday"

# What stands for a part's value, and the words that ask for it.
_PARTS: dict[str, tuple[Maker, str]] = {
    "when": (_when, "什么时候/哪天/什么时间/啥时候"), "clock": (_clock, "几点/什么时候/几点钟"), "weekday": (lambda rng: rng.choice(("周", "星期", "每周")) + rng.choice("一二三四五六日"), "星期几/周几/哪天"),
    "year": (lambda rng: f"{rng.randint(1900, 2026)}年", "哪年/什么时候/哪一年"), "date": (lambda rng: f"{rng.randint(1, 12)}月{rng.randint(1, 28)}{rng.choice('日号')}", "哪天/几月几号/什么时候/几号"), "month": (lambda rng: rng.choice("一 二 三 四 五 六 七 八 九 十 十一 十二 3 6 9".split()) + "月", "几月/哪个月/什么时候"),
    "age": (lambda rng: str(rng.randint(3, 99)) + "岁" if rng.random() < 0.7 else rng.choice(_FIGURES) + "岁", "几岁/多大/多少岁"), "grade": (lambda rng: rng.choice("一二三四五六") + "年级" if rng.random() < 0.7 else rng.choice(("初", "高", "大")) + rng.choice("一二三"), "几年级"),
    "city": (lambda rng: nonsense(rng, 2) if rng.random() < STRANGE else rng.choice(CITIES), "哪里/哪儿/哪个城市"), "dest": (lambda rng: rng.choice(CITIES) if rng.random() < 0.4 else MAKERS["company"](rng) if rng.random() < 0.1 else rng.choice("超市 公园 海边 动物园 图书馆 医院 书店 电影院 山上 外婆家 机场 银行 博物馆 游泳馆 农场 花市 菜市场 咖啡馆 体育馆 寺庙 夜市 郊外 奶奶家 科技馆".split()), "哪里/哪儿/什么地方"),
    "shop": (_of("超市 书店 网上 商场 菜市场 花店 药店 便利店 文具店 二手市场 水果店 服装店 面包店 夜市 家具城 门口 楼下小店"), "哪里/哪儿/什么地方/哪"), "place": (_of("公园 公交车上 地铁站 图书馆 教室 操场 电影院 飞机上 河边 餐厅 会议室 楼道 停车场 海边 广场 山上 宿舍 健身房 咖啡馆 出租车上 医院"), "哪里/哪儿/什么地方/哪"),
    "spot": (_spot, "哪里/哪儿/什么地方/哪"), "keep": (_keep, "哪里/哪儿/哪/什么地方"), "office": (lambda rng: rng.choice((MAKERS["company"](rng), MAKERS["school"](rng), rng.choice("医院 银行 邮局 工厂 法院 报社 电视台 机场 超市 出版社 幼儿园 派出所".split()))), "哪里/哪儿/什么单位/哪"), "school": (MAKERS["school"], "哪里/哪所学校/什么学校/哪"),
    "person": (_person, "谁/哪位/什么人/哪个人"), "ajob": (lambda rng: rng.choice(("一名", "一位", "个", "")) + (nonsense(rng, 2) + "师" if rng.random() < STRANGE else rng.choice(JOBS)), "做什么的/干什么的/什么职业/做啥的"), "hobby": (lambda rng: nonsense(rng, 2) if rng.random() < STRANGE else rng.choice(HOBBIES), "做什么/干什么/什么/干嘛"),
    "food": (lambda rng: nonsense(rng, 2) if rng.random() < STRANGE else rng.choice(FOODS), "什么/啥/什么东西"), "dish": (lambda rng: nonsense(rng, 2) if rng.random() < STRANGE else rng.choice(FOODS), "什么/什么菜/啥"), "dislike": (_of("香菜 打雷 蟑螂 辣椒 数学 早起 排队 苦瓜 黑暗 洗碗 狗 蛇 胡萝卜 打针 噪音 坐飞机 下雨天 大蒜 加班"), "什么/啥/什么东西"),
    "animal": (lambda rng: nonsense(rng, 2) if rng.random() < STRANGE else rng.choice(ANIMALS), "什么/什么动物/啥"), "petname": (MAKERS["petname"], "什么/啥/什么名字"), "siblings": (lambda rng: rng.choice(_FIGURES[:5]) + "个", "几个/多少个"), "code": (lambda rng: MAKERS["code"](rng) if rng.random() < 0.5 else MAKERS["phone"](rng), "多少/什么/几"),
    "goods": (_goods, "什么/啥/什么东西/哪些东西"), "thing": (lambda rng: nonsense(rng, 2) if rng.random() < STRANGE else rng.choice(THINGS), "什么/啥/什么东西"), "own": (_of("钱包 钥匙 雨伞 手机 身份证 眼镜 书包 手表 围巾 耳机 帽子 护照 相机 饭卡 戒指 水杯 车票"), "什么/啥/什么东西"), "money": (_money, "多少钱/几块钱/多少"),
    "vehicle": (_of("火车 地铁 飞机 公交车 出租车 轮船 高铁 大巴 电车 缆车", 0.1), "什么/什么车/什么交通工具"), "book": (MAKERS["book"], "什么书/什么/哪本书"), "skill": (_of("游泳 钢琴 书法 英语 开车 画画 日语 围棋 吉他 编程 跳舞 滑雪 做饭 摄影 小提琴 法语 烘焙 唱歌 太极拳 木工"), "什么/啥"), "subject": (_of("数学 语文 英语 物理 化学 历史 地理 体育 美术 音乐 生物"), "什么/哪门课/哪一科"),
    "score": (lambda rng: f"{rng.randint(30, 100)}分" if rng.random() < 0.8 else "满分", "多少分/几分/多少"), "far": (lambda rng: _few(rng) + rng.choice(_MEASURES), "多远/多少公里/几公里"), "cups": (_counted("杯", "瓶", "碗"), "几杯/多少/多少杯"), "rank": (lambda rng: rng.choice(("第" + rng.choice(_FIGURES[2:]) + "名", "第一名", "第二名", "金牌", "银牌", "一等奖", "二等奖", "冠军", "亚军")), "第几名/什么奖/什么名次"),
    "cause": (lambda rng: nonsense(rng, 2) + "坏了" if rng.random() < STRANGE else rng.choice(_CAUSES), "什么/啥"), "missed": (_of("没去上学 迟到了 请假了 没来开会 没参加比赛 取消了旅行 没去上班 错过了火车 没吃晚饭 没交作业 哭了 很生气 很晚才回家 没去跑步 换了工作 搬了家", 0.0), ""), "off": (_of("取消了 改期了 推迟了 提前结束了 换了地方 暂停了", 0.0), ""),
    "cm": (lambda rng: rng.choice((f"{rng.randint(90, 210)}厘米", f"一米{rng.choice('五六七八九')}", f"1米{rng.randint(50, 95)}")), "多高/多少/多少厘米"), "kg": (lambda rng: f"{rng.randint(20, 120)}{rng.choice(('公斤', '斤'))}", "多重/多少/多少斤"), "wear": (lambda rng: rng.choice(COLOURS) + "色的" + rng.choice("毛衣 裙子 外套 帽子 T恤 围巾 鞋 校服 大衣".split()), "什么/什么衣服/什么颜色的衣服"), "seat": (_of("第一排 最后一排 窗边 门口 讲台旁边 小王旁边 左边 右边 中间 沙发上 角落里", 0.05), "哪里/哪儿/哪"), "nick": (lambda rng: rng.choice((nonsense(rng, 2), MAKERS["petname"](rng), word(rng, 2).capitalize(), rng.choice(FIRST))), "什么/啥"),
    "tongue": (_of("法语 英语 日语 德语 粤语 西班牙语 俄语 韩语 四川话 上海话 阿拉伯语", 0.08), "什么语言/什么话/哪种语言"), "hours": (_counted("小时", "个小时", "分钟", "个半小时", "天"), "多久/多长时间/几个小时/多少时间"), "long": (_counted("年", "个月", "天", "周", "小时"), "多久/多长时间/几年/几天"), "days": (_counted("天", "天", "周", "个月"), "多久/几天/多长时间"),
    "free": (_of("学生 老人 儿童 军人 会员 教师 七十岁以上老人 一米二以下儿童 残疾人 医护人员", 0.05), "谁/哪些人/什么人"), "capacity": (lambda rng: _few(rng) + "个", "几个/多少个/多少"), "unit": (_of("座位 房间 车位 员工 教室 窗口 电梯 摊位 展厅 出口 书架 车间 球场 厕所 包间", 0.0), ""), "forbid": (_of("吸烟 拍照 带宠物 大声喧哗 饮食 游泳 钓鱼 停车 打电话 踢球 使用手机 带饮料", 0.05), "什么/做什么/干什么"),
    "square": (lambda rng: _few(rng) + rng.choice(("平方米", "亩", "公顷", "平方公里")), "多大/多少/多少平方米"), "loan": (_counted("本", "本书"), "几本/多少本/几本书"), "off10": (lambda rng: rng.choice(("八", "五", "九", "七", "六", "八五", "九五")) + "折", "几折/多少折"), "grams": (lambda rng: _few(rng) + rng.choice(("克", "公斤", "斤", "千克", "吨")), "多重/多少/多少克"), "colour": (lambda rng: rng.choice(("", "浅", "深")) + rng.choice(COLOURS) + "色", "什么颜色/什么色/啥颜色"),
    "stuff": (_of("木头 竹子 玻璃 纸 钢 塑料 丝绸 棉布 陶土 石头 牛皮 银 羊毛 不锈钢 橡胶"), "什么/什么材料/啥"), "able": (_of("打电话 拍照 听歌 煮饭 扫地 翻译 导航 打印 播放电影 测血压 加热 制冰 磨咖啡 洗碗 烤面包 防水 录音 充电 折叠"), "做什么/干什么/干嘛"), "litres": (_counted("升", "毫升", "公斤", "本书", "个人", "件衣服"), "多少/多少东西"), "size": (lambda rng: _few(rng) + rng.choice(("厘米", "米", "毫米")), "多长/多少/多少厘米"), "version": (MAKERS["version"], "多少/几/哪个"),
    "people": (lambda rng: _few(rng) + rng.choice(("人", "个人", "名学生", "位客人", "名选手", "万人")), "多少人/几个人/多少"), "theme": (_of("环保 诗歌 机器人 海洋 古代服装 健康 太空 读书 友谊 茶文化 摄影 电影 人工智能 家乡 恐龙 春天"), "什么/啥"), "result": (lambda rng: f"{rng.randint(0, 9)}比{rng.randint(0, 9)}", "几比几/多少/多少比多少"), "org": (lambda rng: rng.choice((MAKERS["company"](rng), MAKERS["school"](rng), rng.choice("学生会 居委会 市政府 文化馆 红十字会 读书会 校友会".split()))), "谁/哪个单位/哪家"),
    "income": (lambda rng: _few(rng) + rng.choice(("万元", "亿元", "百万元")), "多少钱/多少"), "customers": (_of("学生 农民 老人 游客 医院 学校 司机 上班族 孩子 餐馆 外国人"), "谁/哪些人/什么人"), "height": (lambda rng: _few(rng) + "米", "多高/多少米/多少"), "degree": (lambda rng: rng.choice(("零下", "", "")) + f"{rng.randint(1, 40)}度", "多少度/几度"), "river": (MAKERS["river"], "什么河/哪条河/什么"), "special": (_of("苹果 茶叶 丝绸 瓷器 大米 核桃 葡萄 竹器 石榴 莲藕 豆腐 枸杞 木耳 蜂蜜 羊肉 樱桃 温泉 古塔 刺绣"), "什么/啥"),
    "habitat": (_of("草原 森林 海里 沙漠 南极 山洞 河边 树上 地下 沼泽 雪山 湖里 热带雨林 非洲 北极"), "哪里/哪儿/什么地方"), "feed": (_of("竹子 青草 鱼 虫子 树叶 果子 肉 蜂蜜 种子 老鼠 小虾 花蜜 海藻 胡萝卜 坚果"), "什么/啥"), "years": (_counted("年", "岁", "个月", "天"), "多久/几年/多少年"), "weather": (_of("多云 晴 小雨 大雪 阴天 雷阵雨 大风 雾 中雨 晴转多云", 0.0), "什么天气"), "day": (_of("今天 明天 后天 周末 昨天 周一 周三", 0.0), ""),
    "dept": (_of("人事部 财务部 前台 教务处 办公室 客服 班主任 图书室 行政部 保安室 经理"), "谁/哪里/哪个部门"), "doc": (_of("报名表 作业 发票 申请书 简历 体检表 借书证 论文 报告 合同 照片 请假条"), "什么/啥/什么东西"), "line": (lambda rng: rng.choice((f"{rng.randint(1, 99)}路", f"{rng.randint(1, 20)}号线")), "几路车/哪路车/几号线"), "stops": (_counted("站"), "几站/多少站"), "how": (_of("坐地铁 骑车 走路 开车 坐公交车 打车 坐火车 坐船", 0.03), "怎么/怎样/如何"),
}  # fmt: skip

# tag | fact # more questions, each for one part: part>question. @ is whom or what it is told of. <> may be left out.
_ZH = {
    "who": """age|@(今年|今年|)[age]
home|@(住在|家住|现住|和家人住在)[city]
comes|@(来自|老家在|出生在)[city]
born|@[year]出生在[city]#year>@(是|)(哪年|什么时候)(出生|生)的;city>@(是|)在(哪|哪里)(出生|生)的
job|@是[ajob]#ajob>@(的|)(工作|职业)是(什么|啥);ajob>@做什么工作
works|@在[office](工作|上班|实习)
school|@在[school](读书|上学|念书)
grade|@(读|上|在读)[grade]
likes|@(最喜欢|喜欢|爱|平时喜欢)[hobby]#hobby>@(有|的)(什么|啥)(爱好|兴趣);hobby>@(的|)(爱好|兴趣)是(什么|啥)
eats|@(最爱吃|喜欢吃|爱吃)[food]
hates|@(讨厌|不喜欢|害怕|最怕)[dislike]
pet|@养了(一只|一条|一只)[animal]#animal>@(的|)宠物是什么;animal>@养(的|)(是|)(什么|啥)(宠物|动物)
petname|@的(猫|狗|兔子|鹦鹉|乌龟|宠物)叫[petname]
siblings|@有[siblings](哥哥|姐姐|弟弟|妹妹|孩子|女儿|儿子)
friend|@的(好朋友|同桌|室友|邻居|老师|妈妈|爸爸|老板|女朋友|师傅)(是|叫)[person]
number|@的(电话|手机号|学号|工号|房间号|车牌号|邮编)是[code]
birthday|@的生日是[date]#date>@(什么时候|哪天|几号)(过|)生日
bought|@<[when]><在[shop]>买了[goods]<，花了[money]>#money>@买(东西|)花了(多少|多少钱);shop>@在(哪|哪儿|哪里)买的(东西|)
sold|@<[when]>把[own!](卖给了|借给了|送给了|还给了)[person]
lost|@<[when]><在[place]>(丢了|弄丢了|落下了)[own]
found|@<[when]><在[place]>(捡到|发现|找到)了[own]
went|@<[when]>坐[vehicle]去了[dest]#vehicle>@怎么去的[dest];when>@(是|)(什么时候|哪天)去的[dest]
visit|@<[when]>(和|跟)[person](一起|)去了[dest]
met|@<[when]>在[place](遇到了|碰到了|见到了)[person]
gift|@<[when]>送给[person][goods]
cooked|@<[when]>做了[dish]
reads|@(正在读|最近在看|刚看完|读完了)[book]
wrote|@<[when]>(写了|出版了)[book]
learns|@(正在学|开始学|学会了|想学)[skill]
learned|@<从[when]>跟[person]学[skill]
exam|@[subject](考了|得了)[score]
ran|@<[when]>(跑了|走了|骑了)[far]
rises|@(每天|平时|周末)[clock](起床|睡觉|出门|回家|吃早饭)
drinks|@(每天|一天)喝[cups](水|咖啡|茶|牛奶)
won|@<[when]>在(比赛|运动会|竞赛|歌唱比赛)(中|上|里)(得了|获得了|拿了)[rank]
why|@因为[cause][missed]#cause>@(为什么|为啥|怎么|因为什么)[missed]
plan|@(打算|准备|计划)[when]去[dest]
tall|@(身高|身高是)[cm]
heavy|@(体重|重)[kg]
wears|@(今天|)(穿着|穿了)[wear]
sits|@坐在[seat]
lent|@<[when]>(借给|付给|给了)[person][money]
nick|@的(英文名|小名|网名|外号|笔名|微信名)(叫|是)[nick]
speaks|@会说[tongue]
commute|@每天[how](上班|上学|回家|去公司)
waited|@等了[hours]
stays|@在[city](住了|待了|工作了|生活了)[long]
earns|@(每月|一个月|每年|每小时)(赚|挣|的工资是)[money]
married|@<[when]>(和|跟)[person](结婚了|订婚了|吵架了|签了合同)
teaches|@(教|在学校教)[subject]
phones|@<[when]>给[person](打了电话|发了邮件|写了信)
hospital|@<[when]>(住院|出院|做手术|搬家|退休|毕业)了#when>@(是|)(什么时候|哪天)(住院|出院|做手术|搬家|退休|毕业)的
planted|@<[when]>在[place!](种了|摆了|放了)[goods]""",
    "spot": """opens|@(每天|周末|工作日|)[clock](开门|开始营业|开放)
closes|@(每天|周末|)[clock](关门|打烊|闭馆)
closed|@[weekday](休息|不开门|不营业)
where|@(在|位于|就在|设在|开在)[spot]#spot>(怎么去|去哪找|去哪里找)@;spot>@(的|)(地址|位置)(是|在)(哪|哪里)
sells|@(主要|专门|)(卖|出售|经营)[thing]
ticket|@(门票|票价|入场费)(是|要|)[money]
ticket2|@的(成人票|学生票|儿童票|月票|年卡)(是|要|卖)[money]
free|@对[free]免费
seats|@(一共|共|)有[capacity][unit]#capacity>@(里|)有(几|多少)(个|)[unit]
boss|@的(老板|馆长|负责人|店长|管理员|经理|老板娘|保安)(是|叫)[person]
phone|@的(电话|客服电话|wifi密码|门禁密码|邮编)是[code]
forbid|@(里|内|)(禁止|不许|不能|不可以)[forbid]
dish|@的(招牌菜|特色菜|镇店之宝|特色)是[dish]#dish>@(有|)(什么|啥)(好吃的|特色|特色菜|招牌菜)
built|@(建于|建成于|开业于|成立于)[year]#year>@(是|)(哪年|什么时候)(建|开|建成|开业|成立)的
area|@(面积|占地|占地面积)(有|是|为|)[square]
loan|@(一次|每次|每人)(可以|最多|能)借[loan]
loanlong|@的(书|东西|图书)(可以|最多|能)借[days]
sale|@<[when]>(打|全场打)[off10]
bus|去@(可以|要|)坐[line]
price|@(停车|存包|洗车|剪发|住一晚|洗衣服|洗一次)(要|收费|)[money]
moved|@<[when]>搬到了[spot]
lines|@(从|)[when]起(涨价|免费开放|停止营业|换老板|装修)
visitors|@(每天|一天|昨天|去年)(有|接待了|来了)[people]""",
    "item": """price|@(卖|售价|要|只要|的价格是)[money]
weight|@(重|重量是|净重)[grams]
colour|@(是|的颜色是)[colour](|的)
from|@(产自|来自|产于)[city]
last|@(充一次电|充满电|一次)(能|可以)用[hours]
charge|@充满电(需要|要|得)[hours]
warranty|@(保修|质保|保修期是)[long]
size|@(长|高|宽|厚)[size]
stuff|@是(用|由)[stuff]做的
able|@(可以|能|还能|会)[able]
keep|@(放在|收在|存放在|藏在|就在)[keep]#keep>(去哪|在哪|哪里能)(拿|找|找到)@
until|@(要在|得在|必须在)[date]前(吃完|用完|归还|退还)
maker|@是(由|)[person](发明|设计|做|送|画|修好)的
keeps|@的保质期(是|为)[long]
holds|@(能装|可以装|装得下)[litres]
rent|@租一天(要|)[money]
bought|@是<[when]>在[shop]买的
owner|@是[person]的
gift|@是[person](送|借|寄)(来|给我|)的
sold|@(一共|今年|上个月|)卖(出|出了|了)[capacity]#capacity>@卖(出|)了(多少|几)个
fix|@坏了(要|可以|请)找[person]
code|@的(密码|型号|编号|序列号)是[code]
water|@(每|要)[days]浇一次水#days>@(多久|几天|多长时间)浇一次水
cook|@要(煮|蒸|烤|炖|泡)[hours]
dose|@(一天|每天|每次)(吃|服|喝)[cups]
add|@里(加了|放了|有)[special]""",
    "event": """when|@(在|于|将于|定在|定于)[when](举行|开始|召开|举办)#when>@(什么时候|哪天|几号)(开|开始|举行|是);when>@的(时间|日期)是(什么时候|哪天|几号)
where|@(在|将在|改在)[spot](举行|举办|进行|开)#spot>@的地点(在哪|是哪里|在哪里);spot>@在(哪|哪儿|哪里)(开|举行|办)
host|@由[person](主持|负责|组织|主讲)
host2|@的(主持人|主讲人|负责人|联系人|组织者)是[person]
people|@(有|一共有|共有|约有)[people](参加|报名|到场)#people>(有|)多少人(参加|报名)(了|)@
winner|@的(冠军|第一名|获胜者|亚军)是[person]#person>(谁|哪个人)(赢了|赢得了|得了)@
score|@(最后|最终|)的比分是[result]
prize|@的(奖金|奖品|一等奖)是[money]
why|@因为[cause][off]#cause>@(为什么|为啥|怎么|因为什么)[off]
moved|@(改到|推迟到|提前到)[when](了|)#when>@(改到|推迟到|提前到)(什么时候|哪天|几号)
deadline|@(的|)报名(截止到|到|截止日期是)[date]#date>@(的|)报名(什么时候|哪天|几号)截止
fee|@(的|)(报名费|费用|门票|学费)(是|为|)[money]
bring|参加@(要|需要|请)(自带|带|带上)[own]#own>(去|参加|)@要带(什么|啥)
lasts|@(持续|进行|一共要|要开)[hours]
theme|@的(主题|题目|内容)是[theme]
org|@由[org](举办|主办|承办|赞助)
sign|报名@(请|要|可以)找[dept]
ends|@[clock](结束|散场)
gather|@[clock]在[spot]集合#spot>@(在|)(哪|哪里|哪儿)集合;clock>@(几点|什么时候)集合
door|@[clock](检票|进场|开门)""",
    "org": """founder|@(由[person]创办|是[person]创立的|是[person]建立的)
year|@(成立于|创办于|建于)[year]#year>@(是|)(哪年|什么时候)(成立|创办|建)的
seat|@(总部在|总部设在|位于|设在)[city]
makes|@(主要|专门|)(生产|研发|销售|制造)[thing]
staff|@(有|共有|一共有)[people]#people>@有多少(人|员工|职工)
income|@(去年|今年|上个月|每年)(收入|赚了|亏了|捐了)[income]
boss|@的(总经理|校长|老板|董事长|队长|教练|会计|秘书|负责人)(是|叫)[person]
clients|@的(客户|顾客|用户|学员)(主要|大多|都|)是[customers]
pay|@(每月|每月|)[date]发工资#date>@(几号|哪天|什么时候)发工资
leave|@(的|)(员工|职工|老师)(每年|一年)(有|休)[days](年假|假期|假)
opened|@<[when]>在[city](开了|建了|设立了)(分店|分公司|工厂|办事处)#city>@在(哪|哪里|哪个城市)(开了|建了|设立了)(分店|分公司|工厂|办事处)
hire|@(计划|打算|准备)<[when]>(招聘|招|裁掉)[people]
work|@[clock](上班|下班|上课|放学)
bought|@<[when]>(买了|收购了|订了|捐了)[goods]
site|@的(网址|邮箱|电话|传真)是[code]""",
    "land": """people|@(有|住着|约有|人口)[people]#people>@有多少(人|人口);people>@的人口(是|有)多少
area|@(面积|占地|总面积)(是|有|约|)[square]
high|@(高|海拔|海拔高度是)[height]
long|@(长|全长|总长)[far]
from|@(离|距离|距)[city!](有|)[far]#far>@(离|到)[city!](有|)(多远|多少公里)
special|@(盛产|出产|以)[special](|)#special>@(有|的)(什么|啥)(特产|特产吗);special>@的特产是(什么|啥)
cold|@(冬天|夏天|一月|全年)(最冷|最热|平均|气温)(是|达到|)[degree]
river|@(旁边|附近|中间|)有(一条河叫|条河叫)[river]#river>@(旁边|附近|)(有|)(什么|哪条)河
head|@的(村长|市长|县长|管理员|巡山员)(是|叫)[person]
found|@是[person](发现|命名|修建)的
fair|@[weekday](赶集|有集市)
flower|@的(樱花|桃花|油菜花|枫叶|荷花|菊花)[month](开|最好看|变红)#month>@的(樱花|桃花|油菜花|枫叶|荷花|菊花)(几月|什么时候|哪个月)(开|最好看|变红)
year|@(建于|修于|发现于|得名于)[year]
bridge|@有[capacity](桥|村子|学校|景点|湖|山峰|岛)
bus|从[city!]到@(要|需要)[hours]#hours>从[city!]到@(要|)(多久|多长时间)""",
    "animal": """eats|@(主要|最爱|每天|)(吃|以吃)[feed](|为生)#feed>@吃(什么|啥);feed>@(的|)食物是(什么|啥)
lives|@(生活在|住在|大多生活在)[habitat]
age|@(能活|可以活|一般活|最多活)[years]#years>@(能|可以|)活(多久|几年|多少年);years>@的寿命(是|有)(多长|多久|几年)
sleeps|@(每天|一天)(要|)睡[hours]
weight|@(重|体重|一般重|最重)[grams]
fast|@(每小时|一小时|每天)(能|可以|)(跑|飞|游)[far]
fears|@(最怕|怕|害怕)[dislike]
colour|@的(毛|羽毛|眼睛|尾巴|皮)是[colour]的
eggs|@(一次|一年|每次)(生|下)[capacity](蛋|宝宝|崽)
month|@(在|一般在|每年)[month](产卵|冬眠|繁殖|迁徙|换毛)""",
    "weather": """sky|@[day!][weather]，(气温|最高气温)[degree]#weather>@[day!](的|)天气(怎么样|如何|好吗);degree>@[day!](的|)(气温|最高气温)(是|)(多少|多少度|几度)
wind|@[day!]有[weather]#weather>@[day!](的|)天气(怎么样|如何)
rain|@(从|)[when]开始(下雨|下雪|降温|升温)""",
}  # fmt: skip

# Names, what they are called in the third person, and the words that ask for them.
_SUBJECTS: dict[str, tuple[Maker, tuple[str, ...], str]] = {
    "who": (_person, ("他", "她"), "谁/哪位/哪个人"),
    "spot": (lambda rng: rng.choice(("", "", rng.choice("学校 公司 新 小区 市 村里的 镇上的 我们学校的 中心".split()), nonsense(rng, 2), MAKERS["nonsense"](rng))) + rng.choice("图书馆 食堂 超市 博物馆 书店 游泳馆 咖啡馆 健身房 面馆 花店 理发店 医院 动物园 公园 药店 邮局 停车场 餐厅 体育馆 幼儿园 电影院 宠物店 旅馆 洗衣店 茶馆 美术馆 银行 水族馆".split()), ("它", "这里", "那里"), "哪里/哪家/哪儿"),
    "item": (lambda rng: rng.choice(("这款", "这台", "这个", "", "", "新", "那本", "我的", "小明的")) + (nonsense(rng, 2) if rng.random() < 0.2 else rng.choice((rng.choice(THINGS), MAKERS["code"](rng) + rng.choice(("手机", "相机", "音箱", "")), rng.choice("冰箱 手机 面包 药 绿萝 电池 自行车 词典 蛋糕 洗衣机 吸尘器 帐篷 机器人 沙发 行李箱 豆浆机 眼药水 感冒药 牛奶 地毯 钢琴 鱼缸 打印机 备用钥匙 合同 灭火器 工具箱".split())))), ("它",), "什么/哪个/什么东西"),
    "event": (lambda rng: rng.choice(("", "", "这次", "今年的", "学校", "公司", "第" + rng.choice("一二三四五") + "届", nonsense(rng, 2))) + rng.choice("运动会 会议 讲座 音乐会 婚礼 比赛 展览 聚会 培训 考试 家长会 招聘会 演唱会 夏令营 年会 画展 篮球赛 毕业典礼 义卖 面试 读书会 志愿活动 马拉松 茶话会 联欢会 拍卖会 足球赛 春游 辩论赛".split()), ("它",), ""),
    "org": (lambda rng: rng.choice((MAKERS["company"](rng), MAKERS["school"](rng), nonsense(rng, 2) + rng.choice("工作室 工厂 俱乐部 合作社 球队 农场 出版社 剧团".split()), rng.choice("蓝天 星海 光明 绿叶 东方 未来 大地 飞鸟 云朵".split()) + rng.choice("公司 学校 集团 科技 工作室 农场 书社".split()))), ("它", "该单位"), "哪个单位/哪家/谁"),
    "land": (lambda rng: (nonsense(rng, 2) if rng.random() < 0.2 else "".join(rng.sample("青 白 石 龙 凤 云 月 松 竹 梅 清 明 东 南 西 北 大 小 红 玉 金 银 桃 柳 泉 花".split(), 2))) + rng.choice("村 镇 山 湖 岛 河 县 市 桥 古城 寨 公路 水库 森林 谷 寺 塔".split()), ("它", "这里", "那里"), "哪里/哪儿/什么地方"),
    "animal": (lambda rng: nonsense(rng, 2) + rng.choice("鸟鱼兽龟猫蛙") if rng.random() < 0.25 else rng.choice((*ANIMALS, *"大熊猫 企鹅 骆驼 大象 蜜蜂 北极熊 老虎 海豚 鲸鱼 蝴蝶 长颈鹿 袋鼠 蚂蚁 鳄鱼 孔雀 海龟 狼 燕子 考拉 树懒".split())), ("它",), "什么动物/什么"),
    "weather": (lambda rng: rng.choice(CITIES), ("那里",), "哪里/哪个城市"),
}  # fmt: skip

_EN_PARTS: dict[str, Maker] = {
    "time": lambda rng: rng.choice(("yesterday", "last week", "on Monday", "last summer", "this morning", "in 2019", "last night", "two days ago", "on Friday", "in May", f"on {rng.choice(DAYS_EN)}", f"in {rng.choice(MONTHS_EN)}", f"on {rng.choice(MONTHS_EN)} {rng.randint(1, 28)}", f"in {rng.randint(1950, 2026)}", f"at {rng.randint(1, 12)} o'clock", f"{rng.randint(2, 9)} years ago")),
    "at": lambda rng: rng.choice(("in", "at", "near", "behind")) + " the " + _of_en("park;station;library;market;school;museum;airport;supermarket;beach;office;bakery;bookshop;cafe;hospital;cinema;garden;zoo;hotel;garage;pharmacy;mall;flea market")(rng),
    "place": _of_en("park;station;library;market;school;museum;airport;supermarket;beach;office;bakery;bookshop;cafe;hospital;cinema;zoo;bank;church;farm;gym;theater;lake"),
    "spot": lambda rng: rng.choice((lambda: "on the " + rng.choice(("first", "second", "third", "fourth", "top")) + " floor", lambda: rng.choice(("next to", "behind", "opposite", "across from", "near")) + " the " + _of_en("station;school;bank;church;post office;bridge;park;town hall;hospital;library")(rng), lambda: f"at {MAKERS['en.street'](rng)}", lambda: f"in room {rng.randint(2, 400)}", lambda: f"in building {rng.choice('ABCDE')}", lambda: "in the " + rng.choice(("basement", "main hall", "old town", "city center", "gym", "yard", "lobby"))))(),
    "keep": lambda rng: rng.choice(("in", "on", "under", "behind", "next to")) + " the " + _of_en("drawer;fridge;desk;shelf;sofa;bed;closet;doormat;flower pot;garage;kitchen table;red box;car;mailbox;cupboard;lamp;window")(rng),
    "city": lambda rng: word(rng, 2).capitalize() if rng.random() < 0.25 else rng.choice(TOWNS),
    "name": MAKERS["en.name"], "pet": MAKERS["en.petname"], "age": lambda rng: rng.choice((str(rng.randint(2, 99)), *"seven nine twelve twenty".split())), "year": MAKERS["en.year"], "clock": MAKERS["en.clock"],
    "job": lambda rng: an(rng.choice(JOBS_EN)), "food": lambda rng: word(rng, 2) if rng.random() < STRANGE else rng.choice(FOODS_EN), "hobby": lambda rng: rng.choice(HOBBIES_EN),
    "goods": lambda rng: an(rng.choice(("", "", "new ", "red ", "small ", "cheap ", "green ")) + _of_en("umbrella;lamp;bike;camera;phone;guitar;hat;book;watch;laptop;jacket;sofa;kite;clock;cake;tent;radio;scarf;car;chair;bag;toaster;ring;map;drill;coat;vase;notebook;mirror;kettle")(rng)),
    "own": _of_en("keys;wallet;phone;umbrella;passport;glasses;gloves;ticket;camera;watch;laptop;hat;ring;bag;notebook;scarf;jacket"),
    "animal": lambda rng: an(word(rng, 2) if rng.random() < STRANGE else rng.choice(ANIMALS_EN)),
    "money": lambda rng: rng.choice((f"{rng.randint(2, 999)} {rng.choice(('dollars', 'euros', 'pounds'))}", f"${rng.randint(2, 999)}", f"{rng.randint(2, 90)} euros")),
    "subject": _of_en("math;history;music;biology;English;art;physics;geography;chemistry;French", 0.0), "score": lambda rng: f"{rng.randint(30, 100)}", "book": MAKERS["en.book"], "tongue": _of_en("French;German;Spanish;Japanese;Italian;Greek;Arabic;Chinese;Russian", 0.05),
    "vehicle": _of_en("train;bus;car;bike;plane;ship;taxi;ferry;tram;boat", 0.0), "cause": _of_en(_CAUSES_EN, 0.05), "missed": _of_en("late;absent;sad;angry;tired;at home;not at school;in bed", 0.0), "km": lambda rng: f"{rng.randint(2, 900)} {rng.choice(('km', 'miles', 'kilometers', 'meters'))}",
    "n": lambda rng: rng.choice((str(rng.randint(2, 999)), "two", "three", "four", "five", "six", "ten", "twelve", "twenty")), "sib": _of_en("brothers;sisters;children;cousins;sons;daughters;cats;dogs;cars", 0.0), "kin": _of_en("mother;father;best friend;teacher;boss;neighbor;roommate;sister;brother;coach;doctor", 0.0), "code": MAKERS["code"], "tall": lambda rng: rng.choice((f"{rng.randint(120, 210)} cm", f"{rng.randint(5, 6)} feet")),
    "colour": lambda rng: rng.choice(COLOURS_EN), "hours": lambda rng: rng.choice(("two", "three", "five", str(rng.randint(2, 90)))) + " " + rng.choice(("hours", "minutes", "days", "weeks")), "long": lambda rng: rng.choice(("two", "three", "five", str(rng.randint(2, 30)))) + " " + rng.choice(("years", "months", "days", "weeks")), "weight": lambda rng: f"{rng.randint(2, 900)} {rng.choice(('grams', 'kg', 'pounds', 'tons'))}",
    "stuff": _of_en("wood;glass;steel;paper;silk;cotton;stone;plastic;leather;silver;bamboo;wool;clay"), "day": lambda rng: rng.choice(DAYS_EN) + "s", "size": lambda rng: f"{rng.randint(2, 300)} {rng.choice(('cm', 'meters', 'inches', 'feet'))}", "sells": _of_en("books;flowers;bread;cheese;shoes;toys;tea;fish;furniture;stamps;fruit;hats;phones;old records;garden tools"), "people": lambda rng: f"{rng.randint(3, 900)} {rng.choice(('people', 'guests', 'students', 'visitors', 'runners'))}",
    "theme": _of_en("the sea;robots;friendship;space;food;old maps;the environment;music;dinosaurs;the moon;peace;travel"), "date": lambda rng: rng.choice((f"{rng.choice(MONTHS_EN)} {rng.randint(1, 28)}", rng.choice(DAYS_EN), f"{rng.choice(DAYS_EN)} at {rng.randint(1, 12)} {rng.choice(('am', 'pm'))}")), "result": lambda rng: f"{rng.randint(0, 9)} to {rng.randint(0, 9)}", "feed": _of_en("grass;fish;leaves;insects;meat;bamboo;seeds;honey;fruit;nuts;mice;plants"), "home": _of_en("the forest;Africa;the desert;the sea;caves;the Arctic;trees;rivers;the mountains;South America;the jungle"),
    "forbid": _of_en("smoking;pets;photos;food;loud music;swimming;parking;phones;fishing;bikes", 0.03), "free": _of_en("children;students;seniors;members;teachers;soldiers", 0.03), "unit": _of_en("rooms;seats;tables;floors;books;employees;machines;windows;parking spaces", 0.0), "skill": _of_en("the piano;French;chess;swimming;cooking;the guitar;painting;karate;dancing;Spanish;coding"), "sky": _of_en("sunny;rainy;cloudy;foggy;windy;snowy;hot;cold", 0.0),
}  # fmt: skip
# tag | fact # part=question;…  @ may be the part: who or what it is told of.
_EN = {
    "who": """age|@ is [age]( years old|)#age=how old is @
home|@ (lives|lives) in [city]#city=where does @ live;city=(which|what) (city|town) does @ live in;@=who lives in [city]
comes|@ (comes from|was born in|grew up in) [city]#city=where (does @ come from|is @ from|was @ born|did @ grow up)
born|@ was born in [year]#year=when was @ born;year=(in which|what) year was @ born
job|@ (is|works as) [job]#job=what does @ do;job=what is @'s job;job=what does @ do for (work|a living);@=who is [job]
works|@ works (at|in) the [place]#place=where does @ work;@=who works (at|in) the [place]
likes|@ (likes|loves|enjoys) [hobby]#hobby=what does @ (like|love|enjoy)( doing| to do|);hobby=what is @'s hobby;@=who (likes|loves|enjoys) [hobby]
eats|@ (loves to eat|likes to eat|often eats) [food]#food=what does @ (like|love) to eat;food=what food does @ like;@=who likes [food]
hates|@ (hates|dislikes) [forbid]#forbid=what does @ (hate|dislike|not like)
fears|@ is afraid of [animal]#animal=what is @ afraid of;animal=what does @ fear
pet|@ has [animal]( called [pet]| named [pet]|)#animal=what (pet|animal) does @ have;pet=what is (@'s pet|the name of @'s pet) called;pet=what is the name of @'s (pet|animal)
sib|@ has [n] [sib]#n=how many [sib] does @ have
kin|@'s [kin] is (called |)[name]#name=who is @'s [kin];name=what is the name of @'s [kin]
number|@'s (phone number|room number|locker code|student number) is [code]#code=what is @'s (phone number|room number|locker code|student number)
bought|@ bought [goods]< [at]>< [time]>#goods=what did @ buy;at=where did @ buy [goods];time=when did @ buy [goods];@=who bought [goods]
sold|@ (sold|gave|lent) the [own] to [name]< [time]>#name=who did @ (sell|give|lend) the [own] to;own=what did @ (sell|give|lend) to [name];name=who got the [own]
lost|@ lost (his|her|the) [own]< [at]>< [time]>#own=what did @ lose;at=where did @ lose the [own];time=when did @ lose the [own];@=who lost the [own]
found|@ found [goods]< [at]>< [time]>#goods=what did @ find;at=where did @ find [goods];time=when did @ find [goods];@=who found [goods]
went|@ went to [city] by [vehicle]< [time]>#city=where did @ go;vehicle=how did @ (go|get|travel) to [city];time=when did @ go to [city];@=who went to [city]
visit|@ visited the [place] with [name]< [time]>#place=what did @ visit;name=who did @ visit the [place] with;name=with whom did @ visit the [place];time=when did @ visit the [place]
met|@ met [name]< [at]>< [time]>#name=who did @ meet;at=where did @ meet [name];time=when did @ meet [name]
gift|@ gave [name] [goods]< [time]>#goods=what did @ give [name];name=who did @ give [goods] to;goods=what did [name] get from @
cooked|@ (cooked|made|baked) [food]< [time]>#food=what did @ (cook|make|bake);time=when did @ (cook|make|bake) [food];@=who (cooked|made|baked) [food]
reads|@ is reading [book]#book=what is @ reading;book=which book is @ reading;@=who is reading [book]
wrote|@ wrote [book]< in [year]>#book=what did @ write;year=when did @ write [book];@=who wrote [book]
learns|@ is learning [skill]< with [name]>#skill=what is @ learning;name=who is @ learning [skill] with;@=who is learning [skill]
exam|@ got [score] points in [subject]#score=how many points did @ get in [subject];@=who got [score] points;subject=in what (subject|class) did @ get [score] points
ran|@ (ran|walked|drove) [km]< [time]>#km=how far did @ (run|walk|drive);time=when did @ (run|walk|drive) [km]
rises|@ (gets up|goes to bed|leaves home|has breakfast) at [clock]#clock=when does @ (get up|go to bed|leave home|have breakfast);clock=what time does @ (get up|go to bed|leave home|have breakfast)
why|@ was [missed] because of [cause]#cause=why was @ [missed]
plan|@ (plans|wants|is going) to visit [city](| next week| in spring| next month)#city=where (does @ want|does @ plan) to go;city=which city does @ want to visit
tall|@ is [tall] tall#tall=how tall is @
speaks|@ speaks [tongue]#tongue=(what|which) language does @ speak;@=who speaks [tongue]
waited|@ waited for [hours]#hours=how long did @ wait
lived|@ has lived in [city] for [long]#long=how long has @ lived in [city];city=where has @ lived for [long]
earns|@ earns [money] (a month|a week|an hour)#money=how much does @ earn
teaches|@ teaches [subject]#subject=what does @ teach;@=who teaches [subject]
plays|@ plays (the piano|the guitar|chess|football|tennis|the violin) with [name]#name=who does @ play (the piano|the guitar|chess|football|tennis|the violin) with
called|@ called [name]< [time]>#name=who did @ call;time=when did @ call [name]
married|@ married [name]< in [year]>#name=who did @ marry;year=when did @ marry [name]
won|@ won [n] (medals|games|races)#n=how many (medals|games|races) did @ win
drinks|@ drinks [n] cups of (tea|coffee|water|milk) a day#n=how many cups does @ drink
car|@ drives a [colour] car#colour=what color is @'s car;@=who drives a [colour] car
moves|@ moved to [city]< in [year]>#city=where did @ move to;year=when did @ move to [city];@=who moved to [city]""",
    "spot": """opens|@ opens at [clock]#clock=(when|what time) does @ open
closes|@ closes at [clock]#clock=(when|what time) does @ close;clock=until when is @ open
closed|@ is closed on [day]#day=when is @ closed;day=(which|what) day is @ closed
where|@ is [spot]#spot=where is @;spot=where can i find @;spot=where is @ located
sells|@ sells [sells]#sells=what does @ sell;sells=what can i buy (at|in) @
ticket|(a ticket|entry|admission) (for|to) @ costs [money]#money=how much (is a ticket|is entry|does entry cost) (for|to) @;money=what does (a ticket|entry) (for|to) @ cost
free|@ is free for [free]#free=who can (visit|enter) @ for free;free=for whom is @ free
seats|@ has [n] [unit]#n=how many [unit] does @ have;n=how many [unit] are there (in|at) @
boss|@ is (run|owned|managed) by [name]#name=who (runs|owns|manages) @
phone|the (phone number|wifi password|door code) of @ is [code]#code=what is the (phone number|wifi password|door code) of @
forbid|@ does not allow [forbid]#forbid=what is not allowed (in|at) @
dish|@ is famous for [food]#food=what is @ famous for;food=what is the specialty of @
built|@ was (built|opened) in [year]#year=when was @ (built|opened);year=(what|in which) year was @ (built|opened)
visitors|@ had [people] (last year|yesterday|on Sunday)#people=how many (people|visitors) did @ have
parking|parking at @ costs [money]#money=how much is parking at @;money=what does parking at @ cost
moved|@ moved to [city]#city=where did @ move( to|)""",
    "item": """price|@ costs [money]#money=how much (is|does) @( cost|);money=what does @ cost;money=what is the price of @
weight|@ weighs [weight]#weight=how (heavy is @|much does @ weigh)
colour|@ is [colour]#colour=what (color|colour) is @
from|@ (comes from|was made in) [city]#city=where (does @ come from|was @ made)
last|@ (runs|works|lasts) for [hours]#hours=how long does @ (run|work|last)
charge|it takes [hours] to charge @#hours=how long does it take to charge @
warranty|@ has a warranty of [long]#long=how long is the warranty( of @|)
size|@ is [size] (long|wide|high)#size=how (long|wide|high) is @
stuff|@ is made of [stuff]#stuff=what is @ made of
keep|@ is [keep]#keep=where is @;keep=where can i find @;keep=where do you keep @
maker|@ was (invented|designed|made|painted) by [name]#name=who (invented|designed|made|painted) @
owner|@ belongs to [name]#name=who does @ belong to;name=whose is @;name=who owns @
rent|renting @ costs [money] a day#money=how much is it to rent @;money=what does renting @ cost
gift|@ was a gift from [name]#name=who gave us @;name=who was @ a gift from
code|the (password|code|serial number) of @ is [code]#code=what is the (password|code|serial number) of @
fix|[name] can (fix|repair) @#name=who can (fix|repair) @""",
    "event": """when|@ (is|takes place|starts|begins) on [date]#date=when (is|does|will) @( start| begin| take place|);date=on which day is @;date=what is the date of @
where|@ (is|takes place|is held) [spot]#spot=where (is|does) @( take place| held|);spot=where will @ be
host|@ is (led|given|hosted|organized) by [name]#name=who (leads|gives|hosts|organizes) @
people|[people] (came to|signed up for|joined) @#people=how many (people|guests|visitors) (came to|signed up for|joined) @
winner|[name] won @#name=who won @
score|the score of @ was [result]#result=what was the score of @
why|@ was (cancelled|moved|delayed) because of [cause]#cause=why was @ (cancelled|moved|delayed)
deadline|the deadline for @ is [date]#date=(what|when) is the deadline for @
fee|@ costs [money]#money=how much (is|does) @( cost|);money=what does @ cost
lasts|@ lasts [hours]#hours=how long (is @|does @ last)
theme|the (topic|theme) of @ is [theme]#theme=what is the (topic|theme) of @;theme=what is @ about
bring|for @ you need to bring [goods]#goods=what (do i|should i|must i) bring to @;goods=what do i need for @
ends|@ ends at [clock]#clock=(when|what time) does @ end""",
    "org": """founder|@ was founded by [name]#name=who founded @
year|@ was founded in [year]#year=when was @ founded;year=(in which|what) year was @ founded
seat|@ is based in [city]#city=where is @ based;city=(in which|what) city is @
makes|@ (makes|produces|sells) [sells]#sells=what does @ (make|produce|sell)
staff|@ has [n] employees#n=how many (employees|people|workers) does @ have
boss|the (boss|director|head|manager) of @ is [name]#name=who is the (boss|director|head|manager) of @;name=who (runs|leads) @
income|@ (earned|lost|raised) [n] million dollars last year#n=how much( money|) did @ (earn|lose|raise)
opened|@ opened (an office|a shop|a school|a factory) in [city]#city=where did @ open (an office|a shop|a school|a factory)
hire|@ wants to hire [people]#people=how many people does @ want to hire
site|@'s (email|phone number|code) is [code]#code=what is @'s (email|phone number|code)""",
    "animal": """eats|@ eat [feed]#feed=what do @ eat
lives|@ live in [home]#home=where do @ live
age|@ (can live|live) for [long]#long=how long (can|do) @ live;long=how old (can|do) @ get
sleeps|@ sleep [hours] a day#hours=how long do @ sleep
weight|@ weigh( up to| about|) [weight]#weight=how (heavy are @|much do @ weigh)
fast|@ can (run|fly|swim) [km] an hour#km=how fast can @ (run|fly|swim)
colour|@ have [colour] (eyes|feathers|fur|tails)#colour=what color are the (eyes|feathers|tails) of @
fears|@ are afraid of [feed]#feed=what are @ afraid of""",
    "weather": """sky|it is [sky] in @ (today|tomorrow|now)#sky=(how is|what is) the weather( like|) in @( today| tomorrow|)
degree|it is [score] degrees in @#score=how (warm|hot|cold) is it in @;score=what is the temperature in @""",
}  # fmt: skip
_SUBJECTS_EN: dict[str, tuple[Maker, str]] = {
    "who": (lambda rng: rng.choice((MAKERS["en.name"](rng), rng.choice(FIRST), rng.choice(FIRST), f"{rng.choice(('Mr', 'Mrs', 'Dr', 'Uncle', 'Aunt'))} {rng.choice(FIRST)}", f"my {rng.choice(('brother', 'sister', 'uncle', 'neighbor', 'teacher', 'mother', 'cousin'))}")), "He"),
    "spot": (lambda rng: "the " + rng.choice(("", "", "new ", "old ", "city ", "school ", "hotel ", word(rng, 2).capitalize() + " ")) + rng.choice("library;museum;pool;gym;bakery;cafe;zoo;bookshop;restaurant;pharmacy;cinema;market;bank;park;post office;hotel;theater;gallery;canteen;castle".split(";")), "It"),
    "item": (lambda rng: rng.choice((f"the {word(rng, 2).capitalize()} {rng.choice(('phone', 'camera', 'watch', 'bike', 'speaker', 'lamp'))}", "the " + rng.choice(("", "", "red ", "new ", "old ", "big ")) + _of_en("printer;sofa;tent;robot;kettle;ladder;fridge;vase;clock;piano;drill;spare key;contract;telescope;map;blanket;toolbox;medicine;first aid kit;projector")(rng))), "It"),
    "event": (lambda rng: "the " + rng.choice(("", "", "school ", "next ", "annual ", "summer ", word(rng, 2).capitalize() + " ")) + rng.choice("meeting;concert;wedding;race;exhibition;party;workshop;exam;picnic;festival;lecture;marathon;interview;book club;football match;fair;tour;auction;training;conference".split(";")), "It"),
    "org": (lambda rng: rng.choice((MAKERS["en.company"](rng), word(rng, 2).capitalize() + rng.choice((" Farm", " Club", " Press", " Studio", " School")), rng.choice("Blue Sky;Green Leaf;North Star;Sunrise;Silver Lake".split(";")) + rng.choice((" Ltd", " School", " Books", " Motors", " Foods")))), "It"),
    "animal": (lambda rng: word(rng, 2) + "s" if rng.random() < 0.2 else rng.choice("penguins;camels;elephants;bees;tigers;dolphins;whales;giraffes;kangaroos;turtles;wolves;koalas;sloths;owls;foxes;pandas;polar bears;hedgehogs;eagles;frogs".split(";")), "They"),
    "weather": (lambda rng: rng.choice(TOWNS), ""),
}  # fmt: skip

_ALIKE = (
    {"where", "moved", "seat", "opened", "keep", "gather", "opens", "closes", "closed", "when", "ends", "door", "sign", "deadline", "lines"},
    {"price", "ticket", "ticket2", "fee", "rent", "prize", "parking"},
    {"home", "comes", "born", "stays", "moves", "lived", "hospital"},
    {"likes", "eats", "plays", "learns", "learned", "skill", "speaks", "reads"},
    {"went", "visit", "plan", "met", "commute"},
    {"job", "works", "teaches", "school", "grade"},
    {"bought", "gift", "sold", "lent", "lost", "found", "planted", "married", "phones", "called", "owner", "maker"},
    {"host", "host2", "org", "winner", "boss", "founder", "head", "found", "bring"},
    {"year", "built"},
    {"sky", "wind", "rain", "degree", "cold"},
    {"pet", "petname"},
    {"people", "staff", "hire", "visitors", "seats", "clients"},
    {"special", "dish", "makes", "sells", "fair", "flower", "month"},
    {"last", "charge", "warranty", "keeps", "lasts", "until", "cook"},
    {"weight", "heavy", "size", "holds", "area", "high", "long", "tall"},
    {"hates", "fears", "forbid"},
    {"code", "phone", "number", "site"},
    {"age", "birthday"},
)  # fmt: skip
"""Tags of facts that some question could be meant for alike: of one subject, one of them is told, and no other is asked."""


def _near(one: str, other: str) -> bool:
    return one == other or any(one in tags and other in tags for tags in _ALIKE)


_SLOT = re.compile(r"\[(\w+)(!?)\]")
_OPTIONAL = re.compile(r"<([^<>]*)>")
_FILLERS = (
    "大家都很高兴。",
    "天气不错。",
    "其他情况还不清楚。",
    "这件事大家都知道。",
    "欢迎来电咨询。",
    "请大家互相转告。",
)
_FILLERS_EN = ("Everybody was happy.", "More news will follow.", "The weather was fine.", "Please tell your friends.", "All are welcome.")  # fmt: skip


class _Rule(NamedTuple):
    tag: str
    says: str
    asks: tuple[tuple[str, str], ...]
    """Of other questions: the part, and the pattern."""


def _rules(text: str, mark: str) -> tuple[_Rule, ...]:
    rules = []
    for line in text.splitlines():
        tag, _, rest = line.partition("|")
        says, _, asks = rest.partition("#")
        pairs = (ask.partition(mark) for ask in asks.split(";") if ask)
        rules.append(_Rule(tag, says, tuple((part, ask) for part, _, ask in pairs)))
    return tuple(rules)


RULES = {name: _rules(text, ">") for name, text in _ZH.items()}
RULES_EN = {name: _rules(text, "=") for name, text in _EN.items()}


@dataclass
class _Fact:
    """Something that is told of a subject.

    Attributes:
        text: with @ for the subject, and [parts]; `whole` has the parts that may be left out between <>.
        values: of the parts.
    """

    rule: _Rule
    subject: str
    whole: str
    text: str
    values: dict[str, str]

    def said(self, subject: str | None = None) -> str:
        return _filled(self.text, self.values).replace("@", self.subject if subject is None else subject)


def _filled(text: str, values: dict[str, str]) -> str:
    return _SLOT.sub(lambda found: values[found[1]], text)


class _Texts:
    """Texts of one language."""

    def __init__(self, rng: Random, chinese: bool) -> None:
        self.rng, self.chinese = rng, chinese
        self.rules = RULES if chinese else RULES_EN

    def value(self, part: str) -> str:
        return _PARTS[part][0](self.rng) if self.chinese else _EN_PARTS[part](self.rng)

    def subject(self, kind: str) -> str:
        return (_SUBJECTS[kind][0] if self.chinese else _SUBJECTS_EN[kind][0])(self.rng)

    def fact(self, rule: _Rule, subject: str) -> _Fact:
        """A fact, its alternatives chosen and its parts filled."""
        rng = self.rng
        whole = choose(rng, rule.says)
        text = _OPTIONAL.sub(lambda found: found[1] if rng.random() < 0.6 else "", whole)
        values: dict[str, str] = {}
        for part, _ in _SLOT.findall(whole):
            made = self.value(part)
            while made == subject or made in values.values():
                made = self.value(part)
            values[part] = made
        return _Fact(rule, subject, whole, text, values)

    def told_parts(self, fact: _Fact) -> list[str]:
        """Parts that the text has and that can be asked for."""
        if self.chinese:
            return [part for part, quiet in _SLOT.findall(fact.text) if not quiet and _PARTS[part][1]]
        there = {part for part, _ in _SLOT.findall(fact.text)}
        return [part for part in dict.fromkeys(part for part, _ in fact.rule.asks) if part in there]

    def question(self, fact: _Fact, part: str, values: dict[str, str] | None = None, subject: str | None = None) -> str:
        """Words that ask for a part of a fact: in Chinese mostly the fact's own."""
        rng = self.rng
        values = fact.values if values is None else values
        subject = fact.subject if subject is None else subject
        more = [ask for name, ask in fact.rule.asks if name == part]
        if more and (
            not self.chinese or part not in [name for name, _ in _SLOT.findall(fact.whole)] or rng.random() < 0.6
        ):
            # Choices that the fact made are made again.
            made = _alike(rng, fact.whole, rng.choice(more))
            return _filled(made, values).replace("@", subject)
        if part == "@":
            asks = rng.choice(_SUBJECTS[self.kind_of(fact)][2].split("/"))
            text = _OPTIONAL.sub(
                lambda found: found[1] if rng.random() < 0.4 and found[1] in fact.text else "", fact.whole
            )
            return _filled(text, values).replace("@", asks)
        word_for = rng.choice(_PARTS[part][1].split("/"))

        def kept(found: re.Match[str]) -> str:
            inside = found[1]
            if f"[{part}]" in inside:
                return inside
            return inside if inside in fact.text and rng.random() < 0.4 else ""

        text = _OPTIONAL.sub(kept, fact.whole).strip("，")
        if "，" in text:  # what was asked for stands in one of two clauses
            clause = next(clause for clause in text.split("，") if f"[{part}]" in clause)
            text = clause if "@" in clause else "@" + text.split("，")[0].removeprefix("@") + "，" + clause
        if word_for.startswith(("什么时候", "哪", "几")) and rng.random() < 0.25:
            text = re.sub("了(?=\\[)", "的", text, count=1)
        text = text.replace(f"[{part}]", word_for, 1)
        return _filled(text, values).replace("@", subject)

    def kind_of(self, fact: _Fact) -> str:
        return next(kind for kind, rules in self.rules.items() if fact.rule in rules)


def _alike(rng: Random, said: str, ask: str) -> str:
    """A pattern whose choices are those that the fact made, where it made them."""
    while (found := re.search(r"\(([^()]*)\)", ask)) is not None:
        options = found[1].split("|")
        same = [each for each in options if len(each) > 1 and _stem(each) in said]
        picked = rng.choice(same or options)
        ask = ask[: found.start()] + picked + ask[found.end() :]
    return ask


def _stem(text: str) -> str:
    """As far as English verbs have it in all their forms."""
    return text.removeprefix("the ")[:4] if text.isascii() and len(text) > 4 else text


def plain(rng: Random, split: Split) -> Sample:
    """A short text, and one to four questions about it."""
    return draw(rng, split, lambda: _plain(rng, split), _first)


def _plain(rng: Random, split: Split) -> Sample:
    chinese = rng.random() < 0.62
    texts = _Texts(rng, chinese)
    kinds = rng.choices(
        list(texts.rules), [len(rules) + 4 for rules in texts.rules.values()], k=rng.choice((1, 1, 2, 2, 3))
    )
    if rng.random() < 0.35:
        kinds = [kinds[0]] * rng.choice((2, 2, 3))
    told: list[_Fact] = []
    untold: list[_Fact] = []
    sentences: list[str] = []
    answers: list[tuple[_Fact, str, int]] = []
    subjects: list[str] = []
    for kind in kinds:
        subject = texts.subject(kind)
        while any(subject in other or other in subject for other in subjects):
            subject = texts.subject(kind)
        subjects.append(subject)
        rules = rng.sample(texts.rules[kind], min(len(texts.rules[kind]), rng.choice((1, 1, 2, 2, 3, 3, 4))))
        if rng.random() < 0.5 and told and kinds[0] == kind:  # the same as is told of another
            rules = _shared(rng, told, rules, texts.rules[kind])
        rules = [rule for place, rule in enumerate(rules) if not any(_near(rule.tag, r.tag) for r in rules[:place])]
        facts = [texts.fact(rule, subject) for rule in rules]
        told += facts
        untold += [
            texts.fact(rule, subject)
            for rule in texts.rules[kind]
            if not any(_near(rule.tag, fact.rule.tag) for fact in facts)
        ]
        pronoun = _pronoun(rng, chinese, kind, subject)
        for sentence, inside in _sentences(rng, chinese, kind, facts, pronoun):
            if chinese and sentences and rng.random() < 0.12:  # 李明住在南京，王芳住在苏州。
                sentence = sentences.pop()[:-1] + "，" + sentence
            answers += [(fact, answer, len(sentences)) for fact, answer in inside]
            sentences.append(sentence)
    if rng.random() < 0.15:
        sentences.insert(len(sentences), rng.choice(_FILLERS if chinese else _FILLERS_EN))
    asked: list[Question] = []
    for _ in range(rng.choice((1, 1, 2, 3, 4)) if split == "train" else 1):
        made = _untold(rng, texts, told, untold, subjects) if rng.random() < UNTOLD else None
        if made is not None:
            asked.append(Question(made, None, NONE_ZH if chinese else NONE_EN))
            continue
        fact, answer, place = rng.choice(answers)
        parts = texts.told_parts(fact)
        if _alone(fact, told) and rng.random() < 0.2 and _asks_subject(texts, fact):
            parts = ["@"]
        if not parts:
            continue
        core = texts.question(fact, rng.choice(parts))
        if len(subjects) == 1 and rng.random() < 0.25:
            core = _unnamed(rng, core, subjects[0], pronoun, chinese)
        asked.append(Question(core, answer, "", place))
    if not asked:
        return _plain(rng, split)
    return _dialogue(rng, split, chinese, sentences, asked, (3, 1, 6))


def _pronoun(rng: Random, chinese: bool, kind: str, subject: str) -> str:
    """Of a subject, in the third person."""
    if chinese:
        return rng.choice(_SUBJECTS[kind][1])
    if kind != "who":
        return _SUBJECTS_EN[kind][1]
    feminine = subject.split()[-1] in {*WOMEN, "sister", "mother"} or "Mrs" in subject or "Aunt" in subject
    return "She" if feminine else "He"


def _unnamed(rng: Random, core: str, subject: str, pronoun: str, chinese: bool) -> str:
    """A question about the one subject of a text, which it does not name."""
    if not pronoun:
        return core
    if chinese:
        short = core.replace(subject, "", 1).removeprefix("的") if rng.random() < 0.5 else ""
        return short if len(short) > 3 else core.replace(subject, pronoun)
    own = {"She": "her", "He": "his", "It": "its", "They": "their"}[pronoun]
    return core.replace(f"{subject}'s", own).replace(subject, pronoun.lower())


def _shared(rng: Random, told: Sequence[_Fact], rules: Sequence[_Rule], allowed: Sequence[_Rule]) -> list[_Rule]:
    """Rules of which some have been told of another subject."""
    before = [fact.rule for fact in told if fact.rule in allowed]
    return list(dict.fromkeys((*rng.sample(before, min(len(before), 2)), *rules)))[:4]


def _alone(fact: _Fact, told: Sequence[_Fact]) -> bool:
    """Whether nothing like it is told of another."""
    return sum(other.rule is fact.rule for other in told) == 1


def _asks_subject(texts: _Texts, fact: _Fact) -> bool:
    """Whether it can be asked of whom a fact is told."""
    if not texts.chinese:
        return any(part == "@" for part, _ in fact.rule.asks)
    asks = _SUBJECTS[texts.kind_of(fact)][2]
    return bool(asks and _SLOT.search(_OPTIONAL.sub("", fact.whole))) and not fact.rule.tag.startswith(
        ("why", "friend")
    )


def _sentences(
    rng: Random, chinese: bool, kind: str, facts: Sequence[_Fact], pronoun: str
) -> list[tuple[str, list[tuple[_Fact, str]]]]:
    """Facts about one subject as sentences: joined by commas, or with a pronoun, or each by itself; and each fact's answer."""
    stop = "。" if chinese else "."
    look = rng.random()
    made: list[tuple[str, list[tuple[_Fact, str]]]] = []
    for fact in facts:
        whole = fact.said() + stop if chinese else upper(fact.said()) + stop
        first_ = fact.text.startswith("@") and not fact.text.startswith("@'s") and "@" not in fact.text[1:]
        if made and first_ and look < 0.35 and chinese and not fact.text.startswith(("@的", "@里")):
            sentence, inside = made.pop()
            made.append((sentence[:-1] + "，" + fact.said("") + stop, [*inside, (fact, whole)]))
        elif made and first_ and look < 0.2 and not chinese and kind == "who":
            sentence, inside = made.pop()
            joint = " and " if " and " not in sentence else ", and "
            made.append((sentence[:-1] + joint + fact.said("").strip() + stop, [*inside, (fact, whole)]))
        elif made and first_ and look < 0.7 and pronoun:
            made.append((fact.said(pronoun) + stop, [(fact, whole)]))
        else:
            made.append((whole, [(fact, whole)]))
    return made


def _untold(
    rng: Random, texts: _Texts, told: Sequence[_Fact], untold: Sequence[_Fact], subjects: Sequence[str]
) -> str | None:
    """A question that comes near and that nothing answers."""
    luck = rng.random()
    fact = rng.choice(told)
    if luck < 0.4 and untold:  # something else of the same one
        other = rng.choice(untold)
        parts = texts.told_parts(other)
        return texts.question(other, rng.choice(parts)) if parts else None
    parts = texts.told_parts(fact)
    if luck < 0.75 and parts and "@" in fact.text:  # the same of somebody else
        kind = texts.kind_of(fact)
        others = [each.subject for each in told if texts.kind_of(each) == kind]
        others = [
            each for each in others if not any(f.subject == each and _near(f.rule.tag, fact.rule.tag) for f in told)
        ]
        stranger = rng.choice(others) if others and rng.random() < 0.5 else texts.subject(kind)
        if any(stranger in each or each in stranger for each in subjects if each != stranger) or (
            stranger in subjects and stranger not in others
        ):
            return None
        return texts.question(fact, rng.choice(parts), subject=stranger)
    left_out = [
        part for part, quiet in _SLOT.findall(fact.whole) if f"[{part}]" not in fact.text and not quiet
    ]  # the time, where none is told
    if left_out and (texts.chinese or any(part == left_out[0] for part, _ in fact.rule.asks)):
        return texts.question(fact, left_out[0])
    values = dict(fact.values)
    swappable = [
        part
        for part, quiet in _SLOT.findall(_OPTIONAL.sub("", fact.whole))
        if part in values and part not in ("when", "time")
    ]
    if len(swappable) > 1 and parts:
        target = rng.choice(parts)
        rest = [part for part in swappable if part != target]
        if rest and all(f"[{part}]" in fact.text for part in rest):
            swapped = rng.choice(rest)
            values[swapped] = texts.value(swapped)
            if values[swapped] != fact.values[swapped]:
                made = texts.question(fact, target, values)
                return made if values[swapped] in made else None
    return None
