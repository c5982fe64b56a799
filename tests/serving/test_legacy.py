"""`POST /` of api.py."""

from __future__ import annotations

import re
from typing import Any

import httpx

from chatglm.chat.messages import Message, messages_from_pairs
from scripted import Writer


def test_pairs(over: Any, write: Writer) -> None:
    url, engine = over(write.say("好的"))
    answer = httpx.post(url, json={"prompt": "问", "history": [["a", "b"]]})
    body = answer.json()
    assert body["response"] == "好的"
    assert body["history"] == [["a", "b"], ["问", "好的"]]
    assert body["status"] == 200
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", body["time"])
    asked = engine.asked[0]
    assert asked.ids == write.form.prompt(messages_from_pairs([("a", "b")], "问"))
    assert (asked.params.temperature, asked.params.top_p) == (0.95, 0.7)
    again = httpx.post(url, json={"prompt": "又", "history": body["history"]}).json()
    assert again["history"] == [*body["history"], ["又", "好的"]]


def test_options_are_obeyed(over: Any, write: Writer) -> None:
    url, engine = over(write.say("好的"))
    # differences: legacy-zero. Officially a temperature of 0 is taken for none given.
    options = {"temperature": 0, "top_p": 0.5, "max_length": 100, "history": None}
    assert httpx.post(url, json={"prompt": "问", **options}).status_code == 200
    params = engine.asked[0].params
    assert (params.temperature, params.top_p) == (0, 0.5)
    assert len(engine.asked[0].ids) + params.max_new_tokens == 100


def test_roles(over: Any, write: Writer) -> None:
    url, engine = over(write.say("好的"))
    history = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"}]
    history.append({"role": "assistant", "content": "b", "metadata": ""})
    body = httpx.post(url, json={"prompt": "问", "history": history}).json()
    assert body["history"][-2:] == [{"role": "user", "content": "问"}, {"role": "assistant", "content": "好的"}]
    said = [Message("system", "Be brief."), Message("user", "a"), Message("assistant", "b"), Message("user", "问")]
    assert engine.asked[0].ids == write.form.prompt(said)
    assert httpx.post(url, json={"prompt": "又", "history": body["history"]}).status_code == 200


def test_long_histories_are_cut(over: Any, write: Writer) -> None:
    url, engine = over(write.say("好的"))
    body = httpx.post(url, json={"prompt": "问", "history": [["word " * 20, "word " * 20]] * 30}).json()
    assert len(body["history"]) == 31
    assert len(engine.asked[0].ids) < 512


def test_errors_have_its_shape(over: Any, write: Writer) -> None:
    url, engine = over(write.say("好的"))
    for change, words in (
        ({"prompt": 3}, "prompt: must be a string; got 3"),
        ({"prompt": None}, "prompt: required"),
        ({"top_k": 3}, "top_k: unknown field"),
        ({"history": 3}, "history: must be a list of pairs (prompt, response), or of messages; got 3"),
        ({"history": [["a"]]}, "history[0]: must have at least 2 items"),
        ({"history": [["a", 5]]}, "history[0][1]: must be a string; got 5"),
        ({"history": [["a", "b"], {"role": "user"}]}, "history[1]: must be a list; got an object"),
        ({"history": [{"role": "bard", "content": "x"}]}, "history[0].role: must be one of: system, user, assistant"),
        ({"history": [{"role": "user"}]}, "history[0].content: required"),
        (
            {"history": [{"role": "user", "content": "x", "metadata": "a\nb"}]},
            "history[0].metadata: must be one line of text",
        ),
        ({"temperature": -1}, "temperature: must be at least 0; got -1"),
        ({"max_length": 2}, "max_length is 2 tokens; your messages resulted in"),
        ({"prompt": "word " * 900}, "This model's maximum context length is 512 tokens"),
    ):
        answer = httpx.post(url, json={"prompt": "x", **change})
        assert answer.status_code == answer.json()["status"] == 400
        assert answer.json().keys() == {"status", "error", "time"}
        assert words in answer.json()["error"]
    assert engine.asked == []


def test_full_queue(over: Any, write: Writer) -> None:
    url, _ = over(write.say("好的"), room=0)
    answer = httpx.post(url, json={"prompt": "x"})
    assert answer.status_code == answer.json()["status"] == 429
    assert answer.headers["retry-after"]
