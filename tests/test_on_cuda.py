"""The package on a CUDA device: every generation, the official methods, the engine, training, the command line.

    CHATGLM_TEST_DEVICE=cpu pytest tests/test_on_cuda.py    # do these tests work? says nothing about a card

In float32 what comes is what was recorded of the official code, and what a CPU gives.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from running import events, said
from tiny import chatglm_model, glm_model, glm_prompt
from torch import Tensor
from transformers import GlmConfig, GlmForCausalLM, LlamaConfig, LlamaForCausalLM, StaticCache

from chatglm import AutoConfig, AutoModel, AutoModelForSequenceClassification, load
from chatglm.chat.messages import Message
from chatglm.engine.constraint import Grammars
from chatglm.engine.draft import DraftModel
from chatglm.engine.engine import Engine
from chatglm.engine.runners import TorchRunner
from chatglm.loading import load_parts
from chatglm.params import SamplingParams
from chatglm.quantization.linear import QuantizedLinear
from conftest import VERSIONS, Golden
from tiny_encoders import make_reranker, make_sentence

DEVICE = os.environ.get("CHATGLM_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),  # the compiler's
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no CUDA device"),
]
HALVES = (torch.float16, torch.bfloat16)
FILES = {"glm4": "golden_withchat.json"}
GREEDY = SamplingParams(temperature=0, max_new_tokens=12)
COMMAND = shutil.which("chatglm", path=str(Path(sys.executable).parent)) or "chatglm"


@pytest.fixture(scope="module")
def there(checkpoint: Callable[[str], Path]) -> Callable[[str], tuple[Any, Any]]:
    """`there("chatglm3")` is (model in float32 on the device, tokenizer)."""
    made: dict[str, tuple[Any, Any]] = {}

    def get(version: str) -> tuple[Any, Any]:
        if version not in made:
            parts = load_parts(checkpoint(version), device=DEVICE, dtype=torch.float32)
            assert {p.device.type for p in parts.model.parameters()} == {DEVICE}
            made[version] = parts.model, parts.tokenizer
        return made[version]

    return get


def inputs_of(record: dict[str, Any], device: str = DEVICE) -> dict[str, Tensor]:
    made = {name: torch.tensor(value, device=device) for name, value in record.items()}
    if (mask := made.get("attention_mask")) is not None and mask.ndim == 4:
        made["attention_mask"] = mask.bool()
    return made


def off(actual: Tensor, wanted: Tensor) -> float:
    """‖actual − wanted‖ / ‖wanted‖."""
    actual, wanted = actual.double().cpu(), wanted.double().cpu()
    return float((actual - wanted).norm() / wanted.norm())


# Models


@pytest.mark.parametrize("version", VERSIONS)
@torch.no_grad()
def test_scores_and_greedy_text_as_recorded(version: str, golden: Callable[..., Golden], there: Any) -> None:
    g, (model, _) = golden(version), there(version)
    for number, record in enumerate(g["model"]["prompts"]):
        inputs = inputs_of(record["inputs"])
        got = model(**inputs).logits.cpu()
        torch.testing.assert_close(got[..., g.columns], g.tensor(f"prompt{number}.logits.cols"), atol=5e-4, rtol=0)
        made = model.generate(**inputs, max_new_tokens=32, do_sample=False, eos_token_id=None)
        wanted = g["generation"]["greedy32"][number]["new_tokens"]
        assert made[0, inputs["input_ids"].shape[1] :].tolist() == wanted


@pytest.mark.parametrize("version", VERSIONS)
def test_beams_and_penalties_as_recorded(version: str, golden: Callable[..., Golden], there: Any) -> None:
    g, (model, _) = golden(version), there(version)
    inputs = inputs_of(g["model"]["prompts"][1]["inputs"])
    start = inputs["input_ids"].shape[1]
    options: dict[str, Any] = {"do_sample": False, "eos_token_id": None, "max_new_tokens": 16}
    wanted = g["generation"]["repetition_penalty_1.2"]
    assert model.generate(**inputs, **options, repetition_penalty=1.2)[:, start:].tolist() == [wanted]
    wanted = g["generation"]["beams3"][1]["new_tokens"]
    assert model.generate(**inputs, **options, num_beams=3)[:, start:].tolist() == wanted


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("version", VERSIONS)
@torch.no_grad()
def test_half_precision(version: str, dtype: torch.dtype, golden: Any, checkpoint: Any) -> None:
    """The official one-liner: what 16 bits lose, and no more; and it writes."""
    model = AutoModel.from_pretrained(checkpoint(version), trust_remote_code=True)
    model = (model.half() if dtype == torch.float16 else model.bfloat16()).to(DEVICE).eval()
    exact = copy.deepcopy(model).float().cpu()
    for record in golden(version)["model"]["prompts"]:
        inputs = inputs_of(record["inputs"])
        got = model(**inputs).logits
        assert got.dtype == dtype
        assert off(got, exact(**inputs_of(record["inputs"], "cpu")).logits) < (0.02 if dtype == HALVES[0] else 0.15)
        made = model.generate(**inputs, max_new_tokens=8, do_sample=False, eos_token_id=None)
        assert made.shape[1] == inputs["input_ids"].shape[1] + 8


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("version", VERSIONS)
@torch.no_grad()
def test_quantised(version: str, bits: int, golden: Any, checkpoint: Any) -> None:
    """The same integers, wherever they are made; scores as of the numbers that they stand for."""
    on_cpu = AutoModel.from_pretrained(checkpoint(version)).half().quantize(bits)
    there = AutoModel.from_pretrained(checkpoint(version)).half().to(DEVICE).quantize(bits).eval()
    moved = copy.deepcopy(on_cpu).to(DEVICE).eval()
    plain = copy.deepcopy(on_cpu).float()
    for (path, one), other, last in zip(on_cpu.named_modules(), moved.modules(), there.modules(), strict=True):
        if isinstance(one, QuantizedLinear):
            assert torch.equal(one.weight, other.weight.cpu())
            assert torch.equal(one.weight, last.weight.cpu())
            assert torch.equal(one.weight_scale, last.weight_scale.cpu())
            parent, _, name = path.rpartition(".")
            setattr(plain.get_submodule(parent), name, one.to_linear(torch.float32))
    for record in golden(version)["model"]["prompts"]:
        wanted = plain(**inputs_of(record["inputs"], "cpu")).logits
        got = moved(**inputs_of(record["inputs"])).logits
        assert off(got, wanted) < 0.08
        assert off(there(**inputs_of(record["inputs"])).logits, wanted) < 0.08
        assert off(copy.deepcopy(moved).float()(**inputs_of(record["inputs"])).logits, wanted) < 1e-4
    ids = inputs_of(record["inputs"])
    assert moved.generate(**ids, max_new_tokens=8, do_sample=False, eos_token_id=None).shape[0] == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_chat_as_recorded(version: str, golden: Callable[..., Golden], there: Any) -> None:
    model, tokenizer = there(version)
    pairs = version in ("chatglm", "chatglm2")
    records = golden(version, FILES.get(version, "golden.json"))["generation"]["chat"]
    for record in [r for r in records if "max_length" in r]:
        history = [tuple(pair) for pair in record["history"]] if pairs else record["history"]
        options = {"history": history, "max_length": record["max_length"], "do_sample": False}
        answer = model.chat(tokenizer, record["query"], num_beams=record["num_beams"], **options)
        if pairs:
            assert answer[0] == record["out"]["response"]
        if record["num_beams"] == 1:
            assert list(model.stream_chat(tokenizer, record["query"], **options))[-1] == answer


@pytest.mark.parametrize("quantised", [0, 4])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_dialogue_with_a_cache_is_the_one_without(version: str, quantised: int, checkpoint: Any) -> None:
    model, tokenizer, _ = load_parts(checkpoint(version), dtype=torch.float32)
    model = (model.quantize(quantised) if quantised else model).to(DEVICE)
    history: list[Any] = []
    cache = None
    for query in ("你好", "晚上睡不着应该怎么办"):
        options = {"history": history, "do_sample": False, "max_new_tokens": 12}
        plain = list(model.stream_chat(tokenizer, query, **options))
        if version == "chatglm":
            history = plain[-1][1]
            continue
        steps = list(model.stream_chat(tokenizer, query, past_key_values=cache, return_past_key_values=True, **options))
        assert [step[:2] for step in steps] == plain
        _, history, cache = steps[-1]
        assert cache.get_seq_length() == len(cache.token_ids) > 0


@pytest.mark.parametrize("version", VERSIONS)
def test_ids_on_the_cpu_are_taken_to_the_model(version: str, golden: Any, there: Any) -> None:
    inputs = inputs_of(golden(version)["model"]["prompts"][0]["inputs"], "cpu")
    options: dict[str, Any] = {"do_sample": False, "eos_token_id": None, "max_new_tokens": 8}
    *_, last = there(version)[0].stream_generate(**inputs, **options)
    wanted = golden(version)["generation"]["greedy32"][0]["new_tokens"][:8]
    assert last[0, inputs["input_ids"].shape[1] :].tolist() == wanted


@pytest.mark.parametrize("version", VERSIONS)
def test_sampled_text_is_a_function_of_the_seed(version: str, there: Any) -> None:
    model, tokenizer = there(version)
    made = []
    for _ in range(2):
        torch.manual_seed(5)
        made.append(model.chat(tokenizer, "你好", max_new_tokens=12)[0])
        made.append(list(model.stream_chat(tokenizer, "你好", max_new_tokens=4, top_p=0.7, temperature=0.9))[-1][0])
    assert made[:2] == made[2:]


@pytest.mark.parametrize("version", VERSIONS)
def test_ways_to_generate(version: str, there: Any, golden: Any) -> None:
    model, tokenizer = there(version)
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": 12}
    expected = model.chat(tokenizer, "你好你好你好", **options)
    assert model.chat(tokenizer, "你好你好你好", prompt_lookup_num_tokens=3, **options) == expected
    assert (
        model.chat(tokenizer, "你好你好你好", cache_implementation="static", disable_compile=True, **options)
        == expected
    )
    assert model.chat(tokenizer, "你好你好你好", use_cache=False, **options) == expected
    batch = tokenizer(["你好", "请介绍一下北京的历史"], return_tensors="pt", padding=True).to(DEVICE)
    made = model.generate(**batch, **options, eos_token_id=None, pad_token_id=0)
    for row, text in enumerate(("你好", "请介绍一下北京的历史")):
        one = tokenizer([text], return_tensors="pt").to(DEVICE)
        alone = model.generate(**one, **options, eos_token_id=None, pad_token_id=0)[0, one["input_ids"].shape[1] :]
        assert torch.equal(made[row, batch["input_ids"].shape[1] :], alone)


def test_no_attention_is_planned_anew_for_every_token() -> None:
    """cuDNN's, which torch prefers on Hopper, takes 30 ms for each number of keys that it has not met."""
    from torch.profiler import ProfilerActivity, profile

    model = chatglm_model(kv_channels=64, num_attention_heads=4, hidden_size=64).half().to(DEVICE)
    ids = torch.tensor([[5, 6, 7, 8, 9]], device=DEVICE)
    with torch.no_grad():
        cache = model(input_ids=ids).past_key_values
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            model(input_ids=ids[:, :1], past_key_values=cache)
    names = {event.key for event in seen.key_averages()}
    assert any("scaled_dot_product" in name for name in names)
    assert not any("cudnn_attention" in name for name in names)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("version", VERSIONS)
