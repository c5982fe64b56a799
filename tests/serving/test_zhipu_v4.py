"""ZhipuAI's v4: what goes over the wire, and what is refused with which code."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from chatglm.chat.messages import Message, messages_from_pairs
from chatglm.chat.personas import Persona
from chatglm.errors import NumericalError
from chatglm.serving.failures import (
    AuthenticationError,
    ForbiddenError,
    OverloadedError,
    RateLimitError,
    ShuttingDownError,
    failure_of,
)
from chatglm.serving.zhipu.codes import refusal_of
from scripted import Writer
from waiting import until

BASE = "/api/paas/v4"
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ASK: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "你好"}]}
JSON = {"content-type": "application/json"}
META = {"bot_name": "苏梦远", "bot_info": "歌手", "user_name": "陆星辰", "user_info": "音乐人"}

Over = Callable[..., tuple[str, Any]]


def post(url: str, body: Any = ASK, route: str = "/chat/completions") -> httpx.Response:
    return httpx.post(url + BASE + route, json=body, timeout=60)


def chunks(url: str, body: Any) -> list[Any]:
    answer = post(url, {**body, "stream": True})
    assert answer.status_code == 200, answer.text
    *events, last, end = answer.text.split("\n\n")
    assert (last, end) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def test_whole(over: Over, write: Writer) -> None:
    url, engine = over(write.say("你好！"))
    answer = post(url, {**ASK, "request_id": "r-1", "user_id": "u"}).json()
    assert list(answer) == ["id", "request_id", "created", "model", "choices", "usage"]
    assert (answer["request_id"], answer["model"]) == ("r-1", "demo")
    assert answer["choices"] == [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "你好！"}}
    ]
    made, asked = write.counted("你好！"), len(engine.asked[0].ids)
    assert answer["usage"] == {
        "prompt_tokens": asked,
        "completion_tokens": made,
        "total_tokens": asked + made,
        "prompt_tokens_details": {"cached_tokens": 1},
    }
    again = post(url).json()
    assert again["request_id"] == again["id"] != answer["id"]


def test_bytes_of_a_stream(over: Over, write: Writer) -> None:
    url, engine = over(write.say("你好"), pace=100)
    answer = post(url, {**ASK, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    first = json.loads(answer.text.split("\n\n")[0].removeprefix("data: "))
    head = f'data: {{"id":"{first["id"]}","created":{first["created"]},"model":"demo","choices":[{{"index":0,'
    asked, made = len(engine.asked[0].ids), write.counted("你好")
    usage = (
        f'"usage":{{"prompt_tokens":{asked},"completion_tokens":{made},"total_tokens":{asked + made},'
        '"prompt_tokens_details":{"cached_tokens":1}}'
    )
    assert answer.text == (
        f'{head}"delta":{{"role":"assistant","content":"你好"}}}}]}}\n\n'
        f'{head}"finish_reason":"stop","delta":{{"role":"assistant","content":""}}}}],{usage}}}\n\n'
        "data: [DONE]\n\n"
    )


def test_a_stream_is_the_whole(over: Over, write: Writer) -> None:
    url, _ = over(write.say("你好，very much"), write.say("二"))
    found = chunks(url, {**ASK, "n": 2})
    texts = {0: "", 1: ""}
    for chunk in found:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["delta"]["content"]
    assert texts == {0: "你好，very much", 1: "二"}
    assert [("usage" in chunk) for chunk in found] == [False] * (len(found) - 1) + [True]
    assert found[-1]["usage"]["completion_tokens"] == write.counted("你好，very much") + write.counted("二")


def test_calls(over: Over, write: Writer) -> None:
    calls = ("get_weather", {"city": "北京"}), ("get_weather", {"city": "上海"})
    url, _ = over(write.call(*calls, text="我查一下。"))
    body = {**ASK, "tools": [TOOL], "tool_choice": "auto"}
    (choice,) = post(url, body).json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "我查一下。"
    made = choice["message"]["tool_calls"]
    assert [json.loads(call["function"]["arguments"]) for call in made] == [{"city": "北京"}, {"city": "上海"}]

    found = chunks(url, body)
    whole = [
        chunk["choices"][0]["delta"]["tool_calls"] for chunk in found if "tool_calls" in chunk["choices"][0]["delta"]
    ]
    assert [[(c["index"], c["type"], c["function"]["name"]) for c in one] for one in whole] == [
        [(0, "function", "get_weather")],
        [(1, "function", "get_weather")],
    ]
    assert [json.loads(one[0]["function"]["arguments"]) for one in whole] == [{"city": "北京"}, {"city": "上海"}]
    assert all(one[0]["id"] for one in whole)
    assert found[-1]["choices"][0]["finish_reason"] == "tool_calls"

    pieces: dict[int, str] = {}
    streamed = chunks(url, {**body, "tool_stream": True})
    assert len(streamed) > len(found)
    for chunk in streamed:
        for piece in chunk["choices"][0]["delta"].get("tool_calls", ()):
            pieces[piece["index"]] = pieces.get(piece["index"], "") + piece["function"]["arguments"]
    assert [json.loads(text) for text in pieces.values()] == [{"city": "北京"}, {"city": "上海"}]


def test_options_are_obeyed(over: Over, write: Writer) -> None:
    url, engine = over(write.say("好"))
    options = {"temperature": 0.5, "top_p": 0.7, "max_tokens": 9, "seed": 3, "stop": ["END"]}
    assert post(url, {**ASK, **options, "do_sample": True}).status_code == 200
    params = engine.asked[0].params
    assert (params.temperature, params.top_p, params.max_new_tokens, params.seed, params.stop) == (
        0.5,
        0.7,
        9,
        3,
        ("END",),
    )
    assert post(url, {**ASK, **options, "do_sample": False}).status_code == 200
    assert engine.asked[1].params.temperature == 0


def test_what_changes_nothing_is_taken(over: Over, write: Writer) -> None:
    url, _ = over(write.say("好"))
    nulls = dict.fromkeys(
        ("response_format", "thinking", "meta", "tools", "tool_choice", "stop", "extra", "request_id", "stream"), None
    )
    hints = {
        "user_id": "u",
        "thinking": {"type": "enabled"},
        "sensitive_word_check": {"type": "ALL", "status": "DISABLE"},
        "watermark_enabled": False,
        "reasoning_effort": "none",
        "stream_options": {"include_usage": True},
        "tools": [
            {"type": "web_search", "web_search": {"enable": False, "search_query": "x"}},
            {"type": "retrieval", "retrieval": {"enable": "False", "knowledge_id": "1"}},
        ],
    }
    for more in (nulls, hints, {"request_id": ""}, {"response_format": {"type": "text"}}):
        answer = post(url, {**ASK, **more})
        assert answer.status_code == 200, answer.text
    ignored = post(url, {**ASK, **hints}).headers["x-chatglm-ignored"].split(", ")
    assert {"user_id", "thinking", "sensitive_word_check", "tools.web_search", "tools.retrieval"} <= set(ignored)


def test_refusals(over: Over, write: Writer) -> None:
    url, engine = over(write.say("好"))
    for change, code, words in (
        ({"model": "glm-9"}, "1211", "模型不存在，请检查模型代码。model: 'glm-9' is not served here"),
        ({"messages": None}, "1213", "未正常接收到 messages 参数。messages: required"),
        ({"messages": []}, "1214", "messages 参数非法。请检查文档。messages: must not be empty"),
        ({"temperature": -1}, "1214", "temperature 参数非法"),
        ({"top_q": 1}, "1214", "top_q: unknown field"),
        ({"do_sample": "no"}, "1214", "do_sample: must be true or false"),
        ({"request_id": "x" * 257}, "1214", "request_id: must have at most 256 characters"),
        ({"meta": {"mood": "x"}}, "1214", "meta.mood: unknown field"),
        ({"meta": {"bot_name": "x" * 201}}, "1214", "meta.bot_name: must have at most 200 characters"),
        ({"meta": "x"}, "1214", "meta: must be an object"),
        ({"tools": [{"type": "web_search", "web_search": {"enable": True}}]}, "1214", "tools of type web_search"),
        ({"tools": [{"type": "web_search"}]}, "1214", "tools[0]: tools of type web_search are not supported"),
        ({"tools": [TOOL, {"type": "retrieval", "retrieval": {}}]}, "1214", "tools[1]: tools of"),
        ({"tools": [{"type": "mcp"}]}, "1214", "tools of type 'mcp' are not supported"),
        ({"tool_choice": "required"}, "1214", "tool_choice: a call is required"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "1214", "images are not supported"),
        ({"messages": [{"role": "user", "content": "word " * 900}]}, "1261", "Prompt 超长。This model's maximum"),
        (
            {"response_format": {"type": "json_object"}, "guided_regex": "a"},
            "1215",
            "guided_regex 与 response_format 不能同时设置",
        ),
    ):  # fmt: skip
        for stream in (False, True):
            answer = post(url, {**ASK, "stream": stream, **change})
            assert answer.status_code == 400
            assert answer.json().keys() == {"error"}
            assert answer.json()["error"]["code"] == code
            assert words in answer.json()["error"]["message"]
    assert engine.asked == []


def test_other_failures(over: Over, write: Writer) -> None:
    url, _ = over(write.say("好"), room=0)
    full = post(url)
    assert (full.status_code, full.json()["error"]["code"]) == (429, "1302")
    assert full.headers["retry-after"]
    for answer, status, code in (
        (httpx.post(url + BASE + "/chat/completions", content=b"{", headers=JSON, timeout=60), 400, "1210"),
        (httpx.post(url + BASE + "/images/generations", json={}, timeout=60), 404, "1222"),
        (httpx.get(url + BASE + "/chat/completions", timeout=60), 405, "1212"),
    ):  # fmt: skip
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (AuthenticationError("x", "missing_api_key"), 401, 1001),
        (AuthenticationError("x", "expired_api_key"), 401, 1003),
        (AuthenticationError("x", "invalid_api_key"), 401, 1004),
        (AuthenticationError("x", "another"), 401, 1000),
        (ForbiddenError("x"), 403, 1220),
        (RateLimitError("x", 1), 429, 1303),
        (RateLimitError("x", 1, "concurrency_limit"), 429, 1302),
        (OverloadedError(), 503, 1305),
        (ShuttingDownError(), 503, 1305),
        (RuntimeError("x"), 500, 500),
    ],
)
def test_numbers(error: Exception, status: int, code: int) -> None:
    refusal = refusal_of(failure_of(error))
    assert (refusal.status, refusal.code) == (status, code)


def test_an_error_within_a_stream(over: Over, write: Writer) -> None:
    step = 0

    def fail() -> None:
        nonlocal step
        step += 1
        if step == 5:
            raise NumericalError("row 0 has NaN")

    url, _ = over(write.say("one two three four five six seven"), watch=fail)
    *events, last, end = post(url, {**ASK, "stream": True}).text.split("\n\n")
    assert events
    assert end == ""
    error = json.loads(last.removeprefix("data: "))["error"]
    assert error["code"] == "500"
    assert error["message"].startswith("内部错误。")


def test_meta(over: Over, write: Writer) -> None:
    url, engine = over(write.say("好"))
    assert post(url, {**ASK, "meta": META}).status_code == 200
    form = write.form.with_persona(Persona(**META))
    assert engine.asked[0].ids == form.prompt([Message("user", "你好")])
    assert post(url, {**ASK, "meta": {**META, "user_name": None, "user_info": " "}}).status_code == 200
    part = write.form.with_persona(Persona("苏梦远", "歌手"))
    assert engine.asked[1].ids == part.prompt([Message("user", "你好")])
    assert post(url, {**ASK, "meta": {}}).status_code == 200
    assert engine.asked[2].ids == write.form.prompt([Message("user", "你好")])


def test_tokenizer(over: Over, write: Writer) -> None:
    url, engine = over(write.say("好"))
    for more in ({}, {"tools": [TOOL]}, {"meta": META}):
        counted = post(url, {**ASK, **more, "request_id": "r"}, "/tokenizer").json()
        assert counted["request_id"] == "r"
        assert counted["usage"]["prompt_tokens"] == post(url, {**ASK, **more}).json()["usage"]["prompt_tokens"]
    assert len(engine.asked) == 3
    refused = post(url, {"model": "demo"}, "/tokenizer")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "1213")


def test_a_dialogue_with_tool_results(over: Over, write: Writer) -> None:
    """ChatZhipuAI leaves the call out of the assistant's message, and sends the result with nulls."""
    url, engine = over(write.say("好"))
    messages = [
        {"role": "user", "content": "天气"},
        {"role": "assistant", "content": ""},
        {"role": "tool", "content": "晴", "tool_call_id": "c", "name": None},
    ]
    assert post(url, {**ASK, "messages": messages}).status_code == 200
    said = [*messages_from_pairs([], "天气"), Message("assistant", ""), Message("observation", "晴", tool_call_id="c")]
    assert engine.asked[0].ids == write.form.prompt(said)


