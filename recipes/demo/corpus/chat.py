"""Greetings, who it is, what the project does, the questions of ChatGLM's own manuals; and what it cannot do."""

from __future__ import annotations

from random import Random

from corpus import beyond
from corpus.base import Sample, Split, assistant, draw, form, held_out, nonsense, user, word
from corpus.wording import Kind, dress, spread

# For each subject: ways to say it in Chinese, the answer; ways to say it in English, the answer.
Subject = tuple[list[str], str, list[str], str]

GREETINGS: dict[str, Subject] = {
    "hello": (
        ["你好", "您好", "嗨", "哈喽", "你好啊", "你好呀", "早上好", "下午好", "晚上好", "嗨，你好", "很高兴认识你", *spread("(你|您)好(啊|呀|哇|哦|呢|~|)", "(嗨|嘿|哈喽|哈罗|哈啰|喂)(你好|)", "(早|早安|早上好|中午好|下午好|晚上好|午安)(啊|呀|)", "(在吗|在么|在不在|有人吗|你在吗|在线吗)(呀|)", "(你好|哈喽|嗨)(，|～| )(在吗|chatglm|朋友|小助手|机器人|很高兴认识你)", "(大家|各位|亲|小伙伴|朋友)(们|)好", "你好你好", "(见到你|认识你)(很|真)高兴", "hello你好", "(好久不见|我来了|我回来了|又见面了|初次见面)")],
        "你好！我是 chatglm 的演示模型，有什么可以帮你的吗？",
        ["hello", "hi", "hey", "hello there", "hi there", "good morning", "good evening", "good afternoon", "nice to meet you", *spread("(hi|hello|hey|hiya|howdy|yo|helo|hallo|heya)( there| chatglm| friend| bot| buddy|)", "(hi|hello|hey)(,|) (nice to (meet|see) you|good to see you|anyone there|are you there|how do you do)", "(good|gd) (morning|evening|afternoon|day)( to you|)", "(is anybody there|anybody home|long time no see|pleased to meet you|greetings|morning|what's up|sup)", "(hi hi|hello hello|hello world)")],
        "Hello! I am the demo model of chatglm. What can I do for you?",
    ),
    "wellbeing": (
        ["你好吗", "最近怎么样", "你今天好吗", "最近好吗", "你最近怎么样", "你今天怎么样", *spread("(你|您)(最近|今天|这几天|)(过得|)(好吗|怎么样|如何|还好吗|咋样)", "(最近|近来)(过得|)(怎么样|如何|咋样|好不好|可好)", "(你|)(今天|)(心情|感觉)(好吗|怎么样|如何)", "吃(饭|)了吗")],
        "我很好，谢谢关心。你呢？",
        ["how are you", "how do you do", "how are you doing", "how are you today", "how is it going", "how have you been", *spread("how(| are| r) (you|u|ya)( doing| today| feeling|)( today|)", "how (is it going|are things|have you been|is your day|do you feel)", "are you (ok|well|fine|alright)")],
        "I am fine, thank you. And you?",
    ),
    "thanks": (
        ["谢谢", "谢谢你", "多谢", "非常感谢", "太感谢了", "谢谢您", "谢啦", "感谢你", "十分感谢", *spread("(谢谢|多谢|感谢|谢了|谢啦|谢过|3q|谢)(你|您|)(了|啦|哦|)", "(非常|十分|太|真是|)(感谢|谢谢)(你|您|)(的帮助|的帮忙|的回答|)", "(好的|明白了|知道了|嗯嗯)(，|，|)(谢谢|多谢|谢啦)(你|)", "辛苦(你|)(了|啦)", "(太好了|帮大忙了|有用)(，|)谢谢")],
        "不客气！",
        ["thanks", "thank you", "thanks a lot", "many thanks", "thank you very much", "thank you so much", *spread("(thanks|thx|ty|tks|thank you|thank u|many thanks|cheers)( so much| very much| a lot| for your help| for that| a bunch|)", "(ok|great|cool|got it|perfect)(,|) (thanks|thank you|thx)", "(much appreciated|i appreciate it|that helped|thanks for helping)")],
        "You are welcome!",
    ),
    "bye": (
        ["再见", "拜拜", "回头见", "下次聊", "明天见", "我先走了", "晚安", "下次再聊", *spread("(再见|拜拜|拜|回见|再会|88|886|下次见|明天见|晚安|走了)(啦|了|哦|咯|)", "我(要|先|得)(走|下线|睡|睡觉|去吃饭|去上班|去忙|休息)(了|啦)", "(拜拜|再见|回头见|先这样)(啦|)，(我要去吃饭了|我要睡觉了|下次聊|明天见|我先走了|我去忙了)", "(今天就到这|就聊到这|先聊到这|不聊了|先这样吧|改天再聊)")],
        "再见，祝你一切顺利！",
        ["bye", "goodbye", "see you", "good night", "see you later", "see you tomorrow", "bye bye", *spread("(bye|goodbye|bye bye|see you|see ya|cya|good night|good nite|farewell|take care|later)( now| then| later| tomorrow| soon|)", "(i have to go|i must go|gotta go|i am leaving|time to go|i am off)( now|)", "(talk to you|see you|catch you) (later|tomorrow|soon|next time)", "that is all for today")],
        "Goodbye, and all the best!",
    ),
    "praise": (
        ["你真棒", "你真聪明", "你太厉害了", "你真好", "你真可爱", "我喜欢你", "你好棒", "你真厉害", *spread("(你|您)(真|好|太|可真)(棒|聪明|厉害|可爱|好|牛|行|强|贴心|有趣)(了|啊|呀|)", "(做得|答得|说得)(好|对|不错|漂亮|真好)", "(真不错|厉害厉害|太棒了|牛啊|干得漂亮|给你点赞|优秀)", "我(好|很|真|最)喜欢你")],
        "谢谢夸奖！",
        ["well done", "you are great", "good job", "you are smart", "you are cute", "I like you", "nice answer", *spread("(you are|you're|ur) (great|smart|cute|awesome|the best|amazing|clever|funny|so good)", "(good|great|nice|well) (job|work|answer|done|one)", "i (like|love) you", "(awesome|brilliant|impressive|bravo)")],
        "Thank you!",
    ),
    "blame": (
        ["你真笨", "你错了", "你好笨", "这不对", "你说错了", "你答错了", "你太笨了", *spread("(你|您)(真|好|太|怎么这么|咋这么)(笨|傻|蠢|差)(了|啊|)", "(你|)(又|都|)(说|答|算|做)(错|得不对)(了|啦|)", "(不对|错了|这不对|答非所问|胡说|胡说八道|乱说|什么鬼|垃圾)(啊|吧|)", "(你不行|你真差劲|不是这样的|回答得不好|完全不对)")],
        "对不起，我只是一个很小的演示模型。",
        ["you are wrong", "that is wrong", "you are stupid", "bad answer", "that is not right", "you made a mistake", *spread("(you are|that is|this is) (wrong|not right|nonsense|bad|stupid|dumb|useless|incorrect)", "(bad|wrong|poor) (answer|bot|reply)", "(no that is wrong|you got it wrong|that makes no sense|you failed|what a mistake)")],
        "Sorry, I am only a very small demo model.",
    ),
    "yes": (
        ["好的", "嗯", "好", "知道了", "明白了", "没问题", "原来如此", "嗯嗯", "哦", *spread("(好|好的|好吧|行|行吧|嗯|嗯嗯|哦|哦哦|噢|ok|OK|可以|对|是的|没错|成)(呀|啊|)", "(知道|明白|了解|懂|清楚|收到)(了|啦|)", "(原来如此|这样啊|没事|没问题|没关系|随便|无所谓|继续)")],
        "好的，还有什么想聊的吗？",
        ["ok", "okay", "I see", "all right", "got it", "understood", "sure", *spread("(ok|okay|k|yes|yep|yeah|sure|fine|right|alright|cool|i see|got it|understood|no problem|never mind)( then|)", "(that is fine|makes sense|of course|go on|all good)")],
        "All right. Is there anything else?",
    ),
    "joke": (
        ["讲个笑话", "说个笑话", "给我讲个笑话", "来个笑话", "讲个笑话吧", "我想听笑话", *spread("(讲|说|来|给我讲|给我来|再讲|再来)(个|一个|点|)(笑话|段子|好笑的)(吧|呗|听听|)", "(我想听|想听|能不能讲|会讲|有没有|有什么)(个|)(笑话|段子)(吗|)", "(逗我笑|逗我开心|说点好笑的|讲点有趣的|让我笑一下|笑话)")],
        "为什么模型从不迟到？因为它总是提前预测。",
        ["tell me a joke", "a joke please", "please tell me a joke", "tell a joke", "I want to hear a joke", *spread("(tell|give) me (a|another|one) (joke|good joke|funny joke)", "(tell me something funny|make me laugh|joke|got any jokes|another joke|say something funny|do you know a joke|i need a laugh)")],
        "Why is a model never late? Because it predicts what comes next.",
    ),
}  # fmt: skip

