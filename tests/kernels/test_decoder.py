"""The native decoder against the models: the same scores, however a text is cut into calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny import chatglm_config, glm_config
from transformers import DynamicCache

from chatglm.errors import UnsupportedError
from chatglm.kernels import native
from chatglm.kernels.decoder import PAGE_TOKENS, Block, Decoder, Linear, Pages, Shape
from chatglm.models.chatglm import ChatGLMForConditionalGeneration
from chatglm.models.glm import GLMForConditionalGeneration
from chatglm.models.native import NativeCache
from chatglm.models.positions import rotary_tables


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    lib = native.library()
    if lib is None:
        pytest.skip(f"no native kernels: {native.info().reason}")
    before = lib.cg_threads()
    lib.cg_set_threads(2)
    yield
    lib.cg_set_threads(before)


def chatglm(hidden: int = 64, width: int = 16, heads: int = 4, groups: int = 2, ffn: int = 96, **more: Any) -> Any:
    options = {
        "num_layers": 3,
        "padded_vocab_size": 301,
        "hidden_size": hidden,
        "ffn_hidden_size": ffn,
        "kv_channels": width,
        "num_attention_heads": heads,
        "multi_query_group_num": groups,
        "seq_length": 512,
    }
    return filled(ChatGLMForConditionalGeneration(chatglm_config(**{**options, **more})))


def glm() -> Any:
    options = {"hidden_size": 64, "num_attention_heads": 4, "num_layers": 3, "inner_hidden_size": 256}
    ids = {"gmask_token_id": 290, "mask_token_id": 289, "bos_token_id": 291, "eos_token_id": 292, "pad_token_id": 0}
    return filled(GLMForConditionalGeneration(glm_config(vocab_size=300, max_sequence_length=256, **options, **ids)))


def filled(model: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.15, generator=generator)
        else:
            parameter.data.normal_(mean=0.5, std=0.1, generator=generator)
    return model.eval()


def decoder_of(model: Any, store: torch.dtype) -> Decoder:
    """With the model's own weights, which nothing rounds."""
    shape, blocks, final, head = model.decoder_parts()

    def of(layer: Any) -> Linear:
        return Linear(layer.weight, layer.bias)

    made = [
        Block((n1.weight, None), of(qkv), of(dense), (n2.weight, None), of(up), of(down))
        for n1, qkv, dense, n2, up, down in blocks
    ]
    return Decoder(shape, made, (final.weight, None), of(head), store)


