"""Does a server stay whole when many clients use and misuse it for a long time?

    python benchmarks/soak.py [--streams 200] [--minutes 10] [--seed 0]

Starts `chatglm serve` with the demo model, two tiny encoders, API keys, limits and a JSON log. So many clients at a
time ask it in all its dialects (OpenAI, Anthropic, ZhipuAI v3 and v4, api.py) for dialogues, tool calls, JSON that
follows a schema, plain completions, stored responses, embeddings, rerank, answers for later and batches, as streams and
whole; some go away in the middle of an answer or before it, some send what is wrong, and some what is meant to hurt
(`tests/hostile.py`). Some of the keys have limits. At the end it must hold that

- nothing failed: every answer is whole, what was wrong got its 4xx, and the only other refusal is 429, for want of room
  or because of a limit of the client's own key; hostile requests got an answer or a refusal of theirs, and the process
  lives;
- no key got more than its limits;
- no memory was lost. The load comes in stints. After each, with nothing under way, the heap in use
  (`chatglm_heap_bytes{state="used"}`) must be flat, and resident memory must not grow in the second half of the run.
  Resident memory is more than the heap: glibc keeps what threads have freed (`chatglm.serving.memory`), and the server
  gives it back after each piece of work and every 20 seconds. Within a stint resident memory must stay within `_ABOVE`
  MB of what it was at the start. What a server keeps for requests that come again, within bounds, is filled before: the
  key/value memory, and compiled grammars, of which the hostile requests have the most;
- every page is back, nothing runs or waits;
- the server's figures, by model, by route and by key, are the clients' (of those that went away, the server alone knows
  how far they got), and its log has a line for each request, no error and no text of users.

Prints a table for people and one JSON line for machines; exits with 1 and says why where something does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import jwt
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from hostile import ALLOWED
from hostile import requests as hostile_requests
from tiny_encoders import make_bare, make_reranker

COMMAND = shutil.which("chatglm", path=str(Path(sys.executable).parent)) or "chatglm"
CHAT, TEXT, LEGACY = "/v1/chat/completions", "/v1/completions", "/"
MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"
EMBEDDINGS, RERANK = "/v1/embeddings", "/v1/rerank"
FILES, BATCHES = "/v1/files", "/v1/batches"
V3, V3_STREAM = (f"/api/paas/v3/model-api/demo/{way}" for way in ("invoke", "sse-invoke"))
V3_LATER = "/api/paas/v3/model-api/demo/async-invoke"
V4, V4_LATER = "/api/paas/v4/chat/completions", "/api/paas/v4/async/chat/completions"
LATER = {V3_LATER: V3, V4_LATER: V4}
"""Where answers for later are asked for, and where the server asks itself for them."""
ROUTES = {
    CHAT: ("openai", CHAT),
    TEXT: ("openai", TEXT),
    LEGACY: ("legacy", LEGACY),
    **{path: ("openai", path) for path in (RESPONSES, EMBEDDINGS, FILES, BATCHES)},
    RERANK: ("rerank", RERANK),
    MESSAGES: ("anthropic", MESSAGES),
    **{path: ("zhipu-v3", path.replace("/demo/", "/{model}/")) for path in (V3, V3_STREAM, V3_LATER)},
    V4: ("zhipu-v4", V4),
    V4_LATER: ("zhipu-v4", V4_LATER),
}
"""Dialect and route, as the figures have them."""
_MODEL_OF_V3 = re.compile(r"(/api/paas/v3/model-api/)[^/]+(/\w+(-\w+)?)")

KEYS: tuple[dict[str, Any], ...] = (
    {"name": "admin", "key": "soak-admin-key", "may": ["metrics"]},
    {"name": "open", "key": "soakopen.without-limits-secretsecretsecretsecrets"},
    {"name": "other", "key": "soakother.without-limits-either-secretsecretsecret"},
    {"name": "slow", "key": "soakslow.requests-are-limited-secretsecretsecrets", "requests_per_minute": 60},
    {"name": "thin", "key": "soakthin.one-at-a-time-or-two-secretsecretsecrets", "concurrency": 2},
    {"name": "short", "key": "soakshort.tokens-are-limited-secretsecretsecretsec", "tokens_per_minute": 20_000},
    {"name": "batches", "key": "soakbatch.for-batches-alone-secretsecretsecretsecr"},
)
SHARES = (0, 60, 25, 5, 5, 5, 0)
"""Clients of each key, in percent."""
LINES = 12
"""Of a batch."""
_STINT = 54.0
"""Seconds of load between two looks at a server that has nothing to do."""
_QUIET = 3.0
_ABOVE = 160.0
_GROWTH = 5.0
"""MB that the heap in use may grow by, and resident memory in the second half of ten minutes."""

WEATHER = {
    "name": "get_weather",
    "description": "查询城市的天气",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
PLACE = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["city", "age"],
    "additionalProperties": False,
}
HOSTILE = [one for one in hostile_requests() if one.model in ("", "demo")]
LAST = "the last response that this key has stored"
MOST_ANSWERS = 2048  # that a hostile request may get
QUESTIONS = ("你好", "你是谁？", "北京的天气怎么样？", "给我讲一个故事。", "1+1等于几？", "Hello!", "写一首诗吧", "🙂")


@dataclass(frozen=True)
class Ask:
    """One request, and what has to come of it.

    Attributes:
        body: JSON, or bytes that are none.
        status: what a wrong one is answered with; None: it is a right one.
        answers: that it asks for.
        hostile: any answer and any refusal will do, and how many answers were begun is not known.
        later: the path under which an answer for later is asked for; its id follows.
        must_call: a tool that there is, whatever the model would say.
    """

    kind: str
    path: str
    body: dict[str, Any] | bytes
    status: int | None = None
    answers: int = 1
    hostile: bool = False
    later: str = ""
    must_call: bool = False


def draw(rng: random.Random) -> Ask:
    """A request of some kind."""
    kinds = ("chat", "dialogue", "many", "tools", "schema", "text", "legacy", "wrong", "flood", "hostile")
    kinds += ("messages", "messages with tools", "v3", "v3 streamed", "v3 later", "v4", "v4 later")
    kinds += ("responses", "embeddings", "rerank")
    (kind,) = rng.choices(kinds, (6, 4, 2, 3, 2, 3, 2, 5, 0.1, 1, 3, 2, 2, 2, 0.5, 3, 0.5, 3, 2, 1))
    body: dict[str, Any] = {"model": "demo", "stream": rng.random() < 0.7, "max_tokens": rng.randrange(4, 48)}
    if body["stream"]:
        body["stream_options"] = {"include_usage": True}
    if rng.random() < 0.3:
        body |= {"temperature": rng.choice((0, 0.7, 1.5)), "top_p": 0.9, "seed": rng.randrange(1000)}
    if rng.random() < 0.2:
        body["stop"] = ["。", "\n"]
    if rng.random() < 0.15:
        body |= {"repetition_penalty": 1.1, "min_tokens": 3}
    said = [{"role": "user", "content": rng.choice(QUESTIONS)}]
    asked: dict[str, Any]
    match kind:
        case "chat":
            if rng.random() < 0.2:
                body |= {"logprobs": True, "top_logprobs": 2}
            return Ask(kind, CHAT, {**body, "messages": said})
        case "dialogue":  # beginnings that come again, and ends that do not
            turns = [{"role": "system", "content": f"你是{rng.choice('甲乙丙丁')}。" + "请认真回答每一个问题。" * 12}]
            for _ in range(rng.randrange(4)):
                turns += [
                    {"role": "user", "content": rng.choice(QUESTIONS)},
                    {"role": "assistant", "content": str(rng.randrange(10**6))},
                ]
            return Ask(kind, CHAT, {**body, "messages": turns + said})
        case "many":
            n = rng.randrange(2, 5)
            return Ask(kind, CHAT, {**body, "messages": said, "n": n, "temperature": 1.0}, answers=n)
        case "tools":
            wrapped = [{"type": "function", "function": WEATHER}]
            choice = rng.choice(("auto", "required", {"type": "function", "function": {"name": "get_weather"}}))
            asked = {**body, "messages": said, "tools": wrapped, "tool_choice": choice}
            return Ask(kind, CHAT, asked, must_call=choice != "auto")
        case "schema":
            shape = {"type": "json_schema", "json_schema": {"name": "place", "schema": PLACE}}
            body.pop("stop", None)
            return Ask(kind, CHAT, {**body, "max_tokens": 64, "messages": said, "response_format": shape})
        case "text":
            prompts = [rng.choice(QUESTIONS) for _ in range(rng.randrange(1, 4))]
            return Ask(kind, TEXT, {**body, "prompt": prompts}, answers=len(prompts))
        case "legacy":
            history = [["你好", "你好！"]] * rng.randrange(2)
            return Ask(kind, LEGACY, {"prompt": said[0]["content"], "history": history, "max_length": 256})
        case "flood":  # more than may wait
            return Ask(kind, TEXT, {**body, "prompt": [f"第{n}题" for n in range(200)]}, answers=200)
        case "hostile":
            one = rng.choice(HOSTILE)
            return Ask(f"hostile: {one.name}", one.path, one.content, answers=MOST_ANSWERS, hostile=True)
        case "messages" | "messages with tools":
            body = {name: body[name] for name in ("model", "stream", "max_tokens")}
            if rng.random() < 0.5:
                body["system"] = "你是" + rng.choice("甲乙丙丁") + "。"
            if kind != "messages":
                body["tools"] = [{**WEATHER, "input_schema": WEATHER["parameters"]}]
                body["tools"][0].pop("parameters")
                body["tool_choice"] = {"type": rng.choice(("auto", "any"))}
            return Ask(kind, MESSAGES, {**body, "messages": said})
        case "responses":
            asked = {"model": "demo", "input": said[0]["content"], "max_output_tokens": body["max_tokens"]}
            asked |= {"stream": body["stream"], "store": rng.random() < 0.5}
            if rng.random() < 0.3:
                asked["previous_response_id"] = LAST
            if rng.random() < 0.3:
                asked["tools"] = [{"type": "function", **WEATHER}]
            return Ask(kind, RESPONSES, asked)
        case "embeddings":
            texts = [rng.choice(QUESTIONS) * rng.randrange(1, 4) for _ in range(rng.randrange(1, 9))]
            return Ask(kind, EMBEDDINGS, {"model": "tiny", "input": texts}, answers=0)
        case "rerank":
            documents = [rng.choice(QUESTIONS) for _ in range(rng.randrange(1, 9))]
            return Ask(kind, RERANK, {"model": "sorter", "query": "天气", "documents": documents}, answers=0)
        case "v3" | "v3 streamed" | "v3 later":
            path = {"v3": V3, "v3 streamed": V3_STREAM, "v3 later": V3_LATER}[kind]
            asked = {"prompt": said, "max_tokens": body["max_tokens"], "return_type": "text"}
            if rng.random() < 0.3:
                names = {"bot_name": "小智", "bot_info": "一个机器人", "user_name": "我", "user_info": "一个人"}
                asked["meta"] = names
            return Ask(kind, path, asked, later="/api/paas/v3/model-api/-/async-invoke/" if "later" in kind else "")
        case "v4" | "v4 later":
            kept = {name: body[name] for name in ("model", "stream", "max_tokens")}
            if rng.random() < 0.3:
                kept["tools"] = [{"type": "function", "function": WEATHER}]
            if kind == "v4 later":
                del kept["stream"]
            later = "/api/paas/v4/async-result/" if kind == "v4 later" else ""
            return Ask(kind, V4_LATER if later else V4, {**kept, "messages": said}, later=later)
    wrong: list[tuple[str, dict[str, Any] | bytes, int]] = [
        (CHAT, b'{"model": "demo", "messages": [', 400),
        (CHAT, b"\xff\xfe", 400),
        (CHAT, b"[]", 400),
        (CHAT, {**body, "messages": "hello"}, 400),
        (CHAT, {**body, "messages": []}, 400),
        (CHAT, {**body, "messages": said, "max_tokens": "many"}, 400),
        (CHAT, {**body, "messages": said, "temperature": -1}, 400),
        (CHAT, {**body, "messages": said, "model": "gpt-9"}, 404),
        (CHAT, {**body, "messages": said, "colour": "red"}, 400),
        (CHAT, {**body, "messages": [{"role": "wizard", "content": "?"}]}, 400),
        (CHAT, {**body, "messages": [{"role": "user", "content": "长" * 4000}]}, 400),
        (CHAT, {**body, "messages": said, "response_format": {"type": "regex", "pattern": "("}}, 400),
        (TEXT, {**body, "prompt": []}, 400),
        (TEXT, {**body, "prompt": [10**9]}, 400),
        (TEXT, {**body, "prompt": "word " * 4000}, 400),
        (LEGACY, {"prompt": 5}, 400),
        (LEGACY, {"prompt": "?", "history": [["one"]]}, 400),
        (MESSAGES, {"model": "demo", "messages": said}, 400),
        (MESSAGES, {"model": "claude-9", "max_tokens": 9, "messages": said}, 404),
        (MESSAGES, {"model": "demo", "max_tokens": 9, "messages": [{"role": "wizard", "content": "?"}]}, 400),
        (V4, {"model": "glm-99", "messages": said}, 404),
        (V4, {"model": "demo", "messages": said, "temperature": "hot"}, 400),
        (V3, {"prompt": 5}, 400),
        (V3_STREAM, {"prompt": []}, 400),
        (V3_LATER, {"prompt": said, "temperature": "hot"}, 400),
        (RESPONSES, {"model": "demo"}, 400),
        (RESPONSES, {"model": "demo", "input": "?", "previous_response_id": "resp_none"}, 400),
        (EMBEDDINGS, {"model": "tiny", "input": []}, 400),
        (EMBEDDINGS, {"model": "none", "input": "?"}, 404),
        (RERANK, {"model": "sorter", "query": "?", "documents": []}, 400),
        (CHAT, b"", 401),
        (MESSAGES, b"", 401),
        (V4, b"", 401),
    ]
    path, content, status = rng.choice(wrong)
    return Ask(kind, path, content, status)


@dataclass
class Counts:
    """What the clients met.

    Attributes:
        statuses: by (route, status), without those that the keys refused; of those that went away before there was
            one, by route.
        refused: by (key, status), what the keys refused.
        looks: of each key, requests for the state of a task.
        keys: requests by (key, whether it had a status), those for answers of earlier requests among them.
        key_tokens: of whole answers, by (key, prompt or completion).
        stored: of each key, the id of a response that the server keeps.
        reasons: of whole answers; how they ended.
        tokens: (prompt, completion) of whole requests, as their usage says.
        left: answers that nobody waited for, at most and at least so many begun.
        failures: what should not have been.
        hostile: requests that were meant to hurt.
        kinds: whole requests of each kind.
        own: by route, requests that the server has made to itself, or may have: answers for later, lines of batches.
    """

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    refused: Counter[tuple[str, int]] = field(default_factory=Counter)
    looks: Counter[str] = field(default_factory=Counter)
    keys: Counter[tuple[str, bool]] = field(default_factory=Counter)
    key_tokens: Counter[tuple[str, str]] = field(default_factory=Counter)
    stored: dict[str, str] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    left: int = 0
    perhaps: int = 0
    chunks: int = 0
    failures: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    hostile: int = 0
    own: Counter[str] = field(default_factory=Counter)
    first: list[float] = field(default_factory=list)


@dataclass
class Said:
    """What an answer says of itself.

    Attributes:
        reasons: how its answers ended; where a dialect does not say that, its name.
        tokens: (prompt, completion).
        error: what failed within a stream.
    """

    reasons: Counter[str] = field(default_factory=Counter)
    tokens: tuple[int, int] = (0, 0)
    error: Any = None

    def take(self, event: dict[str, Any]) -> None:
        """An event, or a whole answer, of OpenAI's shape or ZhipuAI's v4."""
        if "error" in event:
            self.error = event["error"]
            return
        self.reasons.update(c["finish_reason"] for c in event["choices"] if c.get("finish_reason"))
        if usage := event.get("usage"):
            self.tokens = usage["prompt_tokens"], usage["completion_tokens"]

    def take_response(self, event: dict[str, Any]) -> None:
        """An event, or a whole response, of OpenAI's newer interface."""
        if event.get("type") == "error":
            self.error = event
            return
        response = event.get("response", event)
        if response.get("status") == "failed":
            self.error = response["error"]
        elif response.get("status") in ("completed", "incomplete"):
            called = any(item["type"] == "function_call" for item in response["output"])
            whole = response["status"] == "completed"
            self.reasons[("tool_calls" if called else "stop") if whole else "length"] += 1
            self.tokens = response["usage"]["input_tokens"], response["usage"]["output_tokens"]

    def take_message(self, event: dict[str, Any]) -> None:
        """An event, or a whole message, of Anthropic's."""
        if event.get("type") == "error":
            self.error = event["error"]
            return
        message = event.get("message", event)
        told = message.get("usage") or {}
        prompt = told.get("input_tokens", 0) + (told.get("cache_read_input_tokens") or 0)
        self.tokens = max(prompt, self.tokens[0]), told.get("output_tokens", self.tokens[1])
        reason = message.get("stop_reason") or event.get("delta", {}).get("stop_reason")
        if reason:
            known = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
            self.reasons[known[reason]] += 1

    def take_invoke(self, data: dict[str, Any]) -> None:
        """What ZhipuAI's v3 has as `data`, or as `meta` of a stream's last event."""
        if data["task_status"] != "SUCCESS":
            self.error = data
            return
        self.reasons["v3"] += 1
        self.tokens = data["usage"]["prompt_tokens"], data["usage"]["completion_tokens"]


