"""`chatglm chat`: one question answered, or a dialogue line by line."""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from chatglm.cli.models import add_assistant_arguments, open_assistant
from chatglm.cli.personas import read_persona
from chatglm.errors import ContextError, InputError
from chatglm.params import SamplingParams

if TYPE_CHECKING:
    from chatglm.assistant import Answer, BaseAssistant
    from chatglm.chat.messages import Message
    from chatglm.chat.personas import Persona

CLEAR, STOP = ("clear", "清空"), ("stop", "exit", "quit", "退出")
_NOT_HERE = ("n", "logprobs", "prompt_logprobs")  # options of generation that one text has no place for


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "question",
        nargs="?",
        help="one question; without it, a dialogue: `clear` forgets what was said, `stop` ends it",
    )
    add_assistant_arguments(parser)
    parser.add_argument("--system", metavar="TEXT", help="system message (ChatGLM3, GLM-4)")
    parser.add_argument(
        "--persona",
        metavar="FILE",
        help="role play: a YAML or JSON file with bot_name, bot_info, user_name and user_info, as CharacterGLM has "
        "them; models of other generations are told in a system message, or in front of the first question",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="after each answer: time to its first token, tokens/s, tokens of prompt"
    )
    generation = parser.add_argument_group(
        "generation", "Defaults come from the checkpoint's generation_config.json, then from the official `chat`."
    )
    SamplingParams.add_arguments(
        generation, [option.name for option in SamplingParams.options() if option.name not in _NOT_HERE]
    )


def run(arguments: argparse.Namespace) -> int:
    for name in ("question", "system", "stop"):
        if hasattr(arguments, name):
            setattr(arguments, name, _text(getattr(arguments, name)))
    SamplingParams.from_arguments(arguments)  # refuses what is out of range, before a model is loaded
    persona = None if arguments.persona is None else read_persona(arguments.persona)
    with open_assistant(arguments) as assistant:
        dialogue = _Dialogue(
            assistant,
            SamplingParams.from_arguments(arguments, dataclasses.replace(assistant.defaults, n=1)),
            _start(assistant, arguments.system, persona),
            arguments.verbose,
            persona,
        )
        if arguments.question is not None:
            dialogue.ask(arguments.question)
        else:
            _converse(dialogue)
    return 0


def _text(given: Any) -> Any:
    """Words of the command line as text. In the POSIX locale Python reads them as bytes; UTF-8 is what they are then.

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


def _start(assistant: BaseAssistant, system: str | None, persona: Persona | None) -> tuple[Message, ...]:
    """What a dialogue begins with."""
    from chatglm.assistant import Assistant
    from chatglm.chat.generations import Generation
    from chatglm.chat.messages import Message

    # A remote model's prompts are its endpoint's business.
    generation = assistant.format.generation if isinstance(assistant, Assistant) else None
    if generation == Generation.CHARACTERGLM and persona is None:
        raise InputError(
            "CharacterGLM plays a role and needs its description: --persona FILE, with bot_name, bot_info, user_name "
            "and user_info"
        )
    if system is None:
        return ()
    if generation not in (Generation.CHATGLM3, Generation.GLM4, Generation.CHARACTERGLM, None):
        raise InputError(f"--system: {generation} has no system message in its prompt")
    return (Message("system", system),)


@dataclasses.dataclass
class _Dialogue:
    """Questions and answers so far, and how they are shown."""

    assistant: BaseAssistant
    params: SamplingParams
    start: tuple[Message, ...]
    verbose: bool
    persona: Persona | None = None
    turns: list[Message] = dataclasses.field(default_factory=list)

    def ask(self, question: str) -> None:
        """Write the answer as it grows. A turn that does not come to its end leaves nothing behind."""
        from chatglm.assistant import TextDelta, Transcript
        from chatglm.chat.messages import Message

        asked = Message("user", question)
        transcript = Transcript()
        with (
            _interrupts() as noted,
            closing(
                self.assistant.stream([*self.start, *self.turns, asked], params=self.params, persona=self.persona)
            ) as deltas,
        ):
            for delta in deltas:
                if noted:
                    raise KeyboardInterrupt
                transcript.add(delta)
                if isinstance(delta, TextDelta):
                    print(delta.text, end="", flush=True)
        (answer,) = transcript.answers()
        lines = [
            json.dumps({"name": c.name, "parameters": c.arguments if c.text is None else c.text}, ensure_ascii=False)
            for c in answer.message.tool_calls
        ]
        if lines and answer.message.content:
            lines.insert(0, "")
        print(*lines, sep="\n", flush=True)
        self.turns += [asked, answer.message]
        if answer.finish.note:
            print(f"[{answer.finish.note}]", file=sys.stderr)
        if self.verbose:
            print(_figures(answer), file=sys.stderr)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Ctrl-C is noted, too: Python drops the exception if it comes up inside a finalizer, and the key was pressed for
    nothing.
    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.default_int_handler(number, frame)

    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _figures(answer: Answer) -> str:
    usage, first, seconds = answer.finish.usage, answer.finish.first_seconds, answer.finish.seconds
    more = usage.completion_tokens - 1
    rate = f"{more / (seconds - first):.1f} tokens/s, " if more > 0 and seconds > first else ""
    return (
        f"[first token {first:.2f} s, {rate}{usage.completion_tokens} tokens; "
        f"prompt {usage.prompt_tokens} tokens, {usage.cached_tokens} of them from the cache]"
    )


def _converse(dialogue: _Dialogue) -> None:
    terminal = sys.stdin.isatty()
    if terminal:
        print("Ask away. `clear` forgets what was said, `stop` ends.  输入 clear 清空对话历史，stop 终止程序")
    while True:
        try:
            question = input("\n> " if terminal else "").strip()
        except EOFError:
            return
        except UnicodeDecodeError as error:
            raise InputError(
                f"the input is not {sys.stdin.encoding} ({error.reason} at byte {error.start}); convert it, or "
                "name its encoding: PYTHONIOENCODING=gbk"
            ) from None
        if question in STOP:
            return
        if question in CLEAR:
            dialogue.turns.clear()
        elif question:
            try:
                dialogue.ask(question)
            except KeyboardInterrupt:  # ends the answer, not the dialogue
                print("\n[stopped]" if terminal else "")
            except ContextError as error:  # of this question; the next may be shorter
                if not terminal:
                    raise
                print(f"chatglm: {error}", file=sys.stderr)
