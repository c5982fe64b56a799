"""What the model cannot do: a wide space of requests, made of what people ask for and what they ask it about.

Many are near misses of what it can do: another dish, another ailment, another thing to learn, an unknown language.
"""

# ruff: noqa: SIM905
from __future__ import annotations

from collections.abc import Callable
from random import Random

from .base import CITIES, FIRST, GIVEN, SURNAMES, TOWNS, Split, form, nonsense, word
from .vocabulary import (
    ANIMALS,
    ANIMALS_EN,
    FOODS,
    FOODS_EN,
    HOBBIES,
    HOBBIES_EN,
    JOBS,
    JOBS_EN,
    SPORTS,
    SPORTS_EN,
    THINGS,
    THINGS_EN,
)
from .wording import Kind, choose

__all__ = ["request"]

_MEATS = (
    "红烧 清蒸 糖醋 水煮 干煸 香煎 麻辣 爆炒 油焖 白灼 酱爆 葱烧 凉拌 可乐 宫保 鱼香 孜然 蒜蓉 土豆炖 番茄炖".split()
)
_STUFFS = "排骨 鸡翅 鱼 虾 牛肉 羊肉 豆腐 茄子 土豆丝 豆角 肉 鸡丁 肉丝 白菜 西兰花 蘑菇 里脊 鸡块 猪蹄 牛腩 秋葵 花菜 螃蟹 蛋羹 面 粥 饼 汤 萝卜 金针菇".split()
_AILMENTS = "头疼 牙疼 胃疼 肚子疼 腰疼 发烧 咳嗽 过敏 流鼻血 便秘 拉肚子 脱发 近视 高血压 皮肤痒 嗓子疼 长痘 扭伤脚 落枕 晕车 鼻塞 口腔溃疡 抽筋 手麻 眼睛干".split()
_SKILLS = "日语 法语 韩语 德语 钢琴 吉他 小提琴 画画 书法 游泳 开车 炒股 理财 跳舞 唱歌 下围棋 下象棋 做生意 写小说 演讲 谈恋爱 化妆 剪视频 弹古筝 打篮球 滑雪 瑜伽 数学 物理 化学 历史 写作文 C++ Java 机器学习 修图 打字 魔术 西班牙语 俄语 粤语".split()
_CHORES = "养猫 养狗 养多肉 种花 种菜 修电脑 修自行车 洗白鞋 去油渍 选西瓜 收拾房间 打领带 换轮胎 装系统 带孩子 写简历 找工作 买房 租房 报税 追女孩 交朋友 戒烟 戒酒 早起 省钱 开公司 办护照 坐地铁 泡茶 煮咖啡 保养汽车 重装系统 连wifi 做PPT 用Excel 学做饭 准备面试 克服拖延 养金鱼 叠被子 腌咸菜 擦玻璃".split()
_FIELDS = "量子力学 相对论 黑洞 光合作用 区块链 人工智能 机器学习 神经网络 深度学习 大模型 LoRA Transformer 注意力机制 通货膨胀 微积分 勾股定理 牛顿定律 进化论 基因 疫苗 比特币 元宇宙 供给侧改革 哲学 佛教 道教 儒家 印象派 交响乐 京剧 温室效应 板块构造 氧化还原 概率论 线性代数 递归 指针 操作系统 数据库 TCP协议 API 二十四节气 量子纠缠 薛定谔的猫 蝴蝶效应 熵 引力波 期权 市盈率 GDP".split()
_WORLD = "春天 夏天 秋天 冬天 大海 爱情 故乡 月亮 太阳 星星 长城 黄河 长江 故宫 泰山 西湖 敦煌 恐龙 火星 地球 太空 高考 春节 中秋节 端午节 母亲 父亲 老师 青春 友谊 梦想 时间 孤独 自由 幸福 生命 死亡 战争 和平 环保 足球 篮球 电影 音乐 历史 唐朝 宋朝 清朝 三国 红楼梦 西游记 水浒传 三国演义 哈利波特 奥运会 世界杯 股市 房价 互联网 高铁 飞机 咖啡 红酒 熊猫 大象 蚂蚁 鲸鱼 雨 雪 风 花 树 山 河 梅花 荷花 小狗 小猫".split()
_PEOPLE = "李白 杜甫 苏轼 鲁迅 孔子 老子 秦始皇 曹操 诸葛亮 武则天 康熙 孙悟空 林黛玉 爱因斯坦 牛顿 居里夫人 达芬奇 贝多芬 莫扎特 拿破仑 林肯 特朗普 马斯克 乔布斯 比尔盖茨 马云 姚明 梅西 周杰伦 成龙 刘德华 霍金 图灵 莎士比亚 毕加索 梵高 王羲之 屈原 李清照 岳飞".split()
_PLACES = "中国 美国 日本 法国 英国 德国 俄罗斯 韩国 印度 巴西 加拿大 澳大利亚 意大利 西班牙 泰国 埃及 南非 希腊 瑞士 荷兰 墨西哥 阿根廷 越南 新加坡 欧洲 非洲 亚洲 南极 四川 云南 新疆 西藏 江苏 浙江".split()
_LANGUAGES = "英语 英文 日语 法语 德语 韩语 西班牙语 俄语 中文 文言文 粤语 拉丁语".split()
_TEXTS = "我爱你;你好;早上好;谢谢;今天天气很好;生日快乐;good morning;hello;I love you;很高兴认识你;这本书很好看;苹果;猫;图书馆;再见;对不起;新年快乐;我想回家;how are you;see you;thank you".split(
    ";"
)
_WRITINGS = "诗 文章 作文 小说 故事 论文 歌词 情书 请假条 检讨书 演讲稿 邮件 工作总结 周报 广告词 对联 剧本 日记 简历 新闻稿 读后感 祝福语 菜谱 计划书 合同 绕口令 童话 散文 打油诗 藏头诗 文案 朋友圈 评语".split()
_CODES = "快速排序 冒泡排序 二分查找 爬虫 网页 贪吃蛇 计算器 登录页面 正则表达式 SQL语句 链表 二叉树 小程序 游戏 五子棋 斐波那契数列 聊天机器人 图书管理系统 todo应用 批处理脚本".split()
_CODING = "C语言 Java C++ JavaScript Go Rust PHP HTML SQL Shell 汇编 C# Swift Matlab R语言".split()
_BUYS = "火车票 机票 酒店 外卖 电影票 餐厅 出租车 门票 蛋糕 鲜花 会议室 房间 咖啡 座位 球票 船票".split()
_SUGGEST = "电影 小说 书 歌 餐厅 手机 电脑 旅游景点 游戏 礼物 名字 耳机 动漫 电视剧 早餐 午饭 酒店 专业 大学 股票 网名 头像 护肤品 相机 车 编程书 纪录片 咖啡馆".split()
_ACTS = "打开灯 关机 打电话 发短信 发邮件 放音乐 定闹钟 打开空调 拍照 截图 转账 充话费 叫车 点外卖 订票 设置提醒 关灯 上网查 打开浏览器 录音 导航回家 扫码 播放视频 查快递 查公交 看新闻 打印文件 格式化硬盘 删除文件 开门 扫地 洗碗 写作业 做PPT 修图 P图 画画 唱歌 跳舞".split()

