"""Texts of the page, in Chinese and in English."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from chatglm.conversation import chinese

__all__ = ["LANGUAGES", "Words", "language_of"]

LANGUAGES = ("zh", "en")

_WORDS: dict[str, tuple[str, str]] = {
    # key: (Chinese, English). Texts of scripts begin with "js."; KEY.one is used if a number is 1.
    "app.skip": ("跳到输入框", "Skip to the question"),
    "app.close": ("关闭", "Close"),
    "app.cancel": ("取消", "Cancel"),
    "app.theme": ("深色或浅色", "Dark or light"),
    "app.fine": ("模型会出错，重要内容请核实。", "Models make mistakes. Check what is important."),
    "mode.title": ("模式", "Mode"),
    "mode.chat": ("对话", "Chat"),
    "mode.tools": ("工具", "Tools"),
    "mode.code": ("代码", "Code"),
    "mode.character": ("角色", "Role play"),
    "mode.documents": ("文档", "Documents"),
    "mode.chat.about": (
        "直接与模型交谈，每个问题都可以修改、重问，旧的回答不会丢。",
        "Talk with the model. Every question can be edited and asked again, and no answer is lost.",
    ),
    "mode.tools.about": ("模型可以调用工具，每一步都看得见。", "The model may call tools, and every step can be seen."),
    "mode.code.about": (
        "模型编写 Python 代码并在沙箱中运行，也能读取您上传的文件。",
        "The model writes Python and runs it in a sandbox, with the files that you upload.",
    ),
    "mode.code.off": (
        "这台服务器没有代码沙箱，不会运行任何代码。",
        "This server has no sandbox for code, and runs none.",
    ),
    "mode.character.about": ("模型扮演您选择的角色。", "The model plays a character of your choice."),
    "mode.documents.about": (
        "模型根据您的文档回答，并注明出处。",
        "The model answers from your documents.",
    ),
    "empty.chat": ("今天想聊什么？", "What is on your mind?"),
    "empty.tools": ("让模型使用工具", "Let the model use tools"),
    "empty.code": ("用代码求解", "Solve it with code"),
    "empty.character": ("今天和谁说话？", "Who will you talk to?"),
    "empty.documents": ("向您的文档提问", "Ask your documents"),
    "documents.none": ("还没有知识库。添加一个：", "There is no knowledge base yet. Add one:"),
    "documents.count": ("{n} 个文档", "{n} documents"),
    "documents.count.one": ("{n} 个文档", "{n} document"),
    "documents.all": (
        "勾选要提问的知识库；一个都不选，就问全部。",
        "Tick the bases to ask. With none ticked, all are asked.",
    ),
    "documents.add": ("添加文档", "Add documents"),
    "documents.manage": ("管理知识库", "Manage bases"),
    "bases.title": ("知识库", "Knowledge bases"),
    "bases.lead": (
        "把文档放进知识库，就能对它们提问，回答会注明出处。",
        "Put documents into a base and ask about them. Answers name the sentences that they rest on.",
    ),
    "bases.skip": ("跳到正文", "Skip to the content"),
    "bases.where": ("位置", "Where you are"),
    "bases.ask": ("提问", "Ask"),
    "bases.new": ("新建知识库", "A new base"),
    "bases.name": ("名称", "Name"),
    "bases.name.hint": ("例如：员工手册", "For example: handbook"),
    "bases.about": ("说明", "About"),
    "bases.about.hint": ("里面有什么（可不填）", "What is in it (optional)"),
    "bases.make": ("新建", "Make it"),
    "bases.count": ("{files} 个文件，{size}", "{files} files, {size}"),
    "bases.pieces": ("{n} 个片段", "{n} pieces"),
    "bases.count.one": ("{files} 个文件，{size}", "{files} file, {size}"),
    "bases.pieces.one": ("{n} 个片段", "{n} piece"),
    "bases.waiting": ("{n} 个等待中", "{n} waiting"),
    "bases.failed": ("{n} 个失败", "{n} failed"),
    "bases.all": ("全部文件", "All files"),
    "bases.trouble": ("没有生成向量，只按文字检索。", "There are no vectors; texts are found by their words."),
    "bases.files": ("文件", "Files"),
    "bases.search": ("检索测试", "Try a search"),
    "bases.settings": ("设置", "Settings"),
    "role.read": ("可读", "may read"),
    "role.write": ("可读写", "may read and add"),
    "role.own": ("所有者", "owner"),
    "drop.title": ("把文件或文件夹拖到这里", "Drop files or folders here"),
    "drop.kinds": (
        "PDF、Word、PowerPoint、Excel、EPUB、网页、Markdown、纯文本、zip……每个不超过 {size}",
        "PDF, Word, PowerPoint, Excel, EPUB, web pages, Markdown, text, zip …, {size} each",
    ),
    "drop.files": ("选择文件", "Choose files"),
    "drop.folder": ("选择文件夹", "Choose a folder"),
    "drop.send": ("上传", "Send"),
    "drop.sending": ("正在上传", "Sending"),
    "file.waiting": ("等待中", "waiting"),
    "file.reading": ("正在读取", "reading"),
    "file.indexing": ("正在建立索引", "indexing"),
    "file.vectors": ("可检索，正在生成向量", "searchable, vectors"),
    "file.ready": ("可检索", "searchable"),
    "file.failed": ("失败", "failed"),
    "file.notes": ("{n} 条提示", "{n} notes"),
    "file.notes.one": ("{n} 条提示", "{n} note"),
    "file.again": ("重试", "Try again"),
    "file.again.all": ("全部重试", "Try all again"),
    "file.remove": ("移除 {name}", "Remove {name}"),
    "file.remove.short": ("移除", "Remove"),
    "file.find": ("按文件名查找", "Find by name"),
    "file.none": ("还没有文件。", "There are no files yet."),
    "file.nothing": ("没有这样的文件。", "There are no such files."),
    "pager.title": ("翻页", "Pages"),
    "pager.before": ("上一页", "Previous"),
    "pager.after": ("下一页", "Next"),
    "pager.place": ("第 {n} 页，共 {of} 页", "page {n} of {of}"),
    "piece.place": ("字符 {start}–{end}", "characters {start}–{end}"),
    "piece.edited": ("已修改", "edited"),
    "piece.off": ("已停用", "off"),
    "piece.edit": ("修改", "Edit"),
    "piece.disable": ("停用", "Switch off"),
    "piece.restore": ("恢复原文", "Undo"),
    "piece.save": ("保存", "Save"),
    "piece.text": ("片段 {n} 的文字", "Text of piece {n}"),
    "piece.help": (
        "检索和回答使用这段文字，文件本身不变。",
        "Searches and answers use this text. The file stays as it is.",
    ),
    "piece.none": ("没有读出文字。", "No text has been read."),
    "source.title": ("出处", "Source"),
    "source.whole": ("在全文中查看", "Show in the whole file"),
    "source.edited": ("这个片段已修改，检索和回答使用的文字是：", "Somebody has edited this piece. Answers use:"),
    "source.picture": ("第 {n} 页的图像", "Picture of page {n}"),
    "try.question": ("问题", "Question"),
    "try.hint": ("输入一个问题，看会找到什么", "Type a question and see what is found"),
    "try.k": ("结果数", "How many"),
    "try.hits": ("{n} 个结果", "{n} hits"),
    "try.search": ("检索", "Search"),
    "try.lead": (
        "这里的检索与回答所用的完全相同，并显示每个得分的组成。",
        "This is the search that answers use, with the parts of every score.",
    ),
    "try.answered": ("文档可以回答这个问题。", "The documents can answer this."),
    "try.refused": ("文档中没有答案，模型不会作答。", "The documents have no answer; the model would not be asked."),
    "try.told": (
        "（未出现 {unknown}，覆盖 {covered}，判断值 {value}）",
        "(unknown {unknown}, covered {covered}, value {value})",
    ),
    "try.best": ("不用模型的回答", "Without a model"),
    "try.best.help": ("文档中最能回答问题的句子。", "The sentences of the documents that answer best."),
    "try.found": ("{n} 个片段", "{n} pieces"),
    "try.found.one": ("{n} 个片段", "{n} piece"),
    "score.lexical": ("字词 (BM25)", "words (BM25)"),
    "score.covered": ("覆盖", "covered"),
    "score.vector": ("向量", "vector"),
    "score.rerank": ("重排", "rerank"),
    "score.fused": ("总分", "score"),
    "base.answers": ("回答方式", "Answers"),
    "base.strict": ("文档中没有答案时", "Where the documents have no answer"),
    "base.strict.yes": ("直接说明没有", "Say so"),
    "base.strict.yes.help": ("不让模型自由发挥。", "The model is not asked."),
    "base.strict.no": ("让模型自行回答", "Let the model answer"),
    "base.strict.no.help": ("回答会注明不是来自文档。", "The answer says that it is not from the documents."),
    "base.prompt": ("提示词", "Prompt"),
    "base.prompt.help": (
        "留空则使用默认提示词。须包含 {context} 和 {question}。",
        "Empty: the usual one. It must have {context} and {question}.",
    ),
    "base.models": ("向量模型：{embedder}；重排模型：{reranker}", "Embedder: {embedder}; reranker: {reranker}"),
    "base.none": ("无", "none"),
    "base.save": ("保存", "Save"),
    "base.not.yours": ("只有所有者可以修改。", "Only an owner can change this."),
    "share.title": ("共享", "Sharing"),
    "share.help": (
        "其他人看不到这个知识库，除非与他们共享。",
        "Nobody else sees this base unless you share it.",
    ),
    "share.everyone": ("所有人", "everyone"),
    "share.you": ("（您）", "(you)"),
    "share.take": ("取消共享", "Stop sharing"),
    "share.take.from": ("不再与 {who} 共享", "Stop sharing with {who}"),
    "share.who": ("用户", "User"),
    "share.who.hint": ("用户名；* 表示所有人", "A user's name; * is everyone"),
    "share.role": ("权限", "Right"),
    "share.give": ("共享", "Share"),
    "base.name": ("改名", "Rename"),
    "base.name.help": (
        "文件、设置和共享不变；旧对话里勾选的是旧名字，需要重新勾选。",
        "Files, settings and sharing stay as they are. Conversations that ask the old name need the new one ticked.",
    ),
    "base.name.do": ("改名", "Rename"),
    "delete.title": ("删除", "Delete"),
    "delete.help": ("删除知识库和其中的全部文件。", "Delete the base with all files in it."),
    "delete.ask": ("删除知识库…", "Delete the base …"),
    "delete.sure": ("删除“{name}”？", "Delete “{name}”?"),
    "delete.what": (
        "其中有 {files} 个文件、{pieces} 个片段（{size}），删除后无法恢复。",
        "Its files ({files}, with {pieces} pieces and {size}) cannot be brought back.",
    ),
    "delete.do": ("永久删除", "Delete for good"),
    "cited.open": ("打开出处 {n}", "Open source {n}"),
    "cited.look": ("查看原文", "Open"),
    "cited.unsupported": ("没有段落支持这句话", "No passage supports this sentence"),
    "cited.some": ("{n} 句没有出处", "{n} sentences without a source"),
    "cited.some.one": ("{n} 句没有出处", "{n} sentence without a source"),
    "cited.closest": ("文档中最接近的句子", "The closest sentences in the documents"),
    "basis.title": ("模型看到的内容", "What the model saw"),
    "basis.back": ("返回对话", "Back to the conversation"),
    "basis.searched": ("检索的问题", "Searched for"),
    "basis.prompt": ("提示词原文", "The exact prompt"),
    "basis.prompt.help": (
        "这是发给模型的最后一条消息，一字不差。",
        "The last message that the model was asked, to the character.",
    ),
    "basis.none": ("没有询问模型。", "No model was asked."),
    "basis.sentences": ("各句的出处", "What each sentence rests on"),
    "basis.unsupported": ("没有出处的句子", "Sentences that nothing supports"),
    "settings.extract": ("不用模型", "Without the model"),
    "settings.extract.help": (
        "直接给出文档中最合适的句子。",
        "Answer with the best sentences of the documents.",
    ),
    "list.title": ("对话列表", "Conversations"),
    "list.new": ("新对话", "New conversation"),
    "list.search": ("搜索对话", "Search conversations"),
    "list.empty": ("还没有对话。", "No conversations yet."),
    "list.nothing": ("没有找到。", "Nothing was found."),
    "list.more": ("更早的对话", "Older ones"),
    "list.untitled": ("未命名的对话", "Untitled"),
    "list.today": ("今天", "Today"),
    "list.yesterday": ("昨天", "Yesterday"),
    "list.week": ("七天内", "Last seven days"),
    "list.older": ("更早", "Older"),
    "list.rename": ("修改标题", "Rename"),
    "list.delete": ("删除", "Delete"),
    "list.delete.one": ("删除“{title}”", "Delete “{title}”"),
    "list.delete.final": ("删除后无法恢复。", "It cannot be brought back."),
    "list.export": ("导出", "Export"),
    "list.export.jsonl": ("训练数据", "Training data"),
    "list.import": ("导入对话", "Import conversations"),
    "list.search.short": ("搜索", "Search"),
    "search.placeholder": ("搜索所有对话", "Search all conversations"),
    "keys.title": ("快捷键", "Keys"),
    "keys.send": ("发送", "Send"),
    "keys.newline": ("换行", "New line"),
    "keys.focus": ("转到输入框", "Go to the question"),
    "keys.stop": ("停止回答", "Stop the answer"),
    "keys.search": ("搜索", "Search"),
    "keys.edit": ("编辑上一个问题", "Edit the last question"),
    "keys.keys": ("显示快捷键", "Show the keys"),
    "turn.all": ("对话内容", "Conversation"),
    "turn.user": ("您", "You"),
    "turn.assistant": ("助手", "Assistant"),
    "turn.copy": ("复制", "Copy"),
    "turn.edit": ("编辑", "Edit"),
    "turn.again": ("重新回答", "Answer again"),
    "turn.good": ("好", "Good"),
    "turn.bad": ("不好", "Bad"),
    "turn.branches": ("版本", "Versions"),
    "turn.previous": ("上一个版本", "Previous version"),
    "turn.next": ("下一个版本", "Next version"),
    "turn.earlier": ("显示更早的内容", "Show earlier turns"),
    "turn.stopped": ("已停止", "Stopped"),
    "turn.length": ("达到长度上限，回答在此中断。", "The answer ends here because it has reached its longest length."),
    "turn.sources": ("{n} 个出处", "{n} sources"),
    "turn.sources.one": ("{n} 个出处", "{n} source"),
    "turn.sources.page": ("第 {n} 页", "page {n}"),
    "call.arguments": ("参数", "Arguments"),
    "call.result": ("结果", "Result"),
    "call.running": ("运行中", "Running"),
    "call.permission": ("等待您的许可", "Waiting for you"),
    "call.observation": ("等待您的结果", "Waiting for you"),
    "call.done": ("完成", "Done"),
    "call.failed": ("失败", "Failed"),
    "call.stopped": ("已停止", "Stopped"),
    "call.seconds": ("{seconds} 秒", "{seconds} s"),
    "call.permit": ("允许一次", "Allow once"),
    "call.always": ("本对话中总是允许", "Always in this conversation"),
    "call.refuse": ("拒绝", "Refuse"),
    "call.asks": ("允许使用 {name} 吗？", "Use {name}?"),
    "call.asks.help": ("模型想用上面的参数调用它。", "The model wants to call it with the arguments above."),
    "call.observe": ("{name} 返回什么？", "What does {name} return?"),
    "call.observe.help": ("由您代替工具回答。", "You answer in the tool's place."),
    "call.send": ("提交结果", "Give the result"),
    "call.picture": ("图片 {name}", "Picture {name}"),
    "call.writing": ("正在编写", "Writing"),
    "ask.placeholder": ("输入消息", "Message"),
    "ask.placeholder.chat": ("输入问题，按 Enter 发送", "Ask something"),
    "ask.placeholder.tools": ("提一个需要工具的问题", "Ask for something that needs a tool"),
    "ask.placeholder.code": ("描述要计算或绘制的内容", "Say what to compute or plot"),
    "ask.placeholder.character": ("对角色说点什么", "Say something to the character"),
    "ask.placeholder.documents": ("向文档提问", "Ask about the documents"),
    "ask.send": ("发送", "Send"),
    "ask.stop": ("停止", "Stop"),
    "ask.upload": ("上传文件", "Upload files"),
    "ask.files": ("要发送的文件", "Files to send"),
    "ask.latest": ("回到最新", "To the latest"),
    "settings.title": ("设置", "Settings"),
    "settings.model": ("模型", "Model"),
    "settings.adapter": ("适配器", "Adapter"),
    "settings.adapter.none": ("不使用", "None"),
    "settings.system": ("系统提示词", "System prompt"),
    "settings.system.hint": ("例如：请用简短的句子回答。", "For example: Answer in short sentences."),
    "settings.parameters": ("生成参数", "Sampling parameters"),
    "settings.default": ("默认", "default"),
    "settings.lines": ("每行一个", "one a line"),
    "settings.tools": ("工具", "Tools"),
    "settings.search": ("search_knowledge 可查的知识库", "Bases for search_knowledge"),
    "settings.manual": ("手动模式", "Manual mode"),
    "settings.manual.help": ("用 YAML 写下工具，由您给出它们的结果。", "Write tools as YAML; you give their results."),
    "settings.character": ("角色", "Character"),
    "settings.character.upload": ("上传角色卡", "Upload a character card"),
    "settings.context": ("上下文", "Context"),
    "settings.memory": ("记住被省略的内容", "Remember what is left out"),
    "settings.memory.help": ("为放不下的旧内容写摘要。", "Older turns that no longer fit are summarised."),
    "settings.summary": ("摘要", "Summary"),
    "about.title": ("关于", "About"),
    "about.fine": ("对话保存在运行本页的机器上。", "Conversations are kept on the machine that runs this page."),
    "about.version": ("版本", "Version"),
    "about.model": ("模型", "Model"),
    "about.models": ("全部模型", "All models"),
    "about.device": ("设备", "Device"),
    "about.kernels": ("计算内核", "Kernels"),
    "about.sandbox": ("沙箱", "Sandbox"),
    "about.sandbox.full": ("完整（命名空间、Landlock、seccomp）", "full (namespaces, Landlock, seccomp)"),
    "about.sandbox.confined": ("受限（Landlock、seccomp）", "confined (Landlock, seccomp)"),
    "about.sandbox.none": ("无，不能运行代码", "none; no code is run"),
    "about.sandbox.off": ("未启用", "off"),
    "about.storage": ("存储", "Storage"),
    "about.storage.used": ("已用 {used}，最多 {most}", "{used} of {most}"),
    "about.user": ("用户", "User"),
    "about.user.local": ("这台机器的使用者", "who uses this machine"),
    "about.user.guest": ("未登录，对话属于这个浏览器", "not signed in; conversations belong to this browser"),
    "login.title": ("登录", "Sign in"),
    "login.name": ("用户名", "Name"),
    "login.password": ("密码", "Password"),
    "login.out": ("退出登录（{name}）", "Sign out ({name})"),
    "error.back": ("返回", "Back to the page"),
    "error.invalid": ("请求有误", "The request is wrong"),
    "error.unauthorized": ("请先登录", "Sign in first"),
    "error.wrong_password": ("用户名或密码不正确", "The name or the password is wrong"),
    "error.forbidden": ("请求被拒绝", "The request was refused"),
    "error.not_found": ("没有找到，可能已被删除", "Not found; it may have been deleted"),
    "error.method": ("不支持的操作", "Not supported here"),
    "error.too_large": ("内容过大", "Too large"),
    "error.timeout": ("内容没有及时到达", "It did not arrive in time"),
    "error.busy": ("正在使用中", "It is in use"),
    "error.limit": ("已达到上限", "A limit is reached"),
    "error.service": ("模型服务无法访问", "The model's server does not answer"),
    "error.internal": ("服务器内部错误，详见日志", "An error within the server; its log has more"),
    "error.closing": ("服务器正在关闭", "The server is shutting down"),
    "note.missing": (
        "这段对话原来的模型“{wanted}”不在这里，之后由“{name}”回答；可在设置中更换。",
        "This conversation’s model, “{wanted}”, is not here. “{name}” answers from now on; Settings has the others.",
    ),
    "note.adapter": (
        "模型没有这段对话所用的适配器，将不用适配器回答。",
        "The model does not have the adapter of this conversation, and answers without one.",
    ),
    "note.summary_failed": ("这次没有生成摘要。", "No summary was made this time."),
    "note.left_out": ("较早的内容放不下，模型看不到了。", "Earlier turns no longer fit; the model does not see them."),
    "note.summary": ("摘要已更新。", "The summary was extended."),
    "note.restarted": ("Python 已重新启动，变量不再存在。", "Python was started again; variables are gone."),
    "js.copied": ("已复制", "Copied"),
    "js.done": ("回答完毕", "The answer is complete"),
    "js.failed": ("没有成功，请重试。", "That did not work; try again."),
    "js.offline": ("无法连接服务器，正在重试。", "The server cannot be reached; trying again."),
    "js.sending": ("正在上传文件。", "Uploading files."),
    "js.asks": ("模型在等待您", "The model waits for you"),
    "js.stopped": ("已停止", "Stopped"),
    "js.length": ("达到长度上限，回答不完整。", "Cut: the longest length was reached."),
    "js.tokens": ("个词元", "tokens"),
    "js.restarted": (
        "服务器已重新启动。已写下的内容都在，正在进行的回答已停止。",
        "The server was started again. What was written is kept; the running answer has ended.",
    ),
    "js.saved": ("已保存", "Saved"),
    "js.copy": ("复制", "Copy"),
    "js.edit": ("修改问题", "Edit the question"),
    "js.cancel": ("取消", "Cancel"),
    "js.send": ("发送", "Send"),
    "js.sure": ("？", "?"),
    "js.remove": ("移除", "Remove"),
    "js.again": ("重试", "Try again"),
}


@dataclass(frozen=True)
class Words:
    """The texts in one language; called with a key and the values for its braces.

    Attributes:
        language: "zh" or "en".
    """

    language: str

    def __call__(self, key: str, **values: object) -> str:
        """
        Raises:
            KeyError: there is no such text.
        """
        if 1 in values.values() and f"{key}.one" in _WORDS:
            key = f"{key}.one"
        text = _WORDS[key][LANGUAGES.index(self.language)]
        return text.format(**values) if values else text

    def has(self, key: str) -> bool:
        return key in _WORDS

    def option(self, name: str, help_text: str) -> str:
        """The help of an option of generation in this language, given its English help."""
        return chinese.option(name, help_text) if self.language == "zh" else help_text

    def said(self, text: str) -> str:
        """An English error of the package in this language."""
        return chinese.said(text, self.language)

    def script(self, front: str = "js.") -> Markup:
        """The texts whose keys have a prefix (removed), as JSON for the inside of a `<script>` element."""
        place = LANGUAGES.index(self.language)
        found = {key.removeprefix(front): words[place] for key, words in _WORDS.items() if key.startswith(front)}
        return Markup(json_for_script(found))


def json_for_script(value: Mapping[str, object]) -> str:
    """JSON that cannot end the `<script>` element around it."""
    return json.dumps(value, ensure_ascii=False).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def language_of(accepted: str, kept: str = "") -> str:
    """
    Args:
        accepted: the header Accept-Language.
        kept: the user's choice; "" if there is none.
    """
    if kept in LANGUAGES:
        return kept
    weighed = []
    for place, part in enumerate(accepted[:1000].split(",")):
        name, _, rest = part.strip().partition(";")
        weight = rest.strip().removeprefix("q=")
        try:
            quality = float(weight) if weight else 1.0
        except ValueError:
            quality = 0.0
        language = name.strip().lower().split("-")[0]
        if language in LANGUAGES and quality > 0:
            weighed.append((-quality, place, language))
    return min(weighed)[2] if weighed else "en"
