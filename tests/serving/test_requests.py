"""What requests may contain: what is accepted and ignored, what is refused and in which words, the forms that clients
send."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, ValidationError
from starlette.testclient import TestClient

import hostile
from chatglm.assistant import Assistant
from chatglm.serving import fields, hints
from chatglm.serving.anthropic.requests import MessagesRequest
from chatglm.serving.app import create_app
from chatglm.serving.bodies import BodyError, Limits, parse_now
from chatglm.serving.openai.requests import ChatRequest, CompletionRequest
from chatglm.serving.openai.responses_api.requests import ResponsesRequest
from chatglm.serving.zhipu.requests import InvokeRequest, ZhipuChatRequest
from scripted import ScriptedEngine, Writer

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
USER = {"role": "user", "content": "你好"}
ASK: dict[str, Any] = {"model": "demo", "messages": [USER]}
FUNCTION = {
    "name": "get_weather",
    "description": "the weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "北京"}'}}


def post(url: str, body: Any, route: str = CHAT) -> httpx.Response:
    return httpx.post(url + route, json=body, timeout=60)


def said(change: dict[str, Any]) -> dict[str, Any]:
    """A request that says something about its only message."""
    return {"messages": [{**USER, **change}]}


# What cannot change the answer


IGNORED: list[tuple[dict[str, Any], str]] = [
    *(
        ({name: value}, name)
        for name, value in {
            # caching, storage, tracing, tier, identity
            "user": "me", "safety_identifier": "a", "metadata": {"a": "b"}, "store": True, "service_tier": "flex",
            "prompt_cache_key": "k", "prompt_cache_retention": "24h", "prediction": {"type": "content", "content": "x"},
            # reasoning
            "reasoning_effort": "high", "verbosity": "low", "include_reasoning": True, "separate_reasoning": True,
            "stream_reasoning": True, "thinking": {"type": "enabled"}, "enable_thinking": True,
            "chat_template_kwargs": {"enable_thinking": True},
            # routers and neutral values
            "no_stop_trim": False, "ignore_eos": False, "continue_final_message": False, "skip_special_tokens": True,
            "spaces_between_special_tokens": True, "return_hidden_states": False, "add_generation_prompt": True,
            "functions": [], "web_search_options": {}, "best_of": 1, "echo": False, "use_beam_search": False,
            "length_penalty": 1.0, "stream_options": {"include_usage": True}, "top_logprobs": 0,
        }.items()
    ),
    ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
    *(
        (said({name: value}), f"messages.{name}")
        for name, value in {
            "name": "bob", "id": "m1", "reasoning_content": "hm", "provider_specific_fields": {}, "refusal": "",
            "cache_control": {"type": "ephemeral"}, "metadata": {},
        }.items()
    ),
    *(
        ({"messages": [USER, {"role": role, "content": "x", "name": "n"}]}, "messages.name")
        for role in ("system", "developer", "assistant", "tool", "function", "observation")
    ),
    (said({"content": [{"type": "text", "text": "x", "cache_control": {}}]}), "messages.content.cache_control"),
    ({"tools": [{**TOOL, "cache_control": {}}]}, "tools.cache_control"),
    ({"tools": [{"type": "function", "function": {**FUNCTION, "cache_control": {}}}]}, "tools.cache_control"),
    (
        {"messages": [USER, {"role": "assistant", "tool_calls": [{**CALL, "index": 0}]}, USER]},
        "messages.tool_calls.index",
    ),
]  # fmt: skip


def test_what_cannot_change_the_answer_is_accepted_and_named(over: Any, write: Writer) -> None:
    url, engine = over(write.say("好"))
    assert hints.IGNORED_HEADER not in post(url, ASK).headers
    plain = engine.asked[-1]
    for change, name in IGNORED:
        answer = post(url, ASK | change)
        assert answer.status_code == 200, (change, answer.text)
        assert name in answer.headers[hints.IGNORED_HEADER].split(", "), (change, answer.headers)
        params = engine.asked[-1].params.to_dict() | {"max_new_tokens": plain.params.max_new_tokens}
        assert params == plain.params.to_dict()
        if "messages" not in change and "tools" not in change:
            assert engine.asked[-1].ids == plain.ids
    answer = post(url, {"model": "demo", "prompt": "x", "best_of": 1, "suffix": "", "user": "me"}, TEXT)
    assert answer.headers[hints.IGNORED_HEADER] == "best_of, suffix, user"


def test_null_is_left_out_anywhere(over: Any, write: Writer) -> None:
    url, _ = over(write.say("好"))
    fields = {name: None for name in [*ChatRequest.model_fields, "anything", ""] if name != "messages"}
    assert post(url, {**fields, "messages": [USER]}).status_code == 200
    message = {"role": "assistant", "content": None, "tool_calls": None, "refusal": None, "audio": None, "x": None}
    tool = {"type": None, "cache_control": None, "x": None, "function": {**FUNCTION, "strict": None, "x": None}}
    options = {"include_usage": None, "x": None}
    body = ASK | {"messages": [USER, message, USER], "tools": [tool], "stream": True, "stream_options": options}
    assert post(url, body).status_code == 200


REFUSED: list[tuple[dict[str, Any], str, str, str]] = [
    # what would change the text
    ({"ignore_eos": True}, "ignore_eos", "unsupported", "only false is supported"),
    ({"skip_special_tokens": False}, "skip_special_tokens", "unsupported", "only true is supported"),
    ({"chat_template_kwargs": {"a": 1}}, "chat_template_kwargs", "unsupported", "only {} or"),
    ({"continue_final_message": True}, "continue_final_message", "unsupported", "only false"),
    ({"best_of": 3, "n": 2}, "best_of", "unsupported", "only 1 is supported"),
    ({"length_penalty": 2.0}, "length_penalty", "unsupported", "only 1"),
    ({"use_beam_search": True}, "use_beam_search", "unsupported", "only false"),
    ({"echo": True}, "echo", "unsupported", "only false"),
    ({"web_search_options": {"search_context_size": "low"}}, "web_search_options", "unsupported", "only {}"),
    ({"audio": {"voice": "x"}}, "audio", "unsupported", "not supported; leave it out"),
    ({"modalities": ["audio"]}, "modalities[0]", "invalid_value", 'must be text; got "audio"'),
    ({"stream_options": {"x": 1}}, "stream_options.x", "unknown_field", "unknown field"),
    ({"temprature": 1}, "temprature", "unknown_field", "unknown field"),
    ({"": 1}, '[""]', "unknown_field", "unknown field"),
    ({"a b\n": 1}, '["a b\\n"]', "unknown_field", "unknown field"),
    # one of each kind of value
    ({"temperature": "1"}, "temperature", "invalid_value", 'must be a number; got "1"'),
    ({"temperature": -1}, "temperature", "invalid_value", "must be at least 0; got -1"),
    ({"top_p": 0}, "top_p", "invalid_value", "must be above 0; got 0"),
    ({"top_p": 1.5}, "top_p", "invalid_value", "must be at most 1; got 1.5"),
    ({"n": 1.5}, "n", "invalid_value", "must be an integer; got 1.5"),
    ({"n": True}, "n", "invalid_value", "must be an integer; got true"),
    ({"stream": "yes"}, "stream", "invalid_value", 'must be true or false; got "yes"'),
    ({"model": 5}, "model", "invalid_value", "must be a string; got 5"),
    ({"seed": 2**70}, "seed", "invalid_value", "it must be from"),
    ({"stop": 5}, "stop", "invalid_value", "must be a string or a list of strings; got 5"),
    ({"stop": [""]}, "stop[0]", "invalid_value", "must not be empty"),
    ({"stop": ["x", []]}, "stop[1]", "invalid_value", "must be a string; got a list"),
    ({"logit_bias": {"x": 1}}, "logit_bias", "invalid_value", "'x' is not a token id"),
    ({"logit_bias": {"7": 101}}, 'logit_bias["7"]', "invalid_value", "must be at most 100; got 101"),
    ({"max_tokens": 0}, "max_tokens", "invalid_value", "must be at least 1; got 0"),
    ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", "invalid_value", "send one"),
    ({"top_logprobs": 2}, "top_logprobs", "invalid_value", "needs logprobs: true"),
    # messages
    ({"messages": []}, "messages", "invalid_value", "must not be empty"),
    ({"messages": "x"}, "messages", "invalid_value", 'must be a list; got "x"'),
    ({"messages": ["x"]}, "messages[0]", "invalid_value", 'must be an object; got "x"'),
    ({"messages": None}, "messages", "missing", "required"),
    (said({"role": "bard"}), "messages[0].role", "invalid_value", "must be one of: system, developer, user"),
    (said({"role": None}), "messages[0].role", "missing", "required"),
    (said({"content": None}), "messages[0].content", "missing", "required"),
    (said({"content": 5}), "messages[0].content", "invalid_value", "must be a string or a list of text parts; got 5"),
    (said({"": 5}), 'messages[0][""]', "unknown_field", "unknown field"),
    (said({"user": 5}), "messages[0].user", "unknown_field", "unknown field"),
    (said({"content": ["x"]}), "messages[0].content[0]", "invalid_value", "must be an object with a `type`"),
    (said({"content": [{"type": "text"}]}), "messages[0].content[0].text", "missing", "required"),
    *(
        (said({"content": [{"type": "text", "text": "x"}, {"type": kind}]}), "messages[0].content[1]", "unsupported", w)
        for kind, w in {
            "image_url": "images are not supported by this model; send text",
            "image": "images are not supported",
            "input_audio": "audio is not supported",
            "video_url": "videos are not supported",
            "file": "files are not supported",
            "input_text": "belong to the Responses API; here use type text",
            "tool_result": "belong to Anthropic's Messages API",
            "hologram": "'hologram' are not supported; supported: text",
        }.items()
    ),
    (
        {"messages": [USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 5}}]}]},
        "messages[1].tool_calls[0].function.arguments",
        "invalid_value",
        "must be an object, or a string that holds one as JSON; got 5",
    ),
    (
        {"messages": [{"role": "assistant", "tool_calls": [CALL], "function_call": CALL["function"]}]},
        "messages[0].function_call",
        "invalid_value",
        "cannot be given together with tool_calls",
    ),
    # tools
    ({"tools": 5}, "tools", "invalid_value", "must be a list of functions, or an object of them by name; got 5"),
    ({"tools": [5]}, "tools[0]", "invalid_value", "must be an object with `type` and `function`; got 5"),
    ({"tools": [{"type": "web_search"}]}, "tools[0]", "invalid_value", "tools of type 'web_search' are not supported"),
    ({"tools": [{"type": "function"}]}, "tools[0].function", "missing", "required"),
    (
        {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        "tools[0].function.name",
        "invalid_value",
        "may have only letters, digits, `_`, `-` and `.`",
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "paramters": {}}}]},
        "tools[0].function",
        "invalid_value",
        "unknown field 'paramters'; did you mean 'parameters'?",
    ),
    ({"tool_choice": "x"}, "tool_choice", "invalid_value", "must be one of: none, auto, required; or an object"),
    ({"tool_choice": "required"}, "tool_choice", "invalid_value", "no tools are given"),
    ({"tool_choice": {"type": "function"}}, "tool_choice.function", "missing", "required"),
    ({"tools": [TOOL], "functions": [FUNCTION]}, "functions", "invalid_value", "together with tools"),
    ({"tools": [TOOL], "function_call": {"name": "get_weather"}}, "function_call", "invalid_value", "use tool_choice"),
    ({"functions": [FUNCTION], "function_call": "x"}, "function_call", "invalid_value", "must be one of: none, auto"),
    # formats
    ({"response_format": "json"}, "response_format", "invalid_value", 'must be an object; got "json"'),
    ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value", "must be one of: text, json_obj"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing", "required"),
    ({"guided_json": "{"}, "guided_json", "invalid_value", "the string is not JSON"),
    ({"guided_json": "[]"}, "guided_json", "invalid_value", "must hold a JSON object"),
    ({"guided_choice": []}, "guided_choice", "invalid_value", "must not be empty"),
    ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_choice", "invalid_value", "together with guided_regex"),
]


def test_what_is_refused_and_in_which_words(over: Any, write: Writer) -> None:
    url, engine = over(write.say("好"))
    for change, param, code, words in REFUSED:
        answer = post(url, ASK | change)
        assert answer.status_code == 400, (change, answer.text)
        error = answer.json()["error"]
        assert (error["param"], error["code"]) == (param, code), (change, error)
        assert words in error["message"], (change, error)
        assert error["message"].startswith((param, param.partition(".")[0])), error
        # Nothing of how requests are read here.
        assert not any(
            inner in error["message"] for inner in ("pydantic", "input should", "Literal", "str]", "NoneType")
        )
    assert engine.asked == []


TEXT_REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": None}, "prompt", "required"),
    ({"prompt": []}, "prompt", "must not be empty"),
    ({"prompt": 5}, "prompt", "must be a string, a list of strings, a list of token ids, or a list of such lists"),
    ({"prompt": ["a", 1]}, "prompt[1]", "must be a string; got 1"),
    ({"prompt": [1, "a"]}, "prompt[1]", 'must be an integer; got "a"'),
    ({"prompt": [[1], "a"]}, "prompt[1]", 'must be a list; got "a"'),
    ({"prompt": [[]]}, "prompt", "at least one of them"),
    ({"suffix": "x"}, "suffix", 'only "" is supported'),
    ({"best_of": 2}, "best_of", "only 1 is supported"),
    ({"add_special_tokens": False}, "add_special_tokens", "must be true; got false"),
    ({"max_tokens": -2}, "max_tokens", "must be at least 0; got -2"),
    (
        {"prompt": ["a"] * 257},
        "prompt",
        "257 answers are wanted (prompts: 257, n: 1); one request may ask for at most 256",
    ),
    ({"prompt": ["a"] * 128, "n": 3}, "prompt", "384 answers are wanted (prompts: 128, n: 3)"),
]


def test_of_many_unknown_fields_one_is_told() -> None:
    """A list of a hundred thousand errors takes a second to make, in which nobody else is served."""
    many = {f"a{number}": number for number in range(1000)}
    for body, place in (
        (ASK | many, ("a0",)),
        (many, ("messages",)),
        (said(many), ("messages", 0, "a0")),
    ):
        with pytest.raises(ValidationError) as raised:
            ChatRequest.model_validate(body)
        assert raised.value.errors()[0]["loc"] == place
        assert raised.value.error_count() <= 2


def test_json_in_strings_is_bounded_like_the_body(over: Any, write: Writer) -> None:
    url, _ = over(write.say("好"))
    many = '{"a": [' + "[], " * 40_000 + "[]]}"
    text = json.dumps({"code": many})  # no arrays, but a text
    calls = [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": many}}]}]
    items = [{"type": "function_call", "call_id": "c", "name": "f", "arguments": many}]
    for path, body, field in (
        (CHAT, ASK | {"guided_json": many}, "guided_json"),
        (CHAT, ASK | {"structured_outputs": {"json": many}}, "structured_outputs.json"),
        (CHAT, {"messages": [USER, *calls]}, "messages[1].tool_calls[0].function.arguments"),
        ("/api/paas/v4/chat/completions", {"messages": [USER, *calls]}, "arguments"),
        ("/v1/responses", {"input": items}, "input[0].arguments"),
    ):
        answer = post(url, body, path)
        assert answer.status_code == 400, answer.text
        assert field in answer.json()["error"]["message"]
        assert "too many arrays and objects" in answer.json()["error"]["message"]
    calls[0]["tool_calls"][0]["function"]["arguments"] = text
    assert "too many" not in post(url, {"messages": [USER, *calls]}, CHAT).text


def test_what_is_refused_of_completions(over: Any, write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    url, engine = over(write.say("好"))
    for change, param, words in TEXT_REFUSED:
        if len(str(change)) > 500:  # before anything is tokenised
            monkeypatch.setattr(write.form.tokenizer, "encode_text", lambda text: pytest.fail("tokenised"))
        answer = post(url, {"model": "demo", "prompt": "x", **change}, TEXT)
        assert answer.status_code == 400, (change, answer.text)
        assert answer.json()["error"]["param"] == param, answer.text
        assert words in answer.json()["error"]["message"]
    assert engine.asked == []


# Forms of the same


SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"max_tokens": 5}, {"max_new_tokens": 5}),
    ({"max_completion_tokens": 5}, {"max_new_tokens": 5}),
    ({"max_tokens": 5, "max_completion_tokens": 5}, {"max_new_tokens": 5}),
    ({"max_tokens": -1}, {}),
    ({"top_k": -1}, {}),
    ({"n": 2.0}, {"n": 2}),
    ({"stop": "x"}, {"stop": ["x"]}),
    ({"stop": []}, {}),
]


def test_forms_of_options(over: Any, write: Writer) -> None:
    url, engine = over(write.say("好"))
    room = post(url, ASK) and engine.asked[-1].params.max_new_tokens
    for change, params in SAME:
        assert post(url, ASK | change).status_code == 200, change
        assert engine.asked[-1].params.to_dict() == {"max_new_tokens": room, **params}, change


def test_histories_as_clients_send_them(over: Any, write: Writer) -> None:
    url, engine = over(write.say("好"))
    inner = CALL["function"]
    cut = {**CALL, "function": {"name": "get_weather", "arguments": '{"city": "北'}}
    for call, shown in (
        (CALL, "北京"),
        ({"function": {"name": "get_weather", "arguments": {"city": "北京"}}}, "北京"),  # Ollama's clients
        ({**CALL, "index": 0, "provider_specific_fields": {}}, "北京"),
        ({**CALL, "function": {**inner, "parsed_arguments": {}}}, "北京"),  # type: ignore[dict-item]
        (cut, '{"city": "北'),
    ):
        for answer in (
            {"role": "tool", "content": "晴", "tool_call_id": "c1", "name": "get_weather"},
            {"role": "tool", "content": "晴"},
            {"role": "tool", "content": [{"type": "text", "text": "晴"}], "tool_call_id": "c1"},
            {"role": "function", "content": "晴", "name": "get_weather"},
            {"role": "observation", "content": "晴"},
            {"role": "tool", "content": None, "tool_call_id": "c1"},
        ):
            messages = [USER, {"role": "assistant", "content": None, "tool_calls": [call]}, answer]
            got = post(url, ASK | {"messages": messages, "tools": [TOOL]})
            assert got.status_code == 200, got.text
            text = write.form.tokenizer.decode(engine.asked[-1].ids)
            assert shown in text
            assert ("晴" in text) == (answer["content"] is not None)
    old = [USER, {"role": "assistant", "content": None, "function_call": inner}, {"role": "function", "content": "晴"}]
    assert post(url, ASK | {"messages": old}).status_code == 200
    assert "北京" in write.form.tokenizer.decode(engine.asked[-1].ids)
    for message, text in (
        ({"role": "assistant", "content": None}, ""),
        ({"role": "assistant"}, ""),
        ({"role": "assistant", "content": None, "refusal": "不行"}, "不行"),
        ({"role": "assistant", "content": "x", "metadata": "标题"}, "标题"),  # ChatGLM3's history
    ):
        assert post(url, ASK | {"messages": [USER, message, USER]}).status_code == 200
        assert text in write.form.tokenizer.decode(engine.asked[-1].ids)


FLAT_REPLY = {"name": "get_weather", "arguments": '{"city": "北京"}'}


def test_old_functions_and_flat_tools(over: Any, write: Writer) -> None:
    """openai 0.28, and the clients of ChatGLM3's demos: they read `function_call`."""
    url, engine = over(write.call(("get_weather", {"city": "北京"})))
    params = {
        "name": "get_weather",
        "description": "d",
        "params": [{"name": "city", "description": "c", "type": "str", "required": True}],
    }
    for change in (
        {"functions": [FUNCTION]},
        {"functions": [FUNCTION], "function_call": "auto"},
        {"functions": {"get_weather": params}},
        {"tools": [FUNCTION]},
        {"tools": {"get_weather": params}},
    ):
        (choice,) = post(url, ASK | change).json()["choices"]
        assert choice["message"] == {"role": "assistant", "content": None, "function_call": FLAT_REPLY}
        assert choice["finish_reason"] == "function_call"
        assert "get_weather" in write.form.tokenizer.decode(engine.asked[-1].ids)
        lines = post(url, ASK | change | {"stream": True}).text.split("\n\n")
        chunks = [json.loads(line[6:])["choices"][0] for line in lines if line and line != "data: [DONE]"]
        pieces = [chunk["delta"]["function_call"] for chunk in chunks if "function_call" in chunk["delta"]]
        assert pieces[0]["name"] == "get_weather"
        assert all("name" not in piece for piece in pieces[1:])
        assert "".join(piece["arguments"] for piece in pieces) == FLAT_REPLY["arguments"]
        assert chunks[-1]["finish_reason"] == "function_call"
    # The forms of today are answered with those of today.
    for tools in ([TOOL], [{"function": FUNCTION}], [{"type": "function", **FUNCTION}]):
        (choice,) = post(url, ASK | {"tools": tools}).json()["choices"]
        assert choice["message"]["tool_calls"][0]["function"] == FLAT_REPLY
        assert choice["finish_reason"] == "tool_calls"
    asked = []
    for change in ({"functions": [FUNCTION], "function_call": "none"}, {"tools": [FUNCTION], "tool_choice": "none"}):
        assert post(url, ASK | change).status_code == 200
        asked.append(engine.asked[-1].ids)
    assert asked[0] == asked[1]


