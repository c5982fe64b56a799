"""Held-out accuracy of the demo model, skill by skill; and how it copes with what people type.

    python recipes/demo/evaluate.py [FOLDER] [--count 300] [--show 5]

Two tables: dialogues of the grammars' held-out side, and dialogues that were written by hand (`unseen.py`).

Every assistant message of a held-out dialogue is asked for, with the true dialogue in front of it, and counts as right
if the greedy answer is the expected one (or has in it what the sample says it must have); a tool call must have the
right name and arguments. Greedy answers are first compared all at once, token by token; only those that differ
somewhere are generated and read.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from corpus import PRACTICE, draw_sample
from corpus.base import Sample, of_kept_forms
from unseen import report as unseen_report
from unseen import unseen

from chatglm.chat.messages import Message
from chatglm.loading import load_parts

BATCH = 32


@dataclass
class Score:
    """Of one skill: answers asked for, right ones; of those to questions in forms kept from training, too; calls made,
    valid ones; some that were wrong.
    """

    asked: int = 0
    right: int = 0
    forms_asked: int = 0
    forms_right: int = 0
    calls: int = 0
    valid: int = 0
    wrong: list[tuple[str, str, str]] = field(default_factory=list)


def evaluate(folder: str | Path, count: int, seed: int = 1) -> dict[str, Score]:
    """Scores by skill, from `count` dialogues of each grammar, and a third as many in forms kept from training."""
    loaded = load_parts(folder, dtype=torch.float32)
    scores = _scores(loaded, count, seed)
    with of_kept_forms():
        others = _scores(loaded, -(-count // 3), seed + 1)
    for name, other in others.items():
        score = scores.setdefault(name, Score())
        score.forms_asked, score.forms_right = other.asked, other.right
        score.calls += other.calls
        score.valid += other.valid
        score.wrong += other.wrong
    return scores


@torch.no_grad()
def _scores(loaded: Any, count: int, seed: int) -> dict[str, Score]:
    model, tokenizer, form = loaded
    scores: dict[str, Score] = defaultdict(Score)
    for name in PRACTICE:  # all grammars
        rng = Random(f"{seed} {name} held out")
        items = []
        for _ in range(count):
            sample = draw_sample(rng, "test", name, PRACTICE)
            messages = [Message.from_dict(message, n) for n, message in enumerate(sample.messages)]
            for place, message in enumerate(messages):
                if message.role == "assistant" and message.loss is not False:
                    items.append((sample, messages, place, message))
        prompts = [form.prompt(messages[:place], sample.tools) for sample, messages, place, _ in items]
        replies = [_reply(form, messages[: place + 1], sample.tools) for sample, messages, place, _ in items]
        same = _greedy(model, prompts, replies, form.stop_ids)
        for item, prompt, reply, agrees in zip(items, prompts, replies, same, strict=True):
            sample, messages, place, message = item
            score = scores[sample.skill]
            score.asked += 1
            if agrees:
                score.right += 1
                score.calls += bool(message.tool_calls)
                score.valid += bool(message.tool_calls)
                continue
            ids = model.generate(
                torch.tensor([prompt]), do_sample=False, max_new_tokens=200, eos_token_id=list(form.stop_ids)
            )[0, len(prompt) :].tolist()
            got = form.parse(ids)
            text = tokenizer.decode(ids)
            if got.tool_calls or not text.startswith("\n"):  # a name in its first line makes an answer a call
                score.calls += 1
                score.valid += bool(got.tool_calls) and bool(ids) and ids[-1] in form.stop_ids
            if _right(sample, messages, place, got):
                score.right += 1
            else:
                question = messages[place - 1].content
                score.wrong.append((question, text, tokenizer.decode(reply)))
    return dict(scores)


def _reply(form: Any, messages: list[Message], tools: Any) -> list[int]:
    """Ids of the last message as the model should write them, its stop id included."""
    ids, _ = form.example(messages, tools)
    return list(ids[len(form.prompt(messages[:-1], tools)) :])


def _greedy(model: Any, prompts: list[list[int]], replies: list[list[int]], stops: frozenset[int]) -> list[bool]:
    """Whether greedy generation gives just these replies: whether each token is the likeliest behind those before.

    Any stop token ends an answer: which one depends on whether the dialogue goes on, and nothing tells the model that.
    """
    order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]) + len(replies[n]))
    same = [False] * len(prompts)
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        rows = [prompts[n] + replies[n] for n in chosen]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])  # nothing looks at what comes later
        states = model.transformer(input_ids=ids, use_cache=False).last_hidden_state
        for place, (n, row) in enumerate(zip(chosen, rows, strict=True)):
            begin = len(prompts[n])  # scores are computed where the answer is; for long prompts they cost most
            line = model.get_output_embeddings()(states[place, begin - 1 : len(row) - 1]).argmax(-1).tolist()
            same[n] = line[:-1] == row[begin:-1] and line[-1] in stops
    return same


def _right(sample: Sample, messages: list[Message], place: int, got: Message) -> bool:
    wanted = messages[place]
    if wanted.tool_calls:
        pairs = [(call.name, call.arguments) for call in wanted.tool_calls]
        return [(call.name, call.arguments) for call in got.tool_calls] == pairs
    number = sum(message.role == "assistant" for message in messages[:place])
    must = sample.must[number] if sample.must else None
    if must is not None:
        return not got.tool_calls and all(text in got.content for text in must)
    return not got.tool_calls and got.content == wanted.content.strip()


def report(scores: dict[str, Score]) -> str:
    """A table for people."""
    lines = ["| skill | held-out answers | right | in kept forms | valid calls |", "|---|---|---|---|---|"]
    whole = Score()
    for score in scores.values():
        for what in ("asked", "right", "forms_asked", "forms_right", "calls", "valid"):
            setattr(whole, what, getattr(whole, what) + getattr(score, what))
    for name, score in [*scores.items(), ("all", whole)]:
        right = f"{score.right / score.asked:.1%}" if score.asked else ""
        forms = f"{score.forms_right / score.forms_asked:.1%} of {score.forms_asked}" if score.forms_asked else ""
        calls = f"{score.valid / score.calls:.1%} of {score.calls}" if score.calls else ""
        lines.append(f"| {name} | {score.asked} | {right} | {forms} | {calls} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(__file__).resolve().parents[2]
    parser.add_argument("folder", nargs="?", type=Path, default=root / "src" / "chatglm" / "demo")
    parser.add_argument("--count", type=int, default=300, help="dialogues of each grammar")
    parser.add_argument("--show", type=int, default=0, help="wrong answers of each skill to print")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    tallies = unseen(options.folder)
    print(unseen_report(tallies))
    for name, tally in tallies.items():
        for verdict, question, got in tally.others[: options.show]:
            print(f"\n[{name}] {verdict}: {question}\n  got:    {got!r}", file=sys.stderr)
    scores = evaluate(options.folder, options.count, options.seed)
    print("\n" + report(scores))
    for name, score in scores.items():
        for question, got, wanted in score.wrong[: options.show]:
            print(f"\n[{name}] {question}\n  got:    {got!r}\n  wanted: {wanted!r}", file=sys.stderr)


if __name__ == "__main__":
    main()
