"""Anthropic's own package: a message, a stream, a tool loop, structured output, counting, models, errors, retries."""

from __future__ import annotations

import json
import sys
from typing import Literal

import anthropic
from pydantic import BaseModel

client = anthropic.Anthropic(base_url=sys.argv[1], api_key="none", max_retries=0)
HELLO = [{"role": "user", "content": "你好"}]
WEATHER = {
    "name": "get_weather",
    "description": "查询城市的天气",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "城市"}},
        "required": ["city"],
    },
}
found: dict[str, object] = {}

whole = client.messages.create(model="demo", max_tokens=200, messages=HELLO)
found["text"] = whole.content[0].text
found["reason"] = whole.stop_reason
again = client.messages.create(model="demo", max_tokens=200, messages=HELLO)
found["cached"] = again.usage.cache_read_input_tokens
found["prompt"] = again.usage.input_tokens + again.usage.cache_read_input_tokens
found["counted"] = client.messages.count_tokens(model="demo", messages=HELLO).input_tokens

with client.messages.stream(model="demo", max_tokens=200, messages=HELLO) as stream:
    found["streamed"] = "".join(stream.text_stream)
    final = stream.get_final_message()
found["final"] = final.content[0].text
found["stream_prompt"] = final.usage.input_tokens + final.usage.cache_read_input_tokens
found["same_usage"] = final.usage.output_tokens == again.usage.output_tokens

# The loop of Anthropic's documentation: the reply's content goes back as it came.
messages = [{"role": "user", "content": "北京的天气怎么样？"}]
asked = client.messages.create(model="demo", max_tokens=200, messages=messages, tools=[WEATHER])
call = next(block for block in asked.content if block.type == "tool_use")
found["tool_reason"], found["input"] = asked.stop_reason, call.input
messages += [
    {"role": "assistant", "content": asked.content},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "晴，20度"}]},
]
found["after_tool"] = (
    client.messages.create(model="demo", max_tokens=200, messages=messages, tools=[WEATHER]).content[0].text
)
with client.messages.stream(model="demo", max_tokens=200, messages=messages[:1], tools=[WEATHER]) as stream:
    for event in stream:
        if event.type == "input_json":
            found["snapshot"] = event.snapshot
    found["streamed_input"] = stream.get_final_message().content[-1].input


class Place(BaseModel):
    city: Literal["北京", "上海"]
    sunny: bool


parsed = client.messages.parse(model="demo", max_tokens=200, messages=messages[:1], output_format=Place)
found["parsed"] = parsed.parsed_output.model_dump()


@anthropic.beta_tool
def get_weather(city: str) -> str:
    """查询城市的天气

    Args:
        city: 城市
    """
    return "晴，20度"


runner = client.beta.messages.tool_runner(model="demo", max_tokens=200, tools=[get_weather], messages=messages[:1])
found["runner"] = runner.until_done().content[0].text

found["models"] = [model.id for model in client.models.list()]
found["model"] = client.models.retrieve("demo").display_name
stopped = client.messages.create(model="demo", max_tokens=200, messages=HELLO, stop_sequences=["模型"])
found["stopped"] = [stopped.stop_reason, stopped.stop_sequence]
short = client.messages.create(model="demo", max_tokens=2, messages=HELLO)
found["short"] = short.stop_reason

for name, change in (
    ("BadRequestError", {"messages": []}),
    ("NotFoundError", {"model": "none"}),
    ("RequestTooLargeError", {"messages": [{"role": "user", "content": "x" * (3 << 20)}]}),
):
    try:
        client.messages.create(**{"model": "demo", "max_tokens": 9, "messages": HELLO, **change})
    except anthropic.APIStatusError as error:
        found[name] = [type(error).__name__, error.body["error"]["type"], bool(error.request_id)]
print(json.dumps(found, ensure_ascii=False))
