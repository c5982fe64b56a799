"""Speculation: tokens are guessed, and checked by the model all at once, in one step instead of one each.

Guesses do not change the text: `sampling.draw` accepts a guess only if it is the token that would have been drawn
anyway. But every guess is one more row in the step. `Speculator` compares cost and gain, and makes no guesses where
they do not pay.

`PromptLookup` looks for the last tokens earlier in the prompt or the answer, and guesses that the same tokens follow
again. A smaller model (`draft.DraftModel`) can be used instead.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

__all__ = ["Guess", "PromptLookup", "Proposer", "Speculator"]

Key = Hashable


class Guess(NamedTuple):
    """Tokens that may come next.

    Attributes:
        tokens: in order; empty: no guess.
        kind: guesses of the same kind are right about equally often; the rate of each kind is measured.
    """

    tokens: tuple[int, ...] = ()
    kind: int = 0


_NOTHING = Guess()


class Proposer(Protocol):
    """Makes guesses for several sequences at a time.

    Attributes:
        free: whether a guess takes almost no time. Then guesses are always made, and compared with the text even when
            they are not used.
        vocabulary: its ids are below this; None: it takes any ids, and returns only ids that it was given.
    """

    free: bool
    vocabulary: int | None

    def price(self, key: Key, ids: Sequence[int], count: int) -> float:
        """Time that a guess with `count` tokens takes, in the unit of `Speculator`'s `cost`; for 0 tokens: the time to
        read the new part of the sequence. Not called for proposers that are free.
        """

    def propose(self, asked: Sequence[tuple[Key, Sequence[int], int]]) -> list[Guess]:
        """One guess for each (key, ids, count), with at most `count` tokens.

        Args:
            asked: `ids` are prompt and answer so far; for one key they only ever grow.
        """

    def forget(self, key: Key) -> None:
        """The sequence has ended; free its state. Unknown keys are ignored."""


class PromptLookup:
    """Guesses from the text: finds where its last tokens occurred before (the latest place), and takes what followed.
    The table of a sequence grows with it, so a step takes the same time for any length of text.

    Args:
        longest, shortest: how many of the last tokens are looked up.
    """

    free = True
    vocabulary: int | None = None
    _PLACES = 64  # of the last two tokens, so many are looked at, the latest first

    def __init__(self, longest: int = 32, shortest: int = 1) -> None:
        if not 1 <= shortest <= longest:
            raise ValueError(f"prompt lookup of {shortest} to {longest} tokens: must be at least 1, shortest first")
        self._longest, self._shortest = longest, shortest
        self._tables: dict[Key, _Table] = {}

    def price(self, key: Key, ids: Sequence[int], count: int) -> float:
        return 0.0

    def propose(self, asked: Sequence[tuple[Key, Sequence[int], int]]) -> list[Guess]:
        return [self._guess(key, ids, count) for key, ids, count in asked]

    def forget(self, key: Key) -> None:
        self._tables.pop(key, None)

    def _guess(self, key: Key, ids: Sequence[int], count: int) -> Guess:
        if (table := self._tables.get(key)) is None:
            table = self._tables[key] = _Table()
        table.read(ids)
        if not ids:
            return _NOTHING
        last = len(ids)
        start, run = table.singles.get(ids[-1], 0), 1
        places = table.pairs.get((ids[-2], ids[-1]), ()) if last > 1 and self._longest > 1 else ()
        for place in reversed(places[-self._PLACES :]):
            same, most = 2, min(self._longest, place)
            while same < most and ids[place - same - 1] == ids[last - same - 1]:
                same += 1
            if same > run:
                start, run = place, same
                if run == self._longest:
                    break
        if not start or run < self._shortest:
            return _NOTHING
        tokens = tuple(ids[start : start + count])
        if len(tokens) < count:
            # Where the guess runs into its own beginning, it repeats: so a period of any length is continued.
            tokens = (tokens * (count // len(tokens) + 1))[:count]
        return Guess(tokens, run if run <= 4 else 2 + run.bit_length())


@dataclass
class _Table:
    """Places of the token after one or two others: after one token the last place, after two tokens all places."""

    singles: dict[int, int] = field(default_factory=dict)
    pairs: defaultdict[tuple[int, int], list[int]] = field(default_factory=lambda: defaultdict(list))
    known: int = 1

    def read(self, ids: Sequence[int]) -> None:
        """Enter new tokens. A token is entered when another follows it: the end of the text must not find itself."""
        known, end = self.known, len(ids)
        if end <= known:
            return
        new = ids[known - 1 : end - 1]
        self.singles.update(zip(new, range(known, end), strict=True))
        before = max(known - 2, 0)
        for place, pair in enumerate(itertools.pairwise(ids[before : end - 1]), before + 2):
            self.pairs[pair].append(place)
        self.known = end


@dataclass
class _Record:
    """How often guessed tokens were right, of those that were checked; older ones count less."""

    right: float = 0.0
    tried: float = 0.0

    def note(self, right: int, wrong: int, keep: float) -> None:
        kept = keep ** (right + wrong)
        self.right = self.right * kept + right
        self.tried = self.tried * kept + right + wrong


_Place = tuple[int, bool]
"""Kind of guess, and whether a token is its first: if the first is right, the next ones are more likely to be right."""


@dataclass
class _Watched:
    """State of a sequence between two steps."""

    guess: Guess = _NOTHING
    used: int = 0
    vain: int = 0
    """Guesses in a row without a right token, of a proposer that is free."""
    rest: int = 0
    """How many of the next steps make no guess."""
    asked: bool = False
    records: dict[_Place, _Record] = field(default_factory=dict)
    without: float = 0.0
    """With a proposer that is not free: the sequence's share of the time of steps since its last guess."""


