"""GLM's pre-training objective: parts of a text are removed, and the model generates them.

A text becomes a source and targets. In the source each blank is one mask token. For each blank, the model reads `<sop>`
and the blank's tokens, and predicts the blank's tokens and `<eop>`. One of three tasks is drawn for each text:

| task      | blanks                                                    | mask      | teaches                        |
|-----------|-----------------------------------------------------------|-----------|--------------------------------|
| spans     | short spans, Poisson lengths, 15 % of the text            | `[MASK]`  | to understand                  |
| sentences | whole sentences, 15 % of the text                         | `[sMASK]` | to write what fits in between  |
| documents | its end, or one long span, at least half of it by default | `[gMASK]` | to continue, and long passages |

ChatGLM-6B reads the source in both directions and has two rows of positions. The first row is the place in the source;
for a target it is the place of its mask. The second row is the place in the blank, and 0 in the source. Blanks are in
random order, and a blank attends to those before it. The attention mask follows from the positions (`models/glm.py`).

ChatGLM2, ChatGLM3 and GLM-4 read from left to right with one row of positions. Their pre-training is not published;
only their vocabularies, which have all five tokens, and their prompts, which begin with `[gMASK] sop`, are known. So
this is our choice: blanks follow the source in the order of the text, because nothing else tells which mask they belong
to; and a continued document is `[gMASK] sop text`, with every token learned.

Source: Du et al. 2022, "GLM: General Language Model Pretraining with Autoregressive Blank Infilling", sections 2.1 and
2.2; THUDM/GLM's options, whose names stand in the comments of `InfillSettings`.

Shapes in comments: n tokens of a text, k blanks, S = n + 2k positions of an example.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from chatglm.chat.generations import Generation
from chatglm.chat.tokenizers import ChatGLMTokenizer
from chatglm.errors import InputError, UnsupportedError
from chatglm.training.examples import IGNORE, Example

__all__ = ["InfillSettings", "Infiller", "Symbols", "sentence_ends"]

Ids: TypeAlias = npt.NDArray[np.int32]
Places: TypeAlias = npt.NDArray[np.int64]

SENTENCE_ENDS = ".?!;:…。？！；："
"""Characters that end a sentence, besides a line end."""


@dataclass(frozen=True)
class InfillSettings:
    """Which parts become blanks, and how often; the defaults are those of the reference.

    GLM-10B's mix was `InfillSettings(span_share=0.5, sentence_share=0.3, min_document_ratio=0.25, block_mask_share=0.1,
    short_share=0.02)`. Of the reference's options these are left out: `random_position` (rotary positions are relative,
    a shift of all changes nothing), `sentinel_token` (the vocabularies have none), `masked_lm`, `encoder_decoder`, and
    `context_mask_ratio`, which no published model used.

    Attributes:
        span_share: share of texts with short spans (`bert_prob`).
        sentence_share: share of texts with whole sentences (`gap_sentence_prob`); the rest are documents. A text of one
            sentence gets spans.
        span_ratio: share of a text that becomes blank in the task of spans (`bert_ratio`).
        mean_span: λ of the Poisson distribution of their lengths (`average_block_length`).
        max_span: the longest span; lengths are 1 … max_span, and at most half the text (`max_block_length` − 1).
        single_span_share: share of span texts with one span only (`single_span_prob`).
        sentence_ratio: share of a text that becomes blank in the task of sentences (`gap_sentence_ratio`).
        min_document_ratio: the smallest share of a document that is generated (`gpt_min_ratio`).
        suffix_share: share of documents whose end is generated. In the others a long span with text on both sides is
            generated (`gpt_infill_prob`). If a sample holds several documents, its end is always generated.
        block_mask_share: in the task of spans, share of the input tokens of targets that are hidden, so that the model
            must predict without them (`block_mask_prob`). Needs the token `<dBLOCK>`, which only ChatGLM-6B's
            vocabulary has.
        short_share: share of texts that are cut in two at a random place, so that short texts occur (`short_seq_prob`).
        shuffle_spans: blanks in random order, ChatGLM-6B only (`shuffle_blocks`).
        task_masks: False: `[MASK]` for every task (`task_mask`).
        multi_document: short documents share one sample and attend to each other, as in the reference. Each ends with
            its stop id, and spans are drawn in each document separately. False: they are packed, each as a sample of
            its own.
    """

    span_share: float = 1.0
    sentence_share: float = 0.0
    span_ratio: float = 0.15
    mean_span: float = 3.0
    max_span: int = 39
    single_span_share: float = 0.0
    sentence_ratio: float = 0.15
    min_document_ratio: float = 0.5
    suffix_share: float = 0.5
    block_mask_share: float = 0.0
    short_share: float = 0.0
    shuffle_spans: bool = True
    task_masks: bool = True
    multi_document: bool = False

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith(("_share", "_ratio")) and not _between(value, 0, 1):
                raise InputError(f"infill.{name} is {value!r}; it must be a number from 0 to 1")
            if isinstance(getattr(type(self), name), bool) and not isinstance(value, bool):
                raise InputError(f"infill.{name} is {value!r}; it must be true or false")
        if self.span_share + self.sentence_share > 1 + 1e-9:
            raise InputError(
                f"infill.span_share ({self.span_share}) and infill.sentence_share ({self.sentence_share}) are together "
                "more than 1; lower one of them (the rest is for whole documents)"
            )
        for name in ("span_ratio", "sentence_ratio"):
            if not 0 < getattr(self, name) <= 0.5:
                raise InputError(
                    f"infill.{name} is {getattr(self, name)!r}; it must be above 0 and at most 0.5: blanks need text "
                    "between them"
                )
        if not _between(self.mean_span, 0.1, 500):
            raise InputError(f"infill.mean_span is {self.mean_span!r}; it must be a number from 0.1 to 500")
        if isinstance(self.max_span, bool) or not isinstance(self.max_span, int) or self.max_span < 1:
            raise InputError(f"infill.max_span is {self.max_span!r}; it must be 1 or more")

    @property
    def document_share(self) -> float:
        """Share of texts that are continued or have one long blank."""
        return max(0.0, 1 - self.span_share - self.sentence_share)


def _between(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


@dataclass(frozen=True, slots=True)
class Symbols:
    """The ids of control tokens for infilling.

    Attributes:
        mask, sentence_mask, document_mask: `[MASK]`, `[sMASK]`, `[gMASK]`.
        start, stop: `<sop>` and `<eop>`, around a blank's tokens.
        end: the id that ends a text, and an answer in a dialogue.
        block: `<dBLOCK>`, which replaces a hidden token; None if the vocabulary lacks it.
        two_rows: use ChatGLM-6B's positions and order.
    """

    mask: int
    sentence_mask: int
    document_mask: int
    start: int
    stop: int
    end: int
    block: int | None = None
    two_rows: bool = False

    @classmethod
    def of(cls, tokenizer: ChatGLMTokenizer) -> Symbols:
        """The control ids of a tokenizer."""
        names = {name.strip("<>"): tokenizer.get_command(name) for name in tokenizer.all_special_tokens}
        return cls(
            mask=names["[MASK]"],
            sentence_mask=names["[sMASK]"],
            document_mask=names["[gMASK]"],
            start=names["sop"],
            stop=names["eop"],
            end=int(tokenizer.eos_token_id),
            block=names.get("dBLOCK"),
            two_rows=tokenizer.generation == Generation.CHATGLM,
        )


def sentence_ends(tokenizer: ChatGLMTokenizer) -> npt.NDArray[np.bool_]:
    """Which ids of the vocabulary end a sentence, (vocabulary,)."""
    texts = (tokenizer.token_bytes(i).decode("utf-8", "ignore") for i in range(len(tokenizer)))
    return np.array(["\n" in text or text.rstrip()[-1:] in set(SENTENCE_ENDS) for text in texts], dtype=np.bool_)


class Infiller:
    """Makes examples from texts. All randomness comes from the given generator.

    Args:
        ends: which ids end a sentence (`sentence_ends`); needed if `settings.sentence_share` is not 0.

    Raises:
        UnsupportedError: `block_mask_share` is used, but the vocabulary has no `<dBLOCK>`.
        InputError: `sentence_share` is used without `ends`.
    """

    def __init__(
        self,
        symbols: Symbols,
        settings: InfillSettings = InfillSettings(),
        ends: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        if settings.block_mask_share and symbols.block is None:
            raise UnsupportedError(
                f"infill.block_mask_share is {settings.block_mask_share}: this vocabulary has no <dBLOCK> token to "
                "put in place of others; only ChatGLM-6B's has"
            )
        if settings.sentence_share and ends is None:
            raise InputError("infill.sentence_share needs `ends`, the ids that end a sentence: see sentence_ends")
        self.symbols, self.settings = symbols, settings
        self._ends = ends
        lengths = np.arange(1, settings.max_span + 1)
        # Poisson pmf up to a factor: λ^l / l!, computed with logarithms, because both grow large.
        logs = lengths * math.log(settings.mean_span) - np.cumsum(np.log(lengths))
        self._cdf = np.cumsum(np.exp(logs - logs.max()))
        self._mean = float((lengths * np.diff(self._cdf, prepend=0)).sum() / self._cdf[-1])

    @classmethod
    def of(cls, tokenizer: ChatGLMTokenizer, settings: InfillSettings = InfillSettings()) -> Infiller:
        """An infiller for a tokenizer's vocabulary."""
        return cls(Symbols.of(tokenizer), settings, sentence_ends(tokenizer) if settings.sentence_share else None)

    # Length limits of examples: rows are planned before anything is drawn

    def room(self, tokens: int) -> int:
        """The most positions of an example made from a text with this many tokens."""
        return tokens + 2 * self._most(tokens)

    def window(self, length: int) -> int:
        """The most tokens of a text whose example always fits into `length` positions.

        Raises:
            InputError: `length` has no room for a text.
        """
        tokens = bisect.bisect_right(range(length), length, lo=1, key=self.room) - 1 if length > 1 else 0
        if tokens < 2:
            raise InputError(f"length {length}: an example of two tokens has up to {self.room(2)} positions")
        return tokens

    def _most(self, tokens: int) -> int:
        """The most blanks that are drawn: 1.5 times the expected number, plus two. For λ = 3 this is above five
        standard deviations.
        """
        settings = self.settings
        if not settings.span_share and not settings.sentence_share:
            return 1
        budget = math.ceil(max(settings.span_ratio, settings.sentence_ratio) * tokens)
        return min(2 + math.ceil(1.5 * budget / self._mean), max(1, tokens))

    # Sampling

    def __call__(self, text: Ids, generator: np.random.Generator, where: str = "") -> Example:
        """Make an example from a text (n,): one document, a part of one, or several. Each document but the last ends
        with `symbols.end`; the last may be cut off.

        Raises:
            InputError: the text is empty.
        """
        settings, symbols = self.settings, self.symbols
        documents = self._documents(text)
        if not documents:
            raise InputError(f"{where}: the text is empty" if where else "the text is empty")
        draw = generator.random()
        if draw >= settings.span_share + settings.sentence_share:
            if len(documents) > 1 or generator.random() < settings.suffix_share:
                return self._suffix(text, generator, where)
            begin, stop = documents[0]
            blanks = self._long_span(stop - begin, generator)
            return self._build(text[begin:stop], *blanks, symbols.document_mask, False, generator, where)
        # The last end id adds no information to the end of the source.
        text = text[: documents[-1][1]]
        if draw >= settings.span_share and (chosen := self._sentences(text, documents, generator)) is not None:
            return self._build(text, *chosen, symbols.sentence_mask, False, generator, where)
        single = settings.single_span_share > 0 and generator.random() < settings.single_span_share
        drawn = [self._spans(stop - begin, single, generator) for begin, stop in documents]
        starts = np.concatenate([begin + found for (begin, _), (found, _) in zip(documents, drawn, strict=True)])
        lengths = np.concatenate([found for _, found in drawn])
        return self._build(text, starts, lengths, symbols.mask, True, generator, where)

    def _documents(self, text: Ids) -> list[tuple[int, int]]:
        """Begin and stop of each document, without its end id. Empty documents are left out."""
        ends = [int(end) for end in np.flatnonzero(text == self.symbols.end)]
        bounds = zip([0, *(end + 1 for end in ends)], [*ends, len(text)], strict=True)
        return [(begin, stop) for begin, stop in bounds if begin < stop]

    def _spans(self, n: int, single: bool, generator: np.random.Generator) -> tuple[Places, Places]:
        """Draw spans that do not touch; returns starts and lengths (k,), in the order of the text.

        Lengths are drawn until they reach the ratio. Every placement is equally likely: if m tokens stay in the source,
        the spans go into k different ones of its m + 1 gaps.
        """
        longest = max(1, min(self.settings.max_span, n // 2))
        cdf = self._cdf[:longest] / self._cdf[longest - 1]
        lengths = np.searchsorted(cdf, generator.random(1 if single else self._most(n)), side="right") + 1
        sums = np.cumsum(lengths)
        enough = int(np.searchsorted(sums, self.settings.span_ratio * n)) + 1
        fitting = int(np.count_nonzero(sums + np.arange(len(sums)) <= n))
        # The length that reaches the ratio tends to be long. It must not always be the last in the text.
        lengths = generator.permutation(lengths[: min(enough, fitting)])
        gaps = np.sort(generator.choice(n - int(lengths.sum()) + 1, len(lengths), replace=False, shuffle=False))
        return gaps + np.cumsum(lengths) - lengths, lengths

    def _sentences(
        self, text: Ids, documents: list[tuple[int, int]], generator: np.random.Generator
    ) -> tuple[Places, Places] | None:
        """Draw sentences in each document until they reach the ratio; one always stays. None if no document has two."""
        assert self._ends is not None
        starts, lengths = [], []
        for begin, stop in documents:
            ends = self._ends[text[begin:stop]]
            ends[:-1] &= ~ends[1:]  # only the last of several ends in a row counts
            ends[-1] = True
            bounds = np.concatenate([[0], np.flatnonzero(ends) + 1])
            sizes = np.diff(bounds)
            order = generator.permutation(len(sizes))
            budget = self.settings.sentence_ratio * (stop - begin)
            enough = int(np.searchsorted(np.cumsum(sizes[order]), budget)) + 1
            chosen = np.sort(order[: min(enough, len(sizes) - 1, self._most(stop - begin))])
            starts.append(begin + bounds[chosen])
            lengths.append(sizes[chosen])
        chosen = np.concatenate(lengths)
        return (np.concatenate(starts), chosen) if len(chosen) else None

    def _long_length(self, n: int, generator: np.random.Generator) -> int:
        """Number of the n tokens that are generated: uniform from the smallest ratio to all but two."""
        least = max(1, int(self.settings.min_document_ratio * n))
        return int(generator.integers(least, max(least, n - 2) + 1))

    def _long_span(self, n: int, generator: np.random.Generator) -> tuple[Places, Places]:
        length = self._long_length(n, generator)
        return np.array([generator.integers(0, n - length + 1)]), np.array([length])

    # Layout

    def _suffix(self, text: Ids, generator: np.random.Generator, where: str) -> Example:
        """The end of the text after `[gMASK] <sop>`, without `<eop>`: the text goes on, or its last token ends it."""
        symbols, n = self.symbols, len(text)
        opening = [symbols.document_mask, symbols.start]
        words = text.tolist()
        if not symbols.two_rows:
            ids, targets = [*opening, *words[:-1]], [IGNORE, *words]
            return Example(ids, targets, (range(len(ids)),), where)
        length = self._long_length(n, generator)
        source = n - length
        ids = [*words[:source], *opening, *words[source:-1]]
        targets = [IGNORE] * (source + 1) + words[source:]
        row0 = [*range(source + 1), *[source] * length]
        row1 = [*[0] * (source + 1), *range(1, length + 1)]
        return Example(ids, targets, (row0, row1), where)

    def _build(
        self,
        text: Ids,
        starts: Places,
        lengths: Places,
        mask: int,
        hides: bool,
        generator: np.random.Generator,
        where: str,
    ) -> Example:
        """Build source and targets for blanks (k,), which are given in the order of the text."""
        symbols, settings = self.symbols, self.settings
        # Source: the first token of each blank is replaced by its mask; its other tokens are removed.
        inside = np.zeros(len(text) + 1, dtype=np.int64)
        inside[starts + 1] += 1
        inside[starts + lengths] -= 1
        source = text.copy()
        source[starts] = mask if settings.task_masks else symbols.mask
        source = source[np.cumsum(inside[:-1]) == 0]
        places = starts - (np.cumsum(lengths - 1) - (lengths - 1))

        # Targets: one position more than the blank has tokens. Inputs begin with `<sop>`, predictions end with `<eop>`.
        if symbols.two_rows and settings.shuffle_spans:
            order = generator.permutation(len(starts))
            starts, lengths, places = starts[order], lengths[order], places[order]
        sizes = lengths + 1
        step = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # 0 … length in each blank
        at = np.repeat(starts, sizes) + step
        is_stop = step == np.repeat(lengths, sizes)
        ids = np.where(step == 0, symbols.start, text[at - 1])
        targets = np.where(is_stop, symbols.stop, text[np.minimum(at, len(text) - 1)])
        if hides and settings.block_mask_share:
            ids[(generator.random(len(ids)) < settings.block_mask_share) & (step > 0)] = symbols.block

        size = len(source)
        rows: tuple[list[int] | range, ...] = (range(size + len(ids)),)
        if symbols.two_rows:
            rows = ([*range(size), *np.repeat(places, sizes).tolist()], [*[0] * size, *(step + 1).tolist()])
        return Example([*source.tolist(), *ids.tolist()], [*[IGNORE] * size, *targets.tolist()], rows, where)