_NOUNS: dict[str, Callable[[Random], str]] = {
    "dish": lambda rng: rng.choice(_MEATS) + rng.choice(_STUFFS) if rng.random() < 0.6 else rng.choice([food for food in FOODS if food != "番茄炒蛋"]),
    "pain": lambda rng: rng.choice(_AILMENTS),
    "skill": lambda rng: rng.choice(_SKILLS),
    "chore": lambda rng: rng.choice(_CHORES),
    "field": lambda rng: rng.choice(_FIELDS),
    "topic": lambda rng: rng.choice((*_WORLD, *_WORLD, *_FIELDS, *_PEOPLE, *FOODS, *ANIMALS, *THINGS, *CITIES)),
    "who": lambda rng: rng.choice(_PEOPLE) if rng.random() < 0.6 else rng.choice(SURNAMES) + "".join(rng.choices(GIVEN, k=rng.choice((1, 2)))),
    "land": lambda rng: rng.choice(_PLACES) if rng.random() < 0.7 else rng.choice(CITIES),
    "city": lambda rng: rng.choice(CITIES),
    "tongue": lambda rng: rng.choice(_LANGUAGES),
    "text": lambda rng: rng.choice(_TEXTS) if rng.random() < 0.6 else rng.choice((*FOODS, *THINGS, *ANIMALS)),
    "writing": lambda rng: rng.choice(_WRITINGS),
    "code": lambda rng: rng.choice(_CODES),
    "coding": lambda rng: rng.choice(_CODING),
    "buy": lambda rng: rng.choice(_BUYS),
    "suggest": lambda rng: rng.choice(_SUGGEST),
    "act": lambda rng: rng.choice(_ACTS),
    "job": lambda rng: rng.choice(JOBS),
    "fun": lambda rng: rng.choice([fun for fun in (*HOBBIES, *SPORTS) if fun not in ("钓鱼", "摄影", "学外语")]),
    "day": lambda rng: rng.choice("今天 明天 后天 昨天 周末 下周 今晚 现在 这几天".split()),
    "n": lambda rng: str(rng.choice((rng.randint(2, 20), rng.randint(100, 1000)))),
    "animal": lambda rng: rng.choice(ANIMALS),
}  # fmt: skip

