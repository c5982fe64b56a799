"""The assistant over an engine that says what it is told, and over the real one with the demo model."""

from __future__ import annotations

import asyncio
import gc
import json
import struct
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Annotated, Any, Literal

import jsonschema
import pytest

from chatglm.assistant import (
    Answer,
    Assistant,
    CallDelta,
    Called,
    Delta,
    Finish,
    PromptDelta,
    Start,
    TextDelta,
    Transcript,
    Usage,
)
from chatglm.assistant.base import merge_streams
from chatglm.chat.formats import chat_format
from chatglm.chat.messages import Message, ToolCall, ToolSpec
from chatglm.errors import ContextError, EngineError, InputError, QueueFullError, ToolError, UnsupportedError
from chatglm.loading import AutoTokenizer, demo_folder
from chatglm.params import SamplingParams
from chatglm.tools.functions import Function
from chatglm.tools.tool import Consent, Outcome
from conftest import VERSIONS
from garbage import no_garbage
from scripted import ScriptedEngine, Writer
from waiting import until

WEATHER = {
    "name": "get_weather",
    "description": "the weather of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
}
NOW = {"name": "now", "parameters": {"type": "object", "properties": {}}}
OPTIONS: list[dict[str, Any]] = [WEATHER, NOW]


@pytest.fixture(scope="module")
def write() -> Writer:
    return Writer(chat_format(AutoTokenizer.from_pretrained(demo_folder())))


@pytest.fixture
def over(write: Writer) -> Iterator[Callable[..., tuple[Assistant, ScriptedEngine]]]:
    made: list[Assistant] = []

    def get(*replies: Any, **options: Any) -> tuple[Assistant, ScriptedEngine]:
        engine = ScriptedEngine(*replies, **options)
        made.append(Assistant(write.form, engine))  # type: ignore[arg-type]
        return made[-1], engine

    yield get
    for assistant in made:
        assistant.close()


def the(assistant: Assistant, *args: Any, **options: Any) -> Answer:
    (answer,) = assistant.answers(*args, **options)
    return answer


# Text


@pytest.mark.parametrize("pace", [1, 3, 100])
def test_text_comes_in_whole_characters_with_the_usage_last(over: Any, write: Writer, pace: int) -> None:
    reply = write.say("你好，𠮷野家 in 東京 🙂!")
    assistant, engine = over(reply, pace=pace)
    *texts, finish = assistant.stream("天气")
    assert all(isinstance(delta, TextDelta) and "�" not in delta.text for delta in texts)
    assert "".join(delta.text for delta in texts) == "你好，𠮷野家 in 東京 🙂!"
    assert pace > 1 or len(texts) > 5
    prompt = write.form.prompt([Message("user", "天气")])
    assert finish == Finish("stop", finish.usage)
    assert (finish.usage.prompt_tokens, finish.usage.completion_tokens) == (
        len(prompt),
        len(reply) - engine.asked[0].lead(reply),
    )
    assert engine.asked[0].ids == prompt
    assert engine.asked[0].stop_ids == write.form.stop_ids


def test_forms_of_messages_and_of_parameters(over: Any, write: Writer) -> None:
    assistant, engine = over(write.say("好"))
    for messages in ("问", [{"role": "user", "content": "问"}], [Message("user", "问")]):
        assert assistant.reply(messages, params={"temperature": 0.5}) == Message("assistant", "好")
    assert len({tuple(asked.ids) for asked in engine.asked}) == 1
    assert {asked.params.temperature for asked in engine.asked} == {0.5}
    with pytest.raises(InputError, match=r"temprature.*temperature"):
        assistant.reply("问", params={"temprature": 1})
    with pytest.raises(InputError, match="top_p: no such option"):
        assistant.reply("问", top_p=1)
    with pytest.raises(InputError, match="nothing to answer"):
        assistant.reply([])


def test_defaults_hold_where_nothing_is_said(write: Writer) -> None:
    engine = ScriptedEngine(write.say("好"))
    with Assistant(write.form, engine, SamplingParams(temperature=0.3, top_k=7)) as assistant:  # type: ignore[arg-type]
        assistant.reply("问", params={"top_k": 9})
        assistant.reply("问", params=SamplingParams(top_k=9))
    first, second = (asked.params for asked in engine.asked)
    assert (first.temperature, first.top_k) == (0.3, 9)
    assert (second.temperature, second.top_k) == (1.0, 9)


def test_stop_string_over_tokens_ends_and_frees(over: Any, write: Writer) -> None:
    assistant, engine = over(write.say("first line then STOP and much more that nobody reads " * 20), delay=0.002)
    answer = the(assistant, "q", params={"stop": ["then STOP", "nobody"]})
    assert answer.message.content == "first line "
    assert answer.finish.reason == "stop"
    until(lambda: engine.aborted == engine.asked)
    assert answer.finish.usage.completion_tokens < 40


def test_the_stop_string_that_ended_the_answer_is_told(over: Any, write: Writer) -> None:
    assistant, _ = over(write.say("first, then STOP here"))
    for stop, met in ((["nobody"], ""), (["here", "STOP", "TOP"], "STOP")):
        assert the(assistant, "q", params={"stop": stop}).finish.stop == met


def test_a_start_is_told_when_asked_for(over: Any, write: Writer) -> None:
    assistant, engine = over(write.say("good"), write.call(("now", {})), pace=2)
    for options in ({}, {"tools": OPTIONS}):
        first, *others = assistant.stream("q", start=True, params={"n": 1}, **options)
        assert first == Start(len(engine.asked[-1].ids), 1)
        assert not any(isinstance(delta, Start) for delta in others)
    assert not any(isinstance(delta, Start) for delta in assistant.stream("q"))
    assert the(assistant, "q", start=True).message.tool_calls


def test_count(over: Any, write: Writer) -> None:
    """They are those of the prompt that the engine gets."""
    assistant, engine = over(write.call(("now", {})))
    dialogue = [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "Hi"}]
    ways: list[dict[str, Any]] = [
        {}, {"tools": OPTIONS}, {"tools": OPTIONS, "tool_choice": "now"}, {"tools": OPTIONS, "tool_choice": "none"},
        {"response_format": {"type": "json_object"}}, {"prefill": "Well"}, {"prefill": "Well", "tools": OPTIONS},
    ]  # fmt: skip
    for options in ways:
        the(assistant, dialogue, **options)
        assert assistant.count(dialogue, **options) == len(engine.asked[-1].ids)


