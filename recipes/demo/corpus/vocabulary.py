"""Words that passages, personas and memories are filled with: kinds of values in Chinese and in English."""

# ruff: noqa: SIM905
from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

from .base import CITIES, FIRST, GIVEN, SURNAMES, TOWNS, Split, draw, known, nonsense
from .base import word as any_word

Maker = Callable[[Random], str]

FOODS = "红烧肉 小笼包 饺子 牛肉面 麻婆豆腐 烤鸭 火锅 寿司 汤圆 粽子 西瓜 草莓蛋糕 糖醋排骨 番茄炒蛋 炸酱面 兰州拉面 葱油饼 豆浆油条 臭豆腐 凉皮 肉夹馍 烧麦 炒年糕 酸菜鱼 辣子鸡 鱼香肉丝 冰淇淋 巧克力 芒果 榴莲 桂花糕 煎饼果子 螺蛳粉 羊肉串 皮蛋粥 红豆汤 南瓜饼 咖喱饭 蛋炒饭 馄饨 春卷 月饼 荔枝 葡萄 橘子 糖葫芦 烤红薯 酸奶 花生糖 绿豆糕 米线 热干面 土豆泥 海鲜粥".split()  # fmt: skip
HOBBIES = "下棋 钓鱼 爬山 画画 唱歌 跳舞 看书 写诗 摄影 骑车 打篮球 踢足球 游泳 滑雪 种花 做饭 养鱼 集邮 弹吉他 拉小提琴 练书法 看电影 打羽毛球 跑步 瑜伽 剪纸 织毛衣 做木工 修钟表 观星 放风筝 玩桌游 逛博物馆 听戏 喝茶 露营 打太极 折纸 拼图 收集石头 养多肉 吹笛子 打乒乓球 学外语 写日记 滑冰 攀岩 冲浪 做陶艺 烤面包".split()  # fmt: skip
JOBS = "老师 医生 护士 厨师 律师 司机 画家 作家 记者 警察 工程师 会计 演员 歌手 导游 农民 渔夫 木匠 铁匠 裁缝 邮递员 图书管理员 宇航员 船长 飞行员 翻译 设计师 程序员 理发师 摄影师 消防员 侦探 考古学家 天文学家 花匠 面包师 钢琴家 魔术师 教练 编辑 药剂师 兽医 建筑师 售货员 诗人 剑客 茶艺师 钟表匠 猎人 守林人 快递员 牙医 校长".split()  # fmt: skip
COLOURS = "红 橙 黄 绿 青 蓝 紫 粉 灰 棕 金 银 米 咖啡 墨绿 天蓝 橘黄 玫红 藏青 杏 象牙 柠檬 葡萄紫 宝石蓝 草绿 湖蓝 砖红 奶油 黑 白".split()  # fmt: skip
ANIMALS = "猫 狗 兔子 仓鼠 鹦鹉 乌龟 松鼠 刺猬 狐狸 小猪 猫头鹰 鸭子 羊 猴子 八哥 蜥蜴 龙猫 鸽子".split()  # fmt: skip
TEMPERS = "温柔 活泼 开朗 幽默 严肃 害羞 乐观 急躁 沉稳 细心 勇敢 热情 冷静 固执 善良 调皮 直爽 谦虚 懒散 骄傲 安静 好奇 大方 机灵 慢热 豪爽 谨慎 浪漫".split()  # fmt: skip
CATCHES = "好嘞 没问题 包在我身上 真有意思 说得对 就这么办 哎呀呀 天哪 不得了 慢慢来 走着瞧 妙啊 岂有此理 加油哦 老天爷 原来如此 多大点事 有意思有意思 喵呜 嘿嘿 你说是不是 一切都会好的 冲啊 莫着急 海阔天空 太棒了 别担心 我的乖乖 人生如茶 星星作证 那还用说 且听风吟 咱们走".split()  # fmt: skip
THINGS = "台灯 雨伞 书包 水杯 耳机 手表 风扇 电动车 自行车 相机 音箱 键盘 茶壶 陶碗 竹篮 毛毯 木椅 钢笔 地图 风筝 镜子 羽绒服 皮鞋 蜂蜜 茶叶 大米 苹果 核桃 豆腐 丝绸 灯笼 瓷器 玩具 肥皂 蜡烛 果酱 面粉 纸扇 铁锅 机器人 显微镜 望远镜 电池 饼干 药材 香皂 二胡 剪刀 帐篷 滑板".split()  # fmt: skip
SPORTS = "篮球 足球 排球 网球 乒乓球 羽毛球 游泳 跑步 滑雪 滑冰 射箭 击剑 拳击 体操 马拉松 举重 柔道 攀岩 划船 跳水 橄榄球 棒球 台球 保龄球 高尔夫 太极拳 武术 跳绳 冲浪 骑马".split()  # fmt: skip
DREAMS = "环游世界 开一家书店 去看极光 写一本小说 登上月球 学会飞翔 造一艘大船 找到失散的哥哥 当上船长 建一座花园 拍一部电影 种一片森林 成为冠军 买一个小岛 治好所有的病 开一家面馆 见到大海 解开古城之谜 养一百只猫 画遍名山".split()  # fmt: skip
PLANS = "去爬山 看电影 在家睡觉 去海边 回老家 打扫房间 去图书馆 学做菜 看画展 去野餐 陪孩子去动物园 和朋友吃火锅 加班 去钓鱼 逛公园 看球赛 去露营 听音乐会 搬家 去医院看奶奶 修自行车 种菜 写报告 去剪头发 打羽毛球".split()  # fmt: skip
SPOTS = "抽屉 鞋柜 书架 枕头 冰箱 沙发 窗台 书桌 背包 衣柜 床头柜 茶几 花盆 门口 车座 洗衣机 餐桌 电视柜 行李箱 饼干盒 米缸 鱼缸 钢琴 工具箱 大衣口袋".split()  # fmt: skip
BOOKS = "春 风 海 山 月 星 河 梦 城 雪 夜 光 花 影 云 树 火 雨 秋 岛 鹿 鲸 镜 塔 桥 灯 钟 船 门 路 歌 茶 石 鸟 沙 雾".split()  # fmt: skip
PLACES = "北 南 东 西 新 老 青 白 金 银 龙 凤 云 星 月 松 竹 梅 兰 桂 海 河 湖 江 山 泉 石 花 木 和 平 安 康 明 光 华 天 长 永 福 春 秋 丰 宝 清 红 玉 景 文 学".split()  # fmt: skip

