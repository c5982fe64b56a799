"""OpenAI's Responses API: what goes over the wire, what is stored, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel

from chatglm.assistant import Assistant, RemoteAssistant
from chatglm.errors import InputError, NotFoundError, NumericalError
from chatglm.serving.access.callers import Caller
from chatglm.serving.failures import PreviousResponseError
from chatglm.serving.openai.responses_api.stored import Chain, ResponseLimits, Responses, Stored
from chatglm.serving.stored.storage import Storage
from scripted import ScriptedEngine, Writer
from server import serving

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
ASK: dict[str, Any] = {"model": "demo", "input": "你好"}
ROUTE = "/v1/responses"


def post(url: str, body: Any = ASK, route: str = ROUTE, **more: Any) -> httpx.Response:
    return httpx.post(url + route, json=body, timeout=60, **more)


def events(url: str, body: Any) -> list[Any]:
    """The events of a stream, in their order; the name of each is its type."""
    answer = post(url, {**body, "stream": True})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    made = []
    for block in answer.text.strip().split("\n\n"):
        name, data = block.split("\n")
        made.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {made[-1]['type']}"
    assert [event["sequence_number"] for event in made] == list(range(len(made)))
    return made


def put_together(made: list[Any]) -> list[dict[str, Any]]:
    """The output that a client makes of the pieces."""
    output: list[dict[str, Any]] = []
    for event in made:
        match event["type"]:
            case "response.output_item.added":
                assert event["output_index"] == len(output)
                assert event["item"]["status"] == "in_progress"
                output.append(event["item"])
            case "response.content_part.added":
                output[event["output_index"]]["content"].append(event["part"])
            case "response.output_text.delta":
                part = output[event["output_index"]]["content"][event["content_index"]]
                part["text"] += event["delta"]
                part["logprobs"] += event["logprobs"]
            case "response.function_call_arguments.delta":
                output[event["output_index"]]["arguments"] += event["delta"]
            case "response.output_text.done":
                assert output[event["output_index"]]["content"][0]["text"] == event["text"]
            case "response.function_call_arguments.done":
                assert output[event["output_index"]]["arguments"] == event["arguments"]
            case "response.output_item.done":
                item = output[event["output_index"]]
                assert event["item"] == {**item, "status": event["item"]["status"]}
                item["status"] = event["item"]["status"]
    return output


def comparable(response: Mapping[str, Any]) -> dict[str, Any]:
    """Without what every response has for itself."""
    own = ("id", "call_id")
    output = [{name: value for name, value in item.items() if name not in own} for item in response["output"]]
    return {**response, "id": "", "created_at": 0, "completed_at": 0, "output": output}


def prompt(write: Writer, engine: Any) -> str:
    return write.form.tokenizer.to_text(engine.asked[-1].ids)


def chat_prompt(url: str, write: Writer, engine: Any, body: Mapping[str, Any]) -> str:
    """The prompt that chat completions makes of the same."""
    httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).raise_for_status()
    return prompt(write, engine)


def test_response(over: Any, write: Writer) -> None:
    url, engine = over(write.say("你好！"))
    response = post(url).json()
    assert response.pop("id").startswith("resp_")
    assert response["created_at"] <= response.pop("completed_at")
    (item,) = response["output"]
    assert item.pop("id").startswith("msg_")
    part = {"type": "output_text", "text": "你好！", "annotations": [], "logprobs": []}
    assert item == {"type": "message", "status": "completed", "role": "assistant", "content": [part]}
    made = write.counted("你好！")
    assert response["usage"] == {
        "input_tokens": len(engine.asked[0].ids),
        "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": len(engine.asked[0].ids) + made,
    }
    assert response["status"] == "completed"
    assert response["store"] is True
    assert response["text"] == {"format": {"type": "text"}}


def test_every_option_arrives(over: Any, write: Writer) -> None:
    url, engine = over(write.say("好"))
    options = {
        "temperature": 0.5, "top_p": 0.5, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.5, "presence_penalty": 1,
        "frequency_penalty": -1, "logit_bias": {"7": 3}, "seed": 9, "stop": "END", "stop_token_ids": [5],
        "max_output_tokens": 11, "min_tokens": 1, "top_logprobs": 3,
    }  # fmt: skip
    hints = {
        "user": "me", "service_tier": "auto", "reasoning": {"effort": "low"}, "prompt_cache_key": "k",
        "safety_identifier": "s", "max_tool_calls": 3, "background": False, "conversation": None,
        "include": ["reasoning.encrypted_content"], "text": {"verbosity": "low"}, "metadata": {"a": "b"},
    }  # fmt: skip
    answer = post(url, ASK | options | hints)
    assert answer.status_code == 200, answer.text
    assert engine.asked[0].params.to_dict() == {
        "temperature": 0.5, "top_p": 0.5, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.5, "presence_penalty": 1,
        "frequency_penalty": -1, "logit_bias": {7: 3}, "seed": 9, "stop": ["END"], "stop_ids": [5],
        "max_new_tokens": 11, "min_new_tokens": 1, "logprobs": 3,
    }  # fmt: skip
    ignored = set(answer.headers["X-Chatglm-Ignored"].split(", "))
    assert ignored >= {"user", "service_tier", "reasoning", "prompt_cache_key", "max_tool_calls", "text.verbosity"}
    response = answer.json()
    assert (response["metadata"], response["temperature"], response["top_logprobs"]) == ({"a": "b"}, 0.5, 3)


def test_a_stream_is_what_the_whole_is(over: Any, write: Writer) -> None:
    replies = [
        write.say("你好，very much"),
        write.say("three words"),
        write.call(("get_weather", {"city": "北京"}), ("get_weather", {"city": "上海"})),
        write.call(("get_weather", {"city": "北京"}), text="Let me see."),
        [write.end],
    ]
    bodies: list[dict[str, Any]] = [
        ASK | {"top_logprobs": 1, "include": ["message.output_text.logprobs"]}, ASK | {"max_output_tokens": 1},
        ASK | {"tools": [WEATHER]}, ASK | {"tools": [WEATHER]}, ASK,
    ]  # fmt: skip
    url, _ = over(*[reply for reply in replies for _ in range(2)])
    found = []
    for body in bodies:
        whole = post(url, body).json()
        made = events(url, body)
        assert [event["type"] for event in made[:2]] == ["response.created", "response.in_progress"]
        assert made[0]["response"]["output"] == []
        assert made[-1]["type"] == f"response.{whole['status']}"
        assert put_together(made) == made[-1]["response"]["output"]
        assert comparable(made[-1]["response"]) == comparable(whole)
        found.append((whole["status"], [(item["type"], item["status"]) for item in whole["output"]]))
    message, call = ("message", "completed"), ("function_call", "completed")
    assert found == [
        ("completed", [message]),
        ("incomplete", [("message", "incomplete")]),
        ("completed", [call, call]),
        ("completed", [message, call]),
        ("completed", []),
    ]
    (part,) = post(url, bodies[0]).json()["output"] or [{"content": [{"logprobs": []}]}]
    assert isinstance(part["content"][0]["logprobs"], list)


def test_logprobs(over: Any, write: Writer) -> None:
    url, _ = over(write.say("你好"))
    for more, count in (({"include": ["message.output_text.logprobs"]}, 0), ({"top_logprobs": 2}, 2)):
        entries = post(url, ASK | more).json()["output"][0]["content"][0]["logprobs"]
        assert bytes(b for entry in entries for b in entry["bytes"]).decode().strip() == "你好"
        assert all(len(entry["top_logprobs"]) == count for entry in entries)


def test_batched_is_alone(demo: str) -> None:
    bodies = [ASK | {"temperature": 0, "max_output_tokens": 30, "input": text} for text in ("你好", "Hello!", "晴")]

    def said(body: dict[str, Any], stream: bool) -> Any:
        response = events(demo, body)[-1]["response"] if stream else post(demo, body).json()
        return comparable(response)["output"]

    alone = [said(body, False) for body in bodies]
    with ThreadPoolExecutor(6) as pool:
        whole = [pool.submit(said, body, False) for body in bodies]
        streamed = [pool.submit(said, body, True) for body in bodies]
        assert [each.result() for each in whole] == [each.result() for each in streamed] == alone


def test_items_make_the_prompt_that_messages_make(over: Any, write: Writer) -> None:
    url, engine = over(write.say("fine"))
    items = [
        {"role": "developer", "content": "Be brief."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "A"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
        {"type": "message", "id": "m", "status": "completed", "role": "assistant", "content": [
            {"type": "output_text", "text": "Let me see.", "annotations": [], "logprobs": []},
        ]},
        {"type": "function_call", "id": "f", "call_id": "1", "name": "get_weather", "arguments": '{"city": "北京"}'},
        {"type": "function_call", "call_id": "2", "name": "get_weather", "arguments": '{"city": "cut'},
        {"type": "function_call_output", "call_id": "1", "output": "晴"},
        {"type": "function_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "雨"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "user", "content": "B"},
    ]  # fmt: skip
    answer = post(url, {"model": "demo", "instructions": "S", "input": items, "tools": [WEATHER]})
    assert answer.status_code == 200, answer.text
    assert "input.reasoning" in answer.headers["X-Chatglm-Ignored"]
    mine = prompt(write, engine)
    calls = [
        {"id": number, "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
        for number, arguments in (("1", '{"city": "北京"}'), ("2", '{"city": "cut'))
    ]
    messages = [
        {"role": "system", "content": "S"}, {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "A"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "1", "content": "晴"}, {"role": "tool", "tool_call_id": "2", "content": "雨"},
        {"role": "assistant", "content": "No."}, {"role": "user", "content": "B"},
    ]  # fmt: skip
    function = {name: value for name, value in WEATHER.items() if name != "type"}
    body = {"messages": messages, "tools": [{"type": "function", "function": function}]}
    assert chat_prompt(url, write, engine, body) == mine


def test_a_dialogue_continues(over: Any, write: Writer) -> None:
    """What was said before is the prompt's beginning; instructions are those of each request."""
    url, engine = over(
        write.say("one"), write.call(("get_weather", {"city": "北京"})), write.say("three"), write.say("four")
    )
    first = post(url, ASK | {"instructions": "old"}).json()
    second = post(url, {"input": "A", "previous_response_id": first["id"], "tools": [WEATHER]}).json()
    (call,) = second["output"]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "晴"}
    body = {"input": [result], "previous_response_id": second["id"], "tools": [WEATHER], "instructions": "new"}
    third = post(url, body).json()
    assert third["output"][0]["content"][0]["text"] == "three"
    mine = prompt(write, engine)
    assert "old" not in mine
    function = {name: value for name, value in WEATHER.items() if name != "type"}
    made = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "北京"}'}}
    messages = [
        {"role": "system", "content": "new"}, {"role": "user", "content": "你好"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "A"}, {"role": "assistant", "content": None, "tool_calls": [made]},
        {"role": "tool", "tool_call_id": "1", "content": "晴"},
    ]  # fmt: skip
    same = {"messages": messages, "tools": [{"type": "function", "function": function}]}
    assert chat_prompt(url, write, engine, same) == mine
    # Two may continue the same one, and a reference stands for an item.
    reference = [{"id": first["output"][0]["id"]}, {"type": "item_reference", "id": second["output"][0]["id"]}]
    assert post(url, {"input": [*reference, result], "tools": [WEATHER]}).status_code == 200
    assert "one" in prompt(write, engine)
    assert post(url, {"input": "B", "previous_response_id": first["id"]}).status_code == 200


