"""`zhipuai` 2 or `zai-sdk`, whichever is there: chat, stream, tools, role play, tasks, and errors."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

try:
    from zhipuai import ZhipuAI as Client
    from zhipuai.core._errors import APIAuthenticationError, APIRequestFailedError, APIStatusError
except ImportError:
    from zai import ZhipuAiClient as Client
    from zai.core import APIAuthenticationError, APIRequestFailedError, APIStatusError

URL, KEY = f"{sys.argv[1]}/api/paas/v4", sys.argv[2]
client = Client(api_key=KEY, base_url=URL)
found = {}
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

hello = [{"role": "user", "content": "你好"}]
whole = client.chat.completions.create(
    model="demo", messages=hello, temperature=0, request_id="my-request", user_id="u"
)
found["text"], found["request_id"] = whole.choices[0].message.content, whole.request_id
found["usage"] = [whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.total_tokens]
found["reason"] = whole.choices[0].finish_reason

chunks = list(client.chat.completions.create(model="demo", messages=hello, temperature=0, stream=True))
found["streamed"] = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
found["streamed_reason"] = chunks[-1].choices[0].finish_reason
found["streamed_usage"] = [chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens]

# A token instead of the key itself
signed = Client(api_key=KEY, base_url=URL, disable_token_cache=False)
found["signed"] = signed.chat.completions.create(model="demo", messages=hello, temperature=0).choices[0].message.content

# Tools: a loop, and a stream
messages = [{"role": "user", "content": "北京的天气怎么样？"}]
off = {"type": "web_search", "web_search": {"enable": False}}
options = {"model": "demo", "tools": [WEATHER, off], "temperature": 0}
reply = client.chat.completions.create(messages=messages, tool_choice="auto", **options).choices[0]
call = reply.message.tool_calls[0]
found["call"] = [reply.finish_reason, call.function.name, json.loads(call.function.arguments)]
again = [
    *messages,
    reply.message.model_dump(),
    {"role": "tool", "content": '{"weather": "晴"}', "tool_call_id": call.id},
]
found["after_tool"] = client.chat.completions.create(messages=again, **options).choices[0].message.content
parts = [
    piece
    for chunk in client.chat.completions.create(messages=messages, stream=True, **options)
    for piece in chunk.choices[0].delta.tool_calls or ()
]
found["streamed_call"] = [(part.function.name, json.loads(part.function.arguments)) for part in parts]
pieces = client.chat.completions.create(messages=messages, stream=True, extra_body={"tool_stream": True}, **options)
arguments = [piece.function.arguments for chunk in pieces for piece in chunk.choices[0].delta.tool_calls or ()]
found["pieces"] = [len(arguments), json.loads("".join(arguments))]

shaped = client.chat.completions.create(
    model="demo", messages=hello, response_format={"type": "json_object"}, max_tokens=60
)
found["shaped"] = shaped.choices[0].message.content
thinking = client.chat.completions.create(model="demo", messages=hello, thinking={"type": "disabled"}, max_tokens=5)
found["length"] = thinking.choices[0].finish_reason

# CharacterGLM
meta = {
    "user_info": "陆星辰是一个音乐人。",
    "bot_info": "你的爱好是唱歌。",
    "bot_name": "苏梦远",
    "user_name": "陆星辰",
}
asked = [{"role": "user", "content": "你叫什么名字？"}]
played = client.chat.completions.create(model="demo", messages=asked, meta=meta, temperature=0)
found["played"] = played.choices[0].message.content

# Answers that come later
task = client.chat.asyncCompletions.create(model="demo", messages=hello, temperature=0)
found["status"] = task.task_status
for _ in range(600):
    later = client.chat.asyncCompletions.retrieve_completion_result(id=task.id)
    if later.task_status != "PROCESSING":
        break
    time.sleep(0.1)
found["later"] = [later.task_status, later.choices[0].message.content]

vectors = client.embeddings.create(model="embedding-3", input=["你好", "天气怎么样"])
found["embeddings"] = [[one.index, len(one.embedding)] for one in vectors.data]
found["embeddings_usage"] = vectors.usage.total_tokens + vectors.usage.completion_tokens

# A batch
lines = [
    {
        "custom_id": f"c{number}",
        "method": "POST",
        "url": "/v4/chat/completions",
        "body": {"model": "demo", "messages": hello},
    }
    for number in range(2)
]
with tempfile.TemporaryDirectory() as folder:
    place = Path(folder, "batch.jsonl")
    place.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), "utf-8")
    with place.open("rb") as content:
        file = client.files.create(file=content, purpose="batch")
batch = client.batches.create(input_file_id=file.id, endpoint="/v4/chat/completions", completion_window="24h")
for _ in range(600):
    batch = client.batches.retrieve(batch.id)
    if batch.status in ("completed", "failed"):
        break
    time.sleep(0.1)
found["batch"] = [batch.status, batch.request_counts.completed]
answers = client.files.content(batch.output_file_id).content.decode().splitlines()
found["batch_texts"] = [json.loads(line)["response"]["body"]["choices"][0]["message"]["content"] for line in answers]
found["files"] = file.id in [one.id for one in client.files.list(purpose="batch").data]
found["batches"] = batch.id in [one.id for one in client.batches.list(limit=5).data]
found["deleted"] = client.files.delete(file.id).deleted


def error_of(call: object) -> list[str]:
    try:
        call()
    except APIStatusError as error:
        kinds = {APIRequestFailedError: "request", APIAuthenticationError: "authentication"}
        return [kinds.get(type(error), type(error).__name__), error.response.json()["error"]["code"]]
    return ["answered"]


found["unknown"] = error_of(lambda: client.chat.completions.create(model="glm-4", messages=hello))
found["long"] = error_of(
    lambda: client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "很长的话。" * 3000}])
)
on = {"type": "web_search", "web_search": {"enable": True}}
found["search"] = error_of(lambda: client.chat.completions.create(model="demo", messages=hello, tools=[on]))
for name, more in (("stranger", {}), ("stranger_signed", {"disable_token_cache": False})):
    stranger = Client(api_key="nobody.0123456789abcdef", base_url=URL, **more)
    found[name] = error_of(lambda: stranger.chat.completions.create(model="demo", messages=hello))  # noqa: B023
print(json.dumps(found, ensure_ascii=False))