_LAST_EVENTS = ("message_stop", "response.completed", "response.incomplete", "response.failed")


async def events(answer: httpx.Response, path: str, said: Said) -> AsyncIterator[None]:
    """Read a stream: one item an event. Ends with the dialect's end, or raises."""
    name = ""
    async for line in answer.aiter_lines():
        kind, _, data = line.partition(":")
        if kind == "event":
            name = data.strip()
        elif path == V3_STREAM:
            if kind == "data" and name == "add":
                yield
            elif kind == "meta":
                said.take_invoke(json.loads(data))
                return
        elif kind == "data" and data.strip() == "[DONE]":
            return
        elif kind == "data":
            {MESSAGES: said.take_message, RESPONSES: said.take_response}.get(path, said.take)(json.loads(data))
            yield
            if said.error is not None or name in _LAST_EVENTS:
                return
    raise ValueError("the stream broke off")


async def later(
    client: httpx.AsyncClient, ask: Ask, key: str, begun: dict[str, Any], said: Said, counts: Counts
) -> None:
    """Wait for an answer that was asked for later."""
    name = begun["data"]["task_id"] if ask.path == V3_LATER else begun["id"]
    for _ in range(600):
        answer = await client.get(ask.later + name, headers=headers_of(ask.path, key))
        counts.keys[key, True] += 1
        counts.looks[key] += 1
        found = answer.json()
        if ask.path == V3_LATER:
            found = found["data"]
        if found["task_status"] != "PROCESSING":
            break
        await asyncio.sleep(0.5)
    if ask.path == V3_LATER:
        said.take_invoke(found)
    else:
        said.take(found)


