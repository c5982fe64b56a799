"""Anthropic's dialect: what goes over the wire, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from pydantic_core import from_json

from chatglm.assistant import Assistant, RemoteAssistant
from chatglm.errors import NumericalError
from scripted import ScriptedEngine, Writer
from server import serving

WEATHER = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
ASK: dict[str, Any] = {"model": "demo", "max_tokens": 100, "messages": [{"role": "user", "content": "你好"}]}
VERSION = {"anthropic-version": "2023-06-01"}


def post(url: str, body: Any = ASK, route: str = "/v1/messages", **more: Any) -> httpx.Response:
    return httpx.post(url + route, json=body, timeout=60, headers=VERSION, **more)


def events(url: str, body: Any) -> list[Any]:
    """The events of a stream; the name of each is its type."""
    answer = post(url, {**body, "stream": True})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["request-id"].startswith("req_")
    made = []
    for block in answer.text.strip().split("\n\n"):
        name, data = block.split("\n")
        made.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {made[-1]['type']}"
    return made


def put_together(made: list[Any]) -> dict[str, Any]:
    """The message that a client makes of events, as Anthropic's own client does."""
    message: dict[str, Any] = {}
    inputs: dict[int, str] = {}
    for event in made:
        match event["type"]:
            case "message_start":
                message = event["message"]
            case "content_block_start":
                assert event["index"] == len(message["content"])
                message["content"].append(event["content_block"])
            case "content_block_delta":
                block, delta = message["content"][event["index"]], event["delta"]
                if delta["type"] == "text_delta":
                    block["text"] += delta["text"]
                else:
                    inputs[event["index"]] = inputs.get(event["index"], "") + delta["partial_json"]
            case "content_block_stop":
                if event["index"] in inputs:
                    message["content"][event["index"]]["input"] = from_json(inputs[event["index"]], allow_partial=True)
            case "message_delta":
                message |= {**event["delta"], "usage": event["usage"]}
    return message


def comparable(message: Mapping[str, Any]) -> dict[str, Any]:
    """Without what every answer has for itself."""
    content = [{name: value for name, value in block.items() if name != "id"} for block in message["content"]]
    return {**message, "id": "", "content": content}


def prompt(write: Writer, engine: Any) -> str:
    return write.form.tokenizer.to_text(engine.asked[-1].ids)