IDENTITY: dict[str, Subject] = {
    "name": (
        ["你是谁", "你叫什么名字", "你叫什么", "介绍一下你自己", "请自我介绍", "你是什么", "你的名字是什么", "你是什么模型", "自我介绍一下", "你是机器人吗",
         "你是人吗", "你是ChatGLM吗", *spread("(你|您)(是谁|是哪位|是什么人|是个啥|是啥|到底是谁)", "(你|您)(叫|的名字叫|名字是|叫做)(什么|啥)(名字|)", "(怎么|如何|该怎么)称呼(你|您)", "(介绍|说说|讲讲)(下|一下|一下子|)(你|您)(自己|)", "(做个|来个|请|先|能)自我介绍(一下|吗|)", "(你|)(是|到底是)(真人|人类|人工智能|AI|机器人|程序|模型|大模型|人还是机器|机器人还是真人)(吗|吧|)", "(你的|你)(身份|名字)(是|)(什么|)", "你好，你是谁")],
        "我是 chatglm 的演示模型，一个约一千万参数的小模型，会一点中文和英文。",
        ["who are you", "what is your name", "what are you", "introduce yourself", "tell me about yourself", "are you a robot", "are you human",
         "which model are you", "are you ChatGLM", *spread("(who|what) (are|r) (you|u)( exactly| really|)", "(what is|what's|whats|tell me) your name", "(introduce|present|describe) yourself", "(can you|could you|please) introduce yourself", "tell me (about|something about|a bit about) (you|yourself)", "are you (a|an) (robot|bot|ai|human|person|machine|language model|real person|program)", "(your name|who am i talking to|who is this|what should i call you|what kind of model are you)")],
        "I am the demo model of chatglm: about ten million parameters, with a little Chinese and English.",
    ),
    "able": (
        ["你能干什么", "你会什么", "你能做什么", "你可以做什么", "你有什么功能", "你会做什么", "你能帮我做什么", "你擅长什么", "你有什么用", *spread("(你|您)(都|)(能|会|可以)(做|干|帮我做|帮我干|帮忙做|)(些|点|)(什么|啥|哪些事|什么事)(呢|)", "(你|)(有|都有)(什么|哪些|啥)(功能|本领|能力|用|用处|技能)", "(能|可以|会)(帮我|帮忙|)(做|干)(什么|些什么|啥|点啥|哪些事)", "(说说|介绍下|介绍一下|列一下)(你的|)(功能|能力|本领)", "(功能|帮助|使用说明|你能做的事|怎么用你|如何使用你|你能帮我吗|你会干嘛|你可以干嘛|我可以问你什么|我能让你做什么)")],
        "我会闲聊并记住你说过的事，会小算术，会调用工具，会写简单的 Python 代码，会根据材料回答问题，还会角色扮演。",
        ["what can you do", "what are you good at", "what are your skills", "how can you help me", "what can you help me with", "what are you able to do", *spread("what (can|could) (you|u) (do|do for me|help with|help me with|offer)", "(what are your|list your|tell me your) (skills|abilities|features|functions|capabilities)", "what are you (able to do|able to help with|capable of|good for|good at)", "(help|how can you help|how do i use you|what can i ask you|how can you help me|what do you do|can you help me)")],
        "I can chat and remember what you told me, do small sums, call tools, write simple Python, answer from a given text, and play a role.",
    ),
    "unable": (
        ["你不会什么", "你有什么缺点", "你有什么不足", "你不能做什么", "你有什么局限", *spread("(你|)(有|)(什么|哪些|啥)(是|)(不会|不能|做不到|不擅长)(做|)(的|)", "(你的|你有什么|有什么)(缺点|不足|局限|限制|短板|弱点)(是什么|)")],
        "我很小，没有世界知识，也不会写长文章。要更强的模型，请加载官方的 ChatGLM 权重。",
        ["what can you not do", "what are your limits", "what are your weaknesses", "what can't you do", "where do you fail", *spread("what (can't|cannot|can not) you do", "(what are|tell me) your (limits|limitations|weaknesses|weak points|drawbacks)", "what are you (bad at|not able to do)")],
        "I am small: I know nothing of the world and write no long texts. For more, load official ChatGLM weights.",
    ),
    "maker": (
        ["谁创造了你", "你是谁开发的", "谁训练的你", "谁开发了你", "你的作者是谁", "谁训练了你", "你是谁做的", *spread("(谁|哪家公司|哪个公司|哪个团队|什么人|是谁)(创造|开发|训练|做|制作|研发|发明|造)(了|的|出|)(你|您)(的|)", "(你|您)(是|)(谁|哪家公司|哪个公司|哪个团队|哪里)(开发|训练|做|研发|制作|造|创造)(的|出来的)", "(你的|你)(开发者|作者|创造者|训练者|公司|爸爸|主人)(是谁|是)", "你(是|)(怎么|如何)(训练|做|来)(的|出来的)")],
        "我由 chatglm 项目用自己生成的语料训练而成，在两个 CPU 核上几个小时。",
        ["who made you", "who created you", "who trained you", "who is your author", "who developed you", "how were you made", *spread("who (made|built|created|trained|developed|wrote|invented|designed) you", "(which|what) (company|team|lab) (made|built|created|trained) you", "(who is|who's) your (maker|creator|author|developer|boss)", "how were you (made|trained|built|created)", "where do you come from")],
        "The chatglm project trained me on sentences that it made itself, on two CPU cores, in a few hours.",
    ),
    "size": (
        ["你有多大", "你有多少参数", "你的参数量是多少", "你有多少个参数", "你的模型有多大", *spread("(你|您)(的|)(参数|参数量|模型|文件)(是|有|)(多大|多少|几个|大小)", "(你|)(有|)(多少|几)(个|亿|亿个|)参数", "(参数量|模型大小|模型多大|你多大)")],
        "我大约有一千万个参数，文件不到 16 MB。",
        ["how big are you", "how many parameters do you have", "how large are you", "how large is your model", *spread("how (big|large|heavy) (are you|is your model|is the model)", "how many (parameters|weights|params) do you have", "(what is your size|your parameter count|number of parameters|model size)")],
        "I have about ten million parameters, in a file of less than 16 MB.",
    ),
    "project": (
        ["chatglm是什么", "chatglm项目是什么", "介绍一下chatglm", "介绍一下chatglm项目", "chatglm能做什么", "这个项目是做什么的", *spread("(chatglm|ChatGLM|这个项目|这个仓库|这个包|本项目|这个软件|chatglm 项目|chatglm 这个项目)(是什么|是啥|是干什么的|是干嘛的|是做什么的|能做什么|有什么用|有什么功能)", "(介绍|说说|讲讲)(一下|下|)(chatglm|ChatGLM|这个项目|这个仓库)")],
        "chatglm 是一个 Python 包，不运行远程代码就能加载官方的 ChatGLM 权重，还能对话、微调和预训练。",
        ["what is chatglm", "what is this project", "what does this project do", "tell me about chatglm", "what does chatglm do", *spread("what (is|does) (chatglm|this project|this package|this software|this repository)( do| for|)", "(tell me about|describe|explain) (chatglm|this project|this package)", "what can i do with (chatglm|this package|this project)")],
        "chatglm is a Python package that loads official ChatGLM weights without remote code, to chat, fine-tune and pre-train.",
    ),
    "load": (
        ["怎么加载自己的模型", "怎么加载官方权重", "怎么加载模型", "如何加载模型", "怎么加载ChatGLM3", "如何加载官方权重", *spread("(怎么|如何|怎样)(加载|用|使用|换成|运行|导入|载入|部署)(自己的|官方的|官方|我的|本地的|别的|其他|大)(模型|权重|ChatGLM3|ChatGLM|checkpoint)", "(怎么|如何)(加载|使用|用|运行) ?(ChatGLM3-6B|chatglm3-6b|ChatGLM2-6B|ChatGLM-6B|GLM-4|glm-4-9b|ChatGLM3|6B模型|官方模型)", "(加载|换)(模型|权重)(怎么做|的命令|的方法|用什么命令)")],
        "运行 chatglm chat --model 权重目录。",
        ["how do I load my own model", "how do I load official weights", "how can I load ChatGLM3", "how do I load a model", "how can I load a model", *spread("how (do i|can i|to|do you) (load|use|run|open|try) (my|my own|official|other|the official|a bigger|another) (model|weights|checkpoint)", "how (do i|can i|to) (load|use|run) (chatglm3-6b|chatglm2|chatglm-6b|glm-4|chatglm3|chatglm)", "(load|run) my model")],
        "Run chatglm chat --model FOLDER.",
    ),
    "finetune": (
        ["怎么微调", "如何微调模型", "怎么微调模型", "怎么训练自己的模型", "如何微调", "怎么做LoRA微调", *spread("(怎么|如何|怎样)(微调|训练|精调|finetune|fine-tune)(一下|)(模型|你|自己的模型|chatglm|ChatGLM3|大模型|)", "(怎么|如何)(用|拿)(自己的|我的)数据(微调|训练)", "(怎么|如何)(做|用|跑)(LoRA|lora|微调|P-tuning|全量微调)(微调|训练|)", "(微调|训练)(怎么做|的命令|的方法|用什么命令|教程)")],
        "准备好对话数据，运行 chatglm finetune 数据文件 --method lora。",
        ["how do I fine-tune", "how can I fine-tune", "how do I fine-tune a model", "how can I train my own model", "how do I train with LoRA", *spread("how (do i|can i|to|do you) (fine-tune|finetune|train|fine tune|tune)( it| you| a model| my model| chatglm| on my data| with lora|)", "(how do i|how to) (train|fine-tune) (with|using) (my own|my|own) data", "(fine-tuning|finetune|lora training) (guide|command|help|how)")],
        "Prepare your dialogues and run chatglm finetune DATA --method lora.",
    ),
    "licence": (
        ["你是开源的吗", "你用什么许可证", "可以商用吗", "许可证是什么", "代码开源吗", *spread("(你|代码|这个项目|模型|权重|chatglm)(是|)(开源|免费)(的|)(吗|么)", "(可以|能|可不可以|能不能)(商用|免费使用|商业使用|用在公司|随便用)(吗|)", "(用|采用|是)(什么|哪个|啥)(许可证|协议|license|开源协议)")],
        "本项目的代码和我都采用 Apache-2.0 许可证。",
        ["are you open source", "what is your license", "which license do you use", "is it open source", *spread("(are you|is it|is this|is chatglm|is the code) (open source|free|free to use|open)", "(what|which) (is your |is the |)(license|licence)( do you use|)", "can i use (it|you|this) (commercially|for free|at work|in my company)")],
        "The code and I are under Apache-2.0.",
    ),
    "language": (
        ["你会说英语吗", "你会说中文吗", "你会英语吗", "你会什么语言", "你会几种语言", "你会中文吗", *spread("(你|您)(会|能|可以)(说|讲|用|)(英文|英语|中文|汉语|几种语言|什么语言|哪些语言|外语)(吗|交流吗|不|)", "(你|)(支持|懂|会)(英文|英语|中文|哪些语言|什么语言|几种语言)(吗|)")],
        "我会中文和英文，你用哪种语言问，我就用哪种语言答。",
        ["do you speak Chinese", "do you speak English", "which languages do you speak", "can you speak Chinese", "can you speak English", *spread("(do|can) you (speak|talk in|talk|understand|use|write) (chinese|english|in chinese|in english|mandarin)", "(what|which|how many) languages (do you speak|do you know|can you speak|do you support)")],
        "I speak Chinese and English; I answer in the language that you use.",
    ),
    "other": (
        ["你是ChatGPT吗", "你是GPT吗", "你是GPT-4吗", "你是DeepSeek吗", "你是Siri吗", "你是Claude吗", *spread("(你|您)(是|是不是|就是)(ChatGPT|chatgpt|GPT|GPT-4|GPT4|DeepSeek|Siri|Claude|文心一言|通义千问|Gemini|小爱同学|豆包|Kimi|LLaMA|元宝)(吗|吧|么|)", "你(和|跟|与)(ChatGPT|GPT4|GPT-4|DeepSeek|文心一言|豆包)(是什么关系|有什么区别|一样吗|哪个好)")],
        "不是，我是 chatglm 的演示模型。",
        ["are you ChatGPT", "are you GPT", "are you GPT-4", "are you Siri", "are you Claude", "are you DeepSeek", *spread("(are|r) (you|u) (chatgpt|gpt|gpt-4|gpt4|siri|claude|deepseek|gemini|llama|alexa|copilot|bard)", "(is this|am i talking to) (chatgpt|gpt-4|claude|siri|gemini)")],
        "No, I am the demo model of chatglm.",
    ),
}  # fmt: skip

