"""What an assistant is: how it is asked, what it answers, and all that follows from its streams alone.

Whatever stands on `BaseAssistant` stands on a model of this process and on any OpenAI-compatible endpoint alike.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence, Set
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from chatglm.chat.messages import INTERPRETER, Message, ToolCall, ToolSpec
from chatglm.chat.personas import Persona
from chatglm.errors import ChatGLMError, InputError, UnsupportedError
from chatglm.params import SamplingParams
from chatglm.tools.tool import Outcome, Tool
from chatglm.tools.toolbox import Permit, Toolbox

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from chatglm.engine.engine import EngineStats

__all__ = [
    "Answer",
    "Ask",
    "BaseAssistant",
    "CallDelta",
    "Called",
    "Delta",
    "Finish",
    "Messages",
    "Options",
    "PromptDelta",
    "PromptToken",
    "ReplicaStats",
    "Rounds",
    "Start",
    "TextDelta",
    "TokenLogprob",
    "Transcript",
    "Usage",
    "made_too_often",
    "merge_streams",
    "params_of",
]


@dataclass(frozen=True)
class Usage:
    """Tokens: of the prompt, of them those that were not computed again, and of the answer."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True)
class TokenLogprob:
    """A token of an answer, and how likely it was.

    Attributes:
        data: its text as bytes, which need not be whole characters.
        alternatives: the likeliest tokens at its place, (bytes, logprob), the likeliest first.
    """

    data: bytes
    logprob: float
    alternatives: tuple[tuple[bytes, float], ...] = ()


@dataclass(frozen=True)
class Start:
    """The first delta of an answer, if `Options.start` asks for it: tokens of the prompt, and of them those that were
    not computed again."""

    prompt_tokens: int
    cached_tokens: int = 0
    choice: int = 0


@dataclass(frozen=True)
class TextDelta:
    """More text; with `params.logprobs`, the tokens since the last text."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    choice: int = 0


@dataclass(frozen=True)
class CallDelta:
    """A piece of tool call number `index`: its id and name come first, then its arguments' JSON, in pieces."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    choice: int = 0


@dataclass(frozen=True)
class Finish:
    """The end of one answer (of `params.n`).

    Attributes:
        stop: the stop sequence that ended the answer; "" if none did, or if an endpoint does not say which.
        left_out: turns that the context had no room for: what a user said, and all until the next; the oldest. An
            endpoint does not say how many.
        note: what the caller should know: how much of the history was left out, and which keywords of a schema were not
            enforced. "" if nothing.
        first_seconds, seconds: from asking to the first token, and to the end.
    """

    reason: Literal["stop", "length", "tool_calls"]
    usage: Usage
    note: str = ""
    choice: int = 0
    first_seconds: float = field(default=0.0, compare=False)
    seconds: float = field(default=0.0, compare=False)
    stop: str = ""
    left_out: int = 0


@dataclass(frozen=True)
class PromptToken:
    """A token of the prompt, and how likely it was.

    Attributes:
        data: its text as bytes, which need not be whole characters; b"" for control tokens.
        logprob: given the tokens before it; None for the first token, which has none before it.
        alternatives: the likeliest tokens at its place, (bytes, logprob), the likeliest first.
    """

    data: bytes
    logprob: float | None
    alternatives: tuple[tuple[bytes, float], ...] = ()


@dataclass(frozen=True)
class PromptDelta:
    """The prompt's tokens: with `params.prompt_logprobs`, the first delta of every answer.

    Attributes:
        text: the prompt as it was given; of a prompt that was given as ids, their text.
        tokens: of the whole prompt, the control tokens in front of a text among them.
    """

    text: str
    tokens: tuple[PromptToken, ...]
    choice: int = 0


Delta = Start | TextDelta | CallDelta | PromptDelta | Finish


@dataclass(frozen=True)
class ReplicaStats:
    """What an assistant over several endpoints knows of one.

    Attributes:
        name: its base URL.
        problem: why it gets no requests now; "" if it does.
        running: requests under way there.
        requests, failures: so far; a request that failed there and was answered elsewhere is a failure here.
    """

    name: str
    problem: str
    running: int
    requests: int
    failures: int


