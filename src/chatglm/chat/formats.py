"""`ChatFormat` converts messages to ids, and ids to messages. Each generation has its own.

This is the only place that knows prompt syntax, role tokens, stop tokens and loss masks, so training, prompts, stopping
and parsing always agree. Control ids come only from `get_command`, and text is encoded only by `encode_text`, so no
message can produce a control id.

Sources of the formats: `modeling_chatglm.py` and `tokenization_chatglm.py` of THUDM/chatglm-6b, chatglm2-6b and
chatglm3-6b; PROMPT.md of THUDM/ChatGLM3; the chat template of THUDM/glm-4-9b-chat; `characterglm_generation_utils.py`
of thu-coai/CharacterGLM-6B.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from chatglm.chat.calls import (
    FENCES,
    ArgumentStream,
    as_json,
    fenced,
    parse_json_arguments,
    parse_python_call,
    render_python_call,
)
from chatglm.chat.generations import Generation
from chatglm.chat.grammars import CallGrammar, call_grammar
from chatglm.chat.messages import INTERPRETER, Message, ToolCall, ToolSpec
from chatglm.chat.personas import Persona, one_line, staged
from chatglm.chat.streaming import StreamDecoder, held_suffix
from chatglm.chat.vocabulary import Vocabulary
from chatglm.errors import InputError, UnsupportedError

__all__ = [
    "CallPart",
    "CallPiece",
    "ChatFormat",
    "Delta",
    "Parser",
    "TextPiece",
    "chat_format",
    "postprocess",
    "postprocess_v1",
]

TRAINING_TIME = "[[训练时间]]"
PICTURE = "[Image]"
"""The text that a model reads in place of a picture."""
CJK = r"[\u4e00-\u9fff]"
FULL_WIDTH = {",": "，", "!": "！", ":": "：", ";": "；", "?": "？"}


@dataclass(frozen=True)
class TextPiece:
    """More text of the answer."""

    text: str


@dataclass(frozen=True)
class CallPart:
    """More of a tool call that has begun.

    Attributes:
        name: of the tool, in the first part of a call; "" in later parts.
        arguments: more of the JSON text of the arguments.
    """

    name: str
    arguments: str


@dataclass(frozen=True)
class CallPiece:
    """A complete tool call.

    Attributes:
        told: the beginning of the JSON text of its arguments that `CallPart`s have sent already.
    """

    call: ToolCall
    told: str = ""


Delta = TextPiece | CallPart | CallPiece


def postprocess(text: str) -> str:
    """The official clean-up of an answer of ChatGLM2 and later: remove whitespace at both ends, and replace a
    placeholder of ChatGLM-6B's training data.
    """
    return text.strip().replace(TRAINING_TIME, "2023年")


def postprocess_v1(text: str) -> str:
    """The official clean-up of an answer of ChatGLM-6B: also make `, ! : ; ?` next to a Chinese character full-width,
    because the tokenizer makes them half-width.
    """
    text = postprocess(text)
    for half, full in FULL_WIDTH.items():
        text = re.sub(rf"({CJK}){re.escape(half)}", rf"\1{full}", text)
        text = re.sub(rf"{re.escape(half)}({CJK})", rf"{full}\1", text)
    return text


class ChatFormat:
    """The prompt format of one generation, bound to its tokenizer.

    Attributes:
        stop_ids: the ids that end an answer.
        extends: whether the ids of a prompt and its reply are the beginning of the next prompt. Then a cache can be
            kept, and one pass over a dialogue trains on exactly the ids that inference has.
    """

    extends = False
    stop_ids: frozenset[int]
    _persona: Persona | None = None

    def __init__(self, tokenizer: Vocabulary) -> None:
        self.tokenizer = tokenizer

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """Texts that end an answer and are not part of it, in addition to `stop_ids`."""
        return ()

    @property
    def generation(self) -> Generation:
        return self.tokenizer.generation

    # Methods that each generation implements

    def ids(
        self, messages: Sequence[Message], tools: Sequence[Any] = (), add_generation_prompt: bool = True
    ) -> list[int]:
        """Ids of a dialogue.

        Args:
            add_generation_prompt: end where the assistant's next message begins.

        Raises:
            InputError: a tool or the name of a tool call is not valid.
            UnsupportedError: these prompts have no place for tools, or for `loss: true` on a message that is not the
                assistant's.
        """
        raise UnsupportedError("ids")  # pragma: no cover

    def text(self, messages: Sequence[Message], tools: Sequence[Any] = (), add_generation_prompt: bool = True) -> str:
        """The same as text for people, with the names of control tokens. Raises the same errors."""
        raise UnsupportedError("text")  # pragma: no cover

    def example(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> tuple[list[int], list[bool]]:
        """Ids of a whole dialogue, and a mask that is True for ids that are learned: of every assistant turn the reply
        and one stop id.

        A message's `loss` changes this: with False, an assistant's message is not learned; with True, the text of
        another message is learned, too. Raises the same errors as `ids`.
        """
        raise UnsupportedError("example")  # pragma: no cover

    def _text_of(self, text: str) -> str:
        return postprocess(text)

    # Methods that use them

    def prompt(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> list[int]:
        """Ids that ask the model for the assistant's next message."""
        return self.ids(messages, tools, True)

    def examples(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> list[tuple[list[int], list[bool]]]:
        """A dialogue as training examples (ids and mask), in which the ids before each learned id are those of
        inference.

        If the format `extends`, this is one example; else one for each assistant turn.
        """
        if self.extends:
            return [self.example(messages, tools)]
        made: list[tuple[list[int], list[bool]]] = []
        for end, message in enumerate(messages, 1):
            if message.role == "assistant" and message.loss is not False:
                ids = self.prompt(messages[: end - 1], tools)
                reply = self._reply(message)
                made.append(([*ids, *reply], [False] * len(ids) + [True] * len(reply)))
        return made

    def _reply(self, message: Message) -> list[int]:
        """The ids that the model should produce for a message, including the stop id."""
        return [*self.tokenizer.encode_text(message.content), self._end()]

    def _end(self) -> int:
        return min(self.stop_ids)

    def with_persona(self, persona: Persona) -> ChatFormat:
        """The same format with these speakers. In CharacterGLM, they are in the script; else in a system message."""
        form = copy.copy(self)
        form._persona = persona
        return form

    def _staged(self, messages: Sequence[Message]) -> Sequence[Message]:
        return staged(messages, self._persona)

    def parser(self, offered: Collection[str] = (), certain: bool = False) -> Parser:
        """Make a parser, which reads a reply as it arrives.

        Args:
            offered: names of the tools. A truncated call of one of these is still a call, not text.
            certain: a grammar ensures that a call of these tools is correct once it has begun. So its arguments come in
                parts. Otherwise a call comes when it is complete, because its syntax may still turn out to be wrong.
        """
        return Parser(self, offered, certain)

    def parse(self, ids: Sequence[int]) -> Message:
        """The message of a reply's ids, with or without the stop id at their end. Never raises: a malformed call
        stays text.
        """
        parser = self.parser()
        for token_id in ids:
            parser.feed(token_id)
        return parser.close()

    def entries(self, message: Message) -> list[dict[str, Any]]:
        """A message as entries of an official history (`role`, `metadata`, `content`, `tools`), with calls in the
        model's syntax.

        Raises:
            UnsupportedError: this generation has no such entries.
            InputError: the name of a tool call is not valid.
        """
        raise UnsupportedError(f"{self.generation} does not support such messages")

    def header_id(self) -> int | None:
        """The id that begins a further message within one reply; None if this generation has none."""
        return None

    def opening(self, metadata: str = "") -> list[int]:
        """The ids of a reply's line of metadata. Added to a prompt, they make the model write text, or a call of the
        tool that they name. Empty if replies have no such line.
        """
        return []

    def call_grammar(self, tools: Sequence[ToolSpec], named: bool = False, lenient: bool = False) -> CallGrammar:
        """The grammar of a reply that calls one of the tools with arguments that fit its schema.

        Args:
            named: the line with the tool's name is already there (`opening`); there is only one tool.
            lenient: see `grammars.call_grammar`.

        Raises:
            InputError: there is no tool, or one has no schema of an object.
            UnsupportedError: this generation's prompts have no place for tools, or a schema cannot be enforced.
        """
        raise UnsupportedError(f"{self.generation} does not support tools; use ChatGLM3 or GLM-4 for them")

    def header(self, tool: ToolSpec) -> str:
        """The line of metadata that begins a call of a tool."""
        return tool.name

    def result(self, text: str) -> str:
        """The interpreter's output in the form for the model. `[Image]` on a line stands for a picture."""
        return text

    def read_call(self, text: str) -> ToolCall | None:
        """Read a complete message of a reply as a call; None if it is text."""
        return None

    def arguments(self, name: str) -> ArgumentStream | None:
        """A reader for the arguments of a tool's call while they are written; None if the call of this tool is code."""
        return ArgumentStream(python=False)

    def begun_arguments(self, name: str, content: str) -> str:
        """The beginning of the JSON text of the arguments of a truncated call."""
        reading = self.arguments(name)
        if reading is not None:
            return reading.feed(content)
        opening, newline, code = content.lstrip().partition("\n")
        if "```".startswith(opening[:3]):  # a fence, or the beginning of one
            content = code if newline else ""
        return json.dumps({"code": content}, ensure_ascii=False)[:-2]

    def may_call(self, metadata: str, content: str) -> bool | None:
        """Whether a message that begins like this may be a call; None: more text is needed to decide.

        Args:
            metadata: its first line, not empty.
            content: the rest so far, without whitespace at its beginning.
        """
        return False

    def splits_lines(self) -> bool:
        """Whether a message begins with a line of metadata."""
        return False


class Parser:
    """Reads a reply, one id at a time. All deltas together are the message that `close` returns.

    Text is passed on as soon as nothing that follows can change it. Whitespace at its end may be stripped, a comma may
    become full-width, and the beginning of a placeholder may be completed, so these are held back. A message is held
    back while it may still be a tool call. A call of which parts have been passed on stays a call: if the reply ends
    before the arguments do, the call has an incomplete text of arguments. The time for an id depends on its own text,
    not on the length of the reply.
    """

    def __init__(self, form: ChatFormat, offered: Collection[str] = (), certain: bool = False) -> None:
        self._form, self._offered, self._certain = form, frozenset(offered), certain
        self._texts: list[str] = []
        self._calls: list[ToolCall] = []
        self._stopped = False
        self._message: Message | None = None
        self.last: list[Delta] = []
        """After `close`: the deltas that were still held back."""
        self._begin_part()

    def feed(self, token_id: int) -> list[Delta]:
        """Add an id; returns the deltas that can no longer change. Ids after a stop id are ignored."""
        if self._stopped:
            return []
        if token_id in self._form.stop_ids:
            self._stopped = True
            return []
        if token_id == self._form.header_id():
            deltas = self._finish_part()
            self._begin_part()
            return deltas
        piece = self._decoder.feed(token_id)
        return self._take(piece) if piece else []

    def close(self, cut: bool = False) -> Message:
        """End the reply; returns the whole message.

        Args:
            cut: the reply was truncated. A call that has begun then has its incomplete arguments as `text`.
        """
        if self._message is None:
            self._stopped = True
            self.last = self._finish_part(cut)
            self._message = Message("assistant", "".join(self._texts), tuple(self._calls))
        return self._message

    def _begin_part(self) -> None:
        """Begin the next message of the reply."""
        self._decoder = StreamDecoder(self._form.tokenizer)
        # None: not known yet whether it may be a call; True: it may be one, until its end; False: it is text.
        self._may_call: bool | None = None if self._form.splits_lines() else False
        self._has_line = False  # the line of metadata is complete
        self._held: list[str] = []  # text that may still change, and the text of a call
        self._arguments: ArgumentStream | None = None  # reads a call that is passed on in parts
        self._told = ""  # JSON text of its arguments that was passed on
        self._before = ""  # the last character that was passed on

    def _finish_part(self, cut: bool = False) -> list[Delta]:
        deltas = self._take(self._decoder.close())
        text = "".join(self._held)
        call = None if self._may_call is False else self._form.read_call(text)
        name, newline, content = text.partition("\n")
        name = name.strip()
        if self._told:
            call = self._as_told(name, call)
        elif call is None and cut and self._may_call is not False and newline and name in self._offered:
            called = name if self._form.arguments(name) is not None else INTERPRETER
            call = ToolCall(called, {}, text=self._form.begun_arguments(name, content) or "{")
        if call is not None:
            self._calls.append(call)
            return [*deltas, CallPiece(call, self._told)]
        return [*deltas, *self._release(final=True)]

    def _as_told(self, name: str, call: ToolCall | None) -> ToolCall:
        """The call with arguments that begin with the text that was passed on."""
        assert self._arguments is not None
        if call is None:
            return ToolCall(name, {}, text=self._told)
        if (as_json(call.arguments) or "").startswith(self._told):
            return call
        # An object in the arguments has a key twice.
        return dataclasses.replace(call, arguments=call.arguments if self._arguments.done else {}, text=self._told)

    def _take(self, piece: str) -> list[Delta]:
        if not piece:
            return []
        self._held.append(piece)
        if self._arguments is not None:
            return self._tell(piece)
        if piece.isspace() and (self._has_line or self._may_call is False or "\n" not in piece):
            return []  # it does not decide whether this is a call, and may be stripped
        if self._may_call is None:
            self._has_line = self._has_line or "\n" in piece
            if self._has_line:
                metadata, _, content = "".join(self._held).partition("\n")
                self._may_call = bool(metadata.strip()) and self._form.may_call(metadata.strip(), content.lstrip())
                # The grammar of calls allows at most one space before this line, and no other.
                if self._may_call and self._certain and metadata.removeprefix(" ") in self._offered:
                    self._arguments = self._form.arguments(metadata.removeprefix(" "))
                    return [] if self._arguments is None else self._tell(content)
        return self._release(final=False) if self._may_call is False else []

    def _tell(self, content: str) -> list[Delta]:
        assert self._arguments is not None
        more = self._arguments.feed(content)
        if not more:
            return []
        name = "" if self._told else "".join(self._held).partition("\n")[0].strip()
        self._told += more
        return [CallPart(name, more)]

    def _release(self, final: bool) -> list[Delta]:
        """Pass on the part of a text that can no longer change."""
        text = "".join(self._held)
        cut = len(text)
        if not final:
            cut = len(text[: cut - held_suffix(text, TRAINING_TIME)].rstrip())
            if cut and text[cut - 1] in FULL_WIDTH:
                cut = len(text[: cut - 1].rstrip())
        self._held = [text[cut:]]
        # The clean-up of a character depends only on its neighbours.
        new = self._form._text_of(self._before + text[:cut])[len(self._before) :]
        if not new:
            return []
        # Each further message of a reply begins on a new line.
        lead = "" if self._before or not self._texts else "\n"
        self._before = new[-1]
        self._texts.append(lead + new)
        return [TextPiece(lead + new)]


class _RoundsFormat(ChatFormat):
    """ChatGLM-6B and ChatGLM2: rounds of question and answer, written as one text."""

    def _rounds(self, messages: Sequence[Message], tools: Sequence[Any]) -> list[tuple[str, Message | None]]:
        """Questions and answers; the last answer is None if it is the model's turn.

        Raises:
            UnsupportedError: tools or observations, which these prompts have no place for.
        """
        if tools or any(m.tools or m.tool_calls or m.metadata or m.role == "observation" for m in messages):
            raise UnsupportedError(f"{self.generation} does not support tools; use ChatGLM3 or GLM-4 for them")
        messages = self._staged(messages)
        rounds: list[tuple[str, Message | None]] = []
        preface: list[str] = []  # system messages: they have no role here, and are put before the question
        for message in messages:
            if message.loss and message.role != "assistant":
                raise UnsupportedError(f"loss: true on a {message.role} message: {self.generation} learns answers only")
            question = rounds[-1][0] if rounds and rounds[-1][1] is None else None
            if message.role == "assistant" and question is not None:
                rounds[-1] = question, message
            elif question is not None:
                rounds[-1] = f"{question}\n{message.content}", None
            elif message.role == "system":
                preface.append(message.content)
            else:
                told = [*preface] if message.role == "assistant" else [*preface, message.content]
                rounds.append(("\n\n".join(told), message if message.role == "assistant" else None))
                preface = []
        if preface:  # no question came after them
            rounds.append(("\n\n".join(preface), None))
        return rounds

    def _learn(self, openings: Sequence[tuple[str, Message | None]]) -> tuple[list[int], list[bool]]:
        """Ids and mask of a dialogue: pairs of the text before an answer, and the answer."""
        ids, mask = self.tokenizer.get_prefix_tokens(), [False] * len(self.tokenizer.get_prefix_tokens())
        for opening, answer in openings:
            before = self.tokenizer.encode_text(opening)
            reply = [] if answer is None else self._reply(answer)
            ids += [*before, *reply]
            mask += [False] * len(before) + [answer is not None and answer.loss is not False] * len(reply)
        return ids, mask


class _ChatGLMFormat(_RoundsFormat):
    """ChatGLM-6B: the bare query, or `[Round 0]\\n问：…\\n答：…`; a prompt ends with `[gMASK] <sop>`.

    These ids are always at the end, so a prompt never extends the one before.
    """

    def __init__(self, tokenizer: Vocabulary) -> None:
        super().__init__(tokenizer)
        self.stop_ids = frozenset({tokenizer.get_command("<eop>")})

    def text(self, messages: Sequence[Message], tools: Sequence[Any] = (), add_generation_prompt: bool = True) -> str:
        rounds = self._rounds(messages, tools)
        if len(rounds) == 1 and rounds[0][1] is None:
            return rounds[0][0]
        return "".join(
            f"[Round {number}]\n问：{question}\n答：" + ("" if answer is None else f"{answer.content}\n")
            for number, (question, answer) in enumerate(rounds)
        )

    def ids(
        self, messages: Sequence[Message], tools: Sequence[Any] = (), add_generation_prompt: bool = True
    ) -> list[int]:
        ids = self.tokenizer.encode_text(self.text(messages, tools))
        return [*ids, *map(self.tokenizer.get_command, ("[gMASK]", "<sop>"))] if add_generation_prompt else ids

    def example(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> tuple[list[int], list[bool]]:
        """Only the last assistant turn is learned: attention over the text before it is bidirectional, so the model
        cannot learn an earlier answer in the same pass. `examples` has every turn.
        """
        made = self.examples(messages, tools)
        if not made:
            ids = self.ids(messages, tools, False)
            return ids, [False] * len(ids)
        return made[-1]

    def _text_of(self, text: str) -> str:
        return postprocess_v1(text)


class _ChatGLM2Format(_RoundsFormat):
    """ChatGLM2 and CodeGeeX2: `[Round 1]\\n\\n问：…\\n\\n答：…`, an empty line between rounds; `[gMASK] sop` in front.

    The official prompt tokenises all rounds as one text. There, an answer has neither the space piece with which the
    model begins it, nor the stop id that ends it. So a prompt does not extend the one before.
    """

    def __init__(self, tokenizer: Vocabulary) -> None:
        super().__init__(tokenizer)
        self.stop_ids = frozenset({tokenizer.get_command("<eos>")})

    def text(self, messages: Sequence[Message], tools: Sequence[Any] = (), add_generation_prompt: bool = True) -> str:
        return "\n\n".join(
            f"[Round {number}]\n\n问：{question}\n\n答：{'' if answer is None else answer.content}"
            for number, (question, answer) in enumerate(self._rounds(messages, tools), 1)
        )

    def ids(
        self, messages: Sequence[Message], tools: Sequence[Any] = (), add_generation_prompt: bool = True
    ) -> list[int]:
        text = self.text(messages, tools)
        return [*self.tokenizer.get_prefix_tokens(), *self.tokenizer.encode_text(text)]

    def example(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> tuple[list[int], list[bool]]:
        """Every assistant turn in one pass: each round begins as in inference, and each answer ends with the stop id.

        The prompt of the first answer is exactly that of inference. The history before later answers contains stop ids;
        `examples` gives each turn its exact prompt.
        """
        rounds = self._rounds(messages, tools)
        return self._learn([(f"[Round {n}]\n\n问：{q}\n\n答：", a) for n, (q, a) in enumerate(rounds, 1)])


class _CharacterFormat(_ChatGLM2Format):
    """CharacterGLM: a script, one line per utterance, `[name]text`; the last line is the bot's name alone."""

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """Texts with which the model would begin to speak for the user, or begin another line of the bot."""
        persona = (self._persona or Persona()).on_lines()
        return f"\n[{persona.user_name}]", f"[{persona.user_name}]", f"\n[{persona.bot_name}]"

    def _staged(self, messages: Sequence[Message]) -> Sequence[Message]:
        return messages  # the scene describes the persona

    def text(self, messages: Sequence[Message], tools: Sequence[Any] = (), add_generation_prompt: bool = True) -> str:
        persona = self._speakers(messages)
        lines = self._scene(persona)
        for question, answer in self._script(messages, tools):
            lines += [] if not question else [f"[{persona.user_name}]{question}"]
            lines += [] if answer is None else [f"[{persona.bot_name}]{one_line(answer.content.strip())}"]
        return "\n".join([*lines, f"[{persona.bot_name}]"] if add_generation_prompt else lines)

    def ids(
        self, messages: Sequence[Message], tools: Sequence[Any] = (), add_generation_prompt: bool = True
    ) -> list[int]:
        text = self.text(messages, tools, add_generation_prompt)
        return [*self.tokenizer.get_prefix_tokens(), *self.tokenizer.encode_text(text)]

    def example(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> tuple[list[int], list[bool]]:
        """Every assistant turn in one pass; each answer ends with the stop id. `examples` gives the exact prompts."""
        persona = self._speakers(messages)
        openings: list[tuple[str, Message | None]] = []
        for question, answer in self._script(messages, tools):
            lines = [""] if openings else self._scene(persona)
            lines += [] if not question else [f"[{persona.user_name}]{question}"]
            openings.append(("\n".join([*lines, f"[{persona.bot_name}]"]), answer))
        return self._learn(openings)

    def _speakers(self, messages: Sequence[Message]) -> Persona:
        """The persona, each text on one line; the text of system messages is added to the bot's description."""
        persona = self._persona or Persona()
        told = " ".join([persona.bot_info, *(m.content for m in messages if m.role == "system")]).strip()
        return dataclasses.replace(persona, bot_info=told).on_lines()

    def _scene(self, persona: Persona) -> list[str]:
        lines = [f"以下是一段{persona.bot_name}和{persona.user_name}之间的对话。"]
        for name, info in ((persona.bot_name, persona.bot_info), (persona.user_name, persona.user_info)):
            lines += [f"关于{name}的信息：{info}"] if info else []
        return lines

    def _script(self, messages: Sequence[Message], tools: Sequence[Any]) -> list[tuple[str, Message | None]]:
        # An empty question, the one before the bot's greeting, is not written.
        rounds = self._rounds([m for m in messages if m.role != "system"], tools)
        return [(one_line(question.strip()), answer) for question, answer in rounds]

    def _reply(self, message: Message) -> list[int]:
        return [*self.tokenizer.encode_text(one_line(message.content.strip())), self._end()]


class _RolesFormat(ChatFormat):
    """ChatGLM3 and GLM-4: messages with a role token, a line of metadata and their text."""

    extends = True

    def __init__(self, tokenizer: Vocabulary) -> None:
        super().__init__(tokenizer)
        stops = (self.EOS, "<|user|>", "<|observation|>")
        self.stop_ids = frozenset(map(tokenizer.get_command, stops))

    EOS = "<eos>"
    PREFIX_TEXT = "[gMASK]sop"

    def _parts(self, messages: Sequence[Message], tools: Sequence[Any]) -> Iterator[tuple[Message, str, str, str]]:
        """For each header of the prompt: its message, role, metadata and content.

        The role is "" if the prompt leaves the message out.
        """
        raise UnsupportedError("_parts")  # pragma: no cover

    def ids(
        self, messages: Sequence[Message], tools: Sequence[Any] = (), add_generation_prompt: bool = True
    ) -> list[int]:
        ids = self.tokenizer.get_prefix_tokens()
        for _, role, metadata, content in self._parts(messages, tools):
            ids += self.tokenizer.build_single_message(role, metadata, content) if role else []
        return [*ids, self.tokenizer.get_command("<|assistant|>")] if add_generation_prompt else ids

    def text(self, messages: Sequence[Message], tools: Sequence[Any] = (), add_generation_prompt: bool = True) -> str:
        return self.tokenizer.to_text(
            self.ids(messages, tools, add_generation_prompt), spaces_between_special_tokens=False
        )

    def example(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> tuple[list[int], list[bool]]:
        """Ids and mask of a whole dialogue. Of every assistant turn, the ids after `<|assistant|>` are learned, and the
        id that ends the turn: the header of the next message, or a stop id at the end of the dialogue. If a turn has
        several messages, the headers between them are learned, too, because the model writes them.

        Raises:
            InputError: a system message follows an assistant's, so its header would have to end a turn; or see `ids`.
        """
        ids = list(self.tokenizer.get_prefix_tokens())
        mask = [False] * len(ids)
        previous: Message | None = None
        gap = False
        for message, role, metadata, content in self._parts(messages, tools):
            if not role:
                gap = True
                continue
            spoke = previous is not None and previous.role == "assistant"
            if role == "system" and spoke:
                raise InputError("a system message cannot follow an assistant's: only the first message can be one")
            new = self.tokenizer.build_single_message(role, metadata, content)
            learned = message.role == "assistant" if message.loss is None else message.loss
            ends_learned_turn = spoke and previous is not None and previous.loss is not False
            # If the message before is left out of the prompt, `<|assistant|>` ends no turn, so it is not learned.
            is_target = ends_learned_turn and not (gap and role == "assistant")
            ids += new
            mask += [is_target] + [learned] * (len(new) - 1)
            previous, gap = message, False
        if previous is not None and previous.role == "assistant":
            ids.append(self._last_stop(previous))
            mask.append(previous.loss is not False)
        return ids, mask

    def _last_stop(self, message: Message) -> int:
        """The id that ends a dialogue's last turn. After a call, this is the header of the expected observation."""
        calls = bool(message.tool_calls) or bool(message.metadata.strip())
        return self.tokenizer.get_command("<|observation|>" if calls else self.LAST_STOP)

    LAST_STOP = "<eos>"

    def header_id(self) -> int | None:
        return self.tokenizer.get_command("<|assistant|>")

    def splits_lines(self) -> bool:
        return True

    def opening(self, metadata: str = "") -> list[int]:
        return self.tokenizer.encode_text(f"{metadata}\n")

    def read_call(self, text: str) -> ToolCall | None:
        metadata, newline, content = text.partition("\n")
        name = metadata.strip()
        return self._read_call(name, content) if newline and name else None

    def _read_call(self, name: str, content: str) -> ToolCall | None:
        raise UnsupportedError("_read_call")  # pragma: no cover

    def _assistant_parts(self, message: Message) -> Iterator[tuple[Message, str, str, str]]:
        if message.content or message.metadata or not message.tool_calls:
            yield message, "assistant", message.metadata, message.content
        for call in message.tool_calls:
            if not call.name.strip() or "\n" in call.name:
                raise InputError(f"the name of a tool call is {call.name!r:.80}; it must be one line that is not blank")
            yield message, "assistant", *self._write_call(call)

    def entries(self, message: Message) -> list[dict[str, Any]]:
        parts = [(message, message.role, message.metadata, message.content)]
        if message.role == "assistant":
            parts = list(self._assistant_parts(message))
        made: list[dict[str, Any]] = [
            {"role": role, "metadata": metadata, "content": text} for _, role, metadata, text in parts
        ]
        if message.tools is not None:
            made[0]["tools"] = [dict(tool.wrapped()) for tool in message.tools]
        return made

    def _write_call(self, call: ToolCall) -> tuple[str, str]:
        """Metadata and content of a call."""
        raise UnsupportedError("_write_call")  # pragma: no cover

    def _with_results(self, messages: Sequence[Message]) -> list[Message]:
        """The dialogue, with the interpreter's observations in the form for the model.

        An observation answers the call with its `tool_call_id`; without an id, the first call that has no answer yet.
        Observations in an official history, where calls are written as `metadata`, are not changed.
        """
        made: list[Message] = []
        open_calls: list[ToolCall] = []
        for message in messages:
            if message.role == "observation":
                answered = next((c for c in open_calls if c.id == message.tool_call_id), None) if open_calls else None
                answered = answered or (open_calls[0] if open_calls and not message.tool_call_id else None)
                if answered is not None:
                    open_calls.remove(answered)
                    if answered.name == INTERPRETER:
                        message = dataclasses.replace(message, content=self.result(message.content))
            else:
                open_calls = [*(open_calls if message.role == "assistant" else ()), *message.tool_calls]
            made.append(message)
        return made


class _ChatGLM3Format(_RolesFormat):
    """ChatGLM3: tools as JSON in the system message, calls as Python.

    The code interpreter is a mode: a sentence in the system message says that there is a computer, and no tool is
    listed. If functions are offered as well, the sentence comes before them.
    """

    SYSTEM = "Answer the following questions as best as you can. You have access to the following tools:"
    INTERPRETING = (
        "你是一位智能AI助手，你叫ChatGLM，你连接着一台电脑，但请注意不能联网。在使用Python解决任务时，你可以运行代码并得到结果，"
        "如果运行结果有错误，你需要尽可能对代码进行改进。你可以处理用户上传到电脑上的文件，文件默认存储路径是/mnt/data/。"
    )

    def _parts(self, messages: Sequence[Message], tools: Sequence[Any]) -> Iterator[tuple[Message, str, str, str]]:
        offered, messages = ToolSpec.list_from(tools), self._with_results(self._staged(messages))
        if offered and (not messages or messages[0].role != "system"):
            lists = any(tool.builtin != "python" for tool in offered)
            messages = [Message("system", self.SYSTEM if lists else ""), *messages]
        for number, message in enumerate(messages):
            if message.role == "assistant":
                yield from self._assistant_parts(message)
                continue
            content = message.content
            listed = offered if offered and number == 0 else message.tools
            if message.role == "system" and listed is not None:
                content = self._with_tools(content, listed)
            yield message, message.role, message.metadata, content

    def _with_tools(self, content: str, tools: Sequence[ToolSpec]) -> str:
        """The content of a system message, with the text about the tools."""
        listed = [tool for tool in tools if tool.builtin != "python"]
        if len(listed) < len(tools) and self.INTERPRETING not in content:
            content = f"{self.INTERPRETING}\n{content}" if content else self.INTERPRETING
        if tools and not listed:
            return content
        return f"{content}\n{json.dumps(ToolSpec.as_given(listed, flat=True), indent=4, ensure_ascii=False)}"

    def result(self, text: str) -> str:
        lines = text.rstrip("\n").split("\n")
        pictures = [*itertools.takewhile(lambda line: line == PICTURE, reversed(lines))]
        printed = "\n".join(lines[: len(lines) - len(pictures)])
        if printed.startswith("```"):  # the form in the history of the official demo
            return text
        return "\n".join([f"```result\n{printed}\n```"] * (bool(printed) or not pictures) + pictures)

    def _write_call(self, call: ToolCall) -> tuple[str, str]:
        code = call.arguments.get("code")
        if call.name == INTERPRETER and set(call.arguments) == {"code"} and isinstance(code, str):
            return INTERPRETER, f"```python\n{code}\n```"
        if call.text is not None and call.cut:  # an incomplete call is shown as it was written
            return call.name, call.text
        return call.name, render_python_call(call.arguments)

    def call_grammar(self, tools: Sequence[ToolSpec], named: bool = False, lenient: bool = False) -> CallGrammar:
        return call_grammar(tools, python=True, named=named, lenient=lenient)

    def arguments(self, name: str) -> ArgumentStream | None:
        return None if name == INTERPRETER else ArgumentStream(python=True)

    def _read_call(self, name: str, content: str) -> ToolCall | None:
        if name == INTERPRETER and (code := fenced(content)) is not None:
            return ToolCall(INTERPRETER, {"code": code})
        arguments = parse_python_call(content)
        return None if arguments is None or as_json(arguments) is None else ToolCall(name, arguments)

    def may_call(self, metadata: str, content: str) -> bool | None:
        if "```".startswith(content[:3]):
            opening, newline, code = content.partition("\n")
            if not newline:
                return None if len(opening) < len("```python") or opening.rstrip() in FENCES else False
            if opening.rstrip() not in FENCES:
                return False
            if metadata == INTERPRETER:
                return True
            content = code.lstrip()
            if content.startswith("#"):  # a comment in front of the call
                return True
        known = content[: len("tool_call")]
        return "tool_call".startswith(known) and (known == "tool_call" or None)


class _GLM4Format(_RolesFormat):
    """GLM-4: tools in a system block of their own, calls as JSON."""

    EOS = "<|endoftext|>"
    LAST_STOP = "<|user|>"
    PREFIX_TEXT = "[gMASK]<sop>"
    INTRODUCTION = (
        "你是一个名为 ChatGLM 的人工智能助手。你是基于智谱AI训练的语言模型 GLM-4 模型开发的，"
        "你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具"
    )
    CALLING = "\n在调用上述函数时，请使用 Json 格式表示调用的参数。"
    BUILTIN = {  # noqa: RUF012
        "python": (
            "\n## python\n\n当你向 `python` 发送包含 Python 代码的消息时，"
            "该代码将会在一个有状态的 Jupyter notebook 环境中执行。\n"
            "`python` 返回代码执行的输出，或在执行 60 秒后返回超时。\n`/mnt/data` 将会持久化存储你的文件。"
            "在此会话中，`python` 无法访问互联网。不要使用 `python` 进行任何网络请求或者在线 API 调用，"
            "这些在线内容的访问将不会成功。"
        ),
        "simple_browser": (
            "\n## simple_browser\n\n你可以使用 `simple_browser` 工具。该工具支持以下函数：\n"
            "`search(query: str, recency_days: int)`：使用搜索引擎进行查询并显示结果，"
            "可以使用 `recency_days` 参数控制搜索内容的时效性。\n"
            "`mclick(ids: list[int])`：获取一系列指定 id 的页面内容。每次调用时，须选择3-10个页面。"
            "选择多个角度的页面，同时尽可能选择可信任的信息来源。考虑到部分页面是无法加载的，"
            "你也可以多打开一些可能有用的页面而不用担心内容过多。\n`open_url(url: str)`：打开指定的 URL。\n\n"
            "使用 `【{引用 id}†{引用文本}】` 来引用内容。\n\n操作步骤：1. 使用 `search` 来获得信息列表; "
            "2. 使用 `mclick` 来获取指定 ID 页面的内容; 3. 根据获得的内容进行回复。在回复中应当引用信息来源。\n"
            " 如果用户提供了 URL，也可以用 `open_url` 直接打开页面。\n"
            "如果初次搜索结果没有找到合适的信息，也可以再次使用 `search` 进行搜索。"
        ),
        "cogview": (
            "\n## cogview\n\n如果用户的请求中包含了对图像的描述，你可以使用 `cogview` 来生成图像并展示给用户。"
            "你需要向 `cogview` 发送图像描述，规则：\n- 发送给 `cogview` 的消息必须使用英语。"
            "用户的中文描述必须完全翻译为英语。\n- 应当尽可能详细地描述图像生成的需求，需求描述约 100 英文单词。\n"
            "- 保持用户原始描述的意图。不要虚构内容或者没见过的人物。\n"
            "- 如无特殊说明，所在地为中国，持有中国立场并遵循中国社会主义价值观。"
        ),
    }

    def _parts(self, messages: Sequence[Message], tools: Sequence[Any]) -> Iterator[tuple[Message, str, str, str]]:
        offered, messages = ToolSpec.list_from(tools), self._with_results(self._staged(messages))
        if offered:
            yield Message("system"), "system", "", self._tool_block(offered)
        for number, message in enumerate(messages):
            if message.tools is not None and not (offered and number == 0):
                yield Message("system"), "system", "", self._tool_block(message.tools)
            if message.role == "assistant" and message.tool_calls:
                yield from self._assistant_parts(message)
            else:  # the official template leaves empty messages out
                yield message, message.role if message.content else "", message.metadata, message.content

    def _tool_block(self, tools: Sequence[ToolSpec]) -> str:
        # There is one newline before each tool: of the two in the template, jinja removes one.
        block = self.INTRODUCTION
        for tool in tools:
            if tool.builtin is not None:
                block += self.BUILTIN[tool.builtin]
            else:
                schema = json.dumps(tool.flat(), indent=4, ensure_ascii=False)
                block += f"\n## {tool.flat()['name']}\n\n{schema}{self.CALLING}"
        return block

    def result(self, text: str) -> str:
        return text or "\n"  # a message without text would be left out

    def _write_call(self, call: ToolCall) -> tuple[str, str]:
        code = call.arguments.get("code")
        if call.name == INTERPRETER and set(call.arguments) == {"code"} and isinstance(code, str):
            # The model writes code without a fence. Code that is itself a fenced block gets a second fence, because one
            # is removed when it is read.
            return "python", code if fenced(code) is None else f"```python\n{code}\n```"
        if call.text is not None and call.cut:  # an incomplete call is shown as it was written
            return call.name, call.text
        prompt = call.arguments.get("prompt")
        if call.name == "cogview" and set(call.arguments) == {"prompt"} and _is_prose(prompt):
            return call.name, str(prompt)
        return call.name, json.dumps(call.arguments, ensure_ascii=False)

    def call_grammar(self, tools: Sequence[ToolSpec], named: bool = False, lenient: bool = False) -> CallGrammar:
        return call_grammar(tools, python=False, named=named, lenient=lenient, header=self.header)

    def header(self, tool: ToolSpec) -> str:
        return tool.builtin or tool.name

    def arguments(self, name: str) -> ArgumentStream | None:
        return None if name == "python" else ArgumentStream(python=False)

    def _read_call(self, name: str, content: str) -> ToolCall | None:
        if name == "python":
            code = fenced(content)
            return ToolCall(INTERPRETER, {"code": content if code is None else code})
        if name == "cogview" and _is_prose(content):  # a description of the picture
            return ToolCall(name, {"prompt": content})
        arguments = parse_json_arguments(content)
        return None if arguments is None or as_json(arguments) is None else ToolCall(name, arguments)

    def may_call(self, metadata: str, content: str) -> bool | None:
        return True if metadata in ("python", "cogview") else content.startswith("{") if content else None


def _is_prose(text: Any) -> bool:
    """Whether a value is a description of a picture: not a JSON object, and unchanged when it is read again."""
    return isinstance(text, str) and text == text.strip() and text != "" and not text.startswith("{")


_FORMATS: dict[Generation, type[ChatFormat]] = {
    Generation.CHATGLM: _ChatGLMFormat,
    Generation.CHATGLM2: _ChatGLM2Format,
    Generation.CHATGLM3: _ChatGLM3Format,
    Generation.GLM4: _GLM4Format,
    Generation.CHARACTERGLM: _CharacterFormat,
}


def chat_format(tokenizer: Vocabulary) -> ChatFormat:
    """The format of a tokenizer's generation."""
    return _FORMATS[tokenizer.generation](tokenizer)