def test_references_stand_for_no_more_than_a_dialogue_may_have(tmp_path: Path) -> None:
    """Each stands for its whole item, however often it is given."""
    kept = Responses(Storage(tmp_path), ResponseLimits(chain_bytes=10_000))
    known = {"a": {"text": "x" * 900}, "b": {"text": "长" * 900}}
    kept.check_sizes(known, ["a"] * 10)
    kept.check_sizes(known, ["b"])
    for names in (["a"] * 11, ["a"] * 6 + ["b"]):
        with pytest.raises(InputError, match="references stand for more than 10,000 bytes"):
            kept.check_sizes(known, names)


def test_a_stream_is_stored_before_its_client_knows(over: Any, write: Writer) -> None:
    url, _ = over(write.say("one"))
    last = events(url, ASK)[-1]["response"]
    assert httpx.get(f"{url}{ROUTE}/{last['id']}").json() == last
    with httpx.stream("POST", url + ROUTE, json=ASK | {"stream": True}) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: ") and '"response.completed"' in line:
                name = json.loads(line[6:])["response"]["id"]
                assert post(url, {"input": "A", "previous_response_id": name}).status_code == 200


def test_stored_responses(over: Any, write: Writer) -> None:
    url, _ = over(write.say("one"))
    items = [{"role": "user", "content": text} for text in "abcde"]
    response = post(url, {"input": items, "metadata": {"x": "y"}}).json()
    where = f"{url}{ROUTE}/{response['id']}"
    assert httpx.get(where).json() == response
    assert httpx.get(where, params={"include[]": "reasoning.encrypted_content"}).status_code == 200

    def page(**query: Any) -> tuple[str, bool]:
        found = httpx.get(f"{where}/input_items", params=query).json()
        assert found["object"] == "list"
        assert all(item["id"] for item in found["data"])
        return "".join(item["content"][0]["text"] for item in found["data"]), found["has_more"]

    assert page() == ("edcba", False)
    assert page(order="asc", limit=2) == ("ab", True)
    second = httpx.get(f"{where}/input_items?order=asc").json()["data"][1]["id"]
    assert page(order="asc", after=second) == ("cde", False)
    assert httpx.get(f"{where}/input_items?after=x").status_code == 400
    assert httpx.get(f"{where}/input_items?limit=0").status_code == 400
    assert httpx.get(f"{where}?stream=true").status_code == 400
    cancelled = httpx.post(f"{where}/cancel")
    assert (cancelled.status_code, cancelled.json()["error"]["message"]) == (
        400,
        "Cannot cancel a synchronous response.",
    )
    assert httpx.delete(where).json() == {"id": response["id"], "object": "response", "deleted": True}
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
        gone = httpx.request(method, where + path)
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")
    lost = post(url, {"input": "x", "previous_response_id": response["id"]})
    assert (lost.status_code, lost.json()["error"]["code"]) == (400, "previous_response_not_found")


