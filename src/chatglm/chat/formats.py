"""`ChatFormat`: messages to ids and ids to messages, one per generation.

The only place that knows prompt syntax, role tokens, stop tokens and loss masks, so that training, prompts, stopping
and parsing cannot drift apart. Control ids come from `get_command` alone and text goes through `encode_text` alone, so
no message can forge one.

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
"""What a model reads in place of a picture."""
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
        name: of the tool; "" in all parts but a call's first.
        arguments: more of their JSON text.
    """

    name: str
    arguments: str


@dataclass(frozen=True)
class CallPiece:
    """A tool call, whole.

    Attributes:
        told: the beginning of its arguments' JSON text, which `CallPart`s had.
    """

    call: ToolCall
    told: str = ""


Delta = TextPiece | CallPart | CallPiece


def postprocess(text: str) -> str:
    """The official clean-up of an answer of ChatGLM2 and later: outer blanks, and a placeholder that v1's data had."""
    return text.strip().replace(TRAINING_TIME, "2023年")


def postprocess_v1(text: str) -> str:
    """ChatGLM-6B's: besides, `, ! : ; ?` next to a Chinese character become full width; its tokenizer halves them."""
    text = postprocess(text)
    for half, full in FULL_WIDTH.items():
        text = re.sub(rf"({CJK}){re.escape(half)}", rf"\1{full}", text)
        text = re.sub(rf"{re.escape(half)}({CJK})", rf"{full}\1", text)
    return text


