"""The engine: what a request gets is what it gets alone, whatever else runs, and what `generate` gives."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from running import events, generated
from tiny import chatglm_model, glm_model, glm_prompt
from transformers import GlmConfig, GlmForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from chatglm.engine.engine import Engine, Request
from chatglm.engine.runners import NativeRunner, TorchRunner, runner_for
from chatglm.engine.speculation import Guess
from chatglm.errors import InputError, QueueFullError, UnsupportedError
from chatglm.kernels import native
from chatglm.params import SamplingParams
from garbage import no_garbage

GREEDY = SamplingParams(temperature=0, max_new_tokens=12)
PAGE = 64


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


MODELS = {
    "chatglm": lambda: chatglm_model(kv_channels=16, seq_length=512),
    "every head its own": lambda: chatglm_model(kv_channels=16, multi_query_attention=False, seq_length=512),
    "glm": lambda: glm_model(max_sequence_length=512),
    "chatglm on torch": lambda: chatglm_model(kv_channels=8, seq_length=512),  # narrower than the native decoder takes
    "llama": llama,
    "transformers' glm": native_glm,
}


def prompts(name: str, count: int, seed: int = 0, most: int = 150) -> list[list[int]]:
    draw = random.Random(seed)
    made = [[draw.randrange(5, 140) for _ in range(draw.randrange(2, most))] for _ in range(count)]
    return [glm_prompt(ids) for ids in made] if name == "glm" else made


def run(engine: Engine, requests: list[Request]) -> dict[int, list[int]]:
    """Step until all is done, checking after each; tokens by request."""
    numbers = {id(request): number for number, request in enumerate(requests)}
    said: dict[int, list[int]] = {number: [] for number in range(len(requests))}
    for event in events(engine):
        said[numbers[id(event.request)]] += event.tokens
    assert engine.stats().pages_used == sum(len(pages) for _, pages in engine._scheduler._prefixes.values())
    return said


@pytest.mark.parametrize("name", MODELS)
def test_greedy_text_is_that_of_generate(name: str) -> None:
    """Alone, in a full batch, read in pieces, and preempted because memory is short."""
    model = MODELS[name]()
    asked = prompts(name, 7)
    wanted = [generated(model, prompt, 12) for prompt in asked]
    alone = Engine(model)
    for prompt, text in zip(asked[:2], wanted, strict=False):
        assert run(alone, [alone.submit(prompt, GREEDY)])[0] == text
    whole = Engine(model)
    assert list(run(whole, [whole.submit(prompt, GREEDY) for prompt in asked]).values()) == wanted
    pieces = Engine(model, budget=9, max_running=8)
    assert list(run(pieces, [pieces.submit(prompt, GREEDY) for prompt in asked]).values()) == wanted
    short = Engine(model, memory=5 * pieces.runner.page_bytes)
    assert list(run(short, [short.submit(prompt, GREEDY) for prompt in asked]).values()) == wanted


def test_preemption_is_really_met() -> None:
    model = MODELS["chatglm"]()
    asked = prompts("chatglm", 4, most=60)
    params = SamplingParams(temperature=0, max_new_tokens=100)
    engine = Engine(model, memory=6 * Engine(model).runner.page_bytes)
    said = run(engine, [engine.submit(prompt, params) for prompt in asked])
    assert engine.stats().preemptions > 0
    assert [said[n] for n in range(4)] == [generated(model, prompt, 100) for prompt in asked]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("temperature", [0, 0.3])
def test_speculation_changes_no_text(name: str, temperature: float) -> None:
    """With guesses that are right, wrong, and of all lengths."""
    model = MODELS[name]()
    asked = prompts(name, 5, seed=6)
    params = SamplingParams(temperature=temperature, seed=3, max_new_tokens=40)
    plain = Engine(model, speculate=False)
    wanted = run(plain, [plain.submit(prompt, params) for prompt in asked])
    assert plain.stats().proposed_tokens == 0

    class Oracle:
        """Knows what will be said, and errs now and then."""

        free, vocabulary = True, None

        def propose(self, asked: Any) -> list[Guess]:
            made = []
            for _, ids, count in asked:
                number = next(n for n, prompt in enumerate(self.prompts) if ids[: len(prompt)] == prompt)
                ahead = wanted[number][len(ids) - len(self.prompts[number]) :][:count]
                made.append(Guess(tuple(token if n % 5 else (token + n) % 140 for n, token in enumerate(ahead, 1))))
            return made

        def forget(self, key: Any) -> None:
            pass

    oracle = Oracle()
    oracle.prompts = asked
    for proposer in (oracle, True):
        engine = Engine(model, speculate=proposer, memory=None if proposer is True else 12 * plain.runner.page_bytes)
        assert run(engine, [engine.submit(prompt, params) for prompt in asked]) == wanted
        if proposer is oracle:
            assert engine.stats().accepted_tokens > 20
            assert engine.stats().steps < plain.stats().steps


@pytest.mark.skipif(native.library() is None, reason="no native library on this machine")
def test_which_runner() -> None:
    kinds = {name: type(runner_for(make())) for name, make in MODELS.items()}
    assert kinds["chatglm"] is kinds["glm"] is kinds["every head its own"] is NativeRunner
    assert kinds["chatglm on torch"] is kinds["llama"] is TorchRunner
    assert type(runner_for(MODELS["chatglm"]().quantize(8))) is NativeRunner


@pytest.mark.parametrize("name", MODELS)
def test_a_second_turn_computes_what_is_new(name: str) -> None:
    model = MODELS[name]()
    first = prompts(name, 1, seed=3)[0]
    first = glm_prompt([7] * 200) if name == "glm" else (first * 100)[:200]
    engine = Engine(model)
    text = run(engine, [engine.submit(first, GREEDY)])[0]
    if name == "glm":  # the prompt is one block: only an equal one is found
        second = engine.submit(first, GREEDY)
        least = len(first) - 2
    else:
        second = engine.submit([*first, *text, 9, 9, 9], GREEDY)
        least = len(first) + len(text) - 1
    expected = generated(model, second.prompt, 12)
    assert run(engine, [second])[0] == expected
    assert least <= second.cached_tokens < len(second.prompt)
    if name == "glm":
        other = engine.submit(glm_prompt([7] * 199 + [8]), GREEDY)
        assert run(engine, [other])[0] == generated(model, other.prompt, 12)
        assert other.cached_tokens == 0


def test_a_sliding_window_ends_the_context() -> None:
    """Up to there an answer is generate's; beyond, tokens would see what the model's own may not see."""
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=160, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.5, sliding_window=24,
    )  # fmt: skip
    model = MistralForCausalLM(config).eval()
    for engine in (Engine(model), Engine(model, context=100)):
        request = engine.submit(list(range(20, 36)), SamplingParams(temperature=0))
        assert run(engine, [request])[0] == generated(model, request.prompt, 24 - 16)
        with pytest.raises(InputError, match="context is 24"):
            engine.submit(list(range(20, 44)), GREEDY)
    config.sliding_window = None
    assert Engine(model).context == 512


@pytest.mark.parametrize("name", ["chatglm", "glm", "llama"])
def test_samples_of_one_prompt(name: str) -> None:
    """n answers with a seed are the same whatever else runs, and differ from one another."""
    model = MODELS[name]()
    prompt, *others = prompts(name, 4, seed=5)
    params = SamplingParams(temperature=1.5, seed=7, n=3, max_new_tokens=20)

    def answers(engine: Engine, beside: list[list[int]]) -> list[list[int]]:
        request = engine.submit(prompt, params)
        for other in beside:
            engine.submit(other, GREEDY)
        said: dict[int, list[int]] = {0: [], 1: [], 2: []}
        for event in events(engine):
            if event.request is request:
                said[event.index] += event.tokens
        return list(said.values())

    alone = answers(Engine(model), [])
    assert len({tuple(text) for text in alone}) == 3
    assert answers(Engine(model), others) == alone
    single = Engine(model)
    one = single.submit(prompt, SamplingParams(temperature=1.5, seed=7, max_new_tokens=20))
    assert run(single, [one])[0] == alone[0]
    assert answers(Engine(model, memory=8 * single.runner.page_bytes), others) == alone


def test_stop_ids_length_and_logprobs() -> None:
    model = MODELS["chatglm"]()
    prompt = prompts("chatglm", 1)[0]
    text = generated(model, prompt, 12)
    engine = Engine(model)
    place = next(n for n, token in enumerate(text) if token not in text[:n] and n > 2)
    for stop in ({"stop_ids": {text[place]}}, {}):
        params = (
            GREEDY if stop else SamplingParams(temperature=0, max_new_tokens=12, stop_ids=(text[place],), logprobs=3)
        )
        request = engine.submit(prompt, params, **stop)
        seen = list(events(engine))
        assert [token for event in seen for token in event.tokens] == text[: place + 1]
        assert seen[-1].finish == "stop"
        assert not any(event.finish for event in seen[:-1])
    with torch.no_grad():
        scores = model(torch.tensor([[*prompt, *text]])).logits[0].log_softmax(-1)
    draws = [draw for event in seen for draw in event.logprobs]
    for row, draw in zip(scores[len(prompt) - 1 :], draws, strict=False):
        assert draw.logprob == pytest.approx(float(row[draw.token]), abs=1e-4)
        assert [token for token, _ in draw.alternatives] == row.topk(3).indices.tolist()
    request = engine.submit(prompt, SamplingParams(temperature=0, max_length=len(prompt) + 5))
    assert request.prompt == prompt
    seen = list(events(engine))
    assert [token for event in seen for token in event.tokens] == text[:5]
    assert seen[-1].finish == "length"


@pytest.mark.skipif(native.library() is None, reason="no native library on this machine")
def test_torch_s_threads_are_kept_out_of_the_native_ones_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a step, and nowhere else."""
    engine = Engine(MODELS["chatglm"]())
    assert isinstance(engine.runner, NativeRunner)
    seen: list[int] = []

    def embed(tokens: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return engine.runner.model.get_input_embeddings()(tokens)

    monkeypatch.setattr(engine.runner, "_embed", embed)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        engine.submit([5, 6, 7], GREEDY)
        engine.step()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1]