def headers_of(path: str, key: str) -> dict[str, str]:
    """A key as the dialect's clients send it. ZhipuAI's sign a token with it."""
    made = {"Content-Type": "application/json"}
    text = next((one["key"] for one in KEYS if one["name"] == key), "no-such-key")
    if path == MESSAGES:
        return {**made, "x-api-key": text, "anthropic-version": "2023-06-01"}
    if path.startswith("/api/paas/") and "." in text:
        name, _, secret = text.partition(".")
        now = round(time.time() * 1000)
        payload = {"api_key": name, "exp": now + 180_000, "timestamp": now}
        text = jwt.encode(payload, secret, headers={"sign_type": "SIGN"})
    return {**made, "Authorization": f"Bearer {text}"}


_STATUSES = {1000: 401, 1001: 401, 1003: 401, 1004: 401, 1211: 404, 1302: 429, 1303: 429}


def status_of(ask: Ask, answer: httpx.Response, body: bytes) -> int:
    """The status that a refusal has in the server's figures. v3 sends 200, and says what is wrong in its body; v4 sends
    400 for an unknown model."""
    if ask.path in (V3, V3_STREAM, V3_LATER, V4, V4_LATER):
        found = re.search(r'"code":"?(\d+)', body.decode())
        if found and int(found[1]) != 200:
            return _STATUSES.get(int(found[1]), answer.status_code if answer.status_code != 200 else 400)
    return answer.status_code


