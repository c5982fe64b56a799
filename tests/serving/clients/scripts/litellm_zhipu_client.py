"""LiteLLM's provider for ZhipuAI (`zai`): chat, stream and a call, through v4."""

from __future__ import annotations

import json
import sys

import litellm

BASE = {"model": "zai/demo", "api_base": f"{sys.argv[1]}/api/paas/v4", "api_key": sys.argv[2], "num_retries": 0}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "查询城市的天气",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
found = {}

hello = [{"role": "user", "content": "你好"}]
found["text"] = litellm.completion(messages=hello, temperature=0, **BASE).choices[0].message.content
stream = litellm.completion(messages=hello, temperature=0, stream=True, stream_options={"include_usage": True}, **BASE)
chunks = list(stream)
found["streamed"] = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
found["usage"] = chunks[-1].usage.total_tokens
asked = [{"role": "user", "content": "北京的天气怎么样？"}]
reply = litellm.completion(messages=asked, tools=[WEATHER], tool_choice="auto", temperature=0, **BASE).choices[0]
found["calls"] = [json.loads(call.function.arguments) for call in reply.message.tool_calls]
try:
    litellm.completion(messages=hello, **{**BASE, "api_key": "nobody.0123456789abcdef"})
except Exception as error:
    found["stranger"] = type(error).__name__
print(json.dumps(found, ensure_ascii=False))
