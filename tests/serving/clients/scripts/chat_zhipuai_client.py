"""LangChain's `ChatZhipuAI`: it signs its tokens itself, and reads the stream with a reader of its own."""

from __future__ import annotations

import asyncio
import json
import sys

from langchain_community.chat_models import ChatZhipuAI
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool

model = ChatZhipuAI(
    model="demo", api_key=sys.argv[2], api_base=f"{sys.argv[1]}/api/paas/v4/chat/completions", temperature=0.01
)
found = {}


@tool
def get_weather(city: str) -> str:
    """查询城市的天气"""
    return json.dumps({"weather": "晴"}, ensure_ascii=False)


whole = model.invoke("你好")
found["text"], found["reason"] = whole.content, whole.response_metadata["finish_reason"]
found["usage"] = whole.response_metadata["token_usage"]["total_tokens"]
chunks = list(model.stream("你好"))
found["streamed"] = "".join(chunk.content for chunk in chunks)
found["awaited"] = asyncio.run(model.ainvoke("你好")).content

asked = HumanMessage("北京的天气怎么样？")
bound = model.bind_tools([get_weather])
reply = bound.invoke([asked])
found["calls"] = [(call["name"], call["args"]) for call in reply.tool_calls]
result = ToolMessage(get_weather.invoke(reply.tool_calls[0]["args"]), tool_call_id=reply.tool_calls[0]["id"])
after = bound.invoke([asked, reply, result])
found["after_tool"] = after.content or [call["name"] for call in after.tool_calls]

whole_stream = None
for chunk in bound.stream([asked]):
    whole_stream = chunk if whole_stream is None else whole_stream + chunk
found["streamed_calls"] = whole_stream.additional_kwargs["tool_calls"]
print(json.dumps(found, ensure_ascii=False))