def check_chat(ask: Ask, choice: dict[str, Any]) -> None:
    """What a whole answer has to be like.

    Where a model need not call a tool, it may call one that it has made up, and a client is told so.

    Raises:
        ValueError: it is not.
    """
    reason, message = choice["finish_reason"], choice["message"]
    if ask.kind == "schema" and reason == "stop":
        made = json.loads(message["content"])
        if made.keys() != {"city", "age"}:
            raise ValueError(f"the schema asks for city and age, not {made}")
    calls = message.get("tool_calls") or []
    for number, call in enumerate(calls):
        if ask.must_call and call["function"]["name"] != "get_weather":
            raise ValueError(f"no call of get_weather: {call}")
        # The last call of an answer that max_tokens has cut may have a part of its arguments only.
        whole = reason != "length" or number < len(calls) - 1
        if whole and not isinstance(json.loads(call["function"]["arguments"]), dict):
            raise ValueError(f"no arguments of a call: {call}")


def check_encoded(asked: Any, found: dict[str, Any]) -> None:
    """
    Raises:
        ValueError: there are not as many vectors, or scores, as texts.
    """
    texts, made = (asked["input"], found["data"]) if "input" in asked else (asked["documents"], found["results"])
    if sorted(one["index"] for one in made) != list(range(len(texts))):
        raise ValueError(f"{len(texts)} texts were given: {found}")


def counted(path: str) -> str:
    """Which of `ROUTES` a request is counted with: hostile ones name other models in ZhipuAI's paths."""
    return _MODEL_OF_V3.sub(r"\1demo\2", path)


