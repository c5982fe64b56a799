"""`Assistant`: an assistant with a model in this process. Only this module combines text, ids and tools: a `ChatFormat`
makes the prompt and reads the reply, and the engine generates ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import itertools
import os
import secrets
import threading
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from chatglm.assistant.base import (
    Ask,
    BaseAssistant,
    CallDelta,
    Delta,
    Finish,
    Messages,
    Options,
    PromptDelta,
    PromptToken,
    Start,
    TextDelta,
    TokenLogprob,
    Usage,
    merge_streams,
    params_of,
)
from chatglm.assistant.driver import Driver, Ticket
from chatglm.assistant.output import Output, output_of
from chatglm.chat import formats
from chatglm.chat.formats import CallPart, CallPiece, ChatFormat, Parser, TextPiece
from chatglm.chat.generations import OFFICIAL_SAMPLING
from chatglm.chat.messages import Message, ToolSpec
from chatglm.chat.streaming import StopStrings, StreamDecoder
from chatglm.errors import ChatGLMError, ContextError, InputError, UnsupportedError, typed_error
from chatglm.params import SamplingParams

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from chatglm.chat.vocabulary import Vocabulary
    from chatglm.engine.constraint import Constraint, Form, Grammars
    from chatglm.engine.engine import Engine, EngineStats, Event
    from chatglm.engine.sampling import Draw

__all__ = ["Assistant"]

_LEAD = " ?"
"""Grammars allow a space before a text, because SentencePiece begins every text with one."""
_PLANS = max(2, min(32, (os.cpu_count() or 1) + 4) // 2)
"""Most plans with grammars at the same time in an event loop: half the threads of `asyncio.to_thread`."""


@dataclass(frozen=True)
class _Plan:
    """A prompt for the engine, and how to read the reply."""

    ids: list[int]
    params: SamplingParams
    parser: Callable[[], Parser | _PlainText]
    stop_ids: frozenset[int] = frozenset()
    opening: tuple[int, ...] = ()  # the end of the prompt that belongs to the reply
    constraint: Constraint | None = None
    adapter: str | None = None
    parallel_calls: bool = True
    note: str = ""
    left_out: int = 0  # turns
    uncounted: Callable[[int], bool] | None = None  # tells tokens that are not counted before the text
    client: str | None = None
    text: str | None = None  # the prompt as it was given; None: it was given as messages or ids
    start: bool = False  # whether the answers begin with a `Start`
    stops: tuple[str, ...] = ()  # the caller's stop sequences; the format may have more

    @property
    def asked(self) -> tuple[list[int], SamplingParams, dict[str, Any]]:
        """The request for `Driver.submit`: ids, options of generation, other options."""
        options = {
            "stop_ids": self.stop_ids,
            "constraint": self.constraint,
            "adapter": self.adapter,
            "uncounted": self.uncounted,
            "client": self.client,
        }
        return self.ids, self.params, options


class _PlainText:
    """Reads a reply as plain text, with the methods of `Parser`."""

    def __init__(self, tokenizer: Any, goes_on: bool) -> None:
        self._decoder = StreamDecoder(tokenizer, goes_on=goes_on)
        self.last: list[formats.Delta] = []

    def feed(self, token_id: int) -> list[formats.Delta]:
        text = self._decoder.feed(token_id)
        return [TextPiece(text)] if text else []

    def close(self, cut: bool = False) -> Any:
        text = self._decoder.close()
        self.last = [TextPiece(text)] if text else []


class _Choice:
    """Turns the tokens of one answer into deltas."""

    def __init__(self, plan: _Plan, number: int, token_bytes: Callable[[int], bytes]) -> None:
        self._plan, self._number, self._token_bytes = plan, number, token_bytes
        self._parser = plan.parser()
        for token in plan.opening:
            self._parser.feed(token)
        self._skip = _held_back(plan) if plan.opening else 0  # characters of the opening that are still to come
        self._ends = StopStrings(plan.params.stop)
        self._calls = 0
        self._tokens = 0
        self._said: list[TokenLogprob] = []  # tokens whose text was not passed on
        # A parser removes spaces in front of the text. Plain text keeps them and their tokens.
        self._spoken = isinstance(self._parser, _PlainText)
        self._whole = plan.params.prompt_logprobs is not None  # every token is reported, even if it adds no text
        self._begun = False
        self._asked, self._first = time.perf_counter(), 0.0  # time of the request; seconds to the first token
        self.finished = False

    def take(self, event: Event) -> Iterator[Delta]:
        self._first = self._first or time.perf_counter() - self._asked
        if not self._begun and event.error is None:
            if self._plan.start:
                yield Start(len(self._plan.ids), event.cached_tokens, self._number)
            if self._whole:
                yield self._prompt(event)
        self._begun = True
        for place, token in enumerate(event.tokens):
            self._tokens += place >= event.lead
            if event.logprobs and (self._whole or token not in self._plan.stop_ids):
                self._note(token, event.logprobs[place])
            yield from self._pass_on(self._parser.feed(token), event)
            if self.finished:
                return
        if event.error is not None:
            raise event.error
        if event.finish is not None:
            self._parser.close(cut=event.finish == "length")
            yield from self._pass_on(self._parser.last, event)
            if not self.finished:
                yield from self._text("", final=True)
                if self._said and (self._whole or isinstance(self._parser, _PlainText)):
                    yield TextDelta("", tuple(self._said), self._number)
                yield self._finish("length" if event.finish == "length" and not self._ends.stopped else "stop", event)

    def _prompt(self, event: Event) -> PromptDelta:
        data = [self._token_bytes(token) for token in self._plan.ids]
        tokens = [PromptToken(data[0], None)]
        for own, entry in zip(data[1:], event.request.prompt_logprobs, strict=True):
            tokens.append(PromptToken(own, entry.logprob, self._likeliest(entry)))
        text = self._plan.text
        if text is None:
            text = b"".join(data).decode("utf-8", "replace")
        return PromptDelta(text, tuple(tokens), self._number)

    def _pass_on(self, pieces: Sequence[formats.Delta], event: Event) -> Iterator[Delta]:
        for piece in pieces:
            ends = False
            match piece:
                case TextPiece():
                    yield from self._text(piece.text)
                    ends = self._ends.stopped
                case CallPart():
                    yield from self._call(piece.name, piece.arguments)
                case CallPiece():
                    whole: str = piece.call.to_dict()["function"]["arguments"]
                    yield from self._call("" if piece.told else piece.call.name, whole.removeprefix(piece.told))
                    ends = not self._plan.parallel_calls
            if ends:
                yield self._finish("stop", event)
                return

    def _text(self, text: str, final: bool = False) -> Iterator[Delta]:
        if self._skip:
            text, self._skip = text[self._skip :], max(0, self._skip - len(text))
        text = self._ends.feed(text, final)
        if not text:
            return
        said, self._said = self._said, []
        if not self._spoken:  # leading spaces do not belong to the text
            while said and not said[0].data.strip():
                del said[0]
        if self._ends.stopped:  # nor does the stop string
            size = len(text.encode())
            while said and sum(len(token.data) for token in said[:-1]) >= size:
                del said[-1]
        self._spoken = True
        yield TextDelta(text, tuple(said), self._number)

    def _call(self, name: str, arguments: str) -> Iterator[Delta]:
        """Yield a piece of a tool call.

        Args:
            name: the name, at the beginning of a call; then "".
        """
        self._said = []
        if name:
            yield from self._text("", final=True)
            self._calls += 1
            yield CallDelta(self._calls - 1, f"call_{secrets.token_hex(12)}", name, choice=self._number)
        if arguments:
            yield CallDelta(self._calls - 1, arguments=arguments, choice=self._number)

    def _note(self, token: int, entry: Draw) -> None:
        assert entry.logprob is not None  # the request asked for logprobs
        self._said.append(TokenLogprob(self._token_bytes(token), entry.logprob, self._likeliest(entry)))

    def _likeliest(self, entry: Draw) -> tuple[tuple[bytes, float], ...]:
        return tuple((self._token_bytes(token), value) for token, value in entry.alternatives)

    @property
    def _stop(self) -> str:
        """The caller's stop sequence that ended the text; "" if none did."""
        return self._ends.met if self._ends.met in self._plan.stops else ""

    def _finish(self, reason: Literal["stop", "length"], event: Event) -> Finish:
        self.finished = True
        usage = Usage(len(self._plan.ids), self._tokens, event.cached_tokens)
        ended = "tool_calls" if self._calls and reason == "stop" else reason
        seconds = time.perf_counter() - self._asked
        return Finish(
            ended, usage, self._plan.note, self._number, self._first, seconds, self._stop, self._plan.left_out
        )


