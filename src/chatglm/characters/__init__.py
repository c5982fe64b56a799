"""Characters for a model to play, read from our own files and from cards of other programs. Needs no model."""

from chatglm.characters.character import Character
from chatglm.characters.lore import LoreEntry

__all__ = ["Character", "LoreEntry"]
