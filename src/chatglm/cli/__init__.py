"""The command `chatglm`: one small module per subcommand, imported when it is used."""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["main", "program"]

# name: (module, one line of help). The module has add_arguments(parser) and run(arguments) -> exit status.
COMMANDS = {
    "chat": ("chatglm.cli.chat", "talk to a model: one question, or a dialogue"),
    "serve": (
        "chatglm.cli.serve",
        "serve models over HTTP: the interfaces of OpenAI, Anthropic and ZhipuAI, and api.py's",
    ),
    "web": ("chatglm.cli.web", "serve the page: conversations in a browser, with tools, code and characters"),
    "keys": ("chatglm.cli.keys", "add, list and remove API keys of the server"),
    "knowledge": ("chatglm.cli.knowledge", "add, search, share and measure your own documents"),
    "batch": ("chatglm.cli.batch", "answer the requests of a file (JSON lines, in the format of OpenAI's batches)"),
    "bench": ("chatglm.cli.bench", "measure a model or a server: time to first token, throughput, concurrent requests"),
    "finetune": ("chatglm.cli.finetune", "train a model on your dialogues: full, LoRA, P-tuning v2 or freeze"),
    "merge": ("chatglm.cli.merge", "merge a LoRA adapter into its model, and verify the result"),
    "evaluate": (
        "chatglm.cli.evaluate",
        "measure the loss on dialogues, and score generated answers or choices",
    ),
    "pretrain": ("chatglm.cli.pretrain", "pre-train on plain texts by blank infilling"),
    "quantize": ("chatglm.cli.quantize", "quantize a checkpoint to 4 or 8 bits: less memory, more speed"),
    "download": ("chatglm.cli.download", "download a model by its repository id, such as THUDM/chatglm3-6b"),
    "info": ("chatglm.cli.info", "show versions, kernels (and why they are used), the sandbox and cached models"),
    "tokenizer": ("chatglm.cli.tokenizer", "train a SentencePiece tokenizer in the official layout"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    0: done. 1: a problem, with one line on stderr. 2: wrong usage. 130: Ctrl-C. 141: the reader of the output left.
    """
    _prepare_streams()
    try:
        status = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()  # a full disk is noticed now, not when Python ends
    except KeyboardInterrupt:
        status = _say("", 130)
    except EOFError:  # a question was asked, and the input ended (Ctrl+D)
        status = _say("chatglm: the input ended before there was an answer\n", 1)
    except BrokenPipeError:  # the reader (head, less) has seen enough
        status = 141
    except Exception as error:
        if (line := _in_one_line(error)) is None:
            raise
        status = _say(f"chatglm: {line}\n", 1)
    _give_up_broken_streams()
    return status


def program() -> int:
    """Run the command line as the whole process, and end it quickly."""
    status = main()
    # Python's last collections walk over all that torch has imported, which takes half a second. Triton's library needs
    # them: it writes a list of leaks to stderr if its objects are still there at the end.
    if "triton" not in sys.modules:
        gc.freeze()
    return status


class _Parser(argparse.ArgumentParser):
    """An argparse parser that notices when its help cannot be written; argparse itself ignores that."""

    def _print_message(self, message: str, file: Any = None) -> None:
        stream = file or sys.stderr
        stream.write(message or "")
        stream.flush()


def _run(argv: list[str]) -> int:
    from chatglm import __version__

    parser = _Parser(prog="chatglm", description="Models of the ChatGLM family, from the command line.")
    parser.add_argument("--version", action="version", version=f"chatglm {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    # Only the chosen command's module is imported; the others show their line of help.
    chosen = next((word for word in argv if not word.startswith("-")), None)
    for name, (module, line) in COMMANDS.items():
        command = commands.add_parser(name, help=line, description=line)
        if name == chosen:
            importlib.import_module(module).add_arguments(command)
    arguments = parser.parse_args(argv)
    if not _working_folder_exists():
        raise FileNotFoundError("the working folder does not exist any more; change to another folder")
    status: int = importlib.import_module(COMMANDS[arguments.command][0]).run(arguments)
    return status


# Streams


def _prepare_streams() -> None:
    """Make sure that there are three streams, and that no character can end the program.

    A closed stream (`>&-`) becomes the null device. A character that the output's encoding does not have is written as
    an escape (`\\u4f60`). Bytes on stdin that are not text are errors of decoding, which the command reports.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, so that no other file gets it
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 — the program's own
        elif not isinstance(stream, io.TextIOWrapper):
            continue  # a stream of the caller of `main`
        elif mode == "w":
            stream.reconfigure(errors="backslashreplace")
        else:
            # The POSIX locale says ASCII and means "unknown"; every ASCII text is UTF-8.
            ascii_only = stream.encoding.lower().replace("_", "-") in ("ascii", "us-ascii", "ansi-x3.4-1968", "646")
            stream.reconfigure(encoding="utf-8" if ascii_only else stream.encoding, errors="strict")


def _say(text: str, status: int) -> int:
    """Write to stderr if that is possible, and return the exit status."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    from chatglm.cli.shown import tell

    with contextlib.suppress(OSError):
        tell(text or "\n", end="")
        sys.stderr.flush()
    return status


def _give_up_broken_streams() -> None:
    """Drop output that cannot be written, so that Python does not complain about it at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
        except ValueError:  # closed
            pass


# Errors


def _in_one_line(error: Exception) -> str | None:
    """The message for an error of the caller or the machine; None for a bug of chatglm."""
    from chatglm.errors import ChatGLMError

    if isinstance(error, ChatGLMError):
        return str(error)
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        reason = " ".join(str(error).split())
        return (
            "out of memory" + (f" ({reason:.200})" if reason else "") + "; free some, or use a smaller model or batch"
        )
    if isinstance(error, UnicodeError):
        return f"text cannot be encoded or decoded: {error}"
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name} is not installed; install chatglm again"
    if isinstance(error, ImportError):
        reason = " ".join(str(error).split())
        return f"a library cannot be loaded ({reason}); too little memory, or a broken installation"
    if isinstance(error, OSError):
        return _of_system(error)
    return None


def _of_system(error: OSError) -> str:
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    if error.filename is not None:
        return f"{os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename}: {reason}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF):
        return f"the output cannot be written: {reason}"
    return reason


def _working_folder_exists() -> bool:
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def _is_out_of_memory(error: Exception) -> bool:
    # torch has a class of its own for CUDA; on a CPU it raises a plain RuntimeError.
    if type(error).__name__ == "OutOfMemoryError":
        return True
    signs = ("can't allocate memory", "not enough memory", "Cannot allocate memory", "can't start new thread")
    return isinstance(error, RuntimeError | OSError) and any(sign in str(error) for sign in signs)


if __name__ == "__main__":
    sys.exit(main())
