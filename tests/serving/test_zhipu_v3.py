"""ZhipuAI's v3: what goes over the wire, and errors that its clients can read."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from typing import Any

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st

from chatglm.assistant import Assistant
from chatglm.chat.formats import chat_format
from chatglm.chat.messages import Message, messages_from_pairs
from chatglm.chat.personas import Persona
from chatglm.chat.tokenizers import ChatGLMTokenizer
from chatglm.errors import NumericalError
from chatglm.serving.zhipu.events import _named
from scripted import ScriptedEngine, Writer
from server import serving
from waiting import until

BASE = "/api/paas/v3/model-api"
ASK: dict[str, Any] = {"prompt": [{"role": "user", "content": "你好"}]}
META = {"bot_name": "苏梦远", "bot_info": "歌手", "user_name": "陆星辰", "user_info": "音乐人"}

Over = Callable[..., tuple[str, Any]]


def post(url: str, body: Any = ASK, route: str = "/demo/invoke") -> httpx.Response:
    return httpx.post(url + BASE + route, json=body, timeout=60)


def read(stream: str) -> list[dict[str, Any]]:
    """Events as the package reads them: one blank behind the colon is no part of the value."""
    found = []
    for part in stream.removesuffix("\n\n").split("\n\n"):
        fields: dict[str, Any] = {"data": []}
        for line in re.split("\r\n|\r|\n", part):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                fields["data"].append(value)
            else:
                fields[name] = value
        found.append({**fields, "data": "\n".join(fields["data"])})
    return found


def events(url: str, body: Any = ASK) -> list[dict[str, Any]]:
    answer = post(url, body, "/demo/sse-invoke")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "\r" not in answer.text
    return read(answer.text)


def test_whole(over: Over, write: Writer) -> None:
    url, engine = over(write.say('你好，"世界"'))
    answer = post(url, {**ASK, "request_id": "r-1"}).json()
    made, asked = write.counted('你好，"世界"'), len(engine.asked[0].ids)
    task = answer["data"].pop("task_id")
    assert task
    assert answer == {
        "code": 200,
        "msg": "操作成功",
        "data": {
            "request_id": "r-1",
            "task_status": "SUCCESS",
            "choices": [{"role": "assistant", "content": '"你好，\\"世界\\""'}],
            "usage": {"prompt_tokens": asked, "completion_tokens": made, "total_tokens": asked + made},
        },
        "success": True,
    }
    plain = post(url, {**ASK, "return_type": "text"}).json()["data"]
    assert plain["choices"] == [{"role": "assistant", "content": '你好，"世界"'}]
    assert plain["request_id"] == plain["task_id"] != task


def test_bytes_of_a_stream(over: Over, write: Writer) -> None:
    url, engine = over(write.say("好\n\n  好"), pace=100)
    answer = post(url, {**ASK, "request_id": "r"}, "/demo/sse-invoke").text
    task = read(answer)[0]["id"]
    asked, made = len(engine.asked[0].ids), write.counted("好\n\n  好")
    usage = f'{{"prompt_tokens":{asked},"completion_tokens":{made},"total_tokens":{asked + made}}}'
    assert answer == (
        f"event:add\ndata:好\nid:{task}\n\nevent:add\ndata:\ndata:\ndata:   好\nid:{task}\n\n"
        f"event:finish\ndata:\nid:{task}\n"
        f'meta:{{"task_status":"SUCCESS","usage":{usage},"task_id":"{task}","request_id":"r"}}\n\n'
    )


def test_a_stream_is_the_whole(over: Over, write: Writer) -> None:
    text = "one  two\nthree\r\nfour\n\n five 六"
    url, _ = over(write.say(text))
    whole = post(url, {**ASK, "return_type": "text"}).json()["data"]
    said = whole["choices"][0]["content"].replace("\r\n", "\n")
    for more in ({}, {"incremental": True}):
        *added, finish = events(url, {**ASK, **more})
        assert {event["event"] for event in added} == {"add"}
        assert len(added) > 3
        assert "".join(event["data"] for event in added) == said
        assert (finish["event"], finish["data"]) == ("finish", "")
        assert json.loads(finish["meta"])["usage"] == whole["usage"]
    *added, finish = events(url, {**ASK, "incremental": False})
    assert added[-1]["data"] == said
    for before, after in itertools.pairwise(added):
        assert after["data"].startswith(before["data"])
        assert len(after["data"]) > len(before["data"])
    assert finish["event"] == "finish"


@settings(deadline=None)
@given(st.text(alphabet=" \n\r:ab中\u2028", min_size=1, max_size=20))
def test_no_text_is_lost_in_an_event(text: str) -> None:
    (event,) = read(_named("add", text, "1"))
    assert event["data"] == re.sub("\r\n|\r", "\n", text)
    assert event["event"] == "add"


def test_whole_texts_do_not_grow_with_the_square(over: Over, write: Writer) -> None:
    url, _ = over(write.say("字" * 2000), context=4000)
    text = post(url, {**ASK, "incremental": False}, "/demo/sse-invoke").text
    assert len(text) < 130 * 2000
    assert read(text)[-2]["data"] == "字" * 2000


def test_forms_of_a_dialogue(over: Over, write: Writer) -> None:
    url, engine = over(write.say("好"))
    for body, said in (
        ({"prompt": "问"}, messages_from_pairs([], "问")),
        ({"prompt": "问", "history": [["a", "b"]]}, messages_from_pairs([("a", "b")], "问")),
        ({"prompt": "问", "history": ["a", "b"]}, messages_from_pairs([("a", "b")], "问")),
        ({"prompt": "问", "history": []}, messages_from_pairs([], "问")),
        (
            {"prompt": "问", "history": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            messages_from_pairs([("a", "b")], "问"),
        ),
        (
            {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "问"}], "history": []},
            [Message("system", "s"), Message("user", "问")],
        ),
    ):
        assert post(url, body).json()["success"]
        assert engine.asked.pop().ids == write.form.prompt(said)


def test_options_are_obeyed(over: Over, write: Writer) -> None:
    url, engine = over(write.say("好"))
    hints = {"model": "other", "ref": {"enable": False}, "user_id": "u", "prompt": "x", "meta": None, "top_p": None}
    answer = post(url, {**hints, "temperature": 0.9, "top_p": 0.7, "seed": 1, "max_tokens": 5, "stop": "END"})
    assert answer.json()["success"], answer.text
    assert {"model", "ref", "user_id"} <= set(answer.headers["x-chatglm-ignored"].split(", "))
    params = engine.asked[0].params
    assert (params.temperature, params.top_p, params.seed, params.max_new_tokens) == (0.9, 0.7, 1, 5)
    assert params.stop == ("END",)
    assert post(url, {**ASK, "temperature": 0.9, "do_sample": False}).json()["success"]
    assert engine.asked[1].params.temperature == 0


REFUSED: list[tuple[str, Any, int, str]] = [
    ("/nobody", {}, 1211, "模型不存在，请检查模型代码。model: 'nobody' is not served here"),
    ("/a/b", {}, 1211, "model: 'a/b' is not served here"),
    ("/demo", {"prompt": None}, 1213, "未正常接收到 prompt 参数。prompt: required"),
    ("/demo", {"prompt": []}, 1214, "prompt: must not be empty"),
    ("/demo", {"prompt": 5}, 1214, "prompt: must be a list of messages with `role` and `content`, or a string; got 5"),
    ("/demo", {"prompt": [{"role": "bard", "content": "x"}]}, 1214, "prompt[0].role: must be one of"),
    ("/demo", {"history": [["a", "b"]]}, 1215, "history 与 prompt 不能同时设置"),
    ("/demo", {"prompt": "x", "history": ["a"]}, 1214, "history: has 1 texts"),
    ("/demo", {"prompt": "x", "history": [["a"]]}, 1214, "history[0]: must have at least 2 items"),
    ("/demo", {"prompt": "x", "history": "a"}, 1214, "history: must be a list"),
    ("/demo", {"ref": {"enable": True}}, 1214, 'ref: only {} or {"enable": false} is supported'),
    ("/demo", {"return_type": "xml"}, 1214, "return_type: must be one of: json_string, text"),
    ("/demo", {"incremental": 1}, 1214, "incremental: must be true or false"),
    ("/demo", {"tools": [{"type": "function"}]}, 1214, "tools: only [] is supported"),
    ("/demo", {"temperature": -1}, 1214, "temperature 参数非法"),
    ("/demo", {"prompt": "word " * 900}, 1261, "Prompt 超长。This model's maximum context length is 512 tokens"),
]


def test_errors_have_status_200(over: Over, write: Writer) -> None:
    url, engine = over(write.say("好"))
    for model, change, code, words in REFUSED:
        answer = post(url, {**ASK, **change}, f"{model}/invoke")
        assert answer.status_code == 200
        assert answer.json().keys() == {"code", "msg", "success"}
        assert (answer.json()["code"], answer.json()["success"]) == (code, False)
        assert words in answer.json()["msg"]

        streamed = post(url, {**ASK, **change}, f"{model}/sse-invoke")
        assert streamed.status_code == 200
        assert streamed.headers["content-type"].startswith("text/event-stream")
        (event,) = read(streamed.text)
        assert (event["event"], event["data"]) == ("error", answer.json()["msg"])
        meta = json.loads(event["meta"])
        assert (meta["task_status"], meta["code"]) == ("FAIL", code)
    assert engine.asked == []


def test_other_failures(over: Over, write: Writer) -> None:
    url, _ = over(write.say("好"), room=0)
    full = post(url)
    assert (full.status_code, full.json()["code"]) == (200, 1302)
    assert full.headers["retry-after"]
    for route, body in (("/demo/invoke", b"{"), ("/demo/invoke", b"")):
        answer = httpx.post(url + BASE + route, content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (200, 1210)
    assert post(url, {}, "/demo/elsewhere").json()["code"] == 1222
    wrong = httpx.get(url + BASE + "/demo/invoke")
    assert (wrong.status_code, wrong.json()["code"]) == (405, 1212)
    assert re.search(r'requests_total{dialect="zhipu-v3",.*status="429"} 1\.0', httpx.get(url + "/metrics").text)


def test_an_error_within_a_stream(over: Over, write: Writer) -> None:
    step = 0

    def fail() -> None:
        nonlocal step
        step += 1
        if step == 5:
            raise NumericalError("row 0 has NaN")

    url, _ = over(write.say("one two three four five six seven"), watch=fail)
    *added, last = events(url)
    assert {event["event"] for event in added} == {"add"}
    assert last["event"] == "error"
    assert last["data"].startswith("内部错误。")
    assert json.loads(last["meta"])["code"] == 500


def test_a_call_without_tools_is_an_error(over: Over, write: Writer) -> None:
    url, _ = over(write.call(("f", {"a": 1})))
    assert "tool call" in post(url).json()["msg"]
    assert events(url)[-1]["event"] == "error"


def test_meta(over: Over, write: Writer) -> None:
    url, engine = over(write.say("好"))
    assert post(url, {**ASK, "meta": META}).json()["success"]
    assert engine.asked[0].ids == write.form.with_persona(Persona(**META)).prompt([Message("user", "你好")])


def test_characterglm(checkpoint: Any) -> None:
    """The official prompt, and an answer that ends where the model would speak for the user."""
    tokenizer = ChatGLMTokenizer.from_pretrained(checkpoint("chatglm2"), generation="characterglm")
    write = Writer(chat_format(tokenizer))
    engine = ScriptedEngine(write.say("想听什么歌？\n[陆星辰]随便\n[苏梦远]好"))
    prompt = [{"role": "assistant", "content": "你来啦"}, {"role": "user", "content": "唱\n歌吧"}]
    body = {"prompt": prompt, "meta": META, "return_type": "text"}
    with Assistant(write.form, engine) as assistant, serving({"characterglm": assistant}) as url:  # type: ignore[arg-type]
        answer = post(url, body, "/characterglm/invoke").json()
        assert answer["data"]["choices"][0]["content"] == "想听什么歌？"
        assert tokenizer.decode(engine.asked[0].ids[2:]) == (
            "以下是一段苏梦远和陆星辰之间的对话。\n关于苏梦远的信息：歌手\n关于陆星辰的信息：音乐人\n"
            "[苏梦远]你来啦\n[陆星辰]唱 歌吧\n[苏梦远]"
        )
        streamed = read(post(url, body, "/characterglm/sse-invoke").text)
        assert "".join(event["data"] for event in streamed) == "想听什么歌？"
        whole = httpx.post(
            url + "/api/paas/v4/chat/completions", json={"model": "characterglm", "messages": prompt, "meta": META}
        )
        assert whole.json()["choices"][0]["message"]["content"] == "想听什么歌？"
        assert engine.asked[2].ids == engine.asked[0].ids


def result_of(url: str, task: str) -> Any:
    def look() -> Any:
        found = httpx.get(f"{url}{BASE}/-/async-invoke/{task}").json()
        assert (found["code"], found["msg"], found["success"]) == (200, "操作成功", True)
        return found["data"] if found["data"]["task_status"] != "PROCESSING" else None

    return until(look, pause=0.05)


def test_answers_that_come_later(over: Over, write: Writer) -> None:
    url, _ = over(write.say("好的"))
    begun = post(url, {**ASK, "request_id": "r", "return_type": "text"}, "/demo/async-invoke").json()
    task = begun["data"]["task_id"]
    assert begun == {
        "code": 200,
        "msg": "操作成功",
        "data": {"request_id": "r", "task_id": task, "task_status": "PROCESSING"},
        "success": True,
    }
    found = result_of(url, task)
    assert found.pop("usage")["completion_tokens"] == write.counted("好的")
    choices = [{"role": "assistant", "content": "好的"}]
    assert found == {"request_id": "r", "task_id": task, "task_status": "SUCCESS", "choices": choices}

    long = {"prompt": "word " * 900}
    found = result_of(url, post(url, long, "/demo/async-invoke").json()["data"]["task_id"])
    assert found["task_status"] == "FAIL"
    assert found["error"]["code"] == 1261
    for model, change, code, _ in REFUSED[:5]:
        refused = post(url, {**ASK, **change}, f"{model}/async-invoke")
        assert (refused.status_code, refused.json()["code"], refused.json()["success"]) == (200, code, False)
    gone = httpx.get(f"{url}{BASE}/-/async-invoke/none")
    assert (gone.status_code, gone.json()["code"], gone.json()["success"]) == (200, 1222, False)