@pytest.mark.parametrize("prefill", ["你好", "Well,", "one [[训练", "a b c"])
def test_prefill(over: Any, write: Writer, prefill: str) -> None:
    """The model continues it, and it is not said again."""
    tokens = write.form.tokenizer.encode_text(prefill)
    whole = write.form.tokenizer.encode_text(f"{prefill} and so on")
    assert whole[: len(tokens)] == tokens  # else there is no reply that goes on here
    assistant, engine = over([*whole[len(tokens) :], write.end])
    for options in ({}, {"tools": OPTIONS}):
        answer = the(assistant, "q", prefill=prefill, **options)
        assert answer.message.content == " and so on"
        assert answer.finish.usage.completion_tokens == len(whole) - len(tokens) + 1
        asked = engine.asked[-1].ids
        assert asked[-len(tokens) :] == tokens
    with pytest.raises(InputError, match=r"^prefill: .* tool call is required"):
        assistant.stream("q", prefill="x", tools=OPTIONS, tool_choice="required")
    with pytest.raises(InputError, match=r"^prefill: .* response format"):
        assistant.stream("q", prefill="x", response_format={"type": "json_object"})


def test_what_could_have_become_a_stop_string_is_not_lost(over: Any, write: Writer) -> None:
    assistant, _ = over(write.say("it ends with the"))
    assert assistant.reply("q", params={"stop": ["the end"]}).content == "it ends with the"


def test_length(over: Any, write: Writer) -> None:
    assistant, engine = over(write.say("one two three four five six"))
    answer = the(assistant, "q", params={"max_new_tokens": 3})
    assert answer.finish.reason == "length"
    assert answer.finish.usage.completion_tokens == 3
    room = the(assistant, "q", params={"max_length": 500}).finish.usage.prompt_tokens
    assert engine.asked[-1].params.max_new_tokens == 500 - room
    assert engine.asked[-1].params.max_length is None


def test_logprobs_are_those_of_the_text(over: Any, write: Writer) -> None:
    assistant, _ = over(write.say("你好 zorkel"))
    answer = the(assistant, "q", params={"logprobs": 2})
    assert b"".join(token.data for token in answer.logprobs).decode().strip() == answer.message.content
    assert all(token.logprob == -0.5 and len(token.alternatives) == 2 for token in answer.logprobs)
    answer = the(assistant, "q", params={"logprobs": 0, "stop": ["zorkel"]})
    assert answer.message.content == "你好 "
    # The token in which the stop string begins may have text in front of it; those behind it are gone.
    told = b"".join(token.data for token in answer.logprobs).decode().strip()
    assert "你好 zorkel".startswith(told)
    assert "你好" in told != "你好 zorkel"
    assert the(assistant, "q").logprobs == ()


def test_several_answers(over: Any, write: Writer) -> None:
    assistant, engine = over(write.say("one STOP two"), write.say("a longer answer"))
    answers = assistant.answers("q", params={"n": 2, "stop": ["STOP"]})
    assert [answer.message.content for answer in answers] == ["one ", "a longer answer"]
    assert [answer.finish.choice for answer in answers] == [0, 1]
    assert len(engine.asked) == 1
    with pytest.raises(InputError, match="n: 2 answers"):
        assistant.reply("q", params={"n": 2})


@pytest.mark.parametrize("ending", ["stop", "call"])
def test_an_answer_that_is_over_is_not_computed_on(over: Any, write: Writer, ending: str) -> None:
    """While another of the same request is."""
    first = write.say("one STOP " + "more " * 300)
    options: dict[str, Any] = {}
    if ending == "call":
        first = write.call(*[("get_weather", {"city": "北京"})] * 40)
        options = {"tools": OPTIONS, "parallel_calls": False}
    long = write.say("a long answer " * 30)
    assistant, engine = over(first, long, delay=0.002)
    answers = assistant.answers("q", params={"n": 2, "stop": ["STOP"]}, **options)
    assert [answer.finish.reason for answer in answers] == ["stop" if ending == "stop" else "tool_calls", "stop"]
    assert answers[1].finish.usage.completion_tokens == len(long) - engine.asked[0].lead(long)
    (asked,) = engine.asked
    assert asked.ended == [0]
    assert asked.places[0] < len(first) / 2
    assert engine.aborted == []  # it ended by itself


def test_text_without_a_dialogue(over: Any, write: Writer) -> None:
    ids = [*write.form.tokenizer.encode_text("and so on"), write.end]
    assistant, engine = over(ids)
    *texts, finish = assistant.stream_text("一二三")
    assert "".join(delta.text for delta in texts) == " and so on"  # with the blank between it and the prompt
    assert finish.reason == "stop"
    tokenizer = write.form.tokenizer
    assert engine.asked[0].ids == [*tokenizer.get_prefix_tokens(), *tokenizer.encode_text("一二三")]
    list(assistant.stream_text([5, 6]))
    assert engine.asked[1].ids == [5, 6]
    for wrong in ([], [10**9], [-1]):
        with pytest.raises(InputError, match="prompt"):
            list(assistant.stream_text(wrong))
    with pytest.raises(ContextError):
        list(assistant.stream_text([5] * 600))


# Calls


def test_calls_stream_with_ids(over: Any, write: Writer) -> None:
    asked = [("get_weather", {"city": "北京", "days": 2}), ("now", {})]
    assistant, _ = over(write.call(*asked, text="我看看。"))
    deltas = list(assistant.stream("q", tools=OPTIONS))
    assert deltas[0] == TextDelta("我看看") or deltas[0].text
    heads = [delta for delta in deltas if isinstance(delta, CallDelta) and delta.name]
    assert [(head.index, head.name, head.arguments) for head in heads] == [(0, "get_weather", ""), (1, "now", "")]
    assert len({head.id for head in heads}) == 2
    transcript = Transcript()
    for delta in deltas:
        transcript.add(delta)
    (answer,) = transcript.answers()
    assert answer.finish.reason == "tool_calls"
    assert answer.message.content == "我看看。"
    assert [(call.name, call.arguments) for call in answer.message.tool_calls] == asked
    assert [call.id for call in answer.message.tool_calls] == [head.id for head in heads]


def test_single_call_ends_the_answer(over: Any, write: Writer) -> None:
    assistant, engine = over(write.call(("now", {}), ("now", {}), ("now", {})), delay=0.005)
    answer = the(assistant, "q", tools=OPTIONS, parallel_calls=False)
    assert len(answer.message.tool_calls) == 1
    assert answer.finish.reason == "tool_calls"
    until(lambda: engine.aborted == engine.asked)


@pytest.mark.parametrize("most", range(4, 30, 3))
def test_a_call_that_was_cut_short_has_the_arguments_that_are_there(over: Any, write: Writer, most: int) -> None:
    whole = '{"city": "北京", "days": 3}'
    assistant, _ = over(write.call(("get_weather", {"city": "北京", "days": 3})))
    answer = the(assistant, "q", tools=OPTIONS, params={"max_new_tokens": most})
    if answer.finish.reason == "length" and answer.message.tool_calls:
        (call,) = answer.message.tool_calls
        assert call.name == "get_weather"
        assert answer.message.content == ""
        assert whole.startswith(call.to_dict()["function"]["arguments"]) or call.arguments
    # Where no tool of that name is on offer, it is text.
    answer = the(assistant, "q", params={"max_new_tokens": most})
    assert not answer.message.tool_calls or answer.finish.reason != "length"


