"""Guesses from the text, and when they are worth a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatglm.engine.speculation import Guess, PromptLookup, Speculator, _Record

TEXTS = st.lists(st.integers(0, 3), max_size=40)


def slow_lookup(ids: Sequence[int], count: int, longest: int, shortest: int) -> tuple[int, ...]:
    """The longest end of the text that stands earlier too, the last time that it does, and what follows there."""
    for size in range(min(longest, len(ids)), shortest - 1, -1):
        for start in range(len(ids) - 1, size - 1, -1):
            if ids[start - size : start] == ids[len(ids) - size :]:
                out = list(ids)
                for _ in range(count):
                    out.append(out[start + len(out) - len(ids)])
                return tuple(out[len(ids) :])
    return ()


@given(TEXTS, st.lists(st.integers(1, 5), max_size=8), st.integers(1, 6), st.integers(1, 2), st.integers(0, 3))
def test_lookup_is_a_search_and_grows_with_the_text(
    ids: list[int], steps: list[int], count: int, shortest: int, more: int
) -> None:
    lookup = PromptLookup(shortest + more, shortest)
    end = 0
    for step in [*steps, len(ids)]:
        end = min(end + step, len(ids))
        (guess,) = lookup.propose([("a", ids[:end], count)])
        assert guess.tokens == slow_lookup(ids[:end], count, shortest + more, shortest)


def test_lookup_keeps_texts_apart_and_forgets() -> None:
    lookup = PromptLookup()
    ids = [1, 2, 3, 4, 1, 2]
    first, other = lookup.propose([("a", ids, 2), ("b", [9, 9, 1, 2], 2)])
    assert first.tokens == (3, 4)
    assert other.tokens == ()
    lookup.forget("a")
    lookup.forget("nobody")
    assert list(lookup._tables) == ["b"]
    assert lookup.propose([("a", [5, 6], 2)]) == [Guess()]


def test_longer_matches_are_another_kind() -> None:
    words = list(range(40))
    kinds = [PromptLookup().propose([("a", [*words, 99, *words[:n]], 1)])[0].kind for n in (2, 3, 4, 5, 8, 16, 33)]
    assert kinds == sorted(set(kinds))


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="shortest first"):
        PromptLookup(2, 3)
    with pytest.raises(ValueError, match="at least 1"):
        Speculator(PromptLookup(), float, longest=0)


def write(
    prompt: list[int], text: Sequence[int], speculator: Speculator, cost: Callable[[int], float]
) -> tuple[float, int]:
    """Time and steps of an answer that will be `text`, by a model that checks guesses."""
    ids, done, time, steps = list(prompt), 0, 0.0, 0
    while done < len(text):
        (guess,) = speculator.propose([("a", ids, len(text) - done - 1)])
        assert len(guess) < len(text) - done
        time, steps = time + cost(1 + len(guess)), steps + 1
        took = 1
        while took <= len(guess) and guess[took - 1] == text[done + took - 1]:
            took += 1
        new = list(text[done : done + took])
        speculator.observe("a", new)
        ids, done = ids + new, done + took
    speculator.forget("a")
    return time, steps


def cheap(rows: int) -> float:
    return 1 + 0.05 * rows


def dear(rows: int) -> float:
    return float(rows)


PASSAGE = [(n * n * 7 + n * 31) % 997 for n in range(200)]


def test_quoting_is_faster() -> None:
    speculator = Speculator(PromptLookup(), cheap)
    time, steps = write(PASSAGE, PASSAGE[20:120], speculator, cheap)
    assert time < len(PASSAGE[20:120]) * cheap(1) / 3
    assert speculator.proposed >= speculator.accepted >= 100 - steps
    assert not speculator._watched


def test_where_rows_cost_as_much_as_steps_nothing_is_guessed() -> None:
    speculator = Speculator(PromptLookup(), dear)
    assert write(PASSAGE, PASSAGE[20:120], speculator, dear) == (100.0, 100)
    assert speculator.proposed == 0


def test_wrong_guesses_are_given_up() -> None:
    # Pairs come again and again, but what follows them is always new.
    text = [token for n in range(300) for token in (1, 2, 100 + n)]
    speculator = Speculator(PromptLookup(), cheap)
    time, _ = write([1, 2, 50, 1, 2, 51], text, speculator, cheap)
    assert time < len(text) * cheap(1) * 1.02
    late = Speculator(PromptLookup(), lambda rows: 1 + 0.4 * rows)
    time, _ = write([1, 2, 50, 1, 2, 51], text, late, lambda rows: 1 + 0.4 * rows)
    assert time < len(text) * 1.4 * 1.03


def test_what_was_given_up_comes_back_when_it_is_right_again() -> None:
    text = [token for n in range(100) for token in (1, 2, 100 + n)] + PASSAGE[:100]
    speculator = Speculator(PromptLookup(), cheap)
    _, before = write([*PASSAGE, 1, 2], text[:300], speculator, cheap)
    speculator = Speculator(PromptLookup(), cheap)
    _, whole = write([*PASSAGE, 1, 2], text, speculator, cheap)
    assert whole - before < 40


def test_the_surest_come_first_in_a_batch() -> None:
    speculator = Speculator(PromptLookup(), lambda rows: 1.0 if rows <= 6 else 100.0)
    for n in range(33, 40):  # "a" quotes, "b" does not
        speculator.propose([("a", PASSAGE + PASSAGE[10:n], 3), ("b", [1, 2, n, 1, 2], 3)])
        speculator.observe("a", [PASSAGE[n]])
        speculator.observe("b", [1000 + n])
        speculator._proposer.forget("b")
    sure, unsure = speculator.propose([("a", PASSAGE + PASSAGE[10:40], 3), ("b", [1, 2, 3, 1, 2], 3)])
    assert sure == PASSAGE[40:43]
    assert len(unsure) == 1
    # Alone, what is hardly ever right promises too little.
    lone = [("a", PASSAGE + PASSAGE[10:41], 0), ("b", [1, 2, 3, 1, 2], 3)]
    assert speculator.propose(lone) == [[], []]
    assert speculator.propose([("a", PASSAGE + PASSAGE[10:41], 3)], other_rows=4) == [PASSAGE[41:42]]


class Draft:
    """A draft model that knows the text, or thinks it does.

    Args:
        cost: of a guessed token.
        reading: of a token that it has not read.
    """

    free, vocabulary = False, None

    def __init__(self, text: Sequence[int], cost: float, wrong: bool = False, reading: float = 0.0) -> None:
        self.text, self.cost, self.wrong, self.asked = text, cost, wrong, 0
        self.reading, self.read, self.spent = reading, 0, 0.0

    def price(self, key: object, ids: Sequence[int], count: int) -> float:
        return (len(ids) - self.read) * self.reading + count * self.cost

    def propose(self, asked: Sequence[tuple[object, Sequence[int], int]]) -> list[Guess]:
        self.asked += sum(count for _, _, count in asked)
        for key, ids, count in asked:
            self.spent += self.price(key, ids, count)
            self.read = len(ids)
        return [
            Guess(tuple(-1 if self.wrong else t for t in self.text[len(ids) : len(ids) + count]))
            for _, ids, count in asked
        ]

    def forget(self, key: object) -> None:
        pass


def test_a_draft_model_is_used_where_it_pays_and_tried_again() -> None:
    text = PASSAGE
    good = Draft(text, cost=0.1)
    _, steps = write([], text, Speculator(good, cheap), cheap)
    assert steps < len(text) / 3
    bad = Draft(text, cost=0.1, wrong=True)
    _, steps = write([], text, Speculator(bad, cheap), cheap)
    assert steps == len(text)
    assert 8 <= bad.asked <= 60
    slow = Draft(text, cost=2.0)
    write([], text, Speculator(slow, cheap), cheap)
    assert slow.asked <= 40


@pytest.mark.parametrize("cost", [0.02, 0.1, 0.5, 2.0])
@pytest.mark.parametrize("reading", [0.0, 0.01])
def test_a_useless_draft_model_costs_next_to_nothing(cost: float, reading: float) -> None:
    """However many sequences there are, and however long their prompts: what is learned of one holds for the next."""
    prompt = list(range(200))
    draft = Draft([*prompt, *PASSAGE], cost=cost, wrong=True, reading=reading)
    speculator = Speculator(draft, cheap)
    plain, time = 0.0, 0.0
    for n in range(12):
        draft.read = 0
        spent, _ = write(prompt, PASSAGE[:100], speculator, cheap)
        if n >= 2:  # by then it is known
            time, plain = time + spent, plain + 100 * cheap(1)
        elif n == 1:
            draft.spent = 0.0
    assert time + draft.spent < 1.05 * plain


def test_a_draft_model_reads_a_long_prompt_only_where_the_answer_may_be_long() -> None:
    prompt = list(range(1000))

    def asked(room: int) -> int:
        draft = Draft([*prompt, *PASSAGE], cost=0.1, reading=0.01)  # ten steps
        speculator = Speculator(draft, cheap)
        speculator._kinds = {(0, first): _Record(90.0, 100.0) for first in (True, False)}
        speculator.propose([("a", prompt, room)])
        return draft.asked

    assert asked(2) == 0
    assert asked(100) > 0


def test_in_a_batch_a_draft_model_has_to_bring_more() -> None:
    """Its time holds up the others, too."""

    def longest(sequences: int) -> int:
        draft = Draft(PASSAGE, cost=0.3)
        speculator = Speculator(draft, lambda rows: 1 + 0.01 * rows)
        speculator._kinds = {(0, first): _Record(80.0, 100.0) for first in (True, False)}
        return max(map(len, speculator.propose([(n, PASSAGE[: 20 + n], 50) for n in range(sequences)])))

    assert longest(1) > longest(4)


class Looked(PromptLookup):
    """Counts how often it is asked, and takes its time."""

    asked = 0
    now = 0.0

    def propose(self, asked: Sequence[tuple[object, Sequence[int], int]]) -> list[Guess]:
        self.asked += 1
        self.now += 20e-6
        return super().propose(asked)


@pytest.mark.parametrize(("step", "most"), [(300e-6, 0.25), (50e-3, 1.0)])
def test_where_steps_are_short_looking_in_vain_is_seldom(step: float, most: float) -> None:
    lookup = Looked()
    text = [1000 + n for n in range(200)]
    speculator = Speculator(lookup, lambda rows: step, clock=lambda: lookup.now)
    _, steps = write(text[:2], text[2:], speculator, cheap)
    assert (most == 1.0) == (lookup.asked == steps - 1)  # nothing comes after the last token
    assert lookup.asked <= most * steps


def test_after_a_rest_what_is_quoted_is_found() -> None:
    lookup = Looked()
    speculator = Speculator(lookup, lambda rows: 300e-6 * cheap(rows), clock=lambda: lookup.now)
    new = [1000 + n for n in range(100)]
    _, before = write(PASSAGE, new, speculator, cheap)
    _, steps = write(PASSAGE, new + PASSAGE[20:80], speculator, cheap)
    assert steps - before < 30
