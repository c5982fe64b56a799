"""Tools that run on the server's side, asked for by real clients."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from recorded import RECORDED

from chatglm.assistant import Assistant, RemoteAssistant
from chatglm.chat.messages import Message, ToolCall, ToolSpec
from chatglm.serving.access.key_sources import KeyFile
from chatglm.serving.access.keys import Keyring
from chatglm.tools.functions import Function
from chatglm.tools.interpreter.limits import Limits
from chatglm.tools.interpreter.pool import Kernels
from chatglm.tools.tool import Consent, Outcome
from chatglm.tools.toolbox import Toolbox
from kernels import need_sandbox
from scripted import ScriptedEngine, Writer
from server import serving
from waiting import until

PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 1, 1) + bytes(9)
IMAGE = "data:image/png;base64," + base64.b64encode(PNG).decode()
OWN = {"type": "function", "function": {"name": "own", "parameters": {"type": "object", "properties": {}}}}


def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


def paint() -> bytes:
    """Paints."""
    return PNG


def risky() -> str:
    """Does what somebody should be asked about."""
    return "done"


slow_ends: list[threading.Event] = []


async def slow() -> None:
    """Never ends."""
    begun, ended = slow_ends[-2:]
    begun.set()
    try:
        await asyncio.sleep(600)
    finally:
        ended.set()


def box(**options: Any) -> Toolbox:
    return Toolbox([add, paint, slow, Function.of(risky, consent=Consent.ALWAYS)], **{"seconds": 300, **options})


@pytest.fixture
def over(write: Writer) -> Iterator[Callable[..., tuple[openai.OpenAI, ScriptedEngine]]]:
    """A client of a server with tools, over an engine with these replies."""
    with contextlib.ExitStack() as stack:

        def get(*replies: Any, key: str = "x", **options: Any) -> tuple[openai.OpenAI, ScriptedEngine]:
            engine = ScriptedEngine(*replies, context=2048)
            assistant = stack.enter_context(Assistant(write.form, engine))  # type: ignore[arg-type]
            options.setdefault("toolbox", stack.enter_context(box()))
            url = stack.enter_context(serving({"demo": assistant}, **options))
            client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
            return stack.enter_context(client), engine

        yield get


def ask(client: openai.OpenAI, *tools: str, **fields: Any) -> Any:
    body = {"server_tools": list(tools), **fields.pop("extra_body", {})}
    messages = fields.pop("messages", [{"role": "user", "content": "q"}])
    return client.chat.completions.create(model="demo", messages=messages, extra_body=body, **fields)


def test_the_answer_has_the_results(over: Any, write: Writer) -> None:
    call = write.call(("add", {"a": 1, "b": 2}))
    client, engine = over(call, write.say("three"))
    found = ask(client, "add")
    message = found.choices[0].message
    assert (message.content, message.tool_calls, found.choices[0].finish_reason) == ("three", None, "stop")
    (made,) = message.server_tool_calls
    assert (made["function"]["name"], json.loads(made["function"]["arguments"])) == ("add", {"a": 1, "b": 2})
    assert (made["output"], made["failed"]) == ("3", False)
    assert found.usage.prompt_tokens == sum(len(asked.ids) for asked in engine.asked)
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    # What the client got is a message that it can send again.
    history = [{"role": "user", "content": "q"}, message, {"role": "user", "content": "and now?"}]
    ask(client, "add", messages=history)
    answered = [Message("assistant", "", (ToolCall("add", {"a": 1, "b": 2}),)), Message("observation", "3")]
    whole = [Message("user", "q"), *answered, Message("assistant", "three"), Message("user", "and now?")]
    assert engine.asked[-1].ids == write.form.prompt(whole, [box().tool("add").spec])  # type: ignore[union-attr]


def test_streams_tell_what_was_called(over: Any, write: Writer) -> None:
    both = write.call(("add", {"a": 1, "b": 2}), ("paint", {}))
    client, _ = over(both, write.say("three"))
    chunks = list(ask(client, "add", "paint", stream=True, stream_options={"include_usage": True}))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    called = [one for delta in deltas for one in getattr(delta, "server_tool_calls", None) or ()]
    assert [one["function"]["name"] for one in called] == ["add", "paint"]
    (shown,) = [one for delta in deltas for one in getattr(delta, "images", None) or ()]
    assert shown["image_url"]["url"] == IMAGE
    assert "".join(delta.content or "" for delta in deltas) == "three"
    assert not any(delta.tool_calls for delta in deltas)
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].usage.prompt_tokens > 0


def test_the_clients_own_calls_are_the_clients(over: Any, write: Writer) -> None:
    """In one turn with a call of the server's: that is carried out, and both are told."""
    both = write.call(("add", {"a": 1, "b": 2}), ("own", {}))
    client, engine = over(both, write.say("three"))
    found = ask(client, "add", tools=[OWN])
    message = found.choices[0].message
    assert found.choices[0].finish_reason == "tool_calls"
    assert [one.function.name for one in message.tool_calls] == ["own"]
    assert [one["output"] for one in message.server_tool_calls] == ["3"]
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "mine"}
    found = ask(client, "add", tools=[OWN], messages=[{"role": "user", "content": "q"}, message, result])
    assert found.choices[0].message.content == "three"
    assert len(engine.asked) == 2
    chunks = list(ask(over(both)[0], "add", tools=[OWN], stream=True))
    pieces = [one for c in chunks if c.choices for one in c.choices[0].delta.tool_calls or ()]
    assert {one.index for one in pieces} == {0}
    assert pieces[0].function.name == "own"


