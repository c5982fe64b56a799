"""What fails in one answer ends it alone; a failed run of the model ends what it ran, and no more."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from running import events, said
from tiny import chatglm_model, glm_model, glm_prompt

from chatglm.engine.draft import DraftModel
from chatglm.engine.engine import Engine
from chatglm.engine.speculation import Guess, PromptLookup
from chatglm.errors import ChatGLMError, EngineError, InputError
from chatglm.params import SamplingParams

MODELS = {
    "chatglm": lambda: chatglm_model(kv_channels=16, seq_length=512),
    "glm": lambda: glm_model(max_sequence_length=512),
    "torch": lambda: chatglm_model(kv_channels=8, seq_length=512),
    "learned prefix": lambda: chatglm_model(kv_channels=16, seq_length=512, pre_seq_len=70),
}
PARAMS = SamplingParams(seed=3, max_new_tokens=25)


def prompts(name: str, count: int) -> list[list[int]]:
    draw = random.Random(1)
    made = [[draw.randrange(5, 140) for _ in range(draw.randrange(2, 90))] for _ in range(count)]
    return [glm_prompt(ids) for ids in made] if name == "glm" else made


class PanicError(BaseException):
    """As libraries in Rust raise it: no Exception."""


class Breaks:
    """A grammar of any text, that raises after so many tokens."""

    def __init__(self, where: str, after: int, error: BaseException, said: int = 0) -> None:
        self.where, self.after, self.error, self.said = where, after, error, said

    def _reach(self, where: str) -> None:
        if where == self.where and self.said >= self.after:
            raise self.error

    def allow(self, scores: torch.Tensor) -> None:
        self._reach("allow")

    def accept(self, token: int) -> None:
        self._reach("accept")
        self.said += 1

    def finished(self) -> bool:
        return False

    def free(self, ahead: Sequence[int]) -> bool:
        return False

    def fork(self) -> Breaks:
        self._reach("fork")
        return Breaks(self.where, self.after, self.error, self.said)


@pytest.mark.parametrize("where", ["allow", "accept"])
@pytest.mark.parametrize(("after", "n"), [(0, 1), (1, 3), (9, 3)])
@pytest.mark.parametrize("kind", [InputError, PanicError])
def test_a_grammar_that_fails_ends_its_answers_alone(where: str, after: int, n: int, kind: type[BaseException]) -> None:
    model = MODELS["chatglm"]()
    asked = prompts("chatglm", 4)
    wanted = said(Engine(model), asked, PARAMS)
    engine = Engine(model)
    others = [engine.submit(prompt, PARAMS) for prompt in asked]
    bad = engine.submit(
        asked[0], SamplingParams(seed=3, n=n, max_new_tokens=25), constraint=Breaks(where, after, kind("no"))
    )
    found: dict[int, list[int]] = {id(request): [] for request in others}
    ended: dict[int, ChatGLMError | None] = {}
    told = dict.fromkeys(range(n), 0)
    for event in events(engine):
        if event.request is bad:
            told[event.index] += len(event.tokens)
            if event.finish is not None:
                assert event.index not in ended
                ended[event.index] = event.error
        else:
            assert event.error is None
            found[id(event.request)] += event.tokens
    assert list(found.values()) == wanted
    assert set(ended) == set(range(n))
    assert all(isinstance(error, InputError if kind is InputError else EngineError) for error in ended.values())
    assert set(told.values()) == {after}
    assert engine.stats().pages_used == 0
    assert engine.stats().restarts == 0


def test_a_grammar_that_cannot_be_copied_is_refused_when_it_is_asked() -> None:
    engine = Engine(MODELS["chatglm"]())
    with pytest.raises(PanicError):
        engine.submit([5, 6], SamplingParams(n=2), constraint=Breaks("fork", 0, PanicError("rust")))
    assert engine.idle
    engine.check()


class Guessing:
    """A proposer that fails at its third call of a kind."""

    free, vocabulary = True, None

    def __init__(self, where: str, error: BaseException) -> None:
        self.where, self.error, self.calls = where, error, 0
        self.lookup = PromptLookup()

    def _reach(self, where: str) -> bool:
        self.calls += where == self.where
        return where == self.where and self.calls >= 3

    def price(self, key: Any, ids: Sequence[int], count: int) -> float:
        return 0.0

    def propose(self, asked: Any) -> list[Guess]:
        if self._reach("propose"):
            raise self.error
        if self._reach("wrong tokens"):
            return [Guess((10**6,) * count) for _, _, count in asked]
        if self._reach("too few"):
            return []
        return self.lookup.propose(asked)

    def forget(self, key: Any) -> None:
        if self._reach("forget"):
            raise self.error
        self.lookup.forget(key)


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("propose", MemoryError()),
        ("propose", PanicError("rust")),
        ("forget", RuntimeError("draft died")),
        ("wrong tokens", None),
        ("too few", None),
    ],
)
def test_who_guesses_may_fail_and_no_answer_does(where: str, error: Any, caplog: pytest.LogCaptureFixture) -> None:
    model = MODELS["chatglm"]()
    asked = [prompt * 3 for prompt in prompts("chatglm", 4)]
    wanted = said(Engine(model, speculate=False), asked, PARAMS)
    engine = Engine(model, speculate=Guessing(where, error))  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        assert said(engine, asked, PARAMS) == wanted
        assert said(engine, asked, PARAMS) == wanted
    assert [record.message[:30] for record in caplog.records] == ["speculative decoding is off fr"]
    assert engine.stats().restarts == 0


def test_a_draft_model_without_memory_is_let_go(caplog: pytest.LogCaptureFixture) -> None:
    model = MODELS["chatglm"]()
    draft = DraftModel(model)

    def fail(*_: Any) -> Any:
        raise MemoryError("no memory for a batch of 9 tokens")

    draft._engine.runner.run = fail  # type: ignore[method-assign]
    engine = Engine(model, speculate=draft)
    asked = prompts("chatglm", 3)
    with caplog.at_level(logging.WARNING):
        assert said(engine, asked, PARAMS) == said(Engine(model, speculate=False), asked, PARAMS)
    assert "no memory for a batch of 9 tokens" in caplog.text
    assert engine._speculator is engine._proposer is None  # so its memory is free


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("half", [False, True])
def test_an_engine_that_failed_begins_again_and_is_right(
    name: str, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a broken run left in the pages, no later answer reads it."""
    model = MODELS[name]()
    asked = prompts(name, 4)
    wanted = said_beside_prefix(Engine(model), asked)
    engine = Engine(model)
    for prompt in asked:
        engine.submit(prompt, PARAMS)
    for _ in range(5):
        engine.step()
    run = engine.runner.run

    def fail(chunks: Any) -> Any:
        if half:
            run(chunks)
        raise MemoryError("no memory for a batch")

    monkeypatch.setattr(engine.runner, "run", fail)
    with pytest.raises(MemoryError):
        engine.step()
    monkeypatch.undo()
    before = engine.stats()
    engine.restart()
    engine.check()
    assert engine.idle
    after = engine.stats()
    assert (after.restarts, after.generated_tokens, after.steps) == (1, before.generated_tokens, before.steps)
    request = engine.submit(asked[0], PARAMS)
    list(events(engine))
    assert request.cached_tokens == 0
    assert said_beside_prefix(engine, asked) == wanted


def said_beside_prefix(engine: Engine, asked: list[list[int]]) -> list[list[int]]:
    requests = [engine.submit(prompt, PARAMS) for prompt in asked]
    found: dict[int, list[int]] = {id(request): [] for request in requests}
    for event in events(engine):
        assert event.error is None
        found[id(event.request)] += event.tokens
    assert engine.stats().pages_used == -(-engine.runner.prefix // 64)
    return list(found.values())
