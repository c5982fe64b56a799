"""CHARACTERS: whom a model plays, read from files of our own and from cards of other programs. Knows no model."""

from chatglm.characters.character import Character
from chatglm.characters.lore import LoreEntry

__all__ = ["Character", "LoreEntry"]
