"""Samples tokens from scores: several answers at once, each with its own options and its own random numbers.

Scores are changed in this order, each step as in `transformers`: repetition, presence and frequency penalties,
logit_bias, bad words, the constraint; then temperature, top_k, top_p, min_p. Tokens of equal score are ordered by their
ids, so the result does not depend on the method of sorting; only top_k keeps all tokens that tie for its last place.

A draw depends on one number between 0 and 1, which is computed from the seed, the number of the answer (of n) and the
position in it. So an answer is the same alone and in any batch, after preemption, and with speculation: a proposed
token is accepted only if it is the token that would have been drawn at its position. So speculation does not only keep
the distribution of texts; it gives the same text.
"""

from __future__ import annotations

import copy
import hashlib
import math
import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from chatglm.engine.constraint import Constraint
from chatglm.errors import ChatGLMError, InputError, NumericalError, typed_error
from chatglm.kernels.native import torch_on_one_thread
from chatglm.params import SamplingParams

__all__ = ["Answer", "Draw", "draw", "log_probabilities"]

_LIKELIEST = 256
"""Without top_k, only this many candidates are sorted at first; all tokens are sorted only if these are not enough."""
_ALTERNATIVES = 20
"""Largest value of `logprobs`."""
_HOTTEST = 1e30
"""Temperatures and penalties are limited to 1e-30 … 1e30, so that their products fit float32."""
_MOST = 1e38
"""Penalised scores are limited to this, so that their sums fit float32."""
_FAILED = "this answer failed"
_DAMAGED = "the weights are damaged, or their precision is too low for them (try .float() or bfloat16)"


@dataclass(frozen=True)
class Draw:
    """A token that was chosen.

    Attributes:
        token: its id.
        logprob: natural logarithm of its probability; None if `logprobs` is not set. Probabilities are the model's own:
            computed from its scores before penalties, constraint and temperature.
        alternatives: the most likely tokens at its position as (id, logprob), the most likely first.
    """

    token: int
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()


LONGEST_LEAD = 8
"""Most uncounted tokens at the beginning of an answer, so that a model that writes only whitespace reaches its limit.
"""


