"""Characters that people name: on a command line, and in a dialogue."""

from __future__ import annotations

from chatglm.characters import Character
from chatglm.errors import InputError

__all__ = ["character_of", "greeting"]


def character_of(named: str, where: str = "") -> Character:
    """By its name in the library, else from a file.

    Args:
        where: what an error begins with, such as the option.

    Raises:
        InputError: there is neither, or the file is wrong.
    """
    library = Character.library()
    if named in library:
        return Character.named(named)
    try:
        return Character.read(named)
    except InputError as error:
        more = f"; names that need no file: {', '.join(library)}" if str(error).endswith("no such file") else ""
        raise InputError(f"{where}{error}{more}") from None


def greeting(text: str) -> str:
    """What a conversation's character begins with; "" if it waits.

    Args:
        text: `Character.text`.
    """
    _, messages = Character.from_bytes(text.encode(), "character").opening(None)
    return messages[-1].content if messages and messages[-1].role == "assistant" else ""
