"""What requests to ZhipuAI's routes may contain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic_core import PydanticCustomError

from chatglm.assistant import Options
from chatglm.chat.messages import INTERPRETER, Message, messages_from_pairs
from chatglm.chat.personas import Persona
from chatglm.errors import InputError
from chatglm.serving.dialect import Strict
from chatglm.serving.fields import OPTIONS, OneOf, Strings, sampling_option, wrong
from chatglm.serving.hints import BATCH, CLOUD_TOOL, REQUEST, note_ignored
from chatglm.serving.messages import ChatMessage, messages_of
from chatglm.serving.openai.batches import BatchBody
from chatglm.serving.openai.requests import Generation
from chatglm.serving.server_tools import ServerToolNames
from chatglm.serving.structured import Guided
from chatglm.serving.tools import Tool, ToolChoice, chosen_tool, tool_of, tools_of

__all__ = ["InvokeRequest", "TokenizerRequest", "ZhipuBatchRequest", "ZhipuChatRequest"]

_RequestId = Annotated[str, Field(max_length=256, description="is returned in the answer; default: a new one")]
_Name = Annotated[str, Field(max_length=200)]


class Meta(Strict):
    """A role play, as CharacterGLM has it. Models of other generations are told in a system message."""

    bot_name: _Name | None = None
    bot_info: str | None = None
    user_name: _Name | None = None
    user_info: str | None = None

    def persona(self) -> Persona:
        return Persona(**{name: text for name, text in self.model_dump(exclude_none=True).items() if text.strip()})


class _SwitchedOff(Strict):
    """A tool of ZhipuAI's cloud, switched off."""

    hints = CLOUD_TOOL

    type: str


def _zhipu_tool(value: Any) -> Any:
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in CLOUD_TOOL.fields:
        return tool_of(value)
    settings = value.get(kind)
    if isinstance(settings, dict) and str(settings.get("enable")).lower() == "false":
        return _SwitchedOff
    message = f"tools of type {kind} are not supported; leave it out, or switch it off with enable: false"
    if kind == "code_interpreter":
        message += f'. To have code run here, ask for it with server_tools: ["{INTERPRETER}"]'
    raise PydanticCustomError("unsupported", "{message}", {"message": message})


_Tools = list[Annotated[Tool | _SwitchedOff, OneOf(_zhipu_tool)]]


def _functions(tools: Sequence[Any] | None) -> Any:
    return tools_of([tool for tool in tools or () if not isinstance(tool, _SwitchedOff)])


class ZhipuChatRequest(Generation, Guided):
    """v4's `/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1)
    request_id: _RequestId | None = None
    do_sample: bool | None = Field(None, description="false: greedy, whatever temperature and top_p are")
    tools: _Tools | None = None
    tool_choice: ToolChoice | None = None
    tool_stream: bool | None = Field(None, description="stream the arguments of a call in pieces; default: whole calls")
    parallel_tool_calls: bool | None = None
    server_tools: ServerToolNames | None = None
    meta: Meta | None = None

    def asked(self) -> tuple[list[Message], Options]:
        """Return the dialogue and how it is to be answered.

        Raises:
            InputError: fields contradict each other.
        """
        made: Options = {
            "params": self._params(),
            "trim": False,
            "tools": _functions(self.tools),
            "response_format": self.format(),
        }
        if self.tool_choice is not None:
            made["tool_choice"] = chosen_tool(self.tool_choice)
        if self.parallel_tool_calls is not None:
            made["parallel_calls"] = self.parallel_tool_calls
        if self.meta is not None:
            made["persona"] = self.meta.persona()
        if self.stream_options is not None:  # the usage is always there
            note_ignored("stream_options")
        return messages_of(self.messages), made

    def _params(self) -> dict[str, Any]:
        return self.options() | ({"temperature": 0} if self.do_sample is False else {})


class TokenizerRequest(Strict):
    """v4's `/tokenizer`."""

    hints = REQUEST

    model: str | None = None
    messages: list[ChatMessage] = Field(min_length=1)
    tools: _Tools | None = None
    meta: Meta | None = None
    request_id: _RequestId | None = None

    def asked(self) -> tuple[list[Message], Options]:
        """Return the dialogue and what else is in its prompt."""
        made: Options = {"tools": _functions(self.tools)}
        if self.meta is not None:
            made["persona"] = self.meta.persona()
        return messages_of(self.messages), made