def test_forms_of_tool_choice(over: Any, write: Writer) -> None:
    url, engine = over(write.call(("get_weather", {"city": "北京"})))
    for choice in (
        "required",
        "any",
        {"type": "any"},
        {"type": "function", "function": {"name": "get_weather"}},
        {"function": {"name": "get_weather"}},
        {"type": "tool", "name": "get_weather"},
        {"name": "get_weather"},
    ):
        assert post(url, ASK | {"tools": [TOOL], "tool_choice": choice}).status_code == 200, choice
        assert engine.asked[-1].constraint is not None
    assert post(url, ASK | {"tools": [TOOL], "tool_choice": {"type": "auto"}}).status_code == 200
    assert post(url, ASK | {"functions": [FUNCTION], "function_call": {"name": "get_weather"}}).status_code == 200
    assert engine.asked[-1].constraint is not None


def test_fields_of_a_function_that_are_unknown_are_shown_to_the_model(over: Any, write: Writer) -> None:
    url, engine = over(write.say("好"))
    tool = {"type": "function", "function": {**FUNCTION, "returns": {"type": "string", "description": "晴或雨"}}}
    assert post(url, ASK | {"tools": [tool]}).status_code == 200
    assert "晴或雨" in write.form.tokenizer.decode(engine.asked[-1].ids)
    many = {**FUNCTION, **{f"a{number}": number for number in range(1000)}}
    for tool, field in (({"type": "function", "function": many}, "tools[0].function"), (many, "tools[0]")):
        refused = post(url, ASK | {"tools": [tool]}).json()["error"]
        assert refused["message"] == f"{field}: has 1,000 unknown fields; at most 64 are shown to the model"


