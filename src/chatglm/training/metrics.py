"""Compares generated answers with references: Rouge-1, Rouge-2, Rouge-L and BLEU-4; works for Chinese too.

Rouge compares words; Chinese text is split into words by jieba, as in the official scripts. BLEU is computed by
sacrebleu over the whole set, with its `zh` tokens (Chinese characters and other words); papers can be compared by this
number. The official scripts average a BLEU of each answer instead. All scores are from 0 to 100.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import random
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from chatglm.chat.formats import ChatFormat
from chatglm.chat.messages import Message
from chatglm.errors import DependencyError, InputError, NumericalError, UnsupportedError
from chatglm.loading import Loaded
from chatglm.training.dialogues import Columns, Dialogue, Paths, read_dialogues
from chatglm.training.examples import IGNORE, Collator, Tally, counted, encode_files

__all__ = ["NAMES", "Answers", "check_installed", "compare", "evaluate"]

NAMES = ("rouge-1", "rouge-2", "rouge-l", "bleu-4")

_ROUGE = {"rouge-1": "rouge1", "rouge-2": "rouge2", "rouge-l": "rougeL"}


def compare(answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Mean F-measure of each Rouge, and BLEU-4, of answers against references; each 0 … 100.

    Raises:
        InputError: there are no answers, or there are more or fewer references.
        DependencyError: the packages are not installed.
    """
    if not answers or len(answers) != len(references):
        raise InputError(
            f"{counted(len(answers), 'answer')} for {counted(len(references), 'reference')}; give the same number of "
            "both, and at least one"
        )
    jieba, rouge_scorer, sacrebleu = check_installed()

    class Words:
        """jieba's words without whitespace."""

        def tokenize(self, text: str) -> list[str]:
            return [word for word in jieba.cut(text.lower()) if word.strip()]

    scorer = rouge_scorer.RougeScorer(list(_ROUGE.values()), tokenizer=Words())
    pairs: list[Any] = [scorer.score(reference, answer) for answer, reference in zip(answers, references, strict=True)]
    result = {name: 100 * sum(pair[key].fmeasure for pair in pairs) / len(pairs) for name, key in _ROUGE.items()}
    result["bleu-4"] = float(sacrebleu.corpus_bleu(list(answers), [list(references)], tokenize="zh").score)
    return result


def check_installed() -> tuple[ModuleType, ModuleType, ModuleType]:
    """The packages for scores: jieba, rouge_score's scorer, sacrebleu.

    Raises:
        DependencyError: one is missing.
    """
    try:
        import jieba
        import sacrebleu
        from rouge_score import rouge_scorer
    except ImportError as error:
        raise DependencyError(
            f"Rouge and BLEU need the package {error.name}: pip install 'chatglm[training]'"
        ) from None
    jieba.setLogLevel(logging.WARNING)  # it would log that it loads its dictionary
    return jieba, rouge_scorer, sacrebleu


def evaluate(
    loaded: Loaded,
    data: Paths,
    *,
    loss: str = "all",
    max_length: int | None = 1024,
    samples: int = 50,
    max_new_tokens: int = 512,
    batch_size: int = 4,
    seed: int = 0,
    skip_bad_rows: bool = False,
    columns: Columns | None = None,
    tally: Tally | None = None,
) -> dict[str, float]:
    """Evaluate a model on dialogues: loss per learned token, its perplexity, and the scores of generated answers.

    Args:
        loss, max_length, skip_bad_rows, columns, tally: see `examples.encode_files`.
        samples: number of generated answers; 0: none.

    Returns:
        The figures by name.

    Raises:
        InputError: a bad row, with its file and line; or there is no learned token in the data.
        NumericalError: the loss is NaN or infinite.
        DependencyError: answers must be scored, and the packages are not installed.
    """
    for name, number, least in (("samples", samples, 0), ("batch_size", batch_size, 1)):
        if number < least:
            raise InputError(f"{name} is {number}; must be at least {least}")
    if samples:
        check_installed()
        if max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {max_new_tokens}; must be at least 1")
    options: dict[str, Any] = {"loss": loss, "max_length": max_length, "columns": columns}
    encoded = encode_files(data, loaded.format, skip_bad_rows=skip_bad_rows, tally=tally, **options)
    examples = (example for _, made in encoded for example in made)
    total, learned = 0.0, 0
    collate = Collator(int(loaded.tokenizer.pad_token_id))
    while window := list(itertools.islice(examples, 64 * batch_size)):
        window.sort(key=len)  # rows of similar length need little padding
        for start in range(0, len(window), batch_size):
            part = window[start : start + batch_size]
            batch = {name: tensor.to(loaded.model.device) for name, tensor in collate(part).items()}
            learned += int(batch["shift_labels"].ne(IGNORE).sum())
            with torch.no_grad():
                total += float(loaded.model(**batch, num_items_in_batch=1).loss)
            if not math.isfinite(total):
                where = "; ".join(example.where for example in part)
                raise NumericalError(f"the loss is {total}, from {where}; load the model in another dtype")
    if not learned:
        raise InputError("nothing is learned in the data, so there is no loss; see `chatglm finetune preview`")
    mean = total / learned
    numbers = {"loss": mean, "perplexity": math.exp(min(mean, 700)), "learned_tokens": learned}
    if samples:
        dialogues = read_dialogues(data, skipped=[] if skip_bad_rows else None, columns=columns)
        limits: dict[str, Any] = {"max_length": max_length, "max_new_tokens": max_new_tokens, "samples": samples}
        limits |= {"batch_size": batch_size, "seed": seed, "skip_bad_rows": skip_bad_rows}
        numbers |= Answers(loaded.format, dialogues, **limits)(loaded.model)
    return numbers