@dataclass(frozen=True)
class Answer:
    """A whole answer.

    Attributes:
        logprobs: with `params.logprobs`, of its text's tokens.
        prompt: with `params.prompt_logprobs`, the prompt's tokens.
    """

    message: Message
    finish: Finish
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt: PromptDelta | None = None


class Transcript:
    """Deltas put together again."""

    def __init__(self) -> None:
        self._deltas: dict[int, list[Delta]] = {}

    def add(self, delta: Delta) -> None:
        """Take the next delta of a stream."""
        self._deltas.setdefault(delta.choice, []).append(delta)

    def answers(self) -> tuple[Answer, ...]:
        """Those that are finished, in their order."""
        return tuple(
            self._answer(deltas, deltas[-1])
            for _, deltas in sorted(self._deltas.items())
            if isinstance(deltas[-1], Finish)
        )

    @staticmethod
    def _answer(deltas: Sequence[Delta], finish: Finish) -> Answer:
        texts = [delta for delta in deltas if isinstance(delta, TextDelta)]
        calls: dict[int, dict[str, str]] = {}
        for delta in deltas:
            if isinstance(delta, CallDelta):
                parts = calls.setdefault(delta.index, {"id": "", "name": "", "arguments": ""})
                for name in parts:
                    parts[name] += getattr(delta, name)
        message = Message(
            "assistant",
            "".join(delta.text for delta in texts),
            tuple(_whole_call(parts) for _, parts in sorted(calls.items())),
        )
        prompt = next((delta for delta in deltas if isinstance(delta, PromptDelta)), None)
        return Answer(message, finish, tuple(token for delta in texts for token in delta.logprobs), prompt)


def _whole_call(parts: Mapping[str, str]) -> ToolCall:
    """A call whose arguments are, to the character, what its deltas had."""
    call = ToolCall.from_dict(parts)
    same = call.to_dict()["function"]["arguments"] == parts["arguments"]
    return call if same or not call.arguments else replace(call, text=parts["arguments"])


# What a caller asks

Messages = str | Sequence[Message | Mapping[str, Any]]
"""A question; or a dialogue, of messages or their OpenAI form."""


class Options(TypedDict, total=False):
    """What may be said with messages; `Ask` says what it means."""

    tools: Any
    tool_choice: str
    parallel_calls: bool
    response_format: Mapping[str, Any] | None
    params: SamplingParams | Mapping[str, Any] | None
    adapter: str | None
    trim: bool
    client: str | None
    persona: Persona | None
    prefill: str
    start: bool