async def request(client: httpx.AsyncClient, ask: Ask, key: str, leave: int | None, counts: Counts) -> bool:
    """Send it and read what comes; go away after `leave` events (0: at once), if that is not None.

    Returns:
        whether the key had reached a limit.
    """
    key = "none" if ask.status == 401 else key
    body = ask.body
    if isinstance(body, dict) and body.get("previous_response_id") == LAST:
        body = {**body, "previous_response_id": counts.stored.get(key)}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    streaming = isinstance(ask.body, dict) and bool(ask.body.get("stream") or ask.path == V3_STREAM)
    begin = time.monotonic()
    answer, told = None, False
    try:
        sending = client.build_request("POST", ask.path, content=data, headers=headers_of(ask.path, key))
        answer = await client.send(sending, stream=True)
        counts.keys[key, True] += 1
        whole = b"" if streaming and "event-stream" in answer.headers["Content-Type"] else await answer.aread()
        status = answer.status_code
        of_v3 = ask.path in (V3, V3_LATER, V3_STREAM)
        if ask.path == V3_STREAM and ask.status is not None:  # a refusal is one event
            whole = await answer.aread()
        failed = status != 200 or b'"success":false' in whole or (ask.path == V3_STREAM and bool(whole))
        meant = status_of(ask, answer, whole) if failed else status
        if meant in (401, 429) and (meant == 401 or b"API key" in whole):
            counts.refused[key, meant] += 1
            limits = {"slow", "thin", "short"} if meant == 429 else {"none"}
            if key not in limits:
                counts.failures.append(f"{ask.kind}: refused with {meant} for the key {key}: {whole[:200]!r}")
            return meant == 429
        counts.statuses[counted(ask.path), meant] += 1
        told = True
        if ask.hostile:
            counts.perhaps += ask.answers
            if status not in ALLOWED:
                counts.failures.append(f"{ask.kind}: status {status}: {whole[:200]!r}")
            counts.hostile += 1
            if ask.path in LATER:
                counts.own[LATER[ask.path]] += 1
            return False
        if meant != 200:
            if meant == 429 and (of_v3 or answer.headers.get("Retry-After", "").isdigit()):
                counts.perhaps += ask.answers  # of several prompts some may have begun
            elif meant != ask.status:
                counts.failures.append(f"{ask.kind}: status {meant}: {whole[:200]!r}")
            return False
        if ask.status is not None:
            counts.failures.append(f"{ask.path} {data[:100]!r}: status 200, and {ask.status} was due")
        said = Said()
        if streaming:
            n = 0
            async for _ in events(answer, ask.path, said):
                n += 1
                if n == 1:
                    counts.first.append(time.monotonic() - begin)
                if leave is not None and n > leave:
                    counts.left += ask.answers
                    return False
            counts.chunks += n
        elif ask.later:
            counts.own[LATER[ask.path]] += 1
            counts.perhaps += 1  # until its end is known
            await later(client, ask, key, json.loads(whole), said, counts)
            counts.perhaps -= 1
        else:
            found = json.loads(whole)
            if ask.path == LEGACY:
                if found["status"] != 200 or not isinstance(found["response"], str):
                    raise ValueError(f"api.py's dialect: {found}")
                said.reasons["legacy"] += 1
            elif ask.path == MESSAGES:
                said.take_message(found)
            elif ask.path == V3:
                said.take_invoke(found["data"])
            elif ask.path == RESPONSES:
                said.take_response(found)
                if ask.body["store"]:
                    counts.stored[key] = found["id"]
            elif ask.path in (EMBEDDINGS, RERANK):
                check_encoded(ask.body, found)
                said.tokens = found["usage"]["total_tokens"], 0
            else:
                said.take(found)
            if ask.path == CHAT:
                for choice in found["choices"]:
                    check_chat(ask, choice)
        if said.error is not None and ask.path == V3_STREAM and _STATUSES.get(said.error.get("code")) == 429:
            counts.statuses[ask.path, 200] -= 1  # the server's figures have 429, or nothing for what the key refused
            if "API key" not in said.error["msg"]:
                counts.statuses[ask.path, 429] += 1
                counts.perhaps += ask.answers
                return False
            counts.refused[key, 429] += 1
            if key not in {"slow", "thin", "short"}:
                counts.failures.append(f"{ask.kind}: refused for the key {key}: {said.error}")
            return True
        if said.error is not None:
            limited = key == "short" and "API key" in str(said.error)  # answers for later wait for its tokens
            if not limited:
                counts.failures.append(f"{ask.kind}: within the answer: {said.error}")
            counts.perhaps += ask.answers
            return limited
        if said.reasons.total() != ask.answers:
            raise ValueError(f"{ask.answers} answers asked for, {said.reasons} came")
        counts.reasons += said.reasons
        counts.kinds[ask.kind] += 1
        prompt, completion = said.tokens
        counts.prompt_tokens += prompt if ask.answers else 0
        counts.completion_tokens += completion
        counts.key_tokens[key, "prompt"] += prompt
        counts.key_tokens[key, "completion"] += completion
    except asyncio.CancelledError:
        if not told:
            counts.unknown[counted(ask.path)] += 1
            counts.keys[key, False] += answer is None
            counts.perhaps += ask.answers
            if ask.path in LATER:
                counts.own[LATER[ask.path]] += 1
        elif ask.hostile or ask.later:
            counts.perhaps += ask.answers
        else:
            counts.left += ask.answers
        raise
    except (httpx.HTTPError, ValueError, LookupError) as error:
        counts.failures.append(f"{ask.kind}, key {key}: {type(error).__name__}: {error}")
    finally:
        if answer is not None:
            await answer.aclose()
    return False


async def batches_of(url: str, rng: random.Random, until: float, counts: Counts) -> None:
    """One batch after another, by a key of their own: requests in a file, answers in two."""
    headers = {"Authorization": headers_of(FILES, "batches")["Authorization"]}
    async with httpx.AsyncClient(base_url=url, timeout=600, trust_env=False, headers=headers) as client:

        async def ask(method: str, path: str, **what: Any) -> httpx.Response:
            answer = await client.request(method, path, **what)
            counts.keys["batches", True] += 1
            if method == "POST":
                counts.statuses[path, answer.status_code] += 1
            return answer.raise_for_status()

        while time.monotonic() < until:
            wrong = rng.randrange(LINES)
            bodies = [
                {
                    "model": "demo",
                    "messages": [{"role": "user", "content": rng.choice(QUESTIONS)}],
                    "max_tokens": rng.randrange(4, 48),
                    "temperature": -1 if number == wrong else 1,
                }
                for number in range(LINES)
            ]
            lines = [
                json.dumps({"custom_id": f"{number}", "method": "POST", "url": CHAT, "body": body})
                for number, body in enumerate(bodies)
            ]
            try:
                sent = {"file": ("lines.jsonl", "\n".join(lines).encode())}
                file = (await ask("POST", FILES, files=sent, data={"purpose": "batch"})).json()["id"]
                begun = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
                name = (await ask("POST", BATCHES, json=begun)).json()["id"]
                counts.own[CHAT] += LINES
                counts.perhaps += LINES  # until its end is known
                while True:
                    state = (await ask("GET", f"{BATCHES}/{name}")).json()
                    if state["status"] not in ("validating", "in_progress", "finalizing"):
                        break
                    await asyncio.sleep(1)
                found = {"output_file_id": b"", "error_file_id": b""}
                for place in found:
                    found[place] = (await ask("GET", f"{FILES}/{state[place]}/content")).content
                    await ask("DELETE", f"{FILES}/{state[place]}")
                await ask("DELETE", f"{FILES}/{file}")
                check_batch(state, wrong, *found.values(), counts)
                counts.perhaps -= LINES
            except (httpx.HTTPError, ValueError, LookupError) as error:
                counts.failures.append(f"batch: {type(error).__name__}: {error}")


