"""`RemoteAssistant` over servers that send what is odd, in their own words."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from chatglm.assistant import Answer, RemoteAssistant, TextDelta
from chatglm.assistant.wire import refusal
from chatglm.chat.messages import Message, ToolCall
from chatglm.chat.personas import Persona
from chatglm.errors import ContextError, InputError, QueueFullError, ServiceError, UnsupportedError
from scripted import Writer


class Scripted:
    """A server that answers every request with the same lines."""

    def __init__(self) -> None:
        self.status, self.lines = 200, [""]
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = "".join(f"{line}\n\n" for line in scripted.lines).encode()
                self.send_response(scripted.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST  # noqa: N815 — the server's name for it

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def say(self, *chunks: Any, done: bool = True) -> None:
        self.status = 200
        self.lines = [f"data: {json.dumps(chunk)}" for chunk in chunks] + ["data: [DONE]"] * done


@pytest.fixture(scope="module")
def server() -> Iterator[Scripted]:
    scripted = Scripted()
    thread = threading.Thread(target=scripted.server.serve_forever, daemon=True)
    thread.start()
    yield scripted
    scripted.server.shutdown()
    scripted.server.server_close()
    thread.join(60)


@pytest.fixture
def remote(server: Scripted) -> Iterator[RemoteAssistant]:
    with RemoteAssistant(server.url, "m") as assistant:
        yield assistant


def chunk(reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def answer_of(remote: RemoteAssistant, **params: Any) -> Answer:
    (answer,) = remote.answers("q", params=params)
    return answer


def test_the_blanks_in_front_of_chatglm3s_replies_are_left_out(server: Scripted, remote: RemoteAssistant) -> None:
    def token(text: str) -> dict[str, Any]:
        return {"token": text, "logprob": -1.0, "bytes": list(text.encode()), "top_logprobs": []}

    pieces = ["\n", " ", "你好", "\n\n", "再见"]
    chunks = [chunk(content=piece) for piece in pieces]
    for one, piece in zip(chunks, pieces, strict=True):
        one["choices"][0]["logprobs"] = {"content": [token(piece)]}
    server.say(chunk(role="assistant", content=""), *chunks, chunk("stop"))
    answer = answer_of(remote, logprobs=0)
    assert answer.message.content == "你好\n\n再见"
    assert b"".join(entry.data for entry in answer.logprobs).decode() == "你好\n\n再见"
    assert [delta.text for delta in remote.stream("q") if isinstance(delta, TextDelta)] == ["你好", "\n\n", "再见"]
    server.say(chunk(content="\n 你好"), chunk("stop"))
    assert answer_of(remote).message.content == "你好"
    # A text that goes on keeps its blanks.
    server.say({"choices": [{"index": 0, "text": "\n x", "finish_reason": "stop"}]})
    first, _ = remote.stream_text("p")
    assert isinstance(first, TextDelta)
    assert first.text == "\n x"


ODD: list[tuple[list[Any], str, str]] = [
    ([{"choices": [], "prompt_filter_results": []}, chunk(content="a"), chunk("stop")], "a", "stop"),
    ([chunk(content="a"), {"choices": None, "usage": None}, chunk("stop")], "a", "stop"),
    ([{"choices": [{"index": None, "delta": None, "finish_reason": None}]}, chunk("stop", content="a")], "a", "stop"),
    ([chunk(content="a", reasoning_content="b", role=None, tool_calls=None), chunk("length")], "a", "length"),
    ([{**chunk(content="a"), "error": None}, chunk("eos_token")], "a", "stop"),
    ([chunk(content="a")], "a", "stop"),  # no reason is given, and [DONE] ends it
    (
        [chunk("stop", content="a"), {"usage": {"prompt_tokens": None, "prompt_tokens_details": None}, "choices": []}],
        "a",
        "stop",
    ),
]


@pytest.mark.parametrize(("chunks", "text", "reason"), ODD)
def test_what_is_not_needed_may_be_missing(
    server: Scripted, remote: RemoteAssistant, chunks: list[Any], text: str, reason: str
) -> None:
    server.say(*chunks)
    answer = answer_of(remote)
    assert (answer.message.content, answer.finish.reason) == (text, reason)


def test_log_probabilities_that_are_null(server: Scripted, remote: RemoteAssistant) -> None:
    entries = [{"token": "a", "logprob": None}, {"token": "b", "logprob": -1, "bytes": None, "top_logprobs": None}]
    server.say({"choices": [{"delta": {"content": "ab"}, "logprobs": {"content": entries}}]}, chunk("stop"))
    assert [entry.data for entry in answer_of(remote, logprobs=1).logprobs] == [b"b"]
    old = {"tokens": ["a", "b"], "token_logprobs": [None, -1.0], "top_logprobs": None, "text_offset": None}
    server.say({"choices": [{"text": "ab", "logprobs": old, "finish_reason": "stop"}]})
    first, _ = remote.stream_text("p", params={"logprobs": 0})
    assert isinstance(first, TextDelta)
    assert [entry.data for entry in first.logprobs] == [b"b"]


def call(index: Any, given: Any, name: Any, arguments: Any) -> dict[str, Any]:
    return {"index": index, "id": given, "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    "pieces",
    [
        [call(0, "a", "f", '{"x": 1}'), call(1, "b", "g", "{}")],
        [call(0, "a", "f", ""), call(0, None, None, '{"x": '), call(0, "", "", "1}"), call(1, "b", "g", None)],
        [call(0, "a", "f", '{"x": '), call(0, "a", "f", "1}"), call(0, "b", "g", "{}")],  # all of index 0
        [call(None, "a", "f", {"x": 1}), call(None, "b", "g", {})],
    ],
)
def test_calls_as_servers_send_them(server: Scripted, remote: RemoteAssistant, pieces: list[Any]) -> None:
    server.say(*(chunk(tool_calls=[piece]) for piece in pieces), chunk("stop"))
    answer = answer_of(remote)
    assert answer.message.tool_calls == (ToolCall("f", {"x": 1}, "a"), ToolCall("g", {}, "b"))
    assert answer.finish.reason == "tool_calls"


def test_old_calls_get_ids(server: Scripted, remote: RemoteAssistant) -> None:
    server.say(
        chunk(function_call={"name": "f", "arguments": ""}),
        chunk(function_call={"arguments": '{"x": 1}'}),
        chunk("function_call"),
    )
    (made,) = answer_of(remote).message.tool_calls
    assert (made.name, made.arguments) == ("f", {"x": 1})
    assert made.id


TOO_LONG = "This model's maximum context length is 2048 tokens; your messages resulted in 5007 tokens."


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        ({"error": {"message": TOO_LONG, "code": 400}}, ContextError, "5007"),
        ({"error": {"message": "long", "code": "context_length_exceeded"}}, ContextError, "long"),
        ({"error": {"message": "bad"}}, InputError, "bad"),
        ({"error": "bad"}, InputError, "bad"),
        ({"message": "bad", "error": None}, InputError, "bad"),
        ({"detail": "bad"}, InputError, "bad"),
        (["bad"], InputError, "bad"),
        (None, InputError, "None"),
    ],
)
def test_errors(server: Scripted, remote: RemoteAssistant, error: Any, kind: type[Exception], words: str) -> None:
    server.status, server.lines = 400, [json.dumps(error)]
    with pytest.raises(kind, match=words):
        remote.reply("q")
    if isinstance(error, dict) and error.get("error"):
        server.say(chunk(content="a"), error, done=False)
        with pytest.raises(ContextError if kind is ContextError else ServiceError, match=words):
            remote.reply("q")


@pytest.mark.parametrize(
    "line",
    [
        "data: {",
        "data: []",
        "data: 5",
        'data: {"choices": 5}',
        'data: {"choices": [5]}',
        'data: {"choices": [{"index": Infinity, "delta": {"content": "a"}}]}',
        'data: {"choices": [], "usage": [1]}',
        'data: {"choices": [], "usage": {"prompt_tokens": "many"}}',
        'data: {"choices": [], "usage": {"prompt_tokens": Infinity}}',
        'data: {"choices": [], "usage": {"prompt_tokens_details": [1]}}',
    ],
)
def test_what_is_no_stream_is_told(server: Scripted, remote: RemoteAssistant, line: str) -> None:
    server.status, server.lines = 200, [line, f"data: {json.dumps(chunk('stop', content='a'))}", "data: [DONE]"]
    with pytest.raises(ServiceError, match="not in OpenAI's form"):
        remote.reply("q")


def test_counts_below_zero_are_none(server: Scripted, remote: RemoteAssistant) -> None:
    server.say(chunk("stop", content="a"), {"choices": [], "usage": {"prompt_tokens": -1, "completion_tokens": -5}})
    usage = answer_of(remote).finish.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (0, 0)


def test_a_character_that_comes_in_two_chunks_is_whole(server: Scripted, remote: RemoteAssistant) -> None:
    """Servers in JavaScript cut texts between the halves of a surrogate pair. A half alone is not text, and could not
    be sent to a client."""
    server.say(chunk(content="a\ud83d"), chunk(content="\ude00b"), chunk(content="\ude00c\ud83d"), chunk("stop"))
    assert answer_of(remote).message.content == "a😀b\ufffdc\ufffd"
    assert [one.text for one in remote.stream("q") if isinstance(one, TextDelta)] == ["a", "😀b", "\ufffdc", "\ufffd"]
    pieces = ['{"x": "\ud83d', '\ude00"}']
    calls = [chunk(tool_calls=[call(0, "a", "f\ud83d", pieces[0])]), chunk(tool_calls=[call(0, None, None, pieces[1])])]
    server.say(*calls, chunk("tool_calls"))
    (made,) = answer_of(remote).message.tool_calls
    assert (made.name, made.arguments) == ("f\ufffd", {"x": "😀"})
    server.status, server.lines = 400, [json.dumps({"error": {"message": "no \ud83d"}})]
    with pytest.raises(InputError, match="no \ufffd"):
        remote.reply("q")


@pytest.mark.parametrize("after", ["²", "9" * 5000, "9" * 400, "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_odd_times_to_wait_do_not_count(after: str) -> None:
    error = refusal("u", 429, b'{"error": {"message": "full"}}', after)
    assert isinstance(error, QueueFullError)
    assert error.retry_after < 60


def test_a_refusal_that_is_nested_too_deep_is_told(server: Scripted, remote: RemoteAssistant) -> None:
    server.status, server.lines = 400, ["[" * 100_000]
    with pytest.raises(InputError, match=r"\[\["):
        remote.reply("q")
    server.status, server.lines = 200, ["[" * 100_000]
    with pytest.raises(ServiceError, match="/models: sent no list"):
        RemoteAssistant(server.url).model  # noqa: B018
    with pytest.raises(ServiceError, match="sent no count"):
        remote.count("q")


def test_a_stream_that_breaks_off_is_told(server: Scripted, remote: RemoteAssistant) -> None:
    server.say(chunk(content="a"), done=False)
    with pytest.raises(ServiceError, match="in the middle of an answer"):
        remote.reply("q")


def test_only_line_feeds_end_a_line(server: Scripted, remote: RemoteAssistant) -> None:
    """A line of JSON may hold what Unicode calls line ends, unescaped."""
    text = "a\u2028b\x85c\u2029d"
    server.status = 200
    server.lines = [f"data: {json.dumps(chunk('stop', content=text), ensure_ascii=False)}", "data: [DONE]"]
    assert answer_of(remote).message.content == text


def test_a_prompt_that_is_not_given_back_is_refused(server: Scripted, remote: RemoteAssistant) -> None:
    logprobs = {"tokens": ["x"], "token_logprobs": [-1.0], "top_logprobs": None}
    whole = {"choices": [{"text": "x", "logprobs": logprobs}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    server.status, server.lines = 200, [json.dumps(whole)]
    with pytest.raises(UnsupportedError, match="echo"):
        list(remote.stream_text("p", params={"prompt_logprobs": 0}))
    for wrong in ("{", "[]", "{}", '{"choices": [], "usage": 5}', '{"choices": [{}], "usage": {"prompt_tokens": 1}}'):
        server.lines = [wrong]
        with pytest.raises(ServiceError, match="completions"):
            list(remote.stream_text("p", params={"prompt_logprobs": 0}))


def test_a_persona_goes_in_a_system_message(over: Any, write: Writer) -> None:
    url, engine = over(write.say("好"))
    persona = Persona("苏梦远", "歌手", "陆星辰")
    with RemoteAssistant(f"{url}/v1", "demo") as assistant:
        assert assistant.reply("你好", persona=persona).content == "好"
    told = Message("system", "请你扮演苏梦远。歌手。和你对话的是陆星辰。")
    assert engine.asked[0].ids == write.form.prompt([told, Message("user", "你好")])
