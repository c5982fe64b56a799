"""Laws of the models at any size: independent implementations agree, caches and batches change nothing."""

from __future__ import annotations

import itertools
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import any_model, chatglm_config, chatglm_model, draw, glm_model, glm_prompt, prompt_ids
from transformers import DynamicCache, GlmConfig, GlmForCausalLM, StaticCache
from transformers.modeling_layers import GradientCheckpointingLayer

from chatglm.errors import CheckpointError, ConfigError, InputError, UnsupportedError
from chatglm.models.attention import packed_examples
from chatglm.models.chatglm import ChatGLMForConditionalGeneration, ChatGLMForSequenceClassification
from chatglm.models.configuration import ChatGLMConfig, GLMConfig

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
KINDS = ["glm", "chatglm"]


def close(actual: torch.Tensor, expected: torch.Tensor, atol: float = 2e-4) -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=1e-4)


def native_twin(model: Any) -> GlmForCausalLM:
    """`transformers`' own GLM, an implementation by other people, on our weights."""
    ours = model.config
    config = GlmConfig(
        vocab_size=ours.padded_vocab_size,
        hidden_size=ours.hidden_size,
        intermediate_size=ours.ffn_hidden_size,
        num_hidden_layers=ours.num_layers,
        num_attention_heads=ours.num_attention_heads,
        head_dim=ours.kv_channels,
        num_key_value_heads=ours.multi_query_group_num,
        rms_norm_eps=ours.layernorm_epsilon,
        attention_bias=ours.add_qkv_bias,
        pad_token_id=0,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0 * ours.rope_ratio,
            "partial_rotary_factor": 0.5,
        },
    )
    twin = GlmForCausalLM(config).eval()
    sizes = [ours.num_attention_heads * ours.kv_channels, *[ours.multi_query_group_num * ours.kv_channels] * 2]
    weights = {
        "model.embed_tokens.weight": model.transformer.embedding.word_embeddings.weight,
        "model.norm.weight": model.transformer.encoder.final_layernorm.weight,
        "lm_head.weight": model.transformer.output_layer.weight,
    }
    for number, block in enumerate(model.transformer.encoder.layers):
        p, qkv = f"model.layers.{number}.", block.self_attention.query_key_value
        for index, name in enumerate("qkv"):
            weights[f"{p}self_attn.{name}_proj.weight"] = qkv.weight.split(sizes)[index]
            if ours.add_qkv_bias:
                weights[f"{p}self_attn.{name}_proj.bias"] = qkv.bias.split(sizes)[index]
        weights |= {
            p + "self_attn.o_proj.weight": block.self_attention.dense.weight,
            p + "mlp.gate_up_proj.weight": block.mlp.dense_h_to_4h.weight,
            p + "mlp.down_proj.weight": block.mlp.dense_4h_to_h.weight,
            p + "input_layernorm.weight": block.input_layernorm.weight,
            p + "post_attention_layernorm.weight": block.post_attention_layernorm.weight,
        }
    twin.load_state_dict(weights)
    return twin


@QUICK
@given(
    heads=st.sampled_from([(1, 1), (2, 1), (4, 4), (6, 2), (6, 3), (8, 1)]),
    channels=st.sampled_from([4, 8, 12, 16]),
    hidden=st.sampled_from([16, 24, 40]),
    layers=st.integers(1, 3),
    ratio=st.sampled_from([1, 2.5, 50, 500]),
    bias=st.booleans(),
    tokens=st.integers(1, 24),
    seed=st.integers(0, 99),
)
@torch.no_grad()
def test_equal_to_native_glm(heads, channels, hidden, layers, ratio, bias, tokens, seed) -> None:
    """Other sizes, group counts and rope ratios: the same logits as transformers' native GLM class."""
    model = chatglm_model(
        seed,
        num_attention_heads=heads[0],
        multi_query_group_num=heads[1],
        kv_channels=channels,
        hidden_size=hidden,
        num_layers=layers,
        rope_ratio=ratio,
        add_qkv_bias=bias,
        seq_length=8,
    )
    ids = prompt_ids("chatglm", tokens, seed)
    close(model(input_ids=ids).logits, native_twin(model)(input_ids=ids).logits, atol=1e-3)


