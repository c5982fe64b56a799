"""Tokens are drawn as `transformers` would, and the same whatever else is in the batch and whatever was guessed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from chatglm.engine.sampling import Answer, Draw, draw
from chatglm.errors import ChatGLMError, InputError, NumericalError, UnsupportedError
from chatglm.params import SamplingParams

PROMPT = (3, 1, 4, 1, 5)


class Fixed(Answer):
    """An answer whose draws are decided by a given number."""

    decides = 0.5

    def number(self, ahead: int) -> float:
        return self.decides


def frequencies(scores: Tensor, params: SamplingParams, said: Sequence[int], count: int = 2000) -> Tensor:
    """How often each token is drawn, over numbers spread evenly from 0 to 1."""
    answers = []
    for n in range(count):
        answer = Fixed(params, PROMPT, vocabulary=len(scores))
        for token in said:
            answer.accept(token)
        answer.decides = (n + 0.5) / count
        answers.append(answer)
    drawn = draw(scores.repeat(count, 1), answers)
    times = Counter(result[0].token for result in drawn if not isinstance(result, ChatGLMError))
    return torch.tensor([times[token] / count for token in range(len(scores))])


def reference(scores: Tensor, params: SamplingParams, said: Sequence[int]) -> Tensor:
    """The probabilities, by transformers' own processors."""
    ids = torch.tensor([[*PROMPT, *said]])
    scores = RepetitionPenaltyLogitsProcessor(params.repetition_penalty)(ids, scores[None].clone())
    for token, times in Counter(said).items():
        scores[0, token] -= params.presence_penalty + params.frequency_penalty * times
    rest = LogitsProcessorList()
    if params.logit_bias:
        rest.append(SequenceBiasLogitsProcessor({(token,): bias for token, bias in params.logit_bias.items()}))
    if params.bad_words_ids:
        rest.append(NoBadWordsLogitsProcessor([list(word) for word in params.bad_words_ids]))
    rest.append(TemperatureLogitsWarper(params.temperature))
    if params.top_k:
        rest.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        rest.append(TopPLogitsWarper(params.top_p))
    if params.min_p:
        rest.append(MinPLogitsWarper(params.min_p))
    return rest(ids, scores).softmax(-1)[0]


PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.3, 0.8, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 3, 20, 5000]),
    top_p=st.sampled_from([0.1, 0.7, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.4]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.8]),
    presence_penalty=st.sampled_from([0.0, 0.7]),
    frequency_penalty=st.sampled_from([0.0, -0.3, 1.1]),
    logit_bias=st.sampled_from([{}, {2: 3.0, 7: -100.0}]),
    bad_words_ids=st.sampled_from([(), ((6,), (1, 5, 2), (9, 8)), ((5, 1),)]),
)


@settings(max_examples=25, deadline=None)
@given(
    PARAMS,
    st.integers(0, 2**31),
    st.sampled_from([30, 700]),
    st.sampled_from([1.0, 4.0]),
    st.sampled_from([(), (2, 9, 2)]),
)
def test_the_distribution_is_that_of_transformers(
    params: SamplingParams, seed: int, size: int, spread: float, said: tuple[int, ...]
) -> None:
    scores = torch.randn(size, generator=torch.Generator().manual_seed(seed)) * spread
    drawn, expected = frequencies(scores, params, said), reference(scores, params, said)
    # Evenly spread numbers fall into an interval of probability p as count·p times, give or take one.
    assert float((drawn - expected).abs().max()) < 1.01 / 2000


def test_flat_scores_need_all_candidates() -> None:
    scores = torch.arange(3000) * 1e-4
    for params in (SamplingParams(top_p=0.9), SamplingParams(min_p=0.9)):
        tokens = frequencies(scores, params, ()).nonzero()[:, 0]
        kept = reference(scores, params, ()).nonzero()[:, 0]
        assert int(tokens.min()) in range(int(kept.min()), int(kept.min()) + 3)
        assert int(tokens.max()) > 2995


def test_equal_scores() -> None:
    scores = torch.tensor([0.0, 1.0, 1.0, 1.0, -1.0])
    assert frequencies(scores, SamplingParams(top_k=2), (), 300).tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 0])
    # top_p takes them in the order of their ids, so that it does not depend on how they were sorted.
    assert frequencies(scores, SamplingParams(top_p=0.5), (), 300).nonzero()[:, 0].tolist() == [1, 2]
    ties = torch.zeros(1000)
    assert frequencies(ties, SamplingParams(top_p=0.4), (), 800).nonzero()[:, 0].tolist() == list(range(400))
    assert draw(scores[None].clone(), [Answer(SamplingParams(temperature=0), (), vocabulary=5)]) == [[Draw(1)]]


