"""What is exported is read by fine-tuning, and imported again, as the same messages."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatglm.characters import Character
from chatglm.chat.messages import Message, ToolCall, ToolSpec
from chatglm.chat.personas import Persona
from chatglm.chat.rows import dialogue_of
from chatglm.conversation.export import json_line, markdown, saved_row, training_row
from chatglm.conversation.importing import read_conversations
from chatglm.conversation.session import Sessions
from chatglm.conversation.settings import Settings
from chatglm.conversation.store import File, Store
from chatglm.conversation.tree import Tree, Turn
from chatglm.errors import InputError
from chatglm.tools.toolbox import Toolbox
from chatglm.training.dialogues import read_dialogues

Form = Literal["chatglm3", "messages"]
FORMS: tuple[Form, ...] = ("chatglm3", "messages")
TOOLS = ToolSpec.list_from([{"name": "get_weather", "description": "天气", "parameters": {"type": "object"}}])


def tree_of(*turns: Message | tuple[Message, str | None, int]) -> Tree:
    tree = Tree()
    for number, each in enumerate(turns, 1):
        message, finish, rating = each if isinstance(each, tuple) else (each, "stop", 0)
        tree = tree.add(Turn(number, tree.leaf, message, finish, rating))
    return tree


def losses(tree: Tree, **options: Any) -> list[bool | None] | None:
    row = training_row(tree, **options)
    return None if row is None else [message.get("loss") for message in row["messages"]]


def user(text: str) -> Message:
    return Message("user", text)


def says(text: str) -> Message:
    return Message("assistant", text)


CALL = Message("assistant", "", (ToolCall("get_weather", {"city": "北京"}, "call_1"),))
RESULT = Message("observation", "晴 \n```25```", tool_call_id="call_1")

texts = st.text(max_size=8)
answers = st.text(min_size=1, max_size=8).filter(str.strip)
values = st.dictionaries(texts, st.integers() | texts | st.lists(st.booleans(), max_size=2), max_size=2)
calls = st.builds(ToolCall, st.sampled_from(["get_weather", "interpreter"]), values, st.sampled_from(["", "call_1"]))
weights = st.sampled_from([None, None, True, False])
rounds = st.tuples(
    st.builds(
        Message,
        st.just("assistant"),
        texts,
        st.lists(calls, min_size=1, max_size=2).map(tuple),
        st.sampled_from(["", "get_weather"]),
        loss=weights,
    ),
    st.builds(Message, st.just("observation"), texts, tool_call_id=st.sampled_from(["", "call_1"])),
)
exchanges = st.tuples(
    st.builds(Message, st.just("user"), texts),
    st.lists(rounds, max_size=2),
    st.builds(Message, st.just("assistant"), answers, loss=weights),
).map(lambda parts: [parts[0], *(message for pair in parts[1] for message in pair), parts[2]])
dialogues = st.lists(exchanges, min_size=1, max_size=3).map(
    lambda found: [message for each in found for message in each]
)


def without_ids(message: Message) -> Message:
    made = tuple(dataclasses.replace(call, id="") for call in message.tool_calls)
    return dataclasses.replace(message, tool_calls=made, tool_call_id="")


@given(dialogues, st.sampled_from(FORMS), st.sampled_from(["", "系统"]), st.booleans())
def test_fine_tuning_reads_equal_messages(messages: list[Message], form: Form, system: str, tools: bool) -> None:
    row = training_row(tree_of(*messages), form=form, system=system, tools=TOOLS if tools else (), title="题")
    if row is None:
        assert all(message.loss is False for message in messages if message.role == "assistant")
        return
    read = dialogue_of(json.loads(json_line(row)))
    expected = ([Message("system", system)] if system else []) + messages
    if form == "chatglm3":
        assert list(map(without_ids, read.messages)) == list(map(without_ids, expected))
    else:
        assert list(read.messages) == expected
    assert read.tools == (TOOLS if tools else ())
    (imported,) = read_conversations(json_line(row))
    assert (imported.title, imported.system, imported.tools) == ("题", system, read.tools)
    assert imported.messages == read.messages[bool(system) :]


@pytest.mark.parametrize("form", FORMS)
def test_a_file_through_store_and_reader(tmp_path: Path, form: Form) -> None:
    store = Store(tmp_path / "c.sqlite")
    local = store.users.local().id
    name = store.make(local, messages=[user("天气？"), CALL, RESULT, says("晴。"), user("谢"), says("不客气")])
    tree = store.tree(local, name)
    store.edit(local, name, tree.path()[-1].id, "不用谢")
    persona = Persona("茶馆老板", "爱聊天", "小明", "茶客")
    tree = store.tree(local, name)
    file = tmp_path / "data.jsonl"
    row = training_row(tree, form=form, system="好好回答", tools=TOOLS, persona=persona)
    assert row is not None
    file.write_bytes(json_line(row) * 2)
    first, second = read_dialogues(file)
    assert first.messages == second.messages
    assert [message.content for message in first.messages] == [
        "好好回答",
        "天气？",
        "",
        RESULT.content,
        "晴。",
        "谢",
        "不用谢",
    ]
    assert (first.tools, first.persona) == (TOOLS, persona)
    imported = read_conversations(file.read_bytes())
    again = store.make(local, title=imported[0].title, messages=imported[0].messages)
    assert [turn.message for turn in store.tree(local, again).path()] == list(first.messages[1:])
    store.close()
    if form == "chatglm3":  # as the official scripts have it
        assert row["conversations"][2] == {
            "role": "tool",
            "name": "get_weather",
            "parameters": {"city": "北京"},
            "observation": RESULT.content,
        }


def get_weather(city: str) -> str:
    """天气"""
    return city


def order(what: str) -> str:
    """Order tea."""
    return what


MANUAL = """
- name: 查一下
  description: 查
  parameters: {type: object, properties: {word: {type: string}}}