@pytest.mark.parametrize("name", ["chatglm3", "glm4"])
def test_arguments_stream_while_they_are_written(checkpoint: Any, name: str) -> None:
    """With the first token of each call, not with its last; joined, they are those of the whole answer. Where the calls
    are not held to a grammar, one comes when it is whole. (differences: begun-call)"""
    form = chat_format(AutoTokenizer.from_pretrained(checkpoint(name)))
    tool = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string"}, "n": {}}}}
    arguments = {"a": "one two three 北京 four five", "n": [1, {"k": None}]}
    calls = (ToolCall("f", arguments), ToolCall("f", {"a": "x"}))
    (ids, mask), *_ = form.examples([Message("user", "q"), Message("assistant", "", calls)])
    reply = [token for token, learned in zip(ids, mask, strict=True) if learned]
    whole = [json.dumps(call.arguments, ensure_ascii=False) for call in calls]
    with Assistant(form, ScriptedEngine(reply)) as assistant:  # type: ignore[arg-type]
        for most in range(1, len(reply) + 1):
            deltas = list(assistant.stream("q", tools=[tool], params={"max_new_tokens": most}))
            (answer,) = assistant.answers("q", tools=[tool], params={"max_new_tokens": most})
            pieces = [delta for delta in deltas if isinstance(delta, CallDelta)]
            heads = [piece for piece in pieces if piece.name]
            assert all(piece.id and not piece.arguments for piece in heads)
            told = ["".join(piece.arguments for piece in pieces if piece.index == n) for n in range(len(heads))]
            assert told == [call.to_dict()["function"]["arguments"] for call in answer.message.tool_calls]
            assert all(text.startswith(part) for text, part in zip(whole, told, strict=False))
        assert told == whole
        assert len(pieces) > 12

        assistant._begun = lambda ask: None  # type: ignore[method-assign]  # the tools' grammar is too large
        pieces = [delta for delta in assistant.stream("q", tools=[tool]) if isinstance(delta, CallDelta)]
        assert [piece.arguments for piece in pieces] == ["", whole[0], "", whole[1]]


def test_arguments_that_were_spaced_otherwise_are_told_as_they_came() -> None:
    """An endpoint's: a client that reads the stream and one that reads the whole answer get the same."""
    transcript = Transcript()
    transcript.add(CallDelta(0, "call_1", "f"))
    for piece in ('{"a":', '1,"a":2}'):
        transcript.add(CallDelta(0, arguments=piece))
    transcript.add(Finish("tool_calls", Usage(1, 1)))
    (call,) = transcript.answers()[0].message.tool_calls
    assert call.to_dict()["function"]["arguments"] == '{"a":1,"a":2}'
    assert call.arguments == {"a": 2}
    assert not call.cut


def follow(constraint: Any, write: Writer, text: str) -> bool:
    """Whether a constraint lets a text come and end."""
    import torch

    size = 1 + max(len(write.form.tokenizer), *write.form.stop_ids)
    for token in [*write.form.tokenizer.encode_text(text), write.end]:
        scores = torch.zeros(size)
        constraint.allow(scores)
        if scores[token] != 0:
            return False
        constraint.accept(token)
    return True


CALL = "```python\ntool_call({})\n```".format


def test_forced_calls(over: Any, write: Writer) -> None:
    body = CALL("city='上海', days=3")
    assistant, engine = over([*write.form.tokenizer.encode_text(body), write.end])
    answer = the(assistant, "q", tools=OPTIONS, tool_choice="get_weather")
    (call,) = answer.message.tool_calls
    assert (call.name, call.arguments, answer.finish.reason) == (
        "get_weather",
        {"city": "上海", "days": 3},
        "tool_calls",
    )
    asked = engine.asked[0]
    opening = write.form.opening("get_weather")
    assert asked.ids[-len(opening) :] == opening
    assert answer.finish.usage.prompt_tokens == len(asked.ids)
    assert not follow(asked.constraint.fork(), write, CALL("days=3"))
    assert not follow(asked.constraint.fork(), write, CALL("city=3"))
    assert follow(asked.constraint, write, body)

    the(assistant, "q", tools=OPTIONS, tool_choice="required")
    constraint = engine.asked[1].constraint
    assert follow(constraint.fork(), write, f"now\n{CALL('')}")
    assert not follow(constraint.fork(), write, "no")
    assert follow(constraint, write, f"get_weather\n{body}")


@pytest.mark.parametrize(("name", "header"), [("chatglm3", "interpreter"), ("glm4", "python")])
def test_the_interpreter_can_be_forced(checkpoint: Any, name: str, header: str) -> None:
    form = chat_format(AutoTokenizer.from_pretrained(checkpoint(name)))
    code = "print(1)\nprint(2)"
    (ids, mask), *_ = form.examples([Message("assistant", "", (ToolCall("interpreter", {"code": code}),))])
    reply = [token for token, learned in zip(ids, mask, strict=True) if learned]
    tools = [{"type": "python"}, NOW]
    with Assistant(form, ScriptedEngine(reply[len(form.opening(header)) :])) as assistant:  # type: ignore[arg-type]
        for choice in ("interpreter", "python"):
            (answer,) = assistant.answers("q", tools=tools, tool_choice=choice)
            (call,) = answer.message.tool_calls
            assert (call.name, call.arguments) == ("interpreter", {"code": code})
            asked = assistant._engine.asked[-1]  # type: ignore[attr-defined]
            assert asked.ids[-len(form.opening(header)) :] == form.opening(header)
        with pytest.raises(InputError, match="not one of the tools"):
            assistant.answers("q", tools=[NOW], tool_choice="python")
    with Assistant(form, ScriptedEngine(reply)) as assistant:  # type: ignore[arg-type]
        for most in range(1, len(reply) + 1):
            (answer,) = assistant.answers("q", tools=tools, params={"max_new_tokens": most})
            for call in answer.message.tool_calls:
                assert call.name == "interpreter"
                assert call.to_dict()["function"]["arguments"].startswith("{")


def test_no_call(over: Any, write: Writer) -> None:
    assistant, engine = over(write.say("now\n" + CALL(""), "")[len(write.form.opening()) :])
    answer = the(assistant, "q", tools=OPTIONS, tool_choice="none")
    assert not answer.message.tool_calls
    assert answer.message.content == "now\n" + CALL("")
    assert engine.asked[0].ids[-len(write.form.opening()) :] == write.form.opening()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tool_choice": "required"}, "no tools"),
        ({"tool_choice": "other", "tools": OPTIONS}, "not one of the tools"),
        ({"response_format": {"type": "xml"}}, "xml"),
        ({"response_format": {"type": "json_schema"}}, "schema"),
        ({"response_format": {"type": "regex"}}, "pattern: expected a string"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "cat"}}}}, "JSON schema"),
        ({"tools": [{"x": 1}]}, "tools"),
    ],
)
def test_contradictions_are_refused(over: Any, write: Writer, options: Any, words: str) -> None:
    assistant, engine = over(write.say("好"))
    with pytest.raises((InputError, UnsupportedError), match=words):
        assistant.reply("q", **options)
    assert engine.asked == []