def test_all_that_tie_for_the_last_place_of_top_k_count_for_top_p() -> None:
    scores = torch.full((300,), -5.0)
    scores[:2] = torch.tensor([0.0, -1.0])
    params = SamplingParams(top_k=5, top_p=0.9)
    drawn, expected = frequencies(scores, params, ()), reference(scores, params, ())
    assert drawn[:2].tolist() == pytest.approx(expected[:2].tolist(), abs=1.01 / 2000)
    assert drawn.count_nonzero() == expected.count_nonzero()


def test_extreme_temperatures() -> None:
    scores = torch.tensor([1.0, 1.0 + 1e-6, -5.0])
    assert frequencies(scores, SamplingParams(temperature=1e-300), (), 50)[1] == 1
    assert frequencies(scores, SamplingParams(temperature=1e-300, top_p=0.5), (), 50)[1] == 1
    assert frequencies(scores, SamplingParams(temperature=1e6), (), 300).tolist() == pytest.approx(
        [1 / 3] * 3, abs=0.01
    )


class Parity:
    """A grammar: even and odd tokens take turns; after eight, only 0, which ends it, may come."""

    def __init__(self, said: tuple[int, ...] = ()) -> None:
        self.said = said

    def allow(self, scores: Tensor) -> None:
        if len(self.said) >= 8:
            scores[1:] = -math.inf
        else:
            scores[len(self.said) % 2 :: 2] = -math.inf
            scores[0] = -math.inf

    def accept(self, token: int) -> None:
        assert (token == 0) if len(self.said) >= 8 else token % 2 != len(self.said) % 2
        self.said += (token,)

    def finished(self) -> bool:
        return len(self.said) >= 8

    def free(self, ahead: Sequence[int]) -> bool:
        return False

    def fork(self) -> Parity:
        return Parity(self.said)


SIZE = 40


def model(tokens: Sequence[int]) -> Tensor:
    """Scores that depend on the last two tokens."""
    seed = hash((*PROMPT, *tokens)[-2:]) % 2**31
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(seed)) * 2


def run(answers: Sequence[Answer], guesses: dict[int, list[int]] | None = None, steps: int = 12) -> list[list[Draw]]:
    """Answers written together; `guesses[n]` is what is proposed for answer n, place by place."""
    out: list[list[Draw]] = [[] for _ in answers]
    while running := [n for n, a in enumerate(answers) if not a.stopped and len(a.tokens) < steps]:
        ahead = []
        for n in running:
            done = len(answers[n].tokens)
            ahead.append(guesses[n][done : min(done + 3, steps - 1)] if guesses else [])
        rows = [
            model([*answers[n].tokens, *guess[:k]])
            for n, guess in zip(running, ahead, strict=True)
            for k in range(len(guess) + 1)
        ]
        for n, result in zip(running, draw(torch.stack(rows), [answers[n] for n in running], ahead), strict=True):
            assert not isinstance(result, ChatGLMError)
            out[n] += result
    return out


KINDS = [
    SamplingParams(temperature=0),
    SamplingParams(seed=1),
    SamplingParams(seed=1, top_k=5, logprobs=2),
    SamplingParams(seed=2, top_p=0.8, temperature=0.7, repetition_penalty=1.5, frequency_penalty=0.4),
    SamplingParams(seed=3, min_p=0.1, presence_penalty=1.0, bad_words_ids=((1,), (2, 3)), logit_bias={4: 2.0}),
    SamplingParams(seed=4, top_k=7, top_p=0.9, min_new_tokens=4, stop_ids=(5, 6, 7), logprobs=0),
    SamplingParams(temperature=0, repetition_penalty=1.2, min_new_tokens=3, stop_ids=(8,)),
]


def fresh() -> list[Answer]:
    free = [Answer(params, PROMPT, vocabulary=SIZE, stop_ids=(9,)) for params in KINDS]
    bound = [Answer(p, PROMPT, vocabulary=SIZE, stop_ids=(0,), constraint=Parity()) for p in KINDS]
    return [*free, *bound]


def test_alone_as_in_a_batch_as_with_guesses() -> None:
    alone = [run([answer])[0] for answer in fresh()]
    texts = [[d.token for d in draws] for draws in alone]
    assert len({tuple(text) for text in texts}) > 10
    assert texts[7] != texts[0]
    assert texts[7][-1] == 0
    together = run(fresh())
    assert [[d.token for d in draws] for draws in together] == texts
    assert [[d.alternatives for d in draws] for draws in together] == [[d.alternatives for d in a] for a in alone]
    for wrong in range(4):  # right guesses, and guesses of which every second, third … is wrong
        guesses = {
            n: [(token + (wrong > 0 and (place + n) % (wrong + 1) == 0)) % SIZE for place, token in enumerate(text)]
            for n, text in enumerate(texts)
        }
        guessed = run(fresh(), guesses)
        assert [[d.token for d in draws] for draws in guessed] == texts
        for draws, same in zip(guessed, alone, strict=True):
            assert [d.logprob for d in draws] == pytest.approx([d.logprob for d in same]) if same[0].logprob else True


