"""`chatglm knowledge`, in this process."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from answers import Reader
from small_bases import HANDBOOK
from summaries import Abridger, novel

from chatglm.assistant import Finish, TextDelta, Usage
from chatglm.cli import main
from chatglm.errors import ServiceError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHATGLM_HOME", str(tmp_path / "home"))
    folder = tmp_path / "documents"
    folder.mkdir()
    for name, text in HANDBOOK.items():
        (folder / name).write_text(text, "utf-8")
    return tmp_path


def test_from_files_to_hits(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["knowledge", "list"]) == 0
    assert "There are no bases" in capsys.readouterr().err
    assert main(["knowledge", "add", "手册", str(home / "documents"), "--about", "公司的手册"]) == 0
    assert "3 added; files: 3" in capsys.readouterr().out
    assert main(["knowledge", "list"]) == 0
    assert "公司的手册" in capsys.readouterr().out
    assert main(["knowledge", "search", "手册", "年假有几天？", "--json", "-k", "10"]) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert {"file", "start", "end", "score"} <= hits[0].keys()
    assert hits[0]["file"] == "员工手册.md"
    assert "十天" in HANDBOOK["员工手册.md"][hits[0]["start"] : hits[0]["end"]]
    assert main(["knowledge", "search", "手册", "灭火器", "--explain", "--files", "安全.txt"]) == 0
    assert "[1] 安全.txt" in capsys.readouterr().out
    assert main(["knowledge", "search", "手册", "灭火器", "--files", "没有.txt"]) == 1
    assert "没有.txt: no such file" in capsys.readouterr().err


def test_json_is_json_in_every_encoding(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "documents" / "emoji.txt").write_text("灭火器 😀 café", "utf-8")
    main(["knowledge", "add", "手册", str(home / "documents")])
    for command in (["list"], ["list", "手册"], ["search", "手册", "灭火器"], ["show", "手册", "emoji.txt"]):
        written = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
            assert main(["knowledge", *command, "--json"]) == 0
            out = written.getvalue().decode("ascii")
        assert all(json.loads(line) for line in out.splitlines())


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_document_does_not_control_the_terminal(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "documents" / "出口.txt").write_text("出口在\x1b[2J走廊\u202e的尽头。\x9b31m", "utf-8")
    (home / "documents" / "门\x1b]0;x\x07.txt").write_text("门在左边。", "utf-8")
    screen, other = Screen(), Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", other)
    assert main(["knowledge", "add", "手册", str(home / "documents")]) == 1  # no base has a file of such a name
    commands = (["list", "手册"], ["search", "手册", "出口"], ["show", "手册", "出口.txt"])
    for command in (*commands, ["ask", "手册", "出口在哪里？", "--extract"]):
        assert main(["knowledge", *command]) == 0
    assert main(["knowledge", "search", "手册", "出口", "--files", "\x1b[2J.txt"]) == 1
    assert "[2J走廊" in screen.getvalue()
    assert "[2J.txt: no such file" in other.getvalue()
    for text in (screen.getvalue(), re.sub("\r\x1b\\[K", "", other.getvalue())):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)


def test_pieces_are_shown_and_edited(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["knowledge", "add", "手册", str(home / "documents")])
    capsys.readouterr()
    assert main(["knowledge", "show", "手册", "食堂.txt"]) == 0
    assert capsys.readouterr().out == HANDBOOK["食堂.txt"]
    assert main(["knowledge", "edit", "手册", "食堂.txt#0", "周五供应拉面。"]) == 0
    assert main(["knowledge", "show", "手册", "食堂.txt", "--pieces"]) == 0
    assert "edited" in capsys.readouterr().out
    assert main(["knowledge", "edit", "手册", "食堂.txt#0", "--off"]) == 0
    assert main(["knowledge", "search", "手册", "拉面"]) == 0
    assert "Nothing was found" in capsys.readouterr().err
    assert main(["knowledge", "edit", "手册", "食堂.txt#0", "--restore"]) == 0
    assert main(["knowledge", "edit", "手册", "食堂.txt#9", "x"]) == 1
    assert main(["knowledge", "check", "手册"]) == 0


def test_bases_are_shared_synchronised_moved_and_deleted(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home / "documents"
    assert main(["knowledge", "sync", "手册", str(folder)]) == 0
    (folder / "食堂.txt").unlink()
    assert main(["knowledge", "sync", "手册", str(folder)]) == 0
    assert "1 removed, 2 unchanged" in capsys.readouterr().out
    assert main(["knowledge", "share", "手册", "li", "read"]) == 0
    assert main(["knowledge", "share", "手册"]) == 0
    assert capsys.readouterr().out == "li  read\n"
    assert main(["knowledge", "export", "手册", str(home / "copy.sqlite")]) == 0
    assert main(["knowledge", "import", "第二", str(home / "copy.sqlite")]) == 0
    assert main(["knowledge", "remove", "第二", "没有.txt"]) == 1
    assert main(["knowledge", "remove", "第二", "安全.txt"]) == 0
    assert main(["knowledge", "remove", "第二"]) == 1  # nobody can be asked
    assert main(["knowledge", "remove", "第二", "--yes"]) == 0
    capsys.readouterr()
    assert main(["knowledge", "list", "--json"]) == 0
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (row["name"], row["files"]) == ("手册", 2)


def test_a_base_gets_another_name(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["knowledge", "add", "旧", str(home / "documents")]) == 0
    assert main(["knowledge", "rename", "旧", "新"]) == 0
    assert capsys.readouterr().out.endswith("旧: is now 新\n")
    assert main(["knowledge", "list", "新"]) == 0
    for names in (["旧", "更新"], ["新", "../x"], ["新", "新"]):
        assert main(["knowledge", "rename", *names]) != 0
    assert main(["knowledge", "list", "--json"]) == 0
    assert [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines() if line[:1] == "{"] == ["新"]


def test_a_base_is_measured(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["knowledge", "add", "手册", str(home / "documents")])
    rows = [
        {"question": "年假有几天？", "file": "员工手册.md", "answers": ["十天年假"]},
        {"question": "灭火器在哪？", "file": "安全.txt", "start": 0, "end": 40},
        {"question": "月球到地球有多远？", "answerable": False},
    ]
    (home / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    capsys.readouterr()
    assert main(["knowledge", "eval", "手册", str(home / "q.jsonl"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["base"]["questions"] == 2
    assert result["base"]["hit@1"] == 1
    assert result["refusals"]["auc"] == 1
    assert main(["knowledge", "eval", "手册", str(home / "q.jsonl")]) == 0
    (home / "bad.jsonl").write_text('{"question": 1}\n', "utf-8")
    assert main(["knowledge", "eval", "手册", str(home / "bad.jsonl")]) == 1
    assert "bad.jsonl:1" in capsys.readouterr().err


def test_a_question_is_answered(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["knowledge", "add", "手册", str(home / "documents")])
    capsys.readouterr()
    assert main(["knowledge", "ask", "手册", "灭火器放在哪里？", "--extract", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["answer"], found["answered"]) == ("灭火器在门口右侧。[1]", True)
    (citation,) = found["citations"]
    assert citation["n"] == 1
    assert HANDBOOK[citation["file"]][citation["start"] : citation["end"]] == citation["text"] == "灭火器在门口右侧。"
    assert main(["knowledge", "ask", "手册", "灭火器放在哪里？", "--extract"]) == 0
    assert capsys.readouterr().out == "灭火器在门口右侧。[1]\n\n[1] 《安全.txt》 24–33\n    灭火器在门口右侧。\n"
    assert main(["knowledge", "ask", "手册", "月球绕地球一圈需要多久？", "--json"]) == 0  # the demo model is not asked
    assert json.loads(capsys.readouterr().out) == {
        "answer": "根据已知信息无法回答该问题。",
        "answered": False,
        "citations": [],
    }
    assert main(["knowledge", "ask", "手册", "年假有几天？", "--style", "没有占位"]) == 1
    assert "has no {" in capsys.readouterr().err


def test_a_conversation_is_answered_from_a_base(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["knowledge", "add", "手册", str(home / "documents")])
    capsys.readouterr()
    assert main(["chat", "--knowledge", "手册", "灭火器放在哪里？"]) == 0
    said = capsys.readouterr()
    assert "[1]" in said.out
    assert "[1] 《安全.txt》" in said.err
    assert main(["chat", "--knowledge", "没有", "灭火器放在哪里？"]) == 1
    assert "base '没有': there is no such base" in capsys.readouterr().err


# With a model


def use(monkeypatch: pytest.MonkeyPatch, model: object) -> None:
    monkeypatch.setattr("chatglm.cli.knowledge.open_assistant", lambda arguments: model)


def test_summaries(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    file = home / "novel.md"
    file.write_text(novel(12), "utf-8")
    use(monkeypatch, Abridger(600, fails={14: ServiceError("http://host: is gone")}))
    assert main(["knowledge", "summarise", str(file), "--at-once", "1"]) == 1
    assert "is gone; 13 of 18 parts were summarised and kept: ask again" in capsys.readouterr().err
    model = Abridger(600)
    use(monkeypatch, model)
    assert main(["knowledge", "summarise", str(file)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("第1章第1天，")
    assert "《novel.md》 7–" in out
    assert len(model.asked) < 18
    use(monkeypatch, None)  # what is known needs no model
    assert main(["knowledge", "summarise", str(file)]) == 0
    assert capsys.readouterr().out == out
    assert main(["knowledge", "summarise", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["parts"], out.startswith(told["summary"])) == (18, True)
    use(monkeypatch, model)
    asked = len(model.asked)
    assert main(["knowledge", "summarise", str(file), "--fresh", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == told
    assert len(model.asked) > asked + 18
    main(["knowledge", "add", "手册", str(home / "documents")])
    capsys.readouterr()
    use(monkeypatch, Abridger(4000))
    assert main(["knowledge", "summarise", "手册", "--files", "安全.txt", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["summary"] == "实验室内禁止饮食。"
    for arguments, said in (
        (["没有"], "is neither a base"),
        ([str(file), "--files", "a"], "--files: chooses files of a base"),
        (["手册", "--at-once", "0"], "at_once=0"),
    ):
        assert main(["knowledge", "summarise", *arguments]) == 1
        assert said in capsys.readouterr().err


def test_questions_that_a_model_makes(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Curious(Reader):
        """Asks who met the old man, on the day of the piece's first sentence."""

        def _deltas(self, messages: Any, options: Any) -> Any:
            day = re.search("第[0-9]+章第[0-9]+天", messages)
            said = f"{day[0]}，谁遇见了卖西瓜的老人？" if day and "第7章" not in messages else "我不知道。"
            return [TextDelta(said), Finish("stop", Usage(5, 5))]

    (home / "documents" / "novel.md").write_text(novel(9), "utf-8")
    main(["knowledge", "add", "小说", str(home / "documents" / "novel.md")])
    capsys.readouterr()
    use(monkeypatch, Curious(""))
    saved = home / "made.jsonl"
    assert main(["knowledge", "eval", "小说", "--generate", "50", "--save", str(saved), "--json"]) == 0
    out, err = capsys.readouterr()
    made, pieces = map(int, re.findall("[0-9]+", err))
    assert 0 < made < pieces <= 50  # of the seventh chapter it has asked nothing
    figures = json.loads(out)["base"]
    assert figures["questions"] == made
    assert figures["hit@5"] >= 0.8
    use(monkeypatch, None)  # what is saved needs no model
    assert main(["knowledge", "eval", "小说", str(saved), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["base"] == figures
    use(monkeypatch, Reader("我不知道。"))
    for arguments, said in (
        (["--generate", "3"], "has made no question about the pieces"),
        (["--generate", "0"], "must be at least 1"),
        (["--generate", "3", "--save", str(saved)], "exists"),
        ([], "name a file of questions"),
        ([str(saved), "--save", "x"], "only with --generate"),
    ):
        assert main(["knowledge", "eval", "小说", *arguments]) == 1
        assert said in capsys.readouterr().err