SHAPES = [(64, 16, 4, 2, 96), (128, 32, 4, 1, 208), (160, 16, 10, 5, 64), (96, 48, 2, 2, 80), (512, 32, 16, 1, 48)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("store", "most"), [(torch.float32, 5e-6), (torch.float16, 5e-3), (torch.int16, 2e-3), (torch.int8, 5e-2)]
)
def test_scores_are_the_model_s(shape: tuple[int, ...], store: torch.dtype, most: float) -> None:
    """Two sequences of other lengths, in pieces that end inside of pages and at their ends."""
    model = chatglm(*shape)
    decoder = decoder_of(model, store)
    ids = torch.randint(0, 301, (2, 150), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = model(ids).logits
    pages = [Pages(decoder.page_bytes) for _ in range(2)]
    got = torch.zeros_like(wanted)
    for start, stop in ((0, PAGE_TOKENS), (PAGE_TOKENS, 70), (70, 71), (71, 73), (73, 150)):
        columns = torch.arange(start, stop)
        count = len(columns)
        for page in pages:
            page.reserve(stop)
        cosines, sines = (table[:, 0].reshape(2 * count, -1) for table in tables(model, columns))
        hidden = model.get_input_embeddings()(ids[:, start:stop]).detach().reshape(2 * count, -1).clone()
        logits, _ = decoder.run(
            hidden,
            cosines,
            sines,
            Pages.tables(pages),
            [0] * count + [1] * count,
            columns.tolist() * 2,
            (columns + 1).tolist() * 2,
            list(range(2 * count)),
        )
        got[:, start:stop] = logits.view(2, count, -1)
    assert (got - wanted).abs().max() <= most * wanted.abs().max()


def tables(model: Any, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return rotary_tables(columns[None].expand(2, -1), model.config, torch.float32)


def generated(model: Any, ids: torch.Tensor, mask: torch.Tensor, cache: Any = None) -> Any:
    return model.generate(
        ids,
        attention_mask=mask,
        past_key_values=cache,
        do_sample=False,
        max_new_tokens=20,
        eos_token_id=None,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )


def every_head_its_own() -> Any:
    return chatglm(multi_query_attention=False, groups=4)


@pytest.mark.parametrize("make", [chatglm, glm, every_head_its_own])
@pytest.mark.parametrize("batch", [1, 3])
def test_generate_uses_it_and_scores_stay(make: Any, batch: int) -> None:
    """Left-padded batches too: first scores agree within what fp16 keys and values round."""
    model = make().quantize(8)
    prompt = torch.randint(3, 280, (batch, 38), generator=torch.Generator().manual_seed(2))
    ids = torch.cat([prompt, torch.tensor([[290, 291]]).expand(batch, -1)], dim=1)
    mask = torch.ones_like(ids)
    for row in range(1, batch):
        mask[row, : 5 * row] = 0
    mine = generated(model, ids, mask)
    assert isinstance(mine.past_key_values, NativeCache)
    usual = generated(model, ids, mask, DynamicCache(config=model.config))
    agree = True
    for got, wanted, token, other in zip(
        mine.logits, usual.logits, mine.sequences[:, 40:].T, usual.sequences[:, 40:].T, strict=True
    ):
        if agree:  # later ones depend on which of two near equals was chosen
            assert (got - wanted).abs().max() <= 0.03 * wanted.abs().max()
        agree = agree and torch.equal(token, other)


def test_a_batch_is_its_rows_alone() -> None:
    model = chatglm().quantize(4)
    ids = torch.randint(3, 300, (3, 30), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    mask[1, :11] = 0
    together = generated(model, ids, mask)
    for row in range(3):
        length = int(mask[row].sum())
        alone = generated(model, ids[row : row + 1, -length:], mask[row : row + 1, -length:])
        assert torch.equal(alone.sequences[0, length:], together.sequences[row, 30:])
        assert torch.equal(alone.logits[0][0], together.logits[0][row])


def test_a_cache_can_be_cut_and_gone_on_with() -> None:
    model = chatglm().quantize(8)
    ids = torch.randint(3, 300, (1, 90), generator=torch.Generator().manual_seed(4))
    first = generated(model, ids[:, :70], torch.ones(1, 70, dtype=torch.long))
    cache = first.past_key_values
    cache.crop(-(cache.get_seq_length() - 66))
    assert cache.get_seq_length() == 66
    assert len(cache.pages[0].memory) == 2
    with torch.no_grad():
        got = model(ids[:, 66:], past_key_values=cache).logits
    whole = NativeCache(cache.decoder, 1)
    with torch.no_grad():
        wanted = model(ids, past_key_values=whole).logits[:, 66:]
    assert torch.equal(got, wanted)
    copied = NativeCache(cache.decoder, 1)
    model(ids[:, :50], past_key_values=copied)
    copied.batch_repeat_interleave(2)
    other = torch.stack([ids[0, 50:60], ids[0, 60:70]])
    with torch.no_grad():
        got = model(other, past_key_values=copied).logits
    assert torch.equal(got[0], model(ids[:, :60], past_key_values=NativeCache(cache.decoder, 1)).logits[0, 50:])


def test_what_it_cannot_do_goes_through_torch_or_is_refused() -> None:
    model = chatglm().quantize(8)
    ids = torch.randint(3, 300, (1, 10))
    beams = model.generate(
        ids, num_beams=2, do_sample=False, max_new_tokens=3, eos_token_id=None, return_dict_in_generate=True
    )
    assert not isinstance(beams.past_key_values, NativeCache)
    weights = model.generate(
        ids,
        do_sample=False,
        max_new_tokens=2,
        eos_token_id=None,
        return_dict_in_generate=True,
        output_hidden_states=True,
    )
    assert weights.hidden_states is not None
    cache = generated(model, ids, torch.ones_like(ids)).past_key_values
    with pytest.raises(UnsupportedError, match="labels: not supported with a cache of the native decoder"):
        model(ids, past_key_values=cache, labels=ids)
    assert not isinstance(generated(chatglm(), ids, torch.ones_like(ids)).past_key_values, NativeCache)  # not quantised


def test_shapes_that_it_does_not_take() -> None:
    narrow = chatglm(hidden=32, width=8, heads=4, groups=2).quantize(8)
    ids = torch.randint(3, 300, (1, 10))
    assert not isinstance(generated(narrow, ids, torch.ones_like(ids)).past_key_values, NativeCache)
    with pytest.raises(UnsupportedError, match="heads of 8 channels"):
        decoder_of(chatglm(hidden=32, width=8, heads=4, groups=2), torch.float32)
    with pytest.raises(UnsupportedError, match="float32, float16, int16 or int8"):
        decoder_of(chatglm(), torch.bfloat16)


def test_a_changed_weight_is_noticed() -> None:
    model = chatglm().quantize(8)
    ids = torch.randint(3, 300, (1, 10))
    before = generated(model, ids, torch.ones_like(ids))
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(torch.roll(head.weight.data, 1, dims=0))
    after = generated(model, ids, torch.ones_like(ids))
    assert torch.equal(after.logits[0], torch.roll(before.logits[0], 1, dims=1))


def test_shape_is_told_by_the_model() -> None:
    shape, blocks, _, _ = chatglm().decoder_parts()
    assert shape == Shape(4, 2, 16, 96, 1e-5, tuple((2 * i, 2 * i + 1) for i in range(4)))
    assert len(blocks) == 3


def test_pages_are_kept_dropped_and_copied() -> None:
    pages = Pages(100)
    pages.reserve(20 * PAGE_TOKENS)  # more than are reserved at once
    for number, page in enumerate(pages.memory):
        page.fill_(number)
    copied = pages.copy()
    pages.drop(17 * PAGE_TOKENS - 1)
    pages.reserve(40 * PAGE_TOKENS)
    for page in pages.memory[17:]:
        page.fill_(99)
    assert [int(page[0]) for page in pages.memory] == [*range(17), *[99] * 23]
    assert [page.unique().tolist() for page in copied.memory] == [[number] for number in range(20)]
    tables = Pages.tables([pages, copied])
    assert len(set(tables.flatten().tolist())) == 61  # sixty, and none
    pages.drop(0)
    assert not pages.memory
