"""`chatglm chat`: one question answered, or a dialogue line by line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from chatglm.errors import InputError

CLEAR, STOP = ("clear", "清空"), ("stop", "exit", "quit", "退出")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "question",
        nargs="?",
        help="one question; without it, a dialogue: `clear` forgets what was said, `stop` ends it",
    )
    parser.add_argument(
        "--model", metavar="FOLDER", help="checkpoint folder in an official layout (default: the bundled demo model)"
    )
    parser.add_argument("--adapter", metavar="FOLDER", help="PEFT adapter (LoRA …) to put on the model")
    parser.add_argument("--prefix", metavar="PATH", help="P-tuning v2 state: the folder or file that training wrote")
    parser.add_argument("--system", metavar="TEXT", help="system message (ChatGLM3, GLM-4)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: a GPU if there is one, else the CPU")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "float16", "bfloat16"),
        default="auto",
        help="precision of the weights; auto: the checkpoint's on a GPU, bfloat16 on a CPU",
    )
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="longest answer in tokens")
    parser.add_argument("--temperature", type=float, metavar="T", help="0: always the likeliest token")
    parser.add_argument("--top-p", type=float, metavar="P", help="draw from the likeliest tokens that make up P")
    parser.add_argument("--seed", type=int, help="same seed, same answer")


def run(arguments: argparse.Namespace) -> int:
    import torch
    import transformers

    from chatglm.chat.generations import Generation
    from chatglm.loading import load

    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = arguments.dtype
    if dtype == "auto" and torch.device(device).type == "cpu":
        # fp16 arithmetic is slow and coarse on CPUs; the small model can afford the best.
        dtype = "float32" if arguments.model is None else "bfloat16"
    model, tokenizer, _ = load(
        arguments.model, adapter=arguments.adapter, prefix=arguments.prefix, device=device, dtype=dtype
    )
    if tokenizer.generation == Generation.CHARACTERGLM:
        raise InputError(
            "CharacterGLM plays a role and needs its description; use model.chat(tokenizer, session_meta, "
            "query) from Python"
        )
    options: dict[str, Any] = {
        name: value
        for name in ("max_new_tokens", "temperature", "top_p")
        if (value := getattr(arguments, name)) is not None
    }
    if arguments.model is None:
        options.setdefault("temperature", 0)  # a model that small is best at its surest
    start: list[Any] = []
    if arguments.system is not None:
        if tokenizer.generation not in (Generation.CHATGLM3, Generation.GLM4):
            raise InputError(f"--system: {tokenizer.generation} has no system message in its prompt")
        start = [{"role": "system", "content": arguments.system}]
    if arguments.seed is not None:
        torch.manual_seed(arguments.seed)

    def answer(question: str, history: list[Any], cache: Any) -> Iterator[tuple[Any, list[Any], Any]]:
        if tokenizer.generation == Generation.CHATGLM:
            for response, turns in model.stream_chat(tokenizer, question, history, **options):
                yield response, turns, None
            return
        yield from model.stream_chat(
            tokenizer, question, history, past_key_values=cache, return_past_key_values=True, **options
        )

    if arguments.question is not None:
        _print(answer(arguments.question, start, None))
        return 0
    return _dialogue(answer, start)


def _dialogue(answer: Callable[..., Iterator[tuple[Any, list[Any], Any]]], start: list[Any]) -> int:
    terminal = sys.stdin.isatty()
    if terminal:
        print("Ask away. `clear` forgets what was said, `stop` ends.  输入 clear 清空对话历史，stop 终止程序")
    history, cache = list(start), None
    while True:
        try:
            question = input("\n> " if terminal else "").strip()
        except EOFError:
            return 0
        except UnicodeDecodeError as error:
            raise InputError(f"the input is not UTF-8 ({error})") from None
        if question in STOP:
            return 0
        if question in CLEAR:
            history, cache = list(start), None
            continue
        if question:
            try:
                history, cache = _print(answer(question, history, cache), history, cache)
            except KeyboardInterrupt:  # ends the answer, not the dialogue; the broken turn is forgotten
                print("\n[stopped]" if terminal else "")
                cache = None


def _print(steps: Iterator[tuple[Any, list[Any], Any]], history: Any = None, cache: Any = None) -> tuple[Any, Any]:
    """Write an answer as it grows; text that a later token may rewrite (punctuation, a call) once it is settled."""
    shown, response = "", None
    for response, history, cache in steps:  # noqa: B007
        if isinstance(response, str) and response.startswith(shown):
            settled = response[:-1]  # the last character may still turn into its full-width form
            sys.stdout.write(settled[len(shown) :])
            shown = max(shown, settled, key=len)
            sys.stdout.flush()
    text = response if isinstance(response, str) else json.dumps(response, ensure_ascii=False)
    print(text[len(shown) :] if text.startswith(shown) else f"\n{text}", flush=True)
    return history, cache