def result_of(url: str, task: str) -> Any:
    def look() -> Any:
        found = httpx.get(f"{url}{BASE}/async-result/{task}").json()
        return found if found["task_status"] != "PROCESSING" else None

    return until(look, pause=0.05)


def test_answers_that_come_later(over: Over, write: Writer) -> None:
    url, engine = over(write.say("好的"), write.call(("get_weather", {"city": "北京"})))
    options = {"user_id": "u", "stream": True, "tools": [{"type": "web_search", "web_search": {"enable": False}}]}
    begun = post(url, {**ASK, **options, "request_id": "r-1"}, "/async/chat/completions")
    assert "stream" in begun.headers["x-chatglm-ignored"].split(", ")
    task = begun.json().pop("id")
    assert begun.json() == {"id": task, "request_id": "r-1", "model": "demo", "task_status": "PROCESSING"}
    found = result_of(url, task)
    assert found.pop("usage")["completion_tokens"] == write.counted("好的")
    assert found.pop("created")
    message = {"role": "assistant", "content": "好的"}
    assert found == {
        "id": task,
        "request_id": "r-1",
        "model": "demo",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "task_status": "SUCCESS",
    }
    assert result_of(url, task)["choices"][0]["message"] == message
    assert len(engine.asked) == 1

    second = post(url, {**ASK, "tools": [TOOL], "meta": META}, "/async/chat/completions").json()
    found = result_of(url, second["id"])
    assert found["request_id"] == second["request_id"]
    assert found["choices"][0]["finish_reason"] == "tool_calls"
    form = write.form.with_persona(Persona(**META))
    assert engine.asked[1].ids == form.prompt([Message("user", "你好")], [TOOL])