def test_right_guesses_all_come_at_once() -> None:
    params = SamplingParams(seed=5, top_p=0.9)
    text = [d.token for d in run([Answer(params, PROMPT, vocabulary=SIZE)], steps=4)[0]]
    answer = Answer(params, PROMPT, vocabulary=SIZE)
    rows = torch.stack([model(text[:k]) for k in range(4)])
    assert draw(rows.clone(), [answer], [text[:3]]) == [[Draw(token) for token in text]]
    assert answer.tokens == text
    # Nothing comes behind the end.
    ending = Answer(replace(params, stop_ids=(text[1],)), PROMPT, vocabulary=SIZE)
    assert draw(rows.clone(), [ending], [text[:3]]) == [[Draw(token) for token in text[:2]]]
    assert ending.stopped


def test_seeds() -> None:
    def numbers(seed: int | None, index: int) -> list[float]:
        answer = Answer(SamplingParams(seed=seed), (), vocabulary=9, index=index)
        return [answer.number(ahead) for ahead in range(200)]

    assert numbers(7, 0) == numbers(7, 0)
    seen = [*numbers(7, 0), *numbers(7, 1), *numbers(-7, 0), *numbers(70, 0), *numbers(None, 0), *numbers(None, 0)]
    assert len(set(seen)) == len(seen)
    assert all(0 < number < 1 for number in seen)
    assert sum(seen) / len(seen) == pytest.approx(0.5, abs=0.05)
    answer = Answer(SamplingParams(seed=7), (), vocabulary=9)
    answer.accept(3)
    assert answer.number(1) == numbers(7, 0)[2]


def test_logprobs_are_the_models_own() -> None:
    scores = model([])
    params = SamplingParams(seed=1, temperature=0.2, top_k=2, logit_bias={3: 100.0}, logprobs=4)
    (result,) = draw(scores[None].clone(), [Answer(params, PROMPT, vocabulary=SIZE)])
    assert not isinstance(result, ChatGLMError)
    table = scores.log_softmax(-1)
    assert result[0].token == 3
    assert result[0].logprob == pytest.approx(float(table[3]))
    values, ids = table.topk(4)
    assert [token for token, _ in result[0].alternatives] == ids.tolist()
    assert [value for _, value in result[0].alternatives] == pytest.approx(values.tolist())


class TooMuch(Parity):
    def allow(self, scores: Tensor) -> None:
        raise UnsupportedError("the output's grammar: too complex")


def test_a_row_that_fails_fails_alone() -> None:
    def answers() -> list[Answer]:
        greedy = SamplingParams(temperature=0)
        banned = SamplingParams(bad_words_ids=tuple((t,) for t in range(SIZE)), top_p=0.5)
        each: list[dict[str, Any]] = [
            {"params": greedy},
            {"params": greedy},
            {"params": SamplingParams(seed=1)},
            {"params": SamplingParams(seed=1, top_p=0.9)},
            {"params": banned},
            {"params": greedy, "constraint": TooMuch()},
            {"params": SamplingParams(seed=2, top_k=3, logprobs=1)},
        ]
        return [Answer(prompt=PROMPT, vocabulary=SIZE, **one) for one in each]

    scores = torch.stack([model([n]) for n in range(7)])
    right = [draw(scores[n : n + 1].clone(), [answers()[n]])[0] for n in (0, 6)]
    scores[1, 5] = math.nan
    scores[2, 5] = math.inf
    scores[3] = -math.inf
    batch = answers()
    results = draw(scores, batch)
    assert [results[0], results[6]] == right
    assert [type(r) for r in results[1:6]] == [NumericalError] * 3 + [InputError, UnsupportedError]
    assert "not finite after 0 tokens" in str(results[1])
    assert "forbid every token" in str(results[4])
    assert [len(answer.tokens) for answer in batch] == [1, 0, 0, 0, 0, 0, 1]


def test_a_failure_behind_good_tokens_waits() -> None:
    answer = Answer(SamplingParams(temperature=0), PROMPT, vocabulary=SIZE)
    scores = torch.stack([model([]), model([])])
    token = int(scores[0].argmax())
    scores[1, 3] = math.nan
    assert draw(scores, [answer], [[token]]) == [[Draw(token)]]


def test_wrong_shapes_and_tokens_are_refused() -> None:
    with pytest.raises(InputError, match="3 rows of scores for 2 places of 1 answers"):
        draw(torch.zeros(3, SIZE), [Answer(SamplingParams(), (), vocabulary=SIZE)], [[1]])
    for params, name in (
        (SamplingParams(logit_bias={40: 1.0}), "logit_bias"),
        (SamplingParams(bad_words_ids=((1, 40),)), "bad_words_ids"),
        (SamplingParams(stop_ids=(40,)), "stop_ids"),
    ):
        with pytest.raises(InputError, match=f"{name} has token 40; the model's vocabulary ends at 39"):
            Answer(params, (), vocabulary=SIZE)
