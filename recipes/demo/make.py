"""Make the bundled demo model from nothing but this repository: corpus, tokenizer, weights, evaluation, model card.

    python recipes/demo/make.py --work FOLDER            # about four hours on 2 CPU cores
    python recipes/demo/make.py --work FOLDER --install  # and put the result into src/chatglm/demo
    python recipes/demo/make.py --work FOLDER --begin-with src/chatglm/demo  # practise more with a finished model

Each part finds what an earlier run of it left in the work folder and goes on from there. The same seed makes the same
corpus, and the same weights on the same kind of processor.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import re
import shutil
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from corpus import LAST, PRACTICE, SKILLS, Grammars, draw_sample
from corpus.base import COMMON, LISTED, PHRASES, Sample
from corpus.code import PROMPT as INTERPRETER_PROMPT
from evaluate import evaluate, report
from initial import begin
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback
from unseen import report as unseen_report
from unseen import unseen

from chatglm.chat.formats import chat_format
from chatglm.chat.tokenizers import SentencePieceTokenizer
from chatglm.knowledge.answering import _REWRITE as REWRITE
from chatglm.knowledge.answering import CITED, CITED_EN, CLASSIC
from chatglm.knowledge.summarising import MAP, REDUCE, REFINE, WHOLE
from chatglm.models.chatglm import ChatGLMForConditionalGeneration
from chatglm.models.configuration import ChatGLMConfig
from chatglm.training.examples import IGNORE, Collator, Example
from chatglm.training.finetune import LOG, PICTURE
from chatglm.training.logs import JsonLog, Progress, draw, read_log
from chatglm.training.settings import Settings
from chatglm.training.store import Rows, build_store
from chatglm.training.tokenizer import train_tokenizer
from chatglm.training.trainer import FamilyTrainer, arguments_of, last_checkpoint

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = ROOT / "src" / "chatglm" / "demo"

PIECES = 4700
"""Of the vocabulary, without those of words and phrases."""
COMMON_WORD = 60
"""A word that the tokenizer's texts have so often gets a piece."""
SIGNS = "０１２３４５６７８９＋－＊／＝（）％😊😂👍🙏🎉😭🤔😄"
"""What people type besides; each is a piece of its own."""
IN_PIECES = 4
"""One in so many words of the lists gets none: words of several pieces are copied, too, and users have many."""
# What tools and code repeat in every prompt; one piece each, so that prompts stay short.
_AT = ["\n" + "▁" * 4 * depth for depth in range(8)]  # the beginning of a line, so deep
_SUMMARIES = [text for each in (WHOLE, MAP, REDUCE, REFINE) for text in each.values()]
_KNOWLEDGE = (CITED, CITED_EN, CLASSIC, *REWRITE.values(), *_SUMMARIES)
SYMBOLS = (
    *_AT[1:],
    # A tool's schema as prompts show it, between its names and descriptions.
    f'{_AT[1]}{{{_AT[2]}"name":▁"', f'",{_AT[2]}"description":▁"',
    f'",{_AT[2]}"parameters":▁{{{_AT[3]}"type":▁"object",{_AT[3]}"properties":▁{{{_AT[4]}"',
    *(f'":▁{{{_AT[5]}"type":▁"{kind}",{_AT[5]}"description":▁"' for kind in ("string", "integer", "number", "array")),
    f'"{_AT[4]}}},{_AT[4]}"', f'"{_AT[4]}}}{_AT[3]}}},{_AT[3]}"required":▁[{_AT[4]}"', f'",{_AT[4]}"',
    f'"{_AT[3]}]{_AT[2]}}}{_AT[1]}}}', f'"{_AT[3]}]{_AT[2]}}}{_AT[1]}}},',
    # What ChatGLM3's prompts begin with where there are tools, or the code interpreter.
    "▁Answer▁the▁following▁questions▁as▁best▁as▁you▁can.▁You▁have▁access▁to▁the▁following▁tools:",
    INTERPRETER_PROMPT,
    # What the knowledge base asks with, around what it fills in.
    *(part.replace(" ", "▁") for prompt in _KNOWLEDGE for part in re.split(r"\{\w+\}", prompt) if len(part) > 8),
    '"name":▁"', '"description":▁"', '"parameters":▁{', '"properties":▁{', '"required":▁[', '"enum":▁[',
    *(f'"type":▁"{kind}"' for kind in ("object", "string", "integer", "number", "boolean")),
    '"error":▁', "tool_call(", "```python\n", "\n```", "import▁", "matplotlib", "print(",
    "#File:▁/mnt/data/", "\n#Size:▁", "\n#File▁uploaded\n", "/mnt/data/",
)  # fmt: skip
SIZES = {
    "num_layers": 6,
    "hidden_size": 384,
    "ffn_hidden_size": 640,
    "kv_channels": 64,
    "num_attention_heads": 4,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "add_qkv_bias": True,
    "add_bias_linear": False,
    "rmsnorm": True,
    "layernorm_epsilon": 1e-5,
    "seq_length": 2048,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "chatglm_generation": "chatglm3",
}


