"""Messages in the forms that people have them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatglm.chat.messages import Message, ToolCall, ToolSpec, messages_from_pairs
from chatglm.errors import InputError

WEATHER = {"name": "get_weather", "description": "d", "parameters": {"type": "object", "properties": {}}}

CALLS = st.lists(
    st.builds(ToolCall, st.text(min_size=1), st.dictionaries(st.text(), st.integers() | st.text()), st.text())
    | st.builds(ToolCall, st.text(min_size=1), st.just({}), st.text(), st.from_regex("[^{]+", fullmatch=True)),
    max_size=3,
).map(tuple)
MESSAGES = st.one_of(
    st.builds(Message, st.sampled_from(["user", "system"]), st.text()),
    st.builds(Message, st.just("assistant"), st.text(), CALLS, loss=st.none() | st.booleans()),
    st.builds(Message, st.just("observation"), st.text(), tool_call_id=st.text()),
)


@given(MESSAGES)
def test_there_and_back(message: Message) -> None:
    assert Message.from_dict(message.to_dict()) == message


def test_openai_and_official_forms() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    message = Message.from_dict({"role": "assistant", "content": None, "tool_calls": [call]})
    assert message == Message("assistant", "", (ToolCall("f", {"a": 1}, "c1"),))
    old = Message.from_dict({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}})
    assert old.tool_calls == (ToolCall("f", {}),)
    assert Message.from_dict({"role": "developer", "content": "x"}).role == "system"
    for role in ("tool", "function", "observation"):
        assert Message.from_dict({"role": role, "content": "x"}).role == "observation"
    history = Message.from_dict({"role": "assistant", "metadata": " track", "content": "x"})
    assert (history.metadata, history.content) == (" track", "x")
    parts = Message.from_dict(
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    )
    assert parts.content == "ab"
    system = Message.from_dict({"role": "system", "content": "s", "tools": {"x": WEATHER}})
    assert system.tools is not None
    assert [tool.name for tool in system.tools] == ["get_weather"]


@pytest.mark.parametrize(
    "written", ['{"city": "北', "[]", "北京", "[" * 100_000, '{"a": 1} x', '{"a": NaN}', '{"a": "\\ud800"}']
)
def test_broken_arguments_are_kept_as_text(written: str) -> None:
    """Those of a call that was cut short come back with every turn of the history."""
    call = ToolCall.from_dict({"id": "c1", "function": {"name": "f", "arguments": written}})
    assert call == ToolCall("f", {}, "c1", written)
    assert call.to_dict()["function"]["arguments"] == written
    assert ToolCall.from_dict(call.to_dict()) == call


@pytest.mark.parametrize("given", [None, "", "{}", {}])
def test_no_arguments(given: object) -> None:
    assert ToolCall.from_dict({"name": "f", "arguments": given}) == ToolCall("f", {})


def test_tools() -> None:
    bare, wrapped = ToolSpec.from_dict(WEATHER), ToolSpec.from_dict({"type": "function", "function": WEATHER})
    assert bare.flat() == wrapped.flat() == WEATHER
    assert bare.wrapped() == wrapped.wrapped() == {"type": "function", "function": WEATHER}
    assert ToolSpec.from_dict({"name": "f", "params": []}).name == "f"
    assert ToolSpec.from_dict({"type": "python"}).builtin == "python"
    assert ToolSpec.from_dict(bare) is bare


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("hello", r"messages\[3\]: expected a dict"),
        ({"role": "robot", "content": "x"}, r"messages\[3\]: role 'robot'"),
        ({"content": "x"}, r"messages\[3\]: role None"),
        ({"role": "user", "content": 7}, "content must be a string"),
        ({"role": "user", "content": [{"type": "image_url"}]}, r"messages\[3\].content: images are not supported"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "audio is not supported"),
        ({"role": "user", "content": [{"type": "input_text", "text": "x"}]}, "Responses API; here use type text"),
        ({"role": "user", "content": [{"type": "hologram"}]}, "'hologram' are not supported; supported: text"),
        ({"role": "user", "content": [{"type": "text"}]}, "needs a `text`"),
        ({"role": "user", "content": [{}]}, "None are not supported"),
        ({"role": "user", "content": ["x"]}, "must be an object with `type` and `text`, got str"),
        ({"role": "user", "content": "x", "tool_calls": [{"function": {"name": "f"}}]}, "only an assistant"),
        (
            {"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]},
            r"tool_calls\[0\]: a call needs a name",
        ),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": []}}]}, "must be an object"),
        ({"role": "assistant", "content": "x", "metadata": "a\nb"}, "one line"),
        ({"role": "assistant", "content": "x", "loss": "yes"}, "loss must be true or false"),
        ({"role": "system", "content": "x", "tools": [{"description": "no name"}]}, r"tools\[0\]"),
        ({"role": "system", "content": "x", "tools": {"f": {}}}, r"tools\['f'\]"),
        ({"role": "system", "content": "x", "tools": 5}, "expected a list of tools"),
        ({"role": "assistant", "tool_calls": 5}, "tool_calls must be a list, got int"),
        ({"role": "assistant", "tool_calls": [{"function": "f"}]}, r"tool_calls\[0\]: expected"),
        ({"role": "assistant", "tool_calls": [{"function": None, "name": "f"}]}, r"tool_calls\[0\]: expected"),
        ({"role": "assistant", "function_call": "f"}, r"tool_calls\[0\]: expected"),
    ],
)
def test_bad_messages(data: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Message.from_dict(data, 3)  # type: ignore[arg-type]


def test_pairs() -> None:
    assert messages_from_pairs([("q", "a")], "x") == [
        Message("user", "q"),
        Message("assistant", "a"),
        Message("user", "x"),
    ]
    for bad in (["qa"], [("q",)], [("q", None)], [{"role": "user"}]):
        with pytest.raises(InputError, match=r"history\[0\]"):
            messages_from_pairs(bad, "x")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="query"):
        messages_from_pairs([], None)  # type: ignore[arg-type]


def test_tools_as_they_were_given() -> None:
    by_name = {"get_weather": WEATHER}
    for given_tools in (by_name, [WEATHER], [{"type": "function", "function": WEATHER}], []):
        message = Message.from_dict({"role": "system", "content": "s", "tools": given_tools})
        assert message.to_dict()["tools"] == given_tools
        assert Message.from_dict(message.to_dict()) == message
    assert ToolSpec.list_from(WEATHER) == ToolSpec.list_from([WEATHER]) == (ToolSpec(WEATHER),)
    assert ToolSpec.list_from(ToolSpec(WEATHER)) == (ToolSpec(WEATHER),)


def test_metadata_is_one_line() -> None:
    with pytest.raises(InputError, match="one line"):
        Message("assistant", "x", metadata="a\nb")