def test_abort_frees_everything() -> None:
    model = MODELS["chatglm"]()
    engine = Engine(model, max_waiting=3, max_running=2)
    kept, *others = [engine.submit(prompt, GREEDY) for prompt in prompts("chatglm", 3)]
    engine.step()
    waiting = prompts("chatglm", 3, seed=9)
    for prompt in waiting[: 3 - engine.stats().waiting]:
        engine.submit(prompt, GREEDY)
    with pytest.raises(QueueFullError):
        engine.submit(waiting[-1], GREEDY)
    for request in others:
        engine.abort(request)
        engine.abort(request)  # a second time does nothing
    engine.check()
    seen = list(events(engine))
    assert not {id(event.request) for event in seen} & {id(request) for request in others}
    assert [token for event in seen if event.request is kept for token in event.tokens][-1:]
    assert engine.stats().pages_used == 0


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("steps", [0, 1, 2, 4])
def test_one_answer_of_several_can_be_ended(index: int, steps: int) -> None:
    """Also the one that reads the prompt for all of them, in the middle of that."""
    model = MODELS["chatglm"]()
    (prompt,) = prompts("chatglm", 1, seed=5)
    params = SamplingParams(temperature=1.5, seed=7, n=3, max_new_tokens=20)
    whole = Engine(model)
    wanted: dict[int, list[int]] = {0: [], 1: [], 2: []}
    request = whole.submit(prompt, params)
    for event in events(whole):
        wanted[event.index] += event.tokens
    engine = Engine(model, budget=len(prompt) // 2, max_running=8)  # so the prompt takes two steps
    request = engine.submit(prompt, params)
    said: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for _ in range(steps):
        for event in engine.step():
            said[event.index] += event.tokens
    engine.abort(request, index)
    engine.abort(request, index)  # a second time does nothing
    engine.check()
    before = len(said[index])
    for event in events(engine):
        said[event.index] += event.tokens
    assert said[index] == wanted[index][:before]
    assert before < 20
    del said[index], wanted[index]
    assert said == wanted
    assert engine.stats().pages_used == 0


def test_equal_prompts_that_come_together_are_read_once() -> None:
    model = MODELS["chatglm"]()
    prompt = [(n * 37) % 130 + 5 for n in range(200)]
    engine = Engine(model)
    requests = [engine.submit(prompt, GREEDY) for _ in range(5)]
    said = run(engine, requests)
    assert set(map(tuple, said.values())) == {tuple(generated(model, prompt, 12))}
    assert [request.cached_tokens for request in requests] == [0] + [3 * PAGE] * 4


def test_who_is_refused_is_told_when_to_come_again() -> None:
    engine = Engine(MODELS["chatglm"](), max_waiting=4, max_running=2)
    engine._duration = 3.0  # seconds that an answer took of late

    def refused(prompt: list[int]) -> float:
        with pytest.raises(QueueFullError) as caught:
            engine.submit(prompt, GREEDY)
        return caught.value.retry_after

    asked = prompts("chatglm", 8)
    requests = [engine.submit(prompt, GREEDY) for prompt in asked[:4]]
    assert refused(asked[4]) == 12  # four to begin, one after the other as far as one can tell
    engine.step()
    requests += [engine.submit(prompt, GREEDY) for prompt in asked[4:6]]
    assert refused(asked[6]) == 6  # four to begin, and two run at a time
    run(engine, requests)
    assert 0 < engine._duration < 3


def test_what_is_refused() -> None:
    model = MODELS["chatglm"]()
    engine = Engine(model, memory=2 * Engine(model).runner.page_bytes)
    for prompt, says in (([], "no tokens"), ([5, 160], "token 160"), ([5] * 128, "at most 127")):
        with pytest.raises(InputError, match=says):
            engine.submit(prompt)
    with pytest.raises(InputError, match="'cook' is not on this model"):
        engine.submit([5], adapter="cook")
    with pytest.raises(InputError, match="one page"):
        Engine(model, memory=10)
    assert engine.idle


@pytest.mark.parametrize("name", ["chatglm", "chatglm on torch"])
def test_scores_that_are_not_finite_end_one_request_only(name: str) -> None:
    """Nor does a shorter request that runs beside it see anything of them, masked or not."""
    model = MODELS[name]()
    with torch.no_grad():
        model.get_input_embeddings().weight[77] = torch.nan
    engine = Engine(model)
    bad, good = engine.submit([77, 5, 6, 7], GREEDY), engine.submit([5, 6], GREEDY)
    seen = list(events(engine))
    failed = [event for event in seen if event.request is bad]
    assert [event.finish for event in failed] == ["error"]
    assert "finite" in str(failed[0].error)
    assert sum(len(event.tokens) for event in seen if event.request is good) == 12


@pytest.mark.parametrize("kind", ["chatglm", "glm", "chatglm on torch", "glm on torch"])
def test_a_learned_prefix_stands_before_every_prompt(kind: str) -> None:
    """P-tuning v2, of a length that ends inside of a page."""
    if kind.startswith("glm"):
        heads = 2 if kind == "glm" else 4  # narrower than the native decoder takes
        model = glm_model(max_sequence_length=512, num_attention_heads=heads, pre_seq_len=70)
    else:
        model = chatglm_model(kv_channels=16 if kind == "chatglm" else 8, seq_length=512, pre_seq_len=70)
    asked = prompts(kind.split()[0], 3, seed=2)
    engine = Engine(model)
    assert "torch" not in kind or isinstance(engine.runner, TorchRunner)
    assert engine.runner.prefix == 70
    said = run(engine, [engine.submit(prompt, GREEDY) for prompt in asked])
    assert [said[n] for n in range(3)] == [generated(model, prompt, 12) for prompt in asked]


@pytest.mark.parametrize("make", [MODELS["chatglm"], llama])
def test_adapters_by_request(make: Any) -> None:
    from peft import LoraConfig, get_peft_model

    def adapted() -> Any:
        model = make()
        names = ["q_proj", "v_proj"] if make is llama else ["query_key_value"]
        config = LoraConfig(r=4, lora_alpha=64, target_modules=names, init_lora_weights=False)
        model = get_peft_model(model, config, adapter_name="one")
        model.add_adapter("two", config)
        torch.manual_seed(1)
        for key, parameter in model.named_parameters():
            if "lora" in key:
                parameter.data.normal_(0, 0.5)
        return model.eval()

    model = adapted()
    prompt = prompts("chatglm", 1, seed=4)[0]
    engine = Engine(model)
    requests = [engine.submit(prompt, GREEDY, adapter=name) for name in (None, "one", "two", "one")]
    said = run(engine, requests)
    expected = {}
    with model.disable_adapter():
        expected[None] = generated(model, prompt, 12)
    for name in ("one", "two"):
        model.set_adapter(name)
        expected[name] = generated(model, prompt, 12)
    assert [said[n] for n in range(4)] == [expected[name] for name in (None, "one", "two", "one")]
    assert len({tuple(text) for text in expected.values()}) == 3


@pytest.mark.parametrize("options", [{}, {"speculate": True}, {"memory": 4 << 20}])
def test_a_lead_is_not_counted(options: dict[str, Any]) -> None:
    """An answer's first tokens, if they are of a kind, come besides those that were asked for; others do not."""
    model = MODELS["chatglm"]()
    prompt = prompts("chatglm", 1)[0]
    whole = generated(model, prompt, 30)
    for lead in (0, 1, 3, 8, 20):
        engine = Engine(model, **options)
        params = SamplingParams(temperature=0, max_new_tokens=6, n=2)
        request = engine.submit(prompt, params, uncounted=lambda token, lead=lead: token in whole[:lead])
        found: list[list[int]] = [[], []]
        counts, finishes = [0, 0], []
        for event in events(engine):
            found[event.index] += event.tokens
            counts[event.index] += len(event.tokens) - event.lead
            finishes += [event.finish] if event.finish else []
        expected = 6 + min(lead, 8)
        while lead < 8 and whole[lead] in whole[:lead]:
            lead, expected = lead + 1, expected + 1
        assert found == [whole[:expected]] * 2
        assert counts == [6, 6]
        assert finishes == ["length", "length"]
        assert engine.idle
        del request


def test_a_lead_never_passes_the_context() -> None:
    model = MODELS["chatglm"]()
    prompt = prompts("chatglm", 1)[0]
    engine = Engine(model)
    long = (prompt * engine.context)[: engine.context - 3]
    engine.submit(long, SamplingParams(temperature=0, max_new_tokens=2), uncounted=lambda token: True)
    assert sum(len(event.tokens) for event in events(engine)) == 3


@pytest.mark.parametrize(("name", "pages"), [("chatglm", 30), ("glm", None)])
def test_one_client_with_many_long_answers_does_not_hold_up_another(name: str, pages: int | None) -> None:
    """Ten requests of twenty answers; what another asks meanwhile comes in a few steps, and every text is as alone."""
    model = MODELS[name]()
    asked = prompts(name, 10, seed=8, most=40)
    many = SamplingParams(seed=5, n=20, max_new_tokens=25)
    short = SamplingParams(seed=6, max_new_tokens=10)
    wanted = run(alone := Engine(model), [alone.submit(asked[1], short)])[0]
    single = Engine(model)
    first: dict[int, list[int]] = {n: [] for n in range(20)}
    single.submit(asked[0], many)
    for event in events(single):
        first[event.index] += event.tokens
    memory = None if pages is None else pages * single.runner.page_bytes
    engine = Engine(model, memory=memory)
    hog = [engine.submit(prompt, many, client="hog") for prompt in asked]
    for _ in range(20):
        engine.step()
    said: dict[int, list[int]] = {n: [] for n in range(20)}
    request = engine.submit(asked[1], short, client="other")
    steps, text = 0, []
    for event in events(engine):
        if event.request is hog[0]:
            said[event.index] += event.tokens
        elif event.request is request:
            text += event.tokens
            steps = engine.stats().steps
    assert text == wanted
    assert steps - 20 <= 16
    for index, tokens in said.items():
        assert tokens == first[index][len(first[index]) - len(tokens) :]  # from the twentieth step on
    assert engine.stats().pages_used == 0
    with pytest.raises(InputError, match="257 answers are asked for at once"):
        engine.check_size(257)


def test_latent_attention_is_refused_by_name() -> None:
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    from chatglm.engine.runners import runner_for

    config = DeepseekV3Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        moe_intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        first_k_dense_replace=1,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
        max_position_embeddings=64,
    )
    with pytest.raises(UnsupportedError, match="deepseek_v3: multi-head latent attention"):
        runner_for(DeepseekV3ForCausalLM(config))


def test_requests_are_gone_when_they_are_over() -> None:
    engine = Engine(chatglm_model(kv_channels=16, seq_length=512))
    several = SamplingParams(temperature=1, seed=1, n=3, max_new_tokens=5)
    nothing = SamplingParams(max_new_tokens=0, prompt_logprobs=1)
    with no_garbage():
        for params in (GREEDY, several, nothing):
            engine.submit([5, 6, 7], params)
            assert [*events(engine)][-1].finish
        left = engine.submit([5, 6, 7], several)
        engine.step()
        engine.abort(left)
        del left
