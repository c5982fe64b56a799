"""The older form of an agent, `AgentExecutor` with tools that are classes, as ChatGLM3's LangChain demo has it.

python executor.py [MODEL]     MODEL: a checkpoint folder; without it, the demo model. Needs langchain-classic.
"""

from __future__ import annotations

import json
import sys

from langchain_classic.agents import AgentExecutor, create_tool_calling_agent
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.tools import BaseTool
from pydantic import BaseModel, Field

from chatglm.langchain import ChatChatGLM
from chatglm.tools.arithmetic import calculate


class Sum(BaseModel):
    expression: str = Field(description="算式")


class Calculator(BaseTool):
    name: str = "calculator"
    description: str = "计算算式"
    args_schema: type[BaseModel] = Sum

    def _run(self, expression: str) -> str:
        return json.dumps({"result": calculate(expression)})


def main(folder: str | None = None) -> None:
    model = ChatChatGLM(model=folder, temperature=0)
    prompt = ChatPromptTemplate([("user", "{input}"), MessagesPlaceholder("agent_scratchpad")])
    tools = [Calculator()]
    executor = AgentExecutor(agent=create_tool_calling_agent(model, tools, prompt), tools=tools)
    print(executor.invoke({"input": "计算128*46"})["output"])
    model.close()


if __name__ == "__main__":
    main(*sys.argv[1:2])