def test_what_is_not_stored(over: Any, write: Writer) -> None:
    url, _ = over(write.say("one"))
    response = post(url, ASK | {"store": False}).json()
    assert response["store"] is False
    assert httpx.get(f"{url}{ROUTE}/{response['id']}").status_code == 404
    reference = post(url, {"input": [{"id": response["output"][0]["id"]}]})
    assert (reference.status_code, reference.json()["error"]["param"]) == (404, "input")


def test_a_home_that_cannot_be_written(write: Writer, tmp_path: Path) -> None:
    """Requests are answered all the same, and not stored; those that ask for it fail before they are answered."""
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    engine = ScriptedEngine(write.say("one"))
    assistant = Assistant(write.form, engine)  # type: ignore[arg-type]
    with assistant, serving({"demo": assistant}, home=blocked / "home") as url:
        answer = post(url)
        assert answer.json()["store"] is False
        assert "store" in answer.headers["X-Chatglm-Ignored"]
        refused = post(url, ASK | {"store": True})
        assert refused.status_code == 500
        assert str(blocked) in refused.json()["error"]["message"]
        assert len(engine.asked) == 1
        assert httpx.get(f"{url}{ROUTE}/resp_x").status_code == 404


SERVER = """
import sys
from pathlib import Path
from chatglm.assistant import Assistant
from chatglm.serving.app import create_app
from chatglm.serving.connections import Server, bind, run
with Assistant.load(dtype="float32", memory=64 << 20) as demo:
    run(Server(create_app({"demo": demo}, home=Path(sys.argv[1])), drain=1), bind("127.0.0.1", int(sys.argv[2])))
"""