LONGEST = 1024
"""Tokens of a dialogue; of longer ones the end is left out."""


@dataclass(frozen=True)
class Phase:
    """Of training: what is learned, and how fast.

    Attributes:
        folder: of its dialogues, examples and checkpoints.
        decay: share of the steps, the last ones, in which rates fall.
    """

    folder: Path
    matrix_rate: float
    rate: float
    decay: float


SLOWER = 0.5
"""What the later phases' rates are of the first one's: what was learned is practised, not learned again."""

PRACTISED = 0.75
"""Share of a later phase's weights in what comes of it; the rest are those that it began with. With more of the later
ones, what is practised is better, and what is not, such as calls of tools and what people type, is worse.
"""

DRILL = 0.04
"""Share of the dialogues, the very first ones, that do nothing but repeat and look up."""

PRETRAINING = 0.06
"""Share of the dialogues, the next ones, of which every message is learned, as a language model learns text: so what
users say and tools answer teaches words, and that what came once may come again. Of the others, the assistant's alone.
"""


def practice(count: int, seed: str, grammars: Grammars = PRACTICE) -> Iterator[dict[str, Any]]:
    """Of the training side of a later phase's grammars."""
    rng = Random(seed)
    for _ in range(count):
        yield row(draw_sample(rng, "train", grammars=grammars), whole=False)


