"""Input of a terminal: a command with its argument, or a message to the model."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["COMMANDS", "Command", "Do", "Say", "Unknown", "named", "read", "usage"]

Values = Literal["", "mode", "file", "tools", "character", "params", "model", "adapter", "format", "conversation", "on"]


@dataclass(frozen=True)
class Command:
    """
    Attributes:
        arguments: as the help shows them; "" if it takes none.
        help: in English and in Chinese.
        aliases: other words for it.
        values: kind of completions of its argument.
    """

    name: str
    arguments: str
    help: tuple[str, str]
    aliases: tuple[str, ...] = ()
    values: Values = ""


COMMANDS = (
    Command("help", "[COMMAND]", ("show the commands and keys", "显示命令与按键"), ("?", "h", "帮助")),
    Command(
        "mode",
        "chat|tools|code|character|documents",
        ("talk, use tools, code, a role or documents", "对话、工具、代码解释器、角色扮演或文档问答"),
        ("模式",),
        "mode",
    ),
    Command("system", "[TEXT|off]", ("show or set the system message", "查看或设置系统提示"), ("系统",)),
    Command(
        "tools",
        "[FILE|examples|on NAME|off NAME|manual FILE]",
        ("list tools, open more, switch them on or off", "列出、打开或开关工具"),
        ("工具",),
        "tools",
    ),
    Command(
        "character",
        "[NAME|FILE|off]",
        ("choose the character that the model plays", "选择要扮演的角色"),
        ("persona", "角色"),
        "character",
    ),
    Command("upload", "FILE", ("add a file to the conversation", "上传文件"), ("上传",), "file"),
    Command("files", "[NAME [FILE]]", ("list its files, or copy one to FILE", "列出文件，或另存一个"), ("文件",)),
    Command(
        "params",
        "[NAME [VALUE|off]]",
        ("show or set how answers are generated", "查看或设置生成参数"),
        ("set", "参数"),
        "params",
    ),
    Command("model", "[FOLDER|ID]", ("show the model, or load another", "查看或更换模型"), ("模型",), "model"),
    Command("adapter", "[NAME|off]", ("answer with a LoRA adapter", "选择 LoRA 适配器"), ("适配器",), "adapter"),
    Command("retry", "", ("answer the last question again", "重新回答上一个问题"), ("again", "重试")),
    Command("undo", "", ("take the last question back", "撤回上一个问题"), ("撤回",)),
    Command(
        "edit",
        "[N]",
        ("change question N (default: the last) and ask it again", "修改第 N 个问题后重新提问"),
        ("编辑",),
    ),
    Command("branch", "[[TURN] N]", ("go to version N of an answer", "切换到回答的第 N 个版本"), ("分支",)),
    Command("turns", "[N]", ("list the turns, or show all of turn N", "列出对话，或完整显示第 N 条"), ("记录",)),
    Command("search", "WORDS", ("search all conversations", "搜索所有对话"), ("find", "搜索")),
    Command("save", "FILE", ("write the conversation to a file", "把对话存入文件"), ("保存",), "file"),
    Command(
        "load",
        "[FILE|ID|N]",
        ("continue a conversation, or read a file", "继续某个对话，或读入文件"),
        ("continue", "读取"),
        "conversation",
    ),
    Command(
        "export",
        "md|jsonl FILE",
        ("write it as Markdown, or as data for fine-tuning", "导出为 Markdown 或微调数据"),
        ("导出",),
        "format",
    ),
    Command(
        "summary",
        "[on|off|TEXT]",
        ("show or change the memory of old turns, or switch it on or off", "查看、修改或开关摘要记忆"),
        ("memory", "摘要"),
        "on",
    ),
    Command("stats", "", ("show time, tokens and cache use", "显示用时、词元与缓存"), ("统计",)),
    Command("clear", "", ("begin a new conversation", "开始新对话"), ("new", "清空")),
    Command("exit", "", ("leave", "退出程序"), ("quit", "bye", "stop", "q", "退出")),
)
_BY_WORD = {word: command for command in COMMANDS for word in (command.name, *command.aliases)}
_BARE = {"clear": "clear", "清空": "clear", "stop": "exit", "exit": "exit", "quit": "exit", "退出": "exit"}
"""Words of the official demo, which need no slash."""
_WORD = re.compile(r"[/／]([^\W\d_]+|\?)(?:\s+(.*))?", re.S)


@dataclass(frozen=True)
class Do:
    """A command."""

    command: Command
    argument: str = ""


@dataclass(frozen=True)
class Say:
    """Text for the model."""

    text: str


@dataclass(frozen=True)
class Unknown:
    """It looks like a command, but is not one.

    Attributes:
        near: the name of one that may have been meant; "" if there is none.
    """

    word: str
    near: str


def read(typed: str) -> Do | Say | Unknown:
    """Read a typed line or block: a command, or text.

    A line that begins with a slash is a command if a single word follows. A path (`/usr/bin`, or `/etc` where there is
    such a folder), a formula or a comment is text; so is everything after a second slash (`//help` says `/help`), and
    all of several lines whose first word is not a command.
    """
    text = typed.strip()
    if text in _BARE:
        return Do(_BY_WORD[_BARE[text]])
    if text.startswith("//"):
        return Say(text[1:])
    match = _WORD.fullmatch(text)
    if match is None:
        return Say(text)
    word, argument = match[1].lower(), (match[2] or "").strip()
    if command := _BY_WORD.get(word):
        return Do(command, argument)
    if "\n" in text or (text[0] == "/" and os.path.exists(text.split()[0])):
        return Say(text)
    near = [known for known in _BY_WORD if known.startswith(word)] or difflib.get_close_matches(word, _BY_WORD, 1, 0.5)
    return Unknown(match[1], _BY_WORD[near[0]].name if near else "")


def named(word: str) -> Command | None:
    """A command by its name or another word for it, with or without its slash."""
    return _BY_WORD.get(word.strip().lstrip("/／").lower())


def usage(command: Command) -> str:
    return f"/{command.name} {command.arguments}".rstrip()
