"""Chinese translations of what the package says to people: errors, and the help of generation options.

For programs and logs, errors are always English. Terminal and page show them in the language of the user: `said` finds
the translation by the English pattern. A sentence without a translation stays English.
"""

from __future__ import annotations

import functools
import re

__all__ = ["SENTENCES", "option", "said"]

# Help of generation options. The English text is in `Option.help`.
_OPTIONS = {
    "temperature": "越高越随机；0 总是取最可能的词元",
    "top_k": "只从最可能的这么多个词元中抽取；0 表示不限",
    "top_p": "只从概率之和达到它的最可能的词元中抽取",
    "min_p": "去掉概率低于最高概率这一比例的词元",
    "repetition_penalty": "大于 1 时，出现过的词元不易再次出现",
    "presence_penalty": "回答中已有的词元，分数减去它",
    "frequency_penalty": "回答中每出现一次，分数减去它一次",
    "seed": "种子相同，回答相同；留空则每次不同",
    "stop": "遇到这些文字就结束回答",
    "max_new_tokens": "回答最多有多少词元",
    "max_length": "提示与回答一共最多有多少词元",
    "min_new_tokens": "回答至少有多少词元",
}


def option(name: str, text: str) -> str:
    """The help of a generation option.

    Args:
        text: the English help, which is returned if there is no translation.
    """
    return _OPTIONS.get(name, text)