@contextlib.contextmanager
def killed(home: Path) -> Iterator[str]:
    """A server in a process of its own, which ends by SIGKILL."""
    from chatglm.serving.connections import bind

    (free,) = bind("127.0.0.1", 0)
    port = free.getsockname()[1]
    free.close()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CHATGLM_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(home), str(port)], env=environment, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 120
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        yield url
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_responses_survive_a_kill(tmp_path: Path) -> None:
    """Whatever a client has got is there after a restart, and can be continued; what was cut is not there."""
    with killed(tmp_path) as url:
        whole = post(url).json()
        streamed = events(url, {"input": "Hello!", "previous_response_id": whole["id"]})[-1]["response"]
        with httpx.stream("POST", url + ROUTE, json={"input": "讲一个故事", "stream": True}) as answer:
            lines = answer.iter_lines()
            cut = next(json.loads(line[6:])["response"]["id"] for line in lines if line.startswith("data: "))
    with killed(tmp_path) as url:
        for response in (whole, streamed):
            assert httpx.get(f"{url}{ROUTE}/{response['id']}").json() == response
        assert httpx.get(f"{url}{ROUTE}/{cut}").status_code == 404
        last = post(url, {"input": "你好", "previous_response_id": streamed["id"]}).json()
        assert last["status"] == "completed"
        assert last["usage"]["input_tokens"] > streamed["usage"]["input_tokens"] > whole["usage"]["input_tokens"]