SCHEMA = {"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"], "additionalProperties": False}


def test_forms_of_formats(demo: str) -> None:
    """OpenAI's, llama.cpp's and vLLM's."""

    def text(**change: Any) -> str:
        answer = post(demo, ASK | {"max_tokens": 40, "temperature": 0, **change})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])

    for schema in (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a.b c", "schema": SCHEMA}}},
        {"response_format": {"type": "json_object", "schema": SCHEMA}},
        {"response_format": {"type": "json_schema", "schema": SCHEMA}},
        {"guided_json": SCHEMA},
        {"guided_json": json.dumps(SCHEMA)},
        {"structured_outputs": {"json": SCHEMA}},
    ):
        assert json.loads(text(**schema)) == {"a": 1}
    assert text(guided_regex="[0-9]{3}").isdigit()
    assert text(structured_outputs={"regex": "x{3}"}) == "xxx"
    assert text(guided_choice=["a.b (c)", "a|b"]) in ("a.b (c)", "a|b")
    assert text(structured_outputs={"choice": ["ja"]}) == "ja"
    assert text(guided_grammar='root ::= "x" "y"') == "xy"
    assert text(structured_outputs={"grammar": 'root ::= "z"'}) == "z"


def test_errors_about_formats_name_the_field_of_the_request(demo: str) -> None:
    wrong = {"type": "nothing"}
    for change, param in (
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": wrong}}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "schema": wrong}}, "response_format.schema"),
        ({"response_format": {"type": "json_object", "schema": wrong}}, "response_format.schema"),
        ({"response_format": {"type": "regex", "pattern": "("}}, "response_format.pattern"),
        ({"response_format": {"type": "grammar", "grammar": "("}}, "response_format.grammar"),
        ({"guided_json": wrong}, "guided_json"),
        ({"guided_regex": "("}, "guided_regex"),
        ({"guided_grammar": "("}, "guided_grammar"),
        ({"structured_outputs": {"json": wrong}}, "structured_outputs.json"),
        ({"structured_outputs": {"regex": "("}}, "structured_outputs.regex"),
    ):
        for stream in (False, True):
            answer = post(demo, ASK | {"stream": stream, **change})
            assert answer.status_code == 400, answer.text
            assert answer.json()["error"]["param"].startswith(param), answer.text


