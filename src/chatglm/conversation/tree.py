"""A conversation as a tree of turns. Editing or asking again begins a branch beside the old one, so nothing is lost.

Pure Python, without storage. A tree is never changed: methods that change something return a new tree.
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
        parent: id of the turn before it; None: it begins the conversation.
        finish: why it ended: "stop", "length", "tool_calls", or "stopped" by a person. None: it is open. It is being
            written, or its writer has died.
        rating: 1 for good, -1 for bad, 0 for not rated.
        edited: whether a person wrote it in the place of another turn.
        made: Unix seconds.
        details: further facts that people are shown, as JSON values. Of an observation: `failed`, `seconds`, `whole`
            (the text for people, if it is longer); of an assistant's turn: `seconds` since the question, `tokens`
            written so far; of an answer from documents: `sources`.
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
        """A sibling with the id `new`, in which a person replaces the text. Calls of tools are kept."""
        loss = self.message.loss if self.parent is None else None  # an edited greeting is still not learned
        return Turn(new, self.parent, replace(self.message, content=text, loss=loss), "stop", edited=True, made=made)


@dataclass(frozen=True)
class Tree:
    """All turns of a conversation, and the one that it is at.

    Attributes:
        turns: by id. A parent is made before its children and has a smaller id.
        leaf: the turn that the conversation is at. The chosen path leads from the beginning to this turn. None: the
            conversation is at its beginning, before any turn.
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
        """Make a tree from turns.

        Raises:
            InputError: the parent of a turn is not an older one among them, or the leaf is not among them.
        """
        return cls({turn.id: turn for turn in turns}, leaf)

    def turn(self, number: int) -> Turn:
        """The turn with an id.

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
            leaf: that turn; None: the tree's own leaf.

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
        """All turns with the same parent as this one, including itself; the oldest first.

        Raises:
            InputError: there is no such turn.
        """
        return self.children(self.turn(number).parent)

    def place(self, number: int) -> tuple[int, int]:
        """The place of a turn among its siblings: (2, 3) is the second of three.

        Raises:
            InputError: there is no such turn.
        """
        siblings = [turn.id for turn in self.siblings(number)]
        return siblings.index(number) + 1, len(siblings)

    def tip(self, number: int) -> int:
        """The end of the newest branch under a turn. It is shown when somebody chooses the turn.

        Raises:
            InputError: there is no such turn.
        """
        self.turn(number)
        while found := self._children.get(number):
            number = found[-1]
        return number

    def question(self, number: int) -> Turn:
        """The user's turn that a turn answers; for a user's turn, that turn itself.

        A new answer begins after this turn, however many calls of tools the old answer had.

        Raises:
            InputError: there is no such turn, or no user has spoken before it.
        """
        for turn in reversed(self.path(number)):
            if turn.message.role == "user":
                return turn
        raise InputError(f"turn {number}: no user's turn comes before it, so there is nothing to answer again")

    def answer(self, number: int) -> tuple[Turn, ...]:
        """The turns of an answer: all turns of the path after the last user's turn, up to this one (calls of tools,
        their results, text).

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
        """A tree with one more turn, which is the leaf.

        Raises:
            InputError: a turn has this id already, or the parent does not exist or has a larger id.
        """
        if turn.id in self.turns:
            raise InputError(f"turn {turn.id}: this conversation has it already")
        return Tree({**self.turns, turn.id: turn}, turn.id)

    def edit(self, number: int, text: str, new: int, made: float = 0.0) -> Tree:
        """A tree with a sibling of a turn that has another text. The sibling has no rating and no branches.

        Args:
            new: the id of the sibling.

        Raises:
            InputError: there is no such turn, or another turn has the new id.
        """
        return self.add(self.turn(number).rewritten(text, new, made))

    def replaced(self, turn: Turn) -> Tree:
        """A tree in which a turn has another content, rating or finish.

        Raises:
            InputError: there is no such turn, or its parent would change.
        """
        if self.turn(turn.id).parent != turn.parent:
            raise InputError(f"turn {turn.id}: the parent of a turn cannot be changed")
        return replace(self, turns={**self.turns, turn.id: turn})

    def choose(self, number: int) -> Tree:
        """A tree at the end of the newest branch under a turn.

        Raises:
            InputError: there is no such turn.
        """
        return replace(self, leaf=self.tip(number))
