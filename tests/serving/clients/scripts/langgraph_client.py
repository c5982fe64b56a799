"""LangGraph: an agent that has a name, so its messages carry it, in a second turn with a checkpointer."""

from __future__ import annotations

import json
import sys

from langchain.agents import create_agent
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver


def get_weather(city: str) -> str:
    """查询城市的天气"""
    return "晴，20度"


model = ChatOpenAI(model="demo", base_url=f"{sys.argv[1]}/v1", api_key="none", max_retries=0, max_tokens=200)
agent = create_agent(model, [get_weather], name="weather_agent", checkpointer=InMemorySaver())
where = {"configurable": {"thread_id": "1"}}
first = agent.invoke({"messages": [{"role": "user", "content": "北京的天气怎么样？", "name": "bob"}]}, where)
second = agent.invoke({"messages": [{"role": "user", "content": "你好"}]}, where)
names = [getattr(message, "name", None) for message in second["messages"] if message.type == "ai"]
found = {
    "types": [message.type for message in first["messages"]],
    "names": names,
    "last": second["messages"][-1].content,
}
print(json.dumps(found, ensure_ascii=False))
