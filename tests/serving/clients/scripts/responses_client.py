"""LangChain and LiteLLM over the Responses API: text, stream, a tool loop, structured output, a stored dialogue."""

from __future__ import annotations

import json
import sys

import litellm
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

BASE = f"{sys.argv[1]}/v1"
found: dict[str, object] = {}
model = ChatOpenAI(model="demo", base_url=BASE, api_key="none", max_retries=0, max_tokens=200, use_responses_api=True)
hello = [SystemMessage("请简短地回答。"), HumanMessage("你好")]
whole = model.invoke(hello)
found["text"] = whole.text
found["streamed"] = "".join(chunk.text for chunk in model.stream(hello))


class get_weather(BaseModel):  # noqa: N801  (LangChain takes the class's name for the tool's)
    """查询城市的天气"""

    city: str = Field(description="城市", max_length=8)


question = [HumanMessage("北京的天气怎么样？")]
bound = model.bind_tools([get_weather])
asked = bound.invoke(question)
(call,) = asked.tool_calls
found["called"] = call["args"]
found["after_tool"] = bound.invoke([*question, asked, ToolMessage("晴，20度", tool_call_id=call["id"])]).text
found["forced"] = model.with_structured_output(get_weather).invoke(question).city
chained = model.bind(previous_response_id=asked.response_metadata["id"], tools=bound.kwargs["tools"])
found["chained"] = chained.invoke([ToolMessage("晴，20度", tool_call_id=call["id"])]).text

common = {"model": "openai/demo", "api_base": BASE, "api_key": "none"}
first = litellm.responses(input="你好", **common)
found["litellm"] = first.output[0].content[0].text
events = litellm.responses(input="你好", stream=True, **common)
found["litellm_streamed"] = "".join(event.delta for event in events if event.type == "response.output_text.delta")
print(json.dumps(found, ensure_ascii=False))
