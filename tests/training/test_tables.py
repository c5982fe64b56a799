"""Dialogues in .csv, .tsv and .parquet files."""

from __future__ import annotations

import builtins
import csv
import json
from pathlib import Path
from typing import Any

import pytest

from chatglm.errors import DependencyError, InputError
from chatglm.training.dialogues import BadRow, read_dialogues


def texts(file: Path, **options: Any) -> list[list[str]]:
    return [[message.content for message in dialogue.messages] for dialogue in read_dialogues(file, **options)]


def write(file: Path, text: str, encoding: str = "utf-8") -> Path:
    file.write_bytes(text.encode(encoding))
    return file


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_of_text(ending: str, separator: str, tmp_path: Path) -> None:
    if ending == ".tsv" and separator != "\t":
        pytest.skip("tabs by its name")
    lines = ["prompt|response", "你好|您好", "", '"a""b\nc, d; e"|"f\r\n"', "last|one"]
    text = "\r\n".join(lines).replace("|", separator)
    file = write(tmp_path / f"data{ending}", text, "utf-8-sig")
    assert texts(file) == [["你好", "您好"], ['a"b\nc, d; e', "f\r\n"], ["last", "one"]]
    assert [dialogue.where for dialogue in read_dialogues(file)] == [f"{file}:{n}" for n in (2, 4, 7)]


def test_cells_that_hold_json(tmp_path: Path) -> None:
    messages = json.dumps([{"role": "human", "content": "q"}, {"role": "gpt", "content": "a"}])
    quoted = messages.replace('"', '""')
    file = write(tmp_path / "data.csv", f'messages\n"{quoted}"\n')
    assert texts(file) == [["q", "a"]]
    file = write(tmp_path / "pairs.csv", 'prompt,response,history\n[1,ok,"[[""x"", ""y""]]"\n')
    assert texts(file) == [["x", "y", "[1", "ok"]]


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_texts_that_are_json_stay_texts(ending: str, tmp_path: Path) -> None:
    answer, turns = '{"name": "张三", "age": 30}', [["x", '{"y": 1}']]
    rows: list[dict[str, str]] = [
        {"prompt": "[1, 2]", "response": answer, "history": json.dumps(turns)},
        {"instruction": "抽取", "input": '["张三"]', "output": "[]", "system": "{}"},
        {"messages": "[问题]", "reply": answer, "past": json.dumps(turns)},
    ]
    columns = {"prompt": "messages", "response": "reply", "history": "past"}
    found = [
        texts(table(tmp_path / f"{n}{ending}", row), columns=columns if "past" in row else None)[0]
        for n, row in enumerate(rows)
    ]
    assert found == [
        ["x", '{"y": 1}', "[1, 2]", answer],
        ["{}", '抽取\n["张三"]', "[]"],
        ["x", '{"y": 1}', "[问题]", answer],
    ]


def table(file: Path, row: dict[str, str]) -> Path:
    """A table of one row."""
    if file.suffix == ".csv":
        with file.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([row.keys(), row.values()])
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist([row]), file)
    return file


def test_bad_rows_are_named_and_skipped(tmp_path: Path) -> None:
    file = write(tmp_path / "data.csv", 'prompt,response\na,b\nonly one\nx,\nq,"r"s\nc,d\n')
    with pytest.raises(InputError, match=r"data\.csv:3: has another number of columns \(1\) than the first line \(2\)"):
        texts(file)
    skipped: list[BadRow] = []
    assert texts(file, skipped=skipped) == [["a", "b"], ["c", "d"]]
    assert [bad.where.rpartition(":")[2] for bad in skipped] == ["3", "4", "5"]
    assert "the assistant's message is empty" in skipped[1].reason
    assert "not CSV" in skipped[2].reason


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("prompt,response\n你好,您好\n".encode("gbk"), r"data\.csv:2: not UTF-8 .*GBK.*iconv -f gb18030"),
        ("prompt,response\n".encode("utf-16"), r"data\.csv:1: this is UTF-16"),
        (b"", r"data\.csv:1: the first line must have the names"),
        (b"prompt,prompt\na,b\n", r"data\.csv:1: two columns are named 'prompt'"),
        (b"frage,antwort\na,b\n", r"columns\.prompt=frage --set data_config\.columns\.response=antwort"),
        (b'prompt,response\n"never closed,b\nc,d\n', r"data\.csv:2: not CSV: unexpected end of data"),
        (b"prompt,response\na\0,b\n", r"a\\x00|NUL|nothing|"),
    ],
)
def test_files_that_are_no_tables(raw: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes(raw)
    if said.endswith("|"):  # some versions of Python read it
        texts(tmp_path / "data.csv", skipped=[])
        return
    with pytest.raises(InputError, match=said):
        texts(tmp_path / "data.csv")


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = tmp_path / "data.parquet"
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a"}], "id": n}
        for n in range(200)
    ]
    rows[150]["messages"] = None
    parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=64)
    with pytest.raises(InputError, match=r"data\.parquet:151: "):
        texts(file)
    skipped: list[BadRow] = []
    found = texts(file, skipped=skipped)
    assert found == [[f"q{n}", "a"] for n in range(200) if n != 150]
    assert [bad.where for bad in skipped] == [f"{file}:151"]
    for damaged in (file.read_bytes()[:-20], b"PAR1", b"", b"x" * 1000):
        (tmp_path / "bad.parquet").write_bytes(damaged)
        with pytest.raises(InputError, match=r"bad\.parquet: cannot be read"):
            texts(tmp_path / "bad.parquet")