- {name: 计算, params: [1, "2", null]}
"""
people = st.builds(Character, texts, texts, texts, texts, st.lists(texts, max_size=1).map(tuple))
ways = st.one_of(
    st.builds(Settings, system=texts),
    st.builds(Settings, st.just("tools"), tools=st.sampled_from([None, (), ("order",), ("order", "get_weather")])),
    st.just(Settings("tools", manual=MANUAL, system="系统")),
    st.just(Settings("code")),
    people.map(lambda one: Settings("character", character=one.text(), system="系统")),
)


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    with Toolbox([get_weather, order]) as box:
        store = Store(tmp_path_factory.mktemp("store") / "c.sqlite")
        yield Sessions({}, store, toolbox=box)
        store.close()


@given(exchanges, ways, st.booleans())
@hypothesis.settings(max_examples=20, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
def test_what_is_exported_goes_on_as_it_was(
    sessions: Sessions, messages: list[Message], settings: Settings, here: bool
) -> None:
    """With its tools and its character: exported again, it is the same row.

    Args:
        here: whether it goes on where its tools are; else a person answers their calls.
    """
    store, local = sessions.store, sessions.store.users.local().id
    toolbox = sessions._parts.toolbox

    def rows(name: str) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        session = sessions.open(local, name)

        async def made() -> tuple[dict[str, Any] | None, dict[str, Any]]:
            return await session.training_row(), await session.saved_row()

        return asyncio.run(made())

    def kept(settings: Settings, messages: Sequence[Message]) -> str:
        return store.make(local, title="题", mode=settings.mode, settings=settings.to_dict(), messages=messages)

    first = kept(settings, messages)
    for which, row in enumerate(rows(first)):
        if row is None:
            continue
        left_out: list[str] = []
        (read,) = read_conversations(json_line(row))
        assert read.title == "题"
        again = kept(read.settings(toolbox if here else None, code=here, left_out=left_out), read.messages)
        assert rows(again)[which] == row
        assert not left_out
        if here and not settings.manual and (settings.mode != "tools" or row.get("tools")):
            assert sessions.open(local, again).settings.mode == settings.mode
        store.delete(local, again)
    store.delete(local, first)


def test_tools_and_characters_that_cannot_be_used_are_told_of() -> None:
    row = {"messages": [{"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}], "title": "题"}
    given = {**row, "tools": [{"name": "a"}, {"name": "a"}], "session_meta": {"bot_name": "x" * 300}}
    (read,) = read_conversations(json.dumps(given).encode())
    left_out: list[str] = []
    assert read.settings(left_out=left_out) == Settings()
    assert [reason.partition(":")[2].partition(":")[0] for reason in left_out] == [
        " its tools are left out",
        " its character is left out",
    ]
    both = {**given, "tools": [{"name": "a"}], "session_meta": {"bot_name": "老板"}}
    (read,) = read_conversations(json.dumps(both).encode())
    settings = read.settings()
    assert settings.mode == "character"
    assert "老板" in settings.character
    assert '"a"' in settings.manual  # for the mode `tools`


def test_half_a_character_can_be_stored(store: Store) -> None:
    data = rb'{"system": "\ud83d", "session_meta": {"bot_name": "\ud83d"}, "tools": [{"name": "a", "about": "\ud83d"}],'
    (read,) = read_conversations(data + rb' "prompt": "q", "response": "a"}')
    settings = read.settings()
    assert "\ufffd" in settings.character
    store.make(store.users.local().id, mode=settings.mode, settings=settings.to_dict(), messages=read.messages)


def test_what_was_stopped_is_saved_and_read() -> None:
    cut = Message("assistant", "", (ToolCall("f", {}, text='{"a": '),))
    tree = tree_of(user("一"), says("1"), user("二"), (says(""), "stopped", 0), user("三"), (cut, "length", 0))
    (read,) = read_conversations(json_line(saved_row(tree, title="题")))
    assert [message.content for message in read.messages] == ["一", "1", "二", "", "三", ""]


def test_what_is_learned() -> None:
    answers = (says("好"), "stop", 1), (says("坏"), "stop", -1), (says("停了"), "stopped", 1), (says("长"), "length", 0)
    turns = [each for answer in answers for each in (user("问"), answer)]
    assert losses(tree_of(*turns)) == [None, None, None, False, None, False, None, False]
    more = tree_of(*turns, user("问"), says("没评"))
    assert losses(more)[-1:] == [None]  # type: ignore[index]
    assert losses(more, only_rated_up=True) == [None, None, *[None, False] * 4]
    assert losses(tree_of(user("问"), (says("坏"), "stop", -1))) is None
    assert losses(tree_of(user("问"), (says("写着"), None, 0))) is None
    assert losses(tree_of(user("问"), says(" "))) is None
    assert losses(Tree()) is None
    # The rating of an answer is that of the calls before it.
    rated = tree_of(user("问"), (CALL, "tool_calls", 0), RESULT, (says("坏"), "stop", -1), user("问"), says("好"))
    assert losses(rated) == [None, False, None, False, None, None]
    rated = tree_of(user("问"), (CALL, "tool_calls", 0), RESULT, (says("好"), "stop", 1))
    assert losses(rated, only_rated_up=True) == [None] * 4


def test_a_cut_call_ends_the_row() -> None:
    cut = Message("assistant", "", (ToolCall("f", {}, text='{"a": '),))
    row = training_row(tree_of(user("一"), says("1"), user("二"), (cut, "length", 0), user("三"), says("3")))
    assert row is not None
    assert [message["content"] for message in row["messages"]] == ["一", "1"]
    dialogue_of(row)


def test_names_are_left_out() -> None:
    tree = tree_of(user("你好"), says("你好"))
    persona = Persona("老板", "爱聊天", "小明", "茶客")
    shown = json_line(training_row(tree, title="小明的茶", persona=persona) or {}).decode()
    assert shown.count("小明") == 2
    hidden = json_line(training_row(tree, title="小明的茶", persona=persona, without_names=True) or {}).decode()
    assert "小明" not in hidden
    assert "老板" in hidden


# Import


@pytest.mark.parametrize(
    "value",
    [
        [["问", "答"]],  # the history of ChatGLM-6B's and ChatGLM2's demos
        {"history": [["问", "答"]]},
        [{"role": "user", "content": "问"}, {"role": "assistant", "content": "答", "metadata": ""}],  # ChatGLM3's
        [
            {"role": "user", "content": "问", "metadata": None},
            {"role": "assistant", "content": "答", "metadata": {"a": 1}},
        ],
        {"id": "1", "conversations": [{"from": "human", "value": "问"}, {"from": "gpt", "value": "答"}]},  # ShareGPT
        [{"conversations": [{"from": "human", "value": "问"}, {"from": "gpt", "value": "答"}]}],
        {"messages": [{"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}]},
        {"conversations": [{"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}]},
    ],
)
def test_import(value: Any) -> None:
    (found,) = read_conversations(b"\xef\xbb\xbf" + json.dumps(value).encode())
    assert found.messages == (user("问"), says("答"))
    assert (found.title, found.system) == ("问", "")


def test_an_official_history_with_a_tool() -> None:
    history = [
        {
            "role": "system",
            "content": "Answer …",
            "tools": [{"name": "get_weather", "description": "", "parameters": {}}],
        },
        {"role": "user", "content": "北京天气"},
        {"role": "assistant", "metadata": "get_weather", "content": "```python\ntool_call(city='北京')\n```"},
        {"role": "observation", "content": "晴"},
        {"role": "assistant", "metadata": "", "content": "晴"},
    ]
    (found,) = read_conversations(json.dumps(history).encode())
    assert found.system == "Answer …"
    assert [tool.name for tool in found.tools] == ["get_weather"]
    assert [message.role for message in found.messages] == ["user", "assistant", "observation", "assistant"]
    assert found.messages[1].metadata == "get_weather"


def test_a_bad_row_harms_no_other() -> None:
    good = json.dumps({"messages": [{"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}]})
    data = f'{good}\n{{broken\n\n{{"x": 1}}\n{good}\n'.encode()
    skipped: list[str] = []
    assert len(read_conversations(data, skipped=skipped)) == 2
    assert [reason.split(":")[0] for reason in skipped] == ["line 2", "line 4"]
    with pytest.raises(InputError, match="line 2"):
        read_conversations(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not JSON"),
        (b"hello", "not JSON"),
        (b"[]", "no conversation"),
        (b"7", "must be an object"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"messages": ' + b"[" * 100_000, "nested too deep"),
        (b"9" * 5000, "cannot be read"),
        (b" " * (17 << 20), "at most 16,777,216"),
        (b"[" + b"{}," * 10_001 + b"{}]", "at most 10,000"),
        (b"1\n" * 10_002, "10,000"),
        (b'{"messages": [' + b"{}," * 10_001 + b"{}]}", "at most 10,000"),
        (b'[{"role": "user", "content": {"a": 1}}]', "content must be a string"),
        (b"[" + b"[]," * 1_000_000 + b"[]]", "1,000,000 lists and objects"),
        (b'{"history": 3}', "no known form"),
    ],
)
def test_what_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_conversations(data)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "role",
                        "content",
                        "from",
                        "value",
                        "conversations",
                        "messages",
                        "history",
                        "tools",
                        "title",
                        "session_meta",
                    ]
                ),
                inner,
                max_size=3,
            )
        ),
        max_leaves=8,
    )
)
def test_any_json_is_read_or_refused(value: Any) -> None:
    try:
        for found in read_conversations(json.dumps(value).encode()):
            assert found.messages
    except InputError:
        pass


# Markdown


def test_markdown() -> None:
    code = Message("assistant", "画图", (ToolCall("interpreter", {"code": "plot()"}),))
    tree = tree_of(user("画 [图]"), code, RESULT, says("好了"))
    files = (File(1, 3, "图 1).png", "picture", 9, ""), File(2, None, "a.csv", "upload", 9, ""))
    text = markdown(tree, title="# 题\n<b>", files=files, speakers={"user": "用户"})
    assert text.split("\n\n") == [
        "# \\# 题 \\<b\\>",
        "**用户**",
        "画 [图]",
        "**assistant**",
        "画图",
        "`interpreter`",
        "```python\nplot()\n```",
        "**observation**",
        "````\n晴 \n```25```\n````",
        "![图 1).png](%E5%9B%BE%201%29.png)",
        "**assistant**",
        "好了",
        "[a.csv](a.csv)\n",
    ]
    assert markdown(Tree()) == "\n"
