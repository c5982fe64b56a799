"""The interface of assistants: requests, deltas, answers, and the methods that need nothing but the streams.

Code that uses only `BaseAssistant` works with a model in this process and with any OpenAI-compatible endpoint.
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


_TOGETHER = 32
"""Most requests to an endpoint at the same time for one call with several texts."""


@dataclass(frozen=True)
class Usage:
    """Numbers of tokens: in the prompt, in the answer, and how many of the prompt's tokens came from the cache."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True)
class TokenLogprob:
    """A token of an answer, with its probability.

    Attributes:
        data: its text as bytes, which need not be whole characters.
        logprob: natural logarithm of the probability, given the tokens before it.
        alternatives: the most likely tokens at its position as (bytes, logprob), the most likely first.
    """

    data: bytes
    logprob: float
    alternatives: tuple[tuple[bytes, float], ...] = ()


@dataclass(frozen=True)
class Start:
    """The first delta of an answer, with `Options.start`: the number of tokens of the prompt, and how many of them
    came from the cache."""

    prompt_tokens: int
    cached_tokens: int = 0
    choice: int = 0


@dataclass(frozen=True)
class TextDelta:
    """A piece of text; with `params.logprobs`, also the tokens since the previous piece."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    choice: int = 0


@dataclass(frozen=True)
class CallDelta:
    """A piece of tool call number `index`: first its id and name, then the JSON text of its arguments, in pieces."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    choice: int = 0


@dataclass(frozen=True)
class Finish:
    """The end of one of the `params.n` answers.

    Attributes:
        choice: number of the answer, from 0; all deltas have it.
        stop: the stop sequence that ended the answer; "" if none did, or if an endpoint does not report it.
        left_out: number of the oldest turns that did not fit into the context; a turn is a user's message and
            everything up to the next one. An endpoint does not report it.
        note: a note for the caller: how much of the history was left out, and which keywords of a schema were not
            enforced; or "".
        first_seconds, seconds: seconds from the request to the first token, and to the end.
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
    """A token of the prompt, with its probability.

    Attributes:
        data: its text as bytes, which need not be whole characters; b"" for control tokens.
        logprob: natural logarithm of the probability, given the tokens before it; None for the first token.
        alternatives: the most likely tokens at its position as (bytes, logprob), the most likely first.
    """

    data: bytes
    logprob: float | None
    alternatives: tuple[tuple[bytes, float], ...] = ()


@dataclass(frozen=True)
class PromptDelta:
    """The prompt's tokens: with `params.prompt_logprobs`, the first delta of every answer.

    Attributes:
        text: the prompt as it was given; for ids, their text.
        tokens: the tokens of the whole prompt, including control tokens in front of the text.
    """

    text: str
    tokens: tuple[PromptToken, ...]
    choice: int = 0


Delta = Start | TextDelta | CallDelta | PromptDelta | Finish


@dataclass(frozen=True)
class ReplicaStats:
    """The state of one endpoint of a `RemoteFleet`.

    Attributes:
        name: its base URL.
        problem: the reason why it gets no requests now; "" if it gets requests.
        running: number of running requests.
        requests, failures: numbers so far; a request that failed here counts as a failure, even if another endpoint
            answered it.
    """

    name: str
    problem: str
    running: int
    requests: int
    failures: int


@dataclass(frozen=True)
class Answer:
    """A complete answer.

    Attributes:
        logprobs: with `params.logprobs`, the log-probabilities of the text's tokens.
        prompt: with `params.prompt_logprobs`, the prompt's tokens.
    """

    message: Message
    finish: Finish
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt: PromptDelta | None = None


class Transcript:
    """Puts deltas together into answers."""

    def __init__(self) -> None:
        self._deltas: dict[int, list[Delta]] = {}

    def add(self, delta: Delta) -> None:
        """Add the next delta of a stream."""
        self._deltas.setdefault(delta.choice, []).append(delta)

    def answers(self) -> tuple[Answer, ...]:
        """The finished answers, in the order of their numbers."""
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
    """A call whose arguments are exactly the text of its deltas."""
    call = ToolCall.from_dict(parts)
    same = call.to_dict()["function"]["arguments"] == parts["arguments"]
    return call if same or not call.arguments else replace(call, text=parts["arguments"])


# Requests

Messages = str | Sequence[Message | Mapping[str, Any]]
"""A question; or a dialogue: messages, or dicts in OpenAI's form."""


