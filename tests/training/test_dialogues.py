"""Dialogues in every form that people have them in, from files of every shape, and what is said of bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chatglm.training.dialogues as module
from chatglm.chat.messages import Message, ToolCall, ToolSpec
from chatglm.chat.personas import Persona
from chatglm.errors import InputError
from chatglm.training.dialogues import BadRow, data_files, detect_form, read_dialogues

WEATHER = {"name": "get_weather", "description": "查询天气", "parameters": {"type": "object", "properties": {}}}
CALL = ToolCall("get_weather", {"city": "北京"})
QUESTION, ANSWER = Message("user", "你好"), Message("assistant", "你好！我是小智。")
PAIR = (QUESTION, ANSWER)

# form, row, messages, and what else the dialogue has
GOOD: list[tuple[str, dict[str, Any], tuple[Message, ...], dict[str, Any]]] = [
    ("pairs", {"prompt": "你好", "response": ANSWER.content}, PAIR, {}),
    ("pairs", {"content": "你好", "summary": ANSWER.content}, PAIR, {}),
    (
        "pairs",
        {"prompt": "再见", "response": "再见！", "history": [["你好", ANSWER.content]]},
        (*PAIR, Message("user", "再见"), Message("assistant", "再见！")),
        {},
    ),
    ("pairs", {"prompt": "你好", "response": ANSWER.content, "history": None}, PAIR, {}),
    ("firefly", {"conversation": [{"human": "你好", "assistant": ANSWER.content}]}, PAIR, {}),
    (
        "firefly",
        {"conversation": [{"human": "你好", "assistant": ANSWER.content}], "system": "简短。"},
        (Message("system", "简短。"), *PAIR),
        {},
    ),
    ("alpaca", {"instruction": "你好", "input": "", "output": ANSWER.content}, PAIR, {}),
    (
        "alpaca",
        {"instruction": "翻译", "input": "hello", "output": "你好", "history": [["a", "b"]], "system": "s"},
        (
            Message("system", "s"),
            Message("user", "a"),
            Message("assistant", "b"),
            Message("user", "翻译\nhello"),
            Message("assistant", "你好"),
        ),
        {},
    ),
    (
        "sharegpt",
        {
            "conversations": [
                {"from": "human", "value": "北京天气"},
                {"from": "function_call", "value": '{"name": "get_weather", "arguments": {"city": "北京"}}'},
                {"from": "observation", "value": "晴"},
                {"from": "gpt", "value": "晴天。", "loss": False},
            ],
            "system": "s",
            "tools": json.dumps([WEATHER]),
        },
        (
            Message("system", "s"),
            Message("user", "北京天气"),
            Message("assistant", tool_calls=(CALL,)),
            Message("observation", "晴"),
            Message("assistant", "晴天。", loss=False),
        ),
        {"tools": (ToolSpec(WEATHER),)},
    ),
    (
        "chatglm3",
        {
            "tools": [WEATHER],
            "conversations": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "北京天气"},
                {"role": "tool", "name": "get_weather", "parameters": {"city": "北京"}, "observation": {"t": 1}},
                {"role": "assistant", "content": "1 度。", "loss": True},
                {"role": "user", "content": "画图"},
                {"role": "tool", "name": "interpreter", "parameters": "plot()", "observation": "图", "loss": False},
                {"role": "assistant", "content": "好了。"},
            ],
        },
        (
            Message("system", "s"),
            Message("user", "北京天气"),
            Message("assistant", tool_calls=(CALL,)),
            Message("observation", '{"t": 1}'),
            Message("assistant", "1 度。", loss=True),
            Message("user", "画图"),
            Message("assistant", tool_calls=(ToolCall("interpreter", {"code": "plot()"}),), loss=False),
            Message("observation", "图"),
            Message("assistant", "好了。"),
        ),
        {"tools": (ToolSpec(WEATHER),)},
    ),
    (
        "messages",
        {
            "messages": [
                {"role": "system", "content": "", "tools": [{"type": "function", "function": WEATHER}]},
                {"role": "user", "content": "你好"},
                {"role": "assistant", "content": ANSWER.content},
            ]
        },
        (Message("system", tools=(ToolSpec({"type": "function", "function": WEATHER}),)), *PAIR),
        {},
    ),
    (
        "messages",
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "北京天气"}]},
                {"role": "assistant", "content": None, "tool_calls": [CALL.to_dict()], "weight": 0},
                {"role": "tool", "tool_call_id": "", "content": "晴"},
                {"role": "assistant", "content": "晴天。", "weight": 1},
            ],
            "tools": [{"type": "function", "function": WEATHER}],
        },
        (
            Message("user", "北京天气"),
            Message("assistant", tool_calls=(CALL,), loss=False),
            Message("observation", "晴"),
            Message("assistant", "晴天。", loss=True),
        ),
        {"tools": (ToolSpec({"type": "function", "function": WEATHER}),)},
    ),
    (
        "characterglm",
        {
            "session_meta": {"bot_name": "苏梦远", "bot_info": "歌手", "user_name": "陆星辰"},
            "messages": [{"role": "assistant", "content": "嗨"}, {"role": "user", "content": "你好"}],
        },
        (Message("assistant", "嗨"), QUESTION),
        {"persona": Persona(bot_name="苏梦远", bot_info="歌手", user_name="陆星辰")},
    ),
    (
        "characterglm",
        {"meta": {"bot_name": "苏梦远"}, "prompt": "你好", "response": ANSWER.content},
        PAIR,
        {"persona": Persona(bot_name="苏梦远")},
    ),
    ("pairs", {"meta": {"source": "web"}, "prompt": "你好", "response": ANSWER.content}, PAIR, {}),
]


def write(file: Path, *rows: Any) -> Path:
    """Rows, or lines that are no JSON, as JSON lines."""
    file.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)
    )
    return file


@pytest.mark.parametrize(("form", "row", "messages", "rest"), GOOD)
def test_forms(form: str, row: dict[str, Any], messages: Any, rest: dict[str, Any], tmp_path: Path) -> None:
    assert detect_form(row) == form
    (dialogue,) = read_dialogues(write(tmp_path / "a.jsonl", row))
    assert dialogue.form == form
    assert dialogue.messages == messages
    assert dialogue.tools == rest.get("tools", ())
    assert dialogue.persona == rest.get("persona")
    assert dialogue.where == f"{tmp_path}/a.jsonl:1"


def test_openai_s_tool_message_in_a_chatglm3_row_is_no_call(tmp_path: Path) -> None:
    rows = [{"role": "user", "content": "a"}, {"role": "tool", "name": "f", "content": "晴"}]
    file = write(tmp_path / "a.jsonl", {"conversations": [*rows, {"role": "assistant", "content": "b"}]})
    (dialogue,) = read_dialogues(file)
    assert dialogue.form == "chatglm3"
    assert dialogue.messages[1] == Message("observation", "晴")


def test_columns_of_rows_in_an_object(tmp_path: Path) -> None:
    rows = [{"q": "a", "a": "b"}, {"q": "c", "a": "d"}]
    columns = {"prompt": "q", "response": "a"}
    for name, text in {
        "whole.json": json.dumps({"version": 1, "data": rows}, indent=1),
        "line.json": json.dumps({"data": rows}) + "\n",
        "lines.json": "\n".join(map(json.dumps, rows)),
    }.items():
        (tmp_path / name).write_text(text)
        found = [dialogue.messages[0].content for dialogue in read_dialogues(tmp_path / name, columns=columns)]
        assert found == ["a", "c"]


def test_a_reason_can_be_written_whatever_the_row_holds(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"\\ud800": 1}\n')
    skipped: list[BadRow] = []
    assert not list(read_dialogues(file, skipped=skipped))
    assert r"the fields \ud800 is of no known form" in skipped[0].reason
    with pytest.raises(InputError) as caught:
        list(read_dialogues(file))
    str(caught.value).encode("utf-8")


def test_columns(tmp_path: Path) -> None:
    row = {"问": "你好", "答": ANSWER.content, "before": [["a", "b"]]}
    file = write(tmp_path / "a.jsonl", row)
    columns = {"prompt": "问", "response": "答", "history": "before"}
    (dialogue,) = read_dialogues(file, columns=columns)
    assert dialogue.messages == (Message("user", "a"), Message("assistant", "b"), *PAIR)
    with pytest.raises(InputError, match=r"is of no known form; .*data_config.columns.prompt="):
        list(read_dialogues(file))
    with pytest.raises(InputError, match="columns: 'question' is not one of prompt, response, history"):
        list(read_dialogues(file, columns={"question": "问"}))


USER = {"role": "user", "content": "a"}
BAD: list[tuple[Any, str]] = [
    ('{"prompt": "a"', "not JSON: .* at column 15; in a .jsonl file each line"),
    ("[" * 100_000, "nested too deep|not JSON"),
    ([1], "a row must be an object, got list"),
    ({"x": 1, "y": 2}, "a row with the fields x, y is of no known form"),
    ({}, r"a row with the fields \(none\)"),
    ({"conversations": []}, "the dialogue is empty"),
    ({"messages": "hi"}, "messages: expected a list, got str"),
    ({"messages": [USER]}, "no message is from the assistant"),
    ({"messages": [{"role": "boss", "content": "a"}]}, r"messages\[0\]: role 'boss'; must be one of"),
    ({"conversations": [USER, {"role": "assistant", "content": 5}]}, r"conversations\[1\]: content must be a string"),
    ({"conversations": [USER, {"role": "assistant", "content": " "}]}, "message 2: the assistant's message is empty"),
    ({"conversations": [USER, {"role": "assistant", "content": "b", "loss": 1}]}, r"conversations\[1\]: loss must be"),
    ({"messages": [USER, {"role": "assistant", "content": "b", "weight": 2}]}, r"messages\[1\].weight: must be 0 or 1"),
    ({"conversations": [{"role": "tool", "name": "", "parameters": {}}]}, r"conversations\[0\].parameters: .*name"),
    ({"conversations": [{"role": "tool", "parameters": {}, "observation": "a"}]}, r"conversations\[0\].name: expected"),
    ({"messages": [{"role": "user", "text": "a"}]}, r"messages\[0\].content: missing; a user message needs it"),
    ({"messages": [USER, {"role": "tool", "name": "f"}]}, r"messages\[1\].content: missing; a observation message"),
    (
        {"conversations": [{"role": "tool", "name": "f", "parameters": [1]}]},
        r"conversations\[0\].parameters: .* must be an object",
    ),
    ({"conversations": [{"from": "alien", "value": "a"}]}, r"conversations\[0\].from: 'alien'; must be one of system"),
    ({"conversations": [{"from": "gpt"}]}, r"conversations\[0\].value: expected a string, got nothing"),
    ({"conversations": [{"from": "gpt", "value": "a"}, 3]}, r"conversations\[1\]: expected \{'from', 'value'\}, got 3"),
    ({"conversations": [{"from": "function_call", "value": "f(1)"}]}, r"conversations\[0\].value: a call must be JSON"),
    (
        {"messages": [USER, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": '{"a": '}]}]},
        "message 2: arguments of f must be a JSON object",
    ),
    ({"prompt": 1, "response": "b"}, "prompt: expected a string, got int"),
    ({"prompt": "a", "response": None}, "response: expected a string, got nothing"),
    ({"prompt": "a", "response": "b", "history": "x"}, "history: expected a list, got str"),
    ({"prompt": "a", "response": "b", "history": [["x"]]}, r"history\[0\]: expected a pair"),
    ({"prompt": "a", "response": "b", "history": [["x", 1]]}, r"history\[0\]\[1\]: expected a string, got int"),
    ({"prompt": "a", "response": "b", "loss": "no"}, "loss: must be true or false, got 'no'"),
    ({"prompt": "a", "response": "b", "tools": "x"}, "tools: a string must be JSON"),
    ({"prompt": "a", "response": "b", "tools": [1]}, r"tools\[0\]: expected a dict with a `name`"),
    ({"prompt": "a", "response": "b", "system": 1}, "system: expected a string, got int"),
    ({"conversation": [{"human": "a"}]}, r"conversation\[0\].assistant: expected a string, got nothing"),
    ({"conversation": ["a"]}, r"conversation\[0\]: expected \{'human', 'assistant'\}, got 'a'"),
    ({"instruction": "a", "output": 1}, "output: expected a string, got int"),
    ({"session_meta": {"bot_name": 1}, "prompt": "a", "response": "b"}, "session_meta.bot_name: expected a string"),
    (
        {"messages": [{"role": "system", "content": "a"}, USER, {"role": "assistant", "content": "b"}], "system": "c"},
        "system: the first message is a system message too",
    ),
    (
        {
            "messages": [{"role": "system", "tools": [WEATHER]}, USER, {"role": "assistant", "content": "b"}],
            "tools": [WEATHER],
        },
        "tools: a message has tools too; keep them in one place",
    ),
]


@pytest.mark.parametrize(("row", "reason"), BAD)
def test_a_bad_row_is_named(row: Any, reason: str, tmp_path: Path) -> None:
    good = {"prompt": "a", "response": "b"}
    file = write(tmp_path / "a.jsonl", good, row, good)
    with pytest.raises(InputError, match=rf"a\.jsonl:2: ({reason})"):
        list(read_dialogues(file))
    skipped: list[BadRow] = []
    assert len(list(read_dialogues(file, skipped=skipped))) == 2
    assert [bad.where for bad in skipped] == [f"{file}:2"]
    assert not skipped[0].reason.startswith(str(file))


def test_a_line_that_is_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    row = json.dumps({"prompt": "你好", "response": "b"}, ensure_ascii=False)
    file.write_bytes(row.encode() + b"\n" + row.encode("gbk") + b"\n")
    with pytest.raises(InputError, match=r"a\.jsonl:2: not UTF-8 .* save the file as UTF-8"):
        list(read_dialogues(file))
    skipped: list[BadRow] = []
    assert len(list(read_dialogues(file, skipped=skipped))) == len(skipped) == 1


ROWS = [{"prompt": f"问题 {n}\n", "response": "答" * n} for n in range(1, 6)]
SHAPES = {
    "lines.jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS),
    "blank lines.jsonl": "\n\n \r\n".join(json.dumps(row) for row in ROWS) + "\n\n",
    "lines.json": "\n".join(json.dumps(row) for row in ROWS),
    "list.json": json.dumps(ROWS, ensure_ascii=False),
    "indented.json": "\n" + json.dumps(ROWS, ensure_ascii=False, indent=2) + "\n",
    "object.json": json.dumps(
        {"version": [1, "a", {"b": [{}]}], "empty": [], "data": ROWS, "about": {"n": 5}}, indent=1
    ),
    "flat object.json": json.dumps({"data": ROWS}),
    "indented rows.json": "\n".join(json.dumps(row, indent=1) for row in ROWS),
}


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str, chunk: int, bom: str, tmp_path: Path, monkeypatch) -> None:
    """Every shape gives the same rows, wherever the pieces that are read begin, and the line that each begins in."""
    monkeypatch.setattr(module._Json.__init__, "__defaults__", (chunk,))
    file = tmp_path / name
    file.write_text(bom + SHAPES[name], "utf-8", newline="")
    got = list(read_dialogues(file))
    assert [d.messages[0].content for d in got] == [row["prompt"] for row in ROWS]
    assert [d.messages[1].content for d in got] == [row["response"] for row in ROWS]
    for dialogue, row in zip(got, ROWS, strict=True):
        spelled = [json.dumps(row["prompt"], ensure_ascii=ascii_) for ascii_ in (True, False)]
        place = max(SHAPES[name].find(text) for text in spelled)
        line = SHAPES[name].count("\n", 0, SHAPES[name].rindex("{", 0, place)) + 1
        assert dialogue.where == f"{file}:{line}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=80, deadline=None)
@given(
    values=st.lists(JSON, max_size=5),
    indent=st.sampled_from([None, 0, 2]),
    chunk=st.integers(1, 40),
    ascii_=st.booleans(),
)
def test_a_list_is_read_as_json_reads_it(
    values: list[Any], indent: int | None, chunk: int, ascii_: bool, tmp_path_factory
) -> None:
    file = tmp_path_factory.mktemp("list") / "a.json"
    file.write_text(json.dumps(values, indent=indent, ensure_ascii=ascii_), "utf-8")
    with file.open("rb") as opened:
        text = module._Json(file, opened, chunk)
        assert [value for _, value in text.elements()] == values
        assert text.peek() == ""


def test_only_a_piece_of_a_list_is_in_memory(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("[" + ",\n".join(json.dumps({"prompt": "a" * 900, "response": "b"}) for _ in range(2000)) + "]")
    with file.open("rb") as opened:
        text = module._Json(file, opened, 1 << 12)
        most = max(len(text._text) for _ in text.elements())
    assert most < 1 << 14 < file.stat().st_size


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", ":1: not JSON: the file ends too early"),
        ("hello", ":1: not JSON: expected a list of rows"),
        ('[{"prompt": "a",\n "response": "b"}', ":2: not JSON: the file ends too early"),
        ('[\n{"prompt": "a", "response": "b', ":2: not JSON: the file ends too early"),
        ('[\n{"prompt": "a", "response": "b"},', ":2: not JSON: the file ends too early"),
        ('[\n{"prompt": "a" "response": "b"}, {}, {}, {}, {}]', ":2: not JSON: Expecting ','"),
        ('[\n{"prompt": "a", "response": "b"}\n{}]', ":3: not JSON: expected ',', got '{'"),
        ('[{"prompt": "a", "response": "b"}]\nx', ":2: not JSON: text after the end"),
        ("[" * 100_000, "nested too deep|not JSON"),
        (
            '{"a": [{"prompt": "a", "response": "b"}],\n "b": [{"prompt": "a", "response": "b"}]}',
            "two lists of rows, 'a' and 'b'",
        ),
    ],
)
def test_broken_json(text: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    skipped: list[BadRow] = []
    with pytest.raises(InputError, match=reason):
        list(read_dialogues(file, skipped=skipped))


def test_an_element_that_is_a_bad_row_can_be_skipped(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps([ROWS[0], 7, {"prompt": 1, "response": "a"}, ROWS[1]], indent=1))
    skipped: list[BadRow] = []
    assert len(list(read_dialogues(file, skipped=skipped))) == 2
    assert [bad.where.rpartition(":")[2] for bad in skipped] == ["6", "7"]


def test_gbk_and_utf16(tmp_path: Path) -> None:
    text = json.dumps(ROWS, ensure_ascii=False, indent=1)
    (tmp_path / "gbk.json").write_bytes(text.encode("gbk"))
    (tmp_path / "wide.json").write_bytes(text.encode("utf-16"))
    (tmp_path / "wide.jsonl").write_bytes(text.encode("utf-16"))
    with pytest.raises(InputError, match=r"gbk\.json:3: not UTF-8"):
        list(read_dialogues(tmp_path / "gbk.json"))
    for name in ("wide.json", "wide.jsonl"):
        with pytest.raises(InputError, match=rf"{name}:1: this is UTF-16; save the file as UTF-8"):
            list(read_dialogues(tmp_path / name))


def test_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    b = write(tmp_path / "b.jsonl", ROWS[0])
    a = write(tmp_path / "sub" / "a.json", ROWS[1])
    (tmp_path / "notes.txt").write_text("x")
    for hidden in (".ipynb_checkpoints/b-checkpoint.jsonl", "sub/._a.json"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).write_bytes(b"\0")
    assert data_files(tmp_path) == sorted([b, a])
    assert data_files(tmp_path / ".ipynb_checkpoints") == [tmp_path / ".ipynb_checkpoints" / "b-checkpoint.jsonl"]
    assert data_files([a, str(b)]) == [a, b]
    assert [d.where for d in read_dialogues([a, b])] == [f"{a}:1", f"{b}:1"]
    (tmp_path / "empty").mkdir()
    for path, reason in (
        (tmp_path / "nothing.json", r"nothing\.json: no such file"),
        (tmp_path / "notes.txt", "the ending must be one of .json, .jsonl, .csv"),
        (tmp_path / "empty", "a folder without .json, .jsonl, .csv, .tsv, .parquet files"),
        ([], "no files"),
    ):
        with pytest.raises(InputError, match=reason):
            list(read_dialogues(path))


def test_forms_may_be_mixed(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", *(row for _, row, _, _ in GOOD))
    assert [d.form for d in read_dialogues(file)] == [form for form, _, _, _ in GOOD]
