"""Speculation: several tokens are guessed, and the model checks all of them in one step.

Guesses do not change the text: `sampling.draw` accepts a guess only if it is the token that would have been drawn
anyway. But every guessed token is one more row in the step. `Speculator` compares cost and gain, and makes no guesses
if they save no time.

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
        tokens: the guessed ids in order; empty: no guess.
        kind: a number. Guesses of the same kind are right about equally often; the rate of each kind is measured.
    """

    tokens: tuple[int, ...] = ()
    kind: int = 0


_NOTHING = Guess()


class Proposer(Protocol):
    """Makes guesses for several sequences at a time.

    Attributes:
        free: whether a guess takes almost no time. Then guesses are always made, and compared with the text even when
            they are not used.
        vocabulary: number of ids that it knows; None: it accepts any ids, and returns only ids that it was given.
    """

    free: bool
    vocabulary: int | None

    def price(self, key: Key, ids: Sequence[int], count: int) -> float:
        """Seconds that a guess with `count` tokens takes; for 0 tokens: the seconds to read the new part of the
        sequence. Not called if `free` is true.
        """

    def propose(self, asked: Sequence[tuple[Key, Sequence[int], int]]) -> list[Guess]:
        """Make one guess for each (key, ids, count), with at most `count` tokens.

        Args:
            asked: `ids` are the prompt and the answer so far; for the same key, they only grow.
        """

    def forget(self, key: Key) -> None:
        """The sequence has ended; free its state. Unknown keys are ignored."""


class PromptLookup:
    """Guesses from the text: finds the earlier place that agrees with most of the last tokens, and guesses the tokens
    that followed there. The table of a sequence grows with it, so a step takes the same time for any length of text.

    Args:
        longest: most last tokens that are compared.
        shortest: fewest last tokens that must agree.

    Raises:
        ValueError: `shortest` is below 1, or greater than `longest`.
    """

    free = True
    vocabulary: int | None = None
    _PLACES = 64  # most earlier places of the last two tokens that are compared, the latest first

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
            # The text ends inside the guess. Repeating the guess continues a period of any length.
            tokens = (tokens * (count // len(tokens) + 1))[:count]
        return Guess(tokens, run if run <= 4 else 2 + run.bit_length())


@dataclass
class _Table:
    """Positions after one or two given tokens: the last one after each token, and all of them after each pair."""

    singles: dict[int, int] = field(default_factory=dict)
    pairs: defaultdict[tuple[int, int], list[int]] = field(default_factory=lambda: defaultdict(list))
    known: int = 1

    def read(self, ids: Sequence[int]) -> None:
        """Add new tokens. The last token of the text is not added yet, so that the end of the text does not find
        itself.
        """
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
    """How many guessed tokens were checked, and how many of them were right. Older ones count less."""

    right: float = 0.0
    tried: float = 0.0

    def note(self, right: int, wrong: int, keep: float) -> None:
        kept = keep ** (right + wrong)
        self.right = self.right * kept + right
        self.tried = self.tried * kept + right + wrong


_Place = tuple[int, bool]
"""Kind of a guess, and whether a token is its first one. If the first one is right, the next ones are right more often.
"""


@dataclass
class _Watched:
    """State of a sequence between two steps."""

    guess: Guess = _NOTHING
    used: int = 0
    vain: int = 0
    """Number of guesses in a row that brought nothing, for a proposer that is free."""
    rest: int = 0
    """Number of next steps without a guess."""
    asked: bool = False
    records: dict[_Place, _Record] = field(default_factory=dict)
    without: float = 0.0
    """With a proposer that is not free: seconds of steps since the sequence's last guess, its share of each step."""


class Speculator:
    """Decides how many guessed tokens of each sequence go into a step.

    If the first token of a guess is right with probability a, and each further one with probability b, a guess of k
    tokens gives a (1 + b + … + bᵏ⁻¹) more tokens on average, and takes k more rows. `cost` tells the time of a step
    with more rows. How often guesses are right is counted for each sequence and kind of guess; a new sequence begins
    with the rate of the others.

    Guesses of a free proposer are compared with the text even if they are not used, so their rate is known without
    extra cost. If these guesses are useless, and take a noticeable part of a step's time, they are made only every few
    steps. Guesses of another proposer are made if they will probably save time. Otherwise they are made rarely, so that
    they cost almost nothing, to see whether the rate has changed.

    Args:
        cost: tells how many seconds a step with a number of rows takes.
        longest: most tokens of a guess.
        clock: tells the time, in seconds.

    Raises:
        ValueError: `longest` is below 1.

    Attributes:
        proposed, accepted: guessed tokens that went into steps, and those of them that were right.
    """

    _FIRST = _Record(1.0, 2.0)  # assumed rate of a new kind
    _GAIN = 1.03  # guesses must increase the speed by this factor; occasional tries may cost as much
    _HOPELESS = 0.02  # less probable tokens are not considered
    _SOON = 32  # the time to read a sequence is spread over at most this many steps
    _PATIENCE = 4  # after this many useless free guesses in a row, they are made less often,
    _FELT = 0.01  # so that they take this share of a step's time;
    _PAUSE = 7  # but at most this many steps are left out, because a quotation may begin

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
        """The guessed tokens to check in the next step, for each sequence; [] if a guess would not save time.

        Args:
            asked: key, ids of prompt and answer, and the most guessed tokens, for each sequence that gets a token in
                the step. The most is one less than the tokens that may still come, because each step adds one anyway.
            other_rows: number of other rows in the step, for prompts.
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
            # It grows only slowly: the first guess takes longer, because it also reads the prompt.
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
        """Note the new tokens of a sequence after a step. Call it after `propose`."""
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
        """The sequence has ended; free its state."""
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
        """Estimated probability that such a token is right, if the tokens before it in the guess are right."""
        of_kind = self._kinds.get(place, self._FIRST)
        believed = of_kind.right / of_kind.tried
        watched = self._watched.get(key)
        own = watched.records.get(place) if watched is not None else None
        return believed if own is None else (own.right + 2 * believed) / (own.tried + 2)

    def _share(self, keys: Sequence[Key], other_rows: int) -> None:
        """Use guessed tokens, the most probable first, as long as the step gives more tokens per second."""
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
        """How many tokens to request from a proposer that is not free, for one of the sequences in a step. If none
        would save time, it is sometimes a few, to see whether the rate has changed.
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
