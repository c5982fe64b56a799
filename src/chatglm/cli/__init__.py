"""The command `chatglm`: one small module per subcommand, imported when it is used."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

__all__ = ["main"]

# name: (module, one line of help). The module has add_arguments(parser) and run(arguments) -> exit status.
COMMANDS = {
    "chat": ("chatglm.cli.chat", "talk to a model: one question, or a dialogue"),
    "serve": ("chatglm.cli.serve", "a server: OpenAI's HTTP interface and api.py's, many conversations at once"),
    "bench": ("chatglm.cli.bench", "how fast a model or a server answers: first token, tokens/s, many clients at once"),
    "finetune": ("chatglm.cli.finetune", "teach a model your dialogues: full, LoRA, P-tuning v2 or freeze"),
    "merge": ("chatglm.cli.merge", "merge a LoRA adapter into its model, and verify the result"),
    "evaluate": ("chatglm.cli.evaluate", "loss and scores of generated answers on dialogues; accuracy by cloze"),
    "pretrain": ("chatglm.cli.pretrain", "pre-train on plain texts by blank infilling"),
    "quantize": ("chatglm.cli.quantize", "weights of 4 or 8 bits: less memory, more speed"),
    "info": ("chatglm.cli.info", "this machine and installation: versions, kernels in use and why"),
    "tokenizer": ("chatglm.cli.tokenizer", "learn a SentencePiece vocabulary in the official layout"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (0 well, 1 a problem said in one line, 2 wrong usage)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    from chatglm import __version__
    from chatglm.errors import ChatGLMError

    parser = argparse.ArgumentParser(prog="chatglm", description="Models of the ChatGLM family, from the command line.")
    parser.add_argument("--version", action="version", version=f"chatglm {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    # Only the chosen command's module is imported; the others show their line of help.
    chosen = next((word for word in argv if not word.startswith("-")), None)
    for name, (module, line) in COMMANDS.items():
        command = commands.add_parser(name, help=line, description=line)
        if name == chosen:
            importlib.import_module(module).add_arguments(command)
    arguments = parser.parse_args(argv)
    try:
        status: int = importlib.import_module(COMMANDS[arguments.command][0]).run(arguments)
        return status
    except ChatGLMError as error:
        print(f"chatglm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (head, less) has seen enough
        sys.stderr.close()
        return 141


if __name__ == "__main__":
    sys.exit(main())
