"""The log, the lines for people and the picture."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chatglm.errors import InputError
from chatglm.training.logs import JsonLog, Progress, draw, read_log


def state(step: int = 1, first: bool = True) -> Any:
    return SimpleNamespace(global_step=step, max_steps=10, is_world_process_zero=first)


def test_records_are_lines_and_come_back(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    log = JsonLog(file)
    for step in (1, 2):
        log.on_log(None, state(step), None, {"loss": 0.1 + step, "名": "值"})
    log.on_log(None, state(3, first=False), None, {"loss": 3.0})  # another process
    assert read_log(file) == [{"step": 1, "loss": 1.1, "名": "值"}, {"step": 2, "loss": 2.1, "名": "值"}]
    assert len(file.read_text("utf-8").splitlines()) == 2


def test_a_resumed_log_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """What was logged after the checkpoint is dropped, and so is the half line of a crash and the summary of an end."""
    file = tmp_path / "log.jsonl"
    records = [{"step": 5, "loss": 1.5}, {"step": 10, "loss": 1.0}, {"step": 10, "train_loss": 2.0}]
    file.write_text("".join(json.dumps(record) + "\n" for record in [*records, {"step": 15, "loss": 9}]) + '{"step": 2')
    JsonLog(file, upto=10).on_log(None, state(15), None, {"loss": 0.5})
    assert read_log(file) == [*records[:2], {"step": 15, "loss": 0.5}]


def test_a_fresh_run_begins_an_empty_log(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text('{"step": 1, "loss": 2}\n')
    JsonLog(file)
    assert read_log(file) == []


def test_a_file_that_is_no_log(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text('{"step": 1}\n{"loss": 2}\n{"step": 3}\n')
    with pytest.raises(InputError, match=r"log\.jsonl:2: not a line of a training log"):
        read_log(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_log(tmp_path / "nowhere")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_where_nobody_looks() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    progress.on_train_begin(None, state(0), None)
    progress.on_log(None, state(3), None, {"loss": 1.25, "learning_rate": 1e-4, "tokens_per_second": 321.0})
    progress.on_log(None, state(3, first=False), None, {"loss": 7.0})
    progress.on_log(None, state(4), None, {"eval_loss": 2.5, "eval_rouge-1": 33.0})
    progress.on_train_end(None, state(10), None)
    assert stream.getvalue().splitlines() == [
        "step 3/10  loss 1.25  lr 0.0001  tokens/s 321",
        "step 4/10  eval_loss 2.5  eval_rouge-1 33",
    ]


def test_a_bar_with_speed_and_time_left_on_a_terminal() -> None:
    stream = Terminal()
    progress = Progress(stream)
    progress.on_train_begin(None, state(2), None)  # resumed
    progress.on_log(None, state(3), None, {"loss": 1.25, "tokens_per_second": 321.0})
    progress.on_step_end(None, state(5), None)
    progress.on_log(None, state(5), None, {"eval_loss": 2.5})
    progress.close()
    shown = stream.getvalue()
    assert "5/10" in shown
    assert "loss 1.25  tokens/s 321" in shown
    assert "step 5/10  eval_loss 2.5" in shown


def pixels(file: Path) -> tuple[int, int, set[bytes]]:
    """Width, height and colours of a PNG of 8-bit RGBA, rows unfiltered as far as colours go."""
    data = file.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, body = 8, b""
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        kind, content = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        if kind == b"IHDR":
            width, height, depth, color = struct.unpack(">IIBB", content[:10])
            assert (depth, color) == (8, 6)
        body += content if kind == b"IDAT" else b""
        place += 12 + length
    raw = zlib.decompress(body)
    assert len(raw) == height * (1 + 4 * width)
    return width, height, {raw[n : n + 1] for n in range(0, len(raw), 97)}


def test_the_picture_shows_something(tmp_path: Path) -> None:
    draw([{"step": n, "loss": 3 / (n + 1)} for n in range(40)] + [{"step": 20, "eval_loss": 1}], tmp_path / "loss.png")
    width, height, values = pixels(tmp_path / "loss.png")
    assert width >= 600
    assert height >= 400
    assert len(values) > 10  # not one colour all over
    draw([{"step": 1, "loss": 1.0}], tmp_path / "other.png")
    assert (tmp_path / "other.png").read_bytes() != (tmp_path / "loss.png").read_bytes()
    with pytest.raises(InputError, match="no record has a loss"):
        draw([{"step": 1, "train_loss": 2}], tmp_path / "none.png")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["loss.png", "other.png"]