FOODS_EN = "pizza;fried rice;apple pie;noodles;tomato soup;pancakes;chocolate;ice cream;sushi;dumplings;roast chicken;mushroom stew;cheese toast;fish and chips;lentil soup;strawberry jam;curry;tacos;lasagna;potato salad;honey cake;onion rings;spring rolls;blueberry muffins;grilled salmon;garlic bread;pumpkin pie;rice pudding;beef stew;waffles;mango;watermelon;cherries;popcorn;peanut butter".split(";")  # fmt: skip
HOBBIES_EN = "playing chess;fishing;painting;singing;dancing;reading;writing poems;taking photos;cycling;swimming;skiing;gardening;cooking;knitting;playing the guitar;playing the violin;hiking;running;stargazing;flying kites;collecting stamps;collecting stones;baking bread;surfing;climbing;sailing;birdwatching;playing football;repairing clocks;learning languages;yoga;camping;pottery;juggling;drawing comics".split(";")  # fmt: skip
JOBS_EN = "teacher;doctor;nurse;cook;lawyer;driver;painter;writer;reporter;police officer;engineer;accountant;actor;singer;tour guide;farmer;fisherman;carpenter;blacksmith;tailor;postman;librarian;astronaut;captain;pilot;translator;designer;programmer;barber;photographer;firefighter;detective;gardener;baker;pianist;magician;coach;editor;vet;architect;poet;watchmaker;hunter;dentist;plumber;wizard".split(";")  # fmt: skip
COLOURS_EN = (
    "red;orange;yellow;green;blue;purple;pink;grey;brown;black;white;golden;silver;beige;violet;turquoise".split(";")
)
SHADES_EN = ["", "", "", "light ", "dark ", "pale ", "bright ", "deep ", "soft "]
ANIMALS_EN = "cat dog rabbit hamster parrot turtle squirrel hedgehog fox pig pony duck goat monkey goldfish lizard pigeon mouse".split()  # fmt: skip
TEMPERS_EN = "gentle;lively;cheerful;funny;serious;shy;optimistic;impatient;calm;careful;brave;warm;cool;stubborn;kind;naughty;honest;modest;lazy;proud;quiet;curious;generous;clever;dreamy;grumpy;patient;romantic".split(";")  # fmt: skip
CATCHES_EN = "Holy cow;No problem;You bet;My goodness;Easy peasy;Off we go;Good grief;Well well;By my beard;What a day;Trust me;Fair enough;Oh dear;Let it shine;Never give up;Ahoy;Cheers;As the stars say;Bless you;That is life;Onwards;Dear me;Just like that;Rise and shine".split(";")  # fmt: skip
THINGS_EN = "lamps;umbrellas;bags;cups;headphones;watches;fans;scooters;bicycles;cameras;speakers;keyboards;teapots;bowls;baskets;blankets;chairs;pens;maps;kites;mirrors;jackets;shoes;honey;tea;rice;apples;walnuts;cheese;silk;lanterns;toys;soap;candles;jam;flour;robots;telescopes;batteries;biscuits;tents;ropes;violins;knives;clocks".split(";")  # fmt: skip
SPORTS_EN = "basketball football volleyball tennis badminton swimming running skiing skating archery fencing boxing gymnastics rowing rugby baseball golf hockey cricket judo karate sailing cycling surfing climbing handball".split()  # fmt: skip
DREAMS_EN = "to travel around the world;to open a bookshop;to see the northern lights;to write a novel;to walk on the moon;to learn to fly;to build a ship;to find a lost brother;to become a captain;to plant a forest;to make a film;to win a gold medal;to own an island;to open a bakery;to see the ocean;to meet a dragon;to play in a band;to climb the highest mountain".split(";")  # fmt: skip
PLANS_EN = "go hiking;watch a film;sleep at home;go to the beach;visit my parents;clean the house;go to the library;learn to cook;have a picnic;go to the zoo;work late;go fishing;watch a match;go camping;move house;fix my bike;plant tomatoes;write a report;get a haircut;play badminton;bake a cake;paint the door;see a concert;visit a museum".split(";")  # fmt: skip
SPOTS_EN = "drawer;shoe rack;bookshelf;pillow;fridge;sofa;desk;backpack;wardrobe;tea table;flower pot;front door;car seat;washing machine;dinner table;suitcase;biscuit tin;piano;tool box;lunch box;mailbox;bed;window;doormat;blue bowl".split(";")  # fmt: skip
NOUNS_EN = "river moon garden winter lantern shadow island mountain bridge mirror tower fox whale storm clock forest harbor star glass snow road song stone bird sand fire window night rain valley".split()  # fmt: skip
ADJECTIVES_EN = "green silent golden old red hidden northern lost silver quiet blue broken long bright little wild secret white distant sleeping".split()  # fmt: skip
MONTHS_EN = "January February March April May June July August September October November December".split()  # fmt: skip
DAYS_EN = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()  # fmt: skip
known(
    (
        *FOODS,
        *HOBBIES,
        *JOBS,
        *COLOURS,
        *ANIMALS,
        *TEMPERS,
        *CATCHES,
        *THINGS,
        *SPORTS,
        *DREAMS,
        *PLANS,
        *SPOTS,
        *BOOKS,
        *PLACES,
        *FOODS_EN,
        *HOBBIES_EN,
        *JOBS_EN,
        *COLOURS_EN,
        *ANIMALS_EN,
        *TEMPERS_EN,
        *CATCHES_EN,
        *THINGS_EN,
        *SPORTS_EN,
        *DREAMS_EN,
        *PLANS_EN,
        *SPOTS_EN,
        *NOUNS_EN,
        *ADJECTIVES_EN,
        *MONTHS_EN,
        *DAYS_EN,
    )
)