@torch.no_grad()
def test_attention_implementations(version: str, attention: str, checkpoint: Any, golden: Any) -> None:
    g = golden(version)
    model = AutoModel.from_pretrained(
        checkpoint(version), device=DEVICE, dtype=torch.float32, attn_implementation=attention
    ).eval()
    got = model(**inputs_of(g["model"]["prompts"][1]["inputs"])).logits.cpu()
    torch.testing.assert_close(got[..., g.columns], g.tensor("prompt1.logits.cols"), atol=5e-4, rtol=0)


@pytest.mark.parametrize("version", ["chatglm2", "chatglm3"])
def test_a_prefix(version: str, checkpoint: Any) -> None:
    config = AutoConfig.from_pretrained(checkpoint(version), pre_seq_len=4)
    torch.manual_seed(0)
    model = AutoModel.from_pretrained(checkpoint(version), config=config).float().eval()
    torch.nn.init.normal_(model.transformer.prefix_encoder.embedding.weight)
    tokenizer = load_parts(checkpoint(version)).tokenizer
    options = {"do_sample": False, "max_new_tokens": 6}
    wanted = model.chat(tokenizer, "你好", **options)
    model = model.to(DEVICE)
    assert model.chat(tokenizer, "你好", **options) == wanted
    assert model.half().chat(tokenizer, "你好", **options)


