"""`chatglm evaluate`: the loss on dialogues and how near generated answers come; or multiple choice by cloze."""

from __future__ import annotations

import argparse
import sys

from chatglm.cli.models import add_model_arguments, loading_options, print_json


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
        default="sum",
        help="with --cloze: score a choice by the sum (default) or the mean of its tokens' log-probabilities",
    )
    parser.add_argument(
        "--loss",
        default="all",
        metavar="TURNS",
        help="measured assistant turns: all (default), last, or split: all, each in a pass of its own",
    )
    parser.add_argument(
        "--max-length", type=int, default=1024, metavar="N", help="longest dialogue, in tokens (default: %(default)s)"
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=50,
        metavar="N",
        help="number of answers to generate and score; 0: loss only (default: %(default)s)",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        default=512,
        metavar="N",
        help="longest generated answer, in tokens (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size", type=int, default=4, metavar="N", help="dialogues at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=42, help="random seed: chooses the dialogues to answer (default: %(default)s)"
    )
    parser.add_argument("--skip-bad-rows", action="store_true", help="skip rows that cannot be read, and list them")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of a table")


def run(arguments: argparse.Namespace) -> int:
    from chatglm.loading import load_parts

    options = loading_options(arguments)
    loaded = load_parts(arguments.model, **options)
    if arguments.cloze:
        from chatglm.training.cloze import evaluate_cloze, read_questions

        result = evaluate_cloze(
            loaded.model,
            loaded.tokenizer,
            read_questions(arguments.data),
            normalize=arguments.normalize,
            batch_size=arguments.batch_size,
        )
        numbers: dict[str, float] = {"questions": len(result.rows), "accuracy": result.accuracy}
    else:
        from chatglm.training.examples import Tally
        from chatglm.training.metrics import evaluate

        tally = Tally()
        numbers = evaluate(
            loaded,
            arguments.data,
            loss=arguments.loss,
            max_length=arguments.max_length,
            samples=arguments.samples,
            max_new_tokens=arguments.max_new_tokens,
            batch_size=arguments.batch_size,
            seed=arguments.seed,
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
