"""A conversation as a tree of turns: editing or asking again begins a branch beside the old one, and nothing is lost.

Pure Python, no storage. A tree is never changed; what changes it returns another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from chatglm.chat.messages import Message
from chatglm.errors import InputError

__all__ = ["Tree", "Turn"]


@dataclass(frozen=True)
class Turn:
    """One message at its place in a conversation.

    Attributes:
        parent: the turn before it; None: it begins the conversation.
        finish: why it ended: "stop", "length", "tool_calls", or "stopped" by a person. None: it is open, which means
            that it is being written, or that who wrote it has died.
        rating: 1 for good, -1 for bad, 0 for not rated.
        edited: whether a person wrote it in the place of another turn.
        made: Unix seconds.
        details: what people are shown besides, as JSON values. Of an observation: `failed`, `seconds`, `whole` (what
            people read, if that is more); of an assistant's turn: `seconds` since the question, `tokens` that were
            written; of an answer from documents: `sources`.
    """

    id: int
    parent: int | None
    message: Message
    finish: str | None = "stop"
    rating: int = 0
    edited: bool = False
    made: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def rewritten(self, text: str, new: int, made: float) -> Turn:
        """A sibling, with the id `new`, in which a person says something else. Calls of tools are kept."""
        loss = self.message.loss if self.parent is None else None  # a greeting stays one
        return Turn(new, self.parent, replace(self.message, content=text, loss=loss), "stop", edited=True, made=made)


@dataclass(frozen=True)
class Tree:
    """
    Attributes:
        turns: by id. A parent is made before its children and has a smaller id.
        leaf: the turn that the conversation is at: it is the path from the beginning to there. None: it is
            at its beginning, before any turn.
    """

    turns: Mapping[int, Turn] = field(default_factory=dict)
    leaf: int | None = None
    _children: Mapping[int | None, tuple[int, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        children: dict[int | None, list[int]] = {}
        turns = dict(sorted(self.turns.items()))
        for number, turn in turns.items():
            if turn.id != number or (turn.parent is not None and not (turn.parent in turns and turn.parent < number)):
                raise InputError(f"turn {number}: its parent {turn.parent} is not an older turn of this conversation")
            children.setdefault(turn.parent, []).append(number)
        if self.leaf is not None and self.leaf not in turns:
            raise InputError(f"leaf {self.leaf}: not a turn of this conversation")
        object.__setattr__(self, "turns", MappingProxyType(turns))
        object.__setattr__(self, "_children", {parent: tuple(found) for parent, found in children.items()})

    @classmethod
    def of(cls, turns: Iterable[Turn], leaf: int | None) -> Tree:
        """
        Raises:
            InputError: a turn's parent, or the leaf, is not among them.
        """
        return cls({turn.id: turn for turn in turns}, leaf)

    def turn(self, number: int) -> Turn:
        """
        Raises:
            InputError: there is no such turn.
        """
        try:
            return self.turns[number]
        except KeyError:
            raise InputError(f"turn {number}: this conversation has no such turn") from None

    def path(self, leaf: int | None = None) -> tuple[Turn, ...]:
        """The turns from the beginning to a turn.

        Args:
            leaf: None: the tree's own.

        Raises:
            InputError: there is no such turn.
        """
        number = self.leaf if leaf is None else leaf
        found: list[Turn] = []
        while number is not None:
            found.append(self.turn(number))
            number = found[-1].parent
        return tuple(reversed(found))

    def children(self, number: int | None) -> tuple[Turn, ...]:
        """The turns that follow a turn, or that begin the conversation (None); the oldest first."""
        return tuple(self.turns[child] for child in self._children.get(number, ()))

    def siblings(self, number: int) -> tuple[Turn, ...]:
        """The turns that follow what this one follows, itself among them; the oldest first.

        Raises:
            InputError: there is no such turn.
        """
        return self.children(self.turn(number).parent)

    def place(self, number: int) -> tuple[int, int]:
        """(2, 3): the turn is the second of three siblings.

        Raises:
            InputError: there is no such turn.
        """
        siblings = [turn.id for turn in self.siblings(number)]
        return siblings.index(number) + 1, len(siblings)

    def tip(self, number: int) -> int:
        """Where the newest branch under a turn ends: what is shown when somebody turns to it.

        Raises:
            InputError: there is no such turn.
        """
        self.turn(number)
        while found := self._children.get(number):
            number = found[-1]
        return number

    def question(self, number: int) -> Turn:
        """The user's turn that a turn answers; of a user's turn, itself.

        A new answer to it begins there, however many calls of tools the old one had.

        Raises:
            InputError: there is no such turn, or no user has spoken before it.
        """
        for turn in reversed(self.path(number)):
            if turn.message.role == "user":
                return turn
        raise InputError(f"turn {number}: no user's turn comes before it, so there is nothing to answer again")

    def answer(self, number: int) -> tuple[Turn, ...]:
        """The turns of the path after the last user's turn, up to this one: calls of tools, what they returned, text.

        Raises:
            InputError: there is no such turn.
        """
        found: list[Turn] = []
        for turn in reversed(self.path(number)):
            if turn.message.role not in ("assistant", "observation"):
                break
            found.append(turn)
        return tuple(reversed(found))

    def add(self, turn: Turn) -> Tree:
        """With one turn more, where the conversation is then.

        Raises:
            InputError: there is a turn with this id, or its parent is not there or newer.
        """
        if turn.id in self.turns:
            raise InputError(f"turn {turn.id}: this conversation has it already")
        return Tree({**self.turns, turn.id: turn}, turn.id)

    def edit(self, number: int, text: str, new: int, made: float = 0.0) -> Tree:
        """With a sibling of a turn that says something else. It has no ratings, and no branches of its own.

        Args:
            new: the id of the sibling.

        Raises:
            InputError: there is no such turn, or there is one with the new id.
        """
        return self.add(self.turn(number).rewritten(text, new, made))

    def replaced(self, turn: Turn) -> Tree:
        """With another content, rating or finish of a turn.

        Raises:
            InputError: there is no such turn, or it would get another parent.
        """
        if self.turn(turn.id).parent != turn.parent:
            raise InputError(f"turn {turn.id}: the parent of a turn cannot be changed")
        return replace(self, turns={**self.turns, turn.id: turn})

    def choose(self, number: int) -> Tree:
        """At a turn, or rather where the newest branch under it ends.

        Raises:
            InputError: there is no such turn.
        """
        return replace(self, leaf=self.tip(number))