@pytest.mark.parametrize(
    ("tools", "fields", "words"),
    [
        (["nope"], {}, "'nope' is not a tool of this server; available: add, paint, slow"),
        (["interpreter"], {}, "this server has no interpreter"),
        (["risky"], {}, "risky needs a person's consent"),
        (["add"], {"n": 2}, "n: must be 1"),
        (["add"], {"tools": [{"type": "function", "function": {"name": "add"}}]}, "'add' is asked for in server_tools"),
        (["add"], {"tool_choice": {"type": "function", "function": {"name": "paint"}}}, "not one of the tools"),
        ([], {"tools": [{"type": "code_interpreter"}]}, "code_interpreter"),
        ([], {"tools": [{"type": "mcp"}]}, "tools of type 'mcp' are not supported"),
    ],
)
def test_refusals(over: Any, write: Writer, tools: Any, fields: Any, words: str) -> None:
    client, engine = over(write.say("no"))
    with pytest.raises(openai.BadRequestError, match=words):
        ask(client, *tools, **fields)
    assert engine.asked == []


@pytest.mark.parametrize("tools", ["add", [1], {"add": 1}, [""], ["a" * 200], ["add"] * 65, [["add"]], [None]])
def test_lists_of_tools_that_are_none(over: Any, write: Writer, tools: Any) -> None:
    client, engine = over(write.say("no"))
    body = {"messages": [{"role": "user", "content": "q"}], "input": "q", "server_tools": tools}
    for route in ("chat/completions", "responses"):
        one = {name: body[name] for name in ("server_tools", "messages" if route[0] == "c" else "input")}
        found = httpx.post(f"{client.base_url}{route}", json=one, timeout=60)
        assert found.status_code == 400
        assert "server_tools" in found.json()["error"]["message"]
    assert engine.asked == []


def test_a_server_without_tools_says_so(over: Any, write: Writer) -> None:
    client, _ = over(write.say("no"), toolbox=None)
    with pytest.raises(openai.BadRequestError, match="this server runs no tools"):
        ask(client, "add")
    with pytest.raises(openai.BadRequestError, match="this server runs no tools"):
        client.responses.create(
            model="demo", input="q", tools=[{"type": "code_interpreter", "container": {"type": "auto"}}]
        )


def test_consent_may_be_given_by_the_owner(over: Any, write: Writer) -> None:
    client, _ = over(write.call(("risky", {})), write.say("ok"), tools_without_asking=True)
    (made,) = ask(client, "risky").choices[0].message.server_tool_calls
    assert (made["output"], made["failed"]) == ("done", False)


