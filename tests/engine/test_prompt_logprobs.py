"""Log-probabilities of a prompt are those of a plain forward pass, however the prompt was read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from running import events, said
from tiny import chatglm_model, glm_model, glm_prompt
from transformers import LlamaConfig, LlamaForCausalLM

from chatglm.engine.engine import Engine, Request
from chatglm.engine.runners import _SCORED
from chatglm.engine.sampling import Draw
from chatglm.errors import InputError, NumericalError
from chatglm.models.native import NativeCache, decoder_of
from chatglm.params import SamplingParams

SCORE = SamplingParams(temperature=0, max_new_tokens=0, prompt_logprobs=3)


def llama() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=160, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.5,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


MODELS = {
    "chatglm": lambda: chatglm_model(kv_channels=16, seq_length=512),
    "quantized": lambda: chatglm_model(kv_channels=16, seq_length=512).quantize(8),
    "glm": lambda: glm_model(max_sequence_length=512),
    "chatglm on torch": lambda: chatglm_model(kv_channels=8, seq_length=512),
    "glm on torch": lambda: glm_model(max_sequence_length=512, hidden_size=32),
    "learned prefix": lambda: chatglm_model(kv_channels=16, seq_length=512, pre_seq_len=70),
    "llama": llama,
}


def prompt_for(name: str, count: int, seed: int = 0) -> list[int]:
    ids = [(n * 37 + seed * 11) % 130 + 5 for n in range(count)]
    return [*glm_prompt(ids), *ids[:9]] if name.startswith("glm") else ids  # behind <sop>, tokens of an answer


def expected(model: Any, prompt: Sequence[int]) -> torch.Tensor:
    """Of every token but the first, in a row for each: (tokens - 1, vocabulary)."""
    cache = None
    if any("Quantized" in type(part).__name__ for part in model.modules()):
        decoder = decoder_of(model)  # it rounds the inputs of integer weights, which torch does not
        cache = None if decoder is None else NativeCache(decoder, 1)
    with torch.no_grad():
        return model(torch.tensor([list(prompt)]), past_key_values=cache).logits[0, :-1].float().log_softmax(-1)


def is_right(found: Sequence[Draw], model: Any, prompt: Sequence[int]) -> None:
    table = expected(model, prompt)
    assert [draw.token for draw in found] == list(prompt[1:])
    own = table.gather(1, torch.tensor(prompt[1:])[:, None])[:, 0]
    assert torch.tensor([draw.logprob for draw in found]) == pytest.approx(own, abs=2e-3)
    likeliest = torch.tensor([[value for _, value in draw.alternatives] for draw in found]).view(-1, 3)
    assert likeliest == pytest.approx(table.topk(3).values, abs=2e-3)


def scored(engine: Engine, prompt: list[int], params: SamplingParams = SCORE) -> Request:
    request = engine.submit(prompt, params)
    (event,) = events(engine)
    assert (event.tokens, event.finish, event.index) == ([], "length", 0)
    return request


@pytest.mark.parametrize("name", MODELS)
def test_they_are_those_of_a_forward_pass(name: str) -> None:
    """Of one token, of a few, of several pieces of the prompt and of the scores; and with the prompt in the cache."""
    model = MODELS[name]()
    engine = Engine(model, budget=100)
    for count in (1, 7, 2 * _SCORED + 3, 200):
        prompt = prompt_for(name, count)
        for _ in range(2):
            request = scored(engine, prompt)
            is_right(request.prompt_logprobs, model, prompt)
            assert request.cached_tokens == 0
    # What is beside it is not disturbed, and finds what was computed.
    beside = engine.submit(prompt, SamplingParams(temperature=0, max_new_tokens=5))
    list(events(engine))
    assert beside.cached_tokens > 100


def test_a_head_that_is_stored_by_columns() -> None:
    model, prompt = MODELS["chatglm"](), prompt_for("chatglm", 20)
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().T.contiguous().T)
    is_right(scored(Engine(model), prompt).prompt_logprobs, model, prompt)


def test_an_answer_follows_and_is_the_usual_one() -> None:
    model = MODELS["chatglm"]()
    engine = Engine(model)
    prompt = prompt_for("chatglm", 90)
    plain = SamplingParams(seed=1, n=3, max_new_tokens=8, logprobs=1)
    wanted: dict[int, list[Draw]] = {0: [], 1: [], 2: []}
    found: dict[int, list[Draw]] = {0: [], 1: [], 2: []}
    engine.submit(prompt, plain)
    for event in events(engine):
        wanted[event.index] += event.logprobs
    request = engine.submit(prompt, SamplingParams(seed=1, n=3, max_new_tokens=8, logprobs=1, prompt_logprobs=3))
    for event in events(engine):
        assert len(request.prompt_logprobs) == len(prompt) - 1  # before the first event
        found[event.index] += event.logprobs
    assert found == wanted
    is_right(request.prompt_logprobs, model, prompt)


def test_preempted_in_the_middle_of_a_prompt() -> None:
    """It goes on behind the tokens whose scores are known, and tells none of them twice."""
    model = MODELS["chatglm"]()
    engine = Engine(model, budget=40, max_running=4, memory=6 * Engine(model).runner.page_bytes)
    for seed in (1, 2):
        engine.submit(prompt_for("chatglm", 50, seed), SamplingParams(temperature=0, max_new_tokens=100))
    prompt = prompt_for("chatglm", 180)
    request = engine.submit(prompt, SCORE)
    list(events(engine))
    is_right(request.prompt_logprobs, model, prompt)
    again = Engine(model, budget=40, max_running=4)
    request = again.submit(prompt, SCORE)
    again.step()
    again.step()
    (task,) = again._scheduler.running
    again._scheduler._preempt(task)
    known = len(request.prompt_logprobs)
    assert 0 < known < len(prompt) - 1
    list(events(again))
    is_right(request.prompt_logprobs, model, prompt)


def test_many_at_once_are_each_their_own() -> None:
    model = MODELS["chatglm"]()
    engine = Engine(model)
    asked = [prompt_for("chatglm", 20 + 30 * seed, seed) for seed in range(6)]
    requests = [engine.submit(prompt, SCORE) for prompt in asked]
    texts = engine.submit(asked[3], SamplingParams(temperature=0, max_new_tokens=6))
    alone = said(Engine(model), [asked[3]], SamplingParams(temperature=0, max_new_tokens=6))
    tokens = [token for event in events(engine) if event.request is texts for token in event.tokens]
    assert [tokens] == alone
    for request, prompt in zip(requests, asked, strict=True):
        is_right(request.prompt_logprobs, model, prompt)
        own = scored(Engine(model), prompt)
        assert own.prompt_logprobs == request.prompt_logprobs


def test_a_prompt_that_fills_the_context_can_be_scored() -> None:
    model = MODELS["chatglm"]()
    engine = Engine(model, context=100)
    prompt = prompt_for("chatglm", 100)
    is_right(scored(engine, prompt).prompt_logprobs, model, prompt)
    with pytest.raises(InputError, match="at most 99"):
        engine.submit(prompt, SamplingParams(max_new_tokens=1, prompt_logprobs=0))
    with pytest.raises(InputError, match="0 only with prompt_logprobs"):
        SamplingParams(max_new_tokens=0)


def test_scores_that_are_not_finite_end_that_request_alone() -> None:
    model = MODELS["chatglm"]()
    with torch.no_grad():
        model.get_input_embeddings().weight[77] = torch.nan
    engine = Engine(model)
    bad = engine.submit([5, 6, 77, 8], SamplingParams(n=2, prompt_logprobs=1, max_new_tokens=3))
    good = engine.submit([5, 6, 7, 8], SCORE)
    seen = list(events(engine))
    failed = [event for event in seen if event.request is bad]
    assert [(event.index, event.finish) for event in failed] == [(0, "error"), (1, "error")]
    assert isinstance(failed[0].error, NumericalError)
    is_right(good.prompt_logprobs, model, [5, 6, 7, 8])
    assert engine.stats().pages_used == 0
