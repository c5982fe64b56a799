"""The official ChatGLM3 demo's way to LangChain: its class, `load_model`, and structured chat agents with a history.

python structured.py [MODEL]     MODEL: a checkpoint folder; without it, the demo model. Needs langchain-classic.
"""

from __future__ import annotations

import json
import sys

from langchain_classic.agents import AgentExecutor, create_structured_chat_agent
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.tools import BaseTool
from pydantic import BaseModel, Field

from chatglm.langchain import ChatGLM3
from chatglm.tools.arithmetic import calculate

# LangChain's hub has it as hwchase17/structured-chat-agent, longer; both say where the tools begin and end.
SYSTEM = """Answer as helpfully as you can. You have access to the following tools:

{tools}

Use a json blob to call one of them: {tool_names}."""
PROMPT = ChatPromptTemplate(
    [("system", SYSTEM), MessagesPlaceholder("chat_history", optional=True), ("user", "{input}\n\n{agent_scratchpad}")]
)


class Sum(BaseModel):
    expression: str = Field(description="算式")


class Calculator(BaseTool):
    name: str = "calculator"
    description: str = "计算算式"
    args_schema: type[BaseModel] = Sum

    def _run(self, expression: str) -> str:
        return str(calculate(expression))


class City(BaseModel):
    city_name: str = Field(description="城市名")


class Weather(BaseTool):
    name: str = "get_weather"
    description: str = "查询城市的天气"
    args_schema: type[BaseModel] = City

    def _run(self, city_name: str) -> str:
        return json.dumps({"condition": "晴", "temperature": 21}, ensure_ascii=False)


def main(folder: str | None = None) -> None:
    llm = ChatGLM3(do_sample=False)
    llm.load_model(folder)
    history = [HumanMessage("你好"), AIMessage("你好！")]
    for tool, question, before in ((Calculator(), "计算128*46", []), (Weather(), "北京的天气怎么样？", history)):
        agent = create_structured_chat_agent(llm=llm, tools=[tool], prompt=PROMPT)
        executor = AgentExecutor(agent=agent, tools=[tool])
        print(executor.invoke({"input": question, "chat_history": before})["output"])
    llm.close()


if __name__ == "__main__":
    main(*sys.argv[1:2])
