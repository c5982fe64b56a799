"""AutoGen: an assistant agent with a tool; every message of it carries a name."""

from __future__ import annotations

import asyncio
import json
import sys

from autogen_agentchat.agents import AssistantAgent
from autogen_ext.models.openai import OpenAIChatCompletionClient


async def get_weather(city: str) -> str:
    """查询城市的天气"""
    return "晴，20度"


async def main() -> dict[str, object]:
    client = OpenAIChatCompletionClient(
        model="demo",
        base_url=f"{sys.argv[1]}/v1",
        api_key="none",
        max_tokens=200,
        model_info={
            "vision": False,
            "function_calling": True,
            "json_output": True,
            "structured_output": True,
            "family": "unknown",
        },
    )
    agent = AssistantAgent("weather_agent", client, tools=[get_weather], reflect_on_tool_use=True)
    first = await agent.run(task="北京的天气怎么样？")
    second = await agent.run(task="你好")
    await client.close()
    return {
        "kinds": [type(message).__name__ for message in first.messages],
        "last": second.messages[-1].content,
    }


print(json.dumps(asyncio.run(main()), ensure_ascii=False))
