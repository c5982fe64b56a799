"""Greedy text of a request alone = in a full batch = in pieces = after preemption = found in memory = with speculation
= through `generate`: for the demo model and for the tiny official models, on the native decoder and on torch, with and
without quantisation.

On the native decoder that is so to the bit. Torch sums in an order that depends on the shapes: there it is so as long
as no two scores are equal but for the last bits, and where inputs are not rounded to int8 in between, which makes a
step out of the last bit; so the native linear layers are left out, too (under torch's attention they are met with
adapters only).
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
from running import generated, said
from test_parity import RECORDS, model_of
from tiny import draw

from chatglm.chat.messages import Message
from chatglm.engine.draft import DraftModel
from chatglm.engine.engine import Engine
from chatglm.engine.runners import NativeRunner, TorchRunner
from chatglm.kernels import native
from chatglm.loading import load_parts
from chatglm.models.chatglm import ChatGLMForConditionalGeneration
from chatglm.models.configuration import ChatGLMConfig
from chatglm.params import SamplingParams

NEW = 8
GREEDY = SamplingParams(temperature=0, max_new_tokens=NEW)
PAGE = 64


def demo() -> tuple[Any, list[list[int]]]:
    parts = load_parts(dtype="float32")
    told = "从前有一座山，山里有一座庙。" * 6
    questions = ["你好", "北京的天气怎么样？", f"请重复：{told}", f"这个故事讲了什么？{told}", "1+1等于几？"]
    return parts.model, [parts.format.prompt([Message("user", question)]) for question in questions]


def prompts_below(vocabulary: int) -> list[list[int]]:
    chosen = random.Random(vocabulary)
    return [[chosen.randrange(10, vocabulary) for _ in range(count)] for count in (2, 20, 65, 90, 140)]


def recorded(version: str) -> tuple[Any, list[list[int]]]:
    config, prompts = RECORDS[version]["config"], prompts_below(64000)
    if version == "chatglm":
        prompts = [[*prompt, config["gmask_token_id"], config["bos_token_id"]] for prompt in prompts]
    return copy.deepcopy(model_of(version)), prompts


def wide() -> tuple[Any, list[list[int]]]:
    """GLM-4 with heads that the native decoder takes, too."""
    config = {**RECORDS["glm4"]["config"], "kv_channels": 16, "padded_vocab_size": 1000}
    return draw(ChatGLMForConditionalGeneration(ChatGLMConfig.from_dict(config))), prompts_below(1000)


MODELS: dict[str, Callable[[], tuple[Any, list[list[int]]]]] = {"demo": demo} | {
    version: lambda version=version: recorded(version) for version in RECORDS
}
MODELS["glm4, wider"] = wide
CASES = [(name, runner) for name in MODELS for runner in ("native", "torch") if (name, runner) != ("glm4", "native")]


@pytest.mark.parametrize("bits", [None, 8, 4])
@pytest.mark.parametrize(("name", "runner"), CASES)
def test_greedy_text_is_one_and_the_same(
    name: str, runner: str, bits: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if runner == "torch":
        monkeypatch.setenv("CHATGLM_KERNELS", "reference")
    elif native.library() is None:
        pytest.skip(f"no native kernels: {native.info().reason}")
    model, prompts = MODELS[name]()
    if bits:
        model = model.quantize(bits)
    wanted = [generated(model, prompt, NEW) for prompt in prompts]

    plain = Engine(model, speculate=False)
    assert type(plain.runner) is (TorchRunner if runner == "torch" else NativeRunner)
    for prompt, text in zip(prompts, wanted, strict=True):
        assert said(plain, [prompt], GREEDY) == [text]
    assert said(plain, prompts, GREEDY) == wanted  # again: what was read is found
    assert plain.stats().cached_tokens > 2 * PAGE
    page = plain.runner.page_bytes
    del plain

    batch = Engine(model, speculate=False)
    assert said(batch, prompts, GREEDY) == wanted
    pieces = Engine(model, speculate=False, budget=9, max_running=8)
    assert said(pieces, prompts, GREEDY) == wanted
    # Both fill their page, and there is but one more.
    short = Engine(model, speculate=False, memory=3 * page)
    nearly = [[*prompt[: PAGE - 6], *prompt[-2:]] for prompt in sorted(prompts, key=len)[-2:]]
    assert said(short, nearly, GREEDY) == [generated(model, prompt, NEW) for prompt in nearly]
    assert short.stats().preemptions > 0

    guesses = Engine(model, speculate=DraftModel(model))
    assert guesses._speculator is not None
    guesses._speculator._cost = lambda rows: 1e3 + rows  # steps are slow: whether it pays is not the question here
    assert said(guesses, prompts, GREEDY) == wanted
    assert guesses.stats().accepted_tokens > NEW