def test_only_keys_that_may(over: Any, write: Writer, tmp_path: Any) -> None:
    (tmp_path / "keys.yaml").write_text(
        "keys: [{key: one-key-of-the-tests, name: one}, {key: two-key-of-the-tests, name: two, may: [tools]}]"
    )
    keys = Keyring([KeyFile(tmp_path / "keys.yaml")])
    client, engine = over(
        write.call(("add", {"a": 1, "b": 2})), write.say("three"), keys=keys, key="one-key-of-the-tests"
    )
    with pytest.raises(openai.PermissionDeniedError, match=r"may not let the server run its tools.*--may tools"):
        ask(client, "add")
    assert engine.asked == []
    may = client.with_options(api_key="two-key-of-the-tests")
    assert ask(may, "add").choices[0].message.content == "three"


def test_tool_choice_forces_a_tool_of_the_server_once(over: Any, write: Writer) -> None:
    opening = len(write.form.opening("add"))
    client, engine = over(write.call(("add", {"a": 1, "b": 2}))[opening:], write.say("three"))
    found = ask(client, "add", tool_choice={"type": "function", "function": {"name": "add"}})
    assert found.choices[0].message.content == "three"
    assert engine.asked[0].ids[-opening:] == write.form.opening("add")


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_ends_the_tools(over: Any, write: Writer, stream: bool) -> None:
    slow_ends.extend((threading.Event(), threading.Event()))
    begun, ended = slow_ends[-2:]
    client, engine = over(write.call(("slow", {})), write.say("no"))
    url, body = str(client.base_url), {"messages": [{"role": "user", "content": "q"}], "server_tools": ["slow"]}

    async def leave() -> None:
        async with httpx.AsyncClient(timeout=60) as http:
            task = asyncio.ensure_future(http.post(f"{url}chat/completions", json={**body, "stream": stream}))
            assert await asyncio.to_thread(begun.wait, 60)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    asyncio.run(leave())
    assert ended.wait(60)
    metrics = url.replace("/v1/", "/metrics")
    until(lambda: 'reason="broken off"} 1.0' in httpx.get(metrics).text, pause=0.05)
    (asked,) = engine.asked
    assert f'chatglm_prompt_tokens_total{{model="demo"}} {len(asked.ids)}.0' in httpx.get(metrics).text


def test_a_server_that_ends_tells_the_stream(write: Writer) -> None:
    slow_ends.extend((threading.Event(), threading.Event()))
    begun, ended = slow_ends[-2:]
    servers: list[Any] = []
    with (
        Assistant(write.form, ScriptedEngine(write.call(("slow", {})))) as assistant,  # type: ignore[arg-type]
        box() as tools,
        serving({"demo": assistant}, toolbox=tools, drain=0.1, servers=servers) as url,
        httpx.Client() as http,
    ):
        body = {"messages": [{"role": "user", "content": "q"}], "server_tools": ["slow"], "stream": True}
        with http.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as response:
            assert begun.wait(60)
            told = filter(None, response.iter_lines())
            lines = [next(told)]
            servers[0].should_exit = True
            lines += told
    assert lines[0] == ": tools are running"
    assert json.loads(lines[-1].removeprefix("data: "))["error"]["code"] == "shutting_down"
    assert ended.wait(60)


