"""LangChain's ChatAnthropic: a message, a stream, a tool loop, structured output."""

from __future__ import annotations

import json
import sys

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from pydantic import BaseModel, Field

model = ChatAnthropic(model="demo", base_url=sys.argv[1], api_key="none", max_tokens=200, max_retries=0)
found: dict[str, object] = {}
hello = [SystemMessage("请简短地回答。"), HumanMessage("你好")]
whole = model.invoke(hello)
found["text"] = whole.content
found["usage"] = whole.usage_metadata["input_tokens"] > 5
found["streamed"] = "".join(chunk.text for chunk in model.stream(hello))


class get_weather(BaseModel):  # noqa: N801  (LangChain takes the class's name for the tool's)
    """查询城市的天气"""

    city: str = Field(description="城市")


question = [HumanMessage("北京的天气怎么样？")]
bound = model.bind_tools([get_weather])
asked = bound.invoke(question)
(call,) = asked.tool_calls
found["called"] = call["args"]
found["after_tool"] = bound.invoke([*question, asked, ToolMessage("晴，20度", tool_call_id=call["id"])]).text
found["forced"] = model.with_structured_output(get_weather).invoke(question).city
print(json.dumps(found, ensure_ascii=False))