def test_message(over: Any, write: Writer) -> None:
    url, engine = over(write.say("你好！"))
    answer = post(url)
    assert answer.headers["request-id"].startswith("req_")
    message = answer.json()
    assert message.pop("id").startswith("msg_")
    assert message == {
        "type": "message",
        "role": "assistant",
        "model": "demo",
        "content": [{"type": "text", "text": "你好！"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": len(engine.asked[0].ids) - 1,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 1,
            "output_tokens": write.counted("你好！"),
        },
    }


def test_every_option_arrives(over: Any, write: Writer) -> None:
    url, engine = over(write.say("好"))
    options = {"temperature": 0.5, "top_p": 0.5, "top_k": 5, "stop_sequences": ["END", "STOP"], "max_tokens": 7}
    hints = {
        "metadata": {"user_id": "me"}, "service_tier": "auto", "betas": ["x"], "cache_control": {"type": "ephemeral"},
        "thinking": {"type": "enabled", "budget_tokens": 1024}, "inference_geo": None, "mcp_servers": [],
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"},
    }  # fmt: skip
    answer = post(url, ASK | options | hints)
    assert answer.status_code == 200, answer.text
    expected = {"temperature": 0.5, "top_p": 0.5, "top_k": 5, "stop": ["END", "STOP"], "max_new_tokens": 7}
    assert engine.asked[0].params.to_dict() == expected
    ignored = set(answer.headers["X-Chatglm-Ignored"].split(", "))
    assert ignored >= {"metadata", "service_tier", "betas", "thinking", "output_config.effort", "context_management"}


def test_events(over: Any, write: Writer) -> None:
    url, engine = over(write.say("one two"))
    made = events(url, ASK)
    assert [event["type"] for event in made[:3]] == ["message_start", "ping", "content_block_start"]
    assert [event["type"] for event in made[-3:]] == ["content_block_stop", "message_delta", "message_stop"]
    start = made[0]["message"]
    assert start["content"] == []
    assert start["stop_reason"] is None
    assert start["usage"]["input_tokens"] == len(engine.asked[0].ids) - 1  # known before the first word
    assert start["usage"]["cache_read_input_tokens"] == 1
    assert len([event for event in made if event["type"] == "content_block_delta"]) > 1
    assert made[-2]["usage"]["output_tokens"] == write.counted("one two")


def test_a_stream_is_what_the_whole_is(over: Any, write: Writer) -> None:
    replies = [
        write.say("你好，very much"),
        write.say("never STOP here"),
        write.say("three words"),
        write.call(("get_weather", {"city": "北京"}), ("get_weather", {"city": "上海"})),
        write.call(("get_weather", {"city": "北京"}), text="Let me see."),
        [write.end],
    ]
    bodies = [
        ASK, ASK | {"stop_sequences": ["x", "STOP"]}, ASK | {"max_tokens": 1}, ASK | {"tools": [WEATHER]},
        ASK | {"tools": [WEATHER]}, ASK,
    ]  # fmt: skip
    url, _ = over(*[reply for reply in replies for _ in range(2)])
    found = []
    for body in bodies:
        whole = post(url, body).json()
        assert comparable(put_together(events(url, body))) == comparable(whole)
        found.append((whole["stop_reason"], whole["stop_sequence"], [block["type"] for block in whole["content"]]))
    assert found == [
        ("end_turn", None, ["text"]),
        ("stop_sequence", "STOP", ["text"]),
        ("max_tokens", None, ["text"]),
        ("tool_use", None, ["tool_use", "tool_use"]),
        ("tool_use", None, ["text", "tool_use"]),
        ("end_turn", None, []),
    ]


def test_batched_is_alone(demo: str) -> None:
    """Many at once get what each gets alone, streamed or not."""
    bodies = [
        ASK | {"temperature": 0, "max_tokens": 30, "messages": [{"role": "user", "content": text}]}
        for text in ("你好", "Hello!", "给我讲一个故事。")
    ]
    alone = [comparable(post(demo, body).json())["content"] for body in bodies]
    with ThreadPoolExecutor(6) as pool:
        whole = pool.map(lambda body: comparable(post(demo, body).json())["content"], bodies)
        streamed = pool.map(lambda body: comparable(put_together(events(demo, body)))["content"], bodies)
        assert list(whole) == list(streamed) == alone


def test_system_blocks_and_consecutive_messages(over: Any, write: Writer) -> None:
    url, engine = over(write.say("fine"))
    parts = [{"type": "text", "text": "one", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "two"}]
    answer = post(url, ASK | {"system": parts, "messages": [
        {"role": "user", "content": "A"}, {"role": "user", "content": parts},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hmm", "signature": "x"}, {"type": "redacted_thinking", "data": "y"},
            {"type": "text", "text": "B"},
        ]},
        {"role": "user", "content": "C"},
    ]})  # fmt: skip
    assert answer.status_code == 200, answer.text
    text = prompt(write, engine)
    assert "hmm" not in text
    assert "messages.content.thinking" in answer.headers["X-Chatglm-Ignored"]
    same = {"role": "system", "content": "one\ntwo"}, {"role": "user", "content": "A\none\ntwo"}
    more = {"role": "assistant", "content": "B"}, {"role": "user", "content": "C"}
    httpx.post(f"{url}/v1/chat/completions", json={"messages": [*same, *more]}).raise_for_status()
    assert prompt(write, engine) == text


def test_the_loop_of_tools(over: Any, write: Writer) -> None:
    """The model's own message and the results come back as the same prompt that OpenAI's dialect makes of them."""
    url, engine = over(write.call(("get_weather", {"city": "北京"}), text="Let me see."), write.say("晴"))
    asked = post(url, ASK | {"tools": [WEATHER]}).json()
    (call,) = (block for block in asked["content"] if block["type"] == "tool_use")
    assert call["id"].startswith("toolu_")
    assert call["input"] == {"city": "北京"}
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": [{"type": "text", "text": "晴"}]}
    messages = [
        *ASK["messages"],
        asked,
        {"role": "user", "content": [result, {"type": "text", "text": "And?"}]},
    ]
    answer = post(url, ASK | {"tools": [WEATHER], "messages": messages})
    assert answer.status_code == 200, answer.text
    mine = prompt(write, engine)
    function = {"name": "get_weather", "parameters": WEATHER["input_schema"]}
    theirs = [
        *ASK["messages"],
        {"role": "assistant", "content": "Let me see.", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "北京"}'}}
        ]},
        {"role": "tool", "tool_call_id": "1", "content": "晴"},
        {"role": "user", "content": "And?"},
    ]  # fmt: skip
    body = {"messages": theirs, "tools": [{"type": "function", "function": function}]}
    httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).raise_for_status()
    assert prompt(write, engine) == mine

    result |= {"is_error": True, "content": "no such city"}
    post(url, ASK | {"tools": [WEATHER], "messages": messages})
    assert "Error: no such city" in prompt(write, engine)


