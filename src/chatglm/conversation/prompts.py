"""Messages that the model gets: those of the turns, and those in front of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chatglm.assistant.base import BaseAssistant
from chatglm.characters import Character
from chatglm.chat.messages import Message, ToolSpec
from chatglm.chat.personas import Persona
from chatglm.conversation.export import announced
from chatglm.conversation.settings import Settings
from chatglm.conversation.store import File
from chatglm.conversation.tree import Tree, Turn
from chatglm.errors import InputError, ToolError
from chatglm.tools.documents import parse_value
from chatglm.tools.parameters import plain

__all__ = [
    "Told",
    "character_of",
    "exchanges",
    "first_turn",
    "groups_of",
    "manual_tools",
    "told",
    "without_oldest",
]

_MANUAL_BYTES = 64 << 10
_MANUAL_TOOLS = 32
_BEFORE = "之前发生的事："


@dataclass(frozen=True)
class Told:
    """The messages for the model.

    Attributes:
        messages: the messages in front of the turns, and those of the turns.
        turns: the turns that the last messages belong to.
        ahead: number of groups of messages in front of the turns. If the context is too short, the reported number of
            groups that were left out includes these.
    """

    messages: tuple[Message, ...]
    turns: tuple[Turn, ...]
    persona: Persona | None = None
    ahead: int = 0


def told(tree: Tree, leaf: int, settings: Settings, assistant: BaseAssistant, files: Sequence[File] = ()) -> Told:
    """The messages for the model.

    Args:
        leaf: the last turn that it gets.
        files: of the conversation; uploads are announced in front of the question that they came with.

    Raises:
        InputError: the conversation's character cannot be read.
    """
    path = tree.path(leaf)
    summary = settings.summary.strip()
    if settings.summarised and settings.summarised not in {turn.id for turn in path}:
        summary = ""  # it describes another branch
    system = "\n".join(filter(None, [settings.system, summary and f"{_BEFORE}{summary}"]))
    character = character_of(settings)
    if character is not None and path and path[0].message.role == "assistant":
        character = replace(character, greetings=(path[0].message.content,))
        path = path[1:]
    elif character is not None:
        character = replace(character, greetings=())
    turns, history = _history(tree, path, files if settings.mode == "code" else ())
    if character is None:
        lead = [Message("system", system)] if system else []
        return Told((*lead, *history), turns)
    form = getattr(assistant, "format", None)  # None: another server, which decides this
    room: dict[str, Any] = {}
    if form is not None:
        room = {"context": assistant.context, "count": lambda text: len(form.tokenizer.encode_text(text))}
    persona, messages = character.dialogue(None if form is None else form.generation, history, system=system, **room)
    return Told(messages, turns, persona, groups_of(messages) - groups_of(history))


def character_of(settings: Settings) -> Character | None:
    """The character that the model plays; None if there is none.

    Raises:
        InputError: the text of the setting is not a character.
    """
    if settings.mode != "character" or not settings.character.strip():
        return None
    return Character.from_bytes(settings.character.encode("utf-8", "replace"), "character")


def first_turn(settings: Settings, number: int = 0) -> Message | None:
    """The character's greeting, as a message that is never learned; None if the character waits for the user.

    Args:
        number: index of the greeting; after the last one, counting begins again.

    Raises:
        InputError: the text of the setting is not a character.
    """
    character = character_of(settings)
    if character is None or not character.greetings:
        return None
    greeting = character.greeting(number % len(character.greetings))
    return Message("assistant", greeting, loss=False) if greeting.strip() else None


def manual_tools(text: str) -> tuple[ToolSpec, ...]:
    """Read the tools whose calls a person answers: a list of tools, or a single one.

    Raises:
        ToolError: the text is neither YAML nor JSON, holds no tools, or too many or too large ones, or an invalid
            schema.
    """
    data = text.encode("utf-8", "replace")
    if len(data) > _MANUAL_BYTES:
        raise ToolError(f"manual: larger than {_MANUAL_BYTES:,} bytes")
    value = parse_value(data, "manual")
    try:
        tools = ToolSpec.list_from(value, "manual")
    except InputError as error:
        raise ToolError(str(error)) from None
    names = [tool.name for tool in tools]
    if not tools or len(tools) > _MANUAL_TOOLS or len(set(names)) < len(names):
        raise ToolError(f"manual: expected 1 to {_MANUAL_TOOLS} tools with different names")
    for tool in tools:
        if not tool.name.strip() or "\n" in tool.name or len(tool.name) > 100:
            raise ToolError(f"manual: {tool.name!r:.40} is not a valid name for a tool")
        if parameters := tool.flat().get("parameters"):
            plain(parameters, parameters if isinstance(parameters, Mapping) else {}, f"manual: {tool.name}")
    return tools


def exchanges(path: Sequence[Turn]) -> list[list[Turn]]:
    """Groups of turns that leave the context together: a user's turn, and all turns up to the next one of the user."""
    groups: list[list[Turn]] = []
    for turn in path:
        begins = not groups or (turn.message.role == "user" and groups[-1][-1].message.role != "user")
        groups.append([turn]) if begins else groups[-1].append(turn)
    return groups


def without_oldest(messages: Sequence[Message], count: int) -> tuple[Message, ...]:
    """Messages without some of their oldest groups (see `exchanges`). System messages in front stay.

    Args:
        count: number of groups to leave out, fewer than there are (`groups_of`).
    """
    starts = _starts(messages)
    return (*messages[: starts[0]], *messages[starts[count] :]) if count else tuple(messages)


def groups_of(messages: Sequence[Message]) -> int:
    """Number of groups of messages that leave the context together, without system messages in front."""
    return len(_starts(messages))


def _starts(messages: Sequence[Message]) -> list[int]:
    """Indices at which groups begin, see `exchanges`."""
    found: list[int] = []
    for place, message in enumerate(messages):
        if message.role == "system" and not found:
            continue
        if not found or (message.role == "user" and messages[place - 1].role != "user"):
            found.append(place)
    return found


def _history(tree: Tree, path: Sequence[Turn], files: Sequence[File]) -> tuple[tuple[Turn, ...], tuple[Message, ...]]:
    """The turns that the model gets, and their messages."""
    made: list[Message] = []
    turns: list[Turn] = []
    for number, turn in enumerate(path):
        message = turn.message
        if message.role == "assistant":
            answered = set()
            for later in path[number + 1 :]:
                if later.message.role != "observation":
                    break
                answered.add(later.message.tool_call_id)
            # Leave out calls that were never run, because the turn was cut or stopped: they have no results.
            calls = tuple(call for call in message.tool_calls if call.id in answered)
            if not calls and not message.content:
                continue
            message = replace(message, tool_calls=calls, loss=None)
        elif message.role == "user":
            message = announced(tree, turn, files)
        turns.append(turn)
        made.append(message)
    return tuple(turns), tuple(made)