class Answers:
    """Scores of a model's own answers: the last assistant turn of each drawn dialogue is generated greedily and
    compared.

    Args:
        form: makes the prompts.
        dialogues: to draw from.
        samples: number of dialogues; the seed alone decides which are drawn.
        max_length: dialogues with longer prompts are left out.
        batch_size: number of answers generated at a time.
        skip_bad_rows: leave out dialogues that the format cannot represent.

    Raises:
        InputError: no dialogue has a prompt that is short enough.
        InputError, UnsupportedError: the format cannot represent a dialogue.
        DependencyError: the packages are not installed.
    """

    def __init__(
        self,
        form: ChatFormat,
        dialogues: Iterable[Dialogue],
        *,
        samples: int = 50,
        max_length: int | None = None,
        max_new_tokens: int = 512,
        batch_size: int = 4,
        seed: int = 0,
        skip_bad_rows: bool = False,
    ) -> None:
        check_installed()
        self._form, self._longest, self._batch = form, max_new_tokens, batch_size
        self._asked: list[tuple[list[int], str]] = []
        draw, seen = random.Random(seed), 0
        for dialogue in dialogues:
            try:
                asked = _ask(form, dialogue)
            except (InputError, UnsupportedError) as error:
                if not skip_bad_rows:
                    raise type(error)(f"{dialogue.where}: {error}" if dialogue.where else str(error)) from None
                continue
            if asked is None or (max_length is not None and len(asked[0]) > max_length):
                continue
            seen += 1
            if len(self._asked) < samples:
                self._asked.append(asked)
            elif (place := draw.randrange(seen)) < samples:
                self._asked[place] = asked
        if not self._asked:
            raise InputError("the evaluation data has no assistant turn whose prompt fits into max_length")

    def __call__(self, model: Any) -> dict[str, float]:
        """The scores. All processes return the same ones; each generates its share of the answers."""
        return compare(*zip(*self.pairs(model), strict=True))

    def pairs(self, model: Any) -> list[tuple[str, str]]:
        """The answers with their references, in the order in which they were drawn.

        Raises:
            NumericalError: the model's scores are NaN or infinite.
        """
        state = PartialState()
        size = self._batch * state.num_processes
        made: list[tuple[int, str]] = []
        for start in range(0, len(self._asked), size):
            # Every process must generate the same number of times, because processes of sharded models wait for each
            # other.
            mine = range(start + state.process_index, start + size, state.num_processes)
            chosen = [number % len(self._asked) for number in mine]
            made += zip(mine, self._answer(model, [self._asked[n][0] for n in chosen]), strict=True)
        answers = dict(gather_object(made) if state.num_processes > 1 else made)
        return [(answers[number], reference) for number, (_, reference) in enumerate(self._asked)]

    @torch.no_grad()
    def _answer(self, model: Any, prompts: list[list[int]]) -> list[str]:
        width = max(map(len, prompts))
        pad = int(self._form.tokenizer.pad_token_id)
        ids = torch.full((len(prompts), width), pad, device=model.device)
        mask = torch.zeros_like(ids)
        for number, prompt in enumerate(prompts):
            ids[number, width - len(prompt) :] = torch.tensor(prompt)
            mask[number, width - len(prompt) :] = 1
        made = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            num_beams=1,
            max_new_tokens=self._longest,
            max_length=None,  # the checkpoint's own default would cause a warning
            eos_token_id=sorted(self._form.stop_ids),
            pad_token_id=pad,
            use_cache=True,
        )
        return [_text(self._form.parse(row)) for row in made[:, width:].tolist()]


def _ask(form: ChatFormat, dialogue: Dialogue) -> tuple[list[int], str] | None:
    """The prompt of a dialogue's last assistant turn, and the answer in the data; None if there is no such turn."""
    messages = dialogue.messages
    last = max((n for n, m in enumerate(messages) if m.role == "assistant" and m.loss is not False), default=None)
    if not last:
        return None
    if dialogue.persona is not None:
        form = form.with_persona(dialogue.persona)
    return form.prompt(messages[:last], dialogue.tools), _text(messages[last])


def _text(message: Message) -> str:
    """The text of a message, for comparison: its content, and the names and arguments of its calls."""
    calls = [
        json.dumps([call.name, call.text if call.cut else call.arguments], ensure_ascii=False, sort_keys=True)
        for call in message.tool_calls
    ]
    return "\n".join(part for part in (message.content.strip(), *calls) if part)