def test_tool_choice(over: Any, write: Writer) -> None:
    """Each is what OpenAI's dialect makes of its own."""
    url, engine = over(write.call(("get_weather", {"city": "北京"}), ("get_weather", {"city": "上海"})))
    tools = [WEATHER, {"name": "now", "input_schema": {"type": "object", "properties": {}}}]
    functions = [
        {"type": "function", "function": {"name": tool["name"], "parameters": tool["input_schema"]}} for tool in tools
    ]
    one = {"type": "function", "function": {"name": "now"}}
    for mine, theirs in (
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "tool", "name": "now"}, one),
        ({"type": "none"}, "none"),
    ):
        answer = post(url, ASK | {"tools": tools, "tool_choice": mine})
        assert answer.status_code == 200, answer.text
        ids, held = engine.asked[-1].ids, engine.asked[-1].constraint is not None
        body = {"messages": ASK["messages"], "tools": functions, "tool_choice": theirs}
        httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).raise_for_status()
        assert (engine.asked[-1].ids, engine.asked[-1].constraint is not None) == (ids, held)
        assert held == (mine["type"] != "none")
    for disabled, calls in ((False, 2), (True, 1)):
        choice = {"type": "auto", "disable_parallel_tool_use": disabled}
        assert len(post(url, ASK | {"tools": tools, "tool_choice": choice}).json()["content"]) == calls


def test_a_call_that_was_cut(over: Any, write: Writer) -> None:
    """Its input is what can be read of it: clients parse it as it comes."""
    ids = write.call(("get_weather", {"city": "Beijing and many more places"}))
    for size in (3, 9, 14):
        url, _ = over(ids)
        whole = post(url, ASK | {"tools": [WEATHER], "max_tokens": size}).json()
        assert whole["stop_reason"] == "max_tokens"
        made = events(url, ASK | {"tools": [WEATHER], "max_tokens": size})
        assert [block["type"] for block in whole["content"]] == [
            event["content_block"]["type"] for event in made if event["type"] == "content_block_start"
        ]
        for block in whole["content"]:
            if block["type"] == "tool_use":
                assert set(block["input"]) <= {"city"}
        pieces = [event["delta"].get("partial_json", "") for event in made if event["type"] == "content_block_delta"]
        for end in range(1, len(pieces) + 1):
            if written := "".join(pieces[:end]):
                assert isinstance(from_json(written, allow_partial=True), dict)


def test_prefill(over: Any, write: Writer) -> None:
    url, engine = over([*write.form.tokenizer.encode_text(" of it"), write.end])
    messages = [*ASK["messages"], {"role": "assistant", "content": [{"type": "text", "text": "All"}]}]
    answer = post(url, ASK | {"messages": messages}).json()
    assert answer["content"][0]["text"].strip() == "of it"
    begun = write.form.tokenizer.encode_text("All")
    assert engine.asked[-1].ids[-len(begun) :] == begun
    assert post(url, ASK | {"messages": messages}, "/v1/messages/count_tokens").status_code == 400  # max_tokens
    body = {"messages": messages}
    counted = post(url, body, "/v1/messages/count_tokens").json()["input_tokens"]
    assert counted == len(engine.asked[-1].ids)


def test_structured_output(demo: str) -> None:
    schema = {"type": "object", "properties": {"sunny": {"type": "boolean"}}, "required": ["sunny"]}
    for body in (
        {"output_config": {"format": {"type": "json_schema", "schema": schema}}},
        {"output_format": {"type": "json_schema", "schema": schema}},
    ):
        answer = post(demo, ASK | body).json()
        assert isinstance(json.loads(answer["content"][0]["text"])["sunny"], bool)
    odd = {"format": {"type": "json_schema", "schema": {"$ref": "#/nowhere"}}}
    assert post(demo, ASK | {"output_config": odd}).json()["error"]["message"].startswith("output_config.format.schema")


def test_count_tokens(over: Any, write: Writer) -> None:
    url, engine = over(write.say("x"))
    for more in ({}, {"system": "s"}, {"tools": [WEATHER]}, {"tools": [WEATHER], "tool_choice": {"type": "any"}}):
        body = {"model": "demo", "messages": ASK["messages"], **more}
        counted = post(url, body, "/v1/messages/count_tokens")
        assert counted.status_code == 200, counted.text
        usage = post(url, body | {"max_tokens": 2}).json()["usage"]
        assert counted.json() == {"input_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"]}
        assert counted.json() == {"input_tokens": len(engine.asked[-1].ids)}


