"""An assistant for LangChain's tests, which ask for more than a model of the demo's size can do."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Generator
from typing import Any

from chatglm.assistant import Ask, BaseAssistant, CallDelta, Delta, Finish, TextDelta, Usage
from chatglm.params import SamplingParams


class Clever(BaseAssistant):
    """Knows what LangChain's tests ask for: calls of tools and JSON that a model of the demo's size cannot think of.

    It is asked through the same options as every assistant, and refuses what it is not offered.
    """

    defaults = SamplingParams()
    context = 4096

    def stream(self, messages: Any, **options: Any) -> Generator[Delta]:
        ask = Ask.of(messages, options, self.defaults)
        usage = Usage(sum(len(m.content) for m in ask.messages) + 1, 5)
        call = self._call(ask)
        if call is not None:
            name, arguments = call
            text = json.dumps(arguments, ensure_ascii=False)
            yield CallDelta(0, "call_1", name)
            for start in range(0, len(text), 4):
                yield CallDelta(0, arguments=text[start : start + 4])
            yield Finish("tool_calls", usage)
            return
        for piece in re.findall(r".{1,3}", self._text(ask), re.S):
            yield TextDelta(piece)
        yield Finish("stop", usage)

    async def astream(self, messages: Any, **options: Any) -> AsyncGenerator[Delta]:
        for delta in self.stream(messages, **options):
            yield delta

    def stream_text(self, prompt: Any, **options: Any) -> Generator[Delta]:
        raise NotImplementedError

    def astream_text(self, prompt: Any, **options: Any) -> AsyncGenerator[Delta]:
        raise NotImplementedError

    def close(self) -> None:
        pass

    def _call(self, ask: Ask) -> tuple[str, dict[str, Any]] | None:
        names = [tool.name for tool in ask.tools]
        last = ask.messages[-1]
        if not names or ask.tool_choice == "none" or (ask.tool_choice == "auto" and last.role == "observation"):
            return None
        name = names[0] if ask.tool_choice in ("auto", "required") else ask.tool_choice
        spec = next(tool for tool in ask.tools if tool.name == name).flat()
        known = spec.get("parameters", {}).get("properties", {})
        said = " ".join(message.content for message in ask.messages if message.role == "user")
        values = {
            "input": 3,
            "greeting": "hi",
            "location": "San Francisco" if "San Francisco" in said else "LA",
            "a": 1,
            "b": 2,
            "setup": "Why?",
            "punchline": "Because.",
            "customer_name": "こんにちは株式会社" if "こんにちは" in said else "你好啊集团",
        }
        return name, {key: values.get(key, "hello") for key in known}

    def _text(self, ask: Ask) -> str:
        form = ask.response_format or {}
        if form.get("type") in ("json_schema", "json_object"):
            return json.dumps({"setup": "Why?", "punchline": "Because."})
        return "It is 5." if ask.messages[-1].role == "observation" else "hello there"