def test_output_formats(over: Any, write: Writer) -> None:
    assistant, engine = over([*write.form.tokenizer.encode_text('{"a": 1}'), write.end])
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    the(assistant, "q", response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    constraint = engine.asked[0].constraint
    assert follow(constraint.fork(), write, '{"a": 12}')
    assert not follow(constraint.fork(), write, '{"a": "x"}')
    assert not follow(constraint.fork(), write, "hello")
    assert the(assistant, "q", response_format={"type": "json_object"}).message.content == '{"a": 1}'
    assert follow(engine.asked[1].constraint, write, '{"b": [1, {"c": null}]}')
    the(assistant, "q", response_format={"type": "regex", "pattern": "[0-9]{4}"})
    assert follow(engine.asked[2].constraint.fork(), write, "2024")
    assert not follow(engine.asked[2].constraint, write, "20244")
    the(assistant, "q", response_format={"type": "grammar", "grammar": 'root ::= "yes" | "no"'})
    assert follow(engine.asked[3].constraint, write, "no")
    assert the(assistant, "q", response_format={"type": "text"}).finish.reason == "stop"
    assert engine.asked[4].constraint is None


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}


@pytest.mark.parametrize(
    "given",
    [
        {"type": "json_schema", "json_schema": {"schema": SCHEMA}},
        {"type": "json_schema", "json_schema": {"schema": {**SCHEMA, "not": {}}, "strict": False}},
        {"type": "json_schema", "schema": SCHEMA},
        {"type": "json_object", "schema": SCHEMA},
    ],
)
def test_ways_to_give_a_schema(over: Any, write: Writer, given: Any) -> None:
    assistant, engine = over([*write.form.tokenizer.encode_text('{"a": 1}'), write.end])
    answer = the(assistant, "q", response_format=given)
    assert follow(engine.asked[0].constraint.fork(), write, '{"a": 12}')
    assert not follow(engine.asked[0].constraint, write, '{"b": 12}')
    dropped = ("response_format: not",) if "not" in str(given) else ()
    assert assistant.dropped(response_format=given) == dropped
    assert answer.finish.note == ("not enforced: response_format: not" if dropped else "")


def test_what_a_strict_schema_has_is_held_or_refused(over: Any, write: Writer) -> None:
    assistant, engine = over(write.say("好"))
    given = {"type": "json_schema", "json_schema": {"strict": True, "schema": {"type": "array", "uniqueItems": True}}}
    for ask in (assistant.reply, lambda _, **options: assistant.dropped(**options)):
        with pytest.raises(UnsupportedError, match=r"response_format\.json_schema\.schema: .*`uniqueItems`"):
            ask("q", response_format=given)
    assert engine.asked == []


def test_a_format_beside_tools(over: Any, write: Writer) -> None:
    assistant, engine = over(write.say('{"a": 1}'))
    given = {"type": "json_object", "schema": SCHEMA}
    assert the(assistant, "q", tools=OPTIONS, response_format=given).message.content == '{"a": 1}'
    constraint = engine.asked[0].constraint
    assert follow(constraint.fork(), write, '\n{"a": 12}')
    assert not follow(constraint.fork(), write, "\nhello")
    assert follow(constraint.fork(), write, f"now\n{CALL('')}")
    assert not follow(constraint.fork(), write, f"other\n{CALL('')}")
    # A call that is forced is no text; text that is forced is no call.
    the(assistant, "q", tools=OPTIONS, response_format=given, tool_choice="required")
    assert follow(engine.asked[1].constraint.fork(), write, f"now\n{CALL('')}")
    assert not follow(engine.asked[1].constraint, write, '\n{"a": 12}')
    the(assistant, "q", tools=OPTIONS, response_format=given, tool_choice="none")
    assert follow(engine.asked[2].constraint, write, '{"a": 12}')


def test_a_reply_that_begins_as_a_call_is_one(over: Any, write: Writer) -> None:
    """(differences: begun-call)"""
    assistant, engine = over(write.say("好"))
    the(assistant, "q", tools=OPTIONS)
    constraint = engine.asked[0].constraint
    for text in ("好的", "\n好的", "get\n好的", "get_weather is a tool", "other\n```python\ntool_call(x=1)\n```"):
        assert follow(constraint.fork(), write, text)
    assert follow(constraint.fork(), write, "get_weather\n" + CALL("city='x', days=3"))
    for text in (
        "get_weather\n```python\ntool_call(days=3)",
        f"now\n{CALL('x=1')}",
        "get_weather\n```python\ntool_call(city",
    ):
        assert not follow(constraint.fork(), write, text)


ODD: list[Any] = [{"type": "object", "properties": {"a": {"$ref": "https://example.com/x.json"}}}, {"type": "array"},
                  {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "cat"}}}}]  # fmt: skip


@pytest.mark.parametrize("schema", ODD)
def test_tools_with_odd_schemas_are_on_offer(over: Any, write: Writer, schema: Any) -> None:
    assistant, engine = over(write.say("好"))
    tool = {"name": "odd", "parameters": schema}
    with pytest.warns(UserWarning, match=r"not enforced: tools.odd: parameters"):
        assert assistant.reply("q", tools=[*OPTIONS, tool]).content == "好"
    assert follow(engine.asked[0].constraint.fork(), write, "odd\n" + CALL("**{'b': 1}"))
    for options in ({"tools": [{**tool, "strict": True}]}, {"tools": [tool], "tool_choice": "odd"}):
        with pytest.raises((InputError, UnsupportedError), match="odd"):
            assistant.reply("q", **options)


def test_a_begun_call_of_the_demo_model_is_a_call_in_any_company() -> None:
    """Alone, many at once, and with guesses: the same; and what begins as a call has arguments that fit."""
    properties = {"city": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "minimum": 1, "maximum": 7}}
    schema = {"type": "object", "properties": properties, "required": ["city", "days"]}
    tool = {"name": "get_weather", "parameters": schema}
    asked = ["北京的天气怎么样？", "上海明天天气如何", "你好", "查询广州天气"]
    params = {"temperature": 1.0, "seed": 5, "max_new_tokens": 60}

    def said(assistant: Assistant, question: str) -> Any:
        answer = the(assistant, question, tools=[tool], params=params)
        return answer.message.content, [
            (call.name, dict(call.arguments), call.text) for call in answer.message.tool_calls
        ]

    with Assistant.load(speculate=False) as assistant:
        alone = [said(assistant, question) for question in asked]
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda question: said(assistant, question), asked)) == alone
    with Assistant.load(speculate=True) as assistant:
        assert [said(assistant, question) for question in asked] == alone
    calls = [call for _, made in alone for call in made]
    assert calls
    for _, arguments, cut in calls:
        if cut is None:
            jsonschema.validate(arguments, schema)
    assert not any(text.startswith("get_weather") for text, _ in alone)