@pytest.mark.parametrize("kind", ["chatglm", "glm"])
def test_a_prefix_on_the_engine(kind: str) -> None:
    """Of a length that ends inside of a page."""
    model = (
        glm_model(max_sequence_length=512, pre_seq_len=70)
        if kind == "glm"
        else chatglm_model(kv_channels=16, seq_length=512, pre_seq_len=70)
    )
    model, asked = model.to(DEVICE), prompts(kind)[:3]
    engine = Engine(model)
    engine.runner = TorchRunner(model)
    engine.runner.allocate(engine._pages)
    engine.restart()
    requests = [engine.submit(prompt, GREEDY) for prompt in asked]
    texts: dict[int, list[int]] = {}
    for event in events(engine):
        texts.setdefault(requests.index(event.request), []).extend(event.tokens)
    assert [texts[n] for n in range(3)] == [generated(model, prompt) for prompt in asked]


@torch.no_grad()
def test_classification(tmp_path: Path) -> None:
    from tiny import chatglm_config, draw

    from chatglm.models.chatglm import ChatGLMForSequenceClassification

    model = draw(ChatGLMForSequenceClassification(chatglm_config(num_labels=3)))
    ids = torch.tensor([[5, 6, 7, 8], [9, 8, 7, 6]])
    wanted = model(input_ids=ids).logits
    model.save_pretrained(tmp_path)
    there = AutoModelForSequenceClassification.from_pretrained(tmp_path, device_map=DEVICE)
    torch.testing.assert_close(there(input_ids=ids.to(DEVICE)).logits.cpu(), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["chatglm3", "glm"])
