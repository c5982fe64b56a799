"""Blank infilling: what is blanked follows the stated distributions, and every example gives its text back."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng

from chatglm.chat.tokenizers import ChatGLMTokenizer
from chatglm.errors import InputError, UnsupportedError
from chatglm.models.configuration import GLMConfig
from chatglm.models.glm import GLMForConditionalGeneration
from chatglm.models.positions import two_row_positions
from chatglm.training.examples import IGNORE, Collator, Example
from chatglm.training.infill import Infiller, InfillSettings, Symbols, sentence_ends

MASK, GMASK, SMASK, SOP, END, BLOCK = 150, 151, 152, 154, 155, 157
TWO_ROWS = Symbols(
    mask=MASK, sentence_mask=SMASK, document_mask=GMASK, start=SOP, stop=156, end=END, block=BLOCK, two_rows=True
)
ONE_ROW = replace(TWO_ROWS, two_rows=False, block=None)
STOP = TWO_ROWS.stop
MASKS = (MASK, SMASK, GMASK)
PERIOD = np.arange(160) % 10 == 9  # ids that end a sentence


def text_of(n: int, seed: int = 0) -> Any:
    return default_rng(seed).integers(10, 140, n).astype(np.int32)


def blanks_of(example: Example) -> tuple[list[int], list[tuple[int, list[int]]]]:
    """The source, and each blank with where its mask stands in it; checks ids, targets and positions by the way."""
    ids, targets = list(example.ids), list(example.targets)
    first = ids.index(SOP)
    source = ids[:first]
    assert targets[:first] == [IGNORE] * first
    places = [at for at, token in enumerate(source) if token in MASKS]
    starts = [at for at, token in enumerate(ids) if token == SOP] + [len(ids)]
    assert len(places) == len(starts) - 1
    if len(example.positions) == 2:
        row0, row1 = map(list, example.positions)
        assert row0[:first] == list(range(first))
        assert row1[:first] == [0] * first
    else:
        assert list(example.positions[0]) == list(range(len(ids)))
    blanks, hidden = [], BLOCK in ids
    for number, (begin, stop) in enumerate(itertools.pairwise(starts)):
        place = places[number]
        if len(example.positions) == 2:
            place = row0[begin]
            assert source[place] in MASKS
            assert row0[begin:stop] == [place] * (stop - begin)
            assert row1[begin:stop] == list(range(1, stop - begin + 1))
        assert targets[stop - 1] == STOP
        if not hidden:
            assert ids[begin + 1 : stop] == targets[begin : stop - 1]
        blanks.append((place, targets[begin : stop - 1]))
    assert sorted(place for place, _ in blanks) == places
    return source, blanks


def restored(example: Example) -> list[int]:
    """The text that an example was made of."""
    ids, targets = list(example.ids), list(example.targets)
    if GMASK in ids and STOP not in targets:  # a suffix
        at = ids.index(GMASK)
        assert ids[at + 1] == SOP
        learned = [target for target in targets if target != IGNORE]
        assert targets == [IGNORE] * (at + 1) + learned
        assert ids[at + 2 :] == learned[:-1]
        return ids[:at] + learned
    source, blanks = blanks_of(example)
    filled = dict(blanks)
    return [token for at, one in enumerate(source) for token in filled.get(at, [one])]


def chi_square(counts: Sequence[float], expected: Sequence[float]) -> float:
    assert min(expected) > 5
    assert sum(counts) == pytest.approx(sum(expected))
    return sum((c - e) ** 2 / e for c, e in zip(counts, expected, strict=True))


CRITICAL = {1: 10.83, 3: 16.27, 5: 20.52, 9: 27.88, 12: 32.91}
"""By degrees of freedom: exceeded once in a thousand seeds."""

MIXES = st.builds(
    lambda span, sentence, **others: InfillSettings(
        span_share=span, sentence_share=round((1 - span) * sentence, 6), **others
    ),
    st.sampled_from([0.0, 0.4, 1.0]),
    st.sampled_from([0.0, 0.5, 1.0]),
    span_ratio=st.sampled_from([0.02, 0.15, 0.5]),
    mean_span=st.sampled_from([0.3, 3.0, 20.0]),
    max_span=st.sampled_from([1, 5, 39]),
    single_span_share=st.sampled_from([0.0, 0.5]),
    sentence_ratio=st.sampled_from([0.15, 0.5]),
    min_document_ratio=st.sampled_from([0.0, 0.5, 1.0]),
    suffix_share=st.sampled_from([0.0, 0.5, 1.0]),
    shuffle_spans=st.booleans(),
    task_masks=st.booleans(),
)
TEXTS = st.lists(st.integers(10, 140), min_size=1, max_size=90)


class TestLaws:
    @given(TEXTS, MIXES, st.booleans(), st.booleans(), st.integers(0, 2**32))
    @settings(max_examples=400, deadline=None)
    def test_round_trip(self, words: list[int], mix: InfillSettings, two: bool, ends: bool, seed: int) -> None:
        text = np.array([*words, *[END] * ends], dtype=np.int32)
        infiller = Infiller(TWO_ROWS if two else ONE_ROW, replace(mix, task_masks=True), PERIOD)
        example = infiller(text, default_rng(seed), "a.txt:3")
        back = restored(example)
        assert back == words or back == text.tolist()
        assert example.where == "a.txt:3"
        assert {len(example.ids), len(example.targets), *map(len, example.positions)} == {len(example)}
        assert len(example) <= infiller.room(len(text))
        assert any(target != IGNORE for target in example.targets)
        if MASK in example.ids:
            source, blanks = blanks_of(example)
            assert not any(a == b == MASK for a, b in itertools.pairwise(source)), "spans touch"
            assert all(1 <= len(blank) <= max(1, min(mix.max_span, len(words) // 2)) for _, blank in blanks)

    @given(st.lists(TEXTS, min_size=2, max_size=5), MIXES, st.booleans(), st.booleans(), st.integers(0, 2**32))
    @settings(max_examples=200, deadline=None)
    def test_documents_are_never_crossed(
        self, documents: list[list[int]], mix: InfillSettings, two: bool, whole: bool, seed: int
    ) -> None:
        text = np.array([token for document in documents for token in [*document, END]], dtype=np.int32)
        text = text if whole else text[:-1]
        infiller = Infiller(TWO_ROWS if two else ONE_ROW, mix, PERIOD)
        example = infiller(text, default_rng(seed))
        assert len(example) <= sum(infiller.room(len(document) + 1) for document in documents)
        if STOP not in example.targets:
            assert restored(example) == text.tolist()
            return
        inner = text[: len(text) - whole].tolist()
        assert restored(example) == inner
        _, blanks = blanks_of(example)
        assert not any(END in blank for _, blank in blanks)
        if MASK in example.ids and mix.task_masks:  # spans: in each document
            assert len(blanks) >= len(documents)

    @given(MIXES, st.integers(10, 600))
    @settings(max_examples=100, deadline=None)
    def test_window_is_the_inverse_of_room(self, mix: InfillSettings, length: int) -> None:
        infiller = Infiller(TWO_ROWS, mix, PERIOD)
        window = infiller.window(length)
        assert infiller.room(window) <= length < infiller.room(window + 1)

    def test_the_same_generator_gives_the_same_example(self) -> None:
        infiller = Infiller(TWO_ROWS, InfillSettings(span_share=0.4, sentence_share=0.3), PERIOD)
        made = [[infiller(text_of(80), default_rng((7, n))) for n in range(20)] for _ in range(2)]
        assert made[0] == made[1]
        assert len({tuple(example.ids) for example in made[0]}) > 15

    def test_the_text_is_left_as_it_was(self) -> None:
        text = text_of(60)
        before = text.copy()
        text.flags.writeable = False
        for seed in range(30):
            Infiller(TWO_ROWS, InfillSettings(span_share=0.4, sentence_share=0.3), PERIOD)(text, default_rng(seed))
        assert (text == before).all()


class TestStatistics:
    @pytest.mark.parametrize("max_span", [39, 6])
    def test_span_lengths_are_poisson(self, max_span: int) -> None:
        infiller = Infiller(TWO_ROWS, InfillSettings(max_span=max_span))
        # Long texts: the last length of a text, which fills its ratio, is not drawn like the others.
        examples = [infiller(text_of(20_000), default_rng(seed)) for seed in range(40)]
        lengths = Counter(len(blank) for example in examples for _, blank in blanks_of(example)[1])
        total = sum(lengths.values())
        assert total > 30_000
        assert max(lengths) <= max_span
        pmf = np.array([math.exp(-3) * 3**length / math.factorial(length) for length in range(1, max_span + 1)])
        expected = total * pmf / pmf.sum()
        top = min(max_span, 10)
        counts = [lengths[length] for length in range(1, top)] + [sum(lengths[n] for n in range(top, max_span + 1))]
        bins = [*expected[: top - 1], expected[top - 1 :].sum()]
        assert chi_square(counts, bins) < CRITICAL[top - 1]

    def test_coverage(self) -> None:
        infiller = Infiller(TWO_ROWS)
        shares = []
        for seed in range(2000):
            _, blanks = blanks_of(infiller(text_of(512), default_rng(seed)))
            shares.append(sum(len(blank) for _, blank in blanks) / 512)
        assert min(shares) >= 0.15
        assert max(shares) < 0.15 + 39 / 512
        # What the last span exceeds the ratio by is (E[l²] / E[l] − 1) / 2 tokens on average for lengths l.
        pmf = np.array([3.0**n / math.factorial(n) for n in range(1, 40)])
        n = np.arange(1, 40)
        excess = ((n * n * pmf).sum() / (n * pmf).sum() - 1) / 2
        assert np.mean(shares) * 512 == pytest.approx(math.ceil(0.15 * 512) + excess, abs=0.15)

    def test_every_placement_is_equally_likely(self) -> None:
        infiller = Infiller(TWO_ROWS, InfillSettings(span_ratio=0.5, max_span=1))
        seen: Counter[tuple[int, ...]] = Counter()
        for seed in range(4000):
            example = infiller(np.arange(10, 16, dtype=np.int32), default_rng(seed))
            _, blanks = blanks_of(example)
            seen[tuple(sorted(token - 10 for _, blank in blanks for token in blank))] += 1
        assert set(seen) == {(0, 2, 4), (0, 2, 5), (0, 3, 5), (1, 3, 5)}
        assert chi_square(list(seen.values()), [1000] * 4) < CRITICAL[3]

    def test_the_last_span_is_like_the_first(self) -> None:
        """The length that fills the ratio tends to be long, and stands anywhere."""
        infiller = Infiller(TWO_ROWS, InfillSettings(shuffle_spans=False))
        ends = [blanks_of(infiller(text_of(40), default_rng(seed)))[1] for seed in range(3000)]
        several = [blanks for blanks in ends if len(blanks) > 1]
        first, last = ([len(blanks[at][1]) for blanks in several] for at in (0, -1))
        error = np.std(first) * np.sqrt(2 / len(several))
        assert abs(np.mean(first) - np.mean(last)) < 3.3 * error

    def test_every_order_is_equally_likely(self) -> None:
        infiller = Infiller(TWO_ROWS, InfillSettings(span_ratio=0.5, max_span=1))
        orders: Counter[tuple[int, ...]] = Counter()
        for seed in range(6000):
            _, blanks = blanks_of(infiller(text_of(6), default_rng(seed)))
            orders[tuple(np.argsort([place for place, _ in blanks]).tolist())] += 1
        assert len(orders) == 6
        assert chi_square(list(orders.values()), [1000] * 6) < CRITICAL[5]

    @pytest.mark.parametrize("symbols", [replace(TWO_ROWS), ONE_ROW])
    def test_order_of_the_text(self, symbols: Symbols) -> None:
        infiller = Infiller(symbols, InfillSettings(shuffle_spans=not symbols.two_rows))
        for seed in range(20):
            places = [place for place, _ in blanks_of(infiller(text_of(100), default_rng(seed)))[1]]
            assert places == sorted(places)

    def test_mixing_ratios(self) -> None:
        mix = InfillSettings(span_share=0.5, sentence_share=0.3, suffix_share=0.25)
        infiller = Infiller(TWO_ROWS, mix, PERIOD)
        kinds: Counter[str] = Counter()
        for seed in range(4000):
            example = infiller(text_of(80), default_rng(seed))
            mask = next(token for token in example.ids if token in MASKS)
            kinds[f"{mask} {'infill' if STOP in example.targets else 'suffix'}"] += 1
        expected = {f"{MASK} infill": 0.5, f"{SMASK} infill": 0.3, f"{GMASK} suffix": 0.05, f"{GMASK} infill": 0.15}
        assert set(kinds) == set(expected)
        assert chi_square([kinds[k] for k in expected], [4000 * p for p in expected.values()]) < CRITICAL[3]
        assert mix.document_share == pytest.approx(0.2)

    def test_one_mask_for_all_tasks(self) -> None:
        infiller = Infiller(TWO_ROWS, InfillSettings(span_share=0, sentence_share=1, task_masks=False), PERIOD)
        assert {t for t in infiller(text_of(80), default_rng(0)).ids if t in MASKS} == {MASK}

    @pytest.mark.parametrize("suffix", [0.0, 1.0])
    def test_document_lengths_are_uniform(self, suffix: float) -> None:
        infiller = Infiller(TWO_ROWS, InfillSettings(span_share=0, suffix_share=suffix))
        lengths: Counter[int] = Counter()
        starts: Counter[int] = Counter()
        for seed in range(5200):
            example = infiller(text_of(28), default_rng(seed))
            length = sum(target not in (IGNORE, STOP) for target in example.targets)
            lengths[length] += 1
            if length == 25 and not suffix:
                starts[list(example.ids).index(GMASK)] += 1
        assert set(lengths) == set(range(14, 27))
        assert chi_square(list(lengths.values()), [400] * 13) < CRITICAL[12]
        if not suffix:
            assert chi_square([starts[n] for n in range(4)], [lengths[25] / 4] * 4) < CRITICAL[3]

    def test_single_spans(self) -> None:
        infiller = Infiller(TWO_ROWS, InfillSettings(single_span_share=0.25))
        single = sum(len(blanks_of(infiller(text_of(200), default_rng(s)))[1]) == 1 for s in range(2000))
        assert chi_square([single, 2000 - single], [500, 1500]) < CRITICAL[1]

    def test_block_mask(self) -> None:
        plain = Infiller(TWO_ROWS)
        hiding = Infiller(TWO_ROWS, InfillSettings(block_mask_share=0.3))
        hidden = read = 0
        for seed in range(300):
            one, other = plain(text_of(200), default_rng(seed)), hiding(text_of(200), default_rng(seed))
            assert one.targets == other.targets
            assert one.positions == other.positions
            changed = [(a, b) for a, b in zip(one.ids, other.ids, strict=True) if a != b]
            assert all(b == BLOCK and a not in (SOP, *MASKS) for a, b in changed)
            assert BLOCK not in list(other.ids)[: list(other.ids).index(SOP)]
            hidden += len(changed)
            read += sum(target not in (IGNORE, STOP) for target in one.targets)
        assert chi_square([hidden, read - hidden], [0.3 * read, 0.7 * read]) < CRITICAL[1]


class TestSentences:
    def test_whole_sentences_until_the_ratio(self) -> None:
        infiller = Infiller(TWO_ROWS, InfillSettings(span_share=0, sentence_share=1), PERIOD)
        sentences = [[10, 11, 19], [12, 13, 14, 29], [15, 16, 39, 49], [17, 18, 20, 21, 59], [22, 23]]
        text = np.array([*itertools.chain(*sentences)], dtype=np.int32)
        chosen: Counter[tuple[int, ...]] = Counter()
        for seed in range(2000):
            source, blanks = blanks_of(infiller(text, default_rng(seed)))
            assert {token for token in source if token in MASKS} == {SMASK}
            assert all(blank in sentences for _, blank in blanks)
            sizes = [len(blank) for _, blank in blanks]
            assert sum(sizes) >= 0.15 * len(text)
            assert sum(sizes[:-1]) < 0.15 * len(text) or len(sizes) <= 2
            chosen.update(tuple(blank) for _, blank in blanks)
        assert set(chosen) == set(map(tuple, sentences))

    def test_one_sentence_gets_spans(self) -> None:
        infiller = Infiller(TWO_ROWS, InfillSettings(span_share=0, sentence_share=1), PERIOD)
        example = infiller(np.array([10, 11, 12, 13, 19, 29], dtype=np.int32), default_rng(0))
        assert MASK in example.ids
        assert SMASK not in example.ids

    @pytest.mark.parametrize("name", ["chatglm", "chatglm2", "chatglm3", "glm4"])
    def test_ends_of_a_vocabulary(self, name: str, checkpoint: Callable[[str], Path]) -> None:
        tokenizer = ChatGLMTokenizer.from_pretrained(checkpoint(name))
        ends = sentence_ends(tokenizer)
        assert ends.shape == (len(tokenizer),)
        for text, counted in {"你好。": True, "Good!": True, "走\n": True, "他说：好": False, "a, b": False}.items():
            assert ends[tokenizer.encode_text(text)[-1]] == counted, text


class TestLayout:
    TEXT = np.array([10, 11, 12, 13, END], dtype=np.int32)

    def test_suffix_reads_as_inference_does(self) -> None:
        infiller = Infiller(TWO_ROWS, InfillSettings(span_share=0, suffix_share=1))
        config = tiny_config()
        for seed in range(10):
            example = infiller(self.TEXT, default_rng(seed))
            assert example.targets[-1] == END
            expected = two_row_positions(torch.tensor([list(example.ids)]), config)[0]
            assert torch.equal(torch.tensor([list(row) for row in example.positions]), expected)

    def test_one_row_suffix_is_the_text_behind_the_prompt_s_beginning(self) -> None:
        example = Infiller(ONE_ROW, InfillSettings(span_share=0, suffix_share=1))(self.TEXT, default_rng(0))
        assert example.ids == [GMASK, SOP, 10, 11, 12, 13]
        assert example.targets == [IGNORE, 10, 11, 12, 13, END]
        assert list(example.positions[0]) == [0, 1, 2, 3, 4, 5]

    def test_spans(self) -> None:
        infiller = Infiller(ONE_ROW, InfillSettings(span_ratio=0.5, max_span=1))
        example = infiller(np.array([10, 11, 12], dtype=np.int32), default_rng(0))
        assert example.ids == [MASK, 11, MASK, SOP, 10, SOP, 12]
        assert example.targets == [IGNORE, IGNORE, IGNORE, 10, STOP, 12, STOP]

    @pytest.mark.parametrize("name", ["chatglm", "chatglm2", "chatglm3", "glm4"])
    def test_symbols_of_a_tokenizer(self, name: str, checkpoint: Callable[[str], Path]) -> None:
        tokenizer = ChatGLMTokenizer.from_pretrained(checkpoint(name))
        symbols = Symbols.of(tokenizer)
        assert symbols.two_rows == (name == "chatglm")
        masks = [tokenizer.get_command(mask) for mask in ("[MASK]", "[sMASK]", "[gMASK]")]
        assert [symbols.mask, symbols.sentence_mask, symbols.document_mask] == masks
        if name == "chatglm":
            assert symbols.block == tokenizer.get_command("<dBLOCK>")
            assert symbols.end == symbols.stop == tokenizer.get_command("<eop>")
            Infiller.of(tokenizer, InfillSettings(block_mask_share=0.1))
        else:
            assert [symbols.document_mask, symbols.start] == tokenizer.get_prefix_tokens()
            with pytest.raises(UnsupportedError, match=r"block_mask_share .* <dBLOCK>"):
                Infiller.of(tokenizer, InfillSettings(block_mask_share=0.1))


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"span_share": 1.2}, "infill.span_share is 1.2"),
            ({"span_share": True}, "infill.span_share is True"),
            ({"span_share": float("nan")}, "infill.span_share is nan"),
            ({"span_share": "0.5"}, "infill.span_share is '0.5'"),
            ({"span_share": 0.8, "sentence_share": 0.3}, "together more than 1"),
            ({"span_ratio": 0}, "infill.span_ratio is 0"),
            ({"sentence_ratio": 0.7}, "infill.sentence_ratio is 0.7"),
            ({"mean_span": 0}, "infill.mean_span is 0"),
            ({"max_span": 0}, "infill.max_span is 0"),
            ({"max_span": 2.5}, "infill.max_span is 2.5"),
            ({"shuffle_spans": "no"}, "infill.shuffle_spans is 'no'"),
        ],
    )
    def test_settings(self, changes: dict[str, Any], named: str) -> None:
        with pytest.raises(InputError, match=named):
            InfillSettings(**changes)

    def test_texts_and_lengths(self) -> None:
        infiller = Infiller(TWO_ROWS)
        for empty in ([], [END], [END, END]):
            with pytest.raises(InputError, match=r"b.txt:1: the text is empty"):
                infiller(np.array(empty, dtype=np.int32), default_rng(0), "b.txt:1")
        for length in (0, 1, 5):
            with pytest.raises(InputError, match=f"length {length}: "):
                infiller.window(length)
        with pytest.raises(InputError, match="sentence_share needs `ends`"):
            Infiller(TWO_ROWS, InfillSettings(span_share=0.5, sentence_share=0.5))


# With a model


def tiny_config(**changes: Any) -> GLMConfig:
    sizes = {"vocab_size": 160, "hidden_size": 32, "num_layers": 2, "num_attention_heads": 2, "inner_hidden_size": 64}
    ids = {"mask_token_id": MASK, "gmask_token_id": GMASK, "bos_token_id": SOP, "eos_token_id": END, "pad_token_id": 3}
    return GLMConfig(**{**sizes, **ids, **changes})


def random_model() -> Any:
    torch.manual_seed(0)
    model = GLMForConditionalGeneration(tiny_config())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.double().eval()


@torch.no_grad()
def scores(model: Any, rows: Sequence[Example | list[Example]]) -> torch.Tensor:
    batch = Collator(3, multiple=1)(rows)
    batch.pop("shift_labels")
    return model(**batch, use_cache=False).logits


class TestModel:
    def example(self) -> Example:
        example = Infiller(TWO_ROWS, InfillSettings(span_ratio=0.3))(text_of(24), default_rng(1))
        assert list(example.ids).count(SOP) >= 3
        return example

    def changed(self, example: Example, at: int) -> Example:
        ids = list(example.ids)
        ids[at] = 9
        return replace(example, ids=ids)

    def test_what_a_target_sees(self) -> None:
        """All of the source, and causally the targets before it, those of earlier blanks too."""
        model, example = random_model(), self.example()
        before = scores(model, [example])[0]
        first = list(example.ids).index(SOP)
        for at in range(len(example)):
            moved = (scores(model, [self.changed(example, at)])[0] - before).abs().amax(dim=-1) > 1e-9
            # A changed id in the source changes all, in the targets all from there on.
            assert moved.tolist() == [at < first or here >= at for here in range(len(example))]

    def test_packed_as_alone(self) -> None:
        model = random_model()
        infiller = Infiller(TWO_ROWS, InfillSettings(span_share=0.4, sentence_share=0.3), PERIOD)
        examples = [infiller(text_of(n, n), default_rng(n)) for n in (1, 7, 12, 20)]
        packed = scores(model, [examples, [examples[0]]])
        alone = torch.cat([scores(model, [example])[0] for example in examples])
        torch.testing.assert_close(packed[0], alone)
        torch.testing.assert_close(packed[1, : len(examples[0])], alone[: len(examples[0])])

    def test_a_pretrained_model_fills_blanks(self) -> None:
        """Each text draws its words from one of eight topics. Of texts that were never seen, a model tells the topic of
        their first word from what follows it: nothing stands before."""
        topics, words, steps, rng = 8, 5, 200, default_rng(0)
        topic = rng.integers(0, topics, 700)
        texts = (10 + topic[:, None] * words + rng.integers(0, words, (700, 12))).astype(np.int32)
        train, held = texts[:500], texts[500:]  # of 8 · 5¹² that there could be

        torch.manual_seed(0)
        model = GLMForConditionalGeneration(tiny_config()).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.98), weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1, (step + 1) / 20) * (1 - step / (steps + 20))
        )
        infiller, collate = Infiller(TWO_ROWS, InfillSettings(span_share=0.9)), Collator(3)
        for step in range(steps):
            chosen = rng.integers(0, len(train), 32).tolist()
            loss = model(**collate([infiller(train[n], default_rng((step, n))) for n in chosen])).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()

        asked = [without_first(text) for text in held]
        predicted = scores(model.eval(), asked)[:, -1].softmax(dim=-1)
        fitting = torch.from_numpy(10 + topic[500:, None] * words + np.arange(words))
        assert predicted.gather(1, fitting).sum(dim=1).mean() > 0.9, "chance is 1/8"


def without_first(text: Any) -> Example:
    """A text whose first word is blank, as inference asks for it; the last position predicts it."""
    rows = ([*range(len(text)), 0], [*[0] * len(text), 1])
    return Example([MASK, *text[1:].tolist(), SOP], [*[IGNORE] * len(text), int(text[0])], rows)
