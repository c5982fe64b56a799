"""`ChatGLM3`: replaces the class of this name in the official `langchain_demo` and in `langchain_community`.

A structured chat agent of LangChain describes its tools in the prompt, and reads a JSON object from the answer. But the
family was trained with its own form for tools. So the agent's prompt is parsed here, the model gets the tools in its
own form, and its answer is converted to the form that the agent reads. Each prompt has the whole dialogue, so no state
is kept between calls.
"""

from __future__ import annotations

import ast
import itertools
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.messages import BaseMessage
from langchain_core.outputs import GenerationChunk
from pydantic import Field, model_validator

from chatglm.assistant import Answer
from chatglm.chat.messages import Message, ToolCall
from chatglm.langchain.completion import ChatGLM
from chatglm.langchain.messages import messages_of

__all__ = ["ChatGLM3"]

_ROUTE = "/chat/completions"
_TOOLS = "You have access to the following tools:"
_AFTER_TOOLS = "\n\nUse a json blob"
_ARGS = re.compile(r", args: (\{.*\})$", re.M)
_TOOL = re.compile(r"\s*([\w.-]{1,200})(?:\(.*?\)(?: ->[^\n]*?)?)?\s*(?:-|:)\s*", re.S)
_LONGEST = 1 << 16
"""Most characters of the description of a tool's arguments."""
_TURN = re.compile(r"\n(Human|AI): ")
_BEFORE = "This was your previous work (but I haven't seen any of it! I only see what you return as final answer):"
_REMINDER = "(reminder to respond in a JSON blob no matter what)"
# The parts of a step, each searched for after the one before. One expression for all would take quadratic time.
_BLOB = re.compile(r"Action:\s*```(?:json)?\s*(?=\{)")
_OBSERVATION = re.compile(r"(?<=\})\s*```\s*Observation: ?")
_THOUGHT = re.compile(r"\nThought:\s*(?=Action:|\Z)")


@dataclass(frozen=True)
class _Turn:
    """The dialogue and the tools in the prompt of a structured chat agent."""

    messages: list[Message]
    tools: list[dict[str, Any]]


