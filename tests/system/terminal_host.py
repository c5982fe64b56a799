"""`chatglm chat` with an assistant that says what it is told: `python terminal_host.py ARGUMENTS`.

What it says depends on the question, so that one process serves many tests.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
import os
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from typing import Any

from chatglm.assistant.base import BaseAssistant, CallDelta, Delta, Finish, TextDelta, Usage
from chatglm.chat.messages import Message
from chatglm.errors import EngineError
from chatglm.params import SamplingParams

MARKDOWN = """# 标题

第一段 **粗体** 和 `code`，use <div> here.

- 一
- 二

```python
def f(x):
    return x * 2
```

| 城市 | 温度 |
|---|---|
| 北京 | 21 |

完。"""
HOSTILE = "a\x1b]0;owned\x07b\x1b[2Jc\x9b31md\u202ee"


class Scripted(BaseAssistant):
    defaults = SamplingParams(temperature=0.5)
    context = 4096
    adapters = ("cafe",)

    def __init__(self) -> None:
        self._ids = itertools.count(1)

    def _says(self, messages: Sequence[Message]) -> tuple[str, list[tuple[str, str]], float]:
        """Text, calls, and seconds between its pieces."""
        last, question = messages[-1], next(m.content for m in reversed(messages) if m.role == "user")
        if last.role == "observation":
            return f"工具说：{last.content[:60]}", [], 0.0
        question = question.rpartition("#File uploaded\n")[2]  # what the model is told of a file
        word, _, rest = question.partition(" ")
        match word:
            case "markdown":
                return MARKDOWN, [], 0.0
            case "hostile":
                return HOSTILE, [], 0.0
            case "slow":
                return "".join(f"{n} " for n in range(1, 400)), [], 0.05
            case "long":
                return "\n\n".join(f"第 {n} 段" for n in range(1, 61)), [], 0.0
            case "call":
                name, _, arguments = rest.partition(" ")
                return "我看看。", [(name, arguments or "{}")], 0.0
            case "code":
                return "", [("interpreter", rest)], 0.0
            case "fail":
                raise EngineError("the engine has stopped: no reason")
            case "history":
                return " | ".join(m.content for m in messages), [], 0.0
            case _:
                lines = question.count("\n") + 1
                return f"你说：{question}" if lines == 1 else f"{lines} 行：{question}", [], 0.0

    def _deltas(self, messages: Sequence[Message]) -> Iterator[tuple[float, Delta]]:
        """Deltas, each with the seconds before it."""
        text, calls, pause = self._says(messages)
        pieces = [text[i : i + 3] for i in range(0, len(text), 3)]
        for piece in pieces:
            yield pause, TextDelta(piece)
        for index, (name, arguments) in enumerate(calls):
            if name == "interpreter":
                arguments = json.dumps({"code": arguments}, ensure_ascii=False)
            yield 0.0, CallDelta(index, f"call_{os.getpid()}_{next(self._ids)}", name)
            yield 0.0, CallDelta(index, arguments=arguments)
        reason: Any = "tool_calls" if calls else "stop"
        yield 0.0, Finish(reason, Usage(10 * len(messages), len(pieces), 10 * (len(messages) - 1)), "", 0, 0.1, 0.2)

    async def astream(self, messages: Any, **options: Any) -> AsyncGenerator[Delta]:
        for pause, delta in self._deltas(messages):
            await asyncio.sleep(pause)
            yield delta

    def stream(self, messages: Any, **options: Any) -> Generator[Delta]:
        for _, delta in self._deltas(messages):
            yield delta

    def stream_text(self, prompt: Any, **options: Any) -> Generator[Delta]:
        raise NotImplementedError

    def astream_text(self, prompt: Any, **options: Any) -> AsyncGenerator[Delta]:
        raise NotImplementedError

    def close(self) -> None:
        pass


def use(put: Callable[[str, Any], None]) -> None:
    """Make the command talk to it.

    Args:
        put: sets `open_assistant` of a module.
    """
    from chatglm.errors import CheckpointError

    def opened(given: Any, **engine: Any) -> Scripted:
        if given.model and "endless" in given.model:
            print("downloading", flush=True)
            time.sleep(3600)
        if given.model and "missing" in given.model:
            raise CheckpointError(f"{given.model}: no such folder")
        return Scripted()

    for name in ("chatglm.cli.chat", "chatglm.cli.piped", "chatglm.cli.terminal.models"):
        put(name, opened)


def main(arguments: list[str]) -> int:
    from chatglm.cli import main

    use(lambda name, made: setattr(importlib.import_module(name), "open_assistant", made))
    if os.environ.get("WITHOUT_PACKAGES"):
        importlib.import_module("chatglm.cli.chat")._has_packages = lambda: False  # type: ignore[attr-defined]
    return main(["chat", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