class Answer:
    """The state of one answer: everything that its next token depends on, except the scores.

    Args:
        params: its options; `stop`, `n` and the limits of length are not used here.
        prompt: ids in front of the answer.
        vocabulary: number of ids of the model.
        index: number of the answer among the n answers to its prompt.
        stop_ids: ids that end it, in addition to `params.stop_ids`.
        constraint: the grammar of its text. Each answer needs its own (`fork`).
        uncounted: tells whether a token at the beginning of the answer is not counted.

    Raises:
        InputError: logit_bias, bad_words_ids or stop_ids name a token that is not in the vocabulary.

    Attributes:
        tokens: ids of the answer so far.
        lead: how many tokens at its beginning are not counted.
        stop_ids: all ids that end it.
        stopped: whether the last token is one of these.
        failure: the error because of which no token can be added any more; None: there is none.
    """

    def __init__(
        self,
        params: SamplingParams,
        prompt: Sequence[int],
        *,
        vocabulary: int,
        index: int = 0,
        stop_ids: Collection[int] = (),
        constraint: Constraint | None = None,
        uncounted: Callable[[int], bool] | None = None,
    ) -> None:
        named = {
            "logit_bias": params.logit_bias,
            "bad_words_ids": [token for word in params.bad_words_ids for token in word],
            "stop_ids": params.stop_ids,
        }
        for name, ids in named.items():
            if beyond := [token for token in ids if token >= vocabulary]:
                raise InputError(f"{name} has token {beyond[0]}; the model's vocabulary ends at {vocabulary - 1}")
        self.params, self.index, self.constraint = params, index, constraint
        self.tokens: list[int] = []
        self.lead, self._uncounted = 0, uncounted
        self.stop_ids = frozenset(stop_ids) | frozenset(params.stop_ids)
        self.stopped = False
        self.failure: ChatGLMError | None = None
        self._seed = secrets.randbits(63) if params.seed is None else params.seed
        self._penalised = params.presence_penalty != 0 or params.frequency_penalty != 0
        self._counts = _Counts()  # how often tokens are in the answer
        self._seen = _Counts()  # how often tokens are in prompt and answer
        if params.repetition_penalty != 1:
            self._seen.add(prompt)
        self._bias: tuple[Tensor, Tensor] | None = None
        if params.logit_bias:
            self._bias = torch.tensor(list(params.logit_bias)), torch.tensor(list(params.logit_bias.values()))
        banned = {word[0] for word in params.bad_words_ids if len(word) == 1}
        self._banned = torch.tensor(sorted(banned)) if banned else None
        self._sequences = _Sequences(word for word in params.bad_words_ids if len(word) > 1)
        self._tail = list(prompt)[-self._sequences.longest :] if self._sequences else []
        self._stops = torch.tensor(sorted(stop for stop in self.stop_ids if stop < vocabulary), dtype=torch.long)
        self._plain = not (
            self._penalised
            or params.repetition_penalty != 1
            or params.logit_bias
            or params.bad_words_ids
            or params.min_new_tokens
        )

    def plain(self, ahead: Sequence[int]) -> bool:
        """Whether scores are used unchanged for the next token, and after each of the tokens `ahead`."""
        return self._plain and (self.constraint is None or self.constraint.free(ahead))

    def sibling(self, index: int, constraint: Constraint | None) -> Answer:
        """Another answer to the same prompt, before its first token. Both share the tables of their options."""
        made = copy.copy(self)
        made.index, made.constraint = index, constraint
        made.tokens, made._tail = [], list(self._tail)
        made._counts, made._seen = self._counts.copy(), self._seen.copy()
        if self.params.seed is None:
            made._seed = secrets.randbits(63)
        return made

    def number(self, ahead: int) -> float:
        """The random number between 0 and 1 for the draw `ahead` tokens after the next one."""
        place = f"{self._seed} {self.index} {len(self.tokens) + ahead}".encode()
        bits = int.from_bytes(hashlib.blake2b(place, digest_size=8).digest(), "little") >> 12
        return (bits + 0.5) / 2**52

    def adjust(self, scores: Tensor, ahead: Sequence[int], constraint: Constraint | None) -> None:
        """Apply all options except temperature, top_k, top_p and min_p to the scores, in place.

        Args:
            scores: float32 (vocabulary,).
            ahead: proposed tokens that are assumed to be in the answer already.
            constraint: the state of the grammar after them.

        Raises:
            UnsupportedError: the grammar needs more work or memory than it may have.
        """
        params = self.params
        if params.repetition_penalty != 1:
            seen, _ = self._seen.plus(ahead)
            places = torch.from_numpy(seen).to(scores.device)
            found = scores[places]
            factor = min(max(params.repetition_penalty, 1 / _HOTTEST), _HOTTEST)
            scores[places] = torch.where(found < 0, found * factor, found / factor).clamp_(-_MOST, _MOST)
        if self._penalised:
            ids, counts = self._counts.plus(ahead)
            loss = params.presence_penalty + params.frequency_penalty * counts
            places = torch.from_numpy(ids).to(scores.device)
            scores[places] -= torch.from_numpy(loss).to(scores)
        if self._bias is not None:
            places, biases = (part.to(scores.device) for part in self._bias)
            scores[places] += biases
        if self._banned is not None:
            scores[self._banned.to(scores.device)] = -math.inf
        banned = self._sequences.last_tokens([*self._tail, *ahead]) if self._sequences else []
        if banned:
            scores[banned] = -math.inf
        if params.min_new_tokens and self._counted(ahead) < params.min_new_tokens:
            scores[self._stops.to(scores.device)] = -math.inf
        if constraint is not None:
            constraint.allow(scores)

    def _lead_with(self, token: int, lead: int, length: int) -> int:
        """The lead of an answer of this lead and length after one more token."""
        if self._uncounted is None or lead < length or lead == LONGEST_LEAD or not self._uncounted(token):
            return lead
        return lead + 1

    def _counted(self, ahead: Sequence[int]) -> int:
        """The number of counted tokens, if the tokens `ahead` are in the answer already."""
        lead, length = self.lead, len(self.tokens)
        for token in ahead:
            lead = self._lead_with(token, lead, length)
            length += 1
        return length - lead

    def accept(self, token: int) -> None:
        """Add the next token. If the constraint refuses it, the answer is unchanged.

        Raises:
            InputError: the constraint does not allow the token.
            UnsupportedError: the constraint needs more work or memory than it may have.
        """
        if self.constraint is not None:
            self.constraint.accept(token)
        self.lead = self._lead_with(token, self.lead, len(self.tokens))
        self.tokens.append(token)
        self.stopped = token in self.stop_ids
        if self.params.repetition_penalty != 1:
            self._seen.add((token,))
        if self._penalised:
            self._counts.add((token,))
        if self._sequences:
            self._tail = [*self._tail, token][-self._sequences.longest :]