def test_models(over: Any, write: Writer) -> None:
    """OpenAI's list, unless the request says that it is Anthropic's."""
    url, _ = over(write.say("x"))
    assert httpx.get(f"{url}/v1/models").json()["object"] == "list"
    for path, headers in (("/v1/models", VERSION), ("/anthropic/v1/models", {})):
        found = httpx.get(url + path, headers=headers).json()
        assert [model["id"] for model in found["data"]] == ["demo"]
        assert (found["first_id"], found["last_id"], found["has_more"]) == ("demo", "demo", False)
        assert httpx.get(f"{url}{path}/demo", headers=headers).json()["type"] == "model"
        refused = httpx.get(f"{url}{path}/none", headers=headers)
        assert (refused.status_code, refused.json()["error"]["type"]) == (404, "not_found_error")
    assert httpx.get(f"{url}/v1/models?limit=0", headers=VERSION).json()["error"]["type"] == "invalid_request_error"
    assert httpx.get(f"{url}/v1/models?after_id=x", headers=VERSION).status_code == 400
    assert httpx.get(f"{url}/v1/models?after_id=demo", headers=VERSION).json()["data"] == []


def test_pages_of_models(write: Writer) -> None:
    one = Assistant(write.form, ScriptedEngine([write.end]))  # type: ignore[arg-type]
    with one, serving(dict.fromkeys("abcde", one)) as url:

        def page(query: str) -> tuple[str, bool]:
            found = httpx.get(f"{url}/v1/models?{query}", headers=VERSION).json()
            return "".join(model["id"] for model in found["data"]), found["has_more"]

        assert page("") == ("abcde", False)
        assert page("limit=2") == ("ab", True)
        assert page("limit=2&after_id=b") == ("cd", True)
        assert page("limit=2&after_id=d") == ("e", False)
        assert page("limit=2&before_id=d") == ("bc", True)


def test_both_base_urls(over: Any, write: Writer) -> None:
    url, _ = over(write.say("x"))
    for base in ("", "/anthropic", "/v1", "/anthropic/"):
        for query in ("", "?beta=true"):
            assert post(url, ASK, f"{base}/v1/messages{query}").status_code == 200
        assert post(url, {"messages": ASK["messages"]}, f"{base}/v1/messages/count_tokens").status_code == 200


def said(*blocks: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": list(blocks)}]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_tokens": None}, "max_tokens: required"),
        ({"max_tokens": 0}, "max_tokens: must be at least 1"),
        ({"messages": []}, "messages: must not be empty"),
        ({"n": 2}, "n: unknown field"),
        ({"stop": "x"}, "stop: unknown field"),
        ({"stop_sequences": [""]}, "stop_sequences[0]: must not be empty"),
        (said({"type": "image", "source": {}}), "messages[0].content[0]: images are not supported"),
        (said({"type": "document", "source": {}}), "messages[0].content[0]: files are not supported"),
        (said({"type": "server_tool_use"}, role="assistant"), "not supported; supported: text, tool_use, thinking"),
        (
            said({"type": "tool_result", "tool_use_id": "x", "content": [{"type": "image"}]}),
            "messages[0].content[0].content[0]: images are not supported",
        ),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role: must be one of: user, assistant"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]: tools of type 'web_search_"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema: required"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools[0].name: may have only letters"),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "x"}},
            "tool_choice: 'x' is not one of the tools",
        ),
        ({"tool_choice": "auto"}, "tool_choice: must be an object"),
        ({"thinking": {"type": "always"}}, "thinking.type: must be one of"),
        ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}, "context_management.edits[0].type"),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers: only [] is supported"),
        ({"container": "x"}, "container: unknown field"),
        ({"thread": {"type": "create"}}, "thread: not supported"),
        ({"messages": [{"role": "assistant", "content": "x "}]}, "must not end with blanks"),
        (
            {
                "messages": [
                    {"role": "user", "content": "x"},
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]},
                ]
            },
            "messages[1]: the last message asks for tools",
        ),
        ({"messages": [{"role": "user", "content": "x" * 3000}]}, "prompt is too long: This model's maximum context"),
    ],
)
def test_refusals(over: Any, write: Writer, change: dict[str, Any], words: str) -> None:
    url, engine = over(write.say("x"))
    answer = post(url, {name: value for name, value in {**ASK, **change}.items() if value is not None})
    assert answer.status_code == 400, answer.text
    body = answer.json()
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert words in body["error"]["message"]
    assert body["request_id"] == answer.headers["request-id"]
    assert not engine.asked