@dataclass(frozen=True)
class Ask:
    """A dialogue that waits for the assistant's next message, and how that is to be.

    Attributes:
        tools: on offer.
        tool_choice: `auto`; `none` (text only); `required` (a call of any tool); or the name of the tool to call.
        parallel_calls: whether one answer may have several calls; else it ends with the first.
        response_format: what the text must be: `{"type": "text"}`, `"json_object"` (with or without `schema`),
            `"json_schema"` with OpenAI's `json_schema: {"schema": …, "strict": …}`, `"regex"` with `pattern`, or
            `"grammar"` with `grammar` (EBNF). Keywords of a schema that cannot be held are dropped (`dropped`), or
            refused where it is `strict`. Beside tools, the answer is a call or such a text.
        params: how tokens are chosen; a mapping says what differs from the assistant's defaults.
        adapter: the LoRA adapter to answer with.
        client: who asks: between clients, an engine of this process shares out its places and memory fairly.
        trim: whether the oldest turns may be left out where the context is too short for all; else that is an error.
        persona: who speaks, in a role play.
        prefill: how the answer's text begins. The model continues it; the deltas do not repeat it.
        start: whether each answer begins with a `Start`.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str = "auto"
    parallel_calls: bool = True
    response_format: Mapping[str, Any] | None = None
    params: SamplingParams = field(default_factory=SamplingParams)
    adapter: str | None = None
    trim: bool = True
    client: str | None = None
    persona: Persona | None = None
    prefill: str = ""
    start: bool = False

    @classmethod
    def of(
        cls,
        messages: Messages,
        options: Options,
        defaults: SamplingParams | None = None,
    ) -> Ask:
        """
        Args:
            defaults: of `params`.

        Raises:
            InputError: a message or an option is wrong.
        """
        if unknown := options.keys() - Options.__annotations__.keys():
            raise InputError(
                f"{', '.join(sorted(unknown))}: no such option; known: {', '.join(Options.__annotations__)}"
            )
        if isinstance(messages, str):
            messages = [Message("user", messages)]
        if not messages:
            raise InputError("messages: empty; there is nothing to answer")
        read = tuple(m if isinstance(m, Message) else Message.from_dict(m, n) for n, m in enumerate(messages))
        changes: dict[str, Any] = dict(options)
        changes["tools"] = ToolSpec.list_from(options.get("tools") or ())
        changes["params"] = params_of(options.get("params"), defaults)
        names = [tool.name for tool in changes["tools"]]
        if changes.get("tool_choice") == "python" and "python" not in names:  # as GLM-4 calls the interpreter
            changes["tool_choice"] = INTERPRETER
        asked = cls(read, **changes)
        if asked.tool_choice not in ("auto", "none", "required", *names):
            raise InputError(f"tool_choice: {asked.tool_choice!r} is none of the tools ({', '.join(names) or 'none'})")
        if asked.tool_choice == "required" and not names:
            raise InputError("tool_choice: a call is required, and no tools are given")
        if asked.prefill and asked.tool_choice not in ("auto", "none"):
            raise InputError("prefill: the answer cannot begin with a text where a tool call is required")
        return asked


def params_of(given: SamplingParams | Mapping[str, Any] | None, defaults: SamplingParams | None) -> SamplingParams:
    """What was given, over the defaults where it does not say everything."""
    return given if isinstance(given, SamplingParams) else SamplingParams.from_dict(given or {}, defaults)


@dataclass(frozen=True)
class Called:
    """A call of a tool that was carried out or refused, and what came of it: its observation for the model, and what
    people see besides (`Outcome`)."""

    call: ToolCall
    outcome: Outcome
    choice: int = 0


Watch = Callable[["Delta | Called | Message"], None]

MAX_ROUNDS = 8
"""So many times an answer's calls are carried out, unless the caller says otherwise."""
SAME_CALLS = 3
"""The round with the same call, of the same arguments, in which it is not carried out any more."""