class ChatGLM3(ChatGLM):
    """`ChatGLM` for structured chat agents, with the names that older code uses.

        llm = ChatGLM3()
        llm.load_model("THUDM/chatglm3-6b")
        agent = create_structured_chat_agent(llm=llm, tools=tools, prompt=prompt)

    The official class of `langchain_demo` keeps a history and a state in the object, so two agents that share it mix
    their turns. Here, each prompt is read from the beginning. As in that class, text before the tools of a prompt is
    left out. Other prompts are answered in the same way as by `ChatGLM`.

    Attributes:
        do_sample: False: always choose the most likely token.
        endpoint_url: see `ChatGLM`; or the URL of a `/v1/chat/completions`, as in `langchain_community`.
        model_name: another name for `model`.
        prefix_messages: messages in front of every dialogue.
    """

    do_sample: bool = True
    prefix_messages: list[BaseMessage] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _older_names(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        found = dict(values)
        if "model_name" in found:
            found.setdefault("model", found.pop("model_name"))
        url = found.get("endpoint_url")
        if isinstance(url, str) and url.rstrip("/").endswith(_ROUTE):
            found.setdefault("base_url", url.rstrip("/").removesuffix(_ROUTE))
            del found["endpoint_url"]
        return found

    @property
    def _llm_type(self) -> str:
        return "ChatGLM3"

    def load_model(self, model_name_or_path: str | None = None) -> None:
        """Open a checkpoint folder or repository; None: the demo model of the package. Errors: see `chatglm.load`."""
        self.close()
        self.model = None if model_name_or_path is None else str(model_name_or_path)
        self.opened()

    def params(self, stop: Any = None, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return super().params(stop, given if self.do_sample else {**(given or {}), "temperature": 0})

    def _dialogue(self, prompt: str) -> list[Message]:
        return [*messages_of(self.prefix_messages), *super()._dialogue(prompt)]

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        turn = self._read(prompt)
        if turn is None:
            yield from super()._stream(prompt, stop, run_manager, **kwargs)
            return
        assistant = self.opened(kwargs.pop("model", None))
        options = self._options(turn, stop, kwargs)
        (answer,) = self.tries(lambda: assistant.answers(turn.messages, **options))
        chunk = GenerationChunk(text=_action(answer))
        if run_manager is not None:
            run_manager.on_llm_new_token(chunk.text, chunk=chunk)
        yield chunk

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        turn = self._read(prompt)
        if turn is None:
            async for chunk in super()._astream(prompt, stop, run_manager, **kwargs):
                yield chunk
            return
        assistant = await self.aopened(kwargs.pop("model", None))
        options = self._options(turn, stop, kwargs)
        (answer,) = await self.atries(lambda: assistant.aanswers(turn.messages, **options))
        chunk = GenerationChunk(text=_action(answer))
        if run_manager is not None:
            await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
        yield chunk

    def _read(self, prompt: str) -> _Turn | None:
        turn = None if self.raw or self.endpoint_url is not None else _turn(prompt)
        if turn is None or not self.prefix_messages:
            return turn
        return _Turn([*messages_of(self.prefix_messages), *turn.messages], turn.tools)

    def _options(self, turn: _Turn, stop: list[str] | None, kwargs: dict[str, Any]) -> dict[str, Any]:
        return {
            "tools": turn.tools,
            "parallel_calls": False,
            "params": self._single(stop, kwargs),
            "adapter": self.adapter,
        }


def _turn(prompt: str) -> _Turn | None:
    """Parse the prompt of a structured chat agent; None: it is another prompt."""
    _, found, rest = prompt.partition(_TOOLS)
    listed, also, rest = rest.partition(_AFTER_TOOLS)
    if not found or not also:
        return None
    tools, at = [], 0
    for match in _ARGS.finditer(listed):
        head = _TOOL.match(listed, at, match.start())
        if head is not None:
            about = listed[head.end() : match.start()].strip()
            tools.append({"name": head[1], "description": about, "parameters": _parameters(match[1])})
        at = match.end()
    _, *turns = _TURN.split(rest)
    said = [(turns[n], turns[n + 1]) for n in range(0, len(turns), 2)]
    if not tools or not said or said[-1][0] != "Human":
        return None
    messages = [Message("user" if who == "Human" else "assistant", text.strip()) for who, text in said[:-1]]
    return _Turn([*messages, *_steps(said[-1][1])], tools)


def _parameters(written: str) -> dict[str, Any]:
    """The schema of a tool's arguments, which LangChain writes as a Python dict."""
    try:
        known = ast.literal_eval(written) if len(written) <= _LONGEST else {}
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        known = {}
    plain: Any = {}
    if isinstance(known, dict):
        try:
            plain = json.loads(json.dumps(known))
        except (TypeError, ValueError, RecursionError):
            plain = {}
    needed = [name for name, one in plain.items() if not (isinstance(one, dict) and "default" in one)]
    for name, one in plain.items():
        if not isinstance(one, dict) or "$ref" in json.dumps(one):  # the prompt does not have the target of a `$ref`
            plain[name] = {}
    return {"type": "object", "properties": plain, "required": needed}


def _steps(text: str) -> list[Message]:
    """Messages of a prompt's last turn: the question, and the calls that were made for it, with their results."""
    text = text.rstrip().removesuffix(_REMINDER).rstrip()
    calls, first, end = [], len(text), 0
    for number in itertools.count():
        blob = _BLOB.search(text, end)
        observation = blob and _OBSERVATION.search(text, blob.end())
        thought = observation and _THOUGHT.search(text, observation.end())
        if blob is None or observation is None or thought is None:
            break
        first, end = min(first, blob.start()), thought.end()
        try:
            said = json.loads(text[blob.end() : observation.start()])
            given = said["action_input"]
            arguments = given if isinstance(given, dict) else {"input": given}
            call = ToolCall(str(said["action"]), arguments, f"call_{number}")
        except (ValueError, LookupError, TypeError, RecursionError):
            continue
        heard = text[observation.end() : thought.start()]
        calls += [Message("assistant", "", (call,)), Message("observation", heard, tool_call_id=call.id)]
    question = text[:first].replace(_BEFORE, "")
    return [Message("user", question.strip()), *calls]


def _action(answer: Answer) -> str:
    """Convert an answer to the form that a structured chat agent reads."""
    call = next((each for each in answer.message.tool_calls if not each.cut), None)
    said: dict[str, Any] = (
        {"action": "Final Answer", "action_input": answer.message.content}
        if call is None
        else {"action": call.name, "action_input": dict(call.arguments)}
    )
    blob = json.dumps(said, ensure_ascii=False).replace("`", "\\u0060")  # a backtick could end the block
    return f"Action:\n```\n{blob}\n```"
