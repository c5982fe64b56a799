from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatglm.chat.messages import Message
from chatglm.conversation.tree import Tree, Turn
from chatglm.errors import InputError


def turn(number: int, parent: int | None, role: str = "user") -> Turn:
    return Turn(number, parent, Message(role, f"第{number}句"))


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    tree = Tree()
    number = 0
    for _ in range(draw(st.integers(1, 20))):
        number += draw(st.integers(1, 3))
        parent = draw(st.sampled_from([None, *tree.turns]))
        tree = tree.add(turn(number, parent, draw(st.sampled_from(["user", "assistant", "observation"]))))
    return tree


@given(trees())
def test_every_path_is_whole(tree: Tree) -> None:
    for number in tree.turns:
        path = tree.path(number)
        assert path[0].parent is None
        assert path[-1].id == number
        assert all(later.parent == earlier.id for earlier, later in pairwise(path))
    assert tree.leaf == max(tree.turns)  # the last one that was added
    assert tree.path() == tree.path(tree.leaf)


@given(trees())
def test_siblings_are_counted_alike(tree: Tree) -> None:
    for number, each in tree.turns.items():
        siblings = tree.siblings(number)
        assert [tree.place(sibling.id) for sibling in siblings] == [
            (place, len(siblings)) for place in range(1, len(siblings) + 1)
        ]
        assert each in siblings
        assert {sibling.parent for sibling in siblings} == {each.parent}
    assert sum(len(tree.children(number)) for number in (None, *tree.turns)) == len(tree.turns)


@given(trees(), st.data())
def test_choosing_goes_to_an_end_beneath(tree: Tree, data: st.DataObject) -> None:
    number = data.draw(st.sampled_from(sorted(tree.turns)))
    chosen = tree.choose(number)
    assert chosen.leaf is not None
    assert not chosen.children(chosen.leaf)
    assert tree.turn(number) in chosen.path()
    assert chosen.turns == tree.turns


@given(trees(), st.data())
def test_an_edit_loses_nothing(tree: Tree, data: st.DataObject) -> None:
    number = data.draw(st.sampled_from(sorted(tree.turns)))
    new = max(tree.turns) + 1
    edited = tree.edit(number, "改了", new)
    assert {each: edited.turns[each] for each in tree.turns} == dict(tree.turns)
    assert edited.leaf == new
    assert edited.siblings(number) == (*tree.siblings(number), edited.turn(new))
    assert edited.path()[:-1] == tree.path(number)[:-1]
    assert edited.turn(new).edited
    assert tree.choose(number).turns == tree.turns  # the old tree is as it was


@given(trees())
def test_an_answer_begins_behind_its_question(tree: Tree) -> None:
    for number in tree.turns:
        answer = tree.answer(number)
        path = tree.path(number)
        assert path[len(path) - len(answer) :] == answer
        before = path[: len(path) - len(answer)]
        if before:
            assert before[-1].message.role == "user"
            assert tree.question(number) == before[-1]
        else:
            with pytest.raises(InputError, match="nothing to answer again"):
                tree.question(number)


def test_what_is_no_tree_is_refused() -> None:
    tree = Tree().add(turn(1, None))
    for bad in (lambda: tree.add(turn(1, None)), lambda: tree.add(turn(3, 2)), lambda: Tree.of([turn(2, 3)], 2)):
        with pytest.raises(InputError):
            bad()
    with pytest.raises(InputError, match="leaf 5"):
        Tree.of([turn(1, None)], 5)
    with pytest.raises(InputError, match="older turn"):
        Tree.of([turn(1, 1)], 1)
    with pytest.raises(InputError, match="no such turn"):
        tree.path(9)
    with pytest.raises(InputError, match="parent of a turn cannot be changed"):
        tree.add(turn(2, 1)).replaced(turn(2, None))
    with pytest.raises(TypeError):
        tree.turns[7] = turn(7, None)  # type: ignore[index]
