"""`chatglm quantize`, run as users run it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_chat_command import chatglm

from chatglm.cli import main

TEXT = "北京是中华人民共和国的首都。The quick brown fox jumps over the lazy dog.\n" * 4


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_text(TEXT, "utf-8")
    return file


def here(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> tuple[str, str]:
    """In this process, which has torch already."""
    assert main([str(argument) for argument in arguments]) == status
    out, err = capsys.readouterr()
    return out, err


def test_rounding_with_perplexity(checkpoint, text: Path, tmp_path: Path) -> None:
    """In a process of its own: a table, nothing on stderr, a folder that chats."""
    out, err = chatglm(
        *("quantize", checkpoint("chatglm3"), "--output", tmp_path / "q", "--group-size", 32, "--perplexity", text)
    )
    assert err == ""
    lines = out.splitlines()
    assert lines[0].startswith("layer")
    assert any(line.startswith("transformer.encoder.layers.*.mlp.dense_h_to_4h") for line in lines)
    assert f"Try it: chatglm chat --model {tmp_path / 'q'}" in out
    report = json.loads((tmp_path / "q" / "report.json").read_text("utf-8"))
    assert len(report["layers"]) == 12
    assert set(report["perplexity"]) == {"text", "before", "after", "tokens"}
    assert f"{report['perplexity']['after']:.4f} after" in out
    out, _ = chatglm("chat", "你好", "--model", tmp_path / "q", "--max-new-tokens", 3, "--temperature", 0)
    assert out.strip()


def test_perplexity_of_a_folder_that_is_there_already(checkpoint, text: Path, tmp_path: Path, capsys) -> None:
    """What took hours is not done again for it."""
    arguments = ("quantize", checkpoint("chatglm3"), "--output", tmp_path / "q", "--group-size", 32)
    here(capsys, *arguments)
    weights = (tmp_path / "q" / "model.safetensors").stat().st_mtime_ns
    out, _ = here(capsys, *arguments, "--perplexity", text)
    assert "only the perplexity is measured" in out
    report = json.loads((tmp_path / "q" / "report.json").read_text("utf-8"))
    assert f"{report['perplexity']['after']:.4f} after" in out
    assert (tmp_path / "q" / "model.safetensors").stat().st_mtime_ns == weights
    out, _ = here(capsys, *arguments)
    assert "nothing to do" in out
    assert json.loads((tmp_path / "q" / "report.json").read_text("utf-8")) == report


@pytest.mark.parametrize("data", ["text.txt", "text.jsonl", "dialogues.jsonl"])
def test_gptq(data: str, checkpoint, text: Path, tmp_path: Path, capsys) -> None:
    rows = [{"text": TEXT}] * 2
    (tmp_path / "text.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    turns = {"conversations": [{"role": "user", "content": "你好"}, {"role": "assistant", "content": TEXT[:30]}]}
    (tmp_path / "dialogues.jsonl").write_text(json.dumps(turns), "utf-8")
    out, err = here(
        capsys,
        *("quantize", checkpoint("chatglm3"), "--output", tmp_path / "q", "--bits", 4, "--scheme", "official"),
        *("--method", "gptq", "--calibration", tmp_path / data, "--samples", 3, "--length", 64),
    )
    assert err == ""
    assert "output error" in out
    assert json.loads((tmp_path / "q" / "config.json").read_text("utf-8"))["quantization_bit"] == 4


def test_layout_head_and_embedding(checkpoint, tmp_path: Path, capsys) -> None:
    source = checkpoint("chatglm3")
    here(capsys, "quantize", source, "--output", tmp_path / "a", "--head", "--embedding", "--bits", 8)
    about = json.loads((tmp_path / "a" / "config.json").read_text("utf-8"))["quantization_config"]
    assert (about["bits"], about["group_size"], about["head"], about["embedding"]) == (8, 128, True, True)
    here(capsys, "quantize", source, "--output", tmp_path / "b", "--layout", "gptq", "--group-size", 32)
    about = json.loads((tmp_path / "b" / "config.json").read_text("utf-8"))["quantization_config"]
    assert about["quant_method"] == "gptq"


def test_usage(checkpoint, text: Path, tmp_path: Path, capsys) -> None:
    source, output = checkpoint("chatglm3"), ("--output", tmp_path / "q")
    for arguments, said in (
        (("--scheme", "official", "--group-size", 32), "--group-size: the official scheme"),
        (("--method", "gptq"), "--method gptq: give --calibration DATA"),
        (("--calibration", text), "--calibration: cannot be used with --method rtn"),
        (("--no-act-order",), "--no-act-order: cannot be used"),
        (("--samples", 0), "--samples: cannot be used with --method rtn"),
        (("--length", 64), "--length: is of passages for --method gptq or --perplexity"),
        (("--layout", "gptq", "--bits", 8), "GPTQ's layout needs 4 bits"),
        (("--device", "nonsense"), "device 'nonsense' cannot be used"),
        (("--perplexity", tmp_path / "none.txt"), "none.txt: no such file"),
        (("--method", "gptq", "--calibration", text, "--length", 3), "--length 3"),
        (("--method", "gptq", "--calibration", text, "--samples", 0), "--samples 0"),
    ):
        _, err = here(capsys, "quantize", source, *output, *arguments, status=1)
        assert err.startswith("chatglm: ")
        assert said in err
        assert err.count("\n") == 1
    _, err = here(capsys, "quantize", tmp_path / "none", *output, status=1)
    assert "no such folder" in err
    assert not (tmp_path / "q").exists()
