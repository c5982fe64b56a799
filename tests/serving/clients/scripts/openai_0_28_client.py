"""openai 0.28 with `functions`, as the scripts of 2023 call it, the official ChatGLM3 demo's client among them."""

from __future__ import annotations

import json
import sys

import openai

openai.api_base = f"{sys.argv[1]}/v1"
openai.api_key = "none"
WEATHER = {
    "name": "get_weather",
    "description": "查询城市的天气",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "城市"}},
        "required": ["city"],
    },
}
found = {}
messages = [{"role": "user", "content": "北京的天气怎么样？"}]
for functions in ([WEATHER], {"get_weather": WEATHER}):
    made = openai.ChatCompletion.create(model="demo", messages=messages, functions=functions)
    choice = made.choices[0]
    found.setdefault("reasons", []).append(choice.finish_reason)
    found.setdefault("calls", []).append(choice.message.get("function_call"))
call = choice.message["function_call"]
messages += [choice.message, {"role": "function", "name": call["name"], "content": '{"weather": "晴"}'}]
found["after"] = (
    openai.ChatCompletion.create(model="demo", messages=messages, functions=[WEATHER]).choices[0].message["content"]
)
stream = openai.ChatCompletion.create(
    model="demo", messages=messages[:1], functions=[WEATHER], function_call={"name": "get_weather"}, stream=True
)
pieces = [chunk.choices[0].delta.get("function_call") for chunk in stream]
found["streamed"] = "".join(piece.get("arguments") or "" for piece in pieces if piece)
print(json.dumps(found, ensure_ascii=False))