class ZhipuBatchRequest(BatchBody):
    """v4's `/batches`."""

    hints = BATCH

    endpoint: Literal["/v4/chat/completions", "/v4/embeddings", "/v1/chat/completions", "/v1/embeddings"] = Field(
        description="the `url` of every line; answers have v4's form, also for the SDK's own names, which begin with "
        "/v1"
    )

    def path(self, base: str) -> str:
        """Where the lines are sent."""
        return f"{base}/{self.endpoint.split('/', 2)[2]}"


def _prompt(value: Any) -> Any:
    if isinstance(value, str):
        return str
    if isinstance(value, list):
        return _Messages
    raise wrong("must be a list of messages with `role` and `content`, or a string")


def _history(value: Any) -> Any:
    if not isinstance(value, list):
        raise wrong("must be a list: of pairs (question, answer), of questions and answers in turn, or of messages")
    if value and isinstance(value[0], str):
        return list[str]
    return list[ChatMessage] if value and isinstance(value[0], dict) else list[_Turn]


_Messages = Annotated[list[ChatMessage], Field(min_length=1)]
_Turn = Annotated[list[str], Field(min_length=2, max_length=2)]


class InvokeRequest(Strict):
    """v3's three `invoke` routes."""

    hints = REQUEST

    model: str | None = Field(None, description="no effect: the path names the model")
    prompt: Annotated[str | _Messages, OneOf(_prompt)] = Field(description="the dialogue, or its last question")
    history: Annotated[list[_Turn] | list[str] | list[ChatMessage], OneOf(_history)] | None = Field(
        None, description="the earlier dialogue, if `prompt` is a string"
    )
    meta: Meta | None = None
    temperature: float | None = sampling_option("temperature")
    top_p: float | None = sampling_option("top_p")
    do_sample: bool | None = Field(None, description="false: greedy, whatever temperature and top_p are")
    max_tokens: int | None = Field(None, ge=1, description=OPTIONS["max_new_tokens"].help)
    seed: int | None = sampling_option("seed")
    stop: Strings | None = Field(None, description=OPTIONS["stop"].help)
    request_id: _RequestId | None = None
    incremental: bool | None = Field(
        None, description="for a stream: true (default): each event has the new text; false: all text so far"
    )
    return_type: Literal["json_string", "text"] | None = Field(
        None, description="json_string (default): the content is JSON, a string with quotes; text: as it is"
    )

    def asked(self) -> tuple[list[Message], Options]:
        """Return the dialogue and how it is to be answered.

        Raises:
            InputError: fields contradict each other.
        """
        if self.model is not None:
            note_ignored("model")
        names = {"max_tokens": "max_new_tokens"}
        given = {
            names.get(name, name): getattr(self, name)
            for name in ("temperature", "top_p", "max_tokens", "seed", "stop")
        }
        params = {"n": 1} | {name: value for name, value in given.items() if value is not None}
        if self.do_sample is False:
            params["temperature"] = 0
        made: Options = {"params": params, "trim": False}
        if self.meta is not None:
            made["persona"] = self.meta.persona()
        return self._dialogue(), made

    def _dialogue(self) -> list[Message]:
        history: list[Any] = list(self.history or ())
        if not isinstance(self.prompt, str):
            if history:
                raise InputError("history: cannot be given together with prompt, if that is a list")
            return messages_of(self.prompt)
        if not history or isinstance(history[0], list):
            return messages_from_pairs(history, self.prompt)
        if isinstance(history[0], str):
            if len(history) % 2:
                raise InputError(f"history: has {len(history)} texts; expected questions and answers in turn")
            return messages_from_pairs(list(zip(history[::2], history[1::2], strict=True)), self.prompt)
        return [*messages_of(history), Message("user", self.prompt)]