# The store


def kept(number: int, size: int = 10) -> Stored:
    item = {"id": f"msg_{number}", "type": "message", "role": "assistant", "content": [{"text": "x" * size}]}
    given = {"id": f"msg_in_{number}", "type": "message", "role": "user", "content": [{"text": "y"}]}
    return Stored({"id": f"resp_{number}", "output": [item]}, [given])


ME, OTHER = Caller("me", "me"), Caller("other", "other")


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with contextlib.closing(Storage(tmp_path / "home")) as made:
        yield made


def test_others_do_not_see_it(storage: Storage) -> None:
    responses = Responses(storage)

    async def work() -> None:
        await responses.save(ME, kept(1), Chain())
        assert (await responses.get(ME, "resp_1")).response["id"] == "resp_1"
        for attempt in (
            responses.get(OTHER, "resp_1"), responses.delete(OTHER, "resp_1"), responses.items(OTHER, ["msg_1"]),
            responses.get(ME, "resp_2"),
        ):  # fmt: skip
            with pytest.raises(NotFoundError):
                await attempt
        with pytest.raises(PreviousResponseError):
            await responses.chain(OTHER, "resp_1")
        assert (await responses.items(ME, ["msg_1", "msg_in_1"])).keys() == {"msg_1", "msg_in_1"}

    asyncio.run(work())


def test_it_is_bounded(storage: Storage) -> None:
    """The oldest go first; those that a new one continues count as used."""
    responses = Responses(storage, ResponseLimits(count=3))

    async def there() -> list[int]:
        found = []
        for number in range(8):
            with contextlib.suppress(NotFoundError):
                await responses.get(ME, f"resp_{number}")
                found.append(number)
        return found

    async def work() -> None:
        await responses.save(OTHER, kept(7), Chain())
        for number in range(3):
            await responses.save(ME, kept(number), Chain())
        await responses.save(ME, kept(3), await responses.chain(ME, "resp_0"))
        assert await there() == [0, 2, 3]
        assert (await responses.chain(ME, "resp_3")).ids == ("resp_0", "resp_3")
        assert [item["id"] for item in (await responses.chain(ME, "resp_3")).items] == [
            "msg_in_0", "msg_0", "msg_in_3", "msg_3",
        ]  # fmt: skip
        await responses.get(OTHER, "resp_7")

    asyncio.run(work())
    small = Responses(storage, ResponseLimits(bytes=5000))

    async def fill() -> None:
        for number in range(10, 20):
            await small.save(ME, kept(number, 1000), Chain())
        with pytest.raises(NotFoundError):
            await small.get(ME, "resp_10")
        await small.get(ME, "resp_19")
        await small.save(ME, kept(20, 10_000), Chain())  # more than there is room for: it alone
        await small.get(ME, "resp_20")

    asyncio.run(fill())