def test_requests_without_a_model(over: Any, write: Writer) -> None:
    url, _ = over(write.say("好"))
    for body in ({"messages": [USER]}, {"messages": [USER], "model": None}):
        assert post(url, body).json()["model"] == "demo"
    assert post(url, {"prompt": "x"}, TEXT).json()["model"] == "demo"
    error = post(url, ASK | {"model": "gpt-3.5-turbo"}).json()["error"]
    assert (error["param"], error["code"]) == ("model", "model_not_found")
    assert "available: demo." in error["message"]


def test_any_model(write: Writer) -> None:
    engine = ScriptedEngine(write.say("好"))
    with Assistant(write.form, engine) as assistant:  # type: ignore[arg-type]
        client = TestClient(create_app({"demo": assistant, "chatglm3-6b": assistant}, any_model=True))
        for asked, answering in (("gpt-3.5-turbo", "demo"), ("chatglm3-6b", "chatglm3-6b"), ("", "demo")):
            assert client.post(CHAT, json=ASK | {"model": asked}).json()["model"] == answering
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["demo", "chatglm3-6b"]


TYPES: dict[str, type[BaseModel]] = {
    CHAT: ChatRequest,
    TEXT: CompletionRequest,
    "/v1/messages": MessagesRequest,
    "/v1/responses": ResponsesRequest,
    "/api/paas/v4/chat/completions": ZhipuChatRequest,
    "/api/paas/v3/model-api/demo/invoke": InvokeRequest,
}


def test_types_that_a_field_may_have_are_made_once() -> None:
    """And not for each request, at the cost of time and of memory."""
    bodies = [(path, {"tools": [tool]}) for path in TYPES for tool in (TOOL, FUNCTION)]
    bodies += [
        ("/v1/responses", {"tools": [{"type": "code_interpreter", "container": container}]})
        for container in ("cntr_1", {"type": "auto"})
    ]
    for one in hostile.requests():
        if one.path in TYPES and len(one.content) < 10_000:
            with contextlib.suppress(BodyError):
                bodies.append((one.path, parse_now(one.content, Limits())))

    def read_all() -> int:
        for path, body in bodies:
            with contextlib.suppress(ValidationError):
                TYPES[path].model_validate(body)
        return fields._adapter.cache_info().misses

    assert read_all() == read_all() == fields._adapter.cache_info().currsize
