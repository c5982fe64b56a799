"""At every extreme of every option an answer goes on with a token that is allowed, or ends with an error of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from chatglm.engine.constraint import Grammars
from chatglm.engine.sampling import Answer, draw
from chatglm.errors import ChatGLMError, EngineError, InputError, UnsupportedError
from chatglm.params import SamplingParams

SIZE = 300
STOP = 299


class Allowed:
    """A grammar that allows the same few tokens at every place."""

    def __init__(self, tokens: frozenset[int]) -> None:
        self.tokens = tokens

    def allow(self, scores: Tensor) -> None:
        scores[[token for token in range(len(scores)) if token not in self.tokens]] = -math.inf

    def accept(self, token: int) -> None:
        if token not in self.tokens:
            raise InputError(f"token {token} is not allowed")

    def finished(self) -> bool:
        return False

    def free(self, ahead: Sequence[int]) -> bool:
        return False

    def fork(self) -> Allowed:
        return Allowed(self.tokens)


NUMBERS = st.sampled_from([5e-324, 1e-310, 1e-45, 1e-38, 1e-30, 1e-7, 1e7, 1e30, 3.5e38, 1e39, 1e300, 1.7e308])
TOKENS = st.frozensets(st.integers(0, SIZE - 1), max_size=4)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0, 1.0]) | NUMBERS,
        "top_k": st.sampled_from([0, 1, 2, 50, SIZE - 1, SIZE, SIZE + 1, 2**63, 10**30]),
        "top_p": st.sampled_from([5e-324, 1e-38, 0.5, 1 - 2**-53, 1.0]),
        "min_p": st.sampled_from([0.0, 5e-324, 1e-38, 0.5, 1.0]),
        "repetition_penalty": NUMBERS,
        "presence_penalty": st.sampled_from([-2, 2]),
        "frequency_penalty": st.sampled_from([-2, 2]),
        "logit_bias": st.sampled_from([dict.fromkeys(range(SIZE), b) for b in (-100, 100)])
        | st.just({3: 100, STOP: -100}),
        "bad_words_ids": st.sampled_from(
            [
                [[n] for n in range(SIZE)],
                [[n] for n in range(SIZE) if n != 7],
                [[n, m] for n in range(SIZE) for m in (1, 2)],
            ]
        ),
        "min_new_tokens": st.sampled_from([0, 1, 2, 10**12]),
        "seed": st.sampled_from([-(2**63), 0, 2**63 - 1]),
        "logprobs": st.sampled_from([0, 20]),
        "stop_ids": st.sampled_from([[], [5], list(range(SIZE))]),
    },
)
SCORES = st.sampled_from(["usual", "flat", "zero", "huge", "mostly forbidden"])


def scores_of(kind: str, rows: int) -> Tensor:
    scores = (torch.randn(SIZE, generator=torch.Generator().manual_seed(1)) * 3).repeat(rows, 1)
    match kind:
        case "flat":
            scores = torch.full((rows, SIZE), -2.5)
        case "zero":
            scores = torch.zeros(rows, SIZE)
        case "huge":
            scores *= 1e37
        case "mostly forbidden":
            scores[:, 4:] = -math.inf
    return scores


def forbidden(answer: Answer, before: list[int]) -> set[int]:
    """What the options say must not come next."""
    params = answer.params
    tail = [*PROMPT, *before]
    words = {word[-1] for word in params.bad_words_ids if tuple(tail[len(tail) - len(word) + 1 :]) == word[:-1]}
    return words | (set(answer.stop_ids) if len(before) < params.min_new_tokens else set())


PROMPT = (3, 1, 4, 1, 5)


@settings(max_examples=200, deadline=None)
@given(OPTIONS, st.none() | TOKENS, SCORES, st.lists(st.integers(0, SIZE - 1), max_size=3))
def test_every_extreme(options: dict[str, Any], grammar: frozenset[int] | None, kind: str, guesses: list[int]) -> None:
    params = SamplingParams.from_dict(options)

    def fresh() -> Answer:
        constraint = None if grammar is None else Allowed(grammar)
        return Answer(params, PROMPT, vocabulary=SIZE, stop_ids={STOP}, constraint=constraint)

    answer, bystander = fresh(), Answer(SamplingParams(seed=1), PROMPT, vocabulary=SIZE)
    (alone,) = draw(scores_of(kind, 1), [Answer(SamplingParams(seed=1), PROMPT, vocabulary=SIZE)])
    result, beside = draw(scores_of(kind, len(guesses) + 2), [answer, bystander], [guesses, []])
    assert beside == alone
    if isinstance(result, ChatGLMError):
        assert isinstance(result, InputError)
        assert "forbid every token" in str(result)
        assert answer.tokens == []
        return
    tokens = [entry.token for entry in result]
    assert answer.tokens == tokens
    assert 0 < len(tokens) <= len(guesses) + 1
    for place, token in enumerate(tokens):
        assert token not in forbidden(answer, tokens[:place])
        assert grammar is None or token in grammar
        assert kind != "mostly forbidden" or token < 4
    if params.logprobs is not None:
        assert all(entry.logprob is not None and not math.isnan(entry.logprob) for entry in result)
    # The first token is the one that comes without guesses.
    again = fresh()
    again._seed = answer._seed
    (plain,) = draw(scores_of(kind, 1), [again])
    assert isinstance(plain, list)
    assert plain[0].token == tokens[0]


@pytest.mark.parametrize("options", [{}, {"top_k": 50}, {"top_p": 0.8}, {"min_p": 0.1}, {"temperature": 0}])
def test_everything_forbidden_ends_that_answer(options: dict[str, Any]) -> None:
    for more in ({"bad_words_ids": [[n] for n in range(SIZE)]}, {"min_new_tokens": 20, "stop_ids": list(range(SIZE))}):
        params = SamplingParams.from_dict({**options, **more})
        answers = [Answer(p, PROMPT, vocabulary=SIZE) for p in (params, SamplingParams(seed=1))]
        bad, good = draw(scores_of("usual", 2), answers)
        assert isinstance(bad, InputError)
        assert isinstance(good, list)


@pytest.mark.parametrize("options", [{}, {"top_k": 50}, {"top_p": 0.8, "min_p": 0.1}, {"temperature": 0}])
def test_a_grammar_that_has_ended_and_more_tokens_that_are_wanted(options: dict[str, Any]) -> None:
    tokens = [bytes([n]) if n < 256 else b"" for n in range(SIZE)]
    constraint = Grammars(tokens, {STOP}).json_schema({"type": "boolean"})
    params = SamplingParams.from_dict({**options, "min_new_tokens": 30, "seed": 1})
    answer = Answer(params, PROMPT, vocabulary=SIZE, stop_ids={STOP}, constraint=constraint)
    for _ in range(20):
        (result,) = draw(scores_of("usual", 1), [answer])
        if isinstance(result, ChatGLMError):
            break
    assert isinstance(result, InputError)
    assert bytes(answer.tokens).strip() in (b"true", b"false")


@pytest.mark.parametrize("temperature", [1e30, 3.5e38, 1e39, 1e308])
@pytest.mark.parametrize("options", [{}, {"top_k": 50}, {"top_p": 0.99}])
def test_hot_enough_all_that_is_allowed_is_equally_probable(temperature: float, options: dict[str, Any]) -> None:
    said = set()
    for seed in range(60):
        params = SamplingParams.from_dict({**options, "temperature": temperature, "seed": seed})
        answer = Answer(params, PROMPT, vocabulary=SIZE, constraint=Allowed(frozenset({7, 8, 9})))
        (result,) = draw(scores_of("usual", 1), [answer])
        assert isinstance(result, list)
        said.add(result[0].token)
    assert said == {7, 8, 9}


class PanicError(BaseException):
    """As pyo3's PanicException: no Exception."""