class BaseAssistant(ABC):
    """What an assistant does once it can stream."""

    adapters: tuple[str, ...] = ()
    """Names that `adapter` may be, besides the one that answers where none is named."""
    defaults: SamplingParams
    """What holds where the caller does not say."""
    context: int | None = None
    """Longest prompt and answer together, in tokens; None: unknown."""

    memory: int = 0
    """Bytes that weights, keys and values take in this process."""

    @abstractmethod
    def stream(self, messages: Messages, **options: Unpack[Options]) -> Generator[Delta]:
        """The answer as it comes. Closing the iterator ends the request and frees what it held.

        Args:
            options: `Ask` says what they mean.

        Raises:
            InputError: a message or an option is wrong; `ContextError`: the prompt is too long.
            UnsupportedError: the model's prompts have no place for something.
            QueueFullError: too many requests are waiting.
            EngineError: the engine has stopped; the message says why.
        """

    @abstractmethod
    def astream(self, messages: Messages, **options: Unpack[Options]) -> AsyncGenerator[Delta]:
        """`stream` for coroutines."""

    @abstractmethod
    def stream_text(
        self,
        prompt: str | Sequence[int],
        *,
        params: SamplingParams | Mapping[str, Any] | None = None,
        adapter: str | None = None,
        client: str | None = None,
    ) -> Generator[Delta]:
        """What follows a text (or ids), without any format of a dialogue.

        A text gets the control tokens that the tokenizer puts in front of one; ids are taken as they are.

        With `params.prompt_logprobs` = k, the first delta of each answer is a `PromptDelta`: the prompt's tokens with
        their log-probabilities and k alternatives each. Then `params.max_new_tokens` may be 0: only the prompt is
        scored, and the `Finish` follows at once. Then, too, with `params.logprobs`, every token of the answer has its
        log-probability, also the stop token that ends it (as b""): prompt and answer together have one entry a token.
        """

    @abstractmethod
    def astream_text(
        self,
        prompt: str | Sequence[int],
        *,
        params: SamplingParams | Mapping[str, Any] | None = None,
        adapter: str | None = None,
        client: str | None = None,
    ) -> AsyncGenerator[Delta]:
        """`stream_text` for coroutines."""

    def astream_texts(
        self,
        prompts: Sequence[str | Sequence[int]],
        *,
        params: SamplingParams | Mapping[str, Any] | None = None,
        adapter: str | None = None,
        client: str | None = None,
    ) -> AsyncGenerator[Delta]:
        """What follows each of several texts, as it comes.

        `choice` goes on from one prompt to the next: answer number k of prompt number i has `choice` i * params.n + k.
        An engine of this process takes all of them on or none; an endpoint is asked for each.
        """
        asked = params_of(params, self.defaults)
        return merge_streams(
            [self.astream_text(prompt, params=asked, adapter=adapter, client=client) for prompt in prompts], asked.n
        )

    def dropped(self, **options: Unpack[Options]) -> tuple[str, ...]:
        """The keywords in the schemas of `response_format` and `tools` that an answer is not held to, each with its
        field: `response_format: uniqueItems`, `tools.f: not`. Schemas that are strict have none: they are refused.

        It can be asked before the answer begins. `Finish.note` says it too.

        Raises:
            InputError: a schema is none.
            UnsupportedError: a schema is too large, or a strict one has keywords that cannot be held.
        """
        return ()

    def count(self, messages: Messages, **options: Unpack[Options]) -> int:
        """How many tokens the prompt has that `stream` would make of this, with the history uncut.

        Raises:
            InputError: a message or an option is wrong.
            UnsupportedError: the model's prompts have no place for something; or only an endpoint could count them.
        """
        raise UnsupportedError("the tokens of a prompt cannot be counted here: the model is at another server")

    @abstractmethod
    def close(self) -> None:
        """End every request; afterwards there is no answer any more."""

    def stats(self) -> EngineStats | None:
        """The engine's figures; None where there is no engine."""
        return None

    def replicas(self) -> tuple[ReplicaStats, ...]:
        """Of an assistant that stands before several endpoints: how each of them is."""
        return ()

    def problem(self) -> str:
        """Why there is no answer any more; "" while there is."""
        return ""

    def answers(self, messages: Messages, **options: Unpack[Options]) -> tuple[Answer, ...]:
        """All `params.n` answers, whole, with reason, usage and note."""
        transcript = Transcript()
        for delta in self.stream(messages, **options):
            transcript.add(delta)
        return transcript.answers()

    async def aanswers(self, messages: Messages, **options: Unpack[Options]) -> tuple[Answer, ...]:
        """`answers` for coroutines."""
        transcript = Transcript()
        async with aclosing(self.astream(messages, **options)) as deltas:
            async for delta in deltas:
                transcript.add(delta)
        return transcript.answers()

    def reply(self, messages: Messages, **options: Unpack[Options]) -> Message:
        """The answer as a message. A note, if there is one, comes as a UserWarning; `answers` tells more."""
        return _only(self.answers(messages, **_single(options)))

    async def areply(self, messages: Messages, **options: Unpack[Options]) -> Message:
        """`reply` for coroutines."""
        return _only(await self.aanswers(messages, **_single(options)))

    def stream_run(
        self,
        messages: Messages,
        functions: Sequence[Callable[..., Any] | Tool] | Toolbox,
        *,
        max_rounds: int = MAX_ROUNDS,
        permit: Permit | None = None,
        **options: Unpack[Options],
    ) -> Generator[Delta | Called | Message]:
        """Answer with the help of tools, as it goes: the model's calls are carried out and it goes on, until it says
        something without a call.

        Every delta comes as it is said, every new message when it is whole, and in front of each observation the call
        with what came of it. Calls of one answer are carried out together. A call that comes with the same arguments
        in a third round is not carried out again: the model is told, and must answer in words, as it must when the
        rounds are over. (The official demo stops after 5 rounds without an answer.)

        Args:
            functions: typed Python functions and other tools, or a toolbox, which stays open.
            max_rounds: so many times its calls are carried out; then it must answer in words.
            permit: is asked before a tool is used that needs somebody's consent; None: such calls are refused, and the
                model is told.
            options: as for `stream`. `tools` are on offer besides, and the caller's own to carry out: an answer that
                calls one of them is the last, once its other calls are carried out.

        Raises:
            InputError: a function cannot be a tool. And what `stream` raises; its `dialogue` are the new messages
                that were whole before.
        """
        with _toolbox(functions) as box:
            rounds = Rounds(messages, box.specs, max_rounds, _single(options))
            with rounds.kept():
                while rounds.go_on:
                    with closing(self.stream(rounds.messages, **rounds.options)) as deltas:
                        for delta in deltas:
                            yield rounds.hear(delta)
                    yield rounds.message()
                    yield from rounds.results(box.call_now(rounds.due, permit) if rounds.due else ())

    async def astream_run(
        self,
        messages: Messages,
        functions: Sequence[Callable[..., Any] | Tool] | Toolbox,
        *,
        max_rounds: int = MAX_ROUNDS,
        permit: Permit | None = None,
        **options: Unpack[Options],
    ) -> AsyncGenerator[Delta | Called | Message]:
        """`stream_run` for coroutines. Who stops reading, or is cancelled, ends the tools that run."""
        with _toolbox(functions) as box:
            rounds = Rounds(messages, box.specs, max_rounds, _single(options))
            with rounds.kept():
                while rounds.go_on:
                    async with aclosing(self.astream(rounds.messages, **rounds.options)) as deltas:
                        async for delta in deltas:
                            yield rounds.hear(delta)
                    yield rounds.message()
                    for one in rounds.results(await box.call_all(rounds.due, permit) if rounds.due else ()):
                        yield one

    def run(
        self,
        messages: Messages,
        functions: Sequence[Callable[..., Any] | Tool] | Toolbox,
        *,
        max_rounds: int = MAX_ROUNDS,
        permit: Permit | None = None,
        watch: Watch | None = None,
        **options: Unpack[Options],
    ) -> list[Message]:
        """`stream_run`, whole.

        Args:
            watch: is told all that `stream_run` gives: deltas, calls with what came of them (pictures and files are
                there), and messages.

        Returns:
            The new messages: calls, observations, and last the answer.
        """
        new: list[Message] = []
        with closing(
            self.stream_run(messages, functions, max_rounds=max_rounds, permit=permit, **options)
        ) as happenings:
            for one in happenings:
                if watch is not None:
                    watch(one)
                if isinstance(one, Message):
                    new.append(one)
        return new

    async def arun(
        self,
        messages: Messages,
        functions: Sequence[Callable[..., Any] | Tool] | Toolbox,
        *,
        max_rounds: int = MAX_ROUNDS,
        permit: Permit | None = None,
        watch: Watch | None = None,
        **options: Unpack[Options],
    ) -> list[Message]:
        """`run` for coroutines."""
        new: list[Message] = []
        async with aclosing(
            self.astream_run(messages, functions, max_rounds=max_rounds, permit=permit, **options)
        ) as happenings:
            async for one in happenings:
                if watch is not None:
                    watch(one)
                if isinstance(one, Message):
                    new.append(one)
        return new

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def merge_streams(streams: Sequence[AsyncGenerator[Delta]], n: int) -> AsyncGenerator[Delta]:
    """Deltas of several streams of n answers each, as they come, numbered on. The first error ends them all."""
    news: asyncio.Queue[Delta | BaseException | None] = asyncio.Queue(maxsize=1)

    async def read(number: int, deltas: AsyncGenerator[Delta]) -> None:
        try:
            async with aclosing(deltas):
                async for delta in deltas:
                    await news.put(replace(delta, choice=number * n + delta.choice))
            await news.put(None)
        except Exception as error:
            await news.put(error)

    tasks = [asyncio.ensure_future(read(number, deltas)) for number, deltas in enumerate(streams)]
    try:
        left = len(tasks)
        while left:
            item = await news.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                left -= 1
            else:
                yield item
    finally:
        item = None  # an error would keep this frame, and this frame the error
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _single(options: Options) -> Options:
    wanted = params_of(options.get("params"), None).n
    if wanted != 1:
        raise InputError(f"n: {wanted} answers make no single message; `answers` gives them all")
    return options