@torch.no_grad()
def test_without_shared_heads_the_rows_lie_head_by_head() -> None:
    """`multi_query_attention=False`: per head its query, key and value; a permutation gives the other order."""
    separate = chatglm_model(multi_query_attention=False, multi_query_group_num=1)
    grouped = chatglm_model(multi_query_attention=True, multi_query_group_num=4)
    state = separate.state_dict()
    for name, value in state.items():
        if "query_key_value" in name:
            parts = value.unflatten(0, (4, 3, 8))
            state[name] = parts.transpose(0, 1).flatten(0, 2)
    grouped.load_state_dict(state)
    ids = prompt_ids("chatglm")
    close(separate(input_ids=ids).logits, grouped(input_ids=ids).logits)


def reference_glm(model: Any, ids: list[int]) -> torch.Tensor:
    """ChatGLM-6B written out from its description, one head at a time in float64; logits (tokens, vocabulary)."""
    config, weights = model.config, {k: v.double() for k, v in model.state_dict().items()}
    hidden, heads = config.hidden_size, config.num_attention_heads
    width, count = hidden // heads, len(ids)
    sop = ids.index(config.bos_token_id)
    blank = ids.index(config.gmask_token_id if config.gmask_token_id in ids else config.mask_token_id)
    rows = [
        [i if i < sop else blank for i in range(count)],
        [0 if i < sop else i - sop + 1 for i in range(count)],
    ]

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + config.layernorm_epsilon).rsqrt()
        return centred * scale * weights[name + ".weight"] + weights[name + ".bias"]

    def linear(x, name):
        return x @ weights[name + ".weight"].T + weights[name + ".bias"]

    def turn(x):  # (tokens, width): each half by its own position row, channel i with i + quarter
        out, quarter = x.clone(), width // 4
        for half in (0, 1):
            for i in range(quarter):
                frequency = float(torch.tensor(10000.0 ** (-2 * i / (width // 2))).half())
                for t in range(count):
                    angle = rows[half][t] * frequency
                    a, b = x[t, half * width // 2 + i], x[t, half * width // 2 + i + quarter]
                    out[t, half * width // 2 + i] = a * math.cos(angle) - b * math.sin(angle)
                    out[t, half * width // 2 + i + quarter] = b * math.cos(angle) + a * math.sin(angle)
        return out

    visible = torch.ones(count, count).tril().bool()
    visible[:, :sop] = True
    x = weights["transformer.word_embeddings.weight"][ids]
    for layer in range(config.num_layers):
        p = f"transformer.layers.{layer}."
        y = norm(x, p + "input_layernorm")
        mixed = linear(y, p + "attention.query_key_value").view(count, heads, 3 * width)
        context = []
        for head in range(heads):
            q, k, v = mixed[:, head].chunk(3, dim=-1)
            scores = turn(q) @ turn(k).T / math.sqrt(width)
            context.append(scores.masked_fill(~visible, -torch.inf).softmax(-1) @ v)
        z = y * math.sqrt(56) + linear(torch.cat(context, -1), p + "attention.dense")
        u = norm(z, p + "post_attention_layernorm")
        g = linear(u, p + "mlp.dense_h_to_4h")
        g = 0.5 * g * (1 + torch.tanh(math.sqrt(2 / math.pi) * (g + 0.044715 * g**3)))
        x = u * math.sqrt(56) + linear(g, p + "mlp.dense_4h_to_h")
    return norm(x, "transformer.final_layernorm") @ weights["lm_head.weight"].T


@QUICK
@given(
    context=st.lists(st.integers(4, 140), max_size=6),
    generated=st.lists(st.integers(4, 140), max_size=5),
    mask=st.sampled_from([[], [150], [151]]),
    heads=st.sampled_from([1, 2]),
    layers=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@torch.no_grad()
def test_glm_equals_its_description(context, generated, mask, heads, layers, seed) -> None:
    model = glm_model(seed, num_layers=layers, num_attention_heads=heads)
    ids = [*mask, *glm_prompt(context, generated)]
    logits = model(input_ids=torch.tensor([ids])).logits[0]
    expected = reference_glm(model, ids).float()
    scale = float(expected.abs().max())
    assert float((logits - expected).abs().max()) <= 2e-4 * max(scale, 1)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_cached_equals_uncached(kind: str, attention: str) -> None:
    model = any_model(kind)
    model.set_attn_implementation(attention)
    ids = prompt_ids(kind, 8)
    new = torch.tensor([[17, 33, 5, 99, 42]])
    whole = torch.cat([ids, new], dim=1)
    expected = model(input_ids=whole, use_cache=False).logits
    positions = None
    if kind == "glm":
        from chatglm.models.positions import two_row_positions

        positions = two_row_positions(whole, model.config)
    for sizes in ([8, 1, 1, 1, 1, 1], [8, 5], [8, 2, 3]):
        for cache in (DynamicCache(config=model.config), StaticCache(config=model.config, max_cache_len=20)):
            start, parts = 0, []
            for size in sizes:
                part = slice(start, start + size)
                chosen = None if positions is None else positions[..., part]
                parts.append(
                    model(input_ids=whole[:, part], position_ids=chosen, past_key_values=cache, use_cache=True).logits
                )
                start += size
            close(torch.cat(parts, dim=1), expected)


@QUICK
@given(lengths=st.lists(st.integers(3, 12), min_size=2, max_size=4), kind=st.sampled_from(KINDS))
@torch.no_grad()
def test_batched_equals_alone(lengths: list[int], kind: str) -> None:
    """Left padding of any width changes nothing, in scores and in what is generated, greedily and by beams."""
    model = any_model(kind)
    rows = [prompt_ids(kind, length, seed) for seed, length in enumerate(lengths)]
    longest, pad = max(lengths), model.config.pad_token_id
    batch = torch.cat([torch.nn.functional.pad(row, (longest - row.shape[1], 0), value=pad) for row in rows])
    mask = torch.stack([torch.arange(longest) >= longest - length for length in lengths]).long()
    logits = model(input_ids=batch, attention_mask=mask).logits
    assert logits.isfinite().all()
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": pad}
    for beams in (1, 2):
        together = model.generate(batch, attention_mask=mask, num_beams=beams, **options)[:, longest:]
        for number, row in enumerate(rows):
            close(logits[number, -row.shape[1] :], model(input_ids=row).logits[0])
            alone = model.generate(row, attention_mask=torch.ones_like(row), num_beams=beams, **options)
            assert together[number].tolist() == alone[0, row.shape[1] :].tolist()


@QUICK
@given(cuts=st.sets(st.integers(1, 15), max_size=5))
@torch.no_grad()
def test_chunked_prefill_equals_whole(cuts: set[int]) -> None:
    model = chatglm_model()
    ids = prompt_ids("chatglm", 16)
    cache = DynamicCache(config=model.config)
    edges = [0, *sorted(cuts), 16]
    parts = [model(input_ids=ids[:, a:b], past_key_values=cache).logits for a, b in itertools.pairwise(edges)]
    close(torch.cat(parts, dim=1), model(input_ids=ids).logits)


def test_chunked_prefill_through_generate() -> None:
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    model, ids = chatglm_model(), prompt_ids("chatglm", 11)
    assert torch.equal(model.generate(ids, prefill_chunk_size=4, **options), model.generate(ids, **options))
    with pytest.raises(UnsupportedError, match="prefill_chunk_size"):
        glm_model().generate(prompt_ids("glm"), prefill_chunk_size=4, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_ways_to_generate_agree(kind: str) -> None:
    """Static cache, prompt lookup and an assistant model give the greedy tokens."""
    model, ids = any_model(kind), prompt_ids(kind, 9)
    ids[0, 3:5] = ids[0, 0:2]  # something for prompt lookup to find
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    plain = model.generate(ids, **options)
    assert torch.equal(model.generate(ids, use_cache=False, **options), plain)
    assert torch.equal(model.generate(ids, cache_implementation="static", disable_compile=True, **options), plain)
    assert torch.equal(model.generate(ids, prompt_lookup_num_tokens=3, **options), plain)
    assistant = any_model(kind, seed=0)  # the same weights: every guess is right
    assert torch.equal(model.generate(ids, assistant_model=assistant, **options), plain)
    assistant = any_model(kind, seed=5)
    assert torch.equal(model.generate(ids, assistant_model=assistant, **options), plain)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_only_wanted_positions_reach_the_head(kind: str) -> None:
    model, ids = any_model(kind), prompt_ids(kind)
    rows: list[int] = []
    head = model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _, args, __: rows.append(args[0].shape[-2]))
    try:
        whole = model(input_ids=ids).logits
        close(model(input_ids=ids, logits_to_keep=1).logits, whole[:, -1:])
        close(model(input_ids=ids, logits_to_keep=torch.tensor([0, 4])).logits, whole[:, [0, 4]])
        model.generate(ids, max_new_tokens=2, do_sample=False, eos_token_id=None, pad_token_id=0)
    finally:
        handle.remove()
    assert rows == [9, 1, 2, 1, 1]


@torch.no_grad()
def test_causal_prefill_builds_no_mask() -> None:
    model = chatglm_model()
    masks: list[Any] = []
    layer = model.transformer.encoder.layers[0].self_attention
    handle = layer.register_forward_pre_hook(lambda _, args: masks.append(args[1]))
    ids = prompt_ids("chatglm", 12)
    try:
        model(input_ids=ids)
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
        model.generate(ids, max_new_tokens=2, do_sample=False, eos_token_id=None, pad_token_id=0)
    finally:
        handle.remove()
    assert all(mask is None for mask in masks)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_compiled_decode_has_no_graph_break(kind: str) -> None:
    model, ids = any_model(kind), prompt_ids(kind)
    steps = [torch.tensor([[t]]) for t in (17, 33, 5)]
    expected = model(input_ids=torch.cat([ids, *steps], 1)).logits[:, 9:]
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    cache = StaticCache(config=model.config, max_cache_len=16)
    model(input_ids=ids, past_key_values=cache)
    logits = []
    for number in range(3):
        inputs = model.prepare_inputs_for_generation(
            torch.cat([ids, *steps[: number + 1]], 1),
            next_sequence_length=1,
            past_key_values=cache,
            attention_mask=torch.ones(1, 10 + number, dtype=torch.long),
            position_ids=torch.tensor([[9 + number]]),
        )
        logits.append(compiled(**inputs).logits)
    close(torch.cat(logits, 1), expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own look at a block's input
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_blocks_train_as_others(kind: str) -> None:
    """Compiled one by one, as `torch.compile`'s guide advises for a stack of equal blocks: the same loss and gradients,
    and no complex numbers, for which no code is made.
    """
    model, ids = any_model(kind).train(), prompt_ids(kind)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    wanted = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    seen: list[torch.Tensor] = []

    def backend(graph: Any, inputs: list[Any]) -> Any:
        seen.extend(each for each in inputs if isinstance(each, torch.Tensor))
        return graph.forward

    for block in model.modules():
        if isinstance(block, GradientCheckpointingLayer):
            block.compile(backend=backend, dynamic=True)
    again = model(input_ids=ids, labels=ids).loss
    again.backward()
    close(again, loss)
    for name, weight in model.named_parameters():
        if name in wanted:
            close(weight.grad, wanted[name])
    assert seen
    assert not any(tensor.is_complex() for tensor in seen)


@pytest.mark.parametrize("prefix", [None, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_changes_nothing(kind: str, prefix: int | None) -> None:
    """Blocks run twice then: what a P-tuning prefix put into a cache must not be there twice."""
    model, ids = any_model(kind, pre_seq_len=prefix).train(), prompt_ids(kind)
    if prefix:
        model.transformer.prefix_encoder.dropout.p = 0.0
        model.requires_grad_(True)
    gradients = []
    for enable in (False, True):
        if enable:
            # Renamed in transformers 5; the old name says so in a warning.
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
        model.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert gradients[0].keys() == dict(model.named_parameters()).keys()
    for name, gradient in gradients[0].items():
        close(gradients[1][name], gradient)


def two_examples(kind: str, lengths: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids (2, S), positions and shifted labels of two rows of different length, padded at the right as in training."""
    longest = max(lengths) + 1
    ids = torch.randint(4, 140, (2, longest), generator=torch.Generator().manual_seed(5))
    labels = torch.full((2, longest), -100)
    positions = torch.zeros(2, 2, longest, dtype=torch.long)
    for row, length in enumerate(lengths):
        prompt = length // 2
        labels[row, prompt - 1 : length] = ids[row, prompt : length + 1].clone()
        positions[row, 0, :length] = torch.arange(length)
        if kind == "glm":
            positions[row, 0, prompt:length] = prompt - 1
            positions[row, 1, prompt:length] = torch.arange(1, length - prompt + 1)
    return ids, positions if kind == "glm" else positions[:, 0], labels


@pytest.mark.parametrize("prefix", [None, 3])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_examples_do_not_see_one_another(kind: str, attention: str, prefix: int | None) -> None:
    model = any_model(kind, **({"pre_seq_len": prefix} if prefix else {}))
    model.set_attn_implementation(attention)
    lengths = (11, 8)
    ids, positions, labels = two_examples(kind, lengths)
    packed = {"input_ids": ids, "position_ids": positions, "shift_labels": labels}
    packed = {
        name: torch.cat([rows[row, ..., :length] for row, length in enumerate(lengths)], dim=-1)[None]
        for name, rows in packed.items()
    }

    def loss_and_gradient(batches: list[dict[str, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        losses = [model(**batch, num_items_in_batch=1).loss for batch in batches]
        sum(losses).backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        return torch.stack(losses).sum().detach(), gradient

    alone = [
        {
            "input_ids": ids[row : row + 1, :length],
            "position_ids": positions[row : row + 1, ..., :length],
            "shift_labels": labels[row : row + 1, :length],
        }
        for row, length in enumerate(lengths)
    ]
    padded = {"input_ids": ids, "position_ids": positions, "shift_labels": labels}
    expected = loss_and_gradient(alone)
    for batch in (packed, padded):
        loss, gradient = loss_and_gradient([batch])
        close(loss, expected[0])
        close(gradient, expected[1], atol=1e-3)
    model.eval()
    close(model(**packed, num_items_in_batch=1).loss.detach(), expected[0])


def test_packed_examples_are_refused_where_there_is_no_mask() -> None:
    position_ids = torch.tensor([[0, 1, 2, 0, 1]])
    with pytest.raises(UnsupportedError, match="flash_attention_2"):
        packed_examples(position_ids, 0, "flash_attention_2")
    assert packed_examples(torch.arange(5)[None], 0, "flash_attention_2") is None


@pytest.mark.parametrize("at_once", [None, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_of_learned_positions_is_the_loss(kind: str, at_once: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few scores at a time or all, already shifted labels or not: one loss, one gradient."""
    model = any_model(kind)
    if at_once:
        monkeypatch.setattr("chatglm.models.pretrained._SCORES_AT_ONCE", at_once * model.config.vocab_size)
    ids = prompt_ids(kind, 12)
    labels = ids.clone()
    labels[:, [0, 1, 5]] = -100
    expected = model(ids, labels=labels).loss
    expected.backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    shifted = torch.cat([labels[:, 1:], torch.tensor([[-100]])], dim=1)
    outputs = model(ids, shift_labels=shifted)
    outputs.loss.backward()
    assert outputs.logits is None
    assert outputs.past_key_values is None
    close(outputs.loss, expected)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        close(parameter.grad, gradient)
    assert model(ids, shift_labels=torch.full_like(ids, -100)).loss == 0
    with pytest.raises(InputError, match="one of them"):
        model(ids, labels=labels, shift_labels=shifted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("projection", [False, True])
@torch.no_grad()
def test_prefix_is_keys_and_values_in_front(kind: str, projection: bool) -> None:
    """P-tuning v2: as if a cache held the virtual tokens, with positions and padding that do not count them."""
    model = any_model(kind, pre_seq_len=3, prefix_projection=projection)
    bare = any_model(kind)
    bare.load_state_dict({k: v for k, v in model.state_dict().items() if "prefix_encoder" not in k})
    ids = prompt_ids(kind)
    cache = DynamicCache(config=bare.config)
    model.transformer.prefix_encoder.fill(cache, 1, torch.float32, ids.device)
    if kind == "glm":
        from chatglm.models.positions import two_row_positions

        positions = two_row_positions(ids, bare.config)
    else:
        positions = torch.arange(9)[None]
    expected = bare(input_ids=ids, position_ids=positions, past_key_values=cache).logits
    close(model(input_ids=ids).logits, expected)
    assert not torch.allclose(expected, bare(input_ids=ids).logits, atol=1e-2)

    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    generated = model.generate(ids, pad_token_id=0, **options)
    again = model(input_ids=generated).logits[:, 8:-1].argmax(-1)
    assert torch.equal(generated[:, 9:], again)
    padded = torch.nn.functional.pad(ids, (4, 0), value=model.config.pad_token_id)
    mask = (torch.arange(13) >= 4)[None].long()
    batched = model.generate(padded, attention_mask=mask, pad_token_id=model.config.pad_token_id, **options)
    assert torch.equal(batched[:, 13:], generated[:, 9:])
    with pytest.raises(UnsupportedError, match="static cache"):
        model.generate(ids, cache_implementation="static", disable_compile=True, pad_token_id=0, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_prefix_learns_and_nothing_else_does(kind: str) -> None:
    model, ids = any_model(kind, pre_seq_len=3).train(), prompt_ids(kind)
    model(input_ids=ids, labels=ids).loss.backward()
    learned = [name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert learned == ["transformer.prefix_encoder.embedding.weight"]


@pytest.mark.filterwarnings("ignore")  # flex attention compiles, and torch warns about itself
@pytest.mark.parametrize("attention", ["eager", "flex_attention"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_attention_implementations_agree(kind: str, attention: str) -> None:
    """Flex attention compiles itself, which takes ten seconds: for the harder mask here, and not for the other."""
    if (attention, kind) == ("flex_attention", "glm") and not any(map(shutil.which, ("c++", "g++", "clang++", "gcc"))):
        pytest.skip("flex attention compiles itself, and this machine has no C++ compiler")
    model, ids = any_model(kind, **({"kv_channels": 16} if kind == "chatglm" else {})), prompt_ids(kind)
    batch = torch.cat([ids, torch.nn.functional.pad(prompt_ids(kind, 6, 3), (3, 0), value=model.config.pad_token_id)])
    mask = torch.tensor([[1] * 9, [0] * 3 + [1] * 6])
    expected = model(input_ids=batch, attention_mask=mask).logits
    model.set_attn_implementation(attention)
    with torch.compiler.set_stance("default" if kind == "glm" else "force_eager"):
        logits = model(input_ids=batch, attention_mask=mask).logits
    close(logits[0], expected[0])
    close(logits[1, 3:], expected[1, 3:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_large_scores_do_no_harm_in_half_precision(kind: str, dtype: torch.dtype) -> None:
    model = any_model(kind, hidden_size=64, **({} if kind == "glm" else {"kv_channels": 64}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "query_key_value" in name:
                parameter.mul_(20)
    ids = prompt_ids(kind)
    exact = model(input_ids=ids).logits
    off = {}
    for attention in ("sdpa", "eager"):
        model.to(dtype).set_attn_implementation(attention)
        off[attention] = float((model(input_ids=ids).logits - exact).detach().abs().max())
    assert off["eager"] < 1.3 * off["sdpa"]


def test_flash_attention_is_refused_for_prefix_attention() -> None:
    with pytest.raises((ValueError, ImportError)):
        glm_model().set_attn_implementation("flash_attention_2")


@pytest.mark.parametrize("problem", ["single", "multi", "regression"])
def test_sequence_classification(problem: str) -> None:
    labels_count = {"single": 3, "multi": 3, "regression": 1}[problem]
    config = chatglm_config(num_labels=labels_count, classifier_dropout=0.0)
    model = draw(ChatGLMForSequenceClassification(config))
    ids = prompt_ids("chatglm", 6)
    logits = model(input_ids=ids).logits
    assert logits.shape == (1, labels_count)
    for side in ((3, 0), (0, 3)):  # the last real token counts, whichever side the padding is on
        padded = torch.nn.functional.pad(ids, side, value=0)
        mask = torch.nn.functional.pad(torch.ones_like(ids), side)
        close(model(input_ids=padded, attention_mask=mask).logits, logits)
    labels = {"single": torch.tensor([2]), "multi": torch.tensor([[1.0, 0.0, 1.0]]), "regression": torch.tensor([0.5])}[
        problem
    ]
    expected = {
        "single": lambda: torch.nn.functional.cross_entropy(logits, labels),
        "multi": lambda: torch.nn.functional.binary_cross_entropy_with_logits(logits, labels),
        "regression": lambda: torch.nn.functional.mse_loss(logits.squeeze(), labels.squeeze()),
    }[problem]()
    close(model(input_ids=ids, labels=labels).loss, expected)


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"multi_query_group_num": 3}, ConfigError, "multi_query_group_num"),
        ({"kv_channels": 6}, ConfigError, "kv_channels"),
        ({"num_layers": 0}, ConfigError, "num_layers"),
        ({"rmsnorm": False}, UnsupportedError, "rmsnorm"),
        ({"original_rope": False}, UnsupportedError, "original_rope"),
        ({"quantization_bit": 3}, ConfigError, "quantization_bit"),
        ({"quantization_config": {"quant_method": "awq"}}, UnsupportedError, "'awq'"),
        ({"pre_seq_len": 0}, ConfigError, "pre_seq_len"),
        ({"chatglm_generation": "chatglm9"}, ConfigError, "chatglm9"),
    ],
)
def test_configurations_that_are_refused(changes: dict, error: type, named: str) -> None:
    with pytest.raises(error, match=named):
        chatglm_config(**changes)


def test_one_dimensional_glm_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="position_encoding_2d"):
        GLMConfig(position_encoding_2d=False)


def test_first_release_of_chatglm_has_its_own_ids() -> None:
    config = ChatGLMConfig.from_dict({"model_type": "chatglm", "vocab_size": 150528, "inner_hidden_size": 16384})
    assert isinstance(config, GLMConfig)
    ids = config.mask_token_id, config.gmask_token_id, config.bos_token_id, config.eos_token_id, config.pad_token_id
    assert ids == (150000, 150001, 150004, 150005, 20003)


@torch.no_grad()
def test_old_32k_model_interpolates_positions() -> None:
    """ChatGLM2-6B-32k divides positions by rope_ratio; later models raise the base with it."""
    old = chatglm_model(chatglm_generation="chatglm2", rope_ratio=4)
    plain = chatglm_model(chatglm_generation="chatglm2")
    ids = prompt_ids("chatglm", 6)
    spread = torch.arange(6)[None] * 4
    close(old(input_ids=ids, position_ids=spread).logits, plain(input_ids=ids).logits)
    new = chatglm_model(chatglm_generation="chatglm3", rope_ratio=4)
    assert not torch.allclose(new(input_ids=ids).logits, old(input_ids=ids).logits, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_inputs(kind: str) -> None:
    model, ids = any_model(kind), prompt_ids(kind)
    with pytest.raises(InputError, match="either input_ids or inputs_embeds"):
        model()
    with pytest.raises(InputError, match="either input_ids or inputs_embeds"):
        model(input_ids=ids, inputs_embeds=model.get_input_embeddings()(ids))
    with pytest.raises(InputError, match="past_key_values is a tuple"):
        model(input_ids=ids, past_key_values=((1, 2),))


@torch.no_grad()
def test_embeddings_in_place_of_ids() -> None:
    model, ids = chatglm_model(), prompt_ids("chatglm")
    embeddings = model.get_input_embeddings()(ids)
    close(model(inputs_embeds=embeddings).logits, model(input_ids=ids).logits)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shards", [None, "20KB"])
def test_saved_and_loaded_again(kind: str, shards: str | None, tmp_path: Path) -> None:
    """save_pretrained keeps official names, sharded or not, and a .bin folder of the same weights loads alike."""
    model, ids = any_model(kind), prompt_ids(kind)
    expected = model(input_ids=ids).logits
    model.save_pretrained(tmp_path / "saved", **({"max_shard_size": shards} if shards else {}))
    again = type(model).from_pretrained(tmp_path / "saved")
    assert torch.equal(again(input_ids=ids).logits, expected)
    assert again.config.generation == model.config.generation
    names = set(again.state_dict())
    assert names == set(model.state_dict())

    (tmp_path / "bin").mkdir()
    model.config.save_pretrained(tmp_path / "bin")
    torch.save(model.state_dict(), tmp_path / "bin" / "pytorch_model.bin")
    assert torch.equal(type(model).from_pretrained(tmp_path / "bin")(input_ids=ids).logits, expected)


def test_lora_adapter_as_the_official_finetuning_writes_it(tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    for kind in KINDS:
        base, ids = any_model(kind), prompt_ids(kind)
        expected = base(input_ids=ids).logits
        config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["query_key_value"], init_lora_weights=False)
        torch.manual_seed(0)
        adapted = get_peft_model(base, config).eval()
        changed = adapted(input_ids=ids).logits
        assert not torch.allclose(changed, expected, atol=1e-2)
        adapted.save_pretrained(tmp_path / kind)
        again = PeftModel.from_pretrained(any_model(kind), tmp_path / kind).eval()
        close(again(input_ids=ids).logits, changed)
        options = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        tokens = again.generate(input_ids=ids, **options)
        merged = again.merge_and_unload()
        close(merged(input_ids=ids).logits, changed)
        assert torch.equal(merged.generate(ids, **options), tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_spread_over_devices(kind: str, tmp_path: Path) -> None:
    """device_map: the second half of the blocks offloaded to disk computes the same."""
    model, ids = any_model(kind), prompt_ids(kind)
    model.save_pretrained(tmp_path / "model")
    layers = "transformer.layers" if kind == "glm" else "transformer.encoder.layers"
    device_map: dict[str, str] = {
        name: "cpu"
        for name, _ in model.named_modules()
        if name and not list(model.get_submodule(name).children()) and not name.startswith(layers)
    }
    device_map |= {f"{layers}.0": "cpu", f"{layers}.1": "disk"}
    if kind == "glm":
        device_map["lm_head"] = "cpu"
    spread = type(model).from_pretrained(tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "off")
    with torch.no_grad():
        close(spread(input_ids=ids).logits, model(input_ids=ids).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_a_lost_weight_is_not_made_up(kind: str, tmp_path: Path) -> None:
    model = any_model(kind)
    model.save_pretrained(tmp_path)
    from safetensors.torch import load_file, save_file

    state = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in state if "dense_h_to_4h.weight" in name)
    del state[lost]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=lost.replace(".", r"\.")):
        type(model).from_pretrained(tmp_path)


def test_embedding_and_head_of_chatglm_are_one_weight(tmp_path: Path) -> None:
    model = glm_model()
    assert model.lm_head.weight is model.transformer.word_embeddings.weight
    state = {k: v.clone() for k, v in model.state_dict().items()}
    state["transformer.word_embeddings.weight"].zero_()  # official files hold both; the head's wins
    (tmp_path / "config.json").write_text(model.config.to_json_string(), "utf-8")
    torch.save(state, tmp_path / "pytorch_model.bin")
    again = type(model).from_pretrained(tmp_path)
    ids = prompt_ids("glm")
    assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)
    config = model.config
    config.tie_word_embeddings = False
    (tmp_path / "config.json").write_text(config.to_json_string(), "utf-8")
    apart = type(model).from_pretrained(tmp_path)
    assert not apart.transformer.word_embeddings.weight.any()


def test_classification_head_is_new_and_said_so(tmp_path: Path) -> None:
    chatglm_model().save_pretrained(tmp_path)
    model = ChatGLMForSequenceClassification.from_pretrained(tmp_path, num_labels=4)
    assert model.classifier_head.weight.shape == (4, 32)
    assert isinstance(ChatGLMForConditionalGeneration.from_pretrained(tmp_path), ChatGLMForConditionalGeneration)
