"""A draft model: the same text in fewer steps, or left alone where it does not help."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from running import said
from tiny import chatglm_model, glm_model, glm_prompt

from chatglm.assistant import Assistant
from chatglm.chat.messages import Message
from chatglm.engine.draft import DraftModel
from chatglm.engine.engine import Engine
from chatglm.errors import InputError
from chatglm.loading import Loaded, demo_folder, load_parts
from chatglm.params import SamplingParams

QUESTIONS = ("你好", "给我讲一个故事。", "北京的天气怎么样？")


@pytest.fixture(scope="module")
def demo() -> Loaded:
    return load_parts(dtype="float32")


def steps_are_slow(engine: Engine, seconds: float = 10.0) -> None:
    """Whether a draft pays does not depend on this machine then."""
    assert engine._speculator is not None
    engine._speculator._cost = lambda rows: seconds * (1 + rows / 1000)


def random_like(model: Any) -> Any:
    """One layer of the same width and vocabulary, that knows nothing."""
    config = type(model.config).from_dict({**model.config.to_dict(), "num_layers": 1})
    torch.manual_seed(0)
    return type(model)(config).float().eval()


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_the_text_does_not_depend_on_it(demo: Loaded, temperature: float) -> None:
    """The model drafts for itself: all is right where it is greedy. One of random weights: hardly anything is."""
    prompts = [demo.format.prompt([Message("user", question)]) for question in QUESTIONS]
    params = SamplingParams(temperature=temperature, seed=5, max_new_tokens=48)
    plain = Engine(demo.model, speculate=False)
    wanted = said(plain, prompts, params)
    itself = Engine(demo.model, speculate=DraftModel(demo.model))
    steps_are_slow(itself)
    assert said(itself, prompts, params) == wanted
    stats = itself.stats()
    assert stats.proposed_tokens > 60
    if temperature == 0:
        assert stats.accepted_tokens == stats.proposed_tokens
        assert stats.steps < plain.stats().steps / 3
    useless = Engine(demo.model, speculate=DraftModel(random_like(demo.model)))
    steps_are_slow(useless)
    assert said(useless, prompts, params) == wanted
    assert useless.stats().proposed_tokens > 0
    assert useless.stats().accepted_tokens < 0.1 * useless.stats().proposed_tokens + 2


def test_it_is_left_alone_where_it_does_not_pay(demo: Loaded) -> None:
    """The model itself is as slow as what it drafts for: after the first tries it is asked hardly ever."""
    draft = DraftModel(demo.model)
    draft._guessing = 1.0  # seconds for a token, where a step takes milliseconds
    engine = Engine(demo.model, speculate=draft)
    steps_are_slow(engine, 0.01)
    prompt = demo.format.prompt([Message("user", QUESTIONS[1])])
    said(engine, [prompt], SamplingParams(temperature=0, max_new_tokens=100, min_new_tokens=100))
    assert engine.stats().proposed_tokens == 0


def test_chatglm_6b_has_drafts_too() -> None:
    model, draft = glm_model(max_sequence_length=256), glm_model(seed=1, num_layers=1, max_sequence_length=256)
    prompts = [glm_prompt(list(range(5, 5 + count))) for count in (3, 70, 130)]
    params = SamplingParams(temperature=0, max_new_tokens=30)
    wanted = said(Engine(model, speculate=False), prompts, params)
    for guesses in (draft, model):
        engine = Engine(model, speculate=DraftModel(guesses))
        steps_are_slow(engine)
        assert said(engine, prompts, params) == wanted
    assert engine.stats().accepted_tokens > 60


def test_a_draft_model_of_less_context_stops_guessing() -> None:
    model = chatglm_model(kv_channels=16, seq_length=256)
    draft = DraftModel(model, context=64)
    engine = Engine(model, speculate=draft)
    steps_are_slow(engine)
    prompt = list(range(5, 45))
    params = SamplingParams(temperature=0, max_new_tokens=100)
    assert said(engine, [prompt], params) == said(Engine(model, speculate=False), [prompt], params)
    assert 0 < engine.stats().proposed_tokens < 24


def test_another_vocabulary_is_refused() -> None:
    draft = DraftModel(chatglm_model(padded_vocab_size=170))
    with pytest.raises(InputError, match="has 170 tokens, the model's has 160"):
        Engine(chatglm_model(), speculate=draft)


def test_load_takes_a_draft_model_s_folder(checkpoint: Any) -> None:
    with (
        Assistant.load(dtype="float32") as plain,
        Assistant.load(draft=demo_folder(), dtype="float32") as drafted,
    ):
        params = {"temperature": 0, "max_new_tokens": 30}
        assert drafted.reply(QUESTIONS[0], params=params) == plain.reply(QUESTIONS[0], params=params)
        assert drafted.stats().proposed_tokens > 0
    with pytest.raises(InputError, match="another vocabulary"):
        Assistant.load(draft=checkpoint("chatglm3"), dtype="float32")
    with pytest.raises(InputError, match="speculate"):
        Assistant.load(draft=demo_folder(), speculate=False, dtype="float32")