def test_chains_are_bounded(storage: Storage) -> None:
    responses = Responses(storage, ResponseLimits(chain=3))

    async def work() -> None:
        last: str | None = None
        for number in range(4):
            await responses.save(ME, kept(number), await responses.chain(ME, last))
            last = f"resp_{number}"
        with pytest.raises(Exception, match=r"^previous_response_id: resp_3: the dialogue before it is too long"):
            await responses.chain(ME, last)
        await responses.delete(ME, "resp_0")
        with pytest.raises(PreviousResponseError, match="resp_0"):
            await responses.chain(ME, "resp_1")

    asyncio.run(work())


def test_it_expires(storage: Storage) -> None:
    responses = Responses(storage, ResponseLimits(lifetime=-1))

    async def work() -> None:
        await responses.save(ME, kept(1), Chain())
        with pytest.raises(NotFoundError):
            await responses.get(ME, "resp_1")
        await responses.save(ME, kept(2), Chain())

    asyncio.run(work())
    assert [row["id"] for row in storage.open()[0].read("SELECT id FROM responses")] == ["resp_2"]


# Refusals


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"input": None}, "input", "required"),
        ({"input": []}, "input", "required"),
        ({"input": 5}, "input", "must be a string or a list of items"),
        ({"input": [{"role": "system", "content": "x"}]}, "input", "there is nothing to answer"),
        ({"input": [{"type": "computer_call"}]}, "input[0]", "items of type 'computer_call' are not supported"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role", "must be one of"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0]",
            "images are not supported",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}]},
            "input[0].content[0]",
            "files are not supported",
        ),
        ({"input": [{"type": "function_call", "call_id": "1", "name": "f"}]}, "input[0].arguments", "required"),
        ({"conversation": "conv_1"}, "conversation", "not supported"),
        ({"prompt": {"id": "x"}}, "prompt", "not supported"),
        ({"background": True}, "background", "true is not supported"),
        ({"include": ["everything"]}, "include[0]", "must be one of"),
        ({"truncation": "middle"}, "truncation", "must be one of: auto, disabled"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]", "tools of type 'web_search' are not supported"),
        ({"tool_choice": "required"}, "tool_choice", "a call is required, and no tools are given"),
        ({"tools": [WEATHER], "tool_choice": {"type": "file_search"}}, "tool_choice", "choices of type 'file_search'"),
        (
            {"tools": [WEATHER], "tool_choice": {
                "type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "x"}],
            }},
            "tool_choice.tools",
            "'x' is not one of the tools",
        ),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema", "required"),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"$ref": "#/x"}}}},
            "text.format.schema",
            "",
        ),
        ({"metadata": {"a": 1}}, "metadata.a", "must be a string"),
        ({"max_tokens": 5}, "max_tokens", "unknown field"),
        ({"n": 2}, "n", "unknown field"),
        ({"previous_response_id": "resp_x"}, "previous_response_id", "not found"),
        ({"input": "x" * 3000}, "input", "This model's maximum context length is"),
    ],
)  # fmt: skip
def test_refusals(over: Any, write: Writer, change: dict[str, Any], param: str, words: str) -> None:
    url, engine = over(write.say("x"))
    answer = post(url, ASK | change)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param, error
    assert words in error["message"]
    assert not engine.asked


