"""LiteLLM: chat, stream, a tool loop as its documentation writes it, and a context that is too long."""

from __future__ import annotations

import json
import sys

import litellm

BASE = {"model": "openai/demo", "api_base": f"{sys.argv[1]}/v1", "api_key": "none", "num_retries": 0}
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
whole = litellm.completion(messages=hello, **BASE)
found["text"] = whole.choices[0].message.content
stream = litellm.completion(messages=hello, stream=True, metadata={"trace": "1"}, user="me", **BASE)
found["streamed"] = "".join(chunk.choices[0].delta.content or "" for chunk in stream)

# The loop of LiteLLM's own documentation: the reply goes back as it came, the result with the tool's name.
messages = [{"role": "user", "content": "北京的天气怎么样？"}]
asked = litellm.completion(messages=messages, tools=[WEATHER], tool_choice="required", **BASE)
reply = asked.choices[0].message
call = reply.tool_calls[0]
found["arguments"] = json.loads(call.function.arguments)
messages += [
    reply,
    {"tool_call_id": call.id, "role": "tool", "name": call.function.name, "content": '{"weather": "晴"}'},
]
found["after_tool"] = litellm.completion(messages=messages, tools=[WEATHER], **BASE).choices[0].message.content

# What an agent with a cached prompt sends.
cached = [{"role": "user", "content": [{"type": "text", "text": "你好", "cache_control": {"type": "ephemeral"}}]}]
found["cached"] = litellm.completion(messages=cached, **BASE).choices[0].message.content

try:
    litellm.completion(messages=[{"role": "user", "content": "很长的话。" * 3000}], **BASE)
    found["too_long"] = "answered"
except litellm.ContextWindowExceededError:
    found["too_long"] = "ContextWindowExceededError"
except Exception as error:
    found["too_long"] = f"{type(error).__name__}: {error}"
print(json.dumps(found, ensure_ascii=False))