@pytest.mark.parametrize("name", ["chatglm", "chatglm2", "glm4"])
def test_other_generations(checkpoint: Any, name: str) -> None:
    form = chat_format(AutoTokenizer.from_pretrained(checkpoint(name)))
    write = Writer(form)
    engine = ScriptedEngine(write.say("你好。 Bye"))
    with Assistant(form, engine) as assistant:  # type: ignore[arg-type]
        assert assistant.reply("问").content == "你好。 Bye"
        if name != "glm4":
            with pytest.raises(UnsupportedError, match="tools"):
                assistant.reply("q", tools=OPTIONS)
            return
        engine.replies = [[*form.tokenizer.encode_text('{"city": "北京"}'), write.end]]
        answer = the(assistant, "q", tools=OPTIONS, tool_choice="get_weather")
        assert [(c.name, c.arguments) for c in answer.message.tool_calls] == [("get_weather", {"city": "北京"})]
        assert follow(engine.asked[-1].constraint, write, '{"city": "x", "days": -1}')
        engine.replies = [write.say('{"a": 1}')]
        the(assistant, "q", tools=OPTIONS, response_format={"type": "json_object", "schema": SCHEMA})
        assert follow(engine.asked[-1].constraint.fork(), write, '\n{"a": 12}')
        assert not follow(engine.asked[-1].constraint.fork(), write, '\n{"b": 12}')
        assert follow(engine.asked[-1].constraint, write, 'get_weather\n{"city": "x"}')


# Context


def turns(count: int) -> list[Message]:
    said = [Message("system", "Be brief.")]
    for number in range(count):
        said += [Message("user", f"question {number} " * 5), Message("assistant", f"answer {number} " * 5)]
    return [*said, Message("user", "and now?")]


def test_oldest_turns_give_way_and_the_caller_is_told(over: Any, write: Writer) -> None:
    assistant, engine = over(write.say("well"), context=300)
    answer = the(assistant, turns(30))
    assert answer.finish.note.startswith("the context is too short; oldest turns left out: ")
    left = int(answer.finish.note.split()[-3])
    kept = turns(30)
    assert engine.asked[0].ids == write.form.prompt([kept[0], *kept[1 + 2 * left :]])
    assert len(engine.asked[0].ids) <= 300 - 75
    # One turn more would not have fitted.
    assert len(write.form.prompt([kept[0], *kept[2 * left - 1 :]])) > 300 - 75
    with pytest.warns(UserWarning, match="left out"):
        assistant.reply(turns(30))
    assert the(assistant, turns(2)).finish.note == ""


def test_calls_and_their_answers_leave_with_their_turn(over: Any, write: Writer) -> None:
    assistant, engine = over(write.say("well"), context=200)
    call = ToolCall("now", {})
    old = [Message("user", "time? " * 80), Message("assistant", "", (call,)), Message("observation", "12:00")]
    new = [Message("assistant", "noon"), Message("user", "thanks")]
    answer = the(assistant, [*old, *new])
    assert "oldest turns left out: 1 of 2" in answer.finish.note
    assert engine.asked[0].ids == write.form.prompt(new[1:])


def test_what_cannot_fit_is_refused(over: Any, write: Writer) -> None:
    assistant, engine = over(write.say("well"), context=100)
    with pytest.raises(ContextError, match="last turn alone"):
        assistant.reply([Message("user", "a"), Message("assistant", "b"), Message("user", "word " * 200)])
    with pytest.raises(ContextError, match="maximum context length is 100 tokens; your messages resulted in"):
        assistant.reply(turns(20), trim=False)
    with pytest.raises(ContextError, match="maximum context length is 100 tokens; the prompt has 202 tokens"):
        list(assistant.stream_text([5] * 202))
    with pytest.raises(ContextError, match=r"^max_length is 50 tokens; the prompt has 60 tokens"):
        list(assistant.stream_text([5] * 60, params={"max_length": 50}))
    assert engine.asked == []


# The loop over tools


def weather(city: Annotated[str, "its name"], days: int = 1, unit: Literal["C", "F"] = "C") -> dict[str, Any]:
    """The weather of a city.

    Args:
        days: how many
            to tell.
    """
    if city == "nowhere":
        raise ValueError("no such city")
    return {"city": city, "days": days, "unit": unit}


def test_functions_become_tools() -> None:
    spec = Function.of(weather).spec
    assert spec == ToolSpec(
        {
            "name": "weather",
            "description": "The weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "its name"},
                    "days": {"type": "integer", "description": "how many to tell."},
                    "unit": {"enum": ["C", "F"], "type": "string"},
                },
                "required": ["city"],
            },
        }
    )


def untyped(x):  # type: ignore[no-untyped-def]
    return x


def complicated(x: Callable[[int], int]) -> None: ...


def starred(*x: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "words"), [(untyped, "annotation"), (complicated, "Callable"), (starred, "by name")]
)
def test_functions_that_cannot_be_tools(function: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Function.of(function)


def test_loop_carries_out_calls(over: Any, write: Writer) -> None:
    assistant, engine = over(
        write.call(("weather", {"city": "北京", "days": 2})),
        write.call(("weather", {"city": "nowhere"})),
        write.say("晴"),
    )
    heard: list[Any] = []
    new = assistant.run("q", [weather], watch=heard.append)
    assert [message.role for message in new] == ["assistant", "observation", "assistant", "observation", "assistant"]
    assert new[1].content == '{"city": "北京", "days": 2, "unit": "C"}'
    assert new[1].tool_call_id == new[0].tool_calls[0].id
    assert new[3].content == "Error: ValueError: no such city"
    assert new[4].content == "晴"
    assert [item for item in heard if isinstance(item, Message)] == new
    assert sum(isinstance(item, Finish) for item in heard) == 3
    assert engine.asked[2].ids == write.form.prompt([Message("user", "q"), *new[:4]], [Function.of(weather).spec])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (("other", {}), "Tool `other` not found. Please use a provided tool: weather."),
        (("weather", {}), "missing: city"),
        (("weather", {"city": "x", "dayz": 1}), "unknown: dayz"),
        (("weather", {"city": [3]}), "city"),
        (("weather", {"city": "x", "unit": "K"}), "unit must be 'C' or 'F'"),
    ],
)
def test_wrong_calls_are_told_to_the_model(over: Any, write: Writer, call: Any, words: str) -> None:
    assistant, _ = over(write.call(call), write.say("好"))
    new = assistant.run("q", [weather])
    assert words in new[1].content
    assert new[-1].content == "好"


def test_rounds_are_limited(over: Any, write: Writer) -> None:
    """(differences: tool-rounds)"""
    turns = [write.call(("weather", {"city": str(n)})) for n in range(2)]
    assistant, engine = over(*turns, write.say("enough")[len(write.form.opening()) :])
    new = assistant.run("q", [weather], max_rounds=2)
    assert [message.role for message in new].count("observation") == 2
    assert new[-1].content == "enough"
    assert engine.asked[-1].ids[-len(write.form.opening()) :] == write.form.opening()
    with pytest.raises(InputError, match="max_rounds"):
        assistant.run("q", [weather], max_rounds=0)
    with pytest.raises(ToolError, match="two are named weather"):
        assistant.run("q", [weather, weather])


