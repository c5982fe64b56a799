"""Finds characters by name or file: for a command line, and in a dialogue."""

from __future__ import annotations

from chatglm.characters import Character
from chatglm.errors import InputError

__all__ = ["character_of", "greeting"]


def character_of(named: str, where: str = "") -> Character:
    """A character by its name in the library, or from a file.

    Args:
        where: the beginning of an error, such as the option.

    Raises:
        InputError: there is neither such a character nor such a file, or the file is wrong.
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
    """The greeting of a conversation's character; "" if it waits for the user.

    Args:
        text: `Character.text`.
    """
    _, messages = Character.from_bytes(text.encode(), "character").opening(None)
    return messages[-1].content if messages and messages[-1].role == "assistant" else ""