def dialogues(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Of the training side of the first phase's grammars, in the order in which they are learned."""
    rng = Random(seed)
    for number in range(count):
        skill = "repeating" if number < DRILL * count else None
        yield row(draw_sample(rng, "train", skill), whole=DRILL * count <= number < (DRILL + PRETRAINING) * count)


def write_corpus(file: Path, rows: Iterator[dict[str, Any]]) -> None:
    """One JSON line each; the file has its name when it is whole."""
    if file.exists():
        return
    draft = file.with_suffix(".partial")
    with draft.open("w", encoding="utf-8") as out:
        for made in rows:
            out.write(json.dumps(made, ensure_ascii=False) + "\n")
    draft.replace(file)


def row(sample: Sample, whole: bool) -> dict[str, Any]:
    """In the form of OpenAI's fine-tuning files, which `chatglm finetune` reads; `loss` says that all is learned."""
    messages = [{"loss": True, **message} for message in sample.messages] if whole else sample.messages
    return {"messages": messages, **({"tools": sample.tools} if sample.tools else {})}


def tokenizer_texts(seed: int, count: int = 1500) -> Iterator[str]:
    """What the vocabulary is learned from: the corpus as prompts show it.

    A Chinese character at the start of a line gets a mark in front: pieces that glue SentencePiece's blank to it would
    make a name at the start of an answer another word than the same name inside a question.
    """
    rng = Random(seed)
    for _ in range(count):
        for name in SKILLS:
            sample = draw_sample(rng, "train", name)
            for message in sample.messages:
                yield _guarded(message["content"])
                for call in message.get("tool_calls", ()):
                    yield call["name"]
                    yield _guarded(json.dumps(call["arguments"], ensure_ascii=False))
            if sample.tools:
                yield _guarded(json.dumps(sample.tools, indent=4, ensure_ascii=False))


def words(texts: Sequence[str]) -> list[str]:
    """Words of the closed world, and phrases that its sentences are put together from. As one piece each, what has to
    be found by two things that stand before it, whose and which, has both of them close.
    """
    listed = {phrase for phrase in LISTED if zlib.crc32(phrase.encode()) % IN_PIECES}
    phrases = listed | PHRASES
    text = "\n".join(texts)
    english = Counter(re.findall("(?<![A-Za-z_])[A-Za-z]{3,}(?![A-Za-z_])", text))
    inside = Counter(re.findall("(?<![ A-Za-z])[a-z]{4,}|(?<![ A-Z])[A-Z][a-z]{3,}", text))  # of getWeather
    ours = {part for phrase in phrases for part in phrase.split() if re.fullmatch("[A-Za-z]{3,}", part)}
    left = {part for phrase in LISTED - phrases for part in phrase.split()} - ours
    often = ours | {word for word, count in english.items() if count >= COMMON_WORD and word not in left}
    # As they stand behind a blank; and at the beginning of a line or in quotes: short ones are parts of other words.
    bare = {word for word in often if len(word) > 3 and (word in ours or word[0].isupper())}
    bare |= {word for word, count in inside.items() if count >= COMMON_WORD}
    chinese = {phrase for phrase in phrases if len(phrase) > 1 and not phrase.isascii()}
    return sorted({"▁" + word for word in often} | bare | chinese)


def _guarded(text: str) -> str:
    return re.sub(r"(^| )(?=[\u4e00-\u9fff])", r"\1、", text, flags=re.MULTILINE)


def _summed(states: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    """The sum of n tokens' cross entropies, from (n, H)."""
    return nn.functional.cross_entropy(nn.functional.linear(states, table).float(), targets, reduction="sum")


class Tied(ChatGLMForConditionalGeneration):
    """Learns one table for words that come in and words that go out, so that copying a rare word need not be learned
    for each by itself. The official layout has two tables: `untie` fills the second one at the end.
    """

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__(config)
        self.transformer.output_layer.requires_grad_(False)
        self._summed = _summed

    def compile_parts(self) -> None:
        """Have blocks and loss run as compiled code, which takes a quarter less time on a CPU."""
        for block in self.transformer.encoder.layers:
            block.compile(dynamic=True)
        self._summed = torch.compile(_summed, dynamic=True)

    def get_output_embeddings(self) -> Any:
        return self._out

    def _out(self, states: Tensor) -> Tensor:
        return nn.functional.linear(states, self.transformer.embedding.word_embeddings.weight)

    def _loss_of_learned(self, states: Tensor, targets: Tensor, count: Tensor | int | None) -> Tensor:
        learned = targets != IGNORE
        total = self._summed(states[learned], self.transformer.embedding.word_embeddings.weight, targets[learned])
        return total / (max(int(learned.sum()), 1) if count is None else count)

    def untie(self) -> ChatGLMForConditionalGeneration:
        plain = ChatGLMForConditionalGeneration(self.config)
        plain.load_state_dict(self.state_dict())
        with torch.no_grad():
            plain.transformer.output_layer.weight.copy_(plain.transformer.embedding.word_embeddings.weight)
        return plain


PACKED = torch.float8_e4m3fn
"""What matrices are kept in: a byte a weight, with a relative error of 2.7 %. Of the first edition's held-out answers
98.3 % were right with it, 98.4 % without. Loading casts them to the model's dtype, as it does with any other.
"""


@torch.no_grad()
def rounded(model: ChatGLMForConditionalGeneration) -> ChatGLMForConditionalGeneration:
    """With matrices as the file holds them."""
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.copy_(parameter.to(PACKED))
    return model


def pack(file: Path) -> None:
    """Give the matrices of a file one byte a weight."""
    tensors = {name: tensor.to(PACKED) if tensor.ndim == 2 else tensor for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def fresh_model(tokenizer: SentencePieceTokenizer, seed: int) -> Tied:
    """The model before it has learned anything."""
    # Rows this short are attended to faster by plain matrix products than by torch's kernel for long ones.
    size = -(-len(tokenizer) // 64) * 64
    model = Tied(ChatGLMConfig(padded_vocab_size=size, attn_implementation="eager", **SIZES))
    begin(model, seed)
    return model


def finished_model(folder: Path) -> Tied:
    """A model that this recipe has made, to be trained on."""
    config = ChatGLMConfig.from_pretrained(folder, attn_implementation="eager")
    model = Tied(config)
    state = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    model.load_state_dict(state)
    return model


DEEPER = 2
"""Behind each so many layers of the first phase, the second one has one more."""


@torch.no_grad()
def deeper(model: Tied) -> Tied:
    """The same model with more layers, which do nothing yet: each is a copy of the one before it that writes zeros
    (Wu et al. 2024, "LLaMA Pro: Progressive LLaMA with Block Expansion"). So the first phase, which learns the words,
    has fewer to compute.
    """
    config = model.config.to_dict()
    layers = config["num_layers"]
    config["num_layers"] = layers + layers // DEEPER
    config["attn_implementation"] = "eager"
    grown = Tied(ChatGLMConfig(**config))
    learned = model.state_dict()
    state = dict(learned)
    origin = [(layer, new) for layer in range(layers) for new in (False, True)[: 1 + (layer % DEEPER == DEEPER - 1)]]
    for place, (layer, new) in enumerate(origin):
        old, prefix = f"transformer.encoder.layers.{layer}.", f"transformer.encoder.layers.{place}."
        for name, tensor in learned.items():
            if name.startswith(old):
                silent = new and name.endswith(("attention.dense.weight", "dense_4h_to_h.weight"))
                state[prefix + name.removeprefix(old)] = torch.zeros_like(tensor) if silent else tensor
    grown.load_state_dict(state)
    return grown


class MuonAndAdam(torch.optim.Optimizer):
    """Muon for the matrices of the blocks, AdamW for the rest, as one optimizer.

    Muon (Jordan et al. 2024) makes each step of a matrix orthogonal. On this model it needs about half the steps.
    """

    def __init__(self, model: nn.Module, matrix_rate: float, rate: float) -> None:
        learned = {n: p for n, p in model.named_parameters() if p.requires_grad}
        inside = {n: p for n, p in learned.items() if p.ndim == 2 and ".layers." in n}
        others = [p for n, p in learned.items() if n not in inside]
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(list(inside.values()), lr=matrix_rate, weight_decay=0.0),
            # Words that are not in a batch get a tiny gradient, all the same one, at every step. With the usual eps
            # Adam makes full steps of those, and rare words end up alike.
            torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), eps=1e-5, weight_decay=0.0, fused=True),
        ]
        super().__init__([*inside.values(), *others], {})
        self._link()

    def _link(self) -> None:
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for part in self._parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._link()


class Apart(Collator):
    """A row of the plan as a batch: its examples, of about the same length, get rows of their own."""

    def __call__(self, rows: Sequence[Example | Sequence[Example]]) -> dict[str, Tensor]:
        return super().__call__([example for row in rows for example in (row if isinstance(row, list) else [row])])


def similar(lengths: Sequence[int], budget: int, seed: int, window: int = 2048) -> list[list[int]]:
    """Examples of about the same length, as many as `budget` positions hold, padding included. Windows of examples
    follow one another as they are, so that the first dialogues are learned first; batches in a window are shuffled.
    """
    rng = Random(seed)
    plan: list[list[int]] = []
    for start in range(0, len(lengths), window):
        batch: list[int] = []
        first = len(plan)
        for index in sorted(range(start, min(start + window, len(lengths))), key=lambda n: (lengths[n], n)):
            if batch and lengths[index] * (len(batch) + 1) > budget:
                plan.append(batch)
                batch = []
            batch.append(index)
        window_plan = [*plan[first:], batch]
        rng.shuffle(window_plan)
        plan[first:] = window_plan
    return plan


def keep_memory() -> None:
    """Have the C library keep what a step frees for the next one: giving large blocks back to the system and asking for
    them again, page by page, costs a fifth of the time. Only glibc's allocator can be told so.
    """
    try:
        tune = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 1 << 27), (-8, 1)):  # M_MMAP_MAX, TRIM, TOP_PAD, ARENA_MAX
        tune(option, value)