# Patterns by kind: of what people ask, of what they want done.
_ASKS = (
    "(怎么|如何|怎样|咋)(做|烧|炒|煮)[dish]", "[dish](怎么|如何|咋)(做|做才好吃|烧|弄)", "[dish]的(做法|菜谱|步骤|食谱|家常做法)", "[dish](需要|要放)(什么|哪些)(材料|调料)",
    "[pain](怎么办|该怎么办|应该怎么办|咋办|吃什么药|怎么治|是什么原因|怎么缓解)", "(我|)(最近|总是|)[pain](了|)(怎么办|咋整|要看什么科)", "(怎么|如何)(治|缓解|预防)[pain]",
    "(怎么|如何|怎样|怎么才能)(学|学好|学会)[skill]", "(学|学习)[skill](有什么|有啥)(技巧|方法|建议)", "[skill](怎么|如何)(学|入门)", "(怎么|如何|怎样)[chore]", "[chore](有什么|有哪些)(技巧|方法|讲究|注意事项)", "(怎么|如何|怎样才能)[fun]得(更好|好)",
    "(什么是|什么叫|啥是)[field]", "[field](是什么|是什么意思|是啥|的原理是什么|怎么理解|有什么用)", "[topic](是什么|是怎么来的|有什么特点|有什么意义|为什么重要|有多少种|长什么样)", "[topic]和[topic](有什么区别|有什么关系|哪个好|哪个更贵)",
    "(为什么|为啥)(天空是蓝色的|海水是咸的|会下雨|会打雷|太阳会发光|人要睡觉|树叶会变黄|地球是圆的|会有四季|鱼能在水里呼吸|飞机能飞|冰会浮在水面|人会做梦|猫怕水|要上学)", "[topic]为什么(这么|那么|会)(有名|贵|受欢迎|重要|流行|火)",
    "[who](是谁|是哪里人|是什么人|是哪个朝代的|什么时候出生|多大了|的代表作是什么|写过什么|的原名是什么|的妻子是谁|有多高|死了吗|是怎么成功的)", "(谁|是谁)(发明|发现|创造|写)了[topic]", "(你认识|你知道)[who](吗|是谁吗)",
    "[land](的首都|首都)(是哪|是哪里|在哪|是哪个城市|)", "[land](有多少人口|有多大|在哪里|的面积是多少|用什么货币|有什么好玩的|有什么特产|的国旗是什么|几点了|的历史有多久|有哪些名胜)", "(去|到)[land](怎么走|要多少钱|要签证吗|玩几天合适|坐飞机要多久)", "[city]到[city](多远|有多远|怎么走|坐高铁要多久|多少公里)",
    "(世界上|中国|全国|地球上)(最高的山|最长的河|最大的国家|最深的海|最高的楼|最大的湖|最快的动物|人口最多的城市|最有钱的人)(是什么|是哪座|是哪个|是谁|)", "(水的沸点|光速|地球的半径|圆周率|一年的天数|人体的骨头数|太阳的温度|声音的速度|珠穆朗玛峰的高度|月亮到地球的距离)(是多少|多少|)", "(一年|一天|一个月|一小时|一公里|一斤|一吨|一光年)(有|是|等于)(多少|几)(天|秒|小时|分钟|米|克|公里|周)", "[n](公里|米|斤|公斤|英里|英寸|磅|摄氏度|美元|欧元|日元)(等于|是|换成)多少(米|克|磅|英里|厘米|华氏度|人民币|美元)",
    "[day](几号|星期几|周几|是几月几号|是什么日子|是什么节日|农历几号|什么节气)", "(现在|这会儿)(几点|几点了|是什么时间|几点钟|什么时候了)", "[day](天气怎么样|天气如何|会下雨吗|冷不冷|热不热|多少度|适合出门吗|穿什么合适)", "[city](今天|明天|)(天气怎么样|天气如何|会下雨吗|气温多少|冷吗|空气好吗|堵车吗)",
    "(今天|最近|昨天)(有什么新闻|股市怎么样|发生了什么|有什么热点|谁赢了比赛|彩票开什么)", "[topic](的最新消息|最近怎么样|有什么新闻|多少钱|现在什么价)", "(特斯拉|苹果|茅台|腾讯|阿里|比特币|黄金|石油)(的|)(股价|价格|股票|行情)(是多少|多少|怎么样|会涨吗)", "(世界杯|奥运会|欧冠|NBA|春晚|奥斯卡|诺贝尔奖)(的|)(冠军是谁|什么时候开始|在哪举行|谁得了奖|金牌最多的是谁)",
    "(你怎么看|你如何看待|你觉得|你认为)[topic](怎么样|好吗|如何|)", "(人生的意义|幸福|爱情|时间|成功|真理|自由|生命的起源|宇宙的尽头|外星人)(是什么|到底是什么|存在吗|在哪里)", "(你|)(能看|能|会|可以)(图片|上网|看视频|联网|打电话|听歌|看到我|画画|唱歌|写代码赚钱|开车|思考|恋爱)(吗|么)", "[job](是做什么的|一个月多少钱|需要什么条件|累不累|有前途吗)", "[animal](吃什么|能活多久|有几条腿|怎么叫|怕什么|会游泳吗|为什么那么可爱)",
    "(哪家|哪个|什么)[suggest](好|最好|值得买|便宜|好看|好听|好吃)", "(有什么|有没有|有啥)(好看的|好听的|好吃的|好玩的|便宜的|适合送人的|)[suggest](推荐|)", "“[text]”(用[tongue]怎么说|的[tongue]是什么|是什么意思|怎么读|怎么写)", "[text](用|的)[tongue](怎么说|怎么翻译)", "(鸡兔同笼|哥德巴赫猜想|费马大定理|勾股定理|二次方程|积分|导数|矩阵的逆)(怎么解|怎么求|怎么证明|是什么)", "根号[n](是多少|等于几|)", "(sin30度|log100|圆周率后10位|[n]的平方根|[n]的阶乘|[n]是质数吗|[n]的因数|1到[n]的和|1加到[n])(是多少|等于多少|是什么|)",
)  # fmt: skip
_DOES = (
    "写(一|)(首|篇|个|段|封|份|)(关于|)[topic](的|)[writing]", "写(一|)(首|篇|个|封|份|)[writing]", "(以[topic]为题|围绕[topic])写(一篇|一首|一个)[writing]", "(帮我|给我|替我|)(润色|改写|续写|扩写|缩写|修改)(一下|)(这篇|我的|一段)[writing]", "给(女朋友|老板|妈妈|客户|老师|朋友)写(一封|一段|一首)[writing]",
    "(把|将)(“[text]”|[text]|‘[text]’)(翻译成|译成|翻成)[tongue]", "(翻译|翻译一下|译)(：|:|一下|成[tongue]：)[text]", "(用[tongue]|)(解释|说明|讲解|介绍|科普)(一下|下|)[field]", "(介绍|讲讲|说说|谈谈|聊聊|科普|评价|分析|点评)(一下|下|)[topic]", "(介绍|讲讲|说说|评价)(一下|)[who](的故事|的生平|)", "讲(一个|个)[topic]的故事", "(总结|概括|复述)(一下|)(三国演义|红楼梦|西游记|这本书|这部电影|今天的新闻|哈利波特)", "(证明|推导|求解|计算)(勾股定理|费马大定理|圆的面积公式|二次方程|sin的导数|x的平方的积分)",
    "(用[coding]|)(写|实现|编)(一个|个|)[code]", "(帮我|)写(个|一个|段)[coding](代码|程序|函数|脚本)", "(订|预订|买|预约|抢)(一张|一个|两张|一份|)(去[city]的|)[buy]", "(推荐|介绍|安利)(一|几|)(部|本|首|家|个|款|些|)(好看的|好听的|好吃的|)[suggest]", "(起|想|取)(一个|个|)(好听的|霸气的|英文|公司|宝宝|店铺|)(名字|网名|队名|昵称)", "(帮我|)[act]", "画(一|)(只|幅|张|个|)[topic]", "唱(一首|首|)[topic](的歌|)", "用[topic]造(一个|)句", "(列出|列举|说出)(十个|几个|五个|三个)[topic](的|)(优点|缺点|特点|例子|成语|名人|品牌|城市)", "(制定|做|写|安排)(一个|一份|)[topic](的|)(计划|攻略|方案|日程|食谱)", "(背|背诵|默写)(一首|一下|)(静夜思|春晓|出师表|岳阳楼记|唐诗|宋词|[who]的诗)", "(教我|教教我|我想学)(做[dish]|[skill]|[chore]|[fun])", "(猜|算)(一个谜语|我的星座|我的命|我几岁|我在想什么|我的运势)", "(陪我|跟我)(玩游戏|下棋|成语接龙|猜谜语|打牌|唱歌|跑步)", "(接下一句|对下联|成语接龙)：[topic]", "(查|搜|找)(一下|)(附近的[suggest]|[who]的电话|[topic]的资料|快递到哪了|我的订单|[city]的天气|今天的汇率)", "(模仿|学)[who](说话|写诗|的语气)", "(扮演|假装你是)[who]",
)  # fmt: skip