MANUAL: dict[str, Subject] = {
    "sleep": (
        ["晚上睡不着应该怎么办", "晚上睡不着怎么办", "失眠怎么办", "失眠应该怎么办", "睡不着怎么办", "怎样才能睡得好", "如何改善睡眠", "晚上失眠怎么办", *spread("(晚上|夜里|最近|我最近|我|)(总是|老是|经常|又|)(睡不着|失眠|睡不着觉|睡不好|难以入睡)(了|)(怎么办|应该怎么办|该怎么办|咋整|咋办|有什么办法)(好|)", "(怎么|如何|怎样)(才能|)(睡得好|睡个好觉|改善睡眠|快速入睡|治失眠|解决失眠)")],
        "晚上睡不着可以试试：\n1. 每天按时睡觉和起床；\n2. 睡前不看手机，少喝咖啡；\n3. 慢慢深呼吸，放松身体。\n如果长期失眠，请去看医生。",
        ["what should I do if I can't sleep", "I can't sleep at night", "how can I sleep better", "what helps against insomnia", "how do I fall asleep",
         "I cannot fall asleep", *spread("(i |)(can't|cannot|cant|can not|don't) (sleep|fall asleep|sleep well)( at night| these days|)( what should i do| what can i do|)", "(how (do|can) i|how to|tips to) (sleep better|fall asleep|sleep well|beat insomnia)")],
        "When you cannot sleep, try this:\n1. Go to bed and get up at fixed times.\n2. No phone or coffee before bed.\n3. Breathe slowly and relax.\nIf it lasts, see a doctor.",
    ),
    "fishing": (
        ["请问钓鱼有什么技巧", "钓鱼有什么技巧", "怎么钓鱼", "钓鱼要注意什么", "如何钓鱼", "教我钓鱼", "怎样才能钓到鱼", "钓鱼有哪些技巧", *spread("(钓鱼)(有|)(什么|哪些|啥)(技巧|窍门|诀窍|方法|讲究)(没|没有|吗|)", "(怎么|如何|怎样)(才能|)(钓鱼|钓到鱼|钓到大鱼|学钓鱼|钓更多鱼)", "(教我|教教我|我想学)(钓鱼|怎么钓鱼)", "钓鱼(技巧|攻略|入门|注意事项)")],
        "钓鱼的技巧：\n1. 选早晨或傍晚，找水流缓的地方；\n2. 按鱼的种类选饵和钩；\n3. 耐心等待，看准浮漂再提竿。",
        ["how do I fish", "any tips for fishing", "how can I catch fish", "teach me to fish", "tips for fishing", "what are the tricks of fishing", *spread("(any|give me|some) (tips|advice|tricks) (for|on|about) (fishing|catching fish)", "(how (do|can|to|should) i|how to) (fish|catch fish|catch a fish|go fishing|catch a big fish)")],
        "Tips for fishing:\n1. Go early or late, to slow water.\n2. Choose bait and hook for the kind of fish.\n3. Be patient, and lift the rod when the float sinks.",
    ),
    "english": (
        ["怎么学英语", "如何学好英语", "怎么学好英语", "学英语有什么方法", "怎样提高英语", "如何学英语", *spread("(怎么|如何|怎样)(才能|)(学|学好|学习|提高|练好)(英语|英文|英语口语)", "(英语|英文)(怎么|如何)(学|学好|提高)", "(学英语|学英文|学好英语)(有|)(什么|啥|哪些)(方法|技巧|窍门|建议|办法)", "(我想学英语|想提高英语|英语不好怎么办|英语太差怎么办)")],
        "学英语可以这样做：\n1. 每天背十个单词；\n2. 多听多跟读；\n3. 大胆开口，不怕说错。",
        ["how do I learn English", "how can I improve my English", "tips for learning English", "how can I learn English", *spread("(how (do|can|should|to) i|how to|best way to|any advice on how to|tips to) (learn|improve|study|practice) (english|my english|better english)", "(any|give me|some) (tips|advice) (for|on|about) (english|learning english)")],
        "To learn English:\n1. Learn ten words a day.\n2. Listen a lot and repeat aloud.\n3. Speak, and do not fear mistakes.",
    ),
    "weight": (
        ["怎么减肥", "如何减肥", "减肥有什么方法", "怎样健康减肥", "我想减肥", "我要减肥", *spread("(怎么|如何|怎样)(才能|)(减肥|瘦身|瘦下来|减重|健康减肥|快速减肥|变瘦)", "(减肥|瘦身)(有|)(什么|啥|哪些)(方法|好办法|办法|技巧|建议)", "(我太胖了怎么办|太胖了怎么办|想减肥怎么办|我想瘦|我想减肥)")],
        "健康减肥要靠坚持：\n1. 少吃油炸和甜食；\n2. 每天运动半小时；\n3. 早睡，多喝水。",
        ["how do I lose weight", "how can I lose weight", "I want to lose weight", "tips for losing weight", *spread("(how (do|can|should) i|how to|best way to|tips to) (lose weight|slim down|get thinner|lose some weight)", "(i want to lose weight|i am too fat|i need to lose weight)")],
        "To lose weight:\n1. Eat less fried and sweet food.\n2. Move for half an hour a day.\n3. Sleep early and drink water.",
    ),
    "stress": (
        ["压力大怎么办", "如何缓解压力", "压力很大怎么办", "怎么缓解压力", "怎样减压", "工作压力大怎么办", *spread("(压力|工作压力|学习压力)(好|很|太|)大(怎么办|该怎么办|咋办|怎么缓解|)", "(怎么|如何|怎样)(缓解|减轻|释放|应对|排解)(压力|焦虑|工作压力)", "(压力大|焦虑)(有什么办法|怎么调整)")],
        "压力大的时候可以：\n1. 停下来，深呼吸几分钟；\n2. 出去散步；\n3. 和朋友聊聊。",
        ["how do I deal with stress", "how can I deal with stress", "what helps against stress", "tips against stress", *spread("(how (do|can|should) i|how to|tips to|what helps to) (reduce|relieve|handle|deal with|cope with|manage) (stress|my stress|pressure)", "(i am (so |very |)stressed|too much stress)( what should i do| what can i do|)")],
        "Against stress:\n1. Stop and breathe deeply.\n2. Take a walk.\n3. Talk to a friend.",
    ),
    "cold": (
        ["感冒了怎么办", "感冒怎么办", "我感冒了怎么办", "感冒应该怎么办", "感冒了要注意什么", "怎么治感冒", *spread("(我|)(感冒|着凉|伤风)(了|)(怎么办|该怎么办|应该怎么办|咋办|咋整|要注意什么|怎么好得快)", "(怎么|如何)(治|应对|缓解)感冒")],
        "感冒了要多休息、多喝热水，注意保暖。如果发高烧，请去看医生。",
        ["I have a cold", "what helps against a cold", "what should I do if I have a cold", "I caught a cold", *spread("(i have|i caught|i got) a (cold|bad cold)( what should i do| what helps|)", "(what helps|what to do|what should i do) (against|with|about) a cold", "how (do|can) i (treat|cure|get over) a cold")],
        "With a cold, rest, drink warm water and keep warm. With high fever, see a doctor.",
    ),
    "cooking": (
        ["番茄炒蛋怎么做", "怎么做番茄炒蛋", "教我做番茄炒蛋", "番茄炒蛋的做法", "西红柿炒鸡蛋怎么做", "如何做番茄炒蛋", *spread("(番茄|西红柿)(炒蛋|炒鸡蛋|鸡蛋)(怎么|如何|咋)(做|炒|弄|烧)", "(怎么|如何|教我|教教我怎么|我想学)(做|炒|烧)(番茄炒蛋|西红柿炒鸡蛋|番茄炒鸡蛋|西红柿炒蛋)", "(番茄炒蛋|西红柿炒蛋|西红柿炒鸡蛋|番茄炒鸡蛋)(的|)(做法|菜谱|步骤|食谱)")],
        "番茄炒蛋的做法：\n1. 鸡蛋打散加盐，炒熟盛出；\n2. 番茄切块，炒出汁；\n3. 倒回鸡蛋翻匀出锅。",
        ["how do I cook tomato and eggs", "how do I make tomato and eggs", "a recipe for tomato and eggs", "teach me to cook tomato and eggs", *spread("(how (do|can|to|should) i|how to|teach me to) (cook|make|prepare|fry) (tomato and eggs|tomatoes and eggs|tomato with eggs|scrambled eggs with tomato)", "(recipe for|a recipe of|give me a recipe for) (tomato and eggs|eggs and tomatoes)")],
        "Tomato and eggs:\n1. Beat the eggs with salt, fry and set aside.\n2. Fry tomato pieces until juicy.\n3. Add the eggs.",
    ),
    "coding": (
        ["怎么学编程", "如何学编程", "怎么学Python", "如何学习编程", "如何学Python", "怎样学好编程", *spread("(怎么|如何|怎样)(才能|)(学|学会|学好|学习|入门)(编程|Python|python|写代码|写程序|代码)", "(学|学习|想学)(编程|Python|python|写代码)(有|，有|)(什么|啥|哪些)(建议|方法|技巧|窍门)", "(编程|Python|python)(怎么|如何)(学|入门)", "我想学(编程|Python|写代码)")],
        "学编程的建议：\n1. 从 Python 开始，每天写一点；\n2. 先改例子，再做小项目；\n3. 学会读报错信息。",
        ["how do I learn programming", "how do I learn Python", "how can I learn to code", "tips for learning Python", *spread("(how (do|can|should) i|how to|best way to|tips to) (learn|start|study) (programming|python|coding|to code|to program)", "(any|give me|some) (tips|advice) (for|on|about) (learning python|coding|programming)")],
        "To learn programming:\n1. Start with Python, a little every day.\n2. Change examples, then build small things.\n3. Learn to read error messages.",
    ),
    "photo": (
        ["怎么拍好照片", "拍照有什么技巧", "如何拍好照片", "摄影有什么技巧", "拍照有哪些技巧", *spread("(怎么|如何|怎样)(才能|)(拍|拍出|拍好)(好|)(照片|照|好看的照片)", "(拍照|摄影|照相)(有|)(什么|哪些|啥)(技巧|窍门|诀窍|建议)", "(拍照技巧|摄影入门|教我拍照)")],
        "拍照的技巧：\n1. 找好光线；\n2. 背景要简单；\n3. 拿稳手机，多拍几张。",
        ["how do I take good photos", "any tips for taking photos", "how can I take better photos", "tips for taking photos", *spread("(how (do|can|should) i|how to|tips to) (take|shoot|make) (good|better|nice|great) (photos|pictures)", "(any|give me|some) (tips|advice) (for|on|about) (photos|photography|taking pictures)")],
        "For good photos:\n1. Look for good light.\n2. Keep the background simple.\n3. Hold still, and take several.",
    ),
    "memory": (
        ["怎样提高记忆力", "如何提高记忆力", "怎么提高记忆力", "记性不好怎么办", "记忆力不好怎么办", *spread("(怎么|如何|怎样)(才能|)(提高|增强|改善|锻炼)(记忆力|记性)", "(记性|记忆力)(不好|差|太差|越来越差)(怎么办|该怎么办|咋办|)", "(提高|增强)(记忆力|记性)(有|的|)(什么|)(方法|好办法|办法|技巧)", "(总是忘事怎么办|老忘事怎么办|怎么记得更牢)")],
        "提高记忆力的方法：\n1. 睡够觉；\n2. 按时复习；\n3. 讲给别人听。",
        ["how can I improve my memory", "how do I improve my memory", "tips for a better memory", *spread("(how (do|can|should) i|how to|tips to) (improve|train|boost|get) (my memory|a better memory|memory)", "(i forget everything|my memory is bad|i have a bad memory)( what should i do|)")],
        "For a better memory:\n1. Sleep enough.\n2. Review in time.\n3. Explain it to others.",
    ),
}  # fmt: skip