class Speculator:
    """Decides how many tokens of whose guesses go into a step.

    A guess of k tokens, the first right with probability a and each further one with b, brings a (1 + b + … + bᵏ⁻¹)
    tokens more and takes k rows more. How long a step of so many rows takes, the runner says; how often guesses are
    right is counted, for each sequence and kind of guess, starting from what the others of the kind show. Guesses that
    are free are compared with the text even when they are not used, so that nothing need be tried in order to be known;
    but where steps are so short that looking is felt, and it brings nothing, it is done every few steps only.
    Others are made where they promise to pay, and elsewhere as seldom as costs next to nothing, to see whether that has
    changed.

    Args:
        cost: seconds that a step with so many rows takes.
        longest: tokens of a guess.
        clock: tells the time, in seconds.

    Attributes:
        proposed, accepted: guessed tokens that went into steps, and those of them that were right.
    """

    _FIRST = _Record(1.0, 2.0)  # assumed rate of a new kind
    _GAIN = 1.03  # a guess must promise this much more speed; tries may cost as much
    _HOPELESS = 0.02  # less probable tokens are not considered
    _SOON = 32  # steps within which it must pay that a proposer reads a sequence
    _PATIENCE = 4  # after so many useless free guesses, they are made less often:
    _FELT = 0.01  # so that they take this share of a step's time,
    _PAUSE = 7  # but this many steps apart at most, as what follows may be a quotation

    def __init__(
        self,
        proposer: Proposer,
        cost: Callable[[int], float],
        *,
        longest: int = 16,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if longest < 1:
            raise ValueError(f"guesses of {longest} tokens: must be at least 1")
        self.proposed = self.accepted = 0
        self._proposer, self._cost, self._longest, self._clock = proposer, cost, longest, clock
        self._takes = 0.0  # seconds that a free guess takes
        self._watched: dict[Key, _Watched] = {}
        self._kinds: dict[_Place, _Record] = {}

    def propose(self, asked: Sequence[tuple[Key, Sequence[int], int]], other_rows: int = 0) -> list[list[int]]:
        """Tokens to check in the next step, for each sequence that decodes in it; [] where it does not pay.

        Args:
            asked: key, ids of prompt and answer, and how many tokens at most: what memory and the request's limit of
                length leave (one less than the tokens that may still come, as each step brings one by itself).
            other_rows: of the same step, prompts being read.
        """
        free = self._proposer.free
        wanted = []
        for key, ids, room in asked:
            if (watched := self._watched.get(key)) is None:
                watched = self._watched[key] = _Watched()
            watched.guess, watched.used, watched.asked = _NOTHING, 0, False
            if watched.rest:
                watched.rest -= 1
                continue
            count = min(self._longest, max(room, 0))
            if count and not free:
                count = self._worth(key, ids, count, room, len(asked), len(asked) + other_rows)
            if count:
                wanted.append((key, ids, count))
        if not wanted:
            return [[] for _ in asked]
        began = self._clock()
        for (key, _, _), guess in zip(wanted, self._proposer.propose(wanted), strict=True):
            watched = self._watched[key]
            watched.guess, watched.used, watched.asked = guess, len(guess.tokens), free
            watched.without = 0.0
        if free:
            self._share([key for key, _, _ in asked], other_rows)
            took = (self._clock() - began) / len(wanted)
            # Upwards only slowly: the first guess also reads the prompt, later ones do not.
            self._takes += (took - self._takes) * (0.1 if took > self._takes else 0.3)
            tired = [watched for key, _, _ in wanted if (watched := self._watched[key]).vain >= self._PATIENCE]
            if tired:
                share = self._takes * len(asked) / (self._FELT * self._cost(len(asked) + other_rows))
                for watched in tired:
                    watched.rest = min(int(share), self._PAUSE)
        proposals = []
        for key, _, _ in asked:
            watched = self._watched[key]
            self.proposed += watched.used
            proposals.append(list(watched.guess.tokens[: watched.used]))
        return proposals

    def observe(self, key: Key, tokens: Sequence[int]) -> None:
        """What a step brought for a sequence, after `propose`."""
        watched = self._watched.get(key)
        if watched is None or not tokens:
            return
        guess, right = watched.guess, 0
        if guess.tokens:
            most = min(len(tokens), len(guess.tokens))
            while right < most and guess.tokens[right] == tokens[right]:
                right += 1
            self.accepted += min(right, watched.used)
            wrong = int(right < most)
            self._note(watched, (guess.kind, True), min(right, 1), wrong if not right else 0)
            if right:
                self._note(watched, (guess.kind, False), right - 1, wrong)
        if watched.asked:
            watched.vain = 0 if right and (watched.used or right > 1) else watched.vain + 1
        watched.guess, watched.used = _NOTHING, 0

    def forget(self, key: Key) -> None:
        """The sequence is over."""
        self._watched.pop(key, None)
        self._proposer.forget(key)

    def _note(self, watched: _Watched, place: _Place, right: int, wrong: int) -> None:
        if (own := watched.records.get(place)) is None:
            own = watched.records[place] = _Record()
        own.note(right, wrong, 0.9)
        if (of_kind := self._kinds.get(place)) is None:
            of_kind = self._kinds[place] = _Record(self._FIRST.right, self._FIRST.tried)
        of_kind.note(right, wrong, 0.995)

    def _rate(self, key: Key, place: _Place) -> float:
        """Probability that such a token is right, if the tokens before it in the guess are."""
        of_kind = self._kinds.get(place, self._FIRST)
        believed = of_kind.right / of_kind.tried
        watched = self._watched.get(key)
        own = watched.records.get(place) if watched is not None else None
        return believed if own is None else (own.right + 2 * believed) / (own.tried + 2)

    def _share(self, keys: Sequence[Key], other_rows: int) -> None:
        """Take guessed tokens, the most probable first, as long as the step gives more tokens in a unit of time."""
        chances = []
        for key in keys:
            watched = self._watched[key]
            watched.used = 0
            if not watched.guess.tokens:
                continue
            chance, rate = (self._rate(key, (watched.guess.kind, first)) for first in (True, False))
            for _ in watched.guess.tokens:
                if chance < self._HOPELESS:
                    break
                chances.append((chance, key))
                chance *= rate
        if not chances:
            return
        chances.sort(key=lambda chance: -chance[0])
        rows = len(keys) + other_rows
        tokens = float(len(keys))
        best, taken = tokens / self._cost(rows) * self._GAIN, 0
        for n, (chance, _) in enumerate(chances, 1):
            tokens += chance
            speed = tokens / self._cost(rows + n)
            if speed > best:
                best, taken = speed, n
        for _, key in chances[:taken]:
            self._watched[key].used += 1

    def _worth(self, key: Key, ids: Sequence[int], most: int, room: int, sequences: int, rows: int) -> int:
        """How many tokens of a proposer that is not free are worth it, for one of the sequences in a step; where none
        are, now and then a few, to see.
        """
        watched, price = self._watched[key], self._proposer.price
        kinds = {kind for kind, _ in self._kinds} or {0}
        begins, rate = max(tuple(self._rate(key, (kind, first)) for first in (True, False)) for kind in kinds)
        reading, step = price(key, ids, 0), self._cost(rows)
        best, taken = sequences / step * self._GAIN, 0
        tokens = float(sequences)
        for n in range(1, most + 1):
            tokens += begins * rate ** (n - 1)
            speed = tokens / (self._cost(rows + n) + price(key, ids, n) - reading + reading / min(room + 1, self._SOON))
            if speed > best:
                best, taken = speed, n
        few = min(most, 4)
        if not taken:
            watched.without += step / sequences
            if self._cost(rows + few) - step + price(key, ids, few) <= watched.without * (self._GAIN - 1):
                return few
        return taken