def test_pictures_are_bounded(over: Any, write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatglm.serving.server_tools.PICTURES", len(PNG))
    client, _ = over(write.call(("paint", {}), ("paint", {})), write.say("ok"))
    message = ask(client, "paint").choices[0].message
    assert len(message.images) == 1
    assert "1 pictures left out" in message.server_tool_calls[1]["output"]


def test_figures(over: Any, write: Writer) -> None:
    wrong = write.call(("add", {"a": "x", "b": 2}), ("add", {"a": 1, "b": 2}))
    client, _ = over(wrong, write.call(("other", {})), write.say("three"))
    ask(client, "add")
    text = httpx.get(str(client.base_url).replace("/v1/", "/metrics")).text
    assert 'chatglm_tool_calls_total{outcome="failed",tool="add"} 1.0' in text
    assert 'chatglm_tool_calls_total{outcome="done",tool="add"} 1.0' in text
    assert 'chatglm_tool_calls_total{outcome="failed",tool="unknown"} 1.0' in text
    assert 'chatglm_answers_total{model="demo",reason="stop"} 1.0' in text


def test_responses_have_items_of_the_calls(over: Any, write: Writer) -> None:
    both = write.call(("add", {"a": 1, "b": 2}), ("add", {"a": "x", "b": 2}))
    client, engine = over(both, write.say("three"), write.say("four"))
    kinds = []
    with client.responses.stream(model="demo", input="q", extra_body={"server_tools": ["add"]}) as stream:
        kinds = [event.type for event in stream]
        found = stream.get_final_response()
    assert [item.type for item in found.output] == ["mcp_call", "mcp_call", "message"]
    one, two = found.output[:2]
    assert (one.name, one.output, one.error, one.status) == ("add", "3", None, "completed")  # type: ignore[union-attr]
    assert two.status == "failed"  # type: ignore[union-attr]
    assert found.output_text == "three"
    assert kinds.count("response.mcp_call.in_progress") == 2
    assert kinds.count("response.mcp_call.completed") == kinds.count("response.mcp_call.failed") == 1
    assert kinds.count("response.output_item.done") == 3
    # The dialogue goes on: by id, or with the items sent again.
    for more in (
        {"previous_response_id": found.id, "input": "and now?"},
        {"input": [{"role": "user", "content": "q"}, *found.output, {"role": "user", "content": "and now?"}]},
    ):
        assert client.responses.create(model="demo", **more).output_text == "four"
        text = write.form.tokenizer.decode(engine.asked[-1].ids)
        assert "tool_call(a=1, b=2)" in text
        assert text.index("3") < text.index("and now?")


def test_zhipu_v4(over: Any, write: Writer) -> None:
    client, _ = over(write.call(("add", {"a": 1, "b": 2})), write.say("three"))
    url = str(client.base_url).replace("/v1/", "/api/paas/v4/chat/completions")
    body = {"model": "demo", "messages": [{"role": "user", "content": "q"}], "server_tools": ["add"]}
    message = httpx.post(url, json=body, timeout=60).json()["choices"][0]["message"]
    assert (message["content"], message["server_tool_calls"][0]["output"]) == ("three", "3")
    refused = httpx.post(url, json={**body, "tools": [{"type": "code_interpreter"}]}, timeout=60)
    assert 'server_tools: ["interpreter"]' in refused.json()["error"]["message"]


class Echo:
    """Runs nothing."""

    spec = ToolSpec({"type": "python"})
    consent = Consent.NEVER

    async def run(self, arguments: Any) -> Outcome:
        return Outcome(f"<{arguments['code']}>")


def test_a_remote_assistant_has_the_interpreter(over: Any, write: Writer) -> None:
    """Its server's model is told as one of this process would be."""
    client, engine = over(write.code("1"), write.say("one"))
    with RemoteAssistant(str(client.base_url)) as remote:
        new = remote.run("q", [Echo()])
    assert [message.content for message in new] == ["", "<1>", "one"]
    assert [asked.ids for asked in engine.asked] == [
        write.form.prompt([Message("user", "q"), *new[:count]], [Echo.spec]) for count in (0, 2)
    ]


# The demo model, with the built-in tools and the interpreter


@pytest.fixture(scope="module")
def real() -> Iterator[openai.OpenAI]:
    need_sandbox()
    with (
        Assistant.load(dtype="float32") as assistant,
        Toolbox.open(["calculator", "get_weather"]) as tools,
        serving({"demo": assistant}, toolbox=tools, kernels=Kernels(spare=0)) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client,
    ):
        yield client


def running(client: openai.OpenAI) -> int:
    """Kernels, as the server tells."""
    found: int = httpx.get(str(client.base_url).replace("/v1/", "/health")).json()["kernels"]
    return found


PYTHON: Any = {"type": "code_interpreter", "container": {"type": "auto"}}
ASKED = [RECORDED[0], RECORDED[3], *(one for one in RECORDED if one.question in ("计算1到100的和", "画出正弦曲线"))]


@pytest.mark.parametrize("stream", [True, False])
def test_the_demo_answers_as_recorded(real: openai.OpenAI, stream: bool) -> None:
    """Two tools, a computed cell and a plot; and no kernel is left."""
    assert len(ASKED) == 4
    for one in ASKED:
        messages = [{"role": "user", "content": one.question}]
        found = ask(real, *one.tools, messages=messages, temperature=0, stream=stream)
        parts = [chunk.choices[0].delta for chunk in found] if stream else [found.choices[0].message]
        assert "".join(part.content or "" for part in parts) == one.answer
        called = [call for part in parts for call in getattr(part, "server_tool_calls", None) or ()]
        made = [call["function"] for call in called]
        told = [(f["name"], json.loads(f["arguments"]), c["output"]) for f, c in zip(made, called, strict=True)]
        assert told == list(one.calls)
        images = [image for part in parts for image in getattr(part, "images", None) or ()]
        assert len(images) == one.pictures
        for image in images:
            assert base64.b64decode(image["image_url"]["url"].partition(",")[2]).startswith(b"\x89PNG")
    assert running(real) == 0


def test_responses_keep_the_variables_of_their_dialogue(over: Any, write: Writer) -> None:
    need_sandbox()
    codes = ["numbers = [3, 5, 8]\nprint(sum(numbers))", *["print(max(numbers))"] * 3, "print(7)", "print(7)"]
    replies = [reply for code in codes for reply in (write.code(code), write.say("ok"))]
    client, _ = over(*replies, kernels=Kernels(spare=0))

    def say(python: Any = PYTHON, **more: Any) -> Any:
        found = client.responses.create(model="demo", input="q", tools=[python], **more)
        (cell,) = [item for item in found.output if item.type == "code_interpreter_call"]
        return found, cell

    first, cell = say()
    assert (cell.status, cell.outputs[0].logs) == ("completed", "16")
    _, again = say(previous_response_id=first.id)
    assert (again.outputs[0].logs, again.container_id) == ("8", cell.container_id)
    _, other = say()
    assert "NameError" in other.outputs[0].logs
    assert other.container_id != cell.container_id
    _, named = say({"type": "code_interpreter", "container": cell.container_id})
    assert named.outputs[0].logs == "8"
    assert running(client) == 2
    _, alone = say(store=False)
    assert alone.container_id not in (cell.container_id, other.container_id)
    assert running(client) == 2
    say({"type": "code_interpreter", "container": cell.container_id}, store=False)
    assert running(client) == 2


def test_events_of_code(real: openai.OpenAI) -> None:
    choice: Any = {"type": "code_interpreter"}
    with real.responses.stream(
        model="demo", input="画出正弦曲线", tools=[PYTHON], temperature=0, tool_choice=choice
    ) as stream:
        kinds = [event.type for event in stream if "code_interpreter" in event.type]
        found = stream.get_final_response()
    one = "response.code_interpreter_call"
    code = [f"{one}_code.delta", f"{one}_code.done"]
    assert kinds == [f"{one}.in_progress", *code, f"{one}.interpreting", f"{one}.completed"]
    logs, image = found.output[0].outputs  # type: ignore[union-attr, misc]
    assert logs.logs == "[Image]"
    assert image.url.startswith("data:image/png;base64,")
    assert found.output_text == "图已经画好了。"
    assert found.usage is not None
    assert found.usage.input_tokens > 100


def test_who_leaves_ends_the_code(over: Any, write: Writer) -> None:
    need_sandbox()
    long = Limits(seconds=600, cpu=600)  # so that nothing else ends it
    client, _ = over(write.code("while True: pass"), kernels=Kernels(spare=0, limits=long))

    async def leave() -> None:
        async with httpx.AsyncClient() as http:
            body = {"messages": [{"role": "user", "content": "q"}], "server_tools": ["interpreter"], "stream": True}
            url = f"{client.base_url}chat/completions"
            task = asyncio.ensure_future(http.post(url, json=body, timeout=60))
            await asyncio.to_thread(until, lambda: running(client), pause=0.05)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await asyncio.to_thread(until, lambda: not running(client), pause=0.05)

    asyncio.run(leave())


def test_only_keys_that_may_have_code_run(over: Any, write: Writer, tmp_path: Any) -> None:
    need_sandbox()
    (tmp_path / "keys.yaml").write_text("keys: [{key: one-key-of-the-tests, name: one, may: [tools]}]")
    keys = Keyring([KeyFile(tmp_path / "keys.yaml")])
    client, _ = over(write.say("no"), kernels=Kernels(spare=0), keys=keys, key="one-key-of-the-tests")
    with pytest.raises(openai.PermissionDeniedError, match=r"may not let the server run the model's code.*interpreter"):
        ask(client, "interpreter")
