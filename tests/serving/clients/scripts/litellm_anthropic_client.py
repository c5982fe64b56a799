"""LiteLLM over Anthropic's interface: chat, stream, a tool loop, and a context that is too long."""

from __future__ import annotations

import json
import sys

import litellm

BASE = {"model": "anthropic/demo", "api_base": sys.argv[1], "api_key": "none", "num_retries": 0, "max_tokens": 200}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "查询城市的天气",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "城市"}},
            "required": ["city"],
        },
    },
}
found = {}

hello = [{"role": "user", "content": "你好"}]
found["text"] = litellm.completion(messages=hello, **BASE).choices[0].message.content
stream = litellm.completion(messages=hello, stream=True, **BASE)
found["streamed"] = "".join(chunk.choices[0].delta.content or "" for chunk in stream)

messages = [{"role": "user", "content": "北京的天气怎么样？"}]
asked = litellm.completion(messages=messages, tools=[WEATHER], tool_choice="required", **BASE)
reply = asked.choices[0].message
call = reply.tool_calls[0]
found["arguments"] = json.loads(call.function.arguments)
messages += [reply, {"tool_call_id": call.id, "role": "tool", "name": call.function.name, "content": "晴"}]
found["after_tool"] = litellm.completion(messages=messages, tools=[WEATHER], **BASE).choices[0].message.content

try:
    litellm.completion(messages=[{"role": "user", "content": "很长" * 3000}], **BASE)
except litellm.exceptions.APIError as error:
    found["too_long"] = type(error).__name__
except litellm.exceptions.BadRequestError as error:
    found["too_long"] = type(error).__name__
print(json.dumps(found, ensure_ascii=False))