def test_tool_choice(over: Any, write: Writer) -> None:
    url, engine = over(write.say("x"))
    now = {"type": "function", "name": "now", "parameters": {"type": "object", "properties": {}}}
    only = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "now"}]}
    for choice in ("none", "auto", "required", {"type": "function", "name": "now"}, only):
        answer = post(url, ASK | {"tools": [WEATHER, now], "tool_choice": choice})
        assert answer.status_code == 200, answer.text
        assert answer.json()["tool_choice"] == choice
        assert [tool["name"] for tool in answer.json()["tools"]] == ["get_weather", "now"]
        assert (engine.asked[-1].constraint is None) == (choice == "none")
    assert "get_weather" not in prompt(write, engine)


def test_truncation(over: Any, write: Writer) -> None:
    url, engine = over(write.say("x"))
    items = [{"role": role, "content": f"{n} " * 60} for n in range(8) for role in ("user", "assistant")]
    body = {"input": [*items, {"role": "user", "content": "last"}]}
    assert post(url, body).json()["error"]["code"] == "context_length_exceeded"
    assert post(url, body | {"truncation": "auto"}).status_code == 200
    assert "last" in prompt(write, engine)


def test_a_stream_that_fails(over: Any, write: Writer) -> None:
    url, _ = over(NumericalError("the scores are not finite"))
    assert post(url, ASK | {"stream": True}).status_code == 500

    class Failing(list):  # type: ignore[type-arg]
        def __getitem__(self, at: Any) -> Any:
            if isinstance(at, slice) and (at.start or 0) > 3:
                raise NumericalError("the scores are not finite")
            return super().__getitem__(at)

    url, _ = over(Failing(write.say("one two three four five")))
    made = events(url, ASK)
    assert [event["type"] for event in made[-2:]] == ["error", "response.failed"]
    response = made[-1]["response"]
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert httpx.get(f"{url}{ROUTE}/{response['id']}").status_code == 404


def test_over_an_endpoint(over: Any, write: Writer) -> None:
    url, _ = over(write.say("one"), write.say("two"))
    with RemoteAssistant(f"{url}/v1", "demo") as remote, serving({"demo": remote}) as here:
        first = post(here).json()
        assert first["output"][0]["content"][0]["text"] == "one"
        made = events(here, {"input": "A", "previous_response_id": first["id"]})
        assert made[-1]["response"]["output"][0]["content"][0]["text"] == "two"
        counted = post(here, {"model": "demo", "input": "你好"}, f"{ROUTE}/input_tokens").json()
        assert counted["input_tokens"] == first["usage"]["input_tokens"]


# The real client


class Place(BaseModel):
    city: Literal["北京", "上海"]
    sunny: bool


def test_openai(demo: str) -> None:
    weather: Any = {**WEATHER, "description": "查询城市的天气", "strict": True}
    weather["parameters"] = {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "城市"}},
        "required": ["city"],
        "additionalProperties": False,
    }
    with openai.OpenAI(base_url=f"{demo}/v1", api_key="none", max_retries=0) as client:
        whole = client.responses.create(model="demo", input="你好")
        assert "演示模型" in whole.output_text
        with client.responses.stream(model="demo", input="你好") as stream:
            kinds = [event.type for event in stream]
            assert stream.get_final_response().output_text == whole.output_text
        assert kinds[-1] == "response.completed"
        assert client.responses.retrieve(whole.id) == whole
        assert client.responses.input_tokens.count(model="demo", input="你好").input_tokens == whole.usage.input_tokens  # type: ignore[union-attr]
        asked = client.responses.create(model="demo", input="北京的天气怎么样？", tools=[weather])
        (call,) = asked.output
        assert call.type == "function_call"
        assert json.loads(call.arguments) == {"city": "北京"}
        output: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "晴，20度"}]
        more = client.responses.create(model="demo", input=output, previous_response_id=asked.id, tools=[weather])
        assert "晴" in more.output_text
        assert [item.type for item in client.responses.input_items.list(more.id)] == ["function_call_output"]
        parsed = client.responses.parse(model="demo", input="北京的天气怎么样？", text_format=Place)
        assert isinstance(parsed.output_parsed, Place)
        client.responses.delete(whole.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(whole.id)
        with pytest.raises(openai.BadRequestError, match="previous_response_id"):
            client.responses.create(model="demo", input="x", previous_response_id=whole.id)
