"""Texts of the terminal, in Chinese and English."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

from chatglm.conversation import chinese

__all__ = ["Language", "Words", "language_of"]

Language = Literal["zh", "en"]


def language_of(environment: Mapping[str, str] = os.environ) -> Language:
    """The language of the locale: LC_ALL, then LC_MESSAGES, then LANG."""
    named = next((found for name in ("LC_ALL", "LC_MESSAGES", "LANG") if (found := environment.get(name))), "")
    return "zh" if named.lower().startswith("zh") else "en"


class Words:
    """The texts in one language.

    Attributes:
        language: "zh" or "en".
    """

    def __init__(self, language: Language) -> None:
        self.language = language

    def __call__(self, name: str, /, **values: object) -> str:
        return _WORDS[name][self.language == "zh"].format(**values)

    def __contains__(self, name: str) -> bool:
        return name in _WORDS

    def said(self, text: str) -> str:
        """An English text of the package, such as an error, in this language."""
        return chinese.said(text, self.language)

    def option(self, name: str, text: str) -> str:
        """The help of an option of generation in this language, given its English help."""
        return chinese.option(name, text) if self.language == "zh" else text

    def of(self, pair: tuple[str, str]) -> str:
        """Choose between an English and a Chinese text."""
        return pair[self.language == "zh"]


_WORDS: dict[str, tuple[str, str]] = {
    "welcome": (
        "Ask away. /help shows the commands, Ctrl+D leaves.",
        "请开始提问。输入 /help 查看命令，按 Ctrl+D 退出。",
    ),
    "loading": ("loading the model", "正在加载模型"),
    "thinking": ("thinking", "思考中"),
    "stop_key": ("Ctrl+C stops", "Ctrl+C 停止"),
    "bar": ("/help  Alt+Enter: new line", "/help 帮助  Alt+Enter 换行"),
    "note_left_out": ("{text}", "上下文不足：{text}"),
    "note_adapter": (
        "the model does not have the adapter of this conversation, and answers without one",
        "模型没有此对话所用的适配器，将不用适配器回答",
    ),
    "note_restarted": ("the interpreter was restarted; its variables are gone", "解释器已重启，之前的变量不再存在"),
    "note_summary": ("summary: {text}", "摘要：{text}"),
    "stopped": ("stopped", "已停止"),
    "length": ("The answer was cut at its maximum length.", "回答达到最大长度，已截断。"),
    "leave_again": ("Press Ctrl+C again to leave.", "再按一次 Ctrl+C 退出。"),
    "unknown": ("/{word}: no such command. ", "/{word}：没有这个命令。"),
    "near": ("Did you mean /{near}? ", "您是想输入 /{near} 吗？"),
    "escape": (
        "/help shows all commands; //{word} is sent to the model.",
        "/help 查看命令；输入 //{word} 可原样发送。",
    ),
    "usage": ("Usage: {usage}", "用法：{usage}"),
    "permit": (
        "May {name} be used?  y yes  n no  a always",
        "允许使用 {name} 吗？ y 允许  n 拒绝  a 总是允许",
    ),
    "permit_code": (
        "May this code run, with your rights?  y yes  n no  a always",
        "允许以您的权限运行这段代码吗？ y 允许  n 拒绝  a 总是允许",
    ),
    "yes": ("yes", "允许"),
    "no": ("no", "拒绝"),
    "always": ("always", "总是允许"),
    "observe": ("What does {name} answer? ", "{name} 返回什么？"),
    "arguments": ("arguments", "参数"),
    "running": ("running", "运行中"),
    "writing": ("writing", "编写中"),
    "failed": ("failed", "失败"),
    "code": ("Python", "Python"),
    "more_lines": ("… more lines: {count}; /turns {turn} shows all", "… 还有 {count} 行，/turns {turn} 查看全部"),
    "picture": ("picture", "图片"),
    "file": ("file", "文件"),
    "sources": ("Sources", "来源"),
    "unsupported": ("Not in these sources:", "以下句子没有出处："),
    "keys": ("Keys", "按键"),
    "commands": ("Commands", "命令"),
    "new": ("A new conversation.", "已开始新对话。"),
    "nothing_said": ("Nothing has been said yet.", "还没有对话内容。"),
    "nothing_found": ("Nothing found.", "没有找到。"),
    "now": ("{what}: {value}", "{what}：{value}"),
    "none": ("none", "无"),
    "model": ("model", "模型"),
    "mode": ("mode", "模式"),
    "system": ("system message", "系统提示"),
    "character": ("character", "角色"),
    "adapter": ("adapter", "适配器"),
    "summary": ("summary", "摘要"),
    "memory": ("memory", "摘要记忆"),
    "on": ("on", "开"),
    "off": ("off", "关"),
    "adapters": ("adapters", "可用适配器"),
    "set": ("{what} is now {value}.", "{what}已设为“{value}”。"),
    "no_tools": (
        "No tools are open. /tools examples opens those that come with chatglm.",
        "没有打开任何工具。输入 /tools examples 打开内置工具。",
    ),
    "manual": (
        "You answer the calls of these tools yourself; /tools manual off ends it.",
        "这些工具的调用由您来回答；/tools manual off 结束。",
    ),
    "manual_off": ("Tools answer by themselves again.", "工具恢复自动回答。"),
    "asks": ("asks first", "使用前询问"),
    "undone": ("Taken back. Your question is in the input line again.", "已撤回，问题已放回输入行。"),
    "edit": (
        "Change the question and press Enter; Ctrl+C leaves it unchanged.",
        "修改问题后按 Enter 提交，Ctrl+C 放弃。",
    ),
    "no_branches": ("No answer here has another version.", "这里没有其他版本的回答。"),
    "no_turn": (
        "There is no turn {number}; /turns lists 1 to {most}.",
        "没有第 {number} 条；输入 /turns 查看第 1 到 {most} 条。",
    ),
    "no_version": ("There is no version {n}; there are 1 to {most}.", "没有版本 {n}，可选 1 到 {most}。"),
    "branch": ("Turn {turn}, version {n} of {of}.", "第 {turn} 条，版本 {n}/{of}。"),
    "written": ("{file} is written.", "已写入 {file}。"),
    "exists": ("{file} exists already.", "{file} 已存在。"),
    "overwrite": ("Overwrite it?  y yes  n no", "要覆盖吗？ y 是  n 否"),
    "read": (
        "Conversations read from {file}: {count}. This is the first.",
        "已从 {file} 读入 {count} 个对话，当前为第一个。",
    ),
    "continued": ("Continued: {title}", "继续：{title}"),
    "other_model": (
        "This conversation began with the model {wanted}; {name} answers now. /model FOLDER loads another.",
        "此对话原来使用模型 {wanted}，现在由 {name} 回答；输入 /model FOLDER 可更换。",
    ),
    "uploaded": ("{name} ({size}) is uploaded.", "已上传 {name}（{size}）。"),
    "no_files": ("The conversation has no files.", "对话中没有文件。"),
    "kind_upload": ("uploaded", "已上传"),
    "kind_picture": ("picture", "图片"),
    "kind_produced": ("made by code", "代码生成"),
    "nothing_answered": (
        "There is no answer to save yet. Ask something first, or save the questions as text: /save FILE.md",
        "还没有可保存的回答；可以先提问，或用 /save FILE.md 把问题存为文本。",
    ),
    "nothing_to_learn": (
        "There is nothing to learn from: no answer is complete, or all are rated down.",
        "没有可用于微调的内容：没有完整的回答。",
    ),
    "figures": (
        "first token {first:.2f} s, {rate:.1f} tokens/s; tokens: {made}; prompt {prompt} tokens, {cached} of them from "
        "the cache",
        "首词元 {first:.2f} 秒，{rate:.1f} 词元/秒，共 {made} 词元；提示 {prompt} 词元，其中 {cached} 来自缓存",
    ),
    "no_figures": ("There is no answer in this run yet.", "本次运行还没有回答。"),
    "totals": (
        "turns: {turns}; answers: {answers}; tokens of these: {made}",
        "{turns} 条；{answers} 个回答共 {made} 词元",
    ),
    "kept": ("kept as {id}; chatglm chat --continue continues it", "已保存为 {id}，chatglm chat --continue 可继续"),
    "not_kept": ("it is not kept (--no-store)", "不会保存（--no-store）"),
    "rights": (
        "The model's code runs with your own rights: it can read, change and delete your files.",
        "模型的代码以您的权限运行，可以读取、修改和删除您的文件。",
    ),
    "key_enter": ("send", "发送"),
    "key_newline": ("a new line (or \\ at the end of one)", "换行（或在行末输入 \\）"),
    "key_block": (
        "begins and ends a message of several lines; pasted text is one message",
        "开始和结束多行输入；粘贴的内容算一条消息",
    ),
    "key_editor": ("write in your editor ($EDITOR)", "在编辑器中编写（$EDITOR）"),
    "key_history": ("what was typed before; Ctrl+R searches", "以前输入的内容；Ctrl+R 搜索"),
    "key_complete": ("completes commands and what follows them", "补全命令及其参数"),
    "key_stop": (
        "stops the answer, its tool or its code; twice, or on an empty line, leaves",
        "停止回答、工具或代码；连按两次或在空行上退出",
    ),
    "key_leave": ("leaves", "退出"),
}
