"""`chatglm batch`: every line is answered once, however often the run was stopped."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from chatglm.assistant import Assistant
from chatglm.cli import main
from chatglm.serving.stored import batch_files
from server import serving
from waiting import until


def line(name: str, body: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    chat = {"model": "demo", "messages": [{"role": "user", "content": "你好"}], "max_tokens": 6, "temperature": 0}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": chat | (body or {}), **more}


def written(folder: Path, *lines: Any) -> str:
    texts = [each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in lines]
    (folder / "in.jsonl").write_text("\n".join(texts) + "\n", "utf-8")
    return str(folder / "in.jsonl")


def read(file: Path) -> dict[str | None, dict[str, Any]]:
    found = [json.loads(each) for each in file.read_text("utf-8").splitlines()]
    names = [each["custom_id"] for each in found if each["custom_id"] is not None]
    assert len(set(names)) == len(names)
    return {each["custom_id"]: each for each in found}


@pytest.fixture(scope="module")
def demo() -> Iterator[str]:
    """A server with the demo model."""
    with Assistant.load(dtype="float32") as assistant, serving({"demo": assistant}) as url:
        yield url


def test_it_gives_the_servers_answers(demo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    completion = {"custom_id": "c", "url": "/v1/completions", "body": {"prompt": "1 + 1 =", "max_tokens": 3}}
    lines = [
        line("a"),
        line("二", {"messages": [{"role": "user", "content": "1 + 1 = ?"}], "n": 2}),
        completion,
        line("wrong", {"temperature": -1}),
    ]
    source = written(tmp_path, *lines)
    assert main(["batch", source, str(tmp_path / "local"), "--dtype", "float32"]) == 0
    assert main(["batch", source, str(tmp_path / "remote"), "--remote", f"{demo}/v1"]) == 0
    direct = {each["custom_id"]: httpx.post(demo + each["url"], json=each["body"]) for each in lines}
    for name in ("local", "remote"):
        found = read(tmp_path / name)
        assert found.keys() == direct.keys()
        for custom_id, answer in direct.items():
            response = found[custom_id]["response"]
            assert response["status_code"] == answer.status_code
            if answer.status_code == 400:
                assert response["body"] == answer.json()
            elif custom_id != "二":
                assert response["body"]["choices"] == answer.json()["choices"]
    assert capsys.readouterr().err == "".join(
        f"chatglm: failed lines: 1 of 4; {tmp_path / name} says why\n" for name in ("local", "remote")
    )


def test_bad_lines_are_lines_of_errors(demo: str, tmp_path: Path) -> None:
    lines = [
        "{not json",
        line("good"),
        line("good"),
        {"url": "/v1/chat/completions", "body": {}},
        line("url", url="/v1/images"),
        line("stream", {"stream": True}),
        line("method", method="GET"),
        "[" * 5000 + "]" * 5000,
    ]
    source = written(tmp_path, *lines)
    command = ["batch", source, str(tmp_path / "out"), "--remote", f"{demo}/v1"]
    assert main(command) == 0
    found = [json.loads(each) for each in (tmp_path / "out").read_text("utf-8").splitlines()]
    assert len(found) == len(lines)
    nameless = {each["error"]["line"]: each["error"] for each in found if each["custom_id"] is None}
    assert {number: error["code"] for number, error in nameless.items()} == {
        1: "invalid_json_line",
        3: "duplicate_custom_id",
        4: "missing_required_parameter",
        7: "invalid_method",
        8: "invalid_json_line",
    }
    assert nameless[4]["message"].startswith("line 4: custom_id: required")
    named = {each["custom_id"]: each for each in found if each["custom_id"] is not None}
    assert named["good"]["error"] is None
    assert named["url"]["error"]["message"].startswith("url: must be one of")
    assert named["stream"]["error"]["message"].startswith("stream: ")
    before = (tmp_path / "out").read_bytes()
    assert main(command) == 0  # nothing is left to do
    assert (tmp_path / "out").read_bytes() == before


def test_a_run_is_resumed(demo: str, tmp_path: Path) -> None:
    names = [f"id {number}" for number in range(12)]
    source, out = written(tmp_path, *map(line, names)), tmp_path / "out"
    command = ["batch", source, str(out), "--remote", f"{demo}/v1"]
    assert main(command) == 0
    whole = out.read_bytes().splitlines(keepends=True)
    for cut in (0, 1, 15, 16, 40, len(whole[5]) - 1):  # the last line is there in part
        kept = b"".join(whole[:5])
        out.write_bytes(kept + whole[5][:cut])
        assert main(command) == 0
        assert out.read_bytes().startswith(kept + (whole[5] if cut == len(whole[5]) - 1 else b""))
        assert sorted(read(out), key=str) == sorted(names)


@pytest.mark.parametrize("content", ["my thesis\n", '{"id": "x"}\n', '{"custom_id": "a"', "my thesis", "[1]\n", "\x00"])
def test_another_file_is_left_as_it_is(
    demo: str, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = written(tmp_path, line("a")), tmp_path / "out"
    out.write_text(content)
    assert main(["batch", source, str(out), "--remote", f"{demo}/v1"]) == 1
    assert "out: line 1 is not an answer of a batch; give the name of a new file" in capsys.readouterr().err
    assert out.read_text() == content


def test_arguments_that_do_not_fit(demo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, remote = written(tmp_path, line("a")), ["--remote", f"{demo}/v1"]
    for arguments, words in (
        ([source, source], "is also the input"),
        ([source, str(tmp_path)], "is a folder"),
        ([source, str(tmp_path / "no" / "out")], "there is no folder"),
        ([str(tmp_path / "missing"), str(tmp_path / "out")], "missing: No such file"),
        ([source, str(tmp_path / "out"), "--concurrency", "0"], "--concurrency 0: must be from 1 to 1000"),
        ([source, str(tmp_path / "out"), "--dtype", "float32"], "--dtype cannot be used with --remote"),
    ):
        assert main(["batch", *arguments, *remote]) == 1
        assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_lines_from_stdin(demo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = b"\xef\xbb\xbf" + json.dumps(line("a")).encode() + b"\r\n\n" + json.dumps(line("b")).encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(lines)))
    assert main(["batch", "-", str(tmp_path / "out"), "--remote", f"{demo}/v1"]) == 0
    assert sorted(read(tmp_path / "out"), key=str) == ["a", "b"]


def test_a_line_that_is_too_long(demo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatglm.cli.batch._REMOTE_BYTES", 2000)
    long = line("long", {"messages": [{"role": "user", "content": "x" * 10_000}]})
    source = written(tmp_path, long, line("short"))
    assert main(["batch", source, str(tmp_path / "out"), "--remote", f"{demo}/v1"]) == 0
    found = read(tmp_path / "out")
    assert found[None]["error"] == {"code": "line_too_long", "message": "line 1: has more than 2,000 bytes", "line": 1}
    assert found["short"]["error"] is None


def test_two_runs_into_one_file_are_refused(
    demo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = written(tmp_path, line("a")), tmp_path / "out"
    command = ["batch", source, str(out), "--remote", f"{demo}/v1"]
    second: list[int] = []
    real = batch_files.Servers.send

    async def send(self: Any, path: str, body: dict[str, Any]) -> tuple[int, str]:
        if not second:
            run = [sys.executable, "-m", "chatglm.cli", *command]
            second.append(subprocess.run(run, capture_output=True, check=False, timeout=100).returncode)
        return await real(self, path, body)

    monkeypatch.setattr(batch_files.Servers, "send", send)
    assert main(command) == 0
    assert second == [1]
    assert list(read(out)) == ["a"]


def test_servers_that_do_not_answer(demo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(batch_files, "_LONGEST_WAIT", 0.01)
    source, out = written(tmp_path, *(line(f"{number}") for number in range(6))), tmp_path / "out"
    gone = "http://127.0.0.1:9/v1"
    assert main(["batch", source, str(out), "--remote", gone]) == 1
    assert "cannot be reached" in (said := capsys.readouterr().err)
    assert "run the command again to resume" in said
    assert out.read_bytes() == b""
    assert main(["batch", source, str(out), "--remote", gone, "--remote", f"{demo}/v1"]) == 0  # the other one does it
    assert len(read(out)) == 6


def test_killed_again_and_again(tmp_path: Path) -> None:
    """kill -9, each time a little later: in the end every line has one answer, in whole lines."""
    names = [f"id {number}" for number in range(80)]
    source, out = written(tmp_path, *(line(name, {"max_tokens": 20}) for name in names)), tmp_path / "out"
    command = [sys.executable, "-m", "chatglm.cli", "batch", source, str(out), "--dtype", "float32"]
    grown = []
    for _ in range(2):
        begun = out.stat().st_size if out.exists() else 0
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            until(
                lambda: process.poll() is not None or (out.exists() and out.stat().st_size >= begun + 6_000),  # noqa: B023
                pause=0.005,
            )
            os.kill(process.pid, signal.SIGKILL)
        grown.append(out.stat().st_size - begun)
    assert min(grown) > 0
    assert len(out.read_bytes().splitlines()) < 80
    subprocess.run(command, check=True, timeout=200)
    assert sorted(read(out), key=str) == sorted(names)