def _only(answers: tuple[Answer, ...]) -> Message:
    if answers[0].finish.note:
        warnings.warn(answers[0].finish.note, stacklevel=3)
    return answers[0].message


@contextmanager
def _toolbox(functions: Sequence[Callable[..., Any] | Tool] | Toolbox) -> Iterator[Toolbox]:
    """The caller's toolbox, or one for this once."""
    if isinstance(functions, Toolbox):
        yield functions
        return
    with Toolbox(functions) as box:
        yield box


class Rounds:
    """The tool loop, apart from who waits for what.

    Args:
        tools: whose calls are carried out; those of `options` are the caller's own.
        most: so many times.

    Attributes:
        new: the messages that have come.
        asked: calls of the last one that get an observation.
        due: of them, those that are to be carried out; the others have been made too often.
        finish: how the last one ended; None: there is none yet.
        go_on: whether the model is to be asked once more.
    """

    def __init__(self, messages: Messages, tools: Sequence[ToolSpec], most: int, options: Options) -> None:
        if most < 1:
            raise InputError(f"max_rounds: {most}; the model's calls must be carried out at least once")
        own = ToolSpec.list_from(options.get("tools") or ())
        self._own = {tool.name for tool in own}
        if both := self._own & {tool.name for tool in tools}:
            raise InputError(f"tools: {min(both)} is the name of one of the functions, too")
        self._options: Options = {**options, "tools": [*tools, *own]}
        self._given, self._left = Ask.of(messages, {}).messages, most
        self._ids = {call.id for message in self._given for call in message.tool_calls}
        self._transcript = Transcript()
        self.asked: tuple[ToolCall, ...] = ()
        self._met: Counter[str] = Counter()
        self._stuck: set[str] = set()
        self.new: list[Message] = []
        self.due: list[ToolCall] = []
        self.finish: Finish | None = None
        self.go_on = True

    @property
    def messages(self) -> list[Message]:
        return [*self._given, *self.new]

    @property
    def options(self) -> Options:
        made = self._options.copy()
        if not self._left:
            made["tool_choice"] = "none"
        elif self.new and made.get("tool_choice") != "none":
            made["tool_choice"] = "auto"  # a forced call is forced once, or it would never end
        return made

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Let an error have the messages that were whole before it."""
        try:
            yield
        except ChatGLMError as error:
            error.dialogue = tuple(self.new)
            raise

    def hear(self, delta: Delta) -> Delta:
        self._transcript.add(delta)
        return delta

    def message(self) -> Message:
        """The answer that is whole now."""
        (answer,) = self._transcript.answers()
        self._transcript = Transcript()
        self.finish = answer.finish
        message = _with_ids(answer.message, self._ids)
        self._ids |= {call.id for call in message.tool_calls}
        calls = message.tool_calls if self._left else ()
        self.asked = tuple(call for call in calls if call.name not in self._own)
        self._met.update({_key(call) for call in self.asked})
        self._stuck = {key for key in map(_key, self.asked) if self._met[key] >= SAME_CALLS}
        self.due = [call for call in self.asked if _key(call) not in self._stuck]
        self._left = 0 if self._stuck else self._left - 1
        self.go_on = bool(self.asked) and len(self.asked) == len(calls)
        self.new.append(message)
        return message

    def results(self, outcomes: Sequence[Outcome]) -> Iterator[Called | Message]:
        """
        Args:
            outcomes: of the calls that were due.
        """
        done = iter(outcomes)
        for call in self.asked:
            outcome = made_too_often(call) if _key(call) in self._stuck else next(done)
            yield Called(call, outcome)
            self.new.append(Message("observation", outcome.text, tool_call_id=call.id))
            yield self.new[-1]


def _with_ids(message: Message, taken: Set[str]) -> Message:
    """Some endpoints give their calls no ids, or the same in each message, and observations could not be told apart."""
    ids = {call.id for call in message.tool_calls} - {""}
    if len(ids) == len(message.tool_calls) and not ids & taken:
        return message
    return replace(
        message, tool_calls=tuple(replace(call, id=f"call_{secrets.token_hex(12)}") for call in message.tool_calls)
    )


def _key(call: ToolCall) -> str:
    if call.cut:
        return f"{call.name}\n{call.text}"
    arguments = json.loads(json.dumps(call.arguments))  # names of members are texts then, which can be sorted
    return f"{call.name}\n{json.dumps(arguments, sort_keys=True)}"


def made_too_often(call: ToolCall) -> Outcome:
    """What comes of a call that `Rounds` does not have carried out."""
    said = (
        f"`{call.name}` was called with these arguments {SAME_CALLS - 1} times already, and is not called again. "
        "Answer with what is known."
    )
    return Outcome(said, failed=True)