class Options(TypedDict, total=False):
    """Options beside the messages; `Ask` describes them."""

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
    """A dialogue, and options for the assistant's next message.

    Attributes:
        tools: tools that the model may call.
        tool_choice: `auto`; `none` (text only); `required` (a call of any tool); or the name of the tool to call.
        parallel_calls: whether an answer may have several calls; if not, it ends with its first call.
        response_format: the format of the text: `{"type": "text"}`, `"json_object"` (with or without `schema`),
            `"json_schema"` with OpenAI's `json_schema: {"schema": …, "strict": …}`, `"regex"` with `pattern`, or
            `"grammar"` with `grammar` (EBNF). Keywords of a schema that cannot be enforced are dropped (see
            `dropped`), or refused if the schema is `strict`. With tools, the answer is a call or such a text.
        params: options of generation; a mapping overrides only some of the assistant's defaults.
        adapter: the LoRA adapter to answer with.
        client: identifies the caller: a local engine shares its places and memory fairly between clients.
        trim: whether the oldest turns may be left out if the context is too short; if not, a `ContextError` is
            raised.
        persona: the speakers of a role play.
        prefill: the beginning of the answer's text. The model continues it; the deltas do not repeat it.
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
        """Check the messages and options of a request.

        Args:
            defaults: values of generation options that `params` does not give.

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
        if changes.get("tool_choice") == "python" and "python" not in names:  # GLM-4's name for the interpreter
            changes["tool_choice"] = INTERPRETER
        asked = cls(read, **changes)
        if asked.tool_choice not in ("auto", "none", "required", *names):
            raise InputError(
                f"tool_choice: {asked.tool_choice!r} is not one of the tools ({', '.join(names) or 'none'})"
            )
        if asked.tool_choice == "required" and not names:
            raise InputError("tool_choice: a call is required, and no tools are given")
        if asked.prefill and asked.tool_choice not in ("auto", "none"):
            raise InputError("prefill: the answer cannot begin with a text where a tool call is required")
        return asked


def params_of(given: SamplingParams | Mapping[str, Any] | None, defaults: SamplingParams | None) -> SamplingParams:
    """Options of generation as an object: `defaults` with the changes of a mapping. An object is returned unchanged."""
    return given if isinstance(given, SamplingParams) else SamplingParams.from_dict(given or {}, defaults)


@dataclass(frozen=True)
class Called:
    """A tool call that was carried out or refused, and its `Outcome`: the observation for the model, and the
    additional output for people."""

    call: ToolCall
    outcome: Outcome
    choice: int = 0


Watch = Callable[["Delta | Called | Message"], None]

MAX_ROUNDS = 8
"""Rounds of calls that are carried out, unless the caller sets another limit."""
SAME_CALLS = 3
"""A call with the same arguments is not carried out any more when it comes in this many rounds."""