SENTENCES: dict[str, str] = {
    # Messages of people, and conversations
    "text: is empty; say something": "请先输入内容",
    "text: longer than {most} characters": "内容超过 {most} 个字符",
    "files: no {name} was uploaded to this conversation": "这段对话中没有上传过 {name}",
    "undo: the conversation is at its beginning": "已经回到对话的开头",
    "file {name}: no such file in this conversation": "这段对话中没有文件 {name}",
    "{name}: no such file in this conversation": "这段对话中没有文件 {name}",
    "{name}: no such file; the conversation has none": "这段对话中没有文件 {name}",
    "{name}: no such file in the conversation's folder": "这段对话中没有文件 {name}",
    "this conversation is being answered; wait for the end, or stop it": "回答尚未结束，请等待或先停止",
    "another program is answering in this conversation; wait for the end, or stop it there": (
        "另一个程序正在回答这段对话，请等待或在那里停止"
    ),
    "the conversation's Python and its files are in use by another program (process {process}); end that one, or wait "
    "until its Python has been idle for some minutes": (
        "这段对话的 Python 和文件正被另一个程序（进程 {process}）使用，请结束它，或等它空闲几分钟后再试"
    ),
    "call {call}: no answer is waiting for it": "回答已经结束，不再等待这次调用",
    "call {call}: does not wait for {article} {wanted}": "这次调用不再等待答复",
    "turn {turn}: this conversation has no such turn": "这段对话没有第 {turn} 条",
    "turn {turn}: no such turn in this conversation": "这段对话没有第 {turn} 条",
    "turn {turn}: no user's turn comes before it, so there is nothing to answer again": "它之前没有问题，无法重新回答",
    "turn {turn}: only an assistant's turn can be rated": "只能评价助手的回答",
    "turn {turn}: it is still being written; stop it first": "这条内容还在生成，请先停止",
    "conversation {name}: no such conversation; it may have been deleted": "没有这段对话，可能已被删除",
    "conversation {name}: no such conversation": "没有对话 {name}",
    "conversation {name}: {count} ids begin with it; give more of the id": (
        "有 {count} 段对话以 {name} 开头，请多输入几位"
    ),
    "no such conversation; it may have been deleted": "没有这段对话，可能已被删除",
    "{count} messages: a conversation has at most {most}": "共 {count} 条消息，一段对话最多 {most} 条",
    "there are {count} conversations, which is the limit; delete some": "已有 {count} 段对话，达到上限，请先删除一些",
    "the conversation has {count} turns, which is the limit; begin another": (
        "这段对话已有 {count} 条，达到上限，请开始新对话"
    ),
    "the conversation has {count} files, which is the limit; remove some": "这段对话已有 {count} 个文件，达到上限",
    "the conversations and files have {used} bytes; at most {most} are kept. Delete some": (
        "对话和文件共占 {used} 字节，最多保存 {most} 字节，请先删除一些"
    ),
    "the message is larger than {most} bytes; shorten it, or send a file": (
        "消息超过 {most} 字节，请缩短，或改为上传文件"
    ),
    "the settings are larger than {most} bytes": "设置超过 {most} 字节",
    "mode: code needs the interpreter, but this program was started without it": (
        "代码模式需要解释器，而程序启动时没有启用"
    ),
    "mode: documents needs a knowledge base, but there is none": "文档模式需要知识库，而这里没有",
    "there is no knowledge base yet; `chatglm knowledge add NAME FILES` makes one": (
        "还没有知识库，可用 `chatglm knowledge add NAME FILES` 建立"
    ),
    "base {name}: there is no such base; `chatglm knowledge list` shows all": (
        "没有知识库 {name}，`chatglm knowledge list` 可列出已有的"
    ),
    "model: there is no {name}; known: {known}": "没有模型 {name}，可选：{known}",
    "model: there are no models": "没有可用的模型",
    "adapter: there is no {name}; known: {known}": "没有适配器 {name}，可选：{known}",
    "tools: there is no {name}; known: {known}": "没有工具 {name}，可选：{known}",
    "manual: larger than {most} bytes": "手动模式的工具定义超过 {most} 字节",
    "manual: expected 1 to {most} tools with different names": "手动模式需要 1 到 {most} 个名称各不相同的工具",
    "manual: {name} is not a valid name for a tool": "手动模式：{name} 不能用作工具名",
    "{which} Python kernels are running code; try again when a cell has ended": (
        "正在运行的 Python 已达上限，请等其他代码运行结束后再试"
    ),
    "{name}: larger than {most} bytes, the limit of {limit}": "{name} 超过 {most} 字节的上限",
    "{name}: the conversation's folder is full ({count} files); remove some first": (
        "这段对话的文件夹已满（{count} 个文件），请先删除一些"
    ),
    "{name} cannot be the name of an uploaded file: {problem}": "{name} 不能用作上传文件的名称",
    "{name}: cannot be stored ({why})": "{name} 无法保存（{why}）",
    "{name}: not a regular file": "{name} 不是普通文件",
    # The model
    "This model's maximum context length is {limit} tokens; {which} {tokens} tokens, which leaves no room for an "
    "answer. Shorten the {field}.": "模型的上下文最多 {limit} 个词元，而提示已有 {tokens} 个，没有余地回答；请缩短内容",
    "max_length is {limit} tokens; {which} {tokens} tokens, which leaves no room for an answer. Shorten the {field}.": (
        "max_length 为 {limit} 个词元，而提示已有 {tokens} 个，没有余地回答；请缩短内容，或增大 max_length"
    ),
    "the prompt has {prompt} tokens, and max_length (prompt and answer together) is {limit}: shorten the prompt, or "
    "raise max_length": ("提示有 {prompt} 个词元，而计入提示的 max_length 为 {limit}；请缩短内容，或增大 max_length"),
    "the request could not begin: {why}": "请求未能开始：{why}",
    "the answer could not be read: {why}": "回答无法读取：{why}",
    "this answer failed: {why}": "生成回答时出错：{why}",
    "model {name} is still being loaded; send the request again later": "模型 {name} 正在加载，请稍后再试",
    "model {name} needs {size} of memory, which other models in use occupy; send the request again later": (
        "模型 {name} 需要 {size} 内存，正被其他模型占用，请稍后再试"
    ),
    "--system: {generation} has no system message in its prompt": "{generation} 的提示中没有系统消息",
    "CharacterGLM plays a role and needs its description: --character NAME|FILE, such as tea-house, or a file with "
    "name, bot_info, user_name and user_info": (
        "CharacterGLM 用于角色扮演，请用 /character 或 --character 选择角色，例如 tea-house"
    ),
    "{path}: no such folder; give a checkpoint's folder, or a repository id such as THUDM/chatglm3-6b": (
        "没有文件夹 {path}；请给出检查点的文件夹，或 THUDM/chatglm3-6b 这样的仓库名"
    ),
    # Options of generation
    "{name} is {value}; it must be {wanted} or null": "{name} 不能是 {value}，应为{wanted}，或留空",
    "{name} is {value}; it must be {wanted}": "{name} 不能是 {value}，应为{wanted}",
    "{name} is not an option of generation; did you mean {near}?": "没有生成参数 {name}，是否想用 {near}？",
    "{name} is not an option of generation; known: {known}": "没有生成参数 {name}，可用：{known}",
    "{name}: a conversation has one answer at a time, without probabilities": "对话每次只有一个回答，不能设置 {name}",
    "max_new_tokens is 0; it must be at least 1 or null (0 only with prompt_logprobs)": (
        "max_new_tokens 至少为 1，或留空"
    ),
    # Characters
    "there is no character {name}; known: {known}": "没有角色 {name}，可选：{known}",
    "{name}: no such file; names that need no file: {known}": "没有文件 {name}；内置的角色有 {known}",
    "{where}: larger than {most} bytes": "{where} 超过 {most} 字节",
    "{where}: {line}not valid YAML or JSON in UTF-8": "{where} 不是有效的 UTF-8 编码的 YAML 或 JSON",
    "{where}: expected names with texts, such as `name: 李白`; known: {known}": (
        "{where} 应由名称和文字组成，例如 `name: 李白`；可用的名称：{known}"
    ),
    "{where}: unknown name {name}; known: {known}": "{where}：未知的名称 {name}，可用：{known}",
    "{where}: not valid JSON ({why})": "{where} 不是有效的 JSON",
    "{where}: the card has no name": "{where}：角色卡没有名称",
    "{where}: cards of the kind {spec} are not supported; supported are {first} and {second}": (
        "{where}：不支持 {spec} 格式的角色卡，支持 {first} 和 {second}"
    ),
    "{where}: a picture without a card (no text chunk ccv3 or chara)": "{where}：这张图片中没有角色卡",
    "{where}: not a PNG file": "{where} 不是 PNG 文件",
    "{where}: the PNG file is cut short; its last chunk is missing": "{where}：PNG 文件不完整",
    "{where}: the PNG file is cut short in the chunk {kind}": "{where}：PNG 文件不完整",
    "{where}: the PNG file is damaged (the checksum of its chunk {kind} is wrong)": "{where}：PNG 文件已损坏",
    "{where}: the card in the picture is not base64": "{where}：图片中的角色卡无法读取",
    "{where}: the card in the picture cannot be unpacked": "{where}：图片中的角色卡无法读取",
    "{where}: not a complete zip file, or a zip64 file": "{where}：不是完整的 zip 文件",
    "{where}: not a complete zip file ({kind})": "{where}：不是完整的 zip 文件",
    "{where}: {name}: expected a text, got {value}": "{where}：{name} 应为文字",
    "{where}: {name}: expected a list of texts, got {value}": "{where}：{name} 应为文字的列表",
    "{where}: {name}: too long ({count} characters)": "{where}：{name} 过长（{count} 个字符）",
    # Files
    "the file has {size} bytes; at most {most} are read. Split it": "文件有 {size} 字节，最多读取 {most} 字节，请拆分",
    "the file has {count} conversations; at most {most} are read. Split it": (
        "文件有 {count} 段对话，最多读取 {most} 段，请拆分"
    ),
    "the file has more than {most} lines, which is the limit. Split it": "文件超过 {most} 行，请拆分",
    "row {n}: a row with the fields {names} is of no known form; known are {known}": (
        "第 {n} 行：不认识由 {names} 组成的数据"
    ),
    "the file holds no conversation": "文件中没有对话",
    "not JSON: {why} at line {line}, column {column}": "第 {line} 行第 {column} 列不是有效的 JSON",
    "the file is not UTF-8 ({why} at byte {place}); save it as UTF-8": "文件不是 UTF-8 编码，请另存为 UTF-8",
    "{name}: neither a character ({why}) nor dialogues ({other})": "{name} 既不是角色卡，也不是对话文件",
    "{path}: no such file; is {folder} a complete ChatGLM checkpoint folder?": "没有文件 {path}",
    "{path}: cannot be read ({why})": "{path} 无法读取（{why}）",
    "{path}: is not a regular file": "{path} 不是普通文件",
    "{path}: is {kind}, where a file is expected": "{path} 不是文件",
    "{path}: larger than {most} bytes, the limit for such a file of a checkpoint": "{path} 超过 {most} 字节",
    "{path}: not the name of a file": "{path} 不是文件名",
    "{path}: cannot be written ({why})": "{path} 无法写入（{why}）",
    # Tools
    "{source}: tools are in a .py file, in a .json or .yaml file or at an address (an OpenAPI document, or MCP "
    "servers), in the folder of an image model, or `examples`": (
        "{source}：工具来自 .py 文件、.json 或 .yaml 文件或网址（OpenAPI 文档、MCP 服务器）、"
        "图像模型的文件夹，或 `examples`"
    ),
    "{path}: no tools in it: no function has annotations and a docstring{why}": (
        "{path} 中没有工具：没有带类型注解和文档字符串的函数"
    ),
    "{source}: not the name of a file": "{source} 不是文件名",
    "{path}: neither an OpenAPI document (`openapi:`) nor a list of MCP servers (`servers:`)": (
        "{path} 既不是 OpenAPI 文档（`openapi:`），也不是 MCP 服务器列表（`servers:`）"
    ),
    "functions: two are named {name}; a model cannot tell them apart": "有两个工具都叫 {name}，模型无法区分",
    "the interpreter needs IPython: pip install 'chatglm[interpreter]'": (
        "解释器需要 IPython：pip install 'chatglm[interpreter]'"
    ),
    "--interpreter: the model's code cannot be confined on this machine ({missing}); `chatglm info` says what helps, "
    "and --code-runs-with-my-rights runs it unconfined": (
        "这台机器无法隔离模型的代码（{missing}）；`chatglm info` 说明如何解决，"
        "--code-runs-with-my-rights 则不隔离而直接运行"
    ),
    "{variant}: the best for this CPU": "{variant}（最适合这台机器的 CPU）",
    # The page
    "too many tries; try again in {seconds} s": "过于频繁，请在 {seconds} 秒后重试",
    "the key is wrong; use the address that the program showed when it started": (
        "密钥不正确，请使用程序启动时显示的地址"
    ),
    "Host {host}: this host name is not allowed; `--allow-host NAME` allows one": (
        "服务器不接受名称 {host}，可用 `--allow-host NAME` 允许"
    ),
    "Origin {origin}: only this page itself may make changes": "只有本页面才能进行更改",
    "the body is too large; at most {most} bytes are taken": "内容过大，最多 {most} 字节",
    "the body did not arrive in time": "内容没有及时到达",
    "name {name}: must have 1 to {most} printable characters": "用户名应为 1 到 {most} 个可见字符",
    # Documents that cannot be read, and bases
    "is a damaged PDF ({why})": "PDF 已损坏，请换一份",
    "is a damaged zip file ({why})": "压缩文件已损坏，请换一份",
    "is a damaged picture ({why})": "图片已损坏，请换一份",
    "is protected by a password; save it without one": "文件有密码保护，请去掉密码后再添加",
    "is protected against copying (DRM) and cannot be read": "文件有版权保护（DRM），无法读取",
    ".{kind} files are not supported; {hint}": "不支持 .{kind} 文件；{hint}",
    "save it as .docx": "请另存为 .docx",
    "save it as .pptx": "请另存为 .pptx",
    "save it as .xlsx": "请另存为 .xlsx",
    "convert it to .epub or .pdf": "请转换为 .epub 或 .pdf",
    "pack it as .zip, or unpack it": "请打包为 .zip，或解压后添加",
    "add its subtitles (.srt)": "请添加它的字幕（.srt）",
    "has nothing in it that can be read: {why}": "里面没有可以读取的文件",
    "{name}: is larger than {most} MiB, the limit for a file; split it": "超过 {most} MiB 的上限，请拆分",
    "has more than {most} characters, the limit for a file; split it": "超过 {most} 个字符的上限，请拆分",
    "has {count} pages, and at most {most} are read; split it": "共 {count} 页，最多读取 {most} 页，请拆分",
    "has {count} files in it, and at most {most} are read; split it": (
        "里面有 {count} 个文件，最多读取 {most} 个，请拆分"
    ),
    "{part} unpacks to more than {most} MiB, which is the limit": "{part} 解压后超过 {most} MiB 的上限",
    "{name}: took longer than {seconds} seconds to read; split or convert it": "读取超过 {seconds} 秒，请拆分",
    "{name}: its reader ended without an answer (code {code}); is the file damaged or very large?": (
        "读取时出错，文件可能已损坏或过大"
    ),
    "{name}: needs too much memory to read; split it": "读取所需内存过多，请拆分",
    "{name}: cannot be read any more ({why})": "文件已无法读取（{why}）",
    "no text on {pages}: {why}": "{pages} 没有文字：{why}",
    "it has no pages": "没有页面",
    "name: {name} is taken; choose another": "名称{name}已被使用，请换一个",
    "user {name}: no such user": "没有用户{name}",
    "{who}: is the only owner; make somebody else an owner first": "{who} 是唯一的所有者，请先指定另一个所有者",
    "file: {name} is not a valid file name; use at most {most} printable characters, without ..": (
        "{name}不能用作文件名"
    ),
    "base {name}: a name has at most 64 letters, digits, spaces, and . _ - between them; choose another": (
        "名称最多 64 个字符，可用文字、数字、空格和 . _ -"
    ),
    "name: you own {count} bases already, which is the limit; delete one": (
        "已有 {count} 个知识库，达到上限，请先删除一个"
    ),
    "file: a base can have at most {files} files and {size} GiB; remove some": (
        "一个知识库最多 {files} 个文件、{size} GiB，请先移除一些"
    ),
    "file: all bases of one user can have at most {size} GiB; remove some files": (
        "一个用户的知识库合计最多 {size} GiB，请先移除一些文件"
    ),
    "{count} files of the base wait to be read; send this one later": "已有 {count} 个文件等待读取，请稍后再传",
    "{field}: longer than {most} characters": "内容超过 {most} 个字符",
    # What does not fit into a context
    "the context is too short; oldest turns left out: {count} of {turns}": "共 {turns} 条，最早的 {count} 条未提供",
    "no summary was made: {why}": "没有生成摘要：{why}",
    "{name}: was not saved ({why})": "{name} 未能保存（{why}）",
}
"""English patterns and their translations. A name in braces stands for any text."""

