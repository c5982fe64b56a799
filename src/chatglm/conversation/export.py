"""Exports the chosen path of a conversation: as Markdown for reading, and as a row of training data."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

from chatglm.chat.messages import Message, ToolSpec
from chatglm.chat.personas import Persona
from chatglm.conversation.store import File, uploads_with
from chatglm.conversation.tree import Tree, Turn
from chatglm.tools.interpreter.protocol import upload_notice

__all__ = ["announced", "json_line", "markdown", "saved_row", "training_row"]

_SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant", "observation": "Result"}


def markdown(
    tree: Tree, *, title: str = "", files: Sequence[File] = (), speakers: Mapping[str, str] = _SPEAKERS
) -> str:
    """The chosen path as Markdown.

    Args:
        files: of the conversation. Their names are links to files beside the text; those of a turn come after it.
        speakers: names for the roles.
    """
    path = tree.path()
    parts = [f"# {_escaped(title)}"] if title else []
    for turn in path:
        message = turn.message
        parts.append(f"**{_escaped(speakers.get(message.role, message.role))}**")
        if message.role == "observation":
            parts.append(_fenced(message.content))
        elif message.content:
            parts.append(message.content)
        for call in message.tool_calls:
            code = call.arguments.get("code") if set(call.arguments) == {"code"} else None
            text = call.text if call.text is not None else json.dumps(call.arguments, ensure_ascii=False, indent=2)
            parts += [f"`{call.name}`", _fenced(code, "python") if isinstance(code, str) else _fenced(text, "json")]
        parts += [_link(file) for file in files if file.turn == turn.id]
    shown = {turn.id for turn in tree.turns.values()}
    parts += [_link(file) for file in files if file.turn not in shown]
    return "\n\n".join(parts) + "\n"


def training_row(
    tree: Tree,
    *,
    form: Literal["chatglm3", "messages"] = "messages",
    system: str = "",
    tools: Sequence[ToolSpec] = (),
    persona: Persona | None = None,
    files: Sequence[File] = (),
    title: str = "",
    only_rated_up: bool = False,
    without_names: bool = False,
) -> dict[str, Any] | None:
    """The chosen path as a row for `chatglm finetune` (`chat/rows.py`); None if there is nothing to learn in it.

    Answers that were rated down get `loss: false`, and so do the calls of tools that led to them. Turns that were
    stopped, cut or left open get it too, because learning them would teach to end there. If the arguments of a call are
    not JSON, the row ends before the question that led to the call.

    Args:
        form: "messages": OpenAI's form, exact; "chatglm3": the form of the official scripts, which has a call and its
            result in one entry, without ids.
        system: the system prompt. If the path begins with a system message, that one is kept.
        tools: on offer. Tools of a message are kept there.
        persona: the role that the assistant played.
        files: of a conversation with the interpreter: uploads are announced in the same words that the model got.
        only_rated_up: learn only answers that were rated up.
        without_names: leave out the title, and the user's name in the role play. What people wrote is kept.
    """
    messages: list[Message] = []
    for exchange in _exchanges(tree.path()):
        if any(call.cut for turn in exchange for call in turn.message.tool_calls):
            break
        ratings = {turn.rating for turn in exchange if turn.message.role == "assistant"}
        liked = -1 not in ratings and (1 in ratings or not only_rated_up)
        messages += [_weighed(tree, turn, liked, files) for turn in exchange]
    if not any(message.role == "assistant" and message.loss is not False for message in messages):
        return None
    if persona is not None and without_names:
        persona = dataclasses.replace(persona, user_name=Persona.user_name)
    return _row(messages, form, system, tools, persona, "" if without_names else title)


def saved_row(
    tree: Tree,
    *,
    system: str = "",
    tools: Sequence[ToolSpec] = (),
    persona: Persona | None = None,
    title: str = "",
) -> dict[str, Any]:
    """All turns of the chosen path as a row that `importing.read_conversations` reads, to go on with it elsewhere.

    Answers without text and without a complete call get `loss: false`, because a row with such an answer that is to be
    learned cannot be read.

    Args:
        system, tools, persona, title: see `training_row`.
    """
    messages = []
    for turn in tree.path():
        calls = tuple(call for call in turn.message.tool_calls if not call.cut)
        message = dataclasses.replace(turn.message, tool_calls=calls)
        if message.role == "assistant" and not (message.content.strip() or calls):
            message = dataclasses.replace(message, loss=False)
        messages.append(message)
    return _row(messages, "messages", system, tools, persona, title)


def _row(
    messages: list[Message],
    form: Literal["chatglm3", "messages"],
    system: str,
    tools: Sequence[ToolSpec],
    persona: Persona | None,
    title: str,
) -> dict[str, Any]:
    if system and not (messages and messages[0].role == "system"):
        messages.insert(0, Message("system", system))
    row: dict[str, Any] = {}
    if title:
        row["title"] = title
    if persona is not None:
        row["session_meta"] = dataclasses.asdict(persona)
    if tools and not any(message.tools for message in messages):
        row["tools"] = ToolSpec.as_given(tools)
    if form == "chatglm3":
        row["conversations"] = _official(messages)
    else:
        row["messages"] = [message.to_dict() for message in messages]
    return row


def json_line(row: Mapping[str, Any]) -> bytes:
    """A row as a line of a .jsonl file, in UTF-8."""
    try:
        return (json.dumps(row, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return (json.dumps(row) + "\n").encode()


def _exchanges(path: Sequence[Turn]) -> list[list[Turn]]:
    """Groups of turns: each user's turn with all turns up to the next one of the user."""
    found: list[list[Turn]] = []
    for turn in path:
        if turn.message.role == "user" or not found:
            found.append([])
        found[-1].append(turn)
    return found


