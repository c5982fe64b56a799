"""`chatglm tokenizer train`: train your own SentencePiece vocabulary, in the official layout."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "chatglm tokenizer train TEXTS --output FOLDER [--size N] [options]"
    parser.add_argument("action", choices=("train",), help="what to do")
    parser.add_argument("texts", metavar="TEXTS", help=".txt or .jsonl file, or a folder of them")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder for tokenizer.model and its config")
    parser.add_argument("--size", type=int, default=32000, metavar="N", help="number of pieces (default: 32000)")
    parser.add_argument(
        "--generation",
        choices=("chatglm2", "chatglm3"),
        default="chatglm3",
        help="chatglm3 has role tokens (default: chatglm3)",
    )
    parser.add_argument("--longest-piece", type=int, default=16, metavar="N", help="characters (default: 16)")
    parser.add_argument(
        "--coverage",
        type=float,
        default=0.9995,
        metavar="SHARE",
        help="share of characters that get a piece; others become bytes (default: 0.9995)",
    )
    parser.add_argument(
        "--symbol", action="append", default=[], metavar="TEXT", help="text that is always one piece; may be repeated"
    )
    parser.add_argument("--field", default="text", help="name of the text in .jsonl rows (default: text)")
    parser.add_argument("--overwrite", action="store_true", help="replace a tokenizer that is there")


def run(arguments: argparse.Namespace) -> int:
    from chatglm.training.texts import read_texts
    from chatglm.training.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(
        (document.text for document in read_texts(arguments.texts, split="line", field=arguments.field)),
        arguments.output,
        size=arguments.size,
        generation=arguments.generation,
        longest_piece=arguments.longest_piece,
        coverage=arguments.coverage,
        symbols=arguments.symbol,
        overwrite=arguments.overwrite,
    )
    print(f"{tokenizer.vocab_size} ids, {arguments.size} of them pieces; tokenizer in {arguments.output}")
    return 0