_PARTS = {
    "a number": "数字",
    "an integer": "整数",
    "a finite number": "有限的数",
    "a list": "列表",
    "a string or a list of strings, none of them empty": "非空的文字，或其列表",
    "from {low} to {high}": " {low} 到 {high} 的数",
    "above {low}, at most {high}": "大于 {low} 且不超过 {high} 的数",
    "at least {low}": "不小于 {low} 的数",
    "above {low}": "大于 {low} 的数",
    "none": "无",
    # Of the operating system
    "No such file or directory": "没有这个文件或文件夹",
    "Permission denied": "没有权限",
    "Is a directory": "是文件夹",
    "Not a directory": "不是文件夹",
    "No space left on device": "磁盘空间不足",
    "Read-only file system": "文件系统只读",
    "File name too long": "文件名过长",
    "no such file": "没有这个文件",
}
"""Translations of parts of sentences: of texts in place of a name in braces, or after the last colon."""


def said(text: str, language: str = "zh") -> str:
    """Translate a sentence of the package.

    Args:
        text: the English sentence.
        language: "zh" or "en".

    Returns:
        The translation; the English text if there is none, or if `language` is not "zh".
    """
    if language != "zh" or len(text) > 1000:
        return text
    return _found(text, _patterns()) or _after_colon(text) or text