@torch.no_grad()
def test_a_compiled_step(kind: str) -> None:
    """A whole graph over a static cache, in the mode that records CUDA graphs."""
    model = (glm_model if kind == "glm" else chatglm_model)().to(DEVICE)
    ids = torch.tensor([glm_prompt([5, 6, 7]) if kind == "glm" else [5, 6, 7, 8, 9]], device=DEVICE)
    options: dict[str, Any] = {"mode": "reduce-overhead"} if DEVICE == "cuda" else {"backend": "aot_eager"}
    step = torch.compile(model, fullgraph=True, **options)
    scores = []
    for run in (model, step):
        cache = StaticCache(config=model.config, max_cache_len=32)
        model(input_ids=ids, past_key_values=cache)
        for number in range(5):
            fed = torch.full((1, 1), 20 + number, device=DEVICE)
            where = torch.full((1, 1), ids.shape[1] + number, device=DEVICE)
            if kind == "glm":
                where = torch.stack((torch.full_like(where, 3), torch.full_like(where, 2 + number)), dim=1)
            torch.compiler.cudagraph_mark_step_begin()
            scores.append(run(input_ids=fed, position_ids=where, past_key_values=cache).logits.clone())
    for eager, compiled in zip(scores[:5], scores[5:], strict=True):
        assert off(compiled, eager) < 1e-3


# The engine


def llama() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=160, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.5,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def native_glm() -> Any:
    torch.manual_seed(0)
    config = GlmConfig(
        vocab_size=160, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=512, initializer_range=0.5, pad_token_id=0,
        eos_token_id=2,
    )  # fmt: skip
    return GlmForCausalLM(config).eval()


MODELS: dict[str, Callable[[], Any]] = {
    "chatglm": lambda: chatglm_model(kv_channels=16, seq_length=512),
    "every head its own": lambda: chatglm_model(kv_channels=16, multi_query_attention=False, seq_length=512),
    "glm": lambda: glm_model(max_sequence_length=512),
    "int4": lambda: chatglm_model(kv_channels=16, seq_length=512).quantize(4),
    "int8": lambda: chatglm_model(kv_channels=16, seq_length=512).quantize(8, group_size=32),
    "llama": llama,
    "transformers' glm": native_glm,
}


def prompts(name: str) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    made = [torch.randint(5, 140, (n,), generator=generator).tolist() for n in (2, 20, 65, 90, 140, 31, 7)]
    return [glm_prompt(ids) for ids in made] if name == "glm" else made


def generated(model: Any, prompt: list[int], count: int = 12) -> list[int]:
    ids = torch.tensor([prompt], device=DEVICE)
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, min_new_tokens=count,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    found: list[int] = out[0, len(prompt) :].tolist()
    return found


def on_torch(model: Any, **options: Any) -> Engine:
    """An engine that never takes the native decoder, also where these tests are tried on a CPU."""
    engine = Engine(model, adaptable=True, **options)
    assert isinstance(engine.runner, TorchRunner)
    return engine