def _held_back(plan: _Plan) -> int:
    """How many characters of the opening a parser holds back until more text follows."""
    parser = plan.parser()
    for token in plan.opening:
        parser.feed(token)
    parser.close()
    return sum(len(piece.text) for piece in parser.last if isinstance(piece, TextPiece))


class _Reading:
    """Turns the events of a request into deltas.

    Args:
        end: called with the number of an answer that needs no more tokens while other answers still do.
    """

    def __init__(self, plan: _Plan, token_bytes: Callable[[int], bytes], end: Callable[[int], None]) -> None:
        self._choices = [_Choice(plan, number, token_bytes) for number in range(plan.params.n)]
        self._end = end

    @property
    def done(self) -> bool:
        return all(choice.finished for choice in self._choices)

    def take(self, news: Any) -> Iterator[Delta]:
        if isinstance(news, ChatGLMError):
            raise news
        choice = self._choices[news.index]
        if choice.finished:
            return
        deltas = choice.take(news)
        while True:
            try:
                delta = next(deltas)
            except StopIteration:
                break
            except BaseException as error:
                raise typed_error(error, "the answer could not be read")  # noqa: B904  (its cause is set)
            yield delta
        if choice.finished and news.finish is None and not self.done:
            self._end(news.index)


class Assistant(BaseAssistant):
    """An assistant with a model in this process, for any number of callers and threads.

    Args:
        form: makes the prompts and parses the replies.
        engine: generates ids. No other code may use it afterwards.
        defaults: options of generation that the caller does not give.
        adapter: the adapter (one of `engine.adapters`) that answers if the caller names none; None: the base model.
    """

    def __init__(
        self,
        form: ChatFormat,
        engine: Engine,
        defaults: SamplingParams | None = None,
        adapter: str | None = None,
    ) -> None:
        self.defaults = defaults or SamplingParams()
        self.format = form
        self.tokenizer = form.tokenizer
        self._engine, self._adapter = engine, adapter
        self.context: int = min(engine.context, engine.capacity)
        self.adapters = tuple(name for name in engine.adapters if name != adapter)
        self.memory: int = engine.memory
        self._numbers = itertools.count(1)
        self._driver = Driver(engine)
        self._grammars: Grammars | None = None
        self._compiling = threading.Lock()
        self._planning: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            weakref.WeakKeyDictionary()
        )
        self._closer = weakref.finalize(self, self._driver.stop)  # also at garbage collection and at exit

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        draft: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> Assistant:
        """Load a checkpoint folder as an assistant; `chatglm.load` is the same.

        Default options of generation come from generation_config.json. If that file has no `do_sample`, tokens are
        sampled, as in the official `chat`.

        Args:
            path: default: the bundled demo model.
            draft: folder of a smaller model with the same vocabulary, which guesses tokens to save time; it does not
                change the text.
            options: options of `loading.load_parts` (`adapter`, `prefix`, `device`, `dtype` …) and `Engine`. The
                adapter answers all requests that name no other.

        Raises:
            CheckpointError, TokenizerError, DependencyError: see `loading.load_parts`.
            InputError: an option is wrong (see `Engine`), the draft model has another vocabulary, or `speculate` is
                given together with `draft`.
            UnsupportedError: generation_config.json asks for something that is not supported, such as beams.
        """
        from chatglm.engine.engine import Engine
        from chatglm.loading import load_to_answer

        names = inspect.signature(Engine).parameters
        given = {name: value for name, value in options.items() if name in names}
        loading = {name: value for name, value in options.items() if name not in names}
        parts = load_to_answer(path, store=given.get("store"), whole=bool(given.get("adaptable")), **loading)
        if draft is not None:
            from chatglm.engine.draft import DraftModel

            if "speculate" in given:
                raise InputError("speculate: cannot be given with a draft model, which is what speculates")
            own = {name: value for name, value in loading.items() if name not in ("adapter", "prefix")}
            smaller = load_to_answer(draft, **own)
            if smaller.tokenizer.get_vocab() != parts.tokenizer.get_vocab():
                raise InputError(
                    f"draft: {draft} has another vocabulary than the model; use a draft model with the same vocabulary"
                )
            given["speculate"] = DraftModel(smaller.model)
        engine = Engine(parts.model, **given)
        config = parts.model.generation_config.to_diff_dict()
        if "do_sample" not in config:
            config = {"do_sample": True, **OFFICIAL_SAMPLING[parts.format.generation], **config}
        defaults = dataclasses.replace(SamplingParams.from_generation_config(config), stop_ids=())
        return cls(parts.format, engine, defaults, next(iter(engine.adapters), None))

    def load_adapter(self, folder: str | os.PathLike[str]) -> str:
        """Add a LoRA adapter to the model, between two steps of the engine, which waits meanwhile.

        Returns:
            the adapter's name for requests (`adapter`). Each name is used only once.

        Raises:
            CheckpointError, ConfigError: the folder is damaged, or was made for another model; nothing is changed.
            UnsupportedError: the adapter is of an unsupported kind, or the engine was not made with `adaptable`.
        """
        self._engine.check_adaptable()
        name = f"adapter_{next(self._numbers)}"

        def work() -> None:
            from chatglm.loading import add_adapter

            self._engine.replace(add_adapter(self._engine.runner.model, folder, name))

        self._driver.call(work)
        self.adapters = (*self.adapters, name)
        return name

    def unload_adapter(self, name: str) -> None:
        """Remove an adapter from the model. No request may be using it.

        Raises:
            InputError: there is no such adapter.
        """
        if name not in self.adapters:
            raise InputError(f"adapter {name!r:.100} is not on this model")

        def work() -> None:
            from chatglm.loading import remove_adapter

            self._engine.replace(remove_adapter(self._engine.runner.model, name))

        self.adapters = tuple(one for one in self.adapters if one != name)
        self._driver.call(work)

    @property
    def model(self) -> Any:
        """The torch module that the engine runs. With the native decoder it is a `BareModel`, which has weights but
        no forward pass. `load_parts` returns a model of `transformers`.
        """
        return self._engine.runner.model

    def dropped(self, **options: Unpack[Options]) -> tuple[str, ...]:
        lost = [f"response_format: {name}" for name in output_of(options.get("response_format")).dropped]
        tools, choice = ToolSpec.list_from(options.get("tools") or ()), options.get("tool_choice", "auto")
        called = [tool for tool in tools if choice in ("auto", "required", tool.name)]
        if called:
            lost += self.format.call_grammar(called, lenient=choice == "auto").dropped
        return tuple(lost)

    def close(self) -> None:
        self._closer()

    def stats(self) -> EngineStats:
        return self._driver.stats()

    def problem(self) -> str:
        return self._driver.problem

    def stream(self, messages: Messages, **options: Unpack[Options]) -> Generator[Delta]:
        self._driver.check()
        return self._read(self._plan(Ask.of(messages, options, self.defaults)))

    def astream(self, messages: Messages, **options: Unpack[Options]) -> AsyncGenerator[Delta]:
        ask = Ask.of(messages, options, self.defaults)
        # A grammar may be tried for seconds, while others wait for their trial. Such requests must not hold all threads
        # of the event loop, which other requests need.
        few = bool(ask.tools or ask.response_format)
        return self._aread(partial(self._plan, ask), self._room() if few else None)

    def stream_text(
        self,
        prompt: str | Sequence[int],
        *,
        params: SamplingParams | Mapping[str, Any] | None = None,
        adapter: str | None = None,
        client: str | None = None,
    ) -> Generator[Delta]:
        self._driver.check()
        return self._read(self._plan_text(prompt, params_of(params, self.defaults), adapter, client))

    def astream_text(
        self,
        prompt: str | Sequence[int],
        *,
        params: SamplingParams | Mapping[str, Any] | None = None,
        adapter: str | None = None,
        client: str | None = None,
    ) -> AsyncGenerator[Delta]:
        return self._aread(partial(self._plan_text, prompt, params_of(params, self.defaults), adapter, client))

    async def astream_texts(
        self,
        prompts: Sequence[str | Sequence[int]],
        *,
        params: SamplingParams | Mapping[str, Any] | None = None,
        adapter: str | None = None,
        client: str | None = None,
    ) -> AsyncGenerator[Delta]:
        self._driver.check()
        asked = params_of(params, self.defaults)
        answers, most = len(prompts) * asked.n, self._engine.max_waiting
        if answers > most:  # they would not fit later either
            raise InputError(
                f"prompt: {answers} answers are wanted (prompts: {len(prompts)}, n: {asked.n}); one request may ask "
                f"for at most {most}"
            )
        plans = await asyncio.to_thread(lambda: [self._plan_text(prompt, asked, adapter, client) for prompt in prompts])
        tickets = self._driver.submit([plan.asked for plan in plans], asyncio.get_running_loop())
        try:
            streams = [self._afollow(plan, ticket) for plan, ticket in zip(plans, tickets, strict=True)]
            async with aclosing(merge_streams(streams, asked.n)) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            for ticket in tickets:  # also tickets that were never read
                self._driver.release(ticket)

    def _read(self, plan: _Plan) -> Generator[Delta]:
        (ticket,) = self._driver.submit([plan.asked], None)
        try:
            reading = _Reading(plan, self.tokenizer.token_bytes, partial(self._driver.release, ticket))
            while not reading.done:
                yield from reading.take(ticket.inbox.get())
        finally:
            self._driver.release(ticket)

    @contextlib.asynccontextmanager
    async def _room(self) -> AsyncIterator[None]:
        """Wait until less than half of the event loop's threads make plans with grammars."""
        async with self._planning.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(_PLANS)):
            yield

    async def _aread(
        self, make: Callable[[], _Plan], room: contextlib.AbstractAsyncContextManager[None] | None = None
    ) -> AsyncGenerator[Delta]:
        self._driver.check()
        # Tokenising a long history or compiling a schema takes long and would block the event loop.
        async with room or contextlib.nullcontext():
            plan = await asyncio.to_thread(make)
        (ticket,) = self._driver.submit([plan.asked], asyncio.get_running_loop())
        async with aclosing(self._afollow(plan, ticket)) as deltas:
            async for delta in deltas:
                yield delta

    async def _afollow(self, plan: _Plan, ticket: Ticket) -> AsyncGenerator[Delta]:
        try:
            reading = _Reading(plan, self.tokenizer.token_bytes, partial(self._driver.release, ticket))
            while not reading.done:
                for delta in reading.take(await ticket.inbox.get()):
                    yield delta
        finally:
            self._driver.release(ticket)

    def count(self, messages: Messages, **options: Unpack[Options]) -> int:
        ask = Ask.of(messages, options, self.defaults)
        return len(self._form(ask).prompt(ask.messages, ask.tools)) + len(self._opening(ask))

    def prepare(self, tools: Sequence[ToolSpec]) -> None:
        """Prepare the grammar of tool calls now, so that the first answer with tools need not wait for it.

        Raises:
            UnsupportedError: the model does not support tools.
        """
        self._plan(Ask.of([Message("user", "?")], {"tools": list(tools)}, self.defaults))

    # Prompts

    def _form(self, ask: Ask) -> ChatFormat:
        return self.format if ask.persona is None else self.format.with_persona(ask.persona)

    def _plan(self, ask: Ask) -> _Plan:
        opening, constraint = self._opening(ask), self._held_to(ask)
        limit = min(self.context, ask.params.max_length or self.context)
        form = self._form(ask)
        ids, left_out, turns = self._fitting(ask, form, limit, len(opening))
        note = f"the context is too short; oldest turns left out: {left_out} of {turns}" if left_out else ""
        params = _within(ask.params, limit - len(ids) - len(opening))
        if dropped := self.dropped(tools=ask.tools, tool_choice=ask.tool_choice, response_format=ask.response_format):
            note = "; ".join([*filter(None, [note]), f"not enforced: {', '.join(dropped)}"])
        return _Plan(
            [*ids, *opening],
            dataclasses.replace(params, stop=(*params.stop, *form.stop_texts)) if form.stop_texts else params,
            partial(
                self.format.parser,
                [] if ask.tool_choice == "none" else [self.format.header(tool) for tool in ask.tools],
                constraint is not None,
            ),
            self.format.stop_ids | set(ask.params.stop_ids),
            tuple(opening),
            constraint,
            ask.adapter or self._adapter,
            ask.parallel_calls,
            note,
            left_out,
            None if ask.prefill else partial(_is_blank, self.tokenizer),
            ask.client,
            start=ask.start,
            stops=ask.params.stop,
        )

    def _plan_text(
        self, prompt: str | Sequence[int], params: SamplingParams, adapter: str | None, client: str | None
    ) -> _Plan:
        if isinstance(prompt, str):
            ids = self.tokenizer.build_inputs_with_special_tokens(self.tokenizer.encode_text(prompt))
        else:
            ids = list(prompt)
        size = len(self.tokenizer)
        if not ids or not all(0 <= token < size for token in ids):
            raise InputError(f"prompt: expected ids from 0 to {size - 1}, at least one of them, got {ids!r:.80}")
        limit = min(self.context, params.max_length or self.context)
        if len(ids) + (params.max_new_tokens != 0) > limit:
            raise self._too_long("prompt", "the prompt has", len(ids), limit)
        stops = self.format.stop_ids | set(params.stop_ids)
        goes_on = ids[-1] not in self.tokenizer.control_ids
        parser = partial(_PlainText, self.tokenizer, goes_on)
        return _Plan(
            ids,
            _within(params, limit - len(ids)),
            parser,
            stops,
            adapter=adapter or self._adapter,
            client=client,
            text=prompt if isinstance(prompt, str) else None,
            stops=params.stop,
        )

    def _opening(self, ask: Ask) -> list[int]:
        """Ids that every reply to this request begins with. They are added to the prompt."""
        structured = output_of(ask.response_format).kind != "text"
        if ask.prefill:
            if structured:
                raise InputError("prefill: the answer cannot begin with a given text where a response format is set")
            return [*self.format.opening(), *self.tokenizer.encode_text(ask.prefill)]
        if ask.tool_choice not in ("auto", "none"):
            tools = self._callable(ask)
            return self.format.opening(self.format.header(tools[0])) if len(tools) == 1 else []
        if ask.tools and ask.tool_choice == "auto":  # the reply's first line says whether it is a call
            return []
        return self.format.opening() if structured or ask.tools else []

    def _callable(self, ask: Ask) -> list[ToolSpec]:
        return [tool for tool in ask.tools if ask.tool_choice in ("auto", "required", tool.name)]

    def _held_to(self, ask: Ask) -> Constraint | None:
        """The constraint on the reply after its opening; None: any text."""
        output = output_of(ask.response_format)
        if ask.prefill:  # then the reply is text
            return None
        if ask.tool_choice not in ("auto", "none"):  # the reply is a call, not text
            tools = self._callable(ask)
            grammar = self.format.call_grammar(tools, len(tools) == 1)
            return self._constraint(lambda make: [make.call_form(grammar.text, _LEAD)])
        choice = bool(ask.tools) and ask.tool_choice == "auto"
        if output.kind == "text":
            return self._begun(ask) if choice else None
        if not choice:
            return self._constraint(lambda make: [_form(make, output, _LEAD)])
        calls = self.format.call_grammar(ask.tools, lenient=True)
        return self._constraint(
            lambda make: [make.call_form(calls.text, _LEAD), _form(make, output, f"{_LEAD}\\n{_LEAD}")]
        )

    def _begun(self, ask: Ask) -> Constraint | None:
        """The constraint that a reply which begins like a call is a valid call; None if the tools' grammar is too
        large.
        """
        calls, grammars = self.format.call_grammar(ask.tools, lenient=True), self._all_grammars()
        names = [self.format.header(tool) for tool in ask.tools]
        try:
            return grammars.begun_calls(grammars.call_form(calls.text, _LEAD), names, self.format.header_id())
        except (InputError, UnsupportedError):
            if any(tool.flat().get("strict") is True for tool in ask.tools):
                raise
            return None

    def _constraint(self, forms: Callable[[Grammars], Sequence[Form]]) -> Constraint:
        """The constraint that the text has one of these forms."""
        grammars = self._all_grammars()
        return grammars.constraint(*forms(grammars))

    def _all_grammars(self) -> Grammars:
        """The `Grammars` of this vocabulary, made for the first constraint."""
        with self._compiling:
            if self._grammars is None:
                from chatglm.engine.constraint import Grammars

                size = max(len(self.tokenizer), *(stop + 1 for stop in self.format.stop_ids))
                tokens = [self.tokenizer.token_bytes(token) for token in range(size)]
                self._grammars = Grammars(tokens, self.format.stop_ids)
            return self._grammars

    def _fitting(self, ask: Ask, form: ChatFormat, limit: int, more: int) -> tuple[list[int], int, int]:
        """Make a prompt with as many of the latest turns as fit.

        Args:
            more: number of tokens that are added to the prompt.

        Returns:
            the prompt's ids, the number of turns left out, and the number of all turns (0 if all fit at once).

        Raises:
            ContextError: the prompt is too long.
        """
        prompt = partial(form.prompt, tools=ask.tools)
        ids = prompt(ask.messages)
        # Turns are left out until this many tokens are free for the answer.
        room = min(ask.params.max_new_tokens or limit, limit // 4)
        if len(ids) + more + (room if ask.trim else 1) <= limit:
            return ids, 0, 0
        lead, turns = _turns(ask.messages)
        low, high = 0, len(turns) - 1  # least and greatest number of old turns to leave out
        if ask.trim:
            while low < high:
                middle = (low + high) // 2
                ids = prompt([*lead, *(m for turn in turns[middle:] for m in turn)])
                low, high = (middle + 1, high) if len(ids) + more + room > limit else (low, middle)
            ids = prompt([*lead, *(m for turn in turns[low:] for m in turn)])
        if len(ids) + more >= limit:
            which = "the last turn alone resulted in" if low else "your messages resulted in"
            raise self._too_long("messages", which, len(ids) + more, limit)
        return ids, low, len(turns)

    def _too_long(self, field: str, which: str, tokens: int, limit: int) -> ContextError:
        # Clients recognise the error by the words "This model's maximum context length is".
        whole = "This model's maximum context length" if limit == self.context else "max_length"
        return ContextError(
            f"{whole} is {limit} tokens; {which} {tokens} tokens, which leaves no room for an answer. "
            f"Shorten the {field}.",
            field,
        )


def _form(grammars: Grammars, output: Output, lead: str) -> Form:
    match output.kind:
        case "json":
            return grammars.json_form(output.schema, lead)
        case "regex":
            return grammars.regex_form(output.source, lead)
    return grammars.grammar_form(output.source, lead)


def _turns(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """Split a dialogue into leading system messages, which always stay, and turns: a user's messages and all that
    follows until the next user's message.
    """
    start = next((n for n, message in enumerate(messages) if message.role != "system"), len(messages))
    turns: list[list[Message]] = []
    for before, message in zip([None, *messages[start:]], messages[start:], strict=False):
        begins = before is None or (message.role == "user" and before.role != "user")
        turns.append([message]) if begins else turns[-1].append(message)
    return list(messages[:start]), turns or [[]]


def _is_blank(tokenizer: Vocabulary, token: int) -> bool:
    """Whether a token is only white space. Replies begin with such tokens, which callers do not see: ChatGLM3 and GLM-4
    write an empty line of metadata, SentencePiece a space.
    """
    try:
        return tokenizer.token_bytes(token).decode().isspace()
    except UnicodeDecodeError:
        return False


def _within(params: SamplingParams, room: int) -> SamplingParams:
    most = room if params.max_new_tokens is None else min(room, params.max_new_tokens)
    return dataclasses.replace(params, max_new_tokens=most, max_length=None)