def test_the_same_call_in_a_third_round_ends_the_loop(over: Any, write: Writer) -> None:
    """Also among others, whose results are told; and the same twice in one answer is no third."""
    counted: list[str] = []

    def tick(name: str) -> int:
        """Counts."""
        counted.append(name)
        return len(counted)

    again = ("tick", {"name": "a"})
    end = write.say("enough")[len(write.form.opening()) :]
    assistant, engine = over(
        write.call(again, again), write.call(again), write.call(again, ("tick", {"name": "b"})), end
    )
    heard: list[Any] = []
    new = assistant.run("q", [tick], watch=heard.append)
    assert counted == ["a", "a", "a", "b"]
    assert "not called again" in new[-3].content
    assert [new[-2].content, new[-1].content] == ["4", "enough"]
    called = [item for item in heard if isinstance(item, Called)]
    assert [one.outcome.failed for one in called] == [False, False, False, True, False]
    assert [one.call.id for one in called] == [m.tool_call_id for m in new if m.role == "observation"]
    assert engine.asked[-1].ids[-len(write.form.opening()) :] == write.form.opening()


def test_calls_of_the_callers_own_tools_end_the_loop(over: Any, write: Writer) -> None:
    """Those of the same answer that are for functions are carried out first."""
    both = write.call(("weather", {"city": "x"}), ("get_weather", {"city": "y"}))
    assistant, engine = over(write.call(("weather", {"city": "w"})), both)
    new = assistant.run("q", [weather], tools=[WEATHER])
    assert [message.role for message in new] == ["assistant", "observation", "assistant", "observation"]
    assert [call.name for call in new[2].tool_calls] == ["weather", "get_weather"]
    assert new[3].tool_call_id == new[2].tool_calls[0].id
    assert len(engine.asked) == 2
    with pytest.raises(InputError, match="weather is also the name of a function"):
        assistant.run("q", [weather], tools=[{"name": "weather"}])


def test_calls_without_ids_get_some() -> None:
    class Endpoint(Assistant):
        """Calls twice without ids, then answers."""

        def __init__(self) -> None:
            self.asked: list[Any] = []

        def stream(self, messages: Any, **options: Any) -> Any:
            self.asked.append(messages)
            if len(self.asked) == 1:
                yield CallDelta(0, name="weather", arguments='{"city": "a"}')
                yield CallDelta(1, name="weather", arguments='{"city": "b"}')
            yield Finish("stop", Usage(1, 1))

    endpoint = Endpoint()
    new = endpoint.run("q", [weather])
    ids = [call.id for call in new[0].tool_calls]
    assert len(set(ids) - {""}) == 2
    assert [message.tool_call_id for message in new[1:3]] == ids
    assert endpoint.asked[1] == [Message("user", "q"), *new[:3]]


def test_errors_keep_the_dialogue(over: Any, write: Writer) -> None:
    assistant, _ = over(write.call(("weather", {"city": "x"})), InputError("no"))
    with pytest.raises(InputError) as caught:
        assistant.run("q", [weather])
    assert [message.role for message in caught.value.dialogue] == ["assistant", "observation"]


class Painter:
    """A tool that makes a picture, if somebody permits it."""

    spec = ToolSpec({"type": "python"})
    consent = Consent.ALWAYS

    async def run(self, arguments: Any) -> Outcome:
        return Outcome(f"{arguments['code']}\n[Image]", whole="all", pictures=(PNG,), files=("a.csv",))


PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 1, 1) + bytes(9)


def test_what_comes_of_calls_reaches_the_caller(over: Any, write: Writer) -> None:
    """Pictures and files do, which the model never sees; and a person is asked."""
    turn = Message("assistant", "", (ToolCall("interpreter", {"code": "1"}),))
    ids, learned = write.form.example([turn])
    called = [token for token, own in zip(ids, learned, strict=True) if own]

    async def permit(asked: ToolCall, tool: Any) -> bool:
        return asked.name == "interpreter" and isinstance(tool, Painter)

    for asking, failed in ((permit, False), (None, True)):
        assistant, engine = over(called, write.say("好"))
        heard: list[Any] = []
        new = assistant.run("q", [Painter()], watch=heard.append, permit=asking)
        (one,) = [item for item in heard if isinstance(item, Called)]
        assert (one.call, one.outcome.failed) == (new[0].tool_calls[0], failed)
        if not failed:
            assert (one.outcome.pictures, one.outcome.files, one.outcome.whole) == ((PNG,), ("a.csv",), "all")
            assert (
                heard[heard.index(one) + 1] == new[1] == Message("observation", "1\n[Image]", tool_call_id=one.call.id)
            )
            assert "```result" in write.form.tokenizer.decode(engine.asked[1].ids)


def test_loop_of_coroutines(over: Any, write: Writer) -> None:
    met = threading.Barrier(2, timeout=60)

    async def slow(name: str) -> str:
        """Waits for the other."""
        await asyncio.to_thread(met.wait)
        return name

    def also(name: str) -> str:
        """Waits for the other."""
        met.wait()
        return name

    calls = write.call(("slow", {"name": "a"}), ("also", {"name": "b"}))
    for run in (lambda one: asyncio.run(one.arun("q", [slow, also])), lambda one: one.run("q", [slow, also])):
        assistant, _ = over(calls, write.say("both"))
        assert [message.content for message in run(assistant)] == ["", "a", "b", "both"]


def test_who_leaves_ends_the_tools(over: Any, write: Writer) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def slow() -> None:
        """Never ends."""
        begun.set()
        try:
            await asyncio.sleep(600)
        finally:
            ended.set()

    async def leave() -> None:
        assistant, _ = over(write.call(("slow", {})))
        task = asyncio.ensure_future(assistant.arun("q", [slow]))
        assert await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    assert ended.wait(20)  # and not by the time limit of a call, 30 seconds


# Many callers, and those who leave


def test_threads_get_their_own(write: Writer) -> None:
    class Echo(ScriptedEngine):
        """Answers with the prompt's last word."""

        def submit(self, ids: Any, params: Any, **options: Any) -> Any:
            number = write.form.tokenizer.decode(list(ids)).split("#")[1]
            self.replies = [write.say(f"this is answer #{number}")]
            return super().submit(ids, params, **options)

    with Assistant(write.form, Echo(pace=2)) as assistant:  # type: ignore[arg-type]
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(lambda n: assistant.reply(f"say #{n}#").content, range(60)))
        assert found == [f"this is answer #{n}" for n in range(60)]

        async def many() -> list[Message]:
            return await asyncio.gather(*(assistant.areply(f"say #{n}#") for n in range(60)))

        assert [message.content for message in asyncio.run(many())] == found


