"""OpenAI's dialect: what goes over the wire, and what is refused."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from chatglm.assistant import Assistant, Delta, RemoteAssistant, TextDelta
from chatglm.errors import NumericalError, QueueFullError
from chatglm.loading import AutoTokenizer, demo_folder
from scripted import ScriptedEngine, Writer
from server import serving
from waiting import until

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ASK: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "你好"}]}


def post(url: str, body: Any = ASK, route: str = "/v1/chat/completions", **more: Any) -> httpx.Response:
    return httpx.post(url + route, json=body, timeout=60, **more)


def events(url: str, body: Any, route: str = "/v1/chat/completions") -> list[Any]:
    answer = post(url, {**body, "stream": True}, route)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in answer.text.split("\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line[6:]) for line in lines[:-1]]


def test_chat(over: Any, write: Writer) -> None:
    url, engine = over(write.say("你好！"))
    answer = post(url).json()
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "demo"
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "你好！"},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    asked = engine.asked[0]
    made = write.counted("你好！")
    assert answer["usage"] == {
        "prompt_tokens": len(asked.ids),
        "completion_tokens": made,
        "total_tokens": len(asked.ids) + made,
        "prompt_tokens_details": {"cached_tokens": 1},
    }


def test_every_option_arrives(over: Any, write: Writer) -> None:
    url, engine = over(write.say("好"))
    options = {
        "temperature": 0.5, "top_p": 0.5, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.5, "presence_penalty": 1,
        "frequency_penalty": -1, "logit_bias": {"7": 3}, "seed": 9, "stop": "END", "stop_token_ids": [5], "n": 2,
        "max_completion_tokens": 11, "min_tokens": 1, "logprobs": True, "top_logprobs": 3, "user": "me", "store": False,
        "service_tier": "auto", "modalities": ["text"], "audio": None,
    }  # fmt: skip
    assert post(url, ASK | options).status_code == 200
    expected = {
        "temperature": 0.5, "top_p": 0.5, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.5, "presence_penalty": 1,
        "frequency_penalty": -1, "logit_bias": {7: 3}, "seed": 9, "stop": ["END"], "stop_ids": [5], "n": 2,
        "max_new_tokens": 11, "min_new_tokens": 1, "logprobs": 3,
    }  # fmt: skip
    assert engine.asked[0].params.to_dict() == expected


def test_stream(over: Any, write: Writer) -> None:
    url, _ = over(write.say("你好，very much"), write.say("二"))
    chunks = events(url, ASK | {"n": 2, "stream_options": {"include_usage": True}})
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    *others, last = chunks
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == write.counted("你好，very much") + write.counted("二")
    assert all(chunk["usage"] is None for chunk in others)
    texts = {0: "", 1: ""}
    for index in texts:
        mine = [chunk["choices"][0] for chunk in others if chunk["choices"][0]["index"] == index]
        assert mine[0]["delta"] == {"role": "assistant", "content": ""}
        assert [choice["finish_reason"] for choice in mine] == [None] * (len(mine) - 1) + ["stop"]
        texts[index] = "".join(choice["delta"].get("content", "") for choice in mine)
    assert texts == {0: "你好，very much", 1: "二"}
    assert "usage" not in events(url, ASK)[0]


def test_stream_of_calls(over: Any, write: Writer) -> None:
    url, engine = over(write.call(("get_weather", {"city": "北京"}), ("get_weather", {"city": "上海"})))
    chunks = events(url, ASK | {"tools": [TOOL]})
    pieces = [piece for c in chunks for piece in c["choices"][0]["delta"].get("tool_calls", [])]
    heads = [piece for piece in pieces if "id" in piece]
    assert [(head["index"], head["type"], head["function"]["name"]) for head in heads] == [
        (0, "function", "get_weather"),
        (1, "function", "get_weather"),
    ]
    for index, city in enumerate(("北京", "上海")):
        whole = "".join(piece["function"]["arguments"] for piece in pieces if piece["index"] == index)
        assert json.loads(whole) == {"city": city}
        assert len([piece for piece in pieces if piece["index"] == index]) > 2  # they come as they are written
    assert all(head["function"]["arguments"] == "" for head in heads)
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"

    (choice,) = post(url, ASK | {"tools": [TOOL], "parallel_tool_calls": False}).json()["choices"]
    assert choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "get_weather", "arguments": '{"city": "北京"}'}
    # The answer of the client's tool, and the model's own message as it was sent.
    followed = [*ASK["messages"], choice["message"], {"role": "tool", "content": "晴", "tool_call_id": call["id"]}]
    assert post(url, {"model": "demo", "messages": followed, "tools": [TOOL]}).status_code == 200
    assert "晴" in write.form.tokenizer.decode(engine.asked[-1].ids)


def test_logprobs(over: Any, write: Writer) -> None:
    url, _ = over(write.say("你好"))
    entries = post(url, ASK | {"logprobs": True, "top_logprobs": 2}).json()["choices"][0]["logprobs"]["content"]
    assert bytes(b for entry in entries for b in entry["bytes"]).decode().strip() == "你好"
    assert all(entry["logprob"] == -0.5 and len(entry["top_logprobs"]) == 2 for entry in entries)
    streamed = [c["choices"][0]["logprobs"] for c in events(url, ASK | {"logprobs": True})]
    assert [e["token"] for part in streamed if part for e in part["content"]] == [e["token"] for e in entries]


def test_completions(over: Any, write: Writer) -> None:
    tokenizer = write.form.tokenizer
    url, engine = over([*tokenizer.encode_text("two three"), write.end])
    body = {"model": "demo", "prompt": "one"}
    route = "/v1/completions"
    answer = post(url, body | {"logprobs": 1}, route).json()
    assert answer["object"] == "text_completion"
    (choice,) = answer["choices"]
    assert (choice["text"], choice["finish_reason"]) == (" two three", "stop")  # it goes on behind the prompt
    assert len(choice["logprobs"]["tokens"]) == len(choice["logprobs"]["text_offset"])
    for prompt in (["one", "four"], [[5, 6], [7]]):
        choices = post(url, body | {"prompt": prompt, "n": 2}, route).json()["choices"]
        assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
        chunks = events(url, body | {"prompt": prompt, "stream_options": {"include_usage": True}}, route)
        for index in (0, 1):
            mine = [c["choices"][0] for c in chunks if c["choices"] and c["choices"][0]["index"] == index]
            assert "".join(choice["text"] for choice in mine) == " two three"
        assert chunks[-1]["usage"]["completion_tokens"] == 2 * len(engine.replies[0])
    assert engine.asked[-1].ids in ([7], [5, 6])
    assert post(url, body | {"prompt": [5, 6]}, route).status_code == 200
    assert engine.asked[-1].ids == [5, 6]


def streamed(url: str, body: Any) -> list[Any]:
    """The choices of a stream, put together."""
    found: dict[int, Any] = {}
    for chunk in events(url, body, "/v1/completions"):
        for choice in chunk["choices"]:
            whole = found.setdefault(choice["index"], {"index": choice["index"], "text": "", "logprobs": None})
            whole["text"] += choice["text"]
            whole["finish_reason"] = choice["finish_reason"]
            if choice["logprobs"]:
                whole["logprobs"] = whole["logprobs"] or {name: [] for name in choice["logprobs"]}
                for name, values in choice["logprobs"].items():
                    whole["logprobs"][name] += values
    return [found[index] for index in sorted(found)]


def test_echo(demo: str) -> None:
    text, tokenizer = "北京，and so on", AutoTokenizer.from_pretrained(demo_folder())
    ids = tokenizer.build_inputs_with_special_tokens(tokenizer.encode_text(text))
    body = {"model": "demo", "prompt": text, "temperature": 0, "max_tokens": 4}

    def choices(**change: Any) -> list[Any]:
        answer = post(demo, body | change, "/v1/completions").json()
        assert streamed(demo, body | change) == answer["choices"]
        return list(answer["choices"])

    (plain,) = choices()
    (with_prompt,) = choices(echo=True)
    assert with_prompt == {**plain, "text": text + plain["text"]}
    (of_ids,) = choices(echo=True, prompt=ids)
    assert of_ids["text"].strip() == with_prompt["text"]
    assert of_ids["logprobs"] is None

    (scored,) = choices(echo=True, logprobs=2)
    found = scored["logprobs"]
    size = len(ids) + 4
    assert {name: len(values) for name, values in found.items()} == dict.fromkeys(found, size)
    assert found["token_logprobs"][0] is found["top_logprobs"][0] is None
    assert all(value <= 0 for value in found["token_logprobs"][1:])
    assert all(1 <= len(top) <= 2 for top in found["top_logprobs"][1:])
    for token, offset in zip(found["tokens"][3:], found["text_offset"][3:], strict=True):
        assert scored["text"][offset:].startswith(token)
    assert "".join(found["tokens"]).strip() == scored["text"]
    (answer,) = choices(logprobs=2)
    assert answer["logprobs"]["token_logprobs"] == pytest.approx(found["token_logprobs"][len(ids) :], abs=1e-4)

    several = choices(echo=True, logprobs=0, max_tokens=0, prompt=[ids, ids[:5]], n=2)
    assert [len(choice["logprobs"]["tokens"]) for choice in several] == [len(ids), len(ids), 5, 5]
    assert [choice["finish_reason"] for choice in several] == ["length"] * 4
    assert [choice["text"] for choice in choices(echo=True, max_tokens=0, prompt=["x", "y"])] == ["x", "y"]
    (nothing,) = choices(max_tokens=0)
    assert (nothing["text"], nothing["logprobs"]) == ("", None)
    usage = post(demo, body | {"max_tokens": 0}, "/v1/completions").json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (len(ids), 0)


def test_likelihoods_as_evaluations_ask_for_them(demo: str) -> None:
    """Which of several continuations is likeliest, as lm-eval's `local-completions` reads it from token ids: the last
    token is the one that had to be generated, and a continuation is greedy if each token is the likeliest."""
    tokenizer = AutoTokenizer.from_pretrained(demo_folder())
    start = tokenizer.build_inputs_with_special_tokens(tokenizer.encode_text("北京，and so on"))

    def complete(prompts: list[list[int]], **change: Any) -> list[Any]:
        body = {"model": "demo", "prompt": prompts, "temperature": 0, "max_tokens": 1, "seed": 1, **change}
        return list(post(demo, body, "/v1/completions").json()["choices"])

    greedy = start
    for _ in range(3):  # the likeliest continuation, token by token
        (choice,) = complete([greedy], logprobs=1)
        likeliest = choice["logprobs"]["tokens"][0]
        alike = [token for token in range(len(tokenizer)) if tokenizer.token_bytes(token) == likeliest.encode()]
        longer = [[*greedy, token] for token in alike]  # a byte may be a token of two kinds
        scored = complete(longer, logprobs=1, echo=True)
        best = max(scored, key=lambda choice: choice["logprobs"]["token_logprobs"][-2])
        greedy = longer[best["index"]]
    other = [*start, *[7] * 3]
    sums, greedies = [], []
    for choice in complete([greedy, other], logprobs=1, echo=True):
        tokens = choice["logprobs"]["token_logprobs"][len(start) : -1]
        tops = choice["logprobs"]["top_logprobs"][len(start) : -1]
        assert len(tokens) == 3
        sums.append(sum(tokens))
        greedies.append(all(token == max(top.values()) for token, top in zip(tokens, tops, strict=True)))
    assert sums[0] > sums[1]
    assert greedies == [True, False]


def test_models(over: Any, write: Writer) -> None:
    url, _ = over(write.say("好"))
    listed = httpx.get(f"{url}/v1/models").json()
    assert [model["id"] for model in listed["data"]] == ["demo"]
    assert httpx.get(f"{url}/v1/models/demo").json() == listed["data"][0]
    assert httpx.get(f"{url}/v1/models/other").status_code == 404


def test_adapters_are_models(write: Writer) -> None:
    engine = ScriptedEngine(write.say("好"))
    engine.adapters = ("poet",)
    with Assistant(write.form, engine) as assistant, serving({"demo": assistant}) as url:  # type: ignore[arg-type]
        for model, adapter in (("demo", None), ("poet", "poet")):
            assert post(url, ASK | {"model": model}).json()["model"] == model
            assert engine.asked[-1].adapter == adapter


# Refusals


def test_refused_by_name(over: Any, write: Writer) -> None:
    """In a stream and without. (What is refused, and the words for it, is in test_requests.py.)"""
    url, engine = over(write.say("好"))
    for change, param, code in (
        ({"audio": {"voice": "x"}}, "audio", "unsupported"),
        ({"temprature": 1}, "temprature", "unknown_field"),
        ({"temperature": -1}, "temperature", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing"),
        ({"messages": [{"role": "user", "content": "word " * 900}]}, "messages", "context_length_exceeded"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
    ):
        for stream in (False, True):
            answer = post(url, {**ASK, "stream": stream, **change})
            assert answer.status_code == 400
            error = answer.json()["error"]
            assert error.keys() == {"message", "type", "param", "code"}
            assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code), error
            assert param in error["message"]
    assert engine.asked == []


JSON = "application/json"
ASKED = b'"model": "demo", "messages": [{"role": "user", "content": "x"}]'


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"{", JSON),
        (b"", JSON),
        (b"[1]", JSON),
        (b"\xff", JSON),
        (b"[" * 100_000, JSON),
        (b"{" + ASKED + b"}", "text/plain"),
        (b'{"model": "demo", "messages": [{"role": "user", "content": "\\ud800"}]}', JSON),
        (b"{" + ASKED + b', "response_format": {"type": "regex", "pattern": "\\ud800"}}', JSON),
        (
            b"{"
            + ASKED
            + b', "tools": [{"type": "function", "function": {"name": "x", "parameters": {"a": "\\ud800"}}}]}',
            JSON,
        ),
        (b"{" + ASKED + b', "temperature": NaN}', JSON),
        (b"{" + ASKED + b', "seed": 1' + b"0" * 500 + b"}", JSON),
        (b"{" + ASKED + b', "seed": 1' + b"0" * 5000 + b"}", JSON),
    ],
)
def test_bodies_that_are_none(over: Any, write: Writer, content: bytes, kind: str) -> None:
    url, engine = over(write.say("好"))
    for route in ("/v1/chat/completions", "/v1/completions", "/"):
        answer = httpx.post(url + route, content=content, headers={"content-type": kind})
        assert answer.status_code == 400, answer.text
        assert answer.json().keys() == ({"error"} if route != "/" else {"status", "error", "time"})
    assert engine.asked == []


def test_unknown_model_and_route(over: Any, write: Writer) -> None:
    url, _ = over(write.say("好"))
    answer = post(url, ASK | {"model": "gpt-9"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "demo" in answer.json()["error"]["message"]
    answer = post(url, ASK, "/v1/nothing")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    answer = httpx.get(f"{url}/v1/chat/completions")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


# Load


def test_full_queue(over: Any, write: Writer) -> None:
    url, engine = over(write.say("word " * 100), room=1, delay=0.005)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, url)
        until(lambda: bool(engine.running))
        for stream in (False, True):
            answer = post(url, ASK | {"stream": stream})
            assert answer.status_code == 429
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["type"] == "rate_limit_error"
        assert first.result().status_code == 200
    assert post(url).status_code == 200


@pytest.mark.parametrize("stream", [True, False])
def test_several_prompts_are_taken_on_all_or_none(
    over: Any, write: Writer, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """Also where one comes late to the queue, when the others could have said something already."""
    encode = write.form.tokenizer.encode_text

    def encode_text(text: str) -> list[int]:
        time.sleep(0.2 * (text == "late"))
        return encode(text)

    monkeypatch.setattr(write.form.tokenizer, "encode_text", encode_text)
    url, engine = over(write.say("one two"), room=2)
    answer = post(url, {"model": "demo", "prompt": ["a", "b", "late"], "stream": stream}, "/v1/completions")
    assert answer.status_code == 429, answer.text
    assert len(engine.aborted) == 2
    assert engine.idle
    body = {"model": "demo", "prompt": ["a", "late"], "n": 1}
    assert [choice["text"] for choice in post(url, body, "/v1/completions").json()["choices"]] == [" \n one two"] * 2
    metrics = httpx.get(f"{url}/metrics").text
    assert 'chatglm_answers_total{model="demo",reason="stop"} 2.0' in metrics
    assert 'reason="failed"' not in metrics
    assert 'chatglm_time_to_first_token_seconds_count{model="demo"} 2.0' in metrics


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_leaves_frees_its_request(over: Any, write: Writer, stream: bool) -> None:
    url, engine = over(write.say("word " * 400), delay=0.01)
    with httpx.Client() as client:
        if stream:
            with client.stream("POST", f"{url}/v1/chat/completions", json=ASK | {"stream": True}) as answer:
                next(answer.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(f"{url}/v1/chat/completions", json=ASK, timeout=0.5)
    until(lambda: len(engine.aborted) == 1 and engine.idle)
    metrics = httpx.get(f"{url}/metrics").text
    assert 'chatglm_answers_total{model="demo",reason="broken off"} 1.0' in metrics
    assert 'chatglm_answers_running{model="demo"} 0.0' in metrics


def test_client_that_leaves_before_the_first_token(over: Any, write: Writer) -> None:
    url, engine = over(write.say("word"), delay=1)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/v1/chat/completions", json=ASK | {"stream": True}, timeout=0.3)
    until(lambda: len(engine.aborted) == 1)


def test_engine_that_fails(over: Any, write: Writer) -> None:
    broken = threading.Event()

    def watch() -> None:
        if broken.is_set():
            raise NumericalError("scores are not finite")

    url, _ = over(write.say("word " * 400), delay=0.005, watch=watch)
    assert httpx.get(f"{url}/health").json() == {"status": "ok"}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=ASK | {"stream": True}) as answer:
        lines = answer.iter_lines()
        next(lines)
        broken.set()
        last = [line for line in lines if line][-1]
    assert "scores are not finite" in json.loads(last[6:])["error"]["message"]
    assert httpx.get(f"{url}/health").json() == {"status": "ok", "restarts": 1}
    for _ in range(5):  # it fails again and again, until it is not started any more
        answer = post(url)
        assert answer.status_code == 500
        assert answer.json()["error"]["type"] == "server_error"
    health = httpx.get(f"{url}/health")
    assert (health.status_code, health.json()["status"]) == (503, "failed")
    assert "scores are not finite" in health.json()["problem"]


class Faulty(Assistant):
    """Says something, and then fails in a way that nobody thought of."""

    async def astream(self, messages: Any, **options: Any) -> AsyncGenerator[Delta]:
        yield TextDelta("word")
        raise RuntimeError("secret")

    async def astream_texts(self, prompts: Any, **options: Any) -> AsyncGenerator[Delta]:
        yield TextDelta("word")
        raise RuntimeError("secret")


def test_a_fault_within_a_stream_is_its_last_event(write: Writer) -> None:
    with Faulty(write.form, ScriptedEngine(write.say("好"))) as assistant, serving({"demo": assistant}) as url:  # type: ignore[arg-type]
        for body, route in ((ASK, "/v1/chat/completions"), ({"prompt": "x"}, "/v1/completions")):
            *_, last = post(url, {**body, "stream": True}, route).text.strip().split("\n\n")
            error = json.loads(last[6:])["error"]
            assert (error["type"], error["code"]) == ("server_error", "internal")
            assert "secret" not in last
            assert post(url, body, route).status_code == 500


def test_retry_after_is_the_engine_s_estimate(over: Any, write: Writer) -> None:
    url, _ = over(write.say("one"), room=0, retry_after=7.2)
    for path, body in (("/v1/chat/completions", ASK), ("/", {"prompt": "x"})):
        answer = httpx.post(f"{url}{path}", json=body)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "8")
    with RemoteAssistant(f"{url}/v1", "demo") as remote, pytest.raises(QueueFullError) as caught:
        remote.reply("q")
    assert caught.value.retry_after == 8


def test_every_answer_is_counted_once(over: Any, write: Writer) -> None:
    """By how it ended; what was refused is no answer."""
    url, engine = over(write.say("one"), write.say("two " * 300), delay=0.01)
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=ASK | {"stream": True, "n": 2}) as answer:
        for line in answer.iter_lines():
            if '"finish_reason":"stop"' in line:
                break  # the first is whole, the other is left
    until(lambda: not engine.running)
    engine.room = 0
    post(url)
    post(url, ASK | {"messages": [{"role": "user", "content": "word " * 900}]})

    def reasons() -> dict[str, float]:
        text = httpx.get(f"{url}/metrics").text
        found = re.findall(r'chatglm_answers_total{model="demo",reason="(.+)"} (.+)', text)
        return {reason: float(count) for reason, count in found}

    until(lambda: reasons() == {"stop": 1, "broken off": 1})


def test_metrics_add_up(over: Any, write: Writer) -> None:
    url, engine = over(write.say("one two"))
    for _ in range(3):
        post(url)
    post(url, ASK | {"model": "x"})
    text = httpx.get(f"{url}/metrics").text
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if line and line[0] != "#")
    made = len(write.say("one two"))
    assert float(figures['chatglm_completion_tokens_total{model="demo"}']) == 3 * write.counted("one two")
    assert float(figures['chatglm_prompt_tokens_total{model="demo"}']) == sum(len(a.ids) for a in engine.asked)
    assert float(figures['chatglm_time_to_first_token_seconds_count{model="demo"}']) == 3
    assert float(figures['chatglm_answers_total{model="demo",reason="stop"}']) == 3
    assert float(figures['chatglm_engine_generated_tokens_total{model="demo"}']) == 3 * made
    assert float(figures['chatglm_engine_pages_total{model="demo"}']) == 8
    route = 'dialect="openai",route="/v1/chat/completions"'
    assert float(figures[f'chatglm_requests_total{{{route},status="200"}}']) == 3
    assert float(figures[f'chatglm_requests_total{{{route},status="404"}}']) == 1


def test_a_header_says_what_of_a_schema_is_not_enforced(over: Any, write: Writer) -> None:
    url, engine = over([*write.form.tokenizer.encode_text("[]"), write.end])
    inner = {"name": "x", "schema": {"type": "array", "uniqueItems": True, "items": {"type": "boolean"}}}
    for stream in (False, True):
        body = {**ASK, "stream": stream, "response_format": {"type": "json_schema", "json_schema": inner}}
        assert post(url, body).headers["x-chatglm-dropped"] == "response_format: uniqueItems"
    asked = len(engine.asked)
    body["response_format"]["json_schema"] = {**inner, "strict": True}
    refused = post(url, body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported")
    assert "uniqueItems" in refused.json()["error"]["message"]
    assert len(engine.asked) == asked
