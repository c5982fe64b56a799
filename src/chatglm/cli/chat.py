"""`chatglm chat`: one question answered, or a dialogue, on a terminal or in a pipe."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from chatglm.cli.models import add_assistant_arguments, open_assistant
from chatglm.cli.server_tools import add_source_arguments
from chatglm.cli.shown import plain_output
from chatglm.errors import InputError
from chatglm.params import SamplingParams

if TYPE_CHECKING:
    from chatglm.assistant import BaseAssistant
    from chatglm.conversation.settings import Settings

_NOT_HERE = ("n", "logprobs", "prompt_logprobs")  # options of generation that do not apply to one text
_ID = re.compile(r"[0-9a-f]{4,32}")
_MODES = ("chat", "tools", "code", "character", "documents")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "question",
        nargs="?",
        help="one question; without it, a dialogue: /help shows what can be typed, in a pipe each line is a question",
    )
    add_assistant_arguments(parser)
    parser.add_argument("--system", metavar="TEXT", help="system message (ChatGLM3, GLM-4)")
    parser.add_argument(
        "--character",
        "--persona",
        dest="character",
        metavar="NAME|FILE",
        help="role play: a character that comes with chatglm, such as tea-house, or a file: YAML or JSON with name, "
        "bot_info, user_name, user_info and greeting, or a character card (.json, .png, .charx)",
    )
    parser.add_argument(
        "--mode",
        choices=_MODES,
        help="how the dialogue begins (default: tools, code, character or documents where such an option is "
        "given, else chat)",
    )
    parser.add_argument(
        "--knowledge",
        action="append",
        metavar="NAME",
        help="answer from this base of documents (chatglm knowledge); with --tools or --mode tools, the model searches "
        "it with the tool search_knowledge; may be repeated",
    )
    add_source_arguments(parser, "the model may call these tools: ")
    parser.add_argument(
        "--tools-without-asking",
        action="store_true",
        help="also use tools that need a person's consent, without asking (default: on a terminal you are asked; in a "
        "pipe such tools are refused)",
    )
    parser.add_argument(
        "--interpreter", action="store_true", help="run the model's Python code, in the best sandbox of this machine"
    )
    parser.add_argument(
        "--code-runs-with-my-rights",
        action="store_true",
        help="run the model's Python code without a sandbox: it can read, change and delete your files. Each cell is "
        "asked about",
    )
    keeping = parser.add_argument_group("conversations", "Conversations on a terminal are kept in CHATGLM_HOME.")
    keeping.add_argument(
        "--continue",
        dest="resume",
        nargs="?",
        const="",
        metavar="ID",
        help="continue a conversation (default: the last one, if there is one), with its model and settings unless "
        "others are given",
    )
    keeping.add_argument("--no-store", action="store_true", help="do not keep the conversation")
    form = parser.add_argument_group("input and output")
    form.add_argument(
        "--json",
        action="store_true",
        help="write what happens as JSON for programs, one event in each line (docs/chat.md)",
    )
    form.add_argument(
        "--lines",
        action="store_true",
        help="plain text, also on a terminal (in a pipe it always is): each line of input is a question, and gets its "
        "answer; nothing is kept",
    )
    form.add_argument(
        "--language", choices=("zh", "en"), help="language of chatglm's own messages (default: the locale's)"
    )
    form.add_argument(
        "--verbose",
        action="store_true",
        help="show after each answer: time to its first token, tokens/s, tokens of the prompt",
    )
    generation = parser.add_argument_group(
        "generation", "Defaults come from the checkpoint's generation_config.json, then from the official `chat`."
    )
    SamplingParams.add_arguments(
        generation, [option.name for option in SamplingParams.options() if option.name not in _NOT_HERE]
    )


def run(arguments: argparse.Namespace) -> int:
    for name in ("question", "system", "stop", "character"):
        if hasattr(arguments, name):
            setattr(arguments, name, _text(getattr(arguments, name)))
    if arguments.resume and arguments.question is None and not _ID.fullmatch(arguments.resume):
        arguments.question, arguments.resume = _text(arguments.resume), ""  # `--continue 你好`
    _check(arguments)
    if _is_terminal(arguments) and _has_packages():
        from chatglm.cli.terminal import run_terminal

        return run_terminal(arguments, lambda found: _settings(arguments, found), _checked(arguments))
    with plain_output():
        if _session_options(arguments):
            from chatglm.cli.piped import run_piped

            return run_piped(arguments, lambda found: _settings(arguments, found), _checked(arguments))
        return _plainly(arguments)


def _check(arguments: argparse.Namespace) -> None:
    """
    Raises:
        InputError: a value is out of range, or options contradict each other; before a model is loaded.
    """
    SamplingParams.from_arguments(arguments)
    if arguments.tools_without_asking and not arguments.tools:
        raise InputError("--tools-without-asking: there are no tools; add --tools FILE")
    if arguments.tools_without_asking and arguments.code_runs_with_my_rights:
        raise InputError(
            "--tools-without-asking: cannot be used with --code-runs-with-my-rights, which asks before each cell; "
            "leave one out"
        )
    if arguments.mode == "character" and arguments.character is None and arguments.resume is None:
        raise InputError("--mode character: needs --character NAME|FILE, such as tea-house")
    if arguments.no_store and arguments.resume is not None:
        raise InputError(
            "--no-store: cannot be used with --continue, whose conversation is kept; leave one of them out"
        )
    if arguments.lines and (used := _session_options(arguments)):
        raise InputError(f"--lines: cannot be used with {used[0]}")


def _plainly(arguments: argparse.Namespace) -> int:
    """Answer text with text; nothing is kept."""
    from chatglm.cli.plain import PlainDialogue, check_prompt, converse

    character = None
    if arguments.character is not None:
        from chatglm.cli.characters import character_of

        character = character_of(arguments.character, "--character: ")
    with open_assistant(arguments) as assistant:
        check_prompt(assistant, arguments.system, character is not None)
        dialogue = PlainDialogue(
            assistant,
            SamplingParams.from_arguments(arguments, dataclasses.replace(assistant.defaults, n=1)),
            arguments.system,
            arguments.verbose,
            character,
        )
        if arguments.question is not None:
            dialogue.ask(arguments.question)
        else:
            converse(dialogue)
    return 0


def _is_terminal(arguments: argparse.Namespace) -> bool:
    """Whether a person types at a terminal, and sees the output."""
    if arguments.json or arguments.lines or os.environ.get("TERM") in ("dumb", "unknown"):
        return False
    return sys.stdin.isatty() and sys.stdout.isatty()


def _has_packages() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("prompt_toolkit", "rich"))


def _session_options(arguments: argparse.Namespace) -> list[str]:
    """The given options that need more than questions and answers."""
    given = {
        "--continue": arguments.resume is not None,
        "--json": arguments.json,
        "--tools": bool(arguments.tools),
        "--interpreter": arguments.interpreter,
        "--code-runs-with-my-rights": arguments.code_runs_with_my_rights,
        "--knowledge": bool(arguments.knowledge),
        "--mode": arguments.mode in ("tools", "code", "documents"),
    }
    return [name for name, used in given.items() if used]


def _settings(arguments: argparse.Namespace, found: Settings) -> Settings:
    """Return settings with the changes of the command line.

    Raises:
        InputError: the character cannot be read.
    """
    from chatglm.cli.characters import character_of

    changes: dict[str, Any] = {}
    names = [option.name for option in SamplingParams.options()]
    given = {name: getattr(arguments, name, None) for name in names}
    if params := {name: value for name, value in given.items() if value is not None}:
        changes["params"] = {**found.params, **params}
    if arguments.system is not None:
        changes["system"] = arguments.system
    if arguments.knowledge:
        changes.update(mode="documents", knowledge=tuple(arguments.knowledge))
    if arguments.tools:  # and bases are then searched by a tool
        changes.update(mode="tools", tools=None)
    if arguments.interpreter or arguments.code_runs_with_my_rights:
        changes["mode"] = "code"
    if arguments.character is not None:
        changes.update(mode="character", character=character_of(arguments.character, "--character: ").text())
    if arguments.mode is not None:
        changes["mode"] = arguments.mode
    if arguments.model is not None:
        changes["model"] = arguments.model
    return dataclasses.replace(found, **changes)


def _checked(arguments: argparse.Namespace) -> Any:
    """Returns the check of a model before it is used."""

    def check(assistant: BaseAssistant) -> None:
        from chatglm.cli.plain import check_prompt

        check_prompt(assistant, arguments.system, arguments.character is not None or arguments.resume is not None)

    return check


def _text(given: Any) -> Any:
    """Words of the command line as text. In the POSIX locale Python reads them as bytes; they are taken as UTF-8.

    Raises:
        InputError: they are in another encoding.
    """
    if isinstance(given, list):
        return [_text(word) for word in given]
    if not isinstance(given, str) or given.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in given):
        return given
    try:
        return given.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        raise InputError(
            f"{given!a}: this text is not in the terminal's encoding ({sys.getfilesystemencoding()}); set the "
            "terminal to UTF-8, or convert the text"
        ) from None
