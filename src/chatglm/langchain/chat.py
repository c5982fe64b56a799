"""`ChatChatGLM`: dialogues, tools and structured output, with a model in this process or behind an endpoint."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput, ModelProfile
from langchain_core.language_models.chat_models import BaseChatModel, LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, message_chunk_to_message
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.base import OutputParserLike
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from chatglm.assistant import Assistant, Delta, Finish, TextDelta
from chatglm.errors import InputError, UnsupportedError
from chatglm.knowledge import Base, Bases, Done, Event, Passages, open_bases
from chatglm.langchain.knowledge import Documents
from chatglm.langchain.messages import chunk_of, message_of, messages_of
from chatglm.langchain.opened import Opened
from chatglm.langchain.source import Source

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ChatChatGLM"]

_OF_ANSWER = ("tools", "tool_choice", "parallel_tool_calls", "response_format", "adapter", "prefill", "client")
_SILENT = ("stream", "ls_structured_output_format", "stream_options", "strict")
_BUILT_IN = ("python", "simple_browser", "cogview")
Method = Literal["function_calling", "json_schema", "json_mode"]
_Heard = Delta | Event


class ChatChatGLM(Source, BaseChatModel):
    """A chat model of the ChatGLM family.

        model = ChatChatGLM(model="/models/chatglm3-6b", temperature=0)
        model.bind_tools([weather]).invoke("北京天气怎么样？").tool_calls
        model.with_structured_output(Person).invoke("张三今年 30 岁")

    A call may override the object's options (`temperature`, `max_tokens`, `seed`, any field of `SamplingParams`), and
    also takes `tools`, `tool_choice`, `parallel_tool_calls`, `response_format`, `adapter`, `prefill`, `client`. An
    unknown option raises an InputError.

    With `knowledge`, the answer is based on documents. The `response_metadata` of its message has `citations` (fields
    of `chatglm.knowledge.Citation`), `answered` (False: the documents do not answer the question) and, if a part of the
    search failed, `warnings`; `content_blocks` has the citations in LangChain's standard form. In a stream, they come
    with the last chunk. Each citation also comes in `additional_kwargs["citations"]` when its sentence is complete.
    Tools, structured output, `n` and log-probabilities cannot be used together with `knowledge`.

    Attributes:
        knowledge: names of bases that are searched together: bases of this user, or, with `base_url`, bases of the
            server (`chatglm serve --knowledge`). Or open bases (`Base`, `Bases`), for any model. A call may give
            others.
        knowledge_options: fields of `chatglm.knowledge.answering.Request`, such as `{"k": 8, "strict": False}`; not for
            bases of a server.
        home: the folder with this user's bases; None: that of CHATGLM_HOME.
        streaming: whether `invoke` streams, too, so that callbacks get every token. Chains of `langchain_classic`
            need it.
        stream_usage: whether the last piece of a stream has the numbers of tokens.

    Raises:
        ValidationError (pydantic's): an option is wrong when the object is made; it names the option.
        InputError: an option of a call is wrong.
        UnsupportedError: a message has a picture, or the model's prompt format does not support something.
        Errors of the model: see `chatglm.load` and `Assistant.stream`.
    """

    model_config = ConfigDict(extra="forbid")  # LangChain's own models ignore unknown options

    streaming: bool = False
    stream_usage: bool = True
    knowledge: Any = None
    knowledge_options: dict[str, Any] = Field(default_factory=dict)
    home: Path | None = None

    _bases: Opened[Bases] = PrivateAttr(default_factory=Opened)

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if self.knowledge is not None:
            _named(self.knowledge)

    # Methods that LangChain calls

    @property
    def _llm_type(self) -> str:
        return "chatglm"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        told = {"model": self.name_of(), "base_url": self.base_url, "adapter": self.adapter, **self.params()}
        return told if self.knowledge is None else {**told, "knowledge": _names(_named(self.knowledge))}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        found = super()._get_ls_params(stop=stop, **kwargs)
        found["ls_provider"] = "chatglm"
        found["ls_model_name"] = self.name_of(kwargs.get("model"))
        if (ends := stop or self.stop) is not None:
            found["ls_stop"] = ends
        return found

    def _resolve_model_profile(self) -> ModelProfile | None:
        """What the model supports. If the model is not open yet, it is not opened for this."""
        found: dict[str, Any] = {
            "text_inputs": True,
            "text_outputs": True,
            "image_inputs": False,
            "audio_inputs": False,
            "video_inputs": False,
            "pdf_inputs": False,
            "tool_calling": True,
            "tool_choice": True,
            "structured_output": True,
        }
        known = self.assistant
        if known is not None and known.context is not None:
            found["max_input_tokens"] = known.context
        return cast(ModelProfile, found)

    # Answers

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self._may_stream(kwargs):
            return _together(list(self._stream(messages, stop, run_manager, **kwargs)))
        if self._asks_documents(kwargs):
            return self._cited(list(self._stream(messages, stop, **kwargs)))
        model, options = self._options(stop, kwargs)
        answers = self.tries(lambda: self.opened(model).answers(messages_of(messages), **options))
        return self._result([message_of(answer, self.name_of(model)) for answer in answers])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self._may_stream(kwargs):
            return _together([chunk async for chunk in self._astream(messages, stop, run_manager, **kwargs)])
        if self._asks_documents(kwargs):
            return self._cited([chunk async for chunk in self._astream(messages, stop, **kwargs)])
        model, options = self._options(stop, kwargs)
        assistant = await self.aopened(model)
        answers = await self.atries(lambda: assistant.aanswers(messages_of(messages), **options))
        return self._result([message_of(answer, self.name_of(model)) for answer in answers])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        usage, documents = self._usage(kwargs), self._documents(kwargs)
        model, options = self._options(stop, kwargs, single=True)
        assistant, asked = self.opened(model), messages_of(messages)

        def begin() -> tuple[Generator[_Heard], list[_Heard]]:
            said = cast(
                Generator[_Heard],
                assistant.stream(asked, **options) if documents is None else documents.ask(assistant, asked, options),
            )
            first: list[_Heard] = []
            for each in said:
                first.append(each)
                if not isinstance(each, Passages):  # the model has not begun yet when the passages come
                    break
            return said, first

        said, first = self.tries(begin)
        with closing(said):
            for each in itertools.chain(first, said):
                chunk = chunk_of(each, self.name_of(model), usage)
                if chunk is None:
                    continue
                generation = _generation(chunk, each)
                if run_manager is not None:
                    run_manager.on_llm_new_token(_said(each), chunk=generation)
                yield generation

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        usage = self._usage(kwargs)
        documents = await asyncio.to_thread(self._documents, kwargs) if self._asks_documents(kwargs) else None
        model, options = self._options(stop, kwargs, single=True)
        assistant, asked = await self.aopened(model), messages_of(messages)

        async def begin() -> tuple[AsyncGenerator[_Heard], list[_Heard]]:
            said = cast(
                AsyncGenerator[_Heard],
                assistant.astream(asked, **options) if documents is None else documents.aask(assistant, asked, options),
            )
            first: list[_Heard] = []
            async for each in said:
                first.append(each)
                if not isinstance(each, Passages):
                    break
            return said, first

        said, first = await self.atries(begin)
        async with aclosing(said):
            async for each in _achain(first, said):
                if (chunk := chunk_of(each, self.name_of(model), usage)) is not None:
                    generation = _generation(chunk, each)
                    if run_manager is not None:
                        await run_manager.on_llm_new_token(_said(each), chunk=generation)
                    yield generation

    # Documents

    def _asks_documents(self, kwargs: Mapping[str, Any]) -> bool:
        return kwargs.get("knowledge", self.knowledge) is not None

    def _documents(self, kwargs: Mapping[str, Any]) -> Documents | None:
        """The documents for an answer; None: the call does not use documents.

        Raises:
            NotFoundError: there is no such base on this machine.
        """
        if not self._asks_documents(kwargs):
            return None
        named = _named(kwargs.get("knowledge", self.knowledge))
        if isinstance(named, Bases) or self.base_url is not None:
            return Documents(named, self.knowledge_options)
        bases = self._bases.get((named, self.home), lambda: open_bases(named, home=self.home))
        return Documents(bases, self.knowledge_options)

    def close(self) -> None:
        super().close()
        for bases in self._bases.clear():
            bases.close()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        memo = {} if memo is None else memo
        memo[id(self.knowledge)] = self.knowledge  # open bases are not copied
        return super().__deepcopy__(memo)

    def _cited(self, chunks: Sequence[ChatGenerationChunk]) -> ChatResult:
        """Join the chunks of an answer from documents."""
        first, *rest = [cast(AIMessageChunk, chunk.message) for chunk in chunks]
        whole = cast(AIMessageChunk, first + rest)
        message = cast(AIMessage, message_chunk_to_message(whole))
        message.additional_kwargs.clear()  # streams use it for intermediate values
        return self._result([message])

    def _may_stream(self, kwargs: Mapping[str, Any]) -> bool:
        """Whether an answer that is returned as a whole is streamed, so that callbacks get every token."""
        return self.streaming and not self.disable_streaming and kwargs.get("n", self.n) == 1

    def _usage(self, kwargs: Mapping[str, Any]) -> bool:
        asked = kwargs.get("stream_options") or {}
        return bool(asked.get("include_usage", self.stream_usage))

    def _options(
        self, stop: Sequence[str] | None, kwargs: Mapping[str, Any], single: bool = False
    ) -> tuple[str | None, dict[str, Any]]:
        """The model that a call names (None: the object's), and the options for the assistant.

        Args:
            single: the call cannot have several answers.
        """
        given = {key: value for key, value in kwargs.items() if key not in _SILENT}
        model = given.pop("model", None)
        for known in ("stream_usage", "knowledge"):
            given.pop(known, None)
        options = {key: given.pop(key) for key in _OF_ANSWER if key in given}
        if "parallel_tool_calls" in options:
            parallel = options.pop("parallel_tool_calls")
            options["parallel_calls"] = parallel is None or bool(parallel)
        options = {key: value for key, value in options.items() if value is not None}
        options.setdefault("adapter", self.adapter)
        if "tools" in options:
            options["tools"] = [_tool(tool) for tool in options["tools"]]
        if "tool_choice" in options:
            options["tool_choice"] = _choice(options["tool_choice"], options.get("tools", ()))
        options["params"] = self.params(stop, given)
        if single and options["params"].get("n", 1) != 1:
            raise InputError("n: streams and answers from documents have one answer; ask for several with invoke")
        return model, options

    def _result(self, messages: Sequence[AIMessage]) -> ChatResult:
        generations = [
            ChatGeneration(
                message=message, generation_info={"finish_reason": message.response_metadata["finish_reason"]}
            )
            for message in messages
        ]
        used = [message.usage_metadata for message in messages if message.usage_metadata is not None]
        output: dict[str, Any] = {"model_name": messages[0].response_metadata["model_name"]}
        if used:
            output["token_usage"] = {
                "prompt_tokens": used[0]["input_tokens"],
                "completion_tokens": sum(usage["output_tokens"] for usage in used),
                "total_tokens": used[0]["input_tokens"] + sum(usage["output_tokens"] for usage in used),
            }
        return ChatResult(generations=generations, llm_output=output)

    # Tools and structured output

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return the model with tools that it may call.

        Args:
            tool_choice: "auto", "none"; "any", "required" or True: a call of any tool is required; a tool's name, or
                OpenAI's form of it: a call of this tool is required. A grammar makes required calls follow the schemas.
            strict: refuse schemas with keywords that a grammar cannot enforce.
            parallel_tool_calls: False: the answer ends with its first call.

        Raises:
            InputError: `tool_choice` is unknown.
        """
        read = [_tool(tool, strict) for tool in tools]
        more: dict[str, Any] = dict(kwargs)
        if tool_choice is not None and tool_choice is not False:
            more["tool_choice"] = _choice(tool_choice, read)
        if parallel_tool_calls is not None:
            more["parallel_tool_calls"] = parallel_tool_calls
        return self.bind(tools=read, **more)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Return the model with output that follows a schema.

        Args:
            schema: a pydantic class, a TypedDict, a JSON schema, or a function in OpenAI's form.
            method: "json_schema": the whole answer is JSON that a grammar holds to the schema; "function_calling": a
                call of a tool with the schema's parameters; "json_mode": any JSON object, which the question must
                describe.
            include_raw: return a dict with `raw` (the message), `parsed` and `parsing_error`.
            strict: refuse a schema with keywords that a grammar cannot enforce.

        Raises:
            InputError: an argument or the method is unknown.
        """
        if kwargs:
            raise InputError(f"{', '.join(sorted(kwargs))}: with_structured_output has no such argument")
        is_class = isinstance(schema, type) and is_basemodel_subclass(schema)
        told = {"kwargs": {"method": method, "strict": strict}, "schema": schema}
        parser: OutputParserLike[Any]
        if method == "function_calling":
            name = convert_to_openai_tool(schema)["function"]["name"]
            model = self.bind_tools(
                [schema], tool_choice=name, strict=strict, parallel_tool_calls=False, ls_structured_output_format=told
            )
            if is_class:
                parser = PydanticToolsParser(tools=[cast(type[BaseModel], schema)], first_tool_only=True)
            else:
                parser = JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
        elif method in ("json_schema", "json_mode"):
            form: dict[str, Any] = {"type": "json_object"}
            if method == "json_schema":
                read = convert_to_json_schema(schema)
                held = {"name": str(read.get("title", "answer")), "schema": read}
                form = {"type": "json_schema", "json_schema": held if strict is None else {**held, "strict": strict}}
            model = self.bind(response_format=form, ls_structured_output_format=told)
            if is_class:
                parser = PydanticOutputParser(pydantic_object=cast(type[BaseModel], schema))
            else:
                parser = JsonOutputParser()
        else:
            raise InputError(f"method={method!r:.40}: must be json_schema, function_calling or json_mode")
        if not include_raw:
            return model | parser
        parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
        failed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=model) | parsed.with_fallbacks([failed], exception_key="parsing_error")

    # Counting

    def get_token_ids(self, text: str) -> list[int]:
        """The token ids of a text.

        Raises:
            UnsupportedError: the model is behind an endpoint, so its vocabulary is unknown.
        """
        assistant = self.opened()
        if not isinstance(assistant, Assistant):
            raise UnsupportedError("the ids of tokens are not known here: the model is at another server")
        return list(assistant.tokenizer.encode_text(text))

    def get_num_tokens_from_messages(self, messages: Sequence[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Number of tokens of the prompt.

        Raises:
            UnsupportedError: the endpoint cannot count tokens.
        """
        return self.opened().count(messages_of(messages), tools=[_tool(tool) for tool in tools or ()])


def _tool(tool: Any, strict: bool | None = None) -> dict[str, Any]:
    """Convert a tool to OpenAI's form. Built-in tools, such as `{"type": "python"}`, are returned unchanged."""
    if isinstance(tool, Mapping) and tool.get("type") in _BUILT_IN and not tool.keys() & {"function", "name", "title"}:
        return dict(tool)
    if isinstance(tool, BaseTool) and (kind := (tool.metadata or {}).get("builtin")) in _BUILT_IN:
        return {"type": kind}  # a tool of `langchain_tools`
    return dict(convert_to_openai_tool(tool, strict=strict))


def _choice(asked: Any, tools: Sequence[Mapping[str, Any]]) -> str:
    names = [str(tool["function"]["name"]) if "function" in tool else str(tool.get("type")) for tool in tools]
    if isinstance(asked, Mapping):
        inner = asked.get("function", asked)
        asked = inner.get("name") if isinstance(inner, Mapping) else None
    if asked is True or asked == "any":
        return "required"
    if asked is False:
        return "none"
    if isinstance(asked, str) and asked in ("auto", "none", "required", *names):
        return asked
    raise InputError(
        f"tool_choice: {asked!r:.80}; must be auto, none, any, required, or the name of a tool "
        f"({', '.join(names) or 'there are no tools'})"
    )


def _named(given: Any) -> Bases | tuple[str, ...]:
    """Check a value of `knowledge`. Returns names, or open bases.

    Raises:
        InputError: it is neither.
    """
    if isinstance(given, Bases):
        return given
    many = list(given) if isinstance(given, list | tuple) else [given]
    if many and all(isinstance(each, str) for each in many):
        return tuple(many)
    if many and all(isinstance(each, Base) for each in many):
        return Bases(many)
    raise InputError("knowledge: give names of bases, or open bases")


def _names(named: Bases | tuple[str, ...]) -> list[str]:
    return [base.name for base in named] if isinstance(named, Bases) else list(named)


async def _achain(first: Sequence[_Heard], rest: AsyncGenerator[_Heard]) -> AsyncIterator[_Heard]:
    for each in first:
        yield each
    async for each in rest:
        yield each


def _said(heard: _Heard) -> str:
    return heard.text if isinstance(heard, TextDelta) else ""


def _generation(chunk: AIMessageChunk, delta: _Heard) -> ChatGenerationChunk:
    info = {"finish_reason": chunk.response_metadata["finish_reason"]} if isinstance(delta, Finish | Done) else {}
    if isinstance(delta, TextDelta) and delta.logprobs:
        info["logprobs"] = chunk.response_metadata["logprobs"]
    return ChatGenerationChunk(message=chunk, generation_info=info or None)


def _together(chunks: Sequence[ChatGenerationChunk]) -> ChatResult:
    from langchain_core.language_models.chat_models import generate_from_stream

    return generate_from_stream(iter(chunks))
