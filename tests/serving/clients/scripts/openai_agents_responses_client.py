"""OpenAI's Agents SDK over the Responses API, its default: a tool, an output type, a stream, a stored dialogue."""

from __future__ import annotations

import asyncio
import json
import sys

from agents import Agent, ModelSettings, Runner, function_tool, set_default_openai_client, set_tracing_disabled
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
    set_default_openai_client(client)
    settings = ModelSettings(max_tokens=200)
    plain = Agent(name="weather", model="demo", tools=[get_weather], model_settings=settings)
    first = await Runner.run(plain, "北京的天气怎么样？")
    found["tool"], found["called"] = first.final_output, list(calls)
    found["again"] = (
        await Runner.run(plain, [*first.to_input_list(), {"role": "user", "content": "你好"}])
    ).final_output
    second = await Runner.run(plain, "你好", previous_response_id=first.last_response_id)
    found["continued"] = second.raw_responses[0].usage.input_tokens > first.raw_responses[0].usage.input_tokens
    typed = Agent(name="typed", model="demo", output_type=Report, model_settings=settings)
    found["typed"] = (await Runner.run(typed, "你好")).final_output.model_dump()
    streamed = Runner.run_streamed(plain, "北京的天气怎么样？")
    events = [event.type async for event in streamed.stream_events()]
    found["streamed"] = streamed.final_output
    found["events"] = sorted(set(events))
    await client.close()


asyncio.run(main())
print(json.dumps(found, ensure_ascii=False))