class ChatFormat:
    """The prompt format of one generation, bound to its tokenizer.

    Attributes:
        stop_ids: the ids that end an answer.
        extends: whether prompt(n) + reply is an id-prefix of prompt(n + 1), so that a cache can be kept and one pass
            over a dialogue trains exactly what inference sees.
    """

    extends = False
    stop_ids: frozenset[int]
    _persona: Persona | None = None

    def __init__(self, tokenizer: Vocabulary) -> None:
        self.tokenizer = tokenizer

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """Texts that end an answer and are not part of it, besides `stop_ids`."""
        return ()

    @property
    def generation(self) -> Generation:
        return self.tokenizer.generation

    # What a generation fills in

    def ids(
        self, messages: Sequence[Message], tools: Sequence[Any] = (), add_generation_prompt: bool = True
    ) -> list[int]:
        """Ids of a dialogue, ready for the assistant's next words unless `add_generation_prompt=False`."""
        raise UnsupportedError("ids")  # pragma: no cover

    def text(self, messages: Sequence[Message], tools: Sequence[Any] = (), add_generation_prompt: bool = True) -> str:
        """The same for reading; control tokens are spelled out."""
        raise UnsupportedError("text")  # pragma: no cover

    def example(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> tuple[list[int], list[bool]]:
        """Ids of a whole dialogue, and which of them are learned: of every assistant turn its reply and one stop id.

        A message's `loss` overrides: False leaves an assistant message out, True takes another one's text in.
        """
        raise UnsupportedError("example")  # pragma: no cover

    def _text_of(self, text: str) -> str:
        return postprocess(text)

    # What follows from it

    def prompt(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> list[int]:
        """Ids that ask the model for the assistant's next message."""
        return self.ids(messages, tools, True)

    def examples(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> list[tuple[list[int], list[bool]]]:
        """A dialogue as training examples whose every learned id follows the ids that inference would have.

        One where the format extends, else one for each assistant turn.
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
        """The ids that the model should produce for a message, its stop id included."""
        return [*self.tokenizer.encode_text(message.content), self._end()]

    def _end(self) -> int:
        return min(self.stop_ids)

    def with_persona(self, persona: Persona) -> ChatFormat:
        """The same format with these speakers: CharacterGLM has a script for them, others a system message."""
        form = copy.copy(self)
        form._persona = persona
        return form

    def _staged(self, messages: Sequence[Message]) -> Sequence[Message]:
        return staged(messages, self._persona)

    def parser(self, offered: Collection[str] = (), certain: bool = False) -> Parser:
        """Reads a reply as it comes.

        Args:
            offered: the names of the tools: a call of one that is cut short is a call, and no text.
            certain: nothing but a call follows where one of them has begun, as the grammar of calls says. So its
                arguments come in parts. Else a call comes when it is whole: its syntax may break until the end.
        """
        return Parser(self, offered, certain)

    def parse(self, ids: Sequence[int]) -> Message:
        """The message of a reply's ids, with or without the stop id at their end. Never raises: a malformed call
        stays text."""
        parser = self.parser()
        for token_id in ids:
            parser.feed(token_id)
        return parser.close()

    def entries(self, message: Message) -> list[dict[str, Any]]:
        """A message as entries of an official history (`role`, `metadata`, `content`, `tools`), calls written out."""
        raise UnsupportedError(f"{self.generation} does not support such messages")

    def header_id(self) -> int | None:
        """The id that begins a further message inside one reply; None where there is none."""
        return None

    def opening(self, metadata: str = "") -> list[int]:
        """The ids of a reply's line of metadata: put behind a prompt, they make the reply text, or a call of the tool
        that they name. Empty where a reply has no such line."""
        return []

    def call_grammar(self, tools: Sequence[ToolSpec], named: bool = False, lenient: bool = False) -> CallGrammar:
        """The grammar of a reply that calls one of the tools with arguments that fit its schema.

        Args:
            named: the line that names the one tool is already there (`opening`).
            lenient: a tool that is not strict and whose schema cannot be read takes any object.

        Raises:
            UnsupportedError: this generation's prompts have no place for tools, or no grammar says what a schema asks.
        """
        raise UnsupportedError(f"{self.generation} does not support tools; use ChatGLM3 or GLM-4 for them")

    def header(self, tool: ToolSpec) -> str:
        """The line of metadata that begins a call of a tool."""
        return tool.name

    def result(self, text: str) -> str:
        """What the interpreter printed, as the model reads it. `[Image]` on a line stands for a picture."""
        return text

    def read_call(self, text: str) -> ToolCall | None:
        """One message of a reply, whole, as a call; None if it is text."""
        return None

    def arguments(self, name: str) -> ArgumentStream | None:
        """Reads the arguments of a call of a tool while they are written; None for a tool whose call is code."""
        return ArgumentStream(python=False)

    def begun_arguments(self, name: str, content: str) -> str:
        """The arguments of a call that was cut short, as the beginning of their JSON text."""
        reading = self.arguments(name)
        if reading is not None:
            return reading.feed(content)
        opening, newline, code = content.lstrip().partition("\n")
        if "```".startswith(opening[:3]):  # a fence, or the beginning of one
            content = code if newline else ""
        return json.dumps({"code": content}, ensure_ascii=False)[:-2]

    def may_call(self, metadata: str, content: str) -> bool | None:
        """Whether a message that begins like this may be a call; None if it takes more to tell.

        Args:
            metadata: its first line, not blank.
            content: what is there of the rest, without blanks in front.
        """
        return False

    def splits_lines(self) -> bool:
        """Whether a message begins with a line of metadata."""
        return False


class Parser:
    """The reply so far. Deltas joined are what `close` returns.

    Text is passed on as soon as nothing that follows can change it: a blank at its end may be stripped, a comma may
    become full width, half a placeholder may become whole. A message is held while it may still turn out to be a tool
    call. What has been passed on of a call stays: if it ends before its arguments do, it is a call with a part of them.
    Each id costs its own text, not that of the whole reply.
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
        """Take in one id; returns what became certain. Ids after a stop id are ignored."""
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
        """The whole message.

        Args:
            cut: it has no end of its own. A call that was begun then has the arguments that are there, as `text`.
        """
        if self._message is None:
            self._stopped = True
            self.last = self._finish_part(cut)
            self._message = Message("assistant", "".join(self._texts), tuple(self._calls))
        return self._message

    def _begin_part(self) -> None:
        """The next message of the reply."""
        self._decoder = StreamDecoder(self._form.tokenizer)
        # Whether it may be a call: unknown, or yes until its end, or no.
        self._may_call: bool | None = None if self._form.splits_lines() else False
        self._has_line = False  # the line of metadata is whole
        self._held: list[str] = []  # text that is not certain, and that of a call
        self._arguments: ArgumentStream | None = None  # of a call that is passed on in parts
        self._told = ""  # of its arguments' JSON text
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
        # An object that has a key twice.
        return dataclasses.replace(call, arguments=call.arguments if self._arguments.done else {}, text=self._told)

    def _take(self, piece: str) -> list[Delta]:
        if not piece:
            return []
        self._held.append(piece)
        if self._arguments is not None:
            return self._tell(piece)
        if piece.isspace() and (self._has_line or self._may_call is False or "\n" not in piece):
            return []  # decides nothing, and may be stripped
        if self._may_call is None:
            self._has_line = self._has_line or "\n" in piece
            if self._has_line:
                metadata, _, content = "".join(self._held).partition("\n")
                self._may_call = bool(metadata.strip()) and self._form.may_call(metadata.strip(), content.lstrip())
                # The grammar of calls has this line, with no other blank.
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
        """Pass on of a text what can no longer change."""
        text = "".join(self._held)
        cut = len(text)
        if not final:
            cut = len(text[: cut - held_suffix(text, TRAINING_TIME)].rstrip())
            if cut and text[cut - 1] in FULL_WIDTH:
                cut = len(text[: cut - 1].rstrip())
        self._held = [text[cut:]]
        # What is cleaned of a character depends on its neighbours at most.
        new = self._form._text_of(self._before + text[:cut])[len(self._before) :]
        if not new:
            return []
        # Later messages of one reply stand on lines of their own.
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
        preface: list[str] = []  # of system messages: there is no role for them; they go in front of the question
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
        """Ids and mask of texts that each end where an answer begins."""
        ids, mask = self.tokenizer.get_prefix_tokens(), [False] * len(self.tokenizer.get_prefix_tokens())
        for opening, answer in openings:
            before = self.tokenizer.encode_text(opening)
            reply = [] if answer is None else self._reply(answer)
            ids += [*before, *reply]
            mask += [False] * len(before) + [answer is not None and answer.loss is not False] * len(reply)
        return ids, mask


class _ChatGLMFormat(_RoundsFormat):
    """ChatGLM-6B: the bare query, or `[Round 0]\\n问：…\\n答：…`; `[gMASK] <sop>` stand at the end of the prompt.

    As the end moves, so do the control ids: a prompt never extends the one before.
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
        """The last assistant turn alone: what stands in front of it is read in both directions, so the model cannot
        learn an earlier answer from the same pass. `examples` has every turn."""
        made = self.examples(messages, tools)
        if not made:
            ids = self.ids(messages, tools, False)
            return ids, [False] * len(ids)
        return made[-1]

    def _text_of(self, text: str) -> str:
        return postprocess_v1(text)


class _ChatGLM2Format(_RoundsFormat):
    """ChatGLM2 and CodeGeeX2: `[Round 1]\\n\\n问：…\\n\\n答：…`, an empty line between rounds; `[gMASK] sop` in front.

    The official prompt tokenises all rounds as one text, in which an answer has neither the blank piece that the model
    begins it with nor the stop id that ends it: so a prompt does not extend the one before.
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
        """Every assistant turn in one pass: rounds as inference opens them, each answer closed by the stop id.

        The first answer sees exactly its inference prompt, later ones a history with stop ids in it; `examples` gives
        each turn its exact prompt.
        """
        rounds = self._rounds(messages, tools)
        return self._learn([(f"[Round {n}]\n\n问：{q}\n\n答：", a) for n, (q, a) in enumerate(rounds, 1)])


class _CharacterFormat(_ChatGLM2Format):
    """CharacterGLM: a script, one line per utterance, `[name]text`; the last line is the bot's name alone."""

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """Where the model would speak for the user, or begin another line of its own."""
        persona = (self._persona or Persona()).on_lines()
        return f"\n[{persona.user_name}]", f"[{persona.user_name}]", f"\n[{persona.bot_name}]"

    def _staged(self, messages: Sequence[Message]) -> Sequence[Message]:
        return messages  # the scene tells of the persona

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
        """Every assistant turn in one pass, each answer closed by the stop id; `examples` gives the exact prompts."""
        persona = self._speakers(messages)
        openings: list[tuple[str, Message | None]] = []
        for question, answer in self._script(messages, tools):
            lines = [""] if openings else self._scene(persona)
            lines += [] if not question else [f"[{persona.user_name}]{question}"]
            openings.append(("\n".join([*lines, f"[{persona.bot_name}]"]), answer))
        return self._learn(openings)

    def _speakers(self, messages: Sequence[Message]) -> Persona:
        """The persona on single lines; a system message says more about the bot."""
        persona = self._persona or Persona()
        told = " ".join([persona.bot_info, *(m.content for m in messages if m.role == "system")]).strip()
        return dataclasses.replace(persona, bot_info=told).on_lines()

    def _scene(self, persona: Persona) -> list[str]:
        lines = [f"以下是一段{persona.bot_name}和{persona.user_name}之间的对话。"]
        for name, info in ((persona.bot_name, persona.bot_info), (persona.user_name, persona.user_info)):
            lines += [f"关于{name}的信息：{info}"] if info else []
        return lines

    def _script(self, messages: Sequence[Message], tools: Sequence[Any]) -> list[tuple[str, Message | None]]:
        # An empty question only makes room for the bot's greeting.
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
        """Every header that the prompt has: the message it belongs to, role, metadata and content.

        The role is "" where the prompt leaves the message out.
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
        """Of every assistant turn: what follows `<|assistant|>`, and the id that ends the turn, which is the next
        message's header, or the stop id at the end of the dialogue. Where one turn has several messages, the model
        writes the headers between them itself, and learns them.

        Raises:
            InputError: a system message that is not the first: its header would have to end a turn.
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
            # Across a message that is left out, `<|assistant|>` would be learned as the end of a turn: it ends none.
            is_target = ends_learned_turn and not (gap and role == "assistant")
            ids += new
            mask += [is_target] + [learned] * (len(new) - 1)
            previous, gap = message, False
        if previous is not None and previous.role == "assistant":
            ids.append(self._last_stop(previous))
            mask.append(previous.loss is not False)
        return ids, mask

    def _last_stop(self, message: Message) -> int:
        """What ends a dialogue's last turn: after a call, the header of the answer that is waited for."""
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
        """A dialogue whose observations of the interpreter are as the model reads them.

        An observation answers the call of its `tool_call_id`; one without answers the first call that has no answer.
        Entries of an official history have their calls written out (`metadata`), and their observations, too.
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
    listed. Where functions are on offer besides, the sentence stands in front of them.
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
        """A system message with what it says of the tools."""
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
        if printed.startswith("```"):  # as the official demo has it in its history
            return text
        return "\n".join([f"```result\n{printed}\n```"] * (bool(printed) or not pictures) + pictures)

    def _write_call(self, call: ToolCall) -> tuple[str, str]:
        code = call.arguments.get("code")
        if call.name == INTERPRETER and set(call.arguments) == {"code"} and isinstance(code, str):
            return INTERPRETER, f"```python\n{code}\n```"
        if call.text is not None and call.cut:  # shown as it was
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
        # The template's own newline in front of each tool is one: jinja eats the other.
        block = self.INTRODUCTION
        for tool in tools:
            if tool.builtin is not None:
                block += self.BUILTIN[tool.builtin]
            else:
                schema = json.dumps(tool.flat(), indent=4, ensure_ascii=False)
                block += f"\n## {tool.flat()['name']}\n\n{schema}{self.CALLING}"
        return block

    def result(self, text: str) -> str:
        return text or "\n"  # one without a text would be left out

    def _write_call(self, call: ToolCall) -> tuple[str, str]:
        code = call.arguments.get("code")
        if call.name == INTERPRETER and set(call.arguments) == {"code"} and isinstance(code, str):
            # The model writes bare code; code that would read as a fence around code gets one around it.
            return "python", code if fenced(code) is None else f"```python\n{code}\n```"
        if call.text is not None and call.cut:  # shown as it was
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
        if name == "cogview" and _is_prose(content):  # what to draw, as it is
            return ToolCall(name, {"prompt": content})
        arguments = parse_json_arguments(content)
        return None if arguments is None or as_json(arguments) is None else ToolCall(name, arguments)

    def may_call(self, metadata: str, content: str) -> bool | None:
        return True if metadata in ("python", "cogview") else content.startswith("{") if content else None


def _is_prose(text: Any) -> bool:
    """A description of a picture, which is no JSON object and stays what it is when it is read again."""
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