class _Sequences:
    """Sequences of tokens that must not be generated. The time for a step depends only on the sequences that match the
    end of the text, not on the number of all sequences.
    """

    def __init__(self, words: Iterable[Sequence[int]]) -> None:
        self.longest = 0
        # A tree of the tokens before the last one, backwards. The key None of a node has the last tokens of the
        # sequences that end there.
        self._tree: dict[Any, Any] = {}
        for word in words:
            self.longest = max(self.longest, len(word))
            node = self._tree
            for token in reversed(word[:-1]):
                node = node.setdefault(token, {})
            node.setdefault(None, []).append(word[-1])

    def __bool__(self) -> bool:
        return self.longest > 0

    def last_tokens(self, tail: Sequence[int]) -> list[int]:
        """The tokens that would complete a sequence after this text."""
        found: list[int] = []
        node = self._tree
        for token in reversed(tail):
            if (node := node.get(token)) is None:  # type: ignore[assignment]
                break
            found += node.get(None, ())
        return found


class _Counts:
    """How often each token has occurred. The arrays grow, so a step only adds the new tokens."""

    def __init__(self) -> None:
        self._slots: dict[int, int] = {}
        self._ids = np.zeros(64, dtype=np.int64)
        self._counts = np.zeros(64, dtype=np.float64)

    def copy(self) -> _Counts:
        made = _Counts()
        made._slots, made._ids, made._counts = dict(self._slots), self._ids.copy(), self._counts.copy()
        return made

    def add(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            slot = self._slots.setdefault(token, len(self._slots))
            if slot == len(self._ids):
                self._ids = np.concatenate((self._ids, np.zeros_like(self._ids)))
                self._counts = np.concatenate((self._counts, np.zeros_like(self._counts)))
            self._ids[slot] = token
            self._counts[slot] += 1

    def plus(self, tokens: Sequence[int]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Ids and counts, each (tokens,), as if these tokens were added."""
        ids, counts = self._ids[: len(self._slots)], self._counts[: len(self._slots)]
        for token in tokens:
            slot = self._slots.get(token)
            if slot is None:
                (new,) = np.nonzero(ids == token)
                if not len(new):
                    ids, counts = np.append(ids, token), np.append(counts, 0.0)
                    new = np.array([len(ids) - 1])
                slot = int(new[0])
            counts = counts.copy()
            counts[slot] += 1
        return ids, counts


def draw(
    scores: Tensor, answers: Sequence[Answer], proposals: Sequence[Sequence[int]] | None = None
) -> list[list[Draw] | ChatGLMError]:
    """Choose the next tokens of several answers, and add them to the answers.

    An answer with k proposed tokens has 1 + k rows of scores: after its last token, and after each proposed token. Its
    tokens are drawn row by row, up to and including the first one that differs from the proposal or ends the answer.

    Args:
        scores: float32 (rows, vocabulary), the rows of one answer after those of the other; overwritten.
        answers: answers that have not stopped.
        proposals: the proposed tokens of each answer; None: there are none.

    Returns:
        for each answer its new tokens, at least one. If none can be drawn, the error instead: NumericalError if the
            model's scores are not finite, InputError if the options together forbid every token, UnsupportedError if
            the constraint needs more work or memory than it may have, EngineError if something else fails. Such an
            answer is unchanged, and the others are not affected.

    Raises:
        InputError: the number of rows does not fit the answers and proposals.
    """
    if proposals is None:
        proposals = [()] * len(answers)
    alone = torch_on_one_thread() if scores.device.type == "cpu" else nullcontext()
    with torch.inference_mode(), alone:
        return _draw(scores, answers, proposals)


def _draw(
    scores: Tensor, answers: Sequence[Answer], proposals: Sequence[Sequence[int]]
) -> list[list[Draw] | ChatGLMError]:
    rows = [(answer, done) for answer, ahead in zip(answers, proposals, strict=True) for done in range(len(ahead) + 1)]
    if len(rows) != len(scores):
        raise InputError(f"{len(scores)} rows of scores for {len(rows)} places of {len(answers)} answers")
    finite = torch.isfinite(scores.amax(dim=-1)).tolist()
    asked = [row for row, (answer, _) in enumerate(rows) if answer.params.logprobs is not None]
    table = scores[asked].log_softmax(dim=-1) if asked else None
    errors: dict[int, ChatGLMError] = {}
    changed = False
    first = 0
    for answer, ahead in zip(answers, proposals, strict=True):
        if not answer.plain(ahead):
            changed = True
            _adjust(scores, first, answer, ahead, finite, errors)
        first += len(ahead) + 1
    best = scores.amax(dim=-1).tolist() if changed else None
    usable = [
        row
        for row, is_finite in enumerate(finite)
        if is_finite and row not in errors and (best is None or best[row] != -math.inf)
    ]
    draws = _choose(scores, rows, usable, errors)
    if table is not None:
        counts = [rows[row][0].params.logprobs or 0 for row in asked]
        for row, entry in zip(asked, _entries(table, [draws[row].token for row in asked], counts), strict=True):
            draws[row] = entry

    results: list[list[Draw] | ChatGLMError] = []
    first = 0
    for answer, ahead in zip(answers, proposals, strict=True):
        taken: list[Draw] = []
        failure: ChatGLMError | None = None
        for row in range(first, first + len(ahead) + 1):
            failure = answer.failure or errors.get(row)
            if failure is None and not finite[row]:
                failure = NumericalError(
                    f"the model's scores are not finite after {len(answer.tokens)} tokens of the answer: {_DAMAGED}"
                )
            elif failure is None and best is not None and best[row] == -math.inf:
                failure = InputError(
                    f"after {len(answer.tokens)} tokens of the answer its options (bad_words_ids, min_new_tokens) and "
                    "its constraint together forbid every token"
                )
            if failure is not None:
                break
            try:
                answer.accept(draws[row].token)
            except BaseException as error:
                failure = answer.failure = typed_error(error, _FAILED)
                break
            taken.append(draws[row])
            if answer.stopped or row == first + len(ahead) or draws[row].token != ahead[row - first]:
                break
        # Tokens that were drawn before a row failed are kept; the next step fails then.
        results.append(failure if failure is not None and not taken else taken)
        first += len(ahead) + 1
    return results


def _adjust(
    scores: Tensor,
    first: int,
    answer: Answer,
    ahead: Sequence[int],
    finite: Sequence[bool],
    errors: dict[int, ChatGLMError],
) -> None:
    """Adjust an answer's rows of scores, except those after a proposed token that cannot be drawn."""
    constraint = answer.constraint
    for done in range(len(ahead) + 1):
        row = first + done
        if not finite[row]:
            return
        try:
            answer.adjust(scores[row], ahead[:done], constraint)
        except BaseException as error:
            errors[row] = typed_error(error, _FAILED)
            return
        if constraint is not None and done < len(ahead):
            if ahead[done] in answer.stop_ids or scores[row, ahead[done]] == -math.inf:
                return
            try:
                constraint = constraint.fork() if done == 0 else constraint
                constraint.accept(ahead[done])
            except BaseException as error:
                errors[row + 1] = typed_error(error, _FAILED)
                return


def _choose(
    scores: Tensor, rows: Sequence[tuple[Answer, int]], usable: Sequence[int], errors: dict[int, ChatGLMError]
) -> list[Draw]:
    """Draw a token for every usable row; the others get token 0. The error of a row that fails is put into `errors`."""
    chosen = [0] * len(rows)
    greedy, whole, cut = [], [], []
    for row in usable:
        params = rows[row][0].params
        if params.greedy:
            greedy.append(row)
        elif params.top_k or params.top_p < 1 or params.min_p:
            cut.append(row)
        else:
            whole.append(row)
    # On a GPU all rows together; on a CPU one by one, because there the memory for several rows takes more time.
    few = 1 if scores.device.type == "cpu" else len(rows)
    for some, of, size in ((greedy, _likeliest, len(rows)), (whole, _from_all, few), (cut, _from_few, few)):
        for start in range(0, len(some), size):
            part = some[start : start + size]
            theirs = scores if len(part) == len(rows) else scores[part] if size > 1 else scores[part[0]][None]
            try:
                for row, token in zip(part, of(theirs, [rows[row] for row in part]), strict=True):
                    chosen[row] = token
            except BaseException as error:
                errors |= dict.fromkeys(part, typed_error(error, _FAILED))
    return [Draw(token) for token in chosen]


def _likeliest(scores: Tensor, rows: Sequence[tuple[Answer, int]]) -> list[int]:
    tokens: list[int] = scores.argmax(dim=-1).tolist()
    return tokens


def _cooled(scores: Tensor, rows: Sequence[tuple[Answer, int]]) -> Tensor:
    """Divide scores by each row's temperature, so that the best score of a row is 0; in place."""
    heat = [min(max(answer.params.temperature, 1 / _HOTTEST), _HOTTEST) for answer, _ in rows]
    return scores.sub_(scores.amax(dim=-1, keepdim=True)).div_(torch.tensor(heat, device=scores.device)[:, None])


def _from_all(scores: Tensor, rows: Sequence[tuple[Answer, int]]) -> list[int]:
    """Draw from all tokens, in the order of their ids."""
    numbers = torch.tensor([answer.number(ahead) for answer, ahead in rows], dtype=torch.float64, device=scores.device)
    sums = _cooled(scores, rows).softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    total = sums[:, -1]
    # The place is below the total in spite of rounding, and right of equal sums, so that a token with probability 0 is
    # never drawn.
    place = torch.minimum(numbers * total, torch.nextafter(total, torch.zeros_like(total)))
    found = torch.searchsorted(sums, place[:, None], right=True)[:, 0]
    tokens: list[int] = found.clamp(max=scores.shape[1] - 1).tolist()
    return tokens


def _from_few(scores: Tensor, rows: Sequence[tuple[Answer, int]]) -> list[int]:
    """Draw from the tokens that top_k, top_p and min_p keep, in the order of scores, then ids."""
    x = _cooled(scores, rows)
    size = x.shape[1]
    # One score more than is kept, to see whether the last one ties with the next.
    first = _best(x, min(size, 1 + max(answer.params.top_k or _LIKELIEST for answer, _ in rows)))
    masses = [0.0] * len(rows)
    if any(answer.params.top_p < 1 and not answer.params.top_k for answer, _ in rows):
        masses = x.softmax(dim=-1).amax(dim=-1).double().reciprocal().tolist()
    tokens = []
    for row, (answer, ahead) in enumerate(rows):
        best, ids = first[row]
        weights = _kept(best, answer.params, masses[row], len(best) == size)
        if weights is None:
            best, ids = _sorted(x[row])
            weights = _kept(best, answer.params, masses[row], True)
        assert weights is not None
        sums = weights.cumsum()
        place = min(answer.number(ahead) * sums[-1], np.nextafter(sums[-1], 0))
        tokens.append(int(ids[min(int(np.searchsorted(sums, place, side="right")), len(sums) - 1)]))
    return tokens


def _best(x: Tensor, count: int) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """The `count` highest scores of every row and their ids: (count,) each. Equal scores are ordered by their ids."""
    values, ids = (part.cpu().numpy() for part in x.topk(count, dim=-1))
    found = []
    for best, places in zip(values, ids, strict=True):
        if (best[1:] == best[:-1]).any():
            order = np.lexsort((places, -best))
            best, places = best[order], places[order]
        found.append((best, places))
    return found


def _sorted(x: Tensor) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """All scores of a row (at most 0), the highest first, and their ids. Equal scores are ordered by their ids."""
    scores = x.cpu().numpy()
    # The bits of negative floats, read as integers, are greater for smaller floats. Integers are sorted many times
    # faster than pairs.
    keys = scores.view(np.uint32).astype(np.uint64) << np.uint64(32) | np.arange(len(scores), dtype=np.uint64)
    keys.sort()
    ids = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return scores[ids], ids


def _kept(scores: npt.NDArray[Any], params: SamplingParams, mass: float, complete: bool) -> npt.NDArray[Any] | None:
    """Relative probabilities of the tokens that are kept. These are the first ones of `scores`.

    Args:
        scores: the highest scores in descending order, from 0.
        mass: sum of exp(score) over all tokens, including those that are not in `scores`; needed without top_k.
        complete: whether `scores` has all tokens.

    Returns:
        float64 (kept,); None if more scores are needed to decide it.
    """
    kept = int(np.count_nonzero(scores > -np.inf))
    if kept < len(scores):  # forbidden tokens are last
        scores, complete = scores[:kept], True
    if 0 < params.top_k < kept:
        kept = int(np.count_nonzero(scores >= scores[params.top_k - 1]))
        if kept == len(scores) and not complete:  # more tokens may tie, and count for top_p
            return None
    weights = np.exp(scores[:kept].astype(np.float64))
    if params.top_k or complete:
        mass = float(weights.sum())
    if params.top_p < 1:
        kept = min(kept, int(np.searchsorted(weights.cumsum(), params.top_p * mass)) + 1)
    if params.min_p:
        kept = min(kept, int(np.count_nonzero(weights >= params.min_p)))
    kept = max(kept, 1)
    # A token that is not in `scores` may have the same score and a smaller id.
    return weights[:kept] if complete or scores[kept - 1] > scores[-1] else None


def log_probabilities(scores: Tensor, tokens: Sequence[int], alternatives: int) -> list[Draw]:
    """Log probabilities of given tokens, one for each row of scores.

    Args:
        scores: float32 (rows, vocabulary).
        tokens: the given token of each row.
        alternatives: how many of the most likely tokens to return with each, at most 20.

    Raises:
        NumericalError: a row of scores is not finite.
    """
    if not tokens:
        return []
    if not bool(torch.isfinite(scores.amax(dim=-1)).all()):
        raise NumericalError(f"the model's scores of the prompt are not finite: {_DAMAGED}")
    return _entries(scores.log_softmax(dim=-1), tokens, [alternatives] * len(tokens))


def _entries(table: Tensor, tokens: Sequence[int], counts: Sequence[int]) -> list[Draw]:
    """Tokens with their log-probabilities and as many alternatives as `counts` says.

    Args:
        table: log-probabilities of all tokens, (rows, vocabulary).
    """
    own = table.gather(1, torch.tensor(tokens, device=table.device)[:, None])[:, 0].tolist()
    # Always the same number, so that the order of equal values does not depend on other requests.
    values, ids = (part.tolist() for part in table.topk(min(_ALTERNATIVES, table.shape[1]), dim=-1))
    return [
        Draw(token, own[row], tuple(zip(ids[row][:count], values[row][:count], strict=True)))
        for row, (token, count) in enumerate(zip(tokens, counts, strict=True))
    ]