def _weighed(tree: Tree, turn: Turn, liked: bool, files: Sequence[File]) -> Message:
    message = announced(tree, turn, files)
    whole = turn.finish in ("stop", "tool_calls") and (message.content.strip() or message.tool_calls)
    if message.role == "assistant" and not (liked and whole):
        return dataclasses.replace(message, loss=False)
    return message


def announced(tree: Tree, turn: Turn, files: Sequence[File]) -> Message:
    """The message of a turn. A user's message begins with the notices of the uploads that came with it."""
    message = turn.message
    if message.role != "user" or not files:
        return message
    notices = [upload_notice(file.name, file.size) for file in uploads_with(tree, turn, files)]
    return dataclasses.replace(message, content="\n".join([*notices, message.content]))


def _official(messages: Sequence[Message]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    left = [_without_ids(message) for message in reversed(messages)]
    while left:
        message = left.pop()
        follows = left[-1] if left else None
        alone = message == Message("assistant", tool_calls=message.tool_calls[:1], loss=message.loss)
        if alone and message.tool_calls and follows == Message("observation", follows.content if follows else ""):
            (call,) = message.tool_calls
            entry: dict[str, Any] = {"role": "tool", "name": call.name, "parameters": dict(call.arguments)}
            entry["observation"] = left.pop().content
            if message.loss is not None:
                entry["loss"] = message.loss
        else:
            entry = message.to_dict()
        entries.append(entry)
    return entries


def _without_ids(message: Message) -> Message:
    calls = tuple(dataclasses.replace(call, id="", text=None) for call in message.tool_calls)
    return dataclasses.replace(message, tool_calls=calls, tool_call_id="")


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>#])", r"\\\1", " ".join(text.split()))


def _fenced(text: str, language: str = "") -> str:
    """A block of code with a fence that is longer than any fence in it."""
    longest = max((len(found) for found in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _link(file: File) -> str:
    return f"{'!' if file.kind == 'picture' else ''}[{_escaped(file.name)}]({quote(file.name)})"
