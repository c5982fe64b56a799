"""An agent with tools, and one that writes Python which runs in a sandbox. Its text is shown as it comes.

python agent.py [MODEL]     MODEL: a checkpoint folder; without it, the demo model. The second part needs bubblewrap.
"""

from __future__ import annotations

import asyncio
import sys

from langchain.agents import create_agent
from langchain_core.messages import AIMessageChunk, ToolMessage

from chatglm.langchain import ChatChatGLM, langchain_tools
from chatglm.tools import Toolbox
from chatglm.tools.interpreter.pool import Kernels
from chatglm.tools.interpreter.sandbox import protection
from chatglm.tools.interpreter.tool import Interpreter


def show(agent, question: str) -> None:
    print("?", question)
    for message, _ in agent.stream({"messages": [("user", question)]}, stream_mode="messages"):
        if isinstance(message, ToolMessage):
            print(f"  {message.name}: {message.text.strip()}")
        elif isinstance(message, AIMessageChunk):
            print(message.text, end="", flush=True)
    print()


def main(folder: str | None = None) -> None:
    model = ChatChatGLM(model=folder, temperature=0)
    with Toolbox.open(["get_weather", "calculator"]) as box:
        agent = create_agent(model, langchain_tools(box))
        show(agent, "北京的天气怎么样？")
        show(agent, "计算128*46")
    if protection().tier == "none":
        print("no sandbox on this machine: the interpreter is left out")
    else:
        kernels = Kernels(spare=0)
        with Toolbox([Interpreter(kernels)]) as box:
            show(create_agent(model, langchain_tools(box)), "计算1到100的和")
        asyncio.run(kernels.close())
    model.close()


if __name__ == "__main__":
    main(*sys.argv[1:2])