class BaseAssistant(ABC):
    """All methods of an assistant; subclasses implement the streams."""

    adapters: tuple[str, ...] = ()
    """Values that the option `adapter` may have, except the adapter that answers if none is named."""
    defaults: SamplingParams
    """Options of generation that the caller does not give."""
    context: int | None = None
    """Longest prompt and answer together, in tokens; None: unknown."""

    memory: int = 0
    """Bytes that weights, keys and values take in this process."""

    @abstractmethod
    def stream(self, messages: Messages, **options: Unpack[Options]) -> Generator[Delta]:
        """Stream the answer. Closing the iterator ends the request and frees its memory.

        Args:
            options: see `Ask`.

        Raises:
            InputError: a message or an option is wrong.
            ContextError: the prompt is too long.
            UnsupportedError: the model's prompt format does not support something in the request.
            QueueFullError: too many requests are waiting.
            NumericalError: the model returned NaN or infinity.
            EngineError: the engine has stopped; the message says why.
            ServiceError: the endpoint of a remote assistant failed, or cannot be reached.
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
        """Continue a text (or ids), without the format of a dialogue.

        The tokenizer adds its control tokens in front of a text; ids are used unchanged. The answer starts directly
        after the prompt, so a space between the two belongs to the answer. Errors are the same as of `stream`.

        With `params.prompt_logprobs` = k, the first delta of each answer is a `PromptDelta`: the prompt's tokens with
        their log-probabilities and k alternatives for each. Then `params.max_new_tokens` may be 0: only the prompt is
        scored, and the `Finish` follows at once. If `params.logprobs` is set as well, every token of the answer has
        its log-probability, including the stop token (as b""): prompt and answer have one entry for each token.
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
        """Continue several texts at once, as a stream.

        Answer number k of prompt number i has `choice` i * params.n + k. A local engine accepts all prompts or none;
        an endpoint gets a request for each, and has at most 32 of them at the same time.
        """
        asked = params_of(params, self.defaults)
        streams = [self.astream_text(prompt, params=asked, adapter=adapter, client=client) for prompt in prompts]
        return merge_streams(streams, asked.n, together=_TOGETHER)

    def dropped(self, **options: Unpack[Options]) -> tuple[str, ...]:
        """The keywords in the schemas of `response_format` and `tools` that are not enforced, each with its field:
        `response_format: uniqueItems`, `tools.f: not`. A strict schema with such keywords is refused.

        It can be called before the answer begins. `Finish.note` has the same keywords.

        Raises:
            InputError: a schema is not a valid JSON schema.
            UnsupportedError: a schema is too large, or a strict schema has keywords that cannot be enforced.
        """
        return ()

    def count(self, messages: Messages, **options: Unpack[Options]) -> int:
        """Count the tokens of the prompt that `stream` would make, without leaving out old turns.

        Raises:
            InputError: a message or an option is wrong.
            UnsupportedError: the model's prompt format does not support something in the request, or the endpoint
                cannot count tokens.
            ServiceError: the endpoint of a remote assistant failed, or cannot be reached.
        """
        raise UnsupportedError("the tokens of a prompt cannot be counted here: the model is at another server")

    @abstractmethod
    def close(self) -> None:
        """End all requests; afterwards the assistant cannot answer."""

    def stats(self) -> EngineStats | None:
        """Statistics of the engine; None without a local engine."""
        return None

    def replicas(self) -> tuple[ReplicaStats, ...]:
        """The state of each endpoint, if the assistant uses several."""
        return ()

    def problem(self) -> str:
        """The reason why the assistant cannot answer any more; "" while it can."""
        return ""

    def answers(self, messages: Messages, **options: Unpack[Options]) -> tuple[Answer, ...]:
        """All `params.n` complete answers. Each `Answer.finish` has the reason of the end, the usage and the note."""
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
        """The answer as a message. A note becomes a `UserWarning`; `answers` returns more details.

        Raises:
            InputError: `params.n` is not 1. Also the errors of `stream`.
        """
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
        """Stream an answer with tools: carry out the model's calls and ask it again, until it answers without a call.

        The stream has every delta, every new message when it is complete, and before each observation a `Called` with
        the call and its outcome. Calls of one answer run together. If the model repeats a call with the same
        arguments in a third round, the call is not carried out; the model is told, and must answer in words. The same
        happens after the last round. (The official demo stops after 5 rounds without an answer.)

        Args:
            functions: typed Python functions and other tools, or a toolbox, which stays open.
            max_rounds: rounds of calls; after them the model must answer in words.
            permit: called before a tool that needs a person's consent; None: such calls are refused, and the model is
                told.
            options: as for `stream`. The model may also call these `tools`, but the caller must carry them out: an
                answer that calls one of them is the last, after its other calls are carried out.

        Raises:
            ToolError: a function cannot be a tool.
            InputError: `max_rounds` is below 1, `params.n` is not 1, or one of `tools` has the name of a function. Also
                the errors of `stream`; their `dialogue` has the new messages that were complete before the error.
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
        """`stream_run` for coroutines. When the reader stops or is cancelled, running tools are ended."""
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
        """`stream_run` without a stream.

        Args:
            watch: called with everything that `stream_run` yields: deltas, calls with their outcomes (including
                pictures and files), and messages.

        Returns:
            The new messages: calls, observations, and finally the answer.
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


