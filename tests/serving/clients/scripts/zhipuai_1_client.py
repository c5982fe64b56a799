"""`zhipuai` 1, as its examples have it: synchronous, asynchronous and streamed; CharacterGLM; what errors look like."""

from __future__ import annotations

import json
import sys
import time

import zhipuai
from zhipuai.model_api.params import ModelParams

zhipuai.model_api_url = f"{sys.argv[1]}/api/paas/v3/model-api"
zhipuai.api_key = sys.argv[2]
found = {}

greedy = {"temperature": 0.01, "top_p": 0.01}
hello = [{"role": "user", "content": "你好"}]
whole = zhipuai.model_api.invoke(model="demo", prompt=hello, request_id="my-request", **greedy)
found["content"] = whole["data"]["choices"][0]["content"]
found["request_id"], found["usage"] = whole["data"]["request_id"], whole["data"]["usage"]
plain = zhipuai.model_api.invoke(model="demo", prompt=hello, return_type="text", **greedy)
found["plain"] = plain["data"]["choices"][0]["content"]
params = ModelParams(model="demo", prompt=hello, temperature=0.01)  # the others are null
found["of_params"] = zhipuai.model_api.invoke(**params.asdict())["success"]


def streamed(**more: object) -> tuple[list[tuple[str, str]], dict[str, object]]:
    response = zhipuai.model_api.sse_invoke(model="demo", **{"prompt": hello, **greedy, **more})
    events, meta = [], {}
    for event in response.events():
        events.append((event.event, event.data))
        if event.meta:
            meta = json.loads(event.meta)
    return events, meta


found["events"], found["meta"] = streamed(incremental=True)
found["texts"], _ = streamed(incremental=False)

task = zhipuai.model_api.async_invoke(model="demo", prompt=hello, **greedy)["data"]
found["status"] = task["task_status"]
for _ in range(600):
    later = zhipuai.model_api.query_async_invoke_result(task["task_id"])
    if later["data"]["task_status"] != "PROCESSING":
        break
    time.sleep(0.1)
found["later"] = later["data"]["choices"][0]["content"]

# CharacterGLM's demo
meta = {
    "user_info": "陆星辰是一个音乐人。",
    "bot_info": "你的爱好是唱歌。",
    "bot_name": "苏梦远",
    "user_name": "陆星辰",
}
asked = [{"role": "user", "content": "你叫什么名字？"}]
played = zhipuai.model_api.invoke(model="demo", meta=meta, prompt=asked, return_type="text", **greedy)
found["played"] = played["data"]["choices"][0]["content"]

found["unknown"] = zhipuai.model_api.invoke(model="chatglm_turbo", prompt=hello)
found["unknown_event"] = [
    (event.event, event.data) for event in zhipuai.model_api.sse_invoke(model="chatglm_turbo", prompt=hello).events()
]
zhipuai.api_key = "nobody.0123456789abcdef"
found["stranger"] = zhipuai.model_api.invoke(model="demo", prompt=hello)
print(json.dumps(found, ensure_ascii=False))
