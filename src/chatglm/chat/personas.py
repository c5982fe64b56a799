"""Role play: the speakers of a dialogue, and how they are described to a model.

CharacterGLM reads a persona as the first lines of a script (`formats.py`). Every other generation reads it as
sentences of a system message, which `staged` puts in front of a dialogue.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

from chatglm.chat.messages import Message

__all__ = ["Persona", "one_line", "staged"]

_LINE_ENDS = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_BRACKETS = str.maketrans("[]", "［］")
_CHINESE = re.compile(r"[\u3000-\u9fff\uac00-\ud7af\uff00-\uffef]")  # and Japanese, and Korean
_SENTENCE_ENDS = "。！？….!?~～”’\"'）)】」』"


@dataclass(frozen=True)
class Persona:
    """The speakers of a role play: CharacterGLM's `session_meta`.

    Attributes:
        bot_name, user_name: names; CharacterGLM's script marks each utterance with one.
        bot_info, user_info: what the model should know about them.
    """

    bot_name: str = "AI"
    bot_info: str = ""
    user_name: str = "用户"
    user_info: str = ""

    def on_lines(self) -> Persona:
        """The persona for a script: each text on one line, and names without `[` and `]`."""
        fields = {name: one_line(text).strip() for name, text in dataclasses.asdict(self).items()}
        names = {name: fields[name].translate(_BRACKETS) for name in ("bot_name", "user_name")}
        return Persona(**{**fields, **names})

    def sentences(self) -> str:
        """The persona as sentences for a system message: in English if it has no Chinese text; "" if it has no
        descriptions and only default names.
        """
        bot, user = one_line(self.bot_name).strip(), one_line(self.user_name).strip()
        bot = "" if bot == Persona.bot_name else bot
        user = "" if user == Persona.user_name else user
        infos = self.bot_info.strip(), self.user_info.strip()
        english = not _CHINESE.search("".join((bot, user, *infos)))
        play, talk = ("Please play {}.", "You are talking to {}.") if english else ("请你扮演{}。", "和你对话的是{}。")
        parts = [play.format(bot) if bot else "", infos[0], talk.format(user) if user else "", infos[1]]
        stop = "." if english else "。"
        told = [part if part[-1] in _SENTENCE_ENDS else part + stop for part in parts if part]
        return (" " if english else "").join(told)


def one_line(text: str) -> str:
    """Replace each line end of a text by a space."""
    return _LINE_ENDS.sub(" ", text)


def staged(messages: Sequence[Message], persona: Persona | None) -> Sequence[Message]:
    """Put a system message that describes the persona in front of a dialogue. If there is a system message already, the
    description is put in front of its text.
    """
    told = "" if persona is None else persona.sentences()
    if not told:
        return messages
    if messages and messages[0].role == "system":
        first = dataclasses.replace(messages[0], content=f"{told}\n{messages[0].content}".rstrip("\n"))
        return [first, *messages[1:]]
    return [Message("system", told), *messages]