async def merge_streams(
    streams: Sequence[AsyncGenerator[Delta]], n: int, *, together: int | None = None
) -> AsyncGenerator[Delta]:
    """Merge streams of n answers each; the answers get consecutive numbers. An error of one stream ends all of them.

    Args:
        together: most streams that run at the same time; None: all.
    """
    news: asyncio.Queue[Delta | BaseException | None] = asyncio.Queue(maxsize=1)
    room = asyncio.Semaphore(together or max(len(streams), 1))

    async def read(number: int, deltas: AsyncGenerator[Delta]) -> None:
        try:
            async with room, aclosing(deltas):
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
        item = None  # else an error and this frame would keep each other in memory
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _single(options: Options) -> Options:
    wanted = params_of(options.get("params"), None).n
    if wanted != 1:
        raise InputError(f"n: {wanted} answers cannot be returned as one message; use `answers` to get all of them")
    return options


def _only(answers: tuple[Answer, ...]) -> Message:
    if answers[0].finish.note:
        warnings.warn(answers[0].finish.note, stacklevel=3)
    return answers[0].message


@contextmanager
def _toolbox(functions: Sequence[Callable[..., Any] | Tool] | Toolbox) -> Iterator[Toolbox]:
    """The caller's toolbox, or a new one for this run."""
    if isinstance(functions, Toolbox):
        yield functions
        return
    with Toolbox(functions) as box:
        yield box


class Rounds:
    """The tool loop without any waiting, so that threads and coroutines can share it.

    Args:
        tools: tools whose calls are carried out. The caller carries out the calls of those in `options`.
        most: largest number of rounds.

    Attributes:
        new: the new messages so far.
        asked: calls of the last message that get an observation.
        due: those of `asked` that must be carried out; the others were made too often.
        finish: how the last message ended; None: there is no message yet.
        go_on: whether the model must be asked again.

    Raises:
        InputError: `most` is below 1, or two tools have the same name.
    """

    def __init__(self, messages: Messages, tools: Sequence[ToolSpec], most: int, options: Options) -> None:
        if most < 1:
            raise InputError(f"max_rounds: {most}; must be at least 1")
        own = ToolSpec.list_from(options.get("tools") or ())
        self._own = {tool.name for tool in own}
        if both := self._own & {tool.name for tool in tools}:
            raise InputError(f"tools: {min(both)} is also the name of a function; rename one of them")
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
            made["tool_choice"] = "auto"  # the call was forced once; forcing it again would never end
        return made

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Put the messages that were complete before an error into its `dialogue`."""
        try:
            yield
        except ChatGLMError as error:
            error.dialogue = tuple(self.new)
            raise

    def hear(self, delta: Delta) -> Delta:
        self._transcript.add(delta)
        return delta

    def message(self) -> Message:
        """The answer as a message, after its last delta."""
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
        """Yield the result and the observation of each call of the last message.

        Args:
            outcomes: those of the calls in `due`, in the same order.
        """
        done = iter(outcomes)
        for call in self.asked:
            outcome = made_too_often(call) if _key(call) in self._stuck else next(done)
            yield Called(call, outcome)
            self.new.append(Message("observation", outcome.text, tool_call_id=call.id))
            yield self.new[-1]


def _with_ids(message: Message, taken: Set[str]) -> Message:
    """Give the calls new ids if some have none, or an id was used before, as some endpoints do. Otherwise their
    observations could not be distinguished.
    """
    ids = {call.id for call in message.tool_calls} - {""}
    if len(ids) == len(message.tool_calls) and not ids & taken:
        return message
    return replace(
        message, tool_calls=tuple(replace(call, id=f"call_{secrets.token_hex(12)}") for call in message.tool_calls)
    )


def _key(call: ToolCall) -> str:
    if call.cut:
        return f"{call.name}\n{call.text}"
    arguments = json.loads(json.dumps(call.arguments))  # makes all keys strings, so that they can be sorted
    return f"{call.name}\n{json.dumps(arguments, sort_keys=True)}"


def made_too_often(call: ToolCall) -> Outcome:
    """The outcome of a call that `Rounds` does not carry out."""
    said = (
        f"`{call.name}` was called with these arguments {SAME_CALLS - 1} times already, and is not called again. "
        "Answer with what is known."
    )
    return Outcome(said, failed=True)