@pytest.mark.parametrize("name", MODELS)
def test_the_engine_s_text_is_that_of_generate(name: str) -> None:
    """Alone, in a batch, read in pieces, preempted, found in memory, with guesses."""
    model, asked = MODELS[name]().to(DEVICE), prompts(name)
    wanted = [generated(model, prompt) for prompt in asked]
    assert [said(on_torch(model), [prompt], GREEDY)[0] for prompt in asked] == wanted
    engine = on_torch(model, speculate=False)
    assert said(engine, asked, GREEDY) == wanted
    assert said(engine, asked, GREEDY) == wanted
    assert engine.stats().cached_tokens > 0
    page = engine.runner.page_bytes
    for options in ({"budget": 32, "max_running": 8}, {"memory": 6 * page}, {"speculate": True}):
        assert said(on_torch(model, **options), asked, GREEDY) == wanted, options
    draft = DraftModel(MODELS[name]().to(DEVICE))
    assert said(on_torch(model, speculate=draft), asked, GREEDY) == wanted


@pytest.mark.parametrize("name", ["chatglm", "glm", "int4"])
def test_the_engine_chooses_as_on_a_cpu(name: str) -> None:
    """Every option of sampling; seeds do not depend on the device."""
    model, asked = MODELS[name](), prompts(name)[:4]
    options: list[dict[str, Any]] = [
        {"temperature": 0.9},
        {"top_k": 5},
        {"top_p": 0.8, "min_p": 0.02},
        {"temperature": 0, "repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.2},
        {"temperature": 0, "logit_bias": {9: 4.0, 10: -100.0}, "bad_words_ids": ((11,), (12, 13)), "min_new_tokens": 5},
        {"temperature": 0.7, "n": 3},
    ]
    engines = [on_torch(model.to("cpu")), on_torch(copy.deepcopy(model).to(DEVICE))]
    for option in options:
        params = SamplingParams(seed=11, max_new_tokens=8, logprobs=3, prompt_logprobs=2, **option)
        found: list[dict[tuple[int, int], list[Any]]] = []
        for engine in engines:
            requests = [engine.submit(prompt, params) for prompt in asked]
            draws: dict[tuple[int, int], list[Any]] = {}
            for event in events(engine):
                assert event.error is None, event.error
                draws.setdefault((requests.index(event.request), event.index), []).extend(event.logprobs)
            found.append(draws)
        here, there = found
        assert here.keys() == there.keys()
        for key, wanted in here.items():
            assert [d.token for d in there[key]] == [d.token for d in wanted], option
            assert [d.logprob for d in there[key]] == pytest.approx([d.logprob for d in wanted], abs=2e-3)


@pytest.mark.parametrize("store", [torch.int8, torch.int16, torch.float16, torch.bfloat16], ids=str)
def test_a_small_store(store: torch.dtype) -> None:
    model, asked = MODELS["chatglm"]().to(DEVICE), prompts("chatglm")
    alone = [said(on_torch(model, store=store), [prompt], GREEDY)[0] for prompt in asked]
    together = said(on_torch(model, store=store, memory=1 << 20), asked, GREEDY)
    assert sum(a == b for a, b in zip(alone, together, strict=True)) >= 6


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_engine_in_half_precision(version: str, dtype: torch.dtype, checkpoint: Any) -> None:
    parts = load_parts(checkpoint(version), dtype=dtype, device=DEVICE)
    engine = on_torch(parts.model)
    asked = [parts.format.prompt([Message("user", text)]) for text in ("你好", "北京的天气怎么样？" * 9, "1+1")]
    texts = said(engine, asked, GREEDY)
    assert [len(text) for text in texts] == [12] * 3
    # Of the last bits of 16 some choices hang.
    alone = [said(on_torch(parts.model), [prompt], GREEDY)[0] for prompt in asked]
    assert sum(a[0] == b[0] for a, b in zip(texts, alone, strict=True)) >= 2


@pytest.mark.skipif(DEVICE == "cpu", reason="no CUDA device")
def test_steps_become_graphs() -> None:
    model = MODELS["chatglm"]().to(DEVICE)
    engine = on_torch(model)
    assert isinstance(engine.runner, TorchRunner)
    wanted = [generated(model, prompt, 40) for prompt in prompts("chatglm")[:3]]
    for _ in range(2):
        assert said(engine, prompts("chatglm")[:3], SamplingParams(temperature=0, max_new_tokens=40)) == wanted
    assert engine.runner._graphs is not None
    assert sum(graph is not None for graph in engine.runner._graphs._seen.values()) >= 2
    assert not engine.runner._graphs._off


def test_abort_frees_everything() -> None:
    model = MODELS["chatglm"]().to(DEVICE)
    engine = on_torch(model)
    requests = [engine.submit(prompt, SamplingParams(temperature=0, max_new_tokens=60)) for prompt in prompts("x")]
    for _ in range(5):
        engine.step()
    for request in requests:
        engine.abort(request)
    assert engine.idle
    assert engine.stats().pages_used == 0
    assert said(engine, prompts("x")[:1], GREEDY)[0] == generated(model, prompts("x")[0])


def test_scores_that_are_not_finite_end_one_request_only() -> None:
    model = MODELS["chatglm"]().to(DEVICE)
    with torch.no_grad():
        model.get_input_embeddings().weight[77] = float("nan")
    engine = on_torch(model)
    bad, good = engine.submit([5, 77, 6], GREEDY), engine.submit([5, 6, 7], GREEDY)
    seen = list(events(engine))
    assert [event.finish for event in seen if event.request is bad] == ["error"]
    assert sum(len(event.tokens) for event in seen if event.request is good) == 12


@pytest.mark.parametrize("bits", [0, 4])
def test_adapters_by_request(bits: int) -> None:
    from peft import LoraConfig, get_peft_model

    model = MODELS["chatglm"]()
    model = model.quantize(bits) if bits else model
    config = LoraConfig(r=4, lora_alpha=64, target_modules=["query_key_value"], init_lora_weights=False)
    model = get_peft_model(model, config, adapter_name="one")
    model.add_adapter("two", config)
    torch.manual_seed(1)
    for key, parameter in model.named_parameters():
        if "lora" in key:
            parameter.data.normal_(0, 0.5)
    model = model.eval().to(DEVICE)
    prompt = prompts("chatglm")[2]
    engine = Engine(model)
    requests = [engine.submit(prompt, GREEDY, adapter=name) for name in (None, "one", "two", "one")]
    texts: dict[int, list[int]] = {}
    for event in events(engine):
        texts.setdefault(requests.index(event.request), []).extend(event.tokens)
    expected = {}
    with model.disable_adapter():
        expected[None] = generated(model, prompt)
    for name in ("one", "two"):
        model.set_adapter(name)
        expected[name] = generated(model, prompt)
    assert [texts[n] for n in range(4)] == [expected[name] for name in (None, "one", "two", "one")]
    assert len({tuple(text) for text in expected.values()}) == 3


@pytest.mark.parametrize("version", VERSIONS)
def test_constrained_text(version: str, checkpoint: Any) -> None:
    parts = load_parts(checkpoint(version), dtype=torch.float32, device=DEVICE)
    stops = parts.format.stop_ids
    tokens = [parts.tokenizer.token_bytes(n) for n in range(len(parts.tokenizer))]
    grammars = Grammars(tokens, stops)
    schema = {"type": "object", "properties": {"a": {"enum": ["北京", "上海"]}, "n": {"enum": [1, 2]}},
              "required": ["a", "n"], "additionalProperties": False}  # fmt: skip
    engine = on_torch(parts.model)
    prompt = parts.format.prompt([Message("user", "你好")])
    asked = [
        engine.submit(
            prompt, SamplingParams(temperature=1, seed=n, max_new_tokens=200), stop_ids=stops,
            constraint=grammars.json_schema(schema),
        )
        for n in range(3)
    ]  # fmt: skip
    texts: dict[int, list[int]] = {}
    for event in events(engine):
        assert event.error is None, event.error
        texts.setdefault(asked.index(event.request), []).extend(event.tokens)
    for text in texts.values():
        assert text[-1] in stops
        found = json.loads(b"".join(tokens[token] for token in text[:-1]))
        assert set(found) == {"a", "n"}


# The assistant, the server and the commands


@pytest.mark.parametrize("options", [{}, {"dtype": "float16"}, {"dtype": "bfloat16", "store": torch.int8}], ids=str)
@pytest.mark.parametrize("version", VERSIONS)
def test_an_assistant(version: str, options: dict[str, Any], checkpoint: Any) -> None:
    params = {"max_new_tokens": 16, "temperature": 0}
    with load(checkpoint(version), device=DEVICE, **{"dtype": "float32", **options}) as assistant:
        assert {weight.device.type for weight in assistant.model.parameters()} == {DEVICE}
        answer = assistant.reply("你好", params=params)
        parts = list(assistant.stream([{"role": "user", "content": "你好"}], params=params))
        assert parts

        async def several() -> list[Any]:
            return await asyncio.gather(*(assistant.areply("你好", params=params) for _ in range(5)))

        answers = asyncio.run(several())
        if not options:
            assert all(other.content == answer.content for other in answers)


def test_the_demo_model_answers(checkpoint: Any) -> None:
    with load(device=DEVICE, dtype="float32") as assistant, load(device="cpu", dtype="float32", adaptable=True) as here:
        for question in ("你好", "你是谁？"):
            params = {"max_new_tokens": 24, "temperature": 0}
            assert assistant.reply(question, params=params).content == here.reply(question, params=params).content


def test_encoders(tmp_path: Path) -> None:
    from chatglm.encoders.embedder import Embedder
    from chatglm.encoders.reranker import Reranker

    texts = ["你好世界", "北京是中国的首都", "hello"]

    async def ask(device: str, dtype: str) -> tuple[Tensor, Tensor]:
        embedder = Embedder.load(tmp_path / "sentence", device=device, dtype=dtype)
        reranker = Reranker.load(tmp_path / "reranker", device=device, dtype=dtype)
        try:
            vectors = await embedder.embed(texts)
            scores = await reranker.score("你好", texts)
        finally:
            embedder.close()
            reranker.close()
        return torch.tensor([list(v) for v in vectors.vectors]), torch.tensor(list(scores.values))

    make_sentence(tmp_path / "sentence")
    make_reranker(tmp_path / "reranker")
    here, there = asyncio.run(ask("cpu", "float32")), asyncio.run(ask(DEVICE, "float32"))
    for one, other in zip(here, there, strict=True):
        assert off(other, one) < 1e-4
    half = asyncio.run(ask(DEVICE, "auto"))
    assert off(half[0], here[0]) < 0.05


def command(*arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [COMMAND, *arguments], capture_output=True, text=True, timeout=300, env={**os.environ, **variables}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_info() -> None:
    about = json.loads(command("info", "--json"))
    if DEVICE == "cuda":
        assert about["cuda"] == [torch.cuda.get_device_name()]
        assert about["cuda kernels"] == "triton", about["cuda selected because"]


def test_bench_chat_and_batch(checkpoint: Any, tmp_path: Path) -> None:
    folder = str(checkpoint("chatglm3"))
    there = ("--model", folder, "--device", DEVICE)
    report = json.loads(
        command("bench", *there, "--concurrency", "1,4", "--requests", "4", "--max-new-tokens", "8", "--json")
    )
    assert [level["concurrency"] for level in report["levels"]] == [1, 4]
    assert all(not level["failures"] for level in report["levels"])
    asked = tmp_path / "in.jsonl"
    body = {"model": "x", "messages": [{"role": "user", "content": "你好"}], "max_tokens": 6, "temperature": 0}
    lines = [{"custom_id": str(n), "method": "POST", "url": "/v1/chat/completions", "body": body} for n in range(5)]
    asked.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    command("batch", str(asked), str(tmp_path / "out.jsonl"), *there)
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert [answer["response"]["status_code"] for answer in answers] == [200] * 5


def test_quantize_command(checkpoint: Any, tmp_path: Path) -> None:
    """GPTQ on the device; the folder answers there."""
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps(dialogue(TURNS), ensure_ascii=False) + "\n" for _ in range(4)), "utf-8")
    command(
        "quantize", str(checkpoint("chatglm3")), "--output", str(tmp_path / "out"), "--bits", "4",
        "--group-size", "32", "--method", "gptq", "--calibration", str(texts), "--device", DEVICE,
    )  # fmt: skip
    model, tokenizer, _ = load_parts(tmp_path / "out", device=DEVICE)
    assert model.chat(tokenizer, "你好", max_new_tokens=4)[1]


