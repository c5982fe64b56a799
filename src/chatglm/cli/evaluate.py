"""`chatglm evaluate`: the loss on dialogues and how near generated answers come; or multiple choice by cloze."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from chatglm.cli.models import add_model_arguments, loading_options, print_json
from chatglm.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help=".json or .jsonl file of dialogues; with --cloze: of questions")
    add_model_arguments(parser, on_cpu="float32")  # measurements must be comparable
    parser.add_argument(
        "--cloze",
        action="store_true",
        help='multiple choice instead: questions {"context", "choices", "label"}; the choice that fills the blank best '
        "is the answer; prints the accuracy",
    )
    parser.add_argument(
        "--normalize",
        choices=("sum", "mean"),
        help="with --cloze: score a choice by the sum (default) or the mean of its tokens' log-probabilities",
    )
    parser.add_argument(
        "--loss",
        metavar="TURNS",
        help="measured assistant turns: all (default), last, or split: all, each in a pass of its own",
    )
    parser.add_argument("--max-length", type=int, metavar="N", help="longest dialogue, in tokens (default: 1024)")
    parser.add_argument(
        "--samples",
        type=int,
        metavar="N",
        help="number of answers to generate and score; 0: loss only (default: 50)",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        metavar="N",
        help="longest generated answer, in tokens (default: 512)",
    )
    parser.add_argument(
        "--batch-size", type=int, default=4, metavar="N", help="dialogues at a time (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, help="random seed: chooses the dialogues to answer (default: 42)")
    parser.add_argument("--skip-bad-rows", action="store_true", help="skip rows that cannot be read, and list them")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of a table")


_OF_DIALOGUES: dict[str, Any] = {"loss": "all", "max_length": 1024, "samples": 50, "max_new_tokens": 512, "seed": 42}
"""Options that choices by cloze do not have, with their defaults."""


def run(arguments: argparse.Namespace) -> int:
    if arguments.cloze:
        for name in (*_OF_DIALOGUES, "skip_bad_rows"):
            value = getattr(arguments, name)
            if value is not None and value is not False:
                raise InputError(f"--{name.replace('_', '-')}: is for dialogues; it cannot be used with --cloze")
    elif arguments.normalize is not None:
        raise InputError("--normalize: is for multiple choice; add --cloze")
    from chatglm.loading import load_parts

    options = loading_options(arguments)
    loaded = load_parts(arguments.model, **options)
    if arguments.cloze:
        from chatglm.training.cloze import evaluate_cloze, read_questions

        result = evaluate_cloze(
            loaded.model,
            loaded.tokenizer,
            read_questions(arguments.data),
            normalize=arguments.normalize or "sum",
            batch_size=arguments.batch_size,
        )
        numbers: dict[str, float] = {"questions": len(result.rows), "accuracy": result.accuracy}
    else:
        from chatglm.training.examples import Tally
        from chatglm.training.metrics import evaluate

        tally = Tally()
        given = {name: getattr(arguments, name) for name in _OF_DIALOGUES}
        of_dialogues = {name: _OF_DIALOGUES[name] if value is None else value for name, value in given.items()}
        numbers = evaluate(
            loaded,
            arguments.data,
            batch_size=arguments.batch_size,
            **of_dialogues,
            skip_bad_rows=arguments.skip_bad_rows,
            tally=tally,
        )
        if tally.skipped or tally.cut:
            print(*tally.lines(), sep="\n", file=sys.stderr)
    if arguments.json:
        print_json(numbers)
    else:
        for name, value in numbers.items():
            print(f"{name:<16} {value:,}" if isinstance(value, int) else f"{name:<16} {value:.4f}")
    return 0