def test_closing_aborts(over: Any, write: Writer) -> None:
    assistant, engine = over(write.say("word " * 200), delay=0.001)
    deltas = assistant.stream("q")
    next(deltas)
    deltas.close()
    until(lambda: engine.aborted == engine.asked and engine.idle)


def test_leaving_coroutines_abort(over: Any, write: Writer) -> None:
    assistant, engine = over(write.say("word " * 200), delay=0.001)

    async def leave() -> None:
        async with aclosing(assistant.astream("q")) as deltas:
            async for _ in deltas:
                break
        task = asyncio.ensure_future(assistant.areply("q"))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    until(lambda: len(engine.aborted) == 2 and engine.idle)


def test_full_queue_refuses_the_next_only(over: Any, write: Writer) -> None:
    assistant, engine = over(write.say("word " * 10), room=1, delay=0.001)
    first = assistant.stream("q")
    next(first)
    with pytest.raises(QueueFullError):
        assistant.reply("q")
    assert len(list(first)) > 3
    assert assistant.reply("q").content.startswith("word")
    assert len(engine.asked) == 2


def test_failure_of_the_engine_reaches_everybody(over: Any, write: Writer, caplog: pytest.LogCaptureFixture) -> None:
    """It begins again, as often as may be; then it says why it does not."""
    broken = threading.Event()

    def watch() -> None:
        if broken.is_set():
            raise MemoryError("no memory for a batch")

    assistant, engine = over(write.say("word " * 200), delay=0.001, watch=watch)
    waiting = [assistant.stream("q") for _ in range(3)]
    for deltas in waiting:
        next(deltas)
    broken.set()
    for deltas in waiting:
        with pytest.raises(EngineError, match="MemoryError: no memory for a batch"):
            list(deltas)
    until(lambda: engine.idle)
    broken.clear()
    assert assistant.reply("q").content.startswith("word word")
    assert (assistant.problem(), assistant.stats().restarts) == ("", 1)
    broken.set()
    for _ in range(5):
        assert assistant.problem() == ""
        with pytest.raises(EngineError, match="no memory for a batch"):
            asyncio.run(assistant.areply("q"))
    until(lambda: "no memory for a batch" in assistant.problem())
    broken.clear()
    with pytest.raises(EngineError, match="no memory for a batch"):
        assistant.reply("q")
    with pytest.raises(EngineError, match="no memory for a batch"):
        asyncio.run(assistant.areply("q"))
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 5 + ["CRITICAL"]


def test_an_answer_that_cannot_be_read_ends_alone(over: Any, write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicError(BaseException):
        """As libraries in Rust raise it."""

    for error in (ValueError("digits"), PanicError("rust")):
        assistant, engine = over(write.say("word " * 200), delay=0.001)
        beside = assistant.stream("q")
        next(beside)

        def parser(*_: Any, error: BaseException = error) -> Any:
            class Broken:
                def feed(self, token: int) -> Any:
                    raise error

            return Broken()

        with monkeypatch.context() as patch:
            patch.setattr(assistant.format, "parser", parser)
            with pytest.raises(EngineError, match=f"could not be read: {type(error).__name__}: {error}"):
                assistant.reply("q")
        assert len(list(beside)) > 100
        until(lambda engine=engine: engine.aborted == [engine.asked[1]])
        assert assistant.problem() == ""


def test_a_request_that_cannot_begin_ends_alone(over: Any, write: Writer) -> None:
    class PanicError(BaseException):
        """As libraries in Rust raise it."""

    for error in (RuntimeError("boom"), PanicError("rust"), MemoryError()):
        assistant, engine = over(error, write.say("word " * 50), delay=0.001)
        with pytest.raises(EngineError, match=f"could not begin: {type(error).__name__}"):
            assistant.reply("q")
        assert assistant.reply("q").content.startswith("word")
        assert (assistant.problem(), engine.restarts) == ("", 0)


def test_error_of_one_request_is_its_own(over: Any, write: Writer) -> None:
    assistant, _ = over(InputError("ids: wrong"), write.say("fine"))
    with pytest.raises(InputError, match="ids: wrong"):
        assistant.reply("q")
    assert assistant.reply("q").content == "fine"
    assert assistant.problem() == ""


def test_close_ends_everything(over: Any, write: Writer) -> None:
    assistant, engine = over(write.say("word " * 200), delay=0.001)
    deltas = assistant.stream("q")
    next(deltas)
    assistant.close()
    assistant.close()
    with pytest.raises(EngineError, match="closed"):
        list(deltas)
    with pytest.raises(EngineError, match="closed"):
        assistant.reply("q")
    assert engine.aborted == engine.asked


def test_forgotten_assistants_end_their_thread(write: Writer) -> None:
    assistant = Assistant(write.form, ScriptedEngine(write.say("好")))  # type: ignore[arg-type]
    assert assistant.reply("q").content == "好"
    (thread,) = {t for t in threading.enumerate() if t.name == "chatglm engine" and t is assistant._driver._thread}
    del assistant
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


def test_stats_are_those_of_now(over: Any, write: Writer) -> None:
    reply = write.say("one two")
    assistant, _ = over(reply)
    assistant.reply("q")
    until(lambda: assistant.stats().running == 0 and assistant.stats().generated_tokens == len(reply))


# The real thing


def test_demo_model() -> None:
    with Assistant.load(dtype="float32") as assistant:
        whole = the(assistant, "你好", params={"logprobs": 1})
        assert "演示模型" in whole.message.content
        assert b"".join(token.data for token in whole.logprobs).decode() == whole.message.content
        assert assistant.reply("你好") == whole.message
        call = the(assistant, "北京的天气怎么样？", tools=[WEATHER], tool_choice="get_weather")
        assert call.message.tool_calls[0].arguments.keys() <= {"city", "days"}
        with ThreadPoolExecutor(4) as pool:
            assert {m.content for m in pool.map(assistant.reply, ["你好"] * 4)} == {whole.message.content}
        stats = assistant.stats()
        assert stats.cached_tokens >= 0
        until(lambda: assistant.stats().running == assistant.stats().waiting == 0)


def test_log_probabilities_of_a_prompt() -> None:
    """First delta of every answer; what lm-eval's `local-completions` needs of `echo`, in text and in ids."""
    with Assistant.load(dtype="float32") as assistant:
        params = {"temperature": 0, "prompt_logprobs": 2, "logprobs": 2, "max_new_tokens": 1, "n": 2}
        text = "你好，北京 and so on"
        first, *rest = assistant.stream_text(text, params=params)
        assert isinstance(first, PromptDelta)
        assert first.text == text
        assert b"".join(token.data for token in first.tokens).decode().strip() == text
        ids = assistant.tokenizer.build_inputs_with_special_tokens(assistant.tokenizer.encode_text(text))
        assert (len(first.tokens), first.tokens[0].logprob) == (len(ids), None)
        assert all(token.logprob is not None and len(token.alternatives) == 2 for token in first.tokens[1:])
        assert [type(delta) for delta in rest].count(PromptDelta) == 1
        # One entry a token, also where the answer ends at once, whatever its token adds to the text.
        assert [len(delta.logprobs) for delta in rest if isinstance(delta, TextDelta)] == [1, 1]
        stop = assistant.format.stop_ids
        ended = {"temperature": 0, "prompt_logprobs": 0, "logprobs": 1, "max_new_tokens": 1}
        ended["logit_bias"] = {token: -100 for token in range(assistant.model.config.vocab_size) if token not in stop}
        _, said, finish = assistant.stream_text(ids, params=ended)
        assert isinstance(said, TextDelta)
        assert (said.text, len(said.logprobs), finish.reason) == ("", 1, "stop")  # type: ignore[union-attr]

        # A continuation is as likely as the model finds its tokens one by one.
        context, more = ids[:8], ids[8:]
        alone = []
        for place in range(len(more)):
            chosen = {"temperature": 0, "max_new_tokens": 1, "logprobs": 0, "logit_bias": {more[place]: 100}}
            answer = list(assistant.stream_text([*context, *more[:place]], params={**chosen, "prompt_logprobs": 0}))
            alone += [token.logprob for delta in answer if isinstance(delta, TextDelta) for token in delta.logprobs]
        only = {"max_new_tokens": 0, "prompt_logprobs": 0}
        prompt, finish = assistant.stream_text(ids, params=only)
        assert [token.logprob for token in prompt.tokens[8:]] == pytest.approx(alone, abs=1e-4)
        assert (finish.reason, finish.usage.completion_tokens) == ("length", 0)

        async def several() -> list[Delta]:
            return [delta async for delta in assistant.astream_texts([text, ids[:5], ids], params=only)]

        deltas = asyncio.run(several())
        found = {delta.choice: delta for delta in deltas if isinstance(delta, PromptDelta)}
        assert [len(found[n].tokens) for n in range(3)] == [len(ids), 5, len(ids)]
        assert found[2].tokens == prompt.tokens
        (answer,) = assistant.answers("你好", params={"prompt_logprobs": 1, "max_new_tokens": 3})
        assert answer.prompt is not None
        assert len(answer.prompt.tokens) == answer.finish.usage.prompt_tokens


# Output that comes to its end


def test_structured_output_of_the_demo_model_ends() -> None:
    """Two objects inside each other and a list: 20 of 20 answers."""

    def closed(**properties: Any) -> dict[str, Any]:
        return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}

    text = {"type": "string", "maxLength": 12}
    home = closed(city=text, zip={"type": "integer", "minimum": 0, "maximum": 99999})
    tags = {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 3}
    schema = closed(
        person=closed(name=text, age={"type": "integer", "minimum": 0, "maximum": 150}, home=home), tags=tags
    )
    with Assistant.load() as assistant:
        answers = assistant.answers(
            "介绍一个人",
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
            params={"n": 20, "seed": 0, "temperature": 1.0, "max_new_tokens": 256},
        )
    assert [answer.finish.reason for answer in answers] == ["stop"] * 20
    for answer in answers:
        jsonschema.validate(json.loads(answer.message.content), schema)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_first_token_that_counts_is_one_that_is_seen(version: str, checkpoint) -> None:
    """ChatGLM3 and GLM-4 begin a reply with an empty line, SentencePiece a text with a blank: `max_tokens: 1` and
    log-probabilities are about what comes after them (differences: lead-uncounted)."""
    form = chat_format(AutoTokenizer.from_pretrained(checkpoint(version)))
    writer = Writer(form)
    for count in (1, 2):
        engine = ScriptedEngine(writer.say("天地玄黄"))
        with Assistant(form, engine) as assistant:
            params = {"max_new_tokens": count, "logprobs": 1}
            for tools in ((), OPTIONS) if form.splits_lines() else ((),):
                (answer,) = assistant.answers("你好", tools=tools, params=params)
                assert answer.message.content
                assert b"".join(entry.data for entry in answer.logprobs).decode() == answer.message.content
                assert len(answer.logprobs) == answer.finish.usage.completion_tokens == count
                assert answer.finish.usage.prompt_tokens == len(engine.asked[-1].ids)
                assert answer.finish.reason == "length"
            # A text that is completed is a text: its blanks are its own.
            plain = list(assistant.stream_text("你好", params=params))
            assert plain[-1].usage.completion_tokens == count
            assert engine.asked[-1].uncounted is None


