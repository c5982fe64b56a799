"""A short summary of turns that no longer fit into the context. People can see and edit it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from chatglm.assistant.base import BaseAssistant, Options, params_of
from chatglm.chat.messages import Message
from chatglm.conversation.prompts import Told, exchanges
from chatglm.conversation.settings import Settings
from chatglm.conversation.tree import Turn
from chatglm.errors import ContextError

__all__ = ["due", "extended"]

LEAVING = 8
"""Number of questions with their answers that must have left the context before they are summarised."""
LONGEST = 300
"""Most characters of a summary."""

_READ = 24, 400
"""Characters of one message that are read for a summary: at least, and at most."""
_ASK = (
    "请把下面的对话接着“之前发生的事”概括成一段话，不超过{most}个字，只写发生过的事和以后要记住的事实。\n"
    "之前发生的事：{old}\n\n{said}\n\n概括："
)
_SPEAKERS = {"user": "用户", "assistant": "助手", "observation": "结果"}
_ENDS = "。！？.!?"


def due(prompt: Told, left_out: int, settings: Settings) -> list[Turn]:
    """The turns to summarise now: those that have left the context and are not in the summary yet, once there are
    enough.

    Args:
        left_out: number of groups of messages that the model did not get, including those in front of the turns.
    """
    left = exchanges(prompt.turns)[: max(0, left_out - prompt.ahead)]
    covered = next((n for n, group in enumerate(left, 1) if settings.summarised in [turn.id for turn in group]), 0)
    leaving = left[covered:]
    return [turn for group in leaving for turn in group] if len(leaving) >= LEAVING else []


async def extended(assistant: BaseAssistant, old: str, leaving: Sequence[Turn], options: Options) -> str:
    """A new summary of an old one and of the turns after it. It is "" if the model's text is useless: empty, or longer
    than what it replaces, as small models sometimes write.
    """
    heard = [turn.message for turn in leaving if turn.message.role in _SPEAKERS and turn.message.content.strip()]
    params = replace(params_of(options.get("params"), assistant.defaults), n=1, max_new_tokens=LONGEST, stop=())
    asked: Options = {"params": params}
    for name in ("adapter", "client"):
        if name in options:
            asked[name] = options[name]  # type: ignore[literal-required]
    most = (assistant.context or 4096) // 2
    while True:
        each = max(_READ[0], min(_READ[1], most // max(1, len(heard))))
        lines = [f"{_SPEAKERS[message.role]}：{' '.join(message.content[:each].split())}" for message in heard]
        question = _ASK.format(most=LONGEST, old=old or "（无）", said=_newest(lines, most))
        try:
            (answer,) = await assistant.aanswers([Message("user", question)], **asked)
            break
        except ContextError:  # the context of an endpoint may be unknown
            most //= 2
            if most < _READ[0]:
                raise
    made = _cut(" ".join(answer.message.content.split()))
    return made if len(made) <= len(old) + sum(map(len, lines)) else ""


def _newest(lines: Sequence[str], most: int) -> str:
    """The last lines that fit into a number of characters. A token almost always has at least one character."""
    kept: list[str] = []
    for line in reversed(lines):
        most -= len(line) + 1
        if most < 0:
            break
        kept.append(line)
    return "\n".join(reversed(kept))


def _cut(text: str) -> str:
    """Cut a text to the most characters of a summary, at the end of a sentence if there is one."""
    if len(text) <= LONGEST:
        return text
    text = text[:LONGEST]
    return text[: max(map(text.rfind, _ENDS)) + 1] or text