def test_parquet_needs_a_package(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "data.parquet").write_bytes(b"PAR1")
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DependencyError, match=r"pip install 'chatglm\[data\]'"):
        texts(tmp_path / "data.parquet")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("query", "response"),
        ("question", "answer"),
        ("input", "output"),
        ("input", "target"),
        ("context", "target"),
        ("prompt", "completion"),
        ("instruction", "response"),
    ],
)
def test_common_names_of_columns(question: str, answer: str, tmp_path: Path) -> None:
    for file in (
        write(tmp_path / "d.csv", f"{question},{answer}\nq,a\n"),
        write(tmp_path / "d.jsonl", json.dumps({question: "q", answer: "a"})),
    ):
        (dialogue,) = read_dialogues(file)
        assert [message.content for message in dialogue.messages] == ["q", "a"]
        assert dialogue.form == f"{question}/{answer}" or (question, answer) == ("prompt", "response")


@pytest.mark.parametrize("about", ["input", "context"])
@pytest.mark.parametrize("answer", ["output", "response", "answer", "target"])
def test_an_instruction_is_read_with_what_it_is_about(about: str, answer: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"instruction": "Summarise this.", about: text, answer: "a"} for text in ("Once …", "", None)
    ]
    file = write(tmp_path / "d.jsonl", "\n".join(map(json.dumps, rows)))
    assert texts(file) == [["Summarise this.\nOnce …", "a"], *[["Summarise this.", "a"]] * 2]


@pytest.mark.parametrize("key", ["conversations", "messages", "conversation"])
@pytest.mark.parametrize("human", ["human", "user"])
@pytest.mark.parametrize("bot", ["gpt", "bot", "assistant", "chatgpt"])
def test_names_of_speakers(key: str, human: str, bot: str, tmp_path: Path) -> None:
    for who, what in (("role", "content"), ("from", "value")):
        file = write(tmp_path / "d.jsonl", json.dumps({key: [{who: human, what: "q"}, {who: bot, what: "a"}]}))
        (dialogue,) = read_dialogues(file)
        assert [(message.role, message.content) for message in dialogue.messages] == [("user", "q"), ("assistant", "a")]


@pytest.mark.parametrize(
    "row",
    [
        '{"prompt": "q", "response": "a", "n": ' + "9" * 5000 + "}",
        '{"prompt": "q", "response": "a", "n": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"prompt": ' + "[" * 900 + "]" * 900 + ', "response": "a"}',
        '{"prompt": "q", "response": "a", "tools": [{"name": "f", "parameters": '
        + '{"a":' * 300
        + "1"
        + "}" * 301
        + "]}",
    ],
    ids=["digits", "nesting", "less nesting", "tools"],
)
def test_rows_that_python_cannot_hold_harm_no_other(row: str, tmp_path: Path) -> None:
    good = '{"prompt": "q", "response": "a"}'
    file = write(tmp_path / "d.jsonl", f"{good}\n{row}\n{good}\n")
    skipped: list[BadRow] = []
    found = texts(file, skipped=skipped)
    assert len(found) + len(skipped) == 3
    assert {bad.where for bad in skipped} <= {f"{file}:2"}
    if '"tools"' not in row:
        with pytest.raises(InputError, match=r"d\.jsonl:2: "):
            texts(file)
        with pytest.raises(InputError, match=r"d\.json:2: "):
            texts(write(tmp_path / "d.json", f"[{good},\n{row}]"))