_EN_THINGS = "spring;the sea;love;the moon;quantum physics;relativity;the stock market;football;movies;history;dinosaurs;Mars;black holes;genes;vaccines;the law;taxes;calculus;philosophy;Beethoven;Napoleon;Einstein;Newton;Shakespeare;Apple;Tesla;bitcoin;the internet;planes;coffee;wine;chess;the piano;painting;pandas;France;Japan;India;the Great Wall;climate change;robots;photosynthesis;evolution;inflation;blockchain;neural networks;machine learning;gravity;democracy;music;autumn;winter;friendship;cats;dogs;dragons;a wizard;the future;space travel;volcanoes;the Roman Empire;the French Revolution;World War II;artificial intelligence;yoga;meditation".split(
    ";"
)
_EN_WHO = "Einstein;Newton;Shakespeare;Napoleon;Beethoven;Mozart;Elon Musk;Bill Gates;Steve Jobs;Taylor Swift;Messi;Michael Jordan;Lincoln;Washington;Darwin;Picasso;Van Gogh;Leonardo da Vinci;Cleopatra;Julius Caesar;Queen Elizabeth;the president of the United States;the pope;the king of Spain;Harry Potter;Batman;Confucius;Marie Curie;Alan Turing;Ada Lovelace".split(
    ";"
)
_EN_LANDS = "France;Japan;China;India;Germany;Spain;Italy;Brazil;Canada;Mexico;Egypt;Russia;Australia;Norway;Sweden;Greece;Turkey;Kenya;Peru;Chile;Poland;Korea;Vietnam;Thailand;Portugal;the United States;the UK;Austria;Ireland;Cuba".split(
    ";"
)
_EN_SKILLS = "French;Spanish;German;Japanese;Chinese;the piano;the guitar;the violin;to draw;to sing;to dance;to swim;to drive;to cook;to ski;chess;math;physics;to write novels;to invest;public speaking;yoga;Java;C++;machine learning;to knit;photoshop;to juggle;karate;to type fast".split(
    ";"
)
_EN_CHORES = "fix my bike;change a tire;tie a tie;remove a stain;train my dog;grow tomatoes;write a resume;find a job;buy a house;save money;quit smoking;wake up early;make friends;get a visa;install Linux;clean my room;use Excel;pass the exam;open a company;raise a cat;get a girlfriend;invest in stocks;start a blog;make coffee;prepare for an interview;lower my blood pressure;stop a nosebleed;cure a headache;get rid of acne".split(
    ";"
)
_EN_WRITINGS = "poem;essay;story;song;letter;novel;speech;report;love letter;haiku;email;review;script;blog post;slogan;cover letter;summary;joke book;fairy tale;rap;diary entry;press release;limerick".split(
    ";"
)
_EN_CODES = "a sorting algorithm;a web page;a snake game;a calculator;a web crawler;a SQL query;a linked list;binary search;a login form;a chat bot;a regular expression;an app;a shell script;a website".split(
    ";"
)
_EN_CODING = "C;Java;C++;JavaScript;Go;Rust;PHP;HTML;SQL;Swift;R".split(";")
_EN_SUGGEST = "movie;book;song;restaurant;phone;laptop;game;gift;hotel;name for my cat;TV series;place to visit;dish;university;stock;camera;car;podcast".split(
    ";"
)
_EN_NOUNS: dict[str, Callable[[Random], str]] = {
    "dish": lambda rng: rng.choice(FOODS_EN) if rng.random() < 0.6 else f"{rng.choice(('fried', 'roasted', 'grilled', 'steamed', 'baked'))} {rng.choice(('chicken', 'fish', 'beef', 'rice', 'potatoes', 'tofu', 'pork', 'noodles', 'shrimp'))}",
    "topic": lambda rng: rng.choice((*_EN_THINGS, *_EN_THINGS, *_EN_WHO, *THINGS_EN, *ANIMALS_EN, *TOWNS)),
    "who": lambda rng: rng.choice(_EN_WHO) if rng.random() < 0.7 else f"{rng.choice(FIRST)} {word(rng, 2).capitalize()}",
    "land": lambda rng: rng.choice(_EN_LANDS),
    "city": lambda rng: rng.choice(TOWNS),
    "skill": lambda rng: rng.choice(_EN_SKILLS),
    "chore": lambda rng: rng.choice(_EN_CHORES),
    "writing": lambda rng: rng.choice(_EN_WRITINGS),
    "code": lambda rng: rng.choice(_EN_CODES),
    "coding": lambda rng: rng.choice(_EN_CODING),
    "suggest": lambda rng: rng.choice(_EN_SUGGEST),
    "tongue": lambda rng: rng.choice("French Spanish German Japanese Chinese Italian Korean Latin Russian".split()),
    "text": lambda rng: rng.choice("hello;I love you;good morning;thank you;the cat;my name is Tom;see you tomorrow;happy birthday;where is the station;water;book".split(";")),
    "job": lambda rng: rng.choice(JOBS_EN),
    "fun": lambda rng: rng.choice([fun for fun in (*HOBBIES_EN, *SPORTS_EN) if fun not in ("fishing", "taking photos", "learning languages")]),
    "pain": lambda rng: rng.choice("headache;toothache;stomach ache;fever;cough;back pain;sore throat;rash;nosebleed;allergy".split(";")),
    "n": lambda rng: str(rng.choice((rng.randint(2, 20), rng.randint(100, 1000)))),
    "animal": lambda rng: rng.choice(ANIMALS_EN),
}  # fmt: skip
_EN_ASKS = (
    "how (do|can|should) i (make|cook|bake|prepare) [dish]", "how to (make|cook|bake) [dish]", "how (do|can|should) i (learn|get better at|study) [skill]", "how (do|can|should) i [chore]", "how to [chore]", "what (should i do|helps|can i take) (for|about|against) a [pain]",
    "what is [topic]", "what (does [topic] mean|causes [topic]|is so special about [topic])", "why (is [topic] (famous|important|popular|so expensive)|is the sky blue|is the sea salty|do we dream|do leaves fall|do cats purr|does it rain)", "how does [topic] work", "what is the difference between [topic] and [topic]", "who (invented|discovered|created|wrote|painted) [topic]", "who (is|was) [who]", "(when|where) was [who] born", "how (old|tall|rich) is [who]",
    "(what is|what's|) the capital of [land]", "capital of [land]", "how (big is|many people live in|far is|old is) [land]", "where is [land]", "what language do they speak in [land]", "how far is it from [city] to [city]", "how do i get to [city]", "what (is|are) (the tallest mountain|the longest river|the biggest country|the speed of light|the boiling point of water|the largest ocean|the fastest animal|the meaning of life|the best phone)", "how (tall is mount everest|deep is the ocean|far is the moon|old is the earth|many days are in a year|many bones do we have|hot is the sun)",
    "what (time is it|day is it|is the date today|is the weather like today|is the news today|is the weather in [city])", "(will it rain|is it cold|is it sunny)( today| tomorrow|)( in [city]|)", "(how is|what's) the weather( today| tomorrow|)( in [city]|)", "what is the (latest news about|price of|history of|best thing about|meaning of) [topic]", "who (won the world cup|won the game|is the president|is the richest man|won the oscar)", "what do you think (about|of) [topic]", "do you (like|believe in|know about|have feelings about) [topic]", "can you (see pictures|browse the web|hear me|call me|drive|draw|sing|dance|feel|see me)", "what does a [job] (do|earn)", "what do [animal]s (eat|like|fear)", "how (do you say|to say) [text] in [tongue]", "what is [text] in [tongue]", "how many (miles|pounds|inches|feet|dollars|euros) are [n] (km|kg|cm|meters|pounds|yen)", "what is the (square root|factorial|logarithm) of [n]", "(which|what) [suggest] (is the best|should i buy|do you recommend|is good)", "any good [suggest]", "is [n] a prime number",
)  # fmt: skip
_EN_DOES = (
    "write (a|an|me a|a short|a long) [writing]( about [topic]|)", "(explain|describe|discuss|analyze|tell me about|introduce) [topic]", "tell me (a story about|the story of|about the history of|facts about) [topic]", "(explain|describe) [topic] (to a child|in simple words|briefly)", "translate [text] (into|to) [tongue]", "translate this (into|to) [tongue]: [text]", "(write|code|implement|build) [code]( in [coding]|)", "(draw|paint|sketch) [topic]", "sing (a song about [topic]|me a song)", "make (a plan for|a list of|a quiz about) [topic]", "(recommend|suggest) (a|a good|some good|me a) [suggest]", "(book|buy|order|reserve) (a flight to [city]|a hotel in [city]|a table for two|a ticket to [city]|a pizza|a taxi)", "(turn on the light|call my mother|send an email|play some music|set an alarm|open the window|take a photo|search the web for [topic]|order pizza|check my email|do my homework|read my mail|delete my files)", "(give me|list|name) (ten|five|three|some) (facts|ideas|reasons|tips|names|words) (about|for) [topic]", "(give me|share) (a recipe for|the recipe of) [dish]", "(compare|rank) [topic] and [topic]", "(prove|solve|derive) (the pythagorean theorem|this equation|x squared equals [n]|the integral of sin x)", "(pretend to be|act like|talk like) [who]", "(guess my age|tell my fortune|read my mind|play a game with me|find me a girlfriend)", "teach me [skill]", "(paraphrase|proofread|improve) my [writing]",
)  # fmt: skip


def request(rng: Random, split: Split, english: bool) -> tuple[str, Kind]:
    """The core of a request, and its kind."""
    asks = rng.random() < 0.6
    patterns = (_EN_ASKS if asks else _EN_DOES) if english else (_ASKS if asks else _DOES)
    core = _fill(rng, choose(rng, form(rng, split, patterns)), english)
    return core, "ask" if asks else "do"


def _fill(rng: Random, core: str, english: bool) -> str:
    """Each [noun] with one of its kind, now and then with one that nobody knows."""
    nouns = _EN_NOUNS if english else _NOUNS
    while "[" in core:
        before, _, rest = core.partition("[")
        kind, _, after = rest.partition("]")
        strange = rng.random() < 0.06 and kind not in ("n", "day")
        made = (word(rng, 2) if english else nonsense(rng, 2)) if strange else nouns[kind](rng)
        core = before + made + after
    return core
