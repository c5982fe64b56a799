"""Keys and values as integers: the laws of the engine stay, scores hardly move, pages are smaller than float32's."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from running import said
from tiny import chatglm_model, glm_model, glm_prompt

from chatglm.chat.messages import Message
from chatglm.cli import main
from chatglm.engine.engine import Engine
from chatglm.engine.runners import Chunk, NativeRunner, Runner, TorchRunner, runner_for
from chatglm.kernels import native
from chatglm.loading import load_parts
from chatglm.models.native import decoder_of
from chatglm.params import SamplingParams

GREEDY = SamplingParams(temperature=0, max_new_tokens=12)
MODELS = {
    "chatglm": lambda: chatglm_model(kv_channels=16, seq_length=512),
    "every head its own": lambda: chatglm_model(kv_channels=16, multi_query_attention=False, seq_length=512),
    "glm": lambda: glm_model(max_sequence_length=512),
}
needs_library = pytest.mark.skipif(native.library() is None, reason="no native library")


def prompts(name: str) -> list[list[int]]:
    draw = torch.Generator().manual_seed(1)
    made = [torch.randint(5, 140, (count,), generator=draw).tolist() for count in (3, 40, 63, 64, 65, 130)]
    return [glm_prompt(ids) for ids in made] if name == "glm" else made


def runners(model: Any, store: torch.dtype) -> list[Runner]:
    decoder = decoder_of(model, store)
    return [TorchRunner(model, store), *([] if decoder is None else [NativeRunner(model, decoder)])]


def scores(runner: Runner, prompt: list[int]) -> torch.Tensor:
    """Of every token of a prompt, read in two pieces, or at once where it has to be."""
    runner.allocate(4)
    cuts = [0, len(prompt) // 2, len(prompt)] if runner.causal else [0, len(prompt)]
    pieces = itertools.pairwise(cuts)
    return torch.cat([runner.run([Chunk(prompt[:end], start, [2, 0, 1], end - start)]) for start, end in pieces])


@needs_library
@pytest.mark.parametrize(("store", "most", "usual"), [(torch.int8, 0.04, 0.001), (torch.int16, 0.002, 0.0001)])
@pytest.mark.parametrize("name", MODELS)
def test_native_and_torch_store_the_same(name: str, store: torch.dtype, most: float, usual: float) -> None:
    """Both round keys and values alike, the kernels queries and weights as well, to 15 bits; a number just between two
    steps may go either way then.
    """
    model = MODELS[name]()
    on_torch, on_native = runners(model, store)
    for prompt in prompts(name):
        want, got = scores(on_torch, prompt), scores(on_native, prompt)
        assert (got - want).abs().max() <= most * want.abs().max()
        assert (got - want).abs().mean() <= usual * want.abs().max()


@pytest.mark.parametrize(("store", "most"), [(torch.int8, 0.01), (torch.float16, 0.0005), (torch.int16, 0.0002)])
@pytest.mark.parametrize("name", MODELS)
def test_scores_hardly_move(name: str, store: torch.dtype, most: float) -> None:
    model = MODELS[name]()
    for exact, rounded in zip(runners(model, torch.float32), runners(model, store), strict=True):
        for prompt in prompts(name):
            want, got = scores(exact, prompt), scores(rounded, prompt)
            assert 0 < (got - want).abs().mean() <= most * want.abs().max()


@pytest.mark.parametrize("store", [torch.int8, torch.int16])
@pytest.mark.parametrize("name", MODELS)
def test_text_does_not_depend_on_the_batch(name: str, store: torch.dtype) -> None:
    model = MODELS[name]()
    asked = prompts(name)
    alone = [said(Engine(model, store=store), [prompt], GREEDY)[0] for prompt in asked]
    assert said(Engine(model, store=store), asked, GREEDY) == alone
    assert said(Engine(model, store=store, budget=9), asked, GREEDY) == alone
    short = Engine(model, store=store)
    assert said(Engine(model, store=store, memory=5 * short.runner.page_bytes), asked, GREEDY) == alone


@needs_library
def test_what_is_stored_by_default() -> None:
    """differences: integer-cache. The engine and `generate` store the same, so that their texts are."""
    model = MODELS["chatglm"]()
    assert decoder_of(model).store == torch.float32
    half = MODELS["chatglm"]().to(torch.bfloat16)
    assert decoder_of(half).store == native.store_of_two_bytes()
    packed = model.quantize(8)
    cache = packed.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=2, return_dict_in_generate=True).past_key_values
    assert cache.decoder is runner_for(packed).decoder
    assert cache.decoder.store == native.store_of_two_bytes()
    if native.info().variant.startswith("avx"):
        assert cache.decoder.store == torch.int16


def test_pages_are_small() -> None:
    model = chatglm_model(kv_channels=64, hidden_size=64, num_attention_heads=2)
    for exact, rounded in zip(runners(model, torch.float32), runners(model, torch.int8), strict=True):
        assert rounded.page_bytes * 4 * 64 == exact.page_bytes * (64 + 4)  # a scale of four bytes for 64 channels


def test_the_demo_model_says_the_same() -> None:
    parts = load_parts(dtype="float32")
    questions = ["你好", "北京的天气怎么样？", "请重复：苹果、香蕉", "12+7等于几？", "What can you do?"]
    asked = [parts.format.prompt([Message("user", question)]) for question in questions]
    exact, *rounded = (
        said(Engine(parts.model, store=store), asked, GREEDY, stop_ids=parts.format.stop_ids)
        for store in (torch.float32, torch.int8, torch.int16)
    )
    assert rounded == [exact, exact]


@needs_library
@pytest.mark.parametrize(("store", "most"), [(torch.int8, 0.02), (torch.int16, 0.002)])
def test_a_learned_prefix_is_stored_too(store: torch.dtype, most: float) -> None:
    torch.manual_seed(3)
    model = chatglm_model(kv_channels=16, seq_length=512, pre_seq_len=70)
    for parameter in model.transformer.prefix_encoder.parameters():
        parameter.data.normal_()
    found = []
    for runner in runners(model, store):
        runner.allocate(4)
        runner.write_prefix([2, 0])
        found.append(runner.run([Chunk(prompts("chatglm")[1], 0, [2, 0, 1], 5)]))
    assert isinstance(runner_for(model, store), NativeRunner)
    assert (found[0] - found[1]).abs().max() <= most * found[0].abs().max()


def test_commands_take_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "你好", "--kv-cache", "int8", "--kv-memory", "0.05"]) == 0
    assert "演示模型" in capsys.readouterr().out
    assert main(["chat", "你好", "--kv-memory", "0"]) != 0
    assert "--kv-memory 0: must be more than 0 GiB" in capsys.readouterr().err
    assert main(["chat", "你好", "--remote", "http://127.0.0.1:9/v1", "--kv-cache", "int8"]) != 0
    assert "--kv-cache cannot be used with --remote" in capsys.readouterr().err