def check_batch(state: dict[str, Any], wrong: int, output: bytes, errors: bytes, counts: Counts) -> None:
    """Every line has been answered once, the wrong one with its refusal; what they took is added to the counts.

    Raises:
        ValueError: that is not so.
    """
    right, refused = ([json.loads(line) for line in content.splitlines()] for content in (output, errors))
    if state["status"] != "completed" or [(one["custom_id"], one["response"]["status_code"]) for one in refused] != [
        (f"{wrong}", 400)
    ]:
        raise ValueError(f"{state}, with the errors {refused}")
    if sorted(int(one["custom_id"]) for one in right) != [number for number in range(LINES) if number != wrong]:
        raise ValueError(f"not every line has one answer: {right}")
    said = Said()
    for one in right:
        said.take(one["response"]["body"])
        for number, kind in enumerate(("prompt", "completion")):
            counts.key_tokens["batches", kind] += said.tokens[number]
        counts.prompt_tokens += said.tokens[0]
        counts.completion_tokens += said.tokens[1]
    counts.reasons += said.reasons
    counts.kinds["batch"] += 1


async def client_of(url: str, key: str, rng: random.Random, until: float, counts: Counts) -> None:
    """One client after another; each asks something, and some lose patience."""
    async with httpx.AsyncClient(base_url=url, timeout=600, verify=False, trust_env=False) as client:
        while time.monotonic() < until:
            ask = draw(rng)
            fate = rng.random()
            leave = rng.randrange(12) if fate < 0.15 and ask.status is None and not ask.later else None
            doing = request(client, ask, key, leave, counts)
            if fate > 0.92 and ask.status is None:
                task = asyncio.ensure_future(doing)
                await asyncio.wait([task], timeout=rng.random() * 2)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            elif await doing:
                await asyncio.sleep(rng.random())


def figures(url: str) -> dict[str, float]:
    """What `/metrics` says: name with labels, and value."""
    text = httpx.get(f"{url}/metrics", timeout=60, trust_env=False, headers=headers_of(LEGACY, "admin")).text
    rows = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


def resident(process: int) -> float:
    """Memory of a process, in MB."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


@contextmanager
def served(folder: Path) -> Iterator[tuple[int, str]]:
    """A server with the demo model: process and address. What it says goes to `log` in the folder."""
    log, keys = folder / "log", folder / "keys.yaml"
    keys.write_text(yaml.safe_dump({"keys": list(KEYS)}), "utf-8")
    tiny, sorter = make_bare(folder / "tiny"), make_reranker(folder / "sorter")
    options = ["--port", "0", "--name", "demo", "--keys", str(keys), "--home", str(folder / "home")]
    options += ["--embedding", f"tiny={tiny}", "--rerank", f"sorter={sorter}"]
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            [COMMAND, "serve", *options, "--quiet", "--log-format", "json"],
            stdout=subprocess.DEVNULL,
            stderr=out,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    try:
        while not (found := re.search(r"running on (http://\S+)", log.read_text("utf-8"))):
            if process.poll() is not None:
                raise RuntimeError(f"the server ended: {log.read_text('utf-8')}")
            time.sleep(0.1)
        yield process.pid, found[1]
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()
        process.wait()


def fill(url: str) -> None:
    """Fill what the server keeps, within bounds, for requests that come again."""
    fill_pages(url)
    asyncio.run(send_hostile(url))


async def send_hostile(url: str) -> None:
    """Every hostile request once: no other ones have as many grammars, which are kept when they are compiled."""
    counts, left = Counts(), [one for one in HOSTILE if one.path not in LATER]

    async def send() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=600, trust_env=False) as client:
            while left:
                one = left.pop()
                ask = Ask(one.name, one.path, one.content, answers=MOST_ANSWERS, hostile=True)
                await request(client, ask, "open", None, counts)

    await asyncio.gather(*(send() for _ in range(8)))
    if counts.failures:
        raise RuntimeError(f"before it began: {counts.failures}")


def fill_pages(url: str) -> None:
    """Touch all of the key/value memory: prompts that have nothing in common, until no page is new."""
    page, total = 64, int(figures(url)['chatglm_engine_pages_total{model="demo"}'])
    with httpx.Client(base_url=url, timeout=600, trust_env=False, headers=headers_of(TEXT, "open")) as client:
        for number in range(-(-total * page // 1900) + 1):
            ids = [100 + (number * 7919 + place * 31) % 4000 for place in range(1900)]
            client.post(TEXT, json={"model": "demo", "prompt": ids, "max_tokens": 1}).raise_for_status()


@dataclass
class Memory:
    """Of the server, in MB: what it has of the system, each second; and after each stint, with nothing under way, what
    of its heap is in use and what it has of the system."""

    resident: list[float] = field(default_factory=list)
    used: list[float] = field(default_factory=list)
    quiet: list[float] = field(default_factory=list)


async def use(url: str, process: int, streams: int, seconds: float, seed: int) -> tuple[Counts, Memory]:
    """Clients for so long; what they met, and the server's memory."""
    counts, memory = Counts(), Memory([resident(process)])
    end = time.monotonic() + seconds

    async def watch() -> None:
        while True:
            await asyncio.sleep(1)
            memory.resident.append(resident(process))
            if sys.stderr.isatty():
                done = counts.kinds.total()
                print(f"\r{end - time.monotonic():5.0f} s left, {done} whole answers", end="", file=sys.stderr)

    watching = asyncio.ensure_future(watch())
    rng = random.Random(seed)
    names = rng.choices([one["name"] for one in KEYS], SHARES, k=streams)
    stints = max(1, round(seconds / _STINT))
    rngs = [random.Random(f"{seed} {n}") for n in range(streams)]
    of_batches = random.Random(f"{seed} batches")
    for stint in range(stints):
        until = time.monotonic() + (end - time.monotonic()) / (stints - stint) - (_QUIET if stints > 1 else 0.0)
        await asyncio.gather(
            batches_of(url, of_batches, until, counts),
            *(client_of(url, name, rngs[n], until, counts) for n, name in enumerate(names)),
        )
        if stints > 1:
            await asyncio.to_thread(settled, url)
            await asyncio.sleep(_QUIET)
            if (used := (await asyncio.to_thread(figures, url)).get('chatglm_heap_bytes{state="used"}')) is not None:
                memory.used.append(used / (1 << 20))
            memory.quiet.append(resident(process))
    watching.cancel()
    return counts, memory