@pytest.mark.parametrize(
    "error", [InputError("no"), UnsupportedError("too complex"), ValueError("x"), PanicError("rust"), MemoryError()]
)
@pytest.mark.parametrize("where", ["allow", "accept", "fork", "number"])
@pytest.mark.parametrize("guesses", [[], [11, 12]])
def test_what_fails_in_one_answer_ends_it_alone(
    error: BaseException, where: str, guesses: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    constraint = Allowed(frozenset(range(SIZE)))
    answer = Answer(SamplingParams(seed=1), PROMPT, vocabulary=SIZE, constraint=constraint)

    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(answer if where == "number" else constraint, where, fail)
    rows = [11, *guesses][: len(guesses)] or []
    scores = torch.full((len(guesses) + 3, SIZE), -50.0)
    for row, token in enumerate([5, *rows, 6][: len(guesses)] if guesses else []):
        scores[1 + row, token] = 0
    scores[1, 11] = 60  # the first guess is right
    others = [Answer(SamplingParams(seed=2), PROMPT, vocabulary=SIZE) for _ in range(2)]
    expected = draw(scores[-1:].clone(), [Answer(SamplingParams(seed=2), PROMPT, vocabulary=SIZE)])
    before, result, behind = draw(scores, [others[0], answer, others[1]], [[], guesses, []])
    assert isinstance(before, list)
    assert [behind] == expected
    if where == "fork":  # only asked when there is a guess; what came before it stands
        assert isinstance(result, list)
        return
    assert isinstance(result, type(error) if isinstance(error, ChatGLMError) else EngineError)
    assert answer.tokens == []
    if where == "accept":  # it does not go on as if nothing had been
        (again,) = draw(torch.zeros(1, SIZE), [answer])
        assert again is result


def test_an_interrupt_is_no_failure_of_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    constraint = Allowed(frozenset({1}))

    def fail(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(constraint, "allow", fail)
    with pytest.raises(KeyboardInterrupt):
        draw(torch.zeros(1, SIZE), [Answer(SamplingParams(), PROMPT, vocabulary=SIZE, constraint=constraint)])


def test_bad_words_of_several_tokens_are_found_by_their_ends() -> None:
    words = [(1, 5, 9), (4, 1, 5, 8), (5, 7), (2, 5, 6), (1, 5, 9), (3,), (3, 1, 4, 1, 5, 10), (9, 3, 1, 4, 1, 5, 11)]
    answer = Answer(SamplingParams(bad_words_ids=tuple(words)), PROMPT, vocabulary=20)
    scores = torch.zeros(20)
    answer.adjust(scores, (), None)
    assert scores.isinf().nonzero()[:, 0].tolist() == [3, 7, 8, 9, 10]
    scores = torch.zeros(20)
    answer.adjust(scores, (2, 5), None)
    assert scores.isinf().nonzero()[:, 0].tolist() == [3, 6, 7]


def test_sixty_thousand_bad_words() -> None:
    """They are read once for all answers, and a step looks only at those that it may complete: 200 tokens, no wait."""
    size = 65_000
    words = [[n] for n in range(5, 30_000)] + [[n, n + 1, n + 2] for n in range(30_000, 60_000)]
    params = SamplingParams.from_dict({"bad_words_ids": words, "logit_bias": dict.fromkeys(range(size), 1), "top_k": 5})
    answer = Answer(params, PROMPT, vocabulary=size)
    many = [answer, *(answer.sibling(n, None) for n in range(1, 100))]
    for _ in range(2):
        assert all(isinstance(result, list) for result in draw(torch.randn(100, size), many))
    assert not any(5 <= token < 30_000 for one in many for token in one.tokens)
    assert SamplingParams.from_dict({"top_k": 3}, params).bad_words_ids is params.bad_words_ids