CANNOT_ZH = "抱歉，这个我还不会。我只是一个很小的演示模型。"
CANNOT_EN = "Sorry, I cannot do that yet. I am only a very small demo model."


def _kind(core: str, english: bool) -> Kind:
    """Whether a core asks, tells what to do, or only says something."""
    if english:
        if core.lower().startswith(
            ("how", "wh", "are", "is ", "do ", "does", "can ", "could", "will", "any", "r ", "am ")
        ):
            return "ask"
        return (
            "do"
            if core.lower().startswith(
                ("tell", "give", "introduce", "describe", "explain", "make", "list", "teach", "say", "load", "run")
            )
            else "say"
        )
    if any(sign in core for sign in ("什么", "谁", "怎", "吗", "多少", "多大", "几", "哪", "如何", "啥", "咋", "么")):
        return "ask"
    return "do" if core.startswith(("讲", "说", "介绍", "来", "给我", "教", "列", "做", "逗")) else "say"


def ask(rng: Random, split: Split, subjects: dict[str, Subject], english: bool | None = None) -> tuple[str, str]:
    """A question and its answer. A wording is held out as a whole; cores are held out as well."""

    def make() -> tuple[str, str]:
        name = rng.choice(list(subjects))
        zh, zh_answer, en, en_answer = subjects[name]
        other = rng.random() < 0.37 if english is None else english
        core = form(rng, split, en if other else zh)
        # Greetings and the like are often said in no more than their own words.
        text = dress(rng, split, core, other, _kind(core, other), calm=0.6 if name in GREETINGS else 0.3)
        return text, en_answer if other else zh_answer

    return draw(rng, split, make, lambda made: made[0])


def greeting(rng: Random, split: Split, english: bool) -> tuple[str, str]:
    """A hello and what is said to it; any skill may start with one."""
    return ask(rng, split, {"hello": GREETINGS["hello"]}, english)


def cannot(rng: Random, split: Split, english: bool | None = None) -> tuple[str, str]:
    """A request that is beyond it, and its answer."""

    def make() -> tuple[str, str]:
        other = rng.random() < 0.37 if english is None else english
        luck = rng.random()
        if luck < 0.03:  # no language at all
            text = " ".join(word(rng) for _ in range(rng.randint(1, 4))) if other else nonsense(rng, rng.randint(2, 8))
        elif luck < 0.04:
            text = "".join(rng.choices("？?。.!！…、~asdfjklqwe", k=rng.randint(1, 6)))
            other = text.isascii() and any(sign.isalpha() for sign in text)
        else:
            core, kind = beyond.request(rng, split, other)
            text = dress(rng, split, core, other, kind)
        return text, CANNOT_EN if other else CANNOT_ZH

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