class DemoTrainer(FamilyTrainer):
    """The project's trainer with this recipe's optimizer."""

    def __init__(self, *args: Any, rates: tuple[float, float], **kwargs: Any) -> None:
        self._rates = rates
        super().__init__(*args, **kwargs)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        self.optimizer: torch.optim.Optimizer = MuonAndAdam(self.model, *self._rates)
        return self.optimizer


def train(phase: Phase, model: Tied, tokenizer: SentencePieceTokenizer, options: argparse.Namespace) -> None:
    """Trains a model on a phase's dialogues; goes on from the last checkpoint."""
    work = phase.folder
    form = chat_format(tokenizer)
    store = build_store(work / "data", work / "corpus.jsonl", form, loss="all", max_length=LONGEST)
    for line in store.tally.lines():
        print(line, file=sys.stderr)
    plan = similar(store.lengths.tolist(), options.batch_tokens, options.seed)
    settings = Settings.from_dict(
        {
            "method": "full",
            "max_length": LONGEST,
            "training_args": {
                "output_dir": str(work / "run"),
                "num_train_epochs": 1,
                "train_sampling_strategy": "sequential",
                "per_device_train_batch_size": 1,  # a row of the plan is a batch
                "lr_scheduler_type": "warmup_stable_decay",
                "lr_scheduler_kwargs": {"num_decay_steps": int(len(plan) * phase.decay), "decay_type": "linear"},
                "warmup_steps": 30,
                "bf16": True,
                "use_cpu": not torch.cuda.is_available(),
                "logging_steps": 50,
                "save_steps": options.save_steps,
                "save_total_limit": 1,
                "seed": options.seed,
            },
        }
    )
    model.compile_parts()
    progress = Progress()
    callbacks: list[TrainerCallback] = [progress]
    trainer = DemoTrainer(
        model,
        arguments_of(settings),
        Rows(store, plan),
        Apart(int(tokenizer.pad_token_id)),
        rates=(phase.matrix_rate, phase.rate),
        callbacks=callbacks,
    )
    start = last_checkpoint(work / "run")
    upto = json.loads((start / "trainer_state.json").read_text("utf-8"))["global_step"] if start else 0
    (work / "run").mkdir(parents=True, exist_ok=True)
    trainer.add_callback(JsonLog(work / "run" / LOG, upto))
    try:
        trainer.train(resume_from_checkpoint=str(start) if start else None)
    finally:
        progress.close()
    draw(tuple(read_log(work / "run" / LOG)), work / "run" / PICTURE, "demo model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for corpus, checkpoints and result")
    parser.add_argument("--install", action="store_true", help=f"copy the result to {INSTALLED}")
    parser.add_argument(
        "--begin-with",
        type=Path,
        metavar="MODEL",
        help="folder of a finished model, on which the third phase alone is run",
    )
    parser.add_argument("--dialogues", type=int, default=300_000, help="of the first phase")
    parser.add_argument("--practice", type=int, default=168_000, help="dialogues of the second phase")
    parser.add_argument("--last", type=int, default=190_000, help="dialogues of the third phase")
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--matrix-rate", type=float, default=0.005)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--save-steps", type=int, default=500, help="steps between checkpoints")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--held-out", type=int, default=300, help="dialogues of each skill to evaluate on")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    np.random.seed(options.seed)
    keep_memory()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    first = Phase(work, options.matrix_rate, options.rate, 0.5)
    second = Phase(work / "second", SLOWER * options.matrix_rate, SLOWER * options.rate, 1.0)
    third = Phase(work / "third", second.matrix_rate, second.rate, 1.0)
    spent = work / "seconds.txt"
    clock = time.time() - (float(spent.read_text("utf-8")) if spent.exists() else 0.0)
    later = (third,) if options.begin_with else (second, third)
    for phase in later:
        phase.folder.mkdir(exist_ok=True)
    if not options.begin_with:
        write_corpus(work / "corpus.jsonl", dialogues(options.dialogues, options.seed))
        write_corpus(second.folder / "corpus.jsonl", practice(options.practice, f"{options.seed} practice"))
    write_corpus(third.folder / "corpus.jsonl", practice(options.last, f"{options.seed} last", LAST))
    result = work / "model"
    if options.begin_with:
        SentencePieceTokenizer.from_pretrained(options.begin_with).save_pretrained(result)
    elif not (result / "tokenizer.model").exists():
        texts = list(tokenizer_texts(options.seed))
        characters = "".join(sorted({*COMMON, *SIGNS, *re.findall("[\u4e00-\u9fff]", "".join(texts))}))
        symbols = [*SYMBOLS, *words(texts)]
        size = PIECES + len(symbols) - len(SYMBOLS)
        train_tokenizer(texts, result, size=size, longest_piece=4, characters=characters, symbols=symbols)
    tokenizer = SentencePieceTokenizer.from_pretrained(result)
    if not (result / "model.safetensors").exists():
        tied = finished_model(options.begin_with) if options.begin_with else fresh_model(tokenizer, options.seed)
        try:
            if not options.begin_with:
                train(first, tied, tokenizer, options)
                tied = deeper(tied)
            for phase in later:
                before = {name: tensor.clone() for name, tensor in tied.state_dict().items()}
                train(phase, tied, tokenizer, options)
                tied.load_state_dict({n: before[n].lerp(t, PRACTISED) for n, t in tied.state_dict().items()})
        finally:
            spent.write_text(f"{time.time() - clock:.0f}", "utf-8")
        model = rounded(tied.untie()).half().eval()
        model.config.use_cache = True  # which training turns off
        model.generation_config.update(
            do_sample=False, max_new_tokens=512, eos_token_id=2, pad_token_id=0, use_cache=True
        )
        model.save_pretrained(result)
        pack(result / "model.safetensors")
        tokenizer.save_pretrained(result)
    typed = unseen_report(unseen(result))
    print(typed)
    table = report(evaluate(result, options.held_out, seed=options.seed))
    print(table)
    minutes = float(spent.read_text("utf-8")) / 60 if spent.exists() else 0.0
    (result / "MODEL_CARD.md").write_text(card(table, typed, options, minutes, result), "utf-8")
    if options.install:
        INSTALLED.mkdir(exist_ok=True)
        for file in sorted(result.iterdir()):
            shutil.copy2(file, INSTALLED / file.name)
        print(f"installed in {INSTALLED}")


AGAIN = " These weights are those of such a model, with which the third phase was run again, several times."


def card(table: str, typed: str, options: argparse.Namespace, minutes: float, result: Path) -> str:
    weights = sum(tensor.numel() for tensor in load_file(result / "model.safetensors").values())
    machine = f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}"
    return (
        (Path(__file__).parent / "card.md")
        .read_text("utf-8")
        .format(
            table=table,
            unseen=typed,
            seed=options.seed,
            dialogues=f"{options.dialogues:,}",
            practice=f"{options.practice:,}",
            practised=PRACTISED,
            last=f"{options.last:,}",
            pieces=f"{len(SentencePieceTokenizer.from_pretrained(result)):,}",
            parameters=f"{weights / 1e6:.1f}",
            again=AGAIN if options.begin_with else "",
            minutes=f"{minutes:.0f}",
            machine=machine,
        )
    )


if __name__ == "__main__":
    main()