@pytest.fixture
def url(checkpoint: Any) -> Iterator[str]:
    process = subprocess.Popen(
        [COMMAND, "serve", "--port", "0", "--model", str(checkpoint("chatglm3")), "--name", "glm", "--device", DEVICE],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stderr is not None
    try:
        heard = ""
        while not (found := re.search(r"running on (http://\S+)", heard)):
            line = process.stderr.readline()
            assert line, heard
            heard += line
        yield found[1]
    finally:
        process.kill()
        process.stderr.close()
        process.wait()


def test_serve(url: str) -> None:
    import httpx

    asked: dict[str, Any] = {"model": "glm", "messages": [{"role": "user", "content": "你好"}], "max_tokens": 20}
    with httpx.Client(base_url=url, timeout=120) as client:
        first = client.post("/v1/chat/completions", json={**asked, "temperature": 0}).json()
        assert first["usage"]["completion_tokens"] > 0
        lines = client.post("/v1/chat/completions", json={**asked, "temperature": 0, "stream": True}).text
        assert "data: [DONE]" in lines
        told = "".join(
            json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
            for line in lines.splitlines()
            if line.startswith("data: {") and json.loads(line[6:])["choices"]
        )
        assert told == (first["choices"][0]["message"]["content"] or "")
        schema = {"type": "array", "items": {"enum": [1, 2]}, "minItems": 1, "maxItems": 3}
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        held = client.post("/v1/chat/completions", json={**asked, "max_tokens": 100, "response_format": form}).json()
        assert set(json.loads(held["choices"][0]["message"]["content"])) <= {1, 2}
        text = client.post(
            "/v1/completions", json={"model": "glm", "prompt": "你好", "max_tokens": 5, "logprobs": 2, "n": 2}
        ).json()
        assert len(text["choices"]) == 2
        assert "chatglm_" in client.get("/metrics").text


# Training


TURNS = [("你是谁？", "我是小智。"), ("几岁了？", "三岁啦！"), ("再见", "下次聊。")]


def tuned(model: Path, folder: Path, method: str, rows: list[Any], resume: bool = False, **changes: Any) -> Any:
    from chatglm.training.finetune import finetune
    from chatglm.training.settings import Settings

    folder.mkdir(exist_ok=True)
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    arguments = {
        "output_dir": str(folder / "out"),
        "use_cpu": DEVICE == "cpu",
        "report_to": "none",
        "max_steps": 40,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "warmup_steps": 0,
        **changes.pop("training_args", {}),
    }
    tree = {"model": str(model), "method": method, "max_length": 128, "training_args": arguments, **changes}
    settings = Settings.from_dict({**tree, "data_config": {"train_file": str(data)}})
    return finetune(settings, resume=resume, say=lambda line: None)


def dialogue(turns: list[tuple[str, str]]) -> dict[str, Any]:
    return {"conversation": [{"human": question, "assistant": answer} for question, answer in turns]}


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(
    ("version", "method"),
    [*((version, "full") for version in VERSIONS), *(("chatglm3", other) for other in ("lora", "ptuning", "freeze"))],
)
def test_training_learns(version: str, method: str, bf16: bool, checkpoint: Any, tmp_path: Path) -> None:
    more: dict[str, Any] = {"training_args": {"bf16": bf16}}
    if method == "lora":
        more["peft_config"] = {"peft_type": "LORA", "r": 16, "lora_dropout": 0.0}
        more["training_args"]["max_steps"] = 70
    result = tuned(checkpoint(version), tmp_path, method, [dialogue(TURNS)], **more)
    assert result.losses[-1] < result.losses[0]
    if method != "full":
        return
    assert result.losses[-1] < 0.2
    model, tokenizer, _ = load_parts(result.output, dtype=torch.float32, device=DEVICE)
    history: list[Any] = []
    for question, answer in TURNS[:2]:
        response, history = model.chat(tokenizer, question, history, do_sample=False, max_new_tokens=24)
        assert response == answer


@pytest.mark.parametrize("method", ["lora", "ptuning", "full"])
def test_a_resumed_run_is_the_uninterrupted_one(method: str, checkpoint: Any, tmp_path: Path) -> None:
    rows = [dialogue([(f"问{n}", f"答{n}{n}")]) for n in range(9)]
    saving = {"max_steps": 8, "save_strategy": "steps", "save_steps": 3, "per_device_train_batch_size": 2}
    options: dict[str, Any] = {"training_args": saving, "packing": False}
    whole = tuned(checkpoint("chatglm3"), tmp_path, method, rows, **options)
    for step in (6, 8):
        shutil.rmtree(tmp_path / "out" / f"checkpoint-{step}")
    again = tuned(checkpoint("chatglm3"), tmp_path, method, rows, resume=True, **options)
    assert again.steps == 8
    assert again.losses == pytest.approx(whole.losses, rel=1e-4)


@pytest.mark.parametrize("bits", [4, 8])
def test_lora_over_integers_learns(bits: int, checkpoint: Any, tmp_path: Path) -> None:
    model = AutoModel.from_pretrained(checkpoint("chatglm3")).quantize(bits, group_size=32)
    model.save_pretrained(tmp_path / "int")
    load_parts(checkpoint("chatglm3")).tokenizer.save_pretrained(tmp_path / "int")
    lora = {"peft_type": "LORA", "r": 16, "lora_dropout": 0.0}
    result = tuned(tmp_path / "int", tmp_path, "lora", [dialogue(TURNS)], peft_config=lora)
    assert result.losses[-1] < 0.7 * result.losses[0]