def _found(text: str, patterns: tuple[tuple[re.Pattern[str], str], ...]) -> str:
    for pattern, chinese in patterns:
        if match := pattern.fullmatch(text):
            told = chinese.format(**{name: _part(value) for name, value in match.groupdict().items()})
            return told.replace(" “", "“").replace("” ", "”")  # Chinese quotation marks need no spaces
    return ""


def _after_colon(text: str) -> str:
    """Translate only the part after a colon, in messages that begin with a place: `FILE: …`."""
    for colon in re.finditer(": ", text):
        rest = text[colon.end() :]
        if chinese := _found(rest, _patterns()) or _found(rest, _parts()):
            return f"{text[: colon.start()]}：{chinese}"
    return ""


def _part(text: str) -> str:
    """Translate a text that takes the place of a name: a part of a sentence, a quoted word, or any other text."""
    if quoted := re.fullmatch(r"'([^']*)'|\"([^\"]*)\"", text):
        return f"“{quoted[1] or quoted[2] or ''}”"
    return _found(text, _parts()) or text


@functools.cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    return _compiled(SENTENCES)


@functools.cache
def _parts() -> tuple[tuple[re.Pattern[str], str], ...]:
    return _compiled(_PARTS)


def _compiled(table: dict[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
    def pattern(english: str) -> re.Pattern[str]:
        pieces = re.split(r"\{(\w+)\}", english)
        return re.compile("".join(f"(?P<{one}>.*?)" if n % 2 else re.escape(one) for n, one in enumerate(pieces)), re.S)

    # Patterns with fewer names come first, because they match less.
    return tuple(
        (pattern(english), chinese) for english, chinese in sorted(table.items(), key=lambda one: one[0].count("{"))
    )