_RUDE = re.compile("(?i)cock|cum|pee|poo|bum|ass|tit|gay|sex|nig|dick|fuc|fag")


def word(rng: Random, syllables: int) -> str:
    """A made-up word that means nothing unwanted."""
    while _RUDE.search(made := any_word(rng, syllables)):
        pass
    return made


def _open(values: Sequence[str], share: float = 0.2) -> Maker:
    """A list, or nonsense in Chinese."""
    return lambda rng: nonsense(rng) if rng.random() < share else rng.choice(values)


def _open_en(values: Sequence[str], share: float = 0.2) -> Maker:
    return lambda rng: word(rng, rng.randint(2, 3)) if rng.random() < share else rng.choice(values)


def _person(rng: Random) -> str:
    if rng.random() < 0.15:
        return nonsense(rng)
    return rng.choice(SURNAMES) + "".join(rng.choices(GIVEN, k=rng.choice((1, 2, 2))))


def _name_en(rng: Random) -> str:
    return word(rng, rng.randint(1, 3)).capitalize() if rng.random() < 0.5 else rng.choice(FIRST)


def _place(rng: Random) -> str:
    return nonsense(rng, 2) if rng.random() < 0.25 else rng.choice(PLACES) + rng.choice(PLACES)


def _clock(rng: Random) -> str:
    return rng.choice(("早上{}点{}", "上午{}点{}", "{}点{}")).format(
        rng.randint(6, 11), rng.choice(("", "", "半", "一刻", "十分", "二十分", "四十分", "五十分"))
    )


