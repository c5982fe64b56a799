"""Imports dialogues of other programs as conversations.

It reads .json and .jsonl files in the forms of `chat/rows.py` (our own export, OpenAI's messages, ShareGPT, the
official fine-tuning data), and the `history` of the official demos: pairs of ChatGLM-6B and ChatGLM2, messages of
ChatGLM3 and GLM-4.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from chatglm.characters import Character
from chatglm.chat.messages import Message, ToolSpec, whole_text
from chatglm.chat.personas import Persona
from chatglm.chat.rows import dialogue_of
from chatglm.conversation.prompts import character_of, manual_tools
from chatglm.conversation.settings import Settings
from chatglm.errors import InputError, ToolError
from chatglm.tools.interpreter.tool import Interpreter
from chatglm.tools.toolbox import Toolbox

__all__ = ["Imported", "read_conversations"]

_BYTES = 16 << 20
_PARTS = 1_000_000  # lists and objects; an empty one takes two bytes in a file, and 64 in memory
_ROWS = 10_000
_MESSAGES = 10_000
_TITLE = 40


@dataclass(frozen=True)
class Imported:
    """One imported conversation.

    Attributes:
        title: the title in the file, or the beginning of the first user's message.
        system: the system prompt.
        messages: without a system message at the beginning.
        tools: all tools on offer, wherever they were in the row.
        persona: the role that the assistant played.
    """

    title: str
    system: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    persona: Persona | None = None

    def settings(
        self, toolbox: Toolbox | None = None, *, code: bool = False, left_out: list[str] | None = None
    ) -> Settings:
        """Settings under which the conversation goes on with its system prompt, tools and character.

        Tools that are not in the toolbox become tools whose calls the person answers.

        Args:
            toolbox: the tools of this program.
            code: whether this program has the interpreter.
            left_out: reasons are added to this list if tools or a character cannot be used; the settings lack them.
        """
        settings, reasons = Settings(system=whole_text(self.system)), left_out if left_out is not None else []
        if self.tools == (Interpreter.spec,) and code:
            settings = replace(settings, mode="code")
        elif self.tools:
            names = tuple(tool.name for tool in self.tools)
            if toolbox is not None and toolbox.only(*names).specs == self.tools:
                settings = replace(settings, mode="tools", tools=names)
            else:
                given = whole_text(json.dumps(ToolSpec.as_given(self.tools), ensure_ascii=False, indent=2))
                try:
                    manual_tools(given)
                    settings = replace(settings, mode="tools", manual=given)
                except ToolError as error:
                    reasons.append(f"{self.title}: its tools are left out: {str(error).removeprefix('manual: ')}")
        if self.persona is not None:
            one = self.persona
            text = Character(one.bot_name, one.bot_info, one.user_name, one.user_info).text()
            played = replace(settings, mode="character", character=whole_text(text))
            try:
                character_of(played)
                settings = played
            except InputError as error:
                reasons.append(f"{self.title}: its character is left out: {str(error).removeprefix('character: ')}")
        return settings


def read_conversations(data: bytes, *, skipped: list[str] | None = None) -> list[Imported]:
    """Read conversations from the content of a file.

    Args:
        data: at most 16 MiB, with at most a million lists and objects, 10,000 conversations, and 10,000 messages in
            each.
        skipped: reasons are added to this list if rows are left out; without it, a bad row is an error.

    Raises:
        InputError: it is too large, is not JSON, holds no conversation, or has a bad row.
    """
    if len(data) > _BYTES:
        raise InputError(f"the file has {len(data):,} bytes; at most {_BYTES:,} are read. Split it")
    if data.count(b"[") + data.count(b"{") > _PARTS:
        raise InputError(f"the file has more than {_PARTS:,} lists and objects, which is the limit. Split it")
    rows = _rows(data)
    if len(rows) > _ROWS:
        raise InputError(f"the file has {len(rows):,} conversations; at most {_ROWS:,} are read. Split it")
    found: list[Imported] = []
    for where, row in rows:
        try:
            if isinstance(row, _Unreadable):
                raise InputError(row.reason)
            found.append(_imported(row))
        except (InputError, RecursionError) as error:
            said = str(error) if isinstance(error, InputError) else "nested too deep to be a dialogue"
            reason = f"{where}: {said}".encode("utf-8", "backslashreplace").decode()
            if skipped is None:
                raise InputError(reason) from None
            skipped.append(reason)
    if not rows:
        raise InputError("the file holds no conversation")
    return found


@dataclass(frozen=True)
class _Unreadable:
    reason: str


def _rows(data: bytes) -> list[tuple[str, Any]]:
    """Rows, each with its place in the file, for messages."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"the file is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    whole = _parsed(text)
    if not isinstance(whole, _Unreadable):
        if isinstance(whole, list) and not _is_history(whole):
            return [(f"row {number}", row) for number, row in enumerate(whole, 1)]
        return [("row 1", whole)]
    lines = [(f"line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if len(lines) > _ROWS:
        raise InputError(f"the file has more than {_ROWS:,} lines, which is the limit. Split it")
    rows = [(where, _parsed(line)) for where, line in lines]
    if all(isinstance(row, _Unreadable) for _, row in rows):
        raise InputError(whole.reason)
    return rows


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        return _Unreadable(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}")
    except RecursionError:
        return _Unreadable("nested too deep to be a dialogue")
    except ValueError as error:  # Python does not read integers of more than 4,300 digits
        return _Unreadable(f"a number in it cannot be read ({str(error).partition(';')[0]})")


def _is_history(value: Any) -> bool:
    """Whether a list is the history of one of the official demos, rather than a list of rows."""
    if not isinstance(value, list) or not value:
        return False
    return _are_pairs(value) or all(isinstance(entry, Mapping) and "role" in entry for entry in value)


def _are_pairs(value: list[Any]) -> bool:
    return all(
        isinstance(entry, list) and len(entry) == 2 and all(text is None or isinstance(text, str) for text in entry)
        for entry in value
    )


def _imported(row: Any) -> Imported:
    if isinstance(row, Mapping) and set(row) <= {"history", "response"} and _is_history(row.get("history")):
        row = row["history"]
    title = ""
    if _is_history(row):
        row = _as_row(row)
    elif isinstance(row, Mapping) and isinstance(row.get("title"), str):
        title = row["title"]
    if isinstance(row, Mapping):
        for key in ("conversations", "messages", "conversation", "history"):
            if isinstance(row.get(key), list) and len(row[key]) > _MESSAGES:
                raise InputError(f"{key}: {len(row[key]):,} messages; at most {_MESSAGES:,} are read")
    dialogue = dialogue_of(row)
    messages, system, tools = list(dialogue.messages), "", dialogue.tools
    if messages[0].role == "system":
        first = messages.pop(0)
        system, tools = first.content, tools or first.tools or ()
    return Imported(title or _title(messages), system, tuple(messages), tools, dialogue.persona)


def _title(messages: list[Message]) -> str:
    question = next((message.content for message in messages if message.role == "user"), "")
    line = " ".join(question[: 4 * _TITLE].split())
    return line if len(line) <= _TITLE else line[: _TITLE - 1] + "…"


def _as_row(history: list[Any]) -> dict[str, Any]:
    """Convert a demo's history to OpenAI's messages. A web demo may have a pair without an answer, and further
    metadata.
    """
    if _are_pairs(history):
        entries = [
            {"role": role, "content": text}
            for pair in history
            for role, text in zip(("user", "assistant"), pair, strict=True)
            if text is not None
        ]
        return {"messages": entries}
    return {
        "messages": [
            {key: value for key, value in entry.items() if key != "metadata" or isinstance(value, str)}
            for entry in history
        ]
    }