def settled(url: str) -> dict[str, float]:
    """The figures once nothing is under way any more; the last ones if that does not come."""
    for _ in range(300):
        now = figures(url)
        if not any(now.get(f'chatglm_{name}{{model="demo"}}') for name in ("answers_running", "engine_running")):
            break
        time.sleep(0.1)
    return now


def compare(counts: Counts, before: dict[str, float], after: dict[str, float]) -> list[str]:
    """Where the server's figures are not what the clients met."""
    wrong = list(counts.failures)

    def since(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    def ours(name: str) -> float:
        return since(f'chatglm_{name}{{model="demo"}}')

    for name in ("answers_running", "engine_running", "engine_waiting", "engine_pages_used"):
        if left := after[f'chatglm_{name}{{model="demo"}}']:
            wrong.append(f"{name} is {left:g} when all is over")
    for path, (dialect, route) in ROUTES.items():
        routes = re.compile(rf'chatglm_requests_total{{dialect="{dialect}",route="{re.escape(route)}",status="(\d+)"}}')
        said = Counter({int(found[1]): since(name) for name in after if (found := routes.fullmatch(name))})
        met = Counter({status: count for (of, status), count in counts.statuses.items() if of == path})
        # Who went away before there was an answer: answered or not (499), refused, or never read at all. And the
        # server, which asks itself.
        gone, most = said.total() - met.total(), counts.unknown[path] + counts.own[path]
        if any(said[status] < met[status] for status in met) or not 0 <= gone <= most:
            wrong.append(f"{path}: statuses {dict(said)} at the server, {dict(met)} and {counts.unknown[path]} unknown")
    reasons = {
        found[1]: since(name)
        for name in after
        if (found := re.fullmatch(r'chatglm_answers_total{model="demo",reason="(.+)"}', name))
    }
    whole = counts.reasons.total()
    if not whole + counts.left <= sum(reasons.values()) <= whole + counts.left + counts.perhaps:
        wrong.append(
            f"answers: {reasons} at the server; {whole} whole, {counts.left} left, up to {counts.perhaps} perhaps begun"
        )
    for reason in ("stop", "length", "tool_calls"):
        if reasons.get(reason, 0) < counts.reasons[reason]:
            wrong.append(f"answers: {reason}: {reasons} at the server, {counts.reasons} at the clients")
    if reasons.get("failed", 0) > counts.hostile * MOST_ANSWERS:
        wrong.append(f"answers: {reasons['failed']:g} failed")
    # What was finished for those that went away, and api.py's dialect, which tells no usage.
    beyond = sum(reasons.get(r, 0) - counts.reasons[r] for r in ("stop", "length", "tool_calls"))
    for name, met in (("prompt", counts.prompt_tokens), ("completion", counts.completion_tokens)):
        if not met <= ours(f"{name}_tokens_total") <= met + beyond * 2048 + 1e-9:
            wrong.append(f"{name} tokens: {ours(f'{name}_tokens_total'):g} at the server, {met} at the clients")
        theirs = {"prompt": "prompt", "completion": "generated"}[name]
        if ours(f"engine_{theirs}_tokens_total") < ours(f"{name}_tokens_total"):
            wrong.append(f"{name} tokens: {ours(f'engine_{theirs}_tokens_total'):g} in the engine, fewer than answered")
    if ours("time_to_first_token_seconds_count") > sum(reasons.values()):
        wrong.append("more first tokens than answers")
    return wrong


def compare_keys(counts: Counts, before: dict[str, float], after: dict[str, float]) -> list[str]:
    """Where the server's figures by key are not what the clients met."""
    wrong: list[str] = []
    requests, statuses, tokens = Counter[str](), Counter[tuple[str, int]](), Counter[tuple[str, str]]()
    for name in after:
        if not (found := re.match(r"chatglm_key_(requests|tokens)_total{", name)):
            continue
        labels = dict(re.findall(r'(\w+)="([^"]*)"', name))
        value = after[name] - before.get(name, 0)
        if found[1] == "requests":
            requests[labels["key"]] += value
            statuses[labels["key"], int(labels["status"])] += value
        else:
            tokens[labels["key"], labels["kind"]] += value
    for key in {key for key, _ in counts.keys}:
        met, unknown = counts.keys[key, True], counts.keys[key, False]
        if not met <= requests[key] <= met + unknown + counts.own.total():
            wrong.append(f"key {key}: {requests[key]:g} requests at the server, {met} and {unknown} unknown")
        for status in (401, 429):
            if statuses[key, status] < counts.refused[key, status]:
                wrong.append(f"key {key}: {statuses[key, status]:g} of status {status} at the server, {counts.refused}")
        for kind in ("prompt", "completion"):
            if tokens[key, kind] < counts.key_tokens[key, kind]:
                wrong.append(f"key {key}: {tokens[key, kind]:g} {kind} tokens, fewer than {counts.key_tokens}")
    for kind in ("prompt", "completion"):  # of those that broke off, keys have more
        name = f'chatglm_{kind}_tokens_total{{model="demo"}}'
        whole = after.get(name, 0) - before.get(name, 0)
        if (by_key := sum(value for (_, of), value in tokens.items() if of == kind)) < whole:
            wrong.append(f"{kind} tokens: {by_key:g} of all keys, {whole:g} of the model")
    return wrong


def compare_limits(counts: Counts, seconds: float) -> list[str]:
    """Which keys got more than their limits."""
    wrong = []
    for one in KEYS:
        if (most := one.get("requests_per_minute")) is not None:
            # To look for an answer is no request to a model, and no limit counts it.
            taken = counts.keys[one["name"], True] - counts.refused[one["name"], 429] - counts.looks[one["name"]]
            if taken > most * (1 + seconds / 60) + 1:
                wrong.append(
                    f"key {one['name']}: {taken} requests in {seconds:.0f} s, and {most} a minute are its limit"
                )
        if (most := one.get("tokens_per_minute")) is not None:
            taken = sum(counts.key_tokens[one["name"], kind] for kind in ("prompt", "completion"))
            if taken > most * (2 + seconds / 60):  # requests that run overdraw it
                wrong.append(f"key {one['name']}: {taken} tokens in {seconds:.0f} s, and {most} a minute are its limit")
    return wrong


def check_log(text: str, requests: int, gone: int) -> list[str]:
    """What should not be in a log.

    Args:
        requests: that got an answer.
        gone: that nobody waited for.
    """
    wrong, lines = [], 0
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            wrong.append(f"the log has a line that is not JSON: {line[:300]}")
            continue
        lines += entry["logger"] == "chatglm.requests" and entry["method"] == "POST"
        if entry["level"] in ("error", "critical"):
            wrong.append(f"the log: {line[:3000]}")
    wrong += [f"the log has a text of users: {words}" for words in QUESTIONS if len(words) > 4 and words in text]
    if not requests <= lines <= requests + gone:
        wrong.append(f"the log has {lines} requests; {requests} were answered and {gone} given up")
    return wrong


def growth(memory: list[float], share: float = 1 / 3) -> float:
    """How much it grew in the rest after a warm-up of this share: by the median of slopes, which single samples do not
    move."""
    rest = memory[int(len(memory) * share) :]
    half = len(rest) // 2
    slopes = [(rest[n + half] - rest[n]) / half for n in range(len(rest) - half)] if half else [0.0]
    return statistics.median(slopes) * len(rest)


def check_memory(memory: Memory, seconds: float) -> list[str]:
    """Whether memory was lost; see above."""
    wrong = []
    allowed = _GROWTH * max(seconds / 600, 0.2)
    if (grown := growth(memory.used, 0.2)) > allowed:
        wrong.append(f"memory: the heap in use grew by {grown:.1f} MB after the warm-up")
    if seconds >= 300 and (half := growth(memory.quiet, 1 / 2)) > allowed:
        wrong.append(f"memory: resident memory grew by {half:.1f} MB in the second half")
    if max(memory.resident) > memory.resident[0] + _ABOVE:
        wrong.append(f"memory: from {memory.resident[0]:.0f} MB up to {max(memory.resident):.0f} MB resident")
    return wrong


def soak(streams: int, seconds: float, seed: int = 0, *, fill_first: bool = True) -> tuple[dict[str, Any], list[str]]:
    """A server and its clients.

    Args:
        fill_first: what the server keeps for requests that come again; only then memory is checked.

    Returns:
        figures, and what did not hold.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with served(folder) as (process, url):
            if fill_first:
                fill(url)
            before = settled(url)
            seen = len((folder / "log").read_text("utf-8"))
            begin = time.monotonic()
            counts, memory = asyncio.run(use(url, process, streams, seconds, seed))
            took = time.monotonic() - begin
            after = settled(url)
            end = resident(process)
        wrong = [*compare(counts, before, after), *compare_keys(counts, before, after), *compare_limits(counts, took)]
        posts = counts.statuses.total() + counts.refused.total()
        wrong += check_log(
            (folder / "log").read_text("utf-8")[seen:], posts, counts.unknown.total() + counts.own.total()
        )
    if fill_first:
        wrong += check_memory(memory, seconds)
    figure = 'chatglm_{}{{model="demo"}}'.format
    generated = after[figure("engine_generated_tokens_total")] - before[figure("engine_generated_tokens_total")]
    result = {
        "streams": streams,
        "seconds": seconds,
        "requests": sum(value for _, value in counts.keys.items()),
        "by key": {key: counts.keys[key, True] for key in sorted({key for key, _ in counts.keys})},
        "refused by their keys": {f"{key} {status}": count for (key, status), count in sorted(counts.refused.items())},
        "whole": dict(counts.kinds),
        "hostile": counts.hostile,
        "statuses": {f"{path} {status}": count for (path, status), count in sorted(counts.statuses.items())},
        "left": counts.left,
        "gone before a status": counts.unknown.total(),
        "tokens_per_s": round(generated / seconds, 1),
        "first_token_median_s": round(statistics.median(counts.first), 3) if counts.first else None,
        "preemptions": after[figure("engine_preemptions_total")],
        "memory_mb": {"before": round(memory.resident[0]), "most": round(max(memory.resident)), "after": round(end)},
        "memory_curve_mb": curve(memory.resident),
        "heap_quiet_mb": [round(used, 1) for used in memory.used],
        "memory_quiet_mb": [round(quiet) for quiet in memory.quiet],
        "heap_growth_mb": round(growth(memory.used, 0.2), 1),
    }
    return result, wrong


def curve(values: list[float]) -> list[int]:
    """Eleven of them, at even distances."""
    return [round(values[n * (len(values) - 1) // 10]) for n in range(11)] if values else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    result, wrong = soak(arguments.streams, arguments.minutes * 60, arguments.seed)
    for key, value in result.items():
        print(f"{key:>22}  {value}")
    for line in wrong[:20]:
        print(f"WRONG: {line}")
    print(json.dumps({**result, "wrong": len(wrong)}, ensure_ascii=False))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
