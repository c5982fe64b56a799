"""OpenAI's Agents SDK over chat completions: a tool, an output type, and both together; streamed too."""

from __future__ import annotations

import asyncio
import json
import sys

from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

set_tracing_disabled(True)
found = {}
calls: list[str] = []


@function_tool
def get_weather(city: str) -> str:
    """查询城市的天气

    Args:
        city: 城市
    """
    calls.append(city)
    return "晴，20度"


class Report(BaseModel):
    city: str = Field(max_length=8)
    degrees: int = Field(ge=-50, le=60)


async def main() -> None:
    client = AsyncOpenAI(base_url=f"{sys.argv[1]}/v1", api_key="none", max_retries=0)
    model = OpenAIChatCompletionsModel(model="demo", openai_client=client)
    settings = ModelSettings(max_tokens=200, store=True, metadata={"trace": "1"}, include_usage=True)
    plain = Agent(name="weather", model=model, tools=[get_weather], model_settings=settings)
    found["tool"] = (await Runner.run(plain, "北京的天气怎么样？")).final_output
    found["called"] = list(calls)
    typed = Agent(name="typed", model=model, output_type=Report, model_settings=settings)
    found["typed"] = (await Runner.run(typed, "你好")).final_output.model_dump()
    both = Agent(name="both", model=model, tools=[get_weather], output_type=Report, model_settings=settings)
    found["both"] = (await Runner.run(both, "北京的天气怎么样？", max_turns=6)).final_output.model_dump()
    streamed = Runner.run_streamed(plain, "你好")
    events = [event.type async for event in streamed.stream_events()]
    found["streamed"] = streamed.final_output
    found["events"] = len(events)
    await client.close()


asyncio.run(main())
print(json.dumps(found, ensure_ascii=False))