def test_one_token_of_a_real_reply() -> None:
    with Assistant.load(dtype="float32") as assistant:
        params = {"temperature": 0, "logprobs": 2}
        (whole,) = assistant.answers("你好", params=params | {"max_new_tokens": 12})
        for count in (1, 2, 5):
            (answer,) = assistant.answers("你好", params=params | {"max_new_tokens": count, "n": 1})
            assert answer.message.content
            assert whole.message.content.startswith(answer.message.content)
            assert answer.logprobs == whole.logprobs[: len(answer.logprobs)]
            assert len(answer.logprobs) == count or answer.logprobs[-1].data.strip()  # a blank at the end is cut off
            assert answer.logprobs
            assert answer.finish.usage.completion_tokens == count


def test_streams_that_fail_are_gone() -> None:
    async def broken(words: Message) -> AsyncGenerator[Any]:
        yield TextDelta(words.content)
        raise InputError("it went wrong")

    async def read() -> None:
        try:
            async for _ in merge_streams([broken(Message("user", "x")), broken(Message("user", "y"))], 1):
                pass
        except InputError:
            return
        raise AssertionError("it did not fail")

    asyncio.run(read())
    with no_garbage():
        asyncio.run(read())


def test_grammars_that_take_long_leave_threads_for_others(
    over: Callable[..., tuple[Assistant, ScriptedEngine]], write: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assistant, _ = over(write.say("好"))
    plan, may, waiting = Assistant._plan, threading.Event(), []

    def slow(self: Assistant, ask: Any) -> Any:
        if ask.response_format:
            waiting.append(ask)
            assert may.wait(120)
        return plan(self, ask)

    monkeypatch.setattr(Assistant, "_plan", slow)

    async def main() -> None:
        held = [asyncio.ensure_future(assistant.areply(f"{n}", response_format={"type": "text"})) for n in range(40)]
        while not waiting:
            await asyncio.sleep(0.01)
        assert (await asyncio.wait_for(assistant.areply("你好"), 120)).content == "好"
        assert not any(task.done() for task in held)
        may.set()
        assert [made.content for made in await asyncio.gather(*held)] == ["好"] * 40

    asyncio.run(main())


def test_an_endpoint_gets_few_requests_at_a_time() -> None:
    running = most = 0

    async def one(number: int) -> AsyncGenerator[Delta]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        yield TextDelta(str(number))
        running -= 1

    async def main() -> list[Delta]:
        return [delta async for delta in merge_streams([one(n) for n in range(40)], 1, together=5)]

    found = asyncio.run(main())
    assert sorted(delta.choice for delta in found if isinstance(delta, TextDelta)) == list(range(40))
    assert most == 5