def test_answers_that_never_come(over: Over, write: Writer) -> None:
    url, _ = over(write.say("好"))
    long = {**ASK, "messages": [{"role": "user", "content": "word " * 900}]}
    found = result_of(url, post(url, long, "/async/chat/completions").json()["id"])
    assert found["task_status"] == "FAIL"
    assert found["error"]["code"] == "1261"
    none = post(url, {"model": "embedding-3", "input": "x"}, "/embeddings")  # this server has none
    assert (none.status_code, none.json()["error"]["code"]) == (400, "1211")
    for change, code in (({"model": "x"}, "1211"), ({"messages": []}, "1214"), ({"tool_choice": "f"}, "1214")):
        refused = post(url, {**ASK, **change}, "/async/chat/completions")
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, code)
    gone = httpx.get(url + BASE + "/async-result/none")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "1222")


def test_batches(over: Over, write: Writer) -> None:
    url, engine = over(write.say("好的"))
    where = "/v4/chat/completions"
    lines = [{"custom_id": f"c{n}", "method": "POST", "url": where, "body": {**ASK, "meta": META}} for n in range(3)]
    lines[1]["body"] = {**ASK, "messages": []}
    content = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode()
    file = httpx.post(url + BASE + "/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", content)}).json()
    assert (file["bytes"], file["filename"], file["purpose"]) == (len(content), "a.jsonl", "batch")
    assert [
        one["id"] for one in httpx.get(url + BASE + "/files", params={"purpose": "batch", "limit": 1}).json()["data"]
    ] == [file["id"]]
    begun = post(url, {"input_file_id": file["id"], "endpoint": where, "auto_delete_input_file": True}, "/batches")
    assert begun.headers["x-chatglm-ignored"] == "auto_delete_input_file"
    batch = begun.json()
    assert (batch["object"], batch["endpoint"], batch["completion_window"]) == ("batch", where, "24h")

    def look() -> Any:
        found = httpx.get(f"{url}{BASE}/batches/{batch['id']}").json()
        return found if found["status"] == "completed" else None

    found = until(look, pause=0.05)
    assert found["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
    assert httpx.get(f"{url}{BASE}/batches").json()["data"][0]["id"] == batch["id"]
    answers = [
        json.loads(line) for line in httpx.get(f"{url}{BASE}/files/{found['output_file_id']}/content").text.splitlines()
    ]
    assert {one["custom_id"] for one in answers} == {"c0", "c2"}
    assert all(one["response"]["body"]["choices"][0]["message"]["content"] == "好的" for one in answers)
    (failed,) = httpx.get(f"{url}{BASE}/files/{found['error_file_id']}/content").text.splitlines()
    assert json.loads(failed)["response"]["body"]["error"]["code"] == "1214"
    assert engine.asked[0].ids == write.form.with_persona(Persona(**META)).prompt([Message("user", "你好")])
    assert httpx.delete(f"{url}{BASE}/files/{file['id']}").json()["deleted"] is True
    gone = post(url, {"input_file_id": file["id"], "endpoint": where}, "/batches")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "1222")
    wrong = post(url, {"input_file_id": "x", "endpoint": "/v1/images"}, "/batches")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "1214")


def test_models(over: Over, write: Writer) -> None:
    """OpenAI's client at this base URL asks for them."""
    url, _ = over(write.say("好"))
    (listed,) = httpx.get(f"{url}{BASE}/models").json()["data"]
    assert listed["id"] == "demo"
    assert httpx.get(f"{url}{BASE}/models/demo").json() == listed
    unknown = httpx.get(f"{url}{BASE}/models/x")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (400, "1211")