def _clock_en(rng: Random) -> str:
    return f"{rng.randint(1, 12)}{rng.choice(('', ':15', ':30', ':45'))} {rng.choice(('am', 'pm'))}"


def _code(rng: Random) -> str:
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
    return rng.choice((
        lambda: "".join(rng.choices("0123456789", k=rng.randint(3, 6))),
        lambda: rng.choice(letters) + str(rng.randint(1, 9999)),
        lambda: "".join(rng.choices(letters, k=2)) + "-" + str(rng.randint(10, 999)),
        lambda: word(rng, 2) + str(rng.randint(1, 99)),
    ))()  # fmt: skip


def _thing_name(rng: Random) -> str:
    """The name of a product: Latin letters and figures, or Chinese."""
    if rng.random() < 0.5:
        return _code(rng)
    return _place(rng) + rng.choice(("一号", "二代", "三号", "牌", "Pro", "X", "7", "9"))


# fmt: off
MAKERS: dict[str, Maker] = {
    "person": _person,
    "name": lambda rng: ("小" + rng.choice(GIVEN)) if rng.random() < 0.15 else _person(rng),
    "petname": lambda rng: (
        nonsense(rng, 2)
        if rng.random() < 0.3
        else rng.choice(("小", "阿", "大", "", "毛", "豆")) + rng.choice("白黑花黄豆球米糖福宝旺咪妞虎灰雪橙桃团墨乐欢")
        + rng.choice(("", "", "豆", "宝", "球", "仔", "儿"))
    ),
    "city": lambda rng: rng.choice(CITIES) if rng.random() < 0.85 else nonsense(rng, 2),
    "food": _open(FOODS),
    "hobby": _open(HOBBIES),
    "job": _open(JOBS, 0.15),
    "colour": lambda rng: nonsense(rng, 1) + "色" if rng.random() < 0.2 else rng.choice(("", "", "浅", "深", "淡")) + rng.choice(COLOURS) + "色",
    "animal": _open(ANIMALS, 0.1),
    "temper": lambda rng: rng.choice(TEMPERS) if rng.random() < 0.5 else "又".join(("", *rng.sample(TEMPERS, 2))),
    "catch": _open(CATCHES),
    "thing": _open(THINGS),
    "ingredient": _open("面粉 糯米 鸡蛋 豆腐 南瓜 红豆 绿豆 花生 莲子 土豆 番茄 白菜 萝卜 蘑菇 牛肉 羊肉 鱼肉 虾仁 山药 玉米 芝麻 核桃 红枣 小米 芋头".split()),
    "sport": _open(SPORTS, 0.15),
    "dream": lambda rng: "学会" + nonsense(rng, 2) if rng.random() < 0.15 else rng.choice(DREAMS),
    "plan": lambda rng: "去" + rng.choice(CITIES) + rng.choice(("玩", "出差", "看朋友")) if rng.random() < 0.4 else rng.choice(PLANS),
    "spot": lambda rng: (nonsense(rng, 2) if rng.random() < 0.15 else rng.choice(SPOTS)) + rng.choice(("里", "上", "下面", "旁边", "后面")),
    "book": lambda rng: "《" + (nonsense(rng) if rng.random() < 0.3 else rng.choice(BOOKS) + rng.choice(("之", "与", "中的", "下的", "")) + rng.choice(BOOKS)) + "》",
    "school": lambda rng: _place(rng) + rng.choice(("小学", "中学", "大学", "学院", "第一中学", "实验学校")),
    "company": lambda rng: _place(rng) + rng.choice(("公司", "集团", "科技", "工厂", "银行")),
    "street": lambda rng: _place(rng) + rng.choice(("路", "街", "大道", "巷")) + rng.choice(("", f"{rng.randint(1, 300)}号")),
    "age": lambda rng: str(rng.randint(3, 99)),
    "figure": lambda rng: str(rng.randint(2, 99) if rng.random() < 0.5 else rng.randint(100, 9999)),
    "year": lambda rng: f"{rng.randint(1700, 2025)}年",
    "money": lambda rng: f"{rng.choice((rng.randint(2, 99), rng.randint(100, 9999)))}{rng.choice(('元', '块', '块钱'))}",
    "date": lambda rng: f"{rng.randint(1, 12)}月{rng.randint(1, 28)}日",
    "month": lambda rng: f"{rng.randint(1, 12)}月" if rng.random() < 0.3 else f"{rng.randint(1, 12)}月{rng.randint(1, 28)}号",
    "day": lambda rng: f"{rng.randint(1, 12)}月{rng.randint(1, 28)}号",
    "clock": _clock,
    "hours": lambda rng: f"{_clock(rng)}到{rng.choice(('晚上', '下午', '傍晚'))}{rng.randint(3, 9)}点",
    "weekday": lambda rng: rng.choice(("周", "星期", "每周", "每逢周")) + rng.choice("一二三四五六日") + rng.choice(("", "", "上午", "下午", "晚上")),
    "phone": lambda rng: "".join(rng.choices("0123456789", k=rng.choice((5, 7, 8)))),
    "people": lambda rng: f"{rng.choice((rng.randint(3, 99), rng.randint(1, 99) * 100))}人",
    "few": lambda rng: f"{rng.randint(2, 120)}人",
    "number": lambda rng: str(rng.randint(2, 200)),
    "grams": lambda rng: f"{rng.randint(2, 300)}克",
    "years": lambda rng: f"{rng.randint(2, 900)}年",
    "cm": lambda rng: f"{rng.randint(2, 300)}厘米",
    "days": lambda rng: f"{rng.randint(2, 99)}天",
    "minutes": lambda rng: f"{rng.randint(3, 120)}分钟",
    "length": lambda rng: f"{rng.choice((rng.randint(2, 99), rng.randint(100, 900)))}{rng.choice(('厘米', '米'))}",
    "km": lambda rng: f"{rng.randint(2, 900)}公里",
    "weight": lambda rng: f"{rng.choice((rng.randint(2, 99), rng.randint(100, 900)))}{rng.choice(('克', '公斤', '斤'))}",
    "pages": lambda rng: f"{rng.randint(30, 999)}页",
    "long": lambda rng: f"{rng.randint(2, 99)}{rng.choice(('年', '个月', '小时'))}",
    "code": _code,
    "room": lambda rng: rng.choice((f"{rng.randint(1, 9)}号楼{rng.randint(101, 699)}室", f"{rng.randint(101, 999)}教室", f"{_place(rng)}楼", f"{rng.randint(1, 20)}楼")),
    "version": lambda rng: f"{rng.randint(1, 12)}.{rng.randint(0, 30)}",
    "river": lambda rng: _place(rng) + rng.choice(("河", "江", "溪", "湖")),
    "topic": _open("友情 航海 战争 爱情 数学 星空 家庭 旅行 植物 历史 建筑 音乐 美食 昆虫 机器 海洋 沙漠 童年 医学 经济".split(), 0.3),
    "language": _open("Python C++ Java Rust Go Ruby Lua Perl 汇编 Swift 中文 英语 法语 日语 俄语 德语".split(), 0.2),
    "nonsense": nonsense,
    # English
    "en.name": _name_en,
    "en.petname": lambda rng: word(rng, rng.randint(1, 2)).capitalize() if rng.random() < 0.6 else rng.choice(("Spot", "Rex", "Coco", "Milo", "Luna", "Bella", "Max", "Daisy", "Rocky", "Ginger", "Pepper", "Biscuit", "Socks", "Tiger", "Snowy")),
    "en.city": lambda rng: rng.choice(TOWNS) if rng.random() < 0.7 else word(rng, 2).capitalize(),
    "en.food": _open_en(FOODS_EN),
    "en.hobby": _open_en(HOBBIES_EN),
    "en.job": _open_en(JOBS_EN, 0.15),
    "en.colour": lambda rng: word(rng, 2) if rng.random() < 0.15 else rng.choice(SHADES_EN) + rng.choice(COLOURS_EN),
    "en.animal": _open_en(ANIMALS_EN, 0.1),
    "en.temper": lambda rng: rng.choice(TEMPERS_EN) if rng.random() < 0.5 else " and ".join(rng.sample(TEMPERS_EN, 2)),
    "en.catch": lambda rng: word(rng, 2).capitalize() if rng.random() < 0.2 else rng.choice(CATCHES_EN),
    "en.thing": _open_en(THINGS_EN),
    "en.sport": _open_en(SPORTS_EN, 0.15),
    "en.dream": lambda rng: f"to see {rng.choice(TOWNS)}" if rng.random() < 0.2 else rng.choice(DREAMS_EN),
    "en.plan": lambda rng: f"go to {rng.choice(TOWNS)}" if rng.random() < 0.3 else rng.choice(PLANS_EN),
    "en.spot": lambda rng: rng.choice(("in the ", "on the ", "under the ", "behind the ", "next to the ")) + (word(rng, 2) if rng.random() < 0.15 else rng.choice(SPOTS_EN)),
    "en.book": lambda rng: "The " + (word(rng, 2).capitalize() if rng.random() < 0.3 else rng.choice(ADJECTIVES_EN).capitalize()) + " " + rng.choice(NOUNS_EN).capitalize(),
    "en.school": lambda rng: word(rng, 2).capitalize() + rng.choice((" School", " College", " University", " High School")),
    "en.company": lambda rng: word(rng, 2).capitalize() + rng.choice((" Ltd", " Bank", " Motors", " Foods", " Labs")),
    "en.street": lambda rng: f"{rng.randint(1, 300)} {word(rng, 2).capitalize()} {rng.choice(('Street', 'Road', 'Lane'))}",
    "en.year": lambda rng: str(rng.randint(1700, 2025)),
    "en.money": lambda rng: f"{rng.randint(2, 999)} {rng.choice(('dollars', 'euros', 'pounds'))}",
    "en.date": lambda rng: f"{rng.choice(MONTHS_EN)} {rng.randint(1, 28)}",
    "en.month": lambda rng: rng.choice(MONTHS_EN) if rng.random() < 0.3 else f"{rng.choice(MONTHS_EN)} {rng.randint(1, 28)}",
    "en.clock": _clock_en,
    "en.hours": lambda rng: f"{rng.randint(6, 11)} am to {rng.randint(1, 10)} pm",
    "en.weekday": lambda rng: rng.choice(DAYS_EN) + rng.choice(("", "", " morning", " afternoon", " evening", " night")),
    "en.people": lambda rng: f"{rng.choice((rng.randint(3, 99), rng.randint(1, 99) * 100))} people",
    "en.few": lambda rng: f"{rng.randint(2, 120)} people",
    "en.days": lambda rng: f"{rng.randint(2, 99)} days",
    "en.minutes": lambda rng: f"{rng.randint(3, 120)} minutes",
    "en.length": lambda rng: f"{rng.randint(2, 900)} {rng.choice(('cm', 'meters'))}",
    "en.km": lambda rng: f"{rng.randint(2, 900)} km",
    "en.weight": lambda rng: f"{rng.randint(2, 900)} {rng.choice(('grams', 'kg'))}",
    "en.pages": lambda rng: f"{rng.randint(30, 999)} pages",
    "en.long": lambda rng: f"{rng.randint(2, 99)} {rng.choice(('years', 'months', 'hours'))}",
    "en.room": lambda rng: rng.choice((f"room {rng.randint(101, 999)}", f"the {word(rng, 2).capitalize()} Hall")),
    "en.river": lambda rng: word(rng, 2).capitalize() + rng.choice((" River", " Lake")),
    "en.topic": _open_en("friendship sailing war love mathematics stars family travel plants history music food insects machines oceans deserts childhood medicine".split(), 0.25),
    "en.language": _open_en("Python Java Rust Ruby Lua Perl Swift French Spanish German".split(), 0.2),
    "en.nonsense": lambda rng: word(rng, rng.randint(2, 3)),
}
# fmt: on
for _kind in ("age", "figure", "number", "phone", "code", "version"):
    MAKERS["en." + _kind] = MAKERS[_kind]


def value(rng: Random, split: Split, kind: str) -> str:
    """A value of a kind, on the split's side."""
    make = MAKERS[kind]
    return draw(rng, split, lambda: make(rng))


def an(noun: str) -> str:
    """The noun behind its indefinite article."""
    return ("an " if noun[:1].lower() in "aeiou" else "a ") + noun
