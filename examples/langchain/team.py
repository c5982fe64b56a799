"""Several agents with names, in a graph: the model says who is to answer, and that agent answers with its own tool.

python team.py [MODEL]     MODEL: a checkpoint folder; without it, the demo model.
"""

from __future__ import annotations

import sys

from langchain.agents import create_agent
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command

from chatglm.langchain import ChatChatGLM, langchain_tools
from chatglm.tools import Toolbox

TEAM = {"get_weather": "weatherman", "calculator": "accountant"}


def graph(model: ChatChatGLM, box: Toolbox):
    tools = {tool.name: tool for tool in langchain_tools(box)}

    def chief(state: MessagesState) -> Command:
        """Which tool the model would call says which agent is asked; none: the model answers itself."""
        answer = model.bind_tools(list(tools.values())).invoke(state["messages"])
        if answer.tool_calls:
            return Command(goto=TEAM[answer.tool_calls[0]["name"]])
        return Command(goto=END, update={"messages": [answer]})

    made = StateGraph(MessagesState)
    made.add_node("chief", chief, destinations=(*TEAM.values(), END))
    made.add_edge(START, "chief")
    for tool, name in TEAM.items():
        made.add_node(name, create_agent(model, [tools[tool]], name=name))
        made.add_edge(name, END)
    return made.compile()


def main(folder: str | None = None) -> None:
    model = ChatChatGLM(model=folder, temperature=0)
    with Toolbox.open(list(TEAM)) as box:
        team = graph(model, box)
        for question in ("北京的天气怎么样？", "计算128*46", "你好"):
            message = team.invoke({"messages": [("user", question)]})["messages"][-1]
            print(f"{question} {message.name or 'chief'}: {message.text}")
    model.close()


if __name__ == "__main__":
    main(*sys.argv[1:2])
