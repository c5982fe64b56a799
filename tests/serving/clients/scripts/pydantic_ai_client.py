"""Pydantic-AI: the default output type (a strict tool) with bounds, native output beside a tool, a plain tool loop."""

from __future__ import annotations

import json
import sys
from datetime import date

from pydantic import BaseModel, Field
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

model = OpenAIChatModel("demo", provider=OpenAIProvider(base_url=f"{sys.argv[1]}/v1", api_key="none"))
found = {}


class Person(BaseModel):
    name: str = Field(min_length=1, max_length=8)
    age: int = Field(ge=0, le=120)
    born: date
    code: str = Field(pattern=r"^[A-Z]{2}[0-9]{3}$")


SETTINGS = {"max_tokens": 300}
found["output"] = (
    Agent(model, output_type=Person, model_settings=SETTINGS).run_sync("你好").output.model_dump(mode="json")
)


class Short(BaseModel):
    city: str = Field(max_length=8)


agent = Agent(model, output_type=NativeOutput(Short), model_settings=SETTINGS)


@agent.tool_plain
def get_weather(city: str) -> str:
    """查询城市的天气

    Args:
        city: 城市
    """
    return "晴，20度"


result = agent.run_sync("你好")
found["native"] = result.output.model_dump()

talk = Agent(model, model_settings=SETTINGS)
talk.tool_plain(get_weather)
ran = talk.run_sync("北京的天气怎么样？")
found["tool_loop"] = ran.output
found["called"] = [
    part.tool_name for message in ran.all_messages() for part in message.parts if part.part_kind == "tool-call"
]
print(json.dumps(found, ensure_ascii=False))