def test_errors_of_the_server(over: Any, write: Writer) -> None:
    url, _ = over(write.say("x"), room=0, retry_after=3)
    full = post(url)
    assert (full.status_code, full.json()["error"]["type"]) == (429, "rate_limit_error")
    assert full.headers["Retry-After"] == "3"
    unknown = post(url, ASK | {"model": "claude"})
    assert (unknown.status_code, unknown.json()["error"]["type"]) == (404, "not_found_error")
    nowhere = post(url, ASK, "/v1/messages/batches")
    assert (nowhere.status_code, nowhere.json()["error"]["type"]) == (404, "not_found_error")
    wrong = httpx.get(f"{url}/v1/messages")
    assert (wrong.status_code, wrong.json()["type"]) == (405, "error")
    bad = httpx.post(f"{url}/v1/messages", content=b"{", headers={"Content-Type": "application/json"})
    assert (bad.status_code, bad.json()["error"]["type"]) == (400, "invalid_request_error")


def test_a_stream_that_fails(over: Any, write: Writer) -> None:
    """Before the first word there is a status; afterwards an event."""
    url, _ = over(NumericalError("the scores are not finite"))
    assert post(url, ASK | {"stream": True}).status_code == 500

    class Failing(list):  # type: ignore[type-arg]
        def __getitem__(self, at: Any) -> Any:
            if isinstance(at, slice) and (at.start or 0) > 3:
                raise NumericalError("the scores are not finite")
            return super().__getitem__(at)

    url, _ = over(Failing(write.say("one two three four five")))
    made = events(url, ASK)
    assert made[0]["type"] == "message_start"
    assert made[-1]["type"] == "error"
    assert made[-1]["error"]["type"] == "api_error"
    assert "not finite" in made[-1]["error"]["message"]


def test_over_an_endpoint(over: Any, write: Writer) -> None:
    """A model elsewhere: everything but a given beginning of the answer."""
    url, _ = over(write.say("never STOP"), write.say("never STOP"), write.call(("get_weather", {"city": "北京"})))
    with RemoteAssistant(f"{url}/v1", "demo") as remote, serving({"demo": remote}) as here:
        whole = post(here, ASK | {"stop_sequences": ["STOP"]}).json()
        assert (whole["stop_reason"], whole["stop_sequence"]) == ("stop_sequence", "STOP")
        made = put_together(events(here, ASK | {"stop_sequences": ["STOP"]}))
        assert comparable(made) == comparable(whole)
        called = put_together(events(here, ASK | {"tools": [WEATHER]}))
        assert called["content"][0]["input"] == {"city": "北京"}
        counted = post(here, {"messages": ASK["messages"]}, "/v1/messages/count_tokens").json()
        usage = whole["usage"]
        assert counted == {"input_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"]}
        begun = [*ASK["messages"], {"role": "assistant", "content": "All"}]
        assert "prefill: " in post(here, ASK | {"messages": begun}).json()["error"]["message"]


def test_what_claude_code_sends(demo: str) -> None:
    """System blocks with cache marks, many tools with large schemas, hints, a history with calls, betas."""
    cached = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    tools = [
        {
            "name": f"mcp__server__tool_{n}",
            "description": "Does one thing.",
            "input_schema": {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "type": "object",
                "properties": {"path": {"type": "string"}, "limit": {"type": "number", "exclusiveMinimum": 0}},
                "required": ["path"],
                "additionalProperties": False,
            },
            **({"eager_input_streaming": True} if n == 0 else {}),
        }
        for n in range(6)
    ]
    tools[-1] |= cached
    body = {
        "model": "demo", "max_tokens": 60, "stream": True, "temperature": 1, "tools": tools,
        "system": [{"type": "text", "text": "You are a tool."}, {"type": "text", "text": "Be brief.", **cached}],
        "metadata": {"user_id": "user_1_account__session_2"},
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "medium"},
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "<system-reminder>\nx\n</system-reminder>"}, {"type": "text", "text": "你好"},
            ]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "", "signature": "abc"},
                {"type": "tool_use", "id": "toolu_1", "name": "mcp__server__tool_1", "input": {"path": "/x"}},
            ]},
            {"role": "user", "content": [
                {"tool_use_id": "toolu_1", "type": "tool_result", "content": "done", "is_error": False},
                {"type": "text", "text": "继续", **cached},
            ]},
        ],
    }  # fmt: skip
    headers = {
        **VERSION,
        "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14",
        "x-api-key": "k",
        "x-app": "cli",
    }
    answer = httpx.post(f"{demo}/v1/messages?beta=true", json=body, headers=headers, timeout=120)
    assert answer.status_code == 200, answer.text
    assert '"type":"message_stop"' in answer.text
