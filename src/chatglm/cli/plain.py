"""Questions and answers as plain text, line by line: `chatglm chat` in a pipe, and without its extra."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from chatglm.cli.shown import figures, plain
from chatglm.errors import ContextError, InputError
from chatglm.params import SamplingParams

if TYPE_CHECKING:
    from chatglm.assistant import Answer, BaseAssistant
    from chatglm.characters import Character
    from chatglm.chat.generations import Generation
    from chatglm.chat.messages import Message
    from chatglm.chat.personas import Persona

__all__ = ["PlainDialogue", "check_prompt", "converse", "generation_of", "next_line"]

CLEAR, STOP = ("clear", "清空"), ("stop", "exit", "quit", "退出")


def generation_of(assistant: BaseAssistant) -> Generation | None:
    """The generation of a model; None: an endpoint makes the prompts."""
    from chatglm.assistant import Assistant

    return assistant.format.generation if isinstance(assistant, Assistant) else None


def check_prompt(assistant: BaseAssistant, system: str | None, has_character: bool) -> None:
    """Check that a model's prompts have a system message if one is given, and a character if they need one.

    Raises:
        InputError: they have none, or need a character.
    """
    from chatglm.chat.generations import Generation

    generation = generation_of(assistant)
    if generation == Generation.CHARACTERGLM and not has_character:
        raise InputError(
            "CharacterGLM plays a role and needs its description: --character NAME|FILE, such as tea-house, or a file "
            "with name, bot_info, user_name and user_info"
        )
    if system is not None and generation not in (
        Generation.CHATGLM3,
        Generation.GLM4,
        Generation.CHARACTERGLM,
        None,
    ):
        raise InputError(f"--system: {generation} has no system message in its prompt")


@dataclasses.dataclass
class PlainDialogue:
    """Questions and answers so far, and how they are shown."""

    assistant: BaseAssistant
    params: SamplingParams
    system: str | None
    verbose: bool
    character: Character | None = None
    turns: list[Message] = dataclasses.field(default_factory=list)

    def ask(self, question: str) -> None:
        """Write the answer as it grows. An unfinished turn is not kept."""
        from chatglm.assistant import TextDelta, Transcript
        from chatglm.chat.messages import Message

        asked = Message("user", question)
        persona, messages = self._told([*self.turns, asked])
        transcript = Transcript()
        with (
            _interrupts() as noted,
            closing(self.assistant.stream(messages, params=self.params, persona=persona)) as deltas,
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

    def greet(self) -> None:
        """Write the greeting of the character."""
        if self.character is None:
            return
        _, messages = self.character.opening(generation_of(self.assistant))
        if messages and messages[-1].role == "assistant":
            print(plain(messages[-1].content), flush=True)  # a file's text, also in a pipe

    def _told(self, turns: list[Message]) -> tuple[Persona | None, list[Message]]:
        """The dialogue, with the messages in front of it."""
        from chatglm.assistant import Assistant
        from chatglm.chat.messages import Message

        if self.character is None:
            return None, turns if self.system is None else [Message("system", self.system), *turns]
        room: dict[str, Any] = {}
        if isinstance(self.assistant, Assistant):
            encode = self.assistant.format.tokenizer.encode_text
            room = {"context": self.assistant.context, "count": lambda text: len(encode(text))}
        persona, messages = self.character.dialogue(
            generation_of(self.assistant), turns, system=self.system or "", **room
        )
        return persona, list(messages)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Note Ctrl-C, because Python drops the exception if it is raised inside a finalizer: then the key would have no
    effect.
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
    return figures(first, usage.completion_tokens, usage.prompt_tokens, usage.cached_tokens, rate)


def next_line(prompt: str = "") -> str:
    """A line of the input, without spaces around it.

    Raises:
        EOFError: there is no more. InputError: it is in another encoding.
    """
    try:
        return input(prompt).strip()
    except UnicodeDecodeError as error:
        raise InputError(
            f"the input is not {sys.stdin.encoding} ({error.reason} at byte {error.start}); convert it, or "
            "name its encoding: PYTHONIOENCODING=gbk"
        ) from None


def converse(dialogue: PlainDialogue) -> None:
    terminal = sys.stdin.isatty()
    if terminal:
        print("Ask away. `clear` forgets the dialogue, `stop` ends.  输入 clear 清空对话历史，stop 终止程序")
    dialogue.greet()
    while True:
        try:
            question = next_line("\n> " if terminal else "")
        except EOFError:
            return
        if question in STOP:
            return
        if question in CLEAR:
            dialogue.turns.clear()
            dialogue.greet()
        elif question:
            try:
                dialogue.ask(question)
            except KeyboardInterrupt:  # ends the answer, not the dialogue
                print("\n[stopped]" if terminal else "")
            except ContextError as error:  # of this question; the next may be shorter
                if not terminal:
                    raise
                print(f"chatglm: {error}", file=sys.stderr)
